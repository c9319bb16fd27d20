//! What must be right about a qcow2 image before anybody trusts it.
//!
//! The header is read (encryption, features), then the tables it names: the refcount table, the
//! L1 table and the L2 tables, as far as they say where something lies. Whatever lies beyond the
//! end of the file is missing: the file was truncated, and reading on would give zeros where there
//! was data. An image with very many tables has only the first of its L2 tables checked.
//!
//! Source: QEMU's docs/interop/qcow2.txt (the format's specification).

use crate::OpenError;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The first bytes of a qcow2 image.
pub(crate) const MAGIC: [u8; 4] = *b"QFI\xfb";

/// L2 tables that are looked at: with the usual clusters, those of half a terabyte.
const TABLES: usize = 1024;
/// The offset in an entry of the L1 or L2 table.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
const COMPRESSED: u64 = 1 << 62;
const ALL_ZEROS: u64 = 1;
/// Bytes a refcount or L1 table may have.
const LARGEST_TABLE: u64 = 32 << 20;

/// Incompatible features, by bit.
const FEATURES: &[(u32, &str)] = &[
    (2, "an external data file"),
    (3, "another compression than deflate"),
    (4, "extended L2 entries"),
];

/// Whether `file` begins as a qcow2 image does.
pub(crate) fn is_qcow2(file: &File) -> io::Result<bool> {
    let mut magic = [0; 4];
    match file.read_exact_at(&mut magic, 0) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        result => result.map(|()| magic == MAGIC),
    }
}

struct Image<'a> {
    file: &'a File,
    path: &'a Path,
    len: u64,
    cluster: u64,
}

impl Image<'_> {
    fn truncated(&self, what: &'static str) -> OpenError {
        OpenError::Truncated(self.path.into(), what)
    }

    fn corrupt(&self, what: impl Into<String>) -> OpenError {
        OpenError::Corrupt(self.path.into(), what.into())
    }

    fn table(&self, at: u64, bytes: u64, what: &'static str) -> Result<Vec<u64>, OpenError> {
        if bytes > LARGEST_TABLE || at & (self.cluster - 1) != 0 {
            return Err(self.corrupt(format!("{what} of {bytes} bytes at {at:#x}")));
        }
        let mut buf = vec![0; bytes as usize];
        self.file.read_exact_at(&mut buf, at).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => self.truncated(what),
            _ => OpenError::Io(self.path.into(), e),
        })?;
        Ok(buf
            .chunks_exact(8)
            .map(|c| u64::from_be_bytes(c.try_into().unwrap_or_default()))
            .collect())
    }

    /// An entry's offset must be of a cluster in the file.
    fn place(&self, at: u64, what: &'static str) -> Result<(), OpenError> {
        match at {
            _ if at & (self.cluster - 1) != 0 => Err(self.corrupt(format!("{what} at {at:#x}"))),
            _ if at >= self.len => Err(self.truncated(what)),
            _ => Ok(()),
        }
    }
}

/// Checks the image in `file`.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check(file: &File, path: &Path) -> Result<(), OpenError> {
    let len = file.metadata().map_err(|e| OpenError::Io(path.into(), e))?.len();
    let mut image = Image { file, path, len, cluster: 512 };
    let mut head = [0; 104];
    file.read_exact_at(&mut head[..72], 0).map_err(|_| image.truncated("the header"))?;
    let word = |head: &[u8], at: usize| {
        u32::from_be_bytes(head[at..at + 4].try_into().unwrap_or_default())
    };
    let long = |head: &[u8], at: usize| {
        u64::from_be_bytes(head[at..at + 8].try_into().unwrap_or_default())
    };
    if head[..4] != MAGIC {
        return Err(image.corrupt("it does not begin as a qcow2 image does"));
    }
    let unsupported = |what: String| Err(OpenError::Unsupported(path.into(), what));
    let version = word(&head, 4);
    if !(2..=3).contains(&version) {
        return unsupported(format!("version {version} of qcow2"));
    }
    if word(&head, 32) != 0 {
        return Err(OpenError::Encrypted(path.into()));
    }
    if version == 3 {
        file.read_exact_at(&mut head[72..], 72).map_err(|_| image.truncated("the header"))?;
        let features = long(&head, 72);
        if let Some(bit) = (0..64).find(|n| features >> n & 1 != 0) {
            let known = FEATURES.iter().find(|f| f.0 == bit);
            return match (bit, known) {
                (0, _) => {
                    Err(image.corrupt("it was not closed; `qemu-img check -r all` repairs it"))
                }
                (1, _) => {
                    Err(image.corrupt("it is marked so; `qemu-img check -r all` may repair it"))
                }
                (_, Some((_, name))) => unsupported((*name).into()),
                (n, None) => unsupported(format!("incompatible feature {n} of qcow2")),
            };
        }
    }
    let bits = word(&head, 20);
    if !(9..=21).contains(&bits) {
        return Err(image.corrupt(format!("clusters of 2^{bits} bytes")));
    }
    image.cluster = 1 << bits;
    let (size, entries) = (long(&head, 24), u64::from(word(&head, 36)));
    let needed = size.div_ceil(image.cluster).div_ceil(image.cluster / 8);
    if entries < needed {
        return Err(image.corrupt(format!("{entries} of {needed} entries in the L1 table")));
    }
    let clusters = u64::from(word(&head, 56));
    for at in image.table(long(&head, 48), clusters << bits, "the refcount table")? {
        image.place(at & !511, "a refcount block")?;
    }
    let mut tables = 0;
    for entry in image.table(long(&head, 40), entries * 8, "the L1 table")? {
        let at = entry & OFFSET;
        image.place(at, "an L2 table")?;
        if at == 0 || tables == TABLES {
            continue;
        }
        tables += 1;
        for data in image.table(at, image.cluster, "an L2 table")? {
            if data & COMPRESSED != 0 {
                let offset_bits = 62 - (bits - 8);
                if data & ((1 << offset_bits) - 1) >= len {
                    return Err(image.truncated("a compressed cluster"));
                }
            } else if data & ALL_ZEROS == 0 {
                image.place(data & OFFSET, "a cluster")?;
            }
        }
    }
    Ok(())
}
