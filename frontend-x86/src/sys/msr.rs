//! Model-specific registers, the time-stamp counter and RDPMC.
//!
//! Every MSR is one arm below; whether the CPU has it, [`exists`] says. The rest raise #GP, which
//! is how operating systems find out. Those of the local APIC are the platform's. MTRRs and PAT are
//! state without effect: all memory is coherent.
//!
//! Source: SDM Vol. 4, chapter 2; Vol. 3, 11.11 and 11.12 (MTRR, PAT), 17.17 (TSC).

use super::cpuid::Features;
use super::{cr0, cr4, efer, mode, need_canonical_base, need_cpl0, paging};
use crate::model;
use emu_core::cpu::{Cpu, Reg};
use emu_core::fault::{Fault, Guest};
use emu_core::flags::rflags;

/// Addresses (SDM Vol. 4, table 2-2).
#[allow(missing_docs)] // the names are the manual's
pub mod addr {
    pub const P5_MC_ADDR: u32 = 0;
    pub const P5_MC_TYPE: u32 = 1;
    pub const TIME_STAMP_COUNTER: u32 = 0x10;
    pub const PLATFORM_ID: u32 = 0x17;
    pub const APIC_BASE: u32 = 0x1b;
    pub const SPEC_CTRL: u32 = 0x48;
    pub const PRED_CMD: u32 = 0x49;
    pub const BIOS_UPDT_TRIG: u32 = 0x79;
    pub const BIOS_SIGN_ID: u32 = 0x8b;
    pub const MTRRCAP: u32 = 0xfe;
    pub const ARCH_CAPABILITIES: u32 = 0x10a;
    pub const SYSENTER_CS: u32 = 0x174;
    pub const SYSENTER_ESP: u32 = 0x175;
    pub const SYSENTER_EIP: u32 = 0x176;
    pub const MCG_CAP: u32 = 0x179;
    pub const MCG_STATUS: u32 = 0x17a;
    pub const MISC_ENABLE: u32 = 0x1a0;
    pub const DEBUGCTL: u32 = 0x1d9;
    pub const MTRR_PHYSBASE0: u32 = 0x200;
    pub const MTRR_PHYSMASK7: u32 = 0x20f;
    pub const PAT: u32 = 0x277;
    pub const MTRR_DEF_TYPE: u32 = 0x2ff;
    pub const TSC_DEADLINE: u32 = 0x6e0;
    pub const X2APIC_FIRST: u32 = 0x800;
    pub const X2APIC_LAST: u32 = 0x8ff;
    pub const EFER: u32 = 0xc000_0080;
    pub const STAR: u32 = 0xc000_0081;
    pub const LSTAR: u32 = 0xc000_0082;
    pub const CSTAR: u32 = 0xc000_0083;
    pub const FMASK: u32 = 0xc000_0084;
    pub const FS_BASE: u32 = 0xc000_0100;
    pub const GS_BASE: u32 = 0xc000_0101;
    pub const KERNEL_GS_BASE: u32 = 0xc000_0102;
    pub const TSC_AUX: u32 = 0xc000_0103;
}
use addr::*;

/// Fixed-range MTRRs in the order of [`emu_core::cpu::SysRegs::mtrr_fixed`].
static MTRR_FIXED: [u32; 11] =
    [0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f];

/// `IA32_MTRRCAP`: 8 variable ranges, fixed ranges, write-combining.
const MTRR_CAP: u64 = 8 | 1 << 8 | 1 << 10;

/// `IA32_ARCH_CAPABILITIES`: none of the known speculation leaks exists here, as nothing is
/// executed ahead. Bits: RDCL_NO, IBRS_ALL, SKIP_L1DFL_VMENTRY, SSB_NO, MDS_NO, PSCHANGE_MC_NO,
/// TAA_NO, SBDR_SSDP_NO, FBSDP_NO, PSDP_NO, BHI_NO, PBRSB_NO, GDS_NO, RFDS_NO, ITS_NO.
const ARCH_CAPS: u64 = {
    let bits = [0, 1, 3, 4, 5, 6, 8, 13, 14, 15, 20, 24, 26, 27, 62];
    let (mut v, mut i) = (0, 0);
    while i < bits.len() {
        v |= 1 << bits[i];
        i += 1;
    }
    v
};

