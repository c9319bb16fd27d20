//! Stage 5: two tasks at CPL 3, each in an address space of its own, switched by the timer.
//!
//! A task that does not run is a stack pointer: its registers lie in a frame on its kernel stack,
//! built by the interrupt or the SYSCALL that took the CPU from it. To switch is to store RSP in
//! the record of the one task, load CR3 and RSP from the record of the other, and return.
//!
//! The kernel runs with IF = 0 throughout, so only CPL 3 is ever preempted and nothing in here
//! needs a lock. Sources: SDM vol. 2B SYSCALL and SYSRET, vol. 3A 5.8.8 (their MSRs), 8.7 (RSP0).

use super::assembler::{AE, BE, E, Emit, Stage, var32, var64};
use super::long::{frame, save_all};
use super::prot::IF;
use crate::layout::*;
use iced_x86::code_asm::*;

/// In a frame, in the place of a vector: it was SYSCALL that built it.
pub const SYSCALL_VECTOR: u32 = 0x80;

/// System call `write(text)`: prints a zero-terminated text; returns its length or [`EFAULT`].
pub const WRITE: u32 = 1;
/// System call `yield()`: lets the other task run.
pub const YIELD: u32 = 2;
/// System call `exit(code)`: [`EXIT_A`] or [`EXIT_B`], or anything else if the task went wrong.
pub const EXIT: u32 = 3;
/// What task A exits with.
pub const EXIT_A: i32 = 10;
/// What task B exits with.
pub const EXIT_B: i32 = 11;
/// Result of a `write` of something that is not the task's.
pub const EFAULT: i32 = -14;
/// Result of an unknown system call.
const ENOSYS: i32 = -38;

/// How often the tasks pass the turn to each other without a system call.
pub const RALLIES: u32 = 10;

/// Opcode of CLI, which task A tries.
const CLI: i32 = 0xFA;
/// Opcode of LODSB, with which task B tries to read the kernel.
const LODSB: i32 = 0xAC;

/// RSP0 in the TSS: the stack that an interrupt at CPL 3 switches to. SYSCALL switches no stack;
/// its entry uses the same value.
fn rsp0() -> AsmMemoryOperand {
    var64(IMAGE + TSS64 + 4)
}

/// Emits the stage up to the point where both tasks have exited.
pub fn write(s: &mut Stage) -> Emit {
    s.failure = EXIT_TASKS;
    // STAR: the CS of SYSCALL in 47:32, that of SYSRET to 32-bit code in 63:48. LSTAR: the entry.
    // SFMASK: what SYSCALL clears in RFLAGS: IF, DF, TF, NT, AC.
    let entry = s.addr("system_call");
    let star = u32::from(USER_CODE32) << 16 | u32::from(KERNEL_CODE64);
    for (msr, high, low) in [
        (0xC000_0081u32, star, 0),
        (0xC000_0082, (entry >> 32) as u32, entry as u32),
        (0xC000_0084, 0, 0x4_4700),
    ] {
        s.mov(ecx, msr)?;
        s.mov(edx, high)?;
        s.mov(eax, low)?;
        s.wrmsr()?;
    }
    s.mov(var64(SHARED), 0)?;
    address_space(s, b'A', SPACE_A, USER_A, TASK_A)?;
    address_space(s, b'B', SPACE_B, USER_B, TASK_B)?;
    s.say("[tasks] two address spaces: CR3 = ")?;
    s.mov(eax, var32(TASK_A + TASK_CR3))?;
    s.say_hex(8)?;
    s.say(" for A, ")?;
    s.mov(eax, var32(TASK_B + TASK_CR3))?;
    s.say_hex(8)?;
    s.say(" for B\n")?;

    let resume = s.label("resume");
    s.mov(var32(TICKS), 0)?;
    s.mov(rbx, KERNEL_BASE + u64::from(TASK_A))?;
    s.jmp(resume)?;

    s.here("all_exited")?;
    s.mov(eax, PAGE_TABLES)?;
    s.mov(cr3, rax)?;
    s.mov(rsp, KERNEL_BASE + u64::from(KERNEL_STACK))?;
    s.say("[tasks] A exited with ")?;
    s.mov(eax, var32(TASK_A + TASK_EXIT))?;
    s.say_decimal()?;
    s.say(", B with ")?;
    s.mov(eax, var32(TASK_B + TASK_EXIT))?;
    s.say_decimal()?;
    s.say("\n")?;
    s.expect(TASK_A + TASK_EXIT, EXIT_A as u32, "task A exited with a wrong code")?;
    s.expect(TASK_B + TASK_EXIT, EXIT_B as u32, "task B exited with a wrong code")?;
    for task in [TASK_A, TASK_B] {
        s.cmp(var32(task + TASK_PREEMPTED), RALLIES as i32)?;
        s.check(AE, "the timer took the CPU from a task less often than it must have")?;
    }
    s.cmp(var32(YIELDS), 1)?;
    s.check(AE, "no task called yield")?;
    s.say("[tasks] each was preempted ")?;
    s.mov(eax, RALLIES)?;
    s.say_decimal()?;
    s.say(" times or more by the timer\n")
}

