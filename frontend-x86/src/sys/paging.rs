//! Linear to guest-physical: the page walk of all paging modes, behind the soft TLB.
//!
//! One walker serves 32-bit, PAE, 4-level and 5-level paging; a [`Format`] says what differs. A
//! level-2 entry is trusted only when it allows the access (and is dirty, for a write): the guest
//! may add rights without INVLPG (SDM Vol. 3, 4.10.4.3), so a denial is always the walk's word.
//! Accessed and dirty bits are set when the access is allowed, and only then.
//!
//! PDPTEs of PAE paging are read from memory at each walk, as AMD documents, instead of being
//! kept since MOV to CR3: software that works on both cannot tell. Their reserved bits are
//! checked when CR3 is written ([`load_pdptes`]).
//!
//! Source: SDM Vol. 3, chapter 4.

use super::cpuid::Features;
use super::{cr0, cr4, efer};
use crate::model;
use emu_core::cpu::Cpu;
use emu_core::fault::{Fault, Guest};
use emu_core::mem::phys::Writes;
use emu_core::mem::tlb::{Access, Kind, Privilege, Rights, Translation};
use emu_core::width::Width::{self, W32, W64};

/// Bits of a physical address in 64-bit paging entries at most (SDM Vol. 3, 4.1.4).
const PHYS: u64 = (1 << 52) - 1;

/// Bits 51:MAXPHYADDR: reserved in CR3 and in 64-bit paging entries.
pub fn phys_reserved(cpu: &Cpu) -> u64 {
    PHYS & !((1 << model::phys_bits(cpu)) - 1)
}

/// Bits of paging-structure entries (SDM Vol. 3, tables 4-4 to 4-20).
mod pte {
    pub const P: u64 = 1 << 0;
    pub const RW: u64 = 1 << 1;
    pub const US: u64 = 1 << 2;
    pub const A: u64 = 1 << 5;
    pub const D: u64 = 1 << 6;
    pub const PS: u64 = 1 << 7;
    pub const G: u64 = 1 << 8;
    pub const XD: u64 = 1 << 63;
}

/// Bits of a page-fault error code (SDM Vol. 3, figure 4-12).
mod error {
    pub const P: u32 = 1 << 0;
    pub const W: u32 = 1 << 1;
    pub const U: u32 = 1 << 2;
    pub const RSVD: u32 = 1 << 3;
    pub const I: u32 = 1 << 4;
    pub const PK: u32 = 1 << 5;
}

/// What a paging mode's structures look like.
struct Format {
    /// Lowest address bit that each level translates, topmost level first.
    levels: &'static [u8],
    /// Width of an entry.
    width: Width,
    /// Bits of CR3 that hold the topmost table's address.
    root: u64,
}

static LEGACY: Format = Format { levels: &[22, 12], width: W32, root: 0xffff_f000 };
static PAE: Format = Format { levels: &[30, 21, 12], width: W64, root: 0xffff_ffe0 };
static LEVEL5: Format = Format { levels: &[48, 39, 30, 21, 12], ..LEVEL4 };
static LEVEL4: Format = Format { levels: &[39, 30, 21, 12], width: W64, root: PHYS & !0xfff };

/// The function for [`emu_core::cpu::Frontend::translate`].
///
/// # Errors
/// #PF, or #GP(0) for a non-canonical address (the caller makes #SS(0) of it).
pub fn translate(cpu: &mut Cpu, va: u64, access: Access) -> Guest<u64> {
    if cpu.sys.cr0 & cr0::PG == 0 {
        let va = va & 0xffff_ffff;
        enter(cpu, va, va, access, (true, true), Kind::default());
        return Ok(va);
    }
    let va = match cpu.sys.efer & efer::LMA != 0 {
        true if !cpu.canonical(va) => return Err(Fault::GP0),
        true => va,
        false => va & 0xffff_ffff,
    };
    let privilege = match cpu.tlb.privilege() {
        Privilege::UserAligned => Privilege::User,
        p => p,
    };
    let usable = |cpu: &Cpu, t: &Translation| {
        allowed(cpu, t, access, privilege) && (access != Access::Write || t.dirty)
    };
    let t = match cpu.tlb.lookup2(va) {
        Some(t) if usable(cpu, &t) => t,
        _ => {
            let t = walk(cpu, va, access, privilege)?;
            cpu.tlb.insert2(va, t);
            t
        }
    };
    let pa = t.pa + (va & ((1 << t.shift) - 1));
    let ok = |access| allowed(cpu, &t, access, privilege);
    let rights = (ok(Access::Read), t.dirty && ok(Access::Write));
    let kind = Kind { global: t.global, large: t.shift != 12 };
    enter(cpu, va, pa, access, rights, kind);
    Ok(pa)
}

