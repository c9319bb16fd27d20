//! The virtio entropy device (5.4): each buffer that the driver makes available is filled with
//! random bytes.
//!
//! Where they come from is the board's choice: the host's generator, or a seeded one for runs that
//! must repeat. Of a long buffer only a part is filled, as the specification allows.

use super::{Bus, Device, Kind};

/// Bytes that one buffer is given.
const MOST: u64 = 4096;

/// Fills a buffer with random bytes.
pub type Source = Box<dyn FnMut(&mut [u8]) + Send>;

/// The device.
pub struct Rng {
    source: Source,
}

impl Rng {
    /// A device that gives what `source` fills in.
    #[must_use]
    pub fn new(source: Source) -> Rng {
        Rng { source }
    }

    /// A device that gives the same bytes for the same seed (SplitMix64).
    #[must_use]
    pub fn seeded(seed: u64) -> Rng {
        let mut state = seed;
        let mut word = move || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let a = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let b = (a ^ a >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            (b ^ b >> 31).to_le_bytes()
        };
        Rng::new(Box::new(move |buf| {
            buf.chunks_mut(8).for_each(|part| part.copy_from_slice(&word()[..part.len()]));
        }))
    }
}

impl Device for Rng {
    fn kind(&self) -> Kind {
        Kind { id: 4, class: 0xff_0000, queues: &[64] }
    }

    fn config(&self) -> Vec<u8> {
        Vec::new()
    }

    fn work(&mut self, bus: &mut Bus) {
        let mut bytes = [0; MOST as usize];
        while let Some(chain) = bus.pop(0) {
            let part = &mut bytes[..chain.writable_len().min(MOST) as usize];
            (self.source)(part);
            let written = chain.write(bus.memory, 0, part);
            bus.push(0, &chain, written as u32);
        }
    }

    fn reset(&mut self) {}
}
