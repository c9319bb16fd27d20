//! `info`: the state of the machine as text, in QEMU's forms.

use super::expr::Args;
use super::hmp::{Command, Trouble, command};
use super::{Monitor, Refused};
use emu_core::cpu::{Cpu, Reg, Seg, Segment, mode};
use frontend_x86::sys::paging::{self, Page};
use machine::pc::{Bar, PicState};
use machine::{Drive, Machine, Mapping};
use std::fmt::Write;

/// Entries of paging structures that are looked at.
const ENTRIES: usize = 1 << 20;

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    command("block", "", "show info of all drives", |m, a| with(m, a, |m| block(m.drives()))),
    command("cpus", "", "show infos for each CPU", cpus),
    command("jit", "", "show dynamic compiler info", |m, a| with(m, a, jit)),
    command("mem", "", "show the active virtual memory mappings", |m, a| with(m, a, mem)),
    command("mtree", "", "show memory tree", |m, a| with(m, a, |m| mtree(&m.board().map()))),
    command("pci", "", "show PCI info", |m, a| with(m, a, pci)),
    command("pic", "", "show PIC state", |m, a| with(m, a, pic)),
    command("registers", "", "show the cpu registers", |m, a| with(m, a, registers)),
    command("status", "", "show the current VM status (running|paused)", status),
    command("tlb", "", "show virtual to physical memory mappings", |m, a| with(m, a, tlb)),
    command("version", "", "show the version of Ring3", version),
];

fn with(monitor: &Monitor, args: Args, f: fn(&Machine) -> String) -> Result<String, Trouble> {
    args.end()?;
    Ok(monitor.ask(move |m| f(m))?)
}

fn version(_: &Monitor, args: Args) -> Result<String, Trouble> {
    args.end()?;
    Ok(format!("{}\n", env!("CARGO_PKG_VERSION")))
}

fn status(monitor: &Monitor, args: Args) -> Result<String, Trouble> {
    args.end()?;
    let status = if monitor.is_paused() { "paused" } else { "running" };
    Ok(format!("VM status: {status}\n"))
}

fn cpus(monitor: &Monitor, args: Args) -> Result<String, Trouble> {
    args.end()?;
    Ok(format!("* CPU #0: thread_id={}\n", thread_id(monitor)?))
}

/// The host's number of the machine's thread.
pub(super) fn thread_id(monitor: &Monitor) -> Result<i32, Refused> {
    monitor.ask(|_| rustix::thread::gettid().as_raw_nonzero().get())
}

fn registers(m: &Machine) -> String {
    let (cpu, a20) = (&m.vcpu().cpu, u8::from(m.board().a20()));
    let long = cpu.mode & mode::CODE64 != 0;
    let lma = cpu.mode & mode::LONG != 0;
    let mut s = "\nCPU#0\n".to_owned();
    let wide = |v: u64| if long { format!("{v:016x}") } else { format!("{:08x}", v as u32) };
    // In QEMU's order, which is not the encoding's.
    const NAMES: [(&str, u8); 8] =
        [("AX", 0), ("BX", 3), ("CX", 1), ("DX", 2), ("SI", 6), ("DI", 7), ("BP", 5), ("SP", 4)];
    let prefix = if long { 'R' } else { 'E' };
    let low = NAMES.iter().map(|&(name, n)| (format!("{prefix}{name}"), n));
    let high = (8..16).filter(|_| long).map(|n| (format!("R{n:<2}"), n));
    for (i, (name, n)) in low.chain(high).enumerate() {
        let end = if i % 4 == 3 { '\n' } else { ' ' };
        let _ = write!(s, "{name}={}{end}", wide(cpu.reg(Reg::gpr(n))));
    }
    let flags = cpu.rflags();
    const LETTERS: [(u32, char); 7] =
        [(10, 'D'), (11, 'O'), (7, 'S'), (6, 'Z'), (4, 'A'), (2, 'P'), (0, 'C')];
    let letters: String =
        LETTERS.iter().map(|&(bit, c)| if flags >> bit & 1 != 0 { c } else { '-' }).collect();
    let (ip, fl) = if long { ("RIP", "RFL") } else { ("EIP", "EFL") };
    let _ = writeln!(
        s,
        "{ip}={} {fl}={flags:08x} [{letters}] CPL={} II={} A20={a20} SMM=0 HLT={}",
        wide(cpu.rip()),
        cpu.cpl,
        u8::from(cpu.shadow),
        u8::from(cpu.halted),
    );
    for (name, seg) in ["ES", "CS", "SS", "DS", "FS", "GS"].into_iter().zip(Seg::ALL) {
        s += &segment(cpu, name, &cpu.segs[seg as usize], cpu.base(seg));
    }
    let y = &cpu.sys;
    s += &segment(cpu, "LDT", &y.ldtr, y.ldtr_base);
    s += &segment(cpu, "TR", &y.tr, y.tr_base);
    for (name, table) in [("GDT", y.gdtr), ("IDT", y.idtr)] {
        let base = if lma { format!("{:016x}", table.base) } else { format!("{:08x}", table.base) };
        let _ = writeln!(s, "{name}=     {base} {:08x}", table.limit);
    }
    let width = if lma { 16 } else { 8 };
    let _ = writeln!(
        s,
        "CR0={:08x} CR2={:0width$x} CR3={:0width$x} CR4={:08x}",
        y.cr0, y.cr2, y.cr3, y.cr4
    );
    for n in 0..4 {
        let _ = write!(s, "DR{n}={:016x} ", y.dr[n]);
    }
    let _ = writeln!(s, "\nDR6={:016x} DR7={:016x}", y.dr[6], y.dr[7]);
    let _ = writeln!(s, "EFER={:016x}", y.efer);
    let x = &cpu.x87;
    let _ = writeln!(
        s,
        "FCW={:04x} FSW={:04x} [ST={}] FTW={:02x} MXCSR={:08x}",
        x.cw,
        x.sw,
        x.sw >> 11 & 7,
        x.full,
        cpu.mxcsr
    );
    for (n, st) in x.st.iter().enumerate() {
        let end = if n % 2 == 1 { '\n' } else { ' ' };
        let _ = write!(s, "FPR{n}={:016x} {:04x}{end}", st.mant, st.se);
    }
    for n in 0..if long { 16 } else { 8 } {
        let end = if n % 2 == 1 { '\n' } else { ' ' };
        let _ = write!(s, "XMM{n:02}={:016x} {:016x}{end}", cpu.v[n][1], cpu.v[n][0]);
    }
    s
}

