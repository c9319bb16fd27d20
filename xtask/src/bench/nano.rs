//! What the hardware's own operations cost: a kernel of a few instructions for each.
//!
//! The image is that of the system tests (`ring3_tests::system`): a ROM that runs one row after the
//! other on the bare machine and prints what it saw. A row here repeats an operation [`COUNT`]
//! times between two readings of the HPET's counter, [`BATCHES`] times over, and shows the ticks of
//! the fastest batch and the length of a tick.

use super::emulator::{Emulator, Limits};
use super::table::{Report, Sample};
use super::target;
use anyhow::{Context, ensure};
use iced_x86::code_asm::*;
use ring3_tests::system::asm::{Asm, Emit};
use ring3_tests::system::layout::*;
use ring3_tests::system::{Mode, Row, image};

/// How often a batch repeats its operation: so short that some batches escape the machine's other
/// load.
const COUNT: u32 = 2_000;
const BATCHES: u32 = 50;

/// Linear address of the HPET, below 2 GiB so that any code reaches it: the 2 MiB page that holds
/// physical FED00000H is mapped to 4 MiB.
const HPET: u64 = 0x50_0000;
/// Its registers (IA-PC HPET specification 1.0a, 2.3): the tick in femtoseconds, configuration,
/// counter.
const PERIOD: u64 = HPET + 4;
const CONFIGURATION: u64 = HPET + 0x10;
const COUNTER: u64 = HPET + 0xf0;

const EFER: u32 = 0xc000_0080;
const STAR: u32 = 0xc000_0081;
const LSTAR: u32 = 0xc000_0082;

