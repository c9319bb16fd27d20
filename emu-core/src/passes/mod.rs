//! Passes over canonical blocks, one per file. Each keeps what a fault or interrupt could see.

pub mod dead_flags;
pub mod fold;

use crate::uop::Block;

/// All passes, in the order that pays.
pub fn run(block: &mut Block) {
    fold::run(block);
    dead_flags::run(block);
}
