//! Control registers, and the instructions that govern interrupts, I/O and the TLB.
//!
//! Source: SDM Vol. 3, 2.5, 4.10.4; Vol. 1, 19.5; Vol. 2 on each instruction.

use super::cpuid::Features;
use super::stack::tss_field;
use super::{cr0, cr4, debug, efer, mode, msr, need_cpl0, paging, segment, vme, xcr0};
use emu_core::cpu::{Cpu, Reg, Seg, mode as m};
use emu_core::fault::{Fault, Guest};
use emu_core::flags::{OSZAPC, rflags};
use emu_core::width::Width::{self, W8, W16, W64};

/// Bits of CR0 that can be set.
const CR0_BITS: u64 = cr0::PE
    | cr0::MP
    | cr0::EM
    | cr0::TS
    | cr0::ET
    | cr0::NE
    | cr0::WP
    | cr0::AM
    | cr0::NW
    | cr0::CD
    | cr0::PG;

/// Bits of CR4 and the features that bring them.
#[rustfmt::skip]
pub(crate) static CR4_BITS: &[(u64, Features)] = &[
    (cr4::VME,        Features::VME),
    (cr4::PVI,        Features::VME),
    (cr4::TSD,        Features::TSC),
    (cr4::DE,         Features::DE),
    (cr4::PSE,        Features::PSE),
    (cr4::PAE,        Features::PAE),
    (cr4::MCE,        Features::MCE),
    (cr4::PGE,        Features::PGE),
    // RDPMC has no bit of its own; all models with a TSC have it.
    (cr4::PCE,        Features::TSC),
    (cr4::OSFXSR,     Features::FXSR),
    (cr4::OSXMMEXCPT, Features::SSE),
    (cr4::UMIP,       Features::UMIP),
    (cr4::FSGSBASE,   Features::FSGSBASE),
    (cr4::PCIDE,      Features::PCID),
    (cr4::OSXSAVE,    Features::XSAVE),
    (cr4::SMEP,       Features::SMEP),
    (cr4::SMAP,       Features::SMAP),
    (cr4::LA57,       Features::LA57),
    (cr4::PKE,        Features::PKU),
];

/// Bits of CR4 that this CPU has; without any it has no CR4.
fn cr4_bits(cpu: &Cpu) -> u64 {
    CR4_BITS.iter().filter(|b| b.1.in_cpu(cpu)).fold(0, |all, b| all | b.0)
}

/// Whether `cpu` has control register `n`.
fn cr_exists(cpu: &Cpu, n: u8) -> bool {
    match n {
        0 | 2 | 3 => true,
        4 => cr4_bits(cpu) != 0,
        8 => Features::LM.in_cpu(cpu),
        _ => false,
    }
}

/// MOV from control register `n`.
///
/// # Errors
/// #UD for one that does not exist, #GP(0) unless CPL 0.
pub fn read_cr(cpu: &Cpu, n: u8) -> Guest<u64> {
    if !cr_exists(cpu, n) {
        return Err(Fault::UD);
    }
    let value = match n {
        0 => cpu.sys.cr0,
        2 => cpu.sys.cr2,
        3 => cpu.sys.cr3,
        4 => cpu.sys.cr4,
        _ => u64::from(cpu.mem.platform.tpr() & 15),
    };
    need_cpl0(cpu)?;
    Ok(value)
}

/// MOV to control register `n`; `value` is zero-extended outside 64-bit mode.
///
/// # Errors
/// #UD for one that does not exist; #GP(0) unless CPL 0 and the value is allowed; #PF never.
pub fn write_cr(cpu: &mut Cpu, n: u8, value: u64) -> Guest<()> {
    if !cr_exists(cpu, n) {
        return Err(Fault::UD);
    }
    need_cpl0(cpu)?;
    match n {
        0 => write_cr0(cpu, value),
        2 => {
            cpu.sys.cr2 = value;
            Ok(())
        }
        3 => write_cr3(cpu, value),
        4 => write_cr4(cpu, value),
        _ => write_cr8(cpu, value),
    }
}

