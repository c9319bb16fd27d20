//! The high precision event timer: a 64-bit counter of 100 MHz and three comparators.
//!
//! Problem: a comparator fires when the running counter equals it, in 32 or 64 bits, once or
//! with a period, as a pulse or as a level that software takes back.
//!
//! Method: nothing is ticked. The counter is its value when it was started plus the time since;
//! a comparator's next match is kept as a count of ticks since that start, which a change of any
//! of its inputs computes anew. The board asks which timers fired ([`Hpet::take_edges`]), which
//! are asserted ([`Hpet::level`]) and to which pin they go ([`Hpet::route`]).
//!
//! Invariants: after [`Hpet::advance`]`(now)` every match lies after `now`, so a comparator that
//! is written with a value that has passed waits until the counter wraps, as the specification
//! says. While the counter is halted there are no matches.
//!
//! Source: IA-PC HPET Specification, revision 1.0a.

/// Guest-physical address at which a PC has its HPET.
pub const DEFAULT_BASE: u64 = 0xFED0_0000;
/// Bytes of the register block.
pub const BLOCK_LEN: u64 = 0x400;
/// Number of timers.
pub const TIMERS: usize = 3;
/// COUNTER_CLK_PERIOD: femtoseconds per tick of the main counter.
pub const COUNTER_CLK_PERIOD: u32 = 10_000_000;
/// Low half of the General Capabilities and ID register: revision 1, three timers, 64 bits,
/// legacy replacement, vendor 8086H. The ACPI table calls it the Event Timer Block ID.
pub const EVENT_TIMER_BLOCK_ID: u32 = 0x8086_A201;
/// Tn_INT_ROUTE_CAP: the I/O APIC pins that a timer can be routed to (2, 8, 16 to 23).
pub const INT_ROUTE_CAP: u32 = 0x00FF_0104;

const NS_PER_TICK: u64 = COUNTER_CLK_PERIOD as u64 / 1_000_000;

const GCAP_ID: u64 = 0x000;
const GEN_CONF: u64 = 0x010;
const GINTR_STA: u64 = 0x020;
const MAIN_CNT: u64 = 0x0F0;
const TIMER0: u64 = 0x100;
const TIMER_LAST: u64 = TIMER0 + 0x20 * TIMERS as u64 - 1;
/// Within the 20H bytes of a timer.
const CONF_CAP: u64 = 0x00;
const COMPARATOR: u64 = 0x08;

const ENABLE_CNF: u64 = 1 << 0;
const LEG_RT_CNF: u64 = 1 << 1;

const INT_TYPE_LEVEL: u64 = 1 << 1;
const INT_ENB: u64 = 1 << 2;
const TYPE_PERIODIC: u64 = 1 << 3;
const PER_INT_CAP: u64 = 1 << 4;
const SIZE_CAP: u64 = 1 << 5;
const VAL_SET: u64 = 1 << 6;
const MODE_32: u64 = 1 << 8;
const INT_ROUTE_SHIFT: u32 = 9;
const INT_ROUTE: u64 = 0x1F << INT_ROUTE_SHIFT;
const TIMER_CAP: u64 = (INT_ROUTE_CAP as u64) << 32 | PER_INT_CAP | SIZE_CAP;
const TIMER_WRITABLE: u64 =
    INT_TYPE_LEVEL | INT_ENB | TYPE_PERIODIC | VAL_SET | MODE_32 | INT_ROUTE;

#[derive(Clone, Copy, Debug, PartialEq)]
struct Timer {
    /// Tn_CONF without the capability bits.
    conf: u64,
    comparator: u64,
    /// What a match in periodic mode adds to the comparator: the last value written to it.
    period: u64,
    /// The next match, in ticks since the counter was started.
    due: Option<u64>,
}

impl Timer {
    const RESET: Self = Self { conf: 0, comparator: u64::MAX, period: 0, due: None };

    fn has(&self, bits: u64) -> bool {
        self.conf & bits == bits
    }

    /// The bits of counter and comparator that are compared.
    fn width_mask(&self) -> u64 {
        if self.has(MODE_32) { u32::MAX.into() } else { u64::MAX }
    }
}

/// A high precision event timer block.
#[derive(Clone, Debug, PartialEq)]
pub struct Hpet {
    gen_conf: u64,
    /// Value of the main counter when it was started or, while it is halted, now.
    base: u64,
    /// The moment (ns) at which the main counter was started.
    started: u64,
    timers: [Timer; TIMERS],
    /// GINTR_STA: one bit per timer, of level-triggered ones.
    status: u32,
    /// Timers that fired edge-triggered, until the board takes them.
    edges: u32,
}

