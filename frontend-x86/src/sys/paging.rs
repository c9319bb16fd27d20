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

impl Format {
    /// Address bits that a level translates.
    fn index_bits(&self) -> u32 {
        if self.width == W32 { 10 } else { 9 }
    }
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

/// What the paging structures say of an address.
struct Found {
    t: Translation,
    /// The entries that get an accessed bit, and where they are; the last is the page's.
    used: [(u64, u64); 8],
    last: usize,
}

/// An address that is not mapped.
struct Missed {
    /// Error code: P and RSVD.
    error: u32,
    /// The lowest address bit that the entry at fault translates.
    shift: u8,
}

/// Walks the paging structures (SDM Vol. 3, 4.3 to 4.5) by `read`, whoever asks.
#[inline(always)]
fn find(cpu: &Cpu, va: u64, read: impl Fn(u64, Width) -> u64) -> Result<Found, Missed> {
    let f = format(cpu);
    let index_bits = f.index_bits();
    let mut table = cpu.sys.cr3 & f.root;
    let mut rights = pte::RW | pte::US;
    let mut exec = true;
    let mut used = [(0, 0); 8];
    for (n, &shift) in f.levels.iter().enumerate() {
        let pdpte = shift == 30 && f.levels.len() == 3;
        let index = va >> shift & ((1 << index_bits) - 1);
        let at = table + index * f.width.bytes();
        let entry = read(at, f.width);
        if entry & pte::P == 0 {
            return Err(Missed { error: 0, shift });
        }
        let large = match shift {
            22 => entry & pte::PS != 0 && cpu.sys.cr4 & cr4::PSE != 0,
            21 => entry & pte::PS != 0,
            30 => entry & pte::PS != 0 && !pdpte && Features::PDPE1GB.in_cpu(cpu),
            _ => false,
        };
        let leaf = large || shift == 12;
        if entry & reserved(cpu, f, shift, entry, leaf) != 0 {
            return Err(Missed { error: error::P | error::RSVD, shift });
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
            dirty: entry & pte::D != 0,
            key: if f.levels.len() > 3 { (entry >> 59 & 15) as u8 } else { 0 },
        };
        return Ok(Found { t, used, last: n & 7 });
    }
    Err(Missed { error: 0, shift: 12 })
}

/// Walks the paging structures for an access (SDM Vol. 3, 4.6 to 4.8).
fn walk(cpu: &mut Cpu, va: u64, access: Access, privilege: Privilege) -> Guest<Translation> {
    cpu.tlb.stats.walks += 1;
    let fetch_bit = cpu.sys.cr4 & cr4::SMEP != 0
        || cpu.sys.cr4 & cr4::PAE != 0 && cpu.sys.efer & efer::NXE != 0;
    let fault = |error: u32| {
        let w = if access == Access::Write { error::W } else { 0 };
        let u = if privilege == Privilege::User { error::U } else { 0 };
        let i = if access == Access::Exec && fetch_bit { error::I } else { 0 };
        Err(Fault::page(va, error | w | u | i))
    };
    let Found { mut t, used, last } = match find(cpu, va, |at, width| cpu.mem.read(at, width)) {
        Ok(found) => found,
        Err(missed) => return fault(missed.error),
    };
    t.dirty |= access == Access::Write;
    if !allowed(cpu, &t, access, privilege) {
        let key = if key_denies(cpu, &t, access, privilege) { error::PK } else { 0 };
        return fault(error::P | key);
    }
    let width = format(cpu).width;
    for (i, &(at, entry)) in used[..=last].iter().enumerate() {
        let dirty = if i == last && access == Access::Write { pte::D } else { 0 };
        let new = entry | pte::A | dirty;
        if entry & pte::P != 0 && new != entry {
            cpu.mem.write(at, width, new);
        }
    }
    Ok(t)
}

/// A page of the address space in force, as who only looks sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Linear address of its first byte, canonical.
    pub va: u64,
    /// Where it is, and the rights of all levels together.
    pub translation: Translation,
    /// The entry that maps it.
    pub entry: u64,
}

/// Looks at the paging structures without a trace: no accessed bit is set, no device is read.
fn peek(cpu: &Cpu, va: u64) -> Result<Page, Missed> {
    let memory = |at, width| cpu.mem.lookup(at).map_or(0, |_| cpu.mem.read(at, width));
    let Found { t, used, last } = find(cpu, va, memory)?;
    let start = va & !((1 << t.shift) - 1);
    Ok(Page { va: start, translation: t, entry: used[last].1 })
}

