//! Bit and byte instructions: bit tests, scans, counts, SETcc, BSWAP, CRC32 (SDM Vol. 1, 5.1.6).

use crate::lift::Lift;
use crate::operand::{Place, gpr};
use crate::rows;
use crate::sys::cpuid::Features;
use emu_core::cpu::Reg;
use emu_core::fault::Guest;
use emu_core::uop::{Op, Src};
use emu_core::width::Width::{W8, W16, W64};
use iced_x86::OpKind;

rows! {
    Bt:  NONE, Innocuous, |l| bit_test(l, Op::Bt);
    Bts: NONE, Innocuous, |l| bit_test(l, Op::Bts);
    Btr: NONE, Innocuous, |l| bit_test(l, Op::Btr);
    Btc: NONE, Innocuous, |l| bit_test(l, Op::Btc);
    Bsf: NONE, Innocuous, |l| scan(l, Op::Bsf);
    Bsr: NONE, Innocuous, |l| scan(l, Op::Bsr);
    // A CPU without BMI1 or LZCNT ignores the F3 prefix and scans (SDM Vol. 2, TZCNT, LZCNT);
    // Linux counts on it.
    Tzcnt: NONE, Innocuous, |l| if l.has(Features::BMI1) { count(l, Op::Tzcnt) } else { scan(l, Op::Bsf) };
    Lzcnt: NONE, Innocuous, |l| if l.has(Features::LZCNT) { count(l, Op::Lzcnt) } else { scan(l, Op::Bsr) };
    Popcnt: NONE, Innocuous, |l| count(l, Op::Popcnt);
    Crc32:  NONE, Innocuous, crc32;
    Bswap:  NONE, Innocuous, bswap;
    Seto: NONE, Innocuous, |l| setcc(l, 0);
    Setno: NONE, Innocuous, |l| setcc(l, 1);
    Setb: NONE, Innocuous, |l| setcc(l, 2);
    Setae: NONE, Innocuous, |l| setcc(l, 3);
    Sete: NONE, Innocuous, |l| setcc(l, 4);
    Setne: NONE, Innocuous, |l| setcc(l, 5);
    Setbe: NONE, Innocuous, |l| setcc(l, 6);
    Seta: NONE, Innocuous, |l| setcc(l, 7);
    Sets: NONE, Innocuous, |l| setcc(l, 8);
    Setns: NONE, Innocuous, |l| setcc(l, 9);
    Setp: NONE, Innocuous, |l| setcc(l, 10);
    Setnp: NONE, Innocuous, |l| setcc(l, 11);
    Setl: NONE, Innocuous, |l| setcc(l, 12);
    Setge: NONE, Innocuous, |l| setcc(l, 13);
    Setle: NONE, Innocuous, |l| setcc(l, 14);
    Setg: NONE, Innocuous, |l| setcc(l, 15);
}

fn bit_test(l: &mut Lift, op: Op) -> Guest<()> {
    let w = l.width(0);
    let writes = op != Op::Bt;
    let index = l.read(1);
    if !l.is_mem(0) {
        let (r, _) = gpr(l.i.op0_register());
        let d = if writes { r } else { Reg::ZERO };
        l.b.op(op, w, d, r, index);
        return Ok(());
    }
    let bytes = w.bytes() as u32;
    let m = match index {
        // An immediate index stays within the operand.
        Src::Imm(_) => l.mem(writes),
        // A register index is a signed bit offset from the operand's address.
        Src::Reg(r) => {
            let mut m = l.offset();
            let t = l.b.temp();
            l.b.op_k(Op::Sx, W64, t, r, 0, w as u8);
            l.b.op_nf(Op::Sar, W64, t, t, i64::from(w.bits().trailing_zeros()));
            l.b.op_nf(Op::Shl, W64, t, t, i64::from(w.bytes().trailing_zeros()));
            if m.base != Reg::ZERO {
                l.b.op_nf(Op::Add, W64, t, t, m.base);
            }
            m.base = t;
            let s = l.segment();
            l.in_segment(m, s, bytes, writes)
        }
    };
    let v = l.b.temp();
    if writes {
        l.b.load(Op::Ldw, w, v, m);
        let t = l.b.temp();
        l.b.op(op, w, t, v, index);
        l.write_place(Place::Mem(m), w, t);
    } else {
        l.b.load(Op::Ldz, w, v, m);
        l.b.op(op, w, Reg::ZERO, v, index);
    }
    Ok(())
}

fn scan(l: &mut Lift, op: Op) -> Guest<()> {
    let w = l.width(0);
    let v = l.read(1);
    let (d, _) = gpr(l.i.op0_register());
    if w == emu_core::width::Width::W32 {
        // A zero source leaves all 64 bits of the destination as they were.
        let (t, z) = (l.b.temp(), l.b.temp());
        l.b.op_k(Op::Zx, W64, z, to_reg(v), 0, w as u8);
        l.b.op(op, W64, t, d, z);
        l.b.mov(W64, d, t);
    } else {
        l.b.op(op, w, d, d, v);
    }
    Ok(())
}

fn to_reg(v: Src) -> Reg {
    match v {
        Src::Reg(r) => r,
        Src::Imm(_) => Reg::ZERO,
    }
}

fn count(l: &mut Lift, op: Op) -> Guest<()> {
    let w = l.width(0);
    let v = l.read_reg(1);
    let (d, _) = gpr(l.i.op0_register());
    l.b.op(op, w, d, v, 0);
    Ok(())
}

fn crc32(l: &mut Lift) -> Guest<()> {
    let k = l.width(1) as u8;
    let v = l.read(1);
    let (d, _) = gpr(l.i.op0_register());
    l.b.op_k(Op::Crc32, W64, d, d, v, k);
    Ok(())
}

fn bswap(l: &mut Lift) -> Guest<()> {
    let w = l.width(0);
    let (d, _) = gpr(l.i.op0_register());
    l.b.op(Op::Bswap, if w == W8 { W16 } else { w }, d, d, 0);
    Ok(())
}

fn setcc(l: &mut Lift, cc: u8) -> Guest<()> {
    if l.i.op0_kind() == OpKind::Register {
        let (d, high) = gpr(l.i.op0_register());
        if !high {
            l.b.op_k(Op::Set, W8, d, d, 0, cc);
            return Ok(());
        }
    }
    let t = l.b.temp();
    l.b.op_k(Op::Set, W64, t, t, 0, cc);
    l.write(0, t);
    Ok(())
}
