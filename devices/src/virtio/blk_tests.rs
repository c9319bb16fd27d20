//! Requests of a driver to the block device, in the order in which its disk finishes them.

use super::*;
use crate::disk::{Finished, MemoryDisk};
use crate::pci::PciDevice;
use crate::virtio::driver::{BUFFERS, Driver, EVENTS, FORMS, INDIRECT, PACKED};
use std::sync::{Arc, Mutex};

const ALL: u64 = F_FLUSH | F_CONFIG_WCE | F_DISCARD | F_WRITE_ZEROES;

/// What is on the disk, and the requests that wait.
type Waiting = (MemoryDisk, Vec<(u64, Request)>);

/// A disk that the test finishes requests of.
#[derive(Clone, Default)]
struct Slow(Arc<Mutex<Waiting>>);

impl Slow {
    fn new() -> Slow {
        Slow(Arc::new(Mutex::new((MemoryDisk::new(vec![0; 1 << 16]), vec![]))))
    }

    /// Does the request at this place of those that wait, and says what it was.
    fn does(&self, place: usize) -> Request {
        let (disk, waiting) = &mut *self.0.lock().unwrap();
        let (number, request) = waiting.remove(place);
        disk.submit(number, request.clone());
        request
    }

    fn waiting(&self) -> usize {
        self.0.lock().unwrap().1.len()
    }
}

impl Disk for Slow {
    fn len(&self) -> u64 {
        self.0.lock().unwrap().0.len()
    }

    fn is_read_only(&self) -> bool {
        false
    }

    fn submit(&mut self, number: u64, request: Request) {
        self.0.lock().unwrap().1.push((number, request));
    }

    fn finished(&mut self) -> Option<Finished> {
        self.0.lock().unwrap().0.finished()
    }
}

fn memory_disk() -> Blk {
    Blk::new(Box::new(MemoryDisk::new((0..=255).cycle().take(1 << 16).collect())), "a disk")
}

