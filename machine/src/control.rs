//! The host's hold on a running machine: stop it, send it serial input, wake it from HLT.
//!
//! A machine runs on the thread that called [`Machine::run`](crate::Machine::run); signal
//! handlers' threads and terminals act on it through a [`Control`], any number of clones of it.
//! Invariant: whoever changes something that a halted machine must look at sets `woken` under the
//! lock, so that no wake-up is lost between the machine's last look and its sleep.

use crate::machine::Machine;
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Serial ports that the machine has: COM1 and COM2.
pub const SERIAL_PORTS: usize = 2;
/// Bytes of input that [`Control::send_paced`] lets wait for the guest.
const PACED: usize = 4096;

/// A handle on a machine; clones are the same handle.
#[derive(Clone, Debug, Default)]
pub struct Control(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    any_input: AtomicBool,
    /// There are jobs, or the machine is paused.
    jobs: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    woken: bool,
    input: [VecDeque<u8>; SERIAL_PORTS],
    keys: VecDeque<Key>,
    mouse: Vec<Mouse>,
    jobs: VecDeque<Job>,
    paused: bool,
}

/// Something to do with the machine between two slices, on its own thread.
struct Job(Box<dyn FnOnce(&mut Machine) + Send>);

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("Job")
    }
}

/// A key of the host goes down (or repeats) or up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Set 1 make code, with 0xE0 in the high byte for keys that have that prefix.
    pub code: u16,
    /// Down.
    pub pressed: bool,
}

/// The host's mouse moves, or its buttons change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mouse {
    /// Counts to the right and up.
    pub motion: (i32, i32),
    /// Bit 0 left, 1 right, 2 middle.
    pub buttons: u8,
}

/// Keys that may wait for the guest; more are lost, as on a keyboard.
const KEYS: usize = 1024;

impl Control {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the machine stop soon: its run ends with [`Outcome::Stopped`](crate::Outcome).
    pub fn stop(&self) {
        self.0.stop.store(true, Relaxed);
        self.state().woken = true;
        self.0.changed.notify_all();
    }

    /// Whether [`stop`](Self::stop) was called.
    #[must_use]
    pub fn stopped(&self) -> bool {
        self.0.stop.load(Relaxed)
    }

    /// Queues `bytes` for serial port `port` (0 is COM1). Never blocks and never drops: the guest
    /// takes them at its own pace. A port that does not exist is ignored.
    pub fn send(&self, port: usize, bytes: &[u8]) {
        let mut state = self.state();
        if let Some(queue) = state.input.get_mut(port) {
            queue.extend(bytes);
            state.woken = true;
            self.0.any_input.store(true, Relaxed);
            self.0.changed.notify_all();
        }
    }

    /// Queues keys for the guest's keyboard, which takes them at its own pace.
    pub fn press(&self, keys: impl IntoIterator<Item = Key>) {
        let mut state = self.state();
        let room = KEYS.saturating_sub(state.keys.len());
        state.keys.extend(keys.into_iter().take(room));
        self.input(state);
    }

    /// Queues what the mouse does.
    pub fn point(&self, mouse: Mouse) {
        let mut state = self.state();
        let room = state.mouse.len() < KEYS;
        match state.mouse.last_mut() {
            // Motion adds up while nobody looks.
            Some(last) if last.buttons == mouse.buttons => {
                last.motion.0 = last.motion.0.saturating_add(mouse.motion.0);
                last.motion.1 = last.motion.1.saturating_add(mouse.motion.1);
            }
            _ if room => state.mouse.push(mouse),
            _ => {}
        }
        self.input(state);
    }

    /// Does `job` with the machine soon, between two slices and on its thread: for monitors, and
    /// for all that must see the machine stand still. A machine that does not run any more drops
    /// it.
    pub fn call(&self, job: impl FnOnce(&mut Machine) + Send + 'static) {
        let mut state = self.state();
        state.jobs.push_back(Job(Box::new(job)));
        self.0.jobs.store(true, Relaxed);
        state.woken = true;
        self.0.changed.notify_all();
    }

    /// Stops the guest's processor, or lets it go on; the guest's time stands still meanwhile.
    pub fn pause(&self, paused: bool) {
        let mut state = self.state();
        (state.paused, state.woken) = (paused, true);
        self.0.jobs.store(true, Relaxed);
        self.0.changed.notify_all();
    }

