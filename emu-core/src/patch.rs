//! Immediates that the guest overwrites again and again.
//!
//! A store into code costs the blocks that it hits: they are lifted and translated anew. Where the
//! same few bytes are stored to time after time they are an operand of the code, mostly an
//! immediate of one instruction. Such a place becomes a [`Patch`], and an instruction whose
//! immediate is exactly that is lifted so that it loads it ([`Op::Code`](crate::uop::Op::Code))
//! from where it stands. These bytes then are not the block's code any more, and a store to them
//! costs no block.
//!
//! - What becomes a patch, and when, follows from the stores that hit code alone, which are the
//!   same on all engines.
//! - The store that makes a place a patch has killed every block with a byte of it. So all live
//!   blocks have been lifted since, and lifting one again gives the same micro-ops.
//! - A patch is *alone* as long as no block has been lifted to which some of its bytes are anything
//!   else: while it is, a store of just these bytes need not be told to the block cache at all.

use rustc_hash::FxHashMap;

/// Stores that have cost blocks until their place is a patch.
const STORES: u8 = 4;
/// Patches of a page at most, and places that are counted at most.
const IN_PAGE: usize = 32;
const COUNTED: usize = 4096;

/// Bytes of RAM that are stored to as a whole, again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patch {
    /// RAM offset of the first.
    pub off: u64,
    /// How many.
    pub len: u64,
    /// See the module's head.
    alone: bool,
}

/// All patches of a CPU.
#[derive(Debug, Default)]
pub struct Patches {
    counts: FxHashMap<(u64, u64), u8>,
    pages: FxHashMap<u64, Vec<Patch>>,
}

impl Patches {
    /// A store of `len` bytes at RAM offset `off`, all in one page, has cost a block.
    pub fn note(&mut self, off: u64, len: u64) {
        if !matches!(len, 1 | 2 | 4 | 8) {
            return;
        }
        if self.counts.len() >= COUNTED {
            self.counts.clear();
        }
        let count = self.counts.entry((off, len)).or_default();
        *count += 1;
        if *count < STORES {
            return;
        }
        self.counts.remove(&(off, len));
        let page = self.pages.entry(off >> 12).or_default();
        if let Some(known) = page.iter_mut().find(|p| (p.off, p.len) == (off, len)) {
            known.alone = true;
        } else if page.len() < IN_PAGE {
            page.push(Patch { off, len, alone: true });
        }
    }

    /// The patches of the page at RAM offset `off`.
    #[inline]
    pub fn in_page(&self, off: u64) -> &[Patch] {
        if self.pages.is_empty() {
            return &[];
        }
        self.pages.get(&(off >> 12)).map_or(&[], |page| page)
    }

    /// A block has `len` bytes at RAM offset `off` as code, but for `loaded` (RAM offset, length).
    pub fn lifted(&mut self, off: u64, len: u64, loaded: &[(u64, u64)]) {
        if self.pages.is_empty() {
            return;
        }
        let Some(page) = self.pages.get_mut(&(off >> 12)) else { return };
        for p in page {
            let overlap = p.off < off + len && off < p.off + p.len;
            p.alone &= !overlap || loaded.contains(&(p.off, p.len));
        }
    }

    /// Whether `len` bytes at RAM offset `off` are a patch that is alone.
    #[inline]
    pub fn is_alone(&self, off: u64, len: u64) -> bool {
        let patch = Patch { off, len, alone: true };
        self.in_page(off).contains(&patch)
    }

    /// Forgets all: no block is left.
    pub fn clear(&mut self) {
        self.counts.clear();
        self.pages.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_becomes_a_patch_and_is_alone_until_it_is_code() {
        let mut p = Patches::default();
        for n in 1..=STORES {
            assert!(!p.is_alone(0x1001, 4), "{n}");
            p.note(0x1001, 4);
            p.note(0x1001, 3);
        }
        assert!(p.is_alone(0x1001, 4));
        assert!(!p.is_alone(0x1001, 3) && !p.is_alone(0x1001, 2) && !p.is_alone(0x1002, 4));
        p.lifted(0x1000, 6, &[(0x1001, 4)]);
        p.lifted(0x1005, 9, &[]);
        p.lifted(0x2001, 4, &[]);
        assert!(p.is_alone(0x1001, 4));
        p.lifted(0x1004, 1, &[]);
        assert!(!p.is_alone(0x1001, 4));
        (0..STORES).for_each(|_| p.note(0x1001, 4));
        assert!(p.is_alone(0x1001, 4), "the blocks are gone");
        assert_eq!(p.in_page(0x1fff).len(), 1);
        p.clear();
        assert!(!p.is_alone(0x1001, 4));
    }

    #[test]
    fn there_are_never_many() {
        let mut p = Patches::default();
        for off in 0..2 * COUNTED as u64 {
            p.note(off * 8, 8);
            assert!(p.counts.len() <= COUNTED);
        }
        for off in 0..4096 {
            (0..STORES).for_each(|_| p.note(off, 1));
        }
        assert_eq!(p.in_page(0).len(), IN_PAGE);
    }
}