fn header(d: &mut Driver<Blk>, kind: u32, sector: u64) -> u64 {
    d.buffer(&[&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat())
}

/// One request with data for the disk, and room for so many bytes: status, length, bytes.
fn call(d: &mut Driver<Blk>, kind: u32, sector: u64, out: &[u8], room: u32) -> (u8, u32, Vec<u8>) {
    let (head, data) = (header(d, kind, sector), d.buffer(out));
    let (space, status) = (d.buffer(&vec![0xee; room as usize]), d.buffer(&[0xee]));
    let mut parts = vec![(head, 16, false)];
    if !out.is_empty() {
        parts.push((data, out.len() as u32, false));
    }
    if room != 0 {
        parts.push((space, room, true));
    }
    parts.push((status, 1, true));
    let len = d.call(0, &parts);
    (d.bytes(status, 1)[0], len, d.bytes(space, room as usize))
}

#[test]
fn sectors_are_read_and_written_in_all_forms() {
    for form in FORMS {
        let mut d = Driver::new(memory_disk(), form | ALL);
        for n in 0..30 {
            let data: Vec<u8> = (0..1024).map(|b| (b / 3 + n) as u8).collect();
            assert_eq!(call(&mut d, OUT, n, &data, 0), (OK, 1, vec![]));
            assert_eq!(call(&mut d, FLUSH, 0, &[], 0), (OK, 1, vec![]));
            assert_eq!(call(&mut d, IN, n, &[], 1024), (OK, 1025, data));
        }
        let (status, len, id) = call(&mut d, GET_ID, 0, &[], 20);
        assert_eq!((status, len, &id[..7]), (OK, 21, &b"a disk\0"[..]));
    }
}

#[test]
fn the_header_may_lie_anywhere() {
    let mut d = Driver::new(memory_disk(), INDIRECT | ALL);
    let (head, at) = (header(&mut d, IN, 2), d.buffer(&[0; 600]));
    let parts = [(head, 3, false), (head + 3, 13, false), (at, 500, true), (at + 500, 13, true)];
    assert_eq!(d.call(0, &parts), 513);
    assert_eq!((d.bytes(at, 3), d.bytes(at + 512, 1)), (vec![0, 1, 2], vec![OK]));
}

#[test]
fn what_the_disk_refuses_is_told() {
    let mut d = Driver::new(memory_disk(), INDIRECT | ALL);
    let segment = |sector: u64, sectors: u32, flags: u32| {
        [&sector.to_le_bytes()[..], &sectors.to_le_bytes(), &flags.to_le_bytes()].concat()
    };
    let rows = [
        (IN, 127, vec![], 1024, IOERR),
        (IN, 0, vec![], 511, IOERR),
        (IN, u64::MAX, vec![], 512, IOERR),
        (IN, 1 << 60, vec![], 512, IOERR),
        (IN, 0, vec![], 0, OK),
        (OUT, 128, vec![0; 512], 0, IOERR),
        (OUT, 0, vec![0; 100], 0, IOERR),
        (2, 0, vec![], 0, UNSUPP),
        (DISCARD, 0, segment(0, 4, 0), 0, OK),
        (DISCARD, 0, segment(0, 4, 1), 0, UNSUPP),
        (DISCARD, 0, segment(126, 3, 0), 0, IOERR),
        (DISCARD, 0, segment(u64::MAX, 3, 0), 0, IOERR),
        (DISCARD, 0, segment(0, u32::MAX, 0), 0, IOERR),
        (DISCARD, 0, vec![0; 15], 0, IOERR),
        (DISCARD, 0, vec![], 0, IOERR),
        (WRITE_ZEROES, 0, segment(0, 4, 1), 0, OK),
        (WRITE_ZEROES, 0, segment(0, 4, 2), 0, UNSUPP),
        (WRITE_ZEROES, 0, segment(0, 1, 0).repeat(17), 0, IOERR),
        (WRITE_ZEROES, 0, segment(0, 1, 0).repeat(16), 0, OK),
    ];
    for (kind, sector, out, room, want) in rows {
        let got = call(&mut d, kind, sector, &out, room).0;
        assert_eq!(got, want, "{kind} {sector:#x} {} {room}", out.len());
    }
    assert!(!d.needs_reset());
}

#[test]
fn ranges_become_zero() {
    let mut d = Driver::new(memory_disk(), ALL);
    let two = [2_u64.to_le_bytes(), 1_u64.to_le_bytes(), 5_u64.to_le_bytes(), 2_u64.to_le_bytes()];
    assert_eq!(call(&mut d, WRITE_ZEROES, 0, &two.concat(), 0).0, OK);
    let bytes = call(&mut d, IN, 0, &[], 8 * 512).2;
    let zero: Vec<bool> = bytes.chunks(512).map(|s| s.iter().all(|&b| b == 0)).collect();
    assert_eq!(zero, [false, false, true, false, false, true, true, false]);
}

#[test]
fn a_chain_without_a_status_or_a_header_is_a_fault() {
    let mut d = Driver::new(memory_disk(), ALL);
    let head = header(&mut d, IN, 0);
    assert_eq!(d.call(0, &[(head, 12, false), (head, 1, true)]), 1);
    assert_eq!(d.bytes(head, 1), [IOERR]);
    d.add(0, &[(head, 16, false)]);
    d.kick(0);
    assert!(d.needs_reset());
}

#[test]
fn a_read_only_disk_says_so() {
    let mut disk = MemoryDisk::new(vec![0; 4096]);
    disk.read_only = true;
    let mut d = Driver::new(Blk::new(Box::new(disk), ""), 0);
    d.set(0, 4, 0);
    let features = d.get(4, 4);
    assert_eq!(features & (F_RO | ALL), F_RO);
    assert_eq!(call(&mut d, OUT, 0, &[0; 512], 0).0, IOERR);
    assert_eq!(call(&mut d, WRITE_ZEROES, 0, &[0; 16], 0).0, IOERR);
    assert_eq!(call(&mut d, IN, 0, &[], 512).0, OK);
}

#[test]
fn requests_finish_in_any_order() {
    for form in [0, EVENTS | INDIRECT, PACKED, PACKED | EVENTS | INDIRECT] {
        let disk = Slow::new();
        let mut d = Driver::new(Blk::new(Box::new(disk.clone()), ""), form | ALL);
        let mut ids = vec![];
        for sector in 0..2 {
            let (head, at) = (header(&mut d, OUT, sector), d.buffer(&[sector as u8 + 1; 513]));
            ids.push(d.add(0, &[(head, 16, false), (at, 512, false), (at + 512, 1, true)]));
        }
        d.kick(0);
        assert_eq!((disk.waiting(), d.used(0), d.pci.intx()), (2, None, false));
        disk.does(1);
        d.advance();
        assert_eq!((d.used(0), d.used(0), d.pci.intx()), (Some((ids[1], 1)), None, true));
        disk.does(0);
        d.advance();
        assert_eq!(d.used(0), Some((ids[0], 1)));
    }
}

#[test]
fn a_write_is_flushed_when_the_driver_cannot() {
    // Without the feature, with it, and with it but set to write through.
    for (features, writeback, flushes) in
        [(0, true, true), (F_FLUSH, true, false), (F_FLUSH | F_CONFIG_WCE, false, true)]
    {
        let disk = Slow::new();
        let mut d = Driver::new(Blk::new(Box::new(disk.clone()), ""), features);
        assert_eq!(d.get(0x2020, 1), u64::from(features != 0));
        if !writeback {
            d.set(0x2020, 1, 0);
            assert_eq!(d.get(0x2020, 1), 0);
        }
        let (head, at) = (header(&mut d, OUT, 0), d.buffer(&[1; 513]));
        let id = d.add(0, &[(head, 16, false), (at, 512, false), (at + 512, 1, true)]);
        d.kick(0);
        disk.does(0);
        d.advance();
        if flushes {
            assert_eq!(d.used(0), None, "it is not finished before it is flushed");
            assert_eq!(disk.does(0), Request::Flush);
            d.advance();
        }
        assert_eq!((d.used(0), disk.waiting()), (Some((id, 1)), 0));
    }
}

#[test]
fn what_was_on_its_way_before_a_reset_is_nobodys() {
    let disk = Slow::new();
    let mut d = Driver::new(Blk::new(Box::new(disk.clone()), ""), ALL);
    let (head, at) = (header(&mut d, IN, 0), d.buffer(&[7; 513]));
    let parts = [(head, 16, false), (at, 512, true), (at + 512, 1, true)];
    d.add(0, &parts);
    d.kick(0);
    d.bring_up(ALL, 8);
    let id = d.add(0, &parts);
    d.kick(0);
    assert_eq!(disk.waiting(), 2);
    disk.does(0);
    d.advance();
    assert_eq!((d.used(0), d.bytes(at, 513)), (None, vec![7; 513]));
    disk.does(0);
    d.advance();
    assert_eq!(d.used(0), Some((id, 513)));
}

#[test]
fn only_so_much_is_on_its_way() {
    let disk = Slow::new();
    let mut d = Driver::raw(Blk::new(Box::new(disk.clone()), ""));
    d.bring_up(INDIRECT | ALL, 256);
    let (head, at) = (header(&mut d, FLUSH, 0), d.buffer(&[7]));
    for _ in 0..200 {
        d.add(0, &[(head, 16, false), (at, 1, true)]);
    }
    d.kick(0);
    assert_eq!(disk.waiting(), IN_FLIGHT);
    let mut used = 0;
    while disk.waiting() != 0 {
        disk.does(0);
        d.advance();
        used += std::iter::from_fn(|| d.used(0)).count();
    }
    assert_eq!(used, 200);
}

#[test]
fn the_configuration_describes_the_disk() {
    let mut d = Driver::new(memory_disk(), ALL);
    let rows = [
        (0, 8, 128),
        (8, 4, 65536),
        (12, 4, 254),
        (16, 2, 0),
        (18, 1, 16),
        (19, 1, 63),
        (20, 4, 512),
        (26, 2, 1),
        (34, 2, 1),
        (36, 4, 1 << 22),
        (40, 4, 16),
        (44, 4, 1),
        (48, 4, 1 << 22),
        (52, 4, 16),
        (56, 1, 1),
        (60, 4, 0),
    ];
    rows.iter().for_each(|&(at, size, want)| assert_eq!(d.get(0x2000 + at, size), want, "{at}"));
}

#[test]
fn a_request_of_parts_fails_with_any_of_them() {
    for bad in 0..2 {
        let disk = Slow::new();
        let mut d = Driver::new(Blk::new(Box::new(disk.clone()), ""), ALL);
        let (head, at) = (header(&mut d, WRITE_ZEROES, 0), d.buffer(&[0; 33]));
        d.memory.write(at + 8, &[1]);
        d.memory.write(at + 24, &[1]);
        let id = d.add(0, &[(head, 16, false), (at, 32, false), (at + 32, 1, true)]);
        d.kick(0);
        for part in 0..2 {
            assert_eq!(d.used(0), None);
            disk.0.lock().unwrap().0.read_only = part == bad;
            disk.does(0);
            d.advance();
        }
        assert_eq!((d.used(0), d.bytes(at + 32, 1)), (Some((id, 1)), vec![IOERR]));
    }
}

#[test]
fn large_requests_go_on_and_on() {
    const LEN: u32 = 4 << 20;
    let disk = MemoryDisk::new(vec![0x77; LEN as usize]);
    let mut d = Driver::new(Blk::new(Box::new(disk), ""), ALL);
    for _ in 0..40 {
        let head = header(&mut d, IN, 0);
        let (at, status) = (BUFFERS + (2 << 20), BUFFERS + (7 << 20) - 1);
        assert_eq!(d.call(0, &[(head, 16, false), (at, LEN, true), (status, 1, true)]), LEN + 1);
    }
    let head = header(&mut d, OUT, 0);
    let whole = [(head, 16, false), (BUFFERS, u32::MAX - 511, false), (head, 1, true)];
    assert_eq!((d.call(0, &whole), d.bytes(head, 1)), (1, vec![IOERR]));
}
