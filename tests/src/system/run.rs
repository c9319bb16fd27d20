//! Runs chapters on our machine and under QEMU, and compares the lines with what is expected.

use super::{Chapter, Row, image};
use machine::{Boot, Buffer, ClockKind, DebugExit, Machine, MachineConfig, Outcome};
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a chapter may take.
const LIMIT: Duration = Duration::from_secs(60);

/// What the rows of a chapter printed: `None` for those that the run did not get to.
pub type Observed = Vec<Option<String>>;

/// The observations in `console`, which `rows` printed.
fn parse(rows: &[&Row], console: &str) -> Observed {
    let mut lines = console.lines();
    rows.iter()
        .map(|row| {
            let text = lines.next()?.strip_prefix(row.name)?.strip_prefix(':')?;
            Some(text.trim_start().to_owned())
        })
        .collect()
}

/// Runs `rows` on our machine.
///
/// # Panics
/// When the image cannot be made.
#[must_use]
pub fn ring3(rows: &[&Row]) -> Observed {
    let rom = image::build(rows).unwrap_or_else(|e| panic!("{e}"));
    let config = MachineConfig {
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
            _ => break parse(rows, &console.text()),
        }
    }
}

/// Runs `rows` under `qemu-system-x86_64` (TCG, all features), with the image in the file `rom`.
///
/// # Errors
/// When there is no QEMU, or `rom` cannot be written.
///
/// # Panics
/// When the image cannot be made.
pub fn qemu(rows: &[&Row], rom: &Path) -> io::Result<Observed> {
    std::fs::write(rom, image::build(rows).unwrap_or_else(|e| panic!("{e}")))?;
    let out = rom.with_extension("out");
    let mut child = Command::new("qemu-system-x86_64")
        .args(["-M", "pc", "-accel", "tcg", "-cpu", "max", "-m", "16", "-nodefaults"])
        .args(["-no-user-config", "-display", "none", "-monitor", "none", "-serial", "none"])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"])
        .args(["-device", "isa-debugcon,iobase=0xe9,chardev=console"])
        .arg("-chardev")
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
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(parse(rows, &std::fs::read_to_string(out)?))
}

/// The rows of `chapter` whose name contains `filter`.
#[must_use]
pub fn select(chapter: &'static Chapter, filter: &str) -> Vec<&'static Row> {
    chapter.rows.iter().filter(|row| row.name.contains(filter)).collect()
}
