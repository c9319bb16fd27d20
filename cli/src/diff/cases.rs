//! Cases: one line per behaviour, `bytes "disassembly" before => after`.
//!
//! *Before* names what is not as in [`base`], *after* what the instructions change:
//!
//! ```text
//! 48 01 d8 "add rax,rbx" rax=1 rbx=2 => rax=3 flags=206
//! f7 f1 "div ecx" bits=32 => fault=0 at=0
//! 8b 03 "mov eax,[rbx]" rbx=20000000 => fault=e:4:20000000 at=0
//! 0f 58 c1 "addps xmm0,xmm1" xmm1=3f800000 => xmm0=3f800000
//! ```
//!
//! Numbers are hexadecimal. Names: `bits` (32; else 64), the general registers by their 64-bit
//! name, `flags`, `fsbase`, `gsbase`, `ds`, `es`, `fs`, `gs` (after only), `xmm0`…, `ymm0`…,
//! `mxcsr`, `cw`, `sw`, `tags` (bit i: Ri is not empty), `st0`… (sign and exponent, colon,
//! significand), `[address]` with bytes in their order. `fault` is vector, and for those that have
//! them error code and address; `at` is where in the bytes. `#` starts a comment.

use super::compare::instructions;
use iced_x86::{Formatter, NasmFormatter};
use oracle::{Bits, CODE, DATA, Judged, MEMORY, MEMORY_LEN, Outcome, Sample, State};
use std::fmt::Write;

/// Names of the general registers.
pub const GPR: [&str; 16] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15",
];

/// The state that a case's *before* is told against: zeros, no exception unmasked, the stack in
/// the middle of the memory.
#[must_use]
pub fn base() -> Sample {
    let mut state = State { rflags: 0x202, mxcsr: 0x1f80, ..State::default() };
    state.x87.cw = 0x37f;
    state.gpr[4] = MEMORY + 0x1000;
    Sample { code: Vec::new(), bits: Bits::B64, state, memory: Box::new([0; MEMORY_LEN]) }
}

/// Bytes in hexadecimal.
#[must_use]
pub fn octets(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut s, b| {
        let _ = write!(s, "{b:02x}");
        s
    })
}

/// An x87 register.
#[must_use]
pub fn st((mant, se): (u64, u16)) -> String {
    format!("{se:x}:{mant:x}")
}

/// A vector register as one number, without leading zeros.
#[must_use]
pub fn vector(v: &[u64; 4]) -> String {
    let all: String = v.iter().rev().map(|w| format!("{w:016x}")).collect();
    let short = all.trim_start_matches('0');
    if short.is_empty() { "0".into() } else { short.into() }
}

/// The sample's instructions as text.
#[must_use]
pub fn disassembly(sample: &Sample) -> String {
    let mut formatter = NasmFormatter::new();
    let texts = instructions(sample).into_iter().map(|e| {
        let mut text = String::new();
        formatter.format(&e.insn, &mut text);
        text
    });
    texts.collect::<Vec<_>>().join("; ")
}

/// Writes what differs in `new` from `old`.
fn changes(out: &mut String, old: (&State, &[u8]), new: (&State, &[u8])) {
    let (o, n) = (old.0, new.0);
    let mut word = |name: &str, old: u64, new: u64| {
        if old != new {
            let _ = write!(out, " {name}={new:x}");
        }
    };
    for (i, name) in GPR.iter().enumerate() {
        word(name, o.gpr[i], n.gpr[i]);
    }
    // RF is set in what a fault pushes.
    word("flags", o.rflags & !(1 << 16), n.rflags & !(1 << 16));
    word("fsbase", o.fs_base, n.fs_base);
    word("gsbase", o.gs_base, n.gs_base);
    for (i, name) in ["ds", "es", "fs", "gs"].iter().enumerate() {
        word(name, o.selectors[i].into(), n.selectors[i].into());
    }
    word("mxcsr", o.mxcsr.into(), n.mxcsr.into());
    word("cw", o.x87.cw.into(), n.x87.cw.into());
    word("sw", o.x87.sw.into(), n.x87.sw.into());
    word("tags", o.x87.full.into(), n.x87.full.into());
    for i in 0..8 {
        if o.x87.st[i] != n.x87.st[i] {
            let _ = write!(out, " st{i}={}", st(n.x87.st[i]));
        }
    }
    for i in 0..16 {
        if o.ymm[i] != n.ymm[i] {
            let upper = o.ymm[i][2..] != n.ymm[i][2..];
            let low = [n.ymm[i][0], n.ymm[i][1], 0, 0];
            let (name, v) = if upper { ("ymm", &n.ymm[i]) } else { ("xmm", &low) };
            let _ = write!(out, " {name}{i}={}", vector(v));
        }
    }
    let mut at = 0;
    while at < MEMORY_LEN {
        if old.1[at] == new.1[at] {
            at += 1;
            continue;
        }
        // A run ends where eight bytes are the same.
        let mut end = at + 1;
        let mut probe = end;
        while probe < MEMORY_LEN && probe < end + 8 {
            if old.1[probe] != new.1[probe] {
                end = probe + 1;
            }
            probe += 1;
        }
        let _ = write!(out, " [{:x}]={}", MEMORY + at as u64, octets(&new.1[at..end]));
        at = end;
    }
}