/// Enters the page of `va` at level 1 when memory backs it, for fetches or for data that may be
/// read and written as `rights` say; stores to ROM, and all accesses to pages with a data
/// breakpoint, stay on the slow path.
fn enter(cpu: &mut Cpu, va: u64, pa: u64, access: Access, rights: (bool, bool), kind: Kind) {
    let Some((off, writes)) = cpu.mem.lookup(pa & !0xfff) else { return };
    if access == Access::Exec {
        cpu.tlb.insert_fetch(va, off, kind);
    } else if !cpu.watch.page(va) {
        let code = cpu.mem.code.is_watched(off);
        let (read, write) = (rights.0, rights.1 && writes == Writes::Ram);
        let rights = Rights { read, write: write && !code, code: write && code };
        cpu.tlb.insert(va, off, rights, kind);
    }
}

/// Whether PKRU denies `access` to a page with the key of `t` (SDM Vol. 3, 4.6.2).
fn key_denies(cpu: &Cpu, t: &Translation, access: Access, privilege: Privilege) -> bool {
    let long = cpu.sys.efer & efer::LMA != 0;
    if cpu.sys.cr4 & cr4::PKE == 0 || !long || !t.user || access == Access::Exec {
        return false;
    }
    let (ad, wd) = (cpu.sys.pkru >> (2 * t.key) & 1 != 0, cpu.sys.pkru >> (2 * t.key) & 2 != 0);
    let checked = privilege == Privilege::User || cpu.sys.cr0 & cr0::WP != 0;
    ad || wd && access == Access::Write && checked
}

/// Whether `t` allows `access` (SDM Vol. 3, 4.6).
fn allowed(cpu: &Cpu, t: &Translation, access: Access, privilege: Privilege) -> bool {
    let cr4 = cpu.sys.cr4;
    if key_denies(cpu, t, access, privilege) {
        return false;
    }
    if privilege == Privilege::User {
        return t.user
            && match access {
                Access::Read => true,
                Access::Write => t.writable,
                Access::Exec => t.exec,
            };
    }
    let smap = t.user && cr4 & cr4::SMAP != 0 && privilege != Privilege::SupervisorAc;
    match access {
        Access::Read => !smap,
        Access::Write => !smap && (t.writable || cpu.sys.cr0 & cr0::WP == 0),
        Access::Exec => t.exec && !(t.user && cr4 & cr4::SMEP != 0),
    }
}

/// The paging mode in force; paging is on.
fn format(cpu: &Cpu) -> &'static Format {
    match (cpu.sys.efer & efer::LMA != 0, cpu.sys.cr4 & cr4::PAE != 0) {
        (true, _) if cpu.sys.cr4 & cr4::LA57 != 0 => &LEVEL5,
        (true, _) => &LEVEL4,
        (false, true) => &PAE,
        (false, false) => &LEGACY,
    }
}

/// Bits that must be zero in a present `entry` of the level that translates from bit `shift`.
fn reserved(cpu: &Cpu, f: &Format, shift: u8, entry: u64, leaf: bool) -> u64 {
    if f.width == W32 {
        // PSE-36: bits 20:13 of a 4-MByte page's entry are bits 39:32 of its address.
        let bits = if Features::PSE36.in_cpu(cpu) { phys_reserved(cpu) >> 19 } else { 0x1f_e000 };
        return if leaf && shift == 22 { bits & 0x1f_e000 | 1 << 21 } else { 0 };
    }
    let long = f.levels.len() > 3;
    let mut bits = phys_reserved(cpu) | if long { 0 } else { 0x7ff << 52 };
    if !long && shift == 30 {
        return bits | pte::XD | 0x1e6;
    }
    if cpu.sys.efer & efer::NXE == 0 {
        bits |= pte::XD;
    }
    let gib_pages = Features::PDPE1GB.in_cpu(cpu);
    if shift >= 39 || shift == 30 && !gib_pages && entry & pte::PS != 0 {
        bits |= pte::PS;
    }
    if leaf && shift > 12 {
        bits |= (1 << shift) - (1 << 13);
    }
    bits
}

