//! What cannot be compared with the CPU beneath us, and why: instructions that are left out, and
//! flags and bytes that the manuals leave undefined.

use super::encode::Encoded;
use frontend_x86::insn;
use frontend_x86::row::{Attr, Row};
use frontend_x86::sys::cpuid::Features;
use iced_x86::{Code, CodeSize, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind};
use oracle::Bits;

/// Why an instruction is not generated.
pub type Reason = &'static str;

macro_rules! excluded {
    ($($($m:ident)|+ => $why:literal;)*) => {
        /// Instructions that are left out, with the reason.
        pub static EXCLUDED: &[(&[Mnemonic], Reason)] = &[$((&[$(Mnemonic::$m),+], $why)),*];
    };
}

excluded! {
    Cpuid | Xgetbv => "tells the host's CPU and its operating system's choices";
    Rdtsc | Rdtscp | Rdpmc => "tells the host's time and counters";
    Rdpid | Rdrand | Rdseed => "tells the host's processor number or random numbers";
    Sgdt | Sidt | Sldt | Str | Smsw => "Linux emulates these for user mode (UMIP), or they tell the host's tables";
    Lar | Lsl | Verr | Verw => "the answer depends on the host's GDT";
    Xsave | Xsave64 | Xsaveopt | Xsaveopt64 | Xsavec | Xsavec64 | Xrstor | Xrstor64 | Xsaves | Xsaves64 | Xrstors | Xrstors64 => "the area's size and header depend on the host's XCR0";
    Monitor | Mwait | Getsec => "depends on the host's virtualization";
    Int1 | Int3 | Into | Syscall | Sysenter | Sysexit | Sysret | Sysretq | Sysexitq => "leaves the sample for the host's kernel";
    Clzero | Monitorx | Mwaitx => "of the host's vendor only";
}

/// Whether, and why, an instruction is left out when samples for a CPU with `features` are made.
#[must_use]
pub fn excluded(i: &Instruction, features: u128) -> Option<Reason> {
    let row = EXCLUDED.iter().find(|(all, _)| all.contains(&i.mnemonic()));
    if let Some((_, why)) = row {
        return Some(why);
    }
    let code = i.code();
    let info = code.op_code();
    let lacks = |f: Features| features & f.0 == 0;
    let scans = match i.mnemonic() {
        Mnemonic::Lzcnt => lacks(Features::LZCNT),
        Mnemonic::Tzcnt => lacks(Features::BMI1),
        _ => false,
    };
    if scans {
        return Some("the host has LZCNT and BMI1; the model without them scans instead");
    }
    let wide_pointer = matches!(
        code,
        Code::Lss_r64_m1664
            | Code::Lfs_r64_m1664
            | Code::Lgs_r64_m1664
            | Code::Jmp_m1664
            | Code::Call_m1664
    );
    if wide_pointer {
        return Some(
            "AMD's CPUs take m16:32 whatever REX.W says, Intel's m16:64 (APM Vol. 3, LFS)",
        );
    }
    if i.mnemonic() == Mnemonic::Reservednop && info.op_code() == 0x0d {
        return Some("a NOP on Intel's CPUs, #UD on AMD's (APM Vol. 3, PREFETCH)");
    }
    None
}

/// Whether an instruction goes on elsewhere than after itself.
#[must_use]
pub fn branches(i: &Instruction) -> bool {
    !matches!(i.flow_control(), FlowControl::Next | FlowControl::Exception)
}

/// Whether a branch takes its target from what a sample may have changed.
#[must_use]
pub fn branches_anywhere(i: &Instruction) -> bool {
    use FlowControl::{IndirectBranch, IndirectCall, Return};
    matches!(i.flow_control(), IndirectBranch | IndirectCall | Return)
}

