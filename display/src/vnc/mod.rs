//! A VNC server: the guest's screen, keyboard and mouse over the RFB protocol.
//!
//! A listener thread takes connections, and each client has a thread ([`client`]), so that one who
//! is slow or silent holds up nobody. Pictures are taken from the [`Console`] when a client has
//! asked for an update, thirty times a second at most, and shared between clients.
//!
//! No client is trusted: whatever it sends, it can end its own connection only. There is no
//! password; who must not see the guest must not reach the address.
//!
//! Source: RFC 6143 (RFB 3.8); the versions 3.3 and 3.7 that it mentions are spoken too.

mod client;
mod format;
#[cfg(test)]
mod tests;
mod zrle;

use crate::Frame;
use crate::keys::Key;
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The port of display 0.
const FIRST_PORT: u16 = 5900;
/// Clients at a time.
const CLIENTS: usize = 16;
/// How often the listener looks for new clients and for the end.
const ACCEPT: Duration = Duration::from_millis(50);
/// A picture that is no older is good enough for the next client too.
const FRAME_AGE: Duration = Duration::from_millis(25);

/// The mouse of a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pointer {
    /// Where it is on the screen, in pixels from the upper left corner.
    pub x: u16,
    /// Likewise.
    pub y: u16,
    /// How far it has moved to the right since the event before.
    pub dx: i32,
    /// How far it has moved up, as a PS/2 mouse counts.
    pub dy: i32,
    /// Buttons held: bit 0 left, 1 right, 2 middle, as a PS/2 mouse has them.
    pub buttons: u8,
    /// Steps of the wheel, away from the user.
    pub wheel: i32,
}

/// Where pictures come from and input goes to. Calls come from several threads.
pub trait Console: Send + Sync {
    /// The screen as it is now.
    fn frame(&self) -> Frame;
    /// A key goes down or up.
    fn key(&self, key: Key);
    /// The mouse has moved, or its buttons have.
    fn pointer(&self, pointer: Pointer);
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A TCP port of the addresses of a host name; of all addresses when it is empty.
    Tcp(String, u16),
    /// A UNIX socket.
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = String;

    /// As QEMU writes them: `HOST:N` is TCP port 5900 + N, `:N` the same on all addresses, and
    /// `unix:PATH` a UNIX socket.
    fn from_str(text: &str) -> Result<Address, String> {
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(Address::Unix(path.into()));
        }
        let wrong = || format!("`{text}` is no VNC address (HOST:N, :N or unix:PATH)");
        let (host, display) = text.rsplit_once(':').ok_or_else(wrong)?;
        let display: u16 = display.parse().map_err(|_| wrong())?;
        let port = FIRST_PORT.checked_add(display).ok_or_else(wrong)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        Ok(Address::Tcp(bare.unwrap_or(host).to_owned(), port))
    }
}

