//! The backend: micro-ops → host code.
//!
//! It takes what the interpreter takes: a [`Block`](emu_core::uop::Block) that has been through the
//! passes, and the layout of [`Cpu`](emu_core::cpu::Cpu). What it gives and how it is entered,
//! linked and left is said in [`emu_core::native`]. It knows no x86 behaviour: what an op means is
//! the op table's `eval`, what a helper does is the helper's. An op that it has no emitter for is
//! called in its canonical form; so a new op works everywhere at once.

use emu_core::native::Translator;

#[cfg(all(target_arch = "x86_64", unix))]
mod code_buffer;
#[cfg(all(target_arch = "x86_64", unix))]
mod enter;
#[cfg(all(target_arch = "x86_64", unix))]
pub mod x64;

/// The generator for the host this program runs on, if there is one and the host gives memory for
/// code.
#[cfg(all(target_arch = "x86_64", unix))]
pub fn native() -> Option<Box<dyn Translator>> {
    Some(Box::new(x64::X64::new(x64::BUFFER).ok()?))
}

/// The generator for the host this program runs on: none.
#[cfg(not(all(target_arch = "x86_64", unix)))]
pub fn native() -> Option<Box<dyn Translator>> {
    None
}
