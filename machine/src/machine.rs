//! A machine: configuration, memory, one CPU and its board, and the loop that runs them.
//!
//! The loop runs the CPU for a slice, then brings the chips to the time that has come, moves serial
//! bytes, and looks for a reason to end. A slice is at most [`SLICE`] instructions, on a host clock
//! as many as take [`SLICE_NS`], and ends before the next deadline of a chip. A halted CPU waits:
//! on a host clock the thread sleeps until the deadline or until there is input; on an
//! instruction-count clock the time is skipped.
//!
//! Invariant: with [`ClockKind::Icount`] nothing in here depends on the host, so that the same
//! configuration and input give the same run. Output is written before the next slice starts: a
//! slow host stalls the guest, nothing is dropped.

use crate::acpi::{self, AcpiLayout};
use crate::boot::{self, e820};
use crate::control::{Control, SERIAL_PORTS};
use crate::firmware::{self, BootOrder};
use crate::pc::{Backing, Board, DebugExit, Event, Input, Output, Parts};
use crate::report::{self, Stat};
use crate::storage::{self, Drive};
use block::DriveSpec;
use devices::vga::Vga;
use emu_core::clock::Clock;
use emu_core::cpu::{Cpu, Seg};
use emu_core::flags::rflags;
use emu_core::mem::{DeviceRam, GuestRam, Memory, PhysMem};
use emu_core::native::Translator;
use emu_core::vcpu::{Stop, Trace, Vcpu};
use frontend_x86::FRONTEND;
use frontend_x86::model::{CpuModel, of, phys_bits};
use frontend_x86::sys::{self, cpuid::Features};
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Instructions in a slice at most on an instruction-count clock.
const SLICE: u64 = 20_000;
/// Nanoseconds that a slice is to take at most on a host clock: a host's signal, or a timer that
/// was programmed within the slice, may be late by these.
const SLICE_NS: u64 = 100_000;
/// Instructions in such a slice at least, because a slice has a price of its own, and at most.
const SLICE_INSNS: [u64; 2] = [500, 1 << 18];
/// Least memory of a machine: all that is below the first MiB, and one page to load something.
pub const MEMORY_MIN: u64 = 2 << 20;
/// The real-time clock's start on an instruction-count clock: 2000-01-01.
const ICOUNT_RTC: u64 = 946_684_800;
/// Video memory of a VGA in bytes.
const VIDEO_MEMORY: u64 = 16 << 20;
/// The longest ROM.
const ROM_MAX: u64 = 16 << 20;

/// What a machine runs on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClockKind {
    /// Time is the host's.
    #[default]
    Host,
    /// An instruction takes a nanosecond, time in HLT is skipped: every run is the same.
    Icount,
}

/// Runs after which [`Engine::Auto`] translates a block.
const WARM: u16 = 20;

/// How guest code runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Engine {
    /// The micro-op interpreter.
    Interp,
    /// Translated to host code before it runs at all.
    Jit,
    /// Interpreted at first, and translated to host code once it has run a few times, where there
    /// is a translator for the host.
    #[default]
    Auto,
}

/// The code generator for this host, if there is one.
#[must_use]
pub fn host_translator() -> Option<Box<dyn Translator>> {
    backend_jit::native()
}

/// A kernel to start without firmware.
#[derive(Clone, Default)]
pub struct Kernel {
    /// The file: a Linux bzImage, an ELF file with a PVH entry point, or a Multiboot kernel.
    pub image: Vec<u8>,
    /// Initial RAM disk.
    pub initrd: Option<Vec<u8>>,
    /// What is loaded beside a Multiboot kernel.
    pub modules: Vec<boot::multiboot::Module>,
    /// Command line.
    pub cmdline: String,
    /// The file's name, for messages.
    pub name: String,
}

