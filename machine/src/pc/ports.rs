//! Who answers at which port and address: the tables, and how an access finds its chip.

use super::Chips;
use super::pci::lend;
use crate::acpi;
use crate::boot::e820;
use devices::acpi_pm;
use devices::fw_cfg;
use devices::hpet;
use devices::i8259::PicReg;
use devices::i82077::FloppyDma;
use devices::ioapic;
use devices::pc_testdev;
use devices::vga::Vga;

/// Who answers at a range of ports or addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chip {
    PicMaster,
    PicSlave,
    PicElcr,
    Pit,
    Port61,
    Port92,
    /// The 8042's register, data or command and status.
    Keyboard(u16),
    Rtc,
    Post,
    Com(usize),
    DebugCon,
    FirmwareLog,
    FwCfg,
    Testdev,
    /// The interrupt lines of `pc-testdev`.
    TestdevLines,
    DebugExit,
    SmiCommand,
    Power,
    Gpe0,
    Reset,
    /// The configuration ports from this register on: address or data.
    Pci(u16),
    IoApic,
    Hpet,
    LocalApic,
    /// The VGA's ports from this one on, or its window in memory.
    Vga(u16),
    /// The command block of an IDE channel.
    Ide(usize),
    /// Its control block.
    IdeControl(usize),
    /// A DMA controller, whose registers are one or two ports apart.
    Dma(usize),
    DmaPage,
    /// The floppy controller's registers from this one on.
    Floppy(u16),
    /// The index and data ports of the VGA's Bochs interface.
    Dispi,
    /// A part of C0000 to FFFFF whose RAM is written while its ROM is read.
    Shadow,
}

impl Chip {
    /// What it is called in a list.
    pub(super) fn name(self) -> String {
        format!("{self:?}").to_ascii_lowercase()
    }
}

/// A range of ports, and the access sizes (1, 2, 4, or their sum) that the chip takes whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    pub(super) base: u16,
    pub(super) len: u16,
    sizes: u8,
    pub(super) chip: Chip,
}

pub(super) const fn ports(base: u16, len: u16, sizes: u8, chip: Chip) -> Ports {
    Ports { base, len, sizes, chip }
}

/// Every port that answers in all machines, but for what PCI configuration space places.
#[rustfmt::skip]
pub(super) const PORTS: &[Ports] = &[
    //    base,                 len, sizes, chip
    ports(0x0000,              16,   1,     Chip::Dma(0)),
    ports(0x0020,               2,   1,     Chip::PicMaster),
    ports(0x0040,               4,   1,     Chip::Pit),
    ports(0x0060,               1,   1,     Chip::Keyboard(0)),
    ports(0x0061,               1,   1,     Chip::Port61),
    ports(0x0064,               1,   1,     Chip::Keyboard(4)),
    ports(0x0070,               2,   1,     Chip::Rtc),
    ports(0x0080,               1,   1,     Chip::Post),
    ports(0x0081,              15,   1,     Chip::DmaPage),
    ports(0x0092,               1,   1,     Chip::Port92),
    ports(0x00a0,               2,   1,     Chip::PicSlave),
    ports(acpi::SMI_CMD,        2,   1,     Chip::SmiCommand),
    ports(0x00c0,              32,   1,     Chip::Dma(1)),
    ports(0x00e9,               1,   1,     Chip::DebugCon),
    ports(0x02f8,               8,   1,     Chip::Com(1)),
    ports(0x03f8,               8,   1,     Chip::Com(0)),
    ports(0x0402,               1,   1,     Chip::FirmwareLog),
    ports(0x04d0,               2,   1,     Chip::PicElcr),
    ports(fw_cfg::PORT,         fw_cfg::PORTS, 1 + 2 + 4, Chip::FwCfg),
    ports(0x0cf8,               4,   4,     Chip::Pci(0)),
    ports(acpi::RESET_REG,      1,   1,     Chip::Reset),
    ports(0x0cfc,               4,   1 + 2 + 4, Chip::Pci(4)),
    ports(acpi::GPE0,           acpi::GPE0_LEN as u16, 1 + 2 + 4, Chip::Gpe0),
];

