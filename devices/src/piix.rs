//! The south bridge's functions that are configuration space alone: the PCI-to-ISA bridge of the
//! PIIX3 with the routing of PCI interrupts, and the power management function of the PIIX4.
//!
//! The bridge routes each of PIRQ[A:D]# to an ISA interrupt, or to none. What the power management
//! function says of its ports' place the board asks for; the registers there are
//! [`AcpiPm`](crate::acpi_pm::AcpiPm)'s.
//!
//! Source: Intel 82371SB (PIIX3) datasheet (290550), 2.2; 82371AB (PIIX4) datasheet (290562), 7.1.
//! That a machine has one function of each chip is QEMU's "pc".

use crate::pci::{Identity, PciConfig, PciDevice};

/// PIRQRCA; B, C and D follow.
const PIRQRC: usize = 0x60;
/// Interrupt routing is off.
const PIRQRC_OFF: u8 = 0x80;
/// The ISA interrupts that a PIRQ can be routed to.
const ROUTABLE: u16 = 0xdef8;

/// PCI-to-ISA bridge, function 0.
#[derive(Clone, Debug, PartialEq)]
pub struct IsaBridge {
    config: PciConfig,
}

impl Default for IsaBridge {
    fn default() -> IsaBridge {
        IsaBridge::new()
    }
}

impl IsaBridge {
    /// A bridge after reset.
    #[must_use]
    pub fn new() -> IsaBridge {
        let mut config = PciConfig::new(
            Identity {
                vendor: 0x8086,
                device: 0x7000,
                class: 0x06_0100,
                revision: 0,
                subsystem: (0x1af4, 0x1100),
            },
            0,
        );
        config.set(0x04, &[7, 0, 0, 2]);
        // More functions follow.
        config.set(0x0e, &[0x80]);
        #[rustfmt::skip]
        let rows: [(usize, &[u8], u8); 8] = [
            (0x4c, &[0x4d], 0xff),               // ISA I/O recovery timers
            (0x4e, &[0x03, 0x00], 0xff),         // X-bus chip select
            (PIRQRC, &[PIRQRC_OFF; 4], 0x8f),
            (0x69, &[0x02], 0xfe),               // top of memory
            (0x6a, &[0x00, 0x00], 0x17),         // miscellaneous status
            (0x70, &[PIRQRC_OFF], 0xef),         // motherboard interrupt routing
            (0x76, &[0x0c, 0x0c], 0x8f),         // motherboard DMA control
            (0xa0, &[0x08, 0, 0, 0, 0, 0, 0, 0], 0xff), // SMI control and enables
        ];
        for (at, bytes, writable) in rows {
            config.set(at, bytes);
            config.writable(at, &vec![writable; bytes.len()]);
        }
        IsaBridge { config }
    }

    /// The ISA interrupt that PIRQ `n` (0–3) is routed to.
    #[must_use]
    pub fn route(&self, n: usize) -> Option<u8> {
        let route = self.config.byte(PIRQRC + (n & 3));
        let irq = route & 0xf;
        (route & PIRQRC_OFF == 0 && ROUTABLE >> irq & 1 != 0).then_some(irq)
    }

    /// Routes PIRQ `n` (0–3) to `irq`, as firmware does.
    pub fn set_route(&mut self, n: usize, irq: u8) {
        self.config.put(PIRQRC + (n & 3), irq & 0xf);
    }
}

impl PciDevice for IsaBridge {
    fn config(&self) -> &PciConfig {
        &self.config
    }
    fn config_mut(&mut self) -> &mut PciConfig {
        &mut self.config
    }
    fn reset(&mut self) {
        self.config.reset();
    }
}

/// PMBA: where the power management ports are, 64 of them.
const PMBA: usize = 0x40;
/// DEVACTB, whose bit APMC_EN says that writes of APMC raise an SMI.
const DEVACTB: usize = 0x58;
/// APMC_EN in the highest byte.
const APMC_EN: u8 = 0x02;
/// PMREGMISC, whose bit 0 enables the ports.
const PMREGMISC: usize = 0x80;
/// SMBBA and SMBHSTCFG.
const SMBBA: usize = 0x90;
const SMBHSTCFG: usize = 0xd2;

