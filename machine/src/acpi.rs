//! The ACPI tables of the PC, for a kernel that starts without firmware.
//!
//! [`build`] makes one blob for one place: RSDP, FACS, DSDT, FADT, MADT, HPET, RSDT, XSDT, each
//! where its alignment wants it, pointing to each other. A kernel finds the RSDP by searching
//! 0xE0000–0xFFFFF in steps of 16 bytes, or is told. The tables describe an i440FX PC; port
//! numbers that the chips must agree with are constants here.
//!
//! Source: ACPI specification 6.5, chapters 5 (tables), 6 (device configuration), 19–20 (AML);
//! IA-PC HPET specification, section 3.2.4.

use acpi_tables::Aml;
use acpi_tables::aml::{
    self, AddressSpace, AddressSpaceCacheable, EISAName, IO, Interrupt, Memory32Fixed, Name,
    Package, ResourceTemplate, ZERO,
};
use acpi_tables::facs::FACS;
use acpi_tables::fadt::{FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace as Space, GAS};
use acpi_tables::sdt::Sdt;

/// `PM1a` event block: `PM1_STS`, `PM1_EN`, 16 bits each.
pub const PM1A_EVT: u16 = 0x600;
/// `PM1a` control block: `PM1_CNT`, 16 bits.
pub const PM1A_CNT: u16 = 0x604;
/// Power management timer, 24 of 32 bits count at 3.579545 MHz.
pub const PM_TMR: u16 = 0x608;
/// Length of the power management chip's port range, from [`PM1A_EVT`] on.
pub const PM_LEN: u8 = 0x40;
/// General-purpose event block 0: two status bytes, two enable bytes.
pub const GPE0: u16 = 0xafe0;
/// Length of the block at [`GPE0`].
pub const GPE0_LEN: u8 = 4;
/// SMI command port.
pub const SMI_CMD: u16 = 0xb2;
/// Written to [`SMI_CMD`] sets `SCI_EN`.
pub const ACPI_ENABLE: u8 = 0xf1;
/// Written to [`SMI_CMD`] clears `SCI_EN`.
pub const ACPI_DISABLE: u8 = 0xf0;
/// Reset control register.
pub const RESET_REG: u16 = 0xcf9;
/// Written to [`RESET_REG`] resets the machine: `SYS_RST` and `RST_CPU`.
pub const RESET_VALUE: u8 = 0x06;
/// The interrupt of ACPI events: ISA IRQ and GSI.
pub const SCI_IRQ: u8 = 9;
/// `SLP_TYP` in `PM1_CNT` that, with `SLP_EN`, turns the machine off.
pub const SLP_TYP_S5: u8 = 0;
/// CMOS RAM address of the century.
pub const RTC_CENTURY: u8 = 0x32;

/// What differs between machines.
#[derive(Clone, Debug)]
pub struct AcpiLayout {
    /// How many CPUs; their local APIC ids count from 0.
    pub cpus: u8,
    /// Address of the local APICs.
    pub local_apic: u32,
    /// Address of the I/O APIC (id 0, GSI 0–23).
    pub io_apic: u32,
    /// Address of the HPET if there is one.
    pub hpet: Option<u32>,
    /// First and last address of the PCI memory window.
    pub pci_window: (u32, u32),
    /// GSI of each of PIRQA–PIRQD; level-triggered, active high at the I/O APIC.
    pub pirq: [u8; 4],
    /// How many of COM1 and COM2 there are.
    pub com_ports: u8,
    /// Whether there is a keyboard controller with keyboard and mouse.
    pub i8042: bool,
}

impl Default for AcpiLayout {
    /// One CPU and everything where a PC has it.
    fn default() -> AcpiLayout {
        AcpiLayout {
            cpus: 1,
            local_apic: 0xfee0_0000,
            io_apic: 0xfec0_0000,
            hpet: Some(0xfed0_0000),
            pci_window: (0xc000_0000, 0xfebf_ffff),
            pirq: [10, 10, 11, 11],
            com_ports: 2,
            i8042: true,
        }
    }
}

/// Which of PIRQA–PIRQD (0–3) pin INTA–INTD (0–3) of PCI device `slot` is wired to: each slot is
/// one further along, so that devices share lines evenly.
pub const fn pirq_of(slot: u8, pin: u8) -> usize {
    (slot.wrapping_sub(1).wrapping_add(pin) & 3) as usize
}

