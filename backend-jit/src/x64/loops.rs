//! Loops whose accesses are checked once for several iterations.
//!
//! A loop is a cycle of blocks of the region that ends with a way back. If all that it accesses is
//! at registers that an iteration moves by constants, or leaves alone, then where it will access is
//! known ahead. On the way back, a *set-up* finds out how many iterations touch nothing but the
//! pages that they touch now, and have the budget for: a *strip*. Its iterations run in versions of
//! their own of the blocks (see [`Stage`]), in which accesses are plain instructions of the host,
//! and nothing can fault or leave but by the loop's exits. Where there is no such iteration (a page's
//! edge, a page that level 1 of the TLB does not know, an address that must be aligned and is not,
//! the end of the budget), the ordinary version runs one, and its way back leads to the set-up
//! again. So a loop's first iteration is always an ordinary one: what iterates once pays nothing.
//!
//! In a strip the budget's register holds what the strip may use, less one: it becomes negative at
//! the end of the last iteration. The rest of the budget, and for each form of address what is to be
//! added to it, are in [`Native::strip`](emu_core::native::Native). Iterations are charged as a
//! whole; an exit charges its part and adds the rest.

use super::alu::rm;
use super::asm::{RAX, RBP, RCX, RDX, Rm, cc};
use super::flags::State;
use super::group::moves;
use super::memory::Try;
use super::region::Piece;
use super::{Cold, Compiler, NATIVE_STRIP, liveness};
use crate::enter::BUDGET;
use emu_core::cpu::Reg;
use emu_core::native::STRIP;
use emu_core::uop::{Mem, Op, Uop};
use emu_core::width::Width::{W32, W64};

/// How a block's code accesses memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Each access, or group of them, is checked.
    Plain,
    /// Not the block, but what sets up a strip of the loop whose head it is.
    SetUp,
    /// Part of a strip: all has been checked.
    Strip,
}

/// Blocks of a loop at most.
const CYCLE: usize = 4;
/// Bytes at most that an iteration covers by one form of address.
const SPAN: i64 = 256;
/// Bytes at most by which it moves.
const STRIDE: i64 = 512;
/// Iterations of a strip if no page ends it.
const LONGEST: i64 = 256;

/// What is accessed by the same registers.
#[derive(Debug)]
struct Form {
    /// The registers, without displacement.
    mem: Mem,
    /// The displacements.
    disps: Vec<i32>,
    /// The first iteration's bytes, from where the registers point when it begins.
    min: i64,
    max: i64,
    /// Bytes from one iteration to the next.
    stride: i64,
    write: bool,
    /// An access that must be aligned, and at what.
    aligned: Option<(i64, i64)>,
    /// The base, the index is the same in each iteration.
    still: [bool; 2],
}

impl Form {
    fn by(&self, m: &Mem) -> bool {
        let mem = &self.mem;
        (mem.base, mem.index, mem.scale & 3) == (m.base, m.index, m.scale & 3)
    }

    /// Whether the access at `m` is of this form.
    fn has(&self, m: &Mem) -> bool {
        self.by(m) && self.disps.contains(&m.disp)
    }
}

/// A loop that can be run in strips.
#[derive(Debug)]
pub(super) struct Loop {
    /// Its blocks; the first is the head.
    cycle: Vec<usize>,
    /// The flags live after each of their micro-ops.
    lives: Vec<Vec<u32>>,
    /// Guest instructions of an iteration.
    insns: i64,
    forms: Vec<Form>,
}

/// The distances of the blocks that block `p` leads to, where it is taken and not.
fn ways(p: &Piece) -> [Option<i64>; 2] {
    p.block.exits().map(|way| way.filter(|(w, _)| *w == W64).map(|(_, by)| p.delta + by))
}

fn piece_at(pieces: &[Piece], delta: i64) -> Option<usize> {
    pieces.iter().position(|p| p.delta == delta)
}

