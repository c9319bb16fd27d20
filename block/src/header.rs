//! What must be right about a qcow2 image before anybody trusts it.
//!
//! The header is read (encryption, features), then the tables it names: the refcount table, the
//! L1 table and the L2 tables, as far as they say where something lies. Whatever lies beyond the
//! end of the file is missing: the file was truncated, and reading on would give zeros where there
//! was data. All that is in use must be counted as often as it is used, or it would be given away
//! and overwritten; what is counted and not used is only lost. An image with very many tables has
//! only the first of its L2 tables checked.
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
/// The cluster is used once, and may be written in place.
const COPIED: u64 = 1 << 63;
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
    /// What is in use: 2 × the cluster's number, and whether it may be written in place.
    uses: Vec<u64>,
}

impl Image<'_> {
    fn truncated(&self, what: &'static str) -> OpenError {
        OpenError::Truncated(self.path.into(), what)
    }

    fn corrupt(&self, what: impl Into<String>) -> OpenError {
        OpenError::Corrupt(self.path.into(), what.into())
    }

    fn used(&mut self, at: u64, bytes: u64, copied: bool) {
        let clusters = at / self.cluster..(at + bytes).div_ceil(self.cluster);
        self.uses.extend(clusters.map(|c| 2 * c + u64::from(copied)));
    }

    fn table(&mut self, at: u64, bytes: u64, what: &'static str) -> Result<Vec<u64>, OpenError> {
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

    /// All that is in use must be counted by the refcount blocks.
    fn check_counts(&mut self, blocks: &[u64], order: u32) -> Result<(), OpenError> {
        let (mut uses, per_block) = (std::mem::take(&mut self.uses), self.cluster * 8 >> order);
        uses.sort_unstable();
        let (mut loaded, mut block) = (None, vec![0; self.cluster as usize]);
        for same in uses.chunk_by(|a, b| a / 2 == b / 2) {
            let cluster = same[0] / 2;
            let (index, entry) = (cluster / per_block, cluster % per_block);
            let at = blocks.get(index as usize).map_or(0, |at| at & !511);
            if at == 0 {
                return Err(self.corrupt(format!("cluster {cluster} is used and not counted")));
            }
            if loaded.replace(index) != Some(index) {
                let read = self.file.read_exact_at(&mut block, at);
                read.map_err(|_| self.truncated("a refcount block"))?;
            }
            let count = match order {
                0..3 => {
                    let bit = entry << order;
                    let mask = (1_u64 << (1 << order)) - 1;
                    u64::from(block[(bit / 8) as usize]) >> (bit & 7) & mask
                }
                _ => {
                    let (first, size) = ((entry << (order - 3)) as usize, 1 << (order - 3));
                    let bytes = &block[first..first + size];
                    bytes.iter().fold(0, |n, &b| n << 8 | u64::from(b))
                }
            };
            let copied = same.iter().any(|u| u & 1 != 0);
            if count < same.len() as u64 || copied && count != 1 {
                let what = format!("cluster {cluster} is counted {count} times");
                return Err(self.corrupt(format!("{what} and used {} times", same.len())));
            }
        }
        Ok(())
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

/// Checks the image in `file`, and if it is to be written its refcounts too.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check(file: &File, path: &Path, writes: bool) -> Result<(), OpenError> {
    let len = file.metadata().map_err(|e| OpenError::Io(path.into(), e))?.len();
    let mut image = Image { file, path, len, cluster: 512, uses: vec![0] };
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
    let order = if version == 3 { word(&head, 96) } else { 4 };
    if order > 6 {
        return Err(image.corrupt(format!("refcounts of 2^{order} bits")));
    }
    let (at, bytes) = (long(&head, 48), u64::from(word(&head, 56)) << bits);
    let blocks = image.table(at, bytes, "the refcount table")?;
    image.used(at, bytes, false);
    for block in blocks.iter().map(|b| b & !511).filter(|b| *b != 0) {
        image.place(block, "a refcount block")?;
        image.used(block, 1, false);
    }
    let at = long(&head, 40);
    let l1 = image.table(at, entries * 8, "the L1 table")?;
    image.used(at, entries * 8, false);
    let mut tables = 0;
    for entry in l1 {
        let at = entry & OFFSET;
        image.place(at, "an L2 table")?;
        if at == 0 {
            continue;
        }
        image.used(at, 1, entry & COPIED != 0);
        if tables == TABLES {
            continue;
        }
        tables += 1;
        for data in image.table(at, image.cluster, "an L2 table")? {
            let offset = data & OFFSET;
            if data & COMPRESSED != 0 {
                // The sectors after the first begin where a sector does.
                let offset_bits = 62 - (bits - 8);
                let (first, more) =
                    (data & ((1 << offset_bits) - 1), data << 2 >> 2 >> offset_bits);
                if first >= len {
                    return Err(image.truncated("a compressed cluster"));
                }
                image.used(first, (first & !511) + 512 * (more + 1) - first, false);
            } else if offset != 0 {
                if data & ALL_ZEROS == 0 || version == 2 {
                    image.place(offset, "a cluster")?;
                }
                image.used(offset, 1, data & COPIED != 0);
            }
        }
    }
    if writes { image.check_counts(&blocks, order) } else { Ok(()) }
}
