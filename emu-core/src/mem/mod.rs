//! Guest memory: RAM, the physical address space over it, and the soft TLB.

pub mod phys;
pub mod ram;
pub mod tlb;

pub use phys::{DeviceRam, Memory, PhysMem};
pub use ram::GuestRam;
