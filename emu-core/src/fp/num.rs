//! What the formats share: numbers taken apart, exact arithmetic on them, and the one rounding.
//!
//! A [`Num`] is an operand, its significand left-aligned in 64 bits (bit 63 is the integer bit,
//! set by normalising even if the operand was denormal). A [`Wide`] is an unrounded result with
//! 128 bits, of which the lowest may be *sticky*: set if anything nonzero lies below it. A `Wide`
//! therefore needs two bits more than the precision it will be rounded to, which all operations
//! here provide. [`round`] is the only place where OE, UE and PE arise.
//!
//! Source: Intel SDM Vol. 1, 4.8.3, 4.8.4, 4.9.1.

use super::{Ex, Round};

/// A binary format, as far as rounding needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Bits of the significand, the integer bit included.
    pub prec: u32,
    /// Exponent of the smallest normal number.
    pub emin: i32,
    /// Exponent of the largest number; also the bias.
    pub emax: i32,
}

/// binary16.
pub const HALF: Format = Format { prec: 11, emin: -14, emax: 15 };
/// binary32.
pub const SINGLE: Format = Format { prec: 24, emin: -126, emax: 127 };
/// binary64.
pub const DOUBLE: Format = Format { prec: 53, emin: -1022, emax: 1023 };
/// Double extended precision.
pub const EXTENDED: Format = Format { prec: 64, emin: -16382, emax: 16383 };

/// What sort of operand a [`Num`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// ±0; `sig` is 0 and `exp` is below any other exponent.
    Zero,
    /// A nonzero finite number; bit 63 of `sig` is set.
    Finite,
    /// ±∞.
    Inf,
    /// A NaN; bit 62 of `sig` tells a quiet one.
    Nan,
    /// An encoding of the 80-bit format that no operation accepts (SDM Vol. 1, table 8-3).
    Unsupported,
}

/// An operand taken apart: (−1)^sign · sig · 2^(exp−63).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Num {
    /// Its sort.
    pub kind: Kind,
    /// Set if negative.
    pub sign: bool,
    /// Set if the encoding was denormal, so that using it raises DE.
    pub denormal: bool,
    /// Exponent of the integer bit.
    pub exp: i32,
    /// Significand, or the significand field of a NaN.
    pub sig: u64,
}

/// The bit of a NaN's significand that makes it quiet.
pub const QUIET: u64 = 1 << 62;
/// The significand of the `QNaN` floating-point indefinite.
const INDEFINITE: u64 = 3 << 62;

impl Num {
    /// A zero.
    #[inline]
    pub const fn zero(sign: bool) -> Num {
        // Two such exponents may be added or subtracted without overflow.
        Num { kind: Kind::Zero, sign, denormal: false, exp: -(1 << 20), sig: 0 }
    }

    /// Takes a binary32 or binary64 apart; `bits` above the format's width are ignored.
    #[inline]
    pub const fn unpack(f: Format, bits: u64) -> Num {
        let top = f.prec - 1; // width of the fraction and place of the exponent
        let max = 2 * f.emax + 1;
        let biased = (bits >> top) as i32 & max;
        let sign = bits >> (top + max.count_ones()) & 1 != 0;
        let frac = bits << (64 - top) >> 1;
        if biased == max {
            let kind = if frac == 0 { Kind::Inf } else { Kind::Nan };
            Num { kind, sign, ..Num::finite(0, frac | 1 << 63) }
        } else if biased != 0 {
            Num { sign, ..Num::finite(biased - f.emax, frac | 1 << 63) }
        } else {
            Num { sign, ..Num::denormal(f.emin, frac) }
        }
    }

    /// A positive number with a normalised significand.
    const fn finite(exp: i32, sig: u64) -> Num {
        Num { kind: Kind::Finite, sign: false, denormal: false, exp, sig }
    }

    /// A positive denormal, or a zero; `emin` is the exponent of bit 63.
    #[inline]
    pub(super) const fn denormal(emin: i32, sig: u64) -> Num {
        if sig == 0 {
            return Num::zero(false);
        }
        let shift = sig.leading_zeros();
        Num { denormal: true, ..Num::finite(emin - shift as i32, sig << shift) }
    }

