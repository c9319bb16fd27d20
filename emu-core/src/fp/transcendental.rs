//! The x87 transcendental instructions.
//!
//! Problem: results good to the last of 64 bits, on any host, with the special cases and flags of
//! the instructions.
//!
//! Method: all is computed with 128-bit significands. An argument is reduced exactly where it can
//! be (integers modulo π, ratios of integers), the function is written as argument · series in the
//! argument's square, and the series is summed by Horner's rule in 128-bit fixed point with enough
//! terms for 2^-127. Relative errors stay near 2^-124, so that the one rounding at the end is
//! right but for about one argument in 2^60. An irrational result has bit 0 set, as sticky. PE is
//! raised wherever something is computed, even if the result happens to be exact (SDM Vol. 1,
//! 4.9.1.6).
//!
//! π: the trigonometric instructions reduce by the 66-bit value that the real unit uses
//! (SDM Vol. 1, 8.3.8), so that large arguments agree with it; FPATAN, which only adds multiples
//! of π/4, uses the true one.
//!
//! Precision control does not apply. Where the manual leaves the result undefined, F2XM1 (beyond
//! ±1) and FYL2XP1 (at or below −1) return ST(0), as real units do.
//!
//! Source: Intel SDM Vol. 1, 8.3.7 to 8.3.10; Vol. 2, the tables of each instruction.

use super::num::{INVALID, Kind, Num, Outcome, Value, Wide, shr_sticky};
use super::x87::{Class, F80, finish, special, unpack};
use super::{Env87, Ex, Round};

/// π · 2^66 as the trigonometric instructions have it; also π/2 in units of 2^-67.
const PI_66: u128 = 0xc_90fd_aa22_168c_234c;
/// π, significand and exponent.
const PI: Wide = Wide::positive(1, 0xc90f_daa2_2168_c234_c4c6_628b_80dc_1cd1);
/// π/2.
const HALF_PI: Wide = Wide { exp: 0, ..PI };
/// ln 2 · 2^128.
const LN_2: u128 = 0xb172_17f7_d1cf_79ab_c9e3_b398_03f2_f6af;
/// log2 e · 2^127.
const LOG2_E: u128 = 0xb8aa_3b29_5c17_f0bb_be87_fed0_691d_3e88;
/// log2 10 · 2^126.
const LOG2_10: u128 = 0xd49a_784b_cd1b_8afe_492b_f6ff_4daf_db4c;
/// log10 2 · 2^129.
const LOG10_2: u128 = 0x9a20_9a84_fbcf_f798_8f89_59ac_0b7c_9178;
/// √2 · 2^127: significands above it are halved before a logarithm is taken.
const SQRT_2: u128 = 0xb504_f333_f9de_6484 << 64;
/// atan(k/8) · 2^128.
const ATAN_EIGHTHS: [u128; 9] = [
    0,
    0x1fd5_ba9a_ac2f_6dc6_5912_f313_e7d1_11de,
    0x3eb6_ebf2_5901_bac5_5b71_e7bd_7de8_85f9,
    0x5bd8_6507_937b_c239_c551_9091_6e7f_2241,
    0x76b1_9c15_86ed_3da2_b7f2_22f6_5e1d_4681,
    0x8f00_5d5e_f7f5_9f9b_5c83_5e16_65c4_3747,
    0xa4bc_7d19_34f7_0924_19a8_7f2a_457d_ac9e,
    0xb805_3e2b_c231_9e73_cb2d_a552_10a4_443d,
    0xc90f_daa2_2168_c234_c4c6_628b_80dc_1cd1,
];

/// The constants that the FLD instructions push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Constant {
    /// FLD1: 1.
    One,
    /// FLDL2T: log2 10.
    Log2Of10,
    /// FLDL2E: log2 e.
    Log2OfE,
    /// FLDPI: π.
    Pi,
    /// FLDLG2: log10 2.
    Log10Of2,
    /// FLDLN2: ln 2.
    LnOf2,
    /// FLDZ: +0.
    Zero,
}

