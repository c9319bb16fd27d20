//! Several blocks: links, guards, indirect jumps, and what becomes of them when blocks die.

use crate::machine::start;
use backend_jit::x64::X64;
use emu_core::build::Builder;
use emu_core::cpu::{Cpu, Reg};
use emu_core::flags::ZF;
use emu_core::interp::Leave;
use emu_core::mem::tlb::Access;
use emu_core::native::{Part, Place, TARGETS, Target, Translator};
use emu_core::text::parse;
use emu_core::uop::{Block, Mem, Op};
use emu_core::width::Width::W64;

/// Budget at the start of a run.
const BUDGET: i64 = 1000;

struct Setup {
    cpu: Cpu,
    x: X64,
}

impl Setup {
    fn new() -> Setup {
        let mut cpu = start(3);
        cpu.set_rip(0x1000);
        (cpu.regs[0], cpu.regs[1], cpu.regs[2]) = (0, 10, 0);
        Setup { cpu, x: X64::new(1 << 20).unwrap() }
    }

    /// Translates a block of one or two records from `first` on, at RAM offset `off`.
    fn block(&mut self, first: u32, off: u64, f: impl Fn(&mut Builder)) -> u64 {
        let mut b = Builder::new();
        b.start_insn(4);
        f(&mut b);
        let block: Block = b.finish();
        let insns = [first];
        let place =
            Place { second: None, first, last: first + 1, insns: &insns, off, mode: self.cpu.mode };
        self.x.translate(&[Part { block: &block, place }]).unwrap()
    }

    /// Enters the block at `first` with RIP `rip`.
    fn go(&mut self, first: u32, rip: u64) -> (Leave, usize) {
        self.cpu.set_rip(rip);
        self.cpu.budget = BUDGET;
        let entry = self.x.entry(first).unwrap();
        Leave::decode(self.x.enter()(&mut self.cpu, entry))
    }

    fn ran(&self) -> i64 {
        BUDGET - self.cpu.budget
    }
}

fn add(b: &mut Builder, r: Reg, n: i64) {
    b.op(Op::Add, W64, r, r, n);
}

/// RAX counts its turns; RCX those to go.
fn turn(b: &mut Builder, taken: i64) {
    add(b, Reg::RAX, 1);
    b.op(Op::Sub, W64, Reg::RCX, Reg::RCX, 1);
    b.jcc(W64, 5, taken, 4);
}

fn body(b: &mut Builder) {
    turn(b, 0x40);
}

#[test]
fn a_loop_runs_until_its_condition_or_its_budget_ends_it() {
    let mut s = Setup::new();
    s.block(10, 0x1000, |b| turn(b, 0));
    assert_eq!(s.go(10, 0x1000), (Leave::LinkFall, 11));
    assert_eq!((s.cpu.regs[0], s.cpu.rip(), s.ran()), (10, 0x1004, 10));
    assert_eq!(s.cpu.flags.bits() & ZF, ZF);
    s.cpu.regs[1] = 1 << 20;
    assert_eq!(s.go(10, 0x1000), (Leave::Budget, 11));
    assert_eq!((s.cpu.budget, s.cpu.rip()), (-1, 0x1000));
}

#[test]
fn an_exit_to_a_block_that_is_not_translated_goes_on_there_later() {
    let mut s = Setup::new();
    s.block(10, 0x1000, body);
    s.x.link(10, true, Target::Block(20));
    assert_eq!(s.go(10, 0x1000), (Leave::Next, 20));
    s.block(20, 0x1000, |b| {
        add(b, Reg::RDX, 1);
        b.exit();
    });
    assert_eq!(s.go(10, 0x1000), (Leave::Exit, 21));
    assert_eq!((s.cpu.regs[2], s.ran()), (1, 2));
}

#[test]
fn a_dead_block_is_left_at_once_and_its_exits_may_be_linked_anew() {
    let mut s = Setup::new();
    s.block(10, 0x1000, body);
    let old = s.block(20, 0x1000, |b| b.exit());
    s.x.link(10, true, Target::Block(20));
    assert_eq!(s.go(10, 0x1000), (Leave::Exit, 21));
    s.x.kill(20);
    assert_eq!(s.x.entry(20), None);
    assert_eq!(s.go(10, 0x1000), (Leave::LinkTaken, 11));
    s.cpu.budget = 5;
    assert_eq!(Leave::decode(s.x.enter()(&mut s.cpu, old)), (Leave::Lookup, 20));
    s.block(30, 0x1000, |b| b.leave(W64));
    s.x.link(10, true, Target::Block(30));
    assert_eq!(s.go(10, 0x1000), (Leave::Exit, 31));
    s.x.clear();
    assert_eq!((s.x.entry(10), s.x.entry(30)), (None, None));
    s.block(10, 0x1000, body);
    assert_eq!(s.go(10, 0x1000), (Leave::LinkTaken, 11));
}

