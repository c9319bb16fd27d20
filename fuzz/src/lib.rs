//! What the fuzz targets share: how a fuzzer's bytes become a mode, a CPU model and guest code.

pub mod machine;
pub mod tiers;

use emu_core::cpu::mode;
use emu_core::uop::Block;
use emu_core::verify::verify_with;
use frontend_x86::lift::{MAX_INSNS, lift_bytes};
use frontend_x86::model::MODELS;

/// Splits the first `N` bytes off; `None` when there are fewer.
pub fn head<const N: usize>(data: &[u8]) -> Option<([u8; N], &[u8])> {
    data.split_first_chunk().map(|(head, rest)| (*head, rest))
}

/// A mode that a CPU can be in.
pub fn mode_of(bytes: [u8; 2]) -> u32 {
    use mode::*;
    // The upper byte's last bit is that of what lies beyond 16 bits.
    let m = u32::from(u16::from_le_bytes(bytes));
    let audit = if m & 1 << 15 != 0 { AUDIT } else { 0 };
    let common = audit | m & (USER | SSE | TS | EM | AVX | ALIGN | SINGLE);
    common
        | match m & 3 {
            0 => CODE64 | LONG | FLAT,
            1 => CODE32 | m & (STACK32 | FLAT | CPL12 | LONG | CS_LIMIT),
            2 => m & (STACK32 | FLAT | CPL12 | CS_LIMIT),
            _ => REAL | m & VM86,
        }
}

/// Lifts guest `bytes` for a mode and CPU features that their first bytes choose.
pub fn lift(data: &[u8]) -> Option<Block> {
    let ([a, b, features], code) = head(data)?;
    let features = match features {
        0..0x40 => 0,
        0x40..0x80 => u128::MAX,
        n => MODELS[usize::from(n) % MODELS.len()].features.0,
    };
    let (block, _) = lift_bytes(code, mode_of([a, b]), features, MAX_INSNS);
    (!block.insns.is_empty()).then_some(block)
}

/// Helpers that raise a fault or fill a vector temporary, and change nothing else.
const QUIET: &[&str] = &["mmx_read", "x87_check", "check_port", "count"];

/// Asserts that `block` keeps the verifier's rules.
pub fn check(block: &Block, when: &str) {
    if let Err(e) = verify_with(block, QUIET) {
        panic!("{when}: {e}\n{block}");
    }
}
