//! The protocols as a driver plays them: through registers only.

use super::*;
use crate::disk::DiskError;
use crate::test_disk::TestDisk;
use crate::testing::Rng;
use emu_core::mem::Memory;

const BSY: u32 = 0x80;
const DRQ: u32 = 8;
const IDLE: u32 = 0x50;

struct Rig {
    ide: Ide,
    memory: Memory,
}

impl Rig {
    /// A disk on the primary channel, a CD on the secondary.
    fn new(disk: &TestDisk, cd: &TestDisk) -> Rig {
        let units = [[Some(Unit::Disk(disk.boxed())), None], [Some(Unit::Cd(cd.boxed())), None]];
        let mut ide = Ide::new(units);
        ide.config.put(4, 5);
        Rig { ide, memory: Memory::flat(1 << 20).unwrap() }
    }

    fn host(memory: &Memory) -> Host<'_> {
        Host { now: 0, memory }
    }

    fn get(&mut self, channel: usize, reg: u8, size: u8) -> u32 {
        self.ide.command_read(Rig::host(&self.memory), channel, reg, size)
    }

    fn put(&mut self, channel: usize, reg: u8, value: u32) {
        self.ide.command_write(Rig::host(&self.memory), channel, reg, 1, value);
    }

    fn control(&mut self, channel: usize, value: u8) {
        self.ide.control_write(Rig::host(&self.memory), channel, value);
    }

    fn regs(&mut self, channel: usize, values: &[(u8, u32)]) {
        values.iter().for_each(|&(reg, value)| self.put(channel, reg, value));
    }

    /// A 28-bit command on the primary channel.
    fn lba28(&mut self, opcode: u32, lba: u32, count: u32) {
        let [a, b, c, d] = lba.to_le_bytes().map(u32::from);
        self.regs(0, &[(6, 0xe0 | d), (2, count), (3, a), (4, b), (5, c), (7, opcode)]);
    }

    fn lba48(&mut self, opcode: u32, lba: u64, count: u32) {
        let b = lba.to_le_bytes().map(u32::from);
        self.regs(0, &[(6, 0xe0), (2, count >> 8), (3, b[3]), (4, b[4]), (5, b[5])]);
        self.regs(0, &[(2, count & 0xff), (3, b[0]), (4, b[1]), (5, b[2]), (7, opcode)]);
    }

    fn pio_in(&mut self, channel: usize, bytes: usize) -> Vec<u8> {
        (0..bytes / 2).flat_map(|_| (self.get(channel, 0, 2) as u16).to_le_bytes()).collect()
    }

    fn pio_out(&mut self, channel: usize, data: &[u8]) {
        for w in data.chunks(2) {
            let value = u16::from_le_bytes([w[0], w[1]]).into();
            self.ide.command_write(Rig::host(&self.memory), channel, 0, 2, value);
        }
    }

    /// Acknowledges the interrupt, which must be there; the status.
    fn interrupt(&mut self, channel: usize) -> u32 {
        assert!(self.ide.irq(channel), "no interrupt");
        let status = self.get(channel, 7, 1);
        assert!(!self.ide.irq(channel), "the status register acknowledges");
        status
    }

    fn master(&mut self, offset: u64, size: u8) -> u64 {
        self.ide.read(Rig::host(&self.memory), BUS_MASTER, offset, size)
    }

    fn set_master(&mut self, offset: u64, size: u8, value: u64) {
        self.ide.write(Rig::host(&self.memory), BUS_MASTER, offset, size, value);
    }

    /// A table at 1000H of regions (address, length); starts the bus master.
    fn start_dma(&mut self, channel: u64, to_memory: bool, regions: &[(u32, u32)]) {
        for (n, &(at, len)) in regions.iter().enumerate() {
            let eot = u32::from(n + 1 == regions.len()) << 31;
            let entry = u64::from(at) | u64::from(len & 0xffff | eot) << 32;
            self.memory.write(0x1000 + 8 * n as u64, &entry.to_le_bytes());
        }
        self.set_master(8 * channel, 1, 0);
        self.set_master(8 * channel + 4, 4, 0x1000);
        self.set_master(8 * channel + 2, 1, 6);
        self.set_master(8 * channel, 1, if to_memory { 9 } else { 1 });
    }

    /// Sends a packet; the byte count limit is `limit`.
    fn packet(&mut self, dma: bool, limit: u32, packet: &[u8]) {
        self.regs(1, &[(6, 0xa0), (1, dma.into()), (4, limit & 0xff), (5, limit >> 8), (7, 0xa0)]);
        assert_eq!((self.get(1, 7, 1) & (BSY | DRQ), self.get(1, 2, 1)), (DRQ, 1));
        let mut bytes = packet.to_vec();
        bytes.resize(12, 0);
        self.pio_out(1, &bytes);
    }

    /// A packet with its data by PIO; the data, or the sense of the error.
    fn atapi(&mut self, packet: &[u8]) -> Result<Vec<u8>, [u8; 3]> {
        self.packet(false, 0xfffe, packet);
        let mut data = Vec::new();
        loop {
            let status = self.interrupt(1);
            if status & 1 != 0 {
                assert_eq!(self.get(1, 2, 1), 3);
                let key = self.get(1, 1, 1) >> 4;
                let s = self.atapi(&[3, 0, 0, 0, 18, 0]).unwrap();
                assert_eq!(u32::from(s[2]), key);
                return Err([s[2], s[12], s[13]]);
            }
            if status & DRQ == 0 {
                assert_eq!((status, self.get(1, 2, 1)), (IDLE, 3));
                return Ok(data);
            }
            assert_eq!(self.get(1, 2, 1), 2);
            let n = self.get(1, 4, 2) as usize;
            data.extend(self.pio_in(1, n.next_multiple_of(2)));
            data.truncate(data.len() - n % 2);
        }
    }
}

