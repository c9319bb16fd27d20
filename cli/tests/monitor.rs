//! The monitor of a running program: on standard input, at sockets, and refused.

mod program;

use program::{Folder, HALT, RESET, Run, command, finish, ring3, ring3_with};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

#[test]
fn commands_come_from_standard_input() {
    let folder = Folder::new("monitor-stdio");
    let rom = folder.rom("rom", HALT);
    let arguments = ["run", "--bios", &rom, "--monitor", "stdio", "--timeout", "60"];
    let run = ring3_with(&arguments, b"info status\nquit\n");
    assert_eq!((run.status, run.stderr.as_str()), (Some(0), ""));
    assert!(run.stdout.ends_with("(ring3) VM status: running\n(ring3) "), "{}", run.stdout);
    let run = ring3_with(&["demo", "--monitor", "stdio", "--timeout", "60"], b"");
    assert_eq!(run.status, Some(64), "the serial port is there: {}", run.stderr);
}

fn connect(path: &str) -> BufReader<UnixStream> {
    let start = Instant::now();
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => return BufReader::new(stream),
            Err(e) => assert!(start.elapsed() < Duration::from_secs(20), "{e}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn line(stream: &mut BufReader<UnixStream>) -> String {
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    line
}

#[test]
fn sockets_have_clients_and_events() {
    let folder = Folder::new("monitor-unix");
    let (rom, qmp, hmp) = (folder.rom("rom", HALT), folder.path("q"), folder.path("m"));
    let ends = [format!("unix:{qmp},server=on,wait=on"), format!("unix:{hmp}")];
    let mut child = command(&[
        "run",
        "--bios",
        &rom,
        "--qmp",
        &ends[0],
        "--monitor",
        &ends[1],
        "--timeout",
        "60",
    ]);
    let child = child.spawn().unwrap();
    let mut program = connect(&qmp);
    assert!(line(&mut program).contains("\"QMP\""));
    program.get_mut().write_all(b"{\"execute\": \"qmp_capabilities\"}").unwrap();
    assert_eq!(line(&mut program), "{\"return\":{}}\r\n");
    let mut person = connect(&hmp);
    assert!(line(&mut person).starts_with("Ring3 "));
    person.get_mut().write_all(b"stop\n").unwrap();
    assert!(line(&mut program).contains("\"event\":\"STOP\""));
    program.get_mut().write_all(b"{\"execute\": \"quit\"}").unwrap();
    assert_eq!(line(&mut program), "{\"return\":{}}\r\n");
    let end = line(&mut program);
    assert!(end.contains("SHUTDOWN") && end.contains("host-qmp-quit"), "{end}");
    assert_eq!(finish(child).status, Some(0));
    assert!(!std::path::Path::new(&qmp).exists() && !std::path::Path::new(&hmp).exists());
}

#[test]
fn a_reset_button_ends_what_does_not_reboot() {
    let folder = Folder::new("monitor-reset");
    let rom = folder.rom("rom", HALT);
    let arguments = ["run", "--bios", &rom, "--no-reboot", "--monitor", "stdio", "--timeout", "60"];
    let Run { status, stderr, .. } = ring3_with(&arguments, b"system_reset\n");
    assert_eq!((status, stderr.as_str()), (Some(0), ""));
    // A guest that resets itself is seen to do so.
    let (rom, qmp) = (folder.rom("reset", RESET), folder.path("q"));
    let end = format!("unix:{qmp}");
    let child = command(&["run", "--bios", &rom, "--qmp", &end, "--timeout", "60"]).spawn();
    let child = child.unwrap();
    let mut program = connect(&qmp);
    line(&mut program);
    program.get_mut().write_all(b"{\"execute\": \"qmp_capabilities\"}").unwrap();
    line(&mut program);
    let event = line(&mut program);
    assert!(event.contains("RESET") && event.contains("\"guest\":true"), "{event}");
    program.get_mut().write_all(b"{\"execute\": \"quit\"}").unwrap();
    assert_eq!(finish(child).status, Some(0));
}

#[test]
fn ends_that_cannot_be_are_refused_in_one_line() {
    let folder = Folder::new("monitor-bad");
    let rom = folder.rom("rom", HALT);
    let foreign = folder.file("foreign", b"precious");
    let at = format!("unix:{foreign}");
    for (more, status, says) in [
        (&["--monitor", "tcp:1"][..], 64, "stdio, null or unix:PATH"),
        (&["--qmp", "unix:x,server=off"], 64, "use server=on"),
        (&["--monitor", "stdio", "--qmp", "stdio"], 64, "stdio can be only one"),
        (&["--monitor", "stdio", "--serial", "stdio"], 64, "stdio can be only one"),
        (&["--monitor", "stdio", "--lockstep"], 64, "cannot be used with"),
        (&["--monitor", &at], 1, "the file is there and no socket"),
        (&["--qmp", "unix:/nonexistent/q"], 1, "cannot listen at /nonexistent/q"),
    ] {
        let run = ring3(&[&["run", "--bios", &rom, "--timeout", "60"], more].concat());
        assert_eq!(run.status, Some(status), "{more:?}: {}", run.stderr);
        assert!(run.stderr.contains(says) && run.stderr.lines().count() == 1, "{}", run.stderr);
    }
    assert_eq!(std::fs::read(&foreign).unwrap(), b"precious");
}
