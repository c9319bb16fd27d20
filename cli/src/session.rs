//! A machine on this host: its lines connected to files, pipes or the terminal, run until it ends
//! or the host ends it, its outcome made an exit status.
//!
//! Order matters: the machine is made first, so that nothing of the host is touched if it cannot
//! be; then all files are opened, and only when all are open they are truncated; raw mode comes
//! last.

use crate::audit;
use crate::ending::Ending;
use crate::monitor::server::{self, Kind, MonitorEnd, Socket};
use crate::monitor::{Monitor, hmp};
use crate::options::{HostEnd, MachineOptions, StatsFormat, usage};
use crate::screen::{self, Display, DisplayKind, ScreenOptions};
use crate::signals::SignalGuard;
use crate::status;
use crate::terminal::{self, Escape, Key, RawMode};
use anyhow::Context;
use machine::lockstep::{Ended, Lockstep, Report};
use machine::{Control, Engine, Error, Machine, MachineConfig, Outcome, Stat};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::OwnedFd;
use rustix::fs::OFlags;
use rustix::io::Errno;
use signal_hook::consts::{SIGHUP, SIGPIPE};
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, IsTerminal, LineWriter, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::thread;

/// The host's end of a serial port.
pub enum SerialEnd {
    /// As a flag says.
    Host(HostEnd),
    /// Output goes to a writer; there is no input.
    Writer(Box<dyn Write + Send>),
}

/// What runs.
enum Guest {
    Machine(Box<Machine>),
    Lockstep(Box<Lockstep>),
}

impl Guest {
    /// The machine whose lines are connected.
    fn front(&mut self) -> &mut Machine {
        match self {
            Guest::Machine(machine) => machine,
            Guest::Lockstep(both) => both.front(),
        }
    }

    fn run(&mut self) -> Result<Ended, Error> {
        match self {
            Guest::Machine(machine) => machine.run(None).map(Ended::Same),
            Guest::Lockstep(both) => both.run(None),
        }
    }

    /// Counters: those of the machine under test, if there are two.
    fn stats(&self) -> Vec<Stat> {
        match self {
            Guest::Machine(machine) => machine.stats(),
            Guest::Lockstep(both) => both.stats(),
        }
    }
}

/// A machine to run, and where its lines end.
pub struct Session<'a> {
    /// The machine.
    pub config: MachineConfig,
    /// COM1 and then COM2; what is missing is not connected.
    pub serial: Vec<SerialEnd>,
    /// Files that were read to make `config`, which must not be written over.
    pub inputs: Vec<&'a Path>,
    /// Flags.
    pub options: &'a MachineOptions,
    /// Where the screen is shown.
    pub screen: ScreenOptions,
}

