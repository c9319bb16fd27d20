//! The board of an i440FX PC: which chip answers at which port or address, and which pin drives
//! which line. Chips know nothing of each other; every connection between two of them is here.
//!
//! Three tables say it all: [`PORTS`], [`MMIO`] and [`LINES`]. An access is looked up whole first;
//! what no chip takes in its size is split in halves, down to bytes that nobody claims, which
//! read as ones.
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

use crate::acpi;
use crate::control::{Control, SERIAL_PORTS};
use devices::acpi_pm::{self, AcpiPm};
use devices::debugcon::DebugCon;
use devices::hpet::{self, Hpet};
use devices::i8042::{I8042, Port92};
use devices::i8254::{Pit, Port61};
use devices::i8259::{PicPair, PicReg};
use devices::ioapic::{self, IoApic};
use devices::isa_debug_exit::IsaDebugExit;
use devices::lapic::{DeliveryMode, Destination, Effect, LocalApic};
use devices::mc146818::Rtc;
use devices::pci_host::PciHost;
use devices::post_port::PostPort;
use devices::uart16550::Uart16550;
use emu_core::clock::{Clock, TSC_HZ};
use emu_core::platform::Platform;
use std::fmt;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Frequency of the local APIC's timer before its divider, in Hz.
const APIC_BUS_HZ: u64 = 1_000_000_000;

/// Who answers at a range of ports or addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chip {
    PicMaster,
    PicSlave,
    PicElcr,
    Pit,
    Port61,
    Port92,
    /// The 8042's register, data or command and status.
    Keyboard(u16),
    Rtc,
    Post,
    Com(usize),
    DebugCon,
    DebugExit,
    SmiCommand,
    Power,
    Gpe0,
    Reset,
    /// The configuration ports from this register on: address or data.
    Pci(u16),
    IoApic,
    Hpet,
    LocalApic,
}

/// A range of ports, and the access sizes (1, 2, 4, or their sum) that the chip takes whole.
#[derive(Clone, Copy, Debug)]
struct Ports {
    base: u16,
    len: u16,
    sizes: u8,
    chip: Chip,
}

const fn ports(base: u16, len: u16, sizes: u8, chip: Chip) -> Ports {
    Ports { base, len, sizes, chip }
}

/// Every port that answers, but for the debug exit, whose place is configured.
#[rustfmt::skip]
const PORTS: &[Ports] = &[
    //    base,                 len, sizes, chip
    ports(0x0020,               2,   1,     Chip::PicMaster),
    ports(0x0040,               4,   1,     Chip::Pit),
    ports(0x0060,               1,   1,     Chip::Keyboard(0)),
    ports(0x0061,               1,   1,     Chip::Port61),
    ports(0x0064,               1,   1,     Chip::Keyboard(4)),
    ports(0x0070,               2,   1,     Chip::Rtc),
    ports(0x0080,               1,   1,     Chip::Post),
    ports(0x0092,               1,   1,     Chip::Port92),
    ports(0x00a0,               2,   1,     Chip::PicSlave),
    ports(acpi::SMI_CMD,        2,   1,     Chip::SmiCommand),
    ports(0x00e9,               1,   1,     Chip::DebugCon),
    ports(0x02f8,               8,   1,     Chip::Com(1)),
    ports(0x03f8,               8,   1,     Chip::Com(0)),
    ports(0x04d0,               2,   1,     Chip::PicElcr),
    ports(acpi::PM1A_EVT,       acpi_pm::PM_BLOCK_LEN, 1 + 2 + 4, Chip::Power),
    ports(0x0cf8,               4,   4,     Chip::Pci(0)),
    ports(acpi::RESET_REG,      1,   1,     Chip::Reset),
    ports(0x0cfc,               4,   1 + 2 + 4, Chip::Pci(4)),
    ports(acpi::GPE0,           acpi::GPE0_LEN as u16, 1 + 2 + 4, Chip::Gpe0),
];

