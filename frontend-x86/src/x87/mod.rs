//! The x87 FPU: its register stack, its exceptions, and the helpers that execute its instructions.
//!
//! Problem: an x87 instruction is a small computation inside much protocol: what is pending is
//! raised first, the stack may be too empty or too full, six exceptions are masked or not, and
//! where the instruction and its operand lie is remembered for a handler.
//!
//! Method: the arithmetic is [`emu_core::fp`]; here is the protocol, once. The lifter
//! ([`crate::insn::x87`]) calls one of a dozen helpers with the operation in `k` and a [`Form`] in
//! `imm`; `a` holds the linear address of a memory operand, `b` the instruction's RIP, `w` is RIP's
//! width. Every helper goes the same way: [`begin`], read memory, [`note`], compute, commit; a
//! store writes memory before it changes the state. So a fault leaves all of it as it was.
//!
//! What the manual leaves to the model:
//! - FIP, FDP and FOP are updated by every non-control instruction, not only by one that raises an
//!   unmasked exception (CPUID.7.0:EBX\[6\] = 0).
//! - FCS and FDS are updated outside 64-bit code (CPUID.7.0:EBX\[13\] = 0); 64-bit code sets them
//!   to 0.
//! - With CR0.NE = 0 there is no FERR# pin: a pending exception is held in the status word and
//!   instructions go on, as if the machine asserted IGNNE#.
//! - C0, C2 and C3 stay where the manual calls them undefined.
//! - A comparison that raises an unmasked exception sets its codes all the same, as CPUs do; only
//!   the pop does not take place.
//!
//! Source: SDM Vol. 1, chapter 8; Vol. 2, each instruction.

mod compute;
mod control;
mod movement;
#[cfg(test)]
mod tests;

pub(crate) use compute::{Arith, Compare, Function};
pub(crate) use control::{Control, layout};
pub(crate) use movement::Move;

use crate::sys::cr0;
use emu_core::cpu::{Cpu, Seg, St, X87, mode};
use emu_core::fault::{Fault, Guest};
use emu_core::fp::Ex;
use emu_core::fp::x87::F80;
use emu_core::uop::{Args, HelperDef};
use emu_core::width::Width::{W16, W32, W64};

/// Bits of the status word (SDM Vol. 1, 8.1.3).
mod sw {
    /// Exception flags; in the control word, their masks.
    pub const EXCEPTIONS: u16 = 0x3f;
    /// Stack fault.
    pub const SF: u16 = 1 << 6;
    /// Exception summary, and its shadow B.
    pub const ES_B: u16 = 1 << 7 | 1 << 15;
    pub const C0: u16 = 1 << 8;
    pub const C1: u16 = 1 << 9;
    pub const C2: u16 = 1 << 10;
    pub const C3: u16 = 1 << 14;
}

/// An enum that travels in a helper's `k`.
macro_rules! codes {
    ($(#[$doc:meta])* $name:ident: $($v:ident)+) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $name { $($v),+ }

        impl $name {
            /// The variant with the number `k`; the first one beyond the last.
            pub(crate) fn from_code(k: u8) -> $name {
                const ALL: &[$name] = &[$($name::$v),+];
                ALL.get(usize::from(k)).copied().unwrap_or(ALL[0])
            }
        }
    };
}
pub(crate) use codes;

codes! {
    /// What an operand is encoded as: a stack register, or memory.
    Format: St F32 F64 F80 I16 I32 I64 Bcd
}

impl Format {
    /// Bytes in memory.
    pub(crate) const fn bytes(self) -> u32 {
        match self {
            Format::St => 0,
            Format::I16 => 2,
            Format::F32 | Format::I32 => 4,
            Format::F64 | Format::I64 => 8,
            Format::F80 | Format::Bcd => 10,
        }
    }
}

/// What a helper has to know about its instruction besides the operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    /// The opcode as FOP shows it: three bits of the first byte, all of the second.
    pub fop: u16,
    /// Segment of the memory operand, by [`Seg`]'s number.
    pub seg: u8,
    /// The operand that need not be a register.
    pub format: Format,
    /// Destination: ST(`dst`).
    pub dst: u8,
    /// Source, where `format` is [`Format::St`]: ST(`src`).
    pub src: u8,
    /// How often the stack is popped.
    pub pops: u8,
}

