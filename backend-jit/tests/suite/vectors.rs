//! Every MMX, SSE and AVX encoding, lifted: registers of all kinds and memory, alone and in
//! sequences.

use crate::blocks::{check_from, native_on};
use crate::machine::{reference, same, start};
use backend_jit::x64::X64;
use emu_core::build::Builder;
use emu_core::cpu::{Cpu, Reg, mode};
use emu_core::native::{Part, Place, Translator};
use emu_core::uop::Block;
use emu_core::vec::VecOp;
use frontend_x86::lift::lift_insn;
use frontend_x86::sys::cpuid::Features;
use iced_x86::{Code, CpuidFeature, Decoder, DecoderOptions, Instruction, Mnemonic};
use std::collections::BTreeMap;

const MODE: u32 = mode::CODE64 | mode::FLAT | mode::SSE | mode::LONG;
const ALL: Features = Features::of(&[Features::X86_64_V3, Features::VAES, Features::VPCLMULQDQ]);

pub struct Random(pub u64);

impl Random {
    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 8
    }

    pub fn below(&mut self, n: usize) -> usize {
        self.bits() as usize % n
    }

    /// A binary32 or binary64 with an exponent at an end, near one, or anywhere.
    fn float(&mut self, width: u32) -> u64 {
        let fraction = if width == 32 { 23 } else { 52 };
        let max = (1 << (width - 1 - fraction)) - 1;
        let exp = match self.below(7) {
            0 => 0,
            1 => max,
            2 => 1,
            3 => max - 1,
            4 => self.bits() & max,
            5 => max / 2 + 28 + self.bits() % 40,
            _ => max / 2 - 2 + self.bits() % 5,
        };
        let bits = match self.below(3) {
            0 => 0,
            1 => 1 << (fraction - 1),
            _ => self.bits() & ((1 << fraction) - 1),
        };
        (self.bits() & 1) << (width - 1) | exp << fraction | bits
    }

    pub fn word(&mut self) -> u64 {
        match self.below(6) {
            0 => self.bits() % 70,
            1 => self.bits() << 40 ^ self.bits() << 20 ^ self.bits(),
            2 => [0, u64::MAX, 0x8000_8000_8000_8000, 0x7f80_7f80_ff00_0080][self.below(4)],
            3 => self.float(32) | self.float(32) << 32,
            _ => self.float(64),
        }
    }

    /// Bytes of an encoding with these registers, or memory at RBX, and this rest.
    fn operands(&mut self, head: &[u8], opcode: u8) -> Vec<u8> {
        let modrm = match self.below(5) {
            0 | 1 => self.bits() as u8 | 0xc0,
            2 => 0x03 | (self.bits() as u8 & 0x38),
            3 => 0x43 | (self.bits() as u8 & 0x38),
            // [rbx + xmm or none]
            _ => 0x04 | (self.bits() as u8 & 0x38),
        };
        let sib: &[u8] = if modrm & 0xc7 == 4 { &[[0x23, 0x0b][self.below(2)]] } else { &[] };
        let disp: &[u8] = if modrm & 0xc0 == 0x40 { &[0x10] } else { &[] };
        let imm = self.bits() as u8;
        [head, &[opcode, modrm], sib, disp, &[imm, 0, 0, 0, 0]].concat()
    }
}

fn ours(i: &Instruction) -> bool {
    use CpuidFeature::*;
    let families = [
        MMX, SSE, SSE2, SSE3, SSSE3, SSE4_1, SSE4_2, AVX, AVX2, FMA, F16C, AES, PCLMULQDQ, VAES,
        VPCLMULQDQ, SHA,
    ];
    // MXCSR's masks change the mode.
    let mxcsr = matches!(i.mnemonic(), Mnemonic::Ldmxcsr | Mnemonic::Vldmxcsr);
    i.code() != Code::INVALID && !mxcsr && i.cpuid_features().iter().all(|f| families.contains(f))
}