/// The ports of a VGA, in machines that have one.
#[rustfmt::skip]
pub(super) const VGA_PORTS: [Ports; 6] = [
    ports(0x01ce,               4,   2,     Chip::Dispi),
    ports(0x03b4,               2,   1,     Chip::Vga(0x3b4)),
    ports(0x03ba,               1,   1,     Chip::Vga(0x3ba)),
    ports(0x03c0,              16,   1,     Chip::Vga(0x3c0)),
    ports(0x03d4,               2,   1,     Chip::Vga(0x3d4)),
    ports(0x03da,               1,   1,     Chip::Vga(0x3da)),
];

/// The ports of a floppy controller, in machines that have one.
#[rustfmt::skip]
pub(super) const FLOPPY_PORTS: [Ports; 2] = [
    ports(0x03f2,               4,   1,     Chip::Floppy(2)),
    ports(0x03f7,               1,   1,     Chip::Floppy(7)),
];

/// The ports of an IDE controller, in machines that have one.
#[rustfmt::skip]
pub(super) const IDE_PORTS: [Ports; 4] = [
    ports(0x0170,               8,   1 + 2 + 4, Chip::Ide(1)),
    ports(0x01f0,               8,   1 + 2 + 4, Chip::Ide(0)),
    ports(0x0376,               1,   1,     Chip::IdeControl(1)),
    ports(0x03f6,               1,   1,     Chip::IdeControl(0)),
];

/// The ports of `pc-testdev`, in machines that have one.
#[rustfmt::skip]
pub(super) const TESTDEV_PORTS: [Ports; 2] = [
    ports(pc_testdev::PORT,       pc_testdev::PORTS, 1 + 2 + 4, Chip::Testdev),
    ports(pc_testdev::LINES_PORT, pc_testdev::LINES, 1,         Chip::TestdevLines),
];

/// Every address range that answers, but for the local APIC's page, which the guest may move.
pub(super) const MMIO: &[(u64, u64, Chip)] = &[
    (ioapic::DEFAULT_BASE, 0x1000, Chip::IoApic),
    (hpet::DEFAULT_BASE, hpet::BLOCK_LEN, Chip::Hpet),
];

impl Chips {
    pub(super) fn port_in(&mut self, now: u64, port: u16, size: u8) -> u32 {
        match self.port_at(port, size) {
            Some((chip, reg)) => self.port_read(chip, now, reg, size),
            None if let Some(value) = self.bus_read(now, true, port.into(), size) => value as u32,
            None if size > 1 => {
                let half = size / 2;
                let low = self.port_in(now, port, half);
                low | self.port_in(now, port.wrapping_add(half.into()), half) << (8 * half)
            }
            None => 0xff,
        }
    }

    pub(super) fn port_out(&mut self, now: u64, port: u16, size: u8, value: u32) {
        match self.port_at(port, size) {
            Some((chip, reg)) => {
                self.port_write(chip, now, reg, size, value);
                self.watch_for_events();
            }
            None if self.bus_write(now, true, port.into(), size, value.into()) => {}
            None if size > 1 => {
                let half = size / 2;
                let mask = u32::MAX >> (32 - 8 * half);
                self.port_out(now, port, half, value & mask);
                self.port_out(now, port.wrapping_add(half.into()), half, value >> (8 * half));
            }
            None => {}
        }
    }

    /// Who takes an access of `size` bytes at `port` whole, and at which of its registers.
    fn port_at(&self, port: u16, size: u8) -> Option<(Chip, u16)> {
        if self.event.is_some() {
            return None;
        }
        let takes = |row: &&Ports| {
            let reg = port.wrapping_sub(row.base);
            reg < row.len && u16::from(size) <= row.len - reg && row.sizes & size != 0
        };
        let power = self
            .bus
            .power
            .ports()
            .map(|at| ports(at, acpi_pm::PM_BLOCK_LEN, 1 + 2 + 4, Chip::Power));
        let row = self.ports.iter().find(takes).or(power.as_ref().filter(takes))?;
        Some((row.chip, port - row.base))
    }

