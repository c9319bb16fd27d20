//! The handlers: one generic function per shape of micro-op, instantiated by [`super::thread`].
//! Meanings come from the op table's `eval`; here is only how operands are fetched and results
//! stored.

use super::{Handler, Leave, Rec, TAIL};
use crate::cpu::{Cpu, Reg, Seg, mode};
use crate::fault::{Fault, vector};
use crate::flags::{Flags, OSZAPC};
use crate::mem::phys::Writes;
use crate::mem::tlb::Access;
use crate::uop::{Args, Op, PureOp, Src, Uop};
use crate::width::Width;

/// Flag handling of an ALU handler: no flags, all six, or a merge under the mask in `Rec::t`.
pub mod fl {
    /// Writes none.
    pub const NONE: u8 = 0;
    /// Writes all six.
    pub const ALL: u8 = 1;
    /// Merges under the mask in `Rec::t`.
    pub const SOME: u8 = 2;
}

/// Addressing of a memory handler.
pub mod am {
    /// `[base + disp]`.
    pub const BASE: u8 = 0;
    /// `[base + index * scale + disp]`.
    pub const INDEX: u8 = 1;
    /// With segment base and address size.
    pub const FULL: u8 = 2;
}

const RIP: usize = Reg::RIP.ix();
const RSP: usize = Reg::RSP.ix();
const SLOTS: usize = 63;

#[inline(always)]
fn r(cpu: &Cpu, n: u8) -> u64 {
    cpu.regs[n as usize & SLOTS]
}

#[inline(always)]
fn put(cpu: &mut Cpu, w: Width, n: u8, v: u64) {
    let slot = &mut cpu.regs[n as usize & SLOTS];
    *slot = w.merge(*slot, v);
}

/// Goes on at record `ip`. An index beyond the arena would be a bug; it goes back to the loop in
/// [`super::execute`], which panics, because a panic here would cost every handler a stack frame.
#[inline(always)]
fn go(cpu: &mut Cpu, code: &[Rec], ip: usize) -> u64 {
    match code.get(ip) {
        Some(next) if TAIL => (next.run)(cpu, code, ip, next),
        _ => Leave::Next.at(ip),
    }
}

#[inline(always)]
fn set_flags<const F: u8>(cpu: &mut Cpu, new: Flags, mask: u32) {
    match F {
        fl::ALL => cpu.flags = new,
        fl::SOME => cpu.flags = cpu.flags.update(new, mask),
        _ => {}
    }
}

// ---- integer --------------------------------------------------------------------------------------

/// `d = op(a, b | imm)`; a third source, if the op has one, is in `f`.
pub fn alu<O: PureOp, const W: u8, const I: bool, const F: u8>(
    cpu: &mut Cpu,
    code: &[Rec],
    ip: usize,
    x: &Rec,
) -> u64 {
    let w = Width::from_index(W);
    let b = if I { x.imm } else { r(cpu, x.b) };
    let (v, f) = O::eval(w, x.c, r(cpu, x.a), b, r(cpu, x.f as u8), cpu.flags);
    put(cpu, w, x.d, v);
    set_flags::<F>(cpu, f, x.t);
    go(cpu, code, ip + 1)
}

/// Effective address without or with segment; `c` = scale | address width << 2 | stack << 4,
/// `t` = segment base register.
#[inline(always)]
fn ea<const A: u8>(cpu: &Cpu, x: &Rec) -> u64 {
    let base = r(cpu, x.a).wrapping_add(x.i as i64 as u64);
    match A {
        am::BASE => base,
        am::INDEX => base.wrapping_add(r(cpu, x.b) << (x.c & 3)),
        _ => Width::from_index(x.c >> 2)
            .zext(base.wrapping_add(r(cpu, x.b) << (x.c & 3)))
            .wrapping_add(r(cpu, x.t as u8)),
    }
}

/// LEA.
pub fn lea<const W: u8, const A: u8>(cpu: &mut Cpu, code: &[Rec], ip: usize, x: &Rec) -> u64 {
    let v = ea::<A>(cpu, x);
    put(cpu, Width::from_index(W), x.d, v);
    go(cpu, code, ip + 1)
}

// ---- memory ----------------------------------------------------------------------------------------