impl Default for Hpet {
    fn default() -> Self {
        Self::new()
    }
}

impl Hpet {
    /// A timer block after reset: halted at zero.
    #[must_use]
    pub fn new() -> Self {
        let timers = [Timer::RESET; TIMERS];
        Self { gen_conf: 0, base: 0, started: 0, timers, status: 0, edges: 0 }
    }

    /// Power-up reset.
    pub fn reset(&mut self) {
        *self = Self::new();
    }

    /// Reads `size` bytes at `offset` of the register block at `now` (ns). Bytes beyond the end
    /// of a 64-bit register read as zero.
    pub fn read(&mut self, now: u64, offset: u64, size: u8) -> u64 {
        self.advance(now);
        let register = match offset & !7 {
            GCAP_ID => u64::from(COUNTER_CLK_PERIOD) << 32 | u64::from(EVENT_TIMER_BLOCK_ID),
            GEN_CONF => self.gen_conf,
            GINTR_STA => self.status.into(),
            MAIN_CNT => self.counter(now),
            at @ TIMER0..=TIMER_LAST => {
                let timer = &self.timers[timer_at(at)];
                match at & 0x1F {
                    CONF_CAP => timer.conf | TIMER_CAP,
                    COMPARATOR => timer.comparator,
                    _ => 0,
                }
            }
            _ => 0,
        };
        register >> (8 * (offset & 7)) & size_mask(size)
    }

    /// Writes `size` bytes at `offset` of the register block at `now` (ns). Bytes beyond the end
    /// of a 64-bit register are dropped.
    pub fn write(&mut self, now: u64, offset: u64, size: u8, value: u64) {
        self.advance(now);
        let shift = 8 * (offset & 7);
        let lanes = size_mask(size) << shift;
        let value = value << shift & lanes;
        let merge = |old: u64| old & !lanes | value;
        match offset & !7 {
            GEN_CONF => self.set_gen_conf(now, merge(self.gen_conf) & (ENABLE_CNF | LEG_RT_CNF)),
            GINTR_STA => self.status &= !(value as u32),
            MAIN_CNT => {
                self.base = merge(self.counter(now));
                self.started = now;
                self.rearm_all(now);
            }
            at @ TIMER0..=TIMER_LAST => {
                let index = timer_at(at);
                match at & 0x1F {
                    CONF_CAP => self.set_timer_conf(now, index, merge(self.timers[index].conf)),
                    COMPARATOR => {
                        let timer = &mut self.timers[index];
                        let width = timer.width_mask();
                        if !timer.has(TYPE_PERIODIC) || timer.has(VAL_SET) {
                            timer.comparator = merge(timer.comparator) & width;
                            timer.conf &= !VAL_SET;
                            timer.period = merge(timer.period) & width;
                            self.rearm(now, index);
                        } else {
                            timer.period = merge(timer.period) & width;
                        }
                    }
                    _ => {}
                }
            }
            _ => {}
        }
        self.advance(now);
    }

