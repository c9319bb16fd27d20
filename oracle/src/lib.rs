//! The real-CPU oracle: runs a few instructions on the CPU beneath us, with every register, the
//! flags, x87, vector registers and two guarded pages of memory given, and tells the whole state
//! afterwards or the exception that they raised.
//!
//! The instructions run in a child process (`worker`), which shares a batch of samples with us:
//! a sample can neither see nor harm our memory, may not make system calls, and is stopped when it
//! does not end. If the worker dies all the same, that is the sample's outcome and a new worker
//! goes on with the next one. No privilege is needed. `enter` holds the way in and out of a
//! sample: 64-bit code, and 32-bit code in the compatibility segment.
//!
//! It exists on x86-64 Linux hosts whose CPU has AVX and FSGSBASE; elsewhere [`Oracle::new`] says
//! why not. Source: SDM Vol. 1, 13 (XSAVE areas); the x86-64 psABI's and Linux' signal frames.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod enter;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod worker;

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
#[path = "absent.rs"]
mod worker;

mod raw;

pub use raw::{State, X87};
pub use worker::Oracle;

/// EAX, EBX, ECX and EDX of the CPU's CPUID for `leaf` (EAX) and `sub` (ECX); zeros on a host
/// without it, or for a leaf that the CPU does not have.
#[must_use]
pub fn cpuid(leaf: u32, sub: u32) -> [u32; 4] {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::__cpuid_count;
        if leaf <= __cpuid_count(leaf & 0x8000_0000, 0).eax {
            let r = __cpuid_count(leaf, sub);
            return [r.eax, r.ebx, r.ecx, r.edx];
        }
    }
    [0; 4]
}

/// Address of the first of two readable and writable, not executable pages. What lies before and
/// after them is not mapped.
pub const MEMORY: u64 = 0x1000_0000;
/// Bytes from [`MEMORY`] on.
pub const MEMORY_LEN: usize = 0x2000;
/// Address that samples start at: a page that may be read and executed, not written.
pub const CODE: u64 = 0x1200_0000;
/// Most bytes of code in a sample.
pub const CODE_MAX: usize = 160;
/// Address that samples end at: [`image`] jumps to it, in 64-bit code.
pub const EXIT: u64 = 0x1300_0000;
/// NOPs that follow the sample's code, so that an incomplete instruction at its end has defined
/// bytes to take.
pub const PADDING: usize = 16;

/// Selector of 64-bit code in user mode, as Linux has it.
pub const CS64: u16 = 0x33;
/// Selector of 32-bit code in user mode.
pub const CS32: u16 = 0x23;
/// What the other segment registers hold when a sample starts.
pub const DATA: u16 = 0x2b;

/// The first linear address that user mode cannot have. Linux reports a #PF there as a protection
/// violation, so as not to tell what is mapped.
pub const USER_END: u64 = 0x7fff_ffff_f000;

/// Memory of a sample.
pub type Memory = [u8; MEMORY_LEN];

/// Code size of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // the names say it
pub enum Bits {
    B32,
    B64,
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Instructions, at most [`CODE_MAX`] bytes; they start at [`CODE`].
    pub code: Vec<u8>,
    /// Code size.
    pub bits: Bits,
    /// State to start with. [`State::rip`] and the segment registers are not used.
    pub state: State,
    /// Memory at [`MEMORY`] to start with.
    pub memory: Box<Memory>,
}

/// Bytes of [`image`].
pub const IMAGE_LEN: usize = 256;

/// What the code page begins with when `sample` runs: its code, [`PADDING`] NOPs, and a jump to
/// [`EXIT`]; zeros up to its end.
///
/// # Panics
/// When there are more than [`CODE_MAX`] bytes of code.
#[must_use]
pub fn image(sample: &Sample) -> [u8; IMAGE_LEN] {
    let code = &sample.code;
    assert!(code.len() <= CODE_MAX, "{} bytes of code", code.len());
    let mut v = code.clone();
    v.resize(code.len() + PADDING, 0x90);
    match sample.bits {
        Bits::B64 => {
            let next = CODE + v.len() as u64 + 5;
            v.push(0xe9);
            v.extend((EXIT.wrapping_sub(next) as u32).to_le_bytes());
        }
        Bits::B32 => {
            v.push(0xea);
            v.extend((EXIT as u32).to_le_bytes());
            v.extend(CS64.to_le_bytes());
        }
    }
    v.resize(IMAGE_LEN, 0);
    let mut image = [0; IMAGE_LEN];
    image.copy_from_slice(&v);
    image
}

/// How a sample ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It ran through.
    Done,
    /// It raised an exception; [`State::rip`] is where.
    Fault {
        /// Exception vector.
        vector: u8,
        /// Error code; 0 for vectors without one.
        error: u32,
        /// CR2, for #PF.
        address: u64,
    },
    /// It did not end, and was stopped.
    Timeout,
    /// It tried to make a system call, which was not let through.
    SystemCall,
    /// It killed the worker, by this signal.
    Died {
        /// Signal number; 0 if the process exited.
        signal: i32,
    },
}

/// State after a sample.
#[derive(Clone, Debug)]
pub struct Judged {
    /// How it ended.
    pub outcome: Outcome,
    /// Registers; as they were before if the worker died.
    pub state: State,
    /// Memory at [`MEMORY`].
    pub memory: Box<Memory>,
}

/// Why there is no oracle here.
#[derive(Debug, thiserror::Error)]
pub enum Absent {
    /// Another kind of host.
    #[error("the real-CPU oracle needs an x86-64 Linux host")]
    Host,
    /// The CPU, or the kernel for it, lacks something.
    #[error("the real-CPU oracle needs a CPU and kernel with {0}")]
    Feature(&'static str),
    /// The operating system refused something.
    #[error("the real-CPU oracle's worker cannot be set up: {0}: {1}")]
    System(&'static str, std::io::Error),
}