/// What a machine starts.
#[derive(Clone)]
pub enum Boot {
    /// A kernel, entered as its boot protocol says.
    Kernel(Kernel),
    /// A ROM that ends at 4 GiB, the last 128 KiB of it also at 1 MiB; the CPU starts at its
    /// reset vector. Whole pages, at most 16 MiB.
    Rom(Vec<u8>),
}

/// Everything that makes a machine what it is.
#[derive(Clone)]
pub struct MachineConfig {
    /// What it starts.
    pub boot: Boot,
    /// Its CPU.
    pub cpu: CpuModel,
    /// RAM in bytes: whole pages, at least [`MEMORY_MIN`].
    pub memory: u64,
    /// Its clock.
    pub clock: ClockKind,
    /// How its code runs.
    pub engine: Engine,
    /// A reset ends the run instead of starting over.
    pub no_reboot: bool,
    /// The port by which a guest ends the run with a status, if it has one.
    pub debug_exit: Option<DebugExit>,
    /// It has a `pc-testdev`.
    pub testdev: bool,
    /// The BIOS of its VGA (may be empty), if it has a VGA.
    pub vga: Option<Arc<[u8]>>,
    /// Its drives.
    pub drives: Vec<DriveSpec>,
    /// What firmware boots from.
    pub boot_order: BootOrder,
    /// The real-time clock's start in seconds since 1970; by default the host's time, or
    /// 2000-01-01 on an instruction-count clock.
    pub rtc: Option<u64>,
}

impl MachineConfig {
    /// A machine of 512 MiB with the default CPU model, on the host's clock.
    #[must_use]
    pub fn new(boot: Boot) -> MachineConfig {
        MachineConfig {
            boot,
            cpu: CpuModel::default(),
            memory: 512 << 20,
            clock: ClockKind::Host,
            engine: Engine::default(),
            no_reboot: false,
            debug_exit: None,
            testdev: false,
            vga: None,
            drives: Vec::new(),
            boot_order: BootOrder::default(),
            rtc: None,
        }
    }
}

