//! An integer program mix, the crate `bench-guest`, on this host and in guests.
//!
//! The programs time themselves, so booting is not measured. How many instructions a program has is
//! taken from one run with `--clock icount`, where a nanosecond is an instruction; the guest's
//! timer interrupts, well below 1 %, are counted with it. Over its time by the host's clock, that
//! is ring3's speed in MIPS. Every result is compared with the host's.

use super::emulator::{Emulator, Limits, Run};
use super::guest::guest;
use super::table::{Report, Sample, geomean};
use super::{cargo_build, target};
use anyhow::{Context, ensure};
use std::path::PathBuf;
use std::process::Command;

/// One program's line of output.
#[derive(Clone, Debug, PartialEq)]
struct Program {
    name: String,
    /// How often it ran, and what came out: the same everywhere.
    result: (u64, String),
    nanoseconds: u64,
}

/// The lines `bench NAME ITERATIONS NANOSECONDS CHECKSUM` of a console.
fn parse(console: &str) -> Vec<Program> {
    let line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let &["bench", name, iterations, nanoseconds, checksum] = words.as_slice() else {
            return None;
        };
        Some(Program {
            name: name.to_owned(),
            result: (iterations.parse().ok()?, checksum.to_owned()),
            nanoseconds: nanoseconds.parse().ok()?,
        })
    };
    console.lines().filter_map(line).collect()
}

/// The programs of a guest, whose results must be those of the host.
fn compare(native: &[Program], console: &str) -> anyhow::Result<Vec<Program>> {
    let programs = parse(console);
    for native in native {
        let found = programs.iter().find(|program| program.name == native.name);
        let Program { result, .. } =
            found.with_context(|| format!("no line of {} in\n{console}", native.name))?;
        let (name, expected) = (&native.name, &native.result);
        ensure!(result == expected, "{name} gave {result:?} instead of {expected:?}");
    }
    ensure!(programs.len() == native.len(), "a program too many in\n{console}");
    Ok(programs)
}

fn build() -> anyhow::Result<PathBuf> {
    const TRIPLE: &str = "x86_64-unknown-linux-gnu";
    let target = target()?.join("bench-guest");
    cargo_build("bench-guest", &target, &["--target", TRIPLE])?;
    Ok(target.join(TRIPLE).join("release/bench-guest"))
}

fn run_natively(program: &PathBuf) -> anyhow::Result<Vec<Program>> {
    let output = Command::new(program).output().context("this needs an x86-64 host")?;
    ensure!(output.status.success(), "bench-guest: {}", output.status);
    Ok(parse(str::from_utf8(&output.stdout)?))
}

/// Where a mix ran: on the host, or in an emulator's guest.
struct Place {
    emulator: Option<Emulator>,
    /// One mix per round.
    rounds: Vec<Vec<Program>>,
}

impl Place {
    /// The nanoseconds of the `n`th program in each round.
    fn nanoseconds(&self, n: usize) -> Sample {
        Sample::new(self.rounds.iter().map(|mix| mix[n].nanoseconds as f64))
    }
}

/// Runs the mix on the host and under every emulator, in turns, and once with counted instructions.
pub fn bench(emulators: &[Emulator], limits: Limits) -> anyhow::Result<Report> {
    let program = build()?;
    let guest = guest("mips", Some(&std::fs::read(&program)?), None)?;
    let native = run_natively(&program)?;
    let mix = |emulator: &Emulator| -> anyhow::Result<(Vec<Program>, Run)> {
        let run = emulator.run(&guest, limits.timeout)?;
        let mix = compare(&native, &run.console).with_context(|| emulator.name.clone())?;
        Ok((mix, run))
    };

    let hosted = emulators.iter().cloned().map(Some);
    let mut places: Vec<Place> = std::iter::once(None)
        .chain(hosted)
        .map(|emulator| Place { emulator, rounds: Vec::new() })
        .collect();
    for _ in 0..limits.rounds {
        for place in &mut places {
            place.rounds.push(match &place.emulator {
                None => run_natively(&program)?,
                Some(emulator) => mix(emulator)?.0,
            });
        }
    }
    let engine = emulators.iter().find(|emulator| emulator.is_ring3).context("no engine")?;
    let (counted, run) = mix(&engine.icount())?;
    let title = format!(
        "Integer programs on Linux {}, native and in a guest; medians of {} rounds",
        guest.version, limits.rounds
    );
    Ok(report(title, &places, &counted, run.counter("instructions")?))
}

