//! Every system test, on our machine: it must print what the manual demands.

use ring3_tests::system::{CHAPTERS, run};
use std::collections::BTreeSet;

#[test]
fn the_manuals_are_kept() {
    let mut bad = String::new();
    for chapter in CHAPTERS {
        let rows = run::select(chapter, "");
        for (row, seen) in rows.iter().zip(run::ring3(&rows)) {
            if seen != row.expected {
                let (name, expected, source) = (row.name, row.expected, row.source);
                bad += &format!("{}: {name}: {seen}\n    {expected} ({source})\n", chapter.name);
            }
        }
    }
    assert!(bad.is_empty(), "\n{bad}");
}

#[test]
fn names_are_unique() {
    for chapter in CHAPTERS {
        let names: BTreeSet<&str> = chapter.rows.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), chapter.rows.len(), "{}", chapter.name);
    }
}
