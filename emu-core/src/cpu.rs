//! State of one virtual CPU, laid out for all tiers, and guest memory as instructions see it.
//!
//! [`Cpu`] is plain data: general registers, flags, vector and x87 registers, segments, control
//! registers, MSRs. Behaviour lives elsewhere: the micro-ops here in `emu-core`, the rest (page
//! walks, far transfers, MSR semantics) in the frontend behind [`Frontend`].

use crate::clock::Clock;
use crate::fault::{Fault, Guest, vector};
use crate::flags::{Flags, OSZAPC, rflags};
use crate::interp::Leave;
use crate::mem::PhysMem;
use crate::mem::phys::Writes;
use crate::mem::tlb::{Access, Tlb};
use crate::native::{Enter, Native};
use crate::patch::Patches;
use crate::uop::{Block, HelperDef};
use crate::watch::Watch;
use crate::width::Width::{self, W8, W16, W32, W64};
use std::sync::Arc;

/// A register of the micro-op machine: an index into [`Cpu::regs`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Reg(pub u8);

impl Reg {
    #![allow(missing_docs)] // the names are the manual's
    pub const RAX: Reg = Reg(0);
    pub const RCX: Reg = Reg(1);
    pub const RDX: Reg = Reg(2);
    pub const RBX: Reg = Reg(3);
    pub const RSP: Reg = Reg(4);
    pub const RBP: Reg = Reg(5);
    pub const RSI: Reg = Reg(6);
    pub const RDI: Reg = Reg(7);
    /// First of eight temporaries: dead between guest instructions.
    pub const T0: Reg = Reg(16);
    pub const T1: Reg = Reg(17);
    pub const T2: Reg = Reg(18);
    pub const T3: Reg = Reg(19);
    pub const T4: Reg = Reg(20);
    pub const T5: Reg = Reg(21);
    pub const T6: Reg = Reg(22);
    pub const T7: Reg = Reg(23);
    /// Base addresses of the segments, in the order of [`Seg`].
    pub const ES_BASE: Reg = Reg(24);
    pub const CS_BASE: Reg = Reg(25);
    pub const SS_BASE: Reg = Reg(26);
    pub const DS_BASE: Reg = Reg(27);
    pub const FS_BASE: Reg = Reg(28);
    pub const GS_BASE: Reg = Reg(29);
    /// Inside a block: the instruction pointer of the block's first byte.
    pub const RIP: Reg = Reg(30);
    /// Always zero; as a destination: the result is dropped.
    pub const ZERO: Reg = Reg(31);

    /// General register `n & 15` (0 = RAX … 15 = R15).
    pub const fn gpr(n: u8) -> Reg {
        Reg(n & 15)
    }

    /// Temporary `n & 7`.
    pub const fn temp(n: u8) -> Reg {
        Reg(16 + (n & 7))
    }

    /// Whether it is state that the guest can see (not a temporary).
    pub const fn is_architectural(self) -> bool {
        self.0 < 16 || self.0 >= 24
    }

    /// Index into [`Cpu::regs`].
    #[inline(always)]
    pub const fn ix(self) -> usize {
        (self.0 & 31) as usize
    }
}

/// Segment registers, numbered as in instruction encodings (SDM Vol. 2, table 2-1…).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs)] // the names are the manual's
pub enum Seg {
    Es = 0,
    Cs = 1,
    Ss = 2,
    Ds = 3,
    Fs = 4,
    Gs = 5,
}

impl Seg {
    /// All six, in encoding order.
    pub const ALL: [Seg; 6] = [Seg::Es, Seg::Cs, Seg::Ss, Seg::Ds, Seg::Fs, Seg::Gs];

    /// The register that holds this segment's base.
    pub const fn base(self) -> Reg {
        Reg(24 + self as u8)
    }
}

/// The hidden and visible part of a segment register, but for the base, which is in
/// [`Cpu::regs`] (for ES…GS) or beside it (LDTR, TR).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Segment {
    /// Visible selector.
    pub selector: u16,
    /// Attributes as in bits 55:40 of a descriptor, the limit's bits 19:16 in between cleared:
    /// bits 3:0 type, 4 S, 6:5 DPL, 7 P, 12 AVL, 13 L, 14 D/B, 15 G.
    pub attr: u16,
    /// Limit in bytes, granularity applied: the last valid offset (for expand-down: the first
    /// invalid one below).
    pub limit: u32,
}

