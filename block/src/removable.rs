//! A drive whose medium can be taken out and changed while the machine runs.
//!
//! The controller has the drive, the monitor has its [`Slot`]; both may open it. Requests that are
//! on their way when the medium goes fail with [`DiskError::NoMedium`]; what was written before is
//! finished and flushed when the old disk is dropped. Each change counts in
//! [`Disk::generation`].

use devices::disk::{Disk, DiskError, Finished, Request};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Default)]
struct State {
    disk: Option<Box<dyn Disk>>,
    generation: u64,
    /// Numbers of the requests that the disk has.
    waiting: Vec<u64>,
    failed: VecDeque<Finished>,
}

/// The monitor's hand on a [`Removable`].
#[derive(Clone, Default)]
pub struct Slot(Arc<Mutex<State>>);

impl Slot {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a medium in, in place of the one that is there, or takes it out (`None`).
    pub fn change(&self, disk: Option<Box<dyn Disk>>) {
        let old = {
            let mut s = self.lock();
            if s.disk.is_none() && disk.is_none() {
                return;
            }
            s.generation += 1;
            let waiting = std::mem::take(&mut s.waiting);
            s.failed.extend(waiting.into_iter().map(|n| (n, Err(DiskError::NoMedium))));
            std::mem::replace(&mut s.disk, disk)
        };
        // It may take a while to finish its work.
        drop(old);
    }

    /// Whether there is a medium.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        self.lock().disk.is_some()
    }
}

/// A drive with or without a medium.
pub struct Removable(Slot);

impl Removable {
    /// A drive with this medium, and the hand that changes it.
    #[must_use]
    pub fn new(disk: Option<Box<dyn Disk>>) -> (Removable, Slot) {
        let slot = Slot::default();
        slot.lock().disk = disk;
        (Removable(slot.clone()), slot)
    }
}

impl Disk for Removable {
    fn len(&self) -> u64 {
        self.0.lock().disk.as_ref().map_or(0, |d| d.len())
    }

    fn is_read_only(&self) -> bool {
        self.0.lock().disk.as_ref().is_some_and(|d| d.is_read_only())
    }

    fn generation(&self) -> u64 {
        self.0.lock().generation
    }

    fn eject(&mut self) {
        self.0.change(None);
    }

    fn submit(&mut self, number: u64, request: Request) {
        let s = &mut *self.0.lock();
        match &mut s.disk {
            Some(disk) => {
                s.waiting.push(number);
                disk.submit(number, request);
            }
            None => s.failed.push_back((number, Err(DiskError::NoMedium))),
        }
    }

    fn finished(&mut self) -> Option<Finished> {
        let s = &mut *self.0.lock();
        if let Some(failed) = s.failed.pop_front() {
            return Some(failed);
        }
        let done = s.disk.as_mut()?.finished()?;
        if let Some(at) = s.waiting.iter().position(|&n| n == done.0) {
            s.waiting.swap_remove(at);
        }
        Some(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use devices::disk::MemoryDisk;

    #[test]
    fn a_medium_comes_and_goes() {
        let medium = |byte| Some(Box::new(MemoryDisk::new(vec![byte; 512])) as Box<dyn Disk>);
        let read = Request::Read { offset: 0, len: 512 };
        let (mut drive, slot) = Removable::new(None);
        assert_eq!((drive.len(), drive.generation(), slot.is_loaded()), (0, 0, false));
        drive.submit(1, read.clone());
        assert_eq!(drive.finished(), Some((1, Err(DiskError::NoMedium))));
        slot.change(medium(3));
        assert_eq!((drive.len(), drive.generation()), (512, 1));
        drive.submit(2, read.clone());
        assert_eq!((drive.finished(), drive.finished()), (Some((2, Ok(vec![3; 512]))), None));
        // One that is on its way, and one after it.
        drive.submit(3, read.clone());
        slot.change(medium(4));
        drive.submit(4, read);
        assert_eq!(drive.finished(), Some((3, Err(DiskError::NoMedium))));
        assert_eq!((drive.finished(), drive.finished()), (Some((4, Ok(vec![4; 512]))), None));
        drive.eject();
        assert_eq!((drive.generation(), slot.is_loaded(), drive.is_empty()), (3, false, true));
        slot.change(None);
        assert_eq!(drive.generation(), 3);
    }
}