/// Walks the paging structures for an access (SDM Vol. 3, 4.3 to 4.5, 4.7, 4.8).
fn walk(cpu: &mut Cpu, va: u64, access: Access, privilege: Privilege) -> Guest<Translation> {
    cpu.tlb.stats.walks += 1;
    let f = format(cpu);
    let fetch_bit = cpu.sys.cr4 & cr4::SMEP != 0
        || cpu.sys.cr4 & cr4::PAE != 0 && cpu.sys.efer & efer::NXE != 0;
    let fault = |error: u32| {
        let w = if access == Access::Write { error::W } else { 0 };
        let u = if privilege == Privilege::User { error::U } else { 0 };
        let i = if access == Access::Exec && fetch_bit { error::I } else { 0 };
        Err(Fault::page(va, error | w | u | i))
    };
    let index_bits = if f.width == W32 { 10 } else { 9 };
    let mut table = cpu.sys.cr3 & f.root;
    let mut rights = pte::RW | pte::US;
    let mut exec = true;
    // Where the entries are that get an accessed bit, and their values.
    let mut used = [(0, 0); 8];
    for (n, &shift) in f.levels.iter().enumerate() {
        let pdpte = shift == 30 && f.levels.len() == 3;
        let index = va >> shift & ((1 << index_bits) - 1);
        let at = table + index * f.width.bytes();
        let entry = cpu.mem.read(at, f.width);
        if entry & pte::P == 0 {
            return fault(0);
        }
        let large = match shift {
            22 => entry & pte::PS != 0 && cpu.sys.cr4 & cr4::PSE != 0,
            21 => entry & pte::PS != 0,
            30 => entry & pte::PS != 0 && !pdpte && Features::PDPE1GB.in_cpu(cpu),
            _ => false,
        };
        let leaf = large || shift == 12;
        if entry & reserved(cpu, f, shift, entry, leaf) != 0 {
            return fault(error::P | error::RSVD);
        }
        if !pdpte {
            rights &= entry;
            exec &= entry & pte::XD == 0;
            used[n & 7] = (at, entry);
        }
        if !leaf {
            table = entry & PHYS & !0xfff;
            continue;
        }
        let page = (1u64 << shift) - 1;
        let mut pa = entry & PHYS & !page;
        if shift == 22 {
            pa |= (entry >> 13 & 0xff) << 32;
        }
        let t = Translation {
            pa,
            shift,
            writable: rights & pte::RW != 0,
            user: rights & pte::US != 0,
            exec,
            global: entry & pte::G != 0 && cpu.sys.cr4 & cr4::PGE != 0,
            dirty: access == Access::Write || entry & pte::D != 0,
            key: if f.levels.len() > 3 { (entry >> 59 & 15) as u8 } else { 0 },
        };
        if !allowed(cpu, &t, access, privilege) {
            let key = if key_denies(cpu, &t, access, privilege) { error::PK } else { 0 };
            return fault(error::P | key);
        }
        for (i, &(at, entry)) in used[..=n & 7].iter().enumerate() {
            let dirty = if i == n && access == Access::Write { pte::D } else { 0 };
            let new = entry | pte::A | dirty;
            if entry & pte::P != 0 && new != entry {
                cpu.mem.write(at, f.width, new);
            }
        }
        return Ok(t);
    }
    fault(0)
}

