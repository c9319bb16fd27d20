//! One IDE cable: two drives that hear every write of the command block, one of which answers.
//!
//! A cable without drives reads as zeros. If drive 0 is a disk and alone it answers for drive 1,
//! whose status reads as zero. A CD drive answers zeros only, so that its signature is not found
//! twice.
//!
//! Source: ATA/ATAPI-7 volume 2, 5 (register delivery); 9.2 (software reset), 9.16 (configurations
//! with one drive).

use super::Unit;
use super::bus_master::BusMaster;
use super::drive::{BSY, DEVICE, Drive};
use emu_core::mem::Memory;

/// Device control register.
const NIEN: u8 = 2;
const SRST: u8 = 4;
const HOB: u8 = 0x80;
const STATUS: usize = 7;
const DEVICE_RESET: u8 = 0x08;
const EXECUTE_DEVICE_DIAGNOSTIC: u8 = 0x90;

pub(super) struct Channel {
    drives: [Option<Drive>; 2],
    selected: usize,
    control: u8,
    /// The interrupt line, as the bus master has last seen it.
    line: bool,
}

impl Channel {
    pub(super) fn new(units: [Option<Unit>; 2]) -> Channel {
        let drives = units.map(|u| {
            u.map(|u| match u {
                Unit::Disk(disk) => Drive::new(disk, false),
                Unit::Cd(disk) => Drive::new(disk, true),
            })
        });
        Channel { drives, selected: 0, control: 0, line: false }
    }

    fn drive(&mut self) -> Option<&mut Drive> {
        self.drives[self.selected].as_mut()
    }

    /// INTRQ, as it leaves the cable.
    pub(super) fn irq(&self) -> bool {
        self.control & NIEN == 0 && self.drives[self.selected].as_ref().is_some_and(|d| d.intrq)
    }

    /// RESET#, SRST and EXECUTE DEVICE DIAGNOSTIC.
    pub(super) fn reset(&mut self, hard: bool) {
        self.selected = 0;
        for d in self.drives.iter_mut().flatten() {
            d.regs[DEVICE] = 0;
            d.reset(hard);
        }
        if hard {
            self.control = 0;
        }
    }

    pub(super) fn read(&mut self, reg: usize) -> u8 {
        let hob = self.control & HOB != 0;
        match (self.selected, &mut self.drives) {
            (0, [Some(d), _]) | (1, [_, Some(d)]) => d.read(reg, hob),
            (1, [Some(d), None]) if reg != STATUS && d.cd.is_none() => d.read(reg, hob),
            _ => 0,
        }
    }

    pub(super) fn write(&mut self, reg: usize, value: u8) {
        self.control &= !HOB;
        let is_reset = reg == STATUS && value == DEVICE_RESET;
        let held = self.control & SRST != 0;
        if held || self.drive().is_some_and(|d| d.is_busy() && !(is_reset && d.cd.is_some())) {
            return;
        }
        if reg == STATUS {
            self.command(value);
            return;
        }
        if reg == DEVICE {
            self.selected = usize::from(value >> 4 & 1);
        }
        self.drives.iter_mut().flatten().for_each(|d| d.write(reg, value));
    }

    fn command(&mut self, opcode: u8) {
        if opcode == EXECUTE_DEVICE_DIAGNOSTIC {
            self.reset(false);
            if let Some(d) = self.drives.iter_mut().flatten().next() {
                d.raise();
            }
        } else if let Some(d) = self.drive() {
            d.command(opcode);
        }
    }

    pub(super) fn read_data(&mut self, size: usize) -> u32 {
        self.drive().map_or(0, |d| d.read_data(size))
    }

    pub(super) fn write_data(&mut self, size: usize, value: u32) {
        if let Some(d) = self.drive() {
            d.write_data(size, value);
        }
    }

    /// Alternate status: no interrupt is acknowledged.
    pub(super) fn alternate_status(&mut self) -> u8 {
        self.drive().map_or(0, |d| d.status)
    }

    /// Device control.
    pub(super) fn control(&mut self, value: u8) {
        let was = std::mem::replace(&mut self.control, value & (NIEN | SRST | HOB));
        match (was & SRST != 0, value & SRST != 0) {
            (false, true) => {
                self.reset(false);
                self.drives.iter_mut().flatten().for_each(|d| d.status = BSY);
            }
            (true, false) => self.reset(false),
            _ => {}
        }
    }

    /// Takes what the host has finished and moves what the bus master can, until nothing goes on.
    pub(super) fn settle(&mut self, master: &mut BusMaster, memory: Option<&Memory>) {
        let mut goes_on = true;
        while goes_on {
            goes_on = self.drives.iter_mut().flatten().fold(false, |any, d| d.poll() | any);
            let selected = self.drives[self.selected].as_mut();
            if let (Some(d), Some(memory)) = (selected, memory) {
                let moved = d.dma().map_or(0, |data| master.transfer(memory, data));
                d.dma_moved(moved);
                goes_on |= moved > 0;
            }
        }
        let (was, now) = (self.line, self.irq());
        let raised = self.drive().is_some_and(|d| std::mem::take(&mut d.raised));
        if now && (raised || !was) {
            master.interrupt();
        }
        self.line = now;
    }
}
