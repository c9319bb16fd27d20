//! Loops whose accesses can be checked for several iterations at once (see `strips`).
//!
//! A loop is a cycle of blocks of the region, all of them run in every iteration, with exits. Its
//! registers are followed symbolically through an iteration. What it accesses must be at sums of
//! registers that an iteration moves by constants, or leaves alone: then where it will access is
//! known ahead.

use super::flags::written;
use super::liveness;
use super::region::Piece;
use super::strips::OPERANDS;
use crate::enter::PINNED;
use emu_core::cpu::Reg;
use emu_core::uop::{Mem, Op, Src, Uop};
use emu_core::width::Width::W64;

/// Blocks of a loop at most.
const CYCLE: usize = 4;
/// Bytes at most that an iteration covers by one form of address.
const SPAN: i64 = 256;
/// Bytes at most by which it moves.
const STRIDE: i64 = 512;
/// Registers in a sum at most.
const TERMS: usize = 4;

/// A sum of the values that registers have when an iteration begins, each times a constant, and a
/// constant.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Sum {
    /// By register.
    pub terms: Vec<(Reg, i64)>,
    pub at: i64,
}

impl Sum {
    fn constant(at: i64) -> Sum {
        Sum { terms: Vec::new(), at }
    }

    /// `self + times * other`.
    fn plus(mut self, other: &Sum, times: i64) -> Sum {
        for &(r, n) in &other.terms {
            let n = n.wrapping_mul(times);
            match self.terms.iter_mut().find(|t| t.0 == r) {
                Some(t) => t.1 = t.1.wrapping_add(n),
                None => self.terms.push((r, n)),
            }
        }
        self.terms.retain(|t| t.1 != 0);
        self.terms.sort_by_key(|t| t.0.ix());
        self.at = self.at.wrapping_add(other.at.wrapping_mul(times));
        self
    }
}

/// The registers' values, as far as they are known.
struct Values([Option<Sum>; 32]);

impl Values {
    /// When an iteration begins.
    fn start() -> Values {
        Values(std::array::from_fn(|n| {
            let r = Reg(n as u8);
            let terms = if r == Reg::ZERO { Vec::new() } else { vec![(r, 1)] };
            Some(Sum { terms, at: 0 })
        }))
    }

    fn of(&self, s: Src) -> Option<Sum> {
        match s {
            Src::Imm(v) => Some(Sum::constant(v)),
            Src::Reg(r) => self.0.get(r.ix())?.clone(),
        }
    }

    /// The address `m`.
    fn address(&self, m: &Mem) -> Option<Sum> {
        let index = self.of(m.index.into())?;
        let sum = self.of(m.base.into())?.plus(&index, 1 << (m.scale & 3));
        Some(sum.plus(&Sum::constant(m.disp.into()), 1))
    }

    /// What `u` computes, if that is such a sum.
    fn result(&self, u: &Uop) -> Option<Sum> {
        let of = |r: Reg| self.of(r.into());
        match (u.op, u.b) {
            _ if u.w != W64 => None,
            (Op::Mov, b) => self.of(b),
            (Op::Add, b) => Some(of(u.a)?.plus(&self.of(b)?, 1)),
            (Op::Sub, b) => Some(of(u.a)?.plus(&self.of(b)?, -1)),
            (Op::Inc, _) => Some(of(u.a)?.plus(&Sum::constant(1), 1)),
            (Op::Dec, _) => Some(of(u.a)?.plus(&Sum::constant(1), -1)),
            (Op::Shl, Src::Imm(n @ 0..=3)) => Some(Sum::default().plus(&of(u.a)?, 1 << n)),
            (Op::Lea, _) if u.mem.addr == W64 => self.address(&u.mem),
            _ => None,
        }
    }

    fn step(&mut self, u: &Uop) {
        if let Some(d) = written(u) {
            let sum = self.result(u);
            if let Some(value) = self.0.get_mut(d.ix()) {
                *value = sum;
            }
        }
    }
}

/// What is accessed at sums of the same registers.
#[derive(Debug)]
pub(super) struct Form {
    pub terms: Vec<(Reg, i64)>,
    /// One of the accesses.
    pub mem: Mem,
    /// All of them are at RIP, or at an absolute address.
    pub fixed: bool,
    /// The first iteration's bytes, from the sum on.
    pub min: i64,
    pub max: i64,
    /// Bytes from one iteration to the next.
    pub stride: i64,
    pub write: bool,
    /// An access that must be aligned, and at what.
    pub aligned: Option<(i64, i64)>,
}

/// Operands by the same registers.
#[derive(Debug)]
pub(super) struct Operand {
    /// The registers.
    pub mem: Mem,
    disps: Vec<i32>,
    /// What they access.
    pub form: usize,
    /// Nothing writes the base, the index.
    pub still: [bool; 2],
}

