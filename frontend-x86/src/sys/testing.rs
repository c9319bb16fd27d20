//! Small CPUs for the unit tests: RAM, a GDT, an IDT and a TSS at known addresses.

use super::{cr0, cr4, debug, efer, interrupt, mode, paging, reset, segment};
use crate::model::CpuModel;
use emu_core::clock::Clock;
use emu_core::cpu::{Cpu, Frontend, Reg, Seg, TableReg};
use emu_core::fault::Fault;
use emu_core::mem::{
    GuestRam, PhysMem,
    phys::{Region, Writes},
};
use emu_core::platform::Platform;
use emu_core::vcpu::Vcpu;
use emu_core::width::Width::{W16, W32, W64};
use std::sync::Arc;

/// Physical and linear address of the GDT; sixteen slots.
pub const GDT: u64 = 0x1000;
/// Address of the IDT; 256 gates of the mode's size.
pub const IDT: u64 = 0x8000;
/// Address of the TSS; its selector is 0x68.
pub const TSS: u64 = 0x3000;
/// Top of the ring-0 stack that the TSS names.
pub const KERNEL_STACK: u64 = 0x2_0000;
/// Stack pointer of a fresh CPU.
pub const STACK: u64 = 0x3_0000;

/// Slots of the GDT, as selectors without RPL. 64-bit code is at +0x40 of none: see [`cpu`].
pub const CODE0: u16 = 0x08;
/// Ring-0 data.
pub const DATA0: u16 = 0x10;
/// Ring-3 code.
pub const CODE3: u16 = 0x18;
/// Ring-3 data.
pub const DATA3: u16 = 0x20;
/// Ring-3 code of the other size in long mode: 32-bit.
pub const COMPAT3: u16 = 0x28;

/// Modes to start in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// After RESET, with a stack.
    Real,
    /// 32-bit flat ring 0 without paging.
    Protected,
    /// 64-bit ring 0, the first GiB mapped one to one by 2-MByte user pages.
    Long,
}

/// A segment descriptor from base, raw 20-bit limit, and attributes (as in `Segment::attr`).
pub fn desc(base: u64, limit: u64, attr: u64) -> u64 {
    limit & 0xffff
        | (base & 0xff_ffff) << 16
        | (attr & 0xf0ff) << 40
        | (limit >> 16 & 15) << 48
        | (base >> 24 & 0xff) << 56
}

/// Writes slot `n` of the GDT.
pub fn gdt(c: &mut Cpu, n: u64, raw: u64) {
    c.mem.write(GDT + 8 * n, W64, raw);
}

/// Writes the gate of `vector`: `kind` is the attribute byte.
pub fn gate(c: &mut Cpu, vector: u64, selector: u16, offset: u64, kind: u64, ist: u64) {
    let low = offset & 0xffff
        | u64::from(selector) << 16
        | ist << 32
        | kind << 40
        | (offset & 0xffff_0000) << 32;
    if c.sys.efer & efer::LMA != 0 {
        c.mem.write(IDT + 16 * vector, W64, low);
        c.mem.write(IDT + 16 * vector + 8, W64, offset >> 32);
    } else {
        c.mem.write(IDT + 8 * vector, W64, low);
    }
}

/// A platform with an APIC base register and TPR, nothing else; its interrupt is always pending.
struct Board;

impl Platform for Board {
    fn mmio_read(&self, _pa: u64, _size: u8) -> u64 {
        u64::MAX
    }
    fn mmio_write(&self, _pa: u64, _size: u8, _value: u64) {}
    fn port_in(&self, port: u16, _size: u8) -> u32 {
        port.into()
    }
    fn port_out(&self, _port: u16, _size: u8, _value: u32) {}
    fn apic_msr_read(&self, msr: u32, _tsc: u64) -> Option<u64> {
        matches!(msr, 0x1b | 0x6e0).then_some(0xfee0_0900)
    }
    fn apic_msr_write(&self, msr: u32, _value: u64, _tsc: u64) -> Option<()> {
        (msr == 0x80b).then_some(())
    }
    fn tpr(&self) -> u8 {
        5
    }
    fn set_tpr(&self, _value: u8) {}
    fn interrupt_pending(&self) -> bool {
        true
    }
    fn acknowledge(&self) -> Option<u8> {
        None
    }
}

