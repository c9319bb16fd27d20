//! Memory for host code: shared memory mapped twice, once to write and once to execute, so that no
//! mapping is ever both. Host code is never moved; its addresses are those of the second mapping.
//!
//! What is written first stays. The rest is a ring of segments, filled one after the other; when
//! all are full, the one that was filled first is emptied and filled again.
//!
//! The memory has no file: profilers take it as a JIT's, and look for names in its map
//! (`/tmp/perf-PID.map`), as they would not with a memfd.
//!
//! Unsafe code here: making the two mappings, writing the first one, and unmapping both. Nobody
//! gets a Rust reference into the executable one, nor one that may be written into the other.
#![allow(unsafe_code)]

use rustix::mm::{self, MapFlags, MprotectFlags, MremapFlags, ProtFlags};
use std::ffi::c_void;
use std::ops::Range;
use std::ptr::null_mut;

/// A code buffer of fixed size.
pub struct CodeBuffer {
    write: Mapping,
    exec: Mapping,
    /// Segments, as far as they are full; at first all of it is one.
    segments: Vec<Segment>,
    current: usize,
}

struct Segment {
    start: usize,
    /// Where the next code goes.
    here: usize,
    end: usize,
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
        let segments = vec![Segment { start: 0, here: 0, end: size }];
        Ok(CodeBuffer { write, exec, segments, current: 0 })
    }

    /// Address of its first byte for execution.
    pub fn base(&self) -> u64 {
        self.exec.start as u64
    }

    /// Keeps what has been written, and makes a ring of up to `segments` segments of the rest.
    pub fn divide(&mut self, segments: usize) {
        let (start, end) = (self.here(), self.write.size);
        let size = ((end - start) / segments.max(1)).max(1);
        let starts = (start..end).step_by(size).take(segments.max(1));
        self.segments =
            starts.map(|start| Segment { start, here: start, end: start + size }).collect();
        self.current = 0;
    }

    /// Where the next code goes.
    pub fn here(&self) -> usize {
        self.segments[self.current].here
    }

    /// Bytes left in the current segment, and how many it has.
    pub fn room(&self) -> (usize, usize) {
        let s = &self.segments[self.current];
        (s.end - s.here, s.end - s.start)
    }

    /// Number of the current segment.
    pub fn segment(&self) -> usize {
        self.current
    }

    /// Goes on with the next segment if nothing is in it.
    pub fn go_on(&mut self) -> bool {
        let next = (self.current + 1) % self.segments.len();
        let free = self.segments[next].here == self.segments[next].start;
        if free {
            self.current = next;
        }
        free
    }

    /// Empties the next segment and goes on with it; gives where that is.
    pub fn evict(&mut self) -> Range<usize> {
        self.current = (self.current + 1) % self.segments.len();
        let s = &mut self.segments[self.current];
        s.here = s.start;
        s.start..s.end
    }

    /// Empties all segments.
    pub fn clear(&mut self) {
        self.segments.iter_mut().for_each(|s| s.here = s.start);
        self.current = 0;
    }

    /// Appends code to the current segment; `false` if it has no room.
    pub fn append(&mut self, code: &[u8]) -> bool {
        let room = self.room().0 >= code.len();
        if room {
            self.put(self.here(), code);
            self.segments[self.current].here += code.len();
        }
        room
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

    /// The `n` bytes at `at`.
    ///
    /// # Panics
    /// When they are not all in the buffer.
    pub fn code(&self, at: usize, n: usize) -> &[u8] {
        let end = at.checked_add(n);
        assert!(end.is_some_and(|end| end <= self.write.size), "{at:#x} in the code buffer");
        // SAFETY: `at..end` is within the mapping, initialised by the host with zeros; only `put`
        // writes it, which needs `self` mutably.
        unsafe { std::slice::from_raw_parts(self.write.start.cast::<u8>().add(at), n) }
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
        assert_eq!((f(), b.code(1, 1)), (9, &[9][..]));
    }

    #[test]
    fn segments_are_filled_in_turn() {
        let mut b = CodeBuffer::new(1 << 12).unwrap();
        assert!(b.append(&[1; 1000]) && !b.append(&[1; 1 << 12]));
        b.divide(3);
        assert_eq!((b.here(), b.room()), (1000, (1032, 1032)));
        let mut starts = Vec::new();
        for n in 0..3 {
            starts.push(b.here());
            assert!(b.append(&[n; 1032]) && !b.append(&[0]));
            assert_eq!(b.go_on(), n < 2);
        }
        assert_eq!(starts, [1000, 2032, 3064]);
        for start in [1000, 2032, 3064, 1000] {
            assert_eq!(b.evict(), start..start + 1032);
            assert_eq!((b.here(), b.room()), (start, (1032, 1032)));
            assert!(b.append(&[7]) && !b.go_on());
        }
        assert_eq!((b.code(999, 3), b.code(2032, 2)), (&[1, 7, 0][..], &[7, 1][..]));
        b.clear();
        assert_eq!((b.here(), b.segment(), b.go_on()), (1000, 0, true));
    }
}
