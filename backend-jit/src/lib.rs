//! The backend: micro-ops → host code. This crate holds its interface today; the interpreter in
//! `emu-core` runs every block.
//!
//! A backend takes what the interpreter takes: a [`Block`] that has been through the passes, and
//! the layout of [`Cpu`]. It gives a [`Translation`]: code for the host and a table from places in
//! it back to guest instructions, so that a fault in the middle has an exact RIP. It knows no x86
//! behaviour: what an op means is the op table's `eval`, what a helper does is the helper's. An op
//! that it has no emitter for calls `eval`; so a new op works everywhere at once.
#![forbid(unsafe_code)]

use emu_core::cpu::Cpu;
use emu_core::uop::Block;

/// Host code of one block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Translation {
    /// Position-independent host instructions.
    pub code: Vec<u8>,
    /// For each place that can fault: offset of the host instruction after it, and the guest
    /// instruction (an index into [`Block::insns`]).
    pub faults: Vec<(u32, u16)>,
}

/// A code generator for one host architecture.
pub trait Backend: Send {
    /// The host it generates for, as Rust names the architecture (`x86_64`, `aarch64`).
    fn host(&self) -> &'static str;

    /// Translates a block for a CPU whose state is laid out as [`Cpu`].
    fn translate(&mut self, cpu: &Cpu, block: &Block) -> Translation;
}

/// The backend for the host this program runs on, if there is one: none yet.
pub fn native() -> Option<Box<dyn Backend>> {
    None
}
