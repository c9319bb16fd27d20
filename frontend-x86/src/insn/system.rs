//! System instructions (SDM Vol. 1, 5.1.8, 5.20): far transfers, interrupts, segment, control
//! and debug registers, MSRs, ports, state saving. The rows only fetch operands; the behaviour is
//! in [`crate::sys`], behind its helpers.
//!
//! A helper that assigns RIP is followed by `exit`; one after which the mode or the interrupt
//! window may be another by `leave`; one that writes memory ends its block, so that a store into
//! code is seen; after the others the block goes on.

use crate::lift::Lift;
use crate::operand::{gpr, reg_width, seg};
use crate::rows;
use crate::sys::helpers as h;
pub use crate::sys::helpers::BOUND;
use crate::sys::interrupt::Software;
use emu_core::cpu::{Reg, Seg, mode};
use emu_core::fault::{Fault, Guest};
use emu_core::uop::{HelperDef, Mem, Op};
use emu_core::width::Width::{self, W16, W32, W64};
use iced_x86::{Code, OpKind, Register};

rows! {
    // ---- far transfers and interrupts ---------------------------------------------------------------
    Retf:    NONE, Control, retf;
    Iret:    NONE, Control, |l| jump(l, &h::IRET, W16);
    Iretd:   NONE, Control, |l| jump(l, &h::IRET, W32);
    Iretq:   NONE, Control, |l| jump(l, &h::IRET, W64);
    Int:     NONE, Control, |l| int(l, l.i.immediate8(), Software::Int);
    Int3:    NONE, Control, |l| int(l, 3, Software::Int3);
    Into:    NONE, Control, |l| int(l, 4, Software::Into);
    Int1:    NONE, Control, |l| int(l, 1, Software::Int1);
    Syscall: NONE, Control, |l| jump(l, &h::SYSCALL, W64);
    Sysret:  NONE, Control, |l| jump(l, &h::SYSRET, W32);
    Sysretq: NONE, Control, |l| jump(l, &h::SYSRET, W64);
    Sysenter: NONE, Control, |l| jump(l, &h::SYSENTER, W64);
    Sysexit: NONE, Control, |l| jump(l, &h::SYSEXIT, W32);
    Sysexitq: NONE, Control, |l| jump(l, &h::SYSEXIT, W64);
    Hlt:     PRIV, Control, |l| jump(l, &h::HLT, W64);
    Monitor: NONE, Control, monitor;
    Mwait:   NONE, Control, mwait;
    // ---- flags ----------------------------------------------------------------------------------------
    Cli:    NONE, Control, |l| plain(l, &h::CLI, 0);
    Sti:    NONE, Control, sti;
    Cld:    NONE, Innocuous, |l| plain(l, &h::SET_DF, 0);
    Std:    NONE, Innocuous, |l| plain(l, &h::SET_DF, 1);
    Stac:   NONE, Control, |l| plain(l, &h::SET_AC, 1);
    Clac:   NONE, Control, |l| plain(l, &h::SET_AC, 0);
    Pushf:  NONE, Behaviour, |l| pushf(l, W16);
    Pushfd: NONE, Behaviour, |l| pushf(l, W32);
    Pushfq: NONE, Behaviour, |l| pushf(l, W64);
    Popf:   NONE, Control, |l| popf(l, W16);
    Popfd:  NONE, Control, |l| popf(l, W32);
    Popfq:  NONE, Control, |l| popf(l, W64);
    // ---- segments and descriptor tables ---------------------------------------------------------------
    Lds:  NONE, Control, |l| load_far(l, Seg::Ds);
    Les:  NONE, Control, |l| load_far(l, Seg::Es);
    Lfs:  NONE, Control, |l| load_far(l, Seg::Fs);
    Lgs:  NONE, Control, |l| load_far(l, Seg::Gs);
    Lss:  NONE, Control, |l| load_far(l, Seg::Ss);
    Lgdt: PRIV, Control, |l| table(l, &h::LOAD_TABLE, 0, false);
    Lidt: PRIV, Control, |l| table(l, &h::LOAD_TABLE, 1, false);
    Sgdt: NONE, Behaviour, |l| table(l, &h::STORE_TABLE, 0, true);
    Sidt: NONE, Behaviour, |l| table(l, &h::STORE_TABLE, 1, true);
    Lldt: PROT | PRIV, Control, |l| from_operand(l, &h::LLDT);
    Ltr:  PROT | PRIV, Control, |l| from_operand(l, &h::LTR);
    Sldt: PROT, Behaviour, |l| to_operand(l, &h::STORE_SYSTEM_SELECTOR, 0);
    Str:  PROT, Behaviour, |l| to_operand(l, &h::STORE_SYSTEM_SELECTOR, 1);
    Lar:  PROT, Behaviour, |l| question(l, &h::LAR);
    Lsl:  PROT, Behaviour, |l| question(l, &h::LSL);
    Verr: PROT, Behaviour, |l| verify(l, 0);
    Verw: PROT, Behaviour, |l| verify(l, 1);
    Arpl: PROT, Behaviour, arpl;
    Swapgs:   NONE, Control, |l| plain(l, &h::SWAPGS, 0);
    Rdfsbase: NONE, Behaviour, |l| read_base(l, Seg::Fs);
    Rdgsbase: NONE, Behaviour, |l| read_base(l, Seg::Gs);
    Wrfsbase: NONE, Control, |l| write_base(l, Seg::Fs);
    Wrgsbase: NONE, Control, |l| write_base(l, Seg::Gs);
    // ---- control registers, TLB, caches ---------------------------------------------------------------
    Clts: PRIV, Control, |l| leave(l, &h::CLTS, Reg::ZERO, 0);
    Lmsw: PRIV, Control, |l| from_operand(l, &h::LMSW);
    Smsw: NONE, Behaviour, |l| to_operand(l, &h::SMSW, 0);
    Invlpg:  PRIV, Control, invlpg;
    Invpcid: PRIV, Control, invpcid;
    Invd:    PRIV, Control, |_| Ok(());
    Wbinvd:  PRIV, Control, |_| Ok(());
    Rdpkru:  NONE, Behaviour, |l| plain(l, &h::RDPKRU, 0);
    Wrpkru:  NONE, Control, |l| plain(l, &h::WRPKRU, 0);
    Xgetbv:  NONE, Behaviour, |l| plain(l, &h::XGETBV, 0);
    Xsetbv:  NONE, Control, |l| leave(l, &h::XSETBV, Reg::ZERO, 0);
    // ---- MSRs, time, identification -------------------------------------------------------------------
    Rdmsr:  PRIV, Behaviour, |l| plain(l, &h::RDMSR, 0);
    Wrmsr:  PRIV, Control, |l| leave(l, &h::WRMSR, Reg::ZERO, 0);
    Rdtsc:  NONE, Behaviour, |l| timed(l, &h::RDTSC);
    Rdtscp: NONE, Behaviour, |l| timed(l, &h::RDTSCP);
    Rdpmc:  NONE, Behaviour, |l| plain(l, &h::RDPMC, 0);
    Rdpid:  NONE, Behaviour, rdpid;
    Cpuid:  NONE, Behaviour, |l| plain(l, &h::CPUID, 0);
    // ---- ports ----------------------------------------------------------------------------------------
    In:  NONE, Control, port_in;
    Out: NONE, Control, port_out;
    // ---- state ----------------------------------------------------------------------------------------
    Fxsave:    NONE, Innocuous, |l| save(l, &h::FXSAVE, W32, 512);
    Fxsave64:  NONE, Innocuous, |l| save(l, &h::FXSAVE, W64, 512);
    Fxrstor:   NONE, Innocuous, |l| restore(l, &h::FXRSTOR, W32, 512);
    Fxrstor64: NONE, Innocuous, |l| restore(l, &h::FXRSTOR, W64, 512);
    Xsave:     NONE, Innocuous, |l| save(l, &h::XSAVE, W32, 576);
    Xsave64:   NONE, Innocuous, |l| save(l, &h::XSAVE, W64, 576);
    Xsaveopt:   NONE, Innocuous, |l| save(l, &h::XSAVE, W32, 576);
    Xsaveopt64: NONE, Innocuous, |l| save(l, &h::XSAVE, W64, 576);
    Xsavec:    NONE, Innocuous, |l| save(l, &h::XSAVEC, W32, 576);
    Xsavec64:  NONE, Innocuous, |l| save(l, &h::XSAVEC, W64, 576);
    Xrstor:    NONE, Innocuous, |l| restore(l, &h::XRSTOR, W32, 576);
    Xrstor64:  NONE, Innocuous, |l| restore(l, &h::XRSTOR, W64, 576);
}

