//! Lockstep: the same machine twice, on the interpreter and on translated blocks, compared as they
//! run; at the first difference a report says which block did what.
//!
//! Both are on an instruction-count clock, so that each turn of one is the same turn of the other:
//! the first machine takes the input, and what its chips took goes to the second one in the same
//! turn. Within a turn the CPUs run in pieces of [`PIECE`] instructions and are compared after
//! each: their state, but not their memories, which are compared every [`MEMORY`] instructions and
//! at the end. A run that is cut into pieces is the same to the guest as one that is not.
//!
//! **Narrowing.** A piece is hundreds of blocks, and a wrong word in memory may lie there for
//! long. But a run can be repeated: the input of each turn is kept, so the pair is made once more,
//! goes unchecked to where the memories were last the same, and from there one block at a time,
//! with a comparison of the state, and of the pages that were found to differ, after each. When
//! that finds nothing, the difference takes blocks that lead to each other: then the translated
//! machine runs in short pieces, and the interpreter says which blocks those were.

use crate::machine::{Error, Machine, MachineConfig, Outcome, host_translator};
use crate::pc::Input;
use crate::{ClockKind, Engine, Stat, Value, listing};
use emu_core::compare::{self, State};
use emu_core::cpu::mode;
use emu_core::passes;
use emu_core::vcpu::{Dispatched, Stop};
use frontend_x86::lift::{MAX_INSNS, bitness, lift_bytes};
use std::fmt::Write;
use std::time::{Duration, Instant};

/// Instructions after which the CPUs are compared.
pub const PIECE: i64 = 1000;
/// Instructions after which the memories are compared.
pub const MEMORY: u64 = 10_000_000;
/// Pieces in which a run is repeated: a block, some blocks, and as before.
const NARROW: [i64; 3] = [0, 16, PIECE];
/// Pages that are looked at while narrowing.
const SUSPECTS: usize = 8;
/// Blocks that a report names.
const TRAIL: usize = 24;
/// Blocks that a report shows when it cannot say which one is wrong.
const SHOWN: usize = 8;

/// Two machines that should be the same: the interpreter's and the translated one.
type Pair = [Machine; 2];

/// Two machines in lockstep.
pub struct Lockstep {
    make: Box<dyn Fn() -> Result<Pair, Error>>,
    pair: Pair,
    /// Turns so far.
    turns: u64,
    /// Input, by turn.
    inputs: Vec<(u64, Input)>,
    /// Turns after which the memories were last the same.
    agreed: u64,
    /// Instruction count from which on they are compared again.
    next: u64,
    /// How often the CPUs were compared.
    compared: u64,
}

/// How a run of both ended.
#[derive(Clone, Debug)]
pub enum Ended {
    /// Both in the same way.
    Same(Outcome),
    /// The engines differ.
    Differ(Report),
}

/// A difference.
#[derive(Clone, Debug)]
pub struct Report {
    /// The block that did it, if that is known.
    pub block: Option<Dispatched>,
    /// All that is known, in lines.
    pub text: String,
}

/// Why a turn was not done.
enum Break {
    /// One of the machines cannot go on.
    Error(Error),
    /// They differ in this.
    Differ(&'static str),
}

impl From<Error> for Break {
    fn from(error: Error) -> Break {
        Break::Error(error)
    }
}

impl Lockstep {
    /// Two machines as `config` says, but for clock and engine: the second one runs nothing but
    /// host code where it can.
    ///
    /// # Errors
    /// As [`Machine::new`].
    pub fn new(config: MachineConfig) -> Result<Lockstep, Error> {
        let config = MachineConfig { clock: ClockKind::Icount, engine: Engine::Interp, ..config };
        Lockstep::with(move || {
            let mut b = Machine::new(config.clone())?;
            b.set_translator(host_translator().ok_or(Error::NoTranslator)?, 1);
            Ok([Machine::new(config.clone())?, b])
        })
    }

    /// The two machines that `make` makes, both on an instruction-count clock, the second one with
    /// the engine to be tested. The same again when it is called again.
    ///
    /// # Errors
    /// What `make` says.
    pub fn with(make: impl Fn() -> Result<Pair, Error> + 'static) -> Result<Lockstep, Error> {
        let pair = make()?;
        Ok(Lockstep {
            make: Box::new(make),
            pair,
            turns: 0,
            inputs: Vec::new(),
            agreed: 0,
            next: MEMORY,
            compared: 0,
        })
    }

