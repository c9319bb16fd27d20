//! String instructions with and without REP (SDM Vol. 1, 5.1.8; Vol. 2, REP).
//!
//! One helper runs up to [`CHUNK`] iterations and says whether some are left: then the instruction
//! is run again, so that interrupts come through. A fault leaves the registers as after the last
//! whole iteration: the instruction is restartable. Eight iterations are charged to the budget as
//! one instruction.
//!
//! What lies in one page that level 1 of the TLB knows is done at once, by the host's own string
//! instructions ([`GuestRam::movs`](emu_core::mem::GuestRam::movs) and its kin); all else element
//! by element. A store into code ends the block behind the instruction, and the run loop
//! invalidates the code: it does not end the helper, because which stores look as if they hit code
//! is not the same on all engines.

use super::system;
use crate::lift::Lift;
use crate::operand::seg;
use crate::sys::segment;
use crate::{helpers, rows};
use emu_core::cpu::{Cpu, Reg, Seg, mode};
use emu_core::fault::Guest;
use emu_core::flags::rflags::{DF, RF, TF};
use emu_core::mem::tlb::Access;
use emu_core::uop::{Args, PureOp, ops};
use emu_core::width::Width::{self, W8, W16, W32, W64};
use iced_x86::OpKind;

rows! {
    Movsb: STRING, Innocuous, movs;
    Movsw: STRING, Innocuous, movs;
    Movsd: STRING, Innocuous, movs;
    Movsq: STRING, Innocuous, movs;
    Stosb: STRING, Innocuous, stos;
    Stosw: STRING, Innocuous, stos;
    Stosd: STRING, Innocuous, stos;
    Stosq: STRING, Innocuous, stos;
    Lodsb: STRING, Innocuous, lods;
    Lodsw: STRING, Innocuous, lods;
    Lodsd: STRING, Innocuous, lods;
    Lodsq: STRING, Innocuous, lods;
    Cmpsb: STRING, Innocuous, cmps;
    Cmpsw: STRING, Innocuous, cmps;
    Cmpsd: STRING, Innocuous, cmps;
    Cmpsq: STRING, Innocuous, cmps;
    Scasb: STRING, Innocuous, scas;
    Scasw: STRING, Innocuous, scas;
    Scasd: STRING, Innocuous, scas;
    Scasq: STRING, Innocuous, scas;
    Insb: STRING, Control, ins;
    Insw: STRING, Control, ins;
    Insd: STRING, Control, ins;
    Outsb: STRING, Control, outs;
    Outsw: STRING, Control, outs;
    Outsd: STRING, Control, outs;
}

helpers! {
    MOVS = "movs" run_movs, Movs;
    STOS = "stos" run_stos, Stos;
    LODS = "lods" run_lods, Lods;
    CMPS = "cmps" run_cmps;
    SCAS = "scas" run_scas;
    INS = "ins" run_ins;
    OUTS = "outs" run_outs;
}

/// Most iterations of one call.
const CHUNK: u64 = 1 << 14;

const REPE: u8 = 1;
const REPNE: u8 = 2;

fn movs(l: &mut Lift) -> Guest<()> {
    string(l, &MOVS)
}
fn stos(l: &mut Lift) -> Guest<()> {
    string(l, &STOS)
}
fn lods(l: &mut Lift) -> Guest<()> {
    string(l, &LODS)
}
fn cmps(l: &mut Lift) -> Guest<()> {
    string(l, &CMPS)
}
fn scas(l: &mut Lift) -> Guest<()> {
    string(l, &SCAS)
}
fn ins(l: &mut Lift) -> Guest<()> {
    string(l, &INS)
}
fn outs(l: &mut Lift) -> Guest<()> {
    string(l, &OUTS)
}

