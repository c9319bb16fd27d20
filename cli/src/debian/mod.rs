//! Debian as a guest without configuration: its cloud kernel and busybox, fetched as an ordinary
//! user.
//!
//! ```text
//! apt ──.deb──► cache ──► deb (unpack) ──► vmlinuz ──────────────► Guest.kernel ──► vmlinux (ELF)
//!                                   └────► busybox ──► initrd ──► Guest.initrd
//!                                                       └ cpio, init.sh
//! guest's second serial port ──► exec (a command's output and exit status)
//! ```

mod apt;
mod arch;
mod cache;
mod cpio;
mod deb;
mod exec;
mod initrd;
mod vmlinux;

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};

pub use arch::Arch;
pub use cache::Part;
pub use cpio::Cpio;
pub use deb::DebError;
pub use exec::ExecOutput;
pub use vmlinux::{ImageError, version, vmlinux};

/// Why no guest could be made. Each message is one line that says what is wrong and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system has no apt.
    #[error(
        "needs apt-get (Debian or Ubuntu) to fetch a kernel; \
         pass one by hand: ring3 run --kernel vmlinuz --initrd initrd.gz"
    )]
    NoApt,
    /// apt could not fetch a package.
    #[error(
        "cannot fetch {package}: {reason}; check the network and apt's sources, \
         or pass a kernel by hand: ring3 run --kernel vmlinuz --initrd initrd.gz"
    )]
    Fetch {
        /// The package's name.
        package: String,
        /// apt's own words.
        reason: String,
    },
    /// A package is damaged even though it was just fetched.
    #[error("the package {package} cannot be used: {reason}; try again, or another mirror")]
    Package {
        /// The package's name.
        package: String,
        /// What is wrong with it.
        reason: DebError,
    },
    /// The kernel's image is not one.
    #[error("the fetched kernel cannot be used: {0}")]
    Image(ImageError),
    /// No environment variable says where the cache is.
    #[error("no folder for the cache: set HOME, XDG_CACHE_HOME or RING3_CACHE")]
    NoHome,
    /// A file of the cache could not be used.
    #[error("cannot {verb} {}: {error}; RING3_CACHE names another cache folder", path.display())]
    File {
        /// What was tried.
        verb: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

fn file_error(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |error| Error::File { verb, path: path.to_owned(), error }
}

/// Says on stderr what takes time: on a terminal by a line with `bar` (a template's end), which
/// goes when the step is done, else by a line that stays.
fn progress(step: &str, bar: &str) -> ProgressBar {
    if !io::stderr().is_terminal() {
        say!("ring3: {step}");
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(&format!("ring3: {{msg}}{bar}"));
    let line = ProgressBar::new(100).with_message(step.to_owned());
    let line = line.with_style(style.expect("the template is well-formed"));
    line.tick();
    line
}

/// What the guest shall be.
#[derive(Debug, Default)]
pub struct Options {
    /// Which kernel.
    pub arch: Arch,
    /// A shell script to run for the host, instead of an interactive shell: its output comes over
    /// the second serial port, to be read by [`ExecOutput`].
    pub exec: Option<String>,
    /// The terminal at the first serial port.
    pub terminal: Option<Terminal>,
}

/// A terminal for the guest's shell.
#[derive(Debug)]
pub struct Terminal {
    /// Height in characters.
    pub rows: u16,
    /// Width in characters.
    pub columns: u16,
    /// Its kind, as in the variable `TERM`; characters that a kernel command line cannot hold are
    /// left out.
    pub name: String,
}

/// All that a machine needs to boot Linux.
#[derive(Debug)]
pub struct Guest {
    /// The kernel, a bzImage.
    pub kernel: Vec<u8>,
    /// The first root file system, a cpio archive; not compressed, since inflating it would cost
    /// the guest more than copying it costs the host.
    pub initrd: Vec<u8>,
    /// The kernel's version, as `uname -r` prints it.
    pub kernel_version: String,
    /// The kernel's command line.
    pub append: String,
}

/// The kernel's command line for every guest. `console` and `quiet` leave the first serial port to
/// the shell; after a panic the machine resets at once, which ends it, instead of hanging. The
/// self-tests of the kernel's ciphers are half of what a boot executes (0.9 of 1.6 guest seconds at
/// one instruction a nanosecond, Linux 6.1). Other parameters that are said to help
/// (`tsc=reliable`,
/// `no_timer_check`, `mitigations=off`, `rcupdate.rcu_expedited=1`, `i8042.noaux`) were measured to
/// save less than 4 %.
const APPEND: &str = "console=ttyS0 quiet panic=-1 cryptomgr.notests";

/// Debian's kernel with a busybox root file system, from the user's cache or else through apt.
///
/// # Errors
/// [`Error`] when something is neither cached nor can be fetched.
pub fn linux_guest(options: &Options) -> Result<Guest, Error> {
    let cache = cache::Cache::open()?;
    let kernel = cache.part(&options.arch.kernel(), apt::download)?;
    let busybox = cache.part(&options.arch.busybox(), apt::download)?;
    let initrd = initrd::initrd(&busybox, options.exec.as_deref());
    let kernel_version = version(&kernel).ok_or(Error::Image(ImageError::NotABzImage))?;
    Ok(Guest { kernel, initrd, kernel_version, append: append(options) })
}

/// busybox for 64-bit guests, an executable that needs no libraries.
///
/// # Errors
/// [`Error`] when it is neither cached nor can be fetched.
pub fn busybox() -> Result<Vec<u8>, Error> {
    part(&Arch::Amd64.busybox())
}

/// One file of a package of Debian's, from the user's cache or else through apt.
///
/// # Errors
/// [`Error`] when it is neither cached nor can be fetched.
pub fn part(part: &Part) -> Result<Vec<u8>, Error> {
    cache::Cache::open()?.part(part, apt::download)
}

fn append(options: &Options) -> String {
    // Words that the kernel does not know become the environment of init.
    let terminal = options.terminal.as_ref().map(|Terminal { rows, columns, name }| {
        let name: String =
            name.chars().filter(|c| c.is_ascii_alphanumeric() || "-+._".contains(*c)).collect();
        let name = if name.is_empty() { "dumb" } else { &name };
        format!(" TERM={name} LINES={rows} COLUMNS={columns}")
    });
    format!("{APPEND}{}", terminal.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fetches through apt at the first run on a machine, then uses the user's cache.
    #[test]
    fn debian_yields_a_kernel_and_a_root_file_system() {
        let options = Options { exec: Some("uname -r".to_owned()), ..Options::default() };
        let guest = linux_guest(&options).unwrap();
        let number = guest.kernel_version.split('.').next().unwrap();
        assert!(number.parse::<u32>().unwrap() >= 5, "{}", guest.kernel_version);
        let elf = vmlinux(&guest.kernel).unwrap();
        // e_machine: EM_X86_64.
        assert_eq!(elf[18..20], [62, 0]);
        let entries = cpio::tests::read(&guest.initrd);
        let file = |path| &entries.iter().find(|entry| entry.path == path).unwrap().data;
        assert_eq!(file("bin/busybox")[18..20], [62, 0]);
        assert_eq!(file("ring3-exec"), b"uname -r");
    }

    #[test]
    fn a_terminal_is_told_on_the_command_line() {
        let line = |name: &str| {
            let terminal = Some(Terminal { rows: 40, columns: 120, name: name.to_owned() });
            append(&Options { terminal, ..Options::default() }).split_off(APPEND.len())
        };
        assert_eq!(line("xterm-256color"), " TERM=xterm-256color LINES=40 COLUMNS=120");
        assert_eq!(line("x init=/bin/sh"), " TERM=xinitbinsh LINES=40 COLUMNS=120");
        assert_eq!(line(""), " TERM=dumb LINES=40 COLUMNS=120");
    }
}
