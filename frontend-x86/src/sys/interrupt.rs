//! Delivery of exceptions, interrupts and software interrupts, and the way back: IRET.
//!
//! Delivery is one function per kind of IDT: the real-mode vector table, the 32-bit IDT with 16-
//! and 32-bit gates (also out of virtual-8086 mode), the 64-bit IDT with IST. A fault on the way
//! is merged with the event by table 6-5: serial, double fault, shutdown. Task gates, and IRET
//! with NT, lead to [`super::task`].
//!
//! RF is set by IRET and cleared by the run loop before the next instruction. So what is pushed
//! is its value between instructions, but for faults, which push it set.
//!
//! Source: SDM Vol. 3, chapter 6 and 20.1 to 20.3; Vol. 2, INT n and IRET.

use super::control::returned_flags;
use super::segment::{self, Descriptor, rpl};
use super::stack::{self, Stack};
use super::task::{self, By};
use super::transfer::{
    check_ip_real, is_64, long, present_code, returned_code, set_cs, set_cs_real,
};
use super::{debug, mode, read_table, vme};
use emu_core::cpu::{Cpu, Reg, Seg, Segment, mode as m};
use emu_core::fault::{Fault, Guest, vector};
use emu_core::flags::rflags;
use emu_core::width::Width::{self, W16, W32, W64};

/// Instructions that interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Software {
    /// INT n.
    Int = 0,
    /// INT3.
    Int3 = 1,
    /// INTO, when OF is set.
    Into = 2,
    /// INT1 (ICEBP).
    Int1 = 3,
}

impl Software {
    /// Kind number `k & 3`.
    pub const fn from_index(k: u8) -> Software {
        match k & 3 {
            0 => Software::Int,
            1 => Software::Int3,
            2 => Software::Into,
            _ => Software::Int1,
        }
    }
}

/// Something to deliver.
struct Event {
    vector: u8,
    error: Option<u32>,
    /// INT n, INT3, INTO: the gate's DPL counts.
    checked: bool,
    /// EXT bit of the error codes of faults on the way (SDM Vol. 3, 6.13).
    ext: u32,
    /// RF in the pushed flags (SDM Vol. 3, 17.3.1.1).
    rf: u64,
    /// Instruction pointer to push.
    rip: u64,
}

impl Event {
    /// An event from outside the instruction stream, at the current RIP.
    fn external(cpu: &Cpu, vector: u8) -> Event {
        Event { vector, error: None, checked: false, ext: 1, rf: 0, rip: cpu.rip() }
    }
}

/// Error code that names the event's gate.
fn gate_fault(vector: u8, e: &Event) -> Fault {
    Fault::with_error(vector, u32::from(e.vector) * 8 + 2)
}

/// Delivers `e`; on an error nothing has changed. A fault besides success is that of the task which
/// a task gate has switched to.
fn deliver(cpu: &mut Cpu, e: &Event) -> Guest<Option<Fault>> {
    let external = |f: Fault| match f.vector {
        vector::TS..=vector::GP => Fault { error: f.error.map(|c| c | e.ext), ..f },
        _ => f,
    };
    let later = match (segment::protected(cpu), long(cpu)) {
        (false, _) => deliver_real(cpu, e).map(|()| None),
        (true, false) => deliver_protected(cpu, e),
        (true, true) => deliver_long(cpu, e).map(|()| None),
    };
    let later = later.map_err(external)?.map(external);
    cpu.vectors[usize::from(e.vector)] += 1;
    cpu.halted = false;
    cpu.shadow = false;
    mode::update(cpu);
    Ok(later)
}

/// Real-address mode: SDM Vol. 3, 20.1.4.
fn deliver_real(cpu: &mut Cpu, e: &Event) -> Guest<()> {
    let at = u64::from(e.vector) * 4;
    if at + 3 > u64::from(cpu.sys.idtr.limit) {
        return Err(gate_fault(vector::GP, e));
    }
    let target = read_table(cpu, cpu.sys.idtr.base.wrapping_add(at), W32)?;
    let (cs, ip) = ((target >> 16) as u16, target & 0xffff);
    check_ip_real(cpu, ip)?;
    let old_cs = u64::from(cpu.segs[Seg::Cs as usize].selector);
    let flags = cpu.rflags();
    let mut stack = Stack::current(cpu);
    stack.push(cpu, W16, &[flags, old_cs, e.rip])?;
    stack.commit(cpu);
    cpu.set_rflags(flags & !(rflags::IF | rflags::TF | rflags::AC | rflags::RF));
    set_cs_real(cpu, cs, ip);
    Ok(())
}

