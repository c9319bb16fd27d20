//! Flags that several commands share: how the machine is made, what it is watched with, where its
//! lines end on the host.

use crate::UsageError;
use crate::audit::Counts;
use crate::monitor::server::{MonitorEnd, parse_end as parse_monitor};
use anyhow::Context;
use clap::ValueEnum;
use emu_core::vcpu::Trace;
use machine::{Boot, ClockKind, CpuModel, Engine, MachineConfig};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What a machine is and how it is watched.
#[derive(Clone, Debug, clap::Args)]
pub struct MachineOptions {
    /// Memory of the guest: a number of MiB, or one with K, M, G or T
    #[arg(short, long, value_name = "SIZE", default_value = "512M", value_parser = parse_size)]
    pub memory: u64,

    /// CPU: a model, then features to add or remove, as in core2,+avx,-nx; help lists them
    #[arg(long, value_name = "MODEL[,±FEATURE]…", default_value = CPU, value_parser = parse_cpu)]
    pub cpu: CpuChoice,

    /// How guest code runs: interp is the micro-op interpreter, jit translates all of it to host
    /// code, auto what has run a few times
    #[arg(long, value_name = "interp|jit|auto", default_value = "auto", value_parser = parse_engine)]
    pub engine: Engine,

    /// Run the machine twice, on the interpreter and on the engine chosen, compare as they run, and
    /// stop at the first difference with a report and status 1; the guest's time is that of --clock
    /// icount
    #[arg(long, conflicts_with = "trace")]
    pub lockstep: bool,

    /// The guest's time: the host's, or one nanosecond per instruction with idle time skipped, by
    /// which every run is the same
    #[arg(long, value_enum, default_value = "host")]
    pub clock: Clock,

    /// Print counters to standard error at the end
    #[arg(
        long,
        value_enum,
        value_name = "FORMAT",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "text"
    )]
    pub stats: Option<StatsFormat>,

    /// End the run after this many seconds, with status 124
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    pub timeout: Option<Duration>,

    /// Write a trace, of one or several of these
    #[arg(long, value_enum, value_delimiter = ',', value_name = "WHAT,…")]
    pub trace: Vec<TraceWhat>,

    /// Name translated code for `perf`, in /tmp/perf-PID.map; also if the environment has
    /// RING3_PERF_MAP
    #[arg(long, conflicts_with = "lockstep")]
    pub perf_map: bool,

    /// Where the trace goes; standard error if not given
    #[arg(long, value_name = "PATH", requires = "trace")]
    pub trace_file: Option<PathBuf>,

    /// Where the counts of an audit go; `None`: nothing is counted.
    #[arg(skip)]
    pub audit: Option<Arc<Mutex<Counts>>>,

    /// Where the monitor is, which takes commands for the machine (see its help): stdio, null or
    /// unix:PATH[,server=on][,wait=on|off]; several times for several
    #[arg(long, value_name = "END", value_parser = parse_monitor, conflicts_with = "lockstep")]
    pub monitor: Vec<MonitorEnd>,

    /// Where programs find the monitor, by QEMU's JSON protocol: as --monitor
    #[arg(long, value_name = "END", value_parser = parse_monitor, conflicts_with = "lockstep")]
    pub qmp: Vec<MonitorEnd>,

    /// Where text goes that the guest writes to port 0xE9: file:PATH, stdio or null
    #[arg(long, value_name = "END", default_value = "null", value_parser = parse_end)]
    pub debugcon: HostEnd,

    /// Where the log goes that firmware writes to port 0x402: file:PATH, stdio or null
    #[arg(long, value_name = "END", default_value = "null", value_parser = parse_end)]
    pub firmware_log: HostEnd,
}

impl MachineOptions {
    /// A machine with these options.
    #[must_use]
    pub fn config(&self, boot: Boot) -> MachineConfig {
        MachineConfig {
            cpu: self.cpu.model(),
            memory: self.memory,
            clock: match self.clock {
                Clock::Host => ClockKind::Host,
                Clock::Icount => ClockKind::Icount,
            },
            engine: self.engine,
            ..MachineConfig::new(boot)
        }
    }

    /// Whether standard input is a monitor's.
    #[must_use]
    pub fn monitors_stdio(&self) -> bool {
        self.monitor.iter().chain(&self.qmp).any(|end| *end == MonitorEnd::Stdio)
    }

    /// Everything that shall be traced.
    #[must_use]
    pub fn traced(&self) -> Trace {
        self.trace.iter().fold(Trace::empty(), |all, what| {
            all | match what {
                TraceWhat::Insn => Trace::INSN,
                TraceWhat::Block => Trace::BLOCK,
                TraceWhat::Exc => Trace::EXC,
                TraceWhat::Io => Trace::IO,
                TraceWhat::Mmu => Trace::MMU,
            }
        })
    }
}

/// The CPU model if none is chosen.
pub(crate) const CPU: &str = "x86-64-v3";

/// A CPU, or the wish to see which there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuChoice {
    /// `help`.
    Help,
    /// A model with its features.
    Model(CpuModel),
}

impl CpuChoice {
    /// The model; the default one for `help`.
    #[must_use]
    pub fn model(self) -> CpuModel {
        match self {
            CpuChoice::Help => CpuModel::default(),
            CpuChoice::Model(model) => model,
        }
    }
}

