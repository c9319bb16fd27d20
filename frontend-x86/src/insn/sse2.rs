//! SSE2 (SDM Vol. 1, 5.6 and chapter 11). Its XMM forms of MMX instructions are rows of
//! [`super::mmx`] and [`super::sse`]; MOVNTI is a row of [`super::data`].

use super::mmx::{self, both};
use super::sse::*;
use crate::lift::Lift;
use crate::rows;
use emu_core::fault::Guest;
use emu_core::uop::Op;
use emu_core::vec::VecOp as V;
use emu_core::width::Width::W8;

rows! {
    Movapd:    SSE, Innocuous, mov_all;
    Movupd:    SSE, Innocuous, mov_all;
    Movdqa:    SSE, Innocuous, mov_all;
    Movdqu:    SSE, Innocuous, mov_all;
    Movntpd:   SSE, Innocuous, mov_all;
    Movntdq:   SSE, Innocuous, mov_all;
    Movsd:     SSE, Innocuous, |l| mov_scalar(l, V::Movsd);
    Movlpd:    SSE, Innocuous, mov_low;
    Movhpd:    SSE, Innocuous, mov_high;
    Movmskpd:  SSE, Innocuous, |l| to_gpr(l, V::Movmskpd);
    Maskmovdqu: SSE, Innocuous, mmx::maskmov;
    Movdq2q:   SSE | MMX, Innocuous, movdq2q;
    Movq2dq:   SSE | MMX, Innocuous, |l| from_mmx(l, V::Movq);
    Addpd:     SSE, Innocuous, |l| op(l, V::Addpd);
    Addsd:     SSE, Innocuous, |l| op(l, V::Addsd);
    Subpd:     SSE, Innocuous, |l| op(l, V::Subpd);
    Subsd:     SSE, Innocuous, |l| op(l, V::Subsd);
    Mulpd:     SSE, Innocuous, |l| op(l, V::Mulpd);
    Mulsd:     SSE, Innocuous, |l| op(l, V::Mulsd);
    Divpd:     SSE, Innocuous, |l| op(l, V::Divpd);
    Divsd:     SSE, Innocuous, |l| op(l, V::Divsd);
    Minpd:     SSE, Innocuous, |l| op(l, V::Minpd);
    Minsd:     SSE, Innocuous, |l| op(l, V::Minsd);
    Maxpd:     SSE, Innocuous, |l| op(l, V::Maxpd);
    Maxsd:     SSE, Innocuous, |l| op(l, V::Maxsd);
    Sqrtpd:    SSE, Innocuous, |l| op(l, V::Sqrtpd);
    Sqrtsd:    SSE, Innocuous, |l| op(l, V::Sqrtsd);
    Andpd:     SSE, Innocuous, |l| op(l, V::Pand);
    Andnpd:    SSE, Innocuous, |l| op(l, V::Pandn);
    Orpd:      SSE, Innocuous, |l| op(l, V::Por);
    Xorpd:     SSE, Innocuous, |l| op(l, V::Pxor);
    Cmppd:     SSE, Innocuous, |l| predicate(l, V::Cmppd);
    Cmpsd:     SSE, Innocuous, |l| predicate(l, V::Cmpsd);
    Comisd:    SSE, Innocuous, |l| to_flags(l, V::Comisd);
    Ucomisd:   SSE, Innocuous, |l| to_flags(l, V::Ucomisd);
    Shufpd:    SSE, Innocuous, |l| op(l, V::Shufpd);
    Unpcklpd:  SSE, Innocuous, |l| op(l, V::Punpcklqdq);
    Unpckhpd:  SSE, Innocuous, |l| op(l, V::Punpckhqdq);
    // ---- conversions ------------------------------------------------------------------------------
    Cvtps2pd:  SSE, Innocuous, |l| op(l, V::Cvtps2pd);
    Cvtpd2ps:  SSE, Innocuous, |l| op(l, V::Cvtpd2ps);
    Cvtss2sd:  SSE, Innocuous, |l| op(l, V::Cvtss2sd);
    Cvtsd2ss:  SSE, Innocuous, |l| op(l, V::Cvtsd2ss);
    Cvtdq2ps:  SSE, Innocuous, |l| op(l, V::Cvtdq2ps);
    Cvtdq2pd:  SSE, Innocuous, |l| op(l, V::Cvtdq2pd);
    Cvtps2dq:  SSE, Innocuous, |l| op(l, V::Cvtps2dq);
    Cvttps2dq: SSE, Innocuous, |l| op(l, V::Cvttps2dq);
    Cvtpd2dq:  SSE, Innocuous, |l| op(l, V::Cvtpd2dq);
    Cvttpd2dq: SSE, Innocuous, |l| op(l, V::Cvttpd2dq);
    Cvtsi2sd:  SSE, Innocuous, |l| from_gpr(l, V::Cvtsi2sd32, V::Cvtsi2sd64);
    Cvtsd2si:  SSE, Innocuous, |l| to_int(l, V::Cvtsd2si32, V::Cvtsd2si64);
    Cvttsd2si: SSE, Innocuous, |l| to_int(l, V::Cvttsd2si32, V::Cvttsd2si64);
    Cvtpi2pd:  SSE | MMX, Innocuous, |l| from_mmx(l, V::Cvtdq2pd);
    Cvtpd2pi:  SSE | MMX, Innocuous, |l| to_mmx(l, V::Cvtpd2dq);
    Cvttpd2pi: SSE | MMX, Innocuous, |l| to_mmx(l, V::Cvttpd2dq);
    // ---- integers -----------------------------------------------------------------------------------
    Paddq:      MMX, Innocuous, |l| both(l, V::Paddq, V::Paddq);
    Psubq:      MMX, Innocuous, |l| both(l, V::Psubq, V::Psubq);
    Pmuludq:    MMX, Innocuous, |l| both(l, V::Pmuludq, V::Pmuludq);
    Pslldq:     SSE, Innocuous, |l| op(l, V::Pslldq);
    Psrldq:     SSE, Innocuous, |l| op(l, V::Psrldq);
    Pshufd:     SSE, Innocuous, |l| op(l, V::Pshufd);
    Pshuflw:    SSE, Innocuous, |l| op(l, V::Pshuflw);
    Pshufhw:    SSE, Innocuous, |l| op(l, V::Pshufhw);
    Punpcklqdq: SSE, Innocuous, |l| op(l, V::Punpcklqdq);
    Punpckhqdq: SSE, Innocuous, |l| op(l, V::Punpckhqdq);
    // ---- memory: whatever the FPU's state -----------------------------------------------------------
    Lfence:    NONE, Innocuous, |_| Ok(());
    Mfence:    NONE, Innocuous, |_| Ok(());
    Clflush:   NONE, Innocuous, clflush;
}

/// MOVDQ2Q.
fn movdq2q(l: &mut Lift) -> Guest<()> {
    let v = xmm(l, 1);
    mmx::write(l, l.i.op0_register(), v);
    Ok(())
}

/// CLFLUSH: faults as a load of a byte does.
fn clflush(l: &mut Lift) -> Guest<()> {
    let (m, t) = (l.mem_bytes(1, false), l.b.temp());
    l.b.load(Op::Ldz, W8, t, m);
    Ok(())
}
