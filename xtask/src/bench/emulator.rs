//! An emulator as a process: its command line, its guest's console, its times.

use super::MARKER;
use anyhow::{Context, ensure};
use ring3_tests::system::layout::EXIT_SUCCESS;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// QEMU's program.
pub const QEMU: &str = "qemu-system-x86_64";

/// How much measuring there shall be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How often each emulator has its turn.
    pub rounds: u32,
    /// How long a run may take.
    pub timeout: Duration,
}

/// What an emulator boots.
#[derive(Debug)]
pub struct Guest {
    /// A bzImage.
    pub kernel: PathBuf,
    /// An archive with an init that prints [`MARKER`] and powers off.
    pub initrd: PathBuf,
    /// The kernel's version.
    pub version: String,
    /// The kernel's command line.
    pub append: String,
}

/// An emulator and how it is set up.
#[derive(Clone, Debug)]
pub struct Emulator {
    /// Its name in text.
    pub name: String,
    /// Its name in the columns of tables: ring3's engine, or QEMU's CPU model.
    pub short: String,
    /// Whether it is ring3, which counts its instructions.
    pub is_ring3: bool,
    program: PathBuf,
    options: Vec<String>,
    /// Options by which standard output is the first serial port, and those by which it is the
    /// debug console.
    consoles: [&'static [&'static str]; 2],
}

impl Emulator {
    /// The ring3 at `program` with one of its engines.
    pub fn ring3(program: &Path, engine: &str) -> Self {
        let options = ["run", "--stats=json", "--engine", engine];
        Self {
            name: format!("ring3 {engine}"),
            short: engine.to_owned(),
            is_ring3: true,
            program: program.to_owned(),
            options: options.map(str::to_owned).to_vec(),
            consoles: [
                &["--serial=stdio"],
                &["--serial=null", "--debugcon=stdio", "--device=isa-debug-exit"],
            ],
        }
    }

    /// QEMU with one of its CPU models. It has no network card, whose boot ROM would take time.
    pub fn qemu(cpu: &str) -> Self {
        let options = ["-accel", "tcg", "-cpu", cpu, "-nic", "none"];
        Self {
            name: format!("QEMU {cpu}"),
            short: cpu.to_owned(),
            is_ring3: false,
            program: QEMU.into(),
            options: options.map(str::to_owned).to_vec(),
            consoles: [
                &["-nographic"],
                &[
                    "-display",
                    "none",
                    "-monitor",
                    "none",
                    "-serial",
                    "none",
                    "-debugcon",
                    "stdio",
                    "-device",
                    "isa-debug-exit,iobase=0xf4,iosize=4",
                ],
            ],
        }
    }

    /// With one nanosecond of guest time per instruction; for ring3.
    pub fn icount(&self) -> Self {
        let mut with = self.clone();
        with.options.push("--clock=icount".into());
        with
    }

    /// Runs a guest until it powers off.
    ///
    /// # Errors
    /// When the emulator fails or hangs, or the guest does not get to its init.
    pub fn run(&self, guest: &Guest, timeout: Duration) -> anyhow::Result<Run> {
        // QEMU takes its long options with two dashes as well.
        let mut command = Command::new(&self.program);
        command.args(&self.options).args(self.consoles[0]).args(["-m", "512M", "--no-reboot"]);
        command.arg("--kernel").arg(&guest.kernel).arg("--initrd").arg(&guest.initrd);
        command.args(["--append", &guest.append]);
        let run =
            watch(command, timeout).and_then(Seen::booted).with_context(|| self.name.clone())?;
        eprintln!(
            "xtask: {}: init after {:.2} s, power-off after {:.2} s",
            self.name, run.init, run.power_off
        );
        Ok(run)
    }

    /// Runs a ROM of [`ring3_tests::system`] until it writes to `isa-debug-exit`, and returns what
    /// it wrote to the debug console.
    ///
    /// # Errors
    /// When the emulator fails or hangs.
    pub fn run_rom(&self, rom: &Path, timeout: Duration) -> anyhow::Result<String> {
        let mut command = Command::new(&self.program);
        command.args(&self.options).args(self.consoles[1]).args(["-m", "16M"]);
        command.arg(if self.is_ring3 { "--bios" } else { "-bios" }).arg(rom);
        let seen = watch(command, timeout).with_context(|| self.name.clone())?;
        eprintln!("xtask: {}: ROM after {:.2} s", self.name, seen.end.as_secs_f64());
        // What the device makes of the value.
        let success = Some(EXIT_SUCCESS as i32 * 2 + 1);
        ensure!(seen.status.code() == success, "{}: {}", self.name, seen.told());
        Ok(seen.console.text())
    }
}

/// What was seen of an emulator.
#[derive(Debug)]
pub struct Run {
    /// From the process's start to the first line of init, in seconds.
    pub init: f64,
    /// From the process's start to its end, in seconds.
    pub power_off: f64,
    /// All that the guest wrote to its console.
    pub console: String,
    /// All that the emulator wrote to standard error.
    pub errors: String,
}

impl Run {
    /// A counter of ring3's.
    ///
    /// # Errors
    /// When ring3 printed no such counter.
    pub fn counter(&self, name: &str) -> anyhow::Result<u64> {
        let line = self.errors.lines().rev().find(|line| line.starts_with('{'));
        let counters: serde_json::Value = serde_json::from_str(line.context("no statistics")?)?;
        counters[name].as_u64().with_context(|| format!("no counter {name} in {counters}"))
    }
}

