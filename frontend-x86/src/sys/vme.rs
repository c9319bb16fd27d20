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

#[cfg(test)]
mod tests {
    use super::super::control::{cli, popf, pushf, sti};
    use super::super::interrupt::{Software, iret, software_interrupt};
    use super::super::mode;
    use super::super::testing::{self, Level, TSS};
    use super::*;
    use emu_core::cpu::Reg;

    const IF: u64 = rflags::IF;
    const VIF: u64 = rflags::VIF;
    const VIP: u64 = rflags::VIP;

    /// Virtual-8086 mode with CS 2000H, SS 3000H and this IOPL.
    fn vm86(iopl: u64) -> Cpu {
        let mut c = testing::cpu(Level::Protected);
        c.sys.cr4 = cr4::VME;
        c.set_rflags(rflags::VM | iopl << 12 | IF);
        c.cpl = 3;
        mode::update(&mut c);
        for s in Seg::ALL {
            super::super::segment::set_real(&mut c, s, if s == Seg::Cs { 0x2000 } else { 0x3000 });
        }
        c.set_reg(Reg::RSP, 0x100);
        mode::update(&mut c);
        c
    }

    fn flags(c: &Cpu) -> u64 {
        c.rflags() & (IF | VIF | VIP | rflags::TF)
    }

    /// SDM Vol. 3, 20.3.2 and 20.3.3.
    #[test]
    fn cli_sti_pushf_popf_use_vif() {
        let mut c = vm86(0);
        sti(&mut c, true).unwrap();
        assert_eq!((flags(&c), c.shadow), (IF | VIF, false));
        assert_eq!(pushf(&c, W16), Ok(0x3202 | VIF));
        assert_eq!(pushf(&c, W32), Err(Fault::GP0));
        cli(&mut c).unwrap();
        assert_eq!((flags(&c), pushf(&c, W16)), (IF, Ok(0x3002)));
        popf(&mut c, W16, IF | 1).unwrap();
        assert_eq!((flags(&c), c.flags.cf(), iopl(&c)), (IF | VIF, true, 0));
        assert_eq!(popf(&mut c, W32, 0), Err(Fault::GP0));
        assert_eq!(popf(&mut c, W16, rflags::TF), Err(Fault::GP0));
        popf(&mut c, W16, 0x3000).unwrap();
        assert_eq!((flags(&c), iopl(&c)), (IF, 0));
        c.sysflags |= VIP;
        assert_eq!((sti(&mut c, true), popf(&mut c, W16, IF)), (Err(Fault::GP0), Err(Fault::GP0)));
        popf(&mut c, W16, 0).unwrap();
        // Without CR4.VME all of them are #GP(0); with IOPL 3 they work on IF.
        c.sys.cr4 = 0;
        assert_eq!((sti(&mut c, true), cli(&mut c)), (Err(Fault::GP0), Err(Fault::GP0)));
        assert_eq!((pushf(&c, W16), popf(&mut c, W16, 0)), (Err(Fault::GP0), Err(Fault::GP0)));
        let mut c = vm86(3);
        cli(&mut c).unwrap();
        assert_eq!((flags(&c), pushf(&c, W32)), (0, Ok(0x3002)));
    }

    /// INT n: a clear bit of the redirection map leaves it to the program (table 20-2).
    #[test]
    fn int_is_redirected() {
        for (level, pushed, after) in [(0, 0x3002, IF), (3, 0x3202, 0)] {
            let mut c = vm86(level);
            c.mem.write(TSS + 102, W16, 0xa0);
            c.mem.write(TSS + 0x80 + 4, W8, 0b100);
            c.mem.write(0x21 * 4, W32, 0x4000_0010);
            c.sysflags |= rflags::TF;
            software_interrupt(&mut c, 0x21, 0x55, Software::Int).unwrap();
            assert_eq!((c.base(Seg::Cs), c.rip(), flags(&c)), (0x4_0000, 0x10, after));
            let sp = c.reg(Reg::RSP);
            let frame = [0, 2, 4].map(|i| c.mem.read(0x3_0000 + sp + i, W16));
            assert_eq!((sp, frame), (0xfa, [0x55, 0x2000, pushed | rflags::TF]));
            // IRET takes IF back from where PUSHF shows it.
            c.mem.write(0x3_0000 + sp + 4, W16, 0x3202);
            iret(&mut c, W16, 0).unwrap();
            assert_eq!(flags(&c), if level == 0 { IF | VIF } else { IF });
            assert_eq!((c.rip(), c.reg(Reg::RSP)), (0x55, 0x100));
            // A set bit: to the monitor, which IOPL 3 does not need to be asked.
            testing::gate(&mut c, 0x22, testing::CODE0, 0x5000, 0xee, 0);
            let r = software_interrupt(&mut c, 0x22, 0x55, Software::Int);
            assert_eq!((r, c.cpl), if level == 0 { (Err(Fault::GP0), 3) } else { (Ok(()), 0) });
        }
        let mut c = vm86(0);
        c.mem.write(TSS + 102, W16, 0x101);
        c.sys.tr.limit = 0xe0;
        assert_eq!(software_interrupt(&mut c, 0x21, 0, Software::Int), Err(Fault::GP0), "no map");
        assert_eq!(iret(&mut c, W32, 0), Err(Fault::GP0));
    }

    /// SDM Vol. 3, 20.4: CR4.PVI gives VIF to CLI and STI of ring 3, and to nothing else.
    #[test]
    fn protected_mode_virtual_interrupts() {
        for level in [Level::Protected, Level::Long] {
            let mut c = testing::cpu(level);
            testing::to_user(&mut c, testing::CODE3, 0x7000);
            c.set_rflags(IF);
            assert_eq!(sti(&mut c, true), Err(Fault::GP0));
            c.sys.cr4 |= cr4::PVI;
            sti(&mut c, true).unwrap();
            assert_eq!((flags(&c), pushf(&c, W32)), (IF | VIF, Ok(0x202 | VIF)));
            popf(&mut c, W32, 2).unwrap();
            assert_eq!(flags(&c), IF | VIF);
            cli(&mut c).unwrap();
            c.sysflags |= VIP;
            assert_eq!((sti(&mut c, true), flags(&c)), (Err(Fault::GP0), IF | VIP));
            c.cpl = 2;
            assert_eq!(cli(&mut c), Err(Fault::GP0));
        }
    }
}
