//! A small machine for random code: RAM, descriptors, page tables, and handlers for all exceptions.

use emu_core::clock::Clock;
use emu_core::cpu::{Cpu, Seg, Segment, TableReg};
use emu_core::mem::PhysMem;
use emu_core::width::Width::{W32, W64};
use frontend_x86::{FRONTEND, sys};
use std::sync::Arc;

/// Bytes of RAM.
pub const RAM: u64 = 1 << 20;
/// Page tables: identity, one 2 MiB page, for users too.
const TABLES: u64 = 0x8_0000;
const GDT: u64 = 0x9_0000;
const IDT: u64 = 0x9_1000;
const TSS: u64 = 0x9_3000;
/// Where the code under test is.
pub const CODE: u64 = 0x1_0ff0;
/// Where exceptions go: the same bytes again.
pub const HANDLER: u64 = 0x2_0000;
/// Top of the stacks.
pub const STACK: u64 = 0x7_0000;

/// A machine of one of six kinds: real mode, 32 or 64 bits, the last two with an IDT, as kernel or
/// as user.
pub fn machine(kind: u8) -> Cpu {
    let mem = PhysMem::flat(RAM).unwrap();
    let mut cpu = Cpu::new(mem, Arc::new(Clock::icount()), &FRONTEND);
    sys::reset::reset(&mut cpu);
    cpu.set_reg(Seg::Cs.base(), 0);
    cpu.segs[Seg::Cs as usize].selector = 0;
    let (bits, user) = (kind % 3, kind / 3 & 1 != 0);
    if bits == 0 {
        for vector in 0..256 {
            cpu.mem.write(4 * vector, W32, (HANDLER >> 4) << 16);
        }
        cpu.set_reg(Seg::Cs.base(), CODE & !0xffff);
        cpu.segs[Seg::Cs as usize].selector = (CODE >> 4) as u16 & 0xf000;
        cpu.set_rip(CODE & 0xffff);
        sys::mode::update(&mut cpu);
        return cpu;
    }
    let long = bits == 2;
    // Kernel code and data, user data and code, TSS.
    let code: u64 = if long { 0x00af_9b00_0000_ffff } else { 0x00cf_9b00_0000_ffff };
    let data: u64 = 0x00cf_9300_0000_ffff;
    let tss = 0x0000_8b00_0000_2fff | TSS << 16;
    let user_ring: u64 = 3 << 45;
    let gdt = [0, code, data, data | user_ring, code | user_ring, tss, 0];
    for (n, d) in gdt.iter().enumerate() {
        cpu.mem.write(GDT + 8 * n as u64, W64, *d);
    }
    let gate = (HANDLER & 0xffff) | 8 << 16 | 0xee00 << 32 | (HANDLER >> 16) << 48;
    for vector in 0..256 {
        if long {
            cpu.mem.write(IDT + 16 * vector, W64, gate);
        } else {
            cpu.mem.write(IDT + 8 * vector, W64, gate);
        }
    }
    // Stacks of the inner rings: ESP0 and SS0, or RSP0.
    cpu.mem.write(TSS + 4, W64, if long { STACK } else { STACK | 0x10 << 32 });
    for (n, entry) in [TABLES + 0x1000, TABLES + 0x2000, 0x80].iter().enumerate() {
        cpu.mem.write(TABLES + 0x1000 * n as u64, W64, entry | 7);
    }
    let ring = if user { 3 } else { 0 };
    let (cs, ss) = if user { (0x23, 0x1b) } else { (0x08, 0x10) };
    let attr = if long { 0xa09b } else { 0xc09b };
    let seg = |selector, attr: u16| Segment { selector, attr: attr | ring << 5, limit: u32::MAX };
    cpu.segs = [seg(ss, 0xc093); 6];
    cpu.segs[Seg::Cs as usize] = seg(cs, attr);
    cpu.cpl = ring as u8;
    cpu.sys.cr0 = sys::cr0::PE | sys::cr0::ET | sys::cr0::NE | sys::cr0::WP;
    cpu.sys.cr4 = sys::cr4::OSFXSR | sys::cr4::OSXMMEXCPT | sys::cr4::PAE;
    if long {
        cpu.sys.cr0 |= sys::cr0::PG;
        cpu.sys.efer = sys::efer::LME | sys::efer::LMA | sys::efer::SCE;
        cpu.sys.cr3 = TABLES;
    }
    cpu.sys.gdtr = TableReg { base: GDT, limit: 8 * gdt.len() as u16 - 1 };
    cpu.sys.idtr = TableReg { base: IDT, limit: 0xfff };
    cpu.sys.tr = Segment { selector: 0x28, attr: 0x8b, limit: 0x2fff };
    cpu.sys.tr_base = TSS;
    cpu.set_rip(CODE);
    sys::mode::update(&mut cpu);
    cpu
}
