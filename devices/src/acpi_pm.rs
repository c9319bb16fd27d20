//! ACPI fixed hardware: power management as the PIIX4's function 3 has it on a PC.
//!
//! Problem: the operating system switches the machine off, resets it, learns of the power button
//! and reads a clock through a handful of ports that the FADT names; all of them may raise the
//! system control interrupt.
//!
//! Method: PM1 event, PM1 control and the PM timer are one block of ports, the general-purpose
//! events, the SMI command and the reset register are blocks of their own, each with its pair of
//! access functions. The timer is derived from the time of the access. SCI, sleep and reset are
//! queries for the board. There is no system management mode: the two SMI commands that the FADT
//! names take effect at once.
//!
//! Invariants: status bits are cleared only by writing ones; the SCI is a level that follows
//! status and enable bits while SCI_EN is set.
//!
//! Source: ACPI Specification 6.5, chapter 4.8; Intel 82371AB (PIIX4) datasheet, chapter 7.2.

/// Offset of the PM1a event block: status, then enable register.
pub const PM1A_EVT_OFFSET: u16 = 0;
/// FADT PM1_EVT_LEN.
pub const PM1_EVT_LEN: u8 = 4;
/// Offset of the PM1a control register.
pub const PM1A_CNT_OFFSET: u16 = 4;
/// FADT PM1_CNT_LEN.
pub const PM1_CNT_LEN: u8 = 2;
/// Offset of the PM timer.
pub const PM_TMR_OFFSET: u16 = 8;
/// FADT PM_TMR_LEN. The timer has 24 bits: TMR_VAL_EXT is to be left clear.
pub const PM_TMR_LEN: u8 = 4;
/// Bytes of the block that [`AcpiPm::read`] and [`AcpiPm::write`] serve.
pub const PM_BLOCK_LEN: u16 = 12;
/// FADT GPE0_BLK_LEN: two bytes of status, two of enable.
pub const GPE0_BLK_LEN: u8 = 4;
/// FADT SMI_CMD: the PIIX4's port APMC; APMS follows it.
pub const SMI_CMD_PORT: u16 = 0xB2;
/// FADT ACPI_ENABLE: written to [`SMI_CMD_PORT`] it sets SCI_EN.
pub const ACPI_ENABLE: u8 = 0xF1;
/// FADT ACPI_DISABLE: written to [`SMI_CMD_PORT`] it clears SCI_EN.
pub const ACPI_DISABLE: u8 = 0xF0;
/// FADT RESET_REG: a port of one byte, which lies within PCI's configuration address register.
pub const RESET_PORT: u16 = 0xCF9;
/// FADT RESET_VALUE.
pub const RESET_VALUE: u8 = 0x0F;
/// SLP_TYPa of S5, soft off, for the `_S5` object.
pub const SLP_TYP_S5: u8 = 0;
/// Frequency of the PM timer in Hz.
pub const PM_TMR_HZ: u32 = 3_579_545;

const TMR_STS: u16 = 1 << 0;
const PWRBTN_STS: u16 = 1 << 8;
/// TMR, GBL, PWRBTN, SLPBTN and RTC.
const PM1_EN_BITS: u16 = 0x0721;

const SCI_EN: u16 = 1 << 0;
const SLP_EN: u16 = 1 << 13;
/// SCI_EN, BM_RLD and SLP_TYP; GBL_RLS and SLP_EN are write-only.
const PM1_CNT_BITS: u16 = 0x1C03;

const PM_TMR_BITS: u32 = 24;
const RCPU: u8 = 1 << 2;
const SRST: u8 = 1 << 1;
const NS_PER_S: u128 = 1_000_000_000;

/// The power management block.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AcpiPm {
    pm1_sts: u16,
    pm1_en: u16,
    pm1_cnt: u16,
    gpe0_sts: u16,
    gpe0_en: u16,
    apmc: u8,
    apms: u8,
    /// Reset control register, its bit SRST.
    reset_control: u8,
    /// How often the timer's most significant bit had toggled when it was last looked at.
    toggles: u64,
    sleep: Option<u8>,
    reset_requested: bool,
}

impl AcpiPm {
    /// The block after reset, in legacy mode (SCI_EN clear).
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Power-up reset. The PM timer runs on.
    pub fn reset(&mut self) {
        *self = Self { toggles: self.toggles, ..Self::default() };
    }

