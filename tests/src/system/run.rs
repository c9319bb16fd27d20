//! Runs chapters on our machine and under QEMU, and compares the lines with what is expected.

use super::{Chapter, Row, image};
use machine::{Boot, Buffer, ClockKind, CpuModel, DebugExit, Machine, MachineConfig, Outcome};
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a run may take; whole chapters take a fraction of a second.
const LIMIT: Duration = Duration::from_secs(10);

/// Runs `rows`, all of them at once; after one that does not end, the others anew. `boot` takes the
/// ROM and returns what it printed.
fn observe(
    mut rows: &[&Row],
    mut boot: impl FnMut(Vec<u8>) -> io::Result<String>,
) -> io::Result<Vec<String>> {
    let mut observed = Vec::new();
    while !rows.is_empty() {
        let console = boot(image::build(rows).unwrap_or_else(|e| panic!("{e}")))?;
        let lines = console.lines().zip(rows).map(|(line, row)| {
            let text = line.strip_prefix(row.name).and_then(|t| t.strip_prefix(':'));
            text.unwrap_or("(another row's line)").trim_start().to_owned()
        });
        let complete = console.matches('\n').count();
        observed.extend(lines.take(complete));
        if complete < rows.len() {
            observed.push("(no end)".to_owned());
        }
        rows = rows.get(complete + 1..).unwrap_or_default();
    }
    Ok(observed)
}

/// What `rows` print on our machine, whose CPU has every feature.
///
/// # Panics
/// When the image cannot be made.
#[must_use]
pub fn ring3(rows: &[&Row]) -> Vec<String> {
    let boot = |rom| {
        let config = MachineConfig {
            cpu: "max".parse::<CpuModel>().expect("there is a model of this name"),
            memory: 16 << 20,
            clock: ClockKind::Icount,
            debug_exit: Some(DebugExit::default()),
            ..MachineConfig::new(Boot::Rom(rom))
        };
        let mut machine = Machine::new(config).expect("the machine can be made");
        let console = Buffer::default();
        machine.connect_debugcon(Box::new(console.clone()));
        let end = Instant::now() + LIMIT;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match machine.run(Some(left)).expect("output is kept") {
                Outcome::Shutdown(_) => machine.reset().expect("a ROM needs no loading"),
                _ => return Ok(console.text()),
            }
        }
    };
    observe(rows, boot).expect("nothing is read or written")
}

/// What `rows` print under `qemu-system-x86_64` (TCG, all features); the image is in the file
/// `rom`.
///
/// # Errors
/// When there is no QEMU, or `rom` cannot be written.
///
/// # Panics
/// When the image cannot be made.
pub fn qemu(rows: &[&Row], rom: &Path) -> io::Result<Vec<String>> {
    let out = rom.with_extension("out");
    observe(rows, |image| {
        std::fs::write(rom, image)?;
        let mut child = Command::new("qemu-system-x86_64")
            .args(["-M", "pc", "-accel", "tcg", "-cpu", "max", "-m", "16", "-nodefaults"])
            .args(["-no-user-config", "-display", "none", "-monitor", "none", "-serial", "none"])
            .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"])
            .args(["-device", "isa-debugcon,iobase=0xe9,chardev=console", "-chardev"])
            .arg(format!("file,id=console,path={}", out.display()))
            .arg("-bios")
            .arg(rom)
            .stdin(Stdio::null())
            .spawn()?;
        let end = Instant::now() + LIMIT;
        while child.try_wait()?.is_none() {
            if Instant::now() > end {
                child.kill()?;
                child.wait()?;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        std::fs::read_to_string(&out)
    })
}

/// The rows of `chapter` whose name contains `filter`.
#[must_use]
pub fn select(chapter: &'static Chapter, filter: &str) -> Vec<&'static Row> {
    chapter.rows.iter().filter(|row| row.name.contains(filter)).collect()
}
