//! Popek and Goldberg's view of the instruction set: which instructions are sensitive (they change
//! or reveal the machine's resources), what ring 3 gets of them in each mode, and, when an audit
//! runs, how often each is executed and how it was caught.
//!
//! A virtual machine monitor that runs a guest's kernel in ring 3 needs every sensitive instruction
//! to trap there (CACM 1974, theorem 1). x86 breaks that rule, as Robin and Irvine listed for the
//! Pentium (USENIX Security 2000). Ring3 translates all code, so nothing has to trap.
//!
//! An audit costs nothing when it is off: [`mode::AUDIT`] is part of what a block is lifted for,
//! and only with it the lifter puts a counting helper before a sensitive instruction.
//!
//! Source: SDM Vol. 2 (each instruction's exceptions), Vol. 3, 5.9, 20.2.7 and 2.5.

use crate::insn;
use crate::lift::Lift;
use crate::row::Class;
use Class::{Behaviour, Control};
use Trap::{Absent, Always, Free, Iopl, Ports, Switch};
use emu_core::cpu::{Cpu, Reg, mode};
use emu_core::fault::{Guest, vector};
use emu_core::uop::{Args, HelperDef, Op};
use emu_core::width::Width::W64;
use iced_x86::{Instruction, Mnemonic, OpKind, Register};

/// What happens when ring 3 executes an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trap {
    /// It raises #GP or #UD: privileged.
    Always,
    /// It raises #GP if IOPL is below the privilege level (in virtual-8086 mode: below 3).
    Iopl,
    /// It raises #GP if neither IOPL nor the TSS' permission map allows the port.
    Ports,
    /// It raises #GP or #UD if the system has set (or not set) this bit.
    Switch(&'static str),
    /// It is executed: unprivileged.
    Free,
    /// There is no such instruction in this mode.
    Absent,
}

/// A group of sensitive instructions.
#[derive(Clone, Copy, Debug)]
pub struct Sensitive {
    /// As it is written in a table.
    pub name: &'static str,
    /// Mnemonics.
    pub mnemonics: &'static [Mnemonic],
    /// Which of their forms.
    pub form: fn(&Instruction) -> bool,
    /// How it is sensitive.
    pub class: Class,
    /// What ring 3 gets: in virtual-8086 mode, 32-bit and 64-bit code.
    pub ring3: [Trap; 3],
    /// Robin and Irvine's name for it, if it is one of theirs.
    pub robin: &'static str,
    /// Why it is sensitive, and what became of it since 2000.
    pub why: &'static str,
}

macro_rules! sensitive {
    ($($($m:ident)|+: $name:literal, $form:expr, $class:ident, [$($trap:expr),+], $robin:literal, $why:literal;)*) => {
        /// All groups.
        pub static TABLE: &[Sensitive] = &[$(Sensitive {
            name: $name, mnemonics: &[$(Mnemonic::$m),+], form: $form, class: $class,
            ring3: [$($trap),+], robin: $robin, why: $why,
        }),*];
    };
}

const UMIP: Trap = Switch("CR4.UMIP = 1");
const PKE: Trap = Switch("CR4.PKE = 0");