const Z: Reg = Reg::ZERO;

/// A helper without operands but `imm`; the block goes on.
fn plain(l: &mut Lift, def: &'static HelperDef, imm: u64) -> Guest<()> {
    l.b.helper(def, W64, 0, Z, Z, Z, imm);
    Ok(())
}

/// The instruction after STI runs before any interrupt: it is in the same block, and ends it,
/// unless it is lifted alone.
fn sti(l: &mut Lift) -> Guest<()> {
    match l.mode & mode::SINGLE {
        0 => plain(l, &h::STI, 1),
        _ => leave(l, &h::STI, Reg::ZERO, 0),
    }
}

fn rdpid(l: &mut Lift) -> Guest<()> {
    let d = gpr(l.i.op0_register()).0;
    l.b.helper(&h::RDPID, W64, 0, d, Z, Z, 0);
    Ok(())
}

/// A helper on register `a` that may change the mode.
fn leave(l: &mut Lift, def: &'static HelperDef, a: Reg, imm: u64) -> Guest<()> {
    l.b.helper(def, W64, 0, Z, a, Z, imm);
    l.leave();
    Ok(())
}

/// A helper that assigns RIP, given the next instruction's in `a`.
fn jump(l: &mut Lift, def: &'static HelperDef, w: Width) -> Guest<()> {
    let next = l.next_rip();
    l.b.helper(def, w, 0, Z, next, Z, 0);
    l.b.exit();
    Ok(())
}

