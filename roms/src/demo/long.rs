//! Stage 3, long mode: the 64-bit kernel in the higher half; what paging, the instruction stream
//! and the arithmetic units do is tried out and compared bit by bit.
//!
//! This file also holds the one entry path of the kernel: every exception and interrupt builds the
//! same frame (see [`frame`]), which is also what a suspended task consists of.

use super::assembler::{AE, E, Emit, Stage, var32, var64};
use super::{print, tables, tasks, timer};
use crate::layout::*;
use iced_x86::code_asm::*;

/// CR0: PE, MP, ET, NE, WP, PG (SDM vol. 3A, 2.5).
pub const CR0_VALUE: u32 = 0x8001_0033;
/// CR0.WP: the kernel, too, respects read-only pages.
const CR0_WP: u32 = 1 << 16;
/// CR4: PAE, OSFXSR, OSXMMEXCPT.
pub const CR4_VALUE: u32 = 0x620;
/// The extended feature enable register (SDM vol. 3A, 2.2.1).
pub const EFER: u32 = 0xC000_0080;
/// EFER: SCE, LME, LMA, NXE.
pub const EFER_VALUE: u32 = 0xD01;
/// EFER.LMA: set by the CPU when paging is turned on with LME set.
pub const EFER_LMA: u32 = 1 << 10;

/// Offsets from RSP once an entry has saved everything: the 15 general registers (R15 lowest, RAX
/// highest), then what the stub and the CPU pushed.
pub mod frame {
    /// RAX: the result of a system call.
    pub const RAX: u32 = 14 * 8;
    /// The vector, or `tasks::SYSCALL_VECTOR`.
    pub const VECTOR: u32 = 15 * 8;
    /// The error code.
    pub const ERROR: u32 = 16 * 8;
    /// Where the frame returns to.
    pub const RIP: u32 = 17 * 8;
    /// And with which CS.
    pub const CS: u32 = 18 * 8;
    /// And with which RFLAGS.
    pub const RFLAGS: u32 = 19 * 8;
    /// Size of all of it, up to SS.
    pub const SIZE: u32 = 22 * 8;
}

/// All general registers but RSP, in the order they are pushed.
const REGISTERS: [AsmRegister64; 15] =
    [rax, rcx, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15];

/// Emits the 64-bit kernel: this stage and the two that follow.
pub fn write(s: &mut Stage) -> Emit {
    s.failure = EXIT_LONG;
    higher_half(s)?;
    cpuid_names(s)?;
    page_faults(s)?;
    self_modifying_code(s)?;
    strings(s)?;
    arithmetic(s)?;
    timer::write(s)?;
    tasks::write(s)?;
    summary(s)?;
    handlers(s)?;
    timer::interrupt(s)?;
    tasks::handlers(s)?;
    print::routines(s)
}

fn higher_half(s: &mut Stage) -> Emit {
    // RIP is that of the identity map; the same code is mapped in the higher half.
    s.here("entry")?;
    let high = s.addr("high");
    s.mov(rax, high)?;
    s.jmp(rax)?;
    s.here("high")?;
    s.mov(ax, u32::from(KERNEL_DATA))?;
    for register in [ss, ds, es, fs, gs] {
        s.mov(register, ax)?;
    }
    s.mov(rsp, KERNEL_BASE + u64::from(KERNEL_STACK))?;
    let image = KERNEL_BASE + u64::from(IMAGE);
    s.lgdt(tbyte_ptr(image + u64::from(GDTR64)))?;
    s.lidt(tbyte_ptr(image + u64::from(IDTR64)))?;
    s.mov(ax, u32::from(TSS64_SELECTOR))?;
    s.ltr(ax)?;

    let label = s.label("here");
    s.lea(rdx, qword_ptr(label))?;
    s.here("here")?;
    let here = s.addr("here");
    s.say("[long]  64-bit mode: RIP = ")?;
    s.mov(rax, rdx)?;
    s.say_hex(16)?;
    s.say(", CS = ")?;
    s.mov(ax, cs)?;
    s.say_hex(4)?;
    s.say("\n")?;
    s.cmp(ax, i32::from(KERNEL_CODE64))?;
    s.check(E, "CS is not the selector of the far jump")?;
    s.cmp(rdx, here as i32)?;
    s.check(E, "RIP is not in the higher half")?;

    s.mov(rax, cr0)?;
    s.say("[long]  CR0 = ")?;
    s.say_hex(8)?;
    s.sub(rax, CR0_VALUE as i32)?;
    s.shl(rax, 32)?; // upper half: not compared, bits 63:32 are reserved
    s.check(E, "CR0 is not what was written")?;
    s.mov(rax, cr3)?;
    s.say(", CR3 = ")?;
    s.say_hex(8)?;
    s.cmp(rax, PAGE_TABLES as i32)?;
    s.check(E, "CR3 is not what was written")?;
    s.mov(rax, cr4)?;
    s.say(", CR4 = ")?;
    s.say_hex(8)?;
    s.cmp(rax, CR4_VALUE as i32)?;
    s.check(E, "CR4 is not what was written")?;
    s.mov(ecx, EFER)?;
    s.rdmsr()?;
    s.say(", EFER = ")?;
    s.say_hex(8)?;
    s.say("\n")?;
    s.cmp(eax, EFER_VALUE as i32)?;
    s.check(E, "EFER is not what was written, with LMA")
}

