//! Boots a PC for some seconds and prints the text on the screen: `screen SECONDS DRIVE…`.
use machine::{Boot, Machine, MachineConfig};
use std::time::Duration;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let a: Vec<String> = std::env::args().skip(1).collect();
    let vga = Some(std::fs::read("/usr/share/seabios/vgabios-stdvga.bin")?.into());
    let bios = std::fs::read("/usr/share/seabios/bios-256k.bin")?;
    let drives = a[1..].iter().map(|d| d.parse()).collect::<Result<_, _>>()?;
    let mut m = Machine::new(MachineConfig { vga, drives, ..MachineConfig::new(Boot::Rom(bios)) })?;
    m.connect_firmware_log(Box::new(std::io::stderr()));
    m.connect_serial(0, Box::new(std::io::stderr()));
    let end = m.run(Some(Duration::from_secs(a[0].parse()?)))?;
    println!("{end:?}");
    if let Some(t) = m.board().text_screen() {
        for row in t.cells.chunks(t.columns) {
            let line: String = row
                .iter()
                .map(|&(c, _)| if (32..127).contains(&c) { c as char } else { ' ' })
                .collect();
            println!("|{}", line.trim_end());
        }
    }
    let f = m.board().screen().unwrap();
    println!("{}x{}", f.width, f.height);
    Ok(())
}
