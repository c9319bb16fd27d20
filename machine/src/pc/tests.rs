//! The board by its ports: what chips do through the wires between them.

use super::listener::CALM;
use super::ports::MMIO;
use super::*;
use devices::disk::MemoryDisk;
use devices::ide::Unit;
use devices::{hpet, ioapic};
use emu_core::mem::GuestRam;

const LAPIC: u64 = devices::lapic::DEFAULT_BASE;
const SVR: u64 = LAPIC + 0xf0;
const LVT_LINT0: u64 = LAPIC + 0x350;
const EOI: u64 = LAPIC + 0xb0;
const MS: u64 = 1_000_000;

pub(super) fn board(memory: u64) -> Board {
    board_with(memory, false)
}

fn board_with(memory: u64, testdev: bool) -> Board {
    let ram = Arc::new(GuestRam::new(memory).unwrap());
    Board::new(Parts {
        clock: Arc::new(Clock::icount()),
        memory: Memory::new(ram, Vec::new()),
        backing: Backing { ram: memory, ..Backing::default() },
        rtc: 0,
        debug_exit: Some(DebugExit::default()),
        testdev,
        vga: None,
        fw_cfg: FwCfg::new(),
        ide: false,
        storage: Storage::default(),
        boot_order: BootOrder::default(),
    })
}

impl Board {
    fn at(&self, now: u64) {
        self.clock.set(now);
        self.advance();
    }

    fn out(&self, port: u16, bytes: &[u8]) {
        bytes.iter().for_each(|&b| self.port_out(port, 1, b.into()));
    }

    /// 8259As in 8086 mode at vectors 20h and 28h, the lines in `open` unmasked.
    pub(super) fn init_pics(&self, open: u16) {
        let mask = (!open).to_le_bytes();
        for (port, rest) in [(0x20, [0x20, 4, 1, mask[0]]), (0xa0, [0x28, 2, 1, mask[1]])] {
            self.out(port, &[0x11]);
            self.out(port + 1, &rest);
        }
    }

    /// Redirection entry of `pin`.
    pub(super) fn route(&self, pin: u64, entry: u64) {
        for (half, value) in [(0, entry), (1, entry >> 32)] {
            self.mmio_write(ioapic::DEFAULT_BASE, 4, 0x10 + 2 * pin + half);
            self.mmio_write(ioapic::DEFAULT_BASE + 0x10, 4, value & 0xffff_ffff);
        }
    }

    /// Software-enables the local APIC and shuts the 8259As out.
    fn use_apic(&self) {
        self.mmio_write(SVR, 4, 0x1ff);
        self.mmio_write(LVT_LINT0, 4, 0x1_0000);
    }

    fn output(&self) -> Vec<(Output, Vec<u8>)> {
        self.take_output().collect()
    }
}

/// PIT channel 0, mode 0, 1193 clocks: one millisecond.
const ONE_SHOT: [(u16, u8); 3] = [(0x43, 0x30), (0x40, 0xa9), (0x40, 0x04)];

#[test]
fn what_nobody_claims_reads_ones() {
    let b = board(64 << 20);
    for size in [1, 2, 4] {
        let ones = u32::MAX >> (32 - 8 * size);
        for port in [0x10, 0x1f0, 0x3b0, 0xfff0, 0xfffc] {
            assert_eq!(b.port_in(port, size), ones, "{port:#x}");
            b.port_out(port, size, 0);
        }
    }
    for size in [1, 2, 4, 8] {
        let ones = u64::MAX >> (64 - 8 * u32::from(size));
        for pa in [0xa_0000, 0xe000_0001, 0xfec0_1000, u64::MAX] {
            assert_eq!(b.mmio_read(pa, size), ones, "{pa:#x}");
            b.mmio_write(pa, size, 0);
        }
    }
}

#[test]
fn wide_accesses_are_split_among_chips() {
    let b = board(64 << 20);
    b.port_out(0x7f, 2, 0x5aff);
    b.out(0x81, &[0xff]);
    assert_eq!(b.port_in(0x80, 1), 0x5a);
    assert_eq!(b.port_in(0x7e, 4), 0xff5a_ffff);
    // Half in the HPET, half behind it.
    assert_eq!(b.mmio_read(hpet::DEFAULT_BASE + hpet::BLOCK_LEN - 4, 8) >> 32, 0xffff_ffff);
}

