//! Segmentation: descriptors, loading of segment registers, limit and type checks.
//!
//! Source: SDM Vol. 3, chapters 3 and 5; Vol. 2 on MOV, LLDT, LTR, LAR, LSL, VERR, SGDT….

use super::{cr0, cr4, mode, need_canonical_base, need_cpl0, read_table, write_table};
use emu_core::cpu::{Cpu, Reg, Seg, Segment, TableReg, mode as m};
use emu_core::fault::{Fault, Guest, vector};
use emu_core::width::Width::{self, W8, W16, W32, W64};

/// Attributes of a data segment as real mode has it after RESET: present, writable, accessed.
pub const REAL_ATTR: u16 = 0x93;
/// The same at privilege level 3: virtual-8086 mode.
pub const VM86_ATTR: u16 = 0xf3;

/// A descriptor as read from the GDT or LDT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Selector it was read with, attributes and limit.
    pub seg: Segment,
    /// Base address; 64 bits for a system descriptor in long mode.
    pub base: u64,
    /// The low eight bytes.
    pub raw: u64,
    /// The high eight bytes of a system descriptor in long mode, else 0.
    pub high: u64,
}

impl Descriptor {
    /// What `raw` means, read with `selector` (SDM Vol. 3, figure 3-8).
    pub const fn new(selector: u16, raw: u64) -> Descriptor {
        let attr = (raw >> 40) as u16 & 0xf0ff;
        let limit = (raw as u32 & 0xffff) | (raw >> 32) as u32 & 0xf_0000;
        let limit = if attr & 0x8000 != 0 { limit << 12 | 0xfff } else { limit };
        let base = raw >> 16 & 0xff_ffff | raw >> 56 << 24;
        Descriptor { seg: Segment { selector, attr, limit }, base, raw, high: 0 }
    }

    /// #GP, #NP, #SS or #TS with this descriptor's selector.
    pub const fn fault(&self, vector: u8) -> Fault {
        selector_fault(vector, self.seg.selector)
    }

    /// Type of a system descriptor (SDM Vol. 3, table 3-2); `None` for code and data.
    pub const fn system(&self) -> Option<u16> {
        if self.seg.is_code_or_data() { None } else { Some(self.seg.kind()) }
    }

    /// Target selector of a call, interrupt or trap gate.
    pub const fn gate_selector(&self) -> u16 {
        (self.raw >> 16) as u16
    }

    /// Target offset of a gate; a 16-bit gate's is zero-extended.
    pub const fn gate_offset(&self) -> u64 {
        let low = self.raw & 0xffff;
        let middle = if self.seg.attr & 8 != 0 { self.raw >> 32 & 0xffff_0000 } else { 0 };
        low | middle | self.high << 32
    }
}

/// Fault `vector` with the error code of `selector` (SDM Vol. 3, 6.13).
pub const fn selector_fault(vector: u8, selector: u16) -> Fault {
    Fault::with_error(vector, (selector & 0xfffc) as u32)
}

/// Whether `selector` is null.
pub const fn is_null(selector: u16) -> bool {
    selector & 0xfffc == 0
}

/// Requested privilege level.
pub const fn rpl(selector: u16) -> u8 {
    (selector & 3) as u8
}

/// Linear address of the `size`-byte descriptor of `selector`; `None` beyond its table's limit.
#[inline]
pub(super) fn address(cpu: &Cpu, selector: u16, size: u64) -> Option<u64> {
    let offset = u64::from(selector & 0xfff8);
    let (base, limit) = match selector & 4 != 0 {
        true if !cpu.sys.ldtr.present() => return None,
        true => (cpu.sys.ldtr_base, u64::from(cpu.sys.ldtr.limit)),
        false => (cpu.sys.gdtr.base, u64::from(cpu.sys.gdtr.limit)),
    };
    (offset + size - 1 <= limit).then(|| base.wrapping_add(offset))
}

