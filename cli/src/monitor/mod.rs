//! The monitor: what a user or a program asks of a running machine, beside the guest.
//!
//! | file | what |
//! |---|---|
//! | this one | what can be done with a machine, and the events that tell of it |
//! | [`hmp`] | commands for people: a table of name, arguments, help, function |
//! | [`info`], [`memory`], [`expr`], [`keys`] | what these commands show, and their arguments |
//! | [`qmp`] | the same as JSON |
//! | [`server`] | sockets and standard input |
//!
//! Every client has a thread of its own. What needs the machine is done on the machine's thread
//! between two slices ([`Monitor::ask`]), so that nobody sees half of a change; text is made of it
//! afterwards. A client that does not read what it is sent is dropped, the machine never waits for
//! one for long.
//!
//! Source: QEMU 7.2: System Emulation, "QEMU Monitor", and the QEMU QMP Reference Manual; the forms
//! of the output as its program prints them.

mod expr;
pub mod hmp;
mod info;
mod memory;
pub mod qmp;
pub mod server;
#[cfg(test)]
mod tests;

use crate::screen;
use display::keys;
use machine::block::Format;
use machine::{Control, Key, Machine};
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How often somebody who waits for the machine looks whether it has ended.
const PATIENCE: Duration = Duration::from_millis(50);
/// The longest that keys are held.
const HOLD_MAX: u64 = 10_000;
/// Keys that are pressed at once.
const KEYS_MAX: usize = 16;
/// Bytes that are saved between two slices.
const CHUNK: u64 = 1 << 20;

/// Where a client is written to.
pub type Out = Arc<Mutex<Box<dyn Write + Send>>>;

/// Why something was not done, in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// QMP's class of the error.
    pub class: &'static str,
    /// What it is.
    pub desc: String,
}

impl Refused {
    /// The class of everything that has none of its own.
    pub const GENERIC: &'static str = "GenericError";

    pub(crate) fn new(desc: impl Into<String>) -> Refused {
        Refused { class: Refused::GENERIC, desc: desc.into() }
    }
}

/// A machine's monitor; clones are the same.
#[derive(Clone)]
pub struct Monitor(Arc<Shared>);

struct Shared {
    control: Control,
    /// Ends the run; may not return.
    quit: Box<dyn Fn() + Send + Sync>,
    /// The thread of the client that has asked for the end.
    quitting: OnceLock<ThreadId>,
    /// The next reset is ours, not the guest's.
    resetting: AtomicBool,
    /// Who is told of events.
    listeners: Mutex<Vec<Out>>,
}

impl Monitor {
    /// The monitor of `machine`, whose run `quit` ends.
    pub fn new(machine: &mut Machine, quit: impl Fn() + Send + Sync + 'static) -> Monitor {
        let monitor = Monitor(Arc::new(Shared {
            control: machine.control(),
            quit: Box::new(quit),
            quitting: OnceLock::new(),
            resetting: AtomicBool::new(false),
            listeners: Mutex::default(),
        }));
        let shared = Arc::downgrade(&monitor.0);
        machine.on_reset(move || {
            if let Some(monitor) = shared.upgrade().map(Monitor) {
                let ours = monitor.0.resetting.swap(false, SeqCst);
                let reason = if ours { "host-qmp-system-reset" } else { "guest-reset" };
                monitor.tell("RESET", json!({"guest": !ours, "reason": reason}));
            }
        });
        monitor
    }

    /// The run has ended, by the guest or from outside: all clients are told.
    pub fn ended(&self, guest: bool) {
        // Who waits for the machine need not wait any more.
        self.0.control.stop();
        let reason = match (guest, self.quits()) {
            (true, _) => "guest-shutdown",
            (false, true) => "host-qmp-quit",
            (false, false) => "host-signal",
        };
        self.tell("SHUTDOWN", json!({"guest": guest, "reason": reason}));
    }

