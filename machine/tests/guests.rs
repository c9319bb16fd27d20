//! Guests that misbehave: whatever they do, the run ends with an outcome, never with a panic.
//!
//! The programs are machine code for flat 32-bit protected mode, entered by PVH without an IDT, so
//! that any exception is a triple fault; or real-mode code in a ROM.

mod engines;
mod pvh;

use machine::{Boot, Buffer, ClockKind, DebugExit, Engine, Machine, MachineConfig, Outcome, Value};
use pvh::pvh;
use std::io::{self, Write};
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

/// A ROM of 64 KiB that runs `code` in real mode with CS and DS at its start.
fn rom(code: &[u8]) -> Boot {
    let mut rom = vec![0; 0x1_0000];
    // mov ax, 0f000h; mov ds, ax
    rom[..5].copy_from_slice(&[0xb8, 0x00, 0xf0, 0x8e, 0xd8]);
    rom[5..5 + code.len()].copy_from_slice(code);
    // jmp near to offset 0
    rom[0xfff0..0xfff3].copy_from_slice(&[0xe9, 0x0d, 0x00]);
    Boot::Rom(rom)
}

fn config(boot: Boot, clock: ClockKind) -> MachineConfig {
    let debug_exit = Some(DebugExit::default());
    MachineConfig { memory: 16 << 20, clock, debug_exit, ..MachineConfig::new(boot) }
}

fn machine(boot: Boot, clock: ClockKind) -> Machine {
    Machine::new(config(boot, clock)).unwrap()
}

#[track_caller]
fn outcome(boot: Boot) -> Outcome {
    machine(boot, ClockKind::Icount).run(Some(60 * SECOND)).unwrap()
}

/// `code` with the four bytes `44 33 22 11` in it replaced by `value`.
fn with(code: &[u8], value: u32) -> Vec<u8> {
    let at = code.windows(4).position(|w| w == [0x44, 0x33, 0x22, 0x11]).unwrap();
    let mut code = code.to_vec();
    code[at..at + 4].copy_from_slice(&value.to_le_bytes());
    code
}

/// Unmapped, device and last addresses; all but RAM and ROM.
const NOWHERE: [u32; 7] =
    [0xd000_0000, 0xa_0000, 0xffff_fff0, 0xffff_ffff, 0xfee0_0000, 0xfec0_0000, 0xfed0_0000];

#[test]
fn jumps_to_nowhere_end_in_a_triple_fault() {
    // mov eax, 11223344h; jmp eax
    let code = [0xb8, 0x44, 0x33, 0x22, 0x11, 0xff, 0xe0];
    for target in NOWHERE {
        let end = outcome(pvh(&with(&code, target)));
        let Outcome::Shutdown(report) = end else { panic!("{target:#x}: {end:?}") };
        assert!(report.contains("RIP") && report.contains("last block"), "{report}");
    }
}

#[test]
fn stack_overflow_ends_in_a_triple_fault() {
    #[rustfmt::skip]
    let code = [
        0xc6, 0x05, 0, 0, 0x20, 0, 0x83, // mov byte [200000h], 83h: 4 MiB mapped to themselves
        0xb8, 0, 0, 0x20, 0,             // mov eax, 200000h
        0x0f, 0x22, 0xd8,                // mov cr3, eax
        0xb8, 0x10, 0, 0, 0,             // mov eax, 10h: PSE
        0x0f, 0x22, 0xe0,                // mov cr4, eax
        0xb8, 0x11, 0, 0, 0x80,          // mov eax, 80000011h: PG
        0x0f, 0x22, 0xc0,                // mov cr0, eax
        0xe8, 0xfb, 0xff, 0xff, 0xff,    // call to itself
    ];
    let end = outcome(pvh(&code));
    let Outcome::Shutdown(report) = end else { panic!("{end:?}") };
    // The first push that failed: the stack wrapped around to an unmapped page.
    assert!(report.contains("CR2 00000000fffffffc"), "{report}");
}

#[test]
fn what_nobody_answers_reads_ones_and_ignores_writes() {
    #[rustfmt::skip]
    let code = [
        0xa1, 0x01, 0, 0, 0xd0,          // mov eax, [d0000001h]
        0x89, 0xc3,                      // mov ebx, eax
        0x66, 0xba, 0xf1, 0x01,          // mov dx, 1f1h
        0xed,                            // in eax, dx
        0x21, 0xc3,                      // and ebx, eax
        0xc6, 0x05, 0, 0, 0, 0xd0, 0,    // mov byte [d0000000h], 0
        0x23, 0x1d, 0, 0, 0, 0xd0,       // and ebx, [d0000000h]
        0x23, 0x1d, 0, 0, 0xa, 0,        // and ebx, [a0000h]
        0xf7, 0xd3,                      // not ebx
        0x89, 0xd8,                      // mov eax, ebx
        0xe7, 0xf4,                      // out 0f4h, eax
    ];
    assert_eq!(outcome(pvh(&code)), Outcome::DebugExit(1));
}

