//! Signals that end a run: the machine stops, the terminal is restored, the status is 128 + n.

use crate::ending::Ending;
use crate::{status, terminal};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};
use std::{fs, io, thread};

/// While this lives, signals end the run.
#[derive(Debug)]
pub struct SignalGuard(Handle);

impl SignalGuard {
    /// Lets signals end the run of `ending`, except those that the parent made us ignore (nohup(1),
    /// a shell's background jobs).
    pub fn new(ending: Ending) -> io::Result<SignalGuard> {
        let ignored = ignored(&fs::read_to_string("/proc/self/status").unwrap_or_default());
        let caught = [SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGCONT];
        let mut signals =
            Signals::new(caught.into_iter().filter(|signal| ignored >> (signal - 1) & 1 == 0))?;
        let guard = SignalGuard(signals.handle());
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for signal in signals.forever() {
                match signal {
                    SIGCONT => terminal::resume(),
                    _ => ending.end(status::SIGNAL + signal as u8),
                }
            }
        })?;
        Ok(guard)
    }
}

impl Drop for SignalGuard {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The ignored signals in proc(5)'s `status`, a bit each: signal 1 is bit 0.
fn ignored(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read() {
        assert_eq!(ignored("Name:\tx\nSigIgn:\t0000000000001003\nSigCgt:\t0\n"), 0x1003);
        assert_eq!(ignored(""), 0);
    }
}
