//! The instructions run as guest code; expected values are worked out by hand from the manual.
//! What every encoding does under random states was also compared with a real x87.

use super::{F80, Form, Format, physical, set};
use crate::insn;
use crate::lift;
use crate::sys::cpuid::Features;
use crate::sys::cr0;
use emu_core::clock::Clock;
use emu_core::cpu::{Cpu, Frontend, Reg, Seg, St, X87, mode};
use emu_core::fault::{Fault, vector};
use emu_core::flags::{AF, CF, Flags, OF, PF, SF, ZF};
use emu_core::fp::transcendental::{Constant, constant};
use emu_core::fp::{Env87, Round, transcendental, x87};
use emu_core::mem::PhysMem;
use emu_core::uop::Op;
use emu_core::vcpu::{Stop, Vcpu};
use iced_x86::{Code, Decoder, DecoderOptions};

/// RAM ends here: accesses beyond are page faults.
const END: u64 = 0x1_0000;
/// Where memory operands are: RSI.
const DATA: u64 = 0x8000;
const LONG: u32 = mode::CODE64 | mode::FLAT | mode::SSE | mode::LONG;
const FLAT32: u32 = mode::CODE32 | mode::STACK32 | mode::FLAT | mode::SSE;
const REAL: u32 = mode::REAL | mode::FLAT;

static FRONTEND: Frontend = Frontend {
    translate: |_, va, _| match va {
        0..END => Ok(va),
        _ if va >> 47 != 0 => Err(Fault::GP0),
        _ => Err(Fault::page(va, 0)),
    },
    lift: lift::lift,
    deliver_fault: |cpu, f| (cpu.fault, cpu.halted) = (f, true),
    deliver_interrupt: |_, _, _| {},
    linear: crate::sys::segment::linear,
    single_step: |_| {},
    helpers: insn::HELPERS,
};

struct Pc {
    v: Vcpu,
    at: u64,
}

impl Pc {
    fn new(mode: u32) -> Pc {
        let mem = PhysMem::flat(END).unwrap();
        let mut cpu = Cpu::new(mem, Clock::icount().into(), &FRONTEND);
        cpu.features = Features::X86_64_V2.0;
        cpu.mode = mode;
        cpu.sys.cr0 = cr0::NE | cr0::MP | cr0::PE;
        cpu.set_reg(Reg::RSI, DATA);
        cpu.segs[Seg::Cs as usize].selector = 0x23;
        cpu.segs[Seg::Ds as usize].selector = 0x2b;
        cpu.segs[Seg::Ss as usize].selector = 0x33;
        Pc { v: Vcpu::new(cpu), at: 0x100 }
    }

    /// A CPU with control word `cw` and `values` on the stack, the first in ST(0).
    fn with(cw: u16, values: &[F80]) -> Pc {
        let mut pc = Pc::new(LONG);
        let fpu = &mut pc.v.cpu.x87;
        fpu.cw = cw;
        fpu.sw = (8 - values.len() as u16 & 7) << 11;
        for (i, v) in (0..).zip(values) {
            set(fpu, i, *v);
        }
        pc
    }

    /// Runs `code` up to the first fault; #UD of the UD2 behind it is the regular end.
    fn run(&mut self, code: &[u8]) -> u8 {
        let cpu = &mut self.v.cpu;
        cpu.mem.write_bytes(self.at, code);
        cpu.mem.write_bytes(self.at + code.len() as u64, &[0x0f, 0x0b]);
        cpu.set_rip(self.at);
        cpu.halted = false;
        assert_eq!(self.v.run(100_000), Stop::Halted);
        self.at += code.len() as u64 + 16;
        self.v.cpu.fault.vector
    }

    fn ok(&mut self, code: &[u8]) -> &mut Pc {
        assert_eq!(self.run(code), vector::UD, "{code:02x?}");
        self
    }

    fn x(&self) -> &X87 {
        &self.v.cpu.x87
    }
    fn st(&self, i: u8) -> Option<F80> {
        super::st(self.x(), i)
    }
    /// Status word without TOP, ES and B.
    fn sw(&self) -> u16 {
        self.x().sw & 0x477f
    }
    fn put(&mut self, bytes: &[u8]) -> &mut Pc {
        self.v.cpu.mem.write_bytes(DATA, bytes);
        self
    }
    fn get<const N: usize>(&self) -> [u8; N] {
        let mut out = [0; N];
        self.v.cpu.mem.read_bytes(DATA, &mut out);
        out
    }
}

fn int(v: i64) -> F80 {
    F80::from_i64(v)
}
fn double(v: f64) -> F80 {
    F80::from_f64(v.to_bits()).0
}
const INF: F80 = F80 { mant: 1 << 63, se: 0x7fff };
const SNAN: F80 = F80 { mant: 1 << 63 | 1, se: 0x7fff };
const TINY: F80 = F80 { mant: 1, se: 0 };
const MASKED: u16 = 0x37f;
const FLD1: [u8; 2] = [0xd9, 0xe8];
const WAIT: [u8; 1] = [0x9b];

#[test]
fn every_encoding_has_a_row() {
    for bits in [16, 32, 64] {
        for (esc, modrm) in (0xd8..=0xdf).flat_map(|e| (0..=255).map(move |m| (e, m))) {
            let bytes = [esc, modrm, 0x11, 0x22, 0x33, 0x44, 0x55];
            let i = Decoder::new(bits, &bytes, DecoderOptions::NONE).decode();
            assert!(i.code() == Code::INVALID || insn::row(&i).is_some(), "{bytes:02x?}");
        }
    }
}

