//! `ring3 audit`: the instruction set as Popek and Goldberg see it, and what a real guest does with
//! the part of it that is sensitive.
//!
//! The table is [`frontend_x86::sensitive`]; here it is printed. With a guest the guest runs as
//! under `ring3 run` or `ring3 linux --exec`, and its sensitive instructions are counted.

use crate::debian::Arch;
use crate::linux::Linux;
use crate::print;
use crate::run::Run;
use anyhow::Context;
use emu_core::cpu::Cpu;
use frontend_x86::insn;
use frontend_x86::row::Class;
use frontend_x86::sensitive::{CAUGHT, PLACES, Sensitive, TABLE, Trap, counts};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// Show which instructions are sensitive, and count them in a guest
///
/// Sensitive is what changes or reveals the machine's resources (Popek and Goldberg, 1974). If all
/// of it trapped in ring 3, a kernel could run there unchanged; on x86 it does not. Without a guest
/// the table is printed; with one (the flags of `ring3 run`, or --exec) the guest runs, and then
/// how often it executed each, where, and how that was caught.
#[derive(Debug, clap::Args)]
pub struct Audit {
    /// List the innocuous instructions too
    #[arg(long)]
    pub all: bool,

    /// Write the table, and the counts if there is a guest, to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Boot Debian's kernel as `ring3 linux` does, and run a shell command in it
    #[arg(long, value_name = "CMD", conflicts_with_all = ["kernel", "bios"])]
    pub exec: Option<String>,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub guest: Run,
}

/// Counts of a group: by place, then by how it was caught.
type Count = [[u64; CAUGHT.len()]; PLACES.len()];

/// Counts of a run by group; empty if nothing ran.
#[derive(Clone, Debug, Default)]
pub struct Counts(Vec<Count>);

/// What `cpu` has counted.
#[must_use]
pub fn counted(cpu: &Cpu) -> Counts {
    Counts((0..TABLE.len()).map(|g| counts(cpu, g)).collect())
}

impl Audit {
    /// Runs the command; gives the exit status: the guest's if there is one.
    ///
    /// # Errors
    /// One line for the user.
    pub fn run(self) -> anyhow::Result<u8> {
        let sink = Arc::new(Mutex::new(Counts::default()));
        let mut run = self.guest;
        run.machine.audit = Some(Arc::clone(&sink));
        let status = match self.exec {
            None if run.kernel.is_none() && run.bios.is_none() => 0,
            None => run.run()?,
            Some(_) => {
                let (arch, exec, append) = (Arch::Amd64, self.exec, run.append);
                Linux { arch, exec, append, machine: run.machine }.run()?
            }
        };
        let counts = sink.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(path) = &self.json {
            let context = || format!("cannot write the table {}", path.display());
            std::fs::write(path, json(&counts)).with_context(context)?;
        }
        let mut text = if counts.0.is_empty() { table() } else { report(&counts) };
        if self.all {
            text += &innocuous();
        }
        print(&text).map(|()| status)
    }
}

/// What ring 3 gets, in a word.
fn word(t: Trap) -> &'static str {
    match t {
        Trap::Always => "traps",
        Trap::Iopl => "by IOPL",
        Trap::Ports => "by port",
        Trap::Switch(bit) => bit,
        Trap::Free => "runs",
        Trap::Absent => "-",
    }
}

fn class(s: &Sensitive) -> &'static str {
    if s.class == Class::Control { "control" } else { "behaviour" }
}

/// Whether ring 3 can execute it in some mode of today's systems without a trap.
fn open(s: &Sensitive) -> bool {
    s.ring3.iter().any(|t| matches!(t, Trap::Free | Trap::Switch(_)))
}

