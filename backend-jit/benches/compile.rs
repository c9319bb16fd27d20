//! How long the code generator takes, per guest instruction.

#[path = "../../frontend-x86/benches/code/mod.rs"]
mod code;

use backend_jit::native;
use code::{BLOCKS, MODE};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use emu_core::clock::Clock;
use emu_core::cpu::Cpu;
use emu_core::mem::PhysMem;
use emu_core::native::{Part, Place};
use emu_core::passes;
use frontend_x86::lift::{MAX_INSNS, lift_bytes};
use frontend_x86::sys::cpuid::Features;
use std::sync::Arc;

fn compile(c: &mut Criterion) {
    let Some(mut translator) = native() else {
        eprintln!("no code generator for this host");
        return;
    };
    let mem = PhysMem::flat(1 << 16).expect("there is room");
    let mut cpu = Cpu::new(mem, Arc::new(Clock::icount()), &frontend_x86::FRONTEND);
    cpu.mode = MODE;
    let mut group = c.benchmark_group("compile");
    for (number, &(name, bytes, insns)) in BLOCKS.iter().enumerate() {
        let (mut block, _) = lift_bytes(bytes, MODE, Features::ALL.0, MAX_INSNS);
        passes::run(&mut block);
        let records: Vec<u32> = (1..).take(block.insns.len()).collect();
        let first = 1000 * number as u32;
        let place = Place { second: None, first, last: 999, insns: &records, off: 0, mode: MODE };
        group.throughput(Throughput::Elements(insns));
        group.bench_function(name, |b| {
            b.iter(|| {
                if translator.translate(&[Part { block: &block, place }]).is_none() {
                    translator.clear();
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, compile);
criterion_main!(benches);
