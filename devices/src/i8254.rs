//! 8254 programmable interval timer, and the PC's port 0x61 beside it.
//!
//! Problem: three counters clocked at 1.193182 MHz, read and reprogrammed at any time, possibly
//! after hours without an access. Method: a counter holds its counting element as of the last
//! clock it was brought to, and knows how many clocks it can run until something discontinuous
//! happens (a load, a change of OUT); `Counter::run` hops from one such event to the next and
//! skips whole periods of the periodic modes. The clock number is computed from `now` in one
//! division, so that it cannot drift.
//!
//! Invariants: while a terminal count is due, the counting element is at least 1; a step never goes
//! past the next event; a rising edge of OUT is counted whatever made it.
//!
//! The output for the board is channel 0: [`Pit::take_edges`] counts the rising edges and
//! [`Pit::deadline`] is the next of them; falls, which interrupt nobody, are not announced.
//!
//! Source: Intel 8254 datasheet (231164), "Mode Definitions"; 82371SB (PIIX3) datasheet, NMI
//! status and control register (port 0x61).

/// Clocks per second.
pub const HZ: u64 = 1_193_182;

const NS: u128 = 1_000_000_000;

/// Number of the clock edge last seen at `now`.
fn clock_at(now: u64) -> u64 {
    (u128::from(now) * u128::from(HZ) / NS) as u64
}

/// The first `now` at which `clock` has been seen.
fn time_of(clock: u64) -> u64 {
    let ns = (u128::from(clock) * NS).div_ceil(u128::from(HZ));
    u64::try_from(ns).unwrap_or(u64::MAX)
}

const RW_LSB: u8 = 1;
const RW_MSB: u8 = 2;
/// The control word number that is the read-back command.
const READ_BACK: u8 = 3;

/// One counter.
#[derive(Clone, Debug, PartialEq)]
struct Counter {
    /// RW, M and BCD as last programmed: bits 5:0 of the control word.
    control: u8,
    gate: bool,
    out: bool,
    /// The count register, 1 to the modulus.
    cr: u32,
    /// The count that was last loaded into the counting element.
    loaded: u32,
    /// The counting element.
    ce: u32,
    /// CR was written since the control word.
    has_count: bool,
    /// CR differs from what is loaded (the NULL COUNT flag).
    null_count: bool,
    /// CE is loaded at the next clock.
    load_due: bool,
    /// CE was loaded and counts while GATE allows.
    running: bool,
    /// The terminal count of modes 0, 1, 4 and 5 is still to come.
    armed: bool,
    write_lsb: Option<u8>,
    read_msb: bool,
    latched_count: Option<u16>,
    latched_status: Option<u8>,
    edges: u32,
}

impl Counter {
    /// As QEMU leaves it after reset: mode 3, the longest period, running.
    fn new(gate: bool) -> Counter {
        let mut counter = Counter {
            control: 0x36,
            gate,
            out: true,
            cr: 0x10000,
            loaded: 0x10000,
            ce: 0x10000,
            has_count: true,
            null_count: false,
            load_due: false,
            running: false,
            armed: false,
            write_lsb: None,
            read_msb: false,
            latched_count: None,
            latched_status: None,
            edges: 0,
        };
        counter.load();
        counter
    }

    fn mode(&self) -> u8 {
        match self.control >> 1 & 7 {
            mode @ 6.. => mode - 4,
            mode => mode,
        }
    }

    fn bcd(&self) -> bool {
        self.control & 1 != 0
    }

    fn rw(&self) -> u8 {
        self.control >> 4 & 3
    }

    fn modulus(&self) -> u32 {
        if self.bcd() { 10_000 } else { 0x10000 }
    }

    fn periodic(&self) -> bool {
        matches!(self.mode(), 2 | 3)
    }

    /// Modes 1 and 5 use GATE as a trigger only; the others count while it is high.
    fn counting(&self) -> bool {
        self.running && (self.gate || matches!(self.mode(), 1 | 5))
    }

    fn set_out(&mut self, level: bool) {
        self.edges = self.edges.saturating_add(u32::from(level && !self.out));
        self.out = level;
    }