fn cpuid_names(s: &mut Stage) -> Emit {
    // What the CPU calls itself differs between machines, and what is printed here must not: so
    // the names go to the debug console, port 0xE9, where Bochs, QEMU and Ring3 can show them.
    let send = s.label("send_four");
    s.xor(r9d, r9d)?;
    s.xor(eax, eax)?;
    s.cpuid()?;
    s.mov(r8d, eax)?;
    for register in [ebx, edx, ecx] {
        s.mov(eax, register)?;
        s.call(send)?; // counts into R9 what is not printable
    }
    s.mov(al, 10)?;
    s.out(0xE9, al)?;
    s.mov(r10d, r9d)?;
    s.mov(eax, 0x8000_0000u32)?;
    s.cpuid()?;
    s.mov(r11d, eax)?;
    for leaf in 0x8000_0002..=0x8000_0004u32 {
        s.mov(eax, leaf)?;
        s.cpuid()?;
        s.push(rdx)?;
        s.push(rcx)?;
        s.push(rbx)?;
        s.call(send)?;
        for _ in 0..3 {
            s.pop(rax)?;
            s.call(send)?;
        }
    }
    s.mov(al, 10)?;
    s.out(0xE9, al)?;
    s.cmp(r8d, 1)?;
    s.check(AE, "CPUID has no leaf 1")?;
    s.test(r10d, r10d)?;
    s.check(E, "the vendor string of CPUID is not printable")?;
    s.cmp(r11d, 0x8000_0004u32 as i32)?;
    s.check(AE, "CPUID has no brand string")?;
    s.mov(eax, 1)?;
    s.cpuid()?;
    let wanted = 1 << 0 | 1 << 4 | 1 << 5 | 1 << 24 | 1 << 25 | 1 << 26;
    s.and(edx, wanted)?;
    s.cmp(edx, wanted)?;
    s.check(E, "CPUID does not offer FPU, TSC, MSR, FXSR, SSE and SSE2")?;
    s.mov(eax, 0x8000_0001u32)?;
    s.cpuid()?;
    s.and(edx, 1 << 11)?;
    s.cmp(edx, 1 << 11)?;
    s.check(E, "CPUID does not offer SYSCALL")?;
    s.rdtsc()?;
    s.mov(ebx, eax)?;
    s.mov(ecx, edx)?;
    s.say("[long]  CPUID: vendor is 12 printable characters; FPU, TSC, MSR, FXSR, SSE, SSE2, ")?;
    s.say("LM, NX, SYSCALL are there\n")?;
    s.rdtsc()?;
    s.sub(eax, ebx)?;
    s.sbb(edx, ecx)?; // borrows if the later reading is the smaller one
    s.check(AE, "the TSC runs backwards")?;
    let behind = s.label("behind_send");
    s.jmp(behind)?;

    // send_four: the bytes of EAX to port 0xE9; R9 counts those outside 20H–7EH.
    s.here("send_four")?;
    let (next, fine) = (s.label("send_next"), s.label("send_fine"));
    s.mov(r14d, 4)?;
    s.here("send_next")?;
    s.out(0xE9, al)?;
    s.mov(r15d, eax)?;
    s.sub(al, 0x20)?;
    s.cmp(al, 0x7E - 0x20)?;
    s.jbe(fine)?;
    s.inc(r9d)?;
    s.here("send_fine")?;
    s.mov(eax, r15d)?;
    s.shr(eax, 8)?;
    s.dec(r14d)?;
    s.jne(next)?;
    s.ret()?;
    s.here("behind_send")
}

