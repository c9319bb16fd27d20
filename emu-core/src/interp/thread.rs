//! Canonical micro-ops → threaded code, with the fuse pass.
//!
//! Fusing looks at a window of micro-ops of one guest instruction (and, for compare-and-branch, of
//! two: the compare cannot fault). A temporary that a fused form no longer writes must not be read
//! later in the instruction.

use super::handlers::{self as h, am, fl};
use super::{Handler, Rec, UNLINKED};
use crate::cpu::{Cpu, Reg};
use crate::flags::OSZAPC;
use crate::for_each_op;
use crate::uop::{Block, Effect, HelperDef, Mem, Op, PureOp, Src, Uop, ops};
use crate::width::Width::{self, W8, W16, W32, W64};

/// Threaded code of one block.
#[derive(Debug, Default)]
pub struct Threaded {
    /// The records.
    pub recs: Vec<Rec>,
    /// For each guest instruction: its first record and its distance from the block's start.
    pub marks: Vec<(u16, u16)>,
}

/// Makes threaded code from a block; helpers and rare ops are entered into the CPU's lists.
pub fn thread(cpu: &mut Cpu, block: &Block) -> Threaded {
    let mut t = Threader { cpu, block, out: Threaded::default(), at: 0, next: 0 };
    let mut insn = 0;
    while t.at < block.uops.len() {
        while block.insns.get(insn).is_some_and(|m| m.uop as usize <= t.at) {
            t.out.marks.push((t.out.recs.len() as u16, block.insns[insn].offset));
            insn += 1;
        }
        t.next = block.insns.get(insn).map_or(block.uops.len(), |m| m.uop as usize);
        t.step();
    }
    // Instructions whose micro-ops were all fused into the one before.
    for m in &block.insns[insn..] {
        t.out.marks.push((t.out.recs.len().saturating_sub(1) as u16, m.offset));
    }
    t.out
}

const BLANK: Rec = Rec { run: h::stale, d: 0, a: 0, b: 0, c: 0, i: 0, imm: 0, t: 0, f: 0 };

/// A record whose handler leaves for the dispatcher: for entries of dead blocks.
pub fn stale() -> Rec {
    Rec { run: h::stale, t: UNLINKED, ..BLANK }
}

/// A first record that counts down the runs of its block in counter `n`.
pub fn count(n: u32) -> Rec {
    Rec { run: h::count, imm: n.into(), t: UNLINKED, ..BLANK }
}

/// A first record that leaves for the dispatcher unless what begins `in_page` bytes behind RIP is
/// mapped to the RAM offset `second`.
pub fn straddle(second: u64, in_page: u64) -> Rec {
    Rec { run: h::straddle, imm: second, i: in_page as i32, t: UNLINKED, ..BLANK }
}

/// The first record of a block whose host code begins at `entry`.
pub fn native(entry: u64) -> Rec {
    Rec { run: h::native, imm: entry, t: UNLINKED, ..BLANK }
}

/// A record that goes on at `t`.
pub fn forward(t: u32) -> Rec {
    Rec { run: h::forward, t, ..BLANK }
}

/// A record that goes on at `t` while RIP maps to the RAM offset `off`.
pub fn guard(off: u64, t: u32) -> Rec {
    Rec { run: h::guard, imm: off, t, ..BLANK }
}

struct Threader<'a> {
    cpu: &'a mut Cpu,
    block: &'a Block,
    out: Threaded,
    /// Micro-op to translate next.
    at: usize,
    /// First micro-op of the next guest instruction.
    next: usize,
}

/// Destination slot: dropped results go where nobody looks.
fn dst(r: Reg) -> u8 {
    if r == Reg::ZERO { Cpu::DROP } else { r.0 }
}

fn flag_kind(mask: u32) -> u8 {
    match mask {
        0 => fl::NONE,
        OSZAPC => fl::ALL,
        _ => fl::SOME,
    }
}

