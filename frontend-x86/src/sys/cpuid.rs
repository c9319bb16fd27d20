//! CPUID: feature bits as one table, and the leaves made from it and from the CPU's state.
//!
//! What is fixed comes from the CPU's [model](crate::model), what the CPU has is
//! [`emu_core::cpu::Cpu::features`], a [`Features`] set that other files ask too. The highest leaf
//! is the model's, or that of the last feature: a feature that is there can always be found.
//! Models of our own tell frequencies outright (leaf 15H, and the timing leaf of hypervisors), so
//! that no guest must measure.
//!
//! Source: SDM Vol. 2, CPUID.

use super::{control, cr4, msr, xcr0};
use crate::model::{self, Cache, Holds, Model};
use emu_core::clock::TSC_HZ;
use emu_core::cpu::{Cpu, mode};

/// A set of features, one bit each; see the constants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features(pub u128);

/// The registers of CPUID that hold feature bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// Not told by CPUID: it follows from the generation.
    Generation,
    Ecx1,
    Edx1,
    Eax6,
    Ebx7,
    Ecx7,
    Edx7,
    Edx72,
    Ecx81,
    Edx81,
    Edx87,
    EaxD1,
}

impl Word {
    /// Leaf, subleaf, and which of EAX to EDX it is.
    fn place(self) -> Option<(u32, u32, usize)> {
        Some(match self {
            Word::Generation => return None,
            Word::Ecx1 => (1, 0, 2),
            Word::Edx1 => (1, 0, 3),
            Word::Eax6 => (6, 0, 0),
            Word::Ebx7 => (7, 0, 1),
            Word::Ecx7 => (7, 0, 2),
            Word::Edx7 => (7, 0, 3),
            Word::Edx72 => (7, 2, 3),
            Word::Ecx81 => (0x8000_0001, 0, 2),
            Word::Edx81 => (0x8000_0001, 0, 3),
            Word::Edx87 => (0x8000_0007, 0, 3),
            Word::EaxD1 => (0xd, 1, 0),
        })
    }
}

/// A feature's row.
#[derive(Debug)]
pub struct Row {
    /// The feature itself, one bit.
    pub feature: Features,
    /// Where CPUID tells it.
    pub(crate) word: Word,
    /// The bit in that register.
    pub(crate) bit: u8,
    names: &'static str,
}

impl Row {
    /// Its names for users: Linux' (`/proc/cpuinfo`), then others.
    pub fn names(&self) -> impl Iterator<Item = String> {
        self.names.split_ascii_whitespace().map(str::to_ascii_lowercase)
    }

    /// Its name for users.
    pub fn name(&self) -> String {
        self.names().next().unwrap_or_default()
    }
}

macro_rules! names {
    ($name:ident) => {
        stringify!($name)
    };
    ($name:ident $users:literal) => {
        $users
    };
}

/// Rows: constant, register, bit, and its names for users if they are not the constant's.
macro_rules! features {
    ($($name:ident $word:ident $bit:literal $($users:literal)?;)*) => {
        #[repr(u8)]
        #[allow(non_camel_case_types, clippy::upper_case_acronyms)]
        enum Number { $($name),* }

        #[allow(missing_docs)] // the names are the manual's
        impl Features { $(pub const $name: Features = Features(1 << Number::$name as u8);)* }

        /// All features.
        pub static ROWS: &[Row] = &[$(Row {
            feature: Features::$name,
            word: Word::$word,
            bit: $bit,
            names: names!($name $($users)?),
        }),*];
    };
}

