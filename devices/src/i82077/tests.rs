//! The controller as a driver and its DMA channel meet it.

use super::command::COMMANDS;
use super::*;
use crate::i8237::Dma;
use crate::test_disk::TestDisk;
use crate::testing::Rng;
use emu_core::mem::Memory;

const BUFFER: u32 = 0x1_0000;

struct Rig {
    fdc: I82077,
    dma: Dma,
    memory: Memory,
}

impl Rig {
    /// A controller that is out of reset, with drive A and the data rate of 1.44 MB.
    fn new(disk: &TestDisk) -> Rig {
        let fdc = I82077::new([Some(disk.boxed()), None]);
        let mut r = Rig { fdc, dma: Dma::new(), memory: Memory::flat(1 << 18).unwrap() };
        r.put(2, 0);
        r.put(2, 0x1c);
        assert!(r.fdc.irq());
        for n in 0..4 {
            assert_eq!(r.run(&[8]), [0xc0 | n, 0]);
        }
        assert!(!r.fdc.irq());
        assert_eq!(r.run(&[8]), [0x80]);
        r.put(7, 0);
        assert_eq!(r.run(&[3, 0xdf, 2]), []);
        r
    }

    fn put(&mut self, reg: u16, value: u8) {
        self.fdc.write(reg, value);
        self.pump();
    }

    /// What the board does after each access.
    fn pump(&mut self) {
        while let Some(data) = self.fdc.dma() {
            let moved = match data {
                FloppyDma::ToMemory(d) => self.dma.write_memory(&self.memory, 2, d),
                FloppyDma::FromMemory(d) => self.dma.read_memory(&self.memory, 2, d),
            };
            if moved.bytes == 0 {
                break;
            }
            self.fdc.dma_moved(moved);
        }
    }

    /// Channel 2 for `len` bytes at [`BUFFER`].
    fn program(&mut self, mode: u8, len: usize) {
        let count = (len - 1) as u16;
        self.dma.page_write(1, (BUFFER >> 16) as u8);
        let regs = [(10, 6), (12, 0), (11, mode | 2), (4, 0), (4, 0)];
        regs.into_iter().for_each(|(reg, value)| self.dma.write(0, reg, value));
        count.to_le_bytes().iter().for_each(|&b| self.dma.write(0, 5, b));
        self.dma.write(0, 10, 2);
    }

    fn send(&mut self, command: &[u8]) {
        for &byte in command {
            assert_eq!(self.fdc.read(4) & 0xc0, 0x80, "it takes no byte");
            self.put(5, byte);
        }
    }

    /// A command to the end; its result.
    fn run(&mut self, command: &[u8]) -> Vec<u8> {
        self.send(command);
        self.result()
    }

    fn result(&mut self) -> Vec<u8> {
        let mut result = Vec::new();
        while self.fdc.read(4) & 0xd0 == 0xd0 {
            result.push(self.fdc.read(5));
        }
        assert_eq!(self.fdc.read(4), 0x80);
        result
    }

    fn seek(&mut self, track: u8) {
        assert_eq!(self.run(&[0x0f, 0, track]), []);
        assert!(self.fdc.irq());
        assert_eq!(self.run(&[8]), [0x20, track]);
    }

    fn data(&self, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        self.memory.read(BUFFER.into(), &mut data);
        data
    }
}

#[test]
fn sectors_are_read_by_dma() {
    let disk = TestDisk::counting(2880);
    let bytes = disk.state().disk.bytes.clone();
    let mut r = Rig::new(&disk);
    assert_eq!((r.fdc.read(7), r.run(&[7, 0])), (0x80, vec![]), "not known yet");
    assert_eq!((r.run(&[8]), r.fdc.read(7)), (vec![0x20, 0], 0));
    r.program(0x44, 1024);
    // Track 0, head 0, sector 1, to the end of the track: the DMA channel stops it after two.
    assert_eq!(r.run(&[0xe6, 0, 0, 0, 1, 2, 18, 27, 255]), [0, 0, 0, 0, 0, 3, 2]);
    assert_eq!(r.data(1024), bytes[..1024]);
    r.seek(5);
    // Across both heads.
    r.program(0x44, 19 * 512);
    r.send(&[0xe6, 0, 5, 0, 17, 2, 18, 27, 255]);
    assert!(r.fdc.irq());
    assert_eq!(r.result(), [4, 0, 0, 5, 1, 18, 2]);
    assert!(!r.fdc.irq());
    assert_eq!(r.data(19 * 512), bytes[(5 * 36 + 16) * 512..][..19 * 512]);
    // The whole cylinder: the next sector is on the next.
    r.program(0x44, 36 * 512);
    assert_eq!(r.run(&[0xe6, 0, 5, 0, 1, 2, 18, 27, 255])[3..], [6, 0, 1, 2]);
    // One head only, and no end by the channel.
    r.program(0x44, 0x8000);
    assert_eq!(r.run(&[0x46, 4, 5, 1, 18, 2, 18, 27, 255]), [0x44, 0x80, 0, 6, 1, 1, 2]);
    // The channel is not ready, and the controller waits.
    r.dma.write(0, 10, 6);
    r.send(&[0x46, 4, 5, 1, 2, 2, 18, 27, 255]);
    assert_eq!((r.fdc.read(4), r.fdc.irq()), (0x10, false));
    r.program(0x44, 512);
    r.pump();
    assert_eq!(r.result(), [4, 0, 0, 5, 1, 3, 2]);
    assert_eq!(r.run(&[0x56, 0, 5, 0, 1, 2, 18, 27, 0])[..3], [0, 0, 0], "VERIFY");
    assert_eq!(r.run(&[0x4a, 4]), [4, 0, 0, 5, 1, 1, 2], "READ ID");
}