/// Why a machine cannot be made or cannot go on; each message is one line.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// [`Engine::Jit`] on a host that there is no code generator for.
    #[error("this build has no translator to host code; use interp or auto")]
    NoTranslator,
    /// Too little memory, or not in pages.
    #[error(
        "cannot make a machine with {0} bytes of memory: give whole pages of 4 KiB, 2 MiB at least"
    )]
    Memory(u64),
    /// More memory than the host has.
    #[error(
        "cannot make a machine with {} MiB of memory: this host has {} MiB",
        asked >> 20,
        host >> 20
    )]
    HostMemory {
        /// Bytes asked for.
        asked: u64,
        /// Bytes of the host's RAM.
        host: u64,
    },
    /// More memory than the CPU has addresses for.
    #[error(
        "cannot make a machine with {} MiB of memory: the CPU model {model} has physical addresses \
         of {bits} bits",
        asked >> 20
    )]
    CpuMemory {
        /// Bytes asked for.
        asked: u64,
        /// The model's name.
        model: &'static str,
        /// Its MAXPHYADDR.
        bits: u32,
    },
    /// The host refuses the memory.
    #[error("cannot reserve {} MiB of memory: {error}", asked >> 20)]
    Reserve {
        /// Bytes asked for.
        asked: u64,
        /// What the host says.
        error: io::Error,
    },
    /// A ROM of a size that cannot be.
    #[error("a ROM must have whole pages of 4 KiB, 16 MiB at most, not {0} bytes")]
    Rom(u64),
    /// A drive cannot be attached.
    #[error(transparent)]
    Drive(#[from] storage::DriveError),
    /// The kernel cannot be booted.
    #[error(transparent)]
    Boot(#[from] boot::BootError),
    /// Output cannot be written.
    #[error("cannot write {output}: {error}")]
    Output {
        /// Which.
        output: Output,
        /// What the host says.
        error: io::Error,
    },
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The guest switched the machine off.
    PowerOff,
    /// The guest asked for a reset, in a machine that does not reboot.
    Reset,
    /// The guest ended the run through `isa-debug-exit`, with this status.
    DebugExit(u32),
    /// Triple fault; the text shows the registers and the last block.
    Shutdown(String),
    /// The time was up.
    Timeout,
    /// [`Control::stop`].
    Stopped,
}

/// A PC.
pub struct Machine {
    vcpu: Vcpu,
    board: Arc<Board>,
    control: Control,
    outputs: Vec<(Output, Box<dyn Write + Send>)>,
    inputs: Vec<(usize, Box<dyn Read + Send>)>,
    trace: Option<TraceWriter>,
    /// Kept for a reset; `None` when the reset vector is where it starts.
    kernel: Option<Kernel>,
    memory: u64,
    no_reboot: bool,
    drives: Vec<Drive>,
    /// Called after each reset.
    watch: Option<Box<dyn FnMut() + Send>>,
    /// Bytes that the chips have put out.
    pub(crate) sent: u64,
    pace: Pace,
    /// How long [`Machine::run`] ran, and how long of this it slept.
    ran: Duration,
    slept: Duration,
}

/// How fast the guest has run of late, in picoseconds per instruction.
#[derive(Debug)]
struct Pace(u64);

impl Pace {
    /// Until it is known.
    const FIRST: Pace = Pace(4000);

    /// What ran from one nanosecond and instruction count to another. A short slice says little.
    fn measure(&mut self, from: (u64, u64), to: (u64, u64)) {
        let (ns, insns) = (to.0.saturating_sub(from.0), to.1.wrapping_sub(from.1));
        if let Some(now) =
            ns.saturating_mul(1000).checked_div(insns).filter(|_| insns >= SLICE_INSNS[0])
        {
            self.0 = (3 * self.0 + now.clamp(100, 100_000)) / 4;
        }
    }

    /// Instructions that will take about `ns`.
    fn insns(&self, ns: u64) -> u64 {
        ns * 1000 / self.0
    }
}

impl Machine {
    /// Makes a machine, its kernel loaded; nothing runs yet.
    ///
    /// # Errors
    /// Everything that is wrong with the configuration.
    pub fn new(config: MachineConfig) -> Result<Machine, Error> {
        let MachineConfig { boot, cpu: model, memory, clock, engine, .. } = config;
        let MachineConfig { no_reboot, debug_exit, rtc, .. } = config;
        let icount = clock == ClockKind::Icount;
        let clock = Arc::new(if icount { Clock::icount() } else { Clock::host() });
        let rtc = rtc.unwrap_or_else(|| if icount { ICOUNT_RTC } else { host_seconds() });
        let control = Control::default();
        let mut storage = storage::attach(&config.drives, (!icount).then_some(&control))?;
        let drives = std::mem::take(&mut storage.drives);
        let (mem, backing) = reserve(&boot, memory, config.vga.is_some())?;
        let video = DeviceRam::new(&mem, backing.ram + backing.rom, backing.vga);
        let vga = config.vga.map(|rom| Vga::new(video, rom.to_vec()));
        let board = Arc::new(Board::new(Parts {
            clock: clock.clone(),
            memory: mem.clone(),
            backing,
            rtc,
            debug_exit,
            testdev: config.testdev,
            vga,
            ide: matches!(boot, Boot::Rom(_)) || storage.has_ide(),
            storage,
            fw_cfg: firmware::items(memory, &config.boot_order),
            boot_order: config.boot_order,
        }));
        let mut cpu = Cpu::new(PhysMem::over(mem, board.clone()), clock, &FRONTEND);
        model.apply(&mut cpu);
        let bits = phys_bits(&cpu);
        if e820::split(memory).1 > 0 && e820::HIGH_BASE + e820::split(memory).1 > 1 << bits {
            return Err(Error::CpuMemory { asked: memory, model: model.model().name, bits });
        }
        let mut machine = Machine {
            vcpu: Vcpu::new(cpu),
            board,
            control,
            outputs: Vec::new(),
            inputs: Vec::new(),
            trace: None,
            kernel: match boot {
                Boot::Kernel(kernel) => Some(kernel),
                Boot::Rom(_) => None,
            },
            memory,
            no_reboot,
            drives,
            watch: None,
            sent: 0,
            ran: Duration::ZERO,
            pace: Pace::FIRST,
            slept: Duration::ZERO,
        };
        match (engine, host_translator()) {
            (Engine::Interp, _) | (Engine::Auto, None) => {}
            (Engine::Jit, None) => return Err(Error::NoTranslator),
            (Engine::Jit, Some(translator)) => machine.set_translator(translator, 1),
            (Engine::Auto, Some(translator)) => machine.set_translator(translator, WARM),
        }
        machine.start()?;
        if no_reboot {
            machine.kernel = None;
        }
        Ok(machine)
    }

    /// Connects the output of serial port `port` (0 is COM1), which is dropped otherwise. Input
    /// comes by [`Control::send`] or [`Machine::connect_input`].
    ///
    /// # Panics
    /// When there is no such port.
    pub fn connect_serial(&mut self, port: usize, output: Box<dyn Write + Send>) {
        assert!(port < SERIAL_PORTS, "there are {SERIAL_PORTS} serial ports, not {port}");
        self.connect(Output::Serial(port), output);
    }

    /// Connects input of serial port `port`, which the machine itself reads, as fast as the guest
    /// takes it. For files, which give the same bytes at the same instruction in every run on an
    /// instruction-count clock; a reader that blocks would stop the machine.
    pub fn connect_input(&mut self, port: usize, input: Box<dyn Read + Send>) {
        self.inputs.push((port, input));
    }

    /// Connects the output of the debug console, which is dropped otherwise.
    pub fn connect_debugcon(&mut self, output: Box<dyn Write + Send>) {
        self.connect(Output::DebugCon, output);
    }

    /// Connects what firmware writes to port 0x402, which is dropped otherwise.
    pub fn connect_firmware_log(&mut self, output: Box<dyn Write + Send>) {
        self.connect(Output::FirmwareLog, output);
    }

    fn connect(&mut self, which: Output, output: Box<dyn Write + Send>) {
        self.outputs.retain(|(o, _)| *o != which);
        self.outputs.push((which, output));
    }

    /// A handle to stop the machine and to send it input, from any thread.
    #[must_use]
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// The CPU, with its counters and trace.
    #[must_use]
    pub fn vcpu(&self) -> &Vcpu {
        &self.vcpu
    }

    /// Runs the CPU for `budget` instructions, within a turn.
    pub(crate) fn run_cpu(&mut self, budget: i64) -> Stop {
        let start = Instant::now();
        let stop = self.vcpu.run(budget);
        self.ran += start.elapsed();
        stop
    }

    /// Translates code with `translator` from its run number `runs` on (1 is the first), whatever
    /// the configuration said.
    pub fn set_translator(&mut self, translator: Box<dyn Translator>, runs: u16) {
        self.vcpu.set_translator(translator, runs);
    }

    /// Writes what `what` names to `out` from now on. A trace that cannot be written ends the run.
    pub fn trace(&mut self, what: Trace, out: Box<dyn Write + Send>) {
        let out = TraceWriter(Arc::new(Mutex::new(TraceOut { out, error: None })));
        self.trace = Some(out.clone());
        if what.contains(Trace::IO) {
            self.board.trace_io(Box::new(out.clone()));
        }
        self.vcpu.trace(what, Box::new(out));
    }

    /// Names translated code in `out` from now on, as `perf` reads it in `/tmp/perf-PID.map`.
    pub fn perf_map(&mut self, out: Box<dyn Write + Send>) {
        self.vcpu.perf_map(out);
    }

    /// Counts sensitive instructions from now on; see [`frontend_x86::sensitive`].
    pub fn audit(&mut self) {
        frontend_x86::sensitive::audit(&mut self.vcpu.cpu);
    }

    /// What the machine has counted so far.
    #[must_use]
    pub fn stats(&self) -> Vec<Stat> {
        report::stats(&self.vcpu, self.board.stats(), self.ran.saturating_sub(self.slept))
    }

    /// The board with its chips.
    #[must_use]
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// The same for other threads: what is on the screen.
    #[must_use]
    pub fn share_board(&self) -> Arc<Board> {
        self.board.clone()
    }

    /// Its drives, in the order in which they were given.
    #[must_use]
    pub fn drives(&self) -> &[Drive] {
        &self.drives
    }

    /// The same, to change media.
    pub fn drives_mut(&mut self) -> &mut [Drive] {
        &mut self.drives
    }

    /// Calls `watch` after each reset, whoever asked for it, on the machine's thread.
    pub fn on_reset(&mut self, watch: impl FnMut() + Send + 'static) {
        self.watch = Some(Box::new(watch));
    }

    /// Runs until the guest or the host ends it, or for `timeout` of the host's time. A run that
    /// ended by [`Outcome::Timeout`] goes on when it is called again.
    ///
    /// # Errors
    /// When output cannot be written, or the kernel cannot be loaded again after a reset.
    pub fn run(&mut self, timeout: Option<Duration>) -> Result<Outcome, Error> {
        let start = Instant::now();
        let outcome = self.run_until(timeout.and_then(|t| start.checked_add(t)));
        self.ran += start.elapsed();
        let traced = self.trace.as_mut().map_or(Ok(()), Write::flush);
        outcome.and_then(|o| traced.map(|()| o).map_err(trace_error))
    }

    /// The reset button: CPU and chips start over, memory keeps what no kernel overwrites. After
    /// [`Outcome::Shutdown`] this is what a PC does by itself.
    ///
    /// # Errors
    /// When the kernel cannot be loaded again.
    pub fn reset(&mut self) -> Result<(), Error> {
        self.start()?;
        self.watch.iter_mut().for_each(|watch| watch());
        Ok(())
    }

    /// The same for who presses it beside the machine: one that does not reboot ends its run.
    ///
    /// # Errors
    /// As [`reset`](Self::reset).
    pub fn press_reset(&mut self) -> Result<(), Error> {
        if self.no_reboot {
            self.board.press_reset_button();
            return Ok(());
        }
        self.reset()
    }

    fn run_until(&mut self, until: Option<Instant>) -> Result<Outcome, Error> {
        loop {
            if self.control.stopped() {
                return Ok(Outcome::Stopped);
            }
            if until.is_some_and(|t| Instant::now() >= t) {
                return Ok(Outcome::Timeout);
            }
            if let Some(jobs) = self.control.take_jobs() {
                jobs.into_iter().for_each(|job| job(self));
                if self.control.is_paused() {
                    self.stand_still(until);
                    continue;
                }
            }
            if let Some(outcome) = self.turn(until)? {
                return Ok(outcome);
            }
        }
    }

    /// Waits while the machine is paused; the guest's time does not go on.
    fn stand_still(&mut self, until: Option<Instant>) {
        let start = self.vcpu.cpu.clock.now();
        self.control.wait(until);
        self.vcpu.cpu.clock.hold(start);
    }

    /// Runs one slice, after which chips and CPU stand still: for what compares machines. Where
    /// the CPU waits, it waits until `until` at most.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn turn(&mut self, until: Option<Instant>) -> Result<Option<Outcome>, Error> {
        let (slice, _) = self.begin();
        let cpu = |m: &Machine| (m.vcpu.cpu.now(), m.vcpu.cpu.icount());
        let (start, stop) = (cpu(self), self.vcpu.run(slice));
        self.pace.measure(start, cpu(self));
        self.end(stop, until)
    }

    /// The first part of a turn, up to the run of the CPU: gives the instructions of that, and the
    /// input that the chips have taken.
    pub(crate) fn begin(&mut self) -> (i64, Input) {
        let now = self.vcpu.cpu.now();
        self.read_inputs();
        let input = self.board.receive(&self.control);
        self.board.advance();
        (self.slice(now), input)
    }

    /// The last part of a turn, after the CPU has stopped.
    pub(crate) fn end(
        &mut self,
        stop: Stop,
        until: Option<Instant>,
    ) -> Result<Option<Outcome>, Error> {
        self.transmit()?;
        match (self.board.take_event(), stop) {
            (Some(Event::PowerOff), _) => return Ok(Some(Outcome::PowerOff)),
            (Some(Event::DebugExit(status)), _) => return Ok(Some(Outcome::DebugExit(status))),
            (Some(Event::Reset), _) if self.no_reboot => return Ok(Some(Outcome::Reset)),
            (Some(Event::Reset), _) => self.reset()?,
            (None, Stop::Shutdown) => {
                return Ok(Some(Outcome::Shutdown(report::shutdown(&mut self.vcpu))));
            }
            (None, Stop::Halted) => self.idle(until),
            (None, Stop::Budget) => {}
        }
        Ok(None)
    }

    /// Instructions until the loop must look at the chips again.
    fn slice(&self, now: u64) -> i64 {
        let left = self.board.next_deadline().map_or(u64::MAX, |at| at.saturating_sub(now));
        let insns = if self.vcpu.cpu.clock.is_icount() {
            left.clamp(1, SLICE)
        } else {
            self.pace.insns(left.min(SLICE_NS)).clamp(SLICE_INSNS[0], SLICE_INSNS[1])
        };
        insns as i64
    }

    /// Passes time until something can wake the halted CPU.
    fn idle(&mut self, until: Option<Instant>) {
        let deadline = self.board.next_deadline();
        let left = deadline.map(|at| at.saturating_sub(self.vcpu.cpu.now()));
        let skip = left.filter(|_| self.vcpu.cpu.clock.is_icount());
        // With interrupts off this is a machine at its end: no reason to keep the host busy.
        if skip.is_none() || self.vcpu.cpu.rflags() & rflags::IF == 0 {
            let start = Instant::now();
            let wake = left.and_then(|left| start.checked_add(Duration::from_nanos(left)));
            self.control.wait(until.into_iter().chain(wake).min());
            self.slept += start.elapsed();
        }
        self.vcpu.cpu.skipped_ns += skip.unwrap_or(0);
    }

    /// Queues input for the ports that have none waiting.
    fn read_inputs(&mut self) {
        self.inputs.retain_mut(|(port, input)| {
            if self.control.has_input(*port) {
                return true;
            }
            let mut bytes = [0; 4096];
            // A file that cannot be read any further has come to its end.
            let n = input.read(&mut bytes).unwrap_or(0);
            self.control.send(*port, &bytes[..n]);
            n != 0
        });
    }

    /// Writes what the chips have put out.
    pub(crate) fn transmit(&mut self) -> Result<(), Error> {
        for (output, bytes) in self.board.take_output() {
            self.sent += bytes.len() as u64;
            if let Some((_, to)) = self.outputs.iter_mut().find(|(o, _)| *o == output) {
                let written = to.write_all(&bytes).and_then(|()| to.flush());
                written.map_err(|error| Error::Output { output, error })?;
            }
        }
        match self.trace.as_ref().and_then(TraceWriter::take_error) {
            Some(error) => Err(trace_error(error)),
            None => Ok(()),
        }
    }

    /// Brings CPU and chips into their state at power-up, and loads the kernel. Memory keeps
    /// what nobody overwrites, as in a PC; time and counters go on.
    fn start(&mut self) -> Result<(), Error> {
        self.board.reset();
        if self.kernel.is_some() {
            self.board.set_up();
        }
        let cpu = &mut self.vcpu.cpu;
        cpu.mem.sync();
        sys::reset::reset(cpu);
        let Some(kernel) = &self.kernel else { return Ok(()) };
        let tables = acpi::build(&AcpiLayout::default(), e820::ACPI.start);
        let entry = boot::load(
            &cpu.mem,
            self.memory,
            &kernel.image,
            kernel.initrd.as_deref(),
            &kernel.cmdline,
            tables.rsdp,
            boot::Options {
                name: &kernel.name,
                modules: &kernel.modules,
                no_long_mode: (!Features::LM.in_cpu(cpu)).then(|| of(cpu).name),
                ..boot::Options::default()
            },
        )?;
        cpu.mem.write_bytes(tables.base, &tables.blob);
        enter(cpu, &entry);
        Ok(())
    }
}

