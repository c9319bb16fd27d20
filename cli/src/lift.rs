//! `ring3 lift`: what machine code means, as instructions and as micro-ops.

use crate::options::{CPU, CpuChoice, parse_cpu, usage};
use crate::print;
use anyhow::Context;
use clap::ValueEnum;
use emu_core::cpu::mode;
use emu_core::passes;
use frontend_x86::lift::{MAX_INSNS, lift_bytes};
use machine::HostCode;
use std::fmt::Write as _;
use std::io::{self, Read};

/// Show the micro-ops of machine code
///
/// The code is hexadecimal text (spaces, commas, 0x and \x are ignored) in the arguments or on
/// standard input. Input that is no such text is taken as the bytes themselves.
#[derive(Debug, clap::Args)]
pub struct Lift {
    /// Code size
    #[arg(long, value_enum, default_value = "64")]
    pub bits: Bits,

    /// CPU model that the code is for; help lists them
    #[arg(long, value_name = "MODEL[,±FEATURE]…", default_value = CPU, value_parser = parse_cpu)]
    pub cpu: CpuChoice,

    /// Show the host code that is made of it, too; the micro-ops are then those that it is made
    /// of, after optimisation
    #[arg(long)]
    pub host: bool,

    /// Take standard input as bytes even if it looks like hexadecimal text
    #[arg(long, conflicts_with = "code")]
    pub raw: bool,

    /// Code in hexadecimal
    #[arg(value_name = "HEX")]
    pub code: Vec<String>,
}

/// Code size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)] // the names say it
pub enum Bits {
    #[value(name = "16")]
    B16,
    #[value(name = "32")]
    B32,
    #[value(name = "64")]
    B64,
}

impl Bits {
    /// The mode that code is lifted for: as a kernel runs.
    #[must_use]
    pub fn mode(self) -> u32 {
        match self {
            Bits::B16 => mode::REAL | mode::SSE | mode::AVX,
            Bits::B32 => mode::CODE32 | mode::STACK32 | mode::FLAT | mode::SSE | mode::AVX,
            Bits::B64 => mode::CODE64 | mode::LONG | mode::FLAT | mode::SSE | mode::AVX,
        }
    }
}

/// Bytes of code accepted at most.
const MAX_CODE: u64 = 1 << 20;

impl Lift {
    /// Runs the command; gives the exit status.
    ///
    /// # Errors
    /// One line for the user.
    pub fn run(self) -> anyhow::Result<u8> {
        let bytes = if self.code.is_empty() {
            let mut input = Vec::new();
            io::stdin().take(MAX_CODE).read_to_end(&mut input).context("cannot read the code")?;
            match hex(&String::from_utf8_lossy(&input)) {
                Some(bytes) if !self.raw => bytes,
                _ => input,
            }
        } else {
            let text = self.code.join(" ");
            match hex(&text) {
                Some(bytes) => bytes,
                None => return usage(format!("'{text}' is not hexadecimal")),
            }
        };
        if bytes.is_empty() {
            return usage("no code given, neither as an argument nor on standard input");
        }
        let host = if self.host { Some(HostCode::new()?) } else { None };
        print(&listing(&bytes, self.bits, self.cpu.model().features.0, host)).map(|()| 0)
    }
}

/// Reads pairs of hexadecimal digits; `None` if the text is anything else.
#[must_use]
pub fn hex(text: &str) -> Option<Vec<u8>> {
    let text = text.replace("0x", " ").replace("\\x", " ");
    let words = text.split(|c: char| c.is_ascii_whitespace() || c == ',');
    let mut bytes = Vec::new();
    for word in words {
        let digits: Vec<u8> =
            word.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect::<Option<_>>()?;
        if !digits.len().is_multiple_of(2) {
            return None;
        }
        bytes.extend(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]));
    }
    Some(bytes)
}

/// Instructions of `bytes`, each with its micro-ops, for a CPU with `features`, and with the code
/// that `host` makes of each block.
#[must_use]
pub fn listing(bytes: &[u8], bits: Bits, features: u128, mut host: Option<HostCode>) -> String {
    let mode = bits.mode();
    let mut text = String::new();
    let mut at = 0;
    while at < bytes.len() {
        let (mut block, _) = lift_bytes(&bytes[at..], mode, features, MAX_INSNS);
        if block.insns.is_empty() {
            let _ = writeln!(text, "{at:04x}  the code ends within an instruction");
            return text;
        }
        let lines = host.as_mut().map_or_else(Vec::new, |host| {
            passes::run(&mut block);
            host.of(&block, mode)
        });
        text += &machine::listing(&block, &bytes[at..], at as u64, mode, &lines);
        at += (block.len as usize).max(1);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const V3: u128 = frontend_x86::sys::cpuid::Features::X86_64_V3.0;

    #[test]
    fn hexadecimal_text() {
        assert_eq!(hex("48 01 d8 0f 05\n"), Some(vec![0x48, 1, 0xd8, 0xf, 5]));
        assert_eq!(hex("4801D8,0x0f,0x05"), Some(vec![0x48, 1, 0xd8, 0xf, 5]));
        assert_eq!(hex("\\x48\\x01"), Some(vec![0x48, 1]));
        assert_eq!(hex(""), Some(vec![]));
        for bad in ["4", "48 1", "zz", "4é"] {
            assert_eq!(hex(bad), None, "{bad}");
        }
    }

    #[test]
    fn every_instruction_is_listed_with_its_micro_ops() {
        let text = listing(&[0x48, 0x01, 0xd8, 0x0f, 0x05], Bits::B64, V3, None);
        let insns: Vec<&str> = text.lines().filter(|l| !l.starts_with(' ')).collect();
        assert!(insns[0].contains("48 01 d8") && insns[0].contains("add rax,rbx"), "{text}");
        assert!(insns[1].starts_with("0003") && insns[1].contains("syscall"), "{text}");
        assert_eq!(insns.len(), 2);
        assert!(text.lines().any(|l| l.trim().starts_with("add.64 rax, rax, rbx")), "{text}");
    }

    #[test]
    fn no_bytes_are_too_strange() {
        for bits in [Bits::B16, Bits::B32, Bits::B64] {
            for first in 0..=255 {
                let text = listing(&[first, 0xff, 0x0f, first, 0x66, 0xf0], bits, V3, None);
                assert!(text.lines().count() > 0);
            }
        }
        assert!(listing(&[0x48], Bits::B64, V3, None).contains("ends within"));
    }
}
