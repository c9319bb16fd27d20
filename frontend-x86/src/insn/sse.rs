//! SSE (SDM Vol. 1, 5.5 and chapter 10), and what the rows of all SSE families are lifted with.
//!
//! Legacy SSE instructions leave the upper half of a YMM register alone. A load goes straight
//! into its register where there is no upper half, else through a temporary. Memory operands of
//! 16 bytes must be aligned but for the few instructions in [`aligned`].

use super::mmx::{self, both};
use crate::lift::Lift;
use crate::operand::gpr;
use crate::rows;
use crate::sys::helpers::LDMXCSR;
use emu_core::build::VReg;
use emu_core::cpu::{Reg, mode};
use emu_core::fault::{Fault, Guest};
use emu_core::flags::OSZAPC;
use emu_core::uop::Op;
use emu_core::vec::VecOp as V;
use emu_core::width::Width::{self, W16, W32, W64};
use iced_x86::{EncodingKind, Mnemonic, OpKind};

rows! {
    Movaps:    SSE, Innocuous, mov_all;
    Movups:    SSE, Innocuous, mov_all;
    Movntps:   SSE, Innocuous, mov_all;
    Movss:     SSE, Innocuous, |l| mov_scalar(l, V::Movss);
    Movlps:    SSE, Innocuous, mov_low;
    Movhps:    SSE, Innocuous, mov_high;
    Movhlps:   SSE, Innocuous, |l| op(l, V::Movhlps);
    Movlhps:   SSE, Innocuous, |l| op(l, V::Punpcklqdq);
    Movmskps:  SSE, Innocuous, |l| to_gpr(l, V::Movmskps);
    Addps:     SSE, Innocuous, |l| op(l, V::Addps);
    Addss:     SSE, Innocuous, |l| op(l, V::Addss);
    Subps:     SSE, Innocuous, |l| op(l, V::Subps);
    Subss:     SSE, Innocuous, |l| op(l, V::Subss);
    Mulps:     SSE, Innocuous, |l| op(l, V::Mulps);
    Mulss:     SSE, Innocuous, |l| op(l, V::Mulss);
    Divps:     SSE, Innocuous, |l| op(l, V::Divps);
    Divss:     SSE, Innocuous, |l| op(l, V::Divss);
    Minps:     SSE, Innocuous, |l| op(l, V::Minps);
    Minss:     SSE, Innocuous, |l| op(l, V::Minss);
    Maxps:     SSE, Innocuous, |l| op(l, V::Maxps);
    Maxss:     SSE, Innocuous, |l| op(l, V::Maxss);
    Sqrtps:    SSE, Innocuous, |l| op(l, V::Sqrtps);
    Sqrtss:    SSE, Innocuous, |l| op(l, V::Sqrtss);
    Rcpps:     SSE, Innocuous, |l| op(l, V::Rcpps);
    Rcpss:     SSE, Innocuous, |l| op(l, V::Rcpss);
    Rsqrtps:   SSE, Innocuous, |l| op(l, V::Rsqrtps);
    Rsqrtss:   SSE, Innocuous, |l| op(l, V::Rsqrtss);
    Andps:     SSE, Innocuous, |l| op(l, V::Pand);
    Andnps:    SSE, Innocuous, |l| op(l, V::Pandn);
    Orps:      SSE, Innocuous, |l| op(l, V::Por);
    Xorps:     SSE, Innocuous, |l| op(l, V::Pxor);
    Cmpps:     SSE, Innocuous, |l| predicate(l, V::Cmpps);
    Cmpss:     SSE, Innocuous, |l| predicate(l, V::Cmpss);
    Comiss:    SSE, Innocuous, |l| to_flags(l, V::Comiss);
    Ucomiss:   SSE, Innocuous, |l| to_flags(l, V::Ucomiss);
    Shufps:    SSE, Innocuous, |l| op(l, V::Shufps);
    Unpcklps:  SSE, Innocuous, |l| op(l, V::Punpckldq);
    Unpckhps:  SSE, Innocuous, |l| op(l, V::Punpckhdq);
    Cvtsi2ss:  SSE, Innocuous, |l| from_gpr(l, V::Cvtsi2ss32, V::Cvtsi2ss64);
    Cvtss2si:  SSE, Innocuous, |l| to_int(l, V::Cvtss2si32, V::Cvtss2si64);
    Cvttss2si: SSE, Innocuous, |l| to_int(l, V::Cvttss2si32, V::Cvttss2si64);
    Cvtpi2ps:  SSE | MMX, Innocuous, |l| from_mmx(l, V::Cvtpi2ps);
    Cvtps2pi:  SSE | MMX, Innocuous, |l| to_mmx(l, V::Cvtps2pi);
    Cvttps2pi: SSE | MMX, Innocuous, |l| to_mmx(l, V::Cvttps2pi);
    Ldmxcsr:   SSE, Innocuous, ldmxcsr;
    Stmxcsr:   SSE, Innocuous, stmxcsr;
    // ---- integers: MMX registers, and XMM registers since SSE2 -------------------------------------
    Pavgb:     MMX, Innocuous, |l| both(l, V::Pavgb, V::Pavgb);
    Pavgw:     MMX, Innocuous, |l| both(l, V::Pavgw, V::Pavgw);
    Pmaxsw:    MMX, Innocuous, |l| both(l, V::Pmaxsw, V::Pmaxsw);
    Pmaxub:    MMX, Innocuous, |l| both(l, V::Pmaxub, V::Pmaxub);
    Pminsw:    MMX, Innocuous, |l| both(l, V::Pminsw, V::Pminsw);
    Pminub:    MMX, Innocuous, |l| both(l, V::Pminub, V::Pminub);
    Pmulhuw:   MMX, Innocuous, |l| both(l, V::Pmulhuw, V::Pmulhuw);
    Psadbw:    MMX, Innocuous, |l| both(l, V::Psadbw, V::Psadbw);
    Pshufw:    MMX, Innocuous, |l| both(l, V::Pshuflw, V::Pshuflw);
    Pmovmskb:  MMX, Innocuous, |l| to_gpr(l, V::Pmovmskb);
    Pextrw:    MMX, Innocuous, |l| extract(l, W16);
    Pinsrw:    MMX, Innocuous, |l| insert(l, W16);
    Movntq:    MMX, Innocuous, |l| { let v = source(l, 1); mmx::store(l, W64, v) };
    Maskmovq:  MMX, Innocuous, mmx::maskmov;
    // ---- hints: nothing to do, whatever the FPU's state ---------------------------------------------
    Sfence:      NONE, Innocuous, |_| Ok(());
    Prefetchnta: NONE, Innocuous, |_| Ok(());
    Prefetcht0:  NONE, Innocuous, |_| Ok(());
    Prefetcht1:  NONE, Innocuous, |_| Ok(());
    Prefetcht2:  NONE, Innocuous, |_| Ok(());
}

