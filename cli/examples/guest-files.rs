//! Writes the guest of `ring3 linux` to a folder, for other emulators and for debuggers: `vmlinuz`,
//! `initrd.gz`, `vmlinux` and the kernel's command line as `append`. With more arguments, the guest
//! runs them as a command.

use std::io::Write;
use std::path::Path;

use flate2::{Compression, write::GzEncoder};
use ring3::debian::{Options, linux_guest, vmlinux};

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder =
        arguments.next().ok_or_else(|| anyhow::anyhow!("usage: guest-files FOLDER [COMMAND…]"))?;
    let command: Vec<String> = arguments.collect();
    let exec = (!command.is_empty()).then(|| command.join(" "));
    let guest = linux_guest(&Options { exec, ..Options::default() })?;

    let mut initrd = GzEncoder::new(Vec::new(), Compression::default());
    initrd.write_all(&guest.initrd)?;
    std::fs::create_dir_all(&folder)?;
    let elf = vmlinux(&guest.kernel)?;
    for (name, bytes) in [
        ("vmlinuz", &guest.kernel),
        ("initrd.gz", &initrd.finish()?),
        ("vmlinux", &elf),
        ("append", &guest.append.into_bytes()),
    ] {
        std::fs::write(Path::new(&folder).join(name), bytes)?;
    }
    println!("{folder}: Linux {}", guest.kernel_version);
    Ok(())
}
