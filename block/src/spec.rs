//! What `--drive` says: `file=…,if=…,media=…,format=…,snapshot=…,readonly=…,cache=…,index=…`.
//!
//! Keys, values and defaults are QEMU's, as is the comma in a value, which is written twice. A key
//! or value that we do not know is refused with those that we do.

use std::path::PathBuf;
use std::str::FromStr;

/// What a drive is connected to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Interface {
    /// The IDE controller.
    #[default]
    Ide,
    /// A virtio block device.
    Virtio,
    /// An NVMe controller.
    Nvme,
    /// The floppy controller.
    Floppy,
}

/// What kind of medium it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Media {
    /// A disk.
    #[default]
    Disk,
    /// A CD-ROM, which is read-only.
    Cdrom,
}

/// The format of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The disk's bytes.
    Raw,
    /// QEMU's copy-on-write format.
    Qcow2,
}

/// When a write is finished.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cache {
    /// When the host has it; it stays after a flush.
    #[default]
    WriteBack,
    /// When it is on the host's disk.
    WriteThrough,
}

/// A drive, as the user describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DriveSpec {
    /// The image; a drive of removable media may be empty.
    pub file: Option<PathBuf>,
    /// What it is connected to.
    pub interface: Interface,
    /// What kind of medium it is.
    pub media: Media,
    /// The image's format; found out when it is not given.
    pub format: Option<Format>,
    /// What is written is forgotten in the end.
    pub snapshot: bool,
    /// The guest cannot write.
    pub read_only: bool,
    /// When writes are finished.
    pub cache: Cache,
    /// Its place on the interface; the next free one when it is not given.
    pub index: Option<u32>,
}

/// What is wrong with a description of a drive.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// No `key=value`.
    #[error("`{0}` is no key=value; a comma in a value is written twice")]
    NoValue(String),
    /// The key is not known.
    #[error("a drive has no `{0}`; it has {keys}", keys = KEYS.join(", "))]
    Key(String),
    /// The value is not known.
    #[error("{0}={1} is not possible; possible are {2}")]
    Value(String, String, String),
    /// The same key twice.
    #[error("`{0}` is given twice")]
    Twice(String),
    /// The file is missing.
    #[error("a drive needs a file=; only if=floppy and media=cdrom may be empty")]
    NoFile,
    /// Two that exclude each other.
    #[error("{0} and {1} exclude each other")]
    Both(&'static str, &'static str),
}

const KEYS: &[&str] = &["file", "if", "media", "format", "snapshot", "readonly", "cache", "index"];
const INTERFACES: &[(&str, Interface)] = &[
    ("ide", Interface::Ide),
    ("virtio", Interface::Virtio),
    ("nvme", Interface::Nvme),
    ("floppy", Interface::Floppy),
];
const MEDIA: &[(&str, Media)] = &[("disk", Media::Disk), ("cdrom", Media::Cdrom)];
const FORMATS: &[(&str, Format)] = &[("raw", Format::Raw), ("qcow2", Format::Qcow2)];
const CACHES: &[(&str, Cache)] =
    &[("writeback", Cache::WriteBack), ("writethrough", Cache::WriteThrough)];
const SWITCH: &[(&str, bool)] = &[("on", true), ("off", false)];

fn choose<T: Copy>(key: &str, value: &str, of: &[(&str, T)]) -> Result<T, SpecError> {
    let found = of.iter().find(|(name, _)| *name == value);
    found.map(|(_, v)| *v).ok_or_else(|| {
        let names: Vec<_> = of.iter().map(|(name, _)| *name).collect();
        SpecError::Value(key.into(), value.into(), names.join(", "))
    })
}

