//! 82077AA floppy disk controller with two drives.
//!
//! | reg | port | read | write |
//! |---|---|---|---|
//! | 2 | 3F2H | DOR | DOR: drive, reset, DMA gate, motors |
//! | 3 | 3F3H | TDR | TDR |
//! | 4 | 3F4H | MSR | DSR: software reset, data rate |
//! | 5 | 3F5H | FIFO | FIFO |
//! | 7 | 3F7H | DIR: disk change | CCR: data rate |
//!
//! A command goes through three phases: its bytes are written to the FIFO, its data moves, its
//! result is read from the FIFO. Data is moved by DMA: the board lends what
//! [`dma`](I82077::dma) gives to channel 2 and tells [`dma_moved`](I82077::dma_moved) how far that
//! went. In non-DMA mode data goes through the FIFO, and ends with the last sector.
//!
//! A command's sectors are asked of the host at once: all from the first to the end of the track
//! (or cylinder) or to EOT. Seeks take no time. A disk is as large as the smallest geometry that
//! holds it, and is found only at its own data rate, so that guests can tell the formats apart.
//! A drive without a disk gives a missing address mark, where a real one would wait for ever.
//!
//! Source: Intel 82077AA datasheet (290166), 2 (registers), 5 and 6 (commands, status registers).

mod command;
mod geometry;
#[cfg(test)]
mod tests;

use crate::disk::{Disk, DiskError, Request, SECTOR};
use crate::i8237::Moved;
use crate::one_request::OneRequest;
use command::{Command, decode};
use geometry::Geometry;

/// DOR: not reset, DMA gate.
const DOR_RESET: u8 = 4;
const DOR_DMAGATE: u8 = 8;
const DSR_RESET: u8 = 0x80;
const DIR_DSKCHG: u8 = 0x80;
/// MSR.
const RQM: u8 = 0x80;
const DIO: u8 = 0x40;
const NON_DMA: u8 = 0x20;
const CMD_BSY: u8 = 0x10;
/// ST0: interrupt codes, seek end, equipment check.
const IC_ABNORMAL: u8 = 0x40;
const IC_INVALID: u8 = 0x80;
const IC_POLLING: u8 = 0xc0;
const SE: u8 = 0x20;
const EC: u8 = 0x10;
/// ST1: end of cylinder, data error, no data, not writable, missing address mark.
const EN: u8 = 0x80;
const DE: u8 = 0x20;
const ND: u8 = 4;
const NW: u8 = 2;
const MA: u8 = 1;
/// ST2: data error in data field, wrong cylinder.
const DD: u8 = 0x20;
const WC: u8 = 0x10;
/// CONFIGURE: implied seek, FIFO off, polling off.
const EIS: u8 = 0x40;
const EFIFO: u8 = 0x20;
const POLL: u8 = 0x10;
/// First command byte: multi-track.
const MT: u8 = 0x80;
/// The last track that a drive can step to.
const LAST_TRACK: u8 = 83;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Command,
    /// Data moves, to the guest or from it.
    ToGuest,
    FromGuest,
    /// The host's disk is at work.
    Host,
    Result,
}

struct Drive {
    host: OneRequest,
    track: u8,
    generation: u64,
    /// The disk was changed, and no step was made since.
    changed: bool,
}

impl Drive {
    fn geometry(&self) -> Option<Geometry> {
        Geometry::of(self.host.disk.len())
    }
}

/// What is being read or written.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Run {
    drive: u8,
    /// Cylinder, head and sector of the first sector; the last sector of a track.
    cylinder: u8,
    head: u8,
    sector: u8,
    eot: u8,
    /// Both heads.
    multi: bool,
    /// Where it is on the disk.
    offset: u64,
}

/// The controller.
pub struct I82077 {
    drives: [Option<Drive>; 2],
    dor: u8,
    tdr: u8,
    rate: u8,
    phase: Phase,
    /// Bytes of the command, or of the result.
    fifo: Vec<u8>,
    data: Vec<u8>,
    at: usize,
    terminal_count: bool,
    run: Run,
    irq: bool,
    /// Drives, from the lowest, whose reset is to be sensed.
    resets: u8,
    /// ST0 of a seek that ended.
    seek: Option<u8>,
    specify: [u8; 2],
    config: u8,
    pretrack: u8,
    perpendicular: u8,
    locked: bool,
    eot: u8,
}

