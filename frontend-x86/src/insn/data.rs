//! Data movement: MOV and its kin, the stack, exchanges (SDM Vol. 1, 5.1.1).

use super::system;
use crate::lift::Lift;
use crate::operand::{Place, gpr};
use crate::{helpers, rows};
use emu_core::cpu::{Cpu, Reg, Seg};
use emu_core::fault::{Fault, Guest};
use emu_core::flags::{Flags, ZF};
use emu_core::mem::tlb::Access;
use emu_core::uop::{Args, Mem, Op, Src};
use emu_core::width::Width::{self, W8, W16, W32, W64};
use iced_x86::{Code, OpKind};

rows! {
    Mov:    NONE, Innocuous, mov;
    Movzx:  NONE, Innocuous, |l| extend(l, Op::Ldz, Op::Zx);
    Movsx:  NONE, Innocuous, |l| extend(l, Op::Lds, Op::Sx);
    Movsxd: NONE, Innocuous, |l| extend(l, Op::Lds, Op::Sx);
    Movnti: NONE, Innocuous, mov;
    Lea:    NONE, Innocuous, lea;
    Xchg:   NONE, Innocuous, xchg;
    Xadd:   NONE, Innocuous, xadd;
    Cmpxchg: NONE, Innocuous, cmpxchg;
    Cmpxchg8b: NONE, Innocuous, |l| cmpxchg_wide(l, W32);
    Cmpxchg16b: NONE, Innocuous, |l| cmpxchg_wide(l, W64);
    Xlatb:  NONE, Innocuous, xlat;
    Push:   NONE, Innocuous, push;
    Pop:    NONE, Innocuous, pop;
    Pusha:  NONE, Innocuous, |l| pusha(l, W16);
    Pushad: NONE, Innocuous, |l| pusha(l, W32);
    Popa:   NONE, Innocuous, |l| popa(l, W16);
    Popad:  NONE, Innocuous, |l| popa(l, W32);
    Enter:  NONE, Innocuous, enter;
    Leave:  NONE, Innocuous, leave;
    Bound:  NONE, Innocuous, bound;
    Cmovo:  NONE, Innocuous, |l| cmov(l, 0);
    Cmovno: NONE, Innocuous, |l| cmov(l, 1);
    Cmovb:  NONE, Innocuous, |l| cmov(l, 2);
    Cmovae: NONE, Innocuous, |l| cmov(l, 3);
    Cmove:  NONE, Innocuous, |l| cmov(l, 4);
    Cmovne: NONE, Innocuous, |l| cmov(l, 5);
    Cmovbe: NONE, Innocuous, |l| cmov(l, 6);
    Cmova:  NONE, Innocuous, |l| cmov(l, 7);
    Cmovs:  NONE, Innocuous, |l| cmov(l, 8);
    Cmovns: NONE, Innocuous, |l| cmov(l, 9);
    Cmovp:  NONE, Innocuous, |l| cmov(l, 10);
    Cmovnp: NONE, Innocuous, |l| cmov(l, 11);
    Cmovl:  NONE, Innocuous, |l| cmov(l, 12);
    Cmovge: NONE, Innocuous, |l| cmov(l, 13);
    Cmovle: NONE, Innocuous, |l| cmov(l, 14);
    Cmovg:  NONE, Innocuous, |l| cmov(l, 15);
    Nop:    NONE, Innocuous, nop;
    Pause:  NONE, Innocuous, nop;
    Prefetch:  NONE, Innocuous, nop;
    Prefetchw: NONE, Innocuous, nop;
    Prefetchwt1: NONE, Innocuous, nop;
    Prefetchit0: NONE, Innocuous, nop;
    Prefetchit1: NONE, Innocuous, nop;
    Reservednop: NONE, Innocuous, nop;
    // Hints in the NOP space 0F 18–0F 1F: a CPU without CET executes them as NOP.
    Rdsspd: NONE, Innocuous, nop;
    Rdsspq: NONE, Innocuous, nop;
    Endbr64: NONE, Innocuous, nop;
    Endbr32: NONE, Innocuous, nop;
    Cldemote: NONE, Innocuous, nop;
    Ud0: NONE, Innocuous, |_| Err(emu_core::fault::Fault::UD);
    Ud1: NONE, Innocuous, |_| Err(emu_core::fault::Fault::UD);
    Ud2: NONE, Innocuous, |_| Err(emu_core::fault::Fault::UD);
}

helpers! {
    CMPXCHG_WIDE = "cmpxchg_wide" compare_exchange_wide, CompareExchangeWide;
    ENTER = "enter" enter_frames;
}

fn nop(_: &mut Lift) -> Guest<()> {
    Ok(())
}