/// Splits at single commas; two of them are one that is meant.
fn parts(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == ',' && chars.next_if_eq(&',').is_none() {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    parts
}

impl FromStr for DriveSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<DriveSpec, SpecError> {
        let mut d = DriveSpec::default();
        let (mut seen, mut writable) = (Vec::new(), false);
        for part in parts(text) {
            let (key, v) = part.split_once('=').ok_or_else(|| SpecError::NoValue(part.clone()))?;
            if seen.iter().any(|s| s == key) {
                return Err(SpecError::Twice(key.into()));
            }
            seen.push(key.to_string());
            match key {
                "file" => d.file = Some(v.into()).filter(|_| !v.is_empty()),
                "if" => d.interface = choose(key, v, INTERFACES)?,
                "media" => d.media = choose(key, v, MEDIA)?,
                "format" => d.format = Some(choose(key, v, FORMATS)?),
                "snapshot" => d.snapshot = choose(key, v, SWITCH)?,
                "readonly" => {
                    d.read_only = choose(key, v, SWITCH)?;
                    writable = !d.read_only;
                }
                "cache" => d.cache = choose(key, v, CACHES)?,
                "index" => {
                    let wrong = |_| SpecError::Value(key.into(), v.into(), "numbers from 0".into());
                    d.index = Some(v.parse().map_err(wrong)?);
                }
                _ => return Err(SpecError::Key(key.into())),
            }
        }
        if d.media == Media::Cdrom {
            if d.interface != Interface::Ide {
                return Err(SpecError::Both("media=cdrom", "an if= other than ide"));
            }
            if writable {
                return Err(SpecError::Both("media=cdrom", "readonly=off"));
            }
            d.read_only = true;
        }
        let removable = d.media == Media::Cdrom || d.interface == Interface::Floppy;
        if d.file.is_none() && !removable { Err(SpecError::NoFile) } else { Ok(d) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<DriveSpec, SpecError> {
        text.parse()
    }

    #[test]
    fn keys_values_and_defaults_are_qemus() {
        let disk = DriveSpec { file: Some("a".into()), ..DriveSpec::default() };
        assert_eq!(parse("file=a"), Ok(disk.clone()));
        assert_eq!((disk.interface, disk.media), (Interface::Ide, Media::Disk));
        let all = "file=a=b,,c,if=nvme,format=qcow2,snapshot=on,cache=writethrough,index=3";
        let want = DriveSpec {
            file: Some("a=b,c".into()),
            interface: Interface::Nvme,
            format: Some(Format::Qcow2),
            snapshot: true,
            cache: Cache::WriteThrough,
            index: Some(3),
            ..DriveSpec::default()
        };
        assert_eq!(parse(all), Ok(want));
        let cd = parse("media=cdrom").unwrap();
        assert_eq!((cd.file, cd.read_only), (None, true));
        assert_eq!(parse("if=floppy,file=").unwrap().file, None);
        assert_eq!(parse("file=a,,,,b").unwrap().file, Some("a,,b".into()));
    }

    #[test]
    fn what_is_not_known_is_refused_with_what_is() {
        let say = |text| parse(text).unwrap_err().to_string();
        let rows = [
            (
                "file=a,size=3",
                "a drive has no `size`; it has file, if, media, format, snapshot, \
              readonly, cache, index",
            ),
            ("file=a,if=scsi", "if=scsi is not possible; possible are ide, virtio, nvme, floppy"),
            (
                "file=a,cache=none",
                "cache=none is not possible; possible are writeback, writethrough",
            ),
            ("a.img", "`a.img` is no key=value; a comma in a value is written twice"),
            ("", "`` is no key=value; a comma in a value is written twice"),
            ("file=a,index=-1", "index=-1 is not possible; possible are numbers from 0"),
            ("if=virtio", "a drive needs a file=; only if=floppy and media=cdrom may be empty"),
            ("file=a,file=b", "`file` is given twice"),
            ("media=cdrom,readonly=off", "media=cdrom and readonly=off exclude each other"),
            ("media=cdrom,if=nvme", "media=cdrom and an if= other than ide exclude each other"),
        ];
        rows.iter().for_each(|(text, want)| assert_eq!(say(text), *want, "{text}"));
    }
}
