//! Integer arithmetic whose meaning is longer than a row: shifts, sums of products, horizontal
//! sums, distances, conversions between lane types.
//!
//! Source: Intel SDM Vol. 2.

use super::lanes::{Lane, ZERO, join, map1, split};
use super::{V3, V128};

/// Each lane shifted by `n`; zero where `n` is the width or more.
#[inline(always)]
pub fn shift<L: Lane>(v: V128, n: u64, f: impl Fn(L, u32) -> L) -> V128 {
    if n < u64::from(L::BITS) { map1(v, |x| f(x, n as u32)) } else { ZERO }
}

/// Each lane shifted right arithmetically: `n` is at most the width less one.
#[inline(always)]
pub fn shift_arithmetic<L: Lane>(v: V128, n: u64, f: impl Fn(L, u32) -> L) -> V128 {
    let n = n.min(u64::from(L::BITS - 1)) as u32;
    map1(v, |x| f(x, n))
}

/// PSLLDQ: shifted left by `n` bytes.
#[inline]
pub fn shl_bytes(v: V128, n: u8) -> V128 {
    join(wide(v).checked_shl(8 * u32::from(n)).unwrap_or(0))
}

/// PSRLDQ: shifted right by `n` bytes.
#[inline]
pub fn shr_bytes(v: V128, n: u8) -> V128 {
    join(wide(v).checked_shr(8 * u32::from(n)).unwrap_or(0))
}

/// PALIGNR: 16 bytes of `a`:`b`, from byte `n` of it.
#[inline]
pub fn align(s: &V3, n: u8) -> V128 {
    let (low, high) = (shr_bytes(s.b, n), shl_bytes(s.a, 16u8.saturating_sub(n)));
    if n <= 16 { [low[0] | high[0], low[1] | high[1]] } else { shr_bytes(s.a, n - 16) }
}

/// PALIGNR of MMX: 8 bytes of the 16 in the low words.
#[inline]
pub fn align64(s: &V3, n: u8) -> V128 {
    shr_bytes([s.b[0], s.a[0]], n)
}

fn wide(v: V128) -> u128 {
    bytemuck::cast(v)
}

/// A sum of two products for each lane of the result (PMADDWD, PMADDUBSW).
#[inline(always)]
pub fn sum_of_products<A: Lane, B: Lane, R: Lane>(s: &V3, f: impl Fn([A; 2], [B; 2]) -> R) -> V128 {
    let (a, b, mut r) = (split::<A>(s.a), split::<B>(s.b), split::<R>(ZERO));
    let pairs = a.as_ref().as_chunks().0.iter().zip(b.as_ref().as_chunks().0);
    for (r, (a, b)) in r.as_mut().iter_mut().zip(pairs) {
        *r = f(*a, *b);
    }
    join(r)
}

/// `f` of each pair of neighbours in `b`:`a` (PHADDW, PHSUBW…).
#[inline(always)]
pub fn horizontal<L: Lane>(s: &V3, f: impl Fn(L, L) -> L) -> V128 {
    let (a, b, mut r) = (split::<L>(s.a), split::<L>(s.b), split::<L>(ZERO));
    let pairs = a.as_ref().as_chunks::<2>().0.iter().chain(b.as_ref().as_chunks::<2>().0);
    for (r, [x, y]) in r.as_mut().iter_mut().zip(pairs) {
        *r = f(*x, *y);
    }
    join(r)
}

/// The lanes of `a`, then those of `b`, each narrowed by `f` (PACKSSWB…).
#[inline(always)]
pub fn pack<W: Lane, N: Lane>(s: &V3, f: impl Fn(W) -> N) -> V128 {
    let (a, b, mut r) = (split::<W>(s.a), split::<W>(s.b), split::<N>(ZERO));
    let (low, high) = r.as_mut().split_at_mut(a.as_ref().len());
    for (half, from) in [(low, a), (high, b)] {
        for (r, x) in half.iter_mut().zip(from.as_ref()) {
            *r = f(*x);
        }
    }
    join(r)
}

