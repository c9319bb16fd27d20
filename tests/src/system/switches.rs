//! More of hardware task switches (SDM Vol. 3, chapter 7): both ways, and by interrupts.

use super::asm::{Asm, Emit};
use super::layout::*;
use super::rows;
use iced_x86::code_asm::*;

/// Access byte and base of the other task's descriptor, as its upper half has them.
const AVAILABLE: u64 = 0x89;

/// A second TSS at [`SCRATCH`] with the selector [`FREE`]: its task starts at `task`.
fn task(s: &mut Asm) -> Emit {
    s.gdt(FREE, segment(SCRATCH.into(), 0x67, AVAILABLE))?;
    let eip_ = s.addr("task");
    for (offset, value) in [
        (8, DATA0),
        (32, eip_),
        (36, 2),
        (40, 0xaaaa),
        (56, 0x5000),
        (72, DATA3),
        (76, CODE32),
        (80, DATA0),
        (84, DATA3),
        (88, DATA3),
        (92, DATA3),
        (100, 0x68_0000),
    ] {
        let at = s.dword(SCRATCH + offset);
        s.mov(at, value)?;
    }
    Ok(())
}

/// The access bytes of the other task and of this one: 89H available, 8BH busy.
fn show_busy(s: &mut Asm) -> Emit {
    for selector in [FREE, TSS32_SELECTOR] {
        s.movzx(ebx, byte_ptr(IMAGE + GDT + selector + 5))?;
        s.show(ebx)?;
    }
    Ok(())
}

rows! {
    "JMP to a TSS", Protected, "aaaa 5000 80 7000 8b 89 8 0", "SDM Vol. 3, 7.3, table 7-2", |s| {
        with(task); far_jmp(FREE, 0); here("task"); show(eax); show(esp); str(eax); show(eax);
        show_at(IMAGE + TSS32 + 56); with(show_busy); mov(eax, cr0); and(eax, 8); show(eax);
        show_flags(0x4000);
    }
    "CALL to a TSS, and IRET", Protected, "4000 48 8b 8b 48 89 8b 0", "SDM Vol. 3, 7.4", |s| {
        with(task); jmp(s.label("main"));
        here("task"); show_flags(0x4000); movzx(eax, word_ptr(SCRATCH)); show(eax); with(show_busy);
        iretd();
        here("main"); far_call(FREE, 0); str(eax); show(eax); with(show_busy); show_flags(0x4000);
    }
    "a task goes on where it left", Protected, "1 2", "SDM Vol. 3, 7.3", |s| {
        with(task); jmp(s.label("main"));
        here("task"); mov(ebx, 1); show(ebx); iretd(); inc(ebx); show(ebx); iretd();
        here("main"); far_call(FREE, 0); far_call(FREE, 0);
    }
    "what a task switch refuses", Protected, "#GP(48) #NP(80) #TS(80) #GP(80)",
    "SDM Vol. 3, 7.3", |s| {
        here("task"); with(task); guard(); far_jmp(TSS32_SELECTOR, 0); caught();
        gdt(FREE, segment(SCRATCH.into(), 0x67, 0x09)); guard(); far_jmp(FREE, 0); caught();
        gdt(FREE, segment(SCRATCH.into(), 0x66, AVAILABLE)); guard(); far_jmp(FREE, 0); caught();
        gdt(FREE, segment(SCRATCH.into(), 0x67, AVAILABLE)); ring3();
        guard(); far_jmp(FREE | 3, 0); caught();
    }
    "a task gate", Protected, "aaaa 48", "SDM Vol. 3, 7.2.5", |s| {
        with(task); gdt(FREE + 8, gate(FREE, 0, 0xe5, 0)); ring3(); far_call((FREE + 8) | 3, 0);
        here("task"); show(eax); movzx(eax, word_ptr(SCRATCH)); show(eax);
    }
    "an interrupt by a task gate", Protected, "4000 4ffc 100", "SDM Vol. 3, 6.12.2", |s| {
        with(task); gate32(13, gate(FREE, 0, 0x85, 0)); mov(eax, 0x100); mov(ds, ax);
        here("task"); show_flags(0x4000); show(esp); pop(eax); show(eax);
    }
    "a double fault by a task gate", Protected, "0 6ff1", "SDM Vol. 3, 6.15 (#DF)", |s| {
        with(task); gate32(8, gate(FREE, 0, 0x85, 0));
        gdt(FREE + 8, segment(0, 0x6fff, 0x4097)); mov(eax, FREE + 8); mov(ss, ax);
        mov(esp, 0x6ff1); push(eax);
        here("task"); pop(eax); show(eax); show_at(IMAGE + TSS32 + 56);
    }
    "IRET with NT and no task behind", Protected, "#TS(28) #TS(80)", "SDM Vol. 2, IRET", |s| {
        here("task"); with(task); mov(dword_ptr(IMAGE + TSS32), DATA3);
        guard(); push(0x4002); popfd(); iretd(); caught();
        mov(dword_ptr(IMAGE + TSS32), FREE); guard(); push(0x4002); popfd(); iretd(); caught();
    }
    "the T flag of a TSS", Protected, "#DB 8000 80", "SDM Vol. 3, 17.3.1.5", |s| {
        with(task); mov(word_ptr(SCRATCH + 100), 1); guard(); far_jmp(FREE, 0); here("task");
        caught();
        mov(eax, dr6); and(eax, 0xf00f); show(eax); str(eax); show(eax);
    }
}