fn mov(l: &mut Lift) -> Guest<()> {
    let special = |n: u32| {
        l.i.op_kind(n) == OpKind::Register && {
            let r = l.i.op_register(n);
            r.is_segment_register() || r.is_cr() || r.is_dr() || r.is_tr()
        }
    };
    if special(0) || special(1) {
        return system::mov_special(l);
    }
    let w = l.width(0);
    // A register loaded from memory: one micro-op.
    if l.is_mem(1) {
        let (d, high) = gpr(l.i.op0_register());
        if !high {
            let m = l.mem(false);
            l.b.load(Op::Ld, w, d, m);
            return Ok(());
        }
    }
    let v = l.read_patched(1);
    l.write(0, v);
    Ok(())
}

fn extend(l: &mut Lift, load: Op, reg: Op) -> Guest<()> {
    let (w, from) = (l.width(0), l.width(1));
    let (d, _) = gpr(l.i.op0_register());
    if l.is_mem(1) {
        let m = l.mem(false);
        if load == Op::Lds {
            l.b.load(load, from, d, m);
            l.b.last().k = w as u8;
        } else if w == W16 {
            let t = l.b.temp();
            l.b.load(load, from, t, m);
            l.b.mov(W16, d, t);
        } else {
            l.b.load(load, from, d, m);
        }
    } else {
        let v = l.read_reg(1);
        l.b.op_k(reg, w, d, v, 0, from as u8);
    }
    Ok(())
}

fn lea(l: &mut Lift) -> Guest<()> {
    let w = l.width(0);
    let m = l.offset();
    let (d, _) = gpr(l.i.op0_register());
    if m.addr < w {
        // The address is cut to the address size first.
        let t = l.b.temp();
        l.b.load(Op::Lea, m.addr, t, m);
        l.b.op_k(Op::Zx, w, d, t, 0, m.addr as u8);
    } else {
        l.b.load(Op::Lea, w, d, Mem { addr: W64, ..m });
    }
    Ok(())
}

fn xchg(l: &mut Lift) -> Guest<()> {
    let w = l.width(0);
    // The register operand may be either one; memory, if any, is read first.
    let (m, r) = if l.is_mem(1) { (1, 0) } else { (0, 1) };
    let b = l.read_reg(r);
    let (a, place) = l.read_place(m);
    let t = l.b.temp();
    l.b.mov(W64, t, a);
    l.write_place(place, w, b);
    l.write(r, t);
    Ok(())
}

fn xadd(l: &mut Lift) -> Guest<()> {
    let w = l.width(0);
    let b = l.read_reg(1);
    let (a, place) = l.read_place(0);
    let (old, sum) = (l.b.temp(), l.b.temp());
    l.b.mov(W64, old, a);
    l.b.op(Op::Add, w, sum, a, b);
    if matches!(place, Place::Mem(_)) {
        l.write_place(place, w, sum);
        l.write(1, old);
    } else {
        l.write(1, old);
        l.write_place(place, w, sum);
    }
    Ok(())
}

fn cmpxchg(l: &mut Lift) -> Guest<()> {
    let w = l.width(0);
    let new = l.read_reg(1);
    let (old, place) = l.read_place(0);
    let (o, v) = (l.b.temp(), l.b.temp());
    l.b.op_k(Op::Zx, W64, o, old, 0, w as u8);
    l.b.op(Op::Sub, w, Reg::ZERO, Reg::RAX, o);
    // The accumulator is written (and at width 32 zero-extended) only where they differ, a
    // register destination only where they are equal.
    let acc = l.b.temp();
    l.b.mov(W64, acc, Reg::RAX);
    l.b.mov(w, acc, o);
    match place {
        Place::Reg(r) => {
            l.b.mov(W64, v, r);
            l.b.mov(w, v, new);
            l.b.op_k(Op::Cmov, W64, r, r, v, 4);
            if r == Reg::RAX {
                return Ok(());
            }
        }
        _ => {
            l.b.op_k(Op::Cmov, W64, v, o, new, 4);
            l.write_place(place, w, v);
        }
    }
    l.b.op_k(Op::Cmov, W64, Reg::RAX, Reg::RAX, acc, 5);
    Ok(())
}

fn cmpxchg_wide(l: &mut Lift, half: Width) -> Guest<()> {
    let m = l.mem_bytes(2 * half.bytes() as u32, true);
    let a = l.address(m);
    l.b.helper(&CMPXCHG_WIDE, half, m.stack.into(), Reg::ZERO, a, Reg::ZERO, 0);
    let to = l.b.next_offset();
    let w = l.rip_width();
    l.b.goto(w, to);
    Ok(())
}