/// `w` is the element's width, `k` the repeat prefix, `imm` the address width and the source
/// segment; `d` takes whether iterations are left.
fn string(l: &mut Lift, h: &'static emu_core::uop::HelperDef) -> Guest<()> {
    let mut addr = W64;
    let mut source = Seg::Ds;
    let mut w = W8;
    for n in 0..l.i.op_count() {
        match l.i.op_kind(n) {
            OpKind::MemorySegSI | OpKind::MemoryESDI => addr = W16,
            OpKind::MemorySegESI | OpKind::MemoryESEDI => addr = W32,
            OpKind::MemorySegRSI | OpKind::MemoryESRDI => addr = W64,
            _ => continue,
        }
        w = Width::from_bytes(l.i.memory_size().size()).unwrap_or(W8);
    }
    // Only a source operand has a segment of choice; a destination is always in ES.
    if (0..l.i.op_count()).any(|n| {
        matches!(l.i.op_kind(n), OpKind::MemorySegSI | OpKind::MemorySegESI | OpKind::MemorySegRSI)
    }) {
        source = seg(l.i.memory_segment());
    }
    let compares = matches!(h.name, "cmps" | "scas");
    let rep = match (l.i.has_repe_prefix(), l.i.has_repne_prefix()) {
        (true, _) => REPE,
        (_, true) if compares => REPNE,
        (_, true) => REPE,
        _ => 0,
    };
    l.b.restartable();
    let ip = l.rip_width();
    if h.name == "ins" || h.name == "outs" {
        system::check_port(l, Reg::RDX, w);
    }
    let left = l.b.temp();
    let imm = addr as u64 | (source as u64) << 2;
    l.b.helper(h, w, rep, left, Reg::ZERO, Reg::ZERO, imm);
    let (here, next) = (l.b.insn_offset(), l.b.next_offset());
    match rep {
        0 if compares => {}
        0 => l.b.goto(ip, next),
        _ => l.b.jrnz(W8, ip, left, here, next),
    }
    Ok(())
}

/// What one string instruction works with.
struct Step {
    w: Width,
    addr: Width,
    source: Seg,
    /// DF = 1: towards lower addresses.
    down: bool,
    /// CMPS and SCAS go on as long as elements are equal.
    equal: bool,
}

impl Step {
    fn offset(&self, cpu: &Cpu, r: Reg) -> u64 {
        self.addr.zext(cpu.reg(r))
    }

    fn linear(&self, cpu: &mut Cpu, s: Seg, r: Reg, write: bool) -> Guest<u64> {
        let off = self.offset(cpu, r);
        self.linear_at(cpu, s, off, write)
    }

    fn linear_at(&self, cpu: &mut Cpu, s: Seg, off: u64, write: bool) -> Guest<u64> {
        if cpu.mode & mode::CODE64 != 0 {
            return Ok(match s {
                Seg::Fs | Seg::Gs => off.wrapping_add(cpu.base(s)),
                _ => off,
            });
        }
        segment::linear(cpu, s, off, self.w.bytes() as u32, write)
    }

    /// Moves an index register over `n` elements.
    fn advance(&self, cpu: &mut Cpu, r: Reg, n: u64) {
        let by = n * self.w.bytes();
        let v = cpu.reg(r).wrapping_add(if self.down { by.wrapping_neg() } else { by });
        cpu.write_reg(r, self.addr, v);
    }

    /// Of `count` elements from that at linear address `va` of segment `s` on, how many lie in one
    /// page and within the segment, where the index register `r` does not wrap.
    #[inline(always)]
    fn in_page(&self, cpu: &mut Cpu, s: Seg, r: Reg, va: u64, write: bool, count: u64) -> u64 {
        let (n, off, at) = (self.w.bytes(), self.offset(cpu, r), va & 4095);
        let log2 = self.w as u32;
        let (page, register) = match self.down {
            false => ((4096 - at) >> log2, (self.addr.mask() - off) >> log2),
            true if at + n > 4096 => (0, 0),
            true => ((at >> log2) + 1, off >> log2),
        };
        let count = count.min(page).min(register);
        let flat = cpu.mode & (mode::CODE64 | mode::FLAT) != 0 && self.addr >= W32;
        if flat || count <= 1 {
            return count;
        }
        let by = (count - 1) * n;
        let last = if self.down { off - by } else { off + by };
        // Between two elements that are within the segment all are.
        if self.linear_at(cpu, s, last, write).is_ok() { count } else { 1 }
    }

    /// Linear address of the lowest of `n` elements that begin with that at `va`.
    fn lowest(&self, va: u64, n: u64) -> u64 {
        if self.down { va - (n - 1) * self.w.bytes() } else { va }
    }

    /// RAM offset of `n` elements to read, if the TLB knows it.
    fn readable(&self, cpu: &Cpu, va: u64, n: u64) -> Option<u64> {
        (n > 0).then(|| cpu.tlb.read(self.lowest(va, n), n * self.w.bytes()))?
    }