/// Keeps a fault for the run loop; a non-canonical stack address is #SS.
#[cold]
fn note_fault(cpu: &mut Cpu, f: Fault, c: u8) {
    cpu.fault = if c & 0x10 != 0 && f.vector == vector::GP { Fault::SS0 } else { f };
}

#[cold]
#[inline(never)]
fn load_slow(cpu: &mut Cpu, va: u64, w: Width, c: u8) -> Option<u64> {
    match cpu.read(va, w) {
        Ok(v) => Some(v),
        Err(f) => {
            note_fault(cpu, f, c);
            None
        }
    }
}

/// Outcome of a slow store.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Slow {
    Done,
    Fault,
    Smc,
}

/// No block has more bytes.
pub const BLOCK_MAX: u64 = 1024;

/// Whether a store of `n` bytes at RAM offset `off` hits translated code that may be that of the
/// block in progress. Other code may be stored into at once: the block ends before any of it runs.
fn hits_own_code(cpu: &mut Cpu, off: u64, n: u64) -> bool {
    if !cpu.mem.code.hit(off, n) || cpu.patches.is_alone(off, n) {
        return false;
    }
    let rip = cpu.linear_rip();
    // Not by what the TLB happens to know: all engines have to end the block here, or none.
    let at = cpu.tlb.exec(rip).or_else(|| {
        let pa = (cpu.frontend.translate)(cpu, rip, Access::Exec).ok()?;
        Some(cpu.mem.lookup(pa)?.0)
    });
    at.is_none_or(|at| off < at + BLOCK_MAX && at < off + n)
}

/// Whether a store of `n` bytes at `va` would hit translated code and must be stepped over.
fn hits_code(cpu: &mut Cpu, va: u64, n: u64) -> Result<bool, Fault> {
    if let Some(off) = cpu.tlb.write_beside_code(va, n) {
        return Ok(!cpu.smc_through && hits_own_code(cpu, off, n));
    }
    cpu.check_alignment(cpu.wrap_linear(va), n)?;
    if cpu.smc_through {
        return Ok(false);
    }
    if n > 4096 - (va & 4095) {
        cpu.probe(va, n, Access::Write)?;
    }
    let first = (cpu.frontend.translate)(cpu, va, Access::Write)?;
    let hit = |cpu: &mut Cpu, pa: u64, n: u64| {
        let ram = cpu.mem.lookup(pa).filter(|&(_, writes)| writes == Writes::Ram);
        ram.is_some_and(|(off, _)| hits_own_code(cpu, off, n))
    };
    let in_page = 4096 - (va & 4095);
    if n <= in_page {
        return Ok(hit(cpu, first, n));
    }
    let next = cpu.wrap_linear(va.wrapping_add(in_page));
    let second = (cpu.frontend.translate)(cpu, next, Access::Write)?;
    Ok(hit(cpu, first, in_page) || hit(cpu, second, n - in_page))
}

#[cold]
#[inline(never)]
fn store_slow(cpu: &mut Cpu, va: u64, w: Width, v: u64, c: u8) -> Slow {
    let r = match hits_code(cpu, va, w.bytes()) {
        Ok(true) => return Slow::Smc,
        Ok(false) => cpu.write(va, w, v),
        Err(f) => Err(f),
    };
    match r {
        Ok(()) => Slow::Done,
        Err(f) => {
            note_fault(cpu, f, c);
            Slow::Fault
        }
    }
}

/// In [`Cpu::fault`]: not a fault, but a read-modify-write whose store would hit translated code.
const SMC_TO_COME: u8 = 255;

/// The load of a read-modify-write: `None` is a fault, or [`SMC_TO_COME`].
#[cold]
#[inline(never)]
fn load_rmw_slow(cpu: &mut Cpu, va: u64, w: Width, c: u8) -> Option<u64> {
    let r = hits_code(cpu, va, w.bytes()).and_then(|hit| {
        if hit {
            return Ok(None);
        }
        cpu.probe(va, w.bytes(), Access::Write)?;
        cpu.read(va, w).map(Some)
    });
    match r {
        Ok(Some(v)) => Some(v),
        Ok(None) => {
            cpu.fault = Fault::new(SMC_TO_COME);
            None
        }
        Err(f) => {
            note_fault(cpu, f, c);
            None
        }
    }
}