/// The descriptor of `selector`; `None` when it is null or beyond its table. A system descriptor
/// of long mode is read whole; `None` also when its upper half is malformed or beyond the table.
///
/// # Errors
/// #PF of the table access.
#[inline(always)]
pub fn fetch(cpu: &mut Cpu, selector: u16) -> Guest<Option<Descriptor>> {
    let Some(at) = address(cpu, selector, 8).filter(|_| !is_null(selector)) else {
        return Ok(None);
    };
    let mut d = Descriptor::new(selector, read_table(cpu, at, W64)?);
    if cpu.mode & m::LONG != 0 && !d.seg.is_code_or_data() {
        if address(cpu, selector, 16).is_none() {
            return Ok(None);
        }
        d.high = read_table(cpu, at.wrapping_add(8), W64)?;
        if d.high >> 40 & 0x1f != 0 {
            return Ok(None);
        }
        d.base |= d.high << 32;
    }
    Ok(Some(d))
}

/// As [`fetch`], for instructions that must have it.
///
/// # Errors
/// Fault `vector` with error code 0 for a null selector, with the selector when it is beyond its
/// table; #PF.
#[inline(always)]
pub fn require(cpu: &mut Cpu, selector: u16, vector: u8) -> Guest<Descriptor> {
    fetch(cpu, selector)?.ok_or(selector_fault(vector, selector))
}

/// Sets the accessed bit of `d` in memory and in `d` (SDM Vol. 3, 3.4.5.1).
///
/// # Errors
/// #PF.
#[inline(always)]
pub fn mark_accessed(cpu: &mut Cpu, d: &mut Descriptor) -> Guest<()> {
    if d.seg.attr & 1 == 0 {
        d.seg.attr |= 1;
        if let Some(at) = address(cpu, d.seg.selector, 8) {
            write_table(cpu, at.wrapping_add(5), W8, u64::from(d.seg.attr & 0xff))?;
        }
    }
    Ok(())
}

/// Assigns segment register `s`; [`mode::update`] is the caller's.
pub fn set(cpu: &mut Cpu, s: Seg, d: &Descriptor) {
    cpu.segs[s as usize] = d.seg;
    cpu.set_reg(s.base(), d.base);
}

/// Makes segment register `s` null with `selector`.
pub fn set_null(cpu: &mut Cpu, s: Seg, selector: u16) {
    cpu.segs[s as usize] = Segment { selector, attr: 0, limit: 0 };
    cpu.set_reg(s.base(), 0);
}

/// Loads `s` as real and virtual-8086 mode do. Real mode leaves a limit and D/B bit that
/// protected mode has set ("unreal" mode).
pub fn set_real(cpu: &mut Cpu, s: Seg, selector: u16) {
    let old = cpu.segs[s as usize];
    let (attr, limit) = match (cpu.mode & m::VM86 != 0, old.present()) {
        (true, _) => (VM86_ATTR, 0xffff),
        (false, true) => (old.attr & 0xff00 | REAL_ATTR, old.limit),
        (false, false) => (REAL_ATTR, 0xffff),
    };
    cpu.segs[s as usize] = Segment { selector, attr, limit };
    cpu.set_reg(s.base(), u64::from(selector) << 4);
}

/// Checks `selector` for SS with privilege level `cpl`, as MOV does (`vector` #GP) or a stack
/// switch through the TSS (#TS; SDM Vol. 3, 5.8.5). Null is refused.
///
/// # Errors
/// Fault `vector` or #SS with the selector; #PF.
#[inline(always)]
pub fn stack_descriptor(cpu: &mut Cpu, selector: u16, cpl: u8, vector: u8) -> Guest<Descriptor> {
    let d = require(cpu, selector, vector)?;
    if rpl(selector) != cpl || d.seg.dpl() != cpl || !d.seg.writable() {
        return Err(d.fault(vector));
    }
    if !d.seg.present() {
        return Err(d.fault(vector::SS));
    }
    Ok(d)
}

/// Loads segment register `s` (not CS) as MOV, POP and LDS…LGS do (SDM Vol. 2, MOV).
///
/// # Errors
/// #GP, #SS or #NP with the selector, #GP(0) for a null SS, #PF of the table access.
pub fn load(cpu: &mut Cpu, s: Seg, selector: u16) -> Guest<()> {
    let cpl = cpu.cpl;
    if cpu.mode & m::REAL != 0 {
        set_real(cpu, s, selector);
    } else if is_null(selector) {
        if s == Seg::Ss && (cpu.mode & m::CODE64 == 0 || cpl == 3 || rpl(selector) != cpl) {
            return Err(Fault::GP0);
        }
        set_null(cpu, s, selector);
    } else {
        let mut d = match s {
            Seg::Ss => stack_descriptor(cpu, selector, cpl, vector::GP)?,
            _ => require(cpu, selector, vector::GP)?,
        };
        if !d.seg.readable() || !d.seg.conforming() && rpl(selector).max(cpl) > d.seg.dpl() {
            return Err(d.fault(vector::GP));
        }
        if !d.seg.present() {
            return Err(d.fault(vector::NP));
        }
        mark_accessed(cpu, &mut d)?;
        set(cpu, s, &d);
    }
    if cpu.mode & m::CODE64 == 0 {
        mode::update(cpu);
    }
    Ok(())
}

