//! Lanes moved about: shuffles, interleaves, blends, single lanes.
//!
//! Source: Intel SDM Vol. 2.

use super::lanes::{Lane, ZERO, join, lane, split};
use super::{V3, V128};

/// The lanes of `x` and `y` by turns (PUNPCKL…, and PUNPCKH… of the high words).
#[inline(always)]
pub fn interleave<L: Lane>(x: u64, y: u64) -> V128 {
    let (x, y, mut r) = (split::<L>([x, 0]), split::<L>([y, 0]), split::<L>(ZERO));
    let pairs = x.as_ref().iter().zip(y.as_ref());
    for ([low, high], (x, y)) in r.as_mut().as_chunks_mut().0.iter_mut().zip(pairs) {
        (*low, *high) = (*x, *y);
    }
    join(r)
}

/// PSHUFB: the byte of `a` that each byte of `b` names, or zero if its bit 7 is set.
#[inline]
pub fn bytes(s: &V3) -> V128 {
    let (a, b) = (split::<u8>(s.a), split::<u8>(s.b));
    join(b.map(|i| if i & 0x80 == 0 { a[usize::from(i & 15)] } else { 0 }))
}

/// PSHUFB of MMX: indices have three bits.
#[inline]
pub fn bytes64(s: &V3) -> V128 {
    bytes(&V3 { b: s.b.map(|w| w & 0x8787_8787_8787_8787), ..*s })
}

/// Field `i` of an immediate made of 2-bit lane numbers.
#[inline(always)]
fn pick(imm: u8, i: usize) -> usize {
    usize::from(imm >> (2 * i) & 3)
}

/// PSHUFD.
#[inline]
pub fn doublewords(v: V128, imm: u8) -> V128 {
    join::<[u32; 4]>(std::array::from_fn(|i| lane(v, pick(imm, i))))
}

/// Four words (PSHUFW, the half that PSHUFLW and PSHUFHW change).
#[inline]
pub fn words(w: u64, imm: u8) -> u64 {
    (0..4).fold(0, |r, i| r | (w >> (16 * pick(imm, i)) & 0xffff) << (16 * i))
}

/// SHUFPS: two lanes of `a`, then two of `b`.
#[inline]
pub fn shufps(s: &V3, imm: u8) -> V128 {
    let from = |i: usize| if i < 2 { s.a } else { s.b };
    join::<[u32; 4]>(std::array::from_fn(|i| lane(from(i), pick(imm, i))))
}

/// SHUFPD.
#[inline]
pub fn shufpd(s: &V3, imm: u8) -> V128 {
    [s.a[usize::from(imm & 1)], s.b[usize::from(imm >> 1 & 1)]]
}

/// VPERMILPS: the lane of `a` that bits 1:0 of each lane of `b` name.
#[inline]
pub fn permute_singles(s: &V3) -> V128 {
    join(split::<u32>(s.b).map(|i| lane::<u32>(s.a, i as usize & 3)))
}

/// VPERMILPD: the lane of `a` that bit 1 of each lane of `b` names.
#[inline]
pub fn permute_doubles(s: &V3) -> V128 {
    s.b.map(|i| s.a[i as usize >> 1 & 1])
}

/// The lanes of `b` whose bit in `imm` is set, the others of `a` (PBLENDW, BLENDPS, BLENDPD).
#[inline(always)]
pub fn blend<L: Lane>(s: &V3, imm: u8) -> V128 {
    select::<L>(s, |i| imm >> i & 1 != 0)
}

/// The lanes of `b` whose top bit in `c` is set, the others of `a` (PBLENDVB, BLENDVPS, BLENDVPD).
#[inline(always)]
pub fn blend_variable<L: Lane + PartialOrd>(s: &V3) -> V128 {
    let c = split::<L>(s.c);
    select::<L>(s, |i| c.as_ref()[i] < L::zeroed())
}

#[inline(always)]
fn select<L: Lane>(s: &V3, from_b: impl Fn(usize) -> bool) -> V128 {
    let (mut a, b) = (split::<L>(s.a), split::<L>(s.b));
    for (i, (x, y)) in a.as_mut().iter_mut().zip(b.as_ref()).enumerate() {
        if from_b(i) {
            *x = *y;
        }
    }
    join(a)
}

/// INSERTPS: lane `imm[7:6]` of `b` into lane `imm[5:4]` of `a`, then the lanes in `imm[3:0]`
/// cleared. (The form with a memory operand takes lane 0.)
#[inline]
pub fn insertps(s: &V3, imm: u8) -> V128 {
    let mut r = split::<u32>(s.a);
    r[pick(imm, 2)] = lane(s.b, pick(imm, 3));
    join::<[u32; 4]>(std::array::from_fn(|i| if imm >> i & 1 == 0 { r[i] } else { 0 }))
}
