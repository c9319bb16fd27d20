//! `cargo xtask bench`: ring3 beside QEMU TCG, in the same minutes on the same machine.
//!
//! Absolute times drift with the machine's other load by half, so every figure comes from rounds in
//! which all emulators take turns, and a ratio is the median of the rounds' own ratios.
//!
//! ```text
//! guest (kernel, initrd) ──► emulator (process, console, times) ──► boot, nano, programs ──► table
//! ```

mod boot;
mod emulator;
mod guest;
mod nano;
mod programs;
mod table;

use anyhow::{Context, ensure};
use clap::ValueEnum;
use emulator::{Emulator, Limits};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The first line of every guest's init.
const MARKER: &str = "ring3-bench: init";

/// Measure ring3 and QEMU TCG side by side
#[derive(Debug, clap::Args)]
pub struct Bench {
    /// What to measure: everything by default
    #[arg(value_enum)]
    what: Vec<What>,

    /// How often each emulator has its turn
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// Engines of ring3
    #[arg(long, alias = "engine", value_delimiter = ',', default_value = "auto,jit,interp")]
    engines: Vec<String>,

    /// CPU models of QEMU
    #[arg(long, value_delimiter = ',', default_value = "max,qemu64")]
    cpu: Vec<String>,

    /// Kernel command line of `boot`
    #[arg(long, default_value = "console=ttyS0 panic=-1")]
    append: String,

    /// Measure this ring3 instead of building one
    #[arg(long, value_name = "FILE")]
    ring3: Option<PathBuf>,

    /// Seconds after which a run counts as hung
    #[arg(long, default_value_t = 300)]
    timeout: u64,

    /// Print Markdown instead of text
    #[arg(long)]
    markdown: bool,
}

/// A benchmark: booting, the bare machine, or a group of programs as `bench-guest` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// Debian's cloud kernel and a busybox initrd: to the first line of init, and to power-off
    Boot,
    /// The bare machine: CR3 reload, patched code, page fault, interrupt, system call
    Nano,
    /// Lists, matrices, CRC, SHA-256, sorting, hashing, a bytecode loop, calls, a sieve
    Integer,
    /// The C library's string functions, and string instructions
    String,
    /// Double precision: LU, n-body, Mandelbrot, libm, conversions
    Double,
    /// SSE2 and AVX2 kernels
    Vector,
    /// `long double`
    X87,
    /// More memory than caches hold: in order, at random, as a chain
    Memory,
    /// System call, signal, fork, exec, pipe, switch, mmap, page fault, futex, file
    Os,
    /// xz, gzip, and busybox's sha256sum, sort and awk
    Compression,
}

impl Bench {
    /// Runs the benchmarks and prints a table for each.
    ///
    /// # Errors
    /// What could not be built or started, which guest hung, or which result was wrong.
    pub fn run(self) -> anyhow::Result<()> {
        let binary = match &self.ring3 {
            Some(path) => path.canonicalize().with_context(|| path.display().to_string())?,
            None => build_ring3()?,
        };
        let engines = self.engines.iter().map(|engine| Emulator::ring3(&binary, engine));
        let mut emulators: Vec<Emulator> = engines.collect();
        match Command::new(emulator::QEMU).arg("--version").output() {
            Ok(_) => emulators.extend(self.cpu.iter().map(|cpu| Emulator::qemu(cpu))),
            Err(_) => eprintln!(
                "xtask: without QEMU, which is not installed: apt-get install qemu-system-x86"
            ),
        }
        let limits = Limits { rounds: self.rounds, timeout: Duration::from_secs(self.timeout) };
        let wanted = |what: &What| self.what.is_empty() || self.what.contains(what);
        let show = |report: table::Report| {
            println!("{}", if self.markdown { report.markdown() } else { report.text() });
        };
        if wanted(&What::Boot) {
            show(boot::bench(&emulators, limits, &self.append)?);
        }
        if wanted(&What::Nano) {
            show(nano::bench(&emulators, limits)?);
        }
        let name = |what: &What| what.to_possible_value().map(|it| it.get_name().to_owned());
        let is_group = |what: &&What| !matches!(what, What::Boot | What::Nano) && wanted(what);
        let groups: Vec<String> =
            What::value_variants().iter().filter(is_group).filter_map(name).collect();
        if !groups.is_empty() {
            programs::bench(&emulators, limits, &groups)?.into_iter().for_each(show);
        }
        Ok(())
    }
}

/// The checkout.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the checkout")
}

/// Cargo's target folder, which this program lies in.
fn target() -> anyhow::Result<PathBuf> {
    let exe = std::env::current_exe()?;
    let marked = |folder: &&Path| folder.join("CACHEDIR.TAG").exists();
    let folder = exe.ancestors().find(marked).context("xtask was not started by cargo")?;
    Ok(folder.to_owned())
}

/// Runs `cargo build --release` with `arguments` in a folder of the checkout.
fn cargo_build(folder: &str, target: &Path, arguments: &[&str]) -> anyhow::Result<()> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(root().join(folder)).args(["build", "--release", "--quiet"]);
    cargo.arg("--target-dir").arg(target).args(arguments);
    // They would replace the flags of the folder's own .cargo/config.toml.
    cargo.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    ensure!(cargo.status().context("cannot start cargo")?.success(), "{cargo:?} failed");
    Ok(())
}

fn build_ring3() -> anyhow::Result<PathBuf> {
    let target = target()?;
    cargo_build("", &target, &["-p", "ring3"])?;
    Ok(target.join("release/ring3"))
}
