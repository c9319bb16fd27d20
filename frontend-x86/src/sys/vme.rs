//! Virtual interrupts: CR4.VME for virtual-8086 mode, CR4.PVI for ring 3 of protected mode. Where
//! IOPL keeps a program from IF, it gets VIF instead, and the monitor asks for control with VIP.
//!
//! Source: SDM Vol. 3, 20.3 and 20.4; Vol. 2, CLI, STI, PUSHF, POPF, IRET, INT n.

use super::control::{iopl, merged_flags};
use super::stack::{Stack, tss_field};
use super::transfer::{check_ip_real, set_cs_real};
use super::{cr4, read_table};
use emu_core::cpu::{Cpu, Seg, mode as m};
use emu_core::fault::{Fault, Guest};
use emu_core::flags::rflags;
use emu_core::width::Width::{self, W8, W16, W32};

/// Virtual-8086 mode with IOPL below 3: PUSHF, POPF, IRET and INT n are not simply executed.
pub const fn sensitive(cpu: &Cpu) -> bool {
    cpu.mode & m::VM86 != 0 && iopl(cpu) < 3
}

/// CLI or STI at a CPL above IOPL: clears or sets VIF.
///
/// # Errors
/// #GP(0) where interrupts are not virtual, and when VIF would be set with VIP.
pub fn set_vif(cpu: &mut Cpu, on: bool) -> Guest<()> {
    let enable = if cpu.mode & m::VM86 != 0 { cr4::VME } else { cr4::PVI };
    let refused = on && cpu.sysflags & rflags::VIP != 0;
    if cpu.cpl != 3 || cpu.sys.cr4 & enable == 0 || refused {
        return Err(Fault::GP0);
    }
    cpu.sysflags = cpu.sysflags & !rflags::VIF | if on { rflags::VIF } else { 0 };
    Ok(())
}

/// RFLAGS with VIF in the place of IF and IOPL 3, as a program that is [`sensitive`] sees it.
const fn shown(cpu: &Cpu) -> u64 {
    let flags = cpu.sysflags;
    let i = if flags & rflags::VIF != 0 { rflags::IF } else { 0 };
    flags & !rflags::IF | rflags::IOPL | i
}

/// What PUSHF pushes where it is [`sensitive`].
///
/// # Errors
/// #GP(0) without CR4.VME or for an operand of 32 bits.
pub fn pushed(cpu: &Cpu, w: Width) -> Guest<u64> {
    if cpu.sys.cr4 & cr4::VME == 0 || w != W16 {
        return Err(Fault::GP0);
    }
    Ok(shown(cpu) | u64::from(cpu.flags.bits()))
}

/// RFLAGS after POPF or IRET has popped `image` where it is [`sensitive`].
///
/// # Errors
/// #GP(0) without CR4.VME, for an operand of 32 bits, and when TF, or IF with VIP, would be set.
pub fn popped(cpu: &Cpu, w: Width, image: u64) -> Guest<u64> {
    let on = image & rflags::IF != 0;
    let refused = image & rflags::TF != 0 || on && cpu.sysflags & rflags::VIP != 0;
    if cpu.sys.cr4 & cr4::VME == 0 || w != W16 || refused {
        return Err(Fault::GP0);
    }
    let flags = merged_flags(cpu, W16, image) & !rflags::VIF;
    Ok(flags | if on { rflags::VIF } else { 0 })
}

/// INT `vector` of virtual-8086 mode under CR4.VME: whether the redirection bit map of the TSS, the
/// 32 bytes below the I/O permission map, leaves it to the 8086 program (SDM Vol. 3, 20.3.3).
///
/// # Errors
/// #GP(0) when the TSS has no such map; #PF.
pub fn redirected(cpu: &mut Cpu, vector: u8) -> Guest<bool> {
    if cpu.sys.cr4 & cr4::VME == 0 {
        return Ok(false);
    }
    let limit = u64::from(cpu.sys.tr.limit);
    if !cpu.sys.tr.present() || cpu.sys.tr.attr & 8 == 0 || limit < 103 {
        return Err(Fault::GP0);
    }
    let map = tss_field(cpu, 102, W16)?.checked_sub(32).ok_or(Fault::GP0)?;
    let at = map + u64::from(vector >> 3);
    if at > limit {
        return Err(Fault::GP0);
    }
    Ok(tss_field(cpu, at, W8)? >> (vector & 7) & 1 == 0)
}

/// Calls the 8086 program's own handler through the vector table at linear address 0.
///
/// # Errors
/// #SS(0), #GP(0), #PF.
pub fn interrupt(cpu: &mut Cpu, vector: u8, next_rip: u64) -> Guest<()> {
    let target = read_table(cpu, u64::from(vector) * 4, W32)?;
    let (cs, ip) = ((target >> 16) as u16, target & 0xffff);
    check_ip_real(cpu, ip)?;
    let (flags, virtual_if) = match sensitive(cpu) {
        true => (shown(cpu) | u64::from(cpu.flags.bits()), rflags::VIF),
        false => (cpu.rflags(), rflags::IF),
    };
    let old_cs = u64::from(cpu.segs[Seg::Cs as usize].selector);
    let mut stack = Stack::current(cpu);
    stack.push(cpu, W16, &[flags, old_cs, next_rip])?;
    stack.commit(cpu);
    cpu.sysflags &= !(virtual_if | rflags::TF);
    set_cs_real(cpu, cs, ip);
    Ok(())
}
