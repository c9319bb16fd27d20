//! Admin commands: queues, identification, features, logs and events.
//!
//! Source: NVM Express 1.3, 5.

use super::queue::{Completed, Entry, Submission};
use super::{
    ENTRIES, EVENT_REQUESTS, IDENTITY, MAX_DATA, MDTS, Nvme, QUEUES, VS, Work, prp, status,
};
use crate::disk::Request;
use emu_core::mem::Memory;

const DELETE_SQ: u8 = 0x00;
const CREATE_SQ: u8 = 0x01;
const GET_LOG_PAGE: u8 = 0x02;
const DELETE_CQ: u8 = 0x04;
const CREATE_CQ: u8 = 0x05;
const IDENTIFY: u8 = 0x06;
const ABORT: u8 = 0x08;
const SET_FEATURES: u8 = 0x09;
const GET_FEATURES: u8 = 0x0a;
const ASYNC_EVENT_REQUEST: u8 = 0x0c;

const WRITE_CACHE: usize = 0x06;
const NUMBER_OF_QUEUES: usize = 0x07;
const VECTOR_CONFIGURATION: usize = 0x09;
const ALL_QUEUES: u32 = (QUEUES as u32 - 1) << 16 | (QUEUES as u32 - 1);

/// Features that there are, by identifier: the value after reset, and the bits that can be set.
const FEATURES: [(u32, u32); 12] = [
    (0, 0),
    (0x0000_0003, 0xffff_ff07), // 01H arbitration: bursts of eight
    (0, 0x1f),                  // 02H power management: one state
    (0, 0),
    (0x0157, 0x003f_ffff), // 04H temperature threshold
    (0, 0xffff),           // 05H error recovery
    (1, 1),                // 06H volatile write cache
    (ALL_QUEUES, 0),       // 07H number of queues
    (0, 0xffff),           // 08H interrupt coalescing
    (0, 0x0001_ffff),      // 09H interrupt vector configuration
    (0, 1),                // 0AH write atomicity
    (0, 0x7ff),            // 0BH asynchronous event configuration
];

/// Current values of [`FEATURES`].
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Features([u32; 12]);

impl Default for Features {
    fn default() -> Features {
        Features(FEATURES.map(|f| f.0))
    }
}

impl Features {
    pub(super) fn write_cache(&self) -> bool {
        self.0[WRITE_CACHE] & 1 != 0
    }
}

/// Puts text, filled up with spaces.
fn put_text(bytes: &mut [u8], text: &str) {
    bytes.fill(b' ');
    bytes.iter_mut().zip(text.bytes()).for_each(|(b, t)| *b = t);
}

impl Nvme {
    /// Begins an admin command; dword 0 of its completion if it is over at once.
    pub(super) fn admin(&mut self, memory: &Memory, e: &Entry) -> Result<Option<u32>, u16> {
        match e.opcode() {
            DELETE_SQ => return self.delete_sq(e),
            CREATE_SQ => self.create_sq(e)?,
            GET_LOG_PAGE => self.get_log_page(memory, e)?,
            DELETE_CQ => self.delete_cq(e)?,
            CREATE_CQ => self.create_cq(e)?,
            IDENTIFY => {
                let data = self.identify(e)?;
                self.reply(memory, e, &data)?;
            }
            // It was not aborted: what is not done is with the host already.
            ABORT => return Ok(Some(1)),
            SET_FEATURES => {
                let dw0 = self.set_features(e)?;
                if e.dword(10) & 0xff == WRITE_CACHE as u32 && !self.features.write_cache() {
                    // What is in the cache goes out.
                    self.start(0, e.cid(), Work::Flush, Request::Flush);
                    return Ok(None);
                }
                return Ok(Some(dw0));
            }
            GET_FEATURES => return self.get_features(e).map(Some),
            ASYNC_EVENT_REQUEST => {
                if self.event_requests.len() >= EVENT_REQUESTS {
                    return Err(status::EVENT_LIMIT);
                }
                self.event_requests.push_back(e.cid());
                return Ok(None);
            }
            _ => return Err(status::INVALID_OPCODE),
        }
        Ok(Some(0))
    }

    fn reply(&self, memory: &Memory, e: &Entry, data: &[u8]) -> Result<(), u16> {
        let parts = prp::parts(memory, self.page(), e.prp(), data.len())?;
        prp::scatter(memory, &parts, data);
        Ok(())
    }

