//! [`super::sse`] judged by the host's SSE unit: results and flags, bit for bit, in every rounding
//! mode, with and without DAZ and FTZ. All exceptions stay masked, or the host would trap.
#![allow(unsafe_code)]

use super::num::{DOUBLE, Format, SINGLE};
use super::sample::Sample;
use super::sse::Float;
use super::{Env, Ex, Order, Round, sse};
use std::arch::asm;

const CASES: u32 = 250_000;

/// A random MXCSR without flags: all masked, any rounding mode, DAZ and FTZ at times.
fn mxcsr(s: &mut Sample) -> u32 {
    let extra = if s.below(2) == 0 { 0 } else { (s.below(2) << 6 | s.below(2) << 15) as u32 };
    0x1f80 | (s.below(4) as u32) << 13 | extra
}

/// Defines a host function around one instruction: operands and MXCSR in, result and flags out.
macro_rules! host {
    ($name:ident($($arg:ident: $ty:ty as $class:ident = $load:expr),*) -> $out:ty as $oclass:ident,
     $store:expr, $($insn:literal),+) => {
        fn $name($($arg: $ty,)* csr: u32) -> ($out, Ex) {
            let (csr, mut flags, mut saved) = (csr, 0u32, 0u32);
            let r;
            // SAFETY: the instruction works on registers only; MXCSR is restored before the end,
            // every exception is masked, and the two words written are locals.
            unsafe {
                asm!("stmxcsr [{saved}]", "ldmxcsr [{csr}]", $($insn,)+ "stmxcsr [{flags}]",
                     "ldmxcsr [{saved}]", saved = in(reg) &mut saved, csr = in(reg) &csr,
                     flags = in(reg) &mut flags, $($arg = in($class) $load,)*
                     r = out($oclass) r);
            }
            ($store(r), Ex::from_bits_truncate(flags as u8))
        }
    };
}

/// Two operands of one format, and a result of the same.
macro_rules! binary {
    ($($single:ident, $double:ident = $s:literal, $d:literal;)*) => {$(
        host!($single(a: u32 as xmm_reg = f32::from_bits(a), b: u32 as xmm_reg = f32::from_bits(b))
              -> u32 as xmm_reg, f32::to_bits, "movaps {r}, {a}", $s);
        host!($double(a: u64 as xmm_reg = f64::from_bits(a), b: u64 as xmm_reg = f64::from_bits(b))
              -> u64 as xmm_reg, f64::to_bits, "movaps {r}, {a}", $d);
    )*};
}

binary! {
    add32, add64 = "addss {r}, {b}", "addsd {r}, {b}";
    sub32, sub64 = "subss {r}, {b}", "subsd {r}, {b}";
    mul32, mul64 = "mulss {r}, {b}", "mulsd {r}, {b}";
    div32, div64 = "divss {r}, {b}", "divsd {r}, {b}";
    min32, min64 = "minss {r}, {b}", "minsd {r}, {b}";
    max32, max64 = "maxss {r}, {b}", "maxsd {r}, {b}";
    sqrt32, sqrt64 = "sqrtss {r}, {a} # {b}", "sqrtsd {r}, {a} # {b}";
    round0_32, round0_64 = "roundss {r}, {a}, 0 # {b}", "roundsd {r}, {a}, 0 # {b}";
    round1_32, round1_64 = "roundss {r}, {a}, 1 # {b}", "roundsd {r}, {a}, 1 # {b}";
    round2_32, round2_64 = "roundss {r}, {a}, 2 # {b}", "roundsd {r}, {a}, 2 # {b}";
    round3_32, round3_64 = "roundss {r}, {a}, 11 # {b}", "roundsd {r}, {a}, 11 # {b}";
}

/// One operand, and a result of another kind.
macro_rules! unary {
    ($($name:ident($ty:ty as $class:ident = $load:expr) -> $out:ty as $oclass:ident, $store:expr
       => $insn:literal;)*) => {$(
        host!($name(a: $ty as $class = $load(a)) -> $out as $oclass, $store, $insn);
    )*};
}