/// A constant by the rounding mode given. No exception arises.
pub fn constant(which: Constant, round: Round) -> F80 {
    let (exp, sig) = match which {
        Constant::One => return F80::ONE,
        Constant::Zero => return F80::ZERO,
        Constant::Log2Of10 => (1, LOG2_10),
        Constant::Log2OfE => (0, LOG2_E),
        Constant::Pi => (1, PI.sig),
        Constant::Log10Of2 => (-2, LOG10_2),
        Constant::LnOf2 => (-1, LN_2),
    };
    let env = Env87 { round, ..Env87::default() };
    finish((number(Wide::positive(exp, sig)), Ex::empty()), env, 64).0
}

/// The high half of a 256-bit product.
#[inline]
fn mul_high(a: u128, b: u128) -> u128 {
    const LOW: u128 = u64::MAX as u128;
    let (ah, al, bh, bl) = (a >> 64, a & LOW, b >> 64, b & LOW);
    let middle = ((al * bl) >> 64) + ((ah * bl) & LOW) + ((al * bh) & LOW);
    ah * bh + ((ah * bl) >> 64) + ((al * bh) >> 64) + (middle >> 64)
}

/// Product, cut off at 128 bits.
fn product(a: Wide, b: Wide) -> Wide {
    Wide::normalised(a.sign != b.sign, a.exp + b.exp + 1, mul_high(a.sig, b.sig))
}

/// Quotient of numbers that are not zero, cut off at 128 bits.
fn quotient(a: Wide, b: Wide) -> Wide {
    // One bit a step; `rest` < 2 · b.sig, its bit 128 being `carry`.
    let (mut q, mut rest, mut carry) = (0u128, a.sig, false);
    for _ in 0..128 {
        let fits = carry || rest >= b.sig;
        q = q << 1 | u128::from(fits);
        rest = if fits { rest.wrapping_sub(b.sig) } else { rest };
        carry = rest >> 127 != 0;
        rest <<= 1;
    }
    Wide::normalised(a.sign != b.sign, a.exp - b.exp, q)
}

/// The square of a number below 1 as a fraction of 2^128.
fn square(x: Wide) -> u128 {
    shr_sticky(mul_high(x.sig, x.sig), (-2 * x.exp - 2).unsigned_abs())
}

/// The magnitude of a number below 1 as a fraction of 2^128.
fn fraction(x: Wide) -> u128 {
    shr_sticky(x.sig, (-1 - x.exp).unsigned_abs())
}

/// Marks a result as inexact.
fn irrational(w: Wide) -> Wide {
    Wide { sig: w.sig | 1, ..w }
}

/// A result that is a number.
fn number(w: Wide) -> Value {
    Value::Num(w)
}

/// An exact zero.
fn zero(sign: bool) -> Value {
    Value::Num(Num::zero(sign).wide())
}

/// Rounds. These instructions raise PE wherever they compute, even if the result happens to be
/// exact, and then UE too if it is a denormal.
fn conclude(outcome: Outcome, env: Env87) -> (F80, Ex, bool) {
    let (v, ex, up) = finish(outcome, env, 64);
    let tiny = ex.contains(Ex::PE) && v.class() == Class::Denormal;
    (v, if tiny { ex | Ex::UE } else { ex }, up)
}

/// 1 in the fixed point of the alternating series, whose sums do not exceed it.
const ONE_127: u128 = 1 << 127;
/// 1 in the fixed point of the other series, whose sums stay below 4.
const ONE_126: u128 = 1 << 126;
/// 1.
const ONE: Wide = Wide::positive(0, ONE_127);

