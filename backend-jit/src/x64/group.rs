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

/// Groups at most that overlap.
const MOST: usize = 4;

/// A group that is being emitted.
pub(super) struct Group {
    slot: Slot,
    /// Base and index register of its accesses, and the scale.
    by: By,
    start: usize,
    /// Behind its last access.
    end: usize,
    /// Where its way out of line comes back: behind all groups that begin in this one, because
    /// there they are not checked.
    until: usize,
    miss: usize,
    /// Where the flags are before it.
    flags: State,
    /// The micro-op before which a register was copied to the spare one.
    spared: Option<(usize, Reg)>,
    /// Nothing in it moves the base register.
    still: bool,
    /// The displacement of an access that was found to be aligned, and at what.
    aligned: Option<(i32, u8)>,
}

type By = (Reg, Reg, u8);

fn by(m: &Mem) -> By {
    (m.base, m.index, m.scale)
}

/// Flags live after each micro-op from `start` on, where some are in groups.
pub(super) struct Lives {
    start: usize,
    after: Vec<u32>,
}

impl Group {
    /// Whether micro-op `n`, an access at `m`, is one of its own.
    fn has(&self, m: &Mem, n: usize) -> bool {
        n < self.end && by(m) == self.by && plain(m)
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
        let uops = &self.block.uops;
        let mem = uops[n].mem;
        let grouped = access(&uops[n]).is_some() && self.member_of(&mem).is_some();
        let full = self.groups.len() == MOST;
        if self.in_strip() || grouped || full || self.holds_temporaries() {
            return;
        }
        let Some(e) = self.extent(n) else { return };
        let still = uops[n..e.end].iter().all(|u| moves(u, mem.base) == Some(0));
        let Ok(min) = i32::try_from(e.min) else { return };
        self.settle();
        let (start, write) = (self.a.here(), e.write);
        let (slot, miss) = if let Some(f) = self.fixed(&mem) {
            self.check_fixed(f, write)
        } else {
            let slot = self.slots.slot(&mem, write);
            let span = e.max - e.min;
            let fills = self.slots.without(&mem, write);
            self.sum(&Mem { disp: min, ..mem }, RAX);
            let miss = if fills {
                self.look_up_slot(slot, write, span as u64)
            } else {
                self.a.op(W64, 0x2b, RAX, slot.page());
                self.a.alu_imm(W64, 7, Rm::R(RAX), 4096 - span);
                let miss = self.a.jcc(cc::A);
                let n = (span as u64).next_power_of_two();
                self.tries.push(Try { miss, start, slot, write, n, fixed: None });
                miss
            };
            (slot, miss)
        };
        let (by, flags, end) = (by(&mem), self.state(), e.end);
        let (spared, aligned) = (None, None);
        self.groups.iter_mut().for_each(|g| g.until = g.until.max(end));
        let until = end;
        self.groups.push(Group {
            start: n,
            slot,
            by,
            end,
            until,
            miss,
            flags,
            spared,
            still,
            aligned,
        });
        self.group_lives = Some(self.lives_in_groups(n));
    }

    /// Flags live from micro-op `n` on: what is checked does not fault.
    fn lives_in_groups(&self, n: usize) -> Lives {
        let uops = &self.block.uops;
        let end = self.groups.iter().map(|g| g.until).max().unwrap_or(n);
        let mut after = self.lives[n..end].to_vec();
        for i in (n + 1..end).rev() {
            let u = &uops[i];
            let faults = match u.op {
                // What must be aligned is still to be checked for that.
                Op::Vld | Op::Vst => u.k & 128 != 0,
                Op::Ld | Op::Ldz | Op::Lds | Op::Ldw | Op::St | Op::Stw => {
                    !self.groups.iter().any(|g| g.has(&u.mem, i))
                }
                _ => false,
            };
            let before = if faults { OSZAPC } else { after[i - n] & !u.fl };
            after[i - n - 1] = before | u.flags_read();
        }
        Lives { start: n, after }
    }

    /// The group that the access at `m`, of the current micro-ops, is part of.
    fn group_of(&self, m: &Mem) -> Option<usize> {
        self.groups.iter().position(|g| g.has(m, self.at))
    }

    /// Whether that group knows an access to be aligned at `n`.
    pub(super) fn aligned_in_group(&mut self, m: &Mem, n: u8) -> bool {
        let group = self.group_of(m);
        group.is_some_and(|g| self.groups[g].aligned(m.disp, n))
    }

    /// The slot of that group.
    pub(super) fn member_of(&self, m: &Mem) -> Option<Slot> {
        self.group_of(m).map(|g| self.groups[g].slot)
    }

    /// Flags live after micro-op `n`.
    pub(super) fn live_after(&self, n: usize) -> u32 {
        let in_groups = self.group_lives.as_ref();
        let lives = in_groups.and_then(|l| l.after.get(n.checked_sub(l.start)?).copied());
        lives.unwrap_or(self.lives[n])
    }

    /// Micro-op `n` is next: ends the groups that it is behind.
    pub(super) fn close_group(&mut self, n: usize) {
        while let Some(i) = self.groups.iter().position(|g| g.until <= n) {
            let g = self.groups.remove(i);
            let (resume, from, count) = (self.a.here(), g.start, n - g.start);
            self.settled = g.flags;
            self.later(Cold::Replay { miss: g.miss, resume, from, count, spared: g.spared });
        }
        if self.groups.is_empty() {
            self.group_lives = None;
        }
    }

    /// Whether a register may be copied to the spare one, as far as groups are concerned.
    pub(super) fn may_spare(&self) -> bool {
        self.groups.iter().all(|g| g.spared.is_none())
    }

    /// Before micro-op `n` register `r` is copied to the spare one, also where groups are run out
    /// of line.
    pub(super) fn spare_in_groups(&mut self, n: usize, r: Reg) {
        self.groups.iter_mut().for_each(|g| g.spared = Some((n, r)));
    }
}