impl Session<'_> {
    /// Makes the machine, runs it to its end, and gives the exit status.
    ///
    /// # Errors
    /// Everything that is not the guest's doing, as one line.
    pub fn run(self) -> anyhow::Result<u8> {
        let Session { config, serial, inputs, options, screen } = self;
        let stdio = |end: &&SerialEnd| matches!(end, SerialEnd::Host(HostEnd::Stdio));
        if serial.iter().filter(stdio).count() > 1 {
            return usage("only one serial port can be on stdio");
        }
        screen::check(&screen.display, serial.iter().any(|end| stdio(&end)))?;
        let terminal_port = serial.iter().position(|end| stdio(&end));
        let monitors = options.monitor.iter().chain(&options.qmp);
        let monitors = monitors.filter(|end| **end == MonitorEnd::Stdio).count();
        if monitors + usize::from(terminal_port.is_some()) > 1 {
            return usage("stdio can be only one serial port or one monitor");
        }
        if options.lockstep && options.audit.is_some() {
            return usage("an audit runs on one engine: leave --lockstep out");
        }
        if options.lockstep && config.engine == Engine::Interp {
            return usage("--lockstep compares with the interpreter: use --engine jit or auto");
        }
        let mut guest = match options.lockstep {
            true => Guest::Lockstep(Box::new(Lockstep::new(config)?)),
            false => Guest::Machine(Box::new(Machine::new(config)?)),
        };
        let machine = guest.front();
        let mut files = Files { inputs: &inputs, open: Vec::new() };
        for (port, end) in serial.into_iter().enumerate() {
            match end {
                SerialEnd::Writer(writer) => machine.connect_serial(port, writer),
                SerialEnd::Host(end) => {
                    if let Some(writer) = files.writer(&end, "serial output")? {
                        machine.connect_serial(port, writer);
                    }
                }
            }
        }
        if let Some(writer) = files.writer(&options.debugcon, "debug console's output")? {
            machine.connect_debugcon(writer);
        }
        if let Some(writer) = files.writer(&options.firmware_log, "firmware's log")? {
            machine.connect_firmware_log(writer);
        }
        if !options.trace.is_empty() {
            let out: Box<dyn Write + Send> = match &options.trace_file {
                Some(path) => Box::new(BufWriter::new(files.open(path, "trace")?)),
                None => Box::new(io::stderr()),
            };
            machine.trace(options.traced(), out);
        }
        if options.perf_map || std::env::var_os("RING3_PERF_MAP").is_some_and(|v| !v.is_empty()) {
            machine.perf_map(Box::new(LineWriter::new(perf_map()?)));
        }
        let sockets = sockets(options)?;
        files.truncate()?;
        if options.audit.is_some() {
            machine.audit();
        }

        let ending = Ending::new(machine.control());
        let _signals = SignalGuard::new(ending.clone())?;
        let quit = ending.clone();
        let monitor = (!options.lockstep).then(|| Monitor::new(machine, move || quit.end(0)));
        let mut raw = None;
        if let Some(port) = terminal_port {
            if io::stdin().is_terminal() {
                raw = Some(RawMode::enter().context("cannot use the terminal")?);
            }
            match stdin_file() {
                Some(file) => machine.connect_input(port, Box::new(file)),
                None => {
                    let (control, ending, keys) =
                        (machine.control(), ending.clone(), raw.is_some());
                    let monitor = monitor.clone();
                    let read = move || {
                        read_stdin(&control, port, keys, &ending, monitor.as_ref());
                    };
                    thread::Builder::new().name("stdin".to_owned()).spawn(read)?;
                }
            }
        }
        let board = machine.share_board();
        let shown = Display::start(&screen.display, board.clone(), machine.control())?;
        if screen.display == DisplayKind::Terminal {
            raw = Some(RawMode::enter().context("cannot use the terminal")?);
            let (control, ending) = (machine.control(), ending.clone());
            let read = move || match screen::read_keys(&control) {
                true => ending.end(0),
                false => ending.end(status::SIGNAL + SIGHUP as u8),
            };
            thread::Builder::new().name("keys".to_owned()).spawn(read)?;
        }
        let mut socket_files = Vec::new();
        if let Some(monitor) = &monitor {
            for (_, kind) in monitor_ends(options).filter(|(end, _)| **end == MonitorEnd::Stdio) {
                server::serve_stdio(monitor, kind, Box::new(Stdout::new()?))?;
            }
            for (socket, kind) in sockets {
                socket_files.push(socket.serve(monitor, kind)?);
            }
        }
        if let Some(time) = options.timeout {
            ending.end_after(time)?;
        }
        let ended = guest.run();
        drop(shown);
        if let Some(monitor) = &monitor {
            monitor.ended(!ending.asked());
        }
        let terminal = raw.take().is_some();
        if let Some(path) = &screen.screenshot {
            screen::screenshot(&board, path)?;
        }
        if let Some(counts) = &options.audit {
            let cpu = &guest.front().vcpu().cpu;
            let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
            *counts = audit::counted(cpu);
        }
        let status = match (ending.over(), ended) {
            (Some(status), _) => status,
            (None, Ok(Ended::Same(outcome))) => exit_status(outcome),
            (None, Ok(Ended::Differ(Report { text, .. }))) => {
                say!("ring3: {}", text.trim_end());
                status::DIFFERENCE
            }
            (None, Err(error)) => gone(&error, terminal).ok_or(error)?,
        };
        if let Some(format) = options.stats {
            print_stats(&guest.stats(), format);
        }
        Ok(status)
    }
}

