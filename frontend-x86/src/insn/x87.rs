//! The x87 FPU (SDM Vol. 1, 5.2). What the instructions do is in [`crate::x87`]; here is which
//! helper they call with what.

use crate::lift::Lift;
use crate::rows;
use crate::x87::{self, Arith, Compare, Control, Form, Format, Function, Move, layout};
use emu_core::cpu::{Reg, Seg, mode};
use emu_core::fault::Guest;
use emu_core::uop::{HelperDef, Op};
use emu_core::width::Width::W64;
use iced_x86::{Code, MemorySize, OpKind, Register};

pub use crate::x87::HELPERS;

rows! {
    Fld:  X87, Innocuous, |l| call(l, &x87::LOAD, 0, 0);
    Fild: X87, Innocuous, |l| call(l, &x87::LOAD, 0, 0);
    Fbld: X87, Innocuous, |l| call(l, &x87::LOAD, 0, 0);
    Fld1:   X87, Innocuous, |l| call(l, &x87::CONSTANT, 0, 0);
    Fldl2t: X87, Innocuous, |l| call(l, &x87::CONSTANT, 1, 0);
    Fldl2e: X87, Innocuous, |l| call(l, &x87::CONSTANT, 2, 0);
    Fldpi:  X87, Innocuous, |l| call(l, &x87::CONSTANT, 3, 0);
    Fldlg2: X87, Innocuous, |l| call(l, &x87::CONSTANT, 4, 0);
    Fldln2: X87, Innocuous, |l| call(l, &x87::CONSTANT, 5, 0);
    Fldz:   X87, Innocuous, |l| call(l, &x87::CONSTANT, 6, 0);
    Fst:    X87, Innocuous, |l| call(l, &x87::STORE, 0, 0);
    Fstp:   X87, Innocuous, |l| call(l, &x87::STORE, 0, 1);
    Fstpnce: X87, Innocuous, |l| call(l, &x87::MOVE, Move::Stpnce as u8, 1);
    Fist:   X87, Innocuous, |l| call(l, &x87::STORE, 0, 0);
    Fistp:  X87, Innocuous, |l| call(l, &x87::STORE, 0, 1);
    Fisttp: X87, Innocuous, |l| call(l, &x87::STORE, 1, 1);
    Fbstp:  X87, Innocuous, |l| call(l, &x87::STORE, 0, 1);
    Fadd:   X87, Innocuous, |l| call(l, &x87::ARITH, Arith::Add as u8, 0);
    Fiadd:  X87, Innocuous, |l| call(l, &x87::ARITH, Arith::Add as u8, 0);
    Faddp:  X87, Innocuous, |l| call(l, &x87::ARITH, Arith::Add as u8, 1);
    Fmul:   X87, Innocuous, |l| call(l, &x87::ARITH, Arith::Mul as u8, 0);
    Fimul:  X87, Innocuous, |l| call(l, &x87::ARITH, Arith::Mul as u8, 0);
    Fmulp:  X87, Innocuous, |l| call(l, &x87::ARITH, Arith::Mul as u8, 1);
    Fsub:   X87, Innocuous, |l| call(l, &x87::ARITH, Arith::Sub as u8, 0);
    Fisub:  X87, Innocuous, |l| call(l, &x87::ARITH, Arith::Sub as u8, 0);
    Fsubp:  X87, Innocuous, |l| call(l, &x87::ARITH, Arith::Sub as u8, 1);
    Fsubr:  X87, Innocuous, |l| call(l, &x87::ARITH, Arith::Subr as u8, 0);
    Fisubr: X87, Innocuous, |l| call(l, &x87::ARITH, Arith::Subr as u8, 0);
    Fsubrp: X87, Innocuous, |l| call(l, &x87::ARITH, Arith::Subr as u8, 1);
    Fdiv:   X87, Innocuous, |l| call(l, &x87::ARITH, Arith::Div as u8, 0);
    Fidiv:  X87, Innocuous, |l| call(l, &x87::ARITH, Arith::Div as u8, 0);
    Fdivp:  X87, Innocuous, |l| call(l, &x87::ARITH, Arith::Div as u8, 1);
    Fdivr:  X87, Innocuous, |l| call(l, &x87::ARITH, Arith::Divr as u8, 0);
    Fidivr: X87, Innocuous, |l| call(l, &x87::ARITH, Arith::Divr as u8, 0);
    Fdivrp: X87, Innocuous, |l| call(l, &x87::ARITH, Arith::Divr as u8, 1);
    Fcom:   X87, Innocuous, |l| call(l, &x87::COMPARE, Compare::Com as u8, 0);
    Ficom:  X87, Innocuous, |l| call(l, &x87::COMPARE, Compare::Com as u8, 0);
    Fcomp:  X87, Innocuous, |l| call(l, &x87::COMPARE, Compare::Com as u8, 1);
    Ficomp: X87, Innocuous, |l| call(l, &x87::COMPARE, Compare::Com as u8, 1);
    Fcompp: X87, Innocuous, |l| call(l, &x87::COMPARE, Compare::Com as u8, 2);
    Fucom:  X87, Innocuous, |l| call(l, &x87::COMPARE, Compare::Ucom as u8, 0);
    Fucomp: X87, Innocuous, |l| call(l, &x87::COMPARE, Compare::Ucom as u8, 1);
    Fucompp: X87, Innocuous, |l| call(l, &x87::COMPARE, Compare::Ucom as u8, 2);
    Fcomi:  X87, Innocuous, |l| call(l, &x87::COMPARE, Compare::Comi as u8, 0);
    Fcomip: X87, Innocuous, |l| call(l, &x87::COMPARE, Compare::Comi as u8, 1);
    Fucomi: X87, Innocuous, |l| call(l, &x87::COMPARE, Compare::Ucomi as u8, 0);
    Fucomip: X87, Innocuous, |l| call(l, &x87::COMPARE, Compare::Ucomi as u8, 1);
    Ftst:   X87, Innocuous, |l| call(l, &x87::COMPARE, Compare::Tst as u8, 0);
    Fxam:   X87, Innocuous, |l| call(l, &x87::EXAMINE, 0, 0);
    Fabs:   X87, Innocuous, |l| call(l, &x87::FUNCTION, Function::Abs as u8, 0);
    Fchs:   X87, Innocuous, |l| call(l, &x87::FUNCTION, Function::Chs as u8, 0);
    Fsqrt:  X87, Innocuous, |l| call(l, &x87::FUNCTION, Function::Sqrt as u8, 0);
    Frndint: X87, Innocuous, |l| call(l, &x87::FUNCTION, Function::Rndint as u8, 0);
    Fxtract: X87, Innocuous, |l| call(l, &x87::FUNCTION, Function::Xtract as u8, 0);
    F2xm1:  X87, Innocuous, |l| call(l, &x87::FUNCTION, Function::F2xm1 as u8, 0);
    Fsin:   X87, Innocuous, |l| call(l, &x87::FUNCTION, Function::Sin as u8, 0);
    Fcos:   X87, Innocuous, |l| call(l, &x87::FUNCTION, Function::Cos as u8, 0);
    Fsincos: X87, Innocuous, |l| call(l, &x87::FUNCTION, Function::Sincos as u8, 0);
    Fptan:  X87, Innocuous, |l| call(l, &x87::FUNCTION, Function::Ptan as u8, 0);
    Fscale: X87, Innocuous, |l| call(l, &x87::FUNCTION, Function::Scale as u8, 0);
    Fprem:  X87, Innocuous, |l| call(l, &x87::FUNCTION, Function::Prem as u8, 0);
    Fprem1: X87, Innocuous, |l| call(l, &x87::FUNCTION, Function::Prem1 as u8, 0);
    Fyl2x:  X87, Innocuous, |l| call(l, &x87::FUNCTION, Function::Yl2x as u8, 0);
    Fyl2xp1: X87, Innocuous, |l| call(l, &x87::FUNCTION, Function::Yl2xp1 as u8, 0);
    Fpatan: X87, Innocuous, |l| call(l, &x87::FUNCTION, Function::Patan as u8, 0);
    Fcmovb:   X87, Innocuous, |l| call(l, &x87::CMOV, 2, 0);
    Fcmovnb:  X87, Innocuous, |l| call(l, &x87::CMOV, 3, 0);
    Fcmove:   X87, Innocuous, |l| call(l, &x87::CMOV, 4, 0);
    Fcmovne:  X87, Innocuous, |l| call(l, &x87::CMOV, 5, 0);
    Fcmovbe:  X87, Innocuous, |l| call(l, &x87::CMOV, 6, 0);
    Fcmovnbe: X87, Innocuous, |l| call(l, &x87::CMOV, 7, 0);
    Fcmovu:   X87, Innocuous, |l| call(l, &x87::CMOV, 10, 0);
    Fcmovnu:  X87, Innocuous, |l| call(l, &x87::CMOV, 11, 0);
    Fxch:   X87, Innocuous, |l| call(l, &x87::MOVE, Move::Xch as u8, 0);
    Ffree:  X87, Innocuous, |l| call(l, &x87::MOVE, Move::Free as u8, 0);
    Ffreep: X87, Innocuous, |l| call(l, &x87::MOVE, Move::Freep as u8, 1);
    Fincstp: X87, Innocuous, |l| call(l, &x87::MOVE, Move::Incstp as u8, 0);
    Fdecstp: X87, Innocuous, |l| call(l, &x87::MOVE, Move::Decstp as u8, 0);
    Fnop:   X87, Innocuous, |l| call(l, &x87::MOVE, Move::Nop as u8, 0);
    // Instructions of the 8087 and 80287 that later FPUs do not execute (SDM Vol. 3, 23.18.7).
    Fneni:   X87, Innocuous, |_| Ok(());
    Fndisi:  X87, Innocuous, |_| Ok(());
    Fnsetpm: X87, Innocuous, |_| Ok(());
    Fninit: X87, Innocuous, |l| control(l, Control::Init);
    Fnclex: X87, Innocuous, |l| control(l, Control::Clex);
    Fldcw:  X87, Innocuous, |l| control(l, Control::Ldcw);
    Fnstcw: X87, Innocuous, |l| control(l, Control::Stcw);
    Fnstsw: X87, Innocuous, |l| control(l, if l.is_mem(0) { Control::StswMem } else { Control::StswAx });
    Fldenv:  X87, Innocuous, |l| image(l, 0);
    Fnstenv: X87, Innocuous, |l| image(l, layout::STORE);
    Frstor:  X87, Innocuous, |l| image(l, layout::REGISTERS);
    Fnsave:  X87, Innocuous, |l| image(l, layout::STORE | layout::REGISTERS);
    Wait: NONE, Behaviour, wait;
}