/// Bits of `IA32_SPEC_CTRL` that may be set: IBRS, BHI_DIS_S. Linux defends itself against branch
/// history injection by a loop at each system call unless there is the latter, whatever BHI_NO
/// says.
fn spec_ctrl_bits(cpu: &Cpu) -> u64 {
    1 | if Features::BHI_CTRL.in_cpu(cpu) { 1 << 10 } else { 0 }
}

/// IBRS_ALL of it, which is about `IA32_SPEC_CTRL`.
const IBRS_ALL: u64 = 1 << 1;

/// `IA32_MISC_ENABLE` after RESET: fast strings, MONITOR; no branch trace store, no PEBS.
pub const MISC_ENABLE_RESET: u64 = 1 | 1 << 11 | 1 << 12 | MISC_ENABLE_MONITOR;
/// Its bit that turns MONITOR and MWAIT on.
const MISC_ENABLE_MONITOR: u64 = 1 << 18;
/// Its bits that software may change: fast strings, TM1, EIST, MONITOR, limit CPUID, xTPR.
const MISC_ENABLE_BITS: u64 = 1 | 1 << 3 | 1 << 16 | 1 << 18 | 1 << 22 | 1 << 23;

/// `IA32_PAT` after RESET (SDM Vol. 3, table 11-12).
pub const PAT_RESET: u64 = 0x0007_0406_0007_0406;

/// Whether each byte of `v` is a memory type out of those whose bits are in `types`.
fn all_types(v: u64, types: u8) -> bool {
    v.to_le_bytes().iter().all(|&b| b < 8 && types >> b & 1 != 0)
}
/// UC, WC, WT, WP, WB.
const MTRR_TYPES: u8 = 0b0111_0011;
/// The same and UC-.
const PAT_TYPES: u8 = 0b1111_0011;

fn mtrr_fixed(msr: u32) -> Option<usize> {
    MTRR_FIXED.iter().position(|&m| m == msr)
}

/// `IA32_APIC_BASE`: x2APIC mode.
const APIC_EXTD: u64 = 1 << 10;

fn need(condition: bool) -> Guest<()> {
    if condition { Ok(()) } else { Err(Fault::GP0) }
}

/// Whether `msr` is the platform's.
fn is_apic(msr: u32) -> bool {
    matches!(msr, APIC_BASE | TSC_DEADLINE | X2APIC_FIRST..=X2APIC_LAST)
}

/// Whether `cpu` has the register: by its features, or by its generation (SDM Vol. 4, tables 2-2
/// and 2-60).
fn exists(cpu: &Cpu, msr: u32) -> bool {
    let has = |f: Features| f.in_cpu(cpu);
    let m = model::of(cpu);
    match msr {
        P5_MC_ADDR | P5_MC_TYPE => has(Features::MCE),
        TIME_STAMP_COUNTER => has(Features::TSC),
        PLATFORM_ID | BIOS_UPDT_TRIG | BIOS_SIGN_ID | DEBUGCTL => m.p6(),
        MISC_ENABLE => m.misc_enable(),
        SPEC_CTRL | PRED_CMD => has(Features::SPEC_CTRL),
        ARCH_CAPABILITIES => has(Features::ARCH_CAPS),
        SYSENTER_CS..=SYSENTER_EIP => has(Features::SEP),
        MCG_CAP | MCG_STATUS => has(Features::MCA),
        MTRRCAP | MTRR_PHYSBASE0..=MTRR_PHYSMASK7 | MTRR_DEF_TYPE => has(Features::MTRR),
        PAT => has(Features::PAT),
        EFER => [Features::SYSCALL, Features::LM, Features::NX].into_iter().any(has),
        STAR..=FMASK => has(Features::SYSCALL),
        FS_BASE | GS_BASE | KERNEL_GS_BASE => has(Features::LM),
        TSC_AUX => has(Features::RDTSCP) || has(Features::RDPID),
        APIC_BASE => has(Features::APIC) && m.p6(),
        TSC_DEADLINE => has(Features::TSC_DEADLINE),
        X2APIC_FIRST..=X2APIC_LAST => has(Features::X2APIC),
        _ => has(Features::MTRR) && mtrr_fixed(msr).is_some(),
    }
}

