//! Host arithmetic for the common cases of [`super::sse`]: nearest rounding, normal operands, a
//! normal result.
//!
//! Rust's own operators are IEEE 754 operations rounded to nearest, so the number is right; what
//! is left to find is whether it is exact, for PE is the only flag that can arise here. A sum's
//! error is a number of the format and five more additions give it (Knuth's `TwoSum`); a product, a
//! quotient or a root is exact if undoing it on the integer significands gives back the same odd
//! part. Everything else is `None`: the exact code decides. A result equal to the smallest normal
//! number is left to it too, since it may be tiny before rounding.

use super::Ex;

/// A format with quick operations. `None` means that the exact code has to do it.
pub trait Quick: Sized {
    /// Sum.
    fn quick_add(a: Self, b: Self) -> Option<(Self, Ex)>;
    /// Difference.
    fn quick_sub(a: Self, b: Self) -> Option<(Self, Ex)>;
    /// Product.
    fn quick_mul(a: Self, b: Self) -> Option<(Self, Ex)>;
    /// Quotient.
    fn quick_div(a: Self, b: Self) -> Option<(Self, Ex)>;
    /// Square root.
    fn quick_sqrt(a: Self) -> Option<(Self, Ex)>;
}

macro_rules! quick {
    ($bits:ty, $float:ty, $wide:ty) => {
        impl Quick for $bits {
            #[inline]
            fn quick_add(a: $bits, b: $bits) -> Option<($bits, Ex)> {
                let (a, b) = (<$float>::from_bits(a), <$float>::from_bits(b));
                let ordinary = |x: $float| x.is_normal() || x == 0.0;
                let r = a + b;
                let b_part = r - a;
                let error = (a - (r - b_part)) + (b - b_part);
                checked(r, error == 0.0, ordinary(a) && ordinary(b))
            }
            #[inline]
            fn quick_sub(a: $bits, b: $bits) -> Option<($bits, Ex)> {
                // A NaN, whose sign would matter, is not answered here.
                Self::quick_add(a, b ^ 1 << (<$bits>::BITS - 1))
            }
            #[inline]
            fn quick_mul(a: $bits, b: $bits) -> Option<($bits, Ex)> {
                let (a, b) = (<$float>::from_bits(a), <$float>::from_bits(b));
                let product = sig(a) * sig(b);
                let length = <$wide>::BITS - product.leading_zeros() - product.trailing_zeros();
                checked(a * b, length <= <$float>::MANTISSA_DIGITS, a.is_normal() && b.is_normal())
            }
            #[inline]
            fn quick_div(a: $bits, b: $bits) -> Option<($bits, Ex)> {
                let (a, b) = (<$float>::from_bits(a), <$float>::from_bits(b));
                let r = a / b;
                checked(r, odd(sig(r) * sig(b)) == odd(sig(a)), a.is_normal() && b.is_normal())
            }
            #[inline]
            fn quick_sqrt(a: $bits) -> Option<($bits, Ex)> {
                let a = <$float>::from_bits(a);
                let r = a.sqrt();
                checked(r, odd(sig(r) * sig(r)) == odd(sig(a)), a.is_normal() && a > 0.0)
            }
        }

        /// The significand of a normal number, with its integer bit.
        #[inline]
        fn sig(x: $float) -> $wide {
            let one = 1 << (<$float>::MANTISSA_DIGITS - 1);
            (x.to_bits() & (one - 1) | one) as $wide
        }

        /// The odd part of a significand.
        #[inline]
        fn odd(x: $wide) -> $wide {
            x >> x.trailing_zeros()
        }

        /// The result, if the operands and it are such that the host's arithmetic says it all.
        #[inline]
        fn checked(r: $float, exact: bool, operands: bool) -> Option<($bits, Ex)> {
            let fine = operands && r.is_normal() && r.abs() > <$float>::MIN_POSITIVE;
            fine.then(|| (r.to_bits(), if exact { Ex::empty() } else { Ex::PE }))
        }
    };
}

/// binary16 is only converted: no quick answers.
impl Quick for u16 {
    fn quick_add(_: u16, _: u16) -> Option<(u16, Ex)> {
        None
    }
    fn quick_sub(_: u16, _: u16) -> Option<(u16, Ex)> {
        None
    }
    fn quick_mul(_: u16, _: u16) -> Option<(u16, Ex)> {
        None
    }
    fn quick_div(_: u16, _: u16) -> Option<(u16, Ex)> {
        None
    }
    fn quick_sqrt(_: u16) -> Option<(u16, Ex)> {
        None
    }
}

mod single {
    use super::{Ex, Quick};
    quick!(u32, f32, u64);
}
mod double {
    use super::{Ex, Quick};
    quick!(u64, f64, u128);
}
