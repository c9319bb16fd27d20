//! Disk images on the host, as the disks of a machine.
//!
//! The way of a request: a controller (crate `devices`) submits it to an [`ImageDisk`], whose
//! worker thread does it on a [`Layer`]: a raw file or block device ([`raw`]), or a qcow2 image on
//! its backing files ([`qcow2`]). What is finished waits in a queue; a closure wakes whoever
//! looks. Without a thread the work is done at once, for machines whose runs must not depend on
//! the host's timing.
//!
//! qcow2 is read and written by the library imago, in its synchronous form: it needs no runtime,
//! orders refcounts before the tables that use them, and takes files that are open already, so
//! that locks, unlinked overlays and the walk along the backing files are ours ([`open`]). It does
//! not look for encryption, reads what lies beyond the end of a truncated file as zeros, and trusts
//! tables and refcounts, which in a damaged image lead it over the header or around without end. So
//! `header` looks first, and refuses what is not right. It puts no barrier of the host's disk
//! between refcounts and tables: an image whose *host* loses power between two flushes may need
//! `qemu-img check -r all`; a process that is killed leaves lost clusters at worst.
//!
//! Raw files are not imago's business: positioned reads and writes, `fdatasync` and `fallocate`
//! are all there is to them.

mod disk;
mod error;
pub mod faulty;
mod header;
mod lock;
pub mod open;
pub mod qcow2;
pub mod raw;
mod spec;

pub use disk::{ImageDisk, Layer, Wake};
pub use error::OpenError;
pub use open::{Image, Options};
pub use spec::{Cache, DriveSpec, Format, Interface, Media, SpecError};
