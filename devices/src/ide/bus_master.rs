//! The bus master of one IDE channel: it moves the data of a DMA command between the drive and the
//! guest's memory as a table of regions (PRDs) says.
//!
//! | offset | register |
//! |---|---|
//! | 0 | BMICX: start, direction |
//! | 2 | BMISX: active, error, interrupt, what drivers note of the drives |
//! | 4 | BMIDTPX: guest-physical address of the table |
//!
//! Active falls with the last byte of the last region. If the drive ends first, it stays and the
//! interrupt bit tells that the command is over; if the regions end first, the drive waits.
//!
//! Source: Intel 290550 (82371SB PIIX3), 2.7; Programming Interface for Bus Master IDE Controller,
//! revision 1.0.

use emu_core::mem::Memory;

const START: u8 = 1;
/// The drive is read, memory is written.
const TO_MEMORY: u8 = 8;
const ACTIVE: u8 = 1;
const ERROR: u8 = 2;
const INTERRUPT: u8 = 4;
const DRIVES: u8 = 0x60;
/// Last entry of the table.
const EOT: u32 = 1 << 31;

/// Registers of one channel, and the region that is being filled or emptied.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct BusMaster {
    command: u8,
    status: u8,
    table: u32,
    /// Where the next entry is read.
    next: u32,
    /// The current region: where it goes on, what is left of it, whether it is the last.
    at: u32,
    left: u32,
    last: bool,
}

/// Data of a drive that waits for the bus master.
pub(super) enum Dma<'a> {
    /// To be written to memory.
    In(&'a [u8]),
    /// To be filled from memory.
    Out(&'a mut [u8]),
}

impl BusMaster {
    pub(super) fn read(&self, reg: u64) -> u8 {
        match reg & 7 {
            0 => self.command,
            2 => self.status,
            n @ 4.. => (self.table >> (8 * (n - 4))) as u8,
            _ => 0,
        }
    }

    pub(super) fn write(&mut self, reg: u64, value: u8) {
        match reg & 7 {
            0 => {
                let starts = value & !self.command & START != 0;
                self.command = value & (START | TO_MEMORY);
                if starts {
                    (self.next, self.left, self.last) = (self.table, 0, false);
                    self.status |= ACTIVE;
                } else if value & START == 0 {
                    self.status &= !ACTIVE;
                }
            }
            2 => {
                let kept = self.status & (ACTIVE | (ERROR | INTERRUPT) & !value);
                self.status = kept | value & DRIVES;
            }
            n @ 4.. => {
                let shift = 8 * (n - 4);
                self.table = (self.table & !(0xff << shift) | u32::from(value) << shift) & !3;
            }
            _ => {}
        }
    }

    /// The channel's interrupt line has risen.
    pub(super) fn interrupt(&mut self) {
        self.status |= INTERRUPT;
    }

    /// Moves as much as table and direction allow; how many bytes that were.
    pub(super) fn transfer(&mut self, memory: &Memory, mut data: Dma) -> usize {
        let (to_memory, total) = match &data {
            Dma::In(d) => (true, d.len()),
            Dma::Out(d) => (false, d.len()),
        };
        let mut moved = 0;
        while moved < total
            && self.status & ACTIVE != 0
            && (self.command & TO_MEMORY != 0) == to_memory
        {
            if self.left == 0 {
                let entry: [u8; 8] = memory.read_array(self.next.into());
                let [low, high] = [0, 4].map(|n| {
                    u32::from_le_bytes([entry[n], entry[n + 1], entry[n + 2], entry[n + 3]])
                });
                // The table does not cross 64 KiB.
                self.next = self.next & !0xffff | self.next.wrapping_add(8) & 0xffff;
                self.at = low & !1;
                self.left = match high & 0xfffe {
                    0 => 0x1_0000,
                    n => n,
                };
                self.last = high & EOT != 0;
            }
            let n = (total - moved).min(self.left as usize);
            match &mut data {
                Dma::In(d) => memory.write(self.at.into(), &d[moved..moved + n]),
                Dma::Out(d) => memory.read(self.at.into(), &mut d[moved..moved + n]),
            }
            moved += n;
            self.at = self.at.wrapping_add(n as u32);
            self.left -= n as u32;
            if self.left == 0 && self.last {
                self.status &= !ACTIVE;
            }
        }
        moved
    }
}
