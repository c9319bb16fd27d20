//! Hardware task switches (SDM Vol. 3, chapter 7), debug exceptions (17.2, 17.3) and alignment
//! checking.

use super::asm::{Asm, Emit};
use super::layout::*;
use super::rows;
use iced_x86::code_asm::*;

/// A second task whose 32-bit TSS is at [`SCRATCH`] and in the GDT at [`FREE`]; it begins at the
/// place "new" with the stack 5000H, and has the segments that rows begin with.
fn task(s: &mut Asm) -> Emit {
    for (at, value) in [
        (32, s.addr("new")),
        (36, 2),
        (56, 0x5000),
        (72, DATA3),
        (76, CODE32),
        (80, DATA0),
        (84, DATA3),
        (88, DATA3),
        (92, DATA3),
        (100, 0x68 << 16),
    ] {
        let to = s.dword(SCRATCH + at);
        s.mov(to, value)?;
    }
    s.gdt(FREE, segment(SCRATCH.into(), 0x67, 0x89))
}

/// The same with a 16-bit TSS.
fn task16(s: &mut Asm) -> Emit {
    // 16-bit EIP: the task begins at a jump below 64 KiB.
    let new = s.addr("new");
    s.mov(byte_ptr(SCRATCH + 0x100), 0)?;
    for (at, value) in
        [(14, 0x4000), (16, 2), (26, 0x5000), (34, DATA3), (36, CODE32), (38, DATA0), (40, DATA3)]
    {
        let to = s.word(SCRATCH + at);
        s.mov(to, value)?;
    }
    s.mov(byte_ptr(0x4000), 0xe9)?;
    s.mov(dword_ptr(0x4001), new.wrapping_sub(0x4005))?;
    s.gdt(FREE, segment(SCRATCH.into(), 0x2b, 0x81))
}

/// Breakpoint 0 at `address` with R/W and LEN in `field`.
fn breakpoint(s: &mut Asm, address: u32, field: u32) -> Emit {
    s.mov(eax, address)?;
    s.mov(dr0, eax)?;
    s.mov(eax, field << 16 | 2)?;
    s.mov(dr7, eax)
}

/// Observes the bits of DR6 that are set by exceptions.
fn show_dr6(s: &mut Asm) -> Emit {
    s.mov(eax, dr6)?;
    s.and(eax, 0xf00f)?;
    s.show(eax)
}

/// Observes where the last exception was, from the place "start" on.
fn show_where(s: &mut Asm) -> Emit {
    let at = s.dword(AT_IP);
    s.mov(eax, at)?;
    s.show_from("start")
}