/// The line for `sample` with outcome `judged`.
#[must_use]
pub fn print(sample: &Sample, judged: &Judged) -> String {
    let spaced: Vec<String> = sample.code.iter().map(|b| format!("{b:02x}")).collect();
    let mut line = format!("{} \"{}\"", spaced.join(" "), disassembly(sample));
    if sample.bits == Bits::B32 {
        line += " bits=32";
    }
    let base = base();
    changes(
        &mut line,
        (&base.state, base.memory.as_slice()),
        (&sample.state, sample.memory.as_slice()),
    );
    line += " =>";
    let before = State { selectors: [DATA; 4], ..sample.state };
    changes(
        &mut line,
        (&before, sample.memory.as_slice()),
        (&judged.state, judged.memory.as_slice()),
    );
    let at = judged.state.rip.wrapping_sub(CODE);
    match judged.outcome {
        Outcome::Done => {}
        Outcome::Fault { vector: 14, error, address } => {
            let _ = write!(line, " fault=e:{error:x}:{address:x} at={at:x}");
        }
        Outcome::Fault { vector, error: 0, .. } => {
            let _ = write!(line, " fault={vector:x} at={at:x}");
        }
        Outcome::Fault { vector, error, .. } => {
            let _ = write!(line, " fault={vector:x}:{error:x} at={at:x}");
        }
        other => {
            let _ = write!(line, " {other:?}");
        }
    }
    line
}

fn number(text: &str) -> Result<u64, String> {
    u64::from_str_radix(text, 16).map_err(|_| format!("'{text}' is not a hexadecimal number"))
}

fn short<T: TryFrom<u64>>(text: &str) -> Result<T, String> {
    number(text)?.try_into().map_err(|_| format!("'{text}' is too large"))
}

fn bytes(text: &str) -> Result<Vec<u8>, String> {
    crate::lift::hex(text).ok_or_else(|| format!("'{text}' is not hexadecimal"))
}

