//! The verifier: rules that every block keeps before and after the passes. Lifters are tested and
//! fuzzed through it; it is not run on the way to execution.
//!
//! 1. **Exact faults**: within one guest instruction nothing that the guest can see is written
//!    before the last micro-op that may fault, unless the instruction is restartable. One that does
//!    both may be the last. Stores into what a `chkw` before them has checked do not fault. A
//!    helper may change anything, unless its destination is a temporary (then it computes that) or
//!    the caller says that it is quiet: it may raise a fault or fill a vector temporary.
//! 2. One [`Effect::End`] op, at the end; instruction marks in order and without gaps.
//! 3. Temporaries are written before they are read in each instruction.
//! 4. `stw` goes where an `ldw` of its instruction has read.
//! 5. Registers, widths and constants are in range; a load's result is wanted.

use crate::cpu::Reg;
use crate::flags::OSZAPC;
use crate::text::{Slot, layout};
use crate::uop::{Block, Effect, Form, Mem, Op, Src, Uop};
use crate::width::Width;

/// A rule that a block breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("micro-op {uop}: {what}")]
pub struct VerifyError {
    /// Index of the micro-op.
    pub uop: usize,
    /// What is wrong.
    pub what: &'static str,
}

/// Checks `block` against the rules of this module.
///
/// # Errors
/// The first rule broken.
pub fn verify(block: &Block) -> Result<(), VerifyError> {
    verify_with(block, &[])
}

/// The same, with the names of the helpers that change nothing which the guest can see.
///
/// # Errors
/// The first rule broken.
pub fn verify_with(block: &Block, quiet: &[&str]) -> Result<(), VerifyError> {
    let end = block.uops.len();
    let (mut uop, mut offset) = (0, 0);
    for (n, m) in block.insns.iter().enumerate() {
        let next = block.insns.get(n + 1).map_or(end, |m| m.uop as usize);
        let in_order = m.uop as usize == uop && u32::from(m.offset) == offset && next <= end;
        if !in_order || next < uop || !(1..=15).contains(&m.len) {
            return Err(VerifyError { uop, what: "the mark before it is out of order" });
        }
        let mut insn = Insn { quiet, restartable: m.restartable, ..Insn::default() };
        for (at, u) in block.uops[uop..next].iter().enumerate() {
            let last = uop + at == end - 1;
            let step = if last == (u.op.row().effect == Effect::End) {
                in_range(u).and_then(|()| insn.step(u))
            } else {
                Err("a block ends with its only end")
            };
            step.map_err(|what| VerifyError { uop: uop + at, what })?;
        }
        (uop, offset) = (next, offset + u32::from(m.len));
    }
    match (end == 0 || uop < end, offset == block.len) {
        (true, _) => Err(VerifyError { uop, what: "it belongs to no instruction, or is missing" }),
        (_, false) => Err(VerifyError { uop, what: "the length is not that of the instructions" }),
        _ => Ok(()),
    }
}

/// What one guest instruction has done so far.
#[derive(Default)]
struct Insn<'a> {
    /// Names of the helpers that change nothing.
    quiet: &'a [&'a str],
    restartable: bool,
    /// The guest can see something of it.
    visible: bool,
    /// Temporaries written: integer ones in bits 16–23, vector ones in bits 48–55.
    temps: u64,
    /// `(operand, bytes)` that may be written without a fault, and whether an `ldw` has read it.
    writable: Vec<(Mem, i64, bool)>,
}

impl Insn<'_> {
    fn step(&mut self, u: &Uop) -> Result<(), &'static str> {
        let (reads, writes) = registers(u);
        if reads & TEMPS & !self.temps != 0 {
            return Err("it reads a temporary that was not written");
        }
        self.temps |= writes & TEMPS;
        if u.op == Op::Stw && !self.may_store(u, true) {
            return Err("a stw without its ldw");
        }
        let checked = u.op == Op::St && self.may_store(u, false);
        if self.visible && !self.restartable && !checked && may_fault(u) {
            return Err("it may fault after a visible write");
        }
        let acts = match u.op {
            Op::Helper => {
                // Which vector temporaries it fills is its own affair.
                self.temps |= TEMPS & VECTORS;
                writes & TEMPS == 0 && u.helper.is_none_or(|h| !self.quiet.contains(&h.name))
            }
            op => op == Op::Stw || op.row().effect == Effect::Store,
        };
        self.visible |= writes & !TEMPS != 0 || u.fl != 0 || acts;
        self.writable.retain(|(m, ..)| registers_of(m) & writes == 0);
        match u.op {
            Op::Ldw => self.writable.push((u.mem, u.w.bytes() as i64, true)),
            Op::Chkw => self.writable.push((u.mem, u.k.into(), false)),
            _ => {}
        }
        Ok(())
    }

    fn may_store(&self, u: &Uop, read: bool) -> bool {
        self.writable.iter().any(|(m, bytes, r)| {
            let at = i64::from(u.mem.disp) - i64::from(m.disp);
            let same = Mem { disp: 0, ..*m } == Mem { disp: 0, ..u.mem };
            same && *r == read && at >= 0 && at + u.w.bytes() as i64 <= *bytes
        })
    }
}