#[test]
fn a_guarded_exit_looks_where_rip_is_mapped() {
    let mut s = Setup::new();
    s.block(10, 0x1000, |b| b.goto(W64, 0x1010));
    s.x.link(10, true, Target::Guarded { guard: 50, off: 0x2010, first: 20 });
    assert_eq!(s.cpu.tlb.exec(0x2010), None);
    assert_eq!(s.go(10, 0x1000), (Leave::Next, 50), "not translated");
    assert_eq!(s.cpu.tlb.exec(0x2010), Some(0x2010));
    s.block(20, 0x2010, |b| b.exit());
    assert_eq!(s.go(10, 0x1000), (Leave::Exit, 21));
    // The same block runs at another address, where its target is another page.
    s.cpu.probe(0x4010, 1, Access::Exec).unwrap();
    assert_eq!(s.go(10, 0x3000), (Leave::Lookup, 50));
    s.x.kill(20);
    assert_eq!(s.go(10, 0x1000), (Leave::LinkTaken, 11));
}

#[test]
fn indirect_jumps_find_translated_blocks_of_their_mode() {
    let mut s = Setup::new();
    // So that no end is gone on after.
    s.cpu.native.traced = true;
    s.block(10, 0x1000, |b| b.jmpi(W64, Reg::RSI));
    s.block(20, 0x2020, |b| b.exit());
    s.cpu.regs[6] = 0x2020;
    assert_eq!(s.cpu.tlb.exec(0x2020), None);
    assert_eq!(s.go(10, 0x1000), (Leave::Exit, 21));
    assert_eq!((s.cpu.rip(), s.ran()), (0x2020, 2));
    s.x.kill(20);
    assert_eq!(s.go(10, 0x1000).0, Leave::Lookup);
    let mode = std::mem::replace(&mut s.cpu.mode, 0xffff_0001);
    s.block(30, 0x2020, |b| b.exit());
    s.cpu.mode = mode;
    assert_eq!(s.go(10, 0x1000).0, Leave::Lookup, "of another mode");
}

/// An empty table of targets knows no address, whatever stands in it.
#[test]
fn indirect_jumps_to_any_address_find_nothing_in_an_empty_table() {
    let mut s = Setup::new();
    s.block(10, 0x3000, |b| b.jmpi(W64, Reg::RSI));
    let low = 0..2 * TARGETS as u64;
    for to in low.chain((0..64).map(|n| 1 << n)).chain((0..64).map(|n| u64::MAX << n)) {
        s.cpu.regs[6] = to;
        assert_eq!(s.go(10, 0x3000), (Leave::Lookup, 11), "{to:#x}");
    }
}

/// A store into the block that is in progress leaves before it, with the flags of the instruction
/// before.
#[test]
fn a_store_into_code_is_left_to_the_run_loop() {
    let mut s = Setup::new();
    s.cpu.mem.code.mark(0x1000, 64);
    s.cpu.regs[6] = 0x1008;
    let before = s.cpu.mem.ram.read_u64(0x1008);
    for op in [Op::St, Op::Ldw] {
        s.block(10, 0x1000, |b| {
            b.op(Op::Sub, W64, Reg::RDX, Reg::RDX, Reg::RDX);
            b.start_insn(1);
            let m = Mem::at(Reg::RSI, 0);
            if op == Op::St {
                b.store(op, W64, m, 7);
            } else {
                let t = b.temp();
                b.load(op, W64, t, m);
            }
            b.goto(W64, 4);
        });
        s.cpu.regs[2] = 5;
        assert_eq!(s.go(10, 0x1000).0, Leave::Smc);
        assert_eq!((s.cpu.flags.bits() & ZF, s.cpu.regs[2], s.ran()), (ZF, 0, 0));
        assert_eq!(s.cpu.mem.ram.read_u64(0x1008), before);
    }
}

/// Fused with what it stores, too: its slow path runs the two as micro-ops.
#[test]
fn a_fused_store_into_code_is_left_to_the_run_loop() {
    let mut s = Setup::new();
    s.cpu.mem.code.mark(0x1000, 64);
    (s.cpu.regs[6], s.cpu.v[7]) = (0x1008, [1, 2, 3, 4]);
    let before = s.cpu.mem.ram.read_u64(0x1008);
    for lane in 0..2 {
        let text = format!("+0 len 4\n vget.64 t0, v7[{lane}]\n st.64 [rsi], t0\n goto.64 +0x4");
        let block = parse(&text, &[]).unwrap();
        let place = Place {
            second: None,
            first: 10,
            last: 11,
            insns: &[10],
            off: 0x1000,
            mode: s.cpu.mode,
        };
        s.x.translate(&[Part { block: &block, place }]).unwrap();
        assert_eq!(s.go(10, 0x1000), (Leave::Smc, 10));
        assert_eq!((s.cpu.mem.ram.read_u64(0x1008), s.ran()), (before, 0));
    }
}