/// Where monitors are, and what they speak.
fn monitor_ends(options: &MachineOptions) -> impl Iterator<Item = (&MonitorEnd, Kind)> {
    let human = options.monitor.iter().map(|end| (end, Kind::Human));
    human.chain(options.qmp.iter().map(|end| (end, Kind::Json)))
}

/// Makes the sockets of the monitors.
fn sockets(options: &MachineOptions) -> anyhow::Result<Vec<(Socket, Kind)>> {
    let socket = |(end, kind)| match end {
        &MonitorEnd::Unix { ref path, wait } => Some(Socket::bind(path, wait).map(|s| (s, kind))),
        _ => None,
    };
    monitor_ends(options).filter_map(socket).collect()
}

/// The status when the reader of the output is gone: what the signal for it would give.
fn gone(error: &Error, terminal: bool) -> Option<u8> {
    let Error::Output { error, .. } = error else { return None };
    match Errno::from_io_error(error)? {
        Errno::PIPE => Some(status::SIGNAL + SIGPIPE as u8),
        Errno::IO if terminal => Some(status::SIGNAL + SIGHUP as u8),
        _ => None,
    }
}

/// Says on standard error what is worth saying.
fn exit_status(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::PowerOff | Outcome::Reset | Outcome::Stopped | Outcome::Timeout => 0,
        Outcome::DebugExit(status) => status as u8,
        Outcome::Shutdown(report) => {
            say!("ring3: triple fault\n{}", report.trim_end());
            status::TRIPLE_FAULT
        }
    }
}

/// The files that a session writes.
struct Files<'a> {
    inputs: &'a [&'a Path],
    open: Vec<(PathBuf, File)>,
}

impl Files<'_> {
    /// What writes to `end`; `None` for nowhere.
    fn writer(
        &mut self,
        end: &HostEnd,
        what: &str,
    ) -> anyhow::Result<Option<Box<dyn Write + Send>>> {
        Ok(match end {
            HostEnd::Null => None,
            HostEnd::Stdio => Some(Box::new(Stdout::new()?)),
            HostEnd::File(path) => Some(Box::new(self.open(path, what)?)),
        })
    }

    /// Opens a file for writing, its content untouched as yet.
    fn open(&mut self, path: &Path, what: &str) -> anyhow::Result<File> {
        let context = || format!("cannot write the {what} to {}", path.display());
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).open(path);
        let file = file.with_context(context)?;
        let id = |m: std::fs::Metadata| (m.dev(), m.ino());
        let meta = file.metadata().with_context(context)?;
        if meta.is_file() {
            let this = id(meta);
            let same = |p: &&Path| std::fs::metadata(p).is_ok_and(|m| id(m) == this);
            if self.inputs.iter().any(same) {
                anyhow::bail!("{}: the file is an input of this machine", context());
            }
            if self.open.iter().any(|(_, f)| f.metadata().is_ok_and(|m| id(m) == this)) {
                return usage(format!("{}: the file is already in use", context()));
            }
        }
        self.open.push((path.to_owned(), file.try_clone().with_context(context)?));
        Ok(file)
    }

    /// Empties all files that have content.
    fn truncate(&self) -> anyhow::Result<()> {
        for (path, file) in &self.open {
            if file.metadata().is_ok_and(|m| m.is_file()) {
                let done = file.set_len(0);
                done.with_context(|| format!("cannot write to {}", path.display()))?;
            }
        }
        Ok(())
    }
}

/// Standard output without a buffer; waits when somebody else made it non-blocking.
struct Stdout(File);

