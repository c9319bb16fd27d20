//! Vector micro-operations: `op × lane type` over 128-bit lanes; see the table in each family.
//! (interface; families are being filled in)

use crate::fp::Ex;

/// One 128-bit lane, low word first.
pub type V128 = [u64; 2];

/// Sources of a vector operation.
#[derive(Clone, Copy, Debug, Default)]
pub struct V3 {
    /// First source (for two-operand SSE forms: the destination's old value).
    pub a: V128,
    /// Second source.
    pub b: V128,
    /// Third source (implicit XMM0, FMA addend, or integer registers handed in as words).
    pub c: V128,
}
/// placeholder until the families land
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum VecOp { /// none
 #[default] None }
/// unused
pub fn ex() -> Ex { Ex::empty() }
