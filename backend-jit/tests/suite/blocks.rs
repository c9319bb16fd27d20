//! One block at a time.

use crate::machine::{RAM, Seen, reference, same, seen, start};
use crate::random;
use backend_jit::x64::X64;
use emu_core::cpu::{Cpu, Reg};
use emu_core::interp::Leave;
use emu_core::mem::tlb::Access;
use emu_core::native::{Place, Translator};
use emu_core::passes;
use emu_core::uop::{Block, Effect, Op, Src, Uop};
use emu_core::width::Width;
use proptest::prelude::*;

/// First record of the block under test; its instructions follow.
const FIRST: u32 = 100;
const LAST: u32 = 5000;

/// Translates and runs `block` from the state `cpu`.
fn native(mut cpu: Cpu, block: &Block) -> Seen {
    let mut x = X64::new(1 << 20).unwrap();
    let insns: Vec<u32> = (0..block.insns.len() as u32).map(|n| FIRST + n).collect();
    let place = Place { first: FIRST, last: LAST, insns: &insns, off: 0, mode: cpu.mode };
    let entry = x.translate(&mut cpu, block, &place).unwrap();
    cpu.budget = 1 << 40;
    let (why, at) = Leave::decode(x.enter()(&mut cpu, entry));
    let fault = match why {
        Leave::Fault => Some((cpu.fault, at - FIRST as usize)),
        Leave::Lookup | Leave::LinkTaken | Leave::LinkFall | Leave::Exit => {
            assert_eq!(at, LAST as usize);
            assert_eq!((1 << 40) - cpu.budget, block.insns.len() as i64, "instructions charged");
            None
        }
        other => panic!("left with {other:?}"),
    };
    seen(&cpu, fault)
}

/// A start state whose TLB knows all pages, if `warm`.
fn state(seed: u64, warm: bool) -> Cpu {
    let mut cpu = start(seed);
    for page in (0..RAM).step_by(4096).filter(|_| warm) {
        cpu.probe(page, 1, Access::Read).unwrap();
        cpu.probe(page, 1, Access::Write).unwrap();
    }
    cpu
}

fn check(seed: u64, block: &Block) {
    let want = reference(start(seed), block);
    for warm in [false, true] {
        same(block, &native(state(seed, warm), block), &want, "host code");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: 2000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn random_blocks_do_what_the_op_table_says(
        seed in any::<u64>(),
        bytes in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut block = random::block(&bytes);
        check(seed, &block);
        passes::run(&mut block);
        check(seed, &block);
    }
}

/// Every pure op at every width, with registers that have a host register and some that have not,
/// with an immediate, and with flags wanted, unwanted or partly wanted.
#[test]
fn every_pure_op_is_exact() {
    let regs = [Reg::RAX, Reg::RSI, Reg::gpr(9), Reg::gpr(13), Reg::T2];
    let mut x = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = |n: usize| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        (x >> 8) as usize % n
    };
    for &op in Op::ALL.iter().filter(|o| o.row().eval.is_some()) {
        for w in Width::ALL {
            let mut uops = Vec::new();
            for _ in 0..60 {
                let mut u = Uop::new(op, w);
                (u.d, u.a, u.c) = (regs[next(5)], regs[next(5)], regs[next(5)]);
                u.b = match next(3) {
                    0 => Src::Imm([0, 1, -1, 7, 31, 65, 0x80, 0x1_2345_6789][next(8)]),
                    _ => Src::Reg(regs[next(5)]),
                };
                u.k = match op {
                    Op::Set | Op::Cmov => next(16) as u8,
                    Op::Zx | Op::Sx | Op::Crc32 => next(4) as u8,
                    _ => 0,
                };
                if next(8) == 0 {
                    u.d = Reg::ZERO;
                }
                if next(3) == 0 {
                    u.fl &= next(1 << 12) as u32;
                }
                uops.push(u);
            }
            for (n, u) in uops.iter().enumerate() {
                let mut block = random::block(&[]);
                let end = block.uops.pop().unwrap();
                block.uops.extend([*u, uops[(n + 1) % uops.len()]]);
                block.uops.push(Uop { imm: 1, ..end });
                check(n as u64 * 77 + 5, &block);
            }
        }
    }
}

/// Prints the ops that have no emitter, and checks that there are no more of them than there were.
#[test]
fn most_ops_have_an_emitter() {
    let mut called = Vec::new();
    for &op in Op::ALL {
        if matches!(op.row().effect, Effect::Helper | Effect::End) {
            continue;
        }
        let mut block = random::block(&[]);
        let end = block.uops.pop().unwrap();
        let u = Uop { d: Reg::RAX, a: Reg::RCX, b: Src::Reg(Reg::RDX), ..Uop::new(op, Width::W64) };
        block.uops.extend([u, end]);
        let mut cpu = start(1);
        let mut x = X64::new(1 << 20).unwrap();
        let place = Place { first: 1, last: 1, insns: &[1], off: 0, mode: cpu.mode };
        x.translate(&mut cpu, &block, &place).unwrap();
        if x.stats().called != 0 {
            called.push(op.row().name);
        }
    }
    println!("no emitter: {}", called.join(" "));
    assert!(called.len() <= 20, "{called:?}");
}
