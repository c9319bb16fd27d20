//! The VEX encodings, BMI, ADX, MOVBE, AES, PCLMULQDQ and SHA judged by the host: every encoding
//! that it can execute is lifted and run beside the host's own instruction, registers, flags, MXCSR
//! and memory compared; and what each is lifted to is held against iced's instruction info.
//!
//! Flags that the manual leaves undefined are in [`undefined`]. All exceptions stay masked, or the
//! host would trap. RCPPS and RSQRTPS differ between CPUs and are judged in `emu-core`.
#![cfg(target_arch = "x86_64")]
#![allow(unsafe_code)]

use emu_core::build::Builder;
use emu_core::clock::Clock;
use emu_core::cpu::{Cpu, Reg, mode};
use emu_core::fault::{Fault, vector};
use emu_core::flags::{AF, CF, Flags, OF, OSZAPC, PF, SF, ZF};
use emu_core::mem::PhysMem;
use emu_core::uop::{Block, Effect, Op};
use emu_core::verify::verify_with;
use emu_core::width::Width::{W32, W64};
use frontend_x86::insn;
use frontend_x86::lift::lift_insn;
use frontend_x86::sys::cpuid::Features;
use iced_x86::{
    Code, CpuidFeature, Decoder, DecoderOptions, Instruction, InstructionInfoFactory, Mnemonic,
    OpAccess, OpKind, Register,
};
use std::arch::asm;
use std::collections::{BTreeSet, HashMap, HashSet};

const MODE: u32 = mode::CODE64 | mode::FLAT | mode::SSE | mode::LONG | mode::AVX;
/// Inputs for each encoding, shared among the ways it is written.
const CASES: usize = 20_000;
const ALL: Features =
    Features::of(&[Features::X86_64_V3, Features::VAES, Features::VPCLMULQDQ, Features::SMAP]);

fn ours(i: &Instruction) -> bool {
    use CpuidFeature::*;
    let families = [
        AVX, AVX2, FMA, F16C, AES, PCLMULQDQ, VAES, VPCLMULQDQ, SHA, BMI1, BMI2, LZCNT, ADX, MOVBE,
    ];
    i.code() != Code::INVALID && i.cpuid_features().iter().all(|f| families.contains(f))
}

/// Every instruction of ours by its bytes: of each encoding and kind of operand up to three, with
/// the destination different from and equal to the sources. Memory is at RBX, indices in XMM4.
fn all() -> Vec<(Vec<u8>, Instruction)> {
    let mut heads: Vec<Vec<u8>> = Vec::new();
    for map in [&[0x0f][..], &[0x0f, 0x38], &[0x0f, 0x3a]] {
        for prefix in [&[][..], &[0x66], &[0xf3], &[0xf2], &[0x66, 0xf3], &[0x66, 0xf2]] {
            for rex in [0x40, 0x48] {
                heads.push([prefix, &[rex], map].concat());
            }
        }
    }
    for map in 1..=3 {
        for rest in 0..16 {
            for vvvv in [5, 0] {
                heads.push(vec![0xc4, 0xe0 | map, (rest & 8) << 4 | (vvvv ^ 15) << 3 | rest & 7]);
            }
        }
    }
    let (mut found, mut known) = (Vec::new(), HashMap::<_, usize>::new());
    for (head, opcode) in heads.iter().flat_map(|h| (0..=255).map(move |o| (h, o))) {
        if head.ends_with(&[0x0f]) && matches!(opcode, 0x38 | 0x3a) {
            continue; // the other maps
        }
        for modrm in [1, 2, 5, 0, 3, 4, 6].iter().flat_map(|r| [0xc2 | r << 3, 4 | r << 3]) {
            let sib: &[u8] = if modrm & 0xc0 == 0 { &[0xa3] } else { &[] };
            let bytes = [head.as_slice(), &[opcode, modrm], sib, &[0x61, 0, 0, 0]].concat();
            let i = Decoder::new(64, &bytes, DecoderOptions::NONE).decode();
            let n = known.entry((i.code(), modrm & 0xc0)).or_default();
            if ours(&i) && *n < 3 {
                *n += 1;
                found.push((bytes[..i.len()].to_vec(), i));
            }
        }
    }
    let codes: HashSet<Code> = found.iter().map(|(_, i)| i.code()).collect();
    assert!(codes.len() > 700, "only {} encodings found", codes.len());
    found
}

