//! Ends of blocks after which the mode, the mapping or the interrupt window may be another: system
//! calls, interrupts by instruction and returns from them, loads of control registers.
//!
//! What they do, a helper mostly, is done by one call ([`crate::enter::system`]), which also looks
//! whether anything is to be done before the next instruction. If not, host code goes on at the
//! block at RIP by the table of indirect targets for the new mode and mapping; else it is left.

use super::asm::{Asm, RAX, RBP, RCX, RDX, Rm, cc};
use super::ends::{Routines, pinned, target, to_function};
use super::region::based;
use super::{Compiler, vector, x87};
use crate::enter::{self, BIAS, BUDGET, System};
use core::mem::offset_of;
use emu_core::cpu::Cpu;
use emu_core::interp::Leave;
use emu_core::native::HostTarget;
use emu_core::uop::{Op, Uop};
use emu_core::width::Width::{W32, W64};

const fn field(at: usize) -> Rm {
    Rm::M(RBP, at as i32 - BIAS as i32)
}

/// Does what the [`System`] at RAX says. Jumped to; `indirect` is the routine of that name.
pub(super) fn routine(a: &mut Asm, indirect: u64) {
    const SPARE: Rm = field(offset_of!(Cpu, regs) + 8 * Cpu::DROP as usize);
    to_function(a);
    vector::dead(a);
    x87::dead(a);
    a.call_far(enter::system as *const () as usize as u64);
    a.mov(W64, BUDGET, field(offset_of!(Cpu, budget)));
    for (slot, host) in pinned() {
        a.mov(W64, host, Rm::M(RBP, slot));
    }
    a.op(W32, 0x85, RDX, Rm::R(RDX));
    let out = a.jcc(cc::E);
    a.store(W64, SPARE, RDX);
    target(a, RAX);
    a.op(W64, 0x3b, RAX, Rm::X(RDX, RCX, 0, offset_of!(HostTarget, va) as i32));
    let other = a.jcc(cc::NE);
    a.ext(W32, 0xff, 4, Rm::X(RDX, RCX, 0, offset_of!(HostTarget, host) as i32));
    a.bind(other);
    a.mov(W32, RCX, field(offset_of!(Cpu, mode)));
    a.mov(W32, RDX, SPARE);
    let to = a.jmp();
    a.bind_far(to, indirect);
    a.bind(out);
    a.ret();
}

impl Compiler<'_> {
    /// The end `end` of a block (LEAVE or EXIT), with the helper before it, if that goes with it.
    pub(super) fn system(&mut self, helper: Option<&Uop>, end: &Uop) {
        if helper.is_some() {
            self.called_in_line += 1;
            self.vectors_to_call();
            self.x87_to_call();
        }
        self.save();
        self.move_rip(1);
        self.swap_homes(RCX);
        // The helper finds RIP as it should be.
        let called = |u: &Uop| {
            let u = self.homes.renamed(u);
            based(&u, -self.delta()).unwrap_or(u)
        };
        let system = Box::new(System {
            helper: helper.map(called),
            advance: (end.op == Op::Leave).then_some((end.w, end.imm)),
            insns: self.block.insns.len() as i64,
            record: self.record(),
            exit: Leave::Exit.at(self.place.last as usize) as u32,
        });
        self.a.imm(RAX, &raw const *system as u64);
        self.systems.push(system);
        let (jump, Routines { system, .. }) = (self.a.jmp(), self.routines);
        self.a.bind_far(jump, system);
    }
}
