//! SSE4.2 (SDM Vol. 1, 5.11 and 12.11) but for CRC32, which is a row of [`super::bits`].

use super::sse::{immediate, op, source, xmm};
use crate::lift::Lift;
use crate::rows;
use emu_core::build::VReg;
use emu_core::cpu::Reg;
use emu_core::fault::Guest;
use emu_core::flags::OSZAPC;
use emu_core::uop::Op;
use emu_core::vec::VecOp as V;
use emu_core::width::Width::{W32, W64};

rows! {
    Pcmpgtq:     SSE, Innocuous, |l| op(l, V::Pcmpgtq);
    Pcmpestri:   SSE, Innocuous, |l| { let c = lengths(l, false); index(l, V::Pcmpestri, c) };
    Pcmpestri64: SSE, Innocuous, |l| { let c = lengths(l, true); index(l, V::Pcmpestri, c) };
    Pcmpistri:   SSE, Innocuous, |l| { let c = xmm(l, 0); index(l, V::Pcmpistri, c) };
    Pcmpestrm:   SSE, Innocuous, |l| { let c = lengths(l, false); mask(l, V::Pcmpestrm, V::Pcmpestri, c) };
    Pcmpestrm64: SSE, Innocuous, |l| { let c = lengths(l, true); mask(l, V::Pcmpestrm, V::Pcmpestri, c) };
    Pcmpistrm:   SSE, Innocuous, |l| { let c = xmm(l, 0); mask(l, V::Pcmpistrm, V::Pcmpistri, c) };
}

/// The explicit lengths, EAX and EDX or with REX.W RAX and RDX, as a vector.
pub fn lengths(l: &mut Lift, wide: bool) -> VReg {
    let c = l.b.vtemp();
    for (lane, r) in [(0, Reg::RAX), (1, Reg::RDX)] {
        let mut v = r;
        if !wide {
            v = l.b.temp();
            l.b.op_k(Op::Sx, W64, v, r, 0, W32 as u8);
        }
        l.b.vset(W64, c, c, lane, v, lane == 0);
    }
    c
}

/// PCMPESTRI, PCMPISTRI: an index in ECX, and flags.
pub fn index(l: &mut Lift, vop: V, c: VReg) -> Guest<()> {
    let (imm, a, b) = (immediate(l), xmm(l, 0), source(l, 1));
    l.b.vx(vop, W32, Reg::RCX, a, b, c, imm, OSZAPC);
    Ok(())
}

/// PCMPESTRM, PCMPISTRM: a mask in XMM0, and the flags of the index form.
fn mask(l: &mut Lift, vop: V, flags: V, c: VReg) -> Guest<()> {
    let (imm, a, b, t) = (immediate(l), xmm(l, 0), source(l, 1), l.b.vtemp());
    let xmm0 = Reg(0);
    l.b.v(vop, 16, t, a, b, c, imm);
    l.b.vx(flags, W32, Reg::ZERO, a, b, c, imm, OSZAPC);
    l.b.v(V::Mov, 16, xmm0, xmm0, t, xmm0, 0);
    Ok(())
}
