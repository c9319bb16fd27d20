//! Boots a kernel, prints what it writes to its first serial port, and says how it ended:
//! `cargo run --release -p machine --example boot -- vmlinuz initrd.gz "console=ttyS0 panic=-1"`

use machine::{Boot, Kernel, Machine, MachineConfig};
use std::time::Duration;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().ok_or("usage: boot KERNEL [INITRD [COMMAND-LINE]]")?;
    let kernel = Kernel {
        image: std::fs::read(&name)?,
        initrd: arguments.next().map(std::fs::read).transpose()?,
        cmdline: arguments.next().unwrap_or("console=ttyS0 panic=-1".to_owned()),
        name,
        ..Kernel::default()
    };
    let config = MachineConfig { no_reboot: true, ..MachineConfig::new(Boot::Kernel(kernel)) };
    let mut pc = Machine::new(config)?;
    pc.connect_serial(0, Box::new(std::io::stdout()));
    let outcome = pc.run(Some(Duration::from_secs(120)))?;
    println!("the machine ended: {outcome:?}");
    Ok(())
}
