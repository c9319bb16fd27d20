//! Interrupts and exceptions (SDM Vol. 3, chapter 6): gates, error codes, double faults, when an
//! interrupt may come.

use super::asm::{Asm, Emit};
use super::layout::*;
use super::rows;
use iced_x86::code_asm::*;

/// Where the 8259A's IRQ 0 comes in.
const IRQ0: u32 = 0x28;

/// Virtual-wire mode (MultiProcessor Specification 1.4, 3.6.2.2): the local APIC is enabled, and
/// its LINT0 passes the 8259A's interrupts. In real mode DS gets a limit of 4 GiB for it.
fn virtual_wire(s: &mut Asm) -> Emit {
    let base = match s.bitness() {
        16 => {
            s.lgdt(fword_ptr(GDTR))?;
            s.mov(eax, cr0)?;
            s.or(al, 1)?;
            s.mov(cr0, eax)?;
            s.mov(bx, DATA3 & !3)?;
            s.mov(ds, bx)?;
            s.and(al, 0xfe)?;
            s.mov(cr0, eax)?;
            s.xor(bx, bx)?;
            s.mov(ds, bx)?;
            0xfee0_0000
        }
        32 => 0xfee0_0000,
        _ => {
            s.pte(PAGE, 0xfee0_0013)?;
            s.invlpg(byte_ptr(u64::from(PAGE)))?;
            PAGE
        }
    };
    for (register, value) in [(0xf0, 0x1ff), (0x350, 0x700)] {
        s.mov(edi, base | register)?;
        if s.bitness() == 64 {
            s.mov(dword_ptr(rdi), value)?;
        } else {
            s.mov(dword_ptr(edi), value)?;
        }
    }
    Ok(())
}

/// IRQ 0, and no other, to vector [`IRQ0`].
fn pic(s: &mut Asm) -> Emit {
    virtual_wire(s)?;
    for (port, value) in [
        (0x20, 0x11),
        (0x21, IRQ0),
        (0x21, 4),
        (0x21, 1),
        (0xa0, 0x11),
        (0xa1, IRQ0 + 8),
        (0xa1, 2),
        (0xa1, 1),
        (0x21, 0xfe),
        (0xa1, 0xff),
    ] {
        s.mov(al, value)?;
        s.out(port, al)?;
    }
    Ok(())
}

/// No interrupt ever.
fn no_pic(s: &mut Asm) -> Emit {
    pic(s)?;
    s.mov(al, 0xff)?;
    s.out(0x21, al)
}

/// Waits until IRQ 0 is pending: a one-shot of the 8254, and the 8259A's IRR.
fn pending(s: &mut Asm) -> Emit {
    pic(s)?;
    for (port, value) in [(0x43, 0x30), (0x40, 0x20), (0x40, 0), (0x20, 0x0a)] {
        s.mov(al, value)?;
        s.out(port, al)?;
    }
    s.anonymous_label()?;
    s.in_(al, 0x20)?;
    s.test(al, 1)?;
    let again = s.bwd()?;
    s.je(again)
}

/// A 32-bit interrupt gate that is not present.
const ABSENT: u64 = gate(CODE32, 0, 0x0e, 0);
/// The same for 64-bit code.
const ABSENT64: u64 = gate(CODE64, 0, 0x0e, 0);