/// CMPXCHG8B/16B at linear address `a`; `w` is half the operand, `k` whether it is in the stack
/// segment. Only ZF changes.
fn compare_exchange_wide(cpu: &mut Cpu, x: Args) -> Guest<()> {
    let (w, at) = (x.w, cpu.reg(x.a));
    if w == W64 && at & 15 != 0 {
        return Err(Fault::GP0);
    }
    cpu.check_alignment(at, 2 * w.bytes())?;
    cpu.probe(at, 2 * w.bytes(), Access::Write).map_err(|f| match f {
        Fault::GP0 => Cpu::address_fault(x.k != 0),
        f => f,
    })?;
    let high = cpu.wrap_linear(at.wrapping_add(w.bytes()));
    let (lo, hi) = (cpu.read(at, w)?, cpu.read(high, w)?);
    let equal = lo == w.zext(cpu.reg(Reg::RAX)) && hi == w.zext(cpu.reg(Reg::RDX));
    let (nlo, nhi) = if equal { (cpu.reg(Reg::RBX), cpu.reg(Reg::RCX)) } else { (lo, hi) };
    cpu.write(at, w, nlo)?;
    cpu.write(high, w, nhi)?;
    if !equal {
        cpu.write_reg(Reg::RAX, w, lo);
        cpu.write_reg(Reg::RDX, w, hi);
    }
    let zf = Flags::from_bits(if equal { ZF } else { 0 });
    cpu.flags = cpu.flags.update(zf, ZF);
    Ok(())
}

fn xlat(l: &mut Lift) -> Guest<()> {
    let addr = match l.i.op0_kind() {
        OpKind::Memory => l.i.memory_base().size(),
        _ => 8,
    };
    let addr = Width::from_bytes(addr).unwrap_or(W64);
    let t = l.b.temp();
    l.b.op_k(Op::Zx, W64, t, Reg::RAX, 0, W8 as u8);
    let m = Mem { index: t, addr, ..Mem::at(Reg::RBX, 0) };
    let s = l.segment();
    let m = l.in_segment(m, s, 1, false);
    l.b.load(Op::Ld, W8, Reg::RAX, m);
    Ok(())
}

/// Operand size of a PUSH or POP.
fn stack_operand(l: &Lift) -> Width {
    let n = l.i.stack_pointer_increment().unsigned_abs() as usize;
    Width::from_bytes(n).unwrap_or(W64)
}

fn push(l: &mut Lift) -> Guest<()> {
    let w = stack_operand(l);
    if l.i.op0_kind() == OpKind::Register && l.i.op0_register().is_segment_register() {
        return system::push_seg(l, w);
    }
    let v = match l.read(0) {
        Src::Imm(_) => Src::Imm(l.imm(0)),
        r => r,
    };
    l.push(w, v);
    Ok(())
}

fn pop(l: &mut Lift) -> Guest<()> {
    let w = stack_operand(l);
    if l.i.op0_kind() == OpKind::Register {
        if l.i.op0_register().is_segment_register() {
            return system::pop_seg(l, w);
        }
        let (d, _) = gpr(l.i.op0_register());
        if d == Reg::RSP {
            let t = l.top(w);
            l.move_sp(w.bytes() as i64);
            l.b.mov(w, d, t);
        } else {
            let m = l.stack(0, w.bytes() as u32, false);
            l.b.load(Op::Ld, w, d, m);
            l.move_sp(w.bytes() as i64);
        }
        return Ok(());
    }
    // POP to memory computes an RSP-based address after the increment (SDM Vol. 2, POP).
    let t = l.top(w);
    let mut m = l.offset();
    if m.base == Reg::RSP {
        m.disp = m.disp.wrapping_add(w.bytes() as i32);
    }
    let s = l.segment();
    let m = l.in_segment(m, s, w.bytes() as u32, true);
    l.b.store(Op::St, w, m, t);
    l.move_sp(w.bytes() as i64);
    Ok(())
}

fn pusha(l: &mut Lift, w: Width) -> Guest<()> {
    let n = w.bytes() as i32;
    // Checks in the order of the pushes, then stores that cannot fault.
    let base = l.stack(-8 * n, 8 * n as u32, true);
    let a = l.address(base);
    let frame = Mem { addr: W32, stack: true, ..Mem::at(a, 0) };
    let place = |i: u8| Mem { disp: (7 - i32::from(i)) * n, ..frame };
    for i in 0..8 {
        l.b.store(Op::Chkw, w, place(i), 0);
        l.b.last().k = n as u8;
    }
    for i in 0..8 {
        let m = place(i);
        l.b.store(Op::St, w, m, Reg::gpr(i));
    }
    l.move_sp(-8 * i64::from(n));
    Ok(())
}

