//! The CPU model against the CPU beneath it: random samples from fixed seeds, on both engines. On a
//! host that has no oracle there is nothing to compare with; the test says so.

use machine::Engine;
use oracle::Bits;
use ring3::diff::{Campaign, Report};

/// Runs a campaign of all instructions; `None` without an oracle.
fn campaign(count: u64, seed: u64, bits: Bits, engine: Engine) -> Option<Report> {
    ring3_tests::oracle()?;
    let campaign = Campaign { engine, ..Campaign::new(count, seed, bits) };
    Some(campaign.run(|_, _| {}).expect("the campaign runs"))
}

fn agree(report: &Report, codes: usize) {
    let lines: Vec<String> = report
        .found
        .iter()
        .map(|(line, d)| {
            let d: Vec<String> = d.iter().map(ToString::to_string).collect();
            format!("{line}\n    {}", d.join("\n    "))
        })
        .collect();
    assert_eq!(report.mismatches, 0, "\n{}\n{}", lines.join("\n"), report.table());
    assert!(report.codes.len() > codes, "only {} encodings", report.codes.len());
}

#[test]
fn code_of_64_bits() {
    if let Some(report) = campaign(50_000, 64, Bits::B64, Engine::Interp) {
        agree(&report, 1900);
    }
}

#[test]
fn code_of_32_bits() {
    if let Some(report) = campaign(20_000, 32, Bits::B32, Engine::Interp) {
        agree(&report, 1700);
    }
}

#[test]
fn host_code() {
    for (count, seed, bits) in [(50_000, 65, Bits::B64), (20_000, 33, Bits::B32)] {
        let Some(report) = campaign(count, seed, bits, Engine::Jit) else { return };
        agree(&report, 1700);
        // All but what is single-stepped, or cannot be lifted at all.
        let (blocks, samples) = (report.host_blocks, report.samples);
        assert!(blocks > samples * 9 / 10, "{blocks} blocks of {samples} samples");
    }
}
