//! MMX (SDM Vol. 1, 5.4 and chapter 9). The rows whose mnemonic SSE2 shares serve both forms; XMM
//! forms go on in [`super::sse`].
//!
//! MM0–MM7 are the significands of the x87 registers R0–R7. Helpers bring them into vector
//! temporaries and back, so that the operations are those of XMM on 8 bytes. Each MMX instruction
//! but EMMS sets TOP to 0 and all tags to valid, and a write sets the exponent to ones
//! (9.5.1–9.5.2); that happens after everything that may fault. A pending x87 exception comes
//! first of all.

use super::sse::{self, immediate, is_register, source, xmm};
use crate::lift::Lift;
use crate::operand::{gpr, reg_width};
use crate::x87::{self, check_pending};
use crate::{helpers, rows};
use emu_core::build::VReg;
use emu_core::cpu::{Cpu, Reg, St};
use emu_core::fault::Guest;
use emu_core::mem::tlb::Access;
use emu_core::uop::{Args, Mem, Op};
use emu_core::vec::VecOp as V;
use emu_core::width::Width::{self, W8, W16, W32, W64};
use iced_x86::{OpKind, Register};

rows! {
    Emms:      MMX, Innocuous, emms;
    Movd:      MMX, Innocuous, |l| mov(l, W32);
    Movq:      MMX, Innocuous, |l| mov(l, W64);
    Packsswb:  MMX, Innocuous, |l| both(l, V::Packsswb, V::Packsswb64);
    Packssdw:  MMX, Innocuous, |l| both(l, V::Packssdw, V::Packssdw64);
    Packuswb:  MMX, Innocuous, |l| both(l, V::Packuswb, V::Packuswb64);
    Paddb:     MMX, Innocuous, |l| both(l, V::Paddb, V::Paddb);
    Paddw:     MMX, Innocuous, |l| both(l, V::Paddw, V::Paddw);
    Paddd:     MMX, Innocuous, |l| both(l, V::Paddd, V::Paddd);
    Paddsb:    MMX, Innocuous, |l| both(l, V::Paddsb, V::Paddsb);
    Paddsw:    MMX, Innocuous, |l| both(l, V::Paddsw, V::Paddsw);
    Paddusb:   MMX, Innocuous, |l| both(l, V::Paddusb, V::Paddusb);
    Paddusw:   MMX, Innocuous, |l| both(l, V::Paddusw, V::Paddusw);
    Psubb:     MMX, Innocuous, |l| both(l, V::Psubb, V::Psubb);
    Psubw:     MMX, Innocuous, |l| both(l, V::Psubw, V::Psubw);
    Psubd:     MMX, Innocuous, |l| both(l, V::Psubd, V::Psubd);
    Psubsb:    MMX, Innocuous, |l| both(l, V::Psubsb, V::Psubsb);
    Psubsw:    MMX, Innocuous, |l| both(l, V::Psubsw, V::Psubsw);
    Psubusb:   MMX, Innocuous, |l| both(l, V::Psubusb, V::Psubusb);
    Psubusw:   MMX, Innocuous, |l| both(l, V::Psubusw, V::Psubusw);
    Pmullw:    MMX, Innocuous, |l| both(l, V::Pmullw, V::Pmullw);
    Pmulhw:    MMX, Innocuous, |l| both(l, V::Pmulhw, V::Pmulhw);
    Pmaddwd:   MMX, Innocuous, |l| both(l, V::Pmaddwd, V::Pmaddwd);
    Pand:      MMX, Innocuous, |l| both(l, V::Pand, V::Pand);
    Pandn:     MMX, Innocuous, |l| both(l, V::Pandn, V::Pandn);
    Por:       MMX, Innocuous, |l| both(l, V::Por, V::Por);
    Pxor:      MMX, Innocuous, |l| both(l, V::Pxor, V::Pxor);
    Pcmpeqb:   MMX, Innocuous, |l| both(l, V::Pcmpeqb, V::Pcmpeqb);
    Pcmpeqw:   MMX, Innocuous, |l| both(l, V::Pcmpeqw, V::Pcmpeqw);
    Pcmpeqd:   MMX, Innocuous, |l| both(l, V::Pcmpeqd, V::Pcmpeqd);
    Pcmpgtb:   MMX, Innocuous, |l| both(l, V::Pcmpgtb, V::Pcmpgtb);
    Pcmpgtw:   MMX, Innocuous, |l| both(l, V::Pcmpgtw, V::Pcmpgtw);
    Pcmpgtd:   MMX, Innocuous, |l| both(l, V::Pcmpgtd, V::Pcmpgtd);
    Psllw:     MMX, Innocuous, |l| shift(l, V::Psllw, V::Psllwi);
    Pslld:     MMX, Innocuous, |l| shift(l, V::Pslld, V::Pslldi);
    Psllq:     MMX, Innocuous, |l| shift(l, V::Psllq, V::Psllqi);
    Psrlw:     MMX, Innocuous, |l| shift(l, V::Psrlw, V::Psrlwi);
    Psrld:     MMX, Innocuous, |l| shift(l, V::Psrld, V::Psrldi);
    Psrlq:     MMX, Innocuous, |l| shift(l, V::Psrlq, V::Psrlqi);
    Psraw:     MMX, Innocuous, |l| shift(l, V::Psraw, V::Psrawi);
    Psrad:     MMX, Innocuous, |l| shift(l, V::Psrad, V::Psradi);
    Punpcklbw: MMX, Innocuous, |l| both(l, V::Punpcklbw, V::Punpcklbw);
    Punpcklwd: MMX, Innocuous, |l| both(l, V::Punpcklwd, V::Punpcklwd);
    Punpckldq: MMX, Innocuous, |l| both(l, V::Punpckldq, V::Punpckldq);
    Punpckhbw: MMX, Innocuous, |l| both(l, V::Punpckhbw, V::Punpckhbw64);
    Punpckhwd: MMX, Innocuous, |l| both(l, V::Punpckhwd, V::Punpckhwd64);
    Punpckhdq: MMX, Innocuous, |l| both(l, V::Punpckhdq, V::Punpckhdq64);
}