/// Guest-physical address of linear address `va`, whatever the access; `None` if it is not mapped
/// or not canonical. Nothing is changed by looking.
#[must_use]
pub fn look(cpu: &Cpu, va: u64) -> Option<u64> {
    let long = cpu.sys.efer & efer::LMA != 0;
    if long && !cpu.canonical(va) {
        return None;
    }
    let va = if long { va } else { va & 0xffff_ffff };
    if cpu.sys.cr0 & cr0::PG == 0 {
        return Some(va);
    }
    let Translation { pa, shift, .. } = peek(cpu, va).ok()?.translation;
    Some(pa + (va & ((1 << shift) - 1)))
}

/// All pages of the address space in force by address; none while paging is off. Looks at `limit`
/// entries at most (tables that map themselves are endless) and gives `None` last if there are
/// more. Nothing is changed by looking.
pub fn pages(cpu: &Cpu, limit: usize) -> impl Iterator<Item = Option<Page>> {
    let paging = cpu.sys.cr0 & cr0::PG != 0;
    let f = format(cpu);
    let bits = if f.levels.len() > 3 { u32::from(f.levels[0]) + f.index_bits() } else { 32 };
    let extend = if f.levels.len() > 3 { bits } else { 64 };
    let (mut next, mut left) = (0_u64, limit);
    std::iter::from_fn(move || {
        while paging && next < 1 << bits {
            if left == 0 {
                next = 1 << bits;
                return Some(None);
            }
            left -= 1;
            let sign = 64 - extend;
            let va = ((next << sign) as i64 >> sign) as u64;
            let found = peek(cpu, va);
            let shift = found.as_ref().map_or_else(|m| m.shift, |p| p.translation.shift);
            next = ((next >> shift) + 1) << shift;
            if let Ok(page) = found {
                return Some(Some(page));
            }
        }
        None
    })
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

    /// Who only looks sees what an access finds, and leaves no trace.
    #[test]
    fn looking_changes_nothing_and_agrees_with_accesses() {
        let mut c = paged(0x20_0000 | 7, 7);
        c.sys.efer |= efer::NXE;
        (0..512).filter(|n| *n != 2).for_each(|n| c.mem.write(PD + 8 * n, W64, 0));
        c.mem.write(PT + 8, W64, 0x30_0000 | 1 | pte::XD);
        c.mem.write(PD + 24, W64, 0x40_0000 | 0x83);
        c.mem.write(PML4 + 8 * 511, W64, PDPT | 7);
        // A table in a device's registers is not read.
        c.mem.write(PD + 32, W64, 0xfee0_0000 | 7);
        let before = [PML4, PDPT, PD, PT, PT + 8, PD + 24].map(|at| c.mem.read(at, W64));
        let walks = c.tlb.stats.walks;
        let all: Vec<Page> = pages(&c, 10_000).map(Option::unwrap).collect();
        let vas: Vec<u64> = all.iter().map(|p| p.va).collect();
        let top = 0xffff_ff80_0000_0000;
        assert_eq!(
            vas,
            [0x40_0000, 0x40_1000, 0x60_0000, top | 0x40_0000, top | 0x40_1000, top | 0x60_0000]
        );
        assert_eq!((all[1].translation.exec, all[1].translation.user), (false, false));
        assert_eq!(all[2].entry & 0xfff, 0x83);
        let after = [PML4, PDPT, PD, PT, PT + 8, PD + 24].map(|at| c.mem.read(at, W64));
        assert_eq!((before, walks), (after, c.tlb.stats.walks));
        for va in [0x40_0123, 0x40_1ff8, 0x7f_fff8, 0x80_0000, 0, 1 << 47, top | 0x6a_5555] {
            let looked = look(&c, va);
            assert_eq!(looked, translate(&mut c, va, Access::Read).ok(), "{va:x}");
        }
        assert_eq!(pages(&c, 3).last(), Some(None), "there are more");
    }

    #[test]
    fn tables_that_map_themselves_have_an_end() {
        let c = paged(0, 7);
        (0..512).for_each(|n| c.mem.write(PML4 + 8 * n, W64, PML4 | 7));
        assert_eq!(pages(&c, 100_000).filter(Option::is_some).count(), 100_000);
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
        assert_eq!(look(&c, 0x40_1234), Some(3 << 32 | 0x80_1234));
        assert_eq!(translate(&mut c, 0x40_1234, Access::Read), Ok(3 << 32 | 0x80_1234));
        let all = pages(&c, 5000).flatten().map(|p| (p.va, p.translation.shift));
        assert_eq!(all.collect::<Vec<_>>(), [(0x1000, 12), (0x40_0000, 22)]);
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
        assert_eq!(pages(&c, 5000).flatten().map(|p| p.va).collect::<Vec<_>>(), [0x40_0000]);
        assert_eq!((look(&c, 0x1_0040_0008), look(&c, 0x41_0000)), (Some(0x20_0008), None));
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
