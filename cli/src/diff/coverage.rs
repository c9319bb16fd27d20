//! Which CPU model is tested, and what judges each of its instructions: random samples on the CPU
//! beneath us, or, where those cannot, tests. The page of this in `docs/` is made here, and checked
//! by a test: an encoding that the model gains must be generated, or stand in [`ELSEWHERE`].
//!
//! An encoding is one of iced's [`Code`]s. It belongs to the model if it can be decoded in any code
//! size and its CPUID feature is there. Encodings of 16-bit code are not judged in 16-bit code,
//! which a 64-bit host does not run: every one of them exists in 32-bit code too.

use super::cases;
use super::compare::instructions;
use super::generate::Generator;
use super::rules;
use frontend_x86::insn;
use frontend_x86::row::Attr;
use frontend_x86::sys::cpuid::Features;
use iced_x86::{Code, Instruction, Mnemonic};
use oracle::Bits;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

/// The CPU model that is tested, and its name.
pub const MODEL: Features = Features::X86_64_V3;
const MODEL_NAME: &str = "x86-64-v3";

/// Samples of an encoding that are enough.
pub const ENOUGH: u64 = 100;

/// Tests: a file, and functions in it.
pub type Tests = (&'static str, &'static [&'static str]);

macro_rules! tests {
    ($(#[$doc:meta])* $name:ident: $($($m:ident)|+ => $file:literal [$($test:literal),+];)*) => {
        $(#[$doc])*
        pub static $name: &[(&[Mnemonic], Tests)] =
            &[$((&[$(Mnemonic::$m),+], ($file, &[$($test),+]))),*];
    };
}

tests! {
    /// What judges encodings that are not generated; [`rules::excluded`] says why they are not.
    ELSEWHERE:
    Cpuid => "frontend-x86/src/sys/cpuid.rs" ["the_v3_model", "leaves_that_follow_the_state"];
    Xgetbv => "frontend-x86/src/sys/control.rs" ["xcr0_rules"];
    Rdtsc | Rdtscp | Rdpmc => "frontend-x86/src/sys/msr.rs" ["time_stamp_counter"];
    Rdrand | Rdseed => "frontend-x86/tests/host.rs" ["random_numbers_repeat"];
    Rdpid => "frontend-x86/tests/host.rs" ["the_small_ones"];
    Sgdt | Sidt => "frontend-x86/src/sys/segment.rs" ["table_registers"];
    Sldt | Str => "frontend-x86/src/sys/segment.rs" ["task_and_ldt_registers"];
    Smsw => "frontend-x86/src/sys/control.rs" ["cr0_rules"];
    Lar | Lsl | Verr | Verw => "frontend-x86/src/sys/segment.rs" ["questions_about_selectors"];
    Xsave | Xsave64 | Xsaveopt | Xsaveopt64 => "frontend-x86/src/sys/xsave.rs" ["xsave_writes_what_is_asked"];
    Xsavec | Xsavec64 => "frontend-x86/src/sys/xsave.rs" ["the_compacted_format"];
    Xrstor | Xrstor64 => "frontend-x86/src/sys/xsave.rs" ["xrstor_checks_and_initialises"];
    Rcpps | Rcpss | Rsqrtps | Rsqrtss => "emu-core/src/vec/host.rs" ["approximations_within_bounds"];
    Vrcpps | Vrcpss | Vrsqrtps | Vrsqrtss => "emu-core/src/vec/host.rs" ["approximations_within_bounds"];
    F2xm1 | Fyl2x | Fyl2xp1 | Fsin | Fcos | Fptan | Fpatan => "emu-core/src/fp/host_x87.rs" ["transcendentals_near_host"];
    Fsincos => "emu-core/src/fp/host_x87.rs" ["fsincos_as_host"];
    Lfs | Lgs | Lss | Jmp | Call => "frontend-x86/src/insn/tests.rs" ["far_pointers_of_ten_bytes"];
    Reservednop => "frontend-x86/src/insn/tests.rs" ["nops_of_any_operand"];
    Int1 | Int3 | Into => "frontend-x86/src/insn/tests.rs" ["breakpoints_and_overflow"];
    Syscall | Sysret | Sysretq => "frontend-x86/src/sys/transfer.rs" ["syscall_and_sysret"];
    Sysenter | Sysexit | Sysexitq => "frontend-x86/src/sys/transfer.rs" ["sysenter_and_sysexit"];
}

tests! {
    /// What judges the meaning of instructions of which random samples see the fault only, since
    /// they run in ring 3.
    PRIVILEGED:
    Hlt | Cli | Sti => "frontend-x86/src/sys/control.rs" ["interrupt_flag"];
    Stac | Clac => "frontend-x86/src/sys/mode.rs" ["smap_and_ac_select_the_table"];
    Lgdt | Lidt => "frontend-x86/src/sys/segment.rs" ["table_registers"];
    Lldt | Ltr => "frontend-x86/src/sys/segment.rs" ["task_and_ldt_registers"];
    Clts | Lmsw => "frontend-x86/src/sys/control.rs" ["cr0_rules"];
    Mov => "frontend-x86/src/sys/control.rs" ["cr0_rules", "cr4_rules", "pcids", "task_priority"];
    Invlpg | Invpcid => "frontend-x86/src/sys/control.rs" ["pcids"];
    Invd | Wbinvd => "frontend-x86/src/insn/tests.rs" ["caches_are_coherent"];
    Xsetbv => "frontend-x86/src/sys/control.rs" ["xcr0_rules"];
    Swapgs => "frontend-x86/src/insn/system.rs" ["helpers_and_ends"];
    Rdmsr | Wrmsr => "frontend-x86/src/sys/msr.rs" ["efer", "checks_of_values", "time_stamp_counter"];
    In | Out | Insb | Insw | Insd | Outsb | Outsw | Outsd => "frontend-x86/src/sys/control.rs" ["io_permission_map"];
}

/// Tests for `m` in one of the tables.
fn tests(table: &'static [(&[Mnemonic], Tests)], m: Mnemonic) -> Option<Tests> {
    table.iter().find(|(all, _)| all.contains(&m)).map(|row| row.1)
}

/// What judges an encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judge {
    /// Random samples.
    Random,
    /// Tests, for this reason.
    Tests(rules::Reason, Tests),
    /// Nothing.
    Nobody(rules::Reason),
}

/// An instruction that is no more than its encoding.
fn bare(code: Code) -> Instruction {
    let mut i = Instruction::default();
    i.set_code(code);
    i
}

/// All encodings of the model, with what judges them.
#[must_use]
pub fn model() -> BTreeMap<Code, Judge> {
    let sizes = [Bits::B64, Bits::B32];
    let generated: BTreeSet<Code> = sizes
        .iter()
        .flat_map(|bits| Generator::new(1, *bits, MODEL.0, None).codes().to_vec())
        .collect();
    let judge = |code: Code| {
        let i = bare(code);
        if generated.contains(&code) {
            return Judge::Random;
        }
        if insn::row(&i).is_none() {
            return Judge::Nobody("there is no row");
        }
        let why = rules::excluded(&i, MODEL.0).unwrap_or("it is not generated");
        tests(ELSEWHERE, i.mnemonic()).map_or(Judge::Nobody(why), |t| Judge::Tests(why, t))
    };
    Code::values()
        .filter(|c| rules::decodes(*c) && insn::enabled(&bare(*c), MODEL))
        .map(|c| (c, judge(c)))
        .collect()
}

/// Cases of each encoding in the files in `folder`.
///
/// # Errors
/// The line that is none.
pub fn cases(folder: &Path) -> Result<BTreeMap<Code, u64>, String> {
    let mut all = BTreeMap::new();
    for family in insn::NAMES {
        let Ok(text) = std::fs::read_to_string(folder.join(family).with_extension("cases")) else {
            continue;
        };
        for line in text.lines() {
            if let Some((sample, _)) = cases::parse(line).map_err(|e| format!("{line}: {e}"))? {
                for e in instructions(&sample) {
                    *all.entry(e.insn.code()).or_default() += 1;
                }
            }
        }
    }
    Ok(all)
}

/// What the page is made of, besides the model.
pub struct Evidence {
    /// Samples judged for each encoding.
    pub judged: BTreeMap<Code, u64>,
    /// Cases for each encoding.
    pub cases: BTreeMap<Code, u64>,
    /// The campaigns, in words.
    pub campaigns: String,
}

/// A list of tests as text.
fn list((file, names): Tests) -> String {
    let names: Vec<String> = names.iter().map(|n| format!("`{n}`")).collect();
    format!("{} in [`{file}`](../{file})", names.join(", "))
}

/// A share in percent, rounded down so that only all is 100.
fn share(part: usize, all: usize) -> String {
    let n = part * 1000 / all.max(1);
    format!("{}.{} %", n / 10, n % 10)
}

/// The page.
#[must_use]
pub fn page(evidence: &Evidence) -> String {
    let model = model();
    let family = |c: &Code| rules::family_of(&bare(*c));
    let judged = |c: &Code| evidence.judged.get(c).copied().unwrap_or(0);
    let cases = |c: &Code| evidence.cases.get(c).copied().unwrap_or(0);
    let by = |f: &dyn Fn(&Code, &Judge) -> bool| model.iter().filter(|(c, j)| f(c, j)).count();
    let rows = by(&|_, j| !matches!(j, Judge::Nobody("there is no row")));
    let random = by(&|c, j| *j == Judge::Random && judged(c) >= ENOUGH);
    let elsewhere = by(&|_, j| matches!(j, Judge::Tests(..)));
    let all = model.len();
    let mut text = format!(
        "# Coverage of the instruction set\n\n\
         Made by `cargo xtask coverage`; a test checks that it is complete. An encoding is one of \
         iced's codes: an opcode with its operand kinds and sizes. The model is {MODEL_NAME}.\n\n\
         | encodings of the model | {all} | |\n|---|--:|--:|\n\
         | implemented | {rows} | {} |\n\
         | judged by the CPU beneath, in {ENOUGH} random samples or more | {random} | {} |\n\
         | judged by tests, for a reason given below | {elsewhere} | {} |\n\
         | judged | {} | {} |\n\n{}\n\n\
         Encodings of 16-bit code are judged in 32-bit code, where each of them exists too; a \
         64-bit host runs no other. Real and virtual-8086 mode are judged by the system tests and \
         `ring3 demo`.\n\n## Families\n\n\
         | family | encodings | random | tests | cases | fewest samples |\n\
         |---|--:|--:|--:|--:|--:|\n",
        share(rows, all),
        share(random, all),
        share(elsewhere, all),
        random + elsewhere,
        share(random + elsewhere, all),
        evidence.campaigns,
    );
    for name in insn::NAMES {
        let of = |f: &dyn Fn(&Judge) -> bool| -> Vec<&Code> {
            model.iter().filter(|(c, j)| family(c) == *name && f(j)).map(|(c, _)| c).collect()
        };
        let (codes, random) = (of(&|_| true), of(&|j| *j == Judge::Random));
        let _ = writeln!(
            text,
            "| {name} | {} | {} | {} | {} | {} |",
            codes.len(),
            random.len(),
            of(&|j| matches!(j, Judge::Tests(..))).len(),
            codes.iter().map(|c| cases(c)).sum::<u64>(),
            random.iter().map(|c| judged(c)).min().unwrap_or(0),
        );
    }
    text +=
        "\n## Not judged by random samples\n\n| encodings | why not | judged by |\n|---|---|---|\n";
    let mut groups: Vec<(Judge, Vec<Code>)> = Vec::new();
    for (code, judge) in model.iter().filter(|(_, j)| **j != Judge::Random) {
        match groups.iter_mut().find(|g| g.0 == *judge) {
            Some(g) => g.1.push(*code),
            None => groups.push((*judge, vec![*code])),
        }
    }
    for (judge, codes) in groups {
        let names: Vec<String> = codes.iter().map(|c| format!("{c:?}")).collect();
        let (why, by) = match judge {
            Judge::Tests(why, tests) => (why, list(tests)),
            Judge::Nobody(why) => (why, "**nothing**".into()),
            Judge::Random => continue,
        };
        let _ = writeln!(text, "| {} | {why} | {by} |", names.join(" "));
    }
    text += "\n## Judged by random samples only as far as ring 3 goes\n\n\
             There they raise #GP(0), or what depends on IOPL; the rest is judged by tests.\n\n\
             | instructions | judged by |\n|---|---|\n";
    for (all, tests) in PRIVILEGED {
        let names: Vec<String> = all.iter().map(|m| format!("{m:?}").to_lowercase()).collect();
        let m = if *all == [Mnemonic::Mov] {
            "mov to and from cr and dr".into()
        } else {
            names.join(" ")
        };
        let _ = writeln!(text, "| {m} | {} |", list(*tests));
    }
    text += "\n## All encodings\n\n\
             Samples judged and, after a slash, cases; – where tests judge.\n\n```\n";
    let mut last = String::new();
    for (code, judge) in &model {
        let first = format!("{:?}", code.mnemonic()).to_lowercase();
        let prefix = if last.is_empty() { "" } else { "\n" };
        if first != last {
            let _ = write!(text, "{prefix}{first}:");
        }
        last = first;
        let n = match judge {
            Judge::Random => judged(code).to_string(),
            _ => "–".into(),
        };
        let _ = match cases(code) {
            0 => write!(text, " {code:?} {n}"),
            c => write!(text, " {code:?} {n}/{c}"),
        };
    }
    text + "\n```\n"
}

/// What is wrong with the page: an encoding that is missing or not of the model, or was judged in
/// too few samples. Figures depend on the generator only, but need not be the newest.
#[must_use]
pub fn check(page: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut listed = BTreeMap::new();
    let block = page.split("```").nth(1).unwrap_or_default();
    for line in block.lines().filter(|l| !l.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().skip(1).collect();
        for pair in words.chunks(2) {
            let count = pair.get(1).and_then(|n| n.split('/').next()).unwrap_or_default();
            if listed.insert(pair[0].to_owned(), count.to_owned()).is_some() {
                wrong.push(format!("{} stands there twice", pair[0]));
            }
        }
    }
    for (code, judge) in model() {
        let name = format!("{code:?}");
        match (judge, listed.remove(&name)) {
            (Judge::Nobody(why), _) => wrong.push(format!("{name}: {why}, and no test is named")),
            (_, None) => wrong.push(format!("{name} is not on the page")),
            (Judge::Random, Some(n)) if n.parse().is_ok_and(|n: u64| n >= ENOUGH) => {}
            (Judge::Random, Some(n)) => wrong.push(format!("{name}: {n} samples are too few")),
            (Judge::Tests(..), Some(n)) if n == "–" => {}
            (Judge::Tests(..), Some(n)) => wrong.push(format!("{name}: {n} for what tests judge")),
        }
    }
    wrong.extend(listed.into_keys().map(|name| format!("{name} is not of the model")));
    wrong
}

/// Mnemonics of privileged rows that [`PRIVILEGED`] lacks.
#[must_use]
pub fn unnamed() -> Vec<Mnemonic> {
    let rows = insn::FAMILIES.iter().flat_map(|f| f.iter());
    let all = rows.filter(|r| r.attr.contains(Attr::PRIV)).map(|r| r.mnemonic);
    all.filter(|m| tests(PRIVILEGED, *m).is_none()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diff::encode::encode;
    use crate::diff::random::Rng;
    use emu_core::cpu::mode;
    use emu_core::uop::Op;
    use frontend_x86::lift::lift_bytes;

    /// What is not generated is more than a row: in ring 0 each encoding lifts to what is not #UD.
    #[test]
    fn what_tests_judge_lifts() {
        let mut rng = Rng::new(1);
        let common = mode::FLAT | mode::SSE | mode::AVX;
        let modes = [
            (Bits::B64, mode::CODE64 | mode::LONG | common),
            (Bits::B32, mode::CODE32 | mode::STACK32 | common),
        ];
        for (code, _) in model().into_iter().filter(|(_, j)| *j != Judge::Random) {
            let lifts = modes.iter().any(|(bits, mode)| {
                (0..50).any(|_| {
                    encode(code, *bits, 0, &mut rng).is_some_and(|e| {
                        let (block, _) = lift_bytes(&e.bytes, *mode, MODEL.0, 1);
                        let raises = |op: &emu_core::uop::Uop| op.op == Op::Raise;
                        !block.uops.iter().any(raises)
                    })
                })
            });
            assert!(lifts, "{code:?}");
        }
    }

    #[test]
    fn a_page_is_complete_or_not() {
        let judged = |n: u64| model().into_keys().map(|c| (c, n)).collect();
        let evidence = |n| Evidence {
            judged: judged(n),
            cases: BTreeMap::from([(Code::Add_rm8_r8, 3)]),
            campaigns: String::new(),
        };
        let good = page(&evidence(ENOUGH));
        assert_eq!(check(&good), Vec::<String>::new());
        assert!(good.contains(" Add_rm8_r8 100/3 "), "{good}");
        assert!(check(&good.replace(" Add_rm8_r8 100/3", "")).len() == 1);
        assert!(check(&good.replace(" Cpuid –", " Cpuid 5")).len() == 1);
        assert!(check(&good.replacen("\nadd:", "\nadd: Nop_new 200", 1)).len() == 1);
        assert!(check(&page(&evidence(ENOUGH - 1))).len() > 2000);
    }
}
