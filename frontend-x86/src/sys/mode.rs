//! What code is lifted for, recomputed from the registers it depends on.
//!
//! [`update`] runs after everything that may change CS, SS, DS, ES, CPL, CR0, CR4, EFER, XCR0,
//! RFLAGS.VM or RFLAGS.AC. It leaves [`mode::SINGLE`] clear: that bit is the run loop's.

use super::{cr0, cr4, efer, xcr0};
use emu_core::cpu::{Cpu, Seg, Segment, mode};
use emu_core::flags::rflags;
use emu_core::mem::tlb::Privilege;

/// Whether a data or stack segment at base 0 can be read and written everywhere.
const fn flat_data(s: &Segment) -> bool {
    s.present() && s.writable() && !s.expand_down() && s.limit == u32::MAX
}

/// Sets [`Cpu::mode`] and the privilege of ordinary accesses from the architectural state (SDM
/// Vol. 3, 2.2 "Modes of operation", 3.4.5.1 D/B flag, 4.6 "Access rights").
pub fn update(cpu: &mut Cpu) {
    let s = &cpu.sys;
    let (cs, ss) = (&cpu.segs[Seg::Cs as usize], &cpu.segs[Seg::Ss as usize]);
    let long = s.efer & efer::LMA != 0;
    let vm = cpu.sysflags & rflags::VM != 0;
    let ac = cpu.sysflags & rflags::AC != 0;
    let user = cpu.cpl == 3;
    let mut m = 0;
    let mut set = |on: bool, bit: u32| m |= if on { bit } else { 0 };
    set(long, mode::LONG);
    if long && cs.long() {
        set(true, mode::CODE64 | mode::FLAT);
    } else {
        let bases = [Seg::Es, Seg::Cs, Seg::Ss, Seg::Ds].iter().fold(0, |b, &s| b | cpu.base(s));
        let data = |s: Seg| flat_data(&cpu.segs[s as usize]);
        let code = cs.readable() && cs.present() && !cs.expand_down() && cs.limit == u32::MAX;
        set(cs.big(), mode::CODE32);
        set(ss.big(), mode::STACK32);
        set(bases == 0 && code && data(Seg::Ss) && data(Seg::Ds) && data(Seg::Es), mode::FLAT);
        set(cs.limit != u32::MAX, mode::CS_LIMIT);
        set(s.cr0 & cr0::PE == 0 || vm, mode::REAL);
        set(vm, mode::VM86);
    }
    set(user, mode::USER);
    set(cpu.cpl == 1 || cpu.cpl == 2, mode::CPL12);
    set(s.cr4 & cr4::OSFXSR != 0 && s.cr0 & cr0::EM == 0, mode::SSE);
    set(s.cr0 & cr0::TS != 0, mode::TS);
    set(s.cr0 & cr0::EM != 0, mode::EM);
    let avx = s.cr4 & cr4::OSXSAVE != 0 && s.xcr0 & xcr0::AVX_SSE == xcr0::AVX_SSE;
    set(avx, mode::AVX);
    set(user && ac && s.cr0 & cr0::AM != 0, mode::ALIGN);
    set(!cpu.audit.is_empty(), mode::AUDIT);
    cpu.mode = m;
    cpu.tlb.set_privilege(privilege(cpu, cpu.cpl));
}

/// Privilege of explicit accesses at privilege level `cpl` with the current RFLAGS.AC (SDM
/// Vol. 3, 4.6).
pub fn privilege(cpu: &Cpu, cpl: u8) -> Privilege {
    if cpl == 3 {
        Privilege::User
    } else if cpu.sysflags & rflags::AC != 0 && cpu.sys.cr4 & cr4::SMAP != 0 {
        Privilege::SupervisorAc
    } else {
        Privilege::Supervisor
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, Level};
    use super::*;

    #[test]
    fn modes_of_operation() {
        let mut c = testing::cpu(Level::Real);
        assert_eq!(c.mode, mode::REAL | mode::CS_LIMIT);
        c = testing::cpu(Level::Protected);
        assert_eq!(c.mode, mode::CODE32 | mode::STACK32 | mode::FLAT);
        c = testing::cpu(Level::Long);
        assert_eq!(c.mode, mode::CODE64 | mode::LONG | mode::FLAT | mode::SSE);
        c.cpl = 3;
        c.sys.cr0 |= cr0::TS | cr0::AM;
        c.sysflags |= rflags::AC;
        update(&mut c);
        let user = mode::USER | mode::TS | mode::ALIGN;
        assert_eq!(c.mode, mode::CODE64 | mode::LONG | mode::FLAT | mode::SSE | user);
        assert_eq!(c.tlb.privilege(), Privilege::User);
    }

    /// SDM Vol. 3, 4.6.1: with CR4.SMAP = 1, EFLAGS.AC decides on supervisor accesses.
    #[test]
    fn smap_and_ac_select_the_table() {
        let mut c = testing::cpu(Level::Long);
        c.sysflags |= rflags::AC;
        update(&mut c);
        assert_eq!(c.tlb.privilege(), Privilege::Supervisor);
        c.sys.cr4 |= cr4::SMAP;
        update(&mut c);
        assert_eq!(c.tlb.privilege(), Privilege::SupervisorAc);
    }

    #[test]
    fn one_bounded_segment_ends_flatness() {
        for (seg, change) in [(Seg::Ds, 0xffff), (Seg::Cs, 0x7fff_ffff)] {
            let mut c = testing::cpu(Level::Protected);
            c.segs[seg as usize].limit = change;
            update(&mut c);
            assert_eq!(c.mode & mode::FLAT, 0);
            assert_eq!(c.mode & mode::CS_LIMIT != 0, seg == Seg::Cs);
        }
        let mut c = testing::cpu(Level::Protected);
        c.set_reg(Seg::Ss.base(), 16);
        update(&mut c);
        assert_eq!(c.mode & mode::FLAT, 0);
        c = testing::cpu(Level::Protected);
        c.segs[Seg::Es as usize] = Segment::default();
        update(&mut c);
        assert_eq!(c.mode & mode::FLAT, 0, "a null ES must raise #GP when used");
    }
}
