//! Opening an image: its format, its backing files, its locks.
//!
//! The format is raw unless it is given or the file begins as a qcow2 image does. Each file of the
//! chain is opened by us, locked ([`lock`](self)), checked, and only then given to imago; backing
//! files are opened for reading only and are looked for beside the image that names them. A file
//! that appears twice in a chain is a loop. With `snapshot` the whole chain is opened for reading,
//! and a temporary overlay that has no name takes what is written.

use crate::disk::{ImageDisk, Layer, Wake};
use crate::lock::{self, Lock};
use crate::qcow2::{Access, Qcow2 as Qcow2Layer};
use crate::raw::Raw as RawLayer;
use crate::spec::{Cache, DriveSpec, Format};
use crate::{OpenError, header};
use devices::disk::SECTOR;
use imago::file::File as Storage;
use imago::qcow2::Qcow2;
use imago::raw::Raw;
use imago::{FormatCreateBuilder, StorageOpenOptions};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// How an image is opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Its format; found out when it is not given.
    pub format: Option<Format>,
    /// What is written is forgotten in the end.
    pub snapshot: bool,
    /// Nothing is written.
    pub read_only: bool,
    /// When writes are finished.
    pub cache: Cache,
}

impl From<&DriveSpec> for Options {
    fn from(d: &DriveSpec) -> Options {
        Options { format: d.format, snapshot: d.snapshot, read_only: d.read_only, cache: d.cache }
    }
}

/// An open image.
pub struct Image {
    /// Its files, the image itself first, then what it is based on.
    pub files: Vec<PathBuf>,
    /// Its format.
    pub format: Format,
    layer: Box<dyn Layer>,
    through: bool,
}

impl Image {
    /// Opens the image at `path`.
    ///
    /// # Errors
    /// It cannot be opened, or must not be.
    pub fn open(path: &Path, options: &Options) -> Result<Image, OpenError> {
        let read_only = options.read_only;
        let snapshot = options.snapshot && !read_only;
        let writes = !read_only && !snapshot;
        let mut chain = Chain::default();
        let (file, format, probed) = chain.file(path, options.format, writes)?;
        let io = |e| OpenError::Io(path.into(), e);
        let layer: Box<dyn Layer> = match format {
            Format::Raw if !snapshot => {
                Box::new(RawLayer::new(file, read_only, probed, chain.locks).map_err(io)?)
            }
            _ => {
                let access = chain.access(file, path, format, writes)?;
                let access = if snapshot { overlay(access).map_err(io)? } else { access };
                Box::new(Qcow2Layer::new(access, read_only, snapshot, chain.locks))
            }
        };
        let size = layer.len();
        if !size.is_multiple_of(SECTOR) {
            return Err(OpenError::Size(path.into(), size));
        }
        let through = options.cache == Cache::WriteThrough;
        Ok(Image { files: chain.files, format, layer, through })
    }

    /// Its size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.layer.len()
    }

    /// The image as a disk: see [`ImageDisk::new`].
    ///
    /// # Errors
    /// The host has no thread for it.
    pub fn into_disk(self, wake: Option<Wake>) -> io::Result<ImageDisk> {
        ImageDisk::new(self.layer, self.through, wake)
    }

    /// The image's layer of storage.
    #[must_use]
    pub fn into_layer(self) -> Box<dyn Layer> {
        self.layer
    }
}

/// The files of one image that are open so far.
#[derive(Default)]
struct Chain {
    files: Vec<PathBuf>,
    /// Device and number of each.
    seen: Vec<(u64, u64)>,
    locks: Vec<Lock>,
}

