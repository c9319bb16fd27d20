//! Lanes of a 128-bit register, and the maps over them that all families are written with.
//!
//! A register is cast to an array of its lanes, lowest first, and back; both are free, and a map
//! over arrays of known length becomes the host's vector instruction wherever it has one.

use super::{V3, V128};
use crate::fp::{Env, Ex};
use bytemuck::Pod;

#[cfg(target_endian = "big")]
compile_error!("lane 0 is taken to be the first in memory");

/// The register with all bits clear.
pub const ZERO: V128 = [0; 2];

/// A type of lanes.
pub trait Lane: Pod {
    /// All lanes of a register.
    type All: Pod + AsRef<[Self]> + AsMut<[Self]>;
    /// The lane with all bits set: "true" as comparisons give it.
    const ONES: Self;
    /// Width in bits.
    const BITS: u32;
}

macro_rules! lane_types {
    ($($lane:ty, $count:literal, $ones:expr;)*) => {$(
        impl Lane for $lane {
            type All = [$lane; $count];
            const ONES: $lane = $ones;
            const BITS: u32 = <$lane>::BITS;
        }
    )*};
}

lane_types! {
    u8, 16, !0;
    i8, 16, !0;
    u16, 8, !0;
    i16, 8, !0;
    u32, 4, !0;
    i32, 4, !0;
    u64, 2, !0;
    i64, 2, !0;
}

/// The lanes of a register.
#[inline(always)]
pub fn split<L: Lane>(v: V128) -> L::All {
    bytemuck::cast(v)
}

/// The register with these lanes.
#[inline(always)]
pub fn join<T: Pod>(lanes: T) -> V128 {
    bytemuck::cast(lanes)
}

/// Lane `i` of a register.
#[inline(always)]
pub fn lane<L: Lane>(v: V128, i: usize) -> L {
    split::<L>(v).as_ref()[i]
}

/// `f` of each lane of `v`.
#[inline(always)]
pub fn map1<L: Lane>(v: V128, f: impl Fn(L) -> L) -> V128 {
    let mut v = split::<L>(v);
    for x in v.as_mut() {
        *x = f(*x);
    }
    join(v)
}

/// `f` of each pair of lanes of `s.a` and `s.b`.
#[inline(always)]
pub fn map2<L: Lane>(s: &V3, f: impl Fn(L, L) -> L) -> V128 {
    let (mut a, b) = (split::<L>(s.a), split::<L>(s.b));
    for (x, &y) in a.as_mut().iter_mut().zip(b.as_ref()) {
        *x = f(*x, y);
    }
    join(a)
}

/// All ones where the comparison holds.
#[inline(always)]
pub fn compare<L: Lane>(s: &V3, holds: impl Fn(L, L) -> bool) -> V128 {
    map2(s, |x, y| if holds(x, y) { L::ONES } else { L::zeroed() })
}

/// `f` of the first `n` lanes of `from`, over the first lanes of `into`; the flags of all of them.
#[inline(always)]
pub fn float1<A: Lane, B: Lane>(
    from: V128,
    into: V128,
    n: usize,
    mxcsr: u32,
    f: impl Fn(A, Env) -> (B, Ex),
) -> (V128, Ex) {
    let env = Env::from_mxcsr(mxcsr);
    let (from, mut into, mut ex) = (split::<A>(from), split::<B>(into), Ex::empty());
    for (x, r) in from.as_ref().iter().zip(into.as_mut()).take(n) {
        let (v, e) = f(*x, env);
        *r = v;
        ex |= e;
    }
    (join(into), settle(ex, env))
}

/// `f` of the first `n` pairs of lanes of `s.a` and `s.b`, the other lanes as in `s.a`.
#[inline(always)]
pub fn float2<L: Lane>(
    s: &V3,
    n: usize,
    mxcsr: u32,
    f: impl Fn(L, L, Env) -> (L, Ex),
) -> (V128, Ex) {
    let env = Env::from_mxcsr(mxcsr);
    let (mut a, b, mut ex) = (split::<L>(s.a), split::<L>(s.b), Ex::empty());
    for (x, &y) in a.as_mut().iter_mut().zip(b.as_ref()).take(n) {
        let (v, e) = f(*x, y, env);
        *x = v;
        ex |= e;
    }
    (join(a), settle(ex, env))
}

/// The flags of all lanes together: if one lane has an unmasked exception before its computation,
/// no lane is computed (SDM Vol. 1, 11.5.4).
#[inline(always)]
pub fn settle(ex: Ex, env: Env) -> Ex {
    if ex.suppresses(env.unmasked) { ex & Ex::PRE } else { ex }
}
