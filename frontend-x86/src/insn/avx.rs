//! AVX, AVX2, F16C and the VEX forms of AES and PCLMULQDQ (SDM Vol. 1, chapter 14).
//!
//! Each VEX form has a destination of its own and zeroes what is above its result. Where the lanes
//! of 128 bits are independent the operation is that of SSE on 16 or 32 bytes; what crosses them is
//! an operation on whole registers, or spreads its source over both lanes first. Memory operands
//! need not be aligned but for the aligned moves. Masked moves and gathers, which touch only the
//! elements chosen, are helpers.

use super::mmx;
use super::sse::{self, immediate, is_register, source};
use super::sse41;
use super::sse42::{index, lengths};
use crate::lift::Lift;
use crate::operand::gpr;
use crate::{helpers, rows};
use emu_core::build::VReg;
use emu_core::cpu::{Cpu, Reg, Seg, Ymm, mode};
use emu_core::fault::{Fault, Guest, vector};
use emu_core::flags::OSZAPC;
use emu_core::mem::tlb::Access;
use emu_core::uop::{Args, Mem, Op};
use emu_core::vec::VecOp as V;
use emu_core::width::Width::{self, W8, W16, W32, W64};
use iced_x86::{OpKind, Register};

rows! {
    // ---- moves -----------------------------------------------------------------------------------
    Vmovaps:     AVX, Innocuous, mov_all;
    Vmovups:     AVX, Innocuous, mov_all;
    Vmovapd:     AVX, Innocuous, mov_all;
    Vmovupd:     AVX, Innocuous, mov_all;
    Vmovdqa:     AVX, Innocuous, mov_all;
    Vmovdqu:     AVX, Innocuous, mov_all;
    Vmovntps:    AVX, Innocuous, mov_all;
    Vmovntpd:    AVX, Innocuous, mov_all;
    Vmovntdq:    AVX, Innocuous, mov_all;
    Vmovntdqa:   AVX, Innocuous, mov_all;
    Vlddqu:      AVX, Innocuous, mov_all;
    Vmovss:      AVX, Innocuous, |l| mov_scalar(l, V::Movss);
    Vmovsd:      AVX, Innocuous, |l| mov_scalar(l, V::Movsd);
    Vmovlps:     AVX, Innocuous, |l| mov_half(l, 0, V::Movsd);
    Vmovlpd:     AVX, Innocuous, |l| mov_half(l, 0, V::Movsd);
    Vmovhps:     AVX, Innocuous, |l| mov_half(l, 1, V::Punpcklqdq);
    Vmovhpd:     AVX, Innocuous, |l| mov_half(l, 1, V::Punpcklqdq);
    Vmovhlps:    AVX, Innocuous, |l| op(l, V::Movhlps);
    Vmovlhps:    AVX, Innocuous, |l| op(l, V::Punpcklqdq);
    Vmovddup:    AVX, Innocuous, |l| op(l, V::Movddup);
    Vmovsldup:   AVX, Innocuous, |l| op(l, V::Movsldup);
    Vmovshdup:   AVX, Innocuous, |l| op(l, V::Movshdup);
    Vmovd:       AVX, Innocuous, mov_word;
    Vmovq:       AVX, Innocuous, mov_word;
    Vmovmskps:   AVX, Innocuous, |l| to_gpr(l, V::Movmskps, V::Movmskps256);
    Vmovmskpd:   AVX, Innocuous, |l| to_gpr(l, V::Movmskpd, V::Movmskpd256);
    Vpmovmskb:   AVX, Innocuous, |l| to_gpr(l, V::Pmovmskb, V::Pmovmskb256);
    Vmaskmovdqu: AVX, Innocuous, mmx::maskmov;
    Vmaskmovps:  AVX, Innocuous, |l| masked(l, 4);
    Vmaskmovpd:  AVX, Innocuous, |l| masked(l, 8);
    Vpmaskmovd:  AVX, Innocuous, |l| masked(l, 4);
    Vpmaskmovq:  AVX, Innocuous, |l| masked(l, 8);
    Vpgatherdd:  AVX, Innocuous, |l| gather(l, 4, 4);
    Vpgatherdq:  AVX, Innocuous, |l| gather(l, 8, 4);
    Vpgatherqd:  AVX, Innocuous, |l| gather(l, 4, 8);
    Vpgatherqq:  AVX, Innocuous, |l| gather(l, 8, 8);
    Vgatherdps:  AVX, Innocuous, |l| gather(l, 4, 4);
    Vgatherdpd:  AVX, Innocuous, |l| gather(l, 8, 4);
    Vgatherqps:  AVX, Innocuous, |l| gather(l, 4, 8);
    Vgatherqpd:  AVX, Innocuous, |l| gather(l, 8, 8);
    Vzeroupper:  AVX, Innocuous, |l| zero(l, 2);
    Vzeroall:    AVX, Innocuous, |l| zero(l, 0);
    Vldmxcsr:    AVX, Innocuous, sse::ldmxcsr;
    Vstmxcsr:    AVX, Innocuous, sse::stmxcsr;
    // ---- lanes in and out ------------------------------------------------------------------------
    Vpextrb:     AVX, Innocuous, |l| sse::extract(l, W8);
    Vpextrw:     AVX, Innocuous, |l| sse::extract(l, W16);
    Vpextrd:     AVX, Innocuous, |l| sse::extract(l, W32);
    Vpextrq:     AVX, Innocuous, |l| sse::extract(l, W64);
    Vextractps:  AVX, Innocuous, |l| sse::extract(l, W32);
    Vpinsrb:     AVX, Innocuous, |l| insert(l, W8);
    Vpinsrw:     AVX, Innocuous, |l| insert(l, W16);
    Vpinsrd:     AVX, Innocuous, |l| insert(l, W32);
    Vpinsrq:     AVX, Innocuous, |l| insert(l, W64);
    Vinsertps:   AVX, Innocuous, insertps;
    Vpbroadcastb: AVX, Innocuous, |l| op_imm(l, V::Vpbroadcast, 1);
    Vpbroadcastw: AVX, Innocuous, |l| op_imm(l, V::Vpbroadcast, 2);
    Vpbroadcastd: AVX, Innocuous, |l| op_imm(l, V::Vpbroadcast, 4);
    Vpbroadcastq: AVX, Innocuous, |l| op_imm(l, V::Vpbroadcast, 8);
    Vbroadcastss: AVX, Innocuous, |l| op_imm(l, V::Vpbroadcast, 4);
    Vbroadcastsd: AVX, Innocuous, |l| op_imm(l, V::Vpbroadcast, 8);
    Vbroadcastf128: AVX, Innocuous, |l| op_imm(l, V::Vpbroadcast, 16);
    Vbroadcasti128: AVX, Innocuous, |l| op_imm(l, V::Vpbroadcast, 16);
    Vinsertf128: AVX, Innocuous, |l| op(l, V::Vinserti128);
    Vinserti128: AVX, Innocuous, |l| op(l, V::Vinserti128);
    Vextractf128: AVX, Innocuous, extract_half;
    Vextracti128: AVX, Innocuous, extract_half;
    // ---- floating point --------------------------------------------------------------------------
    Vaddps:      AVX, Innocuous, |l| op(l, V::Addps);
    Vaddpd:      AVX, Innocuous, |l| op(l, V::Addpd);
    Vaddss:      AVX, Innocuous, |l| op(l, V::Addss);
    Vaddsd:      AVX, Innocuous, |l| op(l, V::Addsd);
    Vsubps:      AVX, Innocuous, |l| op(l, V::Subps);
    Vsubpd:      AVX, Innocuous, |l| op(l, V::Subpd);
    Vsubss:      AVX, Innocuous, |l| op(l, V::Subss);
    Vsubsd:      AVX, Innocuous, |l| op(l, V::Subsd);
    Vmulps:      AVX, Innocuous, |l| op(l, V::Mulps);
    Vmulpd:      AVX, Innocuous, |l| op(l, V::Mulpd);
    Vmulss:      AVX, Innocuous, |l| op(l, V::Mulss);
    Vmulsd:      AVX, Innocuous, |l| op(l, V::Mulsd);
    Vdivps:      AVX, Innocuous, |l| op(l, V::Divps);
    Vdivpd:      AVX, Innocuous, |l| op(l, V::Divpd);
    Vdivss:      AVX, Innocuous, |l| op(l, V::Divss);
    Vdivsd:      AVX, Innocuous, |l| op(l, V::Divsd);
    Vminps:      AVX, Innocuous, |l| op(l, V::Minps);
    Vminpd:      AVX, Innocuous, |l| op(l, V::Minpd);
    Vminss:      AVX, Innocuous, |l| op(l, V::Minss);
    Vminsd:      AVX, Innocuous, |l| op(l, V::Minsd);
    Vmaxps:      AVX, Innocuous, |l| op(l, V::Maxps);
    Vmaxpd:      AVX, Innocuous, |l| op(l, V::Maxpd);
    Vmaxss:      AVX, Innocuous, |l| op(l, V::Maxss);
    Vmaxsd:      AVX, Innocuous, |l| op(l, V::Maxsd);
    Vsqrtps:     AVX, Innocuous, |l| op(l, V::Sqrtps);
    Vsqrtpd:     AVX, Innocuous, |l| op(l, V::Sqrtpd);
    Vsqrtss:     AVX, Innocuous, |l| op(l, V::Sqrtss);
    Vsqrtsd:     AVX, Innocuous, |l| op(l, V::Sqrtsd);
    Vrcpps:      AVX, Innocuous, |l| op(l, V::Rcpps);
    Vrcpss:      AVX, Innocuous, |l| op(l, V::Rcpss);
    Vrsqrtps:    AVX, Innocuous, |l| op(l, V::Rsqrtps);
    Vrsqrtss:    AVX, Innocuous, |l| op(l, V::Rsqrtss);
    Vaddsubps:   AVX, Innocuous, |l| op(l, V::Addsubps);
    Vaddsubpd:   AVX, Innocuous, |l| op(l, V::Addsubpd);
    Vhaddps:     AVX, Innocuous, |l| op(l, V::Haddps);
    Vhaddpd:     AVX, Innocuous, |l| op(l, V::Haddpd);
    Vhsubps:     AVX, Innocuous, |l| op(l, V::Hsubps);
    Vhsubpd:     AVX, Innocuous, |l| op(l, V::Hsubpd);
    Vdpps:       AVX, Innocuous, |l| dot(l, V::Dpmulps);
    Vdppd:       AVX, Innocuous, |l| dot(l, V::Dpmulpd);
    Vroundps:    AVX, Innocuous, |l| op(l, V::Roundps);
    Vroundpd:    AVX, Innocuous, |l| op(l, V::Roundpd);
    Vroundss:    AVX, Innocuous, |l| op(l, V::Roundss);
    Vroundsd:    AVX, Innocuous, |l| op(l, V::Roundsd);
    Vandps:      AVX, Innocuous, |l| op(l, V::Pand);
    Vandnps:     AVX, Innocuous, |l| op(l, V::Pandn);
    Vorps:       AVX, Innocuous, |l| op(l, V::Por);
    Vxorps:      AVX, Innocuous, |l| op(l, V::Pxor);
    Vandpd:      AVX, Innocuous, |l| op(l, V::Pand);
    Vandnpd:     AVX, Innocuous, |l| op(l, V::Pandn);
    Vorpd:       AVX, Innocuous, |l| op(l, V::Por);
    Vxorpd:      AVX, Innocuous, |l| op(l, V::Pxor);
    Vcmpps:      AVX, Innocuous, |l| op(l, V::Cmpps);
    Vcmppd:      AVX, Innocuous, |l| op(l, V::Cmppd);
    Vcmpss:      AVX, Innocuous, |l| op(l, V::Cmpss);
    Vcmpsd:      AVX, Innocuous, |l| op(l, V::Cmpsd);
    Vcomiss:     AVX, Innocuous, |l| sse::to_flags(l, V::Comiss);
    Vcomisd:     AVX, Innocuous, |l| sse::to_flags(l, V::Comisd);
    Vucomiss:    AVX, Innocuous, |l| sse::to_flags(l, V::Ucomiss);
    Vucomisd:    AVX, Innocuous, |l| sse::to_flags(l, V::Ucomisd);
    Vptest:      AVX, Innocuous, |l| test(l, V::Ptest, V::Ptest256);
    Vtestps:     AVX, Innocuous, |l| test(l, V::Vtestps, V::Vtestps256);
    Vtestpd:     AVX, Innocuous, |l| test(l, V::Vtestpd, V::Vtestpd256);
    Vshufps:     AVX, Innocuous, |l| op(l, V::Shufps);
    Vshufpd:     AVX, Innocuous, |l| op(l, V::Shufpd);
    Vunpcklps:   AVX, Innocuous, |l| op(l, V::Punpckldq);
    Vunpckhps:   AVX, Innocuous, |l| op(l, V::Punpckhdq);
    Vunpcklpd:   AVX, Innocuous, |l| op(l, V::Punpcklqdq);
    Vunpckhpd:   AVX, Innocuous, |l| op(l, V::Punpckhqdq);
    Vpermilps:   AVX, Innocuous, |l| permute(l, V::Vpermilps, V::Pshufd);
    Vpermilpd:   AVX, Innocuous, |l| permute(l, V::Vpermilpd, V::Shufpd);
    Vblendps:    AVX, Innocuous, |l| op(l, V::Blendps);
    Vblendpd:    AVX, Innocuous, |l| op(l, V::Blendpd);
    Vblendvps:   AVX, Innocuous, |l| op(l, V::Blendvps);
    Vblendvpd:   AVX, Innocuous, |l| op(l, V::Blendvpd);
    // ---- conversions -----------------------------------------------------------------------------
    Vcvtsi2ss:   AVX, Innocuous, |l| from_gpr(l, V::Cvtsi2ss32, V::Cvtsi2ss64);
    Vcvtss2si:   AVX, Innocuous, |l| sse::to_int(l, V::Cvtss2si32, V::Cvtss2si64);
    Vcvttss2si:  AVX, Innocuous, |l| sse::to_int(l, V::Cvttss2si32, V::Cvttss2si64);
    Vcvtsi2sd:   AVX, Innocuous, |l| from_gpr(l, V::Cvtsi2sd32, V::Cvtsi2sd64);
    Vcvtsd2si:   AVX, Innocuous, |l| sse::to_int(l, V::Cvtsd2si32, V::Cvtsd2si64);
    Vcvttsd2si:  AVX, Innocuous, |l| sse::to_int(l, V::Cvttsd2si32, V::Cvttsd2si64);
    Vcvtss2sd:   AVX, Innocuous, |l| op(l, V::Cvtss2sd);
    Vcvtsd2ss:   AVX, Innocuous, |l| op(l, V::Cvtsd2ss);
    Vcvtdq2ps:   AVX, Innocuous, |l| op(l, V::Cvtdq2ps);
    Vcvtps2dq:   AVX, Innocuous, |l| op(l, V::Cvtps2dq);
    Vcvttps2dq:  AVX, Innocuous, |l| op(l, V::Cvttps2dq);
    Vcvtps2pd:   AVX, Innocuous, |l| widen(l, V::Cvtps2pd, 8);
    Vcvtdq2pd:   AVX, Innocuous, |l| widen(l, V::Cvtdq2pd, 8);
    Vcvtpd2ps:   AVX, Innocuous, |l| narrow(l, V::Cvtpd2ps);
    Vcvtpd2dq:   AVX, Innocuous, |l| narrow(l, V::Cvtpd2dq);
    Vcvttpd2dq:  AVX, Innocuous, |l| narrow(l, V::Cvttpd2dq);
    Vcvtph2ps:   AVX, Innocuous, |l| widen(l, V::Vcvtph2ps, 8);
    Vcvtps2ph:   AVX, Innocuous, to_half;
    // ---- integers --------------------------------------------------------------------------------
    Vpand:       AVX, Innocuous, |l| op(l, V::Pand);
    Vpandn:      AVX, Innocuous, |l| op(l, V::Pandn);
    Vpor:        AVX, Innocuous, |l| op(l, V::Por);
    Vpxor:       AVX, Innocuous, |l| op(l, V::Pxor);
    Vpaddb:      AVX, Innocuous, |l| op(l, V::Paddb);
    Vpaddw:      AVX, Innocuous, |l| op(l, V::Paddw);
    Vpaddd:      AVX, Innocuous, |l| op(l, V::Paddd);
    Vpaddq:      AVX, Innocuous, |l| op(l, V::Paddq);
    Vpaddsb:     AVX, Innocuous, |l| op(l, V::Paddsb);
    Vpaddsw:     AVX, Innocuous, |l| op(l, V::Paddsw);
    Vpaddusb:    AVX, Innocuous, |l| op(l, V::Paddusb);
    Vpaddusw:    AVX, Innocuous, |l| op(l, V::Paddusw);
    Vpsubb:      AVX, Innocuous, |l| op(l, V::Psubb);
    Vpsubw:      AVX, Innocuous, |l| op(l, V::Psubw);
    Vpsubd:      AVX, Innocuous, |l| op(l, V::Psubd);
    Vpsubq:      AVX, Innocuous, |l| op(l, V::Psubq);
    Vpsubsb:     AVX, Innocuous, |l| op(l, V::Psubsb);
    Vpsubsw:     AVX, Innocuous, |l| op(l, V::Psubsw);
    Vpsubusb:    AVX, Innocuous, |l| op(l, V::Psubusb);
    Vpsubusw:    AVX, Innocuous, |l| op(l, V::Psubusw);
    Vpavgb:      AVX, Innocuous, |l| op(l, V::Pavgb);
    Vpavgw:      AVX, Innocuous, |l| op(l, V::Pavgw);
    Vphaddw:     AVX, Innocuous, |l| op(l, V::Phaddw);
    Vphaddd:     AVX, Innocuous, |l| op(l, V::Phaddd);
    Vphaddsw:    AVX, Innocuous, |l| op(l, V::Phaddsw);
    Vphsubw:     AVX, Innocuous, |l| op(l, V::Phsubw);
    Vphsubd:     AVX, Innocuous, |l| op(l, V::Phsubd);
    Vphsubsw:    AVX, Innocuous, |l| op(l, V::Phsubsw);
    Vpminsb:     AVX, Innocuous, |l| op(l, V::Pminsb);
    Vpminsw:     AVX, Innocuous, |l| op(l, V::Pminsw);
    Vpminsd:     AVX, Innocuous, |l| op(l, V::Pminsd);
    Vpminub:     AVX, Innocuous, |l| op(l, V::Pminub);
    Vpminuw:     AVX, Innocuous, |l| op(l, V::Pminuw);
    Vpminud:     AVX, Innocuous, |l| op(l, V::Pminud);
    Vpmaxsb:     AVX, Innocuous, |l| op(l, V::Pmaxsb);
    Vpmaxsw:     AVX, Innocuous, |l| op(l, V::Pmaxsw);
    Vpmaxsd:     AVX, Innocuous, |l| op(l, V::Pmaxsd);
    Vpmaxub:     AVX, Innocuous, |l| op(l, V::Pmaxub);
    Vpmaxuw:     AVX, Innocuous, |l| op(l, V::Pmaxuw);
    Vpmaxud:     AVX, Innocuous, |l| op(l, V::Pmaxud);
    Vpabsb:      AVX, Innocuous, |l| op(l, V::Pabsb);
    Vpabsw:      AVX, Innocuous, |l| op(l, V::Pabsw);
    Vpabsd:      AVX, Innocuous, |l| op(l, V::Pabsd);
    Vpsignb:     AVX, Innocuous, |l| op(l, V::Psignb);
    Vpsignw:     AVX, Innocuous, |l| op(l, V::Psignw);
    Vpsignd:     AVX, Innocuous, |l| op(l, V::Psignd);
    Vpcmpeqb:    AVX, Innocuous, |l| op(l, V::Pcmpeqb);
    Vpcmpeqw:    AVX, Innocuous, |l| op(l, V::Pcmpeqw);
    Vpcmpeqd:    AVX, Innocuous, |l| op(l, V::Pcmpeqd);
    Vpcmpeqq:    AVX, Innocuous, |l| op(l, V::Pcmpeqq);
    Vpcmpgtb:    AVX, Innocuous, |l| op(l, V::Pcmpgtb);
    Vpcmpgtw:    AVX, Innocuous, |l| op(l, V::Pcmpgtw);
    Vpcmpgtd:    AVX, Innocuous, |l| op(l, V::Pcmpgtd);
    Vpcmpgtq:    AVX, Innocuous, |l| op(l, V::Pcmpgtq);
    Vpmullw:     AVX, Innocuous, |l| op(l, V::Pmullw);
    Vpmulld:     AVX, Innocuous, |l| op(l, V::Pmulld);
    Vpmulhw:     AVX, Innocuous, |l| op(l, V::Pmulhw);
    Vpmulhuw:    AVX, Innocuous, |l| op(l, V::Pmulhuw);
    Vpmulhrsw:   AVX, Innocuous, |l| op(l, V::Pmulhrsw);
    Vpmuludq:    AVX, Innocuous, |l| op(l, V::Pmuludq);
    Vpmuldq:     AVX, Innocuous, |l| op(l, V::Pmuldq);
    Vpmaddwd:    AVX, Innocuous, |l| op(l, V::Pmaddwd);
    Vpmaddubsw:  AVX, Innocuous, |l| op(l, V::Pmaddubsw);
    Vpsadbw:     AVX, Innocuous, |l| op(l, V::Psadbw);
    Vmpsadbw:    AVX, Innocuous, |l| op(l, V::Mpsadbw);
    Vphminposuw: AVX, Innocuous, |l| op(l, V::Phminposuw);
    Vpacksswb:   AVX, Innocuous, |l| op(l, V::Packsswb);
    Vpackssdw:   AVX, Innocuous, |l| op(l, V::Packssdw);
    Vpackuswb:   AVX, Innocuous, |l| op(l, V::Packuswb);
    Vpackusdw:   AVX, Innocuous, |l| op(l, V::Packusdw);
    Vpunpcklbw:  AVX, Innocuous, |l| op(l, V::Punpcklbw);
    Vpunpcklwd:  AVX, Innocuous, |l| op(l, V::Punpcklwd);
    Vpunpckldq:  AVX, Innocuous, |l| op(l, V::Punpckldq);
    Vpunpcklqdq: AVX, Innocuous, |l| op(l, V::Punpcklqdq);
    Vpunpckhbw:  AVX, Innocuous, |l| op(l, V::Punpckhbw);
    Vpunpckhwd:  AVX, Innocuous, |l| op(l, V::Punpckhwd);
    Vpunpckhdq:  AVX, Innocuous, |l| op(l, V::Punpckhdq);
    Vpunpckhqdq: AVX, Innocuous, |l| op(l, V::Punpckhqdq);
    Vpshufb:     AVX, Innocuous, |l| op(l, V::Pshufb);
    Vpshufd:     AVX, Innocuous, |l| op(l, V::Pshufd);
    Vpshuflw:    AVX, Innocuous, |l| op(l, V::Pshuflw);
    Vpshufhw:    AVX, Innocuous, |l| op(l, V::Pshufhw);
    Vpalignr:    AVX, Innocuous, |l| op(l, V::Palignr);
    Vpblendw:    AVX, Innocuous, |l| op(l, V::Pblendw);
    Vpblendvb:   AVX, Innocuous, |l| op(l, V::Pblendvb);
    Vpblendd:    AVX, Innocuous, |l| op(l, V::Blendps);
    Vpsllw:      AVX, Innocuous, |l| shift(l, V::Psllw, V::Psllwi);
    Vpslld:      AVX, Innocuous, |l| shift(l, V::Pslld, V::Pslldi);
    Vpsllq:      AVX, Innocuous, |l| shift(l, V::Psllq, V::Psllqi);
    Vpsrlw:      AVX, Innocuous, |l| shift(l, V::Psrlw, V::Psrlwi);
    Vpsrld:      AVX, Innocuous, |l| shift(l, V::Psrld, V::Psrldi);
    Vpsrlq:      AVX, Innocuous, |l| shift(l, V::Psrlq, V::Psrlqi);
    Vpsraw:      AVX, Innocuous, |l| shift(l, V::Psraw, V::Psrawi);
    Vpsrad:      AVX, Innocuous, |l| shift(l, V::Psrad, V::Psradi);
    Vpslldq:     AVX, Innocuous, |l| op(l, V::Pslldq);
    Vpsrldq:     AVX, Innocuous, |l| op(l, V::Psrldq);
    Vpsllvd:     AVX, Innocuous, |l| op(l, V::Vpsllvd);
    Vpsllvq:     AVX, Innocuous, |l| op(l, V::Vpsllvq);
    Vpsrlvd:     AVX, Innocuous, |l| op(l, V::Vpsrlvd);
    Vpsrlvq:     AVX, Innocuous, |l| op(l, V::Vpsrlvq);
    Vpsravd:     AVX, Innocuous, |l| op(l, V::Vpsravd);
    Vpmovsxbw:   AVX, Innocuous, |l| widen(l, V::Pmovsxbw, 8);
    Vpmovsxbd:   AVX, Innocuous, |l| widen(l, V::Pmovsxbd, 4);
    Vpmovsxbq:   AVX, Innocuous, |l| widen(l, V::Pmovsxbq, 2);
    Vpmovsxwd:   AVX, Innocuous, |l| widen(l, V::Pmovsxwd, 8);
    Vpmovsxwq:   AVX, Innocuous, |l| widen(l, V::Pmovsxwq, 4);
    Vpmovsxdq:   AVX, Innocuous, |l| widen(l, V::Pmovsxdq, 8);
    Vpmovzxbw:   AVX, Innocuous, |l| widen(l, V::Pmovzxbw, 8);
    Vpmovzxbd:   AVX, Innocuous, |l| widen(l, V::Pmovzxbd, 4);
    Vpmovzxbq:   AVX, Innocuous, |l| widen(l, V::Pmovzxbq, 2);
    Vpmovzxwd:   AVX, Innocuous, |l| widen(l, V::Pmovzxwd, 8);
    Vpmovzxwq:   AVX, Innocuous, |l| widen(l, V::Pmovzxwq, 4);
    Vpmovzxdq:   AVX, Innocuous, |l| widen(l, V::Pmovzxdq, 8);
    Vpermq:      AVX, Innocuous, |l| op(l, V::Vpermq);
    Vpermpd:     AVX, Innocuous, |l| op(l, V::Vpermq);
    Vpermd:      AVX, Innocuous, |l| op(l, V::Vpermd);
    Vpermps:     AVX, Innocuous, |l| op(l, V::Vpermd);
    Vperm2f128:  AVX, Innocuous, |l| op(l, V::Vperm2i128);
    Vperm2i128:  AVX, Innocuous, |l| op(l, V::Vperm2i128);
    // ---- strings ---------------------------------------------------------------------------------
    Vpcmpestri:  AVX, Innocuous, |l| { let c = lengths(l, false); index(l, V::Pcmpestri, c) };
    Vpcmpestri64: AVX, Innocuous, |l| { let c = lengths(l, true); index(l, V::Pcmpestri, c) };
    Vpcmpistri:  AVX, Innocuous, |l| { let c = sse::xmm(l, 0); index(l, V::Pcmpistri, c) };
    Vpcmpestrm:  AVX, Innocuous, |l| { let c = lengths(l, false); mask(l, V::Pcmpestrm, V::Pcmpestri, c) };
    Vpcmpestrm64: AVX, Innocuous, |l| { let c = lengths(l, true); mask(l, V::Pcmpestrm, V::Pcmpestri, c) };
    Vpcmpistrm:  AVX, Innocuous, |l| { let c = sse::xmm(l, 0); mask(l, V::Pcmpistrm, V::Pcmpistri, c) };
    // ---- AES, carry-less products ----------------------------------------------------------------
    Vaesenc:     AVX, Innocuous, |l| op(l, V::Aesenc);
    Vaesenclast: AVX, Innocuous, |l| op(l, V::Aesenclast);
    Vaesdec:     AVX, Innocuous, |l| op(l, V::Aesdec);
    Vaesdeclast: AVX, Innocuous, |l| op(l, V::Aesdeclast);
    Vaesimc:     AVX, Innocuous, |l| op(l, V::Aesimc);
    Vaeskeygenassist: AVX, Innocuous, |l| op(l, V::Aeskeygenassist);
    Vpclmulqdq:  AVX, Innocuous, |l| op(l, V::Pclmulqdq);
}

