//! binary32 and binary64 as SSE and AVX compute them.
//!
//! Operands and results are bit patterns, `u32` for binary32 and `u64` for binary64; every
//! function takes what MXCSR says as an [`Env`] and returns the exceptions it raised. If one of
//! them is unmasked, the instruction must not write its destination; the value returned is then
//! without meaning.
//!
//! Source: Intel SDM Vol. 1, 4.8.3.5 (table 4-7), 11.5, 14.5.2; Vol. 2 for each instruction.

use super::num::{self, DOUBLE, Format, HALF, INVALID, Kind, Num, Outcome, SINGLE, Value};
use super::{Env, Ex, Order, Round, quick};

/// A bit pattern of one of the two formats.
pub trait Float: Copy + Eq + quick::Quick {
    /// The format it is in.
    const FORMAT: Format;
    /// The pattern as a 64-bit number.
    fn to_bits(self) -> u64;
    /// The pattern in the low bits of a number.
    fn from_bits(bits: u64) -> Self;
}

impl Float for u32 {
    const FORMAT: Format = SINGLE;
    #[inline]
    fn to_bits(self) -> u64 {
        self as u64
    }
    #[inline]
    fn from_bits(bits: u64) -> u32 {
        bits as u32
    }
}

impl Float for u64 {
    const FORMAT: Format = DOUBLE;
    #[inline]
    fn to_bits(self) -> u64 {
        self
    }
    #[inline]
    fn from_bits(bits: u64) -> u64 {
        bits
    }
}

impl Float for u16 {
    const FORMAT: Format = HALF;
    #[inline]
    fn to_bits(self) -> u64 {
        self as u64
    }
    #[inline]
    fn from_bits(bits: u64) -> u16 {
        bits as u16
    }
}

/// Takes an operand apart under DAZ.
#[inline]
fn unpack<B: Float>(a: B, env: Env) -> Num {
    Num::unpack(B::FORMAT, a.to_bits()).daz(env.daz)
}

/// Puts sign, biased exponent and left-aligned significand together.
#[inline]
pub(super) fn encode<B: Float>(sign: bool, biased: u32, sig: u64) -> B {
    let f = B::FORMAT;
    let exp_bits = (f.emax + 1).trailing_zeros() + 1;
    let frac = sig << 1 >> (65 - f.prec);
    let head = (sign as u64) << exp_bits | biased as u64 & ((1 << exp_bits) - 1);
    B::from_bits(head << (f.prec - 1) | frac)
}

/// Rounds and encodes a result.
#[inline]
fn finish<B: Float>((value, ex): Outcome, env: Env) -> (B, Ex) {
    let max = (2 * B::FORMAT.emax + 1) as u32;
    let (bits, ex) = match value {
        Value::Num(w) => {
            let r = num::round(B::FORMAT, w, env.round, env.ftz, env.unmasked);
            (encode(w.sign, r.biased, r.sig), ex | r.ex)
        }
        Value::Inf(sign) => (encode(sign, max, 0), ex),
        Value::Nan { sign, sig } => (encode(sign, max, sig), ex),
    };
    (bits, ex.visible(env.unmasked))
}

/// The NaN that results if one of the operands is one: the first NaN of the list, made quiet. A
/// `QNaN` operand comes before DE (SDM Vol. 1, 4.9.2).
#[inline]
fn nan(operands: &[Num]) -> Option<Outcome> {
    let first = operands.iter().find(|n| n.is_nan())?;
    let signaling = operands.iter().any(|n| n.is_snan());
    Some((first.quieted(), Ex::IE.when(signaling)))
}

/// ADDSS, ADDSD.
#[inline]
pub fn add<B: Float>(a: B, b: B, env: Env) -> (B, Ex) {
    if env.round == Round::Nearest
        && let Some(done) = B::quick_add(a, b)
    {
        return done;
    }
    exact_add(a, b, env)
}

fn exact_add<B: Float>(a: B, b: B, env: Env) -> (B, Ex) {
    let (x, y) = (unpack(a, env), unpack(b, env));
    finish(nan(&[x, y]).unwrap_or_else(|| num::add(x, y, env.round)), env)
}

/// SUBSS, SUBSD: `a` − `b`.
#[inline]
pub fn sub<B: Float>(a: B, b: B, env: Env) -> (B, Ex) {
    if env.round == Round::Nearest
        && let Some(done) = B::quick_sub(a, b)
    {
        return done;
    }
    exact_sub(a, b, env)
}