/// MOV or POP to `s`: [`load`], and for SS the shadow that keeps interrupts and debug exceptions
/// off the next instruction (SDM Vol. 3, 6.8.3).
///
/// # Errors
/// As [`load`]; #UD for CS.
pub fn mov_to(cpu: &mut Cpu, s: Seg, selector: u16) -> Guest<()> {
    if s == Seg::Cs {
        return Err(Fault::UD);
    }
    load(cpu, s, selector)?;
    cpu.shadow |= s == Seg::Ss;
    cpu.watch.shadow |= s == Seg::Ss;
    Ok(())
}

/// After a return to a lower privilege: a data segment register that the new level could not have
/// loaded becomes null (SDM Vol. 3, 5.8.6).
pub fn drop_inaccessible(cpu: &mut Cpu) {
    for s in [Seg::Es, Seg::Ds, Seg::Fs, Seg::Gs] {
        let d = cpu.segs[s as usize];
        if d.present() && !d.conforming() && d.dpl() < cpu.cpl {
            set_null(cpu, s, 0);
        }
    }
}

/// Whether `size` bytes at `offset` are within the limit of `s`. A 4-GByte segment has none: an
/// access may wrap.
pub fn in_limit(s: &Segment, offset: u64, size: u64) -> bool {
    let last = offset.wrapping_add(size.wrapping_sub(1));
    let limit = u64::from(s.limit);
    if s.expand_down() {
        offset > limit && last <= if s.big() { 0xffff_ffff } else { 0xffff }
    } else {
        s.limit == u32::MAX || last <= limit && offset <= last
    }
}

/// Linear address of `size` bytes at `offset` (cut to the address size) of segment `s`, which may
/// not be flat: [`emu_core::cpu::Frontend::linear`] (SDM Vol. 3, 5.3 to 5.5; Vol. 1, 3.4.2.1).
///
/// # Errors
/// #GP(0), or #SS(0) for the stack segment.
pub fn linear(cpu: &mut Cpu, s: Seg, offset: u64, size: u32, write: bool) -> Guest<u64> {
    let fault = Err(Cpu::address_fault(s == Seg::Ss));
    if cpu.mode & m::CODE64 != 0 {
        let base = if matches!(s, Seg::Fs | Seg::Gs) { cpu.base(s) } else { 0 };
        let va = base.wrapping_add(offset);
        return if cpu.canonical(va) { Ok(va) } else { fault };
    }
    let d = &cpu.segs[s as usize];
    let right = if write { d.writable() } else { d.readable() };
    if cpu.mode & m::REAL == 0 && !(d.present() && right) || !in_limit(d, offset, size.into()) {
        return fault;
    }
    Ok(cpu.base(s).wrapping_add(offset) & 0xffff_ffff)
}

/// Protected mode but not virtual-8086: where LLDT, LTR, LAR, LSL, VERR, VERW, SLDT, STR exist.
///
/// # Errors
/// #UD.
pub const fn need_protected(cpu: &Cpu) -> Guest<()> {
    if cpu.mode & m::REAL == 0 { Ok(()) } else { Err(Fault::UD) }
}

/// LLDT (SDM Vol. 2).
///
/// # Errors
/// #UD, #GP, #NP, #PF.
pub fn lldt(cpu: &mut Cpu, selector: u16) -> Guest<()> {
    need_protected(cpu)?;
    need_cpl0(cpu)?;
    let d = match is_null(selector) {
        true => Descriptor::new(selector, 0),
        false => system_segment(cpu, selector, &[2])?,
    };
    (cpu.sys.ldtr, cpu.sys.ldtr_base) = (d.seg, d.base);
    Ok(())
}

