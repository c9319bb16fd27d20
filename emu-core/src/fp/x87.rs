//! The 80-bit format and x87 arithmetic on it.
//!
//! Every function returns, beside its result and the exceptions, whether the result was rounded
//! away from zero: the value of C1 if the precision exception is raised, 0 otherwise. If an
//! exception of [`Ex::PRE`] is unmasked, the instruction writes nothing (see [`Ex::suppresses`]);
//! the value returned is then without meaning. Unmasked overflow and underflow deliver a result
//! with its exponent moved by 24576; a store to memory must not take place instead.
//!
//! Source: Intel SDM Vol. 1, 4.8.3.5 (table 4-7), 8.2 (formats, tables 8-2 and 8-3), 8.3, 8.5;
//! Vol. 2 for each instruction.

use super::num::{
    self, DOUBLE, EXTENDED, Format, INVALID, Kind, Num, Outcome, SINGLE, Value, Wide,
};
use super::sse::{self, Float};
use super::{Env87, Ex, Order, Precision, Round};

/// A double extended number in its encoding: ten bytes of memory, `mant` first.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct F80 {
    /// Significand with an explicit integer bit (63).
    pub mant: u64,
    /// Sign (15) and biased exponent (14:0).
    pub se: u16,
}

/// What FXAM finds in a register that is not empty (SDM Vol. 2, FXAM).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// An unnormal, a pseudo-infinity or a pseudo-NaN.
    Unsupported,
    /// A NaN.
    Nan,
    /// A normal finite number.
    Normal,
    /// ±∞.
    Infinity,
    /// ±0.
    Zero,
    /// A denormal or pseudo-denormal.
    Denormal,
}

impl F80 {
    /// The `QNaN` floating-point indefinite.
    pub const INDEFINITE: F80 = F80 { mant: 3 << 62, se: 0xffff };
    /// +0.
    pub const ZERO: F80 = F80 { mant: 0, se: 0 };
    /// 1.
    pub const ONE: F80 = F80 { mant: 1 << 63, se: 0x3fff };

    /// Reads the ten bytes of memory.
    #[inline]
    pub const fn from_bytes(b: [u8; 10]) -> F80 {
        let [m0, m1, m2, m3, m4, m5, m6, m7, s0, s1] = b;
        F80 {
            mant: u64::from_le_bytes([m0, m1, m2, m3, m4, m5, m6, m7]),
            se: u16::from_le_bytes([s0, s1]),
        }
    }

    /// The ten bytes of memory.
    #[inline]
    pub const fn to_bytes(self) -> [u8; 10] {
        let [m0, m1, m2, m3, m4, m5, m6, m7] = self.mant.to_le_bytes();
        let [s0, s1] = self.se.to_le_bytes();
        [m0, m1, m2, m3, m4, m5, m6, m7, s0, s1]
    }

    /// Whether the sign bit is set (C1 of FXAM).
    #[inline]
    pub const fn sign(self) -> bool {
        self.se >> 15 != 0
    }

    /// FABS.
    #[inline]
    pub const fn abs(self) -> F80 {
        F80 { se: self.se & 0x7fff, ..self }
    }

    /// FCHS.
    #[inline]
    pub const fn neg(self) -> F80 {
        F80 { se: self.se ^ 0x8000, ..self }
    }

    /// Class of the encoding.
    #[inline]
    pub const fn class(self) -> Class {
        match (self.se & 0x7fff, self.mant) {
            (0, 0) => Class::Zero,
            (0, _) => Class::Denormal,
            (_, ..0x8000_0000_0000_0000) => Class::Unsupported,
            (0x7fff, 0x8000_0000_0000_0000) => Class::Infinity,
            (0x7fff, _) => Class::Nan,
            _ => Class::Normal,
        }
    }

    /// The tag word's two bits for a register that is not empty: valid, zero or special
    /// (SDM Vol. 1, 8.1.7).
    #[inline]
    pub const fn tag(self) -> u8 {
        match self.class() {
            Class::Normal => 0,
            Class::Zero => 1,
            _ => 2,
        }
    }

