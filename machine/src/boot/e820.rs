//! How the machine's memory is laid out, and how a kernel is told.
//!
//! A PC has RAM from 0, a hole for the display card below 1 MiB, a hole for PCI and the
//! interrupt controllers below 4 GiB, and the rest of RAM above. Three views of the same layout
//! are made here: where RAM splits ([`split`]), the regions of the guest-physical address space
//! ([`regions`]), and the map that BIOS call INT 15h, AX=E820h would give ([`map`]; ACPI
//! specification, "System Address Map Interfaces").

use emu_core::mem::phys::{Region, Writes};

/// End of RAM below 4 GiB at most; from here to 4 GiB are PCI, I/O APIC, HPET, local APIC, flash.
pub const LOW_MAX: u64 = 0xc000_0000;
/// Where RAM goes on that does not fit below [`LOW_MAX`].
pub const HIGH_BASE: u64 = 1 << 32;
/// Where memory begins that no PC convention claims.
pub const ONE_MIB: u64 = 0x10_0000;
/// End of conventional memory; the extended BIOS data area follows.
pub const EBDA: u64 = 0x9_fc00;
/// Display memory: not RAM.
pub const VGA: std::ops::Range<u64> = 0xa_0000..0xc_0000;
/// Room for the ACPI tables, in the area where a kernel looks for the RSDP.
pub const ACPI: std::ops::Range<u64> = 0xe_0000..0xf_0000;

/// What a range of addresses is; the values are those of the E820h call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// `AddressRangeMemory`: free for the kernel.
    Ram = 1,
    /// `AddressRangeReserved`.
    Reserved = 2,
    /// `AddressRangeNVS`: ACPI tables, of which the FACS stays in use.
    Nvs = 4,
}

/// One row of the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// First address.
    pub base: u64,
    /// Length in bytes.
    pub len: u64,
    /// What it is.
    pub kind: Kind,
}

/// Splits `ram_size` bytes, rounded down to whole pages, into RAM below and above 4 GiB. More
/// than the 52 bits of a physical address can reach is left out.
pub fn split(ram_size: u64) -> (u64, u64) {
    let ram = ram_size.min((1 << 52) - HIGH_BASE) & !4095;
    let low = ram.min(LOW_MAX);
    (low, ram - low)
}

/// The map for a machine with `ram_size` bytes, sorted by address. Clipped to what exists:
/// ranges without a byte of RAM are left out.
pub fn map(ram_size: u64) -> Vec<Entry> {
    let (low, high) = split(ram_size);
    [
        (0, EBDA.min(low), Kind::Ram),
        (EBDA, VGA.start, Kind::Reserved),
        (ACPI.start, ACPI.end, Kind::Nvs),
        (ACPI.end, ONE_MIB, Kind::Reserved),
        (ONE_MIB, low, Kind::Ram),
        (HIGH_BASE, HIGH_BASE + high, Kind::Ram),
    ]
    .into_iter()
    .filter(|(base, end, _)| base < end)
    .map(|(base, end, kind)| Entry { base, len: end - base, kind })
    .collect()
}

/// The RAM regions of the guest-physical address space, over `ram_size` bytes of backing memory
/// in which RAM below 4 GiB lies at its own address and the rest right behind it. The display
/// hole hides the bytes behind it; 0xC0000–0xFFFFF is writable (shadow RAM).
pub fn regions(ram_size: u64) -> Vec<Region> {
    let (low, high) = split(ram_size);
    [(0, VGA.start.min(low), 0), (VGA.end, low, VGA.end), (HIGH_BASE, HIGH_BASE + high, low)]
        .into_iter()
        .filter(|(base, end, _)| base < end)
        .map(|(base, end, offset)| Region { base, len: end - base, offset, writes: Writes::Ram })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ram(size: u64) -> Vec<(u64, u64)> {
        let ram = map(size).into_iter().filter(|e| e.kind == Kind::Ram);
        ram.map(|e| (e.base, e.base + e.len)).collect()
    }

    #[test]
    fn ram_is_split_at_three_gib() {
        let mib = |n: u64| n << 20;
        assert_eq!(ram(mib(128)), [(0, EBDA), (ONE_MIB, mib(128))]);
        assert_eq!(ram(mib(3072)), [(0, EBDA), (ONE_MIB, LOW_MAX)]);
        let five = [(0, EBDA), (ONE_MIB, LOW_MAX), (HIGH_BASE, HIGH_BASE + mib(2048))];
        assert_eq!(ram(mib(5120)), five);
        assert_eq!(ram(0x8_0123), [(0, 0x8_0000)]);
    }

    #[test]
    fn maps_are_sorted_and_ram_entries_are_backed() {
        for size in [0, 4096, 0xa_0000, 0xb_0000, 0xc_0000, ONE_MIB, 64 << 20, 9 << 30, u64::MAX] {
            let (map, regions) = (map(size), regions(size));
            assert!(map.windows(2).all(|w| w[0].base + w[0].len <= w[1].base), "{map:x?}");
            for e in map.iter().filter(|e| e.kind == Kind::Ram) {
                let within = |r: &&Region| r.base <= e.base && e.base + e.len <= r.base + r.len;
                assert!(regions.iter().any(|r| within(&r)), "{e:x?} of {size:#x}");
            }
            for r in &regions {
                assert!(r.offset + r.len <= size && (r.base | r.len | r.offset) & 4095 == 0);
                assert!(r.base >= VGA.end || r.base + r.len <= VGA.start);
            }
        }
    }

    #[test]
    fn backing_of_high_memory_follows_that_of_low_memory() {
        let r = regions(4 << 30);
        let high = Region { base: HIGH_BASE, len: 1 << 30, offset: LOW_MAX, writes: Writes::Ram };
        assert_eq!(r.last(), Some(&high));
        assert_eq!(
            r[1],
            Region {
                base: 0xc_0000,
                len: LOW_MAX - 0xc_0000,
                offset: 0xc_0000,
                writes: Writes::Ram
            }
        );
    }
}
