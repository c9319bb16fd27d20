//! The descriptor tables, as bytes of the ROM image.
//!
//! A kernel fills its IDT at run time, because a linker cannot split a handler's address into the
//! pieces that a gate wants. This assembler can, so the tables are data. They are used in the RAM
//! copy of the image: the CPU writes to them (accessed bits, the busy bit of a TSS).
//!
//! Formats: SDM vol. 3A, 3.4.5 (segment descriptors), 6.11 and 6.14.1 (gates), 8.2 and 8.7 (TSS).

use super::assembler::Symbols;
use crate::layout::*;

/// Vectors that have a gate: the 32 exceptions, 16 for the PICs, and INT 0x30.
pub const VECTORS: u32 = 0x31;
/// The software interrupt by which 32-bit code at CPL 3 comes back.
pub const BACK_TO_KERNEL: u32 = 0x30;

/// Exceptions that push an error code (SDM vol. 3A, table 6-1, and #CP, #VC, #SX behind it).
pub const HAS_ERROR_CODE: [u32; 10] = [8, 10, 11, 12, 13, 14, 17, 21, 29, 30];

/// Every table: its offset in the ROM, the offset it must not reach, its bytes.
pub fn all(symbols: &Symbols) -> Vec<(u32, u32, Vec<u8>)> {
    let high = |offset: u32| KERNEL_BASE + u64::from(IMAGE + offset);
    let low = |offset: u32| u64::from(IMAGE + offset);
    let mut tss32 = vec![0; 104];
    tss32[4..8].copy_from_slice(&KERNEL_STACK.to_le_bytes()); // ESP0
    tss32[8..10].copy_from_slice(&KERNEL_DATA.to_le_bytes()); // SS0
    tss32[102] = 104; // I/O map base: behind the limit, so that CPL 3 has no port
    let mut tss64 = vec![0; 104]; // RSP0 is set with every task switch
    tss64[102] = 104;
    let mut reset = vec![0xEA]; // JMP ptr16:16
    reset.extend((REAL as u16).to_le_bytes());
    reset.extend(0xF000u16.to_le_bytes());
    vec![
        (GDT, TSS32, gdt()),
        (TSS32, TSS64, tss32),
        (TSS64, GDTR32, tss64),
        (GDTR32, GDTR64, pseudo_descriptor(u32::from(GDT_SIZE), low(GDT))),
        (GDTR64, IDTR32, pseudo_descriptor(u32::from(GDT_SIZE), high(GDT))),
        (IDTR32, IDTR64, pseudo_descriptor(VECTORS * 8, low(IDT32))),
        (IDTR64, IDT32, pseudo_descriptor(VECTORS * 16, high(IDT64))),
        (IDT32, IDT64, idt(symbols, "prot")),
        (IDT64, RESET, idt(symbols, "long")),
        (RESET, 0x1_0000, reset),
        (0xFFFE, 0x1_0000, vec![0xFC]), // the PC's model byte: an AT
    ]
}

/// What LGDT and LIDT load; in protected mode only the low half of the base.
fn pseudo_descriptor(size: u32, base: u64) -> Vec<u8> {
    let mut bytes = (size as u16 - 1).to_le_bytes().to_vec();
    bytes.extend(base.to_le_bytes());
    bytes
}

/// A segment descriptor. `access` is byte 5 (P, DPL, S, type); `flags` are G, D/B, L and AVL.
fn segment(base: u32, limit: u32, access: u8, flags: u8) -> u64 {
    let (base, limit) = (u64::from(base), u64::from(limit));
    (limit & 0xFFFF)
        | (base & 0xFF_FFFF) << 16
        | u64::from(access) << 40
        | (limit >> 16 & 0xF) << 48
        | u64::from(flags) << 52
        | (base >> 24) << 56
}

fn gdt() -> Vec<u8> {
    let tss64 = KERNEL_BASE + u64::from(IMAGE + TSS64);
    let entries = [
        0,
        segment(0, 0xF_FFFF, 0x9A, 0xC), // KERNEL_CODE32: execute/read, 4 GiB
        segment(0, 0xF_FFFF, 0x9A, 0xA), // KERNEL_CODE64: the same with L = 1, D = 0
        segment(0, 0xF_FFFF, 0x92, 0xC), // KERNEL_DATA: read/write
        segment(0, 0xF_FFFF, 0xFA, 0xC), // USER_CODE32: DPL 3
        segment(0, 0xF_FFFF, 0xF2, 0xC), // USER_DATA
        segment(0, 0xF_FFFF, 0xFA, 0xA), // USER_CODE64
        segment(IMAGE + TSS32, 103, 0x89, 0), // an available 32-bit TSS
        segment(tss64 as u32, 103, 0x89, 0), // an available 64-bit TSS …
        tss64 >> 32,                     // … with the upper half of its base
    ];
    entries.iter().flat_map(|entry| entry.to_le_bytes()).collect()
}

/// The IDT of `stage`: interrupt gates (IF is cleared on entry) to its `vector…` stubs.
fn idt(symbols: &Symbols, stage: &'static str) -> Vec<u8> {
    let mut table = Vec::new();
    for vector in 0..VECTORS {
        let handler = symbols.get(&(stage, format!("vector{vector}"))).copied().unwrap_or(0);
        let dpl = if vector == BACK_TO_KERNEL { 3 } else { 0 };
        let selector = if stage == "long" { KERNEL_CODE64 } else { KERNEL_CODE32 };
        table.extend((handler as u16).to_le_bytes());
        table.extend(selector.to_le_bytes());
        table.extend([0, 0x8E | dpl << 5]);
        table.extend(((handler >> 16) as u16).to_le_bytes());
        if stage == "long" {
            table.extend((handler >> 32).to_le_bytes());
        }
    }
    table
}
