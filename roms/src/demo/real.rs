//! Stage 1, real mode: from the reset vector to a copy of the ROM in RAM.
//!
//! After reset CS has selector F000 but base FFFF0000, so the CPU fetches from the last 16 bytes
//! below 4 GiB (SDM vol. 3A, 10.1.4). The far jump there loads CS anew: from now on its base is
//! 16 times its selector, F0000, where the chipset shows the same ROM.
//!
//! Registers that hold for the stage: SS = FS = 0 (low RAM: stack and variables), DS = CS (the
//! image, wherever it runs).

use super::assembler::{E, Emit, NE, Stage};
use super::print;
use crate::layout::*;
use iced_x86::code_asm::*;
use iced_x86::{Code, Instruction};

/// Interrupt that the stage installs and calls.
const SERVICE: u32 = 0x60;
/// How often it calls it.
const CALLS: u32 = 5;

/// Emits the stage.
pub fn write(s: &mut Stage) -> Emit {
    s.failure = EXIT_REAL;
    setup(s)?;
    hello(s)?;
    a20(s)?;
    software_interrupt(s)?;
    copy_to_ram(s)?;
    protected_mode(s)?;
    print::routines(s)
}

fn setup(s: &mut Stage) -> Emit {
    s.here("entry")?;
    s.cli()?;
    s.cld()?;
    s.xor(ax, ax)?;
    // A load of SS holds interrupts off until the next instruction is done: SP belongs there.
    s.mov(ss, ax)?;
    s.mov(sp, REAL_STACK)?;
    s.mov(fs, ax)?;
    s.mov(es, ax)?;
    s.mov(di, VARS)?;
    s.mov(cx, VARS_END - VARS)?;
    s.rep().stosb()?;
    s.mov(ax, cs)?;
    s.mov(ds, ax)?;

    // Nobody has programmed the interrupt controllers yet: mask all their inputs (8259A, OCW1).
    s.mov(al, 0xFF)?;
    s.out(0x21, al)?;
    s.out(0xA1, al)?;

    // The UART: no interrupts, 115200 baud (divisor 1), 8 data bits, FIFO on, loopback on.
    for (register, value) in [(1, 0), (3, 0x80), (0, 1), (1, 0), (3, 0x03), (2, 0x07), (4, 0x1E)] {
        s.mov(dx, print::COM1 + register)?;
        s.mov(al, value)?;
        s.out(dx, al)?;
    }
    Ok(())
}

fn hello(s: &mut Stage) -> Emit {
    // In loopback what is sent comes back: is there a UART at all? Wait for it, but not for ever.
    let received = s.label("received");
    s.mov(dx, print::COM1)?;
    s.mov(al, 0x5A)?;
    s.out(dx, al)?;
    s.mov(ecx, 1_000_000)?;
    s.mov(dx, print::COM1 + print::LSR)?;
    s.anonymous_label()?;
    s.in_(al, dx)?;
    s.test(al, 1)?; // DR: a byte has come
    s.jne(received)?;
    s.dec(ecx)?;
    let again = s.bwd()?;
    s.jne(again)?;
    s.here("received")?;
    s.mov(dx, print::COM1)?;
    s.in_(al, dx)?;
    s.mov(bh, al)?;
    s.mov(dx, print::COM1 + 4)?; // MCR: loopback off, DTR, RTS and OUT2 on
    s.mov(al, 0x0B)?;
    s.out(dx, al)?;

    // CALL pushes IP: the only way to read it in this mode.
    let next = s.label("next");
    s.call(next)?;
    s.here("next")?;
    s.pop(si)?;
    let expected = s.addr("next") as u32;
    s.say("[real]  hello from ")?;
    s.mov(ax, cs)?;
    s.say_hex(4)?;
    s.say(":")?;
    s.mov(ax, si)?;
    s.say_hex(4)?;
    s.say(" in 16-bit real mode: CR0.PE = ")?;
    s.mov(eax, cr0)?;
    s.and(eax, 1)?;
    s.say_decimal()?;
    s.say("\n")?;
    s.test(eax, eax)?;
    s.check(E, "CR0.PE is set after reset")?;
    s.cmp(si, expected as i32)?;
    s.check(E, "CALL pushed a wrong IP")?;
    s.mov(ax, cs)?;
    s.cmp(ax, 0xF000)?;
    s.check(E, "CS is not F000")?;
    s.cmp(bh, 0x5A)?;
    s.check(E, "the UART did not return a byte in loopback")?;
    s.say("[real]  the UART at 0x3F8 returned the byte 0x")?;
    s.movzx(eax, bh)?;
    s.say_hex(2)?;
    s.say(" in loopback\n")
}

fn a20(s: &mut Stage) -> Emit {
    // An 8086 wraps FFFF:0010 to 0000:0000, and a PC can still do so by holding address line A20
    // at 0. System control port A sets it free with bit 1 (bit 0 would reset the CPU).
    s.in_(al, 0x92)?;
    s.or(al, 2)?;
    s.and(al, 0xFE)?;
    s.out(0x92, al)?;
    s.mov(ax, 0xFFFF)?;
    s.mov(es, ax)?;
    s.mov(byte_ptr(0x500).fs(), 0x11)?;
    s.mov(byte_ptr(0x510).es(), 0x22)?;
    s.cmp(byte_ptr(0x500).fs(), 0x11)?;
    s.check(E, "A20 is off: FFFF:0510 is the same byte as 0000:0500")?;
    s.cmp(byte_ptr(0x510).es(), 0x22)?;
    s.check(E, "no RAM at 1 MiB")?;
    s.say("[real]  A20 is on: 0000:0500 and FFFF:0510 are two bytes, 1 MiB apart\n")
}

