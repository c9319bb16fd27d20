//! Dead flags: narrows `fl` to the flags that somebody may still read.
//!
//! Backward, because liveness flows from readers to writers. At the block's end all flags are
//! live, and before every op that may fault too: a fault shows them to the guest. Where the flags
//! an op does *not* write are all dead, `fl` is widened to all six, which spares the merge.

use crate::flags::OSZAPC;
use crate::uop::Block;

/// Runs the pass.
pub fn run(block: &mut Block) {
    let mut live = OSZAPC;
    for u in block.uops.iter_mut().rev() {
        let written = u.fl;
        let read = u.flags_read();
        if written != 0 {
            u.fl = if written & live == 0 {
                0
            } else if live & !written == 0 {
                OSZAPC
            } else {
                written & live
            };
        }
        live = (live & !written) | read;
        if u.may_fault() {
            live = OSZAPC;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::Builder;
    use crate::cpu::Reg;
    use crate::flags::CF;
    use crate::uop::{Mem, Op};
    use crate::width::Width::W64;

    fn flags(f: impl Fn(&mut Builder)) -> Vec<u32> {
        let mut b = Builder::new();
        b.start_insn(1);
        f(&mut b);
        b.goto(W64, 1);
        let mut block = b.finish();
        run(&mut block);
        block.uops.iter().map(|u| u.fl).collect()
    }

    #[test]
    fn overwritten_flags_are_dropped_but_not_across_a_fault() {
        let (a, b) = (Reg::RAX, Reg::RBX);
        let add_add = flags(|x| {
            x.op(Op::Add, W64, a, a, b);
            x.op(Op::Add, W64, a, a, b);
        });
        assert_eq!(add_add, [0, OSZAPC, 0]);
        let with_load = flags(|x| {
            x.op(Op::Add, W64, a, a, b);
            x.load(Op::Ld, W64, b, Mem::at(a, 0));
            x.op(Op::Add, W64, a, a, b);
        });
        assert_eq!(with_load, [OSZAPC, 0, OSZAPC, 0]);
    }

    #[test]
    fn inc_keeps_a_carry_that_is_read_and_drops_one_that_is_not() {
        let a = Reg::RAX;
        let kept = flags(|x| {
            x.op(Op::Add, W64, a, a, a);
            x.op(Op::Inc, W64, a, a, 0);
        });
        assert_eq!(kept, [OSZAPC, OSZAPC & !CF, 0], "only CF is wanted, but all six are cheaper");
        let only_zero = flags(|x| {
            x.op(Op::Inc, W64, a, a, 0);
            x.op_k(Op::Set, W64, a, a, 0, 4);
            x.op(Op::Add, W64, a, a, a);
        });
        assert_eq!(only_zero[0], OSZAPC, "CF is dead: no merge");
    }

    #[test]
    fn a_shift_by_a_register_may_leave_flags_alone() {
        let a = Reg::RAX;
        let v = flags(|x| {
            x.op(Op::Add, W64, a, a, a);
            x.op(Op::Shl, W64, a, a, Reg::RCX);
        });
        assert_eq!(v[0], OSZAPC);
    }
}