/// The memory operand's format; [`Format::St`] for register forms.
fn format(l: &Lift) -> Format {
    match l.i.memory_size() {
        MemorySize::Float32 => Format::F32,
        MemorySize::Float64 => Format::F64,
        MemorySize::Float80 => Format::F80,
        MemorySize::Int16 => Format::I16,
        MemorySize::Int32 => Format::I32,
        MemorySize::Int64 => Format::I64,
        MemorySize::Bcd => Format::Bcd,
        _ => Format::St,
    }
}

/// A non-control instruction: calls `h` with operation `k`; the stack is popped `pops` times.
fn call(l: &mut Lift, h: &'static HelperDef, k: u8, pops: u8) -> Guest<()> {
    let (format, write) = (format(l), std::ptr::eq(h, &x87::STORE));
    let st = |n: u32| match l.i.op_kind(n) {
        OpKind::Register if n < l.i.op_count() => l.i.op_register(n).number() as u8,
        _ => 0,
    };
    // FCOMPP and FUCOMPP compare with ST(1) without naming it.
    let src = if pops == 2 { 1 } else { st(l.i.op_count().saturating_sub(1)) };
    let form = Form { fop: opcode(l), seg: segment(l), format, dst: st(0), src, pops };
    if format != Format::St {
        check_before_segment(l);
    }
    let a = match format {
        Format::St => Reg::ZERO,
        f => l.mem_address(f.bytes(), write),
    };
    let (mut rip, offset, w) = (Reg::RIP, l.b.insn_offset(), l.rip_width());
    if offset != 0 {
        rip = l.b.temp();
        l.b.op_nf(Op::Add, w, rip, Reg::RIP, offset);
    }
    l.b.helper(h, w, k, Reg::ZERO, a, rip, form.pack());
    if write && format != Format::St {
        stored(l);
    }
    Ok(())
}

