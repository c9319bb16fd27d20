//! Debian's unmodified kernel boots, runs a command in a shell, and switches the machine off.

use machine::{ClockKind, Outcome};
use ring3_tests::{boot, command_output, debian};

const COMMAND: &str = "uname -m; grep -c ^processor /proc/cpuinfo; cat /proc/self/comm; exit 7";

#[track_caller]
fn check(end: &ring3_tests::End) {
    assert_eq!(end.outcome, Outcome::PowerOff, "{}", end.console);
    let (output, status) = command_output(end);
    assert_eq!((output.as_str(), status), ("x86_64\n1\ncat\n", Some(7)), "{}", end.console);
}

#[test]
fn a_bzimage_boots() {
    check(&boot(&debian(COMMAND), None, ClockKind::Host));
}

#[test]
fn an_elf_kernel_boots_by_pvh() {
    let guest = debian(COMMAND);
    let elf = ring3::debian::vmlinux(&guest.kernel).unwrap();
    check(&boot(&guest, Some(elf), ClockKind::Host));
}

/// Two runs on the instruction-count clock are the same, bit for bit.
#[test]
fn icount_runs_repeat() {
    let guest = debian("date +%s; dmesg; cat /proc/interrupts; head -c 16 /dev/urandom | hexdump");
    let [a, b] = [(), ()].map(|()| boot(&guest, None, ClockKind::Icount));
    assert_eq!(a.outcome, Outcome::PowerOff, "{}", a.console);
    assert_eq!((&a.console, a.instructions, a.guest_ns), (&b.console, b.instructions, b.guest_ns));
    assert_eq!(a.com2, b.com2);
    assert!(command_output(&a).0.starts_with("9466848"), "{}", command_output(&a).0);
}