/// The table, the unprivileged set and how it differs from Robin and Irvine's list.
#[must_use]
pub fn table() -> String {
    let mut text = String::from("Sensitive instructions, and what ring 3 gets of them\n\n");
    let heads = ["instructions", "sensitive", "v86", "32-bit", "64-bit"];
    let mut row = |c: [&str; 5]| {
        let line = format!("{:<26}{:<11}{:<18}{:<18}{}", c[0], c[1], c[2], c[3], c[4]);
        let _ = writeln!(text, "{}", line.trim_end());
    };
    row(heads);
    for s in TABLE {
        row([s.name, class(s), word(s.ring3[0]), word(s.ring3[1]), word(s.ring3[2])]);
    }
    text += "
traps: privileged. by IOPL, by port: traps unless the system allows it. A bit: traps while
the bit is so. runs: sensitive, but unprivileged. -: no such instruction there.

Sensitive, but unprivileged

";
    for s in TABLE.iter().filter(|s| open(s)) {
        let robin = if s.robin.is_empty() { "" } else { "*" };
        let _ = writeln!(text, "{robin:<2}{:<24}{}", s.name, s.why);
    }
    text += "
* One of those that Robin and Irvine found on the Pentium in 2000. They speak of 17; the
  list, as it is cited, has 18 names, here too. None of them is privileged today. Five
  (SGDT, SIDT, SLDT, STR, SMSW) trap where the system sets CR4.UMIP. In 64-bit code
  PUSH and POP have FS and GS left only. The others are as they were.
  The rest of the set was not in their list: time and identification, which the
  Pentium's systems could hide or did not call a resource, and what came after it.
";
    text
}

/// Instructions that are not sensitive in any form.
fn innocuous() -> String {
    let rows = insn::FAMILIES.iter().zip(insn::NAMES);
    let mut text = String::from("\nInnocuous\n\n");
    for (rows, family) in rows {
        let names: Vec<String> = rows
            .iter()
            .filter(|r| !TABLE.iter().any(|s| s.mnemonics.contains(&r.mnemonic)))
            .map(|r| format!("{:?}", r.mnemonic).to_lowercase())
            .collect();
        let _ = writeln!(text, "{family}: {}", names.join(" "));
    }
    text
}

/// What ring 3 gets of a group in the mode of place `n`.
fn in_ring3(s: &Sensitive, n: usize) -> Trap {
    s.ring3[n / 2]
}

/// What a guest executed, by place and by how it was caught, the most frequent first.
fn report(counts: &Counts) -> String {
    let mut text = String::from("Sensitive instructions that the guest executed\n\n");
    let by = |c: &Count| {
        let places = c.map(|p| p.iter().sum::<u64>()).to_vec();
        let caught = (0..CAUGHT.len()).map(|how| c.iter().map(|p| p[how]).sum());
        places.into_iter().chain(caught).collect::<Vec<u64>>()
    };
    let heads: Vec<&str> = PLACES.iter().chain(&CAUGHT).copied().collect();
    // Columns without any count are left out.
    let used = |n: &usize| counts.0.iter().any(|c| by(c)[*n] > 0);
    let columns: Vec<usize> = (0..heads.len()).filter(used).collect();
    let mut row = |name: &str, cells: Vec<String>| {
        let _ = write!(text, "{name:<26}");
        for n in &columns {
            let _ = write!(text, "{:>14}", cells[*n]);
        }
        text += "\n";
    };
    row("instructions", heads.iter().map(ToString::to_string).collect());
    let mut rows: Vec<_> = TABLE.iter().zip(&counts.0).collect();
    rows.sort_by_key(|(_, c)| std::cmp::Reverse(c.as_flattened().iter().sum::<u64>()));
    let (mut all, mut free, mut switch) = (0, 0, 0);
    for (s, c) in rows {
        let cells = by(c);
        for (n, count) in cells[..PLACES.len()].iter().enumerate() {
            all += count;
            free += if in_ring3(s, n) == Trap::Free { *count } else { 0 };
            switch += if matches!(in_ring3(s, n), Trap::Switch(_)) { *count } else { 0 };
        }
        if cells.iter().any(|n| *n > 0) {
            row(s.name, cells.iter().map(ToString::to_string).collect());
        }
    }
    let _ = writeln!(
        text,
        "\n{all} in all. In ring 3 of the same mode {free} of them would not have trapped, \
         {switch} only\nby a bit of CR4 or an MSR.\n\
         micro-ops: translated in line. helper: translated to the call of a function. trapped: it\n\
         raised #GP or #UD in the guest, as on a CPU. All are caught in translation; none has to\n\
         trap for that."
    );
    text
}