/// A row per program, and their geometric means. `total` is the number of all instructions of the
/// run that gave `counted`.
fn report(title: String, places: &[Place], counted: &[Program], total: u64) -> Report {
    let (native, guests) = (&places[0], &places[1..]);
    let name = |place: &Place| place.emulator.as_ref().map_or("", |it| &it.short).to_owned();
    let is_ring3 = |place: &&Place| place.emulator.as_ref().is_some_and(|it| it.is_ring3);
    let engines = || guests.iter().filter(is_ring3);
    let others = || guests.iter().filter(|place| !is_ring3(place));
    let pairs = || engines().flat_map(|engine| others().map(move |other| (engine, other)));

    let mut header = vec!["program".to_owned(), "Minsn".into(), "native, ms".into()];
    header.extend(guests.iter().map(|place| format!("{} ×", name(place))));
    header.extend(engines().map(|place| format!("{} MIPS", name(place))));
    header.extend(pairs().map(|(engine, other)| format!("{}/{}", name(engine), name(other))));

    // Instructions, the host's milliseconds, then what the geometric means are taken of.
    let figures = |n: usize| -> Vec<f64> {
        let count = counted[n].nanoseconds as f64;
        let slowdown = |place: &Place| place.nanoseconds(n).over(&native.nanoseconds(n)).median();
        let mut row = vec![count / 1e6, native.nanoseconds(n).median() / 1e6];
        row.extend(guests.iter().map(slowdown));
        row.extend(engines().map(|place| count * 1e3 / place.nanoseconds(n).median()));
        row.extend(
            pairs()
                .map(|(engine, other)| engine.nanoseconds(n).over(&other.nanoseconds(n)).median()),
        );
        row
    };
    let all: Vec<Vec<f64>> = (0..counted.len()).map(figures).collect();
    let digits = |column: usize| match column {
        0 => 0,
        1 => 1,
        column if (2 + guests.len()..2 + guests.len() + engines().count()).contains(&column) => 0,
        _ => 2,
    };
    let show = |(column, figure): (usize, &f64)| format!("{figure:.*}", digits(column));
    let row = |(program, figures): (&Program, &Vec<f64>)| {
        let cells = figures.iter().enumerate().map(show);
        std::iter::once(program.name.clone()).chain(cells).collect()
    };
    let mut rows: Vec<Vec<String>> = counted.iter().zip(&all).map(row).collect();
    let mean = |column: usize| match column {
        0 | 1 => String::new(),
        _ => show((column, &geomean(all.iter().map(|figures| figures[column])))),
    };
    let means = (0..all[0].len()).map(mean);
    rows.push(std::iter::once("geometric mean".to_owned()).chain(means).collect());

    let short = |places: Vec<&Place>| places.into_iter().map(name).collect::<Vec<_>>().join(", ");
    let mut notes = vec![
        "Minsn: instructions by a run with --clock icount, in millions.".to_owned(),
        format!(
            "×: time over the native one. ring3 engines: {}. QEMU TCG models: {}.",
            short(engines().collect()),
            short(others().collect())
        ),
    ];
    notes.extend(implausible(native, counted, total));
    Report { title, header, rows, notes }
}