/// Some instructions of each encoding.
fn all(random: &mut Random, each: usize) -> BTreeMap<Code, Vec<Instruction>> {
    let mut heads: Vec<(Vec<u8>, bool)> = Vec::new();
    for map in [&[0x0f][..], &[0x0f, 0x38], &[0x0f, 0x3a]] {
        for prefix in [&[][..], &[0x66], &[0xf3], &[0xf2]] {
            heads.push(([prefix, &[0x40], map].concat(), false));
        }
    }
    for map in 1..=3 {
        for pp in 0..4 {
            heads.push((vec![0xc4, 0xe0 | map, pp], true));
        }
    }
    let mut found = BTreeMap::<Code, Vec<Instruction>>::new();
    for (head, opcode) in heads.iter().flat_map(|h| (0..=255).map(move |o| (h, o))) {
        for _ in 0..40 * each {
            let mut bytes = random.operands(&head.0, opcode);
            if head.1 {
                // R, B, W, L, and a first source, most often near zero.
                let v = if random.below(3) == 0 { random.below(16) } else { random.below(3) };
                bytes[1] ^= [0, 0x80, 0x20, 0xa0][random.below(4)];
                bytes[2] |= (random.below(2) << 7 | (v ^ 15) << 3 | random.below(2) << 2) as u8;
            } else {
                let rex = head.0.iter().position(|b| *b == 0x40).unwrap();
                bytes[rex] |= [0, 0, 4, 5, 8, 1][random.below(6)];
            }
            let i = Decoder::new(64, &bytes, DecoderOptions::NONE).decode();
            let forms = found.entry(i.code()).or_default();
            if ours(&i) && forms.len() < 2 * each {
                // As many of registers as of memory.
                let memory = |i: &Instruction| i.memory_size().size() != 0;
                if forms.iter().filter(|f| memory(f) == memory(&i)).count() < each {
                    forms.push(i);
                }
            }
            if !ours(&i) && i.code() == Code::INVALID && bytes[1] != 0 && !head.1 {
                break;
            }
        }
    }
    found.retain(|_, forms| !forms.is_empty());
    found
}

pub fn block<'a>(insns: impl IntoIterator<Item = &'a Instruction>, mode: u32) -> Block {
    let mut b = Builder::new();
    for i in insns {
        lift_insn(&mut b, i, mode, ALL.0);
        if b.ended() {
            return b.finish();
        }
    }
    b.exit();
    b.finish()
}

/// A state for `mode`: RBX mostly in RAM and aligned.
fn state(seed: u64, mode: u32, mxcsr: u32) -> Cpu {
    let mut cpu = start(seed | 1);
    let mut random = Random(seed | 1);
    cpu.mode = mode;
    cpu.features = ALL.0;
    cpu.mxcsr = mxcsr;
    cpu.sys.cr4 |= 1 << 10;
    for w in cpu.v.iter_mut().flatten() {
        *w = random.word();
    }
    for at in (0x3000..0x3200).chain(0x3fc0..0x4040).step_by(8) {
        cpu.mem.ram.write_u64(at, random.word());
    }
    cpu.regs[3] = match random.below(8) {
        0 => 0x3001 + random.bits() % 64,
        1 => 0x3fe0 + random.bits() % 32,
        2 => 0x7fff_ffff_0000,
        _ => 0x3000 + 32 * (random.bits() % 8),
    };
    // Indices and lengths.
    cpu.regs[1] = random.bits() % 16;
    cpu
}

/// MXCSR and what the mode says of it: masked; rounded up; DAZ and FTZ; unmasked.
const MXCSRS: [(u32, u32); 4] = [(0x1f80, 0), (0x5f80, 0), (0xffc0, 0), (0x0000, mode::XM)];

#[test]
fn every_encoding_is_exact() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let all = all(&mut random, 2);
    assert!(all.len() > 1000, "only {} encodings found", all.len());
    for i in all.values().flatten() {
        for (avx, (mxcsr, xm)) in [0, 1, 0, 1].into_iter().zip(MXCSRS).chain([(1, MXCSRS[0])]) {
            let mode = MODE | avx * mode::AVX | xm;
            let (block, seed) = (block([i], mode), random.bits());
            check_from(|| state(seed, mode, mxcsr), &block);
        }
    }
}

/// VZEROUPPER and VZEROALL, in 64-bit mode and others, and what is like them.
#[test]
fn registers_are_zeroed() {
    for (n, from) in (0..=16).flat_map(|n| (0..4).map(move |from| (n, from))) {
        let mut b = Builder::new();
        b.start_insn(3);
        b.vzero(n, from);
        b.exit();
        check_from(|| state(u64::from(n), MODE, 0x1f80), &b.finish());
    }
}