/// System segment types (SDM Vol. 3, table 3-2), outside of long mode and in it.
#[rustfmt::skip]
const SYSTEM: [[&str; 16]; 2] = [
    ["Reserved", "TSS16-avl", "LDT", "TSS16-busy", "CallGate16", "TaskGate", "IntGate16",
     "TrapGate16", "Reserved", "TSS32-avl", "Reserved", "TSS32-busy", "CallGate32", "Reserved",
     "IntGate32", "TrapGate32"],
    ["<hiword>", "Reserved", "LDT", "Reserved", "Reserved", "Reserved", "Reserved", "Reserved",
     "Reserved", "TSS64-avl", "Reserved", "TSS64-busy", "CallGate64", "Reserved", "IntGate64",
     "TrapGate64"],
];

/// A segment register with the high half of its descriptor.
fn segment(cpu: &Cpu, name: &str, seg: &Segment, base: u64) -> String {
    let lma = cpu.mode & mode::LONG != 0;
    let granular = seg.attr & 0x8000 != 0;
    let top = seg.limit >> if granular { 28 } else { 16 } & 15;
    let flags = u32::from(seg.attr) << 8 | top << 16;
    let width = if cpu.mode & mode::CODE64 != 0 { 16 } else { 8 };
    let mut s =
        format!("{name:<3}={:04x} {base:0width$x} {:08x} {flags:08x}", seg.selector, seg.limit);
    let letter = |bit: u16, c: char| if seg.attr >> bit & 1 != 0 { c } else { '-' };
    if cpu.sys.cr0 & 1 != 0 && seg.present() {
        let _ = write!(s, " DPL={} ", seg.dpl());
        let _ = match (seg.is_code_or_data(), seg.is_code()) {
            (true, true) => {
                let bits = match (seg.long(), seg.big()) {
                    (true, _) => "64",
                    (_, true) => "32",
                    _ => "16",
                };
                write!(s, "CS{bits} [{}{}{}]", letter(2, 'C'), letter(1, 'R'), letter(0, 'A'))
            }
            (true, false) => {
                let bits = if seg.big() || lma { "  " } else { "16" };
                write!(s, "DS{bits} [{}{}{}]", letter(2, 'E'), letter(1, 'W'), letter(0, 'A'))
            }
            _ => write!(s, "{}", SYSTEM[usize::from(lma)][usize::from(seg.kind())]),
        };
    }
    s.push('\n');
    s
}

