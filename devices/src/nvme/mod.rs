//! An NVM Express controller with one namespace on a disk.
//!
//! | offset in base address register 0 | what |
//! |---|---|
//! | 0 | controller registers |
//! | 1000H | doorbells, four bytes apart |
//! | 2000H | MSI-X table |
//! | 3000H | MSI-X pending bits |
//!
//! A doorbell is taken at once: commands are fetched, as many as [`IN_FLIGHT`] and a call's
//! [`BUDGET`] allow, and given to the host's disk; what is finished is posted in the next access or
//! [`advance`](PciDevice::advance). A completion queue without room holds its submission queues up.
//!
//! Invariants: no request of the host outlives the ready bit (a controller that was reset becomes
//! not ready, or ready again, when all are finished), so that no forgotten write comes late; a
//! deleted queue is gone when its commands are; nothing is fetched while the function may not
//! master the bus.
//!
//! Source: NVM Express 1.3: 3 (registers), 4 (queues), 5 and 6 (commands), 7.6 (start and reset).

mod admin;
mod io;
mod prp;
mod queue;
mod status;
#[cfg(test)]
mod tests;

use crate::disk::{Disk, Request, SECTOR};
use crate::pci::{Bar, Host, Identity, PciConfig, PciDevice};
use emu_core::mem::Memory;
use queue::{Completed, Completion, Entry, Submission};
use std::collections::{BTreeMap, VecDeque};

const IDENTITY: Identity = Identity {
    vendor: 0x1b36,
    device: 0x0010,
    class: 0x01_0802,
    revision: 2,
    subsystem: (0x1af4, 0x1100),
};

const DOORBELLS: u64 = 0x1000;
const MSIX_TABLE: u64 = 0x2000;
const MSIX_PENDING: u64 = 0x3000;
/// I/O queues of each kind.
const QUEUES: u16 = 64;
/// Entries of a queue, at most.
const ENTRIES: u32 = 1024;
/// Requests that the host has at a time.
const IN_FLIGHT: usize = 64;
/// Commands that one call begins.
const BUDGET: usize = 256;
/// Data of a command: 2 to this power in pages of 4 KiB.
const MDTS: u8 = 7;
const MAX_DATA: usize = 4096 << MDTS;
/// Asynchronous event requests that may wait.
const EVENT_REQUESTS: usize = 4;

/// CAP: entries (from 0), contiguous queues, 10 s to be ready, NVM command set, pages of 4 to
/// 64 KiB.
const CAP: u64 = (ENTRIES as u64 - 1) | 1 << 16 | 20 << 24 | 1 << 37 | 4 << 52;
const VS: u32 = 0x0001_0300;
/// Controller registers.
const REG_CAP: u64 = 0x00;
const REG_VS: u64 = 0x08;
const REG_INTMS: u64 = 0x0c;
const REG_INTMC: u64 = 0x10;
const REG_CC: u64 = 0x14;
const REG_CSTS: u64 = 0x1c;
const REG_AQA: u64 = 0x24;
const REG_ASQ: u64 = 0x28;
const REG_ACQ: u64 = 0x30;

const CC_EN: u32 = 1;
/// Bits of CC that a guest may set.
const CC_BITS: u32 = 0x00ff_fff1;
const CSTS_RDY: u32 = 1;
const CSTS_CFS: u32 = 2;
const SHST: u32 = 3 << 2;
const SHST_OCCURRING: u32 = 1 << 2;
const SHST_COMPLETE: u32 = 2 << 2;

/// Asynchronous events (5.2): error status, with what went wrong and the log page.
const EVENT_INVALID_DOORBELL: u32 = 0x01_0000;
const EVENT_INVALID_VALUE: u32 = 0x01_0100;

/// A command that the host works on.
#[derive(Debug)]
enum Work {
    Read(prp::Parts),
    /// It must be on the medium at the end, or not.
    Write(bool),
    Flush,
    /// What is left to discard: bytes.
    Discard(VecDeque<(u64, u64)>),
    /// The shutdown's flush, which is no command's.
    Shutdown,
}

#[derive(Debug)]
struct Command {
    sq: u16,
    cid: u16,
    work: Work,
}

