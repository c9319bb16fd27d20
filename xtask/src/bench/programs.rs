//! Groups of programs, the crate `bench-guest` and its folder `c`, on this host and in guests.
//!
//! The programs time themselves, so booting is not measured: each tells the time of its fastest
//! unit of work, and how many units it did is its own affair. Every checksum is compared with the
//! host's.
//!
//! How many instructions a unit of an integer program has is taken from one run with
//! `--clock icount`, where a nanosecond is an instruction; the guest's timer interrupts, well below
//! 1 %, are counted with it. Over its time by the host's clock, that is ring3's speed in MIPS.

use super::emulator::{Emulator, Guest, Limits};
use super::guest::guest;
use super::table::{Report, Sample, geomean};
use super::{cargo_build, root, target};
use anyhow::{Context, ensure};
use ring3::debian::{self, Part};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

/// The group whose instructions are counted.
const COUNTED: &str = "integer";

/// One program's line of output.
#[derive(Clone, Debug, PartialEq)]
struct Program {
    group: String,
    name: String,
    units: u64,
    /// Of the fastest unit; nothing when the CPU lacks what the program needs.
    nanoseconds: Option<u64>,
    /// What came out: the same everywhere.
    checksum: String,
}

/// The lines `bench GROUP NAME UNITS NANOSECONDS CHECKSUM` of a console.
fn parse(console: &str) -> Vec<Program> {
    let line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let &["bench", group, name, units, nanoseconds, checksum] = words.as_slice() else {
            return None;
        };
        let units = units.parse().ok()?;
        let nanoseconds = nanoseconds.parse().ok()?;
        Some(Program {
            group: group.to_owned(),
            name: name.to_owned(),
            units,
            nanoseconds: (units > 0 && nanoseconds > 0).then_some(nanoseconds),
            checksum: checksum.to_owned(),
        })
    };
    console.lines().filter_map(line).collect()
}

/// The programs of a guest in the order of the host's, whose checksums they must have.
fn compare(native: &[Program], console: &str) -> anyhow::Result<Vec<Program>> {
    let mut programs = parse(console);
    ensure!(programs.len() <= native.len(), "a program too many in\n{console}");
    let find = |native: &Program| {
        let (group, name) = (&native.group, &native.name);
        let at = programs.iter().position(|it| (&it.group, &it.name) == (group, name));
        let found =
            programs.swap_remove(at.with_context(|| format!("no line of {name} in\n{console}"))?);
        let (seen, expected) = (&found.checksum, &native.checksum);
        ensure!(
            found.units == 0 || seen == expected,
            "{name} gave {seen:?} instead of {expected:?}"
        );
        Ok(found)
    };
    native.iter().map(find).collect()
}

const fn part(
    package: &'static [&'static str],
    paths: &'static [&'static str],
    file: &'static str,
) -> Part {
    Part { architecture: "amd64", packages: package, paths, file }
}

/// Debian's programs, their loader and its libraries, by the names that `compression.c` and the
/// loader use.
#[rustfmt::skip]
const DEBIAN: &[(&str, Part)] = &[
    ("busybox", part(&["busybox-static"], &["bin/busybox", "usr/bin/busybox"], "busybox-static")),
    ("gzip", part(&["gzip"], &["bin/gzip", "usr/bin/gzip"], "gzip")),
    ("xz", part(&["xz-utils"], &["usr/bin/xz"], "xz-utils")),
    ("liblzma.so.5", part(&["liblzma5"], &["lib/x86_64-linux-gnu/liblzma.so.5", "usr/lib/x86_64-linux-gnu/liblzma.so.5"], "liblzma5")),
    ("libc.so.6", part(&["libc6"], &["lib/x86_64-linux-gnu/libc.so.6", "usr/lib/x86_64-linux-gnu/libc.so.6"], "libc6")),
    ("ld.so", part(&["libc6"], &["lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"], "libc6-loader")),
];

/// The integer programs, in Rust.
fn build_rust() -> anyhow::Result<PathBuf> {
    const TRIPLE: &str = "x86_64-unknown-linux-gnu";
    let target = target()?.join("bench-guest");
    cargo_build("bench-guest", &target, &["--target", TRIPLE])?;
    Ok(target.join(TRIPLE).join("release/bench-guest"))
}

