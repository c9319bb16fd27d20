//! Where monitors are on the host: sockets with any number of clients at once, or standard input.
//!
//! A socket's file that nobody listens at any more is replaced; any other file is left alone. The
//! file goes when the run ends, if it is still ours.

use super::{Monitor, Out, hmp, qmp};
use anyhow::Context;
use std::fs;
use std::io::{self, BufReader, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// How long a client may leave unread what it is sent.
const PATIENCE: Duration = Duration::from_secs(1);
/// Clients of one socket at once.
const CLIENTS: usize = 64;

/// Where a monitor is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MonitorEnd {
    /// Nowhere.
    Null,
    /// Standard input and output.
    Stdio,
    /// A socket.
    Unix {
        /// Its file.
        path: PathBuf,
        /// The machine does not start before there is a client.
        wait: bool,
    },
}

/// Parses `stdio`, `null` or `unix:PATH`, behind which QEMU's `,server=on` and `,wait=off` may be.
///
/// # Errors
/// What is possible.
pub fn parse_end(text: &str) -> Result<MonitorEnd, String> {
    const WHAT: &str = "it must be stdio, null or unix:PATH[,server=on][,wait=on|off]";
    let Some(rest) = text.strip_prefix("unix:") else {
        return match text {
            "stdio" => Ok(MonitorEnd::Stdio),
            "null" | "none" => Ok(MonitorEnd::Null),
            _ => Err(WHAT.to_owned()),
        };
    };
    let mut words = rest.split(',');
    let path = words.next().filter(|path| !path.is_empty()).ok_or(WHAT)?;
    let mut waits = false;
    for word in words {
        match word {
            "server" | "server=on" => {}
            "wait=off" | "nowait" => waits = false,
            "wait=on" | "wait" => waits = true,
            "server=off" => return Err("a monitor cannot be a client: use server=on".to_owned()),
            _ => return Err(WHAT.to_owned()),
        }
    }
    Ok(MonitorEnd::Unix { path: path.into(), wait: waits })
}

/// A socket that clients can come to.
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and number of the file.
    id: (u64, u64),
    wait: bool,
}

impl Socket {
    /// Makes the socket's file.
    ///
    /// # Errors
    /// There is another file, somebody listens there, or the host refuses.
    pub fn bind(path: &Path, wait: bool) -> anyhow::Result<Socket> {
        let context = || format!("cannot listen at {}", path.display());
        let listener = match UnixListener::bind(path) {
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => {
                let there = fs::symlink_metadata(path).with_context(context)?;
                if !there.file_type().is_socket() {
                    anyhow::bail!("{}: the file is there and no socket", context());
                }
                if UnixStream::connect(path).is_ok() {
                    anyhow::bail!("{}: another program listens there", context());
                }
                fs::remove_file(path).with_context(context)?;
                UnixListener::bind(path)
            }
            listener => listener,
        };
        let listener = listener.with_context(context)?;
        let meta = fs::symlink_metadata(path).with_context(context)?;
        Ok(Socket { listener, path: path.to_owned(), id: (meta.dev(), meta.ino()), wait })
    }

    /// Serves clients from now on, each on a thread of its own; waits for the first one if that was
    /// asked for. The file goes with what is returned.
    ///
    /// # Errors
    /// The host has no thread.
    pub fn serve(self, monitor: &Monitor, kind: Kind) -> io::Result<SocketFile> {
        let file = SocketFile { path: self.path, id: self.id };
        let clients = Arc::new(());
        let listener = self.listener;
        if self.wait {
            client(monitor, kind, listener.accept()?.0, clients.clone())?;
        }
        let monitor = monitor.clone();
        let accept = move || {
            for stream in listener.incoming() {
                match stream {
                    // One that cannot be served is sent away.
                    Ok(stream) if Arc::strong_count(&clients) <= CLIENTS => {
                        let _ = client(&monitor, kind, stream, clients.clone());
                    }
                    Ok(_) => {}
                    Err(_) => thread::sleep(PATIENCE),
                }
            }
        };
        thread::Builder::new().name("monitor".to_owned()).spawn(accept)?;
        Ok(file)
    }
}

/// The file of a socket, which goes when this does.
pub struct SocketFile {
    path: PathBuf,
    id: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = |m: fs::Metadata| (m.dev(), m.ino()) == self.id;
        if fs::symlink_metadata(&self.path).is_ok_and(ours) {
            // Nobody can be told.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Commands for people.
    Human,
    /// QMP.
    Json,
}

fn client(monitor: &Monitor, kind: Kind, stream: UnixStream, seat: Arc<()>) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut output = stream.try_clone()?;
    let monitor = monitor.clone();
    let serve = move || {
        let _seat = seat;
        let input = BufReader::new(&stream);
        // A client that is gone is no error.
        let _ = match kind {
            Kind::Human => hmp::serve(&monitor, input, &mut output, "\r\n"),
            Kind::Json => qmp::serve(&monitor, input, &out(output)),
        };
        let _ = stream.shutdown(std::net::Shutdown::Both);
    };
    thread::Builder::new().name("monitor client".to_owned()).spawn(serve).map(drop)
}

fn out(writer: impl Write + Send + 'static) -> Out {
    Arc::new(Mutex::new(Box::new(writer)))
}

/// Serves standard input and output on a thread.
///
/// # Errors
/// The host has no thread.
pub fn serve_stdio(
    monitor: &Monitor,
    kind: Kind,
    mut output: Box<dyn Write + Send>,
) -> io::Result<()> {
    let monitor = monitor.clone();
    let serve = move || {
        let input = io::stdin().lock();
        // Nobody there any more is no error.
        let _ = match kind {
            Kind::Human => hmp::serve(&monitor, input, &mut output, "\n"),
            Kind::Json => qmp::serve(&monitor, input, &out(output)),
        };
    };
    thread::Builder::new().name("monitor".to_owned()).spawn(serve).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_qemus() {
        let unix = |path: &str, wait| Ok(MonitorEnd::Unix { path: path.into(), wait });
        assert_eq!(parse_end("unix:/tmp/m"), unix("/tmp/m", false));
        assert_eq!(parse_end("unix:m,server=on,wait=off"), unix("m", false));
        assert_eq!(parse_end("unix:m,server,nowait"), unix("m", false));
        assert_eq!(parse_end("unix:m,server=on,wait=on"), unix("m", true));
        assert_eq!(parse_end("stdio"), Ok(MonitorEnd::Stdio));
        assert_eq!(parse_end("null"), Ok(MonitorEnd::Null));
        for bad in ["", "unix:", "tcp:1:2", "unix:m,server=off", "unix:m,x", "unix:,server"] {
            assert!(parse_end(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_a_stale_socket_is_replaced() {
        let path = std::env::temp_dir().join(format!("ring3-socket-{}", std::process::id()));
        drop(UnixListener::bind(&path).unwrap());
        let socket = Socket::bind(&path, false).unwrap();
        let again = Socket::bind(&path, false).err().unwrap().to_string();
        assert!(again.contains("another program listens there"), "{again}");
        drop((socket.listener, SocketFile { path: socket.path, id: socket.id }));
        assert!(!path.exists());
        fs::write(&path, "precious").unwrap();
        let foreign = Socket::bind(&path, false).err().unwrap().to_string();
        assert!(foreign.contains("no socket"), "{foreign}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        fs::remove_file(&path).unwrap();
    }
}