    fn port_read(&mut self, chip: Chip, now: u64, reg: u16, size: u8) -> u32 {
        let offset = u64::from(reg);
        let byte = match chip {
            Chip::Power => return self.power.read(now, offset, size) as u32,
            Chip::Gpe0 => return self.power.gpe_read(now, offset, size) as u32,
            Chip::SmiCommand => self.power.smi_read(now, offset, size) as u8,
            Chip::Pci(base) => return self.bus.config_read(base + reg, size),
            Chip::Reset => self.power.reset_read(),
            Chip::PicMaster | Chip::PicSlave | Chip::PicElcr => self.pic.read(pic_reg(chip, reg)),
            Chip::Pit => self.pit.read(now, reg),
            Chip::Port61 => {
                let out2 = self.pit.out2(now);
                self.port61.read(now, out2)
            }
            Chip::Port92 => self.port92.read(),
            Chip::Keyboard(reg) => self.i8042.read(reg),
            Chip::Rtc => self.rtc.read(now, reg),
            Chip::Post => self.post.read(),
            Chip::Com(n) => {
                self.listeners[n].read(reg);
                self.com[n].read(reg)
            }
            Chip::DebugCon => self.debugcon.read(),
            Chip::FirmwareLog => self.firmware_log.read(),
            Chip::FwCfg => return self.fw_cfg.read(reg, size),
            Chip::Vga(first) => {
                self.bus.vga.as_mut().map_or(0xff, |vga| vga.port_read(now, first + reg))
            }
            Chip::Dma(n) => self.dma.read(n, (reg >> n) as u8),
            Chip::DmaPage => self.dma.page_read(reg as u8 + 1),
            Chip::Floppy(first) => {
                let value = self.floppy.as_mut().map_or(0xff, |f| f.read(first + reg));
                self.move_floppy_data();
                value
            }
            Chip::Ide(channel) => {
                let host = lend(&self.memory, now);
                let ide = self.bus.ide.as_mut();
                return ide.map_or(u32::MAX, |i| i.command_read(host, channel, reg as u8, size));
            }
            Chip::IdeControl(channel) => {
                let host = lend(&self.memory, now);
                self.bus.ide.as_mut().map_or(0xff, |ide| ide.control_read(host, channel))
            }
            Chip::Dispi => {
                let vga = self.bus.vga.as_mut();
                return vga.map_or(0xffff, |vga| vga.dispi_read(0x1ce + reg)).into();
            }
            Chip::Testdev => return self.testdev.as_ref().map_or(0, |t| t.read(reg, size)),
            Chip::TestdevLines => 0xff,
            Chip::DebugExit => self.debug_exit.read(reg),
            Chip::IoApic | Chip::Hpet | Chip::LocalApic | Chip::Shadow => 0xff,
        };
        byte.into()
    }