impl Segment {
    /// Type field, bits 3:0.
    pub const fn kind(self) -> u16 {
        self.attr & 15
    }
    /// Code or data (S = 1) rather than system.
    pub const fn is_code_or_data(self) -> bool {
        self.attr & 0x10 != 0
    }
    /// Descriptor privilege level.
    pub const fn dpl(self) -> u8 {
        (self.attr >> 5 & 3) as u8
    }
    /// Present; a register loaded with a null selector is not.
    pub const fn present(self) -> bool {
        self.attr & 0x80 != 0
    }
    /// 64-bit code (L).
    pub const fn long(self) -> bool {
        self.attr & 0x2000 != 0
    }
    /// Default size 32-bit (D/B).
    pub const fn big(self) -> bool {
        self.attr & 0x4000 != 0
    }
    /// A code segment.
    pub const fn is_code(self) -> bool {
        self.attr & 0x18 == 0x18
    }
    /// Readable: any data segment, or code with R.
    pub const fn readable(self) -> bool {
        self.attr & 0x18 == 0x10 || self.attr & 0x1a == 0x1a
    }
    /// Writable data.
    pub const fn writable(self) -> bool {
        self.attr & 0x1a == 0x12
    }
    /// Expand-down data.
    pub const fn expand_down(self) -> bool {
        self.attr & 0x1c == 0x14
    }
    /// Conforming code.
    pub const fn conforming(self) -> bool {
        self.attr & 0x1c == 0x1c
    }
}

/// GDTR or IDTR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableReg {
    /// Linear base address.
    pub base: u64,
    /// Limit in bytes (last valid offset).
    pub limit: u16,
}

/// An x87 register: the 80 bits as they are in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct St {
    /// Significand, integer bit explicit. MMX registers are this field.
    pub mant: u64,
    /// Sign (bit 15) and biased exponent.
    pub se: u16,
}

/// x87 state (SDM Vol. 1, chapter 8). Registers are physical (R0–R7); ST(i) is
/// `st[(top + i) & 7]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct X87 {
    /// R0–R7.
    pub st: [St; 8],
    /// Control word.
    pub cw: u16,
    /// Status word, with TOP in bits 13:11.
    pub sw: u16,
    /// Which physical registers are not empty, bit i for Ri (the abridged tag word of FXSAVE).
    pub full: u8,
    /// Last opcode, 11 bits.
    pub fop: u16,
    /// Last instruction pointer.
    pub fip: u64,
    /// Selector of the last instruction.
    pub fcs: u16,
    /// Last data pointer.
    pub fdp: u64,
    /// Selector of the last data pointer.
    pub fds: u16,
}

impl Default for X87 {
    /// State after FNINIT.
    fn default() -> X87 {
        X87 {
            st: [St::default(); 8],
            cw: 0x37f,
            sw: 0,
            full: 0,
            fop: 0,
            fip: 0,
            fcs: 0,
            fdp: 0,
            fds: 0,
        }
    }
}

/// A vector register, as four 64-bit words, lowest first: `[0..2]` is the XMM part.
pub type Ymm = [u64; 4];

/// What a block was lifted for; part of its key. Whatever lifting assumes is in here.
pub mod mode {
    /// 64-bit code.
    pub const CODE64: u32 = 1 << 0;
    /// 32-bit code (neither bit: 16-bit).
    pub const CODE32: u32 = 1 << 1;
    /// Stack pointer is ESP (neither this nor `CODE64`: SP).
    pub const STACK32: u32 = 1 << 2;
    /// CPL = 3.
    pub const USER: u32 = 1 << 3;
    /// ES, SS, DS and CS are flat: base 0, no limit below 4 GiB, readable and writable as needed.
    pub const FLAT: u32 = 1 << 4;
    /// Real mode or virtual-8086 mode (CR0.PE = 0 or EFLAGS.VM = 1).
    pub const REAL: u32 = 1 << 5;
    /// Virtual-8086 mode.
    pub const VM86: u32 = 1 << 6;
    /// SSE may run: CR4.OSFXSR = 1, CR0.EM = 0.
    pub const SSE: u32 = 1 << 7;
    /// CR0.TS = 1: x87, MMX and SSE raise #NM.
    pub const TS: u32 = 1 << 8;
    /// CR0.EM = 1: x87 raises #NM, MMX and SSE #UD.
    pub const EM: u32 = 1 << 9;
    /// AVX may run: CR4.OSXSAVE = 1 and XCR0[2:1] = 11b.
    pub const AVX: u32 = 1 << 10;
    /// CS has a limit below 4 GiB: the dispatcher checks it at every block, blocks aren't chained.
    pub const CS_LIMIT: u32 = 1 << 11;
    /// CPL 1 or 2 (with `USER` clear).
    pub const CPL12: u32 = 1 << 12;
    /// Alignment checking in force: CR0.AM, EFLAGS.AC and CPL 3.
    pub const ALIGN: u32 = 1 << 13;
    /// Long mode is active (64-bit or compatibility).
    pub const LONG: u32 = 1 << 14;
    /// MXCSR has an exception unmasked: vector operations may raise #XM.
    pub const XM: u32 = 1 << 15;
    /// Sensitive instructions are counted; see [`Cpu::audit`](super::Cpu::audit).
    pub const AUDIT: u32 = 1 << 30;
    /// One instruction a block: single-stepping, interrupt shadows, code that overwrites itself.
    pub const SINGLE: u32 = 1 << 31;
}