#[test]
fn the_timer_interrupts_through_the_8259() {
    let b = board(64 << 20);
    b.init_pics(1);
    ONE_SHOT.iter().for_each(|&(port, value)| b.out(port, &[value]));
    let due = b.next_deadline().unwrap();
    assert!((MS - 2000..MS + 2000).contains(&due), "{due}");
    b.at(due - 1000);
    assert!(!b.interrupt_pending());
    b.at(due);
    assert!(b.interrupt_pending());
    assert_eq!(b.acknowledge(), Some(0x20));
    assert_eq!((b.interrupt_pending(), b.acknowledge()), (false, None));
}

#[test]
fn the_timer_interrupts_through_the_io_apic() {
    let b = board(64 << 20);
    b.use_apic();
    b.route(2, 0x31);
    ONE_SHOT.iter().for_each(|&(port, value)| b.out(port, &[value]));
    b.at(2 * MS);
    assert!(b.interrupt_pending());
    assert_eq!(b.acknowledge(), Some(0x31));
    // In service: a second edge waits for the EOI.
    ONE_SHOT.iter().for_each(|&(port, value)| b.out(port, &[value]));
    b.at(4 * MS);
    assert!(!b.interrupt_pending());
    b.mmio_write(EOI, 4, 0);
    assert!(b.interrupt_pending());
}

#[test]
fn an_end_of_interrupt_reaches_the_io_apic() {
    let b = board(64 << 20);
    b.use_apic();
    b.route(4, 0x8041);
    // COM1: OUT2 and the transmitter's interrupt, which is asserted at once.
    b.out(0x3fc, &[8]);
    b.out(0x3f9, &[2]);
    assert_eq!(b.acknowledge(), Some(0x41));
    b.mmio_write(EOI, 4, 0);
    assert_eq!(b.acknowledge(), Some(0x41), "the level is still asserted");
    assert_eq!(b.port_in(0x3fa, 1) & 0xf, 2);
    b.mmio_write(EOI, 4, 0);
    assert_eq!(b.acknowledge(), None);
}

#[test]
fn every_byte_sent_is_an_edge() {
    let b = board(64 << 20);
    b.init_pics(1 << 4);
    b.out(0x3fc, &[8]);
    b.out(0x3f9, &[2]);
    for byte in *b"ok" {
        assert_eq!(b.acknowledge(), Some(0x24));
        b.out(0x20, &[0x20]);
        assert_eq!(b.acknowledge(), None);
        b.out(0x3f8, &[byte]);
    }
    b.out(0xe9, b"dbg");
    b.out(0x2f8, b"2");
    let all = [
        (Output::Serial(0), b"ok".to_vec()),
        (Output::Serial(1), b"2".to_vec()),
        (Output::DebugCon, b"dbg".to_vec()),
    ];
    assert_eq!(b.output(), all);
    assert_eq!(b.output(), []);
}

#[test]
fn input_waits_for_room_in_the_uart() {
    let (b, control) = (board(64 << 20), Control::default());
    b.out(0x3f9, &[1]);
    b.at(CALM);
    control.send(0, b"xy");
    for byte in *b"xy" {
        b.receive(&control);
        assert_eq!(b.port_in(0x3fd, 1) & 1, 1);
        assert_eq!(b.port_in(0x3f8, 1), byte.into());
    }
    b.receive(&control);
    assert_eq!(b.port_in(0x3fd, 1) & 1, 0);
}

/// Linux when it opens a port: drains it, tests the transmitter, turns the receive interrupt
/// on, the FIFOs too, and at last raises RTS.
#[test]
fn input_waits_until_the_port_is_open() {
    let (b, control) = (board(64 << 20), Control::default());
    b.at(CALM);
    control.send(0, b"xyz");
    let receive = || b.receive(&control);
    b.out(0x3fa, &[7]);
    for (port, value) in [(0x3fd, 0x60), (0x3f8, 0), (0x3fd, 0x60), (0x3fd, 0x60)] {
        receive();
        assert_eq!(b.port_in(port, 1), value);
    }
    for (port, value) in [(0x3f9, 5), (0x3fb, 0x93), (0x3f9, 1), (0x3fb, 3), (0x3fa, 0x81)] {
        b.out(port, &[value]);
        receive();
        assert_eq!(b.port_in(0x3fd, 1) & 1, 0, "{port:#x}");
    }
    b.out(0x3fc, &[0x1b]);
    receive();
    b.out(0x3fc, &[0x0b]);
    assert_eq!(b.port_in(0x3fd, 1) & 1, 0);
    receive();
    assert_eq!(b.port_in(0x3f8, 1), b'x'.into());
    // RTS falls: no more than what is in the FIFO.
    control.send(0, b"!");
    b.out(0x3fc, &[0x09]);
    b.at(3 * CALM);
    receive();
    assert_eq!([(); 3].map(|()| b.port_in(0x3f8, 1)), [b'y', b'z', 0].map(u32::from));
    b.out(0x3fc, &[0x0b]);
    receive();
    assert_eq!(b.port_in(0x3f8, 1), b'!'.into());
}

