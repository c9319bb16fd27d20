//! Regions of random blocks that lead to each other, with every budget that they may run out of,
//! against the plain reading of the op table, block after block.

use crate::machine::{RAM, Seen, start};
use crate::{machine, random};
use backend_jit::x64::X64;
use emu_core::cpu::{Cpu, Reg};
use emu_core::interp::Leave;
use emu_core::mem::tlb::Access;
use emu_core::native::{Part, Place, Translator};
use emu_core::passes;
use emu_core::rare;
use emu_core::text::parse;
use emu_core::uop::{Block, Effect, Op, Uop};
use emu_core::width::Width::{self, W64};
use proptest::prelude::*;

/// Where the blocks are, and how far apart.
const BASE: u64 = 0x7000;
const APART: u64 = 0x100;
/// Records of a block.
const RECORDS: u32 = 1000;

fn address(n: usize) -> u64 {
    BASE + APART * n as u64
}

/// Ends `block`, number `at`, in one of the ways that stay in a region.
fn end(block: &mut Block, at: usize, [how, k, taken, fall]: [u8; 4], blocks: usize) {
    // One of them is not there.
    let to = |n: u8| address(usize::from(n) % (blocks + 1)).wrapping_sub(address(at)) as i64;
    let (op, w) = match how % 8 {
        0 => (Op::Goto, W64),
        1 => (Op::Jrnz, Width::from_index(k)),
        _ => (Op::Jcc, W64),
    };
    let mut u = Uop::new(op, w);
    u.k = if op == Op::Jrnz { W64 as u8 } else { k & 15 };
    u.a = if op == Op::Jrnz { Reg::gpr(k) } else { Reg::ZERO };
    (u.imm, u.fall) = (to(taken), to(fall) as i32);
    match block.uops.last_mut() {
        Some(last) if last.op.row().effect == Effect::End => *last = u,
        _ => block.uops.push(u),
    }
}

fn block_at(rip: u64, blocks: &[Block]) -> Option<usize> {
    (0..blocks.len()).find(|n| address(*n) == rip)
}

/// What became of a run: the state, and the budget.
type End = (Seen, i64);

/// From micro-op `from` of block `n` on.
fn reference(mut cpu: Cpu, blocks: &[Block], mut n: usize, mut from: usize) -> End {
    loop {
        let block = &blocks[n];
        for (i, u) in block.uops.iter().enumerate().skip(from) {
            let r = match u.op.row().effect {
                Effect::End => machine::end(&mut cpu, u),
                _ => rare::run(&mut cpu, u),
            };
            if let Err(f) = r {
                let insn = block.insns.partition_point(|m| m.uop as usize <= i) - 1;
                return (machine::seen(&cpu, Some((f, insn))), cpu.budget);
            }
        }
        cpu.budget -= block.insns.len() as i64;
        let inside = matches!(block.uops.last().map(|u| u.op), Some(Op::Goto | Op::Jcc | Op::Jrnz));
        match block_at(cpu.rip(), blocks) {
            Some(next) if inside && cpu.budget >= 0 => (n, from) = (next, 0),
            _ => return (machine::seen(&cpu, None), cpu.budget),
        }
    }
}

fn native(mut x: X64, mut cpu: Cpu, blocks: &[Block]) -> End {
    let insns = |n: usize| -> Vec<u32> {
        (0..blocks[n].insns.len() as u32).map(|i| RECORDS * n as u32 + 1 + i).collect()
    };
    let insns: Vec<Vec<u32>> = (0..blocks.len()).map(insns).collect();
    let part = |n: usize| {
        let first = RECORDS * n as u32;
        // Not at an address where it stores.
        let off = (!4095) + (address(n) & 4095);
        let place =
            Place { second: None, first, last: first + 999, insns: &insns[n], off, mode: cpu.mode };
        Part { block: &blocks[n], place }
    };
    let parts: Vec<Part> = (0..blocks.len()).map(part).collect();
    let entry = x.translate(&parts).unwrap();
    let (why, at) = Leave::decode(x.enter()(&mut cpu, entry));
    let (n, insn) = (at / RECORDS as usize, (at % RECORDS as usize).wrapping_sub(1));
    match why {
        Leave::Fault => (machine::seen(&cpu, Some((cpu.fault, insn))), cpu.budget),
        Leave::Next => reference(cpu, blocks, n, blocks[n].insns[insn].uop as usize),
        // Not all blocks can be in a region.
        Leave::LinkTaken | Leave::LinkFall => match block_at(cpu.rip(), blocks) {
            Some(next) => reference(cpu, blocks, next, 0),
            None => (machine::seen(&cpu, None), cpu.budget),
        },
        _ => (machine::seen(&cpu, None), cpu.budget),
    }
}

