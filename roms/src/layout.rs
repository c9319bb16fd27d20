//! Where everything in the demo lives: the ROM image, RAM, the virtual addresses, the selectors,
//! and the values it leaves with.
//!
//! The build script assembles the ROM from these constants; they are public so that a test or a
//! monitor command can look into the running guest. All addresses are in bytes.

/// Size of the ROM image. It ends at 4 GiB and is seen again at 0xF0000–0xFFFFF.
pub const ROM_SIZE: usize = 0x1_0000;

// --- inside the ROM image (offsets) ---

/// The 16-bit code; also where the reset vector jumps.
pub const REAL: u32 = 0x0000;
/// The 32-bit code.
pub const PROT: u32 = 0x1000;
/// The 64-bit kernel.
pub const LONG: u32 = 0x2000;
/// The program of task A, one page.
pub const USER_A: u32 = 0x8000;
/// The program of task B, one page.
pub const USER_B: u32 = 0x9000;
/// The global descriptor table (SDM vol. 3A, 3.5.1).
pub const GDT: u32 = 0xA000;
/// The 32-bit task-state segment (SDM vol. 3A, 8.2.1).
pub const TSS32: u32 = 0xA080;
/// The 64-bit task-state segment (SDM vol. 3A, 8.7).
pub const TSS64: u32 = 0xA100;
/// Operands of LGDT and LIDT, ten bytes each: a 16-bit limit and a base address.
pub const GDTR32: u32 = 0xA180;
/// Like [`GDTR32`], with a higher-half base.
pub const GDTR64: u32 = 0xA190;
/// Operand of LIDT in protected mode.
pub const IDTR32: u32 = 0xA1A0;
/// Operand of LIDT in long mode.
pub const IDTR64: u32 = 0xA1B0;
/// The interrupt descriptor table of protected mode, eight bytes a gate.
pub const IDT32: u32 = 0xA200;
/// The interrupt descriptor table of long mode, sixteen bytes a gate.
pub const IDT64: u32 = 0xA400;
/// The first instruction after reset (SDM vol. 3A, 10.1.4).
pub const RESET: u32 = 0xFFF0;

// --- physical memory ---

/// Top of the real-mode stack.
pub const REAL_STACK: u32 = 0x7C00;
/// Top of the stack of the 32-bit and 64-bit kernel.
pub const KERNEL_STACK: u32 = 0xE000;
/// Top of the stack of the 32-bit code at CPL 3.
pub const USER_STACK32: u32 = 0xF000;
/// Where the ROM image is copied: everything from the end of the first stage on runs there.
pub const IMAGE: u32 = 0x1_0000;
/// The kernel's page tables: PML4, two PDPTs, two page directories, a page each.
pub const PAGE_TABLES: u32 = 0x2_0000;
/// The page directory pointer table of the higher half, which every address space shares.
pub const PDPT_HIGH: u32 = PAGE_TABLES + 0x2000;
/// The page both tasks see at [`USER_SHARED`].
pub const SHARED: u32 = 0x2_8000;
/// Room for copies, 32 KiB.
pub const SCRATCH: u32 = 0x5_0000;
/// Ten pages of task A: PML4, PDPT, PD, PT, code, data, stack, two of kernel stack.
pub const SPACE_A: u32 = 0x3_0000;
/// The same for task B.
pub const SPACE_B: u32 = 0x4_0000;

// --- variables of the kernel (physical, 8 bytes each) ---

/// Start of the kernel's variables.
pub const VARS: u32 = 0x600;
/// Checks that have passed.
pub const CHECKS: u32 = 0x600;
/// Where to go on if an exception comes now; 0 if none is expected.
pub const RECOVER: u32 = 0x608;
/// Vector of the last exception, or [`NO_EXCEPTION`].
pub const VECTOR: u32 = 0x610;
/// Its error code, 0 for vectors without one.
pub const ERROR: u32 = 0x618;
/// The instruction pointer it saved.
pub const FAULT_IP: u32 = 0x620;
/// CR2 at that time.
pub const FAULT_ADDRESS: u32 = 0x628;
/// EFLAGS that the 32-bit CPL 3 code saw after its POPF.
pub const POPF_FLAGS: u32 = 0x630;
/// What SMSW gave at CPL 3.
pub const SMSW: u32 = 0x638;
/// What SGDT gave at CPL 3: limit and base.
pub const SGDT: u32 = 0x640;
/// Timer interrupts taken.
pub const TICKS: u32 = 0x650;
/// The running task: [`TASK_A`] or [`TASK_B`].
pub const CURRENT: u32 = 0x658;
/// RSP at SYSCALL, until it is in the frame.
pub const USER_RSP: u32 = 0x660;
/// `yield` system calls made.
pub const YIELDS: u32 = 0x668;
/// Sixteen bytes for values on their way to or from the x87.
pub const NUMBER: u32 = 0x670;
/// The record of task A: see the `TASK_…` offsets.
pub const TASK_A: u32 = 0x700;
/// The record of task B.
pub const TASK_B: u32 = 0x780;
/// End of the kernel's variables.
pub const VARS_END: u32 = 0x800;

