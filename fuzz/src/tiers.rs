//! Random code on both engines: after every slice the CPUs are the same, at the end the memories
//! too.
//!
//! An exception leads to a handler that gives stack and pointers a good value again and goes on at
//! the next piece of the code, by an IRET at CPL 3 where that is where it began; so one bad
//! instruction does not end it all, and pieces run again and again.

use super::machine::{CODE, HANDLER, RAM, STACK, machine};
use backend_jit::x64::X64;
use emu_core::compare::{differences, pages, same};
use emu_core::cpu::{Cpu, Seg};
use emu_core::vcpu::{Stop, Vcpu};
use emu_core::width::Width::W8;
use frontend_x86::model::CpuModel;
use frontend_x86::sys::{self, cr4};

/// Bytes of a piece of code, and pieces.
pub const PIECE: usize = 128;
/// Pieces.
pub const PIECES: usize = 32;
/// Where the handler counts; 16 bits reach it.
const COUNTER: u32 = 0x600;
/// Where data is.
const DATA: u32 = 0x3_0000;
/// Instructions in all.
const INSNS: u64 = 6000;

/// What came before the code.
struct Start {
    /// Code size, and whether it runs at CPL 3.
    kind: u8,
    flags: u8,
    /// The run from which on blocks are translated, and the size of the code buffer.
    engine: u8,
    /// Instructions in a slice.
    slice: i64,
    regs: [u8; 16],
    /// Where pointers lead: a byte each.
    pointers: [u8; 4],
}

/// An address for a pointer: anywhere in two pages of data and a bit beyond, or in the code.
fn pointer(b: u8) -> u32 {
    match b {
        0..0xc0 => DATA + 48 * u32::from(b) - 16,
        0xc0..0xf0 => CODE as u32 + 64 * u32::from(b - 0xc0),
        _ => RAM as u32 - 8 + u32::from(b & 15),
    }
}

/// The handler of all exceptions.
fn handler(bits: u32, user: bool, pointers: [u8; 4]) -> Vec<u8> {
    let mut code = Vec::new();
    let mut put = |bytes: &[u8]| code.extend_from_slice(bytes);
    // mov of 32 bits to register `r`; operand-size prefix in 16-bit code.
    let wide: &[u8] = if bits == 16 { &[0x66] } else { &[] };
    let mut set = |r: u8, v: u32| put(&[wide, &[0xb8 + r], &v.to_le_bytes()].concat());
    for (r, p) in [3, 5, 6, 7].into_iter().zip(pointers) {
        set(r, pointer(p));
    }
    set(4, if bits == 16 { 0xf000 } else { STACK as u32 - 0x200 });
    if bits == 16 {
        let count = (COUNTER as u16).to_le_bytes();
        // xor ax, ax; mov ds, ax; mov es, ax; mov ss, ax; inc word [COUNTER]; mov ax, [COUNTER];
        // and ax, 31; shl ax, 7; add ax, CODE's offset; push CODE's segment; push ax; retf
        put(&[0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0]);
        put(&[0xff, 0x06, count[0], count[1], 0xa1, count[0], count[1]]);
        put(&[0x83, 0xe0, PIECES as u8 - 1, 0xc1, 0xe0, PIECE.trailing_zeros() as u8]);
        put(&[&[0x05][..], &(CODE as u16).to_le_bytes(), &[0x68, 0, 0x10, 0x50, 0xcb]].concat());
        return code;
    }
    // mov eax, 10h; mov ds, ax; mov es, ax; mov eax, COUNTER; inc dword [rax]; mov eax, [rax];
    // and eax, 31; shl eax, 7; add eax, CODE
    put(&[0xb8, 0x10, 0, 0, 0, 0x8e, 0xd8, 0x8e, 0xc0]);
    put(&[&[0xb8][..], &COUNTER.to_le_bytes(), &[0xff, 0x00, 0x8b, 0x00]].concat());
    put(&[0x83, 0xe0, PIECES as u8 - 1, 0xc1, 0xe0, PIECE.trailing_zeros() as u8]);
    put(&[&[0x05][..], &(CODE as u32).to_le_bytes()].concat());
    if !user {
        // jmp rax
        put(&[0xff, 0xe0]);
        return code;
    }
    // push 1bh; push a stack; push IF; push 23h; push rax; iret
    put(&[&[0x6a, 0x1b, 0x68][..], &(STACK as u32 - 0x8000).to_le_bytes()].concat());
    put(&[0x68, 2, 2, 0, 0, 0x6a, 0x23, 0x50]);
    put(if bits == 64 { &[0x48, 0xcf] } else { &[0xcf] });
    code
}