#[test]
fn fop_is_the_opcode() {
    let mut seen = 0;
    for (mode, sib) in [(LONG, true), (FLAT32, true), (REAL, false)] {
        for (esc, modrm) in (0xd8..=0xdfu8).flat_map(|e| (0..=255u8).map(move |m| (e, m))) {
            // The SIB byte is [rdx + rcx], which no shorter form can say.
            let bytes = [esc, modrm, if sib { 0x0a } else { 0x11 }, 0x22, 0x33, 0x44, 0x55];
            let block = lift::lift_bytes(&bytes, mode, Features::X86_64_V2.0, 1).0;
            let call = block.uops.iter().find(|u| u.op == Op::Helper);
            let Some((imm, h)) = call.and_then(|u| Some((u.imm, u.helper?.name))) else { continue };
            if h == "x87_control" || h == "x87_image" {
                continue;
            }
            let want = u16::from(esc & 7) << 8 | u16::from(modrm);
            assert_eq!(Form::unpack(imm as u64).fop, want, "{bytes:02x?} mode {mode:#x}");
            seen += 1;
        }
    }
    assert!(seen > 3 * 1500, "{seen}");
}

#[test]
fn form_survives_packing() {
    let f = Form { fop: 0x7ab, seg: 3, format: Format::Bcd, dst: 6, src: 5, pops: 2 };
    assert_eq!(Form::unpack(f.pack()), f);
}

#[test]
fn stack_overflow() {
    let mut pc = Pc::with(MASKED, &[]);
    for n in 0..8 {
        pc.ok(&FLD1);
        assert_eq!((pc.x().sw >> 11 & 7, pc.sw()), (7 - n, 0));
    }
    pc.ok(&FLD1);
    assert_eq!((pc.st(0), pc.st(1)), (Some(F80::INDEFINITE), Some(F80::ONE)));
    assert_eq!(pc.x().sw, 0x3a41, "TOP 7, C1, SF, IE");
    // Unmasked: neither TOP nor the register changes; ES and B are set.
    let mut pc = Pc::with(MASKED & !1, &[F80::ONE; 8]);
    pc.ok(&[0xd9, 0xee]);
    assert_eq!((pc.x().sw, pc.st(0)), (0x82c1, Some(F80::ONE)));
    // FSINCOS, FPTAN and FXTRACT need a free register too.
    for op in [0xfb, 0xf2, 0xf4] {
        let mut pc = Pc::with(MASKED, &[F80::ONE; 8]);
        pc.ok(&[0xd9, op]);
        assert_eq!(
            (pc.st(0), pc.st(1), pc.sw()),
            (Some(F80::INDEFINITE), Some(F80::INDEFINITE), 0x241)
        );
    }
}

#[test]
fn stack_underflow() {
    // FADD ST, ST(1); FADDP; FSQRT; FLD ST(1); FSCALE.
    for code in [[0xd8, 0xc1], [0xde, 0xc1], [0xd9, 0xfa], [0xd9, 0xc1], [0xd9, 0xfd]] {
        let mut pc = Pc::with(MASKED, &[]);
        pc.v.cpu.x87.sw |= 0x200;
        pc.ok(&code);
        assert_eq!((pc.st(0), pc.sw()), (Some(F80::INDEFINITE), 0x41), "{code:02x?}");
        let mut pc = Pc::with(MASKED & !1, &[]);
        pc.ok(&code);
        assert_eq!((pc.x().full, pc.x().sw), (0, 0x80c1), "{code:02x?}");
    }
    // FXCH with an empty ST(1): the indefinite value takes its place first.
    let mut pc = Pc::with(MASKED, &[int(5)]);
    pc.ok(&[0xd9, 0xc9]);
    assert_eq!((pc.st(0), pc.st(1)), (Some(F80::INDEFINITE), Some(int(5))));
    // FSTP m32: masked it stores the indefinite value and pops, unmasked neither.
    let mut pc = Pc::with(MASKED, &[]);
    pc.ok(&[0xd9, 0x1e]);
    assert_eq!((pc.get(), pc.x().sw >> 11 & 7), (0xffc0_0000u32.to_le_bytes(), 1));
    let mut pc = Pc::with(MASKED & !1, &[]);
    pc.ok(&[0xd9, 0x1e]);
    assert_eq!((pc.get(), pc.x().sw), ([0; 4], 0x80c1));
    // FSTPNCE does not check.
    let mut pc = Pc::with(MASKED, &[]);
    pc.ok(&[0xd9, 0xd9]);
    assert_eq!((pc.x().sw, pc.x().full), (1 << 11, 0));
}

#[test]
fn fxam_classes() {
    let unnormal = F80 { mant: 1, se: 0x4000 };
    let cases = [
        (unnormal, 0x0000),
        (SNAN, 0x0100),
        (F80::INDEFINITE, 0x0300),
        (F80::ONE, 0x0400),
        (int(-1), 0x0600),
        (INF, 0x0500),
        (F80::ZERO, 0x4000),
        (F80::ZERO.neg(), 0x4200),
        (TINY, 0x4400),
    ];
    for (v, want) in cases {
        let mut pc = Pc::with(MASKED, &[v]);
        pc.ok(&[0xd9, 0xe5]);
        assert_eq!(pc.sw(), want, "{v:x?}");
        // Empty: C3 and C0, and the sign that is there.
        pc.ok(&[0xdd, 0xc0, 0xd9, 0xe5]);
        assert_eq!(pc.sw(), 0x4100 | want & 0x200);
    }
}

