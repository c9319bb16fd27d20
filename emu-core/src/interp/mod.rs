//! The interpreter: threaded code made from canonical micro-ops.
//!
//! [`thread`] turns a block into [`Rec`]ords: a handler and its operands, with the frequent
//! sequences fused (compare-and-branch, push, pop, call, return, load-and-operate,
//! read-modify-write). Each handler does its work and calls the next record's handler. With the
//! optimiser on this is a jump (a sibling call, no stack); without it handlers return the next
//! index to the loop in [`execute`]. Both forms are the same functions (`const TAIL`).
//!
//! Invariants:
//! - A handler leaves the block only with RIP up to date (block ends) or with RIP still that of
//!   the block's first byte and its own index in the exit word (faults): the side table of the
//!   block cache turns that into the guest instruction.
//! - Handlers keep nothing on the stack across the call of the next one: no local whose address
//!   escapes. What needs that is a function of its own, never inlined (`*_slow`).
//! - Block ends subtract the block's instruction count from the budget and leave when it is used
//!   up: the only interrupt poll.

pub mod handlers;
pub mod thread;

use crate::cpu::Cpu;

/// A handler: runs the given record, which is at the given index of the arena, and those after it;
/// returns an exit word.
pub type Handler = fn(&mut Cpu, &[Rec], usize, &Rec) -> u64;

/// One step of threaded code.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Rec {
    /// Handler.
    pub run: Handler,
    /// Destination register.
    pub d: u8,
    /// First source or base register.
    pub a: u8,
    /// Second source or index register.
    pub b: u8,
    /// Small constant (condition, packed addressing).
    pub c: u8,
    /// Displacement or count.
    pub i: i32,
    /// Immediate.
    pub imm: u64,
    /// Index of the record to go on at; for a block end, the linked block, or [`UNLINKED`].
    pub t: u32,
    /// The same for the other way of a conditional.
    pub f: u32,
}

impl std::fmt::Debug for Rec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Rec {{ d: {}, a: {}, b: {}, c: {:#x}, i: {}, imm: {:#x}, t: {}, f: {} }}",
            self.d, self.a, self.b, self.c, self.i, self.imm, self.t, self.f
        )
    }
}

/// No record: beyond the end of any arena.
pub const UNLINKED: u32 = u32::MAX;

/// Why threaded code was left; the low byte of the exit word. The record's index is above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Leave {
    /// Not left: go on at the index (loop form only).
    Next = 0,
    /// [`Cpu::fault`] was raised.
    Fault,
    /// A store would go into translated code.
    Smc,
    /// RIP is up to date; look its block up.
    Lookup,
    /// As `Lookup`, and the record's `t` may be linked to what is found.
    LinkTaken,
    /// As `Lookup`, and the record's `f` may be linked to what is found.
    LinkFall,
    /// RIP is up to date; the budget is used up.
    Budget,
    /// RIP is up to date; the mode, halt state or interrupt flag may have changed.
    Exit,
    /// The block that begins at the record is warm: worth translating. Nothing of it has run.
    Warm,
}

impl Leave {
    const ALL: [Leave; 9] = [
        Leave::Next,
        Leave::Fault,
        Leave::Smc,
        Leave::Lookup,
        Leave::LinkTaken,
        Leave::LinkFall,
        Leave::Budget,
        Leave::Exit,
        Leave::Warm,
    ];

    /// The exit word for leaving at record `ip`.
    #[inline(always)]
    pub const fn at(self, ip: usize) -> u64 {
        self as u64 | (ip as u64) << 8
    }

    /// Takes an exit word apart.
    pub fn decode(word: u64) -> (Leave, usize) {
        (Self::ALL[(word & 15).min(8) as usize], (word >> 8) as usize)
    }
}

/// Whether handlers call each other (else they return to the loop).
pub const TAIL: bool = cfg!(tail_calls);

/// Runs threaded code from record `ip` until it is left.
pub fn execute(cpu: &mut Cpu, code: &[Rec], mut ip: usize) -> (Leave, usize) {
    loop {
        let rec = &code[ip];
        match Leave::decode((rec.run)(cpu, code, ip, rec)) {
            (Leave::Next, next) => ip = next,
            exit => return exit,
        }
    }
}
