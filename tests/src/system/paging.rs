//! Paging (SDM Vol. 3, chapter 4): what a walk allows, what it reports, what it writes, and what
//! the TLB may keep.

use super::asm::{Asm, Emit};
use super::layout::*;
use super::rows;
use iced_x86::code_asm::*;

const XD: u64 = 1 << 63;
const MAPPED: u64 = PAGE as u64;
const WP: u32 = 1 << 16;
const PGE: u32 = 1 << 7;
const EFER: u32 = 0xc000_0080;
/// LME and NXE.
const NX: u64 = 0x900;
const SMEP: u32 = 1 << 20;
const SMAP: u32 = 1 << 21;

/// Reads and writes [`PAGE`], guarded.
fn read_write(s: &mut Asm) -> Emit {
    let (from, to) = (s.dword(PAGE), s.dword(PAGE + 4));
    s.guard()?;
    s.mov(eax, from)?;
    s.caught()?;
    s.guard()?;
    s.mov(to, eax)?;
    s.caught()
}

/// Calls [`PAGE`], where there is a RET, guarded.
fn fetch(s: &mut Asm) -> Emit {
    s.guard()?;
    s.mov(eax, PAGE)?;
    if s.bitness() == 64 {
        s.call(rax)?
    } else {
        s.call(eax)?
    };
    s.caught()
}

fn put_ret(s: &mut Asm) -> Emit {
    let at = s.byte(PAGE);
    s.mov(at, 0xc3)
}

/// A page that is not present, then read-only, in any paging mode; CR0.WP = 0, then 1.
fn protection(s: &mut Asm) -> Emit {
    s.pte(PAGE, 0)?;
    read_write(s)?;
    s.pte(PAGE, MAPPED | 1)?;
    read_write(s)?;
    s.pte(PAGE + 0x1000, MAPPED | 1)?;
    s.set_cr0(WP)?;
    let to = s.dword(PAGE + 0x1000);
    s.guard()?;
    s.mov(to, eax)?;
    s.caught()
}

/// The same at CPL 3: a page that is not present, of the supervisor, read-only.
fn user_protection(s: &mut Asm) -> Emit {
    for (n, bits) in [0, 3, 5].into_iter().enumerate() {
        let page = PAGE + 0x1000 * n as u32;
        s.pte(page, if bits == 0 { 0 } else { u64::from(page) | bits })?;
        let (from, to) = (s.dword(page), s.dword(page + 4));
        s.guard()?;
        s.mov(eax, from)?;
        s.caught()?;
        s.guard()?;
        s.mov(to, eax)?;
        s.caught()?;
    }
    Ok(())
}

/// Accessed and dirty flags of a fresh entry: before, after a read, after a write.
fn accessed_dirty(s: &mut Asm) -> Emit {
    s.pte(PAGE, MAPPED | 3)?;
    s.show_pte(PAGE)?;
    let at = s.dword(PAGE);
    s.mov(eax, at)?;
    s.show_pte(PAGE)?;
    s.mov(at, eax)?;
    s.show_pte(PAGE)
}

/// What PAGE and the next page hold: 1 and 2.
fn two_pages(s: &mut Asm) -> Emit {
    for (at, value) in [(PAGE, 1), (PAGE + 0x1000, 2)] {
        let at = s.dword(at);
        s.mov(at, value)?;
    }
    Ok(())
}

fn show_page(s: &mut Asm) -> Emit {
    s.show_at(PAGE)
}

/// Makes PAGE the next page without telling the TLB.
fn remap(s: &mut Asm) -> Emit {
    s.pte(PAGE, MAPPED + 0x1003)
}

