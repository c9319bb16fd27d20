//! The PCI side of the i440FX: configuration mechanism 1 with the host bridge as function
//! 00:00.0, and the reset control register of PIIX3.
//!
//! Registers by offset from 0xCF8: 0 to 3 is CONFADD, which exists for 32-bit accesses only (byte 1
//! is the reset control register to all others), 4 to 7 is CONFDATA, any size. The other functions
//! on bus 0 belong to the board, which lends them for the time of an access; what is absent reads
//! all ones and ignores writes.
//!
//! The bridge is 256 bytes and a mask of the bits a guest may change, both from one table. What
//! they mean for the memory map the board asks for: [`PciHost::shadow`] (PAM) and
//! [`PciHost::smram`].
//!
//! Source: Intel 82441FX (440FX PMC) datasheet (290549), section 3; 82371SB (PIIX3) datasheet, RC;
//! PCI Local Bus Specification 2.1, chapter 6. The subsystem ID is QEMU's, by which SeaBIOS knows
//! that it runs on a virtual machine.

/// CONE: configuration accesses are enabled.
const CONFADD_CONE: u32 = 1 << 31;
const CONFADD_BITS: u32 = 0x80FF_FFFC;

const PAM0: usize = 0x59;
const SMRAM: usize = 0x72;
const SMRAM_DOPEN: u8 = 0x40;
const SMRAM_DCLS: u8 = 0x20;
const SMRAM_DLCK: u8 = 0x10;
const SMRAM_GSMRAME: u8 = 0x08;

/// The bridge by dwords: offset, value at reset, bits a guest may change. The rest reads 0.
#[rustfmt::skip]
const BRIDGE: [(usize, u32, u32); 14] = [
    (0x00, 0x1237_8086, 0x0000_0000), // DID, VID
    (0x04, 0x0280_0006, 0x0000_0140), // PCISTS, PCICMD
    (0x08, 0x0600_0002, 0x0000_0000), // CLASSC (host bridge), RID
    (0x0C, 0x0000_0000, 0x0000_F800), // BIST, HEADT, MLT
    (0x2C, 0x1100_1AF4, 0x0000_0000), // subsystem ID and vendor
    (0x50, 0x8000_0000, 0xFFFF_FFFF), // DBC, DETURBO, PMCCFG
    (0x54, 0x0100_0000, 0xFFFF_FFFF), // DRAMC, DRT, AXC
    (0x58, 0x0000_0010, 0x3333_30FF), // PAM2, PAM1, PAM0, DRAMT
    (0x5C, 0x0000_0000, 0x3333_3333), // PAM6 to PAM3
    (0x60, 0x0101_0101, 0xFFFF_FFFF), // DRB3 to DRB0
    (0x64, 0x0101_0101, 0xFFFF_FFFF), // DRB7 to DRB4
    (0x68, 0x0000_0000, 0x0000_00C0), // FDHC
    (0x70, 0x0002_1000, 0x0078_1FF8), // SMRAM (C_BASE_SEG is fixed), CLT, MTT
    (0x90, 0x0000_0000, 0x0000_00FF), // ERRCMD
];

/// A function on a PCI bus: its configuration space.
pub trait PciFunction: Send {
    /// Reads `size` (1, 2 or 4) bytes at `offset`; they lie within one dword.
    fn config_read(&mut self, offset: u8, size: u8) -> u32;
    /// Writes the low `size` (1, 2 or 4) bytes of `value` at `offset`, within one dword.
    fn config_write(&mut self, offset: u8, size: u8, value: u32);
}

fn ones(size: u8) -> u32 {
    u32::MAX >> (32 - 8 * u32::from(size.clamp(1, 4)))
}

/// Configuration space of function 00:00.0.
#[derive(Clone, Debug, PartialEq)]
struct Bridge {
    bytes: [u8; 256],
}