helpers! {
    MASKED_LOAD = "vmasked_load" masked_load;
    MASKED_STORE = "vmasked_store" masked_store;
    GATHER = "vgather" gather_elements;
}

// ---- operands -----------------------------------------------------------------------------------

/// No register: an operand that is not used.
const NONE: VReg = Reg::ZERO;

/// The vector register that operand `n` is.
pub fn vector(l: &Lift, n: u32) -> VReg {
    sse::xmm(l, n)
}

/// Whether operand `n` is 256 bits wide.
fn wide(l: &Lift, n: u32) -> bool {
    match l.i.op_kind(n) {
        OpKind::Register => l.i.op_register(n).is_ymm(),
        _ => l.i.memory_size().size() == 32,
    }
}

/// Size of the result, for `v`: 32 bytes, or 16 and the rest zeroed.
pub fn put_kind(l: &Lift) -> u8 {
    if wide(l, 0) { 32 } else { XMM }
}

/// 16 bytes, the rest zeroed.
const XMM: u8 = 16 | 0x80;

/// Operands that are not immediates.
fn places(l: &Lift) -> u32 {
    let n = l.i.op_count();
    n - u32::from(n > 0 && l.i.op_kind(n - 1) == OpKind::Immediate8)
}

// ---- operations ---------------------------------------------------------------------------------