/// What is written for pages, and what is behind them.
fn paged(m: &Machine, mut page: impl FnMut(&Page), end: impl FnOnce() -> String) -> String {
    const PG: u64 = 1 << 31;
    if m.vcpu().cpu.sys.cr0 & PG == 0 {
        return "PG disabled\n".to_owned();
    }
    let mut more = "";
    for found in paging::pages(&m.vcpu().cpu, ENTRIES) {
        match found {
            Some(found) => page(&found),
            None => more = "the page tables have more entries than are shown\n",
        }
    }
    end() + more
}

/// Bits of the leaf entries.
const NX: u64 = 1 << 63;

fn tlb(m: &Machine) -> String {
    const LETTERS: [(u64, char); 9] = [
        (NX, 'X'),
        (1 << 8, 'G'),
        (1 << 7, 'P'),
        (1 << 6, 'D'),
        (1 << 5, 'A'),
        (1 << 4, 'C'),
        (1 << 3, 'T'),
        (1 << 2, 'U'),
        (1 << 1, 'W'),
    ];
    let text = std::cell::RefCell::new(String::new());
    let page = |p: &Page| {
        // In an entry of 4 KiB bit 7 is the PAT's.
        let entry = if p.translation.shift == 12 { p.entry & !(1 << 7) } else { p.entry };
        let letters = LETTERS.iter().map(|&(bit, c)| if entry & bit != 0 { c } else { '-' });
        let letters: String = letters.collect();
        let _ = writeln!(text.borrow_mut(), "{:016x}: {:016x} {letters}", p.va, p.translation.pa);
    };
    paged(m, page, || text.take())
}

fn mem(m: &Machine) -> String {
    type Range = (u64, u64, bool, bool);
    let ranges = std::cell::RefCell::new(Vec::<Range>::new());
    let page = |p: &Page| {
        let (t, mut ranges) = (&p.translation, ranges.borrow_mut());
        let end = p.va.wrapping_add(1 << t.shift);
        match ranges.last_mut() {
            Some(r) if (r.1, r.2, r.3) == (p.va, t.user, t.writable) => r.1 = end,
            _ => ranges.push((p.va, end, t.user, t.writable)),
        }
    };
    paged(m, page, || {
        ranges.take().iter().fold(String::new(), |mut text, &(start, end, user, writable)| {
            let (u, w) = (if user { 'u' } else { '-' }, if writable { 'w' } else { '-' });
            let len = end.wrapping_sub(start);
            let _ = writeln!(text, "{start:016x}-{end:016x} {len:016x} {u}r{w}");
            text
        })
    })
}

fn pic(m: &Machine) -> String {
    let io = m.board().io_apic();
    let mut s = format!("ioapic0: ver=0x20 id=0x{:02x} sel=0x{:02x}\n", io.id, io.select);
    const MODES: [&str; 8] = ["fixed", "lowpri", "smi", "...", "nmi", "init", "...", "extint"];
    for (pin, entry) in io.table.iter().enumerate() {
        let bit = |n: u32, yes, no| if entry >> n & 1 != 0 { yes } else { no };
        let _ = writeln!(
            s,
            "  pin {pin:<2} 0x{entry:016x} dest={} vec={:<3} {} {} {} {:<6} {}",
            entry >> 56,
            entry & 0xff,
            bit(13, "active-lo", "active-hi"),
            bit(15, "level", "edge "),
            bit(16, "masked", "      "),
            MODES[(entry >> 8 & 7) as usize].trim_end(),
            bit(11, "logical", "physical"),
        );
    }
    let pins = |bits: u32| match (0..24).filter(|n| bits >> n & 1 != 0).collect::<Vec<_>>() {
        none if none.is_empty() => " (none)".to_owned(),
        some => some.iter().map(|n| format!(" {n}")).collect(),
    };
    let remote = (0..).zip(io.table).fold(0, |r, (pin, e)| r | ((e >> 14) as u32 & 1) << pin);
    let _ = writeln!(s, "  IRR     {}\n  Remote IRR{}", pins(io.lines), pins(remote));
    let [master, slave] = m.board().pics();
    for (n, p) in [(1, slave), (0, master)] {
        let PicState { irr, imr, isr, elcr, top, base, read_isr, sfnm } = p;
        let (rr, fnm) = (u8::from(read_isr), u8::from(sfnm));
        let _ = writeln!(
            s,
            "pic{n}: irr={irr:02x} imr={imr:02x} isr={isr:02x} hprio={top} irq_base={base:02x} \
             rr_sel={rr} elcr={elcr:02x} fnm={fnm}"
        );
    }
    s
}

