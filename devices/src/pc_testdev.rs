//! `pc-testdev`: what unit tests of kernels and emulators poke at. A dword of ports that holds what
//! is written (at E0H in any size, at E8H the same bytes one by one), a port that would drop a page
//! (nothing is cached here that could), interrupt lines that a write sets or clears, and a window
//! of memory behind a device.
//!
//! Source: the ports of QEMU's device of this name, as kvm-unit-tests use them.

/// First port of the dword; [`PORTS`] of them.
pub const PORT: u16 = 0xe0;
/// The dword, the page to drop, the dword by bytes.
pub const PORTS: u16 = 12;
/// First port of the interrupt lines; [`LINES`] of them.
pub const LINES_PORT: u16 = 0x2000;
/// One port for each pin of the I/O APIC.
pub const LINES: u16 = 24;
/// Guest-physical address of the memory window.
pub const MEMORY: u64 = 0xff00_0000;
/// Its length in bytes.
pub const MEMORY_LEN: u64 = 0x1_0000;

/// The device.
#[derive(Clone, Debug, PartialEq)]
pub struct PcTestdev {
    dword: [u8; 4],
    lines: u32,
    memory: Vec<u8>,
}

impl Default for PcTestdev {
    fn default() -> PcTestdev {
        PcTestdev::new()
    }
}

impl PcTestdev {
    /// A device of zeros.
    #[must_use]
    pub fn new() -> PcTestdev {
        PcTestdev { dword: [0; 4], lines: 0, memory: vec![0; MEMORY_LEN as usize] }
    }

    /// System reset.
    pub fn reset(&mut self) {
        *self = PcTestdev::new();
    }

    /// Reads `size` bytes at port `reg`, counted from [`PORT`]; a run that leaves the dword starts
    /// over at its first byte.
    #[must_use]
    pub fn read(&self, reg: u16, size: u8) -> u32 {
        if reg & 0xc == 4 {
            return 0;
        }
        (0..size).fold(0, |value, n| {
            value | u32::from(self.dword[usize::from(reg + u16::from(n)) & 3]) << (8 * n & 31)
        })
    }

    /// Writes the low `size` bytes of `value` at port `reg`.
    pub fn write(&mut self, reg: u16, size: u8, value: u32) {
        if reg & 0xc != 4 {
            for (byte, n) in value.to_le_bytes().into_iter().zip(0..u16::from(size)) {
                self.dword[usize::from(reg + n) & 3] = byte;
            }
        }
    }

    /// Sets or clears interrupt line `line`.
    pub fn set_line(&mut self, line: u16, level: bool) {
        let bit = 1 << (line & 31);
        self.lines = if level { self.lines | bit } else { self.lines & !bit };
    }

    /// The lines that are set, a bit each, by I/O APIC pin.
    #[must_use]
    pub fn lines(&self) -> u32 {
        self.lines
    }

    /// Reads `size` bytes at `offset` of the window.
    #[must_use]
    pub fn memory_read(&self, offset: u64, size: u8) -> u64 {
        let bytes = (0..u64::from(size)).map(|n| self.memory[(offset + n) as usize & 0xffff]);
        bytes.zip(0..).fold(0, |value, (byte, n)| value | u64::from(byte) << (8 * n & 63))
    }

    /// Writes the low `size` bytes of `value` there.
    pub fn memory_write(&mut self, offset: u64, size: u8, value: u64) {
        for (byte, n) in value.to_le_bytes().into_iter().zip(0..u64::from(size)) {
            self.memory[(offset + n) as usize & 0xffff] = byte;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Rng;

    #[test]
    fn what_is_written_is_read() {
        let mut d = PcTestdev::new();
        d.write(0, 4, 0x1234_5678);
        assert_eq!((d.read(1, 1), d.read(2, 2), d.read(8, 4)), (0x56, 0x1234, 0x1234_5678));
        d.write(8 + 3, 1, 0xff);
        d.write(4, 4, 0x5000);
        assert_eq!((d.read(0, 4), d.read(4, 4)), (0xff34_5678, 0));
        d.memory_write(0xfffc, 4, 7);
        assert_eq!((d.memory_read(0xfffc, 4), d.memory_read(0xfff8, 8)), (7, 7 << 32));
        d.set_line(9, true);
        assert_eq!(d.lines(), 1 << 9);
        d.set_line(9, false);
        assert_eq!(d.lines(), 0);
    }

    #[test]
    fn random_accesses() {
        let (mut d, mut rng) = (PcTestdev::new(), Rng(5));
        for _ in 0..10_000 {
            let (reg, size) = (rng.below(12) as u16, 1 << rng.below(4));
            d.write(reg, size.min(4), rng.next() as u32);
            d.set_line(reg, size > 2);
            d.memory_write(rng.below(MEMORY_LEN), size, rng.next());
            let _ = (d.read(reg, size.min(4)), d.memory_read(rng.below(MEMORY_LEN), size));
        }
    }
}
