//! Operand widths.

/// Width of an integer operand or memory access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Width {
    /// 8 bits.
    W8 = 0,
    /// 16 bits.
    W16 = 1,
    /// 32 bits.
    W32 = 2,
    /// 64 bits.
    W64 = 3,
}

pub use Width::{W8, W16, W32, W64};

impl Width {
    /// All widths, narrowest first.
    pub const ALL: [Width; 4] = [W8, W16, W32, W64];

    /// Width with the number `n & 3` (the value of `self as u8`).
    #[inline(always)]
    pub const fn from_index(n: u8) -> Width {
        match n & 3 {
            0 => W8,
            1 => W16,
            2 => W32,
            _ => W64,
        }
    }

    /// Width of `n` bytes, if there is one.
    pub const fn from_bytes(n: usize) -> Option<Width> {
        match n {
            1 => Some(W8),
            2 => Some(W16),
            4 => Some(W32),
            8 => Some(W64),
            _ => None,
        }
    }

    /// Size in bytes: 1, 2, 4 or 8.
    #[inline(always)]
    pub const fn bytes(self) -> u64 {
        1 << self as u8
    }

    /// Size in bits: 8, 16, 32 or 64.
    #[inline(always)]
    pub const fn bits(self) -> u32 {
        8 << self as u8
    }

    /// All ones in the low [`bits`](Self::bits) bits.
    #[inline(always)]
    pub const fn mask(self) -> u64 {
        u64::MAX >> (64 - self.bits())
    }

    /// `v` cut to this width, zero-extended.
    #[inline(always)]
    pub const fn zext(self, v: u64) -> u64 {
        v & self.mask()
    }

    /// `v` cut to this width, sign-extended to 64 bits.
    #[inline(always)]
    pub const fn sext(self, v: u64) -> u64 {
        let s = 64 - self.bits();
        (((v << s) as i64) >> s) as u64
    }

    /// The register value after `v` was written at this width over `old`: x86 merges 8- and
    /// 16-bit results and zero-extends 32-bit ones (SDM Vol. 1, 3.4.1.1).
    #[inline(always)]
    pub const fn merge(self, old: u64, v: u64) -> u64 {
        match self {
            W8 => (old & !0xff) | (v & 0xff),
            W16 => (old & !0xffff) | (v & 0xffff),
            W32 => v & 0xffff_ffff,
            W64 => v,
        }
    }
}
