//! Which instruction of the host does a vector operation: one row each, as the manual has opcodes
//! (SDM Vol. 2, chapters 3 to 5).
//!
//! An operation of the table in `emu_core::vec` is defined by one 128-bit lane, and is there to be
//! the host's instruction of its name, bit for bit. A row says for which sizes that is so. What has
//! no row is called; a test prints it.

use super::super::asm::Code;
use emu_core::vec::VecOp;
use std::arch::is_x86_feature_detected as detected;

/// Operands of an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `d = a op b`.
    Two,
    /// `d = op b`.
    One,
    /// `d = a op imm`: the opcode's extension.
    Shift(u8),
    /// `d = a` or `b` as `c` chooses. The legacy encoding has `c` in XMM0 and this opcode in map
    /// 0F38; 0 stands for that of the row.
    Blend(u8),
    /// FMA: the opcode is that of form 132 that adds.
    Fused,
    /// `d = op b`, with `b` in ModRM.reg.
    Store,
    /// `d = a` with its low lane made of an integer: the low word of `b`.
    FromGpr,
    /// An integer.
    Gpr,
    /// Flags of `a` and `b`.
    Flags,
    /// An index in ECX, and flags. Lengths, if any, are in RAX and RDX.
    Index,
    /// [`VecOp::Mov`].
    Move,
    /// [`VecOp::Vpbroadcast`].
    Broadcast,
}

/// Sizes for which the instruction is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// 128 bits.
    Low,
    /// 128 and 256 bits, lane by lane.
    Lanes,
    /// 256 bits.
    Whole,
    /// 128 bits, and 256 of a source spread over both lanes by [`VecOp::Vspread`].
    Spread,
    /// 128 bits, and 256 of a count that is in both lanes.
    Count,
    /// 128 bits, and 256 if the result goes through [`VecOp::Vnarrow`].
    Narrow,
}

/// Encodings that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forms {
    /// VEX and legacy SSE.
    Both,
    /// VEX.
    Vex,
    /// Legacy SSE.
    Sse,
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub code: Code,
    pub shape: Shape,
    pub reach: Reach,
    /// Bytes of a memory operand in place of `b`, at 128 bits (at 256 twice as many). 0: it cannot
    /// be one.
    pub memory: u8,
    /// Whether it has the operation's immediate.
    pub imm: bool,
    pub forms: Forms,
    /// What the host must have, beyond AVX2.
    pub needs: u8,
}

/// CPUID features, as bits.
pub mod feature {
    pub const AVX2: u8 = 1;
    pub const FMA: u8 = 2;
    pub const F16C: u8 = 4;
    pub const AES: u8 = 8;
    pub const PCLMULQDQ: u8 = 16;
    pub const SHA: u8 = 32;
    pub const VAES: u8 = 64;
    pub const VPCLMULQDQ: u8 = 128;
}

/// The features of this host.
pub fn features() -> u8 {
    [
        (detected!("avx2"), feature::AVX2),
        (detected!("fma"), feature::FMA),
        (detected!("f16c"), feature::F16C),
        (detected!("aes"), feature::AES),
        (detected!("pclmulqdq"), feature::PCLMULQDQ),
        (detected!("sha"), feature::SHA),
        (detected!("vaes"), feature::VAES),
        (detected!("vpclmulqdq"), feature::VPCLMULQDQ),
    ]
    .iter()
    .filter(|f| f.0)
    .fold(0, |all, f| all | f.1)
}

/// An opcode in the manual's words: mandatory prefix, map, opcode, `W1`.
pub const fn code(text: &str) -> Code {
    let t = text.as_bytes();
    let mut c = Code { map: 0, pp: 0, opcode: 0, w: false };
    let mut at = 0;
    while at < t.len() {
        let mut end = at;
        while end < t.len() && t[end] != b' ' {
            end += 1;
        }
        match (t[at], t[end - 1], end - at) {
            (b'W', ..) => c.w = true,
            (b'0', b'F', 2) if c.map == 0 => c.map = 1,
            (b'0', b'8', 4) => c.map = 2,
            (b'0', b'A', 4) => c.map = 3,
            (b'6', b'6', 2) if c.map == 0 => c.pp = 1,
            (b'F', b'3', 2) if c.map == 0 => c.pp = 2,
            (b'F', b'2', 2) if c.map == 0 => c.pp = 3,
            (high, low, _) => c.opcode = digit(high) << 4 | digit(low),
        }
        at = end + 1;
    }
    c
}

