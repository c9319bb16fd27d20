//! Lifting: guest bytes at RIP → one [`Block`] of micro-ops.
//!
//! A block is straight-line code inside one page. It ends at a branch, at an instruction after
//! which the dispatcher must look again (mode changes, interrupt windows), before an instruction
//! that does not fit into the page, or after [`MAX_INSNS`]. An instruction that straddles two pages
//! is a block of its own. Blocks are position-independent: they are decoded as if they began at
//! address 0, and RIP at run time is that of their first byte.

use crate::insn;
use crate::row::Attr;
use crate::sensitive;
use crate::sys::cpuid::Features;
use emu_core::build::Builder;
use emu_core::cpu::{Cpu, Reg, mode};
use emu_core::fault::{Fault, Guest, vector};
use emu_core::interp::handlers::BLOCK_MAX;
use emu_core::mem::tlb::Access;
use emu_core::patch::Patch;
use emu_core::uop::Block;
use emu_core::width::Width::{self, W16, W32, W64};
use iced_x86::{Code, Decoder, DecoderError, DecoderOptions, EncodingKind, Instruction, Mnemonic};

/// Most guest instructions in a block.
pub const MAX_INSNS: usize = 64;
/// Guest bytes fetched for a block at most.
const WINDOW: usize = 512;
/// Longest x86 instruction.
const MAX_LEN: usize = 15;
const _: () = assert!((MAX_INSNS * MAX_LEN) as u64 <= BLOCK_MAX);

/// One instruction being lifted: what its row's lifter sees.
pub struct Lift<'a> {
    /// Where the micro-ops go.
    pub b: &'a mut Builder,
    /// The decoded instruction; addresses in it are relative to the block's first byte.
    pub i: &'a Instruction,
    /// [`mode`] bits the block is lifted for.
    pub mode: u32,
    /// What the CPU has.
    pub features: Features,
    /// Where the block comes from.
    pub source: Source<'a>,
}

/// Where a block's bytes are, as far as its micro-ops may depend on it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Source<'a> {
    /// RAM offset of the first byte.
    pub off: u64,
    /// Immediates in its page that are overwritten often.
    pub patches: &'a [Patch],
}

impl Lift<'_> {
    /// Whether the CPU has `f`.
    pub fn has(&self, f: Features) -> bool {
        self.features.0 & f.0 == f.0
    }

    /// 64-bit code.
    pub fn code64(&self) -> bool {
        self.mode & mode::CODE64 != 0
    }

    /// Width of the instruction pointer of near branches: 64 in 64-bit code, else the operand
    /// size (`size16` if that is 16).
    pub fn ip_width(&self, size16: bool) -> Width {
        match (self.code64(), size16) {
            (true, _) => W64,
            (false, true) => W16,
            (false, false) => W32,
        }
    }

    /// Width that RIP wraps at when execution just goes on.
    pub fn rip_width(&self) -> Width {
        match self.mode & (mode::CODE64 | mode::CODE32) {
            mode::CODE64 => W64,
            mode::CODE32 => W32,
            _ => W16,
        }
    }

    /// A temporary that holds the address of the next instruction.
    pub fn next_rip(&mut self) -> Reg {
        let t = self.b.temp();
        let next = self.b.next_offset();
        self.b.op_nf(emu_core::uop::Op::Add, self.rip_width(), t, Reg::RIP, next);
        t
    }

    /// Ends the block after this instruction: the budget is looked at before the next one.
    pub fn end_block(&mut self) {
        let to = self.b.next_offset();
        let w = self.rip_width();
        self.b.goto(w, to);
    }

    /// Ends the block after this instruction and goes on through the dispatcher.
    pub fn leave(&mut self) {
        let w = self.rip_width();
        self.b.leave(w);
    }
}

/// Bits of code per `mode`: 16, 32 or 64.
pub fn bitness(mode: u32) -> u32 {
    match mode & (mode::CODE64 | mode::CODE32) {
        mode::CODE64 => 64,
        mode::CODE32 => 32,
        _ => 16,
    }
}