/// Why these bytes of an instruction are not generated though others of its encoding are.
#[must_use]
pub fn excluded_form(e: &Encoded) -> Option<Reason> {
    let i = &e.insn;
    if i.code() == Code::Movsxd_r16_rm16 && i.op1_kind() == OpKind::Memory {
        return Some("AMD's CPUs read four bytes of memory, Intel's two (SDM Vol. 2, MOVSXD)");
    }
    let rep = i.has_rep_prefix() || i.has_repne_prefix();
    if rep && matches!(i.mnemonic(), Mnemonic::Loope | Mnemonic::Loopne) {
        return Some("reserved (SDM Vol. 2, 2.1.1); AMD's CPUs take the condition from the prefix");
    }
    let near = matches!(i.op0_kind(), OpKind::NearBranch16 | OpKind::NearBranch64)
        || i.is_jmp_near_indirect()
        || i.is_call_near_indirect()
        || i.mnemonic() == Mnemonic::Ret;
    let prefixes = e.bytes.iter().take_while(|b| is_prefix(**b, Bits::B64));
    if i.code_size() == CodeSize::Code64 && near && prefixes.clone().any(|b| *b == 0x66) {
        return Some("AMD's CPUs take 16-bit near branches in 64-bit code (SDM Vol. 2, JMP)");
    }
    if i.mnemonic() == Mnemonic::Int && matches!(i.immediate8(), 3 | 4 | 0x80) {
        return Some("the host's kernel has gates for these vectors that user mode may use");
    }
    None
}

/// Legacy and REX prefixes.
#[must_use]
pub fn is_prefix(b: u8, bits: Bits) -> bool {
    let rex = bits == Bits::B64 && matches!(b, 0x40..=0x4f);
    rex || matches!(b, 0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3)
}

/// Instructions that are only generated as the single one of a sample: what they load or store
/// needs care ([`pointer_fields`], RFLAGS).
#[must_use]
pub fn alone(m: Mnemonic) -> bool {
    use Mnemonic::*;
    matches!(m, Popf | Popfd | Popfq | Iret | Iretd | Iretq | Ldmxcsr | Vldmxcsr)
        || in_parts(m)
        || approximate(m).is_some()
}

/// How near two results of an instruction must be whose exact result no manual gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Near {
    /// x87 registers, within one unit in the last place: transcendental instructions (SDM Vol. 1,
    /// 8.3.10, allows each CPU less than that).
    Extended,
    /// Single-precision elements, within twice the error of 1.5 * 2^-12 that each CPU may have (SDM
    /// Vol. 2, RCPPS, RSQRTPS).
    Single,
}

/// How near the results of `m` must be; `None`: equal.
#[must_use]
pub fn approximate(m: Mnemonic) -> Option<Near> {
    use Mnemonic::*;
    match m {
        F2xm1 | Fyl2x | Fyl2xp1 | Fsin | Fcos | Fsincos | Fptan | Fpatan => Some(Near::Extended),
        Rcpps | Rcpss | Rsqrtps | Rsqrtss | Vrcpps | Vrcpss | Vrsqrtps | Vrsqrtss => {
            Some(Near::Single)
        }
        _ => None,
    }
}

/// Bits that an instruction must not load: offset in its operand, and mask. In RFLAGS TF (the
/// sample would not come to its end) and AC (the model checks no alignment, nor do we); in MXCSR
/// bit 17, which AMD's CPUs alone have (misaligned exception mask).
#[must_use]
pub fn cleared(m: Mnemonic) -> &'static [(u64, u8)] {
    use Mnemonic::{Fxrstor, Fxrstor64, Ldmxcsr, Popf, Popfd, Popfq, Vldmxcsr};
    match m {
        Popf | Popfd | Popfq => &[(1, 1), (2, 4)],
        Ldmxcsr | Vldmxcsr => &[(2, 2)],
        Fxrstor | Fxrstor64 => &[(26, 2)],
        _ => &[],
    }
}

/// Ranges of what an instruction stores, from its address on, that are not compared: the x87
/// instruction and data pointers, which this vendor's CPUs keep only while an exception is pending
/// (APM Vol. 2, 11.4.4.3) so that a context switch loses them, and MXCSR_MASK, which tells of the
/// host's features.
#[must_use]
pub fn pointer_fields(code: Code) -> &'static [std::ops::Range<u64>] {
    match code {
        Code::Fnstenv_m14byte | Code::Fnsave_m94byte => &[const { 6..14 }],
        Code::Fnstenv_m28byte | Code::Fnsave_m108byte => &[const { 12..28 }],
        Code::Fxsave_m512byte | Code::Fxsave64_m512byte => &[const { 6..24 }, const { 28..32 }],
        _ => &[],
    }
}

const CF: u64 = 1 << 0;
const PF: u64 = 1 << 2;
const AF: u64 = 1 << 4;
const ZF: u64 = 1 << 6;
const SF: u64 = 1 << 7;
const OF: u64 = 1 << 11;
/// All arithmetic flags.
pub const OSZAPC: u64 = CF | PF | AF | ZF | SF | OF;

