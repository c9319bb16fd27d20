//! What firmware is told by fw_cfg: processors, the memory map, ACPI tables and SMBIOS.
//!
//! Source: QEMU, "QEMU Firmware Configuration (fw_cfg) Device"; the items' names and layouts as
//! SeaBIOS and OVMF read them.

use crate::acpi::{self, AcpiLayout};
use crate::boot::e820;
use crate::smbios;
use devices::fw_cfg::FwCfg;

/// Number of processors, and the most there may be; 16 bits.
const NB_CPUS: u16 = 0x05;
const MAX_CPUS: u16 = 0x0f;
/// Bytes of RAM, 64 bits.
const RAM_SIZE: u16 = 0x03;
/// The timer's IRQ 0 is at pin 2 of the I/O APIC; 8 bits, of the architecture's own keys.
const IRQ0_OVERRIDE: u16 = 0x8002;
/// Whether firmware shows its boot menu, 16 bits.
const BOOT_MENU: u16 = 0x0e;
/// The row's kind in `etc/e820`.
const E820_RAM: u32 = 1;

/// What firmware can boot from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootDevice {
    /// The first floppy.
    Floppy,
    /// The first hard disk.
    Disk,
    /// The first CD-ROM.
    Cd,
    /// The first network card.
    Network,
}

/// What firmware shall boot from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BootOrder {
    /// In this order, three at most; firmware's own order if there are none.
    pub devices: Vec<BootDevice>,
    /// The user is asked first.
    pub menu: bool,
}

impl BootOrder {
    /// What CMOS RAM says of it: index and value (SeaBIOS's `CMOS_BIOS_BOOTFLAG1` and `2`): four
    /// bits for each device, the third in the high half of the first byte.
    pub(crate) fn cmos(&self) -> [(u8, u8); 2] {
        const DEFAULT: [u8; 3] = [2, 3, 1];
        let code = |device: &BootDevice| match device {
            BootDevice::Floppy => 1,
            BootDevice::Disk => 2,
            BootDevice::Cd => 3,
            BootDevice::Network => 4,
        };
        let chosen: Vec<u8> = self.devices.iter().map(code).collect();
        let order = if chosen.is_empty() { DEFAULT.to_vec() } else { chosen };
        let at = |n: usize| order.get(n).copied().unwrap_or(0);
        [(0x38, at(2) << 4), (0x3d, at(0) | at(1) << 4)]
    }
}

/// All items for a machine with `memory` bytes of RAM.
pub(crate) fn items(memory: u64, boot: &BootOrder) -> FwCfg {
    let mut f = FwCfg::new();
    f.item(NB_CPUS, 1_u16.to_le_bytes().to_vec());
    f.item(MAX_CPUS, 1_u16.to_le_bytes().to_vec());
    f.item(RAM_SIZE, memory.to_le_bytes().to_vec());
    f.item(IRQ0_OVERRIDE, vec![1]);
    f.item(BOOT_MENU, u16::from(boot.menu).to_le_bytes().to_vec());
    f.file("etc/e820", memory_map(memory));
    let acpi = acpi::loader(&AcpiLayout::default());
    f.file("etc/acpi/tables", acpi.tables);
    f.file("etc/acpi/rsdp", acpi.rsdp);
    f.file("etc/table-loader", acpi.commands);
    let smbios = smbios::build(memory);
    f.file("etc/smbios/smbios-anchor", smbios.anchor);
    f.file("etc/smbios/smbios-tables", smbios.tables);
    f
}

/// Address, length and kind of each run of RAM.
fn memory_map(memory: u64) -> Vec<u8> {
    let (low, high) = e820::split(memory);
    let runs = [(0, low), (e820::HIGH_BASE, high)].into_iter().filter(|run| run.1 > 0);
    let row = |(base, len): (u64, u64)| {
        [&base.to_le_bytes()[..], &len.to_le_bytes(), &E820_RAM.to_le_bytes()].concat()
    };
    runs.flat_map(row).collect()
}
