//! Emitters of block ends, and the pieces of code around blocks: the routines that they call out of
//! line, and the guards of links into other pages.

use super::alu::rm;
use super::asm::{Asm, RAX, RBP, RCX, RDX, Rm, cc};
use super::memory::Kind;
use super::{BUDGET, Cold, Compiler, JumpEntry, NATIVE_LEFT, NATIVE_TLB, Site, vector};
use crate::enter::{self, BIAS, PINNED, RIP};
use core::mem::offset_of;
use emu_core::cpu::{JUMPS, Reg, mode};
use emu_core::interp::Leave;
use emu_core::mem::tlb::Entry;
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
}

/// `mov eax, word; ret`: how host code is left.
pub(super) fn leave(a: &mut Asm, word: u32) {
    a.byte(0xb8);
    a.dword(word as i32);
    a.ret();
}

/// Emits the routines. Each takes in EDX the record to leave at, shifted left by 8.
pub(super) fn routines(a: &mut Asm) -> Routines {
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
    // EAX: index of the micro-op.
    let run = |a: &mut Asm, keep: bool| {
        a.push(RDX);
        for (slot, host) in pinned() {
            a.store(W64, Rm::M(RBP, slot), host);
        }
        a.op(W64, 0x8d, 7, Rm::M(RBP, -(BIAS as i32)));
        a.mov(W32, 6, Rm::R(RAX));
        to_rust(a);
        if !keep {
            vector::dead(a);
        }
        a.call_far(enter::run as *const () as usize as u64);
        from_rust(a);
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
    let [rcp, rsqrt] = [false, true].map(|root| {
        let constants = at(&mut |a| vector::approximate::constants(a, root));
        at(&mut |a| vector::approximate::routine(a, root, constants))
    });
    Routines { load, load_rmw, store, call, call_kept, vectors, rcp, rsqrt }
}

/// What of the guest's state is in host registers only goes to [`Cpu`](emu_core::cpu::Cpu).
fn to_rust(a: &mut Asm) {
    vector::save(a);
}

/// The way back.
fn from_rust(a: &mut Asm) {
    vector::restore(a);
}

fn pinned() -> impl Iterator<Item = (i32, u8)> {
    let gprs = PINNED.iter().enumerate().map(|(i, &h)| (8 * i as i32 - 128, h));
    gprs.chain([(8 * Reg::RIP.ix() as i32 - 128, RIP)])
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

/// The linear address of RIP in RAX, its TLB entry in RCX, and its RAM offset in RAX; gives the
/// jump that is taken where the TLB does not know it.
fn executable(a: &mut Asm, m: u32) -> usize {
    if m & mode::CODE64 != 0 {
        a.mov(W64, RAX, Rm::R(RIP));
    } else {
        a.mov(W32, RAX, Rm::R(RIP));
        a.op(W32, 0x03, RAX, rm(Reg::CS_BASE));
    }
    a.mov(W32, RCX, Rm::R(RAX));
    a.ext(W32, 0xc1, 5, Rm::R(RCX));
    a.byte(7);
    a.alu_imm(W32, 4, Rm::R(RCX), 1023 << 5);
    a.op(W64, 0x03, RCX, Rm::M(RBP, NATIVE_TLB));
    a.mov(W64, RDX, Rm::R(RAX));
    a.op(W64, 0x2b, RDX, Rm::M(RCX, offset_of!(Entry, exec) as i32));
    a.alu_imm(W64, 7, Rm::R(RDX), 4095);
    let miss = a.jcc(cc::A);
    a.op(W64, 0x03, RAX, Rm::M(RCX, offset_of!(Entry, addend) as i32));
    miss
}

/// A guard: goes on at its site as long as RIP is mapped to the RAM offset `off`. The site is
/// relative to the piece.
pub(super) fn guard(a: &mut Asm, m: u32, off: u64, record: u32) -> Site {
    let miss = executable(a, m);
    a.imm(RCX, off);
    a.op(W64, 0x3b, RAX, Rm::R(RCX));
    let other = a.jcc(cc::NE);
    let jump = a.jmp();
    a.bind(miss);
    a.bind(other);
    leave(a, Leave::Lookup.at(record as usize) as u32);
    let stub = a.here();
    let word = Leave::Next.at(record as usize) as u32;
    leave(a, word);
    a.bind_to(jump, stub);
    Site { jump, stub, word }
}

impl Compiler<'_> {
    /// RIP += `delta`, cut to `w`.
    fn advance(&mut self, w: Width, delta: i64) {
        let rip = Rm::R(RIP);
        match i32::try_from(delta) {
            Ok(0) if w == W64 => {}
            Ok(d) => self.a.op(if w == W64 { W64 } else { W32 }, 0x8d, RIP, Rm::M(RIP, d)),
            Err(_) => {
                self.a.imm(RAX, delta as u64);
                self.a.op(W64, 0x03, RIP, Rm::R(RAX));
            }
        }
        match w {
            W8 => self.a.op0f(W32, 0xb6, RIP, rip),
            W16 => self.a.op0f(W32, 0xb7, RIP, rip),
            W32 => self.a.mov(W32, RIP, rip),
            W64 => {}
        }
    }

    /// Charges the block; gives the jump that is taken when the budget is used up.
    fn charge(&mut self) {
        let n = self.block.insns.len() as i64;
        self.a.alu_imm(W64, 5, Rm::M(RBP, BUDGET), n);
    }

    pub(super) fn charge_or_leave(&mut self) {
        self.charge();
        let jump = self.a.jcc(cc::S);
        let word = Leave::Budget.at(self.place.last as usize) as u32;
        self.cold.push(Cold::Leave { jump, word });
    }

    /// One way out of the block.
    fn way(&mut self, w: Width, delta: i64, taken: bool) {
        self.advance(w, delta);
        self.charge_or_leave();
        let why = if taken { Leave::LinkTaken } else { Leave::LinkFall };
        let word = why.at(self.place.last as usize) as u32;
        let jump = self.a.jmp();
        self.cold.push(Cold::Exit { jump, word, taken });
    }

    pub(super) fn end(&mut self, u: &Uop) {
        // What saving would destroy is looked at first.
        let early = u.op == Op::Jcc && self.host && !self.memory && self.af_zero;
        if !early {
            self.save();
        }
        let last = self.place.last as usize;
        match u.op {
            Op::Goto => self.way(u.w, u.imm, true),
            Op::Jcc => {
                self.want_host();
                let taken = self.a.jcc(u.k & 15);
                let before = (self.host, self.memory, self.af_zero);
                self.save();
                self.way(u.w, u.fall.into(), false);
                self.a.bind(taken);
                (self.host, self.memory, self.af_zero) = before;
                self.save();
                self.way(u.w, u.imm, true);
            }
            Op::Jrnz => {
                let a = self.get(u.a, W64, RCX);
                self.a.op(u.w, 0x85, a, Rm::R(a));
                let ip = Width::from_index(u.k);
                let taken = self.a.jcc(cc::NE);
                self.way(ip, u.fall.into(), false);
                self.a.bind(taken);
                self.way(ip, u.imm, true);
            }
            Op::Jmpi => {
                match u.w {
                    W8 => {
                        let a = self.get(u.a, W64, RCX);
                        self.a.mov(W32, RIP, Rm::R(a));
                        self.a.op0f(W32, 0xb6, RIP, Rm::R(RIP));
                    }
                    W16 => self.a.op0f(W32, 0xb7, RIP, rm(u.a)),
                    w => self.a.mov(w, RIP, rm(u.a)),
                }
                self.charge_or_leave();
                self.indirect();
            }
            Op::Raise => {
                self.call(u);
            }
            Op::Leave => {
                self.advance(u.w, u.imm);
                self.charge();
                leave(&mut self.a, Leave::Exit.at(last) as u32);
            }
            _ => {
                self.charge();
                leave(&mut self.a, Leave::Exit.at(last) as u32);
            }
        }
    }

    /// To the block at RIP by way of the table of indirect targets.
    pub(super) fn indirect(&mut self) {
        let a = &mut self.a;
        let miss = executable(a, self.place.mode);
        a.mov(W32, RCX, Rm::R(RAX));
        a.ext(W32, 0xc1, 5, Rm::R(RCX));
        a.byte(12);
        a.op(W32, 0x33, RCX, Rm::R(RAX));
        a.alu_imm(W32, 4, Rm::R(RCX), JUMPS as i64 - 1);
        a.ext(W32, 0xc1, 4, Rm::R(RCX));
        a.byte(size_of::<JumpEntry>().trailing_zeros() as u8);
        a.imm(RDX, self.jumps);
        let field = |d: usize| Rm::X(RDX, RCX, 0, d as i32);
        a.op(W64, 0x3b, RAX, field(offset_of!(JumpEntry, off)));
        let other = a.jcc(cc::NE);
        a.ext(W32, 0x81, 7, field(offset_of!(JumpEntry, mode)));
        a.dword(self.place.mode as i32);
        let mode = a.jcc(cc::NE);
        a.mov(W32, RCX, field(offset_of!(JumpEntry, at)));
        a.imm(RAX, self.base);
        a.op(W64, 0x03, RAX, Rm::R(RCX));
        // jmp rax
        a.bytes(&[0xff, 0xe0]);
        let word = Leave::Lookup.at(self.place.last as usize) as u32;
        for jump in [miss, other, mode] {
            self.cold.push(Cold::Leave { jump, word });
        }
    }

    /// The micro-op from its canonical form.
    pub(super) fn call(&mut self, u: &Uop) {
        self.save();
        (self.host, self.memory) = (false, true);
        self.vectors_to_call();
        self.call_routine(u);
        self.called += 1;
    }

    pub(super) fn call_routine(&mut self, u: &Uop) {
        let n = self.cpu.rare.len();
        self.cpu.rare.push(*u);
        self.a.imm(RAX, n as u64);
        self.a.imm(RDX, u64::from(self.record() << 8));
        let cold = self.vector.cold;
        let to = if cold { self.routines.call_kept } else { self.routines.call };
        self.a.call_near(to);
    }

    /// `d` = `a` as an instruction pointer of 64-bit code: out of line unless it is canonical in 48
    /// bits.
    pub(super) fn canonical(&mut self, u: &Uop) {
        self.settle();
        let a = self.get(u.a, W64, RAX);
        let miss = self.canonical_or(a);
        self.copy(u.d, W64, u.a);
        self.cold.push(Cold::Call { miss, resume: self.a.here(), record: self.record(), u: *u });
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

    /// The code out of line, in the order of its jumps.
    pub(super) fn cold_code(&mut self) {
        let mut n = 0;
        self.vector = vector::State::out_of_line();
        // Code out of line may have some of its own.
        while let Some(&c) = self.cold.get(n) {
            n += 1;
            match c {
                Cold::Access { miss, resume, kind, packed, u } => {
                    self.a.bind(miss);
                    if kind == Kind::Store {
                        self.value(RCX, W64, u.b);
                    }
                    self.a.imm(RDX, packed.into());
                    let to = match kind {
                        Kind::Load => self.routines.load,
                        Kind::LoadRmw => self.routines.load_rmw,
                        Kind::Store => self.routines.store,
                    };
                    self.a.call_near(to);
                    if kind != Kind::Store {
                        self.take(&u, Rm::R(RAX));
                    }
                    let back = self.a.jmp();
                    self.a.bind_to(back, resume);
                }
                Cold::Call { miss, resume, record, u } => {
                    self.a.bind(miss);
                    self.insn_record = Some(record);
                    self.call_routine(&u);
                    self.insn_record = None;
                    let back = self.a.jmp();
                    self.a.bind_to(back, resume);
                }
                Cold::Vector(m) => self.vector_miss(&m),
                Cold::Replay { miss, resume, record, from, count, flags, reload } => {
                    self.a.bind(miss);
                    self.insn_record = Some(record);
                    self.replayed(from, count, flags);
                    if let Some(r) = reload {
                        self.a.mov(W64, RCX, rm(r));
                    }
                    self.insn_record = None;
                    let back = self.a.jmp();
                    self.a.bind_to(back, resume);
                }
                Cold::Leave { jump, word } => {
                    self.a.bind(jump);
                    leave(&mut self.a, word);
                }
                Cold::Exit { jump, word, taken } => {
                    let stub = self.a.here();
                    self.a.bind(jump);
                    leave(&mut self.a, word);
                    self.exits[usize::from(!taken)] = Some(Site { jump, stub, word });
                }
            }
        }
    }
}
