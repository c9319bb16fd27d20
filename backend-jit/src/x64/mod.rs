//! The compiler of a region for x86-64 hosts, and the books about what it made.
//!
//! **Registers.** Ten guest registers have a host register of their own, in all blocks
//! ([`crate::enter::PINNED`]), and so has the budget; the others are in [`Cpu::regs`], off `rbp`.
//! RAX, RCX and RDX are scratch, free between micro-ops.
//!
//! **Flags** are the host's, see `flags`; between regions they are in memory. **Regions** of blocks
//! that lead to each other: see `region`. **Accesses**: see `memory`.
//!
//! **Leaving.** Host code is left by `ret` with the exit word in EAX. Accesses that miss and
//! micro-ops without an emitter call routines (see `ends`), which leave in their place.
//!
//! **What generated code may touch**: this CPU's state by constant offsets, its level-1 TLB by a
//! masked index, guest RAM within pages that a slot holds (which come from the TLB), and the tables
//! of indirect targets by a masked index. It jumps to blocks of its own buffer only: by links, and
//! by those tables, which nobody else fills.

mod alu;
mod asm;
mod bits;
mod ends;
mod flags;
mod fuse;
mod group;
mod homes;
mod listing;
mod loops;
mod memory;
mod quick;
mod region;
mod strips;
mod system;
mod vector;
mod x87;

use crate::code_buffer::CodeBuffer;
use crate::enter::{self, BIAS, PINNED};
use asm::{Asm, RBP, RCX, Rm};
use core::mem::offset_of;
use emu_core::cpu::{Cpu, Reg, mode};
use emu_core::flags::OSZAPC;
use emu_core::interp::Leave;
use emu_core::mem::tlb::SLOTS;
use emu_core::native::{Enter, HostInsn, Native, NativeStats, Part, Place, Target, Translator};
use emu_core::uop::{Block, Effect, Mem, Op, Src, Uop};
use emu_core::width::Width::{self, W8, W16, W32, W64};
use ends::Routines;
use flags::{Recipe, State};
use group::{Group, Lives};
use homes::Homes;
use listing::Marks;
use loops::Loop;
use memory::{Accesses, Kind, RegionSlots, Try, Without};
use region::{Exits, Later, Owed, Piece, Version};
use rustc_hash::FxHashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use strips::Stage;
use vector::Tail;

/// Bytes of the code buffer.
pub const BUFFER: usize = 32 << 20;
/// What a region's code is aligned at.
const ALIGN: usize = 32;
/// Segments of it that are emptied at a time, and how long they are at least.
const SEGMENTS: usize = 8;
const SEGMENT_MIN: usize = 64 << 10;
/// The part of a segment that regions leave to guards.
const FOR_GUARDS: usize = 16;

const fn native(field: usize) -> i32 {
    (offset_of!(Cpu, native) + field) as i32 - BIAS as i32
}
const NATIVE_FLAGS: i32 = native(offset_of!(Native, flags));
const NATIVE_TLB: i32 = native(offset_of!(Native, tlb));
const NATIVE_FETCHES: i32 = native(offset_of!(Native, fetches));
const NATIVE_RAM: i32 = native(offset_of!(Native, ram));
const NATIVE_LEFT: i32 = native(offset_of!(Native, left));
const NATIVE_PENDING: i32 = native(offset_of!(Native, pending));
const NATIVE_LIVE: i32 = native(offset_of!(Native, live));
const NATIVE_STRIP: i32 = native(offset_of!(Native, strip));
const NATIVE_WAITS: i32 = native(offset_of!(Native, waits));
const NATIVE_VECTORS: i32 = native(offset_of!(Native, vectors));
/// Guest vector registers.
const VECTORS: i32 = offset_of!(Cpu, v) as i32 - BIAS as i32;
const MXCSR: i32 = offset_of!(Cpu, mxcsr) as i32 - BIAS as i32;
const NATIVE_EPOCH: i32 = native(offset_of!(Native, epoch));
const NATIVE_TABLE: i32 = native(offset_of!(Native, table));
/// The guest's RIP.
const RIP: i32 = 8 * Reg::RIP.ix() as i32 - 128;