    /// The same with a denormal replaced by a zero, if `daz`.
    #[inline]
    pub const fn daz(self, daz: bool) -> Num {
        if daz && self.denormal { Num::zero(self.sign) } else { self }
    }

    /// An integer of any sign.
    #[inline]
    pub const fn from_int(v: i64) -> Num {
        if v == 0 {
            return Num::zero(false);
        }
        let shift = v.unsigned_abs().leading_zeros();
        let magnitude = Num::finite(63 - shift as i32, v.unsigned_abs() << shift);
        Num { sign: v < 0, ..magnitude }
    }

    /// Whether it is a NaN.
    #[inline]
    pub const fn is_nan(self) -> bool {
        matches!(self.kind, Kind::Nan)
    }

    /// Whether it is a signaling NaN.
    #[inline]
    pub const fn is_snan(self) -> bool {
        self.is_nan() && self.sig & QUIET == 0
    }

    /// DE, if the operand is a denormal.
    #[inline]
    pub const fn de(self) -> Ex {
        Ex::DE.when(self.denormal)
    }

    /// The same with its sign changed.
    #[inline]
    pub const fn neg(self) -> Num {
        Num { sign: !self.sign, ..self }
    }

    /// A zero or finite number as a result.
    #[inline]
    pub const fn wide(self) -> Wide {
        Wide { sign: self.sign, exp: self.exp, sig: (self.sig as u128) << 64 }
    }

    /// A NaN, made quiet, as a result.
    #[inline]
    pub const fn quieted(self) -> Value {
        Value::Nan { sign: self.sign, sig: self.sig | QUIET }
    }

    /// Rounds the magnitude to an integer: (magnitude, inexact, rounded away from zero). `None`
    /// if it is not a number or is 2^64 or more.
    #[inline]
    pub fn to_int(self, round: Round) -> Option<(u128, bool, bool)> {
        if !matches!(self.kind, Kind::Zero | Kind::Finite) || self.exp > 63 {
            return None;
        }
        // Fixed point with 64 bits on either side of the point.
        let fixed = match self.exp + 1 {
            left @ 0.. => (self.sig as u128) << left,
            right => shr_sticky(self.sig as u128, right.unsigned_abs()),
        };
        let r = round_at(fixed, 64, round, self.sign);
        Some(((r.sig >> 64) + ((r.carry as u128) << 64), r.inexact, r.up))
    }
}

/// A zero or finite result before rounding: (−1)^sign · sig · 2^(exp−127), where bit 127 of
/// `sig` is set or `sig` is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wide {
    /// Set if negative.
    pub sign: bool,
    /// Exponent of bit 127.
    pub exp: i32,
    /// Significand; bit 0 may be sticky.
    pub sig: u128,
}

impl Wide {
    /// A positive number; bit 127 of `sig` is set.
    pub(super) const fn positive(exp: i32, sig: u128) -> Wide {
        Wide { sign: false, exp, sig }
    }

    /// The same with the sign given.
    pub(super) const fn with_sign(self, sign: bool) -> Wide {
        Wide { sign, ..self }
    }

    /// A result whose `sig` need not be normalised; `exp` is the exponent of bit 127.
    #[inline]
    pub const fn normalised(sign: bool, exp: i32, sig: u128) -> Wide {
        if sig == 0 {
            return Num::zero(sign).wide();
        }
        let shift = sig.leading_zeros();
        Wide { sign, exp: exp - shift as i32, sig: sig << shift }
    }

    /// Sum; an exact zero from operands of unlike signs is +0, or −0 when rounding down.
    #[inline]
    pub fn add(self, other: Wide, round: Round) -> Wide {
        let swap = (other.exp, other.sig) > (self.exp, self.sig);
        let (a, b) = if swap { (other, self) } else { (self, other) };
        let x = shr_sticky(a.sig, 1);
        let y = shr_sticky(b.sig, (a.exp - b.exp) as u32 + 1);
        if a.sign == b.sign {
            Wide::normalised(a.sign, a.exp + 1, x + y)
        } else if x == y {
            Wide::normalised(round == Round::Down, 0, 0)
        } else {
            Wide::normalised(a.sign, a.exp + 1, x - y)
        }
    }
}

