//! AES, carry-less multiplication, SHA-1 and SHA-256.
//!
//! The AES tables are computed from their definition: a byte's inverse in GF(2⁸) modulo
//! x⁸ + x⁴ + x³ + x + 1, then an affine map. A register holds the state column by column, row 0
//! first.
//!
//! Source: Intel SDM Vol. 2; FIPS 197, 5.1–5.3; FIPS 180-4, 4.1, 4.2 and 6.

use super::lanes::{join, split};
use super::{V3, V128};

// ---- AES ----------------------------------------------------------------------------------------

/// One direction of the cipher.
pub struct Direction {
    /// Substitution of bytes.
    bytes: [u8; 256],
    /// Columns by which row r moves: r times this, to the left.
    shift: usize,
    /// Factors of a column's mixing.
    mix: [u8; 4],
}

/// `SubBytes`, `ShiftRows`, `MixColumns`.
pub static ENCRYPT: Direction = Direction { bytes: sbox(), shift: 1, mix: [2, 3, 1, 1] };
/// Their inverses.
pub static DECRYPT: Direction = Direction { bytes: inverse_sbox(), shift: 3, mix: [14, 11, 13, 9] };

const fn product(a: u8, b: u8) -> u8 {
    let (mut r, mut a, mut b) = (0, a, b);
    while b != 0 {
        if b & 1 != 0 {
            r ^= a;
        }
        a = a << 1 ^ if a & 0x80 != 0 { 0x1b } else { 0 };
        b >>= 1;
    }
    r
}

const fn sbox() -> [u8; 256] {
    let (mut table, mut x) = ([0; 256], 0);
    while x < 256 {
        // The inverse is the 254th power.
        let (mut inverse, mut n) = (1, 0);
        while n < 254 {
            inverse = product(inverse, x as u8);
            n += 1;
        }
        let i = inverse;
        table[x] =
            i ^ i.rotate_left(1) ^ i.rotate_left(2) ^ i.rotate_left(3) ^ i.rotate_left(4) ^ 0x63;
        x += 1;
    }
    table
}

const fn inverse_sbox() -> [u8; 256] {
    let (forward, mut table, mut x) = (sbox(), [0; 256], 0);
    while x < 256 {
        table[forward[x] as usize] = x as u8;
        x += 1;
    }
    table
}

/// AESENC, AESDEC and, without mixing, AESENCLAST and AESDECLAST: one round on state `a` with the
/// round key `b`.
pub fn aes(s: &V3, d: &Direction, mixed: bool) -> V128 {
    let a = split::<u8>(s.a);
    let moved: [u8; 16] = std::array::from_fn(|i| {
        let (row, column) = (i & 3, i >> 2);
        d.bytes[usize::from(a[row + 4 * ((column + row * d.shift) & 3)])]
    });
    let r = if mixed { mix(join(moved), d) } else { join(moved) };
    [r[0] ^ s.b[0], r[1] ^ s.b[1]]
}

fn mix(v: V128, d: &Direction) -> V128 {
    let v = split::<u8>(v);
    join::<[u8; 16]>(std::array::from_fn(|i| {
        (0..4).fold(0, |r, k| r ^ product(v[i & !3 | (i + k) & 3], d.mix[k]))
    }))
}

/// AESIMC.
pub fn inverse_mix_columns(v: V128) -> V128 {
    mix(v, &DECRYPT)
}

/// AESKEYGENASSIST with round constant `rcon`.
pub fn aes_key(v: V128, rcon: u8) -> V128 {
    let sub = |x: u32| u32::from_le_bytes(x.to_le_bytes().map(|b| ENCRYPT.bytes[usize::from(b)]));
    let v = split::<u32>(v);
    let (x1, x3) = (sub(v[1]), sub(v[3]));
    let rotated = |x: u32| x.rotate_right(8) ^ u32::from(rcon);
    join([x1, rotated(x1), x3, rotated(x3)])
}

// ---- PCLMULQDQ ----------------------------------------------------------------------------------

/// The product of polynomials over GF(2).
pub fn carryless(a: u64, b: u64) -> V128 {
    let set = (0..64).filter(|i| b >> i & 1 != 0);
    bytemuck::cast(set.fold(0, |r, i| r ^ u128::from(a) << i))
}

// ---- SHA: lane 3 has the first of four words ------------------------------------------------------

