//! The commands of an ATA disk, and what IDENTIFY DEVICE tells of it.
//!
//! Sectors are addressed as cylinder, head and sector, by 28 bits or by 48; all forms of a command
//! meet in one [`Transfer`]. With the write cache off, and for the FUA forms, a write ends when the
//! host has flushed it.
//!
//! Source: ATA/ATAPI-7 volume 1, 6 (commands); the TRIM bit is ATA8-ACS's, 7.10.

use super::drive::{
    ABRT, COUNT, DEVICE, Drive, FEATURES, IDNF, LBA_HIGH, LBA_LOW, LBA_MID, Step, Transfer, Use,
};
use crate::disk::{Request, SECTOR};
use std::collections::VecDeque;

/// Most sectors of READ MULTIPLE and WRITE MULTIPLE.
const MAX_MULTIPLE: u8 = 16;
/// Most blocks of ranges that one DATA SET MANAGEMENT takes.
const MAX_TRIM: u64 = 8;
/// Device register: the address is no cylinder, head and sector.
const LBA: u8 = 0x40;

/// State of the commands.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ata {
    cylinders: u64,
    heads: u64,
    per_track: u64,
    multiple: u8,
    write_cache: bool,
    look_ahead: bool,
    /// The transfer mode that was chosen: 20H + n multiword DMA, 40H + n Ultra DMA.
    mode: u8,
    /// What is left of the ranges to discard: first sector, sectors.
    ranges: VecDeque<(u64, u64)>,
}

impl Ata {
    pub(super) fn new(sectors: u64) -> Ata {
        let cylinders = (sectors / (16 * 63)).min(16383);
        Ata {
            cylinders,
            heads: 16,
            per_track: 63,
            multiple: MAX_MULTIPLE,
            write_cache: true,
            look_ahead: true,
            mode: 0x45,
            ranges: VecDeque::new(),
        }
    }

    /// SET FEATURES (6.49); whether it is one.
    pub(super) fn set_feature(&mut self, feature: u8, value: u8) -> bool {
        match (feature, value) {
            (0x02, _) => self.write_cache = true,
            (0x82, _) => self.write_cache = false,
            (0x55, _) => self.look_ahead = false,
            (0xaa, _) => self.look_ahead = true,
            // Power-on defaults are kept, or not, over a reset: there are none but these.
            (0x66 | 0xcc, _) => {}
            (0x03, 0x00 | 0x01 | 0x08..=0x0c) => {}
            (0x03, 0x20..=0x22 | 0x40..=0x45) => self.mode = value,
            _ => return false,
        }
        true
    }

    /// The DMA words of IDENTIFY: multiword (63) and Ultra (88), with the chosen mode.
    pub(super) fn dma_words(&self) -> [(usize, u16); 2] {
        let chosen = |family: u8| match self.mode & 0xf0 == family {
            true => 0x100 << (self.mode & 7),
            false => 0,
        };
        [(63, 7 | chosen(0x20)), (88, 0x3f | chosen(0x40))]
    }
}

/// Puts an ATA string, two characters a word from the high byte down, at word `at`.
pub(super) fn put_string(words: &mut [u16; 256], at: usize, len: usize, text: &str) {
    let mut chars = text.bytes().chain(std::iter::repeat(b' '));
    for word in &mut words[at..at + len / 2] {
        let pair = [0, 1].map(|_| chars.next().unwrap_or(b' '));
        *word = u16::from_be_bytes(pair);
    }
}

/// The words of IDENTIFY as bytes, with the checksum of word 255 (6.16.54).
pub(super) fn identify_bytes(mut words: [u16; 256]) -> Vec<u8> {
    words[255] = 0xa5;
    let mut bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    bytes[511] = bytes.iter().fold(0u8, |sum, &b| sum.wrapping_sub(b));
    bytes
}