#[rustfmt::skip]
sensitive! {
    Sgdt: "sgdt", any, Behaviour, [UMIP, UMIP, UMIP], "SGDT", "tells where the real GDT is; UMIP (2016) makes it trap where the system asks for it";
    Sidt: "sidt", any, Behaviour, [UMIP, UMIP, UMIP], "SIDT", "tells where the real IDT is; UMIP";
    Sldt: "sldt", any, Behaviour, [Absent, UMIP, UMIP], "SLDT", "tells the real LDT's selector; UMIP";
    Str: "str", any, Behaviour, [Absent, UMIP, UMIP], "STR", "tells the real TSS' selector, whose RPL is the ring; UMIP";
    Smsw: "smsw", any, Behaviour, [UMIP, UMIP, UMIP], "SMSW", "tells the real CR0; UMIP";
    Pushf | Pushfd | Pushfq: "pushf", any, Behaviour, [Iopl, Free, Free], "PUSHF", "tells the real IF and IOPL";
    Popf | Popfd | Popfq: "popf", any, Control, [Iopl, Free, Free], "POPF", "changes IF with IOPL, and without silently does not: the guest is not told";
    Lar: "lar", any, Behaviour, [Absent, Free, Free], "LAR", "tells rights of the real GDT's segments, by the real ring";
    Lsl: "lsl", any, Behaviour, [Absent, Free, Free], "LSL", "tells limits of the real GDT's segments, by the real ring; Linux keeps the CPU's number in one";
    Verr: "verr", any, Behaviour, [Absent, Free, Free], "VERR", "tells what the real ring may read";
    Verw: "verw", any, Behaviour, [Absent, Free, Free], "VERW", "tells what the real ring may write; Linux uses it to clear buffers";
    Mov: "mov from cs, ds, …", |i| segment(i, 1), Behaviour, [Free, Free, Free], "MOV", "CS and SS tell the real ring in their lowest bits";
    Mov: "mov to ds, ss, …", |i| segment(i, 0), Control, [Free, Free, Free], "MOV", "loads a descriptor of the real GDT, checked by the real ring";
    Push: "push cs, ds, …", |i| segment(i, 0), Behaviour, [Free, Free, Free], "PUSH", "CS and SS tell the real ring; in 64-bit code FS and GS are left";
    Pop: "pop ds, ss, …", |i| segment(i, 0), Control, [Free, Free, Free], "POP", "loads a descriptor of the real GDT; in 64-bit code FS and GS are left";
    Lds | Les | Lfs | Lgs | Lss: "lds, les, lfs, lgs, lss", any, Control, [Free, Free, Free], "", "as MOV to a segment register, which stands for them in the list";
    Call: "call far", far, Control, [Free, Free, Free], "CALL", "checks the real ring, changes it by gates";
    Jmp: "jmp far", far, Control, [Free, Free, Free], "JMP", "checks the real ring; switches tasks";
    Retf: "ret far", any, Control, [Free, Free, Free], "RET", "checks the real ring; goes to outer ones only";
    Int: "int n", any, Control, [Iopl, Free, Free], "INT n", "goes through the real IDT, if the gate's DPL allows";
    Int1 | Int3 | Into: "int1, int3, into", any, Control, [Free, Free, Free], "", "as INT n, which stands for them in the list; not IOPL-sensitive";
    Iret | Iretd | Iretq: "iret", any, Control, [Iopl, Free, Free], "", "as RET and POPF; the list has it by its parts";
    Arpl: "arpl", any, Behaviour, [Absent, Free, Absent], "", "computes with RPLs, by which a deprivileged kernel sees its ring; no resource is read";
    Wait: "wait", any, Behaviour, [Free, Free, Free], "", "raises #NM by CR0.TS and MP, as all x87 and SSE instructions do by CR0.TS: a fault the system asked for";
    Rdtsc | Rdtscp: "rdtsc, rdtscp", any, Behaviour, [Switch("CR4.TSD = 1"), Switch("CR4.TSD = 1"), Switch("CR4.TSD = 1")], "", "tells the real time; a system may make it trap by TSD, so it is not in the list";
    Rdpmc: "rdpmc", any, Behaviour, [Switch("CR4.PCE = 0"), Switch("CR4.PCE = 0"), Switch("CR4.PCE = 0")], "", "tells real counters; off unless the system sets PCE";
    Rdpid: "rdpid", any, Behaviour, [Free, Free, Free], "", "new (2017): tells the real IA32_TSC_AUX";
    Cpuid: "cpuid", any, Behaviour, [Free, Free, Free], "", "tells the real CPU; not in the list, for a Pentium's answer was no resource; later CPUs can make it trap";
    Xgetbv: "xgetbv", any, Behaviour, [Switch("CR4.OSXSAVE = 0"), Switch("CR4.OSXSAVE = 0"), Switch("CR4.OSXSAVE = 0")], "", "new (2008): tells the real XCR0; #UD only where XSAVE is off";
    Rdpkru: "rdpkru", any, Behaviour, [PKE, PKE, PKE], "", "new (2015): tells the real PKRU; #UD only where keys are off";
    Wrpkru: "wrpkru", any, Control, [PKE, PKE, PKE], "", "new (2015): changes rights to user pages, those of a kernel in ring 3 too";
    Rdfsbase | Rdgsbase: "rdfsbase, rdgsbase", any, Behaviour, [Absent, Absent, Switch("CR4.FSGSBASE = 0")], "", "new (2012): tells a base that only kernels could read before";
    Wrfsbase | Wrgsbase: "wrfsbase, wrgsbase", any, Control, [Absent, Absent, Switch("CR4.FSGSBASE = 0")], "", "new (2012): sets a base that only kernels could set before";
    Syscall: "syscall", any, Control, [Absent, Absent, Switch("EFER.SCE = 0")], "", "new (1998): enters the real kernel, not the guest's";
    Sysenter: "sysenter", any, Control, [Switch("SYSENTER_CS = 0"), Switch("SYSENTER_CS = 0"), Switch("SYSENTER_CS = 0")], "", "new (Pentium II): enters the real kernel, not the guest's";
    Sysret | Sysretq | Sysexit | Sysexitq: "sysret, sysexit", any, Control, [Always, Always, Always], "", "privileged";
    Cli | Sti: "cli, sti", any, Control, [Iopl, Iopl, Iopl], "", "IOPL-sensitive: traps as long as IOPL is 0";
    In | Out: "in, out", any, Control, [Ports, Ports, Ports], "", "IOPL-sensitive: traps unless the system allows the port";
    Insb | Insw | Insd | Outsb | Outsw | Outsd: "ins, outs", any, Control, [Ports, Ports, Ports], "", "as IN and OUT";
    Hlt: "hlt", any, Control, [Always, Always, Always], "", "privileged";
    Lgdt | Lidt: "lgdt, lidt", any, Control, [Always, Always, Always], "", "privileged";
    Lldt | Ltr: "lldt, ltr", any, Control, [Absent, Always, Always], "", "privileged";
    Mov: "mov to cr", |i| i.op0_register().is_cr(), Control, [Always, Always, Always], "", "privileged";
    Mov: "mov from cr", |i| i.op1_register().is_cr(), Behaviour, [Always, Always, Always], "", "privileged";
    Mov: "mov to dr", |i| i.op0_register().is_dr(), Control, [Always, Always, Always], "", "privileged";
    Mov: "mov from dr", |i| i.op1_register().is_dr(), Behaviour, [Always, Always, Always], "", "privileged";
    Clts | Lmsw: "clts, lmsw", any, Control, [Always, Always, Always], "", "privileged";
    Invlpg | Invpcid: "invlpg, invpcid", any, Control, [Always, Always, Always], "", "privileged";
    Invd | Wbinvd: "invd, wbinvd", any, Control, [Always, Always, Always], "", "privileged";
    Rdmsr: "rdmsr", any, Behaviour, [Always, Always, Always], "", "privileged";
    Wrmsr: "wrmsr", any, Control, [Always, Always, Always], "", "privileged";
    Monitor | Mwait: "monitor, mwait", any, Control, [Always, Always, Always], "", "new (2004), and privileged";
    Xsetbv: "xsetbv", any, Control, [Always, Always, Always], "", "new (2008), and privileged";
    Swapgs: "swapgs", any, Control, [Absent, Absent, Always], "", "new with 64-bit code, and privileged";
    Stac | Clac: "stac, clac", any, Control, [Always, Always, Always], "", "new (2014), and privileged: #UD";
}