/// MONITOR and MWAIT are #UD, not #GP, outside CPL 0.
fn need_cpl0(l: &Lift) -> Guest<()> {
    let above = l.mode & (mode::USER | mode::CPL12 | mode::VM86) != 0;
    if above { Err(Fault::UD) } else { Ok(()) }
}

fn monitor(l: &mut Lift) -> Guest<()> {
    need_cpl0(l)?;
    let s = match l.i.segment_prefix() {
        Register::None => Seg::Ds,
        prefix => seg(prefix),
    };
    let addr = reg_width(l.i.op0_register());
    let m = l.in_segment(Mem { addr, ..Mem::at(Reg::RAX, 0) }, s, 1, false);
    let at = l.address(m);
    l.b.helper(&h::MONITOR, W64, 0, Z, at, Z, 0);
    Ok(())
}

fn mwait(l: &mut Lift) -> Guest<()> {
    need_cpl0(l)?;
    jump(l, &h::MWAIT, W64)
}

/// A helper that reads the time: its block ends, so that the next reading is a later one under
/// instruction-count time too.
fn timed(l: &mut Lift, def: &'static HelperDef) -> Guest<()> {
    plain(l, def, 0)?;
    end(l)
}

/// Ends the block after a helper that accessed memory or a device.
fn end(l: &mut Lift) -> Guest<()> {
    l.end_block();
    Ok(())
}

fn int(l: &mut Lift, vector: u8, kind: Software) -> Guest<()> {
    let next = l.next_rip();
    l.b.helper(&h::INT, W64, kind as u8, Z, next, Z, vector.into());
    l.b.exit();
    Ok(())
}

/// Loads a far pointer from memory: offset, selector, and the offset's width.
fn far_pointer(l: &mut Lift) -> (Reg, Reg, Width) {
    let bytes = l.i.memory_size().size();
    let w = Width::from_bytes(bytes.saturating_sub(2)).unwrap_or(W64);
    let m = l.mem_bytes(bytes as u32, false);
    let at = l.address(m);
    let part = |disp| Mem { stack: m.stack, ..Mem::at(at, disp) };
    let (offset, selector) = (l.b.temp(), l.b.temp());
    l.b.load(Op::Ldz, w, offset, part(0));
    l.b.load(Op::Ldz, W16, selector, part(w.bytes() as i32));
    (offset, selector, w)
}

/// Far JMP, or CALL if `call`.
pub fn far_transfer(l: &mut Lift, call: bool) -> Guest<()> {
    let pointer = match l.i.op0_kind() {
        OpKind::FarBranch16 => Some((u64::from(l.i.far_branch16()), W16)),
        OpKind::FarBranch32 => Some((u64::from(l.i.far_branch32()), W32)),
        _ => None,
    };
    let (offset, selector, w) = match pointer {
        Some((to, w)) => {
            let selector = i64::from(l.i.far_branch_selector());
            (l.constant(to as i64), l.constant(selector), w)
        }
        None => far_pointer(l),
    };
    let next = l.next_rip();
    let def = if call { &h::FAR_CALL } else { &h::FAR_JMP };
    l.b.helper(def, w, 0, next, selector, offset, 0);
    l.b.exit();
    Ok(())
}

fn retf(l: &mut Lift) -> Guest<()> {
    use Code::{Retfd, Retfd_imm16, Retfw, Retfw_imm16};
    let w = match l.i.code() {
        Retfw | Retfw_imm16 => W16,
        Retfd | Retfd_imm16 => W32,
        _ => W64,
    };
    let bytes = if l.i.op_count() > 0 { l.i.immediate16() } else { 0 };
    l.b.helper(&h::FAR_RET, w, 0, Z, Z, Z, bytes.into());
    l.b.exit();
    Ok(())
}

fn pushf(l: &mut Lift, w: Width) -> Guest<()> {
    let t = l.b.temp();
    l.b.helper(&h::PUSHF, w, 0, t, Z, Z, 0);
    l.push(w, t);
    Ok(())
}

