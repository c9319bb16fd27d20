//! Arithmetic, comparison and the functions (SDM Vol. 1, 8.3.5–8.3.10).

use super::*;
use emu_core::flags::{CF, Flags, PF, ZF};
use emu_core::fp::x87::{self, Operand};
use emu_core::fp::{Env87, Order, transcendental};

codes! {
    /// Basic arithmetic on a destination register and another operand.
    Arith: Add Mul Sub Subr Div Divr
}

codes! {
    /// Comparisons of ST(0): signaling and quiet, into the condition codes or RFLAGS, with zero.
    Compare: Com Ucom Comi Ucomi Tst
}

codes! {
    /// What takes its operands from ST(0), or ST(0) and ST(1), only.
    Function: Abs Chs Sqrt Rndint Xtract F2xm1 Sin Cos Sincos Ptan Scale Prem Prem1 Yl2x Yl2xp1
        Patan
}

/// The operand that need not be a register, as arithmetic sees it; `None` is an empty register.
fn operand(cpu: &mut Cpu, x: Args, form: Form) -> Guest<Option<Operand>> {
    if form.format == Format::St {
        return Ok(st(&cpu.x87, form.src).map(Operand::from));
    }
    let (low, _) = fetch(cpu, x, form)?;
    Ok(Some(match form.format {
        Format::F32 => Operand::from_f32(low as u32),
        Format::F64 => Operand::from_f64(low),
        Format::I16 => Operand::from_int(i32::from(low as i16)),
        _ => Operand::from_int(low as i32),
    }))
}

/// FADD, FMUL, FSUB, FSUBR, FDIV, FDIVR with their popping and integer forms.
pub fn arith(cpu: &mut Cpu, x: Args) -> Guest<()> {
    let form = begin(cpu, x)?;
    let b = operand(cpu, x, form)?;
    note(cpu, x, form);
    let fpu = &mut cpu.x87;
    let env = Env87::from_fcw(fpu.cw);
    let (v, go_on) = match (st(fpu, form.dst), b) {
        (Some(a), Some(b)) => {
            let (v, ex, c1) = match Arith::from_code(x.k) {
                Arith::Add => x87::add(a, b, env),
                Arith::Mul => x87::mul(a, b, env),
                Arith::Sub => x87::sub(a, b, env),
                Arith::Subr => x87::sub(b, a, env),
                Arith::Div => x87::div(a, b, env),
                Arith::Divr => x87::div(b, a, env),
            };
            (v, raise(fpu, ex, c1))
        }
        _ => (F80::INDEFINITE, underflow(fpu)),
    };
    if go_on {
        set(fpu, form.dst, v);
        pop(fpu, form.pops);
    }
    Ok(())
}

/// FCOM, FUCOM, FCOMI, FUCOMI with their popping and integer forms, FTST.
pub fn compare(cpu: &mut Cpu, x: Args) -> Guest<()> {
    let form = begin(cpu, x)?;
    let op = Compare::from_code(x.k);
    let b = match op {
        Compare::Tst => Some(F80::ZERO.into()),
        _ => operand(cpu, x, form)?,
    };
    note(cpu, x, form);
    let fpu = &mut cpu.x87;
    let (order, go_on) = match (st(fpu, 0), b) {
        (Some(a), Some(b)) => {
            let (order, ex) = match op {
                Compare::Ucom | Compare::Ucomi => x87::cmp_quiet(a, b),
                _ => x87::cmp_signaling(a, b),
            };
            (order, raise(fpu, ex, false))
        }
        _ => (Order::Unordered, underflow(fpu)),
    };
    if go_on {
        pop(fpu, form.pops);
    }
    if matches!(op, Compare::Comi | Compare::Ucomi) {
        cpu.flags = Flags::from_bits(match order {
            Order::Less => CF,
            Order::Equal => ZF,
            Order::Greater => 0,
            Order::Unordered => ZF | PF | CF,
        });
    } else {
        let code = match order {
            Order::Less => sw::C0,
            Order::Equal => sw::C3,
            Order::Greater => 0,
            Order::Unordered => sw::C3 | sw::C2 | sw::C0,
        };
        set_condition(fpu, code);
    }
    Ok(())
}

/// FXAM: the only instruction that looks at an empty register without a fault.
pub fn examine(cpu: &mut Cpu, x: Args) -> Guest<()> {
    let form = begin(cpu, x)?;
    note(cpu, x, form);
    let fpu = &mut cpu.x87;
    let code = st(fpu, 0).map_or(sw::C3 | sw::C0, F80::fxam);
    set_condition(fpu, code);
    let sign = raw(fpu, 0).sign();
    set_c1(fpu, sign);
    Ok(())
}

