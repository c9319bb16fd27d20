//! The table of vector operations: `Variant "name" meaning`, one row each, named after the manual.
//!
//! Operand `a` is the first source (of a two-operand SSE form: the destination's old value), `b`
//! the second, `c` the third. There is a row for an MMX form (suffix 64) only where its result is
//! not the low word of the row for XMM. What works lane by lane has no row of its own for YMM.

/// Expands `$m!` with the table. `quiet` rows map `(sources, imm8)` to a register and `quiet_int`
/// rows to an integer and flags; they raise nothing. `float` rows are a
/// [`VecEval`](super::VecEval), `float_int` rows a [`VecIntEval`](super::VecIntEval). `wide` and
/// `wide_int` rows are like the quiet ones, of whole 256-bit registers.
#[macro_export]
macro_rules! for_each_vec_op {
    ($m:ident) => { $m! {
    quiet {
    // ---- moves: lanes of b, over those of a or zeros ------------------------------------------
    Mov        "mov"        |s, _| s.b;
    Movss      "movss"      |s, _| [s.a[0] & !0xffff_ffff | s.b[0] & 0xffff_ffff, s.a[1]];
    Movsd      "movsd"      |s, _| [s.b[0], s.a[1]];
    Movd       "movd"       |s, _| [s.b[0] & 0xffff_ffff, 0];
    Movq       "movq"       |s, _| [s.b[0], 0];
    Movhlps    "movhlps"    |s, _| [s.b[1], s.a[1]];
    Movddup    "movddup"    |s, _| [s.b[0], s.b[0]];
    Movsldup   "movsldup"   |s, _| doublewords(s.b, 0b10_10_00_00);
    Movshdup   "movshdup"   |s, _| doublewords(s.b, 0b11_11_01_01);
    // ---- logic ----------------------------------------------------------------------------------
    Pand       "pand"       |s, _| map2(s, |x: u64, y| x & y);
    Pandn      "pandn"      |s, _| map2(s, |x: u64, y| !x & y);
    Por        "por"        |s, _| map2(s, |x: u64, y| x | y);
    Pxor       "pxor"       |s, _| map2(s, |x: u64, y| x ^ y);
    // ---- sums and differences -------------------------------------------------------------------
    Paddb      "paddb"      |s, _| map2(s, u8::wrapping_add);
    Paddw      "paddw"      |s, _| map2(s, u16::wrapping_add);
    Paddd      "paddd"      |s, _| map2(s, u32::wrapping_add);
    Paddq      "paddq"      |s, _| map2(s, u64::wrapping_add);
    Paddsb     "paddsb"     |s, _| map2(s, i8::saturating_add);
    Paddsw     "paddsw"     |s, _| map2(s, i16::saturating_add);
    Paddusb    "paddusb"    |s, _| map2(s, u8::saturating_add);
    Paddusw    "paddusw"    |s, _| map2(s, u16::saturating_add);
    Psubb      "psubb"      |s, _| map2(s, u8::wrapping_sub);
    Psubw      "psubw"      |s, _| map2(s, u16::wrapping_sub);
    Psubd      "psubd"      |s, _| map2(s, u32::wrapping_sub);
    Psubq      "psubq"      |s, _| map2(s, u64::wrapping_sub);
    Psubsb     "psubsb"     |s, _| map2(s, i8::saturating_sub);
    Psubsw     "psubsw"     |s, _| map2(s, i16::saturating_sub);
    Psubusb    "psubusb"    |s, _| map2(s, u8::saturating_sub);
    Psubusw    "psubusw"    |s, _| map2(s, u16::saturating_sub);
    Pavgb      "pavgb"      |s, _| map2(s, |x: u8, y| (u16::from(x) + u16::from(y) + 1 >> 1) as u8);
    Pavgw      "pavgw"      |s, _| map2(s, |x: u16, y| (u32::from(x) + u32::from(y) + 1 >> 1) as u16);
    Phaddw     "phaddw"     |s, _| horizontal(s, u16::wrapping_add);
    Phaddd     "phaddd"     |s, _| horizontal(s, u32::wrapping_add);
    Phaddsw    "phaddsw"    |s, _| horizontal(s, i16::saturating_add);
    Phsubw     "phsubw"     |s, _| horizontal(s, u16::wrapping_sub);
    Phsubd     "phsubd"     |s, _| horizontal(s, u32::wrapping_sub);
    Phsubsw    "phsubsw"    |s, _| horizontal(s, i16::saturating_sub);
    Phaddw64   "phaddw64"   |s, _| horizontal(&low_words(s), u16::wrapping_add);
    Phaddd64   "phaddd64"   |s, _| horizontal(&low_words(s), u32::wrapping_add);
    Phaddsw64  "phaddsw64"  |s, _| horizontal(&low_words(s), i16::saturating_add);
    Phsubw64   "phsubw64"   |s, _| horizontal(&low_words(s), u16::wrapping_sub);
    Phsubd64   "phsubd64"   |s, _| horizontal(&low_words(s), u32::wrapping_sub);
    Phsubsw64  "phsubsw64"  |s, _| horizontal(&low_words(s), i16::saturating_sub);
    Psadbw     "psadbw"     |s, _| sum_of_differences(s);
    Mpsadbw    "mpsadbw"    |s, i| distances(s, i);
    // ---- products ---------------------------------------------------------------------------------
    Pmullw     "pmullw"     |s, _| map2(s, u16::wrapping_mul);
    Pmulld     "pmulld"     |s, _| map2(s, u32::wrapping_mul);
    Pmulhw     "pmulhw"     |s, _| map2(s, |x: i16, y: i16| (i32::from(x) * i32::from(y) >> 16) as i16);
    Pmulhuw    "pmulhuw"    |s, _| map2(s, |x: u16, y: u16| (u32::from(x) * u32::from(y) >> 16) as u16);
    Pmulhrsw   "pmulhrsw"   |s, _| map2(s, mul_high_round);
    Pmuludq    "pmuludq"    |s, _| map2(s, |x: u64, y: u64| (x & 0xffff_ffff) * (y & 0xffff_ffff));
    Pmuldq     "pmuldq"     |s, _| map2(s, |x: i64, y: i64| i64::from(x as i32) * i64::from(y as i32));
    Pmaddwd    "pmaddwd"    |s, _| sum_of_products(s, madd_words);
    Pmaddubsw  "pmaddubsw"  |s, _| sum_of_products(s, madd_bytes);
    // ---- minima, maxima, signs ------------------------------------------------------------------
    Pminsb     "pminsb"     |s, _| map2(s, i8::min);
    Pminsw     "pminsw"     |s, _| map2(s, i16::min);
    Pminsd     "pminsd"     |s, _| map2(s, i32::min);
    Pminub     "pminub"     |s, _| map2(s, u8::min);
    Pminuw     "pminuw"     |s, _| map2(s, u16::min);
    Pminud     "pminud"     |s, _| map2(s, u32::min);
    Pmaxsb     "pmaxsb"     |s, _| map2(s, i8::max);
    Pmaxsw     "pmaxsw"     |s, _| map2(s, i16::max);
    Pmaxsd     "pmaxsd"     |s, _| map2(s, i32::max);
    Pmaxub     "pmaxub"     |s, _| map2(s, u8::max);
    Pmaxuw     "pmaxuw"     |s, _| map2(s, u16::max);
    Pmaxud     "pmaxud"     |s, _| map2(s, u32::max);
    Phminposuw "phminposuw" |s, _| least_word(s);
    Pabsb      "pabsb"      |s, _| map1(s.b, i8::wrapping_abs);
    Pabsw      "pabsw"      |s, _| map1(s.b, i16::wrapping_abs);
    Pabsd      "pabsd"      |s, _| map1(s.b, i32::wrapping_abs);
    Psignb     "psignb"     |s, _| map2(s, |x: i8, y: i8| x.wrapping_mul(y.signum()));
    Psignw     "psignw"     |s, _| map2(s, |x: i16, y: i16| x.wrapping_mul(y.signum()));
    Psignd     "psignd"     |s, _| map2(s, |x: i32, y: i32| x.wrapping_mul(y.signum()));
    // ---- comparisons ------------------------------------------------------------------------------
    Pcmpeqb    "pcmpeqb"    |s, _| compare(s, |x: u8, y| x == y);
    Pcmpeqw    "pcmpeqw"    |s, _| compare(s, |x: u16, y| x == y);
    Pcmpeqd    "pcmpeqd"    |s, _| compare(s, |x: u32, y| x == y);
    Pcmpeqq    "pcmpeqq"    |s, _| compare(s, |x: u64, y| x == y);
    Pcmpgtb    "pcmpgtb"    |s, _| compare(s, |x: i8, y| x > y);
    Pcmpgtw    "pcmpgtw"    |s, _| compare(s, |x: i16, y| x > y);
    Pcmpgtd    "pcmpgtd"    |s, _| compare(s, |x: i32, y| x > y);
    Pcmpgtq    "pcmpgtq"    |s, _| compare(s, |x: i64, y| x > y);
    // ---- shifts of a, by the low word of b or (suffix i) by the immediate -------------------------
    Psllw      "psllw"      |s, _| shift(s.a, s.b[0], |x: u16, n| x << n);
    Pslld      "pslld"      |s, _| shift(s.a, s.b[0], |x: u32, n| x << n);
    Psllq      "psllq"      |s, _| shift(s.a, s.b[0], |x: u64, n| x << n);
    Psrlw      "psrlw"      |s, _| shift(s.a, s.b[0], |x: u16, n| x >> n);
    Psrld      "psrld"      |s, _| shift(s.a, s.b[0], |x: u32, n| x >> n);
    Psrlq      "psrlq"      |s, _| shift(s.a, s.b[0], |x: u64, n| x >> n);
    Psraw      "psraw"      |s, _| shift_arithmetic(s.a, s.b[0], |x: i16, n| x >> n);
    Psrad      "psrad"      |s, _| shift_arithmetic(s.a, s.b[0], |x: i32, n| x >> n);
    Psllwi     "psllwi"     |s, i| shift(s.a, i.into(), |x: u16, n| x << n);
    Pslldi     "pslldi"     |s, i| shift(s.a, i.into(), |x: u32, n| x << n);
    Psllqi     "psllqi"     |s, i| shift(s.a, i.into(), |x: u64, n| x << n);
    Psrlwi     "psrlwi"     |s, i| shift(s.a, i.into(), |x: u16, n| x >> n);
    Psrldi     "psrldi"     |s, i| shift(s.a, i.into(), |x: u32, n| x >> n);
    Psrlqi     "psrlqi"     |s, i| shift(s.a, i.into(), |x: u64, n| x >> n);
    Psrawi     "psrawi"     |s, i| shift_arithmetic(s.a, i.into(), |x: i16, n| x >> n);
    Psradi     "psradi"     |s, i| shift_arithmetic(s.a, i.into(), |x: i32, n| x >> n);
    Pslldq     "pslldq"     |s, i| shl_bytes(s.a, i);
    Psrldq     "psrldq"     |s, i| shr_bytes(s.a, i);
    Palignr    "palignr"    |s, i| align(s, i);
    Palignr64  "palignr64"  |s, i| align64(s, i);
    // ---- conversions between lane types -----------------------------------------------------------
    Packsswb   "packsswb"   |s, _| pack(s, i16_to_i8);
    Packssdw   "packssdw"   |s, _| pack(s, i32_to_i16);
    Packuswb   "packuswb"   |s, _| pack(s, i16_to_u8);
    Packusdw   "packusdw"   |s, _| pack(s, i32_to_u16);
    Packsswb64 "packsswb64" |s, _| pack(&low_words(s), i16_to_i8);
    Packssdw64 "packssdw64" |s, _| pack(&low_words(s), i32_to_i16);
    Packuswb64 "packuswb64" |s, _| pack(&low_words(s), i16_to_u8);
    Pmovsxbw   "pmovsxbw"   |s, _| extend::<i8, i16>(s);
    Pmovsxbd   "pmovsxbd"   |s, _| extend::<i8, i32>(s);
    Pmovsxbq   "pmovsxbq"   |s, _| extend::<i8, i64>(s);
    Pmovsxwd   "pmovsxwd"   |s, _| extend::<i16, i32>(s);
    Pmovsxwq   "pmovsxwq"   |s, _| extend::<i16, i64>(s);
    Pmovsxdq   "pmovsxdq"   |s, _| extend::<i32, i64>(s);
    Pmovzxbw   "pmovzxbw"   |s, _| extend::<u8, u16>(s);
    Pmovzxbd   "pmovzxbd"   |s, _| extend::<u8, u32>(s);
    Pmovzxbq   "pmovzxbq"   |s, _| extend::<u8, u64>(s);
    Pmovzxwd   "pmovzxwd"   |s, _| extend::<u16, u32>(s);
    Pmovzxwq   "pmovzxwq"   |s, _| extend::<u16, u64>(s);
    Pmovzxdq   "pmovzxdq"   |s, _| extend::<u32, u64>(s);
    // ---- shuffles ---------------------------------------------------------------------------------
    Punpcklbw  "punpcklbw"  |s, _| interleave::<u8>(s.a[0], s.b[0]);
    Punpcklwd  "punpcklwd"  |s, _| interleave::<u16>(s.a[0], s.b[0]);
    Punpckldq  "punpckldq"  |s, _| interleave::<u32>(s.a[0], s.b[0]);
    Punpcklqdq "punpcklqdq" |s, _| [s.a[0], s.b[0]];
    Punpckhbw  "punpckhbw"  |s, _| interleave::<u8>(s.a[1], s.b[1]);
    Punpckhwd  "punpckhwd"  |s, _| interleave::<u16>(s.a[1], s.b[1]);
    Punpckhdq  "punpckhdq"  |s, _| interleave::<u32>(s.a[1], s.b[1]);
    Punpckhqdq "punpckhqdq" |s, _| [s.a[1], s.b[1]];
    Punpckhbw64 "punpckhbw64" |s, _| interleave::<u8>(s.a[0] >> 32, s.b[0] >> 32);
    Punpckhwd64 "punpckhwd64" |s, _| interleave::<u16>(s.a[0] >> 32, s.b[0] >> 32);
    Punpckhdq64 "punpckhdq64" |s, _| interleave::<u32>(s.a[0] >> 32, s.b[0] >> 32);
    Pshufb     "pshufb"     |s, _| bytes(s);
    Pshufb64   "pshufb64"   |s, _| bytes64(s);
    Pshufd     "pshufd"     |s, i| doublewords(s.b, i);
    Pshuflw    "pshuflw"    |s, i| [words(s.b[0], i), s.b[1]];
    Pshufhw    "pshufhw"    |s, i| [s.b[0], words(s.b[1], i)];
    Shufps     "shufps"     |s, i| shufps(s, i);
    Shufpd     "shufpd"     |s, i| shufpd(s, i);
    Insertps   "insertps"   |s, i| insertps(s, i);
    Pblendw    "pblendw"    |s, i| blend::<u16>(s, i);
    Blendps    "blendps"    |s, i| blend::<u32>(s, i);
    Blendpd    "blendpd"    |s, i| blend::<u64>(s, i);
    Pblendvb   "pblendvb"   |s, _| blend_variable::<i8>(s);
    Blendvps   "blendvps"   |s, _| blend_variable::<i32>(s);
    Blendvpd   "blendvpd"   |s, _| blend_variable::<i64>(s);
    Vpermilps  "vpermilps"  |s, _| permute_singles(s);
    Vpermilpd  "vpermilpd"  |s, _| permute_doubles(s);
    // ---- shifts of each lane of a by that of b (AVX2) ----------------------------------------------
    Vpsllvd    "vpsllvd"    |s, _| map2(s, |x: u32, n| x.checked_shl(n).unwrap_or(0));
    Vpsllvq    "vpsllvq"    |s, _| map2(s, |x: u64, n| if n < 64 { x << n } else { 0 });
    Vpsrlvd    "vpsrlvd"    |s, _| map2(s, |x: u32, n| x.checked_shr(n).unwrap_or(0));
    Vpsrlvq    "vpsrlvq"    |s, _| map2(s, |x: u64, n| if n < 64 { x >> n } else { 0 });
    Vpsravd    "vpsravd"    |s, _| map2(s, |x: i32, n| x >> (n as u32).min(31));
    // ---- AES, carry-less products, SHA: a the state, b the key or message --------------------------
    Aesenc     "aesenc"     |s, _| crypto::aes(s, &crypto::ENCRYPT, true);
    Aesenclast "aesenclast" |s, _| crypto::aes(s, &crypto::ENCRYPT, false);
    Aesdec     "aesdec"     |s, _| crypto::aes(s, &crypto::DECRYPT, true);
    Aesdeclast "aesdeclast" |s, _| crypto::aes(s, &crypto::DECRYPT, false);
    Aesimc     "aesimc"     |s, _| crypto::inverse_mix_columns(s.b);
    Aeskeygenassist "aeskeygenassist" |s, i| crypto::aes_key(s.b, i);
    Pclmulqdq  "pclmulqdq"  |s, i| crypto::carryless(s.a[usize::from(i & 1)], s.b[usize::from(i >> 4 & 1)]);
    Sha1rnds4  "sha1rnds4"  |s, i| crypto::sha1_rounds(s, i);
    Sha1nexte  "sha1nexte"  |s, _| crypto::sha1_next_e(s);
    Sha1msg1   "sha1msg1"   |s, _| crypto::sha1_message_1(s);
    Sha1msg2   "sha1msg2"   |s, _| crypto::sha1_message_2(s);
    Sha256rnds2 "sha256rnds2" |s, _| crypto::sha256_rounds(s);
    Sha256msg1 "sha256msg1" |s, _| crypto::sha256_message_1(s);
    Sha256msg2 "sha256msg2" |s, _| crypto::sha256_message_2(s);
    // ---- exact conversions, approximations ---------------------------------------------------------------------------
    Cvtdq2pd   "cvtdq2pd"   |s, _| float1(s.b, ZERO, 2, 0, float::exact).0;
    Cvtsi2sd32 "cvtsi2sd32" |s, _| float1(s.b, s.a, 1, 0, float::exact).0;
    Rcpps      "rcpps"      |s, _| float::rcp(s.b, ZERO, 4);
    Rcpss      "rcpss"      |s, _| float::rcp(s.b, s.a, 1);
    Rsqrtps    "rsqrtps"    |s, _| float::rsqrt(s.b, ZERO, 4);
    Rsqrtss    "rsqrtss"    |s, _| float::rsqrt(s.b, s.a, 1);
    // ---- strings: the mask for XMM0 -----------------------------------------------------------------
    Pcmpestrm  "pcmpestrm"  |s, i| string::mask(s, i, Length::Explicit);
    Pcmpistrm  "pcmpistrm"  |s, i| string::mask(s, i, Length::Implicit);
    }
    float {
    // ---- arithmetic -----------------------------------------------------------------------------
    Addps      "addps"      |s, _, m| float2(s, 4, m, sse::add::<u32>);
    Addpd      "addpd"      |s, _, m| float2(s, 2, m, sse::add::<u64>);
    Addss      "addss"      |s, _, m| float2(s, 1, m, sse::add::<u32>);
    Addsd      "addsd"      |s, _, m| float2(s, 1, m, sse::add::<u64>);
    Subps      "subps"      |s, _, m| float2(s, 4, m, sse::sub::<u32>);
    Subpd      "subpd"      |s, _, m| float2(s, 2, m, sse::sub::<u64>);
    Subss      "subss"      |s, _, m| float2(s, 1, m, sse::sub::<u32>);
    Subsd      "subsd"      |s, _, m| float2(s, 1, m, sse::sub::<u64>);
    Mulps      "mulps"      |s, _, m| float2(s, 4, m, sse::mul::<u32>);
    Mulpd      "mulpd"      |s, _, m| float2(s, 2, m, sse::mul::<u64>);
    Mulss      "mulss"      |s, _, m| float2(s, 1, m, sse::mul::<u32>);
    Mulsd      "mulsd"      |s, _, m| float2(s, 1, m, sse::mul::<u64>);
    Divps      "divps"      |s, _, m| float2(s, 4, m, sse::div::<u32>);
    Divpd      "divpd"      |s, _, m| float2(s, 2, m, sse::div::<u64>);
    Divss      "divss"      |s, _, m| float2(s, 1, m, sse::div::<u32>);
    Divsd      "divsd"      |s, _, m| float2(s, 1, m, sse::div::<u64>);
    Minps      "minps"      |s, _, m| float2(s, 4, m, sse::min::<u32>);
    Minpd      "minpd"      |s, _, m| float2(s, 2, m, sse::min::<u64>);
    Minss      "minss"      |s, _, m| float2(s, 1, m, sse::min::<u32>);
    Minsd      "minsd"      |s, _, m| float2(s, 1, m, sse::min::<u64>);
    Maxps      "maxps"      |s, _, m| float2(s, 4, m, sse::max::<u32>);
    Maxpd      "maxpd"      |s, _, m| float2(s, 2, m, sse::max::<u64>);
    Maxss      "maxss"      |s, _, m| float2(s, 1, m, sse::max::<u32>);
    Maxsd      "maxsd"      |s, _, m| float2(s, 1, m, sse::max::<u64>);
    Sqrtps     "sqrtps"     |s, _, m| float1(s.b, ZERO, 4, m, sse::sqrt::<u32>);
    Sqrtpd     "sqrtpd"     |s, _, m| float1(s.b, ZERO, 2, m, sse::sqrt::<u64>);
    Sqrtss     "sqrtss"     |s, _, m| float1(s.b, s.a, 1, m, sse::sqrt::<u32>);
    Sqrtsd     "sqrtsd"     |s, _, m| float1(s.b, s.a, 1, m, sse::sqrt::<u64>);
    Addsubps   "addsubps"   |s, _, m| float::addsub::<u32>(s, m);
    Addsubpd   "addsubpd"   |s, _, m| float::addsub::<u64>(s, m);
    Haddps     "haddps"     |s, _, m| float::horizontal(s, m, sse::add::<u32>);
    Haddpd     "haddpd"     |s, _, m| float::horizontal(s, m, sse::add::<u64>);
    Hsubps     "hsubps"     |s, _, m| float::horizontal(s, m, sse::sub::<u32>);
    Hsubpd     "hsubpd"     |s, _, m| float::horizontal(s, m, sse::sub::<u64>);
    Dpmulps    "dpmulps"    |s, i, m| float::products::<u32>(s, i, m);
    Dpmulpd    "dpmulpd"    |s, i, m| float::products::<u64>(s, i, m);
    // ---- FMA: the immediate says what is negated, and which source has the lanes that stay ---------
    Fmaps      "fmaps"      |s, i, m| float::fused::<u32>(s, 4, i, m);
    Fmapd      "fmapd"      |s, i, m| float::fused::<u64>(s, 2, i, m);
    Fmass      "fmass"      |s, i, m| float::fused::<u32>(s, 1, i, m);
    Fmasd      "fmasd"      |s, i, m| float::fused::<u64>(s, 1, i, m);
    // ---- F16C -----------------------------------------------------------------------------------
    Vcvtph2ps  "vcvtph2ps"  |s, _, m| float1(s.b, ZERO, 4, m, sse::f16_to_f32);
    Vcvtps2ph  "vcvtps2ph"  |s, i, m| float1(s.b, ZERO, 4, m, |x: u32, e| float::to_half(x, i, e));
    // ---- comparison, rounding: the immediate chooses ----------------------------------------------
    Cmpps      "cmpps"      |s, i, m| float2(s, 4, m, |x: u32, y, e| float::compare(x, y, i, e));
    Cmppd      "cmppd"      |s, i, m| float2(s, 2, m, |x: u64, y, e| float::compare(x, y, i, e));
    Cmpss      "cmpss"      |s, i, m| float2(s, 1, m, |x: u32, y, e| float::compare(x, y, i, e));
    Cmpsd      "cmpsd"      |s, i, m| float2(s, 1, m, |x: u64, y, e| float::compare(x, y, i, e));
    Roundps    "roundps"    |s, i, m| float1(s.b, ZERO, 4, m, |x: u32, e| float::round(x, i, e));
    Roundpd    "roundpd"    |s, i, m| float1(s.b, ZERO, 2, m, |x: u64, e| float::round(x, i, e));
    Roundss    "roundss"    |s, i, m| float1(s.b, s.a, 1, m, |x: u32, e| float::round(x, i, e));
    Roundsd    "roundsd"    |s, i, m| float1(s.b, s.a, 1, m, |x: u64, e| float::round(x, i, e));
    // ---- conversions; an integer register is handed in as the low word of b -----------------------
    Cvtps2pd   "cvtps2pd"   |s, _, m| float1(s.b, ZERO, 2, m, sse::f32_to_f64);
    Cvtpd2ps   "cvtpd2ps"   |s, _, m| float1(s.b, ZERO, 2, m, sse::f64_to_f32);
    Cvtss2sd   "cvtss2sd"   |s, _, m| float1(s.b, s.a, 1, m, sse::f32_to_f64);
    Cvtsd2ss   "cvtsd2ss"   |s, _, m| float1(s.b, s.a, 1, m, sse::f64_to_f32);
    Cvtdq2ps   "cvtdq2ps"   |s, _, m| float1(s.b, ZERO, 4, m, sse::from_i32::<u32>);
    Cvtps2dq   "cvtps2dq"   |s, _, m| float1(s.b, ZERO, 4, m, sse::to_i32::<u32>);
    Cvttps2dq  "cvttps2dq"  |s, _, m| float1(s.b, ZERO, 4, m, sse::to_i32_trunc::<u32>);
    Cvtpd2dq   "cvtpd2dq"   |s, _, m| float1(s.b, ZERO, 2, m, sse::to_i32::<u64>);
    Cvttpd2dq  "cvttpd2dq"  |s, _, m| float1(s.b, ZERO, 2, m, sse::to_i32_trunc::<u64>);
    Cvtpi2ps   "cvtpi2ps"   |s, _, m| float1(s.b, s.a, 2, m, sse::from_i32::<u32>);
    Cvtps2pi   "cvtps2pi"   |s, _, m| float1(s.b, ZERO, 2, m, sse::to_i32::<u32>);
    Cvttps2pi  "cvttps2pi"  |s, _, m| float1(s.b, ZERO, 2, m, sse::to_i32_trunc::<u32>);
    Cvtsi2ss32 "cvtsi2ss32" |s, _, m| float1(s.b, s.a, 1, m, sse::from_i32::<u32>);
    Cvtsi2ss64 "cvtsi2ss64" |s, _, m| float1(s.b, s.a, 1, m, sse::from_i64::<u32>);
    Cvtsi2sd64 "cvtsi2sd64" |s, _, m| float1(s.b, s.a, 1, m, sse::from_i64::<u64>);
    }
    quiet_int {
    Pmovmskb   "pmovmskb"   |s, _| (sign_bits::<i8>(s.b), 0);
    Movmskps   "movmskps"   |s, _| (sign_bits::<i32>(s.b), 0);
    Movmskpd   "movmskpd"   |s, _| (sign_bits::<i64>(s.b), 0);
    Ptest      "ptest"      |s, _| (0, test(s, u64::MAX));
    Vtestps    "vtestps"    |s, _| (0, test(s, 0x8000_0000_8000_0000));
    Vtestpd    "vtestpd"    |s, _| (0, test(s, 1 << 63));
    Pcmpestri  "pcmpestri"  |s, i| string::index(s, i, Length::Explicit);
    Pcmpistri  "pcmpistri"  |s, i| string::index(s, i, Length::Implicit);
    }
    float_int {
    Cvtss2si32  "cvtss2si32"  |s, _, m| float::to_int(s, m, sse::to_i32::<u32>);
    Cvtss2si64  "cvtss2si64"  |s, _, m| float::to_int(s, m, sse::to_i64::<u32>);
    Cvtsd2si32  "cvtsd2si32"  |s, _, m| float::to_int(s, m, sse::to_i32::<u64>);
    Cvtsd2si64  "cvtsd2si64"  |s, _, m| float::to_int(s, m, sse::to_i64::<u64>);
    Cvttss2si32 "cvttss2si32" |s, _, m| float::to_int(s, m, sse::to_i32_trunc::<u32>);
    Cvttss2si64 "cvttss2si64" |s, _, m| float::to_int(s, m, sse::to_i64_trunc::<u32>);
    Cvttsd2si32 "cvttsd2si32" |s, _, m| float::to_int(s, m, sse::to_i32_trunc::<u64>);
    Cvttsd2si64 "cvttsd2si64" |s, _, m| float::to_int(s, m, sse::to_i64_trunc::<u64>);
    Comiss     "comiss"     |s, _, m| float::order(s, m, sse::cmp_signaling::<u32>);
    Comisd     "comisd"     |s, _, m| float::order(s, m, sse::cmp_signaling::<u64>);
    Ucomiss    "ucomiss"    |s, _, m| float::order(s, m, sse::cmp_quiet::<u32>);
    Ucomisd    "ucomisd"    |s, _, m| float::order(s, m, sse::cmp_quiet::<u64>);
    }
    wide {
    // ---- AVX and AVX2: lanes that cross the border of 128 bits ---------------------------------------
    Vpermq      "vpermq"      |s, i| wide::quadwords(s.b, i);
    Vpermd      "vpermd"      |s, _| wide::doublewords(s);
    Vperm2i128  "vperm2i128"  |s, i| wide::halves(s, i);
    Vinserti128 "vinserti128" |s, i| wide::insert(s, i);
    Vextracti128 "vextracti128" |s, i| wide::extract(s.b, i);
    // The low `imm` bytes of b, everywhere.
    Vpbroadcast "vpbroadcast" |s, i| wide::broadcast(s.b, i);
    // Halves for what then works lane by lane: b, and b from byte `imm` on; the way back: the low
    // words of both halves.
    Vspread     "vspread"     |s, i| wide::spread(s.b, i);
    Vnarrow     "vnarrow"     |s, _| [s.b[0], s.b[2], 0, 0];
    }
    wide_int {
    Pmovmskb256 "pmovmskb256" |s, _| (wide::signs(s.b, 16, sign_bits::<i8>), 0);
    Movmskps256 "movmskps256" |s, _| (wide::signs(s.b, 4, sign_bits::<i32>), 0);
    Movmskpd256 "movmskpd256" |s, _| (wide::signs(s.b, 2, sign_bits::<i64>), 0);
    Ptest256    "ptest256"    |s, _| (0, s.both(|s| test(s, u64::MAX)));
    Vtestps256  "vtestps256"  |s, _| (0, s.both(|s| test(s, 0x8000_0000_8000_0000)));
    Vtestpd256  "vtestpd256"  |s, _| (0, s.both(|s| test(s, 1 << 63)));
    }
    } };
}
