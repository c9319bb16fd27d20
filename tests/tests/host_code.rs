//! The host code of chosen blocks, and how much of it there is for a corpus of compiled code, are
//! as the files in `host_code` say: a change of the generator shows there, in review.
//!
//! `BLESS=1 cargo test --release -p ring3-tests --test host_code` writes the files anew. The first
//! line of each is the command whose output the others are; a new file needs only that line. The
//! corpus is blocks of `bench-guest`, a line each, as hexadecimal text.

use frontend_x86::lift::{MAX_INSNS, lift_bytes};
use iced_x86::{Decoder, DecoderOptions};
use machine::{CpuModel, HostCode};
use ring3::lift::{Bits, hex, listing};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

const HOW: &str = "if that is meant: BLESS=1 cargo test --release -p ring3-tests --test host_code";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("host_code")
}

/// The generator. None on a host without one, or whose CPU lacks what it makes use of.
fn host() -> Option<HostCode> {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
    {
        return HostCode::new().ok();
    }
    None
}

/// Compares `text` with the file at `path`, or writes it there.
fn check(path: &Path, text: &str) {
    let old = fs::read_to_string(path).unwrap_or_default();
    if std::env::var_os("BLESS").is_some() {
        fs::write(path, text).unwrap();
        return;
    }
    let lines = old.lines().zip(text.lines()).enumerate();
    let line = lines.filter(|(_, (a, b))| a != b).map(|(n, _)| n + 1).next();
    assert!(old == text, "{}, line {line:?}, differs; {HOW}\n{text}", path.display());
}

#[test]
fn chosen_blocks() {
    let Some(_) = host() else { return };
    let mut files = 0;
    for entry in fs::read_dir(folder().join("blocks")).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let command = text.lines().next().unwrap_or_default();
        let words = command.strip_prefix("$ ring3 lift --host --bits ");
        let words = words.unwrap_or_else(|| panic!("{}: {command}", path.display()));
        let (bits, code) = words.split_once(' ').unwrap();
        let bits = if bits == "64" { Bits::B64 } else { Bits::B32 };
        let code = hex(code).unwrap_or_else(|| panic!("{}: {code}", path.display()));
        let text = listing(&code, bits, CpuModel::default().features.0, host());
        check(&path, &format!("{command}\n{text}"));
        files += 1;
    }
    assert!(files >= 12, "{files} files");
}

#[test]
fn host_instructions_of_a_corpus() {
    let Some(mut host) = host() else { return };
    let (mode, features) = (Bits::B64.mode(), CpuModel::default().features.0);
    // By mnemonic: guest instructions, host instructions in line.
    let mut rows: BTreeMap<String, [usize; 2]> = BTreeMap::new();
    let (mut blocks, mut cold) = (0, 0);
    for line in fs::read_to_string(folder().join("corpus.hex")).unwrap().lines() {
        let bytes = hex(line).unwrap();
        let mut at = 0;
        while at < bytes.len() {
            let (mut block, _) = lift_bytes(&bytes[at..], mode, features, MAX_INSNS);
            assert!(block.len > 0, "{line} ends within an instruction");
            emu_core::passes::run(&mut block);
            let lines = host.of(&block, mode);
            for (n, mark) in block.insns.iter().enumerate() {
                let code = &bytes[at + usize::from(mark.offset)..];
                let insn = Decoder::new(64, code, DecoderOptions::NONE).decode();
                let row = rows.entry(format!("{:?}", insn.mnemonic()).to_lowercase()).or_default();
                row[0] += 1;
                row[1] += lines.iter().filter(|l| l.insn == n && !l.cold).count();
            }
            cold += lines.iter().filter(|l| l.cold).count();
            blocks += 1;
            at += block.len as usize;
        }
    }
    let [guest, inline] = [0, 1].map(|i| rows.values().map(|r| r[i]).sum::<usize>());
    let each = |n: usize, of: usize| n as f64 / of as f64;
    let mut text = format!(
        "{blocks} blocks, {guest} guest instructions\n{inline} host instructions in line, {:.2} \
         each\n{cold} out of line, {:.2} each\n\n{:<12}{:>6}{:>8}{:>8}\n",
        each(inline, guest),
        each(cold, guest),
        "",
        "guest",
        "host",
        "each"
    );
    for (name, [n, host]) in rows {
        let _ = writeln!(text, "{name:<12}{n:>6}{host:>8}{:>8.2}", each(host, n));
    }
    check(&folder().join("corpus.txt"), &text);
}