/// Whether forward ways lead from `from` to a way to `head`, over `depth` blocks at most.
fn leads(pieces: &[Piece], from: usize, head: i64, depth: usize) -> bool {
    let at = pieces[from].delta;
    ways(&pieces[from]).into_iter().flatten().any(|to| {
        let forward = || piece_at(pieces, to).filter(|_| to > at && depth > 1);
        to == head || forward().is_some_and(|to| leads(pieces, to, head, depth - 1))
    })
}

/// The forward ways from the last of `path` to `end`.
fn find_path(pieces: &[Piece], path: &mut Vec<usize>, end: usize) -> bool {
    let last = path[path.len() - 1];
    if last == end {
        return true;
    }
    let (at, limit) = (pieces[last].delta, pieces[end].delta);
    let next = |to: i64| piece_at(pieces, to).filter(|_| at < to && to <= limit);
    for to in ways(&pieces[last]).into_iter().flatten().filter_map(next) {
        if path.len() < CYCLE {
            path.push(to);
            if find_path(pieces, path, end) {
                return true;
            }
            path.pop();
        }
    }
    false
}

/// The access of `u`, if it is one: its operand, bytes, whether it writes, and what it must be
/// aligned at. `None`: what may not be in a strip.
fn access(u: &Uop, vectors: bool) -> Option<Option<(Mem, i64, bool, i64)>> {
    let bytes = u.w.bytes() as i64;
    let vector = || {
        let n = i64::from(u.k & 127);
        (n, if u.k & 128 != 0 { n } else { 1 })
    };
    let (bytes, write, align) = match u.op {
        Op::Ld | Op::Ldz | Op::Lds => (bytes, false, 1),
        Op::St | Op::Stw | Op::Ldw => (bytes, true, 1),
        Op::Vld if vectors => (vector().0, false, vector().1),
        Op::Vst if vectors => (vector().0, true, vector().1),
        Op::V | Op::Vx | Op::Vget | Op::Vset | Op::Vzero if vectors => return Some(None),
        Op::Lea | Op::Goto | Op::Jcc => return Some(None),
        op => return op.row().eval.map(|_| None),
    };
    let register = |r: Reg| r.ix() < 16 || r == Reg::ZERO;
    let m = u.mem;
    let known = register(m.base) || m.base == Reg::RIP;
    let plain = known && register(m.index) && m.seg == Reg::ZERO && m.addr == W64;
    plain.then_some(Some((m, bytes, write, align)))
}

impl Loop {
    /// The loops among `pieces`; each is in one at most. `vectors`: vector micro-ops are the host's
    /// and don't fault.
    pub fn all(pieces: &[Piece], vectors: bool) -> Vec<Loop> {
        let mut all: Vec<Loop> = Vec::new();
        for end in 0..pieces.len() {
            for to in ways(&pieces[end]).into_iter().flatten() {
                let Some(head) = piece_at(pieces, to).filter(|_| to <= pieces[end].delta) else {
                    continue;
                };
                let mut cycle = vec![head];
                let free = |p: &usize| all.iter().all(|l| !l.cycle.contains(p));
                if find_path(pieces, &mut cycle, end) && cycle.iter().all(free) {
                    all.extend(Loop::new(pieces, cycle, vectors));
                }
            }
        }
        all
    }

