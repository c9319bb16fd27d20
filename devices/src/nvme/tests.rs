//! The controller as a driver meets it: registers and queues.

use super::*;
use crate::disk::DiskError;
use crate::pci::Message;
use crate::pci_host::PciFunction;
use crate::test_disk::TestDisk;
use crate::testing::Rng;

const ASQ: u64 = 0x1000;
const ACQ: u64 = 0x2000;
const SQ: u64 = 0x3000;
const CQ: u64 = 0x4000;
const DATA: u64 = 0x10_0000;
const ENTRIES_HERE: u32 = 16;

struct Rig {
    nvme: Nvme,
    memory: Memory,
    disk: TestDisk,
    tails: [u32; 2],
    heads: [u32; 2],
    cid: u16,
}

type Command = [u32; 16];

/// A command with its namespace and its data at [`DATA`].
fn command(opcode: u8, nsid: u32, rows: &[(usize, u32)]) -> Command {
    let mut c = [0; 16];
    (c[0], c[1], c[6]) = (opcode.into(), nsid, DATA as u32);
    rows.iter().for_each(|&(n, value)| c[n] = value);
    c
}

impl Rig {
    /// Enabled, with admin queues.
    fn new(sectors: usize) -> Rig {
        let disk = TestDisk::counting(sectors);
        let mut nvme = Nvme::new(disk.boxed(), "R3-0001");
        nvme.config.put(4, 6);
        let memory = Memory::flat(4 << 20).unwrap();
        let mut r = Rig { nvme, memory, disk, tails: [0; 2], heads: [0; 2], cid: 0 };
        r.enable();
        r
    }

    /// The same with an I/O queue pair.
    fn with_queues(sectors: usize) -> Rig {
        let mut r = Rig::new(sectors);
        r.create_queues();
        r
    }

    fn create_queues(&mut self) {
        let size = (ENTRIES_HERE - 1) << 16 | 1;
        assert_eq!(self.admin(command(5, 0, &[(6, CQ as u32), (10, size), (11, 3)])), (0, 0));
        assert_eq!(
            self.admin(command(1, 0, &[(6, SQ as u32), (10, size), (11, 1 << 16 | 1)])),
            (0, 0)
        );
    }

    fn enable(&mut self) {
        let n = ENTRIES_HERE - 1;
        let cap = self.get(0, 8);
        assert_eq!((cap & 0xffff, cap >> 37 & 1, self.get(8, 4)), (1023, 1, 0x10300));
        self.set(0x24, 4, u64::from(n << 16 | n));
        self.set(0x28, 8, ASQ);
        self.set(0x30, 8, ACQ);
        self.set(0x14, 4, 0x46_0001);
        assert_eq!(self.get(0x1c, 4), 1, "ready");
        (self.tails, self.heads) = ([0; 2], [0; 2]);
        for at in [ACQ, CQ] {
            self.memory.write(at, &[0; 4096]);
        }
    }

    fn get(&mut self, offset: u64, size: u8) -> u64 {
        self.nvme.read(Host { now: 0, memory: &self.memory }, 0, offset, size)
    }

    fn set(&mut self, offset: u64, size: u8, value: u64) {
        self.nvme.write(Host { now: 0, memory: &self.memory }, 0, offset, size, value);
    }

    fn advance(&mut self) {
        self.nvme.advance(Host { now: 0, memory: &self.memory });
    }

    /// Puts a command into queue `q`; its identifier.
    fn put(&mut self, q: usize, mut c: Command) -> u16 {
        self.cid += 1;
        c[0] |= u32::from(self.cid) << 16;
        let bytes: Vec<u8> = c.iter().flat_map(|d| d.to_le_bytes()).collect();
        self.memory.write([ASQ, SQ][q] + u64::from(self.tails[q]) * 64, &bytes);
        self.tails[q] = (self.tails[q] + 1) % ENTRIES_HERE;
        self.cid
    }