helpers! {
    READ = "mmx_read" read_register;
    WRITE = "mmx_write" write_register;
    ENTER = "mmx_enter" enter_mmx;
    EMMS = "emms" empty;
    MASKMOV = "maskmov" masked_store;
}

// ---- the registers ------------------------------------------------------------------------------

fn number(r: Register) -> u8 {
    r.number() as u8 & 7
}

/// A vector temporary with the value of MMX register `r`; pending x87 exceptions are raised.
pub fn read(l: &mut Lift, r: Register) -> VReg {
    let t = l.b.vtemp();
    l.b.helper(&READ, W64, number(r), Reg::ZERO, Reg::ZERO, Reg::ZERO, t.0.into());
    t
}

/// Writes the low word of `v` to MMX register `r`. Nothing after it may fault.
pub fn write(l: &mut Lift, r: Register, v: VReg) {
    l.b.helper(&WRITE, W64, number(r), Reg::ZERO, Reg::ZERO, Reg::ZERO, v.0.into());
}

/// Raises a pending x87 exception: for instructions that do not begin by reading a register.
pub fn check(l: &mut Lift) {
    l.b.helper(&x87::CHECK, W64, 0, Reg::ZERO, Reg::ZERO, Reg::ZERO, 0);
}

/// What an MMX instruction without a result in an MMX register does to the x87 state.
pub fn enter(l: &mut Lift) {
    l.b.helper(&ENTER, W64, 0, Reg::ZERO, Reg::ZERO, Reg::ZERO, 0);
}

fn vector(cpu: &mut Cpu, n: u64) -> &mut [u64; 4] {
    let n = n as usize % cpu.v.len();
    &mut cpu.v[n]
}

/// `v[imm]` = MM`k`, its upper words zero.
fn read_register(cpu: &mut Cpu, x: Args) -> Guest<()> {
    check_pending(cpu)?;
    let mm = cpu.x87.st[usize::from(x.k & 7)].mant;
    *vector(cpu, x.imm) = [mm, 0, 0, 0];
    Ok(())
}

/// MM`k` = the low word of `v[imm]`.
fn write_register(cpu: &mut Cpu, x: Args) -> Guest<()> {
    enter_mmx(cpu, x)?;
    let mant = vector(cpu, x.imm)[0];
    cpu.x87.st[usize::from(x.k & 7)] = St { mant, se: 0xffff };
    Ok(())
}

/// TOP = 0, all tags valid.
fn enter_mmx(cpu: &mut Cpu, _: Args) -> Guest<()> {
    check_pending(cpu)?;
    cpu.x87.sw &= !(7 << 11);
    cpu.x87.full = 0xff;
    Ok(())
}

/// EMMS: all tags empty, TOP 0 (SDM Vol. 3, table 12-1).
fn empty(cpu: &mut Cpu, _: Args) -> Guest<()> {
    check_pending(cpu)?;
    cpu.x87.sw &= !(7 << 11);
    cpu.x87.full = 0;
    Ok(())
}

fn emms(l: &mut Lift) -> Guest<()> {
    l.b.helper(&EMMS, W64, 0, Reg::ZERO, Reg::ZERO, Reg::ZERO, 0);
    Ok(())
}

// ---- operations ---------------------------------------------------------------------------------

/// `op0 = vop(op0, op1, imm8)` on XMM or, with its own meaning there, on MMX registers.
pub fn both(l: &mut Lift, vop: V, mmx: V) -> Guest<()> {
    if l.i.op0_register().is_mm() {
        let imm = immediate(l);
        operate(l, mmx, imm)
    } else {
        sse::enabled(l)?;
        sse::op(l, vop)
    }
}

fn operate(l: &mut Lift, vop: V, imm: u8) -> Guest<()> {
    let d = l.i.op0_register();
    let a = read(l, d);
    let b = if is_register(l, 1) || l.is_mem(1) { source(l, 1) } else { a };
    l.b.v(vop, 8, a, a, b, a, imm);
    write(l, d, a);
    Ok(())
}

