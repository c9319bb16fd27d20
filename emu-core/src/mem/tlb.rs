//! The soft TLB: two levels in front of the architectural page walk (which is the frontend's).
//!
//! **Level 1** is what every guest access looks at: direct-mapped tables of 16384 entries, for data
//! with one tag each for reads and writes, for fetches with one, and an addend that turns a linear
//! address into an offset of [`GuestRam`](super::GuestRam). A tag is a page address; an access of
//! `n` bytes at `va` hits when `va - tag <= 4096 - n`, which is exact for unaligned accesses and
//! misses on page crossings. An entry that must not hit holds a tag whose index bits differ from
//! its own index. There is a table per address space and privilege, so rights are in the tags and a
//! switch of address space or privilege is a change of table. Devices and first writes (dirty bit)
//! never get a tag: they take the slow path, and the others pay nothing for them. Nor do stores to
//! pages with code; for them there is a tag of its own, by which the slow path knows where they go.
//!
//! **Level 2** holds walk results (4 KiB, 2 MiB, 4 MiB and 1 GiB pages) whatever the privilege,
//! tagged with the id of the address space or of the global one. Flushing an address space is
//! giving it a new id, and clearing what its tables of level 1 hold but global pages.
//!
//! **Slots** are the innermost level, of host code alone: the page that an access has last found at
//! level 1, and where that is in host memory. There is a set for code at CPL 3 and one for the
//! rest. A set belongs to one table, and is emptied when code runs with another one or a
//! translation is dropped.
//!
//! The layout of [`Entry`], [`Fetch`] and [`Slots`] is `repr(C)`: host code uses them as they are.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::AtomicU64;

/// log2 of the entries per level-1 table.
pub const L1_BITS: u32 = 14;
/// Entries of a level-1 table.
pub const L1: usize = 1 << L1_BITS;
const L2_SMALL: usize = 4096;
const L2_LARGE: usize = 256;
/// Address spaces held at once.
const SPACES: usize = 8;

/// Privilege of an access: which of an address space's tables it uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Privilege {
    /// CPL 0–2, and implicit supervisor accesses (descriptor tables, TSS), with SMAP in force.
    Supervisor = 0,
    /// CPL 3.
    User = 1,
    /// CPL 0–2 with EFLAGS.AC = 1: SMAP suspended.
    SupervisorAc = 2,
    /// CPL 3 with alignment checking: its table never holds a data tag, so that every access takes
    /// the slow path, which checks.
    UserAligned = 3,
}

/// Kind of an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Data read.
    Read,
    /// Data write (also the read of a read-modify-write).
    Write,
    /// Instruction fetch.
    Exec,
}

/// A level-1 entry for data. Aligned, so that it lies in one line of the host's cache.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(32))]
pub struct Entry {
    /// Page address for reads, or a miss.
    pub read: u64,
    /// Page address for writes, or a miss.
    pub write: u64,
    /// Page address for writes that may hit code, or a miss.
    pub code: u64,
    /// RAM offset of the page minus its linear address.
    pub addend: u64,
}

/// A level-1 entry for fetches.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(16))]
pub struct Fetch {
    /// Page address, or a miss.
    pub tag: u64,
    /// RAM offset of the page minus its linear address.
    pub addend: u64,
}

/// Number of slots in a set.
pub const SLOTS: usize = 256;

/// Pages as host code keeps them: an access of `n` bytes at `va` hits when `va - page <= 4096 - n`.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct Slots {
    /// Linear addresses of the pages, those for CPL 3 in the second set.
    pub pages: [[u64; SLOTS]; 2],
    /// Where they are.
    pub at: [[SlotPlace; SLOTS]; 2],
    /// How often each has been filled since [`Tlb::busy_slots`] was asked.
    pub fills: [[u64; SLOTS]; 2],
}

/// Where the page of a slot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SlotPlace {
    /// Its address in host memory.
    pub host: u64,
    /// That less the linear address.
    pub addend: u64,
}

/// A tag that never hits at `index`.
const fn miss(index: usize) -> u64 {
    (index as u64 ^ 1) << 12
}

/// An entry of either kind.
trait Tagged: Copy {
    /// The entry at index `i` that nothing hits.
    fn empty(i: usize) -> Self;
    /// Its tags.
    fn tags(&self) -> impl Iterator<Item = u64>;
}

impl Tagged for Entry {
    fn empty(i: usize) -> Entry {
        Entry { read: miss(i), write: miss(i), code: miss(i), addend: 0 }
    }
    fn tags(&self) -> impl Iterator<Item = u64> {
        [self.read, self.write, self.code].into_iter()
    }
}

