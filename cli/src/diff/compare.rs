//! What differs between two outcomes of a sample, as far as the manuals define it.

use super::encode::{Encoded, decode};
use super::rules::{self, Near};
use iced_x86::{Instruction, InstructionInfoFactory, Mnemonic, Register};
use oracle::{Bits, CODE, EXIT, Judged, MEMORY, MEMORY_LEN, Outcome, Sample, State, USER_END};
use std::fmt;

/// A difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Register, flags, memory or outcome.
    pub what: String,
    /// What the CPU (or the case) says.
    pub cpu: String,
    /// What the model says.
    pub model: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} in the model, {} on the CPU", self.what, self.model, self.cpu)
    }
}

/// RFLAGS bits besides the arithmetic ones that are compared: TF, IF, DF, NT, AC, ID. RF is what
/// the pushed image of a fault has.
const SYSTEM_FLAGS: u64 = 1 << 8 | 1 << 9 | 1 << 10 | 1 << 14 | 1 << 18 | 1 << 21;

/// The instructions of a sample. What cannot be decoded is the last one.
#[must_use]
pub fn instructions(sample: &Sample) -> Vec<Encoded> {
    let mut all = Vec::new();
    let mut at = 0;
    while at < sample.code.len() {
        let mut e = decode(&sample.code[at..], sample.bits, CODE + at as u64);
        if e.insn.is_invalid() {
            e.bytes = sample.code[at..].to_vec();
        }
        at += e.bytes.len();
        all.push(e);
    }
    all
}

/// Arithmetic flags that are undefined at the end of `sample`; after a fault, and when something
/// may have been jumped over, at any point.
fn undefined(sample: &Sample, mut done: bool) -> u64 {
    let mut now = 0;
    for e in instructions(sample).iter().filter(|e| !e.insn.is_invalid()) {
        done &= !rules::branches(&e.insn);
        if rules::branches_anywhere(&e.insn) {
            // It may lead into the midst of an instruction.
            return u64::MAX;
        }
        if done {
            now &= !rules::defined(&e.insn);
        }
        now |= rules::undefined(&e.insn);
    }
    now
}

/// Value of a general register; 0 for what is none.
fn value(s: &State, r: Register) -> u64 {
    match r {
        r if r.is_gpr32() => s.gpr[r.full_register().number()] & 0xffff_ffff,
        r if r.is_gpr16() => s.gpr[r.full_register().number()] & 0xffff,
        r if r.is_gpr64() => s.gpr[r.number()],
        _ => 0,
    }
}

/// Bytes of the memory that are not compared.
fn skipped(sample: &Sample) -> Vec<std::ops::Range<u64>> {
    let mut all = Vec::new();
    for e in instructions(sample) {
        let fields = rules::pointer_fields(e.insn.code());
        if fields.is_empty() {
            continue;
        }
        let value = |r: Register, _, _| {
            Some(match r {
                Register::FS => sample.state.fs_base,
                Register::GS => sample.state.gs_base,
                r => value(&sample.state, r),
            })
        };
        if let Some(at) = e.insn.virtual_address(0, 0, value) {
            let at = if sample.bits == Bits::B32 { at & 0xffff_ffff } else { at };
            let at = at.wrapping_sub(MEMORY);
            all.extend(fields.iter().map(|f| at.wrapping_add(f.start)..at.wrapping_add(f.end)));
        }
    }
    all
}

/// The outcome as it is compared: what Linux hides is hidden on both sides.
fn seen(o: Outcome, bits: Bits) -> Outcome {
    match o {
        Outcome::Fault { vector: 14, error, address } => {
            let address = if bits == Bits::B32 { address & 0xffff_ffff } else { address };
            let error = if address >= USER_END { error | 1 } else { error };
            Outcome::Fault { vector: 14, error, address }
        }
        Outcome::Fault { vector, error, .. } => Outcome::Fault { vector, error, address: 0 },
        o => o,
    }
}

/// The instruction at `rip`.
fn at(sample: &Sample, rip: u64) -> Instruction {
    let all = instructions(sample);
    all.iter().find(|e| e.insn.ip() == rip).map_or_else(Instruction::default, |e| e.insn)
}

/// Its mnemonic.
fn last(sample: &Sample, rip: u64) -> Mnemonic {
    at(sample, rip).mnemonic()
}

