//! The registers behind ports 3C0H–3DFH: sequencer, CRT controller, graphics controller, attribute
//! controller and the general ones.
//!
//! Each controller has an index port and a data port; the attribute controller has one port for
//! both, 3C0H, which takes them in turns. Unused bits do not stay: a row of masks per controller.
//!
//! Source: IBM VGA/XGA Technical Reference Manual, "General Registers" to "Attribute Controller
//! Registers".

pub(super) const SEQ_CLOCKING_MODE: usize = 1;
pub(super) const SEQ_MAP_MASK: usize = 2;
pub(super) const SEQ_CHARACTER_MAP_SELECT: usize = 3;
pub(super) const SEQ_MEMORY_MODE: usize = 4;

/// Clocking mode: characters of 8 dots, dot clock halved, screen off.
pub(super) const DOTS_8: u8 = 0x01;
pub(super) const DOT_CLOCK_2: u8 = 0x08;
pub(super) const SCREEN_OFF: u8 = 0x20;
/// Memory mode: odd/even addressing is off; chain 4.
pub(super) const ODD_EVEN_OFF: u8 = 0x04;
pub(super) const CHAIN_4: u8 = 0x08;

pub(super) const GC_SET_RESET: usize = 0;
pub(super) const GC_ENABLE_SET_RESET: usize = 1;
pub(super) const GC_COLOR_COMPARE: usize = 2;
pub(super) const GC_DATA_ROTATE: usize = 3;
pub(super) const GC_READ_MAP_SELECT: usize = 4;
pub(super) const GC_MODE: usize = 5;
pub(super) const GC_MISCELLANEOUS: usize = 6;
pub(super) const GC_COLOR_DONT_CARE: usize = 7;
pub(super) const GC_BIT_MASK: usize = 8;

/// Graphics mode: read mode 1, odd/even, shift registers interleaved, 256 colours.
pub(super) const READ_MODE_1: u8 = 0x08;
pub(super) const ODD_EVEN: u8 = 0x10;
pub(super) const SHIFT_INTERLEAVED: u8 = 0x20;
pub(super) const COLOURS_256: u8 = 0x40;
/// Miscellaneous: graphics mode.
const GRAPHICS: u8 = 0x01;

const CR_OVERFLOW: usize = 0x07;
const CR_PRESET_ROW_SCAN: usize = 0x08;
const CR_MAXIMUM_SCAN_LINE: usize = 0x09;
pub(super) const CR_CURSOR_START: usize = 0x0a;
pub(super) const CR_CURSOR_END: usize = 0x0b;
const CR_VERTICAL_RETRACE_END: usize = 0x11;
pub(super) const CR_UNDERLINE_LOCATION: usize = 0x14;
const CR_MODE_CONTROL: usize = 0x17;
/// Vertical retrace end: registers 0 to 7 are protected.
const PROTECT: u8 = 0x80;

pub(super) const ATTR_MODE: usize = 0x10;
const ATTR_COLOR_PLANE_ENABLE: usize = 0x12;
const ATTR_HORIZONTAL_PEL_PANNING: usize = 0x13;
const ATTR_COLOR_SELECT: usize = 0x14;
/// Attribute mode: the ninth dot of line characters, blinking, panning stops at the split, the
/// colour select register gives bits 4 and 5 too.
pub(super) const LINE_GRAPHICS: u8 = 0x04;
pub(super) const BLINK: u8 = 0x08;
const PANNING_COMPATIBILITY: u8 = 0x20;
const P54_SELECT: u8 = 0x80;
/// Internal palette address source, in the index: the screen is on.
const IPAS: u8 = 0x20;

const SEQUENCER_BITS: [u8; 8] = [0x03, 0x3d, 0x0f, 0x3f, 0x0e, 0, 0, 0];
const GRAPHICS_BITS: [u8; 9] = [0x0f, 0x0f, 0x0f, 0x1f, 0x03, 0x7b, 0x0f, 0x0f, 0xff];

/// One scan line of a VGA mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// The address counter at its first character.
    pub(super) address: u32,
    /// The row scan counter.
    pub(super) row: u8,
    /// Dots that are panned away on the left; the panning register as it is.
    pub(super) panning: Option<u8>,
    /// It is the first of a row of characters.
    pub(super) first: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Registers {
    misc: u8,
    feature: u8,
    enable: u8,
    sequencer_index: u8,
    pub(super) sequencer: [u8; 8],
    graphics_index: u8,
    pub(super) graphics: [u8; 9],
    crtc_index: u8,
    pub(super) crtc: [u8; 25],
    attribute_index: u8,
    /// The next write of 3C0H is data.
    pub(super) attribute_data: bool,
    pub(super) attribute: [u8; 21],
}