fn lift(i: &Instruction, mode: u32, features: Features) -> Block {
    let mut b = Builder::new();
    lift_insn(&mut b, i, mode, features.0);
    if !b.ended() {
        b.leave(W64);
    }
    b.finish()
}

// ---- against iced -------------------------------------------------------------------------------

/// What a block writes: general registers, vector registers, whether memory; and the flags.
type Writes = (BTreeSet<u8>, BTreeSet<u8>, bool);

fn said_by_uops(block: &Block, i: &Instruction) -> Writes {
    let mut w = Writes::default();
    for u in &block.uops {
        match u.op {
            Op::V | Op::Vld | Op::Vset => drop(w.1.insert(u.d.0)),
            Op::Vzero => w.1.extend(0..u.k),
            Op::Helper => match u.helper.unwrap().name {
                "vmasked_load" => drop(w.1.insert(u.imm as u8)),
                "vgather" => w.1.extend([u.imm as u8, (u.imm >> 8) as u8]),
                "vmasked_store" | "maskmov" => w.2 = true,
                name => assert!(name == "ldmxcsr", "{name} in {:?}", i.code()),
            },
            Op::St | Op::Vst => w.2 = true,
            _ if u.op.row().effect == Effect::End || u.op == Op::Chkw => {}
            _ => drop(w.0.insert(u.d.0)),
        }
    }
    w.0.retain(|r| *r < 16);
    w.1.retain(|r| *r < 16);
    w
}

fn said_by_iced(factory: &mut InstructionInfoFactory, i: &Instruction) -> Writes {
    let mut w = Writes::default();
    let info = factory.info(i);
    let writes = |a: OpAccess| {
        use OpAccess::*;
        matches!(a, Write | CondWrite | ReadWrite | ReadCondWrite)
    };
    for r in info.used_registers().iter().filter(|r| writes(r.access())) {
        let n = r.register().number() as u8;
        match r.register() {
            r if r.is_gpr() => drop(w.0.insert(n)),
            r if r.is_vector_register() => drop(w.1.insert(n)),
            _ => {}
        }
    }
    w.2 = info.used_memory().iter().any(|m| writes(m.access()));
    w
}

#[test]
fn rows_write_what_iced_says() {
    let mut factory = InstructionInfoFactory::new();
    for (bytes, i) in all() {
        let at = format!("{:?} {bytes:x?}", i.code());
        let block = lift(&i, MODE, ALL);
        assert!(block.uops.iter().all(|u| u.op != Op::Raise), "{at} is not lifted");
        assert_eq!(verify_with(&block, &[]), Ok(()), "{at}\n{:x?}", block.uops);
        let (ours, iced) = (said_by_uops(&block, &i), said_by_iced(&mut factory, &i));
        assert_eq!(ours, iced, "{at}: GPRs, vectors, memory\n{:x?}", block.uops);
        let flags = block.uops.iter().fold(0, |f, u| f | u.fl);
        let said = i.rflags_modified();
        let said = Flags::from_bits(
            [(1, OF), (2, SF), (4, ZF), (8, AF), (16, CF), (32, PF)]
                .iter()
                .fold(0, |f, (bit, flag)| f | u32::from(said & bit != 0) * flag),
        );
        // AMD CPUs leave OF alone, which the manual calls undefined.
        let counts = matches!(i.mnemonic(), Mnemonic::Tzcnt | Mnemonic::Lzcnt);
        let said = said.bits() & if counts { !OF } else { !0 };
        assert_eq!(flags, said, "{at}: flags");
        let width = block.uops.iter().find(|u| matches!(u.op, Op::Vld | Op::Vst));
        if let Some(u) = width {
            assert_eq!(usize::from(u.k & 127), i.memory_size().size(), "{at}: bytes");
        }
    }
}