fn words(bytes: &[u8]) -> Vec<u16> {
    bytes.chunks(2).map(|w| u16::from_le_bytes([w[0], w[1]])).collect()
}

#[test]
fn drives_are_found_by_their_signatures_and_identified() {
    let (disk, cd) = (TestDisk::counting(100_000), TestDisk::new(vec![0; 2048]));
    let mut r = Rig::new(&disk, &cd);
    for (channel, mid, high, status) in [(0, 0, 0, IDLE), (1, 0x14, 0xeb, 0)] {
        r.control(channel, 4);
        assert_eq!(r.get(channel, 7, 1), BSY);
        r.control(channel, 0);
        let regs = [1, 2, 3, 4, 5, 7].map(|n| r.get(channel, n, 1));
        assert_eq!(regs, [1, 1, 1, mid, high, status]);
        // There is no drive 1.
        r.put(channel, 6, 0xb0);
        let device = if channel == 0 { 0xb0 } else { 0 };
        assert_eq!((r.get(channel, 7, 1), r.get(channel, 6, 1)), (0, device));
        r.put(channel, 7, 0xec);
        assert_eq!((r.get(channel, 7, 1), r.ide.irq(channel)), (0, false));
    }
    r.regs(0, &[(6, 0xa0), (7, 0xec)]);
    assert_eq!(r.interrupt(0), IDLE | DRQ);
    let bytes = r.pio_in(0, 512);
    assert_eq!((r.get(0, 7, 1), bytes.iter().fold(0u8, |s, &b| s.wrapping_add(b))), (IDLE, 0));
    let w = words(&bytes);
    assert_eq!((w[1], w[3], w[6]), (99, 16, 63));
    assert_eq!((w[60], w[61], w[100], w[101], w[88]), (34464, 1, 34464, 1, 0x203f));
    assert_eq!(&bytes[54..68], b"IRGN 3AHDRIDKS");
    // A CD drive does not answer IDENTIFY DEVICE.
    r.regs(1, &[(6, 0xa0), (7, 0xec)]);
    assert_eq!((r.interrupt(1), r.get(1, 1, 1), r.get(1, 5, 1)), (0x51, 4, 0xeb));
    r.put(1, 7, 0xa1);
    assert_eq!(r.interrupt(1), IDLE | DRQ);
    assert_eq!((words(&r.pio_in(1, 512))[0], r.get(1, 7, 1)), (0x85c0, IDLE));
    // The diagnostic is both drives', and drive 0 interrupts.
    r.put(0, 7, 0x90);
    assert_eq!((r.interrupt(0), r.get(0, 1, 1)), (IDLE, 1));
}

