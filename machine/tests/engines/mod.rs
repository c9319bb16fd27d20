//! The same machine on two engines, compared after every slice.

use emu_core::native::Translator;
use machine::{Machine, Outcome};
use std::time::{Duration, Instant};

#[path = "../../../emu-core/tests/suite/lockstep.rs"]
pub mod lockstep;
#[path = "../../../emu-core/tests/suite/mock.rs"]
#[allow(dead_code)]
mod mock;

/// How often memories are compared.
const SLICES: u64 = 500;

/// The code generators that there are: one without code, and the host's.
pub fn generators() -> impl Iterator<Item = Box<dyn Translator>> {
    let mock: Box<dyn Translator> = Box::new(mock::Mock::with_room(20_000));
    [Some(mock), machine::host_translator()].into_iter().flatten()
}

/// Runs two machines that `make` makes, on an instruction-count clock, the second of them with
/// blocks translated by `generator` from their run number `runs` on, for `time` of the host's or
/// `slices`; gives the outcome, if it was reached, and the machines.
pub fn in_step(
    make: impl Fn() -> Machine,
    generator: Box<dyn Translator>,
    runs: u16,
    time: Duration,
    slices: u64,
) -> (Option<Outcome>, [Machine; 2]) {
    let [mut a, mut b] = [(); 2].map(|()| make());
    b.set_translator(generator, runs);
    let end = Instant::now() + time;
    let mut ended = None;
    for slice in 1..=slices {
        let [x, y] = [&mut a, &mut b].map(|m| m.turn(Some(end)).unwrap());
        let (p, q) = (&a.vcpu().cpu, &b.vcpu().cpu);
        lockstep::same_state(p, q);
        if slice % SLICES == 0 || x.is_some() {
            lockstep::same_memory(p, q, p.mem.ram.len());
        }
        // A report of a triple fault also tells what the engine did last.
        match (&x, &y) {
            (Some(Outcome::Shutdown(_)), Some(Outcome::Shutdown(_))) => {}
            _ => assert_eq!(x, y),
        }
        if x.is_some() || Instant::now() > end {
            ended = x;
            break;
        }
    }
    (ended, [a, b])
}
