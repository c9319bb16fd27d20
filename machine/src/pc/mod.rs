//! The board of an i440FX PC: which chip answers at which port or address, and which pin drives
//! which line. Chips know nothing of each other; every connection between two of them is here.
//!
//! Three tables say it all: [`ports::PORTS`], [`ports::MMIO`] and [`LINES`], beside what a guest
//! places itself: the functions on the PCI bus ([`pci`]). What of memory is seen where is
//! [`memory`]'s. An access is looked up whole first; what no chip takes in its size is split in
//! halves, down to bytes that nobody claims, which read as ones.
//!
//! After whatever may have moved a pin, `Chips::settle` drives the lines that changed into the
//! 8259As and the I/O APIC, carries messages between I/O APIC and local APIC until none is left,
//! and publishes in one atomic flag whether the CPU has an interrupt to take. A line that fell and
//! rose again within one access falls and rises here too.
//!
//! Serial input waits on the host until the guest listens (see `Listener`): drivers throw away what
//! is in a port when they open it, and the host need not send before that.
//!
//! Once the guest has ended the run (power off, reset, exit), nothing answers any more: what the
//! CPU still does until its slice is over has no effect outside.
//!
//! Source: Intel 82371AB (PIIX4) datasheet; ports and interrupt lines as in the PC/AT Technical
//! Reference; CMOS memory sizes as SeaBIOS and QEMU agree on them.

mod listener;
mod look;
mod memory;
mod pci;
mod ports;

pub use devices::i8259::PicState;
pub use devices::pci::Bar;
pub use look::{IoApicState, Mapping};
pub(crate) use memory::Backing;

use crate::acpi;
use crate::boot::e820;
use crate::control::{Control, Key, Mouse, SERIAL_PORTS};
use crate::firmware::BootOrder;
use crate::storage::Storage;
use devices::acpi_pm::AcpiPm;
use devices::debugcon::DebugCon;
use devices::disk::Disk;
use devices::fw_cfg::FwCfg;
use devices::hpet::{self, Hpet};
use devices::i8042::{I8042, Port92};
use devices::i8237::Dma;
use devices::i8254::{Pit, Port61};
use devices::i8259::{PicPair, PicReg};
use devices::i82077::I82077;
use devices::ide::Ide;
use devices::ioapic::IoApic;
use devices::isa_debug_exit::IsaDebugExit;
use devices::lapic::{DeliveryMode, Destination, Effect, LocalApic};
use devices::mc146818::Rtc;
use devices::nvme::Nvme;
use devices::pc_testdev::PcTestdev;
use devices::pci::{Message, PciDevice};
use devices::pci_host::Shadow;
use devices::post_port::PostPort;
use devices::uart16550::Uart16550;
use devices::vga::{Frame, TextScreen, Vga};
use devices::virtio::{VirtioPci, blk::Blk};
use emu_core::clock::{Clock, TSC_HZ};
use emu_core::mem::{DeviceRam, Memory};
use emu_core::platform::Platform;
use listener::Listener;
use memory::{Mapped, View};
use pci::{Bus, Number, lend};
use ports::{Chip, FLOPPY_PORTS, IDE_PORTS, PORTS, Ports, TESTDEV_PORTS, VGA_PORTS, ports};
use std::fmt;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Frequency of the local APIC's timer before its divider, in Hz.
const APIC_BUS_HZ: u64 = 1_000_000_000;

/// The level of an output pin.
type Level = fn(&Chips) -> bool;

/// Interrupt lines: the I/O APIC's pin, and what drives it. Pin 2 is ISA IRQ 0 at the 8259A; the
/// other ISA lines have the same number at both. The HPET's timers choose their pins themselves.
#[rustfmt::skip]
const LINES: &[(u8, Level)] = &[
    (1,             |c| c.i8042.irq1()),
    (2,             |c| c.pit.irq() && !c.hpet.legacy_replacement()),
    (3,             |c| c.com[1].irq() && c.com[1].out2()),
    (4,             |c| c.com[0].irq() && c.com[0].out2()),
    (6,             |c| c.floppy.as_ref().is_some_and(I82077::irq)),
    (8,             |c| c.rtc.irq() && !c.hpet.legacy_replacement()),
    (acpi::SCI_IRQ, |c| c.power.sci()),
    (12,            |c| c.i8042.irq12()),
    (14,            |c| c.bus.ide.as_ref().is_some_and(|ide| ide.irq(0))),
    (15,            |c| c.bus.ide.as_ref().is_some_and(|ide| ide.irq(1))),
];

