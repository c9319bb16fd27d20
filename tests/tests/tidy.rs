//! The rules of `src/tidy.rs`, on the whole repository and on texts that break them.

#[path = "../src/tidy.rs"]
mod tidy;

use tidy::{check_manifest, check_source, manifests, sources};

#[test]
fn the_sources_keep_the_rules() {
    let files = sources();
    assert!(files.len() > 50, "only {} files", files.len());
    let mut bad = String::new();
    for (path, text) in &files {
        for (line, rule) in check_source(path, text) {
            bad += &format!("{path}:{line}: {rule}\n");
        }
    }
    assert!(bad.is_empty(), "\n{bad}");
}

#[test]
fn imports_go_one_way() {
    let crates = manifests();
    assert!(crates.len() >= 8, "only {} crates", crates.len());
    let bad: Vec<String> = crates.iter().flat_map(|(n, text)| check_manifest(n, text)).collect();
    assert!(bad.is_empty(), "{bad:?}");
}

#[test]
fn bad_sources_are_found() {
    let lines = |text: &str| -> Vec<usize> {
        check_source("cli/src/x.rs", text).into_iter().map(|(line, _)| line).collect()
    };
    assert_eq!(lines("//! Good.\nfn f() {}\n"), []);
    assert_eq!(lines("fn f() {}\n"), [1]);
    let allow = concat!("//! Bad.\n#[allow(unsafe", "_code)]\n");
    assert_eq!(lines(allow), [2]);
    assert_eq!(check_source("emu-core/src/mem/ram.rs", allow), []);
    assert_eq!(check_source("emu-core/src/vec/host.rs", allow), []);
    for left in [concat!("#[ig", "nore]"), concat!("to", "do!()"), concat!("db", "g!(x)")] {
        assert_eq!(lines(&format!("//! Bad.\n{left}\n")), [2], "{left}");
        assert_eq!(lines(&format!("//! Good.\n// {left}\n")), []);
    }
    let long = "x".repeat(101);
    assert_eq!(lines(&format!("//! Bad.\nlet x = {long};\n")), [2]);
    assert_eq!(lines(&format!("//! A table.\n    Row \"{long}\" x;\n")), []);
    assert_eq!(lines("//! Bad. \n"), [1]);
}

#[test]
fn bad_manifests_are_found() {
    let check = |text: &str| check_manifest("devices", text).len();
    assert_eq!(check("[dependencies]\nbitflags = \"2\"\n"), 0);
    assert_eq!(check("[dependencies]\nmachine.workspace = true\n"), 1);
    assert_eq!(check("[dependencies]\nmachine = { path = \"../machine\" }\n"), 1);
    assert_eq!(check("[dependencies.machine]\npath = \"../machine\"\n"), 1);
    assert_eq!(check("[dev-dependencies]\nmachine.workspace = true\n"), 0);
    let core = "[dependencies]\nemu-core.workspace = true";
    assert!(check_manifest("frontend-x86", core).is_empty());
    assert!(check_manifest("xtask", core).is_empty());
}
