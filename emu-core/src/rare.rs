//! One canonical micro-op executed directly: the plain reading of the op table.
//!
//! The interpreter runs the ops here that are too rare for a handler of their own; tests run whole
//! blocks through it as the reference for the threaded form. Block ends are not executed here.

use crate::cpu::{Cpu, Reg, Seg, Ymm};
use crate::fault::{self, Fault, Guest};
use crate::flags::Flags;
use crate::fp::{Env, Ex};
use crate::mem::tlb::Access;
use crate::uop::{Args, Effect, Mem, Op, Src, Uop};
use crate::vec::{Meaning, V3, V128, W3, settle};
use crate::width::Width;

/// Linear address of a memory operand.
#[inline]
pub fn address(cpu: &Cpu, m: &Mem) -> u64 {
    m.addr
        .zext(
            cpu.reg(m.base)
                .wrapping_add(cpu.reg(m.index) << (m.scale & 3))
                .wrapping_add(m.disp as i64 as u64),
        )
        .wrapping_add(cpu.reg(m.seg))
}

fn src(cpu: &Cpu, s: Src) -> u64 {
    match s {
        Src::Reg(r) => cpu.reg(r),
        Src::Imm(v) => v as u64,
    }
}

fn put(cpu: &mut Cpu, u: &Uop, w: Width, v: u64) {
    if u.d != Reg::ZERO {
        cpu.write_reg(u.d, w, v);
    }
}

/// Executes `u`, which does not end a block.
///
/// # Errors
/// The fault it raises; nothing was changed then.
///
/// # Panics
/// For a micro-op that ends its block, lacks its helper, or has a vector operation of the wrong
/// kind of result: a bug in the caller.
#[allow(clippy::missing_panics_doc)]
pub fn run(cpu: &mut Cpu, u: &Uop) -> Guest<()> {
    if misaligned(cpu, u) {
        return Err(Fault::GP0);
    }
    let stack =
        |f: Fault| if u.mem.stack && f.vector == fault::vector::GP { Fault::SS0 } else { f };
    execute(cpu, u).map_err(stack)
}

/// Calls the helper of `u`.
///
/// # Errors
/// What it raises.
///
/// # Panics
/// When `u` is none that has a helper: a bug in the caller.
pub fn helper(cpu: &mut Cpu, u: &Uop) -> Guest<()> {
    let b = if let Src::Reg(r) = u.b { r } else { Reg::ZERO };
    let args = Args { w: u.w, k: u.k, d: u.d, a: u.a, b, imm: u.imm as u64 };
    let helper = u.helper.expect("a helper micro-op without its helper");
    (helper.call)(cpu, args)
}

fn execute(cpu: &mut Cpu, u: &Uop) -> Guest<()> {
    if let Some(eval) = u.op.row().eval {
        let (a, b, c) = (cpu.reg(u.a), src(cpu, u.b), cpu.reg(u.c));
        let (v, f) = eval(u.w, u.k, a, b, c, cpu.flags);
        put(cpu, u, u.w, v);
        cpu.flags = cpu.flags.update(f, u.fl);
        return Ok(());
    }
    match u.op {
        Op::Lea => {
            let v = address(cpu, &Mem { seg: Reg::ZERO, ..u.mem });
            put(cpu, u, u.w, v);
        }
        Op::Ld | Op::Ldz | Op::Lds => {
            let va = address(cpu, &u.mem);
            let v = cpu.read(va, u.w)?;
            match u.op {
                Op::Ld => put(cpu, u, u.w, v),
                Op::Ldz => put(cpu, u, Width::W64, v),
                _ => put(cpu, u, Width::from_index(u.k), u.w.sext(v)),
            }
        }
        Op::Ldw => {
            let va = address(cpu, &u.mem);
            cpu.probe(va, u.w.bytes(), Access::Write)?;
            let v = cpu.read(va, u.w)?;
            put(cpu, u, Width::W64, v);
        }
        Op::St | Op::Stw => {
            let va = address(cpu, &u.mem);
            let v = src(cpu, u.b);
            cpu.write(va, u.w, v)?;
        }
        Op::Chkw => {
            let va = address(cpu, &u.mem);
            cpu.probe(va, u64::from(u.k), Access::Write)?;
        }
        Op::Lin => {
            let s = Seg::ALL[(u.k & 7).min(5) as usize];
            let off = cpu.reg(u.a);
            let v = (cpu.frontend.linear)(cpu, s, off, u.imm as u32, u.k & 8 != 0)?;
            put(cpu, u, Width::W64, v);
        }
        Op::Vld => {
            let va = address(cpu, &u.mem);
            let v = match u.k & 127 {
                32 => words(&cpu.read_array::<32>(va)?),
                16 => words(&cpu.read_array::<16>(va)?),
                n => [cpu.read(va, Width::from_bytes(n.into()).unwrap_or(Width::W64))?, 0, 0, 0],
            };
            cpu.v[vix(u.d)] = v;
        }
        Op::Vst => {
            let va = address(cpu, &u.mem);
            let v = cpu.v[vix(u.a)];
            match u.k & 127 {
                n @ (16 | 32) => {
                    let mut bytes = [0; 32];
                    for (b, w) in bytes.chunks_exact_mut(8).zip(v) {
                        b.copy_from_slice(&w.to_le_bytes());
                    }
                    cpu.write_array(va, &bytes[..n as usize])?;
                }
                n => cpu.write(va, Width::from_bytes(n.into()).unwrap_or(Width::W64), v[0])?,
            }
        }
        Op::V => vector(cpu, u)?,
        Op::Vx => {
            let (v, bits, ex) = match u.vop.meaning() {
                Meaning::Int(eval) => eval(&sources(cpu, u, 0), u.imm as u8, cpu.mxcsr),
                Meaning::WideInt(eval) => {
                    let (v, bits) = eval(&wide_sources(cpu, u), u.imm as u8);
                    (v, bits, Ex::empty())
                }
                _ => panic!("{} has a vector result", u.vop.name()),
            };
            raise_simd(cpu, ex)?;
            put(cpu, u, u.w, v);
            cpu.flags = cpu.flags.update(Flags::from_bits(bits), u.fl);
        }
        Op::Vget => {
            let v = cpu.v[vix(u.a)];
            let bit = u.imm as u32 * u.w.bits();
            let v = u.w.zext(v[(bit / 64) as usize & 3] >> (bit % 64));
            put(cpu, u, Width::W64, v);
        }
        Op::Vset => {
            let b = u.w.zext(src(cpu, u.b));
            let old = cpu.v[vix(u.a)];
            let mut v = if u.k & 1 != 0 { [0; 4] } else { old };
            let bit = u.imm as u32 * u.w.bits();
            let word = &mut v[(bit / 64) as usize & 3];
            *word = *word & !(u.w.mask() << (bit % 64)) | b << (bit % 64);
            if u.k & 1 == 0 {
                let rest = cpu.v[vix(u.d)];
                (v[2], v[3]) = (rest[2], rest[3]);
            }
            cpu.v[vix(u.d)] = v;
        }
        Op::Code => put(cpu, u, Width::W64, cpu.mem.ram.read(u.imm as u64, u.w)),
        Op::Mxcsr => put(cpu, u, Width::W64, cpu.mxcsr.into()),
        Op::Vzero => {
            for v in cpu.v.iter_mut().take(u.k.into()) {
                v.iter_mut().skip(u.imm as usize).for_each(|w| *w = 0);
            }
        }
        Op::Helper => helper(cpu, u)?,
        _ => {
            assert!(u.op.row().effect != Effect::End, "{:?} ends a block", u.op);
        }
    }
    Ok(())
}

