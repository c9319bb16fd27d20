//! The chips of a PC, one file each.
//!
//! A chip is a plain struct of registers. It knows no CPU, no other chip, no port base, no thread
//! and no host I/O; the board (crate `machine`) wires them. All chips follow one convention:
//!
//! - `read(now, reg) -> u8` and `write(now, reg, value)`: `reg` counts from the chip's first
//!   register, `now` is nanoseconds since machine start and never runs backwards (left out where
//!   time plays no part). Registers are byte-wide unless the file says otherwise; the board splits
//!   and joins wider accesses.
//! - Outputs are pure queries after each access: `irq()` is the level of the pin. Where a level can
//!   drop and rise again inside one access, `take_edges()` tells of the rises, so that an
//!   edge-triggered interrupt controller misses none.
//! - `deadline()` is the next `now` at which an output may change by itself; `advance(now)` brings
//!   the chip there. Every access does so too.
//! - No register access, whatever its values, panics.

pub mod acpi_pm;
pub mod debugcon;
pub mod disk;
pub mod fw_cfg;
pub mod hpet;
pub mod i8042;
pub mod i82077;
pub mod i8237;
pub mod i8254;
pub mod i8259;
pub mod ide;
pub mod ioapic;
pub mod isa_debug_exit;
pub mod lapic;
pub mod mc146818;
pub mod nvme;
mod one_request;
pub mod pc_testdev;
pub mod pci;
pub mod pci_host;
pub mod piix;
pub mod post_port;
pub mod uart16550;
pub mod vga;
pub mod virtio;

#[cfg(test)]
mod test_disk;

#[cfg(test)]
pub(crate) mod testing {
    //! A small generator of repeatable pseudo-random accesses (xorshift64*).

    pub(crate) struct Rng(pub(crate) u64);

    impl Rng {
        pub(crate) fn next(&mut self) -> u64 {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
        }

        pub(crate) fn below(&mut self, bound: u64) -> u64 {
            self.next() % bound
        }
    }
}