#[test]
fn sectors_are_written_and_tracks_formatted() {
    let disk = TestDisk::counting(2880);
    let mut r = Rig::new(&disk);
    r.seek(2);
    r.memory.write(BUFFER.into(), &[0xaa; 1024]);
    r.program(0x48, 700);
    assert_eq!(r.run(&[0xc5, 0, 2, 0, 3, 2, 18, 27, 255]), [0, 0, 0, 2, 0, 5, 2]);
    let at = (72 + 2) * 512;
    let sector = disk.state().disk.bytes[at..at + 1024].to_vec();
    assert!(sector[..700] == [0xaa; 700] && sector[700..] == [0; 324], "the rest is zeros");
    for n in 0..18u8 {
        r.memory.write(u64::from(BUFFER) + 4 * u64::from(n), &[2, 1, n + 1, 2]);
    }
    r.program(0x48, 72);
    assert_eq!(r.run(&[0x4d, 4, 2, 18, 84, 0xf6])[..3], [4, 0, 0]);
    assert!(disk.state().disk.bytes[90 * 512..108 * 512].iter().all(|&b| b == 0xf6));
    r.memory.write(BUFFER.into(), &[3]);
    r.program(0x48, 72);
    assert_eq!(r.run(&[0x4d, 4, 2, 18, 84, 0xf6])[..2], [0x44, 4]);
    disk.state().disk.read_only = true;
    assert_eq!(r.run(&[0xc5, 0, 2, 0, 3, 2, 18, 27, 255])[..2], [0x40, 2]);
    assert_eq!(r.run(&[4, 4]), [0x6c], "write protected");
    disk.state().error = Some(DiskError::Io);
    assert_eq!(r.run(&[0x46, 0, 2, 0, 1, 2, 18, 27, 255])[..3], [0x40, 0x20, 0x20]);
}

#[test]
fn what_is_not_on_the_disk_is_not_found() {
    let disk = TestDisk::counting(2880);
    let mut r = Rig::new(&disk);
    let table = [
        ([0x46, 0, 1, 0, 1, 2, 18], [0x40, 4, 0x10]), // another cylinder
        ([0x46, 0, 0, 1, 1, 2, 18], [0x40, 4, 0]),    // another head
        ([0x46, 0, 0, 0, 19, 2, 36], [0x40, 4, 0]),
        ([0x46, 0, 0, 0, 0, 2, 18], [0x40, 4, 0]),
        ([0x46, 0, 0, 0, 1, 3, 18], [0x40, 4, 0]),
        ([0x46, 1, 0, 0, 1, 2, 18], [0x41, 1, 0]), // no drive B
    ];
    for (command, result) in table {
        assert_eq!(r.run(&[&command[..], &[27, 255]].concat())[..3], result, "{command:?}");
    }
    // At the rate of 720 KB nothing is found, and then the other way round.
    r.put(7, 2);
    assert_eq!(r.run(&[0x4a, 0])[..2], [0x40, 1]);
    disk.state().disk.bytes.truncate(1440 * 512);
    disk.state().generation = 1;
    assert_eq!((r.run(&[0x4a, 0])[..2].to_vec(), r.fdc.read(7)), (vec![0, 0], 0x80));
    r.program(0x44, 512);
    assert_eq!(r.run(&[0xe6, 0, 0, 0, 9, 2, 9, 27, 255]), [4, 0, 0, 0, 1, 1, 2]);
    r.put(7, 0);
    assert_eq!(r.run(&[0x4a, 0])[..2], [0x40, 1]);
    // A short image of 1.44 MB ends in zeros; an implied seek gets there.
    disk.state().disk.bytes.truncate(600 * 512);
    assert_eq!(r.run(&[0x13, 0, 0x57, 0]), []);
    r.program(0x44, 1024);
    r.memory.write(BUFFER.into(), &[1; 1024]);
    assert_eq!(r.run(&[0x46, 0, 79, 0, 1, 2, 18, 27, 255])[..3], [0x20, 0, 0]);
    assert_eq!(r.data(1024), [0; 1024]);
    disk.state().disk.bytes.clear();
    assert_eq!((r.run(&[0x4a, 0])[..2].to_vec(), r.fdc.read(7)), (vec![0x60, 1], 0x80));
    let sizes = [(720, 9), (1440, 9), (2400, 15), (2880, 18), (5760, 36), (1, 18), (9999, 36)];
    for (sectors, track) in sizes {
        assert_eq!(Geometry::of(sectors * 512).map(|g| g.sectors), Some(track));
    }
}

