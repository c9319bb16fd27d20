//! Instructions on the arithmetic flags (SDM Vol. 1, 5.1.12); those on IF, IOPL and so on are in
//! [`super::system`].

use crate::lift::Lift;
use crate::rows;
use emu_core::cpu::Reg;
use emu_core::fault::Guest;
use emu_core::flags::{AF, CF, PF, SF, ZF};
use emu_core::uop::{Op, Src};
use emu_core::width::Width::{W8, W64};

rows! {
    Clc: NONE, Innocuous, |l| set(l, 0, CF);
    Stc: NONE, Innocuous, |l| set(l, i64::from(CF), CF);
    Cmc: NONE, Innocuous, cmc;
    Lahf: NONE, Innocuous, lahf;
    Sahf: NONE, Innocuous, sahf;
    Salc: NONE, Innocuous, salc;
}

fn set(l: &mut Lift, v: impl Into<Src>, which: u32) -> Guest<()> {
    l.b.op(Op::Setfl, W64, Reg::ZERO, Reg::ZERO, v);
    l.b.last().fl = which;
    Ok(())
}

fn cmc(l: &mut Lift) -> Guest<()> {
    l.b.op(Op::Cmc, W64, Reg::ZERO, Reg::ZERO, 0);
    Ok(())
}

fn lahf(l: &mut Lift) -> Guest<()> {
    let t = l.b.temp();
    l.b.op(Op::Getfl, W64, t, Reg::ZERO, 0);
    l.b.op_nf(Op::Or, W64, t, t, 2);
    l.b.op(Op::Insh, W64, Reg::RAX, Reg::RAX, t);
    Ok(())
}

/// AL becomes FFH if CF is set, else 0. Not in the manuals' instruction set but in every CPU's.
fn salc(l: &mut Lift) -> Guest<()> {
    let t = l.b.temp();
    l.b.op_k(Op::Set, W64, t, t, 0, 2);
    l.b.op_nf(Op::Sub, W64, t, Reg::ZERO, t);
    l.b.mov(W8, Reg::RAX, t);
    Ok(())
}

fn sahf(l: &mut Lift) -> Guest<()> {
    let t = l.b.temp();
    l.b.op(Op::Exh, W64, t, Reg::RAX, 0);
    set(l, t, SF | ZF | AF | PF | CF)
}
