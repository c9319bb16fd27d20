//! Random well-formed blocks, built from a string of random bytes (so that fewer bytes are a
//! smaller block). An instruction is one of the shapes that lifters emit.

use crate::toy;
use emu_core::build::Builder;
use emu_core::cpu::Reg;
use emu_core::uop::{Block, Form, Mem, Op, Src, Uop};
use emu_core::vec::VecOp;
use emu_core::width::Width::{self, W8, W16, W32, W64};

/// Ops that a load or a read-modify-write is followed by: those that are fused, and others.
const ALU: [Op; 12] = [
    Op::Add,
    Op::Sub,
    Op::And,
    Op::Or,
    Op::Xor,
    Op::Imul,
    Op::Inc,
    Op::Dec,
    Op::Adc,
    Op::Sbb,
    Op::Shl,
    Op::Rcr,
];

/// A block of as many instructions as `bytes` last for.
pub fn block(bytes: &[u8]) -> Block {
    let mut r = Random { bytes: bytes.iter(), b: Builder::new() };
    while r.bytes.len() > 4 && r.b.insn_count() < 40 {
        let len = 1 + r.below(15) as u8;
        r.b.start_insn(len);
        r.insn();
    }
    let len = 1 + r.below(15) as u8;
    r.b.start_insn(len);
    r.end();
    r.b.finish()
}

struct Random<'a> {
    bytes: std::slice::Iter<'a, u8>,
    b: Builder,
}

