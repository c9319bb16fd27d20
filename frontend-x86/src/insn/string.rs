//! String instructions with and without REP (SDM Vol. 1, 5.1.8; Vol. 2, REP).
//!
//! One helper runs up to [`CHUNK`] iterations and says where to go on: at the next instruction, or
//! at the same one when iterations are left, so that interrupts come through. A fault leaves the
//! registers as after the last whole iteration: the instruction is restartable. Eight iterations
//! are charged to the budget as one instruction. MOVS and STOS going
//! upwards over ordinary RAM run as page-chunked copies and fills.

use super::system;
use crate::lift::Lift;
use crate::operand::seg;
use crate::sys::segment;
use crate::{helpers, rows};
use emu_core::cpu::{Cpu, Reg, Seg, mode};
use emu_core::fault::Guest;
use emu_core::flags::rflags::{DF, RF, TF};
use emu_core::uop::{Args, Op, PureOp, ops};
use emu_core::width::Width::{self, W8, W16, W32, W64};
use iced_x86::OpKind;

rows! {
    Movsb: STRING, Innocuous, movs;
    Movsw: STRING, Innocuous, movs;
    Movsd: STRING, Innocuous, movs;
    Movsq: STRING, Innocuous, movs;
    Stosb: STRING, Innocuous, stos;
    Stosw: STRING, Innocuous, stos;
    Stosd: STRING, Innocuous, stos;
    Stosq: STRING, Innocuous, stos;
    Lodsb: STRING, Innocuous, lods;
    Lodsw: STRING, Innocuous, lods;
    Lodsd: STRING, Innocuous, lods;
    Lodsq: STRING, Innocuous, lods;
    Cmpsb: STRING, Innocuous, cmps;
    Cmpsw: STRING, Innocuous, cmps;
    Cmpsd: STRING, Innocuous, cmps;
    Cmpsq: STRING, Innocuous, cmps;
    Scasb: STRING, Innocuous, scas;
    Scasw: STRING, Innocuous, scas;
    Scasd: STRING, Innocuous, scas;
    Scasq: STRING, Innocuous, scas;
    Insb: STRING, Control, ins;
    Insw: STRING, Control, ins;
    Insd: STRING, Control, ins;
    Outsb: STRING, Control, outs;
    Outsw: STRING, Control, outs;
    Outsd: STRING, Control, outs;
}

helpers! {
    MOVS = "movs" run_movs;
    STOS = "stos" run_stos;
    LODS = "lods" run_lods;
    CMPS = "cmps" run_cmps;
    SCAS = "scas" run_scas;
    INS = "ins" run_ins;
    OUTS = "outs" run_outs;
}

/// Most iterations of one call.
const CHUNK: u64 = 1 << 14;

const REPE: u8 = 1;
const REPNE: u8 = 2;

fn movs(l: &mut Lift) -> Guest<()> {
    string(l, &MOVS)
}
fn stos(l: &mut Lift) -> Guest<()> {
    string(l, &STOS)
}
fn lods(l: &mut Lift) -> Guest<()> {
    string(l, &LODS)
}
fn cmps(l: &mut Lift) -> Guest<()> {
    string(l, &CMPS)
}
fn scas(l: &mut Lift) -> Guest<()> {
    string(l, &SCAS)
}
fn ins(l: &mut Lift) -> Guest<()> {
    string(l, &INS)
}
fn outs(l: &mut Lift) -> Guest<()> {
    string(l, &OUTS)
}

/// `w` is the element's width, `k` the repeat prefix, `imm` the address width and the source
/// segment; `a` is the next RIP, `b` this instruction's, `d` takes the one to go on at.
fn string(l: &mut Lift, h: &'static emu_core::uop::HelperDef) -> Guest<()> {
    let mut addr = W64;
    let mut source = Seg::Ds;
    let mut w = W8;
    for n in 0..l.i.op_count() {
        match l.i.op_kind(n) {
            OpKind::MemorySegSI | OpKind::MemoryESDI => addr = W16,
            OpKind::MemorySegESI | OpKind::MemoryESEDI => addr = W32,
            OpKind::MemorySegRSI | OpKind::MemoryESRDI => addr = W64,
            _ => continue,
        }
        w = Width::from_bytes(l.i.memory_size().size()).unwrap_or(W8);
    }
    // Only a source operand has a segment of choice; a destination is always in ES.
    if (0..l.i.op_count()).any(|n| {
        matches!(l.i.op_kind(n), OpKind::MemorySegSI | OpKind::MemorySegESI | OpKind::MemorySegRSI)
    }) {
        source = seg(l.i.memory_segment());
    }
    let compares = matches!(h.name, "cmps" | "scas");
    let rep = match (l.i.has_repe_prefix(), l.i.has_repne_prefix()) {
        (true, _) => REPE,
        (_, true) if compares => REPNE,
        (_, true) => REPE,
        _ => 0,
    };
    l.b.restartable();
    let next = l.next_rip();
    let here = l.b.temp();
    let off = l.b.insn_offset();
    let ip = l.rip_width();
    l.b.op_nf(Op::Add, ip, here, Reg::RIP, off);
    if h.name == "ins" || h.name == "outs" {
        system::check_port(l, Reg::RDX, w);
    }
    let imm = addr as u64 | (source as u64) << 2;
    l.b.helper(h, w, rep, next, next, here, imm);
    if rep == 0 && compares {
        return Ok(());
    }
    if rep == 0 {
        let to = l.b.next_offset();
        l.b.goto(ip, to);
    } else {
        l.b.jmpi(ip, next);
    }
    Ok(())
}

