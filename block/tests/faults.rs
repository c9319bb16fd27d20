//! Disks that fail: what their controller is told, and what is there after a power cut.

mod common;

use block::faulty::{FaultyDisk, Handle};
use block::{ImageDisk, Layer};
use common::{Rng, Waited};
use devices::disk::{Disk, DiskError, Request};
use std::io::ErrorKind;
use std::time::Duration;

fn disk(through: bool, thread: bool) -> (Waited, Handle) {
    let (layer, handle) = FaultyDisk::new(vec![0; 64 * 512]);
    let layer: Box<dyn Layer> = Box::new(layer);
    (Waited::on(|wake| ImageDisk::new(layer, through, wake).unwrap(), thread), handle)
}

fn write(sector: u64, with: u8) -> Request {
    Request::Write { offset: sector * 512, data: vec![with; 512] }
}

#[test]
fn a_flush_is_finished_when_the_data_is_below() {
    for thread in [false, true] {
        let (mut d, handle) = disk(false, thread);
        handle.set(|f| f.delay = Duration::from_millis(2));
        (0..20).for_each(|n| d.disk.submit(n, write(n, 1 + n as u8)));
        d.disk.submit(20, Request::Flush);
        let order: Vec<u64> = (0..20).map(|_| d.next().0).collect();
        assert_eq!(order, (0..20).collect::<Vec<_>>());
        assert_eq!(d.next(), (20, Ok(vec![])));
        let platter = handle.platter();
        assert!((0..20).all(|n| platter[n * 512] == 1 + n as u8));
    }
}

#[test]
fn a_write_through_is_finished_when_the_data_is_below() {
    let (mut d, handle) = disk(true, true);
    for n in 0..10 {
        assert_eq!(d.serve(write(n, 7)), Ok(vec![]));
        handle.power_cut(|_| false);
        assert_eq!(handle.platter()[n as usize * 512], 7);
    }
    assert_eq!(handle.faults().flushes, 10);
    // A flush that fails fails the write.
    handle.set(|f| f.flush = Some((10, ErrorKind::Other)));
    assert_eq!(d.serve(write(0, 8)), Err(DiskError::Io));
    assert_eq!(d.serve(Request::Flush), Ok(vec![]));
}

#[test]
fn what_was_flushed_survives_power_cuts() {
    let mut rng = Rng(3);
    for _ in 0..200 {
        let (mut d, handle) = disk(false, true);
        let (mut now, mut safe) = (vec![0_u8; 64], vec![0_u8; 64]);
        let mut since: Vec<Vec<u8>> = vec![vec![]; 64];
        for _ in 0..rng.below(60) {
            if rng.below(5) == 0 {
                assert_eq!(d.serve(Request::Flush), Ok(vec![]));
                safe.clone_from(&now);
                since.iter_mut().for_each(Vec::clear);
            } else {
                let (sector, with) = (rng.below(64), rng.next() as u8);
                assert_eq!(d.serve(write(sector, with)), Ok(vec![]));
                now[sector as usize] = with;
                since[sector as usize].push(with);
            }
        }
        handle.power_cut(|_| rng.below(2) == 0);
        let platter = handle.platter();
        for n in 0..64 {
            let there = platter[n * 512];
            assert!(there == safe[n] || since[n].contains(&there), "sector {n}");
        }
    }
}

#[test]
fn errors_are_told_once_and_of_the_right_request() {
    for thread in [false, true] {
        let (mut d, handle) = disk(false, thread);
        handle.set(|f| {
            f.write = Some((1, ErrorKind::StorageFull));
            f.read = Some((0, ErrorKind::Other));
            f.flush = Some((1, ErrorKind::Other));
        });
        let read = Request::Read { offset: 0, len: 512 };
        let rows = [
            (write(0, 1), Ok(vec![])),
            (write(1, 1), Err(DiskError::NoSpace)),
            (write(1, 1), Ok(vec![])),
            (read.clone(), Err(DiskError::Io)),
            (read, Ok(vec![1; 512])),
            (Request::Flush, Ok(vec![])),
            (Request::Flush, Err(DiskError::Io)),
            (Request::Read { offset: 63 * 512, len: 1024 }, Err(DiskError::OutOfRange)),
            (Request::Read { offset: 1, len: 512 }, Err(DiskError::OutOfRange)),
            (Request::Discard { offset: u64::MAX - 511, len: 512 }, Err(DiskError::OutOfRange)),
        ];
        rows.into_iter().for_each(|(r, want)| assert_eq!(d.serve(r), want));
    }
}

#[test]
fn a_layer_that_panics_fails_its_disk_only() {
    let (mut d, handle) = disk(false, true);
    handle.set(|f| (f.panic, f.delay) = (Some(3), Duration::from_millis(5)));
    (0..8).for_each(|n| d.disk.submit(n, write(n, 1)));
    for n in 0..8 {
        assert_eq!(d.next(), (n, if n < 3 { Ok(vec![]) } else { Err(DiskError::Io) }));
    }
    assert_eq!(d.serve(Request::Flush), Err(DiskError::Io));
}

#[test]
fn more_than_the_queue_holds_waits_and_closing_finishes_all() {
    let (mut d, handle) = disk(false, true);
    handle.set(|f| f.delay = Duration::from_micros(50));
    (0..1000).for_each(|n| d.disk.submit(n, write(n % 64, n as u8)));
    drop(d);
    let (platter, faults) = (handle.platter(), handle.faults());
    assert_eq!((faults.writes, faults.flushes), (1000, 1));
    assert!((936..1000).all(|n| platter[n % 64 * 512] == n as u8));
}
