//! The commands of a CD drive: ATA's few, and packets.
//!
//! A packet is twelve bytes that the guest writes after PACKET. Its data goes as any other's, in
//! blocks of at most the byte count that the guest allows; the interrupt reason (in the sector
//! count register) tells what a DRQ or an interrupt is for. An error is a sense key in the error
//! register, and REQUEST SENSE has the rest.
//!
//! A medium that has changed is told by unit attention, and by an event. Power-on is not: drivers
//! that never heard of unit attention find a drive that is ready.
//!
//! Source: ATA/ATAPI-7 volume 1, 6.24 (PACKET); MMC-3, 5 (features) and 6 (commands); SPC-2, 7.

use super::ata::{identify_bytes, put_string};
use super::drive::{
    ABRT, COUNT, DEVICE, Drive, FEATURES, LBA_HIGH, LBA_MID, REASON_CD, REASON_IO, Transfer, Use,
};
use crate::disk::{DiskError, SECTOR};

/// Bytes of a block, and sectors of the host in it.
const BLOCK: u64 = 2048;
const PER_BLOCK: u64 = BLOCK / SECTOR;
/// Blocks of an 80-minute CD; what is longer is a DVD.
const CD_BLOCKS: u64 = 80 * 60 * 75;
/// Kilobytes a second that are told as speed: 32 × 176.
const SPEED: [u8; 2] = 5632u16.to_be_bytes();

/// Sense key, additional sense code and qualifier (SPC-2, 7.20).
type Sense = (u8, u8, u8);
const NO_SENSE: Sense = (0, 0, 0);
const NO_MEDIUM_CLOSED: Sense = (2, 0x3a, 1);
const NO_MEDIUM_OPEN: Sense = (2, 0x3a, 2);
const UNRECOVERED_READ: Sense = (3, 0x11, 0);
const INVALID_OPCODE: Sense = (5, 0x20, 0);
const OUT_OF_RANGE: Sense = (5, 0x21, 0);
const INVALID_FIELD: Sense = (5, 0x24, 0);
const NO_SAVING: Sense = (5, 0x39, 0);
const REMOVAL_PREVENTED: Sense = (5, 0x53, 2);
const MEDIUM_CHANGED: Sense = (6, 0x28, 0);

/// Events of GET EVENT STATUS NOTIFICATION, media class (MMC-3, 6.7).
const NEW_MEDIA: u8 = 2;
const MEDIA_REMOVAL: u8 = 3;

/// State of a CD drive.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Cd {
    sense: Sense,
    /// The medium that the guest has been told of.
    generation: u64,
    attention: bool,
    event: u8,
    tray_open: bool,
    locked: bool,
}

impl Cd {
    pub(super) fn new(generation: u64) -> Cd {
        Cd {
            sense: NO_SENSE,
            generation,
            attention: false,
            event: 0,
            tray_open: false,
            locked: false,
        }
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }
}

fn be16(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]))
}

fn be32(bytes: &[u8], at: usize) -> u64 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]).into()
}

/// A block's address, as a number or as minute, second and frame.
fn address(block: u64, msf: bool) -> [u8; 4] {
    let frame = block + 150;
    match msf {
        true => [0, (frame / 75 / 60) as u8, (frame / 75 % 60) as u8, (frame % 75) as u8],
        false => (block as u32).to_be_bytes(),
    }
}

/// What a packet comes to: data with the length that the guest allows, nothing, or an error.
/// Commands on blocks have begun their transfer themselves.
enum Answer {
    Data(Vec<u8>, usize),
    Done,
    Begun,
}

impl Drive {
    /// The command register of a CD drive.
    pub(super) fn atapi_command(&mut self, opcode: u8) {
        match opcode {
            0x08 => {
                self.reset(false);
            }
            0xa0 => {
                let limit =
                    usize::from(u16::from_le_bytes([self.regs[LBA_MID], self.regs[LBA_HIGH]]));
                // An odd limit is for the last block only; none at all is taken for the largest.
                let block = if limit < 2 { 0xfffe } else { limit & 0xfffe };
                let dma = self.regs[FEATURES] & 1 != 0;
                self.transfer = Transfer { dma, packet: true, block, ..Transfer::default() };
                self.regs[COUNT] = REASON_CD;
                self.expect_packet();
            }
            0xa1 => {
                self.transfer = Transfer { block: 512, ..Transfer::default() };
                let words = self.identify_packet();
                self.reply(identify_bytes(words));
            }
            // IDENTIFY DEVICE and READ SECTORS tell what it is not.
            0xec | 0x20 => {
                self.signature();
                self.fail(ABRT);
            }
            0xe0..=0xe3 | 0xe6 => self.done(),
            0xe5 => {
                self.regs[COUNT] = 0xff;
                self.done();
            }
            0xef if self.ata.set_feature(self.regs[FEATURES], self.regs[COUNT]) => self.done(),
            _ => self.fail(ABRT),
        }
    }

