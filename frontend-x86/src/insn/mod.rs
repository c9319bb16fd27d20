//! The instruction table: one row per mnemonic, one file per family.

pub mod arith;
pub mod bits;
pub mod branch;
pub mod data;
pub mod flags;
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

use crate::row::{Attr, Row};
use emu_core::uop::HelperDef;
use iced_x86::{CpuidFeature, Instruction, Mnemonic};
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
    arith bits branch data flags mmx sse sse2 sse3 ssse3 sse41 sse42 string system x87
}

/// All helpers, by family.
pub static HELPERS: &[&[&HelperDef]] = &[
    arith::HELPERS,
    data::HELPERS,
    mmx::HELPERS,
    sse::HELPERS,
    string::HELPERS,
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
pub fn enabled(i: &Instruction, features: u64) -> bool {
    use Mnemonic::{Endbr32, Endbr64, Lzcnt, Rdsspd, Rdsspq, Tzcnt};
    // These are something else, not undefined, on a CPU without them: scans, and NOPs.
    if matches!(i.mnemonic(), Tzcnt | Lzcnt | Endbr32 | Endbr64 | Rdsspd | Rdsspq) {
        return true;
    }
    i.cpuid_features().iter().all(|f| has_feature(*f, features))
}

fn has_feature(f: CpuidFeature, _features: u64) -> bool {
    use CpuidFeature::*;
    matches!(
        f,
        INTEL8086 | INTEL8086_ONLY | INTEL186 | INTEL286 | INTEL286_ONLY | INTEL386 | INTEL386_ONLY
            | INTEL486 | X64 | CPUID | TSC | MSR | CX8 | CMOV | SYSCALL | SEP | FPU | FPU287 | FPU387
            | MMX | SSE | SSE2 | SSE3 | SSSE3 | SSE4_1 | SSE4_2 | POPCNT | CMPXCHG16B | FXSR | XSAVE
            | RDTSCP | CLFSH | MULTIBYTENOP | PAUSE | PREFETCHW | SMX | INVPCID | FSGSBASE | RDPMC
    )
}
