//! Firmware for machines that are given none: Debian's SeaBIOS with its VGA BIOS, as installed or
//! else fetched with apt-get.

use crate::debian::{self, Part};
use anyhow::Context;
use std::path::Path;
use std::sync::Arc;

/// Where Debian's package `seabios` puts its files.
const INSTALLED: &str = "/usr/share/seabios";

const fn part(paths: &'static [&'static str], file: &'static str) -> Part {
    Part { architecture: "all", packages: &["seabios"], paths, file }
}

/// SeaBIOS for a PC with an i440FX.
const SEABIOS: (&str, Part) =
    ("bios-256k.bin", part(&["usr/share/seabios/bios-256k.bin"], "seabios-256k"));
/// SeaVGABIOS for a VGA with the Bochs display interface.
const VGA_BIOS: (&str, Part) =
    ("vgabios-stdvga.bin", part(&["usr/share/seabios/vgabios-stdvga.bin"], "seavgabios-stdvga"));

fn find((name, part): (&str, Part), what: &str) -> anyhow::Result<Vec<u8>> {
    match std::fs::read(Path::new(INSTALLED).join(name)) {
        Ok(bytes) => Ok(bytes),
        Err(_) => debian::part(&part).with_context(|| format!("there is no {what}")),
    }
}

/// SeaBIOS.
///
/// # Errors
/// It is neither installed nor can it be fetched.
pub fn seabios() -> anyhow::Result<Vec<u8>> {
    find(SEABIOS, "BIOS (install Debian's package seabios, or give one with --bios)")
}

/// The VGA BIOS that belongs to it.
///
/// # Errors
/// It is neither installed nor can it be fetched.
pub fn vga_bios() -> anyhow::Result<Arc<[u8]>> {
    Ok(find(VGA_BIOS, "VGA BIOS (install Debian's package seabios, or give --vga none)")?.into())
}