/// Whether MONITOR and MWAIT exist: the feature, not turned off in `IA32_MISC_ENABLE` where there
/// is one.
pub fn has_monitor(cpu: &Cpu) -> bool {
    let switch = model::of(cpu).misc_enable();
    Features::MONITOR.in_cpu(cpu) && (!switch || cpu.sys.misc_enable & MISC_ENABLE_MONITOR != 0)
}

/// RDMSR.
///
/// # Errors
/// #GP(0) unless CPL 0 and the register exists and can be read.
pub fn read(cpu: &mut Cpu, msr: u32) -> Guest<u64> {
    need_cpl0(cpu)?;
    need(exists(cpu, msr))?;
    let s = &cpu.sys;
    Ok(match msr {
        TIME_STAMP_COUNTER => cpu.tsc(),
        P5_MC_ADDR | P5_MC_TYPE | PLATFORM_ID | MCG_CAP | MCG_STATUS | DEBUGCTL => 0,
        SPEC_CTRL => s.spec_ctrl,
        BIOS_SIGN_ID => s.bios_sign_id,
        MTRRCAP => MTRR_CAP,
        ARCH_CAPABILITIES if Features::SPEC_CTRL.in_cpu(cpu) => ARCH_CAPS,
        ARCH_CAPABILITIES => ARCH_CAPS & !IBRS_ALL,
        SYSENTER_CS => s.sysenter_cs,
        SYSENTER_ESP => s.sysenter_esp,
        SYSENTER_EIP => s.sysenter_eip,
        MISC_ENABLE if has_monitor(cpu) => s.misc_enable,
        MISC_ENABLE => s.misc_enable & !MISC_ENABLE_MONITOR,
        MTRR_PHYSBASE0..=MTRR_PHYSMASK7 => s.mtrr_var[(msr & 15) as usize],
        PAT => s.pat,
        MTRR_DEF_TYPE => s.mtrr_def_type,
        EFER => s.efer,
        STAR => s.star,
        LSTAR => s.lstar,
        CSTAR => s.cstar,
        FMASK => s.sfmask,
        FS_BASE => cpu.reg(Reg::FS_BASE),
        GS_BASE => cpu.reg(Reg::GS_BASE),
        KERNEL_GS_BASE => s.kernel_gs_base,
        TSC_AUX => s.tsc_aux,
        _ if is_apic(msr) => {
            let tsc = cpu.tsc();
            return cpu.mem.platform.apic_msr_read(msr, tsc).ok_or(Fault::GP0);
        }
        _ => match mtrr_fixed(msr) {
            Some(i) => s.mtrr_fixed[i],
            None => return Err(Fault::GP0),
        },
    })
}

