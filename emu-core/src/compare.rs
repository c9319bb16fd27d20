//! What a guest can see of a CPU and its memory, as words with names: whether two CPUs are the
//! same, and in what they differ.
//!
//! Temporaries, caches and the TLB are not in it: engines may differ in those. One function
//! ([`visit`]) goes over the state; it takes every structure apart by all its fields, so that a new
//! field is looked at or named as one that is not.

use crate::cpu::{Cpu, Seg, Segment, SysRegs, TableReg, X87};
use crate::mem::GuestRam;
use std::fmt;

/// Name of a word: that of a register, and which one where there are several, or which part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name(pub &'static str, pub u16);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const GPR: [&str; 16] = [
            "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11",
            "r12", "r13", "r14", "r15",
        ];
        const SEG: [&str; 6] = ["es", "cs", "ss", "ds", "fs", "gs"];
        let Name(name, n) = *self;
        let i = usize::from(n);
        match name {
            "gpr" => f.write_str(GPR[i]),
            "selector" | "attr" | "limit" | "base" => write!(f, "{}.{name}", SEG[i]),
            "ymm" => write!(f, "ymm{}[{}]", n / 4, n % 4),
            "mant" | "se" => write!(f, "R{n}.{name}"),
            "exceptions" => write!(f, "exceptions {n:#04x}"),
            "dr" => write!(f, "dr{n}"),
            "mtrr_fixed" | "mtrr_var" => write!(f, "{name}{n}"),
            _ => f.write_str(name),
        }
    }
}

/// Words of a state.
const WORDS: usize = 468;

/// Calls `put` with each word of the state of `cpu`, always in the same order.
#[inline(always)]
fn visit(cpu: &Cpu, mut put: impl FnMut(Name, u64)) {
    let mut one = |name, v: u64| put(Name(name, 0), v);
    one("icount", cpu.icount());
    one("skipped_ns", cpu.skipped_ns);
    one("rip", cpu.rip());
    one("rflags", cpu.rflags());
    one("mode", cpu.mode.into());
    one("cpl", cpu.cpl.into());
    one("shadow", cpu.shadow.into());
    one("halted", cpu.halted.into());
    one("mwait", cpu.mwait.into());
    one("nmi_blocked", cpu.nmi_blocked.into());
    one("shutdown", cpu.shutdown.into());
    one("debug traps", cpu.watch.pending);
    one("debug shadow", cpu.watch.shadow.into());
    one("random", cpu.random);
    one("mxcsr", cpu.mxcsr.into());
    for (n, v) in (0..).zip(&cpu.regs[..16]) {
        put(Name("gpr", n), *v);
    }
    for (n, seg) in (0..).zip(Seg::ALL) {
        let Segment { selector, attr, limit } = cpu.segs[seg as usize];
        put(Name("selector", n), selector.into());
        put(Name("attr", n), attr.into());
        put(Name("limit", n), limit.into());
        put(Name("base", n), cpu.base(seg));
    }
    for (n, v) in (0..).zip(cpu.v[..16].as_flattened()) {
        put(Name("ymm", n), *v);
    }
    x87(&cpu.x87, &mut put);
    sys(&cpu.sys, &mut put);
    for (n, v) in (0..).zip(cpu.vectors.iter()) {
        put(Name("exceptions", n), *v);
    }
}

#[inline(always)]
fn x87(x87: &X87, put: &mut impl FnMut(Name, u64)) {
    let X87 { st, cw, sw, full, fop, fip, fcs, fdp, fds } = x87;
    for (n, st) in (0..).zip(st) {
        put(Name("mant", n), st.mant);
        put(Name("se", n), st.se.into());
    }
    let mut one = |name, v: u64| put(Name(name, 0), v);
    one("fcw", (*cw).into());
    one("fsw", (*sw).into());
    one("ftw", (*full).into());
    one("fop", (*fop).into());
    one("fip", *fip);
    one("fcs", (*fcs).into());
    one("fdp", *fdp);
    one("fds", (*fds).into());
}

