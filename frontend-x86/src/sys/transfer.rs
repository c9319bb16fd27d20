//! Far JMP, CALL and RET, and the fast system-call instructions.
//!
//! Source: SDM Vol. 3, 5.8; Vol. 2 on JMP, CALL, RET, SYSCALL, SYSRET, SYSENTER, SYSEXIT. TSSs and
//! task gates lead to [`super::task`].

use super::segment::{self, Descriptor, is_null, mark_accessed, require, rpl};
use super::stack::{self, Stack};
use super::task::{self, By};
use super::{efer, mode, need_canonical, need_cpl0};
use emu_core::cpu::{Cpu, Reg, Seg, Segment, mode as m};
use emu_core::fault::{Fault, Guest, vector};
use emu_core::flags::rflags;
use emu_core::width::Width::{self, W16, W32, W64};

/// Whether long mode is active.
pub(super) const fn long(cpu: &Cpu) -> bool {
    cpu.mode & m::LONG != 0
}

/// Whether `d` is a 64-bit code segment now.
pub(super) const fn is_64(cpu: &Cpu, d: &Descriptor) -> bool {
    long(cpu) && d.seg.long()
}

/// Checks an instruction pointer against the code segment it goes into.
///
/// # Errors
/// #GP(0).
#[inline(always)]
pub(super) fn check_ip(cpu: &Cpu, cs: &Descriptor, ip: u64) -> Guest<()> {
    let ok = if is_64(cpu, cs) { cpu.canonical(ip) } else { ip <= u64::from(cs.seg.limit) };
    if ok { Ok(()) } else { Err(Fault::GP0) }
}

/// Assigns CS:RIP and CPL; [`mode::update`] is the caller's.
pub(super) fn set_cs(cpu: &mut Cpu, cs: &Descriptor, cpl: u8, ip: u64) {
    segment::set(cpu, Seg::Cs, cs);
    let selector = cs.seg.selector & !3 | u16::from(cpl);
    cpu.segs[Seg::Cs as usize].selector = selector;
    cpu.cpl = cpl;
    cpu.set_rip(ip);
}

/// Real and virtual-8086 mode: checks `ip` and assigns CS:IP.
pub(super) fn set_cs_real(cpu: &mut Cpu, selector: u16, ip: u64) {
    segment::set_real(cpu, Seg::Cs, selector);
    cpu.set_rip(ip);
    mode::update(cpu);
}

/// In real and virtual-8086 mode: whether `ip` is within CS's limit.
pub(super) fn check_ip_real(cpu: &Cpu, ip: u64) -> Guest<()> {
    let limit = cpu.segs[Seg::Cs as usize].limit;
    if ip <= u64::from(limit) { Ok(()) } else { Err(Fault::GP0) }
}

/// Whether a code descriptor has an L and D combination that this mode refuses.
fn bad_size(cpu: &Cpu, d: &Descriptor) -> bool {
    long(cpu) && d.seg.long() && d.seg.big()
}

/// Where a far JMP or CALL leads.
enum Target {
    /// Code segment at the same privilege level.
    Same(Descriptor, u64),
    /// Through a call gate of this width to the same or, with the level, a higher privilege; the
    /// number is the gate's parameter count.
    Gate { cs: Descriptor, ip: u64, w: Width, inner: Option<u8>, params: u64 },
    /// Task with this TSS.
    Task(u16),
}

