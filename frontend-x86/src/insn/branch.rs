//! Near control transfers (SDM Vol. 1, 5.1.7). Far ones are in [`super::system`].

use super::system;
use crate::lift::Lift;
use crate::rows;
use emu_core::cpu::{Reg, Seg};
use emu_core::fault::Guest;
use emu_core::uop::{Op, Src};
use emu_core::width::Width::{self, W16, W32, W64};
use iced_x86::{Code, Mnemonic, OpKind};

rows! {
    Jmp:  NONE, Innocuous, jmp;
    Call: NONE, Innocuous, call;
    Ret:  NONE, Innocuous, ret;
    Jo: NONE, Innocuous, |l| jcc(l, 0);
    Jno: NONE, Innocuous, |l| jcc(l, 1);
    Jb: NONE, Innocuous, |l| jcc(l, 2);
    Jae: NONE, Innocuous, |l| jcc(l, 3);
    Je: NONE, Innocuous, |l| jcc(l, 4);
    Jne: NONE, Innocuous, |l| jcc(l, 5);
    Jbe: NONE, Innocuous, |l| jcc(l, 6);
    Ja: NONE, Innocuous, |l| jcc(l, 7);
    Js: NONE, Innocuous, |l| jcc(l, 8);
    Jns: NONE, Innocuous, |l| jcc(l, 9);
    Jp: NONE, Innocuous, |l| jcc(l, 10);
    Jnp: NONE, Innocuous, |l| jcc(l, 11);
    Jl: NONE, Innocuous, |l| jcc(l, 12);
    Jge: NONE, Innocuous, |l| jcc(l, 13);
    Jle: NONE, Innocuous, |l| jcc(l, 14);
    Jg: NONE, Innocuous, |l| jcc(l, 15);
    Jcxz: NONE, Innocuous, |l| jump_if_zero(l, W16);
    Jecxz: NONE, Innocuous, |l| jump_if_zero(l, W32);
    Jrcxz: NONE, Innocuous, |l| jump_if_zero(l, W64);
    Loop: NONE, Innocuous, |l| loop_(l, None);
    Loope: NONE, Innocuous, |l| loop_(l, Some(4));
    Loopne: NONE, Innocuous, |l| loop_(l, Some(5));
}

/// The operand size of a near branch is 16 bits.
fn size16(l: &Lift) -> bool {
    match l.i.op0_kind() {
        OpKind::NearBranch16 => true,
        OpKind::NearBranch32 | OpKind::NearBranch64 => false,
        _ if l.i.op_count() == 0 || l.i.op0_kind() == OpKind::Immediate16 => {
            matches!(l.i.code(), Code::Retnw | Code::Retnw_imm16)
        }
        _ => l.width(0) == W16,
    }
}

fn target(l: &Lift, w: Width) -> i64 {
    w.sext(l.i.near_branch_target()) as i64
}

fn is_near_direct(l: &Lift) -> bool {
    matches!(l.i.op0_kind(), OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64)
}

fn is_far(l: &Lift) -> bool {
    l.i.is_jmp_far() || l.i.is_call_far() || l.i.is_jmp_far_indirect() || l.i.is_call_far_indirect()
}

fn jmp(l: &mut Lift) -> Guest<()> {
    if is_far(l) {
        return system::far_transfer(l, l.i.mnemonic() == Mnemonic::Call);
    }
    let w = l.ip_width(size16(l));
    if is_near_direct(l) {
        let to = target(l, w);
        l.b.goto(w, to);
    } else {
        let t = l.read_reg(0);
        let to = canonical(l, t);
        l.b.jmpi(w, to);
    }
    Ok(())
}

/// `to` as an instruction pointer: in 64-bit code #GP(0) unless it is canonical, before anything
/// has changed (SDM Vol. 2, JMP, CALL, RET).
fn canonical(l: &mut Lift, to: Reg) -> Reg {
    if !l.code64() {
        return to;
    }
    let rip = l.b.temp();
    l.b.op_k(Op::Lin, W64, rip, to, 0, Seg::Cs as u8);
    rip
}