    /// Data of a packet is offered by PIO.
    pub(super) fn packet_data(&mut self, len: u16) {
        self.regs[COUNT] = REASON_IO;
        [self.regs[LBA_MID], self.regs[LBA_HIGH]] = len.to_le_bytes();
    }

    pub(super) fn packet_done(&mut self) {
        self.regs[COUNT] = REASON_IO | REASON_CD;
        self.done();
    }

    pub(super) fn packet_failed(&mut self, error: DiskError) {
        self.sense(match error {
            DiskError::OutOfRange => OUT_OF_RANGE,
            DiskError::NoMedium => NO_MEDIUM_CLOSED,
            _ => UNRECOVERED_READ,
        });
    }

    fn sense(&mut self, sense: Sense) {
        if let Some(cd) = &mut self.cd {
            cd.sense = sense;
        }
        self.regs[COUNT] = REASON_IO | REASON_CD;
        self.fail(sense.0 << 4 | ABRT);
    }

    /// The packet has come.
    pub(super) fn packet(&mut self) {
        let mut c = [0; 12];
        c.copy_from_slice(&self.buffer[..12]);
        match self.serve(&c) {
            Ok(Answer::Data(mut data, limit)) if limit > 0 => {
                data.truncate(limit);
                self.reply(data);
            }
            Ok(Answer::Begun) => {}
            Ok(_) => self.packet_done(),
            Err(sense) => self.sense(sense),
        }
    }

    fn serve(&mut self, c: &[u8; 12]) -> Result<Answer, Sense> {
        let (generation, empty) = (self.host.disk.generation(), self.host.disk.is_empty());
        let Some(cd) = &mut self.cd else { return Err(INVALID_OPCODE) };
        if generation != cd.generation {
            (cd.generation, cd.attention) = (generation, !empty);
            cd.event = if empty { MEDIA_REMOVAL } else { NEW_MEDIA };
            cd.tray_open &= empty;
        }
        if c[0] != 0x03 {
            cd.sense = NO_SENSE;
        }
        // INQUIRY, REQUEST SENSE and those that tell of events are served none the less.
        if !matches!(c[0], 0x03 | 0x12 | 0x46 | 0x4a) && std::mem::take(&mut cd.attention) {
            return Err(MEDIUM_CHANGED);
        }
        let blocks = match (cd.tray_open, empty) {
            (true, _) => Err(NO_MEDIUM_OPEN),
            (_, true) => Err(NO_MEDIUM_CLOSED),
            _ => Ok(self.host.disk.len() / BLOCK),
        };
        match c[0] {
            0x00 => blocks.map(|_| Answer::Done), // TEST UNIT READY
            0x03 => Ok(Answer::Data(self.request_sense(), c[4].into())),
            0x12 => Ok(Answer::Data(inquiry(), c[4].into())),
            0x1b => self.start_stop_unit(c[4]),
            0x1e => {
                cd.locked = c[4] & 1 != 0; // PREVENT ALLOW MEDIUM REMOVAL
                Ok(Answer::Done)
            }
            0x25 => {
                // READ CAPACITY: the last block, and its length.
                let last = u32::try_from(blocks?.saturating_sub(1)).unwrap_or(u32::MAX);
                Ok(Answer::Data([last.to_be_bytes(), [0, 0, 8, 0]].concat(), 8))
            }
            0x28 => self.read_blocks(blocks?, be32(c, 2), be16(c, 7) as u64),
            0xa8 => self.read_blocks(blocks?, be32(c, 2), be32(c, 6)),
            // READ CD: user data only, or nothing.
            0xbe => match c[9] & 0xf8 {
                0x10 => self.read_blocks(blocks?, be32(c, 2), be32(c, 5) & 0xff_ffff),
                0 => blocks.map(|_| Answer::Done),
                _ => Err(INVALID_FIELD),
            },
            0x2b if be32(c, 2) >= blocks? => Err(OUT_OF_RANGE), // SEEK
            0x2b | 0xbb => Ok(Answer::Done),                    // SET CD SPEED
            0x42 => blocks.and_then(|_| read_sub_channel(c)),
            0x43 => read_toc(c, blocks?),
            0x46 => self.get_configuration(c, blocks.ok()),
            0x4a => self.get_event_status(c, blocks.is_ok()),
            0x51 => {
                blocks?;
                // READ DISC INFORMATION: one complete session of one track, for any use.
                let mut info = vec![0; 34];
                info[1..8].copy_from_slice(&[32, 0x0e, 1, 1, 1, 1, 0x20]);
                Ok(Answer::Data(info, be16(c, 7)))
            }
            0x5a => self.mode_sense(c),
            0xbd => {
                // MECHANISM STATUS: the door, no changer.
                let door = if cd.tray_open { 0x10 } else { 0 };
                Ok(Answer::Data(vec![0, door, 0, 0, 0, 1, 0, 0], be16(c, 8)))
            }
            _ => Err(INVALID_OPCODE),
        }
    }

