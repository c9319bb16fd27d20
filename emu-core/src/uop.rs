//! The micro-op language: register-transfer operations on guest registers and temporaries,
//! x86-shaped, three-address, the width a field.
//!
//! [`for_each_op!`] is the one table: for every op its text name, form, effect class, flags read
//! and written, and for a pure op its `eval`, the only statement of its meaning. The enum, the
//! printer, the parser, the verifier, the passes and every tier are made from it or call it.
//!
//! Conventions:
//! - A result written at width 8 or 16 merges into the old register, at 32 it zero-extends
//!   ([`Width::merge`]); sources are cut to the width by `eval`.
//! - `ZERO` as a destination drops the result.
//! - `fl` is the set of flags the op writes (RFLAGS bits). It may be narrowed by the dead-flag
//!   pass, and widened over flags that are dead.
//! - **Exact faults**: within one guest instruction no architectural write stands before the last
//!   micro-op that may fault, unless the instruction is marked restartable.

use crate::cpu::{Cpu, Reg, Seg};
use crate::fault::Guest;
use crate::flags::{AF, CF, Flags, OF, OSZAPC, SF, ZF};
use crate::vec::VecOp;
use crate::width::Width;

/// What an op may do besides writing its destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Computes from its sources; nothing else.
    Pure,
    /// Reads memory; may fault.
    Load,
    /// Writes memory; may fault.
    Store,
    /// May fault without touching memory.
    MayFault,
    /// Anything: may fault, may read and write all state.
    Helper,
    /// Ends the block.
    End,
}

/// Which operands an op has; also its text form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `op.w d, a`
    Unary,
    /// `op.w d, a, b`
    Binary,
    /// `op.w d, a, b, c`
    Ternary,
    /// `op.w d, a, #k`: `k` is a width index (zx, sx) or condition
    UnaryK,
    /// `op.w d, a, b, #k`
    BinaryK,
    /// `op a`: only flags
    Flags,
    /// `op.w d, [mem]`, `k` is the destination width of a sign-extending load
    Load,
    /// `op.w [mem], b`
    Store,
    /// `op.k vd, [mem]`: `k` is the number of bytes, bit 7: must be aligned to it
    VecLoad,
    /// `op.k [mem], va`
    VecStore,
    /// `v.name.k vd, va, vb, vc, imm`
    Vec,
    /// `vx.name d, va, vb, vc, imm`: vector sources, integer result and flags
    VecInt,
    /// `vget.w d, va[imm]`
    VecGet,
    /// `vset.w vd, va[imm], b`
    VecSet,
    /// `vzero imm k=n`
    VecZero,
    /// `lin.w d, seg k, a`
    Linear,
    /// `helper name d, a, b, imm`
    Helper,
    /// `raise imm`
    Raise,
    /// Block ends.
    End,
}

