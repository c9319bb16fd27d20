//! MC146818A real-time clock with the 128 bytes of CMOS RAM of a PC.
//!
//! Two registers: 0 (port 0x70) takes the index and, in bit 7, the PC's NMI mask; 1 (port 0x71) is
//! the byte at the index. Index 0 to 9 are time and alarm, 0x0A to 0x0D registers A to D, 0x32 the
//! century, and the rest is RAM that belongs to the firmware.
//!
//! Problem: the time registers are plain bytes that the guest may set in BCD or binary, 12 or 24
//! hours, yet they must follow `now` without being ticked. Method: the divider chain is one number,
//! the `now` at which it was zero; [`Rtc::advance`] sees how many seconds and how many periods have
//! ended since the last look, and adds the seconds to the time bytes through a calendar. Nothing is
//! converted when the guest changes the format, as on the chip.
//!
//! UIP is set for 244 µs before an update cycle and its 1984 µs; the new time appears, with
//! the update-ended flag, when UIP falls.
//!
//! Source: Motorola MC146818A datasheet, "Registers", "Update Cycle"; century byte: PC firmware
//! convention, announced by the ACPI FADT.

const SECONDS: usize = 0;
const SECONDS_ALARM: usize = 1;
const MINUTES: usize = 2;
const MINUTES_ALARM: usize = 3;
const HOURS: usize = 4;
const HOURS_ALARM: usize = 5;
const DAY_OF_WEEK: usize = 6;
const DATE: usize = 7;
const MONTH: usize = 8;
const YEAR: usize = 9;
const REG_A: usize = 0x0A;
const REG_B: usize = 0x0B;
const REG_C: usize = 0x0C;
const REG_D: usize = 0x0D;
const CENTURY: usize = 0x32;

const A_UIP: u8 = 0x80;
const A_DV: u8 = 0x70;
/// DV up to here selects a time base; above are tests and the divider reset.
const A_DV_32768HZ: u8 = 0x20;
const A_RS: u8 = 0x0F;
const A_RESET: u8 = 0x26;

const B_SET: u8 = 0x80;
const B_PIE: u8 = 0x40;
const B_AIE: u8 = 0x20;
const B_UIE: u8 = 0x10;
const B_SQWE: u8 = 0x08;
const B_DM: u8 = 0x04;
const B_24_12: u8 = 0x02;

const C_IRQF: u8 = 0x80;
const C_PF: u8 = 0x40;
const C_AF: u8 = 0x20;
const C_UF: u8 = 0x10;

const D_VRT: u8 = 0x80;

/// An alarm byte with both top bits set matches anything.
const DONT_CARE: u8 = 0xC0;
const PM: u8 = 0x80;

const NS: i128 = 1_000_000_000;
const TIME_BASE_HZ: i128 = 32_768;
const UPDATE_NS: i128 = 244_000 + 1_984_000;
const DAY: i64 = 86_400;

/// Days from 1970-01-01 to a date; month and day are brought into their ranges.
fn days_from_date(year: i64, month: i64, day: i64) -> i64 {
    let month = month.clamp(1, 12);
    // Years begin in March here, so that the leap day is their last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + (month * 153 + 2) / 5 + day.clamp(1, 31) - 719_469
}

/// Year, month and day of a day counted from 1970-01-01.
fn date_from_days(days: i64) -> (i64, i64, i64) {
    // 146,097 days are 400 years; the estimate is at most two years short and never too far.
    let mut year = 1969 + (days * 400).div_euclid(146_097);
    while days_from_date(year + 1, 1, 1) <= days {
        year += 1;
    }
    let month = (1..=12).rev().find(|&m| days_from_date(year, m, 1) <= days).unwrap_or(1);
    (year, month, days - days_from_date(year, month, 1) + 1)
}

/// A real-time clock with CMOS RAM.
#[derive(Clone, Debug, PartialEq)]
pub struct Rtc {
    bytes: [u8; 128],
    index: usize,
    nmi_masked: bool,
    /// The `now` that the registers show.
    last: u64,
    /// The `now` at which the divider chain was zero.
    origin: i128,
}