const fn digit(c: u8) -> u8 {
    if c <= b'9' { c - b'0' } else { c - b'A' + 10 }
}

macro_rules! rows {
    ($($op:ident $code:literal $shape:expr, $reach:ident $memory:literal $($extra:ident)*;)*) => {
        static ROWS: [Option<Row>; VecOp::ALL.len()] = {
            let mut rows = [None; VecOp::ALL.len()];
            $({
                #[allow(unused_mut)]
                let mut row = Row {
                    code: code($code),
                    shape: $shape,
                    reach: Reach::$reach,
                    memory: $memory,
                    imm: false,
                    forms: Forms::Both,
                    needs: 0,
                };
                $(rows!(@ row $extra);)*
                rows[VecOp::$op as usize] = Some(row);
            })*
            rows
        };
    };
    (@ $row:ident imm) => { $row.imm = true };
    (@ $row:ident vex) => { $row.forms = Forms::Vex };
    (@ $row:ident sse) => { $row.forms = Forms::Sse };
    (@ $row:ident $feature:ident) => { $row.needs = feature::$feature };
}

use Shape::*;

#[rustfmt::skip]
rows! {
    // ---- moves: what is special about them is in `ops` ------------------------------------------
    Mov        "0F 10"         Move,  Lanes 16;
    Movss      "F3 0F 10"      Two,   Low 0;
    Movsd      "F2 0F 10"      Two,   Low 0;
    Movd       "66 0F3A 21"    One,   Low 0 imm;
    Movq       "F3 0F 7E"      One,   Low 8;
    Movhlps    "0F 12"         Two,   Low 0;
    Movddup    "F2 0F 12"      One,   Lanes 8;
    Movsldup   "F3 0F 12"      One,   Lanes 16;
    Movshdup   "F3 0F 16"      One,   Lanes 16;
    // ---- logic ----------------------------------------------------------------------------------
    Pand       "66 0F DB"      Two,   Lanes 16;
    Pandn      "66 0F DF"      Two,   Lanes 16;
    Por        "66 0F EB"      Two,   Lanes 16;
    Pxor       "66 0F EF"      Two,   Lanes 16;
    // ---- sums and differences -------------------------------------------------------------------
    Paddb      "66 0F FC"      Two,   Lanes 16;
    Paddw      "66 0F FD"      Two,   Lanes 16;
    Paddd      "66 0F FE"      Two,   Lanes 16;
    Paddq      "66 0F D4"      Two,   Lanes 16;
    Paddsb     "66 0F EC"      Two,   Lanes 16;
    Paddsw     "66 0F ED"      Two,   Lanes 16;
    Paddusb    "66 0F DC"      Two,   Lanes 16;
    Paddusw    "66 0F DD"      Two,   Lanes 16;
    Psubb      "66 0F F8"      Two,   Lanes 16;
    Psubw      "66 0F F9"      Two,   Lanes 16;
    Psubd      "66 0F FA"      Two,   Lanes 16;
    Psubq      "66 0F FB"      Two,   Lanes 16;
    Psubsb     "66 0F E8"      Two,   Lanes 16;
    Psubsw     "66 0F E9"      Two,   Lanes 16;
    Psubusb    "66 0F D8"      Two,   Lanes 16;
    Psubusw    "66 0F D9"      Two,   Lanes 16;
    Pavgb      "66 0F E0"      Two,   Lanes 16;
    Pavgw      "66 0F E3"      Two,   Lanes 16;
    Phaddw     "66 0F38 01"    Two,   Lanes 16;
    Phaddd     "66 0F38 02"    Two,   Lanes 16;
    Phaddsw    "66 0F38 03"    Two,   Lanes 16;
    Phsubw     "66 0F38 05"    Two,   Lanes 16;
    Phsubd     "66 0F38 06"    Two,   Lanes 16;
    Phsubsw    "66 0F38 07"    Two,   Lanes 16;
    Psadbw     "66 0F F6"      Two,   Lanes 16;
    Mpsadbw    "66 0F3A 42"    Two,   Lanes 16 imm;
    // ---- products -------------------------------------------------------------------------------
    Pmullw     "66 0F D5"      Two,   Lanes 16;
    Pmulld     "66 0F38 40"    Two,   Lanes 16;
    Pmulhw     "66 0F E5"      Two,   Lanes 16;
    Pmulhuw    "66 0F E4"      Two,   Lanes 16;
    Pmulhrsw   "66 0F38 0B"    Two,   Lanes 16;
    Pmuludq    "66 0F F4"      Two,   Lanes 16;
    Pmuldq     "66 0F38 28"    Two,   Lanes 16;
    Pmaddwd    "66 0F F5"      Two,   Lanes 16;
    Pmaddubsw  "66 0F38 04"    Two,   Lanes 16;
    // ---- minima, maxima, signs ------------------------------------------------------------------
    Pminsb     "66 0F38 38"    Two,   Lanes 16;
    Pminsw     "66 0F EA"      Two,   Lanes 16;
    Pminsd     "66 0F38 39"    Two,   Lanes 16;
    Pminub     "66 0F DA"      Two,   Lanes 16;
    Pminuw     "66 0F38 3A"    Two,   Lanes 16;
    Pminud     "66 0F38 3B"    Two,   Lanes 16;
    Pmaxsb     "66 0F38 3C"    Two,   Lanes 16;
    Pmaxsw     "66 0F EE"      Two,   Lanes 16;
    Pmaxsd     "66 0F38 3D"    Two,   Lanes 16;
    Pmaxub     "66 0F DE"      Two,   Lanes 16;
    Pmaxuw     "66 0F38 3E"    Two,   Lanes 16;
    Pmaxud     "66 0F38 3F"    Two,   Lanes 16;
    Phminposuw "66 0F38 41"    One,   Low 16;
    Pabsb      "66 0F38 1C"    One,   Lanes 16;
    Pabsw      "66 0F38 1D"    One,   Lanes 16;
    Pabsd      "66 0F38 1E"    One,   Lanes 16;
    Psignb     "66 0F38 08"    Two,   Lanes 16;
    Psignw     "66 0F38 09"    Two,   Lanes 16;
    Psignd     "66 0F38 0A"    Two,   Lanes 16;
    // ---- comparisons ----------------------------------------------------------------------------
    Pcmpeqb    "66 0F 74"      Two,   Lanes 16;
    Pcmpeqw    "66 0F 75"      Two,   Lanes 16;
    Pcmpeqd    "66 0F 76"      Two,   Lanes 16;
    Pcmpeqq    "66 0F38 29"    Two,   Lanes 16;
    Pcmpgtb    "66 0F 64"      Two,   Lanes 16;
    Pcmpgtw    "66 0F 65"      Two,   Lanes 16;
    Pcmpgtd    "66 0F 66"      Two,   Lanes 16;
    Pcmpgtq    "66 0F38 37"    Two,   Lanes 16;
    // ---- shifts ---------------------------------------------------------------------------------
    Psllw      "66 0F F1"      Two,   Count 16;
    Pslld      "66 0F F2"      Two,   Count 16;
    Psllq      "66 0F F3"      Two,   Count 16;
    Psrlw      "66 0F D1"      Two,   Count 16;
    Psrld      "66 0F D2"      Two,   Count 16;
    Psrlq      "66 0F D3"      Two,   Count 16;
    Psraw      "66 0F E1"      Two,   Count 16;
    Psrad      "66 0F E2"      Two,   Count 16;
    Psllwi     "66 0F 71"      Shift(6), Lanes 0 imm;
    Pslldi     "66 0F 72"      Shift(6), Lanes 0 imm;
    Psllqi     "66 0F 73"      Shift(6), Lanes 0 imm;
    Psrlwi     "66 0F 71"      Shift(2), Lanes 0 imm;
    Psrldi     "66 0F 72"      Shift(2), Lanes 0 imm;
    Psrlqi     "66 0F 73"      Shift(2), Lanes 0 imm;
    Psrawi     "66 0F 71"      Shift(4), Lanes 0 imm;
    Psradi     "66 0F 72"      Shift(4), Lanes 0 imm;
    Pslldq     "66 0F 73"      Shift(7), Lanes 0 imm;
    Psrldq     "66 0F 73"      Shift(3), Lanes 0 imm;
    Palignr    "66 0F3A 0F"    Two,   Lanes 16 imm;
    Vpsllvd    "66 0F38 47"    Two,   Lanes 16 vex;
    Vpsllvq    "66 0F38 47 W1" Two,   Lanes 16 vex;
    Vpsrlvd    "66 0F38 45"    Two,   Lanes 16 vex;
    Vpsrlvq    "66 0F38 45 W1" Two,   Lanes 16 vex;
    Vpsravd    "66 0F38 46"    Two,   Lanes 16 vex;
    // ---- conversions between lane types ---------------------------------------------------------
    Packsswb   "66 0F 63"      Two,   Lanes 16;
    Packssdw   "66 0F 6B"      Two,   Lanes 16;
    Packuswb   "66 0F 67"      Two,   Lanes 16;
    Packusdw   "66 0F38 2B"    Two,   Lanes 16;
    Pmovsxbw   "66 0F38 20"    One,   Spread 8;
    Pmovsxbd   "66 0F38 21"    One,   Spread 4;
    Pmovsxbq   "66 0F38 22"    One,   Spread 2;
    Pmovsxwd   "66 0F38 23"    One,   Spread 8;
    Pmovsxwq   "66 0F38 24"    One,   Spread 4;
    Pmovsxdq   "66 0F38 25"    One,   Spread 8;
    Pmovzxbw   "66 0F38 30"    One,   Spread 8;
    Pmovzxbd   "66 0F38 31"    One,   Spread 4;
    Pmovzxbq   "66 0F38 32"    One,   Spread 2;
    Pmovzxwd   "66 0F38 33"    One,   Spread 8;
    Pmovzxwq   "66 0F38 34"    One,   Spread 4;
    Pmovzxdq   "66 0F38 35"    One,   Spread 8;
    // ---- shuffles -------------------------------------------------------------------------------
    Punpcklbw  "66 0F 60"      Two,   Lanes 16;
    Punpcklwd  "66 0F 61"      Two,   Lanes 16;
    Punpckldq  "66 0F 62"      Two,   Lanes 16;
    Punpcklqdq "66 0F 6C"      Two,   Lanes 16;
    Punpckhbw  "66 0F 68"      Two,   Lanes 16;
    Punpckhwd  "66 0F 69"      Two,   Lanes 16;
    Punpckhdq  "66 0F 6A"      Two,   Lanes 16;
    Punpckhqdq "66 0F 6D"      Two,   Lanes 16;
    Pshufb     "66 0F38 00"    Two,   Lanes 16;
    Pshufd     "66 0F 70"      One,   Lanes 16 imm;
    Pshuflw    "F2 0F 70"      One,   Lanes 16 imm;
    Pshufhw    "F3 0F 70"      One,   Lanes 16 imm;
    Shufps     "0F C6"         Two,   Lanes 16 imm;
    Shufpd     "66 0F C6"      Two,   Lanes 16 imm;
    Insertps   "66 0F3A 21"    Two,   Low 4 imm;
    Pblendw    "66 0F3A 0E"    Two,   Lanes 16 imm;
    Blendps    "66 0F3A 0C"    Two,   Lanes 16 imm;
    Blendpd    "66 0F3A 0D"    Two,   Lanes 16 imm;
    Pblendvb   "66 0F3A 4C"    Blend(0x10), Lanes 16;
    Blendvps   "66 0F3A 4A"    Blend(0x14), Lanes 16;
    Blendvpd   "66 0F3A 4B"    Blend(0x15), Lanes 16;
    Vpermilps  "66 0F38 0C"    Two,   Lanes 16 vex;
    Vpermilpd  "66 0F38 0D"    Two,   Lanes 16 vex;
    // ---- AES, carry-less products, SHA ----------------------------------------------------------
    Aesenc     "66 0F38 DC"    Two,   Lanes 16 AES;
    Aesenclast "66 0F38 DD"    Two,   Lanes 16 AES;
    Aesdec     "66 0F38 DE"    Two,   Lanes 16 AES;
    Aesdeclast "66 0F38 DF"    Two,   Lanes 16 AES;
    Aesimc     "66 0F38 DB"    One,   Low 16 AES;
    Aeskeygenassist "66 0F3A DF" One, Low 16 imm AES;
    Pclmulqdq  "66 0F3A 44"    Two,   Lanes 16 imm PCLMULQDQ;
    Sha1rnds4  "0F3A CC"       Two,   Low 16 imm sse SHA;
    Sha1nexte  "0F38 C8"       Two,   Low 16 sse SHA;
    Sha1msg1   "0F38 C9"       Two,   Low 16 sse SHA;
    Sha1msg2   "0F38 CA"       Two,   Low 16 sse SHA;
    Sha256rnds2 "0F38 CB"      Blend(0), Low 16 sse SHA;
    Sha256msg1 "0F38 CC"       Two,   Low 16 sse SHA;
    Sha256msg2 "0F38 CD"       Two,   Low 16 sse SHA;
    // ---- floating point -------------------------------------------------------------------------
    Addps      "0F 58"         Two,   Lanes 16;
    Addpd      "66 0F 58"      Two,   Lanes 16;
    Addss      "F3 0F 58"      Two,   Low 4;
    Addsd      "F2 0F 58"      Two,   Low 8;
    Subps      "0F 5C"         Two,   Lanes 16;
    Subpd      "66 0F 5C"      Two,   Lanes 16;
    Subss      "F3 0F 5C"      Two,   Low 4;
    Subsd      "F2 0F 5C"      Two,   Low 8;
    Mulps      "0F 59"         Two,   Lanes 16;
    Mulpd      "66 0F 59"      Two,   Lanes 16;
    Mulss      "F3 0F 59"      Two,   Low 4;
    Mulsd      "F2 0F 59"      Two,   Low 8;
    Divps      "0F 5E"         Two,   Lanes 16;
    Divpd      "66 0F 5E"      Two,   Lanes 16;
    Divss      "F3 0F 5E"      Two,   Low 4;
    Divsd      "F2 0F 5E"      Two,   Low 8;
    Minps      "0F 5D"         Two,   Lanes 16;
    Minpd      "66 0F 5D"      Two,   Lanes 16;
    Minss      "F3 0F 5D"      Two,   Low 4;
    Minsd      "F2 0F 5D"      Two,   Low 8;
    Maxps      "0F 5F"         Two,   Lanes 16;
    Maxpd      "66 0F 5F"      Two,   Lanes 16;
    Maxss      "F3 0F 5F"      Two,   Low 4;
    Maxsd      "F2 0F 5F"      Two,   Low 8;
    Sqrtps     "0F 51"         One,   Lanes 16;
    Sqrtpd     "66 0F 51"      One,   Lanes 16;
    Sqrtss     "F3 0F 51"      Two,   Low 4;
    Sqrtsd     "F2 0F 51"      Two,   Low 8;
    Addsubps   "F2 0F D0"      Two,   Lanes 16;
    Addsubpd   "66 0F D0"      Two,   Lanes 16;
    Haddps     "F2 0F 7C"      Two,   Lanes 16;
    Haddpd     "66 0F 7C"      Two,   Lanes 16;
    Hsubps     "F2 0F 7D"      Two,   Lanes 16;
    Hsubpd     "66 0F 7D"      Two,   Lanes 16;
    Fmaps      "66 0F38 98"    Fused, Lanes 16 vex FMA;
    Fmapd      "66 0F38 98 W1" Fused, Lanes 16 vex FMA;
    Fmass      "66 0F38 99"    Fused, Low 4 vex FMA;
    Fmasd      "66 0F38 99 W1" Fused, Low 8 vex FMA;
    Cmpps      "0F C2"         Two,   Lanes 16 imm;
    Cmppd      "66 0F C2"      Two,   Lanes 16 imm;
    Cmpss      "F3 0F C2"      Two,   Low 4 imm;
    Cmpsd      "F2 0F C2"      Two,   Low 8 imm;
    Roundps    "66 0F3A 08"    One,   Lanes 16 imm;
    Roundpd    "66 0F3A 09"    One,   Lanes 16 imm;
    Roundss    "66 0F3A 0A"    Two,   Low 4 imm;
    Roundsd    "66 0F3A 0B"    Two,   Low 8 imm;
    // ---- conversions of numbers -----------------------------------------------------------------
    Vcvtph2ps  "66 0F38 13"    One,   Spread 8 vex F16C;
    Vcvtps2ph  "66 0F3A 1D"    Store, Narrow 0 imm vex F16C;
    Cvtdq2pd   "F3 0F E6"      One,   Spread 8;
    Cvtps2pd   "0F 5A"         One,   Spread 8;
    Cvtpd2ps   "66 0F 5A"      One,   Narrow 16;
    Cvtss2sd   "F3 0F 5A"      Two,   Low 4;
    Cvtsd2ss   "F2 0F 5A"      Two,   Low 8;
    Cvtdq2ps   "0F 5B"         One,   Lanes 16;
    Cvtps2dq   "66 0F 5B"      One,   Lanes 16;
    Cvttps2dq  "F3 0F 5B"      One,   Lanes 16;
    Cvtpd2dq   "F2 0F E6"      One,   Narrow 16;
    Cvttpd2dq  "66 0F E6"      One,   Narrow 16;
    Cvtsi2ss32 "F3 0F 2A"      FromGpr, Low 0;
    Cvtsi2ss64 "F3 0F 2A W1"   FromGpr, Low 0;
    Cvtsi2sd32 "F2 0F 2A"      FromGpr, Low 0;
    Cvtsi2sd64 "F2 0F 2A W1"   FromGpr, Low 0;
    // ---- integer results and flags: always VEX --------------------------------------------------
    Pmovmskb    "66 0F D7"     Gpr,   Low 0;
    Movmskps    "0F 50"        Gpr,   Low 0;
    Movmskpd    "66 0F 50"     Gpr,   Low 0;
    Pmovmskb256 "66 0F D7"     Gpr,   Whole 0;
    Movmskps256 "0F 50"        Gpr,   Whole 0;
    Movmskpd256 "66 0F 50"     Gpr,   Whole 0;
    Cvtss2si32  "F3 0F 2D"     Gpr,   Low 4;
    Cvtss2si64  "F3 0F 2D W1"  Gpr,   Low 4;
    Cvtsd2si32  "F2 0F 2D"     Gpr,   Low 8;
    Cvtsd2si64  "F2 0F 2D W1"  Gpr,   Low 8;
    Cvttss2si32 "F3 0F 2C"     Gpr,   Low 4;
    Cvttss2si64 "F3 0F 2C W1"  Gpr,   Low 4;
    Cvttsd2si32 "F2 0F 2C"     Gpr,   Low 8;
    Cvttsd2si64 "F2 0F 2C W1"  Gpr,   Low 8;
    Comiss      "0F 2F"        Flags, Low 4;
    Comisd      "66 0F 2F"     Flags, Low 8;
    Ucomiss     "0F 2E"        Flags, Low 4;
    Ucomisd     "66 0F 2E"     Flags, Low 8;
    Ptest       "66 0F38 17"   Flags, Low 16;
    Vtestps     "66 0F38 0E"   Flags, Low 16;
    Vtestpd     "66 0F38 0F"   Flags, Low 16;
    Ptest256    "66 0F38 17"   Flags, Whole 16;
    Vtestps256  "66 0F38 0E"   Flags, Whole 16;
    Vtestpd256  "66 0F38 0F"   Flags, Whole 16;
    Pcmpistri   "66 0F3A 63"   Index, Low 16 imm;
    Pcmpestri   "66 0F3A 61 W1" Index, Low 16 imm;
    // ---- whole registers ------------------------------------------------------------------------
    Vpermq      "66 0F3A 00 W1" One,  Whole 16 imm vex;
    Vpermd      "66 0F38 36"   Two,   Whole 16 vex;
    Vperm2i128  "66 0F3A 46"   Two,   Whole 16 imm vex;
    Vinserti128 "66 0F3A 38"   Two,   Whole 8 imm vex;
    Vextracti128 "66 0F3A 39"  Store, Low 0 imm vex;
    Vpbroadcast "66 0F38 00"   Broadcast, Lanes 0 vex;
}

impl Row {
    /// What the host must have for 256 bits.
    pub fn needs_wide(&self) -> u8 {
        match self.needs {
            feature::AES => feature::VAES,
            feature::PCLMULQDQ => feature::VPCLMULQDQ,
            needs => needs,
        }
    }
}

/// The row of an operation, if this host (with the `features` it has) can do it.
pub fn row(op: VecOp, features: u8) -> Option<&'static Row> {
    ROWS[op as usize].as_ref().filter(|row| row.needs & !features == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opcodes_are_read_as_the_manual_writes_them() {
        let c = |map, pp, opcode, w| Code { map, pp, opcode, w };
        assert_eq!(code("0F 58"), c(1, 0, 0x58, false));
        assert_eq!(code("66 0F F3"), c(1, 1, 0xf3, false));
        assert_eq!(code("F2 0F 66"), c(1, 3, 0x66, false));
        assert_eq!(code("F3 0F 2A W1"), c(1, 2, 0x2a, true));
        assert_eq!(code("66 0F38 0F"), c(2, 1, 0x0f, false));
        assert_eq!(code("66 0F3A 0F W1"), c(3, 1, 0x0f, true));
    }
}
