//! How a run ends, and what the exit status says of it.

mod program;

use program::{DEBUG_EXIT, ECHO, Folder, HALT, HI, POWER_OFF, RESET, SPAM, TRIPLE_FAULT};
use program::{command, finish, ring3, ring3_with};
use rustix::process::{Pid, Signal, kill_process};
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;

#[test]
fn the_guest_ends_the_run() {
    let folder = Folder::new("guest-ends");
    let run = |code: &[u8], more: &[&str]| {
        let rom = folder.rom("rom", code);
        ring3(&[&["run", "--bios", &rom, "--timeout", "60"], more].concat())
    };
    let out = run(&[HI, POWER_OFF].concat(), &[]);
    assert_eq!((out.status, out.stdout.as_str()), (Some(0), "hi\n"), "{}", out.stderr);
    let out = run(&[DEBUG_EXIT, HI].concat(), &["--device", "isa-debug-exit"]);
    assert_eq!((out.status, out.stdout.as_str()), (Some(0x21), ""), "{}", out.stderr);
    let out = run(RESET, &["--no-reboot"]);
    assert_eq!(out.status, Some(0), "{}", out.stderr);
    let out = run(TRIPLE_FAULT, &[]);
    assert_eq!(out.status, Some(2), "{}", out.stderr);
    for word in ["triple fault", "RIP", "CR0", "GDTR", "last block"] {
        assert!(out.stderr.contains(word), "{word} in {}", out.stderr);
    }
}

#[test]
fn a_reset_starts_over() {
    let folder = Folder::new("reset");
    let rom = folder.rom("rom", &[HI, RESET].concat());
    let out = ring3(&["run", "--bios", &rom, "--timeout", "0.5", "--clock", "icount"]);
    assert_eq!(out.status, Some(124), "{}", out.stderr);
    assert!(out.stdout.starts_with("hi\nhi\n"), "{}", out.stdout);
}

#[test]
fn without_the_device_its_port_does_nothing() {
    let folder = Folder::new("no-device");
    let rom = folder.rom("rom", &[DEBUG_EXIT, POWER_OFF].concat());
    assert_eq!(ring3(&["run", "--bios", &rom]).status, Some(0));
    let elsewhere = "isa-debug-exit,iobase=0x501,iosize=2";
    assert_eq!(ring3(&["run", "--bios", &rom, "--device", elsewhere]).status, Some(0));
}

#[test]
fn a_timeout_ends_the_run() {
    let folder = Folder::new("timeout");
    let rom = folder.rom("rom", HALT);
    for clock in ["host", "icount"] {
        let out = ring3(&["run", "--bios", &rom, "--timeout", "0.2", "--clock", clock]);
        assert_eq!(out.status, Some(124), "{clock}: {}", out.stderr);
        assert_eq!(out.stderr.lines().count(), 1);
    }
}

#[test]
fn signals_end_the_run() {
    let folder = Folder::new("signals");
    let rom = folder.rom("rom", &[HI, HALT].concat());
    for (signal, status) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let mut child = command(&["run", "--bios", &rom, "--timeout", "60"]).spawn().unwrap();
        let mut hi = [0; 3];
        child.stdout.as_mut().unwrap().read_exact(&mut hi).unwrap();
        kill_process(Pid::from_child(&child), signal).unwrap();
        assert_eq!(finish(child).status, Some(status));
    }
}