    /// The machine whose lines are connected: that on the interpreter.
    pub fn front(&mut self) -> &mut Machine {
        &mut self.pair[0]
    }

    /// Both machines: that on the interpreter, and the other one.
    #[must_use]
    pub fn machines(&self) -> &[Machine; 2] {
        &self.pair
    }

    /// What the machine under test has counted so far, and how often the two were compared.
    #[must_use]
    pub fn stats(&self) -> Vec<Stat> {
        let compared = Stat { name: "lockstep_comparisons", value: Value::Count(self.compared) };
        self.pair[1].stats().into_iter().chain([compared]).collect()
    }

    /// Runs both until the guest or the host ends it, or they differ, or for `timeout` of the
    /// host's time.
    ///
    /// # Errors
    /// As [`Machine::run`].
    pub fn run(&mut self, timeout: Option<Duration>) -> Result<Ended, Error> {
        let until = timeout.and_then(|t| Instant::now().checked_add(t));
        loop {
            if self.pair[0].control().stopped() {
                return Ok(Ended::Same(Outcome::Stopped));
            }
            if until.is_some_and(|t| Instant::now() >= t) {
                return Ok(Ended::Same(Outcome::Timeout));
            }
            if let Some(ended) = self.turn(until)? {
                return Ok(ended);
            }
        }
    }

    /// One turn of both; see [`Machine::turn`].
    ///
    /// # Errors
    /// As [`Machine::turn`].
    pub fn turn(&mut self, until: Option<Instant>) -> Result<Option<Ended>, Error> {
        let Lockstep { pair, compared, inputs, turns, .. } = self;
        let mut step = |pair: &mut Pair, slice| {
            in_pieces(pair, slice, PIECE, both, |pair| {
                *compared += 1;
                compare::same(&pair[0].vcpu().cpu, &pair[1].vcpu().cpu)
            })
        };
        let keep = |input: &Input| {
            if !input.is_empty() {
                inputs.push((*turns, input.clone()));
            }
        };
        let done = turn(pair, &Input::new(), until, keep, &mut step);
        let done = match done {
            Ok(outcome) => self.memories(outcome.is_some()).map(|()| outcome),
            Err(e) => Err(e),
        };
        self.turns += 1;
        match done {
            Ok(outcome) => Ok(outcome.map(Ended::Same)),
            Err(Break::Error(error)) => Err(error),
            Err(Break::Differ(what)) => {
                self.pair[0].transmit()?;
                self.narrow(what).map(|r| Some(Ended::Differ(r)))
            }
        }
    }

    /// Compares the memories if it is time to, or `now`.
    fn memories(&mut self, now: bool) -> Result<(), Break> {
        let [a, b] = self.pair.each_ref().map(|m| &m.vcpu().cpu);
        if !now && a.icount() < self.next {
            return Ok(());
        }
        self.next = a.icount() + MEMORY;
        if !compare::pages(&a.mem.ram, &b.mem.ram, 1).is_empty() {
            return Err(Break::Differ("memory"));
        }
        self.agreed = self.turns + 1;
        Ok(())
    }

    /// Repeats the run up to the turn that has just differed in `what`, to find out where.
    fn narrow(&self, what: &'static str) -> Result<Report, Error> {
        let [a, b] = self.pair.each_ref().map(|m| &m.vcpu().cpu.mem.ram);
        let suspects = compare::pages(a, b, SUSPECTS);
        for piece in NARROW {
            let mut pair = (self.make)()?;
            let mut trail = Trail::new(&pair, &suspects);
            match self.replay(&mut pair, piece, &mut trail) {
                Ok(()) => {}
                Err(Break::Error(error)) => return Err(error),
                Err(Break::Differ(what)) => {
                    let sure = piece == 0 && what != CHIPS;
                    return Ok(trail.report(&pair, what, sure));
                }
            }
        }
        Ok(Trail::new(&self.pair, &suspects).report(&self.pair, what, false))
    }