/// Where `isa-debug-exit` is, as in QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DebugExit {
    /// First port.
    pub iobase: u16,
    /// Number of ports.
    pub iosize: u16,
}

impl Default for DebugExit {
    fn default() -> DebugExit {
        DebugExit { iobase: 0xf4, iosize: 4 }
    }
}

/// What the guest does to end the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// ACPI sleep state S5.
    PowerOff,
    /// A reset by the keyboard controller, port 0x92 or port 0xCF9.
    Reset,
    /// A write to `isa-debug-exit`, which asks for this status.
    DebugExit(u32),
}

/// What a machine puts out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// What a serial port sends; 0 is COM1.
    Serial(usize),
    /// What is written to port 0xE9.
    DebugCon,
    /// What firmware writes to port 0x402.
    FirmwareLog,
    /// The trace.
    Trace,
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Output::Serial(n) => write!(f, "the output of COM{}", n + 1),
            Output::DebugCon => f.write_str("the output of the debug console"),
            Output::FirmwareLog => f.write_str("the log of the firmware"),
            Output::Trace => f.write_str("the trace"),
        }
    }
}

/// Bytes of input, each with its serial port.
pub(crate) type Input = Vec<(usize, u8)>;

/// How often the CPU used the board.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BoardStats {
    /// Port accesses.
    pub ports: u64,
    /// Memory-mapped accesses.
    pub mmio: u64,
    /// Interrupts acknowledged.
    pub interrupts: u64,
}

/// All chips, and the state of the wires between them.
struct Chips {
    pic: PicPair,
    pit: Pit,
    port61: Port61,
    port92: Port92,
    i8042: I8042,
    rtc: Rtc,
    post: PostPort,
    com: [Uart16550; SERIAL_PORTS],
    debugcon: DebugCon,
    debug_exit: IsaDebugExit,
    power: AcpiPm,
    bus: Bus,
    fw_cfg: FwCfg,
    firmware_log: DebugCon,
    testdev: Option<PcTestdev>,
    dma: Dma,
    floppy: Option<I82077>,
    hpet: Hpet,
    ioapic: IoApic,
    lapic: LocalApic,

    ports: Vec<Ports>,
    /// Lines as last driven, by I/O APIC pin.
    lines: u32,
    /// INTR of the 8259As as last seen.
    intr: bool,
    nmi: bool,
    event: Option<Event>,
    /// What the serial ports have sent.
    sent: [Vec<u8>; SERIAL_PORTS],
    listeners: [Listener; SERIAL_PORTS],
    stats: BoardStats,
    memory: Memory,
    /// The RAM below 1 MiB, whatever lies over it.
    low: DeviceRam,
    backing: Backing,
    /// Something may have moved in the address space.
    moved: bool,
    /// Memory of devices that was mapped last.
    mapped: [Option<Mapped>; 2],
}

/// What a board is made of.
pub(crate) struct Parts {
    pub(crate) clock: Arc<Clock>,
    /// All memory, of which `backing` says what is where.
    pub(crate) memory: Memory,
    pub(crate) backing: Backing,
    /// What the real-time clock shows, in seconds since 1970.
    pub(crate) rtc: u64,
    pub(crate) debug_exit: Option<DebugExit>,
    /// It has a `pc-testdev`.
    pub(crate) testdev: bool,
    pub(crate) vga: Option<Vga>,
    /// What firmware is told.
    pub(crate) fw_cfg: FwCfg,
    /// It has an IDE controller.
    pub(crate) ide: bool,
    pub(crate) storage: Storage,
    pub(crate) boot_order: BootOrder,
}