/// sin and cos of a nonzero number of magnitude π/4 or less.
fn sin_cos(r: Wide) -> (Wide, Wide) {
    let t = square(r);
    let series = |first: u128| {
        let sum = (0..17).rev().fold(ONE_127, |sum, k| {
            let n = 2 * k + first;
            ONE_127 - mul_high(t, sum) / (n * (n + 1))
        });
        sum.min(ONE_127 - 1)
    };
    let (s, c) = (series(2), series(1));
    let sine = product(r, Wide::normalised(false, 0, s));
    (irrational(sine), irrational(Wide::normalised(false, 0, c)))
}

/// What the trigonometric instructions make of their operand.
enum Angle {
    /// Too large: C2 is set and nothing else happens.
    OutOfRange,
    /// The operand settles the result.
    Special(Outcome),
    /// ±0.
    Zero(bool),
    /// sin and cos of the operand, its distance from a multiple of π/2, DE if it was denormal.
    Of(Wide, Wide, Wide, Ex),
}

/// Reduces the angle by π/2 and takes sin and cos.
fn angle(a: F80) -> Angle {
    let x = unpack(a);
    if let Some(outcome) = special(&[x]) {
        return Angle::Special(outcome);
    }
    match x.kind {
        Kind::Inf => Angle::Special(INVALID),
        Kind::Zero => Angle::Zero(x.sign),
        _ if x.exp >= 63 => Angle::OutOfRange,
        // Below 1/2.
        _ if x.exp < -1 => {
            let (sin, cos) = sin_cos(x.wide());
            Angle::Of(sin, cos, x.wide(), x.de())
        }
        _ => {
            // In units of 2^-67, where both the operand and π/2 are integers: remainder and
            // quotient (of which only two bits matter) by doubling. The remainder cannot be 0:
            // π/2 has an odd factor of 66 bits, the operand has 64.
            let (mut rest, mut turns) = (u128::from(x.sig), 0u32);
            for _ in 0..x.exp + 4 {
                rest <<= 1;
                turns = turns.wrapping_shl(1);
                if rest >= PI_66 {
                    rest -= PI_66;
                    turns |= 1;
                }
            }
            let past = rest > PI_66 / 2;
            if past {
                rest = PI_66 - rest;
                turns = turns.wrapping_add(1);
            }
            let rest = Wide::normalised(past, 60, rest);
            let (s, c) = sin_cos(rest);
            let minus = |w: Wide| w.with_sign(!w.sign);
            let (s, c) = match turns & 3 {
                0 => (s, c),
                1 => (c, minus(s)),
                2 => (minus(s), minus(c)),
                _ => (minus(c), s),
            };
            let s = if x.sign { minus(s) } else { s };
            Angle::Of(s, c, rest, Ex::empty())
        }
    }
}

/// FSIN. `None` if |`a`| ≥ 2^63: C2 is set and ST(0) stays.
pub fn fsin(a: F80, env: Env87) -> Option<(F80, Ex, bool)> {
    let outcome = match angle(a) {
        Angle::OutOfRange => return None,
        Angle::Special(outcome) => outcome,
        Angle::Zero(sign) => (zero(sign), Ex::empty()),
        Angle::Of(sin, _, _, de) => (number(sin), de | Ex::PE),
    };
    Some(conclude(outcome, env))
}

/// FCOS. `None` if |`a`| ≥ 2^63: C2 is set and ST(0) stays.
pub fn fcos(a: F80, env: Env87) -> Option<(F80, Ex, bool)> {
    let outcome = match angle(a) {
        Angle::OutOfRange => return None,
        Angle::Special(outcome) => outcome,
        Angle::Zero(_) => (number(ONE), Ex::empty()),
        Angle::Of(_, cos, _, de) => (number(cos), de | Ex::PE),
    };
    Some(conclude(outcome, env))
}

/// FSINCOS: (sin, which replaces ST(0); cos, which is pushed; exceptions; C1). `None` if
/// |`a`| ≥ 2^63: C2 is set and the stack stays.
pub fn fsincos(a: F80, env: Env87) -> Option<(F80, F80, Ex, bool)> {
    let (sin, sin_ex, _) = fsin(a, env)?;
    let (cos, cos_ex, up) = fcos(a, env)?;
    Some((sin, cos, (sin_ex | cos_ex).visible(env.unmasked), up))
}

