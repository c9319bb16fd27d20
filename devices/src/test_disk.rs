//! A disk for the tests of controllers: a test keeps a hand on what the controller owns, holds
//! requests back, lets them fail, and changes the medium.

use crate::disk::{Disk, DiskError, Finished, MemoryDisk, Request};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

#[derive(Default)]
pub(crate) struct State {
    pub(crate) disk: MemoryDisk,
    /// Nothing is finished while this is set.
    pub(crate) held: bool,
    /// What requests fail with.
    pub(crate) error: Option<DiskError>,
    pub(crate) generation: u64,
    pub(crate) ejected: u64,
    waiting: VecDeque<(u64, Request)>,
    /// Most requests that ever waited.
    pub(crate) most: usize,
}

#[derive(Clone, Default)]
pub(crate) struct TestDisk(Arc<Mutex<State>>);

impl TestDisk {
    pub(crate) fn new(bytes: Vec<u8>) -> TestDisk {
        let disk = MemoryDisk::new(bytes);
        TestDisk(Arc::new(Mutex::new(State { disk, ..State::default() })))
    }

    /// A disk whose 16-bit words count up.
    pub(crate) fn counting(sectors: usize) -> TestDisk {
        TestDisk::new((0..sectors as u32 * 256).flat_map(|n| (n as u16).to_le_bytes()).collect())
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub(crate) fn boxed(&self) -> Box<dyn Disk> {
        Box::new(self.clone())
    }
}

impl Disk for TestDisk {
    fn len(&self) -> u64 {
        self.state().disk.len()
    }

    fn is_read_only(&self) -> bool {
        self.state().disk.read_only
    }

    fn generation(&self) -> u64 {
        self.state().generation
    }

    fn eject(&mut self) {
        self.state().ejected += 1;
    }

    fn submit(&mut self, number: u64, request: Request) {
        let mut s = self.state();
        s.waiting.push_back((number, request));
        s.most = s.most.max(s.waiting.len());
    }

    fn finished(&mut self) -> Option<Finished> {
        let mut s = self.state();
        if s.held {
            return None;
        }
        let (number, request) = s.waiting.pop_front()?;
        if let Some(error) = s.error {
            return Some((number, Err(error)));
        }
        s.disk.submit(number, request);
        s.disk.finished()
    }
}
