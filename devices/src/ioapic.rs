//! The 82093AA I/O APIC: 24 interrupt lines become messages to local APICs.
//!
//! Problem: each pin has a redirection entry that says what its assertion sends, and a
//! level-triggered pin must be sent again after EOI for as long as it is asserted.
//!
//! Method: the asserted pins are one bit set, the redirection table is an array. After whatever
//! may let a level-triggered pin through (line, table, EOI) that pin is looked at once. Messages
//! wait in [`IoApic::take_messages`] for the board.
//!
//! Invariants: Remote IRR is set only in entries that are level-triggered; while it is set, its
//! pin sends nothing. A line is given as asserted or not, so the polarity bit is kept for the
//! guest but changes nothing: the board knows what its lines mean.
//!
//! Source: Intel 82093AA datasheet (290566); the EOI register at 40H is that of version 20H, in
//! the datasheets of later south bridges.

use crate::lapic::{BROADCAST, DeliveryMode};

/// Number of interrupt input pins.
pub const PINS: u8 = 24;
/// Guest-physical address at which a PC has its first I/O APIC.
pub const DEFAULT_BASE: u64 = 0xFEC0_0000;

/// Maximum redirection entry 17H, APIC version 20H.
const VERSION: u32 = (PINS as u32 - 1) << 16 | 0x20;

const IOREGSEL: u64 = 0x00;
const IOWIN: u64 = 0x10;
const EOI: u64 = 0x40;

const IOAPICID: u8 = 0x00;
const IOAPICVER: u8 = 0x01;
const IOAPICARB: u8 = 0x02;
const IOREDTBL: u8 = 0x10;
const IOREDTBL_LAST: u8 = IOREDTBL + 2 * PINS - 1;

const LOGICAL: u64 = 1 << 11;
const REMOTE_IRR: u64 = 1 << 14;
const LEVEL: u64 = 1 << 15;
const MASKED: u64 = 1 << 16;
/// All but the read-only delivery status (12) and Remote IRR (14), and the reserved bits.
const WRITABLE: u64 = 0xFF00_0000_0001_AFFF;

/// An interrupt message on its way to the local APICs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Interrupt vector; has no meaning for SMI, NMI, INIT and ExtINT.
    pub vector: u8,
    /// What is asked of the destination.
    pub delivery_mode: DeliveryMode,
    /// APIC ID or logical destination, 8 bits; FFH is given as [`BROADCAST`].
    pub dest: u32,
    /// Logical rather than physical destination mode.
    pub logical: bool,
    /// The local APIC shall broadcast the EOI of this vector.
    pub level_triggered: bool,
}

/// An I/O APIC.
#[derive(Clone, Debug, PartialEq)]
pub struct IoApic {
    select: u8,
    /// Bits 27:24 of IOAPICID.
    id: u8,
    table: [u64; PINS as usize],
    /// Asserted pins, one bit each.
    lines: u32,
    messages: Vec<Message>,
}

impl Default for IoApic {
    fn default() -> Self {
        Self::new()
    }
}

impl IoApic {
    /// An I/O APIC after reset: every pin masked.
    #[must_use]
    pub fn new() -> Self {
        let table = [MASKED; PINS as usize];
        Self { select: 0, id: 0, table, lines: 0, messages: Vec::new() }
    }

    /// Power-up reset. The input lines are as their devices drive them.
    pub fn reset(&mut self) {
        *self = Self { lines: self.lines, ..Self::new() };
    }

    /// The APIC ID that software has set, 4 bits.
    #[must_use]
    pub fn id(&self) -> u8 {
        self.id
    }

    /// The register that IOREGSEL names.
    #[must_use]
    pub fn select(&self) -> u8 {
        self.select
    }

    /// The redirection table, an entry for each pin.
    #[must_use]
    pub fn table(&self) -> &[u64; PINS as usize] {
        &self.table
    }

    /// The asserted pins, a bit each.
    #[must_use]
    pub fn lines(&self) -> u32 {
        self.lines
    }

