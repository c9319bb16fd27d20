//! The way into a sample and out of it. Runs in the worker only, which has one thread.
//!
//! [`run`] leaves our stack pointer in [`HOST`], loads all registers from a [`Raw`] and goes to
//! the sample by IRETQ, which sets CS, SS, RSP, RFLAGS and RIP at once and is serializing: the
//! code was written just before. The sample comes back by a jump to [`leave`], or by a signal:
//! the handler takes the registers out of the signal's frame and makes it return to `resume`
//! instead. While a sample runs FS holds its base, so the handler uses nothing that lives in
//! thread-local storage.
#![allow(unsafe_code)]

use crate::raw::{Raw, XSAVE_LEN};
use std::arch::{asm, global_asm};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What the assembly below keeps; it knows the offsets.
#[repr(C)]
struct Host {
    rsp: AtomicU64,
    raw: AtomicU64,
    fs_base: AtomicU64,
    rax: AtomicU64,
    /// A sample runs.
    active: AtomicU64,
    mxcsr: AtomicU64,
}

static HOST: Host = Host {
    rsp: AtomicU64::new(0),
    raw: AtomicU64::new(0),
    fs_base: AtomicU64::new(0),
    rax: AtomicU64::new(0),
    active: AtomicU64::new(0),
    mxcsr: AtomicU64::new(0x1f80),
};

/// What a signal told: kind (a `DONE`… constant), vector, error code and address.
static ENDED: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];
/// User time is up for the sample that had this number at the tick before.
static TICKED: AtomicU64 = AtomicU64::new(u64::MAX);
/// Number of the sample that runs.
static NUMBER: AtomicU64 = AtomicU64::new(0);

/// Kinds of endings.
pub const DONE: u64 = 0;
/// An exception.
pub const FAULT: u64 = 1;
/// Stopped by the timer.
pub const TIMEOUT: u64 = 2;
/// A system call was refused.
pub const SYSTEM_CALL: u64 = 3;

global_asm!(
    ".globl ring3_oracle_enter",
    "ring3_oracle_enter:",
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "mov [rip + {host}], rsp",
    "mov [rip + {host} + 8], rdi",
    "rdfsbase rax",
    "mov [rip + {host} + 16], rax",
    "push 0x2b",
    "push [rdi + 32]",
    "push [rdi + 136]",
    "push [rdi + 160]",
    "push [rdi + 128]",
    "mov eax, 0x2b",
    "mov ds, eax",
    "mov es, eax",
    "mov fs, eax",
    "mov gs, eax",
    "mov rax, [rdi + 144]",
    "wrfsbase rax",
    "mov rax, [rdi + 152]",
    "wrgsbase rax",
    "mov eax, 7",
    "xor edx, edx",
    "xrstor64 [rdi + 192]",
    "mov rax, [rdi]",
    "mov rcx, [rdi + 8]",
    "mov rdx, [rdi + 16]",
    "mov rbx, [rdi + 24]",
    "mov rbp, [rdi + 40]",
    "mov rsi, [rdi + 48]",
    "mov r8, [rdi + 64]",
    "mov r9, [rdi + 72]",
    "mov r10, [rdi + 80]",
    "mov r11, [rdi + 88]",
    "mov r12, [rdi + 96]",
    "mov r13, [rdi + 104]",
    "mov r14, [rdi + 112]",
    "mov r15, [rdi + 120]",
    "mov rdi, [rdi + 56]",
    "iretq",
    ".globl ring3_oracle_leave",
    "ring3_oracle_leave:",
    "mov [rip + {host} + 24], rax",
    "mov rax, [rip + {host} + 8]",
    "mov [rax + 8], rcx",
    "mov [rax + 16], rdx",
    "mov [rax + 24], rbx",
    "mov [rax + 32], rsp",
    "mov [rax + 40], rbp",
    "mov [rax + 48], rsi",
    "mov [rax + 56], rdi",
    "mov [rax + 64], r8",
    "mov [rax + 72], r9",
    "mov [rax + 80], r10",
    "mov [rax + 88], r11",
    "mov [rax + 96], r12",
    "mov [rax + 104], r13",
    "mov [rax + 112], r14",
    "mov [rax + 120], r15",
    "mov rcx, [rip + {host} + 24]",
    "mov [rax], rcx",
    "mov rsp, [rip + {host}]",
    // First of all the sample's AC and TF go.
    "pushfq",
    "pop [rax + 136]",
    "push 2",
    "popfq",
    "mov rdi, rax",
    "mov eax, 7",
    "xor edx, edx",
    "xsave64 [rdi + 192]",
    ".globl ring3_oracle_resume",
    "ring3_oracle_resume:",
    // A signal's return leaves the sample's NT as it is, and with that IRETQ would fail.
    "push 2",
    "popfq",
    "mov rdi, [rip + {host} + 8]",
    "mov [rdi + 168], ds",
    "mov [rdi + 170], es",
    "mov [rdi + 172], fs",
    "mov [rdi + 174], gs",
    "rdfsbase rax",
    "mov [rdi + 144], rax",
    "rdgsbase rax",
    "mov [rdi + 152], rax",
    "mov rax, [rip + {host} + 16]",
    "wrfsbase rax",
    "fninit",
    "ldmxcsr [rip + {host} + 40]",
    "vzeroupper",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbp",
    "pop rbx",
    "ret",
    host = sym HOST,
);

