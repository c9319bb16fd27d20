//! A layer of storage as a disk: a queue, and a thread that works it off.
//!
//! One thread does one request after the other, so a flush comes after all writes that were
//! submitted before it, and no two requests of one image are ever in each other's way. With
//! `cache=writethrough` each write is flushed before it is finished. When the queue is full,
//! submitting waits: a guest cannot make the host hold any number of requests. A layer that panics
//! (a bug) fails what is in flight and all that comes.
//!
//! Dropping the disk finishes what was submitted and flushes.

use devices::disk::{Disk, DiskError, Finished, Request, SECTOR};
use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Requests that wait in a queue.
const QUEUE: usize = 1024;
/// Zeros that are written at a time.
const ZEROS: usize = 1 << 20;

/// Called when something is finished, on the worker's thread. It must not wait for the thread that
/// submits: that one may be waiting for room in the queue.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// Storage that does what it is told at once. Ranges are in sectors and within its length.
pub trait Layer: Send {
    /// Its size in bytes, a multiple of [`SECTOR`].
    fn len(&self) -> u64;
    /// Whether it has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Whether it refuses to be changed.
    fn is_read_only(&self) -> bool;
    /// Fills `buf` from `offset` on.
    ///
    /// # Errors
    /// The host's.
    fn read(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
    /// Writes `data` at `offset`.
    ///
    /// # Errors
    /// The host's.
    fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()>;
    /// Makes bytes zero; their place may be given back (`unmap`).
    ///
    /// # Errors
    /// The host's.
    fn zero(&mut self, offset: u64, len: u64, unmap: bool) -> io::Result<()>;
    /// The bytes are not needed: they are as they were, or zero.
    ///
    /// # Errors
    /// The host's.
    fn discard(&mut self, offset: u64, len: u64) -> io::Result<()>;
    /// What was written stays, even when the host loses its power.
    ///
    /// # Errors
    /// The host's; what was written since the last flush may be lost.
    fn flush(&mut self) -> io::Result<()>;
}

/// Writes zeros where the host has no better way.
pub(crate) fn write_zeros(layer: &mut impl Layer, offset: u64, len: u64) -> io::Result<()> {
    let zeros = vec![0; ZEROS.min(len as usize)];
    let mut at = 0;
    while at < len {
        let n = (len - at).min(zeros.len() as u64);
        layer.write(offset + at, &zeros[..n as usize])?;
        at += n;
    }
    Ok(())
}

/// What the guest is told of an error of the host.
pub(crate) fn error(e: &io::Error) -> DiskError {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    match e.kind() {
        StorageFull | QuotaExceeded | FileTooLarge => DiskError::NoSpace,
        io::ErrorKind::ReadOnlyFilesystem => DiskError::ReadOnly,
        _ => DiskError::Io,
    }
}

fn check(layer: &dyn Layer, offset: u64, len: u64) -> Result<(), DiskError> {
    let inside = offset.checked_add(len).is_some_and(|end| end <= layer.len());
    if inside && (offset | len).is_multiple_of(SECTOR) {
        Ok(())
    } else {
        Err(DiskError::OutOfRange)
    }
}

fn serve(layer: &mut dyn Layer, through: bool, request: Request) -> Result<Vec<u8>, DiskError> {
    if layer.is_empty() {
        return Err(DiskError::NoMedium);
    }
    if layer.is_read_only() && !matches!(request, Request::Read { .. } | Request::Flush) {
        return Err(DiskError::ReadOnly);
    }
    let changed = match request {
        Request::Read { offset, len } => {
            check(layer, offset, len as u64)?;
            let mut data = vec![0; len];
            return layer.read(offset, &mut data).map(|()| data).map_err(|e| error(&e));
        }
        Request::Flush => return layer.flush().map(|()| Vec::new()).map_err(|e| error(&e)),
        Request::Write { offset, data } => {
            check(layer, offset, data.len() as u64)?;
            layer.write(offset, &data)
        }
        Request::Discard { offset, len } => {
            check(layer, offset, len)?;
            layer.discard(offset, len)
        }
        Request::WriteZeroes { offset, len, unmap } => {
            check(layer, offset, len)?;
            layer.zero(offset, len, unmap)
        }
    };
    let changed = if through { changed.and_then(|()| layer.flush()) } else { changed };
    changed.map(|()| Vec::new()).map_err(|e| error(&e))
}

#[derive(Default)]
struct Queue {
    todo: VecDeque<(u64, Request)>,
    done: VecDeque<Finished>,
    closing: bool,
    /// The worker is gone.
    dead: bool,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    work: Condvar,
    room: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Worker {
    /// Who submits does the work.
    Here {
        layer: Box<dyn Layer>,
        done: VecDeque<Finished>,
    },
    Thread {
        shared: Arc<Shared>,
        thread: Option<JoinHandle<()>>,
        wake: Wake,
    },
}

/// A layer as a [`Disk`].
pub struct ImageDisk {
    len: u64,
    read_only: bool,
    through: bool,
    worker: Worker,
}

impl ImageDisk {
    /// A disk on `layer`, `through` when each write is flushed. With `wake` there is a thread;
    /// without, requests are finished when they are submitted.
    ///
    /// # Errors
    /// The host has no thread for it.
    pub fn new(layer: Box<dyn Layer>, through: bool, wake: Option<Wake>) -> io::Result<ImageDisk> {
        let (len, read_only) = (layer.len(), layer.is_read_only());
        let worker = match wake {
            None => Worker::Here { layer, done: VecDeque::new() },
            Some(wake) => {
                let shared = Arc::new(Shared::default());
                let (theirs, call) = (shared.clone(), wake.clone());
                let work = move || work(layer, through, &theirs, &call);
                let thread = Some(std::thread::Builder::new().name("disk".into()).spawn(work)?);
                Worker::Thread { shared, thread, wake }
            }
        };
        Ok(ImageDisk { len, read_only, through, worker })
    }
}

fn work(mut layer: Box<dyn Layer>, through: bool, shared: &Shared, wake: &Wake) {
    loop {
        let (number, request) = {
            let mut queue = shared.lock();
            loop {
                match queue.todo.pop_front() {
                    Some(job) => break job,
                    None if queue.closing => {
                        drop(queue);
                        close(layer.as_mut());
                        return;
                    }
                    None => queue = shared.work.wait(queue).unwrap_or_else(PoisonError::into_inner),
                }
            }
        };
        shared.room.notify_one();
        let result = catch_unwind(AssertUnwindSafe(|| serve(layer.as_mut(), through, request)));
        let mut queue = shared.lock();
        queue.dead = result.is_err();
        queue.done.push_back((number, result.unwrap_or(Err(DiskError::Io))));
        let dead = queue.dead;
        if dead {
            let waiting: Vec<_> = queue.todo.drain(..).collect();
            queue.done.extend(waiting.into_iter().map(|(n, _)| (n, Err(DiskError::Io))));
        }
        drop(queue);
        wake();
        if dead {
            shared.room.notify_all();
            // Its state is unknown: nothing more of it may reach the image.
            std::mem::forget(layer);
            return;
        }
    }
}

/// The end: nobody is left to be told of an error.
fn close(layer: &mut dyn Layer) {
    if !layer.is_read_only() {
        let _ = layer.flush();
    }
}

impl Disk for ImageDisk {
    fn len(&self) -> u64 {
        self.len
    }

