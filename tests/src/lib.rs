//! Tests that cross crates: whole guests on the whole machine. The tests are in `tests/`; here is
//! what they share.

pub mod guests;
pub mod system;

use machine::{Boot, Buffer, ClockKind, CpuModel, Kernel, Machine, MachineConfig, Outcome};
use oracle::{Absent, Oracle};
use ring3::debian::{Arch, ExecOutput, Guest, Options, linux_guest};
use std::time::Duration;

/// The CPU of this host as a judge. On a host that cannot have it, tests that ask it have nothing
/// to compare with; where the environment has `CI`, that is a failure.
///
/// # Panics
/// In CI without it, and when this host refuses what it could give.
#[must_use]
pub fn oracle() -> Option<Oracle> {
    match Oracle::new() {
        Ok(oracle) => Some(oracle),
        Err(why @ (Absent::Host | Absent::Feature(_))) if std::env::var_os("CI").is_none() => {
            eprintln!("not compared: {why}");
            None
        }
        Err(why) => panic!("{why}"),
    }
}

/// How a guest ended.
#[derive(Debug)]
pub struct End {
    /// Why the run ended.
    pub outcome: Outcome,
    /// What COM1 printed.
    pub console: String,
    /// What COM2 printed.
    pub com2: Vec<u8>,
    /// Instructions executed.
    pub instructions: u64,
    /// The guest's time, in nanoseconds.
    pub guest_ns: u64,
}

/// Runs a machine for at most five minutes of the host's time.
///
/// # Panics
/// When the machine cannot be made or its output not be kept.
#[must_use]
pub fn run(config: MachineConfig) -> End {
    let mut machine = Machine::new(config).expect("the machine can be made");
    let (com1, com2) = (Buffer::default(), Buffer::default());
    machine.connect_serial(0, Box::new(com1.clone()));
    machine.connect_serial(1, Box::new(com2.clone()));
    let outcome = machine.run(Some(Duration::from_secs(300))).expect("output is kept");
    let cpu = &machine.vcpu().cpu;
    let (instructions, guest_ns) = (cpu.icount(), cpu.now());
    End { outcome, console: com1.text(), com2: com2.bytes(), instructions, guest_ns }
}

/// Debian's kernel with a guest that runs `command` and switches off. It comes from the user's
/// cache, or at the first time through apt.
///
/// # Panics
/// When it cannot be fetched.
#[must_use]
pub fn debian(command: &str) -> Guest {
    debian_for(Arch::Amd64, command)
}

/// The same with another of Debian's kernels.
///
/// # Panics
/// When it cannot be fetched.
#[must_use]
pub fn debian_for(arch: Arch, command: &str) -> Guest {
    let exec = Some(command.to_owned());
    let guest = linux_guest(&Options { arch, exec, ..Options::default() });
    guest.unwrap_or_else(|e| panic!("{e}"))
}

/// Boots `guest` with `kernel` instead of its own image if one is given.
#[must_use]
pub fn boot(guest: &Guest, kernel: Option<Vec<u8>>, clock: ClockKind) -> End {
    boot_on(CpuModel::default(), guest, kernel, clock)
}

/// The same on another CPU.
#[must_use]
pub fn boot_on(cpu: CpuModel, guest: &Guest, kernel: Option<Vec<u8>>, clock: ClockKind) -> End {
    let kernel = Kernel {
        image: kernel.unwrap_or_else(|| guest.kernel.clone()),
        initrd: Some(guest.initrd.clone()),
        // What goes wrong shall be seen.
        cmdline: guest.append.replace(" quiet", " loglevel=4"),
        name: guest.kernel_version.clone(),
        ..Kernel::default()
    };
    run(MachineConfig { cpu, clock, no_reboot: true, ..MachineConfig::new(Boot::Kernel(kernel)) })
}

/// Output and exit status of the command of [`debian`].
#[must_use]
pub fn command_output(end: &End) -> (String, Option<u8>) {
    let (mut output, mut parser) = (Vec::new(), ExecOutput::default());
    parser.push(&end.com2, &mut output);
    let status = parser.finish(&mut output);
    (String::from_utf8_lossy(&output).into_owned(), status)
}
