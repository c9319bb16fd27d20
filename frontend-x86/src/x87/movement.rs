//! Data transfer: loads, stores, constants, and what rearranges the stack (SDM Vol. 1, 8.3.3,
//! 8.3.4, 5.2.1).

use super::*;
use emu_core::fp::transcendental::{self, Constant};
use emu_core::fp::{Env87, Round, x87};
use emu_core::mem::tlb::Access;

codes! {
    /// Instructions on the stack's order and tags.
    Move: Nop Xch Free Freep Incstp Decstp Stpnce
}

/// Pushes `v`; `None` is an empty source register.
fn deliver(x: &mut X87, v: Option<F80>, ex: Ex) {
    let go_on = match v {
        None => underflow(x),
        _ if st(x, 7).is_some() => overflow(x),
        Some(v) => {
            // Unlike arithmetic, a load is not stopped by an unmasked DE.
            raise(x, ex, false);
            if !ex.intersects(unmasked(x) & Ex::IE) {
                push(x, v);
            }
            return;
        }
    };
    if go_on {
        push(x, F80::INDEFINITE);
    }
}

/// FLD, FILD, FBLD.
pub fn load(cpu: &mut Cpu, x: Args) -> Guest<()> {
    let form = begin(cpu, x)?;
    let exact = |v: F80| (Some(v), Ex::empty());
    let integer = |v: i64| exact(F80::from_i64(v));
    let rounded = |(v, ex): (F80, Ex)| (Some(v), ex);
    let (v, ex) = if form.format == Format::St {
        (st(&cpu.x87, form.src), Ex::empty())
    } else {
        let (low, high) = fetch(cpu, x, form)?;
        match form.format {
            Format::F32 => rounded(F80::from_f32(low as u32)),
            Format::F64 => rounded(F80::from_f64(low)),
            Format::I16 => integer(i64::from(low as i16)),
            Format::I32 => integer(i64::from(low as i32)),
            Format::I64 => integer(low as i64),
            Format::Bcd => exact(F80::from_bcd(F80 { mant: low, se: high }.to_bytes())),
            Format::F80 | Format::St => exact(F80 { mant: low, se: high }),
        }
    };
    note(cpu, x, form);
    deliver(&mut cpu.x87, v, ex);
    Ok(())
}

/// FLD1, FLDL2T, FLDL2E, FLDPI, FLDLG2, FLDLN2, FLDZ.
pub fn constant(cpu: &mut Cpu, x: Args) -> Guest<()> {
    use Constant::*;
    let form = begin(cpu, x)?;
    note(cpu, x, form);
    let all = [One, Log2Of10, Log2OfE, Pi, Log10Of2, LnOf2, Zero];
    let which = all.get(usize::from(x.k)).copied().unwrap_or(Zero);
    let v = transcendental::constant(which, Env87::from_fcw(cpu.x87.cw).round);
    deliver(&mut cpu.x87, Some(v), Ex::empty());
    Ok(())
}

/// What a store writes: the bytes, the exceptions, C1.
type Stored = ([u8; 10], Ex, bool);

/// `v` in `format`; `round` is for the integers.
fn encode(v: F80, format: Format, env: Env87, round: Round) -> Stored {
    fn bytes((v, ex, c1): (impl Into<i128>, Ex, bool)) -> Stored {
        (F80 { mant: v.into() as u64, se: 0 }.to_bytes(), ex, c1)
    }
    match format {
        Format::F32 => bytes(x87::to_f32(v, env)),
        Format::F64 => bytes(x87::to_f64(v, env)),
        Format::I16 => bytes(x87::to_i16(v, round)),
        Format::I32 => bytes(x87::to_i32(v, round)),
        Format::I64 => bytes(x87::to_i64(v, round)),
        Format::Bcd => x87::to_bcd(v, round),
        Format::F80 | Format::St => (v.to_bytes(), Ex::empty(), false),
    }
}