#[test]
fn a_rom_cannot_be_written() {
    #[rustfmt::skip]
    let code = [
        0x8a, 0x1e, 0xf0, 0xff,          // mov bl, [fff0h]
        0xf6, 0x16, 0xf0, 0xff,          // not byte [fff0h]
        0xff, 0x06, 0xf0, 0xff,          // inc word [fff0h]
        0x2a, 0x1e, 0xf0, 0xff,          // sub bl, [fff0h]
        0x88, 0xd8,                      // mov al, bl
        0xe6, 0xf4,                      // out 0f4h, al
    ];
    assert_eq!(outcome(rom(&code)), Outcome::DebugExit(1));
}

/// Every size at every address of each device, in it and across its end.
#[test]
fn accesses_of_any_size_and_alignment() {
    #[rustfmt::skip]
    let code = [
        0x0f, 0x20, 0xe0,                // mov eax, cr4
        0x0d, 0x00, 0x06, 0, 0,          // or eax, 600h: OSFXSR, OSXMMEXCPT
        0x0f, 0x22, 0xe0,                // mov cr4, eax
        0xbe, 0x44, 0x33, 0x22, 0x11,    // mov esi, 11223344h
        0xb9, 0x00, 0x11, 0, 0,          // mov ecx, 1100h
        0x8a, 0x06, 0x88, 0x06,          // mov al, [esi]; mov [esi], al
        0x66, 0x8b, 0x06,                // mov ax, [esi]
        0x66, 0x89, 0x06,                // mov [esi], ax
        0x8b, 0x06, 0x89, 0x06,          // mov eax, [esi]; mov [esi], eax
        0x0f, 0x6f, 0x06,                // movq mm0, [esi]
        0x0f, 0x7f, 0x06,                // movq [esi], mm0
        0x0f, 0x10, 0x06,                // movups xmm0, [esi]
        0x0f, 0x11, 0x06,                // movups [esi], xmm0
        0xf0, 0xff, 0x06,                // lock inc dword [esi]
        0x46,                            // inc esi
        0xe2, 0xe0,                      // loop
        0xb0, 0x00, 0xe6, 0xf4,          // mov al, 0; out 0f4h, al
    ];
    for start in NOWHERE.map(|at| at & !0xfff).into_iter().chain([0x100_0000 - 8]) {
        let end = outcome(pvh(&with(&code, start)));
        assert_eq!(end, Outcome::DebugExit(1), "{start:#x}");
    }
}

#[test]
fn all_ports_are_read_in_all_sizes() {
    #[rustfmt::skip]
    let code = [
        0x31, 0xd2,                      // xor edx, edx
        0xec, 0x66, 0xed, 0xed,          // in al, dx; in ax, dx; in eax, dx
        0x66, 0x42,                      // inc dx
        0x75, 0xf8,                      // jnz
        0xb0, 0x00, 0xe6, 0xf4,          // mov al, 0; out 0f4h, al
    ];
    assert_eq!(outcome(pvh(&code)), Outcome::DebugExit(1));
}

#[test]
fn all_pci_functions_are_probed() {
    #[rustfmt::skip]
    let code = [
        0xbb, 0, 0, 0, 0x80,             // mov ebx, 80000000h
        0xba, 0xf8, 0x0c, 0, 0,          // mov edx, 0cf8h
        0x89, 0xd8, 0xef,                // mov eax, ebx; out dx, eax
        0xb2, 0xfc,                      // mov dl, 0fch
        0xed, 0x66, 0xed, 0xec,          // in eax, dx; in ax, dx; in al, dx
        0xef, 0xee,                      // out dx, eax; out dx, al
        0x42,                            // inc edx
        0xf6, 0xc2, 0x03, 0x75, 0xf4,    // test dl, 3; jnz
        0x81, 0xc3, 0x00, 0x01, 0, 0,    // add ebx, 100h
        0x81, 0xfb, 0, 0, 0, 0x81,       // cmp ebx, 81000000h
        0x72, 0xdc,                      // jb
        0xb0, 0x00, 0xe6, 0xf4,          // mov al, 0; out 0f4h, al
    ];
    assert_eq!(outcome(pvh(&code)), Outcome::DebugExit(1));
}