/// Checks the gate `g` of event `e`, which must be of a type in `kinds`.
fn check_gate(cpu: &Cpu, e: &Event, g: &Descriptor, kinds: &[u16]) -> Guest<()> {
    let known = g.system().is_some_and(|k| kinds.contains(&k));
    if !known || e.checked && g.seg.dpl() < cpu.cpl {
        return Err(gate_fault(vector::GP, e));
    }
    if !g.seg.present() {
        return Err(gate_fault(vector::NP, e));
    }
    Ok(())
}

/// The handler's code segment and privilege level.
#[inline(always)]
fn handler(
    cpu: &mut Cpu,
    g: &Descriptor,
    ok: impl Fn(&Segment) -> bool,
) -> Guest<(Descriptor, u8)> {
    let cs = segment::require(cpu, g.gate_selector(), vector::GP)?;
    if !cs.seg.is_code() || cs.seg.dpl() > cpu.cpl || !ok(&cs.seg) {
        return Err(cs.fault(vector::GP));
    }
    let cpl = if cs.seg.conforming() { cpu.cpl } else { cs.seg.dpl() };
    Ok((present_code(cpu, cs, g.gate_offset())?, cpl))
}

/// RFLAGS in a handler behind gate `g`.
fn handler_flags(flags: u64, g: &Descriptor) -> u64 {
    let trap_gate = g.seg.kind() & 1 != 0;
    let cleared = rflags::TF | rflags::NT | rflags::RF | rflags::VM;
    flags & !cleared & !if trap_gate { 0 } else { rflags::IF }
}

/// Protected mode outside long mode: SDM Vol. 3, 6.12.1 and 20.3.1.
fn deliver_protected(cpu: &mut Cpu, e: &Event) -> Guest<Option<Fault>> {
    let at = u64::from(e.vector) * 8;
    if at + 7 > u64::from(cpu.sys.idtr.limit) {
        return Err(gate_fault(vector::GP, e));
    }
    let g = Descriptor::new(0, read_table(cpu, cpu.sys.idtr.base.wrapping_add(at), W64)?);
    check_gate(cpu, e, &g, &[5, 6, 7, 14, 15])?;
    if g.system() == Some(5) {
        return task::switch(cpu, g.gate_selector(), By::Event(e.error), e.rip, e.rf);
    }
    let vm = cpu.mode & m::VM86 != 0;
    let (cs, cpl) = handler(cpu, &g, |s| !vm || !s.conforming() && s.dpl() == 0)?;
    let w = if g.seg.attr & 8 != 0 { W32 } else { W16 };
    let flags = cpu.rflags();
    let selector = |s: Seg| u64::from(cpu.segs[s as usize].selector);
    let frame = [
        selector(Seg::Gs),
        selector(Seg::Fs),
        selector(Seg::Ds),
        selector(Seg::Es),
        selector(Seg::Ss),
        cpu.reg(Reg::RSP),
        flags | e.rf,
        selector(Seg::Cs),
        e.rip,
        e.error.unwrap_or(0).into(),
    ];
    let inner = cpl < cpu.cpl;
    let first = if vm {
        0
    } else if inner {
        4
    } else {
        6
    };
    let end = if e.error.is_some() { 10 } else { 9 };
    let mut stack = if inner { Stack::inner(cpu, cpl)? } else { Stack::current(cpu) };
    stack.push(cpu, w, &frame[first..end])?;
    stack.commit(cpu);
    if vm {
        for s in [Seg::Es, Seg::Ds, Seg::Fs, Seg::Gs] {
            segment::set_null(cpu, s, 0);
        }
    }
    set_cs(cpu, &cs, cpl, g.gate_offset());
    cpu.set_rflags(handler_flags(flags, &g));
    Ok(None)
}