impl Tagged for Fetch {
    fn empty(i: usize) -> Fetch {
        Fetch { tag: miss(i), addend: 0 }
    }
    fn tags(&self) -> impl Iterator<Item = u64> {
        std::iter::once(self.tag)
    }
}

/// A set of indices of a level-1 table.
type Set = [u64; L1 / 64];

fn is_in(set: &Set, i: usize) -> bool {
    set[i / 64 % (L1 / 64)] >> (i % 64) & 1 != 0
}

fn put_in(set: &mut Set, i: usize, on: bool) {
    let (word, bit) = (&mut set[i / 64 % (L1 / 64)], 1 << (i % 64));
    *word = if on { *word | bit } else { *word & !bit };
}

/// What the page of an entry is besides its rights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kind {
    /// Global: flushes of the address space leave it.
    pub global: bool,
    /// A 4 KiB part of a larger page.
    pub large: bool,
}

/// The entries of one kind in a level-1 table, and what must be known to clear them at a cost by
/// what was filled.
struct Part<E> {
    entries: Box<[E; L1]>,
    /// Indices filled since the last flush that took them: `[0]` by pages of the address space,
    /// `[1]` by global ones. An index may be in both.
    filled: [Vec<u16>; 2],
    /// Which indices these are.
    listed: [Set; 2],
    /// Which indices hold a global page.
    global: Set,
    /// Which indices hold a part of a larger page.
    large: Set,
    /// In which GiB, modulo 64, such parts are.
    large_in: u64,
}

impl<E: Tagged> Part<E> {
    fn new() -> Part<E> {
        let none = [0; L1 / 64];
        let entries: Vec<E> = (0..L1).map(E::empty).collect();
        let Ok(entries) = entries.try_into() else { unreachable!("as many as there are") };
        let filled = Default::default();
        Part { entries, filled, listed: [none; 2], global: none, large: none, large_in: 0 }
    }

    /// Makes `e` the entry for the page of `va`.
    fn fill(&mut self, va: u64, e: E, kind: Kind) {
        let i = Tlb::index(va);
        self.entries[i] = e;
        let list = usize::from(kind.global);
        if !is_in(&self.listed[list], i) {
            put_in(&mut self.listed[list], i, true);
            self.filled[list].push(i as u16);
        }
        put_in(&mut self.global, i, kind.global);
        put_in(&mut self.large, i, kind.large);
        self.large_in |= u64::from(kind.large) << (va >> 30 & 63);
    }

    fn drop_entry(&mut self, i: usize) {
        self.entries[i] = E::empty(i);
        put_in(&mut self.large, i, false);
    }

    /// Forgets all entries but those of global pages, or these too; whether there were any.
    fn clear(&mut self, global: bool) -> bool {
        let mut any = false;
        for list in 0..=usize::from(global) {
            let mut filled = std::mem::take(&mut self.filled[list]);
            for i in filled.drain(..).map(usize::from) {
                put_in(&mut self.listed[list], i, false);
                if list == usize::from(is_in(&self.global, i)) {
                    self.drop_entry(i);
                    any = true;
                }
            }
            self.filled[list] = filled;
        }
        if global {
            self.large_in = 0;
        }
        any
    }

    /// The page that index `i` is filled with.
    fn page(&self, i: usize) -> Option<u64> {
        self.entries[i].tags().find(|tag| Tlb::index(*tag) == i)
    }

    /// Forgets the page of `va`, and every part of larger pages in the same GiB; whether there were
    /// any.
    fn invalidate(&mut self, va: u64) -> bool {
        let i = Tlb::index(va);
        let mut any = self.page(i) == Some(va & !4095);
        if any {
            self.drop_entry(i);
        }
        if self.large_in >> (va >> 30 & 63) & 1 == 0 {
            return any;
        }
        for word in 0..self.large.len() {
            let mut bits = self.large[word];
            while bits != 0 {
                let i = word * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                if self.page(i).is_some_and(|page| (page ^ va) >> 30 == 0) {
                    self.drop_entry(i);
                    any = true;
                }
            }
        }
        any
    }
}

/// A level-1 table: what is known in one address space at one privilege.
struct Level1 {
    data: Part<Entry>,
    fetches: Part<Fetch>,
    /// See [`Tlb::epoch`].
    epoch: u32,
    /// Pages whose fetch entries others have taken the place of in this epoch.
    replaced: Vec<(u64, Kind)>,
}

impl Level1 {
    /// [`replaced`](Self::replaced) is not to be longer.
    const REPLACED: usize = 64;

