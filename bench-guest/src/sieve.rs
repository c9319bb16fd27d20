//! The sieve of Eratosthenes over bytes: stores with a growing stride, then a scan.

use super::fold;
use std::sync::Mutex;

/// Marks composites with `mark`, which must differ from all bytes in `marks`, and counts the primes
/// below its length. With a new mark each time, nothing needs clearing.
fn count(marks: &mut [u8], mark: u8) -> u64 {
    let mut primes = 0;
    for n in 2..marks.len() {
        if marks[n] != mark {
            primes += 1;
            let mut multiple = n * n;
            while multiple < marks.len() {
                marks[multiple] = mark;
                multiple += n;
            }
        }
    }
    primes
}

/// Kept, because a fresh one would cost page faults.
static MARKS: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// Counts the primes below 2^17 per iteration.
pub fn run(iterations: u64) -> u64 {
    let mut marks = MARKS.lock().expect("no thread panics");
    marks.resize(1 << 17, 0);
    (0..iterations).fold(0, |sum, i| {
        let mark = (i % 255) as u8 + 1;
        if mark == 1 {
            marks.fill(0);
        }
        fold(sum, count(&mut marks, mark))
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn primes_are_counted_each_time() {
        let mut marks = vec![0; 1_000];
        assert_eq!(super::count(&mut marks, 1), 168);
        assert_eq!(super::count(&mut marks, 2), 168);
    }
}
