//! The digital-to-analog converter: 256 colours of three components, 6 bits each, or 8 when the
//! display interface says so.
//!
//! Port 3C6H is the mask that each pixel goes through, 3C7H the index to read from (and, read, what
//! was done last), 3C8H the index to write at, 3C9H the components, red first.
//!
//! Source: IBM VGA/XGA Technical Reference Manual, "Video Digital-to-Analog Converter".

#[derive(Clone, Debug)]
pub(super) struct Dac {
    mask: u8,
    colours: Box<[[u8; 3]; 256]>,
    /// The next colour and component to read, and to write.
    reads: (u8, u8),
    writes: (u8, u8),
    reading: bool,
    /// Components have 8 bits.
    pub(super) wide: bool,
}

impl Default for Dac {
    fn default() -> Dac {
        Dac {
            mask: 0xff,
            colours: Box::new([[0; 3]; 256]),
            reads: (0, 0),
            writes: (0, 0),
            reading: false,
            wide: false,
        }
    }
}

/// Steps to the next component.
fn next((index, component): (u8, u8)) -> (u8, u8) {
    if component == 2 { (index.wrapping_add(1), 0) } else { (index, component + 1) }
}

impl Dac {
    pub(super) fn read(&mut self, port: u16) -> u8 {
        match port {
            0x3c6 => self.mask,
            0x3c7 => 3 * u8::from(self.reading),
            0x3c8 => self.writes.0,
            _ => {
                let (index, component) = self.reads;
                self.reads = next(self.reads);
                self.colours[usize::from(index)][usize::from(component)]
            }
        }
    }

    pub(super) fn write(&mut self, port: u16, value: u8) {
        match port {
            0x3c6 => self.mask = value,
            0x3c7 => (self.reads, self.reading) = ((value, 0), true),
            0x3c8 => (self.writes, self.reading) = ((value, 0), false),
            _ => {
                let (index, component) = self.writes;
                let bits = if self.wide { 0xff } else { 0x3f };
                self.colours[usize::from(index)][usize::from(component)] = value & bits;
                self.writes = next(self.writes);
            }
        }
    }

    /// The colour of pixel value `index`, as XRGB.
    pub(super) fn colour(&self, index: u8) -> u32 {
        let scaled = |c: u8| if self.wide { c } else { c << 2 | c >> 4 & 3 };
        let [r, g, b] = self.colours[usize::from(index & self.mask)].map(scaled);
        u32::from_be_bytes([0, r, g, b])
    }
}