// ---- operands -----------------------------------------------------------------------------------

/// #UD unless SSE is enabled: for XMM forms of rows that MMX shares, which are not checked by
/// their attribute.
pub fn enabled(l: &Lift) -> Guest<()> {
    if l.mode & mode::SSE == 0 && !is_vex(l) { Err(Fault::UD) } else { Ok(()) }
}

/// Whether it is a VEX form.
fn is_vex(l: &Lift) -> bool {
    l.i.encoding() == EncodingKind::VEX
}

/// Whether operand `n` is a register.
pub fn is_register(l: &Lift, n: u32) -> bool {
    l.i.op_count() > n && l.i.op_kind(n) == OpKind::Register
}

/// The XMM register that operand `n` is.
pub fn xmm(l: &Lift, n: u32) -> VReg {
    Reg(l.i.op_register(n).number() as u8 & 15)
}

/// The immediate byte that is the last operand, or 0.
pub fn immediate(l: &Lift) -> u8 {
    match l.i.op_count().checked_sub(1).map(|n| l.i.op_kind(n)) {
        Some(OpKind::Immediate8) => l.i.immediate8(),
        _ => 0,
    }
}

/// Operand `n` as a vector: an XMM register, or a temporary with the value of an MMX register or
/// of memory, zero-extended.
pub fn source(l: &mut Lift, n: u32) -> VReg {
    if !is_register(l, n) {
        let t = l.b.vtemp();
        load(l, t);
        t
    } else if l.i.op_register(n).is_mm() {
        mmx::read(l, l.i.op_register(n))
    } else {
        xmm(l, n)
    }
}

