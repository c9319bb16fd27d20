//! A CPU as the command line chooses it: `MODEL[,+FEATURE][,-FEATURE]…`.
//!
//! Words are QEMU's: `+avx` or `avx=on`, `-avx` or `avx=off`. Names of features are those of Linux'
//! `/proc/cpuinfo` and QEMU's; `_`, `-` and `.` are the same. Adding a feature adds what it needs,
//! removing one removes what needs it. A feature that is asked for and at the same time taken away,
//! by itself or through what it needs, is an error: no order of words would mean what was meant.

use super::needs::{with_dependents, with_needs};
use super::{DEFAULT, MODELS, Model};
use crate::sys::cpuid::{Features, ROWS};
use emu_core::cpu::Cpu;
use std::fmt::{self, Write as _};
use std::str::FromStr;

/// A model and the features that are in force.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CpuModel {
    index: u8,
    /// What the CPU has: closed under [`super::needs`] when it was parsed.
    pub features: Features,
}

impl fmt::Debug for CpuModel {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} {:?}", self.model().name, self.features)
    }
}

impl Default for CpuModel {
    fn default() -> Self {
        CpuModel::at(DEFAULT)
    }
}

/// What is wrong with the words; one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelError {
    /// No such model: the word, and the names nearest to it.
    Model(String, Vec<String>),
    /// No such feature.
    Feature(String, Vec<String>),
    /// A word that is neither `+feature` nor `-feature`.
    Word(String),
    /// A feature is asked for, and this one taken away.
    Conflict(String, String),
}

impl std::error::Error for ModelError {}

impl fmt::Display for ModelError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (what, name, near) = match self {
            ModelError::Model(name, near) => ("CPU model", name, near),
            ModelError::Feature(name, near) => ("CPU feature", name, near),
            ModelError::Word(word) => {
                return write!(f, "'{word}' must be +FEATURE or -FEATURE");
            }
            ModelError::Conflict(on, off) if on == off => {
                return write!(f, "the CPU feature {on} is both added and removed");
            }
            ModelError::Conflict(on, off) => {
                return write!(f, "the CPU feature {on} needs {off}, which is removed");
            }
        };
        write!(f, "there is no {what} '{name}'")?;
        if !near.is_empty() {
            write!(f, ", but {}", near.join(", "))?;
        }
        f.write_str("; '--cpu help' lists them")
    }
}

impl CpuModel {
    const fn at(index: u8) -> CpuModel {
        CpuModel { index, features: MODELS[index as usize].features }
    }

    /// The model as it is, by its name.
    #[must_use]
    pub fn named(name: &str) -> Option<CpuModel> {
        MODELS.iter().position(|m| m.name == name).map(|i| CpuModel::at(i as u8))
    }

    /// The same model with other features, as they are.
    #[must_use]
    pub const fn with(self, features: Features) -> CpuModel {
        CpuModel { features, ..self }
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &'static Model {
        MODELS[usize::from(self.index)]
    }

    /// Makes `cpu` this one, at its next RESET.
    pub fn apply(&self, cpu: &mut Cpu) {
        (cpu.model, cpu.features) = (self.index, self.features.0);
    }
}

/// Names as they are compared.
fn plain(name: &str) -> String {
    name.to_ascii_lowercase().replace(['-', '.'], "_")
}

fn feature(name: &str) -> Result<Features, ModelError> {
    let wanted = plain(name);
    let found = ROWS.iter().find(|r| r.names().any(|n| plain(&n) == wanted));
    found.map(|r| r.feature).ok_or_else(|| {
        let all = ROWS.iter().flat_map(|r| r.names());
        ModelError::Feature(name.to_owned(), nearest(&wanted, all))
    })
}

/// Up to three of `all` that are spelt nearly as `name`, the nearest first.
fn nearest(name: &str, all: impl Iterator<Item = String>) -> Vec<String> {
    let mut near: Vec<_> = all
        .map(|n| (distance(name, &plain(&n)), n))
        .filter(|(d, n)| *d <= 1 + n.len() / 4)
        .collect();
    near.sort_by_key(|(d, _)| *d);
    near.into_iter().map(|(_, n)| n).take(3).collect()
}

/// Levenshtein distance in bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

impl FromStr for CpuModel {
    type Err = ModelError;

