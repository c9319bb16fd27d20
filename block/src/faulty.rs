//! A disk that fails when it is told to: to test what a controller, a guest and [`ImageDisk`] do
//! about it, and that what was flushed is still there when the power goes.
//!
//! It is a layer with a volatile cache over a platter. Writes go to the cache, a flush moves them
//! to the platter; a power cut loses what is in the cache, or any part of it, as disks do.
//!
//! [`ImageDisk`]: crate::ImageDisk

use crate::disk::Layer;
use devices::disk::SECTOR;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What goes wrong, and what has happened so far.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// The write with this number, from 0, fails with this error.
    pub write: Option<(u64, io::ErrorKind)>,
    /// The read with this number fails.
    pub read: Option<(u64, io::ErrorKind)>,
    /// The flush with this number fails.
    pub flush: Option<(u64, io::ErrorKind)>,
    /// The write with this number panics.
    pub panic: Option<u64>,
    /// Each request takes so long.
    pub delay: Duration,
    /// Writes so far; zeroing and discarding are writes too.
    pub writes: u64,
    /// Reads so far.
    pub reads: u64,
    /// Flushes so far.
    pub flushes: u64,
}

#[derive(Debug, Default)]
struct State {
    faults: Faults,
    platter: Vec<u8>,
    cache: BTreeMap<u64, Vec<u8>>,
}

/// The test's end of a [`FaultyDisk`].
#[derive(Clone, Debug, Default)]
pub struct Handle(Arc<Mutex<State>>);

impl Handle {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what goes wrong.
    pub fn set(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.lock().faults);
    }

    /// What goes wrong, and what has happened.
    #[must_use]
    pub fn faults(&self) -> Faults {
        self.lock().faults.clone()
    }

    /// What would be there if the power went now, and nothing of the cache survived.
    #[must_use]
    pub fn platter(&self) -> Vec<u8> {
        self.lock().platter.clone()
    }

    /// The power goes: of the sectors in the cache only those survive for which `survives` says so.
    pub fn power_cut(&self, mut survives: impl FnMut(u64) -> bool) {
        let mut state = self.lock();
        let cache = std::mem::take(&mut state.cache);
        cache.into_iter().filter(|(n, _)| survives(*n)).for_each(|s| state.settle(s));
    }
}

impl State {
    fn settle(&mut self, (sector, data): (u64, Vec<u8>)) {
        let at = (sector * SECTOR) as usize;
        self.platter[at..at + data.len()].copy_from_slice(&data);
    }

    fn changed(&mut self) -> io::Result<()> {
        let number = self.faults.writes;
        self.faults.writes += 1;
        assert_ne!(self.faults.panic, Some(number), "a panic that was asked for");
        fails(self.faults.write, number)
    }
}

fn fails(fault: Option<(u64, io::ErrorKind)>, number: u64) -> io::Result<()> {
    match fault {
        Some((at, kind)) if at == number => Err(kind.into()),
        _ => Ok(()),
    }
}

/// The layer.
#[derive(Debug)]
pub struct FaultyDisk(Handle);

impl FaultyDisk {
    /// A disk of `bytes` (whole sectors), and the end by which a test directs it.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> (FaultyDisk, Handle) {
        let state = State { platter: bytes, ..State::default() };
        let handle = Handle(Arc::new(Mutex::new(state)));
        (FaultyDisk(handle.clone()), handle)
    }

    fn begin(&self) -> MutexGuard<'_, State> {
        let delay = self.0.lock().faults.delay;
        std::thread::sleep(delay);
        self.0.lock()
    }
}

impl Layer for FaultyDisk {
    fn len(&self) -> u64 {
        self.0.lock().platter.len() as u64
    }

    fn is_read_only(&self) -> bool {
        false
    }

    fn read(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let mut state = self.begin();
        let number = state.faults.reads;
        state.faults.reads += 1;
        fails(state.faults.read, number)?;
        for (sector, part) in (offset / SECTOR..).zip(buf.chunks_mut(SECTOR as usize)) {
            let at = (sector * SECTOR) as usize;
            let cached = state.cache.get(&sector);
            part.copy_from_slice(cached.map_or(&state.platter[at..at + part.len()], |c| c));
        }
        Ok(())
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.begin();
        state.changed()?;
        for (sector, part) in (offset / SECTOR..).zip(data.chunks(SECTOR as usize)) {
            state.cache.insert(sector, part.to_vec());
        }
        Ok(())
    }

    fn zero(&mut self, offset: u64, len: u64, _unmap: bool) -> io::Result<()> {
        self.write(offset, &vec![0; len as usize])
    }

    fn discard(&mut self, _offset: u64, _len: u64) -> io::Result<()> {
        self.begin().changed()
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut state = self.begin();
        let number = state.faults.flushes;
        state.faults.flushes += 1;
        fails(state.faults.flush, number)?;
        let cache = std::mem::take(&mut state.cache);
        cache.into_iter().for_each(|s| state.settle(s));
        Ok(())
    }
}