/// #UD without the feature and in real mode; #UD and #NM as the state of AVX or SSE demands (SDM
/// Vol. 2, 2.4–2.5).
#[test]
fn state_bits_fault() {
    for (bytes, i) in all() {
        let raised = |mode, features| match lift(&i, mode, features).uops.as_slice() {
            [u] if u.op == Op::Raise => Some(u.imm as u8),
            _ => None,
        };
        let vex = bytes[0] == 0xc4;
        let vector_code = i.cpuid_features().iter().any(|f| {
            use CpuidFeature::*;
            !matches!(f, BMI1 | BMI2 | LZCNT | ADX | MOVBE)
        });
        let (avx, at) = (vex && vector_code, format!("{:?}", i.code()));
        let want = |on: bool, v| on.then_some(v);
        assert_eq!(raised(MODE & !mode::AVX, ALL), want(avx, vector::UD), "{at} AVX");
        let real = (MODE | mode::REAL) & !mode::CODE64;
        assert_eq!(raised(real, ALL), want(vex, vector::UD), "{at} real mode");
        assert_eq!(raised(MODE | mode::TS, ALL), want(vector_code, vector::NM), "{at} TS");
        let legacy = vector_code && !vex;
        assert_eq!(raised(MODE | mode::EM, ALL), want(legacy, vector::UD), "{at} EM");
        let scans = matches!(i.mnemonic(), Mnemonic::Tzcnt | Mnemonic::Lzcnt);
        let v2 = raised(MODE, Features::X86_64_V2);
        assert_eq!(v2, want(!scans, vector::UD), "{at} on x86-64-v2");
    }
}

// ---- against the host ---------------------------------------------------------------------------

/// Registers around an instruction. RSP and RDI are never its operands.
#[derive(Clone, Debug, PartialEq)]
#[repr(C)]
struct State {
    v: [[u64; 4]; 16],
    gpr: [u64; 8],
    rflags: u64,
    mxcsr: u64,
    code: u64,
}

/// A page of memory beside the instruction's; RBX points to its middle.
#[repr(C, align(4096))]
struct Page([u8; 4096]);
const MIDDLE: usize = 2048;
/// Where the guest has it.
const GUEST: u64 = 0x5000;
/// Bytes of it that are compared.
const SEEN: std::ops::Range<usize> = MIDDLE - 64..MIDDLE + 64;