    fn port_write(&mut self, chip: Chip, now: u64, reg: u16, size: u8, value: u32) {
        let (offset, wide, byte) = (u64::from(reg), u64::from(value), value as u8);
        match chip {
            Chip::Power => self.power.write(now, offset, size, wide),
            Chip::Gpe0 => self.power.gpe_write(now, offset, size, wide),
            Chip::SmiCommand => self.power.smi_write(now, offset, size, wide),
            Chip::Pci(base) => {
                self.bus.config_write(lend(&self.memory, now), base + reg, size, value);
                self.moved = true;
            }
            Chip::FwCfg => self.fw_cfg.write(&self.memory, reg, size, value),
            Chip::Vga(first) => {
                self.bus.vga.iter_mut().for_each(|vga| vga.port_write(now, first + reg, byte));
                self.screen_moved();
            }
            Chip::Dma(n) => {
                self.dma.write(n, (reg >> n) as u8, byte);
                self.move_floppy_data();
            }
            Chip::DmaPage => self.dma.page_write(reg as u8 + 1, byte),
            Chip::Floppy(first) => {
                self.floppy.iter_mut().for_each(|f| f.write(first + reg, byte));
                self.move_floppy_data();
            }
            Chip::Ide(channel) => {
                if let Some(ide) = &mut self.bus.ide {
                    let host = lend(&self.memory, now);
                    ide.command_write(host, channel, reg as u8, size, value);
                }
            }
            Chip::IdeControl(channel) => {
                if let Some(ide) = &mut self.bus.ide {
                    ide.control_write(lend(&self.memory, now), channel, byte);
                }
            }
            Chip::Dispi => {
                let vga = self.bus.vga.iter_mut();
                vga.for_each(|vga| vga.dispi_write(0x1ce + reg, value as u16));
                self.screen_moved();
            }
            Chip::Testdev => self.testdev.iter_mut().for_each(|t| t.write(reg, size, value)),
            Chip::TestdevLines => {
                self.testdev.iter_mut().for_each(|t| t.set_line(reg, byte != 0));
            }
            Chip::FirmwareLog => self.firmware_log.write(byte),
            Chip::Reset => self.power.reset_write(byte),
            Chip::PicMaster | Chip::PicSlave | Chip::PicElcr => {
                self.pic.write(pic_reg(chip, reg), byte);
            }
            Chip::Pit => self.pit.write(now, reg, byte),
            Chip::Port61 => {
                self.port61.write(byte);
                self.pit.set_gate2(now, self.port61.gate2());
            }
            Chip::Port92 => {
                self.port92.write(byte);
                self.moved = true;
            }
            Chip::Keyboard(reg) => {
                self.i8042.write(reg, byte);
                self.moved = true;
            }
            Chip::Rtc => self.rtc.write(now, reg, byte),
            Chip::Post => self.post.write(byte),
            Chip::Com(n) => {
                self.listeners[n].write(now, reg, byte);
                self.com[n].write(reg, byte);
                // The transmitter's request falls while the byte is in it, then rises again.
                self.settle();
                while let Some(byte) = self.com[n].pop_tx() {
                    self.sent[n].push(byte);
                }
            }
            Chip::DebugCon => self.debugcon.write(byte),
            Chip::DebugExit => self.debug_exit.write(reg, byte),
            Chip::IoApic | Chip::Hpet | Chip::LocalApic | Chip::Shadow => {}
        }
    }

    pub(super) fn mmio_read(&mut self, now: u64, pa: u64, size: u8) -> u64 {
        match self.mmio_at(pa, size) {
            Some((Chip::IoApic, offset)) => self.ioapic.read(now, offset, size),
            Some((Chip::Hpet, offset)) => self.hpet.read(now, offset, size),
            Some((Chip::Testdev, offset)) => {
                self.testdev.as_ref().map_or(0, |t| t.memory_read(offset, size))
            }
            Some((Chip::Vga(_), at)) => {
                let vga = self.bus.vga.as_mut();
                let byte = |vga: &mut Vga, n: u64| u64::from(vga.memory_read((at + n) as u32));
                vga.map_or(0, |vga| {
                    (0..u64::from(size)).fold(0, |v, n| v | byte(vga, n) << (8 * n & 63))
                })
            }
            Some((Chip::Shadow, _)) => u64::MAX >> (64 - 8 * u32::from(size.clamp(1, 8))),
            Some((_, offset)) => self.lapic.read(now, offset, size),
            None if let Some(value) = self.bus_read(now, false, pa, size) => value,
            None if size > 1 => {
                let half = size / 2;
                let low = self.mmio_read(now, pa, half);
                low | self.mmio_read(now, pa.wrapping_add(half.into()), half) << (8 * half)
            }
            None => 0xff,
        }
    }