/// What one string instruction works with.
struct Step {
    w: Width,
    addr: Width,
    source: Seg,
    /// Bytes by which the index registers move.
    delta: u64,
}

impl Step {
    fn offset(&self, cpu: &Cpu, r: Reg) -> u64 {
        self.addr.zext(cpu.reg(r))
    }

    fn linear(&self, cpu: &mut Cpu, s: Seg, r: Reg, write: bool) -> Guest<u64> {
        let off = self.offset(cpu, r);
        if cpu.mode & mode::CODE64 != 0 {
            return Ok(match s {
                Seg::Fs | Seg::Gs => off.wrapping_add(cpu.base(s)),
                _ => off,
            });
        }
        segment::linear(cpu, s, off, self.w.bytes() as u32, write)
    }

    fn advance(&self, cpu: &mut Cpu, r: Reg, by: u64) {
        let v = cpu.reg(r).wrapping_add(by);
        cpu.write_reg(r, self.addr, v);
    }
}

fn run_movs(cpu: &mut Cpu, x: Args) -> Guest<()> {
    run(cpu, x, movs_step, false)
}
fn run_stos(cpu: &mut Cpu, x: Args) -> Guest<()> {
    run(cpu, x, stos_step, false)
}
fn run_lods(cpu: &mut Cpu, x: Args) -> Guest<()> {
    run(cpu, x, lods_step, false)
}
fn run_cmps(cpu: &mut Cpu, x: Args) -> Guest<()> {
    run(cpu, x, cmps_step, true)
}
fn run_scas(cpu: &mut Cpu, x: Args) -> Guest<()> {
    run(cpu, x, scas_step, true)
}
fn run_ins(cpu: &mut Cpu, x: Args) -> Guest<()> {
    run(cpu, x, ins_step, false)
}
fn run_outs(cpu: &mut Cpu, x: Args) -> Guest<()> {
    run(cpu, x, outs_step, false)
}

/// Runs `step` once, or while the count lasts and the condition holds. A step does up to the given
/// number of iterations and says how many.
fn run(
    cpu: &mut Cpu,
    x: Args,
    step: fn(&mut Cpu, &Step, u64) -> Guest<u64>,
    compares: bool,
) -> Guest<()> {
    let down = cpu.sysflags & DF != 0;
    let n = x.w.bytes();
    let s = Step {
        w: x.w,
        addr: Width::from_index(x.imm as u8),
        source: Seg::ALL[(x.imm >> 2 & 7).min(5) as usize],
        delta: if down { n.wrapping_neg() } else { n },
    };
    let (next, here) = (cpu.reg(x.a), cpu.reg(x.b));
    if x.k == 0 {
        step(cpu, &s, 1)?;
        return Ok(());
    }
    // A single-step trap comes after each iteration. Between two of them RF is set for what is
    // pushed then, and so that this instruction's breakpoint does not hit again (SDM Vol. 3,
    // 17.3.1.1).
    let mut left = if cpu.sysflags & TF != 0 { 1 } else { CHUNK };
    cpu.sysflags &= !RF;
    while s.offset(cpu, Reg::RCX) != 0 {
        if left == 0 || cpu.watch.hits != 0 {
            cpu.sysflags |= RF;
            cpu.set_reg(x.d, here);
            return Ok(());
        }
        let count = s.offset(cpu, Reg::RCX).min(left);
        let done = step(cpu, &s, count)?;
        s.advance(cpu, Reg::RCX, done.wrapping_neg());
        // Iterations take time: without a charge, a guest could make one slice last for minutes.
        cpu.budget -= ((left >> 3) - ((left - done) >> 3)) as i64;
        left -= done;
        if compares && cpu.flags.zf() != (x.k == REPE) {
            break;
        }
        if !cpu.smc.is_empty() {
            // A store went into translated code: let the run loop see to it.
            let more = s.offset(cpu, Reg::RCX) != 0;
            cpu.sysflags |= if more { RF } else { 0 };
            cpu.set_reg(x.d, if more { here } else { next });
            return Ok(());
        }
    }
    cpu.set_reg(x.d, next);
    Ok(())
}

/// How many elements of `s.w` from linear address `va` on lie in one page, going upwards.
fn in_page(s: &Step, va: u64) -> u64 {
    (4096 - (va & 4095)) / s.w.bytes()
}