fn ok_if(condition: bool) -> Guest<()> {
    if condition { Ok(()) } else { Err(Fault::GP0) }
}

/// MOV to CR0 (SDM Vol. 2, MOV to control registers; long mode: Vol. 3, 9.8.5).
fn write_cr0(cpu: &mut Cpu, value: u64) -> Guest<()> {
    let old = cpu.sys.cr0;
    let new = value & CR0_BITS | cr0::ET;
    let (pg, s) = (new & cr0::PG != 0, &cpu.sys);
    ok_if(value >> 32 == 0)?;
    ok_if(!pg || new & cr0::PE != 0)?;
    ok_if(new & cr0::NW == 0 || new & cr0::CD != 0)?;
    let mut lma = s.efer & efer::LMA;
    if (old ^ new) & cr0::PG != 0 {
        let long_code = cpu.segs[Seg::Cs as usize].long();
        if pg && s.efer & efer::LME != 0 {
            let tss16 = cpu.sys.tr.present() && cpu.sys.tr.attr & 8 == 0;
            ok_if(s.cr4 & cr4::PAE != 0 && !long_code && !tss16)?;
            lma = efer::LMA;
        } else if !pg {
            ok_if(lma == 0 || !long_code)?;
            ok_if(s.cr4 & cr4::PCIDE == 0)?;
            lma = 0;
        }
    }
    let pdptes = cr0::PG | cr0::CD | cr0::NW;
    if pg && lma == 0 && s.cr4 & cr4::PAE != 0 && (old ^ new) & pdptes != 0 {
        paging::load_pdptes(cpu, s.cr3)?;
    }
    cpu.sys.cr0 = new;
    cpu.sys.efer = cpu.sys.efer & !efer::LMA | lma;
    if (old ^ new) & cr0::PG != 0 {
        cpu.tlb.flush_all(true);
    } else if (old ^ new) & cr0::WP != 0 {
        cpu.tlb.clear_level1();
    }
    mode::update(cpu);
    Ok(())
}

/// MOV to CR3 (SDM Vol. 3, 4.10.4.1).
fn write_cr3(cpu: &mut Cpu, value: u64) -> Guest<()> {
    let pcide = cpu.sys.cr4 & cr4::PCIDE != 0;
    let keep = pcide && value >> 63 != 0;
    let value = if pcide { value & !(1 << 63) } else { value };
    if cpu.mode & m::LONG != 0 {
        ok_if(value & (paging::phys_reserved(cpu) | 0xfff << 52) == 0)?;
    } else if cpu.sys.cr0 & cr0::PG != 0 && cpu.sys.cr4 & cr4::PAE != 0 {
        paging::load_pdptes(cpu, value)?;
    }
    cpu.sys.cr3 = value;
    cpu.tlb.switch(if pcide { value as u16 & 0xfff } else { 0 }, keep);
    Ok(())
}

/// MOV to CR4 (SDM Vol. 3, 2.5, 4.10.1, 4.10.4.1).
fn write_cr4(cpu: &mut Cpu, value: u64) -> Guest<()> {
    let allowed = cr4_bits(cpu);
    let (old, long) = (cpu.sys.cr4, cpu.mode & m::LONG != 0);
    let changed = old ^ value;
    ok_if(value & !allowed == 0)?;
    ok_if(!long || value & cr4::PAE != 0 && changed & cr4::LA57 == 0)?;
    if changed & value & cr4::PCIDE != 0 {
        ok_if(long && cpu.sys.cr3 & 0xfff == 0)?;
    }
    let pdptes = cr4::PAE | cr4::PSE | cr4::PGE | cr4::SMEP;
    if cpu.sys.cr0 & cr0::PG != 0 && !long && value & cr4::PAE != 0 && changed & pdptes != 0 {
        paging::load_pdptes(cpu, cpu.sys.cr3)?;
    }
    cpu.sys.cr4 = value;
    // SDM Vol. 3, 4.10.4.1.
    let flush = changed & (cr4::PGE | cr4::PAE | cr4::PSE)
        | changed & old & cr4::PCIDE
        | changed & value & cr4::SMEP;
    if flush != 0 {
        cpu.tlb.flush_all(true);
        cpu.tlb.switch(if value & cr4::PCIDE != 0 { cpu.sys.cr3 as u16 & 0xfff } else { 0 }, true);
    } else if changed & (cr4::SMEP | cr4::SMAP | cr4::PKE) != 0 {
        cpu.tlb.clear_level1();
    }
    if changed & cr4::DE != 0 {
        debug::arm(cpu);
    }
    mode::update(cpu);
    Ok(())
}