    /// C3, C2 and C0 as FXAM reports them, at their places in the status word.
    #[inline]
    pub const fn fxam(self) -> u16 {
        match self.class() {
            Class::Unsupported => 0,
            Class::Nan => 0x0100,
            Class::Normal => 0x0400,
            Class::Infinity => 0x0500,
            Class::Zero => 0x4000,
            Class::Denormal => 0x4400,
        }
    }

    /// An integer, exactly (FILD).
    #[inline]
    pub fn from_i64(v: i64) -> F80 {
        exactly(Value::Num(Num::from_int(v).wide()))
    }

    /// Packed BCD: 18 digits and a sign (FBLD). Nibbles above 9 count by their value.
    pub fn from_bcd(b: [u8; 10]) -> F80 {
        let [digits @ .., sign] = b;
        let v =
            digits.iter().rev().fold(0, |v, &d| v * 100 + (d >> 4) as i64 * 10 + (d & 15) as i64);
        let n = F80::from_i64(v);
        F80 { se: n.se | (sign as u16 & 0x80) << 8, ..n }
    }

    /// FLD m32fp: exact, with a signaling NaN made quiet. Only an unmasked IE prevents the load;
    /// an unmasked DE does not.
    #[inline]
    pub fn from_f32(bits: u32) -> (F80, Ex) {
        load(Num::unpack(SINGLE, bits as u64))
    }

    /// FLD m64fp: exact, with a signaling NaN made quiet. Only an unmasked IE prevents the load;
    /// an unmasked DE does not.
    #[inline]
    pub fn from_f64(bits: u64) -> (F80, Ex) {
        load(Num::unpack(DOUBLE, bits))
    }
}

/// An operand of arithmetic: a register or a memory operand, which need not be in the 80-bit
/// format and raises the exceptions of the arithmetic (not of a load).
#[derive(Clone, Copy, Debug)]
pub struct Operand(Num);

impl From<F80> for Operand {
    #[inline]
    fn from(v: F80) -> Operand {
        Operand(unpack(v))
    }
}

impl Operand {
    /// An m32fp operand.
    #[inline]
    pub const fn from_f32(bits: u32) -> Operand {
        Operand(Num::unpack(SINGLE, bits as u64))
    }

    /// An m64fp operand.
    #[inline]
    pub const fn from_f64(bits: u64) -> Operand {
        Operand(Num::unpack(DOUBLE, bits))
    }

    /// An m16int or m32int operand.
    #[inline]
    pub const fn from_int(v: i32) -> Operand {
        Operand(Num::from_int(v as i64))
    }
}

/// Takes a number apart.
#[inline]
pub(super) fn unpack(v: F80) -> Num {
    let (sign, biased, sig) = (v.sign(), (v.se & 0x7fff) as i32, v.mant);
    let (kind, exp) = match v.class() {
        Class::Zero | Class::Denormal => {
            return Num { sign, ..Num::denormal(EXTENDED.emin, sig) };
        }
        Class::Unsupported => (Kind::Unsupported, 0),
        Class::Nan => (Kind::Nan, 0),
        Class::Infinity => (Kind::Inf, 0),
        Class::Normal => (Kind::Finite, biased - EXTENDED.emax),
    };
    Num { kind, sign, denormal: false, exp, sig }
}

/// Rounds to `prec` bits and encodes.
pub(super) fn finish((value, ex): Outcome, env: Env87, prec: u32) -> (F80, Ex, bool) {
    let se = |sign: bool, biased: u32| (sign as u16) << 15 | biased as u16 & 0x7fff;
    let (v, ex, up) = match value {
        Value::Num(w) => {
            let f = Format { prec, ..EXTENDED };
            let r = num::round(f, w, env.round, false, env.unmasked);
            (F80 { mant: r.sig, se: se(w.sign, r.biased) }, ex | r.ex, r.up)
        }
        Value::Inf(sign) => (F80 { mant: 1 << 63, se: se(sign, 0x7fff) }, ex, false),
        Value::Nan { sign, sig } => (F80 { mant: sig, se: se(sign, 0x7fff) }, ex, false),
    };
    (v, ex.visible(env.unmasked), up)
}