    fn load(&mut self) {
        self.loaded = self.cr;
        self.ce = if self.mode() == 3 { self.cr & !1 } else { self.cr };
        self.null_count = false;
        self.load_due = false;
        self.running = true;
        self.armed = true;
        if self.mode() == 1 {
            self.set_out(false);
        }
    }

    /// Clocks until the next load or change of OUT, at least 1.
    fn next_event(&self) -> Option<u64> {
        let strobe = matches!(self.mode(), 4 | 5) && !self.out && self.running;
        if self.load_due || strobe {
            return Some(1);
        }
        if !self.counting() {
            return None;
        }
        let clocks = match self.mode() {
            2 => self.ce.saturating_sub(1),
            // An odd count makes the high half one clock longer.
            3 => self.ce / 2 + (self.loaded & 1 & u32::from(self.out)),
            _ if !self.armed => return None,
            _ => self.ce,
        };
        Some(u64::from(clocks.max(1)))
    }

    /// Runs `clocks` clocks, which do not go past the next event.
    fn step(&mut self, clocks: u64) {
        let event = self.next_event() == Some(clocks);
        let mode = self.mode();
        if matches!(mode, 4 | 5) {
            self.set_out(true); // the strobe lasts one clock
        }
        if self.load_due {
            self.load();
            return;
        }
        if !self.counting() {
            return;
        }
        let modulus = self.modulus();
        let down = (clocks % u64::from(modulus)) as u32;
        match mode {
            2 if self.ce == 1 => {
                self.set_out(true);
                self.load();
            }
            2 => {
                self.ce = self.ce.saturating_sub(down);
                self.set_out(self.ce != 1);
            }
            3 if event => {
                self.set_out(!self.out);
                self.load();
            }
            3 => self.ce = self.ce.saturating_sub(2 * down),
            _ => {
                let expired = self.armed && u64::from(self.ce) == clocks;
                self.ce = (self.ce + modulus - down) % modulus;
                if expired {
                    self.armed = false;
                    self.set_out(mode < 2);
                }
            }
        }
    }

    fn run(&mut self, mut clocks: u64) {
        while clocks > 0 {
            let period = u64::from(self.loaded);
            let steady = self.periodic() && self.counting() && !self.load_due && !self.null_count;
            if steady && clocks > period {
                // A whole period ends where it began, with one rising edge on the way.
                let periods = u32::try_from(clocks / period).unwrap_or(u32::MAX);
                self.edges = self.edges.saturating_add(periods);
                clocks %= period;
                continue;
            }
            let hop = self.next_event().unwrap_or(clocks).min(clocks);
            self.step(hop);
            clocks -= hop;
        }
    }

    /// Clocks until OUT next rises.
    fn next_rise(&self) -> Option<u64> {
        let mut ahead = Counter { edges: 0, ..self.clone() };
        let mut clocks = 0;
        // The longest way is a load, a fall and a rise.
        for _ in 0..4 {
            let hop = ahead.next_event()?;
            ahead.step(hop);
            clocks += hop;
            if ahead.edges > 0 {
                return Some(clocks);
            }
        }
        None
    }

    fn set_gate(&mut self, level: bool) {
        let rises = level && !self.gate;
        self.gate = level;
        match self.mode() {
            0 | 4 => {}
            2 | 3 if !level => self.set_out(true),
            _ => self.load_due |= rises && self.has_count,
        }
    }

    fn program(&mut self, control: u8) {
        self.control = control;
        self.has_count = false;
        self.null_count = true;
        self.load_due = false;
        self.running = false;
        self.armed = false;
        self.write_lsb = None;
        self.read_msb = false;
        self.latched_count = None;
        self.latched_status = None;
        self.set_out(self.mode() != 0);
    }

    fn write(&mut self, value: u8) {
        let value = u16::from(value);
        match (self.rw(), self.write_lsb.take()) {
            (RW_LSB, _) => self.set_count(value),
            (RW_MSB, _) => self.set_count(value << 8),
            (_, None) => {
                self.write_lsb = Some(value as u8);
                if self.mode() == 0 {
                    self.running = false;
                    self.load_due = false;
                    self.set_out(false);
                }
            }
            (_, Some(lsb)) => self.set_count(value << 8 | u16::from(lsb)),
        }
    }

