//! Downloads a package by the system's own apt, as any user, installing nothing.
//!
//! apt knows what a program should not guess: mirrors, proxies, keys. `apt-get download` needs no
//! rights, but package lists, which a fresh container lacks and which go stale. So there are two
//! attempts: with the system's lists, then with lists of our own below the cache folder, made by
//! `apt-get update` from the same sources, proxies and keys. For packages of another architecture
//! than the host's the system has no lists, and the second attempt is the only one.
//!
//! Source: apt-get(8), apt.conf(5), apt's `doc/progress-reporting.md`.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::cache::Part;
use super::{Error, file_error, progress};

/// Options for every call. Hooks of the system (package search, desktop catalogues) would need root
/// and fail; as root, apt would warn that its download user cannot enter our folder.
const CONFIGURATION: &str = r#"#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
APT::Sandbox::User "root";
Acquire::Languages "none";
"#;

#[derive(Clone, Copy, PartialEq)]
enum Lists {
    System,
    Own,
}

/// A way to call apt's programs.
struct Apt<'a> {
    folder: &'a Path,
    lists: Lists,
    /// The architecture of the packages if it is not the system's.
    foreign: Option<&'static str>,
}

/// Downloads the first of the packages of `part` that is on offer, in its newest version, into a
/// folder below `folder`, and returns the file's path. A kernel's meta package is followed to the
/// kernel. Says on stderr what it does: by a bar on a terminal, else by one line a step.
///
/// # Errors
/// [`Error::NoApt`] on a system without apt, [`Error::Fetch`] with apt's own reason.
pub fn download(part: &Part, folder: &Path) -> Result<PathBuf, Error> {
    let system = Command::new("dpkg").arg("--print-architecture").output();
    let other = |name: &[u8]| name.trim_ascii() != part.architecture.as_bytes();
    let foreign = system.is_ok_and(|out| out.status.success() && other(&out.stdout));
    let foreign = foreign.then_some(part.architecture);
    let packages = part.packages;
    let configuration = folder.join("apt.conf");
    fs::write(&configuration, CONFIGURATION).map_err(file_error("write", &configuration))?;

    let mut apt = Apt { folder, lists: Lists::System, foreign };
    if foreign.is_none() {
        match apt.get(packages) {
            Err(Error::Fetch { .. }) => {}
            done => return done,
        }
    }
    apt.lists = Lists::Own;
    apt.get(packages)
}

impl Apt<'_> {
    fn get(&self, packages: &[&str]) -> Result<PathBuf, Error> {
        let failed = |reason: Option<String>, default: &str| Error::Fetch {
            package: packages.join(" or "),
            reason: reason.unwrap_or_else(|| default.to_owned()),
        };
        let mut reason = None;
        if self.lists == Lists::Own {
            for sub in ["lists/partial", "cache/archives/partial"] {
                let sub = self.own().join(sub);
                fs::create_dir_all(&sub).map_err(file_error("create", &sub))?;
            }
            // apt may succeed in part and call that success: what counts is whether the lists
            // serve.
            reason = self.apt_get("update", &[], "reading the package lists", self.folder)?.1;
        }
        let real = packages.iter().find_map(|package| self.resolve(package).transpose());
        let real = real.ok_or_else(|| failed(reason, "apt's sources do not offer it"))??;

        let folder = self.folder.join("fetch");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).map_err(file_error("create", &folder))?;
        let step = format!("fetching {real}");
        let (whole, reason) = self.apt_get("download", &[&real], &step, &folder)?;
        if !whole {
            return Err(failed(reason, "apt-get download failed"));
        }
        let files = fs::read_dir(&folder).map_err(file_error("read", &folder))?;
        let mut files = files.flatten().map(|file| file.path());
        files
            .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .ok_or_else(|| failed(reason, "apt-get downloaded nothing"))
    }

    /// The package to download for `package`: the kernel it depends on if it is a kernel's meta
    /// package, else itself; nothing when the lists have no such package.
    fn resolve(&self, package: &str) -> Result<Option<String>, Error> {
        let mut command = self.command("apt-cache");
        let output =
            command.args(["show", "--no-all-versions", package]).output().map_err(start_error)?;
        let text = String::from_utf8_lossy(&output.stdout);
        Ok((output.status.success() && text.contains("\nFilename:"))
            .then(|| real_package(package, &text)))
    }

    /// Runs `apt-get` in `folder`, showing its progress as `step`. Returns whether it says that all
    /// went well, and its first complaint.
    fn apt_get(
        &self,
        verb: &str,
        arguments: &[&str],
        step: &str,
        folder: &Path,
    ) -> Result<(bool, Option<String>), Error> {
        let mut command = self.command("apt-get");
        command.args(["-q", "-o", "APT::Status-Fd=1", verb]).args(arguments).current_dir(folder);
        let log = self.folder.join("apt.log");
        let stderr = File::create(&log).map_err(file_error("create", &log))?;
        let mut child =
            command.stdout(Stdio::piped()).stderr(stderr).spawn().map_err(start_error)?;
        let bar = progress(step, " {bar:24} {percent:>3}%");
        for line in BufReader::new(child.stdout.take().expect("stdout is piped"))
            .lines()
            .map_while(Result::ok)
        {
            if let Some(percent) = percent(&line) {
                bar.set_position(percent);
            }
        }
        let status = child.wait().map_err(start_error)?;
        bar.finish_and_clear();
        let complaint = complaint(&fs::read_to_string(&log).unwrap_or_default());
        let silent = || (!status.success()).then(|| format!("apt-get ended with {status}"));
        Ok((status.success(), complaint.or_else(silent)))
    }

    /// The folder of our own lists: apt deletes those of other architectures.
    fn own(&self) -> PathBuf {
        self.folder.join(self.foreign.map_or("apt".to_owned(), |name| format!("apt-{name}")))
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null())
            .arg("-c")
            .arg(self.folder.join("apt.conf"));
        let mut option = |name: &str, value: &str| {
            command.arg("-o").arg(format!("{name}={value}"));
        };
        if self.lists == Lists::Own {
            let own = self.own();
            option("Dir::State", &own.to_string_lossy());
            option("Dir::State::Lists", &own.join("lists").to_string_lossy());
            option("Dir::Cache", &own.join("cache").to_string_lossy());
            option("Debug::NoLocking", "1");
        }
        if let Some(architecture) = self.foreign {
            option("APT::Architecture", architecture);
            option("APT::Architectures", architecture);
        }
        command
    }
}