    fn ring(&mut self, q: usize) {
        self.set(0x1000 + 8 * q as u64, 4, self.tails[q].into());
    }

    /// Takes a completion of queue `q`, if there is a new one: identifier, status, dword 0.
    fn take(&mut self, q: usize) -> Option<(u16, u16, u32)> {
        let (head, turn) = (self.heads[q] % ENTRIES_HERE, self.heads[q] / ENTRIES_HERE);
        let entry: [u8; 16] = self.memory.read_array([ACQ, CQ][q] + u64::from(head) * 16);
        let word = |n: usize| u16::from_le_bytes([entry[n], entry[n + 1]]);
        if (word(14) & 1 == 1) != (turn % 2 == 0) {
            return None;
        }
        assert_eq!(word(10), q as u16);
        self.heads[q] += 1;
        self.set(0x1004 + 8 * q as u64, 4, (self.heads[q] % ENTRIES_HERE).into());
        Some((word(12), word(14) >> 1, u32::from(word(0)) | u32::from(word(2)) << 16))
    }

    /// A command from doorbell to completion: status without Do Not Retry, dword 0.
    fn run(&mut self, q: usize, c: Command) -> (u16, u32) {
        let cid = self.put(q, c);
        self.ring(q);
        let (id, status, dw0) = self.take(q).expect("no completion");
        assert_eq!(id, cid);
        (status & 0x7ff, dw0)
    }

    fn admin(&mut self, c: Command) -> (u16, u32) {
        self.run(0, c)
    }

    fn data(&self, at: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        self.memory.read(at, &mut data);
        data
    }
}

#[test]
fn it_is_enabled_reset_and_refuses_what_it_cannot_be() {
    let mut r = Rig::new(64);
    r.set(0x14, 4, 0);
    assert_eq!(r.get(0x1c, 4), 0);
    for (cc, aqa) in [(0x11, 0xf_000f), (0x801, 0xf_000f), (0x281, 0xf_000f), (1, 0xf_0000)] {
        r.set(0x24, 4, aqa);
        r.set(0x14, 4, cc);
        assert_eq!(r.get(0x1c, 4), 2, "fatal: {cc:#x} {aqa:#x}");
        r.set(0x14, 4, 0);
        assert_eq!(r.get(0x1c, 4), 0);
    }
    r.enable();
    // A shutdown ends with a flush.
    r.disk.state().held = true;
    r.set(0x14, 4, 0x46_4001);
    assert_eq!(r.get(0x1c, 4), 5);
    r.disk.state().held = false;
    assert_eq!((r.get(0x1c, 4), r.disk.state().disk.flushes), (9, 1));
    r.nvme.reset();
    assert_eq!((r.get(0x14, 4), r.get(0x1c, 4), r.get(0x28, 8)), (0, 0, 0));
}

