//! The block cache: threaded code by guest-physical address and mode, the side tables that turn a
//! record back into a guest instruction, and invalidation when code changes.
//!
//! - Records live in one arena that only grows; when it is full everything is dropped at once.
//! - A block that dies keeps its records, but the first becomes `stale` (back to the dispatcher).
//!   When the same key has a block again it is made of the same records if it can be, else the
//!   first becomes `forward`: links into it need no bookkeeping.
//! - With a translator the first record of a block counts its runs (`count`); when it is warm the
//!   block is lifted once more where it is being run, and its first record becomes `native`. To
//!   lift it again is cheap and happens to one block in many; to keep the micro-ops of all would
//!   cost more memory than all else here. Blocks for one instruction alone are not counted.
//! - The first record of a block that straddles two pages checks the second (`straddle`), as a
//!   guard in front of it does the first: so it can be linked to.
//! - When the generator's buffer is full translations go, but no block does: which stores hit
//!   code, and by that where blocks begin and runs end, is the same on all engines.
//! - Blocks are found per page, so that a store into code invalidates just those that overlap the
//!   64-byte granules it touched.

use crate::cpu::{Cpu, Jump, mode};
use crate::interp::{Rec, UNLINKED, thread};
use crate::mem::phys::CodeMap;
use crate::native::{Part, Place, Target, Translator};
use crate::uop::{Block, Op};
use rustc_hash::FxHashMap;

/// Records the arena holds before it is emptied (32 bytes each), not counting those that count.
const ARENA: usize = 448 << 10;

/// RAM offset that code outside RAM is entered under: beyond any RAM.
pub const OUTSIDE: u64 = !4095;

/// What the cache knows of a block.
#[derive(Debug)]
pub struct Entry {
    /// RAM offset of its first byte.
    pub off: u64,
    /// RAM offset of the page its last instruction goes on in, if it straddles two.
    pub second: Option<u64>,
    /// Mode it was lifted for.
    pub mode: u32,
    /// Guest bytes.
    pub len: u16,
    /// First record.
    pub ip: u32,
    /// Last record.
    last: u32,
    /// Whether the bytes of a page that are its code are in several pieces.
    split: bool,
    /// Whether it is still valid.
    live: bool,
    /// Whether it is valid and the head of a translated region.
    native: bool,
    /// Per guest instruction: its first record (from `ip`) and its distance in bytes.
    marks: Box<[(u16, u16)]>,
}

impl Entry {
    /// Whether `block` has the same instructions, as far as their lengths tell.
    fn is(&self, block: &Block) -> bool {
        block.insns.iter().map(|i| i.offset).eq(self.marks.iter().map(|m| m.1))
    }
}

/// Counters of the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Blocks lifted.
    pub lifted: u64,
    /// Guest instructions in them.
    pub insns: u64,
    /// Canonical micro-ops in them (after the passes).
    pub uops: u64,
    /// Records made of them.
    pub recs: u64,
    /// Blocks invalidated by stores into code.
    pub invalidated: u64,
    /// Times that everything was dropped because the arena was full.
    pub flushes: u64,
    /// Links patched.
    pub links: u64,
}

/// A code generator, and the runs after which a block is worth its while.
pub struct Warm {
    /// The generator.
    pub translator: Box<dyn Translator>,
    /// Runs until a block is warm: 1 translates it before it runs at all.
    pub runs: u16,
}

impl std::fmt::Debug for Warm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Warm {{ runs: {}, {:?} }}", self.runs, self.translator.stats())
    }
}

/// What is known of a place in RAM and a mode where a block begins, or did.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// The live block's number.
    block: Option<u32>,
    /// Number of the last one, be it live or not.
    last: Option<u32>,
    /// How often stores have invalidated blocks there.
    killed: u8,
}

/// The bytes of a page that belong to a block.
#[derive(Clone, Copy, Debug)]
struct InPage {
    block: u32,
    start: u16,
    end: u16,
}

impl InPage {
    fn granules(self) -> u64 {
        CodeMap::mask(self.start.into(), u64::from(self.end - self.start))
    }
}

/// The cache of one CPU.
#[derive(Debug, Default)]
pub struct Cache {
    /// All records.
    pub code: Vec<Rec>,
    entries: Vec<Entry>,
    by_key: FxHashMap<(u64, u32), Known>,
    by_page: FxHashMap<u64, Vec<InPage>>,
    warm: Option<Warm>,
    /// Records that count runs, or did.
    counted: usize,
    /// Numbers of blocks that were [located](Self::locate): the same few fault again and again.
    located: [u32; 32],
    /// Counters.
    pub stats: CacheStats,
}