    /// The next moment (ns) at which a timer whose interrupt is enabled fires.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        let armed = self.timers.iter().filter(|timer| timer.has(INT_ENB));
        let due = armed.filter_map(|timer| timer.due).min()?;
        Some(self.started.saturating_add(due.saturating_mul(NS_PER_TICK)))
    }

    /// Lets the timers fire whose time has come by `now` (ns). Periods that were missed
    /// altogether count as one.
    pub fn advance(&mut self, now: u64) {
        let ticks = self.ticks(now);
        for (index, timer) in self.timers.iter_mut().enumerate() {
            let Some(due) = timer.due.filter(|&due| due <= ticks) else {
                continue;
            };
            if timer.has(INT_TYPE_LEVEL) {
                self.status |= 1 << index;
            } else if timer.has(INT_ENB) {
                self.edges |= 1 << index;
            }
            timer.due = if timer.has(TYPE_PERIODIC) && timer.period != 0 {
                let periods = (ticks - due) / timer.period + 1;
                let passed = periods.wrapping_mul(timer.period);
                timer.comparator = timer.comparator.wrapping_add(passed) & timer.width_mask();
                periods.checked_mul(timer.period).and_then(|passed| due.checked_add(passed))
            } else {
                // The counter equals the comparator again when its compared bits have wrapped.
                timer
                    .width_mask()
                    .checked_add(1)
                    .and_then(|wrap| due.checked_add(((ticks - due) / wrap + 1).checked_mul(wrap)?))
            };
        }
    }

    /// Takes the timers that fired edge-triggered since the last call, one bit each.
    pub fn take_edges(&mut self) -> u32 {
        std::mem::take(&mut self.edges)
    }

    /// Whether a level-triggered `timer` asserts its line.
    #[must_use]
    pub fn level(&self, timer: usize) -> bool {
        let enabled = self.gen_conf & ENABLE_CNF != 0;
        enabled
            && self.timers.get(timer).is_some_and(|t| t.has(INT_TYPE_LEVEL | INT_ENB))
            && self.status >> timer & 1 != 0
    }

    /// The I/O APIC pin of `timer`. With legacy replacement timer 0 goes to pin 2 (and IRQ 0 of
    /// the 8259A), timer 1 to pin 8 (and IRQ 8).
    #[must_use]
    pub fn route(&self, timer: usize) -> u8 {
        match (timer, self.legacy_replacement()) {
            (0, true) => 2,
            (1, true) => 8,
            _ => self
                .timers
                .get(timer)
                .map_or(0, |t| ((t.conf & INT_ROUTE) >> INT_ROUTE_SHIFT) as u8),
        }
    }

    /// Whether timers 0 and 1 stand in for the 8254 and the real-time clock, whose interrupts
    /// the board then holds back. Holds only while the block is enabled.
    #[must_use]
    pub fn legacy_replacement(&self) -> bool {
        self.gen_conf & (ENABLE_CNF | LEG_RT_CNF) == ENABLE_CNF | LEG_RT_CNF
    }

    /// Ticks since the counter was started.
    fn ticks(&self, now: u64) -> u64 {
        now.saturating_sub(self.started) / NS_PER_TICK
    }

    fn counter(&self, now: u64) -> u64 {
        let running = self.gen_conf & ENABLE_CNF != 0;
        self.base.wrapping_add(if running { self.ticks(now) } else { 0 })
    }

    fn set_gen_conf(&mut self, now: u64, conf: u64) {
        let switched = (self.gen_conf ^ conf) & ENABLE_CNF != 0;
        if switched {
            self.base = self.counter(now);
            self.started = now;
        }
        self.gen_conf = conf;
        if switched {
            self.rearm_all(now);
        }
    }

    fn set_timer_conf(&mut self, now: u64, index: usize, conf: u64) {
        let timer = &mut self.timers[index];
        let mut conf = conf & TIMER_WRITABLE;
        // A route that the timer does not have does not read back.
        if INT_ROUTE_CAP >> ((conf & INT_ROUTE) >> INT_ROUTE_SHIFT) & 1 == 0 {
            conf = conf & !INT_ROUTE | timer.conf & INT_ROUTE;
        }
        let changed = timer.conf ^ conf;
        timer.conf = conf;
        timer.comparator &= timer.width_mask();
        timer.period &= timer.width_mask();
        if !timer.has(INT_TYPE_LEVEL) {
            self.status &= !(1 << index);
        }
        if changed & MODE_32 != 0 {
            self.rearm(now, index);
        }
    }

    fn rearm_all(&mut self, now: u64) {
        (0..TIMERS).for_each(|index| self.rearm(now, index));
    }

    /// Computes the next match anew; a comparator that equals the counter matches now.
    fn rearm(&mut self, now: u64, index: usize) {
        let running = self.gen_conf & ENABLE_CNF != 0;
        let (counter, ticks) = (self.counter(now), self.ticks(now));
        let timer = &mut self.timers[index];
        let left = timer.comparator.wrapping_sub(counter) & timer.width_mask();
        timer.due = ticks.checked_add(left).filter(|_| running);
    }
}

fn timer_at(offset: u64) -> usize {
    ((offset - TIMER0) >> 5) as usize % TIMERS
}

