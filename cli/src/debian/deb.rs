//! Takes files out of a Debian package that lies in memory.
//!
//! A `.deb` is an `ar` archive of three members: `debian-binary`, `control.tar.*` and `data.tar.*`;
//! the last one holds the files, compressed by xz (Debian), zstd (Ubuntu) or gzip (old packages).
//! The archive is always read to its end, although the wanted file may come early: only there
//! stands the checksum, and a damaged package must never yield a kernel.
//!
//! Source: deb(5), ar(5).

use std::io::{self, Read};

/// Why a package could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum DebError {
    /// The file does not begin as an `ar` archive does.
    #[error("it is no Debian package")]
    NotADeb,
    /// The file ends before the last member that its headers promise.
    #[error("it is cut off after {0} bytes")]
    Truncated(usize),
    /// No member is named `data.tar.*`, or its compression is unknown.
    #[error("it has no data archive that can be read")]
    NoData,
    /// The compressed archive within is damaged.
    #[error("its data archive is damaged ({0})")]
    Data(#[from] io::Error),
    /// The package is whole, but no file in it has a wanted name.
    #[error("it holds no file named {0}")]
    Absent(String),
}

const MAGIC: &[u8] = b"!<arch>\n";
const HEADER: usize = 60;

/// The member of the archive whose name begins with `name`, as its full name and its bytes. Walks
/// all members, so that success means that the file is as long as its headers say.
fn member<'a>(deb: &'a [u8], name: &str) -> Result<(&'a str, &'a [u8]), DebError> {
    let mut rest = deb.strip_prefix(MAGIC).ok_or(DebError::NotADeb)?;
    let mut found = None;
    while !rest.is_empty() {
        let cut = || DebError::Truncated(deb.len());
        let (header, tail) = rest.split_at_checked(HEADER).ok_or_else(cut)?;
        let field = |from: usize, to: usize| str::from_utf8(&header[from..to]).map(str::trim).ok();
        let (Some(label), Some(size), b"`\n") = (field(0, 16), field(48, 58), &header[58..]) else {
            return Err(DebError::NotADeb);
        };
        let size: usize = size.parse().map_err(|_| DebError::NotADeb)?;
        let (body, tail) = tail.split_at_checked(size).ok_or_else(cut)?;
        if label.starts_with(name) {
            found = found.or(Some((label.trim_end_matches('/'), body)));
        }
        // A member of odd length is followed by one byte of padding.
        rest = tail.get(size % 2..).unwrap_or_default();
    }
    found.ok_or(DebError::NoData)
}

/// The first file of the package whose path (without `./`) begins with one of `wanted`: its path
/// and its bytes.
///
/// # Errors
/// [`DebError`] when the package is damaged anywhere, or has no such file.
pub fn extract(deb: &[u8], wanted: &[&str]) -> Result<(String, Vec<u8>), DebError> {
    let (name, data) = member(deb, "data.tar")?;
    let plain: Box<dyn Read + '_> = match name {
        "data.tar" => Box::new(data),
        "data.tar.xz" => Box::new(lzma_rust2::XzReader::new(data, true)),
        "data.tar.gz" => Box::new(flate2::read::MultiGzDecoder::new(data)),
        "data.tar.zst" => {
            Box::new(ruzstd::decoding::StreamingDecoder::new(data).map_err(io::Error::other)?)
        }
        _ => return Err(DebError::NoData),
    };
    let mut archive = tar::Archive::new(plain);
    let mut found = None;
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = String::from_utf8_lossy(&entry.path_bytes()).trim_start_matches("./").to_owned();
        if found.is_none()
            && entry.header().entry_type().is_file()
            && wanted.iter().any(|w| path.starts_with(w))
        {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            if bytes.len() as u64 != entry.size() {
                return Err(DebError::Data(io::ErrorKind::UnexpectedEof.into()));
            }
            found = Some((path, bytes));
        }
    }
    // The archive's end marker comes before the end of the compressed stream and its checksum.
    io::copy(&mut archive.into_inner(), &mut io::sink())?;
    found.ok_or_else(|| DebError::Absent(wanted.join(" or ")))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::io::Write;

    /// A package with `files`, compressed as the ending `format` says.
    pub fn package(format: &str, files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, bytes) in files {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, path, *bytes).unwrap();
        }
        let tar = tar.into_inner().unwrap();
        let data = match format {
            ".xz" => {
                let mut xz =
                    lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::default())
                        .unwrap();
                xz.write_all(&tar).unwrap();
                xz.finish().unwrap()
            }
            ".gz" => {
                let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                gz.write_all(&tar).unwrap();
                gz.finish().unwrap()
            }
            ".zst" => ruzstd::encoding::compress_to_vec(
                &tar[..],
                ruzstd::encoding::CompressionLevel::Fastest,
            ),
            _ => tar,
        };
        let mut deb = MAGIC.to_vec();
        let data_name = format!("data.tar{format}");
        for (name, bytes) in
            [("debian-binary", &b"2.0\n"[..]), ("control.tar", b"odd"), (&data_name, &data)]
        {
            writeln!(deb, "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`", 0, 0, 0, 100_644, bytes.len())
                .unwrap();
            deb.extend_from_slice(bytes);
            deb.resize(deb.len().next_multiple_of(2), b'\n');
        }
        deb
    }

    const FILES: &[(&str, &[u8])] = &[
        ("./usr/share/doc/x", b"text"),
        ("./boot/vmlinuz-1.2", &[7; 3000]),
        ("./boot/vmlinuz-9", b"second"),
    ];

    #[test]
    fn every_compression_yields_the_first_wanted_file() {
        for format in ["", ".xz", ".gz", ".zst"] {
            let (path, bytes) =
                extract(&package(format, FILES), &["bin/none", "boot/vmlinuz-"]).unwrap();
            assert_eq!(
                (path.as_str(), &bytes[..]),
                ("boot/vmlinuz-1.2", &[7; 3000][..]),
                "{format}"
            );
        }
    }

    #[test]
    fn a_package_cut_off_anywhere_is_refused() {
        let deb = package(".xz", FILES);
        extract(&deb, &["boot/"]).unwrap();
        let data_end = deb.len() - usize::from(deb.ends_with(b"\n"));
        for len in 0..data_end {
            assert!(extract(&deb[..len], &["boot/"]).is_err(), "{len} of {}", deb.len());
        }
    }

    #[test]
    fn a_flipped_byte_in_the_data_is_found() {
        for format in [".xz", ".gz"] {
            let deb = package(format, FILES);
            let (_, data) = member(&deb, "data.tar").unwrap();
            let start = deb.windows(data.len()).position(|w| w == data).unwrap();
            // Byte 4..10 of a gzip header (flags, time, system) is covered by no checksum.
            for at in start + 10..start + data.len() {
                let mut bad = deb.clone();
                bad[at] ^= 0x10;
                match extract(&bad, &["boot/"]) {
                    Err(_) => {}
                    Ok((path, bytes)) => assert_eq!(
                        (path.as_str(), &bytes[..]),
                        ("boot/vmlinuz-1.2", &[7; 3000][..])
                    ),
                }
            }
        }
    }

    #[test]
    fn errors_name_what_is_missing() {
        let deb = package(".xz", FILES);
        assert_eq!(
            extract(&deb, &["bin/busybox"]).unwrap_err().to_string(),
            "it holds no file named bin/busybox"
        );
        assert_eq!(
            extract(b"<html>", &["boot/"]).unwrap_err().to_string(),
            "it is no Debian package"
        );
        assert!(matches!(extract(&package(".lz9", FILES), &["boot/"]), Err(DebError::NoData)));
    }
}
