//! Hardware task switches: by far JMP and CALL, through task gates in the GDT, LDT and IDT, and by
//! IRET with NT. 16- and 32-bit TSSs in any combination; long mode has none.
//!
//! A switch has two parts. First all that may fail in the old task is checked, and every page it
//! will write is probed ([`switch`] returns `Err`, nothing has changed). Then it is committed:
//! registers go to the old TSS and come from the new one, and the segments are loaded. What fails
//! there belongs to the new task: [`switch`] returns `Ok(Some(fault))`, and RIP is the new one's.
//!
//! Source: SDM Vol. 3, chapter 7, above all 7.3 and table 7-1.

use super::segment::{self, Descriptor, is_null, mark_accessed, require, rpl, selector_fault};
use super::stack::Stack;
use super::{cr0, cr4, debug, implicitly, interrupt, mode, paging, read_table, write_table};
use emu_core::cpu::{Cpu, Seg, mode as m};
use emu_core::fault::{Fault, Guest, vector};
use emu_core::flags::rflags;
use emu_core::mem::tlb::Access;
use emu_core::watch::BT;
use emu_core::width::Width::{self, W8, W16, W32};

/// What switches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// JMP: the old task ends.
    Jump,
    /// CALL: the new task is nested in the old one.
    Call,
    /// IRET with NT: back to the task in the link field.
    Return,
    /// A task gate in the IDT: nested, with this error code on the new stack.
    Event(Option<u32>),
}

/// Where a TSS holds what a switch saves and loads: from `ip` on, one slot of `w` each, the
/// instruction pointer, the flags, eight general registers, `segments` selectors and the LDT's.
struct Layout {
    w: Width,
    ip: u64,
    segments: usize,
    /// Least limit.
    limit: u32,
}

static TSS16: Layout = Layout { w: W16, ip: 14, segments: 4, limit: 43 };
static TSS32: Layout = Layout { w: W32, ip: 32, segments: 6, limit: 103 };
/// CR3 in a 32-bit TSS.
const CR3: u64 = 28;
/// The debug trap flag T in a 32-bit TSS.
const TRAP: u64 = 100;

impl Layout {
    /// That of the TSS with these attributes.
    const fn of(attr: u16) -> &'static Layout {
        if attr & 8 != 0 { &TSS32 } else { &TSS16 }
    }

    /// Offset of slot `n`.
    const fn slot(&self, n: usize) -> u64 {
        self.ip + n as u64 * self.w.bytes()
    }
}

/// The TSS of `selector` as the target of a switch (SDM Vol. 3, table 7-1, rows 1 to 5).
fn target(cpu: &mut Cpu, selector: u16, by: By) -> Guest<Descriptor> {
    let (bad, busy) = match by {
        By::Return => (vector::TS, 2),
        _ => (vector::GP, 0),
    };
    if selector & 4 != 0 {
        return Err(selector_fault(bad, selector));
    }
    let d = require(cpu, selector, bad)?;
    if !matches!(d.system(), Some(kind) if kind & !10 == 1 && kind & 2 == busy) {
        return Err(d.fault(bad));
    }
    if !d.seg.present() {
        return Err(d.fault(vector::NP));
    }
    if d.seg.limit < Layout::of(d.seg.attr).limit {
        return Err(d.fault(vector::TS));
    }
    Ok(d)
}

/// Checks that a switch can write `n` bytes at `va`.
fn probe(cpu: &mut Cpu, va: u64, n: u64) -> Guest<()> {
    implicitly(cpu, |cpu| cpu.probe(cpu.wrap_linear(va), n, Access::Write))
}

/// Address of the type byte of the TSS descriptor of `selector`.
fn type_byte(cpu: &Cpu, selector: u16) -> Option<u64> {
    segment::address(cpu, selector, 8).map(|at| at.wrapping_add(5))
}