    /// Does `f` to the machine between two slices, and waits for it.
    ///
    /// # Errors
    /// The machine does not run any more.
    pub fn ask<R: Send + 'static>(
        &self,
        f: impl FnOnce(&mut Machine) -> R + Send + 'static,
    ) -> Result<R, Refused> {
        let (send, answer) = mpsc::channel();
        // The receiver may have given up.
        self.0.control.call(move |machine| drop(send.send(f(machine))));
        loop {
            match answer.recv_timeout(PATIENCE) {
                Ok(result) => return Ok(result),
                Err(RecvTimeoutError::Timeout) if !self.0.control.stopped() => {}
                Err(_) => return Err(Refused::new("the machine has ended")),
            }
        }
    }

    fn listeners(&self) -> MutexGuard<'_, Vec<Out>> {
        self.0.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells `out` of events from now on.
    fn listen(&self, out: &Out) {
        self.listeners().push(out.clone());
    }

    /// Tells `out` of nothing any more.
    fn leave(&self, out: &Out) {
        self.listeners().retain(|o| !Arc::ptr_eq(o, out));
    }

    /// Tells all listeners of an event.
    fn tell(&self, event: &str, data: Value) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut line = json!({
            "timestamp": {"seconds": now.as_secs(), "microseconds": now.subsec_micros()},
            "event": event,
        });
        if !data.is_null() {
            line["data"] = data;
        }
        let line = format!("{line}\r\n");
        self.listeners().retain(|out| send(out, &line).is_ok());
    }

    /// Whether the processor stands still.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.0.control.is_paused()
    }

    /// Stops the processor, or lets it go on.
    pub fn pause(&self, paused: bool) {
        if self.is_paused() != paused {
            self.0.control.pause(paused);
            self.tell(if paused { "STOP" } else { "RESUME" }, Value::Null);
        }
    }

    /// The reset button.
    ///
    /// # Errors
    /// The kernel cannot be loaded again.
    pub fn reset(&self) -> Result<(), Refused> {
        self.0.resetting.store(true, SeqCst);
        self.ask(Machine::press_reset)?.map_err(|e| Refused::new(e.to_string()))
    }

    /// The power button.
    ///
    /// # Errors
    /// The machine has ended.
    pub fn power_down(&self) -> Result<(), Refused> {
        self.ask(|m| m.board().press_power_button())?;
        self.tell("POWERDOWN", Value::Null);
        Ok(())
    }

    /// The run shall end once the client has its answer.
    pub fn quit(&self) {
        let _ = self.0.quitting.set(thread::current().id());
    }

    /// Whether [`quit`](Self::quit) was called.
    #[must_use]
    pub fn quits(&self) -> bool {
        self.0.quitting.get().is_some()
    }

    /// Ends the run if [`quit`](Self::quit) was called by this thread: no other client's answer
    /// comes in the way.
    fn quit_if_asked(&self) {
        if self.0.quitting.get() == Some(&thread::current().id()) {
            (self.0.quit)();
        }
    }

    /// Presses keys (by name) at once, and lets them go after `hold` milliseconds.
    ///
    /// # Errors
    /// A key is not known.
    pub fn send_keys(&self, names: &[&str], hold: u64) -> Result<(), Refused> {
        if names.len() > KEYS_MAX {
            return Err(Refused::new("too many keys"));
        }
        let code = |name: &&str| {
            keys::from_name(name).ok_or_else(|| Refused::new(format!("invalid parameter: {name}")))
        };
        let codes = names.iter().map(code).collect::<Result<Vec<_>, _>>()?;
        self.0.control.press(codes.iter().map(|&code| Key { code, pressed: true }));
        thread::sleep(Duration::from_millis(hold.min(HOLD_MAX)));
        self.0.control.press(codes.iter().rev().map(|&code| Key { code, pressed: false }));
        Ok(())
    }

    /// Writes what is on the screen to a file: PNG if it is called so, or else a portable pixmap.
    ///
    /// # Errors
    /// There is no screen, or the file cannot be written.
    pub fn screendump(&self, path: &Path) -> Result<(), Refused> {
        let board = self.ask(|m| m.share_board())?;
        let frame = screen::frame(&board).ok_or_else(|| Refused::new("there is no screen"))?;
        if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("png")) {
            let file = std::fs::File::create(path).map_err(|e| unwritable(path, &e))?;
            return display::png::write(&frame, file).map_err(|e| unwritable(path, &e));
        }
        let mut bytes = format!("P6\n{} {}\n255\n", frame.width, frame.height).into_bytes();
        bytes.extend(frame.pixels.iter().flat_map(|p| p.to_be_bytes().into_iter().skip(1)));
        std::fs::write(path, bytes).map_err(|e| unwritable(path, &e))
    }

    /// Puts a medium into the drive `device`, or takes the one out that is there. `read_only` is as
    /// it was if it is not given.
    ///
    /// # Errors
    /// There is no such drive, its medium is built in, or the image cannot be opened.
    pub fn change(
        &self,
        device: &str,
        file: Option<PathBuf>,
        format: Option<Format>,
        read_only: Option<bool>,
    ) -> Result<(), Refused> {
        let name = device.to_owned();
        self.ask(move |m| {
            let Some(drive) = m.drives_mut().iter_mut().find(|d| d.name == name) else {
                let desc = format!("Device '{name}' not found");
                return Err(Refused { class: "DeviceNotFound", desc });
            };
            let read_only = read_only.unwrap_or(drive.spec.read_only);
            drive.change(file, format, read_only).map_err(|e| Refused::new(e.to_string()))
        })?
    }

    /// Saves `size` bytes of memory from `start` on to a file; `linear` or guest-physical.
    ///
    /// # Errors
    /// Something is not mapped, or the file cannot be written.
    pub fn save(&self, linear: bool, start: u64, size: u64, path: &Path) -> Result<(), Refused> {
        let mut file = std::fs::File::create(path).map_err(|e| unwritable(path, &e))?;
        let mut done = 0;
        while done < size {
            let (at, len) = (start.wrapping_add(done), CHUNK.min(size - done));
            let bytes = self.ask(move |m| memory::read(m, linear, at, len as usize))?;
            let Some(bytes) = bytes else {
                let desc = format!("Invalid addr 0x{start:016x}/size {size} specified");
                return Err(Refused::new(desc));
            };
            file.write_all(&bytes).map_err(|e| unwritable(path, &e))?;
            done += len;
        }
        Ok(())
    }
}

fn unwritable(path: &Path, error: &std::io::Error) -> Refused {
    Refused::new(format!("failed to open file '{}': {error}", path.display()))
}

/// Writes text to a client, all or an error.
fn send(out: &Out, text: &str) -> std::io::Result<()> {
    let mut out = out.lock().unwrap_or_else(PoisonError::into_inner);
    out.write_all(text.as_bytes())?;
    out.flush()
}