impl Drive {
    /// The command register of a disk.
    pub(super) fn ata_command(&mut self, opcode: u8) {
        use Use::{Read, Verify, Write};
        const PIO: bool = false;
        const DMA: bool = true;
        let one = SECTOR as usize;
        let multiple = one * usize::from(self.ata.multiple);
        match opcode {
            0x06 => self.data_set_management(),
            0x10..=0x1f | 0x70..=0x7f => self.done(), // RECALIBRATE, SEEK
            0x20 | 0x21 => self.sectors_of(Read, PIO, one, false),
            0x24 => self.sectors_of(Read, PIO, one, true),
            0x25 => self.sectors_of(Read, DMA, one, true),
            0x29 => self.sectors_of(Read, PIO, multiple, true),
            0x30 | 0x31 => self.sectors_of(Write, PIO, one, false),
            0x34 => self.sectors_of(Write, PIO, one, true),
            0x35 => self.sectors_of(Write, DMA, one, true),
            0x39 => self.sectors_of(Write, PIO, multiple, true),
            0x40 | 0x41 => self.sectors_of(Verify, PIO, one, false),
            0x42 => self.sectors_of(Verify, PIO, one, true),
            0xc4 => self.sectors_of(Read, PIO, multiple, false),
            0xc5 => self.sectors_of(Write, PIO, multiple, false),
            0xc8 | 0xc9 => self.sectors_of(Read, DMA, one, false),
            0xca | 0xcb => self.sectors_of(Write, DMA, one, false),
            // The FUA forms.
            0x3d => {
                self.sectors_of(Write, DMA, one, true);
                self.transfer.through = true;
            }
            0xce => {
                self.sectors_of(Write, PIO, multiple, true);
                self.transfer.through = true;
            }
            0x27 | 0xf8 => self.read_native_max(opcode == 0x27),
            0x91 => self.initialize_device_parameters(),
            0xc6 => self.set_multiple_mode(),
            // STANDBY, IDLE and SLEEP, at once or by timer.
            0xe0..=0xe3 | 0xe6 => self.done(),
            0xe5 => {
                // CHECK POWER MODE: active.
                self.regs[COUNT] = 0xff;
                self.done();
            }
            0xe7 | 0xea => self.ask(Step::Flush, Request::Flush),
            0xec => {
                self.transfer = Transfer { block: one, ..Transfer::default() };
                let words = self.identify();
                self.reply(identify_bytes(words));
            }
            0xef if self.ata.set_feature(self.regs[FEATURES], self.regs[COUNT]) => {
                match self.ata.write_cache {
                    // What is in the cache goes out when it is turned off.
                    false => self.ask(Step::Flush, Request::Flush),
                    true => self.done(),
                }
            }
            _ => self.fail(ABRT),
        }
    }

    /// A command on sectors: `block` bytes from one DRQ to the next.
    fn sectors_of(&mut self, what: Use, dma: bool, block: usize, ext: bool) {
        let r = &self.regs;
        let count = match (ext, u16::from_le_bytes([r[COUNT], self.before[COUNT]])) {
            (true, 0) => 1 << 16,
            (true, n) => u64::from(n),
            (false, n) if n & 0xff == 0 => 256,
            (false, n) => u64::from(n & 0xff),
        };
        let end = self.lba(ext).and_then(|first| first.checked_add(count));
        let through = !self.ata.write_cache;
        match (self.lba(ext), end) {
            _ if block == 0 => self.fail(ABRT),
            _ if what == Use::Write && self.host.disk.is_read_only() => self.fail(ABRT),
            (Some(sector), Some(end)) if end <= self.sectors() => {
                let left = count;
                let packet = false;
                self.transfer = Transfer { what, dma, packet, through, block, sector, left };
                self.next_chunk();
            }
            _ => self.fail(IDNF),
        }
    }

    /// The address in the registers; none if it is no sector.
    fn lba(&self, ext: bool) -> Option<u64> {
        let (r, b) = (&self.regs, &self.before);
        let bytes = [r[LBA_LOW], r[LBA_MID], r[LBA_HIGH]];
        let rest = match (ext, r[DEVICE] & LBA != 0) {
            (true, _) => [b[LBA_LOW], b[LBA_MID], b[LBA_HIGH]],
            (false, true) => [r[DEVICE] & 0xf, 0, 0],
            (false, false) => {
                let cylinder = u64::from(u16::from_le_bytes([r[LBA_MID], r[LBA_HIGH]]));
                let (head, sector) = (u64::from(r[DEVICE] & 0xf), u64::from(r[LBA_LOW]));
                if head >= self.ata.heads || sector == 0 || sector > self.ata.per_track {
                    return None;
                }
                return Some((cylinder * self.ata.heads + head) * self.ata.per_track + sector - 1);
            }
        };
        let [a, b, c] = bytes;
        let [d, e, f] = rest;
        Some(u64::from_le_bytes([a, b, c, d, e, f, 0, 0]))
    }

    /// Puts an address into the registers, as 48 bits.
    pub(super) fn show_lba(&mut self, sector: u64) {
        let bytes = sector.to_le_bytes();
        self.regs[LBA_LOW..=LBA_HIGH].copy_from_slice(&bytes[..3]);
        self.before[LBA_LOW..=LBA_HIGH].copy_from_slice(&bytes[3..6]);
    }

    fn read_native_max(&mut self, ext: bool) {
        let last = self.sectors().saturating_sub(1);
        if ext {
            self.show_lba(last);
        } else {
            let last = last.min((1 << 28) - 1);
            self.show_lba(last);
            self.regs[DEVICE] = self.regs[DEVICE] & 0xf0 | (last >> 24) as u8;
        }
        self.done();
    }