/// Whether `u` may fault: a vector operation only if it can raise #XM.
fn may_fault(u: &Uop) -> bool {
    match u.op {
        Op::V | Op::Vx => u.vop.raises(),
        _ => u.may_fault(),
    }
}

/// Temporaries in a set of registers.
const TEMPS: u64 = 0x00ff_0000_00ff_0000;
/// Vector registers in a set of registers.
const VECTORS: u64 = 0xffff_ffff_0000_0000;

/// The bit of an integer register in a set; none for `ZERO`.
fn int(r: Reg) -> u64 {
    if r == Reg::ZERO { 0 } else { 1 << r.ix() }
}

/// The bit of a vector register in a set.
fn vec(r: Reg) -> u64 {
    if r == Reg::ZERO { 0 } else { 1 << (32 | r.ix()) }
}

fn registers_of(m: &Mem) -> u64 {
    int(m.base) | int(m.index) | int(m.seg)
}

/// Registers read and written: integer ones in the low half, vector ones above.
fn registers(u: &Uop) -> (u64, u64) {
    let (mut reads, mut writes) = (0, 0);
    for s in layout(u.op).slots {
        match (s, u.b) {
            (Slot::D, _) => writes |= int(u.d),
            (Slot::A, _) => reads |= int(u.a),
            (Slot::B, Src::Reg(b)) => reads |= int(b),
            (Slot::C, _) => reads |= int(u.c),
            (Slot::Vd, _) => writes |= vec(u.d),
            (Slot::Lane, _) if u.op == Op::Vset && u.k & 1 != 0 => {}
            (Slot::Va | Slot::Lane, _) => reads |= vec(u.a),
            (Slot::Vb, Src::Reg(b)) => reads |= vec(b),
            (Slot::Vc, _) => reads |= vec(u.c),
            (Slot::Mem, _) => reads |= registers_of(&u.mem),
            _ => {}
        }
    }
    if u.op == Op::Vzero {
        writes |= (0..u.k.min(24)).fold(0, |w, n| w | vec(Reg(n)));
    }
    (reads, writes)
}