fn run_on_host(s: &mut State) {
    // SAFETY: the code called is one instruction of `all` and a RET. It accesses memory only around
    // RBX, which is the middle of a `Page`, with indices that stay in it; it writes no register but
    // those saved or declared here, RFLAGS, and MXCSR, which is restored; every exception is
    // masked.
    unsafe {
        asm!(
            "push rbx", "push rbp", "sub rsp, 16", "stmxcsr [rsp]",
            "vmovdqu ymm0, [rdi + 0]", "vmovdqu ymm1, [rdi + 32]",
            "vmovdqu ymm2, [rdi + 64]", "vmovdqu ymm3, [rdi + 96]",
            "vmovdqu ymm4, [rdi + 128]", "vmovdqu ymm5, [rdi + 160]",
            "vmovdqu ymm6, [rdi + 192]", "vmovdqu ymm7, [rdi + 224]",
            "vmovdqu ymm8, [rdi + 256]", "vmovdqu ymm9, [rdi + 288]",
            "vmovdqu ymm10, [rdi + 320]", "vmovdqu ymm11, [rdi + 352]",
            "vmovdqu ymm12, [rdi + 384]", "vmovdqu ymm13, [rdi + 416]",
            "vmovdqu ymm14, [rdi + 448]", "vmovdqu ymm15, [rdi + 480]",
            "mov rax, [rdi + 512]", "mov rcx, [rdi + 520]", "mov rdx, [rdi + 528]",
            "mov rbx, [rdi + 536]", "mov rbp, [rdi + 552]", "mov rsi, [rdi + 560]",
            "ldmxcsr [rdi + 584]", "push [rdi + 576]", "popfq",
            "call [rdi + 592]",
            "pushfq", "pop [rdi + 576]", "stmxcsr [rdi + 584]",
            "mov [rdi + 512], rax", "mov [rdi + 520], rcx", "mov [rdi + 528], rdx",
            "mov [rdi + 536], rbx", "mov [rdi + 552], rbp", "mov [rdi + 560], rsi",
            "vmovdqu [rdi + 0], ymm0", "vmovdqu [rdi + 32], ymm1",
            "vmovdqu [rdi + 64], ymm2", "vmovdqu [rdi + 96], ymm3",
            "vmovdqu [rdi + 128], ymm4", "vmovdqu [rdi + 160], ymm5",
            "vmovdqu [rdi + 192], ymm6", "vmovdqu [rdi + 224], ymm7",
            "vmovdqu [rdi + 256], ymm8", "vmovdqu [rdi + 288], ymm9",
            "vmovdqu [rdi + 320], ymm10", "vmovdqu [rdi + 352], ymm11",
            "vmovdqu [rdi + 384], ymm12", "vmovdqu [rdi + 416], ymm13",
            "vmovdqu [rdi + 448], ymm14", "vmovdqu [rdi + 480], ymm15",
            "vzeroupper", "ldmxcsr [rsp]", "add rsp, 16", "pop rbp", "pop rbx",
            inout("rdi") std::ptr::from_mut(s) => _,
            out("rax") _, out("rcx") _, out("rdx") _, out("rsi") _,
            out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _,
            out("xmm5") _, out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _,
            out("xmm10") _, out("xmm11") _, out("xmm12") _, out("xmm13") _, out("xmm14") _,
            out("xmm15") _,
        );
    }
}

/// Xorshift (Marsaglia), and operands with a bias to the edges of every lane type.
struct Sample(u64);

impl Sample {
    fn bits(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: u64) -> u64 {
        (self.bits() >> 16) % n
    }

    fn integer(&mut self, width: u32) -> u64 {
        let (ones, top) = (u64::MAX >> (64 - width), 1 << (width - 1));
        ones & match self.below(8) {
            0 => 0,
            1 => ones,
            2 => top,
            3 => self.below(70),
            4 => self.below(4),
            5 => ones - self.below(3),
            6 => top - 2 + self.below(4),
            _ => self.bits(),
        }
    }

    /// A number of a format with this many bits and bits of fraction: exponents at both ends, near
    /// one, anywhere.
    fn float(&mut self, width: u32, fraction: u32) -> u64 {
        let max = (1 << (width - 1 - fraction)) - 1;
        let exp = match self.below(7) {
            0 => 0,
            1 => max,
            2 => 1 + self.below(2),
            3 => max - 1 - self.below(2),
            4 => max / 2 + self.below(max / 2),
            5 => self.bits() & max,
            _ => max / 2 - 2 + self.below(5),
        };
        self.below(2) << (width - 1) | exp << fraction | self.integer(fraction)
    }

    fn word(&mut self) -> u64 {
        match self.below(8) {
            0 => self.integer(64),
            1 => self.integer(32) | self.integer(32) << 32,
            2 => (0..4).fold(0, |r, i| r | self.integer(16) << (16 * i)),
            3 => (0..8).fold(0, |r, i| r | self.integer(8) << (8 * i)),
            4 => (0..4).fold(0, |r, i| r | self.float(16, 10) << (16 * i)),
            5 => self.float(64, 52),
            _ => self.float(32, 23) | self.float(32, 23) << 32,
        }
    }

