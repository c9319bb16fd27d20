//! Vector micro-ops as vector instructions of the host, on hosts with AVX2. On others they are
//! called.
//!
//! **Registers.** While they are *live*, guest registers YMM0–13 are in the host's of the same
//! number, in all blocks, and MXCSR is the guest's. YMM14 and YMM15 stay in [`Cpu::v`]: the host's
//! are scratch, and hold the temporaries of the current guest instruction, which go to memory only
//! where a called micro-op wants them there. Bit 0 of [`Native::live`] says whether the registers
//! are live. They become so by a routine, which a block calls at its first vector micro-op unless
//! the bit is set; what goes to Rust saves them first. A called micro-op leaves them saved and
//! dead; what is out of line (slow accesses, the rare cases of quick forms) loads them again, if
//! they were live and the code that goes on may know it.
//!
//! **Encodings.** What zeroes the upper half of its destination is encoded in VEX; what leaves it
//! alone is legacy SSE. A temporary's upper half is nobody's: VEX. Upper halves that the guest does
//! not use must not look used to the host either, for legacy SSE is several times slower then: they
//! are loaded only if one of them is not zero, and a scratch register is loaded no wider than the
//! instruction.
//!
//! **Floating point** runs with the guest's MXCSR and so raises the guest's flags in it. A block is
//! lifted for masked exceptions or for others ([`mode::XM`]); in those of the latter kind what may
//! raise is called.
//!
//! [`Native::live`]: emu_core::native::Native::live

mod access;
pub(super) mod approximate;
mod fuse;
mod ops;
pub(super) mod table;

use super::asm::{Asm, Code, RBP, RSP, Rm, cc};
use super::{Compiler, MXCSR, NATIVE_LIVE, NATIVE_VECTORS, VECTORS};
use emu_core::cpu::{Reg, mode};
use emu_core::uop::{Op, Uop};
use emu_core::width::Width::{W8, W32};
use table::{code, feature};

/// Guest registers with a host register of the same number; the scratch registers follow.
const PINNED: u8 = 14;
/// MOVDQU, and its form that stores.
const LOAD: Code = code("F3 0F 6F");
const STORE: Code = code("F3 0F 7F");
const VZEROUPPER: [u8; 3] = [0xc5, 0xf8, 0x77];

/// What is known at a place in a block.
#[derive(Debug, Default)]
pub(super) struct State {
    /// The guest's registers are in the host's.
    live: bool,
    /// The code is out of line.
    pub cold: bool,
    /// The guest instruction whose temporaries are held.
    insn: usize,
    /// What the scratch registers hold.
    held: [Option<Held>; 2],
    /// The current micro-op has them as sources.
    locked: [bool; 2],
}

impl State {
    /// At the beginning of a block.
    pub fn entry(live: bool) -> State {
        State { live, ..State::default() }
    }

    /// That of code out of line, which nothing is known of.
    pub fn out_of_line() -> State {
        State { cold: true, ..State::default() }
    }
}

#[derive(Clone, Copy, Debug)]
struct Held {
    temp: Reg,
    /// It is not in memory.
    dirty: bool,
    /// All of it is held.
    wide: bool,
}

/// A vector access that misses: its micro-ops are called, and what was fused with a load follows.
#[derive(Clone, Copy)]
pub(super) struct Miss {
    jumps: [Option<usize>; 2],
    resume: usize,
    record: u32,
    uops: [Option<Uop>; 2],
    /// A temporary that is in this register and wanted in memory.
    before: Option<(Reg, u8)>,
    /// What was loaded is wanted in this register.
    after: Option<u8>,
    tail: Tail,
}

/// An instruction on registers.
#[derive(Clone, Copy, Default)]
pub(super) struct Tail {
    bytes: [u8; 15],
    len: u8,
}

impl Tail {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    fn of(f: impl FnOnce(&mut Asm)) -> Tail {
        let mut a = Asm::default();
        f(&mut a);
        let mut t = Tail { len: a.code.len() as u8, ..Tail::default() };
        t.bytes[..a.code.len()].copy_from_slice(&a.code);
        t
    }
}