/// WRMSR.
///
/// # Errors
/// #GP(0) unless CPL 0 and the register exists and takes `value`.
pub fn write(cpu: &mut Cpu, msr: u32, value: u64) -> Guest<()> {
    need_cpl0(cpu)?;
    need(exists(cpu, msr))?;
    let only = |bits: u64| if value & !bits == 0 { Ok(value) } else { Err(Fault::GP0) };
    let types = |ok: bool| if ok { Ok(value) } else { Err(Fault::GP0) };
    match msr {
        TIME_STAMP_COUNTER => {
            cpu.sys.tsc_offset = value.wrapping_sub(cpu.now());
            cpu.mem.platform.tsc_written(value);
        }
        SPEC_CTRL => cpu.sys.spec_ctrl = only(spec_ctrl_bits(cpu))?,
        PRED_CMD => {
            only(1)?;
        }
        BIOS_UPDT_TRIG => {}
        BIOS_SIGN_ID => cpu.sys.bios_sign_id = value,
        SYSENTER_CS => cpu.sys.sysenter_cs = value,
        SYSENTER_ESP => cpu.sys.sysenter_esp = need_canonical_base(cpu, value)?,
        SYSENTER_EIP => cpu.sys.sysenter_eip = need_canonical_base(cpu, value)?,
        MCG_STATUS => {
            only(0)?;
        }
        MISC_ENABLE => {
            only(MISC_ENABLE_BITS | MISC_ENABLE_RESET)?;
            let fixed = MISC_ENABLE_RESET & !MISC_ENABLE_BITS;
            cpu.sys.misc_enable = value & MISC_ENABLE_BITS | fixed;
        }
        // LBR and BTF: neither records nor steps anything.
        DEBUGCTL => {
            only(3)?;
        }
        MTRR_PHYSBASE0..=MTRR_PHYSMASK7 => {
            let address = ((1 << 52) - (1 << 12)) & !paging::phys_reserved(cpu);
            if msr & 1 == 0 {
                only(address | 0xff)?;
                types(all_types(value & 0xff, MTRR_TYPES))?;
            } else {
                only(address | 1 << 11)?;
            }
            cpu.sys.mtrr_var[(msr & 15) as usize] = value;
        }
        PAT => cpu.sys.pat = types(all_types(value, PAT_TYPES))?,
        MTRR_DEF_TYPE => {
            only(0xcff)?;
            cpu.sys.mtrr_def_type = types(all_types(value & 0xff, MTRR_TYPES))?;
        }
        EFER => return write_efer(cpu, value),
        STAR => cpu.sys.star = value,
        LSTAR => cpu.sys.lstar = need_canonical_base(cpu, value)?,
        CSTAR => cpu.sys.cstar = need_canonical_base(cpu, value)?,
        FMASK => cpu.sys.sfmask = only(0xffff_ffff)?,
        FS_BASE => {
            let base = need_canonical_base(cpu, value)?;
            cpu.set_reg(Reg::FS_BASE, base);
        }
        GS_BASE => {
            let base = need_canonical_base(cpu, value)?;
            cpu.set_reg(Reg::GS_BASE, base);
        }
        KERNEL_GS_BASE => cpu.sys.kernel_gs_base = need_canonical_base(cpu, value)?,
        TSC_AUX => cpu.sys.tsc_aux = only(0xffff_ffff)?,
        APIC_BASE if value & APIC_EXTD != 0 && !Features::X2APIC.in_cpu(cpu) => {
            return Err(Fault::GP0);
        }
        _ if is_apic(msr) => {
            let tsc = cpu.tsc();
            cpu.mem.platform.apic_msr_write(msr, value, tsc).ok_or(Fault::GP0)?;
            if cpu.sysflags & rflags::IF != 0 && cpu.mem.platform.interrupt_pending() {
                cpu.kick();
            }
        }
        _ => {
            let i = mtrr_fixed(msr).ok_or(Fault::GP0)?;
            cpu.sys.mtrr_fixed[i] = types(all_types(value, MTRR_TYPES))?;
        }
    }
    Ok(())
}

/// WRMSR of `IA32_EFER` (SDM Vol. 3, 2.2.1; LMA is read-only, LME fixed while paging is on).
fn write_efer(cpu: &mut Cpu, value: u64) -> Guest<()> {
    let bits = [
        (efer::SCE, Features::SYSCALL),
        (efer::LME | efer::LMA, Features::LM),
        (efer::NXE, Features::NX),
    ];
    let allowed = bits.iter().filter(|b| b.1.in_cpu(cpu)).fold(0, |all, b| all | b.0);
    let changed = cpu.sys.efer ^ value;
    let paging = cpu.sys.cr0 & cr0::PG != 0;
    if value & !allowed != 0 || changed & efer::LME != 0 && paging {
        return Err(Fault::GP0);
    }
    cpu.sys.efer = value & !efer::LMA | cpu.sys.efer & efer::LMA;
    if changed & efer::NXE != 0 {
        cpu.tlb.flush_all(true);
    }
    mode::update(cpu);
    Ok(())
}

/// RDTSC.
///
/// # Errors
/// #GP(0) under CR4.TSD above CPL 0.
pub fn rdtsc(cpu: &Cpu) -> Guest<u64> {
    if cpu.sys.cr4 & cr4::TSD != 0 {
        need_cpl0(cpu)?;
    }
    Ok(cpu.tsc())
}

