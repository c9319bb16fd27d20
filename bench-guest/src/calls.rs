//! Calls: a recursive function, and calls through a table of functions in random order.

use super::{Random, fold};
use std::hint::black_box;

#[inline(never)]
fn fibonacci(n: u32) -> u64 {
    if n < 2 {
        return n.into();
    }
    // Hidden, or else the optimiser makes a loop of one of the two calls.
    black_box(fibonacci(n - 1)) + black_box(fibonacci(n - 2))
}

/// Recursive Fibonacci numbers around the 24th.
pub fn fib(iterations: u64) -> u64 {
    (0..iterations).fold(0, |sum, i| fold(sum, fibonacci(24 + (i % 2) as u32)))
}

/// Eight functions of the same shape that no compiler merges.
const FUNCTIONS: [fn(u64) -> u64; 8] = [
    |x| x.wrapping_add(0x1234_5678),
    |x| x ^ (x >> 7),
    |x| x.rotate_left(13),
    |x| x.wrapping_mul(5),
    |x| x.wrapping_sub(x << 3),
    |x| !x,
    |x| x ^ 0x5555_5555_5555,
    |x| x.swap_bytes(),
];

/// Calls one of [`FUNCTIONS`] per iteration: half of the time the same as before.
pub fn indirect(iterations: u64) -> u64 {
    let functions = black_box(&FUNCTIONS);
    let (mut random, mut which, mut x) = (Random(1), 0, 1);
    for _ in 0..iterations {
        let bits = random.next();
        if bits & 1 == 0 {
            which = (bits >> 8 & 7) as usize;
        }
        x = functions[which](x);
    }
    fold(x, iterations)
}

#[cfg(test)]
mod tests {
    #[test]
    fn fibonacci_numbers_are_right() {
        assert_eq!(super::fibonacci(20), 6_765);
    }
}
