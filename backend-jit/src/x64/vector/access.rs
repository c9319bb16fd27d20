//! Loads and stores of vectors: checked as others are, then one instruction between memory and the
//! register.

use super::super::alu::rm;
use super::super::asm::{Code, RAX, RBP, RCX, Rm, cc};
use super::super::memory::Kind;
use super::super::{Cold, Compiler, Loc, MXCSR, loc};
use super::table::code;
use super::{LOAD, Miss, STORE, Tail, home, is_temp, slot, word};
use emu_core::cpu::Reg;
use emu_core::uop::{Mem, Src, Uop};
use emu_core::width::Width::{self, W8, W16, W32, W64};

/// A load of `n` bytes that zeroes what is above them, and whether it is of 256 bits; none for
/// those by way of a general register.
pub(super) fn load_code(n: u8) -> Option<(Code, bool)> {
    Some(match n {
        4 => (code("66 0F 6E"), false),
        8 => (code("F3 0F 7E"), false),
        16 => (LOAD, false),
        32 => (LOAD, true),
        _ => return None,
    })
}

/// How word `lane` of `n` bytes of a vector goes to memory, or (of 4 and 8 bytes, the lowest) to a
/// general register; and its immediate.
pub(super) fn lane_code(n: u8, lane: u8) -> (Code, Option<u8>) {
    match (n, lane) {
        (8, 0) => (code("66 0F 7E W1"), None),
        (8, _) => (code("66 0F3A 16 W1"), Some(lane)),
        (4, 0) => (code("66 0F 7E"), None),
        (4, _) => (code("66 0F3A 16"), Some(lane)),
        (2, _) => (code("66 0F3A 15"), Some(lane)),
        _ => (code("66 0F3A 14"), Some(lane)),
    }
}

/// MOVD or MOVQ from a general register.
pub(super) fn from_gpr(w: Width) -> Code {
    if w == W64 { code("66 0F 6E W1") } else { code("66 0F 6E") }
}

/// An access that was checked: where its bytes are, and the jumps that are taken out of line.
pub(super) struct Checked {
    pub at: Rm,
    pub jumps: [Option<usize>; 2],
}