fn popf(l: &mut Lift, w: Width) -> Guest<()> {
    let t = l.top(w);
    l.b.helper(&h::POPF, w, 0, Z, t, Z, 0);
    l.move_sp(w.bytes() as i64);
    l.leave();
    Ok(())
}

/// MOV from or to a segment, control or debug register.
pub fn mov_special(l: &mut Lift) -> Guest<()> {
    let (to, from) = (l.i.op0_register(), l.i.op1_register());
    if to.is_segment_register() {
        let v = l.read_reg(1);
        return leave(l, &h::MOV_SEG, v, seg(to) as u64);
    }
    if from.is_segment_register() {
        let t = read_segment(l, seg(from));
        l.write(0, t);
        return Ok(());
    }
    if to.is_cr() || to.is_dr() {
        let def = if to.is_cr() { &h::MOV_TO_CR } else { &h::MOV_TO_DR };
        return leave(l, def, gpr(from).0, to.number() as u64);
    }
    if from.is_cr() || from.is_dr() {
        let def = if from.is_cr() { &h::MOV_FROM_CR } else { &h::MOV_FROM_DR };
        l.b.helper(def, W64, 0, gpr(to).0, Z, Z, from.number() as u64);
        return Ok(());
    }
    Err(Fault::UD)
}

/// Selector of `s` in a temporary.
fn read_segment(l: &mut Lift, s: Seg) -> Reg {
    let t = l.b.temp();
    l.b.helper(&h::READ_SEG, W64, 0, t, Z, Z, s as u64);
    t
}

/// PUSH of a segment register at operand width `w`.
pub fn push_seg(l: &mut Lift, w: Width) -> Guest<()> {
    let t = read_segment(l, seg(l.i.op0_register()));
    l.push(w, t);
    Ok(())
}

/// POP of a segment register at operand width `w`.
pub fn pop_seg(l: &mut Lift, w: Width) -> Guest<()> {
    let s = seg(l.i.op0_register());
    let t = l.top(w);
    l.b.helper(&h::MOV_SEG, w, 0, Z, t, Z, s as u64);
    l.move_sp(w.bytes() as i64);
    l.leave();
    Ok(())
}

fn load_far(l: &mut Lift, s: Seg) -> Guest<()> {
    let (offset, selector, w) = far_pointer(l);
    l.b.helper(&h::LOAD_SEG, W64, 0, Z, selector, Z, s as u64);
    l.b.mov(w, gpr(l.i.op0_register()).0, offset);
    l.leave();
    Ok(())
}

/// LGDT, LIDT, SGDT, SIDT.
fn table(l: &mut Lift, def: &'static HelperDef, which: u64, store: bool) -> Guest<()> {
    let w = match l.i.code() {
        Code::Lgdt_m1632_16 | Code::Lidt_m1632_16 => W16,
        _ => W32,
    };
    let at = l.mem_address(if l.code64() { 10 } else { 6 }, store);
    l.b.helper(def, w, 0, Z, at, Z, which);
    end(l)
}

/// LLDT, LTR, LMSW.
fn from_operand(l: &mut Lift, def: &'static HelperDef) -> Guest<()> {
    let v = l.read_reg(0);
    leave(l, def, v, 0)
}

/// SLDT, STR, SMSW: 16 bits to memory, the operand size to a register.
fn to_operand(l: &mut Lift, def: &'static HelperDef, which: u64) -> Guest<()> {
    let t = l.b.temp();
    l.b.helper(def, W64, 0, t, Z, Z, which);
    l.write(0, t);
    Ok(())
}

/// LAR, LSL.
fn question(l: &mut Lift, def: &'static HelperDef) -> Guest<()> {
    let (w, v) = (l.width(0), l.read_reg(1));
    l.b.helper(def, w, 0, gpr(l.i.op0_register()).0, v, Z, 0);
    Ok(())
}

fn verify(l: &mut Lift, write: u64) -> Guest<()> {
    let v = l.read_reg(0);
    l.b.helper(&h::VERIFY, W16, 0, Z, v, Z, write);
    Ok(())
}

/// Memory is only written, and must only be writable, when its RPL is raised.
fn arpl(l: &mut Lift) -> Guest<()> {
    let src = l.read_reg(1);
    if l.is_mem(0) {
        let m = l.offset();
        let (off, segment) = (l.address(m), l.segment());
        l.b.helper(&h::ARPL_MEM, W16, 0, Z, off, src, segment as u64);
        return end(l);
    }
    let (dst, place) = l.read_place(0);
    let t = l.b.temp();
    l.b.helper(&h::ARPL, W16, 0, t, dst, src, 0);
    l.write_place(place, W16, t);
    Ok(())
}

fn read_base(l: &mut Lift, s: Seg) -> Guest<()> {
    let (w, d) = (l.width(0), gpr(l.i.op0_register()).0);
    l.b.helper(&h::RD_BASE, w, 0, d, Z, Z, s as u64);
    Ok(())
}