    /// The geometry that the guest would have (the count is sectors per track).
    fn initialize_device_parameters(&mut self) {
        let heads = u64::from(self.regs[DEVICE] & 0xf) + 1;
        let per_track = u64::from(self.regs[COUNT]);
        if per_track == 0 {
            return self.fail(ABRT);
        }
        let cylinders = (self.sectors() / (heads * per_track)).min(65535);
        (self.ata.cylinders, self.ata.heads, self.ata.per_track) = (cylinders, heads, per_track);
        self.done();
    }

    fn set_multiple_mode(&mut self) {
        let n = self.regs[COUNT];
        if n <= MAX_MULTIPLE && (n == 0 || n.is_power_of_two()) {
            self.ata.multiple = n;
            self.done();
        } else {
            self.fail(ABRT);
        }
    }

    fn data_set_management(&mut self) {
        let blocks = u64::from(u16::from_le_bytes([self.regs[COUNT], self.before[COUNT]]));
        let trim = self.regs[FEATURES] == 1 && (1..=MAX_TRIM).contains(&blocks);
        if !trim || self.host.disk.is_read_only() {
            return self.fail(ABRT);
        }
        let what = Use::Trim;
        self.transfer = Transfer { what, dma: true, left: blocks, ..Transfer::default() };
        self.next_chunk();
    }

    /// The ranges have come: 48 bits of address, 16 of length.
    pub(super) fn trim(&mut self, data: &[u8]) {
        let ranges = data.chunks_exact(8).map(|c| {
            let n = c.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b));
            (n & ((1 << 48) - 1), n >> 48)
        });
        let ranges: VecDeque<_> = ranges.filter(|&(_, n)| n > 0).collect();
        if ranges.iter().any(|&(first, n)| first + n > self.sectors()) {
            return self.fail(IDNF);
        }
        self.ata.ranges = ranges;
        self.trim_next();
    }

    pub(super) fn trim_next(&mut self) {
        match self.ata.ranges.pop_front() {
            Some((first, n)) => {
                let (offset, len) = (first * SECTOR, n * SECTOR);
                self.ask(Step::Trim, Request::Discard { offset, len });
            }
            None => self.done(),
        }
    }

    /// IDENTIFY DEVICE (6.16).
    fn identify(&self) -> [u16; 256] {
        let (sectors, a) = (self.sectors(), &self.ata);
        let lba28 = sectors.min((1 << 28) - 1);
        let chs = (a.cylinders * a.heads * a.per_track).min(lba28);
        let enabled = 0x0008 | u16::from(a.write_cache) << 5 | u16::from(a.look_ahead) << 6;
        let mut w = [0; 256];
        let cable = if self.regs[DEVICE] & 0x10 == 0 { 0x6001 } else { 0x6100 };
        let rows = [
            (0, 0x0040),
            (1, (sectors / (16 * 63)).min(16383) as u16),
            (3, 16),
            (6, 63),
            (47, 0x8000 | u16::from(MAX_MULTIPLE)),
            (49, 0x0b00), // IORDY, LBA, DMA
            (50, 0x4000),
            (51, 0x0200),
            (53, 7),
            (54, a.cylinders as u16),
            (55, a.heads as u16),
            (56, a.per_track as u16),
            (57, chs as u16),
            (58, (chs >> 16) as u16),
            (59, if a.multiple > 0 { 0x0100 | u16::from(a.multiple) } else { 0 }),
            (60, lba28 as u16),
            (61, (lba28 >> 16) as u16),
            (64, 3),
            (65, 120),
            (66, 120),
            (67, 120),
            (68, 120),
            (80, 0x00f0), // ATA-4 to ATA/ATAPI-7
            (82, 0x0068), // look-ahead, write cache, power management
            (83, 0x7400), // FLUSH CACHE, FLUSH CACHE EXT, 48 bits
            (84, 0x4040), // FUA
            (85, enabled),
            (86, 0x3400),
            (87, 0x4040),
            (93, cable),
            (105, MAX_TRIM as u16),
            (106, 0x4000),
            (169, 1), // TRIM
        ];
        rows.into_iter().chain(a.dma_words()).for_each(|(n, value)| w[n] = value);
        (0..4).for_each(|n| w[100 + n] = (sectors >> (16 * n)) as u16);
        put_string(&mut w, 10, 20, "R3-00000001");
        put_string(&mut w, 23, 8, "1.0");
        put_string(&mut w, 27, 40, "RING3 HARDDISK");
        w
    }
}
