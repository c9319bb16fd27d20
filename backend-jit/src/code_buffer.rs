//! Memory for host code: shared memory mapped twice, once to write and once to execute, so that no
//! mapping is ever both. Host code is never moved; its addresses are those of the second mapping.
//!
//! The memory has no file: profilers take it as a JIT's, and look for names in its map
//! (`/tmp/perf-PID.map`), as they would not with a memfd.
//!
//! Unsafe code here: making the two mappings, writing the first one, and unmapping both. Nobody
//! gets a Rust reference into the executable one, nor one that may be written into the other.
#![allow(unsafe_code)]

use rustix::mm::{self, MapFlags, MprotectFlags, MremapFlags, ProtFlags};
use std::ffi::c_void;
use std::ptr::null_mut;

/// A code buffer of fixed size, filled from its start.
pub struct CodeBuffer {
    write: Mapping,
    exec: Mapping,
    len: usize,
}

/// A mapping of `size` bytes, of which this is the owner.
struct Mapping {
    start: *mut c_void,
    size: usize,
}

// SAFETY: the mapping belongs to this value alone, whatever thread has it.
unsafe impl Send for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and whoever borrowed from it is gone. Host code
        // in it does not run: that takes a call of its generator's owner.
        let done = unsafe { mm::munmap(self.start, self.size) };
        debug_assert!(done.is_ok(), "{done:?}");
    }
}

impl CodeBuffer {
    /// An empty buffer of `size` bytes, whole pages.
    ///
    /// # Errors
    /// What the host says when it does not give such memory.
    pub fn new(size: usize) -> std::io::Result<CodeBuffer> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping, at an address of the host's choice.
        let start = unsafe {
            mm::mmap_anonymous(null_mut(), size, access, MapFlags::SHARED | MapFlags::NORESERVE)?
        };
        let write = Mapping { start, size };
        // SAFETY: an old size of 0 makes another mapping of the same shared memory, at an address
        // of the host's choice, and leaves the old one.
        let start = unsafe { mm::mremap(start, 0, size, MremapFlags::MAYMOVE)? };
        let exec = Mapping { start, size };
        // SAFETY: that mapping is only run, and only read by the CPU: no reference is ever made.
        unsafe { mm::mprotect(start, size, MprotectFlags::READ | MprotectFlags::EXEC)? };
        Ok(CodeBuffer { write, exec, len: 0 })
    }

    /// Address of its first byte for execution.
    pub fn base(&self) -> u64 {
        self.exec.start as u64
    }

    /// Bytes in use.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Bytes left.
    pub fn room(&self) -> usize {
        self.write.size - self.len
    }

    /// Cuts what is in use to `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Appends code; `false` if it has no room.
    pub fn append(&mut self, code: &[u8]) -> bool {
        if self.room() < code.len() {
            return false;
        }
        self.put(self.len, code);
        self.len += code.len();
        true
    }

    /// Overwrites the bytes at `at`.
    ///
    /// # Panics
    /// When they are not all in the buffer.
    pub fn put(&mut self, at: usize, bytes: &[u8]) {
        let end = at.checked_add(bytes.len());
        assert!(end.is_some_and(|end| end <= self.write.size), "{at:#x} in the code buffer");
        // SAFETY: `at..end` is within the mapping, which no reference points into but those that
        // `code` gave, and they are gone while `self` is borrowed mutably. `bytes` is not in it.
        unsafe {
            let to = self.write.start.cast::<u8>().add(at);
            to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        }
    }

    /// Overwrites the four bytes at `at`.
    pub fn patch(&mut self, at: usize, v: u32) {
        self.put(at, &v.to_le_bytes());
    }

    /// Overwrites the byte at `at`.
    pub fn patch_byte(&mut self, at: usize, v: u8) {
        self.put(at, &[v]);
    }

    /// The bytes in use.
    pub fn code(&self) -> &[u8] {
        // SAFETY: `len` bytes from the start are in the mapping, initialised by the host with
        // zeros; only `put` writes them, which needs `self` mutably.
        unsafe { std::slice::from_raw_parts(self.write.start.cast::<u8>(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_executed() {
        let mut b = CodeBuffer::new(1 << 16).unwrap();
        // mov eax, 7; ret
        assert!(b.append(&[0xb8, 7, 0, 0, 0, 0xc3]));
        // SAFETY: the code is a function of this type.
        let f: extern "C" fn() -> u32 = unsafe { std::mem::transmute(b.base() as usize) };
        assert_eq!(f(), 7);
        b.patch(1, 9);
        assert_eq!((f(), b.code()[1]), (9, 9));
        assert_eq!((b.len(), b.room()), (6, (1 << 16) - 6));
        assert!(!b.append(&vec![0; 1 << 16]));
        b.truncate(1);
        assert_eq!(b.code(), [0xb8]);
    }
}
