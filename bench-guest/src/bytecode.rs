//! A register machine of eight instructions, interpreted by a `match` in a loop: an indirect jump
//! per instruction that a predictor must follow.

use super::fold;
use std::hint::black_box;

/// One instruction; registers are numbered 0–7, targets are indices into the code.
#[derive(Clone, Copy)]
enum Op {
    /// `r[a] = imm`
    Set(u8, u32),
    /// `r[a] = r[b]`
    Move(u8, u8),
    /// `r[a] += r[b]`
    Add(u8, u8),
    /// `r[a] = 3 r[a] + 1`
    Triple(u8),
    /// `r[a] >>= 1`
    Half(u8),
    /// Jumps when `r[a]` is odd.
    JumpOdd(u8, u32),
    /// Jumps when `r[a] != r[b]`.
    JumpNotEqual(u8, u8, u32),
    /// Ends with `r[a]`.
    Halt(u8),
}

/// The sum of the lengths of the Collatz sequences that start at 1 to `r[5] - 1`.
const COLLATZ: &[Op] = {
    use Op::*;
    &[
        Set(0, 1), // start
        Set(1, 0), // steps of all
        Set(2, 1), // one
        // 3: next start
        Move(3, 0),
        JumpNotEqual(3, 2, 6),
        JumpNotEqual(0, 7, 11), // r7 stays 0: always
        // 6: next step
        Add(1, 2),
        JumpOdd(3, 10),
        Half(3),
        JumpNotEqual(2, 7, 4),
        // 10:
        Triple(3),
        // 11: reached from `Triple` with r3 even, from 5 with r3 = 1
        JumpNotEqual(3, 2, 6),
        Add(0, 2),
        JumpNotEqual(0, 5, 3),
        Halt(1),
    ]
};

fn interpret(code: &[Op], limit: u32) -> u32 {
    let mut r = [0u32; 8];
    r[5] = limit;
    let mut pc = 0;
    loop {
        let op = code[pc];
        pc += 1;
        let reg = |n: u8| usize::from(n & 7);
        match op {
            Op::Set(a, imm) => r[reg(a)] = imm,
            Op::Move(a, b) => r[reg(a)] = r[reg(b)],
            Op::Add(a, b) => r[reg(a)] = r[reg(a)].wrapping_add(r[reg(b)]),
            Op::Triple(a) => r[reg(a)] = r[reg(a)].wrapping_mul(3).wrapping_add(1),
            Op::Half(a) => r[reg(a)] >>= 1,
            Op::JumpOdd(a, to) if r[reg(a)] & 1 == 1 => pc = to as usize,
            Op::JumpNotEqual(a, b, to) if r[reg(a)] != r[reg(b)] => pc = to as usize,
            Op::JumpOdd(..) | Op::JumpNotEqual(..) => {}
            Op::Halt(a) => return r[reg(a)],
        }
    }
}

/// Interprets [`COLLATZ`] for growing limits.
pub fn run(iterations: u64) -> u64 {
    (0..iterations).fold(0, |sum, i| {
        let limit = 1_000 + i as u32;
        fold(sum, interpret(black_box(COLLATZ), limit).into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collatz_lengths_are_right() {
        let length = |mut n: u64| {
            let mut steps = 0;
            while n != 1 {
                n = if n % 2 == 1 { 3 * n + 1 } else { n / 2 };
                steps += 1;
            }
            steps
        };
        assert_eq!(interpret(COLLATZ, 1_000), (1..1_000).map(length).sum());
    }
}