/// What a function leaves.
struct Done {
    /// Result, for ST(0); for ST(1) where the function then pops.
    value: F80,
    /// Second result, pushed after the first was written.
    pushed: Option<F80>,
    ex: Ex,
    c1: bool,
    /// C0, C2 and C3 of a remainder.
    condition: Option<u16>,
}

impl From<(F80, Ex, bool)> for Done {
    fn from((value, ex, c1): (F80, Ex, bool)) -> Done {
        Done { value, pushed: None, ex, c1, condition: None }
    }
}

impl From<x87::Remainder> for Done {
    fn from(r: x87::Remainder) -> Done {
        let bit = |n: u8, c: u16| if r.quotient >> n & 1 != 0 { c } else { 0 };
        let partial = if r.partial { sw::C2 } else { 0 };
        let condition = bit(2, sw::C0) | bit(1, sw::C3) | partial;
        let condition = (r.value.class() != x87::Class::Nan).then_some(condition);
        Done { c1: r.quotient & 1 != 0, condition, ..(r.value, r.ex, false).into() }
    }
}

impl Function {
    fn binary(self) -> bool {
        self as u8 >= Function::Scale as u8
    }
    fn pops(self) -> bool {
        self as u8 >= Function::Yl2x as u8
    }
    fn pushes(self) -> bool {
        matches!(self, Function::Xtract | Function::Sincos | Function::Ptan)
    }
    /// C2 tells whether the operation was left undone or incomplete.
    fn completes(self) -> bool {
        use Function::*;
        matches!(self, Sin | Cos | Sincos | Ptan | Prem | Prem1)
    }

    /// Computes; `None` is a trigonometric operand out of range.
    fn compute(self, a: F80, b: F80, env: Env87) -> Option<Done> {
        let done = match self {
            Function::Abs => (a.abs(), Ex::empty(), false).into(),
            Function::Chs => (a.neg(), Ex::empty(), false).into(),
            Function::Sqrt => x87::sqrt(a, env).into(),
            Function::Rndint => x87::round_to_int(a, env).into(),
            Function::F2xm1 => transcendental::f2xm1(a, env).into(),
            Function::Scale => x87::scale(a, b, env).into(),
            Function::Prem => x87::prem(a, b, env).into(),
            Function::Prem1 => x87::prem1(a, b, env).into(),
            Function::Yl2x => transcendental::fyl2x(a, b, env).into(),
            Function::Yl2xp1 => transcendental::fyl2xp1(a, b, env).into(),
            Function::Patan => transcendental::fpatan(a, b, env).into(),
            Function::Sin => transcendental::fsin(a, env)?.into(),
            Function::Cos => transcendental::fcos(a, env)?.into(),
            Function::Xtract => {
                let (exponent, significand, ex) = x87::extract(a, env);
                let pushed = Some(significand);
                Done { pushed, ..(exponent, ex, false).into() }
            }
            Function::Sincos => {
                let (sin, cos, ex, c1) = transcendental::fsincos(a, env)?;
                Done { pushed: Some(cos), ..(sin, ex, c1).into() }
            }
            Function::Ptan => {
                let (tan, ex, c1) = transcendental::fptan(a, env)?;
                // A NaN is not the quotient of anything by 1.
                let nan = tan.class() == x87::Class::Nan;
                let pushed = Some(if nan { tan } else { F80::ONE });
                Done { pushed, ..(tan, ex, c1).into() }
            }
        };
        Some(done)
    }
}

/// The instructions of [`Function`].
pub fn function(cpu: &mut Cpu, x: Args) -> Guest<()> {
    let form = begin(cpu, x)?;
    note(cpu, x, form);
    let op = Function::from_code(x.k);
    let fpu = &mut cpu.x87;
    if op.completes() {
        fpu.sw &= !sw::C2;
    }
    let b = if op.binary() { st(fpu, 1) } else { Some(F80::ZERO) };
    let indefinite = || Done::from((F80::INDEFINITE, Ex::empty(), false));
    let (done, go_on) = match (st(fpu, 0), b) {
        (Some(a), Some(b)) => match op.compute(a, b, Env87::from_fcw(fpu.cw)) {
            _ if op.pushes() && st(fpu, 7).is_some() => (indefinite(), overflow(fpu)),
            Some(done) => {
                let go_on = raise(fpu, done.ex, done.c1);
                (done, go_on)
            }
            None => {
                set_c1(fpu, false);
                fpu.sw |= sw::C2;
                return Ok(());
            }
        },
        _ => (indefinite(), underflow(fpu)),
    };
    if !go_on {
        return Ok(());
    }
    set(fpu, u8::from(op.pops()), done.value);
    if op.pushes() {
        push(fpu, done.pushed.unwrap_or(F80::INDEFINITE));
    }
    pop(fpu, u8::from(op.pops()));
    if let Some(code) = done.condition {
        set_condition(fpu, code);
    }
    Ok(())
}
