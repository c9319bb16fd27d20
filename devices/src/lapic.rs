//! The local APIC: one interrupt controller and timer per processor.
//!
//! Problem: a processor must know, after every device access, which vector it shall take next,
//! and a guest reaches the same registers in two ways, as a 4 KiB page (xAPIC) and as MSRs
//! (x2APIC).
//!
//! Method: both views end in one numbered register file, the number being the page offset / 16
//! and the MSR − 800H. The next vector is computed when IRR, ISR, TPR or SVR change, so that
//! [`LocalApic::pending`] is a field. The timer is never ticked: it holds the moment at which it
//! expires, and the current count is derived from the time of the access. What leaves the chip
//! (IPIs, EOI messages) waits in [`LocalApic::take_effects`] for the board.
//!
//! Invariants: after [`LocalApic::advance`]`(now)` the deadline lies after `now`; a vector below
//! 16 never gets into IRR; with the software enable bit off every LVT entry that is written is
//! masked, and nothing is accepted or pending.
//!
//! Source: Intel SDM Vol. 3A, chapter "Advanced Programmable Interrupt Controller (APIC)".

/// IA32_APIC_BASE: base address, mode and BSP flag of the local APIC.
pub const IA32_APIC_BASE: u32 = 0x1B;
/// IA32_TSC_DEADLINE: the time-stamp at which the timer fires in TSC-deadline mode.
pub const IA32_TSC_DEADLINE: u32 = 0x6E0;
/// First MSR of the x2APIC view.
pub const X2APIC_MSR_FIRST: u32 = 0x800;
/// Last MSR of the x2APIC view that this chip answers.
pub const X2APIC_MSR_LAST: u32 = 0x83F;
/// Physical address of the register page after reset.
pub const DEFAULT_BASE: u64 = 0xFEE0_0000;
/// Destination that means every processor, in [`Effect::Ipi`] and [`LocalApic::matches`].
pub const BROADCAST: u32 = u32::MAX;

const BASE_BSP: u64 = 1 << 8;
const BASE_EXTD: u64 = 1 << 10;
const BASE_EN: u64 = 1 << 11;
/// Bits 51:12, the widest physical address there is; a processor with a smaller MAXPHYADDR
/// refuses the rest itself.
const BASE_ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;

/// Version 14H, Max LVT Entry 5, no suppression of EOI broadcasts.
const VERSION: u32 = 0x0005_0014;

/// Register numbers: xAPIC offset / 16, x2APIC MSR − 800H.
mod reg {
    pub const ID: u32 = 0x02;
    pub const VERSION: u32 = 0x03;
    pub const TPR: u32 = 0x08;
    pub const APR: u32 = 0x09;
    pub const PPR: u32 = 0x0A;
    pub const EOI: u32 = 0x0B;
    pub const RRD: u32 = 0x0C;
    pub const LDR: u32 = 0x0D;
    pub const DFR: u32 = 0x0E;
    pub const SVR: u32 = 0x0F;
    pub const ISR: u32 = 0x10;
    pub const ISR_LAST: u32 = 0x17;
    pub const TMR: u32 = 0x18;
    pub const TMR_LAST: u32 = 0x1F;
    pub const IRR: u32 = 0x20;
    pub const IRR_LAST: u32 = 0x27;
    pub const ESR: u32 = 0x28;
    pub const ICR_LOW: u32 = 0x30;
    pub const ICR_HIGH: u32 = 0x31;
    pub const LVT_TIMER: u32 = 0x32;
    pub const LVT_THERMAL: u32 = 0x33;
    pub const LVT_PERFMON: u32 = 0x34;
    pub const LVT_LINT0: u32 = 0x35;
    pub const LVT_LINT1: u32 = 0x36;
    pub const LVT_ERROR: u32 = 0x37;
    pub const INITIAL_COUNT: u32 = 0x38;
    pub const CURRENT_COUNT: u32 = 0x39;
    pub const DIVIDE: u32 = 0x3E;
    pub const SELF_IPI: u32 = 0x3F;
}

/// The local vector table, by register number − [`reg::LVT_TIMER`].
mod lvt {
    pub const TIMER: usize = 0;
    pub const LINT0: usize = 3;
    pub const LINT1: usize = 4;
    pub const ERROR: usize = 5;
}

const LVT_MASKED: u32 = 1 << 16;
const TIMER_MODE: u32 = 3 << 17;
const TIMER_PERIODIC: u32 = 1 << 17;
const TIMER_TSC_DEADLINE: u32 = 2 << 17;

const SVR_ENABLE: u32 = 1 << 8;
const SVR_RESET: u32 = 0xFF;

const ESR_SEND_ILLEGAL_VECTOR: u32 = 1 << 5;
const ESR_RECEIVE_ILLEGAL_VECTOR: u32 = 1 << 6;
const ESR_ILLEGAL_REGISTER: u32 = 1 << 7;

const ICR_LOGICAL: u64 = 1 << 11;
const ICR_LEVEL: u64 = 1 << 14;
const ICR_TRIGGER: u64 = 1 << 15;
const ICR_WRITABLE: u32 = 0x000C_CFFF;

const NS_PER_S: u128 = 1_000_000_000;

/// Bits of a register that software may set. The x2APIC view raises #GP for the others (save the
/// read-only status bits of [`status_bits`]) and for registers that are not in this table.
fn writable(register: u32) -> Option<u32> {
    Some(match register {
        reg::TPR => 0xFF,
        reg::EOI | reg::ESR => 0,
        reg::SVR => 0x1FF,
        reg::ICR_LOW => ICR_WRITABLE,
        reg::LVT_TIMER => 0x0007_00FF,
        reg::LVT_THERMAL | reg::LVT_PERFMON => 0x0001_07FF,
        reg::LVT_LINT0 | reg::LVT_LINT1 => 0x0001_A7FF,
        reg::LVT_ERROR => 0x0001_00FF,
        reg::INITIAL_COUNT => u32::MAX,
        reg::DIVIDE => 0xB,
        reg::SELF_IPI => 0xFF,
        _ => return None,
    })
}

/// Read-only bits that a read-modify-write may carry along: delivery status, remote IRR.
fn status_bits(register: u32) -> u32 {
    match register {
        reg::LVT_LINT0 | reg::LVT_LINT1 => 0x5000,
        reg::ICR_LOW | reg::LVT_TIMER..=reg::LVT_ERROR => 0x1000,
        _ => 0,
    }
}

/// What a message asks of the processor that takes it: bits 10:8 of the ICR, of an LVT entry and
/// of an I/O APIC redirection entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryMode {
    /// 000: the vector goes to every processor of the destination.
    Fixed,
    /// 001: the vector goes to the destination's processor of lowest priority.
    LowestPriority,
    /// 010: system management interrupt.
    Smi,
    /// 011: reserved.
    Reserved,
    /// 100: non-maskable interrupt, the vector is ignored.
    Nmi,
    /// 101: INIT request.
    Init,
    /// 110: start-up, execution begins at page `vector`.
    StartUp,
    /// 111: the vector comes from the 8259A.
    ExtInt,
}