/// Whether the model refuses an operand for its alignment that only this vendor's CPUs take.
fn refused_alignment(sample: &Sample, model: &Judged) -> bool {
    let gp = matches!(model.outcome, Outcome::Fault { vector: 12 | 13, error: 0, .. });
    gp && rules::unaligned_on_amd(last(sample, model.state.rip))
}

/// Whether the CPU's #GP or #SS is for an operand that reaches beyond offset FFFFFFFFH in 32-bit
/// code. With that limit it may or may not be raised (SDM Vol. 3, 5.3).
fn wraps(sample: &Sample, cpu: &Judged, model: &Judged) -> bool {
    let Outcome::Fault { vector: 12 | 13, error: 0, .. } = cpu.outcome else { return false };
    let high = |at: u64| at as u32 > u32::MAX - 512;
    if matches!(model.outcome, Outcome::Fault { vector: 14, address, .. } if high(address)) {
        return true;
    }
    let all = instructions(sample);
    let Some(e) = all.iter().find(|e| e.insn.ip() == cpu.state.rip) else { return false };
    if e.insn.memory_index().is_vector_register() {
        // Any of its elements.
        return true;
    }
    let mut info = InstructionInfoFactory::new();
    info.info(&e.insn).used_memory().iter().any(|m| {
        let at = m.virtual_address(0, |r, _, _| Some(value(&cpu.state, r)));
        at.is_some_and(high)
    })
}

/// A #PF's outcome without what its address tells.
fn unplaced(o: Outcome) -> Outcome {
    match o {
        Outcome::Fault { vector: 14, error, .. } => {
            Outcome::Fault { vector: 14, error: error & !1, address: 0 }
        }
        o => o,
    }
}

/// Whether the extended-precision numbers are equal or neighbours: [`Near::Extended`].
fn near_extended(a: (u64, u16), b: (u64, u16)) -> bool {
    // The integer bit is the exponent's; so the numbers of one sign are consecutive integers.
    let place = |(mant, se): (u64, u16)| i128::from(se & 0x7fff) << 63 | i128::from(mant << 1 >> 1);
    (a.1 ^ b.1) & 0x8000 == 0 && (place(a) - place(b)).abs() <= 1
}

/// Whether all elements are near enough: [`Near::Single`].
fn near_singles(a: &[u64; 4], b: &[u64; 4]) -> bool {
    // What would be denormal is zero.
    let edge = |a: u32, b: u32| a.min(b) << 1 == 0 && a.max(b) << 1 >> 1 <= 0x0080_3000;
    let near = |a: u32, b: u32| (a ^ b) >> 31 == 0 && (edge(a, b) || a.abs_diff(b) <= 3 << 12);
    a.iter()
        .zip(b)
        .all(|(&a, &b)| near(a as u32, b as u32) && near((a >> 32) as u32, (b >> 32) as u32))
}

/// Whether a branch led into the middle of an instruction, and there to one that is compared only
/// with care.
fn strayed(sample: &Sample, end: &Judged) -> bool {
    let rip = end.state.rip;
    let Some(bytes) = sample.code.get(rip.wrapping_sub(CODE) as usize..) else { return false };
    let i = decode(bytes, sample.bits, rip).insn;
    let careful = rules::excluded(&i, u128::MAX).is_some()
        || rules::two_places(i.mnemonic())
        || rules::in_parts(i.mnemonic());
    at(sample, rip).is_invalid() && careful
}