/// Fills of a slot of the TLB within [`Cache::RELIEF`] instructions that are too many.
const BUSY: u64 = 1 << 12;

impl Cache {
    /// How many instructions apart [`relieve`](Self::relieve) is worth its while.
    pub const RELIEF: u64 = 1 << 18;

    /// The live block for this key.
    pub fn get(&self, off: u64, mode: u32) -> Option<&Entry> {
        self.live(off, mode).map(|n| &self.entries[n as usize])
    }

    /// Its number.
    fn live(&self, off: u64, mode: u32) -> Option<u32> {
        self.by_key.get(&(off, mode))?.block
    }

    /// Enters a block that starts at RAM offset `off`, lifted for `mode`; `second` is the RAM
    /// offset of the next page if it reaches into that. Gives its first record.
    pub fn insert(
        &mut self,
        cpu: &mut Cpu,
        off: u64,
        second: Option<u64>,
        block: &Block,
        mode: u32,
    ) -> u32 {
        let threaded = thread::thread(cpu, block);
        self.stats.lifted += 1;
        self.stats.insns += block.insns.len() as u64;
        self.stats.uops += block.uops.len() as u64;
        self.stats.recs += threaded.recs.len() as u64;
        let len = block.len.max(1) as u16;
        let in_page = (4096 - (off & 4095)).min(len.into());
        let counts = second != Some(OUTSIDE)
            && off != OUTSIDE
            && mode & (mode::SINGLE | mode::CS_LIMIT) == 0
            && self.warm.is_some();
        let before = u32::from(second.is_some()) + u32::from(counts);
        let length = before + threaded.recs.len() as u32;
        let known = self.by_key.entry((off, mode)).or_default();
        let (old, last, killed) = (known.block, known.last, known.killed);
        // The records of the last block here serve again if they are as many, on any engine.
        let same =
            |e: &Entry| e.last - e.ip + 1 == length && e.second.is_some() == second.is_some();
        let again = last.filter(|n| same(&self.entries[*n as usize]));
        let n = again.unwrap_or(self.entries.len() as u32);
        let ip = again.map_or(self.code.len() as u32, |n| self.entries[n as usize].ip);
        (known.block, known.last) = (Some(n), Some(n));
        if let Some(old) = old {
            self.kill(cpu, old);
            self.forget(old);
        }
        let mut recs = threaded.recs;
        if let Some(second) = second {
            recs.insert(0, thread::straddle(second, in_page));
        }
        if counts {
            recs.insert(0, thread::count(n));
        }
        if again.is_some() {
            self.code[ip as usize..][..recs.len()].copy_from_slice(&recs);
        } else {
            self.code.extend_from_slice(&recs);
            self.counted += usize::from(counts);
            if let Some(last) = last {
                self.code[self.entries[last as usize].ip as usize] = thread::forward(ip);
            }
        }
        if let Some(warm) = &self.warm {
            // What is overwritten again and again is not worth translating, unless all is to be.
            let patience = if warm.runs > 1 { killed.min(6) } else { 0 };
            let runs = warm.runs.saturating_mul(1 << patience);
            cpu.heat.resize(self.entries.len().max(n as usize + 1), runs);
            cpu.heat[n as usize] = runs;
        }
        // Immediates that it loads are not its code.
        let loads = block.uops.iter().filter(|u| u.op == Op::Code);
        let loaded: Vec<(u64, u64)> = loads.map(|u| (u.imm as u64, u.w.bytes())).collect();
        for (at, bytes) in pages(off, second, len.into()) {
            cpu.patches.lifted(at, bytes, &loaded);
            let (mut from, end) = (at, at + bytes);
            let within = loaded.iter().filter(|l| at <= l.0 && l.0 < end);
            for &(to, hole) in within.chain(&[(end, 0)]) {
                if from < to {
                    let (start, bytes) = ((from & 4095) as u16, to - from);
                    let bytes_of = InPage { block: n, start, end: start + bytes as u16 };
                    self.by_page.entry(from >> 12).or_default().push(bytes_of);
                    if cpu.mem.code.mark(from, bytes) {
                        cpu.tlb.protect(from);
                    }
                }
                from = to + hole;
            }
        }
        let marks = threaded.marks.iter().map(|m| (m.0 + before as u16, m.1)).collect();
        let last = ip + length - 1;
        let (split, live, native) = (!loaded.is_empty(), true, false);
        let e = Entry { off, second, mode, len, ip, last, split, live, native, marks };
        match self.entries.get_mut(n as usize) {
            Some(old) => *old = e,
            None => self.entries.push(e),
        }
        ip
    }

