//! An Intel Pentium III ("Coppermine", 1999).
//!
//! Its highest leaf was 2. Here it is 7, for the one bit that says that it does not leak; without
//! `arch_capabilities` it is 2 again.
//!
//! Source: Intel AN-485 (signature 0683H, brand index 2, descriptors).

use super::{Cache, Holds, Model};
use crate::sys::cpuid::Features;

/// See the head of the file.
pub static MODEL: Model = Model {
    name: "pentium3",
    about: "Intel Pentium III (1999): CMOV, SYSENTER, PAE, SSE",
    vendor: b"GenuineIntel",
    family: 6,
    model: 8,
    stepping: 3,
    brand: "",
    brand_index: 2,
    basic: 2,
    extended: 0,
    descriptors: [0x0302_0101, 0, 0, 0x0c04_0882],
    caches: &[
        Cache::new(1, Holds::Data, 16, 4, 32),
        Cache::new(1, Holds::Instructions, 16, 4, 32),
        Cache::new(2, Holds::Both, 256, 8, 32),
    ],
    phys_bits: 36,
    features: FEATURES,
};

/// Of [`MODEL`].
pub(super) const FEATURES: Features = Features::of(&[
    super::pentium::FEATURES,
    Features::PAE,
    Features::SEP,
    Features::MTRR,
    Features::PGE,
    Features::MCA,
    Features::CMOV,
    Features::PAT,
    Features::PSE36,
    Features::FXSR,
    Features::SSE,
    Features::NOPL,
    Features::ARCH_CAPS,
]);
