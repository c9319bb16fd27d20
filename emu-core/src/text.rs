//! The text form of micro-ops and blocks: what `ring3 lift` prints, what golden files and traces
//! hold, and what [`parse`] reads back.
//!
//! ```text
//! +0 len 4                                  ; a guest instruction: distance, length
//!   ldz.64 t0, [gs:rbx + rcx*4 - 0x8]
//!   add.64 rax, rax, t0 !oszapc             ; flags written, if any
//! +4 len 1 restartable
//!   st.64 [stack rsp - 0x8], rcx
//!   add.64 rsp, rsp, -0x8
//! +5 len 4
//!   v.pshufd.16z v3, v3, v16, -, 0x1b       ; bytes; z: the register's upper part is zeroed
//! +9 len 2
//!   helper div.32 zero, rbx k=1
//! +11 len 2
//!   jcc.64 ne, +0x12, +0xd                  ; distances from the block's first byte
//! ```
//!
//! Method: every [`Form`] has a row of operand slots; printer, parser, comparison and verifier walk
//! it. What an op does not use is not printed, reads back as [`Uop::new`] has it, and does not
//! count when micro-ops are compared.
//!
//! A memory operand is `[flags segment:base + index*factor + displacement]`, where the flags are
//! `stack` ([`Mem::stack`]) and `a16`, `a32` (address width, 64 if not given), and the segment
//! stands for its base register. `k=N` is a small constant that the op has no other place for.

use crate::cpu::Reg;
use crate::flags::{AF, CF, OF, PF, SF, ZF};
use crate::uop::{Block, Form, HelperDef, InsnMark, Mem, Op, Src, Uop};
use crate::vec::VecOp;
use crate::width::Width::{self, W64};
use std::fmt::{self, Display, Formatter, Write};

/// Names of the integer registers by number.
const REGS: [&str; 32] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15", "t0", "t1", "t2", "t3", "t4", "t5", "t6", "t7", "es_base", "cs_base", "ss_base",
    "ds_base", "fs_base", "gs_base", "rip", "zero",
];
/// Segments in encoding order.
const SEGS: [&str; 6] = ["es", "cs", "ss", "ds", "fs", "gs"];
/// Conditions by their number in opcodes.
const CONDS: [&str; 16] =
    ["o", "no", "b", "ae", "e", "ne", "be", "a", "s", "ns", "p", "np", "l", "ge", "le", "g"];
/// Flag letters in the order of the manual.
const FLAGS: [(char, u32); 6] = [('o', OF), ('s', SF), ('z', ZF), ('a', AF), ('p', PF), ('c', CF)];

/// An operand and its place in [`Uop`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// Integer destination `d`.
    D,
    /// Integer source `a`.
    A,
    /// Integer source or immediate `b`.
    B,
    /// Integer source `c`.
    C,
    /// Vector destination `d`.
    Vd,
    /// Vector source `a`.
    Va,
    /// Vector source `b`.
    Vb,
    /// Vector source `c`.
    Vc,
    /// Word `imm` of vector `a`.
    Lane,
    /// Memory operand.
    Mem,
    /// Condition `k`.
    Cond,
    /// Width `k`.
    Width,
    /// Segment `k & 7`, `k` bit 3: for writing.
    Seg,
    /// Number `imm`.
    Imm,
    /// Distance `imm`.
    To,
    /// Distance `fall`.
    Fall,
}

/// What stands behind the op's name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Suffix {
    None,
    /// `w` in bits.
    Bits,
    /// `k & 127`, and this letter for bit 7.
    Bytes(char),
}

/// An op's text form.
pub(crate) struct Layout {
    suffix: Suffix,
    /// Operands in order.
    pub(crate) slots: &'static [Slot],
    /// How many of them must be given; those after it only if they, or one behind, are not zero.
    needed: usize,
}