fn exact_sub<B: Float>(a: B, b: B, env: Env) -> (B, Ex) {
    let (x, y) = (unpack(a, env), unpack(b, env));
    finish(nan(&[x, y]).unwrap_or_else(|| num::add(x, y.neg(), env.round)), env)
}

/// MULSS, MULSD.
#[inline]
pub fn mul<B: Float>(a: B, b: B, env: Env) -> (B, Ex) {
    if env.round == Round::Nearest
        && let Some(done) = B::quick_mul(a, b)
    {
        return done;
    }
    exact_mul(a, b, env)
}

fn exact_mul<B: Float>(a: B, b: B, env: Env) -> (B, Ex) {
    let (x, y) = (unpack(a, env), unpack(b, env));
    finish(nan(&[x, y]).unwrap_or_else(|| num::mul(x, y)), env)
}

/// DIVSS, DIVSD: `a` / `b`.
#[inline]
pub fn div<B: Float>(a: B, b: B, env: Env) -> (B, Ex) {
    if env.round == Round::Nearest
        && let Some(done) = B::quick_div(a, b)
    {
        return done;
    }
    exact_div(a, b, env)
}

fn exact_div<B: Float>(a: B, b: B, env: Env) -> (B, Ex) {
    let (x, y) = (unpack(a, env), unpack(b, env));
    finish(nan(&[x, y]).unwrap_or_else(|| num::div(x, y)), env)
}

/// SQRTSS, SQRTSD.
#[inline]
pub fn sqrt<B: Float>(a: B, env: Env) -> (B, Ex) {
    if env.round == Round::Nearest
        && let Some(done) = B::quick_sqrt(a)
    {
        return done;
    }
    exact_sqrt(a, env)
}

fn exact_sqrt<B: Float>(a: B, env: Env) -> (B, Ex) {
    let x = unpack(a, env);
    finish(nan(&[x]).unwrap_or_else(|| num::sqrt(x)), env)
}

/// The fused `a` · `b` + `c` of FMA, rounded once. Of several NaN operands the first in this order
/// results, so the order of the instruction's operands matters: VFMADD132 is (op1, op3, op2),
/// VFMADD213 is (op2, op1, op3), VFMADD231 is (op2, op3, op1). VFNMADD negates `a`, VFMSUB `c`,
/// by [`negate`].
#[inline]
pub fn fma<B: Float>(a: B, b: B, c: B, env: Env) -> (B, Ex) {
    let (x, y, z) = (unpack(a, env), unpack(b, env), unpack(c, env));
    let outcome = nan(&[x, y, z]).unwrap_or_else(|| {
        let de = x.de() | y.de() | z.de();
        match num::mul(x, y) {
            (Value::Num(w), _) if z.kind != Kind::Inf => {
                (Value::Num(w.add(z.wide(), env.round)), de)
            }
            (Value::Inf(sign), _) if z.kind == Kind::Inf && z.sign != sign => INVALID,
            (Value::Inf(sign), _) => (Value::Inf(sign), de),
            (Value::Num(_), _) => (Value::Inf(z.sign), de),
            invalid => invalid,
        }
    });
    finish(outcome, env)
}

/// The operand with its sign changed, unless it is a NaN: how FNMADD and its like negate.
#[inline]
pub fn negate<B: Float>(a: B) -> B {
    let x = Num::unpack(B::FORMAT, a.to_bits());
    let top = if B::FORMAT == SINGLE { 31 } else { 63 };
    B::from_bits(a.to_bits() ^ (!x.is_nan() as u64) << top)
}

/// MINSS, MINSD: `b` if either operand is a NaN (with IE, even for a `QNaN`) or both are zeros.
#[inline]
pub fn min<B: Float>(a: B, b: B, env: Env) -> (B, Ex) {
    let (order, ex) = cmp_signaling(a, b, env);
    (flush(if order == Order::Less { a } else { b }, env), ex)
}

/// MAXSS, MAXSD: `b` if either operand is a NaN (with IE, even for a `QNaN`) or both are zeros.
#[inline]
pub fn max<B: Float>(a: B, b: B, env: Env) -> (B, Ex) {
    let (order, ex) = cmp_signaling(a, b, env);
    (flush(if order == Order::Greater { a } else { b }, env), ex)
}

/// The operand itself, or the zero DAZ makes of it.
#[inline]
fn flush<B: Float>(a: B, env: Env) -> B {
    let x = Num::unpack(B::FORMAT, a.to_bits());
    if env.daz && x.denormal { encode(x.sign, 0, 0) } else { a }
}

