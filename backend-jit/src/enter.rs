//! The border between Rust and host code: the way in, and the functions that host code calls back.
//!
//! Host code has `rbp` = [`BIAS`] bytes into [`Cpu`], the guest's registers of [`PINNED`] in host
//! registers, all others in [`Cpu::regs`], the budget in [`BUDGET`]; `rsp` is a multiple of 16 and
//! points at the return into [`trampoline`], which takes the exit word in `rax`. If bit 0 of
//! [`Native::live`] is set, the guest's YMM0–13 and MXCSR are in the host's, and stale in [`Cpu`];
//! if bit 1 is, so is the guest's x87, all of its exceptions masked.
//!
//! Unsafe code here: the trampoline, its call, the way of the x87, and the pointer that host code
//! hands back.
#![allow(unsafe_code)]

use core::mem::offset_of;
use emu_core::cpu::{Cpu, St, X87, mode};
use emu_core::flags::rflags::RF;
use emu_core::flags::{AF, CF, Flags, OF, PF, SF, ZF};
use emu_core::interp::{Leave, handlers::slow};
use emu_core::mem::tlb::Access;
use emu_core::native::Native;
use emu_core::uop::Uop;
use emu_core::width::Width;

/// Where `rbp` points in [`Cpu`]: all of its registers are within a signed byte of it.
pub const BIAS: usize = offset_of!(Cpu, regs) + 128;

/// Host registers of the guest's RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9.
pub const PINNED: [u8; 10] = [3, 6, 7, 8, 9, 10, 11, 12, 13, 14];

/// Host register of the budget.
pub const BUDGET: u8 = 15;

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
    cpu.native.pending = cpu.mem.platform.request_flag().as_ptr() as u64;
    cpu.native.left = 0;
    sync(cpu);
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

/// What host code knows of the TLB must be true before it goes on.
fn sync(cpu: &mut Cpu) {
    let epoch = cpu.tlb.epoch();
    cpu.tlb.sync_slots();
    cpu.native.tlb = cpu.tlb.table_address();
    cpu.native.fetches = cpu.tlb.fetch_table_address();
    cpu.native.epoch = epoch.into();
    cpu.native.table = cpu.native.targets.select(cpu.mode, epoch);
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
        "mov r15, [rbp + {budget}]",
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
        "test byte ptr [rbp + {live}], 2",
        "jz 3f",
        "push rax",
        "call {x87}",
        "pop rax",
        "3:",
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
        "mov [rbp + {budget}], r15",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbp",
        "pop rbx",
        "ret",
        bias = const BIAS,
        budget = const offset_of!(Cpu, budget) as isize - BIAS as isize,
        live = const (offset_of!(Cpu, native) + offset_of!(Native, live)) as isize - BIAS as isize,
        v = const offset_of!(Cpu, v) as isize - BIAS as isize,
        mxcsr = const offset_of!(Cpu, mxcsr) as isize - BIAS as isize,
        x87 = sym x87_to_cpu,
    )
}

/// Where a field of the guest's x87 is from `rbp`.
const fn x87(field: usize) -> isize {
    (offset_of!(Cpu, x87) + field) as isize - BIAS as isize
}
/// The image on the way: words of 32 bits for control, status and tags, four more, and ST(0–7).
const IMAGE: isize = (offset_of!(Cpu, native) + offset_of!(Native, x87)) as isize - BIAS as isize;
const _: () = assert!(size_of::<St>() == 16);

