//! Blocks as text: guest instructions, each with its micro-ops and, where there is some, the host
//! code made of it.

use emu_core::native::HostInsn;
use emu_core::uop::Block;
use frontend_x86::lift::bitness;
use iced_x86::{Decoder, DecoderOptions, Formatter, Instruction, NasmFormatter};
use std::fmt::Write;

/// The instructions of `block`, which was lifted for `mode` from `bytes`, as if it began at address
/// `start`; with the host code `host`, first that in line, then that out of line.
#[must_use]
pub fn listing(block: &Block, bytes: &[u8], start: u64, mode: u32, host: &[HostInsn]) -> String {
    let mut text = String::new();
    let ends = block.insns.iter().skip(1).map(|m| m.uop as usize).chain([block.uops.len()]);
    for ((n, mark), end) in block.insns.iter().enumerate().zip(ends) {
        let at = usize::from(mark.offset);
        let code = &bytes[at.min(bytes.len())..bytes.len().min(at + usize::from(mark.len))];
        let octets: Vec<String> = code.iter().map(|b| format!("{b:02x}")).collect();
        let va = start.wrapping_add(at as u64);
        let insn = disassemble(code, bitness(mode), va);
        let _ = writeln!(text, "{va:04x}  {:<24} {insn}", octets.join(" "));
        for uop in &block.uops[mark.uop as usize..end] {
            let _ = writeln!(text, "        {uop}");
        }
        for line in host.iter().filter(|l| l.insn == n && !l.cold) {
            let _ = writeln!(text, "            {:04x}  {}", line.at, line.text);
        }
    }
    let mut last = None;
    for line in host.iter().filter(|l| l.cold) {
        if last.replace(line.insn) != Some(line.insn) {
            let at = block.insns.get(line.insn).map_or(0, |m| m.offset);
            let _ = writeln!(text, "out of line for {:04x}", start.wrapping_add(at.into()));
        }
        let _ = writeln!(text, "            {:04x}  {}", line.at, line.text);
    }
    text
}

fn disassemble(code: &[u8], bitness: u32, ip: u64) -> String {
    let mut insn = Instruction::default();
    Decoder::with_ip(bitness, code, ip, DecoderOptions::NONE).decode_out(&mut insn);
    let mut text = String::new();
    NasmFormatter::new().format(&insn, &mut text);
    text
}