/// The finished tables.
#[derive(Clone, Debug)]
pub struct Tables {
    /// Address of the RSDP.
    pub rsdp: u64,
    /// All bytes.
    pub blob: Vec<u8>,
    /// Address of the first of them.
    pub base: u64,
}

/// The tables as fw_cfg hands them to firmware, which finds a place for them.
#[derive(Clone, Debug)]
pub struct Loader {
    /// `etc/acpi/tables`: all but the RSDP. Pointers are offsets in it.
    pub tables: Vec<u8>,
    /// `etc/acpi/rsdp`.
    pub rsdp: Vec<u8>,
    /// `etc/table-loader`: what firmware is to do with both.
    pub commands: Vec<u8>,
}

/// Makes the tables for firmware that places them (QEMU, "QEMU Firmware Configuration", and the
/// loader's commands as SeaBIOS and OVMF know them: allocate, add a pointer, add a checksum).
#[must_use]
pub fn loader(layout: &AcpiLayout) -> Loader {
    const TABLES: &str = "etc/acpi/tables";
    const RSDP: &str = "etc/acpi/rsdp";
    const HIGH: u8 = 1;
    const FSEG: u8 = 2;
    const COMMAND: usize = 128;
    let name = |name: &str| {
        let mut bytes = name.as_bytes().to_vec();
        bytes.resize(56, 0);
        bytes
    };
    let command = |kind: u32, parts: &[&[u8]]| {
        let mut bytes = [&kind.to_le_bytes()[..], &parts.concat()].concat();
        bytes.resize(COMMAND, 0);
        bytes
    };
    let word = |value: usize| (value as u32).to_le_bytes();
    let allocate = |file, align: usize, zone| command(1, &[&name(file), &word(align), &[zone]]);
    let pointer =
        |file, at: usize, size: u8| command(2, &[&name(file), &name(TABLES), &word(at), &[size]]);
    let checksum = |file, at: usize, start: usize, len: usize| {
        command(3, &[&name(file), &word(at), &word(start), &word(len)])
    };
    // Built with the RSDP at 0 and the rest behind it; then the rest is moved to 0.
    const GAP: usize = 64;
    let all = build(layout, 0).blob;
    let (mut rsdp, mut tables) = (all[..RSDP_LEN].to_vec(), all[GAP..].to_vec());
    let int =
        |bytes: &[u8], at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|n| bytes[at + n])) as usize;
    let mut commands = vec![allocate(TABLES, 64, HIGH), allocate(RSDP, 16, FSEG)];
    // Pointers by file, place and size.
    let (rsdt, xsdt) = (int(&rsdp, 16) - GAP, int(&rsdp, 24) - GAP);
    let mut places = vec![(RSDP, 16, 4), (RSDP, 24, 8)];
    let entries = |at: usize, size| (at + 36..at + int(&tables, at + 4)).step_by(size);
    places.extend(entries(rsdt, 4).map(|at| (TABLES, at, 4)));
    places.extend(entries(xsdt, 8).map(|at| (TABLES, at, 8)));
    let mut summed = vec![rsdt, xsdt];
    for table in entries(rsdt, 4).map(|at| int(&tables, at) - GAP) {
        if tables[table..].starts_with(b"FACP") {
            places
                .extend([(36, 4), (40, 4), (140, 8)].map(|(at, size)| (TABLES, table + at, size)));
            summed.push(table);
        }
    }
    for &(file, at, size) in &places {
        let bytes = if file == RSDP { &mut rsdp } else { &mut tables };
        let value = (int(bytes, at) - GAP) as u32;
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        commands.push(pointer(file, at, size));
    }
    for table in summed {
        tables[table + 9] = 0;
        commands.push(checksum(TABLES, table + 9, table, int(&tables, table + 4)));
    }
    (rsdp[8], rsdp[32]) = (0, 0);
    commands.extend([checksum(RSDP, 8, 0, 20), checksum(RSDP, 32, 0, RSDP_LEN)]);
    Loader { tables, rsdp, commands: commands.concat() }
}

const OEM_ID: [u8; 6] = *b"RING3 ";
const OEM_TABLE_ID: [u8; 8] = *b"RING3PC ";
const CREATOR_ID: [u8; 4] = *b"RNG3";

/// The blob under construction.
struct Blob {
    bytes: Vec<u8>,
    base: u64,
}

