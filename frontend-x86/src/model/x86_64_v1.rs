//! The psABI's baseline, x86-64-v1, with the system features that all models from here on have.
//!
//! Source: System V ABI, AMD64 supplement, table 3.1.

use super::{GENERIC, Model};
use crate::sys::cpuid::Features;

/// See the head of the file.
pub static MODEL: Model = Model {
    name: "x86-64-v1",
    about: "the baseline of 64-bit programs: SSE2",
    brand: "Ring3 x86-64-v1 CPU",
    features: FEATURES,
    ..GENERIC
};

/// Of [`MODEL`].
pub(super) const FEATURES: Features = Features::of(&[
    super::pentium3::FEATURES,
    Features::CLFSH,
    Features::SSE2,
    Features::PCID,
    Features::X2APIC,
    Features::TSC_DEADLINE,
    Features::XSAVE,
    Features::HYPERVISOR,
    Features::FSGSBASE,
    Features::SMEP,
    Features::ERMS,
    Features::INVPCID,
    Features::UMIP,
    Features::SPEC_CTRL,
    Features::BHI_CTRL,
    Features::SYSCALL,
    Features::NX,
    Features::PDPE1GB,
    Features::RDTSCP,
    Features::LM,
    Features::INVARIANT_TSC,
    Features::ARAT,
]);
