//! Random encodings of a given [`Code`]: the bytes that the opcode table asks for, everything else
//! (redundant prefixes, REX bits, ModRM, SIB, displacement, immediate) at random. The decoder then
//! says whether it is still that code, and how long it is.

use super::random::Rng;
use iced_x86::{
    Code, ConstantOffsets, Decoder, DecoderOptions, EncodingKind, Instruction, MandatoryPrefix,
    OpCodeInfo, OpCodeOperandKind, OpCodeTableKind,
};
use oracle::Bits;

/// A decoded instruction with its bytes.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// The instruction, decoded at the address it was made for.
    pub insn: Instruction,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Where its displacement and immediates are.
    pub constants: ConstantOffsets,
}

/// Bits of code as the decoder takes them.
#[must_use]
pub fn bitness(bits: Bits) -> u32 {
    if bits == Bits::B64 { 64 } else { 32 }
}

/// Decodes the instruction at the start of `bytes`, which lie at `ip`.
#[must_use]
pub fn decode(bytes: &[u8], bits: Bits, ip: u64) -> Encoded {
    let mut decoder = Decoder::with_ip(bitness(bits), bytes, ip, DecoderOptions::NONE);
    let insn = decoder.decode();
    let constants = decoder.get_constant_offsets(&insn);
    Encoded { insn, bytes: bytes[..insn.len().min(bytes.len())].to_vec(), constants }
}

/// A random encoding of `code` at address `ip`; `None` if none was found.
pub fn encode(code: Code, bits: Bits, ip: u64, rng: &mut Rng) -> Option<Encoded> {
    let info = code.op_code();
    (0..24).find_map(|_| {
        let mut bytes = match info.encoding() {
            EncodingKind::Legacy => legacy(info, bits, rng),
            EncodingKind::VEX => vex(info, bits, rng),
            _ => return None,
        };
        let mut modrm = rng.bits() as u8;
        if rng.one_in(3) {
            modrm |= 0xc0;
        }
        if let Ok(group) = u8::try_from(info.group_index()) {
            modrm = modrm & !0x38 | group << 3;
        }
        if let Ok(group) = u8::try_from(info.rm_group_index()) {
            modrm = 0xc0 | modrm & 0x38 | group;
        }
        bytes.push(modrm);
        // SIB, displacement and immediate, at most 17 bytes.
        let small = rng.one_in(2);
        for _ in 0..3 {
            let v = if small { rng.integer() } else { rng.bits() };
            bytes.extend(v.to_le_bytes());
        }
        let e = decode(&bytes, bits, ip);
        (e.insn.code() == code).then_some(e)
    })
}