/// A result before rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// A zero or finite number.
    Num(Wide),
    /// An infinity with its sign.
    Inf(bool),
    /// A NaN, already quiet.
    Nan {
        /// Its sign.
        sign: bool,
        /// Its significand, with the quiet bit set.
        sig: u64,
    },
}

/// A value and the exceptions found in making it.
pub type Outcome = (Value, Ex);

/// The response to a masked invalid operation: the `QNaN` floating-point indefinite.
pub const INVALID: Outcome = (Value::Nan { sign: true, sig: INDEFINITE }, Ex::IE);

/// Shifts right; bits lost leave a 1 in bit 0.
#[inline]
pub const fn shr_sticky(v: u128, by: u32) -> u128 {
    match by {
        0 => v,
        1..=127 => v >> by | (v << (128 - by) != 0) as u128,
        _ => (v != 0) as u128,
    }
}

/// What [`round_at`] found.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// The rounded value, modulo 2^128, with zeros below the cut.
    pub sig: u128,
    /// Set if rounding up overflowed the 128 bits.
    pub carry: bool,
    /// Set if anything was cut off.
    pub inexact: bool,
    /// Set if the magnitude was increased.
    pub up: bool,
}

/// Rounds a magnitude so that the `drop` (1 to 127) low bits become zero.
#[inline]
pub const fn round_at(sig: u128, drop: u32, round: Round, sign: bool) -> Cut {
    let unit = 1u128 << drop;
    let rest = sig & (unit - 1);
    let up = match round {
        Round::Nearest => rest > unit / 2 || rest == unit / 2 && sig & unit != 0,
        Round::Down => sign && rest != 0,
        Round::Up => !sign && rest != 0,
        Round::Zero => false,
    };
    let (sig, carry) = (sig - rest).overflowing_add(if up { unit } else { 0 });
    Cut { sig, carry, inexact: rest != 0, up }
}

/// A result in a format, not yet in its encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rounded {
    /// Biased exponent: 0 for a zero or denormal, all ones for an infinity.
    pub biased: u32,
    /// Significand with the integer bit at 63 (clear in a zero or denormal).
    pub sig: u64,
    /// OE, UE, PE.
    pub ex: Ex,
    /// Set if the magnitude was increased by rounding.
    pub up: bool,
}

/// How far an unmasked overflow or underflow moves the exponent of an x87 result
/// (SDM Vol. 1, 8.5.4, 8.5.5).
const WRAP: i32 = 24576;

/// Rounds to a format. Tininess is detected after rounding; `unmasked` OE and UE deliver the
/// result with its exponent moved by 24576, which only x87 registers ever see, or if that does not
/// suffice (FSCALE) an infinity or zero; `ftz` applies if UE is masked.
#[inline]
pub fn round(f: Format, w: Wide, round: Round, ftz: bool, unmasked: Ex) -> Rounded {
    if w.sig == 0 {
        return Rounded { biased: 0, sig: 0, ex: Ex::empty(), up: false };
    }
    let drop = 128 - f.prec;
    let cut = round_at(w.sig, drop, round, w.sign);
    let sig = if cut.carry { 1 << 63 } else { (cut.sig >> 64) as u64 };
    let mut exp = w.exp + cut.carry as i32;
    let mut ex = Ex::PE.when(cut.inexact);
    let result = |biased: i32, sig, ex, up| Rounded { biased: biased as u32, sig, ex, up };
    let infinity = 2 * f.emax + 1;
    if exp < f.emin {
        if !unmasked.contains(Ex::UE) {
            if ftz {
                return result(0, 0, Ex::UE | Ex::PE, false);
            }
            let shifted = shr_sticky(w.sig, (f.emin - w.exp) as u32);
            let cut = round_at(shifted, drop, round, w.sign);
            let sig = (cut.sig >> 64) as u64;
            let ex = (Ex::UE | Ex::PE).when(cut.inexact);
            return result((sig >> 63) as i32, sig, ex, cut.up);
        }
        ex |= Ex::UE;
        exp += WRAP;
        if exp < f.emin {
            return result(0, 0, ex | Ex::PE, false);
        }
    } else if exp > f.emax {
        ex |= Ex::OE;
        if !unmasked.contains(Ex::OE) {
            ex |= Ex::PE;
            let up = match round {
                Round::Nearest => true,
                Round::Down => w.sign,
                Round::Up => !w.sign,
                Round::Zero => false,
            };
            let (biased, sig) =
                if up { (infinity, 1 << 63) } else { (infinity - 1, u64::MAX << (64 - f.prec)) };
            return result(biased, sig, ex, up);
        }
        exp -= WRAP;
        if exp > f.emax {
            return result(infinity, 1 << 63, ex | Ex::PE, true);
        }
    }
    result(exp + f.emax, sig, ex, cut.up)
}

