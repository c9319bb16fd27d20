//! The transport and the queues, by an echo of a device.

use super::driver::{BUFFERS, Driver, EVENTS, FORMS, INDIRECT, Interrupts, MEMORY, PACKED};
use super::{Bus, Device, Kind, VirtioPci};
use crate::disk::MemoryDisk;
use crate::pci::{Host, Message, PciDevice};
use crate::pci_host::PciFunction;
use crate::testing::Rng;
use emu_core::mem::Memory;

/// Gives back what was written to it, byte by byte plus one; holds chains back if it is told to.
#[derive(Default)]
struct Echo {
    hold: usize,
    held: Vec<super::queue::Chain>,
    changed: bool,
    register: [u8; 4],
}

impl Device for Echo {
    fn kind(&self) -> Kind {
        Kind { id: 2, class: 0x01_0000, queues: &[256, 8] }
    }

    fn config(&self) -> Vec<u8> {
        self.register.into()
    }

    fn config_write(&mut self, offset: usize, data: &[u8]) {
        self.register.iter_mut().skip(offset).zip(data).for_each(|(r, d)| *r = *d);
    }

    fn take_config_change(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    fn work(&mut self, bus: &mut Bus) {
        while let Some(chain) = bus.pop(0) {
            self.held.push(chain);
        }
        while self.held.len() > self.hold {
            // The newest first.
            let chain = self.held.pop().unwrap();
            let mut bytes = vec![0; chain.readable_len().min(1 << 16) as usize];
            chain.read(bus.memory, 0, &mut bytes);
            bytes.iter_mut().for_each(|b| *b = b.wrapping_add(1));
            let n = chain.write(bus.memory, 0, &bytes);
            bus.push(0, &chain, n as u32);
        }
    }

    fn reset(&mut self) {
        self.held.clear();
    }
}

#[test]
fn capabilities_name_the_registers() {
    let mut d = Driver::raw(Echo::default());
    let c = d.pci.config_mut();
    assert_eq!((c.config_read(0, 4), c.config_read(8, 4)), (0x1042_1af4, 0x0100_0001));
    let mut at = c.config_read(0x34, 1) as u8;
    let mut found = Vec::new();
    while at != 0 {
        if c.config_read(at, 1) == 9 {
            let (kind, bar) = (c.config_read(at + 3, 1), c.config_read(at + 4, 1));
            found.push((kind, bar, c.config_read(at + 8, 4), c.config_read(at + 2, 1)));
        } else {
            assert_eq!((c.config_read(at, 1), c.config_read(at + 2, 2)), (0x11, 2));
        }
        at = c.config_read(at + 1, 1) as u8;
    }
    let want = [(1, 4, 0, 16), (3, 4, 0x1000, 16), (4, 4, 0x2000, 16), (2, 4, 0x3000, 20)];
    assert_eq!(found[..4], want);
    assert_eq!(found[4], (5, 0, 0, 20));
}

#[test]
fn features_are_negotiated() {
    let mut d = Driver::raw(Echo::default());
    d.set(0x14, 1, 3);
    let offered: Vec<u64> = (0..3).map(|n| (d.set(0, 4, n), d.get(4, 4)).1).collect();
    assert_eq!(offered, [0x3000_0000, 5, 0]);
    for (low, high, ok) in [(0, 0, false), (1, 1, false), (0, 1, true), (0x1000_0000, 5, true)] {
        d.set(0x14, 1, 0);
        d.set(0x14, 1, 3);
        d.set(8, 4, 0);
        d.set(12, 4, low);
        d.set(8, 4, 1);
        d.set(12, 4, high);
        // A queue needs them.
        d.set(0x1c, 2, 1);
        assert_eq!(d.get(0x1c, 2), 0);
        d.set(0x14, 1, 0xb);
        assert_eq!(d.get(0x14, 1), if ok { 0xb } else { 3 });
        d.set(12, 4, 0);
        assert_eq!(d.get(12, 4) == high, ok || high == 0, "they stay when they are agreed on");
    }
}

#[test]
fn queues_keep_what_they_were_enabled_with() {
    let mut d = Driver::new(Echo::default(), 0);
    d.set(0x16, 2, 1);
    for (at, size, value) in [(0x18, 2, 4), (0x20, 8, 0x5000), (0x1c, 2, 0)] {
        let before = d.get(at, size);
        d.set(at, size, value);
        assert_eq!(d.get(at, size), before);
    }
    d.set(0x16, 2, 9);
    assert_eq!((d.get(0x18, 2), d.get(0x1c, 2), d.get(0x12, 2)), (0, 0, 2));
    d.set(0x14, 1, 0);
    d.set(0x16, 2, 0);
    assert_eq!((d.get(0x18, 2), d.get(0x1c, 2), d.get(0x1a, 2)), (256, 0, 0xffff));
    d.set(0x1a, 2, 3);
    assert_eq!(d.get(0x1a, 2), 0xffff, "there is no such vector");
    for (size, want) in [(0, 256), (257, 256), (100, 100)] {
        d.set(0x18, 2, size);
        assert_eq!(d.get(0x18, 2), want);
    }
    d.set(0x14, 1, 3);
    d.set(8, 4, 1);
    d.set(12, 4, 1);
    d.set(0x14, 1, 0xb);
    d.set(0x1c, 2, 1);
    assert_eq!(d.get(0x1c, 2), 0, "a split ring has a power of two");
    d.set(0x18, 2, 128);
    d.set(0x1c, 2, 1);
    assert_eq!(d.get(0x1c, 2), 1);
}

#[test]
fn chains_go_round_in_all_forms() {
    for form in FORMS {
        let mut d = Driver::new(Echo::default(), form);
        let mut rng = Rng(form | 1);
        // More than the rings hold, and more than 16-bit indices do.
        for round in 0..70_000_u32 {
            if round > 300 && form & INDIRECT != 0 {
                break;
            }
            let bytes: Vec<u8> = (0..1 + rng.below(40)).map(|n| (n as u32 ^ round) as u8).collect();
            let len = bytes.len();
            let at = d.buffer(&bytes);
            let (split, out) = (rng.below(len as u64 + 1) as u32, BUFFERS - 0x1000);
            let rest = (at + u64::from(split), len as u32 - split, false);
            let parts = [(at, split, false), rest, (out, 3, true), (out + 64, 90, true)];
            assert_eq!(d.call(0, &parts), len as u32, "{form:#x} {round}");
            let got = [d.bytes(out, len.min(3)), d.bytes(out + 64, len.saturating_sub(3))].concat();
            assert!(got.iter().zip(&bytes).all(|(g, b)| *g == b.wrapping_add(1)));
        }
        assert!(!d.needs_reset());
    }
}

#[test]
fn a_queue_asks_for_notifications_whatever_was_in_its_memory() {
    for form in FORMS {
        let mut d = Driver::new(Echo::default(), form);
        let area = Driver::<Echo>::area(0, 2);
        // A chain that is there before the driver is ready.
        d.set(0x14, 1, 0xb);
        let id = d.add(0, &[(BUFFERS, 1, false)]);
        d.kick(0);
        assert_eq!(d.used(0), None);
        d.memory.write(area, &if form & PACKED == 0 { [1, 0, 0, 0] } else { [0, 0, 1, 0] });
        d.set(0x14, 1, 0xf);
        let flags = area + if form & PACKED == 0 { 0 } else { 2 };
        assert_eq!(d.memory.read_array(flags), [0, 0], "{form:#x}");
        assert_eq!(d.used(0), Some((id, 0)));
    }
}

#[test]
fn chains_come_back_in_any_order() {
    for form in FORMS {
        let mut d = Driver::new(Echo { hold: 3, ..Echo::default() }, form);
        for round in 0..50 {
            let at = d.buffer(&[round; 4]);
            let ids: Vec<u16> =
                (0..3).map(|_| d.add(0, &[(at, 4, false), (at, 2, true)])).collect();
            d.kick(0);
            assert_eq!(d.used(0), None);
            d.pci.device_mut().hold = 0;
            d.advance();
            let back: Vec<_> = std::iter::from_fn(|| d.used(0)).collect();
            let want: Vec<_> = ids.iter().rev().map(|&id| (id, 2)).collect();
            assert_eq!(back, want, "{form:#x} {round}");
            d.pci.device_mut().hold = 3;
        }
    }
}

/// Whether the device has interrupted; acknowledges it.
fn interrupted<D: Device>(d: &mut Driver<D>) -> bool {
    let level = d.pci.intx();
    assert_eq!(d.pci.config().byte(6) & 8 != 0, level);
    let isr = d.get(0x1000, 1);
    assert_eq!((isr, d.pci.intx()), (u64::from(level), false));
    level
}

#[test]
fn interrupts_come_when_they_are_wanted() {
    for form in FORMS {
        let mut d = Driver::new(Echo::default(), form);
        let at = d.buffer(&[0; 16]);
        let one = [(at, 1, false)];
        if form & EVENTS == 0 || form & PACKED != 0 {
            for (when, want) in [(Interrupts::Never, false), (Interrupts::Always, true)] {
                d.want_interrupts(0, when);
                d.call(0, &one);
                assert_eq!(interrupted(&mut d), want, "{form:#x} {when:?}");
            }
        }
        if form & EVENTS == 0 {
            continue;
        }
        for _ in 0..40 {
            d.want_interrupts(0, Interrupts::After(2));
            let all: Vec<bool> = (0..3).map(|_| (d.call(0, &one), interrupted(&mut d)).1).collect();
            // Once round a packed ring the driver may be told too early.
            assert!(all == [false, false, true] || form & PACKED != 0 && all[2], "{all:?}");
        }
    }
}

#[test]
fn a_driver_that_waits_for_an_index_is_told_where_to_notify() {
    let mut d = Driver::new(Echo::default(), EVENTS);
    let at = d.buffer(&[0; 16]);
    for n in 1..20_u16 {
        d.call(0, &[(at, 1, false)]);
        let event = Driver::<Echo>::area(0, 2) + 4 + 8 * 8;
        assert_eq!(d.memory.read_array(event), n.to_le_bytes());
    }
}

#[test]
fn messages_have_the_vectors_of_their_queues() {
    let mut d = Driver::new(Echo::default(), 0);
    d.pci.config_mut().config_write(0x43, 1, 0x80);
    let host = Host { now: 0, memory: &d.memory };
    for n in 0..3 {
        d.pci.write(host, 1, 16 * n, 8, 0xfee0_0000);
        d.pci.write(host, 1, 16 * n + 8, 8, 0x40 + n);
    }
    let at = d.buffer(&[0; 16]);
    d.call(0, &[(at, 1, false)]);
    let message = |data| Message { address: 0xfee0_0000, data };
    assert_eq!(d.pci.config_mut().take_messages(), [message(0x41)]);
    assert!(!d.pci.intx());
    d.set(0x10, 2, 0);
    d.pci.device_mut().changed = true;
    let generation = d.get(0x15, 1);
    d.advance();
    assert_eq!(d.pci.config_mut().take_messages(), [message(0x40)]);
    assert_eq!(d.get(0x15, 1), generation + 1);
    // A masked one is pending.
    d.pci.write(Host { now: 0, memory: &d.memory }, 1, 16 + 12, 4, 1);
    d.call(0, &[(at, 1, false)]);
    assert_eq!(d.pci.config_mut().take_messages(), []);
    let host = Host { now: 0, memory: &d.memory };
    assert_eq!((d.pci.read(host, 1, 0x800, 8), d.pci.read(host, 1, 0x800, 1)), (2, 2));
    assert_eq!(d.pci.read(host, 1, 16 + 8, 4), 0x41);
}

#[test]
fn a_device_that_may_not_master_the_bus_waits() {
    let mut d = Driver::new(Echo::default(), 0);
    d.pci.config_mut().config_write(4, 2, 2);
    let at = d.buffer(&[0; 16]);
    let id = d.add(0, &[(at, 1, false)]);
    d.kick(0);
    assert_eq!(d.used(0), None);
    d.pci.config_mut().config_write(4, 2, 6);
    let host = Host { now: 0, memory: &d.memory };
    d.pci.configured(host, 4, 2);
    assert_eq!(d.used(0), Some((id, 0)));
}

#[test]
fn the_window_in_configuration_space_reaches_the_registers() {
    let mut d = Driver::raw(Echo::default());
    let mut window = d.pci.config_mut().config_read(0x34, 1) as u8;
    while d.pci.config_mut().config_read(window, 4) & 0xff00_00ff != 0x0500_0009 {
        window = d.pci.config_mut().config_read(window + 1, 1) as u8;
    }
    let mut access = |offset: u32, size: u8, value: Option<u32>| {
        let memory = d.memory.clone();
        let mut write = |at: u8, size: u8, value: u32| {
            d.pci.config_mut().config_write(at, size, value);
            d.pci.configured(Host { now: 0, memory: &memory }, at, size);
        };
        write(window + 4, 1, 4);
        write(window + 8, 4, offset);
        write(window + 12, 4, size.into());
        if let Some(value) = value {
            write(window + 16, size, value);
        }
        d.pci.config_mut().config_read(window + 16, size)
    };
    assert_eq!(access(0x12, 2, None), 2);
    assert_eq!(access(0x14, 1, Some(3)), 3);
    assert_eq!(access(0x2000, 4, Some(0x1234_5678)), 0x1234_5678);
    assert_eq!(access(0x2001, 1, None), 0x56);
    access(0x3fff, 4, Some(1));
    assert_eq!(d.pci.device().register, [0x78, 0x56, 0x34, 0x12]);
}

/// What a driver must not do: each row breaks a ring in its own way.
#[test]
fn a_driver_that_breaks_the_rules_is_asked_to_reset() {
    const SPLIT: u64 = 0;
    let (table, driver) = (Driver::<Echo>::area(0, 0), Driver::<Echo>::area(0, 1));
    type Damage = fn(&Driver<Echo>, u64, u64);
    let rows: &[(u64, &str, Damage)] = &[
        (SPLIT, "an index far ahead", |d, _, ring| d.memory.write(ring + 2, &[9, 0])),
        (SPLIT, "a head outside", |d, _, ring| d.memory.write(ring + 4, &[8, 0])),
        (SPLIT, "a next outside", |d, t, _| d.descriptor(t, (0, 1), 1, 8)),
        (SPLIT, "a loop", |d, t, _| d.descriptor(t, (0, 1), 1, 0)),
        (SPLIT, "a read behind a write", |d, t, _| {
            d.descriptor(t, (0, 1), 3, 1);
            d.descriptor(t + 16, (0, 1), 0, 0);
        }),
        (SPLIT, "an odd table", |d, t, _| d.descriptor(t, (BUFFERS, 17), 4, 0)),
        (SPLIT, "an empty table", |d, t, _| d.descriptor(t, (BUFFERS, 0), 4, 0)),
        (SPLIT, "a huge table", |d, t, _| d.descriptor(t, (BUFFERS, 16 * 1025), 4, 0)),
        (SPLIT, "a table and more", |d, t, _| d.descriptor(t, (BUFFERS, 16), 5, 1)),
        (SPLIT, "a table in a table", |d, t, _| {
            d.descriptor(t, (BUFFERS, 16), 4, 0);
            d.descriptor(BUFFERS, (BUFFERS + 16, 16), 4, 0);
            d.descriptor(BUFFERS + 16, (BUFFERS, 1), 0, 0);
        }),
        (PACKED, "no end", |d, t, _| {
            (0..8).for_each(|n| d.descriptor(t + 16 * n, (0, 1), 1 | 1 << 7, 0));
        }),
        (PACKED, "a read behind a write", |d, t, _| {
            d.descriptor(t, (0, 1), 3 | 1 << 7, 0);
            d.descriptor(t + 16, (0, 1), 1 << 7, 0);
        }),
        (PACKED, "a table and more", |d, t, _| d.descriptor(t, (BUFFERS, 16), 5 | 1 << 7, 0)),
        (PACKED, "a table later", |d, t, _| {
            d.descriptor(t, (0, 1), 1 | 1 << 7, 0);
            d.descriptor(t + 16, (BUFFERS, 16), 4 | 1 << 7, 0);
        }),
        (PACKED, "an odd table", |d, t, _| d.descriptor(t, (BUFFERS, 15), 4 | 1 << 7, 0)),
        (PACKED, "a table in a table", |d, t, _| {
            d.descriptor(t, (BUFFERS, 16), 4 | 1 << 7, 0);
            d.descriptor(BUFFERS, (BUFFERS, 16), 4, 0);
        }),
    ];
    for (form, name, damage) in rows {
        let mut d = Driver::new(Echo::default(), *form | INDIRECT);
        let at = d.buffer(&[0; 4096]);
        d.add(0, &[(at, 1, false)]);
        damage(&d, table, driver);
        d.kick(0);
        assert!(d.needs_reset(), "{name}");
        assert_eq!(d.get(0x1000, 1), 2, "{name}: the driver is told");
        assert_eq!(d.used(0), None, "{name}");
        // Nothing more happens before a reset, everything after.
        d.set(0x14, 1, 0xf);
        d.kick(0);
        assert!(d.needs_reset());
        d.bring_up(*form, 8);
        assert_eq!(d.call(0, &[(at, 4, false), (at, 4, true)]), 4, "{name}");
    }
}

#[test]
fn a_driver_gets_no_more_chains_in_than_its_queue_holds() {
    for form in [0, PACKED] {
        let mut d = Driver::new(Echo { hold: 99, ..Echo::default() }, form);
        for n in 0..9 {
            assert!(!d.needs_reset(), "{n}");
            d.add(0, &[(BUFFERS, 1, false)]);
            d.kick(0);
        }
        // In a packed ring the ninth is written over the first, as in the round before.
        assert!(d.needs_reset(), "{form:#x}");
        assert!(d.pci.device().held.len() <= 8);
    }
}

/// A buffer of a chain: often one that makes sense.
fn part(rng: &mut Rng) -> (u64, u32, bool) {
    let address = match rng.below(8) {
        0 => rng.next(),
        1 => u64::MAX - rng.below(100),
        2 => MEMORY - rng.below(100),
        3 => BUFFERS,
        _ => BUFFERS + (rng.below(0x1_0000) & !15),
    };
    let len = match rng.below(12) {
        0 => rng.next() as u32 & 0xf_ffff,
        1 if rng.below(50) == 0 => u32::MAX,
        2..=4 => 512 * rng.below(9) as u32,
        5..=8 => 16,
        _ => rng.below(20) as u32,
    };
    (address, len, rng.below(2) == 0)
}

fn throw<D: Device>(make: impl Fn() -> D, mut outside: impl FnMut(&mut D, &mut Rng)) {
    for form in [0, EVENTS | INDIRECT, PACKED, PACKED | EVENTS | INDIRECT] {
        let mut d = Driver::new(make(), form);
        let mut rng = Rng(form | 9);
        for n in 0..20_000 {
            let size = [1, 2, 4, 8][rng.below(4) as usize];
            let offset = match rng.below(4) {
                0 => rng.below(0x40),
                1 => 0x3000 + rng.below(16),
                _ => rng.below(0x4000 - 8),
            };
            let value = [rng.next(), rng.below(16), u64::MAX][rng.below(3) as usize];
            match rng.below(40) {
                0 => d.set(offset & !u64::from(size - 1), size, value),
                1 => drop(d.get(offset & !u64::from(size - 1), size)),
                2 => {
                    let at = rng.next() as u8 & !(size - 1);
                    d.pci.config_mut().config_write(at, size.min(4), value as u32);
                    // The bus master bit is set again.
                    d.pci.config_mut().config_write(4, 1, 6);
                    d.pci.configured(Host { now: n, memory: &d.memory }, at, size.min(4));
                }
                3 => d.pci.write(Host { now: n, memory: &d.memory }, 1, offset & 0xff8, 8, value),
                4 => outside(d.pci.device_mut(), &mut rng),
                5 => d.advance(),
                // A chain in order or not, of buffers anywhere, with bytes for a device's header.
                _ => {
                    let kind = [0, 1, 4, 8, 11, 13, 2][rng.below(7) as usize];
                    d.memory.write(BUFFERS, &[kind, 0, 0, 0, 0, 0, 0, 0, rng.below(200) as u8]);
                    let mut parts: Vec<_> = (0..1 + rng.below(5)).map(|_| part(&mut rng)).collect();
                    if rng.below(10) != 0 {
                        parts.sort_by_key(|p| p.2);
                    }
                    let queue = rng.below(d.queues() as u64) as usize;
                    d.add(queue, &parts);
                    if rng.below(8) == 0 {
                        let area = Driver::<D>::area(queue, rng.below(3));
                        let table = if rng.below(4) == 0 { 0x8_0000 } else { area };
                        d.memory.write(table + rng.below(0x90), &[rng.next() as u8]);
                    }
                    d.kick(queue);
                }
            }
            d.pci.config_mut().take_messages();
            if d.needs_reset() || rng.below(500) == 0 {
                d.pci.reset();
                d.pci.config_mut().config_write(4, 2, 6);
                d.bring_up(form, 8);
            }
        }
    }
}

#[test]
fn random_accesses() {
    throw(Echo::default, |e, rng| (e.hold, e.changed) = (rng.below(9) as usize, true));
    throw(
        || super::blk::Blk::new(Box::new(MemoryDisk::new(vec![0; 1 << 16])), "disk"),
        |b, _| assert_eq!(b.disk().len(), 1 << 16),
    );
    throw(|| super::rng::Rng::seeded(1), |_, _| ());
    throw(super::balloon::Balloon::new, |b, rng| {
        b.set_target(rng.next() as u32);
        b.want_statistics();
        assert!(b.take_pages().len() < 1 << 16 && b.statistics().len() <= 64);
    });
    throw(
        || super::console::Console::new(80, 25),
        |c, rng| {
            c.push_input(&vec![7; rng.below(5000) as usize]);
            c.resize(rng.next() as u16, 25);
            assert!(c.take_output().len() <= 1 << 16);
        },
    );
}

#[test]
fn a_function_that_is_reset_forgets_its_driver() {
    let mut d = Driver::new(Echo::default(), 0);
    d.pci.reset();
    assert_eq!((d.get(0x14, 1), d.get(0x1c, 2), d.pci.config().is_master()), (0, 0, false));
    let memory = Memory::flat(4096).unwrap();
    let mut fresh = VirtioPci::new(Echo::default());
    assert_eq!(fresh.read(Host { now: 0, memory: &memory }, 4, 0x18, 2), 256);
}