/// Lifts the block at the CPU's RIP; see [`emu_core::cpu::Frontend`].
///
/// # Errors
/// The fault of fetching its first instruction.
pub fn lift(cpu: &mut Cpu) -> Guest<Block> {
    let va = cpu.linear_rip();
    let pa = (cpu.frontend.translate)(cpu, va, Access::Exec)?;
    let mut window = [0; WINDOW];
    let in_page = (4096 - (pa & 4095) as usize).min(WINDOW);
    cpu.mem.read_bytes(pa, &mut window[..in_page]);
    let most = if cpu.mode & mode::SINGLE != 0 { 1 } else { MAX_INSNS };
    let in_ram = cpu.mem.lookup(pa);
    let source = in_ram
        .map_or_else(Source::default, |(off, _)| Source { off, patches: cpu.patches.in_page(off) });
    let (block, complete) = lift_from(source, &window[..in_page], cpu.mode, cpu.features, most);
    if complete || !block.insns.is_empty() || in_page >= MAX_LEN {
        return Ok(block);
    }
    // The very first instruction goes on in the next page.
    let next = cpu.wrap_linear(va.wrapping_add(in_page as u64));
    let pa2 = (cpu.frontend.translate)(cpu, next, Access::Exec)?;
    cpu.mem.read_bytes(pa2, &mut window[in_page..in_page + MAX_LEN]);
    Ok(lift_bytes(&window[..in_page + MAX_LEN], cpu.mode, cpu.features, 1).0)
}

/// Lifts up to `most` instructions from `bytes` for `mode` and the CPU `features`. The second
/// value is false when it stopped because the bytes ran out.
pub fn lift_bytes(bytes: &[u8], mode: u32, features: u128, most: usize) -> (Block, bool) {
    lift_from(Source::default(), bytes, mode, features, most)
}

fn lift_from(
    source: Source,
    bytes: &[u8],
    mode: u32,
    features: u128,
    most: usize,
) -> (Block, bool) {
    let mut decoder = Decoder::with_ip(bitness(mode), bytes, 0, DecoderOptions::NONE);
    let mut b = Builder::new();
    let mut insn = Instruction::default();
    let mut complete = true;
    let mut after_sti = false;
    while b.insn_count() < most {
        decoder.decode_out(&mut insn);
        if insn.code() == Code::INVALID && decoder.last_error() == DecoderError::NoMoreBytes {
            // Longer than 15 bytes is #GP, not a fetch from further on.
            let start = b.next_offset() as usize;
            complete = bytes.len() - start >= MAX_LEN;
            if complete {
                b.start_insn(MAX_LEN as u8);
                b.raise(vector::GP, true);
            }
            break;
        }
        if insn.code() == Code::Pause && insn.len() > 2 && bitness(mode) == 64 {
            let start = b.next_offset() as usize;
            let end = bytes.len().min(start + insn.len());
            insn = pause_or_xchg(&bytes[start..end], insn);
        }
        if insn.code() == Code::INVALID && insn.len() == MAX_LEN {
            let start = b.next_offset() as usize;
            if too_long(&bytes[start.min(bytes.len())..], bitness(mode)) {
                b.start_insn(MAX_LEN as u8);
                b.raise(vector::GP, true);
                break;
            }
        }
        let sti = insn.mnemonic() == Mnemonic::Sti;
        let next = b.next_offset() as usize + insn.len();
        let last = sti && (b.insn_count() + 1 >= most || !is_whole(&bytes[next..], mode));
        let mode = if last { mode | mode::SINGLE } else { mode };
        lift_insn_from(source, &mut b, &insn, mode, features);
        if b.ended() || after_sti {
            break;
        }
        after_sti = sti;
    }
    if !b.ended() && b.insn_count() > 0 {
        let to = b.next_offset();
        let w = match bitness(mode) {
            64 => W64,
            32 => W32,
            _ => W16,
        };
        b.goto(w, to);
    }
    (b.finish(), complete)
}

/// Whether all of the first instruction is in `bytes`.
fn is_whole(bytes: &[u8], mode: u32) -> bool {
    let mut decoder = Decoder::with_ip(bitness(mode), bytes, 0, DecoderOptions::NONE);
    let known = decoder.decode().code() != Code::INVALID;
    known || bytes.len() >= MAX_LEN || decoder.last_error() != DecoderError::NoMoreBytes
}

/// Whether `bytes` are an instruction that only its prefixes make invalid, by making it longer
/// than 15 bytes: that is #GP and not #UD.
fn too_long(bytes: &[u8], bits: u32) -> bool {
    let rex = 0x40..=if bits == 64 { 0x4f } else { 0x3f };
    let prefix = |b: &&u8| {
        matches!(**b, 0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3)
            || rex.contains(*b)
    };
    let prefixes = bytes.iter().take_while(prefix).count();
    // Whether LOCK may stand there comes after the length.
    let options = DecoderOptions::NO_INVALID_CHECK;
    let fits = |n: usize| {
        let mut decoder = Decoder::with_ip(bits, &bytes[n..], 0, options);
        let code = decoder.decode().code();
        code != Code::INVALID || decoder.last_error() == DecoderError::NoMoreBytes
    };
    !fits(0) && (1..=prefixes).any(fits)
}

