//! Helpers that host code does itself in their usual case, against the helpers.

use crate::machine::{RAM, Seen, seen, start};
use crate::random;
use backend_jit::x64::X64;
use emu_core::cpu::{Cpu, Reg};
use emu_core::flags::rflags::{DF, IF, RF};
use emu_core::interp::Leave;
use emu_core::mem::tlb::Access;
use emu_core::native::{Part, Place, Translator};
use emu_core::platform::{NoDevices, Platform};
use emu_core::rare;
use emu_core::uop::{Block, Effect, HelperDef, Op, Quick, Src, Uop};
use emu_core::width::Width;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// A machine that says whether it has an interrupt.
#[derive(Default)]
struct Board(NoDevices, AtomicBool);

impl Platform for Board {
    fn mmio_read(&self, pa: u64, size: u8) -> u64 {
        self.0.mmio_read(pa, size)
    }
    fn mmio_write(&self, _pa: u64, _size: u8, _value: u64) {}
    fn port_in(&self, port: u16, size: u8) -> u32 {
        self.0.port_in(port, size)
    }
    fn port_out(&self, _port: u16, _size: u8, _value: u32) {}
    fn apic_msr_read(&self, _msr: u32, _tsc: u64) -> Option<u64> {
        None
    }
    fn apic_msr_write(&self, _msr: u32, _value: u64, _tsc: u64) -> Option<()> {
        None
    }
    fn tpr(&self) -> u8 {
        0
    }
    fn set_tpr(&self, _value: u8) {}
    fn interrupt_pending(&self) -> bool {
        self.1.load(std::sync::atomic::Ordering::Relaxed)
    }
    fn request_flag(&self) -> &AtomicBool {
        &self.1
    }
    fn acknowledge(&self) -> Option<u8> {
        None
    }
}

/// Numbers in a row that is the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 8) % n
    }

    fn of<T: Copy>(&mut self, choice: &[T]) -> T {
        choice[self.next(choice.len() as u64) as usize]
    }
}

/// What is compared.
type State = (Seen, [u64; 6], Vec<u64>, bool);

fn state(cpu: &Cpu, fault: Option<emu_core::fault::Fault>, spent: i64) -> State {
    let s = &cpu.sys;
    let system = [cpu.sysflags, s.kernel_gs_base, s.cr2, s.cr4, spent as u64, cpu.held as u64];
    (seen(cpu, fault.map(|f| (f, 0))), system, cpu.regs[16..24].to_vec(), cpu.shadow)
}

const BUDGET: i64 = 1 << 30;

fn by_helper(mut cpu: Cpu, block: &Block) -> State {
    cpu.budget = BUDGET;
    for u in block.uops.iter().filter(|u| u.op.row().effect != Effect::End) {
        if let Err(f) = rare::run(&mut cpu, u) {
            return state(&cpu, Some(f), BUDGET - cpu.budget - cpu.held);
        }
    }
    let spent = BUDGET - cpu.budget - cpu.held + block.insns.len() as i64;
    cpu.set_rip(cpu.rip().wrapping_add(1));
    state(&cpu, None, spent)
}

fn by_host(mut cpu: Cpu, block: &Block) -> State {
    let mut x = X64::new(1 << 20).unwrap();
    let insns: Vec<u32> = (0..block.insns.len() as u32).map(|n| 100 + n).collect();
    let place = Place { first: 100, last: 5000, insns: &insns, off: !4095, mode: cpu.mode };
    let entry = x.translate(&[Part { block, place }]).unwrap();
    cpu.budget = BUDGET;
    let (why, _) = Leave::decode(x.enter()(&mut cpu, entry));
    let fault = (why == Leave::Fault).then_some(cpu.fault);
    state(&cpu, fault, BUDGET - cpu.budget - cpu.held)
}

/// The helper between micro-ops that write and read the flags.
fn block(r: &mut Random, def: &'static HelperDef, quick: Quick) -> Block {
    let mut block = random::block(&[]);
    block.uops.pop();
    let end = Uop { imm: 1, ..Uop::new(Op::Goto, Width::W64) };
    let gpr = [Reg::RAX, Reg::RDX, Reg::RCX, Reg::RSI, Reg::gpr(9), Reg::gpr(12), Reg::T2];
    let before = Uop {
        d: r.of(&[Reg::ZERO, Reg::gpr(8)]),
        a: r.of(&gpr),
        b: r.of(&[Src::Imm(5), Src::Reg(Reg::RDX), Src::Reg(Reg::gpr(13))]),
        ..Uop::new(r.of(&[Op::Sub, Op::Add, Op::And]), r.of(&Width::ALL))
    };
    let string = matches!(quick, Quick::Movs | Quick::Stos | Quick::Lods);
    let whole = !matches!(quick, Quick::Div | Quick::ReadBase | Quick::WriteBase) && !string;
    let imm = match quick {
        _ if string => r.of(&[3, 3, 3, 2]) | r.of(&[3, 3, 0, 2, 5]) << 2,
        Quick::Sti | Quick::SetDf => r.next(2),
        Quick::MovFromCr => r.of(&[0, 2, 3]),
        Quick::ReadBase | Quick::WriteBase => r.of(&[4, 5]),
        _ => r.next(6),
    };
    let helper = Uop {
        helper: Some(def),
        k: if string { r.of(&[0, 1, 1]) } else { r.next(2) as u8 },
        d: if string { Reg::T1 } else { r.of(&gpr) },
        a: r.of(&gpr),
        imm: imm as i64,
        ..Uop::new(Op::Helper, if whole { Width::W64 } else { r.of(&Width::ALL) })
    };
    let narrow_base = matches!(quick, Quick::ReadBase | Quick::WriteBase) && helper.w < Width::W32;
    let helper = Uop { w: if narrow_base { Width::W32 } else { helper.w }, ..helper };
    let after =
        Uop { d: Reg::gpr(14), a: r.of(&gpr), b: Src::Imm(1), ..Uop::new(Op::Adc, Width::W64) };
    block.uops.extend([before, helper, after, end]);
    block
}