/// Loads the guest's x87 into the host's and marks it live, if all of its exceptions are masked
/// (then ZF is set): `rbp` as in host code. Changes `rax`, `rcx`, `rdx` and the flags.
///
/// # Safety
/// To be called by host code only.
#[unsafe(naked)]
pub unsafe extern "sysv64" fn x87_from_cpu() {
    core::arch::naked_asm!(
        "movzx ecx, word ptr [rbp + {cw}]",
        "mov [rbp + {image}], ecx",
        "not ecx",
        "and byte ptr [rbp + {live}], 253",
        "test cl, 0x3f",
        "jnz 3f",
        // Tags: 3 is empty; of the others the host finds out which they are.
        "movzx eax, byte ptr [rbp + {full}]",
        "xor eax, 255",
        "mov ecx, eax",
        "shl ecx, 4",
        "or eax, ecx",
        "and eax, 0x0f0f",
        "lea ecx, [rax * 4]",
        "or eax, ecx",
        "and eax, 0x3333",
        "lea ecx, [rax * 2]",
        "or eax, ecx",
        "and eax, 0x5555",
        "lea eax, [rax + rax * 2]",
        "mov [rbp + {image} + 8], eax",
        "movzx eax, word ptr [rbp + {sw}]",
        "mov [rbp + {image} + 4], eax",
        "shr eax, 7",
        "and eax, 0x70",
        "mov rdx, -80",
        "2:",
        "mov rcx, [rbp + rax + {mant}]",
        "mov [rbp + rdx + {image} + 108], rcx",
        "movzx ecx, word ptr [rbp + rax + {se}]",
        "mov [rbp + rdx + {image} + 116], cx",
        "add eax, 16",
        "and eax, 0x70",
        "add rdx, 10",
        "jnz 2b",
        "frstor [rbp + {image}]",
        "or byte ptr [rbp + {live}], 2",
        "xor eax, eax",
        "3:",
        "ret",
        live = const (offset_of!(Cpu, native) + offset_of!(Native, live)) as isize - BIAS as isize,
        image = const IMAGE,
        cw = const x87(offset_of!(X87, cw)),
        sw = const x87(offset_of!(X87, sw)),
        full = const x87(offset_of!(X87, full)),
        mant = const x87(offset_of!(X87, st) + offset_of!(St, mant)),
        se = const x87(offset_of!(X87, st) + offset_of!(St, se)),
    )
}

