//! The virtio balloon (5.5): the host asks for pages, the guest gives some back.
//!
//! The board sets a target. The driver puts the numbers of pages that it does without into the
//! inflate queue, and of those that it uses again into the deflate queue; the board takes them as
//! ranges, in their order, and may let the host have what is in the balloon. A queue waits while
//! too many ranges have not been taken. Statistics come when they are asked for: the driver
//! leaves a buffer with the old ones, and answers its return with new ones. Ranges are what the
//! driver says: they need not be RAM.
//!
//! Source: VIRTIO 1.2, 5.5. Pages are of 4 KiB, whatever the guest's are.

use super::queue::Chain;
use super::{Bus, Device, Kind};

/// Features (5.5.3).
const F_STATS_VQ: u64 = 1 << 1;
const F_DEFLATE_ON_OOM: u64 = 1 << 2;
const INFLATE: usize = 0;
const DEFLATE: usize = 1;
const STATS: usize = 2;
const PAGE: u64 = 4096;
/// Ranges that wait for the board.
const RANGES: usize = 1 << 14;
/// Page numbers that one buffer may have.
const NUMBERS: u64 = 1 << 14;
/// Statistics that a driver may have: tags and values.
const STATISTICS: u64 = 64;
/// Where `actual` is in the configuration.
const ACTUAL: usize = 4;

/// Pages that went into the balloon, or came out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pages {
    /// They are in the balloon: the guest does not use them.
    pub given: bool,
    /// Guest-physical address.
    pub base: u64,
    /// Bytes.
    pub len: u64,
}

/// The device.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Balloon {
    target: u32,
    actual: u32,
    changed: bool,
    pages: Vec<Pages>,
    /// The driver's buffer for the next statistics.
    buffer: Option<Chain>,
    wanted: bool,
    statistics: Vec<(u16, u64)>,
}

impl Balloon {
    /// An empty balloon.
    #[must_use]
    pub fn new() -> Balloon {
        Balloon::default()
    }

    /// The board wants the balloon to have this many pages of 4 KiB.
    pub fn set_target(&mut self, pages: u32) {
        self.changed |= self.target != pages;
        self.target = pages;
    }

    /// Pages that it shall have.
    #[must_use]
    pub fn target(&self) -> u32 {
        self.target
    }

    /// Pages that it has, as the driver says.
    #[must_use]
    pub fn actual(&self) -> u32 {
        self.actual
    }

    /// Takes the pages that went in or out.
    pub fn take_pages(&mut self) -> Vec<Pages> {
        std::mem::take(&mut self.pages)
    }

    /// Asks for statistics anew.
    pub fn want_statistics(&mut self) {
        self.wanted = true;
    }

    /// The last statistics: tags (5.5.6.3) and values.
    #[must_use]
    pub fn statistics(&self) -> &[(u16, u64)] {
        &self.statistics
    }

    fn move_pages(&mut self, bus: &mut Bus, queue: usize) {
        while self.pages.len() < RANGES {
            let Some(chain) = bus.pop(queue) else { return };
            let len = chain.readable_len().min(4 * NUMBERS) & !3;
            let mut bytes = vec![0; len as usize];
            chain.read(bus.memory, 0, &mut bytes);
            for number in bytes.chunks_exact(4) {
                let number = u32::from_le_bytes(number.try_into().unwrap_or_default());
                self.add(queue == INFLATE, u64::from(number) * PAGE);
            }
            bus.push(queue, &chain, 0);
        }
    }

    /// Adds a page, to the last range if it is beside it: drivers count up or down.
    fn add(&mut self, given: bool, base: u64) {
        match self.pages.last_mut() {
            Some(p) if p.given == given && p.base + p.len == base => p.len += PAGE,
            Some(p) if p.given == given && base + PAGE == p.base => {
                (p.base, p.len) = (base, p.len + PAGE);
            }
            _ => self.pages.push(Pages { given, base, len: PAGE }),
        }
    }

    fn take_statistics(&mut self, bus: &mut Bus) {
        if self.wanted
            && let Some(chain) = self.buffer.take()
        {
            self.wanted = false;
            bus.push(STATS, &chain, 0);
        }
        while let Some(chain) = bus.pop(STATS) {
            let count = (chain.readable_len() / 10).min(STATISTICS);
            let mut bytes = vec![0; 10 * count as usize];
            chain.read(bus.memory, 0, &mut bytes);
            let entry = |e: &[u8]| {
                let value = e[2..].iter().rev().fold(0, |v, &b| v << 8 | u64::from(b));
                (u16::from_le_bytes([e[0], e[1]]), value)
            };
            self.statistics = bytes.chunks_exact(10).map(entry).collect();
            // One buffer is enough.
            if let Some(old) = self.buffer.replace(chain) {
                bus.push(STATS, &old, 0);
            }
        }
    }
}