/// Finds the target of a far JMP (or CALL, if `call`) in protected mode.
fn target(cpu: &mut Cpu, selector: u16, offset: u64, call: bool) -> Guest<Target> {
    let d = require(cpu, selector, vector::GP)?;
    let cpl = cpu.cpl;
    if d.seg.is_code() {
        let refused = match d.seg.conforming() {
            true => d.seg.dpl() > cpl,
            false => rpl(selector) > cpl || d.seg.dpl() != cpl,
        };
        if refused || bad_size(cpu, &d) {
            return Err(d.fault(vector::GP));
        }
        return Ok(Target::Same(present_code(cpu, d, offset)?, offset));
    }
    let w = match (d.system(), long(cpu)) {
        (Some(12), true) => W64,
        (Some(12), false) => W32,
        (Some(1 | 4 | 5 | 9), false) => W16,
        _ => return Err(d.fault(vector::GP)),
    };
    if d.seg.dpl() < cpl.max(rpl(selector)) {
        return Err(d.fault(vector::GP));
    }
    if !d.seg.present() {
        return Err(d.fault(vector::NP));
    }
    match d.system() {
        Some(1 | 9) => return Ok(Target::Task(selector)),
        Some(5) => return Ok(Target::Task(d.gate_selector())),
        _ => {}
    }
    let ip = d.gate_offset();
    let cs = require(cpu, d.gate_selector(), vector::GP)?;
    let dpl = cs.seg.dpl();
    let reachable = cs.seg.is_code() && dpl <= cpl;
    let raises = !cs.seg.conforming() && dpl < cpl;
    if !reachable || raises && !call || w == W64 && (!cs.seg.long() || cs.seg.big()) {
        return Err(cs.fault(vector::GP));
    }
    let cs = present_code(cpu, cs, ip)?;
    Ok(Target::Gate { cs, ip, w, inner: raises.then_some(dpl), params: d.raw >> 32 & 31 })
}

/// Checks that code segment `d` is present and `ip` in it; sets its accessed bit.
#[inline(always)]
pub(super) fn present_code(cpu: &mut Cpu, mut d: Descriptor, ip: u64) -> Guest<Descriptor> {
    if !d.seg.present() {
        return Err(d.fault(vector::NP));
    }
    check_ip(cpu, &d, ip)?;
    mark_accessed(cpu, &mut d)?;
    Ok(d)
}

/// Far JMP to `selector:offset` from before the instruction at `next_rip`; `offset` is
/// zero-extended from the operand width.
///
/// # Errors
/// #GP, #NP, #TS, #PF.
pub fn far_jump(cpu: &mut Cpu, selector: u16, offset: u64, next_rip: u64) -> Guest<()> {
    if cpu.mode & m::REAL != 0 {
        check_ip_real(cpu, offset)?;
        set_cs_real(cpu, selector, offset);
        return Ok(());
    }
    let (cs, ip) = match target(cpu, selector, offset, false)? {
        Target::Same(cs, ip) | Target::Gate { cs, ip, .. } => (cs, ip),
        Target::Task(tss) => return task::by_instruction(cpu, tss, By::Jump, next_rip),
    };
    set_cs(cpu, &cs, cpu.cpl, ip);
    mode::update(cpu);
    Ok(())
}

/// Far CALL to `selector:offset`, operand width `w`, from before the instruction at `next_rip`.
///
/// # Errors
/// #GP, #NP, #SS, #TS, #PF.
pub fn far_call(cpu: &mut Cpu, selector: u16, offset: u64, w: Width, next_rip: u64) -> Guest<()> {
    let old_cs = u64::from(cpu.segs[Seg::Cs as usize].selector);
    let mut stack = Stack::current(cpu);
    if cpu.mode & m::REAL != 0 {
        check_ip_real(cpu, offset)?;
        stack.push(cpu, w, &[old_cs, next_rip])?;
        stack.commit(cpu);
        set_cs_real(cpu, selector, offset);
        return Ok(());
    }
    let (cs, ip, cpl) = match target(cpu, selector, offset, true)? {
        Target::Task(tss) => return task::by_instruction(cpu, tss, By::Call, next_rip),
        Target::Same(cs, ip) => {
            stack.push(cpu, w, &[old_cs, next_rip])?;
            (cs, ip, cpu.cpl)
        }
        Target::Gate { cs, ip, w, inner: None, .. } => {
            stack.push(cpu, w, &[old_cs, next_rip])?;
            (cs, ip, cpu.cpl)
        }
        Target::Gate { cs, ip, w, inner: Some(dpl), params } => {
            let old = stack;
            let mut frame = [0; 35];
            let mut n = 2;
            if w == W64 {
                let ss = Segment { selector: u16::from(dpl), attr: 0, limit: 0 };
                stack = Stack::inner_long(cpu, u64::from(dpl) * 8 + 4, ss, dpl)?;
            } else {
                stack = Stack::inner(cpu, dpl)?;
                n += params as usize;
                for (i, slot) in frame[2..n].iter_mut().enumerate() {
                    *slot = old.read(cpu, (params - 1 - i as u64) * w.bytes(), w)?;
                }
            }
            (frame[0], frame[1]) = (u64::from(old.seg.selector), old.sp);
            (frame[n], frame[n + 1]) = (old_cs, next_rip);
            stack.push(cpu, w, &frame[..n + 2])?;
            (cs, ip, dpl)
        }
    };
    stack.commit(cpu);
    set_cs(cpu, &cs, cpl, ip);
    mode::update(cpu);
    Ok(())
}