fn set_busy(cpu: &mut Cpu, at: Option<u64>, busy: bool) -> Guest<()> {
    let Some(at) = at else { return Ok(()) };
    let old = read_table(cpu, at, W8)?;
    write_table(cpu, at, W8, old & !2 | u64::from(busy) << 1)
}

/// Switches to the task of `selector`; `rip` is what the old task will go on at, `rf` is RF in its
/// saved flags. The second kind of fault is the new task's; see the module's head.
///
/// # Errors
/// Of the old task: #GP, #NP, #TS, #PF.
pub fn switch(cpu: &mut Cpu, selector: u16, by: By, rip: u64, rf: u64) -> Guest<Option<Fault>> {
    let d = target(cpu, selector, by)?;
    let new = Layout::of(d.seg.attr);
    let (tr, tr_base) = (cpu.sys.tr, cpu.sys.tr_base);
    let old = Layout::of(tr.attr);
    if !tr.present() || tr.limit < old.limit {
        return Err(selector_fault(vector::TS, tr.selector));
    }
    let nested = matches!(by, By::Call | By::Event(_));
    let (old_type, new_type) = (type_byte(cpu, tr.selector), type_byte(cpu, selector));
    for at in [old_type, new_type].into_iter().flatten() {
        probe(cpu, at, 1)?;
    }
    probe(cpu, tr_base, u64::from(old.limit) + 1)?;
    // Written only for the link, but a TSS that cannot be written is of no use either.
    probe(cpu, d.base, u64::from(new.limit) + 1)?;
    let paged = cpu.sys.cr0 & cr0::PG != 0 && new.w == W32;
    let cr3 = if paged { read_table(cpu, d.base.wrapping_add(CR3), W32)? } else { 0 };
    if paged && cpu.sys.cr4 & cr4::PAE != 0 {
        paging::load_pdptes(cpu, cr3)?;
    }

    if !nested {
        set_busy(cpu, old_type, false)?;
    }
    let kept = if by == By::Return { rflags::NT } else { 0 } | rflags::RF;
    let mut state = [0; 16];
    (state[0], state[1]) = (rip, cpu.rflags() & !kept | rf);
    state[2..10].copy_from_slice(&cpu.regs[..8]);
    for (slot, s) in state[10..].iter_mut().zip(cpu.segs) {
        *slot = s.selector.into();
    }
    for (n, &v) in state[..10 + old.segments].iter().enumerate() {
        write_table(cpu, tr_base.wrapping_add(old.slot(n)), old.w, v)?;
    }
    if nested {
        write_table(cpu, d.base, W16, tr.selector.into())?;
    }
    if by != By::Return {
        set_busy(cpu, new_type, true)?;
    }
    let mut state = [0; 17];
    let slots = 11 + new.segments;
    for (n, v) in state[..slots].iter_mut().enumerate() {
        *v = read_table(cpu, d.base.wrapping_add(new.slot(n)), new.w)?;
    }
    let trap = new.w == W32 && read_table(cpu, d.base.wrapping_add(TRAP), W8)? & 1 != 0;
    let ldt = state[slots - 1] as u16;
    state[slots - 1] = 0;

    cpu.sys.tr = d.seg;
    cpu.sys.tr.attr |= 2;
    cpu.sys.tr_base = d.base;
    cpu.sys.cr0 |= cr0::TS;
    if paged {
        cpu.sys.cr3 = cr3;
        cpu.tlb.switch(0, false);
    }
    debug::leave_task(cpu);
    // The manual does not tell what a 16-bit TSS leaves in the upper halves: they are set.
    let upper = if new.w == W16 { 0xffff_0000 } else { 0 };
    for (r, v) in cpu.regs[..8].iter_mut().zip(&state[2..10]) {
        *r = v | upper;
    }
    cpu.set_rip(state[0]);
    cpu.set_rflags(state[1] | if nested { rflags::NT } else { 0 });
    for (s, v) in Seg::ALL.into_iter().zip(&state[10..]) {
        segment::set_null(cpu, s, *v as u16);
    }
    let vm = cpu.sysflags & rflags::VM != 0;
    cpu.cpl = if vm { 3 } else { rpl(state[11] as u16) };
    cpu.shadow = false;
    mode::update(cpu);
    let loaded = load(cpu, ldt);
    mode::update(cpu);
    if trap {
        cpu.watch.pending |= BT;
    }
    let r = match (loaded, by) {
        (Ok(()), By::Event(Some(error))) => push_error(cpu, new.w, error),
        (r, _) => r,
    };
    Ok(r.err())
}