/// Encodes a result that needs no rounding.
fn exactly(value: Value) -> F80 {
    finish((value, Ex::empty()), Env87::default(), 64).0
}

fn load(x: Num) -> (F80, Ex) {
    match x.kind {
        Kind::Nan => (exactly(x.quieted()), Ex::IE.when(x.is_snan())),
        Kind::Inf => (exactly(Value::Inf(x.sign)), Ex::empty()),
        _ => (exactly(Value::Num(x.wide())), x.de()),
    }
}

/// The result if an operand is unsupported or a NaN: of two NaNs the one with the larger
/// significand (a quiet one's is larger than a signaling one's), and if they are equal the positive
/// one.
#[inline]
pub(super) fn special(operands: &[Num]) -> Option<Outcome> {
    if operands.iter().any(|n| n.kind == Kind::Unsupported) {
        return Some(INVALID);
    }
    let rank = |n: &&Num| (n.sig, !n.sign);
    let best = operands.iter().filter(|n| n.is_nan()).max_by_key(rank)?;
    let signaling = operands.iter().any(|n| n.is_snan());
    Some((best.quieted(), Ex::IE.when(signaling)))
}

/// Bits of the precision that PC asks for.
#[inline]
fn bits(precision: Precision) -> u32 {
    match precision {
        Precision::Single => 24,
        Precision::Double => 53,
        Precision::Extended => 64,
    }
}

/// FADD.
pub fn add(a: impl Into<Operand>, b: impl Into<Operand>, env: Env87) -> (F80, Ex, bool) {
    let (Operand(x), Operand(y)) = (a.into(), b.into());
    let outcome = special(&[x, y]).unwrap_or_else(|| num::add(x, y, env.round));
    finish(outcome, env, bits(env.precision))
}

/// FSUB: `a` − `b`.
pub fn sub(a: impl Into<Operand>, b: impl Into<Operand>, env: Env87) -> (F80, Ex, bool) {
    let (Operand(x), Operand(y)) = (a.into(), b.into());
    let outcome = special(&[x, y]).unwrap_or_else(|| num::add(x, y.neg(), env.round));
    finish(outcome, env, bits(env.precision))
}

/// FMUL.
pub fn mul(a: impl Into<Operand>, b: impl Into<Operand>, env: Env87) -> (F80, Ex, bool) {
    let (Operand(x), Operand(y)) = (a.into(), b.into());
    finish(special(&[x, y]).unwrap_or_else(|| num::mul(x, y)), env, bits(env.precision))
}

/// FDIV: `a` / `b`.
pub fn div(a: impl Into<Operand>, b: impl Into<Operand>, env: Env87) -> (F80, Ex, bool) {
    let (Operand(x), Operand(y)) = (a.into(), b.into());
    finish(special(&[x, y]).unwrap_or_else(|| num::div(x, y)), env, bits(env.precision))
}

/// FSQRT.
pub fn sqrt(a: F80, env: Env87) -> (F80, Ex, bool) {
    let x = unpack(a);
    finish(special(&[x]).unwrap_or_else(|| num::sqrt(x)), env, bits(env.precision))
}

/// FUCOM, FUCOMI: IE for a signaling NaN or an unsupported operand only.
pub fn cmp_quiet(a: impl Into<Operand>, b: impl Into<Operand>) -> (Order, Ex) {
    let (Operand(x), Operand(y)) = (a.into(), b.into());
    match special(&[x, y]) {
        Some((_, ex)) => (Order::Unordered, ex),
        None => (sse::order(x, y), x.de() | y.de()),
    }
}

/// FCOM, FCOMI, FICOM, FTST: IE for any NaN or unsupported operand.
pub fn cmp_signaling(a: impl Into<Operand>, b: impl Into<Operand>) -> (Order, Ex) {
    match cmp_quiet(a, b) {
        (Order::Unordered, _) => (Order::Unordered, Ex::IE),
        ordered => ordered,
    }
}

