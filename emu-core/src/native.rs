//! The interface between the run loop and a code generator: what translated host code finds in the
//! CPU, and what the block cache tells the generator.
//!
//! A block that is hot is translated as a whole, together with blocks of its page that it leads to:
//! a region, entered at that block, its head. The head's first record becomes `native`, a handler
//! that enters the host code; so everything that leads to the block (links, guards, the jump cache)
//! leads there too, and nothing else of the cache changes. Host code leaves with an exit word as a
//! handler does ([`Leave`](crate::interp::Leave)), whose index is that of the record at which the
//! guest instruction begins (faults) or of the block's last record (ends); or with
//! [`Leave::Next`](crate::interp::Leave::Next) and the record to go on at, in the interpreter.
//!
//! - On entry and on every exit the state is in [`Cpu`] as the interpreter has it: registers, RIP
//!   (that of the block's first byte, or up to date at a block end), budget, flags.
//! - In host code flags live in [`Native::flags`] in the host's form, and go back to [`Cpu::flags`]
//!   when it is left or calls a helper.
//! - Direct exits of a region jump to other regions. An exit begins unlinked: it leaves with
//!   `LinkTaken` or `LinkFall`, and the run loop calls [`Translator::link`] when the interpreter's
//!   record is linked. When a block dies, so do all regions that it is part of
//!   ([`Translator::kill`]): their entries become exits.

use crate::cpu::{Cpu, Ymm};
use crate::uop::Block;

/// What host code keeps in the CPU.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Native {
    /// Arithmetic flags in the host's form (owned by the generator).
    pub flags: u64,
    /// Address of the level-1 table of the soft TLB for ordinary accesses at the current privilege;
    /// see [`Tlb::table_address`](crate::mem::tlb::Tlb::table_address).
    pub tlb: u64,
    /// Address of the one for fetches.
    pub fetches: u64,
    /// Address of guest RAM.
    pub ram: u64,
    /// Not 0 when the slow path of an access, or a helper, has made host code leave: the low byte
    /// of the exit word ([`Leave`](crate::interp::Leave)).
    pub left: u64,
    /// Number of what fetches are translated to; see [`Tlb::epoch`](crate::mem::tlb::Tlb::epoch).
    pub epoch: u64,
    /// Address of a byte that is 0 when no interrupt is requested; see
    /// [`Platform::request_flag`](crate::platform::Platform::request_flag).
    pub pending: u64,
    /// Address of the table of [`Targets`] that indirect jumps look into.
    pub table: u64,
    /// What of the guest's state is in host registers only (owned by the generator, 0 whenever it
    /// does not run): bit 0: vector registers; bit 1: the x87.
    pub live: u64,
    /// The run loop writes a trace: what it must see is not to be gone on after without it.
    pub traced: bool,
    /// What a strip of a loop's iterations has been found to need (owned by the generator).
    pub strip: [u64; STRIP],
    /// For loops, by a hash of their place: ways back that are to be taken before the next strip is
    /// set up (owned by the generator).
    pub waits: [u8; WAITS],
    /// Vector temporaries that the generator keeps in host registers, while these are not live.
    pub vectors: [Ymm; 2],
    /// The x87 on its way: as FNSAVE stores it in 32-bit protected mode.
    pub x87: X87Image,
    /// All of these tables.
    pub targets: Targets,
}

/// Words in [`Native::strip`].
pub const STRIP: usize = 12;
/// Bytes in [`Native::waits`].
pub const WAITS: usize = 32;

/// What FNSAVE stores.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(16))]
pub struct X87Image(pub [u8; 112]);

impl Default for X87Image {
    fn default() -> X87Image {
        X87Image([0; 112])
    }
}

/// Entries of a table of [`Targets`].
pub const TARGETS: usize = 1024;

/// Host code by the linear address of the guest's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct HostTarget {
    /// Linear address of a block's first byte.
    pub va: u64,
    /// Its entry.
    pub host: u64,
}

/// No code is there: the address belongs to another entry.
const fn nowhere(index: usize) -> HostTarget {
    HostTarget { va: index as u64 ^ 1, host: 0 }
}

