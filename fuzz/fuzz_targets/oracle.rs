//! The CPU model against the CPU beneath it: the fuzzer's bytes as code, what is not compared left
//! out by the rules of `ring3 diff`.
//!
//! The worker is instrumented like everything here, so the handler that takes a sample's registers
//! writes a word of thread-local storage, at the sample's FS base: that base is fixed, and the word
//! not compared. A timer tick before the base is set may even kill the worker: that sample is left
//! out.
#![no_main]

use frontend_x86::model::CpuModel;
use iced_x86::{Mnemonic, Register};
use libfuzzer_sys::fuzz_target;
use oracle::{Bits, CODE_MAX, MEMORY, Oracle, Outcome, Sample};
use ring3::diff::cases::{base, print};
use ring3::diff::compare::{compare, instructions};
use ring3::diff::coverage::MODEL;
use ring3::diff::generate::Generator;
use ring3::diff::model::Model;
use ring3::diff::rules;
use ring3_fuzz::head;
use std::cell::RefCell;
use std::ops::Range;

struct Both {
    model: Model,
    oracle: Option<Oracle>,
    states: [Generator; 2],
    /// Bytes of the memory that the handler writes.
    noise: Range<usize>,
}

/// FS base of all samples.
const FS_BASE: u64 = MEMORY + 0x1000;

/// The bytes from the first to the last that a sample of UD2 changes, in whole words.
fn noise(oracle: &mut Oracle) -> Range<usize> {
    let mut sample = Sample { code: vec![0x0f, 0x0b], ..base() };
    sample.state.fs_base = FS_BASE;
    // The word is a stack pointer's minimum: it must be large to be written.
    sample.memory.fill(0xff);
    let after = oracle.run(&sample).memory;
    let first = after.iter().position(|b| *b != 0xff);
    let last = after.iter().rposition(|b| *b != 0xff);
    first.zip(last).map_or(0..0, |(first, last)| first & !7..(last | 7) + 1)
}

thread_local! {
    static BOTH: RefCell<Both> = RefCell::new({
        // Without one there is nothing to do.
        let mut oracle = Oracle::new().ok();
        let noise = oracle.as_mut().map_or(0..0, noise);
        let states = [Bits::B64, Bits::B32].map(|bits| Generator::new(0, bits, MODEL.0, None));
        Both { model: Model::new(CpuModel::default()), oracle, states, noise }
    });
}

/// Whether the rules let all instructions of `sample` be compared.
fn comparable(sample: &Sample) -> bool {
    let mut undefined = 0;
    instructions(sample).iter().all(|e| {
        let i = &e.insn;
        let known = !i.is_invalid() && rules::in_model(i, sample.bits, MODEL.0);
        let fine = known && rules::read(i) & undefined == 0;
        undefined = (undefined & !rules::defined(i)) | rules::undefined(i);
        let fs = matches!(i.mnemonic(), Mnemonic::Lfs | Mnemonic::Wrfsbase)
            || i.op_count() > 0 && i.op0_register() == Register::FS;
        fine && !fs
            && rules::excluded(i, MODEL.0).is_none()
            && rules::excluded_form(e).is_none()
            && !rules::branches(i)
            && !rules::alone(i.mnemonic())
    })
}

fuzz_target!(|data: &[u8]| {
    let Some(([kind, seed, low, high], code)) = head(data) else { return };
    BOTH.with_borrow_mut(|both| {
        let states = &mut both.states[usize::from(kind & 1)];
        states.reseed(seed.into());
        let code = code[..code.len().min(CODE_MAX)].to_vec();
        let mut sample = Sample { code, ..states.sample() };
        sample.state.fs_base = FS_BASE;
        for (n, r) in sample.state.gpr.iter_mut().enumerate() {
            if u16::from_le_bytes([low, high]) & 1 << n != 0 && (n < 8 || kind & 1 == 0) {
                *r = MEMORY + 0x800 + 64 * (*r & 63);
            }
        }
        let Some(oracle) = both.oracle.as_mut().filter(|_| comparable(&sample)) else { return };
        let model = both.model.run(&sample);
        let mut cpu = oracle.run(&sample);
        if matches!(cpu.outcome, Outcome::Died { .. }) {
            return;
        }
        cpu.memory[both.noise.clone()].copy_from_slice(&model.memory[both.noise.clone()]);
        let differences = compare(&sample, &cpu, &model);
        assert!(differences.is_empty(), "{}\n{differences:#?}", print(&sample, &cpu));
    });
});
