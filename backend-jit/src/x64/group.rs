//! Groups of accesses that are checked together.
//!
//! Accesses one after the other by the same base register, and index if there is one, moved by
//! constants at most (a run of pushes, the fields of a structure), mostly lie in one page. One
//! check of all that they touch goes before the first; then each costs a load of the slot's addend.
//! Where the check fails, the group is run out of line, each access with a check of its own.
//!
//! Other accesses may stand between those of a group, and are checked as ever. They fill other
//! slots than the group's; nor can the slow path of one change what that holds: mappings change by
//! privileged instructions, and memory moves by ports and MSRs, all of them helpers, at which a
//! group ends.

use super::asm::{RAX, Rm, cc};
use super::flags::State;
use super::memory::{RegionSlots, Slot, Try};
use super::{Cold, Compiler};
use emu_core::cpu::Reg;
use emu_core::flags::OSZAPC;
use emu_core::uop::{Form, Mem, Op, Src, Uop};
use emu_core::width::Width::W64;

/// Bytes that a group covers at most.
const SPAN: i64 = 256;

/// A group that is being emitted.
pub(super) struct Group {
    slot: Slot,
    /// Base and index register of its accesses, and the scale.
    by: By,
    start: usize,
    end: usize,
    miss: usize,
    /// Where the flags are before it.
    flags: State,
    /// Flags live after each of its micro-ops.
    lives: Vec<u32>,
    /// The micro-op before which a register was copied to the spare one.
    pub spared: Option<(usize, Reg)>,
    /// Nothing in it moves the base register.
    still: bool,
    /// The displacement of an access that was found to be aligned, and at what.
    aligned: Option<(i32, u8)>,
}

type By = (Reg, Reg, u8);

fn by(m: &Mem) -> By {
    (m.base, m.index, m.scale)
}

impl Group {
    /// Whether an access at `m`, while the group is being emitted, is one of its own.
    pub fn has(&self, m: &Mem) -> bool {
        by(m) == self.by && plain(m)
    }

    /// Whether an access at displacement `disp` is known to be aligned at `n`; if not, it is when
    /// the next one asks.
    pub fn aligned(&mut self, disp: i32, n: u8) -> bool {
        let known = self.aligned.is_some_and(|(other, at)| {
            self.still && at >= n && (disp.wrapping_sub(other)) & (i32::from(n) - 1) == 0
        });
        if !known {
            self.aligned = Some((disp, n));
        }
        known
    }
}

/// What of the block is one group.
#[derive(Clone, Copy)]
struct Extent {
    /// Behind its last access.
    end: usize,
    count: usize,
    min: i64,
    max: i64,
    write: bool,
}

/// An access that may be part of a group: its operand, bytes, and whether it writes.
fn access(u: &Uop) -> Option<(&Mem, i64, bool)> {
    let (bytes, write) = match u.op {
        Op::Ld | Op::Ldz | Op::Lds => (u.w.bytes() as i64, false),
        Op::St | Op::Stw | Op::Ldw => (u.w.bytes() as i64, true),
        Op::Vld => (i64::from(u.k & 127), false),
        Op::Vst => (i64::from(u.k & 127), true),
        _ => return None,
    };
    let m = &u.mem;
    let base = match (m.base, m.index) {
        (Reg::RIP | Reg::ZERO, x) => x == Reg::ZERO,
        (_, Reg::ZERO) => m.base.ix() < 16,
        (_, x) => m.base.ix() < 16 && x.ix() < 16 && !matches!(u.op, Op::Vld | Op::Vst),
    };
    (plain(m) && base).then_some((m, bytes, write))
}

fn plain(m: &Mem) -> bool {
    m.seg == Reg::ZERO && m.addr == W64
}

/// An access that may stand between those of a group with the first one at `first`: it fills
/// another slot.
fn guest(u: &Uop, first: &Mem) -> bool {
    let access = matches!(u.op, Op::Ld | Op::Ldz | Op::Lds | Op::St);
    access && !RegionSlots::may_share(&u.mem, first)
}

/// How `u` moves register `base`: by nothing, by a constant, or (`None`) otherwise.
fn moves(u: &Uop, base: Reg) -> Option<i64> {
    let by = match (u.op, u.b) {
        _ if base == Reg::ZERO => return Some(0),
        (Op::V | Op::Vld | Op::Vst | Op::Vset | Op::Vzero, _) => return Some(0),
        _ if u.d != base || u.op.row().form == Form::Store => return Some(0),
        (Op::Add, Src::Imm(by)) if u.a == base => by,
        (Op::Sub, Src::Imm(by)) if u.a == base => by.checked_neg()?,
        (Op::Inc, _) if u.a == base => 1,
        (Op::Dec, _) if u.a == base => -1,
        (Op::Lea, _) if u.mem.base == base && u.mem.index == Reg::ZERO && u.mem.addr == W64 => {
            u.mem.disp.into()
        }
        _ => return None,
    };
    (u.w == W64 && by.abs() <= SPAN).then_some(by)
}