/// Entries of a table that are listed, so that it is emptied at a cost by what was filled.
pub const LISTED: usize = 128;

/// A table of [`Targets`].
#[derive(Clone)]
#[repr(C)]
pub struct TargetTable {
    /// By the low bits of the address.
    pub entries: [HostTarget; TARGETS],
    /// How many have been filled, [`LISTED`] + 1 at most.
    pub filled: u32,
    /// Which: their distances in bytes from the table's start.
    pub list: [u32; LISTED + 1],
}

/// An empty table.
const EMPTY: TargetTable = {
    let mut entries = [nowhere(0); TARGETS];
    let mut n = 1;
    while n < TARGETS {
        entries[n] = nowhere(n);
        n += 1;
    }
    TargetTable { entries, filled: 0, list: [0; LISTED + 1] }
};

impl TargetTable {
    fn clear(&mut self) {
        let Some(list) = self.list[..LISTED].get(..self.filled as usize) else {
            return self.clone_from(&EMPTY);
        };
        for &at in list {
            let n = at as usize / size_of::<HostTarget>() % TARGETS;
            self.entries[n] = nowhere(n);
        }
        self.filled = 0;
    }
}

/// Where indirect jumps of host code find their targets: one table for each of the last few modes
/// and mappings (epochs), filled by host code.
pub struct Targets {
    tables: Box<[TargetTable]>,
    /// Mode and epoch that each table is valid for.
    keys: [(u32, u32); Self::TABLES],
    current: usize,
    next: usize,
}

impl std::fmt::Debug for Targets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Targets {{ current: {}, keys: {:?} }}", self.current, self.keys)
    }
}

impl Default for Targets {
    fn default() -> Targets {
        let tables = vec![EMPTY; Self::TABLES].into_boxed_slice();
        Targets { tables, keys: [(0, 0); Self::TABLES], current: 0, next: 0 }
    }
}

impl Targets {
    const TABLES: usize = 8;

    /// Selects the table for `mode` and `epoch`, an empty one if there is none; gives its address.
    #[inline]
    pub fn select(&mut self, mode: u32, epoch: u32) -> u64 {
        if self.keys[self.current] != (mode, epoch) {
            self.current =
                self.keys.iter().position(|k| *k == (mode, epoch)).unwrap_or_else(|| {
                    let n = self.next;
                    self.next = (n + 1) % Self::TABLES;
                    self.keys[n] = (mode, epoch);
                    self.tables[n].clear();
                    n
                });
        }
        &raw mut self.tables[self.current] as u64
    }

    /// Forgets what is known of a block at RAM offset `off`, which has the low bits of its address:
    /// when it is translated anew, the old entry only leaves.
    pub fn forget(&mut self, off: u64) {
        const _: () = assert!(TARGETS <= 4096, "within a page");
        let n = off as usize & (TARGETS - 1);
        self.tables.iter_mut().for_each(|table| table.entries[n] = nowhere(n));
    }

    /// Empties all tables.
    pub fn clear(&mut self) {
        self.tables.iter_mut().for_each(TargetTable::clear);
    }
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
    /// RAM offset of the page that its last instruction goes on in, if it straddles two: its code
    /// is entered only while that page follows. Of a region only the head may be such a block.
    pub second: Option<u64>,
    /// Mode it was lifted for.
    pub mode: u32,
}

impl Place<'_> {
    /// How many of its bytes are in its page, if it straddles two.
    pub fn in_page(&self) -> u64 {
        4096 - (self.off & 4095)
    }
}

/// A block of a region.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// What it does.
    pub block: &'a Block,
    /// Where it stands.
    pub place: Place<'a>,
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
    /// Regions translated.
    pub regions: u64,
    /// Blocks in them.
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
    /// Times that translations were dropped because the buffer was full.
    pub evictions: u64,
}

/// An instruction of host code, for reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostInsn {
    /// Its label, if something in the block jumps there.
    pub label: Option<usize>,
    /// Index of the guest instruction that it is for.
    pub insn: usize,
    /// Whether it is out of line.
    pub cold: bool,
    /// It in assembly language. Names stand for what differs from one run to the next.
    pub text: String,
}

