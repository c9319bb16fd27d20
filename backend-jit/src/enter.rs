//! The border between Rust and host code: the way in, and the functions that host code calls back.
//!
//! Host code has `rbp` = [`BIAS`] bytes into [`Cpu`], the guest's registers of [`PINNED`] and RIP
//! in host registers, all others in [`Cpu::regs`]; `rsp` is a multiple of 16 and points at the
//! return into [`trampoline`], which takes the exit word in `rax`. If bit 0 of
//! [`Native::live`] is set, the guest's YMM0–13 and MXCSR are in the host's, and stale in [`Cpu`].
//!
//! Unsafe code here: the trampoline, its call, and the pointer that host code hands back.
#![allow(unsafe_code)]

use core::mem::offset_of;
use emu_core::cpu::{Cpu, mode};
use emu_core::flags::{AF, CF, Flags, OF, PF, SF, ZF};
use emu_core::interp::{Leave, handlers::slow};
use emu_core::native::Native;
use emu_core::width::Width;

/// Where `rbp` points in [`Cpu`]: all of its registers are within a signed byte of it.
pub const BIAS: usize = offset_of!(Cpu, regs) + 128;

/// Host registers of the guest's RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9.
pub const PINNED: [u8; 10] = [3, 6, 7, 8, 9, 10, 11, 12, 13, 14];

/// Host register of the guest's RIP.
pub const RIP: u8 = 15;

/// Bits that MXCSR has on every host: loading others would fault.
const MXCSR_MASK: u32 = 0xffff;

/// The masks among them.
const MXCSR_MASKS: u32 = 0x1f80;

/// Flags in the host's form: AH as LAHF gives it, AL = OF.
pub fn pack(f: Flags) -> u64 {
    let bits = u64::from(f.bits());
    (bits & u64::from(CF | PF | AF | ZF | SF) | 2) << 8 | u64::from(bits & u64::from(OF) != 0)
}

/// Flags from the host's form.
pub fn unpack(v: u64) -> Flags {
    Flags::from_bits((v >> 8) as u32 & (CF | PF | AF | ZF | SF) | (v as u32 & 1) * OF)
}

/// Enters host code; see [`emu_core::native::Enter`]. `entry` must come from this crate's
/// translator and still be valid: host code is trusted as the compiler's is.
pub fn enter(cpu: &mut Cpu, entry: u64) -> u64 {
    cpu.native.flags = pack(cpu.flags);
    cpu.native.ram = cpu.mem.ram.address();
    cpu.native.tlb = cpu.tlb.table_address();
    cpu.native.left = 0;
    cpu.mxcsr &= MXCSR_MASK;
    let masked = cpu.mxcsr & MXCSR_MASKS == MXCSR_MASKS;
    assert!(
        masked || cpu.mode & mode::XM != 0,
        "code for masked exceptions, MXCSR {:#x}",
        cpu.mxcsr
    );
    // SAFETY: `entry` is code of this crate's generator, which keeps to the module's conventions
    // and touches nothing but this CPU, its TLB, and RAM within the pages that the TLB holds.
    let word = unsafe { trampoline(cpu, entry) };
    cpu.flags = unpack(cpu.native.flags);
    word
}

