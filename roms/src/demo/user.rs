//! Stage 5 seen from CPL 3: the programs of task A and task B.
//!
//! Both are linked to the same addresses. They take turns by a number in the page they share: a
//! task waits until the number is its own and then stores the next one. Waiting is a loop without
//! a system call, so it only ends because the timer interrupt gives the CPU to the other task;
//! and since whoever has the turn is the only one to print, the output has a fixed order.
//!
//! | turn | task | what it does |
//! |---|---|---|
//! | 0, 1 | A, B | print what they have computed |
//! | 2, 3 | A, B | read back a private word: both have one at the same address |
//! | 4 | A | CLI |
//! | 5 | B | reads the kernel, and asks the kernel to read it |
//! | 6–25 | A, B, A … | nothing but pass the turn |
//! | 26, 27 | A, B | look at their registers; B waits for 27 by `yield` |

use super::assembler::{Emit, Stage};
use super::tasks::{EFAULT, EXIT, EXIT_A, EXIT_B, RALLIES, WRITE, YIELD};
use crate::layout::*;
use iced_x86::code_asm::*;

/// Where both tasks keep a word of their own.
const PRIVATE: u32 = USER_BYTES + 0x800;
/// End of the buffer for a decimal number.
const NUMBER_END: u32 = USER_BYTES + 0x900;
/// Task A counts the primes below this.
const LIMIT: u32 = 1000;
/// Task B computes this Fibonacci number.
const FIBONACCI: u32 = 30;
/// The first turn of the rallies.
const FIRST_RALLY: u32 = 6;
/// The first turn behind them.
const LAST_TURNS: u32 = FIRST_RALLY + 2 * RALLIES;

/// Registers that hold a pattern from start to end. (SYSCALL takes RCX and R11, the programs use
/// the others.)
const KEPT: [AsmRegister64; 8] = [rbp, r8, r9, r10, r12, r13, r14, r15];

/// Emits task A.
pub fn write_a(s: &mut Stage) -> Emit {
    start(s, b'A')?;
    // The sieve of Eratosthenes, one byte a number: 0 is prime.
    let (candidate, strike, composite) = (s.label("candidate"), s.label("strike"), s.label("next"));
    s.mov(esi, 2)?;
    s.xor(ebx, ebx)?;
    s.here("candidate")?;
    s.cmp(byte_ptr(rsi + USER_BYTES), 0)?;
    s.jne(composite)?;
    s.inc(ebx)?;
    s.mov(edi, esi)?;
    s.here("strike")?;
    s.mov(byte_ptr(rdi + USER_BYTES), 1)?;
    s.add(edi, esi)?;
    s.cmp(edi, LIMIT as i32)?;
    s.jb(strike)?;
    s.here("next")?;
    s.inc(esi)?;
    s.cmp(esi, LIMIT as i32)?;
    s.jb(candidate)?;

    wait(s, 0)?;
    say(s, "[user A] the sieve leaves ")?;
    say_number(s)?;
    say(s, " primes below 1000\n")?;
    s.cmp(ebx, 168)?;
    give_up_unless_equal(s)?;
    pass_to(s, 1)?;

    private_word(s, b'A', 2)?;

    wait(s, 4)?;
    s.cli()?;
    say(s, "[user A] went on behind the CLI\n")?;
    pass_to(s, 5)?;

    rallies(s, 0)?;
    wait(s, LAST_TURNS)?;
    finish(s, b'A')?;
    pass_to(s, LAST_TURNS + 1)?;
    s.mov(edi, EXIT_A)?;
    system_call(s, EXIT)?;
    routines(s)
}

/// Emits task B.
pub fn write_b(s: &mut Stage) -> Emit {
    start(s, b'B')?;
    s.xor(ebx, ebx)?;
    s.mov(edx, 1)?;
    s.mov(ecx, FIBONACCI)?;
    s.anonymous_label()?;
    s.xchg(ebx, edx)?; // (F(n), F(n+1)) becomes (F(n+1), F(n) + F(n+1))
    s.add(edx, ebx)?;
    s.dec(ecx)?;
    let again = s.bwd()?;
    s.jne(again)?;

    wait(s, 1)?;
    say(s, "[user B] Fibonacci number 30 is ")?;
    say_number(s)?;
    say(s, "\n")?;
    s.cmp(ebx, 832_040)?;
    give_up_unless_equal(s)?;
    pass_to(s, 2)?;

    private_word(s, b'B', 3)?;

    wait(s, 5)?;
    s.mov(rsi, KERNEL_BASE)?;
    s.lodsb()?;
    s.cmp(rsi, KERNEL_BASE as i32)?;
    give_up_unless_equal(s)?;
    s.mov(rdi, KERNEL_BASE)?;
    system_call(s, WRITE)?;
    s.mov(ebx, eax)?;
    s.cmp(rax, EFAULT)?;
    give_up_unless_equal(s)?;
    say(s, "[user B] write() of a kernel address returned -")?;
    s.neg(ebx)?;
    say_number(s)?;
    say(s, "\n")?;
    pass_to(s, FIRST_RALLY)?;

    rallies(s, 1)?;
    s.anonymous_label()?;
    system_call(s, YIELD)?;
    s.cmp(dword_ptr(USER_SHARED), LAST_TURNS as i32 + 1)?;
    let again = s.bwd()?;
    s.jne(again)?;
    finish(s, b'B')?;
    s.mov(edi, EXIT_B)?;
    system_call(s, EXIT)?;
    routines(s)
}

