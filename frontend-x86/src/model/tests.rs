//! Leaf against behaviour: what CPUID tells is what works, on every model, with every feature added
//! and removed.

use super::needs::{with_dependents, with_needs};
use super::*;
use crate::lift::lift_bytes;
use crate::sys::cpuid::{ROWS, Row, Word, cpuid};
use crate::sys::testing::{self, Level};
use crate::sys::{control, cr0, cr4, efer, mode, msr, paging, xcr0, xsave};
use emu_core::cpu::mode as m;
use emu_core::fault::vector;
use emu_core::mem::tlb::Access;
use emu_core::uop::{Block, Op};
use emu_core::width::Width::{W8, W32, W64};

/// How software can find out whether a feature is there.
enum Probe {
    /// This encoding is not #UD in 32-bit code.
    Code(&'static [u8]),
    /// This encoding is not #UD in 64-bit code.
    Code64(&'static [u8]),
    /// This MSR can be read.
    Msr(u32),
    /// This bit of EFER can be set.
    Efer(u64),
    /// On this CPU, in 64-bit mode if it has that; `None`: it cannot tell.
    Ask(fn(&mut Cpu) -> Option<bool>),
    /// Nothing but CPUID tells: a promise about speed or time.
    Promise,
}
use Probe::{Ask, Code, Code64, Efer, Msr, Promise};

/// Features without a row here must have a bit in CR4, which is the probe then.
#[rustfmt::skip]
static PROBES: &[(Features, Probe)] = &[
    (Features::FPU,        Code(&[0xd9, 0xe8])),                         // fld1
    (Features::TSC,        Code(&[0x0f, 0x31])),                         // rdtsc
    (Features::MSR,        Code(&[0x0f, 0x32])),                         // rdmsr
    (Features::CX8,        Code(&[0x0f, 0xc7, 0x08])),                   // cmpxchg8b [eax]
    (Features::SEP,        Code(&[0x0f, 0x34])),                         // sysenter
    (Features::CMOV,       Code(&[0x0f, 0x40, 0xc1])),                   // cmovo eax, ecx
    (Features::CLFSH,      Code(&[0x0f, 0xae, 0x38])),                   // clflush [eax]
    (Features::MMX,        Code(&[0x0f, 0x77])),                         // emms
    (Features::FXSR,       Code(&[0x0f, 0xae, 0x00])),                   // fxsave [eax]
    (Features::SSE,        Code(&[0x0f, 0x58, 0xc1])),                   // addps
    (Features::SSE2,       Code(&[0x66, 0x0f, 0x58, 0xc1])),             // addpd
    (Features::SSE3,       Code(&[0xf2, 0x0f, 0x7c, 0xc1])),             // haddps
    (Features::SSSE3,      Code(&[0x66, 0x0f, 0x38, 0x00, 0xc1])),       // pshufb
    (Features::SSE4_1,     Code(&[0x66, 0x0f, 0x38, 0x17, 0xc1])),       // ptest
    (Features::SSE4_2,     Code(&[0x66, 0x0f, 0x38, 0x37, 0xc1])),       // pcmpgtq
    (Features::PCLMULQDQ,  Code(&[0x66, 0x0f, 0x3a, 0x44, 0xc1, 0])),    // pclmulqdq
    (Features::AES,        Code(&[0x66, 0x0f, 0x38, 0xdc, 0xc1])),       // aesenc
    (Features::SHA,        Code(&[0x0f, 0x38, 0xc8, 0xc1])),             // sha1nexte
    (Features::MOVBE,      Code(&[0x0f, 0x38, 0xf0, 0x00])),             // movbe eax, [eax]
    (Features::POPCNT,     Code(&[0xf3, 0x0f, 0xb8, 0xc1])),             // popcnt eax, ecx
    (Features::XSAVE,      Code(&[0x0f, 0xae, 0x20])),                   // xsave [eax]
    (Features::XSAVEOPT,   Code(&[0x0f, 0xae, 0x30])),                   // xsaveopt [eax]
    (Features::XSAVEC,     Code(&[0x0f, 0xc7, 0x20])),                   // xsavec [eax]
    (Features::AVX,        Code(&[0xc5, 0xf0, 0x58, 0xc2])),             // vaddps
    (Features::AVX2,       Code(&[0xc4, 0xe2, 0x7d, 0x58, 0xc1])),       // vpbroadcastd
    (Features::FMA,        Code(&[0xc4, 0xe2, 0x71, 0x98, 0xc2])),       // vfmadd132ps
    (Features::F16C,       Code(&[0xc4, 0xe2, 0x79, 0x13, 0xc1])),       // vcvtph2ps
    (Features::VAES,       Code(&[0xc4, 0xe2, 0x75, 0xdc, 0xc2])),       // vaesenc ymm
    (Features::VPCLMULQDQ, Code(&[0xc4, 0xe3, 0x75, 0x44, 0xc2, 0])),    // vpclmulqdq ymm
    (Features::BMI1,       Code(&[0xc4, 0xe2, 0x70, 0xf2, 0xc1])),       // andn
    (Features::BMI2,       Code(&[0xc4, 0xe2, 0x71, 0xf7, 0xc1])),       // shlx
    (Features::ADX,        Code(&[0x66, 0x0f, 0x38, 0xf6, 0xc1])),       // adcx
    (Features::RDRAND,     Code(&[0x0f, 0xc7, 0xf0])),                   // rdrand eax
    (Features::RDSEED,     Code(&[0x0f, 0xc7, 0xf8])),                   // rdseed eax
    (Features::RDTSCP,     Code(&[0x0f, 0x01, 0xf9])),                   // rdtscp
    (Features::RDPID,      Code(&[0xf3, 0x0f, 0xc7, 0xf8])),             // rdpid eax
    (Features::INVPCID,    Code(&[0x66, 0x0f, 0x38, 0x82, 0x08])),       // invpcid ecx, [eax]
    (Features::MONITOR,    Code(&[0x0f, 0x01, 0xc8])),                   // monitor
    (Features::SMAP,       Code(&[0x0f, 0x01, 0xcb])),                   // stac
    (Features::NOPL,       Code(&[0x0f, 0x1f, 0xc0])),                   // nop eax
    (Features::CX16,       Code64(&[0x48, 0x0f, 0xc7, 0x08])),           // cmpxchg16b [rax]
    (Features::FSGSBASE,   Code64(&[0xf3, 0x0f, 0xae, 0xc0])),           // rdfsbase eax
    (Features::LAHF,       Code64(&[0x9f])),                             // lahf
    (Features::MTRR,       Msr(msr::addr::MTRRCAP)),
    (Features::MCA,        Msr(msr::addr::MCG_CAP)),
    (Features::PAT,        Msr(msr::addr::PAT)),
    (Features::SPEC_CTRL,  Msr(msr::addr::SPEC_CTRL)),
    (Features::ARCH_CAPS,  Msr(msr::addr::ARCH_CAPABILITIES)),
    (Features::BHI_CTRL,   Ask(|c| Some(msr::write(c, msr::addr::SPEC_CTRL, 1 << 10).is_ok()))),
    (Features::TSC_DEADLINE, Msr(msr::addr::TSC_DEADLINE)),
    (Features::NX,         Efer(efer::NXE)),
    (Features::SYSCALL,    Ask(|c| (c.mode & m::CODE64 != 0).then(|| set_efer(c, efer::SCE)))),
    (Features::LM,         Ask(|c| Some(c.mode & m::LONG != 0 || set_efer(c, efer::LME)))),
    (Features::X2APIC,     Ask(|c| Some(msr::write(c, 0x80b, 0).is_ok()))),
    (Features::APIC,       Ask(|c| of(c).p6().then(|| msr::read(c, 0x1b).is_ok()))),
    (Features::XGETBV1,    Ask(xgetbv1)),
    (Features::PSE36,      Ask(pse36)),
    (Features::PDPE1GB,    Ask(gib_page)),
    (Features::LA57,       Ask(la57)),
    (Features::LZCNT,      Ask(|c| Some(lifts_to(c, &[0xf3, 0x0f, 0xbd, 0xc1], Op::Lzcnt)))),
    // A NOP where 64-bit mode exists.
    (Features::PREFETCHW,  Ask(|c| {
        let lm = Features::LM.in_cpu(c);
        (!lm).then(|| works(&lift(c, CODE32, &[0x0f, 0x0d, 0x08])))
    })),
    (Features::HYPERVISOR, Ask(|c| Some(cpuid(c, 0x4000_0000, 0)[1] == u32::from_le_bytes(*b"Ring")))),
    (Features::ERMS, Promise),
    (Features::FSRM, Promise),
    (Features::INVARIANT_TSC, Promise),
    (Features::ARAT, Promise),
];

const CODE32: u32 = m::CODE32 | m::STACK32 | m::FLAT | m::SSE | m::AVX;
const CODE64: u32 = m::CODE64 | m::LONG | m::FLAT | m::SSE | m::AVX;

fn lift(c: &Cpu, mode: u32, bytes: &[u8]) -> Block {
    lift_bytes(bytes, mode, c.features, 1).0
}

fn works(b: &Block) -> bool {
    b.uops[0].op != Op::Raise || b.uops[0].imm != i64::from(vector::UD)
}

fn lifts_to(c: &Cpu, bytes: &[u8], op: Op) -> bool {
    lift(c, CODE32, bytes).uops.iter().any(|u| u.op == op)
}

fn set_efer(c: &mut Cpu, bit: u64) -> bool {
    let old = c.sys.efer;
    let done = msr::write(c, msr::addr::EFER, old | bit).is_ok();
    c.sys.efer = old;
    mode::update(c);
    done
}

fn set_cr4(c: &mut Cpu, bit: u64) -> bool {
    let old = c.sys.cr4;
    let done = control::write_cr(c, 4, old | bit).is_ok();
    c.sys.cr4 = old;
    mode::update(c);
    done
}

fn xgetbv1(c: &mut Cpu) -> Option<bool> {
    let old = c.sys.cr4;
    c.sys.cr4 |= cr4::OSXSAVE;
    let done = control::xgetbv(c, 1).is_ok();
    c.sys.cr4 = old;
    Some(done)
}

/// A 4-MByte page with bit 32 of its address set.
fn pse36(c: &mut Cpu) -> Option<bool> {
    if c.mode & m::LONG != 0 || !set_cr4(c, cr4::PSE) {
        return None;
    }
    let old = (c.sys.cr0, c.sys.cr4, c.sys.cr3);
    c.mem.write(0x40_0004, W32, 1 << 13 | 0xe7);
    (c.sys.cr0, c.sys.cr4, c.sys.cr3) = (old.0 | cr0::PG, cr4::PSE, 0x40_0000);
    c.tlb.flush_all(true);
    let at = paging::translate(c, 0x40_0000, Access::Read);
    (c.sys.cr0, c.sys.cr4, c.sys.cr3) = old;
    c.tlb.flush_all(true);
    Some(at == Ok(1 << 32))
}

/// CR4.LA57, which can be set outside long mode only.
fn la57(c: &mut Cpu) -> Option<bool> {
    let old = (c.sys.cr0, c.sys.efer);
    (c.sys.cr0, c.sys.efer) = (old.0 & !cr0::PG, 0);
    mode::update(c);
    let done = set_cr4(c, cr4::LA57);
    (c.sys.cr0, c.sys.efer) = old;
    mode::update(c);
    Some(done)
}

/// A 1-GByte page.
fn gib_page(c: &mut Cpu) -> Option<bool> {
    if c.mode & m::LONG == 0 {
        return None;
    }
    c.mem.write(0x10_1008, W64, 0xe7);
    let at = paging::translate(c, 0x4000_1234, Access::Read);
    c.tlb.flush_all(true);
    Some(at == Ok(0x1234))
}

/// Whether the feature of `row` can be told to be there, and is.
fn probe(c: &mut Cpu, row: &Row) -> Option<bool> {
    let lm = Features::LM.in_cpu(c);
    match PROBES.iter().find(|(f, _)| *f == row.feature).map(|(_, p)| p) {
        Some(Code(bytes)) => Some(works(&lift(c, CODE32, bytes))),
        Some(Code64(bytes)) => Some(lm && works(&lift(c, CODE64, bytes))),
        Some(Msr(n)) => Some(msr::read(c, *n).is_ok()),
        Some(Efer(bit)) => Some(set_efer(c, *bit)),
        Some(Ask(f)) => f(c),
        Some(Promise) => None,
        None => {
            let bits = control::CR4_BITS.iter().filter(|(_, f)| *f == row.feature);
            let all = bits.fold(0, |all, (bit, _)| all | bit);
            assert!(all != 0, "{}: no way to find out", row.name());
            Some(set_cr4(c, all))
        }
    }
}

/// A CPU of `model`, in 64-bit mode if it has that and `long`, else in protected mode.
fn cpu(model: CpuModel, long: bool) -> Cpu {
    let lm = model.features.0 & Features::LM.0 != 0;
    let mut c = testing::cpu(if lm && long { Level::Long } else { Level::Protected });
    model.apply(&mut c);
    c.sys.cr4 &= cr4::PAE;
    mode::update(&mut c);
    c
}

#[test]
fn what_cpuid_tells_is_what_works() {
    let mut asked = Features::NONE;
    for base in MODELS {
        let mut all: Vec<String> = vec![base.name.to_owned()];
        for row in ROWS {
            all.extend(["+", "-"].map(|sign| format!("{},{sign}{}", base.name, row.name())));
        }
        let mut seen = Vec::new();
        for text in all {
            let model: CpuModel = text.parse().unwrap();
            if seen.contains(&model) {
                continue;
            }
            seen.push(model);
            for mut c in [cpu(model, true), cpu(model, false)] {
                let told = Features::told(|leaf, sub| cpuid(&c, leaf, sub));
                for row in ROWS {
                    if let Some(there) = probe(&mut c, row) {
                        // SYSCALL hides outside 64-bit mode; LM and PCID are in force inside only.
                        asked.0 |= row.feature.0;
                        let hidden = row.feature == Features::PCID && c.mode & m::LONG == 0;
                        if !hidden {
                            let tells = match row.word {
                                Word::Generation => row.feature.in_cpu(&c),
                                _ => told.0 & row.feature.0 != 0,
                            };
                            assert_eq!(tells, there, "{text}: {}", row.name());
                        }
                    }
                }
                for (bit, feature) in control::CR4_BITS {
                    // CR4.PCIDE can be set in long mode only, CR4.LA57 only outside.
                    let long = c.mode & m::LONG != 0;
                    let mode = match *bit {
                        cr4::PCIDE => long,
                        cr4::LA57 => !long,
                        _ => true,
                    };
                    let there = feature.in_cpu(&c) && mode;
                    assert_eq!(set_cr4(&mut c, *bit), there, "{text}: CR4 {bit:#x}");
                }
            }
        }
    }
    for (f, p) in PROBES {
        assert_eq!(asked.0 & f.0 == 0, matches!(p, Promise), "{f:?} was never asked");
    }
}

/// A leaf beyond the highest gives the highest basic one; no leaf within is beyond.
#[test]
fn highest_leaves() {
    for m in MODELS {
        let c = cpu(CpuModel::named(m.name).unwrap(), true);
        let [basic, ..] = cpuid(&c, 0, 0);
        let last = cpuid(&c, basic, 0);
        for beyond in [basic + 1, 0xff, 0x3fff_ffff, 0x4000_0011, 0x8000_0009, 0xffff_ffff] {
            assert_eq!(cpuid(&c, beyond, 0), last, "{} leaf {beyond:#x}", m.name);
        }
        if m.extended == 0 {
            assert_eq!(cpuid(&c, 0x8000_0000, 0), last, "{}", m.name);
        }
    }
    // IA32_MISC_ENABLE, "Limit CPUID Maxval".
    let mut c = cpu(CpuModel::default(), true);
    msr::write(&mut c, msr::addr::MISC_ENABLE, msr::MISC_ENABLE_RESET | 1 << 22).unwrap();
    assert_eq!((cpuid(&c, 0, 0)[0], cpuid(&c, 7, 0)), (3, [0; 4]));
    assert_eq!(cpuid(&c, 0x8000_0000, 0)[0], 0x8000_0008);
    let top = |text: &str| cpuid(&cpu(text.parse().unwrap(), true), 0, 0)[0];
    assert_eq!((top("i486"), top("pentium")), (1, 1));
    assert_eq!((top("pentium3"), top("pentium3,-arch_capabilities")), (7, 2));
    assert_eq!((top("core2"), top("core2,+xsave"), top("x86-64-v3")), (0xa, 0xd, 0x16));
}

/// What these CPUs told (AN-485; leaf 1 less what this crate lacks).
#[test]
fn leaves_of_real_cpus() {
    let leaf = |text: &str, n| cpuid(&cpu(text.parse().unwrap(), true), n, 0);
    assert_eq!(leaf("i486", 1)[0], 0x480);
    assert_eq!(leaf("pentium", 1)[0], 0x543);
    // 0383FBFFH of the Pentium III.
    let vme = 2;
    assert_eq!(leaf("pentium3", 1)[..2], [0x683, 2]);
    assert_eq!(leaf("pentium3", 1)[3] & !vme, 0x0383_fbff & !vme);
    assert_eq!(leaf("pentium3", 2), [0x0302_0101, 0, 0, 0x0c04_0882]);
    assert_eq!(leaf("core2", 1)[0], 0x6f6);
    assert_eq!(leaf("core2", 0x8000_0001), [0, 0, 1, 0x2010_0800]);
    assert_eq!(leaf("core2", 0x8000_0008), [0x3024, 0, 0, 0]);
    assert_eq!(leaf("core2", 0x8000_0006), [0, 0, 0x1000_8040, 0]);
    let brand = |text| [2, 3, 4].map(|n| leaf(text, 0x8000_0000 + n)).concat();
    let text: Vec<u8> = brand("core2").into_iter().flat_map(u32::to_le_bytes).collect();
    assert_eq!(&text[..], b"Intel(R) Core(TM)2 CPU          6600  @ 2.40GHz\0");
}

/// Leaves 2, 4 and 80000006H speak of the same caches.
#[test]
fn caches() {
    // Cache descriptors (SDM Vol. 2, CPUID, table 3-12): level, holds, KiB, ways, line.
    #[rustfmt::skip]
    let descriptors = [
        (0x08, Cache::new(1, Holds::Instructions, 16, 4, 32)),
        (0x0c, Cache::new(1, Holds::Data, 16, 4, 32)),
        (0x2c, Cache::new(1, Holds::Data, 32, 8, 64)),
        (0x30, Cache::new(1, Holds::Instructions, 32, 8, 64)),
        (0x49, Cache::new(2, Holds::Both, 4096, 16, 64)),
        (0x82, Cache::new(2, Holds::Both, 256, 8, 32)),
    ];
    for m in MODELS {
        let c = cpu(CpuModel::named(m.name).unwrap(), true);
        let top = cpuid(&c, 0, 0)[0];
        let mut leaf4: Vec<Cache> = Vec::new();
        for n in 0.. {
            let [kind, shape, sets, _] = cpuid(&c, 4, n);
            if top < 4 || kind & 31 == 0 {
                break;
            }
            let (ways, line) = ((shape >> 22) + 1, (shape & 0xfff) + 1);
            let holds = [Holds::Data, Holds::Instructions, Holds::Both][(kind & 31) as usize - 1];
            let kib = (sets + 1) * ways * line / 1024;
            leaf4.push(Cache::new((kind >> 5 & 7) as u8, holds, kib, ways, line));
        }
        if top >= 4 {
            assert_eq!(leaf4, m.caches, "{}", m.name);
        }
        let bytes: Vec<u8> = m.descriptors.iter().flat_map(|r| r.to_le_bytes()).collect();
        assert!(top < 2 || bytes[0] == 1, "{}: one call of leaf 2 is enough", m.name);
        if top >= 2 && !bytes.contains(&0xff) {
            let of_bytes = descriptors.iter().filter(|(d, _)| bytes[1..].contains(d));
            let mut of_bytes: Vec<Cache> = of_bytes.map(|(_, c)| *c).collect();
            of_bytes.sort_by_key(|c| (c.level, c.holds as u8));
            assert_eq!(of_bytes, m.caches, "{}", m.name);
        }
    }
    let l2 = |n: &str| cpuid(&cpu(CpuModel::named(n).unwrap(), true), 0x8000_0006, 0)[2];
    assert_eq!(l2("x86-64-v3"), 256 << 16 | 6 << 12 | 64);
}

/// SDM Vol. 3, 4.1.4: physical addresses are as wide as leaf 80000008H says, or else as PAE says.
#[test]
fn physical_addresses() {
    for (text, bits) in
        [("i486", 32), ("pentium", 32), ("pentium3", 36), ("core2", 36), ("x86-64-v3", 40)]
    {
        let model: CpuModel = text.parse().unwrap();
        let c = cpu(model, true);
        assert_eq!(phys_bits(&c), bits, "{text}");
        assert_eq!(paging::phys_reserved(&c), (1 << 52) - (1 << bits));
        if cpuid(&c, 0x8000_0000, 0)[0] >= 0x8000_0008 {
            assert_eq!(cpuid(&c, 0x8000_0008, 0)[0] & 0xff, bits);
        }
        let mtrr = Features::MTRR.in_cpu(&c);
        let mut c = cpu(model, false);
        assert_eq!(msr::write(&mut c, 0x201, (1 << bits) - (1 << 20)).is_ok(), mtrr, "{text}");
        assert!(msr::write(&mut c, 0x201, 1 << bits).is_err());
        if Features::PAE.in_cpu(&c) {
            c.sys.cr4 |= cr4::PAE;
            c.mem.write(0x5000, W64, 1 << bits | 1);
            assert!(paging::load_pdptes(&c, 0x5000).is_err(), "{text}");
            c.mem.write(0x5000, W64, 1 << (bits - 1) | 1);
            assert!(paging::load_pdptes(&c, 0x5000).is_ok(), "{text}");
        }
    }
    assert_eq!(phys_bits(&cpu("pentium,+pae".parse().unwrap(), false)), 36);
    assert_eq!(phys_bits(&cpu("core2,-pae,-pse36".parse().unwrap(), false)), 32);
}

/// Leaf 0DH gives the size that XSAVE writes.
#[test]
fn xsave_areas() {
    for m in MODELS {
        let mut c = cpu(CpuModel::named(m.name).unwrap(), true);
        if !Features::XSAVE.in_cpu(&c) {
            assert!(!set_cr4(&mut c, cr4::OSXSAVE), "{}", m.name);
            continue;
        }
        c.sys.cr4 |= cr4::OSXSAVE;
        let all = u64::from(cpuid(&c, 0xd, 0)[0]);
        for mask in (0..16).chain([0x200, 0x201, 0x203, 0x207, 0x400]) {
            let valid = mask & 1 != 0 && mask & !all == 0 && mask & 6 != xcr0::AVX;
            assert_eq!(control::xsetbv(&mut c, 0, mask).is_ok(), valid, "{} {mask}", m.name);
        }
        for mask in [1, 3, all] {
            control::xsetbv(&mut c, 0, mask).unwrap();
            let [_, now, most, _] = cpuid(&c, 0xd, 0);
            c.v = [[u64::MAX; 4]; 24];
            c.sys.pkru = u32::MAX;
            for at in 0..4096 {
                c.mem.write(0x5000 + at, W8, 0);
            }
            xsave::xsave(&mut c, 0x5000, u64::MAX, true, false).unwrap();
            let last = (0..4096u64).rev().find(|at| c.mem.read(0x5000 + at, W8) != 0).unwrap();
            let end = if last >= 576 { (last as u32 + 8) & !7 } else { 576 };
            assert_eq!((end, now <= most), (now, true), "{} {mask}", m.name);
        }
    }
}

/// Each model is closed under the table of needs, and the table's two directions agree.
#[test]
fn models_have_what_their_features_need() {
    for m in MODELS {
        assert_eq!(with_needs(m.features), m.features, "{}", m.name);
    }
    for a in ROWS {
        for b in ROWS {
            let needs = with_needs(a.feature).0 & b.feature.0 != 0;
            assert_eq!(needs, with_dependents(b.feature).0 & a.feature.0 != 0);
        }
    }
    assert_eq!(MODELS[usize::from(DEFAULT)].name, "x86-64-v3");
}

/// Linux takes CPUs before family 6 for ones that do not speculate; the others must say that they
/// do not leak, or page tables are kept apart for nothing.
#[test]
fn no_model_is_open_to_meltdown() {
    for m in MODELS {
        let mut c = cpu(CpuModel::named(m.name).unwrap(), true);
        let rdcl_no = msr::read(&mut c, msr::addr::ARCH_CAPABILITIES).is_ok_and(|v| v & 1 != 0);
        assert_eq!(rdcl_no, m.p6(), "{}", m.name);
        let told = Features::told(|leaf, sub| cpuid(&c, leaf, sub));
        assert_eq!(told.0 & Features::ARCH_CAPS.0 != 0, m.p6(), "{}", m.name);
    }
}

/// Old CPUs lack what came later (SDM Vol. 3, 23.17 and 23.36), and only that.
#[test]
fn generations() {
    #[rustfmt::skip]
    let rows: &[(&[u8], [bool; 4])] = &[
        // i486, pentium, pentium3, core2
        (&[0x0f, 0xa2],             [true, true, true, true]),    // cpuid
        (&[0x0f, 0xc8],             [true, true, true, true]),    // bswap
        (&[0x0f, 0xb1, 0x08],       [true, true, true, true]),    // cmpxchg
        (&[0x0f, 0x01, 0x38],       [true, true, true, true]),    // invlpg
        (&[0xf3, 0x90],             [true, true, true, true]),    // pause: a NOP
        (&[0xf3, 0x0f, 0xbc, 0xc1], [true, true, true, true]),    // tzcnt: a scan
        (&[0x9f],                   [true, true, true, true]),    // lahf
        (&[0x0f, 0x33],             [false, true, true, true]),   // rdpmc
        (&[0xdb, 0xf0],             [false, false, true, true]),  // fcomi
        (&[0xda, 0xc0],             [false, false, true, true]),  // fcmovb
        (&[0xf3, 0x0f, 0x1e, 0xfb], [false, false, true, true]),  // endbr32: a NOP
        (&[0x0f, 0x18, 0x08],       [false, false, true, true]),  // prefetcht0
        (&[0x0f, 0x19, 0xc0],       [false, false, true, true]),  // reserved NOP
        (&[0x0f, 0xae, 0xf8],       [false, false, true, true]),  // sfence
        (&[0x0f, 0xae, 0xf0],       [false, false, false, true]), // mfence
        (&[0x0f, 0x0d, 0x08],       [false, false, false, true]), // prefetchw: a NOP
        (&[0xdb, 0x08],             [false, false, false, true]), // fisttp
        (&[0x0f, 0x0b],             [false, false, false, false]), // ud2
        (&[0x0f, 0xff, 0xc0],       [false, false, false, false]), // ud0
    ];
    for (bytes, expected) in rows {
        let on = |m: &&Model| works(&lift_bytes(bytes, CODE32, m.features.0, 1).0);
        let got: Vec<bool> = MODELS[..4].iter().map(on).collect();
        assert_eq!(got, expected, "{bytes:02x?}");
    }
    let mut old = cpu(CpuModel::named("i486").unwrap(), true);
    assert!(control::read_cr(&old, 4).is_err() && control::read_cr(&old, 8).is_err());
    for msr in [0, 0x10, 0x1b, 0x174, 0x1a0, 0xc000_0080, 0xc000_0100] {
        assert!(msr::read(&mut old, msr).is_err(), "{msr:#x}");
    }
    // DAZ came with SSE2.
    let mut p3 = cpu(CpuModel::named("pentium3").unwrap(), true);
    assert!(xsave::ldmxcsr(&mut p3, 0x1fc0).is_err() && xsave::ldmxcsr(&mut p3, 0x9f80).is_ok());
    assert!(msr::read(&mut p3, msr::addr::MISC_ENABLE).is_err());
    let lahf64 = |m: &Model| works(&lift_bytes(&[0x9f], CODE64, m.features.0, 1).0);
    assert!(!lahf64(&x86_64_v1::MODEL) && lahf64(&x86_64_v2::MODEL));
}
