//! Floating-point operations whose meaning is longer than a row: comparisons, horizontal sums, dot
//! products, the two approximations.
//!
//! Source: Intel SDM Vol. 2; Vol. 1, 4.8 and 11.5 through [`crate::fp::sse`].

use super::lanes::{Lane, ZERO, join, lane, settle, split};
use super::{V3, V128};
use crate::flags::{CF, PF, ZF};
use crate::fp::sse::{self, Float};
use crate::fp::{Env, Ex, Order, Round};

/// CMPPS and its like: predicate `imm[4:0]` (table 3-1 of Vol. 2; SSE has the first eight).
#[inline(always)]
pub fn compare<B: Float + Lane>(a: B, b: B, imm: u8, env: Env) -> (B, Ex) {
    /// Outcomes for which predicates 0–15 hold: bit 0 less, 1 equal, 2 greater, 3 unordered. 16
    /// to 31 hold alike and differ in what they signal.
    const HOLDS: [u8; 16] = [2, 1, 3, 8, 13, 14, 12, 7, 10, 9, 11, 0, 5, 6, 4, 15];
    let signaling = matches!(imm & 3, 1 | 2) ^ (imm & 16 != 0);
    let (order, ex) =
        if signaling { sse::cmp_signaling(a, b, env) } else { sse::cmp_quiet(a, b, env) };
    let holds = HOLDS[usize::from(imm & 15)] >> order as u8 & 1 != 0;
    (if holds { B::ONES } else { B::zeroed() }, ex)
}

/// The flags of COMISS, COMISD, UCOMISS, UCOMISD.
#[inline(always)]
pub fn order<B: Float + Lane>(
    s: &V3,
    mxcsr: u32,
    f: impl Fn(B, B, Env) -> (Order, Ex),
) -> (u64, u32, Ex) {
    let (order, ex) = f(lane(s.a, 0), lane(s.b, 0), Env::from_mxcsr(mxcsr));
    let flags = match order {
        Order::Unordered => ZF | PF | CF,
        Order::Equal => ZF,
        Order::Less => CF,
        Order::Greater => 0,
    };
    (0, flags, ex)
}

/// The integer that CVTSS2SI and its like make of lane 0 of `b`, sign-extended.
#[inline(always)]
pub fn to_int<B: Float + Lane, I: Into<i64>>(
    s: &V3,
    mxcsr: u32,
    f: impl Fn(B, Env) -> (I, Ex),
) -> (u64, u32, Ex) {
    let (v, ex) = f(lane(s.b, 0), Env::from_mxcsr(mxcsr));
    (v.into() as u64, 0, ex)
}

/// CVTDQ2PD, CVTSI2SD from 32 bits: exact in every mode.
#[inline(always)]
pub fn exact(v: i32, _: Env) -> (u64, Ex) {
    (f64::from(v).to_bits(), Ex::empty())
}

/// ROUNDPS and its like: mode `imm[1:0]`, or MXCSR's if `imm[2]`; no PE if `imm[3]`.
#[inline(always)]
pub fn round<B: Float>(a: B, imm: u8, env: Env) -> (B, Ex) {
    let mode = if imm & 4 != 0 { env.round } else { Round::from_rc(imm.into()) };
    sse::round_to_int(a, mode, imm & 8 != 0, env)
}

/// The FMA instructions on the first `n` lanes: `a` · `b` + `c`, rounded once. Negated are the
/// product if bit 0 of `imm` is set, `c` in even lanes if bit 1, in odd lanes if bit 2. Bits 5:4
/// name the source whose other lanes stay: 0 `a`, 1 `b`, 2 `c`.
#[inline(always)]
pub fn fused<B: Float + Lane>(s: &V3, n: usize, imm: u8, mxcsr: u32) -> (V128, Ex) {
    let env = Env::from_mxcsr(mxcsr);
    let sign = |x: B, bit: usize| if imm >> bit & 1 != 0 { sse::negate(x) } else { x };
    let (mut r, mut ex) =
        (split::<B>([s.a, s.b, s.c, s.a][usize::from(imm >> 4 & 3)]), Ex::empty());
    for (i, r) in r.as_mut().iter_mut().enumerate().take(n) {
        let (v, e) =
            sse::fma(sign(lane(s.a, i), 0), lane(s.b, i), sign(lane(s.c, i), 1 + (i & 1)), env);
        *r = v;
        ex |= e;
    }
    (join(r), settle(ex, env))
}