/// The pattern of register `n` of [`KEPT`] in the task called `name`.
fn pattern(name: u8, n: usize) -> u64 {
    (0x0101_0101_0101_0101 * u64::from(name)) ^ (0x0100_0000_0000_0001 * n as u64)
}

fn start(s: &mut Stage, name: u8) -> Emit {
    for (n, register) in KEPT.into_iter().enumerate() {
        s.mov(register, pattern(name, n))?;
    }
    s.mov(dword_ptr(PRIVATE), u32::from_le_bytes([name; 4]))
}

fn private_word(s: &mut Stage, name: u8, turn: u32) -> Emit {
    let letter = char::from(name);
    wait(s, turn)?;
    say(s, &format!("[user {letter}] my word at 00401800 reads "))?;
    s.mov(edi, PRIVATE)?;
    system_call(s, WRITE)?;
    say(s, "\n")?;
    s.cmp(dword_ptr(PRIVATE), u32::from_le_bytes([name; 4]) as i32)?;
    give_up_unless_equal(s)?;
    pass_to(s, turn + 1)
}

/// Every second turn of the rallies: the even ones or the `odd` ones.
fn rallies(s: &mut Stage, odd: u32) -> Emit {
    let (rally, mine) = (s.label("rally"), s.label("rally_mine"));
    s.mov(ebx, FIRST_RALLY + odd)?;
    s.here("rally")?;
    s.cmp(dword_ptr(USER_SHARED), ebx)?;
    s.je(mine)?;
    s.pause()?;
    s.jmp(rally)?;
    s.here("rally_mine")?;
    s.inc(dword_ptr(USER_SHARED))?;
    s.add(ebx, 2)?;
    s.cmp(ebx, LAST_TURNS as i32)?;
    s.jb(rally)
}

fn finish(s: &mut Stage, name: u8) -> Emit {
    let letter = char::from(name);
    for (n, register) in KEPT.into_iter().enumerate() {
        s.mov(rax, pattern(name, n))?;
        s.cmp(register, rax)?;
        give_up_unless_equal(s)?;
    }
    say(s, &format!("[user {letter}] had "))?;
    s.mov(ebx, RALLIES)?;
    say_number(s)?;
    say(s, " turns without a system call; my registers are as I left them\n")
}

fn wait(s: &mut Stage, turn: u32) -> Emit {
    let (spin, mine) = (s.label(&format!("wait{turn}")), s.label(&format!("turn{turn}")));
    s.here(&format!("wait{turn}"))?;
    s.cmp(dword_ptr(USER_SHARED), turn as i32)?;
    s.je(mine)?;
    s.pause()?;
    s.jmp(spin)?;
    s.here(&format!("turn{turn}"))
}

fn pass_to(s: &mut Stage, turn: u32) -> Emit {
    s.mov(dword_ptr(USER_SHARED), turn)
}

fn system_call(s: &mut Stage, number: u32) -> Emit {
    s.mov(eax, number)?;
    s.syscall()
}

fn say(s: &mut Stage, text: &str) -> Emit {
    let text = s.text(text);
    s.mov(rdi, text)?;
    system_call(s, WRITE)
}

/// Prints EBX in decimal.
fn say_number(s: &mut Stage) -> Emit {
    let number = s.label("number");
    s.call(number)
}

fn give_up_unless_equal(s: &mut Stage) -> Emit {
    let give_up = s.label("give_up");
    s.jne(give_up)
}

fn routines(s: &mut Stage) -> Emit {
    s.here("number")?;
    s.mov(eax, ebx)?;
    s.mov(ecx, 10)?;
    s.mov(edi, NUMBER_END)?; // the byte there is 0
    s.anonymous_label()?;
    s.xor(edx, edx)?;
    s.div(ecx)?;
    s.add(dl, u32::from(b'0'))?;
    s.dec(rdi)?;
    s.mov(byte_ptr(rdi), dl)?;
    s.test(eax, eax)?;
    let again = s.bwd()?;
    s.jne(again)?;
    system_call(s, WRITE)?;
    s.ret()?;
    s.here("give_up")?;
    s.xor(edi, edi)?;
    system_call(s, EXIT)
}