    /// Whether the machine is [paused](Self::pause).
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.state().paused
    }

    /// Takes the jobs that wait; `None` when there can be none.
    pub(crate) fn take_jobs(&self) -> Option<Vec<impl FnOnce(&mut Machine) + use<>>> {
        if !self.0.jobs.load(Relaxed) {
            return None;
        }
        let mut state = self.state();
        self.0.jobs.store(state.paused, Relaxed);
        Some(state.jobs.drain(..).map(|job| job.0).collect())
    }

    /// Makes a machine that sleeps look at its chips: a device's work on another thread is done.
    pub fn wake(&self) {
        self.state().woken = true;
        self.0.changed.notify_all();
    }

    fn input(&self, mut state: MutexGuard<'_, State>) {
        state.woken = true;
        self.0.any_input.store(true, Relaxed);
        self.0.changed.notify_all();
    }

    /// Gives waiting keys to `press` until it refuses, and the mouse's doings to `point`.
    pub(crate) fn take_keys(&self, mut press: impl FnMut(Key) -> bool, point: impl FnMut(Mouse)) {
        if !self.0.any_input.load(Relaxed) {
            return;
        }
        let mut state = self.state();
        while state.keys.front().is_some_and(|&key| press(key)) {
            state.keys.pop_front();
        }
        std::mem::take(&mut state.mouse).into_iter().for_each(point);
    }

    /// As [`send`](Self::send), but first waits until the guest has taken most of what was sent
    /// before, for input from a file; false when the machine was stopped meanwhile.
    #[must_use]
    pub fn send_paced(&self, port: usize, bytes: &[u8]) -> bool {
        let mut state = self.state();
        while !self.stopped() && state.input.get(port).is_some_and(|queue| queue.len() >= PACED) {
            state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        self.send(port, bytes);
        !self.stopped()
    }

    /// Whether input waits for serial port `port`.
    pub(crate) fn has_input(&self, port: usize) -> bool {
        self.0.any_input.load(Relaxed)
            && self.state().input.get(port).is_some_and(|queue| !queue.is_empty())
    }

    /// Gives waiting input to `push` byte by byte, each port until `push` refuses.
    pub(crate) fn receive(&self, mut push: impl FnMut(usize, u8) -> bool) {
        if !self.0.any_input.load(Relaxed) {
            return;
        }
        let mut state = self.state();
        for (port, queue) in state.input.iter_mut().enumerate() {
            while queue.front().is_some_and(|&byte| push(port, byte)) {
                queue.pop_front();
            }
        }
        let any = state.input.iter().any(|queue| !queue.is_empty());
        let any = any || !state.keys.is_empty() || !state.mouse.is_empty();
        self.0.any_input.store(any, Relaxed);
        self.0.changed.notify_all();
    }

    /// Sleeps until the machine is stopped, input is sent, or `until` has come.
    pub(crate) fn wait(&self, until: Option<Instant>) {
        let mut state = self.state();
        while !state.woken {
            let left = until.map(|t| t.saturating_duration_since(Instant::now()));
            state = match left {
                Some(left) if left.is_zero() => return,
                Some(left) => {
                    let waited = self.0.changed.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
        state.woken = false;
    }
}

/// Output kept in memory; clones are the same memory. For tests and for hosts that look at what
/// a guest prints.
#[derive(Clone, Debug, Default)]
pub struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Buffer {
    /// Everything written so far.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Everything written so far, as text; what is no UTF-8 is replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn take(control: &Control, room: usize) -> Vec<u8> {
        let mut got = Vec::new();
        control.receive(|port, byte| {
            let takes = port == 0 && got.len() < room;
            if takes {
                got.push(byte);
            }
            takes
        });
        got
    }

    #[test]
    fn input_waits_until_there_is_room() {
        let control = Control::default();
        control.send(0, b"abc");
        control.send(1, b"x");
        control.send(9, b"nowhere");
        assert_eq!(take(&control, 2), b"ab");
        assert_eq!(take(&control, 2), b"c");
        assert_eq!(take(&control, 2), b"");
    }

    #[test]
    fn a_wake_up_before_the_wait_is_not_lost() {
        let control = Control::default();
        control.send(0, b"a");
        control.wait(None);
        let before = Instant::now();
        control.wait(Some(before + Duration::from_millis(20)));
        assert!(before.elapsed() >= Duration::from_millis(20));
        control.stop();
        control.wait(None);
        assert!(control.stopped());
    }

    #[test]
    fn paced_input_ends_when_the_machine_stops() {
        let control = Control::default();
        assert!(control.send_paced(0, &[b'a'; PACED]));
        let sender = control.clone();
        let thread = std::thread::spawn(move || sender.send_paced(0, b"b"));
        std::thread::sleep(Duration::from_millis(10));
        control.stop();
        assert!(!thread.join().unwrap());
    }
}
