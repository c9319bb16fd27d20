//! Stage 4: interrupts from outside. Two 8259 interrupt controllers, the 8254 timer, and HLT.
//!
//! Sources: 8259A datasheet (ICW1–4, OCW1–3), 8254 datasheet (control word, mode 2, counter latch).

use super::assembler::{BE, E, Emit, NE, Stage, var32};
use super::long::frame;
use super::prot::IF;
use crate::layout::*;
use iced_x86::code_asm::*;

/// Where the first PIC is told to put IRQ 0: vectors below are exceptions.
pub const VECTOR: u32 = 0x20;
/// 1,193,182 Hz through this is 1 kHz.
const DIVISOR: u32 = 1193;
/// How many interrupts the stage sleeps for.
const SLEEPS: u32 = 10;
/// A minute at 1 kHz: if the tasks take longer, something hangs.
const PATIENCE: i32 = 60_000;

/// Emits the stage.
pub fn write(s: &mut Stage) -> Emit {
    s.failure = EXIT_TIMER;
    controllers(s)?;
    counter(s)?;
    halts(s)?;
    shadow_of_sti(s)
}

fn controllers(s: &mut Stage) -> Emit {
    // A local APIC stands between the PIC and the CPU, and after reset it lets nothing through.
    // "Virtual wire" mode, as a BIOS sets it up: APIC on, its pin LINT0 in delivery mode ExtINT,
    // which means: ask the PIC for the vector (SDM vol. 3A, 11.4.7, 11.5.1, 11.9).
    let no_apic = s.label("no_apic");
    s.mov(eax, 1)?;
    s.cpuid()?;
    s.test(edx, 1 << 9)?;
    s.je(no_apic)?;
    s.mov(dword_ptr(LOCAL_APIC + 0xF0), 0x1FF)?; // SVR: enabled, spurious vector FFH
    s.mov(dword_ptr(LOCAL_APIC + 0x350), 0x700)?; // LVT LINT0: ExtINT, not masked
    s.here("no_apic")?;
    let second = VECTOR + 8;
    for (port, value) in [
        (0x20, 0x11),   // ICW1: edge triggered, cascaded, ICW4 follows
        (0xA0, 0x11),   // the same for the second one
        (0x21, VECTOR), // ICW2: its first vector
        (0xA1, second), //
        (0x21, 0x04),   // ICW3: the second PIC is on input 2
        (0xA1, 0x02),   //
        (0x21, 0x01),   // ICW4: 8086 mode
        (0xA1, 0x01),   //
        (0x21, 0xFE),   // OCW1: all masked but IRQ 0, the timer
        (0xA1, 0xFF),   //
        (0x43, 0x34),   // 8254: counter 0, both bytes, mode 2 (rate generator), binary
        (0x40, DIVISOR & 0xFF),
        (0x40, DIVISOR >> 8),
    ] {
        s.mov(al, value)?;
        s.out(port, al)?;
    }
    s.in_(al, 0x21)?;
    s.cmp(al, 0xFE_u32 as i32)?;
    s.check(E, "the mask of the first PIC does not read back")
}

fn counter(s: &mut Stage) -> Emit {
    // Latch the counter and read it until it has moved; it runs from the divisor down to 1.
    let (read, differs) = (s.label("read_counter"), s.label("counter_differs"));
    s.call(read)?;
    s.mov(ebx, eax)?;
    s.mov(ecx, 1_000_000)?;
    s.anonymous_label()?;
    s.call(read)?;
    s.cmp(eax, ebx)?;
    s.jne(differs)?;
    s.dec(ecx)?;
    let again = s.bwd()?;
    s.jne(again)?;
    s.here("counter_differs")?;
    s.test(ecx, ecx)?;
    s.check(NE, "the counter of the PIT stands still")?;
    s.dec(eax)?;
    s.cmp(eax, DIVISOR as i32 - 1)?;
    s.check(BE, "the counter of the PIT is not between 1 and its divisor")?;
    s.say("[timer] the PIT counts, between 1 and ")?;
    s.mov(eax, DIVISOR)?;
    s.say_decimal()?;
    s.say("\n")?;
    let behind = s.label("behind_read");
    s.jmp(behind)?;

    s.here("read_counter")?;
    s.mov(al, 0)?; // counter latch command, counter 0
    s.out(0x43, al)?;
    s.in_(al, 0x40)?;
    s.mov(ah, al)?;
    s.in_(al, 0x40)?;
    s.xchg(al, ah)?;
    s.movzx(eax, ax)?;
    s.ret()?;
    s.here("behind_read")
}

fn halts(s: &mut Stage) -> Emit {
    // STI takes effect behind the next instruction: no interrupt fits between STI and HLT, so none
    // can be slept through. The handler returns with IF = 0: one HLT, one interrupt.
    s.xor(ebx, ebx)?;
    s.mov(var32(TICKS), 0)?;
    s.anonymous_label()?;
    s.sti()?;
    s.hlt()?;
    s.inc(ebx)?;
    s.cmp(var32(TICKS), SLEEPS as i32)?;
    let again = s.bwd()?;
    s.jb(again)?;
    s.say("[timer] ")?;
    s.mov(eax, var32(TICKS))?;
    s.say_decimal()?;
    s.say(" timer interrupts taken in ")?;
    s.mov(eax, ebx)?;
    s.say_decimal()?;
    s.say(" halts\n")?;
    s.cmp(ebx, SLEEPS as i32)?;
    s.check(E, "a HLT ended without an interrupt, or with more than one")
}

fn shadow_of_sti(s: &mut Stage) -> Emit {
    // IF is 0. Wait until an interrupt is pending: OCW3 selects IRR for reading.
    let pending = s.label("irq0_pending");
    s.mov(al, 0x0A)?;
    s.out(0x20, al)?;
    s.mov(ecx, 100_000_000)?;
    s.anonymous_label()?;
    s.in_(al, 0x20)?;
    s.test(al, 1)?;
    s.jne(pending)?;
    s.dec(ecx)?;
    let again = s.bwd()?;
    s.jne(again)?;
    s.here("irq0_pending")?;
    s.test(ecx, ecx)?;
    s.check(NE, "no timer interrupt became pending with IF = 0")?;
    s.mov(ebx, var32(TICKS))?;
    s.sti()?;
    s.cli()?;
    s.cmp(var32(TICKS), ebx)?;
    s.check(E, "an interrupt was taken between STI and CLI")?;
    s.sti()?;
    s.nop()?;
    s.nop()?;
    s.cli()?;
    s.mov(eax, var32(TICKS))?;
    s.sub(eax, ebx)?;
    s.cmp(eax, 1)?;
    s.check(E, "a pending interrupt was not taken behind STI; NOP")?;
    s.say("[timer] a pending interrupt waited through STI; CLI and came with STI; NOP\n")
}

/// Emits the handler of the timer interrupt, for a frame that is complete.
pub fn interrupt(s: &mut Stage) -> Emit {
    let (leave, preempt) = (s.label("leave"), s.label("preempt"));
    s.here("timer_interrupt")?;
    s.mov(al, 0x20)?; // OCW2: non-specific end of interrupt
    s.out(0x20, al)?;
    s.inc(var32(TICKS))?;
    s.cmp(var32(TICKS), PATIENCE)?;
    s.require(BE, "the tasks hang")?;
    s.test(byte_ptr(rsp + frame::CS), 3)?;
    s.jne(preempt)?;
    s.and(dword_ptr(rsp + frame::RFLAGS), !(IF as i32))?;
    s.jmp(leave)
}