/// Expands a handler over the widths.
macro_rules! by_width {
    ($w:expr, |$W:ident| $e:expr) => {
        match $w {
            W8 => {
                const $W: u8 = 0;
                $e
            }
            W16 => {
                const $W: u8 = 1;
                $e
            }
            W32 => {
                const $W: u8 = 2;
                $e
            }
            W64 => {
                const $W: u8 = 3;
                $e
            }
        }
    };
}

macro_rules! by_bool {
    ($b:expr, |$B:ident| $e:expr) => {
        if $b {
            const $B: bool = true;
            $e
        } else {
            const $B: bool = false;
            $e
        }
    };
}

macro_rules! by_flags {
    ($f:expr, |$F:ident| $e:expr) => {
        match $f {
            fl::NONE => {
                const $F: u8 = fl::NONE;
                $e
            }
            fl::ALL => {
                const $F: u8 = fl::ALL;
                $e
            }
            _ => {
                const $F: u8 = fl::SOME;
                $e
            }
        }
    };
}

macro_rules! by_mode {
    ($a:expr, |$A:ident| $e:expr) => {
        match $a {
            am::BASE => {
                const $A: u8 = am::BASE;
                $e
            }
            am::INDEX => {
                const $A: u8 = am::INDEX;
                $e
            }
            _ => {
                const $A: u8 = am::FULL;
                $e
            }
        }
    };
}