// The four operations on operands that are neither NaN nor unsupported. An exception of higher
// priority (IE, ZE) hides DE.

/// Sum.
#[inline]
pub fn add(a: Num, b: Num, round: Round) -> Outcome {
    let de = a.de() | b.de();
    match (a.kind, b.kind) {
        (Kind::Inf, Kind::Inf) if a.sign != b.sign => INVALID,
        (Kind::Inf, _) => (Value::Inf(a.sign), de),
        (_, Kind::Inf) => (Value::Inf(b.sign), de),
        _ => (Value::Num(a.wide().add(b.wide(), round)), de),
    }
}

/// Product.
#[inline]
pub fn mul(a: Num, b: Num) -> Outcome {
    let (de, sign) = (a.de() | b.de(), a.sign != b.sign);
    match (a.kind, b.kind) {
        (Kind::Inf, Kind::Zero) | (Kind::Zero, Kind::Inf) => INVALID,
        (Kind::Inf, _) | (_, Kind::Inf) => (Value::Inf(sign), de),
        _ => {
            let sig = a.sig as u128 * b.sig as u128;
            (Value::Num(Wide::normalised(sign, a.exp + b.exp + 1, sig)), de)
        }
    }
}

/// Quotient.
#[inline]
pub fn div(a: Num, b: Num) -> Outcome {
    let (de, sign) = (a.de() | b.de(), a.sign != b.sign);
    match (a.kind, b.kind) {
        (Kind::Inf, Kind::Inf) | (Kind::Zero, Kind::Zero) => INVALID,
        (Kind::Inf, _) => (Value::Inf(sign), de),
        (_, Kind::Zero) => (Value::Inf(sign), Ex::ZE),
        (Kind::Zero, _) | (_, Kind::Inf) => (Value::Num(Num::zero(sign).wide()), de),
        _ => {
            // Two steps of a long division: q0 has 63 or 64 bits, q1 has 64 more.
            let d = b.sig as u128;
            let n = (a.sig as u128) << 63;
            let (q0, r0) = (n / d, (n % d) << 64);
            let (q1, r1) = (r0 / d, r0 % d);
            let sig = q0 << 64 | q1 | (r1 != 0) as u128;
            (Value::Num(Wide::normalised(sign, a.exp - b.exp, sig)), de)
        }
    }
}

/// Square root.
#[inline]
pub fn sqrt(a: Num) -> Outcome {
    match a.kind {
        Kind::Zero => (Value::Num(a.wide()), Ex::empty()),
        _ if a.sign => INVALID,
        Kind::Inf => (Value::Inf(false), Ex::empty()),
        _ => {
            // An even exponent leaves a radicand in [2^126, 2^128) and a root of 64 bits; whether
            // the rest exceeds the root tells the next bit, for no root ends in a lone half.
            let n = (a.sig as u128) << (63 + (a.exp & 1));
            let root = n.isqrt();
            let rest = n - root * root;
            let sig = root << 64 | ((rest > root) as u128) << 63 | (rest != 0) as u128;
            (Value::Num(Wide { sign: false, exp: a.exp >> 1, sig }), a.de())
        }
    }
}
