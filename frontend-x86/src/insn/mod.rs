//! The instruction table: one row per mnemonic, one file per family.

pub mod arith;
pub mod avx;
pub mod bits;
pub mod bmi;
pub mod branch;
pub mod crypto;
pub mod data;
pub mod flags;
pub mod fma;
pub mod mmx;
pub mod sse;
pub mod sse2;
pub mod sse3;
pub mod sse41;
pub mod sse42;
pub mod ssse3;
pub mod string;
pub mod system;
pub mod x87;

#[cfg(test)]
mod tests;

use crate::row::{Attr, Row};
use crate::sys::cpuid::Features;
use emu_core::uop::HelperDef;
use iced_x86::{CodeSize, CpuidFeature, Instruction, Mnemonic};
use std::sync::LazyLock;

/// Makes the two lists from one.
macro_rules! families {
    ($($family:ident)*) => {
        /// All families.
        pub static FAMILIES: &[&[Row]] = &[$($family::ROWS),*];
        /// Their names, which are those of their files.
        pub static NAMES: &[&str] = &[$(stringify!($family)),*];
    };
}

families! {
    arith avx bits bmi branch crypto data flags fma mmx sse sse2 sse3 ssse3 sse41 sse42 string
    system x87
}

/// All helpers, by family.
pub static HELPERS: &[&[&HelperDef]] = &[
    arith::HELPERS,
    avx::HELPERS,
    bmi::HELPERS,
    data::HELPERS,
    mmx::HELPERS,
    string::HELPERS,
    &[&crate::sensitive::COUNT],
    crate::sys::HELPERS,
    crate::x87::HELPERS,
];

/// Rows by mnemonic: the ordinary one and the string instruction of the same name.
static INDEX: LazyLock<Vec<[Option<&'static Row>; 2]>> = LazyLock::new(|| {
    let mut index = Vec::new();
    for row in FAMILIES.iter().flat_map(|f| f.iter()) {
        let n = row.mnemonic as usize;
        if index.len() <= n {
            index.resize(n + 1, [None; 2]);
        }
        let slot = &mut index[n][usize::from(row.attr.contains(Attr::STRING))];
        assert!(slot.is_none(), "two rows for {:?}", row.mnemonic);
        *slot = Some(row);
    }
    index
});

/// The row of a decoded instruction.
pub fn row(i: &Instruction) -> Option<&'static Row> {
    let [plain, string] = INDEX.get(i.mnemonic() as usize)?;
    if i.is_string_instruction() { *string } else { *plain }
}

/// Whether a CPU with `features` has the encoding at all.
pub fn enabled(i: &Instruction, features: Features) -> bool {
    use Mnemonic::{
        Cldemote, Endbr32, Endbr64, Lahf, Lzcnt, Nop, Prefetch, Prefetchit0, Prefetchit1,
        Prefetchnta, Prefetcht0, Prefetcht1, Prefetcht2, Prefetchw, Prefetchwt1, Rdsspd, Rdsspq,
        Reservednop, Sahf, Tzcnt,
    };
    let has = |f: Features| features.0 & f.0 == f.0;
    match i.mnemonic() {
        // Without their features these are what they are without F3: scans.
        Tzcnt | Lzcnt => true,
        // 0F 0D is a NOP on every CPU with 64-bit mode, 0F 18 to 0F 1F since the P6 family.
        Prefetch | Prefetchw | Prefetchwt1 => has(Features::LM) || has(Features::PREFETCHW),
        Reservednop if i.op_code().op_code() == 0x0d => has(Features::LM),
        Prefetchnta | Prefetcht0 | Prefetcht1 | Prefetcht2 | Prefetchit0 | Prefetchit1 => {
            has(Features::NOPL) || has(Features::SSE)
        }
        Endbr32 | Endbr64 | Rdsspd | Rdsspq | Cldemote | Reservednop => has(Features::NOPL),
        Nop if i.op_count() > 0 => has(Features::NOPL),
        Lahf | Sahf if i.code_size() == CodeSize::Code64 => has(Features::LAHF),
        _ => i.cpuid_features().iter().all(|f| feature(*f).is_some_and(has)),
    }
}

/// The features that bring what iced calls `f`; `None`: no model has it.
#[rustfmt::skip]
fn feature(f: CpuidFeature) -> Option<Features> {
    use CpuidFeature as C;
    Some(match f {
        C::INTEL8086 | C::INTEL8086_ONLY | C::INTEL186 | C::INTEL286 | C::INTEL286_ONLY
        | C::INTEL386 | C::INTEL386_ONLY | C::INTEL486 | C::CPUID | C::PAUSE => Features::NONE,
        C::MULTIBYTENOP => Features::NOPL,
        // It has no bit of its own; all models with a TSC have it.
        C::RDPMC      => Features::TSC,
        C::FPU | C::FPU287 | C::FPU387 => Features::FPU,
        C::X64        => Features::LM,
        C::TSC        => Features::TSC,
        C::MSR        => Features::MSR,
        C::MONITOR    => Features::MONITOR,
        C::CX8        => Features::CX8,
        C::SEP        => Features::SEP,
        C::CMOV       => Features::CMOV,
        C::CLFSH      => Features::CLFSH,
        C::MMX        => Features::MMX,
        C::FXSR       => Features::FXSR,
        C::SSE        => Features::SSE,
        C::SSE2       => Features::SSE2,
        C::SSE3       => Features::SSE3,
        C::SSSE3      => Features::SSSE3,
        C::SSE4_1     => Features::SSE4_1,
        C::SSE4_2     => Features::SSE4_2,
        C::POPCNT     => Features::POPCNT,
        C::CMPXCHG16B => Features::CX16,
        C::SYSCALL    => Features::SYSCALL,
        C::PKU        => Features::PKU,
        C::RDTSCP     => Features::RDTSCP,
        C::XSAVE      => Features::XSAVE,
        C::XSAVEOPT   => Features::XSAVEOPT,
        C::XSAVEC     => Features::XSAVEC,
        C::FSGSBASE   => Features::FSGSBASE,
        C::INVPCID    => Features::INVPCID,
        C::SMAP       => Features::SMAP,
        C::AVX        => Features::AVX,
        C::AVX2       => Features::AVX2,
        C::FMA        => Features::FMA,
        C::F16C       => Features::F16C,
        C::AES        => Features::AES,
        C::PCLMULQDQ  => Features::PCLMULQDQ,
        C::VAES       => Features::VAES,
        C::VPCLMULQDQ => Features::VPCLMULQDQ,
        C::SHA        => Features::SHA,
        C::BMI1       => Features::BMI1,
        C::BMI2       => Features::BMI2,
        C::LZCNT      => Features::LZCNT,
        C::ADX        => Features::ADX,
        C::MOVBE      => Features::MOVBE,
        C::RDRAND     => Features::RDRAND,
        C::RDSEED     => Features::RDSEED,
        C::RDPID      => Features::RDPID,
        _ => return None,
    })
}
