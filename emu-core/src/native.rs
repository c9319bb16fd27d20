//! The interface between the run loop and a code generator: what translated host code finds in the
//! CPU, and what the block cache tells the generator.
//!
//! A block that is hot is translated as a whole. Its first record becomes `native`, a handler that
//! enters the host code; so everything that leads to the block (links, guards, the jump cache)
//! leads there too, and nothing else of the cache changes. Host code leaves with an exit word as a
//! handler does ([`Leave`](crate::interp::Leave)), whose index is that of the record at which the
//! guest instruction begins (faults) or of the block's last record (ends); or with
//! [`Leave::Next`](crate::interp::Leave::Next) and the record to go on at, in the interpreter.
//!
//! - On entry and on every exit the state is in [`Cpu`] as the interpreter has it: registers, RIP
//!   (that of the block's first byte, or up to date at a block end), budget, flags.
//! - In host code flags live in [`Native::flags`] in the host's form, and go back to [`Cpu::flags`]
//!   when it is left or calls a helper.
//! - Direct exits of host code jump to each other. An exit begins unlinked: it leaves with
//!   `LinkTaken` or `LinkFall`, and the run loop calls [`Translator::link`] when the interpreter's
//!   record is linked. When a block dies, [`Translator::kill`] turns its entry into an exit.

use crate::cpu::{Cpu, Ymm};
use crate::uop::Block;

/// What host code keeps in the CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Native {
    /// Arithmetic flags in the host's form (owned by the generator).
    pub flags: u64,
    /// Address of the level-1 table of the soft TLB for ordinary accesses at the current privilege;
    /// see [`Tlb::table_address`](crate::mem::tlb::Tlb::table_address).
    pub tlb: u64,
    /// Address of guest RAM.
    pub ram: u64,
    /// Not 0 when the slow path of an access, or a helper, has made host code leave: the low byte
    /// of the exit word ([`Leave`](crate::interp::Leave)).
    pub left: u64,
    /// What of the guest's state is in host registers only (owned by the generator, 0 whenever it
    /// does not run): bit 0: vector registers.
    pub live: u64,
    /// Vector temporaries that the generator keeps in host registers, while these are not live.
    pub vectors: [Ymm; 2],
    /// Scratch words of the generator.
    pub scratch: [u64; 4],
}

/// Where a block stands in the cache.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Its first record; also its name in the generator's books.
    pub first: u32,
    /// Its last record: the one that ends it.
    pub last: u32,
    /// For each guest instruction the record at which it begins.
    pub insns: &'a [u32],
    /// RAM offset of its first byte.
    pub off: u64,
    /// Mode it was lifted for.
    pub mode: u32,
}

/// Where a linked exit leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// To the block whose first record this is. As long as that is not translated, the exit goes on
    /// in the interpreter there; once it is, straight to its host code.
    Block(u32),
    /// To the block whose first record is `first`, as long as RIP is mapped to the RAM offset
    /// `off`; `guard` is the interpreter's record that checks it.
    Guarded {
        /// The guard.
        guard: u32,
        /// RAM offset of the block.
        off: u64,
        /// First record of the block.
        first: u32,
    },
}

/// Counters of a generator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NativeStats {
    /// Blocks translated.
    pub blocks: u64,
    /// Guest instructions in them.
    pub insns: u64,
    /// Micro-ops in them.
    pub uops: u64,
    /// Of these, micro-ops without an emitter: executed from their canonical form.
    pub called: u64,
    /// Bytes of host code.
    pub bytes: u64,
    /// Nanoseconds spent translating.
    pub ns: u64,
    /// Exits linked to host code.
    pub links: u64,
    /// Times that all translations were dropped because the buffer was full.
    pub flushes: u64,
}

/// Runs host code from `entry` until it leaves; gives its exit word.
pub type Enter = fn(&mut Cpu, entry: u64) -> u64;

/// A code generator.
pub trait Translator: Send {
    /// How to enter what it makes.
    fn enter(&self) -> Enter;

    /// Translates `block`; gives its entry. `None`: the buffer is full. Then the generator is
    /// [cleared](Self::clear) and asked once more.
    fn translate(&mut self, cpu: &mut Cpu, block: &Block, place: &Place) -> Option<u64>;

    /// The entry of the block whose first record is `first`, if it is translated.
    fn entry(&self, first: u32) -> Option<u64>;

    /// Links an exit of the block whose first record is `from`: where its condition holds (`taken`;
    /// unconditional ones too) or does not. Nothing happens if `from` is not translated; when it is
    /// later, it must be linked again.
    fn link(&mut self, from: u32, taken: bool, to: Target);

    /// The dispatcher has looked up the block whose first record is `first`: if the generator has a
    /// table of its own for indirect jumps, the block belongs into it again.
    fn found(&mut self, _first: u32) {}

    /// The block whose first record is `first` is dead: its entry leaves with
    /// [`Leave::Lookup`](crate::interp::Leave::Lookup) from now on.
    fn kill(&mut self, first: u32);

    /// Drops everything.
    fn clear(&mut self);

    /// Counters.
    fn stats(&self) -> NativeStats;
}