/// The lanes, highest first, as the manual numbers words.
fn words(v: V128) -> [u32; 4] {
    let [a, b, c, d] = split::<u32>(v);
    [d, c, b, a]
}

fn from_words([a, b, c, d]: [u32; 4]) -> V128 {
    join([d, c, b, a])
}

fn choose(x: u32, y: u32, z: u32) -> u32 {
    x & y ^ !x & z
}

fn majority(x: u32, y: u32, z: u32) -> u32 {
    x & y ^ x & z ^ y & z
}

/// SHA1RNDS4: four rounds with function and constant `imm[1:0]`; E is in the first word of `b`.
pub fn sha1_rounds(s: &V3, imm: u8) -> V128 {
    let k = [0x5a82_7999, 0x6ed9_eba1, 0x8f1b_bcdc, 0xca62_c1d6u32][usize::from(imm & 3)];
    let f = |b: u32, c: u32, d: u32| match imm & 3 {
        0 => choose(b, c, d),
        2 => majority(b, c, d),
        _ => b ^ c ^ d,
    };
    let ([mut a, mut b, mut c, mut d], mut e) = (words(s.a), 0);
    for w in words(s.b) {
        let sum = [a.rotate_left(5), w, e, k].into_iter().fold(f(b, c, d), u32::wrapping_add);
        (a, b, c, d, e) = (sum, a, b.rotate_left(30), c, d);
    }
    from_words([a, b, c, d])
}

/// SHA1NEXTE.
pub fn sha1_next_e(s: &V3) -> V128 {
    let ([a, ..], [e, x, y, z]) = (words(s.a), words(s.b));
    from_words([e.wrapping_add(a.rotate_left(30)), x, y, z])
}

/// SHA1MSG1.
pub fn sha1_message_1(s: &V3) -> V128 {
    let ([w0, w1, w2, w3], [w4, w5, ..]) = (words(s.a), words(s.b));
    from_words([w2 ^ w0, w3 ^ w1, w4 ^ w2, w5 ^ w3])
}

/// SHA1MSG2.
pub fn sha1_message_2(s: &V3) -> V128 {
    let ([a0, a1, a2, a3], [_, w13, w14, w15]) = (words(s.a), words(s.b));
    let w16 = (a0 ^ w13).rotate_left(1);
    from_words([
        w16,
        (a1 ^ w14).rotate_left(1),
        (a2 ^ w15).rotate_left(1),
        (a3 ^ w16).rotate_left(1),
    ])
}

/// SHA256RNDS2: two rounds; A, B, E, F are `b`, C, D, G, H are `a`, the words with their constants
/// the low lanes of `c`.
pub fn sha256_rounds(s: &V3) -> V128 {
    let ([mut c, mut d, mut g, mut h], [mut a, mut b, mut e, mut f]) = (words(s.a), words(s.b));
    let wk = split::<u32>(s.c);
    for w in &wk[..2] {
        let s1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let s0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
        let t = [s1, *w, h].into_iter().fold(choose(e, f, g), u32::wrapping_add);
        let top = t.wrapping_add(majority(a, b, c)).wrapping_add(s0);
        (a, b, c, d, e, f, g, h) = (top, a, b, c, t.wrapping_add(d), e, f, g);
    }
    from_words([a, b, e, f])
}

/// SHA256MSG1.
pub fn sha256_message_1(s: &V3) -> V128 {
    let (w, next) = (split::<u32>(s.a), split::<u32>(s.b)[0]);
    let s0 = |x: u32| x.rotate_right(7) ^ x.rotate_right(18) ^ x >> 3;
    let after = [w[1], w[2], w[3], next];
    join::<[u32; 4]>(std::array::from_fn(|i| w[i].wrapping_add(s0(after[i]))))
}

/// SHA256MSG2.
pub fn sha256_message_2(s: &V3) -> V128 {
    let (w, b) = (split::<u32>(s.a), split::<u32>(s.b));
    let s1 = |x: u32| x.rotate_right(17) ^ x.rotate_right(19) ^ x >> 10;
    let (w16, w17) = (w[0].wrapping_add(s1(b[2])), w[1].wrapping_add(s1(b[3])));
    join([w16, w17, w[2].wrapping_add(s1(w16)), w[3].wrapping_add(s1(w17))])
}
