//! A drive whose medium can be changed while the machine runs.
//!
//! The controller has the [`Removable`] as its disk, the machine keeps a clone: both see one medium
//! behind a lock. A change raises the [generation](Disk::generation), which the controller
//! compares. A tray that the guest opens keeps its medium: closing it brings it back. What the
//! controller waits for when the medium goes is finished with
//! [`DiskError::NoMedium`], so that no drive stays busy for ever.

use devices::disk::{Disk, DiskError, Finished, Request};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A drive for removable media; clones are the same drive.
#[derive(Clone, Default)]
pub struct Removable(Arc<Mutex<Drive>>);

#[derive(Default)]
struct Drive {
    medium: Option<Box<dyn Disk>>,
    generation: u64,
    /// What the medium has not yet finished.
    in_flight: Vec<u64>,
    finished: VecDeque<Finished>,
}

impl Removable {
    /// A drive with a medium, or an empty one.
    #[must_use]
    pub fn new(medium: Option<Box<dyn Disk>>) -> Removable {
        Removable(Arc::new(Mutex::new(Drive { medium, ..Drive::default() })))
    }

    fn drive(&self) -> MutexGuard<'_, Drive> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts another medium in, or none.
    pub fn change(&self, medium: Option<Box<dyn Disk>>) {
        let mut drive = self.drive();
        let lost = std::mem::take(&mut drive.in_flight);
        drive.finished.extend(lost.into_iter().map(|n| (n, Err(DiskError::NoMedium))));
        drive.medium = medium;
        drive.generation += 1;
    }
}

impl Disk for Removable {
    fn len(&self) -> u64 {
        self.drive().medium.as_ref().map_or(0, |m| m.len())
    }

    fn is_read_only(&self) -> bool {
        self.drive().medium.as_ref().is_some_and(|m| m.is_read_only())
    }

    fn generation(&self) -> u64 {
        self.drive().generation
    }

    fn submit(&mut self, number: u64, request: Request) {
        let mut drive = self.drive();
        match &mut drive.medium {
            Some(medium) => {
                medium.submit(number, request);
                drive.in_flight.push(number);
            }
            None => drive.finished.push_back((number, Err(DiskError::NoMedium))),
        }
    }

    fn finished(&mut self) -> Option<Finished> {
        let mut drive = self.drive();
        if let Some(finished) = drive.finished.pop_front() {
            return Some(finished);
        }
        let finished = drive.medium.as_mut()?.finished()?;
        drive.in_flight.retain(|n| *n != finished.0);
        Some(finished)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use devices::disk::MemoryDisk;

    /// A disk that never finishes anything.
    struct Stuck;

    impl Disk for Stuck {
        fn len(&self) -> u64 {
            512
        }
        fn is_read_only(&self) -> bool {
            true
        }
        fn submit(&mut self, _: u64, _: Request) {}
        fn finished(&mut self) -> Option<Finished> {
            None
        }
    }

    const READ: Request = Request::Read { offset: 0, len: 512 };

    #[test]
    fn another_medium_is_another_generation() {
        let host = Removable::default();
        let mut drive = host.clone();
        assert_eq!((drive.len(), drive.generation(), drive.is_read_only()), (0, 0, false));
        drive.submit(1, READ);
        assert_eq!(drive.finished(), Some((1, Err(DiskError::NoMedium))));
        host.change(Some(Box::new(MemoryDisk::new(vec![7; 512]))));
        assert_eq!((drive.len(), drive.generation()), (512, 1));
        drive.submit(2, READ);
        assert_eq!((drive.finished(), drive.finished()), (Some((2, Ok(vec![7; 512]))), None));
        host.change(None);
        assert_eq!((drive.len(), drive.generation()), (0, 2));
    }

    #[test]
    fn nobody_waits_for_a_medium_that_is_gone() {
        let host = Removable::new(Some(Box::new(Stuck)));
        let mut drive = host.clone();
        drive.submit(5, READ);
        assert_eq!(drive.finished(), None);
        host.change(Some(Box::new(MemoryDisk::new(vec![1; 512]))));
        assert_eq!(drive.finished(), Some((5, Err(DiskError::NoMedium))));
        drive.submit(6, READ);
        assert_eq!(drive.finished(), Some((6, Ok(vec![1; 512]))));
    }
}