/// FPTAN: the tangent, which replaces ST(0) before 1 is pushed (a NaN is pushed twice instead).
/// `None` if |`a`| ≥ 2^63: C2 is set and the stack stays.
pub fn fptan(a: F80, env: Env87) -> Option<(F80, Ex, bool)> {
    let outcome = match angle(a) {
        Angle::OutOfRange => return None,
        Angle::Special(outcome) => outcome,
        Angle::Zero(sign) => (zero(sign), Ex::empty()),
        Angle::Of(sin, cos, rest, de) => {
            // A tangent of almost nothing is a trace larger than its angle, but sin and cos have
            // been cut off.
            let tan = match sin.exp {
                ..-40 => rest.with_sign(sin.sign != cos.sign),
                _ => quotient(sin, cos),
            };
            (number(irrational(tan)), de | Ex::PE)
        }
    };
    Some(conclude(outcome, env))
}

/// The angle whose tangent is y/x, for positive finite operands.
fn atan_ratio(y: Num, x: Num) -> Wide {
    let steep = (y.exp, y.sig) > (x.exp, x.sig);
    let (low, high) = if steep { (x, y) } else { (y, x) };
    // z = low/high is k/8 and a rest; atan z = atan k/8 + atan t, t = (8z - k) / (8 + kz). Ratios
    // below 1/16 have k = 0 and t = z; the others are ratios of integers of 69 bits or less.
    let distance = high.exp - low.exp;
    let (k, t) = if distance > 4 {
        (0, quotient(low.wide().with_sign(false), high.wide().with_sign(false)))
    } else {
        let (n, d) = (i128::from(low.sig), i128::from(high.sig) << distance);
        let k = (16 * n + d) / (2 * d);
        let (above, below) = (8 * n - k * d, 8 * d + k * n);
        let above = Wide::normalised(above < 0, 0, above.unsigned_abs());
        let below = Wide::normalised(false, 0, below.unsigned_abs());
        let t = if above.sig == 0 { above } else { quotient(above, below) };
        (k as usize, t)
    };
    let t2 = square(t);
    let sum = (1..18).rev().fold(0, |sum, n| ONE_127 / (2 * n + 1) - mul_high(t2, sum));
    let sum = (ONE_127 - mul_high(t2, sum)).min(ONE_127 - 1);
    let rest = product(t, Wide::normalised(false, 0, sum));
    let base = ATAN_EIGHTHS.get(k).copied().unwrap_or(0);
    let angle = Wide::normalised(false, -1, base).add(rest, Round::Nearest);
    if steep { HALF_PI.add(angle.with_sign(true), Round::Nearest) } else { angle }
}

/// FPATAN: the angle of the point (`st0`, `st1`), which replaces ST(1) before ST(0) is popped.
pub fn fpatan(st0: F80, st1: F80, env: Env87) -> (F80, Ex, bool) {
    let (x, y) = (unpack(st0), unpack(st1));
    let outcome = special(&[x, y]).unwrap_or_else(|| {
        let eighth = Wide { exp: -1, ..PI };
        let right = match (y.kind, x.kind) {
            (Kind::Zero, _) | (Kind::Finite, Kind::Inf) => None,
            (Kind::Inf, Kind::Inf) => Some(eighth),
            (Kind::Inf, _) | (_, Kind::Zero) => Some(HALF_PI),
            _ => Some(atan_ratio(y, x)),
        };
        // The angle in the right half plane, and its mirror image in the left one.
        let angle = match (right, x.sign) {
            (None, false) => return (zero(y.sign), x.de() | y.de()),
            (None, true) => PI,
            (Some(angle), false) => angle,
            (Some(angle), true) => PI.add(angle.with_sign(true), Round::Nearest),
        };
        (number(irrational(angle.with_sign(y.sign))), x.de() | y.de() | Ex::PE)
    });
    conclude(outcome, env)
}