/// Checks the four PDPTEs that MOV to CR3 with `cr3` would load under PAE paging (SDM Vol. 3,
/// 4.4.1).
///
/// # Errors
/// #GP(0) when a present one has a reserved bit set.
pub fn load_pdptes(cpu: &Cpu, cr3: u64) -> Guest<()> {
    for i in 0..4 {
        let entry = cpu.mem.read((cr3 & PAE.root) + i * 8, W64);
        if entry & pte::P != 0 && entry & reserved(cpu, &PAE, 30, entry, false) != 0 {
            return Err(Fault::GP0);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, Level};
    use super::super::{control, mode};
    use super::*;
    use emu_core::flags::rflags;

    const PML4: u64 = 0x10_0000;
    const PDPT: u64 = 0x10_1000;
    const PD: u64 = 0x10_2000;
    const PT: u64 = 0x10_3000;

    /// 4-level tables with one 4-KByte page: linear 0x40_0000 to physical 0x20_0000.
    fn paged(leaf: u64, upper: u64) -> Cpu {
        let mut c = testing::cpu(Level::Long);
        for (at, v) in [(PML4, PDPT | upper), (PDPT, PD | upper), (PD + 16, PT | upper), (PT, leaf)]
        {
            c.mem.write(at, W64, v);
        }
        c.sys.cr3 = PML4;
        c.tlb.flush_all(true);
        c
    }

    fn user(c: &mut Cpu) {
        c.cpl = 3;
        mode::update(c);
    }

    fn pf(c: &mut Cpu, va: u64, access: Access) -> u32 {
        let f = translate(c, va, access).unwrap_err();
        assert_eq!((f.vector, f.address), (14, va));
        f.error.unwrap()
    }

    /// Accessed and dirty bits come with the access that needs them (4.8).
    #[test]
    fn accessed_and_dirty() {
        let mut c = paged(0x20_0000 | 7, 7);
        let walks = c.tlb.stats.walks;
        assert_eq!(translate(&mut c, 0x40_0123, Access::Read), Ok(0x20_0123));
        assert_eq!(c.mem.read(PT, W64), 0x20_0027);
        assert_eq!(c.mem.read(PML4, W64) & 0x60, 0x20);
        assert_eq!(c.tlb.write(0x40_0000, 8), None, "not dirty yet");
        assert!(c.tlb.read(0x40_0000, 8).is_some());
        assert_eq!(translate(&mut c, 0x40_0123, Access::Write), Ok(0x20_0123));
        assert_eq!(c.mem.read(PT, W64), 0x20_0067);
        assert!(c.tlb.write(0x40_0000, 8).is_some());
        assert_eq!(c.tlb.stats.walks, walks + 2);
    }

    /// A faulting access changes no paging structure.
    #[test]
    fn error_codes_of_protection() {
        let mut c = paged(0x20_0000 | 3, 7);
        user(&mut c);
        assert_eq!(pf(&mut c, 0x40_0000, Access::Read), 5);
        assert_eq!(pf(&mut c, 0x40_0000, Access::Write), 7);
        assert_eq!(pf(&mut c, 0x40_1000, Access::Read), 4);
        assert_eq!(pf(&mut c, 0x80_0000_0000, Access::Write), 6);
        assert_eq!(c.mem.read(PT, W64), 0x20_0003);
        let mut c = paged(0x20_0000 | 5, 7);
        user(&mut c);
        assert_eq!(pf(&mut c, 0x40_0000, Access::Write), 7);
        assert!(translate(&mut c, 0x40_0000, Access::Read).is_ok());
        c.cpl = 0;
        mode::update(&mut c);
        assert!(translate(&mut c, 0x40_0000, Access::Write).is_ok(), "CR0.WP = 0");
        let mut c = paged(0x20_0000 | 5, 7);
        c.sys.cr0 |= cr0::WP;
        assert_eq!(pf(&mut c, 0x40_0000, Access::Write), 3);
    }

    #[test]
    fn execute_disable_and_smep_and_smap() {
        let mut c = paged(0x20_0000 | 7 | 1 << 63, 7);
        assert_eq!(pf(&mut c, 0x40_0000, Access::Read), 9, "XD is reserved without EFER.NXE");
        c.sys.efer |= efer::NXE;
        assert!(translate(&mut c, 0x40_0000, Access::Read).is_ok());
        assert_eq!(pf(&mut c, 0x40_0000, Access::Exec), 0x11);
        let mut c = paged(0x20_0000 | 7, 7);
        assert!(translate(&mut c, 0x40_0000, Access::Exec).is_ok());
        c.sys.cr4 |= cr4::SMEP;
        c.tlb.clear_level1();
        assert_eq!(pf(&mut c, 0x40_0000, Access::Exec), 0x11);
        c.sys.cr4 = c.sys.cr4 & !cr4::SMEP | cr4::SMAP;
        c.tlb.clear_level1();
        assert_eq!(pf(&mut c, 0x40_0000, Access::Read), 1);
        assert!(translate(&mut c, 0x40_0000, Access::Exec).is_ok());
        assert_eq!(c.tlb.read(0x40_0000, 1), None, "entered for execution only");
        c.sysflags |= rflags::AC;
        mode::update(&mut c);
        assert!(translate(&mut c, 0x40_0000, Access::Write).is_ok());
        user(&mut c);
        assert!(translate(&mut c, 0x40_0000, Access::Write).is_ok());
    }

    /// 4.6.2: PKRU's AD and WD bits of the page's key, for user pages; a change of PKRU counts at
    /// once, and rights that level 1 still had are gone.
    #[test]
    fn protection_keys() {
        let mut c = paged(0x20_0000 | 7 | 5 << 59, 7);
        c.sys.cr4 |= cr4::PKE;
        assert!(translate(&mut c, 0x40_0000, Access::Write).is_ok());
        control::wrpkru(&mut c, 0, 1 << 10).unwrap();
        assert_eq!(c.tlb.read(0x40_0000, 1), None);
        assert_eq!(pf(&mut c, 0x40_0000, Access::Read), 0x21);
        assert!(translate(&mut c, 0x40_0000, Access::Exec).is_ok());
        control::wrpkru(&mut c, 0, 2 << 10).unwrap();
        assert!(translate(&mut c, 0x40_0000, Access::Write).is_ok(), "CR0.WP = 0");
        user(&mut c);
        assert!(translate(&mut c, 0x40_0000, Access::Read).is_ok());
        assert_eq!(pf(&mut c, 0x40_0000, Access::Write), 0x27);
        control::wrpkru(&mut c, 0, !(3 << 10) & 0xffff_ffff).unwrap();
        assert!(translate(&mut c, 0x40_0000, Access::Write).is_ok());
        assert_eq!(pf(&mut c, 0x40_1000, Access::Read), 4, "no page, no key");
        assert_eq!(control::wrpkru(&mut c, 0, 1 << 32), Err(Fault::GP0));
        c.sys.cr4 &= !cr4::PKE;
        assert_eq!(control::rdpkru(&c, 0), Err(Fault::UD));
    }

    /// 4.5: one level more; addresses have 57 bits then.
    #[test]
    fn five_levels() {
        let mut c = paged(0x20_0000 | 7, 7);
        c.mem.write(0x10_4000 + 8, W64, PML4 | 7);
        assert_eq!(translate(&mut c, 1 << 48, Access::Read), Err(Fault::GP0));
        (c.sys.cr3, c.sys.cr4) = (0x10_4000, c.sys.cr4 | cr4::LA57);
        c.tlb.flush_all(true);
        assert_eq!(translate(&mut c, 1 << 48 | 0x40_0123, Access::Read), Ok(0x20_0123));
        assert_eq!(c.mem.read(0x10_4008, W64), PML4 | 0x27);
        assert_eq!(pf(&mut c, 0x40_0000, Access::Read), 0);
        assert_eq!(pf(&mut c, 0xff << 56, Access::Write), 2);
        assert_eq!(translate(&mut c, 1 << 56, Access::Read), Err(Fault::GP0));
        c.mem.write(0x10_4000 + 16, W64, PML4 | 0x87);
        assert_eq!(pf(&mut c, 2 << 48, Access::Read), 9);
    }

    /// Rights that the guest adds need no INVLPG (4.10.4.3).
    #[test]
    fn a_denial_is_checked_again() {
        let mut c = paged(0x20_0000 | 5, 7);
        user(&mut c);
        assert!(translate(&mut c, 0x40_0000, Access::Read).is_ok());
        assert_eq!(pf(&mut c, 0x40_0000, Access::Write), 7);
        c.mem.write(PT, W64, 0x20_0000 | 7);
        assert!(translate(&mut c, 0x40_0000, Access::Write).is_ok());
    }

    #[test]
    fn large_pages_and_reserved_bits() {
        let mut c = paged(0, 7);
        c.mem.write(PD + 8, W64, 0x40_0000 | 0xe7);
        assert_eq!(translate(&mut c, 0x2a_bcde, Access::Write), Ok(0x4a_bcde));
        c.mem.write(PD + 24, W64, 0x40_2000 | 0xe7);
        assert_eq!(pf(&mut c, 0x60_0000, Access::Read), 9);
        c.mem.write(PD + 24, W64, 1 << 40 | 0xe7);
        assert_eq!(pf(&mut c, 0x60_0000, Access::Read), 9);
        c.mem.write(PDPT + 8, W64, 0xe7);
        c.features |= Features::PDPE1GB.0;
        assert_eq!(translate(&mut c, 0x4012_3456, Access::Read), Ok(0x12_3456));
        c.features &= !Features::PDPE1GB.0;
        c.tlb.flush_all(true);
        assert_eq!(pf(&mut c, 0x4060_0000, Access::Write), 11);
        c.mem.write(PML4 + 8, W64, PDPT | 0x87);
        assert_eq!(pf(&mut c, 1 << 39, Access::Read), 9);
        assert_eq!(translate(&mut c, 1 << 47, Access::Read), Err(Fault::GP0));
    }

    #[test]
    fn global_pages_survive_a_switch() {
        let mut c = paged(0x20_0000 | 0x107, 7);
        c.sys.cr4 |= cr4::PGE;
        translate(&mut c, 0x40_0000, Access::Read).unwrap();
        c.mem.write(PT, W64, 0);
        c.tlb.switch(0, false);
        assert_eq!(translate(&mut c, 0x40_0000, Access::Read), Ok(0x20_0000));
        c.tlb.invalidate(0x40_0000, None);
        assert_eq!(pf(&mut c, 0x40_0000, Access::Read), 0);
    }

    #[test]
    fn legacy_paging_with_pse36() {
        let mut c = testing::cpu(Level::Protected);
        c.mem.write(PML4, W32, PT | 7);
        c.mem.write(PT + 4, W32, 0x20_0000 | 7);
        c.mem.write(PML4 + 4, W32, 3 << 13 | 0x80_0000 | 0x87);
        c.sys.cr3 = PML4;
        c.sys.cr0 |= cr0::PG;
        c.tlb.flush_all(true);
        assert_eq!(translate(&mut c, 0x1_0000_1004, Access::Write), Ok(0x20_0004));
        assert_eq!(c.mem.read(PT + 4, W32), 0x20_0067);
        assert_eq!(pf(&mut c, 0x2000, Access::Exec), 0, "no I/D bit without NX or SMEP");
        c.sys.cr4 |= cr4::PSE;
        assert_eq!(translate(&mut c, 0x40_1234, Access::Read), Ok(3 << 32 | 0x80_1234));
        c.mem.write(PML4 + 8, W32, 1 << 21 | 0x87);
        assert_eq!(pf(&mut c, 0x80_0000, Access::Read), 9);
    }

    #[test]
    fn pae_paging() {
        let mut c = testing::cpu(Level::Protected);
        c.mem.write(PDPT + 0x20, W64, PD | 1);
        c.mem.write(PD + 16, W64, PT | 7);
        c.mem.write(PT, W64, 0x20_0000 | 7);
        c.sys.cr3 = PDPT + 0x20;
        c.sys.cr4 |= cr4::PAE;
        c.sys.cr0 |= cr0::PG;
        c.tlb.flush_all(true);
        user(&mut c);
        assert_eq!(translate(&mut c, 0x40_0008, Access::Write), Ok(0x20_0008));
        assert_eq!(c.mem.read(PDPT + 0x20, W64), PD | 1, "a PDPTE has no accessed bit");
        assert_eq!(pf(&mut c, 0x4000_0000, Access::Read), 4);
        assert_eq!(load_pdptes(&c, PDPT + 0x20), Ok(()));
        c.mem.write(PDPT + 0x28, W64, PD | 3);
        assert_eq!(load_pdptes(&c, PDPT + 0x20), Err(Fault::GP0));
    }

    #[test]
    fn without_paging_addresses_are_physical() {
        let mut c = testing::cpu(Level::Protected);
        assert_eq!(translate(&mut c, 0x1_0000_5678, Access::Write), Ok(0x5678));
        assert!(c.tlb.write(0x5678, 8).is_some());
        c.mem.code.mark(0x6000, 4);
        assert_eq!(translate(&mut c, 0x6000, Access::Write), Ok(0x6000));
        assert_eq!((c.tlb.write(0x6000, 1), c.tlb.exec(0x6000)), (None, None));
        assert_eq!(c.tlb.write_beside_code(0x6000, 1), Some(0x6000));
        assert_eq!(translate(&mut c, 0x6000, Access::Exec), Ok(0x6000));
        assert_eq!(c.tlb.exec(0x6000), Some(0x6000));
        assert_eq!(translate(&mut c, 0xfee0_0000, Access::Read), Ok(0xfee0_0000));
        assert_eq!(c.tlb.read(0xfee0_0000, 4), None, "a device");
    }
}
