//! Flags for drives and for what firmware boots from.

use machine::block::{DriveSpec, Interface, Media};
use machine::{BootDevice, BootOrder};
use std::path::PathBuf;

/// The machine's drives.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct DriveOptions {
    /// Add a drive: file=FILE[,if=ide|virtio|nvme|floppy][,media=disk|cdrom][,format=raw|qcow2]
    /// [,snapshot=on][,readonly=on][,cache=writeback|writethrough][,index=N]; a comma in FILE is
    /// written twice
    #[arg(long, value_name = "DRIVE")]
    pub drive: Vec<DriveSpec>,

    /// First IDE disk: short for --drive file=FILE,index=0
    #[arg(long, value_name = "FILE")]
    pub hda: Option<PathBuf>,

    /// Second IDE disk
    #[arg(long, value_name = "FILE")]
    pub hdb: Option<PathBuf>,

    /// Third IDE disk, in the place of --cdrom
    #[arg(long, value_name = "FILE", conflicts_with = "cdrom")]
    pub hdc: Option<PathBuf>,

    /// Fourth IDE disk
    #[arg(long, value_name = "FILE")]
    pub hdd: Option<PathBuf>,

    /// CD-ROM image: short for --drive file=FILE,media=cdrom,index=2
    #[arg(long, value_name = "FILE")]
    pub cdrom: Option<PathBuf>,

    /// First floppy image: short for --drive file=FILE,if=floppy,index=0
    #[arg(long, value_name = "FILE")]
    pub fda: Option<PathBuf>,

    /// Second floppy image
    #[arg(long, value_name = "FILE")]
    pub fdb: Option<PathBuf>,

    /// What firmware boots from, in this order: [order=]LETTERS of a (floppy), c (disk), d (CD-ROM)
    /// and n (network), and menu=on to be asked
    #[arg(long, value_name = "order=LETTERS[,menu=on]", value_parser = parse_boot)]
    pub boot: Option<BootOrder>,
}

impl DriveOptions {
    /// All drives.
    #[must_use]
    pub fn drives(&self) -> Vec<DriveSpec> {
        let short = |file: &Option<PathBuf>, interface, media, index| {
            file.clone().map(|file| DriveSpec {
                file: Some(file),
                interface,
                media,
                index: Some(index),
                ..DriveSpec::default()
            })
        };
        let disk = |file, index| short(file, Interface::Ide, Media::Disk, index);
        let floppy = |file, index| short(file, Interface::Floppy, Media::Disk, index);
        let shorts = [
            disk(&self.hda, 0),
            disk(&self.hdb, 1),
            disk(&self.hdc, 2),
            disk(&self.hdd, 3),
            short(&self.cdrom, Interface::Ide, Media::Cdrom, 2),
            floppy(&self.fda, 0),
            floppy(&self.fdb, 1),
        ];
        shorts.into_iter().flatten().chain(self.drive.iter().cloned()).collect()
    }
}

/// Parses `order=LETTERS,menu=on`, or the letters alone.
fn parse_boot(text: &str) -> Result<BootOrder, String> {
    const WHAT: &str = "it must be order=LETTERS (of a, c, d, n) or menu=on, or both";
    let mut boot = BootOrder::default();
    for (n, part) in text.split(',').enumerate() {
        match part.split_once('=') {
            Some(("menu", "on")) => boot.menu = true,
            Some(("menu", "off")) => boot.menu = false,
            Some(("order", letters)) => boot.devices = parse_order(letters).ok_or(WHAT)?,
            None if n == 0 => boot.devices = parse_order(part).ok_or(WHAT)?,
            _ => return Err(WHAT.to_owned()),
        }
    }
    Ok(boot)
}

fn parse_order(letters: &str) -> Option<Vec<BootDevice>> {
    let device = |letter| match letter {
        'a' => Some(BootDevice::Floppy),
        'c' => Some(BootDevice::Disk),
        'd' => Some(BootDevice::Cd),
        'n' => Some(BootDevice::Network),
        _ => None,
    };
    let devices: Option<Vec<_>> = letters.chars().map(device).collect();
    devices.filter(|d| (1..=3).contains(&d.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_orders() {
        use BootDevice::*;
        let boot = |devices: &[BootDevice], menu| Ok(BootOrder { devices: devices.to_vec(), menu });
        assert_eq!(parse_boot("order=dc,menu=on"), boot(&[Cd, Disk], true));
        assert_eq!(parse_boot("a"), boot(&[Floppy], false));
        assert_eq!(parse_boot("menu=on"), boot(&[], true));
        for bad in ["", "x", "order=", "menu=maybe", "order=acdn", "splash=x"] {
            assert!(parse_boot(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn short_flags_are_drives() {
        let options = DriveOptions {
            cdrom: Some("a.iso".into()),
            fda: Some("f.img".into()),
            drive: vec!["file=d.img,if=nvme".parse().unwrap()],
            ..DriveOptions::default()
        };
        let want = [
            "file=a.iso,media=cdrom,index=2",
            "file=f.img,if=floppy,index=0",
            "file=d.img,if=nvme",
        ];
        let drives = options.drives();
        // A CD-ROM is read-only in whatever way it is named.
        for (drive, want) in drives.iter().zip(want) {
            let want: DriveSpec = want.parse().unwrap();
            assert_eq!(
                (&drive.file, drive.interface, drive.media, drive.index),
                (&want.file, want.interface, want.media, want.index)
            );
        }
        assert_eq!(drives.len(), 3);
    }
}
