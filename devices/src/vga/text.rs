//! Text modes: a character and an attribute per cell (planes 0 and 1), glyphs in plane 2.
//!
//! A glyph is 32 bytes, a line of eight dots each; there is room for eight sets of 256. Attribute
//! bit 3 chooses between two of them and is the intensity of the foreground too.
//!
//! Source: IBM VGA/XGA Technical Reference Manual, "Alphanumeric Modes", "Character Map Select
//! Register", "Attribute Mode Control Register".

use super::registers::*;
use super::timing::Beam;
use super::{Frame, Vga};

/// Cursor start register: the cursor is off.
const CURSOR_OFF: u8 = 0x20;

/// What a text mode shows, for those who have glyphs of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextScreen {
    /// Cells in a row.
    pub columns: usize,
    /// Rows.
    pub rows: usize,
    /// Character (code page 437 unless the guest has glyphs of its own) and attribute of each
    /// cell, row by row from the top.
    pub cells: Vec<(u8, u8)>,
    /// Column and row of the cursor, when one is shown.
    pub cursor: Option<(usize, usize)>,
    /// Attribute bit 7 blinks; otherwise it is the intensity of the background.
    pub blink: bool,
}

impl Vga {
    /// The first byte in plane 2 of the glyphs for attribute bit 3 clear and set.
    fn glyphs(&self) -> [u32; 2] {
        let select = u32::from(self.regs.sequencer[SEQ_CHARACTER_MAP_SELECT]);
        // Map B, then map A; the third bit is the odd 8 KiB.
        let set = |low: u32, high: u32| (select >> low & 3) << 14 | (select >> high & 1) << 13;
        [set(0, 4), set(2, 5)]
    }

    fn cell(&self, address: u32, row: u8) -> (u8, u8) {
        let [character, attribute, ..] =
            self.memory.read_u32(self.regs.scan_address(address, row)).to_le_bytes();
        (character, attribute)
    }

    /// The scan lines of the cursor, when it has any.
    fn cursor_lines(&self) -> Option<std::ops::RangeInclusive<u8>> {
        let (start, end) = (self.regs.crtc[CR_CURSOR_START], self.regs.crtc[CR_CURSOR_END] & 0x1f);
        let lines = start & 0x1f..=end;
        (start & CURSOR_OFF == 0 && !lines.is_empty()).then_some(lines)
    }

    /// The characters on the screen; `None` in graphics modes. A screen that is off has spaces.
    #[must_use]
    pub fn text(&self) -> Option<TextScreen> {
        if self.dispi.enabled() || self.regs.is_graphics() {
            return None;
        }
        let columns = self.regs.columns();
        let mut screen = TextScreen {
            columns,
            blink: self.regs.attribute[ATTR_MODE] & BLINK != 0,
            ..TextScreen::default()
        };
        let (blank, cursor) = (self.blank(), self.regs.cursor());
        for line in self.regs.lines().filter(|line| line.first) {
            let cells = line.address..line.address + columns as u32;
            if cells.contains(&cursor) && !blank && self.cursor_lines().is_some() {
                screen.cursor = Some(((cursor - line.address) as usize, screen.rows));
            }
            let cell = |address| if blank { (b' ', 0) } else { self.cell(address, 0) };
            screen.cells.extend(cells.map(cell));
            screen.rows += 1;
        }
        Some(screen)
    }

    /// Draws a text mode.
    pub(super) fn render_text(&self, frame: &mut Frame, beam: Beam) {
        let regs = &self.regs;
        let (dots, repeats, columns) = (regs.dots(), regs.dot_repeats(), regs.columns());
        let mode = regs.attribute[ATTR_MODE];
        let colours = regs.palette().map(|index| self.dac.colour(index));
        let (glyphs, underline) = (self.glyphs(), regs.crtc[CR_UNDERLINE_LOCATION] & 0x1f);
        let cursor = self.cursor_lines().filter(|_| beam.cursor_is_on());
        let mut line_dots = Vec::with_capacity((columns + 1) * dots);
        for (line, pixels) in regs.lines().zip(frame.lines_mut()) {
            line_dots.clear();
            for address in (line.address..).take(columns + 1) {
                let (character, attribute) = self.cell(address, line.row);
                let set = glyphs[usize::from(attribute >> 3 & 1)];
                let glyph = set + 32 * u32::from(character) + u32::from(line.row);
                let mut bits = self.memory.read_u32(u64::from(glyph) * 4).to_le_bytes()[2];
                let mut background = attribute >> 4;
                if mode & BLINK != 0 {
                    background &= 7;
                    if attribute & 0x80 != 0 && !beam.blinking_is_on() {
                        bits = 0;
                    }
                }
                let underlined = line.row == underline && attribute & 0x77 == 1;
                let in_cursor = address == regs.cursor()
                    && cursor.as_ref().is_some_and(|lines| lines.contains(&line.row));
                if underlined || in_cursor {
                    bits = 0xff;
                }
                let ninth = in_cursor
                    || underlined
                    || bits & 1 != 0 && mode & LINE_GRAPHICS != 0 && character & 0xe0 == 0xc0;
                let shown = u32::from(bits) << 1 | u32::from(ninth);
                let pair = [background, attribute & 0x0f].map(|n| colours[usize::from(n)]);
                line_dots.extend((0..dots).map(|n| pair[(shown >> (8 - n) & 1) as usize]));
            }
            // With nine dots, 8 is "not panned" and 0 is one dot.
            let panned = match line.panning {
                None => 0,
                Some(n) if dots == 9 => {
                    if n >= 8 {
                        0
                    } else {
                        usize::from(n) + 1
                    }
                }
                Some(n) => usize::from(n & 7),
            };
            spread(&line_dots[panned..], repeats, pixels);
        }
    }
}

/// Shows each dot `repeats` times.
pub(super) fn spread(dots: &[u32], repeats: usize, pixels: &mut [u32]) {
    for (dot, pixels) in dots.iter().zip(pixels.chunks_mut(repeats)) {
        pixels.fill(*dot);
    }
}
