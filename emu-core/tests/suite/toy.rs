//! A frontend small enough to see through: a flat or one-level paged memory, and a byte code of
//! four bytes an instruction, `[opcode, x, y, z]`.

use emu_core::build::Builder;
use emu_core::cpu::{Cpu, Frontend, Reg, Seg, mode};
use emu_core::fault::{Fault, Guest};
use emu_core::flags::rflags;
use emu_core::mem::phys::Writes;
use emu_core::mem::tlb::{Access, Kind, Rights};
use emu_core::uop::{Args, Block, HelperDef, Mem, Op};
use emu_core::width::Width::{self, W8, W64};

/// `x += y` (signed), all flags.
pub const ADD: u8 = 1;
/// `x = y`.
pub const MOV: u8 = 2;
/// Jump `x` (signed) instructions from the next one.
pub const JMP: u8 = 3;
/// The same if not zero.
pub const JNZ: u8 = 4;
/// Byte at register `x` + `z` = `y`.
pub const STORE: u8 = 5;
/// `x` = byte at register `y` + `z`.
pub const LOAD: u8 = 6;
/// Halt.
pub const HALT: u8 = 7;
/// Jump to register `x`.
pub const JMPI: u8 = 8;
/// Map page `x` to physical page `y`.
pub const MAP: u8 = 9;
/// `x -= 1`, all flags.
pub const DEC: u8 = 10;
/// Interrupts on, with a shadow over the next instruction.
pub const STI: u8 = 11;
/// Push register `x`.
pub const PUSH: u8 = 12;
/// Pop register `x`.
pub const POP: u8 = 13;
/// Single-step from the next instruction on if `x`, else no more.
pub const TRAP: u8 = 14;
/// Byte at register `x` + `z` += `y`.
pub const RMW: u8 = 15;
/// Bytes of an instruction.
pub const LEN: u64 = 4;
/// Where [`MAP`] keeps its table, when `cr3` says that there is one: a word a page.
pub const TABLE: u64 = 0x8000;
/// Most instructions in a block.
const MOST: usize = 16;

/// The frontend.
pub static FRONTEND: Frontend = Frontend {
    translate,
    lift,
    deliver_fault,
    deliver_interrupt,
    linear,
    single_step,
    helpers: &[&[&MIX], &[&HALT_NOW, &MAP_PAGE, &STI_NOW, &TRAP_FLAG]],
};

/// A helper that touches a bit of everything: for random blocks.
pub static MIX: HelperDef = HelperDef::new("mix", mix);
static HALT_NOW: HelperDef = HelperDef::new("halt", halt);
static MAP_PAGE: HelperDef = HelperDef::new("map_page", map_page);
static STI_NOW: HelperDef = HelperDef::new("sti", sti);
static TRAP_FLAG: HelperDef = HelperDef::new("trap_flag", trap_flag);

fn mix(cpu: &mut Cpu, x: Args) -> Guest<()> {
    if x.imm & 7 == 7 {
        return Err(Fault::gp(u32::from(x.k)));
    }
    let v = cpu.reg(x.a).wrapping_mul(x.imm | 1) ^ cpu.reg(x.b).rotate_left(x.k.into());
    cpu.write_reg(x.d, x.w, v);
    cpu.flags = emu_core::flags::Flags::from_bits(v as u32);
    Ok(())
}

fn halt(cpu: &mut Cpu, x: Args) -> Guest<()> {
    cpu.halted = true;
    cpu.set_rip(cpu.rip().wrapping_add(x.imm));
    Ok(())
}

fn map_page(cpu: &mut Cpu, x: Args) -> Guest<()> {
    let (page, to) = (x.imm & 0xff, x.imm >> 8);
    cpu.mem.write(TABLE + 8 * page, W64, to << 12 | 1);
    cpu.tlb.invalidate(page << 12, None);
    Ok(())
}

fn sti(cpu: &mut Cpu, _: Args) -> Guest<()> {
    cpu.sysflags |= rflags::IF;
    cpu.shadow = true;
    Ok(())
}

fn trap_flag(cpu: &mut Cpu, x: Args) -> Guest<()> {
    cpu.sysflags = cpu.sysflags & !rflags::TF | if x.imm != 0 { rflags::TF } else { 0 };
    Ok(())
}

fn translate(cpu: &mut Cpu, va: u64, access: Access) -> Guest<u64> {
    if va.wrapping_add(1 << 47) >> 48 != 0 {
        return Err(Fault::GP0);
    }
    let code = u32::from(access == Access::Write) << 1;
    let pa = match cpu.sys.cr3 {
        0 => va,
        _ if va >> 12 > 0xff => return Err(Fault::page(va, code)),
        _ => match cpu.mem.read(TABLE + 8 * (va >> 12), W64) {
            0 => return Err(Fault::page(va, code)),
            e => e & !4095 | va & 4095,
        },
    };
    let Some((off, writes)) = cpu.mem.lookup(pa) else { return Err(Fault::page(va, code)) };
    if access == Access::Exec {
        cpu.tlb.insert_fetch(va, off, Kind::default());
    } else {
        let write = writes == Writes::Ram && access == Access::Write;
        let code = cpu.mem.code.is_watched(off);
        let rights = Rights { read: true, write: write && !code, code: write && code };
        cpu.tlb.insert(va, off, rights, Kind::default());
    }
    Ok(pa)
}

