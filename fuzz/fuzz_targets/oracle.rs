//! The CPU model against the CPU beneath it: the fuzzer's bytes as code, what is not compared left
//! out by the rules of `ring3 diff`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oracle::{Bits, CODE_MAX, MEMORY, Oracle, Sample};
use ring3::diff::cases::print;
use ring3::diff::compare::{compare, instructions};
use ring3::diff::coverage::MODEL;
use ring3::diff::generate::Generator;
use ring3::diff::model::Model;
use ring3::diff::rules;
use ring3_fuzz::head;
use std::cell::RefCell;

struct Both {
    model: Model,
    oracle: Option<Oracle>,
    states: [Generator; 2],
}

thread_local! {
    static BOTH: RefCell<Both> = RefCell::new(Both {
        model: Model::with(MODEL),
        // Without one there is nothing to do.
        oracle: Oracle::new().ok(),
        states: [Bits::B64, Bits::B32].map(|bits| Generator::new(0, bits, MODEL.0, None)),
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
        fine && rules::excluded(i, MODEL.0).is_none()
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
        for (n, r) in sample.state.gpr.iter_mut().enumerate() {
            if u16::from_le_bytes([low, high]) & 1 << n != 0 && (n < 8 || kind & 1 == 0) {
                *r = MEMORY + 0x800 + 64 * (*r & 63);
            }
        }
        let Some(oracle) = both.oracle.as_mut().filter(|_| comparable(&sample)) else { return };
        let model = both.model.run(&sample);
        let cpu = oracle.run(&sample);
        let differences = compare(&sample, &cpu, &model);
        assert!(differences.is_empty(), "{}\n{differences:#?}", print(&sample, &cpu));
    });
});
