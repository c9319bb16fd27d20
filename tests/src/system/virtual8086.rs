//! Virtual-8086 mode (SDM Vol. 3, chapter 21): what the CPU itself lets a program do, and a program
//! that runs under a small monitor and finds the machine it expects.

use super::asm::{Asm, Emit};
use super::layout::*;
use super::rows;
use iced_x86::code_asm::*;

const VM: u32 = 1 << 17;
/// IF of the monitor's machine, as the program sees it.
const VIRTUAL_IF: u32 = SCRATCH;

/// A monitor: the handler of #GP in CPL 0 does for the program at IOPL 0 what an 8086 would do,
/// with a flag of its own in place of IF. It knows CLI, STI, PUSHF, POPF, INT n, IRET; HLT is the
/// program's end.
fn monitor(s: &mut Asm) -> Emit {
    s.gate32(13, gate(CODE32, s.addr("monitor"), 0x8e, 0))?;
    let over = s.label("over");
    s.jmp(over)?;
    s.here("monitor")?;
    let [back, unknown, cli, sti, pushf, popf, int, iret] =
        ["back", "unknown", "cli", "sti", "pushf", "popf", "int", "iret"].map(|n| s.label(n));
    // [EBP]: eight registers, error code, EIP, CS, EFLAGS, ESP, SS, ES, DS, FS, GS.
    s.pushad()?;
    s.mov(ebp, esp)?;
    s.mov(eax, DATA3)?;
    s.mov(ds, eax)?;
    s.movzx(esi, word_ptr(ebp + 40))?;
    s.shl(esi, 4)?;
    s.add(esi, dword_ptr(ebp + 36))?;
    s.movzx(eax, byte_ptr(esi))?;
    // EDI: the linear address of the program's stack.
    s.movzx(edi, word_ptr(ebp + 52))?;
    s.shl(edi, 4)?;
    s.add(edi, dword_ptr(ebp + 48))?;
    s.inc(dword_ptr(ebp + 36))?;
    for (opcode, label) in
        [(0xfa, cli), (0xfb, sti), (0x9c, pushf), (0x9d, popf), (0xcd, int), (0xcf, iret)]
    {
        s.cmp(al, opcode)?;
        s.je(label)?;
    }
    s.here("unknown")?;
    s.int(END_VECTOR)?;

    s.here("cli")?;
    s.mov(dword_ptr(VIRTUAL_IF), 0)?;
    s.jmp(back)?;
    s.here("sti")?;
    s.mov(dword_ptr(VIRTUAL_IF), 0x200)?;
    s.jmp(back)?;
    s.here("pushf")?;
    flags_to_eax(s)?;
    s.mov(word_ptr(edi - 2), ax)?;
    s.sub(dword_ptr(ebp + 48), 2)?;
    s.jmp(back)?;
    s.here("popf")?;
    s.movzx(eax, word_ptr(edi))?;
    s.add(dword_ptr(ebp + 48), 2)?;
    eax_to_flags(s)?;
    s.jmp(back)?;

    // INT n: FLAGS, CS and IP onto the program's stack, and on through its own vector.
    s.here("int")?;
    flags_to_eax(s)?;
    s.mov(word_ptr(edi - 2), ax)?;
    s.mov(eax, dword_ptr(ebp + 40))?;
    s.mov(word_ptr(edi - 4), ax)?;
    s.mov(eax, dword_ptr(ebp + 36))?;
    s.inc(eax)?;
    s.mov(word_ptr(edi - 6), ax)?;
    s.sub(dword_ptr(ebp + 48), 6)?;
    s.mov(dword_ptr(VIRTUAL_IF), 0)?;
    s.movzx(esi, byte_ptr(esi + 1))?;
    s.cmp(esi, END_VECTOR as i32)?;
    s.je(unknown)?;
    s.movzx(eax, word_ptr(esi * 4))?;
    s.mov(dword_ptr(ebp + 36), eax)?;
    s.movzx(eax, word_ptr(esi * 4 + 2))?;
    s.mov(dword_ptr(ebp + 40), eax)?;
    s.jmp(back)?;
    s.here("iret")?;
    s.movzx(eax, word_ptr(edi))?;
    s.mov(dword_ptr(ebp + 36), eax)?;
    s.movzx(eax, word_ptr(edi + 2))?;
    s.mov(dword_ptr(ebp + 40), eax)?;
    s.movzx(eax, word_ptr(edi + 4))?;
    s.add(dword_ptr(ebp + 48), 6)?;
    eax_to_flags(s)?;
    s.here("back")?;
    s.popad()?;
    s.add(esp, 4)?;
    s.iretd()?;
    s.here("over")
}