fn any(_: &Instruction) -> bool {
    true
}

/// Operand `n` is a segment register.
fn segment(i: &Instruction, n: u32) -> bool {
    i.op_kind(n) == OpKind::Register && i.op_register(n).is_segment_register()
}

fn far(i: &Instruction) -> bool {
    i.is_jmp_far() || i.is_call_far() || i.is_jmp_far_indirect() || i.is_call_far_indirect()
}

/// Index in [`TABLE`] of the group that `i` is in, if it is sensitive.
#[must_use]
pub fn group(i: &Instruction) -> Option<usize> {
    let m = i.mnemonic();
    let special = |r: Register| r.is_segment_register() || r.is_cr() || r.is_dr();
    if m == Mnemonic::Mov && !special(i.op0_register()) && !special(i.op1_register()) {
        return None;
    }
    insn::row(i)?;
    TABLE.iter().position(|s| s.mnemonics.contains(&m) && (s.form)(i))
}

/// Where an instruction was executed.
pub const PLACES: [&str; 6] =
    ["real", "v86", "32-bit kernel", "32-bit user", "64-bit kernel", "64-bit user"];

/// Index in [`PLACES`] for a mode; long mode with 32-bit code counts as 32-bit, and ring 1 and 2 as
/// user.
fn place(m: u32) -> usize {
    let user = usize::from(m & (mode::USER | mode::CPL12) != 0);
    match m {
        m if m & mode::VM86 != 0 => 1,
        m if m & mode::REAL != 0 => 0,
        m if m & mode::CODE64 != 0 => 4 + user,
        _ => 2 + user,
    }
}

