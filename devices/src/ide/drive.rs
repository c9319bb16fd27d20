//! What disks and CD drives on an IDE cable share: the task file, the phases of a command and the
//! way of its data.
//!
//! A command is in one phase at a time. `Busy` waits for the host's disk; the four data phases
//! offer a buffer to the data register or to the bus master. Long commands go through the buffer
//! in chunks, so that no command asks for more host memory than [`CHUNK`].
//!
//! Source: ATA/ATAPI-7 volume 1, 5 (register definitions); volume 2, 9 (protocols).

use super::ata::Ata;
use super::atapi::Cd;
use super::bus_master::Dma;
use crate::disk::{Disk, DiskError, Request, SECTOR};
use crate::one_request::OneRequest;

/// Status register.
pub(super) const BSY: u8 = 0x80;
pub(super) const DRDY: u8 = 0x40;
pub(super) const DF: u8 = 0x20;
pub(super) const DSC: u8 = 0x10;
pub(super) const DRQ: u8 = 0x08;
pub(super) const ERR: u8 = 0x01;
pub(super) const READY: u8 = DRDY | DSC;
/// Error register.
pub(super) const UNC: u8 = 0x40;
pub(super) const IDNF: u8 = 0x10;
pub(super) const ABRT: u8 = 0x04;

/// Registers of the command block.
pub(super) const FEATURES: usize = 1;
pub(super) const COUNT: usize = 2;
pub(super) const LBA_LOW: usize = 3;
pub(super) const LBA_MID: usize = 4;
pub(super) const LBA_HIGH: usize = 5;
pub(super) const DEVICE: usize = 6;

/// Interrupt reason, in the sector count register of PACKET: a command, to the host.
pub(super) const REASON_CD: u8 = 1;
pub(super) const REASON_IO: u8 = 2;

/// Sectors of one request to the host.
const CHUNK: u64 = 256;

/// What a command waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Idle,
    Busy(Step),
    PioIn,
    PioOut,
    DmaIn,
    DmaOut,
    /// The twelve bytes of a packet.
    Packet,
}

/// What the host's disk is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Read,
    Write,
    Flush,
    Trim,
}

/// What the sectors of a command are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Use {
    #[default]
    Read,
    Write,
    /// Read, and forgotten.
    Verify,
    /// Ranges to discard.
    Trim,
}

/// The data of a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Transfer {
    pub(super) what: Use,
    pub(super) dma: bool,
    /// It is a packet's, with an interrupt reason and a byte count.
    pub(super) packet: bool,
    /// Written data must be on the medium at the end.
    pub(super) through: bool,
    /// Bytes from one DRQ to the next, by PIO.
    pub(super) block: usize,
    /// The first sector of 512 bytes that was not yet asked of the host, and how many.
    pub(super) sector: u64,
    pub(super) left: u64,
}

/// A drive.
pub(super) struct Drive {
    pub(super) host: OneRequest,
    /// It is a CD drive.
    pub(super) cd: Option<Cd>,
    pub(super) ata: Ata,
    /// What was written to the command block, and what was there before (LBA48).
    pub(super) regs: [u8; 8],
    pub(super) before: [u8; 8],
    pub(super) status: u8,
    pub(super) error: u8,
    pub(super) intrq: bool,
    /// INTRQ has risen; the channel takes it.
    pub(super) raised: bool,
    pub(super) phase: Phase,
    pub(super) transfer: Transfer,
    pub(super) buffer: Vec<u8>,
    /// Where the data register is in the buffer, and where the DRQ block ends.
    at: usize,
    end: usize,
}

impl Drive {
    pub(super) fn new(disk: Box<dyn Disk>, is_cd: bool) -> Drive {
        let mut d = Drive {
            ata: Ata::new(disk.len() / SECTOR),
            cd: is_cd.then(|| Cd::new(disk.generation())),
            host: OneRequest::new(disk),
            regs: [0; 8],
            before: [0; 8],
            status: 0,
            error: 0,
            intrq: false,
            raised: false,
            phase: Phase::Idle,
            transfer: Transfer::default(),
            buffer: Vec::new(),
            at: 0,
            end: 0,
        };
        d.reset(true);
        d
    }

    /// Sectors of 512 bytes.
    pub(super) fn sectors(&self) -> u64 {
        self.host.disk.len() / SECTOR
    }

