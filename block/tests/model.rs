//! Random requests on images of all kinds, against bytes in memory; then `qemu-img` looks.

mod common;

use block::Options;
use common::{Rng, Waited, qemu_img_ok};
use devices::disk::{DiskError, Request};
use std::fs;
use std::path::Path;
use tempfile::tempdir;

const LEN: u64 = 2 << 20;
const SECTORS: u64 = LEN / 512;

/// Throws `count` requests at a disk that begins as `model`.
fn torture(disk: &mut Waited, model: &mut [u8], rng: &mut Rng, count: usize) {
    for _ in 0..count {
        let offset = rng.below(SECTORS) * 512;
        let limit = if rng.below(8) == 0 { 1000 } else { 20 };
        let len = (1 + rng.below(limit)) * 512;
        let outside = offset + len > LEN;
        let range = offset as usize..((offset + len).min(LEN)) as usize;
        let result = match rng.below(16) {
            0 => disk.serve(Request::Flush),
            1 => {
                let result = disk.serve(Request::Discard { offset, len });
                // Each sector is as it was, or zero.
                let now = disk.read(range.start as u64, range.len());
                for (old, new) in model[range].chunks_mut(512).zip(now.chunks(512)) {
                    assert!(new == &*old || new == [0; 512], "{offset:#x} {len:#x}");
                    assert!(!outside || new == &*old, "nothing happens outside");
                    old.copy_from_slice(new);
                }
                result
            }
            2 | 3 => {
                let unmap = rng.below(2) == 0;
                if !outside {
                    model[range].fill(0);
                }
                disk.serve(Request::WriteZeroes { offset, len, unmap })
            }
            4..=9 => {
                let seed = rng.next();
                let data: Vec<u8> =
                    (0..len).map(|n| (seed >> (n % 48 / 8)) as u8 ^ n as u8).collect();
                if !outside {
                    model[range].copy_from_slice(&data);
                }
                disk.serve(Request::Write { offset, data })
            }
            _ => {
                let result = disk.serve(Request::Read { offset, len: len as usize });
                assert!(
                    outside || result.as_ref().unwrap() == &model[range],
                    "{offset:#x} {len:#x}"
                );
                result.map(|_| vec![])
            }
        };
        let flush = result.is_ok() && outside;
        assert!(flush || result == if outside { Err(DiskError::OutOfRange) } else { Ok(vec![]) });
    }
}

fn play(d: &Path, name: &str, model: &mut Vec<u8>, seed: u64, snapshot: bool) {
    let mut rng = Rng(seed);
    for round in 0..4 {
        let before = model.clone();
        let options = Options { snapshot, ..Options::default() };
        let mut disk = Waited::open(&d.join(name), &options, round % 2 == 0);
        torture(&mut disk, model, &mut rng, 400);
        assert!(disk.read(0, LEN as usize) == *model);
        drop(disk);
        if snapshot {
            *model = before;
        }
        fs::write(d.join("model.raw"), &*model).unwrap();
        let kind = if name.ends_with("raw") { "raw" } else { "qcow2" };
        qemu_img_ok(d, &format!("compare -f {kind} -F raw {name} model.raw"));
        if kind == "qcow2" {
            qemu_img_ok(d, &format!("check {name}"));
        }
    }
}

#[test]
fn raw() {
    let dir = tempdir().unwrap();
    let mut model = vec![0x11; LEN as usize];
    fs::write(dir.path().join("a.raw"), &model).unwrap();
    play(dir.path(), "a.raw", &mut model, 1, false);
}

#[test]
fn qcow2() {
    let dir = tempdir().unwrap();
    for (n, o) in ["cluster_size=64k", "cluster_size=512", "compat=0.10", "refcount_bits=1"]
        .iter()
        .enumerate()
    {
        qemu_img_ok(dir.path(), &format!("create -f qcow2 -o {o} {n}.img {LEN}"));
        play(dir.path(), &format!("{n}.img"), &mut vec![0; LEN as usize], 2 + n as u64, false);
    }
}

#[test]
fn qcow2_on_a_backing_file() {
    let dir = tempdir().unwrap();
    let mut model: Vec<u8> = (0..LEN).map(|n| (n / 512) as u8).collect();
    let base = model.clone();
    fs::write(dir.path().join("base.raw"), &model).unwrap();
    qemu_img_ok(dir.path(), "create -f qcow2 -b base.raw -F raw a.img");
    play(dir.path(), "a.img", &mut model, 9, false);
    assert!(fs::read(dir.path().join("base.raw")).unwrap() == base);
}

#[test]
fn snapshots() {
    let dir = tempdir().unwrap();
    let mut model: Vec<u8> = (0..LEN).map(|n| (n / 1024) as u8).collect();
    fs::write(dir.path().join("a.raw"), &model).unwrap();
    play(dir.path(), "a.raw", &mut model, 10, true);
    qemu_img_ok(dir.path(), "convert -f raw -O qcow2 a.raw b.img");
    play(dir.path(), "b.img", &mut model, 11, true);
}
