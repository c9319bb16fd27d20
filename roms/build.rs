//! Assembles the demo ROM into `OUT_DIR/demo.rom`; `src/demo/mod.rs` says how.

#[path = "src/demo/mod.rs"]
mod demo;
#[path = "src/layout.rs"]
mod layout;

use std::{env, error::Error, fs, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/demo");
    println!("cargo::rerun-if-changed=src/layout.rs");
    let rom = demo::assemble()?;
    fs::write(Path::new(&env::var("OUT_DIR")?).join("demo.rom"), rom)?;
    Ok(())
}
