//! The user's terminal: raw while a guest uses it, as it was on every way out.
//!
//! The saved state is one for the process, so that a guard's drop, a panic and a signal's thread
//! can all restore it; whoever comes first does.
//!
//! Source: termios(3); the escape keys are QEMU's.

use rustix::stdio::stdin;
use rustix::termios::{
    ControlModes, InputModes, LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr,
    tcsetattr,
};
use std::io;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

/// How the terminal was before it became raw.
static SAVED: Mutex<Option<Termios>> = Mutex::new(None);

fn saved() -> MutexGuard<'static, Option<Termios>> {
    SAVED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// While this lives, standard input is a raw terminal: every key goes to the reader, none makes a
/// signal.
#[derive(Debug)]
pub struct RawMode(());

impl RawMode {
    /// Makes the terminal at standard input raw.
    pub fn enter() -> io::Result<RawMode> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let report = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                restore();
                report(info);
            }));
        });
        let mut saved = saved();
        let before = tcgetattr(stdin())?;
        tcsetattr(stdin(), OptionalActions::Now, &raw(&before))?;
        *saved = Some(before);
        Ok(RawMode(()))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

/// Makes the terminal what it was; does nothing when it is.
pub fn restore() {
    if let Some(before) = saved().take() {
        // A terminal that is gone needs no restoring.
        let _ = tcsetattr(stdin(), OptionalActions::Now, &before);
    }
}

/// Makes the terminal raw again after the process was stopped and continued: the shell changed it.
pub fn resume() {
    if let Some(before) = &*saved() {
        let _ = tcsetattr(stdin(), OptionalActions::Now, &raw(before));
    }
}

/// Raw input. Output processing stays on, so that a guest's bare line feeds begin a new line.
fn raw(before: &Termios) -> Termios {
    let mut t = before.clone();
    t.input_modes -= InputModes::IGNBRK
        | InputModes::BRKINT
        | InputModes::PARMRK
        | InputModes::ISTRIP
        | InputModes::INLCR
        | InputModes::IGNCR
        | InputModes::ICRNL
        | InputModes::IXON;
    t.local_modes -= LocalModes::ECHO
        | LocalModes::ECHONL
        | LocalModes::ICANON
        | LocalModes::IEXTEN
        | LocalModes::ISIG;
    t.control_modes -= ControlModes::CSIZE | ControlModes::PARENB;
    t.control_modes |= ControlModes::CS8;
    t.special_codes[SpecialCodeIndex::VMIN] = 1;
    t.special_codes[SpecialCodeIndex::VTIME] = 0;
    t
}

/// What a key means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// It goes to the guest.
    Send(u8),
    /// Ctrl-A x.
    Quit,
    /// Ctrl-A h.
    Help,
    /// Ctrl-A c.
    Switch,
    /// The escape key itself, or an unknown key after it.
    Nothing,
}

/// What Ctrl-A h prints.
pub const HELP: &str = "
Ctrl-A x       quit
Ctrl-A c       switch between the guest and the monitor
Ctrl-A h       this help
Ctrl-A Ctrl-A  send Ctrl-A to the guest";

/// Finds the escape sequences in what is typed.
#[derive(Debug, Default)]
pub struct Escape {
    escaped: bool,
}

impl Escape {
    const CTRL_A: u8 = 1;

    /// Takes the next byte.
    pub fn key(&mut self, byte: u8) -> Key {
        let escaped = std::mem::take(&mut self.escaped);
        match byte {
            Self::CTRL_A if !escaped => {
                self.escaped = true;
                Key::Nothing
            }
            b'x' | b'X' if escaped => Key::Quit,
            b'c' | b'C' if escaped => Key::Switch,
            b'h' | b'H' | b'?' if escaped => Key::Help,
            _ if escaped && byte != Self::CTRL_A => Key::Nothing,
            _ => Key::Send(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(typed: &[u8]) -> Vec<Key> {
        let mut escape = Escape::default();
        let all = typed.iter().map(|&b| escape.key(b));
        all.filter(|k| *k != Key::Nothing).collect()
    }

    #[test]
    fn escape_keys() {
        let send = |bytes: &[u8]| bytes.iter().map(|&b| Key::Send(b)).collect::<Vec<_>>();
        assert_eq!(keys(b"xh\x03"), send(b"xh\x03"));
        assert_eq!(keys(b"\x01\x01x"), send(b"\x01x"));
        assert_eq!(keys(b"a\x01x"), [Key::Send(b'a'), Key::Quit]);
        assert_eq!(keys(b"\x01h\x01zb"), [Key::Help, Key::Send(b'b')]);
        assert_eq!(keys(b"\x01cc"), [Key::Switch, Key::Send(b'c')]);
        assert_eq!(keys(b"\x01"), []);
    }
}