/// How an instruction was caught: indices of the counters of a group in a place.
pub const CAUGHT: [&str; 3] = ["micro-ops", "helper", "trapped"];
const ROW: usize = PLACES.len() * CAUGHT.len();

/// Counts of sensitive instructions by group, place and how they were caught: translated to
/// micro-ops alone, to the call of a helper, or raised #GP or #UD (which are not in the former).
#[must_use]
pub fn counts(cpu: &Cpu, group: usize) -> [[u64; CAUGHT.len()]; PLACES.len()] {
    let at = |place: usize, how: usize| group * ROW + place * CAUGHT.len() + how;
    let count = |n: usize| cpu.audit.get(n).copied().unwrap_or(0);
    std::array::from_fn(|p| std::array::from_fn(|how| count(at(p, how))))
}

/// Starts an audit: blocks lifted from now on count.
pub fn audit(cpu: &mut Cpu) {
    cpu.audit = vec![0; TABLE.len() * ROW];
    crate::sys::mode::update(cpu);
}

/// Counts an instruction: `imm` has the counter's index, and from bit 32 on the distance of the
/// instruction from the block's start.
pub static COUNT: HelperDef = HelperDef::new("count", count);

fn count(cpu: &mut Cpu, x: Args) -> Guest<()> {
    let n = x.imm as u32 as usize;
    if let Some(c) = cpu.audit.get_mut(n) {
        *c += 1;
        cpu.audited = (cpu.rip().wrapping_add(x.imm >> 32), n);
    }
    Ok(())
}

/// Notes that the instruction at RIP raised a fault: if it was the one counted last, it trapped.
pub fn faulted(cpu: &mut Cpu, vector: u8) {
    let (rip, n) = std::mem::replace(&mut cpu.audited, (u64::MAX, 0));
    let trap = matches!(vector, vector::GP | vector::UD);
    if trap && rip == cpu.rip() && n < cpu.audit.len() {
        cpu.audit[n] -= 1;
        cpu.audit[n / CAUGHT.len() * CAUGHT.len() + 2] += 1;
    }
}

/// Puts the counting of `l`'s instruction at its start, if it is sensitive.
pub fn before(l: &mut Lift) {
    if let Some(g) = group(l.i) {
        let n = g * ROW + place(l.mode) * CAUGHT.len();
        let imm = n as u64 | (l.b.insn_offset() as u64) << 32;
        l.b.helper(&COUNT, W64, 0, Reg::ZERO, Reg::ZERO, Reg::ZERO, imm);
    }
}

