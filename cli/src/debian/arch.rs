//! Which of Debian's kernels a guest runs, and the packages it is made of.

use super::cache::Part;
use frontend_x86::sys::cpuid::Features;

/// A kernel of Debian's with programs to match.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Arch {
    /// 64-bit: linux-image-cloud-amd64
    #[default]
    Amd64,
    /// 32-bit without PAE: linux-image-686
    I386,
    /// 32-bit with PAE, which NX needs: linux-image-686-pae
    I386Pae,
}

/// What Debian calls the architectures of packages.
const AMD64: &str = "amd64";
const I386: &str = "i386";

const KERNELS: &[&str] = &["boot/vmlinuz-"];
/// Since Debian 13 it lies below `/usr`.
const BUSYBOXES: &[&str] = &["bin/busybox", "usr/bin/busybox"];

const fn part(
    architecture: &'static str,
    packages: &'static [&'static str],
    paths: &'static [&'static str],
    file: &'static str,
) -> Part {
    Part { architecture, packages, paths, file }
}

impl Arch {
    /// The kernel. The 64-bit one is built for virtual machines, small and with its serial driver
    /// built in: Debian's, or on Ubuntu, which has none of that name, Ubuntu's. Of 32-bit kernels
    /// there are only those for everything.
    pub(super) const fn kernel(self) -> Part {
        match self {
            Arch::Amd64 => {
                let packages = &["linux-image-cloud-amd64", "linux-image-virtual"];
                part(AMD64, packages, KERNELS, "linux-image-cloud-amd64")
            }
            Arch::I386 => part(I386, &["linux-image-686"], KERNELS, "linux-image-686"),
            Arch::I386Pae => part(I386, &["linux-image-686-pae"], KERNELS, "linux-image-686-pae"),
        }
    }

    /// What a CPU must have to run kernel and programs, which would only say so on a display or die
    /// without a word (Linux, `arch/x86/include/asm/required-features.h`).
    #[must_use]
    pub const fn needs(self) -> Features {
        const I686: Features = Features::of(&[Features::FPU, Features::CX8, Features::CMOV]);
        const PAE: Features = Features::of(&[I686, Features::PAE, Features::MSR, Features::PSE]);
        match self {
            Arch::I386 => Features::of(&[I686, Features::NOPL]),
            Arch::I386Pae => Features::of(&[PAE, Features::NOPL]),
            Arch::Amd64 => {
                Features::of(&[PAE, Features::PGE, Features::FXSR, Features::SSE2, Features::LM])
            }
        }
    }

    /// What to do instead on a CPU with `features`, as the end of an error's line.
    #[must_use]
    pub fn hint(self, features: Features) -> &'static str {
        let fits = |arch: Arch| arch.needs().without(features) == Features::NONE;
        match self {
            Arch::Amd64 if fits(Arch::I386Pae) => "; --arch i386-pae or i386 would do",
            Arch::Amd64 | Arch::I386Pae if fits(Arch::I386) => "; --arch i386 would do",
            _ => "",
        }
    }

    /// All the usual small programs in one static executable.
    pub(super) const fn busybox(self) -> Part {
        let packages = &["busybox-static"];
        match self {
            Arch::Amd64 => part(AMD64, packages, BUSYBOXES, "busybox-static"),
            Arch::I386 | Arch::I386Pae => part(I386, packages, BUSYBOXES, "busybox-static-i386"),
        }
    }
}