impl Stdout {
    fn new() -> io::Result<Stdout> {
        let fd: OwnedFd = rustix::io::dup(rustix::stdio::stdout())?;
        Ok(Stdout(fd.into()))
    }
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.write(bytes) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    poll(&mut [PollFd::new(&self.0, PollFlags::OUT)], None)?;
                }
                result => return result,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The file in which `perf` looks for the names of code that this process makes.
fn perf_map() -> anyhow::Result<File> {
    let path = format!("/tmp/perf-{}.map", std::process::id());
    let mut options = OpenOptions::new();
    // Anybody may write to that folder: what is there before is not followed.
    options.write(true).create(true).truncate(true).custom_flags(OFlags::NOFOLLOW.bits() as i32);
    options.open(&path).with_context(|| format!("cannot write the map of the code to {path}"))
}

/// Standard input if it is a file, which never makes its reader wait.
fn stdin_file() -> Option<File> {
    let fd: OwnedFd = rustix::io::dup(rustix::stdio::stdin()).ok()?;
    Some(File::from(fd)).filter(|file| file.metadata().is_ok_and(|m| m.is_file()))
}

/// Sends standard input to a serial port until it ends; `keys` when it is a terminal, where the
/// escape keys count, and whose end is that of the run.
fn read_stdin(
    control: &Control,
    port: usize,
    keys: bool,
    ending: &Ending,
    monitor: Option<&Monitor>,
) {
    let mut escape = Escape::default();
    // What is typed to the monitor, while it is the monitor's turn.
    let mut editor = None;
    let mut buffer = [0; 1024];
    loop {
        let n = match io::stdin().read(&mut buffer) {
            Ok(n @ 1..) => n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                if poll(&mut [PollFd::new(&io::stdin(), PollFlags::IN)], None).is_err() {
                    return;
                }
                continue;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Ok(0) | Err(_) if keys => return ending.end(status::SIGNAL + SIGHUP as u8),
            Ok(0) | Err(_) => return,
        };
        if !keys {
            if !control.send_paced(port, &buffer[..n]) {
                return;
            }
            continue;
        }
        for &byte in &buffer[..n] {
            match (escape.key(byte), monitor) {
                (Key::Send(byte), Some(monitor)) if let Some(editor) = &mut editor => {
                    if !type_to(monitor, editor, byte) {
                        return ending.end(0);
                    }
                }
                (Key::Switch, Some(_)) if editor.is_none() => {
                    show(&format!("\n{}", hmp::greeting()));
                    editor = Some(hmp::Editor::default());
                }
                (Key::Switch, _) => {
                    if editor.take().is_some() {
                        show("\n");
                    }
                }
                (Key::Send(byte), _) => control.send(port, &[byte]),
                (Key::Help, _) => say!("{}", terminal::HELP),
                (Key::Nothing, _) => {}
                (Key::Quit, _) => return ending.end(0),
            }
        }
    }
}

/// Shows text of the monitor on the terminal. A terminal that is gone ends the run elsewhere.
fn show(text: &str) {
    if let Ok(mut out) = Stdout::new() {
        let _ = out.write_all(text.as_bytes());
    }
}

/// A key for the monitor; false when the run shall end.
fn type_to(monitor: &Monitor, editor: &mut hmp::Editor, byte: u8) -> bool {
    let (shown, line) = editor.key(byte);
    show(&shown);
    if let Some(line) = line {
        show(&hmp::execute(monitor, &line));
        if monitor.quits() {
            return false;
        }
        show(hmp::PROMPT);
    }
    true
}

/// Prints counters to standard error.
fn print_stats(stats: &[Stat], format: StatsFormat) {
    match format {
        StatsFormat::Text => {
            for s in stats {
                say!("{:<30} {:>18}", s.name.replace('_', " "), s.value.to_string());
            }
        }
        StatsFormat::Json => {
            let rows: Vec<String> =
                stats.iter().map(|s| format!("\"{}\": {}", s.name, s.value)).collect();
            say!("{{{}}}", rows.join(", "));
        }
    }
}
