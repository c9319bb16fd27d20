//! What users get wrong: each case is one line on standard error and the right exit status, and no
//! file is touched.

mod program;

use program::{Folder, command, ring3};
use std::os::unix::fs::PermissionsExt;

#[track_caller]
fn refused(arguments: &[&str], status: i32, says: &str) {
    let out = ring3(arguments);
    assert_eq!(out.status, Some(status), "{arguments:?}: {}", out.stderr);
    assert!(out.stderr.contains(says), "{arguments:?}: {}", out.stderr);
    assert_eq!(out.stderr.lines().count(), 1, "{arguments:?}: {}", out.stderr);
    assert_eq!(out.stdout, "", "{arguments:?}");
}

#[test]
fn command_lines_that_make_no_sense() {
    for (arguments, says) in [
        (&["fly"][..], "fly"),
        (&["run", "--append", "x"], "--kernel"),
        (&["run", "--module", "m"], "--kernel"),
        (&["run", "--drive", "file=a,if=scsi"], "ide, virtio, nvme, floppy"),
        (&["run", "--drive", "if=virtio"], "needs a file="),
        (&["run", "--boot", "order=xyz"], "order=LETTERS"),
        (&["run", "--display", "gtk"], "vnc=ADDRESS"),
        (&["run", "--display", "terminal", "--serial", "stdio"], "cannot share the terminal"),
        (&["run", "--nothing"], "--nothing"),
        (&["run", "--kernel", "k", "--engine", "warp"], "interp, jit or auto"),
        (&["run", "--kernel", "k", "--clock", "sun"], "icount"),
        (&["run", "--kernel", "k", "-m", "0"], "at least 2M"),
        (&["run", "--kernel", "k", "-m", "1K"], "at least 2M"),
        (&["run", "--kernel", "k", "-m", "lots"], "number"),
        (&["run", "--kernel", "k", "--timeout", "0"], "more than 0"),
        (&["run", "--kernel", "k", "--timeout", "soon"], "seconds"),
        (&["run", "--kernel", "k", "--serial", "pty"], "file:PATH"),
        (&["run", "--kernel", "k", "--stats=xml"], "json"),
        (&["run", "--kernel", "k", "--trace", "all"], "insn"),
        (&["run", "--kernel", "k", "--trace-file", "t"], "--trace"),
        (&["run", "--kernel", "k", "--device", "e1000"], "isa-debug-exit"),
        (&["run", "--kernel", "k", "--bios", "b"], "--bios"),
        (&["run", "--initrd", "i", "--bios", "b"], "--bios"),
        (&["run", "--append", "x", "--bios", "b"], "--bios"),
        (&["run", "--kernel", "k", "--cpu", "core3"], "no CPU model 'core3', but core2"),
        (&["run", "--kernel", "k", "--cpu", "max,+avx3"], "no CPU feature 'avx3', but avx"),
        (&["run", "--kernel", "k", "--cpu", "max,avx"], "+FEATURE or -FEATURE"),
        (&["run", "--kernel", "k", "--cpu", "max,+avx,-sse"], "avx needs sse"),
        (&["linux", "--cpu", "pentium3"], "with lm, not pentium3; --arch i386-pae or i386"),
        (&["linux", "--cpu", "core2,-nx,-pae,-lm"], "--arch i386 would do"),
        (&["linux", "--cpu", "pentium", "--arch", "i386"], "with nopl, not pentium"),
        (&["linux", "--arch", "arm64"], "i386-pae"),
        (&["diff", "--cpu", "pentium"], "64-bit mode"),
        (&["lift", "--cpu", "z80", "90"], "no CPU model"),
        (&["lift", "--bits", "8", "90"], "64"),
        (&["lift", "xyz"], "hexadecimal"),
        (&["lift", ""], "no code"),
    ] {
        refused(arguments, 64, says);
    }
    let folder = Folder::new("usage");
    let rom = folder.rom("rom", program::HALT);
    for (more, says) in [
        (&["--serial", "stdio", "--serial", "stdio"][..], "only one"),
        (&["--serial", "null", "--serial", "null", "--serial", "null"], "at most 2"),
        (&["--device", "isa-debug-exit", "--device", "isa-debug-exit"], "once"),
    ] {
        refused(&[&["run", "--bios", &rom], more].concat(), 64, says);
    }
}

#[test]
fn cpu_help_lists_models_and_features() {
    let first = ring3(&["run", "--cpu", "help"]);
    assert_eq!((first.status, first.stderr.as_str()), (Some(0), ""));
    for word in ["i486", "pentium3", "x86-64-v3", "max", "sse4_2", "pni (sse3)", "lm"] {
        assert!(first.stdout.contains(word), "{word}: {}", first.stdout);
    }
    for command in ["linux", "demo", "lift", "diff"] {
        assert_eq!(ring3(&[command, "--cpu", "help"]).stdout, first.stdout, "{command}");
    }
}

