//! AES-NI, PCLMULQDQ and SHA (SDM Vol. 1, 5.13, 5.14, 12.13). Their VEX forms are rows of
//! [`super::avx`].

use super::sse::{op, source, xmm};
use crate::lift::Lift;
use crate::rows;
use emu_core::cpu::Reg;
use emu_core::fault::Guest;
use emu_core::vec::VecOp as V;

rows! {
    Aesenc:      SSE, Innocuous, |l| op(l, V::Aesenc);
    Aesenclast:  SSE, Innocuous, |l| op(l, V::Aesenclast);
    Aesdec:      SSE, Innocuous, |l| op(l, V::Aesdec);
    Aesdeclast:  SSE, Innocuous, |l| op(l, V::Aesdeclast);
    Aesimc:      SSE, Innocuous, |l| op(l, V::Aesimc);
    Aeskeygenassist: SSE, Innocuous, |l| op(l, V::Aeskeygenassist);
    Pclmulqdq:   SSE, Innocuous, |l| op(l, V::Pclmulqdq);
    Sha1rnds4:   SSE, Innocuous, |l| op(l, V::Sha1rnds4);
    Sha1nexte:   SSE, Innocuous, |l| op(l, V::Sha1nexte);
    Sha1msg1:    SSE, Innocuous, |l| op(l, V::Sha1msg1);
    Sha1msg2:    SSE, Innocuous, |l| op(l, V::Sha1msg2);
    Sha256rnds2: SSE, Innocuous, sha256_rounds;
    Sha256msg1:  SSE, Innocuous, |l| op(l, V::Sha256msg1);
    Sha256msg2:  SSE, Innocuous, |l| op(l, V::Sha256msg2);
}

/// SHA256RNDS2: XMM0 has the message.
fn sha256_rounds(l: &mut Lift) -> Guest<()> {
    let (d, b) = (xmm(l, 0), source(l, 1));
    l.b.v(V::Sha256rnds2, 16, d, d, b, Reg(0), 0);
    Ok(())
}
