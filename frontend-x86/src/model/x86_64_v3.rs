//! The psABI's level x86-64-v3, and what CPUs of that level usually have besides. The default.
//!
//! SMAP works but is left out: STAC and CLAC at every user access cost more than they teach.
//!
//! Source: System V ABI, AMD64 supplement, table 3.1.

use super::{GENERIC, Model};
use crate::sys::cpuid::Features;

/// See the head of the file.
pub static MODEL: Model = Model {
    name: "x86-64-v3",
    about: "as CPUs since 2013 (the default): AVX2, FMA, BMI2, MOVBE, AES, SHA",
    brand: "Ring3 x86-64-v3 CPU",
    features: FEATURES,
    ..GENERIC
};

/// Of [`MODEL`].
pub(crate) const FEATURES: Features = Features::of(&[
    super::x86_64_v2::FEATURES,
    Features::AVX,
    Features::AVX2,
    Features::BMI1,
    Features::BMI2,
    Features::F16C,
    Features::FMA,
    Features::LZCNT,
    Features::MOVBE,
    Features::ADX,
    Features::AES,
    Features::PCLMULQDQ,
    Features::SHA,
    Features::RDRAND,
    Features::RDSEED,
    Features::RDPID,
    Features::PREFETCHW,
    Features::XSAVEOPT,
    Features::XSAVEC,
    Features::XGETBV1,
]);