#[test]
fn arithmetic_operands() {
    // ST(0) = 6, ST(1) = 2, memory 2 (or 2.0): the encoding, the result, where it is.
    let (four, third, three) = (int(4), x87::div(int(2), int(6), Env87::default()).0, int(3));
    let cases: &[([u8; 2], F80, u8)] = &[
        ([0xd8, 0xc1], int(8), 0),
        ([0xd8, 0xc9], int(12), 0),
        ([0xd8, 0xe1], four, 0),
        ([0xd8, 0xe9], four.neg(), 0),
        ([0xd8, 0xf1], three, 0),
        ([0xd8, 0xf9], third, 0),
        ([0xdc, 0xc1], int(8), 1),
        ([0xdc, 0xc9], int(12), 1),
        ([0xdc, 0xe1], four, 1),
        ([0xdc, 0xe9], four.neg(), 1),
        ([0xdc, 0xf1], three, 1),
        ([0xdc, 0xf9], third, 1),
        ([0xde, 0xc1], int(8), 0),
        ([0xde, 0xc9], int(12), 0),
        ([0xde, 0xe1], four, 0),
        ([0xde, 0xe9], four.neg(), 0),
        ([0xde, 0xf1], three, 0),
        ([0xde, 0xf9], third, 0),
        ([0xd8, 0x06], int(8), 0),
        ([0xd8, 0x26], four, 0),
        ([0xd8, 0x2e], four.neg(), 0),
        ([0xd8, 0x36], three, 0),
        ([0xd8, 0x3e], third, 0),
        ([0xdc, 0x0e], int(12), 0),
        ([0xdc, 0x3e], third, 0),
        ([0xda, 0x06], int(8), 0),
        ([0xda, 0x2e], four.neg(), 0),
        ([0xde, 0x26], four, 0),
        ([0xde, 0x36], three, 0),
    ];
    for (code, want, at) in cases {
        let mut pc = Pc::with(MASKED, &[int(6), int(2)]);
        match code {
            [0xd8, _] => pc.put(&2f32.to_le_bytes()),
            [0xdc, _] => pc.put(&2f64.to_le_bytes()),
            // The upper half must not count for the 16-bit forms.
            [0xde, _] => pc.put(&[2, 0, 0xff, 0xff]),
            _ => pc.put(&[2, 0, 0, 0]),
        };
        pc.ok(code);
        let popped = code[0] == 0xde && code[1] >= 0xc0;
        assert_eq!(pc.st(*at), Some(*want), "{code:02x?}");
        assert_eq!(pc.x().full.count_ones(), 2 - u32::from(popped), "{code:02x?}");
    }
}

#[test]
fn precision_control() {
    // 1/3 to 24 bits.
    let mut pc = Pc::with(0x7f, &[int(1), int(3)]);
    pc.ok(&[0xd8, 0xf1]);
    assert_eq!(pc.st(0), Some(F80 { mant: 0xaaaa_ab00_0000_0000, se: 0x3ffd }));
    assert_eq!(pc.sw(), 0x220, "PE, rounded up");
}

#[test]
fn constants_follow_the_rounding_mode() {
    use Constant::*;
    let all = [One, Log2Of10, Log2OfE, Pi, Log10Of2, LnOf2, Zero];
    for (op, which) in (0xe8..).zip(all) {
        for rc in 0..4 {
            let mut pc = Pc::with(MASKED & !0xc00 | rc << 10, &[]);
            pc.ok(&[0xd9, op]);
            assert_eq!(pc.st(0), Some(constant(which, Round::from_rc(rc.into()))));
        }
    }
    let mut pc = Pc::with(MASKED, &[]);
    pc.ok(&[0xd9, 0xeb]);
    assert_eq!(pc.st(0), Some(F80 { mant: 0xc90f_daa2_2168_c235, se: 0x4000 }));
}

#[test]
fn loads() {
    let cases: &[([u8; 2], &[u8], F80)] = &[
        ([0xd9, 0x06], &1.5f32.to_le_bytes(), double(1.5)),
        ([0xdd, 0x06], &(-0.1f64).to_le_bytes(), double(-0.1)),
        ([0xdb, 0x2e], &SNAN.to_bytes(), SNAN),
        ([0xdf, 0x06], &(-2i16).to_le_bytes(), int(-2)),
        ([0xdb, 0x06], &(-3i32).to_le_bytes(), int(-3)),
        ([0xdf, 0x2e], &i64::MIN.to_le_bytes(), int(i64::MIN)),
        ([0xdf, 0x26], &[0x12, 0x90, 0, 0, 0, 0, 0, 0, 0, 0x80], int(-9012)),
    ];
    for (code, bytes, want) in cases {
        let mut pc = Pc::with(MASKED, &[]);
        pc.put(&[0xff; 16]).put(bytes).ok(code);
        assert_eq!((pc.st(0), pc.sw()), (Some(*want), 0), "{code:02x?}");
    }
    // A signaling m32 becomes quiet; with IE unmasked it is not loaded at all.
    for (cw, full) in [(MASKED, 1), (MASKED & !1, 0)] {
        let mut pc = Pc::with(cw, &[]);
        pc.put(&0x7f80_0001u32.to_le_bytes()).ok(&[0xd9, 0x06]);
        assert_eq!((pc.x().full.count_ones(), pc.sw()), (full, 1));
    }
    // An unmasked DE does not stop a load.
    let mut pc = Pc::with(MASKED & !2, &[]);
    pc.put(&1u32.to_le_bytes()).ok(&[0xd9, 0x06]);
    assert_eq!((pc.st(0), pc.x().sw & 0x80ff), (Some(F80 { mant: 1 << 63, se: 0x3f6a }), 0x8082));
}

