//! What the program tells of the host code that it makes: names for `perf`, and counters.

mod program;

use program::{command, finish};
use std::fs;

#[test]
fn translated_code_has_names_and_counters() {
    if machine::host_translator().is_none() {
        return;
    }
    let run = |arguments: &[&str], map: &str| {
        let arguments = [&["demo", "--engine", "jit", "--stats"], arguments].concat();
        let child = command(&arguments).env("RING3_PERF_MAP", map).spawn().unwrap();
        let path = format!("/tmp/perf-{}.map", child.id());
        let out = finish(child);
        assert_eq!(out.status, Some(0), "{}", out.stderr);
        let map = fs::read_to_string(&path).ok();
        let _ = fs::remove_file(&path);
        (map, out.stderr)
    };
    assert_eq!(run(&[], "").0, None);
    for (arguments, map) in [(&["--perf-map"][..], ""), (&[], "1")] {
        let (map, stats) = run(arguments, map);
        let map = map.unwrap();
        let lines: Vec<Vec<&str>> = map.lines().map(|l| l.split(' ').collect()).collect();
        for line in &lines {
            let numbers = line[..2].iter().all(|n| u64::from_str_radix(n, 16).unwrap() > 0);
            assert!(numbers && line.len() == 3, "{line:?}");
        }
        for name in ["ring3:", "kernel:", "user:"] {
            assert!(lines.iter().any(|l| l[2].starts_with(name)), "{name} in {map}");
        }
        let count = |name: &str| -> usize {
            let line = stats.lines().find(|l| l.starts_with(name)).unwrap();
            line.split_whitespace().last().unwrap().parse().unwrap()
        };
        let blocks = lines.iter().filter(|l| !l[2].starts_with("ring3:")).count();
        assert_eq!(blocks, count("native blocks"));
        let exits: usize = ["interpreter", "lookup", "unlinked", "budget", "helper", "fault"]
            .iter()
            .map(|why| count(&format!("native exits {why}")))
            .sum();
        assert_eq!(exits + count("native exits code write"), count("native entries"));
    }
}
