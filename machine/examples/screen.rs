//! Boots a ROM with a VGA for some seconds and prints the text on the screen:
//! `screen ROM VGABIOS SECONDS`.
use machine::{Boot, Machine, MachineConfig};
use std::time::Duration;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let a: Vec<String> = std::env::args().skip(1).collect();
    let vga = Some(std::fs::read(&a[1])?.into());
    let mut m = Machine::new(MachineConfig { vga, ..MachineConfig::new(Boot::Rom(std::fs::read(&a[0])?)) })?;
    let end = m.run(Some(Duration::from_secs(a[2].parse()?)))?;
    println!("{end:?}");
    if let Some(t) = m.board().text_screen() {
        for row in t.cells.chunks(t.columns) {
            let line: String = row.iter().map(|&(c, _)| if (32..127).contains(&c) { c as char } else { ' ' }).collect();
            println!("|{}", line.trim_end());
        }
    }
    let f = m.board().screen().unwrap();
    println!("{}x{}", f.width, f.height);
    Ok(())
}