/// FRNDINT.
pub fn round_to_int(a: F80, env: Env87) -> (F80, Ex, bool) {
    let x = unpack(a);
    if let Some(outcome) = special(&[x]) {
        return finish(outcome, env, 64);
    }
    match x.to_int(env.round) {
        Some((mag, inexact, up)) => {
            let v = exactly(Value::Num(Wide::normalised(x.sign, 127, mag)));
            let pe = Ex::PE.when(inexact);
            (v, (x.de() | pe).visible(env.unmasked), up)
        }
        // An infinity, or an integer already.
        None => (a, Ex::empty(), false),
    }
}

/// FSCALE: `a` · 2^n, where n is `b` truncated.
pub fn scale(a: F80, b: F80, env: Env87) -> (F80, Ex, bool) {
    let (x, y) = (unpack(a), unpack(b));
    let de = x.de() | y.de();
    let outcome = special(&[x, y]).unwrap_or_else(|| match (x.kind, y.kind, y.sign) {
        (Kind::Zero, Kind::Inf, false) | (Kind::Inf, Kind::Inf, true) => INVALID,
        (Kind::Inf, ..) | (_, Kind::Inf, false) if x.kind != Kind::Zero => (Value::Inf(x.sign), de),
        (_, Kind::Inf, true) => (Value::Num(Num::zero(x.sign).wide()), de),
        _ => {
            // Beyond this any number overflows or underflows, even with its exponent moved.
            let n = y.to_int(Round::Zero).map_or(1 << 17, |(mag, ..)| mag.min(1 << 17) as i32);
            let exp = if y.sign { x.exp - n } else { x.exp + n };
            (Value::Num(Wide { exp, ..x.wide() }), de)
        }
    });
    finish(outcome, env, 64)
}

/// FXTRACT: (exponent, significand, exceptions); the first replaces ST(0), the second is pushed.
pub fn extract(a: F80, env: Env87) -> (F80, F80, Ex) {
    let x = unpack(a);
    if let Some(outcome) = special(&[x]) {
        let (v, ex, _) = finish(outcome, env, 64);
        return (v, v, ex);
    }
    match x.kind {
        Kind::Zero => (exactly(Value::Inf(true)), a, Ex::ZE),
        Kind::Inf => (exactly(Value::Inf(false)), a, Ex::empty()),
        _ => {
            let significand = exactly(Value::Num(Wide { exp: 0, ..x.wide() }));
            (F80::from_i64(x.exp as i64), significand, x.de())
        }
    }
}

/// What FPREM and FPREM1 leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remainder {
    /// The remainder, or what a partial reduction left.
    pub value: F80,
    /// Exceptions.
    pub ex: Ex,
    /// The quotient's low three bits: Q2 goes to C0, Q1 to C3, Q0 to C1. 0 if partial.
    pub quotient: u8,
    /// C2: the reduction is partial and has to be repeated.
    pub partial: bool,
}

/// FPREM: the quotient is truncated.
pub fn prem(a: F80, b: F80, env: Env87) -> Remainder {
    remainder(a, b, env, false)
}

/// FPREM1: the quotient is rounded to nearest, as IEEE 754 asks.
pub fn prem1(a: F80, b: F80, env: Env87) -> Remainder {
    remainder(a, b, env, true)
}

fn remainder(a: F80, b: F80, env: Env87, nearest: bool) -> Remainder {
    let (x, y) = (unpack(a), unpack(b));
    let de = x.de() | y.de();
    let (mut quotient, mut partial) = (0, false);
    let outcome = special(&[x, y]).unwrap_or_else(|| match (x.kind, y.kind) {
        (Kind::Inf, _) | (_, Kind::Zero) => INVALID,
        (Kind::Zero, _) | (_, Kind::Inf) => (Value::Num(x.wide()), de),
        _ => {
            let distance = x.exp - y.exp;
            // The dividend shifted left by `n` in units of the divisor's last place; a dividend
            // half as large as the divisor or less is its own remainder.
            let (n, unit) = match distance {
                ..-1 => return (Value::Num(x.wide()), de),
                -1 => (0, y.exp - 1),
                0..64 => (distance, y.exp),
                _ => (32 + distance % 32, x.exp - 32 - distance % 32),
            };
            partial = distance >= 64;
            let d = (y.sig as u128) << (distance == -1) as u32;
            let dividend = (x.sig as u128) << n;
            let (mut q, mut r, mut sign) = (dividend / d, dividend % d, x.sign);
            if nearest && !partial && (2 * r > d || 2 * r == d && q & 1 == 1) {
                (q, r, sign) = (q + 1, d - r, !sign);
            }
            quotient = if partial { 0 } else { q as u8 & 7 };
            let sign = if r == 0 { x.sign } else { sign };
            (Value::Num(Wide::normalised(sign, unit + 64, r)), de)
        }
    });
    let (value, ex, _) = finish(outcome, env, 64);
    Remainder { value, ex, quotient, partial }
}

