//! The page of what judges each encoding, `docs/coverage.md`, against the model.

#[path = "../src/tidy.rs"]
#[allow(dead_code)] // the rules are tested elsewhere
mod tidy;

use ring3::diff::coverage::{ELSEWHERE, PRIVILEGED, check, unnamed};

#[test]
fn the_page_is_complete() {
    let page = std::fs::read_to_string(tidy::root().join("docs/coverage.md")).expect("the page");
    let wrong = check(&page);
    assert!(wrong.is_empty(), "run cargo xtask coverage\n{}", wrong.join("\n"));
}

/// The tests that it names exist.
#[test]
fn what_it_names_exists() {
    for (all, (file, names)) in ELSEWHERE.iter().chain(PRIVILEGED) {
        let text = std::fs::read_to_string(tidy::root().join(file)).expect(file);
        for name in *names {
            let test = format!("fn {name}()");
            let at = text.find(&test).unwrap_or_else(|| panic!("{all:?}: no {name} in {file}"));
            assert!(text[..at].trim_end().ends_with("#[test]"), "{all:?}: {name} is no test");
        }
    }
}

#[test]
fn every_privileged_instruction_is_judged_in_ring_0() {
    assert_eq!(unnamed(), []);
}