impl Blob {
    /// Appends a table at the next multiple of `align`; gives its address.
    fn add(&mut self, align: u64, table: &dyn Aml) -> u32 {
        let at = (self.base + self.bytes.len() as u64).next_multiple_of(align);
        self.bytes.resize((at - self.base) as usize, 0);
        table.to_aml_bytes(&mut self.bytes);
        u32::try_from(at).expect("ACPI tables lie below 4 GiB")
    }
}

/// Makes the tables for address `base`.
///
/// # Panics
/// When `base` is not a multiple of 16, or the tables do not end below 4 GiB: a wiring bug.
pub fn build(layout: &AcpiLayout, base: u64) -> Tables {
    assert!(base & 15 == 0, "the RSDP must be at a multiple of 16, not {base:#x}");
    let mut blob = Blob { bytes: vec![0; RSDP_LEN], base };
    let facs = blob.add(64, &FACS::new());
    let dsdt = blob.add(16, &dsdt(layout));
    let mut tables = vec![blob.add(16, &fadt(layout, facs, dsdt)), blob.add(16, &madt(layout))];
    tables.extend(layout.hpet.map(|address| blob.add(16, &hpet(address))));

    let narrow: Vec<u8> = tables.iter().flat_map(|t| t.to_le_bytes()).collect();
    let wide: Vec<u8> = tables.iter().flat_map(|t| u64::from(*t).to_le_bytes()).collect();
    let rsdt = blob.add(16, &sdt(*b"RSDT", 1, &narrow));
    let xsdt = blob.add(16, &sdt(*b"XSDT", 1, &wide));
    blob.bytes[..RSDP_LEN].copy_from_slice(&rsdp(rsdt, xsdt));
    Tables { rsdp: base, blob: blob.bytes, base }
}

const RSDP_LEN: usize = 36;

/// Root System Description Pointer (5.2.5.3), with both checksums.
fn rsdp(rsdt: u32, xsdt: u32) -> [u8; RSDP_LEN] {
    let mut r = [0; RSDP_LEN];
    r[0..8].copy_from_slice(b"RSD PTR ");
    r[9..15].copy_from_slice(&OEM_ID);
    r[15] = 2;
    r[16..20].copy_from_slice(&rsdt.to_le_bytes());
    r[20] = RSDP_LEN as u8;
    r[24..28].copy_from_slice(&xsdt.to_le_bytes());
    r[8] = sum(&r[..20]).wrapping_neg();
    r[32] = sum(&r).wrapping_neg();
    r
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |s, b| s.wrapping_add(*b))
}

/// A table of the common header (5.2.6) and `body`.
fn sdt(signature: [u8; 4], revision: u8, body: &[u8]) -> Sdt {
    let mut t = Sdt::new(signature, 36, revision, OEM_ID, OEM_TABLE_ID, 1);
    t.write_bytes(28, &CREATOR_ID);
    t.append_slice(body);
    t
}

/// Fixed ACPI Description Table (5.2.9).
fn fadt(layout: &AcpiLayout, facs: u32, dsdt: u32) -> impl Aml {
    const LEGACY_DEVICES: u16 = 1;
    const HAS_8042: u16 = 2;
    let port =
        |address: u16, bits, access| GAS::new(Space::SystemIo, bits, 0, access, address.into());
    let wide = |address: u16| u32::from(address).into();
    // No PWR_BUTTON flag: the power button is in PM1_STS. There are no sleep button, no wake-up
    // by the RTC and no C-states but C1.
    let flags = [Flags::Wbinvd, Flags::ProcC1, Flags::SlpButton, Flags::FixRtc, Flags::ResetRegSup];
    let mut t = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, 1)
        .firmware_ctrl_32(facs)
        .dsdt_32(dsdt)
        .preferred_pm_profile(PmProfile::Desktop);
    t.x_dsdt = u64::from(dsdt).into();
    t.creator_id = CREATOR_ID;
    t.sci_int = u16::from(SCI_IRQ).into();
    t.smi_cmd = wide(SMI_CMD);
    t.acpi_enable = ACPI_ENABLE;
    t.acpi_disable = ACPI_DISABLE;
    t.pm1a_evt_blk = wide(PM1A_EVT);
    t.pm1a_cnt_blk = wide(PM1A_CNT);
    t.pm_tmr_blk = wide(PM_TMR);
    t.gpe0_blk = wide(GPE0);
    t.pm1_evt_len = 4;
    t.pm1_cnt_len = 2;
    t.pm_tmr_len = 4;
    t.gpe0_blk_len = GPE0_LEN;
    t.p_lvl2_lat = 0xfff.into();
    t.p_lvl3_lat = 0xfff.into();
    t.century = RTC_CENTURY;
    t.iapc_boot_arch = (LEGACY_DEVICES | if layout.i8042 { HAS_8042 } else { 0 }).into();
    t.reset_reg = port(RESET_REG, 8, AccessSize::ByteAccess);
    t.reset_value = RESET_VALUE;
    t.x_pm1a_evt_blk = port(PM1A_EVT, 32, AccessSize::WordAccess);
    t.x_pm1a_cnt_blk = port(PM1A_CNT, 16, AccessSize::WordAccess);
    t.x_pm_tmr_blk = port(PM_TMR, 32, AccessSize::DwordAccess);
    t.x_gpe0_blk = port(GPE0, 8 * GPE0_LEN, AccessSize::ByteAccess);
    flags.into_iter().fold(t, FADTBuilder::flag).finalize()
}