fn write_base(l: &mut Lift, s: Seg) -> Guest<()> {
    let (w, v) = (l.width(0), l.read_reg(0));
    l.b.helper(&h::WR_BASE, w, 0, Z, v, Z, s as u64);
    Ok(())
}

/// The TLB entry may be that of the code itself: the next block is looked up.
fn invlpg(l: &mut Lift) -> Guest<()> {
    let at = l.mem_address(1, false);
    leave(l, &h::INVLPG, at, 0)
}

fn invpcid(l: &mut Lift) -> Guest<()> {
    let at = l.mem_address(16, false);
    l.b.helper(&h::INVPCID, W64, 0, Z, gpr(l.i.op0_register()).0, at, 0);
    l.leave();
    Ok(())
}

/// The port operand `n`: DX or an 8-bit immediate.
fn port(l: &mut Lift, n: u32) -> Reg {
    match l.i.op_kind(n) {
        OpKind::Register => Reg::RDX,
        _ => l.constant(l.i.immediate8().into()),
    }
}

fn port_in(l: &mut Lift) -> Guest<()> {
    let (w, at) = (l.width(0), port(l, 1));
    l.b.helper(&h::IN, w, 0, Reg::RAX, at, Z, 0);
    end(l)
}

fn port_out(l: &mut Lift) -> Guest<()> {
    let (w, at) = (l.width(1), port(l, 0));
    l.b.helper(&h::OUT, w, 0, Z, at, Reg::RAX, 0);
    end(l)
}

/// Checks that the port in `r` may be accessed at width `w`; CPL 0 may always.
pub fn check_port(l: &mut Lift, r: Reg, w: Width) {
    if l.mode & (mode::USER | mode::CPL12 | mode::VM86) != 0 {
        l.b.helper(&h::CHECK_PORT, w, 0, Z, r, Z, 0);
    }
}

fn save(l: &mut Lift, def: &'static HelperDef, w: Width, bytes: u32) -> Guest<()> {
    let m = l.mem_bytes(bytes, true);
    let at = l.address(m);
    l.b.helper(def, w, m.stack.into(), Z, at, Z, 0);
    end(l)
}