/// `op0 = vop(op1, op2, op3, imm8)`, or of op1 alone.
pub fn op(l: &mut Lift, vop: V) -> Guest<()> {
    let imm = immediate(l);
    op_imm(l, vop, imm)
}

fn op_imm(l: &mut Lift, vop: V, imm: u8) -> Guest<()> {
    let (d, k, n) = (vector(l, 0), put_kind(l), places(l));
    let b = source(l, if n > 2 { 2 } else { 1 });
    let a = if n > 2 { vector(l, 1) } else { b };
    let c = if n > 3 { vector(l, 3) } else { NONE };
    l.b.v(vop, k, d, a, b, c, imm);
    Ok(())
}

/// A shift: by the low word of an XMM register or memory for all lanes, or by an immediate.
fn shift(l: &mut Lift, by_word: V, by_imm: V) -> Guest<()> {
    if places(l) == 2 {
        return op(l, by_imm);
    }
    let (d, k, mut n) = (vector(l, 0), put_kind(l), source(l, 2));
    if k == 32 {
        let t = l.b.vtemp();
        l.b.v(V::Vpbroadcast, 32, t, NONE, n, NONE, 16);
        n = t;
    }
    l.b.v(by_word, k, d, vector(l, 1), n, NONE, 0);
    Ok(())
}