impl Rtc {
    /// A clock that shows `unix_seconds` (UTC) at machine start, in BCD and 24 hours.
    #[must_use]
    pub fn new(unix_seconds: i64) -> Rtc {
        let mut rtc = Rtc { bytes: [0; 128], index: 0, nmi_masked: false, last: 0, origin: 0 };
        rtc.bytes[REG_A] = A_RESET;
        rtc.bytes[REG_B] = B_24_12;
        rtc.bytes[REG_D] = D_VRT;
        // The century byte ends with the year 9999.
        let end = days_from_date(10_000, 1, 1) * DAY - 1;
        let seconds = unix_seconds.clamp(days_from_date(0, 1, 1) * DAY, end);
        rtc.bytes[DAY_OF_WEEK] = (seconds.div_euclid(DAY) + 4).rem_euclid(7) as u8 + 1;
        rtc.set_time(seconds);
        rtc
    }

    /// The RESET pin: interrupts off and none pending. Time and RAM are on the battery.
    pub fn reset(&mut self) {
        self.bytes[REG_B] &= !(B_PIE | B_AIE | B_UIE | B_SQWE);
        self.bytes[REG_C] = 0;
        self.index = 0;
        self.nmi_masked = false;
    }

    /// Reads register `reg` (0 or 1). The index cannot be read: the bus floats.
    pub fn read(&mut self, now: u64, reg: u16) -> u8 {
        self.advance(now);
        if reg & 1 == 0 {
            return 0xFF;
        }
        match self.index {
            REG_A => self.bytes[REG_A] | if self.updating() { A_UIP } else { 0 },
            REG_C => {
                let flags = self.bytes[REG_C] | if self.irq() { C_IRQF } else { 0 };
                self.bytes[REG_C] = 0;
                flags
            }
            index => self.cmos(index as u8),
        }
    }

    /// Writes register `reg` (0 or 1).
    pub fn write(&mut self, now: u64, reg: u16, value: u8) {
        self.advance(now);
        if reg & 1 == 0 {
            self.index = usize::from(value & 0x7F);
            self.nmi_masked = value & 0x80 != 0;
            return;
        }
        match self.index {
            REG_A => {
                let stood = !self.divider_runs();
                self.bytes[REG_A] = value & !A_UIP;
                if stood {
                    // The first update comes half a second after the divider is released.
                    self.origin = i128::from(self.last) - NS / 2;
                }
            }
            // SET also turns the update-ended interrupt off.
            REG_B => self.bytes[REG_B] = value & if value & B_SET != 0 { !B_UIE } else { 0xFF },
            REG_C | REG_D => {}
            index => self.set_cmos(index as u8, value),
        }
    }

    /// The IRQ pin (true: asserted), until register C is read.
    #[must_use]
    pub fn irq(&self) -> bool {
        self.bytes[REG_C] & self.bytes[REG_B] & (C_PF | C_AF | C_UF) != 0
    }