/// The other programs, in C.
fn build_c() -> anyhow::Result<PathBuf> {
    let folder = root().join("bench-guest/c");
    let program = target()?.join("bench-guest/programs");
    std::fs::create_dir_all(target()?.join("bench-guest"))?;
    let mut sources = Vec::new();
    for entry in std::fs::read_dir(&folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "c") {
            sources.push(path);
        }
    }
    sources.sort();
    let mut cc = Command::new("cc");
    cc.args(["-O2", "-std=gnu11", "-static", "-o"]).arg(&program).args(sources).arg("-lm");
    ensure!(cc.status().context("cannot start cc")?.success(), "{cc:?} failed");
    Ok(program)
}

/// A folder of the host with all that programs need; guests have the same.
struct Files {
    folder: PathBuf,
    files: Vec<(&'static str, Vec<u8>)>,
}

impl Files {
    /// The files for `groups`.
    fn new(groups: &[String]) -> anyhow::Result<Self> {
        let has = |group: &str| groups.iter().any(|it| it == group);
        let mut files = Vec::new();
        if has("integer") {
            files.push(("integer", std::fs::read(build_rust()?)?));
        }
        if groups.iter().any(|group| group != "integer") {
            files.push(("programs", std::fs::read(build_c()?)?));
        }
        if has("compression") {
            for (name, part) in DEBIAN {
                files.push((name, debian::part(part)?));
            }
        }
        let folder = target()?.join("bench/files");
        std::fs::create_dir_all(&folder)?;
        for (name, bytes) in &files {
            let path = folder.join(name);
            // One that runs cannot be written, but replaced.
            let _ = std::fs::remove_file(&path);
            std::fs::write(&path, bytes).with_context(|| path.display().to_string())?;
            std::fs::set_permissions(&path, Permissions::from_mode(0o755))?;
        }
        Ok(Self { folder, files })
    }

    /// Runs `groups` on the host.
    fn run(&self, groups: &[String]) -> anyhow::Result<Vec<Program>> {
        let mut shell = Command::new("sh");
        shell.args(["-ec", &script(groups)]).current_dir(&self.folder);
        let output = shell.output().context("cannot start a shell")?;
        ensure!(
            output.status.success(),
            "on the host: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(parse(str::from_utf8(&output.stdout)?))
    }
}

/// The commands for `groups`: a process each, so that none has the memory of the one before.
fn script(groups: &[String]) -> String {
    let command = |group: &String| match &**group {
        "integer" => "./integer".to_owned(),
        group => format!("./programs {group}"),
    };
    groups.iter().map(command).collect::<Vec<_>>().join("\n")
}

/// Where programs ran: on the host, or in an emulator's guest.
struct Place {
    emulator: Option<Emulator>,
    /// All programs, once per round.
    rounds: Vec<Vec<Program>>,
}

impl Place {
    /// The nanoseconds of the `n`th program in each round, if it could run.
    fn nanoseconds(&self, n: usize) -> Option<Sample> {
        let figure = |round: &Vec<Program>| round[n].nanoseconds.map(|it| it as f64);
        self.rounds.iter().map(figure).collect::<Option<Vec<f64>>>().map(Sample::new)
    }

    /// The `n`th program's time over that at another place.
    fn over(&self, other: &Self, n: usize) -> Option<f64> {
        Some(self.nanoseconds(n)?.over(&other.nanoseconds(n)?).median())
    }

    fn name(&self) -> &str {
        self.emulator.as_ref().map_or("native", |it| &it.short)
    }

