//! What a machine says about itself: its registers after a triple fault, and its counters.

use crate::pc::BoardStats;
use emu_core::cpu::{Cpu, Reg, Seg, Segment, mode};
use emu_core::fault::vector;
use emu_core::interp::Leave;
use emu_core::native::Translator;
use emu_core::vcpu::Vcpu;
use std::fmt::Write;
use std::time::Duration;

/// A counter: its name (words joined by `_`) and its value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stat {
    /// What was counted.
    pub name: &'static str,
    /// How often, or a ratio of two counts.
    pub value: Value,
}

/// The value of a [`Stat`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A count.
    Count(u64),
    /// A ratio.
    Ratio(f64),
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Value::Count(n) => n.fmt(f),
            Value::Ratio(x) => write!(f, "{x:.3}"),
        }
    }
}

/// Exceptions that are worth a line of their own.
const EXCEPTIONS: &[(u8, &str)] = &[
    (vector::DE, "exceptions_de"),
    (vector::DB, "exceptions_db"),
    (vector::BP, "exceptions_bp"),
    (vector::UD, "exceptions_ud"),
    (vector::NM, "exceptions_nm"),
    (vector::DF, "exceptions_df"),
    (vector::GP, "exceptions_gp"),
    (vector::PF, "exceptions_pf"),
];

/// Why host code was left.
const EXITS: &[(&str, &[Leave])] = &[
    ("native_exits_interpreter", &[Leave::Next]),
    ("native_exits_lookup", &[Leave::Lookup]),
    ("native_exits_unlinked", &[Leave::LinkTaken, Leave::LinkFall]),
    ("native_exits_budget", &[Leave::Budget]),
    ("native_exits_helper", &[Leave::Exit]),
    ("native_exits_fault", &[Leave::Fault]),
    ("native_exits_code_write", &[Leave::Smc]),
];

/// All counters, in the order in which they are shown.
pub fn stats(vcpu: &Vcpu, board: BoardStats, busy: Duration) -> Vec<Stat> {
    let (cpu, run, cache) = (&vcpu.cpu, vcpu.stats, vcpu.cache.stats);
    let tlb = cpu.tlb.stats;
    let insns = cpu.icount();
    let ratio = |a: u64, b: u64| Value::Ratio(a as f64 / b.max(1) as f64);
    let count = Value::Count;
    let mut rows = vec![
        ("instructions", count(insns)),
        ("guest_ns", count(cpu.now())),
        ("busy_seconds", Value::Ratio(busy.as_secs_f64())),
        ("mips", Value::Ratio(insns as f64 / busy.as_secs_f64().max(1e-9) / 1e6)),
        ("blocks_lifted", count(cache.lifted)),
        ("insns_per_block", ratio(cache.insns, cache.lifted)),
        ("uops_per_insn", ratio(cache.uops, cache.insns)),
        ("records_per_insn", ratio(cache.recs, cache.insns)),
        ("blocks_linked", count(cache.links)),
        ("blocks_invalidated", count(cache.invalidated)),
        ("cache_flushes", count(cache.flushes)),
        ("cache_bytes", count(vcpu.cache.bytes() as u64)),
        ("dispatches", count(run.dispatches)),
        ("insns_per_dispatch", ratio(insns, run.dispatches)),
        ("exits_budget", count(run.budget)),
        ("exits_helper", count(run.exits)),
        ("exits_fault", count(run.faults)),
        ("exits_code_write", count(run.smc)),
        ("exits_halt", count(run.halts)),
        ("single_steps", count(run.single)),
        ("tlb_l1_misses", count(tlb.l1_misses)),
        ("tlb_l1_misses_per_1000_insns", ratio(tlb.l1_misses * 1000, insns)),
        ("tlb_l2_hits", count(tlb.l2_hits)),
        ("tlb_l2_hit_rate", ratio(tlb.l2_hits, tlb.l2_hits + tlb.walks)),
        ("tlb_walks", count(tlb.walks)),
        ("tlb_flushes", count(tlb.flushes)),
        ("tlb_invalidations", count(tlb.invalidations)),
        ("interrupts", count(run.interrupts)),
        ("interrupts_acknowledged", count(board.interrupts)),
        ("io_ports", count(board.ports)),
        ("io_mmio", count(board.mmio)),
    ];
    if let Some(native) = vcpu.cache.translator().map(Translator::stats) {
        rows.extend([
            ("native_blocks", count(native.blocks)),
            ("native_insns", count(native.insns)),
            ("native_uops", count(native.uops)),
            ("native_uops_called", count(native.called)),
            ("native_bytes", count(native.bytes)),
            ("native_bytes_per_insn", ratio(native.bytes, native.insns)),
            ("native_ns_per_insn", ratio(native.ns, native.insns)),
            ("native_links", count(native.links)),
            ("native_evictions", count(native.evictions)),
        ]);
        let exits = |why: &[Leave]| why.iter().map(|l| cpu.native_exits[*l as usize]).sum();
        let entries: u64 = cpu.native_exits.iter().sum();
        rows.extend([
            ("native_entries", count(entries)),
            ("insns_per_native_entry", ratio(insns, entries)),
        ]);
        rows.extend(EXITS.iter().map(|(name, why)| (*name, count(exits(why)))));
    }
    let vector = |v: u8| cpu.vectors[usize::from(v)];
    rows.push(("exceptions", count((0..32).map(vector).sum())));
    rows.extend(EXCEPTIONS.iter().map(|&(v, name)| (name, count(vector(v)))));
    rows.into_iter().map(|(name, value)| Stat { name, value }).collect()
}

