//! What the loader leaves in low memory for the kernel's first instructions: a GDT, page tables,
//! the command line, and the structure of the boot protocol. Both protocols share one layout, so
//! that a kernel segment can be checked against it.
//!
//! Descriptors: SDM Vol. 3, section 3.4.5; page tables: section 4.5.

use super::Cause;
use emu_core::cpu::{Segment, TableReg};
use emu_core::mem::PhysMem;

/// Four descriptors.
const GDT: u64 = 0x1000;
/// `boot_params` of the Linux protocol, one page.
pub const BOOT_PARAMS: u64 = 0x2000;
/// `hvm_start_info` of the PVH protocol, one page with its lists.
pub const START_INFO: u64 = 0x3000;
/// Level-4 table, level-3 table and four page directories, a page each.
const PML4: u64 = 0x4000;
const PDPT: u64 = 0x5000;
const PD: u64 = 0x6000;
/// Top of 24 KiB of stack. Kernels set their own, but the first pushes must not hurt.
pub const STACK_TOP: u64 = 0x1_0000;
/// The command line with its NUL.
pub const CMDLINE: u64 = 0x2_0000;
/// Longest command line, without its NUL.
const CMDLINE_MAX: u64 = 0xffff;
/// Nothing of a kernel may lie below.
pub const END: u64 = 0x3_0000;

/// Selectors as both boot protocols want them (`__BOOT_CS`, `__BOOT_DS`).
const CS: u16 = 0x10;
const DS: u16 = 0x18;
const CODE64: u64 = 0x00af_9b00_0000_ffff;
const CODE32: u64 = 0x00cf_9b00_0000_ffff;
const DATA: u64 = 0x00cf_9300_0000_ffff;

/// Writes the GDT; gives GDTR, CS and the data segment.
pub fn write_gdt(mem: &PhysMem, long: bool) -> (TableReg, Segment, Segment) {
    let gdt = [0, 0, if long { CODE64 } else { CODE32 }, DATA];
    write_words(mem, GDT, &gdt);
    let flat = |selector, descriptor: u64| Segment {
        selector,
        attr: (descriptor >> 40) as u16 & 0xf0ff,
        limit: u32::MAX,
    };
    (TableReg { base: GDT, limit: 31 }, flat(CS, gdt[2]), flat(DS, DATA))
}

/// Writes page tables that map the first 4 GiB to themselves in pages of 2 MiB; gives CR3.
pub fn write_page_tables(mem: &PhysMem) -> u64 {
    const PRESENT_RW: u64 = 3;
    const PS: u64 = 0x80;
    let mut pml4 = [0; 512];
    pml4[0] = PDPT | PRESENT_RW;
    let mut pdpt = [0; 512];
    for (i, e) in (0..4).zip(&mut pdpt) {
        *e = (PD + i * 4096) | PRESENT_RW;
    }
    let pds: Vec<u64> = (0..4 * 512).map(|i| i << 21 | PS | PRESENT_RW).collect();
    write_words(mem, PML4, &pml4);
    write_words(mem, PDPT, &pdpt);
    write_words(mem, PD, &pds);
    PML4
}

/// Writes what kernels look for in the BIOS data area: serial ports, the segment of the extended
/// area, KiB of conventional memory.
pub fn write_bios_data(mem: &PhysMem) {
    const SERIAL: u64 = 0x400;
    const EBDA_SEGMENT: u64 = 0x40e;
    const MEMORY: u64 = 0x413;
    let ebda = super::e820::EBDA;
    for (at, value) in
        [(SERIAL, 0x3f8), (SERIAL + 2, 0x2f8), (EBDA_SEGMENT, ebda >> 4), (MEMORY, ebda >> 10)]
    {
        mem.write_bytes(at, &(value as u16).to_le_bytes());
    }
    // The extended area's first byte is its length in KiB.
    mem.write_bytes(ebda, &[1]);
}

/// Checks that a kernel that takes at most `max` characters can have this command line.
pub fn check_cmdline(cmdline: &str, max: u64) -> Result<(), Cause> {
    let (len, max) = (cmdline.len(), max.min(CMDLINE_MAX));
    if len as u64 > max { Err(Cause::CommandLine { len, max }) } else { Ok(()) }
}

/// Writes a checked command line and its NUL.
pub fn write_cmdline(mem: &PhysMem, cmdline: &str) {
    mem.write_bytes(CMDLINE, cmdline.as_bytes());
    mem.write_bytes(CMDLINE + cmdline.len() as u64, &[0]);
}

fn write_words(mem: &PhysMem, at: u64, words: &[u64]) {
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    mem.write_bytes(at, &bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use emu_core::width::Width::W64;

    #[test]
    fn page_tables_map_four_gib_to_itself() {
        let mem = PhysMem::flat(1 << 20).unwrap();
        let cr3 = write_page_tables(&mem);
        for va in [0, 0x10_0000, 0x3fff_ffff, 0x4000_0000, 0xfee0_0123, 0xffff_ffff_u64] {
            let mut table = cr3;
            for shift in [39, 30] {
                let e = mem.read(table + (va >> shift & 511) * 8, W64);
                assert_eq!(e & 0x83, 3, "{va:#x}");
                table = e & !4095;
            }
            let e = mem.read(table + (va >> 21 & 511) * 8, W64);
            assert_eq!(e & 0x83, 0x83);
            assert_eq!((e & !0x1f_ffff) + (va & 0x1f_ffff), va);
        }
        assert_eq!(mem.read(cr3 + 8, W64), 0);
    }

    #[test]
    fn segments_are_flat() {
        let mem = PhysMem::flat(1 << 20).unwrap();
        let (gdtr, cs, ds) = write_gdt(&mem, true);
        assert!(cs.is_code() && cs.long() && !cs.big() && cs.present() && cs.dpl() == 0);
        assert!(ds.writable() && ds.present() && ds.big());
        assert_eq!(mem.read(gdtr.base + u64::from(ds.selector), W64), DATA);
        let (_, cs, _) = write_gdt(&mem, false);
        assert!(cs.is_code() && !cs.long() && cs.big() && cs.readable());
    }
}