/// The board as the CPU sees it, and the run loop.
pub struct Board {
    chips: Mutex<Chips>,
    /// Where port and memory-mapped accesses are noted.
    trace: OnceLock<Mutex<Box<dyn Write + Send>>>,
    /// Whether the CPU has an interrupt to take: kept by `settle`.
    pending: AtomicBool,
    /// The same for an NMI.
    nmi: AtomicBool,
    clock: Arc<Clock>,
}

impl Board {
    /// A board at power-up.
    #[must_use]
    pub(crate) fn new(parts: Parts) -> Board {
        let Parts {
            clock,
            memory,
            backing,
            rtc,
            debug_exit,
            testdev,
            vga,
            ide,
            storage,
            boot_order,
            fw_cfg,
        } = parts;
        let Storage { ide: units, virtio, nvme, floppy, drives: _ } = storage;
        let kinds = floppy_kinds(&floppy);
        let any_floppy = floppy.iter().any(Option::is_some);
        let ide = ide.then(|| Ide::new(units));
        let mut chips = Chips {
            pic: PicPair::new(),
            pit: Pit::new(),
            port61: Port61::new(),
            port92: Port92::new(),
            i8042: I8042::new(),
            rtc: Rtc::new(i64::try_from(rtc).unwrap_or(i64::MAX)),
            post: PostPort::new(),
            com: [Uart16550::new(), Uart16550::new()],
            debugcon: DebugCon::new(),
            debug_exit: IsaDebugExit::new(),
            power: AcpiPm::new(),
            bus: Bus::new(vga, ide, pci_disks(virtio, nvme)),
            fw_cfg,
            firmware_log: DebugCon::new(),
            testdev: testdev.then(PcTestdev::new),
            dma: Dma::new(),
            floppy: any_floppy.then(|| I82077::new(floppy)),
            hpet: Hpet::new(),
            ioapic: IoApic::new(),
            lapic: LocalApic::new(0, true, APIC_BUS_HZ, TSC_HZ),
            ports: PORTS.to_vec(),
            lines: 0,
            intr: false,
            nmi: false,
            event: None,
            sent: Default::default(),
            listeners: Default::default(),
            stats: BoardStats::default(),
            low: DeviceRam::new(&memory, 0, backing.ram.min(e820::ONE_MIB)),
            memory,
            backing,
            moved: true,
            mapped: [None; 2],
        };
        if let Some(at) = debug_exit {
            chips.ports.push(ports(at.iobase, at.iosize, 1, Chip::DebugExit));
        }
        if chips.bus.vga.is_some() {
            chips.ports.extend(VGA_PORTS);
        }
        if chips.floppy.is_some() {
            chips.ports.extend(FLOPPY_PORTS);
        }
        if chips.bus.ide.is_some() {
            chips.ports.extend(IDE_PORTS);
        }
        if testdev {
            // Before the debug console, of whose port it makes another use.
            chips.ports.splice(0..0, TESTDEV_PORTS);
        }
        let said = cmos(backing.ram, kinds).into_iter().chain(boot_order.cmos());
        for (index, value) in said {
            chips.rtc.set_cmos(index, value);
        }
        // Lines that are high at power-up are no edges to whoever listens later.
        chips.settle();
        let pending = AtomicBool::new(chips.interrupt_pending());
        let nmi = AtomicBool::new(false);
        Board { chips: Mutex::new(chips), trace: OnceLock::new(), pending, nmi, clock }
    }

    fn chips(&self) -> MutexGuard<'_, Chips> {
        self.chips.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does `f` to the chips, then lets the lines settle.
    fn with<R>(&self, f: impl FnOnce(&mut Chips, u64) -> R) -> R {
        let mut chips = self.chips();
        let result = f(&mut chips, self.clock.now());
        chips.settle();
        self.pending.store(chips.interrupt_pending(), Relaxed);
        self.nmi.store(chips.nmi, Relaxed);
        result
    }