/// Builds a task: the ten pages at `space`, the `program` of the ROM image, the record at `task`.
fn address_space(s: &mut Stage, name: u8, space: u32, program: u32, task: u32) -> Emit {
    let at = |offset: u32| var64(space + offset);
    let address = |physical: u32| (KERNEL_BASE + u64::from(physical)) as i32; // sign-extends
    s.mov(rdi, KERNEL_BASE + u64::from(space))?;
    s.xor(eax, eax)?;
    s.mov(ecx, 10 * 0x1000 / 8)?;
    s.rep().stosq()?;
    s.mov(rsi, KERNEL_BASE + u64::from(IMAGE + program))?;
    s.mov(rdi, KERNEL_BASE + u64::from(space + 0x4000))?;
    s.mov(ecx, 0x1000 / 8)?;
    s.rep().movsq()?;

    // P, W and U on the way down; the last level says what the page may do.
    let user = 0b111;
    s.mov(at(0), ((space + 0x1000) | user) as i32)?;
    s.mov(at(511 * 8), (PDPT_HIGH | 0b011) as i32)?; // the kernel, in every address space
    s.mov(at(0x1000), ((space + 0x2000) | user) as i32)?;
    s.mov(at(0x2000 + (USER_CODE >> 21) * 8), ((space + 0x3000) | user) as i32)?;
    s.mov(at(0x3000), ((space + 0x4000) | 0b101) as i32)?; // code: not writable
    let pages = [space + 0x5000, space + 0x6000, SHARED];
    for (n, page) in (1..).zip(pages) {
        s.mov(at(0x3000 + n * 8), (page | user) as i32)?; // data, stack, the shared page: NX
        s.mov(var32(space + 0x3000 + n * 8 + 4), 0x8000_0000u32)?;
    }

    // A frame as if an interrupt had come before the first instruction: all registers 0.
    let stack = space + 0xA000;
    let frame_at = stack - frame::SIZE;
    let top = USER_STACK as i32;
    let user_data = i32::from(USER_DATA);
    s.mov(var64(frame_at + frame::RIP), USER_CODE as i32)?;
    s.mov(var64(frame_at + frame::CS), i32::from(USER_CODE64))?;
    s.mov(var64(frame_at + frame::RFLAGS), (IF | 2) as i32)?;
    s.mov(var64(frame_at + frame::RFLAGS + 8), top)?;
    s.mov(var64(frame_at + frame::RFLAGS + 16), user_data)?;

    s.mov(var64(task + TASK_FRAME), address(frame_at))?;
    s.mov(var64(task + TASK_CR3), space as i32)?;
    s.mov(var64(task + TASK_STACK), address(stack))?;
    s.mov(var64(task + TASK_ALIVE), 1)?;
    s.mov(var64(task + TASK_NAME), i32::from(name))
}

/// Emits the scheduler, the report on faults at CPL 3, and the system calls. All of them work on a
/// complete frame at RSP and end in `leave`.
pub fn handlers(s: &mut Stage) -> Emit {
    scheduler(s)?;
    fault(s)?;
    system_calls(s)
}

fn scheduler(s: &mut Stage) -> Emit {
    let (resume, leave, all_exited) = (s.label("resume"), s.label("leave"), s.label("all_exited"));
    // preempt: the timer has interrupted a task.
    s.here("preempt")?;
    s.mov(rbx, var64(CURRENT))?;
    s.inc(dword_ptr(rbx + TASK_PREEMPTED))?;

    // schedule: puts the running task away and takes the other one, if it is alive.
    s.here("schedule")?;
    s.mov(rbx, var64(CURRENT))?;
    s.mov(qword_ptr(rbx + TASK_FRAME), rsp)?;
    for _ in 0..2 {
        s.xor(rbx, (TASK_A ^ TASK_B) as i32)?; // the records differ in one address bit
        s.cmp(dword_ptr(rbx + TASK_ALIVE), 0)?;
        s.jne(resume)?;
    }
    s.jmp(all_exited)?;

    // resume: goes on with the task whose record is at RBX.
    s.here("resume")?;
    s.mov(var64(CURRENT), rbx)?;
    s.mov(rax, qword_ptr(rbx + TASK_CR3))?;
    s.mov(cr3, rax)?;
    s.mov(rax, qword_ptr(rbx + TASK_STACK))?;
    s.mov(rsp0(), rax)?;
    s.mov(rsp, qword_ptr(rbx + TASK_FRAME))?;
    s.jmp(leave)
}

