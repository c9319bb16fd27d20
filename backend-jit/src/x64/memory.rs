//! Emitters of loads and stores: the address, the check against level 1 of the soft TLB, and the
//! way out of line where that has no answer.
//!
//! An access of `n` bytes at `va` hits when `va - tag <= 4096 - n`, as in
//! [`Tlb::read`](emu_core::mem::tlb::Tlb::read); then `va + addend` is its offset in RAM. The
//! check destroys the host's flags: they are in memory then, where a fault wants them too.

use super::alu::rm;
use super::asm::{RAX, RBP, RCX, RDX, Rm, cc};
use super::{Cold, Compiler, Loc, NATIVE_RAM, NATIVE_TLB, loc};
use core::mem::offset_of;
use emu_core::cpu::Reg;
use emu_core::mem::tlb::{Entry, L1};
use emu_core::uop::{Mem, Op, Src, Uop};
use emu_core::width::Width::{self, W8, W16, W32, W64};

/// What an access does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Load,
    LoadRmw,
    Store,
}

/// log2 of an entry's size.
const ENTRY: u32 = size_of::<Entry>().trailing_zeros();

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
    fn sum(&mut self, m: &Mem, d: u8) {
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
        self.sum(m, RAX);
        if m.seg != Reg::ZERO {
            self.a.op(W64, 0x03, RAX, rm(m.seg));
        }
    }

    /// The TLB entry of the address in RAX: its own address in RCX.
    pub(super) fn entry(&mut self) {
        self.a.mov(W32, RCX, Rm::R(RAX));
        self.a.ext(W32, 0xc1, 5, Rm::R(RCX));
        self.a.byte(12 - ENTRY as u8);
        self.a.alu_imm(W32, 4, Rm::R(RCX), ((L1 - 1) << ENTRY) as i64);
        self.a.op(W64, 0x03, RCX, Rm::M(RBP, NATIVE_TLB));
    }

    /// Checks the access of `n` bytes at the address in RAX; gives where its bytes are, and the
    /// jump that is taken when the TLB does not know.
    pub(super) fn check(&mut self, kind: Kind, n: u64) -> (Rm, usize) {
        self.entry();
        let tag =
            if kind == Kind::Load { offset_of!(Entry, read) } else { offset_of!(Entry, write) };
        self.a.mov(W64, RDX, Rm::R(RAX));
        self.a.op(W64, 0x2b, RDX, Rm::M(RCX, tag as i32));
        self.a.alu_imm(W64, 7, Rm::R(RDX), 4096 - n as i64);
        let miss = self.a.jcc(cc::A);
        self.a.mov(W64, RDX, Rm::M(RBP, NATIVE_RAM));
        self.a.op(W64, 0x03, RAX, Rm::M(RCX, offset_of!(Entry, addend) as i32));
        (Rm::X(RAX, RDX, 0, 0), miss)
    }

    fn cold(&mut self, u: &Uop, kind: Kind, miss: usize) {
        let packed = u.w as u32 | u32::from(u.mem.stack) << 4;
        let packed = self.record() << 8 | packed | self.vectors_kept();
        self.cold.push(Cold::Access { miss, resume: self.a.here(), kind, packed, u: *u });
    }

    pub(super) fn load(&mut self, u: &Uop) {
        self.settle();
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
        self.settle();
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