/// Whether a memory operand of 16 bytes (of a VEX form: any) must be aligned (SDM Vol. 1, 4.1.1 and
/// 14.9).
pub fn aligned(l: &Lift) -> bool {
    use Mnemonic::*;
    if is_vex(l) {
        return matches!(
            l.i.mnemonic(),
            Vmovaps | Vmovapd | Vmovdqa | Vmovntps | Vmovntpd | Vmovntdq | Vmovntdqa
        );
    }
    let unaligned = matches!(
        l.i.mnemonic(),
        Movups
            | Movupd
            | Movdqu
            | Lddqu
            | Pcmpestri
            | Pcmpestri64
            | Pcmpestrm
            | Pcmpestrm64
            | Pcmpistri
            | Pcmpistrm
    );
    !unaligned && l.i.memory_size().size() == 16
}

/// Loads the memory operand into `d`, zero-extended.
pub fn load(l: &mut Lift, d: VReg) {
    let (n, aligned) = (l.i.memory_size().size(), aligned(l));
    let m = l.mem(false);
    l.b.vload(n as u8, aligned, d, m);
}

/// Loads the memory operand into the XMM register that operand 0 is, zero-extended to 128 bits.
pub fn load_xmm(l: &mut Lift) {
    let d = xmm(l, 0);
    if l.mode & mode::AVX == 0 {
        return load(l, d);
    }
    let t = source(l, 1);
    l.b.v(V::Mov, 16, d, d, t, d, 0);
}

// ---- operations ---------------------------------------------------------------------------------

/// `op0 = vop(op0, op1, imm8)` on XMM registers.
pub fn op(l: &mut Lift, vop: V) -> Guest<()> {
    let imm = immediate(l);
    op_imm(l, vop, imm)
}

fn op_imm(l: &mut Lift, vop: V, imm: u8) -> Guest<()> {
    let d = xmm(l, 0);
    let b = if is_register(l, 1) || l.is_mem(1) { source(l, 1) } else { d };
    l.b.v(vop, 16, d, d, b, d, imm);
    Ok(())
}

/// CMPPS and its like; SSE knows eight predicates.
pub fn predicate(l: &mut Lift, vop: V) -> Guest<()> {
    let imm = immediate(l) & 7;
    op_imm(l, vop, imm)
}

/// COMISS and its like: flags only.
pub fn to_flags(l: &mut Lift, vop: V) -> Guest<()> {
    let (a, b) = (xmm(l, 0), source(l, 1));
    l.b.vx(vop, W64, Reg::ZERO, a, b, a, 0, OSZAPC);
    Ok(())
}

/// MOVMSKPS, PMOVMSKB and their like: a mask for a general register, zero-extended.
pub fn to_gpr(l: &mut Lift, vop: V) -> Guest<()> {
    let mmx = l.i.op1_register().is_mm();
    if !mmx {
        enabled(l)?;
    }
    let v = source(l, 1);
    if mmx {
        mmx::enter(l);
    }
    l.b.vx(vop, W32, gpr(l.i.op0_register()).0, v, v, v, 0, 0);
    Ok(())
}

/// CVTSS2SI and its like.
pub fn to_int(l: &mut Lift, to32: V, to64: V) -> Guest<()> {
    let (d, w) = (gpr(l.i.op0_register()).0, l.width(0));
    let v = source(l, 1);
    l.b.vx(if w == W64 { to64 } else { to32 }, w, d, v, v, v, 0, 0);
    Ok(())
}

/// CVTSI2SS, CVTSI2SD.
pub fn from_gpr(l: &mut Lift, from32: V, from64: V) -> Guest<()> {
    let (d, w, t) = (xmm(l, 0), l.width(1), l.b.vtemp());
    let v = l.read(1);
    l.b.vset(w, t, t, 0, v, true);
    l.b.v(if w == W64 { from64 } else { from32 }, 16, d, d, t, d, 0);
    Ok(())
}

/// CVTPI2PS, CVTPI2PD, MOVQ2DQ. From memory it has nothing to do with MMX (SDM Vol. 2 says so of
/// CVTPI2PD, and CPUs do it for CVTPI2PS).
pub fn from_mmx(l: &mut Lift, vop: V) -> Guest<()> {
    let d = xmm(l, 0);
    if is_register(l, 1) {
        // Before the conversion, even if that raises #XM: so do CPUs.
        mmx::enter(l);
    }
    let v = source(l, 1);
    l.b.v(vop, 16, d, d, v, d, 0);
    Ok(())
}

