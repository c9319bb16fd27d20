//! A PC's VGA with the Bochs display interface, as a PCI function.
//!
//! Three ways lead to it: ports 3B4H–3DFH and the window at A0000H–BFFFFH, as since 1987; ports
//! 1CEH–1D0H for linear modes; and PCI: register 0 is the frame buffer, register 2 has the same
//! ports in memory (400H: 3C0H–3DFH, 500H: the display interface, 600H: byte order).
//!
//! Problem: guests write pixels by the million, and each access that a chip must look at is slow.
//! Method: the four planes are interleaved (byte n of plane p is byte 4n + p of video memory), so
//! that chained and linear modes have pixel n at byte n × bpp / 8. The board maps the frame buffer
//! as RAM always, and the window when [`Vga::window`] says that RAM is all it is. Planar and text
//! accesses come here a byte at a time. Nothing is drawn before somebody asks ([`Vga::render`]).
//!
//! Left out, as others do: the vertical interrupt, light pen, display skew and the border.
//!
//! Source: IBM VGA/XGA Technical Reference Manual (1992), chapter 2; Bochs VBE display interface
//! (`vbe_display_api.txt`); QEMU `docs/specs/standard-vga.rst`.

mod dac;
mod dispi;
mod planar;
mod registers;
mod render;
#[cfg(test)]
mod tests;
mod text;
mod timing;

pub use render::Frame;
pub use text::TextScreen;

use crate::pci::{Bar, Host, Identity, PciConfig, PciDevice, ROM_BAR};
use dac::Dac;
use dispi::Dispi;
use emu_core::mem::DeviceRam;
use registers::Registers;
use std::sync::Arc;

/// The base address registers of the frame buffer and of the registers in memory.
/// The number of the base address register of video memory.
pub const FRAME_BUFFER: usize = 0;
const MMIO: usize = 2;
const MMIO_LEN: u64 = 4096;
const MMIO_PORTS: u64 = 0x400;
const MMIO_DISPI: u64 = 0x500;
const MMIO_EXTENDED: u64 = 0x600;
/// Values of the byte order register.
const BIG_ENDIAN: u32 = 0xbebe_bebe;
const LITTLE_ENDIAN: u32 = 0x1e1e_1e1e;

/// A part of the window at A0000H that is plain RAM for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its first byte, counted from A0000H.
    pub at: u32,
    /// The byte of video memory that is there.
    pub offset: u64,
    /// Its length in bytes.
    pub len: u64,
}

/// A VGA. A clone is cheap and has the same video memory: who draws a picture need not keep others
/// from the chip meanwhile.
#[derive(Clone, Debug)]
pub struct Vga {
    config: PciConfig,
    memory: DeviceRam,
    rom: Arc<[u8]>,
    regs: Registers,
    dac: Dac,
    dispi: Dispi,
    /// The four planes' latches, plane 0 in the lowest byte.
    latch: u32,
    big_endian: bool,
}

impl Vga {
    /// A VGA with video memory `memory`, whose length is a power of two of 256 KiB at least, and
    /// the BIOS `rom` (none: empty).
    ///
    /// # Panics
    /// When the memory has no such length: a wiring bug.
    #[must_use]
    pub fn new(memory: DeviceRam, rom: impl Into<Arc<[u8]>>) -> Vga {
        let rom = rom.into();
        assert!(memory.len() >= 1 << 18, "{:#x} bytes are too few for a VGA", memory.len());
        let id = Identity {
            vendor: 0x1234,
            device: 0x1111,
            class: 0x03_0000,
            // What has the registers at 600H.
            revision: 2,
            subsystem: (0x1af4, 0x1100),
        };
        let mut config = PciConfig::new(id, 0);
        config.bar(FRAME_BUFFER, Bar::Memory32, memory.len());
        // Prefetchable.
        config.set(0x10, &[8]);
        config.bar(MMIO, Bar::Memory32, MMIO_LEN);
        if !rom.is_empty() {
            config.bar(ROM_BAR, Bar::Rom, (rom.len() as u64).next_power_of_two().max(2048));
        }
        let dispi = Dispi::new(memory.len());
        let (regs, dac) = (Registers::default(), Dac::default());
        Vga { config, memory, rom, regs, dac, dispi, latch: 0, big_endian: false }
    }

    /// Video memory, which the board maps where register 0 says.
    #[must_use]
    pub fn memory(&self) -> &DeviceRam {
        &self.memory
    }

    /// The colour ports (3D4H, 3D5H, 3DAH) answer, or else the monochrome ones (3B4H …); the
    /// others float. Gives the port's colour number.
    fn decode(&self, port: u16) -> Option<u16> {
        match port {
            0x3b0..=0x3bf => (!self.regs.is_colour()).then_some(port + 0x20),
            0x3d0..=0x3df => self.regs.is_colour().then_some(port),
            _ => Some(port),
        }
    }