    fn new(pieces: &[Piece], cycle: Vec<usize>, vectors: bool) -> Option<Loop> {
        let head = pieces[cycle[0]].delta;
        for (i, &n) in cycle.iter().enumerate() {
            let next = pieces[cycle[(i + 1) % cycle.len()]].delta;
            let ways = ways(&pieces[n]);
            if ways[0] == ways[1] {
                return None;
            }
            // An exit that comes back at once is a part of the loop that is not always run.
            let outside = |to: &i64| *to != next;
            let others = ways.into_iter().flatten().filter(outside);
            let mut others = others.filter_map(|to| piece_at(pieces, to).map(|n| (to, n)));
            if others.any(|(to, n)| to == head || leads(pieces, n, head, CYCLE)) {
                return None;
            }
        }
        let uops = || cycle.iter().flat_map(|&n| &pieces[n].block.uops);
        let move_of = |u: &Uop, r| if r == Reg::ZERO { Some(0) } else { moves(u, r) };
        let total =
            |r: Reg, n: usize| uops().take(n).try_fold(0, |at: i64, u| Some(at + move_of(u, r)?));
        let (mut forms, count): (Vec<Form>, _) = (Vec::new(), uops().count());
        for (n, u) in uops().enumerate() {
            let Some((m, bytes, write, align)) = access(u, vectors)? else { continue };
            let at = |n| Some(total(m.base, n)? + (total(m.index, n)? << (m.scale & 3)));
            let min = at(n)? + i64::from(m.disp);
            let mem = Mem { disp: 0, ..m };
            let max = min + bytes;
            let near = |f: &Form| f.by(&m) && f.max.max(max) - f.min.min(min) <= SPAN;
            let n = forms.iter().position(near).unwrap_or(forms.len());
            if n == forms.len() {
                let still = [m.base, m.index].map(|r| uops().all(|u| move_of(u, r) == Some(0)));
                let (stride, aligned, disps) = (at(count)?, None, Vec::new());
                forms.push(Form { mem, disps, min, max, stride, write, aligned, still });
            }
            // One that was near another access, too, before it was moved.
            if forms.iter().enumerate().any(|(i, f)| i != n && f.has(&m)) {
                return None;
            }
            let form = &mut forms[n];
            form.disps.push(m.disp);
            (form.min, form.max) = (form.min.min(min), form.max.max(max));
            form.write |= write;
            if align > 1 {
                let (other, n) = form.aligned.unwrap_or((min, align));
                let most = n.max(align);
                if (min - other) & (most - 1) != 0 || form.stride & (most - 1) != 0 {
                    return None;
                }
                form.aligned = Some((min, most));
            }
        }
        let fits = |f: &Form| i32::try_from(f.min).is_ok() && f.stride.abs() <= STRIDE;
        if forms.is_empty() || forms.len() > STRIP - 1 || !forms.iter().all(fits) {
            return None;
        }
        let insns = cycle.iter().map(|&n| pieces[n].block.insns.len() as i64).sum();
        let lives = cycle.iter().map(|&n| liveness(&pieces[n].block, true, true)).collect();
        Some(Loop { cycle, lives, insns, forms })
    }
}

/// Word `n` of [`Native::strip`](emu_core::native::Native).
fn word(n: usize) -> Rm {
    Rm::M(RBP, NATIVE_STRIP + 8 * n as i32)
}

/// The rest of the budget.
fn rest() -> Rm {
    word(STRIP - 1)
}

impl<'a> Compiler<'a> {
    /// The loop that block `piece` is in, and its place in the cycle.
    fn loop_of(&self, piece: usize) -> Option<(&'a Loop, usize)> {
        let loops: &'a [Loop] = self.loops;
        loops.iter().find_map(|l| Some((l, l.cycle.iter().position(|n| *n == piece)?)))
    }

    /// What follows is in a strip, or not.
    pub(super) fn set_strip(&mut self, strip: bool) {
        self.strip = strip;
        if let (true, Some((l, at))) = (strip, self.loop_of(self.piece)) {
            self.lives = &l.lives[at];
        }
    }

    /// How the way from the current block to block `to` goes on: a loop's way back sets up a strip.
    pub(super) fn stage_of_way(&self, to: usize) -> Stage {
        match self.loop_of(self.piece) {
            Some((l, at)) if !self.strip && at + 1 == l.cycle.len() && l.cycle[0] == to => {
                Stage::SetUp
            }
            _ => Stage::Plain,
        }
    }

    /// Charges what of the strip's iteration was run, and ends the strip.
    pub(super) fn charge_exit(&mut self) {
        let Some((l, at)) = self.loop_of(self.piece) else { return };
        let insns = l.cycle[..=at].iter().map(|&n| self.pieces[n].block.insns.len() as i64);
        self.a.alu_imm(W64, 5, Rm::R(BUDGET), insns.sum());
        self.a.op(W64, 0x03, BUDGET, rest());
    }

