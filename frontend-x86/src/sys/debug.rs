//! Debug registers and debug exceptions.
//!
//! Which breakpoints are armed goes from DR7, DR0–DR3 and CR4.DE into [`Cpu::watch`], where the
//! core looks for them. Hits come back as DR6 bits: of an instruction breakpoint, before the
//! instruction; of data, ports, single step and task switches, after it.
//!
//! Source: SDM Vol. 3, 17.2 and 17.3.

use super::{cr4, interrupt, need_cpl0};
use emu_core::cpu::Cpu;
use emu_core::fault::{Fault, Guest, vector};
use emu_core::watch::{Kind, Point};

/// Bits of DR6 that can change, and those that are always one.
const DR6: (u64, u64) = (0xe00f, 0xffff_0ff0);
/// The same of DR7.
const DR7: (u64, u64) = (0xffff_23ff, 0x400);
/// DR6.BD: debug-register access detected.
const DR6_BD: u64 = 1 << 13;
/// DR7.GD: general detect.
const DR7_GD: u64 = 1 << 13;
/// DR7.L0–L3 and LE: a task switch clears them.
const DR7_LOCAL: u64 = 0x155;

/// Checks an access to debug register `n` and resolves the aliases DR4 and DR5.
fn index(cpu: &mut Cpu, n: u8) -> Guest<usize> {
    if matches!(n, 4 | 5) && cpu.sys.cr4 & cr4::DE != 0 || n > 7 {
        return Err(Fault::UD);
    }
    need_cpl0(cpu)?;
    if cpu.sys.dr[7] & DR7_GD != 0 {
        // General detect: DR6.BD is part of the exception.
        cpu.sys.dr[6] |= DR6_BD;
        return Err(Fault::new(vector::DB));
    }
    Ok(usize::from(if matches!(n, 4 | 5) { n + 2 } else { n }))
}

/// MOV from debug register `n`.
///
/// # Errors
/// #UD, #GP(0), #DB for general detect.
pub fn read_dr(cpu: &mut Cpu, n: u8) -> Guest<u64> {
    let i = index(cpu, n)?;
    Ok(cpu.sys.dr[i & 7])
}

/// MOV to debug register `n`.
///
/// # Errors
/// #UD, #GP(0), #DB for general detect.
pub fn write_dr(cpu: &mut Cpu, n: u8, value: u64) -> Guest<()> {
    let i = index(cpu, n)?;
    let (mask, ones) = match i {
        6 => DR6,
        7 => DR7,
        _ => (u64::MAX, 0),
    };
    if i >= 6 && value >> 32 != 0 {
        return Err(Fault::GP0);
    }
    cpu.sys.dr[i & 7] = value & mask | ones;
    arm(cpu);
    Ok(())
}

/// Breakpoint `i` of DR7, if L or G enables it. The low address bits that its length covers do not
/// count; ports need CR4.DE (SDM Vol. 3, 17.2.4 and 17.2.5).
fn point(cpu: &Cpu, i: usize) -> Option<Point> {
    let (address, dr7) = (cpu.sys.dr[i & 3], cpu.sys.dr[7]);
    let field = dr7 >> (16 + 4 * i);
    let kind = match field & 3 {
        0 => Kind::Execute,
        1 => Kind::Write,
        2 if cpu.sys.cr4 & cr4::DE == 0 => return None,
        2 => Kind::Port,
        _ => Kind::Access,
    };
    let bytes = if kind == Kind::Execute { 1 } else { [1, 2, 8, 4][(field >> 2 & 3) as usize] };
    let first = address & !(bytes - 1);
    (dr7 >> (2 * i) & 3 != 0).then_some(Point { first, last: first | (bytes - 1), kind })
}

/// Arms the breakpoints as DR0–DR3, DR7 and CR4.DE say.
pub fn arm(cpu: &mut Cpu) {
    let was = cpu.watch.clone();
    cpu.watch.arm([0, 1, 2, 3].map(|i| point(cpu, i)));
    if cpu.watch != was {
        // Pages that get a data breakpoint lose their tags.
        cpu.tlb.clear_level1();
    }
}

/// What a task switch does to the breakpoints: the local ones are disabled.
pub fn leave_task(cpu: &mut Cpu) {
    cpu.sys.dr[7] &= !DR7_LOCAL;
    arm(cpu);
}

/// Every #DB but that of INT1 turns general detect off, so that its handler may read the registers.
pub fn entered(cpu: &mut Cpu) {
    cpu.sys.dr[7] &= !DR7_GD;
}

/// The function for [`emu_core::cpu::Frontend::single_step`]: #DB with the DR6 bits of
/// [`emu_core::watch::Watch::hits`]. RIP is that of the next instruction, which for an instruction
/// breakpoint has not run.
pub fn trap(cpu: &mut Cpu) {
    cpu.sys.dr[6] = cpu.sys.dr[6] & !15 | cpu.watch.hits;
    interrupt::deliver_trap(cpu, vector::DB);
}
