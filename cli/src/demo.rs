//! `ring3 demo`: the guest that comes with the program.

use crate::options::{HostEnd, MachineOptions};
use crate::screen::ScreenOptions;
use crate::session::{SerialEnd, Session};
use machine::{Boot, DebugExit, MachineConfig};

/// Run the built-in guest, which shows what the machine can do
///
/// A small kernel starts in real mode, enters protected and then long mode with paging, takes
/// timer interrupts and runs two programs in ring 3. The status is 0 when all of it worked.
#[derive(Debug, clap::Args)]
pub struct Demo {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub machine: MachineOptions,
}

impl Demo {
    /// Runs the command; gives the exit status.
    ///
    /// # Errors
    /// One line for the user.
    pub fn run(self) -> anyhow::Result<u8> {
        let session = Session {
            config: MachineConfig {
                no_reboot: true,
                debug_exit: Some(DebugExit::default()),
                ..self.machine.config(Boot::Rom(roms::DEMO_ROM.to_vec()))
            },
            serial: vec![SerialEnd::Host(HostEnd::Stdio)],
            inputs: Vec::new(),
            options: &self.machine,
            screen: ScreenOptions::default(),
        };
        match session.run()? {
            status if i32::from(status) == roms::DEMO_SUCCESS_STATUS => Ok(0),
            // Only the success status is a success, even if the guest switches off.
            0 => Ok(crate::status::BAD_INPUT),
            status => Ok(status),
        }
    }
}