    /// Leaves the command, with the signature in the registers (ATA/ATAPI-7, 9.2 and 9.3):
    /// RESET# (`hard`), SRST, DEVICE RESET, EXECUTE DEVICE DIAGNOSTIC.
    pub(super) fn reset(&mut self, hard: bool) {
        self.host.forget();
        (self.phase, self.intrq, self.raised) = (Phase::Idle, false, false);
        self.buffer = Vec::new();
        if hard {
            self.ata = Ata::new(self.sectors());
            if let Some(cd) = &mut self.cd {
                *cd = Cd::new(cd.generation());
            }
        }
        self.error = 1;
        self.signature();
        self.status = if self.cd.is_some() { 0 } else { READY };
    }

    /// What tells a disk from a CD drive.
    pub(super) fn signature(&mut self) {
        let (mid, high) = if self.cd.is_some() { (0x14, 0xeb) } else { (0, 0) };
        self.before = [0; 8];
        let device = self.regs[DEVICE] & 0x10;
        self.regs = [0, 0, 1, 1, mid, high, device, 0];
    }

    /// A byte of the command block, not the data register.
    pub(super) fn read(&mut self, reg: usize, hob: bool) -> u8 {
        match reg {
            FEATURES => self.error,
            COUNT..=LBA_HIGH if hob => self.before[reg],
            COUNT..=LBA_HIGH => self.regs[reg],
            DEVICE => self.regs[reg] | 0xa0,
            _ => {
                self.intrq = false;
                self.status
            }
        }
    }

    /// A byte of the command block, neither data nor command.
    pub(super) fn write(&mut self, reg: usize, value: u8) {
        self.before[reg] = self.regs[reg];
        self.regs[reg] = value;
    }

    /// The command register.
    pub(super) fn command(&mut self, opcode: u8) {
        (self.intrq, self.error) = (false, 0);
        self.status = READY;
        if self.cd.is_some() { self.atapi_command(opcode) } else { self.ata_command(opcode) }
    }

    /// No register but the status may be read, and none written.
    pub(super) fn is_busy(&self) -> bool {
        self.status & (BSY | DRQ) != 0
    }

    pub(super) fn raise(&mut self) {
        (self.intrq, self.raised) = (true, true);
    }

    /// The command is over, and says so.
    pub(super) fn done(&mut self) {
        self.idle();
        self.raise();
    }

    fn idle(&mut self) {
        (self.phase, self.status) = (Phase::Idle, READY);
        self.buffer = Vec::new();
    }

    /// The command is over with an error.
    pub(super) fn fail(&mut self, error: u8) {
        self.done();
        self.error = error;
        self.status |= ERR;
    }

    /// Asks something of the host.
    pub(super) fn ask(&mut self, step: Step, request: Request) {
        (self.phase, self.status) = (Phase::Busy(step), BSY);
        self.host.submit(request);
    }

    /// Offers `data` to the guest.
    pub(super) fn reply(&mut self, data: Vec<u8>) {
        (self.buffer, self.at) = (data, 0);
        if self.transfer.dma {
            (self.phase, self.status) = (Phase::DmaIn, BSY);
        } else {
            self.offer_block();
        }
    }

    fn offer_block(&mut self) {
        self.end = self.buffer.len().min(self.at + self.transfer.block);
        (self.phase, self.status) = (Phase::PioIn, READY | DRQ);
        if self.transfer.packet {
            self.packet_data((self.end - self.at) as u16);
        }
        self.raise();
    }

    /// Waits for the packet of PACKET.
    pub(super) fn expect_packet(&mut self) {
        (self.phase, self.status) = (Phase::Packet, READY | DRQ);
        (self.buffer, self.at, self.end) = (vec![0; 12], 0, 12);
    }

    /// Begins a command's data, or goes on with the next chunk.
    pub(super) fn next_chunk(&mut self) {
        let t = self.transfer;
        let len = (t.left.min(CHUNK) * SECTOR) as usize;
        match t.what {
            Use::Read | Use::Verify => {
                self.ask(Step::Read, Request::Read { offset: t.sector * SECTOR, len });
            }
            Use::Write | Use::Trim => {
                (self.buffer, self.at) = (vec![0; len], 0);
                self.end = len.min(t.block);
                (self.phase, self.status) = match t.dma {
                    true => (Phase::DmaOut, BSY),
                    false => (Phase::PioOut, READY | DRQ),
                };
            }
        }
    }

