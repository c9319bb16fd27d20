//! Micro-ops of one guest instruction that are one instruction of the host. The temporaries between
//! them are read by nothing else.

use super::super::asm::{RCX, Rm};
use super::super::memory::Kind;
use super::super::{Compiler, alu};
use super::access::from_gpr;
use super::ops::{Insn, b};
use super::table::{Row, Shape, code};
use super::{home, is_temp};
use emu_core::cpu::Reg;
use emu_core::uop::{Op, Src, Uop};
use emu_core::vec::VecOp;
use emu_core::width::Width::{W32, W64};

/// 16 bytes, the rest zeroed.
const XMM: u8 = 16 | 128;

impl Compiler<'_> {
    /// Emits the vector micro-ops from `n` on as one; gives how many they are, or none.
    pub(in super::super) fn fused_vector(&mut self, n: usize) -> usize {
        let all = &self.block.uops[n..self.next.max(n)];
        let (Some(u), true) = (all.first(), all.len() > 1) else { return 0 };
        if !matches!(u.op, Op::V | Op::Vld | Op::Vset | Op::Vget)
            || !self.has_vectors()
            || self.helped()
        {
            return 0;
        }
        self.of_this_insn();
        match all {
            [v, s, m, ..] if self.inserts(n, v, s, m) => 3,
            [s, v, ..] if s.op == Op::Vset && v.op == Op::V => self.set_and_use(n, s, v),
            [g, s, ..] if g.op == Op::Vget && s.op == Op::St => self.get_and_store(n, g, s),
            [v, s, ..] if v.op == Op::V && s.op == Op::Vst => self.extract_and_store(n, v, s),
            _ => self.chain(n, all),
        }
    }

    /// Whether the rest of the instruction, from micro-op `n` on, reads vector temporary `r`.
    fn vector_read_from(&self, n: usize, r: Reg) -> bool {
        self.block.uops[n.min(self.next)..self.next].iter().any(|u| match u.op {
            Op::V | Op::Vx => u.a == r || u.b == Src::Reg(r) || u.c == r,
            Op::Vst | Op::Vget | Op::Vset => u.a == r,
            _ => false,
        })
    }

    /// A load, what spreads its source over both lanes, an operation, what gathers its result from
    /// them; all but the operation may be missing.
    fn chain(&mut self, n: usize, all: &[Uop]) -> usize {
        let feeds = |i: usize, shuffle: bool| {
            let (Some(u), Some(o)) = (all.get(i), all.get(i + 1)) else { return false };
            let from = matches!(u.op, Op::Vld | Op::V) && is_temp(u.d);
            let to = matches!(o.op, Op::V | Op::Vx);
            from && to && (!shuffle || (u.op == Op::V && b(o) == u.d))
        };
        let mut i = 0;
        let load = Some(&all[0]).filter(|u| u.op == Op::Vld && feeds(0, false));
        i += usize::from(load.is_some());
        let spreads = |u: &&Uop| {
            let spread = u.vop == VecOp::Vspread || (u.vop == VecOp::Vpbroadcast && u.imm == 16);
            u.op == Op::V && spread && u.k == 32
        };
        let before = all.get(i).filter(spreads).filter(|_| feeds(i, true));
        i += usize::from(before.is_some());
        let Some(u) = all.get(i).filter(|u| matches!(u.op, Op::V | Op::Vx)) else { return 0 };
        let narrows = |o: &&Uop| o.vop == VecOp::Vnarrow && o.k == XMM && u.k == 32;
        let after = all.get(i + 1).filter(narrows).filter(|_| feeds(i, true));
        i += 1 + usize::from(after.is_some());
        let dots = match after {
            None => self.dot(&all[i - 1..], load),
            Some(_) => None,
        };
        i += dots.map_or(0, |d| d.0);
        let inner = [load.map(|l| l.d), before.map(|p| p.d), after.map(|_| u.d)];
        let shared = inner.into_iter().flatten().any(|t| self.vector_read_from(n + i, t));
        if i == 1 || shared {
            return 0;
        }
        self.live = self.live_after(n + i - 1);
        let done = match (u.op, load, before) {
            (Op::Vx, Some(l), None) => b(u) == l.d && self.vector_int(u, Some(l)),
            (Op::Vx, ..) => false,
            _ => {
                let bytes = load.map(|l| l.k & 127);
                let insn = dots.map(|d| d.1);
                let insn = insn.or_else(|| self.instruction(u, before, after, bytes));
                let fits = |i: &Insn| {
                    let inner = inner.into_iter().flatten();
                    let reads = |t: Reg| i.v == Some(t) || i.c == Some(t);
                    load.is_none_or(|l| i.rm == l.d) && !inner.into_iter().any(reads)
                };
                insn.filter(fits).is_some_and(|insn| self.emit(&insn, load))
            }
        };
        if done { i } else { 0 }
    }

    /// DPPS or DPPD for the steps of a dot product, whose first is `all[0]`; and how many more
    /// they are.
    fn dot(&self, all: &[Uop], load: Option<&Uop>) -> Option<(usize, Insn)> {
        let (u, imm) = (&all[0], all[0].imm as u8);
        let (code, sum, sums, zeroed) = match u.vop {
            VecOp::Dpmulps => (code("66 0F3A 40"), VecOp::Haddps, 2, !imm & 15),
            VecOp::Dpmulpd => {
                let zeroed = (!imm & 1) * 3 | (!imm >> 1 & 1) * 12;
                (code("66 0F3A 41"), VecOp::Haddpd, 1, zeroed)
            }
            _ => return None,
        };
        let step = |o: &Uop| o.op == Op::V && (o.a, b(o)) == (u.d, u.d) && o.k & 127 == u.k & 127;
        let (sums_of, last) = (all.get(1..=sums)?, all.get(sums + 1)?);
        let whole = u.op == Op::V
            && is_temp(u.d)
            && sums_of.iter().all(|o| step(o) && o.vop == sum && o.d == u.d)
            && step(last)
            && last.vop == VecOp::Insertps
            && last.imm == zeroed.into();
        let (wide, size) = (u.k & 127 == 32, u.k & 127);
        let bytes_fit = load.is_none_or(|l| l.k & 127 == size);
        (whole && bytes_fit && !self.unmasked()).then(|| {
            let vex = wide || last.k & 128 != 0;
            (sums + 1, Insn::two(code, wide, vex, last.d, u.a, b(u), imm))
        })
    }

    /// `v.mov t, a; vset t, t, x; v.mov d, t`: a lane inserted.
    fn inserts(&mut self, n: usize, v: &Uop, s: &Uop, m: &Uop) -> bool {
        let moves = |u: &Uop| u.op == Op::V && u.vop == VecOp::Mov && u.k == XMM;
        let whole = moves(v)
            && moves(m)
            && s.op == Op::Vset
            && is_temp(v.d)
            && (s.d, s.a, s.k & 1) == (v.d, v.d, 0)
            && b(m) == v.d
            && !self.vector_read_from(n + 3, v.d);
        self.live = self.live_after(n);
        whole && self.vector_set(&Uop { d: m.d, a: b(v), ..*s }, true)
    }

    /// `vset t, x; v.op d, a, t`: MOVD, MOVQ, or a conversion.
    fn set_and_use(&mut self, n: usize, s: &Uop, v: &Uop) -> usize {
        let whole = s.k & 1 != 0
            && s.imm == 0
            && s.w >= W32
            && is_temp(s.d)
            && b(v) == s.d
            && v.a != s.d
            && !self.vector_read_from(n + 2, s.d);
        if !whole {
            return 0;
        }
        self.live = self.live_after(n + 1);
        let converts = |r: &&Row| r.shape == Shape::FromGpr && r.code.w == (s.w == W64);
        let done = match self.row(v) {
            Some(row) if row.shape == Shape::Move => self.move_integer(v, s),
            Some(row) if converts(&row) => self.convert_integer(v, Some(s.b)),
            _ => false,
        };
        if done { 2 } else { 0 }
    }

    /// MOVD, MOVQ from a general register.
    fn move_integer(&mut self, v: &Uop, s: &Uop) -> bool {
        if !matches!(v.k, 16 | XMM) {
            return false;
        }
        self.vectors();
        let code = from_gpr(s.w);
        let from = match s.b {
            Src::Reg(r) => alu::rm(r),
            Src::Imm(_) => {
                self.value(RCX, s.w, s.b);
                Rm::R(RCX)
            }
        };
        let vex = v.k == XMM || is_temp(v.d);
        let d = if vex {
            let d = self.destination(v.d);
            self.a.vex(code, false, d, 0, from);
            d
        } else {
            let Some(d) = self.source(v.d, false) else { return false };
            self.a.sse(code, d, from);
            d
        };
        self.written(v.d, d, vex);
        true
    }

    /// `vget t, a[i]; st [m], t`.
    fn get_and_store(&mut self, n: usize, g: &Uop, s: &Uop) -> usize {
        let temp = |r: Reg| !r.is_architectural();
        let at = g.imm as u64 * g.w.bytes();
        let whole = temp(g.d)
            && s.b == Src::Reg(g.d)
            && s.w == g.w
            && ![s.mem.base, s.mem.index].contains(&g.d)
            && at < 16
            && home(g.a).is_some()
            && !self.read_from(n + 2, g.d);
        let (true, Some(x)) = (whole, home(g.a)) else { return 0 };
        self.live = self.live_after(n + 1);
        self.vectors();
        let c = self.checked(Kind::Store, s.w.bytes() as u8, &s.mem);
        self.store_lane(s.w.bytes() as u8, g.imm as u8, x, c.at);
        let miss = self.misses(c.jumps, [Some(*g), Some(*s)]);
        self.later_miss(miss);
        2
    }

    /// `v.vextracti128 t, a; vst [m], t`.
    fn extract_and_store(&mut self, n: usize, v: &Uop, s: &Uop) -> usize {
        let whole = v.vop == VecOp::Vextracti128
            && v.k == XMM
            && is_temp(v.d)
            && s.a == v.d
            && s.k == 16
            && !self.vector_read_from(n + 2, v.d);
        let (true, Some(x)) = (whole, home(b(v))) else { return 0 };
        self.live = self.live_after(n + 1);
        self.vectors();
        let c = self.checked(Kind::Store, s.k, &s.mem);
        if v.imm & 1 == 0 {
            self.store_lane(16, 0, x, c.at);
        } else {
            self.a.vex(code("66 0F3A 39"), true, x, 0, c.at);
            self.a.byte(1);
        }
        let miss = self.misses(c.jumps, [Some(*v), Some(*s)]);
        self.later_miss(miss);
        2
    }
}
