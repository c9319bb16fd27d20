//! CPUs from before the kernels of today: what a program sees on `--cpu i486` and `pentium`, in a
//! whole machine, from the reset vector on.
//!
//! The ROM goes from real mode to 32-bit protected mode. There it asks for what its CPU has, by
//! CPUID and by trying, and takes timer interrupts from the 8259A, which the i486 has no local APIC
//! to route through. It writes a letter for each finding to the debug console.

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use machine::{Boot, Buffer, ClockKind, DebugExit, Machine, MachineConfig, Outcome};
use std::time::Duration;

/// Where the ROM is seen below 1 MiB, and its size.
const ROM: u32 = 0xf_0000;
const SIZE: usize = 0x1_0000;
/// Offset of the 32-bit code in the ROM.
const CODE32: u32 = 0x100;
/// Descriptor tables in the ROM: offsets of GDT and IDT, and of the words for LGDT and LIDT.
const GDT: u32 = 0x8000;
const IDT: u32 = 0x8100;
const GDTR: u32 = 0x8080;
const IDTR: u32 = 0x8088;
/// Vector of interrupt request 0.
const TIMER: usize = 0x20;

/// To protected mode; at `CODE32`.
fn real() -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(16)?;
    a.cli()?;
    a.lgdt(fword_ptr(GDTR).cs())?;
    a.lidt(fword_ptr(IDTR).cs())?;
    a.mov(eax, cr0)?;
    a.or(al, 1)?;
    a.mov(cr0, eax)?;
    let mut bytes = a.assemble(0)?;
    // jmp far 8:ROM + CODE32, with a 32-bit offset
    bytes.extend([0x66, 0xea]);
    bytes.extend((ROM + CODE32).to_le_bytes());
    bytes.extend([8, 0]);
    Ok(bytes)
}

/// The program. EBP counts interrupts; #UD and #GP skip what raised them, by the address in ESI,
/// and set EDI.
fn protected() -> Result<(Vec<u8>, [u32; 3]), IcedError> {
    let mut a = CodeAssembler::new(32)?;
    let say = |a: &mut CodeAssembler, letter: char| {
        a.mov(al, letter as u32)?;
        a.out(0xe9u32, al)
    };
    a.mov(ax, 0x10u32)?;
    a.mov(ds, ax)?;
    a.mov(ss, ax)?;
    a.mov(esp, 0x8000u32)?;

    // RFLAGS.ID can be changed: there is CPUID.
    a.pushfd()?;
    a.pop(eax)?;
    a.mov(ecx, eax)?;
    a.xor(eax, 1 << 21)?;
    a.push(eax)?;
    a.popfd()?;
    a.pushfd()?;
    a.pop(eax)?;
    a.xor(eax, ecx)?;
    let mut no_id = a.create_label();
    a.test(eax, 1 << 21)?;
    a.jz(no_id)?;
    say(&mut a, 'I')?;
    a.set_label(&mut no_id)?;

    // The family.
    a.mov(eax, 1u32)?;
    a.cpuid()?;
    a.mov(al, ah)?;
    a.and(al, 0xf)?;
    a.add(al, '0' as i32)?;
    a.out(0xe9u32, al)?;

    // What can be tried: a letter for each that raises nothing.
    let tries: [(char, &[u8]); 8] = [
        ('x', &[0x0f, 0xc1, 0xc0]),       // xadd eax, eax
        ('t', &[0x0f, 0x31]),             // rdtsc
        ('8', &[0x0f, 0xc7, 0x0c, 0x24]), // cmpxchg8b [esp]
        ('4', &[0x0f, 0x20, 0xe0]),       // mov eax, cr4
        ('m', &[0x0f, 0x77]),             // emms
        ('c', &[0x0f, 0x40, 0xc0]),       // cmovo eax, eax
        ('n', &[0x0f, 0x1f, 0xc0]),       // nop eax
        ('b', &[0x0f, 0x32]),             // rdmsr of IA32_APIC_BASE
    ];
    for (letter, bytes) in tries {
        let (mut here, mut failed) = (a.create_label(), a.create_label());
        a.xor(edi, edi)?;
        a.mov(ecx, 0x1bu32)?;
        a.call(here)?;
        a.set_label(&mut here)?;
        a.pop(esi)?;
        // Behind POP and ADD, of 1 and 3 bytes, and what is tried.
        a.add(esi, 4 + bytes.len() as i32)?;
        a.db(bytes)?;
        a.test(edi, edi)?;
        a.jnz(failed)?;
        say(&mut a, letter)?;
        a.set_label(&mut failed)?;
    }

    // 8259A: vectors from 20H on, request 0 only. 8254: channel 0, rate generator.
    for (port, value) in [(0x20, 0x11), (0x21, TIMER as u32), (0x21, 4), (0x21, 1), (0x21, 0xfe)] {
        a.mov(al, value)?;
        a.out(port, al)?;
    }
    for (port, value) in [(0x43u32, 0x34u32), (0x40, 0x00), (0x40, 0x10)] {
        a.mov(al, value)?;
        a.out(port, al)?;
    }
    a.xor(ebp, ebp)?;
    let mut wait = a.create_label();
    a.set_label(&mut wait)?;
    a.sti()?;
    a.hlt()?;
    a.cmp(ebp, 3)?;
    a.jb(wait)?;
    say(&mut a, '!')?;
    a.mov(al, 0u32)?;
    a.out(0xf4u32, al)?;
    a.hlt()?;

    // #UD: on with ESI.
    let (mut ud, mut gp, mut timer) = (a.create_label(), a.create_label(), a.create_label());
    a.set_label(&mut ud)?;
    a.mov(dword_ptr(esp), esi)?;
    a.inc(edi)?;
    a.iretd()?;
    // #GP: the same behind its error code.
    a.set_label(&mut gp)?;
    a.add(esp, 4)?;
    a.jmp(ud)?;
    a.set_label(&mut timer)?;
    a.inc(ebp)?;
    a.mov(al, 0x20u32)?;
    a.out(0x20u32, al)?;
    a.iretd()?;
    let options = iced_x86::BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS;
    let done = a.assemble_options((ROM + CODE32).into(), options)?;
    let at = |l| done.label_ip(l).map(|ip| ip as u32);
    let handlers = [at(&ud)?, at(&gp)?, at(&timer)?];
    Ok((done.inner.code_buffer, handlers))
}