fn page_faults(s: &mut Stage) -> Emit {
    // The same RAM three times: identity map, higher half, and a read-only window at 1 GiB.
    s.mov(dword_ptr(SCRATCH), 0x1234_5678)?;
    s.mov(eax, var32(SCRATCH))?;
    s.cmp(eax, 0x1234_5678)?;
    s.check(E, "identity map and higher half show different RAM")?;
    s.mov(eax, dword_ptr(READ_ONLY + SCRATCH))?;
    s.cmp(eax, 0x1234_5678)?;
    s.check(E, "the read-only window shows different RAM")?;
    s.say("[long]  a dword stored at 0x")?;
    s.mov(eax, SCRATCH)?;
    s.say_hex(8)?;
    s.say(" was read again through the higher half and at 1 GiB\n")?;

    // Without CR0.WP the kernel writes where it likes.
    s.mov(eax, CR0_VALUE & !CR0_WP)?;
    s.mov(cr0, rax)?;
    s.probe("behind_wp_off", |s| s.mov(dword_ptr(READ_ONLY + SCRATCH), 1))?;
    s.mov(eax, CR0_VALUE)?;
    s.mov(cr0, rax)?;
    s.expect(VECTOR, NO_EXCEPTION, "with CR0.WP = 0 a write at CPL 0 faulted")?;
    s.expect(SCRATCH, 1, "with CR0.WP = 0 a write at CPL 0 was lost")?;
    s.say("[long]  CR0.WP = 0: a store to a read-only page went through\n")?;

    let says = "[long]  CR0.WP = 1: the same store: ";
    page_fault(s, says, READ_ONLY + SCRATCH, 0b00011, |s| {
        s.mov(dword_ptr(READ_ONLY + SCRATCH), 2)
    })?;
    s.expect(SCRATCH, 1, "the store that faulted was done")?;
    let says = "[long]  a load where nothing is mapped: ";
    page_fault(s, says, UNMAPPED + 8, 0, |s| s.mov(al, byte_ptr(rax + 8)))?;
    let says = "[long]  a jump into a page with NX: ";
    page_fault(s, says, READ_ONLY + 0x123, 0b10001, |s| {
        s.mov(ecx, READ_ONLY + 0x123)?;
        s.jmp(rcx)
    })?;

    s.mov(rax, 0x0000_8000_0000_0000u64)?;
    s.probe("behind_canonical", |s| s.mov(al, byte_ptr(rax)))?;
    s.expect(VECTOR, 13, "a non-canonical address did not raise #GP")?;
    s.expect(ERROR, 0, "#GP for a non-canonical address has an error code")?;
    s.say("[long]  a load at 0000800000000000, not canonical: exception ")?;
    s.mov(eax, var32(VECTOR))?;
    s.say_decimal()?;
    s.say(" (#GP)\n")
}

/// Runs `body`, with RAX = [`UNMAPPED`], and expects a page fault for `address` with this error
/// code (bit 0 P, 1 W/R, 2 U/S, 4 I/D: SDM vol. 3A, 4.7).
fn page_fault(
    s: &mut Stage,
    says: &str,
    address: u32,
    code: u32,
    body: impl FnOnce(&mut Stage) -> Emit,
) -> Emit {
    s.mov(eax, UNMAPPED)?;
    s.probe(&format!("behind_fault_at_{address}"), body)?;
    s.expect(VECTOR, 14, "no page fault")?;
    s.say(says)?;
    s.say("#PF, CR2 = ")?;
    s.mov(rax, var64(FAULT_ADDRESS))?;
    s.say_hex(16)?;
    s.say(", error code ")?;
    s.mov(eax, var32(ERROR))?;
    s.say_hex(2)?;
    s.say("\n")?;
    s.expect(ERROR, code, "the page fault has a wrong error code")?;
    s.expect(FAULT_ADDRESS, address, "CR2 has a wrong address")?;
    s.expect(FAULT_ADDRESS + 4, 0, "CR2 has a wrong upper half")
}

