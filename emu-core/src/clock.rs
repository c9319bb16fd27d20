//! Two clocks behind one interface: host time, and instruction-count time, in which one
//! instruction takes one nanosecond and the same input gives the same run, bit for bit.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// Frequency of the guest's time-stamp counter in Hz: it counts the nanoseconds of [`Clock`].
pub const TSC_HZ: u64 = 1_000_000_000;

/// The machine's clock, in nanoseconds since the machine was made.
#[derive(Debug)]
pub enum Clock {
    /// Follows the host's monotonic clock.
    Host(Instant),
    /// Follows the number of instructions executed (plus the time skipped while halted).
    Icount(AtomicU64),
}

impl Clock {
    /// A clock that starts at zero now and follows the host's.
    pub fn host() -> Clock {
        Clock::Host(Instant::now())
    }

    /// A clock that starts at zero and moves only by [`set`](Self::set).
    pub fn icount() -> Clock {
        Clock::Icount(AtomicU64::new(0))
    }

    /// Nanoseconds since the start.
    pub fn now(&self) -> u64 {
        match self {
            Clock::Host(start) => start.elapsed().as_nanos() as u64,
            Clock::Icount(ns) => ns.load(Relaxed),
        }
    }

    /// Moves an instruction-count clock to `ns`; a host clock is left alone.
    pub fn set(&self, ns: u64) {
        if let Clock::Icount(t) = self {
            t.store(ns, Relaxed);
        }
    }

    /// Whether this is instruction-count time.
    pub fn is_icount(&self) -> bool {
        matches!(self, Clock::Icount(_))
    }
}
