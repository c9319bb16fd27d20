//! `ring3 diff`: random testing of the CPU model against the CPU beneath it.
//!
//! [`generate`] makes samples, [`model`] and the oracle run them, at the same time, [`compare`]
//! tells what differs, [`rules`] what cannot be compared; [`shrink`] makes a mismatch small and
//! [`cases`] prints it as a line for a `.cases` file.

pub mod cases;
pub mod compare;
pub mod coverage;
pub mod encode;
pub mod generate;
pub mod model;
pub mod random;
pub mod rules;
pub mod shrink;

use crate::options::{CPU, CpuChoice, parse_cpu, parse_engine, usage};
use crate::print;
use anyhow::Context;
use clap::ValueEnum;
use compare::{Difference, compare, instructions};
use frontend_x86::insn;
use frontend_x86::sys::cpuid::Features;
use generate::Generator;
use iced_x86::{Code, Instruction, OpKind};
use indicatif::{ProgressBar, ProgressStyle};
use machine::{CpuModel, Engine};
use model::Model;
use oracle::{Judged, Oracle, Outcome, Sample};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

/// Test the CPU model against the CPU of this host
///
/// Random instructions run on both, from the same random state, in user mode. What differs is made
/// small and printed as one line. The status is 0 if nothing differed, else 1.
#[derive(Debug, clap::Args)]
pub struct Diff {
    /// Samples to run, each of 1 to 8 instructions
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub count: u64,

    /// Where the random numbers start: the same seed gives the same samples
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,

    /// Only instructions of these families, CPUID features or names
    #[arg(long, value_delimiter = ',', value_name = "NAME,…")]
    pub only: Vec<String>,

    /// CPU model; its features are those that are tested; help lists them
    #[arg(long, value_name = "MODEL[,±FEATURE]…", default_value = CPU, value_parser = parse_cpu)]
    pub cpu: CpuChoice,

    /// How the model runs the code: jit translates all of it to host code
    #[arg(long, value_name = "interp|jit|auto", default_value = "auto", value_parser = parse_engine)]
    pub engine: Engine,

    /// Code size
    #[arg(long, value_enum, default_value = "64")]
    pub bits: Bits,

    /// Write a report, by family, to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Print at most this many mismatches
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub show: usize,

    /// Write cases of single instructions as this host's CPU does them, 16 for each family, to
    /// FAMILY.cases in this folder
    #[arg(long, value_name = "FOLDER")]
    pub write_cases: Option<PathBuf>,

    /// List what is not compared, and why
    #[arg(long)]
    pub exclusions: bool,
}

/// Code size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)] // the names say it
pub enum Bits {
    #[value(name = "32")]
    B32,
    #[value(name = "64")]
    B64,
}

impl From<Bits> for oracle::Bits {
    fn from(bits: Bits) -> oracle::Bits {
        if bits == Bits::B64 { oracle::Bits::B64 } else { oracle::Bits::B32 }
    }
}

/// Cases for each family.
const CASES: usize = 16;