/// Long mode: SDM Vol. 3, 6.14.
fn deliver_long(cpu: &mut Cpu, e: &Event) -> Guest<()> {
    let at = u64::from(e.vector) * 16;
    if at + 15 > u64::from(cpu.sys.idtr.limit) {
        return Err(gate_fault(vector::GP, e));
    }
    let at = cpu.sys.idtr.base.wrapping_add(at);
    let mut g = Descriptor::new(0, read_table(cpu, at, W64)?);
    g.high = read_table(cpu, at.wrapping_add(8), W64)? & 0xffff_ffff;
    check_gate(cpu, e, &g, &[14, 15])?;
    let (cs, cpl) = handler(cpu, &g, |s| s.long() && !s.big())?;
    let flags = cpu.rflags();
    let old_ss = cpu.segs[Seg::Ss as usize];
    let old_cs = cpu.segs[Seg::Cs as usize].selector;
    let rsp = cpu.reg(Reg::RSP);
    let inner = cpl < cpu.cpl;
    let null = Segment { selector: cpl.into(), attr: 0, limit: 0 };
    let ss = if inner { null } else { old_ss };
    let ist = g.raw >> 32 & 7;
    let mut stack = match (ist, inner) {
        (0, false) => Stack::long(cpu, ss, rsp, cpl),
        (0, true) => Stack::inner_long(cpu, u64::from(cpl) * 8 + 4, ss, cpl)?,
        _ => Stack::inner_long(cpu, ist * 8 + 28, ss, cpl)?,
    };
    stack.sp &= !15;
    let error = e.error.unwrap_or(0).into();
    let frame = [old_ss.selector.into(), rsp, flags | e.rf, old_cs.into(), e.rip, error];
    stack.push(cpu, W64, &frame[..if e.error.is_some() { 6 } else { 5 }])?;
    stack.commit(cpu);
    set_cs(cpu, &cs, cpl, g.gate_offset());
    cpu.set_rflags(handler_flags(flags, &g));
    Ok(())
}

/// What a fault during the delivery of another makes (SDM Vol. 3, tables 6-4 and 6-5); `None` is
/// shutdown.
fn combined(first: u8, second: Fault) -> Option<Fault> {
    let contributory = |v| matches!(v, vector::DE | vector::TS..=vector::GP);
    let double = match first {
        vector::DF => return None,
        vector::PF => contributory(second.vector) || second.vector == vector::PF,
        v => contributory(v) && contributory(second.vector),
    };
    Some(if double { Fault::with_error(vector::DF, 0) } else { second })
}

/// The function for [`emu_core::cpu::Frontend::deliver_fault`].
pub fn deliver_fault(cpu: &mut Cpu, fault: Fault) {
    crate::sensitive::faulted(cpu, fault.vector);
    let aborts_and_traps = [vector::NMI, vector::BP, vector::OF, vector::DF, vector::MC];
    let mut fault = fault;
    loop {
        match fault.vector {
            vector::PF => cpu.sys.cr2 = fault.address,
            vector::DB => debug::entered(cpu),
            _ => {}
        }
        let rf = if aborts_and_traps.contains(&fault.vector) { 0 } else { rflags::RF };
        let e = Event { error: fault.error, rf, ..Event::external(cpu, fault.vector) };
        let second = match deliver(cpu, &e) {
            Ok(None) => return,
            Ok(Some(f)) | Err(f) => f,
        };
        if second.vector == vector::PF {
            cpu.sys.cr2 = second.address;
        }
        let Some(next) = combined(fault.vector, second) else {
            cpu.shutdown = true;
            return;
        };
        fault = next;
    }
}

/// Delivers an event that is no fault; if it faults on the way, that.
fn deliver_event(cpu: &mut Cpu, vector: u8) {
    let e = Event::external(cpu, vector);
    if let Ok(Some(f)) | Err(f) = deliver(cpu, &e) {
        deliver_fault(cpu, f);
    }
}

/// The function for [`emu_core::cpu::Frontend::deliver_interrupt`]. An NMI blocks further ones
/// until IRET (SDM Vol. 3, 6.7.1).
pub fn deliver_interrupt(cpu: &mut Cpu, vector: u8, nmi: bool) {
    cpu.nmi_blocked |= nmi;
    deliver_event(cpu, vector);
}

/// #DB before the instruction at RIP: a trap of the one before it, or an instruction breakpoint.
/// RF is pushed as it is (SDM Vol. 3, 17.3.1.1).
pub fn deliver_trap(cpu: &mut Cpu, vector: u8) {
    debug::entered(cpu);
    deliver_event(cpu, vector);
}

/// INT n, INT3, INTO, INT1; `next_rip` is pushed (SDM Vol. 2, INT n).
///
/// # Errors
/// #GP(0) for INT n in virtual-8086 mode with IOPL below 3; what delivery raises.
pub fn software_interrupt(cpu: &mut Cpu, vector: u8, next_rip: u64, kind: Software) -> Guest<()> {
    cpu.watch.entered = true;
    if kind == Software::Int && cpu.mode & m::VM86 != 0 {
        if vme::redirected(cpu, vector)? {
            return vme::interrupt(cpu, vector, next_rip);
        }
        if vme::sensitive(cpu) {
            return Err(Fault::GP0);
        }
    }
    let int1 = kind == Software::Int1;
    let e = Event { vector, error: None, checked: !int1, ext: int1.into(), rf: 0, rip: next_rip };
    if let Some(f) = deliver(cpu, &e)? {
        deliver_fault(cpu, f);
    }
    Ok(())
}

