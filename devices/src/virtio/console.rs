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
