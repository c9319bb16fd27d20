//! `ring3 linux` where its files cannot be fetched: one line that says why, and nothing half done
//! in the cache.

mod program;

use program::{Folder, Run, command};
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// Runs `ring3 linux` with an empty cache and only the programs in `folder`.
fn linux(folder: &Folder) -> Run {
    let mut command = command(&["linux", "--exec", "true"]);
    let cache = folder.path("cache");
    command.env("PATH", folder.path("")).env("RING3_CACHE", &cache).output().unwrap().into()
}

#[test]
fn without_apt_it_says_what_it_needs() {
    let out = linux(&Folder::new("no-apt"));
    assert_eq!(out.status, Some(1));
    assert!(out.stderr.contains("needs apt-get") && out.stderr.contains("--kernel vmlinuz"));
    assert_eq!(out.stderr.lines().count(), 1, "{}", out.stderr);
}

#[test]
fn a_download_that_breaks_off_is_not_taken_for_a_package() {
    let folder = Folder::new("broken-apt");
    let record = "echo Package: linux-image-cloud-amd64; echo Filename: x";
    let broken = "echo part >x.deb; echo 'E: No space left on device' >&2; exit 100";
    for (name, text) in [("apt-cache", record), ("apt-get", broken)] {
        let path = folder.file(name, format!("#!/bin/sh\n{text}\n").as_bytes());
        fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    }
    let out = linux(&folder);
    assert_eq!(out.status, Some(1), "{}", out.stderr);
    let last = out.stderr.lines().last().unwrap();
    assert!(last.contains("cannot fetch") && last.contains("No space left on device"), "{last}");
    assert!(!fs::exists(folder.path("cache/linux-image-cloud-amd64.deb")).unwrap());
}
