//! The `ring3` program as a library, so that tests and chores can call its parts.
//!
//! Every command is a module with its flags beside the function that runs it; the doc comment of a
//! flag is its help text. What commands share is in [`options`] (flags that make a machine) and
//! [`session`] (a machine on this host: terminal, files, signals, exit status); [`monitor`] is what
//! one asks of a machine while it runs.

/// Prints a line to standard error. When nobody can read it, nobody need know.
macro_rules! say {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($words)*);
    }};
}

pub mod audit;
pub mod debian;
pub mod demo;
pub mod diff;
pub mod drives;
mod ending;
pub mod firmware;
pub mod lift;
pub mod linux;
pub mod monitor;
pub mod options;
pub mod run;
pub mod screen;
pub mod session;
mod signals;
mod terminal;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use options::CpuChoice;
use std::io::Write;
use std::process::ExitCode;

/// Statuses that the program exits with, besides those that come from the guest.
pub mod status {
    /// Something given to the program cannot be used.
    pub const BAD_INPUT: u8 = 1;
    /// With `--lockstep`: the engines differ.
    pub const DIFFERENCE: u8 = 1;
    /// The guest ended in a triple fault.
    pub const TRIPLE_FAULT: u8 = 2;
    /// The command line makes no sense (`EX_USAGE`).
    pub const USAGE: u8 = 64;
    /// The time was up (as of `timeout`).
    pub const TIMEOUT: u8 = 124;
    /// Added to the number of the signal that ended the program.
    pub const SIGNAL: u8 = 128;
}

const EXIT_STATUS: &str = "\
Exit status:
  0      the guest switched the machine off (or reset it, with --no-reboot), or Ctrl-A x
  n      what the guest asked for: isa-debug-exit gives (value << 1) | 1,
         `linux --exec` the status of the command
  1      a file, an image or the host cannot be used; a line says which and why; or, with
         --lockstep, the engines differ; a report is on standard error
  2      triple fault; registers and the last block are on standard error
  64     the command line makes no sense
  124    --timeout is up
  128+n  ended by signal n (SIGINT, SIGTERM, SIGHUP, SIGQUIT), or as if (SIGHUP: the terminal
         is gone; SIGPIPE: nobody reads the output any more)";

/// An x86 PC that runs in ring 3 of an ordinary process.
#[derive(Debug, Parser)]
#[command(name = "ring3", version, after_help = EXIT_STATUS)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(after_help = EXIT_STATUS)]
    Run(run::Run),
    #[command(after_help = EXIT_STATUS)]
    Linux(linux::Linux),
    Demo(demo::Demo),
    Lift(lift::Lift),
    Diff(diff::Diff),
    Audit(audit::Audit),
}

impl Command {
    /// The CPU that it is about.
    fn cpu(&self) -> CpuChoice {
        match self {
            Command::Run(run) => run.machine.cpu,
            Command::Linux(linux) => linux.machine.cpu,
            Command::Demo(demo) => demo.machine.cpu,
            Command::Lift(lift) => lift.cpu,
            Command::Diff(diff) => diff.cpu,
            Command::Audit(audit) => audit.guest.machine.cpu,
        }
    }
}

/// Writes `text` to standard output. A reader that has seen enough is no error.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(anyhow::Error::new(e).context("cannot write to standard output"))
        }
        _ => Ok(()),
    }
}

/// A command line that makes no sense; ends with [`status::USAGE`].
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// Runs the program with the arguments of the process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    if cli.command.cpu() == CpuChoice::Help {
        // A closed pipe is the reader's choice.
        let _ = write!(std::io::stdout(), "{}", frontend_x86::model::help());
        return ExitCode::SUCCESS;
    }
    let result = match cli.command {
        Command::Run(command) => command.run(),
        Command::Linux(command) => command.run(),
        Command::Demo(command) => command.run(),
        Command::Lift(command) => command.run(),
        Command::Diff(command) => command.run(),
        Command::Audit(command) => command.run(),
    };
    match result {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            say!("ring3: {error:#}");
            ExitCode::from(if error.is::<UsageError>() { status::USAGE } else { status::BAD_INPUT })
        }
    }
}

/// Prints help as clap lays it out, but an error as one line.
fn refuse(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // A closed pipe is the reader's choice.
            let _ = error.print();
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            ExitCode::from(status::USAGE)
        }
        _ => {
            say!("ring3: {}; see 'ring3 --help'", one_line(&error.to_string()));
            ExitCode::from(status::USAGE)
        }
    }
}

/// What clap says before it shows the usage, without its layout.
fn one_line(message: &str) -> String {
    let message = message.split("\n\nUsage:").next().unwrap_or_default();
    let message = message.split("\n\nFor more information").next().unwrap_or_default();
    let words: Vec<&str> = message.trim_start_matches("error:").split_whitespace().collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_flags_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_usage_error_is_one_line() {
        for arguments in [
            &["run", "--initrd", "i"][..],
            &["run", "--nothing"],
            &["run", "--kernel", "k", "--cpu", "80386"],
            &["run", "--kernel", "k", "--clock", "sun"],
            &["run", "--kernel", "k", "-m", "0"],
            &["lift", "--bits", "8"],
            &["fly"],
        ] {
            let all = ["ring3"].iter().chain(arguments);
            let line = one_line(&Cli::try_parse_from(all).unwrap_err().to_string());
            assert!(!line.contains('\n') && !line.contains("Usage"), "{arguments:?}: {line}");
            assert!(line.len() > 10, "{arguments:?}: {line}");
        }
    }
}