/// RCPPS and its like on operands of all exponents, where the routine answers and where it does
/// not.
#[test]
fn approximations_are_exact() {
    let mut random = Random(3);
    let vops = [VecOp::Rcpps, VecOp::Rcpss, VecOp::Rsqrtps, VecOp::Rsqrtss];
    for n in 0..6000 {
        let vop = vops[n % 4];
        let mut b = Builder::new();
        b.start_insn(4);
        for k in [16, 16 | 128, 32] {
            let [d, a, s] = [(); 3].map(|()| Reg(random.below(16) as u8));
            b.v(vop, k, d, a, s, a, 0);
        }
        b.exit();
        let (seed, mxcsr) = (random.bits(), [0x1fa0, 0x1fa0, 0x9fe0, 0x3fa0][n / 4 % 4]);
        let make = || {
            let (mut cpu, mut random) = (state(seed, MODE, mxcsr), Random(seed | 1));
            for w in cpu.v.iter_mut().flatten() {
                // Most often none of the eight is special.
                let sign = if random.below(99) == 0 { 0x8000_0000_8000_0000 } else { 0 };
                let exp = [1, 2, 126, 127, 128, 250, 251, 252, 253, 254][random.below(10)];
                let exp = if exp > 251 && random.below(8) != 0 { 77 } else { exp };
                let fraction = random.bits() << 24 ^ random.bits();
                *w = sign | (fraction & 0x7f_ffff_007f_ffff) + (exp << 55 | exp << 23);
            }
            cpu
        };
        check_from(make, &b.finish());
    }
}

/// Without AVX2 all is called.
#[test]
fn hosts_without_vectors_do_the_same() {
    let mut random = Random(99);
    let all: Vec<Instruction> = all(&mut random, 1).into_values().flatten().collect();
    for insns in all.chunks(4) {
        let (mode, seed) = (MODE | mode::AVX, random.bits());
        let block = block(insns, mode);
        let want = reference(state(seed, mode, 0x1f80), &block);
        let x = X64::new(1 << 20).unwrap().without_vectors();
        let got = native_on(x, state(seed, mode, 0x1f80), &block);
        same(&block, &got, &want, "host code");
    }
}

#[test]
fn sequences_are_exact() {
    let mut random = Random(77);
    let all: Vec<Instruction> = all(&mut random, 2).into_values().flatten().collect();
    for n in 0..4000 {
        let (mxcsr, xm) = MXCSRS[if n % 8 == 0 { 3 } else { n % 3 }];
        let mode = MODE | mode::AVX | xm;
        let insns: Vec<&Instruction> = (0..8).map(|_| &all[random.below(all.len())]).collect();
        let block = block(insns, mode);
        let seed = random.bits();
        check_from(|| state(seed, mode, mxcsr), &block);
    }
}

/// Prints the encodings that do not run as host code alone, and checks that they are the known
/// ones: MMX; helpers; masks of strings.
#[test]
fn what_is_called_is_known() {
    const CALLED: &str = "Emms Maskmovdqu Pcmpestrm Pcmpestrm64 Pcmpistrm Vgatherdpd Vgatherdps Vgatherqpd Vgatherqps Vmaskmovdqu Vmaskmovpd Vmaskmovps \
         Vpcmpestrm Vpcmpestrm64 Vpcmpistrm Vpgatherdd Vpgatherdq Vpgatherqd Vpgatherqq \
         Vpmaskmovd Vpmaskmovq";
    if !std::arch::is_x86_feature_detected!("avx2") {
        return;
    }
    let mut called = BTreeMap::<Mnemonic, usize>::new();
    for i in all(&mut Random(5), 2).values().flatten() {
        let n = called_in(&block([i], MODE | mode::AVX));
        if n != 0 && !i.op_kinds().enumerate().any(|(n, _)| i.op_register(n as u32).is_mm()) {
            *called.entry(i.mnemonic()).or_default() += 1;
        }
    }
    let names: Vec<String> = called.keys().map(|m| format!("{m:?}")).collect();
    println!("called: {}", names.join(" "));
    assert_eq!(names.join(" "), CALLED);
}

/// How many micro-ops of `block` are called.
pub fn called_in(block: &Block) -> u64 {
    let mut x = X64::new(1 << 20).unwrap();
    let insns: Vec<u32> = (0..block.insns.len() as u32).collect();
    let place =
        Place { second: None, first: 1, last: 1, insns: &insns, off: 0, mode: MODE | mode::AVX };
    x.translate(&[Part { block, place }]).unwrap();
    x.stats().called
}
