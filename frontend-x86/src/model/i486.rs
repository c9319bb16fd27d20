//! An Intel DX4: the 80486 of 1994, which has CPUID and an FPU and nothing that CPUID would tell.
//!
//! Source: Intel AN-485 (signature 048xH); Embedded IntelDX4 Processor data sheet.

use super::{Cache, Holds, Model};
use crate::sys::cpuid::Features;

/// See the head of the file.
pub static MODEL: Model = Model {
    name: "i486",
    about: "Intel DX4 (1994): FPU and CPUID",
    vendor: b"GenuineIntel",
    family: 4,
    model: 8,
    stepping: 0,
    brand: "",
    brand_index: 0,
    basic: 1,
    extended: 0,
    descriptors: [0; 4],
    caches: &[Cache::new(1, Holds::Both, 16, 4, 16)],
    phys_bits: 32,
    features: FEATURES,
};

/// Of [`MODEL`].
pub(super) const FEATURES: Features = Features::FPU;
