//! `cargo xtask guests`: fetches and makes what the guests need; `test` boots them all and prints
//! a table of times beside QEMU's.

use anyhow::{Context, bail};
use machine::Engine;
use ring3_tests::guests::{GUESTS, Guest, Place, Step, play, prepare};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Fetch and make the files of the guests; test: boot them all
#[derive(Debug, clap::Args)]
pub struct Guests {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Boot guests and check that they live
    Test {
        /// Which; all if none is named
        names: Vec<String>,
        /// Engines, with commas between
        #[arg(long, value_delimiter = ',', default_value = "auto")]
        engines: Vec<String>,
        /// Compare with QEMU where it is installed
        #[arg(long)]
        qemu: bool,
        /// Seconds after which a guest is given up
        #[arg(long, default_value_t = 300)]
        limit: u64,
    },
    /// Print the guests as a table for docs/guests.md
    Table,
}

impl Guests {
    /// Does the chore.
    ///
    /// # Errors
    /// A file cannot be made, or a guest does not live.
    pub fn run(self) -> anyhow::Result<()> {
        match self.what {
            None => GUESTS.iter().try_for_each(fetch),
            Some(What::Test { names, engines, qemu, limit }) => {
                test(&names, &engines, qemu, Duration::from_secs(limit))
            }
            Some(What::Table) => {
                GUESTS.iter().for_each(|g| println!("{}", g.row()));
                Ok(())
            }
        }
    }
}

/// Makes the files of a guest.
fn fetch(guest: &Guest) -> anyhow::Result<()> {
    for &file in guest.files {
        let path = prepare(file).with_context(|| format!("{} of {}", file.0, guest.name))?;
        println!("{}: {}", guest.name, path.display());
    }
    Ok(())
}

fn test(names: &[String], engines: &[String], qemu: bool, limit: Duration) -> anyhow::Result<()> {
    if let Some(name) = names.iter().find(|n| GUESTS.iter().all(|g| g.name != **n)) {
        let all: Vec<_> = GUESTS.iter().map(|g| g.name).collect();
        bail!("there is no guest {name}; there are {}", all.join(", "));
    }
    let chosen = |g: &&Guest| names.is_empty() || names.iter().any(|n| n == g.name);
    let engine = |name: &String| match name.as_str() {
        "interp" => Ok(Engine::Interp),
        "jit" => Ok(Engine::Jit),
        "auto" => Ok(Engine::Auto),
        other => bail!("there is no engine {other}; there are interp, jit, auto"),
    };
    let engines =
        engines.iter().map(|e| Ok((e, engine(e)?))).collect::<anyhow::Result<Vec<_>>>()?;
    let mut failures = Vec::new();
    println!("{:<16} {:>8} {:>10} {:>10}", "guest", "engine", "seconds", "QEMU");
    for guest in GUESTS.iter().filter(chosen) {
        fetch_quietly(guest)?;
        let peer = match qemu {
            true => peer(guest, limit)
                .map_or_else(|why| why.to_string(), |time| format!("{:.2}", time.as_secs_f64())),
            false => "-".to_owned(),
        };
        for (name, engine) in &engines {
            match play(guest, *engine, limit) {
                Ok(played) => {
                    let time = played.time.as_secs_f64();
                    println!("{:<16} {name:>8} {time:>10.2} {peer:>10}", guest.name);
                }
                Err(error) => {
                    println!("{:<16} {name:>8} {:>10} {peer:>10}", guest.name, "FAILED");
                    failures.push(format!("{error:#}"));
                }
            }
        }
    }
    match failures.is_empty() {
        true => Ok(()),
        false => bail!("{} of the guests do not live:\n{}", failures.len(), failures.join("\n\n")),
    }
}

fn fetch_quietly(guest: &Guest) -> anyhow::Result<()> {
    guest.files.iter().try_for_each(|&file| prepare(file).map(drop))
}

/// A process that is killed when nobody needs it any more.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How often QEMU's output and screen are looked at.
const LOOK: Duration = Duration::from_millis(50);

