//! What a virtual CPU sees of the machine around it: memory-mapped and port I/O, its local APIC,
//! and interrupt requests. The PC implements it (crate `machine`); tests implement small ones.

use std::sync::atomic::AtomicBool;

/// The machine as one CPU sees it. Addresses are guest-physical; `size` is 1, 2, 4 or 8 bytes;
/// values are zero-extended. What nobody answers reads as all ones and ignores writes.
pub trait Platform: Send + Sync {
    /// Reads `size` bytes of a device at `pa`.
    fn mmio_read(&self, pa: u64, size: u8) -> u64;
    /// Writes `size` bytes to a device at `pa`.
    fn mmio_write(&self, pa: u64, size: u8, value: u64);
    /// IN: `size` is 1, 2 or 4.
    fn port_in(&self, port: u16, size: u8) -> u32;
    /// OUT: `size` is 1, 2 or 4.
    fn port_out(&self, port: u16, size: u8, value: u32);
    /// RDMSR of an MSR that belongs to the local APIC (`IA32_APIC_BASE`, `IA32_TSC_DEADLINE`, the
    /// x2APIC range); `None` means #GP. `tsc` is the guest's current time-stamp counter.
    fn apic_msr_read(&self, msr: u32, tsc: u64) -> Option<u64>;
    /// WRMSR of an MSR that belongs to the local APIC; `None` means #GP.
    fn apic_msr_write(&self, msr: u32, value: u64, tsc: u64) -> Option<()>;
    /// The guest wrote its time-stamp counter, which is `tsc` now: an armed deadline moves.
    fn tsc_written(&self, _tsc: u64) {}
    /// Task priority as CR8 shows it, 0–15.
    fn tpr(&self) -> u8;
    /// Sets the task priority from CR8.
    fn set_tpr(&self, value: u8);
    /// Whether a maskable interrupt is requested now.
    fn interrupt_pending(&self) -> bool;
    /// A place to look at before [`interrupt_pending`](Self::interrupt_pending) is asked: while it
    /// is false none is requested. It stays as long as the machine does.
    fn request_flag(&self) -> &AtomicBool {
        static ASK: AtomicBool = AtomicBool::new(true);
        &ASK
    }
    /// Acknowledges the interrupt and gives its vector; `None` when the request went away.
    fn acknowledge(&self) -> Option<u8>;
    /// Whether there is an NMI to take.
    fn nmi_pending(&self) -> bool {
        false
    }
    /// Takes a pending NMI.
    fn take_nmi(&self) -> bool {
        false
    }
}

/// A machine without devices: reads give all ones, writes go nowhere, nothing interrupts.
#[derive(Debug, Default)]
pub struct NoDevices;

impl Platform for NoDevices {
    fn mmio_read(&self, _pa: u64, _size: u8) -> u64 {
        u64::MAX
    }
    fn mmio_write(&self, _pa: u64, _size: u8, _value: u64) {}
    fn port_in(&self, _port: u16, _size: u8) -> u32 {
        u32::MAX
    }
    fn port_out(&self, _port: u16, _size: u8, _value: u32) {}
    fn apic_msr_read(&self, _msr: u32, _tsc: u64) -> Option<u64> {
        None
    }
    fn apic_msr_write(&self, _msr: u32, _value: u64, _tsc: u64) -> Option<()> {
        None
    }
    fn tpr(&self) -> u8 {
        0
    }
    fn set_tpr(&self, _value: u8) {}
    fn interrupt_pending(&self) -> bool {
        false
    }
    fn acknowledge(&self) -> Option<u8> {
        None
    }
}