/// The controller.
pub struct Nvme {
    config: PciConfig,
    disk: Box<dyn Disk>,
    serial: String,
    cc: u32,
    csts: u32,
    /// Interrupts masked by INTMS, of pins only.
    masked: u32,
    aqa: u32,
    asq: u64,
    acq: u64,
    submissions: BTreeMap<u16, Submission>,
    completions: BTreeMap<u16, Completed>,
    commands: BTreeMap<u64, Command>,
    number: u64,
    /// Requests that the host has, forgotten ones too.
    outstanding: usize,
    features: admin::Features,
    event_requests: VecDeque<u16>,
    /// An error event that waits to be told, and whether one was told whose log was not read.
    event: Option<u32>,
    event_told: bool,
    /// There are more commands to fetch than one call does.
    more: Option<u64>,
}

impl Nvme {
    /// A controller over `disk`; its serial number has at most 20 ASCII characters, and makes the
    /// namespace's identifier.
    #[must_use]
    pub fn new(disk: Box<dyn Disk>, serial: &str) -> Nvme {
        let mut config = PciConfig::new(IDENTITY, 1);
        config.bar(0, Bar::Memory64, 0x4000);
        config.add_msix(0, usize::from(QUEUES) + 1, MSIX_TABLE as u32, MSIX_PENDING as u32);
        Nvme {
            config,
            disk,
            serial: serial.chars().filter(|c| (' '..='~').contains(c)).take(20).collect(),
            cc: 0,
            csts: 0,
            masked: 0,
            aqa: 0,
            asq: 0,
            acq: 0,
            submissions: BTreeMap::new(),
            completions: BTreeMap::new(),
            commands: BTreeMap::new(),
            number: 0,
            outstanding: 0,
            features: admin::Features::default(),
            event_requests: VecDeque::new(),
            event: None,
            event_told: false,
            more: None,
        }
    }

    /// Blocks of the namespace.
    fn blocks(&self) -> u64 {
        self.disk.len() / SECTOR
    }

    /// Bytes of a page, as CC.MPS has it.
    fn page(&self) -> u64 {
        4096 << (self.cc >> 7 & 15).min(4)
    }

    fn register(&self, offset: u64) -> u32 {
        match offset {
            REG_CAP => CAP as u32,
            0x04 => (CAP >> 32) as u32,
            REG_VS => VS,
            REG_INTMS | REG_INTMC => self.masked,
            REG_CC => self.cc,
            REG_CSTS => self.csts,
            REG_AQA => self.aqa,
            REG_ASQ => self.asq as u32,
            0x2c => (self.asq >> 32) as u32,
            REG_ACQ => self.acq as u32,
            0x34 => (self.acq >> 32) as u32,
            _ => 0,
        }
    }

    fn set_register(&mut self, offset: u64, value: u32) {
        let low = |old: u64| old & !0xffff_ffff | u64::from(value & !0xfff);
        let high = |old: u64| old & 0xffff_ffff | u64::from(value) << 32;
        match offset {
            REG_INTMS => self.masked |= value,
            REG_INTMC => self.masked &= !value,
            REG_CC => self.set_cc(value & CC_BITS),
            REG_AQA => self.aqa = value & 0x0fff_0fff,
            REG_ASQ => self.asq = low(self.asq),
            0x2c => self.asq = high(self.asq),
            REG_ACQ => self.acq = low(self.acq),
            0x34 => self.acq = high(self.acq),
            _ => {}
        }
    }

    fn set_cc(&mut self, value: u32) {
        let was = std::mem::replace(&mut self.cc, value);
        if (was ^ value) & CC_EN != 0 {
            // Enabled or reset, it begins with nothing, not even a shutdown.
            self.forget();
            self.csts &= CSTS_RDY;
        }
        if value >> 14 & 3 != 0 && was >> 14 & 3 == 0 {
            self.csts = self.csts & !SHST | SHST_OCCURRING;
        }
    }

    /// Controller reset: queues and commands are gone (7.3.2).
    fn forget(&mut self) {
        self.submissions.clear();
        self.completions.clear();
        self.commands.clear();
        self.event_requests.clear();
        self.features = admin::Features::default();
        (self.event, self.event_told, self.more) = (None, false, None);
    }

