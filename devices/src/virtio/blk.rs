//! The virtio block device (5.2): a disk with one queue.
//!
//! A request is a header, data, and a byte for its status. It is taken, given to the [`Disk`], and
//! given back when that has finished it; many are on their way at once, and may be finished in any
//! order. What a guest can make the device hold is limited: chains wait in their queue while
//! enough is on its way.
//!
//! The cache is the guest's to command. With VIRTIO_BLK_F_FLUSH a write may stay in the host's
//! cache until a flush; a driver without it, or one that has set `writeback` to 0, has each write
//! flushed before it is told of its end (5.2.5.2).
//!
//! Source: VIRTIO 1.2, 5.2.

use super::queue::Chain;
use super::{Bus, Device, Kind};
use crate::disk::{Disk, DiskError, Request, SECTOR};
use emu_core::mem::Memory;
use std::collections::BTreeMap;

/// Features (5.2.3).
const F_SIZE_MAX: u64 = 1 << 1;
const F_SEG_MAX: u64 = 1 << 2;
const F_GEOMETRY: u64 = 1 << 4;
const F_RO: u64 = 1 << 5;
const F_BLK_SIZE: u64 = 1 << 6;
const F_FLUSH: u64 = 1 << 9;
const F_TOPOLOGY: u64 = 1 << 10;
const F_CONFIG_WCE: u64 = 1 << 11;
const F_DISCARD: u64 = 1 << 13;
const F_WRITE_ZEROES: u64 = 1 << 14;
/// Request types (5.2.6).
const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;
/// Statuses.
const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;
const HEADER: u64 = 16;
/// Bytes of the name that GET_ID gives.
const ID: usize = 20;
const QUEUE: u16 = 256;
/// A queue's entries less header and status.
const SEG_MAX: u32 = QUEUE as u32 - 2;
const SIZE_MAX: u32 = 1 << 16;
/// The largest request that keeps to both.
const LONGEST: u64 = SEG_MAX as u64 * SIZE_MAX as u64;
/// Sectors that are discarded or zeroed by one segment, and segments of a request.
const MAX_SECTORS: u32 = 1 << 22;
const MAX_RANGES: usize = 16;
/// Where `writeback` is in the configuration.
const WRITEBACK: usize = 32;
/// Requests and bytes that are on their way at once.
const IN_FLIGHT: usize = 128;
const BYTES_IN_FLIGHT: u64 = 64 << 20;

/// A request on its way.
#[derive(Debug)]
struct Pending {
    chain: Chain,
    /// Parts that the disk has yet to finish.
    left: usize,
    status: u8,
    /// It is finished after a flush only.
    through: bool,
    bytes: u64,
}

/// A disk behind virtio.
pub struct Blk {
    disk: Box<dyn Disk>,
    serial: [u8; ID],
    features: u64,
    writeback: bool,
    pending: BTreeMap<u64, Pending>,
    bytes: u64,
    /// Numbers go on after a reset, so that what was submitted before is nobody's.
    next: u64,
}

/// What a request comes to.
enum Action {
    Done(u8),
    Submit(Vec<Request>, u64),
}

fn status(result: &Result<Vec<u8>, DiskError>) -> u8 {
    if result.is_ok() { OK } else { IOERR }
}

impl Blk {
    /// A device with `disk`, whose name (at most 20 bytes count) is `serial`.
    #[must_use]
    pub fn new(disk: Box<dyn Disk>, serial: &str) -> Blk {
        let mut name = [0; ID];
        name.iter_mut().zip(serial.bytes()).for_each(|(n, b)| *n = b);
        Blk {
            disk,
            serial: name,
            features: 0,
            writeback: true,
            pending: BTreeMap::new(),
            bytes: 0,
            next: 0,
        }
    }

    /// The disk.
    pub fn disk(&mut self) -> &mut dyn Disk {
        self.disk.as_mut()
    }