    pub(super) fn mmio_write(&mut self, now: u64, pa: u64, size: u8, value: u64) {
        match self.mmio_at(pa, size) {
            Some((Chip::IoApic, offset)) => self.ioapic.write(now, offset, size, value),
            Some((Chip::Hpet, offset)) => self.hpet.write(now, offset, size, value),
            Some((Chip::Testdev, offset)) => {
                self.testdev.iter_mut().for_each(|t| t.memory_write(offset, size, value));
            }
            Some((Chip::Vga(_), at)) => {
                if let Some(vga) = &mut self.bus.vga {
                    for n in 0..u64::from(size) {
                        vga.memory_write((at + n) as u32, (value >> (8 * n & 63)) as u8);
                    }
                }
            }
            Some((Chip::Shadow, at)) => {
                self.low.write(at, &value.to_le_bytes()[..usize::from(size.clamp(1, 8))]);
            }
            Some((_, offset)) => self.lapic.write(now, offset, size, value),
            None if self.bus_write(now, false, pa, size, value) => {}
            None if size > 1 => {
                let half = size / 2;
                let mask = u64::MAX >> (64 - 8 * half);
                self.mmio_write(now, pa, half, value & mask);
                self.mmio_write(now, pa.wrapping_add(half.into()), half, value >> (8 * half));
            }
            None => {}
        }
    }

    /// Who takes an access of `size` bytes at `pa` whole, and at which offset.
    fn mmio_at(&self, pa: u64, size: u8) -> Option<(Chip, u64)> {
        if self.event.is_some() {
            return None;
        }
        // What comes here of a shadowed part is a write beneath its ROM.
        if self.bus.host().shadow(pa).is_some_and(|s| s.write && !s.read) {
            return Some((Chip::Shadow, pa));
        }
        let lapic = self.lapic.base().map(|base| (base, 0x1000, Chip::LocalApic));
        let testdev = (pc_testdev::MEMORY, pc_testdev::MEMORY_LEN, Chip::Testdev);
        let testdev = self.testdev.is_some().then_some(testdev);
        let vga = e820::VGA.end - e820::VGA.start;
        let vga = (e820::VGA.start, vga, Chip::Vga(0));
        let vga = self.bus.vga.is_some().then_some(vga);
        lapic.iter().chain(MMIO).chain(&testdev).chain(&vga).find_map(|&(base, len, chip)| {
            let offset = pa.wrapping_sub(base);
            (offset < len && u64::from(size) <= len - offset).then_some((chip, offset))
        })
    }

    /// A register of the VGA was written: its memory may be mapped elsewhere.
    fn screen_moved(&mut self) {
        self.moved |= self.bus.mapped() != self.mapped;
    }

    /// Lets the floppy controller and its DMA channel move what there is to move.
    pub(super) fn move_floppy_data(&mut self) {
        let Some(floppy) = &mut self.floppy else { return };
        while let Some(data) = floppy.dma() {
            let moved = match data {
                FloppyDma::ToMemory(bytes) => self.dma.write_memory(&self.memory, 2, bytes),
                FloppyDma::FromMemory(bytes) => self.dma.read_memory(&self.memory, 2, bytes),
            };
            if moved.bytes == 0 {
                break;
            }
            floppy.dma_moved(moved);
        }
    }

    fn bus_read(&mut self, now: u64, io: bool, at: u64, size: u8) -> Option<u64> {
        let open = self.event.is_none();
        if open { self.bus.read(lend(&self.memory, now), io, at, size) } else { None }
    }

    fn bus_write(&mut self, now: u64, io: bool, at: u64, size: u8, value: u64) -> bool {
        let open = self.event.is_none();
        let done = open && self.bus.write(lend(&self.memory, now), io, at, size, value).is_some();
        if done {
            self.screen_moved();
        }
        done
    }
}

fn pic_reg(chip: Chip, reg: u16) -> PicReg {
    match (chip, reg) {
        (Chip::PicMaster, 0) => PicReg::MasterCommand,
        (Chip::PicMaster, _) => PicReg::MasterData,
        (Chip::PicSlave, 0) => PicReg::SlaveCommand,
        (Chip::PicSlave, _) => PicReg::SlaveData,
        (_, 0) => PicReg::MasterElcr,
        _ => PicReg::SlaveElcr,
    }
}