#[test]
fn whoever_polls_listens() {
    let (b, control) = (board(64 << 20), Control::default());
    b.at(CALM);
    control.send(1, b"x");
    for _ in 0..2 {
        b.receive(&control);
        assert_eq!(b.port_in(0x2fd, 1) & 1, 0);
    }
    b.receive(&control);
    assert_eq!((b.port_in(0x2fd, 1) & 1, b.port_in(0x2f8, 1)), (1, b'x'.into()));
}

#[test]
fn the_hpet_replaces_the_timer() {
    let b = board(64 << 20);
    b.use_apic();
    b.route(2, 0x32);
    let (conf, comparator) = (hpet::DEFAULT_BASE + 0x100, hpet::DEFAULT_BASE + 0x108);
    b.mmio_write(conf, 8, 4);
    b.mmio_write(comparator, 8, 100_000);
    b.mmio_write(hpet::DEFAULT_BASE + 0x10, 8, 3);
    ONE_SHOT.iter().for_each(|&(port, value)| b.out(port, &[value]));
    assert_eq!(b.next_deadline(), Some(MS));
    b.at(MS - 100);
    assert!(!b.interrupt_pending());
    b.at(MS);
    assert_eq!(b.acknowledge(), Some(0x32));
    b.mmio_write(EOI, 4, 0);
    b.at(3 * MS);
    assert_eq!(b.acknowledge(), None, "the 8254 is held back");
}

#[test]
fn the_guest_ends_the_run() {
    type Do = fn(&Board);
    let rows: [(Do, Event); 6] = [
        (|b| b.port_out(acpi::PM1A_CNT, 2, 0x2000), Event::PowerOff),
        (|b| b.out(0x64, &[0xfe]), Event::Reset),
        (|b| b.out(0xcf9, &[6]), Event::Reset),
        (|b| b.out(0x92, &[1]), Event::Reset),
        (|b| b.port_out(0xf4, 4, 0x10), Event::DebugExit(0x21)),
        (|b| b.port_out(0xf4, 1, 0), Event::DebugExit(1)),
    ];
    for (act, event) in rows {
        let b = board(64 << 20);
        act(&b);
        // Nothing works any more.
        b.out(0x3f8, b"x");
        b.out(0x80, &[7]);
        b.port_out(0xf4, 1, 9);
        assert_eq!(b.port_in(0x80, 1), 0xff);
        assert_eq!((b.take_event(), b.output()), (Some(event), vec![]));
        b.reset();
        assert_eq!(b.port_in(0x80, 1), 0);
        assert_eq!(b.take_event(), None);
    }
}

#[test]
fn pci_answers_for_what_is_there() {
    let b = board(64 << 20);
    let read = |function: u32| {
        b.port_out(0xcf8, 4, 0x8000_0000 | function << 8);
        b.port_in(0xcfc, 4)
    };
    assert_eq!(read(0), 0x1237_8086);
    for (number, id) in [(0x08, 0x7000_8086), (0x0b, 0x7113_8086)] {
        assert_eq!(read(number), id);
    }
    let others = (1..256).filter(|n| ![0x08, 0x0b].contains(n));
    others.for_each(|number| assert_eq!(read(number), u32::MAX));

    assert_eq!(b.port_in(0xcfe, 2), 0xffff);
}

#[test]
fn cmos_tells_the_memory_sizes() {
    let b = board(5 << 30);
    let read = |index: u8| {
        b.out(0x70, &[index]);
        b.port_in(0x71, 1)
    };
    let word = |index: u8| read(index) | read(index + 1) << 8;
    assert_eq!((word(0x15), word(0x17), word(0x30)), (640, 0xffff, 0xffff));
    assert_eq!(word(0x34), ((3 << 30) - (16 << 20)) >> 16);
    assert_eq!(word(0x5b) | read(0x5d) << 16, (2 << 30) >> 16);
}

#[test]
fn the_test_device_drives_lines() {
    let b = board_with(64 << 20, true);
    b.init_pics(1 << 5);
    b.out(0x2005, &[1]);
    assert_eq!(b.acknowledge(), Some(0x25));
    b.port_out(0xe0, 4, 0xabcd_ef01);
    assert_eq!(b.port_in(0xe9, 1), 0xef);
    b.mmio_write(0xff00_0010, 8, 9);
    assert_eq!(b.mmio_read(0xff00_0010, 4), 9);
}

