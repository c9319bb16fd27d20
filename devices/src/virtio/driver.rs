//! A driver for the tests: it finds the device by its registers, sets up its queues in either
//! form, and plays the driver's part in them.

use super::{Device, VirtioPci};
use crate::pci::{Host, PciDevice};
use crate::pci_host::PciFunction;
use emu_core::mem::Memory;

pub(crate) const INDIRECT: u64 = 1 << 28;
pub(crate) const EVENTS: u64 = 1 << 29;
pub(crate) const VERSION: u64 = 1 << 32;
pub(crate) const PACKED: u64 = 1 << 34;
/// All ways in which a queue can be used.
pub(crate) const FORMS: [u64; 8] = [
    0,
    EVENTS,
    INDIRECT,
    INDIRECT | EVENTS,
    PACKED,
    PACKED | EVENTS,
    PACKED | INDIRECT,
    PACKED | INDIRECT | EVENTS,
];
/// Where the test's memory has queues, indirect tables and buffers.
const QUEUES: u64 = 0x1_0000;
const TABLES: u64 = 0x8_0000;
pub(crate) const BUFFERS: u64 = 0x10_0000;
pub(crate) const MEMORY: u64 = 0x80_0000;
const REGISTERS: usize = 4;

/// A part of a chain: address, length, whether the device writes it.
pub(crate) type Part = (u64, u32, bool);

#[derive(Clone, Debug, Default)]
struct Ring {
    size: u16,
    /// Next descriptor to fill, next index to make available, next that is used.
    free: u16,
    avail: u16,
    used: u16,
    wraps: (bool, bool),
    /// Slots of each packed chain, by ID.
    slots: Vec<u16>,
    next_id: u16,
}

pub(crate) struct Driver<D: Device> {
    pub(crate) pci: VirtioPci<D>,
    pub(crate) memory: Memory,
    features: u64,
    rings: Vec<Ring>,
    table: u64,
    buffer: u64,
}

impl<D: Device> Driver<D> {
    /// A driver that has brought up the device with these features, with queues of 8 entries.
    pub(crate) fn new(device: D, features: u64) -> Driver<D> {
        let mut d = Driver::raw(device);
        d.bring_up(features, 8);
        d
    }

    /// A driver that has found the device, and nothing more.
    pub(crate) fn raw(device: D) -> Driver<D> {
        let mut pci = VirtioPci::new(device);
        pci.config_mut().config_write(4, 2, 6);
        let memory = Memory::flat(MEMORY).unwrap();
        Driver { pci, memory, features: 0, rings: vec![], table: TABLES, buffer: BUFFERS }
    }

    pub(crate) fn get(&mut self, offset: u64, size: u8) -> u64 {
        let host = Host { now: 0, memory: &self.memory };
        self.pci.read(host, REGISTERS, offset, size)
    }

    pub(crate) fn set(&mut self, offset: u64, size: u8, value: u64) {
        let host = Host { now: 0, memory: &self.memory };
        self.pci.write(host, REGISTERS, offset, size, value);
    }

    pub(crate) fn advance(&mut self) {
        self.pci.advance(Host { now: 0, memory: &self.memory });
    }

    /// Whether the device asks for a reset.
    pub(crate) fn needs_reset(&mut self) -> bool {
        self.get(0x14, 1) & 0x40 != 0
    }

    pub(crate) fn bring_up(&mut self, features: u64, size: u16) {
        self.features = features | VERSION;
        self.set(0x14, 1, 0);
        assert_eq!(self.get(0x14, 1), 0);
        self.set(0x14, 1, 3);
        for half in 0..2 {
            self.set(8, 4, half);
            self.set(12, 4, self.features >> (32 * half) & 0xffff_ffff);
        }
        self.set(0x14, 1, 0xb);
        assert_eq!(self.get(0x14, 1), 0xb, "the features {features:#x} were refused");
        let count = self.get(0x12, 2);
        self.rings.clear();
        self.memory.write(QUEUES, &vec![0; 0x4000 * count as usize]);
        for n in 0..count {
            let base = QUEUES + 0x4000 * n;
            self.set(0x16, 2, n);
            self.set(0x18, 2, size.into());
            self.set(0x1a, 2, n + 1);
            self.set(0x20, 8, base);
            self.set(0x28, 4, base + 0x2000);
            self.set(0x2c, 4, 0);
            self.set(0x30, 8, base + 0x3000);
            self.set(0x1c, 2, 1);
            assert_eq!((self.get(0x1c, 2), self.get(0x1a, 2)), (1, n + 1));
            let slots = vec![0; usize::from(size)];
            self.rings.push(Ring { size, wraps: (true, true), slots, ..Ring::default() });
        }
        self.set(0x14, 1, 0xf);
    }

    /// How many queues there are.
    pub(crate) fn queues(&self) -> usize {
        self.rings.len()
    }

    /// Where a queue's areas are.
    pub(crate) fn area(queue: usize, area: u64) -> u64 {
        QUEUES + 0x4000 * queue as u64 + [0, 0x2000, 0x3000][area as usize]
    }

    fn put16(&self, at: u64, value: u16) {
        self.memory.write(at, &value.to_le_bytes());
    }

    fn get16(&self, at: u64) -> u16 {
        u16::from_le_bytes(self.memory.read_array(at))
    }

    /// Memory for a buffer; it begins anew when there is no more.
    pub(crate) fn buffer(&mut self, bytes: &[u8]) -> u64 {
        if self.buffer + bytes.len() as u64 > MEMORY {
            self.buffer = BUFFERS;
        }
        let at = self.buffer;
        self.buffer += bytes.len() as u64;
        self.memory.write(at, bytes);
        at
    }