    /// Takes block `n` out of use.
    fn kill(&mut self, cpu: &mut Cpu, n: u32) {
        let e = &mut self.entries[n as usize];
        (e.live, e.native) = (false, false);
        self.code[e.ip as usize] = thread::stale();
        let (ip, off, mode) = (e.ip, e.off, e.mode);
        let heads = self.warm.as_mut().map_or(Vec::new(), |warm| warm.translator.kill(ip));
        self.unhead(cpu, &heads);
        let j = &mut cpu.jumps[Jump::index(off)];
        if j.off == off && j.mode == mode {
            *j = Jump::NONE;
        }
    }

    /// Drops everything.
    pub fn clear(&mut self, cpu: &mut Cpu) {
        self.code.clear();
        self.counted = 0;
        self.entries.clear();
        self.by_key.clear();
        self.by_page.clear();
        cpu.jumps.fill(Jump::NONE);
        cpu.rare.clear();
        cpu.heat.clear();
        cpu.mem.code.clear();
        cpu.patches.clear();
        if let Some(warm) = &mut self.warm {
            warm.translator.clear();
            cpu.native.targets.clear();
        }
        // Write tags that were withheld come back by the slow path.
    }

    /// Invalidates the blocks that overlap the granules of `len` bytes at RAM offset `off`.
    pub fn invalidate(&mut self, cpu: &mut Cpu, off: u64, len: u64) {
        let mut at = off;
        let end = off + len.max(1);
        while at < end {
            let n = (4096 - (at & 4095)).min(end - at);
            self.invalidate_in_page(cpu, at, n);
            at += n;
        }
    }

    fn invalidate_in_page(&mut self, cpu: &mut Cpu, off: u64, len: u64) {
        let page = off >> 12;
        let Some(list) = self.by_page.get_mut(&page) else { return };
        let (start, end) = ((off & 4095) as u16, ((off & 4095) + len) as u16);
        let mut hit: Vec<u32> =
            list.extract_if(.., |b| b.start < end && start < b.end).map(|b| b.block).collect();
        cpu.mem.code.set_page(page << 12, list.iter().fold(0, |all, b| all | b.granules()));
        hit.dedup();
        if !hit.is_empty() {
            cpu.patches.note(off, len);
        }
        for n in hit {
            let e = &self.entries[n as usize];
            let elsewhere = e.second.is_some() || e.split;
            let known = self.by_key.entry((e.off, e.mode)).or_default();
            (known.block, known.killed) = (None, known.killed.saturating_add(1));
            self.kill(cpu, n);
            self.stats.invalidated += 1;
            if elsewhere {
                self.forget(n);
            }
        }
    }

    /// Takes block `n`, which is dead, from the lists of its pages. Their granules stay marked
    /// until a store hits one.
    fn forget(&mut self, n: u32) {
        let e = &self.entries[n as usize];
        for (at, _) in pages(e.off, e.second, e.len.into()) {
            if let Some(list) = self.by_page.get_mut(&(at >> 12)) {
                list.retain(|b| b.block != n);
            }
        }
    }

    /// Lets warm blocks be translated from now on. Everything is dropped: blocks so far aren't
    /// counted.
    pub fn set_translator(&mut self, cpu: &mut Cpu, warm: Warm) {
        self.clear(cpu);
        cpu.enter = warm.translator.enter();
        cpu.native.ram = cpu.mem.ram.address();
        self.warm = Some(warm);
    }

    /// Lets indirect jumps find the block that starts at record `ip`.
    pub fn enter_jump(&mut self, cpu: &mut Cpu, off: u64, mode: u32, ip: u32) {
        cpu.jumps[Jump::index(off)] = Jump { off, mode, ip };
        if let Some(warm) = &mut self.warm {
            warm.translator.found(ip);
        }
    }

    /// The code generator, if there is one.
    pub fn translator(&self) -> Option<&dyn Translator> {
        self.warm.as_ref().map(|warm| &*warm.translator)
    }