/// What the frontend gives the core. One value of it exists per frontend; it is plain data, so
/// that the core has no generic parameter and needs no dynamic dispatch object.
pub struct Frontend {
    /// Finds the page of linear address `va` for `access` with the current table's privilege,
    /// setting accessed and dirty bits; enters it into the TLB (level 1 only when it is RAM) and
    /// gives the guest-physical address of `va` itself. Raises #PF, or for a non-canonical address
    /// #GP(0).
    pub translate: fn(&mut Cpu, va: u64, access: Access) -> Guest<u64>,
    /// Lifts the block at RIP in [`Cpu::mode`].
    pub lift: fn(&mut Cpu) -> Guest<Block>,
    /// Delivers a fault that an instruction raised (RIP is that instruction's). Handles double
    /// faults; sets [`Cpu::shutdown`] on a triple fault.
    pub deliver_fault: fn(&mut Cpu, Fault),
    /// Delivers an external interrupt or NMI with this vector.
    pub deliver_interrupt: fn(&mut Cpu, vector: u8, nmi: bool),
    /// Linear address of `size` bytes at offset `off` of a segment, with its limit and type
    /// checked for reading or writing.
    pub linear: fn(&mut Cpu, seg: Seg, off: u64, size: u32, write: bool) -> Guest<u64>,
    /// Delivers the #DB whose DR6 bits are in [`Watch::hits`].
    pub single_step: fn(&mut Cpu),
    /// All helpers, by family: for reading the text form.
    pub helpers: &'static [&'static [&'static HelperDef]],
}

/// Model-specific and other system registers that only system instructions touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // the names are the manual's
pub struct SysRegs {
    pub cr0: u64,
    pub cr2: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub xcr0: u64,
    pub dr: [u64; 8],
    pub efer: u64,
    pub star: u64,
    pub lstar: u64,
    pub cstar: u64,
    pub sfmask: u64,
    pub kernel_gs_base: u64,
    pub tsc_aux: u64,
    /// Added to the machine's clock to give the TSC.
    pub tsc_offset: u64,
    pub sysenter_cs: u64,
    pub sysenter_esp: u64,
    pub sysenter_eip: u64,
    pub pat: u64,
    pub misc_enable: u64,
    pub mtrr_def_type: u64,
    pub mtrr_fixed: [u64; 11],
    pub mtrr_var: [u64; 16],
    pub spec_ctrl: u64,
    pub pkru: u32,
    /// Microcode revision as the guest last wrote/read it (`IA32_BIOS_SIGN_ID`).
    pub bios_sign_id: u64,
    pub gdtr: TableReg,
    pub idtr: TableReg,
    pub ldtr: Segment,
    pub ldtr_base: u64,
    pub tr: Segment,
    pub tr_base: u64,
}

/// Entries of [`Cpu::jumps`].
pub const JUMPS: usize = 16384;

/// An entry of the cache that indirect jumps look into: block by address and mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Jump {
    /// RAM offset of the block's first byte.
    pub off: u64,
    /// Mode it was lifted for.
    pub mode: u32,
    /// Where its translation starts.
    pub ip: u32,
}

impl Jump {
    /// Matches nothing.
    pub const NONE: Jump = Jump { off: u64::MAX, mode: 0, ip: 0 };