/// Every address range that answers, but for the local APIC's page, which the guest may move.
const MMIO: &[(u64, u64, Chip)] = &[
    (ioapic::DEFAULT_BASE, 0x1000, Chip::IoApic),
    (hpet::DEFAULT_BASE, hpet::BLOCK_LEN, Chip::Hpet),
];

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
    (8,             |c| c.rtc.irq() && !c.hpet.legacy_replacement()),
    (acpi::SCI_IRQ, |c| c.power.sci()),
    (12,            |c| c.i8042.irq12()),
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
    /// The trace.
    Trace,
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Output::Serial(n) => write!(f, "the output of COM{}", n + 1),
            Output::DebugCon => f.write_str("the output of the debug console"),
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

/// Whether the guest waits for input at a serial port: it has the receive interrupt on, or reads
/// the line status again and again (whoever only sends reads it once a byte). One that raises
/// RTS when it is ready is believed; with another, that must last for [`CALM`] after the port was
/// set up.
#[derive(Default)]
struct Listener {
    /// Reads of the line status in a row.
    polls: u8,
    /// The receive interrupt is enabled.
    interrupt: bool,
    dlab: bool,
    /// RTS, once it has been raised.
    rts: Option<bool>,
    /// When a register was written, other than that for data.
    set_up: u64,
}

/// Nanoseconds that are longer than a driver takes to open a port.
const CALM: u64 = 10_000_000;

impl Listener {
    fn read(&mut self, reg: u16) {
        const LSR: u16 = 5;
        self.polls = if reg == LSR { self.polls.saturating_add(1) } else { 0 };
    }

    fn write(&mut self, now: u64, reg: u16, value: u8) {
        self.polls = 0;
        match reg {
            0 => return,
            1 if !self.dlab => self.interrupt = value & 1 != 0,
            3 => self.dlab = value & 0x80 != 0,
            // In loopback RTS stays inside.
            4 if value & 0x12 == 2 => self.rts = Some(true),
            4 => self.rts = self.rts.map(|_| false),
            _ => {}
        }
        self.set_up = now;
    }

