//! Emitters of loads and stores: the address, the check against a slot of the soft TLB, and the way
//! out of line where that has no answer.
//!
//! Each base register has a [`Slot`] for reads and one for writes: the page that an access by it
//! has last found, and where that is in host memory. An access of `n` bytes at `va` hits when `va -
//! page <= 4096 - n`; the load of the slot does not wait for the address, so a hit costs latency
//! only for a subtraction. Where a slot misses, a routine (see `ends`) looks into level 1 of the
//! TLB, fills the slot, and the check is made again; where level 1 misses too, or the access
//! crosses pages, the slow path does the access.
//!
//! The check destroys the host's flags: they are in memory then, where a fault wants them too.

use super::alu::rm;
use super::asm::{RAX, RBP, RCX, RDX, Rm, cc};
use super::{Cold, Compiler, Loc, loc};
use crate::enter::BIAS;
use core::mem::offset_of;
use emu_core::cpu::{Cpu, Reg, Seg};
use emu_core::mem::tlb::{SLOTS, Slot, Tlb};
use emu_core::uop::{Mem, Op, Src, Uop};
use emu_core::width::Width::{self, W8, W16, W32, W64};

/// Sizes of accesses, in bytes.
pub(super) const SIZES: [u64; 10] = [1, 2, 4, 8, 10, 16, 32, 64, 128, 256];

/// The first slot, from `rbp`.
const FIRST: i32 = (offset_of!(Cpu, tlb) + offset_of!(Tlb, slots)) as i32 - BIAS as i32;

/// What an access does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Load,
    LoadRmw,
    Store,
}

/// A check that looks at a slot, before anything is known of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Try {
    /// The jump that is taken when it misses.
    pub miss: usize,
    /// Where it starts.
    pub start: usize,
    /// The slot, from `rbp`.
    pub slot: i32,
    pub write: bool,
    /// Bytes of the access.
    pub n: u64,
}

/// The slot for accesses at `m`, from `rbp`.
pub(super) fn slot(m: &Mem, write: bool) -> i32 {
    let n = match (m.seg, m.base) {
        (seg, _) if seg == Seg::Fs.base() => 16,
        (seg, _) if seg == Seg::Gs.base() => 17,
        (_, Reg::RIP) => 18,
        (_, Reg::ZERO) => 19,
        (_, base) if base.is_architectural() => base.ix() as i32 & 15,
        _ => 20,
    };
    FIRST + (2 * n + i32::from(write)) * size_of::<Slot>() as i32
}

const _: () = assert!(SLOTS > 2 * 20 + 1);