unary! {
    widen(u32 as xmm_reg = f32::from_bits) -> u64 as xmm_reg, f64::to_bits => "cvtss2sd {r}, {a}";
    narrow(u64 as xmm_reg = f64::from_bits) -> u32 as xmm_reg, f32::to_bits => "cvtsd2ss {r}, {a}";
    s_i32(u32 as xmm_reg = f32::from_bits) -> i32 as reg, |r: i32| r => "cvtss2si {r:e}, {a}";
    s_i64(u32 as xmm_reg = f32::from_bits) -> i64 as reg, |r: i64| r => "cvtss2si {r:r}, {a}";
    s_i32t(u32 as xmm_reg = f32::from_bits) -> i32 as reg, |r: i32| r => "cvttss2si {r:e}, {a}";
    s_i64t(u32 as xmm_reg = f32::from_bits) -> i64 as reg, |r: i64| r => "cvttss2si {r:r}, {a}";
    d_i32(u64 as xmm_reg = f64::from_bits) -> i32 as reg, |r: i32| r => "cvtsd2si {r:e}, {a}";
    d_i64(u64 as xmm_reg = f64::from_bits) -> i64 as reg, |r: i64| r => "cvtsd2si {r:r}, {a}";
    d_i32t(u64 as xmm_reg = f64::from_bits) -> i32 as reg, |r: i32| r => "cvttsd2si {r:e}, {a}";
    d_i64t(u64 as xmm_reg = f64::from_bits) -> i64 as reg, |r: i64| r => "cvttsd2si {r:r}, {a}";
    i32_s(i32 as reg = i32::from) -> u32 as xmm_reg, f32::to_bits => "cvtsi2ss {r}, {a:e}";
    i64_s(i64 as reg = i64::from) -> u32 as xmm_reg, f32::to_bits => "cvtsi2ss {r}, {a:r}";
    i32_d(i32 as reg = i32::from) -> u64 as xmm_reg, f64::to_bits => "cvtsi2sd {r}, {a:e}";
    i64_d(i64 as reg = i64::from) -> u64 as xmm_reg, f64::to_bits => "cvtsi2sd {r}, {a:r}";
}

// The outcome of a comparison is in RFLAGS.
host!(ucomi32(a: u32 as xmm_reg = f32::from_bits(a), b: u32 as xmm_reg = f32::from_bits(b))
      -> Order as reg, order, "ucomiss {a}, {b}", "pushfq", "pop {r}");
host!(comi32(a: u32 as xmm_reg = f32::from_bits(a), b: u32 as xmm_reg = f32::from_bits(b))
      -> Order as reg, order, "comiss {a}, {b}", "pushfq", "pop {r}");
host!(ucomi64(a: u64 as xmm_reg = f64::from_bits(a), b: u64 as xmm_reg = f64::from_bits(b))
      -> Order as reg, order, "ucomisd {a}, {b}", "pushfq", "pop {r}");
host!(comi64(a: u64 as xmm_reg = f64::from_bits(a), b: u64 as xmm_reg = f64::from_bits(b))
      -> Order as reg, order, "comisd {a}, {b}", "pushfq", "pop {r}");

/// The three operand orders of FMA.
macro_rules! fused {
    ($($single:ident, $double:ident = $s:literal, $d:literal;)*) => {$(
        host!($single(a: u32 as xmm_reg = f32::from_bits(a), b: u32 as xmm_reg = f32::from_bits(b),
                      c: u32 as xmm_reg = f32::from_bits(c))
              -> u32 as xmm_reg, f32::to_bits, "movaps {r}, {a}", $s);
        host!($double(a: u64 as xmm_reg = f64::from_bits(a), b: u64 as xmm_reg = f64::from_bits(b),
                      c: u64 as xmm_reg = f64::from_bits(c))
              -> u64 as xmm_reg, f64::to_bits, "movaps {r}, {a}", $d);
    )*};
}

fused! {
    fma132_32, fma132_64 = "vfmadd132ss {r}, {b}, {c}", "vfmadd132sd {r}, {b}, {c}";
    fma213_32, fma213_64 = "vfmadd213ss {r}, {b}, {c}", "vfmadd213sd {r}, {b}, {c}";
    fma231_32, fma231_64 = "vfmadd231ss {r}, {b}, {c}", "vfmadd231sd {r}, {b}, {c}";
    fnma231_32, fnma231_64 = "vfnmsub231ss {r}, {b}, {c}", "vfnmsub231sd {r}, {b}, {c}";
}

/// RFLAGS after COMISD: CF 0, PF 2, ZF 6.
fn order(flags: u64) -> Order {
    match flags & 0x45 {
        0x45 => Order::Unordered,
        0x40 => Order::Equal,
        0x01 => Order::Less,
        _ => Order::Greater,
    }
}

/// Runs both sides of a two-operand instruction on pairs of a format.
fn compare<B: Float + std::fmt::LowerHex, R: PartialEq + std::fmt::Debug>(
    name: &str,
    ours: impl Fn(B, B, Env) -> R,
    host: impl Fn(B, B, u32) -> R,
) {
    let f: Format = B::FORMAT;
    let mut s = Sample::new(name.len() as u64 + f.prec as u64);
    for _ in 0..CASES {
        let ((a, b), csr) = (s.pair(f), mxcsr(&mut s));
        let (a, b) = (B::from_bits(a), B::from_bits(b));
        let (got, want) = (ours(a, b, Env::from_mxcsr(csr)), host(a, b, csr));
        assert!(got == want, "{name} {a:#x} {b:#x} mxcsr {csr:#x}: {got:x?}, host {want:x?}");
    }
}

macro_rules! binary_tests {
    ($($test:ident = $ours:expr, $single:ident, $double:ident;)*) => {$(
        #[test]
        fn $test() {
            compare::<u32, _>(stringify!($single), $ours, $single);
            compare::<u64, _>(stringify!($double), $ours, $double);
        }
    )*};
}

