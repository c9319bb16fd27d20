//! How long lifting takes, per guest instruction: decoding, micro-ops, passes.

mod code;

use code::{BLOCKS, MODE};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use emu_core::passes;
use frontend_x86::lift::{MAX_INSNS, lift_bytes};
use std::hint::black_box;

fn lift(c: &mut Criterion) {
    let features = frontend_x86::sys::cpuid::Features::ALL.0;
    let mut group = c.benchmark_group("lift");
    for &(name, bytes, insns) in BLOCKS {
        assert_eq!(lift_bytes(bytes, MODE, features, MAX_INSNS).0.insns.len() as u64, insns);
        group.throughput(Throughput::Elements(insns));
        group.bench_function(name, |b| {
            b.iter(|| {
                let (mut block, _) = lift_bytes(black_box(bytes), MODE, features, MAX_INSNS);
                passes::run(&mut block);
                block
            });
        });
    }
    group.finish();
}

criterion_group!(benches, lift);
criterion_main!(benches);
