//! Emitters of block ends, and the pieces of code around blocks: the routines that they call out of
//! line, and the guards of links into other pages.

use super::alu::rm;
use super::asm::{Asm, RAX, RBP, RCX, RDX, RSP, Rm, cc};
use super::flags::State;
use super::memory::{FILLS, Kind, PAGES, PLACES, SIZES};
use super::region::{Later, based};
use super::{
    Cold, Compiler, JUMPS, JumpEntry, NATIVE_EPOCH, NATIVE_FETCHES, NATIVE_LEFT, NATIVE_RAM,
    NATIVE_TABLE, NATIVE_TLB, RIP, Site, vector, x87,
};
use crate::enter::{self, BIAS, BUDGET, PINNED};
use core::mem::offset_of;
use emu_core::cpu::{Cpu, Reg, mode};
use emu_core::interp::Leave;
use emu_core::mem::tlb::{Entry, Fetch, L1, SlotPlace};
use emu_core::native::{HostTarget, LISTED, TARGETS, TargetTable};
use emu_core::uop::{Op, Uop};
use emu_core::width::Width::{self, W8, W16, W32, W64};

/// Addresses of the routines that every block may call.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Routines {
    load: u64,
    load_rmw: u64,
    store: u64,
    call: u64,
    call_kept: u64,
    /// Loads the guest's vector registers.
    pub vectors: u64,
    pub rcp: u64,
    pub rsqrt: u64,
    indirect: u64,
    /// See [`fetch_routine`].
    pub fetch: u64,
    /// See [`super::system`].
    pub system: u64,
    /// By read or write and the place of the bytes in [`SIZES`].
    pub(super) fill: [[u64; SIZES.len()]; 2],
    /// By read or write.
    pub(super) fill_fixed: [u64; 2],
}

impl Routines {
    /// Their addresses and names, for listings.
    pub(super) fn names(&self) -> impl Iterator<Item = (u64, &'static str)> {
        let &Routines { load, load_rmw, store, call, call_kept, vectors, .. } = self;
        let &Routines { rcp, rsqrt, indirect, fetch, system, fill, fill_fixed, .. } = self;
        let others = [
            (load, "load"),
            (load_rmw, "load_rmw"),
            (store, "store"),
            (call, "run"),
            (call_kept, "run_kept"),
            (vectors, "vectors"),
            (rcp, "rcp"),
            (rsqrt, "rsqrt"),
            (indirect, "indirect"),
            (system, "system"),
            (fetch, "fetch"),
        ];
        let fills = fill.into_iter().flatten().map(|a| (a, "fill"));
        others.into_iter().chain(fills).chain(fill_fixed.map(|a| (a, "fill_fixed")))
    }
}

/// `mov eax, word; ret`: how host code is left.
pub(super) fn leave(a: &mut Asm, word: u32) {
    a.byte(0xb8);
    a.dword(word as i32);
    a.ret();
}