    /// Identifier, entries and address of a queue to be created.
    fn new_queue(&self, e: &Entry, exists: bool) -> Result<(u16, u32, u64), u16> {
        let (id, size) = (e.dword(10) as u16, (e.dword(10) >> 16) + 1);
        if id == 0 || id > QUEUES || exists {
            return Err(status::INVALID_QUEUE);
        }
        if !(2..=ENTRIES).contains(&size) {
            return Err(status::INVALID_QUEUE_SIZE);
        }
        // Contiguous; entries of 64 and 16 bytes.
        if e.dword(11) & 1 == 0 || self.cc >> 16 & 0xff != 0x46 {
            return Err(status::INVALID_FIELD);
        }
        if e.prp()[0] & (self.page() - 1) != 0 {
            return Err(status::PRP_OFFSET);
        }
        Ok((id, size, e.prp()[0]))
    }

    fn create_cq(&mut self, e: &Entry) -> Result<(), u16> {
        let exists = self.completions.contains_key(&(e.dword(10) as u16));
        let (id, size, base) = self.new_queue(e, exists)?;
        let vector = (e.dword(11) >> 16) as u16;
        // A pin is one vector.
        let vectors = if self.config.msix_enabled() { QUEUES + 1 } else { 1 };
        if vector >= vectors {
            return Err(status::INVALID_VECTOR);
        }
        self.completions.insert(id, Completed::new(base, size, vector, e.dword(11) & 2 != 0));
        Ok(())
    }

    fn create_sq(&mut self, e: &Entry) -> Result<(), u16> {
        let cq = (e.dword(11) >> 16) as u16;
        if cq == 0 || !self.completions.contains_key(&cq) {
            return Err(if cq > QUEUES { status::INVALID_QUEUE } else { status::INVALID_CQ });
        }
        let exists = self.submissions.contains_key(&(e.dword(10) as u16));
        let (id, size, base) = self.new_queue(e, exists)?;
        self.submissions.insert(id, Submission::new(base, size, cq));
        Ok(())
    }

    fn delete_cq(&mut self, e: &Entry) -> Result<(), u16> {
        let id = e.dword(10) as u16;
        if id == 0 || !self.completions.contains_key(&id) {
            return Err(status::INVALID_QUEUE);
        }
        if self.submissions.values().any(|q| q.cq == id) {
            return Err(status::INVALID_DELETION);
        }
        self.completions.remove(&id);
        Ok(())
    }

    /// It is over when the queue's commands are.
    fn delete_sq(&mut self, e: &Entry) -> Result<Option<u32>, u16> {
        let id = e.dword(10) as u16;
        match self.submissions.get_mut(&id) {
            Some(q) if id != 0 && q.deleted_by.is_none() => q.deleted_by = Some(e.cid()),
            _ => return Err(status::INVALID_QUEUE),
        }
        Ok(None)
    }

    fn set_features(&mut self, e: &Entry) -> Result<u32, u16> {
        let (id, value) = ((e.dword(10) & 0xff) as usize, e.dword(11));
        if e.dword(10) >> 31 != 0 {
            return Err(status::NOT_SAVEABLE);
        }
        match (id, FEATURES.get(id)) {
            (NUMBER_OF_QUEUES, _) => {
                if self.submissions.len() + self.completions.len() > 2 {
                    return Err(status::SEQUENCE_ERROR);
                }
                let [sq, cq] = [value & 0xffff, value >> 16];
                if sq == 0xffff || cq == 0xffff {
                    return Err(status::INVALID_FIELD);
                }
                // All there are, whatever was asked for.
                return Ok(ALL_QUEUES);
            }
            (0x02, _) if value & 0x1f != 0 => return Err(status::INVALID_FIELD),
            (VECTOR_CONFIGURATION, _) if value & 0xffff > u32::from(QUEUES) => {
                return Err(status::INVALID_FIELD);
            }
            (_, None | Some((0, 0))) => return Err(status::INVALID_FIELD),
            (_, Some((_, 0))) => return Err(status::NOT_CHANGEABLE),
            (_, Some((_, bits))) => self.features.0[id] = value & bits,
        }
        Ok(0)
    }

    fn get_features(&self, e: &Entry) -> Result<u32, u16> {
        let id = (e.dword(10) & 0xff) as usize;
        let (initial, bits) = match FEATURES.get(id) {
            None | Some((0, 0)) => return Err(status::INVALID_FIELD),
            Some(&f) => f,
        };
        match (e.dword(10) >> 8 & 7, id) {
            // A vector's configuration is asked for by its number.
            (0, VECTOR_CONFIGURATION) => {
                let kept = self.features.0[id];
                let vector = e.dword(11) & 0xffff;
                Ok(if kept & 0xffff == vector { kept } else { vector })
            }
            (0, _) => Ok(self.features.0[id]),
            (1 | 2, _) => Ok(initial),
            // Capabilities: it can be changed.
            (3, _) => Ok(if bits != 0 || id == NUMBER_OF_QUEUES { 4 } else { 0 }),
            _ => Err(status::INVALID_FIELD),
        }
    }

