//! Rules about the sources that no lint checks: where unsafe code may be, how files open, what may
//! not be left in them, and which of our crates may know which.
//!
//! Each rule takes the text and gives what breaks it, so that it can be tested on bad text too.

use std::fs;
use std::path::{Path, PathBuf};

/// Where unsafe code may be allowed. The last ones are tests against the real CPU.
const UNSAFE: &[&str] = &[
    "emu-core/src/mem/ram.rs",
    "oracle/src/enter.rs",
    "oracle/src/worker.rs",
    "backend-jit/src/code_buffer.rs",
    "backend-jit/src/enter.rs",
    "emu-core/src/fp/host_sse.rs",
    "emu-core/src/fp/host_x87.rs",
    "frontend-x86/tests/host.rs",
];

/// Which of our crates a crate may import (docs: the way through the house). Crates that are not
/// here, the fuzz targets and chores, may import any.
const ARROWS: &[(&str, &[&str])] = &[
    ("emu-core", &[]),
    ("devices", &["emu-core"]),
    ("block", &["devices"]),
    ("display", &[]),
    ("roms", &[]),
    ("oracle", &[]),
    ("frontend-x86", &["emu-core"]),
    ("backend-jit", &["emu-core"]),
    ("machine", &["emu-core", "frontend-x86", "backend-jit", "devices", "block", "roms"]),
    ("cli", &["emu-core", "frontend-x86", "machine", "block", "display", "oracle", "roms"]),
];

/// Our crates, as they are called in manifests.
const OURS: &[&str] = &[
    "emu-core",
    "frontend-x86",
    "backend-jit",
    "devices",
    "block",
    "display",
    "roms",
    "machine",
    "oracle",
    "ring3",
];

/// Columns a line may have, unless it is a row of a table.
const COLUMNS: usize = 100;

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in a folder").into()
}

/// The repository's `.rs` files: path from the root, and text.
pub fn sources() -> Vec<(String, String)> {
    let root = root();
    let mut files = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the repository") {
            let path = entry.expect("an entry of it").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                if name != "target" && !name.starts_with('.') {
                    folders.push(path);
                }
            } else if name.ends_with(".rs") {
                let text = fs::read_to_string(&path).expect("a source file");
                let path = path.strip_prefix(&root).expect("it is below the root");
                files.push((path.to_string_lossy().into_owned(), text));
            }
        }
    }
    files.sort();
    files
}

/// What breaks the rules for the file at `path`: line, from 1, and rule.
pub fn check_source(path: &str, text: &str) -> Vec<(usize, &'static str)> {
    let host_test = path.starts_with("emu-core/src/vec/") && path.contains("host");
    let may_be_unsafe = host_test || UNSAFE.contains(&path);
    let mut bad = Vec::new();
    if !text.starts_with("//!") {
        bad.push((1, "the file does not open with `//!`"));
    }
    // The patterns are in pieces: this file keeps its own rules.
    let left_over = [
        concat!("#[ig", "nore"),
        concat!("to", "do!("),
        concat!("unimple", "mented!("),
        concat!("db", "g!("),
    ];
    let permit = concat!("unsafe", "_code");
    for (n, line) in text.lines().enumerate() {
        let mut rule = |broken: bool, what| {
            if broken {
                bad.push((n + 1, what));
            }
        };
        let code = line.split("//").next().unwrap_or("");
        let allows = code.contains("allow(") && code.contains(permit);
        rule(allows && !may_be_unsafe, "unsafe code is not allowed here");
        rule(left_over.iter().any(|p| code.contains(p)), "something is left over or left out");
        rule(line.chars().count() > COLUMNS && !is_row(line), "the line is too long");
        rule(line.trim_end() != line, "the line ends in blanks");
    }
    bad
}

/// Whether a line need not be broken: a row of a table or of a macro's pattern, a ruler between
/// sections, or a text that is too long by itself.
fn is_row(line: &str) -> bool {
    let t = line.trim();
    let ends = [";", ",", "|", "{", "}"].iter().any(|e| t.ends_with(e));
    let starts = t.starts_with(|c: char| c.is_ascii_uppercase() || "(|&".contains(c));
    let table = ["//! |", "/// |", "// ----", "| ", "#["].iter().any(|p| t.starts_with(p));
    let outside_quotes: usize = line.split('"').step_by(2).map(|s| s.chars().count()).sum();
    starts && ends || table || t.contains("$(") || outside_quotes <= COLUMNS / 2
}

/// What in the manifest of the crate in `folder` breaks the direction of imports.
pub fn check_manifest(folder: &str, manifest: &str) -> Vec<String> {
    let Some((_, may)) = ARROWS.iter().find(|(name, _)| *name == folder) else {
        return Vec::new();
    };
    let mut bad = Vec::new();
    let mut section = "";
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line;
        }
        // Tests may import what they need; `[dependencies.x]` names its crate in the header.
        let dependencies = section.contains("dependencies") && !section.contains("dev-");
        let name = match section.strip_prefix("[dependencies.") {
            Some(name) if line == section => name.trim_end_matches(']'),
            _ => line.split(['.', '=', ' ']).next().unwrap_or(""),
        };
        if dependencies && OURS.contains(&name) && !may.contains(&name) {
            bad.push(format!("{folder} imports {name}"));
        }
    }
    bad
}

/// Folder and manifest of each crate of the workspace.
pub fn manifests() -> Vec<(String, String)> {
    let root = root();
    let workspace = fs::read_to_string(root.join("Cargo.toml")).expect("the workspace's manifest");
    let members = workspace.lines().find_map(|l| l.strip_prefix("members = ["));
    let members = members.expect("the members are in one line").trim_end_matches(']');
    let names = members.split(',').map(|m| m.trim().trim_matches('"').to_string());
    names
        .map(|name| {
            let manifest = root.join(&name).join("Cargo.toml");
            (name, fs::read_to_string(manifest).expect("a member's manifest"))
        })
        .collect()
}
