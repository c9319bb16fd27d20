//! Random numbers for samples, the same for the same seed on every host, with a bias to the
//! values at which instructions go wrong.

/// A xorshift* generator.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// A generator; any seed will do.
    #[must_use]
    pub fn new(seed: u64) -> Rng {
        let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        Rng((z ^ z >> 31) | 1)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `n`, which is not 0.
    pub fn below(&mut self, n: u64) -> u64 {
        (self.bits() >> 32) % n
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of `all`, which is not empty.
    pub fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }

    /// A general register's value.
    pub fn integer(&mut self) -> u64 {
        match self.below(12) {
            0 => 0,
            1 => 1,
            2 => u64::MAX,
            3 => 1 << 63,
            4 => i64::MAX as u64,
            5 => 1 << self.below(64),
            6 => (1u64 << self.below(64)).wrapping_sub(1),
            7 => self.below(256),
            8 => self.below(256).wrapping_neg(),
            9 => self.bits() & 0xffff_ffff,
            _ => self.bits(),
        }
    }

    /// 32 bits of a vector that may be a float.
    pub fn single(&mut self) -> u32 {
        let sign = (self.bits() as u32) & 0x8000_0000;
        sign | match self.below(12) {
            0 => 0,
            1 => 0x3f80_0000,
            2 => 0x7f80_0000,
            3 => 0x7fc0_0000 | self.bits() as u32 & 0x3f_ffff,
            4 => 0x7f80_0001 | self.bits() as u32 & 0x3f_ffff,
            5 => self.bits() as u32 & 0x7f_ffff,
            6 => 0x0080_0000 | self.bits() as u32 & 0xff,
            7 => 0x7f7f_ffff,
            8 | 9 => (self.below(2000) as f32 / 8.0).to_bits(),
            10 => (self.bits() as i32 as f32).abs().to_bits(),
            _ => self.bits() as u32 & 0x7fff_ffff,
        }
    }

    /// 64 bits of a vector that may be a float.
    pub fn double(&mut self) -> u64 {
        let sign = self.bits() & 1 << 63;
        let fraction = self.bits() & 0xf_ffff_ffff_ffff;
        sign | match self.below(14) {
            0 => 0,
            1 => 0x3ff << 52,
            2 => 0x7ff << 52,
            3 => 0xfff << 51 | fraction >> 1,
            4 => 0x7ff << 52 | fraction >> 1 | 1,
            5 => fraction,
            6 => 1 << 52 | fraction & 0xff,
            7 => 0x7fef_ffff_ffff_ffff,
            8 | 9 => (self.below(2000) as f64 / 8.0).to_bits(),
            10 => (self.bits() as i64 as f64).abs().to_bits(),
            // About the limits of singles and of integers.
            11 => (0x3ff - 150 + self.below(300)) << 52 | fraction & (fraction << 20),
            12 => (0x3ff + 28 + self.below(40)) << 52 | fraction,
            _ => self.bits() & !(1 << 63),
        }
    }

    /// A vector register's value.
    pub fn vector(&mut self) -> [u64; 4] {
        let kind = self.below(4);
        [0; 4].map(|_| match kind {
            0 => self.double(),
            1 => u64::from(self.single()) | u64::from(self.single()) << 32,
            2 => self.integer(),
            _ => self.bits(),
        })
    }

    /// An x87 register: significand, then sign and exponent.
    pub fn extended(&mut self) -> (u64, u16) {
        let sign = (self.bits() as u16) & 0x8000;
        let mant = if self.one_in(3) { self.integer() } else { self.bits() };
        let whole = 1 << 63 | mant;
        let (mant, exponent) = match self.below(16) {
            0 => (0, 0),
            1 => (1 << 63, 0x3fff),
            2 => (1 << 63, 0x7fff),
            3 => (3 << 62 | mant, 0x7fff),
            4 => (1 << 63 | mant >> 2 | 1, 0x7fff),
            5 => (mant >> 1, 0),
            // Pseudo-denormal, unnormal, pseudo-NaN.
            6 => (whole, 0),
            7 => (mant >> 1, self.bits() as u16 & 0x7fff),
            8 => (mant >> 1, 0x7fff),
            9 => (whole, 0x7ffe),
            10 => (whole, 1 + self.below(70) as u16),
            // What converts to integers, singles and doubles, near their limits.
            11 | 12 => (whole, 0x3fff + self.below(70) as u16),
            13 => (whole & (u64::MAX << self.below(64)), 0x3fff - 3 + self.below(24) as u16),
            14 => (whole, 0x3fff - 1100 + self.below(2200) as u16),
            _ => (whole, self.bits() as u16 & 0x7fff),
        };
        (mant, sign | exponent)
    }
}
