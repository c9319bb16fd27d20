//! A run on a terminal: raw while it lasts, restored on every way out.

mod program;

use program::{ECHO, Folder, SPAM, command};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};
use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// A pseudo-terminal with the program on it.
struct Session {
    master: File,
    slave: File,
    child: Child,
    _folder: Folder,
}

impl Session {
    fn new(name: &str, code: &[u8]) -> Session {
        // The program must not hold the master's end itself: its hang-up would never come.
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let path = ptsname(&master, Vec::new()).unwrap();
        let path = path.to_str().unwrap();
        let slave = File::options().read(true).write(true).open(path).unwrap();
        let folder = Folder::new(name);
        let rom = folder.rom("rom", code);
        let stdio = || Stdio::from(slave.try_clone().unwrap());
        let mut command = command(&["run", "--bios", &rom, "--timeout", "60"]);
        let child = command.stdin(stdio()).stdout(stdio()).stderr(stdio()).spawn().unwrap();
        let session = Session { master: File::from(master), slave, child, _folder: folder };
        let start = Instant::now();
        while session.cooked() {
            assert!(start.elapsed() < Duration::from_secs(20), "the terminal became raw");
            std::thread::sleep(Duration::from_millis(10));
        }
        session
    }

    fn cooked(&self) -> bool {
        let all = LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
        tcgetattr(&self.slave).unwrap().local_modes.contains(all)
    }

    fn types(&mut self, keys: &[u8]) {
        self.master.write_all(keys).unwrap();
    }

    fn reads(&mut self, text: &[u8]) {
        let mut got = vec![0; text.len()];
        self.master.read_exact(&mut got).unwrap();
        assert_eq!(got, text);
    }

    fn ends(mut self, status: i32) {
        assert_eq!(self.child.wait().unwrap().code(), Some(status));
        assert!(self.cooked(), "the terminal is restored");
    }
}

#[test]
fn keys_go_to_the_guest_and_ctrl_a_x_quits() {
    let mut s = Session::new("keys", ECHO);
    s.types(b"ab\x03\x01\x01z");
    s.reads(b"ab\x03\x01z");
    s.types(b"\x01h");
    s.reads(b"\r\nCtrl-A x");
    s.types(b"\x01x");
    s.ends(0);
}

#[test]
fn ctrl_a_c_switches_to_the_monitor_and_back() {
    let mut s = Session::new("monitor", ECHO);
    s.types(b"a");
    s.reads(b"a");
    s.types(b"\x01c");
    s.reads(b"\r\nRing3 ");
    s.types(b"p 1x\x7f+1\r");
    let mut got = Vec::new();
    while !got.ends_with(b"0x2\r\n(ring3) ") {
        let mut byte = [0];
        s.master.read_exact(&mut byte).unwrap();
        got.push(byte[0]);
    }
    s.types(b"\x01cb");
    s.reads(b"\r\nb");
    s.types(b"\x01c\x01x");
    s.ends(0);
}

#[test]
fn signals_restore_the_terminal() {
    for (signal, status) in [(Signal::TERM, 143), (Signal::HUP, 129), (Signal::INT, 130)] {
        let s = Session::new(&format!("signal-{status}"), ECHO);
        kill_process(Pid::from_child(&s.child), signal).unwrap();
        s.ends(status);
    }
}

#[test]
fn a_terminal_that_goes_away_ends_the_run() {
    let Session { master, slave, mut child, .. } = Session::new("hang-up", ECHO);
    drop((master, slave));
    // It is not its controlling terminal: there is no SIGHUP.
    assert_eq!(child.wait().unwrap().code(), Some(129));
}

#[test]
fn ctrl_a_x_quits_though_nobody_reads_the_terminal() {
    let mut s = Session::new("stalled", SPAM);
    std::thread::sleep(Duration::from_millis(300));
    s.types(b"\x01x");
    s.ends(0);
}