/// HLT with interrupts off: nothing but the host can end it, and it keeps no host busy.
#[test]
fn a_dead_halt_sleeps() {
    // With the 8254 ticking, 11932 clocks a period: mov al, 34h; out 43h, al; …; cli; hlt; jmp.
    let code = [
        0xb0, 0x34, 0xe6, 0x43, 0xb0, 0x9c, 0xe6, 0x40, 0xb0, 0x2e, 0xe6, 0x40, 0xfa, 0xf4, 0xeb,
        0xfd,
    ];
    for clock in [ClockKind::Host, ClockKind::Icount] {
        let mut machine = machine(rom(&code), clock);
        assert_eq!(machine.run(Some(SECOND / 2)).unwrap(), Outcome::Timeout);
        let busy = machine.stats().into_iter().find(|s| s.name == "busy_seconds").unwrap().value;
        assert!(matches!(busy, Value::Ratio(s) if s < 0.25), "{clock:?}: {busy} s");
        let (control, start) = (machine.control(), Instant::now());
        let stopper = std::thread::spawn(move || {
            std::thread::sleep(SECOND / 10);
            control.stop();
        });
        assert_eq!(machine.run(Some(60 * SECOND)).unwrap(), Outcome::Stopped);
        assert!(start.elapsed() < 30 * SECOND);
        stopper.join().unwrap();
    }
}

#[test]
fn endless_loops_are_stopped() {
    // jmp to itself; and a string instruction that never gets anywhere: cli; rep stosb; jmp.
    for code in [&[0xeb, 0xfe][..], &[0xfa, 0x66, 0xb9, 0, 0, 0, 0, 0xf3, 0xaa, 0xeb, 0xf6]] {
        for clock in [ClockKind::Host, ClockKind::Icount] {
            let mut machine = machine(rom(code), clock);
            assert_eq!(machine.run(Some(SECOND / 5)).unwrap(), Outcome::Timeout);
        }
    }
}

/// Random bytes as a ROM and as a kernel; a reset starts them over. Both engines do the same.
#[test]
fn random_code_never_panics() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let (mut ends, mut blocks) = ([0; 2], 0);
    for seed in 0..60 {
        let bytes: Vec<u8> = (0..0x2000).flat_map(|_| next().to_le_bytes()).collect();
        let boot = if seed % 2 == 0 { Boot::Rom(bytes) } else { pvh(&bytes) };
        for generator in engines::generators() {
            let boot = boot.clone();
            let start = move || {
                let engine = Engine::Interp;
                Machine::new(MachineConfig { engine, ..config(boot.clone(), ClockKind::Icount) })
                    .unwrap()
            };
            let (end, both) = engines::in_step(start, generator, 1, SECOND / 10, 400);
            let b = &both.machines()[1];
            ends[usize::from(end.is_none())] += 1;
            blocks += b.vcpu().cache.translator().unwrap().stats().blocks;
        }
    }
    assert!(blocks > 20, "{blocks}");
    assert!(ends.iter().all(|&n| n > 0), "some end and some run on: {ends:?}");
}

/// Reads COM1 until a zero byte: mov dx, 3fdh; in al, dx; test al, 1; jz; mov dx, 3f8h; in al, dx;
/// out dx, al; test al, al; jnz; out 0f4h, al.
const ECHO: [u8; 19] = [
    0xba, 0xfd, 3, 0xec, 0xa8, 1, 0x74, 0xf8, 0xba, 0xf8, 3, 0xec, 0xee, 0x84, 0xc0, 0x75, 0xef,
    0xe6, 0xf4,
];

#[test]
fn input_from_a_file_comes_at_the_same_instruction_every_time() {
    let text: Vec<u8> = (0..20_000).map(|n| n as u8 | 1).chain([0]).collect();
    let [a, b] = [(), ()].map(|()| {
        let (mut machine, serial) = (machine(rom(&ECHO), ClockKind::Icount), Buffer::default());
        machine.connect_serial(0, Box::new(serial.clone()));
        machine.connect_input(0, Box::new(io::Cursor::new(text.clone())));
        assert_eq!(machine.run(Some(60 * SECOND)).unwrap(), Outcome::DebugExit(1));
        (serial.bytes(), machine.vcpu().cpu.icount())
    });
    assert!(a.0 == text, "{} of {} bytes", a.0.len(), text.len());
    assert_eq!(a.1, b.1);
}

struct Full;

impl Write for Full {
    fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::StorageFull.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_trace_that_cannot_be_written_ends_the_run() {
    use emu_core::vcpu::Trace;
    for what in [Trace::IO, Trace::INSN, Trace::BLOCK] {
        // out 80h, al; jmp
        let mut machine = machine(rom(&[0xe6, 0x80, 0xeb, 0xfc]), ClockKind::Host);
        machine.trace(what, Box::new(Full));
        let error = machine.run(Some(60 * SECOND)).unwrap_err().to_string();
        assert!(error.starts_with("cannot write the trace: "), "{error}");
    }
}