/// LTR (SDM Vol. 2).
///
/// # Errors
/// #UD, #GP, #NP, #PF.
pub fn ltr(cpu: &mut Cpu, selector: u16) -> Guest<()> {
    need_protected(cpu)?;
    need_cpl0(cpu)?;
    let kinds: &[u16] = if cpu.mode & m::LONG != 0 { &[9] } else { &[1, 9] };
    let mut d = system_segment(cpu, selector, kinds)?;
    d.seg.attr |= 2;
    if let Some(at) = address(cpu, selector, 8) {
        write_table(cpu, at.wrapping_add(5), W8, u64::from(d.seg.attr & 0xff))?;
    }
    (cpu.sys.tr, cpu.sys.tr_base) = (d.seg, d.base);
    Ok(())
}

/// The GDT's system descriptor of `selector`, present and of one of the types `kinds`.
fn system_segment(cpu: &mut Cpu, selector: u16, kinds: &[u16]) -> Guest<Descriptor> {
    if selector & 4 != 0 {
        return Err(selector_fault(vector::GP, selector));
    }
    let d = require(cpu, selector, vector::GP)?;
    let of_kind = d.system().is_some_and(|k| kinds.contains(&k));
    if !of_kind || need_canonical_base(cpu, d.base).is_err() {
        return Err(d.fault(vector::GP));
    }
    if !d.seg.present() {
        return Err(d.fault(vector::NP));
    }
    Ok(d)
}

/// The descriptor of `selector` if CPL and RPL may see it and, for a system descriptor, its type
/// is one of `kinds`.
fn visible(cpu: &mut Cpu, selector: u16, kinds: &[u16]) -> Guest<Option<Descriptor>> {
    need_protected(cpu)?;
    let least = rpl(selector).max(cpu.cpl);
    Ok(fetch(cpu, selector)?.filter(|d| {
        (d.seg.conforming() || least <= d.seg.dpl())
            && d.system().is_none_or(|k| kinds.contains(&k))
    }))
}

/// LAR: the access rights, already masked for 32-bit operands; `None` clears ZF.
///
/// # Errors
/// #UD, #PF.
pub fn lar(cpu: &mut Cpu, selector: u16) -> Guest<Option<u32>> {
    let long = cpu.mode & m::LONG != 0;
    let kinds: &[u16] = if long { &[2, 9, 11, 12] } else { &[1, 2, 3, 4, 5, 9, 11, 12] };
    Ok(visible(cpu, selector, kinds)?.map(|d| (d.raw >> 32) as u32 & 0x00f0_ff00))
}

/// LSL: the limit in bytes; `None` clears ZF.
///
/// # Errors
/// #UD, #PF.
pub fn lsl(cpu: &mut Cpu, selector: u16) -> Guest<Option<u32>> {
    let long = cpu.mode & m::LONG != 0;
    let kinds: &[u16] = if long { &[2, 9, 11] } else { &[1, 2, 3, 9, 11] };
    Ok(visible(cpu, selector, kinds)?.map(|d| d.seg.limit))
}

/// VERR, or VERW if `write`: the new ZF.
///
/// # Errors
/// #UD, #PF.
pub fn verify(cpu: &mut Cpu, selector: u16, write: bool) -> Guest<bool> {
    let d = visible(cpu, selector, &[])?;
    Ok(d.is_some_and(|d| if write { d.seg.writable() } else { d.seg.readable() }))
}

/// CR4.UMIP keeps SGDT, SIDT, SLDT, STR and SMSW from CPL 1–3 (SDM Vol. 3, 2.5).
///
/// # Errors
/// #GP(0).
pub const fn need_umip(cpu: &Cpu) -> Guest<()> {
    if cpu.sys.cr4 & cr4::UMIP != 0 { need_cpl0(cpu) } else { Ok(()) }
}

/// SGDT, SIDT: stores `t` at linear address `va`; 10 bytes in 64-bit mode, else 6. Whatever the
/// operand size, 32-bit CPUs store all of the base.
///
/// # Errors
/// #GP(0) for UMIP; #PF.
pub fn store_table(cpu: &mut Cpu, va: u64, t: TableReg) -> Guest<()> {
    need_umip(cpu)?;
    let mut image = [0; 10];
    image[..2].copy_from_slice(&t.limit.to_le_bytes());
    image[2..].copy_from_slice(&t.base.to_le_bytes());
    let n = if cpu.mode & m::CODE64 != 0 { 10 } else { 6 };
    cpu.write_array(va, &image[..n])
}

