//! Images of all kinds, opened as a user opens them, beside `qemu-img`.

mod common;

use block::{Format, Image, OpenError, Options};
use common::{Waited, qemu_img, qemu_img_ok, refused};
use devices::disk::{Disk, DiskError, Request};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use tempfile::tempdir;

const MIB: u64 = 1 << 20;

fn options() -> Options {
    Options::default()
}

#[test]
fn qemu_img_finds_what_was_written() {
    let dir = tempdir().unwrap();
    let d = dir.path();
    for (kind, extra) in [("qcow2", ""), ("qcow2", " -o compat=0.10"), ("raw", "")] {
        qemu_img_ok(d, &format!("create -f {kind}{extra} a.img 8M"));
        let mut disk = Waited::open(&d.join("a.img"), &options(), true);
        let mut want = vec![0; 8 << 20];
        for at in [0, 65536 - 512, 3 * MIB, 8 * MIB - 512] {
            let data = vec![at as u8 ^ 0x5a; 512];
            want[at as usize..at as usize + 512].copy_from_slice(&data);
            disk.write(at, data);
        }
        assert_eq!(disk.serve(Request::Flush), Ok(vec![]));
        drop(disk);
        fs::write(d.join("want.img"), &want).unwrap();
        qemu_img_ok(d, &format!("compare -f {kind} -F raw a.img want.img"));
        if kind == "qcow2" {
            qemu_img_ok(d, "check a.img");
        }
        fs::remove_file(d.join("a.img")).unwrap();
    }
}

#[test]
fn what_was_flushed_is_in_the_file_while_the_image_is_open() {
    let dir = tempdir().unwrap();
    let d = dir.path();
    qemu_img_ok(d, "create -f qcow2 a.img 8M");
    let mut disk = Waited::open(&d.join("a.img"), &options(), true);
    disk.write(MIB, vec![9; 4096]);
    assert_eq!(disk.serve(Request::Flush), Ok(vec![]));
    // As after a kill: the copy is all that there is.
    fs::copy(d.join("a.img"), d.join("b.img")).unwrap();
    qemu_img_ok(d, "check b.img");
    let mut copy = Waited::open(&d.join("b.img"), &options(), false);
    assert_eq!(copy.read(MIB, 4096), vec![9; 4096]);
    let through = Options { cache: block::Cache::WriteThrough, ..options() };
    drop(disk);
    let mut disk = Waited::open(&d.join("a.img"), &through, true);
    disk.write(2 * MIB, vec![8; 512]);
    fs::copy(d.join("a.img"), d.join("c.img")).unwrap();
    let mut copy = Waited::open(&d.join("c.img"), &options(), false);
    assert_eq!(copy.read(2 * MIB, 512), vec![8; 512]);
}

#[test]
fn backing_files_show_through_and_stay_as_they_are() {
    let dir = tempdir().unwrap();
    let d = dir.path();
    fs::write(d.join("base.raw"), vec![1; 3 << 20]).unwrap();
    qemu_img_ok(d, "create -f qcow2 -b base.raw -F raw mid.img 4M");
    let mut mid = Waited::open(&d.join("mid.img"), &options(), true);
    mid.write(MIB, vec![2; 512]);
    drop(mid);
    qemu_img_ok(d, "create -f qcow2 -b mid.img -F qcow2 top.img");
    let image = Image::open(&d.join("top.img"), &options()).unwrap();
    let files: Vec<_> = ["top.img", "mid.img", "base.raw"].map(|n| d.join(n)).into();
    assert_eq!((&image.files, image.format, image.size()), (&files, Format::Qcow2, 4 * MIB));
    drop(image);
    let mut top = Waited::open(&d.join("top.img"), &options(), true);
    top.write(2 * MIB, vec![3; 512]);
    assert_eq!((top.read(0, 512), top.read(MIB, 512)), (vec![1; 512], vec![2; 512]));
    assert_eq!((top.read(2 * MIB, 512), top.read(3 * MIB, 512)), (vec![3; 512], vec![0; 512]));
    assert_eq!(top.read(2 * MIB + 512, 512), vec![1; 512]);
    let all = Request::WriteZeroes { offset: 0, len: MIB, unmap: true };
    assert_eq!(top.serve(all), Ok(vec![]));
    assert_eq!(top.read(0, 512), vec![0; 512], "the backing file does not show through");
    drop(top);
    qemu_img_ok(d, "check top.img");
    assert_eq!(fs::read(d.join("base.raw")).unwrap(), vec![1; 3 << 20]);
}