/// Where vector register `r` is in memory.
fn slot(r: Reg) -> Rm {
    word(r, 0)
}

/// Byte `at` of it.
fn word(r: Reg, at: i32) -> Rm {
    Rm::M(RBP, VECTORS + 32 * (i32::from(r.0) % 24) + at)
}

fn home(r: Reg) -> Option<u8> {
    (r.0 < PINNED).then_some(r.0)
}

fn is_temp(r: Reg) -> bool {
    (16..24).contains(&r.0)
}

// ---- routines -----------------------------------------------------------------------------------

/// Host registers, and where they are saved.
fn saved() -> impl Iterator<Item = (u8, Rm)> {
    let pinned = (0..PINNED).map(|r| (r, slot(Reg(r))));
    let scratch = [0, 1].map(|i| (PINNED + i, Rm::M(RBP, NATIVE_VECTORS + 32 * i32::from(i))));
    pinned.chain(scratch)
}

/// The jump that is taken when the registers are not live.
fn unless_live(a: &mut Asm) -> usize {
    a.ext(W8, 0xf7, 0, Rm::M(RBP, NATIVE_LIVE));
    a.byte(1);
    a.jcc(cc::E)
}

/// Saves the registers if they are live, on the way to Rust, which wants no upper halves in use and
/// an MXCSR of its own.
pub(super) fn save(a: &mut Asm) {
    let dead = unless_live(a);
    a.op0f(W32, 0xae, 3, Rm::M(RBP, MXCSR));
    a.ext(W32, 0xc7, 0, Rm::M(RSP, -8));
    a.dword(0x1f80);
    a.op0f(W32, 0xae, 2, Rm::M(RSP, -8));
    for (r, at) in saved() {
        a.vex(STORE, true, r, 0, at);
    }
    a.bytes(&VZEROUPPER);
    a.bind(dead);
}

/// Loads them again if they are live.
pub(super) fn restore(a: &mut Asm) {
    let dead = unless_live(a);
    load(a);
    a.bind(dead);
}

fn load(a: &mut Asm) {
    a.op0f(W32, 0xae, 2, Rm::M(RBP, MXCSR));
    // Upper halves ORed together, in four registers.
    for (r, at) in saved() {
        let Rm::M(base, at) = at else { continue };
        match (r & 3, Rm::M(base, at + 16)) {
            (x, upper) if r < 4 => a.vex(LOAD, false, x, 0, upper),
            (x, upper) => a.vex(code("66 0F EB"), false, x, x, upper),
        }
    }
    for r in 1..4 {
        a.vex(code("66 0F EB"), false, 0, 0, Rm::R(r));
    }
    a.vex(code("66 0F38 17"), false, 0, 0, Rm::R(0));
    let wide = a.jcc(cc::NE);
    let all = |a: &mut Asm, wide: bool| {
        saved().for_each(|(r, at)| a.vex(LOAD, wide, r, 0, at));
    };
    all(a, false);
    let done = a.jmp();
    a.bind(wide);
    all(a, true);
    a.bind(done);
}

/// Bit of what a slow access is told: the code it comes back to knows that the registers are live.
const KEPT: u32 = 1 << 5;

/// They are dead from here on, unless [`KEPT`] is set in EDX.
pub(super) fn dead_unless_kept(a: &mut Asm) {
    // test dl, KEPT
    a.bytes(&[0xf6, 0xc2, KEPT as u8]);
    let kept = a.jcc(cc::NE);
    dead(a);
    a.bind(kept);
}

/// They are in memory only, from here on.
pub(super) fn dead(a: &mut Asm) {
    a.alu_imm(W8, 4, Rm::M(RBP, NATIVE_LIVE), !1);
}

/// The routine that makes them live.
pub(super) fn routine(a: &mut Asm) {
    load(a);
    a.alu_imm(W8, 1, Rm::M(RBP, NATIVE_LIVE), 1);
    a.ret();
}