/// A process that has ended.
struct Seen {
    status: ExitStatus,
    /// When, from its start.
    end: Duration,
    console: Console,
    errors: String,
}

impl Seen {
    fn told(&self) -> String {
        let (console, errors) = (self.console.tail(), tail(&self.errors));
        format!("{}\nconsole: {console}\nstandard error: {errors}", self.status)
    }

    /// Of a guest that came to its init and powered off.
    fn booted(self) -> anyhow::Result<Run> {
        ensure!(self.status.success(), "{}", self.told());
        let init =
            self.console.init.with_context(|| format!("no sign of init: {}", self.told()))?;
        Ok(Run {
            init: init.as_secs_f64(),
            power_off: self.end.as_secs_f64(),
            console: self.console.text(),
            errors: self.errors,
        })
    }
}

/// Runs an emulator whose standard output is the guest's console.
fn watch(mut command: Command, timeout: Duration) -> anyhow::Result<Seen> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let start = Instant::now();
    let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
    let mut stdout = child.stdout.take().expect("it is piped");
    let mut stderr = child.stderr.take().expect("it is piped");
    let errors = thread::spawn(move || {
        let mut bytes = Vec::new();
        stderr.read_to_end(&mut bytes).map(|_| String::from_utf8_lossy(&bytes).into_owned())
    });
    let (sender, chunks) = channel();
    let reader = thread::spawn(move || {
        let mut buffer = [0; 4096];
        // The receiver is gone when the time is up.
        while let n @ 1.. = stdout.read(&mut buffer)? {
            let _ = sender.send((start.elapsed(), buffer[..n].to_vec()));
        }
        anyhow::Ok(())
    });

    let mut console = Console::default();
    let mut hung = false;
    loop {
        match chunks.recv_timeout(timeout.saturating_sub(start.elapsed())) {
            Ok((time, bytes)) => console.push(time, &bytes),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                child.kill()?;
                hung = true;
                break;
            }
        }
    }
    let status = child.wait()?;
    let end = start.elapsed();
    reader.join().expect("the reader does not panic")?;
    let errors = errors.join().expect("the reader does not panic")?;
    let seen = Seen { status, end, console, errors };
    ensure!(!hung, "no end after {} s: {}", timeout.as_secs(), seen.told());
    Ok(seen)
}

/// What a guest has written so far.
#[derive(Default)]
struct Console {
    bytes: Vec<u8>,
    /// When [`MARKER`] was complete.
    init: Option<Duration>,
}

impl Console {
    fn push(&mut self, time: Duration, chunk: &[u8]) {
        let unseen = self.bytes.len().saturating_sub(MARKER.len());
        self.bytes.extend_from_slice(chunk);
        let mut windows = self.bytes[unseen..].windows(MARKER.len());
        if self.init.is_none() && windows.any(|bytes| bytes == MARKER.as_bytes()) {
            self.init = Some(time);
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    fn tail(&self) -> String {
        tail(&self.text())
    }
}

/// The last lines.
fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_marker_is_found_across_chunks() {
        let text = format!("[    0.1] Linux\r\n{MARKER}\r\nmore\r\n{MARKER}\r\n");
        let end = text.find(MARKER).unwrap() + MARKER.len();
        for size in 1..=text.len() {
            let mut console = Console::default();
            for (n, chunk) in text.as_bytes().chunks(size).enumerate() {
                console.push(Duration::from_secs(n as u64), chunk);
            }
            // The chunk that holds its last byte.
            assert_eq!(console.init, Some(Duration::from_secs(((end - 1) / size) as u64)));
            assert_eq!(console.text(), text);
        }
        let mut console = Console::default();
        console.push(Duration::ZERO, &MARKER.as_bytes()[1..]);
        assert_eq!(console.init, None);
    }

    fn shell(script: &str, timeout: Duration) -> anyhow::Result<Run> {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        watch(command, timeout).and_then(Seen::booted)
    }

    #[test]
    fn times_and_counters_are_read() {
        let script = format!(
            "sleep 0.1; echo {MARKER}; sleep 0.1; echo off
             echo warning >&2; echo '{{\"instructions\": 1599000111, \"mips\": 301.5}}' >&2"
        );
        let run = shell(&script, Duration::from_secs(60)).unwrap();
        assert!(run.init >= 0.1 && run.power_off >= run.init + 0.1, "{run:?}");
        assert_eq!(run.console, format!("{MARKER}\noff\n"));
        assert_eq!(run.counter("instructions").unwrap(), 1_599_000_111);
        assert!(run.counter("nothing").unwrap_err().to_string().starts_with("no counter nothing"));
    }

    #[test]
    fn failures_say_what_was_seen() {
        let minute = Duration::from_secs(60);
        for (script, timeout, message) in [
            ("echo panic; exit 3", minute, "exit status: 3\nconsole: panic"),
            (
                "echo bad >&2",
                minute,
                "no sign of init: exit status: 0\nconsole: \nstandard error: bad",
            ),
            ("echo on; exec sleep 60", Duration::from_millis(500), "no end after 0 s: "),
        ] {
            let error = shell(script, timeout).unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
        }
    }
}