fn movs_step(cpu: &mut Cpu, s: &Step, count: u64) -> Guest<u64> {
    let from = s.linear(cpu, s.source, Reg::RSI, false)?;
    let to = match s.linear(cpu, Seg::Es, Reg::RDI, true) {
        Ok(to) => to,
        // What is wrong with the source comes first.
        Err(f) => return cpu.read(from, s.w).and(Err(f)),
    };
    let whole = cpu.mode & (mode::CODE64 | mode::FLAT) != 0 && s.addr >= W32 && s.delta < 16;
    let n = count.min(in_page(s, from)).min(in_page(s, to));
    if whole && n > 1 {
        let bytes = n * s.w.bytes();
        // First touch of either page goes through the slow path below.
        if let (Some(src), Some(dst)) = (cpu.tlb.read(from, 1), cpu.tlb.write(to, 1)) {
            // Elements that overlap with the ones just written are copied one by one.
            if !(1..s.w.bytes()).contains(&dst.wrapping_sub(src)) {
                cpu.mem.ram.copy_forward(dst, src, bytes);
                s.advance(cpu, Reg::RSI, bytes);
                s.advance(cpu, Reg::RDI, bytes);
                return Ok(n);
            }
        }
    }
    let v = cpu.read(from, s.w)?;
    cpu.write(to, s.w, v)?;
    s.advance(cpu, Reg::RSI, s.delta);
    s.advance(cpu, Reg::RDI, s.delta);
    Ok(1)
}

fn stos_step(cpu: &mut Cpu, s: &Step, count: u64) -> Guest<u64> {
    let to = s.linear(cpu, Seg::Es, Reg::RDI, true)?;
    let v = s.w.zext(cpu.reg(Reg::RAX));
    let whole = cpu.mode & (mode::CODE64 | mode::FLAT) != 0 && s.addr >= W32 && s.delta < 16;
    let n = count.min(in_page(s, to));
    if whole
        && n > 1
        && let Some(dst) = cpu.tlb.write(to, 1)
    {
        cpu.mem.ram.fill(dst, s.w, v, n);
        s.advance(cpu, Reg::RDI, n * s.w.bytes());
        return Ok(n);
    }
    cpu.write(to, s.w, v)?;
    s.advance(cpu, Reg::RDI, s.delta);
    Ok(1)
}

fn lods_step(cpu: &mut Cpu, s: &Step, _count: u64) -> Guest<u64> {
    let from = s.linear(cpu, s.source, Reg::RSI, false)?;
    let v = cpu.read(from, s.w)?;
    cpu.write_reg(Reg::RAX, s.w, v);
    s.advance(cpu, Reg::RSI, s.delta);
    Ok(1)
}

fn cmps_step(cpu: &mut Cpu, s: &Step, _count: u64) -> Guest<u64> {
    // The order of two faults is not told; CPUs look at the second operand first.
    let to = s.linear(cpu, Seg::Es, Reg::RDI, false)?;
    let b = cpu.read(to, s.w)?;
    let from = s.linear(cpu, s.source, Reg::RSI, false)?;
    let a = cpu.read(from, s.w)?;
    cpu.flags = ops::Sub::eval(s.w, 0, a, b, 0, cpu.flags).1;
    s.advance(cpu, Reg::RSI, s.delta);
    s.advance(cpu, Reg::RDI, s.delta);
    Ok(1)
}

fn scas_step(cpu: &mut Cpu, s: &Step, _count: u64) -> Guest<u64> {
    let to = s.linear(cpu, Seg::Es, Reg::RDI, false)?;
    let b = cpu.read(to, s.w)?;
    cpu.flags = ops::Sub::eval(s.w, 0, cpu.reg(Reg::RAX), b, 0, cpu.flags).1;
    s.advance(cpu, Reg::RDI, s.delta);
    Ok(1)
}

fn ins_step(cpu: &mut Cpu, s: &Step, _count: u64) -> Guest<u64> {
    let to = s.linear(cpu, Seg::Es, Reg::RDI, true)?;
    // The port is read only when the store cannot fault any more.
    cpu.check_alignment(to, s.w.bytes())?;
    cpu.probe(to, s.w.bytes(), emu_core::mem::tlb::Access::Write)?;
    let v = cpu.port_in(cpu.reg(Reg::RDX) as u16, s.w);
    cpu.write(to, s.w, v.into())?;
    s.advance(cpu, Reg::RDI, s.delta);
    Ok(1)
}

fn outs_step(cpu: &mut Cpu, s: &Step, _count: u64) -> Guest<u64> {
    let from = s.linear(cpu, s.source, Reg::RSI, false)?;
    let v = cpu.read(from, s.w)?;
    cpu.port_out(cpu.reg(Reg::RDX) as u16, s.w, v as u32);
    s.advance(cpu, Reg::RSI, s.delta);
    Ok(1)
}
