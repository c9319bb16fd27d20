//! The instruction table's row: one per mnemonic, its attributes and its lifter.

use crate::lift::Lift;
use emu_core::fault::Guest;
use iced_x86::Mnemonic;

bitflags::bitflags! {
    /// Attributes of an instruction that the lifter checks for all rows in one place.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Attr: u16 {
        /// #GP(0) unless CPL = 0 (SDM Vol. 3, 5.9).
        const PRIV = 1 << 0;
        /// #UD in real and virtual-8086 mode.
        const PROT = 1 << 1;
        /// SSE state: #UD if CR0.EM or not CR4.OSFXSR, #NM if CR0.TS.
        const SSE = 1 << 2;
        /// MMX state: #UD if CR0.EM, #NM if CR0.TS.
        const MMX = 1 << 3;
        /// x87 state: #NM if CR0.EM or CR0.TS.
        const X87 = 1 << 4;
        /// A string instruction: tells MOVSD and CMPSD from the SSE2 instructions of that name.
        const STRING = 1 << 5;
        /// AVX state: #UD unless CR4.OSXSAVE and XCR0[2:1] = 11b, #NM if CR0.TS.
        const AVX = 1 << 6;
        /// Neither SSE nor x87 state is checked for this form of an SSE-era instruction.
        const NONE = 0;
    }
}

/// Popek and Goldberg's classes (CACM 1974), with what the instruction is sensitive by. What ring 3
/// gets of it, and forms that alone are sensitive (MOV to CR0), are in [`crate::sensitive`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Neither reads nor changes the machine's resources.
    Innocuous,
    /// Changes resources or mode: control-sensitive.
    Control,
    /// Its result depends on resources, mode or real location: behaviour-sensitive.
    Behaviour,
}

/// An instruction's lifter: appends its micro-ops. `Err` is a fault that the instruction always
/// raises in this form and mode; what was appended is dropped then.
pub type LiftFn = fn(&mut Lift) -> Guest<()>;

/// A row of the instruction table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Mnemonic; all its encodings.
    pub mnemonic: Mnemonic,
    /// Attributes.
    pub attr: Attr,
    /// Popek-Goldberg class.
    pub class: Class,
    /// Lifter.
    pub lift: LiftFn,
}

/// Writes a family's rows: `Mnemonic: ATTR | ATTR, Class, lifter;`.
#[macro_export]
macro_rules! rows {
    ($($m:ident: $($a:ident)|+, $c:ident, $l:expr;)*) => {
        /// The family's rows.
        pub static ROWS: &[$crate::row::Row] = &[$($crate::row::Row {
            mnemonic: iced_x86::Mnemonic::$m,
            attr: $crate::row::Attr::empty()$(.union($crate::row::Attr::$a))+,
            class: $crate::row::Class::$c,
            lift: $l,
        },)*];
    };
}

/// Writes a family's helpers: `NAME = "name" function;`, or `NAME = "name" function, Quick;`, as
/// statics and as the list `HELPERS`.
#[macro_export]
macro_rules! helpers {
    ($($n:ident = $name:literal $f:path $(, $quick:ident)?;)*) => {
        $(static $n: emu_core::uop::HelperDef =
            emu_core::uop::HelperDef::new($name, $f)
                $(.quick(emu_core::uop::Quick::$quick))?;)*
        /// The family's helpers.
        pub static HELPERS: &[&emu_core::uop::HelperDef] = &[$(&$n,)*];
    };
}