    fn set_count(&mut self, count: u16) {
        let digits = [0, 4, 8, 12].into_iter().zip([1, 10, 100, 1000]);
        let count = match self.bcd() {
            true => digits.map(|(shift, weight)| u32::from(count >> shift & 15) * weight).sum(),
            false => u32::from(count),
        };
        self.cr = match count % self.modulus() {
            0 => self.modulus(),
            // Not allowed; the shortest period there is keeps OUT moving.
            1 if self.periodic() => 2,
            count => count,
        };
        self.has_count = true;
        self.null_count = true;
        match self.mode() {
            0 => {
                self.set_out(false);
                self.load_due = true;
            }
            4 => self.load_due = true,
            2 | 3 => self.load_due |= !self.running,
            _ => {}
        }
    }

    fn count(&self) -> u16 {
        let count = self.ce % self.modulus();
        match self.bcd() {
            true => [1000, 100, 10, 1].into_iter().fold(0, |n, w| n << 4 | (count / w % 10) as u16),
            false => count as u16,
        }
    }

    fn latch_count(&mut self) {
        if self.latched_count.is_none() {
            self.latched_count = Some(self.count());
            self.read_msb = false;
        }
    }

    fn latch_status(&mut self) {
        let pins = u8::from(self.out) << 7 | u8::from(self.null_count) << 6;
        self.latched_status.get_or_insert(pins | self.control);
    }

    fn read(&mut self) -> u8 {
        if let Some(status) = self.latched_status.take() {
            return status;
        }
        let [lsb, msb] = self.latched_count.unwrap_or_else(|| self.count()).to_le_bytes();
        let (byte, last) = match (self.rw(), self.read_msb) {
            (RW_LSB, _) => (lsb, true),
            (RW_MSB, _) => (msb, true),
            (_, false) => (lsb, false),
            (_, true) => (msb, true),
        };
        self.read_msb = !last;
        if last {
            self.latched_count = None;
        }
        byte
    }
}

/// An 8254: registers 0 to 2 are the counters, 3 is the control word.
#[derive(Clone, Debug, PartialEq)]
pub struct Pit {
    /// The clock that all counters have been brought to.
    clock: u64,
    counters: [Counter; 3],
}

impl Default for Pit {
    fn default() -> Pit {
        Pit::new()
    }
}

impl Pit {
    /// A timer at machine start; GATE of channels 0 and 1 is high, that of channel 2 low.
    #[must_use]
    pub fn new() -> Pit {
        Pit { clock: 0, counters: [true, true, false].map(Counter::new) }
    }

    /// System reset. (The chip has no reset pin; the board starts over all the same.)
    pub fn reset(&mut self) {
        *self = Pit { clock: self.clock, ..Pit::new() };
    }

    /// Reads register `reg` (0..4). The control word cannot be read: the bus floats.
    pub fn read(&mut self, now: u64, reg: u16) -> u8 {
        self.advance(now);
        self.counters.get_mut(usize::from(reg & 3)).map_or(0xFF, Counter::read)
    }

    /// Writes register `reg` (0..4).
    pub fn write(&mut self, now: u64, reg: u16, value: u8) {
        self.advance(now);
        match self.counters.get_mut(usize::from(reg & 3)) {
            Some(counter) => counter.write(value),
            None => self.write_control(value),
        }
    }

    /// Level of OUT 0, the pin that drives IRQ 0.
    #[must_use]
    pub fn irq(&self) -> bool {
        self.counters[0].out
    }

    /// How often OUT 0 has risen since the last call.
    pub fn take_edges(&mut self) -> u32 {
        std::mem::take(&mut self.counters[0].edges)
    }