/// Puts a CPU that was just reset into the state of `entry`.
fn enter(cpu: &mut Cpu, entry: &boot::Entry) {
    use emu_core::cpu::Reg;
    cpu.regs.fill(0);
    for &(reg, value) in &entry.regs {
        cpu.set_reg(reg, value);
    }
    cpu.set_reg(Reg::RSP, entry.rsp);
    cpu.set_rip(entry.rip);
    cpu.segs = [entry.data; 6];
    cpu.segs[Seg::Cs as usize] = entry.cs;
    cpu.set_rflags(0);
    let sys = &mut cpu.sys;
    (sys.cr0, sys.cr3, sys.cr4, sys.efer) = (entry.cr0, entry.cr3, entry.cr4, entry.efer);
    (sys.gdtr, sys.tr, sys.tr_base) = (entry.gdt, entry.tr, 0);
    sys::mode::update(cpu);
}

/// One writer for CPU and board, to whom a trace never fails: the run loop takes the error.
#[derive(Clone)]
struct TraceWriter(Arc<Mutex<TraceOut>>);

struct TraceOut {
    out: Box<dyn Write + Send>,
    error: Option<io::Error>,
}

impl TraceWriter {
    fn inner(&self) -> MutexGuard<'_, TraceOut> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_error(&self) -> Option<io::Error> {
        self.inner().error.take()
    }
}

