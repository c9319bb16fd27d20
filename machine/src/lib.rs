//! The PC: chips wired to a CPU, kernels loaded into its memory, and the loop that runs it.
//!
//! ```no_run
//! use machine::{Boot, Buffer, Kernel, Machine, MachineConfig};
//!
//! let image = std::fs::read("vmlinuz")?;
//! let kernel = Kernel { image, cmdline: "console=ttyS0".into(), ..Kernel::default() };
//! let mut pc = Machine::new(MachineConfig::new(Boot::Kernel(kernel)))?;
//! let serial = Buffer::default();
//! pc.connect_serial(0, Box::new(serial.clone()));
//! let outcome = pc.run(Some(std::time::Duration::from_secs(60)))?;
//! println!("{}the machine ended: {outcome:?}", serial.text());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`machine`](Machine) | configuration, memory layout, the run loop, reset |
//! | [`pc`] | the board: which chip answers where, which line goes where |
//! | [`boot`], [`acpi`] | boot protocols and tables for kernels started without firmware |
//! | [`lockstep`] | the same machine on two engines, compared as it runs |
//! | [`control`](Control) | stop a machine, send it input |
#![forbid(unsafe_code)]

pub mod acpi;
pub mod boot;
mod control;
mod firmware;
mod listing;
pub mod lockstep;
mod machine;
pub mod pc;
mod removable;
mod report;
mod smbios;
mod storage;

pub use block::{self, DriveSpec};
pub use control::{Buffer, Control, Key, Mouse, SERIAL_PORTS};
pub use firmware::{BootDevice, BootOrder};
pub use frontend_x86::model::{CpuModel, ModelError};
pub use listing::{HostCode, listing};
pub use lockstep::Lockstep;
pub use machine::{
    Boot, ClockKind, Engine, Error, Kernel, MEMORY_MIN, Machine, MachineConfig, Outcome,
    host_translator,
};
pub use pc::{DebugExit, Mapping};
pub use removable::Removable;
pub use report::{Stat, Value};
pub use storage::{Drive, DriveError};