/// MOV to CR8: task priority (SDM Vol. 3, 10.8.6).
fn write_cr8(cpu: &mut Cpu, value: u64) -> Guest<()> {
    ok_if(value <= 15)?;
    cpu.mem.platform.set_tpr(value as u8);
    if cpu.sysflags & rflags::IF != 0 && cpu.mem.platform.interrupt_pending() {
        cpu.kick();
    }
    Ok(())
}

/// CLTS.
///
/// # Errors
/// #GP(0) unless CPL 0.
pub fn clts(cpu: &mut Cpu) -> Guest<()> {
    need_cpl0(cpu)?;
    cpu.sys.cr0 &= !cr0::TS;
    mode::update(cpu);
    Ok(())
}

/// LMSW: CR0 bits 3:0 from `value`; PE can only be set.
///
/// # Errors
/// #GP(0) unless CPL 0.
pub fn lmsw(cpu: &mut Cpu, value: u64) -> Guest<()> {
    need_cpl0(cpu)?;
    write_cr0(cpu, cpu.sys.cr0 & !0xe | value & 0xf)
}

/// SMSW: what it stores.
///
/// # Errors
/// #GP(0) under CR4.UMIP.
pub fn smsw(cpu: &Cpu) -> Guest<u64> {
    segment::need_umip(cpu)?;
    Ok(cpu.sys.cr0)
}

/// INVLPG for linear address `va`.
///
/// # Errors
/// #GP(0) unless CPL 0.
pub fn invlpg(cpu: &mut Cpu, va: u64) -> Guest<()> {
    need_cpl0(cpu)?;
    cpu.tlb.invalidate(va, None);
    Ok(())
}

/// INVPCID of type `kind` with the descriptor at linear address `va` (SDM Vol. 2, INVPCID).
///
/// # Errors
/// #UD without the feature; #GP(0) unless CPL 0 and the operands are valid; #PF.
pub fn invpcid(cpu: &mut Cpu, kind: u64, va: u64) -> Guest<()> {
    if !Features::INVPCID.in_cpu(cpu) {
        return Err(Fault::UD);
    }
    need_cpl0(cpu)?;
    let d = u128::from_le_bytes(cpu.read_array(va)?);
    let (pcid, address) = (d as u64, (d >> 64) as u64);
    ok_if(kind <= 3 && pcid >> 12 == 0)?;
    ok_if(kind > 1 || pcid == 0 || cpu.sys.cr4 & cr4::PCIDE != 0)?;
    match kind {
        0 => {
            ok_if(cpu.canonical(address))?;
            cpu.tlb.invalidate(address, Some(pcid as u16));
        }
        1 => cpu.tlb.flush_pcid(pcid as u16),
        _ => cpu.tlb.flush_all(kind == 2),
    }
    Ok(())
}

// ---- extended control registers ----------------------------------------------------------------

/// Components that XCR0 may enable on this CPU.
pub fn xcr0_supported(cpu: &Cpu) -> u64 {
    let rows = [(xcr0::AVX, Features::AVX), (xcr0::PKRU, Features::PKU)];
    let there = rows.iter().filter(|(_, feature)| feature.in_cpu(cpu));
    there.fold(xcr0::X87 | xcr0::SSE, |all, (bit, _)| all | bit)
}