/// 2^x − 1 for 0 < |x| < 1.
fn exp2_less_1(x: Wide) -> Wide {
    // e^y - 1 = y (1 + y/2 (1 + y/3 (...)))
    let y = product(x, Wide::positive(-1, LN_2));
    let part = fraction(y);
    let sum = (2..36).rev().fold(ONE_126, |sum, n| {
        let term = mul_high(part, sum) / n;
        if y.sign { ONE_126 - term } else { ONE_126 + term }
    });
    irrational(product(y, Wide::normalised(false, 1, sum)))
}

/// F2XM1: 2^`a` − 1 for −1 ≤ `a` ≤ 1.
pub fn f2xm1(a: F80, env: Env87) -> (F80, Ex, bool) {
    let x = unpack(a);
    let outcome = special(&[x]).unwrap_or_else(|| match (x.kind, x.sign) {
        (Kind::Zero, sign) => (zero(sign), Ex::empty()),
        (Kind::Inf, false) => (Value::Inf(false), Ex::empty()),
        (Kind::Inf, true) => (number(ONE.with_sign(true)), Ex::empty()),
        (_, sign) if x.exp >= 0 => {
            // 2^-1 - 1 is the one result that is exact and is not the operand.
            let half = sign && x.exp == 0 && x.sig == 1 << 63;
            let exp = if half { -1 } else { x.exp };
            (number(Wide { exp, ..x.wide() }), Ex::PE)
        }
        _ => (number(exp2_less_1(x.wide())), x.de() | Ex::PE),
    });
    conclude(outcome, env)
}

/// (2/ln 2) artanh z, for a nonzero |z| below 0.18: the binary logarithm of (1 + z) / (1 − z), with
/// bit 0 set.
fn log2_ratio(z: Wide) -> Wide {
    let z2 = square(z);
    let sum = (0..27).rev().fold(0, |sum, n| ONE_126 / (2 * n + 1) + mul_high(z2, sum));
    let artanh = product(z, Wide::normalised(false, 1, sum));
    irrational(product(artanh, Wide::positive(1, LOG2_E)))
}

/// The binary logarithm of a positive number; bit 0 tells that it is irrational.
fn log2(x: Wide) -> Wide {
    // x = 2^exp m with m near 1, z = (m - 1) / (m + 1).
    let (exp, above, below) = if x.sig <= SQRT_2 {
        let below = Wide::positive(1, (x.sig >> 1) + (1 << 126));
        (x.exp, Wide::normalised(false, 0, x.sig - ONE_127), below)
    } else {
        let below = Wide::positive(0, (x.sig >> 1) + ONE_127);
        (x.exp + 1, Wide::normalised(true, -1, x.sig.wrapping_neg()), below)
    };
    let whole = Num::from_int(i64::from(exp)).wide();
    if above.sig == 0 {
        return whole;
    }
    irrational(whole.add(log2_ratio(quotient(above, below)), Round::Nearest))
}

/// `y` times a logarithm; `log` is `None` for that of +∞.
fn times_log(y: Num, log: Option<Wide>, de: Ex) -> Outcome {
    match (y.kind, log) {
        (Kind::Zero, None) => INVALID,
        (_, None) => (Value::Inf(y.sign), de),
        (Kind::Inf, Some(l)) if l.sig == 0 => INVALID,
        (Kind::Inf, Some(l)) => (Value::Inf(y.sign != l.sign), de),
        (_, Some(l)) if y.kind == Kind::Zero || l.sig == 0 => (zero(y.sign != l.sign), de),
        // Bit 0 of an irrational logarithm is set and makes the product sticky.
        (_, Some(l)) => {
            let w = product(y.wide(), l);
            (number(Wide { sig: w.sig | l.sig & 1, ..w }), de | Ex::PE)
        }
    }
}