    /// The `now` at which OUT 0 rises next.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        self.counters[0].next_rise().map(|clocks| time_of(self.clock.saturating_add(clocks)))
    }

    /// Brings all counters to `now`.
    pub fn advance(&mut self, now: u64) {
        let clock = clock_at(now).max(self.clock);
        let clocks = clock - self.clock;
        self.clock = clock;
        self.counters.iter_mut().for_each(|counter| counter.run(clocks));
    }

    /// Sets GATE of channel 2 (bit 0 of port 0x61).
    pub fn set_gate2(&mut self, now: u64, level: bool) {
        self.advance(now);
        self.counters[2].set_gate(level);
    }

    /// Level of OUT 2, the speaker's tone.
    pub fn out2(&mut self, now: u64) -> bool {
        self.advance(now);
        self.counters[2].out
    }

    fn write_control(&mut self, value: u8) {
        let select = value >> 6;
        if select == READ_BACK {
            for (n, counter) in self.counters.iter_mut().enumerate() {
                if value & 2 << n != 0 {
                    if value & 0x20 == 0 {
                        counter.latch_count();
                    }
                    if value & 0x10 == 0 {
                        counter.latch_status();
                    }
                }
            }
        } else if let Some(counter) = self.counters.get_mut(usize::from(select)) {
            match value & 0x30 {
                0 => counter.latch_count(),
                _ => counter.program(value & 0x3F),
            }
        }
    }
}

/// Port 0x61: speaker and timer 2 control, refresh and timer status.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Port61 {
    control: u8,
}

impl Port61 {
    /// Nanoseconds between two toggles of the refresh bit: 18 timer clocks.
    pub const REFRESH_NS: u64 = 15_085;

    /// The port with everything off.
    #[must_use]
    pub fn new() -> Port61 {
        Port61::default()
    }

    /// System reset.
    pub fn reset(&mut self) {
        *self = Port61::new();
    }

    /// Reads the port; `out2` is the level of timer 2.
    #[must_use]
    pub fn read(&self, now: u64, out2: bool) -> u8 {
        let refresh = (now / Self::REFRESH_NS % 2) as u8;
        self.control | refresh << 4 | u8::from(out2) << 5
    }

    /// Writes the port; bits 7:4 are read only.
    pub fn write(&mut self, value: u8) {
        self.control = value & 0x0F;
    }

    /// Bit 0: GATE of timer 2.
    #[must_use]
    pub fn gate2(&self) -> bool {
        self.control & 1 != 0
    }