    /// Whether a write must be flushed before it is finished.
    fn through(&self) -> bool {
        self.features & F_FLUSH == 0 || !self.writeback
    }

    fn sectors(&self) -> u64 {
        self.disk.len() / SECTOR
    }

    /// Takes a chain; false when it has no place for a status.
    fn take(&mut self, bus: &mut Bus, chain: Chain) -> bool {
        let Some(room) = chain.writable_len().checked_sub(1) else { return false };
        match self.plan(bus.memory, &chain, room) {
            Action::Done(status) => {
                let written = if status == OK { room.min(ID as u64) } else { 0 };
                finish(bus, &chain, status, written);
            }
            Action::Submit(requests, bytes) => {
                let number = self.next;
                self.next += 1;
                let keeps = matches!(requests[..], [Request::Read { .. } | Request::Flush]);
                let through = !keeps && self.through();
                self.bytes += bytes;
                let pending = Pending { chain, left: requests.len(), status: OK, through, bytes };
                self.pending.insert(number, pending);
                requests.into_iter().for_each(|r| self.disk.submit(number, r));
            }
        }
        true
    }

    fn plan(&self, memory: &Memory, chain: &Chain, room: u64) -> Action {
        let mut header = [0; HEADER as usize];
        if chain.read(memory, 0, &mut header) < header.len() {
            return Action::Done(IOERR);
        }
        let kind = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        let sector = u64::from_le_bytes(header[8..].try_into().unwrap_or_default());
        let offset = sector.saturating_mul(SECTOR);
        let data = chain.readable_len() - HEADER;
        let read_only = self.disk.is_read_only();
        let fits = |len: u64| {
            let end = sector.checked_add(len / SECTOR);
            len.is_multiple_of(SECTOR)
                && len <= LONGEST
                && end.is_some_and(|end| end <= self.sectors())
        };
        match kind {
            IN if room == 0 => Action::Done(OK),
            IN if fits(room) => {
                Action::Submit(vec![Request::Read { offset, len: room as usize }], room)
            }
            OUT if data == 0 => Action::Done(OK),
            OUT if !read_only && fits(data) => {
                let mut bytes = vec![0; data as usize];
                chain.read(memory, HEADER, &mut bytes);
                Action::Submit(vec![Request::Write { offset, data: bytes }], data)
            }
            IN | OUT => Action::Done(IOERR),
            FLUSH => Action::Submit(vec![Request::Flush], 0),
            GET_ID => {
                chain.write(memory, 0, &self.serial[..room.min(ID as u64) as usize]);
                Action::Done(OK)
            }
            DISCARD | WRITE_ZEROES if read_only => Action::Done(IOERR),
            DISCARD | WRITE_ZEROES => self.ranges(memory, chain, data, kind == DISCARD),
            _ => Action::Done(UNSUPP),
        }
    }

    /// Reads the segments of a discard or a write of zeros (5.2.6.2).
    fn ranges(&self, memory: &Memory, chain: &Chain, data: u64, discard: bool) -> Action {
        let count = data / 16;
        if !data.is_multiple_of(16) || count == 0 || count > MAX_RANGES as u64 {
            return Action::Done(IOERR);
        }
        let mut requests = Vec::new();
        for n in 0..count {
            let mut segment = [0; 16];
            chain.read(memory, HEADER + 16 * n, &mut segment);
            let raw = u128::from_le_bytes(segment);
            let (sector, sectors, flags) = (raw as u64, (raw >> 64) as u32, (raw >> 96) as u32);
            if flags & !u32::from(!discard) != 0 {
                return Action::Done(UNSUPP);
            }
            let end = sector.checked_add(sectors.into());
            if sectors > MAX_SECTORS || end.is_none_or(|end| end > self.sectors()) {
                return Action::Done(IOERR);
            }
            let (offset, len) = (sector * SECTOR, u64::from(sectors) * SECTOR);
            requests.push(match discard {
                true => Request::Discard { offset, len },
                false => Request::WriteZeroes { offset, len, unmap: flags & 1 != 0 },
            });
        }
        Action::Submit(requests, 0)
    }