#[test]
fn a_snapshot_is_forgotten() {
    let dir = tempdir().unwrap();
    let d = dir.path();
    qemu_img_ok(d, "create -f qcow2 a.img 4M");
    // Not a number of sectors.
    fs::write(d.join("b.img"), vec![5; 70_000]).unwrap();
    for name in ["a.img", "b.img"] {
        let path = d.join(name);
        let before = fs::read(&path).unwrap();
        let snapshot = Options { snapshot: true, ..options() };
        let mut disk = Waited::open(&path, &snapshot, true);
        let last = disk.disk.len() - 512;
        let tail = disk.read(last, 512);
        disk.write(0, vec![7; 1024]);
        assert_eq!(disk.serve(Request::Flush), Ok(vec![]));
        assert_eq!((disk.read(0, 1024), disk.read(last, 512)), (vec![7; 1024], tail.clone()));
        disk.write(last, vec![7; 512]);
        assert_eq!(disk.read(last, 512), vec![7; 512]);
        // Several may look at the same image.
        let mut other = Waited::open(&path, &snapshot, true);
        assert_eq!(other.read(last, 512), tail);
        assert_ne!(other.read(0, 1024), vec![7; 1024]);
        drop((disk, other));
        assert_eq!(fs::read(&path).unwrap(), before);
    }
}

#[test]
fn read_only_images_refuse_writes_and_need_no_permission() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("a.img");
    fs::write(&path, vec![5; 4096]).unwrap();
    let read_only = Options { read_only: true, ..options() };
    let mut disk = Waited::open(&path, &read_only, true);
    assert!(disk.disk.is_read_only());
    assert_eq!(disk.read(0, 512), vec![5; 512]);
    let write = Request::Write { offset: 0, data: vec![0; 512] };
    assert_eq!(disk.serve(write), Err(DiskError::ReadOnly));
    assert_eq!(disk.serve(Request::Flush), Ok(vec![]));
}

/// A `qemu-io` that has opened its image, and waits.
fn qemu_io(folder: &Path, args: &str) -> Child {
    let mut run = Command::new("qemu-io");
    run.args(args.split(' ')).current_dir(folder);
    let mut child = run.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    writeln!(child.stdin.as_mut().unwrap(), "length").unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(!line.is_empty());
    child
}

/// The end of its input ends it.
fn end(child: &mut Child) {
    child.stdin = None;
    assert!(child.wait().unwrap().success());
}

#[test]
fn nobody_else_opens_an_image_that_is_written() {
    let dir = tempdir().unwrap();
    let d = dir.path();
    for kind in ["raw", "qcow2"] {
        qemu_img_ok(d, &format!("create -f {kind} a.img 1M"));
        let path = d.join("a.img");
        let read_only = Options { read_only: true, ..options() };
        let disk = Waited::open(&path, &options(), true);
        let out = qemu_img(d, &format!("convert -f {kind} -O raw a.img b.img"));
        assert!(String::from_utf8_lossy(&out.stderr).contains("lock"), "{out:?}");
        for o in [&options(), &read_only] {
            let e = refused(&path, o);
            assert!(matches!(e, OpenError::Locked(..)), "{e}");
            assert_eq!(e.to_string(), format!("{}: another process is writing it", path.display()));
        }
        drop(disk);
        let disk = Waited::open(&path, &read_only, true);
        qemu_img_ok(d, &format!("convert -f {kind} -O raw a.img b.img"));
        let out = qemu_img(d, &format!("resize -f {kind} a.img 2M"));
        assert!(String::from_utf8_lossy(&out.stderr).contains("lock"), "{out:?}");
        assert!(matches!(refused(&path, &options()), OpenError::Locked(..)));
        drop(disk);
        qemu_img_ok(d, &format!("resize -f {kind} a.img 2M"));
        // The other way round: QEMU has it open.
        let mut qemu = qemu_io(d, &format!("-f {kind} a.img"));
        assert!(matches!(refused(&path, &options()), OpenError::Locked(..)));
        assert!(matches!(refused(&path, &read_only), OpenError::Locked(..)));
        end(&mut qemu);
        let mut qemu = qemu_io(d, &format!("-r -f {kind} a.img"));
        drop(Waited::open(&path, &read_only, false));
        end(&mut qemu);
        fs::remove_file(path).unwrap();
    }
}

