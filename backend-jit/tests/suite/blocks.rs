//! One block at a time.

use crate::machine::{RAM, Seen, reference, reference_from, same, seen, start};
use crate::random;
use backend_jit::x64::X64;
use emu_core::cpu::{Cpu, Reg, mode};
use emu_core::interp::Leave;
use emu_core::mem::tlb::Access;
use emu_core::native::{Part, Place, Translator};
use emu_core::passes;
use emu_core::text::parse;
use emu_core::uop::{Block, Effect, Op, Src, Uop};
use emu_core::vec::VecOp;
use emu_core::width::Width;
use proptest::prelude::*;

/// First record of the block under test; its instructions follow.
const FIRST: u32 = 100;
const LAST: u32 = 5000;

/// Translates and runs `block` from the state `cpu`.
fn native(cpu: Cpu, block: &Block) -> Seen {
    native_on(X64::new(1 << 20).unwrap(), cpu, block)
}

/// The same by the generator `x`.
pub fn native_on(mut x: X64, mut cpu: Cpu, block: &Block) -> Seen {
    let insns: Vec<u32> = (0..block.insns.len() as u32).map(|n| FIRST + n).collect();
    // Not at an address that its own jump may lead to.
    let place =
        Place { second: None, first: FIRST, last: LAST, insns: &insns, off: !4095, mode: cpu.mode };
    let entry = x.translate(&[Part { block, place }]).unwrap();
    // A block that leads to itself is left by the budget.
    let itself = block.exits().into_iter().flatten().any(|(_, delta)| delta == 0);
    let budget = if itself { block.insns.len() as i64 - 1 } else { 1 << 40 };
    cpu.budget = budget;
    let (why, at) = Leave::decode(x.enter()(&mut cpu, entry));
    let fault = match why {
        Leave::Fault => Some((cpu.fault, at - FIRST as usize)),
        Leave::Lookup | Leave::LinkTaken | Leave::LinkFall | Leave::Exit | Leave::Budget => {
            assert_eq!(at, LAST as usize);
            assert_eq!(budget - cpu.budget, block.insns.len() as i64, "instructions charged");
            None
        }
        Leave::Next => {
            let insn = at - FIRST as usize;
            assert!(insn != 0, "nothing was done");
            return reference_from(cpu, block, block.insns[insn].uop as usize);
        }
        other => panic!("left with {other:?}"),
    };
    seen(&cpu, fault)
}

/// `cpu` with all pages in its TLB.
fn warm(mut cpu: Cpu) -> Cpu {
    for page in (0..RAM).step_by(4096) {
        cpu.probe(page, 1, Access::Read).unwrap();
        cpu.probe(page, 1, Access::Write).unwrap();
    }
    cpu
}

pub fn check_from(make: impl Fn() -> Cpu, block: &Block) {
    let want = reference(make(), block);
    same(block, &native(make(), block), &want, "host code");
    same(block, &native(warm(make()), block), &want, "host code with a warm TLB");
    let without = || X64::new(1 << 20).unwrap().without_any_slots();
    same(block, &native_on(without(), make(), block), &want, "without slots");
    same(block, &native_on(without(), warm(make()), block), &want, "without slots, warm TLB");
}