/// For an MMX form of an op that takes lanes from `a`, then from `b`: both low words in `a`, so
/// that the low word of the result is the MMX result.
#[inline(always)]
pub fn low_words(s: &V3) -> V3 {
    V3 { a: [s.a[0], s.b[0]], ..*s }
}

/// The low lanes of `b`, each extended to the lane type of the result (PMOVSX, PMOVZX).
#[inline(always)]
pub fn extend<N: Lane, W: Lane + From<N>>(s: &V3) -> V128 {
    let (b, mut r) = (split::<N>(s.b), split::<W>(ZERO));
    for (r, x) in r.as_mut().iter_mut().zip(b.as_ref()) {
        *r = W::from(*x);
    }
    join(r)
}

/// Signed word cut to a signed byte with saturation.
#[inline(always)]
pub fn i16_to_i8(x: i16) -> i8 {
    x.clamp(i8::MIN.into(), i8::MAX.into()) as i8
}

/// Signed word cut to an unsigned byte with saturation.
#[inline(always)]
pub fn i16_to_u8(x: i16) -> u8 {
    x.clamp(0, u8::MAX.into()) as u8
}

/// Signed doubleword cut to a signed word with saturation.
#[inline(always)]
pub fn i32_to_i16(x: i32) -> i16 {
    x.clamp(i16::MIN.into(), i16::MAX.into()) as i16
}

/// Signed doubleword cut to an unsigned word with saturation.
#[inline(always)]
pub fn i32_to_u16(x: i32) -> u16 {
    x.clamp(0, u16::MAX.into()) as u16
}

/// PMADDWD of one doubleword.
#[inline(always)]
pub fn madd_words(a: [i16; 2], b: [i16; 2]) -> i32 {
    let p = [0, 1].map(|i| i32::from(a[i]) * i32::from(b[i]));
    p[0].wrapping_add(p[1])
}

/// PMADDUBSW of one word: unsigned bytes of `a`, signed bytes of `b`.
#[inline(always)]
pub fn madd_bytes(a: [u8; 2], b: [i8; 2]) -> i16 {
    let p = [0, 1].map(|i| i32::from(a[i]) * i32::from(b[i]));
    i32_to_i16(p[0] + p[1])
}

/// PMULHRSW of one word: the high part of the product, rounded.
#[inline(always)]
pub fn mul_high_round(x: i16, y: i16) -> i16 {
    ((((i32::from(x) * i32::from(y)) >> 14) + 1) >> 1) as i16
}

/// PSADBW: in each half, the sum of the absolute differences of the bytes.
#[inline]
pub fn sum_of_differences(s: &V3) -> V128 {
    std::array::from_fn(|i| {
        let bytes = s.a[i].to_le_bytes().into_iter().zip(s.b[i].to_le_bytes());
        bytes.map(|(x, y)| u64::from(x.abs_diff(y))).sum()
    })
}

/// MPSADBW: distances of four bytes of `b`, chosen by bits 1:0 of `imm`, to four bytes at each of
/// eight neighbouring places of `a`, the first chosen by bit 2.
#[inline]
pub fn distances(s: &V3, imm: u8) -> V128 {
    let (a, b) = (split::<u8>(s.a), split::<u8>(s.b));
    let (at_a, at_b) = (4 * usize::from(imm >> 2 & 1), 4 * usize::from(imm & 3));
    join::<[u16; 8]>(std::array::from_fn(|i| {
        (0..4).map(|k| u16::from(a[at_a + i + k].abs_diff(b[at_b + k]))).sum()
    }))
}

/// PHMINPOSUW: the least word of `b`, and in the next word its first place.
#[inline]
pub fn least_word(s: &V3) -> V128 {
    let b = split::<u16>(s.b);
    let (at, least) = (0u64..).zip(b).min_by_key(|(_, x)| *x).unwrap_or_default();
    [u64::from(least) | at << 16, 0]
}

/// The top bit of each lane (PMOVMSKB, MOVMSKPS, MOVMSKPD).
#[inline(always)]
pub fn sign_bits<L: Lane + PartialOrd>(v: V128) -> u64 {
    let v = split::<L>(v);
    (0..).zip(v.as_ref()).fold(0, |r, (i, x)| r | u64::from(*x < L::zeroed()) << i)
}
