//! Vector operations: which instruction of the host does one, and where it finds its operands.

use super::super::asm::{Asm, Code, RAX, RCX, RDX, Rm};
use super::super::memory::Kind;
use super::super::{Compiler, Loc, alu, loc};
use super::access::from_gpr;
use super::table::{self, Forms, Reach, Row, Shape, code};
use super::{Miss, PINNED, STORE, Tail, VZEROUPPER, home, is_temp, slot, word};
use emu_core::cpu::Reg;
use emu_core::flags::OSZAPC;
use emu_core::uop::{Op, Src, Uop};
use emu_core::vec::VecOp;
use emu_core::width::Width::{W32, W64};

/// MOVUPS.
const MOVE: Code = code("0F 10");
const VPXOR: Code = code("66 0F EF");
const VINSERTI128: Code = code("66 0F3A 38");

/// An instruction of the host with a vector result.
#[derive(Clone, Copy, Debug)]
pub(super) struct Insn {
    pub code: Code,
    /// The same with memory in place of `rm`, if that is what it loads.
    pub memory: Option<Code>,
    pub wide: bool,
    pub vex: bool,
    /// The opcode's extension; then `d` is VEX.vvvv.
    ext: Option<u8>,
    pub d: Reg,
    /// First source, VEX.vvvv. The legacy encodings have it in `d`.
    pub v: Option<Reg>,
    /// ModRM.rm.
    pub rm: Reg,
    /// Source in an immediate. The legacy encodings have it in XMM0.
    pub c: Option<Reg>,
    /// `d` is a source.
    updates: bool,
    /// ModRM.reg is the source, ModRM.rm the result.
    reversed: bool,
    pub imm: Option<u8>,
}

/// Host registers of its operands.
#[derive(Clone, Copy)]
struct Operands {
    d: u8,
    v: u8,
    c: u8,
    rm: Rm,
}

impl Insn {
    /// One of two sources and an immediate, that may load as many bytes as it has.
    pub fn two(code: Code, wide: bool, vex: bool, d: Reg, v: Reg, rm: Reg, imm: u8) -> Insn {
        Insn {
            code,
            memory: Some(code),
            wide,
            vex,
            ext: None,
            d,
            v: Some(v),
            rm,
            c: None,
            updates: false,
            reversed: false,
            imm: Some(imm),
        }
    }

    fn emit(&self, a: &mut Asm, code: Code, o: &Operands) {
        let (reg, v, rm) = match (self.ext, o.rm) {
            (_, Rm::R(source)) if self.reversed => (source, 0, Rm::R(o.d)),
            (Some(ext), rm) if self.vex => (ext, o.d, rm),
            (Some(ext), _) => (ext, 0, Rm::R(o.d)),
            (None, rm) => (o.d, o.v, rm),
        };
        if self.vex {
            a.vex(code, self.wide, reg, v, rm);
        } else {
            a.sse(code, reg, rm);
        }
        match self.c {
            Some(_) if self.vex => a.byte(o.c << 4),
            _ => a.bytes(self.imm.as_slice()),
        }
    }
}

/// Source `b`.
pub(super) fn b(u: &Uop) -> Reg {
    if let Src::Reg(r) = u.b { r } else { Reg::ZERO }
}

/// FMA: the opcode for what is negated, the first and the last source; the other is `d`.
fn fused(u: &Uop, row: &Row) -> Option<(Code, Reg, Reg)> {
    let scalar = row.code.opcode & 1;
    let operation = match (u.imm & if scalar == 0 { 7 } else { 3 }, scalar) {
        (0b000, _) => 8,
        (0b110, 0) | (0b10, 1) => 10,
        (0b001, _) => 12,
        (0b111, 0) | (0b11, 1) => 14,
        (0b010, 0) => 6,
        (0b100, 0) => 7,
        _ => return None,
    };
    let (form, d, v, rm) = match u.imm >> 4 & 3 {
        0 => (0x90, u.a, u.c, b(u)),
        1 => (0xa0, b(u), u.a, u.c),
        2 => (0xb0, u.c, u.a, b(u)),
        _ => return None,
    };
    let code = Code { opcode: form + operation + scalar, ..row.code };
    (d == u.d).then_some((code, v, rm))
}