/// The same guest under QEMU TCG: time to the last sign of life.
fn peer(guest: &Guest, limit: Duration) -> anyhow::Result<Duration> {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    let folder = ring3_tests::guests::folder().join("qemu");
    std::fs::create_dir_all(&folder)?;
    let file = |name: &str| folder.join(name);
    let (serial, socket, screen) = (file("serial"), file("monitor"), file("screen"));
    let _ = std::fs::remove_file(&serial);
    let _ = std::fs::remove_file(&socket);
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-accel", "tcg", "-cpu", "max", "-display", "none"]);
    command.args(["-net", "none", "-monitor"]);
    command.arg(format!("unix:{},server=on,wait=off", socket.display()));
    command.args(["-chardev", &format!("pipe,id=s,path={}", pipe(&folder)?)]);
    command.args(["-serial", "chardev:s"]);
    let words = guest.arguments()?;
    if !words.iter().any(|w| w == "-m") {
        command.args(["-m", "512M"]);
    }
    command.args(translate(&words)?);
    let start = Instant::now();
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let _running = Running(child.context("cannot run qemu-system-x86_64")?);
    let mut input = std::fs::OpenOptions::new().write(true).open(folder.join("s.in"))?;
    let mut output = std::fs::OpenOptions::new().read(true).open(folder.join("s.out"))?;
    let text = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let sink = text.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = output.read(&mut buffer) {
            sink.lock().unwrap_or_else(std::sync::PoisonError::into_inner).extend(&buffer[..n]);
        }
    });
    let mut monitor = loop {
        if let Ok(stream) = UnixStream::connect(&socket) {
            break stream;
        }
        if start.elapsed() > limit {
            bail!("no monitor");
        }
        std::thread::sleep(LOOK);
    };
    let mut seen = 0;
    for step in guest.steps {
        match *step {
            Step::Keys(names) => {
                for name in names.split(' ') {
                    writeln!(monitor, "sendkey {name}")?;
                    std::thread::sleep(LOOK * 3);
                }
            }
            Step::Types(text) => input.write_all(text.as_bytes())?,
            Step::Sees(place, wanted) => loop {
                let found = match place {
                    Place::Serial => {
                        let all = text.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                        let all = String::from_utf8_lossy(&all).into_owned();
                        let at = all.get(seen..).and_then(|rest| rest.find(wanted));
                        at.map(|at| seen += at + wanted.len()).is_some()
                    }
                    Place::Screen => {
                        writeln!(monitor, "pmemsave 0xb8000 0x8000 \"{}\"", screen.display())?;
                        std::thread::sleep(LOOK);
                        let cells = std::fs::read(&screen).unwrap_or_default();
                        let text: Vec<u8> = cells.chunks(2).map(|c| c[0]).collect();
                        text.windows(wanted.len()).any(|w| w == wanted.as_bytes())
                    }
                };
                if found {
                    break;
                }
                if start.elapsed() > limit {
                    bail!("not seen");
                }
                std::thread::sleep(LOOK);
            },
        }
    }
    Ok(start.elapsed())
}

/// Makes the two named pipes of QEMU's serial port.
fn pipe(folder: &std::path::Path) -> anyhow::Result<String> {
    for end in ["s.in", "s.out"] {
        let path = folder.join(end);
        let _ = std::fs::remove_file(&path);
        let made = Command::new("mkfifo").arg(&path).status()?;
        if !made.success() {
            bail!("cannot make {}", path.display());
        }
    }
    Ok(folder.join("s").display().to_string())
}

/// Our arguments in QEMU's words.
fn translate(words: &[String]) -> anyhow::Result<Vec<String>> {
    let mut all = Vec::new();
    let mut modules = Vec::new();
    let mut drives = 0;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().cloned().context("a flag without its value");
        match word.as_str() {
            "--module" => modules.push(value()?),
            "--drive" => {
                let value = value()?;
                if value.contains("if=nvme") {
                    let drive = value.replace("if=nvme", &format!("if=none,id=d{drives}"));
                    let device = format!("nvme,drive=d{drives},serial=d{drives}");
                    all.extend(["-drive".to_owned(), drive, "-device".to_owned(), device]);
                    drives += 1;
                } else {
                    all.extend(["-drive".to_owned(), value]);
                }
            }
            flag => {
                all.push(flag.replacen("--", "-", 1));
                all.push(value()?);
            }
        }
    }
    if !modules.is_empty() {
        all.extend(["-initrd".to_owned(), modules.join(",")]);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qemu_gets_its_own_words() {
        let words = |t: &str| t.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let ours = words("--drive file=a,if=nvme --cdrom b -m 1G --module c --module d");
        let theirs = "-drive file=a,if=none,id=d0 -device nvme,drive=d0,serial=d0 -cdrom b -m 1G \
                      -initrd c,d";
        assert_eq!(translate(&ours).unwrap(), words(theirs));
    }
}