fn need_osxsave(cpu: &Cpu) -> Guest<()> {
    if cpu.sys.cr4 & cr4::OSXSAVE != 0 { Ok(()) } else { Err(Fault::UD) }
}

/// XGETBV of register `n`.
///
/// # Errors
/// #UD unless CR4.OSXSAVE, #GP(0) for one that does not exist.
pub fn xgetbv(cpu: &Cpu, n: u32) -> Guest<u64> {
    need_osxsave(cpu)?;
    // XCR0 AND XINUSE is XCR0: everything counts as in use.
    ok_if(n == 0 || n == 1 && Features::XGETBV1.in_cpu(cpu))?;
    Ok(cpu.sys.xcr0)
}

/// XSETBV (SDM Vol. 1, 13.3).
///
/// # Errors
/// #UD unless CR4.OSXSAVE, #GP(0) unless CPL 0 and the value is valid.
pub fn xsetbv(cpu: &mut Cpu, n: u32, value: u64) -> Guest<()> {
    need_osxsave(cpu)?;
    need_cpl0(cpu)?;
    ok_if(n == 0 && value & xcr0::X87 != 0 && value & !xcr0_supported(cpu) == 0)?;
    ok_if(value & xcr0::AVX_SSE != xcr0::AVX)?;
    cpu.sys.xcr0 = value;
    mode::update(cpu);
    Ok(())
}

// ---- protection keys (SDM Vol. 3, 4.6.2) -------------------------------------------------------

fn need_pke(cpu: &Cpu) -> Guest<()> {
    if cpu.sys.cr4 & cr4::PKE != 0 { Ok(()) } else { Err(Fault::UD) }
}

/// RDPKRU; `ecx` must be zero.
///
/// # Errors
/// #UD unless CR4.PKE, #GP(0).
pub fn rdpkru(cpu: &Cpu, ecx: u32) -> Guest<u32> {
    need_pke(cpu)?;
    ok_if(ecx == 0)?;
    Ok(cpu.sys.pkru)
}

/// WRPKRU of the low half of `value` (EDX:EAX); `ecx` and the high half must be zero.
///
/// # Errors
/// #UD unless CR4.PKE, #GP(0).
pub fn wrpkru(cpu: &mut Cpu, ecx: u32, value: u64) -> Guest<()> {
    need_pke(cpu)?;
    ok_if(ecx == 0 && value >> 32 == 0)?;
    set_pkru(cpu, value as u32);
    Ok(())
}

/// Assigns PKRU. The keys are in the rights of level-1 entries, so these go.
pub(super) fn set_pkru(cpu: &mut Cpu, value: u32) {
    if std::mem::replace(&mut cpu.sys.pkru, value) != value && cpu.sys.cr4 & cr4::PKE != 0 {
        cpu.tlb.clear_level1();
    }
}

// ---- interrupts and flags ----------------------------------------------------------------------

/// IOPL, 0–3.
pub const fn iopl(cpu: &Cpu) -> u8 {
    (cpu.sysflags >> 12 & 3) as u8
}

/// HLT: the CPU waits at `next_rip` for an interrupt.
///
/// # Errors
/// #GP(0) unless CPL 0.
pub fn hlt(cpu: &mut Cpu, next_rip: u64) -> Guest<()> {
    need_cpl0(cpu)?;
    cpu.set_rip(next_rip);
    (cpu.halted, cpu.mwait) = (true, false);
    Ok(())
}

/// What MONITOR and MWAIT have in common: there are no hints in ECX.
fn check_monitor(cpu: &Cpu) -> Guest<()> {
    if !msr::has_monitor(cpu) {
        return Err(Fault::UD);
    }
    ok_if(register_width(cpu).zext(cpu.reg(Reg::RCX)) == 0)
}