#[test]
fn sectors_are_read_and_written_by_pio_in_all_addresses() {
    let (disk, cd) = (TestDisk::counting(4096), TestDisk::default());
    let mut r = Rig::new(&disk, &cd);
    r.lba28(0x20, 5, 2);
    for n in [5u16, 6] {
        assert_eq!(r.interrupt(0), IDLE | DRQ);
        assert_eq!(words(&r.pio_in(0, 512))[..2], [n * 256, n * 256 + 1]);
    }
    assert_eq!((r.get(0, 7, 1), r.ide.irq(0)), (IDLE, false), "no interrupt after the last");
    // READ MULTIPLE in blocks of four, and a rest; then 32-bit accesses.
    r.regs(0, &[(2, 4), (7, 0xc6)]);
    assert_eq!(r.interrupt(0), IDLE);
    r.lba48(0x29, 7, 6);
    for sectors in [4, 2] {
        assert_eq!(r.interrupt(0), IDLE | DRQ);
        r.pio_in(0, 512 * sectors);
    }
    assert_eq!(r.get(0, 7, 1), IDLE);
    r.lba28(0x20, 1, 1);
    assert_eq!((r.interrupt(0), r.get(0, 0, 4)), (IDLE | DRQ, 257 << 16 | 256));
    r.control(0, 4);
    r.control(0, 0);
    // Cylinder 1, head 2, sector 3.
    r.regs(0, &[(6, 0xa2), (2, 1), (3, 3), (4, 1), (5, 0), (7, 0x20)]);
    let sector = (16 + 2) * 63 + 2;
    assert_eq!((r.interrupt(0), words(&r.pio_in(0, 512))[0]), (IDLE | DRQ, (sector * 256) as u16));
    // 4 heads, 32 sectors a track: the same place is another sector.
    r.regs(0, &[(6, 0xa3), (2, 32), (7, 0x91)]);
    assert_eq!(r.interrupt(0), IDLE);
    r.regs(0, &[(6, 0xa2), (2, 1), (3, 3), (4, 1), (5, 0), (7, 0x20)]);
    let sector = (4 + 2) * 32 + 2;
    assert_eq!((r.interrupt(0), words(&r.pio_in(0, 512))[0]), (IDLE | DRQ, (sector * 256) as u16));
    // Writes have no interrupt before their first block, and one at the end.
    for (opcode, blocks) in [(0x30, [1, 1, 1].as_slice()), (0xc5, &[3]), (0x39, &[3])] {
        if opcode == 0x39 {
            r.lba48(opcode, 9, 3)
        } else {
            r.lba28(opcode, 9, 3)
        }
        assert!(!r.ide.irq(0));
        for (n, &sectors) in blocks.iter().enumerate() {
            assert_eq!(r.ide.control_read(Rig::host(&r.memory), 0), (IDLE | DRQ) as u8);
            r.pio_out(0, &vec![opcode as u8; 512 * sectors]);
            let want = if n + 1 == blocks.len() { IDLE } else { IDLE | DRQ };
            assert_eq!(r.interrupt(0), want);
        }
        assert!(disk.state().disk.bytes[9 * 512..12 * 512].iter().all(|&b| b == opcode as u8));
    }
    // 256 sectors are written as 0; more than one request to the host is one command.
    r.lba48(0x34, 100, 600);
    for n in 0..600 {
        r.pio_out(0, &[7; 512]);
        assert_eq!(r.interrupt(0) & DRQ != 0, n < 599);
    }
    assert!(disk.state().disk.bytes[100 * 512..700 * 512].iter().all(|&b| b == 7));
    r.lba28(0x40, 0, 0);
    assert_eq!(r.interrupt(0), IDLE, "READ VERIFY");
    r.put(0, 7, 0x27);
    assert_eq!((r.interrupt(0), r.get(0, 3, 1), r.get(0, 4, 1)), (IDLE, 0xff, 0x0f));
}