/// Where a guest register is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loc {
    /// In a host register.
    Host(u8),
    /// In memory, at this distance from `rbp`.
    Slot(i32),
}

fn loc(r: Reg) -> Loc {
    match PINNED.get(r.ix()) {
        Some(&h) => Loc::Host(h),
        None => Loc::Slot(8 * r.ix() as i32 - 128),
    }
}

/// What code out of line does.
#[derive(Clone, Copy)]
enum Cold {
    /// An access that misses.
    Access { miss: usize, resume: usize, kind: Kind, packed: u32, u: Uop },
    /// A micro-op whose quick form does not apply.
    Call { miss: usize, resume: usize, record: u32, u: Uop },
    /// A helper whose usual case does not hold.
    Quick { misses: quick::Misses, resume: usize, record: u32, u: Uop },
    /// A vector access that misses.
    Vector(vector::Miss),
    /// An x87 instruction that the host cannot execute now.
    X87(x87::Rare),
    /// Micro-ops that were fused and must be run one by one.
    Replay { miss: usize, resume: usize, from: usize, count: usize, spared: Option<(usize, Reg)> },
    /// A fused return, from its micro-op `from` on: RSP += `by`, RIP = `target`.
    Return { miss: usize, other: usize, from: usize, by: Option<i32>, target: Reg },
    /// To the block at RAX, which the table for this mode and mapping does not know.
    Indirect { jump: usize },
    /// No strip of a loop: the slot has no answer.
    NoStrip { t: Try, plain: usize },
    /// A strip that the budget does not suffice for.
    ShortStrip { jump: usize, resume: usize, insns: i64, plain: usize },
    /// One way of a conditional end.
    Way { jump: usize, w: Width, delta: i64, taken: bool, redo: Option<Tail>, owed: Option<Owed> },
    /// The budget is used up on the way to another block of the region.
    Stop { jump: usize, w: Width, delta: i64, redo: Option<Tail>, owed: Option<Owed> },
    /// Leaves for good.
    Leave { jump: usize, word: u32 },
    /// Leaves to be linked.
    Exit { jump: usize, word: u32, taken: bool },
}

/// A jump that can be led elsewhere: its place (the end of it), the stub that it leads to when it
/// is not linked, which leaves with an exit word, and that word.
#[derive(Clone, Copy, Debug)]
struct Site {
    jump: usize,
    stub: usize,
    word: u32,
}

impl Site {
    fn at(self, base: usize) -> Site {
        Site { jump: self.jump + base, stub: self.stub + base, ..self }
    }
}

/// Instructions that the host may lack.
#[derive(Clone, Copy, Debug)]
struct HostHas {
    crc32: bool,
    bmi1: bool,
    bmi2: bool,
    lzcnt: bool,
    /// See [`vector::table::features`].
    vector: u8,
}

/// Micro-ops that host code calls, at addresses that stay when there are more of them.
#[allow(clippy::vec_box)]
type Called = Vec<Box<Uop>>;

/// Likewise what ends of blocks do.
#[allow(clippy::vec_box)]
type Systems = Vec<Box<enter::System>>;