#[test]
fn integer_stores_round() {
    // 2.5 and -2.5 under nearest, down, up, zero.
    let want = [(2i16, -2i16), (2, -3), (3, -2), (2, -2)];
    for (rc, (pos, neg)) in (0..).zip(want) {
        for (v, want) in [(2.5, pos), (-2.5, neg)] {
            let cw = MASKED | rc << 10;
            let mut pc = Pc::with(cw, &[double(v)]);
            // FIST m16; FIST m32; FISTP m64.
            pc.ok(&[0xdf, 0x16]);
            assert_eq!(i16::from_le_bytes(pc.get()), want);
            let up = u16::from(f64::from(want).abs() > 2.5) << 9;
            assert_eq!(pc.sw(), 0x20 | up, "PE; C1 if rounded away from zero");
            pc.ok(&[0xdb, 0x16]);
            assert_eq!(i32::from_le_bytes(pc.get()), want.into());
            pc.ok(&[0xdf, 0x3e]);
            assert_eq!(i64::from_le_bytes(pc.get()), want.into());
            assert_eq!(pc.x().full, 0);
            // FISTTP truncates whatever RC says.
            let mut pc = Pc::with(cw, &[double(v); 3]);
            pc.ok(&[0xdf, 0x0e]);
            assert_eq!(i16::from_le_bytes(pc.get()), v as i16);
            pc.ok(&[0xdb, 0x0e]);
            assert_eq!(i32::from_le_bytes(pc.get()), v as i32);
            pc.ok(&[0xdd, 0x0e]);
            assert_eq!((i64::from_le_bytes(pc.get()), pc.x().full), (v as i64, 0));
        }
    }
    // Out of range: the integer indefinite, or nothing.
    let mut pc = Pc::with(MASKED, &[int(32768)]);
    pc.ok(&[0xdf, 0x1e]);
    assert_eq!((i16::from_le_bytes(pc.get()), pc.sw(), pc.x().full), (i16::MIN, 1, 0));
    let mut pc = Pc::with(MASKED & !1, &[int(32768)]);
    pc.put(&[7; 2]).ok(&[0xdf, 0x1e]);
    assert_eq!((pc.get(), pc.x().full.count_ones()), ([7; 2], 1));
}

#[test]
fn float_stores() {
    let huge = F80 { mant: 1 << 63, se: 0x7000 };
    let third = x87::div(int(1), int(3), Env87::default()).0;
    // Format, value, masks cleared: what memory holds, whether the stack was popped, exceptions.
    type Case = ([u8; 2], F80, u16, u64, bool, u16);
    let cases: &[Case] = &[
        ([0xd9, 0x1e], huge, 0, u64::from(f32::INFINITY.to_bits()), true, 0x228),
        ([0xd9, 0x1e], huge, 8, 0, false, 0x08),
        ([0xd9, 0x1e], TINY, 0x10, 0, false, 0x10),
        ([0xd9, 0x1e], third, 0x20, u64::from((1.0f32 / 3.0).to_bits()), true, 0x220),
        ([0xdd, 0x1e], third, 0, (1.0f64 / 3.0).to_bits(), true, 0x20),
        ([0xdd, 0x1e], SNAN, 1, 0, false, 0x01),
    ];
    for (code, v, unmasked, want, popped, sw) in cases {
        let mut pc = Pc::with(MASKED & !unmasked, &[*v]);
        pc.ok(code);
        assert_eq!((u64::from_le_bytes(pc.get()), pc.sw()), (*want, *sw), "{code:02x?} {v:x?}");
        assert_eq!(pc.x().full == 0, *popped);
    }
    // FSTP m80 and FSTP ST(1) copy any bits.
    let mut pc = Pc::with(MASKED, &[SNAN, F80::ONE]);
    pc.ok(&[0xdd, 0xd9, 0xdb, 0x3e]);
    assert_eq!((pc.get(), pc.sw(), pc.x().full), (SNAN.to_bytes(), 0, 0));
}

#[test]
fn bcd() {
    let mut pc = Pc::with(MASKED, &[double(-1_234_567.5)]);
    pc.ok(&[0xdf, 0x36]);
    assert_eq!(pc.get(), [0x68, 0x45, 0x23, 0x01, 0, 0, 0, 0, 0, 0x80]);
    assert_eq!((pc.sw(), pc.x().full), (0x220, 0));
    pc.ok(&[0xdf, 0x26]);
    assert_eq!(pc.st(0), Some(int(-1_234_568)));
    let mut pc = Pc::with(MASKED, &[int(1_000_000_000_000_000_000)]);
    pc.ok(&[0xdf, 0x36]);
    assert_eq!((pc.get(), pc.sw()), ([0, 0, 0, 0, 0, 0, 0, 0xc0, 0xff, 0xff], 1));
}

#[test]
fn comparisons() {
    let qnan = F80::INDEFINITE;
    let cases = [
        (int(1), int(2), CF, 0x0100),
        (int(2), int(2), ZF, 0x4000),
        (int(3), int(2), 0, 0x0000),
        (INF, INF.neg(), 0, 0x0000),
        (qnan, int(2), ZF | PF | CF, 0x4500),
    ];
    for (a, b, flags, code) in cases {
        let nan = u16::from(a == qnan);
        // FCOMI, FUCOMI: all other arithmetic flags are cleared. A quiet NaN is invalid only for
        // the first.
        for (op, ie) in [(0xf1, nan), (0xe9, 0)] {
            let mut pc = Pc::with(MASKED, &[a, b]);
            pc.v.cpu.flags = Flags::from_bits(OF | SF | AF | PF);
            pc.ok(&[0xdb, op]);
            assert_eq!((pc.v.cpu.flags.bits(), pc.sw()), (flags, ie), "{a:x?} {b:x?}");
            pc.ok(&[0xdf, op]);
            assert_eq!((pc.v.cpu.flags.bits(), pc.x().full.count_ones()), (flags, 1));
        }
        // FCOM, FCOMP, FCOMPP, FUCOM, FUCOMP, FUCOMPP: exceptions, pops.
        let forms = [
            ([0xd8, 0xd1], nan, 0),
            ([0xd8, 0xd9], nan, 1),
            ([0xde, 0xd9], nan, 2),
            ([0xdd, 0xe1], 0, 0),
            ([0xdd, 0xe9], 0, 1),
            ([0xda, 0xe9], 0, 2),
        ];
        for (op, ie, pops) in forms {
            let mut pc = Pc::with(MASKED, &[a, b]);
            pc.ok(&op);
            assert_eq!((pc.sw(), pc.x().full.count_ones()), (code | ie, 2 - pops), "{op:02x?}");
        }
    }
    // FCOMP m64, FICOM m16 and m32 with 2; FTST.
    let mut pc = Pc::with(MASKED, &[int(1), int(-3), int(2)]);
    pc.put(&2f64.to_le_bytes()).ok(&[0xdc, 0x1e]);
    assert_eq!(pc.sw(), 0x100);
    pc.put(&[2, 0, 0xff, 0xff]).ok(&[0xde, 0x1e]);
    assert_eq!(pc.sw(), 0x100);
    pc.put(&[2, 0, 0, 0]).ok(&[0xda, 0x16]);
    assert_eq!(pc.sw(), 0x4000);
    pc.ok(&[0xd9, 0xe4]);
    assert_eq!(pc.sw(), 0);
    // An unmasked IE: no pop.
    let mut pc = Pc::with(MASKED & !1, &[qnan, int(2)]);
    pc.ok(&[0xd8, 0xd9]);
    assert_eq!(pc.x().full.count_ones(), 2);
}

