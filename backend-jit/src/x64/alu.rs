//! Emitters of the pure micro-ops.

use super::asm::{RAX, RBP, RCX, RDX, Rm};
use super::{Compiler, Loc, NATIVE_RAM, loc};
use emu_core::cpu::Reg;
use emu_core::flags::{CF, OF, OSZAPC};
use emu_core::uop::{Op, Src, Uop};
use emu_core::width::Width::{self, W8, W16, W32, W64};

/// Whether the immediate is one that an instruction of width `w` can hold.
fn fits(w: Width, v: i64) -> bool {
    w != W64 || v == i64::from(v as i32)
}

impl Compiler<'_> {
    /// Emits `u`; `false` if it has no form here (nothing was emitted then).
    pub(super) fn pure(&mut self, u: &Uop) -> bool {
        let (w, wide) = (u.w, if u.w == W64 { W64 } else { W32 });
        match u.op {
            Op::Mov => {
                match u.b {
                    Src::Imm(v) => self.put_imm(u.d, w, v as u64),
                    Src::Reg(b) => self.copy(u.d, w, b),
                }
                true
            }
            Op::Zx | Op::Sx => {
                let k = Width::from_index(u.k);
                match (u.op, k) {
                    (_, W64) => self.copy(u.d, w, u.a),
                    (Op::Zx, W8) => self.extend(u, W32, 0xb6, true),
                    (Op::Zx, W16) => self.extend(u, W32, 0xb7, false),
                    (Op::Sx, W8) => self.extend(u, W64, 0xbe, true),
                    (Op::Sx, W16) => self.extend(u, W64, 0xbf, false),
                    (Op::Zx, _) => {
                        let d = self.computed_in(u.d, w);
                        self.a.mov(W32, d, rm(u.a));
                        self.reached(u.d, w, d);
                    }
                    _ if w == W64 => {
                        let d = self.computed_in(u.d, w);
                        self.a.op(W64, 0x63, d, rm(u.a));
                        self.reached(u.d, w, d);
                    }
                    _ => {
                        self.a.op(W64, 0x63, RCX, rm(u.a));
                        self.put(u.d, w, RCX);
                    }
                }
                true
            }
            Op::Exh => {
                self.clobber();
                self.a.mov(W32, RCX, rm(u.a));
                self.a.ext(W32, 0xc1, 5, Rm::R(RCX));
                self.a.byte(8);
                self.a.op0f(W32, 0xb6, RCX, Rm::R(RCX));
                self.put(u.d, w, RCX);
                true
            }
            Op::Insh => {
                self.a.mov(W64, RCX, rm(u.a));
                match u.b {
                    // What was stored is this byte: a wider load would wait for it.
                    Src::Reg(r) if matches!(loc(r), Loc::Slot(_)) => {
                        self.a.op0f(W32, 0xb6, RDX, rm(r));
                    }
                    b => self.value(RDX, W8, b),
                }
                // mov ch, dl
                self.a.bytes(&[0x88, 0xd5]);
                self.put(u.d, w, RCX);
                true
            }
            Op::Bswap if w == W32 || w == W64 => {
                let d = self.computed_in(u.d, w);
                self.a.mov(w, d, rm(u.a));
                let rex = u8::from(w == W64) << 3 | d >> 3;
                if rex != 0 {
                    self.a.byte(0x40 | rex);
                }
                self.a.bytes(&[0x0f, 0xc8 | d & 7]);
                self.reached(u.d, w, d);
                true
            }
            Op::Bswap => {
                self.put_imm(u.d, w, 0);
                true
            }
            Op::Not => {
                self.unary(u, 0xf7, 2);
                true
            }
            Op::Add | Op::Sub | Op::Inc | Op::Dec if self.sum_without_flags(u) => true,
            Op::Add => self.flags(u, OSZAPC, 0) && self.binary(u, 0),
            Op::Or => self.flags(u, OSZAPC, 0) && self.binary(u, 1),
            Op::Adc => self.flags(u, OSZAPC, CF) && self.binary(u, 2),
            Op::Sbb => self.flags(u, OSZAPC, CF) && self.binary(u, 3),
            Op::And => self.flags(u, OSZAPC, 0) && self.binary(u, 4),
            Op::Sub => self.flags(u, OSZAPC, 0) && self.binary(u, 5),
            Op::Xor => self.flags(u, OSZAPC, 0) && self.binary(u, 6),
            Op::Andn => {
                if !self.flags(u, OSZAPC, 0) {
                    return false;
                }
                self.a.mov(W64, RCX, rm(u.a));
                self.a.ext(W64, 0xf7, 2, Rm::R(RCX));
                self.value(RDX, W64, u.b);
                self.a.op(w, 0x23, RCX, Rm::R(RDX));
                self.put(u.d, w, RCX);
                true
            }
            Op::Inc => self.flags(u, OSZAPC & !CF, 0) && self.unary(u, 0xff, 0),
            Op::Dec => self.flags(u, OSZAPC & !CF, 0) && self.unary(u, 0xff, 1),
            Op::Neg => self.flags(u, OSZAPC, 0) && self.unary(u, 0xf7, 3),
            Op::Shl | Op::Shr | Op::Sar | Op::Rol | Op::Ror | Op::Rcl | Op::Rcr => self.shift(u),
            Op::Shld | Op::Shrd if w != W8 => self.double_shift(u),
            Op::Imul | Op::Mul => self.multiply(u),
            Op::Mulhs | Op::Mulhu => {
                self.clobber();
                self.a.mov(wide, RAX, rm(u.a));
                self.value(RCX, wide, u.b);
                self.a.ext(w, 0xf7, if u.op == Op::Mulhs { 5 } else { 4 }, Rm::R(RCX));
                if w == W8 {
                    self.a.mov(W32, RDX, Rm::R(RAX));
                    self.a.ext(W32, 0xc1, 5, Rm::R(RDX));
                    self.a.byte(8);
                }
                self.put(u.d, w, RDX);
                true
            }
            Op::Bt | Op::Bts | Op::Btr | Op::Btc if w != W8 => {
                if !self.flags(u, CF, 0) {
                    return false;
                }
                let n = match u.op {
                    Op::Bt => 4,
                    Op::Bts => 5,
                    Op::Btr => 6,
                    _ => 7,
                };
                if let (Op::Bt, Src::Imm(v)) = (u.op, u.b) {
                    self.a.op0f(w, 0xba, n, rm(u.a));
                    self.a.byte(v as u8 & (w.bits() as u8 - 1));
                    self.copy(u.d, w, u.a);
                    return true;
                }
                self.a.mov(W64, RCX, rm(u.a));
                match u.b {
                    Src::Imm(v) => {
                        self.a.op0f(w, 0xba, n, Rm::R(RCX));
                        self.a.byte(v as u8 & (w.bits() as u8 - 1));
                    }
                    Src::Reg(b) => {
                        let b = self.get(b, W64, RDX);
                        self.a.op0f(w, 0x83 | n << 3, b, Rm::R(RCX));
                    }
                }
                self.put(u.d, w, RCX);
                true
            }
            Op::Bsf | Op::Bsr if w != W8 => {
                if !self.flags(u, OSZAPC, 0) {
                    return false;
                }
                self.a.mov(W64, RCX, rm(u.a));
                self.value(RDX, W64, u.b);
                // A zero source must leave all of the old value, of which the host's 32-bit form
                // may clear the upper half.
                self.a.op0f(w, if u.op == Op::Bsf { 0xbc } else { 0xbd }, RAX, Rm::R(RDX));
                self.a.op0f(W64, 0x45, RCX, Rm::R(RAX));
                self.a.op(w, 0x85, RDX, Rm::R(RDX));
                self.put(u.d, w, RCX);
                true
            }
            Op::Popcnt if w != W8 => {
                if !self.flags(u, OSZAPC, 0) {
                    return false;
                }
                let d = self.computed_in(u.d, w);
                self.a.op0f_p(w, 0xf3, 0xb8, d, rm(u.a));
                self.reached(u.d, w, d);
                true
            }
            Op::Set => {
                let c = self.condition(u.k);
                if w == W8 && u.d != Reg::ZERO {
                    self.a.set(c, rm(u.d));
                    return true;
                }
                self.a.set(c, Rm::R(RCX));
                let d = self.computed_in(u.d, w);
                self.a.op0f(W32, 0xb6, d, Rm::R(RCX));
                self.reached(u.d, w, d);
                true
            }
            Op::Cmov => {
                let c = self.condition(u.k);
                let d = if u.b == Src::Reg(u.d) { RCX } else { self.computed_in(u.d, w) };
                // At 32 bits the upper half is cleared whatever the condition is.
                if Rm::R(d) != rm(u.a) {
                    self.a.mov(wide, d, rm(u.a));
                }
                let b = match u.b {
                    Src::Reg(b) => rm(b),
                    Src::Imm(v) => {
                        self.a.imm(RDX, v as u64);
                        Rm::R(RDX)
                    }
                };
                self.a.op0f(wide, 0x40 | c, d, b);
                self.reached(u.d, w, d);
                true
            }
            Op::Getfl => {
                self.flags_value();
                self.put(u.d, w, RCX);
                true
            }
            Op::Setfl => {
                let (need, keep) = (u.fl & self.live, self.live & !u.fl);
                if need != 0 && keep != 0 {
                    return false;
                }
                if need != 0 {
                    self.value(RAX, W32, u.b);
                    self.a.mov(W32, RCX, Rm::R(RAX));
                    self.a.ext(W32, 0xc1, 5, Rm::R(RAX));
                    self.a.byte(11);
                    self.a.alu_imm(W32, 4, Rm::R(RAX), 1);
                    self.a.alu_imm(W32, 4, Rm::R(RCX), 0xd5);
                    self.a.alu_imm(W32, 1, Rm::R(RCX), 2);
                    self.a.ext(W32, 0xc1, 4, Rm::R(RCX));
                    self.a.byte(8);
                    self.a.op(W32, 0x0b, RAX, Rm::R(RCX));
                    self.a.store(W16, self.flags_word(), RAX);
                    (self.host, self.memory) = (false, true);
                }
                self.copy(u.d, w, u.a);
                true
            }
            Op::Cmc => {
                if !self.flags(u, CF, CF) {
                    return false;
                }
                self.a.byte(0xf5);
                self.copy(u.d, w, u.a);
                true
            }
            Op::Crc32 if self.host_has.crc32 => {
                let k = Width::from_index(u.k);
                self.a.mov(W32, RCX, rm(u.a));
                self.value(RDX, W64, u.b);
                let opcode = if k == W8 { 0xf0 } else { 0xf1 };
                // 66H comes before F2H: the encoder's order.
                self.a.op0f38(k, 0xf2, opcode, RCX, Rm::R(RDX), k == W8);
                self.put(u.d, w, RCX);
                true
            }
            Op::Tzcnt | Op::Lzcnt | Op::Blsr | Op::Blsmsk | Op::Blsi | Op::Bzhi => self.bits(u),
            Op::Pdep | Op::Pext if self.host_has.bmi2 => {
                self.a.mov(W64, RCX, rm(u.a));
                self.value(RDX, wide, u.b);
                if w < W32 {
                    self.a.op0f(W32, if w == W8 { 0xb6 } else { 0xb7 }, RDX, Rm::R(RDX));
                }
                let pp = if u.op == Op::Pdep { 3 } else { 2 };
                self.a.vex38(W64, pp, 0xf5, RCX, RCX, RDX);
                self.put(u.d, w, RCX);
                true
            }
            _ => false,
        }
    }

    /// The arithmetic flags in RCX, as PUSHF has them.
    pub(super) fn flags_value(&mut self) {
        self.save();
        self.host = false;
        self.a.mov(W32, RCX, self.flags_word());
        self.a.mov(W32, RDX, Rm::R(RCX));
        self.a.ext(W32, 0xc1, 5, Rm::R(RCX));
        self.a.byte(8);
        self.a.alu_imm(W32, 4, Rm::R(RCX), 0xd5);
        self.a.alu_imm(W32, 4, Rm::R(RDX), 1);
        self.a.ext(W32, 0xc1, 4, Rm::R(RDX));
        self.a.byte(11);
        self.a.op(W32, 0x0b, RCX, Rm::R(RDX));
    }

    fn extend(&mut self, u: &Uop, to: Width, opcode: u8, byte: bool) {
        let a = match loc(u.a) {
            // Without a prefix the byte forms of these would be AH…BH.
            Loc::Host(r) if byte && (4..8).contains(&r) => {
                self.a.mov(W32, RCX, Rm::R(r));
                Rm::R(RCX)
            }
            _ => rm(u.a),
        };
        match loc(u.d) {
            Loc::Host(d) if u.w == W64 || (u.w == W32 && to == W32) => {
                self.a.op0f(to, opcode, d, a);
            }
            _ => {
                self.a.op0f(to, opcode, RCX, a);
                if to == W32 {
                    self.reached(u.d, u.w, RCX);
                } else {
                    self.put(u.d, u.w, RCX);
                }
            }
        }
    }

    /// The host register to compute `d` of width `w` in: its own, or RCX.
    fn computed_in(&self, d: Reg, w: Width) -> u8 {
        match loc(d) {
            Loc::Host(h) if w >= W32 => h,
            _ => RCX,
        }
    }

    /// An immediate from where it stands in guest RAM; the lifter gives offsets within that. Keeps
    /// the flags.
    pub(super) fn patched(&mut self, u: &Uop) {
        self.a.mov(W64, RDX, Rm::M(RBP, NATIVE_RAM));
        let from = i32::try_from(u.imm).map_or_else(
            |_| {
                self.a.imm(RCX, u.imm as u64);
                Rm::X(RDX, RCX, 0, 0)
            },
            |off| Rm::M(RDX, off),
        );
        let d = self.computed_in(u.d, W64);
        match u.w {
            W8 => self.a.op0f(W32, 0xb6, d, from),
            W16 => self.a.op0f(W32, 0xb7, d, from),
            w => self.a.mov(w, d, from),
        }
        self.reached(u.d, W64, d);
    }

    /// After `s`, which that has given, has the result, of 32 bits extended by zeros.
    pub(super) fn reached(&mut self, d: Reg, w: Width, s: u8) {
        match loc(d) {
            Loc::Host(h) if h == s => {}
            Loc::Slot(_) if w == W32 => self.put(d, W64, s),
            _ => self.put(d, w, s),
        }
    }

    /// The memory operand of an operation on `d` in its place, if it is in memory and the operation
    /// leaves what it should of the upper half.
    fn in_place(&self, u: &Uop) -> Option<Rm> {
        let whole = u.w != W32 || self.short >> u.d.ix() & 1 != 0;
        let memory = matches!(loc(u.d), Loc::Slot(_)) && u.d != Reg::ZERO;
        (memory && whole && u.a == u.d).then(|| rm(u.d))
    }

    /// An addition whose flags nobody wants, by LEA, which keeps those that are there.
    fn sum_without_flags(&mut self, u: &Uop) -> bool {
        let by = match (u.op, u.b) {
            (Op::Inc, _) => Some(1),
            (Op::Dec, _) => Some(-1),
            (Op::Add, Src::Imm(v)) => i32::try_from(v).ok(),
            (Op::Sub, Src::Imm(v)) => v.checked_neg().and_then(|v| i32::try_from(v).ok()),
            _ => None,
        };
        if u.fl & self.live != 0 || u.w < W32 || u.d == Reg::ZERO {
            return false;
        }
        let d = self.computed_in(u.d, u.w);
        if (self.live == 0 || !self.host)
            && let Some(m) = self.in_place(u)
        {
            match (u.op, u.b, by) {
                (_, _, Some(1)) => self.a.ext(u.w, 0xff, 0, m),
                (_, _, Some(by)) => self.a.alu_imm(u.w, 0, m, by.into()),
                (_, Src::Reg(b), _) => {
                    let b = self.get(b, W64, RCX);
                    self.a.op(u.w, if u.op == Op::Add { 0x01 } else { 0x29 }, b, m);
                }
                _ => return false,
            }
            self.host = false;
            return true;
        }
        match (u.op, u.b, by) {
            (_, _, Some(by)) => {
                let a = self.get(u.a, W64, RCX);
                self.a.op(u.w, 0x8d, d, Rm::M(a, by));
            }
            (Op::Add, Src::Reg(b), _) => {
                let (a, b) = (self.get(u.a, W64, RCX), self.get(b, W64, RDX));
                self.a.op(u.w, 0x8d, d, Rm::X(a, b, 0, 0));
            }
            _ => return false,
        }
        self.reached(u.d, u.w, d);
        true
    }

    /// A shift whose flags nobody wants, by an instruction that keeps those that are there.
    fn shift_without_flags(&mut self, u: &Uop, ext: u8) -> bool {
        if u.w < W32 || !self.host_has.bmi2 || u.d == Reg::ZERO {
            return false;
        }
        let d = self.computed_in(u.d, u.w);
        if let (Src::Imm(n), 0 | 1) = (u.b, ext) {
            let right = if ext == 0 { (u.w.bits() as i64).wrapping_sub(n) } else { n };
            let Some(m) = self.in_place(u).filter(|_| self.live == 0 || !self.host) else {
                self.a.rorx(u.w, d, rm(u.a), right as u8 & (u.w.bits() as u8 - 1));
                self.reached(u.d, u.w, d);
                return true;
            };
            self.host = false;
            self.shift_by(u.w, ext, m, n as u8 & (u.w.bits() as u8 - 1));
            return true;
        }
        // SHLX, SHRX, SARX.
        let pp = match ext {
            4 => 1,
            5 => 3,
            7 => 2,
            _ => return false,
        };
        let Src::Reg(b) = u.b else { return false };
        let (a, b) = (self.get(u.a, W64, RCX), self.get(b, W64, RDX));
        self.a.vex38(u.w, pp, 0xf7, d, b, a);
        self.reached(u.d, u.w, d);
        true
    }

    /// `d = a op b` by the arithmetic of number `n`.
    fn binary(&mut self, u: &Uop, n: u8) -> bool {
        let w = u.w;
        if u.d == Reg::ZERO && (n == 4 || n == 5) {
            self.compare(u, n == 4);
            return true;
        }
        let zero = (n == 5 || n == 6) && w >= W32 && u.b == Src::Reg(u.a);
        if zero && matches!(loc(u.d), Loc::Slot(_)) {
            self.a.op(W32, 0x31, RCX, Rm::R(RCX));
            self.put(u.d, W64, RCX);
            return true;
        }
        if let Some(m) = self.in_place(u) {
            match u.b {
                Src::Imm(v) if fits(w, v) => self.a.alu_imm(w, n, m, v),
                Src::Imm(v) => {
                    self.a.imm(RCX, v as u64);
                    self.a.op(w, 0x01 | n << 3, RCX, m);
                }
                Src::Reg(b) => {
                    let b = self.get(b, W64, RCX);
                    self.a.op(w, 0x01 | n << 3, b, m);
                }
            }
            return true;
        }
        let direct = match loc(u.d) {
            Loc::Host(d) if u.a == u.d => Some(d),
            Loc::Host(d) if w >= W32 && u.b != Src::Reg(u.d) => {
                self.a.mov(w, d, rm(u.a));
                Some(d)
            }
            _ => None,
        };
        let d = direct.unwrap_or_else(|| {
            self.a.mov(if w == W64 { W64 } else { W32 }, RCX, rm(u.a));
            RCX
        });
        match u.b {
            Src::Imm(v) if fits(w, v) => self.a.alu_imm(w, n, Rm::R(d), v),
            Src::Imm(v) => {
                self.a.imm(RDX, v as u64);
                self.a.op(w, 0x03 | n << 3, d, Rm::R(RDX));
            }
            Src::Reg(b) => self.a.op(w, 0x03 | n << 3, d, rm(b)),
        }
        self.reached(u.d, w, d);
        true
    }

    /// CMP, or TEST.
    fn compare(&mut self, u: &Uop, test: bool) {
        let w = u.w;
        let host = |r: Reg| matches!(loc(r), Loc::Host(_));
        let a = match u.b {
            Src::Imm(_) if u.a != Reg::ZERO => rm(u.a),
            // Against zero: the flags are the same.
            Src::Reg(b) if test && b == u.a && !host(b) => {
                self.a.alu_imm(w, 7, rm(b), 0);
                return;
            }
            Src::Reg(b) if host(b) && !host(u.a) => {
                let b = self.get(b, W64, RCX);
                self.a.op(w, if test { 0x85 } else { 0x39 }, b, rm(u.a));
                return;
            }
            _ => Rm::R(self.get(u.a, w, RCX)),
        };
        match (u.b, a) {
            (Src::Imm(v), _) if !fits(w, v) => {
                self.a.imm(RDX, v as u64);
                let Rm::R(a) = a else {
                    self.a.op(w, if test { 0x85 } else { 0x39 }, RDX, a);
                    return;
                };
                self.a.op(w, if test { 0x85 } else { 0x39 }, RDX, Rm::R(a));
            }
            (Src::Imm(v), _) if test => {
                self.a.ext(w, 0xf7, 0, a);
                self.a.imm_of(w, v);
            }
            (Src::Imm(v), _) => self.a.alu_imm(w, 7, a, v),
            (Src::Reg(b), Rm::R(a)) => self.a.op(w, if test { 0x85 } else { 0x3b }, a, rm(b)),
            _ => {}
        }
    }

    fn unary(&mut self, u: &Uop, opcode: u8, ext: u8) -> bool {
        match loc(u.d) {
            Loc::Host(d) if u.a == u.d => {
                // At 32 bits the upper half is cleared by the operation itself.
                self.a.ext(u.w, opcode, ext, Rm::R(d));
            }
            _ if self.in_place(u).is_some() => self.a.ext(u.w, opcode, ext, rm(u.d)),
            _ => {
                self.a.mov(if u.w == W64 { W64 } else { W32 }, RCX, rm(u.a));
                self.a.ext(u.w, opcode, ext, Rm::R(RCX));
                self.reached(u.d, u.w, RCX);
            }
        }
        true
    }

    fn shift(&mut self, u: &Uop) -> bool {
        let w = u.w;
        let carries = matches!(u.op, Op::Rcl | Op::Rcr);
        let (ext, nat) = match u.op {
            Op::Rol => (0, CF | OF),
            Op::Ror => (1, CF | OF),
            Op::Rcl => (2, CF | OF),
            Op::Rcr => (3, CF | OF),
            Op::Shl => (4, OSZAPC),
            Op::Shr => (5, OSZAPC),
            _ => (7, OSZAPC),
        };
        let count = match u.b {
            Src::Imm(v) => Some(v as u8 & if w == W64 { 63 } else { 31 }),
            Src::Reg(_) => None,
        };
        if count == Some(0) {
            self.copy(u.d, w, u.a);
            return true;
        }
        if u.fl & self.live == 0 && self.shift_without_flags(u, ext) {
            return true;
        }
        // Through more than one bit CPUs leave OF undefined.
        if carries && u.fl & self.live & OF != 0 && count != Some(1) {
            return false;
        }
        if nat == OSZAPC && count.is_none() && u.fl & self.live != 0 {
            return self.shift_flags(u, ext);
        }
        let maybe_none = count.is_none() || carries;
        let reads = match (u.fl & self.live != 0 && maybe_none, carries) {
            (true, _) => OSZAPC,
            (_, true) => CF,
            _ => 0,
        };
        if !self.flags(u, nat, reads) {
            return false;
        }
        self.af_zero |= nat == OSZAPC;
        match count {
            Some(n) => match loc(u.d) {
                Loc::Host(d) if u.d == u.a => self.shift_by(w, ext, Rm::R(d), n),
                Loc::Host(d) if w >= W32 => {
                    self.a.mov(w, d, rm(u.a));
                    self.shift_by(w, ext, Rm::R(d), n);
                }
                _ if self.in_place(u).is_some() => self.shift_by(w, ext, rm(u.d), n),
                _ => {
                    self.a.mov(W64, RDX, rm(u.a));
                    self.shift_by(w, ext, Rm::R(RDX), n);
                    self.reached(u.d, w, RDX);
                }
            },
            None => {
                self.a.mov(W64, RDX, rm(u.a));
                self.value(RCX, W32, u.b);
                self.a.ext(w, 0xd3, ext, Rm::R(RDX));
                self.put(u.d, w, RDX);
            }
        }
        true
    }

    /// A shift by a register with flags: a count of zero leaves them as they are in memory.
    fn shift_flags(&mut self, u: &Uop, ext: u8) -> bool {
        let w = u.w;
        if self.live & !u.fl != 0 {
            return false;
        }
        // All that may be left as they are.
        self.save();
        self.host = false;
        self.a.mov(W64, RDX, rm(u.a));
        self.value(RCX, W32, u.b);
        self.a.alu_imm(W32, 4, Rm::R(RCX), if w == W64 { 63 } else { 31 });
        let none = self.a.jcc(4);
        self.a.ext(w, 0xd3, ext, Rm::R(RDX));
        (self.host, self.memory, self.af_zero) = (true, false, true);
        self.save();
        self.a.bind(none);
        (self.host, self.memory) = (false, true);
        self.put(u.d, w, RDX);
        true
    }

    fn shift_by(&mut self, w: Width, ext: u8, d: Rm, n: u8) {
        // By one: its own opcode, whose OF all CPUs define alike.
        self.a.ext(w, if n == 1 { 0xd1 } else { 0xc1 }, ext, d);
        if n != 1 {
            self.a.byte(n);
        }
    }

    fn double_shift(&mut self, u: &Uop) -> bool {
        // CPUs differ in 16-bit results by more than 16 bits, and leave flags undefined.
        if u.w == W16 || u.fl & self.live != 0 || !self.flags(u, OSZAPC, 0) {
            return false;
        }
        self.a.mov(W64, RDX, rm(u.a));
        self.value(RAX, W64, u.b);
        self.a.mov(W32, RCX, rm(u.c));
        self.a.op0f(u.w, if u.op == Op::Shld { 0xa5 } else { 0xad }, RAX, Rm::R(RDX));
        self.put(u.d, u.w, RDX);
        true
    }

    /// The low half of a product. CF and OF are the host's; the other flags, which CPUs leave
    /// undefined, are those of the result.
    fn multiply(&mut self, u: &Uop) -> bool {
        let (w, wide) = (u.w, if u.w == W64 { W64 } else { W32 });
        let (need, keep) = (u.fl & self.live, self.live & !u.fl);
        if need != 0 && keep != 0 {
            return false;
        }
        if need == 0 {
            self.clobber();
        }
        if u.op == Op::Imul && w >= W32 && need == 0 && u.d != Reg::ZERO {
            let d = self.computed_in(u.d, w);
            match u.b {
                Src::Imm(v) if fits(w, v) => {
                    self.a.op(w, 0x69, d, rm(u.a));
                    self.a.imm_of(w, v);
                }
                Src::Imm(v) => {
                    self.a.imm(RDX, v as u64);
                    self.a.mov(w, d, rm(u.a));
                    self.a.op0f(w, 0xaf, d, Rm::R(RDX));
                }
                Src::Reg(b) if rm(b) == Rm::R(d) => self.a.op0f(w, 0xaf, d, rm(u.a)),
                Src::Reg(b) => {
                    if rm(u.a) != Rm::R(d) {
                        self.a.mov(w, d, rm(u.a));
                    }
                    self.a.op0f(w, 0xaf, d, rm(b));
                }
            }
            self.reached(u.d, w, d);
            return true;
        }
        if u.op == Op::Imul && w != W8 {
            self.a.mov(wide, RDX, rm(u.a));
            match u.b {
                Src::Imm(v) if fits(w, v) => {
                    self.a.op(w, 0x69, RDX, Rm::R(RDX));
                    self.a.imm_of(w, v);
                }
                Src::Imm(v) => {
                    self.a.imm(RCX, v as u64);
                    self.a.op0f(w, 0xaf, RDX, Rm::R(RCX));
                }
                Src::Reg(b) => self.a.op0f(w, 0xaf, RDX, rm(b)),
            }
        } else {
            self.a.mov(wide, RAX, rm(u.a));
            self.value(RCX, wide, u.b);
            self.a.ext(w, 0xf7, if u.op == Op::Mul { 4 } else { 5 }, Rm::R(RCX));
            self.a.mov(W64, RDX, Rm::R(RAX));
        }
        if need != 0 {
            // seto cl
            self.a.bytes(&[0x0f, 0x90, 0xc1]);
            self.a.op(w, 0x85, RDX, Rm::R(RDX));
            // lahf; or ah, cl; mov al, cl
            self.a.bytes(&[0x9f, 0x08, 0xcc, 0x88, 0xc8]);
            self.a.store(W16, self.flags_word(), RAX);
            (self.host, self.memory) = (false, true);
        }
        self.put(u.d, w, RDX);
        true
    }
}

/// Where a register is, as an operand.
pub(super) fn rm(r: Reg) -> Rm {
    match loc(r) {
        Loc::Host(h) => Rm::R(h),
        Loc::Slot(d) => Rm::M(super::asm::RBP, d),
    }
}