fn start_error(error: std::io::Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound => Error::NoApt,
        _ => Error::Fetch {
            package: "a package".to_owned(),
            reason: format!("apt does not start: {error}"),
        },
    }
}

/// The kernel among the dependencies in the record `show`, or else `package` itself.
fn real_package(package: &str, show: &str) -> String {
    let depends = show.lines().find_map(|line| line.strip_prefix("Depends: ")).unwrap_or_default();
    let mut names =
        depends.split([',', '|']).filter_map(|dependency| dependency.split_whitespace().next());
    let kernel =
        names.find(|name| package.starts_with("linux-image-") && name.starts_with("linux-image-"));
    kernel.unwrap_or(package).to_owned()
}

/// The percentage in a line of apt's progress report: `dlstatus:1:37.5:Retrieving file 1 of 1`.
fn percent(line: &str) -> Option<u64> {
    let percent: f64 = line.strip_prefix("dlstatus:")?.split(':').nth(1)?.parse().ok()?;
    Some(percent as u64)
}

/// The first error among apt's messages, or else the first warning, without its `E:` or `W:`.
fn complaint(stderr: &str) -> Option<String> {
    let find = |mark| stderr.lines().find_map(|line| line.trim().strip_prefix(mark));
    let words = find("E:").or_else(|| find("W:"))?.split_whitespace();
    Some(words.collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meta_package_leads_to_its_kernel() {
        let show = "Package: linux-image-cloud-amd64\nDepends: linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)\nFilename: x";
        assert_eq!(
            real_package("linux-image-cloud-amd64", show),
            "linux-image-6.1.0-56-cloud-amd64"
        );
        let show = "Package: linux-image-virtual\nDepends: linux-firmware, linux-image-6.8.0-1-generic | x\n";
        assert_eq!(real_package("linux-image-virtual", show), "linux-image-6.8.0-1-generic");
        assert_eq!(real_package("busybox-static", "Depends: libc6"), "busybox-static");
        assert_eq!(real_package("busybox-static", ""), "busybox-static");
    }

    #[test]
    fn progress_lines_are_read() {
        assert_eq!(percent("dlstatus:4:92.4987:Retrieving file 12 of 15"), Some(92));
        assert_eq!(percent("Get:1 http://deb.debian.org/debian bookworm InRelease"), None);
    }

    #[test]
    fn errors_come_before_warnings() {
        assert_eq!(
            complaint("W: slow\nE: Unable to locate package x\n").as_deref(),
            Some("Unable to locate package x")
        );
        assert_eq!(complaint("W: slow  mirror\n").as_deref(), Some("slow mirror"));
        assert_eq!(complaint("\n"), None);
    }
}