/// F3 90 with REX.B is no PAUSE but XCHG R8, RAX, whose F3 does nothing; the decoder does not tell.
fn pause_or_xchg(bytes: &[u8], pause: Instruction) -> Instruction {
    const DS: u8 = 0x3e;
    let mut other = [0; MAX_LEN];
    for (to, from) in other.iter_mut().zip(bytes) {
        *to = if *from == 0xf3 { DS } else { *from };
    }
    let other = &other[..bytes.len().min(MAX_LEN)];
    let insn = Decoder::with_ip(64, other, pause.ip(), DecoderOptions::NONE).decode();
    if insn.mnemonic() == Mnemonic::Xchg { insn } else { pause }
}

/// Appends the micro-ops of one decoded instruction. What cannot be executed raises its fault.
pub fn lift_insn(b: &mut Builder, insn: &Instruction, mode: u32, features: u128) {
    lift_insn_from(Source::default(), b, insn, mode, features);
}

fn lift_insn_from(source: Source, b: &mut Builder, insn: &Instruction, mode: u32, features: u128) {
    b.start_insn(insn.len().clamp(1, MAX_LEN) as u8);
    let len = insn.len().clamp(1, MAX_LEN) as u8;
    let mut l = Lift { b, i: insn, mode, features: Features(features), source };
    let audit = mode & mode::AUDIT != 0;
    if audit {
        sensitive::before(&mut l);
    }
    if let Err(fault) = lift_checked(&mut l) {
        l.b.cancel_insn();
        l.b.start_insn(len);
        if audit {
            sensitive::before(&mut l);
        }
        l.b.raise(fault.vector, fault.error.is_some());
    } else if audit {
        sensitive::after(&mut l);
    }
}

fn lift_checked(l: &mut Lift) -> Guest<()> {
    let insn = l.i;
    if insn.code() == Code::INVALID || !insn::enabled(insn, l.features) {
        return Err(Fault::UD);
    }
    let row = insn::row(insn).ok_or(Fault::UD)?;
    let has = |bit: u32| l.mode & bit != 0;
    let attr = row.attr;
    // No VEX form is recognised in real and virtual-8086 mode.
    let vex = insn.encoding() == EncodingKind::VEX;
    if (vex || attr.contains(Attr::PROT)) && has(mode::REAL) {
        return Err(Fault::UD);
    }
    if attr.contains(Attr::AVX) && !has(mode::AVX) {
        return Err(Fault::UD);
    }
    if attr.contains(Attr::SSE) && (has(mode::EM) || !has(mode::SSE)) {
        return Err(Fault::UD);
    }
    if attr.contains(Attr::MMX) && has(mode::EM) {
        return Err(Fault::UD);
    }
    if attr.contains(Attr::PRIV) && has(mode::USER | mode::CPL12 | mode::VM86) {
        return Err(Fault::GP0);
    }
    if attr.intersects(Attr::SSE | Attr::MMX | Attr::AVX) && has(mode::TS) {
        return Err(Fault::NM);
    }
    if attr.contains(Attr::X87) && has(mode::TS | mode::EM) {
        return Err(Fault::NM);
    }
    (row.lift)(l)
}

#[cfg(test)]
mod tests {
    use super::*;
    use emu_core::cpu::mode;
    use emu_core::uop::Op;

    /// SDM Vol. 2, 2.3.11 (length) and LOCK.
    #[test]
    fn length_comes_before_lock() {
        let raised = |bytes: &[u8]| {
            let mut code = bytes.to_vec();
            code.resize(32, 0x90);
            let (block, _) = lift_bytes(&code, mode::CODE64 | mode::LONG | mode::FLAT, 0, 1);
            (block.uops[0].op == Op::Raise).then_some(block.uops[0].imm as u8)
        };
        // lock imul eax, [disp], imm32 with three prefixes more: 15 bytes, then 16
        let imul = [0xf0, 0x2e, 0x2e, 0x2e, 0x69, 0x04, 0xa5, 1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(raised(&imul), Some(vector::UD));
        assert_eq!(raised(&[&[0x2e], &imul[..]].concat()), Some(vector::GP));
        // The same without LOCK.
        assert_eq!(raised(&[&[0x2e; 4], &imul[4..]].concat()), None);
        assert_eq!(raised(&[&[0x2e; 5], &imul[4..]].concat()), Some(vector::GP));
    }
}
