//! Lockstep finds what a code generator does wrong: one that falsifies a block, or leads from one
//! block to another where it should not, is told apart, and the report names the block.

mod pvh;

use emu_core::native::{Enter, HostInsn, NativeStats, Part, Target, Translator};
use emu_core::uop::{Block, Op, Src};
use iced_x86::code_asm::*;
use iced_x86::{BlockEncoderOptions, IcedError};
use machine::lockstep::{Ended, Report};
use machine::{
    Boot, Buffer, ClockKind, DebugExit, Engine, Lockstep, Machine, MachineConfig, Outcome,
};
use std::time::Duration;

/// A generator that is another one, but for blocks that `change` changes, and for links if
/// `crossed`.
struct Faulty {
    inner: Box<dyn Translator>,
    change: fn(&mut Block),
    crossed: bool,
}

impl Translator for Faulty {
    fn enter(&self) -> Enter {
        self.inner.enter()
    }

    fn translate(&mut self, parts: &[Part]) -> Option<u64> {
        let mut blocks: Vec<Block> = parts.iter().map(|p| p.block.clone()).collect();
        blocks.iter_mut().for_each(self.change);
        let changed = blocks.iter().zip(parts);
        let parts: Vec<Part> = changed.map(|(block, p)| Part { block, place: p.place }).collect();
        self.inner.translate(&parts)
    }

    fn entry(&self, first: u32) -> Option<u64> {
        self.inner.entry(first)
    }

    fn link(&mut self, from: u32, taken: bool, to: Target) {
        self.inner.link(from, taken != self.crossed, to);
    }

    fn found(&mut self, first: u32) {
        self.inner.found(first);
    }

    fn kill(&mut self, first: u32) -> Vec<u32> {
        self.inner.kill(first)
    }

    fn evict(&mut self) -> Vec<u32> {
        self.inner.evict()
    }

    fn clear(&mut self) {
        self.inner.clear();
    }

    fn stats(&self) -> NativeStats {
        self.inner.stats()
    }

    fn listing(&self, first: u32) -> Vec<HostInsn> {
        self.inner.listing(first)
    }
}

/// A guest that echoes a byte, sums and stores, waits long, and reads what it stored. Addresses of
/// the block that sums for the first time, and of that which stores.
fn guest() -> (Boot, [u64; 2]) {
    let assemble = || -> Result<_, IcedError> {
        let mut a = CodeAssembler::new(32)?;
        let [mut poll, mut add, mut sum, mut store, mut wait, mut again] =
            [(); 6].map(|()| a.create_label());
        a.set_label(&mut poll)?;
        a.mov(edx, 0x3fd)?;
        a.in_(al, dx)?;
        a.test(al, 1)?;
        a.jz(poll)?;
        a.mov(edx, 0x3f8)?;
        a.in_(al, dx)?;
        a.out(dx, al)?;
        a.jmp(add)?;
        a.set_label(&mut add)?;
        a.mov(ecx, 500)?;
        a.set_label(&mut sum)?;
        a.add(ebx, 3)?;
        a.dec(ecx)?;
        a.jnz(sum)?;
        a.jmp(store)?;
        a.set_label(&mut store)?;
        a.mov(dword_ptr(0x1000), 0x1234)?;
        a.mov(esi, 350)?;
        a.set_label(&mut wait)?;
        a.mov(ecx, 0xffff)?;
        a.set_label(&mut again)?;
        a.loop_(again)?;
        a.dec(esi)?;
        a.jnz(wait)?;
        a.mov(eax, dword_ptr(0x1000))?;
        a.out(0xf4, al)?;
        let options = BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS;
        let done = a.assemble_options(pvh::BASE.into(), options)?;
        let at = [done.label_ip(&add)?, done.label_ip(&store)?];
        Ok((done.inner.code_buffer, at))
    };
    let (code, at) = assemble().unwrap();
    (pvh::pvh(&code), at)
}

/// Runs the guest with a faulty generator; gives how it ended and what it printed. `None` on a
/// host without a generator.
fn run(change: fn(&mut Block), crossed: bool) -> Option<(Ended, String)> {
    machine::host_translator()?;
    let config = MachineConfig {
        memory: 2 << 20,
        clock: ClockKind::Icount,
        engine: Engine::Interp,
        debug_exit: Some(DebugExit::default()),
        ..MachineConfig::new(guest().0)
    };
    let mut both = Lockstep::with(move || {
        let mut b = Machine::new(config.clone())?;
        let inner = machine::host_translator().unwrap();
        b.set_translator(Box::new(Faulty { inner, change, crossed }), 1);
        Ok([Machine::new(config.clone())?, b])
    })
    .unwrap();
    let serial = Buffer::default();
    both.front().connect_serial(0, Box::new(serial.clone()));
    both.front().control().send(0, b"a");
    Some((both.run(Some(Duration::from_secs(300))).unwrap(), serial.text()))
}

/// Replaces the constant `from` of an operation by `to`.
fn constant(block: &mut Block, op: Op, from: i64, to: i64) {
    for u in block.uops.iter_mut().filter(|u| u.op == op && u.b == Src::Imm(from)) {
        u.b = Src::Imm(to);
    }
}

#[track_caller]
fn report(run: Option<(Ended, String)>) -> Option<Report> {
    match run? {
        (Ended::Differ(report), serial) => {
            assert_eq!(serial, "a", "printed once");
            Some(report)
        }
        (end, _) => panic!("{end:?}"),
    }
}

#[test]
fn a_generator_without_faults_is_the_same() {
    let Some((end, serial)) = run(|_| (), false) else { return };
    assert!(matches!(end, Ended::Same(Outcome::DebugExit(0x69))), "{end:?}");
    assert_eq!(serial, "a");
}

#[test]
fn a_wrong_register_is_found_in_its_block() {
    let Some(report) = report(run(|b| constant(b, Op::Add, 3, 5), false)) else { return };
    let [add, _] = guest().1;
    assert_eq!(report.block.map(|b| b.va), Some(add), "{}", report.text);
    let line = report.text.lines().find(|l| l.starts_with("* rbx")).unwrap();
    assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["*", "rbx", "3000", "3003", "3005"]);
    for has in ["add ebx,3", "add.32 rbx, rbx, 0x3", ", translated", "unchanged: "] {
        assert!(report.text.contains(has), "{has}:\n{}", report.text);
    }
    // Host code of the addition, with the falsified constant.
    assert!(report.text.lines().any(|l| l.contains("add") && l.ends_with(",5")), "{}", report.text);
}

#[test]
fn a_wrong_store_is_found_in_its_block_though_it_is_seen_late() {
    let Some(report) = report(run(|b| constant(b, Op::St, 0x1234, 0x4321), false)) else { return };
    let [_, store] = guest().1;
    assert_eq!(report.block.map(|b| b.va), Some(store), "{}", report.text);
    let line = report.text.lines().find(|l| l.starts_with("* RAM 0x1000")).unwrap();
    assert!(line.contains("1234") && line.contains("4321"), "{line}");
}

#[test]
fn a_wrong_link_is_found_between_blocks() {
    let Some(report) = report(run(|_| (), true)) else { return };
    assert_eq!(report.block, None, "{}", report.text);
    assert!(report.text.contains("several blocks"), "{}", report.text);
    assert!(report.text.contains("\n100000  ba fd 03"), "{}", report.text);
}