    fn get_log_page(&mut self, memory: &Memory, e: &Entry) -> Result<(), u16> {
        let dwords = u64::from(e.dword(10) >> 16) | u64::from(e.dword(11) & 0xffff) << 16;
        let len = (dwords as usize + 1) * 4;
        let offset = u64::from(e.dword(12)) | u64::from(e.dword(13)) << 32;
        let mut page = match e.dword(10) & 0xff {
            0x01 => vec![0; 64], // one error entry, never used
            0x02 => self.smart(),
            0x03 => {
                // Firmware: slot 1 is the active one.
                let mut page = vec![0; 512];
                page[0] = 1;
                put_text(&mut page[8..16], "1.0");
                page
            }
            _ => return Err(status::INVALID_LOG_PAGE),
        };
        if len > MAX_DATA || offset & 3 != 0 || offset > page.len() as u64 {
            return Err(status::INVALID_FIELD);
        }
        page.drain(..offset as usize);
        page.resize(len, 0);
        self.reply(memory, e, &page)?;
        // Reading the error log lets the next event through, unless that is to be retained.
        if e.dword(10) & 0x80ff == 1 {
            self.event_told = false;
        }
        Ok(())
    }

    /// SMART / health (5.14.1.2): 27 °C, all spare.
    fn smart(&self) -> Vec<u8> {
        let mut page = vec![0; 512];
        if self.disk.is_read_only() {
            page[0] = 8;
        }
        page[1..3].copy_from_slice(&300u16.to_le_bytes());
        (page[3], page[4]) = (100, 10);
        page
    }

    fn identify(&self, e: &Entry) -> Result<Vec<u8>, u16> {
        let mut data = vec![0; 4096];
        match (e.dword(10) & 0xff, e.nsid()) {
            (0 | 3, n) if n != 1 => return Err(status::INVALID_NAMESPACE),
            (0, _) => self.identify_namespace(&mut data),
            (1, _) => self.identify_controller(&mut data),
            (2, 0xffff_fffe..) => return Err(status::INVALID_NAMESPACE),
            (2, n) => data[0] = u8::from(n == 0),
            (3, _) => {
                data[..2].copy_from_slice(&[1, 8]);
                data[4..12].copy_from_slice(&self.eui64());
            }
            _ => return Err(status::INVALID_FIELD),
        }
        Ok(data)
    }

    /// A locally administered identifier, of the serial number (FNV-1a).
    fn eui64(&self) -> [u8; 8] {
        let hash = self.serial.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| {
            (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3)
        });
        let mut id = hash.to_be_bytes();
        id[..2].copy_from_slice(b"R3");
        id
    }

    /// 5.15, figure 114: one format, blocks of 512 bytes.
    fn identify_namespace(&self, data: &mut [u8]) {
        for at in [0, 8, 16] {
            data[at..at + 8].copy_from_slice(&self.blocks().to_le_bytes());
        }
        data[120..128].copy_from_slice(&self.eui64());
        data[130] = 9;
    }

    /// 5.15, figure 109.
    fn identify_controller(&self, data: &mut [u8]) {
        put_text(&mut data[4..24], &self.serial);
        put_text(&mut data[24..64], "RING3 NVME");
        put_text(&mut data[64..72], "1.0");
        let rows: [(usize, u32, usize); 17] = [
            (0, IDENTITY.vendor.into(), 2),
            (2, IDENTITY.subsystem.0.into(), 2),
            (72, 3, 1),           // recommended arbitration burst
            (77, MDTS.into(), 1), // data of a command
            (80, VS, 4),
            (258, 3, 1),                         // aborts at a time, from 0
            (259, EVENT_REQUESTS as u32 - 1, 1), // event requests, from 0
            (260, 3, 1),                         // one firmware slot, read only
            (261, 4, 1),                         // long log pages
            (266, 343, 2),                       // temperatures in kelvins
            (268, 373, 2),
            (512, 0x66, 1), // entries of 64 and 16 bytes
            (513, 0x44, 1),
            (516, 1, 4),    // namespaces
            (520, 0x0c, 2), // Dataset Management, Write Zeroes
            (525, 1, 1),    // volatile write cache
            (2048, 2500, 2),
        ];
        for (at, value, len) in rows {
            data[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
        }
        let name = format!("nqn.2026-11.ring3:nvme:{}", self.serial.replace(' ', "-"));
        data[768..768 + name.len()].copy_from_slice(name.as_bytes());
    }
}