/// Stores the guest's x87 from the host's, which is then as FNINIT leaves it: `rbp` as in host
/// code. Changes `rax`, `rcx`, `rdx` and the flags.
///
/// # Safety
/// To be called by host code only, while the guest's x87 is live.
#[unsafe(naked)]
pub unsafe extern "sysv64" fn x87_to_cpu() {
    core::arch::naked_asm!(
        "fnsave [rbp + {image}]",
        "movzx eax, word ptr [rbp + {image}]",
        "mov [rbp + {cw}], ax",
        // Tags: a register is empty where both bits are set.
        "movzx eax, word ptr [rbp + {image} + 8]",
        "mov ecx, eax",
        "shr ecx, 1",
        "and eax, ecx",
        "and eax, 0x5555",
        "mov ecx, eax",
        "shr ecx, 1",
        "or eax, ecx",
        "and eax, 0x3333",
        "mov ecx, eax",
        "shr ecx, 2",
        "or eax, ecx",
        "and eax, 0x0f0f",
        "mov ecx, eax",
        "shr ecx, 4",
        "or eax, ecx",
        "not eax",
        "mov [rbp + {full}], al",
        "movzx eax, word ptr [rbp + {image} + 4]",
        "mov [rbp + {sw}], ax",
        "shr eax, 7",
        "and eax, 0x70",
        "mov rdx, -80",
        "2:",
        "mov rcx, [rbp + rdx + {image} + 108]",
        "mov [rbp + rax + {mant}], rcx",
        "movzx ecx, word ptr [rbp + rdx + {image} + 116]",
        "mov [rbp + rax + {se}], cx",
        "add eax, 16",
        "and eax, 0x70",
        "add rdx, 10",
        "jnz 2b",
        "ret",
        image = const IMAGE,
        cw = const x87(offset_of!(X87, cw)),
        sw = const x87(offset_of!(X87, sw)),
        full = const x87(offset_of!(X87, full)),
        mant = const x87(offset_of!(X87, st) + offset_of!(St, mant)),
        se = const x87(offset_of!(X87, st) + offset_of!(St, se)),
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

/// Lets the TLB know where `va` is fetched from, unless that raises a fault; whether it does then.
pub extern "sysv64" fn fetch(cpu: &mut Cpu, va: u64) -> u64 {
    let known = (cpu.frontend.translate)(cpu, va, Access::Exec).is_ok();
    sync(cpu);
    u64::from(known && cpu.tlb.exec(va).is_some())
}

/// A load that misses.
pub extern "sysv64" fn load(cpu: &mut Cpu, va: u64, packed: u64) -> u64 {
    let (w, stack) = access(packed);
    let r = slow::load(cpu, va, w, stack);
    sync(cpu);
    leave(cpu, r)
}

/// The load of a read-modify-write that misses.
pub extern "sysv64" fn load_rmw(cpu: &mut Cpu, va: u64, packed: u64) -> u64 {
    let (w, stack) = access(packed);
    let r = slow::load_rmw(cpu, va, w, stack);
    sync(cpu);
    leave(cpu, r)
}

/// A store that misses.
pub extern "sysv64" fn store(cpu: &mut Cpu, va: u64, packed: u64, v: u64) {
    let (w, stack) = access(packed);
    let r = slow::store(cpu, va, w, v, stack);
    sync(cpu);
    leave(cpu, r);
}

/// The end of a block after which mode, mapping or interrupt window may be another.
#[derive(Debug)]
pub struct System {
    /// The helper of its instruction.
    pub helper: Option<Uop>,
    /// How RIP moves after it, cut to the width; `None`: the helper has assigned it.
    pub advance: Option<(Width, i64)>,
    /// Instructions of the block.
    pub insns: i64,
    /// Record to leave at with a fault.
    pub record: u32,
    /// The exit word of the end.
    pub exit: u32,
}

/// Where to go on after it: at linear address `to`, in host code if there is some, else leaving
/// with the exit word `word`; or, if that is 0, leaving with the exit word `to`.
#[derive(Debug)]
#[repr(C)]
pub struct Onward {
    to: u64,
    word: u64,
}

/// Does what `s` says. The pinned registers are in [`Cpu`], and flags in [`Native::flags`].
pub extern "sysv64" fn system(cpu: &mut Cpu, s: *const System) -> Onward {
    // SAFETY: as in `run`.
    let s = unsafe { &*s };
    if let Some(u) = &s.helper {
        cpu.flags = unpack(cpu.native.flags);
        let r = slow::run(cpu, u);
        cpu.mxcsr &= MXCSR_MASK;
        cpu.native.flags = pack(cpu.flags);
        if let Err(why) = r {
            return Onward { to: why.at(s.record as usize), word: 0 };
        }
    }
    if let Some((w, delta)) = s.advance {
        cpu.set_rip(w.zext(cpu.rip().wrapping_add(delta as u64)));
    }
    cpu.budget -= s.insns;
    if cpu.native.traced || !cpu.is_quiet() {
        return Onward { to: s.exit.into(), word: 0 };
    }
    cpu.sysflags &= !RF;
    sync(cpu);
    Onward { to: cpu.linear_rip(), word: s.exit.into() }
}

/// The micro-op `u` from its canonical form. The pinned registers are in [`Cpu`].
pub extern "sysv64" fn run(cpu: &mut Cpu, u: *const Uop) {
    cpu.flags = unpack(cpu.native.flags);
    // SAFETY: host code hands over the address that its translator has put into it: that of a
    // micro-op which the translator keeps as long as the code may run.
    let u = unsafe { &*u };
    let r = slow::run(cpu, u);
    cpu.mxcsr &= MXCSR_MASK;
    cpu.native.flags = pack(cpu.flags);
    sync(cpu);
    leave(cpu, r);
}
