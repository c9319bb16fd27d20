//! Takes the kernel proper, an ELF file, out of a bzImage.
//!
//! A bzImage is boot-sector code, set-up code, and a decompressor with the compressed kernel
//! inside. Booting the ELF file directly (PVH) saves the guest the decompression, and gives
//! debuggers and benchmarks an image at known addresses. Since boot protocol 2.08 the header says
//! where the compressed payload lies: gzip, xz, zstd, or LZ4's legacy frames. All but gzip carry
//! the uncompressed size as four more bytes at the end.
//!
//! Source: Linux `Documentation/arch/x86/boot.rst`; LZ4 frame format, "Legacy frame".

use std::io::{self, Read};

/// Why an image could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The boot header (`HdrS`) is missing or older than protocol 2.08 (February 2008).
    #[error("the kernel is no bzImage of boot protocol 2.08 or later")]
    NotABzImage,
    /// The header's payload lies outside the file.
    #[error(
        "the bzImage is cut off: its payload of {length} bytes at {offset:#x} is beyond the end ({size} bytes)"
    )]
    Truncated {
        /// The payload's offset in the file, in bytes.
        offset: usize,
        /// The payload's length in bytes.
        length: usize,
        /// The size of the file in bytes.
        size: usize,
    },
    /// The payload begins with this magic number, which is none of the four known ones.
    #[error("the compression of the bzImage is not supported (it begins {0:02x?})")]
    Compression([u8; 4]),
    /// The payload is damaged.
    #[error("the payload of the bzImage is damaged ({0})")]
    Payload(#[from] io::Error),
}

/// Larger kernels are taken for damaged size fields, bytes.
const MAX: u64 = 1 << 30;

fn le(image: &[u8], at: usize, width: usize) -> Option<usize> {
    let field = image.get(at..at.checked_add(width)?)?;
    Some(field.iter().rev().fold(0, |value, &byte| value << 8 | usize::from(byte)))
}

/// The version of a bzImage, as `uname -r` will print it in the guest.
#[must_use]
pub fn version(image: &[u8]) -> Option<String> {
    // `kernel_version` counts from the end of the boot sector.
    let text = image.get(le(image, 0x20e, 2)? + 0x200..)?;
    let end = text.iter().take(256).position(|byte| b" \0".contains(byte))?;
    String::from_utf8(text[..end].to_vec()).ok().filter(|version| !version.is_empty())
}