    /// The next `now` at which the pin may become asserted.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        let enabled = self.bytes[REG_B];
        if self.irq() || !self.divider_runs() {
            return None;
        }
        let seconds = enabled & (B_AIE | B_UIE) != 0 && enabled & B_SET == 0;
        let periods = self.period().filter(|_| enabled & B_PIE != 0);
        let due = [seconds.then_some(TIME_BASE_HZ), periods].into_iter().flatten();
        due.filter_map(|ticks| u64::try_from(self.next(ticks)).ok()).min()
    }

    /// Brings the registers to `now`.
    pub fn advance(&mut self, now: u64) {
        let (from, to) = (self.last, now.max(self.last));
        self.last = to;
        if !self.divider_runs() {
            return;
        }
        if self.period().is_some_and(|ticks| self.ended(ticks, from) != self.ended(ticks, to)) {
            self.bytes[REG_C] |= C_PF;
        }
        let seconds = self.ended(TIME_BASE_HZ, to) - self.ended(TIME_BASE_HZ, from);
        if seconds > 0 && self.bytes[REG_B] & B_SET == 0 {
            self.update(seconds as i64);
        }
    }

    /// The PC's NMI mask, bit 7 of the index port.
    #[must_use]
    pub fn nmi_masked(&self) -> bool {
        self.nmi_masked
    }

    /// The stored byte at `index` (modulo 128), without the effects of a guest's read.
    #[must_use]
    pub fn cmos(&self, index: u8) -> u8 {
        self.bytes[usize::from(index & 0x7F)]
    }

    /// Stores a byte at `index` (modulo 128), without the effects of a guest's write.
    pub fn set_cmos(&mut self, index: u8, value: u8) {
        self.bytes[usize::from(index & 0x7F)] = value;
    }

    fn divider_runs(&self) -> bool {
        self.bytes[REG_A] & A_DV <= A_DV_32768HZ
    }

    fn updating(&self) -> bool {
        let left = self.next(TIME_BASE_HZ) - i128::from(self.last);
        self.divider_runs() && self.bytes[REG_B] & B_SET == 0 && left <= UPDATE_NS
    }

    /// The periodic interrupt's period in ticks of the time base.
    fn period(&self) -> Option<i128> {
        match self.bytes[REG_A] & A_RS {
            0 => None,
            // The two fastest rates of the slower time bases are 256 and 128 Hz with this one.
            rs @ 1..3 => Some(1 << (rs + 6)),
            rs => Some(1 << (rs - 1)),
        }
    }

    /// How many stretches of `ticks` the divider has counted at `now`.
    fn ended(&self, ticks: i128, now: u64) -> i128 {
        ((i128::from(now) - self.origin) * TIME_BASE_HZ).div_euclid(NS * ticks)
    }

    /// The `now` at which the next stretch of `ticks` ends.
    fn next(&self, ticks: i128) -> i128 {
        let end = (self.ended(ticks, self.last) + 1) * ticks * NS;
        self.origin + (end + TIME_BASE_HZ - 1).div_euclid(TIME_BASE_HZ)
    }

    /// `seconds` update cycles.
    fn update(&mut self, seconds: i64) {
        let before = self.time();
        self.bytes[REG_C] |= C_UF;
        if self.bytes[REG_C] & C_AF == 0
            && (1..=seconds.min(DAY)).any(|n| self.alarm_at((before + n).rem_euclid(DAY)))
        {
            self.bytes[REG_C] |= C_AF;
        }
        self.set_time(before + seconds);
        let days = (before + seconds).div_euclid(DAY) - before.div_euclid(DAY);
        let weekday = self.decode(self.bytes[DAY_OF_WEEK]) - 1 + days;
        self.bytes[DAY_OF_WEEK] = weekday.rem_euclid(7) as u8 + 1;
    }

    fn alarm_at(&self, second_of_day: i64) -> bool {
        let clock = self.clock_bytes(second_of_day);
        let alarm = [SECONDS_ALARM, MINUTES_ALARM, HOURS_ALARM].map(|index| self.bytes[index]);
        alarm.into_iter().zip(clock).all(|(alarm, byte)| alarm >= DONT_CARE || alarm == byte)
    }

    /// Seconds, minutes and hours in the guest's format.
    fn clock_bytes(&self, second_of_day: i64) -> [u8; 3] {
        let hour = second_of_day / 3600;
        let hours = match (self.bytes[REG_B] & B_24_12, hour) {
            (0, 0..12) => self.encode((hour + 11) % 12 + 1),
            (0, _) => self.encode((hour + 11) % 12 + 1) | PM,
            _ => self.encode(hour),
        };
        [self.encode(second_of_day % 60), self.encode(second_of_day / 60 % 60), hours]
    }

    fn encode(&self, value: i64) -> u8 {
        match self.bytes[REG_B] & B_DM {
            0 => (value / 10 % 10 * 16 + value % 10) as u8,
            _ => value as u8,
        }
    }

    fn decode(&self, byte: u8) -> i64 {
        i64::from(match self.bytes[REG_B] & B_DM {
            0 => (byte >> 4) * 10 + (byte & 15),
            _ => byte,
        })
    }

    /// The time that the registers show, in seconds since 1970; impossible values are carried over.
    fn time(&self) -> i64 {
        let at = |index: usize| self.decode(self.bytes[index]);
        let hour = match self.bytes[REG_B] & B_24_12 {
            0 => {
                let hour = self.decode(self.bytes[HOURS] & !PM) % 12;
                hour + if self.bytes[HOURS] & PM != 0 { 12 } else { 0 }
            }
            _ => at(HOURS),
        };
        let days = days_from_date(at(CENTURY) * 100 + at(YEAR), at(MONTH), at(DATE));
        days * DAY + hour * 3600 + at(MINUTES) * 60 + at(SECONDS)
    }

    /// Sets all time registers but the day of the week.
    fn set_time(&mut self, time: i64) {
        let (year, month, day) = date_from_days(time.div_euclid(DAY));
        let [seconds, minutes, hours] = self.clock_bytes(time.rem_euclid(DAY));
        let rows = [
            (SECONDS, seconds),
            (MINUTES, minutes),
            (HOURS, hours),
            (DATE, self.encode(day)),
            (MONTH, self.encode(month)),
            (YEAR, self.encode(year.rem_euclid(100))),
            (CENTURY, self.encode(year.div_euclid(100).rem_euclid(100))),
        ];
        rows.into_iter().for_each(|(index, byte)| self.bytes[index] = byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Rng;

    const SECOND: u64 = 1_000_000_000;
    /// Friday 1999-12-31, 23:59:58.
    const EVE: i64 = 946_684_798;

    fn get(rtc: &mut Rtc, now: u64, index: usize) -> u8 {
        rtc.write(now, 0, index as u8);
        rtc.read(now, 1)
    }

    fn set(rtc: &mut Rtc, now: u64, index: usize, value: u8) {
        rtc.write(now, 0, index as u8);
        rtc.write(now, 1, value);
    }

    /// Century, year, month, date, day of week, hours, minutes, seconds.
    fn shown(rtc: &mut Rtc, now: u64) -> [u8; 8] {
        [CENTURY, YEAR, MONTH, DATE, DAY_OF_WEEK, HOURS, MINUTES, SECONDS]
            .map(|index| get(rtc, now, index))
    }

    #[test]
    fn calendar() {
        for (days, date) in [
            (0, (1970, 1, 1)),
            (-1, (1969, 12, 31)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
            (2_932_896, (9999, 12, 31)),
        ] {
            assert_eq!(date_from_days(days), date);
            assert_eq!(days_from_date(date.0, date.1, date.2), days);
        }
        for days in -800_000..3_000_000 {
            let (year, month, day) = date_from_days(days);
            assert_eq!(days_from_date(year, month, day), days);
        }
    }

    #[test]
    fn the_clock_runs_with_now_and_carries_into_the_century() {
        let mut rtc = Rtc::new(EVE);
        assert_eq!(shown(&mut rtc, 0), [0x19, 0x99, 0x12, 0x31, 6, 0x23, 0x59, 0x58]);
        assert_eq!(get(&mut rtc, SECOND - 1, SECONDS), 0x58);
        assert_eq!(get(&mut rtc, SECOND, SECONDS), 0x59);
        assert_eq!(shown(&mut rtc, 2 * SECOND), [0x20, 0x00, 0x01, 0x01, 7, 0, 0, 0]);
        // A year later: 2001-01-01 was a Monday.
        let later = (2 + 366 * 86_400) * SECOND;
        assert_eq!(shown(&mut rtc, later), [0x20, 0x01, 0x01, 0x01, 2, 0, 0, 0]);
    }

    #[test]
    fn binary_and_12_hour_formats() {
        let mut rtc = Rtc::new(0);
        set(&mut rtc, 0, REG_B, B_SET | B_DM);
        let noon_less_one = [20, 24, 2, 29, 5, 11, 59, 59];
        let indices = [CENTURY, YEAR, MONTH, DATE, DAY_OF_WEEK, HOURS, MINUTES, SECONDS];
        indices.into_iter().zip(noon_less_one).for_each(|(i, v)| set(&mut rtc, 0, i, v));
        set(&mut rtc, 0, REG_B, B_DM);
        assert_eq!(shown(&mut rtc, SECOND), [20, 24, 2, 29, 5, 0x80 | 12, 0, 0]);
        let midnight = 12 * 3600 * SECOND + SECOND;
        assert_eq!(shown(&mut rtc, midnight), [20, 24, 3, 1, 6, 12, 0, 0]);
    }

    #[test]
    fn set_stops_updates_and_the_time_does_not_catch_up() {
        let mut rtc = Rtc::new(EVE);
        set(&mut rtc, 0, REG_B, B_SET | B_24_12 | B_UIE);
        assert_eq!(get(&mut rtc, 0, REG_B) & B_UIE, 0);
        assert_eq!(get(&mut rtc, 10 * SECOND - 1, REG_A) & A_UIP, 0);
        assert_eq!(get(&mut rtc, 10 * SECOND, SECONDS), 0x58);
        set(&mut rtc, 10 * SECOND, REG_B, B_24_12);
        assert_eq!(get(&mut rtc, 11 * SECOND, SECONDS), 0x59);
    }

    #[test]
    fn releasing_the_divider_updates_half_a_second_later() {
        let mut rtc = Rtc::new(0);
        set(&mut rtc, 300, REG_A, 0x76);
        assert_eq!(get(&mut rtc, 5 * SECOND, SECONDS), 0);
        set(&mut rtc, 5 * SECOND, REG_A, A_RESET);
        assert_eq!(get(&mut rtc, 5 * SECOND + SECOND / 2 - 1, SECONDS), 0);
        assert_eq!(get(&mut rtc, 5 * SECOND + SECOND / 2, SECONDS), 1);
    }

    #[test]
    fn uip_precedes_the_update() {
        let mut rtc = Rtc::new(EVE);
        let start = SECOND - UPDATE_NS as u64;
        for (now, uip, seconds) in [
            (start - 1, 0, 0x58),
            (start, A_UIP, 0x58),
            (SECOND - 1, A_UIP, 0x58),
            (SECOND, 0, 0x59),
        ] {
            assert_eq!(get(&mut rtc, now, REG_A), A_RESET | uip);
            assert_eq!(get(&mut rtc, now, SECONDS), seconds);
        }
    }

    #[test]
    fn update_ended_interrupt_and_register_c_clears_on_read() {
        let mut rtc = Rtc::new(EVE);
        set(&mut rtc, 0, REG_B, B_UIE | B_24_12);
        assert_eq!((rtc.irq(), rtc.deadline()), (false, Some(SECOND)));
        rtc.advance(SECOND);
        assert_eq!((rtc.irq(), rtc.deadline()), (true, None));
        assert_eq!(get(&mut rtc, SECOND, REG_C) & (C_IRQF | C_UF), C_IRQF | C_UF);
        assert_eq!((rtc.irq(), rtc.deadline()), (false, Some(2 * SECOND)));
        assert_eq!(get(&mut rtc, SECOND, REG_C), 0);
    }

    #[test]
    fn flags_are_set_without_an_interrupt_when_disabled() {
        let mut rtc = Rtc::new(EVE);
        rtc.advance(SECOND);
        assert_eq!((rtc.irq(), rtc.deadline()), (false, None));
        set(&mut rtc, SECOND, REG_B, B_UIE);
        assert!(rtc.irq(), "enabling a set flag interrupts");
    }

    #[test]
    fn periodic_rates() {
        // (RS, Hz): Linux uses 1024 Hz (6).
        for (rs, hz) in [(1, 256), (2, 128), (3, 8192), (6, 1024), (15, 2)] {
            let mut rtc = Rtc::new(EVE);
            set(&mut rtc, 0, REG_A, 0x20 | rs);
            set(&mut rtc, 0, REG_B, B_PIE);
            let mut count = 0;
            while let Some(due) = rtc.deadline().filter(|&due| due <= SECOND) {
                rtc.advance(due - 1);
                assert!(!rtc.irq());
                assert_eq!(get(&mut rtc, due, REG_C) & (C_IRQF | C_PF), C_IRQF | C_PF);
                count += 1;
            }
            assert_eq!(count, hz, "RS {rs}");
        }
        let mut rtc = Rtc::new(EVE);
        set(&mut rtc, 0, REG_A, 0x20);
        set(&mut rtc, 0, REG_B, B_PIE);
        assert_eq!(rtc.deadline(), None);
    }

    #[test]
    fn alarm_at_a_time_and_every_minute() {
        let alarm = |bytes: [u8; 3], seconds: u64| {
            let mut rtc = Rtc::new(EVE);
            set(&mut rtc, 0, REG_B, B_AIE | B_24_12);
            [SECONDS_ALARM, MINUTES_ALARM, HOURS_ALARM]
                .into_iter()
                .zip(bytes)
                .for_each(|(index, byte)| set(&mut rtc, 0, index, byte));
            rtc.advance(seconds * SECOND);
            rtc.irq()
        };
        assert!(!alarm([0x05, 0x00, 0x00], 6));
        assert!(alarm([0x05, 0x00, 0x00], 7));
        assert!(alarm([0x05, 0x00, 0x00], 100_000), "found in one long step");
        assert!(!alarm([0x30, 0xFF, 0xC0], 31));
        assert!(alarm([0x30, 0xFF, 0xC0], 32));
        assert!(!alarm([0x65, 0xFF, 0xFF], 1_000_000));
    }

    #[test]
    fn ram_keeps_bytes_and_c_and_d_are_read_only() {
        let mut rtc = Rtc::new(EVE);
        rtc.set_cmos(0x34, 0xAB);
        assert_eq!(get(&mut rtc, 0, 0x34), 0xAB);
        set(&mut rtc, 0, 0x7F, 0x5A);
        assert_eq!(rtc.cmos(0x7F), 0x5A);
        set(&mut rtc, 0, REG_C, 0xFF);
        set(&mut rtc, 0, REG_D, 0x00);
        assert_eq!((get(&mut rtc, 0, REG_C), get(&mut rtc, 0, REG_D)), (0, D_VRT));
    }

    #[test]
    fn index_bit_7_masks_nmi_and_the_index_does_not_read() {
        let mut rtc = Rtc::new(EVE);
        rtc.write(0, 0, 0x80 | REG_D as u8);
        assert_eq!((rtc.nmi_masked(), rtc.read(0, 1), rtc.read(0, 0)), (true, D_VRT, 0xFF));
        rtc.write(0, 0, 0);
        assert!(!rtc.nmi_masked());
    }

    #[test]
    fn reset_stops_interrupts_but_not_the_clock() {
        let mut rtc = Rtc::new(EVE);
        set(&mut rtc, 0, REG_B, B_UIE | B_PIE | B_24_12);
        rtc.advance(SECOND);
        rtc.reset();
        assert_eq!((rtc.irq(), rtc.deadline(), rtc.cmos(REG_B as u8)), (false, None, B_24_12));
        assert_eq!(get(&mut rtc, SECOND, SECONDS), 0x59);
    }

    #[test]
    fn random_accesses() {
        let (mut rtc, mut rng, mut now) = (Rtc::new(i64::MIN), Rng(1), 0u64);
        for n in 0..50_000 {
            let shift = rng.below(if n % 16 == 0 { 46 } else { 30 });
            now += rng.next() & ((1 << shift) - 1);
            let (reg, value) = (rng.below(3) as u16, rng.next() as u8);
            match rng.below(8) {
                0..3 => rtc.write(now, reg, value),
                3 => set(&mut rtc, now, rng.below(0x0E) as usize, value),
                4..6 => drop(rtc.read(now, reg)),
                6 => drop(get(&mut rtc, now, rng.below(0x0E) as usize)),
                _ => {
                    rtc.advance(now);
                    if let Some(due) = rtc.deadline() {
                        assert!(due > now);
                        now = due;
                        rtc.advance(now);
                    }
                }
            }
        }
        rtc.advance(u64::MAX);
    }
}
