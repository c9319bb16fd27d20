//! The compiler of a block for x86-64 hosts, and the books about what it made.
//!
//! **Registers.** Ten guest registers and RIP have a host register of their own, in all blocks
//! ([`crate::enter::PINNED`]); the others are in [`Cpu::regs`], off `rbp`. RAX, RCX and RDX are
//! scratch, free between micro-ops.
//!
//! **Flags.** The host's ALU computes the guest's flags. In a block they are in EFLAGS, or in
//! [`Native::flags`](emu_core::native::Native) as AX after `lahf; seto al`, or in both; between
//! blocks in memory. What is about to destroy EFLAGS saves them first if they are live; what
//! reads them, or changes only some, restores them. Liveness is computed backward over the block,
//! on top of the dead-flag pass.
//!
//! **Leaving.** Host code is left by `ret` with the exit word in EAX. Accesses that miss and
//! micro-ops without an emitter call routines (see `ends`), which leave in their place.
//!
//! **What generated code may touch**: this CPU's state by constant offsets, its level-1 TLB by a
//! masked index, guest RAM within pages that the TLB holds, and the table of indirect targets by a
//! masked index. It jumps to blocks of its own buffer only.

mod alu;
mod asm;
mod ends;
mod fuse;
mod memory;
mod vector;

use crate::code_buffer::CodeBuffer;
use crate::enter::{self, BIAS, PINNED, RIP};
use asm::{Asm, RAX, RBP, RCX, Rm};
use core::mem::offset_of;
use emu_core::cpu::{Cpu, JUMPS, Jump, Reg};
use emu_core::flags::OSZAPC;
use emu_core::interp::Leave;
use emu_core::native::{Enter, Native, NativeStats, Place, Target, Translator};
use emu_core::uop::{Block, Effect, Op, Src, Uop};
use emu_core::width::Width::{self, W8, W16, W32, W64};
use ends::Routines;
use memory::Kind;
use rustc_hash::FxHashMap;
use std::time::Instant;

/// Bytes of the code buffer.
pub const BUFFER: usize = 32 << 20;

const fn native(field: usize) -> i32 {
    (offset_of!(Cpu, native) + field) as i32 - BIAS as i32
}
const NATIVE_FLAGS: i32 = native(offset_of!(Native, flags));
const NATIVE_TLB: i32 = native(offset_of!(Native, tlb));
const NATIVE_RAM: i32 = native(offset_of!(Native, ram));
const NATIVE_LEFT: i32 = native(offset_of!(Native, left));
/// Guest vector registers.
const VECTORS: i32 = offset_of!(Cpu, v) as i32 - BIAS as i32;
const MXCSR: i32 = offset_of!(Cpu, mxcsr) as i32 - BIAS as i32;
const BUDGET: i32 = offset_of!(Cpu, budget) as i32 - BIAS as i32;

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
        None if r == Reg::RIP => Loc::Host(RIP),
        None => Loc::Slot(8 * r.ix() as i32 - 128),
    }
}

/// Code out of line.
#[derive(Clone, Copy)]
enum Cold {
    /// An access that misses.
    Access { miss: usize, resume: usize, kind: Kind, packed: u32, u: Uop },
    /// A micro-op whose quick form does not apply.
    Call { miss: usize, resume: usize, record: u32, u: Uop },
    /// Micro-ops that were fused and must be run one by one; then EFLAGS are up to date, or those
    /// in memory, and RCX is the register `reload`.
    Replay {
        miss: usize,
        resume: usize,
        record: u32,
        from: usize,
        count: usize,
        flags: (bool, bool),
        reload: Option<Reg>,
    },
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
    bmi2: bool,
}

/// Compiles one block.
struct Compiler<'a> {
    a: Asm,
    cpu: &'a mut Cpu,
    block: &'a Block,
    place: &'a Place<'a>,
    routines: Routines,
    host_has: HostHas,
    /// Address of the table of indirect targets.
    jumps: u64,
    /// Address of the code buffer.
    base: u64,
    /// Flags live after the current micro-op, and after each.
    live: u32,
    lives: Vec<u32>,
    /// EFLAGS are up to date.
    host: bool,
    /// [`Native::flags`] are up to date.
    memory: bool,
    /// EFLAGS are those of a shift, which leaves AF undefined where ours is zero.
    af_zero: bool,
    insn: usize,
    /// First micro-op of the next guest instruction.
    next: usize,
    insn_record: Option<u32>,
    cold: Vec<Cold>,
    exits: [Option<Site>; 2],
    called: u64,
}

