//! Locks on images, which QEMU and its tools understand.
//!
//! They are locks of open file descriptions (`F_OFD_SETLK`), shared ones, on single bytes that
//! mean something by their place: byte 100 + n says "I do n", byte 200 + n says "nobody else may
//! do n". Who opens an image first locks its own bytes, then looks whether anybody holds the
//! opposite ones. The n are QEMU's block permissions: 0 consistent reads, 1 writes, 3 resizes.
//! Other processes may always read while nobody writes; nobody may write or resize what we use.
//! A file system without locks goes without.
//!
//! A lock is given up by hand, not by closing the file alone: a process that another thread is just
//! starting has our files too, until it becomes another program.
//!
//! Source: QEMU's behaviour (block/file-posix.c), fcntl_locking(2).

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use std::fs::File;
use std::io;

const DOES: i64 = 100;
const FORBIDS: i64 = 200;
const READ: i64 = 0;
const WRITE: i64 = 1;
const RESIZE: i64 = 3;

/// A file that is locked until this is dropped.
#[derive(Debug)]
pub(crate) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        let all = libc::flock { l_len: FORBIDS, ..byte(libc::F_UNLCK, DOES) };
        // A file system without locks has none to give up.
        let _ = fcntl(&self.0, FcntlArg::F_OFD_SETLK(&all));
    }
}

fn byte(kind: i32, at: i64) -> libc::flock {
    libc::flock {
        l_type: kind as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: at,
        l_len: 1,
        l_pid: 0,
    }
}

/// Locks `file` for reading, or for writing too.
///
/// # Errors
/// What another process does or forbids; or there is no second handle of the file.
pub(crate) fn lock(file: &File, writes: bool) -> io::Result<Result<Lock, &'static str>> {
    let lock = Lock(file.try_clone()?);
    let does: &[i64] = if writes { &[READ, WRITE, RESIZE] } else { &[READ] };
    let forbids = [WRITE, RESIZE];
    let own = does.iter().map(|n| DOES + n).chain(forbids.map(|n| FORBIDS + n));
    for at in own {
        match fcntl(file, FcntlArg::F_OFD_SETLK(&byte(libc::F_RDLCK, at))) {
            Err(Errno::EAGAIN | Errno::EACCES) => return Ok(Err("has locked it")),
            // The file system has no locks.
            Err(_) => return Ok(Ok(lock)),
            Ok(_) => {}
        }
    }
    let held = |at: i64| {
        let mut probe = byte(libc::F_WRLCK, at);
        let asked = fcntl(file, FcntlArg::F_OFD_GETLK(&mut probe));
        asked.is_ok() && probe.l_type != libc::F_UNLCK as i16
    };
    if forbids.iter().any(|n| held(DOES + n)) {
        return Ok(Err("is writing it"));
    }
    if does.iter().any(|n| held(FORBIDS + n)) {
        return Ok(Err("uses it and lets nobody write"));
    }
    Ok(Ok(lock))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_read_or_one_writes() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let open = |writes| {
            let file = File::options().read(true).write(true).open(file.path()).unwrap();
            lock(&file, writes).unwrap()
        };
        let (a, b) = (open(false), open(false));
        assert!(a.is_ok() && b.is_ok());
        assert_eq!(open(true).err(), Some("uses it and lets nobody write"));
        drop((a, b));
        let a = open(true);
        assert!(a.is_ok());
        let writing = Some("is writing it");
        assert_eq!((open(true).err(), open(false).err()), (writing, writing));
        drop(a);
        assert!(open(true).is_ok(), "the locks went with the files");
    }

    #[test]
    fn a_lock_is_given_up_though_the_file_is_open_elsewhere() {
        let file = tempfile::tempfile().unwrap();
        let lock = lock(&file, true).unwrap();
        let elsewhere = file.try_clone().unwrap();
        drop(lock);
        let mut probe = byte(libc::F_WRLCK, DOES + WRITE);
        // Asked by an owner of another kind: this process.
        fcntl(&elsewhere, FcntlArg::F_GETLK(&mut probe)).unwrap();
        assert_eq!(probe.l_type, libc::F_UNLCK as i16);
    }
}
