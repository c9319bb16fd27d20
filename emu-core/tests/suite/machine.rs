//! A CPU over a little flat RAM, the state of it that is compared, and two ways to run a block: the
//! plain reading of the op table, and threaded code.

use crate::toy;
use emu_core::clock::Clock;
use emu_core::cpu::{Cpu, Reg, X87, Ymm, mode};
use emu_core::fault::Fault;
use emu_core::flags::Flags;
use emu_core::interp::{Leave, execute, thread};
use emu_core::mem::PhysMem;
use emu_core::rare;
use emu_core::uop::{Block, Effect, Op, Src, Uop};
use emu_core::width::Width;
use std::sync::Arc;

/// Size of RAM: all that a 16-bit address reaches, and a bit.
pub const RAM: u64 = 0x1_2000;

/// A CPU in 64-bit mode with the toy frontend.
pub fn cpu() -> Cpu {
    let mut cpu = Cpu::new(PhysMem::flat(RAM).unwrap(), Arc::new(Clock::icount()), &toy::FRONTEND);
    cpu.mode = mode::CODE64;
    cpu
}

/// What a guest could see, and how the block was left.
#[derive(Debug, PartialEq)]
pub struct Seen {
    /// The fault it was left with, and the instruction that raised it.
    pub fault: Option<(Fault, usize)>,
    pub regs: Vec<u64>,
    pub flags: u32,
    pub v: Vec<Ymm>,
    pub mxcsr: u32,
    pub x87: X87,
    pub ram: Vec<u8>,
}

/// What there is to see of `cpu`.
pub fn seen(cpu: &Cpu, fault: Option<(Fault, usize)>) -> Seen {
    let mut ram = vec![0; RAM as usize];
    cpu.mem.ram.read_bytes(0, &mut ram);
    let regs = cpu.regs[..16].iter().chain(&cpu.regs[24..32]).copied().collect();
    let v = cpu.v[..16].to_vec();
    Seen { fault, regs, flags: cpu.flags.bits(), v, mxcsr: cpu.mxcsr, x87: cpu.x87, ram }
}

/// A start state made from `seed`: registers that are numbers of any size or addresses in RAM.
pub fn start(seed: u64) -> Cpu {
    let mut cpu = cpu();
    let mut x = seed | 1;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x
    };
    let words: Vec<u8> = (0..RAM / 8).flat_map(|_| next().to_le_bytes()).collect();
    cpu.mem.ram.write_bytes(0, &words);
    for r in &mut cpu.regs[..31] {
        *r = match next() % 4 {
            0 => next(),
            1 => next() >> (next() & 63),
            _ => next() % RAM,
        };
    }
    for v in cpu.v.iter_mut().flatten() {
        *v = next();
    }
    cpu.flags = Flags::from_bits(next() as u32);
    cpu
}

/// Runs `block` by the op table's plain reading.
pub fn reference(cpu: Cpu, block: &Block) -> Seen {
    reference_from(cpu, block, 0)
}

/// The same from micro-op `from` on.
pub fn reference_from(mut cpu: Cpu, block: &Block, from: usize) -> Seen {
    for (n, u) in block.uops.iter().enumerate().skip(from) {
        let r = match u.op.row().effect {
            Effect::End => end(&mut cpu, u),
            _ => rare::run(&mut cpu, u),
        };
        if let Err(f) = r {
            let insn = block.insns.partition_point(|m| m.uop as usize <= n) - 1;
            return seen(&cpu, Some((f, insn)));
        }
    }
    seen(&cpu, None)
}

/// Ends a block.
pub fn end(cpu: &mut Cpu, u: &Uop) -> Result<(), Fault> {
    let rip = cpu.rip();
    let jump = |to: i64, w: Width| w.zext(rip.wrapping_add(to as u64));
    let way = |taken: bool| if taken { u.imm } else { i64::from(u.fall) };
    let to = match u.op {
        Op::Raise => {
            return Err(Fault { error: (u.k != 0).then_some(0), ..Fault::new(u.imm as u8) });
        }
        Op::Goto | Op::Leave => jump(u.imm, u.w),
        Op::Jcc => jump(way(cpu.flags.cond(u.k)), u.w),
        Op::Jrnz => jump(way(u.w.zext(cpu.reg(u.a)) != 0), Width::from_index(u.k)),
        Op::Jmpi => u.w.zext(cpu.reg(u.a)),
        _ => rip,
    };
    cpu.set_rip(to);
    Ok(())
}

/// Runs `block` as threaded code; also gives the number of records.
pub fn threaded(mut cpu: Cpu, block: &Block) -> (Seen, usize) {
    let t = thread::thread(&mut cpu, block);
    cpu.budget = 1 << 40;
    let (why, at) = execute(&mut cpu, &t.recs, 0);
    let fault = match why {
        Leave::Fault => Some((cpu.fault, t.marks.partition_point(|m| usize::from(m.0) <= at) - 1)),
        Leave::Lookup | Leave::LinkTaken | Leave::LinkFall | Leave::Exit => {
            assert_eq!((1 << 40) - cpu.budget, block.insns.len() as i64, "instructions charged");
            None
        }
        other => panic!("left with {other:?}"),
    };
    assert_eq!(t.marks.len(), block.insns.len());
    (seen(&cpu, fault), t.recs.len())
}

/// Asserts that two runs of `block` ended alike.
pub fn same(block: &Block, got: &Seen, want: &Seen, what: &str) {
    if got == want {
        return;
    }
    let mut diff = String::new();
    for (i, (g, w)) in got.regs.iter().zip(&want.regs).enumerate().filter(|(_, (g, w))| g != w) {
        let r = if i < 16 { i } else { i + 8 };
        diff += &format!("register {r}: {g:#x}, expected {w:#x}\n");
    }
    for (i, (g, w)) in got.ram.iter().zip(&want.ram).enumerate().filter(|(_, (g, w))| g != w) {
        diff += &format!("byte at {i:#x}: {g:#x}, expected {w:#x}\n");
    }
    for (i, (g, w)) in got.v.iter().zip(&want.v).enumerate().filter(|(_, (g, w))| g != w) {
        diff += &format!("v{i}: {g:x?}, expected {w:x?}\n");
    }
    if got.x87 != want.x87 {
        let word = |x: &X87| format!("cw {:x} sw {:x} full {:x}", x.cw, x.sw, x.full);
        let (g, w) = (X87 { st: want.x87.st, ..got.x87 }, want.x87);
        diff += &format!("{}, expected {}\n{g:x?}\n{w:x?}\n", word(&g), word(&w));
        for (i, (g, w)) in got.x87.st.iter().zip(&w.st).enumerate().filter(|(_, (g, w))| g != w) {
            diff += &format!("R{i}: {g:x?}, expected {w:x?}\n");
        }
    }
    panic!(
        "{what} differs:\n{block}{diff}flags {:#x}, expected {:#x}; fault {:x?}, expected {:x?}",
        got.flags, want.flags, got.fault, want.fault
    );
}

/// Asserts that threaded code does with `block` what the op table says; gives its records.
pub fn check(seed: u64, block: &Block) -> usize {
    let want = reference(start(seed), block);
    let (got, records) = threaded(start(seed), block);
    same(block, &got, &want, "threaded code");
    records
}

/// A register that is not `ZERO`, or an immediate: for reading a test's table.
pub fn src(r: Option<Reg>, v: i64) -> Src {
    r.map_or(Src::Imm(v), Src::Reg)
}