/// FYL2X: `st1` · log2 `st0`, which replaces ST(1) before ST(0) is popped.
pub fn fyl2x(st0: F80, st1: F80, env: Env87) -> (F80, Ex, bool) {
    let (x, y) = (unpack(st0), unpack(st1));
    let de = x.de() | y.de();
    let outcome = special(&[x, y]).unwrap_or_else(|| match x.kind {
        Kind::Zero => match y.kind {
            Kind::Zero => INVALID,
            Kind::Inf => (Value::Inf(!y.sign), de),
            _ => (Value::Inf(!y.sign), Ex::ZE),
        },
        _ if x.sign => INVALID,
        Kind::Inf => times_log(y, None, de),
        _ => times_log(y, Some(log2(x.wide())), de),
    });
    conclude(outcome, env)
}

/// FYL2XP1: `st1` · log2 (`st0` + 1), which replaces ST(1) before ST(0) is popped.
pub fn fyl2xp1(st0: F80, st1: F80, env: Env87) -> (F80, Ex, bool) {
    let (x, y) = (unpack(st0), unpack(st1));
    let de = x.de() | y.de();
    let outcome = special(&[x, y]).unwrap_or_else(|| match x.kind {
        Kind::Zero => times_log(y, Some(x.wide()), de),
        Kind::Inf if x.sign => INVALID,
        Kind::Inf => times_log(y, None, de),
        // Near zero, where 1 + x would lose bits: z = x / (2 + x).
        _ if x.exp < -2 => {
            let below = Wide { exp: 1, ..ONE }.add(x.wide(), Round::Nearest);
            times_log(y, Some(log2_ratio(quotient(x.wide(), below))), de)
        }
        // Without a logarithm, as the real unit does.
        _ if x.sign && x.exp >= 0 && y.kind == Kind::Finite => (number(x.wide()), de | Ex::PE),
        _ if x.sign && x.exp >= 0 => times_log(y, Some(x.wide()), de),
        _ => times_log(y, Some(log2(ONE.add(x.wide(), Round::Nearest))), de),
    });
    conclude(outcome, env)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Functions keep about 60 bits more than they deliver; identities between them show it.
    #[test]
    fn internal_precision() {
        let add = |a: Wide, b: Wide| a.add(b, Round::Nearest);
        let check = |got: Wide, want: Wide, what: &str| {
            let error = add(got, want.with_sign(!want.sign));
            assert!(error.sig == 0 || error.exp < want.exp - 120, "{what}: {error:x?}");
        };
        let ratio = |n: i64, d: i64| quotient(Num::from_int(n).wide(), Num::from_int(d).wide());
        let atan = |n: i64, d: i64| atan_ratio(Num::from_int(n), Num::from_int(d));
        let times = |n: i64, w: Wide| product(Num::from_int(n).wide(), w);
        for i in 1..78 {
            let (s, c) = sin_cos(ratio(i, 99));
            check(add(product(s, s), product(c, c)), ONE, "sin² + cos²");
            let (p, q) = (exp2_less_1(ratio(i, 78)), exp2_less_1(ratio(-i, 78)));
            check(product(add(ONE, p), add(ONE, q)), ONE, "2^x 2^-x");
            let logs = add(log2(ratio(i + 1, i)), log2(ratio(2 * i, i + 1)));
            check(logs, ONE, "log2 of two factors of 2");
            check(add(atan(i, 78), atan(78 - i, 78 + i)), Wide { exp: -1, ..PI }, "atan sum");
        }
        let machin = add(times(4, atan(1, 5)), times(-1, atan(1, 239)));
        check(machin, Wide { exp: -1, ..PI }, "Machin's formula");
    }

    /// Results rounded to nearest from 900 bits: operation, ST(0), ST(1), result, as sign and
    /// exponent, then significand.
    #[test]
    fn correctly_rounded() {
        type Op = fn(F80, F80, Env87) -> (F80, Ex, bool);
        let sin: Op = |a, _, env| fsin(a, env).unwrap();
        let cos: Op = |a, _, env| fcos(a, env).unwrap();
        let tan: Op = |a, _, env| fptan(a, env).unwrap();
        let f2xm1: Op = |a, _, env| super::f2xm1(a, env);
        #[rustfmt::skip]
        let rows: [(Op, u16, u64, u16, u64, u16, u64); 35] = [
            (sin, 0x3fff, 0x8000_0000_0000_0000, 0x3fff, 0x8000_0000_0000_0000, 0x3ffe, 0xd76a_a478_4867_7021),
            (sin, 0xc000, 0xc000_0000_0000_0000, 0x3fff, 0x8000_0000_0000_0000, 0xbffc, 0x9081_c36d_b6aa_da79),
            (sin, 0x4020, 0x9502_f900_1555_5555, 0x3fff, 0x8000_0000_0000_0000, 0xbffc, 0xb331_20b1_f2fe_b0ca),
            (sin, 0x403d, 0xd999_9999_9999_9800, 0x3fff, 0x8000_0000_0000_0000, 0xbffe, 0xde6e_78d6_cf50_cdbc),
            (sin, 0x3feb, 0x8000_0000_0000_0000, 0x3fff, 0x8000_0000_0000_0000, 0x3fea, 0xffff_ffff_ffd5_5555),
            (cos, 0x3fff, 0x8000_0000_0000_0000, 0x3fff, 0x8000_0000_0000_0000, 0x3ffe, 0x8a51_407d_a834_5c92),
            (cos, 0xc000, 0xc000_0000_0000_0000, 0x3fff, 0x8000_0000_0000_0000, 0xbffe, 0xfd70_25f4_2f2e_9308),
            (cos, 0x4020, 0x9502_f900_1555_5555, 0x3fff, 0x8000_0000_0000_0000, 0x3ffe, 0xfc0c_c4d8_a9bf_ebc0),
            (cos, 0x403d, 0xd999_9999_9999_9800, 0x3fff, 0x8000_0000_0000_0000, 0xbffd, 0xfd75_3242_068e_f603),
            (cos, 0x3feb, 0x8000_0000_0000_0000, 0x3fff, 0x8000_0000_0000_0000, 0x3ffe, 0xffff_ffff_ff80_0000),
            (tan, 0x3fff, 0x8000_0000_0000_0000, 0x3fff, 0x8000_0000_0000_0000, 0x3fff, 0xc759_22e5_f71d_2dc5),
            (tan, 0xc000, 0xc000_0000_0000_0000, 0x3fff, 0x8000_0000_0000_0000, 0x3ffc, 0x91f7_b892_a5c3_7866),
            (tan, 0x4020, 0x9502_f900_1555_5555, 0x3fff, 0x8000_0000_0000_0000, 0xbffc, 0xb600_0cf3_113b_4ec4),
            (tan, 0x403d, 0xd999_9999_9999_9800, 0x3fff, 0x8000_0000_0000_0000, 0x3fff, 0xe0a9_9c0b_8ebe_e0a4),
            (tan, 0x3feb, 0x8000_0000_0000_0000, 0x3fff, 0x8000_0000_0000_0000, 0x3feb, 0x8000_0000_002a_aaab),
            (f2xm1, 0x3ffe, 0x8000_0000_0000_0000, 0x3fff, 0x8000_0000_0000_0000, 0x3ffd, 0xd413_cccf_e779_9211),
            (f2xm1, 0xbffd, 0xaaaa_aaaa_aaaa_aaab, 0x3fff, 0x8000_0000_0000_0000, 0xbffc, 0xd340_2b58_5238_6faa),
            (f2xm1, 0x3fe1, 0x8970_5f41_36b4_a800, 0x3fff, 0x8000_0000_0000_0000, 0x3fe0, 0xbe87_e58a_6894_5481),
            (f2xm1, 0xbffe, 0xffbe_76c8_b439_5800, 0x3fff, 0x8000_0000_0000_0000, 0xbffd, 0xffd2_8ee3_8656_a7ca),
            (fyl2x, 0x4002, 0xa000_0000_0000_0000, 0x3fff, 0x8000_0000_0000_0000, 0x4000, 0xd49a_784b_cd1b_8afe),
            (fyl2x, 0x3ffd, 0xaaaa_aaaa_aaaa_aaab, 0xc001, 0xe000_0000_0000_0000, 0x4002, 0xb184_0b79_5e2d_db56),
            (fyl2x, 0x3fff, 0x8000_0000_0080_0000, 0x3fff, 0x8000_0000_0000_0000, 0x3fd7, 0xb8aa_3b29_5bbb_9b9e),
            (fyl2x, 0x3ffe, 0xffff_ffff_ffff_fffc, 0x4000, 0xc000_0000_0000_0000, 0xbfc3, 0x8a7f_ac5f_0511_f48e),
            (fyl2x, 0x43e3, 0xbf21_e440_03ac_e000, 0x3c1a, 0xab70_fe17_c79a_c800, 0x3c24, 0xa6d9_b1ce_423b_4a8f),
            (fyl2xp1, 0x3ffd, 0x8000_0000_0000_0000, 0x3fff, 0x8000_0000_0000_0000, 0x3ffd, 0xa4d3_c25e_68dc_57f2),
            (fyl2xp1, 0xbffd, 0x8000_0000_0000_0000, 0x3fff, 0x8000_0000_0000_0000, 0xbffd, 0xd47f_cb8c_0852_f0c1),
            (fyl2xp1, 0x3fd7, 0x8cbc_cc09_6f50_8800, 0x4001, 0xa000_0000_0000_0000, 0x3fd9, 0xfdcd_355f_4edc_a1aa),
            (fyl2xp1, 0xbfcd, 0x901d_7cf7_3ab0_b000, 0xbfff, 0x8000_0000_0000_0000, 0x3fcd, 0xcfea_0d69_8574_2f54),
            (fyl2xp1, 0x3ffd, 0xcccc_cccc_cccc_d000, 0x3fff, 0x8000_0000_0000_0000, 0x3ffd, 0xf889_dd76_982e_e1c0),
            (fpatan, 0x3fff, 0x8000_0000_0000_0000, 0x3fff, 0x8000_0000_0000_0000, 0x3ffe, 0xc90f_daa2_2168_c235),
            (fpatan, 0xbfff, 0x8000_0000_0000_0000, 0x3fff, 0x8000_0000_0000_0000, 0x4000, 0x96cb_e3f9_990e_91a8),
            (fpatan, 0x4000, 0xc000_0000_0000_0000, 0xc000, 0x8000_0000_0000_0000, 0xbffe, 0x9687_56b0_331c_ab69),
            (fpatan, 0x3fee, 0xa7c5_ac47_1b47_8800, 0x3fff, 0x8000_0000_0000_0000, 0x3fff, 0xc90f_86bf_4b45_4093),
            (fpatan, 0xbfff, 0x8000_0000_0000_0000, 0x3fbc, 0xbce5_0864_9211_1800, 0x4000, 0xc90f_daa2_2168_c235),
            (fpatan, 0x4001, 0xe000_0000_0000_0000, 0x3ffe, 0x8000_0000_0000_0000, 0x3ffb, 0x9209_a5e9_b53c_23cd),
        ];
        for (row, (op, xe, xm, ye, ym, re, rm)) in rows.into_iter().enumerate() {
            let (x, y) = (F80 { mant: xm, se: xe }, F80 { mant: ym, se: ye });
            let (v, ex, _) = op(x, y, Env87::default());
            assert_eq!((v, ex), (F80 { mant: rm, se: re }, Ex::PE), "row {row}");
        }
    }
}
