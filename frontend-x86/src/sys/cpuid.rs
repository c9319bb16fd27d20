//! CPUID: feature bits as one table, and the leaves made from it and from the CPU's state.
//!
//! The model is an Intel-like family 6 CPU of the x86-64-v2 level. Which features it has is
//! [`emu_core::cpu::Cpu::features`], a [`Features`] set that other files ask too. Frequencies are
//! told outright (leaf 15H, and the timing leaf of hypervisors), so that no guest must measure.
//!
//! Source: SDM Vol. 2, CPUID.

use super::{control, cr4, msr, paging, xcr0};
use emu_core::clock::TSC_HZ;
use emu_core::cpu::Cpu;

/// A set of features, one bit each; see the constants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features(pub u128);

/// The registers of CPUID that hold feature bits.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    Ecx1,
    Edx1,
    Ebx7,
    Ecx7,
    Edx7,
    Ecx81,
    Edx81,
    Edx87,
    EaxD1,
}

macro_rules! features {
    ($($name:ident $word:ident $bit:literal;)*) => {
        #[repr(u8)]
        #[allow(non_camel_case_types, clippy::upper_case_acronyms)]
        enum Number { $($name),* }

        #[allow(missing_docs)] // the names are the manual's
        impl Features { $(pub const $name: Features = Features(1 << Number::$name as u8);)* }

        static ROWS: &[(Features, Word, u8)] = &[$((Features::$name, Word::$word, $bit)),*];
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
    CLFSH        Edx1 19;
    MMX          Edx1 23;
    FXSR         Edx1 24;
    SSE          Edx1 25;
    SSE2         Edx1 26;
    SSE3         Ecx1 0;
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
    TSC_DEADLINE Ecx1 24;
    AES          Ecx1 25;
    XSAVE        Ecx1 26;
    AVX          Ecx1 28;
    F16C         Ecx1 29;
    RDRAND       Ecx1 30;
    HYPERVISOR   Ecx1 31;
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
    SHA          Ebx7 29;
    UMIP         Ecx7 2;
    VAES         Ecx7 9;
    VPCLMULQDQ   Ecx7 10;
    RDPID        Ecx7 22;
    FSRM         Edx7 4;
    SPEC_CTRL    Edx7 26;
    ARCH_CAPS    Edx7 29;
    LAHF         Ecx81 0;
    LZCNT        Ecx81 5;
    PREFETCHW    Ecx81 8;
    SYSCALL      Edx81 11;
    NX           Edx81 20;
    PDPE1GB      Edx81 26;
    RDTSCP       Edx81 27;
    LM           Edx81 29;
    INVARIANT_TSC Edx87 8;
    XSAVEOPT     EaxD1 0;
    XSAVEC       EaxD1 1;
    XGETBV1      EaxD1 2;
}

/// The psABI's baseline and the system features that every model here has.
const BASE: Features = Features::of(&[
    Features::FPU,
    Features::VME,
    Features::DE,
    Features::PSE,
    Features::TSC,
    Features::MSR,
    Features::PAE,
    Features::MCE,
    Features::CX8,
    Features::APIC,
    Features::SEP,
    Features::MTRR,
    Features::PGE,
    Features::MCA,
    Features::CMOV,
    Features::PAT,
    Features::PSE36,
    Features::CLFSH,
    Features::MMX,
    Features::FXSR,
    Features::SSE,
    Features::SSE2,
    Features::MONITOR,
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
    Features::ARCH_CAPS,
    Features::SYSCALL,
    Features::NX,
    Features::PDPE1GB,
    Features::RDTSCP,
    Features::LM,
    Features::INVARIANT_TSC,
]);

impl Features {
    /// The default model: x86-64-v2 of the psABI and the system features that this crate has.
    /// SMAP works but is left out: STAC and CLAC at every user access cost more than they teach.
    pub const X86_64_V2: Features = Features::of(&[
        BASE,
        Features::SSE3,
        Features::SSSE3,
        Features::CX16,
        Features::SSE4_1,
        Features::SSE4_2,
        Features::POPCNT,
        Features::LAHF,
    ]);

    /// The x86-64-v3 level of the psABI, and what CPUs of that level usually have besides.
    pub const X86_64_V3: Features = Features::of(&[
        Features::X86_64_V2,
        Features::AVX,
        Features::AVX2,
        Features::BMI1,
        Features::BMI2,
        Features::F16C,
        Features::FMA,
        Features::LZCNT,
        Features::MOVBE,
        Features::ADX,
        Features::AES,
        Features::PCLMULQDQ,
        Features::SHA,
        Features::RDRAND,
        Features::RDSEED,
        Features::RDPID,
        Features::PREFETCHW,
        Features::XSAVEOPT,
        Features::XSAVEC,
        Features::XGETBV1,
    ]);

    /// No feature.
    pub const NONE: Features = Features(0);

    /// The union of `all`.
    pub const fn of(all: &[Features]) -> Features {
        let (mut bits, mut i) = (0, 0);
        while i < all.len() {
            bits |= all[i].0;
            i += 1;
        }
        Features(bits)
    }

    /// Whether `cpu` has all of these features.
    pub const fn in_cpu(self, cpu: &Cpu) -> bool {
        cpu.features & self.0 == self.0
    }

    /// Value of a feature register.
    fn word(bits: u128, word: Word) -> u32 {
        let set = ROWS.iter().filter(|r| r.1 == word && bits & r.0.0 != 0);
        set.fold(0, |v, r| v | 1 << r.2)
    }
}

/// Family, model and stepping (leaf 1, EAX): family 6, model 2CH, stepping 2.
pub const SIGNATURE: u32 = 0x0002_06c2;

/// Highest basic leaf.
const MAX_BASIC: u32 = 0x16;
/// Highest extended leaf.
const MAX_EXTENDED: u32 = 0x8000_0008;
/// Highest hypervisor leaf: the timing leaf.
const MAX_HYPERVISOR: u32 = 0x4000_0010;

const VENDOR: &[u8; 12] = b"GenuineIntel";
const HYPERVISOR: &[u8; 12] = b"Ring3Ring3\0\0";
const BRAND: &[u8; 48] =
    b"Ring3 x86-64-v2 CPU\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// Caches of leaf 4, by subleaf: (type, level), ways, sets; lines of 64 bytes.
static CACHES: &[(u32, u32, u32)] = &[
    (1 | 1 << 5 | 1 << 8, 8, 64),    // L1 data, 32 KiB
    (2 | 1 << 5 | 1 << 8, 4, 128),   // L1 instruction, 32 KiB
    (3 | 2 << 5 | 1 << 8, 8, 512),   // L2, 256 KiB
    (3 | 3 << 5 | 1 << 8, 16, 8192), // L3, 8 MiB
];

/// Four bytes of text from `at`.
fn text(s: &[u8], at: usize) -> u32 {
    s.iter().skip(at).take(4).rev().fold(0, |v, &b| v << 8 | u32::from(b))
}

/// Size in bytes of an XSAVE area with the components `mask` (SDM Vol. 1, 13.5).
fn xsave_size(mask: u64) -> u32 {
    if mask & xcr0::AVX != 0 { 832 } else { 576 }
}

/// EAX, EBX, ECX and EDX of CPUID for `leaf` (EAX) and `sub` (ECX). A leaf beyond the highest
/// gives the highest basic one, as on Intel CPUs.
pub fn cpuid(cpu: &Cpu, leaf: u32, sub: u32) -> [u32; 4] {
    let word = |w| Features::word(cpu.features, w);
    let has = |f: Features| f.in_cpu(cpu);
    let leaf = match leaf {
        0..=MAX_BASIC | 0x8000_0000..=MAX_EXTENDED => leaf,
        0x4000_0000..=MAX_HYPERVISOR if has(Features::HYPERVISOR) => leaf,
        _ => MAX_BASIC,
    };
    let khz = (TSC_HZ / 1000) as u32;
    match leaf {
        0 => [MAX_BASIC, text(VENDOR, 0), text(VENDOR, 8), text(VENDOR, 4)],
        1 => {
            let osxsave = cpu.sys.cr4 & cr4::OSXSAVE != 0;
            let off = cpu.sys.misc_enable & msr::MISC_ENABLE_MONITOR == 0;
            let ecx = word(Word::Ecx1) & !(u32::from(off) << 3) | u32::from(osxsave) << 27;
            // CLFLUSH line of 8 quadwords, one logical processor, APIC id 0.
            [SIGNATURE, 0x0001_0800, ecx, word(Word::Edx1)]
        }
        // No descriptors: leaf 4 has the caches.
        2 => [0xff01, 0, 0, 0],
        4 => CACHES
            .get(sub as usize)
            .map_or([0; 4], |&(kind, ways, sets)| [kind, (ways - 1) << 22 | 63, sets - 1, 0]),
        // Monitored lines have 64 bytes; there are no extensions.
        5 if has(Features::MONITOR) => [64, 64, 0, 0],
        // The APIC timer runs always (ARAT).
        6 => [4, 0, 0, 0],
        7 if sub == 0 => [0, word(Word::Ebx7), word(Word::Ecx7), word(Word::Edx7)],
        // One thread, one core, x2APIC id 0.
        0xb => match sub {
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
                1 if has(Features::XSAVEC) => [word(Word::EaxD1), xsave_size(cpu.sys.xcr0), 0, 0],
                1 => [word(Word::EaxD1), 0, 0, 0],
                2 if supported & xcr0::AVX != 0 => [256, 576, 0, 0],
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
        0x8000_0000 => [MAX_EXTENDED, 0, 0, 0],
        0x8000_0001 => [0, 0, word(Word::Ecx81), word(Word::Edx81)],
        0x8000_0002..=0x8000_0004 => {
            let at = (leaf - 0x8000_0002) as usize * 16;
            [0, 4, 8, 12].map(|i| text(BRAND, at + i))
        }
        // L2: 256 KiB, 8 ways, 64-byte lines.
        0x8000_0006 => [0, 0, 256 << 16 | 6 << 12 | 64, 0],
        0x8000_0007 => [0, 0, 0, word(Word::Edx87)],
        0x8000_0008 => [48 << 8 | paging::MAXPHYADDR, 0, 0, 0],
        _ => [0; 4],
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, Level};
    use super::*;

    #[test]
    fn no_two_features_share_a_bit() {
        for (i, a) in ROWS.iter().enumerate() {
            assert_eq!(a.0.0, 1 << i);
            assert!(ROWS[..i].iter().all(|b| b.1 != a.1 || b.2 != a.2), "row {i}");
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
        c.features = Features::X86_64_V3.0;
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