/// Cases by family: as many different instructions as there are, a few of them with a fault, each
/// with no more state than its outcome needs.
///
/// # Errors
/// When there is no oracle.
pub fn made_cases(
    cpu: CpuModel,
    seed: u64,
    bits: oracle::Bits,
) -> anyhow::Result<BTreeMap<&'static str, Vec<String>>> {
    let mut oracle = Oracle::new()?;
    let mut made = BTreeMap::new();
    for (family, rows) in insn::NAMES.iter().zip(insn::FAMILIES) {
        let wanted = |i: &Instruction| rules::family_of(i) == *family;
        let mut samples = Generator::new(seed, bits, Model::new(cpu).features(), Some(&wanted));
        if samples.codes().is_empty() {
            continue;
        }
        let lines: &mut Vec<String> = made.entry(*family).or_default();
        let mut seen: BTreeMap<_, u64> = BTreeMap::new();
        let (mut tries, mut faults) = (0, 0);
        while lines.len() < CASES && tries < 20_000 {
            tries += 1;
            let sample = samples.sample();
            let (all, cpu) = (instructions(&sample), oracle.run(&sample));
            let count = seen.entry(all[0].insn.mnemonic()).or_default();
            let faulted = cpu.outcome != Outcome::Done;
            // Once each, until all had their turn.
            let again = (tries / 2000).min(*count) < *count;
            if all.len() > 1 || again || faulted && faults >= CASES / 4 {
                continue;
            }
            let after = |s: &Sample, j: &Judged| {
                let line = cases::print(s, j);
                line.split("=>").nth(1).unwrap_or_default().to_owned()
            };
            let wanted = after(&sample, &cpu);
            if wanted.is_empty() && rows.len() > CASES {
                continue;
            }
            let small = shrink::minimise(&sample, |next| after(next, &oracle.run(next)) == wanted);
            let line = cases::print(&small, &oracle.run(&small));
            if line.len() < 300 {
                *count += 1;
                faults += usize::from(faulted);
                lines.push(line);
            }
        }
    }
    Ok(made)
}

/// Counts of one family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Instructions judged.
    pub judged: u64,
    /// Of these, in samples that ended in a fault.
    pub faults: u64,
    /// Mismatches whose first instruction, once small, was of this family.
    pub mismatches: u64,
}

/// What a campaign found.
#[derive(Debug, Default)]
pub struct Report {
    /// Samples judged.
    pub samples: u64,
    /// Samples that differed.
    pub mismatches: u64,
    /// By family.
    pub families: BTreeMap<&'static str, Tally>,
    /// Mismatches by mnemonic.
    pub mnemonics: BTreeMap<String, u64>,
    /// How often each encoding was judged.
    pub codes: BTreeMap<Code, u64>,
    /// Blocks translated to host code.
    pub host_blocks: u64,
    /// Lines of the mismatches printed, and how they differ.
    pub found: Vec<(String, Vec<Difference>)>,
}

/// A campaign.
pub struct Campaign {
    /// Samples to run.
    pub count: u64,
    /// Seed.
    pub seed: u64,
    /// Code size.
    pub bits: oracle::Bits,
    /// CPU model.
    pub cpu: CpuModel,
    /// How it runs code; `Auto` is the interpreter.
    pub engine: Engine,
    /// Families, CPUID features and mnemonics, in lower case; empty for all.
    pub only: Vec<String>,
    /// Mismatches to make small and keep, at most.
    pub show: usize,
}

/// Whether `i` is one of those that `only` names.
fn named(i: &Instruction, only: &[String]) -> bool {
    let is = |name: String| only.contains(&name.to_lowercase());
    is(format!("{:?}", i.mnemonic()))
        || is(rules::family_of(i).into())
        || i.cpuid_features().iter().any(|f| is(format!("{f:?}").replace('_', ".")))
        || i.cpuid_features().iter().any(|f| is(format!("{f:?}")))
}

impl Campaign {
    /// One of all instructions of the default CPU, on the interpreter.
    #[must_use]
    pub fn new(count: u64, seed: u64, bits: oracle::Bits) -> Campaign {
        let (cpu, engine) = (CpuModel::default(), Engine::Interp);
        Campaign { count, seed, bits, cpu, engine, only: Vec::new(), show: 10 }
    }

