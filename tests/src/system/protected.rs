//! Protected mode (SDM Vol. 3, chapters 3, 5 and 6): segments, privilege, gates.

use super::asm::{Asm, Emit};
use super::layout::*;
use super::rows;
use iced_x86::code_asm::*;

/// A 32-bit data or code segment with base 0.
const fn flat(limit: u64, attributes: u64) -> u64 {
    segment(0, limit, attributes)
}

/// MOV DS of each selector, guarded.
fn load_ds(s: &mut Asm, selectors: &[u32]) -> Emit {
    selectors.iter().try_for_each(|&selector| {
        s.mov(eax, selector)?;
        s.guard()?;
        s.mov(ds, ax)?;
        s.caught()
    })
}

/// A ring-1 stack in the TSS, and a call gate at [`FREE`] to ring-1 code at `inner`.
fn ring1_gate(s: &mut Asm, stack: u32) -> Emit {
    s.gdt(FREE + 8, flat(0xf_ffff, 0xc0bb))?;
    s.gdt(FREE + 16, flat(0xf_ffff, 0xc0b3))?;
    s.gdt(FREE, gate(FREE + 8 | 1, s.addr("inner"), 0xec, 0))?;
    s.poke(IMAGE + TSS32 + 12, 0x5000 | u64::from(stack) << 32)
}