    /// The disk has finished a part of a request.
    fn finished(&mut self, bus: &mut Bus, number: u64, result: &Result<Vec<u8>, DiskError>) {
        let Some(p) = self.pending.get_mut(&number) else { return };
        p.left = p.left.saturating_sub(1);
        p.status = p.status.max(status(result));
        if p.left != 0 {
            return;
        }
        if std::mem::take(&mut p.through) && p.status == OK {
            p.left = 1;
            self.disk.submit(number, Request::Flush);
            return;
        }
        let Some(p) = self.pending.remove(&number) else { return };
        self.bytes -= p.bytes;
        let data = result.as_ref().map_or(&[][..], Vec::as_slice);
        let written = p.chain.write(bus.memory, 0, data) as u64;
        finish(bus, &p.chain, p.status, written);
    }
}

/// Writes the status behind all else that can be written, and gives the chain back.
fn finish(bus: &mut Bus, chain: &Chain, status: u8, written: u64) {
    let last = chain.writable_len() - 1;
    chain.write(bus.memory, last, &[status]);
    // What is given as written has no gaps.
    let written = if written == last { written + 1 } else { written };
    bus.push(0, chain, written as u32);
}

impl Device for Blk {
    fn kind(&self) -> Kind {
        Kind { id: 2, class: 0x01_0000, queues: &[QUEUE] }
    }

    fn features(&self) -> u64 {
        let changes = F_FLUSH | F_CONFIG_WCE | F_DISCARD | F_WRITE_ZEROES;
        let own = if self.disk.is_read_only() { F_RO } else { changes };
        F_SIZE_MAX | F_SEG_MAX | F_GEOMETRY | F_BLK_SIZE | F_TOPOLOGY | own
    }

    fn negotiated(&mut self, features: u64) {
        self.features = features;
        self.writeback = features & F_FLUSH != 0;
    }

    fn config(&self) -> Vec<u8> {
        let sectors = self.sectors();
        let cylinders = (sectors / (16 * 63)).min(16383) as u16;
        let mut c = Vec::with_capacity(60);
        c.extend(sectors.to_le_bytes());
        c.extend(SIZE_MAX.to_le_bytes());
        c.extend(SEG_MAX.to_le_bytes());
        c.extend(cylinders.to_le_bytes());
        c.extend([16, 63]);
        c.extend((SECTOR as u32).to_le_bytes());
        // Topology: blocks of 2^0 sectors, aligned; no sizes that are better than others.
        c.extend([0, 0, 1, 0, 0, 0, 0, 0]);
        c.extend([u8::from(self.writeback), 0]);
        // One queue.
        c.extend(1_u16.to_le_bytes());
        for value in [MAX_SECTORS, MAX_RANGES as u32, 1, MAX_SECTORS, MAX_RANGES as u32] {
            c.extend(value.to_le_bytes());
        }
        c.extend([1, 0, 0, 0]);
        c
    }

    fn config_write(&mut self, offset: usize, data: &[u8]) {
        if offset == WRITEBACK && data.len() == 1 && self.features & F_CONFIG_WCE != 0 {
            self.writeback = data[0] != 0;
        }
    }

    fn work(&mut self, bus: &mut Bus) {
        loop {
            while let Some((number, result)) = self.disk.finished() {
                self.finished(bus, number, &result);
            }
            if self.pending.len() >= IN_FLIGHT || self.bytes >= BYTES_IN_FLIGHT {
                return;
            }
            let Some(chain) = bus.pop(0) else { return };
            if !self.take(bus, chain) {
                return bus.fail(0);
            }
        }
    }

    fn reset(&mut self) {
        self.pending.clear();
        (self.features, self.writeback, self.bytes) = (0, true, 0);
    }
}

#[cfg(test)]
#[path = "blk_tests.rs"]
mod tests;