/// VCVTPS2PH of one lane: rounded by `imm[1:0]`, or as MXCSR says if `imm[2]`.
#[inline(always)]
pub fn to_half(a: u32, imm: u8, env: Env) -> (u16, Ex) {
    let round = if imm & 4 != 0 { env.round } else { Round::from_rc(imm.into()) };
    sse::f32_to_f16(a, Env { round, ..env })
}

/// ADDSUBPS, ADDSUBPD: differences in the even lanes, sums in the odd ones.
#[inline(always)]
pub fn addsub<B: Float + Lane>(s: &V3, mxcsr: u32) -> (V128, Ex) {
    let (a, b) = (split::<B>(s.a), split::<B>(s.b));
    gather(mxcsr, |i, env| {
        let f = if i & 1 == 0 { sse::sub::<B> } else { sse::add };
        f(a.as_ref()[i], b.as_ref()[i], env)
    })
}

/// `f` of each pair of neighbours in `b`:`a` (HADDPS, HSUBPS…).
#[inline(always)]
pub fn horizontal<B: Float + Lane>(
    s: &V3,
    mxcsr: u32,
    f: impl Fn(B, B, Env) -> (B, Ex),
) -> (V128, Ex) {
    let half = 64 / B::BITS as usize;
    gather(mxcsr, |i, env| {
        let (from, i) = (if i < half { s.a } else { s.b }, 2 * (i % half));
        f(lane(from, i), lane(from, i + 1), env)
    })
}

/// A register of `f` of each lane number.
#[inline(always)]
fn gather<B: Float + Lane>(mxcsr: u32, f: impl Fn(usize, Env) -> (B, Ex)) -> (V128, Ex) {
    let env = Env::from_mxcsr(mxcsr);
    let (mut r, mut ex) = (split::<B>(ZERO), Ex::empty());
    for (i, r) in r.as_mut().iter_mut().enumerate() {
        let (v, e) = f(i, env);
        *r = v;
        ex |= e;
    }
    (join(r), settle(ex, env))
}

/// The first step of DPPS and DPPD: products in the lanes that `imm[7:4]` chooses, zeros in the
/// others.
pub fn products<B: Float + Lane>(s: &V3, imm: u8, mxcsr: u32) -> (V128, Ex) {
    gather(mxcsr, |i, env| match imm >> (4 + i) & 1 {
        0 => (B::zeroed(), Ex::empty()),
        _ => sse::mul::<B>(lane(s.a, i), lane(s.b, i), env),
    })
}

/// RCPPS, RCPSS over the first `n` lanes. The manual bounds the relative error by 1.5 · 2⁻¹²; ours
/// is that of rounding to 12 bits. Nothing is raised; denormal operands count as zeros, and what
/// would be denormal becomes zero.
pub fn rcp(from: V128, into: V128, n: usize) -> V128 {
    approximations(from, into, n, |x| 1.0 / x)
}

/// RSQRTPS, RSQRTSS; see [`rcp`].
pub fn rsqrt(from: V128, into: V128, n: usize) -> V128 {
    approximations(from, into, n, |x| 1.0 / x.sqrt())
}

fn approximations(from: V128, into: V128, n: usize, f: impl Fn(f64) -> f64) -> V128 {
    let (from, mut into) = (split::<u32>(from), split::<u32>(into));
    for (r, x) in into.iter_mut().zip(from).take(n) {
        *r = approximate(x, &f);
    }
    join(into)
}

fn approximate(bits: u32, f: &impl Fn(f64) -> f64) -> u32 {
    let x = f32::from_bits(bits);
    let sign = bits & 0x8000_0000;
    if x.is_nan() {
        return bits | 0x40_0000;
    } else if x == 0.0 || x.is_subnormal() {
        return sign | f32::INFINITY.to_bits();
    }
    let r = f(x.into());
    if r.is_nan() {
        return 0xffc0_0000; // QNaN floating-point indefinite: the root of a negative number
    } else if r.abs() < f64::from(f32::MIN_POSITIVE) {
        return sign;
    }
    // Eleven of the 52 fraction bits stay; a carry into the exponent is right.
    let rounded = f64::from_bits(r.to_bits().wrapping_add(1 << 40) & !((1 << 41) - 1));
    (rounded as f32).to_bits()
}