macro_rules! by_cond {
    ($c:expr, |$C:ident| $e:expr) => {
        by_cond!(@ $c, $C, $e, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
    };
    (@ $c:expr, $C:ident, $e:expr, $($n:literal)*) => {
        match $c & 15 {
            $($n => { const $C: u8 = $n; $e })*
            _ => unreachable!(),
        }
    };
}

fn alu_of<O: PureOp>(w: Width, imm: bool, f: u8) -> Handler {
    by_width!(w, |W| by_bool!(imm, |I| by_flags!(f, |F| h::alu::<O, W, I, F>)))
}

macro_rules! alu_table {
    (pure { $($(#[$pd:meta])+ $p:ident $pn:literal $pf:ident [$pr:expr] [$pw:expr] $eval:expr;)* }
     other { $($rest:tt)* }) => {
        fn alu(op: Op, w: Width, imm: bool, f: u8) -> Option<Handler> {
            Some(match op {
                $(Op::$p => alu_of::<ops::$p>(w, imm, f),)*
                _ => return None,
            })
        }
    };
}
for_each_op!(alu_table);

/// Handler of one of the ops that are worth fusing.
macro_rules! pick {
    ($op:expr, [$($o:ident)*], |$O:ident| $e:expr) => {
        match $op {
            $(Op::$o => { type $O = ops::$o; Some($e) })*
            _ => None,
        }
    };
}

fn address_mode(m: &Mem) -> u8 {
    if m.seg != Reg::ZERO || m.addr != W64 {
        am::FULL
    } else if m.index != Reg::ZERO {
        am::INDEX
    } else {
        am::BASE
    }
}

/// The record's fields for a memory operand.
fn with_mem(m: &Mem) -> Rec {
    Rec {
        a: m.base.0,
        b: m.index.0,
        c: m.scale & 3 | (m.addr as u8) << 2 | u8::from(m.stack) << 4,
        i: m.disp,
        t: u32::from(m.seg.0),
        ..BLANK
    }
}

impl Threader<'_> {
    fn peek(&self, n: usize) -> Option<&Uop> {
        self.block.uops.get(self.at + n)
    }

    /// Whether the micro-op `n` ahead belongs to the current guest instruction.
    fn same_insn(&self, n: usize) -> bool {
        self.at + n < self.next
    }

    /// Whether temporary `r` is read by the rest of the instruction from the micro-op `n` ahead on.
    fn read_later(&self, r: Reg, n: usize) -> bool {
        let end = self.next;
        let from = (self.at + n).min(end);
        self.block.uops[from..end].iter().any(|u| {
            u.a == r
                || u.b == Src::Reg(r)
                || u.c == r
                || u.mem.base == r
                || u.mem.index == r
                || (u.op == Op::Helper && u.d == r)
                || (u.d == r && u.w < W32)
        })
    }

    fn emit(&mut self, rec: Rec, uops: usize) {
        self.out.recs.push(rec);
        self.at += uops;
    }

    fn insn_count(&self) -> i64 {
        self.block.insns.len() as i64
    }

    fn step(&mut self) {
        let u = *self.peek(0).expect("step beyond the block");
        if self.fused(&u) {
            return;
        }
        match u.op {
            Op::Ld | Op::Ldz | Op::Lds | Op::Ldw | Op::Lea => self.load(&u),
            Op::St | Op::Stw => self.store(&u),
            Op::Helper => self.helper(&u),
            // In 64-bit code: see the op table.
            Op::Lin if u.checks_rip() => {
                self.emit(Rec { run: h::canonical, d: dst(u.d), a: u.a.0, ..BLANK }, 1);
            }
            _ if u.op.row().effect == Effect::End => self.end(&u),
            _ if u.op.row().eval.is_some() => self.alu(&u),
            _ => {
                let n = self.cpu.rare.len() as u64;
                self.cpu.rare.push(u);
                self.emit(Rec { run: h::rare, imm: n, ..BLANK }, 1);
            }
        }
    }

    fn alu(&mut self, u: &Uop) {
        let (imm, b, v) = match u.b {
            Src::Imm(v) => (true, 0, v as u64),
            Src::Reg(r) => (false, r.0, 0),
        };
        let run = alu(u.op, u.w, imm, flag_kind(u.fl)).expect("a pure op without a handler");
        let (d, a, c, t, f) = (dst(u.d), u.a.0, u.k, u.fl, u32::from(u.c.0));
        self.emit(Rec { run, d, a, b, c, imm: v, t, f, ..BLANK }, 1);
    }

    fn load(&mut self, u: &Uop) {
        let a = address_mode(&u.mem);
        let run: Handler = match u.op {
            Op::Ld => by_width!(u.w, |W| by_mode!(a, |A| h::ld::<W, false, A, false>)),
            Op::Ldz => by_width!(u.w, |W| by_mode!(a, |A| h::ld::<W, true, A, false>)),
            Op::Ldw => by_width!(u.w, |W| h::ldw::<W, false>),
            Op::Lds => {
                let k = Width::from_index(u.k);
                by_width!(u.w, |W| by_width!(k, |K| by_mode!(a, |A| h::lds::<W, K, A, false>)))
            }
            _ => {
                // LEA has no segment; the result's own width cuts as far as the address size.
                let m = Mem { seg: Reg::ZERO, ..u.mem };
                let a = address_mode(&m);
                let run = by_width!(u.w, |W| by_mode!(a, |A| h::lea::<W, A>));
                self.emit(Rec { run, d: dst(u.d), ..with_mem(&m) }, 1);
                return;
            }
        };
        self.emit(Rec { run, d: dst(u.d), ..with_mem(&u.mem) }, 1);
    }

    fn store(&mut self, u: &Uop) {
        let a = address_mode(&u.mem);
        let (run, d, imm): (Handler, u8, u64) = match u.b {
            Src::Imm(v) => {
                (by_width!(u.w, |W| by_mode!(a, |A| h::st::<W, true, A, false>)), 0, v as u64)
            }
            Src::Reg(r) if u.op == Op::Stw => (by_width!(u.w, |W| h::stw::<W, false>), r.0, 0),
            Src::Reg(r) => {
                (by_width!(u.w, |W| by_mode!(a, |A| h::st::<W, false, A, false>)), r.0, 0)
            }
        };
        self.emit(Rec { run, d, imm, ..with_mem(&u.mem) }, 1);
    }

    fn helper(&mut self, u: &Uop) {
        let def: &'static HelperDef = u.helper.expect("a helper micro-op without its helper");
        let b = if let Src::Reg(r) = u.b { r } else { Reg::ZERO };
        if u.k > 63 {
            // `k` shares a byte with the width in the record.
            let n = self.cpu.rare.len() as u64;
            self.cpu.rare.push(*u);
            self.emit(Rec { run: h::rare, imm: n, ..BLANK }, 1);
            return;
        }
        let known = self.cpu.helpers.iter().position(|x| std::ptr::eq(*x, def));
        let n = known.unwrap_or_else(|| {
            self.cpu.helpers.push(def);
            self.cpu.helpers.len() - 1
        });
        let c = u.w as u8 | u.k << 2;
        let rec = Rec { run: h::outline, d: u.d.0, a: u.a.0, b: b.0, c, ..BLANK };
        self.emit(Rec { i: n as i32, imm: u.imm as u64, ..rec }, 1);
    }

    /// Packs a conditional end's distances; `None` when they do not fit.
    fn ways(&self, u: &Uop) -> Option<u64> {
        let taken = i32::try_from(u.imm).ok()?;
        // JRCXZ has its target here: an 8-bit displacement from within a page.
        let fall = i16::try_from(u.fall).ok()?;
        Some(
            u64::from(taken as u32)
                | u64::from(fall as u16) << 32
                | (self.insn_count() as u64) << 48,
        )
    }

    fn end(&mut self, u: &Uop) {
        let n = self.insn_count() as i32;
        let w64 = u.w == W64;
        let c = u.w as u8;
        let (t, f) = (UNLINKED, UNLINKED);
        let rec = match u.op {
            Op::Goto => {
                let run: Handler = by_bool!(w64, |B| h::goto::<B>);
                Rec { run, c, i: n, imm: u.imm as u64, t, f, ..BLANK }
            }
            Op::Jcc | Op::Jrnz => {
                // A jump of more than 2 GiB exists only at the very edge of rel32; both ways of
                // the jump are relative to the block, whose offset can push it over.
                let imm = self.ways(u).unwrap_or_else(|| {
                    let u = Uop { imm: i64::from(u.imm as i32), ..*u };
                    self.ways(&u).expect("a conditional end's other way is near")
                });
                if u.op == Op::Jcc {
                    let run: Handler = by_cond!(u.k, |C| by_bool!(w64, |B| h::jcc::<C, B>));
                    Rec { run, c, imm, t, f, ..BLANK }
                } else {
                    let run: Handler = by_width!(u.w, |W| h::jrnz::<W>);
                    Rec { run, a: u.a.0, c: u.k, imm, t, f, ..BLANK }
                }
            }
            Op::Jmpi => Rec { run: h::jmpi, a: u.a.0, c, i: n, ..BLANK },
            Op::Raise => Rec { run: h::raise, c: u.k, i: u.imm as i32, ..BLANK },
            Op::Leave => Rec { run: h::exit, c, i: n, imm: u.imm as u64, ..BLANK },
            _ => Rec { run: h::exit, b: 1, c, i: n, ..BLANK },
        };
        self.emit(rec, 1);
    }

    // ---- fusing -----------------------------------------------------------------------------------

    fn fused(&mut self, u: &Uop) -> bool {
        match u.op {
            Op::Sub | Op::And => self.fuse_branch(u),
            Op::Ldz => self.fuse_ret(u) || self.fuse_load(u),
            Op::Ld => self.fuse_pop(u),
            Op::St => self.fuse_push(u),
            Op::Ldw => self.fuse_rmw(u),
            Op::Add => self.fuse_call(u),
            Op::Lin => self.fuse_jump(u),
            _ => false,
        }
    }

    /// CMP, TEST, SUB or AND and the conditional jump after it.
    fn fuse_branch(&mut self, u: &Uop) -> bool {
        let Some(j) = self.peek(1).copied() else { return false };
        let imm = match u.b {
            Src::Imm(v) => match i32::try_from(v) {
                Ok(v) => Some(v),
                Err(_) => return false,
            },
            Src::Reg(_) => None,
        };
        if j.op != Op::Jcc || j.w != W64 || u.fl != OSZAPC {
            return false;
        }
        let Some(ways) = self.ways(&j) else { return false };
        let i = imm.is_some();
        let run: Option<Handler> = pick!(u.op, [Sub And], |O| by_width!(u.w, |W| by_bool!(i, |I| {
            by_cond!(j.k, |C| h::alu_jcc::<O, W, I, C>)
        })));
        let Some(run) = run else { return false };
        let b = if let Src::Reg(r) = u.b { r.0 } else { 0 };
        let rec = Rec { run, d: dst(u.d), a: u.a.0, b, i: imm.unwrap_or(0), ..BLANK };
        self.emit(Rec { imm: ways, t: UNLINKED, f: UNLINKED, ..rec }, 2);
        true
    }

    /// `ldz t, [m]` and the one op that uses `t`.
    fn fuse_load(&mut self, u: &Uop) -> bool {
        let Some(o) = self.peek(1).copied() else { return false };
        let flags = flag_kind(o.fl);
        if u.d.is_architectural()
            || !self.same_insn(1)
            || o.w != u.w
            || self.read_later(u.d, 2)
            || flags == fl::SOME
        {
            return false;
        }
        let (w, m) = (u.w, address_mode(&u.mem));
        if o.d == Reg::ZERO && o.a == u.d && flags == fl::ALL {
            let (imm, d, v) = match o.b {
                Src::Imm(v) => (true, 0, v as u64),
                Src::Reg(r) if r == u.d => return false,
                Src::Reg(r) => (false, r.0, 0),
            };
            let run: Option<Handler> = pick!(o.op, [Sub And], |O| by_width!(w, |W| {
                by_bool!(imm, |I| by_mode!(m, |A| h::cmp_mem::<O, W, I, A, false>))
            }));
            let Some(run) = run else { return false };
            self.emit(Rec { run, d, imm: v, ..with_mem(&u.mem) }, 2);
            return true;
        }
        if o.b != Src::Reg(u.d) || o.a == u.d {
            return false;
        }
        let run: Option<Handler> = pick!(o.op, [Add Sub And Or Xor Imul], |O| by_width!(w, |W| {
            by_bool!(flags == fl::ALL, |F| by_mode!(m, |A| {
                h::alu_mem::<O, W, { F as u8 }, A, false>
            }))
        }));
        let Some(run) = run else { return false };
        self.emit(Rec { run, d: dst(o.d), imm: o.a.0.into(), ..with_mem(&u.mem) }, 2);
        true
    }

    /// `ldw t, [m]; op t2, t, b; stw [m], t2`.
    fn fuse_rmw(&mut self, u: &Uop) -> bool {
        let (Some(o), Some(s)) = (self.peek(1).copied(), self.peek(2).copied()) else {
            return false;
        };
        let whole = self.same_insn(2)
            && s.op == Op::Stw
            && s.mem == u.mem
            && s.b == Src::Reg(o.d)
            && o.a == u.d
            && o.w == u.w
            && s.w == u.w
            && !self.read_later(u.d, 3)
            && !self.read_later(o.d, 3);
        if !whole || o.d.is_architectural() || u.d.is_architectural() {
            return false;
        }
        let (imm, d, v) = match o.b {
            Src::Imm(v) => (true, 0, v as u64),
            Src::Reg(r) if r == u.d => return false,
            Src::Reg(r) => (false, r.0, 0),
        };
        let f = flag_kind(o.fl);
        let op = o.op;
        let run: Option<Handler> = pick!(op, [Add Sub And Or Xor Inc Dec], |O| by_width!(u.w, |W| {
            by_bool!(imm, |I| by_flags!(f, |F| h::rmw::<O, W, I, F, false>))
        }));
        let Some(run) = run else { return false };
        self.emit(Rec { run, d, imm: v, f: o.fl, ..with_mem(&u.mem) }, 3);
        true
    }

    /// Whether the micro-op `n` ahead adds `by` to the 64-bit RSP.
    fn moves_rsp(&self, n: usize) -> Option<i64> {
        let u = self.peek(n)?;
        let here = u.op == Op::Add && u.w == W64 && u.d == Reg::RSP && u.a == Reg::RSP && u.fl == 0;
        match u.b {
            Src::Imm(v) if here => Some(v),
            _ => None,
        }
    }

    fn is_stack(m: &Mem, disp: i32) -> bool {
        m.base == Reg::RSP
            && m.index == Reg::ZERO
            && m.disp == disp
            && m.seg == Reg::ZERO
            && m.addr == W64
    }

    fn fuse_push(&mut self, u: &Uop) -> bool {
        if u.w != W64 || !Self::is_stack(&u.mem, -8) || self.moves_rsp(1) != Some(-8) {
            return false;
        }
        if !self.same_insn(1) {
            return false;
        }
        let rec = match u.b {
            Src::Imm(v) => Rec { run: h::push::<true, false>, imm: v as u64, ..BLANK },
            Src::Reg(r) => Rec { run: h::push::<false, false>, d: r.0, ..BLANK },
        };
        self.emit(rec, 2);
        true
    }

    fn fuse_pop(&mut self, u: &Uop) -> bool {
        let whole = u.w == W64 && Self::is_stack(&u.mem, 0) && self.same_insn(1);
        if !whole || self.moves_rsp(1) != Some(8) || u.d == Reg::RSP {
            return false;
        }
        self.emit(Rec { run: h::pop::<false>, d: dst(u.d), ..BLANK }, 2);
        true
    }

    fn fuse_call(&mut self, u: &Uop) -> bool {
        let (Some(s), Some(g)) = (self.peek(1).copied(), self.peek(3).copied()) else {
            return false;
        };
        let Src::Imm(back) = u.b else { return false };
        let whole = u.a == Reg::RIP
            && u.fl == 0
            && !u.d.is_architectural()
            && u.w == W64
            && s.op == Op::St
            && s.w == W64
            && s.b == Src::Reg(u.d)
            && Self::is_stack(&s.mem, -8)
            && self.moves_rsp(2) == Some(-8)
            && g.op == Op::Goto
            && g.w == W64
            && self.same_insn(3);
        if !whole {
            return false;
        }
        let (n, i) = (self.insn_count() as u8, back as i32);
        let rec = Rec { run: h::call::<false>, d: n, i, imm: g.imm as u64, ..BLANK };
        self.emit(Rec { t: UNLINKED, f: UNLINKED, ..rec }, 4);
        true
    }

    /// Whether the micro-op `n` ahead checks that `a` is canonical; where the address is then.
    fn checked(&self, n: usize, a: Reg) -> Option<Reg> {
        let u = self.peek(n)?;
        let here = u.checks_rip() && u.a == a && !u.d.is_architectural();
        here.then_some(u.d)
    }

    /// Whether the micro-op `n` ahead, of the same instruction, is a 64-bit jump to `a`.
    fn jumps_to(&self, n: usize, a: Reg) -> bool {
        let jumps = |u: &Uop| u.op == Op::Jmpi && u.a == a && u.w == W64;
        self.same_insn(n) && self.peek(n).is_some_and(jumps)
    }

    fn fuse_ret(&mut self, u: &Uop) -> bool {
        let (Some(to), Some(by)) = (self.checked(1, u.d), self.moves_rsp(2)) else { return false };
        let whole = u.w == W64 && !u.d.is_architectural() && Self::is_stack(&u.mem, 0);
        if !whole || !self.jumps_to(3, to) {
            return false;
        }
        let i = self.insn_count() as i32;
        self.emit(Rec { run: h::ret::<false>, imm: by as u64, i, ..BLANK }, 4);
        true
    }

    /// The check of an indirect jump's target, and the jump.
    fn fuse_jump(&mut self, u: &Uop) -> bool {
        if !u.checks_rip() || !self.jumps_to(1, u.d) {
            return false;
        }
        let i = self.insn_count() as i32;
        self.emit(Rec { run: h::jmpi64, a: u.a.0, i, ..BLANK }, 2);
        true
    }
}