/// Compiles one region.
struct Compiler<'a> {
    a: Asm,
    pieces: &'a [Piece<'a>],
    loops: &'a [Loop],
    versions: Vec<Version>,
    /// The version that follows without a jump.
    next_version: Option<usize>,
    /// The current block, and what is known of it.
    piece: usize,
    block: &'a Block,
    place: &'a Place<'a>,
    lives: &'a [u32],
    /// How it is run.
    stage: Stage,
    routines: Routines,
    host_has: HostHas,
    homes: Homes,
    /// Flags live after the current micro-op.
    live: u32,
    // Where the flags are: see `flags::State`.
    host: bool,
    memory: bool,
    af_zero: bool,
    recipe: Option<Recipe>,
    /// Registers, by their numbers' bits, whose upper halves are known to be zero.
    short: u32,
    /// The recipe of what is emitted as one, which has all that it reads in memory.
    fused_recipe: Option<Recipe>,
    /// The last comparison of vector registers and where it ended; at a block end: an instruction
    /// that computes EFLAGS again.
    tested: (usize, Tail),
    redo: Option<Tail>,
    /// What is still to be charged.
    owed: Option<Owed>,
    /// Out of line: where a register is to be copied to the spare one.
    spared: Option<(usize, Reg)>,
    /// Where they were when EFLAGS were given up last.
    settled: State,
    insn: usize,
    /// First micro-op of the next guest instruction.
    next: usize,
    insn_record: Option<u32>,
    /// Where the last address was begun, and which.
    tried: (usize, Mem),
    tries: Vec<Try>,
    slots: RegionSlots,
    /// Those that are being emitted, and what is live in them.
    groups: Vec<Group>,
    group_lives: Option<Lives>,
    /// The current micro-op.
    at: usize,
    vector: vector::State,
    x87: x87::State,
    cold: Vec<Later>,
    exits: Exits,
    /// Micro-ops that are called, out of line too; and how many are in line.
    called: Called,
    called_in_line: u64,
    /// What the ends of its blocks do that may change the mode.
    systems: Systems,
    marks: Marks,
}

impl Compiler<'_> {
    /// The micro-ops of the current block.
    fn block_code(&mut self, live: bool) {
        let block = self.block;
        (self.insn, self.insn_record, self.short) = (0, None, 0);
        self.vector = vector::State::entry(live);
        self.vector_start();
        self.x87_start();
        let mut n = 0;
        while let Some(u) = block.uops.get(n) {
            let mark = |i: usize| block.insns.get(i).map(|m| m.uop as usize);
            while mark(self.insn + 1).is_some_and(|m| m <= n) {
                self.insn += 1;
            }
            self.marks.insn(self.a.here(), self.pieces[self.piece].first_insn + self.insn);
            self.next = mark(self.insn + 1).unwrap_or(block.uops.len());
            // What is emitted for these as one is not known before.
            let kinds = |u: &Uop| {
                use Op::{Helper, V, Vget, Vld, Vset, Vst, Vx};
                matches!(u.op, Helper | V | Vget | Vld | Vset | Vst | Vx)
            };
            if self.recipe.is_some() && block.uops[n..self.next].iter().any(kinds) {
                self.before(n, self.next - n);
            }
            self.at = n;
            self.open_group(n);
            let fused = match self.x87(n) {
                0 => self.fused(n),
                count => count,
            };
            if fused == 0 {
                self.live = self.live_after(n);
                self.before(n, 1);
                self.uop(u);
                self.after(n, 1);
            }
            n += fused.max(1);
            self.close_group(n);
        }
    }

    fn uop(&mut self, u: &Uop) {
        match u.op {
            Op::Lea => self.lea(u),
            Op::Code => self.patched(u),
            Op::Ld | Op::Ldz | Op::Lds | Op::Ldw => self.load(u),
            Op::St | Op::Stw => self.store(u),
            Op::Lin if u.checks_rip() => self.canonical(u),
            _ if u.op.row().effect == Effect::End => self.end(u),
            _ if u.op.row().eval.is_some() && self.pure(u) => {}
            _ if self.vector(u) => {}
            Op::Helper if self.quick(u) => {}
            _ => self.call(u),
        }
    }

    /// The record of the current guest instruction.
    fn record(&self) -> u32 {
        self.insn_record
            .or_else(|| self.place.insns.get(self.insn).copied())
            .unwrap_or(self.place.first)
    }

    // ---- registers --------------------------------------------------------------------------------

    /// The host register with the value of `r`: its own, or `scratch`.
    fn get(&mut self, r: Reg, w: Width, scratch: u8) -> u8 {
        match loc(r) {
            Loc::Host(h) => h,
            Loc::Slot(d) => {
                self.a.mov(if w == W64 { W64 } else { W32 }, scratch, Rm::M(RBP, d));
                scratch
            }
        }
    }

    /// `host` = the low `w` bits of `s`, extended by zeros from 32. Keeps the flags.
    fn value(&mut self, host: u8, w: Width, s: Src) {
        match s {
            Src::Imm(v) => self.a.imm(host, if w == W64 { v as u64 } else { v as u32 as u64 }),
            Src::Reg(r) => self.a.mov(if w == W64 { W64 } else { W32 }, host, alu::rm(r)),
        }
    }

    /// Writes the host register `s` to `d` at width `w`. Keeps the flags.
    fn put(&mut self, d: Reg, w: Width, s: u8) {
        if d == Reg::ZERO {
            return;
        }
        match loc(d) {
            Loc::Host(h) => match w {
                W8 | W16 if h == s => {}
                W8 => self.a.op(W8, 0x8b, h, Rm::R(s)),
                W16 => self.a.op(W16, 0x8b, h, Rm::R(s)),
                _ => self.a.mov(w, h, Rm::R(s)),
            },
            Loc::Slot(at) if w == W32 => {
                self.a.mov(W32, RCX, Rm::R(s));
                self.a.store(W64, Rm::M(RBP, at), RCX);
            }
            Loc::Slot(at) => self.a.store(w, Rm::M(RBP, at), s),
        }
    }

    fn put_imm(&mut self, d: Reg, w: Width, v: u64) {
        match loc(d) {
            _ if d == Reg::ZERO => {}
            Loc::Host(h) if w >= W32 => self.a.imm(h, w.zext(v)),
            _ => {
                self.a.imm(RCX, w.zext(v));
                self.put(d, w, RCX);
            }
        }
    }

    /// `d = s` at width `w`. Keeps the flags.
    fn copy(&mut self, d: Reg, w: Width, s: Reg) {
        if d == Reg::ZERO || (d == s && w != W32) {
            return;
        }
        match (loc(d), loc(s)) {
            (Loc::Host(d), _) => self.a.op(w, 0x8b, d, alu::rm(s)),
            (_, Loc::Host(s)) => self.put(d, w, s),
            (_, Loc::Slot(_)) => {
                self.a.mov(if w == W64 { W64 } else { W32 }, RCX, alu::rm(s));
                self.put(d, w, RCX);
            }
        }
    }
}

