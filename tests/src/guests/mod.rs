//! Guests from Debian's packages as they are: what each is made of, the command that boots it, and
//! the signs by which it is known to live.
//!
//! One table for the tests, for `cargo xtask guests` and for `docs/guests.md`. A guest's command is
//! the arguments of `ring3 run`; `{file}` stands for the path of one of its files. Files come from
//! packages ([`ring3::debian::part`]) or are made of such ([`Source::Made`]).

mod make;
mod play;

pub use play::{Played, play};

use ring3::debian::{self, Part};
use std::path::{Path, PathBuf};

/// Where a file of a guest comes from.
#[derive(Clone, Copy)]
pub enum Source {
    /// A package's file: architecture, the package's names, how the path begins.
    Package(&'static str, &'static [&'static str], &'static [&'static str]),
    /// Made of other things, at the path given.
    Made(fn(&Path) -> anyhow::Result<()>),
}

/// A file of a guest: what it is called in commands, and where it comes from.
pub type File = (&'static str, Source);

/// Where a sign of life is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The first serial port.
    Serial,
    /// The VGA's text screen.
    Screen,
}

/// What is done with a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Waits until a text is seen.
    Sees(Place, &'static str),
    /// Presses keys, by QEMU's names, with spaces between.
    Keys(&'static str),
    /// Sends text to the first serial port.
    Types(&'static str),
}

/// A guest.
pub struct Guest {
    /// Its name in commands and tables.
    pub name: &'static str,
    /// What it is, for people.
    pub what: &'static str,
    /// The packages it comes from.
    pub packages: &'static [&'static str],
    /// Its files.
    pub files: &'static [File],
    /// The arguments of `ring3 run` that boot it.
    pub args: &'static str,
    /// What shows that it lives.
    pub steps: &'static [Step],
}

use Place::{Screen, Serial};
use Source::{Made, Package};
use Step::{Keys, Sees, Types};

const GRUB: &[&str] = &["grub-rescue-pc"];
const UBOOT: &[&str] = &["u-boot-qemu"];
const MEMTEST: File =
    ("memtest.iso", Package("amd64", &["memtest86+"], &["usr/lib/memtest86+/memtest86+x64.iso"]));
/// Where the installers' packages have kernel and initial RAM disk.
const DI_AMD64: &[&str] = &["debian-installer-12-netboot-amd64"];
const DI_I386: &[&str] = &["debian-installer-12-netboot-i386"];
const KERNEL: File = ("vmlinuz", Made(make::kernel));
const INITRD: File = ("initrd", Made(make::initrd));
const MINBASE: File = ("minbase.img", Made(make::minbase));
const SHELL: Step = Sees(Serial, "ring3:~# ");
const MINBASE_UP: Step = Sees(Serial, "minbase is up");

/// All guests.
pub const GUESTS: &[Guest] = &[
    Guest {
        name: "seabios",
        what: "SeaBIOS, with nothing to boot",
        packages: &["seabios"],
        files: &[],
        args: "",
        steps: &[Sees(Screen, "SeaBIOS (version"), Sees(Screen, "No bootable device")],
    },
    Guest {
        name: "u-boot",
        what: "U-Boot as firmware, 64-bit",
        packages: UBOOT,
        files: &[("u-boot.rom", Package("all", UBOOT, &["usr/lib/u-boot/qemu-x86_64/u-boot.rom"]))],
        args: "--bios {u-boot.rom} --vga none",
        steps: &[Sees(Serial, "Hit any key to stop autoboot"), Types("\r"), Sees(Serial, "=> ")],
    },
    Guest {
        name: "ovmf",
        what: "OVMF (UEFI firmware) to its shell",
        packages: &["ovmf"],
        files: &[("OVMF.fd", Package("all", &["ovmf"], &["usr/share/ovmf/OVMF.fd"]))],
        args: "--bios {OVMF.fd}",
        steps: &[Sees(Serial, "UEFI Interactive Shell"), Sees(Serial, "Shell>")],
    },
    Guest {
        name: "memtest86+",
        what: "Memtest86+ from its CD: the banner",
        packages: &["memtest86+"],
        files: &[MEMTEST],
        args: "--cdrom {memtest.iso} -m 20M",
        steps: &[Sees(Screen, "Memtest86+ v6"), Sees(Screen, "Errors: 0")],
    },
    Guest {
        name: "grub-cd",
        what: "GRUB's rescue CD to its prompt",
        packages: GRUB,
        files: &[(
            "grub.iso",
            Package("amd64", GRUB, &["usr/lib/grub-rescue/grub-rescue-cdrom.iso"]),
        )],
        args: "--cdrom {grub.iso}",
        steps: &[Sees(Screen, "GNU GRUB"), Keys("c"), Sees(Screen, "grub>")],
    },
    Guest {
        name: "memtest86+-pass",
        what: "Memtest86+: one full pass over 20 MB",
        packages: &["memtest86+"],
        files: &[MEMTEST],
        args: "--cdrom {memtest.iso} -m 20M",
        steps: &[Sees(Screen, "Memtest86+ v6"), Sees(Screen, "Pass:  1        Errors: 0")],
    },
    Guest {
        name: "grub-floppy",
        what: "GRUB's rescue floppy to its prompt",
        packages: GRUB,
        files: &[(
            "grub-floppy.img",
            Package("amd64", GRUB, &["usr/lib/grub-rescue/grub-rescue-floppy.img"]),
        )],
        args: "--drive file={grub-floppy.img},if=floppy,format=raw,snapshot=on --boot order=a",
        steps: &[Sees(Screen, "GNU GRUB"), Keys("c"), Sees(Screen, "grub>")],
    },
    Guest {
        name: "ipxe-iso",
        what: "iPXE from its CD, by isolinux",
        packages: &["ipxe"],
        files: &[("ipxe.iso", Package("all", &["ipxe"], &["usr/lib/ipxe/ipxe.iso"]))],
        args: "--cdrom {ipxe.iso}",
        steps: &[Sees(Screen, "ISOLINUX"), Sees(Screen, "iPXE 1.")],
    },
    Guest {
        name: "isolinux",
        what: "a CD with isolinux that boots Linux",
        packages: &["isolinux", "syslinux-common", "linux-image-cloud-amd64"],
        files: &[("linux.iso", Made(make::isolinux))],
        args: "--cdrom {linux.iso}",
        steps: &[Sees(Serial, "Linux version"), SHELL],
    },
    Guest {
        name: "grub-disk",
        what: "a disk with GRUB that boots Linux",
        packages: &["grub-pc-bin", "linux-image-cloud-amd64"],
        files: &[("grub-disk.img", Made(make::grub_disk))],
        args: "--drive file={grub-disk.img},format=raw,snapshot=on",
        steps: &[Sees(Serial, "Linux version"), SHELL],
    },
    Guest {
        name: "minbase-nvme",
        what: "Debian's minimal system on NVMe, no initrd",
        packages: &["linux-image-cloud-amd64", "mmdebstrap"],
        files: &[KERNEL, MINBASE],
        args: "--kernel {vmlinuz} --append 'console=ttyS0 quiet root=/dev/nvme0n1 rw init=/up' \
               --drive file={minbase.img},if=nvme,format=raw,snapshot=on",
        steps: &[MINBASE_UP],
    },
    Guest {
        name: "minbase-virtio",
        what: "the same on virtio-blk",
        packages: &["linux-image-cloud-amd64", "mmdebstrap"],
        files: &[KERNEL, ("virtio.cpio", Made(make::virtio_initrd)), MINBASE],
        args: "--kernel {vmlinuz} --initrd {virtio.cpio} \
               --append 'console=ttyS0 quiet disk=/dev/vda' \
               --drive file={minbase.img},if=virtio,format=raw,snapshot=on",
        steps: &[MINBASE_UP],
    },
    Guest {
        name: "minbase-ide",
        what: "the same on IDE, with the kernel for all machines",
        packages: &["linux-image-amd64", "mmdebstrap"],
        files: &[
            ("vmlinuz-full", Made(make::full_kernel)),
            ("ide.cpio", Made(make::ide_initrd)),
            MINBASE,
        ],
        args: "--kernel {vmlinuz-full} --initrd {ide.cpio} \
               --append 'console=ttyS0 quiet disk=/dev/sda' \
               --drive file={minbase.img},if=ide,format=raw,snapshot=on",
        steps: &[MINBASE_UP],
    },
    Guest {
        name: "systemd",
        what: "Debian with systemd on NVMe: log in, use dpkg, perl and Python",
        packages: &["linux-image-cloud-amd64", "mmdebstrap"],
        files: &[KERNEL, ("systemd.img", Made(make::systemd))],
        args: "--kernel {vmlinuz} --append 'console=ttyS0 root=/dev/nvme0n1 rw' -m 1G \
               --drive file={systemd.img},if=nvme,format=raw,snapshot=on",
        steps: &[
            Sees(Serial, "login: "),
            Types("root\r"),
            Sees(Serial, "# "),
            Types("dpkg -s systemd | grep Status; perl -e 'print 6*7, \"p\\n\"'\r"),
            Sees(Serial, "Status: install ok installed"),
            Sees(Serial, "42p"),
            Types("python3 -c 'print(6*7*1000)'\r"),
            Sees(Serial, "42000"),
            Types("apt-get --version\r"),
            Sees(Serial, "Supported modules"),
        ],
    },
    Guest {
        name: "installer-amd64",
        what: "Debian's installer to its first menu",
        packages: DI_AMD64,
        files: &[
            (
                "di-amd64-linux",
                Package(
                    "all",
                    DI_AMD64,
                    &["usr/lib/debian-installer/images/12/amd64/text/debian-installer/amd64/linux"],
                ),
            ),
            (
                "di-amd64-initrd.gz",
                Package(
                    "all",
                    DI_AMD64,
                    &["usr/lib/debian-installer/images/12/amd64/text/debian-installer/amd64/init"],
                ),
            ),
        ],
        args: "--kernel {di-amd64-linux} --initrd {di-amd64-initrd.gz} -m 1G \
               --append console=ttyS0",
        steps: &[Sees(Serial, "Select a language")],
    },
    Guest {
        name: "installer-i386",
        what: "the same for i386",
        packages: DI_I386,
        files: &[
            (
                "di-i386-linux",
                Package(
                    "all",
                    DI_I386,
                    &["usr/lib/debian-installer/images/12/i386/text/debian-installer/i386/linux"],
                ),
            ),
            (
                "di-i386-initrd.gz",
                Package(
                    "all",
                    DI_I386,
                    &["usr/lib/debian-installer/images/12/i386/text/debian-installer/i386/init"],
                ),
            ),
        ],
        args: "--kernel {di-i386-linux} --initrd {di-i386-initrd.gz} -m 1G \
               --append console=ttyS0",
        steps: &[Sees(Serial, "Select a language")],
    },
    Guest {
        name: "xen",
        what: "Xen with Linux as its first domain, to a shell",
        packages: &["xen-hypervisor-4.17-amd64", "linux-image-amd64"],
        files: &[("xen", Made(make::xen)), ("vmlinuz-full", Made(make::full_kernel)), INITRD],
        args: "--kernel {xen} --append 'console=com1 com1=115200,8n1' -m 1G \
               --module '{vmlinuz-full} console=hvc0 rdinit=/bin/sh' --module {initrd}",
        steps: &[Sees(Serial, "Xen version"), Sees(Serial, "/ # ")],
    },
];

/// The guest of a name.
#[must_use]
pub fn guest(name: &str) -> Option<&'static Guest> {
    GUESTS.iter().find(|g| g.name == name)
}

/// Where files of guests are kept.
#[must_use]
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/guests")
}

/// Gives the path of a file, made or fetched when it is not there.
///
/// # Errors
/// It cannot be fetched or made.
pub fn prepare((name, source): File) -> anyhow::Result<PathBuf> {
    let folder = folder();
    std::fs::create_dir_all(&folder)?;
    let path = folder.join(name);
    // One at a time: tests that share a file may run side by side.
    static LOCK: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _lock = LOCK.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if path.exists() {
        return Ok(path);
    }
    let new = folder.join(format!("{name}.new"));
    match source {
        Package(architecture, packages, paths) => {
            std::fs::write(&new, fetch(architecture, packages, paths, name)?)?;
        }
        Made(make) => make(&new)?,
    }
    std::fs::rename(&new, &path)?;
    Ok(path)
}

/// A package's file.
fn fetch(
    architecture: &'static str,
    packages: &'static [&'static str],
    paths: &'static [&'static str],
    file: &'static str,
) -> anyhow::Result<Vec<u8>> {
    Ok(debian::part(&Part { architecture, packages, paths, file })?)
}