/// VPERMILPS, VPERMILPD: by a register, or by an immediate.
fn permute(l: &mut Lift, by_register: V, by_imm: V) -> Guest<()> {
    op(l, if places(l) == 2 { by_imm } else { by_register })
}

/// VINSERTPS; from memory its source lane is the one there is.
fn insertps(l: &mut Lift) -> Guest<()> {
    let imm = immediate(l) & if is_register(l, 2) { 0xff } else { 0x3f };
    op_imm(l, V::Insertps, imm)
}

/// VDPPS, VDPPD.
fn dot(l: &mut Lift, products: V) -> Guest<()> {
    let (d, k, imm) = (vector(l, 0), put_kind(l), immediate(l));
    let b = source(l, 2);
    let a = vector(l, 1);
    sse41::dot_product(l, products, k, d, a, b, imm);
    Ok(())
}

/// A conversion to wider lanes: the upper half of a 256-bit result comes from `n` bytes on.
fn widen(l: &mut Lift, vop: V, n: u8) -> Guest<()> {
    let (d, k, mut b) = (vector(l, 0), put_kind(l), source(l, 1));
    if k == 32 {
        let t = l.b.vtemp();
        l.b.v(V::Vspread, 32, t, NONE, b, NONE, n);
        b = t;
    }
    l.b.v(vop, k, d, b, b, NONE, 0);
    Ok(())
}

