//! Faults: what a guest instruction may raise instead of finishing. A fault is a value; it is
//! delivered by the frontend (SDM Vol. 3, chapter 6) and never a Rust panic.

/// An architectural exception, ready for delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Exception vector, 0–31.
    pub vector: u8,
    /// Error code to push, for the vectors that have one.
    pub error: Option<u32>,
    /// Linear address for CR2; only meaningful for #PF.
    pub address: u64,
}

/// Result of anything that may raise a guest fault.
pub type Guest<T> = Result<T, Fault>;

/// Exception vectors (SDM Vol. 3, table 6-1).
pub mod vector {
    #![allow(missing_docs)] // the names are the manual's mnemonics
    pub const DE: u8 = 0;
    pub const DB: u8 = 1;
    pub const NMI: u8 = 2;
    pub const BP: u8 = 3;
    pub const OF: u8 = 4;
    pub const BR: u8 = 5;
    pub const UD: u8 = 6;
    pub const NM: u8 = 7;
    pub const DF: u8 = 8;
    pub const TS: u8 = 10;
    pub const NP: u8 = 11;
    pub const SS: u8 = 12;
    pub const GP: u8 = 13;
    pub const PF: u8 = 14;
    pub const MF: u8 = 16;
    pub const AC: u8 = 17;
    pub const MC: u8 = 18;
    pub const XM: u8 = 19;
}

impl Fault {
    /// Exception `vector` without an error code.
    pub const fn new(vector: u8) -> Fault {
        Fault { vector, error: None, address: 0 }
    }

    /// Exception `vector` with error code `error`.
    pub const fn with_error(vector: u8, error: u32) -> Fault {
        Fault { vector, error: Some(error), address: 0 }
    }

    /// #PF at linear `address` with error code `error` (SDM Vol. 3, 4.7).
    pub const fn page(address: u64, error: u32) -> Fault {
        Fault { vector: vector::PF, error: Some(error), address }
    }

    /// #UD.
    pub const UD: Fault = Fault::new(vector::UD);
    /// #NM.
    pub const NM: Fault = Fault::new(vector::NM);
    /// #DE.
    pub const DE: Fault = Fault::new(vector::DE);
    /// #MF.
    pub const MF: Fault = Fault::new(vector::MF);
    /// #XM.
    pub const XM: Fault = Fault::new(vector::XM);
    /// #GP(0).
    pub const GP0: Fault = Fault::with_error(vector::GP, 0);
    /// #SS(0).
    pub const SS0: Fault = Fault::with_error(vector::SS, 0);

    /// #GP with a selector (its low two bits cleared) or other error code.
    pub const fn gp(error: u32) -> Fault {
        Fault::with_error(vector::GP, error)
    }
}