/// An image, changed as the row says; opening it must fail with these words.
#[test]
fn what_is_wrong_with_an_image_is_told() {
    let dir = tempdir().unwrap();
    let d = dir.path();
    let poke = |name: &str, at: u64, bytes: &[u8]| {
        let f = File::options().write(true).open(d.join(name)).unwrap();
        f.write_all_at(bytes, at).unwrap();
    };
    let cut = |name: &str, len: u64| {
        File::options().write(true).open(d.join(name)).unwrap().set_len(len).unwrap();
    };
    let l1_of = |name: &str| {
        let mut at = [0; 8];
        File::open(d.join(name)).unwrap().read_exact_at(&mut at, 40).unwrap();
        u64::from_be_bytes(at)
    };
    type Damage<'a> = Box<dyn Fn() + 'a>;
    let rows: Vec<(&str, Damage, &str)> = vec![
        ("cut", Box::new(|| cut("cut", 60)), "truncated: the header"),
        ("cut2", Box::new(|| cut("cut2", 65536)), "truncated: the refcount table"),
        ("cut3", Box::new(|| cut("cut3", 5 * 65536)), "truncated: a cluster lies beyond"),
        ("old", Box::new(|| poke("old", 4, &[0, 0, 0, 1])), "not supported: version 1 of qcow2"),
        ("crypt", Box::new(|| poke("crypt", 32, &[0, 0, 0, 2])), "encrypted, which is not supp"),
        ("dirty", Box::new(|| poke("dirty", 79, &[1])), "corrupt: it was not closed"),
        ("marked", Box::new(|| poke("marked", 79, &[2])), "corrupt: it is marked so"),
        ("data", Box::new(|| poke("data", 79, &[4])), "not supported: an external data file"),
        ("new", Box::new(|| poke("new", 72, &[1])), "incompatible feature 56 of qcow2"),
        ("big", Box::new(|| poke("big", 20, &[0, 0, 0, 30])), "corrupt: clusters of 2^30 bytes"),
        ("l1", Box::new(|| poke("l1", l1_of("l1"), &[0, 0, 1])), "truncated: an L2 table"),
        ("l1odd", Box::new(|| poke("l1odd", l1_of("l1odd") + 6, &[2])), "corrupt: an L2 table at"),
        ("size", Box::new(|| poke("size", 24, &[0, 1])), "entries in the L1 table"),
        ("odd", Box::new(|| poke("odd", 31, &[1])), "is no multiple of 512"),
        ("fifo", Box::new(|| ()), "there is no such file"),
    ];
    for (name, damage, words) in rows {
        if name != "fifo" {
            qemu_img_ok(d, &format!("create -f qcow2 {name} 64M"));
            Waited::open(&d.join(name), &options(), false).write(0, vec![1; 512]);
        }
        damage();
        let e = refused(&d.join(name), &options()).to_string();
        assert!(e.contains(words) && e.starts_with(d.join(name).to_str().unwrap()), "{name}: {e}");
        let is_line = !e.contains('\n');
        assert!(is_line, "{e}");
    }
    assert!(matches!(refused(d, &options()), OpenError::NoImage(_, "a directory")));
    let null = refused("/dev/null".as_ref(), &options());
    assert!(matches!(null, OpenError::NoImage(..)), "{null}");
    let raw = Options { format: Some(Format::Qcow2), ..options() };
    fs::write(d.join("raw"), vec![1; 4096]).unwrap();
    assert!(matches!(refused(&d.join("raw"), &raw), OpenError::Corrupt(..)));
}

