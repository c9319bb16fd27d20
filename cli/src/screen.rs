//! The machine's screen and keyboard on this host: in the terminal, by VNC, or as a file.

use crate::options::usage;
use crate::terminal::{Escape, Key as Stroke};
use anyhow::Context;
use display::Frame;
use display::keys::Key;
use display::terminal::{Grid, Terminal};
use display::terminal_keys::TerminalKeys;
use display::vnc::{Address, Console, Pointer, Server};
use machine::{Control, Mouse, pc::Board};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::tcgetwinsize;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Where the screen is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DisplayKind {
    /// Nowhere.
    #[default]
    None,
    /// The text screen, in the terminal that the program runs in.
    Terminal,
    /// To VNC clients.
    Vnc(Address),
}

/// Flags for the screen.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ScreenOptions {
    /// Where the screen is shown and keys come from: none, terminal (the text screen, in this
    /// terminal), or vnc=ADDRESS (HOST:N is TCP port 5900 + N, or unix:PATH); a display other than
    /// none adds a VGA
    #[arg(long, value_name = "none|terminal|vnc=ADDRESS", value_parser = parse_display,
          default_value = "none", hide_default_value = true)]
    pub display: DisplayKind,

    /// Write the screen to a PNG file at the end; adds a VGA
    #[arg(long, value_name = "FILE")]
    pub screenshot: Option<PathBuf>,
}

impl ScreenOptions {
    /// Whether they need a VGA.
    #[must_use]
    pub fn need_vga(&self) -> bool {
        self.display != DisplayKind::None || self.screenshot.is_some()
    }
}

fn parse_display(text: &str) -> Result<DisplayKind, String> {
    match text.split_once('=') {
        None if text == "none" => Ok(DisplayKind::None),
        None if text == "terminal" => Ok(DisplayKind::Terminal),
        Some(("vnc", address)) => address.parse().map(DisplayKind::Vnc),
        _ => Err("it must be none, terminal or vnc=ADDRESS".to_owned()),
    }
}

/// How long bytes of a key may be apart.
const KEY_GAP: Duration = Duration::from_millis(50);
/// How often the terminal is drawn.
const REDRAW: Duration = Duration::from_millis(40);

/// The picture on the screen, if there is a VGA.
#[must_use]
pub fn frame(board: &Board) -> Option<Frame> {
    board.screen().map(|f| Frame { width: f.width, height: f.height, pixels: f.pixels })
}

/// The same for who must show something: one black pixel without a VGA.
fn picture(board: &Board) -> Frame {
    frame(board).unwrap_or(Frame { width: 1, height: 1, pixels: vec![0] })
}

/// Writes the screen to a PNG file.
///
/// # Errors
/// What the host says, in one line with the file's name.
pub fn screenshot(board: &Board, path: &Path) -> anyhow::Result<()> {
    let context = || format!("cannot write the screen to {}", path.display());
    let file = File::create(path).with_context(context)?;
    display::png::write(&picture(board), BufWriter::new(file)).with_context(context)
}

fn press(control: &Control, keys: impl IntoIterator<Item = Key>) {
    let key = |k: Key| machine::Key { code: k.code, pressed: k.pressed };
    control.press(keys.into_iter().map(key));
}

/// A machine as VNC clients see it.
struct Guest {
    board: Arc<Board>,
    control: Control,
}

impl Console for Guest {
    fn frame(&self) -> Frame {
        picture(&self.board)
    }

    fn key(&self, key: Key) {
        press(&self.control, [key]);
    }

    fn pointer(&self, pointer: Pointer) {
        let Pointer { dx, dy, buttons, .. } = pointer;
        self.control.point(Mouse { motion: (dx, dy), buttons });
    }
}

/// A display while it is shown; it ends when this is dropped.
pub enum Display {
    /// Nothing is shown.
    None,
    /// Drawn by a thread.
    Terminal {
        /// Tells it to end.
        stop: Arc<AtomicBool>,
        /// The thread.
        thread: Option<JoinHandle<()>>,
    },
    /// A server.
    Vnc(Server),
}

