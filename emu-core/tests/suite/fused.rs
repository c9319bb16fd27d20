//! The sequences that threaded code runs as one record, in every width: that they are fused at
//! all, and that they do what their micro-ops say.

use crate::machine::{check, src};
use emu_core::build::Builder;
use emu_core::cpu::Reg;
use emu_core::flags::{CF, OSZAPC};
use emu_core::uop::{Mem, Op, Src, Uop};
use emu_core::width::Width::{self, W64};

const SEEDS: [u64; 4] = [1, 0x1234_5678_9abc_def1, 0xfeed_beef_0bad_f00d, 0x7777_0000_1111_2223];

/// Builds one instruction and its end, and runs it from several states; gives its records.
fn records(f: impl Fn(&mut Builder)) -> usize {
    let mut b = Builder::new();
    b.start_insn(3);
    f(&mut b);
    if !b.ended() {
        b.exit();
    }
    let block = b.finish();
    SEEDS.map(|s| check(s, &block))[0]
}

/// Base only; with index; with segment and address size.
fn operands() -> [Mem; 3] {
    let base = Mem::at(Reg::ZERO, 0x1ffd);
    let index = Mem { index: Reg::T7, scale: 2, ..base };
    [base, index, Mem { addr: Width::W16, base: Reg::RDI, seg: Reg::ZERO, ..base }]
}

fn with_index(b: &mut Builder) {
    b.mov(W64, Reg::T7, 3);
}

#[test]
fn compare_and_branch() {
    let sources = [(Some(Reg::RBX), 0), (None, -1), (None, 0x7fff_ffff), (Some(Reg::RAX), 0)];
    for op in [Op::Sub, Op::And] {
        for w in Width::ALL {
            for (b, v) in sources {
                for cc in 0..16 {
                    for d in [Reg::ZERO, Reg::RCX] {
                        let n = records(|x| {
                            x.op(op, w, d, Reg::RAX, src(b, v));
                            x.jcc(W64, cc, -0x20, 3);
                        });
                        assert_eq!(n, 1, "{op:?} {w:?}");
                    }
                }
            }
        }
    }
    let wide = records(|x| {
        x.op(Op::Sub, W64, Reg::ZERO, Reg::RAX, 1i64 << 40);
        x.jcc(W64, 4, -0x20, 3);
    });
    assert_eq!(wide, 2, "an immediate that has no room");
    let narrow_ip = records(|x| {
        x.op(Op::Sub, W64, Reg::ZERO, Reg::RAX, 1);
        x.jcc(Width::W16, 4, -0x20, 3);
    });
    assert_eq!(narrow_ip, 2);
}

#[test]
fn load_and_operate() {
    let places = [(Reg::RCX, Reg::RCX), (Reg::RCX, Reg::RDX), (Reg::ZERO, Reg::RDX)];
    for m in operands() {
        for w in Width::ALL {
            for op in [Op::Add, Op::Sub, Op::And, Op::Or, Op::Xor, Op::Imul] {
                for fl in [0, OSZAPC] {
                    for (d, a) in places {
                        let n = records(|x| {
                            with_index(x);
                            x.load(Op::Ldz, w, Reg::T0, m);
                            x.push(Uop { d, a, b: Reg::T0.into(), fl, ..Uop::new(op, w) });
                        });
                        assert_eq!(n, 3, "{op:?} {w:?} {m:?}");
                    }
                }
            }
            for op in [Op::Sub, Op::And] {
                for b in [Src::Imm(-3), Src::Imm(1 << 40), Reg::RDX.into(), Reg::ZERO.into()] {
                    let n = records(|x| {
                        with_index(x);
                        x.load(Op::Ldz, w, Reg::T0, m);
                        x.op(op, w, Reg::ZERO, Reg::T0, b);
                    });
                    assert_eq!(n, 3, "{op:?} {w:?} {b:?}");
                }
            }
        }
    }
}

