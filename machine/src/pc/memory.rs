//! The guest-physical address space of the board, made anew whenever something moves in it.
//!
//! What is laid over what, from below: RAM; the video hole at A0000, or the RAM beneath (SMRAM
//! opened); the parts of C0000 to FFFFF, each as the host bridge's PAM registers say; the ROM that
//! ends at 4 GiB; memory of PCI devices, where RAM is not. With the A20 gate closed every odd MiB
//! is the even one before it.
//!
//! [`Backing`] says where in [`GuestRam`](emu_core::mem::GuestRam) things lie: RAM first, as
//! [`e820`] puts it, then the ROM, then what devices have.

use crate::boot::e820;
use devices::pci_host::Shadow;
use emu_core::mem::phys::{Region, Writes};
use std::ops::Range;

/// Where a ROM may be seen below 1 MiB, at most.
const ROM_ALIAS: u64 = 0x2_0000;
/// The parts whose shadowing is set each by itself: of 16 KiB, the last one of 64 KiB.
const SHADOWED: Range<u64> = 0xc_0000..e820::ONE_MIB;
const PART: u64 = 0x4000;
const A20: u64 = 1 << 20;

/// Where the machine's memory lies in its backing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backing {
    /// Bytes of RAM, from offset 0 on.
    pub(crate) ram: u64,
    /// Bytes of the ROM that follows: whole pages.
    pub(crate) rom: u64,
    /// Bytes of video memory behind it.
    pub(crate) vga: u64,
}

/// Memory of a device that is mapped now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mapped {
    /// First guest-physical address.
    pub(crate) base: u64,
    /// Length in bytes.
    pub(crate) len: u64,
    /// Offset in the backing.
    pub(crate) offset: u64,
    /// Where writes go.
    pub(crate) writes: Writes,
}

/// What the chips say about the address space.
pub(crate) struct View<'a> {
    /// How a part of C0000 to FFFFF is shadowed.
    pub(crate) shadow: &'a dyn Fn(u64) -> Shadow,
    /// RAM is seen at A0000.
    pub(crate) smram: bool,
    /// The A20 gate is open.
    pub(crate) a20: bool,
    /// Memory of devices.
    pub(crate) mapped: &'a [Option<Mapped>],
}

impl Backing {
    /// The regions of the address space.
    pub(crate) fn regions(&self, view: &View) -> Vec<Region> {
        let (low, high) = e820::split(self.ram);
        let ram = |base, end, offset| Region { base, len: end - base, offset, writes: Writes::Ram };
        let mut all = vec![ram(0, low, 0), ram(e820::HIGH_BASE, e820::HIGH_BASE + high, low)];
        if !view.smram {
            cut(&mut all, e820::VGA);
        }
        let mut at = SHADOWED.start;
        while at < SHADOWED.end {
            let part = at..at + if at < 0xf_0000 { PART } else { 4 * PART };
            match (view.shadow)(at) {
                Shadow { read: true, write: true } => {}
                Shadow { read: true, write: false } => mark(&mut all, &part, Writes::Nowhere),
                Shadow { read: false, write } => {
                    cut(&mut all, part.clone());
                    all.extend(self.rom_alias(&part, write));
                }
            }
            at = part.end;
        }
        for m in view.mapped.iter().flatten() {
            let mut new =
                vec![Region { base: m.base, len: m.len, offset: m.offset, writes: m.writes }];
            all.iter().for_each(|r| cut(&mut new, r.base..r.base + r.len));
            all.extend(new);
        }
        if self.rom > 0 {
            let base = e820::HIGH_BASE - self.rom;
            cut(&mut all, base..e820::HIGH_BASE);
            let rom = Region { base, len: self.rom, offset: self.ram, writes: Writes::Nowhere };
            all.push(rom);
        }
        all.retain(|r| r.len > 0);
        if view.a20 { all } else { fold(&all) }
    }

    /// The part of the ROM that is seen in `part` below 1 MiB; `filled`: writes go to the RAM
    /// beneath.
    fn rom_alias(&self, part: &Range<u64>, filled: bool) -> Option<Region> {
        let seen = e820::ONE_MIB - self.rom.min(ROM_ALIAS);
        let base = part.start.max(seen);
        let writes = if filled { Writes::Platform } else { Writes::Nowhere };
        let offset = (self.ram + self.rom).checked_sub(e820::ONE_MIB - base)?;
        (base < part.end).then_some(Region { base, len: part.end - base, offset, writes })
    }
}

/// What is left of a region outside of `hole`.
fn outside(r: Region, hole: &Range<u64>) -> impl Iterator<Item = Region> + use<> {
    let end = r.base + r.len;
    [(r.base, end.min(hole.start)), (r.base.max(hole.end), end)]
        .into_iter()
        .filter(|(from, to)| from < to)
        .map(move |(from, to)| piece(r, from, to))
}

/// The part of a region from one address to another.
fn piece(r: Region, from: u64, to: u64) -> Region {
    Region { base: from, len: to - from, offset: r.offset + (from - r.base), ..r }
}

