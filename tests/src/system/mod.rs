//! System tests: small guests in full-system images, each chapter a part of the manual.
//!
//! ```text
//! chapter (rows) ──image──► ROM ──► ring3's machine, or QEMU ──► port E9H: "name: observed" lines
//! ```
//!
//! A row is a name, the mode it starts in, the manual's section that demands the result, the
//! expected observation, and the code. A chapter is a file with a table of them; [`image`] makes
//! one ROM of it, [`run`] runs that on our machine and under QEMU. The expectation is the manual's
//! word, never an emulator's.
//!
//! The observation of a row: numbers in hexadecimal, "ok" for a guarded piece of code that went
//! through, `#GP(18)` for an exception with its error code, `#PF(2)@30000` with CR2 too, " INT 21"
//! for vectors without a name, "shutdown" for a triple fault.

pub mod asm;
pub mod image;
pub mod layout;
pub mod run;

mod debug;
mod interrupts;
mod keys;
mod long;
mod paging;
mod protected;
mod real;
mod registers;
mod strings;
mod switches;
mod tasks;
mod virtual8086;

use asm::{Asm, Emit};

/// The mode that a row starts in; paging maps linear to equal physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Real mode: CS, DS and ES at the image, FS and SS at 0.
    Real,
    /// Protected mode with 16-bit code and stack at CPL 0.
    Protected16,
    /// Protected mode without paging, 32-bit code at CPL 0.
    Protected,
    /// The same at CPL 3.
    Protected3,
    /// With 32-bit paging, CR4.PSE = 1.
    Legacy,
    /// The same at CPL 3, all pages below 2 MiB user pages.
    Legacy3,
    /// With PAE paging.
    Pae,
    /// The same at CPL 3, all pages below 2 MiB user pages.
    Pae3,
    /// 64-bit code at CPL 0, 4-level paging.
    Long,
    /// The same with user pages below 2 MiB, still at CPL 0.
    LongUser,
    /// The same at CPL 3.
    Long3,
    /// 32-bit code at CPL 0 in long mode.
    Compat,
    /// The same at CPL 3, all pages below 2 MiB user pages.
    Compat3,
    /// Virtual-8086 mode with this IOPL; segments as in real mode.
    Virtual8086(u32),
}

/// A test.
pub struct Row {
    /// What it tests: unique in its chapter.
    pub name: &'static str,
    /// Where it starts.
    pub mode: Mode,
    /// What it must print.
    pub expected: &'static str,
    /// The section of the manual that says so.
    pub source: &'static str,
    /// Emits the code.
    pub code: fn(&mut Asm) -> Emit,
}

/// A file of tests.
pub struct Chapter {
    /// Its name.
    pub name: &'static str,
    /// Its tests.
    pub rows: &'static [Row],
}

/// All chapters.
pub static CHAPTERS: &[Chapter] = &[
    Chapter { name: "real", rows: real::ROWS },
    Chapter { name: "protected", rows: protected::ROWS },
    Chapter { name: "paging", rows: paging::ROWS },
    Chapter { name: "keys", rows: keys::ROWS },
    Chapter { name: "long", rows: long::ROWS },
    Chapter { name: "virtual8086", rows: virtual8086::ROWS },
    Chapter { name: "interrupts", rows: interrupts::ROWS },
    Chapter { name: "tasks", rows: tasks::ROWS },
    Chapter { name: "switches", rows: switches::ROWS },
    Chapter { name: "debug", rows: debug::ROWS },
    Chapter { name: "registers", rows: registers::ROWS },
    Chapter { name: "strings", rows: strings::ROWS },
];

/// Expands a table of rows: `"name", Mode, "expected", "source", |s| { op(args); … }`, where each
/// statement is a method of [`Asm`]. Arguments are evaluated first, so they may use `s` too.
macro_rules! rows {
    ($($name:literal, $mode:expr, $expected:literal, $source:literal,
        |$s:ident| { $($op:ident ( $($arg:expr),* $(,)? ));* $(;)? })*) => {
        /// The tests of this chapter.
        pub static ROWS: &[crate::system::Row] = &[$(crate::system::Row {
            name: $name,
            mode: { #[allow(unused_imports)] use crate::system::Mode::*; $mode },
            expected: $expected,
            source: $source,
            code: |$s| { $(crate::system::op!($s, $op, $($arg),*);)* Ok(()) },
        }),*];
    };
}

/// One statement of a row; `with(f)` emits what the function `f` does.
macro_rules! op {
    ($s:ident, with, $f:expr) => {{
        let f: fn(&mut crate::system::asm::Asm) -> crate::system::asm::Emit = $f;
        f($s)?
    }};
    ($s:ident, $op:ident,) => {
        $s.$op()?
    };
    ($s:ident, $op:ident, $a:expr) => {{
        let a = $a;
        $s.$op(a)?
    }};
    ($s:ident, $op:ident, $a:expr, $b:expr) => {{
        let (a, b) = ($a, $b);
        $s.$op(a, b)?
    }};
    ($s:ident, $op:ident, $a:expr, $b:expr, $c:expr) => {{
        let (a, b, c) = ($a, $b, $c);
        $s.$op(a, b, c)?
    }};
}

use {op, rows};
