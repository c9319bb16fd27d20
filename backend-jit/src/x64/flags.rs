//! Where the guest's arithmetic flags are while host code runs.
//!
//! The host's ALU computes them. They are in EFLAGS, or in
//! [`Native::flags`](emu_core::native::Native) as AX after `lahf; seto al`, or can be computed
//! again from registers that still have their values (a [`Recipe`]); or in several of these places.
//! What is about to destroy EFLAGS saves them in memory if they are live and there is no recipe: so
//! code pays nothing for flags that only a fault would show, because the way out of line computes
//! them. What reads the flags, or changes only some, brings them back to EFLAGS.
//!
//! Liveness is that of the dead-flag pass: at what may fault and at block ends all are live.

use super::alu::rm;
use super::asm::{RAX, RBP, RCX, Rm, cc};
use super::homes::named;
use super::{Compiler, NATIVE_FLAGS};
use emu_core::cpu::Reg;
use emu_core::flags::{AF, CF, OSZAPC, PF, SF, ZF};
use emu_core::uop::{Effect, Form, Mem, Op, Src, Uop};
use emu_core::width::Width::{self, W8, W16, W32, W64};

/// How the flags are computed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// `a - b`.
    Compare,
    /// `a & b`.
    Test,
    /// `a + b`.
    Sum,
    /// `(a - b) + b`: `a` is the sum.
    UndoSum,
    /// `(a + b) - b`: `a` is the difference.
    UndoDifference,
    /// `-(-a)`: `a` is the result of a negation.
    UndoNegation,
}

/// A way to compute all flags again, as long as its registers keep their values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Recipe {
    how: Again,
    w: Width,
    a: Reg,
    b: Src,
}

impl Recipe {
    pub fn reads(&self, r: Reg) -> bool {
        self.a == r || self.b == Src::Reg(r)
    }

    /// Of an arithmetic micro-op that writes all flags.
    pub(super) fn of(u: &Uop) -> Option<Recipe> {
        let recipe = |how, a, b| Some(Recipe { how, w: u.w, a, b });
        let one = Src::Imm(1);
        let in_place = u.a == u.d;
        match u.b {
            Src::Imm(v) if v != i64::from(v as i32) => return None,
            Src::Reg(b) if b == u.d && b != Reg::ZERO => return None,
            _ => {}
        }
        match u.op {
            Op::Sub if !in_place => recipe(Again::Compare, u.a, u.b),
            Op::Sub => recipe(Again::UndoDifference, u.d, u.b),
            Op::Add if !in_place => recipe(Again::Sum, u.a, u.b),
            Op::Add => recipe(Again::UndoSum, u.d, u.b),
            Op::Inc => recipe(Again::UndoSum, u.d, one),
            Op::Dec => recipe(Again::UndoDifference, u.d, one),
            Op::Neg => recipe(Again::UndoNegation, u.d, one),
            Op::And if u.d == Reg::ZERO => recipe(Again::Test, u.a, u.b),
            Op::And | Op::Or | Op::Xor => recipe(Again::Test, u.d, u.d.into()),
            _ => None,
        }
        .filter(|r| r.a != Reg::ZERO)
    }

    /// Whether it is of use in the next block, where temporaries are others.
    pub(super) fn lasts(&self) -> bool {
        let temporary = |r: Reg| !r.is_architectural();
        !temporary(self.a) && !matches!(self.b, Src::Reg(b) if temporary(b))
    }

    /// By `to` in place of `from`.
    fn moved(self, from: Reg, to: Reg) -> Recipe {
        let of = |r: Reg| if r == from { to } else { r };
        let b = match self.b {
            Src::Reg(b) => Src::Reg(of(b)),
            b => b,
        };
        Recipe { a: of(self.a), b, ..self }
    }
}

