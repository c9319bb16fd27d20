//! Signals that end a run: the machine stops, the terminal is restored, the status is 128 + n.

use crate::{status, terminal};
use machine::Control;
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

/// How long a machine may take to stop, for instance while its output is blocked.
const PATIENCE: Duration = Duration::from_secs(1);

/// While this lives, signals stop the machine.
#[derive(Debug)]
pub struct SignalGuard {
    handle: Handle,
    first: Arc<AtomicI32>,
}

impl SignalGuard {
    /// Lets signals stop the machine behind `control`.
    pub fn new(control: Control) -> io::Result<SignalGuard> {
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGCONT])?;
        let guard = SignalGuard { handle: signals.handle(), first: Arc::default() };
        let first = guard.first.clone();
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for signal in signals.forever() {
                if signal == SIGCONT {
                    terminal::resume();
                    continue;
                }
                first.store(signal, Relaxed);
                control.stop();
                thread::sleep(PATIENCE);
                terminal::restore();
                std::process::exit(exit_status(signal).into());
            }
        })?;
        Ok(guard)
    }

    /// The status to exit with if a signal has come.
    pub fn status(&self) -> Option<u8> {
        match self.first.load(Relaxed) {
            0 => None,
            signal => Some(exit_status(signal)),
        }
    }
}

impl Drop for SignalGuard {
    fn drop(&mut self) {
        self.handle.close();
    }
}

fn exit_status(signal: i32) -> u8 {
    status::SIGNAL + signal as u8
}
