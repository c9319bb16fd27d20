//! The debug console of Bochs and QEMU: one port (0xE9) that takes text.
//!
//! A read gives 0xE9, by which a guest finds out that the port exists. Written bytes wait in order
//! until the host side takes them; the board does so after every access, so they never pile up.
//! Source: QEMU `docs/specs` and Bochs user manual, "port_e9_hack".

/// The debug console.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DebugCon {
    output: Vec<u8>,
}

impl DebugCon {
    /// What a read of the port gives: its own usual address.
    pub const PRESENT: u8 = 0xE9;

    /// A console with nothing written.
    #[must_use]
    pub fn new() -> DebugCon {
        DebugCon::default()
    }

    /// System reset: nothing to do, since text already written is still owed to the host.
    pub fn reset(&mut self) {}

    /// Reads the port.
    #[must_use]
    pub fn read(&self) -> u8 {
        Self::PRESENT
    }

    /// Writes one byte of text.
    pub fn write(&mut self, value: u8) {
        self.output.push(value);
    }

    /// Takes all bytes written since the last call.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Rng;

    #[test]
    fn read_tells_presence() {
        assert_eq!(DebugCon::new().read(), 0xE9);
    }

    #[test]
    fn text_comes_out_once_and_in_order() {
        let mut con = DebugCon::new();
        b"Hello".iter().for_each(|&b| con.write(b));
        con.reset();
        assert_eq!(con.take_output(), b"Hello");
        assert_eq!(con.take_output(), b"");
    }

    #[test]
    fn random_accesses() {
        let (mut con, mut rng, mut sent) = (DebugCon::new(), Rng(1), Vec::new());
        for _ in 0..1000 {
            sent.push(rng.next() as u8);
            con.write(*sent.last().unwrap());
        }
        assert_eq!(con.take_output(), sent);
    }
}