/// LGDT, LIDT: reads the operand at linear address `va`; with 16-bit operands the base has 24
/// bits.
///
/// # Errors
/// #GP(0) unless CPL 0 and the base canonical; #PF.
pub fn load_table(cpu: &mut Cpu, va: u64, w: Width) -> Guest<TableReg> {
    need_cpl0(cpu)?;
    let long = cpu.mode & m::CODE64 != 0;
    let at = va.wrapping_add(2);
    let limit = cpu.read(va, W16)? as u16;
    let base = match w {
        _ if long => cpu.read(at, W64).and_then(|base| need_canonical_base(cpu, base))?,
        W16 => cpu.read(at, W32)? & 0xff_ffff,
        _ => cpu.read(at, W32)?,
    };
    Ok(TableReg { base, limit })
}

/// Checks for RDFSBASE and its kin: 64-bit mode with CR4.FSGSBASE (SDM Vol. 2, RDFSBASE).
///
/// # Errors
/// #UD.
pub const fn need_fsgsbase(cpu: &Cpu) -> Guest<()> {
    let ok = cpu.mode & m::CODE64 != 0 && cpu.sys.cr4 & cr4::FSGSBASE != 0;
    if ok { Ok(()) } else { Err(Fault::UD) }
}

/// SWAPGS (SDM Vol. 2).
///
/// # Errors
/// #UD outside 64-bit mode, #GP(0) unless CPL 0.
pub fn swapgs(cpu: &mut Cpu) -> Guest<()> {
    if cpu.mode & m::CODE64 == 0 {
        return Err(Fault::UD);
    }
    need_cpl0(cpu)?;
    std::mem::swap(&mut cpu.regs[Reg::GS_BASE.ix()], &mut cpu.sys.kernel_gs_base);
    Ok(())
}