/// Too small a buffer is noticed, and can be emptied.
#[test]
fn a_full_buffer_says_so() {
    let mut s = Setup::new();
    let mut b = Builder::new();
    b.start_insn(1);
    for _ in 0..1000 {
        b.load(Op::Ld, W64, Reg::RAX, Mem::at(Reg::RAX, 0));
    }
    b.goto(W64, 0);
    let block = b.finish();
    let part = |first| {
        let place = Place { second: None, first, last: 1, insns: &[1], off: 0, mode: 1 };
        [Part { block: &block, place }]
    };
    let fits = (0..).find(|&n| s.x.translate(&part(n)).is_none());
    assert!(fits > Some(1));
    s.x.clear();
    assert!(s.x.translate(&part(0)).is_some());
}

/// A buffer of several segments, filled with blocks that lead to the next one, in a ring, across
/// segments that are emptied behind them: each runs, to where it is known to go on.
#[test]
fn segments_are_emptied_in_turn() {
    const BLOCKS: u64 = 3000;
    let mut s = Setup::new();
    // Eight segments of 36 KiB or so.
    s.x = X64::new(300 << 10).unwrap();
    for at in [0x1000, 0x2000] {
        s.cpu.probe(at, 1, Access::Exec).unwrap();
    }
    // Blocks go to and fro between two places.
    let at_of = |n: u64| 0x1000 + n % 2 * 0x1000;
    let (mut evicted, mut live) = (0, Vec::new());
    for n in 0..BLOCKS {
        let first = 10 + 10 * n as u32;
        let mut b = Builder::new();
        b.start_insn(4);
        add(&mut b, Reg::RAX, 1);
        for _ in 0..8 {
            b.store(Op::St, W64, Mem::at(Reg::RSI, 8), Reg::RAX);
        }
        b.goto(W64, if n % 2 == 0 { 0x1000 } else { -0x1000 });
        let block = b.finish();
        let (off, mode) = (at_of(n), s.cpu.mode);
        let place = Place { second: None, first, last: first + 1, insns: &[first], off, mode };
        let part = [Part { block: &block, place }];
        if s.x.translate(&part).is_none() {
            let heads = s.x.evict();
            assert!(heads.len() > 10 && heads.len() < live.len() / 2, "{} go", heads.len());
            let gone: Vec<u32> = live.drain(..heads.len()).collect();
            assert_eq!(gone, heads, "those that were translated first");
            assert!(heads.iter().all(|h| s.x.entry(*h).is_none()));
            evicted += 1;
            s.x.translate(&part).unwrap();
        }
        live.push(first);
        // To the one before it, in its page or by a guard, and to one that is yet to come.
        if n % 3 == 0 {
            let target = Target::Guarded { guard: first + 5, off: 0x3000 - off, first: first - 10 };
            s.x.link(first, true, target);
        } else {
            s.x.link(first, true, Target::Block(first - 10));
        }
        if n % 97 == 0 {
            s.x.link(first, true, Target::Block(first + 10));
        }
        s.cpu.regs[6] = 0x5008;
        for at in [live[0], live[live.len() / 2], first] {
            let end = s.go(at, at_of(u64::from(at - 10) / 10));
            let seen = [Leave::Next, Leave::Budget, Leave::LinkTaken];
            assert!(seen.contains(&end.0), "{end:?}");
            if end.0 == Leave::Next {
                assert_eq!(s.x.entry(end.1 as u32), None, "left for what is not translated");
            }
        }
        assert!(live.iter().all(|l| s.x.entry(*l).is_some()));
    }
    assert!(evicted > 8, "{evicted}");
    assert_eq!(s.x.stats().evictions, evicted);
    // Some block of each kind leads to its neighbour still.
    let ends: Vec<Leave> =
        live.iter().map(|at| s.go(*at, at_of(u64::from(at - 10) / 10)).0).collect();
    for why in [Leave::Budget, Leave::Next] {
        assert!(ends.contains(&why), "{why:?} not in {ends:?}");
    }
}

/// After an end that may change the mode, host code goes on at RIP, unless there is anything to be
/// done first.
#[test]
fn ends_that_may_change_the_mode_go_on_in_host_code() {
    let mut s = Setup::new();
    s.block(10, 0x1000, |b| b.leave(W64));
    s.block(20, 0x1004, |b| b.goto(W64, 0x10));
    assert_eq!(s.go(10, 0x1000), (Leave::LinkTaken, 21));
    assert_eq!((s.cpu.rip(), s.ran()), (0x1014, 2));
    let due: [fn(&mut Cpu); 4] = [
        |cpu| cpu.shadow = true,
        |cpu| cpu.halted = true,
        |cpu| cpu.smc.push((0x5000, 1)),
        |cpu| cpu.native.traced = true,
    ];
    for due in due {
        let mut s = Setup::new();
        s.block(10, 0x1000, |b| b.leave(W64));
        s.block(20, 0x1004, |b| b.goto(W64, 0x10));
        due(&mut s.cpu);
        assert_eq!(s.go(10, 0x1000), (Leave::Exit, 11));
        assert_eq!((s.cpu.rip(), s.ran()), (0x1004, 1));
    }
}