    /// Whether the block that starts at record `ip` is a live one at RAM offset `off` for `mode`.
    pub fn starts(&self, ip: usize, off: u64, mode: u32) -> bool {
        let found = self.get(off, mode);
        found.is_some_and(|e| e.live && e.ip as usize == ip)
    }

    /// Whether lifting the block that starts at record `ip` anew has given the same instructions.
    /// Its own bytes are those that it was lifted from; but what follows them may have changed so
    /// that it goes on, where an instruction across a border of pages had ended it.
    pub fn is_still(&self, ip: usize, block: &Block) -> bool {
        self.number(ip).is_some_and(|n| self.entries[n].is(block))
    }

    /// Whether the block at RAM offset `off` may be part of the region of another one: it has been
    /// run, and is no head itself. Gives its first record.
    pub fn joins(&self, cpu: &Cpu, off: u64, mode: u32) -> Option<usize> {
        let n = self.live(off, mode)?;
        let (e, warm) = (&self.entries[n as usize], self.warm.as_ref()?);
        let run = cpu.heat.get(n as usize).is_some_and(|left| *left < warm.runs);
        (e.live && e.second.is_none() && !e.native && run).then_some(e.ip as usize)
    }

    /// Translates the region of the blocks that start at the records of `parts`, lifted again; the
    /// first is its head. Gives where to go on. When there is no room in the generator's buffer,
    /// some translations are dropped.
    pub fn translate(&mut self, cpu: &mut Cpu, parts: &[(usize, Block)]) -> usize {
        let entry = self.host_code(parts).or_else(|| {
            self.evict(cpu);
            self.host_code(parts)
        });
        let ip = parts[0].0;
        let (Some(entry), Some(n)) = (entry, self.number(ip)) else {
            return self.cool(cpu, ip);
        };
        self.entries[n].native = true;
        self.code[ip] = thread::native(entry);
        cpu.native.targets.forget(self.entries[n].off);
        for (ip, block) in parts {
            let Some(n) = self.number(*ip) else { continue };
            let (first, last) = (self.entries[n].ip, self.entries[n].last);
            let end = self.code[last as usize];
            let linked = match block.uops.last().map(|u| u.op) {
                Some(Op::Goto) => [end.t, UNLINKED],
                Some(Op::Jcc | Op::Jrnz) => [end.t, end.f],
                _ => [UNLINKED; 2],
            };
            for (t, taken) in linked.into_iter().zip([true, false]) {
                if t != UNLINKED {
                    self.tell_link(first, taken, t);
                }
            }
        }
        ip
    }

    /// Has a region translated; gives its entry.
    fn host_code(&mut self, parts: &[(usize, Block)]) -> Option<u64> {
        let mut insns = Vec::with_capacity(parts.len());
        for (ip, block) in parts {
            let e = &self.entries[self.number(*ip)?];
            let same = e.is(block);
            let grown = block.insns.len() > e.marks.len();
            debug_assert!(same || grown, "a block changed without being invalidated");
            let records: Vec<u32> = e.marks.iter().map(|m| e.ip + u32::from(m.0)).collect();
            insns.push((e, records, same));
        }
        let parts: Vec<Part> = parts
            .iter()
            .zip(&insns)
            .filter(|(_, (.., same))| *same)
            .map(|((_, block), (e, insns, _))| {
                let &Entry { ip: first, last, off, second, mode, .. } = *e;
                let place = Place { first, last, insns, off, second, mode };
                Part { block, place }
            })
            .collect();
        let warm = self.warm.as_mut().filter(|_| insns[0].2)?;
        warm.translator.translate(&parts)
    }

    /// Lets the generator drop translations; the blocks stay.
    fn evict(&mut self, cpu: &mut Cpu) {
        let Some(warm) = &mut self.warm else { return };
        let heads = warm.translator.evict();
        cpu.native.targets.clear();
        self.unhead(cpu, &heads);
    }

    /// Lets the generator do without slots of the TLB that did not help.
    pub fn relieve(&mut self, cpu: &mut Cpu) {
        let Some(warm) = &mut self.warm else { return };
        let busy = cpu.tlb.busy_slots(BUSY);
        if busy.is_empty() {
            return;
        }
        let heads = warm.translator.without_slots(&busy);
        if !heads.is_empty() {
            cpu.native.targets.clear();
            self.unhead(cpu, &heads);
        }
    }