/// Registers and last block of a CPU that has shut down.
pub fn shutdown(vcpu: &mut Vcpu) -> String {
    let registers = registers(&vcpu.cpu);
    format!("{registers}{}", vcpu.last_block_text())
}

/// The registers, a screenful of lines.
fn registers(cpu: &Cpu) -> String {
    const NAMES: [&str; 16] = [
        "RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI", "R8", "R9", "R10", "R11", "R12",
        "R13", "R14", "R15",
    ];
    let mut s = String::new();
    for (n, name) in (0..).zip(NAMES) {
        let end = if n % 4 == 3 { '\n' } else { ' ' };
        let _ = write!(s, "{name:<3} {:016x}{end}", cpu.reg(Reg::gpr(n)));
    }
    let bits = match cpu.mode & (mode::CODE64 | mode::CODE32) {
        mode::CODE64 => 64,
        mode::CODE32 => 32,
        _ => 16,
    };
    let _ = writeln!(
        s,
        "RIP {:016x} RFLAGS {:08x} CPL {} {bits}-bit code, instruction {}",
        cpu.rip(),
        cpu.rflags(),
        cpu.cpl,
        cpu.icount()
    );
    let mut segment = |name: &str, seg: &Segment, base: u64| {
        let Segment { selector, attr, limit } = *seg;
        let _ = writeln!(s, "{name:<4} {selector:04x} {base:016x} {limit:08x} {attr:04x}");
    };
    for (name, seg) in ["ES", "CS", "SS", "DS", "FS", "GS"].into_iter().zip(Seg::ALL) {
        segment(name, &cpu.segs[seg as usize], cpu.base(seg));
    }
    let y = &cpu.sys;
    segment("LDTR", &y.ldtr, y.ldtr_base);
    segment("TR", &y.tr, y.tr_base);
    let _ = writeln!(
        s,
        "GDTR {:016x} {:04x} IDTR {:016x} {:04x}",
        y.gdtr.base, y.gdtr.limit, y.idtr.base, y.idtr.limit
    );
    let _ = writeln!(
        s,
        "CR0 {:08x} CR2 {:016x} CR3 {:016x} CR4 {:08x} EFER {:04x}",
        y.cr0, y.cr2, y.cr3, y.cr4, y.efer
    );
    s
}
