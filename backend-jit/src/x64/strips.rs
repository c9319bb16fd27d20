//! Strips: iterations of a loop (see `loops`) whose accesses are checked at once.
//!
//! On a loop's way back a *set-up* finds out how many iterations touch nothing but the pages that
//! the first of them touches, and have the budget for: a strip. Its iterations run in versions of
//! their own of the blocks (see [`Stage`]), in which accesses are plain instructions of the host,
//! and nothing can fault or leave but by the loop's exits. Where there is no such iteration (the
//! edge of a page, a page that level 1 of the TLB does not know, an address that must be aligned
//! and is not, the end of the budget), the ordinary version runs one, and its way back leads to the
//! set-up again. So a loop's first iteration is always an ordinary one: what iterates once pays
//! nothing; and a loop that was left soon after a set-up has to wait for the next one.
//!
//! In a strip the budget's register holds what the strip may use, less one: it becomes negative at
//! the end of the last iteration. The rest of the budget, and for each operand what is to be added
//! to its registers, are in [`Native::strip`](emu_core::native::Native). Iterations are charged as
//! a whole; an exit charges its part and adds the rest. Registers that the loop has no use for give
//! their host registers to operands; their values are in memory meanwhile, and come back at exits.

use super::alu::rm;
use super::asm::{RAX, RBP, RCX, RDX, Rm, cc};
use super::flags::State;
use super::loops::{Form, Loop};
use super::memory::Try;
use super::region::Version;
use super::{ALIGN, Cold, Compiler, Loc, NATIVE_STRIP, NATIVE_WAITS, loc};
use crate::enter::BUDGET;
use emu_core::cpu::Reg;
use emu_core::native::{STRIP, WAITS};
use emu_core::uop::{Mem, Op, Uop};
use emu_core::width::Width::{W8, W32, W64};

/// How a block's code accesses memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Each access, or group of them, is checked.
    Plain,
    /// Not the block, but what sets up a strip of the loop whose head it is.
    SetUp,
    /// Part of a strip: all has been checked.
    Strip,
    /// As plain, in a loop that is left before another strip is set up.
    Again,
}

/// Iterations of a strip if no page ends it.
const LONGEST: i64 = 256;
/// Iterations in a strip that are worth a set-up.
const WORTH: i64 = 4;
/// Times that the loop is run without, after others.
const WAIT: i64 = 32;

/// Where register `r`, which has a host register, is in memory meanwhile.
fn home(r: Reg) -> Rm {
    Rm::M(RBP, 8 * r.ix() as i32 - 128)
}

/// Word `n` of [`Native::strip`](emu_core::native::Native).
fn word(n: usize) -> Rm {
    Rm::M(RBP, NATIVE_STRIP + 8 * n as i32)
}

/// Operands of a loop at most.
pub(super) const OPERANDS: usize = STRIP - 3;

/// The rest of the budget.
fn rest() -> Rm {
    word(STRIP - 1)
}

/// What the budget's register had when the strip began.
fn start() -> Rm {
    word(STRIP - 2)
}

/// Not 0 after a strip that was run to its end, until the loop is left.
fn whole() -> Rm {
    word(STRIP - 3)
}

impl<'a> Compiler<'a> {
    /// The loop that block `piece` is in, and its place in the cycle.
    fn loop_of(&self, piece: usize) -> Option<(&'a Loop, usize)> {
        let loops: &'a [Loop] = self.loops;
        loops.iter().find_map(|l| Some((l, l.cycle.iter().position(|n| *n == piece)?)))
    }

    pub(super) fn in_strip(&self) -> bool {
        self.stage == Stage::Strip
    }

    /// Aligns a version, if it is where a strip's iterations begin: hosts like it.
    pub(super) fn align(&mut self, version: usize) {
        let Version { piece, stage, .. } = self.versions[version];
        if stage != Stage::Strip || self.loop_of(piece).is_none_or(|(_, at)| at != 0) {
            return;
        }
        let mut pad = self.a.here().next_multiple_of(ALIGN) - self.a.here();
        while pad != 0 {
            const NOPS: [&[u8]; 4] = [
                &[0x90],
                &[0x66, 0x90],
                &[0x0f, 0x1f, 0x40, 0],
                &[0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0],
            ];
            let nop = NOPS[(pad.ilog2() as usize).min(3)];
            self.a.bytes(nop);
            pad -= nop.len();
        }
    }