impl DeliveryMode {
    /// From the low three bits of `bits`.
    #[must_use]
    pub fn from_bits(bits: u8) -> Self {
        match bits & 7 {
            0 => Self::Fixed,
            1 => Self::LowestPriority,
            2 => Self::Smi,
            3 => Self::Reserved,
            4 => Self::Nmi,
            5 => Self::Init,
            6 => Self::StartUp,
            _ => Self::ExtInt,
        }
    }

    /// True if the message carries a vector that goes into IRR.
    #[must_use]
    pub fn has_vector(self) -> bool {
        matches!(self, Self::Fixed | Self::LowestPriority)
    }
}

/// For whom an inter-processor interrupt is meant (ICR, destination shorthand).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// No shorthand: whoever [`LocalApic::matches`], the sender included.
    Address {
        /// APIC ID or logical destination; [`BROADCAST`] for all.
        dest: u32,
        /// Logical rather than physical destination mode.
        logical: bool,
    },
    /// The sender alone.
    SelfOnly,
    /// Every processor.
    AllIncludingSelf,
    /// Every processor but the sender.
    AllExcludingSelf,
}

/// Something that leaves the chip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// End of interrupt of a level-triggered vector, for the I/O APICs.
    Eoi(u8),
    /// An inter-processor interrupt. Fixed ones to oneself by shorthand never get here.
    Ipi {
        /// Who takes it.
        destination: Destination,
        /// What it asks for.
        delivery_mode: DeliveryMode,
        /// Interrupt vector, or page number for [`DeliveryMode::StartUp`].
        vector: u8,
    },
}

/// A set of the 256 vectors.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Vectors([u64; 4]);

impl Vectors {
    fn highest(&self) -> Option<u8> {
        let word = (0..4).rev().find(|&i| self.0[i] != 0)?;
        Some((word as u8) << 6 | (63 - self.0[word].leading_zeros() as u8))
    }

    fn contains(&self, vector: u8) -> bool {
        self.0[usize::from(vector >> 6)] >> (vector & 63) & 1 != 0
    }

    fn put(&mut self, vector: u8, on: bool) {
        let (word, bit) = (&mut self.0[usize::from(vector >> 6)], 1 << (vector & 63));
        *word = if on { *word | bit } else { *word & !bit };
    }

    /// Bits 32·n to 32·n+31, for n modulo 8.
    fn dword(&self, n: u32) -> u32 {
        (self.0[(n as usize >> 1) & 3] >> (32 * (n & 1))) as u32
    }
}

/// When the timer expires.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Timer {
    Stopped,
    /// Counts the bus clock; expires when `until` bus cycles have passed since `origin` (ns).
    Counting {
        origin: u64,
        until: u64,
    },
    /// Expires when the time-stamp counter gets to `deadline`, which is at `at` (ns).
    TscDeadline {
        deadline: u64,
        at: u64,
    },
}

/// The three states of a local APIC (SDM, "x2APIC State Transitions").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Disabled,
    XApic,
    X2Apic,
}

impl Mode {
    fn of(apic_base: u64) -> Option<Self> {
        match (apic_base & BASE_EN != 0, apic_base & BASE_EXTD != 0) {
            (false, false) => Some(Self::Disabled),
            (true, false) => Some(Self::XApic),
            (true, true) => Some(Self::X2Apic),
            (false, true) => None,
        }
    }
}

/// A local APIC.
#[derive(Clone, Debug, PartialEq)]
pub struct LocalApic {
    /// The ID given at power-up, which the x2APIC view reports.
    id: u32,
    bsp: bool,
    bus_hz: u64,
    tsc_hz: u64,

    apic_base: u64,
    mode: Mode,
    /// Bits 31:24 of the xAPIC ID register, which software may change.
    xapic_id: u8,
    tpr: u8,
    /// Bits 31:24 of the xAPIC logical destination register.
    ldr: u8,
    dfr: u32,
    svr: u32,
    isr: Vectors,
    tmr: Vectors,
    irr: Vectors,
    esr: u32,
    /// Errors since the last write of ESR.
    errors: u32,
    icr: u64,
    lvt: [u32; 6],
    initial_count: u32,
    divide: u32,
    timer: Timer,

    /// Derived from TPR and ISR.
    ppr: u8,
    /// Derived from IRR, PPR and SVR.
    next: Option<u8>,
    effects: Vec<Effect>,
}

impl LocalApic {
    /// A local APIC after power-up. `id` is its APIC ID, `bsp` is set for the boot processor;
    /// the timer counts at `bus_hz` before division, the time-stamp counter at `tsc_hz`.
    #[must_use]
    pub fn new(id: u32, bsp: bool, bus_hz: u64, tsc_hz: u64) -> Self {
        let mut apic = Self {
            id,
            bsp,
            bus_hz: bus_hz.max(1),
            tsc_hz: tsc_hz.max(1),
            apic_base: 0,
            mode: Mode::XApic,
            xapic_id: 0,
            tpr: 0,
            ldr: 0,
            dfr: 0,
            svr: 0,
            isr: Vectors::default(),
            tmr: Vectors::default(),
            irr: Vectors::default(),
            esr: 0,
            errors: 0,
            icr: 0,
            lvt: [0; 6],
            initial_count: 0,
            divide: 0,
            timer: Timer::Stopped,
            ppr: 0,
            next: None,
            effects: Vec::new(),
        };
        apic.reset();
        apic
    }

    /// Power-up reset: xAPIC mode at [`DEFAULT_BASE`], software-disabled.
    pub fn reset(&mut self) {
        self.apic_base = DEFAULT_BASE | BASE_EN | if self.bsp { BASE_BSP } else { 0 };
        self.mode = Mode::XApic;
        self.xapic_id = self.id as u8;
        self.effects.clear();
        self.init();
    }

    /// What an INIT request does: as [`reset`](Self::reset), but the APIC ID and IA32_APIC_BASE
    /// stay, and so do effects that were already sent.
    pub fn init(&mut self) {
        self.tpr = 0;
        self.ldr = 0;
        self.dfr = u32::MAX;
        self.svr = SVR_RESET;
        self.isr = Vectors::default();
        self.tmr = Vectors::default();
        self.irr = Vectors::default();
        self.esr = 0;
        self.errors = 0;
        self.icr = 0;
        self.lvt = [LVT_MASKED; 6];
        if self.bsp {
            // The manual masks LINT0, and firmware then opens it. A PC emulator opens it at
            // once (as QEMU does), for kernels that are started without firmware.
            self.lvt[lvt::LINT0] = 0x700;
        }
        self.initial_count = 0;
        self.divide = 0;
        self.timer = Timer::Stopped;
        self.update();
    }

    /// The APIC ID of power-up, which is also the x2APIC ID.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Whether the APIC is globally enabled (IA32_APIC_BASE\[11\]); CPUID.1:EDX.APIC follows it.
    #[must_use]
    pub fn enabled(&self) -> bool {
        self.mode != Mode::Disabled
    }