/// A connection.
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn set_timeouts(&self, read: Duration, write: Duration) -> io::Result<()> {
        match self {
            Stream::Tcp(s) => {
                s.set_read_timeout(Some(read))?;
                s.set_write_timeout(Some(write))
            }
            Stream::Unix(s) => {
                s.set_read_timeout(Some(read))?;
                s.set_write_timeout(Some(write))
            }
        }
    }

    fn try_clone(&self) -> io::Result<Stream> {
        Ok(match self {
            Stream::Tcp(s) => Stream::Tcp(s.try_clone()?),
            Stream::Unix(s) => Stream::Unix(s.try_clone()?),
        })
    }

    fn shut_down(&self) {
        // One that has gone needs no end.
        let _ = match self {
            Stream::Tcp(s) => s.shutdown(Shutdown::Both),
            Stream::Unix(s) => s.shutdown(Shutdown::Both),
        };
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(s) => s.read(buf),
            Stream::Unix(s) => s.read(buf),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(s) => s.write(buf),
            Stream::Unix(s) => s.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

impl Listener {
    fn bind(address: &Address) -> io::Result<Listener> {
        match address {
            Address::Tcp(host, port) => {
                let listener = match host.as_str() {
                    // IPv6's "any" takes IPv4 too, where the host has it.
                    "" => TcpListener::bind(("::", *port))
                        .or_else(|_| TcpListener::bind(("0.0.0.0", *port))),
                    host => TcpListener::bind((host, *port)),
                }?;
                listener.set_nonblocking(true)?;
                Ok(Listener::Tcp(listener))
            }
            Address::Unix(path) => {
                // What a server left behind that nobody listens on is in the way of no one.
                let socket = path.metadata().is_ok_and(|m| m.file_type().is_socket());
                if socket && UnixStream::connect(path).is_err() {
                    std::fs::remove_file(path)?;
                }
                let listener = UnixListener::bind(path)?;
                listener.set_nonblocking(true)?;
                Ok(Listener::Unix(listener, path.clone()))
            }
        }
    }

    fn accept(&self) -> io::Result<Stream> {
        match self {
            Listener::Tcp(l) => {
                let (stream, _) = l.accept()?;
                stream.set_nonblocking(false)?;
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
            Listener::Unix(l, _) => {
                let (stream, _) = l.accept()?;
                stream.set_nonblocking(false)?;
                Ok(Stream::Unix(stream))
            }
        }
    }
}

/// What the threads of a server share.
struct Shared {
    console: Arc<dyn Console>,
    name: String,
    stop: AtomicBool,
    /// The last picture and when it was taken.
    latest: Mutex<Option<(Instant, Arc<Frame>)>>,
    /// The connections, to end them.
    streams: Mutex<HashMap<u64, Stream>>,
}

impl Shared {
    fn stops(&self) -> bool {
        self.stop.load(Relaxed)
    }

    fn frame(&self) -> Arc<Frame> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        match &*latest {
            Some((taken, frame)) if taken.elapsed() < FRAME_AGE => frame.clone(),
            _ => {
                let frame = Arc::new(self.console.frame());
                *latest = Some((Instant::now(), frame.clone()));
                frame
            }
        }
    }
}

/// A VNC server; it ends, with its connections, when this is dropped.
pub struct Server {
    shared: Arc<Shared>,
    port: Option<u16>,
    path: Option<PathBuf>,
    listener: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens at `address`; clients see the screen of `console` under the title `name`.
    ///
    /// # Errors
    /// What the host says when it cannot listen there.
    pub fn start(address: &Address, name: &str, console: Arc<dyn Console>) -> io::Result<Server> {
        let listener = Listener::bind(address)?;
        let (port, path) = match &listener {
            Listener::Tcp(l) => (Some(l.local_addr()?.port()), None),
            Listener::Unix(_, path) => (None, Some(path.clone())),
        };
        let shared = Arc::new(Shared {
            console,
            name: name.to_owned(),
            stop: AtomicBool::new(false),
            latest: Mutex::default(),
            streams: Mutex::default(),
        });
        let theirs = shared.clone();
        let thread = thread::Builder::new().name("vnc".into());
        let listener = Some(thread.spawn(move || listen(&listener, &theirs))?);
        Ok(Server { shared, port, path, listener })
    }

    /// The TCP port that it listens on.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.port
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
        if let Some(listener) = self.listener.take() {
            // A thread that panicked has ended too.
            let _ = listener.join();
        }
        if let Some(path) = &self.path {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn listen(listener: &Listener, shared: &Arc<Shared>) {
    let streams = || shared.streams.lock().unwrap_or_else(PoisonError::into_inner);
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    for id in 0.. {
        let stream = loop {
            if shared.stops() {
                streams().values().for_each(Stream::shut_down);
                threads.into_iter().for_each(|thread| drop(thread.join()));
                return;
            }
            match listener.accept() {
                Ok(stream) => break stream,
                Err(_) => thread::sleep(ACCEPT),
            }
        };
        threads.retain(|thread| !thread.is_finished());
        // One too many is closed at once.
        let Some(copy) = stream.try_clone().ok().filter(|_| threads.len() < CLIENTS) else {
            continue;
        };
        streams().insert(id, copy);
        let theirs = shared.clone();
        let client = thread::Builder::new().name("vnc client".into()).spawn(move || {
            // Whatever ends it ends this connection only.
            let _ = client::serve(stream, &theirs);
            let mut streams = theirs.streams.lock().unwrap_or_else(PoisonError::into_inner);
            streams.remove(&id).iter().for_each(Stream::shut_down);
        });
        match client {
            Ok(thread) => threads.push(thread),
            Err(_) => drop(streams().remove(&id)),
        }
    }
}
