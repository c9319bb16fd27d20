//! How long the soft TLB takes for a lookup, and the interpreter for an instruction of a loop. The
//! instructions are those of the tests' toy frontend, so that only the core is measured.

#[path = "../tests/suite/toy.rs"]
#[allow(dead_code)]
mod toy;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use emu_core::clock::Clock;
use emu_core::cpu::{Cpu, mode};
use emu_core::mem::PhysMem;
use emu_core::mem::tlb::{Kind, Rights, Tlb, Translation};
use emu_core::vcpu::{Stop, Vcpu};
use std::hint::black_box;
use std::sync::Arc;
use toy::*;

/// Pages that lookups go round; both levels hold them.
const PAGES: u64 = 256;

const SMALL: Kind = Kind { global: false, large: false };

fn tlb(c: &mut Criterion) {
    let all = Rights { read: true, write: true, code: false };
    let walked = |pa| Translation {
        pa,
        shift: 12,
        writable: true,
        user: true,
        exec: true,
        global: false,
        dirty: true,
        key: 0,
    };
    let mut tlb = Tlb::new();
    for page in 0..PAGES {
        tlb.insert(page << 12, page << 12, all, SMALL);
        tlb.insert2(page << 12, walked(page << 12));
    }
    let mut group = c.benchmark_group("tlb");
    group.throughput(Throughput::Elements(PAGES));
    let addresses = || (0..PAGES).map(|page| black_box(page << 12 | 8));
    group.bench_function("level 1 hit", |b| {
        b.iter(|| addresses().filter_map(|va| tlb.read(va, 8)).sum::<u64>());
    });
    group.bench_function("level 2 hit", |b| {
        b.iter(|| addresses().filter_map(|va| tlb.lookup2(va)).map(|t| t.pa).sum::<u64>());
    });
    group.bench_function("level 1 insert", |b| {
        b.iter(|| addresses().for_each(|va| tlb.insert(va, va, all, SMALL)));
    });
    let mut next = 0;
    group.bench_function("flush and refill", |b| {
        b.iter(|| {
            next ^= 1;
            tlb.switch(next, false);
            addresses().for_each(|va| tlb.insert(va, va, all, SMALL));
        });
    });
    group.finish();
}

const fn back(n: i8) -> u8 {
    (-n) as u8
}

/// Loops without an end.
const LOOPS: &[(&str, &[[u8; 4]])] = &[
    (
        "add",
        &[[ADD, 0, 1, 0], [ADD, 1, 3, 0], [MOV, 2, 0, 0], [ADD, 2, 5, 0], [JMP, back(5), 0, 0]],
    ),
    ("memory", &[[LOAD, 0, 3, 1], [STORE, 3, 0, 2], [RMW, 3, 1, 4], [JMP, back(4), 0, 0]]),
    (
        "stack",
        &[[PUSH, 0, 0, 0], [PUSH, 1, 0, 0], [POP, 0, 0, 0], [POP, 1, 0, 0], [JMP, back(5), 0, 0]],
    ),
    ("count", &[[DEC, 0, 0, 0], [JNZ, back(2), 0, 0], [JMP, back(3), 0, 0]]),
    ("indirect", &[[ADD, 0, 1, 0], [JMPI, 8, 0, 0]]),
];

fn interpreter(c: &mut Criterion) {
    const INSNS: i64 = 100_000;
    const START: u64 = 0x1000;
    let mut group = c.benchmark_group("interpreter");
    group.throughput(Throughput::Elements(INSNS as u64));
    for (name, code) in LOOPS {
        let mem = PhysMem::flat(0x1_0000).expect("there is room");
        let mut cpu = Cpu::new(mem, Arc::new(Clock::icount()), &FRONTEND);
        cpu.mode = mode::CODE64;
        cpu.mem.write_bytes(START, code.as_flattened());
        cpu.set_rip(START);
        (cpu.regs[3], cpu.regs[4], cpu.regs[8]) = (0x4000, 0x6000, START);
        let mut vcpu = Vcpu::new(cpu);
        group.bench_function(*name, |b| b.iter(|| assert_eq!(vcpu.run(INSNS), Stop::Budget)));
    }
    group.finish();
}

criterion_group!(benches, tlb, interpreter);
criterion_main!(benches);