fn push_error(cpu: &mut Cpu, w: Width, error: u32) -> Guest<()> {
    let mut stack = Stack::current(cpu);
    stack.push(cpu, w, &[error.into()])?;
    stack.commit(cpu);
    Ok(())
}

/// Loads LDTR from `ldt` and the segment registers from the selectors in them (SDM Vol. 3, table
/// 7-1, from the LDT on).
fn load(cpu: &mut Cpu, ldt: u16) -> Guest<()> {
    let null = Descriptor::new(ldt, 0);
    (cpu.sys.ldtr, cpu.sys.ldtr_base) = (null.seg, 0);
    if !is_null(ldt) {
        let fault = selector_fault(vector::TS, ldt);
        let d = if ldt & 4 == 0 { segment::fetch(cpu, ldt)? } else { None };
        let d = d.filter(|d| d.system() == Some(2) && d.seg.present()).ok_or(fault)?;
        (cpu.sys.ldtr, cpu.sys.ldtr_base) = (d.seg, d.base);
    }
    let selectors = cpu.segs.map(|s| s.selector);
    if cpu.mode & m::VM86 != 0 {
        for (s, selector) in Seg::ALL.into_iter().zip(selectors) {
            segment::set_real(cpu, s, selector);
        }
        return Ok(());
    }
    let [es, cs, ss, ds, fs, gs] = selectors;
    let mut d = require(cpu, cs, vector::TS)?;
    let (dpl, cpl) = (d.seg.dpl(), cpu.cpl);
    let level_ok = if d.seg.conforming() { dpl <= cpl } else { dpl == cpl };
    if !d.seg.is_code() || !level_ok {
        return Err(d.fault(vector::TS));
    }
    if !d.seg.present() {
        return Err(d.fault(vector::NP));
    }
    mark_accessed(cpu, &mut d)?;
    segment::set(cpu, Seg::Cs, &d);
    let mut d = segment::stack_descriptor(cpu, ss, cpl, vector::TS)?;
    mark_accessed(cpu, &mut d)?;
    segment::set(cpu, Seg::Ss, &d);
    for (s, selector) in [(Seg::Es, es), (Seg::Ds, ds), (Seg::Fs, fs), (Seg::Gs, gs)] {
        if is_null(selector) {
            continue;
        }
        let mut d = require(cpu, selector, vector::TS)?;
        let level_ok = d.seg.conforming() || rpl(selector).max(cpl) <= d.seg.dpl();
        if !d.seg.readable() || !level_ok {
            return Err(d.fault(vector::TS));
        }
        if !d.seg.present() {
            return Err(d.fault(vector::NP));
        }
        mark_accessed(cpu, &mut d)?;
        segment::set(cpu, s, &d);
    }
    Ok(())
}

/// A switch by an instruction: a fault of the new task is delivered there.
///
/// # Errors
/// Of the old task.
pub fn by_instruction(cpu: &mut Cpu, selector: u16, by: By, next_rip: u64) -> Guest<()> {
    if let Some(f) = switch(cpu, selector, by, next_rip, 0)? {
        interrupt::deliver_fault(cpu, f);
    }
    Ok(())
}

