//! Loads and stores that become the memory operand of an ALU instruction.
//!
//! Only the way of a TLB hit is fused. On a miss the micro-ops are run one by one, out of line,
//! and come back with the flags where the fused form leaves them.

use super::alu::rm;
use super::asm::{RAX, RBP, RCX, Rm};
use super::flags::Recipe;
use super::flags::SPARE;
use super::memory::Kind;
use super::{Cold, Compiler, Loc, RIP, loc};
use emu_core::cpu::Reg;
use emu_core::flags::{CF, OSZAPC};
use emu_core::uop::{Mem, Op, Src, Uop};
use emu_core::width::Width::{W8, W32, W64};

/// The number of an ALU op whose flags all come from its operands.
fn number(op: Op) -> Option<u8> {
    Some(match op {
        Op::Add => 0,
        Op::Or => 1,
        Op::And => 4,
        Op::Sub => 5,
        Op::Xor => 6,
        _ => return None,
    })
}

impl Compiler<'_> {
    /// Emits the micro-ops from `n` on as one; gives how many they are, or none.
    pub(super) fn fused(&mut self, n: usize) -> usize {
        let (block, next) = (self.block, self.next);
        let at = |i: usize| block.uops.get(n + i).filter(|_| n + i < next).copied();
        let (Some(l), Some(o)) = (at(0), at(1)) else { return 0 };
        let vectors = self.fused_vector(n);
        let count = if l.op == Op::Helper && matches!(o.op, Op::Leave | Op::Exit) {
            self.system(Some(&l), &o);
            2
        } else if vectors != 0 {
            vectors
        } else if self.fuse_push(n, &l, &o) {
            2
        } else if let Some(count) = self.fuse_return(n, &l, &o) {
            count
        } else if l.d.is_architectural() || o.w != l.w {
            0
        } else {
            match l.op {
                Op::Ldz if self.fuse_load(n, &l, &o) => 2,
                Op::Ldw if at(2).is_some_and(|s| self.fuse_rmw(n, &l, &o, &s)) => 3,
                _ => 0,
            }
        };
        if count != 0 {
            self.after(n, count);
            self.recipe = self.fused_recipe.take().or(self.recipe);
        }
        count
    }

    /// Whether the rest of the instruction, from micro-op `n` on, reads `r`.
    pub(super) fn read_from(&self, n: usize, r: Reg) -> bool {
        self.block.uops[n.min(self.next)..self.next].iter().any(|u| {
            u.a == r
                || u.b == Src::Reg(r)
                || u.c == r
                || u.mem.base == r
                || u.mem.index == r
                || u.mem.seg == r
                || u.d == r
        })
    }

    /// Whether the flags that `o` writes may be those of a host instruction that writes `nat`, with
    /// nothing to be restored before it.
    fn plain_flags(&self, o: &Uop, nat: u32, live: u32) -> bool {
        let need = o.fl & live;
        need == 0 || (need & !nat == 0 && live & !need == 0)
    }

    /// Whether micro-op `n` is a conditional end that leads where nobody wants the flags.
    fn ends_unwanted(&self, n: usize) -> bool {
        let end = self.block.uops.get(n).filter(|u| u.op == Op::Jcc);
        end.is_some_and(|u| [u.imm, u.fall.into()].into_iter().any(|way| self.unwanted(u.w, way)))
    }

    /// `ldz t, [m]; op d, d, t`, and `ldz t, [m]; cmp t, b`.
    fn fuse_load(&mut self, n: usize, l: &Uop, o: &Uop) -> bool {
        let (live, w) = (self.live_after(n + 1), o.w);
        let Some(number) = number(o.op).or((o.op == Op::Imul && w != W8).then_some(8)) else {
            return false;
        };
        let need = o.fl & live;
        let compares = o.d == Reg::ZERO && matches!(o.op, Op::Sub | Op::And);
        let first = compares && o.a == l.d && o.b != Src::Reg(l.d);
        let second = o.b == Src::Reg(l.d) && o.a != l.d;
        let operand = if compares { o.a } else { o.d };
        let d = match (loc(operand), first) {
            (Loc::Host(d), false) if second && (compares || o.d == o.a) => d,
            (Loc::Slot(_), false) if second && (compares || o.d == o.a) => RCX,
            (_, true) => RCX,
            _ => return false,
        };
        let imm = matches!(o.b, Src::Imm(v) if w != W64 || v == i64::from(v as i32));
        if !self.plain_flags(o, OSZAPC, live)
            || self.read_from(n + 2, l.d)
            || (o.op == Op::Imul && need != 0)
            || (first && !imm && !matches!(o.b, Src::Reg(_)))
        {
            return false;
        }
        self.before(n, 2);
        self.settle();
        self.address(&l.mem);
        let (m, miss) = self.check(Kind::Load, w.bytes());
        let test = o.op == Op::And;
        if compares && need != 0 && !self.in_strip() && self.ends_unwanted(n + 2) {
            // With the operand in memory that the flags may be computed again from.
            self.take(l, m);
            let t = o.b == Src::Reg(l.d);
            match o.b {
                Src::Imm(v) if test => {
                    self.a.ext(w, 0xf7, 0, Rm::R(RCX));
                    self.a.imm_of(w, v);
                }
                Src::Imm(v) => self.a.alu_imm(w, 7, Rm::R(RCX), v),
                Src::Reg(_) if t => self.a.op(w, if test { 0x85 } else { 0x39 }, RCX, rm(o.a)),
                Src::Reg(b) => self.a.op(w, if test { 0x85 } else { 0x3b }, RCX, rm(b)),
            }
            self.flags_done(need);
            self.replay(miss, n, 2, &l.mem);
            self.fused_recipe = Recipe::of(o).filter(|_| o.fl == OSZAPC);
            return true;
        }
        let wide = if w == W64 { W64 } else { W32 };
        if !first && d == RCX {
            self.a.mov(wide, RCX, rm(operand));
        }
        match (first, o.b) {
            (true, Src::Imm(v)) if test => {
                self.a.ext(w, 0xf7, 0, m);
                self.a.imm_of(w, v);
            }
            (true, Src::Imm(v)) => self.a.alu_imm(w, 7, m, v),
            (true, Src::Reg(b)) => {
                let b = self.get(b, W64, RCX);
                self.a.op(w, if test { 0x85 } else { 0x39 }, b, m);
            }
            _ if compares => self.a.op(w, if test { 0x85 } else { 0x3b }, d, m),
            _ if number == 8 => self.a.op0f(w, 0xaf, d, m),
            _ => self.a.op(w, 0x03 | number << 3, d, m),
        }
        if !compares {
            self.reached(o.d, w, d);
        }
        self.flags_done(need);
        self.replay(miss, n, 2, &l.mem);
        if need != 0 && matches!(o.op, Op::And | Op::Or | Op::Xor) && !compares {
            // All that is wanted of the operand is in the result.
            self.fused_recipe = Recipe::of(o).filter(|_| o.fl == OSZAPC);
        }
        true
    }

    /// `ldw t, [m]; op r, t, b; stw [m], r`.
    fn fuse_rmw(&mut self, n: usize, l: &Uop, o: &Uop, s: &Uop) -> bool {
        let (live, w) = (self.live_after(n + 1), o.w);
        let whole = s.op == Op::Stw
            && s.mem == l.mem
            && s.b == Src::Reg(o.d)
            && o.a == l.d
            && o.b != Src::Reg(l.d)
            && s.w == w
            && !o.d.is_architectural()
            && !self.read_from(n + 3, l.d)
            && !self.read_from(n + 3, o.d);
        let (number, nat) = match o.op {
            Op::Inc => (8, OSZAPC & !CF),
            Op::Dec => (9, OSZAPC & !CF),
            Op::Not => (10, 0),
            Op::Neg => (11, OSZAPC),
            op => match number(op) {
                Some(n) => (n, OSZAPC),
                None => return false,
            },
        };
        let fits = match o.b {
            Src::Imm(v) => w != W64 || v == i64::from(v as i32) || number >= 8,
            Src::Reg(_) => true,
        };
        if !whole || !fits || !self.plain_flags(o, nat, live) {
            return false;
        }
        let need = o.fl & live;
        self.before(n, 3);
        self.settle();
        self.address(&l.mem);
        let (m, miss) = self.check(Kind::LoadRmw, w.bytes());
        match (number, o.b) {
            (8, _) => self.a.ext(w, 0xff, 0, m),
            (9, _) => self.a.ext(w, 0xff, 1, m),
            (10, _) => self.a.ext(w, 0xf7, 2, m),
            (11, _) => self.a.ext(w, 0xf7, 3, m),
            (_, Src::Imm(v)) => self.a.alu_imm(w, number, m, v),
            (_, Src::Reg(b)) => {
                let b = self.get(b, W64, RCX);
                self.a.op(w, 0x01 | number << 3, b, m);
            }
        }
        self.flags_done(need);
        self.replay(miss, n, 3, &l.mem);
        true
    }

    /// `add t, rip, i; st [m], t`: the return address of a call, which must not go through memory
    /// on its way to memory.
    fn fuse_push(&mut self, n: usize, l: &Uop, s: &Uop) -> bool {
        let Src::Imm(by) = l.b else { return false };
        let uses = s.mem.base == l.d || s.mem.index == l.d;
        let whole = l.op == Op::Add
            && l.a == Reg::RIP
            && l.fl & self.live_after(n) == 0
            && l.w == W64
            && !l.d.is_architectural()
            && s.op == Op::St
            && s.b == Src::Reg(l.d)
            && !uses
            && !self.read_from(n + 2, l.d);
        let (true, Ok(by)) = (whole, i32::try_from(by)) else { return false };
        self.before(n, 2);
        self.settle_to_move(&s.mem);
        self.address(&s.mem);
        let (m, miss) = self.check(Kind::Store, s.w.bytes());
        self.a.mov(W64, RCX, Rm::M(RBP, RIP));
        self.a.op(W64, 0x8d, RCX, Rm::M(RCX, by));
        self.a.store(s.w, m, RCX);
        self.replay(miss, n, 2, &s.mem);
        true
    }

    /// `ldz t, [m]; lin t2, t; jmpi t2`, before the jump perhaps an addition to RSP: a return, or a
    /// jump through memory. The target does not go through memory again.
    fn fuse_return(&mut self, n: usize, l: &Uop, c: &Uop) -> Option<usize> {
        let at = |i: usize| self.block.uops.get(n + i).copied();
        let whole = l.op == Op::Ldz
            && l.w == W64
            && !l.d.is_architectural()
            && c.checks_rip()
            && c.a == l.d
            && !c.d.is_architectural();
        if !whole {
            return None;
        }
        let by = at(2).and_then(|u| match u.b {
            Src::Imm(by) if u.op == Op::Add && (u.d, u.a) == (Reg::RSP, Reg::RSP) => {
                i32::try_from(by).ok().filter(|_| u.w == W64 && u.fl == 0)
            }
            _ => None,
        });
        let count = if by.is_some() { 4 } else { 3 };
        let jumps = at(count - 1).is_some_and(|u| u.op == Op::Jmpi && u.w == W64 && u.a == c.d);
        if !jumps {
            return None;
        }
        self.save();
        self.settle();
        self.address(&l.mem);
        let (m, miss) = self.check(Kind::Load, 8);
        self.a.mov(W64, RAX, m);
        // What is found there is canonical.
        let other = self.targeted(RAX);
        self.later(Cold::Return { miss, other, from: n, by, target: c.d });
        self.goto_rax(by);
        self.jump_to_target();
        Some(count)
    }

    /// RSP += `by` and RIP = RAX at the end of the block.
    fn goto_rax(&mut self, by: Option<i32>) {
        if let (Some(by), Loc::Host(rsp)) = (by, loc(Reg::RSP)) {
            self.a.op(W64, 0x8d, rsp, Rm::M(rsp, by));
        }
        self.a.store(W64, Rm::M(RBP, RIP), RAX);
        self.charge_or_leave(RAX);
    }

    /// A return, one micro-op after the other.
    pub(super) fn returned(&mut self, from: usize, by: Option<i32>, target: Reg) {
        self.replayed(from, 2);
        self.save();
        self.value(RAX, W64, target.into());
        self.goto_rax(by);
        self.indirect();
    }

    /// After an instruction that has written the flags, of which `need` are wanted, where they were
    /// in memory.
    fn flags_done(&mut self, need: u32) {
        if need != 0 {
            (self.host, self.memory, self.af_zero) = (true, false, false);
        }
    }

    /// An access at `m`, one of the `count` micro-ops from `from` on, which are emitted as one.
    pub(super) fn replay(&mut self, miss: usize, from: usize, count: usize, m: &Mem) {
        if !self.checked_ahead(m) {
            let resume = self.a.here();
            self.later(Cold::Replay { miss, resume, from, count, spared: None });
        }
    }

    /// The micro-ops of a fused form or a group, one by one.
    pub(super) fn replayed(&mut self, from: usize, count: usize) {
        for n in from..from + count {
            self.insn = self.block.insns.partition_point(|m| m.uop as usize <= n).max(1) - 1;
            self.live = self.live_after(n);
            let u = self.block.uops[n];
            if let Some((_, r)) = self.spared.filter(|s| s.0 == n) {
                self.copy(SPARE, W64, r);
            }
            self.before(n, 1);
            self.uop(&u);
            self.after(n, 1);
        }
    }
}