    /// Reads `size` bytes at `offset` of the register window. The registers repeat every 256
    /// bytes; what is not one of them reads as zero.
    pub fn read(&mut self, _now: u64, offset: u64, size: u8) -> u64 {
        let size_mask = u64::MAX >> (64 - 8 * u32::from(size.clamp(1, 8)));
        let register = match offset & 0xF0 {
            IOREGSEL => self.select.into(),
            IOWIN => self.selected(),
            _ => 0,
        };
        match offset & 0xF {
            byte @ 0..4 => u64::from(register) >> (8 * byte) & size_mask,
            _ => 0,
        }
    }

    /// Writes `size` bytes at `offset` of the register window. A part of IOWIN changes the
    /// selected register in part.
    pub fn write(&mut self, _now: u64, offset: u64, size: u8, value: u64) {
        let byte = offset & 0xF;
        match offset & 0xF0 {
            IOREGSEL if byte == 0 => self.select = value as u8,
            IOWIN if byte < 4 => {
                let lanes = (u64::MAX >> (64 - 8 * u32::from(size.clamp(1, 8)))) << (8 * byte);
                let old = u64::from(self.selected());
                self.set_selected((old & !lanes | value << (8 * byte) & lanes) as u32);
            }
            EOI if byte == 0 => self.eoi(value as u8),
            _ => {}
        }
    }

    /// An input line changes: `asserted` means that it asks for an interrupt, whatever the
    /// voltage. A pin that does not exist is ignored.
    pub fn set_irq(&mut self, pin: u8, asserted: bool) {
        if pin >= PINS {
            return;
        }
        let bit = 1 << pin;
        let rises = asserted && self.lines & bit == 0;
        self.lines = if asserted { self.lines | bit } else { self.lines & !bit };
        let entry = self.table[usize::from(pin)];
        if is_level(entry) {
            self.service(pin.into());
        } else if rises && entry & MASKED == 0 {
            // An edge at a masked pin is lost.
            self.send(entry);
        }
    }

    /// End of interrupt: level-triggered pins with this vector may be sent again, and are if they
    /// are still asserted.
    pub fn eoi(&mut self, vector: u8) {
        for pin in 0..self.table.len() {
            let entry = &mut self.table[pin];
            if *entry & REMOTE_IRR != 0 && *entry as u8 == vector {
                *entry &= !REMOTE_IRR;
                self.service(pin);
            }
        }
    }

    /// Takes the messages that were sent since the last call, in order.
    pub fn take_messages(&mut self) -> Vec<Message> {
        std::mem::take(&mut self.messages)
    }

    fn selected(&self) -> u32 {
        match self.select {
            IOAPICID | IOAPICARB => u32::from(self.id) << 24,
            IOAPICVER => VERSION,
            index @ IOREDTBL..=IOREDTBL_LAST => {
                let entry = self.table[usize::from((index - IOREDTBL) >> 1)];
                (entry >> (32 * (index & 1))) as u32
            }
            _ => 0,
        }
    }

    fn set_selected(&mut self, value: u32) {
        match self.select {
            IOAPICID => self.id = (value >> 24) as u8 & 0xF,
            index @ IOREDTBL..=IOREDTBL_LAST => {
                let (pin, shift) = (usize::from((index - IOREDTBL) >> 1), 32 * (index & 1));
                let lanes = 0xFFFF_FFFF << shift & WRITABLE;
                let entry = &mut self.table[pin];
                *entry = *entry & !lanes | u64::from(value) << shift & lanes;
                // Guests of version 11H chips clear a stuck Remote IRR by going through edge.
                if !is_level(*entry) {
                    *entry &= !REMOTE_IRR;
                }
                self.service(pin);
            }
            _ => {}
        }
    }

    /// Sends a level-triggered pin if it is asserted, unmasked and not already on its way.
    fn service(&mut self, pin: usize) {
        let entry = self.table[pin];
        let asserted = self.lines >> pin & 1 != 0;
        if asserted && is_level(entry) && entry & (MASKED | REMOTE_IRR) == 0 {
            self.table[pin] |= REMOTE_IRR;
            self.send(entry);
        }
    }

    fn send(&mut self, entry: u64) {
        self.messages.push(Message {
            vector: entry as u8,
            delivery_mode: DeliveryMode::from_bits((entry >> 8) as u8),
            dest: match (entry >> 56) as u32 {
                0xFF => BROADCAST,
                dest => dest,
            },
            logical: entry & LOGICAL != 0,
            level_triggered: is_level(entry),
        });
    }
}