static FRONTEND: Frontend = Frontend {
    translate: paging::translate,
    lift: |_| Err(Fault::UD),
    deliver_fault: interrupt::deliver_fault,
    deliver_interrupt: interrupt::deliver_interrupt,
    linear: segment::linear,
    single_step: debug::trap,
    helpers: &[super::HELPERS],
};

/// A CPU in mode `level` with 16 MiB of RAM.
pub fn cpu(level: Level) -> Cpu {
    let ram = Arc::new(GuestRam::new(16 << 20).unwrap());
    let all = Region { base: 0, len: 16 << 20, offset: 0, writes: Writes::Ram };
    let mem = PhysMem::new(ram, vec![all], Arc::new(Board));
    let mut c = Cpu::new(mem, Clock::icount().into(), &FRONTEND);
    CpuModel::named("x86-64-v2").expect("it exists").apply(&mut c);
    reset::reset(&mut c);
    c.set_reg(Reg::RSP, STACK & 0xffff | 0x8000);
    if level == Level::Real {
        return c;
    }
    let long = level == Level::Long;
    let code = if long { 0xa09b } else { 0xc09b };
    let user = desc(0, 0xf_ffff, 0xc0fb);
    gdt(&mut c, 1, desc(0, 0xf_ffff, code));
    gdt(&mut c, 2, desc(0, 0xf_ffff, 0xc093));
    gdt(&mut c, 3, desc(0, 0xf_ffff, code | 0x60));
    gdt(&mut c, 4, desc(0, 0xf_ffff, 0xc0f3));
    gdt(&mut c, 5, user);
    gdt(&mut c, 13, desc(TSS, 0x100, 0x89));
    // No I/O permission map.
    c.mem.write(TSS + 102, W16, 0x101);
    c.sys.gdtr = TableReg { base: GDT, limit: 127 };
    c.sys.idtr = TableReg { base: IDT, limit: if long { 4095 } else { 2047 } };
    if long {
        c.mem.write(TSS + 4, W64, KERNEL_STACK);
        c.mem.write(0x10_0000, W64, 0x10_1007);
        c.mem.write(0x10_1000, W64, 0x10_2007);
        (0..512).for_each(|i| c.mem.write(0x10_2000 + 8 * i, W64, i << 21 | 0xe7));
        c.sys.cr3 = 0x10_0000;
        c.sys.cr4 = cr4::PAE | cr4::OSFXSR;
        c.sys.efer = efer::LME | efer::LMA;
    } else {
        c.mem.write(TSS + 4, W32, KERNEL_STACK);
        c.mem.write(TSS + 8, W16, DATA0.into());
    }
    c.sys.cr0 = cr0::PE | cr0::ET | if long { cr0::PG } else { 0 };
    c.tlb.flush_all(true);
    mode::update(&mut c);
    for s in Seg::ALL {
        let selector = if s == Seg::Cs { CODE0 } else { DATA0 };
        let d = segment::require(&mut c, selector, 13).unwrap();
        segment::set(&mut c, s, &d);
    }
    c.set_reg(Reg::RSP, STACK);
    c.set_rip(0x1234);
    mode::update(&mut c);
    segment::ltr(&mut c, 0x68).unwrap();
    c
}

/// A vCPU with the real frontend around `c`, with code at these linear (and physical) addresses.
pub fn vcpu(mut c: Cpu, code: &[(u64, &[u8])]) -> Vcpu {
    c.frontend = &crate::FRONTEND;
    code.iter().for_each(|(at, bytes)| c.mem.write_bytes(*at, bytes));
    Vcpu::new(c)
}

/// Puts `c` into ring 3 with the segments of its GDT and the stack pointer `sp`.
pub fn to_user(c: &mut Cpu, code: u16, sp: u64) {
    c.cpl = 3;
    for s in Seg::ALL {
        let selector = if s == Seg::Cs { code } else { DATA3 };
        let d = segment::require(c, selector | 3, 13).unwrap();
        segment::set(c, s, &d);
    }
    c.set_reg(Reg::RSP, sp);
    mode::update(c);
}