impl Compiler<'_> {
    /// LEA.
    pub(super) fn lea(&mut self, u: &Uop) {
        match (loc(u.d), u.mem.addr) {
            (Loc::Host(d), W64) if u.w == W64 => self.sum(&u.mem, d),
            (Loc::Host(d), W32 | W64) if u.w == W32 => self.sum(&Mem { addr: W32, ..u.mem }, d),
            _ => {
                self.sum(&u.mem, RAX);
                self.put(u.d, u.w, RAX);
            }
        }
    }

    /// Base, index and displacement of `m`, cut to its address size, into `d`. Keeps the flags.
    pub(super) fn sum(&mut self, m: &Mem, d: u8) {
        let w = if m.addr == W64 { W64 } else { W32 };
        let base = (m.base != Reg::ZERO).then(|| self.get(m.base, W64, RAX));
        let index = (m.index != Reg::ZERO).then(|| self.get(m.index, W64, RCX));
        match (base, index) {
            (None, None) if m.addr == W64 => self.a.imm(d, m.disp as i64 as u64),
            (None, None) => self.a.imm(d, m.disp as u32 as u64),
            (Some(b), None) if m.disp == 0 => self.a.mov(w, d, Rm::R(b)),
            (Some(b), None) => self.a.op(w, 0x8d, d, Rm::M(b, m.disp)),
            (Some(b), Some(x)) => self.a.op(w, 0x8d, d, Rm::X(b, x, m.scale & 3, m.disp)),
            (None, Some(x)) => self.a.op(w, 0x8d, d, Rm::I(x, m.scale & 3, m.disp)),
        }
        match m.addr {
            W8 => self.a.op0f(W32, 0xb6, d, Rm::R(d)),
            W16 => self.a.op0f(W32, 0xb7, d, Rm::R(d)),
            _ => {}
        }
    }

    /// The linear address of `m` in RAX.
    pub(super) fn address(&mut self, m: &Mem) {
        self.tried = (self.a.here(), *m);
        if self.checked_ahead() {
            return;
        }
        self.sum(m, RAX);
        if m.seg != Reg::ZERO {
            self.a.op(W64, 0x03, RAX, rm(m.seg));
        }
    }

    /// Checks the access of `n` bytes at the address that [`address`](Self::address) has left in
    /// RAX; gives where its bytes are, and the jump that is taken when it misses. What is bound to
    /// that jump out of line does not find the address in RAX.
    pub(super) fn check(&mut self, kind: Kind, n: u64) -> (Rm, usize) {
        let (start, m) = self.tried;
        if let Some(at) = self.strip_access(&m) {
            return (at, 0);
        }
        if let Some(slot) = self.group.as_ref().map(|g| g.slot) {
            let base = self.get(m.base, W64, RAX);
            self.a.mov(W64, RDX, Rm::M(RBP, slot + offset_of!(Slot, addend) as i32));
            return (Rm::X(RDX, base, 0, m.disp), 0);
        }
        let write = kind != Kind::Load;
        let slot = slot(&m, write);
        self.a.op(W64, 0x2b, RAX, Rm::M(RBP, slot + offset_of!(Slot, page) as i32));
        self.a.alu_imm(W64, 7, Rm::R(RAX), 4096 - n as i64);
        let miss = self.a.jcc(cc::A);
        self.a.mov(W64, RDX, Rm::M(RBP, slot + offset_of!(Slot, host) as i32));
        self.tries.push(Try { miss, start, slot, write, n });
        (Rm::X(RDX, RAX, 0, 0), miss)
    }

    /// Binds the jump of a miss: what it leads to is what follows, once the slot has been filled in
    /// vain.
    pub(super) fn missed(&mut self, miss: usize) {
        self.a.bind(miss);
        if let Ok(n) = self.tries.binary_search_by_key(&miss, |t| t.miss) {
            let t = self.tries[n];
            self.a.imm(RCX, t.slot as i64 as u64);
            let size = SIZES.iter().position(|n| *n >= t.n).unwrap_or(SIZES.len() - 1);
            let fill = self.routines.fill[usize::from(t.write)][size];
            self.a.call_near(fill);
            let again = self.a.jmp();
            self.a.bind_to(again, t.start);
        }
        self.x87_store_note();
    }

    /// Whether accesses have been checked.
    pub(super) fn checked_ahead(&self) -> bool {
        self.strip || self.group.is_some()
    }

    fn cold(&mut self, u: &Uop, kind: Kind, miss: usize) {
        if self.checked_ahead() {
            return;
        }
        let packed = u.w as u32 | u32::from(u.mem.stack) << 4;
        let packed = self.record() << 8 | packed | self.vectors_kept();
        let resume = self.a.here();
        self.later(Cold::Access { miss, resume, kind, packed, u: *u });
    }

    pub(super) fn load(&mut self, u: &Uop) {
        self.settle_to_move();
        self.address(&u.mem);
        let kind = if u.op == Op::Ldw { Kind::LoadRmw } else { Kind::Load };
        let (at, miss) = self.check(kind, u.w.bytes());
        self.take(u, at);
        self.cold(u, kind, miss);
    }

    /// Writes what a load has found at `from`.
    pub(super) fn take(&mut self, u: &Uop, from: Rm) {
        let w = u.w;
        let to = |out: Width| match loc(u.d) {
            Loc::Host(d) if out >= W32 => d,
            _ => RCX,
        };
        match u.op {
            Op::Ld if w < W32 => match loc(u.d) {
                Loc::Host(d) => self.a.op(w, 0x8b, d, from),
                Loc::Slot(_) => {
                    self.a.op(w, 0x8b, RCX, from);
                    self.put(u.d, w, RCX);
                }
            },
            Op::Lds => {
                let out = Width::from_index(u.k);
                let d = to(out);
                // Of a narrower result than the source only the low bits are wanted.
                let x = if out == W64 { W64 } else { W32 };
                match w {
                    W8 => self.a.op0f(x, 0xbe, d, from),
                    W16 => self.a.op0f(x, 0xbf, d, from),
                    W32 if x == W64 => self.a.op(W64, 0x63, d, from),
                    _ if x == W32 => self.a.op(W32, 0x8b, d, from),
                    _ => self.a.op(W64, 0x8b, d, from),
                }
                if d == RCX {
                    self.put(u.d, out, RCX);
                }
            }
            _ => {
                let d = to(W64);
                match w {
                    W8 => self.a.op0f(W32, 0xb6, d, from),
                    W16 => self.a.op0f(W32, 0xb7, d, from),
                    _ => self.a.op(w, 0x8b, d, from),
                }
                if d == RCX {
                    self.put(u.d, W64, RCX);
                }
            }
        }
    }

    pub(super) fn store(&mut self, u: &Uop) {
        self.settle_to_move();
        self.address(&u.mem);
        let (at, miss) = self.check(Kind::Store, u.w.bytes());
        match u.b {
            Src::Imm(v) if u.w != W64 || v == i64::from(v as i32) => {
                self.a.ext(u.w, 0xc7, 0, at);
                self.a.imm_of(u.w, v);
            }
            b => {
                let v = match b {
                    Src::Reg(r) => self.get(r, W64, RCX),
                    Src::Imm(v) => {
                        self.a.imm(RCX, v as u64);
                        RCX
                    }
                };
                self.a.store(u.w, at, v);
            }
        }
        self.cold(u, Kind::Store, miss);
    }
}