    /// Bit 1: OUT 2 reaches the speaker.
    #[must_use]
    pub fn speaker(&self) -> bool {
        self.control & 2 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Rng;

    /// Programs a counter before clock 0 has passed: CE is loaded at clock 1.
    fn pit(channel: u8, rw_mode_bcd: u8, count: u16) -> Pit {
        let mut pit = Pit::new();
        pit.set_gate2(0, true);
        pit.write(0, 3, channel << 6 | rw_mode_bcd);
        write_count(&mut pit, 0, channel, count);
        pit.take_edges();
        pit
    }

    fn write_count(pit: &mut Pit, clock: u64, channel: u8, count: u16) {
        count.to_le_bytes().into_iter().for_each(|b| pit.write(time_of(clock), channel.into(), b));
    }

    fn count(pit: &mut Pit, clock: u64, channel: u8) -> u16 {
        pit.write(time_of(clock), 3, channel << 6);
        u16::from_le_bytes([0, 1].map(|_| pit.read(time_of(clock), channel.into())))
    }

    /// OUT of channel 2 clock by clock, as a string of H and L.
    fn wave(pit: &mut Pit, clocks: std::ops::Range<u64>) -> String {
        clocks.map(|clock| if pit.out2(time_of(clock)) { 'H' } else { 'L' }).collect()
    }

    #[test]
    fn clock_does_not_drift() {
        assert_eq!(clock_at(3_600_000_000_000 * 24), HZ * 3600 * 24);
        for clock in [1, 2, 3, 1_193_182, 1 << 40] {
            assert_eq!(clock_at(time_of(clock)), clock);
            assert_eq!(clock_at(time_of(clock) - 1), clock - 1);
        }
    }

    #[test]
    fn mode_0_rises_n_plus_1_clocks_after_the_write_and_counts_on() {
        let mut p = pit(2, 0x30, 4);
        assert_eq!(wave(&mut p, 0..8), "LLLLLHHH");
        assert_eq!(count(&mut p, 8, 2), 0xFFFD);
        write_count(&mut p, 10, 2, 2);
        assert_eq!(wave(&mut p, 10..15), "LLLHH");
    }

    #[test]
    fn mode_0_pauses_while_gate_is_low_and_on_half_a_count() {
        let mut p = pit(2, 0x30, 4);
        p.set_gate2(time_of(3), false);
        assert_eq!((count(&mut p, 3, 2), count(&mut p, 50, 2)), (2, 2));
        p.set_gate2(time_of(50), true);
        assert_eq!(wave(&mut p, 50..53), "LLH");
        p.write(time_of(60), 2, 1);
        assert_eq!(wave(&mut p, 60..70), "LLLLLLLLLL");
    }

    #[test]
    fn mode_1_is_a_retriggerable_one_shot() {
        let mut p = pit(2, 0x32, 3);
        assert_eq!(wave(&mut p, 0..4), "HHHH");
        p.set_gate2(time_of(4), false);
        p.set_gate2(time_of(5), true);
        assert_eq!(wave(&mut p, 5..8), "HLL");
        p.set_gate2(time_of(8), false);
        p.set_gate2(time_of(8), true);
        assert_eq!(wave(&mut p, 8..14), "LLLLHH");
    }

    #[test]
    fn mode_2_is_low_for_one_clock_per_period() {
        let mut p = pit(2, 0x34, 3);
        assert_eq!(wave(&mut p, 0..10), "HHHLHHLHHL");
        p.set_gate2(time_of(10), false);
        assert_eq!(wave(&mut p, 10..13), "HHH");
        p.set_gate2(time_of(13), true);
        assert_eq!(wave(&mut p, 13..18), "HHHLH");
    }

    #[test]
    fn mode_2_takes_a_new_count_at_the_end_of_the_period() {
        let mut p = pit(2, 0x34, 4);
        wave(&mut p, 0..2);
        write_count(&mut p, 2, 2, 2);
        assert_eq!(wave(&mut p, 2..9), "HHLHLHL");
    }

    #[test]
    fn mode_3_is_a_square_wave_with_the_odd_clock_high() {
        assert_eq!(wave(&mut pit(2, 0x36, 4), 0..10), "HHHLLHHLLH");
        assert_eq!(wave(&mut pit(2, 0x36, 5), 0..12), "HHHHLLHHHLLH");
        assert_eq!(wave(&mut pit(2, 0x3E, 2), 0..6), "HHLHLH");
        let mut p = pit(2, 0x36, 5);
        let counts: Vec<u16> = (1..7).map(|clock| count(&mut p, clock, 2)).collect();
        assert_eq!(counts, [4, 2, 0, 4, 2, 4]);
    }

    #[test]
    fn mode_4_strobes_once() {
        let mut p = pit(2, 0x38, 3);
        assert_eq!(wave(&mut p, 0..8), "HHHHLHHH");
        assert_eq!(wave(&mut p, 65_530..65_550), "H".repeat(20));
    }

    #[test]
    fn mode_5_strobes_after_a_trigger() {
        let mut p = pit(2, 0x3A, 3);
        assert_eq!(wave(&mut p, 0..6), "HHHHHH");
        p.set_gate2(time_of(6), false);
        p.set_gate2(time_of(6), true);
        assert_eq!(wave(&mut p, 6..13), "HHHHLHH");
    }

    #[test]
    fn bcd_counts_decimally() {
        let mut p = pit(2, 0x31, 0x1000);
        assert_eq!(count(&mut p, 2, 2), 0x0999);
        let mut p = pit(2, 0x31, 0);
        assert_eq!((count(&mut p, 1, 2), count(&mut p, 2, 2)), (0, 0x9999));
    }

    #[test]
    fn single_byte_access() {
        let mut p = Pit::new();
        p.write(0, 3, 0x14);
        p.write(0, 0, 0x80);
        assert_eq!((p.read(time_of(1), 0), p.read(time_of(3), 0)), (0x80, 0x7E));
        p.write(time_of(3), 3, 0x24);
        p.write(time_of(3), 0, 0x12);
        assert_eq!(p.read(time_of(4), 0), 0x12);
    }

    #[test]
    fn latched_count_holds_until_read() {
        let mut p = pit(0, 0x34, 0x1234);
        p.write(time_of(1), 3, 0);
        p.write(time_of(9), 3, 0);
        assert_eq!((p.read(time_of(10), 0), p.read(time_of(11), 0)), (0x34, 0x12));
        assert_eq!(p.read(time_of(11), 0), 0x2A, "no longer latched");
    }

    #[test]
    fn read_back_gives_status_before_count() {
        let mut p = pit(0, 0x34, 0x1234);
        p.write(0, 3, 0xE2);
        assert_eq!(p.read(0, 0), 0xF4, "OUT, NULL COUNT");
        p.write(time_of(1), 3, 0xC2);
        p.advance(time_of(100));
        assert_eq!([0; 3].map(|_| p.read(time_of(100), 0)), [0xB4, 0x34, 0x12]);
        p.write(time_of(100), 3, 0xD0);
        assert_eq!(p.read(time_of(100), 0), 0xD1, "counter 0 was not selected");
    }

    #[test]
    fn channel_0_edges_come_at_the_deadlines() {
        let mut p = pit(0, 0x34, 11_932);
        for n in 1..5 {
            let due = p.deadline().unwrap();
            assert_eq!(due, time_of(1 + n * 11_932));
            p.advance(due - 1);
            assert_eq!(p.take_edges(), 0);
            p.advance(due);
            assert_eq!((p.take_edges(), p.irq()), (1, true));
        }
    }

    #[test]
    fn one_shot_has_one_deadline() {
        let mut p = pit(0, 0x30, 100);
        assert_eq!(p.deadline(), Some(time_of(101)));
        p.advance(time_of(101));
        assert_eq!((p.take_edges(), p.irq(), p.deadline()), (1, true, None));
    }

    #[test]
    fn hours_without_an_access_cost_nothing() {
        let mut p = pit(0, 0x34, 2);
        p.advance(time_of(1 + 2_000_000_000));
        assert_eq!(p.take_edges(), 1_000_000_000);
        p.advance(u64::MAX);
    }

    #[test]
    fn skipping_periods_equals_stepping() {
        let mut rng = Rng(7);
        for control in [0x30, 0x32, 0x34, 0x36, 0x38, 0x3A, 0x35, 0x37] {
            for _ in 0..50 {
                let mut whole = pit(2, control, 2 + rng.below(20) as u16);
                whole.set_gate2(0, rng.below(4) == 0);
                whole.set_gate2(0, rng.below(4) != 0);
                let (mut steps, end) = (whole.clone(), rng.below(500));
                (0..end).for_each(|clock| steps.advance(time_of(clock)));
                steps.advance(time_of(end));
                whole.advance(time_of(end));
                assert_eq!(whole, steps, "control {control:#x}, {end} clocks");
            }
        }
    }

    #[test]
    fn reset_timer_runs_at_18_hz() {
        assert_eq!(Pit::new().deadline(), Some(time_of(65_536)));
    }

    #[test]
    fn port_61_controls_and_reflects_timer_2() {
        let mut port = Port61::new();
        port.write(0xFF);
        assert!(port.gate2() && port.speaker());
        assert_eq!(port.read(0, false), 0x0F);
        assert_eq!(port.read(Port61::REFRESH_NS, true), 0x3F);
        assert_eq!(port.read(Port61::REFRESH_NS * 2, true), 0x2F);
    }

    #[test]
    fn random_accesses() {
        let (mut p, mut rng, mut now) = (Pit::new(), Rng(1), 0u64);
        for _ in 0..100_000 {
            let shift = rng.below(34);
            now += rng.next() & ((1 << shift) - 1);
            let (reg, value) = (rng.below(8) as u16, rng.next() as u8);
            match rng.below(5) {
                0 | 1 => p.write(now, reg, value),
                2 => drop(p.read(now, reg)),
                3 => p.set_gate2(now, value & 1 != 0),
                _ => {
                    p.advance(now);
                    p.take_edges();
                    if let Some(due) = p.deadline() {
                        assert!(due > now);
                        now = due;
                        p.advance(now);
                        assert!(p.take_edges() > 0 && p.irq());
                    }
                }
            }
        }
    }
}