    fn is_ring3(&self) -> bool {
        self.emulator.as_ref().is_some_and(|it| it.is_ring3)
    }
}

/// Runs groups on the host and under every emulator, in turns, and the integer programs once with
/// counted instructions. Gives a table per group, and one of their means if there are several.
pub fn bench(
    emulators: &[Emulator],
    limits: Limits,
    groups: &[String],
) -> anyhow::Result<Vec<Report>> {
    let files = Files::new(groups)?;
    let whole = guest("programs", &files.files, &script(groups), None)?;
    let native = files.run(groups)?;
    let run = |emulator: &Emulator, guest: &Guest, native: &[Program]| {
        let run = emulator.run(guest, limits.timeout)?;
        let programs = compare(native, &run.console).with_context(|| emulator.name.clone())?;
        anyhow::Ok((programs, run))
    };

    let hosted = emulators.iter().cloned().map(Some);
    let mut places: Vec<Place> = std::iter::once(None)
        .chain(hosted)
        .map(|emulator| Place { emulator, rounds: Vec::new() })
        .collect();
    for _ in 0..limits.rounds {
        for place in &mut places {
            place.rounds.push(match &place.emulator {
                None => files.run(groups)?,
                Some(emulator) => run(emulator, &whole, &native)?.0,
            });
        }
    }

    let engine = emulators.iter().find(|emulator| emulator.is_ring3);
    let counted = match engine.filter(|_| groups.iter().any(|group| group == COUNTED)) {
        Some(engine) => {
            let native: Vec<Program> =
                native.iter().filter(|program| program.group == COUNTED).cloned().collect();
            let guest = guest("counted", &files.files, &script(&[COUNTED.to_owned()]), None)?;
            let (programs, seen) = run(&engine.icount(), &guest, &native)?;
            Counted { programs, total: seen.counter("instructions")? }
        }
        None => Counted::default(),
    };
    let title = |group: &str| {
        format!(
            "{group}: native and on Linux {} in a guest; medians of {} rounds",
            whole.version, limits.rounds
        )
    };
    let tables: Vec<Table> =
        groups.iter().map(|group| Table::new(title(group), group, &places, &counted)).collect();
    let mut reports: Vec<Report> = tables.iter().map(Table::report).collect();
    if groups.len() > 1 {
        reports.push(summary(title("geometric means"), groups, &tables));
    }
    Ok(reports)
}

/// A run with counted instructions; of no programs if there was none.
#[derive(Default)]
struct Counted {
    programs: Vec<Program>,
    /// All instructions of the run.
    total: u64,
}

/// What a column shows.
struct Column {
    name: String,
    digits: usize,
    /// Whether a mean of it says something.
    mean: bool,
    /// A figure per program.
    figures: Vec<Option<f64>>,
}

impl Column {
    fn show(&self, figure: Option<f64>) -> String {
        figure.map_or("–".to_owned(), |figure| format!("{figure:.*}", self.digits))
    }

    /// Over the programs that have a figure.
    fn geomean(&self) -> Option<f64> {
        Some(geomean(self.figures.iter().copied().flatten())).filter(|mean| mean.is_finite())
    }
}

/// The figures of a group.
struct Table {
    title: String,
    programs: Vec<String>,
    columns: Vec<Column>,
    notes: Vec<String>,
}

impl Table {
    fn new(title: String, group: &str, places: &[Place], counted: &Counted) -> Self {
        let (native, guests) = (&places[0], &places[1..]);
        let engines = || guests.iter().filter(|place| place.is_ring3());
        let others = || guests.iter().filter(|place| !place.is_ring3());
        let all = &native.rounds[0];
        let of_group: Vec<usize> = (0..all.len()).filter(|&n| all[n].group == group).collect();
        let column = |name: String, digits, mean, figure: &dyn Fn(usize) -> Option<f64>| Column {
            name,
            digits,
            mean,
            figures: of_group.iter().map(|&n| figure(n)).collect(),
        };
        let median = |place: &Place, n| Some(place.nanoseconds(n)?.median());

        let mut columns =
            vec![column("native, µs".into(), 0, false, &|n| Some(median(native, n)? / 1e3))];
        for place in guests {
            let name = format!("{} ×", place.name());
            columns.push(column(name, 2, true, &|n| place.over(native, n)));
        }
        for engine in engines() {
            for other in others() {
                let name = format!("{}/{}", engine.name(), other.name());
                columns.push(column(name, 2, true, &|n| engine.over(other, n)));
            }
        }
        let count = |n: usize| -> Option<f64> {
            let same = |it: &&Program| (&it.group, &it.name) == (&all[n].group, &all[n].name);
            Some(counted.programs.iter().find(same)?.nanoseconds? as f64)
        };
        let is_counted = of_group.iter().any(|&n| count(n).is_some());
        if is_counted {
            columns.push(column("Minsn".into(), 1, false, &|n| Some(count(n)? / 1e6)));
            for engine in engines() {
                let name = format!("{} MIPS", engine.name());
                columns
                    .push(column(name, 0, true, &|n| Some(count(n)? * 1e3 / median(engine, n)?)));
            }
        }

        let short =
            |it: Vec<&Place>| it.into_iter().map(Place::name).collect::<Vec<_>>().join(", ");
        let mut notes = vec![format!(
            "native: the fastest unit of work. ×: time over the native one. ring3 engines: {}. \
             QEMU TCG models: {}. –: the CPU model lacks what the program needs.",
            short(engines().collect()),
            short(others().collect())
        )];
        if is_counted {
            notes.push(
                "Minsn: instructions of a unit by a run with --clock icount, in millions.".into(),
            );
            notes.extend(implausible(native, counted));
        }
        let programs = of_group.iter().map(|&n| all[n].name.clone()).collect();
        Self { title, programs, columns, notes }
    }