fn cut(all: &mut Vec<Region>, hole: Range<u64>) {
    *all = all.iter().flat_map(|&r| outside(r, &hole)).collect();
}

/// Changes where writes to a range go.
fn mark(all: &mut Vec<Region>, range: &Range<u64>, writes: Writes) {
    let inside = |r: &Region| {
        let (from, to) = (r.base.max(range.start), (r.base + r.len).min(range.end));
        (from < to).then(|| Region { writes, ..piece(*r, from, to) })
    };
    let marked: Vec<Region> = all.iter().filter_map(inside).collect();
    cut(all, range.clone());
    all.extend(marked);
}

/// Address line 20 held low.
fn fold(all: &[Region]) -> Vec<Region> {
    let mut folded = Vec::new();
    for &r in all {
        let mut at = r.base;
        while at < r.base + r.len {
            let end = ((at | (A20 - 1)) + 1).min(r.base + r.len);
            if at & A20 == 0 {
                let even = piece(r, at, end);
                folded.extend([even, Region { base: even.base | A20, ..even }]);
            }
            at = end;
        }
    }
    folded
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: Backing = Backing { ram: 64 << 20, rom: 0x4_0000, vga: 0 };
    const OPEN: Shadow = Shadow { read: true, write: true };
    const ROM: Shadow = Shadow { read: false, write: false };

    fn look(view: &View, pa: u64) -> Option<(u64, Writes)> {
        let all = MACHINE.regions(view);
        let found = all.iter().find(|r| (r.base..r.base + r.len).contains(&pa));
        found.map(|r| (pa - r.base + r.offset, r.writes))
    }

    fn view(shadow: &dyn Fn(u64) -> Shadow) -> View<'_> {
        View { shadow, smram: false, a20: true, mapped: &[] }
    }

    #[test]
    fn the_rom_is_seen_at_both_ends() {
        let v = view(&|_| ROM);
        let rom = |offset| Some((MACHINE.ram + offset, Writes::Nowhere));
        assert_eq!(look(&v, 0xffff_fff0), rom(0x3_fff0));
        assert_eq!((look(&v, 0xf_fff0), look(&v, 0xe_0000)), (rom(0x3_fff0), rom(0x2_0000)));
        assert_eq!((look(&v, 0xfffc_0000), look(&v, 0xfffb_ffff)), (rom(0), None));
        assert_eq!((look(&v, 0xd_ffff), look(&v, 0xa_0000)), (None, None));
        assert_eq!(look(&v, 0x10_0000), Some((0x10_0000, Writes::Ram)));
    }

    #[test]
    fn parts_are_shadowed_each_by_itself() {
        let shadow = |at| match at {
            0xc_0000 => OPEN,
            0xc_4000 => Shadow { read: true, write: false },
            0xe_0000 | 0xd_0000 => Shadow { read: false, write: true },
            _ => ROM,
        };
        let v = view(&shadow);
        assert_eq!(look(&v, 0xc_3fff), Some((0xc_3fff, Writes::Ram)));
        assert_eq!(look(&v, 0xc_4000), Some((0xc_4000, Writes::Nowhere)));
        assert_eq!((look(&v, 0xc_8000), look(&v, 0xd_0000)), (None, None));
        assert_eq!(look(&v, 0xe_0000), Some((MACHINE.ram + 0x2_0000, Writes::Platform)));
        assert_eq!(look(&v, 0xe_4000), Some((MACHINE.ram + 0x2_4000, Writes::Nowhere)));
    }

    #[test]
    fn devices_are_seen_where_ram_is_not() {
        let m = |base| Some(Mapped { base, len: 0x2000, offset: 0x600_0000, writes: Writes::Ram });
        let mapped = [m(0xe000_0000), m((64 << 20) - 0x1000)];
        let v = View { mapped: &mapped, ..view(&|_| OPEN) };
        assert_eq!(look(&v, 0xe000_1000), Some((0x600_1000, Writes::Ram)));
        assert_eq!(look(&v, (64 << 20) - 0x1000), Some(((64 << 20) - 0x1000, Writes::Ram)));
        assert_eq!(look(&v, 64 << 20), Some((0x600_1000, Writes::Ram)));
    }

    #[test]
    fn a_closed_gate_folds_the_odd_mebibytes() {
        let v = View { a20: false, ..view(&|_| OPEN) };
        assert_eq!(look(&v, 0x10_0400), Some((0x400, Writes::Ram)));
        assert_eq!(look(&v, 0x30_0000), Some((0x20_0000, Writes::Ram)));
        assert_eq!((look(&v, 0x1a_0000), look(&v, 0xffff_fff0)), (None, None));
    }

    #[test]
    fn system_management_ram_can_be_opened() {
        let v = View { smram: true, ..view(&|_| ROM) };
        assert_eq!(look(&v, 0xb_ffff), Some((0xb_ffff, Writes::Ram)));
    }
}
