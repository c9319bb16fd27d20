//! Helpers whose usual case host code does itself: division, string instructions within a page, and
//! what a kernel does at every turn (interrupts off and on, SWAPGS, PUSHF).
//!
//! A helper tells by its [`Quick`] which it is; what it means is written in the helper. Here is
//! what is left of it in the usual case: memory that a slot holds, a CPU mode that the code was
//! lifted for, nothing to be raised. Where the case is another one, the micro-op is called out of
//! line, from the start: nothing has been changed before.

use super::alu::rm;
use super::asm::{RAX, RBP, RCX, RDX, Rm, cc};
use super::flags::State;
use super::memory::Kind;
use super::{Cold, Compiler, Loc, NATIVE_PENDING, loc};
use crate::enter::{BIAS, BUDGET};
use core::mem::offset_of;
use emu_core::cpu::{Cpu, Reg, Seg, Segment, SysRegs, mode};
use emu_core::flags::rflags::{DF, IF, RF, VM};
use emu_core::uop::{Mem, Quick, Uop};
use emu_core::width::Width::{W8, W32, W64};

/// The host's RSI and RDI, which string instructions are bound to.
const SI: u8 = 6;
const DI: u8 = 7;

const SYSFLAGS: Rm = field(offset_of!(Cpu, sysflags));
/// Bits 15:8 of them.
const SYSFLAGS1: Rm = field(offset_of!(Cpu, sysflags) + 1);
/// Where a register's value may be put that nobody wants.
const SPARE: Rm = field(offset_of!(Cpu, regs) + 8 * Cpu::DROP as usize);

const fn field(at: usize) -> Rm {
    Rm::M(RBP, at as i32 - BIAS as i32)
}

const fn sys(at: usize) -> Rm {
    field(offset_of!(Cpu, sys) + at)
}

/// Jumps that are taken where the usual case does not hold: up to two slots that miss, and others.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Misses {
    slots: [Option<usize>; 2],
    others: [Option<usize>; 6],
}

impl Misses {
    fn slot(&mut self, jump: usize) {
        self.slots[usize::from(self.slots[0].is_some())] = Some(jump);
    }

    fn other(&mut self, jump: usize) {
        let free = self.others.iter_mut().find(|o| o.is_none());
        *free.expect("as many ways out as there are places") = Some(jump);
    }
}