/// Calls the slow form of a memory handler. Out of line, so that the fast form needs no stack
/// frame: it has nothing but jumps.
#[cold]
#[inline(never)]
fn slowly(run: Handler, cpu: &mut Cpu, code: &[Rec], ip: usize, x: &Rec) -> u64 {
    run(cpu, code, ip, x)
}

/// A load's value. The fast form of a handler (`$s` false) leaves for its slow form where the TLB
/// has no answer; the slow form leaves with the fault.
macro_rules! load {
    ($cpu:ident, $code:ident, $ip:ident, $x:ident, $va:expr, $w:expr, $c:expr, $s:ident, $slow:expr) => {
        if $s {
            let Some(v) = load_slow($cpu, $va, $w, $c) else { return Leave::Fault.at($ip) };
            v
        } else {
            let Some(off) = $cpu.tlb.read($va, $w.bytes()) else {
                return slowly($slow, $cpu, $code, $ip, $x);
            };
            $cpu.mem.ram.read(off, $w)
        }
    };
}

/// The load of a read-modify-write, likewise.
macro_rules! load_rmw {
    ($cpu:ident, $code:ident, $ip:ident, $x:ident, $va:expr, $w:expr, $c:expr, $s:ident, $slow:expr) => {
        if $s {
            let Some(v) = load_rmw_slow($cpu, $va, $w, $c) else { return rmw_left($cpu, $ip) };
            v
        } else {
            let Some(off) = $cpu.tlb.write($va, $w.bytes()) else {
                return slowly($slow, $cpu, $code, $ip, $x);
            };
            $cpu.mem.ram.read(off, $w)
        }
    };
}

/// A store, likewise.
macro_rules! store {
    ($cpu:ident, $code:ident, $ip:ident, $x:ident, $va:expr, $w:expr, $v:expr, $c:expr, $s:ident, $slow:expr) => {
        if $s {
            match store_slow($cpu, $va, $w, $v, $c) {
                Slow::Done => {}
                why => return left(why, $ip),
            }
        } else {
            let Some(off) = $cpu.tlb.write($va, $w.bytes()) else {
                return slowly($slow, $cpu, $code, $ip, $x);
            };
            $cpu.mem.ram.write(off, $w, $v);
        }
    };
}

fn left(s: Slow, ip: usize) -> u64 {
    if s == Slow::Smc { Leave::Smc.at(ip) } else { Leave::Fault.at(ip) }
}

fn rmw_left(cpu: &Cpu, ip: usize) -> u64 {
    if cpu.fault.vector == SMC_TO_COME { Leave::Smc.at(ip) } else { Leave::Fault.at(ip) }
}

/// A load that merges at its width (`ld`), or zero-extends (`Z`).
pub fn ld<const W: u8, const Z: bool, const A: u8, const S: bool>(
    cpu: &mut Cpu,
    code: &[Rec],
    ip: usize,
    x: &Rec,
) -> u64 {
    let w = Width::from_index(W);
    let va = ea::<A>(cpu, x);
    let v = load!(cpu, code, ip, x, va, w, x.c, S, ld::<W, Z, A, true>);
    put(cpu, if Z { Width::W64 } else { w }, x.d, v);
    go(cpu, code, ip + 1)
}

/// A sign-extending load, written at width `K`.
pub fn lds<const W: u8, const K: u8, const A: u8, const S: bool>(
    cpu: &mut Cpu,
    code: &[Rec],
    ip: usize,
    x: &Rec,
) -> u64 {
    let w = Width::from_index(W);
    let va = ea::<A>(cpu, x);
    let v = load!(cpu, code, ip, x, va, w, x.c, S, lds::<W, K, A, true>);
    put(cpu, Width::from_index(K), x.d, w.sext(v));
    go(cpu, code, ip + 1)
}

/// A read-modify-write's load.
pub fn ldw<const W: u8, const S: bool>(cpu: &mut Cpu, code: &[Rec], ip: usize, x: &Rec) -> u64 {
    let w = Width::from_index(W);
    let va = ea::<{ am::FULL }>(cpu, x);
    let v = load_rmw!(cpu, code, ip, x, va, w, x.c, S, ldw::<W, true>);
    put(cpu, Width::W64, x.d, v);
    go(cpu, code, ip + 1)
}