/// Flags live after each micro-op, and before the first; `masked`: floating point does not fault;
/// `checked`: nor do accesses.
fn liveness(block: &Block, masked: bool, checked: bool) -> (Vec<u32>, u32) {
    let mut out = vec![0; block.uops.len()];
    let mut live = OSZAPC;
    for (u, out) in block.uops.iter().zip(&mut out).rev() {
        *out = live;
        live = live & !u.fl | u.flags_read();
        let access = matches!(u.op.row().effect, Effect::Load | Effect::Store);
        let vector = matches!(u.op, Op::V | Op::Vx);
        let faults = u.may_fault() && !(masked && vector) && !(checked && access);
        if faults || u.op.row().effect == Effect::End {
            live = OSZAPC;
        }
    }
    (out, live)
}

/// Entries of the table of indirect targets: more than the interpreter's [`emu_core::cpu::Jump`]s,
/// because what is not there leaves host code.
const JUMPS: usize = 1 << 16;

/// An entry of it.
#[derive(Clone, Copy)]
#[repr(C)]
struct JumpEntry {
    /// RAM offset of the block's first byte.
    off: u64,
    /// Its mode.
    mode: u32,
    /// Where its code is in the buffer.
    at: u32,
}

/// Guards that there may be.
const GUARDS: usize = 1 << 16;

const NO_JUMP: JumpEntry = JumpEntry { off: u64::MAX, mode: 0, at: 0 };