impl Compiler<'_> {
    /// The row of `u`, if the host has it and it raises nothing that must be seen.
    pub(super) fn row(&self, u: &Uop) -> Option<&'static Row> {
        let called = self.unmasked() && u.vop.raises() || u.op == Op::V && u.k & 127 == 8;
        if called || !self.has_vectors() {
            return None;
        }
        table::row(u.vop, self.host_has.vector)
    }

    /// The host's instruction for `u`. `before`: what spreads its source over both lanes. `after`:
    /// what gathers its result from them. `load`: its source is so many bytes of memory.
    pub(super) fn instruction(
        &self,
        u: &Uop,
        before: Option<&Uop>,
        after: Option<&Uop>,
        load: Option<u8>,
    ) -> Option<Insn> {
        let row = self.row(u)?;
        let d = after.unwrap_or(u).d;
        let zero = after.unwrap_or(u).k & 128 != 0;
        let wide = match (u.k & 127, row.reach, before, after) {
            (16, reach, None, None) if reach != Reach::Whole => false,
            (32, Reach::Lanes | Reach::Whole, None, None) => true,
            (32, Reach::Spread, Some(p), None) if p.vop == VecOp::Vspread => {
                p.imm == row.memory.into()
            }
            (32, Reach::Count, Some(p), None) => p.vop == VecOp::Vpbroadcast,
            (32, Reach::Narrow, None, Some(_)) => zero,
            _ => return None,
        };
        if wide && row.needs_wide() & !self.host_has.vector != 0 {
            return None;
        }
        let vex = wide || zero || is_temp(d);
        if row.forms == if vex { Forms::Sse } else { Forms::Vex } {
            return None;
        }
        let mut i = Insn {
            code: row.code,
            memory: None,
            wide,
            vex,
            ext: None,
            d,
            v: None,
            rm: b(before.unwrap_or(u)),
            c: None,
            updates: false,
            reversed: false,
            imm: row.imm.then_some(u.imm as u8),
        };
        let mut bytes = match (row.reach, wide) {
            (Reach::Count, _) | (_, false) => row.memory,
            _ if u.vop == VecOp::Movddup => 32,
            _ => 2 * row.memory,
        };
        match row.shape {
            Shape::Two => i.v = Some(u.a),
            Shape::One => {}
            Shape::Shift(ext) => {
                i = Insn { ext: Some(ext), rm: u.a, v: (!vex).then_some(u.a), ..i };
            }
            Shape::Blend(_) if !vex && u.c != Reg(0) => return None,
            Shape::Blend(opcode) => {
                (i.v, i.c) = (Some(u.a), Some(u.c));
                if !vex && opcode != 0 {
                    i.code = Code { map: 2, opcode, ..row.code };
                }
            }
            Shape::Fused => {
                let (code, v, rm) = fused(u, row)?;
                i = Insn { code, v: Some(v), rm, updates: true, ..i };
            }
            Shape::Store => {
                i.reversed = true;
                // Its source is a whole register, whatever its result is.
                i.wide |= u.vop == VecOp::Vextracti128;
            }
            Shape::Move => bytes = load.unwrap_or(bytes),
            Shape::Broadcast => {
                bytes = u.imm as u8;
                i.code.opcode = match bytes {
                    1 => 0x78,
                    2 => 0x79,
                    4 => 0x58,
                    8 => 0x59,
                    _ if !wide => return None,
                    // Of 16 bytes there is none from a register.
                    _ => {
                        bytes = 16;
                        i = Insn { code: VINSERTI128, v: load.is_none().then_some(i.rm), ..i };
                        i.imm = load.is_none().then_some(1);
                        0x38
                    }
                };
            }
            _ => return None,
        }
        let mut memory = i.code;
        match (u.vop, &mut i.imm) {
            (VecOp::Movd, imm) => *imm = Some(0x0e),
            (VecOp::Cmpps | VecOp::Cmppd | VecOp::Cmpss | VecOp::Cmpsd, Some(imm)) => {
                *imm &= 31;
                if !vex && *imm > 7 {
                    return None;
                }
            }
            // From memory it takes the lane there is.
            (VecOp::Insertps, Some(imm)) if *imm > 0x3f => bytes = 0,
            _ => {}
        }
        match (u.vop, load) {
            (VecOp::Mov, Some(4)) => memory = code("F3 0F 10"),
            (VecOp::Mov, Some(8)) => memory = code("F3 0F 7E"),
            (VecOp::Mov, Some(1 | 2)) => return None,
            (VecOp::Vpbroadcast, Some(16)) => memory = code("66 0F38 5A"),
            (VecOp::Movsd, Some(8)) => (bytes, memory) = (8, code("0F 12")),
            (VecOp::Punpcklqdq, Some(8)) if !wide => (bytes, memory) = (8, code("0F 16")),
            _ => {}
        }
        i.memory = (bytes != 0).then_some(memory);
        load.is_none_or(|n| n == bytes && bytes != 0).then_some(i)
    }

    /// Host registers for the operands of `i`; with `loads` also one for what it would load.
    fn operands(&mut self, i: &Insn, loads: bool) -> Option<(Operands, u8)> {
        let mut o = Operands { d: 0, v: 0, c: 0, rm: Rm::R(0) };
        let mut loaded = 0;
        if i.vex {
            if let Some(v) = i.v {
                o.v = self.source(v, i.wide)?;
            }
            if let Some(c) = i.c {
                o.c = self.source(c, i.wide)?;
            }
            if i.updates {
                o.d = self.source(i.d, i.wide)?;
            }
            if loads {
                loaded = self.scratch()?;
            } else if i.memory.is_some() {
                o.rm = self.operand(i.rm, i.wide);
            } else {
                o.rm = Rm::R(self.source(i.rm, i.wide)?);
            }
            if !i.updates {
                o.d = self.destination(i.d);
            }
            return Some((o, loaded));
        }
        o.d = self.source(i.d, i.wide)?;
        let other = i.v.filter(|v| *v != i.d);
        if loads {
            loaded = self.scratch()?;
        } else if i.ext.is_none() && i.rm == i.d && other.is_some() {
            let copy = self.scratch()?;
            self.a.vex(MOVE, false, copy, 0, Rm::R(o.d));
            o.rm = Rm::R(copy);
        } else if i.ext.is_none() {
            o.rm = Rm::R(self.source(i.rm, i.wide)?);
        }
        if let Some(v) = other {
            let v = self.operand(v, false);
            self.a.sse(MOVE, o.d, v);
        }
        Some((o, loaded))
    }

    /// Emits `i`, whose source may come by `load`; `false`: it can't be.
    pub(super) fn emit(&mut self, i: &Insn, load: Option<&Uop>) -> bool {
        let unaligned = |l: &Uop| l.k == 16 && i.code != MOVE;
        if !i.vex && load.is_some_and(unaligned) {
            return false;
        }
        self.vectors();
        let Some((o, x)) = self.operands(i, load.is_some()) else { return false };
        let Some(l) = load else {
            i.emit(&mut self.a, i.code, &o);
            self.written(i.d, o.d, i.vex);
            return true;
        };
        let c = self.checked(Kind::Load, l.k, &l.mem);
        i.emit(&mut self.a, i.memory.unwrap_or(i.code), &Operands { rm: c.at, ..o });
        let miss = self.misses(c.jumps, [Some(*l), None]);
        let (mut again, mut on) = (*i, Operands { rm: Rm::R(x), ..o });
        if (i.code, i.v) == (VINSERTI128, None) {
            // A broadcast.
            (again.imm, on.v) = (Some(1), x);
        }
        let tail = Tail::of(|a| again.emit(a, i.code, &on));
        self.later_miss(Miss { after: Some(x), tail, ..miss });
        self.written(i.d, o.d, i.vex);
        true
    }

    /// Emits a vector operation.
    pub(super) fn vector_op(&mut self, u: &Uop) -> bool {
        if self.helped() && is_temp(u.d) {
            return false;
        }
        match (self.row(u).map(|row| row.shape), u.vop) {
            (Some(Shape::FromGpr), _) => return self.convert_integer(u, None),
            (_, VecOp::Vspread) if u.k == 32 && self.has_vectors() => {
                self.vectors();
                let Some(x) = self.source(b(u), false) else { return false };
                let Some(high) = self.scratch() else { return false };
                // vpsrldq
                self.a.vex(code("66 0F 73"), false, 3, high, Rm::R(x));
                self.a.byte(u.imm as u8);
                let d = self.destination(u.d);
                self.a.vex(VINSERTI128, true, d, x, Rm::R(high));
                self.a.byte(1);
                self.written(u.d, d, true);
                return true;
            }
            (_, VecOp::Vnarrow) if u.k == 16 | 128 && self.has_vectors() => {
                self.vectors();
                let Some(x) = self.source(b(u), true) else { return false };
                let d = self.destination(u.d);
                // vpermq
                self.a.vex(code("66 0F3A 00 W1"), true, d, 0, Rm::R(x));
                self.a.byte(0b1000);
                self.a.vex(MOVE, false, d, 0, Rm::R(d));
                self.written(u.d, d, true);
                return true;
            }
            _ => {}
        }
        self.instruction(u, None, None, None).is_some_and(|i| self.emit(&i, None))
            || self.approximation(u)
    }

    /// A conversion from an integer: `from`, or the low word of `b`.
    pub(super) fn convert_integer(&mut self, u: &Uop, from: Option<Src>) -> bool {
        let Some(row) = self.row(u).filter(|_| u.k & 127 == 16) else { return false };
        let w = if row.code.w { W64 } else { W32 };
        self.vectors();
        let rm = match from {
            Some(Src::Reg(r)) => alu::rm(r),
            Some(imm) => {
                self.value(RCX, w, imm);
                Rm::R(RCX)
            }
            None => {
                let Some(x) = self.source(b(u), false) else { return false };
                let to_gpr = Code { opcode: 0x7e, ..from_gpr(w) };
                self.a.vex(to_gpr, false, x, 0, Rm::R(RCX));
                self.vector.locked = [false; 2];
                Rm::R(RCX)
            }
        };
        let vex = u.k & 128 != 0 || is_temp(u.d);
        let d = if vex {
            let Some(a) = self.source(u.a, false) else { return false };
            let d = self.destination(u.d);
            self.a.vex(row.code, false, d, a, rm);
            d
        } else {
            let Some(d) = self.source(u.d, false) else { return false };
            if u.a != u.d {
                let a = self.operand(u.a, false);
                self.a.sse(MOVE, d, a);
            }
            self.a.sse(row.code, d, rm);
            d
        };
        self.written(u.d, d, vex);
        true
    }

    /// Emits a vector operation with an integer result and flags, whose source `b` may come by
    /// `load`.
    pub(super) fn vector_int(&mut self, u: &Uop, load: Option<&Uop>) -> bool {
        let Some(row) = self.row(u) else { return false };
        let (need, keep) = (u.fl & self.live, self.live & !u.fl);
        let wide = row.reach == Reach::Whole;
        let bytes = if wide { 2 * row.memory } else { row.memory };
        let loads = load.is_none_or(|l| bytes != 0 && l.k & 127 == bytes);
        let lengths = u.vop == VecOp::Pcmpestri;
        let flags = matches!(row.shape, Shape::Flags | Shape::Index);
        // The check of an access has no room for lengths.
        let only_b = load.is_none_or(|l| !lengths && (!flags || u.a != l.d));
        if !loads || !only_b || (need != 0 && (keep != 0 || !flags)) {
            return false;
        }
        self.vectors();
        if lengths {
            let Some(x) = self.source(u.c, false) else { return false };
            self.a.vex(code("66 0F 7E W1"), false, x, 0, Rm::R(RAX));
            self.a.vex(code("66 0F3A 16 W1"), false, x, 0, Rm::R(RDX));
            self.a.byte(1);
            self.vector.locked = [false; 2];
        }
        let first = if flags { self.source(u.a, wide) } else { Some(0) };
        let rm = match load {
            Some(_) => Some(Rm::R(0)),
            None if bytes != 0 => Some(self.operand(b(u), wide)),
            None => self.source(b(u), wide).map(Rm::R),
        };
        let (Some(first), Some(rm)) = (first, rm) else { return false };
        let x = match load.map(|_| self.scratch()) {
            Some(None) => return false,
            Some(Some(x)) => x,
            None => 0,
        };
        let checked = load.map(|l| self.checked(Kind::Load, l.k, &l.mem));
        if flags && !self.flags(u, OSZAPC, 0) {
            return false;
        }
        let direct = match loc(u.d) {
            Loc::Host(h) if u.w >= W32 && u.d != Reg::ZERO => h,
            _ => RCX,
        };
        let reg = if flags { first } else { direct };
        let imm = row.imm.then_some(u.imm as u8);
        let code = row.code;
        let insn = |a: &mut Asm, rm: Rm| {
            // The legacy form has its lengths in 64 bits by REX.W.
            if lengths {
                a.sse(code, reg, rm)
            } else {
                a.vex(code, wide, reg, 0, rm)
            }
            a.bytes(imm.as_slice());
        };
        insn(&mut self.a, checked.as_ref().map_or(rm, |c| c.at));
        if let (Some(c), Some(l)) = (checked, load) {
            let miss = self.misses(c.jumps, [Some(*l), None]);
            let tail = Tail::of(|a| insn(a, Rm::R(x)));
            self.later_miss(Miss { after: Some(x), tail, ..miss });
        }
        if load.is_none() && row.shape == Shape::Flags {
            self.tested = (self.a.here(), Tail::of(|a| insn(a, rm)));
        }
        match row.shape {
            Shape::Flags => self.put_imm(u.d, u.w, 0),
            Shape::Index => self.put(u.d, u.w, RCX),
            _ => {
                // Of 32 bits, but a number.
                if u.vop.raises() && !code.w && u.w == W64 {
                    self.a.op(W64, 0x63, reg, Rm::R(reg));
                }
                if reg == RCX {
                    self.put(u.d, u.w, RCX);
                }
            }
        }
        true
    }

    /// VZEROUPPER, VZEROALL.
    pub(super) fn vector_zero(&mut self, u: &Uop) -> bool {
        let from = match u.imm {
            0 => 0,
            2 => 16,
            _ => return false,
        };
        if !self.has_vectors() || u.k > 16 {
            return false;
        }
        self.vectors();
        if from == 16 && u.k == 16 {
            self.a.bytes(&VZEROUPPER);
        } else {
            for r in 0..u.k.min(PINNED) {
                match from {
                    0 => self.a.vex(VPXOR, false, r, r, Rm::R(r)),
                    _ => self.a.vex(MOVE, false, r, 0, Rm::R(r)),
                }
            }
        }
        self.vector.held = [None; 2];
        let memory = (PINNED..u.k).map(Reg).collect::<Vec<_>>();
        if !memory.is_empty() {
            self.a.vex(VPXOR, false, PINNED, PINNED, Rm::R(PINNED));
        }
        for r in memory {
            match from {
                0 => self.a.vex(STORE, true, PINNED, 0, slot(r)),
                _ => self.a.vex(STORE, false, PINNED, 0, word(r, 16)),
            }
        }
        debug_assert!(home(Reg(PINNED)).is_none());
        true
    }
}