/// CVTPS2PI and its like.
pub fn to_mmx(l: &mut Lift, vop: V) -> Guest<()> {
    mmx::check(l);
    let (v, t) = (source(l, 1), l.b.vtemp());
    l.b.v(vop, 16, t, t, v, t, 0);
    mmx::write(l, l.i.op0_register(), t);
    Ok(())
}

// ---- moves --------------------------------------------------------------------------------------

/// Moves of all 16 bytes.
pub fn mov_all(l: &mut Lift) -> Guest<()> {
    if l.is_mem(0) {
        let aligned = aligned(l);
        let m = l.mem(true);
        l.b.vstore(16, aligned, m, xmm(l, 1));
        Ok(())
    } else if l.is_mem(1) {
        load_xmm(l);
        Ok(())
    } else {
        op(l, V::Mov)
    }
}

/// MOVSS, MOVSD: from memory zero-extended, between registers merged.
pub fn mov_scalar(l: &mut Lift, vop: V) -> Guest<()> {
    if l.is_mem(0) {
        store_low(l)
    } else if l.is_mem(1) {
        load_xmm(l);
        Ok(())
    } else {
        op(l, vop)
    }
}

/// MOVLPS, MOVLPD.
pub fn mov_low(l: &mut Lift) -> Guest<()> {
    if l.is_mem(0) { store_low(l) } else { op(l, V::Movsd) }
}

fn store_low(l: &mut Lift) -> Guest<()> {
    let n = l.i.memory_size().size() as u8;
    let m = l.mem(true);
    l.b.vstore(n, false, m, xmm(l, 1));
    Ok(())
}

/// MOVHPS, MOVHPD.
pub fn mov_high(l: &mut Lift) -> Guest<()> {
    if !l.is_mem(0) {
        return op(l, V::Punpcklqdq);
    }
    let t = l.b.temp();
    l.b.vget(W64, t, xmm(l, 1), 1);
    let m = l.mem(true);
    l.b.store(Op::St, W64, m, t);
    Ok(())
}

/// PEXTRB…PEXTRQ, EXTRACTPS: one lane of `w`, zero-extended into a register or stored.
pub fn extract(l: &mut Lift, w: Width) -> Guest<()> {
    let lane = |bytes: u8| immediate(l) & (bytes / w.bytes() as u8 - 1);
    if l.i.op1_register().is_mm() {
        let lane = lane(8);
        let v = source(l, 1);
        mmx::enter(l);
        l.b.vget(w, gpr(l.i.op0_register()).0, v, lane);
        return Ok(());
    }
    enabled(l)?;
    let (v, lane) = (xmm(l, 1), lane(16));
    if l.is_mem(0) {
        let t = l.b.temp();
        l.b.vget(w, t, v, lane);
        let m = l.mem_bytes(w.bytes() as u32, true);
        l.b.store(Op::St, w, m, t);
    } else {
        l.b.vget(w, gpr(l.i.op0_register()).0, v, lane);
    }
    Ok(())
}

/// PINSRB…PINSRQ: one lane of `w` from a register or memory.
pub fn insert(l: &mut Lift, w: Width) -> Guest<()> {
    let mm = l.i.op0_register();
    let lane = |bytes: u8| immediate(l) & (bytes / w.bytes() as u8 - 1);
    if mm.is_mm() {
        let lane = lane(8);
        let v = mmx::read(l, mm);
        let x = l.read(1);
        l.b.vset(w, v, v, lane, x, false);
        mmx::write(l, mm, v);
        return Ok(());
    }
    enabled(l)?;
    let (d, lane) = (xmm(l, 0), lane(16));
    let x = l.read(1);
    l.b.vset(w, d, d, lane, x, false);
    Ok(())
}

// ---- MXCSR --------------------------------------------------------------------------------------

/// LDMXCSR.
pub fn ldmxcsr(l: &mut Lift) -> Guest<()> {
    let v = l.read_reg(0);
    l.b.helper(&LDMXCSR, W32, 0, Reg::ZERO, v, Reg::ZERO, 0);
    l.end_block();
    Ok(())
}