impl Compiler<'_> {
    /// Emits the usual case of the helper that `u` calls; `false` if it has none here.
    pub(super) fn quick(&mut self, u: &Uop) -> bool {
        let Some(quick) = u.helper.and_then(|h| h.quick) else { return false };
        let m = self.place.mode;
        let code64 = m & mode::CODE64 != 0;
        // 64-bit code cannot be virtual-8086 mode.
        let kernel = code64 && m & (mode::USER | mode::CPL12) == 0;
        if self.vector.cold || self.in_strip() {
            return false;
        }
        // What it writes: flags are not computed again from that.
        let writes = [Reg::RAX, Reg::RCX, Reg::RDX, Reg::RSI, Reg::RDI, u.d];
        if self.recipe.is_some_and(|recipe| writes.iter().any(|r| recipe.reads(*r))) {
            self.save();
            self.recipe = None;
        }
        let mut misses = Misses::default();
        match quick {
            Quick::Div if u.w >= W32 => self.divide(u, &mut misses),
            Quick::Movs | Quick::Stos | Quick::Lods if code64 => {
                let segment = u.imm as u8 >> 2;
                if u.imm & 3 != W64 as i64 || segment == Seg::Fs as u8 || segment == Seg::Gs as u8 {
                    return false;
                }
                match (quick, u.k) {
                    (_, 0) => self.string_once(u, quick, &mut misses),
                    (Quick::Lods, _) => return false,
                    _ => self.string(u, quick == Quick::Movs, &mut misses),
                }
            }
            Quick::CompareExchangeWide if code64 && u.w == W64 => self.exchange(u, &mut misses),
            Quick::Cli if kernel => {
                self.settle();
                self.a.alu_imm(W8, 4, SYSFLAGS1, !(IF >> 8) as i64);
            }
            Quick::Sti if kernel && u.imm == 1 => self.sti(&mut misses),
            Quick::SetDf => {
                self.settle();
                match u.imm {
                    0 => self.a.alu_imm(W8, 4, SYSFLAGS1, !(DF >> 8) as i64),
                    _ => self.a.alu_imm(W8, 1, SYSFLAGS1, (DF >> 8) as i64),
                }
            }
            Quick::Pushf if code64 => {
                self.flags_value();
                self.a.mov(W64, RAX, SYSFLAGS);
                self.a.alu_imm(W64, 4, Rm::R(RAX), !(VM | RF) as i64);
                self.a.op(W64, 0x0b, RCX, Rm::R(RAX));
                self.put(u.d, W64, RCX);
            }
            Quick::ReadSeg => {
                let n = (u.imm as usize).min(5);
                let at = offset_of!(Cpu, segs) + n * size_of::<Segment>();
                self.a.op0f(W32, 0xb7, RCX, field(at + offset_of!(Segment, selector)));
                self.put(u.d, W64, RCX);
            }
            Quick::Swapgs if kernel => {
                let (gs, kernel) = (rm(Seg::Gs.base()), sys(offset_of!(SysRegs, kernel_gs_base)));
                self.a.mov(W64, RAX, gs);
                self.a.mov(W64, RCX, kernel);
                self.a.store(W64, gs, RCX);
                self.a.store(W64, kernel, RAX);
            }
            Quick::ReadBase | Quick::WriteBase if code64 => {
                let base = rm(Seg::ALL[(u.imm as usize).min(5)].base());
                self.settle();
                // CR4.FSGSBASE
                self.a.ext(W32, 0xf7, 0, sys(offset_of!(SysRegs, cr4)));
                self.a.dword(1 << 16);
                misses.other(self.a.jcc(cc::E));
                if quick == Quick::ReadBase {
                    self.a.mov(W64, RCX, base);
                    self.put(u.d, u.w, RCX);
                } else {
                    self.value(RCX, u.w, u.a.into());
                    misses.other(self.canonical_or(RCX));
                    self.a.store(W64, base, RCX);
                }
            }
            Quick::MovFromCr if kernel => {
                let at = match u.imm {
                    0 => offset_of!(SysRegs, cr0),
                    2 => offset_of!(SysRegs, cr2),
                    3 => offset_of!(SysRegs, cr3),
                    _ => return false,
                };
                self.a.mov(W64, RCX, sys(at));
                self.put(u.d, W64, RCX);
            }
            _ => return false,
        }
        if misses.slots[0].is_some() || misses.others[0].is_some() {
            let (resume, record) = (self.a.here(), self.record());
            self.later(Cold::Quick { misses, resume, record, u: *u });
        }
        true
    }

    /// The way out of line: `u` is called.
    pub(super) fn quick_missed(
        &mut self,
        m: &Misses,
        resume: usize,
        record: u32,
        u: &Uop,
        end: State,
    ) {
        let mut calls = Vec::new();
        for slot in m.slots.into_iter().flatten() {
            self.fill(slot);
            calls.push(self.a.jmp());
        }
        for jump in m.others.into_iter().flatten().chain(calls) {
            self.a.bind(jump);
        }
        self.x87_store_note();
        self.insn_record = Some(record);
        self.call_routine(u);
        self.set_state(State::MEMORY);
        self.restore(end);
        self.resume(resume);
    }

    /// DIV and IDIV, where the quotient fits for sure: the upper half of the dividend is less than
    /// the divisor, or, with sign, that of the lower half's sign, and the divisor neither 0 nor -1.
    fn divide(&mut self, u: &Uop, misses: &mut Misses) {
        let (w, signed) = (u.w, u.k != 0);
        self.settle();
        self.value(RCX, w, u.a.into());
        self.value(RAX, w, Reg::RAX.into());
        if signed {
            // CDQ, CQO
            if w == W64 {
                self.a.byte(0x48);
            }
            self.a.byte(0x99);
            self.a.op(w, 0x3b, RDX, rm(Reg::RDX));
            misses.other(self.a.jcc(cc::NE));
            // RDX is 0 or -1 now, and free: found again below.
            self.a.op(W64, 0x8d, RDX, Rm::M(RCX, 1));
            self.a.alu_imm(w, 7, Rm::R(RDX), 1);
            misses.other(self.a.jcc(cc::BE));
            self.value(RDX, w, Reg::RDX.into());
        } else {
            self.value(RDX, w, Reg::RDX.into());
            self.a.op(w, 0x3b, RDX, Rm::R(RCX));
            misses.other(self.a.jcc(cc::AE));
        }
        self.a.ext(w, 0xf7, if signed { 7 } else { 6 }, Rm::R(RCX));
        self.put(Reg::RDX, w, RDX);
        self.put(Reg::RAX, w, RAX);
    }

    fn sti(&mut self, misses: &mut Misses) {
        self.settle();
        self.a.ext(W8, 0xf7, 0, SYSFLAGS1);
        self.a.byte((IF >> 8) as u8);
        let on = self.a.jcc(cc::NE);
        // An interrupt that waits ends the run.
        self.a.mov(W64, RAX, Rm::M(RBP, NATIVE_PENDING));
        self.a.alu_imm(W8, 7, Rm::M(RAX, 0), 0);
        misses.other(self.a.jcc(cc::NE));
        self.a.alu_imm(W8, 1, SYSFLAGS1, (IF >> 8) as i64);
        self.a.bind(on);
    }

    /// Where the element that register `r` points to is, in host memory.
    fn element(&mut self, r: Reg, kind: Kind, bytes: u64, misses: &mut Misses) -> Rm {
        self.address(&Mem::at(r, 0));
        let (at, miss) = self.check(kind, bytes);
        misses.slot(miss);
        at
    }

    /// Moves `r` by RCX elements.
    fn moved(&mut self, r: Reg, scale: u8) {
        let from = self.get(r, W64, RAX);
        let to = if let Loc::Host(h) = loc(r) { h } else { RAX };
        self.a.op(W64, 0x8d, to, Rm::X(from, RCX, scale, 0));
        self.put(r, W64, to);
    }

    /// REP MOVS (`copies`) and REP STOS upwards, of elements that lie in one page each side.
    fn string(&mut self, u: &Uop, copies: bool, misses: &mut Misses) {
        let scale = u.w as u8;
        self.settle();
        self.a.ext(W32, 0xf7, 0, SYSFLAGS);
        self.a.dword((DF | RF) as i32);
        misses.other(self.a.jcc(cc::NE));
        let count = self.get(Reg::RCX, W64, RCX);
        self.a.alu_imm(W64, 7, Rm::R(count), 4096 >> scale);
        misses.other(self.a.jcc(cc::A));
        let pointers = [Reg::RDI, Reg::RSI];
        let pointers = &pointers[..1 + usize::from(copies)];
        for &r in pointers {
            let (count, at) = (self.get(Reg::RCX, W64, RCX), self.get(r, W64, RDX));
            self.a.op(W64, 0x8d, RAX, Rm::X(at, count, scale, -1));
            self.a.op(W64, 0x33, RAX, Rm::R(at));
            self.a.alu_imm(W64, 7, Rm::R(RAX), 4095);
            misses.other(self.a.jcc(cc::A));
        }
        let to = self.element(Reg::RDI, Kind::Store, 1, misses);
        self.a.op(W64, 0x8d, RAX, to);
        if copies {
            self.a.store(W64, SPARE, RAX);
            let from = self.element(Reg::RSI, Kind::Load, 1, misses);
            self.a.op(W64, 0x8d, RDX, from);
        } else {
            self.a.mov(W64, RDX, Rm::R(RAX));
            self.value(RAX, W64, Reg::RAX.into());
        }
        self.value(RCX, W64, Reg::RCX.into());
        self.a.push(DI);
        if copies {
            self.a.push(SI);
            self.a.mov(W64, SI, Rm::R(RDX));
            self.a.mov(W64, DI, SPARE);
        } else {
            self.a.mov(W64, DI, Rm::R(RDX));
        }
        let w = [&[0xf3][..], &[0x66, 0xf3], &[0xf3], &[0xf3, 0x48]][usize::from(scale & 3)];
        self.a.bytes(w);
        let wide = u8::from(scale != 0);
        self.a.byte(if copies { 0xa4 } else { 0xaa } | wide);
        if copies {
            self.a.pop(SI);
        }
        self.a.pop(DI);
        self.value(RCX, W64, Reg::RCX.into());
        for &r in pointers {
            self.moved(r, scale);
        }
        // Eight iterations are charged as one instruction.
        self.a.op(W64, 0x8d, RCX, Rm::M(RCX, 7));
        self.a.ext(W32, 0xc1, 5, Rm::R(RCX));
        self.a.byte(3);
        self.a.op(W64, 0x2b, BUDGET, Rm::R(RCX));
        self.put_imm(Reg::RCX, W64, 0);
        self.put_imm(u.d, W64, 0);
    }

    /// MOVS, STOS and LODS upwards.
    fn string_once(&mut self, u: &Uop, quick: Quick, misses: &mut Misses) {
        let (w, n) = (u.w, u.w.bytes());
        self.settle();
        self.a.ext(W8, 0xf7, 0, SYSFLAGS1);
        self.a.byte((DF >> 8) as u8);
        misses.other(self.a.jcc(cc::NE));
        if quick != Quick::Lods {
            let to = self.element(Reg::RDI, Kind::Store, n, misses);
            self.a.op(W64, 0x8d, RDX, to);
        }
        if quick == Quick::Movs {
            self.a.store(W64, SPARE, RDX);
        }
        if quick == Quick::Stos {
            self.value(RCX, W64, Reg::RAX.into());
        } else {
            let from = self.element(Reg::RSI, Kind::Load, n, misses);
            self.a.op(w, 0x8b, RCX, from);
        }
        match quick {
            Quick::Lods => self.put(Reg::RAX, w, RCX),
            Quick::Movs => {
                self.a.mov(W64, RDX, SPARE);
                self.a.store(w, Rm::M(RDX, 0), RCX);
            }
            _ => self.a.store(w, Rm::M(RDX, 0), RCX),
        }
        for (r, moves) in [(Reg::RSI, quick != Quick::Stos), (Reg::RDI, quick != Quick::Lods)] {
            if moves {
                self.a.imm(RCX, n);
                self.moved(r, 0);
            }
        }
    }

    /// CMPXCHG16B.
    fn exchange(&mut self, u: &Uop, misses: &mut Misses) {
        self.save();
        self.settle();
        let a = self.get(u.a, W64, RAX);
        self.a.ext(W8, 0xf7, 0, Rm::R(a));
        self.a.byte(15);
        misses.other(self.a.jcc(cc::NE));
        let at = self.element(u.a, Kind::Store, 16, misses);
        self.a.op(W64, 0x8d, RDX, at);
        self.a.mov(W64, RAX, Rm::M(RDX, 0));
        self.a.op(W64, 0x3b, RAX, rm(Reg::RAX));
        self.a.mov(W64, RCX, Rm::M(RDX, 8));
        let low = self.a.jcc(cc::NE);
        self.a.op(W64, 0x3b, RCX, rm(Reg::RDX));
        let high = self.a.jcc(cc::NE);
        let (lo, hi) = (self.get(Reg::RBX, W64, RAX), self.get(Reg::RCX, W64, RCX));
        self.a.store(W64, Rm::M(RDX, 0), lo);
        self.a.store(W64, Rm::M(RDX, 8), hi);
        // ZF, as LAHF has it.
        let Rm::M(base, flags) = self.flags_word() else { return };
        self.a.alu_imm(W8, 1, Rm::M(base, flags + 1), 0x40);
        let done = self.a.jmp();
        self.a.bind(low);
        self.a.bind(high);
        self.put(Reg::RAX, W64, RAX);
        self.put(Reg::RDX, W64, RCX);
        self.a.alu_imm(W8, 4, Rm::M(base, flags + 1), !0x40);
        self.a.bind(done);
        self.set_state(State::MEMORY);
    }
}