impl Random<'_> {
    fn byte(&mut self) -> u8 {
        self.bytes.next().copied().unwrap_or(0)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::from(self.byte()) % n
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn bool(&mut self) -> bool {
        self.byte() & 1 != 0
    }

    fn w(&mut self) -> Width {
        self.pick(&[W64, W32, W8, W16])
    }

    fn gpr(&mut self) -> Reg {
        Reg::gpr(self.byte())
    }

    /// A source register: also segment bases, RIP and zero.
    fn a(&mut self) -> Reg {
        match self.byte() {
            n @ 0..=200 => Reg::gpr(n),
            n => Reg(24 + n % 8),
        }
    }

    /// A destination register, sometimes none.
    fn d(&mut self) -> Reg {
        if self.below(16) == 15 { Reg::ZERO } else { self.gpr() }
    }

    fn imm(&mut self) -> i64 {
        let small = i64::from(self.byte() as i8);
        match self.below(6) {
            0 => small << (self.byte() & 63),
            1 => small << 56 | i64::from(self.byte()),
            2 => i64::from(self.byte()) << 8 | i64::from(self.byte()),
            _ => small,
        }
    }

    fn b(&mut self) -> Src {
        if self.bool() { Src::Imm(self.imm()) } else { Src::Reg(self.a()) }
    }

    /// Flags to write: usually all or none, sometimes any of them.
    fn flags(&mut self, u: &mut Uop) {
        u.fl &= match self.below(4) {
            0 => 0,
            1 => 1 << (self.byte() & 15) | 1 << (self.byte() & 15),
            _ => u32::MAX,
        };
    }

    fn mem(&mut self) -> Mem {
        let base = match self.below(4) {
            0 => Reg::RSP,
            1 => Reg::ZERO,
            _ => self.a(),
        };
        let mut m = Mem::at(base, i32::from(self.byte() as i8));
        if self.bool() {
            (m.index, m.scale) = (self.a(), self.byte() & 3);
        }
        if self.below(8) == 0 {
            m.disp = i32::from(self.byte()) << 8 | i32::from(self.byte());
        }
        m.addr = self.pick(&[W64, W64, W16, W16, W32]);
        m.seg = self.pick(&[Reg::ZERO, Reg::ZERO, Reg::ZERO, Reg::GS_BASE, Reg::SS_BASE]);
        m.stack = self.bool();
        m
    }

    /// Any op with a meaning of its own, on `d`, `a` and `b`. Temporaries are written whole.
    fn pure(&mut self, d: Reg, a: Reg, b: Src) {
        let pure = Op::ALL.iter().position(|o| o.row().eval.is_none()).unwrap_or(1);
        let op = Op::ALL[self.below(pure)];
        let ternary = op.row().form == Form::Ternary;
        let w = match d {
            _ if !d.is_architectural() => self.pick(&[W32, W64]),
            _ if ternary => self.pick(&[W16, W32, W64]),
            _ => self.w(),
        };
        let k = match op {
            Op::Set | Op::Cmov => self.byte() & 15,
            Op::Zx | Op::Sx | Op::Crc32 => self.byte() & 3,
            _ => 0,
        };
        let c = if ternary { self.gpr() } else { Reg::ZERO };
        let mut u = Uop { d, a, b, c, k, ..Uop::new(op, w) };
        self.flags(&mut u);
        self.b.push(u);
    }

    fn alu(&mut self, w: Width, d: Reg, a: Reg, b: impl Into<Src>) {
        let op = self.pick(&ALU);
        let mut u = Uop { d, a, b: b.into(), ..Uop::new(op, w) };
        self.flags(&mut u);
        self.b.push(u);
    }

    fn insn(&mut self) {
        let (w, m) = (self.w(), self.mem());
        match self.below(16) {
            0 | 1 => {
                let (d, a, b) = (self.d(), self.a(), self.b());
                self.pure(d, a, b);
            }
            2 => {
                let (op, d) = (self.pick(&[Op::Ld, Op::Ldz, Op::Lds, Op::Lea, Op::Ld]), self.gpr());
                self.b.load(op, w, d, m);
                if op == Op::Lds {
                    self.b.last().k = self.byte() & 3;
                }
            }
            3 => {
                let b = self.b();
                self.b.store(Op::St, w, m, b);
            }
            4 => {
                let (t, r) = (self.b.temp(), self.b.temp());
                self.b.load(Op::Ldw, w, t, m);
                let b = if self.below(8) == 0 { Src::Reg(t) } else { self.b() };
                self.alu(w, r, t, b);
                self.b.store(Op::Stw, w, m, r);
                if self.below(4) == 0 {
                    let d = self.gpr();
                    let x = self.pick(&[t, r]);
                    self.b.mov(w, d, x);
                }
            }
            5 => {
                let t = self.b.temp();
                self.b.load(Op::Ldz, w, t, m);
                let (d, a) = (self.d(), self.a());
                self.alu(w, d, a, t);
                if self.below(4) == 0 {
                    let d = self.gpr();
                    self.b.mov(w, d, t);
                }
            }
            6 => {
                let t = self.b.temp();
                self.b.load(Op::Ldz, w, t, m);
                let (op, b) = (self.pick(&[Op::Sub, Op::And]), self.b());
                self.b.op(op, w, Reg::ZERO, t, b);
            }
            7 => {
                let b = self.b();
                self.b.store(Op::St, W64, Mem { stack: true, ..Mem::at(Reg::RSP, -8) }, b);
                self.b.op_nf(Op::Add, W64, Reg::RSP, Reg::RSP, -8);
            }
            8 => {
                let d = self.gpr();
                self.b.load(Op::Ld, W64, d, Mem { stack: true, ..Mem::at(Reg::RSP, 0) });
                if d != Reg::RSP {
                    self.b.op_nf(Op::Add, W64, Reg::RSP, Reg::RSP, 8);
                }
            }
            9 => {
                let (op, a, b) = (self.pick(&[Op::Sub, Op::And]), self.a(), self.b());
                self.b.op(op, w, Reg::ZERO, a, b);
                let (op, d, a, b) = (self.pick(&[Op::Set, Op::Cmov]), self.d(), self.a(), self.b());
                let k = self.byte() & 15;
                self.b.op_k(op, w, d, a, b, k);
            }
            10 => {
                let (x, y) = (self.b.temp(), self.b.temp());
                let (a, b) = (self.a(), self.b());
                self.pure(x, a, b);
                let b = self.b();
                self.pure(y, x, b);
                let d = self.d();
                self.pure(d, y, Src::Reg(x));
            }
            11 => {
                let n = w.bytes() as i32;
                let m = Mem { disp: m.disp & 0xff, ..m };
                self.b.store(Op::Chkw, w, m, 0);
                self.b.last().k = 2 * n as u8;
                let (lo, hi) = (self.b(), self.b());
                self.b.store(Op::St, w, m, lo);
                self.b.store(Op::St, w, Mem { disp: m.disp + n, ..m }, hi);
            }
            12 => {
                let (d, a, b, imm) = (self.gpr(), self.a(), self.a(), self.imm());
                let k = self.byte();
                self.b.helper(&toy::MIX, w, k, d, a, b, imm as u64);
            }
            13 => self.vector_memory(m),
            14 => self.vector(),
            _ => {
                let (t, d, a) = (self.b.temp(), self.gpr(), self.a());
                let k = self.below(6) as u8 | u8::from(self.bool()) << 3;
                self.b.op_k(Op::Lin, W64, t, a, 0, k);
                self.b.last().imm = w.bytes() as i64;
                self.b.load(Op::Ld, w, d, Mem { stack: m.stack, ..Mem::at(t, 0) });
            }
        }
    }

    fn vector_memory(&mut self, m: Mem) {
        let bytes = self.pick(&[16, 32, 1, 2, 4, 8]);
        let (v, aligned) = (Reg(self.byte() % 16), self.below(4) == 0);
        if self.bool() {
            self.b.vload(bytes, aligned, v, m);
        } else {
            self.b.vstore(bytes, aligned, m, v);
        }
    }

    fn vector(&mut self) {
        let [d, a, b, c] = [(); 4].map(|()| Reg(self.byte() % 16));
        let w = self.w();
        let n = usize::from(self.byte()) << 8 | usize::from(self.byte());
        let vop = VecOp::ALL[n % VecOp::ALL.len()];
        let imm = self.byte();
        match self.below(5) {
            4 if imm & 0x80 != 0 => {
                let d = self.d();
                self.b.mxcsr(d);
            }
            4 => self.b.vzero(imm % 17, imm >> 5 & 3),
            0 => {
                let (d, words) = (self.d(), 32 / w.bytes() as u8);
                self.b.vget(w, d, a, imm % words);
            }
            1 => {
                let (src, zero, words) = (self.b(), self.bool(), 16 / w.bytes() as u8);
                self.b.vset(w, d, a, imm % words, src, zero);
            }
            _ if vop.is_int() => {
                let d = self.d();
                self.b.vx(vop, w, d, a, b, c, imm, 0);
                let u = self.b.last();
                u.fl = u.op.row().writes;
            }
            _ => {
                let k = self.pick(&[8, 16, 32, 16 | 128]);
                self.b.v(vop, k, d, a, b, c, imm);
            }
        }
    }

    fn end(&mut self) {
        let w = self.w();
        let (to, fall) = (self.imm() as i32 as i64, i64::from(self.byte()));
        match self.below(9) {
            0 | 1 => {
                let k = self.byte() & 15;
                if self.bool() {
                    let op = self.pick(&[Op::Sub, Op::And]);
                    let (w, d, a, b) = (self.w(), self.d(), self.a(), self.b());
                    self.b.op(op, w, d, a, b);
                }
                let w = self.pick(&[W64, W64, w]);
                self.b.jcc(w, k, to, fall);
            }
            2 => self.b.goto(w, to),
            3 => {
                let (ip, a) = (self.w(), self.a());
                self.b.jrnz(w, ip, a, to, fall);
            }
            4 => {
                let a = self.a();
                self.b.jmpi(w, a);
            }
            5 => {
                let t = self.b.temp();
                let next = self.b.next_offset();
                self.b.op_nf(Op::Add, W64, t, Reg::RIP, next);
                self.b.store(Op::St, W64, Mem { stack: true, ..Mem::at(Reg::RSP, -8) }, t);
                self.b.op_nf(Op::Add, W64, Reg::RSP, Reg::RSP, -8);
                self.b.goto(W64, to);
            }
            6 => {
                let t = self.b.temp();
                let by = 8 + i64::from(self.byte());
                self.b.load(Op::Ldz, W64, t, Mem { stack: true, ..Mem::at(Reg::RSP, 0) });
                self.b.op_nf(Op::Add, W64, Reg::RSP, Reg::RSP, by);
                self.b.jmpi(W64, t);
            }
            7 => {
                let (vector, error) = (self.byte() % 32, self.bool());
                self.b.raise(vector, error);
            }
            _ if self.bool() => self.b.leave(w),
            _ => self.b.exit(),
        }
    }
}