    /// Guest-physical address of the register page, or `None` if there is none (globally
    /// disabled, or x2APIC mode).
    #[must_use]
    pub fn base(&self) -> Option<u64> {
        (self.mode == Mode::XApic).then_some(self.apic_base & BASE_ADDRESS)
    }

    /// CR8: the priority class of the TPR, 0 to 15.
    #[must_use]
    pub fn tpr(&self) -> u8 {
        self.tpr >> 4
    }

    /// Writes CR8: sets the priority class of the TPR (bits 3:0 of `class`), clears its subclass.
    pub fn set_tpr(&mut self, class: u8) {
        self.tpr = class << 4;
        self.update();
    }

    /// Processor priority register, by which the board arbitrates lowest-priority delivery.
    #[must_use]
    pub fn ppr(&self) -> u8 {
        self.ppr
    }

    /// The vector that the processor shall take now, if interrupts are enabled: the highest in
    /// IRR, if its priority class exceeds that of PPR and the APIC is software-enabled.
    #[inline]
    #[must_use]
    pub fn pending(&self) -> Option<u8> {
        self.next
    }

    /// The processor takes the pending vector: it moves from IRR to ISR.
    pub fn acknowledge(&mut self) -> Option<u8> {
        let vector = self.next?;
        self.irr.put(vector, false);
        self.isr.put(vector, true);
        self.update();
        Some(vector)
    }

    /// A fixed or lowest-priority message with `vector` arrives. It is lost while the APIC is
    /// disabled, be it globally or by software: only INIT, NMI, SMI and start-up get through then.
    pub fn accept(&mut self, vector: u8, level_triggered: bool) {
        if self.svr & SVR_ENABLE == 0 {
            return;
        }
        if vector < 16 {
            return self.error(ESR_RECEIVE_ILLEGAL_VECTOR);
        }
        self.irr.put(vector, true);
        self.tmr.put(vector, level_triggered);
        self.update();
    }

    /// Whether a message to `dest` is meant for this processor. In xAPIC mode FFH is a broadcast
    /// as well as [`BROADCAST`].
    #[must_use]
    pub fn matches(&self, dest: u32, logical: bool) -> bool {
        match (self.mode, logical) {
            (Mode::Disabled, _) => false,
            _ if dest == BROADCAST => true,
            (Mode::X2Apic, false) => dest == self.id,
            (Mode::X2Apic, true) => {
                let ldr = self.logical_id();
                dest >> 16 == ldr >> 16 && dest & ldr & 0xFFFF != 0
            }
            (Mode::XApic, _) if dest >= 0xFF => dest == 0xFF,
            (Mode::XApic, false) => dest == u32::from(self.xapic_id),
            (Mode::XApic, true) => {
                let mda = dest as u8;
                match self.dfr >> 28 {
                    0xF => mda & self.ldr != 0,
                    0x0 => {
                        (mda >> 4 == self.ldr >> 4 || mda >> 4 == 0xF) && mda & self.ldr & 0xF != 0
                    }
                    _ => false,
                }
            }
        }
    }

    /// Whether the INTR output of the 8259A reaches the processor: the APIC is globally disabled,
    /// or LINT0 is unmasked and in ExtINT mode.
    #[must_use]
    pub fn extint_enabled(&self) -> bool {
        self.pin_mode(lvt::LINT0) == Some(DeliveryMode::ExtInt)
    }

    /// Whether the NMI input reaches the processor: the APIC is globally disabled, or LINT1 is
    /// unmasked and in NMI mode.
    #[must_use]
    pub fn nmi_lint1_enabled(&self) -> bool {
        self.pin_mode(lvt::LINT1) == Some(DeliveryMode::Nmi)
    }

    /// A rising edge at LINT0: sets the LVT entry's vector in IRR if that is unmasked and in
    /// fixed mode (virtual wire without the 8259A's vector).
    pub fn pulse_lint0(&mut self) {
        if self.enabled() && self.pin_mode(lvt::LINT0) == Some(DeliveryMode::Fixed) {
            self.deliver(lvt::LINT0);
        }
    }