#[test]
fn the_high_order_bytes_of_registers_are_read_with_hob() {
    let (disk, cd) = (TestDisk::counting(16), TestDisk::default());
    let mut r = Rig::new(&disk, &cd);
    r.lba48(0x24, 0x0605_0403_0201, 0x0807);
    assert_eq!((r.interrupt(0), r.get(0, 1, 1)), (0x51, 0x10), "there is no such sector");
    assert_eq!([2, 3, 4, 5].map(|n| r.get(0, n, 1)), [7, 1, 2, 3]);
    r.control(0, 0x80);
    assert_eq!([2, 3, 4, 5].map(|n| r.get(0, n, 1)), [8, 4, 5, 6]);
    r.put(0, 2, 0);
    assert_eq!(r.get(0, 5, 1), 3, "a write turns HOB off");
}

#[test]
fn errors_are_told_in_the_error_register() {
    let (disk, cd) = (TestDisk::counting(16), TestDisk::default());
    let mut r = Rig::new(&disk, &cd);
    let error = |r: &mut Rig| {
        let status = r.interrupt(0);
        (status & 0x21, r.get(0, 1, 1))
    };
    r.lba28(0x20, 15, 2);
    assert_eq!(error(&mut r), (1, 0x10));
    r.regs(0, &[(6, 0xa0), (2, 1), (3, 0), (7, 0x20)]);
    assert_eq!(error(&mut r), (1, 0x10), "sectors count from 1");
    r.put(0, 7, 0x08);
    assert_eq!(error(&mut r), (1, 4), "no disk knows DEVICE RESET");
    r.regs(0, &[(2, 3), (7, 0xc6)]);
    assert_eq!(error(&mut r), (1, 4));
    r.regs(0, &[(1, 0x90), (7, 0xef)]);
    assert_eq!(error(&mut r), (1, 4));
    disk.state().error = Some(DiskError::Io);
    r.lba28(0x20, 3, 1);
    assert_eq!((error(&mut r), r.get(0, 3, 1)), ((1, 0x40), 3));
    r.lba28(0x30, 3, 1);
    r.pio_out(0, &[0; 512]);
    assert_eq!(error(&mut r), (0x21, 4));
    r.put(0, 7, 0xe7);
    assert_eq!(error(&mut r), (0x21, 4), "a flush that failed is told");
    disk.state().error = None;
    disk.state().disk.read_only = true;
    r.lba28(0x30, 3, 1);
    assert_eq!(error(&mut r), (1, 4));
    r.lba28(0xca, 3, 1);
    assert_eq!(error(&mut r), (1, 4));
}