pub(crate) fn parse_cpu(text: &str) -> Result<CpuChoice, machine::ModelError> {
    if matches!(text, "help" | "?") {
        return Ok(CpuChoice::Help);
    }
    text.parse().map(CpuChoice::Model)
}

/// See [`ClockKind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)] // the flag's help says it
pub enum Clock {
    Host,
    Icount,
}

/// How counters are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StatsFormat {
    /// One line each, for people.
    Text,
    /// One JSON object.
    Json,
}

/// See [`Trace`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TraceWhat {
    /// Every instruction with its micro-ops.
    Insn,
    /// Every block that the dispatcher enters.
    Block,
    /// Exceptions and interrupts.
    Exc,
    /// Port and memory-mapped accesses.
    Io,
    /// Page walks and TLB flushes.
    Mmu,
}

/// Where a line of the machine ends on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostEnd {
    /// Standard input and output.
    Stdio,
    /// A file, written from its start.
    File(PathBuf),
    /// Nowhere.
    Null,
}

/// Parses `stdio`, `file:PATH` or `null`.
///
/// # Errors
/// What is possible.
pub fn parse_end(text: &str) -> Result<HostEnd, String> {
    match text.split_once(':') {
        None if text == "stdio" => Ok(HostEnd::Stdio),
        None if text == "null" => Ok(HostEnd::Null),
        Some(("file", path)) if !path.is_empty() => Ok(HostEnd::File(path.into())),
        _ => Err("it must be stdio, file:PATH or null".to_owned()),
    }
}

const SIZE: &str = "it must be a number, alone (MiB) or with K, M, G or T, as in 512M";

/// Parses a size in bytes: MiB without a suffix, else K, M, G or T.
///
/// # Errors
/// What is wrong with it.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "K" => 10,
        "" | "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(SIZE.to_owned()),
    };
    let number: u64 = digits.parse().map_err(|_| SIZE.to_owned())?;
    match number.checked_mul(1 << shift) {
        None | Some(0x1_0000_0000_0000..) => Err("no PC has that much memory".to_owned()),
        Some(size) if size < machine::MEMORY_MIN => {
            Err(format!("a PC needs at least {}M of memory", machine::MEMORY_MIN >> 20))
        }
        Some(size) if size % 4096 != 0 => Err("it must be a multiple of 4K".to_owned()),
        Some(size) => Ok(size),
    }
}

pub(crate) fn parse_engine(text: &str) -> Result<Engine, String> {
    match text {
        "interp" => Ok(Engine::Interp),
        "auto" => Ok(Engine::Auto),
        "jit" if machine::host_translator().is_none() => {
            Err(machine::Error::NoTranslator.to_string())
        }
        "jit" => Ok(Engine::Jit),
        _ => Err("it must be interp, jit or auto".to_owned()),
    }
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "it must be a number of seconds".to_owned())?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(time) if !time.is_zero() => Ok(time),
        _ => Err("it must be more than 0 seconds".to_owned()),
    }
}

/// Reads a file that cannot be longer than the guest's memory.
///
/// # Errors
/// A line with the file's name.
pub fn read_input(what: &str, path: &Path, memory: u64) -> anyhow::Result<Vec<u8>> {
    let context = || format!("cannot read the {what} {}", path.display());
    let mut bytes = Vec::new();
    let file = File::open(path).with_context(context)?;
    file.take(memory + 1).read_to_end(&mut bytes).with_context(context)?;
    if bytes.len() as u64 > memory {
        let mib = memory >> 20;
        anyhow::bail!("the {what} {} is larger than the memory of {mib} MiB", path.display());
    }
    Ok(bytes)
}

/// An error of the command line.
pub(crate) fn usage<T>(message: impl Into<String>) -> anyhow::Result<T> {
    Err(UsageError(message.into()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse_size("512M"), Ok(512 << 20));
        assert_eq!(parse_size("64"), Ok(64 << 20));
        assert_eq!(parse_size("3g"), Ok(3 << 30));
        assert_eq!(parse_size("4096K"), Ok(4 << 20));
        for bad in ["", "0", "1K", "M", "-1", "1.5G", "12Q", "0x10M", "5MB", "4099K", "99999T", "é"]
        {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn host_ends() {
        assert_eq!(parse_end("stdio"), Ok(HostEnd::Stdio));
        assert_eq!(parse_end("null"), Ok(HostEnd::Null));
        assert_eq!(parse_end("file:a:b"), Ok(HostEnd::File("a:b".into())));
        for bad in ["", "file", "file:", "pty", "stdio:x", "null:"] {
            assert!(parse_end(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn cpus() {
        assert_eq!(parse_cpu(CPU), Ok(CpuChoice::Model(CpuModel::default())));
        assert_eq!(parse_cpu("help"), Ok(CpuChoice::Help));
        assert!(parse_cpu("core3").unwrap_err().to_string().contains("core2"));
    }

    #[test]
    fn timeouts() {
        assert_eq!(parse_seconds("1.5"), Ok(Duration::from_millis(1500)));
        for bad in ["0", "-1", "nan", "inf", "1e99", "soon", ""] {
            assert!(parse_seconds(bad).is_err(), "{bad}");
        }
    }
}
