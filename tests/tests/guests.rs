//! A slice of the guests: firmware, a CD, memory tests and Debian on NVMe.

use machine::Engine;
use ring3_tests::guests::{guest, play};
use std::time::Duration;

fn boots(name: &str) {
    let guest = guest(name).expect("it is in the table");
    if let Err(error) = play(guest, Engine::Auto, Duration::from_secs(120)) {
        panic!("{error:#}");
    }
}

#[test]
fn seabios() {
    boots("seabios");
}

#[test]
fn u_boot() {
    boots("u-boot");
}

#[test]
fn the_memory_test_shows_its_banner() {
    boots("memtest86+");
}

#[test]
fn grub_on_a_cd_takes_keys() {
    boots("grub-cd");
}

#[test]
fn linux_from_a_cd() {
    boots("isolinux");
}

#[test]
fn linux_from_a_disk_with_grub() {
    boots("grub-disk");
}

#[test]
fn debian_on_nvme() {
    boots("minbase-nvme");
}