impl Form {
    /// As a helper's immediate.
    pub(crate) const fn pack(self) -> u64 {
        let [f0, f1] = self.fop.to_le_bytes();
        u64::from_le_bytes([f0, f1, self.seg, self.format as u8, self.dst, self.src, self.pops, 0])
    }

    fn unpack(imm: u64) -> Form {
        let [f0, f1, seg, format, dst, src, pops, _] = imm.to_le_bytes();
        let (fop, format) = (u16::from_le_bytes([f0, f1]), Format::from_code(format));
        Form { fop, seg, format, dst, src, pops }
    }

    fn segment(self) -> Seg {
        Seg::ALL[usize::from(self.seg).min(5)]
    }

    /// A non-canonical address in the stack segment is #SS, not #GP.
    fn located<T>(self, r: Guest<T>) -> Guest<T> {
        r.map_err(|f| match f {
            Fault::GP0 if self.segment() == Seg::Ss => Cpu::address_fault(true),
            f => f,
        })
    }
}

/// `static NAME: HelperDef` for each line, and the list of all.
macro_rules! definitions {
    ($($(#[$doc:meta])* $n:ident = $name:literal $f:path;)*) => {
        $($(#[$doc])* pub static $n: HelperDef = HelperDef::new($name, $f);)*
        /// The family's helpers.
        pub static HELPERS: &[&HelperDef] = &[$(&$n,)*];
    };
}

definitions! {
    /// WAIT, and what a waiting or MMX instruction does first: #MF if an unmasked exception is
    /// pending. With `k` = 1 (WAIT itself) #NM if CR0.MP and CR0.TS.
    CHECK = "x87_check" control::check;
    /// FLD, FILD, FBLD.
    LOAD = "x87_load" movement::load;
    /// FLD1…FLDZ: `k` is the constant.
    CONSTANT = "x87_constant" movement::constant;
    /// FST, FSTP, FIST, FISTP, FBSTP; with `k` = 1 FISTTP.
    STORE = "x87_store" movement::store;
    /// FXCH, FFREE and others that move no data from or to memory: `k` is one of `Move`.
    MOVE = "x87_move" movement::relocate;
    /// FCMOVcc: `k` is the condition.
    CMOV = "x87_cmov" movement::cmov;
    /// FADD…FDIVR: `k` is one of `Arith`.
    ARITH = "x87_arith" compute::arith;
    /// FCOM…FUCOMI, FTST: `k` is one of `Compare`.
    COMPARE = "x87_compare" compute::compare;
    /// FABS…FYL2XP1: `k` is one of `Function`.
    FUNCTION = "x87_function" compute::function;
    /// FXAM.
    EXAMINE = "x87_examine" compute::examine;
    /// FNINIT, FNCLEX, FLDCW, FNSTCW, FNSTSW: `k` is one of `Control`.
    CONTROL = "x87_control" control::control;
    /// FLDENV, FNSTENV, FRSTOR, FNSAVE: `k` is one of `control::image`'s sums.
    IMAGE = "x87_image" control::image;
}

/// Raises #MF if an unmasked x87 exception is pending: for every waiting x87 instruction and for
/// MMX instructions, before they do anything else.
///
/// # Errors
/// #MF, with CR0.NE = 1.
pub fn check_pending(cpu: &Cpu) -> Guest<()> {
    if pending(&cpu.x87) && cpu.sys.cr0 & cr0::NE != 0 { Err(Fault::MF) } else { Ok(()) }
}

/// Whether the status word has an exception that the control word does not mask.
fn pending(x: &X87) -> bool {
    x.sw & !x.cw & sw::EXCEPTIONS != 0
}

/// The status word; ES and B follow from the exceptions and their masks.
fn status(x: &X87) -> u16 {
    x.sw & !sw::ES_B | if pending(x) { sw::ES_B } else { 0 }
}

/// `x` as it is loaded: reserved bits of the control word have their values, ES and B follow from
/// the exceptions and their masks.
pub fn settled(mut x: X87) -> X87 {
    let cw = x.cw;
    control::set_cw(&mut x, cw);
    x
}

/// Recomputes ES and B: after every change of the status or control word.
fn settle(x: &mut X87) {
    x.sw = status(x);
}

/// The exceptions that are not masked.
fn unmasked(x: &X87) -> Ex {
    Ex::from_bits_truncate(!x.cw as u8)
}

/// Begins a waiting instruction.
fn begin(cpu: &Cpu, x: Args) -> Guest<Form> {
    check_pending(cpu)?;
    Ok(Form::unpack(x.imm))
}

/// Remembers the non-control instruction and its memory operand; nothing may fault any more.
fn note(cpu: &mut Cpu, x: Args, form: Form) {
    let code64 = cpu.mode & mode::CODE64 != 0;
    let selector = |s: Seg| if code64 { 0 } else { cpu.segs[s as usize].selector };
    let (fcs, s) = (selector(Seg::Cs), form.segment());
    let base = if code64 && !matches!(s, Seg::Fs | Seg::Gs) { 0 } else { cpu.base(s) };
    let offset = cpu.wrap_linear(cpu.reg(x.a).wrapping_sub(base));
    let (fds, fip) = (selector(s), x.w.zext(cpu.reg(x.b)));
    let fpu = &mut cpu.x87;
    (fpu.fop, fpu.fip, fpu.fcs) = (form.fop, fip, fcs);
    if form.format != Format::St {
        (fpu.fdp, fpu.fds) = (offset, fds);
    }
}

/// Reads a memory operand: up to 64 bits, and the 16 above.
fn fetch(cpu: &mut Cpu, x: Args, form: Form) -> Guest<(u64, u16)> {
    let at = cpu.reg(x.a);
    let r = match form.format.bytes() {
        2 => cpu.read(at, W16),
        4 => cpu.read(at, W32),
        _ => cpu.read(at, W64),
    };
    let low = form.located(r)?;
    if form.format.bytes() < 10 {
        return Ok((low, 0));
    }
    let high = cpu.read(cpu.wrap_linear(at.wrapping_add(8)), W16);
    Ok((low, form.located(high)? as u16))
}

// ---- the register stack ----------------------------------------------------------------------

/// Physical register of ST(`i`).
fn physical(x: &X87, i: u8) -> usize {
    usize::from((x.sw >> 11).wrapping_add(u16::from(i)) & 7)
}

/// Contents of ST(`i`), empty or not.
fn raw(x: &X87, i: u8) -> F80 {
    let St { mant, se } = x.st[physical(x, i)];
    F80 { mant, se }
}

/// ST(`i`), unless it is empty.
fn st(x: &X87, i: u8) -> Option<F80> {
    (x.full >> physical(x, i) & 1 != 0).then(|| raw(x, i))
}

/// Fills ST(`i`).
fn set(x: &mut X87, i: u8, v: F80) {
    let p = physical(x, i);
    x.st[p] = St { mant: v.mant, se: v.se };
    x.full |= 1 << p;
}

/// Marks ST(`i`) empty.
fn free(x: &mut X87, i: u8) {
    x.full &= !(1 << physical(x, i));
}

/// Adds `n` to TOP.
fn rotate(x: &mut X87, n: u16) {
    x.sw = x.sw & !(7 << 11) | x.sw.wrapping_add(n << 11) & 7 << 11;
}

/// Pops `n` times.
fn pop(x: &mut X87, n: u8) {
    for _ in 0..n {
        free(x, 0);
        rotate(x, 1);
    }
}

/// Pushes `v`, over whatever is there.
fn push(x: &mut X87, v: F80) {
    rotate(x, 7);
    set(x, 0, v);
}

// ---- exceptions ------------------------------------------------------------------------------

/// Sets C1.
fn set_c1(x: &mut X87, c1: bool) {
    x.sw = x.sw & !sw::C1 | if c1 { sw::C1 } else { 0 };
}

/// Sets C0, C2 and C3, leaving C1.
fn set_condition(x: &mut X87, bits: u16) {
    x.sw = x.sw & !(sw::C0 | sw::C2 | sw::C3) | bits;
}

/// Raises `ex`; true if the instruction is to deliver its result, to which then `c1` belongs.
fn raise(x: &mut X87, ex: Ex, c1: bool) -> bool {
    let go_on = !ex.suppresses(unmasked(x));
    set_c1(x, c1 && go_on);
    x.sw |= u16::from(ex.bits());
    settle(x);
    go_on
}

/// Stack underflow; true if it is masked, so that the indefinite value is delivered.
fn underflow(x: &mut X87) -> bool {
    x.sw |= sw::SF;
    raise(x, Ex::IE, false)
}

/// Stack overflow; true if it is masked.
fn overflow(x: &mut X87) -> bool {
    let go_on = underflow(x);
    set_c1(x, true);
    go_on
}