    /// Index of the entry for the block at RAM offset `off`.
    #[inline(always)]
    pub const fn index(off: u64) -> usize {
        (off ^ off >> 12) as usize & (JUMPS - 1)
    }
}

/// One virtual CPU.
pub struct Cpu {
    /// All integer registers of the micro-op machine; see [`Reg`]. The second half is where the
    /// interpreter drops results that nobody wants ([`Cpu::DROP`]).
    pub regs: [u64; 64],
    /// Arithmetic flags.
    pub flags: Flags,
    /// The other bits of RFLAGS; bit 1 is set, the six arithmetic bits are clear.
    pub sysflags: u64,
    /// Instructions that may still run before the run loop looks up; blocks subtract their length.
    pub budget: i64,
    /// Budget taken away by [`kick`](Self::kick), given back by the run loop.
    pub held: i64,
    /// What the current code is lifted for; see [`mode`]. Kept by the frontend.
    pub mode: u32,
    /// Current privilege level.
    pub cpl: u8,
    /// An interrupt shadow (after STI or MOV SS): the next instruction runs uninterrupted.
    pub shadow: bool,
    /// Breakpoints and debug traps.
    pub watch: Watch,
    /// HLT: waiting for an interrupt.
    pub halted: bool,
    /// It is an MWAIT that waits: it may end at any time, and does when the run loop is entered.
    pub mwait: bool,
    /// NMIs are blocked until IRET.
    pub nmi_blocked: bool,
    /// Triple fault: the CPU has shut down.
    pub shutdown: bool,
    /// Stores go into code pages at once (the run loop is stepping over such a store).
    pub smc_through: bool,
    /// Stores that went into translated code: RAM offset and length.
    pub smc: Vec<(u64, u64)>,
    /// Immediates that are overwritten often.
    pub patches: Box<Patches>,
    /// Stores to watched pages that had no code.
    vain_looks: u32,
    /// The fault that made a handler leave its block.
    pub fault: Fault,
    /// MXCSR.
    pub mxcsr: u32,
    /// YMM0–15, then eight vector temporaries.
    pub v: [Ymm; 24],
    /// x87 and MMX.
    pub x87: X87,
    /// ES, CS, SS, DS, FS, GS.
    pub segs: [Segment; 6],
    /// System registers.
    pub sys: SysRegs,
    /// Soft TLB.
    pub tlb: Tlb,
    /// Physical memory and devices.
    pub mem: PhysMem,
    /// The machine's clock.
    pub clock: Arc<Clock>,
    /// Frontend.
    pub frontend: &'static Frontend,
    /// What the CPU has: CPUID features, owned by the frontend.
    pub features: u128,
    /// Which CPU model: owned by the frontend.
    pub model: u8,
    /// Instructions retired up to the last time the run loop looked.
    pub retired: u64,
    /// Budget at that time.
    pub granted: i64,
    /// Added to the instruction count to give instruction-count time: what was skipped while
    /// halted, in nanoseconds.
    pub skipped_ns: u64,
    /// Where indirect jumps find their target block; see [`Jump`].
    pub jumps: Box<[Jump; JUMPS]>,
    /// Helpers that translated code refers to by index.
    pub helpers: Vec<&'static HelperDef>,
    /// Micro-ops that translated code executes from their canonical form, by index.
    pub rare: Vec<crate::uop::Uop>,
    /// What translated host code keeps here.
    pub native: Native,
    /// Enters translated host code.
    pub enter: Enter,
    /// How often translated host code was left, by the number of the [`Leave`].
    pub native_exits: [u64; 16],
    /// Runs left of each block of the cache until it is warm; empty without a translator.
    pub heat: Vec<u16>,
    /// State of the generator behind RDRAND and RDSEED: seeded with a constant, so that a run can
    /// be repeated.
    pub random: u64,
    /// Counts exceptions and interrupts by vector.
    pub vectors: Box<[u64; 256]>,
    /// Counters of the frontend's for sensitive instructions; none unless they are audited.
    pub audit: Vec<u64>,
    /// RIP of the instruction counted last, and its counter.
    pub audited: (u64, usize),
}

impl Cpu {
    /// Index in [`regs`](Self::regs) of the slot for results that are dropped.
    pub const DROP: u8 = 32;

