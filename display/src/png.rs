//! A frame as a PNG file: eight bits of red, green and blue.

use crate::Frame;
use png::{BitDepth, ColorType, Encoder, EncodingError};
use std::io::Write;

/// Writes `frame` to `out` as a PNG file.
///
/// # Errors
/// What `out` says; a frame without pixels is no PNG file.
pub fn write(frame: &Frame, out: impl Write) -> std::io::Result<()> {
    let invalid = |e: EncodingError| match e {
        EncodingError::IoError(e) => e,
        e => std::io::Error::new(std::io::ErrorKind::InvalidInput, e),
    };
    let mut encoder = Encoder::new(out, frame.width as u32, frame.height as u32);
    encoder.set_color(ColorType::Rgb);
    encoder.set_depth(BitDepth::Eight);
    let bytes: Vec<u8> =
        frame.pixels.iter().flat_map(|pixel| pixel.to_be_bytes().into_iter().skip(1)).collect();
    let mut writer = encoder.write_header().map_err(invalid)?;
    writer.write_image_data(&bytes).map_err(invalid)?;
    writer.finish().map_err(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_png_reads_back() {
        let pixels: Vec<u32> = (0..7 * 5).map(|n| n * 0x03_05_07).collect();
        let frame = Frame { width: 7, height: 5, pixels };
        let mut file = Vec::new();
        write(&frame, &mut file).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(file)).read_info().unwrap();
        let mut bytes = vec![0; 7 * 5 * 3];
        let info = reader.next_frame(&mut bytes).unwrap();
        assert_eq!((info.width, info.height, info.color_type), (7, 5, ColorType::Rgb));
        let read: Vec<u32> =
            bytes.chunks(3).map(|b| u32::from_be_bytes([0, b[0], b[1], b[2]])).collect();
        assert_eq!(read, frame.pixels);
        assert!(write(&Frame::default(), Vec::new()).is_err());
    }
}
