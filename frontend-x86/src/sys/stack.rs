//! A stack as far transfers and event delivery see it: possibly not the current one, written
//! before SS:RSP are assigned.
//!
//! [`Stack`] is a copy of SS and RSP. Reads name slots above its `sp`; [`Stack::push`] checks all
//! slots against limit and paging before it writes the first. Nothing in the CPU changes until
//! [`Stack::commit`].
//!
//! Source: SDM Vol. 3, 5.8.5 "Stack switching", 6.12.1, 6.14.4, 7.2 (TSS).

use super::segment::{self, Descriptor, in_limit, rpl, selector_fault};
use super::{mode, read_table, with_privilege};
use emu_core::cpu::{Cpu, Reg, Seg, Segment, mode as m};
use emu_core::fault::{Fault, Guest, vector};
use emu_core::mem::tlb::{Access, Privilege};
use emu_core::width::Width::{self, W16, W32, W64};

/// Most slots that [`Stack::push`] takes: 31 parameters of a call gate and four registers.
const SLOTS: usize = 36;

/// A stack; see the module's head.
#[derive(Clone, Copy, Debug)]
pub struct Stack {
    /// SS with its selector.
    pub seg: Segment,
    base: u64,
    /// Stack pointer.
    pub sp: u64,
    /// Width of the stack pointer; 64 bits means no segmentation.
    width: Width,
    privilege: Privilege,
    /// Error code of a limit violation: 0 for the current stack, else the new selector.
    error: u32,
}

impl Stack {
    /// The current stack.
    pub fn current(cpu: &Cpu) -> Stack {
        Stack {
            seg: cpu.segs[Seg::Ss as usize],
            base: cpu.base(Seg::Ss),
            sp: cpu.reg(Reg::RSP),
            width: match cpu.mode {
                m if m & m::CODE64 != 0 => W64,
                m if m & m::STACK32 != 0 => W32,
                _ => W16,
            },
            privilege: cpu.tlb.privilege(),
            error: 0,
        }
    }

    /// The stack that segment `ss` and `sp` make at privilege level `cpl`.
    pub fn new(cpu: &Cpu, ss: &Descriptor, sp: u64, cpl: u8) -> Stack {
        Stack {
            seg: ss.seg,
            base: ss.base,
            sp,
            width: if ss.seg.big() { W32 } else { W16 },
            privilege: mode::privilege(cpu, cpl),
            error: u32::from(ss.seg.selector & 0xfffc),
        }
    }

    /// A 64-bit stack at `sp` for privilege level `cpl`; `seg` is what SS will be.
    pub fn long(cpu: &Cpu, seg: Segment, sp: u64, cpl: u8) -> Stack {
        let privilege = mode::privilege(cpu, cpl);
        Stack { seg, base: 0, sp, width: W64, privilege, error: 0 }
    }

    /// The stack for privilege level `cpl` out of a 16- or 32-bit TSS (SDM Vol. 3, 5.8.5).
    ///
    /// # Errors
    /// #TS with the TSS's selector when it is too short, or with that of the new stack segment;
    /// #SS when that is not present; #PF.
    pub fn inner(cpu: &mut Cpu, cpl: u8) -> Guest<Stack> {
        let wide = cpu.sys.tr.attr & 8 != 0;
        let (at, w) = if wide { (cpl * 8 + 4, W32) } else { (cpl * 4 + 2, W16) };
        let sp = tss_field(cpu, u64::from(at), w)?;
        let ss = tss_field(cpu, u64::from(at) + w.bytes(), W16)? as u16;
        let mut d = segment::stack_descriptor(cpu, ss, cpl, vector::TS)?;
        segment::mark_accessed(cpu, &mut d)?;
        Ok(Stack::new(cpu, &d, sp, cpl))
    }

    /// The stack whose pointer is at `offset` of a 64-bit TSS, for privilege level `cpl`.
    ///
    /// # Errors
    /// #TS when the TSS is too short, #SS(0) for a non-canonical pointer, #PF.
    #[inline(always)]
    pub fn inner_long(cpu: &mut Cpu, offset: u64, seg: Segment, cpl: u8) -> Guest<Stack> {
        let sp = tss_field(cpu, offset, W64)?;
        if !cpu.canonical(sp) {
            return Err(Fault::SS0);
        }
        Ok(Stack::long(cpu, seg, sp, cpl))
    }

    /// Linear address of `size` bytes at `offset`, which is cut to the stack's width.
    fn linear(&self, cpu: &Cpu, offset: u64, size: u64, write: bool) -> Guest<u64> {
        let offset = self.width.zext(offset);
        let fault = Err(Fault::with_error(vector::SS, self.error));
        if self.width == W64 {
            let end = offset.wrapping_add(size - 1);
            let inside = cpu.canonical(offset) && cpu.canonical(end);
            return if inside { Ok(offset) } else { fault };
        }
        let usable = self.seg.present() && (self.seg.writable() || !write);
        if !usable || !in_limit(&self.seg, offset, size) {
            return fault;
        }
        Ok(self.base.wrapping_add(offset) & 0xffff_ffff)
    }