/// A conversion to narrower lanes.
fn narrow(l: &mut Lift, vop: V) -> Guest<()> {
    let (d, b) = (vector(l, 0), source(l, 1));
    narrowed(l, vop, d, b, wide(l, 1), 0);
    Ok(())
}

fn narrowed(l: &mut Lift, vop: V, d: VReg, b: VReg, wide: bool, imm: u8) {
    if wide {
        let t = l.b.vtemp();
        l.b.v(vop, 32, t, b, b, NONE, imm);
        l.b.v(V::Vnarrow, XMM, d, NONE, t, NONE, 0);
    } else {
        l.b.v(vop, XMM, d, b, b, NONE, imm);
    }
}

/// VCVTPS2PH: to a register, or to memory, which is checked first since MXCSR may change.
fn to_half(l: &mut Lift) -> Guest<()> {
    let (b, wide, imm) = (vector(l, 1), wide(l, 1), immediate(l));
    if is_register(l, 0) {
        let d = vector(l, 0);
        narrowed(l, V::Vcvtps2ph, d, b, wide, imm);
        return Ok(());
    }
    let (n, t) = (l.i.memory_size().size() as u8, l.b.vtemp());
    let m = l.mem(true);
    l.b.store(Op::Chkw, W64, m, 0);
    l.b.last().k = n;
    narrowed(l, V::Vcvtps2ph, t, b, wide, imm);
    l.b.vstore(n, false, m, t);
    Ok(())
}