fn self_modifying_code(s: &mut Stage) -> Emit {
    // MOV EAX, imm32; RET in scratch memory. A processor must notice stores to the instructions
    // it is about to run (SDM vol. 3A, 12.6), and so must one that translates them.
    let scratch = KERNEL_BASE + u64::from(SCRATCH);
    s.mov(rdi, scratch)?;
    s.mov(byte_ptr(rdi), 0xB8)?;
    s.mov(byte_ptr(rdi + 5), 0xC3)?;
    s.xor(ebx, ebx)?;
    s.mov(ecx, 100)?;
    s.anonymous_label()?;
    s.mov(dword_ptr(rdi + 1), ecx)?;
    s.call(rdi)?;
    s.add(ebx, eax)?;
    s.dec(ecx)?;
    let again = s.bwd()?;
    s.jne(again)?;
    s.say("[long]  a routine rewritten before each of 100 calls: the results add up to ")?;
    s.mov(eax, ebx)?;
    s.say_decimal()?;
    s.say("\n")?;
    s.cmp(ebx, 5050)?;
    s.check(E, "a call ran the instruction of an earlier call")?;

    // The store hits the immediate of the very next instruction.
    let next = s.label("rewritten");
    s.lea(rdi, byte_ptr(next))?;
    s.mov(byte_ptr(rdi + 1), 42)?;
    s.here("rewritten")?;
    s.mov(al, 0)?;
    s.mov(bl, al)?;
    s.say("[long]  MOV AL, 0 with its operand overwritten by the instruction before: AL = ")?;
    s.movzx(eax, bl)?;
    s.say_decimal()?;
    s.say("\n")?;
    s.cmp(bl, 42)?;
    s.check(E, "the instruction ran as it was before the store")?;

    // By another linear address it takes a serializing instruction: CPUID.
    s.mov(dword_ptr(SCRATCH + 1), 7)?;
    s.xor(eax, eax)?;
    s.cpuid()?;
    s.mov(rdi, scratch)?;
    s.call(rdi)?;
    s.cmp(eax, 7)?;
    s.check(E, "code rewritten through another mapping ran as it was before")
}

fn strings(s: &mut Stage) -> Emit {
    let image = KERNEL_BASE + u64::from(IMAGE);
    let scratch = KERNEL_BASE + u64::from(SCRATCH);
    s.mov(rsi, image + u64::from(LONG) + 1)?;
    s.mov(rdi, scratch + 3)?;
    s.mov(ecx, 5000)?;
    s.rep().movsb()?;
    s.sub(rsi, 5000)?;
    s.sub(rdi, 5000)?;
    s.cmp(rdi, (scratch + 3) as i32)?;
    s.check(E, "REP MOVSB left a wrong RDI")?;
    s.mov(ecx, 5000)?;
    s.repe().cmpsb()?;
    s.mov(ebx, ecx)?;
    s.check(E, "REPE CMPSB found a byte that differs")?;
    s.test(ebx, ebx)?;
    s.check(E, "REPE CMPSB stopped early")?;
    // Bytes are moved one after the other: with the destination one byte on, the first one spreads.
    s.mov(rsi, scratch)?;
    s.lea(rdi, byte_ptr(rsi + 1))?;
    s.mov(byte_ptr(rsi), 0xA5)?;
    s.mov(ecx, 5000)?;
    s.rep().movsb()?;
    s.mov(rdi, scratch)?;
    s.mov(al, 0xA5)?;
    s.mov(ecx, 5001)?;
    s.repe().scasb()?;
    s.check(E, "REP MOVSB with overlap did not go byte by byte")?;
    // And downwards, with DF = 1.
    s.std()?;
    s.mov(rdi, scratch + 4999)?;
    s.mov(al, 0x3C)?;
    s.mov(ecx, 5000)?;
    s.rep().stosb()?;
    s.cld()?;
    s.cmp(rdi, (scratch as u32).wrapping_sub(1) as i32)?;
    s.check(E, "REP STOSB with DF = 1 left a wrong RDI")?;
    s.cmp(byte_ptr(scratch), 0x3C)?;
    s.check(E, "REP STOSB with DF = 1 did not reach the first byte")?;
    s.say("[long]  REP MOVSB copied 5000 bytes that REPE CMPSB finds equal; overlap and DF = 1 ")?;
    s.say("work as well\n")
}