rows! {
    "a limit in bytes", Protected, "ok #GP(0) ok #GP(0)", "SDM Vol. 3, 5.3", |s| {
        gdt(FREE, flat(0xfff, 0x40f3)); mov(eax, FREE); mov(ds, ax);
        guard(); mov(eax, dword_ptr(0xffc)); caught();
        guard(); mov(eax, dword_ptr(0xffd)); caught();
        guard(); mov(al, byte_ptr(0xfff)); caught();
        guard(); mov(al, byte_ptr(0x1000)); caught();
    }
    "a limit in pages", Protected, "ok #GP(0)", "SDM Vol. 3, 3.4.5 (G)", |s| {
        gdt(FREE, flat(1, 0xc0f3)); mov(eax, FREE); mov(ds, ax);
        guard(); mov(al, byte_ptr(0x1fff)); caught();
        guard(); mov(al, byte_ptr(0x2000)); caught();
    }
    "expand-down, B = 1", Protected, "#GP(0) #GP(0) ok ok", "SDM Vol. 3, 5.3", |s| {
        gdt(FREE, flat(0x1fff, 0x40f7)); mov(eax, FREE); mov(ds, ax);
        guard(); mov(al, byte_ptr(0x1fff)); caught();
        guard(); mov(ax, word_ptr(0x1fff)); caught();
        guard(); mov(al, byte_ptr(0x2000)); caught();
        guard(); mov(al, byte_ptr(0x30000)); caught();
    }
    "expand-down, B = 0", Protected, "ok #GP(0) #GP(0)", "SDM Vol. 3, 5.3", |s| {
        gdt(FREE, flat(0x1fff, 0x00f7)); mov(eax, FREE); mov(ds, ax);
        guard(); mov(al, byte_ptr(0xffff)); caught();
        guard(); mov(al, byte_ptr(0x10000)); caught();
        guard(); mov(ax, word_ptr(0xffff)); caught();
    }
    "a limit of SS is #SS", Protected, "#SS(0)", "SDM Vol. 3, 6.15 (#SS)", |s| {
        gdt(FREE, flat(0x7fff, 0x4093)); mov(eax, FREE); mov(ss, ax); mov(ebp, 0x7ffd);
        guard(); mov(eax, dword_ptr(ebp)); caught();
    }
    "what a type forbids", Protected, "#GP(0) ok #GP(0) #GP(0)", "SDM Vol. 3, 5.5", |s| {
        gdt(FREE, flat(0xf_ffff, 0xc0f1)); mov(eax, FREE); mov(ds, ax);
        guard(); mov(byte_ptr(SCRATCH), al); caught();
        guard(); mov(al, byte_ptr(SCRATCH)); caught();
        gdt(FREE + 8, flat(0xf_ffff, 0xc0fb)); mov(eax, FREE + 8); mov(ds, ax);
        guard(); mov(byte_ptr(SCRATCH), al); caught();
        guard(); mov(byte_ptr(SCRATCH).cs(), al); caught();
    }
    "null selectors load and cannot be used", Protected, "ok ok ok #GP(0)", "SDM Vol. 3, 5.4.1", |s| {
        guard(); mov(eax, 0); mov(ds, ax); caught();
        guard(); mov(eax, 3); mov(ds, ax); caught();
        guard(); mov(es, ax); caught();
        guard(); mov(al, byte_ptr(SCRATCH)); caught();
    }
    "a null SS", Protected, "#GP(0) #GP(0)", "SDM Vol. 3, 5.4.1", |s| {
        mov(eax, 0); guard(); mov(ss, ax); caught();
        mov(eax, 3); guard(); mov(ss, ax); caught();
    }
    "error codes of selectors", Protected, "#GP(100) #GP(4) #GP(80) #NP(88) #GP(90)",
    "SDM Vol. 3, 6.13", |s| {
        gdt(FREE + 8, flat(0xf_ffff, 0xc073)); gdt(FREE + 16, gate(CODE32, 0, 0xec, 0));
        with(|s| load_ds(s, &[0x103, 4, FREE | 3, (FREE + 8) | 3, FREE + 16]));
    }
    "what SS refuses", Protected, "#GP(28) #GP(80) #SS(88) #GP(8) #GP(100)",
    "SDM Vol. 2, MOV (SS)", |s| {
        gdt(FREE, flat(0xf_ffff, 0xc091)); gdt(FREE + 8, flat(0xf_ffff, 0xc013));
        mov(eax, DATA3); guard(); mov(ss, ax); caught();
        mov(eax, FREE); guard(); mov(ss, ax); caught();
        mov(eax, FREE + 8); guard(); mov(ss, ax); caught();
        mov(eax, CODE32); guard(); mov(ss, ax); caught();
        mov(eax, 0x100); guard(); mov(ss, ax); caught();
    }
    "DPL of data", Protected3, "#GP(18) #GP(80) ok", "SDM Vol. 3, 5.6", |s| {
        gdt(FREE, flat(0xf_ffff, 0xc0d3)); gdt(FREE + 8, flat(0xf_ffff, 0xc09f));
        with(|s| load_ds(s, &[DATA0 | 3, FREE | 3, (FREE + 8) | 3]));
    }
    "RPL weakens", Protected, "ok #GP(18)", "SDM Vol. 3, 5.6", |s| {
        with(|s| load_ds(s, &[DATA0, DATA0 | 1]));
    }
    "a load sets the accessed bit", Protected, "c09200 c09300", "SDM Vol. 3, 3.4.5.1", |s| {
        gdt(FREE, flat(0, 0xc092)); show_at(IMAGE + GDT + FREE + 4);
        mov(eax, FREE); mov(ds, ax); show_at(IMAGE + GDT + FREE + 4);
    }
    "LDT", Protected, "#GP(c) ok #GP(44) #GP(4)", "SDM Vol. 3, 3.5.1", |s| {
        ldt(8, flat(0xf_ffff, 0xc0f3)); mov(ebx, LDT_SELECTOR);
        with(|s| load_ds(s, &[0xc])); lldt(bx); with(|s| load_ds(s, &[0xc, 0x44]));
        mov(eax, DATA3); mov(ds, ax); mov(ebx, 0); lldt(bx); with(|s| load_ds(s, &[4]));
    }
    "what LLDT and LTR refuse", Protected, "#GP(28) #GP(48) #NP(80) #GP(64) #GP(0)",
    "SDM Vol. 2, LLDT, LTR", |s| {
        gdt(FREE, flat(0x67, 0x0009));
        mov(eax, DATA3); guard(); lldt(ax); caught();
        mov(eax, TSS32_SELECTOR); guard(); ltr(ax); caught();
        mov(eax, FREE); guard(); ltr(ax); caught();
        mov(eax, LDT_SELECTOR | 4); guard(); lldt(ax); caught();
        mov(eax, 0); guard(); ltr(ax); caught();
    }
    "LTR marks the TSS busy", Protected, "8b01", "SDM Vol. 2, LTR", |s| {
        show_at(IMAGE + GDT + TSS32_SELECTOR + 4);
    }
    "LAR", Protected, "c0f300 40 8b00 40 ec00 40 0 0 0", "SDM Vol. 2, LAR, table 3-53", |s| {
        gdt(FREE, gate(CODE32, 0, 0xec, 0)); gdt(FREE + 8, gate(CODE32, 0, 0x8e, 0));
        mov(ebx, DATA3); lar(eax, ebx); show(eax); show_flags(0x40);
        mov(ebx, TSS32_SELECTOR); lar(eax, ebx); show(eax); show_flags(0x40);
        mov(ebx, FREE); lar(eax, ebx); show(eax); show_flags(0x40);
        mov(ebx, FREE + 8); lar(eax, ebx); show_flags(0x40);
        mov(ebx, 0); lar(eax, ebx); show_flags(0x40);
        mov(ebx, CODE32 | 3); lar(eax, ebx); show_flags(0x40);
    }
    "LSL", Protected, "ffffffff 40 e8 40 ffff 40 0", "SDM Vol. 2, LSL, table 3-54", |s| {
        gdt(FREE, gate(CODE32, 0, 0xec, 0));
        mov(ebx, DATA3); lsl(eax, ebx); show(eax); show_flags(0x40);
        mov(ebx, TSS32_SELECTOR); lsl(eax, ebx); show(eax); show_flags(0x40);
        mov(ebx, CODE16); lsl(eax, ebx); show(eax); show_flags(0x40);
        mov(ebx, FREE); lsl(eax, ebx); show_flags(0x40);
    }
    "VERR and VERW", Protected, "40 40 0 0 40 0 0 40", "SDM Vol. 2, VERR/VERW", |s| {
        gdt(FREE, flat(0, 0xc099)); gdt(FREE + 8, flat(0, 0xc091)); gdt(FREE + 16, flat(0, 0xc09f));
        mov(ebx, DATA3); verr(bx); show_flags(0x40); verw(bx); show_flags(0x40);
        mov(ebx, FREE); verr(bx); show_flags(0x40); verw(bx); show_flags(0x40);
        mov(ebx, FREE + 8); verr(bx); show_flags(0x40); verw(bx); show_flags(0x40);
        mov(ebx, DATA0 | 3); verr(bx); show_flags(0x40);
        mov(ebx, (FREE + 16) | 3); verr(bx); show_flags(0x40);
    }
    "ARPL", Protected, "13 40 13 0", "SDM Vol. 2, ARPL", |s| {
        mov(eax, 0x10); mov(ebx, 3); arpl(ax, bx); show(eax); show_flags(0x40);
        mov(ebx, 2); arpl(ax, bx); show(eax); show_flags(0x40);
    }
    "a call gate copies parameters", Protected, "2222 1111 8 77e8 6000 5ff0 2b 23 6000",
    "SDM Vol. 3, 5.8.3 to 5.8.5", |s| {
        gdt(FREE, gate(CODE32, s.addr("inner"), 0xec, 2));
        ring3(); jmp(s.label("main"));
        here("inner"); mov(eax, dword_ptr(esp + 8)); show(eax); mov(eax, dword_ptr(esp + 12));
        show(eax); show(cs); show(esp); mov(eax, dword_ptr(esp + 16)); add(eax, 8); show(eax);
        sub(eax, 16); show(eax); mov(eax, dword_ptr(esp + 20)); show(eax); retf_1(8);
        here("main"); push(0x1111); push(0x2222); far_call(FREE | 3, 0);
        show(cs); show(esp);
    }
    "who may use a call gate", Protected, "#GP(80) #GP(88) #NP(90) #GP(98) #GP(0)",
    "SDM Vol. 3, 5.8.4", |s| {
        gdt(FREE, gate(CODE32, s.addr("x"), 0x8c, 0)); gdt(FREE + 8, gate(FREE + 8, 0, 0xec, 0));
        gdt(FREE + 16, gate(CODE32, 0, 0x6c, 0)); gdt(FREE + 24, gate(FREE + 24, 0, 0xec, 0));
        gdt(FREE + 32, gate(0, 0, 0xec, 0)); here("x"); ring3();
        guard(); far_call(FREE | 3, 0); caught();
        guard(); far_call((FREE + 8) | 3, 0); caught();
        guard(); far_call((FREE + 16) | 3, 0); caught();
        guard(); far_call((FREE + 24) | 3, 0); caught();
        guard(); far_call((FREE + 32) | 3, 0); caught();
    }
    "JMP through a gate stays in its ring", Protected, "8 #GP(8)", "SDM Vol. 3, 5.8.4", |s| {
        gdt(FREE, gate(CODE32, s.addr("here"), 0xec, 0)); far_jmp(FREE, 0);
        here("here"); show(cs); ring3(); guard(); far_jmp(FREE | 3, 0); caught();
    }
    "a call to another ring without a gate", Protected3, "#GP(8) #GP(8) #GP(18) #GP(0)",
    "SDM Vol. 3, 5.8.1", |s| {
        guard(); far_call(CODE32, s.addr("x")); caught();
        guard(); far_call(CODE32 | 3, s.addr("x")); caught();
        guard(); far_call(DATA0 | 3, s.addr("x")); caught();
        guard(); far_call(3, s.addr("x")); here("x"); caught();
    }
    "conforming code keeps CPL", Protected, "83 23", "SDM Vol. 3, 5.8.1.2", |s| {
        gdt(FREE, flat(0xf_ffff, 0xc09f)); ring3(); far_call(FREE | 3, s.addr("conforming"));
        jmp(s.label("back")); here("conforming"); show(cs); retf(); here("back"); show(cs);
    }
    "conforming code of an outer ring", Protected, "#GP(80)", "SDM Vol. 3, 5.8.1.2", |s| {
        gdt(FREE, flat(0xf_ffff, 0xc0ff)); guard(); far_call(FREE, s.addr("x")); here("x");
        caught();
    }
    "code that is not present", Protected, "#NP(80)", "SDM Vol. 3, 6.15 (#NP)", |s| {
        gdt(FREE, flat(0xf_ffff, 0xc01b)); guard(); far_call(FREE, s.addr("x")); here("x");
        caught();
    }
    "a target beyond the limit of CS", Protected, "#GP(0) 8", "SDM Vol. 2, JMP", |s| {
        gdt(FREE, flat(0xfff, 0x409b)); guard(); far_jmp(FREE, 0x1_0000); caught(); show_at(AT_CS);
    }
    "running off the limit of CS", Protected, "#GP(0) 80 1000", "SDM Vol. 3, 5.3", |s| {
        gdt(FREE, segment(SCRATCH.into(), 0xfff, 0x409b)); mov(byte_ptr(SCRATCH + 0xfff), 0x90);
        guard(); push(FREE as i32); push(0xfff); retf(); caught(); show_at(AT_CS); show_at(AT_IP);
    }
    "RETF to an inner ring", Protected3, "#GP(8)", "SDM Vol. 2, RET", |s| {
        guard(); push(CODE32 as i32); push(s.addr("x") as i32); retf(); here("x"); caught();
    }
    "RETF to an outer ring clears data segments", Protected, "23 2b 0 6000",
    "SDM Vol. 3, 5.8.6", |s| {
        mov(eax, DATA0); mov(ds, ax);
        push(DATA3 as i32); push(0x5ff8); push(CODE32_3 as i32); push(s.addr("to") as i32);
        retf_1(0); here("to"); show(cs); show(ss); show(ds); add(esp, 8); show(esp);
    }
    "IRET to an outer ring", Protected, "#GP(18) #GP(0) #GP(28) #SS(80)", "SDM Vol. 2, IRET", |s| {
        gdt(FREE, flat(0xf_ffff, 0xc073));
        guard(); push(DATA0 as i32 | 3); push(0x6000); push(2); push(CODE32_3 as i32); push(0);
        iretd(); caught();
        guard(); push(0); push(0x6000); push(2); push(CODE32_3 as i32); push(0); iretd(); caught();
        guard(); push(DATA3 as i32 & !3); push(0x6000); push(2); push(CODE32_3 as i32); push(0);
        iretd(); caught();
        guard(); push(FREE as i32 | 3); push(0x6000); push(2); push(CODE32_3 as i32); push(0);
        iretd(); caught();
    }
    "IRET's CS", Protected, "#GP(0) #GP(28) #GP(100) #NP(80)", "SDM Vol. 2, IRET", |s| {
        gdt(FREE, flat(0xf_ffff, 0xc01b));
        guard(); push(2); push(0); push(0); iretd(); caught();
        guard(); push(2); push(DATA3 as i32); push(0); iretd(); caught();
        guard(); push(2); push(0x100); push(0); iretd(); caught();
        guard(); push(2); push(FREE as i32); push(0); iretd(); caught();
    }
    "the stack of an inner ring", Protected, "#TS(0)", "SDM Vol. 3, 6.15 (#TS)", |s| {
        with(|s| ring1_gate(s, 0)); ring3();
        guard(); far_call(FREE | 3, 0); here("inner"); caught();
    }
    "its RPL", Protected, "#TS(90)", "SDM Vol. 3, 6.15 (#TS)", |s| {
        with(|s| ring1_gate(s, FREE + 16)); ring3();
        guard(); far_call(FREE | 3, 0); here("inner"); caught();
    }
    "its descriptor's DPL", Protected, "#TS(28)", "SDM Vol. 3, 6.15 (#TS)", |s| {
        with(|s| ring1_gate(s, DATA3 & !3 | 1)); ring3();
        guard(); far_call(FREE | 3, 0); here("inner"); caught();
    }
    "it is not present", Protected, "#SS(90)", "SDM Vol. 3, 6.15 (#SS)", |s| {
        with(|s| ring1_gate(s, FREE + 16 | 1)); gdt(FREE + 16, flat(0xf_ffff, 0xc033)); ring3();
        guard(); far_call(FREE | 3, 0); here("inner"); caught();
    }
    "ring 1", Protected, "89 91 4ff0 5ffc", "SDM Vol. 3, 5.8.5", |s| {
        with(|s| ring1_gate(s, FREE + 16 | 1)); ring3(); push(0); far_call(FREE | 3, 0);
        here("inner"); show(cs); show(ss); show(esp); mov(eax, dword_ptr(esp + 8)); show(eax);
    }
    "no stack for ring 0 at all", Protected, "shutdown", "SDM Vol. 3, 6.15 (#DF)", |s| {
        mov(dword_ptr(IMAGE + TSS32 + 8), 0); ring3(); ud2();
    }
    "privileged instructions", Protected3, "#GP(0) #GP(0) #GP(0) #GP(0) #GP(0) #GP(0) #GP(0) #GP(0)",
    "SDM Vol. 3, 5.9", |s| {
        guard(); hlt(); caught();
        guard(); cli(); caught();
        guard(); mov(eax, cr0); caught();
        guard(); mov(eax, dr7); caught();
        guard(); lgdt(fword_ptr(IMAGE + GDTR)); caught();
        guard(); lmsw(ax); caught();
        guard(); clts(); caught();
        guard(); xor(ecx, ecx); rdmsr(); caught();
    }
    "SGDT and SMSW at CPL 3", Protected3, "ok ok ok", "SDM Vol. 3, 5.9", |s| {
        guard(); sgdt(fword_ptr(SCRATCH)); caught();
        guard(); smsw(eax); caught();
        guard(); str(eax); caught();
    }
    "UMIP", Protected, "ok #GP(0) #GP(0) #GP(0) #GP(0) #GP(0)", "SDM Vol. 3, 2.5 (UMIP)", |s| {
        set_cr4(1 << 11); guard(); sgdt(fword_ptr(SCRATCH)); caught(); ring3();
        guard(); sgdt(fword_ptr(SCRATCH)); caught();
        guard(); sidt(fword_ptr(SCRATCH)); caught();
        guard(); sldt(eax); caught();
        guard(); smsw(eax); caught();
        guard(); str(eax); caught();
    }
    "the I/O permission map", Protected3, "#GP(0) ok #GP(0) ok #GP(0)", "SDM Vol. 1, 19.5.2", |s| {
        guard(); in_(al, 0x61); caught();
        mov(byte_ptr(IMAGE + TSS32 + IO_MAP + 0xc), 0xfd); guard(); in_(al, 0x61); caught();
        guard(); in_(ax, 0x61); caught();
        mov(byte_ptr(IMAGE + TSS32 + IO_MAP + 0xc), 0xf9); guard(); in_(ax, 0x61); caught();
        mov(edx, 0x400); guard(); in_(al, dx); caught();
    }
    "IOPL opens all ports", Protected, "ok ok", "SDM Vol. 1, 19.5.1", |s| {
        push(0x3002); popfd(); ring3(); mov(edx, 0x400);
        guard(); in_(al, dx); caught(); guard(); cli(); caught();
    }
    "a 16-bit call gate", Protected, "6ffc 38", "SDM Vol. 3, 24.4.2", |s| {
        gdt(FREE, gate(CODE16, s.addr("inner") & 0xffff, 0x84, 0));
        far_call(FREE, 0); bits(16); here("inner"); show(sp); show(cs);
    }
    "16-bit code: PUSH at SP = 0", Protected16, "fffe", "SDM Vol. 1, 6.2.3", |s| {
        xor(sp, sp); push(ax); mov(bx, sp); mov(sp, STACK); show(bx);
    }
    "16-bit code: a word at FFFFH", Protected16, "#SS(0) ok", "SDM Vol. 3, 5.3", |s| {
        mov(bp, 0xffff); guard(); mov(ax, word_ptr(bp)); caught();
        guard(); mov(al, byte_ptr(bp)); caught();
    }
    "16-bit code: no stack for an exception", Protected16, "shutdown", "SDM Vol. 3, 6.15 (#DF)", |s| {
        mov(sp, 1); push(ax);
    }
}