/// Emits the routines. Those that call Rust take in EDX the record to leave at, shifted left by 8.
/// `jumps` is the address of the generator's table of indirect targets.
pub(super) fn routines(a: &mut Asm, jumps: u64) -> Routines {
    let mut at = |f: &mut dyn FnMut(&mut Asm)| {
        let start = a.origin + a.here() as u64;
        f(a);
        start
    };
    // RAX: the address; low byte of EDX: see `enter`; RCX: what to store. The value loaded comes
    // back in RAX.
    let mut access = |f: usize| {
        at(&mut |a| {
            const SAVED: [u8; 7] = [RDX, 6, 7, 8, 9, 10, 11];
            SAVED.iter().for_each(|&r| a.push(r));
            a.op(W64, 0x8d, 7, Rm::M(RBP, -(BIAS as i32)));
            a.mov(W64, 6, Rm::R(RAX));
            to_rust(a);
            vector::dead_unless_kept(a);
            a.call_far(f as u64);
            from_rust(a);
            SAVED.iter().rev().for_each(|&r| a.pop(r));
            a.ext(W64, 0x83, 7, Rm::M(RBP, NATIVE_LEFT));
            a.byte(0);
            let out = a.jcc(cc::NE);
            a.ret();
            a.bind(out);
            left(a);
        })
    };
    let load = access(enter::load as *const () as usize);
    let load_rmw = access(enter::load_rmw as *const () as usize);
    let store = access(enter::store as *const () as usize);
    // RAX: address of the micro-op.
    let run = |a: &mut Asm, keep: bool| {
        a.push(RDX);
        to_function(a);
        if !keep {
            vector::dead(a);
            x87::dead(a);
        }
        a.call_far(enter::run as *const () as usize as u64);
        from_rust(a);
        if keep {
            x87::restore(a);
        }
        for (slot, host) in pinned() {
            a.mov(W64, host, Rm::M(RBP, slot));
        }
        a.pop(RDX);
        a.ext(W64, 0x83, 7, Rm::M(RBP, NATIVE_LEFT));
        a.byte(0);
        let out = a.jcc(cc::NE);
        a.ret();
        a.bind(out);
        left(a);
    };
    let call = at(&mut |a| run(a, false));
    let call_kept = at(&mut |a| run(a, true));
    let vectors = at(&mut vector::routine);
    let fetch = at(&mut fetch_routine);
    let indirect = at(&mut |a| indirect_routine(a, jumps, fetch));
    let system = at(&mut |a| super::system::routine(a, indirect));
    let mut fill = [[0; SIZES.len()]; 2];
    for (write, row) in fill.iter_mut().enumerate() {
        for (n, to) in SIZES.iter().zip(row) {
            *to = at(&mut |a| fill_routine(a, write != 0, *n as i64));
        }
    }
    let fill_fixed = [false, true].map(|write| at(&mut |a| fill_page(a, write, &[])));
    let [rcp, rsqrt] = [false, true].map(|root| {
        let constants = at(&mut |a| vector::approximate::constants(a, root));
        at(&mut |a| vector::approximate::routine(a, root, constants))
    });
    let rest = Routines { load, load_rmw, store, call, call_kept, vectors, ..Routines::default() };
    Routines { rcp, rsqrt, indirect, fetch, system, fill, fill_fixed, ..rest }
}

/// Address of the level-1 entry for the linear address in EAX, in `to`.
pub(super) fn entry(a: &mut Asm, to: u8) {
    const SIZE: u32 = size_of::<Entry>().trailing_zeros();
    a.mov(W32, to, Rm::R(RAX));
    a.ext(W32, 0xc1, 5, Rm::R(to));
    a.byte(12 - SIZE as u8);
    a.alu_imm(W32, 4, Rm::R(to), ((L1 - 1) << SIZE) as i64);
    a.op(W64, 0x03, to, Rm::M(RBP, NATIVE_TLB));
}

/// Fills slot number ECX / 8, which an access of `n` bytes has missed; RAX is that access's address
/// less the slot's page. Returns behind the jump that follows the call if it cannot.
fn fill_routine(a: &mut Asm, write: bool, n: i64) {
    // Pages are multiples of 4096: what lies across a border still does.
    a.mov(W32, RDX, Rm::R(RAX));
    a.alu_imm(W32, 4, Rm::R(RDX), 4095);
    a.alu_imm(W32, 7, Rm::R(RDX), 4096 - n);
    let across = a.jcc(cc::A);
    a.op(W64, 0x03, RAX, Rm::X(RBP, RCX, 0, PAGES));
    a.alu_imm(W64, 4, Rm::R(RAX), -4096);
    fill_page(a, write, &[across]);
}

/// Fills slot number ECX / 8 for the page at RAX; `unable` are jumps that are taken if it cannot.
fn fill_page(a: &mut Asm, write: bool, unable: &[usize]) {
    const _: () = assert!(size_of::<SlotPlace>() == 16);
    let tag = if write { offset_of!(Entry, write) } else { offset_of!(Entry, read) };
    let place = |d: usize| Rm::X(RBP, RCX, 1, PLACES + d as i32);
    entry(a, RDX);
    a.op(W64, 0x3b, RAX, Rm::M(RDX, tag as i32));
    let unknown = a.jcc(cc::NE);
    a.store(W64, Rm::X(RBP, RCX, 0, PAGES), RAX);
    a.alu_imm(W64, 0, Rm::X(RBP, RCX, 0, FILLS), 1);
    a.mov(W64, RDX, Rm::M(RDX, offset_of!(Entry, addend) as i32));
    a.op(W64, 0x03, RDX, Rm::M(RBP, NATIVE_RAM));
    a.store(W64, place(offset_of!(SlotPlace, addend)), RDX);
    a.op(W64, 0x03, RAX, Rm::R(RDX));
    a.store(W64, place(offset_of!(SlotPlace, host)), RAX);
    a.ret();
    unable.iter().chain(&[unknown]).for_each(|&jump| a.bind(jump));
    a.alu_imm(W64, 0, Rm::M(RSP, 0), 5);
    a.ret();
}