    fn read_blocks(&mut self, blocks: u64, first: u64, count: u64) -> Result<Answer, Sense> {
        if first + count > blocks {
            return Err(OUT_OF_RANGE);
        }
        if count == 0 {
            return Ok(Answer::Done);
        }
        let (sector, left) = (first * PER_BLOCK, count * PER_BLOCK);
        self.transfer = Transfer { what: Use::Read, sector, left, ..self.transfer };
        self.next_chunk();
        Ok(Answer::Begun)
    }

    fn request_sense(&mut self) -> Vec<u8> {
        let Some(cd) = &mut self.cd else { return Vec::new() };
        if cd.sense == NO_SENSE && std::mem::take(&mut cd.attention) {
            cd.sense = MEDIUM_CHANGED;
        }
        let (key, code, qualifier) = std::mem::replace(&mut cd.sense, NO_SENSE);
        let mut data = vec![0; 18];
        (data[0], data[2], data[7], data[12], data[13]) = (0x70, key, 10, code, qualifier);
        data
    }

    fn start_stop_unit(&mut self, how: u8) -> Result<Answer, Sense> {
        let Some(cd) = &mut self.cd else { return Err(INVALID_OPCODE) };
        match how & 3 {
            2 if cd.locked => return Err(REMOVAL_PREVENTED),
            2 if !cd.tray_open => {
                (cd.tray_open, cd.event) = (true, MEDIA_REMOVAL);
                self.host.disk.eject();
            }
            3 if std::mem::take(&mut cd.tray_open) && !self.host.disk.is_empty() => {
                (cd.attention, cd.event) = (true, NEW_MEDIA);
            }
            _ => {}
        }
        Ok(Answer::Done)
    }

    /// MMC-3, 6.6 and 5.3.
    fn get_configuration(&self, c: &[u8; 12], blocks: Option<u64>) -> Result<Answer, Sense> {
        let profile: u8 = match blocks {
            None => 0,
            Some(n) if n <= CD_BLOCKS => 0x08,
            Some(_) => 0x10,
        };
        let (cd, dvd) = (u8::from(profile == 8), u8::from(profile == 0x10));
        let any = cd | dvd;
        // Feature code, version and current bit, data.
        let features: [(u8, u8, &[u8]); 6] = [
            (0x00, 0x03, &[0, 0x10, dvd, 0, 0, 0x08, cd, 0]), // profile list
            (0x01, 0x0b, &[0, 0, 0, 2, 1, 0, 0, 0]),          // core: ATAPI
            (0x03, 0x03, &[0x29, 0, 0, 0]),                   // removable: tray, eject, lock
            (0x10, any, &[0, 0, 8, 0, 0, 1, 0, 0]),           // random readable: 2048 bytes
            (0x1e, 0x08 | cd, &[0, 0, 0, 0]),                 // CD read
            (0x1f, dvd, &[]),                                 // DVD read
        ];
        let first = be16(c, 2);
        let mut data = vec![0, 0, 0, 0, 0, 0, 0, profile];
        for (code, version, body) in features {
            let wanted = match c[1] & 3 {
                0 => usize::from(code) >= first,
                1 => usize::from(code) >= first && version & 1 != 0,
                2 => usize::from(code) == first,
                _ => return Err(INVALID_FIELD),
            };
            if wanted {
                data.extend([0, code, version, body.len() as u8]);
                data.extend(body);
            }
        }
        data[3] = data.len() as u8 - 4;
        Ok(Answer::Data(data, be16(c, 7)))
    }

    /// MMC-3, 6.7: polled, and of the media class only.
    fn get_event_status(&mut self, c: &[u8; 12], present: bool) -> Result<Answer, Sense> {
        let Some(cd) = &mut self.cd else { return Err(INVALID_OPCODE) };
        if c[1] & 1 == 0 {
            return Err(INVALID_FIELD);
        }
        let mut data = vec![0, 2, 0x80, 0x10];
        if c[4] & 0x10 != 0 {
            let state = u8::from(cd.tray_open) | u8::from(present) << 1;
            data = vec![0, 6, 4, 0x10, std::mem::take(&mut cd.event), state, 0, 0];
        }
        Ok(Answer::Data(data, be16(c, 7)))
    }