/// Prefixes and opcode of a legacy encoding.
fn legacy(info: &OpCodeInfo, bits: Bits, rng: &mut Rng) -> Vec<u8> {
    let wide = bits == Bits::B64;
    let mut v = Vec::with_capacity(32);
    let maybe = |v: &mut Vec<u8>, rng: &mut Rng, n: u64, prefix: u8| {
        if rng.one_in(n) {
            v.push(prefix);
        }
    };
    let segment = rng.pick(&[0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65]);
    maybe(&mut v, rng, 20, segment);
    let (lock, rep) = (info.can_use_lock_prefix(), info.can_use_rep_prefix());
    maybe(&mut v, rng, if lock { 3 } else { 60 }, 0xf0);
    if info.mandatory_prefix() == MandatoryPrefix::None {
        maybe(&mut v, rng, if rep { 3 } else { 60 }, 0xf3);
        let repne = info.can_use_repne_prefix();
        maybe(&mut v, rng, if repne { 3 } else { 60 }, 0xf2);
    }
    maybe(&mut v, rng, if wide { 24 } else { 60 }, 0x67);
    if info.address_size() != 0 && info.address_size() != if wide { 64 } else { 32 } {
        v.push(0x67);
    }
    if info.operand_size() == 16 {
        v.push(0x66);
    } else {
        maybe(&mut v, rng, 40, 0x66);
    }
    v.extend(match info.mandatory_prefix() {
        MandatoryPrefix::P66 => Some(0x66),
        MandatoryPrefix::PF3 => Some(0xf3),
        MandatoryPrefix::PF2 => Some(0xf2),
        _ => None,
    });
    if wide {
        let rxb = rng.bits() as u8 & 7;
        if info.operand_size() == 64 && !info.default_op_size64() || rng.one_in(32) {
            v.push(0x48 | rxb);
        } else {
            maybe(&mut v, rng, 2, 0x40 | rxb);
        }
    }
    match info.table() {
        OpCodeTableKind::T0F => v.push(0x0f),
        OpCodeTableKind::T0F38 => v.extend([0x0f, 0x38]),
        OpCodeTableKind::T0F3A => v.extend([0x0f, 0x3a]),
        _ => {}
    }
    let mut opcode = info.op_code();
    use OpCodeOperandKind as K;
    let in_opcode = |k: &K| {
        matches!(k, K::r8_opcode | K::r16_opcode | K::r32_opcode | K::r64_opcode | K::sti_opcode)
    };
    if info.op_kinds().iter().any(in_opcode) {
        opcode |= rng.bits() as u32 & 7;
    }
    if info.op_code_len() == 2 {
        v.push((opcode >> 8) as u8);
    }
    v.push(opcode as u8);
    v
}

/// A VEX prefix and the opcode.
fn vex(info: &OpCodeInfo, bits: Bits, rng: &mut Rng) -> Vec<u8> {
    let map = match info.table() {
        OpCodeTableKind::T0F38 => 2,
        OpCodeTableKind::T0F3A => 3,
        _ => 1,
    };
    let pp = match info.mandatory_prefix() {
        MandatoryPrefix::P66 => 1,
        MandatoryPrefix::PF3 => 2,
        MandatoryPrefix::PF2 => 3,
        _ => 0,
    };
    let w = if info.is_wig() { rng.bits() as u8 & 1 } else { info.w() as u8 };
    let l = if info.is_lig() { rng.bits() as u8 & 1 } else { (info.l() == 1).into() };
    let vvvv = if rng.one_in(2) { 15 } else { rng.bits() as u8 & 15 };
    let mut rxb = rng.bits() as u8 & 0xe0;
    if bits == Bits::B32 {
        rxb |= 0xc0;
    }
    let mut v = Vec::with_capacity(32);
    if rng.one_in(30) {
        v.push(rng.pick(&[0x64, 0x65, 0x67, 0x2e]));
    }
    if map == 1 && w == 0 && rng.one_in(2) {
        v.extend([0xc5, rxb & 0x80 | vvvv << 3 | l << 2 | pp]);
    } else {
        v.extend([0xc4, rxb | map, w << 7 | vvvv << 3 | l << 2 | pp]);
    }
    let opcode = info.op_code();
    if info.op_code_len() == 2 {
        v.push((opcode >> 8) as u8);
    }
    v.push(opcode as u8);
    v
}

/// Whether bytes that the decoder finds illegal may be an instruction of the host's vendor, or
/// one newer than the decoder's defaults.
#[must_use]
pub fn maybe_host_only(bytes: &[u8], bits: Bits) -> bool {
    const MORE: u32 = DecoderOptions::AMD
        | DecoderOptions::MPX
        | DecoderOptions::UDBG
        | DecoderOptions::PCOMMIT
        | DecoderOptions::XBTS
        | DecoderOptions::CMPXCHG486A
        | DecoderOptions::LOADALL286
        | DecoderOptions::LOADALL386
        | DecoderOptions::CL1INVMB
        | DecoderOptions::CYRIX
        | DecoderOptions::ALTINST;
    !Decoder::with_ip(bitness(bits), bytes, 0, MORE).decode().is_invalid()
}