    /// Lets the ready bit follow CC.EN, once nothing is left of what was before.
    fn follow_enable(&mut self) {
        let (enable, ready) = (self.cc & CC_EN, self.csts & CSTS_RDY);
        if enable == ready || self.outstanding > 0 || self.csts & CSTS_CFS != 0 {
            return;
        }
        if enable == 0 {
            self.csts &= !CSTS_RDY;
            return;
        }
        let [sq, cq] = [self.aqa & 0xfff, self.aqa >> 16].map(|n| n + 1);
        // The command set is NVM's, arbitration round robin; queues have two entries at least.
        let fits = self.cc & 0x3870 == 0 && self.cc >> 7 & 15 <= 4 && sq >= 2 && cq >= 2;
        let aligned = (self.asq | self.acq) & (self.page() - 1) == 0;
        if fits && aligned {
            self.submissions.insert(0, Submission::new(self.asq, sq, 0));
            self.completions.insert(0, Completed::new(self.acq, cq, 0, true));
            self.csts |= CSTS_RDY;
        } else {
            self.csts |= CSTS_CFS;
        }
    }

    fn doorbell(&mut self, offset: u64, value: u32) {
        let id = ((offset - DOORBELLS) / 8) as u16;
        let value = value & 0xffff;
        let fits = if offset & 4 == 0 {
            self.submissions.get_mut(&id).map(|q| {
                let fits = value < q.size;
                q.tail = if fits { value } else { q.tail };
                fits
            })
        } else {
            self.completions.get_mut(&id).map(|q| {
                // The head goes no further than the tail.
                let waiting = (q.tail + q.size - q.head) % q.size;
                let fits = value < q.size && (value + q.size - q.head) % q.size <= waiting;
                q.head = if fits { value } else { q.head };
                fits
            })
        };
        match fits {
            None => self.event = Some(EVENT_INVALID_DOORBELL),
            Some(false) => self.event = Some(EVENT_INVALID_VALUE),
            Some(true) => {}
        }
    }

    /// Gives the host a request for a command.
    fn start(&mut self, sq: u16, cid: u16, work: Work, request: Request) {
        self.number += 1;
        self.outstanding += 1;
        if !matches!(work, Work::Shutdown) {
            self.submissions.entry(sq).and_modify(|q| q.in_flight += 1);
        }
        self.commands.insert(self.number, Command { sq, cid, work });
        self.disk.submit(self.number, request);
    }

    /// A command is over.
    fn complete(&mut self, sq: u16, cid: u16, status: u16, dw0: u32) {
        let Some(q) = self.submissions.get(&sq) else { return };
        if let Some(cq) = self.completions.get_mut(&q.cq) {
            cq.waiting.push_back(Completion { dw0, sq, cid, status });
        }
    }

    /// Does what can be done now.
    fn work(&mut self, host: Host) {
        self.more = None;
        self.take_finished(host.memory);
        self.follow_enable();
        let shuts_down = self.csts & SHST == SHST_OCCURRING;
        if shuts_down && self.outstanding == 0 {
            self.start(0, 0, Work::Shutdown, Request::Flush);
            self.take_finished(host.memory);
        }
        let running =
            !shuts_down && self.csts & (CSTS_RDY | CSTS_CFS) == CSTS_RDY && self.cc & CC_EN != 0;
        if !running || !self.config.is_master() {
            return;
        }
        let mut budget = BUDGET;
        loop {
            self.tell_event();
            self.post(host.memory);
            let mut begun = 0;
            for id in self.submissions.keys().copied().collect::<Vec<_>>() {
                begun += usize::from(self.begin_one(host.memory, id));
            }
            if !self.take_finished(host.memory) && begun == 0 {
                break;
            }
            if begun >= budget {
                self.more = Some(host.now);
                break;
            }
            budget -= begun;
        }
        self.post(host.memory);
        for cq in self.completions.values_mut() {
            if std::mem::take(&mut cq.posted) && cq.interrupts && self.config.msix_enabled() {
                self.config.raise_msix(cq.vector.into());
            }
        }
    }

    /// Fetches a command of a queue and begins it; whether there was one and room for it.
    fn begin_one(&mut self, memory: &Memory, id: u16) -> bool {
        let Some(q) = self.submissions.get_mut(&id) else { return false };
        let room = self.completions.get(&q.cq).is_some_and(|cq| cq.waiting.is_empty());
        if !room || !q.has_more() || self.outstanding >= IN_FLIGHT {
            return false;
        }
        let entry: Entry = q.fetch(memory);
        // Neither fused operations nor SGLs.
        let result = match (entry.flags(), id) {
            (1.., _) => Err(status::INVALID_FIELD),
            (_, 0) => self.admin(memory, &entry),
            _ => self.io(memory, id, &entry),
        };
        match result {
            Ok(Some(dw0)) => self.complete(id, entry.cid(), status::SUCCESS, dw0),
            Ok(None) => {}
            Err(status) => self.complete(id, entry.cid(), status, 0),
        }
        true
    }

