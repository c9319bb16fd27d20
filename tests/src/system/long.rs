//! Long mode (SDM Vol. 1, 3.2.1; Vol. 3, 5.8.7, 5.8.8, 6.14): canonical addresses, fast system
//! calls, interrupts with an IST, compatibility mode.

use super::asm::{Asm, Emit};
use super::layout::*;
use super::rows;
use iced_x86::code_asm::*;

const BAD: u64 = 1 << 47;
const EFER: u32 = 0xc000_0080;
const STAR: u32 = 0xc000_0081;
const LSTAR: u32 = 0xc000_0082;
const CSTAR: u32 = 0xc000_0083;
const FMASK: u32 = 0xc000_0084;
const FS_BASE: u32 = 0xc000_0100;
const GS_BASE: u32 = 0xc000_0101;
const KERNEL_GS_BASE: u32 = 0xc000_0102;
const SYSENTER_CS: u32 = 0x174;
const SYSENTER_ESP: u32 = 0x175;
const SYSENTER_EIP: u32 = 0x176;

/// SYSCALL to `entry`, with SYSRET to the CPL 3 segments.
fn fast_calls(s: &mut Asm) -> Emit {
    let entry = s.addr("entry").into();
    s.set_msr(EFER, 0x101)?;
    s.set_msr(STAR, u64::from(CODE32_3) << 48 | u64::from(CODE64) << 32)?;
    s.set_msr(LSTAR, entry)?;
    s.set_msr(FMASK, 0x400)
}

/// SYSENTER to `entry`: the four descriptors that follow [`FREE`].
fn sysenter(s: &mut Asm) -> Emit {
    let flat = |attributes| segment(0, 0xf_ffff, attributes);
    let entry = s.addr("entry").into();
    for (n, d) in [0xa09b, 0xc093, 0xc0fb, 0xc0f3, 0xa0fb, 0xc0f3].into_iter().enumerate() {
        s.gdt(FREE + 8 * n as u32, flat(d))?;
    }
    s.set_msr(SYSENTER_CS, FREE.into())?;
    s.set_msr(SYSENTER_ESP, 0x5000)?;
    s.set_msr(SYSENTER_EIP, entry)
}

/// Pushes a frame for IRETQ: SS, RSP, RFLAGS, CS, RIP.
fn frame(s: &mut Asm, ss_: u32, cs_: u32, name: &str) -> Emit {
    let rip_ = s.addr(name);
    [ss_, 0x5000, 2, cs_, rip_].iter().try_for_each(|&value| s.push(value as i32))
}

