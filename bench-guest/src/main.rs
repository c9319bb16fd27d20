//! An integer program mix that `cargo xtask bench mips` runs on the host and in guests.
//!
//! Each program runs a fixed number of iterations, natively 30–100 ms, and prints
//!
//! ```text
//! bench NAME ITERATIONS NANOSECONDS CHECKSUM
//! ```
//!
//! with the time by CLOCK_MONOTONIC and a checksum of all its results in hexadecimal, which must be
//! the same wherever it runs. No program waits, allocates or copies memory in bulk while it is
//! timed. With arguments, only the programs named run.

mod bytecode;
mod calls;
mod hash;
mod mix;
mod quicksort;
mod sha256;
mod sieve;

use std::hint::black_box;
use std::time::Instant;

/// Name, what it runs for a number of iterations, and that number.
type Program = (&'static str, fn(u64) -> u64, u64);

const PROGRAMS: &[Program] = &[
    ("mix", mix::run, 3_000),
    ("sha256", sha256::run, 150_000),
    ("quicksort", quicksort::run, 250),
    ("hash", hash::run, 200),
    ("bytecode", bytecode::run, 90),
    ("fib", calls::fib, 20),
    ("indirect", calls::indirect, 6_000_000),
    ("sieve", sieve::run, 160),
];

/// Knuth's 64-bit linear congruential generator; the upper half of the state is the output.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 32) as u32
    }
}

/// Mixes one more result into a checksum.
fn fold(checksum: u64, value: u64) -> u64 {
    (checksum.rotate_left(5) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    for &(name, run, iterations) in PROGRAMS {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            let start = Instant::now();
            let checksum = run(black_box(iterations));
            let nanoseconds = start.elapsed().as_nanos();
            println!("bench {name} {iterations} {nanoseconds} {checksum:016x}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_repeat_their_checksums_and_need_their_iterations() {
        for &(name, run, _) in PROGRAMS {
            assert_eq!(run(3), run(3), "{name}");
            assert_ne!(run(3), run(4), "{name}");
        }
    }
}
