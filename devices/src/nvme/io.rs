//! Commands of the NVM command set.
//!
//! With the volatile write cache off, and with Force Unit Access, a write is over when the host has
//! flushed it.
//!
//! Source: NVM Express 1.3, 6.

use super::queue::Entry;
use super::{Command, MAX_DATA, Nvme, Work, prp, status};
use crate::disk::{DiskError, Request, SECTOR};
use emu_core::mem::Memory;
use std::collections::VecDeque;

const FLUSH: u8 = 0x00;
const WRITE: u8 = 0x01;
const READ: u8 = 0x02;
const WRITE_ZEROES: u8 = 0x08;
const DATASET_MANAGEMENT: u8 = 0x09;
/// Command dword 12: Force Unit Access, Deallocate.
const FUA: u32 = 1 << 30;
const DEAC: u32 = 1 << 25;
/// Command dword 11 of Dataset Management: Deallocate.
const AD: u32 = 4;

impl Nvme {
    /// Begins an I/O command; some dword if it is over at once.
    pub(super) fn io(&mut self, memory: &Memory, sq: u16, e: &Entry) -> Result<Option<u32>, u16> {
        let known = [FLUSH, WRITE, READ, WRITE_ZEROES, DATASET_MANAGEMENT];
        if !known.contains(&e.opcode()) {
            return Err(status::INVALID_OPCODE);
        }
        if e.nsid() != 1 && !(e.opcode() == FLUSH && e.nsid() == u32::MAX) {
            return Err(status::INVALID_NAMESPACE);
        }
        if !matches!(e.opcode(), FLUSH | READ) && self.disk.is_read_only() {
            return Err(status::READ_ONLY);
        }
        let through = e.dword(12) & FUA != 0 || !self.features.write_cache();
        let (work, request) = match e.opcode() {
            FLUSH => (Work::Flush, Request::Flush),
            DATASET_MANAGEMENT => return self.dataset_management(memory, sq, e),
            opcode => {
                let count = u64::from(e.dword(12) & 0xffff) + 1;
                let (offset, len) = self.bytes(e.slba(), count)?;
                let parts = || match len as usize {
                    n if n > MAX_DATA => Err(status::INVALID_FIELD),
                    n => prp::parts(memory, self.page(), e.prp(), n),
                };
                match opcode {
                    READ => (Work::Read(parts()?), Request::Read { offset, len: len as usize }),
                    WRITE => {
                        let data = prp::gather(memory, &parts()?);
                        (Work::Write(through), Request::Write { offset, data })
                    }
                    _ => {
                        let unmap = e.dword(12) & DEAC != 0;
                        (Work::Write(through), Request::WriteZeroes { offset, len, unmap })
                    }
                }
            }
        };
        self.start(sq, e.cid(), work, request);
        Ok(None)
    }

    /// Blocks as bytes, if there are such.
    fn bytes(&self, first: u64, count: u64) -> Result<(u64, u64), u16> {
        match first.checked_add(count) {
            Some(end) if end <= self.blocks() => Ok((first * SECTOR, count * SECTOR)),
            _ => Err(status::LBA_OUT_OF_RANGE),
        }
    }

    fn dataset_management(
        &mut self,
        memory: &Memory,
        sq: u16,
        e: &Entry,
    ) -> Result<Option<u32>, u16> {
        let count = (e.dword(10) & 0xff) as usize + 1;
        let data = prp::gather(memory, &prp::parts(memory, self.page(), e.prp(), 16 * count)?);
        let mut ranges = VecDeque::new();
        for range in data.chunks_exact(16) {
            let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b));
            let range = self.bytes(number(&range[8..]), number(&range[4..8]))?;
            ranges.extend((range.1 > 0).then_some(range));
        }
        // All other attributes are hints.
        if e.dword(11) & AD == 0 || ranges.is_empty() {
            return Ok(Some(0));
        }
        self.discard(sq, e.cid(), ranges);
        Ok(None)
    }

    /// Begins to discard the first of ranges.
    fn discard(&mut self, sq: u16, cid: u16, mut ranges: VecDeque<(u64, u64)>) {
        match ranges.pop_front() {
            Some((offset, len)) => {
                self.start(sq, cid, Work::Discard(ranges), Request::Discard { offset, len });
            }
            None => self.complete(sq, cid, status::SUCCESS, 0),
        }
    }

    /// The host has finished a command's request.
    pub(super) fn host_done(
        &mut self,
        memory: &Memory,
        command: Command,
        result: Result<Vec<u8>, DiskError>,
    ) {
        let Command { sq, cid, work } = command;
        match (result, work) {
            (Ok(data), Work::Read(parts)) => {
                if self.config.is_master() {
                    prp::scatter(memory, &parts, &data);
                }
                self.complete(sq, cid, status::SUCCESS, 0);
            }
            (Ok(_), Work::Write(true)) => self.start(sq, cid, Work::Flush, Request::Flush),
            (Ok(_), Work::Discard(ranges)) => self.discard(sq, cid, ranges),
            (Ok(_), _) => self.complete(sq, cid, status::SUCCESS, 0),
            (Err(error), work) => {
                let status = match (error, work) {
                    (DiskError::OutOfRange, _) => status::LBA_OUT_OF_RANGE,
                    (DiskError::ReadOnly, _) => status::READ_ONLY,
                    (DiskError::NoSpace, _) => status::CAPACITY_EXCEEDED,
                    (DiskError::NoMedium, _) => status::INTERNAL_ERROR,
                    (DiskError::Io, Work::Read(_)) => status::UNRECOVERED_READ,
                    (DiskError::Io, _) => status::WRITE_FAULT,
                };
                self.complete(sq, cid, status, 0);
            }
        }
    }
}