impl Compiler<'_> {
    /// Whether `u`, no access, may stand in a group.
    fn stands_in_group(&self, u: &Uop) -> bool {
        match u.op {
            Op::V | Op::Vx => !(self.unmasked() && u.vop.raises()),
            Op::Lea | Op::Vget | Op::Vset | Op::Vzero => true,
            op => op.row().eval.is_some(),
        }
    }

    /// The group that begins with micro-op `n`.
    fn extent(&self, n: usize) -> Option<Extent> {
        let uops = &self.block.uops;
        let first = access(uops.get(n)?)?.0;
        let (base, fixed) = (first.base, self.fixed(first));
        let mut at = 0;
        let mut all = Extent { end: n, count: 0, min: i64::MAX, max: i64::MIN, write: false };
        // With a vector access in it, an instruction belongs to it as a whole: its temporaries do
        // not outlive the way out of line.
        let (mut open, mut whole) = (all, false);
        let (mut insn, mut guests) = (self.insn, 0);
        let most = self.slots.unshared();
        for (i, u) in uops.iter().enumerate().skip(n) {
            let mark = |insn: usize| self.block.insns.get(insn).map(|m| m.uop as usize);
            if mark(insn + 1).is_some_and(|m| m <= i) {
                all = open;
                (whole, insn) = (false, insn + 1);
            }
            // Returns have a form of their own, and so have operands of helpers.
            let own = |u: &Uop| u.checks_rip() || u.op == Op::Helper;
            let own_form = uops.get(i + 1).is_some_and(own);
            if let Some((m, bytes, write)) = access(u).filter(|(m, ..)| by(m) == by(first)) {
                let low = at + i64::from(m.disp);
                let (min, max) = (open.min.min(low), open.max.max(low + bytes));
                let far = match fixed {
                    Some(f) => f.moved(first.disp, m.disp).is_none_or(|f| !f.holds(bytes)),
                    None => max - min > SPAN,
                };
                if far || own_form {
                    break;
                }
                let (count, write) = (open.count + 1, open.write | write);
                open = Extent { end: i + 1, count, min, max, write };
                whole |= matches!(u.op, Op::Vld | Op::Vst);
                if whole && (!self.has_vectors() || self.with_helper(i)) {
                    break;
                }
            } else if guest(u, first) && !whole && !own_form && guests < most {
                guests += 1;
            } else if !self.stands_in_group(u) {
                break;
            }
            // What ends an instruction with a vector access in it ends the group with it.
            open.end = if whole { i + 1 } else { open.end };
            if !whole {
                all = open;
            }
            match moves(u, base) {
                Some(by) if moves(u, first.index) == Some(0) => at += by,
                _ => break,
            }
        }
        (all.count > 1).then_some(all)
    }

    /// Begins a group with micro-op `n`, if there is one.
    pub(super) fn open_group(&mut self, n: usize) {
        // Out of line temporaries are not known to be in registers.
        if self.in_strip() || self.group.is_some() || self.holds_temporaries() {
            return;
        }
        let Some(e) = self.extent(n) else { return };
        let uops = &self.block.uops;
        let mem = uops[n].mem;
        let still = uops[n..e.end].iter().all(|u| moves(u, mem.base) == Some(0));
        let Ok(min) = i32::try_from(e.min) else { return };
        if self.fixed(&mem).is_none() && self.slots.without(&mem, e.write) {
            return;
        }
        let mut lives = self.lives[n..e.end].to_vec();
        for i in (1..lives.len()).rev() {
            let u = &uops[n + i];
            // What must be aligned is still to be checked for that.
            let faults = match u.op {
                Op::Vld | Op::Vst => u.k & 128 != 0,
                Op::Ld | Op::Ldz | Op::Lds | Op::Ldw | Op::St | Op::Stw => {
                    by(&u.mem) != by(&mem) || !plain(&u.mem)
                }
                _ => false,
            };
            let before = if faults { OSZAPC } else { lives[i] & !u.fl };
            lives[i - 1] = before | u.flags_read();
        }
        self.settle();
        if let Some(f) = self.fixed(&mem) {
            let (slot, miss) = self.check_fixed(f, e.write);
            let flags = self.state();
            let (start, end) = (n, e.end);
            let (spared, aligned) = (None, None);
            self.group = Some(Group {
                slot,
                by: by(&mem),
                start,
                end,
                miss,
                flags,
                lives,
                spared,
                still,
                aligned,
            });
            return;
        }
        let (start, slot) = (self.a.here(), self.slots.slot(&mem, e.write));
        let span = e.max - e.min;
        self.sum(&Mem { disp: min, ..mem }, RAX);
        self.a.op(W64, 0x2b, RAX, slot.page());
        self.a.alu_imm(W64, 7, Rm::R(RAX), 4096 - span);
        let miss = self.a.jcc(cc::A);
        let bytes = (span as u64).next_power_of_two();
        self.tries.push(Try { miss, start, slot, write: e.write, n: bytes, fixed: None });
        let flags = self.state();
        let (start, end) = (n, e.end);
        let (spared, aligned) = (None, None);
        self.group = Some(Group {
            slot,
            by: by(&mem),
            start,
            end,
            miss,
            flags,
            lives,
            spared,
            still,
            aligned,
        });
    }

    /// The slot of the group that an access at `m` is part of.
    pub(super) fn member_of(&self, m: &Mem) -> Option<Slot> {
        self.group.as_ref().filter(|g| g.has(m)).map(|g| g.slot)
    }

    /// Flags live after micro-op `n`.
    pub(super) fn live_after(&self, n: usize) -> u32 {
        let group = self.group.as_ref().and_then(|g| g.lives.get(n.checked_sub(g.start)?));
        group.copied().unwrap_or(self.lives[n])
    }

    /// Micro-op `n` is next: ends the group if it is behind it.
    pub(super) fn close_group(&mut self, n: usize) {
        let Some(g) = self.group.take_if(|g| g.end <= n) else { return };
        let (resume, from, count) = (self.a.here(), g.start, n - g.start);
        self.settled = g.flags;
        self.later(Cold::Replay { miss: g.miss, resume, from, count, spared: g.spared });
    }
}