impl Bridge {
    fn new() -> Bridge {
        let mut bytes = [0; 256];
        for (offset, value, _) in BRIDGE {
            bytes.iter_mut().skip(offset).zip(value.to_le_bytes()).for_each(|(b, v)| *b = v);
        }
        Bridge { bytes }
    }

    fn write_byte(&mut self, offset: u8, value: u8) {
        let row = BRIDGE.iter().find(|row| row.0 == usize::from(offset & !3));
        let mut writable = row.map_or(0, |row| row.2.to_le_bytes()[usize::from(offset & 3)]);
        let offset = usize::from(offset);
        if offset == SMRAM && self.bytes[SMRAM] & SMRAM_DLCK != 0 {
            writable &= !(SMRAM_DOPEN | SMRAM_DLCK);
        }
        self.bytes[offset] = self.bytes[offset] & !writable | value & writable;
        if self.bytes[SMRAM] & SMRAM_DLCK != 0 {
            self.bytes[SMRAM] &= !SMRAM_DOPEN;
        }
    }
}

impl PciFunction for Bridge {
    fn config_read(&mut self, offset: u8, size: u8) -> u32 {
        let bytes = [0, 1, 2, 3].map(|n| self.bytes[usize::from(offset.wrapping_add(n))]);
        u32::from_le_bytes(bytes) & ones(size)
    }

    fn config_write(&mut self, offset: u8, size: u8, value: u32) {
        let bytes = value.to_le_bytes().into_iter().take(usize::from(size));
        bytes.zip(0..).for_each(|(byte, n)| self.write_byte(offset.wrapping_add(n), byte));
    }
}

/// Where accesses to a part of C0000 to FFFFF go (a PAM register's RE and WE bits).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shadow {
    /// RE: reads come from DRAM, not from the ROM on the bus.
    pub read: bool,
    /// WE: writes go to DRAM, not to the bus.
    pub write: bool,
}

/// The configuration ports and the host bridge.
#[derive(Clone, Debug, PartialEq)]
pub struct PciHost {
    address: u32,
    bridge: Bridge,
}

impl Default for PciHost {
    fn default() -> PciHost {
        PciHost::new()
    }
}

/// The functions that the board lends: device and function number (device in bits 7:3), function.
pub type Functions<'a, 'b> = &'a mut [(u8, &'b mut dyn PciFunction)];

impl PciHost {
    /// A host bridge after reset.
    #[must_use]
    pub fn new() -> PciHost {
        PciHost { address: 0, bridge: Bridge::new() }
    }

    /// System reset of the bridge and the ports; the board resets the other functions.
    pub fn reset(&mut self) {
        *self = PciHost::new();
    }

    /// Reads `size` (1, 2 or 4) bytes at register `reg` (0..8).
    pub fn read(&mut self, reg: u16, size: u8, functions: Functions) -> u32 {
        match (reg & 7, size) {
            (0, 4) => self.address,
            (0..4, _) => ones(size),
            (reg, _) if reg & 3 > 4 - u16::from(size.clamp(1, 4)) => {
                // Past the end of its dword nothing answers.
                let inside = 8 - reg as u8;
                let low = (0..inside).map(|n| self.read_data(reg + u16::from(n), 1, functions));
                let low = low.zip(0..).fold(0, |value, (byte, n)| value | byte << (8 * n));
                low | ones(size) & !ones(inside)
            }
            (reg, _) => self.read_data(reg, size, functions),
        }
    }

    /// Writes `size` (1, 2 or 4) bytes at register `reg` (0..8).
    pub fn write(&mut self, reg: u16, size: u8, value: u32, functions: Functions) {
        match (reg & 7, size) {
            (0, 4) => self.address = value & CONFADD_BITS,
            (0..4, _) => {}
            (reg, _) if reg & 3 > 4 - u16::from(size.clamp(1, 4)) => {
                let bytes = (reg..8).zip(value.to_le_bytes());
                bytes.for_each(|(reg, byte)| self.write_data(reg, 1, byte.into(), functions));
            }
            (reg, _) => self.write_data(reg, size, value, functions),
        }
    }