impl Write for TraceWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut inner = self.inner();
        let written = inner.out.write_all(bytes);
        inner.error = inner.error.take().or(written.err());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner().out.flush()
    }
}

fn trace_error(error: io::Error) -> Error {
    Error::Output { output: Output::Trace, error }
}

/// Reserves a machine's memory: RAM, and a ROM if the machine boots one, with its content. What of
/// it is seen where the board says.
fn reserve(boot: &Boot, memory: u64, vga: bool) -> Result<(Memory, Backing), Error> {
    if memory < MEMORY_MIN || memory & 4095 != 0 {
        return Err(Error::Memory(memory));
    }
    let info = rustix::system::sysinfo();
    let host = (info.totalram as u64).saturating_mul(u64::from(info.mem_unit.max(1)));
    if memory > host {
        return Err(Error::HostMemory { asked: memory, host });
    }
    let rom = match boot {
        Boot::Kernel(_) => None,
        Boot::Rom(rom) => Some(rom),
    };
    let len = rom.map_or(0, |rom| rom.len() as u64);
    if rom.is_some_and(Vec::is_empty) || len > ROM_MAX || len & 4095 != 0 {
        return Err(Error::Rom(len));
    }
    let vga = if vga { VIDEO_MEMORY } else { 0 };
    let total = memory + len + vga;
    let ram = GuestRam::new(total).map_err(|error| Error::Reserve { asked: memory, error })?;
    if let Some(rom) = rom {
        ram.write_bytes(memory, rom);
    }
    Ok((Memory::new(Arc::new(ram), Vec::new()), Backing { ram: memory, rom: len, vga }))
}

