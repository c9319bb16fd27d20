//! The project's chores: `cargo xtask CHORE`.
//!
//! A chore is a module with its flags beside the function that runs it, and one variant below.

mod bench;
mod coverage;
mod guests;
mod system;
mod torture;

use clap::Parser;
use std::process::ExitCode;

/// The project's chores
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Chore {
    Bench(bench::Bench),
    SystemDiff(system::SystemDiff),
    Coverage(coverage::Coverage),
    Guests(guests::Guests),
    Torture(torture::Torture),
}

fn main() -> ExitCode {
    let done = match Chore::parse() {
        Chore::Bench(chore) => chore.run(),
        Chore::SystemDiff(chore) => chore.run(),
        Chore::Coverage(chore) => chore.run(),
        Chore::Guests(chore) => chore.run(),
        Chore::Torture(chore) => chore.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_flags_are_consistent() {
        Chore::command().debug_assert();
    }
}
