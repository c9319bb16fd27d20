//! Integer programs that `cargo xtask bench` runs on the host and in guests.
//!
//! A program does the same unit of work again and again, natively for 50 to 100 ms in all, but no
//! longer than [`LIMIT`]; so a slow emulator does fewer units. A unit is short, half a millisecond
//! natively, so that some escape the other load of the machine. A program prints
//!
//! ```text
//! bench integer NAME UNITS NANOSECONDS CHECKSUM
//! ```
//!
//! with the time of its fastest unit by CLOCK_MONOTONIC and the checksum of a unit's results in
//! hexadecimal, which must be the same wherever it runs. No program waits or copies memory in bulk
//! while it is timed. With arguments, only the programs named run. `c/` has the other programs,
//! which keep the same rules.

mod bytecode;
mod calls;
mod hash;
mod mix;
mod quicksort;
mod sha256;
mod sieve;

use std::hint::black_box;
use std::time::{Duration, Instant};

/// Name, what it runs for a number of iterations, and that number in a unit.
type Program = (&'static str, fn(u64) -> u64, u64);

const PROGRAMS: &[Program] = &[
    ("mix", mix::run, 30),
    ("sha256", sha256::run, 2_000),
    ("quicksort", quicksort::run, 3),
    ("hash", hash::run, 2),
    ("bytecode", bytecode::run, 1),
    ("fib", calls::fib, 2),
    ("indirect", calls::indirect, 60_000),
    ("sieve", sieve::run, 2),
];

/// Units of a program if time allows.
const UNITS: u32 = 150;
/// After this time no program begins another unit.
const LIMIT: Duration = Duration::from_millis(700);

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

/// Runs units; returns how many, the time of the fastest and what all of them returned.
fn measure(unit: impl Fn() -> u64) -> (u32, Duration, u64) {
    let start = Instant::now();
    let timed = || {
        let start = Instant::now();
        let checksum = unit();
        (start.elapsed(), checksum)
    };
    let (mut units, (mut least, checksum)) = (1, timed());
    while units < UNITS && start.elapsed() < LIMIT {
        let (time, again) = timed();
        assert_eq!(again, checksum);
        least = least.min(time);
        units += 1;
    }
    (units, least, checksum)
}

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    for &(name, run, iterations) in PROGRAMS {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            let (units, least, checksum) = measure(|| run(black_box(iterations)));
            println!("bench integer {name} {units} {} {checksum:016x}", least.as_nanos());
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
