//! Random bytes as code on the interpreter and as host code: the same after every slice.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ring3_fuzz::tiers::tiers;

fuzz_target!(|data: &[u8]| {
    tiers(data);
});