features! {
    FPU          Edx1 0;
    VME          Edx1 1;
    DE           Edx1 2;
    PSE          Edx1 3;
    TSC          Edx1 4;
    MSR          Edx1 5;
    PAE          Edx1 6;
    MCE          Edx1 7;
    CX8          Edx1 8;
    APIC         Edx1 9;
    SEP          Edx1 11;
    MTRR         Edx1 12;
    PGE          Edx1 13;
    MCA          Edx1 14;
    CMOV         Edx1 15;
    PAT          Edx1 16;
    PSE36        Edx1 17;
    CLFSH        Edx1 19 "clflush";
    MMX          Edx1 23;
    FXSR         Edx1 24;
    SSE          Edx1 25;
    SSE2         Edx1 26;
    SSE3         Ecx1 0 "pni sse3";
    PCLMULQDQ    Ecx1 1;
    MONITOR      Ecx1 3;
    SSSE3        Ecx1 9;
    FMA          Ecx1 12;
    CX16         Ecx1 13;
    PCID         Ecx1 17;
    SSE4_1       Ecx1 19;
    SSE4_2       Ecx1 20;
    X2APIC       Ecx1 21;
    MOVBE        Ecx1 22;
    POPCNT       Ecx1 23;
    TSC_DEADLINE Ecx1 24 "tsc_deadline_timer tsc_deadline";
    AES          Ecx1 25;
    XSAVE        Ecx1 26;
    AVX          Ecx1 28;
    F16C         Ecx1 29;
    RDRAND       Ecx1 30;
    HYPERVISOR   Ecx1 31;
    ARAT         Eax6 2;
    FSGSBASE     Ebx7 0;
    BMI1         Ebx7 3;
    AVX2         Ebx7 5;
    SMEP         Ebx7 7;
    BMI2         Ebx7 8;
    ERMS         Ebx7 9;
    INVPCID      Ebx7 10;
    RDSEED       Ebx7 18;
    ADX          Ebx7 19;
    SMAP         Ebx7 20;
    SHA          Ebx7 29 "sha_ni";
    UMIP         Ecx7 2;
    PKU          Ecx7 3;
    VAES         Ecx7 9;
    VPCLMULQDQ   Ecx7 10;
    LA57         Ecx7 16;
    RDPID        Ecx7 22;
    FSRM         Edx7 4;
    SPEC_CTRL    Edx7 26 "ibrs ibpb spec_ctrl";
    ARCH_CAPS    Edx7 29 "arch_capabilities";
    BHI_CTRL     Edx72 4;
    LAHF         Ecx81 0 "lahf_lm";
    LZCNT        Ecx81 5 "abm lzcnt";
    PREFETCHW    Ecx81 8 "3dnowprefetch";
    SYSCALL      Edx81 11;
    NX           Edx81 20 "nx xd";
    PDPE1GB      Edx81 26;
    RDTSCP       Edx81 27;
    LM           Edx81 29;
    INVARIANT_TSC Edx87 8 "nonstop_tsc constant_tsc invtsc";
    XSAVEOPT     EaxD1 0;
    XSAVEC       EaxD1 1;
    XGETBV1      EaxD1 2;
    // Multi-byte NOPs and hints: since the P6 family.
    NOPL         Generation 0;
}

impl Features {
    /// Those of the model `x86-64-v2`.
    pub const X86_64_V2: Features = model::V2;
    /// Those of the model `x86-64-v3`, the default.
    pub const X86_64_V3: Features = model::V3;

    /// No feature.
    pub const NONE: Features = Features(0);

    /// All features.
    pub const ALL: Features = Features((1 << ROWS.len()) - 1);

    /// The union of `all`.
    pub const fn of(all: &[Features]) -> Features {
        let (mut bits, mut i) = (0, 0);
        while i < all.len() {
            bits |= all[i].0;
            i += 1;
        }
        Features(bits)
    }

    /// Those that are not in `other`.
    #[must_use]
    pub const fn without(self, other: Features) -> Features {
        Features(self.0 & !other.0)
    }

    /// The name of one of these features for users, the most telling; `None` for no feature.
    #[must_use]
    pub fn name(self) -> Option<String> {
        let row = ROWS.iter().rev().find(|r| self.0 & r.feature.0 != 0);
        row.map(Row::name)
    }

    /// Whether `cpu` has all of these features.
    pub const fn in_cpu(self, cpu: &Cpu) -> bool {
        cpu.features & self.0 == self.0
    }

    /// The features that a CPU tells of by its `cpuid`, a function of leaf and subleaf, to software
    /// that asks for the highest leaf first.
    pub fn told(cpuid: impl Fn(u32, u32) -> [u32; 4]) -> Features {
        let set = ROWS.iter().filter(|row| match row.word.place() {
            Some((leaf, sub, register)) => {
                let top = cpuid(leaf & 0x8000_0000, 0)[0];
                let known = top >> 16 == leaf >> 16 && top >= leaf;
                known && cpuid(leaf, sub)[register] >> row.bit & 1 != 0
            }
            None => cpuid(1, 0)[0] >> 8 & 15 >= 6,
        });
        Features(set.fold(0, |all, row| all | row.feature.0))
    }

    /// Value of a feature register.
    fn word(bits: u128, word: Word) -> u32 {
        let set = ROWS.iter().filter(|r| r.word == word && bits & r.feature.0 != 0);
        set.fold(0, |v, r| v | 1 << r.bit)
    }
}

/// Highest hypervisor leaf: the timing leaf.
const MAX_HYPERVISOR: u32 = 0x4000_0010;
const HYPERVISOR: &[u8; 12] = b"Ring3Ring3\0\0";

