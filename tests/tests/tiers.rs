//! The fuzz target "tiers" on programs from fixed seeds: random bytes, and random instructions of
//! all kinds.

#[path = "../../fuzz/src/machine.rs"]
mod machine;
#[path = "../../fuzz/src/tiers.rs"]
mod tiers;

use ::machine::CpuModel;
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use oracle::Bits;
use ring3::diff::generate::Generator;
use ring3::diff::random::Rng;
use tiers::{PIECE, PIECES};

/// Bytes before the code.
const HEAD: usize = 24;

fn head(rng: &mut Rng, kind: u8) -> Vec<u8> {
    let mut head: Vec<u8> = (0..HEAD).map(|_| rng.bits() as u8).collect();
    head[0] = kind;
    head
}

#[test]
fn random_bytes() {
    let (mut rng, mut blocks) = (Rng::new(1), 0);
    for n in 0..600 {
        let mut data = head(&mut rng, n as u8);
        data.extend((0..PIECE * PIECES).map(|_| rng.bits() as u8));
        blocks += tiers::tiers(&data);
    }
    assert!(blocks > 10_000, "{blocks}");
}

/// What the target has found.
#[test]
fn found() {
    // Behind a block that an instruction across a border of pages ends, a store writes another one:
    // the block is as it was, but lifting it anew gives more.
    let grown = [
        2, 152, 71, 2, 73, 5, 86, 146, 253, 222, 222, 222, 222, 33, 34, 0, 0, 222, 148, 222, 0, 0,
        0, 29, 0, 0, 0, 29, 0, 0, 0, 0, 0,
    ];
    tiers::tiers(&grown);
}

#[test]
fn random_instructions() {
    let (mut rng, mut blocks) = (Rng::new(2), 0);
    let features = CpuModel::default().features.0;
    let mut samples = [Bits::B32, Bits::B64].map(|bits| Generator::new(3, bits, features, None));
    for n in 0..600u64 {
        // 32 or 64 bits, as kernel or as user.
        let bits = n as usize % 2;
        let mut data = head(&mut rng, (1 + bits + 3 * (n as usize / 2 % 2)) as u8);
        for _ in 0..PIECES {
            let mut piece = samples[bits].sample().code;
            // Some pieces are loops; after the last one comes INT3.
            if rng.one_in(3) {
                let back = (piece.len() as u64 + 2).min(128);
                piece.extend([0x70 | rng.below(16) as u8, (rng.below(back) as u8).wrapping_neg()]);
            }
            piece.resize(PIECE, 0x90);
            data.extend(piece);
        }
        blocks += tiers::tiers(&data);
    }
    assert!(blocks > 10_000, "{blocks}");
}

/// A loop over what pointers lead to: accesses at registers that it moves by constants, mostly.
fn a_loop(rng: &mut Rng) -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(64)?;
    let pointers = [rbx, rbp, rsi, rdi];
    let index = rng.pick(&[rax, rdx]);
    let (mut head, mut out) = (a.create_label(), a.create_label());
    a.mov(ecx, rng.below(400) as i32 + 1)?;
    a.mov(index, rng.below(64))?;
    let odd = rng.pick(&pointers);
    a.add(odd, rng.pick(&[0, 0, 1, 8, 24]))?;
    let stride = rng.pick(&[1, 2, 4, 8, 16, 16, 24, 32, 64, 96, 256]);
    let stride = if rng.one_in(4) { -stride } else { stride };
    let moved = rng.pick(&pointers);
    if rng.one_in(6) {
        a.jmp(out)?;
    }
    a.set_label(&mut head)?;
    for _ in 0..1 + rng.below(6) {
        let disp = rng.pick(&[0, 0, 1, 8, 16, -16, 120, -8]);
        let p = match rng.below(4) {
            0 => rng.pick(&pointers) + index + disp,
            1 => rng.pick(&pointers) + index * 8 + disp,
            _ => rng.pick(&pointers) + disp,
        };
        match rng.below(22) {
            0 => a.mov(r8, qword_ptr(p))?,
            1 => a.mov(qword_ptr(p), r8)?,
            2 => a.add(r9d, dword_ptr(p))?,
            3 => a.add(dword_ptr(p), r9d)?,
            4 => a.movzx(r10d, byte_ptr(p))?,
            5 => a.mov(byte_ptr(p), r10b)?,
            6 => a.movdqu(xmm0, xmmword_ptr(p))?,
            7 => a.movdqu(xmmword_ptr(p), xmm1)?,
            8 => a.movdqa(xmm1, xmmword_ptr(p))?,
            9 => a.movaps(xmmword_ptr(p), xmm0)?,
            10 => a.paddd(xmm1, xmmword_ptr(p))?,
            11 => a.vpxor(ymm2, ymm1, ymmword_ptr(p))?,
            12 => a.vmovdqa(ymmword_ptr(p), ymm2)?,
            13 => a.add(rng.pick(&pointers), stride)?,
            14 => a.lea(index, qword_ptr(index - 1))?,
            15 => a.cmp(dword_ptr(p), r9d)?,
            16 => {
                a.test(r8d, 0x40)?;
                a.jnz(out)?;
            }
            17 => a.cmp(byte_ptr(p), 0)?,
            18 => a.adc(r9d, 1)?,
            19 => a.push(r8)?,
            20 => a.mov(r11, qword_ptr(0x3_0100))?,
            _ => a.cvtsi2sd(xmm0, dword_ptr(p))?,
        }
    }
    a.add(moved, stride)?;
    if rng.one_in(3) {
        a.add(index, 1 + rng.below(3) as i32)?;
    }
    if rng.one_in(6) {
        a.set_label(&mut out)?;
        out = a.create_label();
    }
    match rng.below(3) {
        0 => a.dec(ecx)?,
        1 => a.sub(rcx, 1)?,
        _ => {
            a.add(ecx, -1)?;
            a.cmp(ecx, 0)?;
        }
    }
    a.jne(head)?;
    a.set_label(&mut out)?;
    a.nop()?;
    a.assemble(0)
}

/// Loops, which host code runs in strips where it can.
#[test]
fn random_loops() {
    let (mut rng, mut blocks) = (Rng::new(4), 0);
    for n in 0..1500u64 {
        let mut data = head(&mut rng, if n & 1 == 0 { 2 } else { 5 });
        for _ in 0..PIECES {
            let mut piece = a_loop(&mut rng).unwrap();
            piece.resize(PIECE, 0x90);
            data.extend(piece);
        }
        blocks += tiers::tiers(&data);
    }
    assert!(blocks > 10_000, "{blocks}");
}