/// The uncompressed ELF file within the bzImage `image`. A relocatable kernel's relocation table
/// follows the ELF file's own bytes.
///
/// # Errors
/// [`ImageError`] when the image is something else, damaged, or compressed in an unknown way.
pub fn vmlinux(image: &[u8]) -> Result<Vec<u8>, ImageError> {
    let header = |at, width| le(image, at, width).ok_or(ImageError::NotABzImage);
    if image.get(0x202..0x206) != Some(b"HdrS") || header(0x206, 2)? < 0x208 {
        return Err(ImageError::NotABzImage);
    }
    let setup_sects = match header(0x1f1, 1)? {
        0 => 4,
        n => n,
    };
    let offset = (setup_sects + 1) * 512 + header(0x248, 4)?;
    let length = header(0x24c, 4)?;
    let truncated = ImageError::Truncated { offset, length, size: image.len() };
    let payload = image.get(offset..offset.saturating_add(length)).ok_or(truncated)?;

    let mut elf = Vec::new();
    match *payload {
        [0x1f, 0x8b, ..] => {
            flate2::read::GzDecoder::new(payload).take(MAX).read_to_end(&mut elf)?
        }
        [0xfd, b'7', b'z', b'X', ..] => {
            lzma_rust2::XzReader::new(payload, false).take(MAX).read_to_end(&mut elf)?
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => ruzstd::decoding::StreamingDecoder::new(payload)
            .map_err(io::Error::other)?
            .take(MAX)
            .read_to_end(&mut elf)?,
        [0x02, 0x21, 0x4c, 0x18, ref blocks @ ..] => lz4_legacy(blocks, &mut elf)?,
        [a, b, c, d, ..] => return Err(ImageError::Compression([a, b, c, d])),
        _ => return Err(ImageError::NotABzImage),
    };
    if !elf.starts_with(b"\x7fELF") {
        return Err(io::Error::other("it holds no ELF file").into());
    }
    Ok(elf)
}

/// LZ4's legacy frame after its magic number: blocks of at most 8 MiB, each behind its compressed
/// size; then the total size, which would be read as one more block if the output did not tell the
/// end.
fn lz4_legacy(mut blocks: &[u8], out: &mut Vec<u8>) -> io::Result<usize> {
    let damaged = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let total = blocks.len().checked_sub(4).and_then(|at| le(blocks, at, 4)).ok_or_else(damaged)?;
    if total as u64 > MAX {
        return Err(io::Error::other(format!("it claims {total} bytes")));
    }
    out.resize(total, 0);
    let mut done = 0;
    while done < total {
        let size = le(blocks, 0, 4).ok_or_else(damaged)?;
        let block = blocks.get(4..size.saturating_add(4)).ok_or_else(damaged)?;
        let n =
            lz4_flex::block::decompress_into(block, &mut out[done..]).map_err(io::Error::other)?;
        if n == 0 {
            return Err(damaged());
        }
        done += n;
        blocks = &blocks[size + 4..];
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn elf() -> Vec<u8> {
        let mut elf = b"\x7fELF".to_vec();
        elf.extend((0..40_000u32).flat_map(|i| (i / 7).to_le_bytes()));
        elf
    }

    fn bz_image(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 3 * 512 + 16];
        image[0x1f1] = 2;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&0x20fu16.to_le_bytes());
        image[0x20e..0x210].copy_from_slice(&0x100u16.to_le_bytes());
        image[0x248..0x24c].copy_from_slice(&16u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        image[0x300..0x310].copy_from_slice(b"6.1.0-x (a@b) #1");
        image.extend_from_slice(payload);
        image.extend_from_slice(b"signature");
        image
    }

    fn lz4(elf: &[u8]) -> Vec<u8> {
        let mut payload = vec![0x02, 0x21, 0x4c, 0x18];
        for chunk in elf.chunks(60_000) {
            let block = lz4_flex::block::compress(chunk);
            payload.extend_from_slice(&(block.len() as u32).to_le_bytes());
            payload.extend_from_slice(&block);
        }
        payload
    }

    #[test]
    fn every_compression_yields_the_elf_file() {
        let elf = elf();
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&elf).unwrap();
        let mut xz =
            lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::default()).unwrap();
        xz.write_all(&elf).unwrap();
        let zstd = ruzstd::encoding::compress_to_vec(
            &elf[..],
            ruzstd::encoding::CompressionLevel::Fastest,
        );
        for mut payload in [xz.finish().unwrap(), zstd, lz4(&elf)] {
            payload.extend_from_slice(&(elf.len() as u32).to_le_bytes());
            assert_eq!(vmlinux(&bz_image(&payload)).unwrap(), elf, "{:02x?}", &payload[..4]);
        }
        assert_eq!(vmlinux(&bz_image(&gz.finish().unwrap())).unwrap(), elf);
    }

    #[test]
    fn the_version_ends_at_the_space() {
        assert_eq!(version(&bz_image(&[])).as_deref(), Some("6.1.0-x"));
        assert_eq!(version(&[0; 64]), None);
    }

    #[test]
    fn damaged_images_are_refused() {
        let mut payload = lz4(&elf());
        payload.extend_from_slice(&(elf().len() as u32).to_le_bytes());
        let image = bz_image(&payload);
        for len in (0..image.len() - b"signature".len()).step_by(61) {
            assert!(vmlinux(&image[..len]).is_err(), "{len} of {}", image.len());
        }
        let mut huge = payload.clone();
        let at = huge.len() - 4;
        huge[at..].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(vmlinux(&bz_image(&huge)), Err(ImageError::Payload(_))));
        assert!(matches!(vmlinux(&bz_image(b"????????")), Err(ImageError::Compression(_))));
        assert!(matches!(vmlinux(b"MZ"), Err(ImageError::NotABzImage)));
    }
}
