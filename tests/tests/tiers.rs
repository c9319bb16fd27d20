//! The fuzz target "tiers" on programs from fixed seeds: random bytes, and random instructions of
//! all kinds.

#[path = "../../fuzz/src/machine.rs"]
mod machine;
#[path = "../../fuzz/src/tiers.rs"]
mod tiers;

use ::machine::CpuModel;
use emu_core::compare::{pages, same};
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use oracle::Bits;
use ring3::diff::generate::Generator;
use ring3::diff::random::Rng;
use tiers::{How, PIECE, PIECES};

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

/// Instructions that end with an immediate, without it, and its bytes.
const IMMEDIATES: [(&[u8], i32); 16] = [
    (&[0xb8], 4),             // mov eax, imm32
    (&[0x48, 0xb8], 8),       // mov rax, imm64
    (&[0x66, 0xb8], 2),       // mov ax, imm16
    (&[0xb0], 1),             // mov al, imm8
    (&[0x48, 0xc7, 0xc0], 4), // mov rax, imm32
    (&[0xc7, 0x03], 4),       // mov dword [rbx], imm32
    (&[0x81, 0xc2], 4),       // add edx, imm32
    (&[0x48, 0x81, 0xc2], 4), // add rdx, imm32
    (&[0x83, 0xd2], 1),       // adc edx, imm8
    (&[0x48, 0x83, 0xf2], 1), // xor rdx, imm8
    (&[0x66, 0x81, 0xea], 2), // sub dx, imm16
    (&[0x41, 0x81, 0xf9], 4), // cmp r9d, imm32
    (&[0x81, 0x43, 0x08], 4), // add dword [rbx + 8], imm32
    (&[0xf7, 0xc2], 4),       // test edx, imm32
    (&[0x69, 0xd2], 4),       // imul edx, edx, imm32
    (&[0xc1, 0xc2], 1),       // rol edx, imm8
];

/// A loop that overwrites immediates of its own instructions, mostly as a whole.
fn overwriting(rng: &mut Rng) -> Vec<u8> {
    let mut code = vec![0xb9, 8 + rng.below(40) as u8, 0, 0, 0];
    let head = code.len();
    let mut places = Vec::new();
    let store = |code: &mut Vec<u8>, rng: &mut Rng, (at, len): (i32, i32)| {
        let at = if rng.one_in(8) { at + rng.below(3) as i32 - 1 } else { at };
        let len = if rng.one_in(8) { 1 << rng.below(4) } else { len };
        // mov [at], r9; now and then inc, or add with r9.
        let op: &[u8] = match (rng.below(4), len) {
            (0, 1) => &[0xfe, 0x05],
            (0, 2) => &[0x66, 0xff, 0x05],
            (0, 4) => &[0xff, 0x05],
            (0, _) => &[0x48, 0xff, 0x05],
            (1, 4) => &[0x44, 0x01, 0x0d],
            (_, 1) => &[0x44, 0x88, 0x0d],
            (_, 2) => &[0x66, 0x44, 0x89, 0x0d],
            (_, 4) => &[0x44, 0x89, 0x0d],
            _ => &[0x4c, 0x89, 0x0d],
        };
        code.extend(op);
        let next = code.len() as i32 + 4;
        code.extend((at - next).to_le_bytes());
    };
    for n in 0..2 + rng.below(4) {
        let (insn, len) = rng.pick(&IMMEDIATES);
        code.extend(insn);
        places.push((code.len() as i32, len));
        code.extend((0..len).map(|_| rng.bits() as u8));
        if rng.one_in(2) || n == 1 {
            let place = rng.pick(&places);
            store(&mut code, rng, place);
        }
        if rng.one_in(4) {
            // jmp over nothing: ends the block.
            code.extend([0xeb, 0]);
        }
    }
    // imul r9d, r9d, 1103515245; dec ecx; jnz head
    code.extend([0x45, 0x69, 0xc9, 0x6d, 0x4e, 0xc6, 0x41, 0xff, 0xc9]);
    code.extend([0x75, (head as i32 - code.len() as i32 - 2) as u8]);
    code
}

/// Immediates that are overwritten again and again, which become loads.
#[test]
fn random_patches() {
    let (mut rng, mut blocks) = (Rng::new(5), 0);
    for n in 0..1500u64 {
        let mut data = head(&mut rng, if n & 1 == 0 { 2 } else { 5 });
        for _ in 0..PIECES {
            let mut piece = overwriting(&mut rng);
            assert!(piece.len() <= PIECE);
            piece.resize(PIECE, 0x90);
            data.extend(piece);
        }
        blocks += tiers::tiers(&data);
    }
    assert!(blocks > 10_000, "{blocks}");
}