/// VPTEST and its like: flags only.
fn test(l: &mut Lift, narrow: V, wide: V) -> Guest<()> {
    let vop = if put_kind(l) == 32 { wide } else { narrow };
    sse::to_flags(l, vop)
}

/// VMOVMSKPS and its like: a mask for a general register, zero-extended.
fn to_gpr(l: &mut Lift, narrow: V, wide_op: V) -> Guest<()> {
    let (d, v) = (gpr(l.i.op0_register()).0, vector(l, 1));
    let vop = if wide(l, 1) { wide_op } else { narrow };
    l.b.vx(vop, W32, d, v, v, v, 0, 0);
    Ok(())
}

/// VCVTSI2SS, VCVTSI2SD.
fn from_gpr(l: &mut Lift, from32: V, from64: V) -> Guest<()> {
    let (d, a, w, t) = (vector(l, 0), vector(l, 1), l.width(2), l.b.vtemp());
    let v = l.read(2);
    l.b.vset(w, t, t, 0, v, true);
    l.b.v(if w == W64 { from64 } else { from32 }, XMM, d, a, t, NONE, 0);
    Ok(())
}

/// VPCMPESTRM, VPCMPISTRM: a mask in XMM0, and the flags of the index form.
fn mask(l: &mut Lift, vop: V, flags: V, c: VReg) -> Guest<()> {
    let (imm, a, b, t) = (immediate(l), vector(l, 0), source(l, 1), l.b.vtemp());
    l.b.v(vop, XMM, t, a, b, c, imm);
    l.b.vx(flags, W32, Reg::ZERO, a, b, c, imm, OSZAPC);
    l.b.v(V::Mov, XMM, Reg(0), NONE, t, NONE, 0);
    Ok(())
}

// ---- moves --------------------------------------------------------------------------------------

/// Moves of all 16 or 32 bytes.
fn mov_all(l: &mut Lift) -> Guest<()> {
    if is_register(l, 0) && is_register(l, 1) {
        op(l, V::Mov)
    } else if is_register(l, 0) {
        let d = vector(l, 0);
        sse::load(l, d);
        Ok(())
    } else {
        let (n, aligned) = (l.i.memory_size().size() as u8, sse::aligned(l));
        let m = l.mem(true);
        l.b.vstore(n, aligned, m, vector(l, 1));
        Ok(())
    }
}