    fn new(epoch: u32) -> Box<Level1> {
        let (data, fetches) = (Part::new(), Part::new());
        Box::new(Level1 { data, fetches, epoch, replaced: Vec::new() })
    }

    /// Enters a page for fetches; whether that ends the epoch.
    fn fill_fetch(&mut self, va: u64, e: Fetch, kind: Kind) -> bool {
        let i = Tlb::index(va);
        let (old, new) = (self.fetches.page(i), va & !4095);
        if let Some(old) = old.filter(|old| *old != new) {
            let large = is_in(&self.fetches.large, i);
            self.replaced.push((old, Kind { global: is_in(&self.fetches.global, i), large }));
        }
        let moved = old == Some(new) && self.fetches.entries[i].addend != e.addend;
        self.fetches.fill(va, e, kind);
        moved || self.replaced.len() >= Self::REPLACED
    }

    /// Forgets what is not global, or everything; whether that ends the epoch.
    fn clear(&mut self, global: bool) -> bool {
        self.data.clear(global);
        self.fetches.clear(global) || self.replaced.iter().any(|r| global || !r.1.global)
    }

    /// INVLPG; whether that ends the epoch.
    fn invalidate(&mut self, va: u64) -> bool {
        self.data.invalidate(va);
        let hit =
            |&(page, kind): &(u64, Kind)| (page ^ va) >> if kind.large { 30 } else { 12 } == 0;
        self.fetches.invalidate(va) || self.replaced.iter().any(hit)
    }
}

/// The result of an architectural page walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// Guest-physical address of the page (aligned to its size).
    pub pa: u64,
    /// log2 of the page size: 12, 21, 22 or 30.
    pub shift: u8,
    /// Writes allowed by the R/W bits of all levels.
    pub writable: bool,
    /// User access allowed by the U/S bits of all levels.
    pub user: bool,
    /// Execution allowed (no NX at any level).
    pub exec: bool,
    /// Global page (and CR4.PGE = 1).
    pub global: bool,
    /// The leaf's dirty bit is set.
    pub dirty: bool,
    /// Protection key of the leaf.
    pub key: u8,
}

#[derive(Clone, Copy)]
struct L2Entry {
    page: u64,
    space: u32,
    t: Translation,
}

/// Rights of a level-1 entry for data, at the privilege of the table it goes into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// Reads may take the fast path.
    pub read: bool,
    /// Writes may take the fast path.
    pub write: bool,
    /// Writes may be done without a translation, but must look whether they hit code.
    pub code: bool,
}

/// What the TLB counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TlbStats {
    /// Misses of level 1 (including device accesses and page crossings).
    pub l1_misses: u64,
    /// Of these, how many level 2 answered.
    pub l2_hits: u64,
    /// Architectural page walks.
    pub walks: u64,
    /// Flushes of an address space.
    pub flushes: u64,
    /// Single-page invalidations.
    pub invalidations: u64,
}

#[derive(Clone, Copy)]
struct Space {
    pcid: u16,
    id: u32,
    last_use: u64,
}

/// The TLB of one CPU.
pub struct Tlb {
    /// Table of ordinary accesses at the current privilege.
    table: Box<Level1>,
    /// Its number: address-space slot × 4 + privilege.
    current: usize,
    /// The others that have been used, by number.
    parked: [Option<Box<Level1>>; SPACES * 4],
    spaces: [Space; SPACES],
    slot: usize,
    global_id: u32,
    next_id: u32,
    tick: u64,
    small: Box<[L2Entry]>,
    big: Box<[L2Entry]>,
    /// Filled by host code.
    pub slots: Slots,
    /// The tables that the sets are valid for.
    slots_of: [usize; 2],
    /// What the page of an empty slot is: one that no access means. No tag can be one that hits
    /// nowhere at all; this one is beyond canonical addresses, where a guest would have to find it
    /// among 2^51 to see a page of its own in place of its #GP.
    nowhere: u64,
    /// Where the page of a slot is that was never filled.
    _void: Box<[AtomicU64; 512]>,
    last_epoch: u32,
    /// Counters.
    pub stats: TlbStats,
}

/// In [`Tlb::slots_of`]: no table.
const NO_TABLE: usize = usize::MAX;

const NO_L2: L2Entry = L2Entry {
    page: 0,
    space: 0,
    t: Translation {
        pa: 0,
        shift: 12,
        writable: false,
        user: false,
        exec: false,
        global: false,
        dirty: false,
        key: 0,
    },
};

