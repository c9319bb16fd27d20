//! Groups of accesses that are checked together.
//!
//! Accesses one after the other by the same base register, moved by constants at most (a run of
//! pushes, the fields of a structure), mostly lie in one page. One check of all that they touch
//! goes before the first; then each costs a load of the slot's addend. Where the check fails, the
//! group is run out of line, each access with a check of its own. Nothing in a group can leave it,
//! and nothing in it changes a slot: so there are no other accesses in it, and no helpers.

use super::asm::{RAX, RBP, Rm, cc};
use super::flags::State;
use super::memory::{Try, slot};
use super::{Cold, Compiler, Loc, loc};
use core::mem::offset_of;
use emu_core::cpu::Reg;
use emu_core::mem::tlb::Slot;
use emu_core::uop::{Form, Mem, Op, Src, Uop};
use emu_core::width::Width::W64;

/// Bytes that a group covers at most.
const SPAN: i64 = 128;

/// A group that is being emitted.
pub(super) struct Group {
    /// Its slot, from `rbp`.
    pub slot: i32,
    start: usize,
    end: usize,
    miss: usize,
    /// Where the flags are before it.
    flags: State,
}

/// What of the block is one group.
struct Extent {
    /// Behind its last access.
    end: usize,
    min: i64,
    max: i64,
    write: bool,
}

/// The operand of an access that may be part of a group.
fn access(u: &Uop) -> Option<(&Mem, bool)> {
    let write = matches!(u.op, Op::St | Op::Stw | Op::Ldw);
    let plain = u.mem.index == Reg::ZERO
        && u.mem.seg == Reg::ZERO
        && u.mem.addr == W64
        && u.mem.base.ix() < 16
        && matches!(loc(u.mem.base), Loc::Host(_));
    let known = write || matches!(u.op, Op::Ld | Op::Ldz | Op::Lds);
    (plain && known).then_some((&u.mem, write))
}

/// How `u` moves register `base`: by nothing, by a constant, or (`None`) otherwise.
fn moves(u: &Uop, base: Reg) -> Option<i64> {
    let by = match (u.op, u.b) {
        _ if u.d != base || u.op.row().form == Form::Store => return Some(0),
        (Op::Add, Src::Imm(by)) if u.a == base => by,
        (Op::Sub, Src::Imm(by)) if u.a == base => by.checked_neg()?,
        (Op::Lea, _) if u.mem.base == base && u.mem.index == Reg::ZERO && u.mem.addr == W64 => {
            u.mem.disp.into()
        }
        _ => return None,
    };
    (u.w == W64 && by.abs() <= SPAN).then_some(by)
}

impl Compiler<'_> {
    /// The group that begins with micro-op `n`.
    fn extent(&self, n: usize) -> Option<Extent> {
        let uops = &self.block.uops;
        let (first, _) = access(uops.get(n)?)?;
        let base = first.base;
        let (mut at, mut count) = (0, 0);
        let mut all = Extent { end: n, min: i64::MAX, max: i64::MIN, write: false };
        for (i, u) in uops.iter().enumerate().skip(n) {
            if let Some((m, write)) = access(u).filter(|(m, _)| m.base == base) {
                let low = at + i64::from(m.disp);
                let (min, max) = (all.min.min(low), all.max.max(low + u.w.bytes() as i64));
                // Returns have a form of their own, and so have operands of helpers.
                let own = |u: &Uop| u.checks_rip() || u.op == Op::Helper;
                if max - min > SPAN || uops.get(i + 1).is_some_and(own) {
                    break;
                }
                count += 1;
                all = Extent { end: i + 1, min, max, write: all.write | write };
            } else if u.op.row().eval.is_none() && u.op != Op::Lea {
                break;
            }
            match moves(u, base) {
                Some(by) => at += by,
                None => break,
            }
        }
        (count > 1).then_some(all)
    }

    /// Begins a group with micro-op `n`, if there is one.
    pub(super) fn open_group(&mut self, n: usize) {
        if self.group.is_some() {
            return;
        }
        let Some(e) = self.extent(n) else { return };
        let mem = self.block.uops[n].mem;
        let (Loc::Host(base), Ok(min)) = (loc(mem.base), i32::try_from(e.min)) else { return };
        self.settle();
        let (start, slot) = (self.a.here(), slot(&mem, e.write));
        let span = e.max - e.min;
        self.a.op(W64, 0x8d, RAX, Rm::M(base, min));
        self.a.op(W64, 0x2b, RAX, Rm::M(RBP, slot + offset_of!(Slot, page) as i32));
        self.a.alu_imm(W64, 7, Rm::R(RAX), 4096 - span);
        let miss = self.a.jcc(cc::A);
        let bytes = (span as u64).next_power_of_two();
        self.tries.push(Try { miss, start, slot, write: e.write, n: bytes });
        let flags = self.state();
        self.group = Some(Group { slot, start: n, end: e.end, miss, flags });
    }

    /// Micro-op `n` is next: ends the group if it is behind it.
    pub(super) fn close_group(&mut self, n: usize) {
        let Some(g) = self.group.take_if(|g| g.end <= n) else { return };
        let (resume, from, count) = (self.a.here(), g.start, n - g.start);
        self.settled = g.flags;
        self.later(Cold::Replay { miss: g.miss, resume, from, count });
    }
}