/// Where the flags are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    /// EFLAGS are up to date.
    pub host: bool,
    /// [`Native::flags`](emu_core::native::Native) are up to date.
    pub memory: bool,
    /// EFLAGS are those of a shift, which leaves AF undefined where ours is zero.
    pub af_zero: bool,
    pub recipe: Option<Recipe>,
}

impl State {
    /// In memory.
    pub const MEMORY: State = State { host: false, memory: true, af_zero: false, recipe: None };

    /// On entry of a block that wants the flags `live`: by a recipe, or in memory.
    pub fn entry(recipe: Option<Recipe>, live: u32) -> State {
        State { memory: recipe.is_none() && live != 0, recipe, ..State::MEMORY }
    }
}

/// Keeps the old value of a register of a recipe, where no micro-op of the block names it.
pub(super) const SPARE: Reg = Reg::T7;

/// The integer register that `u` writes.
pub(super) fn written(u: &Uop) -> Option<Reg> {
    use Form::*;
    let row = u.op.row();
    let integer = matches!(
        row.form,
        Unary | Binary | Ternary | UnaryK | BinaryK | Load | VecInt | VecGet | Linear
    );
    (integer && u.d != Reg::ZERO).then_some(u.d)
}

/// The registers whose upper halves are known to be zero after `u`, if `short` are before.
fn shortened(u: &Uop, short: u32) -> u32 {
    let bit = |d: Reg| 1 << d.ix();
    let out = match u.op {
        Op::Ldz | Op::Ldw => u.w <= W32,
        Op::Zx => u.w >= W32 && u.k <= W32 as u8,
        Op::Lds => Width::from_index(u.k) == W32,
        op => (op.row().eval.is_some() || op == Op::Lea) && u.w == W32,
    };
    match u.op.row().effect {
        _ if written(u).is_some() && out => short | bit(u.d),
        Effect::Pure | Effect::Load => short & !bit(u.d),
        Effect::Store => short,
        _ => 0,
    }
}

/// The flags that `u` writes in any case: a shift by nothing writes none.
fn overwritten(u: &Uop) -> u32 {
    let shifts =
        matches!(u.op, Op::Shl | Op::Shr | Op::Sar | Op::Rol | Op::Ror | Op::Rcl | Op::Rcr);
    match u.b {
        Src::Imm(n) if shifts && n & 31 == 0 && (u.w != W64 || n & 63 == 0) => 0,
        _ => u.fl,
    }
}

