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
    // The upper halves of registers that come out of a 16-bit TSS are set.
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
