//! Emitters of vector micro-ops: the host's SSE instruction of the same name on XMM0 and XMM1, lane
//! by lane, as the op table has it. Vector registers are in [`Cpu::v`].
//!
//! Floating point runs with the guest's MXCSR, which is the host's as long as host code runs (see
//! `enter`): where the guest has unmasked an exception, the op is called in its canonical form.

use super::asm::{RAX, RBP, RCX, Rm, cc};
use super::memory::Kind;
use super::{Cold, Compiler, MXCSR, VECTORS};
use emu_core::cpu::Reg;
use emu_core::uop::{Op, Src, Uop};
use emu_core::vec::VecOp;
use emu_core::width::Width::{W8, W16, W32, W64};

/// The host's instruction of a vector operation: mandatory prefix, opcode after 0F, and whether
/// only `b` is a source.
fn instruction(op: VecOp) -> Option<(u8, u8, bool)> {
    use VecOp::*;
    let two = |opcode| Some((0x66, opcode, false));
    match op {
        Movss => Some((0xf3, 0x10, false)),
        Movsd => Some((0xf2, 0x10, false)),
        Movhlps => Some((0, 0x12, false)),
        Movq => Some((0xf3, 0x7e, true)),
        Pand => two(0xdb),
        Pandn => two(0xdf),
        Por => two(0xeb),
        Pxor => two(0xef),
        Paddb => two(0xfc),
        Paddw => two(0xfd),
        Paddd => two(0xfe),
        Paddq => two(0xd4),
        Paddsb => two(0xec),
        Paddsw => two(0xed),
        Paddusb => two(0xdc),
        Paddusw => two(0xdd),
        Psubb => two(0xf8),
        Psubw => two(0xf9),
        Psubd => two(0xfa),
        Psubq => two(0xfb),
        Psubsb => two(0xe8),
        Psubsw => two(0xe9),
        Psubusb => two(0xd8),
        Psubusw => two(0xd9),
        Pavgb => two(0xe0),
        Pavgw => two(0xe3),
        Psadbw => two(0xf6),
        Pmullw => two(0xd5),
        Pmulhw => two(0xe5),
        Pmulhuw => two(0xe4),
        Pmuludq => two(0xf4),
        Pmaddwd => two(0xf5),
        Pminsw => two(0xea),
        Pminub => two(0xda),
        Pmaxsw => two(0xee),
        Pmaxub => two(0xde),
        Pcmpeqb => two(0x74),
        Pcmpeqw => two(0x75),
        Pcmpeqd => two(0x76),
        Pcmpgtb => two(0x64),
        Pcmpgtw => two(0x65),
        Pcmpgtd => two(0x66),
        Packsswb => two(0x63),
        Packssdw => two(0x6b),
        Packuswb => two(0x67),
        Punpcklbw => two(0x60),
        Punpcklwd => two(0x61),
        Punpckldq => two(0x62),
        Punpcklqdq => two(0x6c),
        Punpckhbw => two(0x68),
        Punpckhwd => two(0x69),
        Punpckhdq => two(0x6a),
        Punpckhqdq => two(0x6d),
        Addps => Some((0, 0x58, false)),
        Addpd => Some((0x66, 0x58, false)),
        Addss => Some((0xf3, 0x58, false)),
        Addsd => Some((0xf2, 0x58, false)),
        Mulps => Some((0, 0x59, false)),
        Mulpd => Some((0x66, 0x59, false)),
        Mulss => Some((0xf3, 0x59, false)),
        Mulsd => Some((0xf2, 0x59, false)),
        Subps => Some((0, 0x5c, false)),
        Subpd => Some((0x66, 0x5c, false)),
        Subss => Some((0xf3, 0x5c, false)),
        Subsd => Some((0xf2, 0x5c, false)),
        Minps => Some((0, 0x5d, false)),
        Minpd => Some((0x66, 0x5d, false)),
        Minss => Some((0xf3, 0x5d, false)),
        Minsd => Some((0xf2, 0x5d, false)),
        Divps => Some((0, 0x5e, false)),
        Divpd => Some((0x66, 0x5e, false)),
        Divss => Some((0xf3, 0x5e, false)),
        Divsd => Some((0xf2, 0x5e, false)),
        Maxps => Some((0, 0x5f, false)),
        Maxpd => Some((0x66, 0x5f, false)),
        Maxss => Some((0xf3, 0x5f, false)),
        Maxsd => Some((0xf2, 0x5f, false)),
        Sqrtps => Some((0, 0x51, true)),
        Sqrtpd => Some((0x66, 0x51, true)),
        Sqrtss => Some((0xf3, 0x51, false)),
        Sqrtsd => Some((0xf2, 0x51, false)),
        _ => None,
    }
}

