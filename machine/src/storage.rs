//! The machine's drives: opens their images and puts each where its description says.
//!
//! On a host clock an image has a thread of its own, which wakes the machine when something is
//! finished. On an instruction-count clock requests are done when they are submitted, so that no
//! run depends on the host.
//!
//! CD and floppy drives are [`Removable`]: their medium can be [changed](Drive::change) while the
//! machine runs.

use crate::control::Control;
use crate::removable::Removable;
use block::{DriveSpec, Format, Image, Interface, Media, OpenError, Wake};
use devices::disk::Disk;
use devices::ide::Unit;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Why a drive cannot be attached; each message is one line.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// Its image cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The host has no thread for it.
    #[error("cannot start the thread of a drive: {0}")]
    Thread(#[from] io::Error),
    /// Two drives at one place.
    #[error("two drives are at index {index} of {interface}; give them different ones")]
    Taken {
        /// What both are connected to.
        interface: &'static str,
        /// The place.
        index: usize,
    },
    /// A place that there is not.
    #[error("{interface} has no place {index} for a drive, only 0 to {last}")]
    NoPlace {
        /// What it is to be connected to.
        interface: &'static str,
        /// The place.
        index: usize,
        /// The last place there is.
        last: usize,
    },
    /// A medium that the interface has not.
    #[error("media=cdrom is possible with if=ide only")]
    NoCd,
    /// A medium that is built in.
    #[error("Device '{0}' is not removable")]
    NotRemovable(String),
}

/// A drive of the machine, as the host sees it.
pub struct Drive {
    /// Its name, as QEMU has it: `ide1-cd0`, `floppy0`, `virtio0`.
    pub name: String,
    /// What it is connected to, and kind, file and options of its medium.
    pub spec: DriveSpec,
    /// The medium's format and size in bytes, if there is one.
    pub medium: Option<(Format, u64)>,
    removable: Option<Removable>,
    wake: Option<Wake>,
}

impl Drive {
    /// Whether its medium can be changed.
    #[must_use]
    pub fn is_removable(&self) -> bool {
        self.removable.is_some()
    }

    /// Puts another medium in: `file` (`None` leaves the drive empty) of `format`, which is found
    /// out when it is not given.
    ///
    /// # Errors
    /// The medium is not removable, or the image cannot be opened; the old one then stays.
    pub fn change(
        &mut self,
        file: Option<PathBuf>,
        format: Option<Format>,
        read_only: bool,
    ) -> Result<(), DriveError> {
        let Some(drive) = &self.removable else {
            return Err(DriveError::NotRemovable(self.name.clone()));
        };
        let spec = DriveSpec { file, format, read_only, ..self.spec.clone() };
        let opened = open(&spec, self.wake.as_ref())?;
        (self.spec, self.medium) = (spec, opened.as_ref().map(|o| o.1));
        drive.change(opened.map(|o| o.0));
        Ok(())
    }
}

/// The drives by what they are connected to.
#[derive(Default)]
pub(crate) struct Storage {
    /// By channel and number on the cable.
    pub(crate) ide: [[Option<Unit>; 2]; 2],
    pub(crate) virtio: Vec<Box<dyn Disk>>,
    pub(crate) nvme: Vec<Box<dyn Disk>>,
    pub(crate) floppy: [Option<Box<dyn Disk>>; 2],
    /// All of them, in the order in which they are given.
    pub(crate) drives: Vec<Drive>,
}

impl Storage {
    /// Whether there is a drive on a cable.
    pub(crate) fn has_ide(&self) -> bool {
        self.ide.as_flattened().iter().any(Option::is_some)
    }
}

/// IDE has four places, the floppy controller two, PCI as many as it has devices to spare.
const IDE_PLACES: usize = 4;
const FLOPPY_PLACES: usize = 2;
const PCI_PLACES: usize = 12;

/// Finds a place for each drive of one interface: those that name one first.
fn places(
    drives: &[&DriveSpec],
    interface: &'static str,
    most: usize,
) -> Result<Vec<usize>, DriveError> {
    let mut taken = vec![false; most];
    let last = most - 1;
    for index in drives.iter().filter_map(|d| d.index).map(|i| i as usize) {
        match taken.get_mut(index) {
            None => return Err(DriveError::NoPlace { interface, index, last }),
            Some(true) => return Err(DriveError::Taken { interface, index }),
            Some(place) => *place = true,
        }
    }
    let next = |d: &&DriveSpec| match d.index {
        Some(index) => Ok(index as usize),
        None => {
            let index = taken.iter().position(|t| !t);
            let index = index.ok_or(DriveError::NoPlace { interface, index: most, last })?;
            taken[index] = true;
            Ok(index)
        }
    };
    drives.iter().map(next).collect()
}

/// A medium, its format and its size.
type Opened = (Box<dyn Disk>, (Format, u64));

/// Opens a drive's image; one without a file is an empty drive.
fn open(spec: &DriveSpec, wake: Option<&Wake>) -> Result<Option<Opened>, DriveError> {
    let Some(path) = &spec.file else { return Ok(None) };
    let mut options = block::Options::from(spec);
    options.read_only |= spec.media == Media::Cdrom;
    let image = Image::open(path, &options)?;
    let medium = (image.format, image.size());
    Ok(Some((Box::new(image.into_disk(wake.cloned())?), medium)))
}