/// MONITOR of the line at linear address `va`. It is not kept: an MWAIT ends early, whoever writes.
///
/// # Errors
/// #UD while `IA32_MISC_ENABLE` turns it off, #GP(0) for an extension in ECX, #PF.
pub fn monitor(cpu: &mut Cpu, va: u64) -> Guest<()> {
    check_monitor(cpu)?;
    cpu.read(va, W8).map(|_| ())
}

/// MWAIT: the CPU waits at `next_rip` for an interrupt, or the end of the machine's pause.
///
/// # Errors
/// As [`monitor`], but #PF.
pub fn mwait(cpu: &mut Cpu, next_rip: u64) -> Guest<()> {
    check_monitor(cpu)?;
    cpu.set_rip(next_rip);
    (cpu.halted, cpu.mwait) = (true, true);
    Ok(())
}

/// CLI.
///
/// # Errors
/// #GP(0) when CPL exceeds IOPL (in virtual-8086 mode: IOPL below 3) and IF is not virtual.
pub fn cli(cpu: &mut Cpu) -> Guest<()> {
    if cpu.cpl > iopl(cpu) {
        return vme::set_vif(cpu, false);
    }
    cpu.sysflags &= !rflags::IF;
    Ok(())
}

/// STI: with an interrupt shadow when IF was clear, unless nothing looks for interrupts before the
/// next instruction has run (`shadow` false).
///
/// # Errors
/// As [`cli`]; #GP(0) when VIF would be set with VIP.
pub fn sti(cpu: &mut Cpu, shadow: bool) -> Guest<()> {
    if cpu.cpl > iopl(cpu) {
        return vme::set_vif(cpu, true);
    }
    if cpu.sysflags & rflags::IF == 0 {
        cpu.sysflags |= rflags::IF;
        cpu.shadow = shadow;
        if cpu.mem.platform.interrupt_pending() {
            cpu.kick();
        }
    }
    Ok(())
}

/// STAC and CLAC.
///
/// # Errors
/// #UD without the feature or at CPL above 0.
pub fn set_ac(cpu: &mut Cpu, on: bool) -> Guest<()> {
    if !Features::SMAP.in_cpu(cpu) || cpu.cpl != 0 {
        return Err(Fault::UD);
    }
    cpu.sysflags = cpu.sysflags & !rflags::AC | if on { rflags::AC } else { 0 };
    mode::select_table(cpu);
    Ok(())
}

/// What PUSHF pushes; VM and RF read as zero.
///
/// # Errors
/// #GP(0) in virtual-8086 mode with IOPL below 3, but for a 16-bit image under CR4.VME.
pub fn pushf(cpu: &Cpu, w: Width) -> Guest<u64> {
    let flags = if vme::sensitive(cpu) { vme::pushed(cpu, w)? } else { cpu.rflags() };
    Ok(flags & !(rflags::VM | rflags::RF))
}

/// RFLAGS after POPF with operand width `w` has popped `image`: what CPL and IOPL allow to change
/// has changed (SDM Vol. 2, POPF, table 4-16).
pub fn merged_flags(cpu: &Cpu, w: Width, image: u64) -> u64 {
    let mut mask = u64::from(OSZAPC) | rflags::TF | rflags::DF | rflags::NT;
    if w != W16 {
        mask |= rflags::AC | rflags::ID;
    }
    if cpu.cpl <= iopl(cpu) {
        mask |= rflags::IF;
    }
    if cpu.cpl == 0 {
        mask |= rflags::IOPL;
    }
    cpu.rflags() & !mask & !rflags::RF | image & mask
}

/// RFLAGS after IRET with operand width `w` has popped `image`: as [`merged_flags`], and RF; at
/// CPL 0 of protected mode VIF and VIP too (SDM Vol. 2, IRET).
///
/// # Errors
/// As [`popf`].
pub fn returned_flags(cpu: &Cpu, w: Width, image: u64) -> Guest<u64> {
    if vme::sensitive(cpu) {
        return vme::popped(cpu, w, image);
    }
    let virtual_if = cpu.cpl == 0 && cpu.mode & m::REAL == 0;
    let mask = match w {
        W16 => 0,
        _ if virtual_if => rflags::RF | rflags::VIF | rflags::VIP,
        _ => rflags::RF,
    };
    Ok(merged_flags(cpu, w, image) & !mask | image & mask)
}