macro_rules! undefined {
    ($($($m:ident)|+ => $mask:expr, $words:literal;)*) => {
        /// Flags that are undefined after an instruction, with SDM Vol. 2's words.
        pub static UNDEFINED: &[(&[Mnemonic], u64, Reason)] =
            &[$((&[$(Mnemonic::$m),+], $mask, $words)),*];
    };
}

undefined! {
    Mul | Imul => SF | ZF | AF | PF, "The SF, ZF, AF, and PF flags are undefined.";
    Div | Idiv => OSZAPC, "The CF, OF, SF, ZF, AF, and PF flags are undefined.";
    Bsf | Bsr => CF | OF | SF | AF | PF, "The CF, OF, SF, AF, and PF flags are undefined.";
    Bt | Bts | Btr | Btc => OF | SF | AF | PF, "The OF, SF, AF, and PF flags are undefined.";
    Shl | Sal | Shr | Sar => CF | AF | OF, "The CF flag is undefined for SHL and SHR where the count is not less than the size; OF is affected only for 1-bit shifts, otherwise undefined; AF is undefined for a non-zero count.";
    Rol | Ror | Rcl | Rcr => OF, "The OF flag is affected only for single-bit rotates; it is undefined for multi-bit rotates.";
    Shld | Shrd => OSZAPC, "If the count is greater than the operand size, the flags are undefined; OF is undefined for shifts greater than 1 bit, AF is undefined.";
    And | Or | Xor | Test => AF, "The state of the AF flag is undefined.";
    Aaa | Aas => OF | SF | ZF | PF, "The OF, SF, ZF, and PF flags are undefined.";
    Aam | Aad => OF | AF | CF, "The OF, AF, and CF flags are undefined.";
    Daa | Das => OF, "The OF flag is undefined.";
    F2xm1 | Fyl2x | Fyl2xp1 | Fsin | Fcos | Fsincos | Fptan | Fpatan => C1, "C1: set if the result was rounded up, which is each CPU's own approximation.";
    Fcomi | Fcomip | Fucomi | Fucomip => C1, "C1: set to 0 (SDM); AMD's CPUs leave it unless the stack underflows.";
}

/// Where bits of the x87 status word are in the masks that this module gives.
pub const SW_SHIFT: u32 = 32;
const C1: u64 = 1 << (SW_SHIFT + 9);

/// Flags that are undefined after `i`: arithmetic flags, and from bit [`SW_SHIFT`] on those of the
/// x87 status word.
#[must_use]
pub fn undefined(i: &Instruction) -> u64 {
    let m = i.mnemonic();
    UNDEFINED.iter().find(|(all, ..)| all.contains(&m)).map_or(0, |row| row.1)
}

/// Whether `i` begins to use MMX registers even if it then raises a fault, on some CPUs.
#[must_use]
pub fn enters_mmx_early(m: Mnemonic) -> bool {
    use Mnemonic::{Cvtpd2pi, Cvtpi2ps, Cvtps2pi, Cvttpd2pi, Cvttps2pi, Maskmovq};
    matches!(m, Cvtpi2ps | Cvtpd2pi | Cvtps2pi | Cvttpd2pi | Cvttps2pi | Maskmovq)
}

/// Whether `i` reads two places, of which CPUs look at either first, or checks a selector or target
/// before or after it reads or writes the rest of a stack frame.
#[must_use]
pub fn two_places(m: Mnemonic) -> bool {
    use Mnemonic::*;
    matches!(m, Cmpsb | Cmpsw | Cmpsd | Cmpsq | Call | Retf | Iret | Iretd | Iretq)
}

/// Whether, where `i` faults, CPUs differ in which of its pushes and pops are done.
#[must_use]
pub fn half_done(i: &Instruction) -> bool {
    let m = i.mnemonic();
    let all = matches!(m, Mnemonic::Pusha | Mnemonic::Pushad | Mnemonic::Popa | Mnemonic::Popad);
    all || i.is_call_far_indirect() || i.is_call_far()
}

/// Whether AMD's CPUs take a 128-bit memory operand of any alignment, and Intel's raise #GP
/// (SDM Vol. 2, SHA1RNDS4: exceptions type 4).
#[must_use]
pub fn unaligned_on_amd(m: Mnemonic) -> bool {
    use Mnemonic::*;
    matches!(m, Sha1msg1 | Sha1msg2 | Sha1nexte | Sha1rnds4)
        || matches!(m, Sha256msg1 | Sha256msg2 | Sha256rnds2)
}