/// STMXCSR.
pub fn stmxcsr(l: &mut Lift) -> Guest<()> {
    let t = l.b.temp();
    l.b.mxcsr(t);
    let m = l.mem(true);
    l.b.store(Op::St, W32, m, t);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::insn;
    use crate::lift::lift_insn;
    use emu_core::build::Builder;
    use emu_core::clock::Clock;
    use emu_core::cpu::{Cpu, Reg, mode};
    use emu_core::fault::{Fault, Guest};
    use emu_core::mem::PhysMem;
    use emu_core::uop::{Effect, Op, Uop};
    use iced_x86::{
        Code, CpuidFeature, Decoder, DecoderOptions, Instruction, InstructionInfoFactory, Mnemonic,
        OpAccess, Register,
    };
    use std::collections::{BTreeSet, HashSet};

    const MODE: u32 = mode::CODE64 | mode::FLAT | mode::SSE | mode::LONG;

    /// Whether the families of this and the neighbouring files have to know an instruction.
    fn ours(i: &Instruction) -> bool {
        use CpuidFeature::*;
        let families = [MMX, SSE, SSE2, SSE3, SSSE3, SSE4_1, SSE4_2, CLFSH];
        let foreign = [Mnemonic::Movnti, Mnemonic::Crc32, Mnemonic::Fisttp];
        i.code() != Code::INVALID
            && i.cpuid_features().iter().all(|f| families.contains(f))
            && !foreign.contains(&i.mnemonic())
    }

    /// Every instruction of ours, with register and memory operands, found by trying all opcodes
    /// of the two- and three-byte maps with all mandatory prefixes.
    fn all() -> Vec<(Vec<u8>, Instruction)> {
        let mut found = Vec::new();
        for (map, prefix) in [&[0x0f][..], &[0x0f, 0x38], &[0x0f, 0x3a]]
            .into_iter()
            .flat_map(|m| [&[][..], &[0x66], &[0xf3], &[0xf2]].map(|p| (m, p)))
        {
            for (opcode, modrm) in (0..=255).flat_map(|o| (0..=255).map(move |m| (o, m))) {
                for rex in [0x40, 0x48, 0x45] {
                    let imm = 0x1b;
                    let bytes =
                        [prefix, &[rex], map, &[opcode, modrm, imm, 0, 0, 0, 0, 0]].concat();
                    let i = Decoder::new(64, &bytes, DecoderOptions::NONE).decode();
                    let plain = modrm & 0xc0 == 0xc0 || modrm & 0xc7 == 1;
                    if plain && ours(&i) {
                        found.push((bytes, i));
                    }
                }
            }
        }
        let codes: HashSet<Code> = found.iter().map(|(_, i)| i.code()).collect();
        assert!(codes.len() > 400, "only {} encodings found", codes.len());
        found
    }

    fn lift(i: &Instruction, mode: u32) -> Vec<Uop> {
        let mut b = Builder::new();
        lift_insn(&mut b, i, mode, crate::sys::cpuid::Features::X86_64_V2.0);
        b.finish().uops
    }

    /// What a block writes: general registers, XMM registers, MMX registers, whether memory.
    type Writes = (BTreeSet<u8>, BTreeSet<u8>, BTreeSet<u8>, bool);

    fn said_by_uops(uops: &[Uop]) -> Writes {
        let mut w = Writes::default();
        for u in uops {
            match u.op {
                Op::V | Op::Vld | Op::Vset => drop(w.1.insert(u.d.0)),
                Op::Helper => match u.helper.unwrap().name {
                    "mmx_write" => drop(w.2.insert(u.k)),
                    "maskmov" => w.3 = true,
                    _ => {}
                },
                Op::St | Op::Vst => w.3 = true,
                _ if u.op.row().effect == Effect::End || u.op == Op::Chkw => {}
                _ => drop(w.0.insert(u.d.0)),
            }
        }
        w.0.retain(|r| *r < 16);
        w.1.retain(|r| *r < 16);
        w
    }

    fn said_by_iced(factory: &mut InstructionInfoFactory, i: &Instruction) -> Writes {
        let mut w = Writes::default();
        let info = factory.info(i);
        let writes = |a: OpAccess| {
            use OpAccess::*;
            matches!(a, Write | CondWrite | ReadWrite | ReadCondWrite)
        };
        for r in info.used_registers().iter().filter(|r| writes(r.access())) {
            let n = r.register().number() as u8;
            match r.register() {
                r if r.is_gpr() => drop(w.0.insert(n)),
                r if r.is_vector_register() => drop(w.1.insert(n)),
                r if r.is_mm() => drop(w.2.insert(n)),
                _ => {}
            }
        }
        w.3 = info.used_memory().iter().any(|m| writes(m.access()));
        w
    }

    #[test]
    fn rows_write_what_iced_says() {
        let mut factory = InstructionInfoFactory::new();
        for (_, i) in all() {
            let row = insn::row(&i);
            assert!(row.is_some(), "{:?} has no row", i.code());
            let uops = lift(&i, MODE);
            assert!(uops.iter().all(|u| u.op != Op::Raise), "{:?} is not lifted", i.code());
            let (mut ours, iced) = (said_by_uops(&uops), said_by_iced(&mut factory, &i));
            // MMX instructions write the exponent too, and iced has EMMS write all registers.
            if i.mnemonic() == Mnemonic::Emms {
                ours.2 = iced.2.clone();
            }
            assert_eq!(ours, iced, "{:?}: GPRs, XMMs, MMXs, memory\n{uops:x?}", i.code());
            let flags = uops.iter().fold(0, |f, u| if u.op == Op::Vx { f | u.fl } else { f });
            let all = if i.rflags_modified() != 0 { emu_core::flags::OSZAPC } else { 0 };
            assert_eq!(flags, all, "{:?}: flags", i.code());
            let width = uops.iter().find(|u| matches!(u.op, Op::Vld | Op::Vst)).map(|u| u.k & 127);
            if let Some(bytes) = width {
                assert_eq!(usize::from(bytes), i.memory_size().size(), "{:?}: bytes", i.code());
            }
        }
    }

    /// #UD and #NM by CR0.EM, CR0.TS and CR4.OSFXSR (SDM Vol. 3, tables 12-1 and 13-1).
    #[test]
    fn state_bits_fault() {
        for (_, i) in all() {
            let raised = |mode| match lift(&i, mode).as_slice() {
                [u] if u.op == Op::Raise => Some(u.imm as u8),
                _ => None,
            };
            let mut registers = i.op_kinds().enumerate().map(|(n, _)| i.op_register(n as u32));
            let free = i.op_count() <= 1
                && !matches!(i.mnemonic(), Mnemonic::Emms | Mnemonic::Ldmxcsr | Mnemonic::Stmxcsr);
            let mxcsr = i.op_count() == 1 || format!("{:?}", i.code()).starts_with("Cvt");
            let xmm = registers.any(|r: Register| r.is_xmm()) || mxcsr;
            let (ud, nm) = (Some(6), Some(7));
            let want = |fault| if free { None } else { fault };
            let at = format!("{:?}", i.code());
            assert_eq!(raised(MODE | mode::EM), want(ud), "{at} EM");
            assert_eq!(raised(MODE | mode::TS), want(nm), "{at} TS");
            assert_eq!(raised(MODE & !mode::SSE), if xmm { want(ud) } else { None }, "{at} SSE");
        }
    }

    /// Runs one instruction at a time, without its jump to the next.
    fn run(cpu: &mut Cpu, mut bytes: &[u8]) -> Guest<()> {
        while !bytes.is_empty() {
            let i = Decoder::new(64, bytes, DecoderOptions::NONE).decode();
            assert_ne!(i.code(), Code::INVALID, "{bytes:x?}");
            for u in lift(&i, MODE).iter().filter(|u| u.op.row().effect != Effect::End) {
                emu_core::rare::run(cpu, u)?;
            }
            bytes = &bytes[i.len()..];
        }
        Ok(())
    }

    /// A CPU without paging or devices.
    fn cpu() -> Cpu {
        let mem = PhysMem::flat(1 << 20).unwrap();
        let mut c = Cpu::new(mem, Clock::icount().into(), &crate::FRONTEND);
        c.features = crate::sys::cpuid::Features::X86_64_V2.0;
        c.sys.cr0 |= 1 << 5;
        c.mode = MODE;
        c.set_reg(Reg::RBX, 0x5000);
        c
    }

    const WORD: u64 = 0x8877_6655_4433_2211;

    #[test]
    fn mmx_takes_over_the_x87_state() {
        let mut c = cpu();
        c.x87.sw = 3 << 11;
        c.mem.write(0x5000, emu_core::width::Width::W64, WORD);
        // movq mm1, [rbx]; paddb mm1, mm1; movd eax, mm1
        run(&mut c, &[0x0f, 0x6f, 0x0b, 0x0f, 0xfc, 0xc9, 0x0f, 0x7e, 0xc8]).unwrap();
        assert_eq!(c.x87.st[1].mant, 0x10ee_ccaa_8866_4422);
        assert_eq!((c.x87.st[1].se, c.x87.sw, c.x87.full), (0xffff, 0, 0xff));
        assert_eq!(c.reg(Reg::RAX), 0x8866_4422);
        // emms
        run(&mut c, &[0x0f, 0x77]).unwrap();
        assert_eq!((c.x87.full, c.x87.st[1].mant), (0, 0x10ee_ccaa_8866_4422));
        // An unmasked zero-divide is pending: nothing happens but #MF.
        (c.x87.cw, c.x87.sw) = (0x37b, 4 | 1 << 7 | 1 << 15);
        let before = c.x87;
        assert_eq!(run(&mut c, &[0x0f, 0xfc, 0xc9]), Err(Fault::MF));
        assert_eq!(run(&mut c, &[0x0f, 0x77]), Err(Fault::MF));
        assert_eq!(c.x87, before);
    }

    #[test]
    fn a_store_that_faults_leaves_the_x87_state() {
        let mut c = cpu();
        c.x87.sw = 3 << 11;
        // Paging with an empty page directory.
        (c.sys.cr0, c.sys.cr3) = (c.sys.cr0 | 1 << 31, 0x8000);
        // movq [rbx], mm1; movntq [rbx], mm1
        for bytes in [[0x0f, 0x7f, 0x0b], [0x0f, 0xe7, 0x0b]] {
            assert_eq!(run(&mut c, &bytes).unwrap_err().vector, 14);
            assert_eq!((c.x87.sw, c.x87.full), (3 << 11, 0));
        }
    }

    #[test]
    fn alignment() {
        let mut c = cpu();
        c.set_reg(Reg::RBX, 0x5004);
        c.v[1] = [WORD, !WORD, 7, 7];
        // movaps [rbx], xmm1; addps xmm1, [rbx]
        assert_eq!(run(&mut c, &[0x0f, 0x29, 0x0b]), Err(Fault::GP0));
        assert_eq!(run(&mut c, &[0x0f, 0x58, 0x0b]), Err(Fault::GP0));
        // movups [rbx], xmm1; movups xmm2, [rbx]; movss xmm3, [rbx]; movhps [rbx], xmm1
        run(&mut c, &[0x0f, 0x11, 0x0b, 0x0f, 0x10, 0x13, 0xf3, 0x0f, 0x10, 0x1b]).unwrap();
        assert_eq!(c.v[2][..2], [WORD, !WORD]);
        assert_eq!(c.v[3][..2], [WORD & 0xffff_ffff, 0]);
        run(&mut c, &[0x0f, 0x17, 0x0b, 0xf3, 0x0f, 0x7e, 0x23]).unwrap();
        assert_eq!(c.v[4][..2], [!WORD, 0]);
    }

    #[test]
    fn mxcsr() {
        let mut c = cpu();
        c.mem.write(0x5000, emu_core::width::Width::W64, 0xffff);
        c.mem.write(0x5008, emu_core::width::Width::W64, 0x1_1f80);
        // ldmxcsr [rbx]; stmxcsr [rbx + 16]
        run(&mut c, &[0x0f, 0xae, 0x13, 0x0f, 0xae, 0x5b, 0x10]).unwrap();
        assert_eq!((c.mxcsr, c.phys_read(0x5010, emu_core::width::Width::W64)), (0xffff, 0xffff));
        assert_eq!(run(&mut c, &[0x0f, 0xae, 0x53, 0x08]), Err(Fault::GP0));
        // 1/0 with ZE unmasked: divss xmm1, xmm2.
        c.mxcsr = 0x1d80;
        c.sys.cr4 |= 1 << 10;
        (c.v[1], c.v[2]) = ([0x3f80_0000, 5, 0, 0], [0; 4]);
        assert_eq!(run(&mut c, &[0xf3, 0x0f, 0x5e, 0xca]), Err(Fault::XM));
        assert_eq!((c.mxcsr, c.v[1][0]), (0x1d84, 0x3f80_0000));
        // Code is lifted for masked exceptions, or for others: a change ends the run.
        c.budget = 100;
        for (value, mode, budget) in [(0x1fbf, 0, 100), (0x1f3f, mode::XM, 0), (0x1f80, 0, 0)] {
            c.mem.write(0x5000, emu_core::width::Width::W32, value);
            run(&mut c, &[0x0f, 0xae, 0x13]).unwrap();
            assert_eq!((c.mode & mode::XM, c.budget), (mode, budget), "{value:#x}");
        }
    }

    #[test]
    fn lanes_in_and_out() {
        let mut c = cpu();
        c.v[1] = [WORD, !WORD, 0, 0];
        c.set_reg(Reg::RAX, 0xffff_0000_1234_5678);
        // pextrw ecx, xmm1, 7; pextrb edx, xmm1, 0x11; pextrq rsi, xmm1, 1
        run(&mut c, &[0x66, 0x0f, 0xc5, 0xc9, 7]).unwrap();
        run(&mut c, &[0x66, 0x0f, 0x3a, 0x14, 0xca, 0x11]).unwrap();
        run(&mut c, &[0x66, 0x48, 0x0f, 0x3a, 0x16, 0xce, 1]).unwrap();
        assert_eq!([Reg::RCX, Reg::RDX, Reg::RSI].map(|r| c.reg(r)), [0x7788, 0x22, !WORD]);
        // pinsrw xmm1, eax, 9; pinsrd xmm1, eax, 3; pmovmskb ecx, xmm1
        run(&mut c, &[0x66, 0x0f, 0xc4, 0xc8, 9, 0x66, 0x0f, 0x3a, 0x22, 0xc8, 3]).unwrap();
        assert_eq!(c.v[1][..2], [0x8877_6655_5678_2211, 0x1234_5678_bbcc_ddee]);
        run(&mut c, &[0x66, 0x0f, 0xd7, 0xc9]).unwrap();
        assert_eq!(c.reg(Reg::RCX), 0x0f80);
        // cvtsi2sd xmm3, rax; cvttsd2si rdx, xmm3
        run(&mut c, &[0xf2, 0x48, 0x0f, 0x2a, 0xd8, 0xf2, 0x48, 0x0f, 0x2c, 0xd3]).unwrap();
        assert_eq!(c.reg(Reg::RDX), 0xffff_0000_1234_5678);
    }

    #[test]
    fn masked_stores() {
        let mut c = cpu();
        c.set_reg(Reg::RDI, 0x5ffa);
        c.v[1] = [WORD, WORD, 0, 0];
        c.v[2] = [0x80, 0x8000_0000_0000_0000, 0, 0];
        // maskmovdqu xmm1, xmm2, over a page border
        run(&mut c, &[0x66, 0x0f, 0xf7, 0xca]).unwrap();
        let byte = |c: &mut Cpu, at| c.phys_read(at, emu_core::width::Width::W8);
        assert_eq!(
            [0x5ff9, 0x5ffa, 0x5ffb, 0x6008, 0x6009].map(|a| byte(&mut c, a)),
            [0, 0x11, 0, 0, 0x88]
        );
        assert_eq!(c.x87.full, 0);
    }

    #[test]
    fn strings() {
        let mut c = cpu();
        let text = |s: &[u8; 16]| {
            let w = u128::from_le_bytes(*s);
            [w as u64, (w >> 64) as u64, 0, 0]
        };
        c.v[0] = text(b"ab\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
        c.v[1] = text(b"xxabxxxabxxx\0abc");
        // pcmpistri xmm0, xmm1, 0x0c (equal ordered)
        run(&mut c, &[0x66, 0x0f, 0x3a, 0x63, 0xc1, 0x0c]).unwrap();
        assert_eq!((c.reg(Reg::RCX), c.flags.bits()), (2, 0xc1));
        // The lengths are EAX and EDX, as absolute values: pcmpestrm xmm0, xmm1, 0x4c
        c.set_reg(Reg::RAX, 0x1_ffff_fffe);
        c.set_reg(Reg::RDX, 16);
        run(&mut c, &[0x66, 0x0f, 0x3a, 0x60, 0xc1, 0x4c]).unwrap();
        assert_eq!(c.v[0][..2], [0xff00_0000_00ff_0000, 0xff00_0000_0000]);
        assert_eq!(c.flags.bits(), 0x81);
    }
}
