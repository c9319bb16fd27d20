//! The fuzz target "tiers" on programs from fixed seeds: random bytes, and random instructions of
//! all kinds.

#[path = "../../fuzz/src/machine.rs"]
mod machine;
#[path = "../../fuzz/src/tiers.rs"]
mod tiers;

use ::machine::CpuModel;
use oracle::Bits;
use ring3::diff::generate::Generator;
use ring3::diff::random::Rng;
use tiers::{PIECE, PIECES};

/// Bytes before the code.
const HEAD: usize = 24;

fn head(rng: &mut Rng, kind: u8) -> Vec<u8> {
    let mut head: Vec<u8> = (0..HEAD).map(|_| rng.bits() as u8).collect();
    head[0] = kind;
    head
}

#[test]
fn random_bytes() {
    let (mut rng, mut blocks) = (Rng::new(1), 0);
    for n in 0..600 {
        let mut data = head(&mut rng, n as u8);
        data.extend((0..PIECE * PIECES).map(|_| rng.bits() as u8));
        blocks += tiers::tiers(&data);
    }
    assert!(blocks > 10_000, "{blocks}");
}

#[test]
fn random_instructions() {
    let (mut rng, mut blocks) = (Rng::new(2), 0);
    let features = CpuModel::default().features.0;
    let mut samples = [Bits::B32, Bits::B64].map(|bits| Generator::new(3, bits, features, None));
    for n in 0..600u64 {
        // 32 or 64 bits, as kernel or as user.
        let bits = n as usize % 2;
        let mut data = head(&mut rng, (1 + bits + 3 * (n as usize / 2 % 2)) as u8);
        for _ in 0..PIECES {
            let mut piece = samples[bits].sample().code;
            // Some pieces are loops; after the last one comes INT3.
            if rng.one_in(3) {
                let back = (piece.len() as u64 + 2).min(128);
                piece.extend([0x70 | rng.below(16) as u8, (rng.below(back) as u8).wrapping_neg()]);
            }
            piece.resize(PIECE, 0x90);
            data.extend(piece);
        }
        blocks += tiers::tiers(&data);
    }
    assert!(blocks > 10_000, "{blocks}");
}