    /// Runs `pair` through the turns so far, from the last agreement on with comparisons every
    /// `piece` instructions.
    fn replay(&self, pair: &mut Pair, piece: i64, trail: &mut Trail) -> Result<(), Break> {
        let mut inputs = self.inputs.iter().peekable();
        for n in 0..self.turns {
            let none = Input::new();
            let input = inputs.next_if(|(turn, _)| *turn == n).map_or(&none, |(_, input)| input);
            let past = Some(Instant::now());
            if n < self.agreed {
                let mut step =
                    |pair: &mut Pair, slice| in_pieces(pair, slice, PIECE, both, |_| true);
                turn(pair, input, past, |_| (), &mut step)?;
                continue;
            }
            trail.before = State::of(&pair[0].vcpu().cpu);
            let mut step = |pair: &mut Pair, slice| trail.in_pieces(pair, slice, piece);
            turn(pair, input, past, |_| (), &mut step)?;
        }
        Ok(())
    }
}

/// What the chips did, and did not do alike.
const CHIPS: &str = "the chips";

/// One turn of both machines, with `input` for the first one besides its own; `taken` is told what
/// that took in all, and `run` runs the CPUs.
fn turn(
    pair: &mut Pair,
    input: &Input,
    until: Option<Instant>,
    taken: impl FnOnce(&Input),
    run: &mut impl FnMut(&mut Pair, i64) -> Result<Stop, Break>,
) -> Result<Option<Outcome>, Break> {
    let send = |to: &Machine, input: &Input| {
        for &(port, byte) in input {
            to.control().send(port, &[byte]);
        }
    };
    send(&pair[0], input);
    let (slice, input) = pair[0].begin();
    taken(&input);
    send(&pair[1], &input);
    if pair[1].begin() != (slice, input) {
        return Err(Break::Differ(CHIPS));
    }
    let stop = run(pair, slice)?;
    let first = pair[0].end(stop, until)?;
    // What the first has waited for is there.
    let second = pair[1].end(stop, Some(Instant::now()))?;
    let [a, b] = &*pair;
    let alike = match (&first, &second) {
        // The report also tells what the engine did last.
        (Some(Outcome::Shutdown(_)), Some(Outcome::Shutdown(_))) => true,
        (first, second) => first == second,
    };
    if !alike || (a.sent, a.board().stats()) != (b.sent, b.board().stats()) {
        return Err(Break::Differ(CHIPS));
    }
    Ok(first)
}

/// Runs both CPUs.
fn both(pair: &mut Pair, budget: i64) -> [Stop; 2] {
    pair.each_mut().map(|m| m.run_cpu(budget))
}

/// Runs both CPUs for `slice` instructions, by `step` in pieces of `piece`, after each of which
/// `same` says whether they are.
fn in_pieces(
    pair: &mut Pair,
    slice: i64,
    piece: i64,
    mut step: impl FnMut(&mut Pair, i64) -> [Stop; 2],
    mut same: impl FnMut(&mut Pair) -> bool,
) -> Result<Stop, Break> {
    let start = pair[0].vcpu().cpu.icount();
    loop {
        let left = slice - (pair[0].vcpu().cpu.icount() - start) as i64;
        if left < 0 {
            return Ok(Stop::Budget);
        }
        let [x, y] = step(pair, left.min(piece));
        if x != y || !same(pair) {
            return Err(Break::Differ("the state of the CPU"));
        }
        if x != Stop::Budget {
            return Ok(x);
        }
    }
}

/// What a repeated run remembers.
struct Trail<'a> {
    suspects: &'a [u64],
    /// The state before the current piece.
    before: State,
    /// The blocks that ran last, each once, with the times that it ran since it came here.
    blocks: Vec<(Dispatched, u64)>,
}