/// Runs host code from `entry` until it leaves; gives its exit word.
pub type Enter = fn(&mut Cpu, entry: u64) -> u64;

/// A code generator.
pub trait Translator: Send {
    /// How to enter what it makes.
    fn enter(&self) -> Enter;

    /// Translates a region; its head is the first of `parts`, and the others are blocks of the same
    /// page and mode. A generator may leave out all but the head. Gives the entry. `None`: the
    /// buffer is full. Then the generator must [make room](Self::evict), and is asked once more.
    fn translate(&mut self, parts: &[Part]) -> Option<u64>;

    /// The entry of the region whose head is the block whose first record is `first`, if it is
    /// translated.
    fn entry(&self, first: u32) -> Option<u64>;

    /// Links an exit of the block whose first record is `from`: where its condition holds (`taken`;
    /// unconditional ones too) or does not. Nothing happens if `from` is not translated; when it is
    /// later, it must be linked again. In which regions it is makes no difference.
    fn link(&mut self, from: u32, taken: bool, to: Target);

    /// The dispatcher has looked up the block whose first record is `first`: if the generator has a
    /// table of its own for indirect jumps behind [`Targets`], the block belongs into it again.
    fn found(&mut self, _first: u32) {}

    /// The block whose first record is `first` is dead: the entries of the regions that it is part
    /// of leave with [`Leave::Lookup`](crate::interp::Leave::Lookup) from now on. Gives the other
    /// blocks that were heads of those.
    fn kill(&mut self, first: u32) -> Vec<u32>;

    /// Drops regions, those that were translated first; gives their heads.
    fn evict(&mut self) -> Vec<u32>;

    /// Slots of the TLB, counted through both sets, that have been filled very often: their
    /// accesses are better off without. Gives the heads of the regions that are dropped for it, to
    /// be translated anew.
    fn without_slots(&mut self, _slots: &[usize]) -> Vec<u32> {
        Vec::new()
    }

    /// Drops everything.
    fn clear(&mut self);

    /// Counters.
    fn stats(&self) -> NativeStats;

    /// Host code that belongs to no block: address, bytes and name.
    fn routines(&self) -> Vec<(u64, u64, &'static str)> {
        Vec::new()
    }

    /// The host code of the block whose first record is `first`, as it is now. Empty if it is not
    /// translated.
    fn listing(&self, _first: u32) -> Vec<HostInsn> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As host code does it.
    fn fill(targets: &mut Targets, n: usize) {
        let table = &mut targets.tables[targets.current];
        table.entries[n] = HostTarget { va: n as u64, host: 0x5678 };
        if let Some(listed) = table.list.get_mut(table.filled as usize) {
            *listed = (n * size_of::<HostTarget>()) as u32;
            table.filled += 1;
        }
    }

    #[test]
    fn tables_are_emptied_however_many_entries_were_filled() {
        for count in [0, 1, LISTED - 1, LISTED, LISTED + 1, TARGETS] {
            let mut targets = Targets::default();
            targets.select(1, 1);
            (0..count).for_each(|n| fill(&mut targets, n));
            fill(&mut targets, 0);
            let taken = targets.current;
            (2..).take(Targets::TABLES).for_each(|epoch| _ = targets.select(1, epoch));
            let table = &targets.tables[taken];
            assert_eq!((table.filled, &table.entries), (0, &EMPTY.entries), "{count}");
        }
    }

    #[test]
    fn a_target_is_forgotten_in_all_tables() {
        let mut targets = Targets::default();
        let known = HostTarget { va: 0xffff_8000_0000_1234, host: 0x5678 };
        for mode in 1..4 {
            targets.select(mode, 1);
            targets.tables[targets.current].entries[0x234] = known;
        }
        targets.forget(0x9_9235);
        assert_eq!(targets.tables.iter().filter(|t| t.entries[0x234] == known).count(), 3);
        targets.forget(0x9_9234);
        assert!(targets.tables.iter().all(|t| t.entries[0x234] == nowhere(0x234)));
    }
}
