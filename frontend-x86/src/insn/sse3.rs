//! SSE3 (SDM Vol. 1, 5.7 and 12.4) but for FISTTP, MONITOR and MWAIT.

use super::sse::{mov_all, op};
use crate::rows;
use emu_core::vec::VecOp as V;

rows! {
    Addsubps: SSE, Innocuous, |l| op(l, V::Addsubps);
    Addsubpd: SSE, Innocuous, |l| op(l, V::Addsubpd);
    Haddps:   SSE, Innocuous, |l| op(l, V::Haddps);
    Haddpd:   SSE, Innocuous, |l| op(l, V::Haddpd);
    Hsubps:   SSE, Innocuous, |l| op(l, V::Hsubps);
    Hsubpd:   SSE, Innocuous, |l| op(l, V::Hsubpd);
    Lddqu:    SSE, Innocuous, mov_all;
    Movddup:  SSE, Innocuous, |l| op(l, V::Movddup);
    Movsldup: SSE, Innocuous, |l| op(l, V::Movsldup);
    Movshdup: SSE, Innocuous, |l| op(l, V::Movshdup);
}
