//! A raw image: the disk's bytes are the file's, or the block device's.
//!
//! A file whose length is no number of sectors reads as zeros up to the next one, and grows when
//! that is written. Where no format was given and none was recognised, the guest may not write
//! what another process would take for a qcow2 header: else it could name any file of the host as
//! its backing file and read it the next time.

use crate::disk::{Layer, write_zeros};
use crate::header::MAGIC;
use crate::lock::Lock;
use devices::disk::SECTOR;
use nix::fcntl::{FallocateFlags, fallocate};
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

/// A raw image.
#[derive(Debug)]
pub struct Raw {
    file: File,
    len: u64,
    read_only: bool,
    probed: bool,
    /// The host has lost writes: no later flush can be answered with success.
    lost: bool,
    /// Given up when the file is closed.
    _locks: Vec<Lock>,
}

impl Raw {
    /// An image in `file`, which is open for reading, and for writing unless it is `read_only`.
    /// It was `probed` when nobody said that it is raw.
    ///
    /// # Errors
    /// The length cannot be found.
    pub(crate) fn new(
        mut file: File,
        read_only: bool,
        probed: bool,
        locks: Vec<Lock>,
    ) -> io::Result<Raw> {
        // Block devices have no length in their metadata.
        let len = file.seek(SeekFrom::End(0))?.next_multiple_of(SECTOR);
        Ok(Raw { file, len, read_only, probed, lost: false, _locks: locks })
    }

    /// Has the host make `[offset, offset + len)` zero in this way; false when it cannot.
    fn allocate(&self, how: FallocateFlags, offset: u64, len: u64) -> io::Result<bool> {
        let part = |n: u64| i64::try_from(n).map_err(|_| io::ErrorKind::FileTooLarge);
        match fallocate(&self.file, how, part(offset)?, part(len)?) {
            Ok(()) => Ok(true),
            Err(e)
                if [nix::Error::EOPNOTSUPP, nix::Error::ENODEV, nix::Error::EINVAL]
                    .contains(&e) =>
            {
                Ok(false)
            }
            Err(e) => Err(e.into()),
        }
    }
}

impl Layer for Raw {
    fn len(&self) -> u64 {
        self.len
    }

    fn is_read_only(&self) -> bool {
        self.read_only
    }

    fn read(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let mut at = 0;
        while at < buf.len() {
            match self.file.read_at(&mut buf[at..], offset + at as u64) {
                Ok(0) => {
                    buf[at..].fill(0);
                    break;
                }
                Ok(n) => at += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        if self.probed && offset == 0 && data.starts_with(&MAGIC) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.file.write_all_at(data, offset)
    }

    fn zero(&mut self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        let keep = FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let (punch, zero) =
            (FallocateFlags::FALLOC_FL_PUNCH_HOLE | keep, FallocateFlags::FALLOC_FL_ZERO_RANGE);
        if unmap && self.allocate(punch, offset, len)? || self.allocate(zero, offset, len)? {
            return Ok(());
        }
        write_zeros(self, offset, len)
    }

    fn discard(&mut self, offset: u64, len: u64) -> io::Result<()> {
        let how = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        self.allocate(how, offset, len).map(drop)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.lost {
            return Err(io::ErrorKind::Other.into());
        }
        self.file.sync_data().inspect_err(|_| self.lost = true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn the_last_sector_is_filled_with_zeros() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 700]).unwrap();
        let mut raw = Raw::new(file, false, false, vec![]).unwrap();
        let mut buf = [1; 1024];
        raw.read(0, &mut buf).unwrap();
        assert_eq!((raw.len(), buf[699], &buf[700..]), (1024, 7, &[0; 324][..]));
        raw.write(512, &[8; 512]).unwrap();
        raw.flush().unwrap();
        raw.read(512, &mut buf[..512]).unwrap();
        assert_eq!((raw.file.metadata().unwrap().len(), &buf[..512]), (1024, &[8; 512][..]));
    }

    #[test]
    fn a_probed_image_takes_no_qcow2_header() {
        let mut raw = Raw::new(tempfile::tempfile().unwrap(), false, true, vec![]).unwrap();
        let sector = [&MAGIC[..], &[0; 508]].concat();
        let error = raw.write(0, &sector).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        raw.write(512, &sector).unwrap();
        raw.probed = false;
        raw.write(0, &sector).unwrap();
    }

    #[test]
    fn a_full_host_disk_is_told() {
        let file = File::options().read(true).write(true).open("/dev/full").unwrap();
        let mut raw =
            Raw { file, len: 4096, read_only: false, probed: false, lost: false, _locks: vec![] };
        let error = raw.write(0, &[1; 512]).unwrap_err();
        assert_eq!(crate::disk::error(&error), devices::disk::DiskError::NoSpace);
        // It is no file that the host could allocate in either.
        let error = raw.zero(0, 512, true).unwrap_err();
        assert_eq!(crate::disk::error(&error), devices::disk::DiskError::NoSpace);
    }
}
