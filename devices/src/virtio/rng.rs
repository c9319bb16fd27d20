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

#[cfg(test)]
mod tests {
    use super::super::driver::{Driver, FORMS};
    use super::*;

    #[test]
    fn buffers_are_filled() {
        for form in FORMS {
            let mut next = 0_u8;
            let count = move |buf: &mut [u8]| {
                buf.iter_mut().for_each(|b| (*b, next) = (next, next.wrapping_add(1)));
            };
            let mut d = Driver::new(Rng::new(Box::new(count)), form);
            let at = d.buffer(&[0xee; 8192]);
            assert_eq!(d.call(0, &[(at, 3, true), (at + 10, 2, true)]), 5);
            assert_eq!(d.bytes(at, 12), [0, 1, 2, 0xee, 0xee, 0xee, 0xee, 0xee, 0xee, 0xee, 3, 4]);
            assert_eq!(d.call(0, &[(at, 8192, true)]), 4096);
            assert_eq!((d.bytes(at + 4096, 1), d.bytes(at, 2)), (vec![0xee], vec![5, 6]));
            assert_eq!(d.call(0, &[(at, u32::MAX, true)]), 4096);
        }
    }

    #[test]
    fn a_seed_gives_the_same_bytes() {
        let draw = |seed| {
            let mut d = Driver::new(Rng::seeded(seed), 0);
            let at = d.buffer(&[0; 64]);
            d.call(0, &[(at, 21, true)]);
            d.bytes(at, 21)
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        // SplitMix64's first output for the seed 0, as its author's code gives it.
        assert_eq!(draw(0)[..8], 0xe220_a839_7b1d_cdaf_u64.to_le_bytes());
    }
}
