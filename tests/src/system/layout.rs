//! Where everything of a system test lies: physical addresses, which are also linear ones.
//!
//! The image is a ROM of 64 KiB; a copy of it at [`IMAGE`] is made afresh for every row, so rows
//! may write to tables and code. Offsets in the image are below 64 KiB, everything else is plain.

// --- offsets in the image ---

/// Entry point of the image and its handlers.
pub const BOOT: u32 = 0;
/// GDT, 32 slots; those from [`FREE`] on are the rows' own.
pub const GDT: u32 = 0x1000;
/// 32-bit TSS with an I/O permission map for ports 0 to 3FFH, all denied.
pub const TSS32: u32 = 0x1100;
/// Offset of the map in it.
pub const IO_MAP: u32 = 0x68;
/// 64-bit TSS, without a map.
pub const TSS64: u32 = 0x1200;
/// Operands of LGDT and LIDT, ten bytes each.
pub const GDTR: u32 = 0x1280;
/// For the 32-bit IDT.
pub const IDTR32: u32 = 0x1290;
/// For the 64-bit IDT.
pub const IDTR64: u32 = 0x12a0;
/// The real-mode vectors, to be copied to address 0.
pub const IVT: u32 = 0x1300;
/// Interrupt gates of [`VECTORS`] vectors, in 32-bit and 64-bit form.
pub const IDT32: u32 = 0x1400;
/// See [`IDT32`].
pub const IDT64: u32 = 0x1600;
/// LDT of 8 empty slots.
pub const LDT: u32 = 0x1900;
/// The four PDPTEs of PAE paging.
pub const PAE_PDPT: u32 = 0x1a00;
/// Tables of 4-level paging; PAE paging shares the two lower ones. Linear 0 to 2 MiB are pages of
/// 4 KiB, and the same memory is seen from FFFF800000000000H on.
pub const PML4: u32 = 0x2000;
/// Its page-directory-pointer table.
pub const PDPT: u32 = 0x3000;
/// Its page directory. Linear 2 to 4 MiB are one page.
pub const PD: u32 = 0x4000;
/// Its page table.
pub const PT: u32 = 0x5000;
/// Page directory of 32-bit paging: 4 MiB by a table, 4 MiB by one page.
pub const PD32: u32 = 0x6000;
/// Its page table.
pub const PT32: u32 = 0x7000;
/// Above [`PML4`], for 5-level paging: its first two entries lead there.
pub const PML5: u32 = 0x8000;
/// Table of rows: offset of the name, offset of the code.
pub const ROWS: u32 = 0x9000;
/// Names and code.
pub const CODE: u32 = 0x9200;
/// The reset vector.
pub const RESET: u32 = 0xfff0;

// --- memory ---