    /// How what follows is run.
    pub(super) fn set_stage(&mut self, stage: Stage) {
        self.stage = stage;
        if let (Stage::Strip, Some((l, at))) = (stage, self.loop_of(self.piece)) {
            self.lives = &l.lives[at];
        }
    }

    /// How the way from the current block to block `to` goes on: a loop's way back sets up a strip.
    pub(super) fn stage_of_way(&self, to: usize) -> Stage {
        let Some((l, at)) = self.loop_of(self.piece) else { return Stage::Plain };
        let last = at + 1 == l.cycle.len();
        match self.stage {
            _ if l.cycle[if last { 0 } else { at + 1 }] != to => Stage::Plain,
            Stage::Again => Stage::Again,
            Stage::Plain if last => Stage::SetUp,
            _ => Stage::Plain,
        }
    }

    /// Charges what of the strip's iteration was run, and ends the strip.
    pub(super) fn charge_exit(&mut self) {
        let Some((l, at)) = self.loop_of(self.piece) else { return };
        let insns = l.cycle[..=at].iter().map(|&n| self.pieces[n].block.insns.len() as i64);
        self.a.alu_imm(W64, 5, Rm::R(BUDGET), insns.sum());
        // The next set-up comes soon if this one was worth it.
        self.a.mov(W64, RAX, start());
        self.a.op(W64, 0x2b, RAX, Rm::R(BUDGET));
        self.a.op(W64, 0x0b, RAX, whole());
        self.a.alu_imm(W64, 7, Rm::R(RAX), WORTH * l.insns);
        // sbb eax, eax
        self.a.op(W32, 0x1b, RAX, Rm::R(RAX));
        self.a.alu_imm(W32, 4, Rm::R(RAX), WAIT);
        self.a.store(W8, self.waits(l), RAX);
        self.a.ext(W64, 0xc7, 0, whole());
        self.a.dword(0);
        self.a.op(W64, 0x03, BUDGET, rest());
        self.give_back();
    }

    /// How long to wait for the next set-up of `l`.
    fn waits(&self, l: &Loop) -> Rm {
        let at = self.pieces[l.cycle[0]].place.off;
        Rm::M(RBP, NATIVE_WAITS + ((at ^ at >> 6) as i32 & (WAITS as i32 - 1)))
    }

    /// Registers that operands have borrowed get their values back. Keeps the flags.
    pub(super) fn give_back(&mut self) {
        let Some((l, _)) = self.loop_of(self.piece).filter(|_| self.in_strip()) else { return };
        for (_, r) in l.borrowed() {
            if let Loc::Host(h) = loc(r) {
                self.a.mov(W64, h, home(r));
            }
        }
    }

    /// Operands borrow registers, in a strip.
    pub(super) fn borrow(&mut self) {
        if let Some((l, _)) = self.loop_of(self.piece).filter(|_| self.in_strip()) {
            self.borrow_for(l);
        }
    }

    fn borrow_for(&mut self, l: &Loop) {
        for (n, r) in l.borrowed() {
            if let Loc::Host(h) = loc(r) {
                self.a.store(W64, home(r), h);
                self.a.mov(W64, h, word(n));
            }
        }
    }

    /// Where the bytes of an access at `m` are, in a strip.
    pub(super) fn strip_access(&mut self, m: &Mem) -> Option<Rm> {
        let (l, _) = self.loop_of(self.piece).filter(|_| self.in_strip())?;
        let n = l.operand(m)?;
        let (operand, register) = l.operands().nth(n)?;
        let to = match register.map(loc) {
            Some(Loc::Host(h)) => h,
            _ => RDX,
        };
        let at = match operand.still {
            [true, true] => Rm::M(to, m.disp),
            [false, true] => Rm::X(to, self.get(m.base, W64, RAX), 0, m.disp),
            [true, false] => Rm::X(to, self.get(m.index, W64, RAX), m.scale & 3, m.disp),
            [false, false] => {
                self.sum(&Mem { disp: 0, ..*m }, RAX);
                Rm::X(to, RAX, 0, m.disp)
            }
        };
        if to == RDX {
            self.a.mov(W64, RDX, word(n));
        }
        Some(at)
    }

