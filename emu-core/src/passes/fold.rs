//! Constant folding: an op whose sources are constants in this block becomes a move, a register
//! source with a known value becomes an immediate. Evaluation is the op's own `eval`; ops that
//! must still write flags stay.

use crate::flags::Flags;
use crate::uop::{Block, Effect, Form, Op, Src, Uop};

/// Known values, by register number; the zero register is always known.
struct Known([Option<u64>; 32]);

impl Known {
    fn src(&self, s: Src) -> Option<u64> {
        match s {
            Src::Imm(v) => Some(v as u64),
            Src::Reg(r) => self.0[r.ix()],
        }
    }
}

/// Runs the pass.
pub fn run(block: &mut Block) {
    let mut known = Known([None; 32]);
    known.0[31] = Some(0);
    for u in &mut block.uops {
        step(u, &mut known);
        known.0[31] = Some(0);
    }
}

fn step(u: &mut Uop, known: &mut Known) {
    let row = u.op.row();
    let integer_b = matches!(row.form, Form::Binary | Form::BinaryK | Form::Ternary | Form::Store);
    if integer_b && let (Src::Reg(_), Some(v)) = (u.b, known.src(u.b)) {
        u.b = Src::Imm(v as i64);
    }
    if row.effect == Effect::Helper {
        *known = Known([None; 32]);
        return;
    }
    let Some(eval) = row.eval else {
        if writes_integer(row.form) {
            known.0[u.d.ix()] = None;
        }
        return;
    };
    let (a, b, c, old) = (
        known.0[u.a.ix()].or((u.op == Op::Mov).then_some(0)),
        known.src(u.b),
        known.0[u.c.ix()],
        known.0[u.d.ix()],
    );
    known.0[u.d.ix()] = None;
    // XOR and SUB of a register with itself are zero whatever it holds.
    let same = matches!(u.op, Op::Xor | Op::Sub) && u.b == Src::Reg(u.a);
    let (a, b) = if same { (Some(0), Some(0)) } else { (a, b) };
    let reads_flags = u.flags_read() != 0;
    let partial = u.w < crate::width::Width::W32;
    if let (Some(a), Some(b), Some(c), false) = (a, b, c, reads_flags)
        && (!partial || old.is_some())
    {
        let (v, _) = eval(u.w, u.k, a, b, c, Flags::default());
        let v = u.w.merge(old.unwrap_or(0), v);
        known.0[u.d.ix()] = Some(v);
        if u.fl == 0 && u.d.0 != 31 {
            *u = Uop {
                d: u.d,
                a: u.d,
                b: Src::Imm(v as i64),
                ..Uop::new(Op::Mov, crate::width::Width::W64)
            };
        }
    }
}

/// Whether an op of this form without `eval` writes an integer register in `d`.
fn writes_integer(f: Form) -> bool {
    matches!(f, Form::Unary | Form::Load | Form::Linear | Form::VecInt | Form::VecGet)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::Builder;
    use crate::cpu::Reg;
    use crate::width::Width::{W8, W32, W64};

    #[test]
    fn constants_flow_through_moves_and_arithmetic() {
        let mut b = Builder::new();
        b.start_insn(1);
        b.op(Op::Xor, W32, Reg::RAX, Reg::RAX, Reg::RAX);
        b.mov(W8, Reg::RAX, 5);
        b.op_nf(Op::Add, W64, Reg::RBX, Reg::RAX, 2);
        b.op(Op::Add, W64, Reg::RCX, Reg::RDX, Reg::RBX);
        b.goto(W64, 1);
        let mut block = b.finish();
        run(&mut block);
        assert_eq!(block.uops[2].op, Op::Mov);
        assert_eq!(block.uops[2].b, Src::Imm(7));
        assert_eq!(block.uops[3].b, Src::Imm(7), "a known register source");
        assert_eq!(block.uops[3].op, Op::Add, "its flags are wanted");
    }

    #[test]
    fn what_has_no_eval_makes_its_destination_unknown() {
        let mut b = Builder::new();
        b.start_insn(1);
        let t = b.temp();
        b.mov(W64, t, 0xb0);
        b.mxcsr(t);
        b.store(Op::St, W32, crate::uop::Mem::at(Reg::RBX, 0), t);
        b.goto(W64, 1);
        let mut block = b.finish();
        run(&mut block);
        assert_eq!(block.uops[2].b, Src::Reg(t));
    }

    #[test]
    fn helpers_and_loads_make_registers_unknown() {
        let mut b = Builder::new();
        b.start_insn(1);
        b.mov(W64, Reg::RAX, 1);
        b.load(Op::Ld, W64, Reg::RAX, crate::uop::Mem::at(Reg::RBX, 0));
        b.op_nf(Op::Add, W64, Reg::RCX, Reg::RCX, Reg::RAX);
        b.mov(W64, Reg::RAX, 1);
        b.mxcsr(Reg::RAX);
        b.op_nf(Op::Add, W64, Reg::RCX, Reg::RCX, Reg::RAX);
        b.goto(W64, 1);
        let mut block = b.finish();
        run(&mut block);
        assert_eq!(block.uops[2].b, Src::Reg(Reg::RAX));
        assert_eq!(block.uops[5].b, Src::Reg(Reg::RAX));
    }
}