    /// A CPU with all state zero but what must not be; the frontend's reset makes it a real one.
    pub fn new(mem: PhysMem, clock: Arc<Clock>, frontend: &'static Frontend) -> Cpu {
        Cpu {
            regs: [0; 64],
            flags: Flags::from_bits(0),
            sysflags: rflags::ONE,
            budget: 0,
            held: 0,
            mode: 0,
            cpl: 0,
            shadow: false,
            watch: Watch::default(),
            halted: false,
            mwait: false,
            nmi_blocked: false,
            shutdown: false,
            smc_through: false,
            smc: Vec::new(),
            patches: Box::default(),
            vain_looks: 0,
            fault: Fault::UD,
            mxcsr: 0x1f80,
            v: [[0; 4]; 24],
            x87: X87::default(),
            segs: [Segment::default(); 6],
            sys: SysRegs::default(),
            tlb: Tlb::new(),
            mem,
            clock,
            frontend,
            features: 0,
            model: 0,
            retired: 0,
            granted: 0,
            skipped_ns: 0,
            jumps: Box::new([Jump::NONE; JUMPS]),
            helpers: Vec::new(),
            rare: Vec::new(),
            native: Native::default(),
            enter: |_, _| Leave::Lookup.at(0),
            native_exits: [0; 16],
            heat: Vec::new(),
            random: 0,
            vectors: Box::new([0; 256]),
            audit: Vec::new(),
            audited: (u64::MAX, 0),
        }
    }

    /// Register `r`.
    #[inline(always)]
    pub fn reg(&self, r: Reg) -> u64 {
        self.regs[r.ix()]
    }

    /// Writes all 64 bits of register `r`.
    #[inline(always)]
    pub fn set_reg(&mut self, r: Reg, v: u64) {
        self.regs[r.ix()] = v;
    }

    /// Writes register `r` at width `w`, merging as x86 does.
    #[inline(always)]
    pub fn write_reg(&mut self, r: Reg, w: Width, v: u64) {
        self.regs[r.ix()] = w.merge(self.regs[r.ix()], v);
    }

    /// Instruction pointer (offset in CS): between blocks, that of the next instruction.
    #[inline(always)]
    pub fn rip(&self) -> u64 {
        self.regs[Reg::RIP.ix()]
    }

    /// Sets the instruction pointer.
    #[inline(always)]
    pub fn set_rip(&mut self, v: u64) {
        self.regs[Reg::RIP.ix()] = v;
    }

    /// Linear address of the next instruction: CS base + RIP, 32 bits wide outside 64-bit code.
    #[inline]
    pub fn linear_rip(&self) -> u64 {
        if self.mode & mode::CODE64 != 0 {
            self.rip()
        } else {
            self.rip().wrapping_add(self.regs[Reg::CS_BASE.ix()]) & 0xffff_ffff
        }
    }

    /// Base of segment `s`.
    #[inline(always)]
    pub fn base(&self, s: Seg) -> u64 {
        self.regs[s.base().ix()]
    }

    /// RFLAGS as PUSHF in kernel mode would show it.
    pub fn rflags(&self) -> u64 {
        self.sysflags | u64::from(self.flags.bits())
    }

    /// Sets all of RFLAGS; reserved bits are forced.
    pub fn set_rflags(&mut self, v: u64) {
        use rflags::*;
        self.flags = Flags::from_bits(v as u32);
        self.sysflags = ONE
            | v & (TF | IF | DF | IOPL | NT | RF | VM | AC | VIF | VIP | ID) & !u64::from(OSZAPC);
        if self.sysflags & IF != 0 && self.mem.platform.interrupt_pending() {
            self.kick();
        }
    }

    /// Makes the current run end at the next block border.
    #[inline]
    pub fn kick(&mut self) {
        if self.budget > 0 {
            self.held += self.budget;
            self.budget = 0;
        }
    }

    /// Whether nothing is to be done before the next instruction but to find its block.
    pub fn is_quiet(&self) -> bool {
        let waits = self.shutdown || self.halted || self.shadow;
        let w = &self.watch;
        let debugged = w.armed || w.shadow || w.pending != 0 || self.sysflags & rflags::TF != 0;
        let stored = !self.smc.is_empty() || self.mem.code.is_dirty();
        let due = self.budget < 0 || self.held != 0;
        !(due || waits || debugged || stored || self.wants_interrupt())
    }