/// FST m32fp.
pub fn to_f32(a: F80, env: Env87) -> (u32, Ex, bool) {
    to_float(a, env)
}

/// FST m64fp.
pub fn to_f64(a: F80, env: Env87) -> (u64, Ex, bool) {
    to_float(a, env)
}

fn to_float<B: Float>(a: F80, env: Env87) -> (B, Ex, bool) {
    let x = unpack(a);
    let max = (2 * B::FORMAT.emax + 1) as u32;
    let outcome = special(&[x]).unwrap_or_else(|| match x.kind {
        Kind::Inf => (Value::Inf(x.sign), Ex::empty()),
        _ => (Value::Num(x.wide()), Ex::empty()),
    });
    match outcome {
        (Value::Num(w), _) => {
            let r = num::round(B::FORMAT, w, env.round, false, env.unmasked);
            let v = sse::encode(w.sign, r.biased, r.sig);
            // An overflow or underflow that prevents the store hides PE (SDM Vol. 1, 8.5.6).
            if r.ex.intersects(env.unmasked & (Ex::OE | Ex::UE)) {
                (v, r.ex - Ex::PE, false)
            } else {
                (v, r.ex, r.up)
            }
        }
        (Value::Inf(sign), ex) => (sse::encode(sign, max, 0), ex, false),
        (Value::Nan { sign, sig }, ex) => (sse::encode(sign, max, sig), ex, false),
    }
}

/// FIST m16int; FISTTP with [`Round::Zero`]. Out of range: the integer indefinite and IE.
pub fn to_i16(a: F80, round: Round) -> (i16, Ex, bool) {
    let (v, ex, up) = to_int(a, 1 << 15, round);
    (v as i16, ex, up)
}

/// FIST m32int; FISTTP with [`Round::Zero`]. Out of range: the integer indefinite and IE.
pub fn to_i32(a: F80, round: Round) -> (i32, Ex, bool) {
    let (v, ex, up) = to_int(a, 1 << 31, round);
    (v as i32, ex, up)
}

/// FISTP m64int; FISTTP with [`Round::Zero`]. Out of range: the integer indefinite and IE.
pub fn to_i64(a: F80, round: Round) -> (i64, Ex, bool) {
    to_int(a, 1 << 63, round)
}

fn to_int(a: F80, limit: u128, round: Round) -> (i64, Ex, bool) {
    let x = unpack(a);
    match x.to_int(round) {
        Some((mag, inexact, up)) if mag < limit || mag == limit && x.sign => {
            let v = mag as i64;
            let ex = Ex::PE.when(inexact);
            (if x.sign { v.wrapping_neg() } else { v }, ex, up)
        }
        _ => ((limit as i64).wrapping_neg(), Ex::IE, false),
    }
}

/// FBSTP: 18 digits and a sign, or the packed BCD indefinite and IE.
pub fn to_bcd(a: F80, round: Round) -> ([u8; 10], Ex, bool) {
    let x = unpack(a);
    match x.to_int(round) {
        Some((mag, inexact, up)) if mag < 10u128.pow(18) => {
            let (mut rest, mut out) = (mag as u64, [0; 10]);
            for byte in out.iter_mut().take(9) {
                *byte = (((rest / 10 % 10) << 4) | (rest % 10)) as u8;
                rest /= 100;
            }
            out[9] = (x.sign as u8) << 7;
            (out, Ex::PE.when(inexact), up)
        }
        _ => ([0, 0, 0, 0, 0, 0, 0, 0xc0, 0xff, 0xff], Ex::IE, false),
    }
}