/// A store of register `d` or of an immediate.
pub fn st<const W: u8, const I: bool, const A: u8, const S: bool>(
    cpu: &mut Cpu,
    code: &[Rec],
    ip: usize,
    x: &Rec,
) -> u64 {
    let w = Width::from_index(W);
    let va = ea::<A>(cpu, x);
    let v = if I { x.imm } else { r(cpu, x.d) };
    store!(cpu, code, ip, x, va, w, v, x.c, S, st::<W, I, A, true>);
    go(cpu, code, ip + 1)
}

/// A read-modify-write's store: it goes through in any case.
pub fn stw<const W: u8, const S: bool>(cpu: &mut Cpu, code: &[Rec], ip: usize, x: &Rec) -> u64 {
    let w = Width::from_index(W);
    let va = ea::<{ am::FULL }>(cpu, x);
    let v = r(cpu, x.d);
    store!(cpu, code, ip, x, va, w, v, x.c, S, stw::<W, true>);
    go(cpu, code, ip + 1)
}

/// Fused `ldz t, [m]; op d, d, t`: an ALU op with a memory source.
pub fn alu_mem<O: PureOp, const W: u8, const F: u8, const A: u8, const S: bool>(
    cpu: &mut Cpu,
    code: &[Rec],
    ip: usize,
    x: &Rec,
) -> u64 {
    let w = Width::from_index(W);
    let va = ea::<A>(cpu, x);
    let b = load!(cpu, code, ip, x, va, w, x.c, S, alu_mem::<O, W, F, A, true>);
    let (v, f) = O::eval(w, 0, r(cpu, x.imm as u8), b, 0, cpu.flags);
    put(cpu, w, x.d, v);
    set_flags::<F>(cpu, f, OSZAPC);
    go(cpu, code, ip + 1)
}

/// Fused `ldz t, [m]; op -, t, b | imm`: CMP and TEST with memory first. The register is `d`.
pub fn cmp_mem<O: PureOp, const W: u8, const I: bool, const A: u8, const S: bool>(
    cpu: &mut Cpu,
    code: &[Rec],
    ip: usize,
    x: &Rec,
) -> u64 {
    let w = Width::from_index(W);
    let va = ea::<A>(cpu, x);
    let a = load!(cpu, code, ip, x, va, w, x.c, S, cmp_mem::<O, W, I, A, true>);
    let b = if I { x.imm } else { r(cpu, x.d) };
    cpu.flags = O::eval(w, 0, a, b, 0, cpu.flags).1;
    go(cpu, code, ip + 1)
}

/// Fused `ldw t, [m]; op t2, t, b | imm; stw [m], t2`. The register is `d`.
pub fn rmw<O: PureOp, const W: u8, const I: bool, const F: u8, const S: bool>(
    cpu: &mut Cpu,
    code: &[Rec],
    ip: usize,
    x: &Rec,
) -> u64 {
    let w = Width::from_index(W);
    let va = ea::<{ am::FULL }>(cpu, x);
    let a = load_rmw!(cpu, code, ip, x, va, w, x.c, S, rmw::<O, W, I, F, true>);
    let b = if I { x.imm } else { r(cpu, x.d) };
    let (v, f) = O::eval(w, 0, a, b, 0, cpu.flags);
    store!(cpu, code, ip, x, va, w, v, x.c, S, rmw::<O, W, I, F, true>);
    set_flags::<F>(cpu, f, x.f);
    go(cpu, code, ip + 1)
}

/// Marks an access through RSP for [`note_fault`].
const STACK: u8 = 0x10;

/// Fused 64-bit push of register `d` or an immediate.
pub fn push<const I: bool, const S: bool>(cpu: &mut Cpu, code: &[Rec], ip: usize, x: &Rec) -> u64 {
    let va = cpu.regs[RSP].wrapping_sub(8);
    let v = if I { x.imm } else { r(cpu, x.d) };
    store!(cpu, code, ip, x, va, Width::W64, v, STACK, S, push::<I, true>);
    cpu.regs[RSP] = va;
    go(cpu, code, ip + 1)
}

