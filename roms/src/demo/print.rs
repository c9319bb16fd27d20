//! Text output on the UART at 0x3F8, and the way out: the same source for all three modes.
//!
//! The routines name 8-, 16- and 32-bit registers only, and LODSB takes SI, ESI or RSI by the mode
//! it runs in. Assembled for 16, 32 and 64 bits they differ in prefixes alone; a look at the three
//! encodings side by side is the shortest lesson on what the mode of a code segment means.
//!
//! Programming model: 16550 datasheet. A byte may be written to THR once LSR bit 5 (THRE) is set.

use super::assembler::{Emit, Reg, Stage};
use crate::layout::*;
use Reg::{A, B, C, D};
use iced_x86::code_asm::*;

/// Base port of COM1.
pub const COM1: u32 = 0x3F8;
/// Offset of the line status register.
pub const LSR: u32 = 5;

/// Emits `putc`, `puts`, `decimal`, `hex`, `fail` and `exit`. Nothing but the flags (and SI in
/// `puts`) is changed.
pub fn routines(s: &mut Stage) -> Emit {
    let (putc, puts) = (s.label("putc"), s.label("puts"));

    // putc: sends AL.
    s.here("putc")?;
    s.save(&[D, A])?;
    s.mov(dx, COM1 + LSR)?;
    s.anonymous_label()?;
    s.in_(al, dx)?;
    s.test(al, 0x20)?; // THRE: is there room?
    let wait = s.bwd()?;
    s.je(wait)?;
    s.restore(&[A])?;
    s.mov(dx, COM1)?;
    s.out(dx, al)?;
    s.restore(&[D])?;
    s.ret()?;

    // puts: sends the bytes at SI up to the first 0; a line feed gets its carriage return.
    s.here("puts")?;
    let (next, plain, done) = (s.label("puts_next"), s.label("puts_plain"), s.label("puts_done"));
    s.save(&[A])?;
    s.here("puts_next")?;
    s.lodsb()?;
    s.test(al, al)?;
    s.je(done)?;
    s.cmp(al, 10)?;
    s.jne(plain)?;
    s.mov(al, 13)?;
    s.call(putc)?;
    s.mov(al, 10)?;
    s.here("puts_plain")?;
    s.call(putc)?;
    s.jmp(next)?;
    s.here("puts_done")?;
    s.restore(&[A])?;
    s.ret()?;

    // decimal: sends EAX. Division yields the last digit first, so they wait on the stack.
    s.here("decimal")?;
    let (divide, send) = (s.label("decimal_divide"), s.label("decimal_send"));
    s.save(&[A, B, C, D])?;
    s.mov(ecx, 10)?;
    s.xor(ebx, ebx)?;
    s.here("decimal_divide")?;
    s.xor(edx, edx)?;
    s.div(ecx)?;
    s.add(dl, u32::from(b'0'))?;
    s.save(&[D])?;
    s.inc(ebx)?;
    s.test(eax, eax)?;
    s.jne(divide)?;
    s.here("decimal_send")?;
    s.restore(&[A])?;
    s.call(putc)?;
    s.dec(ebx)?;
    s.jne(send)?;
    s.restore(&[A, B, C, D])?;
    s.ret()?;

    // hex: sends the top ECX digits of EAX.
    s.here("hex")?;
    let (digit, below_ten) = (s.label("hex_digit"), s.label("hex_below_ten"));
    s.save(&[A, C])?;
    s.here("hex_digit")?;
    s.rol(eax, 4)?;
    s.save(&[A])?;
    s.and(al, 0x0F)?;
    s.add(al, u32::from(b'0'))?;
    s.cmp(al, u32::from(b'9'))?;
    s.jbe(below_ten)?;
    s.add(al, u32::from(b'A' - b'9' - 1))?;
    s.here("hex_below_ten")?;
    s.call(putc)?;
    s.restore(&[A])?;
    s.dec(ecx)?;
    s.jne(digit)?;
    s.restore(&[A, C])?;
    s.ret()?;

    // fail: SI points to what went wrong, BL is the value to leave with.
    s.here("fail")?;
    s.say("FAIL: ")?;
    s.call(puts)?;
    s.say("\n")?;
    s.mov(al, bl)?;
    // It goes on into `exit`: leaves with AL. Where no isa-debug-exit listens, sleeps for ever.
    s.here("exit")?;
    s.cli()?;
    s.out(u32::from(EXIT_PORT), al)?;
    s.anonymous_label()?;
    s.hlt()?;
    let sleep = s.bwd()?;
    s.jmp(sleep)
}