    /// Reads `size` bytes at `offset` of the PM1 and timer block at `now` (ns).
    pub fn read(&mut self, now: u64, offset: u64, size: u8) -> u64 {
        self.advance(now);
        let timer = ticks(now) & ((1 << PM_TMR_BITS) - 1);
        let block = u128::from(self.pm1_sts)
            | u128::from(self.pm1_en) << 16
            | u128::from(self.pm1_cnt) << (8 * PM1A_CNT_OFFSET)
            | u128::from(timer) << (8 * PM_TMR_OFFSET);
        bytes(block, offset, size)
    }

    /// Writes `size` bytes at `offset` of the PM1 and timer block at `now` (ns).
    pub fn write(&mut self, now: u64, offset: u64, size: u8, value: u64) {
        self.advance(now);
        let lane = |at| Lane::of(at, offset, size, value);
        self.pm1_sts &= !lane(PM1A_EVT_OFFSET).value;
        self.pm1_en = lane(PM1A_EVT_OFFSET + 2).merge(self.pm1_en) & PM1_EN_BITS;
        let control = lane(PM1A_CNT_OFFSET);
        let pm1_cnt = control.merge(self.pm1_cnt);
        self.pm1_cnt = pm1_cnt & PM1_CNT_BITS;
        if pm1_cnt & SLP_EN != 0 {
            self.sleep = Some((pm1_cnt >> 10) as u8 & 7);
        }
    }

    /// Reads `size` bytes at `offset` of the GPE0 block.
    pub fn gpe_read(&mut self, _now: u64, offset: u64, size: u8) -> u64 {
        let block = u128::from(self.gpe0_sts) | u128::from(self.gpe0_en) << 16;
        bytes(block, offset, size)
    }

    /// Writes `size` bytes at `offset` of the GPE0 block.
    pub fn gpe_write(&mut self, _now: u64, offset: u64, size: u8, value: u64) {
        self.gpe0_sts &= !Lane::of(0, offset, size, value).value;
        self.gpe0_en = Lane::of(2, offset, size, value).merge(self.gpe0_en);
    }

    /// Reads `size` bytes at `offset` from [`SMI_CMD_PORT`]: APMC and APMS as last written.
    pub fn smi_read(&mut self, _now: u64, offset: u64, size: u8) -> u64 {
        bytes(u16::from_le_bytes([self.apmc, self.apms]).into(), offset, size)
    }

    /// Writes `size` bytes at `offset` from [`SMI_CMD_PORT`]. In APMC [`ACPI_ENABLE`] and
    /// [`ACPI_DISABLE`] change SCI_EN, other commands do nothing.
    pub fn smi_write(&mut self, now: u64, offset: u64, size: u8, value: u64) {
        self.advance(now);
        let lane = Lane::of(0, offset, size, value);
        [self.apmc, self.apms] =
            lane.merge(u16::from_le_bytes([self.apmc, self.apms])).to_le_bytes();
        match self.apmc {
            _ if lane.mask & 0xFF == 0 => {}
            ACPI_ENABLE => self.pm1_cnt |= SCI_EN,
            ACPI_DISABLE => self.pm1_cnt &= !SCI_EN,
            _ => {}
        }
    }

    /// Reads the reset control register at [`RESET_PORT`].
    pub fn reset_read(&mut self) -> u8 {
        self.reset_control
    }

    /// Writes the reset control register at [`RESET_PORT`]: bit 2 resets the machine.
    pub fn reset_write(&mut self, value: u8) {
        self.reset_control = value & SRST;
        self.reset_requested |= value & RCPU != 0;
    }

    /// The power button is pressed.
    pub fn press_power_button(&mut self) {
        self.pm1_sts |= PWRBTN_STS;
    }

    /// General-purpose event `bit` (0 to 15) happens.
    pub fn raise_gpe(&mut self, bit: u8) {
        self.gpe0_sts |= 1u16.checked_shl(bit.into()).unwrap_or(0);
    }

    /// The system control interrupt, a level.
    #[must_use]
    pub fn sci(&self) -> bool {
        let events = self.pm1_sts & self.pm1_en & PM1_EN_BITS | self.gpe0_sts & self.gpe0_en;
        self.pm1_cnt & SCI_EN != 0 && events != 0
    }

    /// Takes the SLP_TYP (0 to 7) of a sleep that software has entered since the last call;
    /// [`SLP_TYP_S5`] is power off.
    pub fn take_sleep(&mut self) -> Option<u8> {
        self.sleep.take()
    }

    /// Takes whether software has asked for a reset since the last call.
    pub fn take_reset(&mut self) -> bool {
        std::mem::take(&mut self.reset_requested)
    }

