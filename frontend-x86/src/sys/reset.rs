//! State after RESET.
//!
//! Source: SDM Vol. 3, table 9-1.

use super::cpuid::Features;
use super::{msr, segment, xcr0, xsave};
use crate::model::{self, CpuModel};
use emu_core::cpu::{Cpu, Reg, Seg, Segment, St, SysRegs, TableReg, X87};

/// Puts `cpu` into its state after RESET. The CPU model stays; without one (`features` 0) it
/// becomes the default one.
pub fn reset(cpu: &mut Cpu) {
    if cpu.features == 0 {
        CpuModel::default().apply(cpu);
    }
    if !Features::APIC.in_cpu(cpu) {
        // Interrupts come straight from the 8259A.
        let _ = cpu.mem.platform.apic_msr_write(msr::addr::APIC_BASE, 0, 0);
    }
    let real = |selector| Segment { selector, attr: segment::REAL_ATTR, limit: 0xffff };
    let table = TableReg { base: 0, limit: 0xffff };
    let mut dr = [0; 8];
    (dr[6], dr[7]) = (0xffff_0ff0, 0x400);
    cpu.regs.fill(0);
    cpu.set_reg(Reg::RDX, model::of(cpu).signature().into());
    cpu.set_reg(Seg::Cs.base(), 0xffff_0000);
    cpu.set_rip(0xfff0);
    cpu.set_rflags(0);
    cpu.segs = [real(0); 6];
    cpu.segs[Seg::Cs as usize] = real(0xf000);
    (cpu.cpl, cpu.shadow, cpu.halted, cpu.nmi_blocked, cpu.shutdown) = Default::default();
    cpu.watch = Default::default();
    cpu.v = [[0; 4]; 24];
    cpu.mxcsr = xsave::MXCSR_RESET;
    cpu.x87 = X87 { cw: 0x40, full: 0xff, st: [St::default(); 8], ..X87::default() };
    let misc_enable = if model::of(cpu).misc_enable() { msr::MISC_ENABLE_RESET } else { 0 };
    cpu.sys = SysRegs {
        cr0: 0x6000_0010,
        xcr0: xcr0::X87,
        dr,
        tsc_offset: 0u64.wrapping_sub(cpu.now()),
        pat: msr::PAT_RESET,
        misc_enable,
        gdtr: table,
        idtr: table,
        ldtr: Segment { selector: 0, attr: 0x82, limit: 0xffff },
        tr: Segment { selector: 0, attr: 0x8b, limit: 0xffff },
        ..SysRegs::default()
    };
    cpu.tlb.flush_all(true);
    cpu.tlb.switch(0, false);
    super::mode::update(cpu);
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, Level};
    use super::*;
    use emu_core::cpu::mode as m;

    #[test]
    fn the_first_instruction_is_at_fffffff0() {
        let mut c = testing::cpu(Level::Long);
        c.regs[3] = 5;
        reset(&mut c);
        assert_eq!(c.base(Seg::Cs) + c.rip(), 0xffff_fff0);
        assert_eq!((c.mode, c.rflags()), (m::REAL | m::CS_LIMIT, 2));
        assert_eq!((c.regs[3], c.reg(Reg::RDX)), (0, 0x2_06c2));
        assert_eq!((c.sys.cr0, c.sys.efer, c.x87.cw), (0x6000_0010, 0, 0x40));
        assert!(c.tsc() < 1_000_000_000);
    }
}