/// Takes `name=value` into a state; `false` if it has no such name.
fn assign(s: &mut State, memory: &mut [u8], name: &str, value: &str) -> Result<bool, String> {
    if let Some(n) = GPR.iter().position(|g| *g == name) {
        s.gpr[n] = number(value)?;
        return Ok(true);
    }
    if let Some(n) = ["ds", "es", "fs", "gs"].iter().position(|g| *g == name) {
        s.selectors[n] = short(value)?;
        return Ok(true);
    }
    if let Some(at) = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')) {
        let at = number(at)?.wrapping_sub(MEMORY) as usize;
        let bytes = bytes(value)?;
        let to = memory.get_mut(at..at.saturating_add(bytes.len()));
        to.ok_or_else(|| format!("{name} is not in the memory"))?.copy_from_slice(&bytes);
        return Ok(true);
    }
    let digits = name.trim_start_matches(|c: char| c.is_ascii_alphabetic());
    let n: Option<usize> = digits.parse().ok().filter(|n| *n < 16);
    match (&name[..name.len() - digits.len()], n) {
        ("flags", None) => s.rflags = number(value)? | 2,
        ("fsbase", None) => s.fs_base = number(value)?,
        ("gsbase", None) => s.gs_base = number(value)?,
        ("mxcsr", None) => s.mxcsr = short(value)?,
        ("cw", None) => s.x87.cw = short(value)?,
        ("sw", None) => s.x87.sw = short(value)?,
        ("tags", None) => s.x87.full = short(value)?,
        ("st", Some(n)) if n < 8 => {
            let (se, mant) = value.split_once(':').ok_or("an x87 register has two parts")?;
            s.x87.st[n] = (number(mant)?, short(se)?);
        }
        (kind @ ("xmm" | "ymm"), Some(n)) => {
            let all = format!("{value:0>64}");
            for k in 0..if kind == "xmm" { 2 } else { 4 } {
                let part = all.get(48 - 16 * k..64 - 16 * k).ok_or("no such number")?;
                s.ymm[n][k] = number(part)?;
            }
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// Reads a line: the sample and what becomes of it. `None` if there is no case on it.
///
/// # Errors
/// What is wrong with it.
pub fn parse(line: &str) -> Result<Option<(Sample, Judged)>, String> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let mut parts = line.splitn(3, '"');
    let (code, text, rest) = match (parts.next(), parts.next(), parts.next()) {
        (Some(code), Some(text), Some(rest)) => (code, text, rest),
        _ => return Err("there is no disassembly in quotation marks".into()),
    };
    let (before, after) = rest.split_once("=>").ok_or("there is no =>")?;
    let mut sample = base();
    sample.code = bytes(code)?;
    if sample.code.len() > oracle::CODE_MAX {
        return Err("that is too much code".into());
    }
    let words = |text| str::split_whitespace(text).map(|w: &str| (w, w.split_once('=')));
    for (word, pair) in words(before) {
        let (name, value) = pair.ok_or_else(|| format!("'{word}' has no ="))?;
        if (name, value) == ("bits", "32") {
            sample.bits = Bits::B32;
        } else if !assign(&mut sample.state, sample.memory.as_mut_slice(), name, value)? {
            return Err(format!("there is no '{name}'"));
        }
    }
    if disassembly(&sample) != text {
        return Err(format!("the bytes are \"{}\"", disassembly(&sample)));
    }
    let state = State { selectors: [DATA; 4], ..sample.state };
    let mut judged = Judged { outcome: Outcome::Done, state, memory: sample.memory.clone() };
    for (word, pair) in words(after) {
        let (name, value) = pair.ok_or_else(|| format!("'{word}' has no ="))?;
        match name {
            "fault" => {
                let parts: Vec<&str> = value.split(':').collect();
                let part = |n: usize| parts.get(n).map_or(Ok(0), |p| number(p));
                let (vector, error, address) = (short(parts[0])?, part(1)? as u32, part(2)?);
                judged.outcome = Outcome::Fault { vector, error, address };
            }
            "at" => judged.state.rip = CODE.wrapping_add(number(value)?),
            _ => {
                if !assign(&mut judged.state, judged.memory.as_mut_slice(), name, value)? {
                    return Err(format!("there is no '{name}'"));
                }
            }
        }
    }
    Ok(Some((sample, judged)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        for line in [
            "48 01 d8 \"add rax,rbx\" rax=1 rbx=2 => rax=3 flags=206",
            "f7 f1 \"div ecx\" bits=32 => fault=0 at=0",
            "8b 03 \"mov eax,[rbx]\" rbx=20000000 => fault=e:4:20000000 at=0",
            "d9 e8 \"fld1\" sw=3800 => sw=3000 tags=40 st0=3fff:8000000000000000",
            "0f 58 c1 \"addps xmm0,xmm1\" xmm1=3f800000 => xmm0=3f800000",
            "50 \"push rax\" rax=1122 => rsp=10000ff8 [10000ff8]=2211",
            "0f 77 \"emms\" ymm2=100000000000000000000000000000000 =>",
        ] {
            let (sample, judged) = parse(line).unwrap().unwrap();
            assert_eq!(print(&sample, &judged), line);
        }
        assert!(parse("# nothing").unwrap().is_none());
    }

    #[test]
    fn what_is_no_case() {
        for (line, why) in [
            ("90 => rax=1", "quotation"),
            ("90 \"nop\" rax=1", "=>"),
            ("90 \"hlt\" =>", "nop"),
            ("9 \"nop\" =>", "hexadecimal"),
            ("90 \"nop\" rax =>", "no ="),
            ("90 \"nop\" rqx=1 =>", "no 'rqx'"),
            ("90 \"nop\" rax=x =>", "not a hex"),
            ("90 \"nop\" [1]=00 =>", "not in the memory"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(why), "{line}: {error}");
        }
    }
}
