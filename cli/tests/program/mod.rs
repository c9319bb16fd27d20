//! Runs the built program, and makes small ROMs for it.
#![allow(dead_code)] // every test file uses its part

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

/// The program's path.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_ring3");

/// The program with `arguments`, its lines not yet connected.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What a run of the program gave.
pub struct Run {
    /// Exit status; `None` when a signal killed it.
    pub status: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Run {
    fn from(out: Output) -> Run {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        Run { status: out.status.code(), stdout: text(&out.stdout), stderr: text(&out.stderr) }
    }
}

/// Runs the program without input.
pub fn ring3(arguments: &[&str]) -> Run {
    command(arguments).output().unwrap().into()
}

/// Runs the program with `input`.
pub fn ring3_with(arguments: &[&str], input: &[u8]) -> Run {
    let mut child = command(arguments).stdin(Stdio::piped()).spawn().unwrap();
    // A program that does not read its input closes the pipe.
    let _ = child.stdin.take().unwrap().write_all(input);
    finish(child)
}

/// Waits for the end of a run.
pub fn finish(child: Child) -> Run {
    child.wait_with_output().unwrap().into()
}

/// A folder for one test, gone after it.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("ring3-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    pub fn file(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    /// A ROM of 64 KiB that runs `code` in real mode, with CS at its start and then halts.
    pub fn rom(&self, name: &str, code: &[u8]) -> String {
        let mut rom = vec![0; 0x1_0000];
        rom[..code.len()].copy_from_slice(code);
        rom[code.len()..code.len() + HALT.len()].copy_from_slice(HALT);
        // jmp near to offset 0.
        rom[0xfff0..0xfff3].copy_from_slice(&[0xe9, 0x0d, 0x00]);
        self.file(name, &rom)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// cli; hlt; jmp to the hlt.
pub const HALT: &[u8] = &[0xfa, 0xf4, 0xeb, 0xfd];

/// Sends back what comes in at COM1: mov dx, 3fdh; in al, dx; test al, 1; jz; mov dx, 3f8h;
/// in al, dx; out dx, al; jmp.
pub const ECHO: &[u8] =
    &[0xba, 0xfd, 3, 0xec, 0xa8, 1, 0x74, 0xf8, 0xba, 0xf8, 3, 0xec, 0xee, 0xeb, 0xf1];

/// Writes to COM1 for ever: mov dx, 3f8h; mov al, 'x'; out dx, al; jmp.
pub const SPAM: &[u8] = &[0xba, 0xf8, 3, 0xb0, b'x', 0xee, 0xeb, 0xfd];

/// Writes "hi\n" to COM1.
pub const HI: &[u8] = &[0xba, 0xf8, 3, 0xb0, b'h', 0xee, 0xb0, b'i', 0xee, 0xb0, b'\n', 0xee];

/// mov al, 10h; out 0f4h, al.
pub const DEBUG_EXIT: &[u8] = &[0xb0, 0x10, 0xe6, 0xf4];

/// mov dx, 604h; mov ax, 2000h; out dx, ax.
pub const POWER_OFF: &[u8] = &[0xba, 4, 6, 0xb8, 0, 0x20, 0xef];

/// mov dx, 0cf9h; mov al, 6; out dx, al.
pub const RESET: &[u8] = &[0xba, 0xf9, 0x0c, 0xb0, 6, 0xee];

/// lidt cs:[100h] (limit 0); int3.
pub const TRIPLE_FAULT: &[u8] = &[0x2e, 0x0f, 0x01, 0x1e, 0, 1, 0xcc];