/// VMOVSS, VMOVSD: from memory zero-extended, between registers merged.
fn mov_scalar(l: &mut Lift, vop: V) -> Guest<()> {
    if places(l) == 3 { op(l, vop) } else { mov_all(l) }
}

/// VMOVLPS, VMOVHPS and their like: word `lane` to memory, or `vop` with one from memory.
fn mov_half(l: &mut Lift, lane: u8, vop: V) -> Guest<()> {
    if is_register(l, 0) {
        return op(l, vop);
    }
    let t = l.b.temp();
    l.b.vget(W64, t, vector(l, 1), lane);
    let m = l.mem(true);
    l.b.store(Op::St, W64, m, t);
    Ok(())
}

/// VMOVD, VMOVQ.
fn mov_word(l: &mut Lift) -> Guest<()> {
    let [d, s] = [0, 1].map(|n| l.i.op_register(n));
    if d.is_gpr() {
        let (r, w) = (gpr(d).0, l.width(0));
        l.b.vget(w, r, vector(l, 1), 0);
    } else if s.is_gpr() {
        let (t, w) = (l.b.vtemp(), l.width(1));
        l.b.vset(w, t, t, 0, gpr(s).0, true);
        l.b.v(V::Mov, XMM, vector(l, 0), NONE, t, NONE, 0);
    } else if d != Register::None && s != Register::None {
        return op(l, V::Movq);
    } else {
        return mov_all(l);
    }
    Ok(())
}

/// VPINSRB…VPINSRQ: one lane of `w` from a register or memory.
fn insert(l: &mut Lift, w: Width) -> Guest<()> {
    let lane = immediate(l) & (16 / w.bytes() as u8 - 1);
    let (d, a, t) = (vector(l, 0), vector(l, 1), l.b.vtemp());
    let x = l.read(2);
    l.b.v(V::Mov, XMM, t, NONE, a, NONE, 0);
    l.b.vset(w, t, t, lane, x, false);
    l.b.v(V::Mov, XMM, d, NONE, t, NONE, 0);
    Ok(())
}

/// VEXTRACTF128, VEXTRACTI128.
fn extract_half(l: &mut Lift) -> Guest<()> {
    let (v, imm) = (vector(l, 1), immediate(l));
    if is_register(l, 0) {
        let d = vector(l, 0);
        l.b.v(V::Vextracti128, XMM, d, NONE, v, NONE, imm);
    } else {
        let t = l.b.vtemp();
        l.b.v(V::Vextracti128, XMM, t, NONE, v, NONE, imm);
        let m = l.mem(true);
        l.b.vstore(16, false, m, t);
    }
    Ok(())
}

/// VZEROALL (`from` = 0), VZEROUPPER (2): the words from there on of all registers that the mode
/// has.
fn zero(l: &mut Lift, from: u8) -> Guest<()> {
    l.b.vzero(if l.code64() { 16 } else { 8 }, from);
    Ok(())
}

// ---- elements chosen by a mask --------------------------------------------------------------------

/// Where the elements of a masked move or gather are, as an immediate of its helper.
#[derive(Clone, Copy)]
struct Elements {
    /// Bytes of an element: 4 or 8.
    bytes: u8,
    count: u8,
    /// Registers: destination (of a store: source), mask, indices.
    d: VReg,
    mask: VReg,
    index: VReg,
    /// Bytes of an index: 4 or 8; and log2 of its factor.
    index_bytes: u8,
    scale: u8,
    segment: Seg,
    /// Address size.
    addr: Width,
}

impl Elements {
    fn pack(self) -> u64 {
        u64::from_le_bytes([
            self.d.0,
            self.mask.0,
            self.index.0,
            self.bytes,
            self.count,
            self.index_bytes,
            self.segment as u8,
            self.scale | (self.addr as u8) << 2,
        ])
    }

    fn unpack(imm: u64) -> Elements {
        let [d, mask, index, bytes, count, index_bytes, segment, rest] = imm.to_le_bytes();
        let reg = |r: u8| Reg(r % 24);
        Elements {
            bytes,
            count: count & 15,
            d: reg(d),
            mask: reg(mask),
            index: reg(index),
            index_bytes,
            scale: rest & 3,
            segment: Seg::ALL[usize::from(segment).min(5)],
            addr: Width::from_index(rest >> 2),
        }
    }

    fn width(self) -> Width {
        if self.bytes == 8 { W64 } else { W32 }
    }

    /// Whether element `i` is chosen: the top bit of the mask's.
    fn chosen(self, cpu: &Cpu, i: u8) -> bool {
        let mask = &cpu.v[usize::from(self.mask.0)];
        element(mask, self.bytes, i) >> (8 * self.bytes - 1) & 1 != 0
    }

    /// Linear address for access to the element at `offset` in the segment.
    fn address(self, cpu: &mut Cpu, offset: u64, write: bool) -> Guest<u64> {
        let (off, s) = (self.addr.zext(offset), self.segment);
        let fs_gs = matches!(s, Seg::Fs | Seg::Gs);
        match cpu.mode {
            m if m & mode::CODE64 != 0 => {
                Ok(if fs_gs { off.wrapping_add(cpu.base(s)) } else { off })
            }
            // Flat code can be read, never written.
            m if m & mode::FLAT != 0 && !fs_gs && !(s == Seg::Cs && write) => Ok(off),
            _ => (cpu.frontend.linear)(cpu, s, off, self.bytes.into(), write),
        }
    }

    /// A non-canonical address is #SS in the stack segment.
    fn fault(self, f: Fault) -> Fault {
        if self.segment == Seg::Ss && f.vector == vector::GP { Fault::SS0 } else { f }
    }

    /// Masked accesses and gathers are not checked for alignment.
    fn load(self, cpu: &mut Cpu, offset: u64) -> Guest<u64> {
        let read = self
            .address(cpu, offset, false)
            .and_then(|va| cpu.unaligned(|cpu| cpu.read(va, self.width())));
        read.map_err(|f| self.fault(f))
    }
}