/// A drive's name at place `index` of its interface.
fn name(spec: &DriveSpec, index: usize) -> String {
    match (spec.interface, spec.media) {
        (Interface::Ide, Media::Disk) => format!("ide{}-hd{}", index / 2, index % 2),
        (Interface::Ide, Media::Cdrom) => format!("ide{}-cd{}", index / 2, index % 2),
        (Interface::Floppy, _) => format!("floppy{index}"),
        (Interface::Virtio, _) => format!("virtio{index}"),
        (Interface::Nvme, _) => format!("nvme{index}"),
    }
}

impl Storage {
    /// Opens the image of a drive and lists the drive.
    fn open(
        &mut self,
        spec: &DriveSpec,
        index: usize,
        wake: Option<&Wake>,
    ) -> Result<Box<dyn Disk>, DriveError> {
        let (disk, medium) = open(spec, wake)?.unzip();
        let changes = spec.media == Media::Cdrom || spec.interface == Interface::Floppy;
        let (disk, removable) = match disk {
            Some(disk) if !changes => (disk, None),
            disk => {
                let drive = Removable::new(disk);
                (Box::new(drive.clone()) as Box<dyn Disk>, Some(drive))
            }
        };
        let (name, spec) = (name(spec, index), spec.clone());
        self.drives.push(Drive { name, spec, medium, removable, wake: wake.cloned() });
        Ok(disk)
    }
}

/// Opens all images. `control` is who is woken; `None` on an instruction-count clock.
pub(crate) fn attach(
    drives: &[DriveSpec],
    control: Option<&Control>,
) -> Result<Storage, DriveError> {
    let wake = control.map(|control| {
        let control = control.clone();
        Arc::new(move || control.wake()) as Wake
    });
    let wake = wake.as_ref();
    let of = |interface| drives.iter().filter(|d| d.interface == interface).collect::<Vec<_>>();
    if drives.iter().any(|d| d.media == Media::Cdrom && d.interface != Interface::Ide) {
        return Err(DriveError::NoCd);
    }
    let mut storage = Storage::default();
    let ide = of(Interface::Ide);
    for (index, spec) in places(&ide, "ide", IDE_PLACES)?.into_iter().zip(ide) {
        let disk = storage.open(spec, index, wake)?;
        let unit = match spec.media {
            Media::Disk => Unit::Disk(disk),
            Media::Cdrom => Unit::Cd(disk),
        };
        storage.ide[index / 2][index % 2] = Some(unit);
    }
    let floppy = of(Interface::Floppy);
    for (index, spec) in places(&floppy, "floppy", FLOPPY_PLACES)?.into_iter().zip(floppy) {
        storage.floppy[index] = Some(storage.open(spec, index, wake)?);
    }
    for (interface, name) in [(Interface::Virtio, "virtio"), (Interface::Nvme, "nvme")] {
        let mut specs = of(interface);
        let mut order: Vec<_> =
            places(&specs, name, PCI_PLACES)?.into_iter().zip(specs.drain(..)).collect();
        order.sort_by_key(|(index, _)| *index);
        for (index, spec) in order {
            let disk = storage.open(spec, index, wake)?;
            match interface {
                Interface::Nvme => storage.nvme.push(disk),
                _ => storage.virtio.push(disk),
            }
        }
    }
    Ok(storage)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drives(specs: &[&str]) -> Result<Storage, DriveError> {
        let specs: Vec<DriveSpec> = specs.iter().map(|s| s.parse().unwrap()).collect();
        attach(&specs, None)
    }

    #[test]
    fn drives_take_the_places_they_name_and_else_the_next() {
        let s = drives(&["media=cdrom", "media=cdrom,index=0", "if=floppy"]).unwrap();
        let taken = s.ide.as_flattened().iter().map(Option::is_some).collect::<Vec<_>>();
        assert_eq!(taken, [true, true, false, false]);
        assert!(s.floppy[0].is_some() && s.floppy[1].is_none());
    }

    #[test]
    fn media_come_and_go() {
        let file = std::env::temp_dir().join(format!("ring3-medium-{}", std::process::id()));
        std::fs::write(&file, vec![0x5a; 4096]).unwrap();
        let spec = format!("file={},if=virtio,format=raw,snapshot=on", file.display());
        let mut s = drives(&["media=cdrom,index=2", "if=floppy", &spec]).unwrap();
        let names: Vec<&str> = s.drives.iter().map(|d| d.name.as_str()).collect();
        assert_eq!(names, ["ide1-cd0", "floppy0", "virtio0"]);
        let cd = &mut s.drives[0];
        cd.change(Some(file.clone()), None, true).unwrap();
        assert_eq!(cd.medium, Some((Format::Raw, 4096)));
        assert!(cd.change(Some("/nonexistent/b.iso".into()), None, true).is_err());
        assert_eq!((cd.spec.file.as_ref(), cd.medium.is_some()), (Some(&file), true), "it stays");
        cd.change(None, None, true).unwrap();
        assert_eq!((&cd.spec.file, cd.medium), (&None, None));
        let e = s.drives[2].change(None, None, false).unwrap_err().to_string();
        assert_eq!(e, "Device 'virtio0' is not removable");
        std::fs::remove_file(&file).unwrap();
    }

    #[test]
    fn what_cannot_be_is_refused_in_one_line() {
        for (specs, says) in [
            (&["media=cdrom,index=1", "media=cdrom,index=1"][..], "two drives are at index 1"),
            (&["media=cdrom,index=4"], "ide has no place 4 for a drive, only 0 to 3"),
            (&["if=floppy,index=0", "if=floppy,index=1", "if=floppy"], "floppy has no place 2"),
            (&["file=/nonexistent/a.img"], "/nonexistent/a.img"),
        ] {
            let e = drives(specs).err().unwrap().to_string();
            assert!(e.contains(says) && !e.contains('\n'), "{e}");
        }
    }
}