/// What cannot be true of counts: more than the whole run had, or fewer than one instruction in ten
/// nanoseconds on the host or more than sixteen in one.
fn implausible(native: &Place, counted: &[Program], total: u64) -> Vec<String> {
    let sum: u64 = counted.iter().map(|program| program.nanoseconds).sum();
    let mut notes = Vec::new();
    if sum > total {
        notes.push(format!("WRONG: the programs had {sum} instructions, all together {total}."));
    }
    for (n, program) in counted.iter().enumerate() {
        let rate = program.nanoseconds as f64 / native.nanoseconds(n).median();
        if !(0.1..16.0).contains(&rate) {
            notes.push(format!("WRONG: {} had {rate:.2} instructions per ns.", program.name));
        }
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const CONSOLE: &str = "[    0.5] Run /init as init process\r\n\
        ring3-bench: init\r\n\
        bench fib 20 40000000 62a1be70fdb9e0a8\r\n\
        bench of something else\r\n\
        bench sieve x 1 2\r\n\
        bench sieve 160 30000000 77a855cebcd759ba\r\n";

    fn program(name: &str, nanoseconds: u64) -> Program {
        Program { name: name.into(), result: (1, "ab".into()), nanoseconds }
    }

    #[test]
    fn lines_of_programs_are_told_from_others() {
        let programs = parse(CONSOLE);
        let expected = Program {
            name: "fib".into(),
            result: (20, "62a1be70fdb9e0a8".into()),
            nanoseconds: 40_000_000,
        };
        assert_eq!(programs.len(), 2);
        assert_eq!(programs[0], expected);
        assert_eq!((&*programs[1].name, programs[1].nanoseconds), ("sieve", 30_000_000));
    }

    #[test]
    fn wrong_results_are_refused() {
        let native = parse(CONSOLE);
        assert_eq!(compare(&native, CONSOLE).unwrap(), native);
        for (damaged, message) in [
            (CONSOLE.replace("62a1", "62a2"), "fib gave (20, \"62a2be70fdb9e0a8\") instead of"),
            (CONSOLE.replace("bench fib", "bend fib"), "no line of fib in"),
            (CONSOLE.repeat(2), "a program too many in"),
        ] {
            let error = compare(&native, &damaged).unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
        }
    }

    fn places() -> [Place; 3] {
        let place = |emulator, times: [[u64; 2]; 3]| Place {
            emulator,
            rounds: times.map(|[a, b]| vec![program("a", a), program("b", b)]).to_vec(),
        };
        [
            place(
                None,
                [[40_000_000, 10_000_000], [50_000_000, 10_000_000], [40_000_000, 10_000_000]],
            ),
            place(
                Some(Emulator::ring3(Path::new("ring3"), "interp")),
                [
                    [400_000_000, 400_000_000],
                    [500_000_000, 400_000_000],
                    [800_000_000, 400_000_000],
                ],
            ),
            place(
                Some(Emulator::qemu("max")),
                [[200_000_000, 50_000_000], [250_000_000, 50_000_000], [200_000_000, 50_000_000]],
            ),
        ]
    }

    #[test]
    fn a_table_of_programs() {
        let counted = [program("a", 160_000_000), program("b", 40_000_000)];
        let report = report("t".into(), &places(), &counted, 300_000_000);
        assert_eq!(report.header[3..], ["interp ×", "max ×", "interp MIPS", "interp/max"]);
        assert_eq!(
            report.rows,
            [
                ["a", "160", "40.0", "10.00", "5.00", "320", "2.00"],
                ["b", "40", "10.0", "40.00", "5.00", "100", "8.00"],
                ["geometric mean", "", "", "20.00", "5.00", "179", "4.00"],
            ]
        );
        assert_eq!(
            report.notes[1..],
            ["×: time over the native one. ring3 engines: interp. QEMU TCG models: max."]
        );
    }

    #[test]
    fn counts_that_cannot_be_true_are_noted() {
        let counted = [program("a", 160_000_000), program("b", 900_000)];
        let notes = implausible(&places()[0], &counted, 160_000_000);
        assert_eq!(
            notes,
            [
                "WRONG: the programs had 160900000 instructions, all together 160000000.",
                "WRONG: b had 0.09 instructions per ns.",
            ]
        );
    }

    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    #[test]
    fn the_mix_builds_and_repeats_its_results() {
        let binary = build().unwrap();
        let (first, second) = (run_natively(&binary).unwrap(), run_natively(&binary).unwrap());
        let results = |mix: Vec<Program>| -> Vec<_> {
            mix.into_iter().map(|program| (program.name, program.result)).collect()
        };
        assert!(!first.is_empty());
        assert_eq!(results(first), results(second));
    }
}