/// `IA32_MISC_ENABLE`: leaf 0 tells 3 at most (SDM Vol. 4, table 2-2).
const LIMIT_CPUID_MAXVAL: u64 = 1 << 22;

/// SYSCALL in EDX of leaf 80000001H.
const SYSCALL_BIT: u32 = 1 << 11;

/// Four bytes of text from `at`.
fn text(s: &[u8], at: usize) -> u32 {
    s.iter().skip(at).take(4).rev().fold(0, |v, &b| v << 8 | u32::from(b))
}

/// Size in bytes of an XSAVE area with the components `mask` (SDM Vol. 1, 13.5).
fn xsave_size(mask: u64) -> u32 {
    match (mask & xcr0::PKRU != 0, mask & xcr0::AVX != 0) {
        (true, _) => 2696,
        (false, true) => 832,
        _ => 576,
    }
}

/// The same in the compacted format.
fn compacted_size(mask: u64) -> u32 {
    let size = |bit, bytes| if mask & bit != 0 { bytes } else { 0 };
    576 + size(xcr0::AVX, 256) + size(xcr0::PKRU, 8)
}

/// Leaf 4 for the `n`th cache (SDM Vol. 2, CPUID, leaf 04H): one core and one thread share it.
fn cache_leaf(caches: &[Cache], n: u32) -> [u32; 4] {
    caches.get(n as usize).map_or([0; 4], |c| {
        let kind = c.holds as u32 | u32::from(c.level) << 5 | 1 << 8;
        [kind, (c.ways - 1) << 22 | (c.line - 1), c.sets() - 1, 0]
    })
}

/// ECX of leaf 80000006H: size, associativity and line of the second-level cache.
fn l2(caches: &[Cache]) -> u32 {
    caches.iter().find(|c| c.level == 2 && c.holds == Holds::Both).map_or(0, |c| {
        // The field's codes (SDM Vol. 2, CPUID, leaf 80000006H).
        let ways = match c.ways {
            8 => 6,
            16 => 8,
            few => few & 7,
        };
        c.kib << 16 | ways << 12 | c.line
    })
}

/// The highest leaf of a range: `of_model`, or that of the last feature that `cpu` has in `range`.
fn highest(cpu: &Cpu, of_model: u32, range: &[(Word, u32)]) -> u32 {
    let used = range.iter().filter(|(word, _)| Features::word(cpu.features, *word) != 0);
    used.map(|(_, leaf)| *leaf).fold(of_model, u32::max)
}

/// Highest basic leaf.
fn max_basic(cpu: &Cpu, m: &Model) -> u32 {
    use Word::{Eax6, EaxD1, Ebx7, Ecx7, Edx7, Edx72};
    if cpu.sys.misc_enable & LIMIT_CPUID_MAXVAL != 0 {
        return m.basic.min(3);
    }
    let of_model = if Features::XSAVE.in_cpu(cpu) { m.basic.max(0xd) } else { m.basic };
    let rows = [(Eax6, 6), (Ebx7, 7), (Ecx7, 7), (Edx7, 7), (Edx72, 7), (EaxD1, 0xd)];
    highest(cpu, of_model, &rows)
}

/// Highest extended leaf, 0 for none.
fn max_extended(cpu: &Cpu, m: &Model) -> u32 {
    use Word::{Ecx81, Edx81, Edx87};
    let of_model = if Features::LM.in_cpu(cpu) { 0x8000_0008 } else { m.extended };
    highest(cpu, of_model, &[(Ecx81, 0x8000_0001), (Edx81, 0x8000_0001), (Edx87, 0x8000_0007)])
}