/// SMI, NMI, INIT and ExtINT get no EOI, so they are edges whatever the trigger mode says.
fn is_level(entry: u64) -> bool {
    entry & LEVEL != 0 && DeliveryMode::from_bits((entry >> 8) as u8).has_vector()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Rng;

    fn get(chip: &mut IoApic, index: u8) -> u32 {
        chip.write(0, IOREGSEL, 4, index.into());
        chip.read(0, IOWIN, 4) as u32
    }

    fn set(chip: &mut IoApic, index: u8, value: u32) {
        chip.write(0, IOREGSEL, 4, index.into());
        chip.write(0, IOWIN, 4, value.into());
    }

    fn entry(chip: &mut IoApic, pin: u8, value: u64) {
        set(chip, IOREDTBL + 2 * pin + 1, (value >> 32) as u32);
        set(chip, IOREDTBL + 2 * pin, value as u32);
    }

    fn vectors(chip: &mut IoApic) -> Vec<u8> {
        chip.take_messages().iter().map(|message| message.vector).collect()
    }

    #[test]
    fn identification() {
        let mut chip = IoApic::new();
        assert_eq!(get(&mut chip, IOAPICVER), 0x0017_0020);
        set(&mut chip, IOAPICID, 0xFFFF_FFFF);
        assert_eq!(get(&mut chip, IOAPICID), 0x0F00_0000);
        assert_eq!(get(&mut chip, IOAPICARB), 0x0F00_0000);
        assert_eq!(get(&mut chip, IOREDTBL), 0x1_0000);
        assert_eq!(get(&mut chip, IOREDTBL_LAST + 1), 0);
        assert_eq!(chip.read(0, IOREGSEL, 4), 0x40);
    }

    #[test]
    fn read_only_bits() {
        let mut chip = IoApic::new();
        entry(&mut chip, 23, u64::MAX);
        assert_eq!(get(&mut chip, IOREDTBL + 46), 0x0001_AFFF);
        assert_eq!(get(&mut chip, IOREDTBL + 47), 0xFF00_0000);
    }

    #[test]
    fn edge() {
        let mut chip = IoApic::new();
        chip.set_irq(4, true);
        chip.set_irq(4, false);
        entry(&mut chip, 4, 3 << 56 | LOGICAL | 0x134);
        assert_eq!(vectors(&mut chip), [], "an edge while masked is lost");
        chip.set_irq(4, true);
        chip.set_irq(4, true);
        let message = Message {
            vector: 0x34,
            delivery_mode: DeliveryMode::LowestPriority,
            dest: 3,
            logical: true,
            level_triggered: false,
        };
        assert_eq!(chip.take_messages(), [message]);
        chip.eoi(0x34);
        assert_eq!(vectors(&mut chip), []);
        chip.set_irq(4, false);
        chip.set_irq(4, true);
        assert_eq!(vectors(&mut chip), [0x34]);
    }

    #[test]
    fn level_until_deasserted() {
        let mut chip = IoApic::new();
        chip.set_irq(10, true);
        entry(&mut chip, 10, 0xFF << 56 | LEVEL | 0x5A);
        let messages = chip.take_messages();
        assert!(messages.len() == 1 && messages[0].level_triggered);
        assert_eq!(messages[0].dest, BROADCAST);
        assert_eq!(get(&mut chip, IOREDTBL + 20), 0xC05A, "Remote IRR");
        chip.set_irq(10, false);
        chip.set_irq(10, true);
        assert_eq!(vectors(&mut chip), [], "no second one before EOI");
        chip.eoi(0x5B);
        assert_eq!(vectors(&mut chip), []);
        chip.eoi(0x5A);
        assert_eq!(vectors(&mut chip), [0x5A]);
        chip.set_irq(10, false);
        chip.write(0, EOI, 4, 0x5A);
        assert_eq!(vectors(&mut chip), []);
        assert_eq!(get(&mut chip, IOREDTBL + 20), 0x805A);
    }

    #[test]
    fn level_masked_then_unmasked() {
        let mut chip = IoApic::new();
        entry(&mut chip, 9, MASKED | LEVEL | 0x39);
        chip.set_irq(9, true);
        assert_eq!(vectors(&mut chip), []);
        entry(&mut chip, 9, LEVEL | 0x39);
        assert_eq!(vectors(&mut chip), [0x39]);
        entry(&mut chip, 9, MASKED | LEVEL | 0x39);
        chip.eoi(0x39);
        assert_eq!(vectors(&mut chip), []);
    }

    #[test]
    fn edge_mode_clears_remote_irr() {
        let mut chip = IoApic::new();
        entry(&mut chip, 9, LEVEL | 0x39);
        chip.set_irq(9, true);
        entry(&mut chip, 9, MASKED | 0x39);
        assert_eq!(get(&mut chip, IOREDTBL + 18), 0x1_0039);
        chip.take_messages();
        entry(&mut chip, 9, LEVEL | 0x39);
        assert_eq!(vectors(&mut chip), [0x39]);
    }

    #[test]
    fn polarity_is_kept_and_ignored() {
        let mut chip = IoApic::new();
        entry(&mut chip, 11, 1 << 13 | LEVEL | 0x3B);
        assert_eq!(vectors(&mut chip), []);
        chip.set_irq(11, true);
        assert_eq!(vectors(&mut chip), [0x3B]);
        assert_eq!(get(&mut chip, IOREDTBL + 22), 0xE03B);
    }

    #[test]
    fn special_modes_are_edges() {
        for (bits, mode) in [
            (2, DeliveryMode::Smi),
            (4, DeliveryMode::Nmi),
            (5, DeliveryMode::Init),
            (7, DeliveryMode::ExtInt),
        ] {
            let mut chip = IoApic::new();
            entry(&mut chip, 0, LEVEL | bits << 8);
            chip.set_irq(0, true);
            let messages = chip.take_messages();
            assert_eq!(messages.len(), 1);
            assert_eq!((messages[0].delivery_mode, messages[0].level_triggered), (mode, false));
            assert_eq!(get(&mut chip, IOREDTBL) & REMOTE_IRR as u32, 0);
        }
    }

    #[test]
    fn reset_keeps_the_lines() {
        let mut chip = IoApic::new();
        chip.set_irq(5, true);
        entry(&mut chip, 5, LEVEL | 0x35);
        chip.reset();
        assert_eq!(vectors(&mut chip), []);
        entry(&mut chip, 5, LEVEL | 0x36);
        assert_eq!(vectors(&mut chip), [0x36]);
    }

    #[test]
    fn odd_accesses() {
        let mut chip = IoApic::new();
        chip.write(0, IOREGSEL, 1, IOREDTBL.into());
        chip.write(0, IOWIN, 1, 0x44);
        chip.write(0, IOWIN + 1, 1, 0x09);
        assert_eq!(chip.read(0, IOWIN, 8), 0x0001_0944);
        assert_eq!(chip.read(0, IOWIN + 2, 1), 1);
        assert_eq!(chip.read(0, IOWIN + 4, 4), 0);
    }

    fn fits(value: u64, size: u8) -> bool {
        value.checked_shr(8 * u32::from(size)).is_none_or(|rest| rest == 0)
    }

    #[test]
    fn random_accesses() {
        let mut rng = Rng(1);
        let mut random = || rng.next() << 32 ^ rng.next();
        let mut chip = IoApic::new();
        for _ in 0..200_000 {
            let (offset, value) = (random(), random());
            let size = (random() % 8 + 1) as u8;
            match random() % 8 {
                0 => chip.write(0, IOREGSEL, 1, value % 0x42),
                1 => chip.write(0, IOWIN, 4, value & !MASKED),
                2 => chip.write(0, offset, size, value),
                3 => assert!(fits(chip.read(0, offset, size), size)),
                4 => chip.eoi(value as u8),
                _ => chip.set_irq(value as u8 & 31, offset & 1 != 0),
            }
            assert!(chip.take_messages().len() <= PINS.into());
            assert!(chip.table.iter().all(|&e| e & REMOTE_IRR == 0 || is_level(e)));
        }
    }
}