    /// Takes what the host has finished; whether there was anything.
    fn take_finished(&mut self, memory: &Memory) -> bool {
        let mut any = false;
        while self.outstanding > 0 {
            let Some((number, result)) = self.disk.finished() else { break };
            self.outstanding -= 1;
            any = true;
            let Some(command) = self.commands.remove(&number) else { continue };
            if matches!(command.work, Work::Shutdown) {
                self.csts = self.csts & !SHST | SHST_COMPLETE;
                continue;
            }
            self.submissions.entry(command.sq).and_modify(|q| q.in_flight -= 1);
            self.host_done(memory, command, result);
        }
        let gone = |(id, q): (&u16, &Submission)| {
            q.deleted_by.filter(|_| q.in_flight == 0).map(|cid| (*id, cid))
        };
        while let Some((id, cid)) = self.submissions.iter().find_map(gone) {
            // What it has completed goes out before it goes.
            self.post(memory);
            self.submissions.remove(&id);
            self.complete(0, cid, status::SUCCESS, 0);
            any = true;
        }
        any
    }

    /// Posts completions as far as there is room.
    fn post(&mut self, memory: &Memory) {
        if !self.config.is_master() {
            return;
        }
        for cq in self.completions.values_mut() {
            while !cq.is_full() {
                let Some(c) = cq.waiting.pop_front() else { break };
                let head = self.submissions.get(&c.sq).map_or(0, |q| q.head);
                cq.post(memory, c, head);
            }
        }
    }

    /// Tells of an error event, if it is waited for.
    fn tell_event(&mut self) {
        if self.event_told || self.event_requests.is_empty() {
            return;
        }
        let Some(event) = self.event.take() else { return };
        if let Some(cid) = self.event_requests.pop_front() {
            self.event_told = true;
            self.complete(0, cid, status::SUCCESS, event);
        }
    }
}

impl PciDevice for Nvme {
    fn config(&self) -> &PciConfig {
        &self.config
    }

    fn config_mut(&mut self) -> &mut PciConfig {
        &mut self.config
    }

    fn configured(&mut self, host: Host, _offset: u8, _size: u8) {
        self.work(host);
    }

    fn read(&mut self, host: Host, _bar: usize, offset: u64, size: u8) -> u64 {
        self.work(host);
        let mask = u64::MAX >> (64 - 8 * u64::from(size.clamp(1, 8)));
        match offset {
            ..DOORBELLS => {
                let at = offset & !3;
                let both = u64::from(self.register(at)) | u64::from(self.register(at + 4)) << 32;
                both >> (8 * (offset & 3)) & mask
            }
            MSIX_TABLE..MSIX_PENDING => self.config.msix_read(offset - MSIX_TABLE, size),
            MSIX_PENDING.. => {
                let bits = self.config.msix_pending((offset - MSIX_PENDING) / 8);
                bits >> (8 * (offset & 7)) & mask
            }
            _ => 0,
        }
    }

    fn write(&mut self, host: Host, _bar: usize, offset: u64, size: u8, value: u64) {
        self.work(host);
        match (offset, size) {
            (MSIX_TABLE..MSIX_PENDING, _) => {
                self.config.msix_write(offset - MSIX_TABLE, size, value);
            }
            (MSIX_PENDING.., _) => {}
            // Dwords, and quadwords as two; anything else is undefined.
            (_, 4 | 8) if offset & 3 == 0 => {
                for (n, part) in [(0, value as u32), (4, (value >> 32) as u32)] {
                    match offset + n {
                        _ if n == 4 && size == 4 => {}
                        at @ ..DOORBELLS => self.set_register(at, part),
                        at if self.csts & CSTS_RDY != 0 => self.doorbell(at, part),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        self.work(host);
    }

    fn intx(&self) -> bool {
        let asks = |q: &Completed| {
            let masked = self.masked >> (q.vector & 31) & 1 != 0;
            q.interrupts && q.head != q.tail && !masked
        };
        self.completions.values().any(asks)
    }

    fn deadline(&self) -> Option<u64> {
        self.more
    }

    fn advance(&mut self, host: Host) {
        self.work(host);
    }

    fn reset(&mut self) {
        self.forget();
        self.config.reset();
        (self.cc, self.csts, self.masked) = (0, 0, 0);
        (self.aqa, self.asq, self.acq) = (0, 0, 0);
    }
}