/// Checks the code segment that RET or IRET goes to, with `ip` (SDM Vol. 2, RET).
///
/// # Errors
/// #GP, #NP, #PF.
#[inline(always)]
pub(super) fn returned_code(cpu: &mut Cpu, selector: u16, ip: u64) -> Guest<Descriptor> {
    let d = require(cpu, selector, vector::GP)?;
    let level = rpl(selector);
    let level_ok = if d.seg.conforming() { d.seg.dpl() <= level } else { d.seg.dpl() == level };
    if !d.seg.is_code() || level < cpu.cpl || !level_ok || bad_size(cpu, &d) {
        return Err(d.fault(vector::GP));
    }
    present_code(cpu, d, ip)
}

/// Far RET with operand width `w`, releasing `bytes` of parameters.
///
/// # Errors
/// #GP, #NP, #SS, #PF.
pub fn far_ret(cpu: &mut Cpu, w: Width, bytes: u16) -> Guest<()> {
    let mut stack = Stack::current(cpu);
    let (n, bytes) = (w.bytes(), u64::from(bytes));
    let ip = stack.read(cpu, 0, w)?;
    let selector = stack.read(cpu, n, W16)? as u16;
    if cpu.mode & m::REAL != 0 {
        check_ip_real(cpu, ip)?;
        stack.skip(2 * n + bytes);
        stack.commit(cpu);
        set_cs_real(cpu, selector, ip);
        return Ok(());
    }
    let cs = returned_code(cpu, selector, ip)?;
    let level = rpl(selector);
    let outer = level > cpu.cpl;
    if outer {
        let to_64 = is_64(cpu, &cs);
        stack = stack::returned(cpu, &stack, 2 * n + bytes, w, level, to_64)?;
        stack.skip(bytes);
    } else {
        stack.skip(2 * n + bytes);
    }
    stack.commit(cpu);
    set_cs(cpu, &cs, level, ip);
    if outer {
        segment::drop_inaccessible(cpu);
    }
    mode::update(cpu);
    Ok(())
}

/// Assigns the flat CS and SS of the fast system calls: `cs` and `cs + 8` at level `cpl`.
fn flat_segments(cpu: &mut Cpu, cs: u16, ss: u16, cpl: u8, code64: bool) {
    let rpl = u16::from(cpl);
    let size = if code64 { 0xa000 } else { 0xc000 };
    let code = Segment { selector: cs & !3 | rpl, attr: size | 0x9b | rpl << 5, limit: u32::MAX };
    let data = Segment { selector: ss & !3 | rpl, attr: 0xc093 | rpl << 5, limit: u32::MAX };
    cpu.segs[Seg::Cs as usize] = code;
    cpu.segs[Seg::Ss as usize] = data;
    cpu.set_reg(Reg::CS_BASE, 0);
    cpu.set_reg(Reg::SS_BASE, 0);
    cpu.cpl = cpl;
}

