//! Memory for host code: one memfd mapped twice, once to write and once to execute, so that no
//! mapping is ever both. Host code is never moved; its addresses are those of the second mapping.
//!
//! Unsafe code here: making the two mappings. Nobody gets a Rust reference into the executable one.
#![allow(unsafe_code)]

use memmap2::{Mmap, MmapMut, MmapOptions};

/// A code buffer of fixed size, filled from its start.
pub struct CodeBuffer {
    write: MmapMut,
    exec: Mmap,
    len: usize,
}

impl CodeBuffer {
    /// An empty buffer of `size` bytes.
    ///
    /// # Errors
    /// What the host says when it does not give such memory.
    pub fn new(size: usize) -> std::io::Result<CodeBuffer> {
        let fd = rustix::fs::memfd_create("ring3-code", rustix::fs::MemfdFlags::CLOEXEC)?;
        rustix::fs::ftruncate(&fd, size as u64)?;
        let file = std::fs::File::from(fd);
        let options = || {
            let mut o = MmapOptions::new();
            o.len(size);
            o
        };
        // SAFETY: the memfd is this function's own: nobody truncates it, and besides these two
        // mappings nobody sees it. The executable one is only run, and only read by the CPU.
        let (write, exec) = unsafe { (options().map_mut(&file)?, options().map_exec(&file)?) };
        Ok(CodeBuffer { write, exec, len: 0 })
    }

    /// Address of its first byte for execution.
    pub fn base(&self) -> u64 {
        self.exec.as_ptr() as u64
    }

    /// Bytes in use.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Bytes left.
    pub fn room(&self) -> usize {
        self.write.len() - self.len
    }

    /// Cuts what is in use to `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Appends code; `false` if it has no room.
    pub fn append(&mut self, code: &[u8]) -> bool {
        let Some(to) = self.write.get_mut(self.len..self.len + code.len()) else { return false };
        to.copy_from_slice(code);
        self.len += code.len();
        true
    }

    /// Overwrites the four bytes at `at`.
    pub fn patch(&mut self, at: usize, v: u32) {
        self.write[at..at + 4].copy_from_slice(&v.to_le_bytes());
    }

    /// Overwrites the byte at `at`.
    pub fn patch_byte(&mut self, at: usize, v: u8) {
        self.write[at] = v;
    }

    /// The bytes in use.
    pub fn code(&self) -> &[u8] {
        &self.write[..self.len]
    }
}