/// [`MAGIC`] and the row's number survive the resets.
pub const MAGIC: u32 = 0x500;
/// Number of the running row.
pub const ROW: u32 = 0x504;
/// 1 when the row has ended by itself.
pub const ENDED: u32 = 0x508;
/// Where to go on after an exception, 0 for the end of the row.
pub const RECOVER: u32 = 0x510;
/// CS there.
pub const CTX_CS: u32 = 0x518;
/// Stack pointer there.
pub const CTX_SP: u32 = 0x520;
/// SS there.
pub const CTX_SS: u32 = 0x528;
/// EFLAGS there.
pub const CTX_FLAGS: u32 = 0x530;
/// Address of the slot that an exception goes to.
pub const SLOT: u32 = 0x538;
/// Of the last exception: the instruction pointer that it pushed, relative to nothing.
pub const AT_IP: u32 = 0x540;
/// The CS that it pushed.
pub const AT_CS: u32 = 0x548;
/// The flags that it pushed.
pub const AT_FLAGS: u32 = 0x550;
/// The stack pointer that it pushed (32-bit: only from another ring).
pub const AT_SP: u32 = 0x558;
/// Where it pushed the instruction pointer.
pub const AT_HANDLER_SP: u32 = 0x560;
/// Observations, [`SLOT_SIZE`] bytes each: tag, value, CR2.
pub const LOG: u32 = 0x800;
/// Size of an observation.
pub const SLOT_SIZE: u32 = 24;
/// The slot of the exception that ends a row.
pub const LAST_SLOT: u32 = 80;
/// Behind the last slot.
pub const LOG_END: u32 = LOG + (LAST_SLOT + 1) * SLOT_SIZE;
/// Tag: a value.
pub const TAG_VALUE: u32 = 1;
/// Tag: an exception: vector in bits 7:0, bit 8 if it has an error code, which is bits 63:32.
pub const TAG_EXCEPTION: u32 = 2;
/// Tag: no exception.
pub const TAG_OK: u32 = 3;
/// Top of the stack of code at CPL 3.
pub const USER_STACK: u32 = 0x6000;
/// Top of the stack that a row begins with.
pub const STACK: u32 = 0x7000;
/// Top of the stack that the TSSs name for CPL 0.
pub const KERNEL_STACK: u32 = 0x7800;
/// Top of the stack that the 64-bit TSS names as IST1.
pub const IST1: u32 = 0x7c00;
/// Where the image is copied to.
pub const IMAGE: u32 = 0x1_0000;
/// 128 KiB of zeros for the rows.
pub const SCRATCH: u32 = 0x2_0000;
/// A page of it that rows map as they like.
pub const PAGE: u32 = 0x3_0000;

// --- selectors ---

/// 32-bit code, CPL 0.
pub const CODE32: u32 = 0x08;
/// 64-bit code, CPL 0.
pub const CODE64: u32 = 0x10;
/// Data, CPL 0: what SS holds there.
pub const DATA0: u32 = 0x18;
/// 32-bit code, CPL 3.
pub const CODE32_3: u32 = 0x20 | 3;
/// Data, CPL 3: what DS, ES, FS and GS hold from the start in 32-bit code.
pub const DATA3: u32 = 0x28 | 3;
/// 64-bit code, CPL 3.
pub const CODE64_3: u32 = 0x30 | 3;
/// 16-bit code, CPL 0, which begins at the image.
pub const CODE16: u32 = 0x38;
/// 16-bit data, CPL 0, base 0.
pub const DATA16: u32 = 0x40;
/// The 32-bit TSS.
pub const TSS32_SELECTOR: u32 = 0x48;
/// The 64-bit TSS.
pub const TSS64_SELECTOR: u32 = 0x50;
/// The LDT, which nothing loads.
pub const LDT_SELECTOR: u32 = 0x60;
/// The first of 16 free slots.
pub const FREE: u32 = 0x80;

// --- interrupts and ports ---

/// Vectors that have a gate.
pub const VECTORS: u32 = 0x30;
/// `INT` of this ends a row. It may be called from CPL 3, as may vectors 3, 4 and 21H.
pub const END_VECTOR: u32 = 0x20;
/// Debug console.
pub const CONSOLE: u32 = 0xe9;
/// `isa-debug-exit`.
pub const EXIT: u32 = 0xf4;
/// Written to [`EXIT`] after the last row.
pub const EXIT_SUCCESS: u32 = 0x10;

/// A segment descriptor: 20-bit `limit` in its own unit; `attributes` are bits 8 to 15 (type, S,
/// DPL, P) and 20 to 23 (AVL, L, D/B, G) of the upper half, as an access byte and a nibble: C09BH.
#[must_use]
pub const fn segment(base: u64, limit: u64, attributes: u64) -> u64 {
    limit & 0xffff
        | (base & 0xff_ffff) << 16
        | (attributes & 0xf0ff) << 40
        | (limit >> 16 & 15) << 48
        | (base >> 24 & 0xff) << 56
}

/// A gate (the low half of one in 64-bit mode): `kind` is its access byte, `count` its parameter
/// count or IST.
#[must_use]
pub const fn gate(selector: u32, offset: u32, kind: u64, count: u64) -> u64 {
    let (selector, offset) = (selector as u64, offset as u64);
    offset & 0xffff | selector << 16 | count << 32 | kind << 40 | (offset & 0xffff_0000) << 32
}