/// Compares operands of which none is a NaN.
#[inline]
pub(super) fn order(a: Num, b: Num) -> Order {
    // Infinities and zeros take part with exponents beyond those of finite numbers.
    let key = |n: Num| {
        let exp = if n.kind == Kind::Inf { i32::MAX } else { n.exp };
        (exp, n.sig)
    };
    if a.kind == Kind::Zero && b.kind == Kind::Zero {
        return Order::Equal;
    }
    let magnitude = key(a).cmp(&key(b));
    let ordering = match (a.sign, b.sign) {
        (false, false) => magnitude,
        (true, true) => magnitude.reverse(),
        (true, false) => std::cmp::Ordering::Less,
        (false, true) => std::cmp::Ordering::Greater,
    };
    match ordering {
        std::cmp::Ordering::Less => Order::Less,
        std::cmp::Ordering::Equal => Order::Equal,
        std::cmp::Ordering::Greater => Order::Greater,
    }
}

/// UCOMISS, UCOMISD and the quiet predicates of CMPSS: IE for a signaling NaN only.
#[inline]
pub fn cmp_quiet<B: Float>(a: B, b: B, env: Env) -> (Order, Ex) {
    let (x, y) = (unpack(a, env), unpack(b, env));
    match nan(&[x, y]) {
        Some((_, ex)) => (Order::Unordered, ex),
        None => (order(x, y), x.de() | y.de()),
    }
}

/// COMISS, COMISD and the signaling predicates of CMPSS: IE for any NaN.
#[inline]
pub fn cmp_signaling<B: Float>(a: B, b: B, env: Env) -> (Order, Ex) {
    match cmp_quiet(a, b, env) {
        (Order::Unordered, _) => (Order::Unordered, Ex::IE),
        ordered => ordered,
    }
}

/// ROUNDSS, ROUNDSD: to an integer in the same format by the mode given, without PE if
/// `suppress_inexact`. DE is never raised.
#[inline]
pub fn round_to_int<B: Float>(a: B, round: Round, suppress_inexact: bool, env: Env) -> (B, Ex) {
    let x = unpack(a, env);
    if let Some(outcome) = nan(&[x]) {
        return finish(outcome, env);
    }
    match x.to_int(round) {
        Some((mag, inexact, _)) if inexact => {
            let sum = num::Wide::normalised(x.sign, 127, mag);
            let (bits, _) = finish((Value::Num(sum), Ex::empty()), env);
            (bits, Ex::PE.when(!suppress_inexact))
        }
        // An integer already, or an infinity.
        _ => (flush(a, env), Ex::empty()),
    }
}

/// CVTSS2SD.
#[inline]
pub fn f32_to_f64(a: u32, env: Env) -> (u64, Ex) {
    convert(a, env)
}

/// CVTSD2SS.
#[inline]
pub fn f64_to_f32(a: u64, env: Env) -> (u32, Ex) {
    convert(a, env)
}

/// VCVTPH2PS. DAZ does not matter, and DE is not raised (SDM Vol. 1, 14.4.1).
#[inline]
pub fn f16_to_f32(a: u16, env: Env) -> (u32, Ex) {
    let unmasked = env.unmasked - Ex::DE;
    let (v, ex) = convert(a, Env { daz: false, unmasked, ..env });
    (v, ex - Ex::DE)
}

/// VCVTPS2PH. FTZ does not matter (SDM Vol. 1, 14.4.1).
#[inline]
pub fn f32_to_f16(a: u32, env: Env) -> (u16, Ex) {
    convert(a, Env { ftz: false, ..env })
}

#[inline]
fn convert<A: Float, B: Float>(a: A, env: Env) -> (B, Ex) {
    let x = unpack(a, env);
    let outcome = nan(&[x]).unwrap_or_else(|| match x.kind {
        Kind::Inf => (Value::Inf(x.sign), Ex::empty()),
        _ => (Value::Num(x.wide()), x.de()),
    });
    finish(outcome, env)
}

/// An integer of `bits` bits by the mode given, or the integer indefinite (the most negative
/// number) and IE if it is out of range. DE is never raised.
#[inline]
fn to_int<B: Float>(a: B, bits: u32, round: Round, env: Env) -> (i64, Ex) {
    let x = unpack(a, env);
    let limit = 1u128 << (bits - 1);
    match x.to_int(round) {
        Some((mag, inexact, _)) if mag < limit || mag == limit && x.sign => {
            let v = mag as i64;
            let ex = Ex::PE.when(inexact);
            (if x.sign { v.wrapping_neg() } else { v }, ex)
        }
        _ => ((limit as i64).wrapping_neg(), Ex::IE),
    }
}

