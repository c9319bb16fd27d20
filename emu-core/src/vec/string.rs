//! SSE4.2 string comparison: PCMPESTRI, PCMPESTRM, PCMPISTRI, PCMPISTRM.
//!
//! Both operands are strings of bytes or words with a length each: explicit, or up to the first
//! zero. Every character of one is compared with every character of the other; an aggregation
//! makes of that a bit for each character of the second, which the four instructions report as an
//! index or as a mask.
//!
//! Source: Intel SDM Vol. 2, 4.1 (imm8: 4.1.1–4.1.5; characters beyond the end: 4.1.6; flags:
//! 4.1.8).

use super::lanes::{join, split};
use super::{V3, V128};
use crate::flags::{CF, OF, SF, ZF};

/// A string of at most 16 characters.
struct Text {
    chars: [i32; 16],
    /// Characters in it.
    len: usize,
}

/// Which kind of length the instruction has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// In EAX or RAX and EDX or RDX, which are handed in as `c[0]` and `c[1]`, sign-extended.
    Explicit,
    /// Up to the first zero.
    Implicit,
}

impl Text {
    fn new(v: V128, imm: u8, explicit: Option<u64>) -> Text {
        let mut chars = [0; 16];
        match imm & 3 {
            0 => widen(&mut chars, split::<u8>(v)),
            1 => widen(&mut chars, split::<u16>(v)),
            2 => widen(&mut chars, split::<i8>(v)),
            _ => widen(&mut chars, split::<i16>(v)),
        }
        let n = capacity(imm);
        let len = match explicit {
            Some(x) => (x as i64).unsigned_abs().min(n as u64) as usize,
            None => chars[..n].iter().position(|c| *c == 0).unwrap_or(n),
        };
        Text { chars, len }
    }
}

fn widen<T: Into<i32>, const N: usize>(to: &mut [i32; 16], from: [T; N]) {
    for (to, x) in to.iter_mut().zip(from) {
        *to = x.into();
    }
}

/// Characters in an operand: 16 bytes or 8 words.
fn capacity(imm: u8) -> usize {
    if imm & 1 == 0 { 16 } else { 8 }
}

/// `IntRes2` (a bit for each character of `b`) and the flags.
fn compare(s: &V3, imm: u8, length: Length) -> (u32, u32) {
    let explicit = |i: usize| (length == Length::Explicit).then_some(s.c[i]);
    let (a, b) = (Text::new(s.a, imm, explicit(0)), Text::new(s.b, imm, explicit(1)));
    let n = capacity(imm);
    let all = (1 << n) - 1;
    let bits = |f: &dyn Fn(usize) -> bool| (0..n).fold(0u32, |r, j| r | u32::from(f(j)) << j);

    let int_res_1 = match imm >> 2 & 3 {
        // Equal any: is the character in the set?
        0 => bits(&|j| j < b.len && a.chars[..a.len].contains(&b.chars[j])),
        // Ranges: is it in one of the ranges? A range without its upper end does not count.
        1 => bits(&|j| {
            let ranges = a.chars[..a.len].as_chunks::<2>().0;
            j < b.len && ranges.iter().any(|[low, high]| (*low..=*high).contains(&b.chars[j]))
        }),
        // Equal each: both the same, or both beyond the end.
        2 => bits(&|j| match (j < a.len, j < b.len) {
            (true, true) => a.chars[j] == b.chars[j],
            (in_a, in_b) => in_a == in_b,
        }),
        // Equal ordered: does the needle start here, as far as the operand shows?
        _ => bits(&|j| {
            (0..n - j).all(|i| i >= a.len || j + i < b.len && a.chars[i] == b.chars[j + i])
        }),
    };
    let int_res_2 = match imm >> 4 & 3 {
        1 => int_res_1 ^ all,
        3 => int_res_1 ^ ((1 << b.len) - 1),
        _ => int_res_1,
    };
    let flags = [(CF, int_res_2 != 0), (ZF, b.len < n), (SF, a.len < n), (OF, int_res_2 & 1 != 0)];
    (int_res_2, flags.iter().fold(0, |r, (flag, set)| if *set { r | flag } else { r }))
}

/// PCMPESTRI, PCMPISTRI: the index for ECX, and the flags of all four instructions.
pub fn index(s: &V3, imm: u8, length: Length) -> (u64, u32) {
    let (bits, flags) = compare(s, imm, length);
    let index = match (bits, imm & 0x40) {
        (0, _) => capacity(imm) as u32,
        (_, 0) => bits.trailing_zeros(),
        _ => bits.ilog2(),
    };
    (index.into(), flags)
}

/// PCMPESTRM, PCMPISTRM: the mask for XMM0, as bits or as bytes or words.
pub fn mask(s: &V3, imm: u8, length: Length) -> V128 {
    let (bits, _) = compare(s, imm, length);
    let ones = |i: usize| 0u16.wrapping_sub((bits >> i & 1) as u16);
    match imm & 0x41 {
        0x40 => join::<[u8; 16]>(std::array::from_fn(|i| ones(i) as u8)),
        0x41 => join::<[u16; 8]>(std::array::from_fn(ones)),
        _ => [bits.into(), 0],
    }
}