    /// Takes what has left the chip since the last call.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// The next moment (ns) at which the timer may raise an interrupt.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        self.expiry().filter(|_| self.lvt[lvt::TIMER] & LVT_MASKED == 0)
    }

    /// Lets the timer expire if its time has come by `now` (ns). Periods that were missed
    /// altogether count as one.
    pub fn advance(&mut self, now: u64) {
        if self.expiry().is_none_or(|at| now < at) {
            return;
        }
        let period = u64::from(self.initial_count) << self.divide_shift();
        self.timer = match self.timer {
            Timer::Counting { origin, until }
                if self.timer_mode() == TIMER_PERIODIC && period != 0 =>
            {
                let missed = self.bus_cycles(origin, now).saturating_sub(until) / period;
                let until = until.saturating_add(period.saturating_mul(missed + 1));
                Timer::Counting { origin, until }
            }
            _ => Timer::Stopped,
        };
        self.deliver(lvt::TIMER);
    }

    /// The time-stamp counter was written and is `tsc` at `now` (ns): an armed TSC deadline
    /// moves with it.
    pub fn tsc_changed(&mut self, now: u64, tsc: u64) {
        self.advance(now);
        if let Timer::TscDeadline { deadline, .. } = self.timer {
            self.arm_tsc_deadline(now, tsc, deadline);
        }
    }

    /// Reads `size` bytes at `offset` of the register page at `now` (ns). Registers are 32 bits
    /// wide at multiples of 16, the bytes between read as zero; in another mode than xAPIC there
    /// is no page, and it reads as ones.
    pub fn read(&mut self, now: u64, offset: u64, size: u8) -> u64 {
        self.advance(now);
        let size_mask = u64::MAX >> (64 - 8 * u32::from(size.clamp(1, 8)));
        if self.mode != Mode::XApic {
            return size_mask;
        }
        let (register, byte) = ((offset >> 4) as u32 & 0xFF, offset & 0xF);
        match self.register(now, register) {
            Some(value) if byte < 4 => u64::from(value) >> (8 * byte) & size_mask,
            Some(_) => 0,
            None => {
                self.error(ESR_ILLEGAL_REGISTER);
                0
            }
        }
    }

    /// Writes `size` bytes at `offset` of the register page at `now` (ns). Only accesses of four
    /// or more bytes at a multiple of 16 do anything, as the manual asks of software.
    pub fn write(&mut self, now: u64, offset: u64, size: u8, value: u64) {
        self.advance(now);
        if self.mode != Mode::XApic || offset & 0xF != 0 || size < 4 {
            return;
        }
        let register = (offset >> 4) as u32 & 0xFF;
        let value = value as u32;
        match register {
            reg::ID => self.xapic_id = (value >> 24) as u8,
            reg::LDR => self.ldr = (value >> 24) as u8,
            reg::DFR => self.dfr = value | 0x0FFF_FFFF,
            reg::ICR_HIGH => {
                self.icr = u64::from(value & 0xFF00_0000) << 32 | u64::from(self.icr as u32);
            }
            reg::ICR_LOW => {
                let high = self.icr & 0xFFFF_FFFF_0000_0000;
                self.send(high | u64::from(value & ICR_WRITABLE));
            }
            // x2APIC only.
            reg::SELF_IPI => self.error(ESR_ILLEGAL_REGISTER),
            _ if writable(register).is_some() => self.set_register(now, register, value),
            // Read-only registers ignore writes.
            _ if self.register(now, register).is_some() => {}
            _ => self.error(ESR_ILLEGAL_REGISTER),
        }
    }

    /// RDMSR of IA32_APIC_BASE, IA32_TSC_DEADLINE or an x2APIC register at `now` (ns). `None`
    /// means #GP(0).
    pub fn msr_read(&mut self, now: u64, _tsc: u64, msr: u32) -> Option<u64> {
        self.advance(now);
        match (msr, self.timer) {
            (IA32_APIC_BASE, _) => return Some(self.apic_base),
            (IA32_TSC_DEADLINE, Timer::TscDeadline { deadline, .. }) => return Some(deadline),
            (IA32_TSC_DEADLINE, _) => return Some(0),
            _ => {}
        }
        match self.x2apic_register(msr)? {
            reg::APR | reg::EOI | reg::RRD | reg::DFR | reg::ICR_HIGH => None,
            reg::ICR_LOW => Some(self.icr),
            register => self.register(now, register).map(u64::from),
        }
    }

    /// WRMSR of IA32_APIC_BASE, IA32_TSC_DEADLINE or an x2APIC register at `now` (ns), when the
    /// time-stamp counter is `tsc`. `None` means #GP(0).
    pub fn msr_write(&mut self, now: u64, tsc: u64, msr: u32, value: u64) -> Option<()> {
        self.advance(now);
        match msr {
            IA32_APIC_BASE => return self.set_apic_base(value),
            IA32_TSC_DEADLINE => {
                if self.timer_mode() == TIMER_TSC_DEADLINE {
                    self.arm_tsc_deadline(now, tsc, value);
                    self.advance(now);
                }
                return Some(());
            }
            _ => {}
        }
        let register = self.x2apic_register(msr)?;
        let allowed = u64::from(writable(register)? | status_bits(register));
        let high = value & 0xFFFF_FFFF_0000_0000;
        match register {
            reg::ICR_LOW if value & !high & !allowed == 0 => {
                self.send(high | value & u64::from(ICR_WRITABLE));
            }
            _ if value & !allowed != 0 => return None,
            reg::SELF_IPI if value < 16 => self.error(ESR_SEND_ILLEGAL_VECTOR),
            reg::SELF_IPI => self.accept(value as u8, false),
            _ => self.set_register(now, register, value as u32),
        }
        Some(())
    }

    fn x2apic_register(&self, msr: u32) -> Option<u32> {
        let known = (X2APIC_MSR_FIRST..=X2APIC_MSR_LAST).contains(&msr);
        (known && self.mode == Mode::X2Apic).then(|| msr - X2APIC_MSR_FIRST)
    }

    /// Changes IA32_APIC_BASE, or refuses reserved bits and illegal transitions: into x2APIC mode
    /// only from xAPIC mode, out of it only by disabling.
    fn set_apic_base(&mut self, value: u64) -> Option<()> {
        if value & !(BASE_ADDRESS | BASE_EN | BASE_EXTD | BASE_BSP) != 0 {
            return None;
        }
        let mode = Mode::of(value)?;
        match (self.mode, mode) {
            (Mode::Disabled, Mode::X2Apic) | (Mode::X2Apic, Mode::XApic) => return None,
            // An APIC that is enabled again is in its power-up state.
            (Mode::XApic | Mode::X2Apic, Mode::Disabled) => {
                self.xapic_id = self.id as u8;
                self.init();
            }
            _ => {}
        }
        self.apic_base = value;
        self.mode = mode;
        Some(())
    }

    /// The value of a register, or `None` if there is none of that number.
    fn register(&self, now: u64, register: u32) -> Option<u32> {
        Some(match register {
            reg::ID if self.mode == Mode::X2Apic => self.id,
            reg::ID => u32::from(self.xapic_id) << 24,
            reg::VERSION => VERSION,
            reg::TPR => self.tpr.into(),
            reg::PPR => self.ppr.into(),
            reg::APR | reg::EOI | reg::RRD => 0,
            reg::LDR => self.logical_id(),
            reg::DFR => self.dfr,
            reg::SVR => self.svr,
            reg::ISR..=reg::ISR_LAST => self.isr.dword(register),
            reg::TMR..=reg::TMR_LAST => self.tmr.dword(register),
            reg::IRR..=reg::IRR_LAST => self.irr.dword(register),
            reg::ESR => self.esr,
            reg::ICR_LOW => self.icr as u32,
            reg::ICR_HIGH => (self.icr >> 32) as u32,
            reg::LVT_TIMER..=reg::LVT_ERROR => self.lvt[(register - reg::LVT_TIMER) as usize],
            reg::INITIAL_COUNT => self.initial_count,
            reg::CURRENT_COUNT => self.current_count(now),
            reg::DIVIDE => self.divide,
            _ => return None,
        })
    }

    /// Writes a register that both views have and that is a plain 32-bit value.
    fn set_register(&mut self, now: u64, register: u32, value: u32) {
        let value = value & writable(register).unwrap_or(0);
        match register {
            reg::TPR => self.tpr = value as u8,
            reg::EOI => self.end_of_interrupt(),
            reg::SVR => {
                self.svr = value;
                if value & SVR_ENABLE == 0 {
                    self.lvt.iter_mut().for_each(|entry| *entry |= LVT_MASKED);
                }
            }
            reg::ESR => self.esr = std::mem::take(&mut self.errors),
            reg::LVT_TIMER..=reg::LVT_ERROR => {
                let forced = if self.svr & SVR_ENABLE == 0 { LVT_MASKED } else { 0 };
                let entry = &mut self.lvt[(register - reg::LVT_TIMER) as usize];
                let changed = *entry ^ value;
                let either_mode = *entry | value;
                *entry = value | forced;
                // Going into or out of TSC-deadline mode disarms the timer.
                if register == reg::LVT_TIMER
                    && changed & TIMER_MODE != 0
                    && either_mode & TIMER_TSC_DEADLINE != 0
                {
                    self.initial_count = 0;
                    self.timer = Timer::Stopped;
                }
            }
            reg::INITIAL_COUNT if self.timer_mode() != TIMER_TSC_DEADLINE => {
                self.initial_count = value;
                self.arm(now, value);
            }
            reg::DIVIDE => {
                // The count stands still while the clock is switched.
                let count = self.current_count(now);
                self.divide = value;
                if matches!(self.timer, Timer::Counting { .. }) {
                    self.arm(now, count);
                }
            }
            _ => {}
        }
        self.update();
    }

    fn update(&mut self) {
        let isrv = self.isr.highest().unwrap_or(0);
        self.ppr = if self.tpr >> 4 >= isrv >> 4 { self.tpr } else { isrv & 0xF0 };
        let enabled = self.svr & SVR_ENABLE != 0;
        self.next = self.irr.highest().filter(|v| enabled && v >> 4 > self.ppr >> 4);
    }

    fn end_of_interrupt(&mut self) {
        if let Some(vector) = self.isr.highest() {
            self.isr.put(vector, false);
            if self.tmr.contains(vector) {
                self.effects.push(Effect::Eoi(vector));
            }
        }
    }

    /// Notes an error; the first one since ESR was written raises the error interrupt.
    fn error(&mut self, bit: u32) {
        let first = self.errors == 0;
        self.errors |= bit;
        if first {
            self.deliver(lvt::ERROR);
        }
    }

    fn deliver(&mut self, entry: usize) {
        let entry = self.lvt[entry];
        if entry & LVT_MASKED == 0 {
            self.accept(entry as u8, false);
        }
    }

    /// How the pin LINT0 or LINT1 acts, `None` if it is masked. Of a globally disabled APIC the
    /// pins are INTR and NMI.
    fn pin_mode(&self, pin: usize) -> Option<DeliveryMode> {
        match self.mode {
            Mode::Disabled if pin == lvt::LINT0 => Some(DeliveryMode::ExtInt),
            Mode::Disabled => Some(DeliveryMode::Nmi),
            _ if self.lvt[pin] & LVT_MASKED != 0 => None,
            _ => Some(DeliveryMode::from_bits((self.lvt[pin] >> 8) as u8)),
        }
    }

    /// Writes the ICR, which sends.
    fn send(&mut self, icr: u64) {
        self.icr = icr;
        let vector = icr as u8;
        let delivery_mode = DeliveryMode::from_bits((icr >> 8) as u8);
        let fixed = delivery_mode == DeliveryMode::Fixed;
        match delivery_mode {
            _ if delivery_mode.has_vector() && vector < 16 => {
                return self.error(ESR_SEND_ILLEGAL_VECTOR);
            }
            DeliveryMode::Reserved | DeliveryMode::ExtInt => return,
            // INIT level de-assert only set arbitration IDs, and only before the Pentium 4.
            DeliveryMode::Init if icr & (ICR_LEVEL | ICR_TRIGGER) == ICR_TRIGGER => return,
            _ => {}
        }
        let destination = match icr >> 18 & 3 {
            0 => {
                let dest = match (self.mode, (icr >> 32) as u32) {
                    (Mode::X2Apic, dest) => dest,
                    (_, 0xFF00_0000) => BROADCAST,
                    (_, dest) => dest >> 24,
                };
                Destination::Address { dest, logical: icr & ICR_LOGICAL != 0 }
            }
            1 if fixed => return self.accept(vector, false),
            1 => Destination::SelfOnly,
            2 if fixed => {
                self.accept(vector, false);
                Destination::AllExcludingSelf
            }
            2 => Destination::AllIncludingSelf,
            _ => Destination::AllExcludingSelf,
        };
        self.effects.push(Effect::Ipi { destination, delivery_mode, vector });
    }

    /// The logical destination register. In x2APIC mode it follows from the ID: 16 processors a
    /// cluster, a bit each.
    fn logical_id(&self) -> u32 {
        match self.mode {
            Mode::X2Apic => (self.id >> 4) << 16 | 1 << (self.id & 0xF),
            _ => u32::from(self.ldr) << 24,
        }
    }

    fn timer_mode(&self) -> u32 {
        self.lvt[lvt::TIMER] & TIMER_MODE
    }

    /// log₂ of the divisor: bits 3, 1, 0 of the register, of which 111 divides by one.
    fn divide_shift(&self) -> u32 {
        ((self.divide & 3 | self.divide >> 1 & 4) + 1) & 7
    }

    fn arm(&mut self, now: u64, count: u32) {
        self.timer = match count {
            0 => Timer::Stopped,
            _ => Timer::Counting { origin: now, until: u64::from(count) << self.divide_shift() },
        };
    }

    fn arm_tsc_deadline(&mut self, now: u64, tsc: u64, deadline: u64) {
        let at = now.saturating_add(to_ns(deadline.saturating_sub(tsc), self.tsc_hz));
        self.timer = match deadline {
            0 => Timer::Stopped,
            _ => Timer::TscDeadline { deadline, at },
        };
    }

    /// The moment (ns) at which the timer expires, masked or not.
    fn expiry(&self) -> Option<u64> {
        match self.timer {
            Timer::Stopped => None,
            Timer::Counting { origin, until } => {
                Some(origin.saturating_add(to_ns(until, self.bus_hz)))
            }
            Timer::TscDeadline { at, .. } => Some(at),
        }
    }

    fn bus_cycles(&self, from: u64, to: u64) -> u64 {
        (u128::from(to.saturating_sub(from)) * u128::from(self.bus_hz) / NS_PER_S) as u64
    }

    fn current_count(&self, now: u64) -> u32 {
        let Timer::Counting { origin, until } = self.timer else {
            return 0;
        };
        let left = until.saturating_sub(self.bus_cycles(origin, now));
        left.div_ceil(1 << self.divide_shift()).min(u32::MAX.into()) as u32
    }
}