    /// Notes every port and memory-mapped access in `out` from now on, a line each: time in
    /// nanoseconds, what, where, how many bytes, the value. Only the first call counts.
    pub fn trace_io(&self, out: Box<dyn Write + Send>) {
        let _ = self.trace.set(Mutex::new(out));
    }

    /// A trace that cannot be written must not disturb the guest.
    fn note(&self, what: &str, at: u64, size: u8, value: u64) {
        if let Some(out) = self.trace.get() {
            let mut out = out.lock().unwrap_or_else(PoisonError::into_inner);
            let now = self.clock.now();
            let _ = writeln!(out, "{now} {what} {at:#x} {size} {value:#x}");
        }
    }

    /// Resets all chips.
    pub fn reset(&self) {
        self.with(|c, _| c.reset());
    }

    /// Does what firmware does before it starts a kernel: places what is on the PCI bus, routes
    /// its interrupts, and opens the shadow RAM.
    pub(crate) fn set_up(&self) {
        const PORTS: u32 = 0xc000;
        const MEMORY: u32 = 0xe000_0000;
        self.with(|c, now| {
            c.bus.set_up(lend(&c.memory, now), PORTS, MEMORY);
            let level = acpi::AcpiLayout::default().pirq.iter().fold(0, |l, irq| l | 1_u16 << irq);
            let [low, high] = (level | 1 << acpi::SCI_IRQ).to_le_bytes();
            c.pic.write(PicReg::MasterElcr, low);
            c.pic.write(PicReg::SlaveElcr, high);
            c.moved = true;
        });
    }

    /// Brings all chips to the clock's time.
    pub fn advance(&self) {
        self.with(Chips::advance);
    }

    /// The next moment (ns) at which a chip may do something by itself.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        let c = self.chips();
        let legacy = c.hpet.legacy_replacement();
        [
            c.pit.deadline().filter(|_| !legacy),
            c.rtc.deadline().filter(|_| !legacy),
            c.hpet.deadline(),
            c.lapic.deadline(),
            c.power.deadline(),
            c.bus.deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Hands waiting input to the serial ports; gives what they have taken.
    pub(crate) fn receive(&self, control: &Control) -> Input {
        let mut taken = Input::new();
        control.take_keys(
            |Key { code, pressed }| self.with(|c, _| c.i8042.push_scancode(code, pressed)),
            |Mouse { motion: (dx, dy), buttons }| {
                self.with(|c, _| c.i8042.push_mouse(dx, dy, buttons));
            },
        );
        control.receive(|n, byte| {
            let takes = self.with(|c, now| c.listeners[n].listens(now) && c.com[n].push_rx(byte));
            taken.extend(takes.then_some((n, byte)));
            takes
        });
        taken
    }

    /// Takes what the chips have put out since the last call.
    pub(crate) fn take_output(&self) -> impl Iterator<Item = (Output, Vec<u8>)> {
        let mut c = self.chips();
        let [com1, com2] = std::mem::take(&mut c.sent);
        let rows = [
            (Output::Serial(0), com1),
            (Output::Serial(1), com2),
            (Output::DebugCon, c.debugcon.take_output()),
            (Output::FirmwareLog, c.firmware_log.take_output()),
        ];
        rows.into_iter().filter(|(_, bytes)| !bytes.is_empty())
    }

    /// Takes the event that ended the run.
    pub(crate) fn take_event(&self) -> Option<Event> {
        self.chips().event.take()
    }

    /// The power button is pressed.
    pub fn press_power_button(&self) {
        self.with(|c, _| c.power.press_power_button());
    }

    /// What is on the screen, if there is a VGA.
    #[must_use]
    pub fn screen(&self) -> Option<Frame> {
        // A copy of the registers is drawn, while the guest goes on.
        let vga = self.chips().bus.vga.clone();
        vga.map(|vga| vga.render(self.clock.now()))
    }

    /// The characters on the screen, if there is a VGA in a text mode.
    #[must_use]
    pub fn text_screen(&self) -> Option<TextScreen> {
        self.chips().bus.vga.as_ref().and_then(Vga::text)
    }

    /// The last code written to port 0x80.
    #[must_use]
    pub fn post_code(&self) -> u8 {
        self.chips().post.read()
    }

    /// How often the CPU has used the board.
    #[must_use]
    pub fn stats(&self) -> BoardStats {
        self.chips().stats
    }
}

impl Platform for Board {
    fn mmio_read(&self, pa: u64, size: u8) -> u64 {
        let value = self.with(|c, now| {
            c.stats.mmio += 1;
            c.mmio_read(now, pa, size)
        });
        self.note("read", pa, size, value);
        value
    }