fn vix(r: Reg) -> usize {
    r.0 as usize % 24
}

fn words(bytes: &[u8]) -> Ymm {
    let mut v = [0; 4];
    for (w, b) in v.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *w = u64::from_le_bytes(*b);
    }
    v
}

/// Whether `u` is a vector access that must be aligned and is not: #GP(0), whatever the segment.
pub fn misaligned(cpu: &Cpu, u: &Uop) -> bool {
    matches!(u.op, Op::Vld | Op::Vst)
        && u.k & 0x80 != 0
        && address(cpu, &u.mem) & (u64::from(u.k & 127) - 1) != 0
}

fn sources(cpu: &Cpu, u: &Uop, lane: usize) -> V3 {
    let b = if let Src::Reg(r) = u.b { r } else { Reg::ZERO };
    let get = |r: Reg| -> V128 {
        let v = &cpu.v[vix(r)];
        [v[2 * lane], v[2 * lane + 1]]
    };
    V3 { a: get(u.a), b: get(b), c: get(u.c) }
}

fn wide_sources(cpu: &Cpu, u: &Uop) -> W3 {
    let b = if let Src::Reg(r) = u.b { r } else { Reg::ZERO };
    W3 { a: cpu.v[vix(u.a)], b: cpu.v[vix(b)] }
}

/// Adds the exceptions to MXCSR; #XM if one of them is unmasked (SDM Vol. 1, 11.5).
fn raise_simd(cpu: &mut Cpu, ex: Ex) -> Guest<()> {
    let bits = u32::from(ex.bits());
    cpu.mxcsr |= bits;
    if bits & !(cpu.mxcsr >> 7) & 0x3f != 0 {
        // Without CR4.OSXMMEXCPT it is #UD.
        return Err(if cpu.sys.cr4 & 1 << 10 != 0 { Fault::XM } else { Fault::UD });
    }
    Ok(())
}

fn vector(cpu: &mut Cpu, u: &Uop) -> Guest<()> {
    let (bytes, zero_upper, imm) = (u.k & 127, u.k & 128 != 0, u.imm as u8);
    let (mut v, ex) = match u.vop.meaning() {
        Meaning::Vec(eval) => {
            let (lo, mut ex) = eval(&sources(cpu, u, 0), imm, cpu.mxcsr);
            let mut v = [lo[0], lo[1], 0, 0];
            if bytes == 32 {
                let (hi, upper) = eval(&sources(cpu, u, 1), u.vop.upper_imm(imm), cpu.mxcsr);
                (v[2], v[3]) = (hi[0], hi[1]);
                ex = settle(ex | upper, Env::from_mxcsr(cpu.mxcsr));
            }
            (v, ex)
        }
        Meaning::Wide(eval) => (eval(&wide_sources(cpu, u), imm), Ex::empty()),
        _ => panic!("{} has an integer result", u.vop.name()),
    };
    if bytes == 8 {
        v[1] = 0;
    }
    if bytes < 32 {
        let old = cpu.v[vix(u.d)];
        (v[2], v[3]) = if zero_upper { (0, 0) } else { (old[2], old[3]) };
    }
    raise_simd(cpu, ex)?;
    cpu.v[vix(u.d)] = v;
    Ok(())
}