impl JumpEntry {
    /// Index of the entry for the block at RAM offset `off`.
    const fn index(off: u64) -> usize {
        (off ^ off >> 12) as usize & (JUMPS - 1)
    }
}

/// A translated region.
struct Region {
    at: usize,
    off: u64,
    mode: u32,
    /// The first records of its blocks.
    blocks: Vec<u32>,
    /// What its code calls.
    called: Called,
    systems: Systems,
    marks: Marks,
}

/// An exit of a block in the region of `head`.
struct Exit {
    head: u32,
    taken: bool,
    site: Site,
}

/// An exit that leads to a block: the exit, and the jump that goes to the block (the exit's own, or
/// that of its guard).
#[derive(Clone, Copy)]
struct Link {
    exit: Site,
    inner: Site,
    guard: Option<u32>,
}

/// The head of the region that a slot belongs to, and its accesses.
type Owner = Option<(u32, Accesses)>;

/// The generator for x86-64 hosts.
pub struct X64 {
    buffer: CodeBuffer,
    routines: Routines,
    /// Length of the buffer with nothing but the routines.
    empty: usize,
    host_has: HostHas,
    /// By head.
    regions: FxHashMap<u32, Region>,
    /// By the first record of a block: the regions that it is part of.
    members: FxHashMap<u32, Vec<u32>>,
    /// Likewise: its exits.
    exits: FxHashMap<u32, Vec<Exit>>,
    /// By the first record of a block, head of a region or not: the exits that lead there.
    incoming: FxHashMap<u32, Vec<Link>>,
    jumps: Box<[JumpEntry]>,
    /// By guard: the RIP and the epoch for which it has last held.
    held: Box<[[AtomicU64; 2]]>,
    /// How many have been used, which of these are free again, and those of each segment.
    guards: usize,
    free_guards: Vec<usize>,
    guards_of: [Vec<usize>; SEGMENTS],
    /// How many slots of the TLB the regions so far have taken, for reads and writes.
    slots_taken: [usize; 2],
    /// By slot: the head of the region that took it last, and for which accesses.
    owners: Box<[Owner]>,
    /// By head: what is to do without slots.
    without: FxHashMap<u32, Without>,
    /// For tests: all accesses are.
    all_without: bool,
    stats: NativeStats,
}

impl X64 {
    /// A generator with an empty buffer of `size` bytes.
    ///
    /// # Errors
    /// What the host says when it gives no memory for code.
    pub fn new(size: usize) -> std::io::Result<X64> {
        let mut buffer = CodeBuffer::new(size)?;
        let mut a = Asm { origin: buffer.base(), ..Asm::default() };
        let jumps = vec![NO_JUMP; JUMPS].into_boxed_slice();
        let routines = ends::routines(&mut a, jumps.as_ptr() as u64);
        if !buffer.append(&a.code) {
            return Err(std::io::ErrorKind::OutOfMemory.into());
        }
        let host_has = HostHas {
            crc32: std::arch::is_x86_feature_detected!("sse4.2"),
            bmi1: std::arch::is_x86_feature_detected!("bmi1"),
            bmi2: std::arch::is_x86_feature_detected!("bmi2"),
            lzcnt: std::arch::is_x86_feature_detected!("lzcnt"),
            vector: vector::table::features(),
        };
        let empty = buffer.here();
        buffer.divide(((size - empty) / SEGMENT_MIN).clamp(1, SEGMENTS));
        Ok(X64 {
            empty,
            buffer,
            routines,
            host_has,
            regions: FxHashMap::default(),
            members: FxHashMap::default(),
            exits: FxHashMap::default(),
            incoming: FxHashMap::default(),
            jumps,
            held: (0..GUARDS).map(|_| Default::default()).collect(),
            guards: 0,
            free_guards: Vec::new(),
            guards_of: Default::default(),
            slots_taken: [0; 2],
            owners: vec![None; 2 * SLOTS].into(),
            without: FxHashMap::default(),
            all_without: false,
            stats: NativeStats::default(),
        })
    }