impl Registers {
    /// Reads a port other than those of the DAC and 3DAH.
    pub(super) fn read(&self, port: u16) -> u8 {
        let at =
            |registers: &[u8], index: u8| registers.get(usize::from(index)).copied().unwrap_or(0);
        match port {
            0x3c0 => self.attribute_index,
            0x3c1 => at(&self.attribute, self.attribute_index & 0x1f),
            0x3c2 => 0,
            0x3c3 => self.enable,
            0x3c4 => self.sequencer_index,
            0x3c5 => at(&self.sequencer, self.sequencer_index),
            0x3ca => self.feature,
            0x3cc => self.misc,
            0x3ce => self.graphics_index,
            0x3cf => at(&self.graphics, self.graphics_index),
            0x3d4 => self.crtc_index,
            0x3d5 => at(&self.crtc, self.crtc_index),
            _ => 0xff,
        }
    }

    /// Writes a port other than those of the DAC.
    pub(super) fn write(&mut self, port: u16, value: u8) {
        match port {
            0x3c0 => {
                if self.attribute_data {
                    self.set_attribute(value);
                } else {
                    self.attribute_index = value & 0x3f;
                }
                self.attribute_data = !self.attribute_data;
            }
            0x3c2 => self.misc = value & !0x10,
            0x3c3 => self.enable = value & 1,
            0x3c4 => self.sequencer_index = value & 7,
            0x3c5 => {
                let n = usize::from(self.sequencer_index);
                self.sequencer[n] = value & SEQUENCER_BITS[n];
            }
            0x3ce => self.graphics_index = value & 15,
            0x3cf => {
                let n = usize::from(self.graphics_index);
                if let Some(register) = self.graphics.get_mut(n) {
                    *register = value & GRAPHICS_BITS[n];
                }
            }
            0x3d4 => self.crtc_index = value,
            0x3d5 => self.set_crtc(value),
            0x3da => self.feature = value & 0x0b,
            _ => {}
        }
    }

    fn set_attribute(&mut self, value: u8) {
        let n = usize::from(self.attribute_index & 0x1f);
        if let Some(register) = self.attribute.get_mut(n) {
            *register = value
                & match n {
                    ATTR_MODE => 0xef,
                    0x11 => 0xff,
                    ATTR_HORIZONTAL_PEL_PANNING | ATTR_COLOR_SELECT => 0x0f,
                    _ => 0x3f,
                };
        }
    }

    fn set_crtc(&mut self, value: u8) {
        let n = usize::from(self.crtc_index);
        if n < 8 && self.crtc[CR_VERTICAL_RETRACE_END] & PROTECT != 0 {
            // All but bit 8 of line compare.
            if n == CR_OVERFLOW {
                self.crtc[n] = self.crtc[n] & !0x10 | value & 0x10;
            }
        } else if let Some(register) = self.crtc.get_mut(n) {
            *register = value;
        }
    }

    /// Miscellaneous output: the CRT controller is at 3D4H, not 3B4H.
    pub(super) fn is_colour(&self) -> bool {
        self.misc & 1 != 0
    }

    /// Frequency of the dot clock that is selected, before it is halved.
    pub(super) fn clock(&self) -> u64 {
        if self.misc & 0x0c == 0x04 { 28_322_000 } else { 25_175_000 }
    }

    /// The attribute controller shows nothing: its palette is being loaded.
    pub(super) fn palette_is_open(&self) -> bool {
        self.attribute_index & IPAS == 0
    }

    pub(super) fn screen_off(&self) -> bool {
        self.sequencer[SEQ_CLOCKING_MODE] & SCREEN_OFF != 0
    }

    pub(super) fn is_graphics(&self) -> bool {
        self.graphics[GC_MISCELLANEOUS] & GRAPHICS != 0
    }

    /// Dots that a character is wide in text modes.
    pub(super) fn dots(&self) -> usize {
        if self.sequencer[SEQ_CLOCKING_MODE] & DOTS_8 != 0 { 8 } else { 9 }
    }

    /// How often each dot is shown.
    pub(super) fn dot_repeats(&self) -> usize {
        1 + usize::from(self.sequencer[SEQ_CLOCKING_MODE] & DOT_CLOCK_2 != 0)
    }

    /// Characters (eight or nine dots) in a line.
    pub(super) fn columns(&self) -> usize {
        usize::from(self.crtc[1]) + 1
    }

