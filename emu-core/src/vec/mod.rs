//! Vector micro-operations over one 128-bit lane.
//!
//! [`for_each_vec_op!`](crate::for_each_vec_op) is the one table; [`VecOp`], its names and its
//! evaluators are made from it. An evaluator is the only statement of an operation's meaning: the
//! interpreter calls it, other tiers are tested against it. Wider registers are evaluated lane by
//! lane (AVX2 works within 128 bits), but for a few operations on whole registers (`wide`); MMX is
//! the low word.
//!
//! Method: `op × lane type` mapped over lanes (`lanes`); what is longer than a row is a function
//! in its family (`integer`, `shuffle`, `float`, `string`). Floating point comes from
//! [`crate::fp`], with the exceptions as values. MXCSR goes in as a word, but its flags (bits 5:0)
//! do not matter: the caller ORs in what was raised.
//!
//! Source: Intel SDM Vol. 2; Vol. 1, chapters 9 to 12.

mod crypto;
mod float;
#[cfg(all(test, target_arch = "x86_64"))]
mod host;
mod integer;
mod lanes;
mod shuffle;
mod string;
mod table;
mod wide;

use crate::cpu::Ymm;
use crate::flags::{CF, ZF};
use crate::fp::{Ex, sse};
use integer::*;
pub(crate) use lanes::settle;
use lanes::{ZERO, compare, float1, float2, map1, map2};
use shuffle::*;
use string::Length;

/// One 128-bit lane, low word first.
pub type V128 = [u64; 2];

/// Sources of a vector operation.
#[derive(Clone, Copy, Debug, Default)]
pub struct V3 {
    /// First source (for two-operand SSE forms: the destination's old value).
    pub a: V128,
    /// Second source.
    pub b: V128,
    /// Third source (implicit XMM0, FMA addend, or integer registers handed in as words).
    pub c: V128,
}

/// Evaluates an [`Op::V`](crate::uop::Op::V): `(sources, imm8, MXCSR) -> (result, exceptions
/// raised)`, masked ones included. If one of them is unmasked the result is without meaning.
pub type VecEval = fn(&V3, u8, u32) -> (V128, Ex);

/// Evaluates an [`Op::Vx`](crate::uop::Op::Vx): `(sources, imm8, MXCSR) -> (integer result, RFLAGS
/// bits, exceptions raised)`. All six arithmetic flags are given; the integer may have any bits
/// above the width of the result.
pub type VecIntEval = fn(&V3, u8, u32) -> (u64, u32, Ex);

/// Sources of an operation on whole 256-bit registers.
#[derive(Clone, Copy, Debug, Default)]
pub struct W3 {
    /// First source.
    pub a: Ymm,
    /// Second source.
    pub b: Ymm,
}

/// Evaluates an operation on whole registers: `(sources, imm8) -> result`.
pub type WideEval = fn(&W3, u8) -> Ymm;

/// The same with an integer result: `(sources, imm8) -> (integer result, RFLAGS bits)`.
pub type WideIntEval = fn(&W3, u8) -> (u64, u32);

/// The kinds of vector operation.
#[derive(Clone, Copy, Debug)]
pub enum Meaning {
    /// Lane by lane.
    Vec(VecEval),
    /// Of the low lane, with an integer result.
    Int(VecIntEval),
    /// Of whole registers.
    Wide(WideEval),
    /// Of whole registers, with an integer result.
    WideInt(WideIntEval),
}

struct Row {
    name: &'static str,
    raises: bool,
    meaning: Meaning,
}

macro_rules! make_vec_ops {
    (quiet { $($q:ident $qn:literal $qe:expr;)* }
     float { $($f:ident $fn:literal $fe:expr;)* }
     quiet_int { $($i:ident $in:literal $ie:expr;)* }
     float_int { $($c:ident $cn:literal $ce:expr;)* }
     wide { $($w:ident $wn:literal $we:expr;)* }
     wide_int { $($x:ident $xn:literal $xe:expr;)* }) => {
        /// Number of a vector operation: a row of the table. The default is a move of `b`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(u16)]
        #[allow(missing_docs)] // the names are the manual's
        pub enum VecOp {
            #[default]
            $($q,)* $($f,)* $($i,)* $($c,)* $($w,)* $($x,)*
        }

        impl VecOp {
            /// All vector operations in table order.
            pub const ALL: &'static [VecOp] = &[
                $(VecOp::$q,)* $(VecOp::$f,)* $(VecOp::$i,)* $(VecOp::$c,)* $(VecOp::$w,)*
                $(VecOp::$x,)*
            ];
        }

        static ROWS: &[Row] = &[
            $(Row { name: $qn, raises: false, meaning: Meaning::Vec(|s, i, _| {
                let eval: fn(&V3, u8) -> V128 = $qe;
                (eval(s, i), Ex::empty())
            }) },)*
            $(Row { name: $fn, raises: true, meaning: Meaning::Vec($fe) },)*
            $(Row { name: $in, raises: false, meaning: Meaning::Int(|s, i, _| {
                let eval: fn(&V3, u8) -> (u64, u32) = $ie;
                let (value, flags) = eval(s, i);
                (value, flags, Ex::empty())
            }) },)*
            $(Row { name: $cn, raises: true, meaning: Meaning::Int($ce) },)*
            $(Row { name: $wn, raises: false, meaning: Meaning::Wide($we) },)*
            $(Row { name: $xn, raises: false, meaning: Meaning::WideInt($xe) },)*
        ];
    };
}
crate::for_each_vec_op!(make_vec_ops);

impl VecOp {
    #[inline]
    fn row(self) -> &'static Row {
        &ROWS[self as usize]
    }

    /// Name in the text form.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// Whether it may raise floating-point exceptions; if not, it reads and writes no MXCSR.
    pub fn raises(self) -> bool {
        self.row().raises
    }

    /// Whether its result is an integer with flags, so that it belongs to
    /// [`Op::Vx`](crate::uop::Op::Vx) and not to [`Op::V`](crate::uop::Op::V).
    pub fn is_int(self) -> bool {
        matches!(self.row().meaning, Meaning::Int(_) | Meaning::WideInt(_))
    }

    /// Its meaning.
    #[inline]
    pub fn meaning(self) -> Meaning {
        self.row().meaning
    }

    /// The immediate for the upper lane of a 256-bit operation: some have bits of their own for it.
    #[inline]
    pub fn upper_imm(self, imm: u8) -> u8 {
        match self {
            VecOp::Shufpd | VecOp::Blendpd => imm >> 2,
            VecOp::Mpsadbw => imm >> 3,
            VecOp::Blendps => imm >> 4,
            _ => imm,
        }
    }
}

/// PTEST: of the bits in `mask`, ZF if `b` has none of `a`, CF if it has no other.
fn test(s: &V3, mask: u64) -> u32 {
    let none = |v: V128| v.map(|w| w & mask) == ZERO;
    let (and, andn) = (map2(s, |x: u64, y| x & y), map2(s, |x: u64, y| !x & y));
    (u32::from(none(and)) * ZF) | (u32::from(none(andn)) * CF)
}
