//! Why an image cannot be opened: one clear line each.

use std::io;
use std::path::PathBuf;

/// Why an image cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no such file.
    #[error("{0}: there is no such file")]
    Missing(PathBuf),
    /// A backing file that an image names is not there.
    #[error("{image}: its backing file {backing} is missing")]
    BackingMissing {
        /// Who names it.
        image: PathBuf,
        /// The backing file.
        backing: PathBuf,
    },
    /// The image is its own backing file, directly or not.
    #[error("{0}: its backing files form a loop")]
    Loop(PathBuf),
    /// It is a directory, a pipe or the like.
    #[error("{0}: is {1}, not a disk image")]
    NoImage(PathBuf, &'static str),
    /// Its permissions do not allow it.
    #[error("{0}: the host does not permit writing it (readonly=on or snapshot=on would do)")]
    NotWritable(PathBuf),
    /// Somebody else uses it: see [`crate::open`].
    #[error("{0}: another process {1}")]
    Locked(PathBuf, &'static str),
    /// Its metadata lie beyond its end.
    #[error("{0}: the image is truncated: {1} lies beyond its end")]
    Truncated(PathBuf, &'static str),
    /// Its metadata contradict themselves.
    #[error("{0}: the image is corrupt: {1}")]
    Corrupt(PathBuf, String),
    /// It uses what we have not.
    #[error("{0}: not supported: {1}")]
    Unsupported(PathBuf, String),
    /// It is encrypted.
    #[error("{0}: the image is encrypted, which is not supported")]
    Encrypted(PathBuf),
    /// Its size is no number of sectors.
    #[error("{0}: its size of {1} bytes is no multiple of 512")]
    Size(PathBuf, u64),
    /// The host says something else.
    #[error("{0}: {1}")]
    Io(PathBuf, #[source] io::Error),
}