    /// A vertical count: its low eight bits in a register, bits 8 and 9 in the overflow register.
    fn vertical(&self, register: usize, bit8: u8, bit9: u8) -> u32 {
        let bit = |n: u8| u32::from(self.crtc[CR_OVERFLOW] >> n & 1);
        u32::from(self.crtc[register]) | bit(bit8) << 8 | bit(bit9) << 9
    }

    /// Scan lines of a frame, with those that are not shown.
    pub(super) fn vertical_total(&self) -> u32 {
        self.vertical(0x06, 0, 5) + 2
    }

    /// Scan lines shown.
    pub(super) fn height(&self) -> u32 {
        self.vertical(0x12, 1, 6) + 1
    }

    /// The first line of the vertical retrace, and how many there are.
    pub(super) fn vertical_retrace(&self) -> (u32, u32) {
        let start = self.vertical(0x10, 2, 7);
        let len = u32::from(self.crtc[CR_VERTICAL_RETRACE_END]).wrapping_sub(start) & 15;
        (start, if len == 0 { 16 } else { len })
    }

    /// The last line above the split.
    fn line_compare(&self) -> u32 {
        let bit9 = u32::from(self.crtc[CR_MAXIMUM_SCAN_LINE] >> 6 & 1) << 9;
        self.vertical(0x18, 4, 4) & 0x1ff | bit9
    }

    /// The cursor's place, as the address counter counts.
    pub(super) fn cursor(&self) -> u32 {
        u32::from(self.crtc[0x0e]) << 8 | u32::from(self.crtc[0x0f])
    }

    /// The scan lines of a frame, from the top, as the counters of the CRT controller go.
    pub(super) fn lines(&self) -> impl Iterator<Item = Line> {
        let preset = self.crtc[CR_PRESET_ROW_SCAN];
        let maximum = self.crtc[CR_MAXIMUM_SCAN_LINE] & 0x1f;
        let doubled = self.crtc[CR_MAXIMUM_SCAN_LINE] & 0x80 != 0;
        let offset = u32::from(self.crtc[0x13]) * 2;
        let start = u32::from(self.crtc[0x0c]) << 8 | u32::from(self.crtc[0x0d]);
        let mut line = Line {
            address: start + u32::from(preset >> 5 & 3),
            row: preset & 0x1f,
            panning: Some(self.attribute[ATTR_HORIZONTAL_PEL_PANNING]),
            first: true,
        };
        let mut again = doubled;
        (0..self.height()).map(move |y| {
            let this = line;
            line.first = false;
            if y == self.line_compare() {
                (line.address, line.row, line.first) = (0, 0, true);
                again = doubled;
                if self.attribute[ATTR_MODE] & PANNING_COMPATIBILITY != 0 {
                    line.panning = None;
                }
            } else if again {
                again = false;
            } else {
                again = doubled;
                if line.row == maximum {
                    line.address = line.address.wrapping_add(offset);
                    (line.row, line.first) = (0, true);
                } else {
                    line.row = line.row + 1 & 0x1f;
                }
            }
            this
        })
    }

    /// The byte of video memory where the four planes are that the address counter means.
    ///
    /// Bits 13 and 14 of the address may come from the row scan counter (CGA's and Hercules'
    /// interleaved lines). In word mode that is bits 12 and 13 here: odd/even addressing, which
    /// goes with it, has a byte of each plane at every address, not at every other.
    pub(super) fn scan_address(&self, counter: u32, row: u8) -> u64 {
        let mode = self.crtc[CR_MODE_CONTROL];
        let bit = if mode & 0x40 != 0 { 13 } else { 12 };
        let mut address = counter & 0xffff;
        if mode & 1 == 0 {
            address = address & !(1 << bit) | u32::from(row & 1) << bit;
        }
        if mode & 2 == 0 {
            address = address & !(2 << bit) | u32::from(row & 2) << bit;
        }
        u64::from(address & 0xffff) * 4
    }

    /// The DAC's index of each of 16 colours.
    pub(super) fn palette(&self) -> [u8; 16] {
        let select = self.attribute[ATTR_COLOR_SELECT];
        let enabled = usize::from(self.attribute[ATTR_COLOR_PLANE_ENABLE] & 15);
        std::array::from_fn(|n| {
            let colour = self.attribute[n & enabled];
            let low = if self.attribute[ATTR_MODE] & P54_SELECT != 0 {
                colour & 0x0f | select << 4 & 0x30
            } else {
                colour
            };
            low | select << 4 & 0xc0
        })
    }
}
