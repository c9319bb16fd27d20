//! What storage controllers see of a disk: requests by number, finished in any order.
//!
//! A controller submits a request and goes on; it asks for what is finished in its own `advance`
//! and at register accesses. Who does the work, on which thread and in what file is the host's
//! business ([`Disk`] is a seam between chips and host). Data goes through buffers of its own, so
//! that no other thread touches guest RAM.
//!
//! Contract: a [`Request::Flush`] is finished when all writes that were finished before it was
//! submitted are on the host's disk. Requests that overlap and are in flight together may be done
//! in any order. A controller limits what it has in flight.

use std::fmt;

/// Bytes of the smallest unit that a disk reads and writes.
pub const SECTOR: u64 = 512;

/// What is asked of a disk. Offsets and lengths are bytes, multiples of [`SECTOR`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Read `len` bytes.
    Read {
        /// Where.
        offset: u64,
        /// How many.
        len: usize,
    },
    /// Write `data`.
    Write {
        /// Where.
        offset: u64,
        /// What.
        data: Vec<u8>,
    },
    /// Make sure that what was written stays.
    Flush,
    /// The bytes are not needed any more.
    Discard {
        /// Where.
        offset: u64,
        /// How many.
        len: u64,
    },
    /// The bytes become zero.
    WriteZeroes {
        /// Where.
        offset: u64,
        /// How many.
        len: u64,
        /// Their place may be given back to the host.
        unmap: bool,
    },
}

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskError {
    /// It reaches beyond the disk's end, or is not in sectors.
    OutOfRange,
    /// The disk is read-only.
    ReadOnly,
    /// The host has no room left.
    NoSpace,
    /// The medium cannot be read or written, as the host says.
    Io,
    /// There is no medium.
    NoMedium,
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            DiskError::OutOfRange => "the request reaches beyond the end of the disk",
            DiskError::ReadOnly => "the disk is read-only",
            DiskError::NoSpace => "the host has no room left",
            DiskError::Io => "input or output error",
            DiskError::NoMedium => "there is no medium",
        })
    }
}

/// A finished request: the number it was submitted with, and the data of a read (empty for all
/// others).
pub type Finished = (u64, Result<Vec<u8>, DiskError>);

/// A disk, as a controller sees it.
pub trait Disk: Send {
    /// Its size in bytes, a multiple of [`SECTOR`]; 0 when there is no medium.
    fn len(&self) -> u64;
    /// Whether it has no medium.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Whether it refuses writes.
    fn is_read_only(&self) -> bool;
    /// How often the medium was changed: a controller with removable media compares.
    fn generation(&self) -> u64 {
        0
    }
    /// The guest opens the drive, or closes it, or locks it.
    fn eject(&mut self) {}
    /// Starts a request; `number` comes back when it is finished.
    fn submit(&mut self, number: u64, request: Request);
    /// Takes a finished request, if there is one.
    fn finished(&mut self) -> Option<Finished>;
}

/// A disk in memory that finishes what it is asked at once: for tests and for small media.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MemoryDisk {
    /// What is on it.
    pub bytes: Vec<u8>,
    /// It refuses writes.
    pub read_only: bool,
    /// How often it was flushed.
    pub flushes: u64,
    finished: std::collections::VecDeque<Finished>,
}

impl MemoryDisk {
    /// A disk of `bytes`, filled up to whole sectors.
    #[must_use]
    pub fn new(mut bytes: Vec<u8>) -> MemoryDisk {
        bytes.resize(bytes.len().next_multiple_of(SECTOR as usize), 0);
        MemoryDisk { bytes, ..MemoryDisk::default() }
    }

    fn range(&mut self, offset: u64, len: u64) -> Result<&mut [u8], DiskError> {
        if (offset | len) & (SECTOR - 1) != 0 {
            return Err(DiskError::OutOfRange);
        }
        let end = offset.checked_add(len).ok_or(DiskError::OutOfRange)?;
        self.bytes.get_mut(offset as usize..end as usize).ok_or(DiskError::OutOfRange)
    }

    fn serve(&mut self, request: Request) -> Result<Vec<u8>, DiskError> {
        if self.bytes.is_empty() {
            return Err(DiskError::NoMedium);
        }
        if self.read_only && !matches!(request, Request::Read { .. } | Request::Flush) {
            return Err(DiskError::ReadOnly);
        }
        match request {
            Request::Read { offset, len } => return Ok(self.range(offset, len as u64)?.to_vec()),
            Request::Write { offset, data } => {
                self.range(offset, data.len() as u64)?.copy_from_slice(&data);
            }
            Request::Flush => self.flushes += 1,
            Request::Discard { offset, len } | Request::WriteZeroes { offset, len, .. } => {
                self.range(offset, len)?.fill(0);
            }
        }
        Ok(Vec::new())
    }
}

impl Disk for MemoryDisk {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn is_read_only(&self) -> bool {
        self.read_only
    }

    fn submit(&mut self, number: u64, request: Request) {
        let result = self.serve(request);
        self.finished.push_back((number, result));
    }

    fn finished(&mut self) -> Option<Finished> {
        self.finished.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_in_memory_reads_what_was_written() {
        let mut d = MemoryDisk::new(vec![7; 1000]);
        assert_eq!((d.len(), d.is_read_only()), (1024, false));
        let all = [
            Request::Write { offset: 512, data: vec![9; 512] },
            Request::Read { offset: 512, len: 512 },
            Request::Read { offset: 512, len: 1024 },
            Request::Discard { offset: 0, len: 512 },
            Request::Read { offset: 0, len: 512 },
            Request::Write { offset: 1, data: vec![9; 512] },
            Request::Flush,
        ];
        all.into_iter().zip(0..).for_each(|(r, n)| d.submit(n, r));
        let wants = [
            Ok(vec![]),
            Ok(vec![9; 512]),
            Err(DiskError::OutOfRange),
            Ok(vec![]),
            Ok(vec![0; 512]),
            Err(DiskError::OutOfRange),
            Ok(vec![]),
        ];
        wants.into_iter().zip(0..).for_each(|(w, n)| assert_eq!(d.finished(), Some((n, w))));
        assert_eq!((d.finished(), d.flushes), (None, 1));
        d.read_only = true;
        d.submit(1, Request::Discard { offset: 0, len: 512 });
        assert_eq!(d.finished(), Some((1, Err(DiskError::ReadOnly))));
    }
}