impl Operand {
    fn by(&self, m: &Mem) -> bool {
        let mem = &self.mem;
        (mem.base, mem.index, mem.scale & 3) == (m.base, m.index, m.scale & 3)
    }
}

/// A loop that can be run in strips.
#[derive(Debug)]
pub(super) struct Loop {
    /// Its blocks; the first is the head.
    pub cycle: Vec<usize>,
    /// The flags live after each of their micro-ops.
    pub lives: Vec<Vec<u32>>,
    /// Guest instructions of an iteration.
    pub insns: i64,
    pub forms: Vec<Form>,
    /// Those used most come first.
    operands: Vec<Operand>,
    /// Registers with a host register that it has no use for.
    pub idle: Vec<Reg>,
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

/// Whether `u` reads or writes the integer register `r`.
fn mentions(u: &Uop, r: Reg) -> bool {
    let vector = matches!(u.op, Op::V | Op::Vx | Op::Vld | Op::Vst | Op::Vget | Op::Vset);
    let sources = !vector && (u.a == r || u.c == r);
    let second = !matches!(u.op, Op::V | Op::Vx) && u.b == Src::Reg(r);
    let address = [u.mem.base, u.mem.index, u.mem.seg].contains(&r);
    sources || second || address || written(u) == Some(r)
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
        let mut end = Values::start();
        uops().for_each(|u| end.step(u));
        // Bytes by which an iteration moves it.
        let stride_of = |r: Reg| {
            let end = end.of(r.into())?;
            (end.terms == [(r, 1)]).then_some(end.at)
        };
        let still = |r: Reg| uops().all(|u| written(u) != Some(r));
        let (mut forms, mut operands): (Vec<Form>, Vec<Operand>) = Default::default();
        let mut now = Values::start();
        for u in uops() {
            if let Some((m, bytes, write, align)) = access(u, vectors)? {
                let Sum { terms, at } = now.address(&m)?;
                let (min, max) = (at, at.checked_add(bytes)?);
                let near = |f: &Form| f.terms == terms && f.max.max(max) - f.min.min(min) <= SPAN;
                let fixed = m.index == Reg::ZERO && (m.base == Reg::ZERO || m.base == Reg::RIP);
                let n = forms.iter().position(near).unwrap_or(forms.len());
                if n == forms.len() {
                    let moved = |sum: i64, &(r, n): &(Reg, i64)| {
                        [1, 2, 4, 8].contains(&n).then_some(())?;
                        sum.checked_add(stride_of(r)?.checked_mul(n)?)
                    };
                    let stride = terms.iter().try_fold(0, moved)?;
                    let close = i32::try_from(at).is_ok() && stride.unsigned_abs() <= STRIDE as u64;
                    if !close || terms.len() > TERMS {
                        return None;
                    }
                    let (aligned, mem) = (None, m);
                    forms.push(Form { terms, mem, fixed, min, max, stride, write, aligned });
                }
                let form = &mut forms[n];
                if form.fixed != fixed {
                    return None;
                }
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
                // Not one that is of different forms, now here, now there.
                let same = |o: &Operand| o.by(&m) && o.disps.contains(&m.disp);
                if operands.iter().any(|o| same(o) && o.form != n) {
                    return None;
                }
                match operands.iter_mut().find(|o| o.by(&m) && o.form == n) {
                    Some(o) => o.disps.push(m.disp),
                    None => {
                        let (disps, still) = (vec![m.disp], [m.base, m.index].map(still));
                        operands.push(Operand { mem: m, disps, form: n, still });
                    }
                }
            }
            now.step(u);
        }
        if operands.is_empty() || operands.len() > OPERANDS {
            return None;
        }
        operands.sort_by_key(|o| std::cmp::Reverse(o.disps.len()));
        let pinned = (0..PINNED.len() as u8).map(Reg::gpr);
        let idle = pinned.filter(|r| !uops().any(|u| mentions(u, *r))).collect();
        let insns = cycle.iter().map(|&n| pieces[n].block.insns.len() as i64).sum();
        let lives = cycle.iter().map(|&n| liveness(&pieces[n].block, true, true).0).collect();
        Some(Loop { cycle, lives, insns, forms, operands, idle })
    }

    /// The operands, each with the register that may hold what is to be added to it.
    pub fn operands(&self) -> impl Iterator<Item = (&Operand, Option<Reg>)> {
        let idle = self.idle.iter().map(|r| Some(*r)).chain(std::iter::repeat(None));
        self.operands.iter().zip(idle)
    }

    /// Those registers, and the number of the operand.
    pub fn borrowed(&self) -> impl Iterator<Item = (usize, Reg)> {
        self.operands().enumerate().filter_map(|(n, (_, r))| Some((n, r?)))
    }

    /// The number of the operand `m`.
    pub fn operand(&self, m: &Mem) -> Option<usize> {
        self.operands.iter().position(|o| o.by(m) && o.disps.contains(&m.disp))
    }
}