    /// The end of a block in a strip.
    pub(super) fn strip_end(&mut self, u: &Uop) {
        let Some((l, at)) = self.loop_of(self.piece) else { return };
        let next = l.cycle[(at + 1) % l.cycle.len()];
        if u.op == Op::Jcc {
            self.want_host();
            let (c, fall) = (u.k & 15, i64::from(u.fall));
            let on_taken = self.inside(u.w, u.imm) == Some(next);
            let (c, delta) = if on_taken { (c ^ 1, fall) } else { (c, u.imm) };
            let jump = self.a.jcc(c);
            self.settled = self.state();
            let (redo, owed) = (None, None);
            self.later(Cold::Way { jump, w: u.w, delta, taken: !on_taken, redo, owed });
        }
        if at + 1 < l.cycle.len() {
            let first = &self.pieces[next].block.uops[0];
            if l.lives[at + 1][0] & !first.fl | first.flags_read() == 0 {
                // Nobody will look there.
                self.set_state(State::MEMORY);
            }
            let version = self.target(next, Stage::Strip);
            self.host = false;
            self.go_to(version, true);
            return;
        }
        let again = self.target(next, Stage::Strip);
        let set_up = self.target(next, Stage::SetUp);
        self.host = false;
        self.a.alu_imm(W64, 5, Rm::R(BUDGET), l.insns);
        let jump = self.a.jcc(cc::S ^ 1);
        self.lead_to(jump, again);
        self.a.op(W64, 0x03, BUDGET, rest());
        self.a.ext(W64, 0xc7, 0, whole());
        self.a.dword(1 << 30);
        self.give_back();
        self.go_to(set_up, true);
    }

    /// Sets up a strip of the loop whose head is the current block.
    pub(super) fn set_up(&mut self) {
        let Some((l, _)) = self.loop_of(self.piece) else { return };
        let plain = self.target(self.piece, Stage::Plain);
        let strip = self.target(self.piece, Stage::Strip);
        let again = self.target(self.piece, Stage::Again);
        self.a.alu_imm(W8, 5, self.waits(l), 1);
        let wait = self.a.jcc(cc::S ^ 1);
        self.lead_to(wait, again);
        self.a.ext(W8, 0xc7, 0, self.waits(l));
        self.a.byte(0);
        // Iterations but one, in EDX.
        let mut counted = false;
        for (n, f) in l.forms.iter().enumerate() {
            let operands = l.operands().enumerate().filter(|(_, (o, _))| o.form == n);
            let (start, write, span) = (self.a.here(), f.write, f.max - f.min);
            let mem = Mem { disp: f.min as i32, ..f.mem };
            if let Some(fixed) = self.fixed(&mem).filter(|_| f.fixed) {
                let odd = f
                    .aligned
                    .is_some_and(|(at, n)| (i64::from(fixed.offset) + at - f.min) & (n - 1) != 0);
                if odd || !fixed.holds(span) {
                    return self.go_to(plain, true);
                }
                let (slot, _) = self.check_fixed(fixed, write);
                self.no_strip_later(plain);
                self.a.mov(W64, RAX, slot.host());
                self.a.op(W64, 0x8d, RAX, Rm::M(RAX, fixed.offset.wrapping_sub(f.min as i32)));
                operands.for_each(|(n, _)| self.a.store(W64, word(n), RAX));
                continue;
            }
            let slot = self.slots.slot(&f.mem, write);
            self.first_byte(f);
            self.a.op(W64, 0x2b, RAX, slot.page());
            self.a.alu_imm(W64, 7, Rm::R(RAX), 4096 - span);
            let miss = self.a.jcc(cc::A);
            self.tries.push(Try { miss, start, slot, write, n: span as u64, fixed: None });
            self.no_strip_later(plain);
            if let Some((at, n)) = f.aligned {
                let mut byte = RAX;
                if at != f.min {
                    byte = RCX;
                    self.a.op(W32, 0x8d, RCX, Rm::M(RAX, (at - f.min) as i32));
                }
                // test r8, n - 1
                self.a.ext(W8, 0xf7, 0, Rm::R(byte));
                self.a.byte(n as u8 - 1);
                let odd = self.a.jcc(cc::NE);
                self.lead_to(odd, plain);
            }
            if f.stride != 0 {
                let to = if counted { RCX } else { RDX };
                if f.stride > 0 {
                    self.a.imm(to, (4096 - span) as u64);
                    self.a.op(W32, 0x2b, to, Rm::R(RAX));
                } else {
                    self.a.mov(W32, to, Rm::R(RAX));
                }
                self.over(to, f.stride.unsigned_abs());
                if counted {
                    self.a.op(W32, 0x3b, RCX, Rm::R(RDX));
                    // cmovb edx, ecx
                    self.a.op0f(W32, 0x42, RDX, Rm::R(RCX));
                }
                counted = true;
            }
            for (n, (o, _)) in operands {
                self.a.mov(W64, RAX, slot.addend());
                if o.still[0] && o.mem.base != Reg::ZERO {
                    self.a.op(W64, 0x03, RAX, rm(o.mem.base));
                }
                if o.still[1] && o.mem.index != Reg::ZERO {
                    let index = self.get(o.mem.index, W64, RCX);
                    self.a.op(W64, 0x8d, RAX, Rm::X(RAX, index, o.mem.scale & 3, 0));
                }
                self.a.store(W64, word(n), RAX);
            }
        }
        if !counted {
            self.a.imm(RDX, LONGEST as u64 - 1);
        }
        self.times(RDX, l.insns);
        self.a.alu_imm(W32, 0, Rm::R(RAX), l.insns);
        self.a.op(W64, 0x3b, RAX, Rm::R(BUDGET));
        let jump = self.a.jcc(cc::A);
        let resume = self.a.here();
        self.later(Cold::ShortStrip { jump, resume, insns: l.insns, plain });
        self.a.mov(W64, RCX, Rm::R(BUDGET));
        self.a.op(W64, 0x8d, BUDGET, Rm::M(RAX, -1));
        self.a.op(W64, 0x2b, RCX, Rm::R(BUDGET));
        self.a.store(W64, rest(), RCX);
        self.a.store(W64, start(), BUDGET);
        self.borrow_for(l);
        self.go_to(strip, true);
    }