impl Chain {
    /// Opens and locks a file, and finds out its format; true when nobody said it.
    fn file(
        &mut self,
        path: &Path,
        format: Option<Format>,
        writes: bool,
    ) -> Result<(File, Format, bool), OpenError> {
        let failed = |e: io::Error| match e.kind() {
            io::ErrorKind::NotFound => OpenError::Missing(path.into()),
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem if writes => {
                OpenError::NotWritable(path.into())
            }
            _ => OpenError::Io(path.into(), e),
        };
        let kind = fs::metadata(path).map_err(failed)?.file_type();
        if kind.is_dir() {
            return Err(OpenError::NoImage(path.into(), "a directory"));
        }
        if !kind.is_file() && !kind.is_block_device() {
            return Err(OpenError::NoImage(path.into(), "neither a file nor a block device"));
        }
        let file = File::options().read(true).write(writes).open(path).map_err(failed)?;
        let meta = file.metadata().map_err(failed)?;
        let number = (meta.dev(), meta.ino());
        if self.seen.contains(&number) {
            return Err(OpenError::Loop(self.files.first().map_or(path, |f| f).into()));
        }
        self.seen.push(number);
        self.files.push(path.into());
        let lock = lock::lock(&file, writes).map_err(failed)?;
        self.locks.push(lock.map_err(|why| OpenError::Locked(path.into(), why))?);
        let probed = match header::is_qcow2(&file).map_err(failed)? {
            true => Format::Qcow2,
            false => Format::Raw,
        };
        Ok((file, format.unwrap_or(probed), format.is_none()))
    }

    /// Gives an open file to imago, with all that it is based on.
    fn access(
        &mut self,
        file: File,
        path: &Path,
        format: Format,
        writes: bool,
    ) -> Result<Access, OpenError> {
        let failed = |e: io::Error| match e.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
                OpenError::Corrupt(path.into(), e.to_string())
            }
            _ => OpenError::Io(path.into(), e),
        };
        if format == Format::Qcow2 {
            header::check(&file, path, writes)?;
        }
        let options = StorageOpenOptions::new().filename(path).write(writes);
        let storage = Storage::from_open_file(file, options).map_err(failed)?;
        if format == Format::Raw {
            return Ok(Access::new(Raw::open_image(storage, writes).map_err(failed)?));
        }
        let mut image: Qcow2<Storage> = Qcow2::open_image(storage, writes).map_err(failed)?;
        image.set_data_file(None);
        let backing = match image.implicit_backing_file() {
            None => None,
            Some(name) => {
                let format = match image.implicit_backing_format().map(String::as_str) {
                    None => None,
                    Some("raw" | "file" | "host_device") => Some(Format::Raw),
                    Some("qcow2") => Some(Format::Qcow2),
                    Some(other) => {
                        let what = format!("a backing file in the format {other}");
                        return Err(OpenError::Unsupported(path.into(), what));
                    }
                };
                Some(self.backing(path, name, format)?)
            }
        };
        image.set_backing(backing);
        Ok(Access::new(image))
    }

    fn backing(
        &mut self,
        image: &Path,
        name: &str,
        format: Option<Format>,
    ) -> Result<Access, OpenError> {
        let name = name.strip_prefix("file:").unwrap_or(name);
        let scheme = name.split_once(':').is_some_and(|(s, _)| !s.contains('/'));
        let path = image.parent().unwrap_or(Path::new("")).join(name);
        if scheme && !path.exists() {
            let what = format!("the backing file {name}: only files are");
            return Err(OpenError::Unsupported(image.into(), what));
        }
        let (file, format, _) = self.file(&path, format, false).map_err(|e| match e {
            OpenError::Missing(backing) => {
                OpenError::BackingMissing { image: image.into(), backing }
            }
            e => e,
        })?;
        self.access(file, &path, format, false)
    }
}

/// A temporary image over `base`, which takes all writes.
fn overlay(base: Access) -> io::Result<Access> {
    let file = tempfile::tempfile()?;
    let options = StorageOpenOptions::new().write(true);
    let storage = |f: &File| Storage::from_open_file(f.try_clone()?, options.clone());
    let size = base.size().next_multiple_of(SECTOR);
    Qcow2::<Storage>::create_builder(storage(&file)?).size(size).create()?;
    let mut image: Qcow2<Storage> = Qcow2::open_image(storage(&file)?, true)?;
    image.set_data_file(None);
    image.set_backing(Some(base));
    Ok(Access::new(image))
}
