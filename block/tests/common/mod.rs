//! What the tests share: `qemu-img`, a disk that is waited for, repeatable random numbers.

#![allow(dead_code, reason = "each test uses a part of it")]

use block::{Image, ImageDisk, OpenError, Options, Wake};
use devices::disk::{Disk, DiskError, Request};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Condvar, Mutex};

/// Runs `qemu-img` (Debian's package qemu-utils) in `folder`.
pub fn qemu_img(folder: &Path, args: &str) -> Output {
    let run = Command::new("qemu-img").args(args.split(' ')).current_dir(folder).output();
    run.expect("qemu-img is needed for this test")
}

/// The same; it must succeed.
pub fn qemu_img_ok(folder: &Path, args: &str) {
    let out = qemu_img(folder, args);
    let text = String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "qemu-img {args}: {text}");
}

/// What opening fails with.
pub fn refused(path: &Path, options: &Options) -> OpenError {
    match Image::open(path, options) {
        Err(e) => e,
        Ok(_) => panic!("{} was opened", path.display()),
    }
}

/// A disk whose requests are waited for.
pub struct Waited {
    pub disk: ImageDisk,
    bell: Arc<(Mutex<bool>, Condvar)>,
}

impl Waited {
    /// Opens an image, with a thread or without.
    pub fn open(path: &Path, options: &Options, thread: bool) -> Waited {
        let image = Image::open(path, options).unwrap_or_else(|e| panic!("{e}"));
        Waited::on(|wake| image.into_disk(wake).unwrap(), thread)
    }

    /// Makes a disk that rings when something is finished.
    pub fn on(make: impl FnOnce(Option<Wake>) -> ImageDisk, thread: bool) -> Waited {
        let bell = Arc::new((Mutex::new(false), Condvar::new()));
        let ring = bell.clone();
        let wake: Wake = Arc::new(move || {
            *ring.0.lock().unwrap() = true;
            ring.1.notify_one();
        });
        Waited { disk: make(thread.then_some(wake)), bell }
    }

    /// Waits for any request.
    pub fn next(&mut self) -> (u64, Result<Vec<u8>, DiskError>) {
        loop {
            if let Some(done) = self.disk.finished() {
                return done;
            }
            let mut rung = self.bell.0.lock().unwrap();
            while !*rung {
                rung = self.bell.1.wait(rung).unwrap();
            }
            *rung = false;
        }
    }

    /// Does one request.
    pub fn serve(&mut self, request: Request) -> Result<Vec<u8>, DiskError> {
        self.disk.submit(77, request);
        let (number, result) = self.next();
        assert_eq!(number, 77);
        result
    }

    pub fn read(&mut self, offset: u64, len: usize) -> Vec<u8> {
        self.serve(Request::Read { offset, len }).unwrap()
    }

    pub fn write(&mut self, offset: u64, data: Vec<u8>) {
        assert_eq!(self.serve(Request::Write { offset, data }), Ok(Vec::new()));
    }
}

/// xorshift64*.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
