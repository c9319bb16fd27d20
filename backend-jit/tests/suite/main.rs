//! Host code against the plain reading of the op table, over random blocks; ends and links.
#![cfg(all(target_arch = "x86_64", unix))]

#[allow(dead_code)]
#[path = "../../../emu-core/tests/suite/machine.rs"]
mod machine;
#[path = "../../../emu-core/tests/suite/random.rs"]
mod random;
#[allow(dead_code)]
#[path = "../../../emu-core/tests/suite/toy.rs"]
mod toy;

mod blocks;
mod links;
mod quick;
mod regions;
mod vectors;
mod x87;
