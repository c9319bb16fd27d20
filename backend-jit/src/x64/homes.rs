//! Homes of the guest's registers while a region runs.
//!
//! Ten guest registers have a host register in all code. A region with a loop that makes more of
//! others exchanges them: the names in its micro-ops are exchanged, and so are the values, on entry
//! and again before everything that leaves the region or calls Rust. So nobody else knows of it.
//!
//! The weight of a register is how often micro-ops name it, in loops and elsewhere.

use super::asm::{RBP, RCX, Rm};
use super::region::Piece;
use super::{Compiler, Loc, loc};
use crate::enter::PINNED;
use emu_core::cpu::Reg;
use emu_core::uop::{Form, Op, Src, Uop};
use emu_core::width::Width::W64;

/// How much more one time in a loop weighs than one elsewhere.
const LOOP: i32 = 4;

/// What an exchange must gain.
const GAIN: i32 = 8;

/// The registers that are exchanged: each one that has a host register elsewhere with one that has
/// not.
#[derive(Clone, Debug, Default)]
pub(super) struct Homes(Vec<(Reg, Reg)>);

/// The general registers that `u` names.
pub(super) fn named(u: &mut Uop) -> impl Iterator<Item = &mut Reg> {
    let form = u.op.row().form;
    let vectors = matches!(form, Form::VecLoad | Form::VecStore | Form::Vec | Form::VecZero);
    let d = !vectors && form != Form::VecSet;
    let sources = !vectors && !matches!(form, Form::VecInt | Form::VecGet);
    let b = match &mut u.b {
        Src::Reg(b) if sources => Some(b),
        _ => None,
    };
    let a = (sources && form != Form::VecSet).then_some([&mut u.a, &mut u.c]);
    let mem = [&mut u.mem.base, &mut u.mem.index];
    d.then_some(&mut u.d).into_iter().chain(a.into_iter().flatten()).chain(b).chain(mem)
}

impl Homes {
    /// The best for a region of these blocks.
    pub fn of(pieces: &[Piece]) -> Homes {
        let mut weights = [0; 32];
        let looping = loops(pieces);
        for (p, looping) in pieces.iter().zip(&looping) {
            // Each call exchanges everything.
            if *looping && p.block.uops.iter().any(called) {
                return Homes::default();
            }
            for u in p.block.uops.iter() {
                named(&mut u.clone())
                    .for_each(|r| weights[r.ix()] += if *looping { LOOP } else { 1 });
            }
        }
        if !looping.contains(&true) {
            return Homes::default();
        }
        // What helpers do names these; and slots know the stack's register.
        let fixed: &[Reg] = match pieces.iter().any(|p| helped(p)) {
            true => &[Reg::RSP, Reg::RAX, Reg::RCX, Reg::RDX, Reg::RBX, Reg::RSI, Reg::RDI],
            false => &[Reg::RSP],
        };
        let fixed = |n: &usize| fixed.iter().any(|r| r.ix() == *n);
        let mut pinned: Vec<usize> = (0..PINNED.len()).filter(|n| !fixed(n)).collect();
        let mut others: Vec<usize> = (PINNED.len()..16).collect();
        pinned.sort_by_key(|&n| weights[n]);
        others.sort_by_key(|&n| -weights[n]);
        let pairs = pinned.into_iter().zip(others);
        let gains = pairs.take_while(|&(p, o)| weights[o] - weights[p] >= GAIN);
        Homes(gains.map(|(p, o)| (Reg::gpr(p as u8), Reg::gpr(o as u8))).collect())
    }

    pub fn none(&self) -> bool {
        self.0.is_empty()
    }

    /// `u` by the other names.
    pub fn renamed(&self, u: &Uop) -> Uop {
        let mut u = *u;
        for r in named(&mut u) {
            for &(p, o) in &self.0 {
                *r = match *r {
                    x if x == p => o,
                    x if x == o => p,
                    x => x,
                };
            }
        }
        u
    }
}

fn called(u: &Uop) -> bool {
    u.op == Op::Helper && u.helper.is_none_or(|h| h.quick.is_none() && h.x87(u.imm).is_none())
}

fn helped(p: &Piece) -> bool {
    p.block.uops.iter().any(|u| u.op == Op::Helper)
}

/// Which blocks lead back to themselves within the region.
fn loops(pieces: &[Piece]) -> Vec<bool> {
    let successors = |p: &Piece| {
        let ways = p.block.exits().into_iter().flatten().map(|(_, delta)| p.delta + delta);
        let ways: Vec<i64> = ways.collect();
        (0..pieces.len()).filter(move |&n| ways.contains(&pieces[n].delta)).collect::<Vec<_>>()
    };
    let next: Vec<Vec<usize>> = pieces.iter().map(successors).collect();
    let back = |n: usize| {
        let (mut seen, mut work) = (vec![false; pieces.len()], next[n].clone());
        while let Some(p) = work.pop() {
            if !std::mem::replace(&mut seen[p], true) {
                work.extend(&next[p]);
            }
        }
        seen[n]
    };
    (0..pieces.len()).map(back).collect()
}

impl Compiler<'_> {
    /// Exchanges the registers, by way of `scratch`. Keeps the flags.
    pub(super) fn swap_homes(&mut self, scratch: u8) {
        for (host, m) in self.exchanged() {
            self.a.mov(W64, scratch, m);
            self.a.store(W64, m, host);
            self.a.mov(W64, host, Rm::R(scratch));
        }
    }

    /// The same, out of line, with nothing but them.
    pub(super) fn swap_homes_alone(&mut self) {
        for (host, m) in self.exchanged() {
            self.a.op(W64, 0x87, host, m);
        }
    }

    fn exchanged(&self) -> Vec<(u8, Rm)> {
        let pair = |&(p, o): &(Reg, Reg)| match (loc(p), loc(o)) {
            (Loc::Host(h), Loc::Slot(at)) => Some((h, Rm::M(RBP, at))),
            _ => None,
        };
        self.homes.0.iter().filter_map(pair).collect()
    }

    /// Leaves host code with `word`: all else is as it should be.
    pub(super) fn leave(&mut self, word: u32) {
        self.swap_homes(RCX);
        super::ends::leave(&mut self.a, word);
    }
}
