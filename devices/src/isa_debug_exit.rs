//! QEMU's `isa-debug-exit`: a port by which a test kernel ends the machine.
//!
//! Writing `value` asks the host program to exit with status `(value << 1) | 1`, which is never the
//! 0 of a normal shutdown. Only the first byte of the port range counts, so that a 32-bit write
//! split by the board asks once (a host exit status has 8 bits anyway).
//! Source: QEMU `hw/misc/debugexit.c` (behaviour).

/// The exit port.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct IsaDebugExit {
    status: Option<u32>,
}

impl IsaDebugExit {
    /// A port that nobody has written.
    #[must_use]
    pub fn new() -> IsaDebugExit {
        IsaDebugExit::default()
    }

    /// System reset: forgets a request not yet taken.
    pub fn reset(&mut self) {
        *self = IsaDebugExit::new();
    }

    /// Reads any byte of the range: always 0.
    #[must_use]
    pub fn read(&self, _reg: u16) -> u8 {
        0
    }

    /// Writes byte `reg` of the range. The first request stands until it is taken.
    pub fn write(&mut self, reg: u16, value: u8) {
        if reg == 0 {
            self.status.get_or_insert(u32::from(value) << 1 | 1);
        }
    }

    /// Takes the exit status asked for, if any.
    pub fn take_exit(&mut self) -> Option<u32> {
        self.status.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Rng;

    #[test]
    fn a_write_asks_for_an_odd_exit_status_once() {
        let mut port = IsaDebugExit::new();
        assert_eq!(port.take_exit(), None);
        port.write(0, 0x10);
        assert_eq!(port.read(0), 0);
        assert_eq!(port.take_exit(), Some(0x21));
        assert_eq!(port.take_exit(), None);
    }

    #[test]
    fn a_split_dword_asks_for_its_low_byte() {
        let mut port = IsaDebugExit::new();
        [3, 0, 0, 0].into_iter().zip(0..).for_each(|(value, reg)| port.write(reg, value));
        assert_eq!(port.take_exit(), Some(7));
    }

    #[test]
    fn random_accesses() {
        let (mut port, mut rng) = (IsaDebugExit::new(), Rng(1));
        for _ in 0..1000 {
            port.write(rng.below(8) as u16, rng.next() as u8);
            assert!(port.take_exit().is_none_or(|status| status & 1 == 1));
        }
    }
}