#[test]
fn fcmov() {
    // Opcode, the flags that make it move; the other polarity is one byte higher.
    for (modrm, taken) in [(0xc1, CF), (0xc9, ZF), (0xd1, CF | ZF), (0xd9, PF)] {
        for flags in [0, CF, ZF, PF] {
            for (esc, moves) in [(0xda, flags & taken != 0), (0xdb, flags & taken == 0)] {
                let mut pc = Pc::with(MASKED, &[int(1), int(2)]);
                pc.v.cpu.flags = Flags::from_bits(flags);
                pc.ok(&[esc, modrm]);
                let want = if moves { int(2) } else { int(1) };
                assert_eq!(pc.st(0), Some(want), "{esc:02x} {modrm:02x} {flags:x}");
            }
        }
    }
    // An empty source is a stack fault even if nothing would move.
    let mut pc = Pc::with(MASKED, &[int(1)]);
    pc.ok(&[0xda, 0xc1]);
    assert_eq!((pc.st(0), pc.sw()), (Some(F80::INDEFINITE), 0x41));
}

#[test]
fn fprem_loop() {
    // again: fprem; fnstsw ax; test ah, 4; jnz again. 2^200 mod 7 = 2^(200 mod 3) = 4.
    let code = [0xd9, 0xf8, 0xdf, 0xe0, 0xf6, 0xc4, 0x04, 0x75, 0xf7];
    let big = F80 { mant: 1 << 63, se: 0x3fff + 200 };
    let mut pc = Pc::with(MASKED, &[big, int(7)]);
    pc.ok(&[0xd9, 0xf8]);
    assert_eq!(pc.sw(), 0x400, "not done in one step");
    pc.ok(&code);
    assert_eq!((pc.st(0), pc.sw() & 0x400), (Some(int(4)), 0));
    // 27 = 6·4 + 3: the quotient's bits Q2, Q1, Q0 in C0, C3, C1.
    let mut pc = Pc::with(MASKED, &[int(27), int(4)]);
    pc.ok(&[0xd9, 0xf8]);
    assert_eq!((pc.st(0), pc.sw()), (Some(int(3)), 0x4100));
    // FPREM1: 27 = 7·4 − 1.
    let mut pc = Pc::with(MASKED, &[int(27), int(4)]);
    pc.ok(&[0xd9, 0xf5]);
    assert_eq!((pc.st(0), pc.sw()), (Some(int(-1)), 0x4300));
}

#[test]
fn functions() {
    let env = Env87::from_fcw(MASKED);
    let half = double(0.5);
    // One operand, result in ST(0).
    let sqrt = |v| x87::sqrt(v, env).0;
    let unary: &[(u8, F80)] = &[
        (0xe0, half.neg()),
        (0xe1, half),
        (0xfa, sqrt(half)),
        (0xfc, F80::ZERO),
        (0xf0, transcendental::f2xm1(half, env).0),
        (0xfe, transcendental::fsin(half, env).unwrap().0),
        (0xff, transcendental::fcos(half, env).unwrap().0),
        (0xfd, double(0.5 * 8.0)),
    ];
    for (op, want) in unary {
        let mut pc = Pc::with(MASKED, &[half, int(3)]);
        pc.ok(&[0xd9, *op]);
        assert_eq!((pc.st(0), pc.st(1), pc.st(2)), (Some(*want), Some(int(3)), None), "{op:02x}");
    }
    // Two operands, result in ST(1), popped.
    let binary: &[(u8, F80)] = &[
        (0xf1, int(-3)),
        (0xf9, transcendental::fyl2xp1(half, int(3), env).0),
        (0xf3, transcendental::fpatan(half, int(3), env).0),
    ];
    for (op, want) in binary {
        let mut pc = Pc::with(MASKED, &[half, int(3)]);
        pc.ok(&[0xd9, *op]);
        assert_eq!((pc.st(0), pc.st(1)), (Some(*want), None), "{op:02x}");
    }
    // One operand, two results.
    let (sin, cos, ..) = transcendental::fsincos(half, env).unwrap();
    let tan = transcendental::fptan(half, env).unwrap().0;
    let double: &[(u8, F80, F80)] =
        &[(0xfb, cos, sin), (0xf2, F80::ONE, tan), (0xf4, F80::ONE, int(-1))];
    for (op, st0, st1) in double {
        let mut pc = Pc::with(MASKED, &[half]);
        pc.ok(&[0xd9, *op]);
        assert_eq!((pc.st(0), pc.st(1), pc.st(2)), (Some(*st0), Some(*st1), None), "{op:02x}");
    }
    // FPTAN of a NaN pushes it again, not 1.
    let mut pc = Pc::with(MASKED, &[F80::INDEFINITE]);
    pc.ok(&[0xd9, 0xf2]);
    assert_eq!((pc.st(0), pc.st(1)), (Some(F80::INDEFINITE), Some(F80::INDEFINITE)));
    // Out of range: C2, and the operand stays.
    let far = F80 { mant: 1 << 63, se: 0x3fff + 63 };
    for op in [0xfe, 0xff, 0xfb, 0xf2] {
        let mut pc = Pc::with(MASKED, &[far]);
        pc.ok(&[0xd9, op]);
        assert_eq!((pc.st(0), pc.st(1), pc.sw()), (Some(far), None, 0x400), "{op:02x}");
        pc.ok(&[0xdd, 0xd8, 0xd9, 0xe8, 0xd9, op]);
        assert_eq!(pc.sw() & 0x400, 0);
    }
    // 1/0 with ZE unmasked leaves both operands.
    let mut pc = Pc::with(MASKED & !4, &[int(1), F80::ZERO]);
    pc.ok(&[0xd8, 0xf1]);
    assert_eq!((pc.st(0), pc.st(1), pc.x().sw & 0xff), (Some(int(1)), Some(F80::ZERO), 0x84));
}

