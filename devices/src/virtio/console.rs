//! The virtio console (5.3) with one port: a queue for what the guest receives, one for what it
//! sends, and the size of the screen.
//!
//! Bytes for the guest wait here until it has buffers; bytes of the guest wait here until the board
//! takes them. Both have a limit: the board is told how much was accepted, the guest's buffers stay
//! in their queue.

use super::{Bus, Device, Kind};
use std::collections::VecDeque;

/// VIRTIO_CONSOLE_F_SIZE: the configuration has columns and rows.
const F_SIZE: u64 = 1;
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
/// Bytes that wait on either way.
const LIMIT: usize = 1 << 16;
/// Bytes that are moved at a time.
const STEP: usize = 4096;

/// The device.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Console {
    size: (u16, u16),
    resized: bool,
    input: VecDeque<u8>,
    output: Vec<u8>,
    /// How much of the guest's first buffer was taken.
    part: Option<(super::queue::Chain, u64)>,
}

impl Console {
    /// A console of so many columns and rows.
    #[must_use]
    pub fn new(columns: u16, rows: u16) -> Console {
        Console { size: (columns, rows), ..Console::default() }
    }

    /// Takes bytes for the guest; gives how many there was room for.
    pub fn push_input(&mut self, bytes: &[u8]) -> usize {
        let room = LIMIT.saturating_sub(self.input.len()).min(bytes.len());
        self.input.extend(&bytes[..room]);
        room
    }

    /// Takes what the guest has sent.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// The screen has another size.
    pub fn resize(&mut self, columns: u16, rows: u16) {
        self.resized |= self.size != (columns, rows);
        self.size = (columns, rows);
    }

    fn receive(&mut self, bus: &mut Bus) {
        while !self.input.is_empty() {
            let Some(chain) = bus.pop(RECEIVE) else { return };
            let n = chain.writable_len().min(self.input.len() as u64) as usize;
            let bytes: Vec<u8> = self.input.drain(..n).collect();
            chain.write(bus.memory, 0, &bytes);
            bus.push(RECEIVE, &chain, n as u32);
        }
    }

    fn transmit(&mut self, bus: &mut Bus) {
        while let Some((chain, done)) = self.part.take().or_else(|| Some((bus.pop(TRANSMIT)?, 0))) {
            let mut at = done;
            let mut step = [0; STEP];
            loop {
                let room = LIMIT.saturating_sub(self.output.len()).min(STEP);
                let n = chain.read(bus.memory, at, &mut step[..room]);
                self.output.extend(&step[..n]);
                at += n as u64;
                if at >= chain.readable_len() {
                    bus.push(TRANSMIT, &chain, 0);
                    break;
                }
                if room == 0 {
                    self.part = Some((chain, at));
                    return;
                }
            }
        }
    }
}

impl Device for Console {
    fn kind(&self) -> Kind {
        Kind { id: 3, class: 0x07_8000, queues: &[64, 64] }
    }

    fn features(&self) -> u64 {
        F_SIZE
    }

    fn config(&self) -> Vec<u8> {
        let mut c = Vec::with_capacity(12);
        c.extend(self.size.0.to_le_bytes());
        c.extend(self.size.1.to_le_bytes());
        // One port; no emergency writes.
        c.extend([1, 0, 0, 0, 0, 0, 0, 0]);
        c
    }

    fn take_config_change(&mut self) -> bool {
        std::mem::take(&mut self.resized)
    }

    fn work(&mut self, bus: &mut Bus) {
        self.transmit(bus);
        self.receive(bus);
    }

    fn reset(&mut self) {
        (self.part, self.resized) = (None, false);
    }
}

#[cfg(test)]
mod tests {
    use super::super::driver::{Driver, FORMS};
    use super::*;
    use crate::pci::PciDevice;

    #[test]
    fn bytes_go_both_ways() {
        for form in FORMS {
            let mut d = Driver::new(Console::new(80, 25), form | F_SIZE);
            let at = d.buffer(&[0; 16]);
            let ids = [d.add(RECEIVE, &[(at, 4, true)]), d.add(RECEIVE, &[(at + 4, 4, true)])];
            d.kick(RECEIVE);
            assert_eq!(d.used(RECEIVE), None);
            assert_eq!(d.pci.device_mut().push_input(b"hello"), 5);
            d.advance();
            assert_eq!((d.used(RECEIVE), d.used(RECEIVE)), (Some((ids[0], 4)), Some((ids[1], 1))));
            assert_eq!((d.bytes(at, 5), d.pci.intx()), (b"hello".to_vec(), true));
            let text = d.buffer(b"good morning");
            assert_eq!(d.call(TRANSMIT, &[(text, 5, false), (text + 5, 7, false)]), 0);
            assert_eq!(d.pci.device_mut().take_output(), b"good morning");
        }
    }

    #[test]
    fn what_is_not_taken_waits() {
        let mut d = Driver::new(Console::new(80, 25), 0);
        let len = 3 * LIMIT + 100;
        let text: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
        let at = d.buffer(&text);
        let id = d.add(TRANSMIT, &[(at, len as u32, false)]);
        d.kick(TRANSMIT);
        let mut got = Vec::new();
        while d.used(TRANSMIT).is_none_or(|u| u != (id, 0)) {
            let part = d.pci.device_mut().take_output();
            assert!(!part.is_empty() && part.len() <= LIMIT);
            got.extend(part);
            d.advance();
        }
        got.extend(d.pci.device_mut().take_output());
        assert_eq!(got, text);
        let c = d.pci.device_mut();
        assert_eq!((c.push_input(&text), c.push_input(&text)), (LIMIT, 0));
    }

    #[test]
    fn a_new_size_is_told() {
        let mut d = Driver::new(Console::new(80, 25), F_SIZE);
        assert_eq!((d.get(0x2000, 2), d.get(0x2002, 2), d.get(0x2004, 4)), (80, 25, 1));
        d.pci.device_mut().resize(80, 25);
        d.advance();
        assert!(!d.pci.intx());
        d.pci.device_mut().resize(132, 43);
        d.advance();
        assert_eq!((d.get(0x1000, 1), d.get(0x2000, 4)), (2, 43 << 16 | 132));
    }
}
