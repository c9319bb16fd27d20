//! CPU models: what a guest finds when it asks which CPU it runs on, and what that CPU can do.
//!
//! A [`Model`] is data, one file each. What is in force is a [`CpuModel`]: a model and a set of
//! features, which [`CpuModel::from_str`](#impl-FromStr-for-CpuModel) reads as the command line has
//! it (`core2,+avx,-nx`). A feature brings what it needs and takes along what needs it, by the one
//! table in [`needs`]. Everything else follows from features and model: what a CPU lacks is #UD
//! ([`crate::insn::enabled`]), a bit without its feature is #GP ([`crate::sys::control`],
//! [`crate::sys::msr`]), and CPUID says so ([`crate::sys::cpuid`]). A test holds the three
//! together.
//!
//! The models `x86-64-v1` to `-v3` and `max` are no CPU that was ever sold: they have the
//! signature of Westmere, for which operating systems know no erratum that would matter here. The
//! others are CPUs as they were, but for one bit: those that did leak (Meltdown and its kin) say
//! through `IA32_ARCH_CAPABILITIES` that they do not, since nothing here runs ahead of itself. A
//! kernel would defend itself for nothing; `-arch_capabilities` takes that away.
//!
//! Source: SDM Vol. 2, CPUID; Vol. 3, chapter 23 (processor generations); Intel AN-485.

mod choice;
mod core2;
mod i486;
mod max;
pub mod needs;
mod pentium;
mod pentium3;
mod x86_64_v1;
mod x86_64_v2;
mod x86_64_v3;

#[cfg(test)]
mod tests;

pub use choice::{CpuModel, ModelError, help};
pub(crate) use {x86_64_v2::FEATURES as V2, x86_64_v3::FEATURES as V3};

use crate::sys::cpuid::Features;
use emu_core::cpu::Cpu;

/// A CPU model.
#[derive(Debug, PartialEq, Eq)]
pub struct Model {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it is, in a few words.
    pub about: &'static str,
    /// Vendor string of leaf 0.
    pub vendor: &'static [u8; 12],
    /// Family, 4–6 here.
    pub family: u8,
    /// Model within the family; beyond 15 it goes into the extended field.
    pub model: u8,
    /// Stepping, 0–15.
    pub stepping: u8,
    /// Brand string of leaves 80000002H–80000004H, at most 47 characters; empty: no such leaves.
    pub brand: &'static str,
    /// Brand index of leaf 1, EBX bits 7:0; 0 for none.
    pub brand_index: u8,
    /// Highest basic leaf. Features whose leaf is beyond raise it.
    pub basic: u32,
    /// Highest extended leaf, 0 for none. Features whose leaf is beyond raise it.
    pub extended: u32,
    /// Leaf 2, EAX to EDX: descriptors of TLBs and caches.
    pub descriptors: [u32; 4],
    /// Caches, as leaf 4 lists them.
    pub caches: &'static [Cache],
    /// MAXPHYADDR: bits of a physical address; see [`phys_bits`]. Those of a linear one follow from
    /// the features.
    pub phys_bits: u8,
    /// What it has.
    pub features: Features,
}

/// What a cache holds; the values are leaf 4's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// Data.
    Data = 1,
    /// Instructions.
    Instructions = 2,
    /// Both.
    Both = 3,
}

/// A cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cache {
    /// 1–3.
    pub level: u8,
    /// What is in it.
    pub holds: Holds,
    /// Size in KiB.
    pub kib: u32,
    /// Ways of associativity.
    pub ways: u32,
    /// Bytes of a line.
    pub line: u32,
}

impl Cache {
    const fn new(level: u8, holds: Holds, kib: u32, ways: u32, line: u32) -> Cache {
        Cache { level, holds, kib, ways, line }
    }

    /// Number of sets.
    pub const fn sets(&self) -> u32 {
        self.kib * 1024 / self.ways / self.line
    }
}

/// All models, the oldest first.
pub static MODELS: &[&Model] = &[
    &i486::MODEL,
    &pentium::MODEL,
    &pentium3::MODEL,
    &core2::MODEL,
    &x86_64_v1::MODEL,
    &x86_64_v2::MODEL,
    &x86_64_v3::MODEL,
    &max::MODEL,
];

/// Index in [`MODELS`] of the model that a machine has if none is chosen.
pub const DEFAULT: u8 = 6;

/// MAXPHYADDR of `cpu`, in bits (SDM Vol. 3, 4.1.4): 32 without PAE and PSE-36, 36 at least with.
pub fn phys_bits(cpu: &Cpu) -> u32 {
    let wide = Features::PAE.in_cpu(cpu) || Features::PSE36.in_cpu(cpu);
    if wide { u32::from(of(cpu).phys_bits).max(36) } else { 32 }
}

/// The model of `cpu`.
pub fn of(cpu: &Cpu) -> &'static Model {
    MODELS[usize::from(cpu.model) % MODELS.len()]
}

impl Model {
    /// Family, model and stepping as leaf 1 has them in EAX, and EDX after RESET.
    pub const fn signature(&self) -> u32 {
        let (family, model) = (self.family as u32, self.model as u32);
        (model >> 4) << 16 | family << 8 | (model & 15) << 4 | self.stepping as u32
    }

    /// Whether the model is of the P6 family or later (SDM Vol. 4, 2.1: its MSRs are the
    /// "architectural" ones).
    pub const fn p6(&self) -> bool {
        self.family >= 6
    }

    /// Whether it has `IA32_MISC_ENABLE`: since model 0DH of family 6 (SDM Vol. 4, table 2-2).
    pub const fn misc_enable(&self) -> bool {
        self.family == 6 && self.model >= 0xd
    }
}

/// Caches of the models that are no real CPU.
static CACHES: &[Cache] = &[
    Cache::new(1, Holds::Data, 32, 8, 64),
    Cache::new(1, Holds::Instructions, 32, 4, 64),
    Cache::new(2, Holds::Both, 256, 8, 64),
    Cache::new(3, Holds::Both, 8192, 16, 64),
];

/// What the models `x86-64-v1` to `max` have in common; the rest is said in their files.
const GENERIC: Model = Model {
    name: "",
    about: "",
    vendor: b"GenuineIntel",
    family: 6,
    model: 0x2c,
    stepping: 2,
    brand: "",
    brand_index: 0,
    basic: 0x16,
    extended: 0x8000_0008,
    // No descriptors: leaf 4 has the caches.
    descriptors: [0xff01, 0, 0, 0],
    caches: CACHES,
    phys_bits: 40,
    features: Features::NONE,
};
