//! What code is lifted for, recomputed from the registers it depends on.
//!
//! [`update`] runs after everything that may change CS, SS, DS, ES, CPL, CR0, CR4, EFER, XCR0,
//! RFLAGS.VM or RFLAGS.AC; [`with_masks`] after what may change the masks of MXCSR. It leaves
//! [`mode::SINGLE`] clear: that bit is the run loop's.

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
    cpu.mode = with_masks(m, cpu.mxcsr);
    select_table(cpu);
}

/// Sets the privilege of ordinary accesses alone: all that RFLAGS.AC decides on below CPL 3.
pub fn select_table(cpu: &mut Cpu) {
    cpu.tlb.set_privilege(privilege(cpu, cpu.cpl));
}

/// The mode `m` with [`mode::XM`] as the masks of `mxcsr` have it.
pub const fn with_masks(m: u32, mxcsr: u32) -> u32 {
    const MASKS: u32 = 0x1f80;
    if mxcsr & MASKS == MASKS { m & !mode::XM } else { m | mode::XM }
}

/// Privilege of explicit accesses at privilege level `cpl` with the current RFLAGS.AC (SDM
/// Vol. 3, 4.6).
pub fn privilege(cpu: &Cpu, cpl: u8) -> Privilege {
    let aligned = cpu.sysflags & rflags::AC != 0 && cpu.sys.cr0 & cr0::AM != 0;
    if cpl == 3 {
        if aligned { Privilege::UserAligned } else { Privilege::User }
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
        assert_eq!(c.tlb.privilege(), Privilege::UserAligned);
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

/// Alignment checking (SDM Vol. 3, 6.15, "Interrupt 17", and table 6-7).
#[cfg(test)]
mod alignment {
    use super::super::cpuid::Features;
    use super::super::testing::{self, Level};
    use super::*;
    use emu_core::cpu::Reg;
    use emu_core::fault::vector;
    use emu_core::vcpu::Stop;
    use emu_core::width::Width::W64;

    const HLT: u8 = 0xf4;

    /// Runs `code` in ring 3 of 64-bit mode with RBX = `at` until it faults: the vector. HLT is
    /// #GP there.
    fn fault(code: &[u8], at: u64, am: bool, ac: bool) -> u8 {
        let mut c = testing::cpu(Level::Long);
        c.features = Features::X86_64_V3.0;
        (c.sys.cr4, c.sys.xcr0) = (c.sys.cr4 | cr4::OSXSAVE, 7);
        c.sys.cr0 |= if am { cr0::AM } else { 0 };
        for v in [vector::GP, vector::AC, vector::PF] {
            testing::gate(&mut c, v.into(), testing::CODE0, 0x600 + u64::from(v), 0x8e, 0);
        }
        testing::to_user(&mut c, testing::CODE3, 0x7000);
        c.set_rflags(if ac { rflags::AC } else { 0 });
        c.set_reg(Reg::RBX, at);
        c.set_reg(Reg::RCX, 1);
        update(&mut c);
        let code = [code, &[HLT]].concat();
        let mut v = testing::vcpu(c, &[(0x1234, &code), (0x600, &[HLT; 32])]);
        assert_eq!(v.run(100), Stop::Halted);
        let (rip, sp) = (v.cpu.rip(), v.cpu.reg(Reg::RSP));
        let vector = (rip - 0x601) as u8;
        // An error code of 0, and the instruction's own address.
        assert_eq!(v.cpu.mem.read(sp, W64) & !7, 0);
        let at_hlt = v.cpu.mem.read(sp + 8, W64) == 0x1234 + code.len() as u64 - 1;
        if at_hlt { 0 } else { vector }
    }

    /// Instruction at `[rbx]`, and the alignment it needs. As the host's CPU has it where the
    /// manual leaves it open (vectors of 16 bytes).
    #[test]
    fn table_6_7() {
        #[rustfmt::skip]
        let rows: &[(&[u8], u64)] = &[
            (&[0x8a, 0x03],                   1),  // mov al, [rbx]
            (&[0x66, 0x8b, 0x03],             2),
            (&[0x8b, 0x03],                   4),
            (&[0x48, 0x8b, 0x03],             8),
            (&[0x48, 0x89, 0x03],             8),  // mov [rbx], rax
            (&[0x01, 0x03],                   4),  // add [rbx], eax
            (&[0xf0, 0x0f, 0xc1, 0x03],       4),  // lock xadd [rbx], eax
            (&[0x0f, 0xc7, 0x0b],             8),  // cmpxchg8b
            (&[0xff, 0x33],                   8),  // push [rbx]
            (&[0x0f, 0xba, 0x23, 1],          4),  // bt dword [rbx], 1
            (&[0xd9, 0x03],                   4),  // fld dword
            (&[0xdd, 0x03],                   8),
            (&[0xdb, 0x2b],                   8),  // fld tbyte
            (&[0xd9, 0xee, 0xdb, 0x3b],       8),  // fldz; fstp tbyte
            (&[0xd9, 0x33],                   4),  // fnstenv
            (&[0xd9, 0x23],                   4),  // fldenv
            (&[0xdd, 0x33],                   4),  // fnsave
            (&[0x66, 0xdd, 0x33],             2),  // fnsave, 16 bits
            (&[0xf3, 0x0f, 0x10, 0x03],       4),  // movss
            (&[0xf3, 0x0f, 0x7e, 0x03],       8),  // movq
            (&[0x0f, 0x10, 0x03],             16), // movups
            (&[0x0f, 0x11, 0x03],             16),
            (&[0xc5, 0xfc, 0x10, 0x03],       16), // vmovups ymm
            (&[0x66, 0x0f, 0xc4, 0x03, 1],    2),  // pinsrw
            (&[0x48, 0x89, 0xdf, 0x48, 0xab], 8),  // mov rdi, rbx; stosq
            (&[0x48, 0x89, 0xdf, 0xf3, 0x66, 0xab], 2),
            (&[0xc5, 0xfd, 0x76, 0xc0, 0xc4, 0xe2, 0x7d, 0x2c, 0x0b], 1), // vmaskmovps
        ];
        for &(code, align) in rows {
            for by in [1, 2, 4, 8, 16] {
                let expected = if by % align == 0 { 0 } else { vector::AC };
                assert_eq!(fault(code, 0x5000 + by, true, true), expected, "{code:x?} +{by}");
                assert_eq!(fault(code, 0x5000 + by, false, true), 0, "CR0.AM = 0");
                assert_eq!(fault(code, 0x5000 + by, true, false), 0, "RFLAGS.AC = 0");
            }
        }
    }

    /// Aligned forms raise #GP still; #AC comes before #PF, after #GP for the address; the stack
    /// is checked, FXSAVE at 4, and what the CPU itself reads of tables is not.
    #[test]
    fn other_faults() {
        let load: &[u8] = &[0x8b, 0x03];
        let rows: &[(&[u8], u64, u8)] = &[
            (&[0x0f, 0x28, 0x03], 0x5008, vector::GP),       // movaps
            (&[0x48, 0x0f, 0xc7, 0x0b], 0x5008, vector::GP), // cmpxchg16b
            (&[0x0f, 0xae, 0x03], 0x5002, vector::AC),       // fxsave
            (&[0x0f, 0xae, 0x03], 0x5008, vector::GP),
            (load, 0x1_0000_0001 << 10, vector::PF),
            (load, (0x1_0000_0001 << 10) + 1, vector::AC),
            (load, (1 << 47) + 1, vector::GP),
            (&[0x48, 0x89, 0xdc, 0x50], 0x5004, vector::AC), // mov rsp, rbx; push rax
            (&[0x48, 0x89, 0xdc, 0xe8, 0, 0, 0, 0], 0x5004, vector::AC), // …; call
            (&[0x48, 0x89, 0xdc, 0xc3], 0x5004, vector::AC), // …; ret
            (&[0x48, 0x89, 0xdc, 0x48, 0xcf], 0x5004, vector::AC), // …; iretq
        ];
        for &(code, at, expected) in rows {
            assert_eq!(fault(code, at, true, true), expected, "{code:x?} at {at:x}");
        }
        // INT from ring 3 through an IDT and a TSS at odd addresses.
        let mut c = testing::cpu(Level::Long);
        c.sys.cr0 |= cr0::AM;
        for (from, to, n) in [(testing::IDT, 0x9001u64, 4096), (testing::TSS, 0xb003, 0x101)] {
            let bytes: Vec<u8> =
                (0..n).map(|i| c.mem.read(from + i, emu_core::width::Width::W8) as u8).collect();
            c.mem.write_bytes(to, &bytes);
        }
        c.sys.idtr.base = 0x9001;
        c.sys.tr_base = 0xb003;
        c.mem.write(0xb003 + 4, W64, testing::KERNEL_STACK);
        let gate = [0, 6, 8, 0, 0, 0xee, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        c.mem.write_bytes(0x9001 + 16 * 0x80, &gate);
        testing::to_user(&mut c, testing::CODE3, 0x7000);
        c.set_rflags(rflags::AC);
        update(&mut c);
        let mut v = testing::vcpu(c, &[(0x1234, &[0xcd, 0x80]), (0x600, &[HLT])]);
        assert_eq!((v.run(100), v.cpu.rip(), v.cpu.cpl), (Stop::Halted, 0x601, 0));
    }
}