rows! {
    "INT n from CPL 3 needs DPL 3", Protected3, "#GP(112) #BP INT 21 #GP(182)", "SDM Vol. 2, INT n", |s| {
        guard(); int(0x22); caught(); guard(); int(3); caught(); guard(); int(0x21); caught();
        guard(); int(0x30); caught();
    }
    "INT1 and exceptions ignore DPL", Protected3, "#DB #UD", "SDM Vol. 3, 6.12.1.2", |s| {
        guard(); db(&[0xf1]); caught(); guard(); ud2(); caught();
    }
    "a gate that is not present", Protected, "#NP(10a)", "SDM Vol. 3, 6.13", |s| {
        gate32(0x21, ABSENT); guard(); int(0x21); caught();
    }
    "a gate that is none", Protected, "#GP(10a) #GP(10a)", "SDM Vol. 3, 6.13", |s| {
        gate32(0x21, 0); guard(); int(0x21); caught();
        gate32(0x21, gate(CODE32, 0, 0xec, 0)); guard(); int(0x21); caught();
    }
    "EXT: an exception's gate", Protected, "#NP(33)", "SDM Vol. 3, 6.13", |s| {
        gate32(6, ABSENT); guard(); ud2(); caught();
    }
    "EXT: an interrupt's gate", Protected, "#NP(143)", "SDM Vol. 3, 6.13", |s| {
        with(pending); gate32(IRQ0, ABSENT); guard(); sti(); nop(); nop(); caught();
    }
    "a gate's code segment", Protected, "#GP(0) #GP(28) #NP(80) #GP(20)", "SDM Vol. 3, 6.12.1", |s| {
        gdt(FREE, segment(0, 0xf_ffff, 0xc01b));
        gate32(0x21, gate(0, 0, 0x8e, 0)); guard(); int(0x21); caught();
        gate32(0x21, gate(DATA3, 0, 0x8e, 0)); guard(); int(0x21); caught();
        gate32(0x21, gate(FREE, 0, 0x8e, 0)); guard(); int(0x21); caught();
        gate32(0x21, gate(CODE32_3, 0, 0x8e, 0)); guard(); int(0x21); caught();
    }
    "a gate's offset beyond the limit", Protected, "#GP(0)", "SDM Vol. 2, INT n", |s| {
        gdt(FREE, segment(0, 0xfff, 0x409b)); gate32(0x21, gate(FREE, 0x1000, 0x8e, 0));
        guard(); int(0x21); caught();
    }
    "the frame at the same ring", Protected, "INT 21 6ff4 8", "SDM Vol. 3, figure 6-4", |s| {
        guard(); int(0x21); caught(); show_at(AT_HANDLER_SP); show_at(AT_CS);
    }
    "the frame from another ring", Protected3, "INT 21 77ec 23 6000", "SDM Vol. 3, figure 6-4", |s| {
        guard(); int(0x21); caught(); show_at(AT_HANDLER_SP); show_at(AT_CS); show_at(AT_SP);
    }
    "an interrupt gate clears IF, a trap gate does not", Protected, "0 200", "SDM Vol. 3, 6.12.1.3", |s| {
        with(no_pic); gate32(0x21, gate(CODE32, s.addr("interrupt"), 0x8e, 0));
        gate32(0x22, gate(CODE32, s.addr("trap"), 0x8f, 0)); sti(); int(0x21);
        here("interrupt"); show_flags(0x200); sti(); int(0x22); here("trap"); show_flags(0x200);
    }
    "a 16-bit gate", Protected, "6ffa", "SDM Vol. 3, 24.4.2", |s| {
        gate32(0x21, gate(CODE16, s.addr("handler") & 0xffff, 0x86, 0)); int(0x21);
        bits(16); here("handler"); show(sp);
    }
    "contributory, then contributory: #DF", Protected, "#DF(0)", "SDM Vol. 3, table 6-5", |s| {
        gate32(13, ABSENT); guard(); mov(eax, 0x100); mov(ds, ax); caught();
    }
    "benign, then contributory: one after the other", Protected, "#NP(1a)", "SDM Vol. 3, 6.13, table 6-5", |s| {
        gate32(3, gate(CODE32, 0, 0x6e, 0)); guard(); int3(); caught();
    }
    "page fault, then contributory: #DF", Legacy, "#DF(0)", "SDM Vol. 3, table 6-5", |s| {
        pte(PAGE, 0); gate32(14, ABSENT); guard(); mov(eax, dword_ptr(PAGE)); caught();
    }
    "page fault, then page fault: #DF", Long, "#DF(0)", "SDM Vol. 3, table 6-5", |s| {
        gate64(8, gate(CODE64, s.addr_in("", "long 8"), 0x8e, 1)); pte(PAGE, 0);
        guard(); mov(esp, PAGE + 0x800); push(rax); caught();
    }
    "contributory, then page fault: one after the other", Long, "#PF(2)@307f8", "SDM Vol. 3, table 6-5", |s| {
        gate64(14, gate(CODE64, s.addr_in("", "long 14"), 0x8e, 1)); pte(PAGE, 0);
        guard(); mov(esp, PAGE + 0x800); mov(eax, 0x100); mov(ds, eax); caught();
    }
    "#DF cannot be delivered", Protected, "shutdown", "SDM Vol. 3, 6.15 (#DF)", |s| {
        gate32(13, ABSENT); gate32(8, ABSENT); mov(eax, 0x100); mov(ds, ax);
    }
    "64-bit: contributory twice", Long, "#DF(0)", "SDM Vol. 3, table 6-5", |s| {
        gate64(13, ABSENT64); guard(); mov(eax, 0x100); mov(ds, eax); caught();
    }
    "64-bit: a gate beyond the limit", Long, "#GP(182)", "SDM Vol. 3, 6.13", |s| {
        guard(); int(0x30); caught();
    }
    "64-bit: the null selector in a gate", Long, "#GP(0)", "SDM Vol. 2, INT n", |s| {
        gate64(0x21, gate(0, 0, 0x8e, 0)); guard(); int(0x21); caught();
    }
    "IRET at CPL 3 keeps IF and IOPL", Protected3, "cd5", "SDM Vol. 2, IRET", |s| {
        push(0x3ed7); push(CODE32_3 as i32); push(s.addr("to") as i32); iretd();
        here("to"); show_flags(0x3ed5);
    }
    "STI holds interrupts off for an instruction", Protected, "ok INT 28", "SDM Vol. 2, STI", |s| {
        with(pending); guard(); sti(); cli(); caught(); guard(); sti(); nop(); nop(); caught();
    }
    "STI does so only if IF was 0", Protected, "INT 28 1", "SDM Vol. 2, STI", |s| {
        with(pending); guard(); sti(); here("sti"); sti(); nop(); caught();
        mov(eax, dword_ptr(AT_IP)); show_from("sti");
    }
    "POPF lets interrupts in at once", Protected, "INT 28 0", "SDM Vol. 3, 6.8.1", |s| {
        with(pending); guard(); push(0x202); popfd(); here("next"); nop(); caught();
        mov(eax, dword_ptr(AT_IP)); show_from("next");
    }
    "IRET lets interrupts in at once", Protected, "INT 28 0", "SDM Vol. 3, 6.8.1", |s| {
        with(pending); guard(); push(0x202); push(CODE32 as i32); push(s.addr("next") as i32);
        iretd();
        here("next"); nop(); caught(); mov(eax, dword_ptr(AT_IP)); show_from("next");
    }
    "HLT ends by an interrupt, and is behind it", Protected, "INT 28 0", "SDM Vol. 2, HLT", |s| {
        with(pending); guard(); sti(); hlt(); here("next"); caught();
        mov(eax, dword_ptr(AT_IP)); show_from("next");
    }
    "real mode: HLT and the vector table", Real, "INT 28", "SDM Vol. 3, 21.1.4", |s| {
        with(pending); guard(); sti(); hlt(); caught();
    }
    "64-bit: an interrupt at CPL 3", LongUser, "INT 28 33", "SDM Vol. 3, 6.14", |s| {
        with(pending); mov(dword_ptr(CTX_CS), CODE64);
        guard(); push(DATA3 as i32); push(0x6000); push(0x202); push(CODE64_3 as i32);
        push(s.addr("user") as i32); iretq(); here("user"); jmp(s.label("user")); caught();
        show_at(AT_CS);
    }
    "CR8 masks interrupts", Long, "#GP(0) 5", "SDM Vol. 3, 10.8.6", |s| {
        mov(eax, 16); guard(); db(&[0x44, 0x0f, 0x22, 0xc0]); caught();
        mov(eax, 5); db(&[0x44, 0x0f, 0x22, 0xc0]); xor(eax, eax); db(&[0x44, 0x0f, 0x20, 0xc0]);
        show(eax);
    }
}