    /// The moment (ns) at which the timer carry raises the SCI, if it is to.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        let waiting =
            self.pm1_cnt & SCI_EN != 0 && self.pm1_en & TMR_STS != 0 && self.pm1_sts & TMR_STS == 0;
        let ticks = u128::from(self.toggles + 1) << (PM_TMR_BITS - 1);
        let at = (ticks * NS_PER_S).div_ceil(PM_TMR_HZ.into());
        waiting.then_some(at.min(u64::MAX.into()) as u64)
    }

    /// Sets TMR_STS if the timer's most significant bit has toggled by `now` (ns).
    pub fn advance(&mut self, now: u64) {
        let toggles = ticks(now) >> (PM_TMR_BITS - 1);
        if toggles > self.toggles {
            self.toggles = toggles;
            self.pm1_sts |= TMR_STS;
        }
    }
}

/// PM timer ticks in `now` nanoseconds; the register shows the low 24 bits.
fn ticks(now: u64) -> u64 {
    (u128::from(now) * u128::from(PM_TMR_HZ) / NS_PER_S) as u64
}

/// `size` bytes at `offset` of a block of registers; beyond it there are zeros.
fn bytes(block: u128, offset: u64, size: u8) -> u64 {
    let mask = u64::MAX >> (64 - 8 * u32::from(size.clamp(1, 8)));
    if offset < 16 { (block >> (8 * offset)) as u64 & mask } else { 0 }
}

/// The part of a write that hits one 16-bit register.
#[derive(Clone, Copy)]
struct Lane {
    /// The bits that are written.
    mask: u16,
    /// Their values, zero elsewhere.
    value: u16,
}

impl Lane {
    /// Of the register at `at`, when `size` bytes of `value` are written at `offset`.
    fn of(at: u16, offset: u64, size: u8, value: u64) -> Self {
        let mask = u128::from(u64::MAX >> (64 - 8 * u32::from(size.clamp(1, 8))));
        let value = u128::from(value) & mask;
        let (at, offset) = (u32::from(at), offset.min(16) as u32);
        let cut = |x: u128| x.checked_shl(8 * offset).map_or(0, |x| (x >> (8 * at)) as u16);
        Self { mask: cut(mask), value: cut(value) }
    }