fn call(l: &mut Lift) -> Guest<()> {
    if is_far(l) {
        return system::far_transfer(l, true);
    }
    let w = l.ip_width(size16(l));
    if is_near_direct(l) {
        let next = l.next_rip();
        l.push(w, next);
        let to = target(l, w);
        l.b.goto(w, to);
    } else {
        let t = l.read_reg(0);
        let mut to = canonical(l, t);
        if to == Reg::RSP {
            to = l.b.temp();
            l.b.mov(W64, to, Reg::RSP);
        }
        let next = l.next_rip();
        l.push(w, next);
        l.b.jmpi(w, to);
    }
    Ok(())
}

fn ret(l: &mut Lift) -> Guest<()> {
    let w = l.ip_width(size16(l));
    let top = l.top(w);
    let to = canonical(l, top);
    let extra = if l.i.op_count() > 0 { i64::from(l.i.immediate16()) } else { 0 };
    l.move_sp(w.bytes() as i64 + extra);
    l.b.jmpi(w, to);
    Ok(())
}

/// Whether a branch cuts RIP to 16 bits in 32-bit code: only if it is taken.
fn cuts(l: &Lift) -> bool {
    size16(l) && l.rip_width() == W32
}

/// Ends the block with a jump to the target cut to 16 bits if `yes` is all ones, to the next
/// instruction if it is 0.
fn jump_cut(l: &mut Lift, yes: Reg) -> Guest<()> {
    let (next, to, by) = (l.next_rip(), l.b.temp(), target(l, W32));
    l.b.op_nf(Op::Add, W32, to, Reg::RIP, by);
    l.b.op_nf(Op::And, W32, to, to, 0xffff);
    l.b.op_nf(Op::Sub, W32, to, to, next);
    l.b.op_nf(Op::And, W32, to, to, yes);
    l.b.op_nf(Op::Add, W32, to, to, next);
    l.b.jmpi(W32, to);
    Ok(())
}

/// All ones if `r` at width `w` is not zero, else 0.
fn not_zero(l: &mut Lift, w: Width, r: Reg) -> Reg {
    let (t, minus) = (l.b.temp(), l.b.temp());
    l.b.op_nf(Op::Shl, W64, t, r, 64 - w.bits() as i64);
    l.b.op_nf(Op::Sub, W64, minus, Reg::ZERO, t);
    l.b.op_nf(Op::Or, W64, t, t, minus);
    l.b.op_nf(Op::Sar, W64, t, t, 63);
    t
}

fn jcc(l: &mut Lift, cc: u8) -> Guest<()> {
    if cuts(l) {
        let t = l.b.temp();
        l.b.op_k(Op::Set, W64, t, t, 0, cc);
        l.b.op_nf(Op::Sub, W64, t, Reg::ZERO, t);
        return jump_cut(l, t);
    }
    let w = l.ip_width(size16(l));
    let (to, fall) = (target(l, w), l.b.next_offset());
    l.b.jcc(w, cc, to, fall);
    Ok(())
}

fn jump_if_zero(l: &mut Lift, count: Width) -> Guest<()> {
    if cuts(l) {
        let t = not_zero(l, count, Reg::RCX);
        l.b.op_nf(Op::Xor, W64, t, t, -1);
        return jump_cut(l, t);
    }
    let w = l.ip_width(size16(l));
    let (to, fall) = (target(l, w), l.b.next_offset());
    l.b.jrnz(count, w, Reg::RCX, fall, to);
    Ok(())
}