/// The same for those with an immediate that is the same for both lanes.
fn with_imm(op: VecOp) -> Option<(u8, u8, bool)> {
    Some(match op {
        VecOp::Pshufd => (0x66, 0x70, true),
        VecOp::Pshuflw => (0xf2, 0x70, true),
        VecOp::Pshufhw => (0xf3, 0x70, true),
        VecOp::Shufps => (0, 0xc6, false),
        _ => return None,
    })
}

/// Byte `at` of vector register `r`.
fn word(r: Reg, at: i32) -> Rm {
    Rm::M(RBP, VECTORS + 32 * (i32::from(r.0) % 24) + at)
}

impl Compiler<'_> {
    /// MOVDQU.
    fn movdqu(&mut self, x: u8, m: Rm) {
        self.a.op0f_p(W32, 0xf3, 0x6f, x, m);
    }

    fn movdqu_to(&mut self, m: Rm, x: u8) {
        self.a.op0f_p(W32, 0xf3, 0x7f, x, m);
    }

    /// PXOR of a register with itself.
    fn zero(&mut self, x: u8) {
        self.a.op0f_p(W32, 0x66, 0xef, x, Rm::R(x));
    }

    /// Emits `u`; `false` if it has no form here.
    pub(super) fn vector(&mut self, u: &Uop) -> bool {
        match u.op {
            Op::V => self.lanes(u),
            Op::Vld | Op::Vst => self.vector_access(u),
            Op::Vget => {
                let at = (u.imm as u32 * u.w.bits() / 8 % 32) as i32;
                match u.w {
                    W8 => self.a.op0f(W32, 0xb6, RCX, word(u.a, at)),
                    W16 => self.a.op0f(W32, 0xb7, RCX, word(u.a, at)),
                    w => self.a.mov(w, RCX, word(u.a, at)),
                }
                self.put(u.d, W64, RCX);
                true
            }
            Op::Vset => {
                let at = (u.imm as u32 * u.w.bits() / 8 % 32) as i32;
                if u.k & 1 != 0 {
                    self.zero(0);
                    self.movdqu_to(word(u.d, 0), 0);
                    self.movdqu_to(word(u.d, 16), 0);
                } else if u.a != u.d {
                    self.movdqu(0, word(u.a, 0));
                    self.movdqu_to(word(u.d, 0), 0);
                }
                if at < 16 || u.k & 1 != 0 {
                    let v = match u.b {
                        Src::Reg(r) => self.get(r, W64, RCX),
                        Src::Imm(_) => {
                            self.value(RCX, W64, u.b);
                            RCX
                        }
                    };
                    self.a.store(u.w, word(u.d, at), v);
                }
                true
            }
            _ => false,
        }
    }

    fn lanes(&mut self, u: &Uop) -> bool {
        let (bytes, b) = (u.k & 127, if let Src::Reg(r) = u.b { r } else { Reg::ZERO });
        let mov = u.vop == VecOp::Mov;
        let (found, imm) = match (instruction(u.vop), with_imm(u.vop)) {
            (Some(f), _) => (f, false),
            (_, Some(f)) => (f, true),
            _ if mov => ((0, 0, true), false),
            _ => return false,
        };
        let (prefix, opcode, unary) = found;
        let miss = u.vop.raises().then(|| {
            self.settle();
            self.a.mov(W32, RCX, Rm::M(RBP, MXCSR));
            self.a.ext(W32, 0xf7, 2, Rm::R(RCX));
            self.a.ext(W32, 0xf7, 0, Rm::R(RCX));
            self.a.dword(0x1f80);
            self.a.jcc(cc::NE)
        });
        let lanes = if bytes == 32 { 2 } else { 1 };
        for lane in 0..lanes {
            let at = 16 * lane;
            let result = if mov {
                self.movdqu(1, word(b, at));
                1
            } else {
                if !unary {
                    self.movdqu(0, word(u.a, at));
                }
                self.movdqu(1, word(b, at));
                if prefix == 0 {
                    self.a.op0f(W32, opcode, 0, Rm::R(1));
                } else {
                    self.a.op0f_p(W32, prefix, opcode, 0, Rm::R(1));
                }
                if imm {
                    self.a.byte(u.imm as u8);
                }
                0
            };
            if bytes == 8 {
                // movq
                self.a.op0f_p(W32, 0xf3, 0x7e, result, Rm::R(result));
            }
            self.movdqu_to(word(u.d, at), result);
        }
        if lanes == 1 && u.k & 128 != 0 {
            self.zero(0);
            self.movdqu_to(word(u.d, 16), 0);
        }
        if let Some(miss) = miss {
            let (resume, record) = (self.a.here(), self.record());
            self.later(Cold::Call { miss, resume, record, u: *u });
        }
        true
    }

    fn vector_access(&mut self, u: &Uop) -> bool {
        let n = u.k & 127;
        let store = u.op == Op::Vst;
        self.settle();
        self.address(&u.mem);
        let odd = (u.k & 128 != 0).then(|| {
            // test al, n - 1
            self.a.bytes(&[0xa8, n - 1]);
            self.a.jcc(cc::NE)
        });
        let kind = if store { Kind::Store } else { Kind::Load };
        let (m, miss) = self.check(kind, n.into());
        if store {
            match n {
                1 | 2 | 4 | 8 => {
                    let w = [W8, W16, W32, W64][n.trailing_zeros() as usize];
                    self.a.mov(W64, RCX, word(u.a, 0));
                    self.a.store(w, m, RCX);
                }
                _ => {
                    for at in (0..i32::from(n)).step_by(16) {
                        self.movdqu(0, word(u.a, at));
                        self.movdqu_to(shifted(m, at), 0);
                    }
                }
            }
        } else {
            self.zero(1);
            match n {
                1 | 2 => {
                    self.a.op0f(W32, if n == 1 { 0xb6 } else { 0xb7 }, RAX, m);
                    self.a.op0f_p(W32, 0x66, 0x6e, 0, Rm::R(RAX));
                }
                4 => self.a.op0f_p(W32, 0x66, 0x6e, 0, m),
                8 => self.a.op0f_p(W32, 0xf3, 0x7e, 0, m),
                16 => self.movdqu(0, m),
                _ => {
                    self.movdqu(0, m);
                    self.movdqu(1, shifted(m, 16));
                }
            }
            self.movdqu_to(word(u.d, 0), 0);
            self.movdqu_to(word(u.d, 16), 1);
        }
        let (resume, record) = (self.a.here(), self.record());
        for miss in odd.into_iter().chain([miss]) {
            self.later(Cold::Call { miss, resume, record, u: *u });
        }
        true
    }
}

/// `m`, `by` bytes further.
fn shifted(m: Rm, by: i32) -> Rm {
    match m {
        Rm::M(b, d) => Rm::M(b, d + by),
        Rm::X(b, x, s, d) => Rm::X(b, x, s, d + by),
        other => other,
    }
}
