//! Debian's cloud kernel and a busybox initrd: how long to the first line of init, and to
//! power-off.

use super::emulator::{Emulator, Limits, Run};
use super::guest::guest;
use super::table::{Report, Sample};

/// Boots the guest under every emulator, in turns.
pub fn bench(emulators: &[Emulator], limits: Limits, append: &str) -> anyhow::Result<Report> {
    let guest = guest("boot", &[], "", Some(append))?;
    let mut runs: Vec<Vec<Run>> = emulators.iter().map(|_| Vec::new()).collect();
    for _ in 0..limits.rounds {
        for (emulator, runs) in emulators.iter().zip(&mut runs) {
            runs.push(emulator.run(&guest, limits.timeout)?);
        }
    }
    let title = format!(
        "Linux {} (\"{append}\") and a busybox initrd, 512 MiB; medians (range) of {} rounds",
        guest.version, limits.rounds
    );
    report(title, emulators, &runs)
}

/// A row per emulator, and a column per engine of ring3 that compares it with them.
fn report(title: String, emulators: &[Emulator], runs: &[Vec<Run>]) -> anyhow::Result<Report> {
    let init = |runs: &[Run]| Sample::new(runs.iter().map(|run| run.init));
    let power_off = |runs: &[Run]| Sample::new(runs.iter().map(|run| run.power_off));
    let engines = || emulators.iter().zip(runs).filter(|(emulator, _)| emulator.is_ring3);

    let mut header =
        ["emulator", "init, s", "power-off, s", "Minsn", "MIPS"].map(str::to_owned).to_vec();
    header.extend(engines().map(|(engine, _)| format!("{} / it", engine.short)));
    let mut rows = Vec::new();
    for (emulator, its) in emulators.iter().zip(runs) {
        let mut row = vec![emulator.name.clone(), init(its).show(2), power_off(its).show(2)];
        if emulator.is_ring3 {
            let counts: Vec<u64> =
                its.iter().map(|run| run.counter("instructions")).collect::<Result<_, _>>()?;
            let millions = Sample::new(counts.into_iter().map(|count| count as f64 / 1e6));
            row.push(format!("{:.0}", millions.median()));
            row.push(format!("{:.0}", millions.over(&power_off(its)).median()));
        } else {
            row.extend([String::new(), String::new()]);
        }
        row.extend(engines().map(|(_, engine)| init(engine).over(&init(its)).show(2)));
        rows.push(row);
    }
    let notes = vec![
        "Minsn, MIPS: guest instructions to power-off, in millions, and per second.".to_owned(),
        "… / it: ring3's time to init over the row's, round by round.".to_owned(),
    ];
    Ok(Report { title, header, rows, notes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn ring3_is_compared_round_by_round() {
        let run = |init: f64, instructions: u64| Run {
            init,
            power_off: 2.0 * init,
            console: String::new(),
            errors: format!("{{\"instructions\": {instructions}}}\n"),
        };
        let emulators = [Emulator::ring3(Path::new("ring3"), "interp"), Emulator::qemu("max")];
        let runs = [
            vec![run(6.0, 1_600_000_000), run(8.0, 1_602_000_000), run(5.0, 1_604_000_000)],
            vec![run(2.0, 0), run(4.0, 0), run(2.5, 0)],
        ];
        let report = report("t".into(), &emulators, &runs).unwrap();
        assert_eq!(
            report.rows,
            [
                [
                    "ring3 interp",
                    "6.00 (5.00–8.00)",
                    "12.00 (10.00–16.00)",
                    "1602",
                    "133",
                    "1.00 (1.00–1.00)"
                ],
                ["QEMU max", "2.50 (2.00–4.00)", "5.00 (4.00–8.00)", "", "", "2.00 (2.00–3.00)"],
            ]
        );
        assert_eq!(report.header.len(), report.rows[0].len());
    }
}