    /// The regions of these heads are dropped: the runs of the blocks are counted anew.
    fn unhead(&mut self, cpu: &mut Cpu, heads: &[u32]) {
        for &head in heads {
            let n = self.number(head as usize).filter(|&n| self.entries[n].native);
            if let Some(n) = n {
                self.entries[n].native = false;
                self.code[head as usize] = thread::count(n as u32);
                self.cool(cpu, head as usize);
            }
        }
    }

    /// The block that starts at record `ip` cannot be translated now: counts its runs anew. Gives
    /// where to go on.
    pub fn cool(&self, cpu: &mut Cpu, ip: usize) -> usize {
        let n = self.number(ip).unwrap_or(usize::MAX);
        if let (Some(warm), Some(left)) = (&self.warm, cpu.heat.get_mut(n)) {
            *left = warm.runs;
        }
        ip + 1
    }

    /// Tells the code generator that an exit of the block whose first record is `from` is linked
    /// to record `to`.
    pub fn tell_link(&mut self, from: u32, taken: bool, to: u32) {
        let Some(target) = self.target(to) else { return };
        if let Some(warm) = &mut self.warm {
            warm.translator.link(from, taken, target);
        }
    }

    /// What record `t`, which an exit is linked to, is: a block's first record, or a guard.
    fn target(&self, t: u32) -> Option<Target> {
        let n = self.number(t as usize)?;
        if self.entries[n].ip == t {
            return Some(Target::Block(self.heir(n)));
        }
        let guard = &self.code[t as usize];
        let first = self.heir(self.number(guard.t as usize)?);
        Some(Target::Guarded { guard: t, off: guard.imm, first })
    }

    /// First record of block `n`; when it is dead, of what has its place.
    fn heir(&self, n: usize) -> u32 {
        let e = &self.entries[n];
        if e.live { e.ip } else { self.get(e.off, e.mode).map_or(e.ip, |heir| heir.ip) }
    }

    /// Number of the block that record `ip` belongs to, or, for one that belongs to none, of one
    /// before it.
    fn number(&self, ip: usize) -> Option<usize> {
        self.entries.partition_point(|e| e.ip as usize <= ip).checked_sub(1)
    }

    /// The block that record `ip` belongs to, and the index of the guest instruction in it.
    pub fn locate(&mut self, ip: usize) -> Option<(&Entry, usize)> {
        let slot = ip % self.located.len();
        let known = self.entries.get(self.located[slot] as usize);
        if !known.is_some_and(|e| (e.ip..=e.last).contains(&(ip as u32))) {
            self.located[slot] = self.number(ip)? as u32;
        }
        let e = &self.entries[self.located[slot] as usize];
        let rel = (ip - e.ip as usize) as u16;
        let insn = e.marks.partition_point(|m| m.0 <= rel).saturating_sub(1);
        Some((e, insn))
    }

    /// Appends a record that belongs to no block.
    pub fn append(&mut self, rec: Rec) -> u32 {
        self.code.push(rec);
        self.code.len() as u32 - 1
    }

    /// Whether it must be emptied before another block: at the same block on all engines.
    pub fn is_full(&self, cpu: &Cpu) -> bool {
        (self.code.len() - self.counted).max(cpu.rare.len()) > ARENA
    }

    /// Bytes the cache takes, roughly.
    pub fn bytes(&self) -> usize {
        self.code.capacity() * size_of::<Rec>()
            + self.entries.capacity() * size_of::<Entry>()
            + self.entries.iter().map(|e| e.marks.len() * 4).sum::<usize>()
            + self.by_key.capacity() * 24
    }
}

impl Entry {
    /// Distance of guest instruction `insn` from the block's start, in bytes.
    pub fn offset_of(&self, insn: usize) -> u64 {
        self.marks.get(insn).map_or(0, |m| m.1.into())
    }

    /// The record of its first guest instruction.
    pub fn body(&self) -> u32 {
        self.ip + self.marks.first().map_or(0, |m| u32::from(m.0))
    }

    /// Number of guest instructions.
    pub fn insn_count(&self) -> usize {
        self.marks.len()
    }
}

/// RAM offset and bytes of each page that the `len` bytes at `off` lie in, which go on at `second`.
fn pages(off: u64, second: Option<u64>, len: u64) -> impl Iterator<Item = (u64, u64)> {
    let first = (4096 - (off & 4095)).min(len);
    let second = second.filter(|_| len > first).map(|at| (at & !4095, len - first));
    std::iter::once((off, first)).chain(second)
}
