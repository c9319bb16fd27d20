//! `ring3 run`: a machine with a kernel or a ROM of the user's.

use crate::drives::DriveOptions;
use crate::firmware;
use crate::options::{HostEnd, MachineOptions, parse_end, read_input, usage};
use crate::screen::{DisplayKind, ScreenOptions};
use crate::session::{SerialEnd, Session};
use clap::ValueEnum;
use machine::boot::multiboot::Module;
use machine::{Boot, DebugExit, Kernel, MachineConfig, SERIAL_PORTS};
use std::path::{Path, PathBuf};

/// Boot a PC: firmware, or a kernel without it
///
/// On a terminal, Ctrl-A x quits, Ctrl-A c switches to the monitor and back, and Ctrl-A h shows the
/// other keys; Ctrl-C goes to the guest.
#[derive(Debug, clap::Args)]
pub struct Run {
    /// Kernel: a Linux bzImage, an ELF file with a PVH entry point, or a Multiboot kernel
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,

    /// Initial RAM disk of the kernel
    #[arg(long, value_name = "FILE", requires = "kernel", conflicts_with = "bios")]
    pub initrd: Option<PathBuf>,

    /// Module of a Multiboot kernel: a file, and after a space its arguments; once for each
    #[arg(long, value_name = "FILE ARGS", requires = "kernel", conflicts_with = "bios")]
    pub module: Vec<String>,

    /// Command line of the kernel
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true,
        requires = "kernel",
        conflicts_with = "bios"
    )]
    pub append: String,

    /// Firmware to start instead of a kernel, a ROM of whole pages that is mapped to end at 4 GiB
    /// and at 1 MiB; Debian's SeaBIOS if neither is given
    #[arg(long, value_name = "FILE", conflicts_with = "kernel")]
    pub bios: Option<PathBuf>,

    /// Display card: std is a VGA with Bochs' linear modes, and its BIOS; none if a kernel is
    /// given, or else std
    #[arg(long, value_enum, value_name = "std|none")]
    pub vga: Option<VgaKind>,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub machine: MachineOptions,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub drives: DriveOptions,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub screen: ScreenOptions,

    /// Where a serial port ends: stdio, file:PATH or null; once for COM1 (stdio if not given), a
    /// second time for COM2
    #[arg(long, value_name = "END", value_parser = parse_end)]
    pub serial: Vec<HostEnd>,

    /// End the run when the guest resets the machine
    #[arg(long)]
    pub no_reboot: bool,

    /// Add a device: isa-debug-exit[,iobase=0xf4][,iosize=4], by which the guest ends the run, or
    /// pc-testdev, which tests of kernels use
    #[arg(long, value_name = "DEVICE", value_parser = parse_device)]
    pub device: Vec<DeviceSpec>,
}

/// A device of `--device`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceSpec {
    /// `isa-debug-exit`.
    DebugExit(DebugExit),
    /// `pc-testdev`.
    Testdev,
}

impl DeviceSpec {
    fn debug_exit(self) -> Option<DebugExit> {
        match self {
            DeviceSpec::DebugExit(at) => Some(at),
            DeviceSpec::Testdev => None,
        }
    }
}

/// A display card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum VgaKind {
    /// A VGA with the Bochs display interface.
    Std,
    /// None.
    None,
}

impl Run {
    /// Runs the command; gives the exit status.
    ///
    /// # Errors
    /// One line for the user.
    pub fn run(self) -> anyhow::Result<u8> {
        if self.serial.len() > SERIAL_PORTS {
            return usage(format!("--serial can be given at most {SERIAL_PORTS} times"));
        }
        if self.device.iter().filter(|d| d.debug_exit().is_some()).count() > 1 {
            return usage("--device isa-debug-exit can be given only once");
        }
        let config = self.config()?;
        let serial = match self.serial.is_empty() {
            true if self.screen.display == DisplayKind::Terminal => vec![HostEnd::Null],
            true if self.machine.monitors_stdio() => Vec::new(),
            true => vec![HostEnd::Stdio],
            false => self.serial,
        };
        let inputs = [&self.kernel, &self.initrd, &self.bios];
        let session = Session {
            config,
            serial: serial.into_iter().map(SerialEnd::Host).collect(),
            inputs: inputs.into_iter().flatten().map(PathBuf::as_path).collect::<Vec<&Path>>(),
            options: &self.machine,
            screen: self.screen,
        };
        session.run()
    }