/// Power management, function 3.
#[derive(Clone, Debug, PartialEq)]
pub struct PowerManagement {
    config: PciConfig,
}

impl Default for PowerManagement {
    fn default() -> PowerManagement {
        PowerManagement::new()
    }
}

impl PowerManagement {
    /// The function after reset. `APMC_EN` is set: to firmware this says that somebody has set up
    /// system management mode, of which this machine has none. The ports are enabled at 600H, so
    /// that a machine can be switched off by who knows nothing of PCI; a PIIX4 waits to be told.
    #[must_use]
    pub fn new() -> PowerManagement {
        let mut config = PciConfig::new(
            Identity {
                vendor: 0x8086,
                device: 0x7113,
                class: 0x06_8000,
                revision: 3,
                subsystem: (0x1af4, 0x1100),
            },
            1,
        );
        config.set(0x04, &[0, 0, 0x80, 2]);
        #[rustfmt::skip]
        let rows: [(usize, &[u8], &[u8]); 6] = [
            (0x3c, &[9], &[0]),
            (PMBA, &[1, 6, 0, 0], &[0xc0, 0xff]),
            (0x44, &[0; 20], &[0xff; 20]),
            (DEVACTB, &[0, 0, 0, APMC_EN], &[0xff, 0xff, 0xff, 0x03]),
            (PMREGMISC, &[1], &[1]),
            (SMBBA, &[1, 0, 0, 0], &[0xf0, 0xff]),
        ];
        for (at, bytes, writable) in rows {
            config.set(at, bytes);
            config.writable(at, writable);
        }
        config.writable(0x5c, &[0xff; 0x24]);
        config.writable(SMBHSTCFG, &[0x0f, 0xff, 0xff, 0xff]);
        PowerManagement { config }
    }

    /// First of the 64 power management ports, if they are enabled.
    #[must_use]
    pub fn ports(&self) -> Option<u16> {
        let base = self.config.dword(PMBA) as u16 & 0xffc0;
        (self.config.byte(PMREGMISC) & 1 != 0 && base != 0).then_some(base)
    }

    /// Places and enables the ports, as firmware does.
    pub fn place(&mut self, base: u16) {
        let [low, high] = base.to_le_bytes();
        self.config.put(PMBA, low & 0xc0 | 1);
        self.config.put(PMBA + 1, high);
        self.config.put(PMREGMISC, 1);
    }
}

impl PciDevice for PowerManagement {
    fn config(&self) -> &PciConfig {
        &self.config
    }
    fn config_mut(&mut self) -> &mut PciConfig {
        &mut self.config
    }
    fn reset(&mut self) {
        self.config.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pci_host::PciFunction;

    #[test]
    fn interrupts_are_routed_by_the_bridge() {
        let mut b = IsaBridge::new();
        assert_eq!((0..4).map(|n| b.route(n)).collect::<Vec<_>>(), [None; 4]);
        b.config_mut().config_write(0x60, 4, 0x0b0d_020a);
        assert_eq!([0, 1, 2, 3].map(|n| b.route(n)), [Some(10), None, None, Some(11)]);
        b.config_mut().config_write(0x60, 1, 0x8a);
        assert_eq!(b.route(0), None);
        b.set_route(0, 5);
        assert_eq!(b.route(0), Some(5));
        assert_eq!(b.config_mut().config_read(0, 4), 0x7000_8086);
        b.reset();
        assert_eq!(b, IsaBridge::new());
    }

    #[test]
    fn the_power_management_ports_are_where_they_are_placed() {
        let mut p = PowerManagement::new();
        assert_eq!(p.ports(), Some(0x600));
        p.config_mut().config_write(0x40, 4, 0xffff_0701);
        p.config_mut().config_write(0x80, 1, 0);
        assert_eq!(p.ports(), None);
        p.config_mut().config_write(0x80, 1, 1);
        assert_eq!(p.ports(), Some(0x700));
        assert_eq!(p.config_mut().config_read(0x40, 4), 0x701);
        p.reset();
        assert_eq!(p.ports(), Some(0x600));
        p.place(0xb000);
        assert_eq!(p.ports(), Some(0xb000));
    }
}
