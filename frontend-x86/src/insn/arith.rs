//! Integer arithmetic, logic, shifts, multiplication and division (SDM Vol. 1, 5.1.2–5.1.5).

use crate::lift::Lift;
use crate::operand::Place;
use crate::{helpers, rows};
use emu_core::cpu::{Cpu, Reg};
use emu_core::fault::{Fault, Guest};
use emu_core::flags::{AF, CF, Flags, OSZAPC};
use emu_core::uop::{Args, Op, Src};
use emu_core::width::Width::{W8, W16, W32, W64};

rows! {
    Add: NONE, Innocuous, |l| alu(l, Op::Add);
    Adc: NONE, Innocuous, |l| alu(l, Op::Adc);
    Sub: NONE, Innocuous, |l| alu(l, Op::Sub);
    Sbb: NONE, Innocuous, |l| alu(l, Op::Sbb);
    And: NONE, Innocuous, |l| alu(l, Op::And);
    Or:  NONE, Innocuous, |l| alu(l, Op::Or);
    Xor: NONE, Innocuous, |l| alu(l, Op::Xor);
    Cmp:  NONE, Innocuous, |l| compare(l, Op::Sub);
    Test: NONE, Innocuous, |l| compare(l, Op::And);
    Inc: NONE, Innocuous, |l| unary(l, Op::Inc);
    Dec: NONE, Innocuous, |l| unary(l, Op::Dec);
    Neg: NONE, Innocuous, |l| unary(l, Op::Neg);
    Not: NONE, Innocuous, |l| unary(l, Op::Not);
    Shl: NONE, Innocuous, |l| shift(l, Op::Shl);
    Sal: NONE, Innocuous, |l| shift(l, Op::Shl);
    Shr: NONE, Innocuous, |l| shift(l, Op::Shr);
    Sar: NONE, Innocuous, |l| shift(l, Op::Sar);
    Rol: NONE, Innocuous, |l| shift(l, Op::Rol);
    Ror: NONE, Innocuous, |l| shift(l, Op::Ror);
    Rcl: NONE, Innocuous, |l| shift(l, Op::Rcl);
    Rcr: NONE, Innocuous, |l| shift(l, Op::Rcr);
    Shld: NONE, Innocuous, |l| double_shift(l, Op::Shld);
    Shrd: NONE, Innocuous, |l| double_shift(l, Op::Shrd);
    Mul:  NONE, Innocuous, |l| multiply(l, Op::Mul, Op::Mulhu);
    Imul: NONE, Innocuous, imul;
    Div:  NONE, Innocuous, |l| divide(l, 0);
    Idiv: NONE, Innocuous, |l| divide(l, 1);
    Cbw:  NONE, Innocuous, |l| extend_rax(l, W8);
    Cwde: NONE, Innocuous, |l| extend_rax(l, W16);
    Cdqe: NONE, Innocuous, |l| extend_rax(l, W32);
    Cwd:  NONE, Innocuous, |l| sign_to_rdx(l, 15);
    Cdq:  NONE, Innocuous, |l| sign_to_rdx(l, 31);
    Cqo:  NONE, Innocuous, |l| sign_to_rdx(l, 63);
    Aaa: NONE, Innocuous, |l| bcd(l, 0);
    Aas: NONE, Innocuous, |l| bcd(l, 1);
    Daa: NONE, Innocuous, |l| bcd(l, 2);
    Das: NONE, Innocuous, |l| bcd(l, 3);
    Aam: NONE, Innocuous, |l| bcd(l, 4);
    Aad: NONE, Innocuous, |l| bcd(l, 5);
}

helpers! {
    DIVIDE = "div" div, Div;
    BCD = "bcd" adjust;
}

fn alu(l: &mut Lift, op: Op) -> Guest<()> {
    let src = l.read_patched(1);
    l.update(op, src);
    Ok(())
}