#[inline(always)]
fn sys(sys: &SysRegs, put: &mut impl FnMut(Name, u64)) {
    let SysRegs {
        cr0,
        cr2,
        cr3,
        cr4,
        xcr0,
        dr,
        efer,
        star,
        lstar,
        cstar,
        sfmask,
        kernel_gs_base,
        tsc_aux,
        tsc_offset,
        sysenter_cs,
        sysenter_esp,
        sysenter_eip,
        pat,
        misc_enable,
        mtrr_def_type,
        mtrr_fixed,
        mtrr_var,
        spec_ctrl,
        pkru,
        bios_sign_id,
        gdtr,
        idtr,
        ldtr,
        ldtr_base,
        tr,
        tr_base,
    } = sys;
    let mut one = |name, v: u64| put(Name(name, 0), v);
    one("cr0", *cr0);
    one("cr2", *cr2);
    one("cr3", *cr3);
    one("cr4", *cr4);
    one("xcr0", *xcr0);
    one("efer", *efer);
    one("star", *star);
    one("lstar", *lstar);
    one("cstar", *cstar);
    one("sfmask", *sfmask);
    one("kernel_gs_base", *kernel_gs_base);
    one("tsc_aux", *tsc_aux);
    one("tsc_offset", *tsc_offset);
    one("sysenter_cs", *sysenter_cs);
    one("sysenter_esp", *sysenter_esp);
    one("sysenter_eip", *sysenter_eip);
    one("pat", *pat);
    one("misc_enable", *misc_enable);
    one("mtrr_def_type", *mtrr_def_type);
    one("spec_ctrl", *spec_ctrl);
    one("pkru", (*pkru).into());
    one("bios_sign_id", *bios_sign_id);
    let TableReg { base, limit } = gdtr;
    one("gdtr.base", *base);
    one("gdtr.limit", (*limit).into());
    let TableReg { base, limit } = idtr;
    one("idtr.base", *base);
    one("idtr.limit", (*limit).into());
    let Segment { selector, attr, limit } = ldtr;
    one("ldtr.selector", (*selector).into());
    one("ldtr.attr", (*attr).into());
    one("ldtr.limit", (*limit).into());
    one("ldtr.base", *ldtr_base);
    let Segment { selector, attr, limit } = tr;
    one("tr.selector", (*selector).into());
    one("tr.attr", (*attr).into());
    one("tr.limit", (*limit).into());
    one("tr.base", *tr_base);
    for (n, v) in (0..).zip(dr) {
        put(Name("dr", n), *v);
    }
    for (n, v) in (0..).zip(mtrr_fixed) {
        put(Name("mtrr_fixed", n), *v);
    }
    for (n, v) in (0..).zip(mtrr_var) {
        put(Name("mtrr_var", n), *v);
    }
}

/// The state of a CPU at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State([u64; WORDS]);

impl State {
    /// That of `cpu` now.
    pub fn of(cpu: &Cpu) -> State {
        let (mut words, mut n) = ([0; WORDS], 0);
        visit(cpu, |_, v| {
            words[n] = v;
            n += 1;
        });
        debug_assert_eq!(n, WORDS);
        State(words)
    }

    /// Its words.
    pub fn words(&self) -> &[u64] {
        &self.0
    }
}

/// The names of a state's words, in their order.
pub fn names(cpu: &Cpu) -> Vec<Name> {
    let mut names = Vec::with_capacity(WORDS);
    visit(cpu, |name, _| names.push(name));
    names
}

/// Whether two CPUs are in the same state.
pub fn same(a: &Cpu, b: &Cpu) -> bool {
    State::of(a) == State::of(b)
}

/// In what two CPUs differ: a line for each word. Empty if they are the same.
pub fn differences(a: &Cpu, b: &Cpu) -> String {
    let (x, y) = (State::of(a), State::of(b));
    let rows = names(a).into_iter().zip(x.0).zip(y.0).filter(|((_, x), y)| x != y);
    let lines: Vec<String> =
        rows.map(|((name, x), y)| format!("{name}: {x:#x}, {y:#x}\n")).collect();
    lines.concat()
}

/// Offsets of the pages in which two memories of the same size differ, `most` of them at most.
pub fn pages(a: &GuestRam, b: &GuestRam, most: usize) -> Vec<u64> {
    let page = |at: &u64| !a.same(b, *at, 4096);
    let touched = a.touched().chain(b.touched());
    let mut found: Vec<u64> =
        touched.flat_map(|r| r.step_by(4096)).filter(page).take(2 * most).collect();
    found.sort_unstable();
    found.dedup();
    found.truncate(most);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_that_differ_are_found() {
        let [a, b] = [(); 2].map(|()| GuestRam::new(64 << 12).unwrap());
        assert_eq!(pages(&a, &b, 10), []);
        for at in [0x3000, 0x3008, 0x3f_fff8] {
            a.write_u64(at, at);
        }
        assert_eq!(pages(&a, &b, 10), [0x3000]);
        b.write_u64(0x3_f000, 1);
        assert_eq!(pages(&a, &b, 10), [0x3000, 0x3_f000]);
        assert_eq!(pages(&b, &a, 1).len(), 1);
        b.write_u64(0x3000, 0x3000);
        assert_eq!(pages(&a, &b, 10), [0x3000, 0x3_f000]);
        b.write_u64(0x3008, 0x3008);
        a.write_u64(0x3_f000, 1);
        assert_eq!(pages(&a, &b, 10), []);
    }
}