/// A pending exception comes before what is wrong with the operand's segment.
fn check_before_segment(l: &mut Lift) {
    let other = matches!(l.segment(), Seg::Cs | Seg::Fs | Seg::Gs);
    let flat = l.code64() || l.mode & mode::FLAT != 0 && !other;
    if !flat {
        l.b.helper(&x87::CHECK, W64, 0, Reg::ZERO, Reg::ZERO, Reg::ZERO, 0);
    }
}

/// Ends the block after a helper that has written memory: it may have written code.
fn stored(l: &mut Lift) {
    let (w, to) = (l.rip_width(), l.b.next_offset());
    l.b.goto(w, to);
}

fn segment(l: &Lift) -> u8 {
    l.segment() as u8
}

/// A control instruction on memory of `bytes` or on none.
fn call_control(l: &mut Lift, h: &'static HelperDef, k: u8, bytes: u32, write: bool) {
    if bytes != 0 && !write {
        // FLDCW, FLDENV and FRSTOR; what stores does not wait.
        check_before_segment(l);
    }
    let a = if bytes == 0 { Reg::ZERO } else { l.mem_address(bytes, write) };
    let form =
        Form { fop: opcode(l), seg: segment(l), format: Format::St, dst: 0, src: 0, pops: 0 };
    l.b.helper(h, W64, k, Reg::ZERO, a, Reg::ZERO, form.pack());
    if write {
        stored(l);
    }
}