    fn state(&mut self) -> State {
        let extra = if self.below(2) == 0 { 0 } else { self.below(2) << 6 | self.below(2) << 15 };
        let mut s = State {
            v: std::array::from_fn(|_| std::array::from_fn(|_| self.word())),
            gpr: std::array::from_fn(|_| self.word()),
            rflags: 2 | self.bits() & u64::from(OSZAPC),
            mxcsr: 0x1f80 | self.below(4) << 13 | extra,
            code: 0,
        };
        // At times operands are alike, so that comparisons succeed.
        if self.below(4) == 0 {
            s.v[2] = s.v[5];
        }
        if self.below(4) == 0 {
            s.v[2][0] = self.below(70);
        }
        s
    }
}

/// What is not compared: what differs between CPUs, and what needs more than RBX and a number.
fn left_out(i: &Instruction) -> bool {
    use Mnemonic::*;
    let open = matches!(
        i.mnemonic(),
        Vrcpps | Vrcpss | Vrsqrtps | Vrsqrtss | Vldmxcsr | Vstmxcsr | Vmaskmovdqu
    );
    let registers = (0..i.op_count()).map(|n| i.op_register(n));
    let mut gprs = registers.filter(|r| r.is_gpr());
    open || gprs.any(|r| matches!(r.full_register(), Register::RSP | Register::RDI | Register::RBX))
}

fn host_has(i: &Instruction) -> bool {
    use std::arch::is_x86_feature_detected as has;
    i.cpuid_features().iter().all(|f| match f {
        CpuidFeature::AVX => has!("avx"),
        CpuidFeature::AVX2 => has!("avx2"),
        CpuidFeature::FMA => has!("fma"),
        CpuidFeature::F16C => has!("f16c"),
        CpuidFeature::AES => has!("aes"),
        CpuidFeature::PCLMULQDQ => has!("pclmulqdq"),
        CpuidFeature::VAES => has!("vaes"),
        CpuidFeature::VPCLMULQDQ => has!("vpclmulqdq"),
        CpuidFeature::SHA => has!("sha"),
        CpuidFeature::BMI1 => has!("bmi1"),
        CpuidFeature::BMI2 => has!("bmi2"),
        CpuidFeature::LZCNT => has!("lzcnt"),
        CpuidFeature::ADX => has!("adx"),
        CpuidFeature::MOVBE => has!("movbe"),
        _ => false,
    })
}

fn guest() -> Cpu {
    let mem = PhysMem::flat(1 << 20).unwrap();
    let mut c = Cpu::new(mem, Clock::icount().into(), &frontend_x86::FRONTEND);
    c.features = ALL.0;
    c.sys.cr0 |= 1 << 5;
    c.mode = MODE;
    c
}

fn run_on_guest(c: &mut Cpu, block: &Block, s: &mut State) {
    c.v[..16].copy_from_slice(&s.v);
    c.regs[..8].copy_from_slice(&s.gpr);
    (c.flags, c.mxcsr) = (Flags::from_bits(s.rflags as u32), s.mxcsr as u32);
    for u in block.uops.iter().filter(|u| u.op.row().effect != Effect::End) {
        emu_core::rare::run(c, u).expect("no fault");
    }
    s.v.copy_from_slice(&c.v[..16]);
    s.gpr.copy_from_slice(&c.regs[..8]);
    (s.rflags, s.mxcsr) = (c.flags.bits().into(), c.mxcsr.into());
}