/// Whether CR0.PE is set.
pub const fn protected(cpu: &Cpu) -> bool {
    cpu.sys.cr0 & cr0::PE != 0
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, Level, desc};
    use super::*;
    use vector::{GP, NP, SS};

    #[test]
    fn descriptor_fields() {
        let d = Descriptor::new(8, 0x12cf_9a34_5678_ffff);
        assert_eq!((d.base, d.seg.limit, d.seg.attr), (0x1234_5678, 0xffff_ffff, 0xc09a));
        let d = Descriptor::new(8, 0x0001_9200_0000_0005);
        assert_eq!((d.base, d.seg.limit, d.seg.attr), (0, 0x1_0005, 0x92));
        let gate = Descriptor::new(8, 0x1234_8e00_0010_5678);
        assert_eq!((gate.gate_selector(), gate.gate_offset()), (0x10, 0x1234_5678));
        assert_eq!(Descriptor::new(8, 0x1234_8600_0010_5678).gate_offset(), 0x5678);
    }

    /// Vol. 2, MOV: checks and error codes in the manual's order.
    #[test]
    fn loading_data_segments() {
        let mut c = testing::cpu(Level::Protected);
        testing::gdt(&mut c, 8, desc(0x1000, 0xfff, 0x92)); // writable, ring 0
        testing::gdt(&mut c, 9, desc(0x2000, 0xfff, 0x12)); // not present
        testing::gdt(&mut c, 10, desc(0, 0xfff, 0x98)); // execute-only code
        testing::gdt(&mut c, 11, desc(0, 0xfff, 0x9e)); // conforming, readable
        testing::gdt(&mut c, 12, desc(0, 0xfff, 0x82)); // LDT
        let fault = |c: &mut Cpu, s, sel| load(c, s, sel).unwrap_err();
        assert_eq!(load(&mut c, Seg::Ds, 8 * 8), Ok(()));
        assert_eq!((c.base(Seg::Ds), c.segs[3].limit, c.mode & m::FLAT), (0x1000, 0xfff, 0));
        assert_eq!(c.mem.read(testing::GDT + 69, W8), 0x93, "accessed");
        assert_eq!(fault(&mut c, Seg::Ds, 9 * 8 + 3), selector_fault(GP, 72));
        assert_eq!(fault(&mut c, Seg::Ds, 9 * 8), selector_fault(NP, 72));
        assert_eq!(fault(&mut c, Seg::Ss, 9 * 8), selector_fault(SS, 72));
        assert_eq!(fault(&mut c, Seg::Ds, 10 * 8), selector_fault(GP, 80));
        assert_eq!(load(&mut c, Seg::Ds, 11 * 8 + 3), Ok(()), "conforming: no privilege check");
        assert_eq!(fault(&mut c, Seg::Ss, 11 * 8), selector_fault(GP, 88));
        assert_eq!(fault(&mut c, Seg::Es, 12 * 8), selector_fault(GP, 96));
        assert_eq!(fault(&mut c, Seg::Es, 0xfff8), selector_fault(GP, 0xfff8));
        assert_eq!(fault(&mut c, Seg::Es, 0x0c), selector_fault(GP, 0x0c), "no LDT");
        assert_eq!(fault(&mut c, Seg::Ss, 0), Fault::GP0);
        assert_eq!(load(&mut c, Seg::Fs, 3), Ok(()));
        assert_eq!(linear(&mut c, Seg::Fs, 0, 1, false), Err(Fault::GP0));
        assert_eq!(fault(&mut c, Seg::Ss, 8 * 8 + 1), selector_fault(GP, 64));
        assert_eq!(mov_to(&mut c, Seg::Ss, 8 * 8), Ok(()));
        assert!(c.shadow);
        assert_eq!(mov_to(&mut c, Seg::Cs, 8), Err(Fault::UD));
    }

    #[test]
    fn a_null_ss_is_for_64_bit_kernels() {
        let mut c = testing::cpu(Level::Long);
        assert_eq!(load(&mut c, Seg::Ss, 0), Ok(()));
        assert_eq!(load(&mut c, Seg::Ss, 1), Err(Fault::GP0));
        c.cpl = 3;
        mode::update(&mut c);
        assert_eq!(load(&mut c, Seg::Ss, 3), Err(Fault::GP0));
    }

    #[test]
    fn limits() {
        let mut c = testing::cpu(Level::Protected);
        c.segs[3] = Segment { selector: 0, attr: 0x4093, limit: 0xfff };
        c.set_reg(Reg::DS_BASE, 0xffff_f800);
        assert_eq!(linear(&mut c, Seg::Ds, 0xffc, 4, true), Ok(0x7fc));
        assert_eq!(linear(&mut c, Seg::Ds, 0xffd, 4, true), Err(Fault::GP0));
        assert_eq!(linear(&mut c, Seg::Ds, 0xffff_ffff, 4, true), Err(Fault::GP0));
        c.segs[3].attr = 0x4091;
        assert_eq!(linear(&mut c, Seg::Ds, 0, 4, true), Err(Fault::GP0), "read-only");
        c.segs[3].attr = 0x97; // expand-down, 16-bit
        assert_eq!(linear(&mut c, Seg::Ds, 0xfff, 1, false), Err(Fault::GP0));
        assert!(linear(&mut c, Seg::Ds, 0x1000, 1, false).is_ok());
        assert!(linear(&mut c, Seg::Ds, 0xffff, 1, false).is_ok());
        assert_eq!(linear(&mut c, Seg::Ds, 0xffff, 2, false), Err(Fault::GP0));
        c.segs[3].attr = 0x4097;
        assert!(linear(&mut c, Seg::Ds, 0xffff, 2, false).is_ok());
        c.segs[2].limit = 0xff;
        assert_eq!(linear(&mut c, Seg::Ss, 0x100, 1, false), Err(Fault::SS0));
        assert_eq!(linear(&mut c, Seg::Cs, 0, 1, true), Err(Fault::GP0), "code is never written");
        let mut c = testing::cpu(Level::Long);
        assert_eq!(linear(&mut c, Seg::Ss, 1 << 47, 8, false), Err(Fault::SS0));
        assert_eq!(linear(&mut c, Seg::Ds, 1 << 63, 8, false), Err(Fault::GP0));
    }

    #[test]
    fn real_mode_keeps_unreal_limits() {
        let mut c = testing::cpu(Level::Real);
        c.segs[3].limit = u32::MAX;
        load(&mut c, Seg::Ds, 0x1234).unwrap();
        assert_eq!(linear(&mut c, Seg::Ds, 0x10_0000, 4, true), Ok(0x11_2340));
        load(&mut c, Seg::Es, 0xffff).unwrap();
        assert_eq!(linear(&mut c, Seg::Es, 0xffff, 1, true), Ok(0x10_ffef));
        assert_eq!(linear(&mut c, Seg::Es, 0xffff, 2, true), Err(Fault::GP0));
    }

    #[test]
    fn task_and_ldt_registers() {
        let mut c = testing::cpu(Level::Long);
        testing::gdt(&mut c, 8, desc(0x1000, 0x67, 0x89));
        testing::gdt(&mut c, 9, 0xffff_fe00);
        assert_eq!(ltr(&mut c, 0x40), Ok(()));
        assert_eq!((c.sys.tr_base, c.sys.tr.attr), (0xffff_fe00_0000_1000, 0x8b));
        assert_eq!(ltr(&mut c, 0x40), Err(selector_fault(GP, 0x40)), "busy");
        assert_eq!(ltr(&mut c, 0), Err(Fault::GP0));
        assert_eq!(lldt(&mut c, 0), Ok(()));
        testing::gdt(&mut c, 8, desc(0x1000, 0x67, 0x02));
        assert_eq!(lldt(&mut c, 0x40), Err(selector_fault(NP, 0x40)));
        testing::gdt(&mut c, 8, desc(0x1000, 0x67, 0x82));
        assert_eq!(lldt(&mut c, 0x40), Ok(()));
        testing::gdt(&mut c, 9, 0x1f << 40);
        assert_eq!(lldt(&mut c, 0x40), Err(selector_fault(GP, 0x40)));
        c.cpl = 3;
        assert_eq!(lldt(&mut c, 0), Err(Fault::GP0));
        c = testing::cpu(Level::Real);
        assert_eq!(lldt(&mut c, 0), Err(Fault::UD));
    }

    #[test]
    fn questions_about_selectors() {
        let mut c = testing::cpu(Level::Protected);
        testing::gdt(&mut c, 8, desc(0, 0x1_2345, 0xf2));
        testing::gdt(&mut c, 9, desc(0, 0xf_ffff, 0xc098));
        testing::gdt(&mut c, 10, 0x0000_8e00_0008_0000); // an interrupt gate
        assert_eq!(lsl(&mut c, 0x43), Ok(Some(0x1_2345)));
        assert_eq!(lar(&mut c, 0x43), Ok(Some(0xf200)));
        assert_eq!(lar(&mut c, 0x48), Ok(Some(0xc0_9800)));
        assert_eq!(lsl(&mut c, 0x48), Ok(Some(0xffff_ffff)));
        assert_eq!((lar(&mut c, 0x50), lar(&mut c, 0)), (Ok(None), Ok(None)));
        assert_eq!(
            (verify(&mut c, 0x43, true), verify(&mut c, 0x48, false)),
            (Ok(true), Ok(false))
        );
        c.cpl = 3;
        assert_eq!(lar(&mut c, 0x48), Ok(None));
    }

    #[test]
    fn table_registers() {
        let mut c = testing::cpu(Level::Protected);
        c.mem.write_bytes(0x5000, &[0x34, 0x12, 1, 2, 3, 4]);
        assert_eq!(
            load_table(&mut c, 0x5000, W32),
            Ok(TableReg { base: 0x0403_0201, limit: 0x1234 })
        );
        assert_eq!(load_table(&mut c, 0x5000, W16).unwrap().base, 0x03_0201);
        store_table(&mut c, 0x6000, TableReg { base: 0x1122_3344, limit: 7 }).unwrap();
        assert_eq!(c.mem.read(0x6000, W64), 0x1122_3344_0007);
        c.sys.cr4 |= cr4::UMIP;
        c.cpl = 3;
        assert_eq!(store_table(&mut c, 0x6000, TableReg::default()), Err(Fault::GP0));
        assert_eq!(load_table(&mut c, 0x5000, W32), Err(Fault::GP0));
        let mut c = testing::cpu(Level::Long);
        c.mem.write(0x5002, W64, 1 << 47);
        assert_eq!(load_table(&mut c, 0x5000, W64), Err(Fault::GP0));
    }
}