/// Segments have a limit of 1 MiB; stores into CS don't do.
fn linear(cpu: &mut Cpu, seg: Seg, off: u64, size: u32, write: bool) -> Guest<u64> {
    if size == 0 {
        // An instruction pointer of 64-bit code.
        return if (off << 16) as i64 >> 16 == off as i64 { Ok(off) } else { Err(Fault::GP0) };
    }
    let last = off.checked_add(u64::from(size).saturating_sub(1));
    if last.is_none_or(|l| l >> 20 != 0) || write && seg == Seg::Cs {
        return Err(Fault::GP0);
    }
    Ok(cpu.base(seg).wrapping_add(off))
}

/// Counts the fault; goes on at LSTAR, if that is set.
fn deliver_fault(cpu: &mut Cpu, f: Fault) {
    cpu.vectors[f.vector as usize] += 1;
    cpu.sys.cr2 = cpu.rip();
    cpu.set_rip(cpu.sys.lstar);
    cpu.shutdown = cpu.sys.lstar == 0;
}

fn deliver_interrupt(cpu: &mut Cpu, vector: u8, _nmi: bool) {
    cpu.vectors[vector as usize] += 1;
    cpu.sysflags &= !rflags::IF;
    cpu.sys.cr2 = cpu.rip();
    cpu.set_rip(cpu.sys.lstar);
}

fn single_step(cpu: &mut Cpu) {
    cpu.vectors[1] += 1;
}

fn fetch(cpu: &mut Cpu, at: u64) -> Guest<[u8; 4]> {
    let mut insn = [0; 4];
    for (i, b) in insn.iter_mut().enumerate() {
        let pa = translate(cpu, at + i as u64, Access::Exec)?;
        *b = cpu.mem.read(pa, W8) as u8;
    }
    Ok(insn)
}

fn lift(cpu: &mut Cpu) -> Guest<Block> {
    let start = cpu.rip();
    let most = if cpu.mode & mode::SINGLE != 0 { 1 } else { MOST };
    let mut b = Builder::new();
    for n in 0..most as u64 {
        let at = start + n * LEN;
        let straddles = (at + LEN - 1) >> 12 != start >> 12;
        if n > 0 && straddles {
            break;
        }
        lift_insn(&mut b, fetch(cpu, at)?);
        if b.ended() || straddles {
            break;
        }
    }
    if !b.ended() {
        let to = b.next_offset();
        b.goto(W64, to);
    }
    Ok(b.finish())
}

fn lift_insn(b: &mut Builder, [op, x, y, z]: [u8; 4]) {
    b.start_insn(LEN as u8);
    let next = b.next_offset();
    let target = next + i64::from(x as i8) * LEN as i64;
    let (rx, ry) = (Reg::gpr(x), Reg::gpr(y));
    let at = |r: Reg| Mem::at(r, z.into());
    let none = Reg::ZERO;
    match op {
        0 => {}
        ADD => b.op(Op::Add, W64, rx, rx, i64::from(y as i8)),
        MOV => b.mov(W64, rx, ry),
        JMP => b.goto(W64, target),
        JNZ => b.jcc(W64, 5, target, next),
        STORE => b.store(Op::St, W8, at(rx), ry),
        LOAD => b.load(Op::Ldz, W8, rx, at(ry)),
        HALT => {
            b.helper(&HALT_NOW, W64, 0, none, none, none, next as u64);
            b.exit();
        }
        JMPI => b.jmpi(W64, rx),
        MAP => {
            b.helper(&MAP_PAGE, W64, 0, none, none, none, u64::from(y) << 8 | u64::from(x));
            b.leave(W64);
        }
        DEC => b.op(Op::Sub, W64, rx, rx, 1),
        STI => {
            b.helper(&STI_NOW, W64, 0, none, none, none, 0);
            b.leave(W64);
        }
        PUSH => {
            b.store(Op::St, W64, Mem { stack: true, ..Mem::at(Reg::RSP, -8) }, rx);
            b.op_nf(Op::Add, W64, Reg::RSP, Reg::RSP, -8);
        }
        POP => {
            b.load(Op::Ld, W64, rx, Mem { stack: true, ..Mem::at(Reg::RSP, 0) });
            b.op_nf(Op::Add, W64, Reg::RSP, Reg::RSP, 8);
        }
        TRAP => {
            b.helper(&TRAP_FLAG, W64, 0, none, none, none, x.into());
            b.leave(W64);
        }
        RMW => {
            let (t, r) = (b.temp(), b.temp());
            b.load(Op::Ldw, W8, t, at(rx));
            b.op(Op::Add, Width::W8, r, t, i64::from(y as i8));
            b.store(Op::Stw, W8, at(rx), r);
        }
        _ => b.raise(emu_core::fault::vector::UD, false),
    }
}
