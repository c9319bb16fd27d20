//! Submission and completion queues: rings in the guest's memory.
//!
//! Source: NVM Express 1.3, 4.1 (queues), 4.2 and 4.6 (entries).

use emu_core::mem::Memory;
use std::collections::VecDeque;

/// A command as it is in the queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry(pub(super) [u8; 64]);

impl Entry {
    pub(super) fn opcode(&self) -> u8 {
        self.0[0]
    }

    /// Fused operation, PRP or SGL.
    pub(super) fn flags(&self) -> u8 {
        self.0[1]
    }

    pub(super) fn cid(&self) -> u16 {
        u16::from_le_bytes([self.0[2], self.0[3]])
    }

    pub(super) fn nsid(&self) -> u32 {
        self.dword(1)
    }

    pub(super) fn prp(&self) -> [u64; 2] {
        [6, 8].map(|n| u64::from(self.dword(n)) | u64::from(self.dword(n + 1)) << 32)
    }

    /// Command dword `n` (0 to 15).
    pub(super) fn dword(&self, n: usize) -> u32 {
        u32::from_le_bytes([0, 1, 2, 3].map(|b| self.0[4 * n + b]))
    }

    pub(super) fn slba(&self) -> u64 {
        u64::from(self.dword(10)) | u64::from(self.dword(11)) << 32
    }
}

/// A submission queue.
#[derive(Debug)]
pub(super) struct Submission {
    pub(super) base: u64,
    pub(super) size: u32,
    pub(super) head: u32,
    pub(super) tail: u32,
    pub(super) cq: u16,
    /// Its commands that are not completed.
    pub(super) in_flight: usize,
    /// The command that deletes it, which waits for these.
    pub(super) deleted_by: Option<u16>,
}

impl Submission {
    pub(super) fn new(base: u64, size: u32, cq: u16) -> Submission {
        Submission { base, size, head: 0, tail: 0, cq, in_flight: 0, deleted_by: None }
    }

    pub(super) fn has_more(&self) -> bool {
        self.head != self.tail && self.deleted_by.is_none()
    }

    pub(super) fn fetch(&mut self, memory: &Memory) -> Entry {
        let entry = memory.read_array(self.base.wrapping_add(u64::from(self.head) * 64));
        self.head = (self.head + 1) % self.size;
        Entry(entry)
    }
}

/// What is told of a command that is over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Completion {
    pub(super) dw0: u32,
    pub(super) sq: u16,
    pub(super) cid: u16,
    /// Status code, its type, and the bits beside.
    pub(super) status: u16,
}

/// A completion queue.
#[derive(Debug)]
pub(super) struct Completed {
    pub(super) base: u64,
    pub(super) size: u32,
    pub(super) head: u32,
    pub(super) tail: u32,
    pub(super) phase: bool,
    pub(super) vector: u16,
    pub(super) interrupts: bool,
    /// What found no room.
    pub(super) waiting: VecDeque<Completion>,
    /// Something was posted and not yet interrupted for.
    pub(super) posted: bool,
}

impl Completed {
    pub(super) fn new(base: u64, size: u32, vector: u16, interrupts: bool) -> Completed {
        Completed {
            base,
            size,
            head: 0,
            tail: 0,
            phase: true,
            vector,
            interrupts,
            waiting: VecDeque::new(),
            posted: false,
        }
    }

    pub(super) fn is_full(&self) -> bool {
        (self.tail + 1) % self.size == self.head
    }

    /// Puts a completion into the ring, which has room.
    pub(super) fn post(&mut self, memory: &Memory, c: Completion, sq_head: u32) {
        let id = u32::from(c.cid) | u32::from(self.phase) << 16 | u32::from(c.status) << 17;
        let words = [c.dw0, 0, sq_head | u32::from(c.sq) << 16].map(u32::to_le_bytes);
        let at = self.base.wrapping_add(u64::from(self.tail) * 16);
        // The phase goes last.
        memory.write(at, &words.concat());
        memory.write(at.wrapping_add(12), &id.to_le_bytes());
        self.tail = (self.tail + 1) % self.size;
        self.phase ^= self.tail == 0;
        self.posted = true;
    }
}
