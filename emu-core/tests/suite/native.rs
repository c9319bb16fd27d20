//! The run loop with a code generator: what is translated and when, what is told to the generator,
//! and that a guest cannot tell the engines apart.

use crate::machine::cpu;
use crate::mock::{Mock, translated};
use crate::toy::*;
use emu_core::compare;
use emu_core::native::NativeStats;
use emu_core::vcpu::{Stop, Vcpu};

type Code<'a> = &'a [[u8; 4]];

const fn back(n: i8) -> u8 {
    (-n) as u8
}

fn vcpu(code: &[(u64, Code)]) -> Vcpu {
    let mut cpu = cpu();
    for (at, insns) in code {
        cpu.mem.write_bytes(*at, insns.as_flattened());
    }
    cpu.set_rip(code[0].0);
    Vcpu::new(cpu)
}

fn stats(v: &Vcpu) -> NativeStats {
    v.cache.translator().unwrap().stats()
}

/// A loop of three blocks in two pages.
const LOOP: &[(u64, Code)] = &[
    (0x1ff0, &[[ADD, 0, 1, 0], [JMP, 4, 0, 0]]),
    (
        0x2008,
        &[
            [ADD, 0, 1, 0],
            [JMP, 1, 0, 0],
            [HALT, 0, 0, 0],
            [DEC, 1, 0, 0],
            [JNZ, back(11), 0, 0],
            [JMP, back(4), 0, 0],
        ],
    ),
];

#[test]
fn a_block_is_translated_when_it_is_warm() {
    for (runs, turns, blocks) in [(5, 4, 0), (5, 5, 3), (5, 50, 3), (1, 1, 5), (u16::MAX, 50, 0)] {
        let mut v = translated(vcpu(LOOP), runs);
        v.cpu.regs[1] = turns;
        assert_eq!(v.run(1 << 40), Stop::Halted);
        assert_eq!((v.cpu.regs[0], stats(&v).blocks), (2 * turns, blocks), "{runs} {turns}");
        assert_eq!(v.cpu.icount(), 6 * turns + 2);
    }
}

/// Links that the interpreter made before a block was translated are the generator's too.
#[test]
fn links_made_before_and_after_reach_the_generator() {
    for runs in [1, 2, 10] {
        let mut v = translated(vcpu(LOOP), runs);
        v.cpu.regs[1] = 100_000;
        assert_eq!(v.run(1 << 40), Stop::Halted);
        assert!(stats(&v).links >= 3, "{:?}", stats(&v));
        assert!(v.stats.dispatches < 10, "{:?}", v.stats);
    }
}

#[test]
fn a_full_buffer_drops_everything() {
    let mut v = vcpu(LOOP);
    v.set_translator(Box::new(Mock::with_room(2)), 1);
    v.cpu.regs[1] = 100;
    assert_eq!(v.run(1 << 40), Stop::Halted);
    assert_eq!((v.cpu.regs[0], v.cpu.icount()), (200, 602));
    assert_eq!((v.cache.stats.flushes, v.cache.stats.lifted), (0, 5));
    assert!((100..200).contains(&stats(&v).evictions), "{:?}", stats(&v));
    // No room at all: the interpreter does it.
    let mut v = vcpu(LOOP);
    v.set_translator(Box::new(Mock::with_room(0)), 1);
    v.cpu.regs[1] = 100;
    assert_eq!(v.run(1 << 40), Stop::Halted);
    assert_eq!((v.cpu.regs[0], v.cpu.icount(), stats(&v).blocks), (200, 602, 0));
}

/// Many indirect jumps between translated blocks take no stack.
#[test]
fn indirect_jumps_go_on_without_the_dispatcher() {
    let mut v = translated(
        vcpu(&[
            (0x1000, &[[ADD, 0, 1, 0], [JMPI, 8, 0, 0]]),
            (0x2000, &[[DEC, 1, 0, 0], [JNZ, 1, 0, 0], [HALT, 0, 0, 0], [JMPI, 9, 0, 0]]),
        ]),
        1,
    );
    (v.cpu.regs[8], v.cpu.regs[9], v.cpu.regs[1]) = (0x2000, 0x1000, 200_000);
    assert_eq!(v.run(1 << 40), Stop::Halted);
    assert_eq!((v.cpu.regs[0], v.stats.budget), (200_000, 0));
    assert!(v.stats.dispatches < 10, "{:?}", v.stats);
}

/// Programs made of random instructions, run in slices: the engines agree after each.
#[test]
fn engines_agree_after_every_slice() {
    let mut x = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x
    };
    let (mut smc, mut blocks, mut killed) = (0, 0, 0);
    for seed in 0..150 {
        let mut code = Vec::new();
        for _ in 0..2 * 4096 / LEN {
            let [x, y, z] = [next(), next(), next()];
            let op = [ADD, MOV, JMP, JNZ, STORE, LOAD, JMPI, DEC, PUSH, POP, RMW, STI, TRAP, JNZ];
            let op = op[(z >> 8) as usize % op.len()];
            let x = match op {
                JMP | JNZ => (x % 60) as u8 ^ (y % 2 * 255) as u8,
                TRAP => u8::from(y % 64 == 0),
                _ => (x % 12) as u8,
            };
            code.push([op, x, (y % 12) as u8, z as u8]);
        }
        let (runs, slice) = ([1, 2, 7][seed % 3], 1 + (next() % 500) as i64);
        let start = || {
            let mut v = vcpu(&[(0x1000, &code)]);
            v.cpu.sys.lstar = 0x1800;
            for (n, r) in v.cpu.regs[..16].iter_mut().enumerate() {
                *r = 0x1000 + (n as u64 * 0x9e5 & 0x1ffc);
            }
            v
        };
        let (mut a, mut b) = (start(), start());
        b.set_translator(Box::new(Mock::with_room(30)), runs);
        for _ in 0..100 {
            assert_eq!(a.run(slice), b.run(slice), "seed {seed}");
            assert_eq!(compare::differences(&a.cpu, &b.cpu), "", "seed {seed}");
        }
        assert_eq!(compare::pages(&a.cpu.mem.ram, &b.cpu.mem.ram, 1), []);
        smc += b.stats.smc;
        blocks += stats(&b).blocks;
        killed += b.cache.stats.invalidated;
    }
    assert!(smc > 100 && blocks > 1000 && killed > 100, "{smc} {blocks} {killed}");
}
