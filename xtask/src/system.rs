//! `cargo xtask system-diff`: the system tests under ring3 and under QEMU.
//!
//! The same ROMs run on both. Printed is every row on which one of them does not do what the
//! manual demands, and which of the two it supports.

use anyhow::{Context, ensure};
use ring3_tests::system::{CHAPTERS, run};

/// Run the system tests under ring3 and QEMU and print where they differ
#[derive(Debug, clap::Args)]
pub struct SystemDiff {
    /// Chapters to run: all by default
    chapters: Vec<String>,

    /// Only rows whose name contains this
    #[arg(long, default_value = "")]
    only: String,

    /// Print every row, not just those with a difference
    #[arg(long)]
    all: bool,
}

impl SystemDiff {
    /// Runs the chore.
    ///
    /// # Errors
    /// When QEMU cannot be run, or ring3 does not do what the manuals demand.
    pub fn run(self) -> anyhow::Result<()> {
        let known = |name: &String| CHAPTERS.iter().any(|c| c.name == name);
        let unknown = self.chapters.iter().find(|name| !known(name));
        ensure!(unknown.is_none(), "there is no chapter {unknown:?}");
        let rom = std::env::temp_dir().join(format!("ring3-system-{}.rom", std::process::id()));
        let (mut rows, mut ours, mut theirs) = (0, 0, 0);
        let wanted =
            |name: &str| self.chapters.is_empty() || self.chapters.iter().any(|c| c == name);
        for chapter in CHAPTERS.iter().filter(|c| wanted(c.name)) {
            let selected = run::select(chapter, &self.only);
            let qemu = run::qemu(&selected, &rom).context("cannot run qemu-system-x86_64")?;
            for ((row, ring3), qemu) in selected.iter().zip(run::ring3(&selected)).zip(qemu) {
                let right = [&ring3, &qemu].map(|seen| seen == row.expected);
                rows += 1;
                ours += usize::from(!right[0]);
                theirs += usize::from(!right[1]);
                if right == [true, true] && !self.all {
                    continue;
                }
                let verdict = match right {
                    [true, true] => "both",
                    [true, false] => "ring3",
                    [false, true] => "QEMU",
                    [false, false] => "neither",
                };
                println!("{}: {} [{:?}]", chapter.name, row.name, row.mode);
                println!("    manual  {}  ({})", row.expected, row.source);
                println!("    ring3   {ring3}\n    QEMU    {qemu}\n    right   {verdict}");
            }
        }
        for file in [&rom, &rom.with_extension("out")] {
            // Nothing was written if no row was selected.
            std::fs::remove_file(file).ok();
        }
        println!("{rows} rows; not as the manual says: {ours} of ring3, {theirs} of QEMU");
        ensure!(ours == 0, "ring3 differs from the manual");
        Ok(())
    }
}