/// Classes of PCI functions (PCI Code and ID Assignment Specification).
const CLASSES: &[(u32, &str)] = &[
    (0x0100, "SCSI controller"),
    (0x0101, "IDE controller"),
    (0x0106, "SATA controller"),
    (0x0108, "NVMe controller"),
    (0x0180, "Storage controller"),
    (0x0200, "Ethernet controller"),
    (0x0300, "VGA controller"),
    (0x0600, "Host bridge"),
    (0x0601, "ISA bridge"),
    (0x0680, "Bridge"),
    (0x0780, "Communication controller"),
];

fn pci(m: &Machine) -> String {
    let mut s = String::new();
    for (number, config) in m.board().functions() {
        let (id, class) = (config.dword(0), config.dword(8) >> 16);
        let _ = writeln!(s, "  Bus  0, device {:3}, function {}:", number >> 3, number & 7);
        let name = CLASSES.iter().find(|(c, _)| *c == class).map(|(_, name)| (*name).to_owned());
        let name = name.unwrap_or_else(|| format!("Class {class:04x}"));
        let _ = writeln!(s, "    {name}: PCI device {:04x}:{:04x}", id & 0xffff, id >> 16);
        let sub = config.dword(0x2c);
        if sub != 0 {
            let _ = writeln!(s, "      PCI subsystem {:04x}:{:04x}", sub & 0xffff, sub >> 16);
        }
        let [irq, pin] = [config.byte(0x3c), config.byte(0x3d)];
        if pin != 0 {
            let _ = writeln!(s, "      IRQ {irq}, pin {}", char::from(b'A' + (pin - 1 & 3)));
        }
        for (bar, kind, len) in config.bars() {
            let base = config.range(bar).map_or(u64::MAX, |r| r.base);
            let end = base.wrapping_add(len - 1);
            let _ = match kind {
                Bar::Io => writeln!(s, "      BAR{bar}: I/O at 0x{base:04x} [0x{end:04x}]."),
                kind => {
                    let (bits, more) =
                        if kind == Bar::Memory64 { (64, " prefetchable") } else { (32, "") };
                    writeln!(
                        s,
                        "      BAR{bar}: {bits} bit{more} memory at 0x{base:08x} [0x{end:08x}]."
                    )
                }
            };
        }
        s += "      id \"\"\n";
    }
    s
}

/// A drive's format, as QEMU names it.
pub(super) fn format(drive: &Drive) -> &'static str {
    match drive.medium {
        Some((machine::block::Format::Qcow2, _)) => "qcow2",
        _ => "raw",
    }
}

/// Whether a drive's medium refuses writes.
pub(super) fn read_only(drive: &Drive) -> bool {
    drive.spec.read_only || drive.spec.media == machine::block::Media::Cdrom
}

fn block(drives: &[Drive]) -> String {
    let one = |d: &Drive| {
        let mut s = match (&d.spec.file, d.medium) {
            (Some(file), Some(_)) => {
                let more = if read_only(d) { ", read-only" } else { "" };
                format!("{}: {} ({}{more})\n", d.name, file.display(), format(d))
            }
            _ => format!("{}: [not inserted]\n", d.name),
        };
        if d.is_removable() {
            s += "    Removable device: not locked, tray closed\n";
        }
        if d.medium.is_some() {
            let through = d.spec.cache == machine::block::Cache::WriteThrough;
            let mode = if through { "writethrough" } else { "writeback" };
            let _ = writeln!(s, "    Cache mode:       {mode}");
        }
        s
    };
    drives.iter().map(one).collect::<Vec<_>>().join("\n")
}

fn mtree(map: &[Mapping]) -> String {
    let mut s = String::new();
    for (io, name, end, root) in
        [(false, "memory", u64::MAX, "system"), (true, "I/O", 0xffff, "io")]
    {
        let _ = writeln!(s, "address-space: {name}\n  {:016x}-{end:016x} (prio 0, i/o): {root}", 0);
        for m in map.iter().filter(|m| m.io == io) {
            let end = m.base.wrapping_add(m.len).wrapping_sub(1);
            let _ = writeln!(s, "    {:016x}-{end:016x} (prio 0, {}): {}", m.base, m.kind, m.name);
        }
        s.push('\n');
    }
    s
}

fn jit(m: &Machine) -> String {
    const KINDS: [&str; 8] =
        ["blocks", "cache", "native", "uops", "records", "dispatches", "tlb", "insns"];
    let shown = |name: &str| KINDS.iter().any(|kind| name.starts_with(kind));
    m.stats().iter().filter(|s| shown(s.name)).fold(String::new(), |mut text, s| {
        let _ = writeln!(text, "{:<30} {:>18}", s.name.replace('_', " "), s.value.to_string());
        text
    })
}
