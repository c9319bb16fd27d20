//! `cargo xtask torture`: tests that may take long, as often as wanted.

use anyhow::bail;
use std::process::Command;

/// Run a test that may take long
#[derive(Debug, clap::Args)]
pub struct Torture {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Kill a process that writes disk images, again and again: what was flushed is there, and
    /// qemu-img finds no errors
    Block {
        /// Kills of each kind of image
        #[arg(default_value_t = 200)]
        kills: u32,
    },
}

impl Torture {
    /// Does the chore.
    ///
    /// # Errors
    /// The test fails.
    pub fn run(self) -> anyhow::Result<()> {
        let What::Block { kills } = self.what;
        let mut test = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        test.args(["test", "--release", "-p", "block", "--test", "kill", "--"]);
        if !test.arg(kills.to_string()).status()?.success() {
            bail!("an image did not survive");
        }
        Ok(())
    }
}