fn compare(l: &mut Lift, op: Op) -> Guest<()> {
    let w = l.width(0);
    let a = l.read_reg(0);
    let b = l.read_patched(1);
    l.b.op(op, w, Reg::ZERO, a, b);
    Ok(())
}

fn unary(l: &mut Lift, op: Op) -> Guest<()> {
    l.update(op, Src::Imm(0));
    Ok(())
}

fn shift(l: &mut Lift, op: Op) -> Guest<()> {
    let count = match l.read(1) {
        Src::Imm(n) => Src::Imm(n & 0xff),
        r => r,
    };
    l.update(op, count);
    Ok(())
}

fn double_shift(l: &mut Lift, op: Op) -> Guest<()> {
    let w = l.width(0);
    let src = l.read(1);
    let count = l.read_reg(2);
    let (v, place) = l.read_place(0);
    match place {
        Place::Reg(r) => {
            l.b.op(op, w, r, r, src);
            l.b.last().c = count;
        }
        _ => {
            let t = l.b.temp();
            l.b.op(op, w, t, v, src);
            l.b.last().c = count;
            l.write_place(place, w, t);
        }
    }
    Ok(())
}

/// RDX:RAX = RAX × operand; at width 8, AX = AL × operand.
fn multiply(l: &mut Lift, low: Op, high: Op) -> Guest<()> {
    let w = l.width(0);
    let v = l.read_reg(0);
    let hi = l.b.temp();
    l.b.op(high, w, hi, Reg::RAX, v);
    l.b.op(low, w, Reg::RAX, Reg::RAX, v);
    if w == W8 {
        l.b.op(Op::Insh, W64, Reg::RAX, Reg::RAX, hi);
    } else {
        l.b.mov(w, Reg::RDX, hi);
    }
    Ok(())
}

fn imul(l: &mut Lift) -> Guest<()> {
    match l.i.op_count() {
        1 => multiply(l, Op::Imul, Op::Mulhs),
        2 => alu(l, Op::Imul),
        _ => {
            let w = l.width(0);
            let a = l.read_reg(1);
            let imm = l.imm(2);
            let (d, _) = crate::operand::gpr(l.i.op0_register());
            l.b.op(Op::Imul, w, d, a, imm);
            Ok(())
        }
    }
}

fn divide(l: &mut Lift, signed: u8) -> Guest<()> {
    let w = l.width(0);
    let v = l.read_reg(0);
    l.b.helper(&DIVIDE, w, signed, Reg::ZERO, v, Reg::ZERO, 0);
    Ok(())
}

/// DIV (`k` = 0) and IDIV (`k` = 1) by register `a`; #DE on zero and on overflow. The flags are
/// undefined and stay.
fn div(cpu: &mut Cpu, x: Args) -> Guest<()> {
    let w = x.w;
    let d = w.zext(cpu.reg(x.a));
    if d == 0 {
        return Err(Fault::DE);
    }
    let rax = cpu.reg(Reg::RAX);
    let (hi, lo) = if w == W8 {
        (rax >> 8 & 0xff, rax & 0xff)
    } else {
        (w.zext(cpu.reg(Reg::RDX)), w.zext(rax))
    };
    let n = u128::from(hi) << w.bits() | u128::from(lo);
    let (q, r) = if x.k == 0 {
        // The common case, both halves in 64 bits, spares the 128-bit division.
        let (q, r) = if let Ok(n) = u64::try_from(n) {
            (u128::from(n / d), n % d)
        } else {
            (n / u128::from(d), (n % u128::from(d)) as u64)
        };
        if q > u128::from(w.mask()) {
            return Err(Fault::DE);
        }
        (q as u64, r)
    } else {
        let shift = 128 - 2 * w.bits();
        let n = (n << shift) as i128 >> shift;
        let d = i128::from(w.sext(d) as i64);
        let q = n.checked_div(d).ok_or(Fault::DE)?;
        if q != i128::from(w.sext(q as u64) as i64) {
            return Err(Fault::DE);
        }
        (q as u64, (n % d) as u64)
    };
    if w == W8 {
        cpu.write_reg(Reg::RAX, W16, (r & 0xff) << 8 | q & 0xff);
    } else {
        cpu.write_reg(Reg::RAX, w, q);
        cpu.write_reg(Reg::RDX, w, r);
    }
    Ok(())
}