impl Compiler<'_> {
    /// The check of an access of `k & 127` bytes at `mem`, which with bit 7 must be aligned.
    pub(super) fn checked(&mut self, kind: Kind, k: u8, mem: &Mem) -> Checked {
        let n = k & 127;
        let must = k & 128 != 0;
        let known = must
            && (self.fixed(mem).is_some_and(|f| f.aligned(n)) || self.aligned_in_group(mem, n));
        let tests = must && !known && !self.in_strip();
        if tests {
            self.settle();
        } else {
            self.settle_to_move(mem);
        }
        self.address(mem);
        let odd = tests.then(|| {
            if self.member_of(mem).is_some() || self.fixed(mem).is_some() {
                self.linear(mem);
            }
            // test al, n - 1
            self.a.bytes(&[0xa8, n - 1]);
            self.a.jcc(cc::NE)
        });
        let (at, miss) = self.check(kind, n.into());
        let miss = Some(miss).filter(|_| !self.checked_ahead(mem));
        Checked { at, jumps: [odd, miss] }
    }

    /// What is out of line of a checked access, if anything is.
    pub(super) fn later_miss(&mut self, miss: Miss) {
        if miss.jumps.iter().any(Option::is_some) {
            self.later(Cold::Vector(miss));
        }
    }

    /// MXCSR: with the vector registers it is in the host's.
    pub(super) fn mxcsr(&mut self, u: &Uop) -> bool {
        self.vectors();
        self.a.op0f(W32, 0xae, 3, Rm::M(RBP, MXCSR));
        self.a.mov(W32, RCX, Rm::M(RBP, MXCSR));
        self.put(u.d, W64, RCX);
        true
    }

    /// CHKW.
    pub(super) fn check_for_writing(&mut self, u: &Uop) -> bool {
        let c = self.checked(Kind::Store, u.k, &u.mem);
        let miss = self.misses(c.jumps, [Some(*u), None]);
        self.later_miss(miss);
        true
    }

    /// What is out of line of a checked access ends here.
    pub(super) fn misses(&mut self, jumps: [Option<usize>; 2], uops: [Option<Uop>; 2]) -> Miss {
        let (resume, record) = (self.a.here(), self.record());
        Miss { jumps, resume, record, uops, before: None, after: None, tail: Tail::default() }
    }

    /// Emits a load.
    pub(super) fn vector_load(&mut self, u: &Uop) -> bool {
        let n = u.k & 127;
        if is_temp(u.d) && self.helped() && n <= 8 {
            self.load_into_memory(u);
            return true;
        }
        self.vectors();
        let c = self.checked(Kind::Load, u.k, &u.mem);
        let x = self.destination(u.d);
        match load_code(n) {
            Some((code, wide)) => self.a.vex(code, wide, x, 0, c.at),
            None => {
                self.a.op0f(W32, if n == 1 { 0xb6 } else { 0xb7 }, RAX, c.at);
                self.a.vex(code("66 0F 6E"), false, x, 0, Rm::R(RAX));
            }
        }
        self.written(u.d, x, true);
        let miss = self.misses(c.jumps, [Some(*u), None]);
        let after = is_temp(u.d).then_some(x);
        self.later_miss(Miss { after, ..miss });
        true
    }

    /// A load of 8 bytes at most into a temporary that a helper wants.
    fn load_into_memory(&mut self, u: &Uop) {
        let c = self.checked(Kind::Load, u.k, &u.mem);
        match u.k & 127 {
            1 => self.a.op0f(W32, 0xb6, RCX, c.at),
            2 => self.a.op0f(W32, 0xb7, RCX, c.at),
            4 => self.a.mov(W32, RCX, c.at),
            _ => self.a.mov(W64, RCX, c.at),
        }
        self.put_in_memory(u.d);
        let miss = self.misses(c.jumps, [Some(*u), None]);
        self.later_miss(miss);
    }

    /// Vector register `d`, in memory, = RCX.
    pub(super) fn put_in_memory(&mut self, d: Reg) {
        self.a.store(W64, slot(d), RCX);
        for at in [8, 16, 24] {
            self.a.ext(W64, 0xc7, 0, word(d, at));
            self.a.dword(0);
        }
    }

    /// Emits a store.
    pub(super) fn vector_store(&mut self, u: &Uop) -> bool {
        let n = u.k & 127;
        if home(u.a).is_none() && self.holder(u.a).is_none() && n <= 8 {
            let c = self.checked(Kind::Store, u.k, &u.mem);
            let w = [W8, W16, W32, W64][n.trailing_zeros() as usize & 3];
            self.a.mov(W64, RCX, slot(u.a));
            self.a.store(w, c.at, RCX);
            let miss = self.misses(c.jumps, [Some(*u), None]);
            self.later_miss(miss);
            return true;
        }
        self.vectors();
        let Some(x) = self.source(u.a, n == 32) else { return false };
        let c = self.checked(Kind::Store, u.k, &u.mem);
        self.store_lane(n, 0, x, c.at);
        let miss = self.misses(c.jumps, [Some(*u), None]);
        let before = is_temp(u.a).then_some((u.a, x));
        self.later_miss(Miss { before, ..miss });
        true
    }

    /// Stores word `lane` of `n` bytes of the host register `x`.
    pub(super) fn store_lane(&mut self, n: u8, lane: u8, x: u8, at: Rm) {
        match (n, lane) {
            (16 | 32, _) => self.a.vex(STORE, n == 32, x, 0, at),
            (8, 0) => self.a.vex(code("66 0F D6"), false, x, 0, at),
            (8, _) => self.a.vex(code("0F 17"), false, x, 0, at),
            _ => {
                let (code, imm) = lane_code(n, lane);
                self.a.vex(code, false, x, 0, at);
                self.a.bytes(imm.as_slice());
            }
        }
    }

    /// VGET: a word of `a` in a general register.
    pub(super) fn vector_get(&mut self, u: &Uop) -> bool {
        let n = u.w.bytes() as u8;
        let at = u.imm as i32 * i32::from(n) & 31;
        let d = match loc(u.d) {
            _ if u.d == Reg::ZERO => return true,
            Loc::Host(d) => d,
            Loc::Slot(_) => RCX,
        };
        if home(u.a).is_none() && self.holder(u.a).is_none() {
            let m = word(u.a, at);
            match u.w {
                W8 => self.a.op0f(W32, 0xb6, d, m),
                W16 => self.a.op0f(W32, 0xb7, d, m),
                w => self.a.mov(w, d, m),
            }
        } else {
            self.vectors();
            let Some(mut x) = self.source(u.a, at >= 16) else { return false };
            if at >= 16 {
                let Some(high) = self.scratch() else { return false };
                self.a.vex(code("66 0F3A 39"), true, x, 0, Rm::R(high));
                self.a.byte(1);
                x = high;
            }
            let (code, imm) = lane_code(n, (at & 15) as u8 / n);
            self.a.vex(code, false, x, 0, Rm::R(d));
            self.a.bytes(imm.as_slice());
        }
        if d == RCX {
            self.put(u.d, W64, RCX);
        }
        true
    }

    /// VSET: a word of `d` from a general register. `vex`: the upper half of `d` becomes zero.
    pub(super) fn vector_set(&mut self, u: &Uop, vex: bool) -> bool {
        let n = u.w.bytes() as u8;
        let (at, zero) = (u.imm as i32 * i32::from(n) & 15, u.k & 1 != 0);
        if is_temp(u.d) && zero && self.helped() && at == 0 && u.w >= W32 {
            self.value(RCX, u.w, u.b);
            self.put_in_memory(u.d);
            return true;
        }
        if home(u.d).is_none() && u.a == u.d && !zero && !vex && self.holder(u.d).is_none() {
            self.value(RCX, W64, u.b);
            self.a.store(u.w, word(u.d, at), RCX);
            return true;
        }
        self.vectors();
        let merges = !zero && !is_temp(u.d) && !vex;
        let (mut base, mut x) = (0, 0);
        if merges {
            let Some(d) = self.source(u.d, false) else { return false };
            x = d;
            match self.at_hand(u.a, false) {
                Some(a) if a == x => {}
                Some(a) => self.a.sse(code("0F 28"), x, Rm::R(a)),
                None => self.a.sse(code("0F 10"), x, slot(u.a)),
            }
        } else if !zero {
            let Some(a) = self.source(u.a, false) else { return false };
            base = a;
        }
        if !merges {
            x = self.destination(u.d);
        }
        let v = match u.b {
            Src::Reg(r) => rm(r),
            Src::Imm(_) => {
                self.value(RCX, W64, u.b);
                Rm::R(RCX)
            }
        };
        if zero && at == 0 && u.w >= W32 {
            self.a.vex(from_gpr(u.w), false, x, 0, v);
        } else {
            if zero {
                self.a.vex(code("66 0F EF"), false, x, x, Rm::R(x));
                base = x;
            }
            let insert = match n {
                1 => code("66 0F3A 20"),
                2 => code("66 0F C4"),
                4 => code("66 0F3A 22"),
                _ => code("66 0F3A 22 W1"),
            };
            if merges {
                self.a.sse(insert, x, v);
            } else {
                self.a.vex(insert, false, x, base, v);
            }
            self.a.byte(at as u8 / n);
        }
        self.written(u.d, x, !merges);
        true
    }
}