/// Runs those encodings whose number leaves `part` when divided by `parts`.
fn judge(part: usize, parts: usize) {
    if !std::arch::is_x86_feature_detected!("avx2") {
        return;
    }
    let found: Vec<_> = all().into_iter().filter(|(_, i)| !left_out(i) && host_has(i)).collect();
    let mut ways = HashMap::<Code, usize>::new();
    found.iter().for_each(|(_, i)| *ways.entry(i.code()).or_default() += 1);
    let mut text = memmap2::MmapMut::map_anon(4096).unwrap();
    let mut page = Box::new(Page([0; 4096]));
    let mut c = guest();
    let mut wrong = Vec::new();
    let mut sample = Sample(0x9e37_79b9_7f4a_7c15 + part as u64);
    for (bytes, i) in found.iter().skip(part).step_by(parts) {
        let mut bytes = bytes.clone();
        let has_imm = i.op_count() > 0 && i.op_kind(i.op_count() - 1) == OpKind::Immediate8;
        let vsib = i.memory_index().is_vector_register();
        let mask = OSZAPC;
        for _ in 0..CASES.div_ceil(ways[&i.code()] * 64) {
            if has_imm && let Some(imm) = bytes.last_mut() {
                *imm = sample.bits() as u8;
            }
            // Never writable and executable at once.
            text[..bytes.len()].copy_from_slice(&bytes);
            text[bytes.len()] = 0xc3;
            let code = text.make_exec().unwrap();
            let insn = Decoder::new(64, &bytes, DecoderOptions::NONE).decode();
            let block = lift(&insn, MODE, ALL);
            for w in page.0.as_chunks_mut::<8>().0 {
                *w = sample.word().to_le_bytes();
            }
            c.mem.write_bytes(GUEST, &page.0);
            for _ in 0..64 {
                let mut host = sample.state();
                if vsib {
                    // Indices that stay in the page.
                    let narrow = i.code().op_code().op1_kind() as u32;
                    let narrow = vsib_is_narrow(narrow);
                    host.v[4] = host.v[4].map(|w| match narrow {
                        true => {
                            (w & 0x7f).wrapping_sub(64) & 0xffff_ffff
                                | (w >> 32 & 0x7f).wrapping_sub(64) << 32
                        }
                        false => (w & 0x7f).wrapping_sub(64),
                    });
                }
                for at in SEEN.step_by(8) {
                    let w = sample.word();
                    page.0[at..at + 8].copy_from_slice(&w.to_le_bytes());
                    c.mem.write(GUEST + at as u64, W64, w);
                }
                host.code = code.as_ptr() as u64;
                host.gpr[3] = GUEST + MIDDLE as u64;
                let before = host.clone();
                let mut ours = host.clone();
                run_on_guest(&mut c, &block, &mut ours);
                host.gpr[3] = page.0.as_ptr() as u64 + MIDDLE as u64;
                run_on_host(&mut host);
                host.gpr[3] = GUEST + MIDDLE as u64;
                host.rflags &= u64::from(mask);
                ours.rflags &= u64::from(mask);
                let mut seen = [0; SEEN.end - SEEN.start];
                c.mem.read_bytes(GUEST + SEEN.start as u64, &mut seen);
                if ours != host || seen != page.0[SEEN] {
                    let memory = (seen, &page.0[SEEN]);
                    let at = format!("{:?} {bytes:x?}\nbefore {before:x?}", i.code());
                    wrong.push(format!("{at}\nours {ours:x?}\nhost {host:x?}\n{memory:x?}\n"));
                    break;
                }
            }
            text = code.make_mut().unwrap();
        }
    }
    wrong.dedup_by_key(|w| w.split(' ').next().map(String::from));
    assert!(wrong.is_empty(), "{} encodings differ\n{}", wrong.len(), wrong.concat());
}

fn vsib_is_narrow(kind: u32) -> bool {
    kind == iced_x86::OpCodeOperandKind::mem_vsib32x as u32
        || kind == iced_x86::OpCodeOperandKind::mem_vsib32y as u32
}

#[test]
fn as_host_0() {
    judge(0, 2);
}