unsafe extern "C" {
    fn ring3_oracle_enter(raw: *mut Raw);
    fn ring3_oracle_leave();
    fn ring3_oracle_resume();
}

/// Address that samples jump to at their end, in 64-bit code.
pub fn leave() -> u64 {
    ring3_oracle_leave as *const () as u64
}

/// Runs sample number `number`, whose code is in place, with the registers `raw`, which hold the
/// state afterwards. Gives kind, vector, error code and address.
///
/// # Safety
/// In the worker process only: the sample's code may destroy whatever it can reach, and the code
/// at `raw.rip` must lead to [`leave`] or raise a signal that [`on_signal`] handles.
pub unsafe fn run(raw: *mut Raw, number: u64) -> [u64; 4] {
    ENDED.iter().for_each(|e| e.store(0, Relaxed));
    NUMBER.store(number, Relaxed);
    HOST.active.store(1, Relaxed);
    // SAFETY: the caller's promise; the assembly keeps the registers that the ABI wants kept.
    unsafe { ring3_oracle_enter(raw) };
    HOST.active.store(0, Relaxed);
    [0, 1, 2, 3].map(|i| ENDED[i].load(Relaxed))
}

/// Handles every signal of the worker.
///
/// # Safety
/// To be called by the kernel with the frame of a signal.
pub unsafe extern "C" fn on_signal(
    signal: i32,
    _: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    if HOST.active.load(Relaxed) == 0 {
        if signal == libc::SIGVTALRM {
            return;
        }
        // SAFETY: ends the process at once; a fault of the worker itself must not come again.
        unsafe { libc::_exit(100 + signal) };
    }
    if signal == libc::SIGVTALRM
        && TICKED.swap(NUMBER.load(Relaxed), Relaxed) != NUMBER.load(Relaxed)
    {
        return;
    }
    // SAFETY: the kernel gives a valid context for the time of the handler, and nobody else knows
    // of it.
    let c = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    let g = &mut c.uc_mcontext.gregs;
    // SAFETY: `run` stored the address of the `Raw` that it was given, which only this thread
    // uses, and that is inside the assembly.
    let raw = unsafe { &mut *(HOST.raw.load(Relaxed) as *mut Raw) };
    const ORDER: [i32; 16] = [
        libc::REG_RAX,
        libc::REG_RCX,
        libc::REG_RDX,
        libc::REG_RBX,
        libc::REG_RSP,
        libc::REG_RBP,
        libc::REG_RSI,
        libc::REG_RDI,
        libc::REG_R8,
        libc::REG_R9,
        libc::REG_R10,
        libc::REG_R11,
        libc::REG_R12,
        libc::REG_R13,
        libc::REG_R14,
        libc::REG_R15,
    ];
    for (to, from) in raw.gpr.iter_mut().zip(ORDER) {
        *to = g[from as usize] as u64;
    }
    raw.rip = g[libc::REG_RIP as usize] as u64;
    raw.rflags = g[libc::REG_EFL as usize] as u64;
    // SAFETY: with XSAVE in use the kernel puts a whole area there, at least with AVX state, which
    // this CPU has; and `Raw` has room for it.
    unsafe {
        let area = c.uc_mcontext.fpregs.cast::<u8>();
        std::ptr::copy_nonoverlapping(area, raw.xsave.as_mut_ptr(), XSAVE_LEN);
    }
    let kind = match signal {
        libc::SIGVTALRM => TIMEOUT,
        libc::SIGSYS => SYSTEM_CALL,
        _ => FAULT,
    };
    let told = [kind, g[libc::REG_TRAPNO as usize] as u64, g[libc::REG_ERR as usize] as u64];
    for (to, from) in ENDED.iter().zip(told.into_iter().chain([g[libc::REG_CR2 as usize] as u64])) {
        to.store(from, Relaxed);
    }
    g[libc::REG_RIP as usize] = ring3_oracle_resume as *const () as i64;
    g[libc::REG_RSP as usize] = HOST.rsp.load(Relaxed) as i64;
    g[libc::REG_EFL as usize] = 2;
    // CS 33H, SS 2BH: the worker's own.
    let others = g[libc::REG_CSGSFS as usize] & 0x0000_ffff_ffff_0000;
    g[libc::REG_CSGSFS as usize] = 0x002b << 48 | others | 0x33;
}

/// Whether the kernel lets user mode use the FSGSBASE instructions and the CPU has AVX state on.
pub fn missing() -> Option<&'static str> {
    /// Bit of `AT_HWCAP2` (Linux, Documentation/arch/x86/elf_hwcaps.rst).
    const HWCAP2_FSGSBASE: u64 = 2;
    // SAFETY: reads the auxiliary vector.
    let hwcap2 = unsafe { libc::getauxval(libc::AT_HWCAP2) };
    if hwcap2 & HWCAP2_FSGSBASE == 0 {
        return Some("FSGSBASE");
    }
    if !std::is_x86_feature_detected!("avx") {
        return Some("AVX");
    }
    let data: u16;
    // SAFETY: reads a register.
    unsafe { asm!("mov {0:x}, ss", out(reg) data, options(nomem, nostack)) };
    (data != crate::DATA).then_some("Linux' segments")
}