/// POPF with operand width `w` after `image` was popped.
///
/// # Errors
/// #GP(0) in virtual-8086 mode with IOPL below 3, but for a 16-bit image under CR4.VME that turns
/// on neither TF nor, with VIP, interrupts.
pub fn popf(cpu: &mut Cpu, w: Width, image: u64) -> Guest<()> {
    let flags = match vme::sensitive(cpu) {
        true => vme::popped(cpu, w, image)?,
        false => merged_flags(cpu, w, image),
    };
    let ac_changes = (flags ^ cpu.sysflags) & rflags::AC != 0;
    cpu.set_rflags(flags);
    if ac_changes {
        mode::update(cpu);
    }
    Ok(())
}

/// Checks access to `w` at I/O `port` (SDM Vol. 1, 19.5.2).
///
/// # Errors
/// #GP(0); #PF of the permission bit map.
pub fn check_io(cpu: &mut Cpu, port: u16, w: Width) -> Guest<()> {
    let vm = cpu.mode & m::VM86 != 0;
    if !segment::protected(cpu) || cpu.cpl <= iopl(cpu) && !vm {
        return Ok(());
    }
    let limit = u64::from(cpu.sys.tr.limit);
    ok_if(cpu.sys.tr.present() && cpu.sys.tr.attr & 8 != 0 && limit >= 103)?;
    let at = tss_field(cpu, 102, W16)? + u64::from(port >> 3);
    ok_if(at < limit)?;
    // Two bytes are read, so that an access may cross a byte of the map.
    let bits = tss_field(cpu, at, W8)? | tss_field(cpu, at + 1, W8)? << 8;
    ok_if(bits >> (port & 7) & ((1 << w.bytes()) - 1) == 0)
}