    /// Reads one of the ports 3B4H, 3B5H, 3BAH, 3C0H–3CFH, 3D4H, 3D5H, 3DAH.
    pub fn port_read(&mut self, now: u64, port: u16) -> u8 {
        let Some(port) = self.decode(port) else { return 0xff };
        match port {
            0x3c6..=0x3c9 => self.dac.read(port),
            0x3da => {
                self.regs.attribute_data = false;
                self.beam(now).status()
            }
            _ => self.regs.read(port),
        }
    }

    /// Writes one of these ports.
    pub fn port_write(&mut self, _now: u64, port: u16, value: u8) {
        match self.decode(port) {
            Some(port @ 0x3c6..=0x3c9) => self.dac.write(port, value),
            Some(port) => self.regs.write(port, value),
            None => {}
        }
    }

    /// Reads 16 bits of port 1CEH (index), 1CFH or 1D0H (data).
    pub fn dispi_read(&mut self, port: u16) -> u16 {
        if port == 0x1ce { self.dispi.index } else { self.dispi.read(self.dispi.index) }
    }

    /// Writes 16 bits of these ports.
    pub fn dispi_write(&mut self, port: u16, value: u16) {
        if port == 0x1ce {
            self.dispi.index = value;
        } else {
            self.dispi_data(self.dispi.index, value);
        }
    }

    fn dispi_data(&mut self, index: u16, value: u16) {
        let clear = self.dispi.write(index, value);
        self.dac.wide = self.dispi.wide_dac();
        let zeros = [0; 4096];
        for at in (0..clear).step_by(zeros.len()) {
            let len = (clear - at).min(zeros.len() as u64) as usize;
            self.memory.write(at, &zeros[..len]);
        }
    }

    fn mmio_read(&mut self, now: u64, offset: u64) -> u8 {
        let extended = |word: u32| word.to_le_bytes()[(offset & 3) as usize];
        match offset {
            MMIO_PORTS..0x420 => self.port_read(now, 0x3c0 + (offset - MMIO_PORTS) as u16),
            MMIO_DISPI..0x516 => {
                let value = self.dispi.read((offset - MMIO_DISPI) as u16 / 2);
                value.to_le_bytes()[(offset & 1) as usize]
            }
            // How many bytes of such registers there are.
            MMIO_EXTENDED..0x604 => extended(8),
            0x604..0x608 if self.big_endian => extended(BIG_ENDIAN),
            0x604..0x608 => extended(LITTLE_ENDIAN),
            _ => 0xff,
        }
    }

    fn mmio_write(&mut self, now: u64, offset: u64, size: u8, value: u64) {
        match offset {
            MMIO_PORTS..0x420 => {
                for n in 0..u64::from(size).min(0x420 - offset) {
                    let port = 0x3c0 + (offset - MMIO_PORTS + n) as u16;
                    self.port_write(now, port, (value >> (8 * n)) as u8);
                }
            }
            MMIO_DISPI..0x516 if offset & 1 == 0 => {
                for n in 0..u64::from(size / 2) {
                    let index = (offset - MMIO_DISPI) as u16 / 2 + n as u16;
                    self.dispi_data(index, (value >> (16 * n)) as u16);
                }
            }
            0x604 if value as u32 == BIG_ENDIAN => self.big_endian = true,
            0x604 if value as u32 == LITTLE_ENDIAN => self.big_endian = false,
            _ => {}
        }
    }
}

impl PciDevice for Vga {
    fn config(&self) -> &PciConfig {
        &self.config
    }

    fn config_mut(&mut self) -> &mut PciConfig {
        &mut self.config
    }

    fn read(&mut self, host: Host, bar: usize, offset: u64, size: u8) -> u64 {
        let mut bytes = [0; 8];
        let size = usize::from(size.min(8));
        match bar {
            FRAME_BUFFER => self.memory.read(offset, &mut bytes[..size]),
            MMIO => {
                for (byte, at) in bytes[..size].iter_mut().zip(offset..) {
                    *byte = self.mmio_read(host.now, at);
                }
            }
            _ => {
                for (n, byte) in bytes[..size].iter_mut().enumerate() {
                    *byte = self.rom.get(offset as usize + n).copied().unwrap_or(0xff);
                }
            }
        }
        u64::from_le_bytes(bytes)
    }

    fn write(&mut self, host: Host, bar: usize, offset: u64, size: u8, value: u64) {
        let size = size.min(8);
        match bar {
            FRAME_BUFFER => self.memory.write(offset, &value.to_le_bytes()[..usize::from(size)]),
            MMIO => self.mmio_write(host.now, offset, size, value),
            _ => {}
        }
    }

    fn reset(&mut self) {
        self.config.reset();
        (self.regs, self.dac) = (Registers::default(), Dac::default());
        self.dispi = Dispi::new(self.memory.len());
        (self.latch, self.big_endian) = (0, false);
    }
}