/// The layout of each form, and of the ops that differ from their form.
pub(crate) fn layout(op: Op) -> Layout {
    use Slot::*;
    use Suffix::*;
    let (suffix, slots): (Suffix, &[Slot]) = match (op.row().form, op) {
        (_, Op::Mov) => (Bits, &[D, B]),
        (_, Op::Getfl | Op::Mxcsr) => (Bits, &[D]),
        (_, Op::Code) => (Bits, &[D, Imm]),
        (_, Op::Set) => (Bits, &[D, Cond]),
        (_, Op::Cmov) => (Bits, &[D, A, B, Cond]),
        (_, Op::Lds) => (Bits, &[D, Mem, Width]),
        (_, Op::Chkw) => (None, &[Mem]),
        (Form::Unary, _) => (Bits, &[D, A]),
        (Form::Binary, _) => (Bits, &[D, A, B]),
        (Form::Ternary, _) => (Bits, &[D, A, B, C]),
        (Form::UnaryK, _) => (Bits, &[D, A, Width]),
        (Form::BinaryK, _) => (Bits, &[D, A, B, Width]),
        (Form::Flags, _) => (Bits, &[A]),
        (Form::Load, _) => (Bits, &[D, Mem]),
        (Form::Store, _) => (Bits, &[Mem, B]),
        (Form::VecLoad, _) => (Bytes('a'), &[Vd, Mem]),
        (Form::VecStore, _) => (Bytes('a'), &[Mem, Va]),
        (Form::Vec, _) => (Bytes('z'), &[Vd, Va, Vb, Vc, Imm]),
        (Form::VecInt, _) => (Bits, &[D, Va, Vb, Vc, Imm]),
        (Form::VecGet, _) => (Bits, &[D, Lane]),
        (Form::VecSet, _) => (Bits, &[Vd, Lane, B]),
        (Form::VecZero, _) => (None, &[Imm]),
        (Form::Linear, _) => (Bits, &[D, Seg, A, Imm]),
        (Form::Helper, _) => (Bits, &[D, A, B, Imm]),
        (Form::Raise, _) => (None, &[Imm]),
        (Form::End, Op::Goto | Op::Leave) => (Bits, &[To]),
        (Form::End, Op::Jcc) => (Bits, &[Cond, To, Fall]),
        (Form::End, Op::Jrnz) => (Bits, &[A, Width, To, Fall]),
        (Form::End, Op::Jmpi) => (Bits, &[A]),
        (Form::End, _) => (None, &[]),
    };
    let needed = match op.row().form {
        Form::Vec | Form::VecInt => 3,
        Form::Helper => 0,
        _ => slots.len(),
    };
    Layout { suffix, slots, needed }
}

impl Layout {
    /// Whether `k` is shown as a suffix or operand.
    fn shows_k(&self) -> bool {
        matches!(self.suffix, Suffix::Bytes(_))
            || self.slots.iter().any(|s| matches!(s, Slot::Cond | Slot::Width | Slot::Seg))
    }
}

// ---- printing -----------------------------------------------------------------------------------

struct Vector(Reg);

impl Display for Reg {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(REGS[self.ix()])
    }
}

impl Display for Vector {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        if self.0 == Reg::ZERO { f.write_char('-') } else { write!(f, "v{}", self.0.0) }
    }
}

fn reg(r: Reg) -> &'static str {
    REGS[r.ix()]
}

/// A number with its sign before the `0x`; `plus` is what stands for a positive one.
fn number(f: &mut Formatter, v: i64, plus: &str, minus: &str) -> fmt::Result {
    write!(f, "{}{:#x}", if v < 0 { minus } else { plus }, v.unsigned_abs())
}

impl Display for Mem {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.write_char('[')?;
        if self.stack {
            f.write_str("stack ")?;
        }
        if self.addr != W64 {
            write!(f, "a{} ", self.addr.bits())?;
        }
        match self.seg.0 {
            31 => {}
            n @ 24..=29 => write!(f, "{}:", SEGS[n as usize - 24])?,
            _ => write!(f, "{}:", reg(self.seg))?,
        }
        let base = self.base != Reg::ZERO;
        let index = self.index != Reg::ZERO || self.scale != 0;
        if base {
            f.write_str(reg(self.base))?;
        }
        if index {
            let plus = if base { " + " } else { "" };
            write!(f, "{plus}{}*{}", reg(self.index), 1 << (self.scale & 3))?;
        }
        match (self.disp, base || index) {
            (0, true) => {}
            (d, true) => number(f, d.into(), " + ", " - ")?,
            (d, false) => number(f, d.into(), "", "-")?,
        }
        f.write_char(']')
    }
}

