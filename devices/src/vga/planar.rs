//! The window at A0000H–BFFFFH: how a byte of the CPU reaches the four planes, and back.
//!
//! All of it is done on the four planes at once, a dword with plane 0 in its lowest byte. An
//! address and its low bits say which dword and which planes (planar: all; odd/even: two of them;
//! chain 4: one); then the write mode, the rotator, set/reset, the logical function, the bit mask
//! and the map mask apply in this order, whatever the addressing.
//!
//! Source: IBM VGA/XGA Technical Reference Manual, "Graphics Controller Registers", "Sequencer
//! Registers".

use super::registers::*;
use super::{Vga, Window};

/// Addressing beyond this byte needs the display interface's banks.
const VGA_MEMORY: u64 = 1 << 18;

/// Where an access goes: the first byte of the dword, the planes that it may reach, and the low
/// bits of the address.
#[derive(Clone, Copy)]
struct Cell {
    at: u64,
    planes: u8,
    low: u8,
}

/// The bytes of the planes whose bits are set.
fn planes(bits: u8) -> u32 {
    (0..4).filter(|n| bits >> n & 1 != 0).fold(0, |bytes, n| bytes | 0xff << (8 * n))
}

fn every_plane(byte: u8) -> u32 {
    u32::from(byte) * 0x0101_0101
}

impl Vga {
    /// The part of the window that the memory map select shows: its first byte, counted from
    /// A0000H, and its length.
    fn mapped(&self) -> (u32, u32) {
        match self.regs.graphics[GC_MISCELLANEOUS] >> 2 & 3 {
            _ if self.dispi.enabled() => (0, 0x1_0000),
            0 => (0, 0x2_0000),
            1 => (0, 0x1_0000),
            2 => (0x1_0000, 0x8000),
            _ => (0x1_8000, 0x8000),
        }
    }

    fn chained(&self) -> bool {
        self.dispi.linear() || self.regs.sequencer[SEQ_MEMORY_MODE] & CHAIN_4 != 0
    }

    /// What is written is stored as it is.
    fn writes_plainly(&self) -> bool {
        let g = &self.regs.graphics;
        let (rotated, mode) = (g[GC_DATA_ROTATE], g[GC_MODE] & 3);
        g[GC_ENABLE_SET_RESET] | rotated | mode == 0 && g[GC_BIT_MASK] == 0xff
    }

    fn locate(&self, offset: u32, odd_even: bool) -> Option<Cell> {
        let (first, len) = self.mapped();
        let address = u64::from(offset.checked_sub(first).filter(|&n| n < len)?);
        let address = address + self.dispi.bank();
        let (at, planes, low) = if self.chained() {
            (address & !3, 1 << (address & 3), address & 3)
        } else if odd_even {
            ((address >> 1) * 4, 0b0101 << (address & 1), address & 1)
        } else {
            (address * 4, 0b1111, 0)
        };
        let at = if self.dispi.enabled() { at } else { at % VGA_MEMORY };
        Some(Cell { at, planes, low: low as u8 })
    }

    /// Reads the byte at `offset` from A0000H.
    pub fn memory_read(&mut self, offset: u32) -> u8 {
        let g = &self.regs.graphics;
        let odd_even = g[GC_MODE] & ODD_EVEN != 0;
        let Some(cell) = self.locate(offset, odd_even) else { return 0xff };
        self.latch = self.memory.read_u32(cell.at);
        if self.dispi.linear() {
            return self.latch.to_le_bytes()[usize::from(cell.low)];
        }
        if g[GC_MODE] & READ_MODE_1 != 0 {
            let compare = planes(g[GC_COLOR_COMPARE]) ^ self.latch;
            let differ = (compare & planes(g[GC_COLOR_DONT_CARE])).to_le_bytes();
            return !differ.into_iter().fold(0, |all, plane| all | plane);
        }
        let plane = match g[GC_READ_MAP_SELECT] {
            _ if self.chained() => cell.low,
            select if odd_even => select & 2 | cell.low,
            select => select,
        };
        self.latch.to_le_bytes()[usize::from(plane)]
    }

    /// Writes the byte at `offset` from A0000H.
    pub fn memory_write(&mut self, offset: u32, value: u8) {
        let odd_even = self.regs.sequencer[SEQ_MEMORY_MODE] & ODD_EVEN_OFF == 0;
        let Some(cell) = self.locate(offset, odd_even) else { return };
        let mask = match self.regs.sequencer[SEQ_MAP_MASK] {
            _ if self.dispi.linear() => cell.planes,
            mask => mask & cell.planes,
        };
        // Text and chained pixels: one plane, the byte as it is.
        if mask.is_power_of_two() && (self.dispi.linear() || self.writes_plainly()) {
            self.memory.write(cell.at + u64::from(mask.trailing_zeros()), &[value]);
        } else if mask != 0 {
            let (data, mask) = (self.written(value), planes(mask));
            let old = self.memory.read_u32(cell.at);
            self.memory.write_u32(cell.at, old & !mask | data & mask);
        }
    }

    /// What `value` becomes on its way to the planes.
    fn written(&self, value: u8) -> u32 {
        let g = &self.regs.graphics;
        let rotated = value.rotate_right(u32::from(g[GC_DATA_ROTATE] & 7));
        let set_reset = planes(g[GC_SET_RESET]);
        let (data, bits) = match g[GC_MODE] & 3 {
            0 => {
                let enabled = planes(g[GC_ENABLE_SET_RESET]);
                (every_plane(rotated) & !enabled | set_reset & enabled, g[GC_BIT_MASK])
            }
            1 => return self.latch,
            2 => (planes(value), g[GC_BIT_MASK]),
            _ => (set_reset, g[GC_BIT_MASK] & rotated),
        };
        let data = match g[GC_DATA_ROTATE] >> 3 & 3 {
            0 => data,
            1 => data & self.latch,
            2 => data | self.latch,
            _ => data ^ self.latch,
        };
        let bits = every_plane(bits);
        data & bits | self.latch & !bits
    }

    /// The part of the window that is nothing but RAM, until a register is written: a bank of a
    /// linear mode, or the chained mode with all of the logic off.
    #[must_use]
    pub fn window(&self) -> Option<Window> {
        let (at, len) = self.mapped();
        let r = &self.regs;
        let plain = self.writes_plainly()
            && r.sequencer[SEQ_MEMORY_MODE] & CHAIN_4 != 0
            && r.sequencer[SEQ_MAP_MASK] == 0x0f
            && r.graphics[GC_MODE] & READ_MODE_1 == 0;
        let is_ram = if self.dispi.enabled() { self.dispi.linear() } else { plain };
        let window = Window { at, offset: self.dispi.bank(), len: len.into() };
        (is_ram && window.offset + window.len <= self.memory.len()).then_some(window)
    }
}