    fn mmio_write(&self, pa: u64, size: u8, value: u64) {
        self.note("write", pa, size, value);
        self.with(|c, now| {
            c.stats.mmio += 1;
            c.mmio_write(now, pa, size, value);
        });
    }

    fn port_in(&self, port: u16, size: u8) -> u32 {
        let value = self.with(|c, now| {
            c.stats.ports += 1;
            c.port_in(now, port, size)
        });
        self.note("in", port.into(), size, value.into());
        value
    }

    fn port_out(&self, port: u16, size: u8, value: u32) {
        self.note("out", port.into(), size, value.into());
        self.with(|c, now| {
            c.stats.ports += 1;
            c.port_out(now, port, size, value);
        });
    }

    fn apic_msr_read(&self, msr: u32, tsc: u64) -> Option<u64> {
        self.with(|c, now| c.lapic.msr_read(now, tsc, msr))
    }

    fn apic_msr_write(&self, msr: u32, value: u64, tsc: u64) -> Option<()> {
        self.with(|c, now| c.lapic.msr_write(now, tsc, msr, value))
    }

    fn tsc_written(&self, tsc: u64) {
        self.with(|c, now| c.lapic.tsc_changed(now, tsc));
    }

    fn tpr(&self) -> u8 {
        self.chips().lapic.tpr()
    }

    fn set_tpr(&self, value: u8) {
        self.with(|c, _| c.lapic.set_tpr(value));
    }

    fn interrupt_pending(&self) -> bool {
        self.pending.load(Relaxed)
    }

    fn request_flag(&self) -> &AtomicBool {
        &self.pending
    }

    fn acknowledge(&self) -> Option<u8> {
        self.with(|c, _| {
            let vector = c.lapic.acknowledge().or_else(|| {
                let extint = c.pic.intr() && c.lapic.extint_enabled();
                extint.then(|| c.pic.acknowledge())
            });
            c.stats.interrupts += u64::from(vector.is_some());
            vector
        })
    }

    fn nmi_pending(&self) -> bool {
        self.nmi.load(Relaxed)
    }

    fn take_nmi(&self) -> bool {
        self.nmi_pending() && self.with(|c, _| std::mem::take(&mut c.nmi))
    }
}

impl Chips {
    fn reset(&mut self) {
        self.pic.reset();
        self.pit.reset();
        self.port61.reset();
        self.port92.reset();
        self.i8042.reset();
        self.rtc.reset();
        self.post.reset();
        self.com.iter_mut().for_each(Uart16550::reset);
        self.listeners = Default::default();
        self.debugcon.reset();
        self.debug_exit.reset();
        self.power.reset();
        self.bus.reset();
        self.fw_cfg.reset();
        self.dma.reset();
        self.floppy.iter_mut().for_each(I82077::reset);
        self.testdev.iter_mut().for_each(PcTestdev::reset);
        self.moved = true;
        self.hpet.reset();
        self.ioapic.reset();
        self.lapic.reset();
        self.nmi = false;
        self.event = None;
    }

    fn advance(&mut self, now: u64) {
        self.pit.advance(now);
        self.rtc.advance(now);
        self.hpet.advance(now);
        self.lapic.advance(now);
        self.power.advance(now);
        self.bus.advance(lend(&self.memory, now));
        if let Some(floppy) = &mut self.floppy {
            floppy.advance();
            self.move_floppy_data();
        }
    }