/// Nanoseconds until `ticks` cycles of a clock of `hz` are over, rounded up.
fn to_ns(ticks: u64, hz: u64) -> u64 {
    let ns = (u128::from(ticks) * NS_PER_S).div_ceil(u128::from(hz));
    ns.min(u64::MAX.into()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Rng;

    const GHZ: u64 = 1_000_000_000;

    fn enabled(id: u32) -> LocalApic {
        let mut apic = LocalApic::new(id, id == 0, GHZ, 2 * GHZ);
        set(&mut apic, 0, reg::SVR, 0x1FF);
        apic
    }

    fn x2apic(id: u32) -> LocalApic {
        let mut apic = enabled(id);
        let base = apic.msr_read(0, 0, IA32_APIC_BASE).unwrap();
        apic.msr_write(0, 0, IA32_APIC_BASE, base | BASE_EXTD).unwrap();
        apic
    }

    fn set(apic: &mut LocalApic, now: u64, register: u32, value: u32) {
        apic.write(now, u64::from(register) << 4, 4, value.into());
    }

    fn get(apic: &mut LocalApic, now: u64, register: u32) -> u32 {
        apic.read(now, u64::from(register) << 4, 4) as u32
    }

    #[test]
    fn reset_values() {
        let mut apic = LocalApic::new(3, false, GHZ, GHZ);
        assert_eq!(get(&mut apic, 0, reg::ID), 3 << 24);
        assert_eq!(get(&mut apic, 0, reg::VERSION), 0x0005_0014);
        assert_eq!(get(&mut apic, 0, reg::DFR), u32::MAX);
        assert_eq!(get(&mut apic, 0, reg::SVR), 0xFF);
        assert_eq!(get(&mut apic, 0, reg::LVT_LINT0), LVT_MASKED);
        assert_eq!(apic.msr_read(0, 0, IA32_APIC_BASE), Some(0xFEE0_0800));
        assert_eq!(apic.base(), Some(DEFAULT_BASE));
        assert!(!apic.extint_enabled());
        let mut bsp = LocalApic::new(0, true, GHZ, GHZ);
        assert_eq!(bsp.msr_read(0, 0, IA32_APIC_BASE), Some(0xFEE0_0900));
        assert!(bsp.extint_enabled());
    }

    #[test]
    fn highest_vector_first_and_nesting() {
        let mut apic = enabled(0);
        apic.accept(0x31, false);
        apic.accept(0x81, false);
        assert_eq!(apic.acknowledge(), Some(0x81));
        assert_eq!(get(&mut apic, 0, reg::ISR + 4), 2);
        assert_eq!(apic.ppr(), 0x80);
        assert_eq!(apic.pending(), None);
        apic.accept(0x8F, false);
        assert_eq!(apic.pending(), None, "same class does not nest");
        apic.accept(0x90, false);
        assert_eq!(apic.acknowledge(), Some(0x90));
        set(&mut apic, 0, reg::EOI, 0);
        assert_eq!(apic.pending(), None);
        set(&mut apic, 0, reg::EOI, 0);
        assert_eq!(apic.acknowledge(), Some(0x8F));
        set(&mut apic, 0, reg::EOI, 0);
        assert_eq!(apic.acknowledge(), Some(0x31));
        assert!(apic.take_effects().is_empty(), "edges are not broadcast");
        assert_eq!(apic.acknowledge(), None);
    }

    #[test]
    fn tpr_and_cr8_hold_back() {
        let mut apic = enabled(0);
        apic.accept(0x45, false);
        apic.set_tpr(4);
        assert_eq!((apic.pending(), apic.tpr()), (None, 4));
        assert_eq!(get(&mut apic, 0, reg::TPR), 0x40);
        assert_eq!(get(&mut apic, 0, reg::PPR), 0x40);
        set(&mut apic, 0, reg::TPR, 0x3F);
        assert_eq!((apic.pending(), apic.tpr(), apic.ppr()), (Some(0x45), 3, 0x3F));
    }

    #[test]
    fn level_vectors_broadcast_their_eoi() {
        let mut apic = enabled(0);
        apic.accept(0x50, true);
        assert_eq!(get(&mut apic, 0, reg::TMR + 2), 1 << 16);
        assert_eq!(get(&mut apic, 0, reg::IRR + 2), 1 << 16);
        apic.acknowledge();
        set(&mut apic, 0, reg::EOI, 0);
        assert_eq!(apic.take_effects(), [Effect::Eoi(0x50)]);
        apic.accept(0x50, false);
        apic.acknowledge();
        set(&mut apic, 0, reg::EOI, 0);
        assert!(apic.take_effects().is_empty());
    }

    #[test]
    fn software_disable_masks() {
        let mut apic = enabled(0);
        set(&mut apic, 0, reg::LVT_LINT0, 0x700);
        set(&mut apic, 0, reg::LVT_LINT1, 0x400);
        assert!(apic.extint_enabled() && apic.nmi_lint1_enabled());
        apic.accept(0x60, false);
        set(&mut apic, 0, reg::SVR, 0xFF);
        assert!(!apic.extint_enabled() && !apic.nmi_lint1_enabled());
        set(&mut apic, 0, reg::LVT_LINT0, 0x700);
        assert_eq!(get(&mut apic, 0, reg::LVT_LINT0), 0x1_0700);
        apic.accept(0x70, false);
        assert_eq!((apic.pending(), apic.acknowledge()), (None, None));
        set(&mut apic, 0, reg::SVR, 0x1FF);
        assert_eq!(apic.pending(), Some(0x60), "held, and 70H was lost");
    }

    #[test]
    fn lint0_in_fixed_mode() {
        let mut apic = enabled(0);
        apic.pulse_lint0();
        assert_eq!(apic.pending(), None, "ExtINT has no vector here");
        set(&mut apic, 0, reg::LVT_LINT0, 0x33);
        apic.pulse_lint0();
        assert_eq!(apic.pending(), Some(0x33));
        assert!(!apic.extint_enabled());
    }

    #[test]
    fn one_shot_timer() {
        let mut apic = enabled(0);
        set(&mut apic, 0, reg::DIVIDE, 0x3); // by 16
        set(&mut apic, 0, reg::LVT_TIMER, 0xEC);
        set(&mut apic, 1000, reg::INITIAL_COUNT, 100);
        assert_eq!(apic.deadline(), Some(2600));
        assert_eq!(get(&mut apic, 1000, reg::CURRENT_COUNT), 100);
        assert_eq!(get(&mut apic, 1800, reg::CURRENT_COUNT), 50);
        assert_eq!(apic.pending(), None);
        apic.advance(2599);
        assert_eq!(apic.pending(), None);
        apic.advance(2600);
        assert_eq!((apic.acknowledge(), apic.deadline()), (Some(0xEC), None));
        assert_eq!(get(&mut apic, 2700, reg::CURRENT_COUNT), 0);
        assert_eq!(get(&mut apic, 2700, reg::INITIAL_COUNT), 100);
    }

    #[test]
    fn every_divisor() {
        for (bits, divisor) in
            [(0, 2), (1, 4), (2, 8), (3, 16), (8, 32), (9, 64), (10, 128), (11, 1)]
        {
            let mut apic = enabled(0);
            set(&mut apic, 0, reg::LVT_TIMER, 0xEC);
            set(&mut apic, 0, reg::DIVIDE, bits);
            set(&mut apic, 0, reg::INITIAL_COUNT, 3);
            assert_eq!(apic.deadline(), Some(3 * divisor), "{bits:#x}");
        }
    }

    #[test]
    fn periodic_timer_does_not_drift() {
        let mut apic = LocalApic::new(0, true, 3, GHZ); // a third of a second a cycle
        set(&mut apic, 0, reg::SVR, 0x1FF);
        set(&mut apic, 0, reg::DIVIDE, 0xB);
        set(&mut apic, 0, reg::LVT_TIMER, TIMER_PERIODIC | 0xEC);
        set(&mut apic, 0, reg::INITIAL_COUNT, 1);
        for n in 1..=30 {
            let at = apic.deadline().unwrap();
            assert_eq!(at, (n * GHZ).div_ceil(3));
            apic.advance(at);
            assert_eq!(apic.acknowledge(), Some(0xEC));
            set(&mut apic, at, reg::EOI, 0);
        }
        apic.advance(20 * GHZ + 1); // missed many: one interrupt
        assert_eq!((apic.acknowledge(), apic.pending()), (Some(0xEC), None));
        assert_eq!(apic.deadline(), Some((61 * GHZ).div_ceil(3)));
        set(&mut apic, 20 * GHZ + 2, reg::INITIAL_COUNT, 0);
        assert_eq!(apic.deadline(), None);
    }

    #[test]
    fn masked_timer_counts_without_interrupt() {
        let mut apic = enabled(0);
        set(&mut apic, 0, reg::DIVIDE, 0xB);
        set(&mut apic, 0, reg::LVT_TIMER, LVT_MASKED | 0xEC);
        set(&mut apic, 0, reg::INITIAL_COUNT, u32::MAX);
        assert_eq!(apic.deadline(), None);
        assert_eq!(get(&mut apic, 1_000_000, reg::CURRENT_COUNT), u32::MAX - 1_000_000);
        set(&mut apic, 5 * GHZ, reg::LVT_TIMER, 0xEC);
        assert_eq!(apic.pending(), None, "expired while masked");
    }

    #[test]
    fn divisor_change_keeps_the_count() {
        let mut apic = enabled(0);
        set(&mut apic, 0, reg::LVT_TIMER, 0xEC);
        set(&mut apic, 0, reg::DIVIDE, 0xB);
        set(&mut apic, 0, reg::INITIAL_COUNT, 1000);
        set(&mut apic, 400, reg::DIVIDE, 0x0);
        assert_eq!(get(&mut apic, 400, reg::CURRENT_COUNT), 600);
        assert_eq!(apic.deadline(), Some(400 + 1200));
    }

    #[test]
    fn tsc_deadline_timer() {
        let mut apic = enabled(0);
        apic.msr_write(0, 0, IA32_TSC_DEADLINE, 500).unwrap();
        assert_eq!(apic.msr_read(0, 0, IA32_TSC_DEADLINE), Some(0), "ignored in other modes");
        set(&mut apic, 0, reg::LVT_TIMER, TIMER_TSC_DEADLINE | 0xEC);
        set(&mut apic, 0, reg::INITIAL_COUNT, 1000);
        assert_eq!(apic.deadline(), None, "the initial count is ignored");
        apic.msr_write(1000, 9000, IA32_TSC_DEADLINE, 9501).unwrap();
        assert_eq!(apic.deadline(), Some(1251));
        assert_eq!(apic.msr_read(1250, 9500, IA32_TSC_DEADLINE), Some(9501));
        assert_eq!(apic.pending(), None);
        assert_eq!(apic.msr_read(1251, 9502, IA32_TSC_DEADLINE), Some(0));
        assert_eq!(apic.acknowledge(), Some(0xEC));
        set(&mut apic, 1251, reg::EOI, 0);
        apic.msr_write(2000, 11000, IA32_TSC_DEADLINE, 5).unwrap();
        assert_eq!(apic.acknowledge(), Some(0xEC), "in the past: at once");
        apic.msr_write(2000, 11000, IA32_TSC_DEADLINE, 13000).unwrap();
        apic.tsc_changed(2500, 0);
        assert_eq!(apic.deadline(), Some(2500 + 6500));
        apic.msr_write(2500, 0, IA32_TSC_DEADLINE, 0).unwrap();
        assert_eq!(apic.deadline(), None);
    }

    #[test]
    fn timer_mode_change_disarms() {
        let mut apic = enabled(0);
        set(&mut apic, 0, reg::LVT_TIMER, 0xEC);
        set(&mut apic, 0, reg::INITIAL_COUNT, 1000);
        set(&mut apic, 0, reg::LVT_TIMER, TIMER_PERIODIC | 0xEC);
        assert_eq!(apic.deadline(), Some(2000), "between the counting modes it runs on");
        set(&mut apic, 0, reg::LVT_TIMER, TIMER_TSC_DEADLINE | 0xEC);
        assert_eq!(apic.deadline(), None);
        assert_eq!(get(&mut apic, 0, reg::INITIAL_COUNT), 0);
    }

    #[test]
    fn error_status() {
        let mut apic = enabled(0);
        set(&mut apic, 0, reg::LVT_ERROR, 0xFE);
        apic.accept(15, false);
        assert_eq!(apic.acknowledge(), Some(0xFE));
        assert_eq!(get(&mut apic, 0, reg::ESR), 0, "not before it is written");
        set(&mut apic, 0, reg::EOI, 0);
        set(&mut apic, 0, reg::ICR_LOW, 0x4_0003);
        assert_eq!(apic.pending(), None, "armed again only by a write of ESR");
        set(&mut apic, 0, reg::ESR, 0);
        assert_eq!(get(&mut apic, 0, reg::ESR), 0x60);
        get(&mut apic, 0, 0x3A);
        assert_eq!(apic.acknowledge(), Some(0xFE));
        set(&mut apic, 0, reg::ESR, 0);
        assert_eq!(get(&mut apic, 0, reg::ESR), 0x80);
        set(&mut apic, 0, reg::ESR, 0);
        assert_eq!(get(&mut apic, 0, reg::ESR), 0);
    }

    #[test]
    fn interprocessor_interrupts() {
        let mut apic = enabled(0);
        set(&mut apic, 0, reg::ICR_LOW, 0x0004_0041);
        assert_eq!(apic.acknowledge(), Some(0x41));
        set(&mut apic, 0, reg::EOI, 0);
        assert!(apic.take_effects().is_empty());
        set(&mut apic, 0, reg::ICR_LOW, 0x0008_0042);
        assert_eq!(apic.pending(), Some(0x42));
        set(&mut apic, 0, reg::ICR_LOW, 0x000C_4500);
        set(&mut apic, 0, reg::ICR_LOW, 0x000C_8500); // INIT de-assert
        set(&mut apic, 0, reg::ICR_HIGH, 0x0100_0000);
        set(&mut apic, 0, reg::ICR_LOW, 0x0000_069A);
        set(&mut apic, 0, reg::ICR_HIGH, 0xFF00_0000);
        set(&mut apic, 0, reg::ICR_LOW, 0x0000_08F0);
        let ipi =
            |destination, delivery_mode, vector| Effect::Ipi { destination, delivery_mode, vector };
        let address = |dest, logical| Destination::Address { dest, logical };
        assert_eq!(
            apic.take_effects(),
            [
                ipi(Destination::AllExcludingSelf, DeliveryMode::Fixed, 0x42),
                ipi(Destination::AllExcludingSelf, DeliveryMode::Init, 0),
                ipi(address(1, false), DeliveryMode::StartUp, 0x9A),
                ipi(address(BROADCAST, true), DeliveryMode::Fixed, 0xF0),
            ]
        );
        assert_eq!(get(&mut apic, 0, reg::ICR_LOW), 0x0000_08F0);
        assert_eq!(get(&mut apic, 0, reg::ICR_HIGH), 0xFF00_0000);
    }

    #[test]
    fn destinations() {
        let mut apic = enabled(5);
        assert!(apic.matches(5, false) && !apic.matches(4, false));
        assert!(apic.matches(0xFF, false) && apic.matches(BROADCAST, true));
        assert!(!apic.matches(0x105, false));
        set(&mut apic, 0, reg::LDR, 0x2000_0000);
        assert!(apic.matches(0x21, true) && !apic.matches(0xDF, true));
        set(&mut apic, 0, reg::DFR, 0);
        set(&mut apic, 0, reg::LDR, 0x2400_0000);
        assert!(apic.matches(0x26, true) && apic.matches(0xF4, true));
        assert!(!apic.matches(0x34, true) && !apic.matches(0x2B, true));
        let apic = x2apic(0x25);
        assert!(apic.matches(0x25, false) && !apic.matches(0xFF, false));
        assert!(apic.matches(0x0002_0020, true) && apic.matches(BROADCAST, false));
        assert!(!apic.matches(0x0001_0020, true) && !apic.matches(0x0002_0010, true));
    }

    #[test]
    fn apic_base_transitions() {
        let mut apic = enabled(0);
        let base = |bits: u64| DEFAULT_BASE | bits;
        for bad in [BASE_EXTD, 1, 1 << 9, 1 << 52] {
            assert_eq!(apic.msr_write(0, 0, IA32_APIC_BASE, base(bad)), None, "{bad:#x}");
        }
        apic.msr_write(0, 0, IA32_APIC_BASE, base(BASE_EN | BASE_EXTD)).unwrap();
        assert_eq!(apic.msr_write(0, 0, IA32_APIC_BASE, base(BASE_EN)), None);
        assert_eq!((apic.base(), apic.read(0, 0x30, 4)), (None, 0xFFFF_FFFF));
        assert_eq!(apic.msr_read(0, 0, 0x80F), Some(0x1FF), "registers stay");
        apic.msr_write(0, 0, IA32_APIC_BASE, base(0)).unwrap();
        assert!(apic.extint_enabled() && apic.nmi_lint1_enabled() && !apic.enabled());
        assert!(!apic.matches(BROADCAST, false));
        assert_eq!(apic.msr_read(0, 0, 0x80F), None);
        assert_eq!(apic.msr_write(0, 0, IA32_APIC_BASE, base(BASE_EN | BASE_EXTD)), None);
        apic.msr_write(0, 0, IA32_APIC_BASE, 0xFEC1_0000 | BASE_EN).unwrap();
        assert_eq!(apic.base(), Some(0xFEC1_0000));
        assert_eq!(get(&mut apic, 0, reg::SVR), 0xFF, "power-up state");
    }

    #[test]
    fn x2apic_registers() {
        let mut apic = x2apic(0x123);
        assert_eq!(apic.msr_read(0, 0, 0x802), Some(0x123));
        assert_eq!(apic.msr_read(0, 0, 0x80D), Some(0x0012_0008));
        for illegal in [0x800, 0x809, 0x80B, 0x80E, 0x82F, 0x831, 0x83F] {
            assert_eq!(apic.msr_read(0, 0, illegal), None, "{illegal:#x}");
        }
        for (illegal, value) in
            [(0x802, 0), (0x803, 0), (0x80D, 0), (0x80B, 1), (0x828, 1), (0x808, 0x100), (0x839, 0)]
        {
            assert_eq!(apic.msr_write(0, 0, illegal, value), None, "{illegal:#x}");
        }
        apic.msr_write(0, 0, 0x83F, 0x77).unwrap();
        assert_eq!(apic.acknowledge(), Some(0x77));
        apic.msr_write(0, 0, 0x80B, 0).unwrap();
        assert_eq!(apic.msr_read(0, 0, 0x80A), Some(0));
        apic.msr_write(0, 0, 0x830, 0x0001_0002_0000_08FD).unwrap();
        assert_eq!(apic.msr_read(0, 0, 0x830), Some(0x0001_0002_0000_08FD));
        let destination = Destination::Address { dest: 0x0001_0002, logical: true };
        let delivery_mode = DeliveryMode::Fixed;
        assert_eq!(apic.take_effects(), [Effect::Ipi { destination, delivery_mode, vector: 0xFD }]);
        assert_eq!(apic.msr_write(0, 0, 0x830, 1 << 13), None);
        apic.msr_write(0, 0, 0x832, 0x1_10EC).unwrap();
        assert_eq!(apic.msr_read(0, 0, 0x832), Some(0x1_00EC));
    }

    #[test]
    fn init_keeps_mode_and_id() {
        let mut apic = x2apic(7);
        apic.accept(0x40, false);
        apic.init();
        assert_eq!(apic.pending(), None);
        assert_eq!(apic.msr_read(0, 0, 0x802), Some(7));
        assert_eq!(apic.msr_read(0, 0, 0x80F), Some(0xFF));
    }

    #[test]
    fn odd_accesses() {
        let mut apic = enabled(0);
        assert_eq!(apic.read(0, 0x32, 1), 0x05);
        assert_eq!(apic.read(0, 0x30, 8), VERSION.into());
        assert_eq!(apic.read(0, 0x34, 4), 0);
        apic.write(0, 0x80, 1, 0x20);
        apic.write(0, 0x82, 4, 0x20);
        assert_eq!(apic.tpr(), 0);
    }

    fn fits(value: u64, size: u8) -> bool {
        value.checked_shr(8 * u32::from(size)).is_none_or(|rest| rest == 0)
    }

    #[test]
    fn random_accesses() {
        let mut rng = Rng(1);
        let mut random = || rng.next() << 32 ^ rng.next();
        let mut apic = enabled(0);
        let mut now = 0;
        for _ in 0..200_000 {
            now = if random() % 64 == 0 { random() >> 2 } else { now + random() % 4096 };
            let (offset, value) = (random(), random() >> (random() % 64));
            let size = (random() % 8 + 1) as u8;
            let msr = 0x800 + (random() % 0x44) as u32;
            match random() % 16 {
                0..4 => apic.write(now, offset & 0xFF0, 4, value),
                4 => apic.write(now, offset, size, value),
                5 => assert!(fits(apic.read(now, offset, size), size)),
                6 => _ = apic.msr_read(now, value, msr),
                7..9 => _ = apic.msr_write(now, value >> 3, msr, value),
                9 => _ = apic.msr_write(now, value >> 3, IA32_TSC_DEADLINE, value),
                10 if value & 7 == 0 => {
                    let base = DEFAULT_BASE | offset & 0xC00;
                    let _ = apic.msr_write(now, 0, IA32_APIC_BASE, base);
                }
                10 => set(&mut apic, now, reg::SVR, 0x1FF),
                11 => apic.accept(value as u8, offset & 1 != 0),
                12 => apic.set_tpr(value as u8 & 3),
                13 => _ = apic.matches(value as u32, offset & 1 != 0),
                _ => _ = apic.acknowledge(),
            }
            apic.advance(now);
            assert!(apic.deadline().is_none_or(|at| at > now));
            assert!(apic.pending().is_none_or(|v| v >= 16 && v >> 4 > apic.ppr() >> 4));
            apic.take_effects();
        }
    }
}