/// The same against a CPU that keeps no block.
#[test]
fn patches_are_as_if_nothing_were_kept() {
    let (mut rng, mut halted) = (Rng::new(6), 0);
    for n in 0..3000 {
        let mut code = overwriting(&mut rng);
        code.push(0xf4);
        let (plain, ended) = tiers::run(&code, How::Plainly);
        if !ended {
            continue;
        }
        halted += 1;
        for how in [How::Interpreted, How::Translated(1 + n % 3)] {
            let (seen, ended) = tiers::run(&code, how);
            assert!(ended && same(&plain.cpu, &seen.cpu), "{n}, {how:?}: {code:02x?}");
            let differ = pages(&plain.cpu.mem.ram, &seen.cpu.mem.ram, 1);
            assert!(differ.is_empty(), "{n}, {how:?}: {differ:?}");
        }
    }
    assert!(halted > 1000, "{halted}");
}

/// What is run is what has been written, whatever immediate it is and however it is written: in the
/// loop's own block, or in one that it calls.
#[test]
fn patches_are_exact() {
    type Meaning = fn(u64, u64) -> u64;
    #[rustfmt::skip]
    let cases: [(&[u8], usize, Meaning); 9] = [
        (&[0xb8], 4, |_, v| v & 0xffff_ffff),
        (&[0x48, 0xb8], 8, |_, v| v),
        (&[0x66, 0xb8], 2, |a, v| a & !0xffff | v & 0xffff),
        (&[0x48, 0xc7, 0xc0], 4, |_, v| v as i32 as u64),
        (&[0x05], 4, |a, v| (a + v) & 0xffff_ffff),
        (&[0x48, 0x05], 4, |a, v| a.wrapping_add(v as i32 as u64)),
        (&[0x48, 0x83, 0xc0], 1, |a, v| a.wrapping_add(v as i8 as u64)),
        (&[0x83, 0xf0], 1, |a, v| (a ^ v as i8 as u64) & 0xffff_ffff),
        (&[0x69, 0xc0], 4, |a, v| (a * (v & 0xffff_ffff)) & 0xffff_ffff),
    ];
    const TURNS: u64 = 100;
    for (insn, len, meaning) in cases {
        for called in [false, true] {
            // The patched instruction is at 60h, in the loop or (then a RET follows) after it.
            let (mut code, at) = (Vec::new(), 0x60 + insn.len() as i32);
            let store = |code: &mut Vec<u8>| {
                let op: &[u8] = match len {
                    1 => &[0x40, 0x88, 0x35],
                    2 => &[0x66, 0x89, 0x35],
                    4 => &[0x89, 0x35],
                    _ => &[0x48, 0x89, 0x35],
                };
                code.extend(op);
                code.extend((at - code.len() as i32 - 4).to_le_bytes());
            };
            let patched = [insn, &[1; 8][..len]].concat();
            let turn = |code: &mut Vec<u8>| {
                // add rdx, rax; imul rsi, rsi, 1103515245; dec ecx; jnz 40h
                code.extend([0x48, 0x01, 0xc2, 0x48, 0x69, 0xf6, 0x6d, 0x4e, 0xc6, 0x41]);
                code.extend([0xff, 0xc9, 0x75]);
                code.push((0x40 - code.len() as i32 - 1) as u8);
                code.push(0xf4);
            };
            // mov ecx, TURNS; mov esi, 9abcdef1h; xor eax, eax; xor edx, edx
            code.extend([0xb9, TURNS as u8, 0, 0, 0, 0xbe, 0xf1, 0xde, 0xbc, 0x9a]);
            code.extend([0x31, 0xc0, 0x31, 0xd2]);
            code.resize(0x40, 0x90);
            store(&mut code);
            if called {
                code.push(0xe8);
                code.extend((0x60 - code.len() as i32 - 4).to_le_bytes());
                turn(&mut code);
                assert!(code.len() <= 0x60);
                code.resize(0x60, 0x90);
                code.extend(&patched);
                code.push(0xc3);
            } else {
                code.resize(0x60, 0x90);
                code.extend(&patched);
                turn(&mut code);
            }
            let (mut a, mut sum, mut v) = (0, 0u64, 0x9abc_def1_u64);
            for _ in 0..TURNS {
                a = meaning(a, v);
                sum = sum.wrapping_add(a);
                v = v.wrapping_mul(1_103_515_245);
            }
            for how in [How::Interpreted, How::Translated(1), How::Translated(3)] {
                let (seen, halted) = tiers::run(&code, how);
                let name = format!("{insn:02x?}, called: {called}, {how:?}");
                assert!(halted, "{name}");
                assert_eq!((seen.cpu.regs[0], seen.cpu.regs[2]), (a, sum), "{name}");
                // IMUL's immediate is no operand that is loaded.
                let few = insn[0] == 0x69 || seen.cache.stats.invalidated < 10;
                assert!(few, "{name}: {:?}", seen.cache.stats);
            }
        }
    }
}