impl Device for Balloon {
    fn kind(&self) -> Kind {
        Kind { id: 5, class: 0xff_0000, queues: &[128, 128, 16] }
    }

    fn features(&self) -> u64 {
        F_STATS_VQ | F_DEFLATE_ON_OOM
    }

    fn config(&self) -> Vec<u8> {
        [self.target.to_le_bytes(), self.actual.to_le_bytes()].concat()
    }

    fn config_write(&mut self, offset: usize, data: &[u8]) {
        if offset == ACTUAL
            && let Ok(value) = data.try_into()
        {
            self.actual = u32::from_le_bytes(value);
        }
    }

    fn take_config_change(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    fn work(&mut self, bus: &mut Bus) {
        self.move_pages(bus, INFLATE);
        self.move_pages(bus, DEFLATE);
        self.take_statistics(bus);
    }

    fn reset(&mut self) {
        // A driver that begins anew has all of its pages.
        (self.actual, self.buffer, self.wanted) = (0, None, false);
    }
}

#[cfg(test)]
mod tests {
    use super::super::driver::{Driver, FORMS};
    use super::*;

    fn numbers(d: &mut Driver<Balloon>, of: &[u32]) -> (u64, u32, bool) {
        let bytes: Vec<u8> = of.iter().flat_map(|n| n.to_le_bytes()).collect();
        (d.buffer(&bytes), bytes.len() as u32, false)
    }

    #[test]
    fn pages_go_in_and_out() {
        for form in FORMS {
            let mut d = Driver::new(Balloon::new(), form);
            d.pci.device_mut().set_target(5);
            d.advance();
            assert_eq!((d.get(0x1000, 1), d.get(0x2000, 4)), (2, 5));
            let part = numbers(&mut d, &[3, 4, 5, 9, 8, 0xffff_ffff]);
            d.call(INFLATE, &[part]);
            d.set(0x2004, 4, 6);
            let part = numbers(&mut d, &[4]);
            d.call(DEFLATE, &[part]);
            let range =
                |given, page: u64, pages: u64| Pages { given, base: page << 12, len: pages << 12 };
            let want = [
                range(true, 3, 3),
                range(true, 8, 2),
                range(true, 0xffff_ffff, 1),
                range(false, 4, 1),
            ];
            assert_eq!(d.pci.device_mut().take_pages(), want);
            assert_eq!((d.pci.device().actual(), d.pci.device().target()), (6, 5));
            d.bring_up(form, 8);
            assert_eq!((d.pci.device().actual(), d.get(0x2000, 4)), (0, 5));
        }
    }

    #[test]
    fn ranges_that_nobody_takes_stop_the_queue() {
        let mut d = Driver::new(Balloon::new(), 0);
        let apart: Vec<u32> = (0..1 << 14).map(|n| 2 * n).collect();
        let part = numbers(&mut d, &apart);
        d.call(INFLATE, &[part]);
        let id = d.add(INFLATE, &[part]);
        d.kick(INFLATE);
        assert_eq!(d.used(INFLATE), None);
        assert_eq!(d.pci.device_mut().take_pages().len(), 1 << 14);
        d.advance();
        assert_eq!(d.used(INFLATE), Some((id, 0)));
    }

    #[test]
    fn statistics_come_when_they_are_wanted() {
        let mut d = Driver::new(Balloon::new(), F_STATS_VQ);
        let entry = |tag: u16, value: u64| [&tag.to_le_bytes()[..], &value.to_le_bytes()].concat();
        let at = d.buffer(&[entry(4, 1 << 33), entry(5, 7)].concat());
        let id = d.add(STATS, &[(at, 20, false)]);
        d.kick(STATS);
        assert_eq!(d.pci.device().statistics(), [(4, 1 << 33), (5, 7)]);
        assert_eq!(d.used(STATS), None);
        d.pci.device_mut().want_statistics();
        d.advance();
        assert_eq!(d.used(STATS), Some((id, 0)));
        d.memory.write(at + 2, &[9]);
        d.add(STATS, &[(at, 20, false)]);
        d.kick(STATS);
        assert_eq!(d.pci.device().statistics()[0], (4, 1 << 33 | 9));
    }
}
