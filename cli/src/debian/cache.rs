//! The cache folder: what was fetched once is there at the next start, without network and without
//! apt.
//!
//! Per part it holds the `.deb` as downloaded and, as `<file>.part`, the one file that a
//! guest needs from it with its CRC-32 behind it, since unpacking a kernel takes a second. Every
//! file is written under another name and renamed, so it is whole or absent; whatever fails its
//! check is deleted and made anew. Writers hold a lock on the file `lock`; readers need none.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use super::{Error, deb, file_error, progress};

/// One file out of a Debian package.
#[derive(Debug)]
pub struct Part {
    /// Debian's name of the architecture that the package is for.
    pub architecture: &'static str,
    /// The package's names for apt, the best first.
    pub packages: &'static [&'static str],
    /// How the file's path in the package may begin; no leading slash.
    pub paths: &'static [&'static str],
    /// Its name in the cache, without an extension.
    pub file: &'static str,
}

/// A folder of fetched files.
#[derive(Debug)]
pub struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// Opens the user's cache, creating the folder: `$RING3_CACHE`, else `$XDG_CACHE_HOME/ring3`,
    /// else
    /// `~/.cache/ring3`.
    ///
    /// # Errors
    /// [`Error::NoHome`] when no variable names a place, [`Error::File`] when it cannot be made.
    pub fn open() -> Result<Self, Error> {
        let variable =
            |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let folder = variable("RING3_CACHE")
            .or_else(|| Some(variable("XDG_CACHE_HOME")?.join("ring3")))
            .or_else(|| Some(variable("HOME")?.join(".cache/ring3")))
            .ok_or(Error::NoHome)?;
        Self::at(&folder)
    }

    /// Opens the cache in `folder`, creating it.
    ///
    /// # Errors
    /// [`Error::File`] when it cannot be made.
    pub fn at(folder: &Path) -> Result<Self, Error> {
        fs::create_dir_all(folder).map_err(file_error("create", folder))?;
        // apt wants absolute paths.
        let folder = folder.canonicalize().map_err(file_error("find", folder))?;
        Ok(Self { folder })
    }

    /// The bytes of `part`. What the cache lacks is made by `fetch`, which is told the
    /// part and the cache folder and returns the path of a downloaded `.deb` below that
    /// folder.
    ///
    /// # Errors
    /// Those of `fetch`; [`Error::Package`] when a freshly fetched package is damaged too;
    /// [`Error::File`] when the folder cannot be written.
    pub fn part(
        &self,
        part: &Part,
        mut fetch: impl FnMut(&Part, &Path) -> Result<PathBuf, Error>,
    ) -> Result<Vec<u8>, Error> {
        let path = self.folder.join(part.file).with_extension("part");
        if let Some(bytes) = read_checked(&path) {
            return Ok(bytes);
        }
        let _lock = self.lock()?;
        // Another start may have made it while this one waited for the lock.
        if let Some(bytes) = read_checked(&path) {
            return Ok(bytes);
        }
        let bytes = self.unpack(part, &mut fetch)?;
        let mut file = bytes.clone();
        file.extend_from_slice(&crc32(&bytes).to_le_bytes());
        let new = path.with_extension("new");
        fs::write(&new, file).map_err(file_error("write", &new))?;
        fs::rename(&new, &path).map_err(file_error("write", &path))?;
        Ok(bytes)
    }

    /// Unpacks the cached package; one that is missing or damaged is fetched, once.
    fn unpack(
        &self,
        part: &Part,
        fetch: &mut impl FnMut(&Part, &Path) -> Result<PathBuf, Error>,
    ) -> Result<Vec<u8>, Error> {
        let name = part.file;
        let path = self.folder.join(name).with_extension("deb");
        let extract = |deb: &[u8]| {
            let bar = progress(&format!("unpacking {name}"), "");
            let result = deb::extract(deb, part.paths);
            bar.finish_and_clear();
            result
        };
        if let Ok(cached) = fs::read(&path) {
            match extract(&cached) {
                Ok((_, bytes)) => return Ok(bytes),
                Err(reason) => {
                    say!("ring3: the cached {name} cannot be used: {reason}; fetching it anew");
                    fs::remove_file(&path).map_err(file_error("delete", &path))?;
                }
            }
        }
        let fetched = fetch(part, &self.folder)?;
        let bytes = fs::read(&fetched).map_err(file_error("read", &fetched))?;
        let (_, bytes) = extract(&bytes)
            .map_err(|reason| Error::Package { package: name.to_owned(), reason })?;
        fs::rename(&fetched, &path).map_err(file_error("write", &path))?;
        Ok(bytes)
    }

    /// The lock that the returned file holds until it is dropped.
    fn lock(&self) -> Result<File, Error> {
        let path = self.folder.join("lock");
        let file = File::create(&path).map_err(file_error("create", &path))?;
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => {
                say!("ring3: waiting for another ring3 that is fetching")
            }
            // Some network file systems have no locks: two starts then do the same work twice.
            Err(TryLockError::Error(error)) if error.kind() == std::io::ErrorKind::Unsupported => {
                return Ok(file);
            }
            Err(TryLockError::Error(error)) => return Err(file_error("lock", &path)(error)),
        }
        file.lock().map_err(file_error("lock", &path))?;
        Ok(file)
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// A part file without its checksum; nothing when it is absent, unreadable or damaged.
fn read_checked(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = fs::read(path).ok()?;
    let sum = bytes.split_off(bytes.len().checked_sub(4)?);
    (crc32(&bytes).to_le_bytes() == sum[..]).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::deb::tests::package;
    use super::*;
    use std::cell::Cell;

    const PART: Part =
        Part { architecture: "amd64", packages: &["pkg"], paths: &["bin/tool"], file: "pkg" };

    /// A cache in a folder that is deleted at the end, and a count of fetches.
    struct Fixture {
        cache: Cache,
        fetches: Cell<u32>,
    }

    impl Fixture {
        fn new(name: &str) -> Self {
            let folder =
                std::env::temp_dir().join(format!("ring3-cache-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&folder);
            Self { cache: Cache::at(&folder).unwrap(), fetches: Cell::new(0) }
        }

        fn part(&self, deb: &[u8]) -> Result<Vec<u8>, Error> {
            self.cache.part(&PART, |_, folder| {
                self.fetches.set(self.fetches.get() + 1);
                fs::write(folder.join("fetched"), deb).unwrap();
                Ok(folder.join("fetched"))
            })
        }

        fn damage(&self, name: &str) {
            let path = self.cache.folder.join(name);
            let mut bytes = fs::read(&path).unwrap();
            bytes.truncate(bytes.len() / 2);
            fs::write(path, bytes).unwrap();
        }
    }

    impl Drop for Fixture {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.cache.folder);
        }
    }

    fn deb() -> Vec<u8> {
        package(".xz", &[("./bin/tool", b"tool")])
    }

    #[test]
    fn a_second_start_fetches_nothing() {
        let fixture = Fixture::new("second");
        assert_eq!(fixture.part(&deb()).unwrap(), b"tool");
        assert_eq!(fixture.part(b"must not be asked for").unwrap(), b"tool");
        assert_eq!(fixture.fetches.get(), 1);
    }

    #[test]
    fn damaged_files_are_made_anew() {
        let fixture = Fixture::new("damaged");
        fixture.part(&deb()).unwrap();
        fixture.damage("pkg.part");
        assert_eq!(fixture.part(b"the package is still there").unwrap(), b"tool");
        assert_eq!(fixture.fetches.get(), 1);
        fixture.damage("pkg.part");
        fixture.damage("pkg.deb");
        assert_eq!(fixture.part(&deb()).unwrap(), b"tool");
        assert_eq!(fixture.fetches.get(), 2);
    }

    #[test]
    fn a_damaged_download_is_an_error_and_not_kept() {
        let fixture = Fixture::new("download");
        let error = fixture.part(&deb()[..100]).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("the package pkg cannot be used: it is cut off after 100 bytes"),
            "{error}"
        );
        assert!(!fixture.cache.folder.join("pkg.deb").exists());
        assert_eq!(fixture.part(&deb()).unwrap(), b"tool");
    }

    #[test]
    fn two_starts_at_once_fetch_once() {
        let fixture = Fixture::new("twice");
        let folder = &fixture.cache.folder;
        let fetches = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let bytes = Cache::at(folder).unwrap().part(&PART, |_, folder| {
                        fetches.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        std::thread::sleep(std::time::Duration::from_millis(50));
                        fs::write(folder.join("fetched"), deb()).unwrap();
                        Ok(folder.join("fetched"))
                    });
                    assert_eq!(bytes.unwrap(), b"tool");
                });
            }
        });
        assert_eq!(fetches.into_inner(), 1);
    }
}