/// Fused 64-bit pop into register `d`.
pub fn pop<const S: bool>(cpu: &mut Cpu, code: &[Rec], ip: usize, x: &Rec) -> u64 {
    let va = cpu.regs[RSP];
    let v = load!(cpu, code, ip, x, va, Width::W64, STACK, S, pop::<true>);
    put(cpu, Width::W64, x.d, v);
    cpu.regs[RSP] = va.wrapping_add(8);
    go(cpu, code, ip + 1)
}

// ---- vectors, helpers and other rare ones: out of line ----------------------------------------------

/// Runs an out-of-line function that may fault.
pub fn outline(cpu: &mut Cpu, code: &[Rec], ip: usize, x: &Rec) -> u64 {
    if call_helper(cpu, x) { go(cpu, code, ip + 1) } else { Leave::Fault.at(ip) }
}

#[inline(never)]
fn call_helper(cpu: &mut Cpu, x: &Rec) -> bool {
    let args = Args {
        w: Width::from_index(x.c),
        k: x.c >> 2,
        d: Reg(x.d),
        a: Reg(x.a),
        b: Reg(x.b),
        imm: x.imm,
    };
    match (cpu.helpers[x.i as usize & 0xffff].call)(cpu, args) {
        Ok(()) => true,
        Err(f) => {
            cpu.fault = f;
            false
        }
    }
}

/// Any other micro-op, executed from its canonical form by [`crate::rare`]; `imm` is its index in
/// the CPU's list of such ops.
pub fn rare(cpu: &mut Cpu, code: &[Rec], ip: usize, x: &Rec) -> u64 {
    match run_rare(cpu, x.imm as usize) {
        Slow::Done => go(cpu, code, ip + 1),
        s => left(s, ip),
    }
}

#[inline(never)]
fn run_rare(cpu: &mut Cpu, n: usize) -> Slow {
    let u = &cpu.rare[n].clone();
    run_one(cpu, u)
}

fn run_one(cpu: &mut Cpu, u: &Uop) -> Slow {
    let stored = match u.op {
        Op::Vst if !crate::rare::misaligned(cpu, u) => Some(u64::from(u.k & 127)),
        Op::St | Op::Stw | Op::Ldw => Some(u.w.bytes()),
        _ => None,
    };
    if let Some(bytes) = stored {
        let va = crate::rare::address(cpu, &u.mem);
        // A page with code has no write tag: what the TLB lets through hits none.
        let hit =
            if cpu.tlb.write(va, bytes).is_some() { Ok(false) } else { hits_code(cpu, va, bytes) };
        match hit {
            Ok(true) => return Slow::Smc,
            Ok(false) => {}
            Err(f) => {
                note_fault(cpu, f, u8::from(u.mem.stack) << 4);
                return Slow::Fault;
            }
        }
    }
    match crate::rare::run(cpu, u) {
        Ok(()) => Slow::Done,
        Err(f) => {
            cpu.fault = f;
            Slow::Fault
        }
    }
}

/// What host code calls where it has no code of its own. An error is why it must leave; then the
/// fault is in [`Cpu::fault`].
pub mod slow {
    use super::*;

    fn stack_bit(stack: bool) -> u8 {
        if stack { STACK } else { 0 }
    }

    fn done(s: Slow) -> Result<(), Leave> {
        match s {
            Slow::Done => Ok(()),
            Slow::Fault => Err(Leave::Fault),
            Slow::Smc => Err(Leave::Smc),
        }
    }

    /// A load that the TLB has no answer for. `stack`: see [`Mem::stack`](crate::uop::Mem::stack).
    ///
    /// # Errors
    /// [`Leave::Fault`].
    pub fn load(cpu: &mut Cpu, va: u64, w: Width, stack: bool) -> Result<u64, Leave> {
        load_slow(cpu, va, w, stack_bit(stack)).ok_or(Leave::Fault)
    }

    /// The load of a read-modify-write.
    ///
    /// # Errors
    /// [`Leave::Fault`], or [`Leave::Smc`] when its store would hit translated code.
    pub fn load_rmw(cpu: &mut Cpu, va: u64, w: Width, stack: bool) -> Result<u64, Leave> {
        let smc = |cpu: &Cpu| cpu.fault.vector == SMC_TO_COME;
        let v = load_rmw_slow(cpu, va, w, stack_bit(stack));
        v.ok_or_else(|| if smc(cpu) { Leave::Smc } else { Leave::Fault })
    }

