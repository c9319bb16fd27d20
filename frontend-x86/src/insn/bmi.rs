//! BMI1, BMI2, ADX, MOVBE, RDRAND and RDSEED (SDM Vol. 1, 5.1.15–5.1.16, 7.3.17, 7.3.18). TZCNT and
//! LZCNT are rows of [`super::bits`].

use crate::lift::Lift;
use crate::operand::gpr;
use crate::{helpers, rows};
use emu_core::cpu::{Cpu, Reg};
use emu_core::fault::Guest;
use emu_core::flags::{CF, Flags, OSZAPC};
use emu_core::uop::{Args, Op};
use emu_core::width::Width::W16;

rows! {
    Andn:   NONE, Innocuous, |l| two(l, Op::Andn, true);
    Bextr:  NONE, Innocuous, |l| two(l, Op::Bextr, true);
    Blsi:   NONE, Innocuous, |l| one(l, Op::Blsi);
    Blsmsk: NONE, Innocuous, |l| one(l, Op::Blsmsk);
    Blsr:   NONE, Innocuous, |l| one(l, Op::Blsr);
    Bzhi:   NONE, Innocuous, |l| two(l, Op::Bzhi, true);
    Mulx:   NONE, Innocuous, mulx;
    Pdep:   NONE, Innocuous, |l| two(l, Op::Pdep, false);
    Pext:   NONE, Innocuous, |l| two(l, Op::Pext, false);
    Rorx:   NONE, Innocuous, |l| two(l, Op::Ror, false);
    Sarx:   NONE, Innocuous, |l| two(l, Op::Sar, false);
    Shlx:   NONE, Innocuous, |l| two(l, Op::Shl, false);
    Shrx:   NONE, Innocuous, |l| two(l, Op::Shr, false);
    Adcx:   NONE, Innocuous, adcx;
    Adox:   NONE, Innocuous, adox;
    Movbe:  NONE, Innocuous, movbe;
    Rdrand: NONE, Innocuous, random;
    Rdseed: NONE, Innocuous, random;
}

helpers! {
    RANDOM = "random" next_random;
}

/// `op0 = op(op1)`.
fn one(l: &mut Lift, op: Op) -> Guest<()> {
    let (d, w) = (gpr(l.i.op0_register()).0, l.width(0));
    let a = l.read_reg(1);
    l.b.op(op, w, d, a, 0);
    Ok(())
}

/// `op0 = op(op1, op2)`, with or without flags.
fn two(l: &mut Lift, op: Op, flags: bool) -> Guest<()> {
    let (d, w) = (gpr(l.i.op0_register()).0, l.width(0));
    let a = l.read_reg(1);
    let b = l.read(2);
    if flags {
        l.b.op(op, w, d, a, b);
    } else {
        l.b.op_nf(op, w, d, a, b);
    }
    Ok(())
}

/// op0:op1 = RDX × op2; the high half wins where both are one register.
fn mulx(l: &mut Lift) -> Guest<()> {
    let (high, low, w) = (gpr(l.i.op0_register()).0, gpr(l.i.op1_register()).0, l.width(0));
    let v = l.read_reg(2);
    let t = l.b.temp();
    l.b.op_nf(Op::Mulhu, w, t, Reg::RDX, v);
    l.b.op_nf(Op::Mul, w, low, Reg::RDX, v);
    l.b.mov(w, high, t);
    Ok(())
}

/// ADC that reads and writes no flag but CF.
fn adcx(l: &mut Lift) -> Guest<()> {
    let src = l.read(1);
    l.update(Op::Adc, src);
    l.b.last().fl = CF;
    Ok(())
}

fn adox(l: &mut Lift) -> Guest<()> {
    let src = l.read(1);
    l.update(Op::Adox, src);
    Ok(())
}

fn movbe(l: &mut Lift) -> Guest<()> {
    let (w, t) = (l.width(0), l.b.temp());
    let v = l.read_reg(1);
    if w == W16 {
        l.b.op_nf(Op::Rol, w, t, v, 8);
    } else {
        l.b.op(Op::Bswap, w, t, v, 0);
    }
    l.write(0, t);
    Ok(())
}

fn random(l: &mut Lift) -> Guest<()> {
    let (d, w) = (gpr(l.i.op0_register()).0, l.width(0));
    l.b.helper(&RANDOM, w, 0, d, Reg::ZERO, Reg::ZERO, 0);
    Ok(())
}

/// A number is always there: CF = 1, the other flags 0. The generator is SplitMix64 (Steele, Lea,
/// Flood 2014).
fn next_random(cpu: &mut Cpu, x: Args) -> Guest<()> {
    cpu.random = cpu.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = cpu.random;
    let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    cpu.write_reg(x.d, x.w, z ^ z >> 31);
    cpu.flags = cpu.flags.update(Flags::from_bits(CF), OSZAPC);
    Ok(())
}