/// In [`VECTOR`]: there was no exception.
pub const NO_EXCEPTION: u32 = 0xFF;

/// In a task record: where its saved registers lie.
pub const TASK_FRAME: u32 = 0;
/// In a task record: its CR3.
pub const TASK_CR3: u32 = 8;
/// In a task record: top of its kernel stack.
pub const TASK_STACK: u32 = 16;
/// In a task record: 1 until it exits.
pub const TASK_ALIVE: u32 = 24;
/// In a task record: what it gave to `exit`.
pub const TASK_EXIT: u32 = 32;
/// In a task record: how often the timer took the CPU from it.
pub const TASK_PREEMPTED: u32 = 40;
/// In a task record: its letter.
pub const TASK_NAME: u32 = 48;

// --- virtual memory ---

/// The higher half: physical address 0 is seen here, in every address space.
pub const KERNEL_BASE: u64 = 0xFFFF_FFFF_8000_0000;
/// Physical address 0 once more, 2 MiB, read-only and not executable.
pub const READ_ONLY: u32 = 0x4000_0000;
/// The registers of the local APIC, which after reset are at physical FEE00000.
pub const LOCAL_APIC: u32 = 0x4020_0000;
/// An address that nothing is mapped at.
pub const UNMAPPED: u32 = 0x8000_0000;
/// A task's program: one page, read-only.
pub const USER_CODE: u32 = 0x40_0000;
/// A task's data: one page, not executable.
pub const USER_BYTES: u32 = 0x40_1000;
/// Top of a task's stack page.
pub const USER_STACK: u32 = 0x40_3000;
/// The page that both tasks share.
pub const USER_SHARED: u32 = 0x40_3000;
/// End of what a task may name in a system call.
pub const USER_END: u32 = 0x40_4000;

// --- segment selectors ---

/// 32-bit code, CPL 0.
pub const KERNEL_CODE32: u16 = 0x08;
/// 64-bit code, CPL 0. SYSCALL takes SS from the entry behind it.
pub const KERNEL_CODE64: u16 = 0x10;
/// Data, CPL 0.
pub const KERNEL_DATA: u16 = 0x18;
/// 32-bit code, CPL 3. SYSRET takes SS and the 64-bit CS from the two entries behind it.
pub const USER_CODE32: u16 = 0x20 | 3;
/// Data, CPL 3.
pub const USER_DATA: u16 = 0x28 | 3;
/// 64-bit code, CPL 3.
pub const USER_CODE64: u16 = 0x30 | 3;
/// The 32-bit TSS.
pub const TSS32_SELECTOR: u16 = 0x38;
/// The 64-bit TSS: two entries.
pub const TSS64_SELECTOR: u16 = 0x40;
/// Size of the GDT.
pub const GDT_SIZE: u16 = 0x50;

// --- the way out ---

/// Port of QEMU's `isa-debug-exit`: a write of `v` ends the machine with status `v * 2 + 1`.
pub const EXIT_PORT: u8 = 0xF4;
/// Written to [`EXIT_PORT`] when every check has passed.
pub const EXIT_SUCCESS: u8 = 0x10;
/// Written when a check of the real-mode stage failed; the others follow in the order of the story.
pub const EXIT_REAL: u8 = 1;
/// A check of the protected-mode stage failed.
pub const EXIT_PROT: u8 = 2;
/// A check of the long-mode stage failed.
pub const EXIT_LONG: u8 = 3;
/// A check of the timer stage failed.
pub const EXIT_TIMER: u8 = 4;
/// A check of the task stage failed.
pub const EXIT_TASKS: u8 = 5;
/// An exception came that nobody expected.
pub const EXIT_EXCEPTION: u8 = 6;
