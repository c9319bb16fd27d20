//! The `ring3` program.
fn main() {}