impl I82077 {
    /// A controller with drives A and B, if there are such. A drive's disk may be away.
    #[must_use]
    pub fn new(drives: [Option<Box<dyn Disk>>; 2]) -> I82077 {
        let drives = drives.map(|d| {
            d.map(|disk| Drive {
                generation: disk.generation(),
                host: OneRequest::new(disk),
                track: 0,
                changed: true,
            })
        });
        I82077 {
            drives,
            dor: 0,
            tdr: 0,
            rate: 2,
            phase: Phase::Command,
            fifo: Vec::new(),
            data: Vec::new(),
            at: 0,
            terminal_count: false,
            run: Run::default(),
            irq: false,
            resets: 0,
            seek: None,
            specify: [0; 2],
            config: EFIFO,
            pretrack: 0,
            perpendicular: 0,
            locked: false,
            eot: 0,
        }
    }

    /// The RESET pin: it holds itself reset until DOR lets go.
    pub fn reset(&mut self) {
        self.locked = false;
        self.stop();
        (self.dor, self.tdr, self.rate, self.config) = (0, 0, 2, EFIFO);
        (self.specify, self.perpendicular, self.eot) = ([0; 2], 0, 0);
    }

    /// The INTR pin: ISA IRQ 6.
    #[must_use]
    pub fn irq(&self) -> bool {
        self.irq && self.dor & DOR_DMAGATE != 0
    }

    /// Leaves the command; DOR and DSR resets share it.
    fn stop(&mut self) {
        self.drives.iter_mut().flatten().for_each(|d| d.host.forget());
        self.phase = Phase::Command;
        self.fifo.clear();
        self.data = Vec::new();
        (self.irq, self.resets, self.seek) = (false, 0, None);
        if !self.locked {
            (self.config, self.pretrack) = (self.config & !0xf & !EFIFO | EFIFO, 0);
        }
        self.perpendicular &= 0x3c;
    }

    /// A reset has ended: polling finds all drives changed.
    fn restart(&mut self) {
        if self.config & POLL == 0 {
            (self.irq, self.resets) = (true, 4);
        }
    }

    /// Reads register `reg` (0 to 7). Those of the PS/2 and port 3F6H, which is the disk
    /// controller's, read as ones.
    pub fn read(&mut self, reg: u16) -> u8 {
        self.advance();
        match reg & 7 {
            2 => self.dor,
            3 => self.tdr,
            4 => self.msr(),
            5 => self.fifo_read(),
            7 => {
                let d = self.drives.get(usize::from(self.dor & 3)).and_then(Option::as_ref);
                let motor = self.dor >> (4 + (self.dor & 3)) & 1 != 0;
                let changed = d.is_some_and(|d| d.changed || d.host.disk.is_empty());
                if changed && motor { DIR_DSKCHG } else { 0 }
            }
            _ => 0xff,
        }
    }

    /// Writes register `reg`.
    pub fn write(&mut self, reg: u16, value: u8) {
        self.advance();
        match reg & 7 {
            2 => {
                let was = std::mem::replace(&mut self.dor, value);
                match (was & DOR_RESET, value & DOR_RESET) {
                    (DOR_RESET, 0) => self.stop(),
                    (0, DOR_RESET) => self.restart(),
                    _ => {}
                }
            }
            3 => self.tdr = value & 3,
            4 => {
                self.rate = value & 3;
                if value & DSR_RESET != 0 && self.dor & DOR_RESET != 0 {
                    self.stop();
                    self.restart();
                }
            }
            5 => self.fifo_write(value),
            7 => self.rate = value & 3,
            _ => {}
        }
        self.advance();
    }

    fn dma_mode(&self) -> bool {
        self.specify[1] & 1 == 0
    }

    fn msr(&self) -> u8 {
        if self.dor & DOR_RESET == 0 {
            return 0;
        }
        let busy = if self.phase == Phase::Command && self.fifo.is_empty() { 0 } else { CMD_BSY };
        let ready = match self.phase {
            Phase::Command => RQM,
            Phase::Result => RQM | DIO,
            Phase::ToGuest if !self.dma_mode() => RQM | DIO | NON_DMA,
            Phase::FromGuest if !self.dma_mode() => RQM | NON_DMA,
            _ => 0,
        };
        ready | busy
    }