    /// Whether an interrupt or NMI is requested and not masked.
    pub fn wants_interrupt(&self) -> bool {
        let board = &self.mem.platform;
        self.sysflags & rflags::IF != 0 && board.interrupt_pending()
            || board.nmi_pending() && !self.nmi_blocked
    }

    /// First record of the block at RIP, if that is among the recent targets of indirect jumps.
    #[inline(always)]
    pub fn recent(&self) -> Option<usize> {
        let va = if self.mode & mode::CODE64 != 0 { self.rip() } else { self.linear_rip() };
        let off = self.tlb.exec(va)?;
        let j = &self.jumps[Jump::index(off)];
        (j.off == off && j.mode == self.mode).then_some(j.ip as usize)
    }

    /// Instructions run: retired, faulted, and an eighth of the iterations of repeated string
    /// instructions. Exact between blocks.
    pub fn icount(&self) -> u64 {
        self.retired.wrapping_add((self.granted - self.budget - self.held) as u64)
    }

    /// Nanoseconds since the machine started; moves an instruction-count clock first.
    pub fn now(&self) -> u64 {
        if self.clock.is_icount() {
            self.clock.set(self.icount() + self.skipped_ns);
        }
        self.clock.now()
    }

    /// The time-stamp counter.
    pub fn tsc(&self) -> u64 {
        self.now().wrapping_add(self.sys.tsc_offset)
    }

    /// After a device access: a newly pending interrupt, code that the device has overwritten, or
    /// memory that it has laid out anew ends the run at the next block border.
    fn after_io(&mut self) {
        if self.wants_interrupt() || self.mem.code.is_dirty() {
            self.kick();
        }
    }

    fn note_port(&mut self, port: u16, w: Width) {
        if self.watch.armed {
            self.watch.port(port, w.bytes());
        }
    }

    /// IN from `port`; `w` up to 32 bits.
    pub fn port_in(&mut self, port: u16, w: Width) -> u32 {
        self.now();
        self.note_port(port, w);
        let v = self.mem.platform.port_in(port, w.bytes() as u8);
        self.after_io();
        w.zext(v.into()) as u32
    }

    /// OUT to `port`; `w` up to 32 bits.
    pub fn port_out(&mut self, port: u16, w: Width, value: u32) {
        self.now();
        self.note_port(port, w);
        self.mem.platform.port_out(port, w.bytes() as u8, w.zext(value.into()) as u32);
        self.after_io();
    }

    /// Reads memory at linear address `va` as the current privilege.
    ///
    /// # Errors
    /// #PF, or #GP(0) for a non-canonical address.
    #[inline(always)]
    pub fn read(&mut self, va: u64, w: Width) -> Guest<u64> {
        match self.tlb.read(va, w.bytes()) {
            Some(off) => Ok(self.mem.ram.read(off, w)),
            None => self.read_slow(va, w),
        }
    }

    /// Writes memory at linear address `va` as the current privilege. A store into translated
    /// code takes effect and the code is invalidated when the current run ends, which this
    /// brings about: for helpers, which end their block.
    ///
    /// # Errors
    /// #PF, or #GP(0) for a non-canonical address; nothing was written then.
    #[inline(always)]
    pub fn write(&mut self, va: u64, w: Width, value: u64) -> Guest<()> {
        match self.tlb.write(va, w.bytes()) {
            Some(off) => {
                self.mem.ram.write(off, w, value);
                Ok(())
            }
            None => self.write_slow(va, w, value),
        }
    }