    fn merge(self, old: u16) -> u16 {
        old & !self.mask | self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Rng;

    const STS: u64 = 0;
    const EN: u64 = 2;
    const CNT: u64 = PM1A_CNT_OFFSET as u64;
    const TMR: u64 = PM_TMR_OFFSET as u64;
    /// Nanoseconds until the 24-bit timer toggles its top bit: 2²³ ticks, rounded up.
    const HALF: u64 = 2_343_484_438;

    fn acpi_mode() -> AcpiPm {
        let mut pm = AcpiPm::new();
        pm.smi_write(0, 0, 1, ACPI_ENABLE.into());
        pm
    }

    #[test]
    fn timer_runs_and_wraps_without_drift() {
        let mut pm = AcpiPm::new();
        let second = 1_000_000_000;
        assert_eq!(pm.read(second, TMR, 4), 3_579_545);
        assert_eq!(pm.read(10 * second, TMR, 4), 35_795_450 & 0xFF_FFFF);
        let year = 31_536_000;
        assert_eq!(pm.read(year * second, TMR, 4), (year * 3_579_545) & 0xFF_FFFF);
        pm.write(0, TMR, 4, 0);
        assert_eq!(pm.read(second, TMR, 4), 3_579_545);
        assert_eq!(pm.read(second, TMR + 1, 1), 3_579_545 >> 8 & 0xFF);
    }

    #[test]
    fn timer_carry_raises_sci() {
        let mut pm = acpi_mode();
        assert_eq!(pm.deadline(), None);
        pm.write(0, EN, 2, TMR_STS.into());
        assert_eq!(pm.deadline(), Some(HALF));
        pm.advance(HALF - 1);
        assert!(!pm.sci());
        pm.advance(HALF);
        assert!(pm.sci());
        assert_eq!(pm.deadline(), None);
        pm.write(HALF, STS, 2, TMR_STS.into());
        assert!(!pm.sci());
        assert_eq!(pm.deadline(), Some(4_686_968_875));
    }

    #[test]
    fn power_button() {
        let mut pm = acpi_mode();
        pm.press_power_button();
        assert!(!pm.sci());
        pm.write(0, EN, 2, PWRBTN_STS.into());
        assert!(pm.sci());
        assert_eq!(pm.read(0, STS, 4), 0x0100_0100);
        pm.write(0, STS, 2, 0);
        assert!(pm.sci(), "zeros clear nothing");
        pm.write(0, STS + 1, 1, 1);
        assert!(!pm.sci());
        assert_eq!(pm.read(0, EN, 2), 0x100);
    }

    #[test]
    fn smi_commands_switch_sci_en() {
        let mut pm = AcpiPm::new();
        pm.write(0, EN, 2, PWRBTN_STS.into());
        pm.press_power_button();
        assert!(!pm.sci());
        pm.smi_write(0, 0, 1, ACPI_ENABLE.into());
        assert!(pm.sci());
        assert_eq!(pm.read(0, CNT, 2), 1);
        pm.smi_write(0, 1, 1, 0x55);
        assert_eq!(pm.smi_read(0, 0, 2), 0x55F1);
        pm.smi_write(0, 0, 1, ACPI_DISABLE.into());
        assert!(!pm.sci());
    }

    #[test]
    fn sleep() {
        let mut pm = acpi_mode();
        pm.write(0, CNT, 2, 5 << 10 | 1);
        assert_eq!((pm.take_sleep(), pm.read(0, CNT, 2)), (None, 0x1401));
        pm.write(0, CNT, 2, 5 << 10 | u64::from(SLP_EN) | 1);
        assert_eq!((pm.take_sleep(), pm.take_sleep()), (Some(5), None));
        assert_eq!(pm.read(0, CNT, 2), 0x1401, "SLP_EN reads as zero");
        pm.write(0, CNT + 1, 1, u64::from(SLP_TYP_S5) << 2 | 0x20);
        assert_eq!(pm.take_sleep(), Some(SLP_TYP_S5));
        assert_eq!(pm.read(0, CNT, 2), 1);
    }

    #[test]
    fn general_purpose_events() {
        let mut pm = acpi_mode();
        pm.gpe_write(0, 2, 2, 0x0002);
        pm.raise_gpe(2);
        assert!(!pm.sci());
        pm.raise_gpe(1);
        pm.raise_gpe(16);
        assert!(pm.sci());
        assert_eq!(pm.gpe_read(0, 0, 4), 0x0002_0006);
        pm.gpe_write(0, 0, 1, 2);
        assert!(!pm.sci());
        assert_eq!(pm.gpe_read(0, 0, 2), 4);
    }

    #[test]
    fn reset_register() {
        let mut pm = AcpiPm::new();
        pm.reset_write(SRST);
        assert_eq!((pm.take_reset(), pm.reset_read()), (false, SRST));
        pm.reset_write(RESET_VALUE);
        assert_eq!((pm.take_reset(), pm.take_reset()), (true, false));
    }

    #[test]
    fn reset_clears_and_the_timer_runs_on() {
        let mut pm = acpi_mode();
        pm.write(HALF, EN, 2, 0x101);
        pm.press_power_button();
        pm.reset();
        assert_eq!(pm.read(HALF, STS, 8), 0);
        assert_eq!(pm.read(HALF, TMR, 4), 0x80_0000);
    }

    fn fits(value: u64, size: u8) -> bool {
        value.checked_shr(8 * u32::from(size)).is_none_or(|rest| rest == 0)
    }

    #[test]
    fn random_accesses() {
        let mut rng = Rng(1);
        let mut random = || rng.next() << 32 ^ rng.next();
        let mut pm = acpi_mode();
        let mut now = 0;
        for _ in 0..200_000 {
            now = if random() % 64 == 0 { random() } else { now.saturating_add(random() % HALF) };
            let (offset, value) = (random() >> (random() % 64), random());
            let size = (random() % 8 + 1) as u8;
            match random() % 9 {
                0 => pm.write(now, offset, size, value),
                1 => pm.gpe_write(now, offset, size, value),
                2 => pm.smi_write(now, offset, size, value),
                3 => assert!(fits(pm.gpe_read(now, offset, size), size)),
                4 => assert!(fits(pm.smi_read(now, offset, size), size)),
                5 => pm.smi_write(now, 0, 1, ACPI_ENABLE.into()),
                6 => pm.reset_write(value as u8),
                7 => pm.raise_gpe(value as u8),
                _ => assert!(fits(pm.read(now, offset, size), size)),
            }
            pm.advance(now);
            assert!(pm.deadline().is_none_or(|at| at > now));
            assert_eq!(pm.pm1_sts & !(TMR_STS | PWRBTN_STS), 0);
            assert_eq!(pm.pm1_cnt & !PM1_CNT_BITS, 0);
            assert!(pm.take_sleep().is_none_or(|typ| typ < 8));
        }
    }
}