/// IRET, IRETD, IRETQ for `w` = 16, 32, 64, before the instruction at `next_rip` (SDM Vol. 2,
/// IRET).
///
/// # Errors
/// #GP, #SS, #NP, #TS, #PF.
pub fn iret(cpu: &mut Cpu, w: Width, next_rip: u64) -> Guest<()> {
    let n = w.bytes();
    let mut stack = Stack::current(cpu);
    if vme::sensitive(cpu) {
        // Refused as PUSHF is, before anything is popped.
        vme::pushed(cpu, w)?;
    }
    if cpu.mode & m::REAL == 0 && cpu.sysflags & rflags::NT != 0 {
        if long(cpu) {
            return Err(Fault::GP0);
        }
        task::back(cpu, next_rip)?;
        cpu.nmi_blocked = false;
        return Ok(());
    }
    let ip = stack.read(cpu, 0, w)?;
    let selector = stack.read(cpu, n, W16)? as u16;
    let image = stack.read(cpu, 2 * n, w)?;
    let flags = returned_flags(cpu, w, image)?;
    if cpu.mode & m::REAL != 0 {
        check_ip_real(cpu, ip)?;
        stack.skip(3 * n);
        stack.commit(cpu);
        cpu.set_rflags(flags);
        set_cs_real(cpu, selector, ip);
    } else if image & rflags::VM != 0 && w == W32 && cpu.cpl == 0 && !long(cpu) {
        return iret_to_vm86(cpu, &stack, ip, selector, image);
    } else {
        let cs = returned_code(cpu, selector, ip)?;
        let level = rpl(selector);
        let outer = level > cpu.cpl;
        if outer || cpu.mode & m::CODE64 != 0 {
            let to_64 = is_64(cpu, &cs);
            stack = stack::returned(cpu, &stack, 3 * n, w, level, to_64)?;
        } else {
            stack.skip(3 * n);
        }
        stack.commit(cpu);
        set_cs(cpu, &cs, level, ip);
        cpu.set_rflags(flags);
        if outer {
            segment::drop_inaccessible(cpu);
        }
    }
    cpu.nmi_blocked = false;
    mode::update(cpu);
    Ok(())
}

