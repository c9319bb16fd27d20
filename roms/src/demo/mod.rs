//! The demo: a teaching kernel that goes from reset to two preempted ring-3 tasks and prints what
//! it measures on the way.
//!
//! One file tells one stage, in the order in which the CPU lives through them:
//!
//! | file | code | story |
//! |---|---|---|
//! | `real.rs` | 16-bit | reset, UART, A20, the IVT, the copy from ROM to RAM |
//! | `prot.rs` | 32-bit | GDT, exceptions, what ring 3 may see and do, page tables |
//! | `long.rs` | 64-bit | control registers, paging, self-modifying code, x87 and SSE2 |
//! | `timer.rs` | 64-bit | 8259 and 8254, HLT, the shadow of STI |
//! | `tasks.rs` | 64-bit | address spaces, SYSCALL, the scheduler |
//! | `user.rs` | 64-bit | the two programs at CPL 3 |
//!
//! `assembler.rs` is the tool they share, `print.rs` the one text-output routine (the same source
//! assembled for all three modes), `tables.rs` the descriptor tables.
//!
//! Addresses that code loads as numbers (texts, gates, jumps between stages) are only known once
//! everything is assembled. So all of it is assembled again and again, each time with the
//! addresses found before, until they no longer change.

mod assembler;
mod long;
mod print;
mod prot;
mod real;
mod tables;
mod tasks;
mod timer;
mod user;

use crate::layout::*;
use assembler::{Stage, Symbols};
use iced_x86::IcedError;

/// The finished ROM image.
pub fn assemble() -> Result<Vec<u8>, IcedError> {
    let mut symbols = Symbols::default();
    for _ in 0..5 {
        let (rom, found) = pass(&symbols)?;
        if found == symbols {
            return Ok(rom);
        }
        symbols = found;
    }
    panic!("the addresses do not settle: the length of some code depends on its own address");
}

/// Assembles everything once, on the `known` addresses; returns the image and the true addresses.
fn pass(known: &Symbols) -> Result<(Vec<u8>, Symbols), IcedError> {
    let image_high = KERNEL_BASE + u64::from(IMAGE);
    // Where the code runs, the room it has, who writes it.
    type Writer = fn(&mut Stage) -> Result<(), IcedError>;
    let user = u64::from(USER_CODE);
    let stages: [(&'static str, u32, u32, u64, u32, Writer); 5] = [
        ("real", 16, REAL, u64::from(REAL), PROT, real::write),
        ("prot", 32, PROT, u64::from(IMAGE + PROT), LONG, prot::write),
        ("long", 64, LONG, image_high + u64::from(LONG), USER_A, long::write),
        ("a", 64, USER_A, user, USER_B, user::write_a),
        ("b", 64, USER_B, user, GDT, user::write_b),
    ];
    let mut rom = vec![0xFF; ROM_SIZE];
    let mut found = Symbols::default();
    let mut place = |offset: u32, end: u32, bytes: &[u8]| {
        let start = offset as usize;
        assert!(start + bytes.len() <= end as usize, "what is at {offset:#x} runs over {end:#x}");
        rom[start..start + bytes.len()].copy_from_slice(bytes);
    };
    for (name, bits, offset, ip, end, write) in stages {
        let mut stage = Stage::new(name, bits, known)?;
        write(&mut stage)?;
        place(offset, end, &stage.finish(ip, &mut found)?);
    }
    for (offset, end, bytes) in tables::all(known) {
        place(offset, end, &bytes);
    }
    Ok((rom, found))
}