    /// The host code of the region whose head is `first`, for reports. Empty if there is none.
    pub fn code(&self, first: u32) -> &[u8] {
        self.regions.get(&first).map_or(&[], |r| self.buffer.code(r.at, r.marks.end as usize))
    }

    /// The same on a host without vector instructions: for tests.
    pub fn without_vectors(mut self) -> X64 {
        self.host_has.vector = 0;
        self
    }

    /// The same without slots of the soft TLB: for tests.
    pub fn without_any_slots(mut self) -> X64 {
        self.all_without = true;
        self
    }

    fn lead(&mut self, s: Site, to: usize) {
        self.buffer.patch(s.jump - 4, (to as i64 - s.jump as i64) as u32);
    }

    /// Lets a site leave with `word`.
    fn leave_with(&mut self, s: Site, word: u32) {
        self.buffer.patch(s.stub + 1, word);
        self.lead(s, s.stub);
    }
}

impl X64 {
    /// Lets an exit lead to the block whose first record is `first`, as far as that is translated.
    fn connect(&mut self, link: Link, first: u32) {
        match self.regions.get(&first) {
            Some(r) => {
                let at = r.at;
                self.lead(link.inner, at);
                self.stats.links += 1;
            }
            None if link.guard.is_none() => {
                self.leave_with(link.exit, Leave::Next.at(first as usize) as u32);
            }
            None => self.leave_with(link.inner, link.inner.word),
        }
    }

    /// These blocks live, but their regions are dropped: what leads there goes on in the
    /// interpreter.
    fn disconnect(&mut self, heads: &[u32]) {
        for &head in heads {
            for link in self.incoming.get(&head).cloned().unwrap_or_default() {
                self.connect(link, head);
            }
        }
    }

    /// Drops the region of `head`.
    fn drop_region(&mut self, head: u32) {
        let Some(r) = self.regions.remove(&head) else { return };
        let mut a = Asm::default();
        ends::leave(&mut a, Leave::Lookup.at(head as usize) as u32);
        for (i, &byte) in a.code.iter().enumerate() {
            self.buffer.patch_byte(r.at + i, byte);
        }
        let j = &mut self.jumps[JumpEntry::index(r.off)];
        if (j.off, j.mode, j.at) == (r.off, r.mode, r.at as u32) {
            *j = NO_JUMP;
        }
        for block in &r.blocks {
            if let Some(heads) = self.members.get_mut(block) {
                heads.retain(|h| *h != head);
            }
            if let Some(exits) = self.exits.get_mut(block) {
                exits.retain(|e| e.head != head);
            }
        }
    }
}

impl Translator for X64 {
    fn enter(&self) -> Enter {
        enter::enter
    }