    fn from_str(text: &str) -> Result<CpuModel, ModelError> {
        let mut words = text.split(',');
        let name = words.next().unwrap_or_default();
        let lower = name.to_ascii_lowercase();
        let mut cpu = CpuModel::named(&lower).ok_or_else(|| {
            let names = MODELS.iter().map(|m| m.name.to_owned());
            ModelError::Model(name.to_owned(), nearest(&plain(name), names))
        })?;
        let (mut on, mut off) = (Features::NONE, Features::NONE);
        for word in words {
            let (set, name) = match (word.split_at_checked(1), word.split_once('=')) {
                (Some(("+", name)), _) | (_, Some((name, "on"))) => (&mut on, name),
                (Some(("-", name)), _) | (_, Some((name, "off"))) => (&mut off, name),
                _ => return Err(ModelError::Word(word.to_owned())),
            };
            set.0 |= feature(name)?.0;
        }
        let gone = with_dependents(off);
        if let Some(asked) = ROWS.iter().find(|r| on.0 & gone.0 & r.feature.0 != 0) {
            let needs = with_needs(asked.feature).0 & off.0;
            let missing = ROWS.iter().find(|r| needs & r.feature.0 != 0).unwrap_or(asked);
            return Err(ModelError::Conflict(asked.name(), missing.name()));
        }
        cpu.features = Features((cpu.features.0 | with_needs(on).0) & !gone.0);
        Ok(cpu)
    }
}

/// What `--cpu help` prints: models with their descriptions, then the names of all features.
#[must_use]
pub fn help() -> String {
    let mut text = String::from("Models:\n");
    for m in MODELS {
        let _ = writeln!(text, "  {:<10} {}", m.name, m.about);
    }
    text += "\nFeatures, to be added by +NAME or removed by -NAME (other names in brackets):\n";
    let mut line = String::new();
    for row in ROWS {
        let mut names = row.names();
        let mut word = names.next().unwrap_or_default();
        let others: Vec<_> = names.collect();
        if !others.is_empty() {
            let _ = write!(word, " ({})", others.join(", "));
        }
        if line.len() + word.len() > 90 {
            let _ = writeln!(text, " {line}");
            line.clear();
        }
        let _ = write!(line, " {word}");
    }
    let _ = writeln!(text, " {line}");
    text + "\nA feature brings what it needs; without it, what needs it is gone too.\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> CpuModel {
        text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    fn has(cpu: CpuModel, f: Features) -> bool {
        cpu.features.0 & f.0 == f.0
    }

    #[test]
    fn features_bring_what_they_need_and_take_what_needs_them() {
        assert_eq!(CpuModel::default(), parse("x86-64-v3"));
        let cpu = parse("core2,+avx2");
        let all = [Features::AVX, Features::XSAVE, Features::SSE4_2, Features::AVX2];
        assert!(all.iter().all(|f| has(cpu, *f)));
        let cpu = parse("x86-64-v3,-sse4.2");
        assert!([Features::AVX, Features::F16C, Features::AVX2].iter().all(|f| !has(cpu, *f)));
        assert!(has(cpu, Features::SSE4_1) && has(cpu, Features::BMI2));
        assert!(!has(parse("max,-fxsr"), Features::VAES));
        assert_eq!(parse("pentium3,-nopl,+nx").model().name, "pentium3");
    }

    #[test]
    fn spellings() {
        let names = ["SSE4_1", "sse4.1", "sse4-1"];
        assert!(names.iter().all(|n| parse(&format!("max,-{n}")) == parse("max,sse4_1=off")));
        assert_eq!(parse("core2,+lzcnt"), parse("core2,abm=on"));
        assert_eq!(parse("max,-pni"), parse("max,-sse3"));
        assert_eq!(parse("X86-64-V2"), parse("x86-64-v2"));
        // No name stands for two features.
        let mut names: Vec<_> = ROWS.iter().flat_map(|r| r.names().map(|n| plain(&n))).collect();
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn errors_are_one_line_and_name_what_is_near() {
        for (text, says) in [
            ("pentium4", "no CPU model 'pentium4', but pentium, pentium3; '--cpu help' lists them"),
            ("", "no CPU model ''"),
            ("core2,+avx3", "no CPU feature 'avx3', but avx, avx2"),
            ("core2,-quantum", "no CPU feature 'quantum'; '--cpu help' lists them"),
            ("core2,avx", "'avx' must be +FEATURE or -FEATURE"),
            ("core2,", "'' must be"),
            ("core2,é", "'é' must be"),
            ("core2,+é", "no CPU feature 'é'"),
            ("core2,avx=maybe", "'avx=maybe' must be"),
            ("max,+avx2,-xsave", "avx2 needs xsave, which is removed"),
            ("max,-aes,+aes", "aes is both added and removed"),
        ] {
            let error = text.parse::<CpuModel>().unwrap_err().to_string();
            assert!(error.contains(says) && !error.contains('\n'), "{text}: {error}");
        }
    }

    #[test]
    fn help_names_everything() {
        let text = help();
        assert!(MODELS.iter().all(|m| text.contains(&format!("\n  {} ", m.name))), "{text}");
        assert!(ROWS.iter().all(|r| r.names().all(|n| text.contains(&n))));
        assert!(text.lines().all(|l| l.len() <= 100), "{text}");
    }
}