    /// A store.
    ///
    /// # Errors
    /// As [`load_rmw`].
    pub fn store(cpu: &mut Cpu, va: u64, w: Width, v: u64, stack: bool) -> Result<(), Leave> {
        done(store_slow(cpu, va, w, v, stack_bit(stack)))
    }

    /// Any micro-op that ends a block only by a fault, or by a store that would hit code.
    ///
    /// # Errors
    /// As [`load_rmw`].
    pub fn run(cpu: &mut Cpu, u: &Uop) -> Result<(), Leave> {
        let (va, stack) = (crate::rare::address(cpu, &u.mem), u.mem.stack);
        match (u.op, u.b) {
            (Op::Raise, _) => {
                let error = (u.k != 0).then_some(0);
                cpu.fault = Fault { error, ..Fault::new(u.imm as u8) };
                return Err(Leave::Fault);
            }
            (Op::St | Op::Stw, Src::Reg(b)) => return store(cpu, va, u.w, cpu.reg(b), stack),
            (Op::St | Op::Stw, Src::Imm(v)) => return store(cpu, va, u.w, v as u64, stack),
            (Op::Ldw, _) => {
                let v = load_rmw(cpu, va, u.w, stack)?;
                cpu.write_reg(u.d, Width::W64, v);
                return Ok(());
            }
            _ => {}
        }
        if u.op == Op::Helper {
            return crate::rare::helper(cpu, u).map_err(|f| {
                cpu.fault = f;
                Leave::Fault
            });
        }
        done(run_one(cpu, u))
    }
}

// ---- block ends ---------------------------------------------------------------------------------------

/// RIP of a block end whose width is `c`.
#[inline(always)]
fn advance<const W64: bool>(cpu: &mut Cpu, delta: u64, c: u8) {
    let rip = cpu.regs[RIP].wrapping_add(delta);
    cpu.regs[RIP] = if W64 { rip } else { Width::from_index(c).zext(rip) };
}

/// Charges the block to the budget; false when that is used up.
#[inline(always)]
fn charge(cpu: &mut Cpu, n: i64) -> bool {
    cpu.budget -= n;
    cpu.budget >= 0
}

/// Goes on at record `t`, or leaves for a link.
#[inline(always)]
fn follow(cpu: &mut Cpu, code: &[Rec], ip: usize, t: u32, why: Leave) -> u64 {
    match code.get(t as usize) {
        Some(next) if TAIL => (next.run)(cpu, code, t as usize, next),
        Some(_) => Leave::Next.at(t as usize),
        None => why.at(ip),
    }
}

/// Jump: `imm` is the distance, `i` the instruction count.
pub fn goto<const W64: bool>(cpu: &mut Cpu, code: &[Rec], ip: usize, x: &Rec) -> u64 {
    advance::<W64>(cpu, x.imm, x.c);
    if !charge(cpu, x.i.into()) {
        return Leave::Budget.at(ip);
    }
    follow(cpu, code, ip, x.t, Leave::LinkTaken)
}

/// The two ways of a conditional block end: `imm` = taken distance | fall distance << 32 |
/// instruction count << 48.
#[inline(always)]
fn branch<const W64: bool>(
    cpu: &mut Cpu,
    code: &[Rec],
    ip: usize,
    x: &Rec,
    w: u8,
    taken: bool,
) -> u64 {
    let n = (x.imm >> 48) as i64;
    // Two ways to the end, so that the branch predictor sees them apart: without the black box
    // they would be merged into a conditional move before one indirect jump.
    if taken {
        advance::<W64>(cpu, x.imm as i32 as i64 as u64, w);
        if !charge(cpu, n) {
            return Leave::Budget.at(ip);
        }
        follow(cpu, code, ip, x.t, Leave::LinkTaken)
    } else {
        std::hint::black_box(());
        advance::<W64>(cpu, (x.imm >> 32) as i16 as i64 as u64, w);
        if !charge(cpu, n) {
            return Leave::Budget.at(ip);
        }
        follow(cpu, code, ip, x.f, Leave::LinkFall)
    }
}