    /// Reads the `w` at `bytes` above the stack pointer.
    ///
    /// # Errors
    /// #SS, #PF.
    #[inline]
    pub fn read(&self, cpu: &mut Cpu, bytes: u64, w: Width) -> Guest<u64> {
        if self.width == W64
            && let va = self.sp.wrapping_add(bytes)
            && let Some(off) = cpu.tlb.read_as(self.privilege, va, w.bytes())
        {
            return Ok(cpu.mem.ram.read(off, w));
        }
        self.read_slow(cpu, bytes, w)
    }

    #[cold]
    #[inline(never)]
    fn read_slow(&self, cpu: &mut Cpu, bytes: u64, w: Width) -> Guest<u64> {
        let va = self.linear(cpu, self.sp.wrapping_add(bytes), w.bytes(), false)?;
        with_privilege(cpu, self.privilege, |cpu| cpu.read(va, w))
    }

    /// Moves the stack pointer by `bytes`, within its width.
    pub fn skip(&mut self, bytes: u64) {
        self.sp = self.merged(self.sp.wrapping_add(bytes));
    }

    fn merged(&self, sp: u64) -> u64 {
        self.width.merge(self.sp, sp)
    }

    /// Pushes `values` in this order, at most 36; all or nothing.
    ///
    /// # Errors
    /// #SS, #PF.
    #[inline]
    pub fn push(&mut self, cpu: &mut Cpu, w: Width, values: &[u64]) -> Guest<()> {
        let size = 8 * values.len() as u64;
        let low = self.sp.wrapping_sub(size);
        if (self.width, w) == (W64, W64)
            && let Some(off) = cpu.tlb.write_as(self.privilege, low, size)
        {
            let slots = (off..).step_by(8).zip(values.iter().rev());
            slots.for_each(|(at, &v)| cpu.mem.ram.write(at, W64, v));
            self.sp = low;
            return Ok(());
        }
        self.push_slow(cpu, w, values)
    }

    #[cold]
    #[inline(never)]
    fn push_slow(&mut self, cpu: &mut Cpu, w: Width, values: &[u64]) -> Guest<()> {
        let n = w.bytes();
        let mut at = [0; SLOTS];
        let mut sp = self.sp;
        for (slot, _) in at.iter_mut().zip(values) {
            sp = self.merged(sp.wrapping_sub(n));
            *slot = self.linear(cpu, sp, n, true)?;
        }
        with_privilege(cpu, self.privilege, |cpu| {
            for (&va, _) in at.iter().zip(values) {
                if cpu.tlb.write(va, n).is_none() {
                    cpu.probe(va, n, Access::Write)?;
                }
            }
            at.iter().zip(values).try_for_each(|(&va, &v)| cpu.write(va, w, v))
        })?;
        self.sp = sp;
        Ok(())
    }

    /// Makes this the current stack; [`mode::update`] is the caller's.
    pub fn commit(&self, cpu: &mut Cpu) {
        cpu.segs[Seg::Ss as usize] = self.seg;
        cpu.set_reg(Reg::SS_BASE, self.base);
        cpu.set_reg(Reg::RSP, self.sp);
    }
}

/// A field of the current TSS.
///
/// # Errors
/// #TS with the TSS's selector beyond its limit; #PF.
#[inline]
pub fn tss_field(cpu: &mut Cpu, offset: u64, w: Width) -> Guest<u64> {
    if offset + w.bytes() - 1 > u64::from(cpu.sys.tr.limit) || !cpu.sys.tr.present() {
        return Err(selector_fault(vector::TS, cpu.sys.tr.selector));
    }
    read_table(cpu, cpu.sys.tr_base.wrapping_add(offset), w)
}

/// The SS:RSP that RET or IRET at `bytes` above the stack pointer of `old` leads to, for a code
/// segment with RPL `cpl`; `long`: it is a 64-bit one (SDM Vol. 2, IRET and RET,
/// "RETURN-TO-OUTER-PRIVILEGE-LEVEL").
///
/// # Errors
/// #GP or #SS with the selector, #GP(0) for a null one, #PF.
#[inline(always)]
pub fn returned(
    cpu: &mut Cpu,
    old: &Stack,
    bytes: u64,
    w: Width,
    cpl: u8,
    long: bool,
) -> Guest<Stack> {
    let sp = old.read(cpu, bytes, w)?;
    let ss = old.read(cpu, bytes.wrapping_add(w.bytes()), W16)? as u16;
    if segment::is_null(ss) {
        if !long || cpl == 3 || rpl(ss) != cpl {
            return Err(Fault::GP0);
        }
        return Ok(Stack::long(cpu, Segment { selector: ss, attr: 0, limit: 0 }, sp, cpl));
    }
    let mut d = segment::stack_descriptor(cpu, ss, cpl, vector::GP)?;
    segment::mark_accessed(cpu, &mut d)?;
    let mut s = Stack::new(cpu, &d, sp, cpl);
    if long {
        s.width = W64;
    } else if s.width == W16 {
        // A 16-bit stack segment leaves the upper half of ESP as it is.
        s.sp = W16.merge(old.sp, sp);
    }
    Ok(s)
}