/// LOOP, LOOPE, LOOPNE: the counter's width is the address size.
fn loop_(l: &mut Lift, cc: Option<u8>) -> Guest<()> {
    use Code::*;
    let count = match l.i.code() {
        Loop_rel8_16_CX | Loop_rel8_32_CX | Loope_rel8_16_CX | Loope_rel8_32_CX
        | Loopne_rel8_16_CX | Loopne_rel8_32_CX => W16,
        Loop_rel8_16_ECX | Loop_rel8_32_ECX | Loop_rel8_64_ECX | Loope_rel8_16_ECX
        | Loope_rel8_32_ECX | Loope_rel8_64_ECX | Loopne_rel8_16_ECX | Loopne_rel8_32_ECX
        | Loopne_rel8_64_ECX => W32,
        _ => W64,
    };
    let w = l.ip_width(size16(l));
    l.b.op_nf(Op::Sub, count, Reg::RCX, Reg::RCX, Src::Imm(1));
    let mut test = Reg::RCX;
    if let Some(cc) = cc {
        // All ones if the condition holds: then the count decides.
        let t = l.b.temp();
        l.b.op_k(Op::Set, W64, t, t, 0, cc);
        l.b.op_nf(Op::Sub, W64, t, Reg::ZERO, t);
        l.b.op_nf(Op::And, W64, t, t, Reg::RCX);
        test = t;
    }
    if cuts(l) {
        let t = not_zero(l, count, test);
        return jump_cut(l, t);
    }
    let (to, fall) = (target(l, w), l.b.next_offset());
    l.b.jrnz(count, w, test, to, fall);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::sys::testing::{self, Level};
    use crate::sys::testing::{CODE0, STACK, gate};
    use emu_core::cpu::Reg;
    use emu_core::vcpu::Stop;
    use emu_core::width::Width::W64;

    /// Loops whose branch on RCX goes backwards, in code of each size: the count of turns.
    #[test]
    fn jcxz_and_loop_go_backwards() {
        const HLT: u8 = 0xf4;
        #[rustfmt::skip]
        let rows: &[(&[u8], u64, u64)] = &[
            // inc bx / ebx; loop: as often as RCX says
            (&[0xff, 0xc3, 0xe2, 0xfc, HLT],             5, 5),
            (&[0xff, 0xc3, 0x67, 0xe2, 0xfb, HLT],       5, 5),
            // inc; cmp bl, 7; loopne: until equal
            (&[0xff, 0xc3, 0x80, 0xfb, 7, 0xe0, 0xf9, HLT], 100, 7),
            // inc; cmp bl, bl; loope
            (&[0xff, 0xc3, 0x38, 0xdb, 0xe1, 0xfa, HLT], 6, 6),
            // inc; test bl, 8; jnz to the end; jcxz back with CX = 0
            (&[0xff, 0xc3, 0xf6, 0xc3, 8, 0x75, 2, 0xe3, 0xf7, HLT], 0, 8),
            (&[0xff, 0xc3, 0xf6, 0xc3, 8, 0x75, 3, 0x67, 0xe3, 0xf6, HLT], 0, 8),
            // The same with CX not 0: it does not jump.
            (&[0xff, 0xc3, 0xf6, 0xc3, 8, 0x75, 2, 0xe3, 0xf7, HLT], 2, 1),
        ];
        for level in [Level::Real, Level::Protected, Level::Long] {
            for &(code, count, turns) in rows {
                let mut c = testing::cpu(level);
                // So far from the page's start that a distance of 16 bits is a negative one.
                let at = 0x5800;
                c.set_reg(Reg::CS_BASE, 0);
                c.set_rip(at);
                c.set_reg(Reg::RCX, count);
                let mut v = testing::vcpu(c, &[(at, code)]);
                assert_eq!(v.run(1000), Stop::Halted, "{code:x?}");
                let c = &v.cpu;
                assert_eq!((c.rip(), c.reg(Reg::RBX)), (at + code.len() as u64, turns));
            }
        }
    }

    /// SDM Vol. 2, JMP, CALL, RET: #GP(0) at the branch, nothing pushed or popped.
    #[test]
    fn targets_are_canonical() {
        const HLT: u8 = 0xf4;
        let bad = 0x8000_0000_0000;
        // ret; ret 8; jmp rax; call rax; jmp [rsp]; call [rsp]
        let rows: [&[u8]; 6] = [
            &[0xc3],
            &[0xc2, 8, 0],
            &[0xff, 0xe0],
            &[0xff, 0xd0],
            &[0xff, 0x24, 0x24],
            &[0xff, 0x14, 0x24],
        ];
        for code in rows {
            let mut c = testing::cpu(Level::Long);
            gate(&mut c, 13, CODE0, 0x7000, 0x8e, 0);
            c.mem.write(STACK, W64, bad);
            c.set_reg(Reg::RAX, bad);
            c.set_rip(0x5000);
            let mut v = testing::vcpu(c, &[(0x5000, code), (0x7000, &[HLT])]);
            assert_eq!(v.run(1000), Stop::Halted, "{code:x?}");
            let c = &v.cpu;
            let frame: Vec<u64> =
                (0..5).map(|n| c.mem.read(c.reg(Reg::RSP) + 8 * n, W64)).collect();
            assert_eq!((frame[0], frame[1], frame[4]), (0, 0x5000, STACK), "{code:x?}");
        }
    }
}
