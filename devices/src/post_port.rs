//! The POST diagnostic port (0x80): firmware writes progress codes there.
//!
//! On a PC it is a spare DMA page register, so that the last value reads back; operating systems
//! write it as a short delay. Source: 82371SB (PIIX3) datasheet, DMA page registers.

/// The latch behind port 0x80.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PostPort {
    code: u8,
}

impl PostPort {
    /// A latch that holds zero.
    #[must_use]
    pub fn new() -> PostPort {
        PostPort::default()
    }

    /// System reset: back to zero.
    pub fn reset(&mut self) {
        *self = PostPort::new();
    }

    /// Reads the code last written; also for the host's display.
    #[must_use]
    pub fn read(&self) -> u8 {
        self.code
    }

    /// Writes a progress code.
    pub fn write(&mut self, value: u8) {
        self.code = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Rng;

    #[test]
    fn last_code_reads_back_until_reset() {
        let mut port = PostPort::new();
        port.write(0x12);
        port.write(0xA5);
        assert_eq!(port.read(), 0xA5);
        port.reset();
        assert_eq!(port.read(), 0);
    }

    #[test]
    fn random_accesses() {
        let (mut port, mut rng) = (PostPort::new(), Rng(1));
        for _ in 0..1000 {
            let value = rng.next() as u8;
            port.write(value);
            assert_eq!(port.read(), value);
        }
    }
}