    /// The same for elements to write.
    fn writable(&self, cpu: &Cpu, va: u64, n: u64) -> Option<u64> {
        let (lowest, bytes) = (self.lowest(va, n.max(1)), n * self.w.bytes());
        let beside = || cpu.tlb.write_beside_code(lowest, bytes);
        (n > 0).then(|| cpu.tlb.write(lowest, bytes).or_else(beside))?
    }
}

fn run_movs(cpu: &mut Cpu, x: Args) -> Guest<()> {
    run(cpu, x, movs_step, false)
}
fn run_stos(cpu: &mut Cpu, x: Args) -> Guest<()> {
    run(cpu, x, stos_step, false)
}
fn run_lods(cpu: &mut Cpu, x: Args) -> Guest<()> {
    run(cpu, x, lods_step, false)
}
fn run_cmps(cpu: &mut Cpu, x: Args) -> Guest<()> {
    run(cpu, x, cmps_step, true)
}
fn run_scas(cpu: &mut Cpu, x: Args) -> Guest<()> {
    run(cpu, x, scas_step, true)
}
fn run_ins(cpu: &mut Cpu, x: Args) -> Guest<()> {
    run(cpu, x, ins_step, false)
}
fn run_outs(cpu: &mut Cpu, x: Args) -> Guest<()> {
    run(cpu, x, outs_step, false)
}

/// Runs `step` once, or while the count lasts and the condition holds. A step does up to the given
/// number of iterations and says how many.
#[inline(always)]
fn run(
    cpu: &mut Cpu,
    x: Args,
    step: impl Fn(&mut Cpu, &Step, u64) -> Guest<u64>,
    compares: bool,
) -> Guest<()> {
    let s = Step {
        w: x.w,
        addr: Width::from_index(x.imm as u8),
        source: Seg::ALL[(x.imm >> 2 & 7).min(5) as usize],
        down: cpu.sysflags & DF != 0,
        equal: x.k != REPNE,
    };
    if x.k == 0 {
        step(cpu, &s, 1)?;
        return Ok(());
    }
    // A single-step trap comes after each iteration. Between two of them RF is set for what is
    // pushed then, and so that this instruction's breakpoint does not hit again (SDM Vol. 3,
    // 17.3.1.1).
    let mut left = if cpu.sysflags & TF != 0 { 1 } else { CHUNK };
    cpu.sysflags &= !RF;
    let mut more = false;
    while s.offset(cpu, Reg::RCX) != 0 {
        if left == 0 || cpu.watch.hits != 0 {
            more = true;
            break;
        }
        let count = s.offset(cpu, Reg::RCX).min(left);
        let done = step(cpu, &s, count)?;
        let rest = cpu.reg(Reg::RCX).wrapping_sub(done);
        cpu.write_reg(Reg::RCX, s.addr, rest);
        // Iterations take time: without a charge, a guest could make one slice last for minutes.
        cpu.budget -= ((left >> 3) - ((left - done) >> 3)) as i64;
        left -= done;
        if compares && cpu.flags.zf() != s.equal {
            break;
        }
    }
    cpu.sysflags |= if more { RF } else { 0 };
    cpu.set_reg(x.d, more.into());
    Ok(())
}

#[inline(always)]
fn movs_step(cpu: &mut Cpu, s: &Step, count: u64) -> Guest<u64> {
    let from = s.linear(cpu, s.source, Reg::RSI, false)?;
    let to = match s.linear(cpu, Seg::Es, Reg::RDI, true) {
        Ok(to) => to,
        // What is wrong with the source comes first.
        Err(f) => return cpu.read(from, s.w).and(Err(f)),
    };
    let n = s.in_page(cpu, s.source, Reg::RSI, from, false, count);
    let n = s.in_page(cpu, Seg::Es, Reg::RDI, to, true, n);
    let n = match (s.readable(cpu, from, n), s.writable(cpu, to, n)) {
        (Some(src), Some(dst)) => {
            cpu.mem.ram.movs(s.w, s.down, dst, src, n);
            cpu.stored(dst, n * s.w.bytes());
            n
        }
        // The first touch of a page, a device, or what lies across a border.
        _ => {
            let v = cpu.read(from, s.w)?;
            cpu.write(to, s.w, v)?;
            1
        }
    };
    s.advance(cpu, Reg::RSI, n);
    s.advance(cpu, Reg::RDI, n);
    Ok(n)
}