rows! {
    "a non-canonical operand", Long, "#GP(0) #GP(0) ok", "SDM Vol. 1, 3.3.7.1", |s| {
        mov(rbx, BAD); guard(); mov(eax, dword_ptr(rbx)); caught();
        guard(); mov(dword_ptr(rbx), eax); caught();
        guard(); lea(rax, dword_ptr(rbx)); caught();
    }
    "a non-canonical stack", Long, "#SS(0) #SS(0)", "SDM Vol. 3, 6.15 (#SS)", |s| {
        gate64(12, gate(CODE64, s.addr_in("", "long 12"), 0x8e, 1));
        mov(rbp, BAD); guard(); mov(eax, dword_ptr(rbp)); caught();
        guard(); lea(rsp, byte_ptr(rbp + 0x1000)); push(rax); caught();
    }
    "the last canonical byte", Long, "#GP(0) #PF(0)@7fffffffffff", "SDM Vol. 1, 3.3.7.1", |s| {
        mov(rbx, BAD - 1); guard(); mov(ax, word_ptr(rbx + 1)); caught();
        guard(); mov(al, byte_ptr(rbx)); caught();
    }
    "MSRs hold canonical addresses of the CPU's width", Long, "#GP(0) #GP(0) #GP(0) #GP(0) #GP(0) #GP(0) #GP(0)",
    "SDM Vol. 2, WRMSR", |s| {
        guard(); set_msr(LSTAR, BAD << 9); caught();
        guard(); set_msr(CSTAR, BAD << 9); caught();
        guard(); set_msr(FS_BASE, BAD << 9); caught();
        guard(); set_msr(GS_BASE, BAD << 9); caught();
        guard(); set_msr(KERNEL_GS_BASE, BAD << 9); caught();
        guard(); set_msr(SYSENTER_EIP, BAD << 9); caught();
        guard(); set_msr(SYSENTER_ESP, BAD << 9); caught();
    }
    "INVLPG of a non-canonical address", Long, "ok", "SDM Vol. 2, INVLPG", |s| {
        mov(rbx, BAD); guard(); invlpg(byte_ptr(rbx)); caught();
    }
    "SYSCALL and SYSRET", LongUser, "10 18 3 403 33 2b 3 6000", "SDM Vol. 2, SYSCALL, SYSRET", |s| {
        with(fast_calls); ring3(); push(0x403); popfq(); mov(rbx, u64::from(s.addr("entry")));
        jmp(s.label("call"));
        here("entry"); show(cs); show(ss); show_flags(0x403);
        mov(rax, r11); and(eax, 0x403); show(eax); sysretq();
        here("call"); syscall(); here("next"); show(cs); show(ss);
        lahf(); movzx(eax, ah); and(eax, 3); show(eax); mov(rax, rsp); show(rax);
    }
    "RCX of SYSCALL is the next instruction", LongUser, "2", "SDM Vol. 2, SYSCALL", |s| {
        with(fast_calls); ring3(); here("call"); syscall(); here("entry");
        mov(rax, rcx); show_from("call");
    }
    "SYSRET to compatibility mode", LongUser, "23 2b", "SDM Vol. 2, SYSRET", |s| {
        with(fast_calls); mov(ecx, s.addr("compat3")); mov(r11, 2u64); mov(esp, USER_STACK);
        sysret(); bits(32); here("compat3"); show(cs); show(ss);
        here("entry");
    }
    "SYSRET to a non-canonical address", Long, "#GP(0) 10", "SDM Vol. 2, SYSRET", |s| {
        with(fast_calls); mov(rcx, BAD); mov(r11, 2u64); guard(); sysretq(); here("entry");
        caught();
        show_at(AT_CS);
    }
    "SYSCALL without EFER.SCE", Long, "#UD #UD", "SDM Vol. 2, SYSCALL", |s| {
        guard(); syscall(); caught(); guard(); sysretq(); caught();
    }
    "SYSRET at CPL 3", LongUser, "#GP(0)", "SDM Vol. 2, SYSRET", |s| {
        with(fast_calls); ring3(); guard(); sysretq(); here("entry"); caught();
    }
    "SYSENTER and SYSEXIT", LongUser, "80 88 5000 a3 ab 5ff0", "SDM Vol. 2, SYSENTER, SYSEXIT", |s| {
        with(sysenter); ring3(); jmp(s.label("call"));
        here("entry"); show(cs); show(ss); show(rsp);
        mov(edx, s.addr("back")); mov(ecx, 0x5ff0); sysexitq();
        here("call"); sysenter(); here("back"); show(cs); show(ss); show(rsp);
    }
    "SYSENTER without its MSR", LongUser, "#GP(0) #GP(0)", "SDM Vol. 2, SYSENTER", |s| {
        guard(); sysexitq(); caught(); ring3(); guard(); sysenter(); caught();
    }
    "SYSENTER from 32-bit code", Protected, "80 88 5000 93 9b 5ff0", "SDM Vol. 2, SYSENTER", |s| {
        with(sysenter); gdt(FREE, segment(0, 0xf_ffff, 0xc09b)); ring3(); jmp(s.label("call"));
        here("entry"); show(cs); show(ss); show(esp);
        mov(edx, s.addr("back")); mov(ecx, 0x5ff0); sysexit();
        here("call"); sysenter(); here("back"); show(cs); show(ss); show(esp);
    }
    "SWAPGS", LongUser, "222 111 #GP(0)", "SDM Vol. 2, SWAPGS", |s| {
        set_msr(GS_BASE, 0x111); set_msr(KERNEL_GS_BASE, 0x222); swapgs();
        mov(ecx, GS_BASE); rdmsr(); show(eax); mov(ecx, KERNEL_GS_BASE); rdmsr(); show(eax);
        ring3(); guard(); swapgs(); caught();
    }
    "opcodes that 64-bit mode has not", Long, "#UD #UD #UD #UD #UD #UD #UD #UD",
    "SDM Vol. 2, appendix A", |s| {
        guard(); db(&[0x06]); caught(); guard(); db(&[0x0e]); caught(); guard(); db(&[0x27]);
        caught();
        guard(); db(&[0x37]); caught(); guard(); db(&[0x60]); caught(); guard(); db(&[0xce]);
        caught();
        guard(); db(&[0x9a, 0, 0, 0, 0, 8, 0]); caught();
        guard(); db(&[0xea, 0, 0, 0, 0, 8, 0]); caught();
    }
    "limits and bases do not matter", Long, "ok", "SDM Vol. 3, 3.2.4", |s| {
        gdt(FREE, segment(0x1234, 0, 0x0093)); mov(eax, FREE); mov(ds, eax); mov(ss, eax);
        guard(); mov(eax, dword_ptr(SCRATCH)); push(rax); caught();
    }
    "FS keeps its base", Long, "12345678", "SDM Vol. 3, 3.4.4", |s| {
        mov(dword_ptr(SCRATCH + 0x10), 0x1234_5678); set_msr(FS_BASE, SCRATCH.into());
        db(&[0x64, 0x8b, 0x04, 0x25, 0x10, 0, 0, 0]); show(eax);
    }
    "L and D together", Long, "#GP(80)", "SDM Vol. 3, 5.2.1", |s| {
        gdt(FREE, segment(0, 0xf_ffff, 0xe09b)); guard(); push(FREE as i32); push(0); retf();
        caught();
    }
    "the stack is aligned for a handler", Long, "INT 21 6fc8 6ff9", "SDM Vol. 3, 6.14.2", |s| {
        mov(rsp, 0x6ff9u64); guard(); int(0x21); caught(); show_at(AT_HANDLER_SP); show_at(AT_SP);
    }
    "an IST", Long, "INT 21 7bd8 6ff8", "SDM Vol. 3, 6.14.5", |s| {
        gate64(0x21, gate(CODE64, s.addr_in("", "long 33"), 0x8e, 1)); mov(rsp, 0x6ff8u64);
        guard(); int(0x21); caught(); show_at(AT_HANDLER_SP); show_at(AT_SP);
    }
    "a gate to 32-bit code", Long, "#GP(8)", "SDM Vol. 3, 6.14.1", |s| {
        gate64(0x21, gate(CODE32, 0, 0x8e, 0)); guard(); int(0x21); caught();
    }
    "a 32-bit task gate in the IDT", Long, "#GP(10a)", "SDM Vol. 3, 6.14.1", |s| {
        gate64(0x21, gate(TSS64_SELECTOR, 0, 0x85, 0)); guard(); int(0x21); caught();
    }
    "a non-canonical handler", Long, "#GP(0)", "SDM Vol. 3, 6.15 (#GP)", |s| {
        mov(dword_ptr(IMAGE + IDT64 + 16 * 0x21 + 8), 0x8000); guard(); int(0x21); caught();
    }
    "IRETQ and SS", Long, "0 #GP(0) #GP(18)", "SDM Vol. 3, 6.14.4", |s| {
        with(|s| frame(s, 0, CODE64, "to")); iretq(); here("to"); show(ss);
        guard(); with(|s| frame(s, 3, CODE64_3, "to")); iretq(); caught();
        guard(); with(|s| frame(s, DATA0 | 3, CODE64_3, "to")); iretq(); caught();
    }
    "IRETQ to a non-canonical address", Long, "#GP(0) 10", "SDM Vol. 2, IRET", |s| {
        mov(rbx, BAD); guard(); push(DATA3 as i32); push(0x5000); push(2); push(CODE64_3 as i32);
        push(rbx); iretq(); caught(); show_at(AT_CS);
    }
    "IRETQ loads RSP at the same ring", Long, "5000", "SDM Vol. 3, 6.14.3", |s| {
        with(|s| frame(s, DATA0, CODE64, "to")); iretq(); here("to"); show(rsp);
    }
    "a call gate", LongUser, "10 0 77e0 33 2b 6000", "SDM Vol. 3, 5.8.3.1, 5.8.5.1", |s| {
        gdt(FREE, gate(CODE64, s.addr("inner"), 0xec, 0)); gdt(FREE + 8, 0);
        mov(dword_ptr(SCRATCH + 4), FREE | 3); ring3(); jmp(s.label("main"));
        here("inner"); show(cs); show(ss); show(rsp); mov(rax, qword_ptr(rsp + 8)); show(eax);
        mov(rax, qword_ptr(rsp + 24)); show(eax); retf();
        here("main"); call(fword_ptr(SCRATCH)); show(rsp);
    }
    "a call gate's upper half", LongUser, "#GP(80)", "SDM Vol. 3, 5.8.3.1", |s| {
        gdt(FREE, gate(CODE64, s.addr("x"), 0xec, 0)); gdt(FREE + 8, 0x1f << 40);
        mov(dword_ptr(SCRATCH + 4), FREE | 3);
        ring3(); guard(); call(fword_ptr(SCRATCH)); here("x"); caught();
    }
    "a call gate to 32-bit code", LongUser, "#GP(8)", "SDM Vol. 3, 5.8.3.1", |s| {
        gdt(FREE, gate(CODE32, s.addr("x"), 0xec, 0)); gdt(FREE + 8, 0);
        mov(dword_ptr(SCRATCH + 4), FREE | 3);
        ring3(); guard(); call(fword_ptr(SCRATCH)); here("x"); caught();
    }
    "descriptors of 16 bytes", Long, "#GP(80) #GP(80)", "SDM Vol. 3, 8.2.3 and 3.5.2", |s| {
        gdt(FREE, segment(0, 0x67, 0x89)); gdt(FREE + 8, 1 << 40); mov(eax, FREE);
        guard(); ltr(ax); caught();
        gdt(FREE, segment(0, 0x67, 0x82)); gdt(FREE + 8, 1 << 24); mov(eax, FREE);
        guard(); lldt(ax); caught();
    }
    "compatibility mode sees 4 GiB", Compat, "5a 8", "SDM Vol. 3, 3.3.7", |s| {
        mov(byte_ptr(SCRATCH), 0x5a); mov(eax, 0xffff_0000_u32);
        mov(al, byte_ptr(eax + SCRATCH + 0x10000)); movzx(eax, al); show(eax); show(cs);
    }
    "an exception in compatibility mode", Compat3, "#UD 23 77d8 6000", "SDM Vol. 3, 6.14.3", |s| {
        guard(); ud2(); caught(); show_at(AT_CS); show_at(AT_HANDLER_SP); show_at(AT_SP);
    }
    "from compatibility mode back", Compat, "8 10", "SDM Vol. 3, 5.8.1", |s| {
        show(cs); long(); show(cs);
    }
    "SYSCALL from compatibility mode", Compat3, "#UD", "SDM Vol. 2, SYSCALL", |s| {
        guard(); syscall(); caught();
    }
    "segments count in compatibility mode", Compat, "#GP(0) #SS(0)", "SDM Vol. 3, 3.2.4", |s| {
        gdt(FREE, segment(0, 0xfff, 0x40f3)); gdt(FREE + 8, segment(0, 0x7fff, 0x4093));
        mov(eax, FREE); mov(ds, ax); guard(); mov(eax, dword_ptr(0x1000)); caught();
        mov(eax, FREE + 8); mov(ss, ax); guard(); mov(ebp, 0x8000); mov(eax, dword_ptr(ebp));
        caught();
    }
    "privileged instructions", Long3, "#GP(0) #GP(0) #GP(0) #GP(0) #GP(0)", "SDM Vol. 3, 5.9", |s| {
        guard(); hlt(); caught(); guard(); mov(rax, cr3); caught(); guard(); wbinvd(); caught();
        guard(); invlpg(byte_ptr(SCRATCH)); caught(); guard(); lidt(tbyte_ptr(SCRATCH)); caught();
    }
}