#[test]
fn ignored_signals_stay_ignored() {
    let folder = Folder::new("nohup");
    let rom = folder.rom("rom", &[HI, HALT].concat());
    let line = format!("trap '' HUP; exec {} run --bios {rom} --timeout 60", program::PROGRAM);
    let mut command = Command::new("sh");
    command.args(["-c", &line]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut hi = [0; 3];
    child.stdout.as_mut().unwrap().read_exact(&mut hi).unwrap();
    for signal in [Signal::HUP, Signal::TERM] {
        kill_process(Pid::from_child(&child), signal).unwrap();
    }
    assert_eq!(finish(child).status, Some(143));
}

/// A machine whose output nobody takes still ends.
#[test]
fn stuck_output_does_not_keep_a_run_from_ending() {
    let folder = Folder::new("stuck");
    let rom = folder.rom("rom", SPAM);
    for (timeout, signal, status) in [("60", Some(Signal::TERM), 143), ("0.5", None, 124)] {
        let mut child = command(&["run", "--bios", &rom, "--timeout", timeout]).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        std::thread::sleep(Duration::from_millis(500));
        if let Some(signal) = signal {
            kill_process(Pid::from_child(&child), signal).unwrap();
        }
        assert_eq!(child.wait().unwrap().code(), Some(status));
        drop(stdout);
    }
}

#[test]
fn a_reader_that_goes_away_ends_the_run() {
    let folder = Folder::new("sigpipe");
    let rom = folder.rom("rom", SPAM);
    let mut child = command(&["run", "--bios", &rom, "--timeout", "60"]).spawn().unwrap();
    drop(child.stdout.take());
    let out = finish(child);
    assert_eq!((out.status, out.stderr.as_str()), (Some(141), ""));
}

#[test]
fn a_full_disk_ends_the_run() {
    let folder = Folder::new("full");
    let rom = folder.rom("rom", HI);
    let out = ring3(&["run", "--bios", &rom, "--serial", "file:/dev/full", "--timeout", "60"]);
    assert_eq!(out.status, Some(1));
    assert!(out.stderr.contains("COM1") && out.stderr.lines().count() == 1, "{}", out.stderr);
}

#[test]
fn standard_input_may_be_a_pipe_or_closed() {
    let folder = Folder::new("stdin");
    // Five bytes of echo, then off: mov cx, 5 before, loop instead of jmp.
    let mut five = vec![0xb9, 5, 0];
    five.extend_from_slice(&ECHO[..ECHO.len() - 2]);
    five.extend_from_slice(&[0xe2, 0xf1]);
    five.extend_from_slice(POWER_OFF);
    let rom = folder.rom("rom", &five);
    let out = ring3_with(&["run", "--bios", &rom, "--timeout", "60"], b"\x01xabcdef");
    assert_eq!((out.status, out.stdout.as_str()), (Some(0), "\x01xabc"), "{}", out.stderr);

    let rom = folder.rom("rom", &[HI, POWER_OFF].concat());
    let line = format!("exec {} run --bios {rom} <&-", program::PROGRAM);
    let out = Command::new("sh").args(["-c", &line]).stderr(Stdio::piped()).output();
    let out = out.unwrap();
    assert_eq!((out.status.code(), &out.stdout[..]), (Some(0), &b"hi\n"[..]));
}

#[test]
fn nobody_need_read_the_messages() {
    let folder = Folder::new("stderr");
    let rom = folder.rom("rom", POWER_OFF);
    for (arguments, status) in [
        (&["fly"][..], 64),
        (&["run", "--kernel", "/"], 1),
        (&["run", "--bios", &rom, "--stats"], 0),
    ] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let run = command(arguments).stderr(full).output().unwrap();
        assert_eq!(run.status.code(), Some(status), "{arguments:?}");
    }
}

#[test]
fn output_goes_where_it_is_told() {
    let folder = Folder::new("files");
    // COM2 gets "2", port E9h gets "e".
    let more: &[u8] = &[0xba, 0xf8, 2, 0xb0, b'2', 0xee, 0xb0, b'e', 0xe6, 0xe9];
    let rom = folder.rom("rom", &[HI, more, POWER_OFF].concat());
    let (com1, debug) = (folder.file("com1", b"old text"), folder.path("debug"));
    let ends = [format!("file:{com1}"), format!("file:{debug}")];
    let out = ring3(&[
        "run",
        "--bios",
        &rom,
        "--serial",
        &ends[0],
        "--serial",
        "stdio",
        "--debugcon",
        &ends[1],
    ]);
    assert_eq!((out.status, out.stdout.as_str()), (Some(0), "2"), "{}", out.stderr);
    assert_eq!(std::fs::read(&com1).unwrap(), b"hi\n");
    assert_eq!(std::fs::read(&debug).unwrap(), b"e");
}

#[test]
fn a_run_is_watched() {
    let folder = Folder::new("watched");
    let rom = folder.rom("rom", &[HI, POWER_OFF].concat());
    let trace = folder.path("trace");
    let out = ring3(&["run", "--bios", &rom, "--trace", "io,insn", "--trace-file", &trace]);
    assert_eq!(out.status, Some(0), "{}", out.stderr);
    let trace = std::fs::read_to_string(&trace).unwrap();
    assert!(trace.contains("out 0x3f8 1 0x68"), "{trace}");
    assert!(trace.lines().count() >= 10, "{trace}");
    let out = ring3(&["run", "--bios", &rom, "--trace", "io", "--trace-file", "/dev/full"]);
    assert_eq!((out.status, out.stderr.lines().count()), (Some(1), 1), "{}", out.stderr);

    let out = ring3(&["run", "--bios", &rom, "--stats=json", "--clock", "icount"]);
    assert!(out.stderr.starts_with("{\"instructions\": ") && out.stderr.ends_with("}\n"));
    // The counters come last.
    let loops = folder.rom("loops", SPAM);
    let json = ["--serial", "null", "--timeout", "0.2", "--stats=json"];
    let out = ring3(&[&["run", "--bios", &loops], &json[..]].concat());
    let lines: Vec<&str> = out.stderr.lines().collect();
    assert!(lines.len() == 2 && lines[1].starts_with('{'), "{}", out.stderr);
    let out = ring3(&["run", "--bios", &rom, "--stats"]);
    assert!(out.stderr.starts_with("instructions "), "{}", out.stderr);
}

#[test]
fn lift_reads_text_or_bytes() {
    let text = ring3_with(&["lift", "--bits", "64"], b"48 01 d8 0f 05\n");
    assert_eq!((text.status, text.stderr.as_str()), (Some(0), ""));
    assert!(text.stdout.contains("add rax,rbx") && text.stdout.contains("syscall"));
    let bytes = ring3_with(&["lift"], &[0x48, 0x01, 0xd8, 0x0f, 0x05]);
    let argument = ring3(&["lift", "48", "01d8", "0f05"]);
    assert_eq!((&bytes.stdout, &argument.stdout), (&text.stdout, &text.stdout));
}
