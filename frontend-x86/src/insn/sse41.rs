//! SSE4.1 (SDM Vol. 1, 5.10 and 12.9–12.10). PEXTRW is a row of [`super::sse`].

use super::sse::{extract, immediate, insert, mov_all, op, source, to_flags, xmm};
use crate::lift::Lift;
use crate::rows;
use emu_core::build::VReg;
use emu_core::fault::Guest;
use emu_core::vec::VecOp as V;
use emu_core::width::Width::{W8, W32, W64};

rows! {
    Movntdqa:   SSE, Innocuous, mov_all;
    Pblendw:    SSE, Innocuous, |l| op(l, V::Pblendw);
    Blendps:    SSE, Innocuous, |l| op(l, V::Blendps);
    Blendpd:    SSE, Innocuous, |l| op(l, V::Blendpd);
    Pblendvb:   SSE, Innocuous, |l| blend(l, V::Pblendvb);
    Blendvps:   SSE, Innocuous, |l| blend(l, V::Blendvps);
    Blendvpd:   SSE, Innocuous, |l| blend(l, V::Blendvpd);
    Insertps:   SSE, Innocuous, insertps;
    Extractps:  SSE, Innocuous, |l| extract(l, W32);
    Pextrb:     SSE, Innocuous, |l| extract(l, W8);
    Pextrd:     SSE, Innocuous, |l| extract(l, W32);
    Pextrq:     SSE, Innocuous, |l| extract(l, W64);
    Pinsrb:     SSE, Innocuous, |l| insert(l, W8);
    Pinsrd:     SSE, Innocuous, |l| insert(l, W32);
    Pinsrq:     SSE, Innocuous, |l| insert(l, W64);
    Pmulld:     SSE, Innocuous, |l| op(l, V::Pmulld);
    Pmuldq:     SSE, Innocuous, |l| op(l, V::Pmuldq);
    Pminsb:     SSE, Innocuous, |l| op(l, V::Pminsb);
    Pminsd:     SSE, Innocuous, |l| op(l, V::Pminsd);
    Pminuw:     SSE, Innocuous, |l| op(l, V::Pminuw);
    Pminud:     SSE, Innocuous, |l| op(l, V::Pminud);
    Pmaxsb:     SSE, Innocuous, |l| op(l, V::Pmaxsb);
    Pmaxsd:     SSE, Innocuous, |l| op(l, V::Pmaxsd);
    Pmaxuw:     SSE, Innocuous, |l| op(l, V::Pmaxuw);
    Pmaxud:     SSE, Innocuous, |l| op(l, V::Pmaxud);
    Pmovsxbw:   SSE, Innocuous, |l| op(l, V::Pmovsxbw);
    Pmovsxbd:   SSE, Innocuous, |l| op(l, V::Pmovsxbd);
    Pmovsxbq:   SSE, Innocuous, |l| op(l, V::Pmovsxbq);
    Pmovsxwd:   SSE, Innocuous, |l| op(l, V::Pmovsxwd);
    Pmovsxwq:   SSE, Innocuous, |l| op(l, V::Pmovsxwq);
    Pmovsxdq:   SSE, Innocuous, |l| op(l, V::Pmovsxdq);
    Pmovzxbw:   SSE, Innocuous, |l| op(l, V::Pmovzxbw);
    Pmovzxbd:   SSE, Innocuous, |l| op(l, V::Pmovzxbd);
    Pmovzxbq:   SSE, Innocuous, |l| op(l, V::Pmovzxbq);
    Pmovzxwd:   SSE, Innocuous, |l| op(l, V::Pmovzxwd);
    Pmovzxwq:   SSE, Innocuous, |l| op(l, V::Pmovzxwq);
    Pmovzxdq:   SSE, Innocuous, |l| op(l, V::Pmovzxdq);
    Phminposuw: SSE, Innocuous, |l| op(l, V::Phminposuw);
    Pcmpeqq:    SSE, Innocuous, |l| op(l, V::Pcmpeqq);
    Packusdw:   SSE, Innocuous, |l| op(l, V::Packusdw);
    Ptest:      SSE, Innocuous, |l| to_flags(l, V::Ptest);
    Mpsadbw:    SSE, Innocuous, |l| op(l, V::Mpsadbw);
    Roundps:    SSE, Innocuous, |l| op(l, V::Roundps);
    Roundpd:    SSE, Innocuous, |l| op(l, V::Roundpd);
    Roundss:    SSE, Innocuous, |l| op(l, V::Roundss);
    Roundsd:    SSE, Innocuous, |l| op(l, V::Roundsd);
    Dpps:       SSE, Innocuous, |l| dot(l, V::Dpmulps);
    Dppd:       SSE, Innocuous, |l| dot(l, V::Dpmulpd);
}

/// DPPS, DPPD.
fn dot(l: &mut Lift, products: V) -> Guest<()> {
    let (d, b, imm) = (xmm(l, 0), source(l, 1), immediate(l));
    dot_product(l, products, 16, d, d, b, imm);
    Ok(())
}

/// The steps of a dot product, whose exceptions are determined separately (SDM Vol. 2, DPPS):
/// products, sums of neighbours, sums of these; then the lanes that get the result.
pub fn dot_product(l: &mut Lift, products: V, k: u8, d: VReg, a: VReg, b: VReg, imm: u8) {
    let t = l.b.vtemp();
    l.b.v(products, k, t, a, b, a, imm);
    let zeroed = if products == V::Dpmulps {
        l.b.v(V::Haddps, k, t, t, t, t, 0);
        l.b.v(V::Haddps, k, t, t, t, t, 0);
        !imm & 15
    } else {
        l.b.v(V::Haddpd, k, t, t, t, t, 0);
        (!imm & 1) * 3 | (!imm >> 1 & 1) * 12
    };
    l.b.v(V::Insertps, k, d, t, t, t, zeroed);
}

/// The variable blends: XMM0 chooses.
fn blend(l: &mut Lift, vop: V) -> Guest<()> {
    let (d, b) = (xmm(l, 0), source(l, 1));
    l.b.v(vop, 16, d, d, b, emu_core::cpu::Reg(0), 0);
    Ok(())
}

/// INSERTPS; from memory its source lane is the one there is.
fn insertps(l: &mut Lift) -> Guest<()> {
    let imm = immediate(l) & if l.is_mem(1) { 0x3f } else { 0xff };
    let (d, b) = (xmm(l, 0), source(l, 1));
    l.b.v(V::Insertps, 16, d, d, b, d, imm);
    Ok(())
}