/// An operand of a micro-op.
struct Operand<'a>(&'a Uop, Slot);

impl Display for Operand<'_> {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let u = self.0;
        match (self.1, u.b) {
            (Slot::D, _) => f.write_str(reg(u.d)),
            (Slot::A, _) => f.write_str(reg(u.a)),
            (Slot::B, Src::Reg(r)) => f.write_str(reg(r)),
            (Slot::B, Src::Imm(v)) => number(f, v, "", "-"),
            (Slot::C, _) => f.write_str(reg(u.c)),
            (Slot::Vd, _) => Vector(u.d).fmt(f),
            (Slot::Va, _) => Vector(u.a).fmt(f),
            (Slot::Vb, Src::Reg(r)) => Vector(r).fmt(f),
            (Slot::Vb, Src::Imm(v)) => number(f, v, "", "-"),
            (Slot::Vc, _) => Vector(u.c).fmt(f),
            (Slot::Lane, _) => write!(f, "{}[{}]", Vector(u.a), u.imm),
            (Slot::Mem, _) => u.mem.fmt(f),
            (Slot::Cond, _) => f.write_str(CONDS[u.k as usize & 15]),
            (Slot::Width, _) => write!(f, "w{}", Width::from_index(u.k).bits()),
            (Slot::Seg, _) => {
                let name = SEGS.get(u.k as usize & 7).unwrap_or(&"?");
                write!(f, "{name}/{}", if u.k & 8 == 0 { 'r' } else { 'w' })
            }
            (Slot::Imm, _) => number(f, u.imm, "", "-"),
            (Slot::To, _) => number(f, u.imm, "+", "-"),
            (Slot::Fall, _) => number(f, u.fall.into(), "+", "-"),
        }
    }
}

impl Display for Uop {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let layout = layout(self.op);
        f.write_str(self.op.row().name)?;
        match self.op.row().form {
            Form::Vec | Form::VecInt => write!(f, ".{}", self.vop.name())?,
            Form::Helper => write!(f, " {}", self.helper.map_or("?", |h| h.name))?,
            _ => {}
        }
        match layout.suffix {
            Suffix::None => {}
            Suffix::Bits => write!(f, ".{}", self.w.bits())?,
            Suffix::Bytes(_) if self.k & 128 == 0 => write!(f, ".{}", self.k)?,
            Suffix::Bytes(c) => write!(f, ".{}{c}", self.k & 127)?,
        }
        let given = layout.slots.iter().rposition(|s| !self.is_zero(*s)).map_or(0, |n| n + 1);
        let shown = &layout.slots[..given.max(layout.needed)];
        for (n, s) in shown.iter().enumerate() {
            write!(f, "{}{}", if n == 0 { " " } else { ", " }, Operand(self, *s))?;
        }
        if self.k != 0 && !layout.shows_k() {
            write!(f, " k={}", self.k)?;
        }
        for (n, (c, _)) in FLAGS.iter().filter(|(_, bit)| self.fl & bit != 0).enumerate() {
            write!(f, "{}{c}", if n == 0 { " !" } else { "" })?;
        }
        Ok(())
    }
}

impl Display for Block {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let mut marks = self.insns.iter().peekable();
        for n in 0..=self.uops.len() {
            while let Some(m) = marks.next_if(|m| m.uop as usize <= n || n == self.uops.len()) {
                let restartable = if m.restartable { " restartable" } else { "" };
                writeln!(f, "+{} len {}{restartable}", m.offset, m.len)?;
            }
            if let Some(u) = self.uops.get(n) {
                writeln!(f, "  {u}")?;
            }
        }
        Ok(())
    }
}

// ---- comparing ----------------------------------------------------------------------------------

impl Uop {
    /// Whether an operand that may be left out has the value it then reads back with.
    fn is_zero(&self, s: Slot) -> bool {
        match s {
            Slot::D | Slot::Vd => self.d == Reg::ZERO,
            Slot::A | Slot::Va => self.a == Reg::ZERO,
            Slot::B | Slot::Vb => self.b == Src::Reg(Reg::ZERO),
            Slot::C | Slot::Vc => self.c == Reg::ZERO,
            Slot::Imm => self.imm == 0,
            _ => false,
        }
    }