/// A board with one of everything.
fn full_board() -> Board {
    const ROM: u64 = 0x4_0000;
    const VIDEO: u64 = 16 << 20;
    let ram = 64 << 20;
    let memory = Memory::new(Arc::new(GuestRam::new(ram + ROM + VIDEO).unwrap()), Vec::new());
    let disk = || Box::new(MemoryDisk::new(vec![0; 1440 << 10])) as Box<dyn Disk>;
    let cd = || Box::new(MemoryDisk::new(vec![0; 1 << 20])) as Box<dyn Disk>;
    Board::new(Parts {
        clock: Arc::new(Clock::icount()),
        backing: Backing { ram, rom: ROM, vga: VIDEO },
        rtc: 0,
        debug_exit: Some(DebugExit::default()),
        testdev: true,
        vga: Some(Vga::new(DeviceRam::new(&memory, ram + ROM, VIDEO), vec![0x55; 4096])),
        memory,
        fw_cfg: FwCfg::new(),
        ide: true,
        storage: Storage {
            ide: [[Some(Unit::Disk(disk())), None], [Some(Unit::Cd(cd())), None]],
            virtio: vec![disk()],
            nvme: vec![disk()],
            floppy: [Some(disk()), None],
            drives: Vec::new(),
        },
        boot_order: BootOrder::default(),
    })
}

/// Wherever a guest places what it can place, the address space can be laid out.
#[test]
fn no_place_panics() {
    let b = full_board();
    let functions = [0x00, 0x08, 0x09, 0x0b, 0x10, 0x18, 0x20];
    let mut seed = 7u64;
    let mut next = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed >> 8
    };
    for function in functions {
        b.port_out(0xcf8, 4, 0x8000_0000 | function << 8);
        assert_ne!(b.port_in(0xcfc, 4), u32::MAX, "{function:#x}");
    }
    let mut layouts = 0;
    for _ in 0..50_000 {
        let before = b.chips().memory.regions();
        let function = functions[next() as usize % functions.len()];
        // Command, base address registers, PAM and SMRAM above all.
        let register = [4, 0x10, 0x14, 0x18, 0x20, 0x30, 0x58, 0x5c, 0x70, next() as u32 & 0xfc];
        let register = register[next() as usize % register.len()];
        let value = [next() as u32, 7, 0xff00_0000, 0x000a_0000, u32::MAX];
        let value = value[next() as usize % value.len()];
        match next() % 8 {
            0 => b.out(0x92, &[(next() & 2) as u8]),
            1 => b.out(0x64, &[if next() & 1 == 0 { 0xdd } else { 0xdf }]),
            2 => {
                b.port_out(0x1ce, 2, next() as u32 % 12);
                b.port_out(0x1cf, 2, next() as u32 & 0xff);
            }
            3 => b.port_out([0x3c4, 0x3ce][next() as usize & 1], 2, next() as u32 & 0xff0f),
            4 => b.mmio_write(next() & 0xffff_ffff, 1 << (next() & 3), next()),
            _ => {
                b.port_out(0xcf8, 4, 0x8000_0000 | function << 8 | register);
                b.port_out(0xcfc, 4, value);
            }
        }
        if b.take_event().is_some() {
            b.reset();
        }
        layouts += u32::from(b.chips().memory.regions()[..] != before[..]);
    }
    assert!(layouts > 1000, "{layouts}");
}

#[test]
fn no_access_panics() {
    let b = full_board();
    let rows = b.chips().ports.clone();
    let mut seed = 1u64;
    let mut next = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let bases: Vec<u64> = MMIO.iter().map(|m| m.0).chain([LAPIC, 0xa_0000, 0xff00_0000]).collect();
    for step in 0..50_000 {
        let (r, value) = (next(), next());
        let row = rows[r as usize % rows.len()];
        let port = row.base.wrapping_add((r >> 16) as u16 % (row.len + 2)).wrapping_sub(1);
        let pa = bases[r as usize % bases.len()].wrapping_add((r >> 16) % 0x1100);
        match r >> 60 {
            0..4 => b.port_out(port, 1 << (r >> 40 & 1), value as u32),
            4..6 => b.port_out(port, 4, value as u32),
            6..8 => drop(b.port_in(port, 1 << ((r >> 40) % 3))),
            8..11 => b.mmio_write(pa, 1 << (r >> 40 & 3), value),
            11..13 => drop(b.mmio_read(pa, 1 << (r >> 40 & 3))),
            13 => drop(b.acknowledge()),
            14 => drop(b.apic_msr_write(0x6e0, value, step)),
            _ => b.at(step * 1000),
        }
        b.output();
        if b.take_event().is_some() {
            b.reset();
        }
    }
    assert!(b.stats().ports > 1000 && b.stats().mmio > 1000);
}