/// What differs between `cpu` and `model`, both the outcome of `sample`.
#[must_use]
pub fn compare(sample: &Sample, cpu: &Judged, model: &Judged) -> Vec<Difference> {
    let mut all = Vec::new();
    let at_exit = |a: u64| a & !4095 == EXIT;
    if matches!(model.outcome, Outcome::Fault { vector: 14, address, .. } if at_exit(address)) {
        // There is a page where the model has none.
        return all;
    }
    if refused_alignment(sample, model) || strayed(sample, cpu) || strayed(sample, model) {
        return all;
    }
    let near = instructions(sample).first().and_then(|e| rules::approximate(e.insn.mnemonic()));
    let wide = sample.bits == Bits::B64;
    let mut put = |what: String, c: String, m: String| {
        all.push(Difference { what, cpu: c, model: m });
    };
    let (c, m) = (&cpu.state, &model.state);
    let (mut oc, mut om) = (seen(cpu.outcome, sample.bits), seen(model.outcome, sample.bits));
    let faults = |o| matches!(o, Outcome::Fault { vector: 12..=14, .. });
    if oc != om && faults(oc) && faults(om) && rules::two_places(last(sample, c.rip)) {
        om = oc;
    }
    if oc != om && faults(oc) && faults(om) && rules::in_parts(last(sample, c.rip)) {
        // What reaches over the end of the canonical addresses finds either first.
        let end =
            |o| matches!(o, Outcome::Fault { address, .. } if address >> 12 == USER_END >> 12);
        if end(oc) || end(om) {
            om = oc;
        }
    }
    if oc != om && rules::in_parts(last(sample, c.rip)) {
        (oc, om) = (unplaced(oc), unplaced(om));
    }
    if oc != om {
        put("outcome".into(), format!("{oc:x?}"), format!("{om:x?}"));
    }
    if oc == om && oc == Outcome::Timeout {
        // Each was stopped at some point of its endless loop.
        return all;
    }
    if oc == om && oc != Outcome::Done && rules::half_done(&at(sample, c.rip)) {
        return all;
    }
    let mut word = |what: &dyn Fn() -> String, c: u64, m: u64| {
        if c != m {
            put(what(), format!("{c:x}"), format!("{m:x}"));
        }
    };
    let cut = |v: u64| if wide { v } else { v & 0xffff_ffff };
    let faulted = matches!(oc, Outcome::Fault { .. });
    if faulted && matches!(om, Outcome::Fault { .. }) {
        word(&|| "rip".into(), cut(c.rip), cut(m.rip));
    }
    for n in 0..if wide { 16 } else { 8 } {
        word(&|| super::cases::GPR[n].into(), cut(c.gpr[n]), cut(m.gpr[n]));
    }
    let flags = rules::OSZAPC | SYSTEM_FLAGS;
    if (c.rflags ^ m.rflags) & flags != 0 {
        let flags = flags & !undefined(sample, !faulted);
        word(&|| "flags".into(), c.rflags & flags, m.rflags & flags);
    }
    word(&|| "fsbase".into(), cut(c.fs_base), cut(m.fs_base));
    word(&|| "gsbase".into(), cut(c.gs_base), cut(m.gs_base));
    for (n, name) in ["ds", "es", "fs", "gs"].iter().enumerate() {
        // A null selector's RPL is lost when the host's kernel returns from an interrupt.
        let selector = |s: u16| if s < 4 { 0 } else { s.into() };
        word(&|| (*name).into(), selector(c.selectors[n]), selector(m.selectors[n]));
    }
    word(&|| "mxcsr".into(), c.mxcsr.into(), m.mxcsr.into());
    word(&|| "cw".into(), c.x87.cw.into(), m.x87.cw.into());
    let same_x87 = c.x87.sw == m.x87.sw && c.x87.full == m.x87.full && c.x87.st == m.x87.st;
    let early = || faulted && rules::enters_mmx_early(last(sample, c.rip));
    if !same_x87 && !early() {
        let sw = !(undefined(sample, !faulted) >> rules::SW_SHIFT);
        word(&|| "sw".into(), u64::from(c.x87.sw) & sw, u64::from(m.x87.sw) & sw);
        word(&|| "tags".into(), c.x87.full.into(), m.x87.full.into());
        let differ = |c, m| c != m && !(near == Some(Near::Extended) && near_extended(c, m));
        let all = c.x87.st.iter().zip(&m.x87.st).enumerate();
        for (n, (c, m)) in all.filter(|(_, (c, m))| differ(**c, **m)) {
            put(format!("st{n}"), super::cases::st(*c), super::cases::st(*m));
        }
    }
    if c.ymm != m.ymm {
        let differ = |c, m| c != m && !(near == Some(Near::Single) && near_singles(c, m));
        for (n, (c, m)) in c.ymm.iter().zip(&m.ymm).enumerate().filter(|(_, (c, m))| differ(c, m)) {
            put(format!("ymm{n}"), super::cases::vector(c), super::cases::vector(m));
        }
    }
    if cpu.memory != model.memory {
        let skip = skipped(sample);
        let skip = |n: usize| skip.iter().any(|s| s.contains(&(n as u64)));
        let n = (0..MEMORY_LEN).find(|n| cpu.memory[*n] != model.memory[*n] && !skip(*n));
        if let Some(n) = n {
            let bytes = |j: &Judged| super::cases::octets(&j.memory[n..MEMORY_LEN.min(n + 8)]);
            put(format!("[{:x}]", MEMORY + n as u64), bytes(cpu), bytes(model));
        }
    }
    if !all.is_empty() && !wide && wraps(sample, cpu, model) {
        all.clear();
    }
    all
}