    fn interrupt_pending(&self) -> bool {
        self.lapic.pending().is_some() || self.intr && self.lapic.extint_enabled()
    }

    /// Lets every pin that has moved take effect.
    fn settle(&mut self) {
        let mut lines = LINES.iter().fold(0, |l, (pin, level)| l | u32::from(level(self)) << pin);
        let legacy = self.hpet.legacy_replacement();
        let mut rises = u32::from(self.pit.take_edges() > 0 && !legacy) << 2;
        rises |= self.i8042.take_edges();
        let fired = self.hpet.take_edges();
        for timer in 0..hpet::TIMERS {
            let pin = u32::from(self.hpet.route(timer) & 31);
            lines |= u32::from(self.hpet.level(timer)) << pin;
            rises |= (fired >> timer & 1) << pin;
        }
        if rises != 0 {
            self.drive(self.lines & !rises);
            self.drive(self.lines | rises);
        }
        lines |= u32::from(self.bus.lines());
        lines |= self.testdev.as_ref().map_or(0, PcTestdev::lines);
        self.drive(lines);
        for Message { address, data } in self.bus.take_messages() {
            self.message(address, data);
        }
        self.carry_messages();
        let intr = self.pic.intr();
        if intr && !self.intr {
            self.lapic.pulse_lint0();
        }
        self.intr = intr;
        self.watch_for_events();
        if std::mem::take(&mut self.moved) {
            self.lay_out();
        }
    }

    /// Lays the address space out anew, if it is another.
    fn lay_out(&mut self) {
        self.mapped = self.bus.mapped();
        let none = Shadow { read: true, write: true };
        let host = self.bus.host();
        let view = View {
            shadow: &|at| host.shadow(at).unwrap_or(none),
            smram: host.smram(false, false),
            a20: self.i8042.a20() || self.port92.a20(),
            mapped: &self.mapped,
        };
        let mut regions = self.backing.regions(&view);
        regions.sort_by_key(|r| r.base);
        if regions[..] != self.memory.regions()[..] {
            self.memory.remap(regions);
        }
    }

    /// An interrupt message: a write to the local APICs' addresses (SDM Vol. 3, 10.11); anywhere
    /// else it is a write to memory.
    fn message(&mut self, address: u64, data: u32) {
        const LOCAL_APICS: u64 = 0xfee;
        if address >> 20 != LOCAL_APICS {
            return self.memory.write(address, &data.to_le_bytes());
        }
        let (dest, logical) = (address as u32 >> 12 & 0xff, address & 4 != 0);
        if self.lapic.matches(dest as _, logical) {
            let mode = DeliveryMode::from_bits((data >> 8) as u8);
            self.deliver(mode, data as u8, data >> 15 & 1 != 0);
        }
    }

    /// Sets the lines, by I/O APIC pin.
    fn drive(&mut self, lines: u32) {
        let mut changed = lines ^ self.lines;
        self.lines = lines;
        while changed != 0 {
            let pin = changed.trailing_zeros() as u8;
            changed &= changed - 1;
            let level = lines >> pin & 1 != 0;
            self.ioapic.set_irq(pin, level);
            self.pic.set_irq(if pin == 2 { 0 } else { pin }, level);
        }
    }

    /// Carries messages between the APICs until none is left.
    fn carry_messages(&mut self) {
        loop {
            let (messages, effects) = (self.ioapic.take_messages(), self.lapic.take_effects());
            if messages.is_empty() && effects.is_empty() {
                return;
            }
            for m in messages {
                if self.lapic.matches(m.dest, m.logical) {
                    self.deliver(m.delivery_mode, m.vector, m.level_triggered);
                }
            }
            for effect in effects {
                match effect {
                    Effect::Eoi(vector) => self.ioapic.eoi(vector),
                    Effect::Ipi { destination, delivery_mode, vector } => {
                        let here = match destination {
                            Destination::Address { dest, logical } => {
                                self.lapic.matches(dest, logical)
                            }
                            Destination::SelfOnly | Destination::AllIncludingSelf => true,
                            Destination::AllExcludingSelf => false,
                        };
                        if here {
                            self.deliver(delivery_mode, vector, false);
                        }
                    }
                }
            }
        }
    }