/// SYSCALL (SDM Vol. 2): 64-bit mode only, as on Intel CPUs.
///
/// # Errors
/// #UD unless in 64-bit mode with EFER.SCE = 1.
pub fn syscall(cpu: &mut Cpu, next_rip: u64) -> Guest<()> {
    if cpu.mode & m::CODE64 == 0 || cpu.sys.efer & efer::SCE == 0 {
        return Err(Fault::UD);
    }
    let flags = cpu.rflags();
    cpu.set_reg(Reg::RCX, next_rip);
    cpu.set_reg(Reg::gpr(11), flags);
    cpu.set_rip(cpu.sys.lstar);
    let cs = (cpu.sys.star >> 32) as u16 & !3;
    flat_segments(cpu, cs, cs.wrapping_add(8), 0, true);
    cpu.watch.entered = true;
    cpu.set_rflags(flags & !cpu.sys.sfmask & !rflags::RF);
    mode::update(cpu);
    Ok(())
}

/// SYSRET (SDM Vol. 2): to 64-bit code for `w` = 64, else to compatibility mode.
///
/// # Errors
/// #UD unless in 64-bit mode with EFER.SCE = 1; #GP(0) unless CPL 0 and, for 64-bit code, RCX
/// canonical.
pub fn sysret(cpu: &mut Cpu, w: Width) -> Guest<()> {
    if cpu.mode & m::CODE64 == 0 || cpu.sys.efer & efer::SCE == 0 {
        return Err(Fault::UD);
    }
    need_cpl0(cpu)?;
    let star = (cpu.sys.star >> 48) as u16;
    let rcx = cpu.reg(Reg::RCX);
    let (ip, cs) = match w {
        W64 => (need_canonical(cpu, rcx)?, star.wrapping_add(16)),
        _ => (W32.zext(rcx), star),
    };
    flat_segments(cpu, cs, star.wrapping_add(8), 3, w == W64);
    cpu.set_rip(ip);
    cpu.set_rflags(cpu.reg(Reg::gpr(11)) & 0x3c_7fd7);
    mode::update(cpu);
    Ok(())
}

/// SYSENTER (SDM Vol. 2).
///
/// # Errors
/// #GP(0) in real mode or when `IA32_SYSENTER_CS` is null.
pub fn sysenter(cpu: &mut Cpu) -> Guest<()> {
    let cs = cpu.sys.sysenter_cs as u16;
    if !segment::protected(cpu) || is_null(cs) {
        return Err(Fault::GP0);
    }
    let w = if long(cpu) { W64 } else { W32 };
    cpu.set_reg(Reg::RSP, w.zext(cpu.sys.sysenter_esp));
    cpu.set_rip(w.zext(cpu.sys.sysenter_eip));
    cpu.set_rflags(cpu.rflags() & !(rflags::VM | rflags::IF | rflags::RF));
    flat_segments(cpu, cs, cs.wrapping_add(8), 0, w == W64);
    mode::update(cpu);
    Ok(())
}

