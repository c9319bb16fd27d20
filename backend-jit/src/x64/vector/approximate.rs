//! RCPPS, RSQRTPS and their scalar forms. CPUs differ in them, and the op table has a result of its
//! own: the quotient in binary64, rounded to 12 bits. A routine computes four of these as the table
//! does, where the host's flags cannot tell: PE is set already and nothing else can arise (normal
//! operands and results), and the mode is to nearest. All else is called.

use super::super::asm::{Asm, RAX, RBP, RCX, Rm, cc};
use super::super::{Compiler, MXCSR, NATIVE_VECTORS};
use super::ops::b;
use super::table::code;
use super::{LOAD, Miss, PINNED, STORE, home, is_temp, slot, word};
use emu_core::uop::Uop;
use emu_core::vec::VecOp;
use emu_core::width::Width::W32;

/// The operands come, and results go, in the one; the other is scratch.
const X: u8 = PINNED + 1;
const Y: u8 = PINNED;

const MOVE: super::Code = code("0F 10");
const VINSERTI128: super::Code = code("66 0F3A 38");

/// Exponents of operands with normal results go from 1 to this one; a negative number has no root.
fn greatest(root: bool) -> u32 {
    if root { 254 } else { 252 }
}

/// The constants of a routine, of 32 bytes each.
pub(in super::super) fn constants(a: &mut Asm, root: bool) {
    let wide = |v: u64| [v as u32, (v >> 32) as u32];
    for [low, high] in [
        // What makes the least exponent the least number, and the greatest one then.
        [0x7fff_ffff; 2],
        [0x8000_0000 + greatest(root) - 1; 2],
        wide(1f64.to_bits()),
        // See `approximate` in the table.
        wide(1 << 40),
        wide(!((1 << 41) - 1)),
    ] {
        for v in [low, high].repeat(4) {
            a.dword(v as i32);
        }
    }
}

/// The routine: ZF tells whether it has an answer. It destroys RAX, RCX and the scratch registers.
pub(in super::super) fn routine(a: &mut Asm, root: bool, constants: u64) {
    a.op0f(W32, 0xae, 3, Rm::M(RBP, MXCSR));
    a.mov(W32, RAX, Rm::M(RBP, MXCSR));
    a.alu_imm(W32, 4, Rm::R(RAX), 0x6020);
    a.alu_imm(W32, 7, Rm::R(RAX), 0x20);
    let other = a.jcc(cc::NE);
    a.imm(RCX, constants);
    let constant = |n: i32| Rm::M(RCX, 32 * n);
    // vpslld; vpsrld: exponents, of roots with their signs.
    let sign = if root { 0 } else { 1 };
    a.vex(code("66 0F 72"), false, 6, Y, Rm::R(X));
    a.byte(sign);
    a.vex(code("66 0F 72"), false, 2, Y, Rm::R(Y));
    a.byte(23 + sign);
    // vpaddd; vpcmpgtd; vmovmskps
    a.vex(code("66 0F FE"), false, Y, Y, constant(0));
    a.vex(code("66 0F 66"), false, Y, Y, constant(1));
    a.vex(code("0F 50"), false, RAX, 0, Rm::R(Y));
    a.op(W32, 0x85, RAX, Rm::R(RAX));
    let special = a.jcc(cc::NE);
    // vcvtps2pd; vsqrtpd; vdivpd
    a.vex(code("0F 5A"), true, Y, 0, Rm::R(X));
    if root {
        a.vex(code("66 0F 51"), true, Y, 0, Rm::R(Y));
    }
    a.vex(LOAD, true, X, 0, constant(2));
    a.vex(code("66 0F 5E"), true, Y, X, Rm::R(Y));
    // vpaddq; vpand; vcvtpd2ps
    a.vex(code("66 0F D4"), true, Y, Y, constant(3));
    a.vex(code("66 0F DB"), true, Y, Y, constant(4));
    a.vex(code("66 0F 5A"), true, X, 0, Rm::R(Y));
    // vpxor: its upper half is no longer in use.
    a.vex(code("66 0F EF"), false, Y, Y, Rm::R(Y));
    a.op(W32, 0x33, RAX, Rm::R(RAX));
    a.bind(other);
    a.bind(special);
    a.ret();
}

impl Compiler<'_> {
    /// Emits one of the approximations; `false` if it is none or must be called.
    pub(super) fn approximation(&mut self, u: &Uop) -> bool {
        let (to, scalar) = match u.vop {
            VecOp::Rcpps => (self.routines.rcp, false),
            VecOp::Rcpss => (self.routines.rcp, true),
            VecOp::Rsqrtps => (self.routines.rsqrt, false),
            VecOp::Rsqrtss => (self.routines.rsqrt, true),
            _ => return false,
        };
        let wide = u.k == 32;
        if !self.has_vectors() || self.unmasked() || u.k & 127 == 8 || wide && scalar {
            return false;
        }
        let vex = u.k != 16 || is_temp(u.d);
        self.vectors();
        self.settle();
        for i in [0, 1] {
            self.evict(i);
        }
        let from = home(b(u)).map_or(slot(b(u)), Rm::R);
        let mut jumps = [None; 2];
        // The upper half first.
        if wide {
            match from {
                Rm::R(x) => {
                    self.a.vex(code("66 0F3A 39"), true, x, 0, Rm::R(X));
                    self.a.byte(1);
                }
                _ => self.a.vex(LOAD, false, X, 0, word(b(u), 16)),
            }
            self.a.call_near(to);
            jumps[1] = Some(self.a.jcc(cc::NE));
            self.a.vex(STORE, false, X, 0, Rm::M(RBP, NATIVE_VECTORS));
        }
        match (scalar, from) {
            // vpbroadcastd
            (true, _) => self.a.vex(code("66 0F38 58"), false, X, 0, from),
            _ => self.a.vex(MOVE, false, X, 0, from),
        }
        self.a.call_near(to);
        jumps[0] = Some(self.a.jcc(cc::NE));
        if wide {
            self.a.vex(VINSERTI128, true, X, X, Rm::M(RBP, NATIVE_VECTORS));
            self.a.byte(1);
        }
        if scalar {
            // vmovss: the other lanes are those of `a`.
            self.a.vex(MOVE, false, Y, 0, home(u.a).map_or(slot(u.a), Rm::R));
            self.a.vex(code("F3 0F 10"), false, X, Y, Rm::R(X));
        }
        match home(u.d) {
            Some(d) if vex => self.a.vex(MOVE, wide, d, 0, Rm::R(X)),
            Some(d) => self.a.sse(MOVE, d, Rm::R(X)),
            None => self.written(u.d, X, vex),
        }
        let after = is_temp(u.d).then_some(X);
        let miss = self.misses(jumps, [Some(*u), None]);
        self.later_miss(Miss { after, ..miss });
        true
    }
}
