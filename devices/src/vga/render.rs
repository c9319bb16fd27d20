//! What the monitor shows: a frame, drawn from video memory and registers when somebody asks.
//!
//! A frame of a VGA mode has the dots and scan lines of the signal: mode 13H, whose pixels are two
//! dots wide and two lines high, is 640 × 400. A linear mode has its own size.
//!
//! Source: IBM VGA/XGA Technical Reference Manual, "Modes of Operation"; Bochs
//! `vbe_display_api.txt` for linear modes.

use super::Vga;
use super::dispi::Layout;
use super::registers::*;
use super::text::spread;
use super::timing::Beam;

/// A picture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// Pixels in a line.
    pub width: usize,
    /// Lines.
    pub height: usize,
    /// Pixels, line by line from the top: 00RRGGBBH.
    pub pixels: Vec<u32>,
}

impl Frame {
    fn black(width: usize, height: usize) -> Frame {
        Frame { width, height, pixels: vec![0; width * height] }
    }

    pub(super) fn lines_mut(&mut self) -> impl Iterator<Item = &mut [u32]> {
        self.pixels.chunks_mut(self.width.max(1))
    }
}

/// `value`, of `bits` bits, as eight bits.
fn widened(value: u32, bits: u32) -> u32 {
    let value = value & ((1 << bits) - 1);
    value << (8 - bits) | value >> (2 * bits - 8)
}

/// A pixel of 15 or 16 bits as XRGB.
fn direct(pixel: u16, green: u32) -> u32 {
    let pixel = u32::from(pixel);
    let (r, g) = (widened(pixel >> (5 + green), 5), widened(pixel >> 5, green));
    r << 16 | g << 8 | widened(pixel, 5)
}

/// Bit `n` from the left of each of the four planes, plane 0's lowest.
fn planar(group: u32, n: u32) -> usize {
    let bits = group >> (7 - n);
    (bits & 1 | bits >> 7 & 2 | bits >> 14 & 4 | bits >> 21 & 8) as usize
}

/// Pixel `n` of eight in the CGA's format: two bits of plane 0, then of plane 1; planes 2 and 3
/// have the high bits.
fn interleaved(group: u32, n: u32) -> usize {
    let bits = group >> (n / 4 * 8) >> (6 - 2 * (n % 4));
    (bits & 3 | bits >> 14 & 0x0c) as usize
}

impl Vga {
    /// Nothing is shown.
    pub(super) fn blank(&self) -> bool {
        self.regs.palette_is_open() || !self.dispi.enabled() && self.regs.screen_off()
    }

    /// The picture at `now`: blinking is the only thing that time changes.
    #[must_use]
    pub fn render(&self, now: u64) -> Frame {
        if self.dispi.enabled() {
            return self.render_linear(self.dispi.layout());
        }
        let regs = &self.regs;
        let dots = if regs.is_graphics() { 8 } else { regs.dots() };
        let width = regs.columns() * dots * regs.dot_repeats();
        let mut frame = Frame::black(width, regs.height() as usize);
        let beam: Beam = self.beam(now);
        match (self.blank(), regs.is_graphics()) {
            (true, _) => {}
            (_, false) => self.render_text(&mut frame, beam),
            (_, true) => self.render_graphics(&mut frame),
        }
        frame
    }

    fn render_graphics(&self, frame: &mut Frame) {
        let regs = &self.regs;
        let mode = regs.graphics[GC_MODE];
        let colours = regs.palette().map(|index| self.dac.colour(index));
        let columns = regs.columns();
        let mut dots = Vec::with_capacity((columns + 1) * 8);
        for (line, pixels) in regs.lines().zip(frame.lines_mut()) {
            dots.clear();
            for address in (line.address..).take(columns + 1) {
                let group = self.memory.read_u32(regs.scan_address(address, line.row));
                if mode & COLOURS_256 != 0 {
                    // Two dots a pixel.
                    for byte in group.to_le_bytes() {
                        dots.extend([self.dac.colour(byte); 2]);
                    }
                } else if mode & SHIFT_INTERLEAVED != 0 {
                    dots.extend((0..8).map(|n| colours[interleaved(group, n)]));
                } else {
                    dots.extend((0..8).map(|n| colours[planar(group, n)]));
                }
            }
            // Panned by dots, two a pixel with 256 colours: the register's bit 0 is 0 then.
            let panned = usize::from(line.panning.unwrap_or(0) & 7);
            spread(&dots[panned..], regs.dot_repeats(), pixels);
        }
    }

    fn render_linear(&self, layout: Layout) -> Frame {
        let Layout { width, height, bpp, pitch, start } = layout;
        let mut frame = Frame::black(width as usize, height as usize);
        if self.blank() {
            return frame;
        }
        let colours = self.regs.palette().map(|index| self.dac.colour(index));
        // A line of planes may begin within a group: one more.
        let mut bytes = vec![0; width as usize * usize::from(bpp).next_multiple_of(8) / 8 + 4];
        let half = |b: &[u8]| {
            let pair = [b[0], b[1]];
            if self.big_endian { u16::from_be_bytes(pair) } else { u16::from_le_bytes(pair) }
        };
        for (y, pixels) in (0..).zip(frame.lines_mut()) {
            let at = start + y * pitch;
            self.memory.read(if bpp == 4 { at & !3 } else { at }, &mut bytes);
            match bpp {
                4 => {
                    let skipped = (at & 3) as u32 * 2;
                    for (n, pixel) in (skipped..).zip(pixels) {
                        let group = bytes[n as usize / 8 * 4..].first_chunk().copied();
                        let group = u32::from_le_bytes(group.unwrap_or_default());
                        *pixel = colours[planar(group, n % 8)];
                    }
                }
                8 => pixels.iter_mut().zip(&bytes).for_each(|(p, &b)| *p = self.dac.colour(b)),
                15 | 16 => {
                    let green = u32::from(bpp) - 10;
                    let chunks = bytes.chunks_exact(2);
                    pixels.iter_mut().zip(chunks).for_each(|(p, b)| *p = direct(half(b), green));
                }
                24 => {
                    let chunks = bytes.chunks_exact(3);
                    let pixel = |b: &[u8]| u32::from_le_bytes([b[0], b[1], b[2], 0]);
                    pixels.iter_mut().zip(chunks).for_each(|(p, b)| *p = pixel(b));
                }
                _ => {
                    let pixel = |b: &[u8]| match self.big_endian {
                        true => u32::from_be_bytes([b[0], b[1], b[2], b[3]]),
                        false => u32::from_le_bytes([b[0], b[1], b[2], b[3]]),
                    };
                    let chunks = bytes.chunks_exact(4);
                    pixels.iter_mut().zip(chunks).for_each(|(p, b)| *p = pixel(b) & 0xff_ffff);
                }
            }
        }
        frame
    }
}
