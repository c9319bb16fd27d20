//! Real mode (SDM Vol. 3, chapter 21): segments of 64 KiB, the vector table, the 8086's habits.

use super::layout::*;
use super::rows;
use iced_x86::code_asm::*;

rows! {
    "registers after reset", Real, "60000010 0 ffff0ff0 400", "SDM Vol. 3, table 10-1", |s| {
        mov(eax, cr0); show(eax); mov(eax, cr4); show(eax);
        mov(eax, dr6); show(eax); mov(eax, dr7); show(eax);
    }
    "IDTR after reset", Real, "ffff 0", "SDM Vol. 3, table 10-1", |s| {
        sidt(fword_ptr(0x600).fs()); mov(ax, word_ptr(0x600).fs()); show(ax);
        mov(eax, dword_ptr(0x602).fs()); show(eax);
    }
    "PUSH SP pushes SP as it was", Real, "5000 5000", "SDM Vol. 2, PUSH", |s| {
        mov(sp, 0x5000); push(sp); pop(ax); show(ax); show(sp);
    }
    "a word at FFFFH is beyond the limit", Real, "#GP ok", "SDM Vol. 3, 6.15 (#GP)", |s| {
        mov(bx, 0xffff);
        guard(); mov(ax, word_ptr(bx)); caught();
        guard(); mov(al, byte_ptr(bx)); caught();
    }
    "a word at SS:FFFFH is #SS", Real, "#SS", "SDM Vol. 3, 6.15 (#SS)", |s| {
        mov(bp, 0xffff); guard(); mov(ax, word_ptr(bp)); caught();
    }
    "a 32-bit address beyond 64K", Real, "#GP ok", "SDM Vol. 3, 21.1.1", |s| {
        mov(ebx, 0x10000); guard(); mov(al, byte_ptr(ebx)); caught();
        dec(ebx); guard(); mov(al, byte_ptr(ebx)); caught();
    }
    "INT goes through the vector table", Real, "INT 21 1000 6ffa 2", "SDM Vol. 3, 21.1.4", |s| {
        guard(); int(0x21); here("next"); caught();
        show_at(AT_CS); show_at(AT_HANDLER_SP);
        mov(eax, dword_ptr(AT_IP).fs()); add(ax, 2); show_from("next");
    }
    "INT beyond the limit of IDTR", Real, "#GP", "SDM Vol. 2, INT n", |s| {
        mov(word_ptr(0x600).fs(), 0x83); mov(dword_ptr(0x602).fs(), 0);
        lidt(fword_ptr(0x600).fs()); guard(); int(0x21); caught();
    }
    "no vector for the double fault", Real, "shutdown", "SDM Vol. 3, 6.15 (#DF)", |s| {
        mov(word_ptr(0x600).fs(), 7); mov(dword_ptr(0x602).fs(), 0);
        lidt(fword_ptr(0x600).fs()); int(0x21);
    }
    "an instruction across the end of CS", Real, "#GP 2000 ffff", "SDM Vol. 3, 6.15 (#GP)", |s| {
        mov(ax, 0x2000); mov(es, ax); mov(byte_ptr(0xffff).es(), 0xb0);
        mov(word_ptr(0).es(), 0x22cd); mov(ax, 0x3000); mov(es, ax); mov(word_ptr(1).es(), 0x23cd);
        guard(); far_jmp(0x2000, 0xffff); caught(); show_at(AT_CS); show_at(AT_IP);
    }
    "a near jump wraps IP", Real, "INT 21 2000 0", "SDM Vol. 2, JMP", |s| {
        mov(ax, 0x2000); mov(es, ax); mov(word_ptr(0xfffe).es(), 0x21cd);
        mov(word_ptr(0).es(), 0xfceb);
        guard(); far_jmp(0x2000, 0); caught(); show_at(AT_CS); show_at(AT_IP);
    }
    "PUSH with SP = 1 shuts down", Real, "shutdown", "SDM Vol. 2, PUSH", |s| {
        mov(sp, 1); push(ax);
    }
    "PUSH with SP = 0 wraps", Real, "fffe", "SDM Vol. 1, 6.2.3", |s| {
        xor(sp, sp); push(ax); mov(bx, sp); mov(sp, 0x7000); show(bx);
    }
    "shift counts are cut to five bits", Real, "2 1", "SDM Vol. 2, SAL/SHL", |s| {
        mov(ax, 1); mov(cl, 33); shl(ax, cl); show(ax);
        mov(ax, 1); mov(cl, 32); shl(ax, cl); show(ax);
    }
    "DAA and DAS as in the manual's example", Real, "14 1 44 10", "SDM Vol. 2, DAA, DAS", |s| {
        mov(al, 0x79); mov(bl, 0x35); add(al, bl); daa(); show(al); show_flags(1);
        mov(al, 0x79); sub(al, bl); das(); show(al); mov(al, 0x10); show(al);
    }
    "AAA, AAS, AAM, AAD", Real, "104 ff06 409 31", "SDM Vol. 2, AAA, AAS, AAM, AAD", |s| {
        mov(ax, 0x0e); aaa(); show(ax);
        mov(ax, 0x0c); aas(); show(ax);
        mov(ax, 49); aam(10); show(ax);
        aad(10); show(ax);
    }
    "AAM by zero", Real, "#DE", "SDM Vol. 2, AAM", |s| { guard(); aam(0); caught(); }
    "a divide error points to the DIV", Real, "#DE 0", "SDM Vol. 3, 6.15 (#DE)", |s| {
        xor(bl, bl); guard(); here("div"); div(bl); caught();
        mov(eax, dword_ptr(AT_IP).fs()); show_from("div");
    }
    "BOUND points to itself, INTO behind", Real, "#BR 0 #OF 1", "SDM Vol. 3, 6.15 (#BR, #OF)", |s| {
        mov(dword_ptr(0x600).fs(), 0x0005_0001); mov(ax, 6);
        guard(); here("bound"); bound(ax, dword_ptr(0x600).fs()); caught();
        mov(eax, dword_ptr(AT_IP).fs()); show_from("bound");
        mov(al, 0x7f); inc(al);
        guard(); mov(al, 0x7f); inc(al); here("into"); db(&[0xce]); caught();
        mov(eax, dword_ptr(AT_IP).fs()); show_from("into");
    }
    "LOCK where it may not be", Real, "#UD #UD #UD", "SDM Vol. 2, LOCK", |s| {
        guard(); db(&[0xf0, 0x01, 0xc0]); caught();
        guard(); db(&[0xf0, 0x90]); caught();
        guard(); db(&[0xf0, 0x39, 0x07]); caught();
    }
    "sixteen bytes are too long", Real, "#GP", "SDM Vol. 2, 2.3.11", |s| {
        guard(); db(&[0x66; 15]); nop(); caught();
    }
    "instructions of protected mode", Real, "#UD #UD #UD #UD #UD #UD", "SDM Vol. 3, 21.1.3", |s| {
        guard(); sldt(ax); caught();
        guard(); str(ax); caught();
        guard(); lar(ax, bx); caught();
        guard(); verr(ax); caught();
        guard(); arpl(ax, bx); caught();
        guard(); lldt(ax); caught();
    }
    "MOV to CS", Real, "#UD", "SDM Vol. 2, MOV", |s| { guard(); db(&[0x8e, 0xc8]); caught(); }
    "POPF sets IOPL and NT", Real, "7cd7", "SDM Vol. 2, table 4-16", |s| {
        mov(ax, 0x7cd7); push(ax); popf(); pushf(); pop(ax); show(ax);
        push(2); popf();
    }
    "IRET sets IOPL and NT too", Real, "7002", "SDM Vol. 2, IRET", |s| {
        push(0x7002); push(cs); push(s.off("to") as i32); iret();
        here("to"); pushf(); pop(ax); show(ax); push(2); popf();
    }
    "a limit from protected mode stays", Real, "ok 12345678", "SDM Vol. 3, 10.9.2", |s| {
        lgdt(fword_ptr(GDTR)); mov(eax, cr0); or(al, 1); mov(cr0, eax);
        mov(bx, DATA3 & !3); mov(ds, bx); and(al, 0xfe); mov(cr0, eax);
        mov(ebx, SCRATCH); guard(); mov(dword_ptr(ebx), 0x1234_5678); mov(eax, dword_ptr(ebx));
        caught(); show(eax);
    }
    "32-bit operands", Real, "89abcdef 1000 6ff8", "SDM Vol. 1, 3.6", |s| {
        mov(eax, 0x89ab_cdef_u32); push(eax); pop(ecx); show(ecx);
        mov(eax, 0x5555_5555); push(eax); pop(eax);
        db(&[0x66, 0x0e]); pop(ebx); show(bx);
        db(&[0x66, 0x0e]); db(&[0x66, 0x0e]); show(sp);
    }
}
