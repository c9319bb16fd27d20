//! Operands for tests: random, with a bias to the places where formats and operations have edges.

use super::num::Format;

/// Xorshift (Marsaglia), 64 bits.
pub struct Sample(u64);

impl Sample {
    /// A sequence of its own for each seed.
    pub fn new(seed: u64) -> Sample {
        Sample(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        (self.bits() >> 16) % n
    }

    /// A bit field of `width` bits (1 to 64): random, few bits set, few clear, all, none.
    pub fn field(&mut self, width: u32) -> u64 {
        let ones = u64::MAX >> (64 - width);
        let bit = |s: &mut Sample| 1 << s.below(width as u64);
        ones & match self.below(8) {
            0 => 0,
            1 => ones,
            2 => bit(self),
            3 => !bit(self),
            4 => bit(self) | bit(self),
            5 => ones << self.below(width as u64),
            _ => self.bits(),
        }
    }

    /// A biased exponent: anywhere, at either end, or near that of one, where operands meet.
    pub fn exponent(&mut self, f: Format) -> u64 {
        let (bias, max) = (f.emax as u64, 2 * f.emax as u64 + 1);
        let e = match self.below(8) {
            0 => 0,
            1 => max,
            2 => 1 + self.below(3),
            3 => max - 3 + self.below(3),
            4 => bias / 2 + self.below(4),
            5 => bias - 70 + self.below(140),
            6 => bias - 2 + self.below(4),
            _ => self.bits(),
        };
        e & max
    }

    /// A binary32 or binary64.
    pub fn float(&mut self, f: Format) -> u64 {
        let head = (self.below(2) * (2 * f.emax as u64 + 2)) | self.exponent(f);
        head << (f.prec - 1) | self.field(f.prec - 1)
    }

    /// A binary32 or binary64 whose exponent is near that of `of`, or `of` itself.
    pub fn near(&mut self, f: Format, of: u64) -> u64 {
        let top = f.prec - 1;
        let all = u64::MAX >> (64 - (f.emax as u64 + 1).trailing_zeros() - 1 - f.prec);
        match self.below(4) {
            0 => of ^ self.below(2) << (all.count_ones() - 1),
            1 => of ^ self.below(4),
            _ => {
                (of.wrapping_add(self.below(8) << top).wrapping_sub(4 << top) & all)
                    ^ self.field(top)
            }
        }
    }

    /// A pair of operands.
    pub fn pair(&mut self, f: Format) -> (u64, u64) {
        let a = self.float(f);
        let b = if self.below(2) == 0 { self.float(f) } else { self.near(f, a) };
        if self.below(2) == 0 { (a, b) } else { (b, a) }
    }
}