binary_tests! {
    add_as_host = sse::add, add32, add64;
    sub_as_host = sse::sub, sub32, sub64;
    mul_as_host = sse::mul, mul32, mul64;
    div_as_host = sse::div, div32, div64;
    min_as_host = sse::min, min32, min64;
    max_as_host = sse::max, max32, max64;
    sqrt_as_host = |a, _, env| sse::sqrt(a, env), sqrt32, sqrt64;
    round_nearest_as_host =
        |a, _, env| sse::round_to_int(a, Round::Nearest, false, env), round0_32, round0_64;
    round_down_as_host =
        |a, _, env| sse::round_to_int(a, Round::Down, false, env), round1_32, round1_64;
    round_up_as_host =
        |a, _, env| sse::round_to_int(a, Round::Up, false, env), round2_32, round2_64;
    round_zero_quietly_as_host =
        |a, _, env| sse::round_to_int(a, Round::Zero, true, env), round3_32, round3_64;
    cmp_quiet_as_host = sse::cmp_quiet, ucomi32, ucomi64;
    cmp_signaling_as_host = sse::cmp_signaling, comi32, comi64;
}

/// A fused host instruction on its three operands.
type Fused<B> = fn(B, B, B, u32) -> (B, Ex);

/// The forms 132, 213, 231 of VFMADD and 231 of VFNMSUB, of the same product and sum.
fn compare_fused<B: Float + std::fmt::LowerHex + std::fmt::Debug>(hosts: [Fused<B>; 4]) {
    let f: Format = B::FORMAT;
    let mut s = Sample::new(3);
    for _ in 0..2 * CASES {
        let ((a, b), csr) = (s.pair(f), mxcsr(&mut s));
        let (a, b) = (B::from_bits(a), B::from_bits(b));
        // Half of the addends are near the product, so that it cancels.
        let c = match s.below(2) {
            0 => s.float(f),
            _ => s.near(f, sse::mul(a, b, Env::default()).0.to_bits()),
        };
        let c = B::from_bits(c);
        let env = Env::from_mxcsr(csr);
        let neg = sse::negate::<B>;
        let pairs = [
            (sse::fma(a, b, c, env), hosts[0](a, c, b, csr)),
            (sse::fma(a, b, c, env), hosts[1](b, a, c, csr)),
            (sse::fma(a, b, c, env), hosts[2](c, a, b, csr)),
            (sse::fma(neg(a), b, neg(c), env), hosts[3](c, a, b, csr)),
        ];
        for (got, want) in pairs {
            assert!(got == want, "{a:#x} {b:#x} {c:#x} {csr:#x}: {got:x?}, host {want:x?}");
        }
    }
}

#[test]
fn fma_as_host() {
    if !std::arch::is_x86_feature_detected!("fma") {
        return;
    }
    compare_fused::<u32>([fma132_32, fma213_32, fma231_32, fnma231_32]);
    compare_fused::<u64>([fma132_64, fma213_64, fma231_64, fnma231_64]);
}

#[test]
fn conversions_as_host() {
    let mut s = Sample::new(4);
    for _ in 0..CASES {
        let (a, b, csr) = (s.float(SINGLE) as u32, s.float(DOUBLE), mxcsr(&mut s));
        let env = Env::from_mxcsr(csr);
        let at = format!("{a:#x} {b:#x} mxcsr {csr:#x}");
        assert_eq!(sse::f32_to_f64(a, env), widen(a, csr), "{at}");
        assert_eq!(sse::f64_to_f32(b, env), narrow(b, csr), "{at}");
        assert_eq!(sse::to_i32(a, env), s_i32(a, csr), "{at}");
        assert_eq!(sse::to_i64(a, env), s_i64(a, csr), "{at}");
        assert_eq!(sse::to_i32_trunc(a, env), s_i32t(a, csr), "{at}");
        assert_eq!(sse::to_i64_trunc(a, env), s_i64t(a, csr), "{at}");
        assert_eq!(sse::to_i32(b, env), d_i32(b, csr), "{at}");
        assert_eq!(sse::to_i64(b, env), d_i64(b, csr), "{at}");
        assert_eq!(sse::to_i32_trunc(b, env), d_i32t(b, csr), "{at}");
        assert_eq!(sse::to_i64_trunc(b, env), d_i64t(b, csr), "{at}");
        let (long, short) = (s.field(64) as i64, s.field(32) as i32);
        let at = format!("{long} {short} mxcsr {csr:#x}");
        assert_eq!(sse::from_i32::<u32>(short, env), i32_s(short, csr), "{at}");
        assert_eq!(sse::from_i32::<u64>(short, env), i32_d(short, csr), "{at}");
        assert_eq!(sse::from_i64::<u32>(long, env), i64_s(long, csr), "{at}");
        assert_eq!(sse::from_i64::<u64>(long, env), i64_d(long, csr), "{at}");
    }
}