#[test]
fn it_tells_what_it_is() {
    let mut r = Rig::new(5000);
    assert_eq!(r.admin(command(6, 0, &[(10, 1)])), (0, 0));
    let c = r.data(DATA, 4096);
    assert_eq!((&c[4..12], &c[24..34]), (&b"R3-0001 "[..], &b"RING3 NVME"[..]));
    assert_eq!((c[77], c[512], c[513], c[516], c[520], c[525]), (7, 0x66, 0x44, 1, 12, 1));
    assert_eq!(r.admin(command(6, 1, &[])), (0, 0));
    let n = r.data(DATA, 4096);
    assert_eq!((&n[..2], n[130], n[120]), (&5000u16.to_le_bytes()[..], 9, b'R'));
    assert_eq!(r.admin(command(6, 0, &[(10, 2)])), (0, 0));
    assert_eq!(r.data(DATA, 8), [1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(r.admin(command(6, 1, &[(10, 3)])), (0, 0));
    assert_eq!(r.data(DATA, 12)[..6], [1, 8, 0, 0, b'R', b'3']);
    assert_eq!(r.admin(command(6, 2, &[])), (0x0b, 0));
    assert_eq!(r.admin(command(6, 1, &[(10, 0x10)])), (2, 0));
    assert_eq!(r.admin(command(0x7f, 1, &[])), (1, 0));
    assert_eq!(r.admin(command(6, 1, &[(0, 0x4006)])), (2, 0), "no SGLs");
    // Features and logs.
    assert_eq!(r.admin(command(9, 0, &[(10, 7), (11, 3 << 16 | 3)])), (0, ALL));
    assert_eq!(r.admin(command(0xa, 0, &[(10, 7)])), (0, ALL));
    assert_eq!(r.admin(command(9, 0, &[(10, 7), (11, 0xffff)])), (2, 0));
    assert_eq!(r.admin(command(9, 0, &[(10, 0x8000_0006)])), (0x10d, 0));
    assert_eq!(r.admin(command(0xa, 0, &[(10, 6)])), (0, 1));
    assert_eq!(r.admin(command(9, 0, &[(10, 6)])), (0, 0));
    assert_eq!((r.admin(command(0xa, 0, &[(10, 6)])), r.disk.state().disk.flushes), ((0, 0), 1));
    assert_eq!(r.admin(command(0xa, 0, &[(10, 0x106)])), (0, 1), "the default");
    assert_eq!(r.admin(command(0xa, 0, &[(10, 0x77)])), (2, 0));
    assert_eq!(r.admin(command(2, 0, &[(10, 127 << 16 | 2)])), (0, 0));
    assert_eq!(r.data(DATA, 5), [0, 44, 1, 100, 10]);
    assert_eq!(r.admin(command(2, 0, &[(10, 3)])), (0, 0));
    assert_eq!(r.admin(command(2, 0, &[(10, 9)])), (0x109, 0));
    assert_eq!(r.admin(command(8, 0, &[])), (0, 1), "nothing was aborted");
}

const ALL: u32 = 63 << 16 | 63;

#[test]
fn queues_are_created_and_deleted_with_their_rules() {
    let mut r = Rig::new(64);
    let mut pair = |opcode, id: u32, size: u32, dw11| {
        r.admin(command(opcode, 0, &[(6, CQ as u32), (10, size << 16 | id), (11, dw11)])).0
    };
    let table = [
        (5, 0, 15, 3, 0x101),
        (5, 65, 15, 3, 0x101),
        (5, 1, 0, 3, 0x102),
        (5, 1, 1024, 3, 0x102),
        (5, 1, 15, 2, 2),               // not contiguous
        (5, 1, 15, 1 << 16 | 3, 0x108), // a pin is one vector
        (1, 1, 15, 1 << 16 | 1, 0x100),
        (5, 1, 15, 3, 0),
        (5, 1, 15, 3, 0x101),
        (1, 1, 15, 1 << 16 | 1, 0),
        (1, 1, 15, 1 << 16 | 1, 0x101),
        (1, 2, 15, 99 << 16 | 1, 0x101),
        (4, 1, 0, 0, 0x10c),
        (0, 2, 0, 0, 0x101),
        (0, 1, 0, 0, 0),
        (4, 1, 0, 0, 0),
        (4, 1, 0, 0, 0x101),
    ];
    for (opcode, id, size, dw11, status) in table {
        assert_eq!(pair(opcode, id, size, dw11), status, "{opcode} {id} {size} {dw11:#x}");
    }
    let odd = command(5, 0, &[(6, 0x1010), (10, 15 << 16 | 1), (11, 3)]);
    assert_eq!(r.admin(odd).0, 0x13);
}

#[test]
fn blocks_are_read_and_written_through_prps() {
    let mut r = Rig::with_queues(4096);
    let bytes = r.disk.state().disk.bytes.clone();
    assert_eq!(r.run(1, command(2, 1, &[(10, 3), (12, 1)])), (0, 0));
    assert_eq!(r.data(DATA, 1024), bytes[1536..2560]);
    // Two pages, from the middle of the first.
    let c = command(2, 1, &[(6, DATA as u32 + 3584), (8, 0x18_0000), (10, 8), (12, 3)]);
    assert_eq!(r.run(1, c), (0, 0));
    assert_eq!(r.data(DATA + 3584, 512), bytes[4096..4608]);
    assert_eq!(r.data(0x18_0000, 1536), bytes[4608..6144]);
    // A list whose first page has room for one entry and a pointer.
    for (at, entry) in [(0x8ff0, 0x20_0000u64), (0x8ff8, 0x9000)] {
        r.memory.write(at, &entry.to_le_bytes());
    }
    for n in 0..126 {
        r.memory.write(0x9000 + 8 * n, &(0x20_1000 + 4096 * n).to_le_bytes());
    }
    let c = command(2, 1, &[(8, 0x8ff0), (10, 1), (12, 1023)]);
    assert_eq!(r.run(1, c), (0, 0));
    assert_eq!(r.data(0x20_0000, 127 * 4096), bytes[512 + 4096..][..127 * 4096]);
    // The same as a write elsewhere.
    let c = command(1, 1, &[(8, 0x8ff0), (10, 2000), (12, 1023)]);
    assert_eq!(r.run(1, c), (0, 0));
    assert!(
        r.disk.state().disk.bytes[2000 * 512 + 4096..][..127 * 4096] == bytes[4608..][..127 * 4096]
    );
    // Lists that lead nowhere, odd pages, too much.
    r.memory.write(0x8ff8, &0x8ff8u64.to_le_bytes());
    let nowhere = command(2, 1, &[(8, 0x8ff8), (12, 1023)]);
    assert_eq!(r.run(1, nowhere), (0x13, 0));
    assert_eq!(r.run(1, command(2, 1, &[(8, 0x123), (12, 15)])), (0x13, 0));
    assert_eq!(r.run(1, command(2, 1, &[(12, 1024)])), (2, 0));
    assert_eq!(r.run(1, command(2, 1, &[(10, 4090), (12, 6)])), (0x80, 0));
    assert_eq!(r.run(1, command(2, 1, &[(10, u32::MAX), (11, u32::MAX)])), (0x80, 0));
    assert_eq!(r.run(1, command(2, 2, &[])), (0x0b, 0));
    assert_eq!(r.run(1, command(5, 1, &[])), (1, 0));
}

#[test]
fn blocks_are_flushed_zeroed_and_discarded() {
    let mut r = Rig::with_queues(64);
    let zero =
        |r: &Rig, n: usize| r.disk.state().disk.bytes[512 * n..][..512].iter().all(|&b| b == 0);
    assert_eq!(r.run(1, command(0, u32::MAX, &[])), (0, 0));
    assert_eq!(r.disk.state().disk.flushes, 1);
    assert_eq!(r.run(1, command(1, 1, &[(12, 1 << 30)])), (0, 0));
    assert_eq!(r.disk.state().disk.flushes, 2, "Force Unit Access");
    assert_eq!(r.run(1, command(8, 1, &[(10, 5), (12, 1 << 25 | 2)])), (0, 0));
    assert_eq!([4, 5, 7, 8].map(|n| zero(&r, n)), [false, true, true, false]);
    for (n, (len, first)) in [(2u64, 20u64), (0, 63), (1, 30)].into_iter().enumerate() {
        r.memory.write(DATA + 16 * n as u64, &(len << 32).to_le_bytes());
        r.memory.write(DATA + 16 * n as u64 + 8, &first.to_le_bytes());
    }
    assert_eq!(r.run(1, command(9, 1, &[(10, 2)])), (0, 0), "a hint");
    assert!(!zero(&r, 20));
    assert_eq!(r.run(1, command(9, 1, &[(10, 2), (11, 4)])), (0, 0));
    assert_eq!([19, 20, 21, 22, 30].map(|n| zero(&r, n)), [false, true, true, false, true]);
    r.memory.write(DATA + 8, &63u64.to_le_bytes());
    assert_eq!(r.run(1, command(9, 1, &[(10, 0), (11, 4)])), (0x80, 0));
    for (error, read, write) in [(DiskError::Io, 0x281, 0x280), (DiskError::NoSpace, 0x81, 0x81)] {
        r.disk.state().error = Some(error);
        assert_eq!(r.run(1, command(2, 1, &[])), (read, 0));
        assert_eq!(r.run(1, command(1, 1, &[])), (write, 0));
    }
    r.disk.state().error = Some(DiskError::Io);
    assert_eq!(r.run(1, command(0, 1, &[])), (0x280, 0), "a flush that failed is told");
    r.disk.state().disk.read_only = true;
    assert_eq!(r.run(1, command(1, 1, &[])), (0x182, 0));
}

#[test]
fn a_full_completion_queue_holds_commands_up() {
    let mut r = Rig::with_queues(64);
    for turn in 0..5 {
        let cids: Vec<u16> = (0..15).map(|_| r.put(1, command(2, 1, &[]))).collect();
        r.ring(1);
        // Six more, before any completion was taken.
        let more: Vec<u16> = (0..6).map(|_| r.put(1, command(2, 1, &[]))).collect();
        r.ring(1);
        assert!(r.nvme.intx(), "{turn}");
        for cid in cids.into_iter().chain(more) {
            assert_eq!(r.take(1), Some((cid, 0, 0)));
        }
        assert_eq!((r.take(1), r.nvme.intx()), (None, false));
    }
}

#[test]
fn interrupts_are_a_pin_or_messages() {
    let mut r = Rig::with_queues(64);
    r.put(1, command(0, 1, &[]));
    r.ring(1);
    assert!(r.nvme.intx());
    r.set(0x0c, 4, 1);
    assert_eq!((r.nvme.intx(), r.get(0x10, 4)), (false, 1));
    r.set(0x10, 4, 1);
    assert!(r.nvme.intx());
    assert!(r.take(1).is_some() && !r.nvme.intx());
    assert_eq!(r.nvme.config.take_messages(), []);
    // MSI-X, and a completion queue with vector 3.
    r.nvme.config.config_write(0x43, 1, 0x80);
    r.set(0x2030, 8, 0xfee0_0000);
    r.set(0x2038, 8, 0x55);
    assert_eq!(r.get(0x2030, 8), 0xfee0_0000);
    let size = 15 << 16 | 2;
    let create = command(5, 0, &[(6, 0x6000), (10, size), (11, 3 << 16 | 3)]);
    assert_eq!(r.admin(create), (0, 0));
    let create = command(1, 0, &[(6, 0x7000), (10, size), (11, 2 << 16 | 1)]);
    assert_eq!(r.admin(create), (0, 0));
    r.set(0x1010, 4, 1);
    let message = Message { address: 0xfee0_0000, data: 0x55 };
    assert_eq!(r.nvme.config.take_messages(), [message]);
    assert_eq!(r.get(0x3000, 8), 1, "the admin queue's vector is masked");
}

#[test]
fn what_the_host_is_at_outlives_no_reset() {
    let mut r = Rig::with_queues(64);
    r.disk.state().held = true;
    let read = r.put(1, command(2, 1, &[]));
    r.ring(1);
    assert_eq!(r.take(1), None);
    // Deleting the queue waits for its command.
    let delete = r.put(0, command(0, 0, &[(10, 1)]));
    r.ring(0);
    assert_eq!(r.take(0), None);
    r.disk.state().held = false;
    r.advance();
    assert_eq!((r.take(1), r.take(0)), (Some((read, 0, 0)), Some((delete, 0, 0))));
    let mut r = Rig::with_queues(64);
    r.disk.state().held = true;
    for _ in 0..100 {
        for _ in 0..15 {
            r.put(1, command(1, 1, &[]));
        }
        r.ring(1);
        r.set(0x14, 4, 0);
        assert_eq!(r.get(0x1c, 4), 1, "not yet reset");
        r.set(0x14, 4, 0x46_0001);
    }
    assert_eq!(r.disk.state().most, 15);
    r.set(0x14, 4, 0);
    r.disk.state().held = false;
    assert_eq!(r.get(0x1c, 4), 0);
    r.enable();
    assert_eq!(r.admin(command(6, 0, &[(10, 1)])), (0, 0));
}

#[test]
fn doorbells_of_nothing_are_told_as_events() {
    let mut r = Rig::new(64);
    let cids: Vec<u16> = (0..5).map(|_| r.put(0, command(0x0c, 0, &[]))).collect();
    r.ring(0);
    assert_eq!(r.take(0), Some((cids[4], 0x4105, 0)), "four may wait");
    r.set(0x1008, 4, 1);
    r.set(0x1000, 4, 999);
    assert_eq!(r.take(0), Some((cids[0], 0, 0x01_0000)));
    assert_eq!(r.take(0), None, "the log was not read");
    assert_eq!(r.admin(command(2, 0, &[(10, 15 << 16 | 1)])), (0, 0));
    assert_eq!(r.take(0), Some((cids[1], 0, 0x01_0100)));
}

#[test]
fn random_accesses() {
    let (mut r, mut rng) = (Rig::with_queues(64), Rng(13));
    for n in 0..150_000u64 {
        let value = rng.next();
        match rng.below(12) {
            0 => r.set(0x1000 + 4 * rng.below(8), 4, value % 18),
            1 if value & 31 == 0 => r.set(rng.below(0x40) & !3, 4, value),
            2 if value & 63 == 0 => r.set(0x14, 4, 0x46_0000 | value >> 8 & 1),
            2..8 => {
                let mut c = [0; 16];
                c.iter_mut().for_each(|d| *d = rng.next() as u32);
                c[0] = (value % 14) as u32;
                (c[1], c[7], c[9], c[11]) = (1, 0, 0, c[11] & 0x1_0007);
                (c[10], c[12]) = (c[10] & 0x7_001f, c[12] & 0xf);
                c[6] &= 0x3f_fffc;
                c[8] &= 0x3f_fff8;
                // Its own queues are spared now and then.
                let q = (value >> 8 & 1) as usize;
                if c[0] < 6 && q == 0 && value & 0xf000 != 0 {
                    c[0] = 6;
                }
                r.put(q, c);
                r.ring(q);
            }
            8 => drop(r.get(rng.below(0x4000 - 8), [1, 2, 4, 8][rng.below(4) as usize])),
            9 => r.set(rng.below(0x4000 - 8), [1, 2, 4, 8][rng.below(4) as usize], value),
            10 => r.advance(),
            _ => {
                let q = (value & 1) as usize;
                r.heads[q] = r.heads[q].wrapping_add(1) % 4096;
                r.set(0x1004 + 8 * q as u64, 4, (r.heads[q] % ENTRIES_HERE).into());
            }
        }
        r.nvme.config.take_messages();
        assert!(r.nvme.deadline().is_none_or(|d| d == 0));
        let mut d = r.disk.state();
        assert!(d.most <= IN_FLIGHT);
        match n % 512 {
            0 => d.held = !d.held,
            1 => d.error = (n & 1024 == 0).then_some(DiskError::Io),
            _ => {}
        }
        drop(d);
        // A controller that is lost starts anew.
        if n % 1024 == 0 {
            r.disk.state().held = false;
            r.disk.state().error = None;
            r.set(0x14, 4, 0);
            r.get(0x1c, 4);
            r.enable();
            r.create_queues();
        }
    }
}