fn control(l: &mut Lift, op: Control) -> Guest<()> {
    let bytes = if l.is_mem(0) { 2 } else { 0 };
    let write = matches!(op, Control::Stcw | Control::StswMem);
    call_control(l, &x87::CONTROL, op as u8, bytes, write);
    Ok(())
}

/// FLDENV, FNSTENV, FRSTOR, FNSAVE.
fn image(l: &mut Lift, k: u8) -> Guest<()> {
    use Code::*;
    let size16 =
        matches!(l.i.code(), Fldenv_m14byte | Fnstenv_m14byte | Frstor_m94byte | Fnsave_m94byte);
    let k = k
        | if size16 { layout::SIZE16 } else { 0 }
        | if l.mode & mode::REAL != 0 { layout::REAL } else { 0 };
    let bytes = l.i.memory_size().size() as u32;
    call_control(l, &x87::IMAGE, k, bytes, k & layout::STORE != 0);
    Ok(())
}

fn wait(l: &mut Lift) -> Guest<()> {
    l.b.helper(&x87::CHECK, W64, 1, Reg::ZERO, Reg::ZERO, Reg::ZERO, 0);
    Ok(())
}

/// The opcode as FOP shows it: the low three bits of the first byte, and the second byte. That
/// one is a ModR/M byte rebuilt from the operand; a SIB byte that need not be there is not seen.
fn opcode(l: &Lift) -> u16 {
    let (i, info) = (l.i, l.i.op_code());
    let op = info.op_code() as u16;
    if !l.is_mem(0) {
        let st = (0..i.op_count()).map(|n| i.op_register(n).number() as u16).max().unwrap_or(0);
        return op.wrapping_add(st) & 0x7ff;
    }
    let reg = info.group_index().max(0) as u16;
    let (base, index) = (i.memory_base(), i.memory_index());
    let absolute = base == Register::None || matches!(base, Register::RIP | Register::EIP);
    let mode = match i.memory_displ_size() {
        _ if absolute => 0,
        0 => 0,
        1 => 1,
        _ => 2,
    };
    let rm = match (base, index) {
        (Register::BX, Register::SI) => 0,
        (Register::BX, Register::DI) => 1,
        (Register::BP, Register::SI) => 2,
        (Register::BP, Register::DI) => 3,
        (Register::SI, Register::None) => 4,
        (Register::DI, Register::None) => 5,
        (Register::BP, Register::None) => 6,
        (Register::BX, Register::None) => 7,
        (Register::None, Register::None) if i.memory_displ_size() == 2 => 6,
        (Register::RIP | Register::EIP, _) => 5,
        (Register::None, Register::None) if !l.code64() => 5,
        (Register::None, _) => 4,
        (b, Register::None) => b.number() as u16 & 7,
        _ => 4,
    };
    (op & 7) << 8 | mode << 6 | reg << 3 | rm
}