/// Conditional jump on the flags.
pub fn jcc<const CC: u8, const W64: bool>(cpu: &mut Cpu, code: &[Rec], ip: usize, x: &Rec) -> u64 {
    let taken = cpu.flags.cond(CC);
    branch::<W64>(cpu, code, ip, x, x.c, taken)
}

/// Fused `op d, a, b | imm` (CMP, TEST, SUB, AND) and conditional jump. An immediate is in `i`.
pub fn alu_jcc<O: PureOp, const W: u8, const I: bool, const CC: u8>(
    cpu: &mut Cpu,
    code: &[Rec],
    ip: usize,
    x: &Rec,
) -> u64 {
    let w = Width::from_index(W);
    let b = if I { x.i as i64 as u64 } else { r(cpu, x.b) };
    let (v, f) = O::eval(w, 0, r(cpu, x.a), b, 0, cpu.flags);
    put(cpu, w, x.d, v);
    cpu.flags = f;
    branch::<true>(cpu, code, ip, x, 0, f.cond(CC))
}

/// Jump if register `a`, cut to width `W`, is not zero.
pub fn jrnz<const W: u8>(cpu: &mut Cpu, code: &[Rec], ip: usize, x: &Rec) -> u64 {
    let taken = Width::from_index(W).zext(r(cpu, x.a)) != 0;
    branch::<false>(cpu, code, ip, x, x.c, taken)
}

/// Looks the block at RIP up among the recent targets of indirect jumps.
#[inline(always)]
fn indirect(cpu: &mut Cpu, code: &[Rec], ip: usize) -> u64 {
    match cpu.recent() {
        Some(t) => go(cpu, code, t),
        None => Leave::Lookup.at(ip),
    }
}

/// Indirect jump to register `a`, cut to width `c`; `i` is the instruction count.
pub fn jmpi(cpu: &mut Cpu, code: &[Rec], ip: usize, x: &Rec) -> u64 {
    cpu.regs[RIP] = Width::from_index(x.c).zext(r(cpu, x.a));
    if !charge(cpu, x.i.into()) {
        return Leave::Budget.at(ip);
    }
    indirect(cpu, code, ip)
}

/// Whether 64-bit code may go on at `va`; if not, the fault is noted.
#[inline(always)]
fn may_go(cpu: &mut Cpu, va: u64) -> bool {
    (va << 16) as i64 >> 16 == va as i64 || may_go_far(cpu, va)
}

/// The same for what is not canonical in 48 bits.
#[cold]
#[inline(never)]
fn may_go_far(cpu: &mut Cpu, va: u64) -> bool {
    match (cpu.frontend.linear)(cpu, Seg::Cs, va, 0, false) {
        Ok(_) => true,
        Err(f) => {
            cpu.fault = f;
            false
        }
    }
}

/// `d` = the instruction pointer `a` of 64-bit code, if it is canonical.
pub fn canonical(cpu: &mut Cpu, code: &[Rec], ip: usize, x: &Rec) -> u64 {
    let va = r(cpu, x.a);
    if !may_go(cpu, va) {
        return Leave::Fault.at(ip);
    }
    cpu.regs[x.d as usize & 63] = va;
    go(cpu, code, ip + 1)
}

/// Fused 64-bit indirect jump to register `a`; `i` is the instruction count.
pub fn jmpi64(cpu: &mut Cpu, code: &[Rec], ip: usize, x: &Rec) -> u64 {
    let va = r(cpu, x.a);
    if !may_go(cpu, va) {
        return Leave::Fault.at(ip);
    }
    cpu.regs[RIP] = va;
    if !charge(cpu, x.i.into()) {
        return Leave::Budget.at(ip);
    }
    indirect(cpu, code, ip)
}

/// Fused 64-bit near call: `i` is the return address's distance, `imm` the target's, `d` the
/// instruction count.
pub fn call<const S: bool>(cpu: &mut Cpu, code: &[Rec], ip: usize, x: &Rec) -> u64 {
    let rip = cpu.regs[RIP];
    let va = cpu.regs[RSP].wrapping_sub(8);
    let back = rip.wrapping_add(x.i as i64 as u64);
    store!(cpu, code, ip, x, va, Width::W64, back, STACK, S, call::<true>);
    cpu.regs[RSP] = va;
    cpu.regs[RIP] = rip.wrapping_add(x.imm);
    if !charge(cpu, x.d.into()) {
        return Leave::Budget.at(ip);
    }
    follow(cpu, code, ip, x.t, Leave::LinkTaken)
}