#[test]
fn backing_files_may_be_missing_or_form_a_loop() {
    let dir = tempdir().unwrap();
    let d = dir.path();
    qemu_img_ok(d, "create -f qcow2 a.img 1M");
    qemu_img_ok(d, "create -f qcow2 -b a.img -F qcow2 b.img");
    qemu_img_ok(d, "rebase -u -b b.img -F qcow2 a.img");
    for o in [options(), Options { snapshot: true, ..options() }] {
        assert!(
            matches!(refused(&d.join("b.img"), &o), OpenError::Loop(p) if p.ends_with("b.img"))
        );
    }
    qemu_img_ok(d, "rebase -u -b a.img -F qcow2 a.img");
    assert!(matches!(refused(&d.join("a.img"), &options()), OpenError::Loop(_)));
    qemu_img_ok(d, "rebase -u -b none.img -F qcow2 a.img");
    let e = refused(&d.join("a.img"), &options());
    let OpenError::BackingMissing { image, backing } = &e else { panic!("{e}") };
    assert_eq!((image, backing), (&d.join("a.img"), &d.join("none.img")));
    qemu_img_ok(d, "rebase -u -b nbd://localhost -F raw a.img");
    assert!(matches!(refused(&d.join("a.img"), &options()), OpenError::Unsupported(..)));
    qemu_img_ok(d, "rebase -u -b b.img -F vmdk a.img");
    assert!(matches!(refused(&d.join("a.img"), &options()), OpenError::Unsupported(..)));
}

#[test]
fn compressed_images_are_read_and_written() {
    let dir = tempdir().unwrap();
    let d = dir.path();
    let bytes: Vec<u8> = (0..1_u32 << 20).map(|n| (n / 700) as u8).collect();
    fs::write(d.join("a.raw"), &bytes).unwrap();
    qemu_img_ok(d, "convert -f raw -O qcow2 -c a.raw a.img");
    let mut disk = Waited::open(&d.join("a.img"), &options(), true);
    assert_eq!(disk.read(0, 1 << 20), bytes);
    disk.write(4096, vec![0xee; 512]);
    assert_eq!(disk.read(3584, 512), bytes[3584..4096]);
    drop(disk);
    qemu_img_ok(d, "check a.img");
}

#[test]
fn holes_give_room_back() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempdir().unwrap();
    let path = dir.path().join("a.img");
    fs::write(&path, vec![5; 8 << 20]).unwrap();
    let blocks = || fs::metadata(&path).unwrap().blocks();
    let before = blocks();
    let mut disk = Waited::open(&path, &options(), true);
    assert_eq!(disk.serve(Request::Discard { offset: 0, len: 4 << 20 }), Ok(vec![]));
    let zero = Request::WriteZeroes { offset: 4 << 20, len: 2 << 20, unmap: true };
    assert_eq!(disk.serve(zero), Ok(vec![]));
    assert_eq!(disk.serve(Request::Flush), Ok(vec![]));
    assert!(blocks() <= before / 2, "{} of {before}", blocks());
    assert_eq!((disk.read(4 << 20, 512), disk.read(6 << 20, 512)), (vec![0; 512], vec![5; 512]));
    assert_eq!(fs::metadata(&path).unwrap().len(), 8 << 20);
}

#[test]
fn what_qemu_img_makes_is_opened() {
    let dir = tempdir().unwrap();
    let d = dir.path();
    let rows = [
        "create -f qcow2 -o preallocation=metadata a.img 4M",
        "create -f qcow2 -o preallocation=falloc a.img 4M",
        "create -f qcow2 -o preallocation=full a.img 4M",
        "create -f qcow2 -o lazy_refcounts=on a.img 4M",
        "create -f qcow2 -o cluster_size=2M a.img 4M",
        "create -f qcow2 -o refcount_bits=64 a.img 4M",
        "create -f qcow2 -o cluster_size=512,refcount_bits=1 a.img 4M",
    ];
    for row in rows {
        qemu_img_ok(d, row);
        let open = || Waited::open(&d.join("a.img"), &options(), true);
        open().write(MIB, vec![1; 4096]);
        if !row.contains("refcount_bits=1 ") {
            qemu_img_ok(d, "snapshot -c before a.img");
        }
        qemu_img_ok(d, "resize a.img 5M");
        let mut disk = open();
        disk.write(MIB, vec![2; 512]);
        disk.write(4 * MIB + 512, vec![3; 512]);
        assert_eq!(disk.read(MIB, 1024), [[2; 512], [1; 512]].concat());
        drop(disk);
        qemu_img_ok(d, "check a.img");
        if !row.contains("refcount_bits=1 ") {
            qemu_img_ok(d, "snapshot -a before a.img");
            assert_eq!(open().read(MIB, 1024), vec![1; 1024]);
            qemu_img_ok(d, "check a.img");
        }
        fs::remove_file(d.join("a.img")).unwrap();
    }
}