fn size_mask(size: u8) -> u64 {
    u64::MAX >> (64 - 8 * u32::from(size.clamp(1, 8)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Rng;

    const CONF0: u64 = TIMER0 + CONF_CAP;
    const CMP0: u64 = TIMER0 + COMPARATOR;

    fn running() -> Hpet {
        let mut hpet = Hpet::new();
        hpet.write(0, GEN_CONF, 4, ENABLE_CNF);
        hpet
    }

    #[test]
    fn capabilities() {
        let mut hpet = Hpet::new();
        assert_eq!(hpet.read(0, GCAP_ID, 8), 0x0098_9680_8086_A201);
        assert_eq!(hpet.read(0, GCAP_ID + 4, 4), 10_000_000);
        for timer in 0..TIMERS as u64 {
            assert_eq!(hpet.read(0, CONF0 + 0x20 * timer, 8), 0x00FF_0104_0000_0030);
            assert_eq!(hpet.read(0, CMP0 + 0x20 * timer, 8), u64::MAX);
        }
        assert_eq!(hpet.read(0, TIMER_LAST + 1, 8), 0);
    }

    #[test]
    fn counter_runs_halts_and_is_written() {
        let mut hpet = Hpet::new();
        assert_eq!(hpet.read(500, MAIN_CNT, 8), 0);
        hpet.write(1000, GEN_CONF, 4, ENABLE_CNF);
        assert_eq!(hpet.read(2009, MAIN_CNT, 8), 100);
        hpet.write(3000, GEN_CONF, 4, 0);
        assert_eq!(hpet.read(9000, MAIN_CNT, 8), 200);
        hpet.write(9000, MAIN_CNT + 4, 4, 0xFFFF_FFFF);
        hpet.write(9000, MAIN_CNT, 4, 0xFFFF_FFFE);
        hpet.write(9000, GEN_CONF, 4, ENABLE_CNF);
        assert_eq!(hpet.read(9010, MAIN_CNT, 8), u64::MAX);
        assert_eq!(hpet.read(9030, MAIN_CNT, 8), 1);
        let day = 86_400_000_000_000;
        assert_eq!(hpet.read(9000 + day, MAIN_CNT, 8), day / 10 - 2);
    }

    #[test]
    fn one_shot_edge() {
        let mut hpet = running();
        hpet.write(0, CONF0, 4, INT_ENB | 20 << INT_ROUTE_SHIFT);
        hpet.write(0, CMP0, 8, 100);
        assert_eq!((hpet.deadline(), hpet.route(0)), (Some(1000), 20));
        hpet.advance(999);
        assert_eq!(hpet.take_edges(), 0);
        hpet.advance(1000);
        assert_eq!(hpet.take_edges(), 1);
        assert_eq!((hpet.take_edges(), hpet.deadline()), (0, None));
        assert_eq!(hpet.read(1000, GINTR_STA, 8), 0);
        assert!(!hpet.level(0));
    }

    #[test]
    fn a_comparator_that_has_passed_waits_for_the_wrap() {
        let mut hpet = running();
        hpet.write(0, CONF0, 4, INT_ENB | MODE_32);
        hpet.write(1000, CMP0, 4, 99);
        assert_eq!(hpet.deadline(), Some((99 + (1 << 32)) * 10));
        hpet.advance((99 + (1 << 32)) * 10);
        assert_eq!((hpet.take_edges(), hpet.deadline()), (1, Some((99 + (2 << 32)) * 10)));
        hpet.write(1000, CONF0, 4, INT_ENB);
        hpet.write(50 << 32, CMP0, 8, 99);
        assert_eq!(hpet.deadline(), None, "64 bits do not wrap in this life");
    }

    #[test]
    fn periodic_as_linux_sets_it() {
        let mut hpet = running();
        hpet.write(0, CONF0, 4, INT_ENB | TYPE_PERIODIC | VAL_SET | MODE_32);
        hpet.write(0, CMP0, 4, 150);
        assert_eq!(hpet.read(0, CONF0, 4) & VAL_SET, 0);
        hpet.write(0, CMP0, 4, 100);
        for n in 0..5 {
            let at = 1500 + 1000 * n;
            assert_eq!(hpet.deadline(), Some(at));
            hpet.advance(at);
            assert_eq!(hpet.take_edges(), 1);
        }
        assert_eq!(hpet.read(6000, CMP0, 4), 650);
        hpet.advance(100_000); // missed many: one interrupt
        assert_eq!((hpet.take_edges(), hpet.deadline()), (1, Some(100_500)));
        assert_eq!(hpet.read(100_000, CMP0, 4), 10_050);
    }

    #[test]
    fn one_write_with_val_set_sets_period_and_comparator() {
        let mut hpet = Hpet::new();
        hpet.write(0, CONF0, 4, INT_ENB | TYPE_PERIODIC | VAL_SET);
        hpet.write(0, CMP0, 8, 100);
        hpet.write(0, GEN_CONF, 4, ENABLE_CNF);
        hpet.advance(1000);
        assert_eq!((hpet.take_edges(), hpet.deadline()), (1, Some(2000)));
    }

    #[test]
    fn level_until_status_is_cleared() {
        let mut hpet = running();
        hpet.write(0, CONF0 + 0x40, 4, INT_ENB | INT_TYPE_LEVEL);
        hpet.write(0, CMP0 + 0x40, 8, 100);
        hpet.advance(1000);
        assert!(hpet.level(2) && hpet.take_edges() == 0);
        assert_eq!(hpet.read(1000, GINTR_STA, 4), 4);
        hpet.write(1000, GINTR_STA, 4, 3);
        assert!(hpet.level(2));
        hpet.write(1000, GINTR_STA, 4, 4);
        assert!(!hpet.level(2));
    }

    #[test]
    fn disabled_interrupts() {
        let mut hpet = running();
        hpet.write(0, CONF0, 4, INT_TYPE_LEVEL);
        hpet.write(0, CMP0, 8, 100);
        assert_eq!(hpet.deadline(), None);
        assert_eq!(hpet.read(2000, GINTR_STA, 4), 1, "status is set all the same");
        assert!(!hpet.level(0));
        hpet.write(2000, CONF0, 4, INT_TYPE_LEVEL | INT_ENB);
        assert!(hpet.level(0));
        hpet.write(2000, GEN_CONF, 4, 0);
        assert!(!hpet.level(0), "the global enable masks all");
    }

    #[test]
    fn legacy_replacement_routes() {
        let mut hpet = Hpet::new();
        hpet.write(0, CONF0, 4, 21 << INT_ROUTE_SHIFT);
        hpet.write(0, CONF0, 4, 5 << INT_ROUTE_SHIFT);
        assert_eq!(hpet.route(0), 21, "5 is not in INT_ROUTE_CAP");
        hpet.write(0, GEN_CONF, 4, LEG_RT_CNF);
        assert!(!hpet.legacy_replacement());
        hpet.write(0, GEN_CONF, 4, LEG_RT_CNF | ENABLE_CNF);
        assert!(hpet.legacy_replacement());
        assert_eq!([0, 1, 2, 9].map(|timer| hpet.route(timer)), [2, 8, 0, 0]);
    }

    #[test]
    fn halting_stops_the_timers() {
        let mut hpet = running();
        hpet.write(0, CONF0, 4, INT_ENB);
        hpet.write(0, CMP0, 8, 100);
        hpet.write(500, GEN_CONF, 4, 0);
        assert_eq!(hpet.deadline(), None);
        hpet.write(5000, GEN_CONF, 4, ENABLE_CNF);
        assert_eq!(hpet.deadline(), Some(5500));
        hpet.write(5000, MAIN_CNT, 8, 90);
        assert_eq!(hpet.deadline(), Some(5100));
    }

    fn fits(value: u64, size: u8) -> bool {
        value.checked_shr(8 * u32::from(size)).is_none_or(|rest| rest == 0)
    }

    #[test]
    fn random_accesses() {
        let mut rng = Rng(1);
        let mut random = || rng.next() << 32 ^ rng.next();
        let mut hpet = running();
        let mut now = 0;
        for _ in 0..200_000 {
            now = if random() % 64 == 0 { random() >> 2 } else { now + random() % 4096 };
            let (offset, value) = (random(), random() >> (random() % 64));
            let size = (random() % 8 + 1) as u8;
            match random() % 8 {
                0 => hpet.write(now, offset, size, value),
                1 => hpet.write(now, GEN_CONF, 8, value & 3 | 1),
                2 => hpet.write(now, CMP0 + 0x20 * (offset % 3), 8, value),
                3 => hpet.write(now, CONF0 + 0x20 * (offset % 3), 4, value | INT_ENB),
                4 => hpet.write(now, offset & 0x1FF, size, value),
                _ => assert!(fits(hpet.read(now, offset & 0x1FF, size), size)),
            }
            hpet.advance(now);
            assert!(hpet.deadline().is_none_or(|at| at > now));
            assert!(hpet.take_edges() < 1 << TIMERS);
            assert!((0..5).all(|timer| hpet.route(timer) < 24));
            assert!(!hpet.level(TIMERS));
        }
    }
}