    /// Where the bytes of an access at `m` are, in a strip.
    pub(super) fn strip_access(&mut self, m: &Mem) -> Option<Rm> {
        let (l, _) = self.loop_of(self.piece).filter(|_| self.strip)?;
        let n = l.forms.iter().position(|f| f.has(m))?;
        let at = match l.forms[n].still {
            [true, true] => Rm::M(RDX, m.disp),
            [false, true] => Rm::X(RDX, self.get(m.base, W64, RAX), 0, m.disp),
            [true, false] => Rm::X(RDX, self.get(m.index, W64, RAX), m.scale & 3, m.disp),
            [false, false] => {
                self.sum(&Mem { disp: 0, ..*m }, RAX);
                Rm::X(RDX, RAX, 0, m.disp)
            }
        };
        self.a.mov(W64, RDX, word(n));
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
            self.later(Cold::Way { jump, w: u.w, delta, taken: !on_taken });
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
        self.go_to(set_up, true);
    }

    /// Sets up a strip of the loop whose head is the current block.
    pub(super) fn set_up(&mut self) {
        let Some((l, _)) = self.loop_of(self.piece) else { return };
        let plain = self.target(self.piece, Stage::Plain);
        let strip = self.target(self.piece, Stage::Strip);
        // Iterations but one, in EDX.
        let mut counted = false;
        for (n, f) in l.forms.iter().enumerate() {
            let (start, write, span) = (self.a.here(), f.write, f.max - f.min);
            let mem = Mem { disp: f.min as i32, ..f.mem };
            if let Some(fixed) = self.fixed(&mem) {
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
                self.a.store(W64, word(n), RAX);
                continue;
            }
            let slot = self.slots.slot(&mem, write);
            self.sum(&mem, RAX);
            self.a.op(W64, 0x2b, RAX, slot.page());
            self.a.alu_imm(W64, 7, Rm::R(RAX), 4096 - span);
            let miss = self.a.jcc(cc::A);
            self.tries.push(Try { miss, start, slot, write, n: span as u64, fixed: None });
            self.no_strip_later(plain);
            if let Some((at, n)) = f.aligned {
                self.a.op(W32, 0x8d, RCX, Rm::M(RAX, (at - f.min) as i32));
                // test cl, n - 1
                self.a.bytes(&[0xf6, 0xc1, n as u8 - 1]);
                let odd = self.a.jcc(cc::NE);
                self.lead_to(odd, plain);
            }
            if f.stride != 0 {
                if f.stride > 0 {
                    self.a.imm(RCX, (4096 - span) as u64);
                    self.a.op(W32, 0x2b, RCX, Rm::R(RAX));
                } else {
                    self.a.mov(W32, RCX, Rm::R(RAX));
                }
                self.over(f.stride.unsigned_abs());
                if counted {
                    self.a.op(W32, 0x3b, RCX, Rm::R(RDX));
                    // cmovb edx, ecx
                    self.a.op0f(W32, 0x42, RDX, Rm::R(RCX));
                } else {
                    self.a.mov(W32, RDX, Rm::R(RCX));
                }
                counted = true;
            }
            self.a.mov(W64, RAX, slot.addend());
            if f.still[0] && f.mem.base != Reg::ZERO {
                self.a.op(W64, 0x03, RAX, rm(f.mem.base));
            }
            if f.still[1] && f.mem.index != Reg::ZERO {
                let index = self.get(f.mem.index, W64, RCX);
                self.a.op(W64, 0x8d, RAX, Rm::X(RAX, index, f.mem.scale & 3, 0));
            }
            self.a.store(W64, word(n), RAX);
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
        self.go_to(strip, true);
    }

    /// ECX, 4096 at most, divided by `n`.
    fn over(&mut self, n: u64) {
        let shift = if n.is_power_of_two() {
            n.trailing_zeros() as u8
        } else {
            self.a.op(W64, 0x69, RCX, Rm::R(RCX));
            self.a.dword((1u64 << 24).div_ceil(n) as i32);
            24
        };
        if shift != 0 {
            self.a.ext(W64, 0xc1, 5, Rm::R(RCX));
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