/// Table and counts.
fn json(counts: &Counts) -> String {
    let rows: Vec<String> = TABLE
        .iter()
        .enumerate()
        .map(|(n, s)| {
            let [v86, p, l] = s.ring3.map(word);
            let mut row = format!(
                "  {{ \"name\": {:?}, \"class\": \"{}\", \"v86\": \"{v86}\", \"bits32\": \"{p}\", \
                 \"bits64\": \"{l}\", \"robin_irvine\": {}, \"why\": {:?}",
                s.name,
                class(s),
                !s.robin.is_empty(),
                s.why
            );
            if let Some(c) = counts.0.get(n) {
                let places: Vec<String> = PLACES
                    .iter()
                    .zip(c)
                    .map(|(place, by)| format!("\"{place}\": {by:?}"))
                    .collect();
                let _ = write!(row, ", \"counts\": {{ {} }}", places.join(", "));
            }
            row + " }"
        })
        .collect();
    let caught = CAUGHT.map(|c| format!("\"{c}\"")).join(", ");
    format!("{{ \"caught\": [{caught}], \"instructions\": [\n{}\n] }}\n", rows.join(",\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diff::encode::encode;
    use crate::diff::model::Model;
    use crate::diff::random::Rng;
    use crate::diff::{cases, rules};
    use frontend_x86::sensitive::group;
    use iced_x86::Code;
    use machine::CpuModel;
    use oracle::{Bits, CODE, Outcome, Sample};

    #[test]
    fn the_table_tells_all() {
        let text = table();
        for s in TABLE {
            assert!(text.contains(&format!("\n{:<26}{}", s.name, class(s))), "{}", s.name);
        }
        let open: Vec<&str> = text.lines().filter(|l| l.starts_with("* ")).collect();
        assert_eq!(open.len(), 19 + 1, "the 18, MOV twice, and the note\n{text}");
        assert!(innocuous().contains("arith: add adc "), "{}", innocuous());
    }

    #[test]
    fn a_guests_counts() {
        let mut counts = Counts(vec![Count::default(); TABLE.len()]);
        counts.0[0][5] = [0, 2, 1];
        let text = report(&counts);
        let line = text.lines().find(|l| l.starts_with("sgdt ")).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words, ["sgdt", "3", "2", "1"], "64-bit user, helper, trapped");
        assert!(text.contains("3 in all. In ring 3 of the same mode 0 of them"), "{text}");
        assert!(!text.contains("sidt"));
        assert!(json(&counts).contains("\"64-bit user\": [0, 2, 1]"));
    }

    /// What the table says of ring 3 is what the model does there, with IOPL 0 and UMIP on. What
    /// leaves for a kernel that is not there is not tried.
    #[test]
    fn ring_3_gets_what_the_table_says() {
        let (mut model, mut rng) = (Model::new(CpuModel::default()), Rng::new(1));
        for (bits, column) in [(Bits::B32, 1), (Bits::B64, 2)] {
            let (mut tried, mut ran) = (vec![0; TABLE.len()], vec![0; TABLE.len()]);
            for code in Code::values().filter(|c| rules::decodes(*c)) {
                for _ in 0..20 {
                    let Some(e) = encode(code, bits, CODE, &mut rng) else { break };
                    let lock = e.bytes.contains(&0xf0);
                    let Some(g) = group(&e.insn).filter(|_| !lock) else { continue };
                    if rules::branches(&e.insn) {
                        continue;
                    }
                    let sample = Sample { code: e.bytes, bits, ..cases::base() };
                    let gp = |o| matches!(o, Outcome::Fault { vector: 6 | 13, .. });
                    tried[g] += 1;
                    ran[g] += usize::from(!gp(model.run(&sample).outcome));
                }
            }
            for (g, s) in TABLE.iter().enumerate().filter(|(g, _)| tried[*g] > 0) {
                let right = match s.ring3[column] {
                    Trap::Free => ran[g] > 0,
                    Trap::Switch(_) => true,
                    Trap::Always | Trap::Iopl | Trap::Ports | Trap::Absent => ran[g] == 0,
                };
                assert!(right, "{} of {} ran: {} at {bits:?}", ran[g], tried[g], s.name);
            }
            assert!(tried.iter().filter(|n| **n > 0).count() > 30);
        }
    }
}