fn software_interrupt(s: &mut Stage) -> Emit {
    // The interrupt vector table: at 4 times the vector lie IP and CS of the handler
    // (SDM vol. 3B, 21.1.4).
    let handler = s.addr("service") as u32;
    s.mov(word_ptr(SERVICE * 4).fs(), handler)?;
    s.mov(word_ptr(SERVICE * 4 + 2).fs(), cs)?;
    // INT clears IF and pushes the old FLAGS, IRET brings them back. The PICs are masked: STI
    // lets nothing else in.
    s.xor(ebx, ebx)?;
    s.sti()?;
    s.mov(cx, CALLS)?;
    s.anonymous_label()?;
    s.int(SERVICE)?;
    s.dec(cx)?;
    let again = s.bwd()?;
    s.jne(again)?;
    s.pushf()?;
    s.cli()?;
    s.pop(ax)?;
    s.mov(dx, ax)?;
    s.cmp(bx, CALLS as i32)?;
    s.check(E, "INT through the IVT: wrong count, or IF was set in the handler")?;
    s.test(dh, 2)?;
    s.check(NE, "IRET did not bring IF back")?;
    s.say("[real]  INT 0x60 through the IVT: ")?;
    s.mov(eax, ebx)?;
    s.say_decimal()?;
    s.say(" calls counted with IF = 0; IRET set IF again\n")?;
    let behind = s.label("behind_service");
    s.jmp(behind)?;

    s.here("service")?;
    let masked = s.label("service_masked");
    let done = s.label("service_done");
    s.push(ax)?;
    s.pushf()?;
    s.pop(ax)?;
    s.test(ah, 2)?; // IF is bit 9
    s.je(masked)?;
    s.jmp(done)?;
    s.here("service_masked")?;
    s.inc(bx)?;
    s.here("service_done")?;
    s.pop(ax)?;
    s.iret()?;
    s.here("behind_service")
}

fn copy_to_ram(s: &mut Stage) -> Emit {
    // Is it ROM that we run from?
    s.mov(al, byte_ptr(0xFFFE))?;
    s.mov(ah, al)?;
    s.not(al)?;
    s.mov(byte_ptr(0xFFFE), al)?;
    s.cmp(byte_ptr(0xFFFE), ah)?;
    s.check(E, "a store changed the ROM")?;

    // 64 KiB is a whole segment: SI and DI run from 0 round to 0.
    s.mov(ax, IMAGE >> 4)?;
    s.mov(es, ax)?;
    s.xor(si, si)?;
    s.xor(di, di)?;
    s.mov(cx, ROM_SIZE as u32 / 4)?;
    s.rep().movsd()?;
    s.cmp(cx, 0)?;
    s.check(E, "REP MOVSD left CX above 0")?;

    let sum = s.label("sum");
    s.call(sum)?;
    s.mov(edx, ebx)?;
    s.push(ds)?;
    s.push(es)?;
    s.pop(ds)?;
    s.call(sum)?;
    s.pop(ds)?;
    s.cmp(edx, ebx)?;
    s.check(E, "the sum of the copy is not the sum of the ROM")?;
    s.say("[real]  a store to the ROM changed nothing; its copy in RAM has the same sum\n")?;
    // The same offset in another segment: the next instruction is the one in the copy.
    let copied = s.addr("copied") as u32;
    s.jmp_far((IMAGE >> 4) as u16, copied)?;

    // sum: EBX = sum of the dwords of segment DS.
    s.here("sum")?;
    s.xor(ebx, ebx)?;
    s.xor(si, si)?;
    s.mov(cx, ROM_SIZE as u32 / 4)?;
    s.anonymous_label()?;
    s.lodsd()?;
    s.add(ebx, eax)?;
    s.dec(cx)?;
    let again = s.bwd()?;
    s.jne(again)?;
    s.ret()?;

    s.here("copied")?;
    s.mov(ax, cs)?;
    s.mov(ds, ax)?;
    s.not(byte_ptr(0xFFFE))?;
    s.cmp(byte_ptr(0xFFFE), 0xFC)?;
    s.check(NE, "a store did not change the RAM")?;
    s.cmp(ax, (IMAGE >> 4) as i32)?;
    s.check(E, "CS is not that of the copy")?;
    s.say("[real]  running in the copy: CS = ")?;
    s.movzx(eax, ax)?;
    s.say_hex(4)?;
    s.say(", and a store changes it\n")
}

fn protected_mode(s: &mut Stage) -> Emit {
    // SDM vol. 3A, 10.9.1: load GDTR, set CR0.PE, and jump at once, so that CS is loaded from
    // the new table. The offset of the target needs 32 bits (a 66H prefix here).
    let target = s.addr_in("prot", "entry") as u32;
    s.lgdt(fword_ptr(GDTR32))?;
    s.mov(eax, cr0)?;
    s.or(al, 1)?;
    s.mov(cr0, eax)?;
    s.add_instruction(Instruction::with_far_branch(Code::Jmp_ptr1632, KERNEL_CODE32, target)?)
}