impl Guest {
    /// Its row in `docs/guests.md`: name, what it is, packages, command, last sign of life.
    #[must_use]
    pub fn row(&self) -> String {
        let sign = self.steps.iter().rev().find_map(|s| match s {
            Sees(Screen, text) => Some(format!("screen: `{text}`")),
            Sees(Serial, text) => Some(format!("serial: `{text}`")),
            _ => None,
        });
        let words: Vec<&str> =
            ["ring3", "run"].into_iter().chain(self.args.split_whitespace()).collect();
        format!(
            "| `{}` | {} | {} | `{}` | {} |",
            self.name,
            self.what,
            self.packages.join(", "),
            words.join(" "),
            sign.unwrap_or_default()
        )
    }

    /// The arguments of `ring3 run`, its files fetched and made.
    ///
    /// # Errors
    /// A file cannot be fetched or made.
    pub fn arguments(&self) -> anyhow::Result<Vec<String>> {
        let mut words = words(self.args);
        for &(name, source) in self.files {
            let path = prepare((name, source))?;
            let path = path.to_string_lossy();
            words.iter_mut().for_each(|w| *w = w.replace(&format!("{{{name}}}"), &path));
        }
        Ok(words)
    }
}

/// Splits at spaces outside of single quotes, as a shell does.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), None::<String>, false);
    for c in text.chars() {
        match c {
            '\'' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            ' ' if !quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_has_the_table() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guests.md");
        let page = std::fs::read_to_string(page).unwrap();
        for g in GUESTS {
            let row = g.row();
            assert!(page.contains(&row), "cargo xtask guests table has this row:\n{row}");
        }
    }

    #[test]
    fn words_are_a_shells() {
        assert_eq!(words("a 'b c'd  '' e"), ["a", "b cd", "", "e"]);
    }

    #[test]
    fn every_file_of_a_command_is_one_of_the_guest() {
        for g in GUESTS {
            for part in g.args.split('{').skip(1) {
                let name = part.split('}').next().unwrap();
                assert!(g.files.iter().any(|f| f.0 == name), "{}: {name}", g.name);
            }
        }
    }
}