fn popa(l: &mut Lift, w: Width) -> Guest<()> {
    let n = w.bytes() as i32;
    let base = l.stack(0, 8 * n as u32, false);
    let a = l.address(base);
    let mut got = [Reg::ZERO; 8];
    // RSP's slot is skipped; six temporaries hold the others but one, which is loaded last.
    let order = [7u8, 6, 5, 3, 2, 1];
    for i in order {
        let t = l.b.temp();
        got[i as usize] = t;
        let m = Mem { addr: W32, stack: true, ..Mem::at(a, (7 - i32::from(i)) * n) };
        l.b.load(Op::Ldz, w, t, m);
    }
    let m = Mem { addr: W32, stack: true, ..Mem::at(a, 7 * n) };
    l.b.load(Op::Ld, w, Reg::RAX, m);
    for i in order {
        l.b.mov(w, Reg::gpr(i), got[i as usize]);
    }
    l.move_sp(8 * i64::from(n));
    Ok(())
}

fn enter(l: &mut Lift) -> Guest<()> {
    let w = match l.i.code() {
        Code::Enterw_imm16_imm8 => W16,
        Code::Enterd_imm16_imm8 => W32,
        _ => W64,
    };
    let (size, level) = (u64::from(l.i.immediate16()), u64::from(l.i.immediate8_2nd() & 31));
    let sp = l.stack_width() as u8;
    l.b.helper(&ENTER, w, sp, Reg::ZERO, Reg::ZERO, Reg::ZERO, size | level << 16);
    let to = l.b.next_offset();
    let w = l.rip_width();
    l.b.goto(w, to);
    Ok(())
}

/// ENTER: `k` is the stack pointer's width, `imm` the frame size and, from bit 16, the nesting
/// level.
fn enter_frames(cpu: &mut Cpu, x: Args) -> Guest<()> {
    let (w, sw) = (x.w, Width::from_index(x.k));
    let (size, level) = (x.imm & 0xffff, x.imm >> 16);
    let n = w.bytes();
    let (rsp, rbp) = (cpu.reg(Reg::RSP), cpu.reg(Reg::RBP));
    let at = |cpu: &mut Cpu, off: u64, write: bool| {
        crate::sys::segment::linear(cpu, Seg::Ss, sw.zext(off), n as u32, write)
    };
    // Pushed one by one: a later word may be read where an earlier one went, and what was written
    // before a fault stays. Registers change at the end.
    let frame = rsp.wrapping_sub(n);
    let mut top = rsp;
    for i in 0..=level {
        let word = match i {
            0 => rbp,
            _ if i == level => frame,
            _ => {
                let a = at(cpu, rbp.wrapping_sub(n * i), false)?;
                cpu.read(a, w)?
            }
        };
        top = top.wrapping_sub(n);
        let a = at(cpu, top, true)?;
        cpu.write(a, w, word)?;
    }
    let end = top.wrapping_sub(size);
    // A write at the new top of the stack must be possible too (SDM Vol. 2, ENTER).
    let top = at(cpu, end, true)?;
    cpu.probe(top, n, Access::Write)?;
    cpu.write_reg(Reg::RBP, w, frame);
    cpu.write_reg(Reg::RSP, sw, end);
    Ok(())
}

fn leave(l: &mut Lift) -> Guest<()> {
    let w = match l.i.code() {
        Code::Leavew => W16,
        Code::Leaved => W32,
        _ => W64,
    };
    let sw = l.stack_width();
    let m = Mem { addr: sw, ..Mem::at(Reg::RBP, 0) };
    let m = l.in_segment(m, Seg::Ss, w.bytes() as u32, false);
    let t = l.b.temp();
    l.b.load(Op::Ldz, w, t, m);
    l.b.op_nf(Op::Add, sw, Reg::RSP, Reg::RBP, w.bytes() as i64);
    l.b.mov(w, Reg::RBP, t);
    Ok(())
}

fn bound(l: &mut Lift) -> Guest<()> {
    let w = l.width(0);
    let m = l.mem_bytes(2 * w.bytes() as u32, false);
    let (v, _) = gpr(l.i.op0_register());
    let (lo, hi) = (l.b.temp(), l.b.temp());
    l.b.load(Op::Ldz, w, lo, m);
    let up = Mem { disp: m.disp.wrapping_add(w.bytes() as i32), ..m };
    l.b.load(Op::Ldz, w, hi, up);
    l.b.helper(&system::BOUND, w, 0, lo, v, hi, 0);
    Ok(())
}

fn cmov(l: &mut Lift, cc: u8) -> Guest<()> {
    let w = l.width(0);
    let v = l.read(1);
    let (d, _) = gpr(l.i.op0_register());
    l.b.op_k(Op::Cmov, w, d, d, v, cc);
    Ok(())
}
