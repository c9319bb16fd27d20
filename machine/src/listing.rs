//! Blocks as text: guest instructions, each with its micro-ops and, where there is some, the host
//! code made of it.

use crate::Error;
use crate::machine::host_translator;
use emu_core::native::{HostInsn, Part, Place, Translator};
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
            host_line(&mut text, line);
        }
    }
    let mut last = None;
    for line in host.iter().filter(|l| l.cold) {
        if last.replace(line.insn) != Some(line.insn) {
            let at = block.insns.get(line.insn).map_or(0, |m| m.offset);
            let _ = writeln!(text, "out of line for {:04x}", start.wrapping_add(at.into()));
        }
        host_line(&mut text, line);
    }
    text
}

fn host_line(text: &mut String, line: &HostInsn) {
    let label = line.label.map_or_else(String::new, |n| format!(".{n}:"));
    let _ = writeln!(text, "            {label:<6}{}", line.text);
}

fn disassemble(code: &[u8], bitness: u32, ip: u64) -> String {
    let mut insn = Instruction::default();
    Decoder::with_ip(bitness, code, ip, DecoderOptions::NONE).decode_out(&mut insn);
    let mut text = String::new();
    NasmFormatter::new().format(&insn, &mut text);
    text
}

/// Makes host code to look at.
pub struct HostCode {
    translator: Box<dyn Translator>,
}

impl HostCode {
    /// With the code generator of this host.
    ///
    /// # Errors
    /// When there is none.
    pub fn new() -> Result<HostCode, Error> {
        Ok(HostCode { translator: host_translator().ok_or(Error::NoTranslator)? })
    }

    /// The host code of `block`, which was lifted for `mode`: the same for the same block.
    pub fn of(&mut self, block: &Block, mode: u32) -> Vec<HostInsn> {
        // As the cache numbers a block's records, its first one counting runs.
        const FIRST: u32 = 0;
        let insns: Vec<u32> = block.insns.iter().map(|m| FIRST + 1 + m.uop).collect();
        let last = FIRST + block.uops.len() as u32;
        let place = Place { second: None, first: FIRST, last, insns: &insns, off: 0, mode };
        self.translator.clear();
        self.translator.translate(&[Part { block, place }]);
        self.translator.listing(FIRST)
    }
}