    /// The bridge's configuration space.
    #[must_use]
    pub fn config(&self) -> &[u8; 256] {
        &self.bridge.bytes
    }

    /// Where accesses to `address` go; None outside C0000 to FFFFF.
    #[must_use]
    pub fn shadow(&self, address: u64) -> Option<Shadow> {
        let (pam, high) = match address {
            0xC_0000..0xF_0000 => {
                let part = (address as usize - 0xC_0000) >> 14;
                (1 + part / 2, part & 1 != 0)
            }
            0xF_0000..0x10_0000 => (0, true),
            _ => return None,
        };
        let bits = self.bridge.bytes[PAM0 + pam] >> if high { 4 } else { 0 };
        Some(Shadow { read: bits & 1 != 0, write: bits & 2 != 0 })
    }

    /// Whether an access to A0000 to BFFFF goes to DRAM and not to the bus, for a processor in
    /// system management mode (`smm`) or not, fetching code or not.
    #[must_use]
    pub fn smram(&self, smm: bool, code: bool) -> bool {
        let set = |bit| self.bridge.bytes[SMRAM] & bit != 0;
        set(SMRAM_GSMRAME) && (set(SMRAM_DOPEN) || smm && (code || !set(SMRAM_DCLS)))
    }

    /// The function (device in bits 7:3) and the dword's offset that CONFADD names, if accesses are
    /// enabled and it is on bus 0.
    #[must_use]
    pub fn selected(&self) -> Option<(u8, u8)> {
        let [offset, number, bus, _] = self.address.to_le_bytes();
        (self.address & CONFADD_CONE != 0 && bus == 0).then_some((number, offset & 0xFC))
    }

    fn read_data(&mut self, reg: u16, size: u8, functions: Functions) -> u32 {
        let offset = self.offset(reg);
        let function = self.function(functions);
        function.map_or(ones(size), |f| f.config_read(offset, size) & ones(size))
    }

    fn write_data(&mut self, reg: u16, size: u8, value: u32, functions: Functions) {
        let offset = self.offset(reg);
        if let Some(function) = self.function(functions) {
            function.config_write(offset, size, value & ones(size));
        }
    }

    fn offset(&self, reg: u16) -> u8 {
        self.address as u8 & 0xFC | reg as u8 & 3
    }

    /// The function that CONFADD names.
    fn function<'a>(&'a mut self, functions: Functions<'a, '_>) -> Option<&'a mut dyn PciFunction> {
        let [_, number, bus, _] = self.address.to_le_bytes();
        if self.address & CONFADD_CONE == 0 || bus != 0 {
            return None;
        }
        if number == 0 {
            return Some(&mut self.bridge);
        }
        let found = functions.iter_mut().find(|function| function.0 == number)?;
        Some(&mut *found.1)
    }
}

/// The reset control register of PIIX3, port 0xCF9.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ResetControl {
    value: u8,
    reset: bool,
}

impl ResetControl {
    const SRST: u8 = 0x02;
    const RCPU: u8 = 0x04;

    /// The register with all bits off.
    #[must_use]
    pub fn new() -> ResetControl {
        ResetControl::default()
    }

    /// System reset.
    pub fn reset(&mut self) {
        *self = ResetControl::new();
    }

    /// Reads the register.
    #[must_use]
    pub fn read(&self) -> u8 {
        self.value
    }

    /// Writes the register: RCPU resets, and falls back to 0 with the reset it causes.
    pub fn write(&mut self, value: u8) {
        self.reset |= value & Self::RCPU != 0;
        self.value = value & Self::SRST;
    }

