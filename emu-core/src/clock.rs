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
    Host {
        /// When the machine was made.
        start: Instant,
        /// Nanoseconds for which it stood still since.
        held: AtomicU64,
    },
    /// Follows the number of instructions executed (plus the time skipped while halted).
    Icount(AtomicU64),
}

impl Clock {
    /// A clock that starts at zero now and follows the host's.
    pub fn host() -> Clock {
        Clock::Host { start: Instant::now(), held: AtomicU64::new(0) }
    }

    /// A clock that starts at zero and moves only by [`set`](Self::set).
    pub fn icount() -> Clock {
        Clock::Icount(AtomicU64::new(0))
    }

    /// Nanoseconds since the start.
    pub fn now(&self) -> u64 {
        match self {
            Clock::Host { start, held } => {
                (start.elapsed().as_nanos() as u64).saturating_sub(held.load(Relaxed))
            }
            Clock::Icount(ns) => ns.load(Relaxed),
        }
    }

    /// Moves an instruction-count clock to `ns`; a host clock is left alone.
    pub fn set(&self, ns: u64) {
        if let Clock::Icount(t) = self {
            t.store(ns, Relaxed);
        }
    }

    /// Takes a host clock back to `ns`: the time since then shall not have passed.
    pub fn hold(&self, ns: u64) {
        if let Clock::Host { held, .. } = self {
            held.fetch_add(self.now().saturating_sub(ns), Relaxed);
        }
    }

    /// Whether this is instruction-count time.
    pub fn is_icount(&self) -> bool {
        matches!(self, Clock::Icount(_))
    }
}