/// Name, what happens before the first batch, the operation. It may use all registers but EBX, R8D
/// to R10D and RSP.
type Operation = (&'static str, fn(&mut Asm) -> Emit, fn(&mut Asm) -> Emit);

#[rustfmt::skip]
const OPERATIONS: [Operation; 8] = [
    ("CR3 reload and load", |s| s.mov(rax, cr3), |s| {
        s.mov(cr3, rax)?;
        s.mov(edx, dword_ptr(u64::from(PAGE)))
    }),
    ("CR3 switch and load", |s| {
        s.poke(SCRATCH, u64::from(IMAGE + PDPT) | 7)?;
        s.mov(esi, SCRATCH)?;
        s.mov(rax, cr3)
    }, |s| {
        s.xchg(rax, rsi)?;
        s.mov(cr3, rax)?;
        s.mov(edx, dword_ptr(u64::from(PAGE)))
    }),
    ("INVLPG and load", |_| Ok(()), |s| {
        s.invlpg(byte_ptr(u64::from(PAGE)))?;
        s.mov(edx, dword_ptr(u64::from(PAGE)))
    }),
    ("patch code and call it", function, |s| {
        s.mov(dword_ptr(rsi + 1), ebx)?;
        s.call(rsi)
    }),
    ("store beside code and call it", function, |s| {
        s.mov(dword_ptr(rsi + 256), ebx)?;
        s.call(rsi)
    }),
    ("#PF at CPL 3 and IRET", |s| {
        let handler = s.addr("handler");
        s.gate64(14, gate(CODE64, handler, 0x8e, 0))?;
        s.pte(PAGE, 0)?;
        s.mov(edi, PAGE)?;
        handler_and_user(s, |s| {
            s.add(rsp, 8)?;
            // Past the two bytes of the load.
            s.add(qword_ptr(rsp), 2)?;
            s.iretq()
        })
    }, |s| s.mov(eax, dword_ptr(rdi))),
    ("INT at CPL 3 and IRET", |s| {
        let handler = s.addr("handler");
        s.gate64(0x21, gate(CODE64, handler, 0xee, 0))?;
        handler_and_user(s, |s| s.iretq())
    }, |s| s.int(0x21)),
    ("SYSCALL and SYSRET", |s| {
        let handler = s.addr("handler");
        s.set_msr(EFER, 0x101)?;
        s.set_msr(STAR, u64::from(CODE32_3) << 48 | u64::from(CODE64) << 32)?;
        s.set_msr(LSTAR, handler.into())?;
        handler_and_user(s, |s| s.sysretq())
    }, |s| s.syscall()),
];

/// At RSI, away from other code: `MOV EAX, 1; RET`.
fn function(s: &mut Asm) -> Emit {
    s.poke(SCRATCH, u64::from_le_bytes([0xb8, 1, 0, 0, 0, 0xc3, 0, 0]))?;
    s.mov(esi, SCRATCH)
}

/// Emits `handler` under its name, and goes on at CPL 3.
fn handler_and_user(s: &mut Asm, handler: fn(&mut Asm) -> Emit) -> Emit {
    let user = s.label("user");
    s.jmp(user)?;
    s.here("handler")?;
    handler(s)?;
    s.here("user")?;
    s.ring3()
}

/// The code of a row: registers hold the repetitions left (EBX), the least ticks (R8D), the batches
/// left (R9D), the counter at a batch's start (R10D).
fn code<const N: usize>(s: &mut Asm) -> Emit {
    let (_, before, operation) = OPERATIONS[N];
    // Present, writable, user, not cached, large.
    s.poke(IMAGE + PD + 2 * 8, 0xfec0_0097)?;
    s.or(dword_ptr(CONFIGURATION), 1)?;
    before(s)?;
    s.mov(r8d, -1)?;
    s.mov(r9d, BATCHES)?;
    let (batch, again) = (s.label("batch"), s.label("again"));
    s.here("batch")?;
    s.mov(ebx, COUNT)?;
    s.mov(r10d, dword_ptr(COUNTER))?;
    s.here("again")?;
    operation(s)?;
    s.dec(ebx)?;
    s.jne(again)?;
    s.mov(edx, dword_ptr(COUNTER))?;
    s.sub(edx, r10d)?;
    s.cmp(edx, r8d)?;
    s.cmovb(r8d, edx)?;
    s.dec(r9d)?;
    s.jne(batch)?;
    s.show(r8d)?;
    s.mov(edx, dword_ptr(PERIOD))?;
    s.show(edx)
}

fn rows() -> Vec<Row> {
    const CODE: [fn(&mut Asm) -> Emit; OPERATIONS.len()] =
        [code::<0>, code::<1>, code::<2>, code::<3>, code::<4>, code::<5>, code::<6>, code::<7>];
    let row = |(it, code): (&Operation, fn(&mut Asm) -> Emit)| Row {
        name: it.0,
        mode: Mode::LongUser,
        expected: "",
        source: "",
        code,
    };
    OPERATIONS.iter().zip(CODE).map(row).collect()
}

/// The nanoseconds of each operation, out of lines `NAME: TICKS PERIOD`.
fn parse(console: &str) -> anyhow::Result<Vec<f64>> {
    let figure = |&(name, ..): &Operation| {
        let line = console.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let line = line.with_context(|| format!("no line of {name} in\n{console}"))?;
        let number = |word| u64::from_str_radix(word, 16).ok();
        let numbers: Option<Vec<u64>> = line.split_whitespace().map(number).collect();
        let Some(&[ticks, period]) = numbers.as_deref() else {
            anyhow::bail!("{name} did not come to its end:{line}");
        };
        Ok(ticks as f64 * period as f64 / 1e6 / f64::from(COUNT))
    };
    OPERATIONS.iter().map(figure).collect()
}

/// Runs the operations under every emulator, in turns.
pub fn bench(emulators: &[Emulator], limits: Limits) -> anyhow::Result<Report> {
    let rows = rows();
    let rom = target()?.join("bench/nano.rom");
    std::fs::create_dir_all(target()?.join("bench"))?;
    std::fs::write(&rom, image::build(&rows.iter().collect::<Vec<_>>())?)?;
    let mut runs: Vec<Vec<Vec<f64>>> = emulators.iter().map(|_| Vec::new()).collect();
    for _ in 0..limits.rounds {
        for (emulator, runs) in emulators.iter().zip(&mut runs) {
            let console = emulator.run_rom(&rom, limits.timeout)?;
            runs.push(parse(&console).with_context(|| emulator.name.clone())?);
        }
    }
    report(emulators, &runs)
}

/// A row per operation.
fn report(emulators: &[Emulator], runs: &[Vec<Vec<f64>>]) -> anyhow::Result<Report> {
    ensure!(runs.iter().all(|rounds| !rounds.is_empty()), "no rounds");
    let of = |ring3| emulators.iter().zip(runs).filter(move |(it, _)| it.is_ring3 == ring3);
    let sample = |rounds: &[Vec<f64>], n: usize| Sample::new(rounds.iter().map(|round| round[n]));
    let mut header = vec!["operation".to_owned()];
    header.extend(emulators.iter().map(|it| format!("{}, ns", it.short)));
    for (engine, _) in of(true) {
        header.extend(of(false).map(|(other, _)| format!("{}/{}", engine.short, other.short)));
    }
    let row = |(n, &(name, ..)): (usize, &Operation)| {
        let mut row = vec![name.to_owned()];
        row.extend(runs.iter().map(|rounds| format!("{:.0}", sample(rounds, n).median())));
        for (_, engine) in of(true) {
            let ratio = |other: &[Vec<f64>]| sample(engine, n).over(&sample(other, n)).median();
            row.extend(of(false).map(|(_, other)| format!("{:.2}", ratio(other))));
        }
        row
    };
    Ok(Report {
        title: format!("The bare machine, nanoseconds; medians of {} rounds", runs[0].len()),
        header,
        rows: OPERATIONS.iter().enumerate().map(row).collect(),
        notes: vec![format!("The fastest of {BATCHES} batches of {COUNT}, loop included.")],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring3_tests::system::run;
    use std::path::Path;

    #[test]
    fn every_operation_comes_to_its_end() {
        let rows = rows();
        let seen = run::ring3(&rows.iter().collect::<Vec<_>>());
        let lines = rows.iter().zip(seen).map(|(row, seen)| format!("{}: {seen}\n", row.name));
        // By the clock that counts instructions: the loop alone has two per operation.
        for nanoseconds in parse(&lines.collect::<String>()).unwrap() {
            assert!((3.0..30.0).contains(&nanoseconds), "{nanoseconds}");
        }
    }

    fn console(last: &str) -> String {
        let lines = OPERATIONS.iter().map(|(name, ..)| format!("{name}: 2710 989680\n"));
        let mut lines: Vec<String> = lines.collect();
        *lines.last_mut().unwrap() = last.to_owned();
        lines.concat()
    }

    #[test]
    fn ticks_become_nanoseconds() {
        // 10000 ticks of 10 ns.
        assert_eq!(parse(&console("SYSCALL and SYSRET: 1 989680\n")).unwrap()[0], 50.0);
        for (last, message) in [
            ("SYSCALL and SYSRET: #GP(0)\n", "SYSCALL and SYSRET did not come to its end: #GP(0)"),
            ("", "no line of SYSCALL and SYSRET in\n"),
        ] {
            let error = parse(&console(last)).unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
        }
    }

    #[test]
    fn a_table_of_operations() {
        let emulators = [Emulator::ring3(Path::new("ring3"), "jit"), Emulator::qemu("max")];
        let round = |ns: f64| vec![ns; OPERATIONS.len()];
        let runs = [vec![round(40.0), round(50.0), round(60.0)], vec![round(100.0); 3]];
        let report = report(&emulators, &runs).unwrap();
        assert_eq!(report.header, ["operation", "jit, ns", "max, ns", "jit/max"]);
        assert_eq!(report.rows.len(), OPERATIONS.len());
        assert_eq!(report.rows[7], ["SYSCALL and SYSRET", "50", "100", "0.50"]);
    }
}
