//! The guests' files: Debian's cloud kernel and an initrd with a first process of our own.
//!
//! The initrd is that of `ring3 linux` with a second archive behind it, whose `/init` takes the
//! place of the first one's. It is compressed, as the initrds of distributions are.

use super::emulator::Guest;
use super::{MARKER, target};
use anyhow::Context;
use flate2::{Compression, write::GzEncoder};
use ring3::debian::{Cpio, Options, linux_guest};
use std::io::Write;

/// The first process: says that it is there, runs `command` in `/bench`, and powers off. Only a
/// console's last close waits until all output has left.
fn init(command: &str) -> String {
    format!(
        "#!/bin/sh\n\
         echo {MARKER}\n\
         cd /bench\n\
         {command}\n\
         exec </dev/null >/dev/null 2>&1\n\
         /bin/busybox poweroff -f\n"
    )
}

/// A guest called `name` that runs `command` in a folder with `files`, with the kernel command line
/// `append`, or else that of `ring3 linux`.
pub fn guest(
    name: &str,
    files: &[(&str, Vec<u8>)],
    command: &str,
    append: Option<&str>,
) -> anyhow::Result<Guest> {
    let linux = linux_guest(&Options::default())?;
    let mut second = Cpio::default();
    second.dir("bench", 0o755);
    for (name, bytes) in files {
        second.file(&format!("bench/{name}"), 0o755, bytes);
    }
    second.file("init", 0o755, init(command).as_bytes());
    let mut initrd = GzEncoder::new(Vec::new(), Compression::default());
    initrd.write_all(&linux.initrd)?;
    initrd.write_all(&second.finish())?;

    let folder = target()?.join("bench").join(name);
    std::fs::create_dir_all(&folder)
        .and_then(|()| std::fs::write(folder.join("vmlinuz"), linux.kernel))
        .and_then(|()| std::fs::write(folder.join("initrd.gz"), initrd.finish()?))
        .with_context(|| format!("cannot write to {}", folder.display()))?;
    Ok(Guest {
        kernel: folder.join("vmlinuz"),
        initrd: folder.join("initrd.gz"),
        version: linux.kernel_version,
        append: append.map_or(linux.append, str::to_owned),
    })
}