#[test]
fn as_host_1() {
    judge(1, 2);
}

// ---- what the comparison leaves out -------------------------------------------------------------

fn step(c: &mut Cpu, bytes: &[u8]) -> Result<(), Fault> {
    let i = Decoder::new(64, bytes, DecoderOptions::NONE).decode();
    let block = lift(&i, MODE, ALL);
    let mut uops = block.uops.iter();
    uops.try_for_each(|u| match u.op {
        Op::Raise => Err(Fault::new(u.imm as u8)),
        _ if u.op.row().effect == Effect::End => Ok(()),
        _ => emu_core::rare::run(c, u),
    })
}

/// A guest with paging: the first 2 MiB are there.
fn paged() -> Cpu {
    let mut c = guest();
    for (at, entry) in [(0x8000, 0x9007), (0x9000, 0xa007), (0xa000, 0x87)] {
        c.mem.write(at, W64, entry);
    }
    c.sys.cr0 |= 1 << 31 | 1;
    c.sys.cr4 |= 1 << 5;
    (c.sys.efer, c.sys.cr3) = (1 << 10, 0x8000);
    c
}

/// A fault in the middle of a gather leaves what was loaded, and the mask of the rest.
#[test]
fn a_gather_stops_and_goes_on() {
    let mut c = paged();
    c.set_reg(Reg::RBX, GUEST);
    for i in 0..16 {
        c.mem.write(GUEST + 8 * i, W64, 100 + i);
    }
    c.v[1] = [1, 2, 3, 4];
    c.v[4] = [5, 0x2000_0000_0000_0000, 7, 8];
    c.v[5] = [1 << 63, 1 << 63, 0, 1 << 63];
    // vpgatherqq ymm1, [rbx + ymm4 * 8], ymm5
    let insn = [0xc4, 0xe2, 0xd5, 0x91, 0x0c, 0xe3];
    assert_eq!(step(&mut c, &insn).map_err(|f| f.vector), Ok(()), "2^61 * 8 wraps to 0");
    assert_eq!((c.v[1], c.v[5]), ([105, 100, 3, 108], [0; 4]));
    c.v[1] = [1, 2, 3, 4];
    c.v[4][1] = 0x10_0000;
    c.v[5] = [1 << 63, 1 << 63, 0, 1 << 63];
    assert_eq!(step(&mut c, &insn).map_err(|f| f.vector), Err(vector::PF));
    assert_eq!((c.v[1], c.v[5]), ([105, 2, 3, 4], [0, 1 << 63, 0, 1 << 63]));
    c.v[4][1] = 6;
    step(&mut c, &insn).unwrap();
    assert_eq!((c.v[1], c.v[5]), ([105, 106, 3, 108], [0; 4]));
    // Two of the three registers alike.
    assert_eq!(step(&mut c, &[0xc4, 0xe2, 0xf5, 0x91, 0x0c, 0xe3]), Err(Fault::UD));
}

/// A masked move faults only where an element is chosen, and then writes nothing.
#[test]
fn masked_moves_and_faults() {
    let mut c = paged();
    c.set_reg(Reg::RBX, 0x1f_fff0);
    c.v[5] = [1 << 31, 0, 0, 0];
    // vmaskmovps ymm1, ymm5, [rbx]; its upper half is not there
    let insn = [0xc4, 0xe2, 0x55, 0x2c, 0x0b];
    c.v[1] = [9; 4];
    step(&mut c, &insn).unwrap();
    assert_eq!(c.v[1][1..], [0; 3]);
    c.v[5][3] = 1 << 31;
    c.v[1] = [9; 4];
    assert_eq!(step(&mut c, &insn).map_err(|f| f.vector), Err(vector::PF));
    assert_eq!(c.v[1], [9; 4]);
    // vmaskmovps [rbx], ymm5, ymm1
    let store = [0xc4, 0xe2, 0x55, 0x2e, 0x0b];
    assert_eq!(step(&mut c, &store).map_err(|f| f.vector), Err(vector::PF));
    // Not canonical, in the stack segment: vmaskmovps ymm1, ymm5, [rbp]
    c.set_reg(Reg::RBP, 1 << 63);
    assert_eq!(step(&mut c, &[0xc4, 0xe2, 0x55, 0x2c, 0x4d, 0]), Err(Fault::SS0));
}