impl Compiler<'_> {
    fn run(&mut self) {
        let block = self.block;
        let mut n = 0;
        while let Some(u) = block.uops.get(n) {
            let mark = |i: usize| block.insns.get(i).map(|m| m.uop as usize);
            while mark(self.insn + 1).is_some_and(|m| m <= n) {
                self.insn += 1;
            }
            self.next = mark(self.insn + 1).unwrap_or(block.uops.len());
            let fused = self.fused(n);
            if fused == 0 {
                self.live = self.lives[n];
                self.uop(u);
            }
            n += fused.max(1);
        }
        self.cold_code();
    }

    fn uop(&mut self, u: &Uop) {
        match u.op {
            Op::Lea => self.lea(u),
            Op::Ld | Op::Ldz | Op::Lds | Op::Ldw => self.load(u),
            Op::St | Op::Stw => self.store(u),
            Op::Lin if u.checks_rip() => self.canonical(u),
            _ if u.op.row().effect == Effect::End => self.end(u),
            _ if u.op.row().eval.is_some() && self.pure(u) => {}
            _ if self.vector(u) => {}
            _ => self.call(u),
        }
    }

    /// The record of the current guest instruction.
    fn record(&self) -> u32 {
        self.insn_record
            .or_else(|| self.place.insns.get(self.insn).copied())
            .unwrap_or(self.place.first)
    }

    // ---- flags ------------------------------------------------------------------------------------

    fn flags_word(&self) -> Rm {
        Rm::M(RBP, NATIVE_FLAGS)
    }

    /// Flags to memory, by way of AX. Leaves EFLAGS as they are, but for `af_zero`.
    fn save(&mut self) {
        if self.host && !self.memory {
            // lahf; seto al
            self.a.bytes(&[0x9f, 0x0f, 0x90, 0xc0]);
            if self.af_zero {
                // and ah, ~AF
                self.a.bytes(&[0x80, 0xe4, 0xef]);
                (self.host, self.af_zero) = (false, false);
            }
            self.a.store(W16, self.flags_word(), RAX);
            self.memory = true;
        }
    }

    /// Before what may fault: flags to memory, EFLAGS are free.
    fn settle(&mut self) {
        self.save();
        self.host = false;
    }

    /// Flags to EFLAGS, by way of AX.
    fn want_host(&mut self) {
        if !self.host {
            self.a.op0f(W32, 0xb7, RAX, self.flags_word());
            // add al, 127; sahf
            self.a.bytes(&[0x04, 0x7f, 0x9e]);
            (self.host, self.af_zero) = (true, false);
        }
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

/// Flags live after each micro-op.
fn liveness(block: &Block) -> Vec<u32> {
    let mut out = vec![0; block.uops.len()];
    let mut live = OSZAPC;
    for (u, out) in block.uops.iter().zip(&mut out).rev() {
        *out = live;
        live = live & !u.fl | u.flags_read();
        if u.may_fault() || u.op.row().effect == Effect::End {
            live = OSZAPC;
        }
    }
    out
}

/// An entry of the table of indirect targets; compare [`Jump`].
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

const NO_JUMP: JumpEntry = JumpEntry { off: u64::MAX, mode: 0, at: 0 };

struct Translated {
    at: usize,
    off: u64,
    mode: u32,
    exits: [Option<Site>; 2],
}

/// An exit that leads to a block: the exit, and the jump that goes to the block (the exit's own, or
/// that of its guard).
#[derive(Clone, Copy)]
struct Link {
    exit: Site,
    inner: Site,
    guard: Option<u32>,
}

/// The generator for x86-64 hosts.
pub struct X64 {
    buffer: CodeBuffer,
    routines: Routines,
    /// Length of the buffer with nothing but the routines.
    empty: usize,
    host_has: HostHas,
    blocks: FxHashMap<u32, Translated>,
    /// By the first record of a block, translated or not: the exits that lead there.
    incoming: FxHashMap<u32, Vec<Link>>,
    jumps: Box<[JumpEntry; JUMPS]>,
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
        let routines = ends::routines(&mut a);
        if !buffer.append(&a.code) {
            return Err(std::io::ErrorKind::OutOfMemory.into());
        }
        let host_has = HostHas {
            crc32: std::arch::is_x86_feature_detected!("sse4.2"),
            bmi2: std::arch::is_x86_feature_detected!("bmi2"),
        };
        Ok(X64 {
            empty: buffer.len(),
            buffer,
            routines,
            host_has,
            blocks: FxHashMap::default(),
            incoming: FxHashMap::default(),
            jumps: Box::new([NO_JUMP; JUMPS]),
            stats: NativeStats::default(),
        })
    }

    /// The host code of the block whose first record is `first`: from its entry to the end of the
    /// buffer's use, for reports. Empty if it is not translated.
    pub fn code(&self, first: u32) -> &[u8] {
        self.blocks.get(&first).map_or(&[], |b| &self.buffer.code()[b.at..])
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

impl Translator for X64 {
    fn enter(&self) -> Enter {
        enter::enter
    }

    fn translate(&mut self, cpu: &mut Cpu, block: &Block, place: &Place) -> Option<u64> {
        let start = Instant::now();
        let at = self.buffer.len().next_multiple_of(16);
        let pad = vec![0xcc; at - self.buffer.len()];
        let mut c = Compiler {
            a: Asm { origin: self.buffer.base() + at as u64, code: Vec::with_capacity(1024) },
            cpu,
            block,
            place,
            routines: self.routines,
            host_has: self.host_has,
            jumps: self.jumps.as_ptr() as u64,
            base: self.buffer.base(),
            live: 0,
            lives: liveness(block),
            host: false,
            memory: true,
            af_zero: false,
            insn: 0,
            next: 0,
            insn_record: None,
            cold: Vec::new(),
            exits: [None; 2],
            called: 0,
        };
        c.run();
        let Compiler { a, exits, called, cpu, .. } = c;
        let known = cpu.jumps[Jump::index(place.off)];
        if self.buffer.room() < pad.len() + a.code.len() {
            return None;
        }
        self.buffer.append(&pad);
        self.buffer.append(&a.code);
        if self.blocks.contains_key(&place.first) {
            self.kill(place.first);
        }
        let exits = exits.map(|e| e.map(|s| s.at(at)));
        let (off, m) = (place.off, place.mode);
        self.blocks.insert(place.first, Translated { at, off, mode: m, exits });
        // Only what an indirect jump has gone to: the table is small.
        if known == (Jump { off, mode: m, ip: place.first }) {
            self.jumps[Jump::index(off)] = JumpEntry { off, mode: m, at: at as u32 };
        }
        for link in self.incoming.get(&place.first).cloned().unwrap_or_default() {
            self.lead(link.inner, at);
            self.stats.links += 1;
        }
        self.stats.blocks += 1;
        self.stats.insns += block.insns.len() as u64;
        self.stats.uops += block.uops.len() as u64;
        self.stats.called += called;
        self.stats.bytes += a.code.len() as u64;
        self.stats.ns += start.elapsed().as_nanos() as u64;
        Some(self.buffer.base() + at as u64)
    }

    fn entry(&self, first: u32) -> Option<u64> {
        self.blocks.get(&first).map(|b| self.buffer.base() + b.at as u64)
    }

    fn link(&mut self, from: u32, taken: bool, to: Target) {
        let Some(b) = self.blocks.get(&from) else { return };
        let (Some(exit), m) = (b.exits[usize::from(!taken)], b.mode) else { return };
        let (first, link) = match to {
            Target::Block(first) => (first, Link { exit, inner: exit, guard: None }),
            Target::Guarded { guard, off, first } => {
                let at = self.buffer.len();
                let origin = self.buffer.base() + at as u64;
                let mut a = Asm { origin, ..Asm::default() };
                let inner = ends::guard(&mut a, m, off, guard).at(at);
                if !self.buffer.append(&a.code) {
                    return;
                }
                self.lead(exit, at);
                (first, Link { exit, inner, guard: Some(guard) })
            }
        };
        let links = self.incoming.entry(first).or_default();
        links.retain(|l| l.exit.jump != exit.jump);
        links.push(link);
        match self.blocks.get(&first) {
            Some(b) => {
                let at = b.at;
                self.lead(link.inner, at);
                self.stats.links += 1;
            }
            None if link.guard.is_none() => {
                self.leave_with(exit, Leave::Next.at(first as usize) as u32);
            }
            None => {}
        }
    }

    fn found(&mut self, first: u32) {
        if let Some(b) = self.blocks.get(&first) {
            self.jumps[Jump::index(b.off)] =
                JumpEntry { off: b.off, mode: b.mode, at: b.at as u32 };
        }
    }

    fn kill(&mut self, first: u32) {
        // Exits that lead here become unlinked: they may be linked to its successor.
        for link in self.incoming.remove(&first).unwrap_or_default() {
            self.leave_with(link.exit, link.exit.word);
        }
        let Some(b) = self.blocks.remove(&first) else { return };
        let mut a = Asm::default();
        ends::leave(&mut a, Leave::Lookup.at(first as usize) as u32);
        for (i, &byte) in a.code.iter().enumerate() {
            self.buffer.patch_byte(b.at + i, byte);
        }
        let j = &mut self.jumps[Jump::index(b.off)];
        if (j.off, j.mode, j.at) == (b.off, b.mode, b.at as u32) {
            *j = NO_JUMP;
        }
    }

    fn clear(&mut self) {
        self.buffer.truncate(self.empty);
        self.blocks.clear();
        self.incoming.clear();
        self.jumps.fill(NO_JUMP);
        self.stats.flushes += 1;
    }

    fn stats(&self) -> NativeStats {
        self.stats
    }
}