/// Loads the pinned registers, calls host code at `entry`, and stores them again.
#[unsafe(naked)]
unsafe extern "sysv64" fn trampoline(cpu: *mut Cpu, entry: u64) -> u64 {
    core::arch::naked_asm!(
        "push rbx",
        "push rbp",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "lea rbp, [rdi + {bias}]",
        "mov rax, rsi",
        "mov rbx, [rbp - 128]",
        "mov rsi, [rbp - 120]",
        "mov rdi, [rbp - 112]",
        "mov r8, [rbp - 104]",
        "mov r9, [rbp - 96]",
        "mov r10, [rbp - 88]",
        "mov r11, [rbp - 80]",
        "mov r12, [rbp - 72]",
        "mov r13, [rbp - 64]",
        "mov r14, [rbp - 56]",
        "mov r15, [rbp + 112]",
        "call rax",
        "test byte ptr [rbp + {live}], 1",
        "jz 2f",
        "stmxcsr [rbp + {mxcsr}]",
        "mov dword ptr [rsp - 8], 0x1f80",
        "ldmxcsr [rsp - 8]",
        "vmovdqu [rbp + {v}], ymm0",
        "vmovdqu [rbp + {v} + 32], ymm1",
        "vmovdqu [rbp + {v} + 64], ymm2",
        "vmovdqu [rbp + {v} + 96], ymm3",
        "vmovdqu [rbp + {v} + 128], ymm4",
        "vmovdqu [rbp + {v} + 160], ymm5",
        "vmovdqu [rbp + {v} + 192], ymm6",
        "vmovdqu [rbp + {v} + 224], ymm7",
        "vmovdqu [rbp + {v} + 256], ymm8",
        "vmovdqu [rbp + {v} + 288], ymm9",
        "vmovdqu [rbp + {v} + 320], ymm10",
        "vmovdqu [rbp + {v} + 352], ymm11",
        "vmovdqu [rbp + {v} + 384], ymm12",
        "vmovdqu [rbp + {v} + 416], ymm13",
        "vzeroupper",
        "2:",
        "mov qword ptr [rbp + {live}], 0",
        "mov [rbp - 128], rbx",
        "mov [rbp - 120], rsi",
        "mov [rbp - 112], rdi",
        "mov [rbp - 104], r8",
        "mov [rbp - 96], r9",
        "mov [rbp - 88], r10",
        "mov [rbp - 80], r11",
        "mov [rbp - 72], r12",
        "mov [rbp - 64], r13",
        "mov [rbp - 56], r14",
        "mov [rbp + 112], r15",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbp",
        "pop rbx",
        "ret",
        bias = const BIAS,
        live = const (offset_of!(Cpu, native) + offset_of!(Native, live)) as isize - BIAS as isize,
        v = const offset_of!(Cpu, v) as isize - BIAS as isize,
        mxcsr = const offset_of!(Cpu, mxcsr) as isize - BIAS as isize,
    )
}

/// What a slow access hands over in a word: bits 1:0 the width, bit 4 the stack's mark; the others
/// are for the routine.
fn access(packed: u64) -> (Width, bool) {
    (Width::from_index(packed as u8), packed & 0x10 != 0)
}

fn leave<T: Default>(cpu: &mut Cpu, r: Result<T, Leave>) -> T {
    r.unwrap_or_else(|why| {
        cpu.native.left = why as u64;
        T::default()
    })
}

/// A load that misses.
pub extern "sysv64" fn load(cpu: &mut Cpu, va: u64, packed: u64) -> u64 {
    let (w, stack) = access(packed);
    let r = slow::load(cpu, va, w, stack);
    leave(cpu, r)
}

/// The load of a read-modify-write that misses.
pub extern "sysv64" fn load_rmw(cpu: &mut Cpu, va: u64, packed: u64) -> u64 {
    let (w, stack) = access(packed);
    let r = slow::load_rmw(cpu, va, w, stack);
    leave(cpu, r)
}

/// A store that misses.
pub extern "sysv64" fn store(cpu: &mut Cpu, va: u64, packed: u64, v: u64) {
    let (w, stack) = access(packed);
    let r = slow::store(cpu, va, w, v, stack);
    leave(cpu, r);
}

/// The micro-op `n` of [`Cpu::rare`], from its canonical form. The pinned registers are in [`Cpu`].
pub extern "sysv64" fn run(cpu: &mut Cpu, n: u64) {
    cpu.flags = unpack(cpu.native.flags);
    let u = cpu.rare[n as usize];
    let r = slow::run(cpu, &u);
    cpu.mxcsr &= MXCSR_MASK;
    cpu.native.flags = pack(cpu.flags);
    cpu.native.tlb = cpu.tlb.table_address();
    leave(cpu, r);
}