impl Default for Tlb {
    fn default() -> Tlb {
        Tlb::new()
    }
}

impl Tlb {
    /// An empty TLB in address space 0, supervisor.
    pub fn new() -> Tlb {
        let mut spaces = [Space { pcid: u16::MAX, id: 0, last_use: 0 }; SPACES];
        spaces[0] = Space { pcid: 0, id: 2, last_use: 1 };
        let void = Box::new([const { AtomicU64::new(0) }; 512]);
        let random = RandomState::new().hash_one(0) & !4095;
        let (nowhere, host) = (random & !(1 << 56) | 1 << 63, void.as_ptr() as u64);
        let place = SlotPlace { host, addend: host.wrapping_sub(nowhere) };
        let slots =
            Slots { pages: [[nowhere; SLOTS]; 2], at: [[place; SLOTS]; 2], fills: [[0; SLOTS]; 2] };
        Tlb {
            table: Level1::new(1),
            current: 0,
            parked: Default::default(),
            spaces,
            slot: 0,
            global_id: 1,
            next_id: 3,
            tick: 1,
            small: vec![NO_L2; L2_SMALL].into(),
            big: vec![NO_L2; L2_LARGE].into(),
            slots,
            slots_of: [NO_TABLE; 2],
            nowhere,
            _void: void,
            last_epoch: 1,
            stats: TlbStats::default(),
        }
    }

    const fn index(va: u64) -> usize {
        (va >> 12) as usize & (L1 - 1)
    }

    /// The level-1 entry that `va` would hit at the current privilege.
    #[inline(always)]
    pub fn entry(&self, va: u64) -> &Entry {
        &self.table.data.entries[Self::index(va)]
    }

    /// RAM offset of `n` bytes to read at `va`.
    #[inline(always)]
    pub fn read(&self, va: u64, n: u64) -> Option<u64> {
        let e = self.entry(va);
        (va.wrapping_sub(e.read) <= 4096 - n).then(|| va.wrapping_add(e.addend))
    }

    /// RAM offset of `n` bytes to write at `va`.
    #[inline(always)]
    pub fn write(&self, va: u64, n: u64) -> Option<u64> {
        let e = self.entry(va);
        (va.wrapping_sub(e.write) <= 4096 - n).then(|| va.wrapping_add(e.addend))
    }

    /// The level-1 table of the current address space for privilege `p`, if it has been used.
    #[inline(always)]
    fn table_for(&self, p: Privilege) -> Option<&Level1> {
        let n = self.slot * 4 + p as usize;
        if n == self.current { Some(&self.table) } else { self.parked[n].as_deref() }
    }

    /// [`read`](Self::read) with privilege `p`.
    #[inline(always)]
    pub fn read_as(&self, p: Privilege, va: u64, n: u64) -> Option<u64> {
        let e = &self.table_for(p)?.data.entries[Self::index(va)];
        (va.wrapping_sub(e.read) <= 4096 - n).then(|| va.wrapping_add(e.addend))
    }

    /// [`write`](Self::write) with privilege `p`.
    #[inline(always)]
    pub fn write_as(&self, p: Privilege, va: u64, n: u64) -> Option<u64> {
        let e = &self.table_for(p)?.data.entries[Self::index(va)];
        (va.wrapping_sub(e.write) <= 4096 - n).then(|| va.wrapping_add(e.addend))
    }

    /// RAM offset of `n` bytes to write at `va` in a page that has, or had, code.
    #[inline]
    pub fn write_beside_code(&self, va: u64, n: u64) -> Option<u64> {
        let e = self.entry(va);
        (va.wrapping_sub(e.code) <= 4096 - n).then(|| va.wrapping_add(e.addend))
    }

    /// RAM offset of the instruction byte at `va`.
    #[inline(always)]
    pub fn exec(&self, va: u64) -> Option<u64> {
        let e = &self.table.fetches.entries[Self::index(va)];
        (va.wrapping_sub(e.tag) < 4096).then(|| va.wrapping_add(e.addend))
    }

    /// Address of the table of [`Entry`]s that [`entry`](Self::entry) looks into at the current
    /// privilege, for host code. The entry for a
    /// page is at its number modulo [`L1`]; a table stays where it is as long as the TLB lives.
    pub fn table_address(&self) -> u64 {
        self.table.data.entries.as_ptr() as u64
    }

    /// The same for the table of [`Fetch`]es.
    pub fn fetch_table_address(&self) -> u64 {
        self.table.fetches.entries.as_ptr() as u64
    }

