//! A region: blocks of one page that lead to each other, compiled together.
//!
//! RIP stays that of the head as long as the region runs; what reads it elsewhere adds the distance
//! of its block (a [`Piece`] has its micro-ops changed for that), and every way out of the region,
//! or to Rust, first adds it to RIP itself.
//!
//! Between blocks of a region flags are in memory, or known by a recipe. What a block may take for
//! granted is part of what it is compiled for: a block may be there in several versions.

use super::asm::{RCX, Rm, cc};
use super::flags::{Recipe, State};
use super::homes::Homes;
use super::strips::Stage;
use super::{Cold, Compiler, RIP, Site, liveness, vector, x87};
use crate::enter::BUDGET;
use emu_core::cpu::{Reg, mode};
use emu_core::interp::Leave;
use emu_core::native::{Part, Place};
use emu_core::uop::{Block, Op, Src, Uop};
use emu_core::width::Width::{self, W64};
use std::borrow::Cow;

/// Versions of a block at most, of which one finds its flags in memory.
const VERSIONS: usize = 3;

/// A block of a region.
pub(super) struct Piece<'a> {
    pub block: Cow<'a, Block>,
    pub place: Place<'a>,
    /// Distance from the head's first byte.
    pub delta: i64,
    /// Flags live after each micro-op, and before the first.
    pub lives: Vec<u32>,
    pub wanted: u32,
    /// Number of its first guest instruction, counted through the region.
    pub first_insn: usize,
}

impl<'a> Piece<'a> {
    /// All that can be in one region with the first of `parts`.
    pub fn all(parts: &'a [Part<'a>]) -> Vec<Piece<'a>> {
        let head = parts[0].place.off;
        let delta = |p: &Part| p.place.off.wrapping_sub(head) as i64;
        let mut all: Vec<Piece> = parts.iter().filter_map(|p| Piece::new(p, delta(p))).collect();
        let mut insns = 0;
        for p in &mut all {
            p.first_insn = insns;
            insns += p.block.insns.len();
        }
        all
    }

    fn new(p: &Part<'a>, delta: i64) -> Option<Piece<'a>> {
        let mut block = Cow::Borrowed(p.block);
        if delta != 0 {
            for u in &mut block.to_mut().uops {
                *u = based(u, delta)?;
            }
        }
        let (lives, wanted) = liveness(p.block, p.place.mode & mode::XM == 0, false);
        Some(Piece { block, place: p.place, delta, lives, wanted, first_insn: 0 })
    }
}

impl Piece<'_> {
    /// Its micro-ops with the names of `homes`.
    pub fn rename(&mut self, homes: &Homes) {
        if !homes.none() {
            self.block.to_mut().uops.iter_mut().for_each(|u| *u = homes.renamed(u));
        }
    }
}

/// `u` where RIP is less by `delta` than it should be. `None`: there is no such form.
pub(super) fn based(u: &Uop, delta: i64) -> Option<Uop> {
    let mut v = *u;
    if u.mem.base == Reg::RIP {
        v.mem.disp = i32::try_from(i64::from(u.mem.disp) + delta).ok()?;
    }
    if u.a == Reg::RIP {
        let (Op::Add, Src::Imm(by)) = (u.op, u.b) else { return None };
        v.b = Src::Imm(by + delta);
    }
    // A helper is called with RIP as it should be.
    let other = u.op != Op::Helper && u.b == Src::Reg(Reg::RIP);
    let others = [u.d, u.c, u.mem.index, u.mem.seg].contains(&Reg::RIP);
    (!other && !others).then_some(v)
}

/// A block as it was compiled for what is known where it begins.
pub(super) struct Version {
    pub piece: usize,
    pub stage: Stage,
    recipe: Option<Recipe>,
    /// The vector registers are live.
    live: bool,
    /// Where it begins, once it is emitted.
    at: Option<usize>,
    /// Jumps that lead to it.
    jumps: Vec<usize>,
}