    /// The same micro-op, with all that it does not use as [`Uop::new`] has it.
    fn canonical(&self) -> Uop {
        let layout = layout(self.op);
        let w = if layout.suffix == Suffix::Bits { self.w } else { W64 };
        let mut u = Uop { k: self.k, fl: self.fl, ..Uop::new(self.op, w) };
        match self.op.row().form {
            Form::Vec | Form::VecInt => u.vop = self.vop,
            Form::Helper => u.helper = self.helper,
            _ => {}
        }
        for s in layout.slots {
            match s {
                Slot::D | Slot::Vd => u.d = self.d,
                Slot::A | Slot::Va => u.a = self.a,
                Slot::B | Slot::Vb => u.b = self.b,
                Slot::C | Slot::Vc => u.c = self.c,
                Slot::Lane => (u.a, u.imm) = (self.a, self.imm),
                Slot::Mem => u.mem = self.mem,
                Slot::Cond | Slot::Width | Slot::Seg => {}
                Slot::Imm | Slot::To => u.imm = self.imm,
                Slot::Fall => u.fall = self.fall,
            }
        }
        u
    }
}

/// Micro-ops are equal when they do the same: fields that the op does not use don't count.
impl PartialEq for Uop {
    fn eq(&self, other: &Uop) -> bool {
        let key = |u: &Uop| {
            let u = u.canonical();
            let helper = u.helper.map(|h| h.name);
            (u.op, u.w, u.k, (u.d, u.a, u.b, u.c), u.fl, u.mem, u.imm, u.fall, u.vop, helper)
        };
        key(self) == key(other)
    }
}

impl PartialEq for Block {
    fn eq(&self, other: &Block) -> bool {
        (&self.uops, &self.insns, self.len) == (&other.uops, &other.insns, other.len)
    }
}

// ---- parsing ------------------------------------------------------------------------------------

/// Why a text is not a block.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct ParseError {
    /// Line, counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: String,
}

type Parse<T> = Result<T, String>;

