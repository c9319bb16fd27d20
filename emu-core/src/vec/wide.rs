//! Operations on whole 256-bit registers: what crosses the border between the 128-bit lanes.
//!
//! Source: Intel SDM Vol. 2.

use super::{V3, V128, W3};
use crate::cpu::Ymm;

impl W3 {
    /// Flags that hold where they hold for both halves.
    #[inline(always)]
    pub(super) fn both(&self, f: impl Fn(&V3) -> u32) -> u32 {
        let side = |i| f(&V3 { a: half(self.a, i), b: half(self.b, i), c: V128::default() });
        side(0) & side(1)
    }
}

/// Half `i & 1` of a register.
#[inline(always)]
fn half(v: Ymm, i: u8) -> V128 {
    let at = usize::from(i & 1) * 2;
    [v[at], v[at + 1]]
}

#[inline(always)]
fn join(low: V128, high: V128) -> Ymm {
    [low[0], low[1], high[0], high[1]]
}

/// The top bits of `n` lanes a half, by `f`.
#[inline(always)]
pub fn signs(v: Ymm, n: u32, f: impl Fn(V128) -> u64) -> u64 {
    f(half(v, 0)) | f(half(v, 1)) << n
}

/// VPERMQ, VPERMPD.
#[inline]
pub fn quadwords(v: Ymm, imm: u8) -> Ymm {
    std::array::from_fn(|i| v[usize::from(imm >> (2 * i) & 3)])
}

/// VPERMD, VPERMPS: the lane of `b` that each lane of `a` names.
#[inline]
pub fn doublewords(s: &W3) -> Ymm {
    let (index, b): ([u32; 8], [u32; 8]) = (bytemuck::cast(s.a), bytemuck::cast(s.b));
    bytemuck::cast(index.map(|i| b[i as usize & 7]))
}

/// VPERM2F128, VPERM2I128: for each half, one of four or zero.
#[inline]
pub fn halves(s: &W3, imm: u8) -> Ymm {
    let pick = |field: u8| match field {
        _ if field & 8 != 0 => V128::default(),
        _ if field & 2 == 0 => half(s.a, field),
        _ => half(s.b, field),
    };
    join(pick(imm), pick(imm >> 4))
}

/// VINSERTF128, VINSERTI128.
#[inline]
pub fn insert(s: &W3, imm: u8) -> Ymm {
    let (low, x) = (half(s.a, 0), half(s.b, 0));
    if imm & 1 == 0 { join(x, half(s.a, 1)) } else { join(low, x) }
}

/// VEXTRACTF128, VEXTRACTI128.
#[inline]
pub fn extract(v: Ymm, imm: u8) -> Ymm {
    join(half(v, imm), V128::default())
}

/// VBROADCAST…, VPBROADCAST…: the low `n` bytes (1 to 16), everywhere.
#[inline]
pub fn broadcast(v: Ymm, n: u8) -> Ymm {
    let word = match n {
        1 => (v[0] & 0xff) * 0x0101_0101_0101_0101,
        2 => (v[0] & 0xffff) * 0x0001_0001_0001_0001,
        4 => (v[0] & 0xffff_ffff) * 0x0000_0001_0000_0001,
        8 => v[0],
        _ => return join(half(v, 0), half(v, 0)),
    };
    [word; 4]
}

/// The low half of `v`, and that from byte `n` on: sources of two lanes.
#[inline]
pub fn spread(v: Ymm, n: u8) -> Ymm {
    let low = half(v, 0);
    join(low, super::shr_bytes(low, n))
}