fn cpu(s: &Start, code: &[u8]) -> Cpu {
    let mut cpu = machine(s.kind);
    let bits = [16, 32, 64][usize::from(s.kind % 3)];
    let user = bits != 16 && s.kind / 3 & 1 != 0;
    CpuModel::default().apply(&mut cpu);
    cpu.sys.cr4 |= cr4::OSXSAVE | cr4::OSFXSR | cr4::OSXMMEXCPT;
    cpu.sys.xcr0 = 7;
    // Code below a limit is never translated.
    cpu.segs[Seg::Cs as usize].limit = u32::MAX;
    // Where nothing is, is INT3.
    cpu.mem.ram.stos(W8, 0x1000, 0x4_0000, 0xcc);
    cpu.mem.write_bytes(CODE, &code[..code.len().min(PIECE * PIECES)]);
    cpu.mem.write_bytes(HANDLER, &handler(bits, user, s.pointers));
    for (r, b) in cpu.regs.iter_mut().zip(s.regs) {
        // Small numbers, addresses in RAM and beyond it, and negative ones.
        *r = (b as i8 as i64 as u64) << (b % 20);
    }
    for (r, p) in [3, 5, 6, 7].into_iter().zip(s.pointers) {
        cpu.regs[r] = pointer(p).into();
    }
    for (n, w) in cpu.v.iter_mut().flatten().enumerate() {
        let b = u64::from(s.regs[n % 16]);
        *w = b.wrapping_mul(0x0123_4567_89ab_cdef << (n % 7)).rotate_left(n as u32);
    }
    cpu.regs[4] = if bits == 16 { 0xf000 } else { STACK - 0x100 };
    cpu.set_rflags(u64::from(s.flags & 0xcf) << 4 | 2);
    sys::mode::update(&mut cpu);
    cpu
}

/// Pages with code, and where in them it is: stores into it must be seen by both.
fn code_map(v: &Vcpu) -> Vec<(u64, u64)> {
    let pages = (0..RAM).step_by(4096).map(|at| (at, v.cpu.mem.code.page(at)));
    pages.filter(|page| page.1 != 0).collect()
}

/// Runs the code behind the first bytes of `data`; gives the blocks that were translated.
///
/// # Panics
/// When the engines differ.
pub fn tiers(data: &[u8]) -> u64 {
    let Some((&[kind, flags, engine, slice, a, b, c, d], rest)) = data.split_first_chunk() else {
        return 0;
    };
    let Some((&regs, code)) = rest.split_first_chunk() else { return 0 };
    let slice = 1 + i64::from(slice) * i64::from(slice) / 16;
    let s = Start { kind, flags, engine, slice, regs, pointers: [a, b, c, d] };
    let (mut one, mut two) = (Vcpu::new(cpu(&s, code)), Vcpu::new(cpu(&s, code)));
    let buffer = 1 << (15 + s.engine % 6);
    let translator = X64::new(buffer).expect("memory for code");
    two.set_translator(Box::new(translator), 1 + u16::from(s.engine >> 6));
    while one.cpu.icount() < INSNS {
        let stops = (one.run(s.slice), two.run(s.slice));
        assert!(
            stops.0 == stops.1 && same(&one.cpu, &two.cpu) && code_map(&one) == code_map(&two),
            "{stops:?} after {} instructions, kind {kind}\n{:x?}\n{:x?}\n{}{}{}",
            one.cpu.icount(),
            code_map(&one),
            code_map(&two),
            differences(&one.cpu, &two.cpu),
            one.last_block_text(),
            two.last_block_text()
        );
        match stops.0 {
            Stop::Budget => {}
            Stop::Halted => (one.cpu.halted, two.cpu.halted) = (false, false),
            Stop::Shutdown => break,
        }
    }
    let wrong = pages(&one.cpu.mem.ram, &two.cpu.mem.ram, 4);
    assert!(wrong.is_empty(), "memories differ at {wrong:x?}");
    two.cache.translator().map_or(0, |t| t.stats().blocks)
}

/// How to run [`run`]'s code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// No block is run twice: all is forgotten after each.
    Plainly,
    /// On the interpreter.
    Interpreted,
    /// Translated, from this run number of a block on.
    Translated(u16),
}

/// Runs 64-bit code at CPL 0, some thousand instructions at most; whether it halted.
pub fn run(code: &[u8], how: How) -> (Vcpu, bool) {
    let (regs, pointers) = ([0; 16], [0; 4]);
    let s = Start { kind: 2, flags: 0, engine: 0, slice: 0, regs, pointers };
    let mut v = Vcpu::new(cpu(&s, code));
    if let How::Translated(runs) = how {
        v.set_translator(Box::new(X64::new(1 << 20).expect("memory for code")), runs);
    }
    let slice = if how == How::Plainly { 1 } else { INSNS as i64 };
    let mut stop = Stop::Budget;
    while stop == Stop::Budget && v.cpu.icount() < INSNS {
        if how == How::Plainly {
            v.cache.clear(&mut v.cpu);
        }
        stop = v.run(slice);
    }
    (v, stop == Stop::Halted)
}
