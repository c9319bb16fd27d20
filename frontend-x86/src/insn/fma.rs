//! FMA (SDM Vol. 1, 14.5). The three digits of a mnemonic say which operands are multiplied, and
//! which is added: the order also decides which of several NaNs results.

use super::avx::{put_kind, vector};
use super::sse::source;
use crate::lift::Lift;
use crate::rows;
use emu_core::fault::Guest;
use emu_core::vec::VecOp as V;

rows! {
    Vfmadd132ps:     AVX, Innocuous, |l| fused(l, V::Fmaps, &ORDER_132, 0b000);
    Vfmadd132pd:     AVX, Innocuous, |l| fused(l, V::Fmapd, &ORDER_132, 0b000);
    Vfmadd132ss:     AVX, Innocuous, |l| fused(l, V::Fmass, &ORDER_132, 0b000);
    Vfmadd132sd:     AVX, Innocuous, |l| fused(l, V::Fmasd, &ORDER_132, 0b000);
    Vfmadd213ps:     AVX, Innocuous, |l| fused(l, V::Fmaps, &ORDER_213, 0b000);
    Vfmadd213pd:     AVX, Innocuous, |l| fused(l, V::Fmapd, &ORDER_213, 0b000);
    Vfmadd213ss:     AVX, Innocuous, |l| fused(l, V::Fmass, &ORDER_213, 0b000);
    Vfmadd213sd:     AVX, Innocuous, |l| fused(l, V::Fmasd, &ORDER_213, 0b000);
    Vfmadd231ps:     AVX, Innocuous, |l| fused(l, V::Fmaps, &ORDER_231, 0b000);
    Vfmadd231pd:     AVX, Innocuous, |l| fused(l, V::Fmapd, &ORDER_231, 0b000);
    Vfmadd231ss:     AVX, Innocuous, |l| fused(l, V::Fmass, &ORDER_231, 0b000);
    Vfmadd231sd:     AVX, Innocuous, |l| fused(l, V::Fmasd, &ORDER_231, 0b000);
    Vfmsub132ps:     AVX, Innocuous, |l| fused(l, V::Fmaps, &ORDER_132, 0b110);
    Vfmsub132pd:     AVX, Innocuous, |l| fused(l, V::Fmapd, &ORDER_132, 0b110);
    Vfmsub132ss:     AVX, Innocuous, |l| fused(l, V::Fmass, &ORDER_132, 0b110);
    Vfmsub132sd:     AVX, Innocuous, |l| fused(l, V::Fmasd, &ORDER_132, 0b110);
    Vfmsub213ps:     AVX, Innocuous, |l| fused(l, V::Fmaps, &ORDER_213, 0b110);
    Vfmsub213pd:     AVX, Innocuous, |l| fused(l, V::Fmapd, &ORDER_213, 0b110);
    Vfmsub213ss:     AVX, Innocuous, |l| fused(l, V::Fmass, &ORDER_213, 0b110);
    Vfmsub213sd:     AVX, Innocuous, |l| fused(l, V::Fmasd, &ORDER_213, 0b110);
    Vfmsub231ps:     AVX, Innocuous, |l| fused(l, V::Fmaps, &ORDER_231, 0b110);
    Vfmsub231pd:     AVX, Innocuous, |l| fused(l, V::Fmapd, &ORDER_231, 0b110);
    Vfmsub231ss:     AVX, Innocuous, |l| fused(l, V::Fmass, &ORDER_231, 0b110);
    Vfmsub231sd:     AVX, Innocuous, |l| fused(l, V::Fmasd, &ORDER_231, 0b110);
    Vfnmadd132ps:    AVX, Innocuous, |l| fused(l, V::Fmaps, &ORDER_132, 0b001);
    Vfnmadd132pd:    AVX, Innocuous, |l| fused(l, V::Fmapd, &ORDER_132, 0b001);
    Vfnmadd132ss:    AVX, Innocuous, |l| fused(l, V::Fmass, &ORDER_132, 0b001);
    Vfnmadd132sd:    AVX, Innocuous, |l| fused(l, V::Fmasd, &ORDER_132, 0b001);
    Vfnmadd213ps:    AVX, Innocuous, |l| fused(l, V::Fmaps, &ORDER_213, 0b001);
    Vfnmadd213pd:    AVX, Innocuous, |l| fused(l, V::Fmapd, &ORDER_213, 0b001);
    Vfnmadd213ss:    AVX, Innocuous, |l| fused(l, V::Fmass, &ORDER_213, 0b001);
    Vfnmadd213sd:    AVX, Innocuous, |l| fused(l, V::Fmasd, &ORDER_213, 0b001);
    Vfnmadd231ps:    AVX, Innocuous, |l| fused(l, V::Fmaps, &ORDER_231, 0b001);
    Vfnmadd231pd:    AVX, Innocuous, |l| fused(l, V::Fmapd, &ORDER_231, 0b001);
    Vfnmadd231ss:    AVX, Innocuous, |l| fused(l, V::Fmass, &ORDER_231, 0b001);
    Vfnmadd231sd:    AVX, Innocuous, |l| fused(l, V::Fmasd, &ORDER_231, 0b001);
    Vfnmsub132ps:    AVX, Innocuous, |l| fused(l, V::Fmaps, &ORDER_132, 0b111);
    Vfnmsub132pd:    AVX, Innocuous, |l| fused(l, V::Fmapd, &ORDER_132, 0b111);
    Vfnmsub132ss:    AVX, Innocuous, |l| fused(l, V::Fmass, &ORDER_132, 0b111);
    Vfnmsub132sd:    AVX, Innocuous, |l| fused(l, V::Fmasd, &ORDER_132, 0b111);
    Vfnmsub213ps:    AVX, Innocuous, |l| fused(l, V::Fmaps, &ORDER_213, 0b111);
    Vfnmsub213pd:    AVX, Innocuous, |l| fused(l, V::Fmapd, &ORDER_213, 0b111);
    Vfnmsub213ss:    AVX, Innocuous, |l| fused(l, V::Fmass, &ORDER_213, 0b111);
    Vfnmsub213sd:    AVX, Innocuous, |l| fused(l, V::Fmasd, &ORDER_213, 0b111);
    Vfnmsub231ps:    AVX, Innocuous, |l| fused(l, V::Fmaps, &ORDER_231, 0b111);
    Vfnmsub231pd:    AVX, Innocuous, |l| fused(l, V::Fmapd, &ORDER_231, 0b111);
    Vfnmsub231ss:    AVX, Innocuous, |l| fused(l, V::Fmass, &ORDER_231, 0b111);
    Vfnmsub231sd:    AVX, Innocuous, |l| fused(l, V::Fmasd, &ORDER_231, 0b111);
    Vfmaddsub132ps:  AVX, Innocuous, |l| fused(l, V::Fmaps, &ORDER_132, 0b010);
    Vfmaddsub132pd:  AVX, Innocuous, |l| fused(l, V::Fmapd, &ORDER_132, 0b010);
    Vfmaddsub213ps:  AVX, Innocuous, |l| fused(l, V::Fmaps, &ORDER_213, 0b010);
    Vfmaddsub213pd:  AVX, Innocuous, |l| fused(l, V::Fmapd, &ORDER_213, 0b010);
    Vfmaddsub231ps:  AVX, Innocuous, |l| fused(l, V::Fmaps, &ORDER_231, 0b010);
    Vfmaddsub231pd:  AVX, Innocuous, |l| fused(l, V::Fmapd, &ORDER_231, 0b010);
    Vfmsubadd132ps:  AVX, Innocuous, |l| fused(l, V::Fmaps, &ORDER_132, 0b100);
    Vfmsubadd132pd:  AVX, Innocuous, |l| fused(l, V::Fmapd, &ORDER_132, 0b100);
    Vfmsubadd213ps:  AVX, Innocuous, |l| fused(l, V::Fmaps, &ORDER_213, 0b100);
    Vfmsubadd213pd:  AVX, Innocuous, |l| fused(l, V::Fmapd, &ORDER_213, 0b100);
    Vfmsubadd231ps:  AVX, Innocuous, |l| fused(l, V::Fmaps, &ORDER_231, 0b100);
    Vfmsubadd231pd:  AVX, Innocuous, |l| fused(l, V::Fmapd, &ORDER_231, 0b100);
}

/// Operands that are `a`, `b` and `c` of `a` · `b` + `c`, and which of them the destination is.
type Order = ([u32; 3], u8);
const ORDER_132: Order = ([0, 2, 1], 0);
const ORDER_213: Order = ([1, 0, 2], 1);
const ORDER_231: Order = ([1, 2, 0], 2);

/// What is negated is the immediate of [`V::Fmaps`] and its like.
fn fused(l: &mut Lift, vop: V, (operands, keep): &Order, signs: u8) -> Guest<()> {
    let (d, k) = (vector(l, 0), put_kind(l));
    let rm = source(l, 2);
    let [a, b, c] = operands.map(|n| if n == 2 { rm } else { vector(l, n) });
    l.b.v(vop, k, d, a, b, c, signs | keep << 4);
    Ok(())
}
