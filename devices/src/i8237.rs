//! The two 8237A DMA controllers of a PC/AT, with the page registers that extend their addresses.
//!
//! Channels 0 to 3 move bytes, 5 to 7 words; 4 takes the first controller's requests. Each channel
//! counts an address within 64 Ki bytes or words, and a count that ends (terminal count) when it
//! goes below 0. Registers of 16 bits are read and written by halves, which a flip-flop orders.
//!
//! Nothing moves by itself: a device that has its request line up lends its data to
//! [`write_memory`](Dma::write_memory) or [`read_memory`](Dma::read_memory). That channel 4 is
//! masked holds nothing back, so that a guest without firmware has DMA.
//!
//! Source: Intel 8237A datasheet (231466), register description; IBM PC/AT Technical Reference,
//! system board, DMA (page registers).

use emu_core::mem::Memory;

/// Command register: controller disabled.
const DISABLED: u8 = 4;
/// Mode register: transfer types, counting modes.
const TYPE: u8 = 0x0c;
const TYPE_WRITE: u8 = 4;
const TYPE_READ: u8 = 8;
const AUTOINITIALIZE: u8 = 0x10;
const DECREMENT: u8 = 0x20;
const CASCADE: u8 = 0xc0;
/// Where the page registers of channels 0 to 7 are, from port 80H.
const PAGES: [usize; 8] = [7, 3, 1, 2, 15, 11, 9, 10];

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Channel {
    base: u16,
    base_count: u16,
    address: u16,
    count: u16,
    mode: u8,
}

#[derive(Clone, Debug, PartialEq)]
struct Controller {
    channels: [Channel; 4],
    command: u8,
    /// Terminal counts that were reached and not read.
    reached: u8,
    requests: u8,
    masks: u8,
    /// The next half of a register is the high one.
    high: bool,
}

impl Controller {
    fn new() -> Controller {
        Controller {
            channels: [Channel::default(); 4],
            command: 0,
            reached: 0,
            requests: 0,
            masks: 15,
            high: false,
        }
    }

    fn read(&mut self, reg: u8) -> u8 {
        match reg & 15 {
            n @ 0..8 => {
                let c = &self.channels[usize::from(n >> 1)];
                let value = if n & 1 == 0 { c.address } else { c.count };
                self.high = !self.high;
                value.to_le_bytes()[usize::from(!self.high)]
            }
            8 => std::mem::take(&mut self.reached) | self.requests << 4,
            15 => self.masks | 0xf0,
            _ => 0,
        }
    }

    fn write(&mut self, reg: u8, value: u8) {
        let (channel, bit) = (usize::from(value & 3), 1 << (value & 3));
        match reg & 15 {
            n @ 0..8 => {
                let c = &mut self.channels[usize::from(n >> 1)];
                let (now, base) = match n & 1 {
                    0 => (&mut c.address, &mut c.base),
                    _ => (&mut c.count, &mut c.base_count),
                };
                let shift = 8 * u16::from(self.high);
                *base = *base & !(0xff << shift) | u16::from(value) << shift;
                *now = *base;
                self.high = !self.high;
            }
            8 => self.command = value,
            9 => self.requests = self.requests & !bit | if value & 4 != 0 { bit } else { 0 },
            10 => self.masks = self.masks & !bit | if value & 4 != 0 { bit } else { 0 },
            11 => self.channels[channel].mode = value,
            12 => self.high = false,
            13 => {
                // Master clear leaves addresses, counts and modes.
                let channels = self.channels;
                *self = Controller { channels, ..Controller::new() };
            }
            14 => self.masks = 0,
            _ => self.masks = value & 15,
        }
    }
}

/// How far a transfer went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Bytes of the device's data.
    pub bytes: usize,
    /// The channel has reached its terminal count: TC was given to the device.
    pub terminal_count: bool,
}