/// Multiple APIC Description Table (5.2.12).
fn madt(layout: &AcpiLayout) -> Sdt {
    const PCAT_COMPAT: u32 = 1;
    const ENABLED: u8 = 1;
    // MPS INTI flags: polarity in bits 1:0 (0 as the bus has it, 1 high), trigger mode in 3:2.
    const AS_BUS: u8 = 0;
    const LEVEL_HIGH: u8 = 0xd;
    let mut t = [layout.local_apic.to_le_bytes(), PCAT_COMPAT.to_le_bytes()].concat();
    for id in 0..layout.cpus {
        t.extend([0, 8, id, id, ENABLED, 0, 0, 0]);
    }
    let io = layout.io_apic.to_le_bytes();
    t.extend([1, 12, 0, 0, io[0], io[1], io[2], io[3], 0, 0, 0, 0]);
    // Interrupt source overrides: the timer's IRQ 0 arrives at GSI 2; what is level-triggered.
    let mut overrides = vec![(0, 2, AS_BUS)];
    let mut level: Vec<u8> = layout.pirq.into_iter().filter(|&gsi| gsi < 16).collect();
    level.push(SCI_IRQ);
    level.sort_unstable();
    level.dedup();
    overrides.extend(level.iter().map(|&irq| (irq, irq, LEVEL_HIGH)));
    for (irq, gsi, flags) in overrides {
        t.extend([2, 10, 0, irq, gsi, 0, 0, 0, flags, 0]);
    }
    // NMI at LINT1 of all processors.
    t.extend([4, 6, 0xff, AS_BUS, 0, 1]);
    sdt(*b"APIC", 3, &t)
}

/// HPET Description Table.
fn hpet(address: u32) -> Sdt {
    // PCI vendor 8086h, legacy replacement, 64-bit counter, three comparators, revision 1.
    const EVENT_TIMER_BLOCK_ID: u32 = 0x8086_a201;
    const MEMORY_64_BITS: [u8; 4] = [0, 64, 0, 0];
    let mut t = [EVENT_TIMER_BLOCK_ID.to_le_bytes(), MEMORY_64_BITS].concat();
    t.extend(u64::from(address).to_le_bytes());
    // Number 0, no minimum tick, no page protection.
    t.extend([0; 4]);
    sdt(*b"HPET", 1, &t)
}

/// AML that is already bytes.
struct Code(Vec<u8>);

impl Code {
    fn of(parts: &[&dyn Aml]) -> Code {
        let mut bytes = Vec::new();
        for part in parts {
            part.to_aml_bytes(&mut bytes);
        }
        Code(bytes)
    }
}

impl Aml for Code {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        sink.vec(&self.0);
    }
}

fn name(path: &str, value: &dyn Aml) -> Name {
    Name::new(path.into(), value)
}

/// Device `path` with identification `hid`, number `uid`, resources, and what else it has.
fn device(path: &str, hid: &str, uid: u8, crs: &[&dyn Aml], more: &[&dyn Aml]) -> Code {
    let hid = name("_HID", &EISAName::new(hid));
    let uid = name("_UID", &uid);
    let crs = name("_CRS", &ResourceTemplate::new(crs.to_vec()));
    let mut children: Vec<&dyn Aml> = vec![&hid, &uid, &crs];
    children.extend(more);
    Code::of(&[&aml::Device::new(path.into(), children)])
}