/// CVTSS2SI, CVTSD2SI to 32 bits.
#[inline]
pub fn to_i32<B: Float>(a: B, env: Env) -> (i32, Ex) {
    let (v, ex) = to_int(a, 32, env.round, env);
    (v as i32, ex)
}

/// CVTSS2SI, CVTSD2SI to 64 bits.
#[inline]
pub fn to_i64<B: Float>(a: B, env: Env) -> (i64, Ex) {
    to_int(a, 64, env.round, env)
}

/// CVTTSS2SI, CVTTSD2SI to 32 bits.
#[inline]
pub fn to_i32_trunc<B: Float>(a: B, env: Env) -> (i32, Ex) {
    let (v, ex) = to_int(a, 32, Round::Zero, env);
    (v as i32, ex)
}

/// CVTTSS2SI, CVTTSD2SI to 64 bits.
#[inline]
pub fn to_i64_trunc<B: Float>(a: B, env: Env) -> (i64, Ex) {
    to_int(a, 64, Round::Zero, env)
}

/// CVTSI2SS, CVTSI2SD from 32 bits.
#[inline]
pub fn from_i32<B: Float>(v: i32, env: Env) -> (B, Ex) {
    from_i64(v as i64, env)
}

/// CVTSI2SS, CVTSI2SD from 64 bits.
#[inline]
pub fn from_i64<B: Float>(v: i64, env: Env) -> (B, Ex) {
    finish((Value::Num(Num::from_int(v).wide()), Ex::empty()), env)
}

#[cfg(test)]
mod tests {
    use super::super::sample::Sample;
    use super::*;
    use std::fmt::LowerHex;

    type Quick<B> = fn(B, B) -> Option<(B, Ex)>;
    type Exact<B> = fn(B, B, Env) -> (B, Ex);

    /// The quick path against the exact one, on operands where quick answers are frequent.
    #[test]
    fn quick_is_exact() {
        fn run<B: Float + LowerHex>() {
            let ops: [(&str, Quick<B>, Exact<B>); 5] = [
                ("add", B::quick_add, exact_add),
                ("sub", B::quick_sub, exact_sub),
                ("mul", B::quick_mul, exact_mul),
                ("div", B::quick_div, exact_div),
                ("sqrt", |a, _| B::quick_sqrt(a), |a, _, env| exact_sqrt(a, env)),
            ];
            for (name, quick, exact) in ops {
                let (mut s, mut answered) = (Sample::new(7), 0);
                for _ in 0..300_000 {
                    let (a, b) = s.pair(B::FORMAT);
                    let (a, b) = (B::from_bits(a), B::from_bits(b));
                    if let Some((r, ex)) = quick(a, b) {
                        answered += 1;
                        let (want, flags) = exact(a, b, Env::default());
                        assert!(r == want && ex == flags, "{name} {a:#x} {b:#x}: {r:#x} {ex:?}");
                    }
                }
                assert!(answered > 50_000, "{name}: only {answered} quick answers");
            }
        }
        run::<u32>();
        run::<u64>();
    }

    /// On any host, IEEE 754 arithmetic is an oracle for results rounded to nearest.
    #[test]
    fn results_as_rust() {
        let (mut s, env) = (Sample::new(8), Env::default());
        let same = |got: u64, want: f64, at: (u64, u64)| {
            let nan = Num::unpack(DOUBLE, got).is_nan() && want.is_nan();
            assert!(nan || got == want.to_bits(), "{at:x?}: {got:#x}, Rust {:#x}", want.to_bits());
        };
        for _ in 0..250_000 {
            let at @ (a, b) = s.pair(DOUBLE);
            let (x, y) = (f64::from_bits(a), f64::from_bits(b));
            same(exact_add(a, b, env).0, x + y, at);
            same(exact_sub(a, b, env).0, x - y, at);
            same(exact_mul(a, b, env).0, x * y, at);
            same(exact_div(a, b, env).0, x / y, at);
            same(exact_sqrt(a, env).0, x.sqrt(), at);
            same(round_to_int(a, Round::Nearest, false, env).0, x.round_ties_even(), at);
            if !x.is_nan() {
                assert_eq!(f64_to_f32(a, env).0, (x as f32).to_bits(), "{a:#x}");
            }
        }
    }
}