rows! {
    "32-bit: P, W/R", Legacy, "#PF(0)@30000 #PF(2)@30004 ok ok #PF(3)@31000",
    "SDM Vol. 3, 4.7", |s| {
        with(protection);
    }
    "PAE: P, W/R", Pae, "#PF(0)@30000 #PF(2)@30004 ok ok #PF(3)@31000", "SDM Vol. 3, 4.7", |s| {
        with(protection);
    }
    "4-level: P, W/R", Long, "#PF(0)@30000 #PF(2)@30004 ok ok #PF(3)@31000",
    "SDM Vol. 3, 4.7", |s| {
        with(protection);
    }
    "compatibility mode: P, W/R", Compat, "#PF(0)@30000 #PF(2)@30004 ok ok #PF(3)@31000",
    "SDM Vol. 3, 4.7", |s| { with(protection); }
    "32-bit: U/S", Legacy3,
    "#PF(4)@30000 #PF(6)@30004 #PF(5)@31000 #PF(7)@31004 ok #PF(7)@32004", "SDM Vol. 3, 4.7", |s| {
        with(user_protection);
    }
    "PAE: U/S", Pae3,
    "#PF(4)@30000 #PF(6)@30004 #PF(5)@31000 #PF(7)@31004 ok #PF(7)@32004", "SDM Vol. 3, 4.7", |s| {
        with(user_protection);
    }
    "4-level: U/S", Long3,
    "#PF(4)@30000 #PF(6)@30004 #PF(5)@31000 #PF(7)@31004 ok #PF(7)@32004", "SDM Vol. 3, 4.7", |s| {
        with(user_protection);
    }
    "32-bit: A and D", Legacy, "30003 30023 30063", "SDM Vol. 3, 4.8", |s| { with(accessed_dirty); }
    "PAE: A and D", Pae, "30003 30023 30063", "SDM Vol. 3, 4.8", |s| { with(accessed_dirty); }
    "4-level: A and D", Long, "30003 30023 30063", "SDM Vol. 3, 4.8", |s| { with(accessed_dirty); }
    "A in every level", Long, "14027 15027 13027", "SDM Vol. 3, 4.8", |s| {
        show_at(IMAGE + PDPT); show_at(IMAGE + PD); show_at(IMAGE + PML4);
    }
    "a write sets D of a large page", Long, "2000a3 2000e3", "SDM Vol. 3, 4.8", |s| {
        mov(eax, dword_ptr(0x20_0000)); show_at(IMAGE + PD + 8);
        mov(dword_ptr(0x20_0000), eax); show_at(IMAGE + PD + 8);
    }
    "reserved bits of a PTE", Long, "#PF(9)@30000 #PF(b)@30004", "SDM Vol. 3, 4.7 (RSVD)", |s| {
        pte(PAGE, MAPPED | 3 | 1 << 51); with(read_write);
    }
    "reserved bits of a PAE PTE", Pae, "#PF(9)@30000 #PF(b)@30004", "SDM Vol. 3, 4.4.2", |s| {
        pte(PAGE, MAPPED | 3 | 1 << 62); with(read_write);
    }
    "XD is reserved without EFER.NXE", Long, "#PF(9)@30000 #PF(b)@30004", "SDM Vol. 3, 4.5.4", |s| {
        pte(PAGE, MAPPED | 3 | XD); with(read_write);
    }
    "reserved bits count before rights", Long3, "#PF(d)@30000 #PF(f)@30004",
    "SDM Vol. 3, 4.7", |s| {
        pte(PAGE, MAPPED | 1 | 1 << 51); with(read_write);
    }
    "bits below a large page", Long, "#PF(9)@200000", "SDM Vol. 3, table 4-18", |s| {
        poke(IMAGE + PD + 8, 0x20_2083); guard(); mov(eax, dword_ptr(0x20_0000)); caught();
    }
    "PS in a PML4E", Long, "#PF(9)@8000000000", "SDM Vol. 3, table 4-15", |s| {
        poke(IMAGE + PML4 + 8, u64::from(IMAGE + PDPT) | 0x83);
        guard(); mov(rbx, 1u64 << 39); mov(eax, dword_ptr(rbx)); caught();
    }
    "PSE: bit 21 of a large page", Legacy, "ok #PF(9)@400000", "SDM Vol. 3, table 4-4", |s| {
        guard(); mov(eax, dword_ptr(0x40_0000)); caught();
        poke(IMAGE + PD32 + 4, 0x60_0083); invlpg(byte_ptr(0x40_0000));
        guard(); mov(eax, dword_ptr(0x40_0000)); caught();
    }
    "a PDPTE that is not present", Pae, "#PF(0)@40000000 #PF(2)@40000004",
    "SDM Vol. 3, 4.4.2", |s| {
        guard(); mov(eax, dword_ptr(0x4000_0000)); caught();
        guard(); mov(dword_ptr(0x4000_0004), eax); caught();
    }
    "reserved bits of a PDPTE", Pae, "#GP(0)", "SDM Vol. 3, 4.4.1", |s| {
        poke(IMAGE + PAE_PDPT + 8, u64::from(IMAGE + PD) | 3); mov(eax, cr3);
        guard(); mov(cr3, eax); caught();
    }
    "XD", Long, "ok #PF(11)@30000 ok", "SDM Vol. 3, 4.6.1, 4.7 (I/D)", |s| {
        with(put_ret); set_msr(EFER, NX); with(fetch);
        pte(PAGE, MAPPED | 3 | XD); invlpg(byte_ptr(PAGE)); with(fetch);
        guard(); mov(eax, dword_ptr(PAGE)); caught();
    }
    "XD above the last level", Pae, "#PF(11)@430000", "SDM Vol. 3, 4.6.1", |s| {
        with(put_ret); set_msr(EFER, 0x800); poke(IMAGE + PD + 8, 0x20_0083);
        poke(IMAGE + PD + 16, u64::from(IMAGE + PT) | 3 | XD);
        guard(); mov(eax, 0x43_0000); call(eax); caught();
    }
    "fetch from a page that is not present", Long, "#PF(0)@30000 #PF(10)@30000",
    "SDM Vol. 3, 4.7 (I/D)", |s| {
        pte(PAGE, 0); with(fetch); set_msr(EFER, NX); with(fetch);
    }
    "SMEP", Long, "ok #PF(11)@30000 ok", "SDM Vol. 3, 4.6.1", |s| {
        with(put_ret); pte(PAGE, MAPPED | 7); with(fetch); set_cr4(SMEP); with(fetch);
        guard(); mov(eax, dword_ptr(PAGE)); caught();
    }
    "SMAP", Long, "ok ok #PF(1)@30000 #PF(3)@30004 ok ok ok", "SDM Vol. 3, 4.6.1", |s| {
        with(put_ret); pte(PAGE, MAPPED | 7); invlpg(byte_ptr(PAGE));
        with(read_write); set_cr4(SMAP); with(read_write);
        stac(); with(read_write); clac(); with(fetch);
    }
    "SMAP and an implicit access", Long, "#PF(1)@30008", "SDM Vol. 3, 4.6.1", |s| {
        gdt(FREE, segment(PAGE.into(), 0x3f, 0x82)); gdt(FREE + 8, 0); mov(eax, FREE); lldt(ax);
        pte(PAGE, MAPPED | 7); set_cr4(SMAP); stac(); mov(eax, 0xc);
        guard(); mov(ds, ax); caught();
    }
    "R/W of all levels", Long, "ok #PF(3)@430004", "SDM Vol. 3, 4.6.1", |s| {
        poke(IMAGE + PD + 16, u64::from(IMAGE + PT) | 5);
        guard(); mov(dword_ptr(0x43_0004), eax); caught(); set_cr0(WP);
        guard(); mov(dword_ptr(0x43_0004), eax); caught();
    }
    "U/S of all levels", Long3, "#PF(5)@430000", "SDM Vol. 3, 4.6.1", |s| {
        poke(IMAGE + PD + 16, u64::from(IMAGE + PT) | 3);
        guard(); mov(eax, dword_ptr(0x43_0000)); caught();
    }
    "a dword across pages", Long, "#PF(2)@31000 0", "SDM Vol. 3, 4.7", |s| {
        pte(PAGE + 0x1000, 0); guard(); mov(dword_ptr(PAGE + 0xffe), -1); caught();
        mov(eax, dword_ptr(PAGE + 0xffc)); show(eax);
    }
    "an instruction across pages", Long, "#PF(0)@31000 30fff", "SDM Vol. 3, 4.7", |s| {
        mov(byte_ptr(PAGE + 0xfff), 0xb0); pte(PAGE + 0x1000, 0);
        guard(); mov(eax, PAGE + 0xfff); jmp(rax); caught(); show_at(AT_IP);
    }
    "INVLPG", Long, "1 2", "SDM Vol. 3, 4.10.4.1", |s| {
        with(two_pages); with(show_page); with(remap); invlpg(byte_ptr(PAGE)); with(show_page);
    }
    "INVLPG by any address of the page", Legacy, "1 2", "SDM Vol. 3, 4.10.4.1", |s| {
        with(two_pages); with(show_page); with(remap); invlpg(byte_ptr(PAGE + 0xfff));
        with(show_page);
    }
    "INVLPG of a global page", Long, "1 2", "SDM Vol. 3, 4.10.4.1", |s| {
        with(two_pages); set_cr4(PGE); pte(PAGE, MAPPED | 0x103); with(show_page);
        with(remap); invlpg(byte_ptr(PAGE)); with(show_page);
    }
    "MOV to CR3", Long, "1 2", "SDM Vol. 3, 4.10.4.1", |s| {
        with(two_pages); with(show_page); with(remap); mov(rax, cr3); mov(cr3, rax);
        with(show_page);
    }
    "a change of CR4.PGE", Long, "1 2", "SDM Vol. 3, 4.10.4.1", |s| {
        with(two_pages); set_cr4(PGE); pte(PAGE, MAPPED | 0x103); with(show_page);
        with(remap); mov(rax, cr4); and(eax, !PGE as i32); mov(cr4, rax); with(show_page);
    }
    "INVPCID of all", Long, "1 2", "SDM Vol. 2, INVPCID", |s| {
        with(two_pages); set_cr4(PGE); pte(PAGE, MAPPED | 0x103); with(show_page);
        with(remap); mov(eax, 2); invpcid(rax, xmmword_ptr(SCRATCH)); with(show_page);
    }
    "INVPCID of one address", Long, "1 2", "SDM Vol. 2, INVPCID", |s| {
        with(two_pages); with(show_page); with(remap); mov(dword_ptr(SCRATCH + 8), PAGE);
        xor(eax, eax); invpcid(rax, xmmword_ptr(SCRATCH)); with(show_page);
    }
    "what INVPCID refuses", Long, "#GP(0) #GP(0) #GP(0) #GP(0)", "SDM Vol. 2, INVPCID", |s| {
        mov(eax, 4); guard(); invpcid(rax, xmmword_ptr(SCRATCH)); caught();
        xor(eax, eax); mov(dword_ptr(SCRATCH), 0x1000);
        guard(); invpcid(rax, xmmword_ptr(SCRATCH)); caught();
        mov(dword_ptr(SCRATCH), 1); guard(); invpcid(rax, xmmword_ptr(SCRATCH)); caught();
        mov(dword_ptr(SCRATCH), 0); mov(dword_ptr(SCRATCH + 12), 0x8000_0000_u32);
        guard(); invpcid(rax, xmmword_ptr(SCRATCH)); caught();
    }
    "PCID: CR3 without bit 63 flushes", Long, "1 2 2", "SDM Vol. 3, 4.10.4.1", |s| {
        with(two_pages); set_cr4(1 << 17); mov(rax, cr3); or(rax, 5); mov(cr3, rax);
        with(show_page); with(remap); mov(cr3, rax); with(show_page);
        mov(rax, cr3); and(rax, -8); mov(cr3, rax); with(show_page);
    }
    "P set needs no invalidation", Long, "#PF(0)@30000 #PF(2)@30004 ok ok",
    "SDM Vol. 3, 4.10.4.3", |s| {
        pte(PAGE, 0); with(read_write); pte(PAGE, MAPPED | 3); with(read_write);
    }
    "the upper half", Long, "1", "SDM Vol. 3, 4.5", |s| {
        with(two_pages); mov(rbx, 0xffff_8000_0000_0000_u64 + MAPPED);
        mov(eax, dword_ptr(rbx)); show(eax);
    }
    "CR2 is kept by other exceptions", Long, "#PF(0)@30000 #UD 30000",
    "SDM Vol. 3, 2.5 (CR2)", |s| {
        pte(PAGE, 0); guard(); mov(eax, dword_ptr(PAGE)); caught();
        guard(); ud2(); caught(); mov(rax, cr2); show(rax);
    }
    "a stack that is not present", Long3, "#PF(6)@2fff8", "SDM Vol. 3, 6.15 (#PF)", |s| {
        pte(PAGE - 0x1000, 0);
        guard(); mov(esp, PAGE); push(rax); caught();
    }
}