/// Once `l`'s instruction is lifted: counts it as one that calls a helper, if it does.
pub fn after(l: &mut Lift) {
    let uops = l.b.insn_uops();
    let helper = |op: Op| op == Op::Helper;
    if let [first, rest @ ..] = uops
        && first.helper.is_some_and(|h| std::ptr::eq(h, &COUNT))
        && rest.iter().any(|u| helper(u.op))
    {
        first.imm += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lift::lift_bytes;
    use crate::sys::cpuid::Features;
    use crate::sys::testing::{self, Level};
    use emu_core::vcpu::{Stop, Vcpu};

    /// Each row that its class calls sensitive is in the table, with that class; rows of which
    /// only some forms are sensitive are called innocuous.
    #[test]
    fn the_table_and_the_rows_agree() {
        for row in insn::FAMILIES.iter().flat_map(|f| f.iter()) {
            let groups: Vec<_> =
                TABLE.iter().filter(|s| s.mnemonics.contains(&row.mnemonic)).collect();
            let forms = ["mov", "push", "pop", "call", "jmp"];
            let partly = groups.iter().all(|g| forms.contains(&g.name.split(' ').next().unwrap()));
            if row.class == Class::Innocuous {
                assert!(partly, "{:?} is in the table", row.mnemonic);
            } else {
                assert!(!groups.is_empty(), "{:?} is not in the table", row.mnemonic);
                assert!(groups.iter().all(|g| g.class == row.class), "{:?}", row.mnemonic);
            }
        }
    }

    /// The paper speaks of seventeen instructions; its list, as all cite it, names eighteen.
    #[test]
    fn the_list_is_complete() {
        let mut names: Vec<_> = TABLE.iter().map(|s| s.robin).filter(|r| !r.is_empty()).collect();
        names.sort_unstable();
        names.dedup();
        let list = "CALL INT_n JMP LAR LSL MOV POP POPF PUSH PUSHF RET SGDT SIDT SLDT SMSW STR VERR \
                    VERW";
        assert_eq!(names.join(" ").replace("INT n", "INT_n"), list);
    }

    #[test]
    fn an_audit_counts_and_traps() {
        let mut c = testing::cpu(Level::Long);
        c.frontend = &crate::FRONTEND;
        // mov rax, cr3; pushfq; mov eax, cs; hlt
        c.mem.write_bytes(0x1234, &[0x0f, 0x20, 0xd8, 0x9c, 0x8c, 0xc8, 0xf4]);
        // In ring 3: mov eax, cs; cli, which traps; hlt in the handler.
        c.mem.write_bytes(0x5000, &[0x8c, 0xc8, 0xfa]);
        c.mem.write_bytes(0x6000, &[0xf4]);
        testing::gate(&mut c, 13, testing::CODE0, 0x6000, 0x8e, 0);
        audit(&mut c);
        let mut vcpu = Vcpu::new(c);
        assert_eq!(vcpu.run(100), Stop::Halted);
        vcpu.cpu.halted = false;
        testing::to_user(&mut vcpu.cpu, testing::CODE3, 0x7000);
        vcpu.cpu.set_rip(0x5000);
        assert_eq!(vcpu.run(100), Stop::Halted);
        let of = |name: &str| {
            let g = TABLE.iter().position(|s| s.name.starts_with(name)).unwrap();
            counts(&vcpu.cpu, g)
        };
        assert_eq!(of("mov from cr")[4], [0, 1, 0]);
        assert_eq!(of("pushf")[4], [0, 1, 0]);
        assert_eq!((of("mov from cs")[4], of("mov from cs")[5]), ([0, 1, 0], [0, 1, 0]));
        assert_eq!((of("cli")[5], of("hlt")[4]), ([0, 0, 1], [0, 2, 0]));
    }

    #[test]
    fn without_an_audit_there_is_no_counting() {
        let code = [0x0f, 0x20, 0xd8]; // mov rax, cr3
        let ops = |m: u32| {
            let block = lift_bytes(&code, mode::CODE64 | m, Features::X86_64_V3.0, 1).0;
            block.uops.iter().filter_map(|u| u.helper).map(|h| h.name).collect::<Vec<_>>()
        };
        assert_eq!(ops(0), ["mov_from_cr"]);
        assert_eq!(ops(mode::AUDIT), ["count", "mov_from_cr"]);
    }
}