    /// Runs it; `tick` is told how many samples are done and how many differed.
    ///
    /// # Errors
    /// When there is no oracle, or nothing to test.
    pub fn run(&self, mut tick: impl FnMut(u64, u64)) -> anyhow::Result<Report> {
        let mut oracle = Oracle::new()?;
        let mut model = Model::new(self.cpu);
        if self.engine == Engine::Jit {
            model = model.translated()?;
        }
        let wanted = |i: &Instruction| named(i, &self.only);
        let filter: Option<&dyn Fn(&Instruction) -> bool> =
            if self.only.is_empty() { None } else { Some(&wanted) };
        let mut samples = Generator::new(self.seed, self.bits, model.features(), filter);
        if samples.codes().is_empty() {
            return usage(format!("no instruction is called {}", self.only.join(" or ")));
        }
        let mut report = Report::default();
        let mut left = self.count;
        let mut wrong = Vec::new();
        while left > 0 {
            let n = left.min(Oracle::BATCH as u64);
            let batch: Vec<Sample> = (0..n).map(|_| samples.sample()).collect();
            oracle.start(&batch);
            let models: Vec<Judged> = batch.iter().map(|s| model.run(s)).collect();
            for ((sample, model), cpu) in batch.into_iter().zip(models).zip(oracle.finish()) {
                let same = compare(&sample, &cpu, &model).is_empty();
                report.count(&sample, &cpu);
                if !same {
                    wrong.push(sample);
                }
            }
            for sample in wrong.drain(..) {
                self.mismatch(&sample, &mut model, &mut oracle, &mut report);
            }
            left -= n;
            tick(self.count - left, report.mismatches);
        }
        report.host_blocks = model.host_blocks();
        Ok(report)
    }

    fn mismatch(&self, sample: &Sample, model: &mut Model, oracle: &mut Oracle, to: &mut Report) {
        to.mismatches += 1;
        // The first few of a kind are worth the time that it takes.
        if to.mismatches > 2000 {
            return;
        }
        let small = shrink::shrink(sample, model, oracle);
        let first = instructions(&small);
        let Some(first) = first.last() else { return };
        to.families.entry(rules::family_of(&first.insn)).or_default().mismatches += 1;
        let seen = to.mnemonics.entry(format!("{:?}", first.insn.mnemonic())).or_default();
        *seen += 1;
        if *seen <= 3 && to.found.len() < self.show {
            let cpu = oracle.run(&small);
            let differences = compare(&small, &cpu, &model.run(&small));
            to.found.push((cases::print(&small, &cpu), differences));
        }
    }
}

/// Where a direct near branch goes.
fn near_target(i: &Instruction) -> Option<u64> {
    let near = matches!(i.op0_kind(), OpKind::NearBranch32 | OpKind::NearBranch64);
    near.then(|| i.near_branch_target())
}

impl Report {
    fn count(&mut self, sample: &Sample, cpu: &Judged) {
        self.samples += 1;
        let faulted = !matches!(cpu.outcome, Outcome::Done);
        let end = oracle::CODE + sample.code.len() as u64;
        let within = faulted && (oracle::CODE..end).contains(&cpu.state.rip);
        let (mut at, mut target) = (oracle::CODE, 0);
        for e in instructions(sample) {
            if within && at > cpu.state.rip {
                break;
            }
            at += e.bytes.len() as u64;
            if at <= target {
                continue;
            }
            let tally = self.families.entry(rules::family_of(&e.insn)).or_default();
            tally.judged += 1;
            tally.faults += u64::from(faulted);
            *self.codes.entry(e.insn.code()).or_default() += 1;
            if rules::branches(&e.insn) {
                // What it may have jumped over is not counted.
                match near_target(&e.insn) {
                    Some(to) if to >= at => target = to,
                    _ => break,
                }
            }
        }
    }

    /// The report as a JSON object.
    #[must_use]
    pub fn json(&self, campaign: &Campaign) -> String {
        let mut families = String::new();
        for (name, t) in &self.families {
            let comma = if families.is_empty() { "" } else { "," };
            let _ = write!(
                families,
                "{comma}\n    \"{name}\": {{ \"judged\": {}, \"faults\": {}, \"mismatches\": {} }}",
                t.judged, t.faults, t.mismatches
            );
        }
        let codes: Vec<String> =
            self.codes.iter().map(|(code, n)| format!("\n    \"{code:?}\": {n}")).collect();
        let codes = codes.join(",");
        let bits = encode::bitness(campaign.bits);
        format!(
            "{{\n  \"seed\": {}, \"bits\": {bits}, \"samples\": {}, \"mismatches\": {}, \
             \"encodings\": {},\n  \"families\": {{{families}\n  }},\n  \
             \"codes\": {{{codes}\n  }}\n}}\n",
            campaign.seed,
            self.samples,
            self.mismatches,
            self.codes.len()
        )
    }