#[test]
fn dma_goes_where_the_table_says() {
    let (disk, cd) = (TestDisk::counting(2048), TestDisk::default());
    let mut r = Rig::new(&disk, &cd);
    let bytes = disk.state().disk.bytes.clone();
    r.lba28(0xc8, 4, 3);
    assert!(!r.ide.irq(0), "it waits for the bus master");
    r.start_dma(0, true, &[(0x2000, 512), (0x8002, 1000), (0xc000, 24)]);
    assert_eq!((r.master(2, 1), r.interrupt(0)), (4, IDLE), "all moved: no more active");
    let mut got = vec![0; 512];
    r.memory.read(0x2000, &mut got);
    assert_eq!(got, bytes[2048..2560]);
    got.resize(1000, 0);
    r.memory.read(0x8002, &mut got);
    assert_eq!(got, bytes[2560..3560]);
    // The table is longer than the data: active stays.
    r.start_dma(0, false, &[(0x8002, 0x8000)]);
    r.lba48(0x35, 0, 1);
    assert_eq!((r.master(2, 1), r.interrupt(0)), (5, IDLE));
    r.set_master(0, 1, 0);
    assert_eq!(r.master(2, 1), 4);
    assert_eq!(disk.state().disk.bytes[..512], bytes[2560..3072]);
    // It is shorter: the drive waits, without an interrupt, until a new table goes on.
    r.lba48(0x25, 0, 512);
    r.start_dma(0, true, &[(0x1_0000, 0), (0x2_0000, 0)]);
    assert_eq!((r.master(2, 1), r.ide.irq(0), r.get(0, 7, 1)), (0, false, BSY));
    r.set_master(0, 1, 0);
    r.start_dma(0, true, &[(0x3_0000, 0), (0x4_0000, 0)]);
    assert_eq!((r.master(2, 1), r.interrupt(0)), (4, IDLE));
    // Nothing moves in the wrong direction, or if it may not master the bus.
    r.lba28(0xc8, 4, 1);
    r.start_dma(0, false, &[(0x2000, 512)]);
    assert!(!r.ide.irq(0));
    r.set_master(0, 1, 0);
    r.ide.config.put(4, 1);
    r.start_dma(0, true, &[(0x2000, 512)]);
    assert!(!r.ide.irq(0));
    r.ide.config.put(4, 5);
    r.ide.advance(Host { now: 0, memory: &r.memory });
    assert_eq!(r.interrupt(0), IDLE);
    assert_eq!(r.memory.read_array::<2>(0x2000), bytes[2048..2050]);
}

#[test]
fn a_drive_is_busy_until_the_host_has_finished() {
    let (disk, cd) = (TestDisk::counting(64), TestDisk::default());
    let mut r = Rig::new(&disk, &cd);
    disk.state().held = true;
    r.lba28(0x20, 1, 1);
    assert_eq!((r.get(0, 7, 1), r.ide.irq(0)), (BSY, false));
    r.put(0, 3, 9);
    r.put(0, 7, 0xec);
    disk.state().held = false;
    r.ide.advance(Host { now: 0, memory: &r.memory });
    assert_eq!((r.interrupt(0), r.get(0, 0, 2), r.get(0, 3, 1)), (IDLE | DRQ, 256, 1));
    // A reset forgets the request, and fills no queue.
    disk.state().held = true;
    for _ in 0..100 {
        r.control(0, 4);
        r.control(0, 0);
        assert_eq!(r.get(0, 7, 1), IDLE);
        r.lba28(0x20, 2, 1);
    }
    assert_eq!((r.get(0, 7, 1), disk.state().most), (BSY, 1));
    disk.state().held = false;
    assert_eq!((r.get(0, 7, 1), r.get(0, 0, 2)), (IDLE | DRQ, 512));
    // nIEN holds the interrupt back.
    r.control(0, 6);
    r.control(0, 2);
    r.put(0, 7, 0xe7);
    assert_eq!((r.ide.irq(0), disk.state().disk.flushes), (false, 1));
    r.control(0, 0);
    assert_eq!(r.interrupt(0), IDLE);
}

#[test]
fn without_a_cache_what_is_written_is_flushed() {
    let (disk, cd) = (TestDisk::counting(64), TestDisk::default());
    let mut r = Rig::new(&disk, &cd);
    let write = |r: &mut Rig, opcode| {
        r.lba28(opcode, 1, 1);
        r.pio_out(0, &[1; 512]);
        assert_eq!(r.interrupt(0), IDLE);
        disk.state().disk.flushes
    };
    assert_eq!(write(&mut r, 0x30), 0);
    r.regs(0, &[(1, 0x82), (7, 0xef)]);
    assert_eq!((r.interrupt(0), write(&mut r, 0x30)), (IDLE, 2));
    r.regs(0, &[(1, 0x02), (7, 0xef)]);
    assert_eq!((r.interrupt(0), write(&mut r, 0x30)), (IDLE, 2));
    r.lba48(0xce, 0, 1);
    r.pio_out(0, &[1; 512]);
    assert_eq!((r.interrupt(0), disk.state().disk.flushes), (IDLE, 3), "FUA");
}