/// EAX, EBX, ECX and EDX of CPUID for `leaf` (EAX) and `sub` (ECX). A leaf beyond the highest
/// gives the highest basic one, as on Intel CPUs.
pub fn cpuid(cpu: &Cpu, leaf: u32, sub: u32) -> [u32; 4] {
    let m = model::of(cpu);
    let word = |w| Features::word(cpu.features, w);
    let has = |f: Features| f.in_cpu(cpu);
    let (basic, extended) = (max_basic(cpu, m), max_extended(cpu, m));
    let leaf = match leaf {
        0x8000_0000.. if leaf <= extended => leaf,
        0x4000_0000..=MAX_HYPERVISOR if has(Features::HYPERVISOR) => leaf,
        _ => leaf.min(basic),
    };
    let khz = (TSC_HZ / 1000) as u32;
    match leaf {
        0 => [basic, text(m.vendor, 0), text(m.vendor, 8), text(m.vendor, 4)],
        1 => {
            let osxsave = cpu.sys.cr4 & cr4::OSXSAVE != 0;
            let off = has(Features::MONITOR) && !msr::has_monitor(cpu);
            let ecx = word(Word::Ecx1) ^ u32::from(off) << 3 | u32::from(osxsave) << 27;
            // CLFLUSH line of 8 quadwords, one logical processor, APIC id 0.
            let line = if has(Features::CLFSH) { 8 << 8 | 1 << 16 } else { 0 };
            [m.signature(), u32::from(m.brand_index) | line, ecx, word(Word::Edx1)]
        }
        2 => m.descriptors,
        4 => cache_leaf(m.caches, sub),
        // Monitored lines have 64 bytes; there are no extensions.
        5 if has(Features::MONITOR) => [64, 64, 0, 0],
        6 => [word(Word::Eax6), 0, 0, 0],
        7 if sub == 0 => {
            let ospke = cpu.sys.cr4 & cr4::PKE != 0;
            let ecx = word(Word::Ecx7) | u32::from(ospke) << 4;
            let last = if word(Word::Edx72) != 0 { 2 } else { 0 };
            [last, word(Word::Ebx7), ecx, word(Word::Edx7)]
        }
        7 if sub == 2 => [0, 0, 0, word(Word::Edx72)],
        // One thread, one core, x2APIC id 0.
        0xb if has(Features::X2APIC) => match sub {
            0 => [0, 1, 1 << 8, 0],
            1 => [0, 1, 2 << 8 | 1, 0],
            _ => [0, 0, sub & 0xff, 0],
        },
        0xd if has(Features::XSAVE) => {
            let supported = control::xcr0_supported(cpu);
            match sub {
                0 => {
                    let size = xsave_size(cpu.sys.xcr0);
                    [supported as u32, size, xsave_size(supported), (supported >> 32) as u32]
                }
                1 if has(Features::XSAVEC) => {
                    [word(Word::EaxD1), compacted_size(cpu.sys.xcr0), 0, 0]
                }
                1 => [word(Word::EaxD1), 0, 0, 0],
                2 if supported & xcr0::AVX != 0 => [256, 576, 0, 0],
                9 if supported & xcr0::PKRU != 0 => [8, 2688, 0, 0],
                _ => [0; 4],
            }
        }
        // The TSC is the core crystal clock itself.
        0x15 => [1, 1, TSC_HZ as u32, 0],
        0x16 => [khz / 1000, khz / 1000, khz / 1000, 0],
        0x4000_0000 => {
            [MAX_HYPERVISOR, text(HYPERVISOR, 0), text(HYPERVISOR, 4), text(HYPERVISOR, 8)]
        }
        // TSC and APIC timer frequency in kHz, as several hypervisors tell them.
        0x4000_0010 => [khz, khz, 0, 0],
        0x8000_0000 => [extended, 0, 0, 0],
        0x8000_0001 => {
            // Intel's CPUs tell SYSCALL in 64-bit mode only, where alone it works.
            let hidden = if cpu.mode & mode::CODE64 == 0 { SYSCALL_BIT } else { 0 };
            [0, 0, word(Word::Ecx81), word(Word::Edx81) & !hidden]
        }
        0x8000_0002..=0x8000_0004 => {
            let at = (leaf - 0x8000_0002) as usize * 16;
            [0, 4, 8, 12].map(|i| text(m.brand.as_bytes(), at + i))
        }
        0x8000_0006 => [0, 0, l2(m.caches), 0],
        0x8000_0007 => [0, 0, 0, word(Word::Edx87)],
        0x8000_0008 => [super::linear_bits(cpu) << 8 | model::phys_bits(cpu), 0, 0, 0],
        _ => [0; 4],
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, Level};
    use super::*;
    use crate::model::CpuModel;

    #[test]
    fn what_a_cpu_tells_is_what_it_has() {
        let c = testing::cpu(Level::Long);
        assert_eq!(Features::told(|leaf, sub| cpuid(&c, leaf, sub)).0, c.features);
    }

    #[test]
    fn no_two_features_share_a_bit() {
        for (i, a) in ROWS.iter().enumerate() {
            assert_eq!(a.feature.0, 1 << i);
            assert!(ROWS[..i].iter().all(|b| b.word != a.word || b.bit != a.bit), "row {i}");
        }
    }

    /// The psABI's list for x86-64-v2, as Linux and glibc test it.
    #[test]
    fn the_model_is_x86_64_v2() {
        let c = testing::cpu(Level::Long);
        let [eax, ebx, ecx, edx] = cpuid(&c, 0, 0);
        let vendor: Vec<u8> = [ebx, edx, ecx].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!((eax, vendor.as_slice()), (0x16, b"GenuineIntel".as_slice()));
        let [sig, _, ecx, edx] = cpuid(&c, 1, 0);
        assert_eq!((sig >> 8 & 15, sig >> 4 & 15 | sig >> 12 & 0xf0), (6, 0x2c));
        assert_eq!(ecx & 0x98_2201, 0x98_2201, "SSE3 SSSE3 CX16 SSE4.1 SSE4.2 POPCNT");
        assert_eq!(edx & 0x0780_8101, 0x0780_8101, "FPU CX8 CMOV MMX FXSR SSE SSE2");
        assert_eq!(ecx & (1 << 27 | 1 << 28), 0, "neither OSXSAVE nor AVX");
        assert_eq!(cpuid(&c, 0x8000_0001, 0)[2] & 1, 1, "LAHF");
        assert_eq!(cpuid(&c, 0x8000_0001, 0)[3], 0x2c10_0800, "SYSCALL NX PDPE1GB RDTSCP LM");
        assert_eq!(cpuid(&c, 7, 0)[1], 1 | 1 << 7 | 1 << 9 | 1 << 10);
        assert_eq!(cpuid(&c, 7, 1), [0; 4]);
    }

    /// The psABI's list for x86-64-v3, and that what belongs together comes together.
    #[test]
    fn the_v3_model() {
        let mut c = testing::cpu(Level::Long);
        CpuModel::default().apply(&mut c);
        let ecx = cpuid(&c, 1, 0)[2];
        assert_eq!(ecx & 0x3040_1000, 0x3040_1000, "FMA MOVBE AVX F16C");
        assert_eq!(ecx & 0x4200_0002, 0x4200_0002, "PCLMULQDQ AES RDRAND");
        assert_eq!(cpuid(&c, 7, 0)[1] & 0x200c_0128, 0x200c_0128, "BMI1 AVX2 BMI2 RDSEED ADX SHA");
        assert_eq!(cpuid(&c, 0x8000_0001, 0)[2] & 0x121, 0x121, "LAHF LZCNT PREFETCHW");
        c.sys.xcr0 = 7;
        assert_eq!(cpuid(&c, 0xd, 0), [7, 832, 832, 0]);
        assert_eq!(cpuid(&c, 0xd, 1), [7, 832, 0, 0]);
    }

    /// Linux takes the TSC frequency from leaf 15H: ECX * EBX / EAX.
    #[test]
    fn frequencies() {
        let c = testing::cpu(Level::Long);
        let [den, num, crystal, _] = cpuid(&c, 0x15, 0);
        assert_eq!(u64::from(crystal) * u64::from(num) / u64::from(den), TSC_HZ);
        assert_eq!(cpuid(&c, 0x16, 0)[0], 1000);
        assert_eq!(cpuid(&c, 0x4000_0010, 0)[0], 1_000_000);
        assert_eq!(cpuid(&c, 0x17, 0), cpuid(&c, 0x16, 0), "beyond the highest leaf");
        assert_eq!(cpuid(&c, 0x4000_0011, 0), cpuid(&c, 0x16, 0));
        assert_eq!(cpuid(&c, 0x8000_0009, 0), cpuid(&c, 0x16, 0));
    }

    #[test]
    fn leaves_that_follow_the_state() {
        let mut c = testing::cpu(Level::Long);
        c.sys.xcr0 = 3;
        assert_eq!(cpuid(&c, 0xd, 0), [3, 576, 576, 0]);
        assert_eq!((cpuid(&c, 0xd, 1), cpuid(&c, 0xd, 2)), ([0; 4], [0; 4]));
        c.features |= Features::AVX.0;
        assert_eq!(cpuid(&c, 0xd, 0), [7, 576, 832, 0]);
        assert_eq!(cpuid(&c, 0xd, 2), [256, 576, 0, 0]);
        c.sys.cr4 |= cr4::OSXSAVE;
        assert_eq!(cpuid(&c, 1, 0)[2] >> 27 & 3, 3);
        let brand: Vec<u8> = (0x8000_0002..=0x8000_0004)
            .flat_map(|l| cpuid(&c, l, 0))
            .flat_map(u32::to_le_bytes)
            .collect();
        assert!(brand.starts_with(b"Ring3 x86-64-v2 CPU\0"));
        assert_eq!(cpuid(&c, 4, 4), [0; 4]);
    }
}