    /// The address of the first byte of form `f`, in RAX.
    fn first_byte(&mut self, f: &Form) {
        let (mut mem, mut more) = (Mem::at(Reg::ZERO, f.min as i32), Vec::new());
        for &(r, n) in &f.terms {
            let scale = n.trailing_zeros() as u8;
            match (n, mem.base, mem.index) {
                (1, Reg::ZERO, _) => mem.base = r,
                (_, _, Reg::ZERO) => (mem.index, mem.scale) = (r, scale),
                _ => more.push((r, scale)),
            }
        }
        self.sum(&mem, RAX);
        for (r, scale) in more {
            let r = self.get(r, W64, RCX);
            self.a.op(W64, 0x8d, RAX, Rm::X(RAX, r, scale, 0));
        }
    }

    /// `r`, 4096 at most, divided by `n`.
    fn over(&mut self, r: u8, n: u64) {
        let shift = if n.is_power_of_two() {
            n.trailing_zeros() as u8
        } else {
            self.a.op(W64, 0x69, r, Rm::R(r));
            self.a.dword((1u64 << 24).div_ceil(n) as i32);
            24
        };
        if shift != 0 {
            self.a.ext(W64, 0xc1, 5, Rm::R(r));
            self.a.byte(shift);
        }
    }

    /// EAX = `r` times `n`.
    fn times(&mut self, r: u8, n: i64) {
        self.a.op(W32, 0x69, RAX, Rm::R(r));
        self.a.dword(n as i32);
    }

    /// The last check of a slot is for a strip.
    fn no_strip_later(&mut self, plain: usize) {
        if let Some(t) = self.tries.pop() {
            self.later(Cold::NoStrip { t, plain });
        }
    }

    /// Fills a slot for a strip. `plain`: where it cannot.
    pub(super) fn no_strip(&mut self, t: &Try, plain: usize) {
        self.a.bind(t.miss);
        self.a.push(RDX);
        self.fill_slot(t);
        let filled = self.a.jmp();
        self.a.pop(RDX);
        let jump = self.a.jmp();
        self.lead_to(jump, plain);
        self.a.bind(filled);
        self.a.pop(RDX);
        let again = self.a.jmp();
        self.a.bind_to(again, t.start);
    }

    /// A strip for which the budget does not suffice: EAX = what it does suffice for.
    pub(super) fn short_strip(&mut self, resume: usize, insns: i64, plain: usize) {
        self.a.mov(W64, RAX, Rm::R(BUDGET));
        self.a.imm(RDX, 0);
        self.a.imm(RCX, insns as u64);
        // div rcx
        self.a.ext(W64, 0xf7, 6, Rm::R(RCX));
        self.a.op(W64, 0x85, RAX, Rm::R(RAX));
        let none = self.a.jcc(cc::E);
        self.lead_to(none, plain);
        self.times(RAX, insns);
        self.resume(resume);
    }
}