/// IRETD from ring 0 to virtual-8086 mode: SDM Vol. 3, 20.2.5.
fn iret_to_vm86(cpu: &mut Cpu, stack: &Stack, ip: u64, cs: u16, image: u64) -> Guest<()> {
    if ip > 0xffff {
        return Err(Fault::GP0);
    }
    let mut slots = [0; 6];
    for (i, slot) in slots.iter_mut().enumerate() {
        *slot = stack.read(cpu, 12 + 4 * i as u64, W32)?;
    }
    cpu.set_rflags(image);
    cpu.cpl = 3;
    mode::update(cpu);
    let [esp, ss, es, ds, fs, gs] = slots;
    for (s, v) in [(Seg::Ss, ss), (Seg::Es, es), (Seg::Ds, ds), (Seg::Fs, fs), (Seg::Gs, gs)] {
        segment::set_real(cpu, s, v as u16);
    }
    cpu.set_reg(Reg::RSP, esp);
    cpu.nmi_blocked = false;
    set_cs_real(cpu, cs, ip);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::segment::{Descriptor, selector_fault};
    use super::super::testing::*;
    use super::*;
    use emu_core::width::Width::W8;

    /// `n` values of width `w` from the stack pointer up.
    fn frame(c: &Cpu, w: Width, n: u64) -> Vec<u64> {
        let at = c.base(Seg::Ss) + c.reg(Reg::RSP);
        (0..n).map(|i| c.mem.read(at + i * w.bytes(), w)).collect()
    }

    fn selectors(c: &Cpu) -> (u16, u16) {
        (c.segs[1].selector, c.segs[2].selector)
    }

    /// SDM Vol. 3, 20.1.4.
    #[test]
    fn real_mode_uses_the_vector_table() {
        let mut c = cpu(Level::Real);
        c.sys.idtr.limit = 0x3ff;
        c.mem.write(0x21 * 4, W32, 0x2000_0100);
        c.set_rflags(rflags::IF | rflags::TF);
        c.set_rip(0x7c05);
        let sp = c.reg(Reg::RSP);
        software_interrupt(&mut c, 0x21, 0x7c07, Software::Int).unwrap();
        assert_eq!((selectors(&c).0, c.rip(), c.base(Seg::Cs)), (0x2000, 0x100, 0x2_0000));
        assert_eq!(frame(&c, W16, 3), [0x7c07, 0xf000, 0x302]);
        assert_eq!((c.rflags(), c.vectors[0x21]), (2, 1));
        iret(&mut c, W16, 0).unwrap();
        assert_eq!((c.rip(), c.rflags(), c.reg(Reg::RSP)), (0x7c07, 0x302, sp));
        assert_eq!(c.base(Seg::Cs), 0xf_0000);
        c.sys.idtr.limit = 0x20 * 4;
        let f = software_interrupt(&mut c, 0x21, 0, Software::Int).unwrap_err();
        assert_eq!((f.vector, c.rip()), (vector::GP, 0x7c07));
    }

    #[test]
    fn protected_mode_same_privilege() {
        let mut c = cpu(Level::Protected);
        gate(&mut c, 14, CODE0, 0x55_6677, 0x8e, 0);
        gate(&mut c, 3, CODE0, 0x99, 0x87, 0); // 16-bit trap gate
        c.set_rflags(rflags::IF | rflags::NT | 1);
        deliver_fault(&mut c, Fault::page(0xdead_b000, 2));
        assert_eq!((c.rip(), c.sys.cr2, c.reg(Reg::RSP)), (0x55_6677, 0xdead_b000, STACK - 16));
        let pushed = rflags::IF | rflags::NT | rflags::RF | 3;
        assert_eq!(frame(&c, W32, 4), [2, 0x1234, 8, pushed]);
        assert_eq!(c.rflags(), 3, "interrupt gate clears IF; NT and RF go");
        c.set_rflags(rflags::IF);
        software_interrupt(&mut c, 3, 0x1_4321, Software::Int3).unwrap();
        assert_eq!(frame(&c, W16, 3), [0x4321, 8, 0x202]);
        assert_eq!((c.rip(), c.rflags()), (0x99, 0x202), "trap gate leaves IF");
    }

    /// SDM Vol. 3, 6.12.1: stack switch through the TSS, and IRET back.
    #[test]
    fn protected_mode_from_ring_3() {
        let mut c = cpu(Level::Protected);
        gate(&mut c, 0x80, CODE0, 0x5000, 0xee, 0);
        gate(&mut c, 0x81, CODE0, 0x5000, 0x8e, 0);
        to_user(&mut c, CODE3, 0x7000);
        c.set_rflags(rflags::IF);
        let f = software_interrupt(&mut c, 0x81, 0, Software::Int).unwrap_err();
        assert_eq!(f, Fault::gp(0x81 * 8 + 2), "DPL");
        software_interrupt(&mut c, 0x80, 0x1236, Software::Int).unwrap();
        assert_eq!((selectors(&c), c.cpl), ((8, 0x10), 0));
        assert_eq!(c.reg(Reg::RSP), KERNEL_STACK - 20);
        assert_eq!(frame(&c, W32, 5), [0x1236, 0x1b, 0x202, 0x7000, 0x23]);
        segment::load(&mut c, Seg::Ds, DATA0).unwrap();
        iret(&mut c, W32, 0).unwrap();
        assert_eq!((selectors(&c), c.cpl, c.reg(Reg::RSP)), ((0x1b, 0x23), 3, 0x7000));
        assert_eq!((c.segs[3].selector, c.segs[0].selector), (0, 0x23), "ring-0 DS dropped");
        assert_eq!((c.rip(), c.rflags()), (0x1236, 0x202));
    }

    /// Faults on the way name their selector, with EXT for events from outside (6.13).
    #[test]
    fn error_codes_of_delivery() {
        let mut c = cpu(Level::Protected);
        let try_int = |c: &mut Cpu, v| software_interrupt(c, v, 0, Software::Int).unwrap_err();
        assert_eq!(try_int(&mut c, 0x30), Fault::gp(0x30 * 8 + 2), "not a gate");
        gate(&mut c, 0x30, CODE0, 0, 0x0e, 0);
        assert_eq!(try_int(&mut c, 0x30), Fault::with_error(vector::NP, 0x30 * 8 + 2));
        gate(&mut c, 0x30, 0, 0, 0x8e, 0);
        assert_eq!(try_int(&mut c, 0x30), Fault::GP0);
        gate(&mut c, 0x30, DATA0, 0, 0x8e, 0);
        assert_eq!(try_int(&mut c, 0x30), Fault::gp(0x10));
        gate(&mut c, 0x30, CODE3 | 3, 0, 0x8e, 0);
        assert_eq!(try_int(&mut c, 0x30), Fault::gp(0x18), "less privileged");
        c.sys.idtr.limit = 0x30 * 8 + 6;
        assert_eq!(try_int(&mut c, 0x30), Fault::gp(0x30 * 8 + 2));
        gate(&mut c, 13, CODE0, 0x700, 0x8e, 0);
        deliver_interrupt(&mut c, 0x30, false);
        assert_eq!((c.rip(), frame(&c, W32, 1)[0]), (0x700, 0x30 * 8 + 3), "EXT");
        gate(&mut c, 0x20, CODE0, 0, 0xee, 0);
        to_user(&mut c, CODE3, 0x7000);
        c.mem.write(TSS + 8, W16, DATA3.into());
        assert_eq!(try_int(&mut c, 0x20), selector_fault(vector::TS, DATA3));
        c.mem.write(TSS + 8, W16, 0);
        assert_eq!(try_int(&mut c, 0x20), Fault::with_error(vector::TS, 0));
        gdt(&mut c, 6, desc(0, 0xf_ffff, 0xc013));
        c.mem.write(TSS + 8, W16, 0x30);
        assert_eq!(try_int(&mut c, 0x20), selector_fault(vector::SS, 0x30));
        gdt(&mut c, 6, desc(0, 0xff, 0x4093));
        assert_eq!(try_int(&mut c, 0x20), selector_fault(vector::SS, 0x30), "limit");
        c.sys.tr.limit = 8;
        assert_eq!(try_int(&mut c, 0x20), selector_fault(vector::TS, 0x68));
        assert_eq!((selectors(&c), c.cpl, c.reg(Reg::RSP)), ((0x1b, 0x23), 3, 0x7000));
    }

    /// SDM Vol. 3, table 6-5.
    #[test]
    fn double_and_triple_faults() {
        let (pf, gp, ud) = (Fault::page(0, 0), Fault::GP0, Fault::UD);
        let df = Some(Fault::with_error(vector::DF, 0));
        #[rustfmt::skip]
        let rows = [
            (vector::UD, gp, Some(gp)), (vector::UD, pf, Some(pf)), (vector::DE, gp, df),
            (vector::GP, pf, Some(pf)), (vector::GP, ud, Some(ud)), (vector::PF, pf, df),
            (vector::PF, gp, df), (vector::PF, ud, Some(ud)), (vector::DF, gp, None),
            (vector::DF, pf, None), (vector::NMI, gp, Some(gp)),
        ];
        for (first, second, expected) in rows {
            assert_eq!(combined(first, second), expected, "{first} then {second:?}");
        }
        let mut c = cpu(Level::Long);
        gate(&mut c, 8, CODE0, 0x800, 0x8e, 0);
        deliver_fault(&mut c, Fault::GP0);
        assert_eq!((c.rip(), frame(&c, W64, 2)), (0x800, vec![0, 0x1234]));
        assert_eq!((c.vectors[8], c.vectors[13], c.shutdown), (1, 0, false));
        c.sys.idtr.limit = 0;
        deliver_fault(&mut c, Fault::GP0);
        assert!(c.shutdown);
    }

    /// SDM Vol. 3, 6.14: alignment, SS:RSP always, IST, null SS after a change of CPL.
    #[test]
    fn long_mode() {
        let mut c = cpu(Level::Long);
        let handler = 0x1122_3344_5566;
        gate(&mut c, 13, CODE0, handler, 0x8e, 0);
        c.set_reg(Reg::RSP, STACK - 3);
        c.halted = true;
        deliver_fault(&mut c, Fault::gp(0x50));
        assert_eq!((c.rip(), c.reg(Reg::RSP), c.halted), (handler, STACK - 64, false));
        let rf = rflags::RF | 2;
        assert_eq!(frame(&c, W64, 6), [0x50, 0x1234, 8, rf, STACK - 3, 0x10]);
        c.mem.write(TSS + 0x24 + 8, W64, 0x5_0008); // IST2
        gate(&mut c, 2, CODE0, 0x77, 0x8e, 2);
        deliver_interrupt(&mut c, 2, true);
        assert_eq!((c.reg(Reg::RSP), c.nmi_blocked), (0x5_0000 - 40, true));
        iret(&mut c, W64, 0).unwrap();
        assert_eq!((c.rip(), c.reg(Reg::RSP), c.nmi_blocked), (handler, STACK - 64, false));
        gate(&mut c, 0x40, CODE0, 0x88, 0x8f, 0);
        to_user(&mut c, CODE3, 0x7fff);
        c.set_rip(0x4321);
        c.set_rflags(rflags::IF | rflags::TF);
        deliver_interrupt(&mut c, 0x40, false);
        assert_eq!((selectors(&c), c.cpl, c.reg(Reg::RSP)), ((8, 0), 0, KERNEL_STACK - 40));
        assert_eq!(frame(&c, W64, 5), [0x4321, 0x1b, 0x302, 0x7fff, 0x23]);
        assert_eq!(c.rflags(), 0x202, "trap gate");
        iret(&mut c, W64, 0).unwrap();
        assert_eq!((selectors(&c), c.cpl, c.reg(Reg::RSP)), ((0x1b, 0x23), 3, 0x7fff));
        c.mem.write(TSS + 4, W64, 1 << 47);
        let (rip, rsp) = (c.rip(), c.reg(Reg::RSP));
        let f = deliver(
            &mut c,
            &Event { vector: 0x40, error: None, checked: false, ext: 1, rf: 0, rip },
        );
        assert_eq!(f, Err(Fault::with_error(vector::SS, 1)));
        assert_eq!((c.rip(), c.reg(Reg::RSP), c.cpl), (rip, rsp, 3), "nothing changed");
    }

    /// Tables and handlers of a 64-bit kernel lie above 4 GiB also while 32-bit code runs.
    #[test]
    fn long_mode_from_compatibility_mode() {
        let mut c = cpu(Level::Long);
        let high = 0xffff_8000_0000_0000u64;
        c.mem.write(0x10_0800, W64, 0x10_1007); // PML4 entry 256
        c.sys.idtr.base += high;
        c.sys.gdtr.base += high;
        c.sys.tr_base += high;
        c.mem.write(TSS + 4, W64, high + KERNEL_STACK);
        gate(&mut c, 0x80, CODE0, high + 0x99, 0xee, 0);
        to_user(&mut c, COMPAT3, 0xfff0);
        assert_eq!(c.mode & m::CODE64, 0);
        software_interrupt(&mut c, 0x80, 0x1236, Software::Int).unwrap();
        assert_eq!((c.rip(), c.reg(Reg::RSP)), (high + 0x99, high + KERNEL_STACK - 40));
        assert_eq!(c.mem.read(KERNEL_STACK - 40, W64), 0x1236);
        assert!(c.mode & m::CODE64 != 0);
        iret(&mut c, W64, 0).unwrap();
        assert_eq!((selectors(&c), c.mode & m::CODE64), ((0x2b, 0x23), 0));
        assert_eq!((c.rip(), c.reg(Reg::RSP)), (0x1236, 0xfff0));
    }

    #[test]
    fn iret_refuses() {
        let mut c = cpu(Level::Long);
        let put = |c: &mut Cpu, values: [u64; 5]| {
            for (i, v) in values.into_iter().enumerate() {
                c.mem.write(STACK + 8 * i as u64, W64, v);
            }
        };
        #[rustfmt::skip]
        let rows = [
            ([0, 0, 2, 0, 0],             Fault::GP0),
            ([0, 0x10, 2, 0, 0x10],       Fault::gp(0x10)), // not code
            ([1 << 47, 8, 2, 0, 0],       Fault::GP0),      // not canonical
            ([0, 0x1b, 2, 0, 0],          Fault::GP0),      // null SS for ring 3
            ([0, 0x1b, 2, 0, 0x10],       Fault::gp(0x10)), // SS of ring 0
            ([0, 0x18, 2, 0, 0],          Fault::gp(0x18)), // RPL differs from DPL
            ([0, 0xfff8, 2, 0, 0],        Fault::gp(0xfff8)),
        ];
        for (values, fault) in rows {
            put(&mut c, values);
            assert_eq!(iret(&mut c, W64, 0), Err(fault), "{values:x?}");
        }
        assert_eq!((c.rip(), c.reg(Reg::RSP)), (0x1234, STACK));
        put(&mut c, [0x50, 8, 0x200, 0x123, 0]);
        iret(&mut c, W64, 0).unwrap();
        assert_eq!(
            (c.rip(), c.reg(Reg::RSP), c.rflags(), selectors(&c).1),
            (0x50, 0x123, 0x202, 0)
        );
        c.sysflags |= rflags::NT;
        assert_eq!(iret(&mut c, W64, 0), Err(Fault::GP0));
    }

    /// Ring 3 changes neither IOPL nor IF by IRET, and cannot make VM.
    #[test]
    fn iret_in_ring_3_keeps_privileged_flags() {
        let mut c = cpu(Level::Protected);
        to_user(&mut c, CODE3, 0x7000);
        for (i, v) in [0x10, 0x1b, 0x2_7fd7].into_iter().enumerate() {
            c.mem.write(0x7000 + 4 * i as u64, W32, v);
        }
        iret(&mut c, W32, 0).unwrap();
        assert_eq!((c.rip(), c.rflags()), (0x10, 0x4dd7));
    }

    /// SDM Vol. 3, 20.2.5 and 20.3.1.
    #[test]
    fn virtual_8086_and_back() {
        let mut c = cpu(Level::Protected);
        let flags = rflags::VM | rflags::IF | 2;
        let image = [0x100, 0x2000, flags, 0xfffe, 0x3000, 0x4000, 0x5000, 0x6000, 0x7000];
        for (i, v) in image.into_iter().enumerate() {
            c.mem.write(STACK + 4 * i as u64, W32, v);
        }
        iret(&mut c, W32, 0).unwrap();
        assert_eq!((c.cpl, c.base(Seg::Cs), c.base(Seg::Gs)), (3, 0x2_0000, 0x7_0000));
        assert_eq!(c.mode & (m::VM86 | m::REAL | m::USER), m::VM86 | m::REAL | m::USER);
        assert_eq!((c.reg(Reg::RSP), c.segs[2].attr), (0xfffe, segment::VM86_ATTR));
        let f = software_interrupt(&mut c, 0x21, 0, Software::Int).unwrap_err();
        assert_eq!(f, Fault::GP0, "IOPL below 3");
        assert_eq!(iret(&mut c, W16, 0), Err(Fault::GP0));
        gate(&mut c, 13, CODE0, 0x600, 0x8e, 0);
        deliver_fault(&mut c, f);
        assert_eq!((c.cpl, c.rip(), c.reg(Reg::RSP)), (0, 0x600, KERNEL_STACK - 40));
        let pushed = [0, 0x100, 0x2000, flags | rflags::RF, 0xfffe, 0x3000, 0x4000, 0x5000, 0x6000];
        assert_eq!(frame(&c, W32, 9), pushed);
        assert!([0, 3, 4, 5].iter().all(|&s| c.segs[s] == Segment::default()));
        assert_eq!(c.mode & (m::VM86 | m::REAL), 0);
    }

    #[test]
    fn single_step() {
        let mut c = cpu(Level::Long);
        gate(&mut c, 1, CODE0, 0x99, 0x8e, 0);
        c.set_rflags(rflags::TF);
        (c.sys.dr[7], c.watch.hits) = (0x2400, emu_core::watch::BS);
        debug::trap(&mut c);
        assert_eq!((c.rip(), c.sys.dr[6], c.sys.dr[7]), (0x99, 0xffff_4ff0, 0x400));
        assert_eq!((frame(&c, W64, 3)[2], c.rflags()), (0x102, 2), "no RF: a trap");
    }

    /// A page fault on the new stack leaves no half-written frame and no new state.
    #[test]
    fn frames_are_all_or_nothing() {
        let mut c = cpu(Level::Long);
        gate(&mut c, 0x40, CODE0, 0x88, 0x8f, 0);
        c.mem.write(0x10_2000 + 8, W64, 0); // 2 MiB to 4 MiB not present
        c.tlb.flush_all(true);
        c.set_reg(Reg::RSP, 0x40_0010);
        let f = software_interrupt(&mut c, 0x40, 0, Software::Int).unwrap_err();
        assert_eq!((f.vector, f.error, f.address), (vector::PF, Some(2), 0x3f_fff8));
        assert_eq!((c.mem.read(0x40_0008, W64), c.mem.read(0x40_0000, W8)), (0, 0));
        assert_eq!((c.rip(), c.reg(Reg::RSP)), (0x1234, 0x40_0010));
        assert_eq!(Descriptor::new(0, c.mem.read(GDT + 8, W64)).seg.selector, 0);
    }
}