fn host_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(ICOUNT_RTC, |t| t.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(boot: Boot, memory: u64) -> String {
        let config = MachineConfig { memory, ..MachineConfig::new(boot) };
        match Machine::new(config) {
            Ok(_) => panic!("there is an error"),
            Err(e) => e.to_string(),
        }
    }

    #[test]
    fn slices_are_planned_by_how_fast_the_guest_runs() {
        let mut pace = Pace::FIRST;
        assert_eq!(pace.insns(SLICE_NS), 25_000);
        pace.measure((0, 0), (1 << 40, 100));
        assert_eq!(pace.insns(SLICE_NS), 25_000, "too short to tell");
        for n in 0..40 {
            pace.measure((n, 1000), (n + 50_000, 101_000));
        }
        assert!((199_000..=201_000).contains(&pace.insns(SLICE_NS)), "{pace:?}");
        // A clock that stands still, and one that leaps.
        for to in [0, u64::MAX >> 12] {
            (0..40).for_each(|_| pace.measure((0, 0), (to, 1000)));
            assert!((1..=1_000_000).contains(&pace.insns(SLICE_NS)), "{pace:?}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused_in_one_line() {
        let kernel = |image: &[u8]| {
            let image = image.to_vec();
            Boot::Kernel(Kernel { image, name: "k".to_owned(), ..Kernel::default() })
        };
        for (boot, memory, says) in [
            (kernel(b""), 64 << 20, "cannot boot k: the file is empty"),
            (kernel(b"no"), 64 << 20, "neither"),
            (kernel(b"no"), 0, "0 bytes"),
            (kernel(b"no"), 1024, "1024 bytes"),
            (kernel(b"no"), (64 << 20) + 1, "whole pages"),
            (kernel(b"no"), 1 << 46, "this host has"),
            (Boot::Rom(vec![]), 64 << 20, "not 0 bytes"),
            (Boot::Rom(vec![0; 100]), 64 << 20, "not 100 bytes"),
        ] {
            let line = error(boot, memory);
            assert!(line.contains(says) && !line.contains('\n'), "{line}");
        }
    }

    #[test]
    fn memory_beyond_the_addresses_of_the_cpu_is_refused() {
        let config = |cpu: &str, memory| MachineConfig {
            cpu: cpu.parse().unwrap(),
            memory,
            ..MachineConfig::new(Boot::Rom(vec![0; 4096]))
        };
        let e = Machine::new(config("pentium", 4 << 30)).err().unwrap().to_string();
        assert!(e.contains("the CPU model pentium has physical addresses of 32 bits"), "{e}");
        assert!(Machine::new(config("pentium", 64 << 20)).is_ok());
        assert!(Machine::new(config("pentium,+pse36", 4 << 30)).is_ok());
    }

    #[test]
    fn a_machine_stands_still_while_it_is_paused() {
        // CLI; HLT at the reset vector.
        let mut rom = vec![0; 4096];
        rom[4096 - 16..][..2].copy_from_slice(&[0xfa, 0xf4]);
        let mut m = Machine::new(MachineConfig::new(Boot::Rom(rom))).unwrap();
        let control = m.control();
        let (send, seen) = std::sync::mpsc::channel();
        let look = move |m: &mut Machine| send.send(m.vcpu().cpu.clock.now()).unwrap();
        control.pause(true);
        let others = control.clone();
        let look2 = look.clone();
        control.call(look);
        assert_eq!(m.run(Some(Duration::from_millis(50))).unwrap(), Outcome::Timeout);
        assert!(control.is_paused());
        others.call(look2);
        others.pause(false);
        assert_eq!(m.run(Some(Duration::from_millis(5))).unwrap(), Outcome::Timeout);
        let times: Vec<u64> = seen.try_iter().collect();
        assert!(times.len() == 2 && times[1] - times[0] < 40_000_000, "{times:?}");
    }
}