fn in_range(u: &Uop) -> Result<(), &'static str> {
    let row = u.op.row();
    let bytes = u.k & 127;
    let lanes = if u.op == Op::Vset { 128 } else { 256 } / u.w.bits() as i64;
    let vector = |r: Reg, or_none: bool| r.0 < 24 || or_none && r == Reg::ZERO;
    for s in layout(u.op).slots {
        let ok = match s {
            Slot::D | Slot::A | Slot::C => [u.d, u.a, u.c].iter().all(|r| r.0 < 32),
            Slot::B => !matches!(u.b, Src::Reg(Reg(32..))),
            Slot::Vd => vector(u.d, false),
            Slot::Va => vector(u.a, row.form != Form::VecStore),
            Slot::Vb => matches!(u.b, Src::Reg(r) if vector(r, true)),
            Slot::Vc => vector(u.c, true),
            Slot::Lane => vector(u.a, u.k & 1 != 0) && (0..lanes).contains(&u.imm),
            Slot::Mem => {
                let m = &u.mem;
                [m.base, m.index, m.seg].iter().all(|r| r.0 < 32) && m.scale < 4
            }
            Slot::Cond => u.k < 16,
            Slot::Width => u.k < 4,
            Slot::Seg => u.k < 16 && u.k & 7 < 6,
            Slot::Imm | Slot::To | Slot::Fall => true,
        };
        if !ok {
            return Err("a register or constant is out of range");
        }
    }
    let ok = match row.form {
        Form::VecLoad | Form::VecStore => matches!(bytes, 1 | 2 | 4 | 8 | 16 | 32),
        Form::Vec => matches!(bytes, 8 | 16 | 32) && !u.vop.is_int(),
        Form::VecInt => u.vop.is_int(),
        Form::VecZero => u.k <= 24 && (0..4).contains(&u.imm),
        Form::Ternary => u.w > Width::W8,
        Form::Load => u.d != Reg::ZERO,
        Form::Helper => u.helper.is_some() && !matches!(u.b, Src::Imm(_)),
        Form::Raise => (0..32).contains(&u.imm) && u.k < 2,
        _ => true,
    };
    match (ok, u.fl & !OSZAPC == 0 && (u.fl == 0 || row.writes != 0)) {
        (true, true) => Ok(()),
        (false, _) => {
            Err("its width, size or operation is not one it can have, or its result lost")
        }
        (_, false) => Err("it cannot write these flags"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::parse;
    use crate::uop::HelperDef;

    static READ: HelperDef = HelperDef::new("read", |_, _| Ok(()));

    fn check(text: &str) -> Result<(), VerifyError> {
        verify(&parse(text, &[&[&READ]]).unwrap())
    }

    /// One instruction of these micro-ops, then an end.
    fn insn(uops: &str) -> Result<(), VerifyError> {
        check(&format!("+0 len 1\n{uops}\n+1 len 1\nexit"))
    }

    fn breaks(uops: &str, uop: usize, what: &str) {
        let e = insn(uops).expect_err(uops);
        assert!(e.uop == uop && e.what.contains(what), "{uops}: {e}");
    }

    const FAULT: &str = "after a visible write";

    #[test]
    fn what_lifters_emit_is_accepted() {
        for ok in [
            "ldz.64 t0, [rbx]\n add.64 rax, rax, t0 !oszapc",
            "ld.64 rax, [rax]",
            "st.64 [stack rsp - 8], rcx\n add.64 rsp, rsp, -8",
            "ldw.8 t0, [rbx]\n inc.8 t1, t0 !oszap\n stw.8 [rbx], t1",
            "lea.16 t0, [a16 rbx]\n zx.64 t0, t0, w16\n lin.32 t1, ds/r, t0, 1\n ld.8 rax, [t1]",
            "chkw [rbx] k=16\n st.64 [rbx], rax\n st.64 [rbx + 8], rcx",
            "vld.16a v16, [rax]\n v.pxor.16 v0, v0, v16\n v.pand.16 v0, v0, v16",
            "vset.64 v16, -[0], rax k=1\n v.mov.16 v3, -, v16",
            "getfl.64 t0\n set.8 t1, e\n st.8 [t0], t1",
            "helper read.64 t0\n st.64 [rbx], t0",
            "ldz.64 t0, [rbx]\n helper read.64\n v.por.16 v0, v0, v16",
        ] {
            assert_eq!(insn(ok), Ok(()), "{ok}");
        }
    }

    #[test]
    fn a_fault_after_a_visible_write_is_found() {
        for (uops, at) in [
            ("mov.64 rax, 1\n ld.64 rcx, [rbx]", 1),
            ("add.64 t0, rax, rax !c\n st.64 [rbx], t0", 1),
            ("st.64 [rbx], rax\n st.64 [rbx + 8], rcx", 1),
            ("chkw [rbx] k=16\n st.64 [rbx], rax\n st.64 [rbx + 9], rcx", 2),
            ("chkw [rbx] k=64\n st.64 [rbx], rax\n lea.64 rbx, [rbx + 8]\n st.64 [rbx], rcx", 3),
            ("v.mov.16 v0, -, v1\n vld.16 v2, [rax]", 1),
            ("v.mov.16 v0, -, v1\n v.addps.16 v2, v2, v1", 1),
            ("mov.64 gs_base, rax\n ld.64 rcx, [rbx]", 1),
        ] {
            breaks(uops, at, FAULT);
        }
        let two = "mov.64 rax, 1\n ld.64 rcx, [rbx]";
        assert_eq!(check(&format!("+0 len 1 restartable\n{two}\nexit")), Ok(()));
        let apart = two.replace('\n', "\n+1 len 1\n");
        assert_eq!(check(&format!("+0 len 1\n{apart}\n+2 len 1\nexit")), Ok(()));
    }

    #[test]
    fn a_helper_may_change_anything_unless_it_is_quiet() {
        let block = parse("+0 len 1\n helper read.64\n st.64 [rbx], rax\n exit", &[&[&READ]]);
        let block = block.unwrap();
        assert_eq!(verify(&block).unwrap_err().uop, 1);
        assert_eq!(verify_with(&block, &["read"]), Ok(()));
    }

    #[test]
    fn other_rules() {
        breaks("exit", 0, "only end");
        breaks("add.64 rax, rax, t0", 0, "not written");
        breaks("st.64 [t7], rax", 0, "not written");
        breaks("v.mov.16 v0, -, v23", 0, "not written");
        breaks("mov.64 t0, 1\n+1 len 1\nmov.64 rax, t0", 1, "not written");
        breaks("stw.64 [rbx], rax", 0, "without its ldw");
        breaks("ldw.64 t0, [rbx]\n stw.64 [rcx], t0", 1, "without its ldw");
        breaks("ld.64 zero, [rbx]", 0, "result lost");
        breaks("shld.8 rax, rax, rax, rax", 0, "width");
        breaks("vld.24 v0, [rax]", 0, "size");
        breaks("vset.64 v0, v0[2], rax", 0, "range");
        breaks("vget.64 rax, v0[4]", 0, "range");
        breaks("mov.64 rax, 1 !c", 0, "flags");
        let e = |text: &str| check(text).unwrap_err();
        assert_eq!(e("+0 len 1\nmov.64 rax, 1").uop, 0);
        assert_eq!(e("").what, "it belongs to no instruction, or is missing");
        assert_eq!(e("exit").uop, 0);
        assert!(e("+0 len 2\n+1 len 1\nexit").what.contains("order"));
        assert!(e("+0 len 16\nexit").what.contains("order"));
        assert!(e("+0 len 1\nraise 0x20").what.contains("lost"));
    }
}