rows! {
    "JMP to a TSS", Protected, "80 8 8901 8b02 0 1234", "SDM Vol. 3, 7.3, table 7-2", |s| {
        with(task); mov(eax, 0x1234); far_jmp(FREE, 0);
        here("new"); str(eax); show(eax); mov(eax, cr0); and(eax, 8); show(eax);
        show_at(IMAGE + GDT + TSS32_SELECTOR + 4); show_at(IMAGE + GDT + FREE + 4);
        show_flags(0x4000); show_at(IMAGE + TSS32 + 40);
    }
    "CALL nests and IRET goes back", Protected, "48 8902 4000 48 8b01 2",
    "SDM Vol. 3, 7.3, 7.4", |s| {
        with(task); far_call(FREE, 0);
        str(eax); show(eax); show_at(IMAGE + GDT + FREE + 4); jmp(s.label("end"));
        here("new"); show_flags(0x4000); show_at(SCRATCH);
        show_at(IMAGE + GDT + TSS32_SELECTOR + 4); iretd();
        here("end"); show_at(SCRATCH + 36);
    }
    "a task gate for CALL", Protected, "80", "SDM Vol. 3, 7.2.5", |s| {
        with(task); gdt(FREE + 8, gate(FREE, 0, 0x85, 0)); far_call(FREE + 8, 0);
        here("new"); str(eax); show(eax);
    }
    "TSSs that JMP refuses", Protected, "#GP(48) #GP(80) #NP(88) #TS(90) #GP(64) #GP(98)",
    "SDM Vol. 3, table 7-1", |s| {
        with(task); gdt(FREE + 8, segment(SCRATCH.into(), 0x67, 0x09));
        gdt(FREE + 16, segment(SCRATCH.into(), 0x66, 0x89)); gdt(FREE + 24, gate(FREE, 0, 0x85, 0));
        guard(); far_jmp(TSS32_SELECTOR, 0); caught();
        guard(); far_jmp(FREE | 3, 0); caught();
        guard(); far_jmp(FREE + 8, 0); caught();
        guard(); far_jmp(FREE + 16, 0); caught();
        guard(); far_jmp(LDT_SELECTOR | 4, 0); caught();
        ring3(); guard(); far_jmp(FREE + 24, 0); here("new"); caught();
    }
    "IRET to a task that is not busy", Protected, "#TS(80)", "SDM Vol. 3, table 7-1", |s| {
        with(task); mov(dword_ptr(IMAGE + TSS32), FREE); guard(); push(0x4002); popfd(); iretd();
        here("new"); caught();
    }
    "a bad GS is the new task's fault", Protected, "#TS(100) 80 0",
    "SDM Vol. 3, 7.3, table 7-1", |s| {
        with(task); mov(dword_ptr(SCRATCH + 92), 0x100); guard(); far_jmp(FREE, 0);
        here("new"); here("start"); caught(); str(eax); show(eax); with(show_where);
    }
    "data that is not present", Protected, "#NP(88) 80", "SDM Vol. 3, table 7-1", |s| {
        with(task); gdt(FREE + 8, segment(0, 0xf_ffff, 0xc013));
        mov(dword_ptr(SCRATCH + 92), FREE + 8); guard(); far_jmp(FREE, 0);
        here("new"); caught(); str(eax); show(eax);
    }
    "a task gate for #UD", Protected, "5000 4000 48 10000", "SDM Vol. 3, 6.12.2", |s| {
        with(task); gate32(6, gate(FREE, 0, 0x85, 0)); ud2();
        here("new"); show(esp); show_flags(0x4000); show_at(SCRATCH);
        mov(eax, dword_ptr(IMAGE + TSS32 + 36)); and(eax, 0x1_0000); show(eax);
    }
    "an error code on the new task's stack", Protected, "4ffc 100", "SDM Vol. 3, 7.3", |s| {
        with(task); gate32(13, gate(FREE, 0, 0x85, 0)); mov(eax, 0x100); mov(ds, ax);
        here("new"); show(esp); pop(eax); show(eax);
    }
    "a task of 16 bits", Protected, "80 5000 1234", "SDM Vol. 3, 7.6", |s| {
        with(task16); mov(ebx, 0x7777_1234); far_jmp(FREE, 0);
        here("new"); movzx(esp, sp); mov(ecx, DATA3); mov(fs, cx); str(ecx); show(ecx);
        movzx(ecx, sp); show(ecx);
        movzx(ecx, word_ptr(IMAGE + TSS32 + 52)); show(ecx);
    }
    "the debug trap flag of a TSS", Protected, "#DB 8000 0", "SDM Vol. 3, 17.3.1.5", |s| {
        with(task); mov(dword_ptr(SCRATCH + 100), 0x68_0001); guard(); far_jmp(FREE, 0);
        here("new"); here("start"); nop(); caught(); with(show_dr6); with(show_where);
    }
    "an instruction breakpoint", Protected, "#DB 1 1", "SDM Vol. 3, 17.3.1.1", |s| {
        with(|s| breakpoint(s, s.addr("hit"), 0)); guard(); here("start"); nop(); here("hit");
        nop(); nop(); caught(); with(show_dr6); with(show_where);
    }
    "RF lets an instruction run", Protected, "ok", "SDM Vol. 3, 17.3.1.1", |s| {
        with(|s| breakpoint(s, s.addr("hit"), 0)); guard(); push(0x1_0002); push(CODE32 as i32);
        push(s.addr("hit") as i32); iretd(); here("hit"); nop(); caught();
    }
    "a data breakpoint is a trap", Protected, "#DB 1 6 ok", "SDM Vol. 3, 17.3.1.2", |s| {
        with(|s| breakpoint(s, SCRATCH, 13)); guard(); here("start");
        mov(byte_ptr(SCRATCH + 3), cl); nop(); caught(); with(show_dr6); with(show_where);
        guard(); mov(al, byte_ptr(SCRATCH + 3)); caught();
    }
    "MOV SS holds a data breakpoint off", Protected, "#DB 1 7", "SDM Vol. 3, 6.8.3", |s| {
        mov(dword_ptr(SCRATCH), DATA0); with(|s| breakpoint(s, SCRATCH, 3)); guard();
        here("start"); mov(ss, word_ptr(SCRATCH)); nop(); nop(); caught();
        with(show_dr6); with(show_where);
    }
    "general detect", Protected, "#DB 2000 1 0", "SDM Vol. 3, 17.2.4", |s| {
        mov(eax, 0x2000); mov(dr7, eax); guard(); here("start"); nop(); mov(eax, dr0); caught();
        with(show_dr6); with(show_where); mov(eax, dr7); and(eax, 0x2000); show(eax);
    }
    "single step", Protected, "#DB 4000 1", "SDM Vol. 3, 17.3.1.4", |s| {
        guard(); push(0x102); popfd(); here("start"); nop(); nop(); caught();
        with(show_dr6); with(show_where);
    }
    "single step and MOV SS", Protected, "#DB 4000 3", "SDM Vol. 3, 6.8.3", |s| {
        mov(ecx, DATA0); guard(); push(0x102); popfd(); here("start"); mov(ss, ecx); nop(); nop();
        caught(); with(show_dr6); with(show_where);
    }
    "INT1", Protected, "#DB 0 1", "SDM Vol. 2, INT1", |s| {
        guard(); here("start"); int1(); nop(); caught(); with(show_dr6); with(show_where);
    }
    "alignment checking at CPL 3", Protected, "ok #AC(0) ok #AC(0) ok",
    "SDM Vol. 3, 6.15 (#AC)", |s| {
        set_cr0(1 << 18); push(0x4_0002); popfd();
        guard(); mov(eax, dword_ptr(SCRATCH + 1)); caught(); ring3();
        guard(); mov(eax, dword_ptr(SCRATCH + 1)); caught();
        guard(); mov(eax, dword_ptr(SCRATCH + 4)); caught();
        guard(); mov(word_ptr(SCRATCH + 1), ax); caught();
        push(2); popfd(); guard(); mov(word_ptr(SCRATCH + 1), ax); caught();
    }
}