/// Cuts a value for a control or debug register to the mode's width.
pub fn register_width(cpu: &Cpu) -> Width {
    if cpu.mode & m::CODE64 != 0 { W64 } else { Width::W32 }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, Level, TSS};
    use super::*;
    use emu_core::mem::tlb::Access;
    use emu_core::width::Width::W32;

    fn rejects(c: &mut Cpu, n: u8, value: u64) {
        let before = c.sys.clone();
        assert_eq!(write_cr(c, n, value), Err(Fault::GP0), "CR{n} = {value:#x}");
        assert_eq!(c.sys, before);
    }

    #[test]
    fn cr0_rules() {
        let mut c = testing::cpu(Level::Protected);
        rejects(&mut c, 0, cr0::PG);
        rejects(&mut c, 0, cr0::PE | cr0::NW);
        rejects(&mut c, 0, cr0::PE | 1 << 32);
        assert_eq!(write_cr(&mut c, 0, cr0::PE | cr0::TS | 1 << 10), Ok(()));
        assert_eq!(c.sys.cr0, cr0::PE | cr0::TS | cr0::ET);
        assert!(c.mode & m::TS != 0);
        clts(&mut c).unwrap();
        assert!(c.mode & m::TS == 0);
        lmsw(&mut c, 0xa).unwrap();
        assert_eq!(smsw(&c), Ok(cr0::PE | cr0::TS | cr0::ET | 2), "LMSW cannot clear PE");
        c.sys.efer = efer::LME;
        rejects(&mut c, 0, cr0::PE | cr0::PG); // CR4.PAE = 0
        c.cpl = 3;
        rejects(&mut c, 0, cr0::PE);
        assert_eq!(write_cr(&mut c, 1, 0), Err(Fault::UD));
    }

    #[test]
    fn cr4_rules() {
        let mut c = testing::cpu(Level::Long);
        let base = c.sys.cr4;
        rejects(&mut c, 4, base & !cr4::PAE);
        c.features &= !Features::VME.0;
        rejects(&mut c, 4, base | 1);
        rejects(&mut c, 4, base | 2);
        rejects(&mut c, 4, base | 1 << 12); // no LA57
        rejects(&mut c, 4, base | cr4::SMAP);
        c.features |= Features::SMAP.0;
        assert_eq!(write_cr(&mut c, 4, base | cr4::SMAP | cr4::SMEP | cr4::UMIP), Ok(()));
        c.sys.cr3 |= 8;
        rejects(&mut c, 4, base | cr4::PCIDE);
        c.sys.cr3 &= !8;
        assert_eq!(write_cr(&mut c, 4, base | cr4::PCIDE), Ok(()));
        rejects(&mut c, 3, 1 << 40);
        assert_eq!(write_cr(&mut c, 3, 1 << 63 | 0x10_0005), Ok(()));
        assert_eq!(c.sys.cr3, 0x10_0005, "bit 63 is not kept");
        assert_eq!(write_cr(&mut c, 4, base), Ok(()));
        rejects(&mut c, 3, 1 << 63);
        let mut c = testing::cpu(Level::Protected);
        rejects(&mut c, 4, cr4::PCIDE);
    }

    /// SDM Vol. 3, 4.10.4.1: bit 63 of CR3 keeps a PCID's translations.
    #[test]
    fn pcids() {
        let mut c = testing::cpu(Level::Long);
        let walks = |c: &mut Cpu, va: u64| {
            let before = c.tlb.stats.walks;
            (c.frontend.translate)(c, va, Access::Read).unwrap();
            c.tlb.stats.walks - before
        };
        let cr4 = c.sys.cr4 | cr4::PCIDE;
        write_cr(&mut c, 4, cr4).unwrap();
        write_cr(&mut c, 3, 0x10_0001).unwrap();
        assert_eq!(walks(&mut c, 0x40_0000), 1);
        write_cr(&mut c, 3, 0x10_0002).unwrap();
        assert_eq!(walks(&mut c, 0x60_0000), 1);
        write_cr(&mut c, 3, 0x10_0001 | 1 << 63).unwrap();
        assert_eq!(walks(&mut c, 0x40_0000), 0);
        c.mem.write(0x5000, W64, 2); // INVPCID descriptor: PCID 2
        c.mem.write(0x5008, W64, 0);
        invpcid(&mut c, 1, 0x5000).unwrap();
        assert_eq!(walks(&mut c, 0x40_0000), 0);
        write_cr(&mut c, 3, 0x10_0002 | 1 << 63).unwrap();
        assert_eq!(walks(&mut c, 0x60_0000), 1);
        assert_eq!(invpcid(&mut c, 4, 0x5000), Err(Fault::GP0));
        c.mem.write(0x5008, W64, 1 << 47);
        assert_eq!(invpcid(&mut c, 0, 0x5000), Err(Fault::GP0));
        c.mem.write(0x5000, W64, 0x1000);
        assert_eq!(invpcid(&mut c, 2, 0x5000), Err(Fault::GP0));
    }

    #[test]
    fn a_bad_pdpte_is_refused_at_once() {
        let mut c = testing::cpu(Level::Protected);
        c.sys.cr4 = cr4::PAE;
        c.mem.write(0x6000, W64, 0x7000 | 3);
        c.sys.cr3 = 0x6000;
        rejects(&mut c, 0, cr0::PE | cr0::PG);
        c.mem.write(0x6000, W64, 0x7000 | 1);
        assert_eq!(write_cr(&mut c, 0, cr0::PE | cr0::PG), Ok(()));
    }

    #[test]
    fn task_priority() {
        let mut c = testing::cpu(Level::Long);
        assert_eq!(read_cr(&c, 8), Ok(5));
        rejects(&mut c, 8, 16);
    }

    #[test]
    fn xcr0_rules() {
        let mut c = testing::cpu(Level::Long);
        assert_eq!(xsetbv(&mut c, 0, 3), Err(Fault::UD));
        c.sys.cr4 |= cr4::OSXSAVE;
        for bad in [0, 2, 5, 7, 11] {
            assert_eq!(xsetbv(&mut c, 0, bad), Err(Fault::GP0), "{bad}");
        }
        c.features |= Features::AVX.0;
        assert_eq!(xsetbv(&mut c, 0, 5), Err(Fault::GP0), "AVX without SSE");
        assert_eq!(xsetbv(&mut c, 0, 7), Ok(()));
        assert!(c.mode & m::AVX != 0);
        assert_eq!((xgetbv(&c, 0), xgetbv(&c, 1)), (Ok(7), Err(Fault::GP0)));
    }

    #[test]
    fn interrupt_flag() {
        let mut c = testing::cpu(Level::Protected);
        c.budget = 100;
        sti(&mut c, true).unwrap();
        assert!(c.shadow && c.sysflags & rflags::IF != 0);
        assert_eq!(c.budget, 0, "an interrupt is pending");
        c.shadow = false;
        sti(&mut c, true).unwrap();
        assert!(!c.shadow, "IF was set already");
        testing::to_user(&mut c, testing::CODE3, 0x7000);
        assert_eq!((cli(&mut c), sti(&mut c, true)), (Err(Fault::GP0), Err(Fault::GP0)));
        c.sysflags |= rflags::IOPL;
        assert_eq!(cli(&mut c), Ok(()));
        assert_eq!(hlt(&mut c, 5), Err(Fault::GP0));
        assert!(!c.halted);
    }

    /// SDM Vol. 2, table 4-16.
    #[test]
    fn popf_by_privilege() {
        let all = 0x3f_7fd7;
        let mut c = testing::cpu(Level::Protected);
        popf(&mut c, W32, all).unwrap();
        assert_eq!(pushf(&c, W32), Ok(0x24_7fd7));
        popf(&mut c, W16, 0).unwrap();
        assert_eq!(c.rflags(), 0x24_0002);
        testing::to_user(&mut c, testing::CODE3, 0x7000);
        popf(&mut c, W32, all).unwrap();
        assert_eq!(c.rflags(), 0x24_4dd7);
        c.sysflags |= rflags::IOPL;
        popf(&mut c, W32, all & !rflags::IOPL).unwrap();
        assert_eq!(c.rflags(), 0x24_7fd7);
        c.sysflags = c.sysflags & !rflags::IOPL | rflags::VM;
        mode::update(&mut c);
        assert_eq!((pushf(&c, W32), popf(&mut c, W16, 0)), (Err(Fault::GP0), Err(Fault::GP0)));
    }

    /// SDM Vol. 1, 19.5.2: every port of the access must have a clear bit.
    #[test]
    fn io_permission_map() {
        let mut c = testing::cpu(Level::Protected);
        testing::to_user(&mut c, testing::CODE3, 0x7000);
        assert_eq!(check_io(&mut c, 0x3f8, W8), Err(Fault::GP0), "no map");
        c.mem.write(TSS + 102, W16, 0x68);
        c.mem.write(TSS + 0x68 + 0x7f, W16, 0b1_1111_1100); // ports 3FAH–400H
        assert_eq!(check_io(&mut c, 0x3f8, W16), Ok(()));
        assert_eq!(check_io(&mut c, 0x3f8, W32), Err(Fault::GP0));
        assert_eq!(check_io(&mut c, 0x401, W8), Ok(()));
        assert_eq!(check_io(&mut c, 0x3ff, W8), Err(Fault::GP0));
        assert_eq!(check_io(&mut c, 0xffff, W8), Err(Fault::GP0), "beyond the limit");
        c.sysflags |= rflags::IOPL;
        assert_eq!(check_io(&mut c, 0xffff, W8), Ok(()));
        c.sysflags |= rflags::VM;
        mode::update(&mut c);
        assert_eq!(check_io(&mut c, 0x3ff, W8), Err(Fault::GP0), "IOPL does not help");
    }
}
