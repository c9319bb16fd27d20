//! The cases beside the instruction families, on the model and on the CPU beneath it.

#[path = "../src/tidy.rs"]
#[allow(dead_code)] // the rules are tested elsewhere
mod tidy;

use frontend_x86::insn::NAMES;
use oracle::{Judged, Sample};
use ring3::diff::cases::parse;
use ring3::diff::compare::compare;
use ring3::diff::model::Model;
use std::path::PathBuf;

fn folder() -> PathBuf {
    tidy::root().join("frontend-x86/src/insn")
}

/// All cases, with the place they are at.
fn cases() -> Vec<(String, Sample, Judged)> {
    let mut all = Vec::new();
    for family in NAMES {
        let path = folder().join(family).with_extension("cases");
        let text = std::fs::read_to_string(&path);
        let text = text.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        for (n, line) in text.lines().enumerate() {
            let at = format!("{family}.cases:{}", n + 1);
            match parse(line) {
                Ok(Some((sample, judged))) => all.push((format!("{at}: {line}"), sample, judged)),
                Ok(None) => {}
                Err(why) => panic!("{at}: {why}"),
            }
        }
    }
    assert!(all.len() > 100, "only {} cases", all.len());
    all
}

fn run(mut judge: impl FnMut(&Sample) -> Judged) {
    let mut wrong = String::new();
    for (line, sample, expected) in cases() {
        for d in compare(&sample, &expected, &judge(&sample)) {
            wrong += &format!("{line}\n    {}: {} instead of {}\n", d.what, d.model, d.cpu);
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn on_the_model() {
    let mut model = Model::default();
    run(|s| model.run(s));
}

#[test]
fn on_the_cpu() {
    if let Some(mut oracle) = ring3_tests::oracle() {
        run(|s| oracle.run(s));
    }
}

/// Every file of cases belongs to a family.
#[test]
fn files_have_families() {
    for entry in std::fs::read_dir(folder()).expect("the families' folder") {
        let path = entry.expect("an entry of it").path();
        if path.extension().is_some_and(|e| e == "cases") {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            assert!(NAMES.contains(&stem.as_str()), "{stem}.cases belongs to no family");
        }
    }
}
