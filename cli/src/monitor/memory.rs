//! Memory as text: `x`, `xp` and `p`.
//!
//! Only memory is read; what is a device's reads as ones. Looking sets no accessed bit.

use super::expr::Format;
use super::{Monitor, Refused};
use frontend_x86::lift::bitness;
use frontend_x86::sys::paging;
use iced_x86::{Decoder, DecoderOptions, Formatter, Instruction, NasmFormatter};
use machine::Machine;
use std::fmt::Write;

/// Bytes that one command shows at most.
const MOST: u64 = 1 << 20;
/// Bytes of the longest instruction.
const INSN: usize = 15;

/// Reads memory at a linear or guest-physical address; `None` when something is not mapped.
pub(super) fn read(m: &Machine, linear: bool, start: u64, len: usize) -> Option<Vec<u8>> {
    let cpu = &m.vcpu().cpu;
    let mut bytes = vec![0; len];
    let mut at = 0;
    while at < len {
        let va = start.wrapping_add(at as u64);
        let n = (4096 - (va & 4095) as usize).min(len - at);
        let pa = if linear { paging::look(cpu, va)? } else { va };
        cpu.mem.memory().read(pa, &mut bytes[at..at + n]);
        at += n;
    }
    Some(bytes)
}

/// One value, as QEMU shows it; `d` is signed.
pub(super) fn value(form: char, size: usize, value: u64) -> String {
    let unused = 64 - 8 * size as u32;
    let (bits, value) = (64 - unused as usize, value << unused >> unused);
    let digits = (bits * 10).div_ceil(33);
    match form {
        'd' => format!("{:digits$}", (value << unused) as i64 >> unused),
        'u' => format!("{value:digits$}"),
        'o' => format!("{:>width$}", format!("0{value:o}"), width = bits.div_ceil(3)),
        'c' => character(value as u8),
        _ => format!("0x{value:0width$x}", width = bits / 4),
    }
}

/// A byte as C writes it.
fn character(byte: u8) -> String {
    match byte {
        b'\'' | b'\\' => format!("'\\{}'", byte as char),
        b'\n' => "'\\n'".to_owned(),
        b'\r' => "'\\r'".to_owned(),
        32..127 => format!("'{}'", byte as char),
        _ => format!("'\\x{byte:02x}'"),
    }
}

/// What `x` (linear addresses) and `xp` (guest-physical ones) show.
pub(super) fn dump(
    monitor: &Monitor,
    linear: bool,
    format: Format,
    start: u64,
) -> Result<String, Refused> {
    let size = if format.form == 'c' { 1 } else { format.size };
    let unit = if format.form == 'i' { INSN } else { size };
    if format.count > MOST / unit as u64 {
        return Err(Refused::new(format!("more than {MOST} bytes at once")));
    }
    if format.form == 'i' {
        return monitor.ask(move |m| disassembly(m, linear, format.count, start));
    }
    let step = if size == 1 { 8 } else { 16 };
    let len = format.count as usize * size;
    let lines = monitor.ask(move |m| {
        let mut lines = Vec::new();
        for at in (0..len).step_by(step) {
            let va = start.wrapping_add(at as u64);
            let bytes = read(m, linear, va, step.min(len - at));
            let missing = bytes.is_none();
            lines.push((va, bytes));
            if missing {
                break;
            }
        }
        lines
    })?;
    let mut text = String::new();
    for (va, bytes) in lines {
        let _ = write!(text, "{va:016x}:");
        match bytes {
            None => text += " Cannot access memory",
            Some(bytes) => {
                for part in bytes.chunks(size) {
                    let v = part.iter().rev().fold(0, |v, &b| v << 8 | u64::from(b));
                    let _ = write!(text, " {}", value(format.form, size, v));
                }
            }
        }
        text.push('\n');
    }
    Ok(text)
}

/// Instructions in the processor's mode.
fn disassembly(m: &Machine, linear: bool, count: u64, start: u64) -> String {
    let (mut text, mut at) = (String::new(), start);
    let bitness = bitness(m.vcpu().cpu.mode);
    let mut formatter = NasmFormatter::new();
    for _ in 0..count {
        // What is behind the instruction need not be mapped.
        let Some(mut code) = (1..=INSN).rev().find_map(|len| read(m, linear, at, len)) else {
            let _ = writeln!(text, "0x{at:08x}: Cannot access memory");
            break;
        };
        let mut insn = Instruction::default();
        Decoder::with_ip(bitness, &code, at, DecoderOptions::NONE).decode_out(&mut insn);
        code.truncate(insn.len().max(1));
        let octets: Vec<String> = code.iter().map(|b| format!("{b:02x}")).collect();
        let mut words = String::new();
        formatter.format(&insn, &mut words);
        let _ = writeln!(text, "0x{at:08x}:  {:<24} {words}", octets.join(" "));
        at = at.wrapping_add(code.len() as u64);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_look_as_in_qemu() {
        for (form, size, v, want) in [
            ('x', 1, 0xea, "0xea"),
            ('x', 4, 0xe05bea, "0x00e05bea"),
            ('d', 2, 0xff53, "  -173"),
            ('u', 4, 4_026_597_203, "4026597203"),
            ('o', 8, 0o1700007765176000177523, "01700007765176000177523"),
            ('u', 1, 7, "  7"),
            ('x', 8, u64::MAX, "0xffffffffffffffff"),
            ('c', 1, 0x30, "'0'"),
            ('c', 1, 0x27, "'\\''"),
            ('c', 1, 0x80, "'\\x80'"),
        ] {
            assert_eq!(value(form, size, v).trim_start(), want.trim_start(), "{form} {size} {v:x}");
        }
    }
}