impl Compiler<'_> {
    /// Compiles the region.
    pub(super) fn run(&mut self) {
        self.swap_homes(RCX);
        self.version(0, Stage::Plain, None, false);
        self.check_second_page();
        let mut done = 0;
        loop {
            let unemitted = || self.versions.iter().position(|v| v.at.is_none());
            if let Some(v) = self.next_version.take().or_else(unemitted) {
                self.emit_version(v);
            } else if done < self.cold.len() {
                if done == 0 {
                    self.marks.cold = self.a.here() as u32;
                }
                self.emit_cold(done);
                done += 1;
            } else {
                self.marks.end = self.a.here() as u32;
                self.marks.cold = if done == 0 { self.marks.end } else { self.marks.cold };
                return;
            }
        }
    }

    /// What follows belongs to block `n`, run in this way.
    pub(super) fn select(&mut self, n: usize, stage: Stage) {
        let pieces = self.pieces;
        (self.piece, self.block, self.place) = (n, &pieces[n].block, &pieces[n].place);
        self.lives = &pieces[n].lives;
        self.set_stage(stage);
    }

    fn emit_version(&mut self, v: usize) {
        self.align(v);
        let here = self.a.here();
        self.versions[v].at = Some(here);
        for jump in std::mem::take(&mut self.versions[v].jumps) {
            self.a.bind(jump);
        }
        let Version { piece, stage, recipe, live, .. } = self.versions[v];
        self.select(piece, stage);
        self.set_state(State::entry(recipe, self.pieces[piece].wanted));
        if stage == Stage::SetUp {
            self.vector = vector::State::entry(live);
            self.set_up();
        } else {
            self.block_code(live);
        }
    }

    /// The version of block `piece` for flags by this recipe, or in memory, and for vector
    /// registers that are live, or may be. There is always one for flags in memory.
    fn version(
        &mut self,
        piece: usize,
        stage: Stage,
        recipe: Option<Recipe>,
        live: bool,
    ) -> Option<usize> {
        let of_block = |v: &&Version| v.piece == piece && v.stage == stage;
        let same = |v: &Version| of_block(&v) && v.recipe == recipe;
        if let Some(v) = self.versions.iter().position(|v| same(v) && v.live == live) {
            return Some(v);
        }
        let others = self.versions.iter().filter(of_block).count();
        if others + 1 >= VERSIONS {
            let safe = self.versions.iter().position(|v| same(v) && !v.live);
            if recipe.is_some() || safe.is_some() {
                return safe;
            }
        }
        let live = live && others + 1 < VERSIONS;
        self.versions.push(Version { piece, stage, recipe, live, at: None, jumps: Vec::new() });
        Some(self.versions.len() - 1)
    }

    /// Distance of the current block from the head.
    pub(super) fn delta(&self) -> i64 {
        self.pieces[self.piece].delta
    }

    /// The block of this region that the way of distance `delta` leads to.
    pub(super) fn inside(&self, w: Width, delta: i64) -> Option<usize> {
        let width = if self.place.mode & mode::CODE64 != 0 { W64 } else { Width::W32 };
        let to = self.delta() + delta;
        (w == width).then(|| self.pieces.iter().position(|p| p.delta == to)).flatten()
    }

    /// Whether that is one that does not want the flags.
    pub(super) fn unwanted(&self, w: Width, delta: i64) -> bool {
        self.inside(w, delta).is_some_and(|to| self.pieces[to].wanted == 0)
    }

    /// Whether that block is there already: the way is a loop's.
    pub(super) fn loops(&self, w: Width, delta: i64) -> bool {
        let to = self.inside(w, delta);
        to.is_some_and(|to| self.versions.iter().any(|v| v.piece == to && v.at.is_some()))
    }

    /// One way out of the block. `last`: nothing of the block follows it.
    pub(super) fn way(&mut self, w: Width, delta: i64, taken: bool, last: bool) {
        let Some(to) = self.inside(w, delta) else { return self.way_out(w, delta, taken) };
        let stage = self.stage_of_way(to);
        let ordinary = matches!(stage, Stage::Plain | Stage::Again) && !self.in_strip();
        let ready = self.host && !self.af_zero && self.owed.is_none();
        if ordinary && ready && self.tests_only(to) {
            let (from, as_it_is) = (self.piece, self.stage);
            self.owed = Some(Owed { piece: from, w, delta });
            self.select(to, stage);
            self.marks.insn(self.a.here(), self.pieces[to].first_insn);
            let u = self.block.uops[0];
            self.fork(&u, u.w, u.k & 15, last);
            self.select(from, as_it_is);
            self.owed = None;
            return;
        }
        let version = self.target(to, stage);
        self.host = false;
        self.settled = self.state();
        let redo = self.redo.take();
        self.charge();
        if !self.in_strip() {
            let jump = self.a.jcc(cc::S);
            self.later(Cold::Stop { jump, w, delta, redo, owed: self.owed });
        }
        self.go_to(version, last);
    }

    /// The version of block `to` for what is known here. Flags are then where it wants them.
    pub(super) fn target(&mut self, to: usize, stage: Stage) -> usize {
        // Where nobody wants the flags, only who stops here does.
        let wanted = self.pieces[to].wanted != 0;
        let again = self.recipe.is_some_and(|r| !wanted || r.lasts());
        let nobody = !wanted && (self.redo.is_some() || self.in_strip());
        if !self.memory && !again && !nobody {
            self.save();
        }
        let recipe = self.recipe.filter(|_| wanted && !self.memory);
        let live = self.vectors_known();
        let version = self.version(to, stage, recipe, live).or_else(|| {
            self.save();
            self.version(to, stage, None, live)
        });
        version.expect("there is a version for flags in memory")
    }

    /// Goes on with a version of a block. `last`: nothing of this one follows.
    pub(super) fn go_to(&mut self, version: usize, last: bool) {
        if last && self.next_version.is_none() && self.versions[version].at.is_none() {
            self.next_version = Some(version);
        } else {
            let jump = self.a.jmp();
            self.lead_to(jump, version);
        }
    }

    /// Lets a jump lead to a version of a block.
    pub(super) fn lead_to(&mut self, jump: usize, version: usize) {
        match self.versions[version].at {
            Some(at) => self.a.bind_to(jump, at),
            None => self.versions[version].jumps.push(jump),
        }
    }

    /// A way out of the region.
    fn way_out(&mut self, w: Width, delta: i64, taken: bool) {
        self.redo = None;
        self.save();
        if let Some(o) = self.owed.take() {
            let here = self.piece;
            self.select(o.piece, self.stage);
            self.charge();
            let jump = self.a.jcc(cc::S);
            self.settled = self.state();
            self.later(Cold::Stop { jump, w: o.w, delta: o.delta, redo: None, owed: None });
            self.select(here, self.stage);
        }
        self.advance(w, delta);
        self.charge_or_leave(RCX);
        let why = if taken { Leave::LinkTaken } else { Leave::LinkFall };
        let word = why.at(self.place.last as usize) as u32;
        let jump = self.a.jmp();
        self.later(Cold::Exit { jump, word, taken });
    }

    /// Charges the block; the host's S flag says that the budget is used up.
    pub(super) fn charge(&mut self) {
        if self.in_strip() {
            return self.charge_exit();
        }
        let owed = self.owed.map_or(0, |o| self.pieces[o.piece].block.insns.len());
        let n = self.block.insns.len() + owed;
        self.a.alu_imm(W64, 5, Rm::R(BUDGET), n as i64);
    }

    /// Whether block `n` is a conditional jump and nothing else: it is made part of the block that
    /// leads to it, as long as EFLAGS are up to date. Where the budget ends, it may be undone.
    fn tests_only(&self, n: usize) -> bool {
        let uops = &self.pieces[n].block.uops;
        uops.len() == 1 && uops[0].op == Op::Jcc
    }

    /// RIP of this block where it is that of the head (`sign` = 1), or back (-1). Destroys the
    /// flags.
    pub(super) fn move_rip(&mut self, sign: i64) {
        let delta = self.delta();
        if delta != 0 {
            // Outside 64-bit code the upper half is zero, and stays so.
            let w = if self.place.mode & mode::CODE64 != 0 { W64 } else { Width::W32 };
            self.a.alu_imm(w, 0, Rm::M(super::asm::RBP, RIP), sign * delta);
        }
    }

    pub(super) fn later(&mut self, cold: Cold) {
        let (piece, start, end) = (self.piece, self.settled, self.state());
        let (note, live) = (self.x87_pending(), self.vectors_known());
        self.cold.push(Later { piece, stage: self.stage, start, end, note, live, cold });
    }
}

/// A block that was run and not charged yet, and the way from it to the current one.
#[derive(Clone, Copy)]
pub(super) struct Owed {
    pub piece: usize,
    pub w: Width,
    pub delta: i64,
}

/// Code out of line: of which block, and where the flags are when it begins and when it is left
/// for the code in line.
#[derive(Clone, Copy)]
pub(super) struct Later {
    pub piece: usize,
    pub stage: Stage,
    pub start: State,
    pub end: State,
    /// What is pending of the x87.
    pub note: x87::Note,
    /// The code in line knows the vector registers to be live then.
    pub live: bool,
    pub cold: Cold,
}

/// The exits of the blocks of a region: of which block (its first record), taken or not, and where.
pub(super) type Exits = Vec<(u32, bool, Site)>;
