//! SHA-256's compression function: rotates, adds and logic in long dependency chains.
//!
//! Source: FIPS 180-4, section 6.2.

use super::fold;

/// The first 64 bits of the fractional part of the `root`th root of `n`, upper half: by bisection
/// in integers, so that the standard's constants need no table.
const fn fraction(n: u128, root: u32) -> u32 {
    // The largest x with x^root <= n * 2^(32 * root) is the root with 32 fractional bits.
    let (mut low, mut high) = (0u128, 1u128 << 38);
    while high - low > 1 {
        let middle = (low + high) / 2;
        if middle.pow(root) <= n << (32 * root) {
            low = middle;
        } else {
            high = middle;
        }
    }
    low as u32
}

/// `fraction` of the first `N` primes.
const fn primes<const N: usize>(root: u32) -> [u32; N] {
    let mut table = [0; N];
    let (mut n, mut found) = (2u128, 0);
    while found < N {
        let mut divisor = 2;
        while divisor * divisor <= n && !n.is_multiple_of(divisor) {
            divisor += 1;
        }
        if divisor * divisor > n {
            table[found] = fraction(n, root);
            found += 1;
        }
        n += 1;
    }
    table
}

const K: [u32; 64] = primes(3);
const INITIAL: [u32; 8] = primes(2);

fn compress(state: &mut [u32; 8], block: &[u32; 16]) {
    let mut w = [0u32; 64];
    w[..16].copy_from_slice(block);
    for t in 16..64 {
        let s0 = w[t - 15].rotate_right(7) ^ w[t - 15].rotate_right(18) ^ (w[t - 15] >> 3);
        let s1 = w[t - 2].rotate_right(17) ^ w[t - 2].rotate_right(19) ^ (w[t - 2] >> 10);
        w[t] = w[t - 16].wrapping_add(s0).wrapping_add(w[t - 7]).wrapping_add(s1);
    }
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *state;
    for t in 0..64 {
        let s1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let choice = (e & f) ^ (!e & g);
        let t1 = h.wrapping_add(s1).wrapping_add(choice).wrapping_add(K[t]).wrapping_add(w[t]);
        let s0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
        let majority = (a & b) ^ (a & c) ^ (b & c);
        let t2 = s0.wrapping_add(majority);
        (h, g, f, e) = (g, f, e, d.wrapping_add(t1));
        (d, c, b, a) = (c, b, a, t1.wrapping_add(t2));
    }
    for (word, new) in state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
        *word = word.wrapping_add(new);
    }
}

/// Compresses one block of 64 bytes per iteration.
pub fn run(iterations: u64) -> u64 {
    let (mut state, mut block) = (INITIAL, [0; 16]);
    for i in 0..iterations {
        block[(i % 16) as usize] ^= state[0];
        compress(&mut state, &block);
    }
    state.iter().fold(0, |sum, &word| fold(sum, word.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of one block in the standard's test vectors: the message "abc".
    #[test]
    fn the_digest_of_abc_is_right() {
        let mut block = [0; 16];
        (block[0], block[15]) = (0x6162_6380, 24);
        let mut state = INITIAL;
        compress(&mut state, &block);
        let digest: String = state.iter().map(|word| format!("{word:08x}")).collect();
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest, expected);
    }
}
