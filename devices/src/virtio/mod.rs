//! Virtio devices over PCI, as the specification's version 1 has them ("modern").
//!
//! | file | what it is about |
//! |---|---|
//! | `queue` | virtqueues, split and packed: chains of buffers in guest memory |
//! | `pci` | the transport: configuration space, registers, interrupts |
//! | `blk`, `rng`, `console`, `balloon` | the devices |
//!
//! A device knows its configuration, its feature bits and what to do with chains ([`Device`]);
//! everything else is the transport's ([`VirtioPci`]). The driver's mistakes never reach a device
//! as anything but odd chains; whatever it finds wrong with one it calls [`Bus::fail`] for, and the
//! transport asks for a reset (DEVICE_NEEDS_RESET).
//!
//! Source: Virtual I/O Device (VIRTIO) 1.2; sections are named where they are used.

pub mod balloon;
pub mod blk;
pub mod console;
pub mod pci;
pub mod queue;
pub mod rng;

#[cfg(test)]
pub(crate) mod driver;
#[cfg(test)]
mod tests;

pub use pci::VirtioPci;

use emu_core::mem::Memory;
use queue::{Chain, Queue};

/// What a device is (5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Device ID of the virtio specification.
    pub id: u16,
    /// PCI class code.
    pub class: u32,
    /// Entries of each queue, at most.
    pub queues: &'static [u16],
}

/// Guest memory and the queues, lent to a device for the time of a call.
pub struct Bus<'a> {
    /// Memory.
    pub memory: &'a Memory,
    pub(crate) queues: &'a mut [Queue],
}

impl Bus<'_> {
    /// Takes the next chain of a queue.
    pub fn pop(&mut self, queue: usize) -> Option<Chain> {
        self.queues.get_mut(queue)?.pop(self.memory)
    }

    /// Gives a chain back, of which the first `written` bytes were written.
    pub fn push(&mut self, queue: usize, chain: &Chain, written: u32) {
        if let Some(q) = self.queues.get_mut(queue) {
            q.push(self.memory, chain, written);
        }
    }

    /// The driver's chain makes no sense: nothing more goes on with this queue.
    pub fn fail(&mut self, queue: usize) {
        if let Some(q) = self.queues.get_mut(queue) {
            q.broken = true;
        }
    }
}

/// A device behind a transport.
pub trait Device: Send {
    /// What it is.
    fn kind(&self) -> Kind;
    /// Its feature bits, without those of queues and transport.
    fn features(&self) -> u64 {
        0
    }
    /// The driver has accepted these features.
    fn negotiated(&mut self, _features: u64) {}
    /// Its configuration, as the driver sees it.
    fn config(&self) -> Vec<u8>;
    /// The driver writes its configuration.
    fn config_write(&mut self, _offset: usize, _data: &[u8]) {}
    /// Whether it has changed its configuration since this was last asked.
    fn take_config_change(&mut self) -> bool {
        false
    }
    /// Goes on with whatever there is: new chains, and what its backend has finished.
    fn work(&mut self, bus: &mut Bus);
    /// Forgets all that the driver has set up.
    fn reset(&mut self);
}
