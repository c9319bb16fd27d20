//! The psABI's level x86-64-v2.
//!
//! Source: System V ABI, AMD64 supplement, table 3.1.

use super::{GENERIC, Model};
use crate::sys::cpuid::Features;

/// See the head of the file.
pub static MODEL: Model = Model {
    name: "x86-64-v2",
    about: "as CPUs since 2009: SSE4.2, POPCNT, CMPXCHG16B",
    brand: "Ring3 x86-64-v2 CPU",
    features: FEATURES,
    ..GENERIC
};

/// Of [`MODEL`].
pub(crate) const FEATURES: Features = Features::of(&[
    super::x86_64_v1::FEATURES,
    Features::SSE3,
    Features::SSSE3,
    Features::CX16,
    Features::SSE4_1,
    Features::SSE4_2,
    Features::POPCNT,
    Features::LAHF,
]);