#[test]
fn stack_order() {
    let mut pc = Pc::with(MASKED, &[int(1), int(2), int(3)]);
    pc.ok(&[0xd9, 0xca]);
    assert_eq!((pc.st(0), pc.st(2)), (Some(int(3)), Some(int(1))));
    // FINCSTP and FDECSTP change TOP and no tag; FFREE a tag only; FFREEP pops too.
    pc.ok(&[0xd9, 0xf7]);
    assert_eq!((pc.st(0), pc.st(7), pc.st(2)), (Some(int(2)), Some(int(3)), None));
    pc.ok(&[0xd9, 0xf6, 0xdd, 0xc1]);
    assert_eq!((pc.st(0), pc.st(1), pc.st(2)), (Some(int(3)), None, Some(int(1))));
    pc.ok(&[0xdf, 0xc2]);
    assert_eq!((pc.x().full, pc.x().sw >> 11 & 7), (0, 6));
}

#[test]
fn control_words() {
    let mut pc = Pc::new(LONG);
    pc.put(&0xffffu16.to_le_bytes()).ok(&[0xd9, 0x2e, 0xd9, 0x3e]);
    assert_eq!(pc.get(), 0x1f7fu16.to_le_bytes(), "reserved bits");
    // FNSTSW m16, FNSTSW AX.
    let fpu = &mut pc.v.cpu.x87;
    (fpu.cw, fpu.sw) = (0x37e, 0x3801);
    pc.v.cpu.set_reg(Reg::RAX, 0x1111_1111_1111_1111);
    pc.ok(&[0xdd, 0x3e, 0xdf, 0xe0]);
    assert_eq!((pc.get(), pc.v.cpu.reg(Reg::RAX)), ([0x81, 0xb8], 0x1111_1111_1111_b881));
    // FNCLEX clears exceptions, SF, ES and B; FNINIT all but the registers' contents.
    pc.v.cpu.x87.sw = 0xffff;
    pc.ok(&[0xdb, 0xe2]);
    assert_eq!(pc.x().sw, 0x7f00);
    let st = [St { mant: 9, se: 9 }; 8];
    pc.v.cpu.x87 =
        X87 { st, cw: 0, sw: 0x1234, full: 0xff, fop: 1, fip: 2, fcs: 3, fdp: 4, fds: 5 };
    pc.ok(&[0xdb, 0xe3]);
    assert_eq!(*pc.x(), X87 { st, ..X87::default() });
    // FNENI, FNDISI, FNSETPM do nothing.
    let before = *pc.x();
    pc.ok(&[0xdb, 0xe0, 0xdb, 0xe1, 0xdb, 0xe4]);
    assert_eq!(*pc.x(), before);
}

#[test]
fn pending_exception_is_raised_by_the_next_waiting_instruction() {
    // 1/0 with ZE unmasked.
    let broken = || {
        let mut pc = Pc::with(MASKED & !4, &[int(1), F80::ZERO]);
        pc.ok(&[0xd8, 0xf1]);
        assert_eq!(pc.x().sw & 0x80ff, 0x8084, "ES and B");
        pc
    };
    let waiting: [&[u8]; 10] = [
        &WAIT,
        &FLD1,
        &[0xd9, 0x1e],
        &[0xd8, 0xc1],
        &[0xd8, 0xd1],
        &[0xd9, 0xfa],
        &[0xd9, 0xe5],
        &[0xd9, 0xd0],
        &[0xd9, 0x2e],
        &[0xdd, 0x26],
    ];
    for code in waiting {
        let mut pc = broken();
        let (before, at) = (*pc.x(), pc.at);
        assert_eq!(pc.run(code), vector::MF, "{code:02x?}");
        assert_eq!((*pc.x(), pc.v.cpu.rip()), (before, at), "{code:02x?}");
        // With NE = 0 there is no #MF.
        let mut pc = broken();
        pc.v.cpu.sys.cr0 &= !cr0::NE;
        pc.ok(code);
    }
    // FNSTCW, FNSTSW AX, FNSTENV, FNSAVE, FNCLEX, FNINIT do not wait.
    for code in [[0xd9, 0x3e], [0xdf, 0xe0], [0xd9, 0x36], [0xdd, 0x36], [0xdb, 0xe2], [0xdb, 0xe3]]
    {
        broken().ok(&code);
    }
    broken().ok(&[0xdb, 0xe2, 0x9b, 0xd9, 0xe8]);
    // Unmasking what is flagged makes it pending; masking it again settles it.
    let mut pc = Pc::with(MASKED, &[int(1), F80::ZERO]);
    pc.put(&0x37bu16.to_le_bytes()).ok(&[0xd8, 0xf1, 0xd9, 0x2e]);
    assert_eq!(pc.x().sw & 0x8080, 0x8080);
    assert_eq!(pc.run(&WAIT), vector::MF);
}

