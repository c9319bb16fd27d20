//! SMBIOS: what a machine says of itself to `dmidecode` and to inventories.
//!
//! Structures are a header of four bytes (type, length, handle), a formatted area, and strings,
//! which the area numbers from 1. Firmware places the table and writes its address into the entry
//! point, so both are made for no place.
//!
//! Source: DMTF DSP0134, System Management BIOS Reference Specification 2.8, 5.2.1 (entry point)
//! and chapter 7 (structures).

use crate::boot::e820;

/// What fw_cfg hands to firmware.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Smbios {
    /// `etc/smbios/smbios-anchor`: the 32-bit entry point.
    pub(crate) anchor: Vec<u8>,
    /// `etc/smbios/smbios-tables`: the structures.
    pub(crate) tables: Vec<u8>,
}

const ENTRY_POINT_LEN: u8 = 0x1f;

/// The structures under construction.
#[derive(Default)]
struct Table {
    bytes: Vec<u8>,
    structures: u16,
    longest: usize,
}

impl Table {
    fn add(&mut self, kind: u8, handle: u16, body: &[&[u8]], strings: &[&str]) {
        let body = body.concat();
        let start = self.bytes.len();
        self.bytes.extend([kind, 4 + body.len() as u8]);
        self.bytes.extend(handle.to_le_bytes());
        self.bytes.extend(body);
        for s in strings {
            self.bytes.extend(s.as_bytes());
            self.bytes.push(0);
        }
        // Two zeros end a structure; with strings one of them is the last string's.
        self.bytes.resize(self.bytes.len() + if strings.is_empty() { 2 } else { 1 }, 0);
        self.structures += 1;
        self.longest = self.longest.max(self.bytes.len() - start);
    }
}

fn word(value: u16) -> [u8; 2] {
    value.to_le_bytes()
}

fn dword(value: u64) -> [u8; 4] {
    (value as u32).to_le_bytes()
}

/// Entry point and structures for a machine with `memory` bytes of RAM.
pub(crate) fn build(memory: u64) -> Smbios {
    const MAKER: &str = "Ring3";
    const NONE: [u8; 2] = [0xfe, 0xff];
    let mut t = Table::default();
    // System information: no UUID, woken by the power switch.
    t.add(1, 0x100, &[&[1, 2, 3, 0], &[0; 16], &[6, 0, 0]], &[MAKER, "Standard PC", "i440FX"]);
    // Chassis: a case of kind "other", all states safe, no security.
    t.add(3, 0x300, &[&[1, 1, 0, 0, 0, 3, 3, 3, 2], &[0; 4], &[0, 0, 0, 0, 0]], &[MAKER]);
    // Processor: central, family "other", in a socket that is populated.
    let speeds = [word(0), word(0), word(0)].concat();
    let caches = [word(0xffff); 3].concat();
    t.add(
        4,
        0x400,
        &[
            &[1, 3, 1, 2],
            &[0; 8],
            &[3, 0],
            &speeds,
            &[0x41, 1],
            &caches,
            &[0, 0, 0, 1, 1, 1],
            &word(2),
            &word(1),
        ],
        &["CPU 0", MAKER, "virtual"],
    );
    // The memory array, one device in it, and where it is seen.
    let kib = memory >> 10;
    let (array, extended) = if kib < 1 << 31 { (kib, 0) } else { (1 << 31, memory) };
    t.add(16, 0x1000, &[&[1, 3, 6], &dword(array), &NONE, &word(1), &extended.to_le_bytes()], &[]);
    let mib = memory >> 20;
    let (size, big) = if mib < 0x7fff { (mib as u16, 0) } else { (0x7fff, mib) };
    t.add(
        17,
        0x1100,
        &[
            &word(0x1000),
            &NONE,
            &[0xff; 4],
            &word(size),
            &[9, 0, 1, 0, 7],
            &word(2),
            &word(0),
            &[2, 0, 0, 0, 0],
            &dword(big),
            &[0; 8],
        ],
        &["DIMM 0", MAKER],
    );
    let (low, high) = e820::split(memory);
    let runs = [(0, low), (e820::HIGH_BASE, high)].into_iter().filter(|run| run.1 > 0);
    for ((base, len), handle) in runs.zip(0x1300..) {
        let end = base + len - 1;
        // Addresses in KiB; with all ones there, in bytes behind.
        t.add(
            19,
            handle,
            &[&dword(base >> 10), &dword(end >> 10), &word(0x1000), &[1], &[0; 16]],
            &[],
        );
    }
    // No boot failed.
    t.add(32, 0x2000, &[&[0; 7]], &[]);
    t.add(127, 0x7f00, &[], &[]);
    Smbios { anchor: anchor(&t), tables: t.bytes }
}

/// The entry point; firmware fills in the table's address and corrects the checksums.
fn anchor(t: &Table) -> Vec<u8> {
    let mut a = b"_SM_".to_vec();
    a.extend([0, ENTRY_POINT_LEN, 2, 8]);
    a.extend(word(t.longest as u16));
    a.extend([0; 6]);
    a.extend(b"_DMI_\0");
    a.extend(word(t.bytes.len() as u16));
    a.extend(dword(0));
    a.extend(word(t.structures));
    a.push(0x28);
    let negative = |bytes: &[u8]| bytes.iter().fold(0_u8, |s, b| s.wrapping_sub(*b));
    a[0x15] = negative(&a[0x10..]);
    a[4] = negative(&a);
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Structures: type, formatted length, strings.
    fn parse(mut t: &[u8]) -> Vec<(u8, u8, Vec<String>)> {
        let mut all = Vec::new();
        while let [kind, len, ..] = *t {
            let mut strings = Vec::new();
            let mut rest = &t[usize::from(len)..];
            while let Some(end) = rest.iter().position(|&b| b == 0).filter(|&end| end > 0) {
                strings.push(String::from_utf8(rest[..end].to_vec()).unwrap());
                rest = &rest[end + 1..];
            }
            t = &rest[if strings.is_empty() { 2 } else { 1 }..];
            all.push((kind, len, strings));
        }
        all
    }

    #[test]
    fn structures_have_the_lengths_of_the_specification() {
        let s = build(5 << 30);
        let all = parse(&s.tables);
        let lengths: Vec<(u8, u8)> = all.iter().map(|(kind, len, _)| (*kind, *len)).collect();
        let want = [
            (1, 0x1b),
            (3, 0x16),
            (4, 0x2a),
            (16, 0x17),
            (17, 0x28),
            (19, 0x1f),
            (19, 0x1f),
            (32, 0x0b),
            (127, 4),
        ];
        assert_eq!(lengths, want);
        assert_eq!(all[0].2, ["Ring3", "Standard PC", "i440FX"]);
        let sum = |b: &[u8]| b.iter().fold(0_u8, |s, b| s.wrapping_add(*b));
        assert_eq!((s.anchor.len(), sum(&s.anchor), sum(&s.anchor[0x10..])), (0x1f, 0, 0));
        assert_eq!(s.anchor[0x1c], all.len() as u8);
    }
}