    /// Checks that `n` bytes (up to a page) at `va` may be accessed, without accessing them: a
    /// helper that makes several accesses checks them all before it changes anything.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn probe(&mut self, va: u64, n: u64, access: Access) -> Guest<()> {
        let known = match access {
            Access::Read => self.tlb.read(va, n),
            Access::Write => self.tlb.write(va, n).or_else(|| self.tlb.write_beside_code(va, n)),
            Access::Exec => None,
        };
        if known.is_some() {
            return Ok(());
        }
        let in_page = 4096 - (va & 4095);
        if n > in_page {
            self.check_crossing(va, in_page)?;
        }
        (self.frontend.translate)(self, va, access)?;
        let last = self.wrap_linear(va.wrapping_add(n - 1));
        if (last ^ va) & !4095 != 0 {
            // The first byte of the second page is what faults.
            (self.frontend.translate)(self, last & !4095, access)?;
        }
        Ok(())
    }

    /// Outside 64-bit code linear addresses are 32 bits wide.
    #[inline]
    pub fn wrap_linear(&self, va: u64) -> u64 {
        if self.mode & mode::CODE64 != 0 { va } else { va & 0xffff_ffff }
    }

    /// Whether `va` is canonical in the paging mode in force: 57 bits with CR4.LA57, else 48 (SDM
    /// Vol. 1, 3.3.7.1).
    #[inline]
    pub const fn canonical(&self, va: u64) -> bool {
        let unused = if self.sys.cr4 & 1 << 12 != 0 { 7 } else { 16 };
        (va << unused) as i64 >> unused == va as i64
    }

    /// An access at `va` that goes on `in_page` bytes further in the next page: #GP(0) if that is
    /// beyond the canonical addresses, whatever the first page is.
    fn check_crossing(&self, va: u64, in_page: u64) -> Guest<()> {
        let next = self.wrap_linear(va.wrapping_add(in_page));
        if self.canonical(next) { Ok(()) } else { Err(Self::address_fault(false)) }
    }

    /// Alignment checking, where it is in force: the `n` bytes at `va` must be aligned at `n`, a
    /// power of two (SDM Vol. 3, table 6-7). It comes before paging, after canonical form.
    ///
    /// # Errors
    /// #AC(0).
    #[inline]
    pub fn check_alignment(&self, va: u64, n: u64) -> Guest<()> {
        let misaligned = self.mode & mode::ALIGN != 0 && va & (n - 1) != 0;
        if misaligned && self.canonical(va) {
            return Err(Fault::with_error(vector::AC, 0));
        }
        Ok(())
    }

    /// Runs `f` without alignment checking of its accesses.
    pub fn unaligned<R>(&mut self, f: impl FnOnce(&mut Cpu) -> R) -> R {
        let old = self.mode & mode::ALIGN;
        self.mode &= !mode::ALIGN;
        let r = f(self);
        self.mode |= old;
        r
    }

    /// Before an access on the slow path: alignment and breakpoints.
    fn before_access(&mut self, va: u64, n: u64, write: bool) -> Guest<()> {
        self.check_alignment(va, n)?;
        if self.watch.armed {
            self.watch.access(va, n, write);
        }
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn read_slow(&mut self, va: u64, w: Width) -> Guest<u64> {
        self.tlb.stats.l1_misses += 1;
        let va = self.wrap_linear(va);
        let n = w.bytes();
        self.before_access(va, n, false)?;
        let in_page = 4096 - (va & 4095);
        if n <= in_page {
            let pa = (self.frontend.translate)(self, va, Access::Read)?;
            return Ok(self.phys_read(pa, w));
        }
        self.check_crossing(va, in_page)?;
        let low = (self.frontend.translate)(self, va, Access::Read)?;
        let high = self.wrap_linear(va.wrapping_add(in_page));
        let high = (self.frontend.translate)(self, high, Access::Read)?;
        let mut v = 0;
        for i in 0..n {
            let pa = if i < in_page { low + i } else { high + i - in_page };
            v |= self.phys_read(pa, W8) << (8 * i);
        }
        Ok(v)
    }

    #[cold]
    #[inline(never)]
    fn write_slow(&mut self, va: u64, w: Width, value: u64) -> Guest<()> {
        let n = w.bytes();
        if let Some(off) = self.tlb.write_beside_code(va, n) {
            self.ram_write(off, w, value);
            if self.mem.code.page(off) == 0 {
                self.without_code(va, off);
            }
            return Ok(());
        }
        self.tlb.stats.l1_misses += 1;
        let va = self.wrap_linear(va);
        self.before_access(va, n, true)?;
        let in_page = 4096 - (va & 4095);
        if n > in_page {
            self.check_crossing(va, in_page)?;
        }
        let low = (self.frontend.translate)(self, va, Access::Write)?;
        if n <= in_page {
            self.phys_write(low, w, value);
            return Ok(());
        }
        let high = self.wrap_linear(va.wrapping_add(in_page));
        let high = (self.frontend.translate)(self, high, Access::Write)?;
        for i in 0..n {
            let pa = if i < in_page { low + i } else { high + i - in_page };
            self.phys_write(pa, W8, value >> (8 * i));
        }
        Ok(())
    }

    /// A store at `va`, RAM offset `off`, was to a watched page without code. That it had code is
    /// no reason to watch it for ever, but there may be new code at once.
    fn without_code(&mut self, va: u64, off: u64) {
        self.vain_looks = self.vain_looks.wrapping_add(1);
        if self.vain_looks.is_multiple_of(16) {
            self.mem.code.release(off);
            self.tlb.unprotect(va);
        }
    }

    /// Reads guest-physical memory or a device; must not cross a page.
    pub fn phys_read(&mut self, pa: u64, w: Width) -> u64 {
        if let Some((off, _)) = self.mem.lookup(pa) {
            return self.mem.ram.read(off, w);
        }
        self.now();
        let v = w.zext(self.mem.platform.mmio_read(pa, w.bytes() as u8));
        self.after_io();
        v
    }

    /// Writes guest-physical memory or a device on behalf of an instruction; must not cross a
    /// page. Code that is hit will be invalidated when the current run ends.
    pub fn phys_write(&mut self, pa: u64, w: Width, value: u64) {
        match self.mem.lookup(pa) {
            Some((off, Writes::Ram)) => self.ram_write(off, w, value),
            Some((_, Writes::Nowhere)) => {}
            Some((_, Writes::Platform)) | None => {
                self.now();
                self.mem.platform.mmio_write(pa, w.bytes() as u8, w.zext(value));
                self.after_io();
            }
        }
    }

    /// Notes a store of `n` bytes (not crossing a page) at RAM offset `off`: code that it hits will
    /// be invalidated when the current run ends.
    #[inline]
    pub fn stored(&mut self, off: u64, n: u64) {
        if self.mem.code.hit(off, n) && !self.patches.is_alone(off, n) {
            self.smc.push((off, n));
            self.kick();
        }
    }

    /// Writes RAM that may have code.
    fn ram_write(&mut self, off: u64, w: Width, value: u64) {
        self.stored(off, w.bytes());
        self.mem.ram.write(off, w, value);
    }

    /// Alignment checking of `n` bytes that are not one number: vectors of 16 and 32 bytes at 16,
    /// others at 4 or what their size is a multiple of.
    fn check_array(&self, va: u64, n: usize) -> Guest<()> {
        let lowest = 1 << n.trailing_zeros();
        self.check_alignment(
            self.wrap_linear(va),
            if n == 16 || n == 32 { 16 } else { lowest.min(4) },
        )
    }

    /// Reads `N` bytes.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_array<const N: usize>(&mut self, va: u64) -> Guest<[u8; N]> {
        if self.mode & mode::ALIGN != 0 {
            self.check_array(va, N)?;
            return self.unaligned(|cpu| cpu.read_array(va));
        }
        let mut out = [0; N];
        if N > 1 {
            self.probe(va, N as u64, Access::Read)?;
        }
        let mut i = 0;
        while i < N {
            let w = [W8, W16, W32, W64].into_iter().rev().find(|w| w.bytes() as usize <= N - i);
            let w = w.unwrap_or(W8);
            let at = self.wrap_linear(va.wrapping_add(i as u64));
            let v = self.read(at, w)?.to_le_bytes();
            out[i..i + w.bytes() as usize].copy_from_slice(&v[..w.bytes() as usize]);
            i += w.bytes() as usize;
        }
        Ok(out)
    }

    /// Writes `data` (up to a page); all of it or nothing.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_array(&mut self, va: u64, data: &[u8]) -> Guest<()> {
        if self.mode & mode::ALIGN != 0 {
            self.check_array(va, data.len())?;
            return self.unaligned(|cpu| cpu.write_array(va, data));
        }
        if data.len() > 1 {
            self.probe(va, data.len() as u64, Access::Write)?;
        }
        let mut rest = data;
        let mut at = va;
        while !rest.is_empty() {
            let w = [W64, W32, W16].into_iter().find(|w| w.bytes() as usize <= rest.len());
            let w = w.unwrap_or(W8);
            let (head, tail) = rest.split_at(w.bytes() as usize);
            let mut bytes = [0; 8];
            bytes[..head.len()].copy_from_slice(head);
            self.write(self.wrap_linear(at), w, u64::from_le_bytes(bytes))?;
            at = at.wrapping_add(w.bytes());
            rest = tail;
        }
        Ok(())
    }

    /// The #GP(0) or #SS(0) of an address that is not canonical, depending on the segment.
    pub const fn address_fault(stack: bool) -> Fault {
        Fault::with_error(if stack { vector::SS } else { vector::GP }, 0)
    }
}
