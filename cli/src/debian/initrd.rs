//! The guest's root file system: busybox, a few folders, and `init.sh` as its first process.
//!
//! The applets' links are made in the guest (`busybox --install`), one process there, because a
//! host of another architecture could not ask busybox for their names. `sbin` and `usr` are links,
//! so that every usual path of a program leads to `/bin`. The archive is the same for the same
//! input.

use super::cpio::Cpio;

const FOLDERS: &[(&str, u32)] = &[
    ("bin", 0o755),
    ("dev", 0o755),
    ("etc", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("var", 0o755),
];

/// Builds the initrd, an uncompressed newc archive, around the static executable `busybox`. With
/// `exec`, a shell script, the guest runs it for the host (see [`ExecOutput`](super::ExecOutput))
/// instead of an interactive shell.
#[must_use]
pub fn initrd(busybox: &[u8], exec: Option<&str>) -> Vec<u8> {
    let mut cpio = Cpio::default();
    for &(path, mode) in FOLDERS {
        cpio.dir(path, mode);
    }
    // The kernel opens the console before /init can mount devtmpfs.
    cpio.device("dev/console", 0o600, 5, 1);
    cpio.device("dev/null", 0o666, 1, 3);
    cpio.file("bin/busybox", 0o755, busybox);
    cpio.symlink("bin/sh", "busybox");
    cpio.symlink("sbin", "bin");
    cpio.symlink("usr", ".");
    cpio.file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n");
    cpio.file("etc/group", 0o644, b"root:x:0:\n");
    cpio.file("init", 0o755, include_bytes!("init.sh"));
    if let Some(command) = exec {
        cpio.file("ring3-exec", 0o600, command.as_bytes());
    }
    cpio.finish()
}

#[cfg(test)]
mod tests {
    use super::super::cpio::tests::read;
    use super::*;

    #[test]
    fn folders_come_before_their_files() {
        let entries = read(&initrd(b"\x7fELF", Some("id")));
        let mut seen = vec![""];
        for entry in &entries {
            let parent = entry.path.rsplit_once('/').map_or("", |(parent, _)| parent);
            assert!(seen.contains(&parent), "{}", entry.path);
            seen.push(&entry.path);
        }
        let command = entries.iter().find(|entry| entry.path == "ring3-exec").unwrap();
        assert_eq!(command.data, b"id");
    }

    #[test]
    fn the_same_input_gives_the_same_bytes() {
        assert_eq!(initrd(b"b", None), initrd(b"b", None));
        assert!(read(&initrd(b"b", None)).iter().all(|entry| entry.path != "ring3-exec"));
    }
}