    fn translate(&mut self, parts: &[Part]) -> Option<u64> {
        let start = Instant::now();
        let at = self.buffer.here().next_multiple_of(ALIGN);
        let pad = vec![0xcc; at - self.buffer.here()];
        let mut pieces = Piece::all(parts);
        let homes = Homes::of(&pieces);
        pieces.iter_mut().for_each(|p| p.rename(&homes));
        let masked = parts[0].place.mode & mode::XM == 0;
        let has_vectors = self.host_has.vector & vector::table::feature::AVX2 != 0;
        let loops = Loop::all(&pieces, masked && has_vectors);
        let without = match self.all_without {
            true => Without::All,
            false => self.without.get(&parts[0].place.first).cloned().unwrap_or_default(),
        };
        let mut c = Compiler {
            a: Asm { origin: self.buffer.base() + at as u64, code: Vec::with_capacity(1024) },
            pieces: &pieces,
            loops: &loops,
            versions: Vec::new(),
            next_version: None,
            piece: 0,
            block: &pieces[0].block,
            place: &pieces[0].place,
            lives: &pieces[0].lives,
            stage: Stage::Plain,
            routines: self.routines,
            host_has: self.host_has,
            homes,
            live: 0,
            host: false,
            memory: true,
            af_zero: false,
            recipe: None,
            short: 0,
            fused_recipe: None,
            tested: (0, Tail::default()),
            redo: None,
            owed: None,
            spared: None,
            settled: State::MEMORY,
            insn: 0,
            next: 0,
            insn_record: None,
            tried: (0, Mem::at(Reg::ZERO, 0)),
            tries: Vec::new(),
            slots: RegionSlots::new(parts[0].place.mode, self.slots_taken, without),
            groups: Vec::new(),
            group_lives: None,
            at: 0,
            vector: vector::State::default(),
            x87: x87::State::default(),
            cold: Vec::new(),
            exits: Vec::new(),
            called: Vec::new(),
            called_in_line: 0,
            systems: Vec::new(),
            marks: Marks::default(),
        };
        c.run();
        let Compiler { a, exits, called, called_in_line, systems, marks, slots, .. } = c;
        let (room, segment) = self.buffer.room();
        let needed = pad.len() + a.code.len() + segment / FOR_GUARDS;
        if room < needed {
            let next = needed <= segment && self.buffer.go_on();
            return next.then(|| self.translate(parts)).flatten();
        }
        self.buffer.append(&pad);
        self.buffer.append(&a.code);
        self.slots_taken = slots.taken;
        for (n, accesses) in slots.own() {
            self.owners[n] = accesses.map(|these| (parts[0].place.first, these));
        }
        let place = &parts[0].place;
        let (head, off, m) = (place.first, place.off, place.mode);
        self.drop_region(head);
        let blocks: Vec<u32> = pieces.iter().map(|p| p.place.first).collect();
        for &block in &blocks {
            self.members.entry(block).or_default().push(head);
        }
        for (block, taken, site) in exits {
            let site = site.at(at);
            self.exits.entry(block).or_default().push(Exit { head, taken, site });
        }
        self.stats.regions += 1;
        self.stats.blocks += blocks.len() as u64;
        for p in &pieces {
            self.stats.insns += p.block.insns.len() as u64;
            self.stats.uops += p.block.uops.len() as u64;
        }
        self.stats.called += called_in_line;
        self.stats.bytes += a.code.len() as u64;
        self.regions.insert(head, Region { at, off, mode: m, blocks, called, systems, marks });
        let in_page = (off & 4095) + u64::from(parts[0].block.len) <= 4096;
        let checked = in_page || place.second.is_some();
        if checked && m & (mode::SINGLE | mode::CS_LIMIT) == 0 {
            self.jumps[JumpEntry::index(off)] = JumpEntry { off, mode: m, at: at as u32 };
        }
        for link in self.incoming.get(&head).cloned().unwrap_or_default() {
            self.connect(link, head);
        }
        self.stats.ns += start.elapsed().as_nanos() as u64;
        Some(self.buffer.base() + at as u64)
    }

    fn entry(&self, first: u32) -> Option<u64> {
        self.regions.get(&first).map(|b| self.buffer.base() + b.at as u64)
    }

    fn link(&mut self, from: u32, taken: bool, to: Target) {
        let Some(m) = self.members.get(&from).and_then(|heads| self.regions.get(heads.first()?))
        else {
            return;
        };
        let m = m.mode;
        let exits = self.exits.get(&from).map_or(&[][..], |e| e);
        let exits: Vec<Site> = exits.iter().filter(|e| e.taken == taken).map(|e| e.site).collect();
        for exit in exits {
            let (first, link) = match to {
                Target::Block(first) => (first, Link { exit, inner: exit, guard: None }),
                Target::Guarded { guard, off, first } => {
                    let at = self.buffer.here();
                    let origin = self.buffer.base() + at as u64;
                    let mut a = Asm { origin, ..Asm::default() };
                    let n = self.free_guards.last().copied().unwrap_or(self.guards);
                    let Some(held) = self.held.get(n) else { return };
                    let inner = ends::guard(
                        &mut a,
                        (m, off),
                        guard,
                        held[0].as_ptr() as u64,
                        self.routines.fetch,
                    );
                    let inner = inner.at(at);
                    if !self.buffer.append(&a.code) {
                        return;
                    }
                    self.guards += usize::from(self.free_guards.pop().is_none());
                    self.guards_of[self.buffer.segment()].push(n);
                    self.lead(exit, at);
                    (first, Link { exit, inner, guard: Some(guard) })
                }
            };
            let links = self.incoming.entry(first).or_default();
            links.retain(|l| l.exit.jump != exit.jump);
            links.push(link);
            self.connect(link, first);
        }
    }

