//! The passes over random blocks: what the guest sees stays, at the end and at a fault.

use crate::machine::{reference, same, start, threaded};
use crate::random;
use emu_core::passes;
use emu_core::text::parse;
use emu_core::uop::Block;
use emu_core::verify::verify;
use proptest::prelude::*;

fn check(seed: u64, block: &Block) {
    let want = reference(start(seed), block);
    for (name, pass) in [
        ("fold", passes::fold::run as fn(&mut Block)),
        ("dead_flags", passes::dead_flags::run),
        ("all passes", passes::run),
    ] {
        let mut changed = block.clone();
        pass(&mut changed);
        assert_eq!(verify(&changed), Ok(()), "after {name}:\n{changed}");
        let what = format!("after {name}:\n{changed}");
        same(block, &reference(start(seed), &changed), &want, &what);
        same(block, &threaded(start(seed), &changed).0, &want, &format!("threaded {what}"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: 500,
        ..ProptestConfig::default()
    })]

    #[test]
    fn random_blocks_keep_their_meaning(
        seed in any::<u64>(),
        bytes in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        check(seed, &random::block(&bytes));
    }
}

/// Rotates through CF with a count that is a multiple of the width + 1 change no flag.
#[test]
fn rotates_that_change_nothing_keep_older_flags_alive() {
    for (op, w, count) in [("rcl", 8, 9), ("rcr", 8, 18), ("rcl", 8, 27), ("rcr", 16, 17)] {
        let text = format!(
            "+0 len 1\n  rol.64 rax, rax, 0x3 !oc\n+1 len 1\n  {op}.{w} rcx, rcx, {count} !oc\n  exit"
        );
        for seed in 0..32 {
            check(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed), &parse(&text, &[]).unwrap());
        }
    }
}