#[inline(always)]
fn stos_step(cpu: &mut Cpu, s: &Step, count: u64) -> Guest<u64> {
    let to = s.linear(cpu, Seg::Es, Reg::RDI, true)?;
    let v = cpu.reg(Reg::RAX);
    let n = s.in_page(cpu, Seg::Es, Reg::RDI, to, true, count);
    let n = match s.writable(cpu, to, n) {
        Some(dst) => {
            cpu.mem.ram.stos(s.w, dst, n, v);
            cpu.stored(dst, n * s.w.bytes());
            n
        }
        None => {
            cpu.write(to, s.w, s.w.zext(v))?;
            1
        }
    };
    s.advance(cpu, Reg::RDI, n);
    Ok(n)
}

fn lods_step(cpu: &mut Cpu, s: &Step, count: u64) -> Guest<u64> {
    let from = s.linear(cpu, s.source, Reg::RSI, false)?;
    let n = s.in_page(cpu, s.source, Reg::RSI, from, false, count);
    let (n, v) = match s.readable(cpu, from, n) {
        // Only the last one is seen.
        Some(src) if s.down => (n, cpu.mem.ram.read(src, s.w)),
        Some(src) => (n, cpu.mem.ram.read(src + (n - 1) * s.w.bytes(), s.w)),
        None => (1, cpu.read(from, s.w)?),
    };
    cpu.write_reg(Reg::RAX, s.w, v);
    s.advance(cpu, Reg::RSI, n);
    Ok(n)
}

/// The flags of the last of `n` elements of a comparison.
fn compared(cpu: &mut Cpu, s: &Step, n: u64, a: Option<u64>, b: u64) {
    let last = if s.down { 0 } else { (n - 1) * s.w.bytes() };
    let a = a.map_or(cpu.reg(Reg::RAX), |a| cpu.mem.ram.read(a + last, s.w));
    let b = cpu.mem.ram.read(b + last, s.w);
    cpu.flags = ops::Sub::eval(s.w, 0, a, b, 0, cpu.flags).1;
}

fn cmps_step(cpu: &mut Cpu, s: &Step, count: u64) -> Guest<u64> {
    // The order of two faults is not told; CPUs look at the second operand first.
    let to = s.linear(cpu, Seg::Es, Reg::RDI, false)?;
    if let Ok(from) = s.linear(cpu, s.source, Reg::RSI, false) {
        let n = s.in_page(cpu, s.source, Reg::RSI, from, false, count);
        let n = s.in_page(cpu, Seg::Es, Reg::RDI, to, false, n);
        if let (Some(a), Some(b)) = (s.readable(cpu, from, n), s.readable(cpu, to, n)) {
            let done = cpu.mem.ram.cmps(s.w, s.down, s.equal, a, b, n);
            let up = if s.down { (n - done) * s.w.bytes() } else { 0 };
            compared(cpu, s, done, Some(a + up), b + up);
            s.advance(cpu, Reg::RSI, done);
            s.advance(cpu, Reg::RDI, done);
            return Ok(done);
        }
    }
    let b = cpu.read(to, s.w)?;
    let from = s.linear(cpu, s.source, Reg::RSI, false)?;
    let a = cpu.read(from, s.w)?;
    cpu.flags = ops::Sub::eval(s.w, 0, a, b, 0, cpu.flags).1;
    s.advance(cpu, Reg::RSI, 1);
    s.advance(cpu, Reg::RDI, 1);
    Ok(1)
}

fn scas_step(cpu: &mut Cpu, s: &Step, count: u64) -> Guest<u64> {
    let to = s.linear(cpu, Seg::Es, Reg::RDI, false)?;
    let n = s.in_page(cpu, Seg::Es, Reg::RDI, to, false, count);
    if let Some(b) = s.readable(cpu, to, n) {
        let done = cpu.mem.ram.scas(s.w, s.down, s.equal, cpu.reg(Reg::RAX), b, n);
        let up = if s.down { (n - done) * s.w.bytes() } else { 0 };
        compared(cpu, s, done, None, b + up);
        s.advance(cpu, Reg::RDI, done);
        return Ok(done);
    }
    let b = cpu.read(to, s.w)?;
    cpu.flags = ops::Sub::eval(s.w, 0, cpu.reg(Reg::RAX), b, 0, cpu.flags).1;
    s.advance(cpu, Reg::RDI, 1);
    Ok(1)
}