/// Fused 64-bit near return; `imm` is what to add to RSP, `i` the instruction count.
pub fn ret<const S: bool>(cpu: &mut Cpu, code: &[Rec], ip: usize, x: &Rec) -> u64 {
    let va = cpu.regs[RSP];
    let v = load!(cpu, code, ip, x, va, Width::W64, STACK, S, ret::<true>);
    if !may_go(cpu, v) {
        return Leave::Fault.at(ip);
    }
    cpu.regs[RSP] = va.wrapping_add(x.imm);
    cpu.regs[RIP] = v;
    if !charge(cpu, x.i.into()) {
        return Leave::Budget.at(ip);
    }
    indirect(cpu, code, ip)
}

/// Back to the dispatcher, RIP advanced by `imm` unless `b` (a helper has set it).
pub fn exit(cpu: &mut Cpu, _code: &[Rec], ip: usize, x: &Rec) -> u64 {
    if x.b == 0 {
        advance::<false>(cpu, x.imm, x.c);
    }
    charge(cpu, x.i.into());
    Leave::Exit.at(ip)
}

/// Raises the exception whose vector is `i`, with error code 0 if `c`.
pub fn raise(cpu: &mut Cpu, _code: &[Rec], ip: usize, x: &Rec) -> u64 {
    cpu.fault = Fault { vector: x.i as u8, error: (x.c != 0).then_some(0), address: 0 };
    Leave::Fault.at(ip)
}

/// A link into another page: goes on at `t` only while RIP is mapped to the RAM offset in `imm`.
pub fn guard(cpu: &mut Cpu, code: &[Rec], ip: usize, x: &Rec) -> u64 {
    let va = if cpu.mode & mode::CODE64 != 0 { cpu.regs[RIP] } else { cpu.linear_rip() };
    if cpu.tlb.exec(va) == Some(x.imm) {
        return go(cpu, code, x.t as usize);
    }
    Leave::Lookup.at(ip)
}

/// The first record of a block that goes on in a second page, at RAM offset `imm`: `i` bytes from
/// its start.
pub fn straddle(cpu: &mut Cpu, code: &[Rec], ip: usize, x: &Rec) -> u64 {
    let va = cpu.wrap_linear(cpu.linear_rip().wrapping_add(x.i as u64));
    if cpu.tlb.exec(va) == Some(x.imm) {
        return go(cpu, code, ip + 1);
    }
    Leave::Lookup.at(ip)
}

/// The first record of a block that may be translated: counts down its runs, in the counter `imm`.
pub fn count(cpu: &mut Cpu, code: &[Rec], ip: usize, x: &Rec) -> u64 {
    if let Some(left) = cpu.heat.get_mut(x.imm as usize) {
        *left = left.wrapping_sub(1);
        if *left == 0 {
            return Leave::Warm.at(ip);
        }
    }
    go(cpu, code, ip + 1)
}

/// The first record of a translated block: enters its host code at `imm`.
pub fn native(cpu: &mut Cpu, code: &[Rec], _ip: usize, x: &Rec) -> u64 {
    let word = enter(cpu, x.imm);
    if word as u8 == Leave::Next as u8 { go(cpu, code, (word >> 8) as usize) } else { word }
}

#[inline(never)]
fn enter(cpu: &mut Cpu, entry: u64) -> u64 {
    // Only exits that end a block change the address space or the privilege.
    cpu.native.tlb = cpu.tlb.table_address();
    let word = (cpu.enter)(cpu, entry);
    cpu.native_exits[(word & 15) as usize] += 1;
    word
}

/// The first record of a block that is no longer valid.
pub fn stale(_cpu: &mut Cpu, _code: &[Rec], ip: usize, _x: &Rec) -> u64 {
    Leave::Lookup.at(ip)
}

/// The first record of a block that was lifted anew: goes on at `t`.
pub fn forward(cpu: &mut Cpu, code: &[Rec], _ip: usize, x: &Rec) -> u64 {
    let t = x.t as usize;
    go(cpu, code, t)
}