/// AX: the program's FLAGS, with its IF.
fn flags_to_eax(s: &mut Asm) -> Emit {
    s.mov(eax, dword_ptr(ebp + 44))?;
    s.and(eax, 0xfcff)?;
    s.or(eax, dword_ptr(VIRTUAL_IF))
}

/// The way back: arithmetic flags and DF into EFLAGS, IF into the monitor's.
fn eax_to_flags(s: &mut Asm) -> Emit {
    s.mov(ebx, eax)?;
    s.and(ebx, 0x200)?;
    s.mov(dword_ptr(VIRTUAL_IF), ebx)?;
    s.and(eax, 0xcd5)?;
    s.and(dword_ptr(ebp + 44), !0xcd5)?;
    s.or(dword_ptr(ebp + 44), eax)
}

/// From 32-bit code to virtual-8086 mode at IOPL 0, at the next instruction.
fn enter(s: &mut Asm) -> Emit {
    let (image, target) = (IMAGE >> 4, s.off("program"));
    for value in [0, 0, image, image, 0, USER_STACK, VM | 2, image, target] {
        s.push(value as i32)?;
    }
    s.iretd()?;
    s.bits(16)?;
    s.v86_flags = Some(VM | 2);
    s.here("program")
}

rows! {
    "a program under a monitor", Protected,
    "2 202 3 202 201 5fe0", "SDM Vol. 3, 21.2.7, 21.3.1", |s| {
        with(monitor); with(enter);
        // It looks for IF as the 8086's manual has it, and counts calls of its own INT 60H.
        mov(sp, 0x5fe0); mov(word_ptr(0x60 * 4).fs(), s.off("service"));
        mov(word_ptr(0x60 * 4 + 2).fs(), cs);
        pushf(); pop(ax); show(ax);
        sti(); pushf(); pop(ax); show(ax);
        xor(bx, bx); int(0x60); int(0x60); int(0x60); show(bx);
        pushf(); pop(ax); and(ax, 0x202); show(ax);
        push(0x201); popf(); pushf(); pop(ax); and(ax, 0x201); show(ax); show(sp); int(0x20);
        // The service: IF is 0 here.
        here("service"); pushf(); pop(ax); test(ah, 2); jne(s.label("done")); inc(bx);
        here("done"); iret();
    }
    "PUSHF at IOPL 3", Virtual8086(3), "3002",
    "SDM Vol. 3, 21.2.1", |s| { pushf(); pop(ax); show(ax); }
    "POPF at IOPL 3", Virtual8086(3), "7002 3002", "SDM Vol. 2, table 4-16", |s| {
        push(0x4002); popf(); pushf(); pop(ax); show(ax);
        push(0x0002); popf(); pushf(); pop(ax); show(ax);
    }
    "what is sensitive to IOPL", Virtual8086(0), "#GP(0) #GP(0) #GP(0) #GP(0) #GP(0) #GP(0)",
    "SDM Vol. 3, 21.2.7", |s| {
        guard(); cli(); caught(); guard(); sti(); caught(); guard(); pushf(); caught();
        guard(); popf(); caught(); guard(); int(0x21); caught(); guard(); iret(); caught();
    }
    "what is not", Virtual8086(0), "#BP #OF #DB", "SDM Vol. 3, 21.3", |s| {
        guard(); int3(); caught();
        guard(); mov(al, 0x7f); inc(al); db(&[0xce]); caught();
        guard(); db(&[0xf1]); caught();
    }
    "INT n at IOPL 3", Virtual8086(3), "INT 21 23002 1000 77dc", "SDM Vol. 3, 21.3.1", |s| {
        guard(); int(0x21); caught(); show_at(AT_FLAGS); show_at(AT_CS); show_at(AT_HANDLER_SP);
    }
    "INT n needs a gate of DPL 3", Virtual8086(3), "#GP(112)", "SDM Vol. 2, INT n", |s| {
        guard(); int(0x22); caught();
    }
    "privileged instructions", Virtual8086(3), "#GP(0) #GP(0) #GP(0) #GP(0) #GP(0) #GP(0)",
    "SDM Vol. 3, 21.2.1", |s| {
        guard(); hlt(); caught(); guard(); mov(eax, cr0); caught(); guard(); lgdt(fword_ptr(GDTR));
        caught();
        guard(); clts(); caught(); guard(); lmsw(ax); caught(); guard(); rdmsr(); caught();
    }
    "what protected mode only has", Virtual8086(3), "#UD #UD #UD #UD #UD #UD",
    "SDM Vol. 3, 21.2.1", |s| {
        guard(); sldt(ax); caught(); guard(); str(ax); caught(); guard(); lar(ax, bx); caught();
        guard(); verr(ax); caught(); guard(); arpl(ax, bx); caught(); guard(); lldt(ax); caught();
    }
    "SMSW and SGDT", Virtual8086(0), "ok ok", "SDM Vol. 2, SMSW, SGDT", |s| {
        guard(); smsw(ax); caught(); guard(); sgdt(fword_ptr(0x600).fs()); caught();
    }
    "the I/O permission map counts, IOPL does not", Virtual8086(3), "#GP(0) ok #GP(0) ok",
    "SDM Vol. 3, 21.2.8", |s| {
        guard(); in_(al, 0x61); caught();
        mov(byte_ptr(TSS32 + IO_MAP + 0xc), 0xfd); guard(); in_(al, 0x61); caught();
        guard(); in_(ax, 0x61); caught();
        mov(byte_ptr(TSS32 + IO_MAP + 0xc), 0xf9); guard(); in_(ax, 0x61); caught();
    }
    "segments of 64 KiB", Virtual8086(0), "#GP(0) #SS(0) ok", "SDM Vol. 3, 21.2.2", |s| {
        mov(bx, 0xffff); guard(); mov(ax, word_ptr(bx)); caught();
        mov(bp, 0xffff); guard(); mov(ax, word_ptr(bp)); caught();
        guard(); mov(al, byte_ptr(bx)); caught();
    }
    "segments are paragraphs", Virtual8086(0), "2345", "SDM Vol. 3, 21.1.1", |s| {
        mov(ax, 0x2345); mov(es, ax); mov(word_ptr(0x10).es(), 0x2345); mov(ax, 0x2346);
        mov(es, ax);
        mov(ax, word_ptr(0).es()); show(ax);
    }
    "a handler finds null data segments", Virtual8086(3), "0 0 0 0", "SDM Vol. 3, 21.3.1.1", |s| {
        // The gate of vector 21H leads to the code behind.
        mov(word_ptr(IDT32 + 8 * 0x21), s.off("handler")); mov(word_ptr(IDT32 + 8 * 0x21 + 6), 1);
        int(0x21); bits(32); here("handler");
        mov(eax, ds); mov(ebx, es); mov(ecx, fs); mov(edx, gs);
        mov(esi, DATA3); mov(fs, esi); show(eax); show(ebx); show(ecx); show(edx);
    }
    "VME: CLI and STI at IOPL 0 are VIF", Protected, "ok 3202 ok 3002",
    "SDM Vol. 3, 21.3.3, 21.4", |s| {
        mov(byte_ptr(IMAGE + TSS32 + IO_MAP - 28), 1); set_cr4(1); with(enter); guard(); sti();
        caught(); pushf(); pop(ax); show(ax);
        guard(); cli(); caught(); pushf(); pop(ax); show(ax);
    }
    "IRET to virtual-8086 mode needs CPL 0", Protected3, "0", "SDM Vol. 2, IRET", |s| {
        push(VM as i32 | 2); push(CODE32_3 as i32); push(s.addr("to") as i32); iretd(); here("to");
        show_flags(VM);
    }
}
