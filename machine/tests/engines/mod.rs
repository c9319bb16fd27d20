//! The same machine on two engines, compared as it runs.

use emu_core::native::Translator;
use machine::lockstep::Ended;
use machine::{Lockstep, Machine, Outcome};
use std::time::{Duration, Instant};

#[path = "../../../emu-core/tests/suite/mock.rs"]
#[allow(dead_code)]
mod mock;

/// Makes a code generator.
pub type Generator = fn() -> Box<dyn Translator>;

/// The code generators that there are: one without code, and the host's.
pub fn generators() -> impl Iterator<Item = Generator> {
    let mock: Generator = || Box::new(mock::Mock::with_room(20_000));
    let host: Generator = || machine::host_translator().unwrap();
    [Some(mock), machine::host_translator().map(|_| host)].into_iter().flatten()
}

/// Runs two machines that `make` makes, on an instruction-count clock, the second of them with
/// blocks translated by `generator` from their run number `runs` on, for `time` of the host's or
/// `turns`; gives the outcome, if it was reached, and the machines.
pub fn in_step(
    make: impl Fn() -> Machine + 'static,
    generator: Generator,
    runs: u16,
    time: Duration,
    turns: u64,
) -> (Option<Outcome>, Lockstep) {
    let pair = move || {
        let [a, mut b] = [make(), make()];
        assert!(a.vcpu().cache.translator().is_none(), "the reference is the interpreter");
        b.set_translator(generator(), runs);
        Ok([a, b])
    };
    let mut both = Lockstep::with(pair).unwrap();
    let end = Instant::now() + time;
    for _ in 0..turns {
        match both.turn(Some(end)).unwrap() {
            Some(Ended::Same(outcome)) => return (Some(outcome), both),
            Some(Ended::Differ(report)) => panic!("{}", report.text),
            None if Instant::now() > end => break,
            None => {}
        }
    }
    (None, both)
}
