//! `--lockstep`: both engines on one guest, one output.

mod program;

use program::{ECHO, Folder, HI, TRIPLE_FAULT, ring3, ring3_with};

/// Whether this host has a code generator: where it has none, a line says so.
fn possible() -> bool {
    machine::host_translator().is_some()
}

#[test]
fn both_engines_run_and_one_output_is_printed() {
    if !possible() {
        let out = ring3(&["demo", "--lockstep"]);
        assert_eq!((out.status, out.stderr.lines().count()), (Some(1), 1), "{}", out.stderr);
        return;
    }
    let [one, both] = [&["demo"][..], &["demo", "--lockstep", "--stats"]].map(ring3);
    assert_eq!((both.status, both.stdout), (Some(0), one.stdout), "{}", both.stderr);
    for counter in ["native blocks", "lockstep comparisons"] {
        let line = both.stderr.lines().find(|l| l.starts_with(counter)).unwrap();
        assert_ne!(line.split_whitespace().last(), Some("0"), "{line}");
    }
}

#[test]
fn input_reaches_both() {
    if !possible() {
        return;
    }
    let folder = Folder::new("lockstep-input");
    let mut five = vec![0xb9, 5, 0];
    // Five bytes, then a triple fault: mov cx, 5; the loop of `ECHO`; loop.
    five.extend_from_slice(&ECHO[..ECHO.len() - 2]);
    five.extend_from_slice(&[0xe2, 0xf1]);
    let rom = folder.rom("rom", &[&five, HI, TRIPLE_FAULT].concat());
    let out = ring3_with(&["run", "--bios", &rom, "--lockstep", "--timeout", "60"], b"echo!");
    assert_eq!((out.status, out.stdout.as_str()), (Some(2), "echo!hi\n"), "{}", out.stderr);
}

#[test]
fn what_does_not_go_together_is_refused() {
    for with in [&["--engine", "jit"][..], &["--trace", "exc"]] {
        let out = ring3(&[&["demo", "--lockstep"], with].concat());
        assert_eq!((out.status, out.stderr.lines().count()), (Some(64), 1), "{}", out.stderr);
    }
    let folder = Folder::new("lockstep-audit");
    let out = ring3(&["audit", "--bios", &folder.rom("rom", HI), "--lockstep"]);
    assert_eq!(out.status, Some(64), "{}", out.stderr);
    assert!(out.stderr.contains("audit"), "{}", out.stderr);
}