#[test]
fn trim_discards_ranges() {
    let (disk, cd) = (TestDisk::counting(64), TestDisk::default());
    let mut r = Rig::new(&disk, &cd);
    let mut list = [0; 512];
    for (n, range) in [2u64 | 3 << 48, 0, 10 | 1 << 48].into_iter().enumerate() {
        list[8 * n..8 * n + 8].copy_from_slice(&range.to_le_bytes());
    }
    r.memory.write(0x2000, &list);
    r.start_dma(0, false, &[(0x2000, 512)]);
    r.put(0, 1, 1);
    r.lba48(0x06, 0, 1);
    assert_eq!(r.interrupt(0), IDLE);
    let zero = |n: usize| disk.state().disk.bytes[512 * n..][..512].iter().all(|&b| b == 0);
    assert_eq!([1, 2, 4, 5, 10, 11].map(zero), [false, true, true, false, true, false]);
    list[0] = 63;
    r.memory.write(0x2000, &list);
    r.start_dma(0, false, &[(0x2000, 512)]);
    r.lba48(0x06, 0, 1);
    assert_eq!((r.interrupt(0), r.get(0, 1, 1)), (0x51, 0x10));
}

#[test]
fn a_cd_is_read_by_pio_and_dma() {
    let (disk, cd) = (TestDisk::default(), TestDisk::counting(400));
    let mut r = Rig::new(&disk, &cd);
    let bytes = cd.state().disk.bytes.clone();
    assert_eq!(r.atapi(&[0]), Ok(vec![]));
    assert_eq!(r.atapi(&[0x25]), Ok(vec![0, 0, 0, 99, 0, 0, 8, 0]));
    assert_eq!(r.atapi(&[0x28, 0, 0, 0, 0, 7, 0, 0, 3]).unwrap(), bytes[14336..20480]);
    assert_eq!(r.atapi(&[0xa8, 0, 0, 0, 0, 0, 0, 0, 0, 100]).unwrap(), bytes);
    assert_eq!(r.atapi(&[0xbe, 0, 0, 0, 0, 1, 0, 0, 1, 0x10]).unwrap(), bytes[2048..4096]);
    assert_eq!(r.atapi(&[0x28, 0, 0, 0, 0, 7, 0, 0, 94]), Err([5, 0x21, 0]));
    assert_eq!(r.atapi(&[0x28, 0, 0, 0, 0, 100, 0, 0, 0]), Ok(vec![]));
    assert_eq!(r.atapi(&[0x2a]), Err([5, 0x20, 0]));
    // No more than the guest's limit in one go.
    r.packet(false, 1000, &[0x28, 0, 0, 0, 0, 0, 0, 0, 1]);
    for n in [1000, 1000, 48] {
        assert_eq!((r.interrupt(1), r.get(1, 4, 2)), (IDLE | DRQ, n));
        r.pio_in(1, n as usize);
    }
    assert_eq!((r.interrupt(1), r.get(1, 2, 1)), (IDLE, 3));
    r.packet(true, 0, &[0x28, 0, 0, 0, 0, 2, 0, 0, 90]);
    r.start_dma(1, true, &[(0x1_0000, 0), (0x2_0000, 0), (0x3_0000, 0xd000)]);
    assert_eq!((r.interrupt(1), r.master(10, 1), r.get(1, 2, 1)), (IDLE, 4, 3));
    let mut got = vec![0; 90 * 2048];
    r.memory.read(0x1_0000, &mut got);
    assert_eq!(got, bytes[4096..][..90 * 2048]);
    cd.state().error = Some(DiskError::Io);
    assert_eq!(r.atapi(&[0x28, 0, 0, 0, 0, 7, 0, 0, 1]), Err([3, 0x11, 0]));
}