impl Compiler<'_> {
    /// Whether vector micro-ops are instructions of the host.
    pub(super) fn has_vectors(&self) -> bool {
        self.host_has.vector & feature::AVX2 != 0
    }

    /// Whether floating point may raise #XM.
    pub(super) fn unmasked(&self) -> bool {
        self.place.mode & mode::XM != 0
    }

    /// Whether the code in line knows that the registers are live.
    pub(super) fn vectors_known(&self) -> bool {
        self.vector.live
    }

    // ---- what is known --------------------------------------------------------------------------

    /// What a slow access is told.
    pub(super) fn vectors_kept(&self) -> u32 {
        if self.vector.live || self.vector.cold { KEPT } else { 0 }
    }

    /// Before a block whose first vector micro-op comes before anything that is called: there the
    /// flags are in memory.
    pub(super) fn vector_start(&mut self) {
        let uops = &self.block.uops;
        let first = uops.iter().position(|u| {
            let vector = matches!(u.op, Op::V | Op::Vx | Op::Vld | Op::Vst | Op::Vset | Op::Vzero);
            vector || u.op == Op::Helper
        });
        let begins = first.is_some_and(|n| match &uops[n] {
            _ if self.with_helper(n) => false,
            u if matches!(u.op, Op::V | Op::Vx) => self.row(u).is_some(),
            _ => true,
        });
        if begins && self.has_vectors() {
            self.vectors();
        }
    }

    /// From here on the guest's registers are in the host's.
    pub(super) fn vectors(&mut self) {
        if !self.vector.live {
            // The test destroys the host's flags; what follows may fault.
            self.settle();
            self.a.ext(W8, 0xf7, 0, Rm::M(RBP, NATIVE_LIVE));
            // jnz over the call
            self.a.bytes(&[1, 0x75, 5]);
            let to = self.routines.vectors;
            self.a.call_near(to);
            self.vector.live = true;
        }
    }

    /// Before the micro-op of the current instruction that is called: temporaries to memory. It
    /// leaves the registers dead.
    pub(super) fn vectors_to_call(&mut self) {
        self.of_this_insn();
        for i in [0, 1] {
            self.evict(i);
        }
        self.vector.live = false;
    }

    /// Temporaries of another instruction are dead.
    fn of_this_insn(&mut self) {
        let v = &mut self.vector;
        if v.insn != self.insn {
            (v.insn, v.held) = (self.insn, [None; 2]);
        }
        v.locked = [false; 2];
    }

    /// Emits `u`; `false` if it has no form here.
    pub(super) fn vector(&mut self, u: &Uop) -> bool {
        self.of_this_insn();
        match u.op {
            Op::Chkw => self.check_for_writing(u),
            _ if !self.has_vectors() => false,
            Op::Mxcsr => self.mxcsr(u),
            Op::Vget => self.vector_get(u),
            Op::V => self.vector_op(u),
            Op::Vx => self.vector_int(u, None),
            Op::Vld => self.vector_load(u),
            Op::Vst => self.vector_store(u),
            Op::Vset => self.vector_set(u, false),
            Op::Vzero => self.vector_zero(u),
            _ => false,
        }
    }

    /// Whether the current guest instruction has a helper, which wants temporaries in memory.
    fn helped(&self) -> bool {
        self.block.insns.get(self.insn).is_some_and(|m| self.with_helper(m.uop as usize))
    }

    /// Whether the guest instruction of micro-op `n` has a helper.
    pub(super) fn with_helper(&self, n: usize) -> bool {
        let (insns, all) = (&self.block.insns, &self.block.uops);
        let after = insns.partition_point(|m| m.uop as usize <= n);
        let from = after.checked_sub(1).map_or(0, |i| insns[i].uop as usize);
        let to = insns.get(after).map_or(all.len(), |m| m.uop as usize);
        all[from..to].iter().any(|u| u.op == Op::Helper)
    }

    // ---- scratch registers ----------------------------------------------------------------------

    /// Scratch register `i` no longer holds its temporary.
    fn evict(&mut self, i: usize) {
        if let Some(Held { temp, dirty: true, .. }) = self.vector.held[i] {
            self.a.vex(STORE, true, PINNED + i as u8, 0, slot(temp));
        }
        self.vector.held[i] = None;
    }

    /// Whether scratch registers hold temporaries of the current instruction.
    pub(super) fn holds_temporaries(&self) -> bool {
        self.vector.insn == self.insn && self.vector.held.iter().any(Option::is_some)
    }

    fn holder(&self, r: Reg) -> Option<usize> {
        self.vector.held.iter().position(|h| h.is_some_and(|h| h.temp == r))
    }

    /// A scratch register for the current micro-op, if one is free; it becomes a source.
    fn scratch(&mut self) -> Option<u8> {
        let free = |i: &usize| !self.vector.locked[*i];
        let empty = |i: &usize| self.vector.held[*i].is_none();
        let i = [0, 1].into_iter().filter(free).max_by_key(empty)?;
        self.evict(i);
        self.vector.locked[i] = true;
        Some(PINNED + i as u8)
    }

    /// The host register with vector register `r` (all of it if `wide`), if there is one already.
    fn at_hand(&mut self, r: Reg, wide: bool) -> Option<u8> {
        home(r).or_else(|| {
            let i = self.holder(r)?;
            self.vector.held[i].filter(|h| h.wide || !wide)?;
            self.vector.locked[i] = true;
            Some(PINNED + i as u8)
        })
    }

    /// The host register with vector register `r`, as a source.
    fn source(&mut self, r: Reg, wide: bool) -> Option<u8> {
        if let Some(x) = self.at_hand(r, wide) {
            return Some(x);
        }
        if let Some(narrow) = self.holder(r) {
            self.vector.held[narrow] = None;
        }
        let x = self.scratch()?;
        self.a.vex(LOAD, wide, x, 0, slot(r));
        if is_temp(r) {
            let held = Held { temp: r, dirty: false, wide };
            self.vector.held[usize::from(x - PINNED)] = Some(held);
        }
        Some(x)
    }

    /// Vector register `r` as an operand that may be in memory.
    fn operand(&mut self, r: Reg, wide: bool) -> Rm {
        self.at_hand(r, wide).map_or(slot(r), Rm::R)
    }

    /// The host register to write for vector register `d`: written last, it may be a source too.
    fn destination(&mut self, d: Reg) -> u8 {
        if let Some(x) = home(d).or_else(|| self.holder(d).map(|i| PINNED + i as u8)) {
            return x;
        }
        if let Some(x) = self.scratch() {
            return x;
        }
        self.evict(0);
        PINNED
    }

    /// `d` was written to the host register `x`; `whole`: its upper half, too.
    fn written(&mut self, d: Reg, x: u8, whole: bool) {
        if x < PINNED {
            return;
        }
        let i = usize::from(x - PINNED);
        self.vector.held[i] = None;
        if is_temp(d) {
            if let Some(old) = self.holder(d) {
                self.vector.held[old] = None;
            }
            self.vector.held[i] = Some(Held { temp: d, dirty: true, wide: true });
        } else {
            self.a.vex(STORE, whole, x, 0, slot(d));
        }
    }

    // ---- out of line ----------------------------------------------------------------------------

    pub(super) fn vector_miss(&mut self, m: &Miss) {
        // What fills a slot does not come back to what must not be tried again.
        let tried = |c: &Self, jump: usize| c.tries.iter().any(|t| t.miss == jump);
        let mut jumps: Vec<usize> = m.jumps.into_iter().flatten().collect();
        jumps.sort_by_key(|jump| !tried(self, *jump));
        jumps.into_iter().for_each(|jump| self.missed(jump));
        if let Some((temp, x)) = m.before {
            self.a.vex(STORE, true, x, 0, slot(temp));
        }
        self.insn_record = Some(m.record);
        for u in m.uops.iter().flatten() {
            self.call_routine(u);
        }
        self.insn_record = None;
        if let (Some(x), Some(u)) = (m.after, m.uops[0]) {
            self.a.vex(LOAD, u.k & 127 == 32, x, 0, slot(u.d));
        }
        self.a.bytes(m.tail.bytes());
        self.resume(m.resume);
    }
}