#[test]
fn read_modify_write() {
    for m in operands() {
        for w in Width::ALL {
            for op in [Op::Add, Op::Sub, Op::And, Op::Or, Op::Xor, Op::Inc, Op::Dec] {
                for fl in [0, OSZAPC, OSZAPC & !CF, CF] {
                    for b in [Src::Imm(-3), Src::Imm(1 << 40), Reg::RDX.into()] {
                        let n = records(|x| {
                            with_index(x);
                            x.load(Op::Ldw, w, Reg::T0, m);
                            x.push(Uop { d: Reg::T1, a: Reg::T0, b, fl, ..Uop::new(op, w) });
                            x.store(Op::Stw, w, m, Reg::T1);
                        });
                        assert_eq!(n, 3, "{op:?} {w:?} {b:?}");
                    }
                }
            }
        }
    }
    let kept = records(|x| {
        x.load(Op::Ldw, W64, Reg::T0, Mem::at(Reg::ZERO, 64));
        x.op(Op::Add, W64, Reg::T1, Reg::T0, Reg::RDX);
        x.store(Op::Stw, W64, Mem::at(Reg::ZERO, 64), Reg::T1);
        x.mov(W64, Reg::RDX, Reg::T0);
    });
    assert_eq!(kept, 5, "XADD: the old value is wanted");
}

#[test]
fn stack() {
    let top = |disp| Mem { stack: true, ..Mem::at(Reg::RSP, disp) };
    // One record more for RSP, one for the end.
    let rsp = |x: &mut Builder| x.mov(W64, Reg::RSP, 0x2ffc);
    for b in [Src::Imm(-1), Src::Imm(i64::MIN), Reg::RSP.into(), Reg::gpr(15).into()] {
        let n = records(|x| {
            rsp(x);
            x.store(Op::St, W64, top(-8), b);
            x.op_nf(Op::Add, W64, Reg::RSP, Reg::RSP, -8);
        });
        assert_eq!(n, 3, "push {b:?}");
    }
    let pop = records(|x| {
        rsp(x);
        x.load(Op::Ld, W64, Reg::RBX, top(0));
        x.op_nf(Op::Add, W64, Reg::RSP, Reg::RSP, 8);
    });
    assert_eq!(pop, 3);
    let call = records(|x| {
        rsp(x);
        x.op_nf(Op::Add, W64, Reg::T0, Reg::RIP, 3);
        x.store(Op::St, W64, top(-8), Reg::T0);
        x.op_nf(Op::Add, W64, Reg::RSP, Reg::RSP, -8);
        x.goto(W64, 0x1000);
    });
    assert_eq!(call, 2);
    for by in [8, 0x108] {
        let ret = records(|x| {
            rsp(x);
            x.load(Op::Ldz, W64, Reg::T0, top(0));
            x.op_k(Op::Lin, W64, Reg(17), Reg::T0, 0, 1);
            x.op_nf(Op::Add, W64, Reg::RSP, Reg::RSP, by);
            x.jmpi(W64, Reg(17));
        });
        assert_eq!(ret, 2);
    }
    let jump = records(|x| {
        x.op_k(Op::Lin, W64, Reg::T0, Reg::RAX, 0, 1);
        x.jmpi(W64, Reg::T0);
    });
    assert_eq!(jump, 1);
    for w in [Width::W16, Width::W32] {
        // Narrow ones are not fused.
        let n = records(|x| {
            rsp(x);
            x.store(Op::St, w, top(-2), Reg::RAX);
            x.op_nf(Op::Add, W64, Reg::RSP, Reg::RSP, -2);
            x.load(Op::Ld, w, Reg::RBX, top(0));
            x.op_nf(Op::Add, W64, Reg::RSP, Reg::RSP, 2);
        });
        assert_eq!(n, 6);
    }
}

/// A fault in a fused form is the load's or store's, and nothing has changed.
#[test]
fn faults_inside() {
    let far = Mem::at(Reg::ZERO, i32::MAX);
    let forms: [fn(&mut Builder, Mem); 4] = [
        |x, m| {
            x.load(Op::Ldz, W64, Reg::T0, m);
            x.op(Op::Add, W64, Reg::RAX, Reg::RAX, Reg::T0);
        },
        |x, m| {
            x.load(Op::Ldz, W64, Reg::T0, m);
            x.op(Op::Sub, W64, Reg::ZERO, Reg::T0, 1);
        },
        |x, m| {
            x.load(Op::Ldw, W64, Reg::T0, m);
            x.op(Op::Add, W64, Reg::T1, Reg::T0, 1);
            x.store(Op::Stw, W64, m, Reg::T1);
        },
        |x, _| {
            x.mov(W64, Reg::T7, Reg::RSP);
            x.mov(W64, Reg::RSP, i64::MIN);
            x.store(Op::St, W64, Mem { stack: true, ..Mem::at(Reg::RSP, -8) }, Reg::RAX);
            x.op_nf(Op::Add, W64, Reg::RSP, Reg::RSP, -8);
        },
    ];
    for f in forms {
        records(|x| f(x, far));
    }
}