impl Trail<'_> {
    fn new<'a>(pair: &Pair, suspects: &'a [u64]) -> Trail<'a> {
        let cpu = &pair[0].vcpu().cpu;
        Trail { suspects, before: State::of(cpu), blocks: Vec::new() }
    }

    /// As the function of this name; the first machine runs one block at a time.
    fn in_pieces(&mut self, pair: &mut Pair, slice: i64, piece: i64) -> Result<Stop, Break> {
        let Trail { suspects, before, blocks } = self;
        let step = |pair: &mut Pair, budget| {
            let start = pair[0].vcpu().cpu.icount();
            let first = loop {
                let stop = pair[0].run_cpu(0);
                let block = pair[0].vcpu().last_block();
                match blocks.iter().position(|(b, _)| *b == block) {
                    Some(n) => {
                        blocks[n..].rotate_left(1);
                        blocks.last_mut().expect("it was found").1 += 1;
                    }
                    None => {
                        blocks.drain(..(blocks.len() + 1).saturating_sub(TRAIL));
                        blocks.push((block, 1));
                    }
                }
                let ran = pair[0].vcpu().cpu.icount() - start;
                if stop != Stop::Budget || ran as i64 > budget {
                    break stop;
                }
            };
            [first, pair[1].run_cpu(budget)]
        };
        in_pieces(pair, slice, piece, step, |pair| {
            let [a, b] = pair.each_ref().map(|m| &m.vcpu().cpu);
            let state = State::of(a);
            let page = |at: &u64| a.mem.ram.same(&b.mem.ram, *at, 4096);
            let same = state == State::of(b) && suspects.iter().all(page);
            if same {
                *before = state;
            }
            same
        })
    }

    /// `pair` has just differed in `what`; `sure`: by the last block.
    fn report(&self, pair: &Pair, what: &str, sure: bool) -> Report {
        let [a, b] = pair.each_ref().map(|m| m.vcpu());
        let mut blocks = self.blocks.clone();
        if blocks.is_empty() {
            blocks = [b, a].map(|vcpu| (vcpu.last_block(), 1)).into();
            blocks.dedup();
        }
        blocks.reverse();
        let mut text = format!("the engines differ in {what} at {} instructions", a.cpu.icount());
        let _ = match sure {
            true => writeln!(text, ", after the block at {:#x}", blocks[0].0.va),
            false => writeln!(text, ", after several blocks that lead to each other"),
        };
        text += &self.states(pair);
        for (block, _) in blocks.iter().take(if sure { 1 } else { SHOWN }) {
            text += &show(&pair[1], *block);
        }
        text += "\nblocks, the last one first\n";
        for (Dispatched { va, mode, .. }, times) in &blocks {
            let _ = writeln!(text, "    {va:#x} mode {mode:#x} times {times}");
        }
        Report { block: sure.then_some(blocks[0].0), text }
    }

    /// What the last piece changed, and how the two differ.
    fn states(&self, pair: &Pair) -> String {
        let [a, b] = pair.each_ref().map(|m| &m.vcpu().cpu);
        let (names, x, y) = (compare::names(a), State::of(a), State::of(b));
        let mut text = format!("{:22}{:>18}{:>18}{:>18}\n", "", "before", "interpreter", "jit");
        let mut rest = String::new();
        for (n, name) in names.iter().enumerate() {
            let [old, x, y] = [&self.before, &x, &y].map(|s| s.words()[n]);
            let mark = if x == y { ' ' } else { '*' };
            if x != y || x != old {
                let name = name.to_string();
                let _ = writeln!(text, "{mark} {name:<20}{old:>18x}{x:>18x}{y:>18x}");
            } else if x != 0 && name.0 != "exceptions" {
                let _ = write!(rest, " {name}={x:x}");
            }
        }
        for &page in self.suspects {
            let word = (page..page + 4096).step_by(8);
            let mut words = word.filter(|at| !a.mem.ram.same(&b.mem.ram, *at, 8));
            if let Some(at) = words.next() {
                let [x, y] = [a, b].map(|cpu| cpu.mem.ram.read_u64(at));
                let name = format!("RAM {at:#x}");
                let _ = writeln!(text, "* {name:<20}{:>18}{x:>18x}{y:>18x}", "");
            }
        }
        text + "unchanged:" + &rest + "\n"
    }
}

/// The block `d` of `machine`: instructions, micro-ops and host code.
fn show(machine: &Machine, d: Dispatched) -> String {
    let Dispatched { va, mode: m, off } = d;
    let (vcpu, bits) = (machine.vcpu(), bitness(m));
    let Some(off) = off else {
        return format!("\nblock at {va:#x}, mode {m:#x}, {bits}-bit code, not in RAM\n");
    };
    let mut bytes = vec![0; 4096 - (off & 4095) as usize];
    vcpu.cpu.mem.ram.read_bytes(off, &mut bytes);
    let most = if m & mode::SINGLE != 0 { 1 } else { MAX_INSNS };
    let (mut block, _) = lift_bytes(&bytes, m, vcpu.cpu.features, most);
    passes::run(&mut block);
    let entry = vcpu.cached(off, m);
    let host = entry.zip(vcpu.cache.translator()).map(|(e, t)| t.listing(e.ip)).unwrap_or_default();
    let how = if host.is_empty() { "not translated" } else { "translated" };
    format!(
        "\nblock at {va:#x}, RAM offset {off:#x}, mode {m:#x}, {bits}-bit code, {how}\n{}",
        listing(&block, &bytes, va, m, &host)
    )
}
