//! Makes a sample as small as it goes: fewer instructions, registers and memory as in
//! [`cases::base`], one thing at a time, as long as what was interesting in it still is. For
//! a sample that the model gets wrong: that something which differed before still differs.

use super::cases;
use super::compare::{Difference, compare, instructions};
use super::model::Model;
use oracle::{MEMORY_LEN, Oracle, Sample, State};

/// Runs `sample` on both sides.
pub fn judge(sample: &Sample, model: &mut Model, oracle: &mut Oracle) -> Vec<Difference> {
    let cpu = oracle.run(sample);
    compare(sample, &cpu, &model.run(sample))
}

/// The smallest sample found that goes wrong as `sample` does.
pub fn shrink(sample: &Sample, model: &mut Model, oracle: &mut Oracle) -> Sample {
    let wrong: Vec<String> = judge(sample, model, oracle).into_iter().map(|d| d.what).collect();
    minimise(sample, |next| judge(next, model, oracle).iter().any(|d| wrong.contains(&d.what)))
}

/// The smallest sample found for which `keep` holds, as it does for `sample`.
pub fn minimise(sample: &Sample, mut keep: impl FnMut(&Sample) -> bool) -> Sample {
    let mut best = sample.clone();
    let mut attempt = |best: &mut Sample, next: Sample| {
        let same = keep(&next);
        if same {
            *best = next;
        }
        same
    };
    // Instructions, from the last one on, until none can go.
    let mut n = instructions(&best).len();
    while n > 0 {
        n -= 1;
        let all = instructions(&best);
        if all.len() > 1 && n < all.len() {
            let kept = all.iter().enumerate().filter(|(i, _)| *i != n);
            let code = kept.flat_map(|(_, e)| e.bytes.clone()).collect();
            let next = Sample { code, ..best.clone() };
            if attempt(&mut best, next) {
                n = instructions(&best).len();
            }
        }
    }
    let base = cases::base();
    let blank = Sample { memory: base.memory.clone(), ..best.clone() };
    if !attempt(&mut best, blank) {
        let mut len = MEMORY_LEN;
        while len >= 1 {
            for at in (0..MEMORY_LEN).step_by(len) {
                if best.memory[at..at + len].iter().any(|b| *b != 0) {
                    let mut next = best.clone();
                    next.memory[at..at + len].fill(0);
                    attempt(&mut best, next);
                }
            }
            len /= 4;
        }
    }
    let to = &base.state;
    type Reset = fn(&mut State, &State, usize);
    #[rustfmt::skip]
    let parts: [(usize, Reset); 10] = [
        (16, |s, b, n| s.gpr[n] = b.gpr[n]),
        (16, |s, b, n| s.ymm[n] = b.ymm[n]),
        (16, |s, b, n| s.ymm[n][2..].copy_from_slice(&b.ymm[n][2..])),
        (16, |s, _, n| s.ymm[n][1] = 0),
        (8,  |s, b, n| s.x87.st[n] = b.x87.st[n]),
        (1,  |s, b, _| (s.x87.sw, s.x87.full) = (b.x87.sw, b.x87.full)),
        (1,  |s, b, _| (s.x87.sw, s.x87.cw) = (b.x87.sw, b.x87.cw)),
        (1,  |s, b, _| s.x87.full = b.x87.full),
        (1,  |s, b, _| s.mxcsr = b.mxcsr),
        (1,  |s, b, _| (s.fs_base, s.gs_base) = (b.fs_base, b.gs_base)),
    ];
    for (count, reset) in parts {
        for n in 0..count {
            let mut next = best.clone();
            reset(&mut next.state, to, n);
            if next.state != best.state {
                attempt(&mut best, next);
            }
        }
    }
    for bit in (0..22).filter(|b| to.rflags >> b & 1 == 0) {
        if best.state.rflags >> bit & 1 != 0 {
            let mut next = best.clone();
            next.state.rflags &= !(1 << bit);
            attempt(&mut best, next);
        }
    }
    // Smaller numbers where zero will not do.
    for n in 0..16 {
        for mask in [0xff, 0xffff, 0xffff_ffff] {
            let mut next = best.clone();
            next.state.gpr[n] &= mask;
            if best.state.gpr[n] != to.gpr[n]
                && next.state != best.state
                && attempt(&mut best, next)
            {
                break;
            }
        }
    }
    best
}
