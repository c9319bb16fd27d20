//! The Bochs display interface: sixteen-bit registers that set a linear mode without any of the
//! VGA's timing.
//!
//! Registers are written at any time, so that any of them may make no sense together. What is drawn
//! is therefore a layout that is worked out anew after each write, brought within video memory.
//!
//! Source: Bochs `vbe_display_api.txt`; QEMU `docs/specs/standard-vga.rst`. Widths are multiples of
//! eight there.

const ID: u16 = 0;
const XRES: u16 = 1;
const YRES: u16 = 2;
const BPP: u16 = 3;
const ENABLE: u16 = 4;
const BANK: u16 = 5;
const VIRT_WIDTH: u16 = 6;
const VIRT_HEIGHT: u16 = 7;
const X_OFFSET: u16 = 8;
const Y_OFFSET: u16 = 9;
const VIDEO_MEMORY_64K: u16 = 10;

/// ID0 to ID5: what drivers ask for.
const IDS: std::ops::RangeInclusive<u16> = 0xb0c0..=0xb0c5;

const ENABLED: u16 = 0x01;
const GETCAPS: u16 = 0x02;
const ENABLE_8BIT_DAC: u16 = 0x20;
const NOCLEARMEM: u16 = 0x80;

const MAX_XRES: u16 = 2560;
const MAX_YRES: u16 = 1600;
const MAX_BPP: u16 = 32;

/// What a linear mode shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) width: u32,
    pub(super) height: u32,
    /// 4 (planar), 8 (palette), 15, 16, 24 or 32.
    pub(super) bpp: u16,
    /// Bytes from line to line.
    pub(super) pitch: u64,
    /// The first pixel, as a byte of video memory.
    pub(super) start: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Dispi {
    pub(super) index: u16,
    registers: [u16; 10],
    memory: u64,
}

impl Dispi {
    pub(super) fn new(memory: u64) -> Dispi {
        let mut registers = [0; 10];
        (registers[ID as usize], registers[BPP as usize]) = (*IDS.end(), 8);
        Dispi { index: 0, registers, memory }
    }

    fn get(&self, index: u16) -> u16 {
        self.registers[usize::from(index)]
    }

    pub(super) fn read(&self, index: u16) -> u16 {
        let capabilities = self.get(ENABLE) & GETCAPS != 0;
        match index {
            XRES if capabilities => MAX_XRES,
            YRES if capabilities => MAX_YRES,
            BPP if capabilities => MAX_BPP,
            VIRT_WIDTH => self.virtual_width() as u16,
            VIRT_HEIGHT => (self.memory / self.pitch()).min(0xffff) as u16,
            VIDEO_MEMORY_64K => (self.memory >> 16) as u16,
            _ => self.registers.get(usize::from(index)).copied().unwrap_or(0),
        }
    }

    /// Writes a register. Gives how many bytes of video memory that clears, from the first on.
    pub(super) fn write(&mut self, index: u16, value: u16) -> u64 {
        let at = usize::from(index);
        match index {
            ID if IDS.contains(&value) => self.registers[at] = value,
            XRES => self.registers[at] = (value & !7).clamp(8, MAX_XRES),
            YRES => self.registers[at] = value.clamp(1, MAX_YRES),
            BPP => {
                let known = matches!(value, 4 | 8 | 15 | 16 | 24 | 32);
                self.registers[at] = if known { value } else { 8 };
            }
            BANK => self.registers[at] = value & ((self.memory >> 16) as u16).wrapping_sub(1),
            VIRT_WIDTH | X_OFFSET | Y_OFFSET => self.registers[at] = value,
            ENABLE => {
                let starts = value & !self.get(ENABLE) & ENABLED != 0;
                self.registers[at] = value;
                if value & ENABLED == 0 {
                    self.registers[usize::from(BANK)] = 0;
                } else if starts {
                    for index in [VIRT_WIDTH, X_OFFSET, Y_OFFSET, BANK] {
                        self.registers[usize::from(index)] = 0;
                    }
                    if value & NOCLEARMEM == 0 {
                        let shown = self.layout();
                        return (shown.pitch * u64::from(shown.height)).min(self.memory);
                    }
                }
            }
            _ => {}
        }
        0
    }

    pub(super) fn enabled(&self) -> bool {
        self.get(ENABLE) & ENABLED != 0
    }

    pub(super) fn wide_dac(&self) -> bool {
        self.get(ENABLE) & ENABLE_8BIT_DAC != 0
    }

    /// A linear mode is on: the window shows a bank of it.
    pub(super) fn linear(&self) -> bool {
        self.enabled() && self.get(BPP) != 4
    }

    /// The first byte of the bank in the window: of video memory, or of each plane.
    pub(super) fn bank(&self) -> u64 {
        if self.enabled() { u64::from(self.get(BANK)) << 16 } else { 0 }
    }

    fn virtual_width(&self) -> u64 {
        u64::from(self.get(VIRT_WIDTH).max(self.get(XRES)).max(8))
    }

    fn bits(&self) -> u64 {
        u64::from(self.get(BPP)).next_multiple_of(4)
    }

    fn pitch(&self) -> u64 {
        // Planar lines are whole groups of eight pixels.
        self.virtual_width().next_multiple_of(8) * self.bits() / 8
    }

    pub(super) fn layout(&self) -> Layout {
        let (pitch, width) = (self.pitch(), u64::from(self.get(XRES).max(8)));
        let lines = self.memory / pitch;
        let height = u64::from(self.get(YRES).max(1)).min(lines);
        let x = u64::from(self.get(X_OFFSET)).min(self.virtual_width() - width);
        let y = u64::from(self.get(Y_OFFSET)).min(lines - height);
        Layout {
            width: width as u32,
            height: height as u32,
            bpp: self.get(BPP),
            pitch,
            start: y * pitch + x * self.bits() / 8,
        }
    }
}