impl Display {
    /// Shows the screen of a machine.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub fn start(
        kind: &DisplayKind,
        board: Arc<Board>,
        control: Control,
    ) -> anyhow::Result<Display> {
        match kind {
            DisplayKind::None => Ok(Display::None),
            DisplayKind::Vnc(address) => {
                let guest = Arc::new(Guest { board, control });
                let server = Server::start(address, "Ring3", guest);
                Ok(Display::Vnc(server.with_context(|| format!("cannot listen at {address:?}"))?))
            }
            DisplayKind::Terminal => {
                let stop = Arc::new(AtomicBool::new(false));
                let stopped = stop.clone();
                let draw = move || draw(&board, &stopped);
                let thread = thread::Builder::new().name("display".to_owned()).spawn(draw)?;
                Ok(Display::Terminal { stop, thread: Some(thread) })
            }
        }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        if let Display::Terminal { stop, thread } = self {
            stop.store(true, Relaxed);
            // A thread that has panicked has said so itself.
            thread.take().map(JoinHandle::join);
        }
    }
}

fn size() -> (usize, usize) {
    let size = tcgetwinsize(rustix::stdio::stdout()).ok();
    let size = size.filter(|s| s.ws_col > 0 && s.ws_row > 0);
    size.map_or((80, 25), |s| (s.ws_col.into(), s.ws_row.into()))
}

/// Draws the text screen until it is told to stop. A terminal that is gone shows nothing.
fn draw(board: &Board, stop: &AtomicBool) {
    let mut at = size();
    let mut terminal = Terminal::new(at.0, at.1);
    let mut out = io::stdout();
    let mut write = |bytes: &[u8]| out.write_all(bytes).and_then(|()| out.flush()).is_ok();
    if !write(Terminal::enter()) {
        return;
    }
    loop {
        let now = size();
        if now != at {
            at = now;
            terminal.resize(at.0, at.1);
        }
        let grid = match board.text_screen() {
            Some(t) => Grid {
                columns: t.columns,
                rows: t.rows,
                cells: t.cells,
                cursor: t.cursor,
                blink: t.blink,
            },
            None => {
                let f = picture(board);
                let text = format!("{}x{} graphics", f.width, f.height);
                Grid::message(80, 25, &text)
            }
        };
        if !write(&terminal.draw(&grid)) {
            return;
        }
        if stop.load(Relaxed) {
            break;
        }
        thread::sleep(REDRAW);
    }
    write(Terminal::leave());
}

/// Reads keys from the terminal and gives them to the guest, until the user quits (true) or there
/// are no more (false).
pub(crate) fn read_keys(control: &Control) -> bool {
    let mut escape = Escape::default();
    let mut keys = TerminalKeys::default();
    let mut buffer = [0; 256];
    loop {
        let stdin = io::stdin();
        let gap = Timespec { tv_sec: 0, tv_nsec: KEY_GAP.as_nanos() as i64 };
        let ready = poll(&mut [PollFd::new(&stdin, PollFlags::IN)], keys.waits().then_some(&gap));
        match ready {
            Ok(0) => {
                press(control, keys.idle());
                continue;
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
        let n = match stdin.lock().read(&mut buffer) {
            Ok(0) => return false,
            Ok(n) => n,
            Err(e)
                if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) =>
            {
                continue;
            }
            Err(_) => return false,
        };
        for &byte in &buffer[..n] {
            match escape.key(byte) {
                Stroke::Send(byte) => press(control, keys.feed(&[byte])),
                Stroke::Quit => return true,
                Stroke::Help | Stroke::Switch | Stroke::Nothing => {}
            }
        }
    }
}

/// Refuses what cannot go together.
///
/// # Errors
/// A line for the user.
pub(crate) fn check(kind: &DisplayKind, serial_on_stdio: bool) -> anyhow::Result<()> {
    use io::IsTerminal;
    if *kind == DisplayKind::Terminal {
        if serial_on_stdio {
            return usage("--display terminal and a serial port cannot share the terminal");
        }
        if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
            return usage("--display terminal needs a terminal at standard input and output");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn displays() {
        assert_eq!(parse_display("none"), Ok(DisplayKind::None));
        assert_eq!(parse_display("terminal"), Ok(DisplayKind::Terminal));
        assert!(matches!(parse_display("vnc=127.0.0.1:3"), Ok(DisplayKind::Vnc(_))));
        for bad in ["", "gtk", "vnc", "vnc=", "vnc=x", "terminal=1"] {
            assert!(parse_display(bad).is_err(), "{bad}");
        }
    }
}