fn extend_rax(l: &mut Lift, from: emu_core::width::Width) -> Guest<()> {
    let to = match from {
        W8 => W16,
        W16 => W32,
        _ => W64,
    };
    l.b.op_k(Op::Sx, to, Reg::RAX, Reg::RAX, 0, from as u8);
    Ok(())
}

fn sign_to_rdx(l: &mut Lift, top: i64) -> Guest<()> {
    let w = match top {
        15 => W16,
        31 => W32,
        _ => W64,
    };
    if w == W16 {
        let t = l.b.temp();
        l.b.op_k(Op::Sx, W64, t, Reg::RAX, 0, W16 as u8);
        l.b.op_nf(Op::Sar, W64, t, t, 15);
        l.b.mov(W16, Reg::RDX, t);
    } else {
        l.b.op_nf(Op::Sar, w, Reg::RDX, Reg::RAX, top);
    }
    Ok(())
}

fn bcd(l: &mut Lift, which: u8) -> Guest<()> {
    let imm = if l.i.op_count() > 0 { l.i.try_immediate(0).unwrap_or(10) & 0xff } else { 0 };
    l.b.helper(&BCD, W8, which, Reg::ZERO, Reg::ZERO, Reg::ZERO, imm);
    Ok(())
}

/// The decimal adjustments; flags that the manual leaves undefined are 0 or follow the result.
fn adjust(cpu: &mut Cpu, x: Args) -> Guest<()> {
    let rax = cpu.reg(Reg::RAX);
    let (al, ah) = (rax as u8, (rax >> 8) as u8);
    let (cf, af) = (cpu.flags.cf(), cpu.flags.af());
    let low_adjust = al & 15 > 9 || af;
    let result = |al: u8, cf: bool, af: bool| {
        let bits = Flags::logic(W8, u64::from(al)).bits() & !(CF | AF);
        Flags::from_bits(bits | u32::from(cf) * CF | u32::from(af) * AF)
    };
    let (ax, flags) = match x.k {
        0 | 1 => {
            let ax = u16::from(al) | u16::from(ah) << 8;
            let ax = match (low_adjust, x.k) {
                (false, _) => ax,
                (true, 0) => ax.wrapping_add(0x106),
                (true, _) => ax.wrapping_sub(6).wrapping_sub(0x100),
            } & 0xff0f;
            (ax, result(ax as u8, low_adjust, low_adjust))
        }
        2 => {
            let high = al > 0x99 || cf;
            let v = al.wrapping_add(6 * u8::from(low_adjust)).wrapping_add(0x60 * u8::from(high));
            (u16::from(v) | u16::from(ah) << 8, result(v, high, low_adjust))
        }
        3 => {
            let high = al > 0x99 || cf;
            let borrow = low_adjust && al < 6;
            let v = al.wrapping_sub(6 * u8::from(low_adjust)).wrapping_sub(0x60 * u8::from(high));
            (u16::from(v) | u16::from(ah) << 8, result(v, high || borrow, low_adjust))
        }
        4 => {
            let base = x.imm as u8;
            let q = al.checked_div(base).ok_or(Fault::DE)?;
            let v = al % base;
            (u16::from(v) | u16::from(q) << 8, result(v, false, false))
        }
        _ => {
            let v = al.wrapping_add(ah.wrapping_mul(x.imm as u8));
            (u16::from(v), result(v, false, false))
        }
    };
    cpu.write_reg(Reg::RAX, W16, ax.into());
    cpu.flags = cpu.flags.update(flags, OSZAPC);
    Ok(())
}