fn ins_step(cpu: &mut Cpu, s: &Step, _count: u64) -> Guest<u64> {
    let to = s.linear(cpu, Seg::Es, Reg::RDI, true)?;
    // The port is read only when the store cannot fault any more.
    cpu.check_alignment(to, s.w.bytes())?;
    cpu.probe(to, s.w.bytes(), Access::Write)?;
    let v = cpu.port_in(cpu.reg(Reg::RDX) as u16, s.w);
    cpu.write(to, s.w, v.into())?;
    s.advance(cpu, Reg::RDI, 1);
    Ok(1)
}

fn outs_step(cpu: &mut Cpu, s: &Step, _count: u64) -> Guest<u64> {
    let from = s.linear(cpu, s.source, Reg::RSI, false)?;
    let v = cpu.read(from, s.w)?;
    cpu.port_out(cpu.reg(Reg::RDX) as u16, s.w, v as u32);
    s.advance(cpu, Reg::RSI, 1);
    Ok(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing::{self, Level};
    use emu_core::cpu::Segment;
    use emu_core::vcpu::{Stop, Vcpu};

    const AT: u64 = 0x1234;
    const HLT: u8 = 0xf4;

    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            self.0 >> 33
        }

        fn of<T: Copy>(&mut self, all: &[T]) -> T {
            all[self.next() as usize % all.len()]
        }
    }

    /// A repeated string instruction and what it starts with.
    struct Case {
        level: Level,
        insn: Vec<u8>,
        repne: bool,
        compares: bool,
        regs: [u64; 4],
        flags: u64,
        /// Granules of translated code.
        code: Vec<u64>,
        /// Limit of ES and DS.
        limit: u32,
    }

    impl Case {
        fn random(r: &mut Random) -> Case {
            let level = r.of(&[Level::Long, Level::Long, Level::Protected, Level::Real]);
            let opcode = r.of(&[0xa4, 0xaa, 0xac, 0xa6, 0xae]) | r.of(&[0, 1, 1, 1]);
            let repne = r.next().is_multiple_of(3);
            let mut insn = vec![if repne { 0xf2 } else { 0xf3 }];
            let size = match level {
                Level::Long => r.of(&[&[][..], &[0x66], &[0x48], &[0x67], &[0x67, 0x48]]),
                _ => r.of(&[&[][..], &[0x66], &[0x67], &[0x66, 0x67]]),
            };
            insn.extend(size.iter().chain(&[opcode]));
            // Borders: of pages, of what is mapped, of memory, of segments, of registers.
            let borders: &[u64] = match level {
                Level::Long => &[0x1_8000, 0x1_9000, 0x20_0000, 0x40_0000, 0x100_0000, 0],
                Level::Protected => &[0x1_8000, 0x1_9000, 0x1_ffff, 0x100_0000, 0, 1 << 32],
                Level::Real => &[0x8000, 0x9000, 0x7000, 0, 0x1_0000],
            };
            let near =
                |r: &mut Random| r.of(borders).wrapping_add(r.next() % 400).wrapping_sub(200);
            let count = r.of(&[0, 1, 2, 9, 60, 100]);
            let (source, target) = (near(r), near(r));
            let overlapping = source.wrapping_add(r.next() % 20).wrapping_sub(10);
            Case {
                level,
                insn,
                repne,
                compares: matches!(opcode & !1, 0xa6 | 0xae),
                regs: [
                    r.of(&[0, 0x0101_0101_0101_0101, r.0]),
                    count,
                    source,
                    r.of(&[target, target, overlapping]),
                ],
                flags: r.of(&[2, 2, 0x402, 0x8d7]),
                code: (0..r.of(&[0, 0, 3])).map(|_| near(r) & 0xff_ffc0).collect(),
                limit: r.of(&[u32::MAX, 0x1_ffff]),
            }
        }

        fn vcpu(&self) -> Vcpu {
            let mut c = testing::cpu(self.level);
            if self.level == Level::Long {
                c.mem.write(0x10_2000 + 8, W64, 0); // 2 MiB to 4 MiB are not there
                c.tlb.flush_all(true);
            }
            for at in (0x1_7000..0x1_a000).chain(0x1f_f000..0x20_0000).chain(0x40_0000..0x40_1000) {
                c.mem.write(at, W8, at * at >> 7 & 3 & (at >> 4));
            }
            for v in [12, 13, 14] {
                match self.level {
                    Level::Real => c.mem.write(4 * v, W32, 0x600 + v),
                    _ => testing::gate(&mut c, v, testing::CODE0, 0x600 + v, 0x8e, 0),
                }
            }
            if self.level == Level::Protected {
                for s in [Seg::Es, Seg::Ds] {
                    let old = c.segs[s as usize];
                    c.segs[s as usize] = Segment { limit: self.limit, ..old };
                }
            }
            if self.level == Level::Real {
                c.segs[Seg::Cs as usize].limit = 0xffff;
                c.set_reg(Reg::CS_BASE, 0);
                c.set_reg(Reg::ES_BASE, 0x1_0000);
            }
            crate::sys::mode::update(&mut c);
            for &at in &self.code {
                c.mem.code.mark(at, 64);
            }
            for (reg, v) in [Reg::RAX, Reg::RCX, Reg::RSI, Reg::RDI].into_iter().zip(self.regs) {
                c.set_reg(reg, v);
            }
            c.set_rflags(self.flags);
            c.set_rip(AT);
            let code = [&self.insn[..], &[HLT]].concat();
            testing::vcpu(c, &[(AT, &code), (0x600, &[HLT; 32])])
        }

        /// Runs the instruction with RCX as it is; whether it came to its end.
        fn ends(&self, v: &mut Vcpu) -> bool {
            v.cpu.set_rip(AT);
            v.cpu.halted = false;
            assert!((0..10_000).any(|_| v.run(1 + self.regs[1] as i64 % 7) == Stop::Halted));
            v.cpu.rip() == AT + self.insn.len() as u64 + 1
        }
    }

    /// All that a string instruction changes.
    fn result(v: &Vcpu, ends: bool) -> (Vec<u64>, u64, Vec<u8>) {
        let c = &v.cpu;
        let regs = [Reg::RAX, Reg::RCX, Reg::RSI, Reg::RDI].map(|r| c.reg(r));
        let mut memory = vec![0; 0x4000];
        for (i, at) in [0x1_7000, 0x1_8000, 0x1f_f000, 0x40_0000].into_iter().enumerate() {
            c.mem.read_bytes(at, &mut memory[i << 12..][..0x1000]);
        }
        let flags = if ends { c.rflags() } else { c.rip() };
        (regs.into(), flags, memory)
    }

    /// SDM Vol. 2, REP: as often as RCX says, or until the comparison ends it, each iteration as if
    /// it were alone; a fault leaves what was done before it.
    #[test]
    fn repeated_is_one_by_one() {
        let mut r = Random(1);
        let mut faults = 0;
        for n in 0..2500 {
            let case = Case::random(&mut r);
            let mut whole = case.vcpu();
            let ends = case.ends(&mut whole);
            let mut single = case.vcpu();
            let width = match (case.level, case.insn.contains(&0x67)) {
                (Level::Long, false) => W64,
                (Level::Long, true) | (Level::Protected, false) | (Level::Real, true) => W32,
                _ => W16,
            };
            let (mut left, mut single_ends) = (width.zext(case.regs[1]), true);
            while left > 0 && single_ends {
                single.cpu.set_reg(Reg::RCX, 1);
                single_ends = case.ends(&mut single);
                left -= u64::from(single_ends);
                if single_ends && case.compares && single.cpu.flags.zf() == case.repne {
                    break;
                }
            }
            single.cpu.set_reg(Reg::RCX, case.regs[1]);
            single.cpu.write_reg(Reg::RCX, width, left);
            faults += u32::from(!ends);
            let name = format!("case {n}: {:x?} {:x?}", case.insn, case.regs);
            assert_eq!(ends, single_ends, "{name}");
            assert_eq!(result(&whole, ends), result(&single, ends), "{name}");
        }
        assert!(faults > 200, "{faults}");
    }
}