/// The entry of [`Targets`](emu_core::native::Targets) for the address in `va`: its own address is
/// `RDX + RCX`.
pub(super) fn target(a: &mut Asm, va: u8) {
    const SIZE: u32 = size_of::<HostTarget>().trailing_zeros();
    a.mov(W32, RCX, Rm::R(va));
    a.ext(W32, 0xc1, 4, Rm::R(RCX));
    a.byte(SIZE as u8);
    a.alu_imm(W32, 4, Rm::R(RCX), ((TARGETS - 1) << SIZE) as i64);
    a.mov(W64, RDX, Rm::M(RBP, NATIVE_TABLE));
}

/// Goes on at the linear address of RIP in RAX, in the mode in ECX, if there is host code for it;
/// else leaves with the word in EDX. Jumped to.
fn indirect_routine(a: &mut Asm, jumps: u64, fetch: u64) {
    let field = |d: usize| Rm::M(RCX, d as i32);
    [RDX, RCX, RAX].iter().for_each(|&r| a.push(r));
    let known = a.here();
    let miss = executable(a);
    a.mov(W32, RCX, Rm::R(RAX));
    a.ext(W32, 0xc1, 5, Rm::R(RCX));
    a.byte(12);
    a.op(W32, 0x33, RCX, Rm::R(RAX));
    a.alu_imm(W32, 4, Rm::R(RCX), JUMPS as i64 - 1);
    a.ext(W32, 0xc1, 4, Rm::R(RCX));
    a.byte(size_of::<JumpEntry>().trailing_zeros() as u8);
    a.imm(RDX, jumps);
    a.op(W64, 0x03, RCX, Rm::R(RDX));
    a.op(W64, 0x3b, RAX, field(offset_of!(JumpEntry, off)));
    let other = a.jcc(cc::NE);
    a.mov(W32, RDX, Rm::M(RSP, 8));
    a.op(W32, 0x3b, RDX, field(offset_of!(JumpEntry, mode)));
    let mode = a.jcc(cc::NE);
    // The buffer begins with the routines.
    a.mov(W32, RCX, field(offset_of!(JumpEntry, at)));
    let base = a.origin;
    a.imm(RAX, base);
    a.op(W64, 0x03, RAX, Rm::R(RCX));
    a.push(RAX);
    a.mov(W64, RAX, Rm::M(RSP, 8));
    target(a, RAX);
    a.store(W64, Rm::X(RDX, RCX, 0, offset_of!(HostTarget, va) as i32), RAX);
    let filled = Rm::M(RDX, offset_of!(TargetTable, filled) as i32);
    a.mov(W32, RAX, filled);
    a.alu_imm(W32, 7, Rm::R(RAX), LISTED as i64);
    let many = a.jcc(cc::A);
    a.alu_imm(W32, 0, filled, 1);
    a.store(W32, Rm::X(RDX, RAX, 2, offset_of!(TargetTable, list) as i32), RCX);
    a.bind(many);
    a.pop(RAX);
    a.store(W64, Rm::X(RDX, RCX, 0, offset_of!(HostTarget, host) as i32), RAX);
    [RCX; 3].iter().for_each(|&r| a.pop(r));
    // jmp rax
    a.bytes(&[0xff, 0xe0]);
    a.bind(miss);
    a.mov(W64, RAX, Rm::M(RSP, 0));
    a.push(RAX);
    a.call_near(fetch);
    a.op(W32, 0x85, RAX, Rm::R(RAX));
    a.pop(RAX);
    let again = a.jcc(cc::NE);
    a.bind_to(again, known);
    [other, mode].iter().for_each(|&j| a.bind(j));
    [RCX, RCX, RAX].iter().for_each(|&r| a.pop(r));
    a.ret();
}