#[test]
fn what_the_cpu_lacks_is_shown_as_a_fault() {
    let lift = |cpu| ring3(&["lift", "--cpu", cpu, "c5 f0 58 c2"]).stdout;
    assert!(lift("core2").contains("raise 0x6"), "{}", lift("core2"));
    assert!(!lift("x86-64-v3").contains("raise"), "{}", lift("x86-64-v3"));
}

#[test]
fn no_command_shows_the_help() {
    let out = ring3(&[]);
    assert_eq!(out.status, Some(64));
    assert!(out.stderr.contains("Usage:") && out.stderr.contains("linux"), "{}", out.stderr);
    let out = ring3(&["run", "--help"]);
    assert_eq!((out.status, out.stderr.as_str()), (Some(0), ""));
    for word in ["--kernel", "--memory", "--serial", "Exit status", "124"] {
        assert!(out.stdout.contains(word), "{word}");
    }
}

#[test]
fn files_that_are_no_kernels() {
    let folder = Folder::new("kernels");
    let mut bzimage = vec![0; 4096];
    bzimage[0x1f1] = 4;
    bzimage[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    bzimage[0x200..0x208].copy_from_slice(b"\xeb\x66HdrS\x0f\x02");
    let elf = [b"\x7fELF\x01\x01\x01", &[0; 200][..]].concat();
    for (name, bytes) in [
        ("empty", &b""[..]),
        ("text", b"hello, world\n"),
        ("gzip", b"\x1f\x8b\x08\0\0\0\0\0"),
        ("short-bzimage", &bzimage),
        ("short-elf", &elf),
        ("zeros", &[0; 100_000]),
    ] {
        let path = folder.file(name, bytes);
        refused(&["run", "--kernel", &path], 1, name);
    }
    refused(&["run", "--kernel", &folder.path("missing")], 1, "No such file");
    refused(&["run", "--kernel", &folder.path("")], 1, "directory");
    refused(&["run", "--kernel", "/dev/zero", "-m", "16M"], 1, "larger than the memory");
    refused(&["run", "--bios", &folder.file("odd", &[0; 100])], 1, "4 KiB");
    let rom = folder.rom("rom", program::HALT);
    refused(&["run", "--bios", &rom, "-m", "60000G"], 1, "this host has");
    let line = format!("ulimit -v 300000; exec {} run --bios {rom} -m 512M", program::PROGRAM);
    let out = std::process::Command::new("sh").args(["-c", &line]).output().unwrap();
    let text = String::from_utf8_lossy(&out.stderr);
    assert_eq!((out.status.code(), text.matches("os error").count()), (Some(1), 1), "{text}");
    assert!(text.starts_with("ring3: cannot reserve 512 MiB"), "{text}");
    let kernel = folder.file("k", b"no kernel");
    refused(&["run", "--kernel", &kernel, "--initrd", &folder.path("none")], 1, "initrd");
}

#[test]
fn nothing_is_overwritten_when_something_is_wrong() {
    let folder = Folder::new("outputs");
    let rom = folder.rom("rom", program::HALT);
    let precious = folder.file("precious", b"precious");
    let end = format!("file:{precious}");
    let kept = || std::fs::read(&precious).unwrap() == b"precious";

    let bad = folder.file("bad", b"no kernel");
    refused(&["run", "--kernel", &bad, "--serial", &end], 1, "bad");
    assert!(kept());
    let nowhere = format!("file:{}/no/where", folder.path(""));
    refused(&["run", "--bios", &rom, "--serial", &end, "--debugcon", &nowhere], 1, "debug console");
    assert!(kept());
    let trace = ["--trace", "io", "--trace-file", &nowhere];
    refused(&[&["run", "--bios", &rom, "--serial", &end], &trace[..]].concat(), 1, "trace");
    assert!(kept());
    refused(&["run", "--bios", &rom, "--serial", &end, "--debugcon", &end], 64, "in use");
    assert!(kept());
    refused(&["run", "--bios", &rom, "--serial", &format!("file:{rom}")], 1, "is an input");
    assert_eq!(std::fs::read(&rom).unwrap().len(), 65536);

    std::fs::set_permissions(&precious, PermissionsExt::from_mode(0o444)).unwrap();
    // Permissions do not stop root.
    if std::fs::OpenOptions::new().write(true).open(&precious).is_err() {
        refused(&["run", "--bios", &rom, "--serial", &end], 1, "Permission denied");
        assert!(kept());
    }
}

/// Listings into a pipe that nobody reads any more (`ring3 diff --exclusions | head -1`).
#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let all: [&[&str]; 3] = [&["diff", "--exclusions"], &["audit", "--all"], &["lift", "90"]];
    for arguments in all {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let out = command(arguments).stdout(writer).output().unwrap();
        let (status, stderr) = (out.status.code(), String::from_utf8_lossy(&out.stderr));
        assert_eq!((status, &*stderr), (Some(0), ""), "{arguments:?}");
    }
}