#[test]
fn aligned_moves() {
    let mut c = guest();
    c.set_reg(Reg::RBX, GUEST + 16);
    // vmovaps ymm1, [rbx]; vmovaps [rbx], ymm1; vmovntdqa ymm1, [rbx]
    for bytes in
        [&[0xc5, 0xfc, 0x28, 0x0b][..], &[0xc5, 0xfc, 0x29, 0x0b], &[0xc4, 0xe2, 0x7d, 0x2a, 0x0b]]
    {
        assert_eq!(step(&mut c, bytes), Err(Fault::GP0));
    }
    // vmovaps xmm1, [rbx]; vaddps ymm1, ymm1, [rbx]; vmovups ymm1, [rbx + 1]
    for bytes in
        [&[0xc5, 0xf8, 0x28, 0x0b][..], &[0xc5, 0xf4, 0x58, 0x0b], &[0xc5, 0xfc, 0x10, 0x4b, 1]]
    {
        assert_eq!(step(&mut c, bytes), Ok(()));
    }
}

/// An unmasked exception before the computation in one half hides what the other would raise.
#[test]
fn exceptions_of_both_halves() {
    let mut c = guest();
    c.sys.cr4 |= 1 << 10;
    let third = 0x3fd5_5555_5555_5555;
    (c.v[1], c.v[2], c.v[3]) = ([7; 4], [third; 4], [third, third, third, 0x7ff0_0000_0000_0001]);
    c.mxcsr = 0x1f00;
    // vmulpd ymm1, ymm2, ymm3
    assert_eq!(step(&mut c, &[0xc5, 0xed, 0x59, 0xcb]), Err(Fault::XM));
    assert_eq!((c.mxcsr, c.v[1]), (0x1f01, [7; 4]));
}

#[test]
fn random_numbers_repeat() {
    let run = || {
        let mut c = guest();
        c.flags = Flags::from_bits(OSZAPC);
        c.set_reg(Reg::RCX, u64::MAX);
        // rdrand rax; rdseed cx
        step(&mut c, &[0x48, 0x0f, 0xc7, 0xf0]).unwrap();
        step(&mut c, &[0x66, 0x0f, 0xc7, 0xf9]).unwrap();
        assert_eq!(c.flags.bits(), CF);
        (c.reg(Reg::RAX), c.reg(Reg::RCX))
    };
    let (a, b) = run();
    assert!(a != 0 && b >> 16 == u64::MAX >> 16);
    assert_eq!((a, b), run());
}

/// RDPID gives IA32_TSC_AUX; VLDMXCSR and VSTMXCSR are LDMXCSR and STMXCSR.
#[test]
fn the_small_ones() {
    let mut c = guest();
    c.sys.tsc_aux = 0x77;
    step(&mut c, &[0xf3, 0x0f, 0xc7, 0xf9]).unwrap();
    assert_eq!(c.reg(Reg::RCX), 0x77);
    c.set_reg(Reg::RBX, GUEST);
    c.mem.write(GUEST, W32, 0x1fc0);
    step(&mut c, &[0xc5, 0xf8, 0xae, 0x13]).unwrap();
    assert_eq!(c.mxcsr, 0x1fc0);
    c.mem.write(GUEST, W32, 0);
    step(&mut c, &[0xc5, 0xf8, 0xae, 0x1b]).unwrap();
    assert_eq!(c.mem.read(GUEST, W32), 0x1fc0);
    assert!(insn::row(&Instruction::default()).is_none());
}