/// Whether `i` reads or writes memory in parts, so that CPUs differ in where they find
/// out that a page is missing.
#[must_use]
pub fn in_parts(m: Mnemonic) -> bool {
    use Mnemonic::*;
    let x87 = matches!(m, Fldenv | Fnsave | Fnstenv | Frstor);
    x87 || matches!(m, Fxrstor | Fxrstor64 | Fxsave | Fxsave64)
}

/// Arithmetic flags that `i` defines whatever its operands are.
#[must_use]
pub fn defined(i: &Instruction) -> u64 {
    use Mnemonic::*;
    // A count of 0 changes no flag, an index or source of 0 not all.
    if matches!(i.mnemonic(), Shl | Sal | Shr | Sar | Rol | Ror | Rcl | Rcr | Shld | Shrd)
        || i.is_string_instruction()
    {
        return 0;
    }
    let f = iced_flags(i.rflags_written() | i.rflags_cleared() | i.rflags_set());
    f & !undefined(i)
}

/// Flags that `i` reads, as [`undefined`] has them.
#[must_use]
pub fn read(i: &Instruction) -> u64 {
    use Mnemonic::{Fnsave, Fnstenv, Fnstsw, Fxsave, Fxsave64};
    let status = matches!(i.mnemonic(), Fnstsw | Fnstenv | Fnsave | Fxsave | Fxsave64);
    iced_flags(i.rflags_read()) | if status { C1 } else { 0 }
}

/// The decoder library's flag bits as RFLAGS bits.
fn iced_flags(bits: u32) -> u64 {
    use iced_x86::RflagsBits as R;
    let all = [(R::CF, CF), (R::PF, PF), (R::AF, AF), (R::ZF, ZF), (R::SF, SF), (R::OF, OF)];
    all.iter().filter(|(r, _)| bits & r != 0).fold(0, |v, (_, f)| v | f)
}

/// Name of the family (the file in `frontend-x86/src/insn`) that `row` is in.
#[must_use]
pub fn family(row: &Row) -> &'static str {
    let in_family = |f: &&[Row]| f.iter().any(|r| std::ptr::eq(r, row));
    insn::FAMILIES.iter().position(in_family).map_or("", |n| insn::NAMES[n])
}

/// The instruction's family, or what it is instead.
#[must_use]
pub fn family_of(i: &Instruction) -> &'static str {
    insn::row(i).map_or("illegal", family)
}

/// Whether the decoder gives `code` for any bytes as Intel's CPUs take them: an instruction of its
/// own, not WAIT and another one, of no vendor or time that must be asked for.
#[must_use]
pub fn decodes(code: Code) -> bool {
    let info = code.op_code();
    let sizes = info.intel_decoder16() || info.intel_decoder32() || info.intel_decoder64();
    // 0FH is POP CS on the 8086 only.
    let own = sizes && code != Code::Popw_CS;
    own && info.is_instruction() && !info.fwait() && info.decoder_option() == DecoderOptions::NONE
}

/// Whether a row of the CPU with `features` exists for `i` in code of this size.
#[must_use]
pub fn in_model(i: &Instruction, bits: Bits, features: u128) -> bool {
    let info = i.op_code();
    let has = |f: Features| features & f.0 != 0;
    match i.mnemonic() {
        // Without them these are BSR and BSF, on the host they are not.
        Mnemonic::Lzcnt if !has(Features::LZCNT) => return false,
        Mnemonic::Tzcnt if !has(Features::BMI1) => return false,
        // `i` may come from no code, and so be of no size.
        Mnemonic::Lahf | Mnemonic::Sahf if bits == Bits::B64 && !has(Features::LAHF) => {
            return false;
        }
        _ => {}
    }
    let size = if bits == Bits::B64 { info.intel_decoder64() } else { info.intel_decoder32() };
    size && decodes(i.code()) && insn::enabled(i, Features(features)) && insn::row(i).is_some()
}

/// Whether `i` works on x87 or MMX registers.
#[must_use]
pub fn uses_x87(i: &Instruction) -> bool {
    insn::row(i).is_some_and(|r| r.attr.intersects(Attr::X87 | Attr::MMX))
}