fn check(seed: u64, block: &Block) {
    check_from(|| start(seed), block);
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
            // These have no form of 8 bits (SDM vol. 2B), nor a count beyond twice the width.
            if matches!(op, Op::Shld | Op::Shrd) && w == Width::W8 {
                continue;
            }
            // Each with its successor, as the flags may go from one to the other.
            let mut uops = Vec::new();
            for _ in 0..20 {
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

/// Every vector operation at every size, on the values that floating point treats apart, in several
/// settings of MXCSR.
#[test]
fn every_vector_op_is_exact() {
    const DOUBLES: [u64; 10] = [
        0,
        1 << 63,
        0x3ff0_0000_0000_0000,
        0xbff8_0000_0000_0001,
        0x7ff0_0000_0000_0000,
        0x7ff8_0000_0000_0000,
        0x7ff0_0000_0000_0001,
        0x000f_ffff_0000_0001,
        0x7fef_ffff_ffff_ffff,
        0x7f80_0001_0000_0001,
    ];
    // All masked; round up; flush to zero and denormals are zeros; unmasked.
    for (mxcsr, seed) in [(0x1f80, 1u64), (0x5f80, 2), (0x9fc0, 3), (0, 4)] {
        for &vop in VecOp::ALL.iter().filter(|o| !o.is_int()) {
            let mut block = random::block(&[]);
            let end = block.uops.pop().unwrap();
            let regs = [(0, 1, 2), (3, 3, 4), (5, 6, 5), (7, 8, 9)];
            for ((d, a, b), k) in regs.into_iter().zip([16, 16 | 128, 32, 8]) {
                let (d, a, b) = (Reg(d), Reg(a), Src::Reg(Reg(b)));
                let imm = seed as i64 * 0x4d & 0xff;
                block.uops.push(Uop { vop, k, d, a, b, imm, ..Uop::new(Op::V, Width::W64) });
            }
            block.uops.push(end);
            for turn in 0..3 {
                let make = || {
                    let mut cpu = start(seed);
                    cpu.mxcsr = mxcsr;
                    if mxcsr == 0 {
                        cpu.mode |= mode::XM;
                    }
                    for (i, w) in cpu.v.iter_mut().flatten().enumerate().filter(|x| x.0 % 5 != 4) {
                        let v = DOUBLES[(i * 7 + turn) % 10];
                        *w = if i % 3 == 2 { v.rotate_left(32) } else { v };
                    }
                    cpu
                };
                check_from(make, &block);
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
        let cpu = start(1);
        let mut x = X64::new(1 << 20).unwrap();
        let place = Place { second: None, first: 1, last: 1, insns: &[1], off: 0, mode: cpu.mode };
        x.translate(&[Part { block: &block, place }]).unwrap();
        if x.stats().called != 0 {
            called.push(op.row().name);
        }
    }
    println!("no emitter: {}", called.join(" "));
    assert!(called.len() <= 20, "{called:?}");
}

/// A slot that loads at ever other pages fill again and again: the region is dropped, once, and
/// made anew without it.
#[test]
fn an_access_whose_slot_does_not_help_does_without() {
    let text = "+0 len 1\n  ld.64 rax, [rbx]\n  st.64 [rdi], rax\n  goto.64 +0x9";
    let block = parse(text, &[]).unwrap();
    let insns = [FIRST];
    let mut cpu = warm(start(1));
    let place =
        Place { second: None, first: FIRST, last: LAST, insns: &insns, off: !4095, mode: cpu.mode };
    let mut x = X64::new(1 << 20).unwrap();
    let mut run = |x: &mut X64, turns: u64| {
        let entry = x.translate(&[Part { block: &block, place }]).unwrap();
        for n in 0..turns {
            (cpu.regs[3], cpu.regs[7]) = (0x1008 + n % 2 * 0x1000, 0x3000);
            cpu.mem.ram.write_u64(cpu.regs[3], n);
            cpu.budget = 1;
            x.enter()(&mut cpu, entry);
            assert_eq!((cpu.regs[0], cpu.mem.ram.read_u64(0x3000)), (n, n));
        }
        cpu.tlb.busy_slots(turns / 2)
    };
    let busy = run(&mut x, 100);
    assert_eq!(busy.len(), 1, "the load's; the store's page is the same: {busy:?}");
    assert_eq!(x.without_slots(&busy), [FIRST]);
    assert_eq!(x.entry(FIRST), None);
    assert!(run(&mut x, 100).is_empty());
    assert!(x.without_slots(&busy).is_empty(), "nobody has it");
}

/// Accesses by several registers in turns, some of them across a border of pages, so that groups
/// begin and end within others, and each of them may miss.
#[test]
fn groups_that_overlap_are_exact() {
    for text in [
        "+0 len 4\n ld.64 rax, [rbx]\n+4 len 4\n ld.32 rcx, [rsi + 0x8]\n+8 len 4\n \
         st.64 [rdi - 0x8], rax\n+12 len 4\n ld.64 rdx, [rbx + 0x10]\n+16 len 4\n \
         st.32 [rsi], rdx\n+20 len 4\n ldz.8 rbp, [rdi + 0x3]\n+24 len 4\n \
         ld.64 rax, [rsi + 0x10]\n+28 len 4\n st.8 [rdi], rbp\n goto.64 +0x20",
        "+0 len 4\n ld.64 rax, [rsi]\n+4 len 4\n ld.64 rcx, [rdi]\n+8 len 4\n \
         add.64 rsi, rsi, 0x8 !oszapc\n+12 len 4\n ld.64 rdx, [rbx + rcx*1]\n+16 len 4\n \
         st.64 [rsi - 0x10], rdx\n+20 len 4\n ld.64 rdi, [rbx]\n+24 len 4\n \
         st.64 [rsi + 0x8], rdi\n+28 len 4\n ld.16 rax, [rbx + 0x6]\n goto.64 +0x20",
        "+0 len 4\n ld.64 rax, [rbx]\n+4 len 4\n sub.64 zero, rax, rdx !oszapc\n+8 len 4\n \
         ldz.64 t0, [rdi]\n xor.64 rcx, rcx, t0 !oszapc\n+12 len 4\n ld.64 rdx, [rbx + 0x8]\n\
         +16 len 4\n ld.64 rax, [rsi]\n+20 len 4\n st.64 [rdi + 0x8], rax\n goto.64 +0x20",
    ] {
        let block = parse(text, &[]).unwrap_or_else(|e| panic!("{e}\n{text}"));
        for seed in 0..256u64 {
            let make = || {
                let mut cpu = start(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
                let near = |bits: u64| 0x2000 - 6 * (seed >> bits & 3) + 4 * (seed >> 6 & 3);
                (cpu.regs[3], cpu.regs[6], cpu.regs[7]) = (near(0), near(2) + 0x1000, near(4));
                cpu.mem.ram.write_u64(cpu.regs[7], seed % 32);
                cpu
            };
            check_from(make, &block);
        }
    }
}

/// Calls, returns and jumps through memory as lifters make them: to canonical addresses and others.
#[test]
fn calls_and_returns_are_exact() {
    for text in [
        "add.64 t0, rip, 0x5\n  st.64 [stack rsp - 0x8], t0\n  add.64 rsp, rsp, -0x8\n  goto.64 +0x9",
        "st.64 [stack rsp + 0x8], rax\n  add.64 rbx, rbx, rcx !oszapc\n  add.64 t0, rip, 0x5\n  \
         st.64 [stack rsp - 0x8], t0\n  add.64 rsp, rsp, -0x8\n  goto.64 +0x9",
        "ldz.64 t0, [stack rsp]\n  lin.64 t1, cs/r, t0, 0\n  add.64 rsp, rsp, 0x18\n  jmpi.64 t1",
        "ldz.64 t0, [rdi + rcx*8]\n  lin.64 t1, cs/r, t0, 0\n  jmpi.64 t1",
        "lin.64 t1, cs/r, rcx, 0\n  jmpi.64 t1",
    ] {
        let text = format!("+0 len 5\n  add.64 rax, rax, rcx !oszapc\n  {text}");
        let block = parse(&text, &[]).unwrap_or_else(|e| panic!("{e}\n{text}"));
        for seed in 0..64u64 {
            let make = || {
                let mut cpu = start(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
                (cpu.regs[4], cpu.regs[7], cpu.regs[1]) = (0x1ff4 + seed % 16, 0x3000, seed);
                if seed % 2 == 0 {
                    for at in (0..RAM).step_by(4) {
                        cpu.mem.ram.write_u32(at, 0x1234);
                    }
                    cpu.mem.ram.write_u32(cpu.regs[4] + 4, 0);
                }
                cpu
            };
            check_from(make, &block);
        }
    }
}