/// Expands `$m!` with the table: `Variant "name" Form Effect [flags read] [flags written] eval`.
#[macro_export]
macro_rules! for_each_op {
    ($m:ident) => { $m! {
    pure {
    // ---- moves and extensions -----------------------------------------------------------
    /// `d = a`.
    Mov     "mov"    Binary  [0] [0]      |_w, _k, _a, b, _c, f| (b, f);
    /// Zero-extension of `a` from width `k`.
    Zx      "zx"     UnaryK  [0] [0]      |_w, k, a, _b, _c, f| (Width::from_index(k).zext(a), f);
    /// Sign-extension of `a` from width `k`.
    Sx      "sx"     UnaryK  [0] [0]      |_w, k, a, _b, _c, f| (Width::from_index(k).sext(a), f);
    /// Second byte of `a` (AH of RAX).
    Exh     "exh"    Unary   [0] [0]      |_w, _k, a, _b, _c, f| (a >> 8 & 0xff, f);
    /// `a` with its second byte replaced by the low byte of `b`.
    Insh    "insh"   Binary  [0] [0]      |_w, _k, a, b, _c, f| (a & !0xff00 | (b & 0xff) << 8, f);
    /// Bytes reversed (at width 16 the result is 0, as CPUs give for the undefined form).
    Bswap   "bswap"  Unary   [0] [0]      |w, _k, a, _b, _c, f| (bswap(w, a), f);
    // ---- arithmetic and logic -----------------------------------------------------------
    /// ADD.
    Add     "add"    Binary  [0] [OSZAPC] |w, _k, a, b, _c, _f| add(w, a, b, 0);
    /// ADC.
    Adc     "adc"    Binary  [CF] [OSZAPC] |w, _k, a, b, _c, f| add(w, a, b, f.cf() as u64);
    /// ADOX: `a` + `b` + OF, with the carry in OF. (ADCX is ADC that writes CF only.)
    Adox    "adox"   Binary  [OF] [OF]    |w, _k, a, b, _c, f| adox(w, a, b, f);
    /// SUB, CMP.
    Sub     "sub"    Binary  [0] [OSZAPC] |w, _k, a, b, _c, _f| sub(w, a, b, 0);
    /// SBB.
    Sbb     "sbb"    Binary  [CF] [OSZAPC] |w, _k, a, b, _c, f| sub(w, a, b, f.cf() as u64);
    /// AND, TEST.
    And     "and"    Binary  [0] [OSZAPC] |w, _k, a, b, _c, _f| logic(w, a & b);
    /// OR.
    Or      "or"     Binary  [0] [OSZAPC] |w, _k, a, b, _c, _f| logic(w, a | b);
    /// XOR.
    Xor     "xor"    Binary  [0] [OSZAPC] |w, _k, a, b, _c, _f| logic(w, a ^ b);
    /// ANDN (`!a & b`).
    Andn    "andn"   Binary  [0] [OSZAPC] |w, _k, a, b, _c, _f| logic(w, !a & b);
    /// INC.
    Inc     "inc"    Unary   [0] [OSZAPC & !CF] |w, _k, a, _b, _c, _f| add(w, a, 1, 0);
    /// DEC.
    Dec     "dec"    Unary   [0] [OSZAPC & !CF] |w, _k, a, _b, _c, _f| sub(w, a, 1, 0);
    /// NEG.
    Neg     "neg"    Unary   [0] [OSZAPC] |w, _k, a, _b, _c, _f| sub(w, 0, a, 0);
    /// NOT.
    Not     "not"    Unary   [0] [0]      |_w, _k, a, _b, _c, f| (!a, f);
    // ---- shifts and rotates: counts are masked to 5 or 6 bits; count 0 changes no flag ------
    /// SHL.
    Shl     "shl"    Binary  [0] [OSZAPC] |w, _k, a, b, _c, f| shl(w, a, b, f);
    /// SHR.
    Shr     "shr"    Binary  [0] [OSZAPC] |w, _k, a, b, _c, f| shr(w, a, b, f);
    /// SAR.
    Sar     "sar"    Binary  [0] [OSZAPC] |w, _k, a, b, _c, f| sar(w, a, b, f);
    /// ROL.
    Rol     "rol"    Binary  [0] [CF | OF] |w, _k, a, b, _c, f| rol(w, a, b, f);
    /// ROR.
    Ror     "ror"    Binary  [0] [CF | OF] |w, _k, a, b, _c, f| ror(w, a, b, f);
    /// RCL.
    Rcl     "rcl"    Binary  [CF] [CF | OF] |w, _k, a, b, _c, f| rcl(w, a, b, f);
    /// RCR.
    Rcr     "rcr"    Binary  [CF] [CF | OF] |w, _k, a, b, _c, f| rcr(w, a, b, f);
    /// SHLD: `a` shifted left by `c`, filled from the top of `b`.
    Shld    "shld"   Ternary [0] [OSZAPC] |w, _k, a, b, c, f| shld(w, a, b, c, f);
    /// SHRD: `a` shifted right by `c`, filled from the bottom of `b`.
    Shrd    "shrd"   Ternary [0] [OSZAPC] |w, _k, a, b, c, f| shrd(w, a, b, c, f);
    // ---- multiplication ---------------------------------------------------------------------
    /// Low half of the signed product (IMUL).
    Imul    "imul"   Binary  [0] [OSZAPC] |w, _k, a, b, _c, _f| imul(w, a, b);
    /// Low half of the unsigned product (MUL).
    Mul     "mul"    Binary  [0] [OSZAPC] |w, _k, a, b, _c, _f| mul(w, a, b);
    /// High half of the signed product.
    Mulhs   "mulhs"  Binary  [0] [0]      |w, _k, a, b, _c, f|
        (((w.sext(a) as i64 as i128 * w.sext(b) as i64 as i128) >> w.bits()) as u64, f);
    /// High half of the unsigned product.
    Mulhu   "mulhu"  Binary  [0] [0]      |w, _k, a, b, _c, f|
        ((u128::from(w.zext(a)) * u128::from(w.zext(b)) >> w.bits()) as u64, f);
    // ---- bits ---------------------------------------------------------------------------------
    /// BT: CF = bit `b` (modulo the width) of `a`; the result is `a`.
    Bt      "bt"     Binary  [0] [CF]     |w, _k, a, b, _c, _f| (a, bit_cf(w, a, b));
    /// BTS.
    Bts     "bts"    Binary  [0] [CF]     |w, _k, a, b, _c, _f| (a | bit(w, b), bit_cf(w, a, b));
    /// BTR.
    Btr     "btr"    Binary  [0] [CF]     |w, _k, a, b, _c, _f| (a & !bit(w, b), bit_cf(w, a, b));
    /// BTC.
    Btc     "btc"    Binary  [0] [CF]     |w, _k, a, b, _c, _f| (a ^ bit(w, b), bit_cf(w, a, b));
    /// BSF of `b`; `a` (the old destination) where `b` is zero.
    Bsf     "bsf"    Binary  [0] [OSZAPC] |w, _k, a, b, _c, _f| bsf(w, a, b);
    /// BSR of `b`; `a` where `b` is zero.
    Bsr     "bsr"    Binary  [0] [OSZAPC] |w, _k, a, b, _c, _f| bsr(w, a, b);
    /// TZCNT.
    Tzcnt   "tzcnt"  Unary   [0] [OSZAPC & !OF] |w, _k, a, _b, _c, _f| tzcnt(w, a);
    /// LZCNT.
    Lzcnt   "lzcnt"  Unary   [0] [OSZAPC & !OF] |w, _k, a, _b, _c, _f| lzcnt(w, a);
    /// POPCNT.
    Popcnt  "popcnt" Unary   [0] [OSZAPC] |w, _k, a, _b, _c, _f| popcnt(w, a);
    /// BLSI: the lowest set bit of `a`; CF if there is one.
    Blsi    "blsi"   Unary   [0] [OSZAPC] |w, _k, a, _b, _c, _f| low_bit(w, a, a & a.wrapping_neg(), true);
    /// BLSMSK: ones up to the lowest set bit; CF if there is none.
    Blsmsk  "blsmsk" Unary   [0] [OSZAPC] |w, _k, a, _b, _c, _f| low_bit(w, a, a ^ a.wrapping_sub(1), false);
    /// BLSR: `a` without its lowest set bit; CF if there is none.
    Blsr    "blsr"   Unary   [0] [OSZAPC] |w, _k, a, _b, _c, _f| low_bit(w, a, a & a.wrapping_sub(1), false);
    /// BEXTR: of `a` from bit `b[7:0]` on, `b[15:8]` bits.
    Bextr   "bextr"  Binary  [0] [OSZAPC] |w, _k, a, b, _c, _f| bextr(w, a, b);
    /// BZHI: `a` with the bits from `b[7:0]` on cleared; CF if that is beyond the width.
    Bzhi    "bzhi"   Binary  [0] [OSZAPC] |w, _k, a, b, _c, _f| bzhi(w, a, b);
    /// PDEP: the low bits of `a` at the places of the bits set in `b`.
    Pdep    "pdep"   Binary  [0] [0]      |w, _k, a, b, _c, f| (pdep(a, w.zext(b)), f);
    /// PEXT: the bits of `a` at the places of the bits set in `b`, gathered low.
    Pext    "pext"   Binary  [0] [0]      |w, _k, a, b, _c, f| (pext(a, w.zext(b)), f);
    /// CRC32C of `b` (its low `w` bits) into the 32-bit accumulator `a`; write it at width 64.
    Crc32   "crc32"  BinaryK [0] [0]      |_w, k, a, b, _c, f| (crc32c(Width::from_index(k), a, b), f);
    // ---- conditions and flags ------------------------------------------------------------------
    /// 1 if condition `k` holds, else 0.
    Set     "set"    UnaryK  [OSZAPC] [0] |_w, k, _a, _b, _c, f| (f.cond(k) as u64, f);
    /// `b` if condition `k` holds, else `a`.
    Cmov    "cmov"   BinaryK [OSZAPC] [0] |_w, k, a, b, _c, f| (if f.cond(k) { b } else { a }, f);
    /// The arithmetic flags as RFLAGS bits.
    Getfl   "getfl"  Unary   [OSZAPC] [0] |_w, _k, _a, _b, _c, f| (f.bits() as u64, f);
    /// Flags from RFLAGS bits `a`… and the result is `a`.
    Setfl   "setfl"  Binary  [0] [OSZAPC] |_w, _k, a, b, _c, _f| (a, Flags::from_bits(b as u32));
    /// CF complemented; the result is `a`.
    Cmc     "cmc"    Unary   [CF] [CF]    |w, _k, a, _b, _c, f| (a, Flags::with_co(w, 0, !f.cf(), false));
    }
    other {
    // ---- memory -----------------------------------------------------------------------------------
    /// Effective address (no segment base), cut to width `w`.
    Lea     "lea"    Load    Pure [0] [0];
    /// Load; merges like any result.
    Ld      "ld"     Load    Load [0] [0];
    /// Load, zero-extended to 64 bits.
    Ldz     "ldz"    Load    Load [0] [0];
    /// Load of width `w`, sign-extended and written at width `k`.
    Lds     "lds"    Load    Load [0] [0];
    /// Load of a read-modify-write, zero-extended: checks for write access.
    Ldw     "ldw"    Load    Load [0] [0];
    /// Store of `b`.
    St      "st"     Store   Store [0] [0];
    /// Store to where an `ldw` of this instruction has read: cannot fault.
    Stw     "stw"    Store   Pure  [0] [0];
    /// Checks that `k` bytes may be written, without writing.
    Chkw    "chkw"   Store   Load [0] [0];
    /// Linear address of offset `a` in segment `k & 7`, `w` bytes, for reading (`k` bit 3 clear)
    /// or writing: limit and type checks of the non-flat case; the number of bytes is in `imm`.
    /// With none, for CS in 64-bit code: `a` as an instruction pointer, or #GP(0) if it is not
    /// canonical.
    Lin     "lin"    Linear  MayFault [0] [0];
    // ---- vectors -----------------------------------------------------------------------------------
    /// Vector load of `k & 127` bytes, upper bits zeroed; `k` bit 7: #GP unless aligned.
    Vld     "vld"    VecLoad  Load [0] [0];
    /// Vector store.
    Vst     "vst"    VecStore Store [0] [0];
    /// Vector operation `vop` on `k` bytes (8, 16, 32); writes SSE flags, may raise #XM. At 8 bytes
    /// the upper word is zeroed. Up to 16 the rest of the destination stays; `k` bit 7 zeroes it
    /// (VEX encodings).
    V       "v"      Vec     MayFault [0] [0];
    /// Vector operation with an integer result (at width `w`) and flags.
    Vx      "vx"     VecInt  MayFault [0] [OSZAPC];
    /// Word `imm` of width `w` of vector `a`, zero-extended to 64 bits.
    Vget    "vget"   VecGet  Pure [0] [0];
    /// Vector `a` (its low 128 bits; the rest of the destination stays) with word `imm` of width
    /// `w` replaced by `b`. With `k` = 1 all other bits are zeroed.
    Vset    "vset"   VecSet  Pure [0] [0];
    /// The words from `imm` on of the first `k` vector registers become zero.
    Vzero   "vzero"  VecZero Pure [0] [0];
    /// MXCSR, zero-extended to 64 bits.
    Mxcsr   "mxcsr"  Unary   Pure [0] [0];
    /// The bytes of guest RAM at offset `imm`, zero-extended to 64 bits: an immediate of this block
    /// that is overwritten often ([`crate::patch`]).
    Code    "code"   Unary   Pure [0] [0];
    // ---- the rest ------------------------------------------------------------------------------------
    /// Calls a helper; reads and writes any state.
    Helper  "helper" Helper  Helper [OSZAPC] [0];
    /// Raises exception `imm` (error code 0 if `k` = 1).
    Raise   "raise"  Raise   End [OSZAPC] [0];
    /// Jump: RIP += imm, at width `w`.
    Goto    "goto"   End     End [OSZAPC] [0];
    /// Condition `k`: RIP += imm, else RIP += fall; at width `w`.
    Jcc     "jcc"    End     End [OSZAPC] [0];
    /// If `a`, cut to `w`, is not zero: RIP += imm, else RIP += fall; RIP is cut to width `k`.
    Jrnz    "jrnz"   End     End [OSZAPC] [0];
    /// Indirect jump: RIP = `a`, cut to width `w`.
    Jmpi    "jmpi"   End     End [OSZAPC] [0];
    /// Back to the dispatcher, RIP as helpers left it.
    Exit    "exit"   End     End [OSZAPC] [0];
    /// Back to the dispatcher at RIP += imm, at width `w`: after what may have changed the mode,
    /// or opened an interrupt window.
    Leave   "leave"  End     End [OSZAPC] [0];
    }
    } };
}

