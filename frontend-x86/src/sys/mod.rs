//! The system side of the CPU: everything an operating system sees that is not computation.
//!
//! Each file is one chapter of SDM Vol. 3. All of it is safe functions over [`Cpu`], with one
//! rule: **commit at the end**. A function that returns a fault has changed nothing that the
//! guest can see, but for accessed bits that any CPU may set early. So functions first read and
//! check, then set accessed bits, then write stack frames (all slots probed before the first is
//! written), and then assign registers, which cannot fail.
//!
//! [`helpers`] wraps these functions as micro-op helpers.

pub mod control;
pub mod cpuid;
pub mod debug;
pub mod helpers;
pub mod interrupt;
pub mod mode;
pub mod msr;
pub mod paging;
pub mod reset;
pub mod segment;
pub mod stack;
pub mod task;
pub mod transfer;
pub mod vme;
pub mod xsave;

#[cfg(test)]
pub(crate) mod testing;

pub use helpers::HELPERS;

use cpuid::Features;
use emu_core::cpu::{Cpu, mode as m};
use emu_core::fault::{Fault, Guest};
use emu_core::mem::tlb::Privilege;
use emu_core::width::Width;

/// Bits of CR0 (SDM Vol. 3, 2.5).
#[allow(missing_docs)] // the names are the manual's
pub mod cr0 {
    pub const PE: u64 = 1 << 0;
    pub const MP: u64 = 1 << 1;
    pub const EM: u64 = 1 << 2;
    pub const TS: u64 = 1 << 3;
    pub const ET: u64 = 1 << 4;
    pub const NE: u64 = 1 << 5;
    pub const WP: u64 = 1 << 16;
    pub const AM: u64 = 1 << 18;
    pub const NW: u64 = 1 << 29;
    pub const CD: u64 = 1 << 30;
    pub const PG: u64 = 1 << 31;
}

/// Bits of CR4 (SDM Vol. 3, 2.5).
#[allow(missing_docs)] // the names are the manual's
pub mod cr4 {
    pub const VME: u64 = 1 << 0;
    pub const PVI: u64 = 1 << 1;
    pub const TSD: u64 = 1 << 2;
    pub const DE: u64 = 1 << 3;
    pub const PSE: u64 = 1 << 4;
    pub const PAE: u64 = 1 << 5;
    pub const MCE: u64 = 1 << 6;
    pub const PGE: u64 = 1 << 7;
    pub const PCE: u64 = 1 << 8;
    pub const OSFXSR: u64 = 1 << 9;
    pub const OSXMMEXCPT: u64 = 1 << 10;
    pub const UMIP: u64 = 1 << 11;
    pub const LA57: u64 = 1 << 12;
    pub const FSGSBASE: u64 = 1 << 16;
    pub const PCIDE: u64 = 1 << 17;
    pub const OSXSAVE: u64 = 1 << 18;
    pub const SMEP: u64 = 1 << 20;
    pub const SMAP: u64 = 1 << 21;
    pub const PKE: u64 = 1 << 22;
}

/// Bits of IA32_EFER (SDM Vol. 3, 2.2.1).
#[allow(missing_docs)] // the names are the manual's
pub mod efer {
    pub const SCE: u64 = 1 << 0;
    pub const LME: u64 = 1 << 8;
    pub const LMA: u64 = 1 << 10;
    pub const NXE: u64 = 1 << 11;
}

/// State components of XCR0 (SDM Vol. 1, 13.3).
#[allow(missing_docs)] // the names are the manual's
pub mod xcr0 {
    pub const X87: u64 = 1 << 0;
    pub const SSE: u64 = 1 << 1;
    pub const AVX: u64 = 1 << 2;
    pub const AVX_SSE: u64 = AVX | SSE;
    pub const PKRU: u64 = 1 << 9;
}

/// Whether `va` is canonical for linear addresses of `bits` bits (SDM Vol. 1, 3.3.7.1).
const fn canonical_for(va: u64, bits: u32) -> bool {
    let unused = 64 - bits;
    (va << unused) as i64 >> unused == va as i64
}

/// `va` if it is canonical in the paging mode in force: instruction pointers and operands.
///
/// # Errors
/// #GP(0).
pub const fn need_canonical(cpu: &Cpu, va: u64) -> Guest<u64> {
    if cpu.canonical(va) { Ok(va) } else { Err(Fault::GP0) }
}

/// Bits of a linear address that registers hold, whatever the paging mode (SDM Vol. 2, CPUID leaf
/// 80000008H).
pub const fn linear_bits(cpu: &Cpu) -> u32 {
    match (Features::LM.in_cpu(cpu), Features::LA57.in_cpu(cpu)) {
        (true, true) => 57,
        (true, false) => 48,
        _ => 32,
    }
}

/// `base` if it is canonical for this CPU, whatever the paging mode: for registers that hold a
/// linear address (MSRs, bases of segments and tables; SDM Vol. 3, 4.5.3).
///
/// # Errors
/// #GP(0).
pub const fn need_canonical_base(cpu: &Cpu, base: u64) -> Guest<u64> {
    if canonical_for(base, if Features::LA57.in_cpu(cpu) { 57 } else { 48 }) {
        Ok(base)
    } else {
        Err(Fault::GP0)
    }
}

/// Checks that CPL is 0.
///
/// # Errors
/// #GP(0).
pub const fn need_cpl0(cpu: &Cpu) -> Guest<()> {
    if cpu.cpl == 0 { Ok(()) } else { Err(Fault::GP0) }
}

/// Runs `f`, which accesses memory at linear addresses that are already cut to their mode's
/// width, with privilege `p`. While long mode is active the addresses may be 64-bit even in
/// compatibility mode: descriptor tables, TSS and the stacks of 64-bit handlers.
fn with_privilege<R>(cpu: &mut Cpu, p: Privilege, f: impl FnOnce(&mut Cpu) -> R) -> R {
    let (mode, old) = (cpu.mode, cpu.tlb.swap_privilege(p));
    if mode & m::LONG != 0 {
        cpu.mode |= m::CODE64;
    }
    if p != Privilege::UserAligned {
        cpu.mode &= !m::ALIGN;
    }
    let r = f(cpu);
    cpu.mode = mode;
    cpu.tlb.set_privilege(old);
    r
}

/// The same for descriptor tables and TSSs: no breakpoint watches them.
fn implicitly<R>(cpu: &mut Cpu, f: impl FnOnce(&mut Cpu) -> R) -> R {
    let hits = cpu.watch.hits;
    let r = with_privilege(cpu, Privilege::Supervisor, f);
    cpu.watch.hits = hits;
    r
}

/// Reads a descriptor table or TSS at linear address `va`.
#[inline]
fn read_table(cpu: &mut Cpu, va: u64, w: Width) -> Guest<u64> {
    match cpu.tlb.read_as(Privilege::Supervisor, va, w.bytes()) {
        Some(off) => Ok(cpu.mem.ram.read(off, w)),
        None => read_table_slow(cpu, va, w),
    }
}

#[cold]
#[inline(never)]
fn read_table_slow(cpu: &mut Cpu, va: u64, w: Width) -> Guest<u64> {
    implicitly(cpu, |cpu| cpu.read(va, w))
}

/// Writes to a descriptor table or TSS.
fn write_table(cpu: &mut Cpu, va: u64, w: Width, value: u64) -> Guest<()> {
    implicitly(cpu, |cpu| cpu.write(va, w, value))
}