fn check(make: impl Fn() -> Cpu, blocks: &[Block]) {
    for budget in [0, 1, 2, 3, 5, 8, 13, 30, 100, 300] {
        let make = || {
            let mut cpu = make();
            cpu.set_rip(BASE);
            cpu.budget = budget;
            cpu
        };
        let warm = || {
            let mut cpu = make();
            for page in (0..RAM).step_by(4096) {
                cpu.probe(page, 1, Access::Read).unwrap();
                cpu.probe(page, 1, Access::Write).unwrap();
            }
            cpu
        };
        let want = reference(make(), blocks, 0, 0);
        for (cpu, what) in [(make(), "host code"), (warm(), "host code with a warm TLB")] {
            let got = native(X64::new(1 << 20).unwrap(), cpu, blocks);
            let text: String = blocks.iter().map(|b| format!("{b}")).collect();
            let what = format!("{what}, budget {budget}, of\n{text}");
            machine::same(&blocks[0], &got.0, &want.0, &what);
            assert_eq!(got.1, want.1, "budget left: {what}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: 600,
        ..ProptestConfig::default()
    })]

    #[test]
    fn random_regions_do_what_the_op_table_says(
        seed in any::<u64>(),
        blocks in prop::collection::vec(
            (prop::collection::vec(any::<u8>(), 0..40), any::<[u8; 4]>()),
            1..7,
        ),
    ) {
        let all = blocks.len();
        let make = |(n, (bytes, how)): (usize, &(Vec<u8>, [u8; 4]))| {
            // Often nothing but a jump.
            let bytes = if bytes.len() < 8 { &[] } else { &bytes[..] };
            let mut block = random::block(bytes);
            end(&mut block, n, *how, all);
            passes::run(&mut block);
            block
        };
        let blocks: Vec<Block> = blocks.iter().enumerate().map(make).collect();
        check(|| start(seed), &blocks);
    }
}

/// What the random ones seldom meet.
#[test]
fn chosen_regions_do_what_the_op_table_says() {
    let all: [&[&str]; 6] = [
        // A loop of registers that have no host register elsewhere, with an access that may fault.
        &[
            "+0 len 4\n lea.64 r12, [r13 + r14*2]\n+4 len 4\n add.32 r10, r10, r12\n+8 len 4\n \
             ldz.8 t0, [r15 + 0x10]\n xor.64 r11, r11, t0\n+12 len 4\n add.64 r15, r15, 0x800\n\
             +16 len 4\n sub.64 r14, r14, r10 !oszapc\n jcc.64 ne, +0, +0x100\n",
            "+0 len 1\n st.64 [r11], r12\n goto.64 +0x400\n",
        ],
        // Two jumps on one comparison of vector registers; the last block wants no flags.
        &[
            "+0 len 4\n v.paddd.16 v1, v1, v2\n+4 len 4\n vx.ucomisd.64 zero, v1, v2 !oszapc\n\
             +8 len 2\n jcc.64 p, +0x200, +0x100\n",
            "+0 len 2\n jcc.64 e, +0x100, -0x100\n",
            "+0 len 3\n sub.32 zero, rax, rcx !oszapc\n jcc.64 b, -0x200, -0x100\n",
        ],
        // A comparison with memory that only who stops wants.
        &[
            "+0 len 4\n ldz.8 t0, [rsi]\n sub.8 zero, t0, rcx !oszapc\n \
             jcc.64 ne, +0x100, +0x200\n",
            "+0 len 4\n add.64 rsi, rsi, 1 !oszapc\n goto.64 -0x100\n",
            "+0 len 4\n and.64 rax, rsi, 7 !oszapc\n+4 len 1\n goto.64 -0x200\n",
        ],
        // In a group of accesses: a comparison one of whose registers is changed.
        &[
            "+0 len 4\n st.64 [rsi], rax\n+4 len 4\n sub.32 zero, rdx, 2 !oszapc\n+8 len 4\n \
             mov.32 rdx, rbx\n+12 len 4\n st.64 [rsi - 8], rcx\n+16 len 4\n \
             add.64 rsi, rsi, -0x10\n\
             goto.64 +0x100\n",
            "+0 len 4\n sub.32 zero, rdx, 2 !oszapc\n jcc.64 be, -0x100, +0x100\n",
            "+0 len 2\n mov.64 rdx, rsi\n goto.64 -0x200\n",
        ],
        // A comparison of vector registers in a block with an exit, and blocks after it.
        &[
            "+0 len 4\n sub.64 zero, rax, rcx !oszapc\n jcc.64 e, +0x100, +0x200\n",
            "+0 len 4\n vx.ucomisd.64 zero, v1, v2 !oszapc\n jcc.64 b, +0x800, +0x700\n",
            "+0 len 4\n add.64 rax, rax, rdx !oszapc\n goto.64 -0x200\n",
        ],
        // Jumps alone that lead to each other, and out.
        &[
            "+0 len 2\n jcc.64 e, +0, +0x100\n",
            "+0 len 2\n jcc.64 b, +0, +0x100\n",
            "+0 len 2\n add.64 rax, rax, rcx !oszapc\n jcc.64 o, -0x100, +0x500\n",
        ],
    ];
    for blocks in all {
        let blocks: Vec<Block> = blocks.iter().map(|b| parse(b, &[]).unwrap()).collect();
        for seed in 0..40u64 {
            check(|| start(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)), &blocks);
        }
    }
}