/// Writes a memory operand: all of it or nothing.
fn write(cpu: &mut Cpu, x: Args, form: Form, image: [u8; 10]) -> Guest<()> {
    let (at, F80 { mant, se }) = (cpu.reg(x.a), F80::from_bytes(image));
    let r = match form.format.bytes() {
        2 => cpu.write(at, W16, mant),
        4 => cpu.write(at, W32, mant),
        8 => cpu.write(at, W64, mant),
        _ => {
            if at & 4095 > 4096 - 10 {
                form.located(cpu.probe(at, 10, Access::Write))?;
            }
            form.located(cpu.write(at, W64, mant))?;
            cpu.write(cpu.wrap_linear(at.wrapping_add(8)), W16, se.into())
        }
    };
    form.located(r)
}

/// FST, FSTP, FIST, FISTP, FBSTP, and FISTTP (`k` = 1).
pub fn store(cpu: &mut Cpu, x: Args) -> Guest<()> {
    let form = begin(cpu, x)?;
    let env = Env87::from_fcw(cpu.x87.cw);
    let round = if x.k == 1 { Round::Zero } else { env.round };
    let value = st(&cpu.x87, 0);
    let (out, ex, c1) = match value {
        Some(v) => encode(v, form.format, env, round),
        None => {
            let (out, ..) = encode(F80::INDEFINITE, form.format, env, round);
            (out, Ex::IE, false)
        }
    };
    // No result goes to memory with an unmasked numeric exception but PE (SDM Vol. 1, 8.5).
    let go_on = !ex.intersects(env.unmasked - Ex::PE);
    if go_on && form.format != Format::St {
        write(cpu, x, form, out)?;
    } else if form.format != Format::St {
        // A page fault comes before the numeric exception all the same.
        let (at, n) = (cpu.reg(x.a), form.format.bytes());
        form.located(cpu.probe(at, n.into(), Access::Write))?;
    }
    note(cpu, x, form);
    let fpu = &mut cpu.x87;
    if value.is_none() {
        fpu.sw |= sw::SF;
    }
    raise(fpu, ex, c1);
    if go_on {
        if form.format == Format::St {
            set(fpu, form.dst, F80::from_bytes(out));
        }
        pop(fpu, form.pops);
    }
    Ok(())
}

/// The instructions of [`Move`].
pub fn relocate(cpu: &mut Cpu, x: Args) -> Guest<()> {
    let form = begin(cpu, x)?;
    note(cpu, x, form);
    let fpu = &mut cpu.x87;
    let op = Move::from_code(x.k);
    if op != Move::Nop {
        set_c1(fpu, false);
    }
    match op {
        Move::Nop => {}
        Move::Free | Move::Freep => {
            free(fpu, form.dst);
            pop(fpu, form.pops);
        }
        Move::Stpnce => {
            if let Some(v) = st(fpu, 0) {
                set(fpu, form.dst, v);
            }
            pop(fpu, form.pops);
        }
        Move::Incstp => rotate(fpu, 1),
        Move::Decstp => rotate(fpu, 7),
        Move::Xch => {
            let (a, b) = (st(fpu, 0), st(fpu, form.src));
            if a.is_some() && b.is_some() || underflow(fpu) {
                set(fpu, 0, b.unwrap_or(F80::INDEFINITE));
                set(fpu, form.src, a.unwrap_or(F80::INDEFINITE));
            }
        }
    }
    Ok(())
}

/// FCMOVcc: `k` is the condition in the encoding of Jcc.
pub fn cmov(cpu: &mut Cpu, x: Args) -> Guest<()> {
    let form = begin(cpu, x)?;
    note(cpu, x, form);
    let condition = cpu.flags.cond(x.k);
    let fpu = &mut cpu.x87;
    match (st(fpu, 0), st(fpu, form.src)) {
        (Some(_), Some(v)) => {
            if condition {
                set(fpu, 0, v);
            }
        }
        _ => {
            if underflow(fpu) {
                set(fpu, 0, F80::INDEFINITE);
            }
        }
    }
    Ok(())
}
