//! Every x87 encoding, lifted: on registers and memory, with values and tags of all kinds, masked
//! and unmasked, alone and in sequences.

use crate::blocks::check_from;
use crate::machine::start;
use crate::vectors::{Random, block, called_in};
use emu_core::cpu::{Cpu, Seg, St, X87, mode};
use iced_x86::{Code, Decoder, DecoderOptions, Instruction, Mnemonic};
use std::collections::BTreeSet;

const LONG: u32 = mode::CODE64 | mode::FLAT | mode::SSE | mode::LONG;
const FLAT32: u32 = mode::CODE32 | mode::STACK32 | mode::FLAT | mode::SSE;

fn decode(bytes: &[u8], m: u32) -> Instruction {
    let bits = if m & mode::CODE64 != 0 { 64 } else { 32 };
    Decoder::new(bits, bytes, DecoderOptions::NONE).decode()
}

/// All register forms, and each memory form with a few operands.
fn all(m: u32) -> Vec<Instruction> {
    let mut found = vec![decode(&[0x9b], m)];
    for op in 0xd8..=0xdf {
        for modrm in 0xc0..=0xff {
            found.push(decode(&[op, modrm], m));
        }
        for reg in (0..0x40).step_by(8) {
            // [rbx], [rbx + rcx * 8 + 16], [rip + d], gs:[rbx]
            found.push(decode(&[op, reg | 3], m));
            found.push(decode(&[op, reg | 0x44, 0xcb, 0x10], m));
            found.push(decode(&[op, reg | 5, 0x80, 0x30, 0, 0], m));
            found.push(decode(&[0x65, op, reg | 3], m));
        }
    }
    found.retain(|i| i.code() != Code::INVALID);
    found
}

fn state(seed: u64, m: u32) -> Cpu {
    let mut cpu = start(seed | 1);
    let mut random = Random(seed | 1);
    cpu.mode = m;
    cpu.sys.cr0 |= 1 << 5;
    for (n, s) in cpu.segs.iter_mut().enumerate() {
        s.selector = 0x10 + 8 * n as u16;
    }
    let masks = if random.below(6) == 0 { random.bits() as u16 & 0x3f } else { 0x3f };
    let cw = (random.bits() as u16 & 0x1f) << 8 | 0x40 | masks;
    let sw = random.bits() as u16 & if random.below(2) == 0 { 0x7f7f } else { 0x7f00 };
    let pending = sw & !cw & 0x3f != 0;
    let full = match random.below(4) {
        0 => 0xff,
        1 => 0,
        _ => random.bits() as u8,
    };
    let (fop, fip, fdp) = (random.bits() as u16 & 0x7ff, random.bits(), random.bits());
    let sw = sw | if pending { 0x8080 } else { 0 };
    cpu.x87 = X87 { cw, sw, full, fop, fip, fdp, ..X87::default() };
    for st in &mut cpu.x87.st {
        let exp = [0, 1, 0x7ffe, 0x7fff, 0x3fff, 0x4000, 0x401e, random.bits() & 0x7fff];
        let exp = exp[random.below(8)] as u16;
        let fraction = match random.below(3) {
            0 => 0,
            1 => 1 << 62,
            _ => random.bits() << 20 ^ random.bits(),
        };
        // At times the integer bit is wrong.
        let integer = u64::from((exp != 0) ^ (random.below(10) == 0)) << 63;
        *st =
            St { mant: fraction & (1 << 63) - 1 | integer, se: exp | (random.bits() as u16) << 15 };
    }
    for at in (0x3000..0x3200).chain(0x3fc0..0x4040).step_by(8) {
        cpu.mem.ram.write_u64(at, random.word());
    }
    cpu.regs[3] = match random.below(8) {
        0 => 0x3001 + random.bits() % 64,
        1 => 0x3fe0 + random.bits() % 32,
        2 => 0x7fff_ffff_0000,
        _ => 0x3000 + 8 * (random.bits() % 16),
    };
    cpu.regs[1] = random.bits() % 8;
    cpu.set_rip(random.bits() % 64);
    for s in Seg::ALL {
        let base = if matches!(s, Seg::Fs | Seg::Gs) { 8 * (random.bits() % 16) } else { 0 };
        cpu.set_reg(s.base(), base);
    }
    cpu
}

#[test]
fn every_x87_encoding_is_exact() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for m in [LONG, FLAT32] {
        for i in &all(m) {
            let block = block([i], m);
            for _ in 0..8 {
                let seed = random.bits();
                check_from(|| state(seed, m), &block);
            }
        }
    }
}

#[test]
fn x87_sequences_are_exact() {
    let mut random = Random(78);
    for m in [LONG, FLAT32] {
        let mut all = all(m);
        // What changes the address, flags and vector registers in between.
        for bytes in [
            &[0x83, 0xc3, 0x08][..],
            &[0x89, 0xd9],
            &[0x39, 0xd8],
            &[0x85, 0xc0],
            &[0x0f, 0x58, 0xc1],
            &[0x0f, 0x10, 0x03],
            &[0x8b, 0x03],
            &[0x89, 0x03],
        ] {
            all.extend([decode(bytes, m); 30]);
        }
        for _ in 0..3000 {
            let insns: Vec<&Instruction> = (0..8).map(|_| &all[random.below(all.len())]).collect();
            let block = block(insns, m);
            let seed = random.bits();
            check_from(|| state(seed, m), &block);
        }
    }
}

/// Prints the instructions that do not run as host code alone, and checks that they are the known
/// ones: transcendental functions, which CPUs compute differently, packed decimals, and what
/// initialises, loads or stores the environment.
#[test]
fn which_x87_instructions_are_called_is_known() {
    const CALLED: &str = "F2xm1 Fbld Fbstp Fcos Fldenv Fninit Fnsave Fnstenv Fpatan Fptan Frstor \
         Fsin Fsincos Fyl2x Fyl2xp1";
    let called = |i: &&Instruction| {
        let undocumented = matches!(i.mnemonic(), Mnemonic::Fstpnce);
        let base = i.segment_prefix() != iced_x86::Register::None;
        !undocumented && !base && called_in(&block([*i], LONG)) != 0
    };
    let called: BTreeSet<Mnemonic> =
        all(LONG).iter().filter(called).map(|i| i.mnemonic()).collect();
    let names: Vec<String> = called.iter().map(|m| format!("{m:?}")).collect();
    println!("called: {}", names.join(" "));
    assert_eq!(names.join(" "), CALLED);
}