/// Evaluates a pure op: `(w, k, a, b, c, flags) -> (result, flags)`. The result may have any bits
/// above the width; the flags are meaningful only in the op's written set.
pub type Eval = fn(Width, u8, u64, u64, u64, Flags) -> (u64, Flags);

/// A pure op as a type, for code that is generic over ops (interpreter handlers).
pub trait PureOp {
    /// Its number.
    const OP: Op;
    /// Its meaning; see [`Eval`].
    fn eval(w: Width, k: u8, a: u64, b: u64, c: u64, f: Flags) -> (u64, Flags);
}

/// A row of the op table.
#[derive(Clone, Copy, Debug)]
pub struct OpRow {
    /// Name in the text form.
    pub name: &'static str,
    /// Operands.
    pub form: Form,
    /// Effect class.
    pub effect: Effect,
    /// Flags read. For ops with a condition `k`, see [`Uop::flags_read`].
    pub reads: u32,
    /// Flags written at most.
    pub writes: u32,
    /// Meaning of a pure op.
    pub eval: Option<Eval>,
}

macro_rules! make_ops {
    (pure { $($(#[doc = $pd:literal])+ $p:ident $pn:literal $pf:ident [$pr:expr] [$pw:expr] $eval:expr;)* }
     other { $($(#[doc = $od:literal])+ $o:ident $on:literal $of:ident $oe:ident [$or:expr] [$ow:expr];)* }) => {
        /// Number of an op: a row of the table in [`for_each_op!`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Op { $($(#[doc = $pd])+ $p,)* $($(#[doc = $od])+ $o,)* }

        impl Op {
            /// All ops in table order.
            pub const ALL: &'static [Op] = &[$(Op::$p,)* $(Op::$o,)*];
        }

        static ROWS: &[OpRow] = &[
            $(OpRow { name: $pn, form: Form::$pf, effect: Effect::Pure, reads: $pr, writes: $pw,
                eval: Some(<ops::$p as PureOp>::eval) },)*
            $(OpRow { name: $on, form: Form::$of, effect: Effect::$oe, reads: $or, writes: $ow,
                eval: None },)*
        ];

        /// The pure ops as types; see [`PureOp`].
        pub mod ops {
            use super::*;
            $($(#[doc = $pd])+
            #[derive(Clone, Copy, Debug)]
            pub struct $p;
            impl PureOp for $p {
                const OP: Op = Op::$p;
                #[inline(always)]
                fn eval(w: Width, k: u8, a: u64, b: u64, c: u64, f: Flags) -> (u64, Flags) {
                    let e: Eval = $eval;
                    e(w, k, a, b, c, f)
                }
            })*
        }
    };
}
for_each_op!(make_ops);

impl Op {
    /// The op's row.
    #[inline]
    pub fn row(self) -> &'static OpRow {
        &ROWS[self as usize]
    }
}

// ---- meanings that are longer than a line ------------------------------------------------------

#[inline(always)]
fn add(w: Width, a: u64, b: u64, carry: u64) -> (u64, Flags) {
    let r = a.wrapping_add(b).wrapping_add(carry);
    (r, Flags::arith(w, r, (a & b) | ((a | b) & !r)))
}

#[inline(always)]
fn sub(w: Width, a: u64, b: u64, borrow: u64) -> (u64, Flags) {
    let r = a.wrapping_sub(b).wrapping_sub(borrow);
    (r, Flags::arith(w, r, (!a & b) | (!(a ^ b) & r)))
}

#[inline(always)]
fn logic(w: Width, r: u64) -> (u64, Flags) {
    (r, Flags::logic(w, r))
}

const fn bswap(w: Width, a: u64) -> u64 {
    match w {
        Width::W64 => a.swap_bytes(),
        Width::W32 => (a as u32).swap_bytes() as u64,
        _ => 0,
    }
}

/// Shift count as the CPU masks it: 6 bits for 64-bit operands, else 5 (SDM Vol. 2, SAL/SAR/…).
#[inline(always)]
const fn count(w: Width, b: u64) -> u32 {
    (b & if matches!(w, Width::W64) { 63 } else { 31 }) as u32
}

#[inline(always)]
fn shl(w: Width, a: u64, b: u64, f: Flags) -> (u64, Flags) {
    let n = count(w, b);
    if n == 0 {
        return (a, f);
    }
    let wide = u128::from(w.zext(a)) << n;
    let r = wide as u64;
    let cf = wide >> w.bits() & 1 != 0;
    let top = r >> (w.bits() - 1) & 1 != 0;
    (r, Flags::with_co(w, r, cf, top ^ cf))
}

#[inline(always)]
fn shr(w: Width, a: u64, b: u64, f: Flags) -> (u64, Flags) {
    let n = count(w, b);
    if n == 0 {
        return (a, f);
    }
    let v = w.zext(a);
    let r = v >> n;
    let cf = v >> (n - 1) & 1 != 0;
    // OF is defined for a count of 1 (the old top bit); CPUs give r's two top bits xored always.
    let of = (r ^ r << 1) >> (w.bits() - 1) & 1 != 0;
    (r, Flags::with_co(w, r, cf, of))
}

#[inline(always)]
fn sar(w: Width, a: u64, b: u64, f: Flags) -> (u64, Flags) {
    let n = count(w, b);
    if n == 0 {
        return (a, f);
    }
    let v = w.sext(a) as i64;
    let r = (v >> n) as u64;
    (r, Flags::with_co(w, r, v >> (n - 1) & 1 != 0, false))
}

#[inline(always)]
fn rol(w: Width, a: u64, b: u64, f: Flags) -> (u64, Flags) {
    if count(w, b) == 0 {
        return (a, f);
    }
    let n = count(w, b) % w.bits();
    let v = w.zext(a);
    let r = w.zext(v << n | v >> ((w.bits() - n) % w.bits()));
    let cf = r & 1 != 0;
    (r, Flags::with_co(w, 0, cf, cf ^ (r >> (w.bits() - 1) & 1 != 0)))
}

#[inline(always)]
fn ror(w: Width, a: u64, b: u64, f: Flags) -> (u64, Flags) {
    if count(w, b) == 0 {
        return (a, f);
    }
    let n = count(w, b) % w.bits();
    let v = w.zext(a);
    let r = w.zext(v >> n | v << ((w.bits() - n) % w.bits()));
    let top = r >> (w.bits() - 1) & 1 != 0;
    (r, Flags::with_co(w, 0, top, top ^ (r >> (w.bits() - 2) & 1 != 0)))
}

fn rcl(w: Width, a: u64, b: u64, f: Flags) -> (u64, Flags) {
    let n = count(w, b) % (w.bits() + 1);
    if n == 0 {
        return (a, f);
    }
    let bits = w.bits();
    let v = u128::from(w.zext(a)) | u128::from(f.cf()) << bits;
    let r = v << n | v >> (bits + 1 - n);
    let cf = r >> bits & 1 != 0;
    let r = w.zext(r as u64);
    (r, Flags::with_co(w, 0, cf, cf ^ (r >> (bits - 1) & 1 != 0)))
}

fn rcr(w: Width, a: u64, b: u64, f: Flags) -> (u64, Flags) {
    let n = count(w, b) % (w.bits() + 1);
    if n == 0 {
        return (a, f);
    }
    let bits = w.bits();
    let v = u128::from(w.zext(a)) | u128::from(f.cf()) << bits;
    let r = v >> n | v << (bits + 1 - n);
    let cf = r >> bits & 1 != 0;
    let r = w.zext(r as u64);
    (r, Flags::with_co(w, 0, cf, (r >> (bits - 1) ^ r >> (bits - 2)) & 1 != 0))
}

/// For 16-bit operands a count above 16, which the manual leaves undefined, goes on into the second
/// operand again, as AMD's CPUs do.
fn shld(w: Width, a: u64, b: u64, c: u64, f: Flags) -> (u64, Flags) {
    let n = count(w, c);
    if n == 0 {
        return (a, f);
    }
    let bits = w.bits();
    let (va, vb) = (w.zext(a), w.zext(b));
    let (r, cf) = if n <= bits {
        let wide = u128::from(va) << bits | u128::from(vb);
        let r = (wide << n >> bits) as u64;
        (r, va >> (bits - n) & 1 != 0)
    } else {
        let wide = u128::from(vb) << bits | u128::from(vb);
        ((wide << (n - bits) >> bits) as u64, vb >> (2 * bits - n) & 1 != 0)
    };
    let of = (w.zext(r) ^ va) >> (bits - 1) & 1 != 0;
    (r, Flags::with_co(w, r, cf, of))
}

/// See [`shld`] on counts above the width.
fn shrd(w: Width, a: u64, b: u64, c: u64, f: Flags) -> (u64, Flags) {
    let n = count(w, c);
    if n == 0 {
        return (a, f);
    }
    let bits = w.bits();
    let (va, vb) = (w.zext(a), w.zext(b));
    let (r, cf) = if n <= bits {
        let wide = u128::from(vb) << bits | u128::from(va);
        ((wide >> n) as u64, va >> (n - 1) & 1 != 0)
    } else {
        let wide = u128::from(vb) << bits | u128::from(vb);
        ((wide >> (n - bits)) as u64, vb >> (n - bits - 1) & 1 != 0)
    };
    let r = w.zext(r);
    let of = (r ^ r << 1) >> (bits - 1) & 1 != 0;
    (r, Flags::with_co(w, r, cf, of))
}

#[inline(always)]
fn imul(w: Width, a: u64, b: u64) -> (u64, Flags) {
    let wide = i128::from(w.sext(a) as i64) * i128::from(w.sext(b) as i64);
    let r = wide as u64;
    let over = wide != i128::from(w.sext(r) as i64);
    (r, Flags::with_co(w, r, over, over))
}

#[inline(always)]
fn mul(w: Width, a: u64, b: u64) -> (u64, Flags) {
    let wide = u128::from(w.zext(a)) * u128::from(w.zext(b));
    let over = wide >> w.bits() != 0;
    (wide as u64, Flags::with_co(w, wide as u64, over, over))
}

#[inline(always)]
const fn bit(w: Width, b: u64) -> u64 {
    1 << (b & (w.bits() as u64 - 1))
}

#[inline(always)]
fn bit_cf(w: Width, a: u64, b: u64) -> Flags {
    Flags::with_co(w, 0, a & bit(w, b) != 0, false)
}

/// ZF tells a zero source; the other flags, undefined in the manual, are those of the source.
fn bsf(w: Width, a: u64, b: u64) -> (u64, Flags) {
    let v = w.zext(b);
    (if v == 0 { a } else { v.trailing_zeros() as u64 }, Flags::logic(w, v))
}

fn bsr(w: Width, a: u64, b: u64) -> (u64, Flags) {
    let v = w.zext(b);
    (if v == 0 { a } else { 63 - v.leading_zeros() as u64 }, Flags::logic(w, v))
}

fn tzcnt(w: Width, a: u64) -> (u64, Flags) {
    let v = w.zext(a);
    let r = if v == 0 { w.bits() as u64 } else { v.trailing_zeros() as u64 };
    (r, counted(r, v == 0))
}

fn lzcnt(w: Width, a: u64) -> (u64, Flags) {
    let v = w.zext(a);
    let r = (v.leading_zeros() - (64 - w.bits())) as u64;
    (r, counted(r, v == 0))
}

/// ZF for the count, CF for a zero source. Of the others, undefined in the manual, AMD CPUs clear
/// SF, AF and PF, and leave OF.
fn counted(r: u64, none: bool) -> Flags {
    Flags::from_bits(if r == 0 { ZF } else { 0 } | if none { CF } else { 0 })
}

/// ZF for a zero source; all others cleared, PF too (SDM Vol. 2, POPCNT).
fn popcnt(w: Width, a: u64) -> (u64, Flags) {
    let r = w.zext(a).count_ones() as u64;
    (r, Flags::from_bits(if r == 0 { ZF } else { 0 }))
}

/// `r` of the lowest set bit of `a`: CF says whether there is one, or with `!found` whether not.
fn low_bit(w: Width, a: u64, r: u64, found: bool) -> (u64, Flags) {
    (r, Flags::with_co(w, r, (w.zext(a) != 0) == found, false))
}

fn bextr(w: Width, a: u64, b: u64) -> (u64, Flags) {
    let (start, len) = (b as u32 & 0xff, b as u32 >> 8 & 0xff);
    let r = w.zext(a).checked_shr(start).unwrap_or(0);
    let r = if len < 64 { r & ((1 << len) - 1) } else { r };
    // SF and AF, undefined in the manual, as AMD CPUs give them.
    (r, Flags::from_bits(Flags::logic(w, r).bits() & !SF | AF))
}

fn bzhi(w: Width, a: u64, b: u64) -> (u64, Flags) {
    let n = b as u32 & 0xff;
    let beyond = n >= w.bits();
    let r = if beyond { a } else { a & ((1 << n) - 1) };
    (r, Flags::with_co(w, r, beyond, false))
}

fn pdep(a: u64, mut mask: u64) -> u64 {
    let (mut r, mut bit) = (0, 1u64);
    while mask != 0 {
        let place = mask & mask.wrapping_neg();
        if a & bit != 0 {
            r |= place;
        }
        (bit, mask) = (bit << 1, mask ^ place);
    }
    r
}

fn pext(a: u64, mut mask: u64) -> u64 {
    let (mut r, mut bit) = (0, 1u64);
    while mask != 0 {
        let place = mask & mask.wrapping_neg();
        if a & place != 0 {
            r |= bit;
        }
        (bit, mask) = (bit << 1, mask ^ place);
    }
    r
}

fn adox(w: Width, a: u64, b: u64, f: Flags) -> (u64, Flags) {
    let r = w.zext(a) as u128 + w.zext(b) as u128 + f.of() as u128;
    (r as u64, Flags::with_co(w, r as u64, false, r >> w.bits() != 0))
}

/// CRC-32C, polynomial 11EDC6F41H, bit-reflected (SDM Vol. 2, CRC32).
fn crc32c(w: Width, acc: u64, v: u64) -> u64 {
    let mut crc = acc as u32;
    for byte in &v.to_le_bytes()[..w.bytes() as usize] {
        crc ^= *byte as u32;
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 != 0 { 0x82f6_3b78 } else { 0 };
        }
    }
    crc as u64
}

// ---- operands and blocks ---------------------------------------------------------------------------

/// Second source of an op.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Src {
    /// A register.
    Reg(Reg),
    /// An immediate, already extended to 64 bits.
    Imm(i64),
}

impl From<Reg> for Src {
    fn from(r: Reg) -> Src {
        Src::Reg(r)
    }
}
impl From<i64> for Src {
    fn from(v: i64) -> Src {
        Src::Imm(v)
    }
}

/// A memory operand: linear address = `seg + cut(base + index * 2^scale + disp)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mem {
    /// Base register, or `ZERO`.
    pub base: Reg,
    /// Index register, or `ZERO`.
    pub index: Reg,
    /// log2 of the index factor, 0–3.
    pub scale: u8,
    /// Displacement.
    pub disp: i32,
    /// Segment base register to add, or `ZERO`.
    pub seg: Reg,
    /// Width to which the sum before the segment base is cut (address size).
    pub addr: Width,
    /// A stack-segment access: #SS instead of #GP for a non-canonical address.
    pub stack: bool,
}

impl Mem {
    /// `[base + disp]` with 64-bit addressing.
    pub const fn at(base: Reg, disp: i32) -> Mem {
        Mem {
            base,
            index: Reg::ZERO,
            scale: 0,
            disp,
            seg: Reg::ZERO,
            addr: Width::W64,
            stack: false,
        }
    }
}

/// Arguments of a helper: register numbers and immediates as the lifter gave them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Args {
    /// Width.
    pub w: Width,
    /// Small constant.
    pub k: u8,
    /// Destination register.
    pub d: Reg,
    /// First source register.
    pub a: Reg,
    /// Second source register.
    pub b: Reg,
    /// Immediate.
    pub imm: u64,
}

/// A helper: what loops on guest state or needs more than some thirty micro-ops. It changes
/// nothing before it returns an error (unless its instruction is restartable).
pub type HelperFn = fn(&mut Cpu, Args) -> Guest<()>;

/// A named helper. Define them as `static`s: blocks refer to them.
#[derive(Debug)]
pub struct HelperDef {
    /// Name in the text form.
    pub name: &'static str,
    /// The function.
    pub call: HelperFn,
    /// Which of those it is that a generator may have host code for.
    pub quick: Option<Quick>,
}

/// Helpers that a code generator may know: those of x86 that are run often. What they mean is told
/// by the helper alone; the names are the manual's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub enum Quick {
    Div,
    Movs,
    Stos,
    Lods,
    CompareExchangeWide,
    Cli,
    Sti,
    SetDf,
    Pushf,
    ReadSeg,
    Swapgs,
    ReadBase,
    WriteBase,
    MovFromCr,
}

impl HelperDef {
    /// A helper that generators know nothing of.
    pub const fn new(name: &'static str, call: HelperFn) -> HelperDef {
        HelperDef { name, call, quick: None }
    }

    /// The same, as one that they may know.
    pub const fn quick(self, quick: Quick) -> HelperDef {
        HelperDef { quick: Some(quick), ..self }
    }

    /// Of the helpers of the x87, whose names tell so: the guest's opcode as FOP shows it and the
    /// segment of the memory operand, which are the low bytes of the immediate.
    pub fn x87(&self, imm: i64) -> Option<(u16, Seg)> {
        let seg = (imm >> 16) as u8;
        let seg = Seg::ALL.into_iter().find(|s| *s as u8 == seg)?;
        self.name.starts_with("x87_").then_some((imm as u16, seg))
    }
}

/// A micro-op; which fields mean something depends on its [`Form`].
#[derive(Clone, Copy, Debug)]
pub struct Uop {
    /// What to do.
    pub op: Op,
    /// Operand width.
    pub w: Width,
    /// Condition, second width, byte count or segment; see the table.
    pub k: u8,
    /// Destination.
    pub d: Reg,
    /// First source.
    pub a: Reg,
    /// Second source.
    pub b: Src,
    /// Third source.
    pub c: Reg,
    /// Flags written (RFLAGS bits).
    pub fl: u32,
    /// Memory operand.
    pub mem: Mem,
    /// Immediate; for the ops that end a block, the distance from the block's start.
    pub imm: i64,
    /// Distance of a conditional jump's other way.
    pub fall: i32,
    /// Vector operation.
    pub vop: VecOp,
    /// Helper.
    pub helper: Option<&'static HelperDef>,
}

impl Uop {
    /// Whether it is the check of an instruction pointer; see [`Op::Lin`].
    pub fn checks_rip(&self) -> bool {
        self.op == Op::Lin && self.w == Width::W64 && self.k == 1 && self.imm == 0
    }

    /// An op with nothing in its fields but width `w`; flags: all that its row can write.
    pub fn new(op: Op, w: Width) -> Uop {
        Uop {
            op,
            w,
            k: 0,
            d: Reg::ZERO,
            a: Reg::ZERO,
            b: Src::Reg(Reg::ZERO),
            c: Reg::ZERO,
            fl: op.row().writes,
            mem: Mem::at(Reg::ZERO, 0),
            imm: 0,
            fall: 0,
            vop: VecOp::default(),
            helper: None,
        }
    }

    /// Flags it reads: those of its condition, or of its row; a shift or rotate whose count may
    /// be zero may also leave every flag as it was, and so reads them.
    pub fn flags_read(&self) -> u32 {
        match self.op {
            Op::Set | Op::Cmov => Flags::read_by_cond(self.k),
            Op::Shl | Op::Shr | Op::Sar | Op::Rol | Op::Ror | Op::Rcl | Op::Rcr => match self.b {
                // RCL and RCR rotate through CF: a multiple of the width + 1 is no rotation either.
                Src::Imm(n)
                    if n & 31 != 0
                        && (self.op.row().reads == 0
                            || !count(self.w, n as u64).is_multiple_of(self.w.bits() + 1)) =>
                {
                    self.op.row().reads
                }
                _ if self.fl == 0 => self.op.row().reads,
                _ => OSZAPC,
            },
            Op::Shld | Op::Shrd => OSZAPC,
            _ => self.op.row().reads,
        }
    }

    /// Whether it may leave the block with a fault.
    pub fn may_fault(&self) -> bool {
        if matches!(self.op, Op::V | Op::Vx) {
            return self.vop.raises();
        }
        matches!(
            self.op.row().effect,
            Effect::Load | Effect::Store | Effect::MayFault | Effect::Helper
        ) || self.op == Op::Raise
    }
}

/// Where a guest instruction starts in its block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InsnMark {
    /// Index of its first micro-op.
    pub uop: u32,
    /// Distance of its first byte from the block's first byte.
    pub offset: u16,
    /// Its length in bytes, 1–15.
    pub len: u8,
    /// It may be left half done by a fault and run again (REP string instructions).
    pub restartable: bool,
}

/// Guest code as micro-ops: straight-line, ended by one [`Effect::End`] op.
#[derive(Clone, Debug, Default)]
pub struct Block {
    /// The micro-ops.
    pub uops: Vec<Uop>,
    /// The guest instructions, in order.
    pub insns: Vec<InsnMark>,
    /// Guest bytes covered.
    pub len: u32,
}

impl Block {
    /// The direct ways out of it: where the condition of its end holds (or always), and where not.
    /// Each is the width of the instruction pointer, and the distance from the block's start.
    pub fn exits(&self) -> [Option<(Width, i64)>; 2] {
        let Some(u) = self.uops.last() else { return [None; 2] };
        match u.op {
            Op::Goto => [Some((u.w, u.imm)), None],
            Op::Jcc => [Some((u.w, u.imm)), Some((u.w, u.fall.into()))],
            Op::Jrnz => {
                let w = Width::from_index(u.k);
                [Some((w, u.imm)), Some((w, u.fall.into()))]
            }
            _ => [None; 2],
        }
    }
}
