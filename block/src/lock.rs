//! Locks on images, which QEMU and its tools understand.
//!
//! They are locks of open file descriptions (`F_OFD_SETLK`), shared ones, on single bytes that
//! mean something by their place: byte 100 + n says "I do n", byte 200 + n says "nobody else may
//! do n". Who opens an image first locks its own bytes, then looks whether anybody holds the
//! opposite ones. The n are QEMU's block permissions: 0 consistent reads, 1 writes, 3 resizes.
//! Other processes may always read while nobody writes; nobody may write or resize what we use.
//! A file system without locks goes without.
//!
//! Source: QEMU's behaviour (block/file-posix.c), fcntl_locking(2).

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use std::fs::File;

const DOES: i64 = 100;
const FORBIDS: i64 = 200;
const READ: i64 = 0;
const WRITE: i64 = 1;
const RESIZE: i64 = 3;

fn byte(kind: i32, at: i64) -> libc::flock {
    libc::flock {
        l_type: kind as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: at,
        l_len: 1,
        l_pid: 0,
    }
}

/// Locks `file` for reading, or for writing too, for as long as it is open.
///
/// # Errors
/// What another process does or forbids.
pub(crate) fn lock(file: &File, writes: bool) -> Result<(), &'static str> {
    let does: &[i64] = if writes { &[READ, WRITE, RESIZE] } else { &[READ] };
    let forbids = [WRITE, RESIZE];
    let own = does.iter().map(|n| DOES + n).chain(forbids.map(|n| FORBIDS + n));
    for at in own {
        match fcntl(file, FcntlArg::F_OFD_SETLK(&byte(libc::F_RDLCK, at))) {
            Err(Errno::EAGAIN | Errno::EACCES) => return Err("has locked it"),
            // The file system has no locks.
            Err(_) => return Ok(()),
            Ok(_) => {}
        }
    }
    let held = |at: i64| {
        let mut probe = byte(libc::F_WRLCK, at);
        let asked = fcntl(file, FcntlArg::F_OFD_GETLK(&mut probe));
        asked.is_ok() && probe.l_type != libc::F_UNLCK as i16
    };
    if forbids.iter().any(|n| held(DOES + n)) {
        return Err("is writing it");
    }
    if does.iter().any(|n| held(FORBIDS + n)) {
        return Err("uses it and lets nobody write");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_read_or_one_writes() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let open = || File::options().read(true).write(true).open(file.path()).unwrap();
        let (a, b, c) = (open(), open(), open());
        assert_eq!((lock(&a, false), lock(&b, false)), (Ok(()), Ok(())));
        assert_eq!(lock(&c, true), Err("uses it and lets nobody write"));
        drop((a, b, c));
        let (a, b, c) = (open(), open(), open());
        assert_eq!(lock(&a, true), Ok(()));
        assert_eq!((lock(&b, true), lock(&c, false)), (Err("is writing it"), Err("is writing it")));
        drop((a, b, c));
        assert_eq!(lock(&open(), true), Ok(()), "the locks went with the files");
    }
}