/// Lets the TLB know where the linear address in RAX is fetched from; gives in RAX whether it does
/// then. Called with RSP a multiple of 16. Changes RCX, RDX and the flags.
fn fetch_routine(a: &mut Asm) {
    const SAVED: [u8; 6] = [6, 7, 8, 9, 10, 11];
    SAVED.iter().for_each(|&r| a.push(r));
    a.op(W64, 0x8d, 7, Rm::M(RBP, -(BIAS as i32)));
    a.mov(W64, 6, Rm::R(RAX));
    a.push(RAX);
    to_rust(a);
    a.call_far(enter::fetch as *const () as usize as u64);
    a.store(W64, Rm::M(RSP, 0), RAX);
    from_rust(a);
    a.pop(RAX);
    SAVED.iter().rev().for_each(|&r| a.pop(r));
    a.ret();
}

/// All to [`Cpu`], before a function is called that takes it and what RAX is.
pub(super) fn to_function(a: &mut Asm) {
    for (slot, host) in pinned() {
        a.store(W64, Rm::M(RBP, slot), host);
    }
    a.op(W64, 0x8d, 7, Rm::M(RBP, -(BIAS as i32)));
    a.mov(W64, 6, Rm::R(RAX));
    to_rust(a);
    x87::save(a);
}

/// The budget and, if they are live, the guest's vector registers to [`Cpu`].
pub(super) fn to_rust(a: &mut Asm) {
    vector::save(a);
    a.store(W64, Rm::M(RBP, offset_of!(Cpu, budget) as i32 - BIAS as i32), BUDGET);
}

/// Back to them.
fn from_rust(a: &mut Asm) {
    vector::restore(a);
    a.mov(W64, BUDGET, Rm::M(RBP, offset_of!(Cpu, budget) as i32 - BIAS as i32));
}

pub(super) fn pinned() -> impl Iterator<Item = (i32, u8)> {
    PINNED.iter().enumerate().map(|(i, &h)| (8 * i as i32 - 128, h))
}

/// Leaves host code from a routine for the reason in [`Native::left`](emu_core::native::Native).
fn left(a: &mut Asm) {
    a.mov(W32, RAX, Rm::M(RBP, NATIVE_LEFT));
    a.ext(W64, 0xc7, 0, Rm::M(RBP, NATIVE_LEFT));
    a.dword(0);
    a.alu_imm(W32, 4, Rm::R(RDX), -256);
    a.op(W32, 0x0b, RAX, Rm::R(RDX));
    a.pop(RCX);
    a.ret();
}

/// The RAM offset of the linear address in RAX that is to be fetched from; gives the jump that is
/// taken where the TLB does not know it.
fn executable(a: &mut Asm) -> usize {
    const FETCH: u32 = size_of::<Fetch>().trailing_zeros();
    a.mov(W32, RCX, Rm::R(RAX));
    a.ext(W32, 0xc1, 5, Rm::R(RCX));
    a.byte(12 - FETCH as u8);
    a.alu_imm(W32, 4, Rm::R(RCX), ((L1 - 1) << FETCH) as i64);
    a.op(W64, 0x03, RCX, Rm::M(RBP, NATIVE_FETCHES));
    a.mov(W64, RDX, Rm::R(RAX));
    a.op(W64, 0x2b, RDX, Rm::M(RCX, offset_of!(Fetch, tag) as i32));
    a.alu_imm(W64, 7, Rm::R(RDX), 4095);
    let miss = a.jcc(cc::A);
    a.op(W64, 0x03, RAX, Rm::M(RCX, offset_of!(Fetch, addend) as i32));
    miss
}

/// The linear address of RIP in RAX.
fn linear_rip(a: &mut Asm, m: u32) {
    if m & mode::CODE64 != 0 {
        a.mov(W64, RAX, Rm::M(RBP, RIP));
    } else {
        a.mov(W32, RAX, Rm::M(RBP, RIP));
        a.op(W32, 0x03, RAX, rm(Reg::CS_BASE));
    }
}

