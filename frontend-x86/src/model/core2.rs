//! An Intel Core 2 ("Conroe", 2006), with one core, and without what this crate lacks: VMX, thermal
//! and performance monitoring.
//!
//! Source: Intel AN-485 (signature 06F6H, descriptors); SDM Vol. 2, CPUID.

use super::{Cache, Holds, Model};
use crate::sys::cpuid::Features;

/// See the head of the file.
pub static MODEL: Model = Model {
    name: "core2",
    about: "Intel Core 2 (2006): 64-bit, NX, SSE2, SSE3, SSSE3",
    vendor: b"GenuineIntel",
    family: 6,
    model: 15,
    stepping: 6,
    brand: "Intel(R) Core(TM)2 CPU          6600  @ 2.40GHz",
    brand_index: 0,
    basic: 0xa,
    extended: 0x8000_0008,
    descriptors: [0x05b0_b101, 0x0056_57f0, 0, 0x2cb4_3049],
    caches: &[
        Cache::new(1, Holds::Data, 32, 8, 64),
        Cache::new(1, Holds::Instructions, 32, 8, 64),
        Cache::new(2, Holds::Both, 4096, 16, 64),
    ],
    phys_bits: 36,
    features: Features::of(&[
        super::pentium3::FEATURES,
        Features::CLFSH,
        Features::SSE2,
        Features::SSE3,
        Features::MONITOR,
        Features::SSSE3,
        Features::CX16,
        Features::LAHF,
        Features::SYSCALL,
        Features::NX,
        Features::LM,
    ]),
};
