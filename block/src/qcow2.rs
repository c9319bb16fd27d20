//! A qcow2 image over its backing files, by the library imago.
//!
//! Metadata are cached: they reach the file when they are flushed. Discarding keeps what is not in
//! whole clusters. A temporary overlay (`snapshot=on`) is never synchronised: nobody will read it
//! again.

use crate::disk::{Layer, write_zeros};
use crate::lock::Lock;
use imago::FormatAccess;
use imago::file::File as Storage;
use std::io;

/// An image and what is below it.
pub(crate) type Access = FormatAccess<Storage>;

/// A qcow2 image, or anything else that imago opens.
#[derive(Debug)]
pub struct Qcow2 {
    access: Access,
    read_only: bool,
    temporary: bool,
    /// The host has lost writes: no later flush can be answered with success.
    lost: bool,
    /// Given up when the files are closed.
    _locks: Vec<Lock>,
}

impl Qcow2 {
    /// An open image; `temporary` when nobody needs it after this process.
    pub(crate) fn new(access: Access, read_only: bool, temporary: bool, locks: Vec<Lock>) -> Qcow2 {
        Qcow2 { access, read_only, temporary, lost: false, _locks: locks }
    }
}

/// Images of version 2 know no clusters of zeros.
fn unsupported(result: &io::Result<()>) -> bool {
    result.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::Unsupported)
}

impl Layer for Qcow2 {
    fn len(&self) -> u64 {
        self.access.size()
    }

    fn is_read_only(&self) -> bool {
        self.read_only
    }

    fn read(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.access.read(buf, offset)
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.access.write(data, offset)
    }

    fn zero(&mut self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        let result = match unmap {
            true => self.access.discard_to_zero(offset, len),
            false => self.access.write_zeroes(offset, len),
        };
        if unsupported(&result) { write_zeros(self, offset, len) } else { result }
    }

    fn discard(&mut self, offset: u64, len: u64) -> io::Result<()> {
        let result = self.access.discard_to_any(offset, len);
        if unsupported(&result) { Ok(()) } else { result }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.temporary || self.read_only {
            return Ok(());
        }
        if self.lost {
            return Err(io::ErrorKind::Other.into());
        }
        self.access.flush()?;
        self.access.sync().inspect_err(|_| self.lost = true)
    }
}
