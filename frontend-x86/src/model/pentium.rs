//! An Intel Pentium with MMX technology (P55C, 1997).
//!
//! Source: Intel AN-485 (signature 0543H); Pentium Processor Family Developer's Manual.

use super::{Cache, Holds, Model};
use crate::sys::cpuid::Features;

/// See the head of the file.
pub static MODEL: Model = Model {
    name: "pentium",
    about: "Intel Pentium MMX (1997): TSC, MSRs, 4-MByte pages, CMPXCHG8B, local APIC, MMX",
    vendor: b"GenuineIntel",
    family: 5,
    model: 4,
    stepping: 3,
    brand: "",
    brand_index: 0,
    basic: 1,
    extended: 0,
    descriptors: [0; 4],
    caches: &[Cache::new(1, Holds::Data, 16, 4, 32), Cache::new(1, Holds::Instructions, 16, 4, 32)],
    phys_bits: 32,
    features: FEATURES,
};

/// Of [`MODEL`].
pub(super) const FEATURES: Features = Features::of(&[
    super::i486::FEATURES,
    Features::VME,
    Features::DE,
    Features::PSE,
    Features::TSC,
    Features::MSR,
    Features::MCE,
    Features::CX8,
    Features::APIC,
    Features::MMX,
]);