/// A guard: goes on at its site as long as RIP is mapped to the RAM offset `off`. It was for the
/// RIP and in the epoch that are in the words at `held`. The site is relative to the piece.
pub(super) fn guard(a: &mut Asm, (m, off): (u32, u64), record: u32, held: u64, fetch: u64) -> Site {
    let held = |a: &mut Asm| a.imm(RAX, held);
    held(a);
    a.mov(W64, RCX, Rm::M(RBP, RIP));
    a.op(W64, 0x3b, RCX, Rm::M(RAX, 0));
    let elsewhere = a.jcc(cc::NE);
    a.mov(W64, RCX, Rm::M(RBP, NATIVE_EPOCH));
    a.op(W64, 0x3b, RCX, Rm::M(RAX, 8));
    let look = a.jcc(cc::NE);
    let jump = a.jmp();
    a.bind(elsewhere);
    a.bind(look);
    let again = a.here();
    linear_rip(a, m);
    let miss = executable(a);
    a.imm(RCX, off);
    a.op(W64, 0x3b, RAX, Rm::R(RCX));
    let other = a.jcc(cc::NE);
    held(a);
    for (at, word) in [(0, RIP), (8, NATIVE_EPOCH)] {
        a.mov(W64, RCX, Rm::M(RBP, word));
        a.store(W64, Rm::M(RAX, at), RCX);
    }
    let back = a.jmp();
    a.bind_to(back, jump - 5);
    a.bind(miss);
    linear_rip(a, m);
    a.call_near(fetch);
    a.op(W32, 0x85, RAX, Rm::R(RAX));
    let known = a.jcc(cc::NE);
    a.bind_to(known, again);
    a.bind(other);
    leave(a, Leave::Lookup.at(record as usize) as u32);
    let stub = a.here();
    let word = Leave::Next.at(record as usize) as u32;
    leave(a, word);
    a.bind_to(jump, stub);
    Site { jump, stub, word }
}