    fn found(&mut self, first: u32) {
        if let Some(b) = self.regions.get(&first) {
            self.jumps[JumpEntry::index(b.off)] =
                JumpEntry { off: b.off, mode: b.mode, at: b.at as u32 };
        }
    }

    fn kill(&mut self, first: u32) -> Vec<u32> {
        // Exits that lead here become unlinked: they may be linked to its successor.
        for link in self.incoming.remove(&first).unwrap_or_default() {
            self.leave_with(link.exit, link.exit.word);
        }
        self.without.remove(&first);
        let mut heads = self.members.remove(&first).unwrap_or_default();
        for &head in &heads {
            self.drop_region(head);
        }
        heads.retain(|h| *h != first);
        self.disconnect(&heads);
        self.exits.remove(&first);
        heads
    }

    fn evict(&mut self) -> Vec<u32> {
        let gone = self.buffer.evict();
        let gone = |at: usize| gone.contains(&at);
        let mut heads: Vec<u32> =
            self.regions.iter().filter(|(_, r)| gone(r.at)).map(|(head, _)| *head).collect();
        heads.sort_unstable();
        for &head in &heads {
            self.drop_region(head);
        }
        // Exits that are gone lead nowhere; those whose guard is gone may be linked again.
        let mut unlinked = Vec::new();
        for links in self.incoming.values_mut() {
            links.retain(|l| {
                let guard = !gone(l.exit.jump) && gone(l.inner.jump);
                unlinked.extend(guard.then_some(l.exit));
                !gone(l.exit.jump) && !guard
            });
        }
        self.incoming.retain(|_, links| !links.is_empty());
        for exit in unlinked {
            self.leave_with(exit, exit.word);
        }
        self.disconnect(&heads);
        for n in std::mem::take(&mut self.guards_of[self.buffer.segment()]) {
            self.held[n][1].store(0, Ordering::Relaxed);
            self.free_guards.push(n);
        }
        self.stats.evictions += 1;
        heads
    }

    fn without_slots(&mut self, slots: &[usize]) -> Vec<u32> {
        let mut heads = Vec::new();
        for &n in slots {
            let Some((head, accesses)) = self.owners.get_mut(n).and_then(Option::take) else {
                continue;
            };
            if !self.regions.contains_key(&head) {
                continue;
            }
            if let Without::These(these) = self.without.entry(head).or_default()
                && !these.contains(&accesses)
            {
                these.push(accesses);
                heads.push(head);
            }
        }
        heads.sort_unstable();
        heads.dedup();
        for &head in &heads {
            self.drop_region(head);
        }
        self.disconnect(&heads);
        heads
    }

    fn clear(&mut self) {
        self.buffer.clear();
        self.without.clear();
        self.regions.clear();
        self.members.clear();
        self.exits.clear();
        self.incoming.clear();
        self.jumps.fill(NO_JUMP);
        self.held[..self.guards].iter().for_each(|h| h[1].store(0, Ordering::Relaxed));
        self.guards = 0;
        self.free_guards.clear();
        self.guards_of.iter_mut().for_each(Vec::clear);
    }

    fn stats(&self) -> NativeStats {
        self.stats
    }

    fn routines(&self) -> Vec<(u64, u64, &'static str)> {
        self.routine_places()
    }

    fn listing(&self, first: u32) -> Vec<HostInsn> {
        self.regions.get(&first).map_or_else(Vec::new, |b| self.lines(b))
    }
}