/// A device on the ISA bus: its fixed ports (first, number) and its interrupt (0: none).
fn isa_device(path: &str, hid: &str, uid: u8, ports: &[(u16, u8)], irq: u8) -> Code {
    let ports: Vec<IO> = ports.iter().map(|&(first, n)| IO::new(first, first, 1, n)).collect();
    // IRQ descriptor without flags: edge-triggered, active high (6.4.2.1).
    let [low, high] = (1_u16 << irq).to_le_bytes();
    let irq_descriptor = Code(vec![0x22, low, high]);
    let mut crs: Vec<&dyn Aml> = ports.iter().map(|p| p as &dyn Aml).collect();
    if irq != 0 {
        crs.push(&irq_descriptor);
    }
    device(path, hid, uid, &crs, &[])
}

/// Interrupt link device for PIRQ `n`, fixed to `gsi`.
fn link_device(n: u8, gsi: u8) -> Code {
    let gsi = Interrupt::new(true, false, false, true, gsi.into());
    let prs = name("_PRS", &ResourceTemplate::new(vec![&gsi]));
    let sta = name("_STA", &0xb_u8);
    let dis = aml::Method::new("_DIS".into(), 0, false, vec![]);
    let srs = aml::Method::new("_SRS".into(), 1, false, vec![]);
    device(LINKS[usize::from(n)], "PNP0C0F", n, &[&gsi], &[&prs, &sta, &dis, &srs])
}

const LINKS: [&str; 4] = ["LNKA", "LNKB", "LNKC", "LNKD"];

/// PCI root bridge with its windows and interrupt routing; `isa` is the bus behind slot 1.
fn root_bridge(layout: &AcpiLayout, isa: &Code) -> Code {
    use AddressSpaceCacheable::{Cacheable, NotCacheable};
    let (first, last) = layout.pci_window;
    let crs: [&dyn Aml; 6] = [
        &AddressSpace::new_bus_number(0_u16, 0xff),
        &IO::new(0xcf8, 0xcf8, 1, 8),
        &AddressSpace::new_io(0_u16, 0xcf7, None),
        &AddressSpace::new_io(0xd00_u16, 0xffff, None),
        &AddressSpace::new_memory(Cacheable, true, 0xa_0000_u32, 0xb_ffff, None),
        &AddressSpace::new_memory(NotCacheable, true, first, last, None),
    ];
    let mut routes = aml::PackageBuilder::new();
    for (slot, pin) in (0..32).flat_map(|slot| (0..4).map(move |pin| (slot, pin))) {
        let link = aml::Path::new(LINKS[pirq_of(slot, pin)]);
        let address = u32::from(slot) << 16 | 0xffff;
        routes.add_element(&Package::new(vec![&address, &pin, &link, &ZERO]));
    }
    let prt = name("_PRT", &routes);
    device("PCI0", "PNP0A03", 0, &crs, &[&prt, isa])
}

