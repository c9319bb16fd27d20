//! Debian's kernels, 64-bit and 32-bit, on CPU models of their time: each boots to a command, finds
//! the CPU that was asked for, and no reason to keep page tables apart.

use machine::{ClockKind, Outcome};
use ring3::debian::Arch;
use ring3_tests::{boot_on, command_output, debian_for};

/// Machine, model name, whether these flags are there, and what the kernel says of Meltdown.
const COMMAND: &str = "uname -m; sed -n 's/^model name.*: //p' /proc/cpuinfo; \
    for f in fxsr pae sse2 lm avx2; do grep -q \" $f \" /proc/cpuinfo && echo $f; done; \
    cat /sys/devices/system/cpu/vulnerabilities/meltdown";

#[track_caller]
fn check(arch: Arch, cpu: &str, machine: &str, name: &str, flags: &str) {
    let guest = debian_for(arch, COMMAND);
    let end = boot_on(cpu.parse().unwrap(), &guest, None, ClockKind::Host);
    assert_eq!(end.outcome, Outcome::PowerOff, "{}", end.console);
    let (output, status) = command_output(&end);
    let output = output.lines().collect::<Vec<_>>().join(" ");
    let expected = format!("{machine} {name} {flags} Not affected");
    assert_eq!((output, status), (expected, Some(0)), "{}", end.console);
    assert!(!end.console.contains("page tables isolation: enabled"), "{}", end.console);
}

const CORE2: &str = "Intel(R) Core(TM)2 CPU          6600  @ 2.40GHz";

#[test]
fn amd64_on_core2() {
    check(Arch::Amd64, "core2", "x86_64", CORE2, "fxsr pae sse2 lm");
}

#[test]
fn amd64_on_the_baseline() {
    check(Arch::Amd64, "x86-64-v1", "x86_64", "Ring3 x86-64-v1 CPU", "fxsr pae sse2 lm");
}

#[test]
fn amd64_on_the_default() {
    check(Arch::Amd64, "x86-64-v3", "x86_64", "Ring3 x86-64-v3 CPU", "fxsr pae sse2 lm avx2");
}

#[test]
fn i386_without_pae_on_pentium3() {
    check(Arch::I386, "pentium3", "i686", "Pentium III (Coppermine)", "fxsr pae");
}

#[test]
fn i386_with_pae_on_core2() {
    check(Arch::I386Pae, "core2", "i686", CORE2, "fxsr pae sse2 lm");
}

#[test]
fn i386_with_pae_on_the_default() {
    let flags = "fxsr pae sse2 lm avx2";
    check(Arch::I386Pae, "x86-64-v3", "i686", "Ring3 x86-64-v3 CPU", flags);
}

/// With every feature the kernel uses 5-level paging, keeps PKRU by XSAVE, and SMAP.
#[test]
fn amd64_with_five_levels_and_protection_keys() {
    let command = "grep -o 'address sizes.*' /proc/cpuinfo; \
        for f in la57 pku ospke smap; do grep -q \" $f \" /proc/cpuinfo && echo $f; done";
    let guest = debian_for(Arch::Amd64, command);
    let end = boot_on("max".parse().unwrap(), &guest, None, ClockKind::Host);
    assert_eq!(end.outcome, Outcome::PowerOff, "{}", end.console);
    let (output, _) = command_output(&end);
    let output = output.lines().collect::<Vec<_>>().join(" ");
    let sizes = "address sizes\t: 40 bits physical, 57 bits virtual";
    assert_eq!(output, format!("{sizes} la57 pku ospke smap"), "{}", end.console);
}