    /// The machine that the flags describe, its kernel or firmware read.
    ///
    /// # Errors
    /// One line for the user.
    pub fn config(&self) -> anyhow::Result<MachineConfig> {
        let memory = self.machine.memory;
        let boot = match (&self.kernel, &self.bios) {
            (Some(path), _) => Boot::Kernel(Kernel {
                image: read_input("kernel", path, memory)?,
                initrd: match &self.initrd {
                    Some(path) => Some(read_input("initrd", path, memory)?),
                    None => None,
                },
                modules: self.module.iter().map(|m| module(m, memory)).collect::<Result<_, _>>()?,
                cmdline: self.append.clone(),
                name: path.display().to_string(),
            }),
            (None, Some(path)) => Boot::Rom(read_input("ROM", path, memory)?),
            (None, None) => Boot::Rom(firmware::seabios()?),
        };
        let vga = match (self.vga, &boot) {
            (Some(VgaKind::Std), _) | (None, Boot::Rom(_)) => Some(firmware::vga_bios()?),
            (None, _) if self.screen.need_vga() => Some(firmware::vga_bios()?),
            _ => None,
        };
        Ok(MachineConfig {
            no_reboot: self.no_reboot,
            debug_exit: self.device.iter().find_map(|d| d.debug_exit()),
            testdev: self.device.contains(&DeviceSpec::Testdev),
            vga,
            drives: self.drives.drives(),
            boot_order: self.drives.boot.clone().unwrap_or_default(),
            ..self.machine.config(boot)
        })
    }
}

/// Reads a module: its file is named by the first word.
fn module(text: &str, memory: u64) -> anyhow::Result<Module> {
    let path = text.split(' ').next().unwrap_or_default();
    Ok(Module { bytes: read_input("module", Path::new(path), memory)?, string: text.to_owned() })
}

/// Parses a device as QEMU writes it.
fn parse_device(text: &str) -> Result<DeviceSpec, String> {
    let mut words = text.split(',');
    match words.next() {
        Some("isa-debug-exit") => {}
        Some("pc-testdev") if text == "pc-testdev" => return Ok(DeviceSpec::Testdev),
        _ => return Err("the devices that can be added are isa-debug-exit, pc-testdev".to_owned()),
    }
    let mut device = DebugExit::default();
    for word in words {
        let value = |text: &str| {
            let parsed = match text.strip_prefix("0x") {
                Some(hex) => u16::from_str_radix(hex, 16),
                None => text.parse(),
            };
            parsed.map_err(|_| format!("{text} is no port number"))
        };
        match word.split_once('=') {
            Some(("iobase", text)) => device.iobase = value(text)?,
            Some(("iosize", text)) => device.iosize = value(text)?,
            _ => return Err(format!("isa-debug-exit has iobase= and iosize=, not {word}")),
        }
    }
    if device.iosize == 0 || device.iobase.checked_add(device.iosize - 1).is_none() {
        return Err("its ports must lie between 0 and 0xffff".to_owned());
    }
    Ok(DeviceSpec::DebugExit(device))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices() {
        let exit = |at| Ok(DeviceSpec::DebugExit(at));
        assert_eq!(parse_device("isa-debug-exit"), exit(DebugExit::default()));
        assert_eq!(parse_device("pc-testdev"), Ok(DeviceSpec::Testdev));
        assert_eq!(
            parse_device("isa-debug-exit,iobase=0x501,iosize=2"),
            exit(DebugExit { iobase: 0x501, iosize: 2 })
        );
        for bad in
            ["", "e1000", "isa-debug-exit,iobase", "pc-testdev,x=1", "isa-debug-exit,iosize=0"]
        {
            assert!(parse_device(bad).is_err(), "{bad}");
        }
        assert!(parse_device("isa-debug-exit,iobase=0xffff,iosize=2").is_err());
    }
}
