//! SSSE3 (SDM Vol. 1, 5.8 and 12.6): all on MMX and XMM registers.

use super::mmx::both;
use crate::rows;
use emu_core::vec::VecOp as V;

rows! {
    Phaddw:    MMX, Innocuous, |l| both(l, V::Phaddw, V::Phaddw64);
    Phaddd:    MMX, Innocuous, |l| both(l, V::Phaddd, V::Phaddd64);
    Phaddsw:   MMX, Innocuous, |l| both(l, V::Phaddsw, V::Phaddsw64);
    Phsubw:    MMX, Innocuous, |l| both(l, V::Phsubw, V::Phsubw64);
    Phsubd:    MMX, Innocuous, |l| both(l, V::Phsubd, V::Phsubd64);
    Phsubsw:   MMX, Innocuous, |l| both(l, V::Phsubsw, V::Phsubsw64);
    Pabsb:     MMX, Innocuous, |l| both(l, V::Pabsb, V::Pabsb);
    Pabsw:     MMX, Innocuous, |l| both(l, V::Pabsw, V::Pabsw);
    Pabsd:     MMX, Innocuous, |l| both(l, V::Pabsd, V::Pabsd);
    Psignb:    MMX, Innocuous, |l| both(l, V::Psignb, V::Psignb);
    Psignw:    MMX, Innocuous, |l| both(l, V::Psignw, V::Psignw);
    Psignd:    MMX, Innocuous, |l| both(l, V::Psignd, V::Psignd);
    Pmaddubsw: MMX, Innocuous, |l| both(l, V::Pmaddubsw, V::Pmaddubsw);
    Pmulhrsw:  MMX, Innocuous, |l| both(l, V::Pmulhrsw, V::Pmulhrsw);
    Pshufb:    MMX, Innocuous, |l| both(l, V::Pshufb, V::Pshufb64);
    Palignr:   MMX, Innocuous, |l| both(l, V::Palignr, V::Palignr64);
}
