//! The IDE function of the PIIX3: two cables of two drives, with a bus master each.
//!
//! The command and control blocks are at the ports of old, which no base address register moves:
//! the board has them (1F0H and 3F6H, IRQ 14; 170H and 376H, IRQ 15) and gives them to
//! [`command_read`](Ide::command_read) and its kin. Base address register 4 is the bus masters'.
//!
//! | file | what |
//! |---|---|
//! | `channel` | the cable: who is selected, who answers |
//! | `drive` | the task file, phases and data of a drive |
//! | `ata`, `atapi` | the commands of disks and of CD drives |
//! | `bus_master` | DMA |
//!
//! Drives work as fast as the host's disks do: BSY stays until one has finished its request. That
//! is looked at in every access and in [`advance`](PciDevice::advance).
//!
//! Source: Intel 290550 (82371SB PIIX3), 2.2 (configuration of function 1) and 2.7.

mod ata;
mod atapi;
mod bus_master;
mod channel;
mod drive;
#[cfg(test)]
mod tests;

use crate::disk::Disk;
use crate::pci::{Bar, Host, Identity, PciConfig, PciDevice};
use bus_master::BusMaster;
use channel::Channel;

/// Function 1 of the PIIX3; legacy ports, bus master.
const IDENTITY: Identity = Identity {
    vendor: 0x8086,
    device: 0x7010,
    class: 0x01_0180,
    revision: 0,
    subsystem: (0x1af4, 0x1100),
};
/// IDE timing registers, whose bit 15 of each half lets a channel decode; slave timing.
const IDETIM: usize = 0x40;
const BUS_MASTER: usize = 4;

/// What is on a cable.
pub enum Unit {
    /// A hard disk.
    Disk(Box<dyn Disk>),
    /// A CD drive with its medium, which may be away.
    Cd(Box<dyn Disk>),
}

/// The controller.
pub struct Ide {
    config: PciConfig,
    channels: [Channel; 2],
    masters: [BusMaster; 2],
}

impl Ide {
    /// A controller with drives: by channel (0 is the primary), then by number on the cable.
    #[must_use]
    pub fn new(units: [[Option<Unit>; 2]; 2]) -> Ide {
        let mut config = PciConfig::new(IDENTITY, 0);
        config.set(0x06, &[0x80, 0x02]);
        config.bar(BUS_MASTER, Bar::Io, 16);
        config.writable(IDETIM, &[0xff, 0xff, 0xff, 0xff, 0xff]);
        Ide { config, channels: units.map(Channel::new), masters: Default::default() }
    }

    /// Reads `size` (1, 2, 4) bytes at register `reg` (0 to 7) of a channel's command block.
    pub fn command_read(&mut self, host: Host, channel: usize, reg: u8, size: u8) -> u32 {
        self.settle(host);
        let c = &mut self.channels[channel & 1];
        let (reg, size) = (usize::from(reg & 7), usize::from(size.min(4)));
        let value = match reg {
            0 => c.read_data(size),
            _ => (reg..(reg + size).min(8)).rev().fold(0, |v, r| v << 8 | u32::from(c.read(r))),
        };
        self.settle(host);
        value
    }

    /// Writes the low `size` (1, 2, 4) bytes of `value` at register `reg` of a channel's command
    /// block.
    pub fn command_write(&mut self, host: Host, channel: usize, reg: u8, size: u8, value: u32) {
        self.settle(host);
        let c = &mut self.channels[channel & 1];
        let (reg, size) = (usize::from(reg & 7), usize::from(size.min(4)));
        match reg {
            0 => c.write_data(size, value),
            _ => (reg..8).zip(value.to_le_bytes()).take(size).for_each(|(r, b)| c.write(r, b)),
        }
        self.settle(host);
    }

    /// Reads a channel's alternate status register (ports 3F6H, 376H).
    pub fn control_read(&mut self, host: Host, channel: usize) -> u8 {
        self.settle(host);
        self.channels[channel & 1].alternate_status()
    }

    /// Writes a channel's device control register (ports 3F6H, 376H).
    pub fn control_write(&mut self, host: Host, channel: usize, value: u8) {
        self.settle(host);
        self.channels[channel & 1].control(value);
        self.settle(host);
    }

    /// The level of a channel's interrupt: ISA IRQ 14 and 15.
    #[must_use]
    pub fn irq(&self, channel: usize) -> bool {
        self.channels[channel & 1].irq()
    }

    /// Whether the guest has a channel's ports decoded (IDETIM bit 15). Firmware turns them on.
    #[must_use]
    pub fn decodes(&self, channel: usize) -> bool {
        self.config.byte(IDETIM + 1 + 2 * (channel & 1)) & 0x80 != 0
    }

    fn settle(&mut self, host: Host) {
        let memory = self.config.is_master().then_some(host.memory);
        for (channel, master) in self.channels.iter_mut().zip(&mut self.masters) {
            channel.settle(master, memory);
        }
    }
}

impl PciDevice for Ide {
    fn config(&self) -> &PciConfig {
        &self.config
    }

    fn config_mut(&mut self) -> &mut PciConfig {
        &mut self.config
    }

    fn configured(&mut self, host: Host, _offset: u8, _size: u8) {
        self.settle(host);
    }

    fn read(&mut self, host: Host, bar: usize, offset: u64, size: u8) -> u64 {
        self.settle(host);
        if bar != BUS_MASTER {
            return 0;
        }
        let regs = offset..offset + u64::from(size.min(8));
        regs.rev().fold(0, |value, reg| {
            value << 8 | u64::from(self.masters[(reg >> 3 & 1) as usize].read(reg))
        })
    }

    fn write(&mut self, host: Host, bar: usize, offset: u64, size: u8, value: u64) {
        self.settle(host);
        if bar == BUS_MASTER {
            for (reg, byte) in (offset..).zip(value.to_le_bytes()).take(size.into()) {
                self.masters[(reg >> 3 & 1) as usize].write(reg, byte);
            }
        }
        self.settle(host);
    }

    fn advance(&mut self, host: Host) {
        self.settle(host);
    }

    fn reset(&mut self) {
        self.config.reset();
        self.channels.iter_mut().for_each(|c| c.reset(true));
        self.masters = Default::default();
    }
}