    pub(crate) fn bytes(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read(at, &mut bytes);
        bytes
    }

    /// Writes a descriptor: `last` is the ID (packed) or the next index (split).
    pub(crate) fn descriptor(&self, at: u64, part: (u64, u32), flags: u16, last: u16) {
        let (low, high) = if self.features & PACKED != 0 { (last, flags) } else { (flags, last) };
        self.memory.write(at, &part.0.to_le_bytes());
        self.memory.write(at + 8, &part.1.to_le_bytes());
        self.put16(at + 12, low);
        self.put16(at + 14, high);
    }

    /// Makes a chain available; gives its ID.
    pub(crate) fn add(&mut self, queue: usize, parts: &[Part]) -> u16 {
        let packed = self.features & PACKED != 0;
        let mut parts = parts.to_vec();
        let mut indirect = 0;
        if self.features & INDIRECT != 0 && parts.len() > 1 {
            if self.table + 0x400 > BUFFERS {
                self.table = TABLES;
            }
            for (n, (at, len, writes)) in (0..).zip(&parts) {
                let more = usize::from(n) + 1 < parts.len() && !packed;
                let flags = u16::from(more) | u16::from(*writes) << 1;
                self.descriptor(self.table + 16 * u64::from(n), (*at, *len), flags, n + 1);
            }
            parts = vec![(self.table, 16 * parts.len() as u32, false)];
            self.table += 0x400;
            indirect = 4;
        }
        let (desc, driver) = (Self::area(queue, 0), Self::area(queue, 1));
        let mut r = self.rings[queue].clone();
        let id = if packed { r.next_id } else { r.free };
        let first = r.free;
        let mut first_flags = 0;
        for (n, (at, len, writes)) in parts.iter().enumerate() {
            let next = (r.free + 1) % r.size;
            let more = u16::from(n + 1 < parts.len());
            let mut flags = more | u16::from(*writes) << 1 | indirect;
            let at16 = desc + 16 * u64::from(r.free);
            if packed {
                flags |= if r.wraps.0 { 1 << 7 } else { 1 << 15 };
                if n == 0 {
                    first_flags = flags;
                    // Not yet: the bits of the round before.
                    flags ^= 1 << 7 | 1 << 15;
                }
                r.wraps.0 ^= next == 0;
            }
            self.descriptor(at16, (*at, *len), flags, if packed { id } else { next });
            r.free = next;
        }
        if packed {
            r.slots[usize::from(id)] = parts.len() as u16;
            r.next_id = (id + 1) % r.size;
            self.put16(desc + 16 * u64::from(first) + 14, first_flags);
        } else {
            self.put16(driver + 4 + 2 * u64::from(r.avail % r.size), id);
            r.avail = r.avail.wrapping_add(1);
            self.put16(driver + 2, r.avail);
        }
        self.rings[queue] = r;
        id
    }

    pub(crate) fn kick(&mut self, queue: usize) {
        self.set(0x3000 + 4 * queue as u64, 2, queue as u64);
    }

    /// Takes a chain that was used: ID and length.
    pub(crate) fn used(&mut self, queue: usize) -> Option<(u16, u32)> {
        let mut r = self.rings[queue].clone();
        let found = if self.features & PACKED != 0 {
            let at = Self::area(queue, 0) + 16 * u64::from(r.used);
            let flags = self.get16(at + 14);
            let both = [7, 15].map(|bit| flags >> bit & 1 != 0);
            if both != [r.wraps.1; 2] {
                return None;
            }
            let id = self.get16(at + 12);
            r.used += r.slots[usize::from(id)];
            if r.used >= r.size {
                (r.used, r.wraps.1) = (r.used - r.size, !r.wraps.1);
            }
            (id, u32::from_le_bytes(self.memory.read_array(at + 8)))
        } else {
            let area = Self::area(queue, 2);
            if self.get16(area + 2) == r.used {
                return None;
            }
            let at = area + 4 + 8 * u64::from(r.used % r.size);
            r.used = r.used.wrapping_add(1);
            (self.get16(at), u32::from_le_bytes(self.memory.read_array(at + 4)))
        };
        self.rings[queue] = r;
        Some(found)
    }

    /// Makes a chain available and expects it back at once.
    pub(crate) fn call(&mut self, queue: usize, parts: &[Part]) -> u32 {
        let id = self.add(queue, parts);
        self.kick(queue);
        let (used, len) = self.used(queue).expect("the device gives it back");
        assert_eq!(used, id);
        len
    }

    /// Says when the driver wants interrupts: never, always, or when so many more were used.
    pub(crate) fn want_interrupts(&mut self, queue: usize, when: Interrupts) {
        let (r, at) = (&self.rings[queue], Self::area(queue, 1));
        let packed = self.features & PACKED != 0;
        match (when, packed) {
            (Interrupts::Never, false) => self.put16(at, 1),
            (Interrupts::Always, false) => self.put16(at, 0),
            (Interrupts::After(n), false) => {
                self.put16(at + 4 + 2 * u64::from(r.size), r.used.wrapping_add(n));
            }
            (Interrupts::Never, true) => self.put16(at + 2, 1),
            (Interrupts::Always, true) => self.put16(at + 2, 0),
            (Interrupts::After(n), true) => {
                let (index, wrap) = (r.used + n, r.wraps.1);
                let (index, wrap) =
                    if index >= r.size { (index - r.size, !wrap) } else { (index, wrap) };
                self.put16(at, index | u16::from(wrap) << 15);
                self.put16(at + 2, 2);
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Interrupts {
    Never,
    Always,
    After(u16),
}