fn fault(s: &mut Stage) -> Emit {
    let (putc, leave) = (s.label("putc"), s.label("leave"));
    let (no_address, general, skip) = (s.label("no_cr2"), s.label("is_cli"), s.label("skip"));
    s.here("task_fault")?;
    s.mov(rbx, var64(CURRENT))?;
    s.mov(rsi, qword_ptr(rsp + frame::RIP))?;
    s.movzx(r12d, byte_ptr(rsi))?;
    s.say("[tasks] ")?;
    s.mov(al, byte_ptr(rbx + TASK_NAME))?;
    s.call(putc)?;
    s.say(" ran opcode ")?;
    s.mov(eax, r12d)?;
    s.say_hex(2)?;
    s.say(" at CPL 3: exception ")?;
    s.mov(eax, var32(VECTOR))?;
    s.say_decimal()?;
    s.say(", error code ")?;
    s.mov(eax, var32(ERROR))?;
    s.say_hex(2)?;
    s.cmp(var32(VECTOR), 14)?;
    s.jne(no_address)?;
    s.say(", CR2 = ")?;
    s.mov(rax, var64(FAULT_ADDRESS))?;
    s.say_hex(16)?;
    s.here("no_cr2")?;
    s.say("; skipped\n")?;

    // Two faults are part of the story, both by instructions of one byte.
    s.cmp(r12d, CLI)?;
    s.je(general)?;
    s.cmp(r12d, LODSB)?;
    s.check(E, "a task faulted with another instruction than CLI or LODSB")?;
    s.expect(VECTOR, 14, "LODSB from the kernel did not raise #PF")?;
    s.expect(ERROR, 0b101, "#PF by LODSB: the error code is not P and U/S")?;
    s.cmp(var64(FAULT_ADDRESS), KERNEL_BASE as i32)?;
    s.check(E, "#PF by LODSB: wrong address in CR2")?;
    s.jmp(skip)?;
    s.here("is_cli")?;
    s.expect(VECTOR, 13, "CLI at CPL 3 did not raise #GP")?;
    s.expect(ERROR, 0, "#GP by CLI has an error code")?;
    s.here("skip")?;
    s.inc(qword_ptr(rsp + frame::RIP))?;
    s.jmp(leave)
}

fn system_calls(s: &mut Stage) -> Emit {
    // SYSCALL leaves RIP in RCX and RFLAGS in R11. The frame it gets here is the one that an
    // interrupt would have built.
    s.here("system_call")?;
    s.mov(var64(USER_RSP), rsp)?;
    s.mov(rsp, rsp0())?;
    s.push(i32::from(USER_DATA))?;
    s.push(var64(USER_RSP))?;
    s.push(r11)?;
    s.push(i32::from(USER_CODE64))?;
    s.push(rcx)?;
    s.push(0)?;
    s.push(SYSCALL_VECTOR as i32)?;
    save_all(s)?;

    let (leave, schedule) = (s.label("leave"), s.label("schedule"));
    let (write, yields, exit) = (s.label("sys_write"), s.label("sys_yield"), s.label("sys_exit"));
    s.cmp(eax, WRITE as i32)?;
    s.je(write)?;
    s.cmp(eax, YIELD as i32)?;
    s.je(yields)?;
    s.cmp(eax, EXIT as i32)?;
    s.je(exit)?;
    s.mov(qword_ptr(rsp + frame::RAX), ENOSYS)?;
    s.jmp(leave)?;

    // Every byte must be the task's own: else a task could have the kernel read for it what it
    // cannot read itself.
    s.here("sys_write")?;
    let (next, found, refuse) = (s.label("write_next"), s.label("write_end"), s.label("refuse"));
    let puts = s.label("puts");
    s.mov(rsi, rdi)?;
    s.here("write_next")?;
    s.mov(rax, rdi)?;
    s.sub(rax, USER_CODE as i32)?;
    s.cmp(rax, (USER_END - USER_CODE) as i32)?;
    s.jae(refuse)?;
    s.cmp(byte_ptr(rdi), 0)?;
    s.je(found)?;
    s.inc(rdi)?;
    s.jmp(next)?;
    s.here("write_end")?;
    s.sub(rdi, rsi)?;
    s.mov(qword_ptr(rsp + frame::RAX), rdi)?;
    s.call(puts)?;
    s.jmp(leave)?;
    s.here("refuse")?;
    s.mov(qword_ptr(rsp + frame::RAX), EFAULT)?;
    s.jmp(leave)?;

    s.here("sys_yield")?;
    s.inc(var32(YIELDS))?;
    s.mov(qword_ptr(rsp + frame::RAX), 0)?;
    s.jmp(schedule)?;

    s.here("sys_exit")?;
    s.lea(eax, dword_ptr(rdi - EXIT_A))?;
    s.cmp(eax, EXIT_B - EXIT_A)?;
    s.require(BE, "a task found a wrong value")?;
    s.mov(rbx, var64(CURRENT))?;
    s.mov(dword_ptr(rbx + TASK_EXIT), edi)?;
    s.mov(dword_ptr(rbx + TASK_ALIVE), 0)?;
    s.jmp(schedule)
}