/// SYSEXIT (SDM Vol. 2): to 64-bit code for `w` = 64.
///
/// # Errors
/// #GP(0) in real mode, when CPL is not 0, when `IA32_SYSENTER_CS` is null or a 64-bit target is
/// not canonical.
pub fn sysexit(cpu: &mut Cpu, w: Width) -> Guest<()> {
    let cs = cpu.sys.sysenter_cs as u16;
    if !segment::protected(cpu) || is_null(cs) {
        return Err(Fault::GP0);
    }
    need_cpl0(cpu)?;
    let wide = w == W64;
    let cut = if wide { W64 } else { W32 };
    let (ip, sp) = (cut.zext(cpu.reg(Reg::RDX)), cut.zext(cpu.reg(Reg::RCX)));
    if wide {
        need_canonical(cpu, ip)?;
        need_canonical(cpu, sp)?;
    }
    cpu.set_rip(ip);
    cpu.set_reg(Reg::RSP, sp);
    let cs = cs.wrapping_add(if wide { 32 } else { 16 });
    flat_segments(cpu, cs, cs.wrapping_add(8), 3, wide);
    mode::update(cpu);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::super::{control, cr4};
    use super::*;

    fn selectors(c: &Cpu) -> (u16, u16) {
        (c.segs[1].selector, c.segs[2].selector)
    }

    /// A call-gate descriptor.
    fn call_gate(selector: u16, offset: u64, kind: u64, params: u64) -> u64 {
        offset & 0xffff | u64::from(selector) << 16 | params << 32 | kind << 40 | offset >> 16 << 48
    }

    #[test]
    fn real_mode_jump_call_return() {
        let mut c = cpu(Level::Real);
        far_jump(&mut c, 0x1000, 0x20, 0).unwrap();
        assert_eq!((c.base(Seg::Cs), c.rip()), (0x1_0000, 0x20));
        let sp = c.reg(Reg::RSP);
        far_call(&mut c, 0x2000, 0x30, W16, 0x25).unwrap();
        assert_eq!((c.base(Seg::Cs), c.rip(), c.reg(Reg::RSP)), (0x2_0000, 0x30, sp - 4));
        assert_eq!(c.mem.read(sp - 4, W32), 0x1000_0025);
        far_ret(&mut c, W16, 6).unwrap();
        assert_eq!((c.base(Seg::Cs), c.rip(), c.reg(Reg::RSP)), (0x1_0000, 0x25, sp + 6));
        assert_eq!(far_jump(&mut c, 0, 0x1_0000, 0), Err(Fault::GP0));
    }

    /// The way of every boot loader: CR0.PE, far jump, CR0.PG with EFER.LME, far jump.
    #[test]
    fn from_real_to_64_bit_mode() {
        let mut c = cpu(Level::Long);
        let (gdtr, cr3) = (c.sys.gdtr, c.sys.cr3);
        super::super::reset::reset(&mut c);
        c.sys.gdtr = gdtr;
        control::write_cr(&mut c, 0, 1).unwrap();
        assert_eq!(c.mode & (m::REAL | m::CODE32), 0, "16-bit protected mode");
        gdt(&mut c, 6, desc(0, 0xf_ffff, 0xc09b));
        far_jump(&mut c, 0x30, 0x100, 0).unwrap();
        assert!(c.mode & m::CODE32 != 0);
        control::write_cr(&mut c, 4, cr4::PAE).unwrap();
        control::write_cr(&mut c, 3, cr3).unwrap();
        super::super::msr::write(&mut c, 0xc000_0080, efer::LME).unwrap();
        control::write_cr(&mut c, 0, 0x8000_0001).unwrap();
        assert_eq!(c.sys.efer, efer::LME | efer::LMA);
        assert_eq!(c.mode & (m::LONG | m::CODE64 | m::CODE32), m::LONG | m::CODE32);
        far_jump(&mut c, CODE0, 0x200, 0).unwrap();
        assert_eq!((c.mode & m::CODE64, c.rip(), c.cpl), (m::CODE64, 0x200, 0));
        let f = control::write_cr(&mut c, 0, 1);
        assert_eq!(f, Err(Fault::GP0), "paging cannot end in 64-bit code");
    }

    #[test]
    fn checks_of_direct_targets() {
        let mut c = cpu(Level::Protected);
        gdt(&mut c, 6, desc(0, 0xff, 0x409f)); // conforming
        gdt(&mut c, 7, desc(0, 0xff, 0x401b)); // not present
        #[rustfmt::skip]
        let rows = [
            (0, 0, Err(Fault::GP0)),
            (DATA0, 0, Err(Fault::gp(0x10))),
            (CODE3, 0, Err(Fault::gp(0x18))),
            (CODE0 | 1, 0, Err(Fault::gp(0x08))), // RPL
            (0x38, 0, Err(Fault::with_error(vector::NP, 0x38))),
            (0x30, 0x100, Err(Fault::GP0)),       // limit
            (0x68, 0, Err(Fault::gp(0x68))),      // a TSS
            (0x30, 0xff, Ok(())),
        ];
        for (selector, offset, expected) in rows {
            assert_eq!(
                far_jump(&mut c, selector, offset, 0),
                expected,
                "{selector:#x}:{offset:#x}"
            );
        }
        to_user(&mut c, CODE3, 0x7000);
        far_jump(&mut c, 0x30, 0x10, 0).unwrap();
        assert_eq!((selectors(&c).0, c.cpl), (0x33, 3), "conforming code keeps CPL");
        assert_eq!(far_jump(&mut c, CODE0 | 3, 0, 0), Err(Fault::gp(8)));
    }

    /// SDM Vol. 3, 5.8.5: two parameters are copied; RET releases them on both stacks.
    #[test]
    fn call_gate_to_ring_0_and_back() {
        let mut c = cpu(Level::Protected);
        gdt(&mut c, 6, call_gate(CODE0, 0x12_3456, 0xec, 2));
        gdt(&mut c, 7, call_gate(CODE0, 0x12_3456, 0x8c, 2));
        to_user(&mut c, CODE3, 0x7000);
        c.mem.write(0x7000, W64, 0xbbbb_0000_aaaa);
        assert_eq!(far_call(&mut c, 0x38, 0, W32, 0), Err(Fault::gp(0x38)), "gate DPL");
        assert_eq!(far_jump(&mut c, 0x30, 0, 0), Err(Fault::gp(8)), "JMP does not raise");
        far_call(&mut c, 0x30, 0, W32, 0x1239).unwrap();
        assert_eq!((selectors(&c), c.cpl, c.rip()), ((8, 0x10), 0, 0x12_3456));
        let sp = KERNEL_STACK - 24;
        let frame: Vec<u64> = (0..6).map(|i| c.mem.read(sp + 4 * i, W32)).collect();
        assert_eq!(frame, [0x1239, 0x1b, 0xaaaa, 0xbbbb, 0x7000, 0x23]);
        assert_eq!(c.reg(Reg::RSP), sp);
        far_ret(&mut c, W32, 8).unwrap();
        assert_eq!((selectors(&c), c.cpl, c.rip()), ((0x1b, 0x23), 3, 0x1239));
        assert_eq!(c.reg(Reg::RSP), 0x7008);
        assert_eq!(c.segs[3].selector, 0x23);
    }

    #[test]
    fn call_gate_in_long_mode() {
        let mut c = cpu(Level::Long);
        gdt(&mut c, 6, call_gate(CODE0, 0x5566_7788, 0xec, 0));
        gdt(&mut c, 7, 0x1122);
        to_user(&mut c, CODE3, 0x7000);
        far_call(&mut c, 0x30, 0, W64, 0x1239).unwrap();
        assert_eq!((selectors(&c), c.rip()), ((8, 0), 0x1122_5566_7788));
        let sp = c.reg(Reg::RSP);
        let frame: Vec<u64> = (0..4).map(|i| c.mem.read(sp + 8 * i, W64)).collect();
        assert_eq!((sp, frame), (KERNEL_STACK - 32, vec![0x1239, 0x1b, 0x7000, 0x23]));
        far_ret(&mut c, W64, 0).unwrap();
        assert_eq!((selectors(&c), c.reg(Reg::RSP)), ((0x1b, 0x23), 0x7000));
        gdt(&mut c, 7, 0x1f << 40);
        assert_eq!(far_call(&mut c, 0x30, 0, W64, 0), Err(Fault::gp(0x30)), "malformed upper half");
        gdt(&mut c, 6, call_gate(COMPAT3, 0, 0xec, 0));
        gdt(&mut c, 7, 0);
        assert_eq!(far_call(&mut c, 0x30, 0, W64, 0), Err(Fault::gp(0x28)), "not 64-bit code");
    }

    #[test]
    fn far_return_to_compatibility_mode() {
        let mut c = cpu(Level::Long);
        for (i, v) in [0x1_0000_0000, 0x2b, 0x7000, 0x23].into_iter().enumerate() {
            c.mem.write(STACK + 8 * i as u64, W64, v);
        }
        assert_eq!(far_ret(&mut c, W64, 0), Err(Fault::GP0), "beyond the 4-GByte limit");
        c.mem.write(STACK, W64, 0x400);
        far_ret(&mut c, W64, 0).unwrap();
        assert_eq!((selectors(&c), c.rip(), c.reg(Reg::RSP)), ((0x2b, 0x23), 0x400, 0x7000));
        assert_eq!(c.mode & (m::CODE64 | m::CODE32 | m::STACK32), m::CODE32 | m::STACK32);
        assert_eq!(syscall(&mut c, 0), Err(Fault::UD), "not in compatibility mode");
    }

    #[test]
    fn syscall_and_sysret() {
        let mut c = cpu(Level::Long);
        c.sys.star = 0x0013_0008 << 32;
        c.sys.lstar = 0xffff_8000_0000_1000;
        c.sys.sfmask = rflags::IF | rflags::DF;
        assert_eq!(syscall(&mut c, 0), Err(Fault::UD), "EFER.SCE");
        c.sys.efer |= efer::SCE;
        to_user(&mut c, CODE3, 0x7000);
        assert_eq!(sysret(&mut c, W64), Err(Fault::GP0));
        c.set_rflags(rflags::IF | rflags::DF | 1);
        syscall(&mut c, 0x40_0002).unwrap();
        assert_eq!((selectors(&c), c.cpl, c.rip()), ((8, 0x10), 0, c.sys.lstar));
        assert_eq!((c.reg(Reg::RCX), c.regs[11], c.rflags()), (0x40_0002, 0x603, 3));
        assert_eq!((c.reg(Reg::RSP), c.mode & m::USER), (0x7000, 0));
        sysret(&mut c, W64).unwrap();
        assert_eq!((selectors(&c), c.cpl, c.rip()), ((0x23, 0x1b), 3, 0x40_0002));
        assert_eq!((c.rflags(), c.mode & m::CODE64), (0x603, m::CODE64));
        syscall(&mut c, 1 << 47).unwrap();
        assert_eq!(sysret(&mut c, W64), Err(Fault::GP0));
        c.regs[11] = u64::MAX;
        sysret(&mut c, W32).unwrap();
        assert_eq!((selectors(&c).0, c.rip(), c.mode & m::CODE64), (0x13, 0, 0));
        assert_eq!(c.rflags() & (rflags::VM | rflags::RF), 0);
    }

    #[test]
    fn sysenter_and_sysexit() {
        let mut c = cpu(Level::Protected);
        assert_eq!(sysenter(&mut c), Err(Fault::GP0));
        (c.sys.sysenter_cs, c.sys.sysenter_esp, c.sys.sysenter_eip) = (8, 0x9000, 0x5678);
        to_user(&mut c, CODE3, 0x7000);
        c.set_rflags(rflags::IF);
        assert_eq!(sysexit(&mut c, W32), Err(Fault::GP0));
        sysenter(&mut c).unwrap();
        assert_eq!((selectors(&c), c.rip(), c.reg(Reg::RSP)), ((8, 0x10), 0x5678, 0x9000));
        assert_eq!((c.rflags(), c.cpl, c.mode), (2, 0, m::CODE32 | m::STACK32 | m::FLAT));
        (c.regs[1], c.regs[2]) = (0x7000, 0x1236);
        sysexit(&mut c, W32).unwrap();
        assert_eq!((selectors(&c), c.cpl), ((0x1b, 0x23), 3));
        assert_eq!((c.rip(), c.reg(Reg::RSP)), (0x1236, 0x7000));
        let mut c = cpu(Level::Long);
        c.sys.sysenter_cs = 8;
        sysenter(&mut c).unwrap();
        assert!(c.mode & m::CODE64 != 0);
        c.regs[2] = 1 << 47;
        assert_eq!(sysexit(&mut c, W64), Err(Fault::GP0));
        c.regs[2] = 0x1236;
        sysexit(&mut c, W64).unwrap();
        assert_eq!(selectors(&c), (0x2b, 0x33));
    }
}