    /// MMC-3, 6.10 and 5.5: error recovery, audio control, capabilities.
    fn mode_sense(&self, c: &[u8; 12]) -> Result<Answer, Sense> {
        let Some(cd) = &self.cd else { return Err(INVALID_OPCODE) };
        let [high, low] = SPEED;
        let mechanism = 0x29 | u8::from(cd.locked) << 1;
        let pages: [&[u8]; 3] = [
            &[0x01, 6, 0, 5, 0, 0, 0, 0],
            &[0x0e, 14, 4, 0, 0, 0, 0, 0, 1, 0xff, 2, 0xff, 0, 0, 0, 0],
            &[
                0x2a, 20, 0x0b, 0, 0x70, 0, mechanism, 0, high, low, 0, 2, 2, 0, high, low, 0, 0,
                0, 0, 0, 0,
            ],
        ];
        if c[2] >> 6 == 3 {
            return Err(NO_SAVING);
        }
        let wanted = c[2] & 0x3f;
        let mut data = vec![0; 8];
        for page in pages.iter().filter(|p| wanted == 0x3f || wanted == p[0]) {
            // Nothing can be changed.
            let keep = if c[2] >> 6 == 1 { 2 } else { page.len() };
            data.extend(&page[..keep]);
            data.extend(vec![0; page.len() - keep]);
        }
        if data.len() == 8 {
            return Err(INVALID_FIELD);
        }
        data[1] = data.len() as u8 - 2;
        data[2] = match (cd.tray_open, self.host.disk.is_empty()) {
            (true, _) => 0x71,
            (_, true) => 0x70,
            _ => 0x01,
        };
        Ok(Answer::Data(data, be16(c, 7)))
    }

    /// IDENTIFY PACKET DEVICE (ATA/ATAPI-7, 6.17).
    fn identify_packet(&self) -> [u16; 256] {
        let mut w = [0; 256];
        let rows = [
            (0, 0x85c0), // ATAPI, CD, removable, DRQ within 50 µs, packets of 12 bytes
            (49, 0x0b00),
            (50, 0x4000),
            (53, 6),
            (64, 3),
            (65, 120),
            (66, 120),
            (67, 120),
            (68, 120),
            (80, 0x00f0),
            (82, 0x0218), // DEVICE RESET, PACKET, power management
            (83, 0x4000),
            (84, 0x4000),
            (85, 0x0218),
            (87, 0x4000),
            (93, if self.regs[DEVICE] & 0x10 == 0 { 0x6001 } else { 0x6100 }),
        ];
        rows.into_iter().chain(self.ata.dma_words()).for_each(|(n, value)| w[n] = value);
        put_string(&mut w, 10, 20, "R3-00000002");
        put_string(&mut w, 23, 8, "1.0");
        put_string(&mut w, 27, 40, "RING3 CD-ROM");
        w
    }
}

fn inquiry() -> Vec<u8> {
    let mut data = vec![5, 0x80, 0, 0x21, 31, 0, 0, 0];
    data.extend(b"RING3   CD-ROM          1.0 ");
    data
}

/// MMC-3, 6.25: one data track and the lead-out.
fn read_toc(c: &[u8; 12], blocks: u64) -> Result<Answer, Sense> {
    let msf = c[1] & 2 != 0;
    // Early drives have the format in the last byte.
    let format = if c[2] & 0xf != 0 { c[2] & 0xf } else { c[9] >> 6 };
    let [start, end] = [0, blocks].map(|b| address(b, msf));
    let mut data = vec![0, 0, 1, 1];
    match (format, c[6]) {
        (0, first @ (0 | 1 | 0xaa)) => {
            if first != 0xaa {
                data.extend([0, 0x14, 1, 0]);
                data.extend(start);
            }
            data.extend([0, 0x14, 0xaa, 0]);
            data.extend(end);
        }
        (1, _) => {
            data.extend([0, 0x14, 1, 0]);
            data.extend(start);
        }
        (2, _) => {
            let end = address(blocks, true);
            for (point, at) in
                [(0xa0, [0, 1, 0, 0]), (0xa1, [0, 1, 0, 0]), (0xa2, end), (1, address(0, true))]
            {
                data.extend([1, 0x14, 0, point, 0, 0, 0]);
                data.extend(at);
            }
        }
        _ => return Err(INVALID_FIELD),
    }
    data[1] = data.len() as u8 - 2;
    Ok(Answer::Data(data, be16(c, 7)))
}

/// MMC-3, 6.23: no audio plays, and the pickup is at the start.
fn read_sub_channel(c: &[u8; 12]) -> Result<Answer, Sense> {
    let mut data = vec![0, 0x15, 0, 0];
    if c[2] & 0x40 != 0 {
        match c[3] {
            1 => {
                data.extend([1, 0x14, 1, 1]);
                data.extend(address(0, c[1] & 2 != 0).repeat(2));
            }
            format @ (2 | 3) => {
                data.extend([format, 0x14, 1]);
                data.extend([0; 17]);
            }
            _ => return Err(INVALID_FIELD),
        }
    }
    data[3] = data.len() as u8 - 4;
    Ok(Answer::Data(data, be16(c, 7)))
}