    fn is_read_only(&self) -> bool {
        self.read_only
    }

    fn submit(&mut self, number: u64, request: Request) {
        match &mut self.worker {
            Worker::Here { layer, done } => {
                done.push_back((number, serve(layer.as_mut(), self.through, request)));
            }
            Worker::Thread { shared, wake, .. } => {
                let mut queue = shared.lock();
                while queue.todo.len() >= QUEUE && !queue.dead {
                    queue = shared.room.wait(queue).unwrap_or_else(PoisonError::into_inner);
                }
                if queue.dead {
                    queue.done.push_back((number, Err(DiskError::Io)));
                    drop(queue);
                    wake();
                } else {
                    queue.todo.push_back((number, request));
                    shared.work.notify_one();
                }
            }
        }
    }

    fn finished(&mut self) -> Option<Finished> {
        match &mut self.worker {
            Worker::Here { done, .. } => done.pop_front(),
            Worker::Thread { shared, .. } => shared.lock().done.pop_front(),
        }
    }
}

impl Drop for ImageDisk {
    fn drop(&mut self) {
        match &mut self.worker {
            Worker::Here { layer, .. } => close(layer.as_mut()),
            Worker::Thread { shared, thread, .. } => {
                shared.lock().closing = true;
                shared.work.notify_one();
                // A panic there was told to the guest as an error.
                let _ = thread.take().map(JoinHandle::join);
            }
        }
    }
}
