//! Writes the `newc` form of cpio, the archive that Linux unpacks as its first root file system.
//!
//! An entry is a header of 110 ASCII characters (a magic number and thirteen 8-digit hexadecimal
//! fields), the path with a NUL, and the data, each padded to a multiple of four bytes. Times are 0
//! and inode numbers count up, so the same entries always give the same bytes.
//!
//! Source: Linux `Documentation/driver-api/early-userspace/buffer-format.rst`.

const DIRECTORY: u32 = 0o040_000;
const CHARACTER: u32 = 0o020_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;

/// An archive under construction. Folders must be added before what lies in them; paths have no
/// leading slash; everything belongs to root.
#[derive(Default)]
pub struct Cpio {
    bytes: Vec<u8>,
    entries: u32,
}

impl Cpio {
    fn entry(&mut self, path: &str, mode: u32, links: u32, device: (u32, u32), data: &[u8]) {
        self.entries += 1;
        let size = u32::try_from(data.len()).expect("a file in an initrd is below 4 GiB");
        let name = path.len() as u32 + 1;
        // ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize
        // check
        let fields = [self.entries, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1, name, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(data);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// Adds a folder with the permission bits `mode`.
    pub fn dir(&mut self, path: &str, mode: u32) {
        self.entry(path, DIRECTORY | mode, 2, (0, 0), &[]);
    }

    /// Adds a file with the permission bits `mode`.
    ///
    /// # Panics
    /// When `data` is 4 GiB or longer, which the format cannot say.
    pub fn file(&mut self, path: &str, mode: u32, data: &[u8]) {
        self.entry(path, REGULAR | mode, 1, (0, 0), data);
    }

    /// Adds a symbolic link to `target`.
    pub fn symlink(&mut self, path: &str, target: &str) {
        self.entry(path, SYMLINK | 0o777, 1, (0, 0), target.as_bytes());
    }

    /// Adds a character device with the permission bits `mode`.
    pub fn device(&mut self, path: &str, mode: u32, major: u32, minor: u32) {
        self.entry(path, CHARACTER | mode, 1, (major, minor), &[]);
    }

    /// The archive, closed by its end marker.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, 1, (0, 0), &[]);
        self.bytes
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// One entry as a reader sees it.
    #[derive(Debug, PartialEq)]
    pub struct Entry {
        pub path: String,
        pub mode: u32,
        pub device: (u32, u32),
        pub data: Vec<u8>,
    }

    /// Reads an archive back by the format's description.
    pub fn read(mut bytes: &[u8]) -> Vec<Entry> {
        let mut entries = Vec::new();
        loop {
            assert_eq!(&bytes[..6], b"070701");
            let field = |i: usize| {
                u32::from_str_radix(str::from_utf8(&bytes[6 + 8 * i..14 + 8 * i]).unwrap(), 16)
                    .unwrap()
            };
            let (size, name) = (field(6) as usize, field(11) as usize);
            assert_eq!((field(2), field(3), field(5)), (0, 0, 0), "owner and time");
            let data = (110 + name).next_multiple_of(4);
            assert_eq!(bytes[110 + name - 1], 0);
            let path = str::from_utf8(&bytes[110..110 + name - 1]).unwrap().to_owned();
            if path == "TRAILER!!!" {
                assert_eq!(bytes.len(), data);
                return entries;
            }
            let device = (field(9), field(10));
            entries.push(Entry {
                path,
                mode: field(1),
                device,
                data: bytes[data..data + size].to_vec(),
            });
            bytes = &bytes[(data + size).next_multiple_of(4)..];
        }
    }

    #[test]
    fn what_is_written_can_be_read() {
        let mut cpio = Cpio::default();
        cpio.dir("dev", 0o755);
        cpio.device("dev/console", 0o600, 5, 1);
        cpio.symlink("sbin", "bin");
        // Every remainder of path and data length modulo four.
        for n in 0..8 {
            cpio.file(&"x".repeat(n + 1), 0o644, &vec![n as u8; n]);
        }
        let entries = read(&cpio.finish());
        let entry = |path: &str, mode, device, data: &[u8]| Entry {
            path: path.into(),
            mode,
            device,
            data: data.into(),
        };
        assert_eq!(entries[0], entry("dev", 0o040_755, (0, 0), b""));
        assert_eq!(entries[1], entry("dev/console", 0o020_600, (5, 1), b""));
        assert_eq!(entries[2], entry("sbin", 0o120_777, (0, 0), b"bin"));
        for n in 0..8 {
            assert_eq!(
                entries[3 + n],
                entry(&"x".repeat(n + 1), 0o100_644, (0, 0), &vec![n as u8; n])
            );
        }
        assert_eq!(entries.len(), 11);
    }

    #[test]
    fn the_header_is_the_documented_one() {
        let mut cpio = Cpio::default();
        cpio.file("a", 0o644, b"hi");
        let expected = "070701\
            00000001000081a4000000000000000000000001000000000000000200000000\
            0000000000000000000000000000000200000000a\0hi\0\0";
        assert_eq!(str::from_utf8(&cpio.finish()[..116]).unwrap(), expected);
    }
}
