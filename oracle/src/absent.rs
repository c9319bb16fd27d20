//! The oracle on hosts that have none: it says so.

use crate::{Absent, Judged, Sample};

/// A worker process that runs samples on the real CPU; never exists on this host.
pub struct Oracle(std::convert::Infallible);

impl Oracle {
    /// Says that there is none.
    ///
    /// # Errors
    /// Always [`Absent::Host`].
    pub fn new() -> Result<Oracle, Absent> {
        Err(Absent::Host)
    }

    /// Most samples of a batch.
    pub const BATCH: usize = 256;

    /// Hands a batch over; there is nobody to take it.
    pub fn start(&mut self, _: &[Sample]) {
        match self.0 {}
    }

    /// What became of the batch.
    pub fn finish(&mut self) -> Vec<Judged> {
        match self.0 {}
    }

    /// Runs one sample.
    pub fn run(&mut self, _: &Sample) -> Judged {
        match self.0 {}
    }
}