    fn listens(&self, now: u64) -> bool {
        let calm = now.saturating_sub(self.set_up) >= CALM;
        let open = self.interrupt && (calm || self.rts == Some(true)) || calm && self.polls >= 2;
        open && !self.dlab && self.rts != Some(false)
    }
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
    pci: PciHost,
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
    /// A board at power-up, for a machine with `memory` bytes of RAM whose real-time clock shows
    /// `rtc` (seconds since 1970).
    #[must_use]
    pub fn new(clock: Arc<Clock>, memory: u64, rtc: u64, debug_exit: Option<DebugExit>) -> Board {
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
            pci: PciHost::new(),
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
        };
        if let Some(at) = debug_exit {
            chips.ports.push(ports(at.iobase, at.iosize, 1, Chip::DebugExit));
        }
        for (index, value) in cmos(memory) {
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
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Hands waiting input to the serial ports; gives what they have taken.
    pub(crate) fn receive(&self, control: &Control) -> Input {
        let mut taken = Input::new();
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
        self.pci.reset();
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
        self.drive(lines);
        self.carry_messages();
        let intr = self.pic.intr();
        if intr && !self.intr {
            self.lapic.pulse_lint0();
        }
        self.intr = intr;
        self.watch_for_events();
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

    fn port_in(&mut self, now: u64, port: u16, size: u8) -> u32 {
        match self.port_at(port, size) {
            Some((chip, reg)) => self.port_read(chip, now, reg, size),
            None if size > 1 => {
                let half = size / 2;
                let low = self.port_in(now, port, half);
                low | self.port_in(now, port.wrapping_add(half.into()), half) << (8 * half)
            }
            None => 0xff,
        }
    }

    fn port_out(&mut self, now: u64, port: u16, size: u8, value: u32) {
        match self.port_at(port, size) {
            Some((chip, reg)) => {
                self.port_write(chip, now, reg, size, value);
                self.watch_for_events();
            }
            None if size > 1 => {
                let half = size / 2;
                let mask = u32::MAX >> (32 - 8 * half);
                self.port_out(now, port, half, value & mask);
                self.port_out(now, port.wrapping_add(half.into()), half, value >> (8 * half));
            }
            None => {}
        }
    }

    /// Who takes an access of `size` bytes at `port` whole, and at which of its registers.
    fn port_at(&self, port: u16, size: u8) -> Option<(Chip, u16)> {
        if self.event.is_some() {
            return None;
        }
        let takes = |row: &&Ports| {
            let reg = port.wrapping_sub(row.base);
            reg < row.len && u16::from(size) <= row.len - reg && row.sizes & size != 0
        };
        self.ports.iter().find(takes).map(|row| (row.chip, port - row.base))
    }

    fn port_read(&mut self, chip: Chip, now: u64, reg: u16, size: u8) -> u32 {
        let offset = u64::from(reg);
        let byte = match chip {
            Chip::Power => return self.power.read(now, offset, size) as u32,
            Chip::Gpe0 => return self.power.gpe_read(now, offset, size) as u32,
            Chip::SmiCommand => self.power.smi_read(now, offset, size) as u8,
            Chip::Pci(base) => return self.pci.read(base + reg, size, &mut []),
            Chip::Reset => self.power.reset_read(),
            Chip::PicMaster | Chip::PicSlave | Chip::PicElcr => self.pic.read(pic_reg(chip, reg)),
            Chip::Pit => self.pit.read(now, reg),
            Chip::Port61 => {
                let out2 = self.pit.out2(now);
                self.port61.read(now, out2)
            }
            Chip::Port92 => self.port92.read(),
            Chip::Keyboard(reg) => self.i8042.read(reg),
            Chip::Rtc => self.rtc.read(now, reg),
            Chip::Post => self.post.read(),
            Chip::Com(n) => {
                self.listeners[n].read(reg);
                self.com[n].read(reg)
            }
            Chip::DebugCon => self.debugcon.read(),
            Chip::DebugExit => self.debug_exit.read(reg),
            Chip::IoApic | Chip::Hpet | Chip::LocalApic => 0xff,
        };
        byte.into()
    }

    fn port_write(&mut self, chip: Chip, now: u64, reg: u16, size: u8, value: u32) {
        let (offset, wide, byte) = (u64::from(reg), u64::from(value), value as u8);
        match chip {
            Chip::Power => self.power.write(now, offset, size, wide),
            Chip::Gpe0 => self.power.gpe_write(now, offset, size, wide),
            Chip::SmiCommand => self.power.smi_write(now, offset, size, wide),
            Chip::Pci(base) => self.pci.write(base + reg, size, value, &mut []),
            Chip::Reset => self.power.reset_write(byte),
            Chip::PicMaster | Chip::PicSlave | Chip::PicElcr => {
                self.pic.write(pic_reg(chip, reg), byte);
            }
            Chip::Pit => self.pit.write(now, reg, byte),
            Chip::Port61 => {
                self.port61.write(byte);
                self.pit.set_gate2(now, self.port61.gate2());
            }
            Chip::Port92 => self.port92.write(byte),
            Chip::Keyboard(reg) => self.i8042.write(reg, byte),
            Chip::Rtc => self.rtc.write(now, reg, byte),
            Chip::Post => self.post.write(byte),
            Chip::Com(n) => {
                self.listeners[n].write(now, reg, byte);
                self.com[n].write(reg, byte);
                // The transmitter's request falls while the byte is in it, then rises again.
                self.settle();
                while let Some(byte) = self.com[n].pop_tx() {
                    self.sent[n].push(byte);
                }
            }
            Chip::DebugCon => self.debugcon.write(byte),
            Chip::DebugExit => self.debug_exit.write(reg, byte),
            Chip::IoApic | Chip::Hpet | Chip::LocalApic => {}
        }
    }

    fn mmio_read(&mut self, now: u64, pa: u64, size: u8) -> u64 {
        match self.mmio_at(pa, size) {
            Some((Chip::IoApic, offset)) => self.ioapic.read(now, offset, size),
            Some((Chip::Hpet, offset)) => self.hpet.read(now, offset, size),
            Some((_, offset)) => self.lapic.read(now, offset, size),
            None if size > 1 => {
                let half = size / 2;
                let low = self.mmio_read(now, pa, half);
                low | self.mmio_read(now, pa.wrapping_add(half.into()), half) << (8 * half)
            }
            None => 0xff,
        }
    }

    fn mmio_write(&mut self, now: u64, pa: u64, size: u8, value: u64) {
        match self.mmio_at(pa, size) {
            Some((Chip::IoApic, offset)) => self.ioapic.write(now, offset, size, value),
            Some((Chip::Hpet, offset)) => self.hpet.write(now, offset, size, value),
            Some((_, offset)) => self.lapic.write(now, offset, size, value),
            None if size > 1 => {
                let half = size / 2;
                let mask = u64::MAX >> (64 - 8 * half);
                self.mmio_write(now, pa, half, value & mask);
                self.mmio_write(now, pa.wrapping_add(half.into()), half, value >> (8 * half));
            }
            None => {}
        }
    }

    /// Who takes an access of `size` bytes at `pa` whole, and at which offset.
    fn mmio_at(&self, pa: u64, size: u8) -> Option<(Chip, u64)> {
        if self.event.is_some() {
            return None;
        }
        let lapic = self.lapic.base().map(|base| (base, 0x1000, Chip::LocalApic));
        lapic.iter().chain(MMIO).find_map(|&(base, len, chip)| {
            let offset = pa.wrapping_sub(base);
            (offset < len && u64::from(size) <= len - offset).then_some((chip, offset))
        })
    }
}

fn pic_reg(chip: Chip, reg: u16) -> PicReg {
    match (chip, reg) {
        (Chip::PicMaster, 0) => PicReg::MasterCommand,
        (Chip::PicMaster, _) => PicReg::MasterData,
        (Chip::PicSlave, 0) => PicReg::SlaveCommand,
        (Chip::PicSlave, _) => PicReg::SlaveData,
        (_, 0) => PicReg::MasterElcr,
        _ => PicReg::SlaveElcr,
    }
}

/// What the CMOS RAM tells of a machine with `memory` bytes of RAM: index and value.
fn cmos(memory: u64) -> Vec<(u8, u8)> {
    let (low, high) = crate::boot::e820::split(memory);
    let above = |start: u64, unit: u64| (low.saturating_sub(start) / unit).min(0xffff);
    let rows: [(u8, usize, u64); 6] = [
        // index, bytes, value
        (0x15, 2, (low / 1024).min(640)),
        (0x17, 2, above(1 << 20, 1 << 10)),
        (0x30, 2, above(1 << 20, 1 << 10)),
        (0x34, 2, above(16 << 20, 1 << 16)),
        (0x5b, 3, high >> 16),
        // Equipment: a mouse and an x87.
        (0x14, 1, 0x06),
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
mod tests {
    use super::*;

    const LAPIC: u64 = devices::lapic::DEFAULT_BASE;
    const SVR: u64 = LAPIC + 0xf0;
    const LVT_LINT0: u64 = LAPIC + 0x350;
    const EOI: u64 = LAPIC + 0xb0;
    const MS: u64 = 1_000_000;

    fn board(memory: u64) -> Board {
        Board::new(Arc::new(Clock::icount()), memory, 0, Some(DebugExit::default()))
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
        fn init_pics(&self, open: u16) {
            let mask = (!open).to_le_bytes();
            for (port, rest) in [(0x20, [0x20, 4, 1, mask[0]]), (0xa0, [0x28, 2, 1, mask[1]])] {
                self.out(port, &[0x11]);
                self.out(port + 1, &rest);
            }
        }

        /// Redirection entry of `pin`.
        fn route(&self, pin: u64, entry: u64) {
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
            for port in [0, 0x1f0, 0x3b0, 0xfffe, 0xffff] {
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
        (1..256).for_each(|function| assert_eq!(read(function), u32::MAX));
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
    fn no_access_panics() {
        let b = board(64 << 20);
        let mut seed = 1u64;
        let mut next = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        let bases: Vec<u64> = MMIO.iter().map(|m| m.0).chain([LAPIC]).collect();
        for step in 0..50_000 {
            let (r, value) = (next(), next());
            let row = PORTS[r as usize % PORTS.len()];
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
}