impl Compiler<'_> {
    /// On the way in: leaves unless the page that follows is the one that the head goes on in.
    pub(super) fn check_second_page(&mut self) {
        let place = self.place;
        let Some(second) = place.second else { return };
        linear_rip(&mut self.a, place.mode);
        let w = if place.mode & mode::CODE64 != 0 { W64 } else { W32 };
        self.a.alu_imm(w, 0, Rm::R(RAX), place.in_page() as i64);
        let unknown = executable(&mut self.a);
        self.a.imm(RCX, second);
        self.a.op(W64, 0x3b, RAX, Rm::R(RCX));
        let other = self.a.jcc(cc::NE);
        let word = Leave::Lookup.at(place.first as usize) as u32;
        for jump in [unknown, other] {
            self.later(Cold::Leave { jump, word });
        }
    }

    /// RIP += `delta`, cut to `w`. Destroys the flags.
    pub(super) fn advance(&mut self, w: Width, delta: i64) {
        let delta = delta + self.delta();
        let rip = Rm::M(RBP, RIP);
        // Outside 64-bit code the upper half is zero.
        let plain = match w {
            W64 => true,
            W32 => self.place.mode & mode::CODE64 == 0,
            _ => false,
        };
        match i32::try_from(delta) {
            Ok(0) if plain => {}
            Ok(d) if plain => self.a.alu_imm(w, 0, rip, d.into()),
            _ => {
                self.a.imm(RAX, delta as u64);
                self.a.op(W64, 0x03, RAX, rip);
                self.set_rip(w, RAX);
            }
        }
    }

    /// RIP = the host register `r`, cut to `w`, which it is then too.
    fn set_rip(&mut self, w: Width, r: u8) {
        match w {
            W8 => self.a.op0f(W32, 0xb6, r, Rm::R(r)),
            W16 => self.a.op0f(W32, 0xb7, r, Rm::R(r)),
            W32 => self.a.mov(W32, r, Rm::R(r)),
            W64 => {}
        }
        self.a.store(W64, Rm::M(RBP, RIP), r);
    }

    /// Charges the block, registers go home by way of `scratch`; leaves if the budget is used up.
    pub(super) fn charge_or_leave(&mut self, scratch: u8) {
        self.charge();
        self.swap_homes(scratch);
        if self.in_strip() {
            return;
        }
        let jump = self.a.jcc(cc::S);
        let word = Leave::Budget.at(self.place.last as usize) as u32;
        self.later(Cold::Leave { jump, word });
    }

    pub(super) fn end(&mut self, u: &Uop) {
        if self.in_strip() {
            return self.strip_end(u);
        }
        self.redo = None;
        if !matches!(u.op, Op::Goto | Op::Jcc | Op::Jrnz) {
            self.save();
        }
        match u.op {
            Op::Goto => self.way(u.w, u.imm, true, true),
            Op::Jcc => {
                let (end, again) = self.tested;
                self.redo = (self.host && end == self.a.here()).then_some(again);
                let c = self.condition(u.k);
                self.fork(u, u.w, c, true);
            }
            Op::Jrnz => {
                self.keep();
                let a = self.get(u.a, W64, RCX);
                self.a.op(u.w, 0x85, a, Rm::R(a));
                self.host = false;
                self.fork(u, Width::from_index(u.k), cc::NE, true);
            }
            Op::Jmpi => {
                self.value(RAX, W64, u.a.into());
                self.set_rip(u.w, RAX);
                self.charge_or_leave(RCX);
                self.indirect();
            }
            Op::Raise => {
                self.call(u);
            }
            _ => self.system(None, u),
        }
    }

    /// The two ways of a conditional end, on the host's condition `c`. In line is a loop's way
    /// back, and where the other one goes on.
    pub(super) fn fork(&mut self, u: &Uop, w: Width, c: u8, last: bool) {
        let (taken, fall) = (u.imm, i64::from(u.fall));
        let (state, redo, owed) = (self.state(), self.redo, self.owed);
        if self.loops(w, taken) {
            let jump = self.a.jcc(c ^ 1);
            self.way(w, taken, true, false);
            self.a.bind(jump);
            self.set_state(state);
        } else {
            let jump = self.a.jcc(c);
            self.settled = state;
            self.later(Cold::Way { jump, w, delta: taken, taken: true, redo, owed });
        }
        (self.redo, self.owed) = (redo, owed);
        self.way(w, fall, false, last);
    }

    /// To the block at RIP by way of the tables of indirect targets.
    pub(super) fn indirect(&mut self) {
        linear_rip(&mut self.a, self.place.mode);
        let other = self.targeted(RAX);
        self.jump_to_target();
        self.later(Cold::Indirect { jump: other });
    }

    /// Looks up the linear address in `va`; gives the jump that is taken when it isn't there.
    /// Keeps `va`.
    pub(super) fn targeted(&mut self, va: u8) -> usize {
        target(&mut self.a, va);
        self.a.op(W64, 0x3b, va, Rm::X(RDX, RCX, 0, offset_of!(HostTarget, va) as i32));
        self.a.jcc(cc::NE)
    }

    /// Goes on where the target found leads.
    pub(super) fn jump_to_target(&mut self) {
        self.a.ext(W32, 0xff, 4, Rm::X(RDX, RCX, 0, offset_of!(HostTarget, host) as i32));
    }

    /// The micro-op from its canonical form.
    pub(super) fn call(&mut self, u: &Uop) {
        self.called_in_line += u64::from(!self.vector.cold);
        self.vectors_to_call();
        self.x87_to_call();
        self.call_routine(u);
        self.set_state(State::MEMORY);
    }

    /// Calls the micro-op; flags go to memory first, and are there after.
    pub(super) fn call_routine(&mut self, u: &Uop) {
        self.save();
        self.move_rip(1);
        self.give_back();
        self.swap_homes(RCX);
        let u = self.homes.renamed(u);
        let u = based(&u, -self.delta()).unwrap_or(u);
        let u = Box::new(u);
        self.a.imm(RAX, &raw const *u as u64);
        self.called.push(u);
        self.a.imm(RDX, u64::from(self.record() << 8));
        let cold = self.vector.cold;
        let to = if cold { self.routines.call_kept } else { self.routines.call };
        self.a.call_near(to);
        self.swap_homes(RCX);
        self.borrow();
        self.move_rip(-1);
    }

    /// `d` = `a` as an instruction pointer of 64-bit code: out of line unless it is canonical in 48
    /// bits.
    pub(super) fn canonical(&mut self, u: &Uop) {
        self.settle();
        let a = self.get(u.a, W64, RAX);
        let miss = self.canonical_or(a);
        self.copy(u.d, W64, u.a);
        let (resume, record) = (self.a.here(), self.record());
        self.later(Cold::Call { miss, resume, record, u: *u });
    }

    /// The jump that is taken when the address in `r` is not canonical in 48 bits.
    pub(super) fn canonical_or(&mut self, r: u8) -> usize {
        self.a.mov(W64, RDX, Rm::R(r));
        for ext in [4, 7] {
            self.a.ext(W64, 0xc1, ext, Rm::R(RDX));
            self.a.byte(16);
        }
        self.a.op(W64, 0x3b, RDX, Rm::R(r));
        self.a.jcc(cc::NE)
    }

    /// Item `n` of the code out of line.
    pub(super) fn emit_cold(&mut self, n: usize) {
        let Later { piece, stage, start, end, note, live, cold } = self.cold[n];
        self.select(piece, stage);
        self.set_state(start);
        self.vector = vector::State::out_of_line();
        self.short = 0;
        self.x87_out_of_line(note);
        match cold {
            Cold::Access { miss, resume, kind, packed, u } => {
                self.missed(miss);
                self.save();
                self.linear(&u.mem);
                self.move_rip(1);
                if kind == Kind::Store {
                    self.value(RCX, W64, u.b);
                }
                self.a.imm(RDX, packed.into());
                let to = match kind {
                    Kind::Load => self.routines.load,
                    Kind::LoadRmw => self.routines.load_rmw,
                    Kind::Store => self.routines.store,
                };
                self.swap_homes_alone();
                self.a.call_near(to);
                self.swap_homes_alone();
                self.move_rip(-1);
                if kind != Kind::Store {
                    self.take(&u, Rm::R(RAX));
                }
                self.resume(resume);
            }
            Cold::Call { miss, resume, record, u } => {
                self.missed(miss);
                self.insn_record = Some(record);
                self.call_routine(&u);
                self.set_state(State::MEMORY);
                self.restore(end);
                self.resume(resume);
            }
            Cold::Quick { misses, resume, record, u } => {
                self.quick_missed(&misses, resume, record, &u, end);
            }
            Cold::Vector(m) => self.vector_miss(&m),
            Cold::X87(rare) => self.x87_rare(&rare, end),
            Cold::Replay { miss, resume, from, count, spared } => {
                self.missed(miss);
                self.spared = spared;
                self.replayed(from, count);
                self.spared = None;
                if live {
                    self.vectors();
                }
                self.restore(end);
                self.resume(resume);
            }
            Cold::Return { miss, other, from, by, target } => {
                self.missed(miss);
                self.a.bind(other);
                self.returned(from, by, target);
            }
            Cold::Indirect { jump } => {
                self.a.bind(jump);
                self.a.imm(RCX, self.place.mode.into());
                self.a.imm(RDX, Leave::Lookup.at(self.place.last as usize));
                let (jump, to) = (self.a.jmp(), self.routines.indirect);
                self.a.bind_far(jump, to);
            }
            Cold::NoStrip { t, plain } => self.no_strip(&t, plain),
            Cold::ShortStrip { jump, resume, insns, plain } => {
                self.a.bind(jump);
                self.short_strip(resume, insns, plain);
            }
            Cold::Way { jump, w, delta, taken, redo, owed } => {
                self.a.bind(jump);
                (self.redo, self.owed) = (redo, owed);
                self.vector = vector::State::entry(live);
                self.way(w, delta, taken, true);
                self.owed = None;
            }
            Cold::Stop { jump, w, delta, redo, owed } => {
                self.a.bind(jump);
                if let Some(redo) = redo.filter(|_| !self.memory && self.recipe.is_none()) {
                    self.a.bytes(redo.bytes());
                    self.host = true;
                }
                self.save();
                if let Some(o) = owed {
                    // Before this block it may have been used up already.
                    let n = self.block.insns.len() as i64;
                    self.a.alu_imm(W64, 0, Rm::R(BUDGET), n);
                    let late = self.a.jcc(cc::NS);
                    self.select(o.piece, stage);
                    self.advance(o.w, o.delta);
                    self.leave(Leave::Budget.at(self.place.last as usize) as u32);
                    self.a.bind(late);
                    self.select(piece, stage);
                    self.a.alu_imm(W64, 5, Rm::R(BUDGET), n);
                }
                self.advance(w, delta);
                self.leave(Leave::Budget.at(self.place.last as usize) as u32);
            }
            Cold::Leave { jump, word } => {
                self.a.bind(jump);
                leave(&mut self.a, word);
            }
            Cold::Exit { jump, word, taken } => {
                let stub = self.a.here();
                self.a.bind(jump);
                leave(&mut self.a, word);
                self.exits.push((self.place.first, taken, Site { jump, stub, word }));
            }
        }
        self.insn_record = None;
    }

    pub(super) fn resume(&mut self, at: usize) {
        let back = self.a.jmp();
        self.a.bind_to(back, at);
    }

    /// Flags to where the code in line has them.
    pub(super) fn restore(&mut self, end: State) {
        if end.memory {
            self.save();
        }
        if end.host {
            self.want_host();
        }
    }
}