    fn fifo_read(&mut self) -> u8 {
        match self.phase {
            Phase::Result => {
                self.irq = false;
                let byte = if self.fifo.is_empty() { 0 } else { self.fifo.remove(0) };
                if self.fifo.is_empty() {
                    self.phase = Phase::Command;
                }
                byte
            }
            Phase::ToGuest if !self.dma_mode() => {
                let byte = self.data[self.at];
                self.moved(1);
                byte
            }
            _ => 0,
        }
    }

    fn fifo_write(&mut self, value: u8) {
        match self.phase {
            _ if self.dor & DOR_RESET == 0 => {}
            Phase::Command => {
                self.fifo.push(value);
                let (command, len) = decode(self.fifo[0]);
                if self.fifo.len() >= len {
                    let bytes = std::mem::take(&mut self.fifo);
                    self.execute(command, &bytes);
                }
            }
            Phase::FromGuest if !self.dma_mode() => {
                self.data[self.at] = value;
                self.moved(1);
            }
            _ => {}
        }
    }

    /// What channel 2 may move now, if data is to be moved by DMA.
    pub fn dma(&mut self) -> Option<FloppyDma<'_>> {
        let gate = self.dor & DOR_DMAGATE != 0 && self.dma_mode();
        match self.phase {
            Phase::ToGuest if gate => Some(FloppyDma::ToMemory(&self.data[self.at..])),
            Phase::FromGuest if gate => Some(FloppyDma::FromMemory(&mut self.data[self.at..])),
            _ => None,
        }
    }

    /// Channel 2 has moved some of what [`dma`](Self::dma) gave.
    pub fn dma_moved(&mut self, moved: Moved) {
        if matches!(self.phase, Phase::ToGuest | Phase::FromGuest) {
            self.terminal_count = moved.terminal_count;
            self.moved(moved.bytes);
            self.advance();
        }
    }

    fn moved(&mut self, bytes: usize) {
        self.at = (self.at + bytes).min(self.data.len());
        if self.at < self.data.len() && !self.terminal_count {
            return;
        }
        match self.phase {
            Phase::FromGuest => self.store(),
            _ => self.transferred(),
        }
    }

    /// Takes what the host has finished.
    pub fn advance(&mut self) {
        for n in 0..2u8 {
            let Some(d) = &mut self.drives[usize::from(n)] else { continue };
            let generation = d.host.disk.generation();
            if generation != d.generation {
                (d.generation, d.changed) = (generation, true);
            }
            let Some(result) = d.host.finished() else { continue };
            if self.phase != Phase::Host || self.run.drive != n {
                continue;
            }
            match (result, decode(self.fifo[0]).0) {
                (Ok(data), command @ (Command::ReadData | Command::ReadTrack)) => {
                    let n = data.len().min(self.data.len());
                    self.data[..n].copy_from_slice(&data[..n]);
                    self.have_read(command);
                }
                (Ok(_), _) => self.transferred(),
                (Err(DiskError::ReadOnly), _) => self.failed(NW, 0),
                (Err(_), _) => self.failed(DE, DD),
            }
        }
    }

    fn result(&mut self, bytes: &[u8]) {
        self.fifo = bytes.to_vec();
        self.phase = Phase::Result;
    }

    fn execute(&mut self, command: Command, b: &[u8]) {
        match command {
            Command::Specify => self.specify = [b[1], b[2]],
            Command::SenseDriveStatus => {
                let d = self.drives.get(usize::from(b[1] & 3)).and_then(Option::as_ref);
                let at_0 = d.is_some_and(|d| d.track == 0);
                let protected = d.is_some_and(|d| d.host.disk.is_read_only());
                let st3 = 0x28 | b[1] & 7 | u8::from(at_0) << 4 | u8::from(protected) << 6;
                self.result(&[st3]);
            }
            Command::Recalibrate => self.seek(b[1] & 3, 0, true),
            Command::Seek => self.seek(b[1] & 7, b[2], false),
            Command::RelativeSeek => {
                let d = self.drives.get(usize::from(b[1] & 3)).and_then(Option::as_ref);
                let track = d.map_or(0, |d| d.track);
                let up = b[0] & 0x40 != 0;
                let to = if up { track.saturating_add(b[2]) } else { track.saturating_sub(b[2]) };
                self.seek(b[1] & 7, to, false);
            }
            Command::SenseInterruptStatus => self.sense_interrupt(),
            Command::Version => self.result(&[0x90]),
            Command::Perpendicular => {
                // The drives' bits only change with OW.
                let keep = if b[1] & 0x80 != 0 { 0 } else { self.perpendicular & 0x3c };
                let set = if b[1] & 0x80 != 0 { b[1] & 0x3f } else { b[1] & 3 };
                self.perpendicular = keep | set;
            }
            Command::Configure => (self.config, self.pretrack) = (b[2] & 0x7f, b[3]),
            Command::Lock => {
                self.locked = b[0] & 0x80 != 0;
                self.result(&[u8::from(self.locked) << 4]);
            }
            Command::Dumpreg => {
                let track = |n: usize| self.drives[n].as_ref().map_or(0, |d| d.track);
                let [srt, hlt] = self.specify;
                let flags = u8::from(self.locked) << 7 | self.perpendicular;
                let bytes = [track(0), track(1), 0, 0, srt, hlt, self.eot, flags];
                self.result(&[&bytes[..], &[self.config, self.pretrack]].concat());
            }
            Command::Invalid => self.result(&[IC_INVALID]),
            _ => self.on_disk(command, b),
        }
    }

    /// Steps the drive of `unit` (drive and head) to a track.
    fn seek(&mut self, unit: u8, track: u8, recalibrate: bool) {
        let drive = self.drives.get_mut(usize::from(unit & 3)).and_then(Option::as_mut);
        let no_track_0 = drive.is_none() && recalibrate;
        if let Some(d) = drive {
            d.track = track.min(LAST_TRACK);
            d.changed &= d.host.disk.is_empty();
        }
        let st0 = SE | unit | if no_track_0 { IC_ABNORMAL | EC } else { 0 };
        (self.seek, self.irq) = (Some(st0), true);
    }

    fn sense_interrupt(&mut self) {
        let st0 = match self.seek.take() {
            Some(st0) => st0,
            None if self.resets > 0 => {
                self.resets -= 1;
                IC_POLLING | (3 - self.resets)
            }
            None => return self.result(&[IC_INVALID]),
        };
        self.irq = false;
        let d = self.drives.get(usize::from(st0 & 3)).and_then(Option::as_ref);
        let track = d.map_or(0, |d| d.track);
        self.result(&[st0, track]);
    }

    /// Begins a command that looks for sectors.
    fn on_disk(&mut self, command: Command, b: &[u8]) {
        (self.at, self.terminal_count) = (0, false);
        let (drive, head) = (b[1] & 3, b[1] >> 2 & 1);
        self.fifo = b.to_vec();
        self.run = Run { drive, head, sector: 1, ..Run::default() };
        let (implied, rate) = (self.config & EIS != 0, self.rate);
        let d = self.drives.get_mut(usize::from(drive)).and_then(Option::as_mut);
        let Some(d) = d else { return self.failed(MA, 0) };
        if implied && b.len() == 9 {
            d.track = b[2].min(LAST_TRACK);
            d.changed &= d.host.disk.is_empty();
        }
        self.run.cylinder = d.track;
        let Some(g) = d.geometry().filter(|g| g.rates >> rate & 1 != 0 && d.track < g.tracks)
        else {
            return self.failed(MA, 0);
        };
        let (track, read_only) = (d.track, d.host.disk.is_read_only());
        let at = |sector: u8| {
            let track = u64::from(track) * 2 + u64::from(head);
            (track * u64::from(g.sectors) + u64::from(sector) - 1) * SECTOR
        };
        match command {
            Command::ReadId => return self.end(0, 0, 0),
            Command::FormatTrack | Command::WriteData if read_only => return self.failed(NW, 0),
            Command::FormatTrack => {
                let sectors = b[3];
                if b[2] != 2 || sectors == 0 || sectors > g.sectors {
                    return self.failed(MA, 0);
                }
                (self.run.offset, self.run.eot) = (at(1), sectors);
                self.data = vec![0; 4 * usize::from(sectors)];
                self.phase = Phase::FromGuest;
                self.irq |= !self.dma_mode();
                return;
            }
            _ => {}
        }
        let sector = if command == Command::ReadTrack { 1 } else { b[4] };
        let multi = b[0] & MT != 0 && command != Command::ReadTrack;
        self.run = Run { cylinder: b[2], sector, eot: b[6], multi, ..self.run };
        self.eot = b[6];
        if b[2] != track {
            return self.failed(ND, WC);
        }
        // Sectors have 512 bytes (N = 2).
        if b[3] != head || b[5] != 2 || sector == 0 || sector > g.sectors {
            return self.failed(ND, 0);
        }
        // A sector beyond EOT is read alone. Both heads are in a row on the disk.
        let last = self.run.eot.clamp(sector, g.sectors);
        let both = multi && head == 0 && self.run.eot == g.sectors;
        let sectors = usize::from(last - sector + 1) + if both { usize::from(last) } else { 0 };
        self.run.offset = at(sector);
        self.data = vec![0; sectors * SECTOR as usize];
        match command {
            Command::WriteData => {
                self.phase = Phase::FromGuest;
                self.irq |= !self.dma_mode();
            }
            _ => {
                // A disk shorter than its geometry ends in zeros.
                let offset = self.run.offset;
                let rest = self.disk_len(drive).saturating_sub(offset);
                match rest.min(self.data.len() as u64) as usize {
                    0 => self.have_read(command),
                    len => self.ask(Request::Read { offset, len }),
                }
            }
        }
    }

    /// The sectors are in the buffer.
    fn have_read(&mut self, command: Command) {
        if command == Command::Verify {
            return self.transferred();
        }
        self.phase = Phase::ToGuest;
        self.irq |= !self.dma_mode();
    }

    fn disk_len(&self, drive: u8) -> u64 {
        let d = self.drives.get(usize::from(drive)).and_then(Option::as_ref);
        d.map_or(0, |d| d.host.disk.len())
    }

    fn ask(&mut self, request: Request) {
        self.phase = Phase::Host;
        let drive = usize::from(self.run.drive);
        if let Some(d) = self.drives.get_mut(drive).and_then(Option::as_mut) {
            d.host.submit(request);
        }
    }

    /// What the guest has given goes to the disk, in whole sectors.
    fn store(&mut self) {
        let mut data = std::mem::take(&mut self.data);
        if decode(self.fifo[0]).0 == Command::FormatTrack {
            let (run, count) = (self.run, self.at / 4);
            let fits = |id: &[u8]| {
                let here = id[0] == run.cylinder && id[1] == run.head && id[3] == 2;
                here && (1..=run.eot).contains(&id[2])
            };
            if count == 0 || !data[..4 * count].chunks(4).all(fits) {
                return self.failed(ND, 0);
            }
            data = vec![self.fifo[5]; count * SECTOR as usize];
        } else {
            data.truncate(self.at.next_multiple_of(SECTOR as usize));
        }
        self.ask(Request::Write { offset: self.run.offset, data });
    }

    /// The command has done what it could: normally, if TC ended it or it moves nothing.
    fn transferred(&mut self) {
        let moves = matches!(
            decode(self.fifo[0]).0,
            Command::ReadData | Command::WriteData | Command::ReadTrack
        );
        if !moves {
            return self.end(0, 0, 0);
        }
        let sectors = self.at.div_ceil(SECTOR as usize).max(1) as u8;
        let r = &mut self.run;
        // The sector after the last one (6.1, result phase).
        let on_first_head = r.eot.max(r.sector) - r.sector + 1;
        let last = match sectors > on_first_head {
            true => {
                r.head ^= 1;
                sectors - on_first_head
            }
            false => r.sector + sectors - 1,
        };
        r.sector = last.wrapping_add(1);
        if last >= r.eot {
            r.sector = 1;
            match (r.multi, r.head) {
                (true, 0) => r.head = 1,
                (true, _) => (r.cylinder, r.head) = (r.cylinder.wrapping_add(1), 0),
                (false, _) => r.cylinder = r.cylinder.wrapping_add(1),
            }
        }
        match self.terminal_count {
            true => self.end(0, 0, 0),
            false if last < self.run.eot => self.failed(ND, 0),
            false => self.failed(EN, 0),
        }
    }

    fn failed(&mut self, st1: u8, st2: u8) {
        self.end(IC_ABNORMAL, st1, st2);
    }

    /// The result phase of a command on sectors.
    fn end(&mut self, code: u8, st1: u8, st2: u8) {
        let r = self.run;
        let st0 = code | r.drive | r.head << 2 | if self.config & EIS != 0 { SE } else { 0 };
        self.data = Vec::new();
        self.result(&[st0, st1, st2, r.cylinder, r.head, r.sector, 2]);
        self.irq = true;
    }
}

/// Data that waits for DMA channel 2.
#[derive(Debug, PartialEq, Eq)]
pub enum FloppyDma<'a> {
    /// To be written to memory.
    ToMemory(&'a [u8]),
    /// To be filled from memory.
    FromMemory(&'a mut [u8]),
}