fn arithmetic(s: &mut Stage) -> Emit {
    // The root of 2 is not a number that fits; its square says how each unit rounds.
    s.fninit()?;
    let number = var32(NUMBER);
    s.mov(number, 2)?;
    s.fild(number)?;
    s.fsqrt()?;
    s.fmul_2(st0, st0)?;
    s.fstp(tbyte_ptr(KERNEL_BASE + u64::from(NUMBER)))?;
    s.say("[long]  x87:  sqrt(2) * sqrt(2) = ")?;
    s.movzx(eax, word_ptr(KERNEL_BASE + u64::from(NUMBER + 8)))?;
    s.say_hex(4)?;
    s.say(":")?;
    s.mov(ebx, eax)?;
    s.mov(rax, var64(NUMBER))?;
    s.say_hex(16)?;
    s.say(", one unit below 2\n")?;
    s.cmp(ebx, 0x3FFF)?;
    s.check(E, "x87: wrong sign or exponent")?;
    s.cmp(rax, -1)?;
    s.check(E, "x87: wrong significand")?;

    s.mov(eax, 2)?;
    s.cvtsi2sd(xmm0, eax)?;
    s.sqrtsd(xmm0, xmm0)?;
    s.mulsd(xmm0, xmm0)?;
    s.movq(rax, xmm0)?;
    s.say("[long]  SSE2: sqrt(2) * sqrt(2) = ")?;
    s.say_hex(16)?;
    s.say(", one unit above 2\n")?;
    s.mov(rbx, 0x4000_0000_0000_0001u64)?;
    s.cmp(rax, rbx)?;
    s.check(E, "SSE2: wrong product")?;

    // Four lanes at once; the memory operand of PADDD must be aligned to 16 bytes, else #GP.
    let lanes = xmmword_ptr(KERNEL_BASE + u64::from(NUMBER));
    for lane in 0..4 {
        s.mov(var32(NUMBER + lane * 4), 0x10 * (lane + 1))?;
    }
    s.movdqu(xmm1, lanes)?;
    s.paddd(xmm1, lanes)?;
    s.pshufd(xmm2, xmm1, 0x1B)?; // the lanes in reverse order
    s.pmaddwd(xmm1, xmm2)?;
    s.movd(eax, xmm1)?;
    s.cmp(eax, 0x20 * 0x80)?;
    s.check(E, "SSE2: wrong lanes")
}

fn summary(s: &mut Stage) -> Emit {
    let exit = s.label("exit");
    s.say("[done]  ")?;
    s.mov(eax, var32(CHECKS))?;
    s.say_decimal()?;
    s.say(" checks passed, none failed\n")?;
    s.mov(al, u32::from(EXIT_SUCCESS))?;
    s.jmp(exit)
}

/// Pushes all general registers.
pub fn save_all(s: &mut Stage) -> Emit {
    REGISTERS.iter().try_for_each(|&register| s.push(register))
}

fn handlers(s: &mut Stage) -> Emit {
    let common = s.label("common");
    for vector in 0..tables::VECTORS {
        s.here(&format!("vector{vector}"))?;
        if !tables::HAS_ERROR_CODE.contains(&vector) {
            s.push(0)?;
        }
        s.push(vector as i32)?;
        s.jmp(common)?;
    }

    s.here("common")?;
    save_all(s)?;
    s.cld()?;
    let (timer_interrupt, task_fault) = (s.label("timer_interrupt"), s.label("task_fault"));
    s.cmp(qword_ptr(rsp + frame::VECTOR), timer::VECTOR as i32)?;
    s.je(timer_interrupt)?;
    s.mov(eax, dword_ptr(rsp + frame::VECTOR))?;
    s.mov(var32(VECTOR), eax)?;
    s.mov(rax, qword_ptr(rsp + frame::ERROR))?;
    s.mov(var64(ERROR), rax)?;
    s.mov(rax, qword_ptr(rsp + frame::RIP))?;
    s.mov(var64(FAULT_IP), rax)?;
    s.mov(rax, cr2)?;
    s.mov(var64(FAULT_ADDRESS), rax)?;
    s.test(byte_ptr(rsp + frame::CS), 3)?;
    s.jne(task_fault)?;
    let unexpected = s.label("unexpected");
    s.mov(rax, var64(RECOVER))?;
    s.test(rax, rax)?;
    s.je(unexpected)?;
    s.mov(qword_ptr(rsp + frame::RIP), rax)?;

    // leave: back to where the frame says. A frame that SYSCALL built leaves by SYSRET, which
    // takes RIP from RCX and RFLAGS from R11, and they have just been restored.
    s.here("leave")?;
    let by_sysret = s.label("by_sysret");
    for &register in REGISTERS.iter().rev() {
        s.pop(register)?;
    }
    s.cmp(qword_ptr(rsp), tasks::SYSCALL_VECTOR as i32)?;
    s.je(by_sysret)?;
    s.add(rsp, 16)?;
    s.iretq()?;
    s.here("by_sysret")?;
    s.mov(rsp, qword_ptr(rsp + 5 * 8))?;
    s.sysretq()?;

    s.here("unexpected")?;
    let exit = s.label("exit");
    s.say("FAIL: unexpected exception ")?;
    s.mov(eax, var32(VECTOR))?;
    s.say_decimal()?;
    s.say(" at ")?;
    s.mov(rax, var64(FAULT_IP))?;
    s.say_hex(16)?;
    s.say("\n")?;
    s.mov(al, u32::from(EXIT_EXCEPTION))?;
    s.jmp(exit)
}
