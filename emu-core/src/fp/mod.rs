//! Soft floating point with the exception flags as values: binary32, binary64 and the x87
//! double extended format.
//!
//! Problem: the host's own arithmetic delivers the numbers, but not, at a price one would pay per
//! instruction, the six exception flags, the guest's rounding mode, DAZ, FTZ or the precision
//! control, and no host but an x86 has the 80-bit format at all.
//!
//! Method: every operand is taken apart into a [`num::Num`] whose significand stands left-aligned
//! in 64 bits; an operation makes an exact (or sticky) 128-bit result; `num::round` alone rounds,
//! detects overflow and tininess and says which flags arise. [`sse`] and [`x87`] put the rules
//! around it that differ: NaN selection, DAZ and FTZ, precision control, unmasked responses.
//! `quick` answers the common cases of [`sse`] with the host's arithmetic; [`transcendental`] is
//! the x87's library of functions.
//!
//! Invariants: nothing here has state, panics or loops on any input; a flag returned is a flag the
//! instruction would set in MXCSR or the status word, so that an unmasked IE, DE or ZE hides the
//! flags of the computation that then does not take place.
//!
//! Source: Intel SDM Vol. 1, 4.8 (formats, NaNs: table 4-7), 4.9 (exceptions and their priority),
//! 8.3 and 8.5 (x87), 11.5 (SSE).

pub mod num;
mod quick;
pub mod sse;
pub mod transcendental;
pub mod x87;

#[cfg(all(test, target_arch = "x86_64"))]
mod host_sse;
#[cfg(all(test, target_arch = "x86_64"))]
mod host_x87;
#[cfg(test)]
mod sample;

use bitflags::bitflags;

bitflags! {
    /// Floating-point exceptions, with the bit numbers of MXCSR\[5:0\] and of the x87 status word
    /// (SDM Vol. 1, 4.9.1).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Ex: u8 {
        /// Invalid operation.
        const IE = 1;
        /// Denormal operand.
        const DE = 2;
        /// Divide by zero.
        const ZE = 4;
        /// Overflow.
        const OE = 8;
        /// Underflow.
        const UE = 16;
        /// Precision: the result is inexact.
        const PE = 32;
    }
}

impl Ex {
    /// The exceptions found before anything is computed: if one of them is unmasked, the
    /// instruction delivers no result (SDM Vol. 1, 4.9.1, 4.9.2).
    pub const PRE: Ex = Ex::IE.union(Ex::DE).union(Ex::ZE);

    /// Whether the exceptions keep the instruction from writing its destination: an unmasked one
    /// was found before the computation. (In SSE any unmasked exception does; in x87 an unmasked
    /// OE or UE also does where the destination is memory.)
    #[inline]
    pub fn suppresses(self, unmasked: Ex) -> bool {
        self.intersects(unmasked & Ex::PRE)
    }
    /// These exceptions under a condition, otherwise none.
    #[inline]
    const fn when(self, condition: bool) -> Ex {
        if condition { self } else { Ex::empty() }
    }

    /// Drops the flags of a computation that an unmasked exception has prevented.
    #[inline]
    fn visible(self, unmasked: Ex) -> Ex {
        if self.suppresses(unmasked) { self & Ex::PRE } else { self }
    }
}

/// Rounding control, with the encoding of MXCSR.RC and of the x87 control word's RC
/// (SDM Vol. 1, 4.8.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Round {
    /// To nearest, ties to even.
    #[default]
    Nearest = 0,
    /// Toward minus infinity.
    Down = 1,
    /// Toward plus infinity.
    Up = 2,
    /// Toward zero.
    Zero = 3,
}

impl Round {
    /// The mode that the two low bits of `rc` encode.
    #[inline]
    pub const fn from_rc(rc: u32) -> Round {
        match rc & 3 {
            0 => Round::Nearest,
            1 => Round::Down,
            2 => Round::Up,
            _ => Round::Zero,
        }
    }
}

/// What MXCSR says about a computation (SDM Vol. 1, 10.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Env {
    /// Rounding control.
    pub round: Round,
    /// Denormals-are-zeros: a denormal operand counts as a zero of its sign, without DE.
    pub daz: bool,
    /// Flush-to-zero: a tiny result becomes a zero of its sign, if underflow is masked.
    pub ftz: bool,
    /// The exceptions that are *not* masked.
    pub unmasked: Ex,
}

impl Env {
    /// Reads the control bits of MXCSR: DAZ (6), the masks (12:7), RC (14:13), FTZ (15).
    #[inline]
    pub const fn from_mxcsr(mxcsr: u32) -> Env {
        Env {
            round: Round::from_rc(mxcsr >> 13),
            daz: mxcsr & 1 << 6 != 0,
            ftz: mxcsr & 1 << 15 != 0,
            unmasked: Ex::from_bits_truncate(!(mxcsr >> 7) as u8),
        }
    }
}

/// Precision control, with the encoding of the x87 control word's PC. It governs FADD, FSUB, FMUL,
/// FDIV, FSQRT and their forms, and nothing else (SDM Vol. 1, 8.1.5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Precision {
    /// 24 bits.
    Single = 0,
    /// 53 bits.
    Double = 2,
    /// 64 bits; the reserved encoding 1 means the same.
    #[default]
    Extended = 3,
}

/// What the x87 control word says about a computation (SDM Vol. 1, 8.1.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Env87 {
    /// Rounding control.
    pub round: Round,
    /// Precision control.
    pub precision: Precision,
    /// The exceptions that are *not* masked.
    pub unmasked: Ex,
}

impl Env87 {
    /// Reads the control word: the masks (5:0), PC (9:8), RC (11:10).
    #[inline]
    pub const fn from_fcw(fcw: u16) -> Env87 {
        Env87 {
            round: Round::from_rc(fcw as u32 >> 10),
            precision: match fcw >> 8 & 3 {
                0 => Precision::Single,
                2 => Precision::Double,
                _ => Precision::Extended,
            },
            unmasked: Ex::from_bits_truncate(!fcw as u8),
        }
    }
}

/// The outcome of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The first operand is less than the second.
    Less,
    /// The operands are equal (as are zeros of either sign).
    Equal,
    /// The first operand is greater than the second.
    Greater,
    /// At least one operand is a NaN or, in x87, an unsupported encoding.
    Unordered,
}