#[test]
fn a_cd_drive_tells_what_it_is_and_what_is_in_it() {
    let (disk, cd) = (TestDisk::default(), TestDisk::counting(400));
    let mut r = Rig::new(&disk, &cd);
    assert_eq!(&r.atapi(&[0x12, 0, 0, 0, 36]).unwrap()[..16], b"\x05\x80\0\x21\x1f\0\0\0RING3   ");
    assert_eq!(r.atapi(&[0x12, 0, 0, 0, 5]).unwrap().len(), 5);
    let toc = [0, 18, 1, 1, 0, 0x14, 1, 0, 0, 0, 0, 0, 0, 0x14, 0xaa, 0, 0, 0, 0, 100];
    assert_eq!(r.atapi(&[0x43, 0, 0, 0, 0, 0, 0, 0, 40]).unwrap(), toc);
    let toc = r.atapi(&[0x43, 2, 0, 0, 0, 0, 0xaa, 0, 40]).unwrap();
    assert_eq!(toc, [0, 10, 1, 1, 0, 0x14, 0xaa, 0, 0, 0, 3, 25]);
    assert_eq!(r.atapi(&[0x43, 0, 2, 0, 0, 0, 1, 0, 255]).unwrap().len(), 48);
    assert_eq!(r.atapi(&[0x43, 0, 5, 0, 0, 0, 1, 0, 255]), Err([5, 0x24, 0]));
    let c = r.atapi(&[0x46, 0, 0, 0, 0, 0, 0, 1, 0]).unwrap();
    assert_eq!((c.len(), c[3], c[7]), (64, 60, 8));
    assert_eq!(r.atapi(&[0x46, 2, 0, 0x10, 0, 0, 0, 1, 0]).unwrap()[8..12], [0, 0x10, 1, 8]);
    let page = r.atapi(&[0x5a, 0, 0x2a, 0, 0, 0, 0, 0, 128]).unwrap();
    assert_eq!((page.len(), page[8], page[9], page[14]), (30, 0x2a, 20, 0x29));
    assert_eq!(r.atapi(&[0x5a, 0, 0x3f, 0, 0, 0, 0, 0, 128]).unwrap().len(), 54);
    assert_eq!(r.atapi(&[0x5a, 0, 0x05, 0, 0, 0, 0, 0, 128]), Err([5, 0x24, 0]));
    assert_eq!(r.atapi(&[0xbd, 0, 0, 0, 0, 0, 0, 0, 0, 8]).unwrap().len(), 8);
    assert_eq!(r.atapi(&[0x51, 0, 0, 0, 0, 0, 0, 0, 34]).unwrap()[..3], [0, 32, 0x0e]);
    let sub = r.atapi(&[0x42, 0, 0x40, 1, 0, 0, 0, 0, 16]).unwrap();
    assert_eq!((sub.len(), sub[3], sub[4]), (16, 12, 1));
}

