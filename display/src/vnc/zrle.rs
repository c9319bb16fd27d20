//! ZRLE: tiles of 64 × 64 pixels, each in the shortest of five forms, through one zlib stream.
//!
//! Source: RFC 6143, 7.7.6.

use super::format::PixelFormat;
use flate2::{Compress, Compression, FlushCompress};

const TILE: usize = 64;
/// The most colours of a palette with packed indices, and with runs.
const PACKED: usize = 16;
const PALETTE: usize = 127;

pub(super) struct Zrle {
    stream: Compress,
    plain: Vec<u8>,
    tile: Vec<u32>,
}

/// How many bytes the length of a run takes.
fn length_bytes(run: usize) -> usize {
    (run - 1) / 255 + 1
}

fn put_length(out: &mut Vec<u8>, run: usize) {
    out.resize(out.len() + (run - 1) / 255, 255);
    out.push(((run - 1) % 255) as u8);
}

/// Runs of the same pixel and how long they are.
fn runs(tile: &[u32]) -> impl Iterator<Item = (u32, usize)> {
    tile.chunk_by(|a, b| a == b).map(|run| (run[0], run.len()))
}

impl Zrle {
    pub(super) fn new() -> Zrle {
        let stream = Compress::new(Compression::new(3), true);
        Zrle { stream, plain: Vec::new(), tile: Vec::new() }
    }

    /// Appends the rectangle of `width` × `height` pixels, whose line `y` is `line(y)`.
    pub(super) fn encode<'a>(
        &mut self,
        out: &mut Vec<u8>,
        format: &PixelFormat,
        (width, height): (usize, usize),
        line: impl Fn(usize) -> &'a [u32],
    ) {
        self.plain.clear();
        for y in (0..height).step_by(TILE) {
            for x in (0..width).step_by(TILE) {
                let columns = x..width.min(x + TILE);
                self.tile.clear();
                for y in y..height.min(y + TILE) {
                    self.tile.extend_from_slice(&line(y)[columns.clone()]);
                }
                put_tile(&mut self.plain, format, &self.tile, columns.len());
            }
        }
        let length = out.len();
        out.extend([0; 4]);
        let mut input = self.plain.as_slice();
        loop {
            out.reserve(input.len() / 4 + 4096);
            let before = self.stream.total_in();
            // Deflating what is in memory has no way to fail.
            let _ = self.stream.compress_vec(input, out, FlushCompress::Sync);
            input = &input[(self.stream.total_in() - before) as usize..];
            if input.is_empty() && out.len() < out.capacity() {
                break;
            }
        }
        let compressed = (out.len() - length - 4) as u32;
        out[length..length + 4].copy_from_slice(&compressed.to_be_bytes());
    }
}

fn put_tile(out: &mut Vec<u8>, format: &PixelFormat, tile: &[u32], width: usize) {
    let mut palette = Vec::new();
    let (mut plain_runs, mut palette_runs) = (0, 0);
    for (pixel, run) in runs(tile) {
        if palette.len() <= PALETTE && !palette.contains(&pixel) {
            palette.push(pixel);
        }
        plain_runs += format.compact_len() + length_bytes(run);
        palette_runs += if run == 1 { 1 } else { 1 + length_bytes(run) };
    }
    let colours = palette.len();
    let index = |pixel| palette.iter().position(|&p| p == pixel).unwrap_or(0) as u8;
    let put_palette = |out: &mut Vec<u8>, kind: usize| {
        out.push(kind as u8);
        palette.iter().for_each(|&pixel| format.put_compact(out, pixel));
    };
    if colours == 1 {
        return put_palette(out, 1);
    }
    let bits = [(2, 1), (4, 2), (PACKED, 4)].into_iter().find(|&(most, _)| colours <= most);
    let palette_len = colours * format.compact_len();
    let packed = bits.map_or(usize::MAX, |(_, bits)| {
        palette_len + tile.len() / width * (width * bits).div_ceil(8)
    });
    let palette_runs = if colours <= PALETTE { palette_len + palette_runs } else { usize::MAX };
    let raw = tile.len() * format.compact_len();
    let least = raw.min(packed).min(plain_runs).min(palette_runs);
    if least == raw {
        out.push(0);
        tile.iter().for_each(|&pixel| format.put_compact(out, pixel));
    } else if least == packed {
        put_palette(out, colours);
        let bits = bits.map_or(4, |(_, bits)| bits);
        for line in tile.chunks(width) {
            for group in line.chunks(8 / bits) {
                let byte = group.iter().fold(0, |byte, &pixel| byte << bits | index(pixel));
                out.push(byte << (bits * (8 / bits - group.len())));
            }
        }
    } else if least == plain_runs {
        out.push(128);
        for (pixel, run) in runs(tile) {
            format.put_compact(out, pixel);
            put_length(out, run);
        }
    } else {
        put_palette(out, 128 + colours);
        for (pixel, run) in runs(tile) {
            if run == 1 {
                out.push(index(pixel));
            } else {
                out.push(128 | index(pixel));
                put_length(out, run);
            }
        }
    }
}