/// Differentiated System Description Table: the devices that cannot be discovered otherwise.
fn dsdt(layout: &AcpiLayout) -> Sdt {
    let mut isa = vec![isa_device("RTC_", "PNP0B00", 0, &[(0x70, 2)], 8)];
    if layout.i8042 {
        isa.push(isa_device("KBD_", "PNP0303", 0, &[(0x60, 1), (0x64, 1)], 1));
        isa.push(isa_device("MOU_", "PNP0F13", 0, &[], 12));
    }
    let com = [("COM1", 0x3f8, 4), ("COM2", 0x2f8, 3)];
    for (uid, (path, port, irq)) in (1..=layout.com_ports).zip(com) {
        isa.push(isa_device(path, "PNP0501", uid, &[(port, 8)], irq));
    }
    // Ports of the board that no PCI device may be given.
    let board = [
        (PM1A_EVT, PM_LEN),
        (GPE0, GPE0_LEN),
        (SMI_CMD, 2),
        (0x4d0, 2), // ELCR
    ];
    isa.push(isa_device("SYSR", "PNP0C02", 0, &board, 0));
    let adr = name("_ADR", &0x1_0000_u32);
    let mut children: Vec<&dyn Aml> = vec![&adr];
    children.extend(isa.iter().map(|d| d as &dyn Aml));
    let isa = Code::of(&[&aml::Device::new("ISA_".into(), children)]);

    let mut devices = vec![root_bridge(layout, &isa)];
    devices.extend((0..).zip(layout.pirq).map(|(n, gsi)| link_device(n, gsi)));
    devices.extend(layout.hpet.map(|address| {
        device("HPET", "PNP0103", 0, &[&Memory32Fixed::new(false, address, 0x400)], &[])
    }));
    let devices = devices.iter().map(|d| d as &dyn Aml).collect();
    let bus = aml::Scope::new("\\_SB_".into(), devices);
    let s5 = name("\\_S5_", &Package::new(vec![&SLP_TYP_S5, &SLP_TYP_S5, &ZERO, &ZERO]));
    sdt(*b"DSDT", 2, &Code::of(&[&bus, &s5]).0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = 0xe_0000;

    impl Tables {
        fn int(&self, at: u64, size: usize) -> u64 {
            let mut v = [0; 8];
            let at = (at - self.base) as usize;
            v[..size].copy_from_slice(&self.blob[at..at + size]);
            u64::from_le_bytes(v)
        }

        fn table(&self, at: u64) -> (&[u8], &[u8]) {
            let len = self.int(at + 4, 4) as usize;
            let t = &self.blob[(at - self.base) as usize..][..len];
            t.split_at(4)
        }

        /// Follows the XSDT.
        fn find(&self, signature: &[u8]) -> Option<u64> {
            let xsdt = self.int(self.rsdp + 24, 8);
            let n = (self.int(xsdt + 4, 4) - 36) / 8;
            (0..n).map(|i| self.int(xsdt + 36 + 8 * i, 8)).find(|&t| self.table(t).0 == signature)
        }
    }

    /// Does what firmware does with the loader's commands, with the tables at `base` and the RSDP
    /// before them; the result must be what is built for that place.
    #[test]
    fn firmware_gets_the_same_tables_by_its_loader() {
        let l = loader(&AcpiLayout::default());
        let base = 0x7ff_0040_usize;
        let mut memory = [l.rsdp.clone(), vec![0; 64 - RSDP_LEN], l.tables.clone()].concat();
        let start = |file: &[u8]| if file.starts_with(b"etc/acpi/rsdp\0") { 0 } else { 64 };
        for c in l.commands.chunks(128) {
            let int = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|n| c[at + n])) as usize;
            let file = start(&c[4..60]);
            match int(0) {
                1 => assert!(matches!((file, int(60), c[64]), (0, 16, 2) | (64, 64, 1))),
                2 => {
                    let at = file + int(116);
                    let mut value = [0; 8];
                    value[..4].copy_from_slice(&memory[at..at + 4]);
                    let value = u64::from_le_bytes(value) + base as u64;
                    let size = usize::from(c[120]);
                    memory[at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
                }
                3 => {
                    let (at, from, len) = (file + int(60), file + int(64), int(68));
                    memory[at] = memory[at].wrapping_sub(sum(&memory[from..from + len]));
                }
                other => panic!("command {other}"),
            }
        }
        let want = build(&AcpiLayout::default(), base as u64 - 64).blob;
        assert_eq!(memory, want);
    }

    #[test]
    fn tables_are_linked_aligned_and_sum_to_zero() {
        for base in [BASE, 0x7fe_0010] {
            let t = build(&AcpiLayout::default(), base);
            assert_eq!((t.rsdp & 15, &t.blob[..8]), (0, &b"RSD PTR "[..]));
            assert_eq!((sum(&t.blob[..20]), sum(&t.blob[..36])), (0, 0));
            let (rsdt, xsdt) = (t.int(t.rsdp + 16, 4), t.int(t.rsdp + 24, 8));
            let fadt = t.find(b"FACP").unwrap();
            let (facs, dsdt) = (t.int(fadt + 36, 4), t.int(fadt + 40, 4));
            assert_eq!((facs & 63, t.table(facs).0), (0, &b"FACS"[..]));
            assert_eq!(t.int(fadt + 140, 8), dsdt);
            let mut all = vec![(rsdt, b"RSDT"), (xsdt, b"XSDT"), (dsdt, b"DSDT")];
            for signature in [b"FACP", b"APIC", b"HPET"] {
                all.push((t.find(signature).unwrap(), signature));
            }
            for (at, signature) in all {
                let (head, rest) = t.table(at);
                assert_eq!(head, signature);
                assert_eq!(sum(head).wrapping_add(sum(rest)), 0, "{signature:?}");
            }
            let n = (t.int(rsdt + 4, 4) - 36) / 4;
            let wide: Vec<u64> = (0..n).map(|i| t.int(xsdt + 36 + 8 * i, 8)).collect();
            let narrow: Vec<u64> = (0..n).map(|i| t.int(rsdt + 36 + 4 * i, 4)).collect();
            assert_eq!(wide, narrow);
        }
    }

    #[test]
    fn the_largest_machine_fits_its_area() {
        let t = build(&AcpiLayout { cpus: 255, ..AcpiLayout::default() }, BASE);
        assert!(t.blob.len() < 0x1_0000, "{:#x}", t.blob.len());
    }

    #[test]
    fn fadt_names_the_ports_of_the_chips() {
        let t = build(&AcpiLayout::default(), BASE);
        let f = t.find(b"FACP").unwrap();
        for (offset, size, value) in [
            (46, 2, 9),            // SCI_INT
            (48, 4, 0xb2),         // SMI_CMD
            (52, 2, 0xf0f1),       // ACPI_ENABLE, ACPI_DISABLE
            (56, 4, 0x600),        // PM1a_EVT_BLK
            (64, 4, 0x604),        // PM1a_CNT_BLK
            (76, 4, 0x608),        // PM_TMR_BLK
            (80, 4, 0xafe0),       // GPE0_BLK
            (88, 4, 0x0400_0204),  // PM1_EVT_LEN, PM1_CNT_LEN, PM2_CNT_LEN, PM_TMR_LEN
            (92, 1, 4),            // GPE0_BLK_LEN
            (108, 1, 0x32),        // CENTURY
            (109, 2, 3),           // IAPC_BOOT_ARCH
            (112, 4, 0x465),       // flags
            (116, 4, 0x0100_0801), // RESET_REG
            (120, 8, 0xcf9),
            (128, 1, 6),           // RESET_VALUE
            (148, 4, 0x0200_2001), // X_PM1a_EVT_BLK
            (152, 8, 0x600),
        ] {
            assert_eq!(t.int(f + offset, size), value, "offset {offset}");
        }
    }

    #[test]
    fn madt_lists_cpus_io_apic_and_overrides() {
        let layout = AcpiLayout { cpus: 3, pirq: [10, 11, 16, 17], ..AcpiLayout::default() };
        let t = build(&layout, BASE);
        let at = t.find(b"APIC").unwrap();
        let mut rest = &t.table(at).1[40..];
        let mut rows = Vec::new();
        while let [kind, len, ..] = *rest {
            let (row, tail) = rest.split_at(len.into());
            rows.push((kind, row[2..].to_vec()));
            rest = tail;
        }
        let iso = |irq, gsi, flags| (2, vec![0, irq, gsi, 0, 0, 0, flags, 0]);
        assert_eq!(
            rows,
            [
                (0, vec![0, 0, 1, 0, 0, 0]),
                (0, vec![1, 1, 1, 0, 0, 0]),
                (0, vec![2, 2, 1, 0, 0, 0]),
                (1, vec![0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0]),
                iso(0, 2, 0),
                iso(9, 9, 0xd),
                iso(10, 10, 0xd),
                iso(11, 11, 0xd),
                (4, vec![0xff, 0, 0, 1]),
            ]
        );
        assert_eq!(t.int(at + 36, 8), 0x1_fee0_0000);
    }

    #[test]
    fn absent_devices_are_not_described() {
        let layout = AcpiLayout { hpet: None, com_ports: 1, i8042: false, ..AcpiLayout::default() };
        let (full, small) = (build(&AcpiLayout::default(), BASE), build(&layout, BASE));
        let has = |t: &Tables, word: &[u8]| t.blob.windows(word.len()).any(|w| w == word);
        for word in [&b"HPET"[..], b"COM2", b"KBD_", b"MOU_"] {
            assert!(has(&full, word) && !has(&small, word), "{word:?}");
        }
        assert!(has(&small, b"COM1") && has(&small, b"_S5_"));
        assert_eq!(small.find(b"HPET"), None);
    }

    #[test]
    fn interrupt_pins_are_swizzled_by_slot() {
        assert_eq!([1, 2, 3, 4, 5].map(|slot| pirq_of(slot, 0)), [0, 1, 2, 3, 0]);
        assert_eq!([0, 1, 2, 3].map(|pin| pirq_of(3, pin)), [2, 3, 0, 1]);
        assert_eq!(pirq_of(0, 0), 3);
    }
}