/// A shift, by the low word of the second operand or by an immediate.
pub fn shift(l: &mut Lift, by_word: V, by_imm: V) -> Guest<()> {
    let vop = if l.is_mem(1) || is_register(l, 1) { by_word } else { by_imm };
    both(l, vop, vop)
}

/// MOVD, MOVQ: `w` bits between an XMM or MMX register and any other place, zero-extended.
fn mov(l: &mut Lift, w: Width) -> Guest<()> {
    let reg = |n| l.i.op_register(n);
    // With REX.W MOVD is MOVQ.
    let w = [reg(0), reg(1)].iter().find(|r| r.is_gpr()).map_or(w, |r| reg_width(*r));
    match (reg(0), reg(1)) {
        (d, s) if d.is_mm() => {
            let v = if is_register(l, 1) && !s.is_mm() {
                let t = l.b.vtemp();
                l.b.vset(w, t, t, 0, gpr(s).0, true);
                t
            } else {
                check(l);
                source(l, 1)
            };
            write(l, d, v);
        }
        (d, s) if s.is_mm() => {
            let v = read(l, s);
            if l.is_mem(0) {
                return store(l, w, v);
            }
            enter(l);
            l.b.vget(w, gpr(d).0, v, 0);
        }
        (d, s) => {
            sse::enabled(l)?;
            if l.is_mem(0) {
                let m = l.mem(true);
                l.b.vstore(w.bytes() as u8, false, m, xmm(l, 1));
            } else if l.is_mem(1) {
                sse::load_xmm(l);
            } else if d.is_xmm() && s.is_xmm() {
                l.b.v(V::Movq, 16, xmm(l, 0), xmm(l, 0), xmm(l, 1), xmm(l, 0), 0);
            } else if d.is_xmm() {
                let t = l.b.vtemp();
                l.b.vset(w, t, t, 0, gpr(s).0, true);
                l.b.v(V::Mov, 16, xmm(l, 0), xmm(l, 0), t, xmm(l, 0), 0);
            } else {
                l.b.vget(w, gpr(d).0, xmm(l, 1), 0);
            }
        }
    }
    Ok(())
}

/// Stores the low `w` bits of `v`, the value of an MMX register: checked first, so that the x87
/// state changes only where the store succeeds.
pub fn store(l: &mut Lift, w: Width, v: VReg) -> Guest<()> {
    let t = l.b.temp();
    l.b.vget(w, t, v, 0);
    let m = l.mem(true);
    l.b.store(Op::Chkw, w, m, 0);
    l.b.last().k = w.bytes() as u8;
    enter(l);
    l.b.store(Op::St, w, m, t);
    Ok(())
}

/// MASKMOVQ, MASKMOVDQU: the bytes of op1 whose bit 7 in op2 is set, to DS:rDI.
pub fn maskmov(l: &mut Lift) -> Guest<()> {
    let mmx = l.i.op1_register().is_mm();
    let (v, mask) = (source(l, 1), source(l, 2));
    let bytes = if mmx { 8 } else { 16 };
    let addr = match l.i.op0_kind() {
        OpKind::MemorySegDI => W16,
        OpKind::MemorySegEDI => W32,
        _ => W64,
    };
    let m = Mem { addr, ..Mem::at(Reg::RDI, 0) };
    let segment = l.segment();
    let m = l.in_segment(m, segment, bytes, true);
    let at = l.address(m);
    let imm = u64::from(v.0) | u64::from(mask.0) << 8;
    l.b.helper(&MASKMOV, W64, bytes as u8, Reg::ZERO, at, Reg::ZERO, imm);
    let (to, w) = (l.b.next_offset(), l.rip_width());
    l.b.goto(w, to);
    Ok(())
}

/// Stores to linear address `a` those of the first `k` bytes of `v[imm & 0xff]` that
/// `v[imm >> 8]` chooses; nothing where it chooses none.
fn masked_store(cpu: &mut Cpu, x: Args) -> Guest<()> {
    let (v, mask) = (*vector(cpu, x.imm & 0xff), *vector(cpu, x.imm >> 8));
    let byte = |v: [u64; 4], i: u64| (v[(i / 8 & 3) as usize] >> (8 * (i % 8))) as u8;
    let chosen: Vec<u64> = (0..u64::from(x.k)).filter(|i| byte(mask, *i) & 0x80 != 0).collect();
    let base = cpu.reg(x.a);
    let at = |cpu: &Cpu, i: u64| cpu.wrap_linear(base.wrapping_add(i));
    if x.k == 8 {
        enter_mmx(cpu, x)?;
    }
    // All of the operand is checked before anything is written, also where the mask is 0: the
    // manual leaves that to the implementation.
    cpu.check_alignment(at(cpu, 0), 8)?;
    cpu.probe(at(cpu, 0), x.k.into(), Access::Write)?;
    for i in chosen {
        let at = at(cpu, i);
        cpu.write(at, W8, byte(v, i).into())?;
    }
    Ok(())
}
