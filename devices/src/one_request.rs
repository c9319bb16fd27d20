//! A disk with one request in flight at most: what IDE drives and floppy drives are.
//!
//! A controller that is reset forgets its request, but the host may still be at it. The next one
//! waits for it then: a guest that resets in a loop fills no queue, and no forgotten write comes
//! after one that was asked for later.

use crate::disk::{Disk, DiskError, Request};

/// A disk and the one request that is in flight.
pub(crate) struct OneRequest {
    pub(crate) disk: Box<dyn Disk>,
    number: u64,
    in_flight: bool,
    forgotten: bool,
    waiting: Option<Request>,
}

impl OneRequest {
    pub(crate) fn new(disk: Box<dyn Disk>) -> OneRequest {
        OneRequest { disk, number: 0, in_flight: false, forgotten: false, waiting: None }
    }

    /// Starts a request. The one before must be finished or forgotten.
    pub(crate) fn submit(&mut self, request: Request) {
        if self.in_flight {
            self.waiting = Some(request);
        } else {
            self.number += 1;
            self.in_flight = true;
            self.disk.submit(self.number, request);
        }
    }

    /// Nobody waits for the request any more.
    pub(crate) fn forget(&mut self) {
        self.waiting = None;
        self.forgotten = self.in_flight;
    }

    /// Takes the result of the request, if it is finished.
    pub(crate) fn finished(&mut self) -> Option<Result<Vec<u8>, DiskError>> {
        while self.in_flight {
            let (number, result) = self.disk.finished()?;
            if number != self.number {
                continue;
            }
            self.in_flight = false;
            if !std::mem::take(&mut self.forgotten) {
                return Some(result);
            }
            if let Some(next) = self.waiting.take() {
                self.submit(next);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::MemoryDisk;

    #[test]
    fn what_is_forgotten_is_waited_for_and_not_told() {
        let mut d = OneRequest::new(Box::new(MemoryDisk::new(vec![1; 1024])));
        let write = |byte| Request::Write { offset: 0, data: vec![byte; 512] };
        d.submit(write(2));
        d.forget();
        d.submit(write(3));
        d.forget();
        d.submit(Request::Read { offset: 0, len: 512 });
        assert_eq!((d.finished(), d.finished()), (Some(Ok(vec![2; 512])), None));
    }
}
