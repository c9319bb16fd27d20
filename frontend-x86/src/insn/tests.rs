//! Instructions that random samples in ring 3 cannot judge, through the run loop: where vendors
//! differ, and traps that the host's kernel would take. Each test cites SDM Vol. 2.

use crate::lift::lift_bytes;
use crate::sys::cpuid::Features;
use crate::sys::testing::{self, Level};
use emu_core::cpu::{Cpu, Reg, Seg, mode};
use emu_core::uop::Op;
use emu_core::vcpu::{Stop, Vcpu};
use emu_core::width::Width::{W16, W64};

/// Runs `code` at 1234H in ring 0 until it halts.
fn run(level: Level, code: &[u8], prepare: impl FnOnce(&mut Cpu)) -> Cpu {
    let mut c = testing::cpu(level);
    c.frontend = &crate::FRONTEND;
    c.mem.write_bytes(0x1234, code);
    prepare(&mut c);
    let mut vcpu = Vcpu::new(c);
    assert_eq!(vcpu.run(1000), Stop::Halted);
    vcpu.cpu
}

/// m16:64 operands, with REX.W: LFS, LGS, LSS, far JMP and CALL ("Far, absolute indirect, address
/// given in m16:64").
#[test]
fn far_pointers_of_ten_bytes() {
    let far = 0x0000_0000_0050_6000;
    let pointer = |c: &mut Cpu, selector: u16| {
        c.mem.write(0x5000, W64, far);
        c.mem.write(0x5008, W16, selector.into());
        c.mem.write_bytes(far, &[0xf4]);
        c.set_reg(Reg::RBX, 0x5000);
    };
    let loads = [(0xb2, Seg::Ss), (0xb4, Seg::Fs), (0xb5, Seg::Gs)];
    for (opcode, seg) in loads {
        let code = [0x48, 0x0f, opcode, 0x03, 0xf4]; // l.s rax, [rbx]; hlt
        let c = run(Level::Long, &code, |c| pointer(c, testing::DATA0));
        assert_eq!(c.reg(Reg::RAX), far);
        assert_eq!(c.segs[seg as usize].selector, testing::DATA0);
    }
    let c = run(Level::Long, &[0x48, 0xff, 0x2b], |c| pointer(c, testing::CODE0));
    assert_eq!((c.rip(), c.reg(Reg::RSP)), (far + 1, testing::STACK));
    let c = run(Level::Long, &[0x48, 0xff, 0x1b], |c| pointer(c, testing::CODE0));
    assert_eq!((c.rip(), c.reg(Reg::RSP)), (far + 1, testing::STACK - 16));
    let word = |n| c.mem.read(testing::STACK - 16 + n, W64);
    assert_eq!((word(0), word(8)), (0x1237, testing::CODE0.into()));
}

/// INT3 and INTO are traps through gates that their ring may use, INT1 one that asks nobody; INTO
/// traps if OF is set.
#[test]
fn breakpoints_and_overflow() {
    let gates = |c: &mut Cpu| {
        for vector in [1, 3, 4] {
            testing::gate(c, vector, testing::CODE0, 0x6000, 0x8e, 0);
        }
        c.mem.write_bytes(0x6000, &[0xff, 0xc3, 0xcf]); // inc ebx; iret
    };
    // int1; int3; into; mov al, 80h; neg al; into; hlt
    let code = [0xf1, 0xcc, 0xce, 0xb0, 0x80, 0xf6, 0xd8, 0xce, 0xf4];
    let c = run(Level::Protected, &code, gates);
    assert_eq!([1, 3, 4].map(|v| c.vectors[v]), [1, 1, 1]);
    assert_eq!((c.reg(Reg::RBX), c.rip()), (3, 0x1234 + 9));
    // In ring 3 a gate of DPL 0 is not for INT3, but for INT1.
    for (code, vector) in [(0xf1, 1), (0xcc, 13)] {
        let c = run(Level::Protected, &[code], |c| {
            gates(c);
            testing::gate(c, 13, testing::CODE0, 0x6800, 0x8e, 0);
            c.mem.write_bytes(0x6000, &[0xf4]);
            c.mem.write_bytes(0x6800, &[0xf4]);
            testing::to_user(c, testing::CODE3, 0x7000);
        });
        assert_eq!(c.vectors[vector], 1);
    }
}

/// There are no caches: INVD and WBINVD lose nothing.
#[test]
fn caches_are_coherent() {
    // mov byte [rbx], 5; invd; wbinvd; mov al, [rbx]; hlt
    let code = [0xc6, 0x03, 5, 0x0f, 0x08, 0x0f, 0x09, 0x8a, 0x03, 0xf4];
    let c = run(Level::Long, &code, |c| c.set_reg(Reg::RBX, 0x5000));
    assert_eq!(c.reg(Reg::RAX), 5);
}

/// 0F 0D /0–/7 (PREFETCHW and reserved NOPs) and the hints of 0F 18–0F 1F touch nothing.
#[test]
fn nops_of_any_operand() {
    for opcode in (0x18..=0x1f).chain([0x0d]) {
        for modrm in 0..=255 {
            let code = [0x0f, opcode, modrm, 0, 0, 0, 0, 0];
            let features = Features::X86_64_V3.0;
            let (block, _) = lift_bytes(&code, mode::CODE64 | mode::LONG, features, 1);
            let ops: Vec<_> = block.uops.iter().map(|u| u.op).collect();
            assert_eq!(ops, [Op::Goto], "{code:x?}");
        }
    }
}