    /// Whether a reset was asked for since the last call.
    pub fn take_reset(&mut self) -> bool {
        std::mem::take(&mut self.reset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Rng;

    struct Device {
        bytes: [u8; 256],
    }

    impl PciFunction for Device {
        fn config_read(&mut self, offset: u8, size: u8) -> u32 {
            assert!(matches!(size, 1 | 2 | 4) && offset & 3 <= 4 - size);
            (0..size).fold(0, |value, n| {
                value | u32::from(self.bytes[usize::from(offset + n)]) << (8 * n)
            })
        }

        fn config_write(&mut self, offset: u8, size: u8, value: u32) {
            assert!(matches!(size, 1 | 2 | 4) && offset & 3 <= 4 - size);
            for n in 0..size {
                self.bytes[usize::from(offset + n)] = (value >> (8 * n)) as u8;
            }
        }
    }

    fn select(host: &mut PciHost, function: u8, offset: u8) {
        let address = CONFADD_CONE | u32::from(function) << 8 | u32::from(offset);
        host.write(0, 4, address, &mut []);
    }

    fn read(host: &mut PciHost, function: u8, offset: u8, size: u8) -> u32 {
        select(host, function, offset & !3);
        host.read(4 + u16::from(offset & 3), size, &mut [])
    }

    fn write(host: &mut PciHost, offset: u8, size: u8, value: u32) {
        select(host, 0, offset & !3);
        host.write(4 + u16::from(offset & 3), size, value, &mut []);
    }

    #[test]
    fn linux_mechanism_1_probe() {
        let mut host = PciHost::new();
        host.write(3, 1, 0x01, &mut []);
        host.write(0, 4, 0x8000_0000, &mut []);
        assert_eq!(host.read(0, 4, &mut []), 0x8000_0000);
        assert_eq!(host.read(0, 1, &mut []), 0xFF);
        assert_eq!(host.read(1, 2, &mut []), 0xFFFF);
        host.write(0, 4, u32::MAX, &mut []);
        assert_eq!(host.read(0, 4, &mut []), CONFADD_BITS);
    }

    #[test]
    fn host_bridge_identity_in_every_size() {
        let mut host = PciHost::new();
        assert_eq!(read(&mut host, 0, 0x00, 4), 0x1237_8086);
        assert_eq!(read(&mut host, 0, 0x02, 2), 0x1237);
        assert_eq!(read(&mut host, 0, 0x01, 2), 0x3780);
        assert_eq!(read(&mut host, 0, 0x0B, 1), 0x06);
        assert_eq!(read(&mut host, 0, 0x0E, 1), 0x00, "header type");
        assert_eq!(read(&mut host, 0, 0x2C, 4), 0x1100_1AF4);
    }

    #[test]
    fn a_read_past_the_dword_gives_ones() {
        let mut host = PciHost::new();
        assert_eq!(read(&mut host, 0, 0x03, 2), 0xFF12);
        assert_eq!(read(&mut host, 0, 0x02, 4), 0xFFFF_1237);
        write(&mut host, 0x53, 4, 0xA5A5_A55A);
        assert_eq!(read(&mut host, 0, 0x53, 1), 0x5A);
        assert_eq!(read(&mut host, 0, 0x54, 4), 0x0100_0000);
    }

    #[test]
    fn absent_functions_and_disabled_accesses_read_ones() {
        let mut host = PciHost::new();
        for function in 1..=255 {
            assert_eq!(read(&mut host, function, 0, 4), u32::MAX);
        }
        host.write(0, 4, CONFADD_CONE | 1 << 16, &mut []);
        assert_eq!(host.read(4, 2, &mut []), 0xFFFF, "bus 1");
        host.write(0, 4, 0, &mut []);
        assert_eq!(host.read(4, 1, &mut []), 0xFF, "CONE off");
    }

    #[test]
    fn read_only_bits_stay() {
        let mut host = PciHost::new();
        (0..=255).for_each(|offset| write(&mut host, offset, 1, 0xFF));
        assert_eq!(read(&mut host, 0, 0x00, 4), 0x1237_8086);
        assert_eq!(read(&mut host, 0, 0x04, 4), 0x0280_0146);
        assert_eq!(read(&mut host, 0, 0x0C, 4), 0x0000_F800);
        assert_eq!(read(&mut host, 0, 0x10, 4), 0);
        assert_eq!(read(&mut host, 0, 0x58, 4), 0x3333_30FF);
        host.reset();
        assert_eq!(host, PciHost::new());
    }

    #[test]
    fn pam_registers_shadow_the_rom_area() {
        let mut host = PciHost::new();
        assert_eq!(host.shadow(0xF_0000), Some(Shadow { read: false, write: false }));
        write(&mut host, 0x59, 1, 0x30);
        assert_eq!(host.shadow(0xF_FFFF), Some(Shadow { read: true, write: true }));
        // (PAM register, value, last address of the part, read, write)
        for (offset, value, last, read, write_enable) in [
            (0x5A, 0x01, 0xC_3FFF, true, false),
            (0x5A, 0x20, 0xC_7FFF, false, true),
            (0x5B, 0x03, 0xC_BFFF, true, true),
            (0x5F, 0x10, 0xE_FFFF, true, false),
        ] {
            let mut host = PciHost::new();
            write(&mut host, offset, 1, value);
            assert_eq!(host.shadow(last), Some(Shadow { read, write: write_enable }));
            assert_eq!(host.shadow(last + 1), Some(Shadow { read: false, write: false }));
        }
        assert_eq!((host.shadow(0xB_FFFF), host.shadow(0x10_0000)), (None, None));
    }

    #[test]
    fn smram_opens_closes_and_locks() {
        let mut host = PciHost::new();
        assert!(!host.smram(true, true));
        write(&mut host, 0x72, 1, 0x4A);
        assert!(host.smram(false, false));
        write(&mut host, 0x72, 1, 0x2A);
        assert!(host.smram(true, true) && !host.smram(true, false) && !host.smram(false, true));
        write(&mut host, 0x72, 1, 0x5A);
        assert_eq!(read(&mut host, 0, 0x72, 1), 0x1A);
        write(&mut host, 0x72, 1, 0x4A);
        assert_eq!(read(&mut host, 0, 0x72, 1), 0x1A, "locked until reset");
    }

    #[test]
    fn lent_functions_are_reached() {
        let (mut host, mut device) = (PciHost::new(), Device { bytes: [0; 256] });
        let functions: Functions = &mut [(0x18, &mut device)];
        select(&mut host, 0x18, 0x40);
        host.write(6, 2, 0xBEEF, functions);
        assert_eq!(host.read(4, 4, functions), 0xBEEF_0000);
        select(&mut host, 0x19, 0x40);
        assert_eq!(host.read(4, 4, functions), u32::MAX);
    }

    #[test]
    fn reset_control_register() {
        let mut rcr = ResetControl::new();
        rcr.write(0x02);
        assert_eq!((rcr.read(), rcr.take_reset()), (0x02, false));
        rcr.write(0x06);
        assert_eq!((rcr.read(), rcr.take_reset(), rcr.take_reset()), (0x02, true, false));
    }

    #[test]
    fn random_accesses() {
        let (mut host, mut device, mut rng) = (PciHost::new(), Device { bytes: [0; 256] }, Rng(1));
        for _ in 0..100_000 {
            let functions: Functions = &mut [(0x08, &mut device)];
            let (reg, size) = (rng.next() as u16 & 15, [1, 2, 4, 4][rng.below(4) as usize]);
            let value = rng.next() as u32;
            match rng.below(4) {
                0 => host.write(0, 4, CONFADD_CONE | value & 0x1_0FFF, functions),
                1 => host.write(reg, size, value, functions),
                _ => assert_eq!(host.read(reg, size, functions) & !ones(size), 0),
            }
            let address = u64::from(value & 0x1F_FFFF);
            assert_eq!(host.shadow(address).is_some(), (0xC_0000..0x10_0000).contains(&address));
        }
        assert_eq!(read(&mut host, 0, 0, 4), 0x1237_8086);
    }
}