#[test]
fn device_not_available() {
    for (bits, want) in [
        (cr0::TS, vector::UD),
        (cr0::MP, vector::UD),
        (cr0::TS | cr0::MP, vector::NM),
        (cr0::EM, vector::UD),
    ] {
        let mut pc = Pc::new(LONG);
        pc.v.cpu.sys.cr0 = bits;
        assert_eq!(pc.run(&WAIT), want, "{bits:#x}");
    }
    for bit in [mode::TS, mode::EM] {
        assert_eq!(Pc::new(LONG | bit).run(&FLD1), vector::NM);
        assert_eq!(Pc::new(LONG | bit).run(&[0xdb, 0xe3]), vector::NM);
    }
}

#[test]
fn pointers() {
    // nop; fld dword [rsi + 8]; fwait; fnstcw [rsi]; then fld1, which has no operand.
    let code = [0x90, 0xd9, 0x46, 0x08, 0x9b, 0xd9, 0x3e];
    let mut pc = Pc::new(LONG);
    let at = pc.at;
    pc.ok(&code);
    let x = *pc.x();
    assert_eq!((x.fop, x.fip, x.fcs, x.fdp, x.fds), (0x146, at + 1, 0, DATA + 8, 0));
    let at = pc.at;
    pc.ok(&FLD1);
    let x = *pc.x();
    assert_eq!((x.fop, x.fip, x.fdp), (0x1e8, at, DATA + 8));
    // FS-relative: the offset, not the linear address. A prefix belongs to the instruction.
    pc.v.cpu.set_reg(Seg::Fs.base(), 0x100);
    let at = pc.at;
    pc.ok(&[0x64, 0xd9, 0x06]);
    assert_eq!((pc.x().fip, pc.x().fdp), (at, DATA));
    // Outside 64-bit code with selectors; [ebp] is in SS.
    let mut pc = Pc::new(FLAT32);
    pc.ok(&code);
    assert_eq!((pc.x().fcs, pc.x().fds), (0x23, 0x2b));
    pc.v.cpu.set_reg(Reg::RBP, DATA);
    pc.ok(&[0xd9, 0x45, 0x04]);
    assert_eq!((pc.x().fdp, pc.x().fds), (DATA + 4, 0x33));
    // 16-bit code: the offset wraps at 64 KiB, temporaries notwithstanding.
    let mut pc = Pc::new(REAL);
    pc.v.cpu.set_reg(Reg::T0, u64::MAX);
    let at = pc.at;
    pc.ok(&[0x90, 0xd9, 0x04]);
    assert_eq!((pc.x().fip, pc.x().fdp), (at + 1, DATA));
}

/// State with something in every field of an environment.
fn sample() -> X87 {
    let mut x = X87 { cw: 0x27f, sw: 0x6a21, ..X87::default() };
    // TOP = 5: ST(0) valid, ST(1) zero, ST(2) special, the others empty.
    for (i, v) in (0..).zip([int(7), F80::ZERO, INF]) {
        set(&mut x, i, v);
    }
    X87 { fop: 0x5a6, fip: 0x1234_5678, fcs: 0x23, fdp: 0x9abc_def0, fds: 0x2b, ..x }
}
/// Its tag word: R5 valid, R6 zero, R7 special.
const TAGS: u16 = 0b10_01_00_11_11_11_11_11;

