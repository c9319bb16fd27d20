//! Ends of a run that come from outside: a signal, a key, a terminal that is gone, the timeout.
//!
//! The first of them stops the machine and decides the exit status. A machine that does not stop,
//! because its output is blocked, is left where it is: the process restores the terminal and exits.

use crate::{status, terminal};
use machine::Control;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

/// How long a machine may take to stop.
const PATIENCE: Duration = Duration::from_secs(1);
/// No exit status.
const NONE: u16 = u16::MAX;

/// What ends one run from outside; clones are the same.
#[derive(Clone, Debug)]
pub struct Ending(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    control: Control,
    status: AtomicU16,
    over: AtomicBool,
}

impl Ending {
    /// For the machine behind `control`.
    pub fn new(control: Control) -> Ending {
        let (status, over) = (AtomicU16::new(NONE), AtomicBool::new(false));
        Ending(Arc::new(Shared { control, status, over }))
    }

    /// Ends the run with `status`, if nothing else does. For threads that have nothing else to do:
    /// it waits, and ends the process when the machine does not stop.
    pub fn end(&self, status: u8) {
        let _ = self.0.status.compare_exchange(NONE, status.into(), SeqCst, SeqCst);
        self.0.control.stop();
        thread::sleep(PATIENCE);
        if !self.0.over.swap(true, SeqCst) {
            terminal::restore();
            // What blocks the output may block this, too.
            let stderr = io::stderr();
            let mut ready = [PollFd::new(&stderr, PollFlags::OUT)];
            if poll(&mut ready, Some(&Timespec::default())) == Ok(1) {
                self.explain();
            }
            std::process::exit(self.status().unwrap_or(status).into());
        }
    }

    /// As [`end`](Self::end) with [`status::TIMEOUT`] when `time` has passed.
    pub fn end_after(&self, time: Duration) -> io::Result<()> {
        let ending = self.clone();
        let wait = move || {
            thread::sleep(time);
            ending.end(status::TIMEOUT);
        };
        thread::Builder::new().name("timeout".to_owned()).spawn(wait).map(drop)
    }

    /// The machine has stopped: gives the exit status if it was ended from outside.
    pub fn over(&self) -> Option<u8> {
        self.0.over.store(true, SeqCst);
        self.explain();
        self.status()
    }

    /// Whether something from outside ends the run.
    pub fn asked(&self) -> bool {
        self.status().is_some()
    }

    fn status(&self) -> Option<u8> {
        u8::try_from(self.0.status.load(SeqCst)).ok()
    }

    /// Says what the user cannot know: signals and keys were theirs.
    fn explain(&self) {
        if self.status() == Some(status::TIMEOUT) {
            say!("ring3: the time is up");
        }
    }
}