    /// A message arrives at the only CPU. INIT and start-up are for others, SMI has no handler,
    /// and ExtINT comes by the 8259A's own wire.
    fn deliver(&mut self, mode: DeliveryMode, vector: u8, level_triggered: bool) {
        match mode {
            _ if mode.has_vector() => self.lapic.accept(vector, level_triggered),
            DeliveryMode::Nmi => self.nmi = true,
            _ => {}
        }
    }

    fn watch_for_events(&mut self) {
        let off = self.power.take_sleep() == Some(acpi::SLP_TYP_S5);
        let reset = self.power.take_reset() | self.i8042.take_reset() | self.port92.take_reset();
        let event = match self.debug_exit.take_exit() {
            Some(status) => Some(Event::DebugExit(status)),
            None if off => Some(Event::PowerOff),
            None => reset.then_some(Event::Reset),
        };
        self.event = self.event.or(event);
    }
}

/// Functions for disks on the PCI bus, a device each, in the slots behind those of the board.
fn pci_disks(
    virtio: Vec<Box<dyn Disk>>,
    nvme: Vec<Box<dyn Disk>>,
) -> Vec<(Number, Box<dyn PciDevice>)> {
    const FIRST: Number = 3;
    let virtio = virtio.into_iter().zip(0..).map(|(disk, n)| {
        let device = VirtioPci::new(Blk::new(disk, &format!("ring3-virtio{n}")));
        Box::new(device) as Box<dyn PciDevice>
    });
    let nvme = nvme.into_iter().zip(0..).map(|(disk, n)| {
        Box::new(Nvme::new(disk, &format!("ring3-nvme{n}"))) as Box<dyn PciDevice>
    });
    let slots = (FIRST..).map(|slot| slot << 3);
    slots.zip(virtio.chain(nvme)).collect()
}

/// The kinds of the floppy drives as CMOS RAM has them, by the disk that is in: 2 is 1.2 MB, 3
/// 720 KB, 5 2.88 MB, and all else 1.44 MB.
fn floppy_kinds(drives: &[Option<Box<dyn Disk>>; 2]) -> [u8; 2] {
    let kind = |drive: &Option<Box<dyn Disk>>| match drive.as_ref().map(|d| d.len() >> 10) {
        None => 0,
        Some(1200) => 2,
        Some(720 | 640) => 3,
        Some(2880) => 5,
        Some(_) => 4,
    };
    [kind(&drives[0]), kind(&drives[1])]
}

/// What the CMOS RAM tells of a machine with `memory` bytes of RAM and these floppy drives: index
/// and value.
fn cmos(memory: u64, floppies: [u8; 2]) -> Vec<(u8, u8)> {
    let (low, high) = e820::split(memory);
    let above = |start: u64, unit: u64| (low.saturating_sub(start) / unit).min(0xffff);
    let drives = floppies.iter().filter(|&&kind| kind != 0).count() as u64;
    let equipment = if drives > 0 { 1 | (drives - 1) << 6 } else { 0 };
    let rows: [(u8, usize, u64); 7] = [
        // index, bytes, value
        (0x15, 2, (low / 1024).min(640)),
        (0x17, 2, above(1 << 20, 1 << 10)),
        (0x30, 2, above(1 << 20, 1 << 10)),
        (0x34, 2, above(16 << 20, 1 << 16)),
        (0x5b, 3, high >> 16),
        (0x10, 1, u64::from(floppies[0] << 4 | floppies[1])),
        // Equipment: a mouse and an x87, and the floppy drives.
        (0x14, 1, 0x06 | equipment),
    ];
    let bytes = |&(index, n, value): &(u8, usize, u64)| {
        value
            .to_le_bytes()
            .into_iter()
            .take(n)
            .zip(index..)
            .map(|(b, i)| (i, b))
            .collect::<Vec<_>>()
    };
    rows.iter().flat_map(bytes).collect()
}

#[cfg(test)]
mod tests;