    /// The figures as a table.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text =
            format!("{:<10} {:>10} {:>10} {:>10}\n", "family", "judged", "in faults", "wrong");
        for (name, t) in &self.families {
            let _ =
                writeln!(text, "{name:<10} {:>10} {:>10} {:>10}", t.judged, t.faults, t.mismatches);
        }
        let wrong = self.mismatches;
        let _ = writeln!(
            text,
            "{} samples, {} encodings, {wrong} mismatch{}",
            self.samples,
            self.codes.len(),
            if wrong == 1 { "" } else { "es" }
        );
        if self.host_blocks > 0 {
            let _ = writeln!(text, "{} blocks translated to host code", self.host_blocks);
        }
        text
    }
}

impl Diff {
    /// Runs the command; gives the exit status.
    ///
    /// # Errors
    /// One line for the user.
    pub fn run(self) -> anyhow::Result<u8> {
        if self.exclusions {
            return print(&exclusions()).map(|()| 0);
        }
        if let Some(folder) = &self.write_cases {
            for (family, lines) in made_cases(self.cpu.model(), self.seed, self.bits.into())? {
                let path = folder.join(family).with_extension("cases");
                let text = format!(
                    "# {family}: see `ring3::diff::cases` for what a line says.\n{}",
                    lines.join("\n")
                );
                let context = || format!("cannot write {}", path.display());
                std::fs::write(&path, text + "\n").with_context(context)?;
            }
            return Ok(0);
        }
        if self.cpu.model().features.0 & Features::LM.0 == 0 {
            return usage("code is compared in 64-bit mode (lm), which this CPU model lacks");
        }
        let campaign = Campaign {
            count: self.count,
            seed: self.seed,
            bits: self.bits.into(),
            cpu: self.cpu.model(),
            engine: self.engine,
            only: self.only.iter().map(|o| o.trim().to_lowercase()).collect(),
            show: self.show,
        };
        let bar = ProgressBar::new(self.count);
        let style = "{bar:40} {human_pos}/{human_len} {per_sec} {msg}";
        bar.set_style(ProgressStyle::with_template(style).expect("a valid template"));
        let report = campaign.run(|done, wrong| {
            bar.set_position(done);
            if wrong > 0 {
                bar.set_message(format!("{wrong} differ"));
            }
        })?;
        bar.finish_and_clear();
        let mut text = String::new();
        for (line, differences) in &report.found {
            let _ = writeln!(text, "{line}");
            for d in differences {
                let _ = writeln!(text, "    {d}");
            }
        }
        if !report.mnemonics.is_empty() {
            let all: Vec<String> =
                report.mnemonics.iter().map(|(m, n)| format!("{m} {n}")).collect();
            let _ = writeln!(text, "{}", all.join(", ").to_lowercase());
        }
        text += &report.table();
        print(&text)?;
        if let Some(path) = &self.json {
            let context = || format!("cannot write the report {}", path.display());
            std::fs::write(path, report.json(&campaign)).with_context(context)?;
        }
        Ok(u8::from(report.mismatches > 0))
    }
}

/// The tables of [`rules`] as text.
fn exclusions() -> String {
    let mut text = String::from("Not generated:\n");
    let names = |all: &[iced_x86::Mnemonic]| {
        let names: Vec<String> = all.iter().map(|m| format!("{m:?}").to_lowercase()).collect();
        names.join(" ")
    };
    for (all, why) in rules::EXCLUDED {
        let _ = writeln!(text, "  {}\n      {why}", names(all));
    }
    text += "Flags not compared:\n";
    for (all, mask, words) in rules::UNDEFINED {
        let _ = writeln!(text, "  {} ({mask:03x})\n      {words}", names(all));
    }
    text
}