fn rom() -> Vec<u8> {
    let (code, [ud, gp, timer]) = protected().unwrap();
    let real = real().unwrap();
    let mut rom = vec![0; SIZE];
    let mut put = |at: u32, bytes: &[u8]| {
        rom[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
    };
    put(0, &real);
    put(CODE32, &code);
    // Flat code and data.
    let gdt = [0u64, 0x00cf_9b00_0000_ffff, 0x00cf_9300_0000_ffff];
    put(GDT, &gdt.map(u64::to_le_bytes).concat());
    for (vector, handler) in [(6, ud), (13, gp), (TIMER as u32, timer)] {
        let handler = u64::from(handler);
        let gate = handler & 0xffff | 8 << 16 | 0x8e00 << 32 | (handler >> 16) << 48;
        put(IDT + 8 * vector, &gate.to_le_bytes());
    }
    for (at, table, limit) in [(GDTR, GDT, 23u16), (IDTR, IDT, 0x7ff)] {
        put(at, &[&limit.to_le_bytes()[..], &(ROM + table).to_le_bytes()].concat());
    }
    // jmp near to offset 0
    put(0xfff0, &[0xe9, 0x0d, 0x00]);
    rom
}

fn findings(cpu: &str) -> String {
    let config = MachineConfig {
        cpu: cpu.parse().unwrap(),
        memory: 16 << 20,
        clock: ClockKind::Icount,
        debug_exit: Some(DebugExit::default()),
        ..MachineConfig::new(Boot::Rom(rom()))
    };
    let mut machine = Machine::new(config).unwrap();
    let out = Buffer::default();
    machine.connect_debugcon(Box::new(out.clone()));
    let outcome = machine.run(Some(Duration::from_secs(60))).unwrap();
    assert_eq!(outcome, Outcome::DebugExit(1), "{cpu}: {}", out.text());
    out.text()
}

#[test]
fn a_program_finds_what_its_cpu_has() {
    assert_eq!(findings("i486"), "I4x!");
    assert_eq!(findings("pentium"), "I5xt84m!");
    assert_eq!(findings("pentium3"), "I6xt84mcnb!");
    assert_eq!(findings("x86-64-v3"), "I6xt84mcnb!");
    assert_eq!(findings("x86-64-v3,-cmov,-apic,-tsc"), "I6x84mn!");
}