    /// The data register is read.
    pub(super) fn read_data(&mut self, size: usize) -> u32 {
        let mut bytes = [0; 4];
        if self.phase == Phase::PioIn {
            let n = size.min(self.end - self.at);
            bytes[..n].copy_from_slice(&self.buffer[self.at..self.at + n]);
            self.at += n;
            if self.at == self.end {
                self.taken();
            }
        }
        u32::from_le_bytes(bytes)
    }

    /// The data register is written.
    pub(super) fn write_data(&mut self, size: usize, value: u32) {
        if !matches!(self.phase, Phase::PioOut | Phase::Packet) {
            return;
        }
        let n = size.min(self.end - self.at);
        self.buffer[self.at..self.at + n].copy_from_slice(&value.to_le_bytes()[..n]);
        self.at += n;
        if self.at == self.end {
            match self.phase {
                Phase::Packet => self.packet(),
                _ if self.at == self.buffer.len() => self.filled(),
                _ => {
                    self.end = self.buffer.len().min(self.at + self.transfer.block);
                    self.raise();
                }
            }
        }
    }

    /// What the bus master may move now.
    pub(super) fn dma(&mut self) -> Option<Dma<'_>> {
        match self.phase {
            Phase::DmaIn => Some(Dma::In(&self.buffer[self.at..])),
            Phase::DmaOut => Some(Dma::Out(&mut self.buffer[self.at..])),
            _ => None,
        }
    }

    /// The bus master has moved `n` bytes.
    pub(super) fn dma_moved(&mut self, n: usize) {
        self.at += n;
        match self.phase {
            Phase::DmaIn if self.at == self.buffer.len() => self.taken(),
            Phase::DmaOut if self.at == self.buffer.len() => self.filled(),
            _ => {}
        }
    }

    /// The guest has taken a block, or the bus master the buffer.
    fn taken(&mut self) {
        if self.at < self.buffer.len() {
            self.offer_block();
        } else if self.transfer.left > 0 {
            self.next_chunk();
        } else if self.transfer.packet {
            self.packet_done();
        } else if self.transfer.dma {
            self.done();
        } else {
            self.idle();
        }
    }

    /// The buffer is full.
    fn filled(&mut self) {
        let data = std::mem::take(&mut self.buffer);
        match self.transfer.what {
            Use::Trim => self.trim(&data),
            _ => {
                let offset = self.transfer.sector * SECTOR;
                self.ask(Step::Write, Request::Write { offset, data });
            }
        }
    }

    /// Takes what the host has finished; whether it has.
    pub(super) fn poll(&mut self) -> bool {
        let Some(result) = self.host.finished() else { return false };
        let Phase::Busy(step) = self.phase else { return true };
        match result {
            Ok(data) => self.host_done(step, data),
            Err(error) if self.cd.is_some() => self.packet_failed(error),
            Err(error) => self.ata_failed(step, error),
        }
        true
    }

    fn host_done(&mut self, step: Step, mut data: Vec<u8>) {
        let n = self.transfer.left.min(CHUNK);
        if matches!(step, Step::Read | Step::Write) {
            self.transfer.sector += n;
            self.transfer.left -= n;
        }
        let more = self.transfer.left > 0;
        match (step, self.transfer.what) {
            (Step::Read, Use::Read) => {
                data.resize((n * SECTOR) as usize, 0);
                self.reply(data);
            }
            (Step::Read, _) if more => self.next_chunk(),
            (Step::Write, _) if more => {
                self.next_chunk();
                if !self.transfer.dma {
                    self.raise();
                }
            }
            (Step::Write, _) if self.transfer.through => self.ask(Step::Flush, Request::Flush),
            (Step::Trim, _) => self.trim_next(),
            _ => self.done(),
        }
    }

    fn ata_failed(&mut self, step: Step, error: DiskError) {
        // Where it happened (ATA/ATAPI-7, 6: error outputs).
        self.show_lba(self.transfer.sector);
        match (error, step) {
            (DiskError::OutOfRange, _) => self.fail(IDNF),
            (DiskError::ReadOnly | DiskError::NoMedium, _) => self.fail(ABRT),
            (_, Step::Read) => self.fail(UNC),
            _ => {
                self.fail(ABRT);
                self.status |= DF;
            }
        }
    }
}