    /// A row per program, and their geometric means.
    fn report(&self) -> Report {
        let mut header = vec!["program".to_owned()];
        header.extend(self.columns.iter().map(|column| column.name.clone()));
        let row = |(n, name): (usize, &String)| {
            let cells = self.columns.iter().map(|column| column.show(column.figures[n]));
            std::iter::once(name.clone()).chain(cells).collect()
        };
        let mut rows: Vec<Vec<String>> = self.programs.iter().enumerate().map(row).collect();
        let mean = |column: &Column| match column.mean {
            true => column.show(column.geomean()),
            false => String::new(),
        };
        let means = self.columns.iter().map(mean);
        rows.push(std::iter::once("geometric mean".to_owned()).chain(means).collect());
        Report { title: self.title.clone(), header, rows, notes: self.notes.clone() }
    }
}

/// The geometric means of several groups.
fn summary(title: String, groups: &[String], tables: &[Table]) -> Report {
    let shown = |column: &&Column| column.mean && !column.name.ends_with("MIPS");
    let mut header = vec!["group".to_owned()];
    header.extend(tables[0].columns.iter().filter(shown).map(|column| column.name.clone()));
    let row = |(group, table): (&String, &Table)| {
        let means = table.columns.iter().filter(shown).map(|column| column.show(column.geomean()));
        std::iter::once(group.clone()).chain(means).collect()
    };
    Report { title, header, rows: groups.iter().zip(tables).map(row).collect(), notes: Vec::new() }
}

/// What cannot be true of counts: more than the whole run had, or fewer than one instruction in ten
/// nanoseconds on the host or more than forty in one.
fn implausible(native: &Place, counted: &Counted) -> Vec<String> {
    let total = counted.total;
    let least = |it: &Program| it.units * it.nanoseconds.unwrap_or(0);
    let sum: u64 = counted.programs.iter().map(least).sum();
    let mut notes = Vec::new();
    if sum > total {
        notes.push(format!("WRONG: the programs had {sum} instructions, all together {total}."));
    }
    for (n, program) in native.rounds[0].iter().enumerate() {
        let same = |it: &&Program| (&it.group, &it.name) == (&program.group, &program.name);
        let count = counted.programs.iter().find(same).and_then(|it| it.nanoseconds);
        let rate = |count| Some(count as f64 / native.nanoseconds(n)?.median());
        if let Some(rate) = count.and_then(rate).filter(|rate| !(0.1..40.0).contains(rate)) {
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
        bench integer fib 20 40000000 62a1be70fdb9e0a8\r\n\
        bench of something else entirely\r\n\
        bench integer sieve x 1 2\r\n\
        bench vector dot-avx2 160 30000000 77a855cebcd759ba\r\n";

    fn program(name: &str, nanoseconds: u64) -> Program {
        Program {
            group: "integer".into(),
            name: name.into(),
            units: 1,
            nanoseconds: (nanoseconds > 0).then_some(nanoseconds),
            checksum: "ab".into(),
        }
    }

    #[test]
    fn lines_of_programs_are_told_from_others() {
        let programs = parse(CONSOLE);
        let expected = Program {
            units: 20,
            nanoseconds: Some(40_000_000),
            checksum: "62a1be70fdb9e0a8".into(),
            ..program("fib", 0)
        };
        assert_eq!(programs.len(), 2);
        assert_eq!(programs[0], expected);
        assert_eq!(
            (&*programs[1].group, &*programs[1].name, programs[1].nanoseconds),
            ("vector", "dot-avx2", Some(30_000_000))
        );
    }

    #[test]
    fn wrong_results_are_refused() {
        let native = parse(CONSOLE);
        assert_eq!(compare(&native, CONSOLE).unwrap(), native);
        let fewer = CONSOLE.replace("fib 20", "fib 3");
        assert_eq!(compare(&native, &fewer).unwrap()[0].units, 3);
        for (damaged, message) in [
            (CONSOLE.replace("62a1", "62a2"), "fib gave \"62a2be70fdb9e0a8\" instead of"),
            (CONSOLE.replace("bench integer fib", "bend"), "no line of fib in"),
            (CONSOLE.repeat(2), "a program too many in"),
        ] {
            let error = compare(&native, &damaged).unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
        }
    }

    #[test]
    fn a_cpu_may_lack_what_a_program_needs() {
        let native = parse(CONSOLE);
        let without = CONSOLE.replace("160 30000000 77a855cebcd759ba", "0 0 -");
        assert_eq!(compare(&native, &without).unwrap()[1].nanoseconds, None);
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
                [[200_000_000, 0], [250_000_000, 0], [200_000_000, 0]],
            ),
        ]
    }

    fn counted() -> Counted {
        let programs = vec![program("a", 160_000_000), program("b", 40_000_000)];
        Counted { programs, total: 300_000_000 }
    }

    #[test]
    fn a_table_of_programs() {
        let report = Table::new("t".into(), "integer", &places(), &counted()).report();
        assert_eq!(
            report.header[1..],
            ["native, µs", "interp ×", "max ×", "interp/max", "Minsn", "interp MIPS"]
        );
        assert_eq!(
            report.rows,
            [
                ["a", "40000", "10.00", "5.00", "2.00", "160.0", "320"],
                ["b", "10000", "40.00", "–", "–", "40.0", "100"],
                ["geometric mean", "", "20.00", "5.00", "2.00", "", "179"],
            ]
        );
        assert_eq!(report.notes.len(), 2);
    }

    #[test]
    fn a_table_without_counts_and_a_summary() {
        let groups = ["integer".to_owned(), "x87".to_owned()];
        let table = |group: &String| Table::new("t".into(), group, &places(), &Counted::default());
        let tables: Vec<Table> = groups.iter().map(table).collect();
        assert_eq!(tables[0].report().header.len(), 5);
        let report = summary("s".into(), &groups, &tables);
        assert_eq!(report.header, ["group", "interp ×", "max ×", "interp/max"]);
        assert_eq!(report.rows, [["integer", "20.00", "5.00", "2.00"], ["x87", "–", "–", "–"]]);
    }

    #[test]
    fn counts_that_cannot_be_true_are_noted() {
        let programs = vec![program("a", 160_000_000), program("b", 900_000)];
        let notes = implausible(&places()[0], &Counted { programs, total: 160_000_000 });
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
    fn the_programs_build_and_repeat_their_checksums() {
        let groups = ["integer", "string", "double", "vector", "x87", "memory", "os"];
        let groups = groups.map(str::to_owned);
        let files = Files::new(&groups).unwrap();
        let (first, second) = (files.run(&groups).unwrap(), files.run(&groups).unwrap());
        for group in &groups {
            assert!(first.iter().any(|it| it.group == *group && it.nanoseconds.is_some()));
        }
        let checksums = |programs: &[Program]| -> Vec<_> {
            programs.iter().map(|it| (it.name.clone(), it.checksum.clone())).collect()
        };
        assert_eq!(checksums(&first), checksums(&second));
    }
}