/// Element `i` of `bytes` (4 or 8).
fn element(v: &Ymm, bytes: u8, i: u8) -> u64 {
    if bytes == 8 {
        return v[usize::from(i & 3)];
    }
    v[usize::from(i >> 1 & 3)] >> (32 * (i & 1)) & 0xffff_ffff
}

fn set_element(v: &mut Ymm, bytes: u8, i: u8, x: u64) {
    if bytes == 8 {
        v[usize::from(i & 3)] = x;
    } else {
        let (word, shift) = (&mut v[usize::from(i >> 1 & 3)], 32 * (i & 1));
        *word = *word & !(0xffff_ffff << shift) | x << shift;
    }
}

/// An offset in a register, not yet cut to the address size.
fn offset_register(l: &mut Lift, m: Mem) -> Reg {
    let t = l.b.temp();
    l.b.load(Op::Lea, W64, t, Mem { addr: W64, ..m });
    t
}

/// VMASKMOVPS and its like, on elements of `bytes`.
fn masked(l: &mut Lift, bytes: u8) -> Guest<()> {
    let store = !is_register(l, 0);
    let (d, mask) = (vector(l, if store { 2 } else { 0 }), vector(l, 1));
    let size = if wide(l, 1) { 32 } else { 16 };
    let m = l.offset();
    let t = offset_register(l, m);
    let e = Elements {
        bytes,
        count: size / bytes,
        d,
        mask,
        index: d,
        index_bytes: 0,
        scale: 0,
        segment: l.segment(),
        addr: m.addr,
    };
    let def = if store { &MASKED_STORE } else { &MASKED_LOAD };
    l.b.helper(def, W64, 0, Reg::ZERO, t, Reg::ZERO, e.pack());
    if store {
        l.end_block();
    }
    Ok(())
}

/// The elements chosen by the mask from offset `a` on, zeros for the others.
fn masked_load(cpu: &mut Cpu, x: Args) -> Guest<()> {
    let (e, base, mut v) = (Elements::unpack(x.imm), cpu.reg(x.a), [0; 4]);
    for i in 0..e.count {
        if e.chosen(cpu, i) {
            let at = base.wrapping_add(u64::from(i * e.bytes));
            set_element(&mut v, e.bytes, i, e.load(cpu, at)?);
        }
    }
    cpu.v[usize::from(e.d.0)] = v;
    Ok(())
}

/// Stores the elements chosen by the mask; all are checked before the first is written.
fn masked_store(cpu: &mut Cpu, x: Args) -> Guest<()> {
    let (e, base) = (Elements::unpack(x.imm), cpu.reg(x.a));
    for write in [false, true] {
        for i in (0..e.count).filter(|i| e.chosen(cpu, *i)).collect::<Vec<_>>() {
            let at = base.wrapping_add(u64::from(i * e.bytes));
            let va = e.address(cpu, at, true).map_err(|f| e.fault(f))?;
            if write {
                let v = element(&cpu.v[usize::from(e.d.0)], e.bytes, i);
                cpu.unaligned(|cpu| cpu.write(va, e.width(), v))?;
            } else {
                let probed = cpu.probe(va, e.bytes.into(), Access::Write);
                probed.map_err(|f| e.fault(f))?;
            }
        }
    }
    Ok(())
}

/// VGATHERDPS and its like: elements of `bytes`, indices of `index_bytes`. #UD unless destination,
/// indices and mask are different registers.
fn gather(l: &mut Lift, bytes: u8, index_bytes: u8) -> Guest<()> {
    let (d, mask) = (vector(l, 0), vector(l, 2));
    let vsib = l.i.memory_index();
    let index = Reg(vsib.number() as u8 & 15);
    if d == mask || d == index || mask == index {
        return Err(Fault::UD);
    }
    let size = |ymm: bool| if ymm { 32 } else { 16 };
    let count = (size(wide(l, 0)) / bytes).min(size(vsib.is_ymm()) / index_bytes);
    let mut m = l.offset();
    if l.i.memory_base() == Register::None {
        // With only an index the size of the displacement is that of the address.
        m.addr = if l.code64() && l.i.memory_displ_size() == 8 { W64 } else { W32 };
    }
    let e = Elements {
        bytes,
        count,
        d,
        mask,
        index,
        index_bytes,
        scale: m.scale,
        segment: l.segment(),
        addr: m.addr,
    };
    let t = offset_register(l, Mem { index: Reg::ZERO, ..m });
    l.b.restartable();
    l.b.helper(&GATHER, W64, 0, Reg::ZERO, t, Reg::ZERO, e.pack());
    Ok(())
}

/// One element after the other: each that is there is no longer in the mask, so that the
/// instruction goes on after a fault where it was (SDM Vol. 2, VGATHERDPS).
fn gather_elements(cpu: &mut Cpu, x: Args) -> Guest<()> {
    let (e, base) = (Elements::unpack(x.imm), cpu.reg(x.a));
    let [mut d, mut mask, index] = [e.d, e.mask, e.index].map(|r| cpu.v[usize::from(r.0)]);
    let mut done = Ok(());
    for i in 0..e.count {
        if element(&mask, e.bytes, i) >> (8 * e.bytes - 1) & 1 != 0 {
            let index = element(&index, e.index_bytes, i);
            let index = if e.index_bytes == 4 { W32.sext(index) } else { index };
            match e.load(cpu, base.wrapping_add(index << e.scale)) {
                Ok(value) => set_element(&mut d, e.bytes, i, value),
                Err(f) => {
                    done = Err(f);
                    break;
                }
            }
        }
        set_element(&mut mask, e.bytes, i, 0);
    }
    if done.is_ok() {
        let bytes = usize::from(e.count * e.bytes);
        d.iter_mut().skip(bytes / 8).for_each(|w| *w = 0);
        mask = [0; 4];
    }
    (cpu.v[usize::from(e.d.0)], cpu.v[usize::from(e.mask.0)]) = (d, mask);
    done
}