#[test]
fn without_dma_data_goes_through_the_fifo() {
    let disk = TestDisk::counting(2880);
    let mut r = Rig::new(&disk);
    assert_eq!(r.run(&[3, 0xdf, 3]), []);
    r.send(&[0x46, 0, 0, 0, 2, 2, 2, 27, 255]);
    assert_eq!((r.fdc.read(4), r.fdc.irq()), (0xf0, true));
    let data: Vec<u8> = (0..512).map(|_| r.fdc.read(5)).collect();
    assert_eq!(data, disk.state().disk.bytes[512..1024]);
    assert_eq!(r.result(), [0x40, 0x80, 0, 1, 0, 1, 2]);
    r.send(&[0x45, 0, 0, 0, 3, 2, 3, 27, 255]);
    assert_eq!(r.fdc.read(4), 0xb0);
    (0..512).for_each(|_| r.put(5, 0x77));
    assert_eq!(r.result()[..2], [0x40, 0x80]);
    assert_eq!(disk.state().disk.bytes[1024..1536], [0x77; 512]);
}

#[test]
fn the_controller_tells_of_itself_and_is_reset() {
    let disk = TestDisk::counting(2880);
    let mut r = Rig::new(&disk);
    r.seek(9);
    assert_eq!(
        (r.run(&[0x10]), r.run(&[0x18]), r.run(&[0x94])),
        (vec![0x90], vec![0x80], vec![0x10])
    );
    assert_eq!(r.run(&[0x13, 0, 0x4a, 7]), []);
    assert_eq!(r.run(&[0x12, 0x84]), []);
    assert_eq!(r.run(&[0x0e]), [9, 0, 0, 0, 0xdf, 2, 0, 0x84, 0x4a, 7]);
    assert_eq!(r.run(&[4, 0]), [0x28]);
    // A relative seek outwards, and a drive that is not there.
    assert_eq!((r.run(&[0x8f, 0, 4]), r.run(&[8])), (vec![], vec![0x20, 5]));
    assert_eq!((r.run(&[7, 1]), r.run(&[8])), (vec![], vec![0x71, 0]));
    // A software reset keeps what is locked.
    r.put(4, 0x80);
    assert_eq!((r.fdc.irq(), r.run(&[8])), (true, vec![0xc0, 5]));
    assert_eq!(r.run(&[0x0e])[8..], [0x4a, 7]);
    assert_eq!(r.run(&[0x14]), [0]);
    r.put(2, 0x18);
    assert_eq!((r.fdc.read(4), r.fdc.irq()), (0, false));
    r.put(2, 0x1c);
    assert_eq!(r.run(&[8]), [0xc0, 5]);
    assert_eq!(r.run(&[0x0e])[8..], [0x60, 0]);
    // Without the gate there are no interrupts.
    r.put(2, 0x14);
    r.send(&[7, 0]);
    assert!(!r.fdc.irq());
    // What the host is at is forgotten.
    disk.state().held = true;
    for _ in 0..50 {
        r.put(2, 0x18);
        r.put(2, 0x1c);
        r.send(&[0x46, 0, 0, 0, 1, 2, 1, 27, 255]);
        assert_eq!(r.fdc.read(4), 0x10);
    }
    assert_eq!(disk.state().most, 1);
    disk.state().held = false;
    r.program(0x44, 512);
    r.fdc.advance();
    r.pump();
    assert_eq!(r.result(), [0x20, 0, 0, 1, 0, 1, 2]);
}

#[test]
fn random_accesses() {
    let disk = TestDisk::counting(2880);
    let (mut r, mut rng) = (Rig::new(&disk), Rng(17));
    for n in 0..300_000u64 {
        let value = rng.next();
        match rng.below(10) {
            0 => drop(r.fdc.read((value & 7) as u16)),
            1 if value & 15 == 0 => r.put((value >> 8) as u16, (value >> 16) as u8),
            2 => r.put(2, 0x1c),
            3 => r.program(
                [0x44, 0x48, 0x40, 0x54][(value & 3) as usize],
                1 + (value >> 8 & 0x7fff) as usize,
            ),
            4 => {
                // A command with likely arguments; the rate of the disk.
                r.put(7, 0);
                let (command, _, _, len) = COMMANDS[(value % 20) as usize];
                let code = COMMANDS.iter().find(|c| c.0 == command).map_or(0, |c| c.1);
                let arguments =
                    [value >> 8 & 4, 0, value >> 8 & 1, value >> 12 & 31, 2, 18, 27, 255];
                r.put(5, code | (value >> 24 & 0xe0) as u8);
                arguments[..len - 1].iter().for_each(|&b| r.put(5, b as u8));
            }
            5 => r.put(5, value as u8),
            _ => drop(r.fdc.read(5)),
        }
        let mut d = disk.state();
        assert!(d.most <= 1 && r.fdc.data.len() <= 72 * 512 && r.fdc.fifo.len() <= 10);
        match n % 256 {
            0 => d.held = !d.held,
            1 => d.error = (n & 512 == 0).then_some(DiskError::Io),
            2 => d.generation += 1,
            _ => {}
        }
    }
}