#[test]
fn the_medium_changes_and_the_tray_opens() {
    let (disk, cd) = (TestDisk::default(), TestDisk::default());
    let mut r = Rig::new(&disk, &cd);
    let event = [0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8];
    assert_eq!(r.atapi(&[0]), Err([2, 0x3a, 1]));
    cd.state().disk.bytes = vec![1; 4096];
    cd.state().generation = 1;
    assert_eq!(r.atapi(&event).unwrap(), [0, 6, 4, 0x10, 2, 2, 0, 0]);
    assert_eq!(r.atapi(&[0x12, 0, 0, 0, 5]).unwrap().len(), 5, "INQUIRY is served");
    assert_eq!(r.atapi(&[0]), Err([6, 0x28, 0]));
    assert_eq!((r.atapi(&[0]), r.atapi(&event).unwrap()[4]), (Ok(vec![]), 0));
    // Locked, it does not open.
    assert_eq!(r.atapi(&[0x1e, 0, 0, 0, 1]), Ok(vec![]));
    assert_eq!(r.atapi(&[0x1b, 0, 0, 0, 2]), Err([5, 0x53, 2]));
    assert_eq!(r.atapi(&[0x1e, 0, 0, 0, 0]), Ok(vec![]));
    assert_eq!(r.atapi(&[0x1b, 0, 0, 0, 2]), Ok(vec![]));
    assert_eq!(r.atapi(&[0x25]), Err([2, 0x3a, 2]));
    assert_eq!(cd.state().ejected, 1);
    assert_eq!(r.atapi(&event).unwrap()[4..6], [3, 1]);
    assert_eq!(r.atapi(&[0x1b, 0, 0, 0, 3]), Ok(vec![]));
    assert_eq!(r.atapi(&[0]), Err([6, 0x28, 0]), "it may be another");
    assert_eq!(r.atapi(&[0]), Ok(vec![]));
    // DEVICE RESET leaves even a busy drive's command.
    cd.state().held = true;
    r.packet(true, 0, &[0x28, 0, 0, 0, 0, 0, 0, 0, 1]);
    assert_eq!(r.get(1, 7, 1), BSY);
    r.put(1, 7, 8);
    assert_eq!((r.get(1, 7, 1), r.get(1, 4, 2)), (0, 0xeb14));
}

#[test]
fn random_accesses() {
    let (disk, cd) = (TestDisk::counting(2000), TestDisk::counting(400));
    let (mut r, mut rng) = (Rig::new(&disk, &cd), Rng(11));
    let opcodes =
        [0x20, 0x24, 0x25, 0x29, 0x30, 0x34, 0x35, 0xa0, 0xa1, 0xc4, 0xc5, 0xc6, 0xc8, 0xca, 0xec];
    for n in 0..400_000u64 {
        let (channel, value) = (rng.below(2) as usize, rng.next() as u32);
        let (reg, size) = (rng.below(8) as u8, [1, 2, 4][rng.below(3) as usize]);
        match rng.below(16) {
            0..5 => drop(r.get(channel, reg, size)),
            5 => r.ide.command_write(Rig::host(&r.memory), channel, reg, size, value),
            6..9 => r.ide.command_write(Rig::host(&r.memory), channel, 0, size, value),
            9 => r.put(channel, 7, opcodes[value as usize % opcodes.len()]),
            10 => r.lba28(opcodes[value as usize % opcodes.len()], value % 1000, value >> 30),
            11 if value & 7 == 0 => r.control(channel, (value >> 8) as u8),
            12 => r.set_master(rng.below(16), size, value.into()),
            13 => r.start_dma(channel as u64, value & 1 != 0, &[(value >> 8, value & 0xffff)]),
            14 => r.packet_blindly(rng.next()),
            _ => drop(r.master(rng.below(13), size)),
        }
        let mut d = if rng.below(2) == 0 { disk.state() } else { cd.state() };
        match n % 1024 {
            0 => d.held = !d.held,
            1 => d.error = (n & 2048 == 0).then_some(DiskError::Io),
            2 => d.generation += 1,
            _ => {}
        }
        assert!(d.most <= 1);
    }
}

impl Rig {
    fn packet_blindly(&mut self, seed: u64) {
        let codes =
            [0, 3, 0x12, 0x1b, 0x1e, 0x25, 0x28, 0x42, 0x43, 0x46, 0x4a, 0x51, 0x5a, 0xa8, 0xbd];
        let mut packet: Vec<u8> = seed.to_le_bytes().into_iter().cycle().take(12).collect();
        packet[0] = codes[seed as usize % codes.len()];
        if seed >> 60 & 1 == 0 {
            packet[2..8].fill(0);
        }
        self.regs(1, &[(6, 0xa0), (1, (seed >> 20 & 1) as u32), (7, 0xa0)]);
        self.pio_out(1, &packet);
    }
}
