//! How a client wants its pixels: any true-colour format of 8, 16 or 32 bits.
//!
//! A pixel is the sum of three table look-ups, one per component. A client that wants a colour map
//! of 8 bits gets one with three bits of red, three of green and two of blue; it then is a
//! true-colour format as well.
//!
//! Source: RFC 6143, 7.4 (pixel format), 7.6.2 (SetColourMapEntries), 7.7.5 (CPIXEL).

/// A pixel format, ready for use.
pub(super) struct PixelFormat {
    bytes: usize,
    big_endian: bool,
    /// What each value of red, green and blue adds.
    tables: [Box<[u32; 256]>; 3],
    /// Which bytes of a pixel, lowest first, are those of ZRLE's compact form.
    compact: std::ops::Range<usize>,
}

/// Bits, depth and the rest of the format that the server begins with: 00RRGGBBH, little-endian.
pub(super) const NATIVE: [u8; 16] = [32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0];
/// Three, three and two bits, for clients with a colour map.
const MAPPED: [u8; 16] = [8, 8, 0, 1, 0, 7, 0, 7, 0, 3, 0, 3, 6, 0, 0, 0];

impl PixelFormat {
    /// Parses the format of the protocol, and tells whether it has a colour map, which the client
    /// must be sent. `None` for one that makes no sense.
    pub(super) fn parse(format: &[u8; 16]) -> Option<(PixelFormat, bool)> {
        let [bits, depth, big_endian, true_colour, r1, r0, g1, g0, b1, b0, r, g, b, ..] = *format;
        if true_colour == 0 {
            return (bits == 8).then(|| Self::parse(&MAPPED).map(|f| (f.0, true)))?;
        }
        let maxima = [[r1, r0], [g1, g0], [b1, b0]].map(|max| u64::from(u16::from_be_bytes(max)));
        let shifts = [r, g, b];
        let fits = |(max, shift): (u64, u8)| {
            max > 0 && shift < bits && max << shift < 1 << bits && (max + 1).is_power_of_two()
        };
        if !matches!(bits, 8 | 16 | 32) || !maxima.into_iter().zip(shifts).all(fits) {
            return None;
        }
        let table = |n: usize| {
            Box::new(std::array::from_fn(|value| {
                let scaled = (value as u64 * maxima[n] + 127) / 255;
                (scaled << shifts[n]) as u32
            }))
        };
        let used = (0..3).fold(0u64, |used, n| used | maxima[n] << shifts[n]);
        let bytes = usize::from(bits / 8);
        let compact = match (bits == 32 && depth <= 24, used) {
            (true, ..=0xff_ffff) => 0..3,
            (true, used) if used & 0xff == 0 => 1..4,
            _ => 0..bytes,
        };
        let tables = [table(0), table(1), table(2)];
        Some((PixelFormat { bytes, big_endian: big_endian != 0, tables, compact }, false))
    }

    fn put_bytes(&self, out: &mut Vec<u8>, pixel: u32, which: std::ops::Range<usize>) {
        let [_, r, g, b] = pixel.to_be_bytes().map(usize::from);
        let [red, green, blue] = &self.tables;
        let mut bytes = (red[r] | green[g] | blue[b]).to_le_bytes();
        let bytes = &mut bytes[which];
        if self.big_endian {
            bytes.reverse();
        }
        out.extend_from_slice(bytes);
    }

    /// Appends a pixel (XRGB).
    pub(super) fn put(&self, out: &mut Vec<u8>, pixel: u32) {
        self.put_bytes(out, pixel, 0..self.bytes);
    }

    /// Appends a pixel in ZRLE's compact form.
    pub(super) fn put_compact(&self, out: &mut Vec<u8>, pixel: u32) {
        self.put_bytes(out, pixel, self.compact.clone());
    }

    /// Bytes of a pixel in ZRLE's compact form.
    pub(super) fn compact_len(&self) -> usize {
        self.compact.len()
    }
}

/// The message with the colour map of eight-bit pixels.
pub(super) fn colour_map() -> Vec<u8> {
    let mut message = vec![1, 0, 0, 0, 1, 0];
    for index in 0..256u32 {
        for (max, shift) in [(7, 0), (7, 3), (3, 6)] {
            let value = (index >> shift & max) * 0xffff / max;
            message.extend((value as u16).to_be_bytes());
        }
    }
    message
}
