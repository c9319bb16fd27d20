//! `cargo xtask coverage`: the page that says of every encoding of the CPU model what judges it.
//!
//! Two campaigns of random samples with fixed seeds, in 64-bit and in 32-bit code; the page is
//! written only if nothing differed.

use anyhow::{Context, bail};
use clap::Args;
use oracle::Bits;
use ring3::diff::coverage::{Evidence, cases, check, page};
use ring3::diff::{Campaign, Report};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Write docs/coverage.md: what judges each encoding of the CPU model
#[derive(Debug, Args)]
pub struct Coverage {
    /// Random samples for each code size
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    samples: u64,

    /// Where the random numbers start
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,

    /// Where the page goes
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
}

impl Coverage {
    /// Runs the chore.
    ///
    /// # Errors
    /// A line for the user; among others when the model and the CPU differ.
    pub fn run(self) -> anyhow::Result<()> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no repository")?;
        let mut judged = BTreeMap::new();
        let mut campaigns = Vec::new();
        for (bits, name) in [(Bits::B64, "64"), (Bits::B32, "32")] {
            let report = self.campaign(bits)?;
            if report.mismatches > 0 {
                bail!("{} samples of {name}-bit code differ: see ring3 diff", report.mismatches);
            }
            campaigns.push(format!("{} of {name}-bit code", report.samples));
            for (code, n) in report.codes {
                *judged.entry(code).or_default() += n;
            }
        }
        let campaigns =
            format!("Random samples, from seed {}: {}.", self.seed, campaigns.join(", "));
        let cases = cases(&root.join("frontend-x86/src/insn")).map_err(anyhow::Error::msg)?;
        let text = page(&Evidence { judged, cases, campaigns });
        let path = self.page.unwrap_or_else(|| root.join("docs/coverage.md"));
        std::fs::write(&path, &text).with_context(|| format!("cannot write {}", path.display()))?;
        for line in text.lines().filter(|l| l.starts_with("| ")).take(5) {
            println!("{line}");
        }
        match check(&text).as_slice() {
            [] => Ok(()),
            wrong => bail!("the page is not complete:\n{}", wrong.join("\n")),
        }
    }

    fn campaign(&self, bits: Bits) -> anyhow::Result<Report> {
        let (count, seed) = (self.samples, self.seed);
        let campaign = Campaign { show: 0, ..Campaign::new(count, seed, bits) };
        campaign.run(|_, _| {})
    }
}