/// IRET with NT: back to the task that the current TSS's link field names.
///
/// # Errors
/// #TS, #NP, #PF.
pub fn back(cpu: &mut Cpu, next_rip: u64) -> Guest<()> {
    let link = super::stack::tss_field(cpu, 0, W16)? as u16;
    by_instruction(cpu, link, By::Return, next_rip)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, Level, *};
    use super::super::transfer::{far_call, far_jump};
    use super::*;
    use emu_core::cpu::Reg;
    use emu_core::vcpu::Stop;

    /// The second task's TSS, its selector, and a task gate to it.
    const NEW: u64 = 0x4000;
    const NEW_TSS: u16 = 0x70;
    const GATE: u16 = 0x58;
    const LDT: u16 = 0x60;

    fn put(c: &mut Cpu, tss: u64, l: &Layout, slots: &[u64]) {
        for (n, &v) in slots.iter().enumerate() {
            c.mem.write(tss + l.slot(n), l.w, v);
        }
    }

    fn slots(c: &Cpu, tss: u64, l: &Layout) -> Vec<u64> {
        (0..10 + l.segments).map(|n| c.mem.read(tss + l.slot(n), l.w)).collect()
    }

    /// EIP, EFLAGS, EAX … EDI, ES … GS, LDT of the second task.
    #[rustfmt::skip]
    const STATE: [u64; 17] = [
        0x5000, 0x246, 1, 2, 3, 4, 0x6000, 6, 7, 8, 0x10, 8, 0x10, 0x10, 0, 0x10, LDT as u64,
    ];

    /// Protected mode with a second task of a 32-bit TSS.
    fn tasks() -> Cpu {
        let mut c = cpu(Level::Protected);
        gdt(&mut c, 14, desc(NEW, 0x67, 0x89));
        gdt(&mut c, 11, u64::from(NEW_TSS) << 16 | 0xe5 << 40);
        gdt(&mut c, 12, desc(0x7000, 0x1f, 0x82));
        put(&mut c, NEW, &TSS32, &STATE);
        c
    }

    fn busy(c: &Cpu) -> (bool, bool) {
        let bit = |n: u64| c.mem.read(GDT + 8 * n + 5, W8) & 2 != 0;
        (bit(13), bit(14))
    }

    /// SDM Vol. 3, 7.3, and table 7-2: what JMP does to busy bits, NT and link.
    #[test]
    fn jmp_saves_one_task_and_loads_the_other() {
        let mut c = tasks();
        for i in 0..8 {
            c.regs[i] = 0x1111_0000 + i as u64;
        }
        c.set_rflags(rflags::NT | rflags::IF | 1);
        c.sys.dr[7] = 0x7ff;
        far_jump(&mut c, NEW_TSS, 0x99, 0x1239).unwrap();
        let mut old = vec![0x1239, 0x4203];
        old.extend((0..8).map(|i| 0x1111_0000 + i));
        old.extend([0x10, 8, 0x10, 0x10, 0x10, 0x10]);
        assert_eq!(slots(&c, TSS, &TSS32), old);
        assert_eq!((c.rip(), c.rflags()), (0x5000, 0x246));
        assert_eq!(c.regs[..8], STATE[2..10]);
        assert_eq!(c.segs.map(|s| u64::from(s.selector)), STATE[10..16]);
        assert!(c.segs[Seg::Ss as usize].big() && !c.segs[Seg::Fs as usize].present());
        assert_eq!((c.sys.ldtr.selector, c.sys.ldtr_base, c.sys.ldtr.limit), (LDT, 0x7000, 0x1f));
        assert_eq!((c.sys.tr.selector, c.sys.tr.attr, c.sys.tr_base), (NEW_TSS, 0x8b, NEW));
        assert_eq!((busy(&c), c.sys.cr0 & cr0::TS, c.sys.dr[7]), ((false, true), cr0::TS, 0x6aa));
        assert_eq!(c.mem.read(NEW, W16), 0, "no link");
    }

    #[test]
    fn call_nests_and_iret_goes_back() {
        let mut c = tasks();
        gdt(&mut c, 12, 0);
        put(&mut c, NEW, &TSS32, &[STATE.as_slice(), &[0]].concat()[..16]);
        c.mem.write(NEW + 96, W16, 0);
        far_call(&mut c, GATE, 0, W32, 0x1239).unwrap();
        assert_eq!((c.rip(), c.rflags(), busy(&c)), (0x5000, 0x4246, (true, true)));
        assert_eq!(c.mem.read(NEW, W16), 0x68);
        interrupt::iret(&mut c, W32, 0x5001).unwrap();
        assert_eq!((c.rip(), c.rflags(), busy(&c)), (0x1239, 2, (true, false)));
        assert_eq!((c.sys.tr.selector, c.mem.read(NEW + 32, W32)), (0x68, 0x5001));
        assert_eq!(c.mem.read(NEW + 36, W32), 0x246, "NT is cleared in the saved flags");
        // Again, now that the other task has its TSS free: it goes on after its IRET.
        far_call(&mut c, NEW_TSS, 0, W32, 0x1240).unwrap();
        assert_eq!(c.rip(), 0x5001);
    }

    /// A descriptor or a slot that is wrong, and what that raises.
    type Row = (u64, u64, Option<(usize, u64)>, Fault);

    /// SDM Vol. 3, table 7-1: before the switch, faults are the old task's.
    #[test]
    fn checks_in_the_old_task() {
        let (gp, ts, np) = (vector::GP, vector::TS, vector::NP);
        let fault = |v, s| Err(Fault::with_error(v, s));
        #[rustfmt::skip]
        let rows: [(u64, u16, Guest<()>); 8] = [
            (desc(NEW, 0x67, 0x89), NEW_TSS | 4, fault(gp, 0x74)),      // in the LDT
            (desc(NEW, 0x67, 0x89), 0x88,        fault(gp, 0x88)),      // beyond the GDT
            (desc(NEW, 0x67, 0x8b), NEW_TSS,     fault(gp, 0x70)),      // busy
            (desc(NEW, 0x67, 0x8b), GATE,        fault(gp, 0x70)),
            (desc(NEW, 0x67, 0x09), NEW_TSS,     fault(np, 0x70)),
            (desc(NEW, 0x66, 0x89), NEW_TSS,     fault(ts, 0x70)),      // too short
            (desc(NEW, 0x2a, 0x81), NEW_TSS,     fault(ts, 0x70)),      // as a 16-bit one too
            (desc(NEW, 0x67, 0x89), NEW_TSS | 3, fault(gp, 0x70)),      // RPL above DPL
        ];
        for (raw, selector, expected) in rows {
            let mut c = tasks();
            gdt(&mut c, 14, raw);
            let before = c.sys.clone();
            assert_eq!(far_jump(&mut c, selector, 0, 0x1239), expected, "{raw:x} {selector:x}");
            assert_eq!((c.sys == before, c.rip(), c.reg(Reg::RSP)), (true, 0x1234, STACK));
        }
        // IRET wants a busy TSS, and says #TS.
        for (link, expected) in [(0, 0), (NEW_TSS, 0x70), (0x74, 0x74), (0x88, 0x88)] {
            let mut c = tasks();
            c.set_rflags(rflags::NT);
            c.mem.write(TSS, W16, link.into());
            assert_eq!(interrupt::iret(&mut c, W32, 0), fault(ts, expected));
        }
    }

    /// From the LDT on they are the new task's: registers are loaded, RIP is its.
    #[test]
    fn checks_in_the_new_task() {
        let (ts, np, ss) = (vector::TS, vector::NP, vector::SS);
        let f = |v, s| Fault::with_error(v, s);
        // Slot 6 of the GDT gets the descriptor; a state slot a selector.
        #[rustfmt::skip]
        let rows: [Row; 17] = [
            (6, 0, Some((16, 0x64)), f(ts, 0x64)),                           // LDT in the LDT
            (6, desc(0, 0xff, 0x92), Some((16, 0x30)), f(ts, 0x30)),         // not an LDT
            (6, desc(0, 0xff, 0x02), Some((16, 0x30)), f(ts, 0x30)),         // not present
            (6, 0, Some((11, 0)), f(ts, 0)),
            (6, desc(0, 0xf_ffff, 0xc093), Some((11, 0x30)), f(ts, 0x30)),   // not code
            (6, desc(0, 0xf_ffff, 0xc0fb), Some((11, 0x30)), f(ts, 0x30)),   // DPL is not RPL
            (6, desc(0, 0xf_ffff, 0xc0ff), Some((11, 0x30)), f(ts, 0x30)),   // conforming
            (6, desc(0, 0xf_ffff, 0xc01b), Some((11, 0x30)), f(np, 0x30)),
            (6, 0, Some((12, 0)), f(ts, 0)),
            (6, desc(0, 0xf_ffff, 0xc091), Some((12, 0x30)), f(ts, 0x30)),   // SS not writable
            (6, desc(0, 0xf_ffff, 0xc0f3), Some((12, 0x30)), f(ts, 0x30)),   // SS of ring 3
            (6, desc(0, 0xf_ffff, 0xc093), Some((12, 0x33)), f(ts, 0x30)),   // RPL is not CPL
            (6, desc(0, 0xf_ffff, 0xc013), Some((12, 0x30)), f(ss, 0x30)),
            (6, desc(0, 0xf_ffff, 0xc099), Some((13, 0x30)), f(ts, 0x30)),   // DS not readable
            (6, desc(0, 0xf_ffff, 0xc093), Some((15, 0x33)), f(ts, 0x30)),   // GS above DPL
            (6, desc(0, 0xf_ffff, 0xc013), Some((10, 0x30)), f(np, 0x30)),
            (6, 0, Some((14, 0x88)), f(ts, 0x88)),                           // FS beyond the GDT
        ];
        for (slot, raw, state, fault) in rows {
            let mut c = tasks();
            gdt(&mut c, slot, raw);
            let (n, v) = state.unwrap();
            c.mem.write(NEW + TSS32.slot(n), W32, v);
            let r = switch(&mut c, NEW_TSS, By::Jump, 0x1239, 0);
            assert_eq!(r, Ok(Some(fault)), "{raw:x} {state:x?}");
            assert_eq!((c.rip(), c.reg(Reg::RAX), c.sys.tr.selector), (0x5000, 1, NEW_TSS));
            let expected: Vec<u64> = (10..16).map(|i| if i == n { v } else { STATE[i] }).collect();
            assert_eq!(c.segs.map(|s| u64::from(s.selector)), expected[..]);
        }
    }

    /// SDM Vol. 3, 6.12.2: a task gate in the IDT; RF in the saved flags, the error code pushed.
    #[test]
    fn exceptions_through_task_gates() {
        let mut c = tasks();
        gdt(&mut c, 12, desc(0x7000, 0x1f, 0x82));
        gate(&mut c, 14, NEW_TSS, 0, 0x85, 0);
        interrupt::deliver_fault(&mut c, Fault::page(0x1_2345, 2));
        assert_eq!((c.rip(), c.sys.cr2, c.reg(Reg::RSP)), (0x5000, 0x1_2345, 0x5ffc));
        assert_eq!((c.mem.read(0x5ffc, W32), c.mem.read(TSS + 36, W32)), (2, 0x1_0002));
        assert_eq!((c.mem.read(TSS + 32, W32), c.rflags()), (0x1234, 0x4246));
        // The next one finds it busy, and names it; EXT is set.
        gate(&mut c, 13, CODE0, 0x700, 0x8e, 0);
        interrupt::deliver_interrupt(&mut c, 14, false);
        assert_eq!((c.rip(), c.mem.read(c.reg(Reg::RSP), W32)), (0x700, 0x71));
        // INT n: the gate's DPL counts; #DF through a task gate; shutdown if that fails.
        let mut c = tasks();
        gate(&mut c, 8, NEW_TSS, 0, 0x85, 0);
        to_user(&mut c, CODE3, 0x7000);
        let f = interrupt::software_interrupt(&mut c, 8, 0, interrupt::Software::Int);
        assert_eq!(f, Err(Fault::gp(0x42)));
        interrupt::deliver_fault(&mut c, Fault::GP0);
        assert_eq!((c.rip(), c.cpl, c.mem.read(0x5ffc, W32)), (0x5000, 0, 0));
        interrupt::deliver_fault(&mut c, Fault::GP0);
        assert!(c.shutdown, "its TSS is busy");
        // A fault of the new task while an exception is delivered makes a double fault of both.
        let mut c = tasks();
        c.mem.write(NEW + TSS32.slot(12), W32, 0);
        gate(&mut c, 13, NEW_TSS, 0, 0x85, 0);
        gate(&mut c, 8, CODE0, 0x800, 0x8e, 0);
        interrupt::deliver_fault(&mut c, Fault::gp(0x50));
        assert!(c.shutdown, "#TS, and no stack for #DF");
    }

    /// 16-bit TSSs: 44 bytes, no FS and GS; the upper halves of registers are set.
    #[test]
    fn tasks_of_16_bits() {
        let mut c = tasks();
        gdt(&mut c, 14, desc(NEW, 0x2b, 0x81));
        let state: Vec<u64> = STATE[..14].iter().copied().chain([0]).map(|v| v & 0xffff).collect();
        put(&mut c, NEW, &TSS16, &state);
        far_call(&mut c, NEW_TSS, 0, W16, 0x1239).unwrap();
        assert_eq!((c.rip(), c.rflags(), c.reg(Reg::RCX)), (0x5000, 0x4246, 0xffff_0002));
        assert_eq!((c.segs[4].selector, c.sys.tr.attr, c.sys.ldtr.present()), (0, 0x83, false));
        c.set_rip(0xabcd_1234);
        interrupt::iret(&mut c, W16, 0xabcd_1235).unwrap();
        assert_eq!((c.rip(), slots(&c, NEW, &TSS16)[0]), (0x1239, 0x1235));
        assert_eq!(slots(&c, NEW, &TSS16)[3], 2);
    }

    #[test]
    fn a_virtual_8086_task() {
        let mut c = tasks();
        let mut state = STATE;
        (state[1], state[11], state[12]) = (rflags::VM | 0x202, 0x2000, 0x3000);
        put(&mut c, NEW, &TSS32, &state);
        far_jump(&mut c, NEW_TSS, 0, 0x1239).unwrap();
        assert_eq!((c.cpl, c.mode & m::VM86, c.base(Seg::Cs)), (3, m::VM86, 0x2_0000));
        assert_eq!((c.base(Seg::Ss), c.segs[2].attr), (0x3_0000, segment::VM86_ATTR));
    }

    /// Both TSSs are checked for paging before anything is changed; CR3 is the new task's.
    #[test]
    fn paging() {
        let mut c = tasks();
        let (dir, table) = (0x10_0000, 0x10_1000);
        c.mem.write(dir, W32, table | 7);
        (0..1024).for_each(|i| c.mem.write(table + 4 * i, W32, i << 12 | 7));
        c.mem.write(0x10_2000, W32, table | 7);
        c.mem.write(NEW + CR3, W32, 0x10_2000);
        (c.sys.cr3, c.sys.cr0) = (dir, c.sys.cr0 | cr0::PG | cr0::WP);
        for page in [TSS >> 12, NEW >> 12] {
            c.mem.write(table + 4 * page, W32, page << 12 | 5);
            c.tlb.flush_all(true);
            let f = far_jump(&mut c, NEW_TSS, 0, 0x1239).unwrap_err();
            assert_eq!((f.vector, f.error, f.address >> 12), (vector::PF, Some(3), page));
            assert_eq!((busy(&c), c.sys.cr3, c.mem.read(TSS + 32, W32)), ((true, false), dir, 0));
            c.mem.write(table + 4 * page, W32, page << 12 | 7);
        }
        c.tlb.flush_all(true);
        far_jump(&mut c, NEW_TSS, 0, 0x1239).unwrap();
        assert_eq!((c.sys.cr3, c.rip()), (0x10_2000, 0x5000));
    }

    /// Through the run loop, from the middle of a block: a fault of the new task has its RIP, and
    /// T traps before its first instruction.
    #[test]
    fn programs_that_switch() {
        let jump: &[u8] = &[0x40, 0x40, 0xea, 0, 0, 0, 0, 0x70, 0]; // inc eax; inc eax; jmp 70h:0
        for (ds, t, handler, dr6) in [(0x88, 0, 0x700, 0xffff_0ff0), (0x10, 1, 0x600, 0xffff_8ff0)]
        {
            let mut c = tasks();
            c.mem.write(NEW + TSS32.slot(13), W32, ds);
            c.mem.write(NEW + TRAP, W16, t);
            gate(&mut c, 10, CODE0, 0x700, 0x8e, 0);
            gate(&mut c, 1, CODE0, 0x600, 0x8e, 0);
            let code: &[(u64, &[u8])] =
                &[(0x1234, jump), (0x700, &[0xf4]), (0x600, &[0xf4]), (0x5000, &[0xf4])];
            let mut v = testing::vcpu(c, code);
            assert_eq!(v.run(100), Stop::Halted);
            let c = &v.cpu;
            assert_eq!((c.rip(), c.sys.dr[6]), (handler + 1, dr6));
            assert_eq!((c.mem.read(TSS + 32, W32), c.mem.read(TSS + 40, W32)), (0x123d, 2));
            let at = c.reg(Reg::RSP) + if t == 0 { 4 } else { 0 };
            assert_eq!(c.mem.read(at, W32), 0x5000);
        }
    }

    /// Tasks that trap or fault as soon as they start, for ever, use up their budget.
    #[test]
    fn no_hang() {
        // xor byte ss:[7f4h], 18h; jmp far ss:[7f0h]: to the other one of selectors 68H and 70H.
        let handler: &[u8] =
            &[0x36, 0x80, 0x35, 0xf4, 7, 0, 0, 0x18, 0x36, 0xff, 0x2d, 0xf0, 7, 0, 0];
        for (t, ds) in [(1, 0x10), (0, 0x88)] {
            let mut c = tasks();
            for tss in [NEW, TSS] {
                put(&mut c, tss, &TSS32, &STATE);
                c.mem.write(tss + TSS32.slot(13), W32, ds);
                c.mem.write(tss + TRAP, W16, t);
            }
            // What the first task saves is no better.
            c.segs[Seg::Ds as usize].selector = ds as u16;
            gate(&mut c, 10, CODE0, 0x700, 0x8e, 0);
            gate(&mut c, 1, CODE0, 0x700, 0x8e, 0);
            let pointer: &[u8] = &[0, 0, 0, 0, 0x70, 0];
            let jump: &[u8] = &[0xea, 0, 0, 0, 0, 0x70, 0];
            let code: &[(u64, &[u8])] = &[(0x1234, jump), (0x700, handler), (0x7f0, pointer)];
            let mut v = testing::vcpu(c, code);
            // Saved state moves on, but each starts at the handler's end and traps again.
            assert_eq!(v.run(2000), Stop::Budget);
            assert!(v.cpu.vectors[if t == 1 { 1 } else { 10 }] > 100);
        }
    }
}