impl Compiler<'_> {
    pub(super) fn flags_word(&self) -> Rm {
        Rm::M(RBP, NATIVE_FLAGS)
    }

    /// Flags to memory, by way of AX (and RCX). Leaves EFLAGS up to date, but for `af_zero`.
    pub(super) fn save(&mut self) {
        if self.memory {
            return;
        }
        if !self.host {
            let Some(recipe) = self.recipe else { return };
            self.compute(recipe);
        }
        // lahf; seto al
        self.a.bytes(&[0x9f, 0x0f, 0x90, 0xc0]);
        if self.af_zero {
            // and ah, ~AF
            self.a.bytes(&[0x80, 0xe4, 0xef]);
            (self.host, self.af_zero) = (false, false);
        }
        self.a.store(W16, self.flags_word(), RAX);
        self.memory = true;
    }

    /// Flags to where they outlive EFLAGS.
    pub(super) fn keep(&mut self) {
        if self.recipe.is_none() {
            self.save();
        }
    }

    /// Before an access by moves alone: once checked it neither faults nor destroys EFLAGS.
    pub(super) fn settle_to_move(&mut self, m: &Mem) {
        if !self.checked_ahead(m) {
            self.settle();
        }
    }

    /// Before what may fault, or destroys EFLAGS: these are free.
    pub(super) fn settle(&mut self) {
        self.keep();
        self.host = false;
        self.settled = self.state();
    }

    /// Before what destroys the host's flags: somebody may want them.
    pub(super) fn clobber(&mut self) {
        if self.live != 0 {
            self.keep();
        }
        self.host = false;
    }

    /// CF to EFLAGS, if it is in memory only. The others are not what they should be.
    pub(super) fn carry_from_memory(&mut self) -> bool {
        let there = self.memory && !self.host;
        if there {
            // bt word [flags], 8: no wider than what was stored.
            let flags = self.flags_word();
            self.a.op0f(W16, 0xba, 4, flags);
            self.a.byte(8);
            self.af_zero = false;
        }
        there
    }

    /// Makes the flags ready for a host instruction on condition `k`; gives the condition that it
    /// has: where they are in memory only, what is tested there is enough for most.
    pub(super) fn condition(&mut self, k: u8) -> u8 {
        let (byte, mask) = match k >> 1 & 7 {
            0 => (0, 1),
            1 => (1, CF),
            2 => (1, ZF),
            3 => (1, CF | ZF),
            4 => (1, SF),
            5 => (1, PF),
            _ => (0, 0),
        };
        let Rm::M(base, at) = self.flags_word() else { return k & 15 };
        if self.host || !self.memory || mask == 0 {
            self.want_host();
            return k & 15;
        }
        self.a.ext(W8, 0xf7, 0, Rm::M(base, at + byte));
        self.a.byte(mask as u8);
        cc::NE ^ k & 1
    }

    /// Flags to EFLAGS, by way of AX or RCX.
    pub(super) fn want_host(&mut self) {
        if self.host {
            return;
        }
        if let Some(recipe) = self.recipe {
            self.compute(recipe);
        } else {
            self.a.op0f(W32, 0xb7, RAX, self.flags_word());
            // add al, 127; sahf
            self.a.bytes(&[0x04, 0x7f, 0x9e]);
            (self.host, self.af_zero) = (true, false);
        }
    }

    /// Computes the flags in EFLAGS, by way of RCX.
    fn compute(&mut self, r: Recipe) {
        let (w, wide) = (r.w, if r.w == W64 { W64 } else { W32 });
        let alu = |c: &mut Self, n: u8| match r.b {
            Src::Imm(v) => c.a.alu_imm(w, n, Rm::R(RCX), v),
            Src::Reg(b) => c.a.op(w, 0x03 | n << 3, RCX, rm(b)),
        };
        match (r.how, r.b) {
            (Again::Compare, _) => {
                let a = self.get(r.a, W64, RCX);
                match r.b {
                    Src::Imm(v) => self.a.alu_imm(w, 7, Rm::R(a), v),
                    Src::Reg(b) => self.a.op(w, 0x3b, a, rm(b)),
                }
            }
            (Again::Test, Src::Imm(v)) => {
                self.a.ext(w, 0xf7, 0, rm(r.a));
                self.a.imm_of(w, v);
            }
            (Again::Test, Src::Reg(b)) => {
                let a = self.get(r.a, W64, RCX);
                self.a.op(w, 0x85, a, if b == r.a { Rm::R(a) } else { rm(b) });
            }
            (how, _) => {
                self.a.mov(wide, RCX, rm(r.a));
                match how {
                    Again::Sum => alu(self, 0),
                    Again::UndoSum => {
                        alu(self, 5);
                        alu(self, 0);
                    }
                    Again::UndoDifference => {
                        alu(self, 0);
                        alu(self, 5);
                    }
                    _ => (0..2).for_each(|_| self.a.ext(w, 0xf7, 3, Rm::R(RCX))),
                }
            }
        }
        (self.host, self.af_zero) = (true, false);
    }

    /// Makes the flags ready for a host instruction that writes `nat` and reads `reads` of them;
    /// `false` if it can't be one for `u`.
    pub(super) fn flags(&mut self, u: &Uop, nat: u32, reads: u32) -> bool {
        let live = self.live;
        let need = u.fl & live;
        if need & !nat != 0 || (need != 0 && nat & !u.fl & live != 0) {
            return false;
        }
        let keep = live & !need;
        // Saving may destroy them.
        if need == 0 && live != 0 {
            self.keep();
        }
        if reads != 0 || (need != 0 && keep != 0) {
            let wanted = reads | if need != 0 { keep } else { 0 };
            if !(wanted == CF && self.carry_from_memory()) {
                self.want_host();
            }
        }
        if need == 0 {
            self.host = false;
        } else {
            (self.host, self.memory) = (true, false);
            self.af_zero &= nat & AF == 0;
        }
        true
    }

    pub(super) fn state(&self) -> State {
        let &Compiler { host, memory, af_zero, recipe, .. } = self;
        State { host, memory, af_zero, recipe }
    }

    pub(super) fn set_state(&mut self, s: State) {
        (self.host, self.memory) = (s.host, s.memory);
        (self.af_zero, self.recipe) = (s.af_zero, s.recipe);
    }

    /// Before the micro-ops from `n` on, `count` of them, are emitted as one: when they write a
    /// register of the recipe and the flags are wanted later, these are saved.
    pub(super) fn before(&mut self, n: usize, count: usize) {
        let (block, range) = (self.block, n..n + count);
        self.x87_before(|r| block.uops[range.clone()].iter().any(|u| written(u) == Some(r)));
        let Some(recipe) = self.recipe else { return };
        let uops = &self.block.uops[n..n + count];
        let written = uops.iter().filter_map(written).any(|d| recipe.reads(d));
        let overwritten = uops.iter().fold(0, |all, u| all | overwritten(u));
        if written && self.live_after(n + count - 1) & !overwritten != 0 {
            self.keep_without(n, count, recipe);
        }
    }

    /// Before micro-ops that write a register of the recipe: where nothing but what may fault wants
    /// the flags, that register's value is kept.
    fn keep_without(&mut self, n: usize, count: usize, recipe: Recipe) {
        let uops = &self.block.uops[n + count..];
        let ends = |u: &Uop| u.op.row().effect == Effect::End;
        let stops = |u: &&Uop| u.flags_read() != 0 || overwritten(u) == OSZAPC || ends(u);
        let unread = uops.iter().find(stops).is_some_and(|u| match u.op {
            Op::Goto => self.unwanted(u.w, u.imm),
            _ => u.flags_read() == 0 && !ends(u),
        });
        let mut lost = self.block.uops[n..n + count].iter().filter_map(written);
        let lost = lost.find(|d| recipe.reads(*d));
        let names = |u: &Uop| named(&mut u.clone()).any(|r| *r == SPARE);
        let free = !self.block.uops.iter().any(names) && !recipe.reads(SPARE);
        let free = free && !self.vector.cold;
        let free = free && self.may_spare();
        match lost {
            Some(r) if unread && free && !self.memory && count == 1 => {
                self.spare_in_groups(n, r);
                self.copy(SPARE, W64, r);
                self.recipe = Some(recipe.moved(r, SPARE));
            }
            _ => self.save(),
        }
    }

    /// After them: what has become of the recipe. `old` is what there was before.
    pub(super) fn after(&mut self, n: usize, count: usize) {
        let uops = &self.block.uops[n..n + count];
        uops.iter().for_each(|u| self.short = shortened(u, self.short));
        let wanted = |i: usize, u: &Uop| overwritten(u) & self.live_after(n + i) != 0;
        let last = uops.iter().enumerate().rfind(|(i, u)| wanted(*i, u));
        if let Some((_, u)) = last {
            // Of one micro-op alone, whose flags are its own: fused ones have operands in memory.
            let whole = count == 1 && u.fl == OSZAPC && u.op.row().effect == Effect::Pure;
            self.recipe = Recipe::of(u).filter(|_| whole && self.host && !self.af_zero);
        } else if let Some(recipe) = self.recipe
            && uops.iter().filter_map(written).any(|d| recipe.reads(d))
        {
            self.recipe = None;
        }
    }
}