    /// Which set of slots belongs to the current privilege.
    fn slot_set(&self) -> usize {
        const _: () = assert!(Privilege::User as u8 & Privilege::UserAligned as u8 & 1 == 1);
        self.current & 1
    }

    /// Empties the slots of code at the current privilege unless they are valid for the current
    /// table. Before host code runs, and again after all that it calls.
    #[inline]
    pub fn sync_slots(&mut self) {
        let set = self.slot_set();
        let (of, current) = (self.slots_of[set], self.current);
        if of == current {
            return;
        }
        // With SMAP suspended the supervisor has all rights that it had, and more.
        if of ^ current != Privilege::SupervisorAc as usize || of > current {
            self.slots.pages[set] = [self.nowhere; SLOTS];
        }
        self.slots_of[set] = current;
    }

    /// Which slots, counted through both sets, have been filled at least `least` times since the
    /// last call.
    pub fn busy_slots(&mut self, least: u64) -> Vec<usize> {
        let fills = self.slots.fills.as_flattened_mut();
        let busy = (0..fills.len()).filter(|&n| fills[n] >= least).collect();
        fills.fill(0);
        busy
    }

    /// A number that stands for what the current table translates fetches to: as long as it stays
    /// the same, an address that was once found there is still mapped to the same place. No two
    /// tables share one.
    #[inline]
    pub fn epoch(&self) -> u32 {
        self.table.epoch
    }

    /// Does to tables what may drop translations, and ends the epochs of those of which it is true.
    fn drop_from(&mut self, mut f: impl FnMut(usize, &mut Level1) -> bool) {
        self.slots_of = [NO_TABLE; 2];
        let mut last = self.last_epoch;
        for (n, t) in self.tables() {
            if f(n, t) {
                last = last.wrapping_add(1);
                t.epoch = last;
                t.replaced.clear();
            }
        }
        self.last_epoch = last;
    }

    /// Selects the privilege of ordinary accesses from now on.
    #[inline]
    pub fn set_privilege(&mut self, p: Privilege) {
        let new = self.slot * 4 + p as usize;
        if new != self.current {
            self.select(new);
        }
    }

    fn select(&mut self, new: usize) {
        let table = self.parked[new].take().unwrap_or_else(|| {
            self.last_epoch = self.last_epoch.wrapping_add(1);
            Level1::new(self.last_epoch)
        });
        self.parked[self.current] = Some(std::mem::replace(&mut self.table, table));
        self.current = new;
    }

    /// All tables that have been used, with their numbers.
    fn tables(&mut self) -> impl Iterator<Item = (usize, &mut Level1)> {
        let parked = self.parked.iter_mut().enumerate();
        let parked = parked.filter_map(|(n, t)| t.as_deref_mut().map(|t| (n, t)));
        parked.chain(std::iter::once((self.current, &mut *self.table)))
    }

    /// Privilege of ordinary accesses.
    pub fn privilege(&self) -> Privilege {
        match self.current & 3 {
            0 => Privilege::Supervisor,
            1 => Privilege::User,
            2 => Privilege::SupervisorAc,
            _ => Privilege::UserAligned,
        }
    }

    /// Runs `f` with the privilege `p` for ordinary accesses.
    #[inline(always)]
    pub fn swap_privilege(&mut self, p: Privilege) -> Privilege {
        let old = self.privilege();
        self.set_privilege(p);
        old
    }

    /// Enters the page of `va`, the 4 KiB at RAM offset `off`, at level 1 for data at the current
    /// privilege.
    pub fn insert(&mut self, va: u64, off: u64, rights: Rights, kind: Kind) {
        let data = self.privilege() != Privilege::UserAligned;
        let (i, page) = (Self::index(va), va & !4095);
        let tag = |ok: bool| if ok && data { page } else { miss(i) };
        let addend = (off & !4095).wrapping_sub(page);
        let Rights { read, write, code } = rights;
        let e = Entry { read: tag(read), write: tag(write), code: tag(code), addend };
        self.table.data.fill(va, e, kind);
    }

    /// The same for fetches.
    pub fn insert_fetch(&mut self, va: u64, off: u64, kind: Kind) {
        let tag = va & !4095;
        let e = Fetch { tag, addend: (off & !4095).wrapping_sub(tag) };
        if self.table.fill_fetch(va, e, kind) {
            let current = self.current;
            self.drop_from(|n, _| n == current);
        }
    }