/// Reads a block. `helpers` are those that it may call, by family.
///
/// # Errors
/// The first line that is not in the form that blocks are printed in.
pub fn parse(text: &str, helpers: &[&[&'static HelperDef]]) -> Result<Block, ParseError> {
    let mut block = Block::default();
    for (n, line) in text.lines().enumerate() {
        let line = line.split(';').next().unwrap_or("").trim();
        let r = match line.strip_prefix('+') {
            _ if line.is_empty() => Ok(()),
            Some(mark) => parse_mark(mark, block.uops.len()).map(|m| {
                block.len = u32::from(m.offset) + u32::from(m.len);
                block.insns.push(m);
            }),
            None => parse_uop(line, helpers).map(|u| block.uops.push(u)),
        };
        r.map_err(|what| ParseError { line: n + 1, what })?;
    }
    Ok(block)
}

fn parse_mark(text: &str, uops: usize) -> Parse<InsnMark> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (offset, len, restartable) = match words[..] {
        [offset, "len", len] => (offset, len, false),
        [offset, "len", len, "restartable"] => (offset, len, true),
        _ => return Err("expected `+distance len length`".into()),
    };
    let uop = uops as u32;
    Ok(InsnMark { uop, offset: small(offset)?, len: small(len)?, restartable })
}

fn parse_uop(line: &str, helpers: &[&[&'static HelperDef]]) -> Parse<Uop> {
    let (line, flags) = line.rsplit_once(" !").unwrap_or((line, ""));
    let (line, k) = line.rsplit_once(" k=").unwrap_or((line, "0"));
    let (head, rest) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
    let (name, mut suffix) = head.split_once('.').unwrap_or((head, ""));
    let op = Op::ALL.iter().find(|o| o.row().name == name);
    let op = *op.ok_or_else(|| format!("no micro-op `{name}`"))?;
    let layout = layout(op);
    let mut u = Uop { k: small(k)?, fl: 0, ..Uop::new(op, W64) };
    let mut rest = rest.trim();
    match op.row().form {
        Form::Vec | Form::VecInt => {
            let (vop, s) = suffix.rsplit_once('.').unwrap_or((suffix, ""));
            suffix = s;
            let found = VecOp::ALL.iter().find(|v| v.name() == vop);
            u.vop = *found
                .filter(|v| v.is_int() == (op == Op::Vx))
                .ok_or_else(|| format!("no vector operation `{name}.{vop}`"))?;
        }
        Form::Helper => {
            let (word, operands) = rest.split_once(' ').unwrap_or((rest, ""));
            let (helper, s) = word.rsplit_once('.').unwrap_or((word, ""));
            (rest, suffix) = (operands, s);
            let found = helpers.iter().flat_map(|f| f.iter()).find(|h| h.name == helper);
            u.helper = Some(*found.ok_or_else(|| format!("no helper `{helper}`"))?);
        }
        _ => {}
    }
    match layout.suffix {
        Suffix::None if suffix.is_empty() => {}
        Suffix::None => return Err(format!("`{name}` has no width")),
        Suffix::Bits => u.w = width(suffix)?,
        Suffix::Bytes(c) => {
            let bytes = suffix.strip_suffix(c);
            u.k = small::<u8>(bytes.unwrap_or(suffix))? & 127 | u8::from(bytes.is_some()) << 7;
        }
    }
    let operands: Vec<&str> = rest.split(',').map(str::trim).filter(|o| !o.is_empty()).collect();
    if !(layout.needed..=layout.slots.len()).contains(&operands.len()) {
        return Err(format!("`{name}` takes {} operands", layout.slots.len()));
    }
    for (s, text) in layout.slots.iter().zip(operands) {
        operand(&mut u, *s, text)?;
    }
    for c in flags.trim().chars() {
        let flag = FLAGS.iter().find(|(letter, _)| *letter == c);
        u.fl |= flag.ok_or_else(|| format!("no flag `{c}`"))?.1;
    }
    Ok(u)
}

fn operand(u: &mut Uop, s: Slot, text: &str) -> Parse<()> {
    let bad = |kind: &str| format!("`{text}` is no {kind}");
    match s {
        Slot::D => u.d = register(text)?,
        Slot::A => u.a = register(text)?,
        Slot::B => u.b = register(text).map(Src::Reg).or_else(|_| integer(text).map(Src::Imm))?,
        Slot::C => u.c = register(text)?,
        Slot::Vd => u.d = vector(text)?,
        Slot::Va => u.a = vector(text)?,
        Slot::Vb => u.b = Src::Reg(vector(text)?),
        Slot::Vc => u.c = vector(text)?,
        Slot::Lane => {
            let lane = text.strip_suffix(']').and_then(|t| t.split_once('['));
            let (v, lane) = lane.ok_or_else(|| bad("lane"))?;
            (u.a, u.imm) = (vector(v)?, integer(lane)?);
        }
        Slot::Mem => {
            let inside = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
            u.mem = memory(inside.ok_or_else(|| bad("memory operand"))?)?;
        }
        Slot::Cond => u.k = position(&CONDS, text).ok_or_else(|| bad("condition"))?,
        Slot::Width => u.k = width(text.strip_prefix('w').ok_or_else(|| bad("width"))?)? as u8,
        Slot::Seg => {
            let (name, access) = text.split_once('/').ok_or_else(|| bad("segment access"))?;
            let write = position(&["r", "w"], access).ok_or_else(|| bad("segment access"))?;
            u.k = position(&SEGS, name).ok_or_else(|| bad("segment"))? | write << 3;
        }
        Slot::Imm | Slot::To => u.imm = integer(text)?,
        Slot::Fall => u.fall = i32::try_from(integer(text)?).map_err(|_| bad("distance"))?,
    }
    Ok(())
}

fn memory(text: &str) -> Parse<Mem> {
    let mut m = Mem::at(Reg::ZERO, 0);
    let mut rest = text.trim();
    if let Some(r) = rest.strip_prefix("stack ") {
        (m.stack, rest) = (true, r.trim());
    }
    if let Some((w, r)) = rest.split_once(' ')
        && let Some(Ok(w)) = w.strip_prefix('a').map(width)
    {
        (m.addr, rest) = (w, r.trim());
    }
    if let Some((s, r)) = rest.split_once(':') {
        m.seg = match position(&SEGS, s) {
            Some(n) => Reg(24 + n),
            None => register(s)?,
        };
        rest = r;
    }
    // The first term may do without a sign.
    let mut sign = '+';
    let (mut base, mut index, mut disp) = (None, None, None);
    rest = rest.trim();
    if let Some(r) = rest.strip_prefix('-') {
        (sign, rest) = ('-', r);
    }
    loop {
        let end = rest.find(['+', '-']).unwrap_or(rest.len());
        let term = rest[..end].trim();
        let twice = if term.starts_with(|c: char| c.is_ascii_digit()) {
            let v = integer(term)?;
            let v = if sign == '-' { v.wrapping_neg() } else { v };
            disp.replace(i32::try_from(v).map_err(|_| format!("`{term}` is too far"))?).is_some()
        } else if sign == '-' {
            return Err(format!("`{term}` cannot be subtracted"));
        } else if let Some((r, factor)) = term.split_once('*') {
            let scale = position(&["1", "2", "4", "8"], factor);
            let scale = scale.ok_or_else(|| format!("`{factor}` is no index factor"))?;
            index.replace((register(r)?, scale)).is_some()
        } else {
            base.replace(register(term)?).is_some()
        };
        if twice {
            return Err(format!("`{term}` is one too many"));
        }
        let mut left = rest[end..].chars();
        let Some(next) = left.next() else { break };
        (sign, rest) = (next, left.as_str());
    }
    m.base = base.unwrap_or(Reg::ZERO);
    (m.index, m.scale) = index.unwrap_or((Reg::ZERO, 0));
    m.disp = disp.unwrap_or(0);
    Ok(m)
}

fn position(names: &[&str], text: &str) -> Option<u8> {
    names.iter().position(|n| *n == text).map(|n| n as u8)
}

fn register(text: &str) -> Parse<Reg> {
    position(&REGS, text).map(Reg).ok_or_else(|| format!("`{text}` is no register"))
}

fn vector(text: &str) -> Parse<Reg> {
    if text == "-" {
        return Ok(Reg::ZERO);
    }
    let n = text.strip_prefix('v').and_then(|n| n.parse::<u8>().ok()).filter(|n| *n < 24);
    n.map(Reg).ok_or_else(|| format!("`{text}` is no vector register"))
}

fn width(bits: &str) -> Parse<Width> {
    let w = Width::ALL.into_iter().find(|w| bits.parse() == Ok(w.bits()));
    w.ok_or_else(|| format!("`{bits}` is no width"))
}

fn small<T: std::str::FromStr>(text: &str) -> Parse<T> {
    text.parse().map_err(|_| format!("`{text}` is no small number"))
}

/// A 64-bit number, `0x` or decimal, negative or not; `+` is for distances.
fn integer(text: &str) -> Parse<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(d) => (true, d),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let v = match digits.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => digits.parse(),
    };
    let v = v.map_err(|_| format!("`{text}` is no number"))? as i64;
    Ok(if negative { v.wrapping_neg() } else { v })
}

#[cfg(test)]
mod tests {
    use super::*;

    static DIV: HelperDef = HelperDef::new("div", |_, _| Ok(()));

    fn read(text: &str) -> Result<Block, ParseError> {
        parse(text, &[&[&DIV]])
    }

    /// One line per operand shape: each is read, and printed as it was.
    const LINES: &str = "\
+0 len 3
  add.64 rax, rax, rbx !oszapc
  mov.32 r15, -0x8000000000000000
  inc.8 t7, t7 !oszap
  bswap.64 rdi, rdi
  shld.16 rax, rax, rcx, t0 !c
  zx.64 t0, rax, w8
  set.8 rax, ne
  cmov.64 rax, rax, t1, ge
  crc32.64 rax, rax, rdx, w16
  getfl.64 t0
+3 len 15 restartable
  ldz.64 t0, [gs:rbx + rcx*4 - 0x8]
  ld.8 rax, [0x1000]
  ld.8 rax, [-0x1]
  lea.32 rax, [rip + 0x10]
  lea.32 rax, [rsp + zero*2]
  lds.8 rax, [a32 t0:rbx], w32
  stw.16 [stack a16 ss:rsp - 0x2], -0x1
  chkw [stack rsp] k=64
+18 len 1
+19 len 1
  lin.32 t1, ss/w, t0, 0x4
  vld.16a v0, [rax*1 + 0x10]
  vst.32 [rbx], v16
  v.paddd.16 v3, v3, v16
  v.pshufd.32z v3, v3, v16, -, 0x1b
  vx.ptest.64 zero, v1, v2 !oszapc
  vget.32 rax, v1[3]
  vset.64 v1, v2[1], rax k=1
  helper div.32
  helper div.8 rax, zero, t0, -0x1 k=200
  jrnz.32 rcx, w16, -0x10, +0x14
";

    #[test]
    fn every_operand_shape_reads_and_prints() {
        let ends = ["goto.32 -0x80", "jcc.64 ne, +0x12, +0x7", "jmpi.64 t0", "leave.16 +0x0"];
        let ends = ends.into_iter().chain(["exit", "raise 0xd k=1"]);
        for end in ends {
            let text = format!("{LINES}  {end}\n");
            let block = read(&text).unwrap();
            assert_eq!(block.to_string(), text);
            assert_eq!(read(&block.to_string()).unwrap(), block);
        }
        let block = read(LINES).unwrap();
        assert_eq!((block.len, block.insns.len(), block.insns[3].uop), (20, 4, 18));
    }

    #[test]
    fn spaces_and_comments_do_not_matter() {
        let plain = read("+0 len 1\nld.64 rax, [fs:rbx+rcx*8-16] !z").unwrap();
        let loose = " +0  len 1 ; x\n\n  ld.64   rax ,  [fs:rbx  +  rcx*8 - 0x10]  !z ; y";
        assert_eq!(read(loose).unwrap(), plain);
    }

    #[test]
    fn unused_fields_do_not_count_and_used_ones_do() {
        let mov = Uop { d: Reg::RAX, b: Src::Imm(1), ..Uop::new(Op::Mov, W64) };
        assert_eq!(mov, Uop { a: Reg::RBX, fall: 3, ..mov });
        assert_ne!(mov, Uop { b: Src::Imm(2), ..mov });
        assert_ne!(mov, Uop { w: Width::W32, ..mov });
        assert_ne!(mov, Uop { k: 1, ..mov });
    }

    #[test]
    fn nonsense_names_its_line() {
        for bad in [
            "frob.64 rax",
            "add.64 rax, rax",
            "add.64 rax, rax, rbx, rcx",
            "add.7 rax, rax, rbx",
            "add.64 rax, rax, rbx !x",
            "ld.64 rax, rbx",
            "ld.64 rax, [rbx",
            "ld.64 rax, []",
            "ld.64 rax, [rbx + rcx]",
            "ld.64 rax, [rbx*3]",
            "ld.64 rax, [-rbx]",
            "set.8 rax, xx",
            "ld.64 rax, [0x80000000]",
            "exit.64",
            "helper mul.32",
            "helper",
            "v.ptest.16 v0, v1, v2",
            "v.nothing.16 v0, v1, v2",
            "vld.16 v24, [rax]",
            "vget.8 rax, v0",
            "lin.32 t0, xs/r, t1, 1",
            "lin.32 t0, ss, t1, 1",
            "zx.64 rax, rbx, 8",
            "jcc.64 ne, +1, +0x80000000",
            "+0",
            "+x len 1",
            "+0 len 1 maybe",
            "goto.64 +0x10000000000000000",
            "nop k=256",
            "mov.64 rax, é",
            "[é+",
        ] {
            let e = read(&format!("+0 len 1\n  {bad}\n")).expect_err(bad);
            assert_eq!(e.line, 2, "{bad}");
        }
    }

    #[test]
    fn names_are_unique() {
        for (i, a) in Op::ALL.iter().enumerate() {
            assert!(Op::ALL[..i].iter().all(|b| b.row().name != a.row().name), "{a:?}");
        }
        for (i, a) in VecOp::ALL.iter().enumerate() {
            assert!(VecOp::ALL[..i].iter().all(|b| b.name() != a.name()), "{a:?}");
        }
    }
}