/// What a device lends.
enum Data<'a> {
    ToMemory(&'a [u8]),
    FromMemory(&'a mut [u8]),
}

/// Both controllers.
#[derive(Clone, Debug, PartialEq)]
pub struct Dma {
    controllers: [Controller; 2],
    pages: [u8; 16],
}

impl Default for Dma {
    fn default() -> Dma {
        Dma::new()
    }
}

impl Dma {
    /// Controllers after reset: all channels are masked.
    #[must_use]
    pub fn new() -> Dma {
        Dma { controllers: [Controller::new(), Controller::new()], pages: [0; 16] }
    }

    /// The RESET pin.
    pub fn reset(&mut self) {
        *self = Dma::new();
    }

    /// Reads register `reg` (0 to 15) of a controller: 0 is at ports 00H to 0FH, 1 at C0H to DFH,
    /// where registers are two ports apart.
    pub fn read(&mut self, controller: usize, reg: u8) -> u8 {
        self.controllers[controller & 1].read(reg)
    }

    /// Writes register `reg` of a controller.
    pub fn write(&mut self, controller: usize, reg: u8, value: u8) {
        self.controllers[controller & 1].write(reg, value);
    }

    /// Reads page register `reg` (0 to 15: ports 80H to 8FH).
    #[must_use]
    pub fn page_read(&self, reg: u8) -> u8 {
        self.pages[usize::from(reg & 15)]
    }

    /// Writes page register `reg`. Those of no channel only keep what is written.
    pub fn page_write(&mut self, reg: u8, value: u8) {
        self.pages[usize::from(reg & 15)] = value;
    }

    /// Moves `data` from a device on `channel` (0 to 7) to memory, as far as the channel's count
    /// and mask allow.
    pub fn write_memory(&mut self, memory: &Memory, channel: usize, data: &[u8]) -> Moved {
        self.transfer(memory, channel, data.len(), Data::ToMemory(data))
    }

    /// Fills `data` for a device on `channel` from memory, likewise.
    pub fn read_memory(&mut self, memory: &Memory, channel: usize, data: &mut [u8]) -> Moved {
        self.transfer(memory, channel, data.len(), Data::FromMemory(data))
    }

    fn transfer(&mut self, memory: &Memory, n: usize, len: usize, mut data: Data) -> Moved {
        let n = n & 7;
        let page = u64::from(self.pages[PAGES[n]]);
        let controller = &mut self.controllers[n >> 2];
        let (bit, mut moved) = (1 << (n & 3), Moved::default());
        let c = &mut controller.channels[n & 3];
        let held = controller.masks & bit != 0 || controller.command & DISABLED != 0;
        if held || n == 4 || c.mode & CASCADE == CASCADE {
            return moved;
        }
        // Bytes of a unit, and what the page register has above the address.
        let (unit, page) = if n < 4 { (1, page << 16) } else { (2, (page & 0xfe) << 16) };
        while len - moved.bytes >= unit && !moved.terminal_count {
            let run = match c.mode & DECREMENT {
                0 => (usize::from(c.count) + 1).min(0x1_0000 - usize::from(c.address)),
                _ => 1,
            };
            let run = run.min((len - moved.bytes) / unit);
            let at = page | u64::from(c.address) << (unit - 1);
            let bytes = moved.bytes..moved.bytes + run * unit;
            // Verify, or the wrong direction: all but the data.
            match (&mut data, c.mode & TYPE) {
                (Data::ToMemory(d), TYPE_WRITE) => memory.write(at, &d[bytes]),
                (Data::FromMemory(d), TYPE_READ) => memory.read(at, &mut d[bytes]),
                _ => {}
            }
            moved.bytes += run * unit;
            moved.terminal_count = run > usize::from(c.count);
            c.count = c.count.wrapping_sub(run as u16);
            c.address = match c.mode & DECREMENT {
                0 => c.address.wrapping_add(run as u16),
                _ => c.address.wrapping_sub(1),
            };
        }
        if moved.terminal_count {
            controller.reached |= bit;
            controller.requests &= !bit;
            if c.mode & AUTOINITIALIZE != 0 {
                (c.address, c.count) = (c.base, c.base_count);
            } else {
                controller.masks |= bit;
            }
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Rng;

    /// Programs a channel as a driver does, and unmasks it.
    fn program(d: &mut Dma, n: usize, mode: u8, at: u32, count: u16) {
        let (chip, channel) = (n >> 2, (n & 3) as u8);
        let address = if n < 4 { at } else { at >> 1 };
        d.write(chip, 10, 4 | channel);
        d.write(chip, 12, 0);
        d.write(chip, 11, mode | channel);
        address.to_le_bytes()[..2].iter().for_each(|&b| d.write(chip, 2 * channel, b));
        count.to_le_bytes().iter().for_each(|&b| d.write(chip, 2 * channel + 1, b));
        d.page_write(PAGES[n] as u8, (at >> 16) as u8);
        d.write(chip, 10, channel);
    }

    #[test]
    fn bytes_go_where_the_channel_says_until_its_count_ends() {
        let (mut d, m) = (Dma::new(), Memory::flat(1 << 20).unwrap());
        program(&mut d, 2, 0x44, 0x2_fffe, 9);
        let end = |bytes, terminal_count| Moved { bytes, terminal_count };
        assert_eq!(d.write_memory(&m, 2, &[1, 2, 3, 4]), end(4, false));
        assert_eq!((d.read(0, 4), d.read(0, 4)), (2, 0), "the address wraps within its page");
        assert_eq!((d.read(0, 5), d.read(0, 5)), (5, 0));
        assert_eq!((m.read_array(0x2_fffe), m.read_array(0x2_0000)), ([1, 2], [3, 4]));
        assert_eq!(d.write_memory(&m, 2, &[7; 100]), end(6, true));
        assert_eq!((d.read(0, 5), d.read(0, 5)), (0xff, 0xff));
        assert_eq!((d.read(0, 8), d.read(0, 8), d.read(0, 15)), (4, 0, 0xff));
        assert_eq!(d.write_memory(&m, 2, &[7; 100]), Moved::default(), "masked");
        // Back to the device, which begins anew by itself.
        program(&mut d, 3, 0x58, 0x2_0000, 1);
        let mut back = [0; 3];
        for _ in 0..2 {
            assert_eq!(d.read_memory(&m, 3, &mut back), end(2, true));
            assert_eq!(back, [3, 4, 0]);
        }
        // Downwards, and verify.
        program(&mut d, 1, 0x64, 0x3_0001, 1);
        assert_eq!(d.write_memory(&m, 1, &[5, 6]), end(2, true));
        assert_eq!(m.read_array(0x3_0000), [6, 5]);
        program(&mut d, 1, 0x40, 0x3_0000, 1);
        assert_eq!(
            (d.write_memory(&m, 1, &[9, 9]), m.read_array(0x3_0000)),
            (end(2, true), [6, 5])
        );
        // A controller that is off.
        program(&mut d, 1, 0x44, 0x3_0000, 1);
        d.write(0, 8, 4);
        assert_eq!(d.write_memory(&m, 1, &[9, 9]), Moved::default());
    }

    #[test]
    fn the_second_controller_moves_words() {
        let (mut d, m) = (Dma::new(), Memory::flat(1 << 20).unwrap());
        program(&mut d, 5, 0x44, 0x5_0010, 1);
        let moved = d.write_memory(&m, 5, &[1, 2, 3, 4, 5]);
        assert_eq!(moved, Moved { bytes: 4, terminal_count: true });
        assert_eq!((m.read_array(0x5_0010), d.read(1, 8)), ([1, 2, 3, 4, 0], 2));
        d.write(1, 13, 0);
        assert_eq!(d.read(1, 15), 0xff, "master clear masks all");
        d.write(1, 15, 0xfd);
        assert_eq!((d.read(1, 15), d.page_read(11)), (0xfd, 5));
    }

    #[test]
    fn random_accesses() {
        let (mut d, mut rng) = (Dma::new(), Rng(3));
        let m = Memory::flat(1 << 18).unwrap();
        for _ in 0..100_000 {
            let (chip, reg) = (rng.below(2) as usize, rng.next() as u8);
            let (channel, len) = (rng.below(9) as usize, rng.below(5000) as usize);
            let moved = match rng.below(6) {
                0 => d.write_memory(&m, channel, &vec![1; len]),
                1 => d.read_memory(&m, channel, &mut vec![1; len]),
                2 => {
                    d.page_write(reg, rng.next() as u8);
                    assert!(d.page_read(reg) == d.pages[usize::from(reg & 15)]);
                    Moved::default()
                }
                3 => {
                    d.read(chip, reg);
                    Moved::default()
                }
                _ => {
                    d.write(chip, reg, rng.next() as u8);
                    Moved::default()
                }
            };
            assert!(moved.bytes <= len);
        }
    }
}