/// The layouts: mode, operand-size prefix, width, and the words that hold the pointers.
fn layouts() -> [(u32, &'static [u8], usize, [u32; 4]); 6] {
    let (ip, dp) = (0x1234_5678 + 0x230, 0x9abc_def0 + 0x2b0);
    let pm32 = [0x1234_5678, 0x5a6_0023, 0x9abc_def0, 0xffff_002b];
    let pm16 = [0x5678, 0x23, 0xdef0, 0x2b];
    let real32 = [ip & 0xffff, ip >> 16 << 12 | 0x5a6, dp & 0xffff, dp >> 16 << 12];
    let real16 = real32.map(|w| w & 0xffff);
    [
        (LONG, &[], 4, pm32),
        (LONG, &[0x66], 2, pm16),
        (FLAT32, &[], 4, pm32),
        (FLAT32, &[0x66], 2, pm16),
        (REAL, &[], 2, real16),
        (REAL, &[0x66], 4, real32),
    ]
}

/// `esc /reg` on DATA, in the addressing of `mode`.
fn on_data(mode: u32, prefix: &[u8], esc: u8, reg: u8) -> Vec<u8> {
    [prefix, &[esc, reg << 3 | if mode == REAL { 4 } else { 6 }]].concat()
}

#[test]
fn environment_layouts() {
    for (mode, prefix, size, pointers) in layouts() {
        let mut pc = Pc::new(mode);
        pc.v.cpu.x87 = sample();
        let before = *pc.x();
        pc.put(&[0xee; 40]).ok(&on_data(mode, prefix, 0xd9, 6));
        let head = [0x27f, 0x6a21, TAGS].map(|w| u32::from(w) | 0xffff_0000);
        let image = pc.get::<40>();
        for (i, want) in head.iter().chain(&pointers).enumerate() {
            let got = image[i * size..][..size].iter().rev().fold(0, |v, b| v << 8 | u32::from(*b));
            let want = if size == 2 { want & 0xffff } else { *want };
            assert_eq!(got, want, "mode {mode:#x} {size}: word {i}");
        }
        assert_eq!(image[7 * size], 0xee, "no more than that");
        // FNSTENV masks all exceptions.
        assert_eq!(*pc.x(), X87 { cw: 0x27f | 0x3f, ..before });
        // FLDENV brings back what the layout holds: state, tags, and the pointers as addresses.
        pc.v.cpu.x87 = X87 { st: before.st, ..X87::default() };
        pc.ok(&on_data(mode, prefix, 0xd9, 4));
        let x = *pc.x();
        assert_eq!((x.st, x.cw, x.sw, x.full), (before.st, before.cw, before.sw, before.full));
        if mode == REAL {
            let all = if size == 2 { 0xf_ffff } else { 0xffff_ffff };
            assert_eq!((x.fip, x.fcs), ((0x1234_5678 + 0x230) & all, 0));
            assert_eq!((x.fdp, x.fds, x.fop), ((0x9abc_def0 + 0x2b0) & all, 0, 0x5a6));
        } else {
            let all = if size == 2 { 0xffff } else { u64::MAX };
            assert_eq!((x.fip, x.fcs), (0x1234_5678 & all, 0x23));
            assert_eq!((x.fdp, x.fds), (0x9abc_def0 & all, 0x2b));
            assert_eq!(x.fop, if size == 2 { 0 } else { 0x5a6 });
        }
    }
}

#[test]
fn save_and_restore() {
    for (mode, prefix, size, _) in layouts() {
        let mut pc = Pc::new(mode);
        pc.v.cpu.x87 = sample();
        let before = *pc.x();
        let len = 7 * size + 80;
        pc.put(&[0xee; 120]).ok(&on_data(mode, prefix, 0xdd, 6));
        let image = pc.get::<120>();
        // The registers follow in the order of the stack.
        assert_eq!(image[7 * size..][..10], int(7).to_bytes());
        assert_eq!(image[7 * size + 20..][..10], INF.to_bytes());
        assert_eq!(image[len - 1..=len], [0, 0xee]);
        assert_eq!(*pc.x(), X87 { st: before.st, ..X87::default() });
        pc.v.cpu.x87.st = [St::default(); 8];
        pc.ok(&on_data(mode, prefix, 0xdd, 4));
        let x = *pc.x();
        assert_eq!((x.st, x.cw, x.sw, x.full), (before.st, before.cw, before.sw, before.full));
    }
    // FLDENV computes ES and B from the exceptions it loads.
    let mut pc = Pc::new(LONG);
    pc.put(&[0x7b, 3, 0, 0, 0x04, 0, 0, 0, 0xff, 0xff]).ok(&[0xd9, 0x26]);
    assert_eq!(pc.x().sw, 0x8084);
    assert_eq!(pc.run(&WAIT), vector::MF);
}

#[test]
fn memory_faults_change_nothing() {
    // Every kind of access, wholly beyond the end of memory and across it.
    let cases: &[([u8; 2], u64)] = &[
        ([0xd9, 0x06], 4),
        ([0xdd, 0x06], 8),
        ([0xdb, 0x2e], 10),
        ([0xdf, 0x26], 10),
        ([0xd8, 0x06], 4),
        ([0xdc, 0x1e], 8),
        ([0xde, 0x06], 2),
        ([0xd9, 0x1e], 4),
        ([0xdd, 0x1e], 8),
        ([0xdb, 0x3e], 10),
        ([0xdf, 0x36], 10),
        ([0xdf, 0x3e], 8),
        ([0xd9, 0x2e], 2),
        ([0xd9, 0x3e], 2),
        ([0xdd, 0x3e], 2),
        ([0xd9, 0x26], 28),
        ([0xd9, 0x36], 28),
        ([0xdd, 0x26], 108),
        ([0xdd, 0x36], 108),
    ];
    for (code, len) in cases {
        for at in [END, END - len + 1, END - 1] {
            let mut pc = Pc::with(MASKED, &[int(5), int(6)]);
            pc.v.cpu.set_reg(Reg::RSI, at);
            pc.v.cpu.mem.write_bytes(END - 128, &[0x77; 128]);
            let before = *pc.x();
            assert_eq!(pc.run(code), vector::PF, "{code:02x?}");
            assert_eq!(*pc.x(), before, "{code:02x?}");
            let mut tail = [0; 128];
            pc.v.cpu.mem.read_bytes(END - 128, &mut tail);
            assert_eq!(tail, [0x77; 128], "{code:02x?}");
        }
        let mut pc = Pc::with(MASKED, &[int(5), int(6)]);
        pc.v.cpu.set_reg(Reg::RSI, END - len);
        assert_ne!(pc.run(code), vector::PF, "{code:02x?} fits");
    }
}

#[test]
fn non_canonical_addresses() {
    // FLD, FSTP, FNSTCW, FNSAVE: by [rsi] #GP, by [rbp] #SS.
    for (esc, reg) in [(0xd9, 0), (0xd9, 3), (0xd9, 7), (0xdd, 6)] {
        let mut pc = Pc::with(MASKED, &[int(5)]);
        pc.v.cpu.set_reg(Reg::RSI, 1 << 47);
        pc.v.cpu.set_reg(Reg::RBP, 1 << 47);
        assert_eq!(pc.run(&[esc, reg << 3 | 6]), vector::GP);
        assert_eq!(pc.run(&[esc, reg << 3 | 0x45, 0]), vector::SS);
    }
}

#[test]
fn a_store_into_the_next_instruction() {
    let mut pc = Pc::new(LONG);
    // fild dword [rsi]; fistp dword [rdi]; nop ×4, which becomes mov al, 7; nop; nop.
    pc.v.cpu.set_reg(Reg::RDI, pc.at + 4);
    pc.put(&[0xb0, 0x07, 0x90, 0x90]).ok(&[0xdb, 0x06, 0xdb, 0x1f, 0x90, 0x90, 0x90, 0x90]);
    assert_eq!(pc.v.cpu.reg(Reg::RAX), 7);
}

#[test]
fn physical_register_of_the_stack_top() {
    let x = X87 { sw: 6 << 11, ..X87::default() };
    assert_eq!([0, 1, 2].map(|i| physical(&x, i)), [6, 7, 0]);
}