fn restore(l: &mut Lift, def: &'static HelperDef, w: Width, bytes: u32) -> Guest<()> {
    let m = l.mem_bytes(bytes, false);
    let at = l.address(m);
    l.b.helper(def, w, m.stack.into(), Z, at, Z, 0);
    end(l)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lift::lift_bytes;
    use crate::sys::cpuid::Features;
    use crate::sys::testing::{self, Level};
    use emu_core::platform::Platform;
    use emu_core::uop::Uop;
    use emu_core::vcpu::{Stop, Vcpu};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

    fn lift(bytes: &[u8], mode: u32) -> Vec<Uop> {
        lift_bytes(bytes, mode, Features::X86_64_V2.0, 1).0.uops
    }

    /// Bytes, mode, the helper they call, and the op that ends the block.
    #[test]
    fn helpers_and_ends() {
        let (c64, c32) = (mode::CODE64, mode::CODE32 | mode::STACK32 | mode::FLAT);
        let user = mode::CODE64 | mode::USER;
        #[rustfmt::skip]
        let rows: &[(&[u8], u32, &str, Op)] = &[
            (&[0xea, 1, 2, 3, 4, 8, 0],      c32,  "far_jmp",  Op::Exit),
            (&[0x48, 0xff, 0x28],            c64,  "far_jmp",  Op::Exit),
            (&[0x9a, 1, 2, 3, 4, 8, 0],      c32,  "far_call", Op::Exit),
            (&[0xff, 0x18],                  c64,  "far_call", Op::Exit),
            (&[0xca, 4, 0],                  c64,  "far_ret",  Op::Exit),
            (&[0x48, 0xcf],                  c64,  "iret",     Op::Exit),
            (&[0xcd, 0x80],                  user, "int",      Op::Exit),
            (&[0xcc],                        user, "int",      Op::Exit),
            (&[0xce],                        c32,  "int",      Op::Exit),
            (&[0xf1],                        c64,  "int",      Op::Exit),
            (&[0x0f, 0x05],                  user, "syscall",  Op::Exit),
            (&[0x48, 0x0f, 0x07],            c64,  "sysret",   Op::Exit),
            (&[0x0f, 0x34],                  user, "sysenter", Op::Exit),
            (&[0xf4],                        c64,  "hlt",      Op::Exit),
            (&[0xfa],                        c64,  "cli",      Op::Goto),
            (&[0xfb],                        c64,  "sti",      Op::Leave),
            (&[0xfd],                        user, "set_df",   Op::Goto),
            (&[0x9c],                        user, "pushf",    Op::Goto),
            (&[0x9d],                        user, "popf",     Op::Leave),
            (&[0x8e, 0xd8],                  c64,  "mov_seg",  Op::Leave),
            (&[0x8c, 0xd8],                  user, "read_seg", Op::Goto),
            (&[0x0f, 0xa1],                  c64,  "mov_seg",  Op::Leave),
            (&[0x06],                        c32,  "read_seg", Op::Goto),
            (&[0xc5, 0x00],                  c32,  "load_seg", Op::Leave),
            (&[0x0f, 0x01, 0x10],            c64,  "load_table", Op::Goto),
            (&[0x0f, 0x01, 0x08],            user, "store_table", Op::Goto),
            (&[0x0f, 0x00, 0xd8],            c64,  "ltr",      Op::Leave),
            (&[0x0f, 0x00, 0xc0],            user, "store_system_selector", Op::Goto),
            (&[0x0f, 0x02, 0xc1],            user, "lar",      Op::Goto),
            (&[0x0f, 0x00, 0xe8],            user, "verify",   Op::Goto),
            (&[0x63, 0xc8],                  c32,  "arpl",     Op::Goto),
            (&[0x0f, 0x01, 0xf8],            c64,  "swapgs",   Op::Goto),
            (&[0xf3, 0x48, 0x0f, 0xae, 0xd0], user, "wr_base", Op::Goto),
            (&[0xf3, 0x48, 0x0f, 0xae, 0xc8], user, "rd_base", Op::Goto),
            (&[0x0f, 0x22, 0xd8],            c64,  "mov_to_cr", Op::Leave),
            (&[0x0f, 0x20, 0xc0],            c64,  "mov_from_cr", Op::Goto),
            (&[0x0f, 0x23, 0xf8],            c64,  "mov_to_dr", Op::Leave),
            (&[0x0f, 0x01, 0x38],            c64,  "invlpg",   Op::Leave),
            (&[0x66, 0x0f, 0x38, 0x82, 0x08], c64, "invpcid",  Op::Leave),
            (&[0x0f, 0x30],                  c64,  "wrmsr",    Op::Leave),
            (&[0x0f, 0xa2],                  user, "cpuid",    Op::Goto),
            (&[0xe4, 0xe0],                  user, "in",       Op::Goto),
            (&[0xef],                        user, "out",      Op::Goto),
            (&[0x48, 0x0f, 0xae, 0x00],      user, "fxsave",   Op::Goto),
            (&[0x0f, 0xae, 0x28],            user, "xrstor",   Op::Goto),
        ];
        for &(bytes, mode, helper, end) in rows {
            let uops = lift(bytes, mode);
            let found: Vec<_> = uops.iter().filter_map(|u| u.helper).map(|h| h.name).collect();
            assert_eq!(found, [helper], "{bytes:x?}");
            assert_eq!(uops.last().map(|u| u.op), Some(end), "{bytes:x?}");
        }
    }

    #[test]
    fn operands_reach_the_helper() {
        let call = |u: &[Uop]| *u.iter().find(|u| u.op == Op::Helper).unwrap();
        let u = lift(&[0xe4, 0xe0], mode::CODE64);
        assert_eq!(u[0].b, 0xe0.into(), "the port is not sign-extended");
        assert_eq!((call(&u).w, call(&u).d), (Width::W8, Reg::RAX));
        let u = call(&lift(&[0x44, 0x0f, 0x22, 0xc7], mode::CODE64));
        assert_eq!((u.a, u.imm), (Reg::RDI, 8), "MOV CR8, RDI");
        let u = lift(&[0x66, 0xea, 0x34, 0x12, 0x78, 0x56], mode::CODE32 | mode::FLAT);
        assert_eq!((u[0].b, u[1].b, call(&u).w), (0x1234.into(), 0x5678.into(), W16));
        assert_eq!(call(&lift(&[0xcd, 0x80], mode::CODE64)).imm, 0x80);
    }

    /// Privileged rows raise #GP(0) in ring 3, rows of protected mode #UD in real mode.
    #[test]
    fn attributes() {
        for bytes in [&[0xf4][..], &[0x0f, 0x30], &[0x0f, 0x01, 0x10], &[0x0f, 0x06], &[0x0f, 0x09]]
        {
            let u = lift(bytes, mode::CODE64 | mode::USER);
            assert_eq!((u[0].op, u[0].imm, u[0].k), (Op::Raise, 13, 1), "{bytes:x?}");
        }
        for bytes in [&[0x0f, 0x00, 0xd8][..], &[0x0f, 0x02, 0xc1], &[0x63, 0xc8]] {
            let u = lift(bytes, mode::REAL);
            assert_eq!((u[0].op, u[0].imm), (Op::Raise, 6), "{bytes:x?}");
        }
    }

    /// LOCK is #UD on all that does not read and write memory in one of the listed ways (SDM Vol.
    /// 2, LOCK).
    #[test]
    fn lock() {
        for bytes in [
            &[0xf0, 0x01, 0xc0][..],   // add eax, eax
            &[0xf0, 0x03, 0x00],       // add eax, [rax]
            &[0xf0, 0x39, 0x00],       // cmp [rax], eax
            &[0xf0, 0x89, 0x00],       // mov [rax], eax
            &[0xf0, 0x90],             // nop
            &[0xf0, 0x0f, 0xa3, 0x00], // bt [rax], eax
            &[0xf0, 0xd1, 0x20],       // shl dword [rax], 1
            &[0xf0, 0xa4],             // movsb
            &[0xf0, 0xf4],             // hlt
            &[0xf0, 0x0f, 0x01, 0x10], // lgdt
            &[0xf0, 0x0f, 0x20, 0xc0], // mov rax, cr0
            &[0xf0, 0x0f, 0x30],       // wrmsr
            &[0xf0, 0xcd, 0x80],       // int
            &[0xf0, 0x0f, 0x58, 0x00], // addps
            &[0xf0, 0xd9, 0x00],       // fld
        ] {
            let u = lift(bytes, mode::CODE64 | mode::SSE);
            assert_eq!((u[0].op, u[0].imm), (Op::Raise, 6), "{bytes:x?}");
        }
        for bytes in [&[0xf0, 0x01, 0x00][..], &[0xf0, 0x0f, 0xab, 0x00], &[0xf0, 0x87, 0x00]] {
            assert_ne!(lift(bytes, mode::CODE64)[0].op, Op::Raise, "{bytes:x?}");
        }
    }

    /// SDM Vol. 2, MONITOR and MWAIT: #UD above CPL 0 and where `IA32_MISC_ENABLE` says so, #GP for
    /// ECX; the wait ends when the run loop is entered again.
    #[test]
    fn monitor_and_mwait() {
        let code: &[u8] = &[0x0f, 0x01, 0xc8, 0x0f, 0x01, 0xc9, 0xff, 0xc3, 0xf4];
        let run = |rax, rcx, msr, user| {
            let mut c = testing::cpu(Level::Long);
            c.features |= Features::MONITOR.0;
            c.sys.misc_enable = msr;
            for v in [6, 13, 14] {
                testing::gate(&mut c, v, testing::CODE0, 0x600 + v, 0x8e, 0);
            }
            if user {
                testing::to_user(&mut c, testing::CODE3, 0x7000);
            }
            c.set_reg(Reg::RAX, rax);
            c.set_reg(Reg::RCX, rcx);
            let mut v = testing::vcpu(c, &[(0x1234, code), (0x600, &[0xf4; 32])]);
            assert_eq!(v.run(100), Stop::Halted);
            v
        };
        let on = 1 << 18;
        let mut v = run(0x5000, 0, on, false);
        assert_eq!((v.cpu.rip(), v.cpu.reg(Reg::RBX)), (0x123a, 0));
        assert_eq!((v.run(100), v.cpu.reg(Reg::RBX)), (Stop::Halted, 1));
        assert_eq!((v.run(100), v.cpu.rip()), (Stop::Halted, 0x123d), "HLT does not end");
        #[rustfmt::skip]
        let rows = [
            (0x5000, 0, 0, false, 6), (0x5000, 0, on, true, 6), (0x5000, 1, on, false, 13),
            (1 << 47, 0, on, false, 13), (1 << 40, 0, on, false, 14),
        ];
        for (rax, rcx, msr, user, vector) in rows {
            assert_eq!(run(rax, rcx, msr, user).cpu.rip(), 0x601 + vector);
        }
        let mut c = testing::cpu(Level::Long);
        let bit = |c: &emu_core::cpu::Cpu| crate::sys::cpuid::cpuid(c, 1, 0)[2] >> 3 & 1;
        assert_eq!(bit(&c), 0, "not in this model");
        c.features |= Features::MONITOR.0;
        assert_eq!((bit(&c), crate::sys::cpuid::cpuid(&c, 5, 0)), (1, [64, 64, 0, 0]));
        crate::sys::msr::write(&mut c, crate::sys::msr::addr::MISC_ENABLE, 0).unwrap();
        assert_eq!(bit(&c), 0);
    }

    /// An interrupt that is requested until it is acknowledged.
    struct Requested(AtomicBool);

    impl Platform for Requested {
        fn mmio_read(&self, _: u64, _: u8) -> u64 {
            0
        }
        fn mmio_write(&self, _: u64, _: u8, _: u64) {}
        fn port_in(&self, _: u16, _: u8) -> u32 {
            0
        }
        fn port_out(&self, _: u16, _: u8, _: u32) {}
        fn apic_msr_read(&self, _: u32, _: u64) -> Option<u64> {
            None
        }
        fn apic_msr_write(&self, _: u32, _: u64, _: u64) -> Option<()> {
            None
        }
        fn tpr(&self) -> u8 {
            0
        }
        fn set_tpr(&self, _: u8) {}
        fn interrupt_pending(&self) -> bool {
            self.0.load(SeqCst)
        }
        fn acknowledge(&self) -> Option<u8> {
            self.0.swap(false, SeqCst).then_some(0x40)
        }
    }

    /// SDM Vol. 2, STI: an interrupt comes after the next instruction, before the one behind it,
    /// wherever blocks and pages end.
    #[test]
    fn one_instruction_runs_after_sti() {
        const INC: [u8; 2] = [0xff, 0xc3]; // inc ebx
        #[rustfmt::skip]
        let rows: &[(&[&[u8]], u64, u64)] = &[
            (&[&[0xfb], &INC, &[0xfa], &INC],       3,    1), // sti; inc; cli; inc
            (&[&INC, &[0xfb], &INC, &[0xfa], &INC], 5,    2),
            (&[&[0xfb], &[0xeb, 0x02], &INC, &INC], 5,    0), // sti; jmp
            (&[&[0xfb, 0xfb], &INC, &INC],          2,    0), // sti; sti
            (&[&[0xfb, 0xf4], &INC],                2,    0), // sti; hlt
            (&[&[0xfb, 0xfa], &INC],                5,    1), // sti; cli: never
        ];
        for at in [0x1234, 0x1fff, 0x1ffe, 0x1ffd] {
            for budget in [1, 2, 100] {
                for &(code, after, rbx) in rows {
                    let mut c = testing::cpu(Level::Long);
                    c.mem.platform = Arc::new(Requested(AtomicBool::new(true)));
                    testing::gate(&mut c, 0x40, testing::CODE0, 0x700, 0x8e, 0);
                    c.set_rip(at);
                    let code = [&code.concat()[..], &[0xf4]].concat();
                    let mut v = testing::vcpu(c, &[(at, &code), (0x700, &[0xf4])]);
                    (0..100).for_each(|_| {
                        v.run(budget);
                    });
                    let (rip, stack) = (v.cpu.rip(), v.cpu.reg(Reg::RSP));
                    let from = if rip == 0x701 { v.cpu.mem.read(stack, W64) } else { rip };
                    assert_eq!((from - at, v.cpu.reg(Reg::RBX)), (after, rbx), "{code:x?} {at:x}");
                }
            }
        }
    }

    /// From ring 0 by IRETQ to ring 3, INT 80H and back, SYSCALL, HLT: all through the run loop.
    #[test]
    fn rings_and_back() {
        let mut c = testing::cpu(Level::Long);
        c.frontend = &crate::FRONTEND;
        c.sys.lstar = 0x6800;
        c.sys.star = 0x0010_0008 << 32;
        testing::gate(&mut c, 0x80, testing::CODE0, 0x6000, 0xee, 0);
        #[rustfmt::skip]
        let code: &[(u64, &[u8])] = &[
            (0x1234, &[
                0xb9, 0x80, 0, 0, 0xc0, // mov ecx, IA32_EFER
                0x0f, 0x32,             // rdmsr
                0x83, 0xc8, 1,          // or eax, SCE
                0x0f, 0x30,             // wrmsr
                0x6a, 0x23,             // push 23h
                0x68, 0, 0x70, 0, 0,    // push 7000h
                0x9c,                   // pushfq
                0x6a, 0x1b,             // push 1bh
                0x68, 0, 0x50, 0, 0,    // push 5000h
                0x48, 0xcf,             // iretq
            ]),
            (0x5000, &[0xcd, 0x80, 0x0f, 0x05]),       // int 80h; syscall
            (0x6000, &[0xff, 0xc3, 0x48, 0xcf]),       // inc ebx; iretq
            (0x6800, &[0x0f, 0x20, 0xd8, 0xf4]),       // mov rax, cr3; hlt
        ];
        code.iter().for_each(|(at, bytes)| c.mem.write_bytes(*at, bytes));
        let mut vcpu = Vcpu::new(c);
        assert_eq!(vcpu.run(1000), Stop::Halted);
        let c = &vcpu.cpu;
        assert_eq!((c.rip(), c.cpl, c.reg(Reg::RBX), c.reg(Reg::RAX)), (0x6804, 0, 1, c.sys.cr3));
        assert_eq!((c.reg(Reg::RCX), c.reg(Reg::RSP), c.vectors[0x80]), (0x5004, 0x7000, 1));
    }
}