/// RDPMC: there is no counter.
///
/// # Errors
/// #GP(0) always.
pub const fn rdpmc() -> Guest<u64> {
    Err(Fault::GP0)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, Level};
    use super::*;
    use emu_core::clock::Clock;
    use emu_core::mem::tlb::Privilege;

    #[test]
    fn efer() {
        let mut c = testing::cpu(Level::Long);
        let on = efer::LME | efer::LMA;
        assert_eq!(read(&mut c, EFER), Ok(on));
        assert_eq!(write(&mut c, EFER, on | efer::SCE | efer::NXE), Ok(()));
        assert_eq!(write(&mut c, EFER, efer::LME), Ok(()));
        assert_eq!(read(&mut c, EFER), Ok(on), "LMA is read-only");
        assert_eq!(write(&mut c, EFER, 0), Err(Fault::GP0), "LME while paging");
        assert_eq!(write(&mut c, EFER, on | 2), Err(Fault::GP0));
        c.features &= !Features::NX.0;
        assert_eq!(write(&mut c, EFER, on | efer::NXE), Err(Fault::GP0));
        c.cpl = 3;
        assert_eq!(read(&mut c, EFER), Err(Fault::GP0));
    }

    /// Values that a register refuses, and some that it takes.
    #[test]
    fn checks_of_values() {
        let bad = 1u64 << 47;
        #[rustfmt::skip]
        let rows: &[(u32, u64, bool)] = &[
            (LSTAR, bad, false), (LSTAR, 0xffff_8000_0000_0000, true),
            (FS_BASE, bad, false), (GS_BASE, bad, false), (KERNEL_GS_BASE, bad, false),
            (SYSENTER_EIP, bad, false), (FMASK, 1 << 32, false), (TSC_AUX, 1 << 32, false),
            (PAT, 0x0007_0406_0007_0402, false), (PAT, 0x0007_0506_0107_0406, true),
            (PAT, 0x0807_0406_0007_0406, false),
            (0x250, 0x0606_0606_0606_0606, true), (0x250, 7, false), (0x251, 0, false),
            (0x200, 0x8000_0006, true), (0x200, 0x8000_0106, false), (0x201, 0xff_8000_0800, true),
            (0x201, 1 << 40, false), (MTRR_DEF_TYPE, 0xc06, true), (MTRR_DEF_TYPE, 0x106, false),
            (MTRRCAP, 0, false), (ARCH_CAPABILITIES, 0, false), (0x3a, 1, false),
            (MISC_ENABLE, 1 << 18, true), (MISC_ENABLE, 1 << 60, false), (0x1234, 0, false),
            (SPEC_CTRL, 1, true), (SPEC_CTRL, 4, false), (PRED_CMD, 1, true), (BIOS_SIGN_ID, 0, true),
        ];
        let mut c = testing::cpu(Level::Long);
        c.features |= Features::MONITOR.0;
        for &(msr, value, ok) in rows {
            assert_eq!(write(&mut c, msr, value).is_ok(), ok, "{msr:#x} = {value:#x}");
        }
        assert_eq!(read(&mut c, PAT), Ok(0x0007_0506_0107_0406));
        assert_eq!(read(&mut c, 0x250), Ok(0x0606_0606_0606_0606));
        assert_eq!(read(&mut c, MISC_ENABLE), Ok(1 << 18 | 1 << 11 | 1 << 12));
        assert_eq!(read(&mut c, PRED_CMD), Err(Fault::GP0), "write-only");
        assert_eq!(read(&mut c, ARCH_CAPABILITIES).unwrap() & 3, 3, "RDCL_NO, IBRS_ALL");
    }

    #[test]
    fn the_apic_belongs_to_the_platform() {
        let mut c = testing::cpu(Level::Long);
        assert_eq!(read(&mut c, APIC_BASE), Ok(0xfee0_0900));
        assert_eq!(write(&mut c, 0x80b, 0), Ok(()));
        assert_eq!(write(&mut c, 0x8ff, 0), Err(Fault::GP0));
    }

    #[test]
    fn time_stamp_counter() {
        let mut c = testing::cpu(Level::Long);
        c.clock = Clock::icount().into();
        c.skipped_ns = 1000;
        assert_eq!(write(&mut c, TIME_STAMP_COUNTER, 50), Ok(()));
        assert_eq!(rdtsc(&c), Ok(50));
        c.skipped_ns = 1010;
        assert_eq!(read(&mut c, TIME_STAMP_COUNTER), Ok(60));
        c.cpl = 3;
        c.sys.cr4 |= cr4::TSD;
        mode::update(&mut c);
        assert_eq!(c.tlb.privilege(), Privilege::User);
        assert_eq!((rdtsc(&c), rdpmc()), (Err(Fault::GP0), Err(Fault::GP0)));
    }
}