fn cpu(seed: u64, quick: Quick) -> Cpu {
    let mut r = Random(seed | 1);
    let mut c = start(seed);
    let pending = r.next(4) == 0;
    c.mem.platform = Arc::new(Board(NoDevices, AtomicBool::new(pending)));
    c.sysflags |= r.of(&[0, 0, 0, DF]) | r.of(&[0, 0, 0, RF]) | r.of(&[0, IF]);
    c.sys.cr4 = r.of(&[0, 1 << 16]);
    (c.sys.cr0, c.sys.cr2, c.sys.kernel_gs_base) = (r.next(9), r.next(1 << 40), r.next(1 << 60));
    // Of the toy frontend it is where its page table is.
    c.sys.cr3 = if quick == Quick::MovFromCr { r.next(1 << 40) } else { 0 };
    for s in &mut c.segs {
        s.selector = r.next(1 << 16) as u16;
    }
    if matches!(quick, Quick::Movs | Quick::Stos | Quick::Lods | Quick::CompareExchangeWide) {
        for reg in [Reg::RSI, Reg::RDI] {
            let near = [0x1000, 0x1ff0, 0x3000, 0x2f80, 0x5fff, RAM - 64];
            c.set_reg(reg, r.of(&near) + r.next(33));
        }
        c.set_reg(Reg::RCX, r.of(&[0, 1, 3, 17, 64, 500, 512, 4096, 5000]));
        if r.next(3) == 0 {
            let at = 0x4010;
            [Reg::RAX, Reg::RDX, Reg::RSI, Reg::gpr(9), Reg::gpr(12), Reg::T2, Reg::RCX]
                .iter()
                .for_each(|reg| c.set_reg(*reg, at + r.next(20) / 16));
            let (lo, hi) = (c.reg(Reg::RAX), c.reg(Reg::RDX));
            c.mem.write(at, Width::W64, lo);
            c.mem.write(at + 8, Width::W64, hi);
        }
    }
    if quick == Quick::Div {
        let small = |r: &mut Random| r.of(&[0, 1, 7, u64::MAX, 1 << 31, 0xffff_ffff, 1 << 63]);
        c.set_reg(Reg::RDX, r.of(&[0, 0, 1, u64::MAX, 0xffff_ffff]));
        let (rax, rcx) = (c.reg(Reg::RAX), c.reg(Reg::RCX));
        let v = small(&mut r);
        c.set_reg(Reg::RAX, r.of(&[rax, v]));
        let v = small(&mut r);
        c.set_reg(Reg::RCX, r.of(&[rcx, v]));
        if r.next(2) == 0 {
            // As CQO does.
            c.set_reg(Reg::RDX, (c.reg(Reg::RAX) as i64 >> 63) as u64);
        }
    }
    c
}

fn warm(seed: u64, quick: Quick) -> Cpu {
    let mut cpu = cpu(seed, quick);
    if cpu.sys.cr3 != 0 {
        return cpu;
    }
    for page in (0..RAM).step_by(4096) {
        cpu.probe(page, 1, Access::Read).unwrap();
        cpu.probe(page, 1, Access::Write).unwrap();
    }
    cpu
}

#[test]
fn the_usual_case_is_what_the_helper_does() {
    let all = frontend_x86::FRONTEND.helpers.iter().copied().flatten();
    let mut seen = 0;
    for (def, quick) in all.filter_map(|def| Some((*def, def.quick?))) {
        seen += 1;
        let mut r = Random(0x9e37_79b9 + seen);
        for n in 0..400 {
            let (block, seed) = (block(&mut r, def, quick), r.next(u64::MAX));
            let want = by_helper(cpu(seed, quick), &block);
            for (name, make) in [("cold", cpu as fn(u64, Quick) -> Cpu), ("warm", warm)] {
                let got = by_host(make(seed, quick), &block);
                if got != want {
                    let regs = |s: &State| format!("{:x?} {:x?} {:x?}", s.0.regs, s.1, s.2);
                    panic!(
                        "{} number {n}, {name}\n{block}start {:x?} {:x}\ngot  {} {:x?} {:x}\nwant {} {:x?} {:x}",
                        def.name,
                        cpu(seed, quick).regs,
                        cpu(seed, quick).sysflags,
                        regs(&got),
                        got.0.fault,
                        got.0.flags,
                        regs(&want),
                        want.0.fault,
                        want.0.flags,
                    );
                }
            }
        }
    }
    assert_eq!(seen, 14, "each of them is some helper's");
}