    /// Level 2: the translation of `va` in the current address space.
    pub fn lookup2(&mut self, va: u64) -> Option<Translation> {
        let (id, global) = (self.spaces[self.slot].id, self.global_id);
        let mine = |e: &L2Entry, page: u64| e.page == page && (e.space == id || e.space == global);
        let s = &self.small[(va >> 12) as usize & (L2_SMALL - 1)];
        if mine(s, va & !4095) {
            self.stats.l2_hits += 1;
            return Some(s.t);
        }
        for shift in [21, 22, 30] {
            let b = &self.big[(va >> shift) as usize & (L2_LARGE - 1)];
            if b.t.shift == shift && mine(b, va >> shift << shift) {
                self.stats.l2_hits += 1;
                return Some(b.t);
            }
        }
        None
    }

    /// Level 2: keeps the result of a walk.
    pub fn insert2(&mut self, va: u64, t: Translation) {
        let space = if t.global { self.global_id } else { self.spaces[self.slot].id };
        let entry = L2Entry { page: va >> t.shift << t.shift, space, t };
        if t.shift == 12 {
            self.small[(va >> 12) as usize & (L2_SMALL - 1)] = entry;
        } else {
            self.big[(va >> t.shift) as usize & (L2_LARGE - 1)] = entry;
        }
    }

    fn new_id(&mut self) -> u32 {
        let id = self.next_id;
        self.next_id = self.next_id.checked_add(1).unwrap_or_else(|| {
            // Ids ran out (after 4 billion flushes): forget everything that carries one.
            self.small.fill(NO_L2);
            self.big.fill(NO_L2);
            3
        });
        id
    }

    /// Clears level 1 of an address space, of global pages only if `global`.
    fn clear_slot(&mut self, slot: usize, global: bool) {
        self.drop_from(|n, t| n / 4 == slot && t.clear(global));
    }

    /// Switches to the address space `pcid`; unless `keep`, its non-global translations are
    /// flushed (MOV to CR3; SDM Vol. 3, 4.10.4.1). Privilege stays.
    pub fn switch(&mut self, pcid: u16, keep: bool) {
        self.tick += 1;
        let privilege = self.privilege();
        let found = self.spaces.iter().position(|s| s.pcid == pcid);
        let slot = found.unwrap_or_else(|| {
            let mut oldest = 0;
            for (i, s) in self.spaces.iter().enumerate() {
                if s.last_use < self.spaces[oldest].last_use {
                    oldest = i;
                }
            }
            oldest
        });
        if found.is_none() || !keep {
            self.stats.flushes += 1;
            self.clear_slot(slot, false);
            self.spaces[slot].id = self.new_id();
        }
        self.spaces[slot].pcid = pcid;
        self.spaces[slot].last_use = self.tick;
        self.slot = slot;
        self.set_privilege(privilege);
    }

    /// Flushes the non-global translations of `pcid` (INVPCID type 1).
    pub fn flush_pcid(&mut self, pcid: u16) {
        if let Some(slot) = self.spaces.iter().position(|s| s.pcid == pcid) {
            self.stats.flushes += 1;
            self.clear_slot(slot, false);
            self.spaces[slot].id = self.new_id();
        }
    }

    /// Flushes everything; global translations too if `global`.
    pub fn flush_all(&mut self, global: bool) {
        self.stats.flushes += 1;
        self.drop_from(|_, t| t.clear(global));
        for slot in 0..SPACES {
            self.spaces[slot].id = self.new_id();
        }
        if global {
            self.global_id = self.new_id();
        }
    }

    /// Forgets the level-1 entries of all spaces and privileges, keeping level 2: when what
    /// the rights in them were made from has changed (CR0.WP, SMAP, PKRU, A20).
    pub fn clear_level1(&mut self) {
        self.drop_from(|_, t| t.clear(true));
    }

    /// Invalidates the page of `va` in the address space `pcid` (`None`: the current one) and
    /// among the global translations (INVLPG, INVPCID type 0).
    pub fn invalidate(&mut self, va: u64, pcid: Option<u16>) {
        self.stats.invalidations += 1;
        let slot = match pcid {
            None => Some(self.slot),
            Some(p) => self.spaces.iter().position(|s| s.pcid == p),
        };
        let id = slot.map_or(0, |s| self.spaces[s].id);
        let global = self.global_id;
        let mine = |e: &L2Entry| e.space == id || e.space == global;
        let s = &mut self.small[(va >> 12) as usize & (L2_SMALL - 1)];
        if s.page == va & !4095 && mine(s) {
            *s = NO_L2;
        }
        for shift in [21, 22, 30] {
            let b = &mut self.big[(va >> shift) as usize & (L2_LARGE - 1)];
            if b.t.shift == shift && b.page == va >> shift << shift && mine(b) {
                *b = NO_L2;
            }
        }
        // A level-1 entry does not say which size its page had: every part of a larger page goes
        // that may be of the same.
        self.drop_from(|_, t| t.invalidate(va));
    }

    /// The RAM page at `off` has code now: level-1 entries no longer let writes take the fast path.
    pub fn protect(&mut self, off: u64) {
        let off = off & !4095;
        self.slots_of = [NO_TABLE; 2];
        for (_, t) in self.tables() {
            let Part { entries, filled, .. } = &mut t.data;
            for i in filled.iter().flatten().map(|&i| usize::from(i)) {
                let e = &mut entries[i];
                if e.write != miss(i) && e.write.wrapping_add(e.addend) == off {
                    (e.write, e.code) = (miss(i), e.write);
                }
            }
        }
    }

    /// The page of `va` has no code any more: writes take the fast path again.
    pub fn unprotect(&mut self, va: u64) {
        let i = Self::index(va);
        let e = &mut self.table.data.entries[i];
        if va.wrapping_sub(e.code) < 4096 {
            (e.write, e.code) = (e.code, miss(i));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Privilege::{Supervisor, SupervisorAc, User};

    const RW: Rights = Rights { read: true, write: true, code: false };
    const SMALL: Kind = Kind { global: false, large: false };
    const LARGE: Kind = Kind { global: false, large: true };
    const GLOBAL: Kind = Kind { global: true, large: false };

    fn page(pa: u64, shift: u8, global: bool) -> Translation {
        Translation { pa, shift, global, writable: true, ..NO_L2.t }
    }

    #[test]
    fn hits_are_exact_at_the_page_border() {
        let mut t = Tlb::new();
        t.insert(0x5000, 0x9000, RW, SMALL);
        assert_eq!(t.read(0x5ff8, 8), Some(0x9ff8));
        assert_eq!(t.read(0x5ff9, 8), None);
        assert_eq!(t.read(0x4fff, 2), None);
        assert_eq!(t.exec(0x5000), None);
        for va in [0, 1 << 63, u64::MAX - 7, 0x5000 + (1 << 22)] {
            assert_eq!(t.read(va, 1), None, "{va:#x}");
        }
    }

    #[test]
    fn privileges_and_spaces_do_not_share() {
        let mut t = Tlb::new();
        t.insert(0x5000, 0x9000, RW, SMALL);
        t.set_privilege(Privilege::User);
        assert_eq!(t.read(0x5000, 1), None);
        t.set_privilege(Privilege::Supervisor);
        t.insert2(0x5000, page(0x9000, 12, false));
        t.insert2(0x7000, page(0xa000, 12, true));
        t.switch(7, false);
        assert_eq!((t.read(0x5000, 1), t.lookup2(0x5000)), (None, None));
        assert_eq!(t.lookup2(0x7000).unwrap().pa, 0xa000, "global");
        t.switch(0, true);
        assert_eq!(t.read(0x5000, 1), Some(0x9000));
        assert!(t.lookup2(0x5000).is_some());
        t.switch(0, false);
        assert_eq!((t.read(0x5000, 1), t.lookup2(0x5000)), (None, None));
        assert!(t.lookup2(0x7000).is_some());
        t.flush_all(true);
        assert!(t.lookup2(0x7000).is_none());
    }

    #[test]
    fn invlpg_drops_all_slices_of_a_large_page() {
        let mut t = Tlb::new();
        t.insert2(0x20_0000, page(0x40_0000, 21, false));
        for i in 0..512 {
            t.insert(0x20_0000 + i * 4096, 0x40_0000 + i * 4096, RW, LARGE);
        }
        t.insert(0x8000_0000, 0, RW, SMALL);
        t.insert(0x8020_1000, 0, RW, LARGE);
        t.invalidate(0x2f_f000, None);
        assert_eq!(t.lookup2(0x20_0000), None);
        assert!((0..512).all(|i| t.read(0x20_0000 + i * 4096, 1).is_none()));
        assert!(t.read(0x8000_0000, 1).is_some());
        assert!(t.read(0x8020_1000, 1).is_some(), "a slice of another GiB");
    }

    #[test]
    fn global_pages_stay_at_level_1() {
        let mut t = Tlb::new();
        t.insert(0x5000, 0x9000, RW, GLOBAL);
        t.insert(0x6000, 0x9000, RW, SMALL);
        // An index that has held both kinds is judged by what it holds now.
        let far = (L1 as u64) << 12;
        t.insert(0x7000, 0x9000, RW, SMALL);
        t.insert(far + 0x7000, 0x9000, RW, GLOBAL);
        t.insert(0x8000, 0x9000, RW, GLOBAL);
        t.insert(far + 0x8000, 0x9000, RW, SMALL);
        let left = |t: &Tlb| {
            let pages = [0x5000, 0x6000, far + 0x7000, far + 0x8000];
            pages.map(|va| t.read(va, 1).is_some())
        };
        t.switch(0, false);
        assert_eq!(left(&t), [true, false, true, false]);
        t.insert(far + 0x8000, 0x9000, RW, SMALL);
        t.flush_all(false);
        assert_eq!(left(&t), [true, false, true, false]);
        t.flush_all(true);
        assert_eq!(left(&t), [false; 4]);
    }

    #[test]
    fn slots_and_epochs_end_with_what_they_were_made_from() {
        type Change = fn(&mut Tlb);
        const FAR: u64 = (L1 as u64) << 12;
        #[rustfmt::skip]
        let changes: &[(&str, bool, bool, Change)] = &[
            ("nothing", false, false, |t| t.insert(0x7000, 0x9000, RW, SMALL)),
            ("privilege", true, true, |t| t.set_privilege(Privilege::User)),
            ("a page with code", true, false, |t| t.protect(0x9000)),
            ("INVLPG", true, true, |t| t.invalidate(0x5000, None)),
            ("INVLPG of another page", true, false, |t| t.invalidate(0x6000, None)),
            ("CR3", true, true, |t| t.switch(0, false)),
            ("rights", true, true, Tlb::clear_level1),
            ("another page", false, false, |t| t.insert_fetch(FAR + 0x5000, 0, SMALL)),
            ("another page, then INVLPG", true, true, |t| {
                t.insert_fetch(FAR + 0x5000, 0, SMALL);
                t.invalidate(0x5000, None);
            }),
            ("another page, then CR3", true, true, |t| {
                t.insert_fetch(FAR + 0x5000, 0, GLOBAL);
                t.switch(0, false);
            }),
            ("many pages", true, true, |t| {
                (0..100).for_each(|n| t.insert_fetch(n * FAR + 0x5000, 0, SMALL));
            }),
            ("the page is elsewhere", true, true, |t| t.insert_fetch(0x5000, 0xb000, SMALL)),
        ];
        for (name, slots, epoch, change) in changes {
            let mut t = Tlb::new();
            t.insert_fetch(0x5000, 0x9000, SMALL);
            t.sync_slots();
            let before = t.epoch();
            t.slots.pages.iter_mut().for_each(|set| set[3] = 0x5000);
            change(&mut t);
            t.sync_slots();
            let emptied = t.slots.pages[t.slot_set()][3] != 0x5000;
            assert_eq!((emptied, t.epoch() != before), (*slots, *epoch), "{name}");
        }
        let mut t = Tlb::new();
        // CPL 3, back, and SMAP suspended for a while.
        for (to, kept) in [
            (Supervisor, false),
            (User, false),
            (Supervisor, true),
            (User, true),
            (SupervisorAc, true),
            (Supervisor, false),
        ] {
            t.set_privilege(to);
            t.sync_slots();
            let set = t.slot_set();
            let page = &mut t.slots.pages[set][3];
            assert_eq!(*page == 0x5000, kept, "{to:?}");
            *page = 0x5000;
        }
        let mut t = Tlb::new();
        t.insert_fetch(0x5000, 0x9000, GLOBAL);
        let before = t.epoch();
        t.switch(0, false);
        assert_eq!((t.epoch(), t.exec(0x5000)), (before, Some(0x9000)), "all is global");
        t.flush_all(true);
        assert_ne!(t.epoch(), before);
    }

    #[test]
    fn a_page_that_gets_code_loses_its_write_tags() {
        let mut t = Tlb::new();
        t.insert(0x5000, 0x9000, RW, SMALL);
        t.insert(0x6000, 0xb000, RW, SMALL);
        t.protect(0x9123);
        assert_eq!((t.write(0x5000, 1), t.read(0x5000, 1)), (None, Some(0x9000)));
        assert_eq!(t.write(0x6000, 1), Some(0xb000));
        assert_eq!(t.write_beside_code(0x5ffc, 4), Some(0x9ffc));
        assert_eq!((t.write_beside_code(0x5ffd, 4), t.write_beside_code(0x6000, 1)), (None, None));
        t.unprotect(0x5123);
        assert_eq!((t.write(0x5000, 1), t.write_beside_code(0x5000, 1)), (Some(0x9000), None));
    }
}
