//! The run loop of one virtual CPU: finds blocks, runs them, links them, delivers faults and
//! interrupts, and steps over what must be exact (code that overwrites itself, interrupt shadows,
//! single-stepping).

use crate::cache::{Cache, Entry, OUTSIDE, Warm};
use crate::cpu::{Cpu, mode};
use crate::fault::{Fault, Guest};
use crate::flags::rflags;
use crate::interp::{Leave, UNLINKED, execute, thread};
use crate::mem::tlb::{Access, TlbStats};
use crate::native::Translator;
use crate::passes;
use crate::uop::Block;
use crate::watch::{BS, BT};
use crate::width::Width::{W32, W64};
use std::io::Write;

bitflags::bitflags! {
    /// What to write to the trace.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Trace: u8 {
        /// Every instruction (one block each; slow).
        const INSN = 1;
        /// Every block that the dispatcher enters.
        const BLOCK = 2;
        /// Faults and interrupts.
        const EXC = 4;
        /// Port and memory-mapped I/O (written by the platform).
        const IO = 8;
        /// Page walks and TLB flushes.
        const MMU = 16;
    }
}

/// Why [`Vcpu::run`] came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The budget is used up.
    Budget,
    /// HLT, and nothing to wake it.
    Halted,
    /// Triple fault.
    Shutdown,
}

/// What the run loop counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunStats {
    /// Times the dispatcher looked a block up.
    pub dispatches: u64,
    /// Exits because the budget was used up.
    pub budget: u64,
    /// Exits of helpers that may have changed mode or interrupt state.
    pub exits: u64,
    /// Faults raised by instructions.
    pub faults: u64,
    /// Interrupts delivered.
    pub interrupts: u64,
    /// Stores into translated code.
    pub smc: u64,
    /// Instructions run one to a block.
    pub single: u64,
    /// Times HLT waited.
    pub halts: u64,
}

struct Tracer {
    what: Trace,
    out: Box<dyn Write + Send>,
}

/// A virtual CPU with its block cache.
pub struct Vcpu {
    /// State.
    pub cpu: Cpu,
    /// Block cache.
    pub cache: Cache,
    /// Counters.
    pub stats: RunStats,
    /// When [`Cache::relieve`] was called last, by the instruction count.
    relieved: u64,
    /// Step over the instruction at RIP: its store hits translated code.
    step_over: bool,
    last: Dispatched,
    traced_tlb: TlbStats,
    tracer: Option<Tracer>,
    /// Where the names of translated blocks go.
    perf_map: Option<Box<dyn Write + Send>>,
}

/// A block that the dispatcher looked up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dispatched {
    /// Linear address of its first byte.
    pub va: u64,
    /// Mode it was looked up for.
    pub mode: u32,
    /// RAM offset of its first byte; `None` if that is not in RAM or not mapped.
    pub off: Option<u64>,
}

/// Where a lookup led.
enum Found {
    /// The block starts at this record and may be linked to.
    Linkable(u32),
    /// The same, and records from the first on check what the lookup has checked, up to this other
    /// one.
    Straddling(u32, u32),
    /// It must be looked up every time.
    Unlinkable(u32),
}

impl Found {
    /// The block `e`.
    fn new(e: &Entry) -> Found {
        match e.second {
            Some(_) => Found::Straddling(e.ip, e.body()),
            None => Found::Linkable(e.ip),
        }
    }

    fn ip(&self) -> usize {
        match self {
            Found::Linkable(ip) | Found::Unlinkable(ip) => *ip as usize,
            Found::Straddling(_, body) => *body as usize,
        }
    }
}

impl Vcpu {
    /// A vCPU around `cpu`.
    pub fn new(cpu: Cpu) -> Vcpu {
        Vcpu {
            cpu,
            cache: Cache::default(),
            stats: RunStats::default(),
            relieved: 0,
            step_over: false,
            last: Dispatched::default(),
            traced_tlb: TlbStats::default(),
            tracer: None,
            perf_map: None,
        }
    }

    /// Translates blocks with `translator` from their run number `runs` on: 1 is the first, so that
    /// the interpreter runs only what cannot be translated.
    pub fn set_translator(&mut self, translator: Box<dyn Translator>, runs: u16) {
        self.cache.set_translator(&mut self.cpu, Warm { translator, runs });
    }

    /// Writes what `what` says to `out` from now on.
    pub fn trace(&mut self, what: Trace, out: Box<dyn Write + Send>) {
        self.tracer = Some(Tracer { what, out });
        self.cpu.native.traced = true;
    }

    /// Writes a line to `out` for each block that is translated from now on, and for what the
    /// generator has besides blocks: address, bytes, name, as `perf` reads them.
    pub fn perf_map(&mut self, out: Box<dyn Write + Send>) {
        self.perf_map = Some(out);
        for (at, bytes, name) in self.cache.translator().map_or_else(Vec::new, Translator::routines)
        {
            self.name_code(at, bytes, format_args!("ring3:{name}"));
        }
    }

    /// A map that cannot be written is written no further.
    fn name_code(&mut self, at: u64, bytes: u64, name: std::fmt::Arguments) {
        if let Some(out) = &mut self.perf_map
            && writeln!(out, "{at:x} {bytes:x} {name}").is_err()
        {
            self.perf_map = None;
        }
    }

    fn tracing(&self, what: Trace) -> bool {
        self.tracer.as_ref().is_some_and(|t| t.what.contains(what))
    }

    /// Traces what the TLB did since the last time.
    fn trace_mmu(&mut self) {
        let now = self.cpu.tlb.stats;
        let old = std::mem::replace(&mut self.traced_tlb, now);
        let (walks, flushes) = (now.walks - old.walks, now.flushes - old.flushes);
        let invalidations = now.invalidations - old.invalidations;
        if walks + flushes + invalidations > 0 {
            let (cr3, rip) = (self.cpu.sys.cr3, self.cpu.rip());
            self.note(format_args!(
                "mmu walks {walks} flushes {flushes} invalidations {invalidations} cr3 {cr3:#x} \
                 next {rip:#x}"
            ));
        }
    }

    /// Writes a line to the trace. A trace that cannot be written ends tracing, not the guest.
    fn note(&mut self, line: std::fmt::Arguments) {
        let icount = self.cpu.icount();
        if let Some(t) = &mut self.tracer
            && writeln!(t.out, "{icount} {line}").is_err()
        {
            self.tracer = None;
        }
    }

    /// Runs about `budget` instructions, delivering faults and interrupts.
    pub fn run(&mut self, budget: i64) -> Stop {
        let cpu = &mut self.cpu;
        cpu.budget = budget;
        cpu.granted = budget;
        cpu.held = 0;
        if std::mem::take(&mut cpu.mwait) {
            cpu.halted = false;
        }
        let stop = self.turn();
        let cpu = &mut self.cpu;
        cpu.retired = cpu.icount();
        (cpu.granted, cpu.budget, cpu.held) = (0, 0, 0);
        stop
    }

    fn turn(&mut self) -> Stop {
        loop {
            if self.cpu.shutdown {
                return Stop::Shutdown;
            }
            if !self.cpu.smc.is_empty() || self.cpu.mem.code.is_dirty() {
                self.invalidate();
            }
            if self.tracing(Trace::MMU) {
                self.trace_mmu();
            }
            let cpu = &mut self.cpu;
            cpu.budget += std::mem::take(&mut cpu.held);
            // As at block ends: whether a block was found by a link must not be seen.
            if cpu.budget < 0 {
                return Stop::Budget;
            }
            if cpu.watch.pending != 0 && !cpu.watch.shadow {
                self.trap();
                continue;
            }
            if !cpu.shadow && !self.step_over {
                self.interrupts();
            }
            let cpu = &mut self.cpu;
            if cpu.halted {
                self.stats.halts += 1;
                return Stop::Halted;
            }
            let stepping = cpu.sysflags & rflags::TF != 0;
            let shadow = std::mem::take(&mut cpu.shadow);
            let after_ss = std::mem::take(&mut cpu.watch.shadow);
            let resumed = cpu.sysflags & rflags::RF != 0;
            cpu.sysflags &= !rflags::RF;
            let through = std::mem::take(&mut self.step_over);
            let armed = cpu.watch.armed;
            if armed && !(resumed || after_ss || through) && self.breakpoint() {
                continue;
            }
            if stepping || shadow || through || armed || self.tracing(Trace::INSN) {
                self.single(stepping, through, after_ss);
            } else {
                match self.dispatch() {
                    Ok(ip) => self.go(ip),
                    Err(f) => self.fault(f),
                }
            }
        }
    }

    /// Whether all that is left to do before the next instruction is to find its block: a whole
    /// turn would do nothing else.
    fn is_quiet(&self) -> bool {
        !self.step_over && self.tracer.is_none() && self.cpu.is_quiet()
    }

    /// Finds the block at RIP, and lets indirect jumps find it: gives where to go on.
    fn dispatch(&mut self) -> Guest<usize> {
        self.stats.dispatches += 1;
        let m = self.cpu.mode;
        let found = self.find(m)?;
        if m & (mode::SINGLE | mode::CS_LIMIT) == 0
            && let Found::Linkable(ip) | Found::Straddling(ip, _) = found
            && let Some(off) = self.cpu.tlb.exec(self.cpu.linear_rip())
        {
            self.cache.enter_jump(&mut self.cpu, off, m, ip);
        }
        Ok(found.ip())
    }

    /// The next block after one that has been left, if nothing else is to be done first. `known`:
    /// it may be among the recent targets of indirect jumps.
    fn next(&mut self, known: bool) -> Option<usize> {
        while self.is_quiet() {
            let cpu = &mut self.cpu;
            cpu.sysflags &= !rflags::RF;
            if known && let Some(ip) = cpu.recent() {
                return Some(ip);
            }
            match self.dispatch() {
                Ok(ip) => return Some(ip),
                Err(f) => self.fault(f),
            }
        }
        None
    }

    /// Delivers an interrupt if one is requested and allowed.
    fn interrupts(&mut self) {
        let cpu = &mut self.cpu;
        if !cpu.nmi_blocked && cpu.mem.platform.take_nmi() {
            cpu.halted = false;
            (cpu.frontend.deliver_interrupt)(cpu, crate::fault::vector::NMI, true);
            self.stats.interrupts += 1;
            return;
        }
        if cpu.sysflags & rflags::IF == 0 || !cpu.mem.platform.interrupt_pending() {
            return;
        }
        cpu.now();
        if let Some(v) = cpu.mem.platform.acknowledge() {
            cpu.halted = false;
            (cpu.frontend.deliver_interrupt)(cpu, v, false);
            self.stats.interrupts += 1;
            if self.tracing(Trace::EXC) {
                self.note(format_args!("interrupt {v:#04x}"));
            }
        }
    }

    /// Delivers the debug traps of the previous instruction.
    fn trap(&mut self) {
        let bits = std::mem::take(&mut self.cpu.watch.pending);
        self.cpu.watch.hits = bits;
        // What no instruction stands for counts as one: see `fault`.
        self.cpu.budget -= i64::from(bits & BT != 0);
        if self.tracing(Trace::EXC) {
            let rip = self.cpu.rip();
            self.note(format_args!("debug trap {bits:#x} at {rip:#x}"));
        }
        (self.cpu.frontend.single_step)(&mut self.cpu);
        // They are told. Left standing they would stop each repeated string instruction.
        self.cpu.watch.hits = 0;
    }

    /// The #DB of an instruction breakpoint at RIP, if there is one.
    fn breakpoint(&mut self) -> bool {
        let cpu = &mut self.cpu;
        let hits = cpu.watch.execute(cpu.linear_rip());
        if hits != 0 {
            cpu.budget -= 1;
            cpu.watch.pending |= hits;
            self.trap();
        }
        hits != 0
    }

    /// Runs threaded code from `ip`, linking as it goes, until the dispatcher is needed.
    fn go(&mut self, mut ip: usize) {
        loop {
            if self.tracing(Trace::BLOCK) {
                let (rip, m) = (self.cpu.rip(), self.cpu.mode);
                self.note(format_args!("block {rip:#x} mode {m:#x}"));
            }
            let (why, at) = execute(&mut self.cpu, &self.cache.code, ip);
            let taken = why == Leave::LinkTaken;
            match why {
                Leave::LinkTaken | Leave::LinkFall
                    if self.cpu.mode & (mode::CS_LIMIT | mode::SINGLE) != 0 =>
                {
                    return;
                }
                Leave::LinkTaken | Leave::LinkFall => match self.link(at, taken) {
                    Some(next) => ip = next,
                    None => return,
                },
                Leave::Warm => ip = self.warm(at),
                _ => {
                    self.left(why, at);
                    // A lookup comes from a jump that did not find its target there.
                    match self.next(why != Leave::Lookup) {
                        Some(next) => ip = next,
                        None => return,
                    }
                }
            }
        }
    }

    /// Deals with the exits that are not about finding the next block.
    fn left(&mut self, why: Leave, at: usize) {
        match why {
            Leave::Fault => {
                self.rewind(at);
                let f = self.cpu.fault;
                self.fault(f);
            }
            Leave::Smc => {
                self.rewind(at);
                self.step_over = true;
            }
            Leave::Budget => {
                self.stats.budget += 1;
                if self.cpu.icount().wrapping_sub(self.relieved) >= Cache::RELIEF {
                    self.relieved = self.cpu.icount();
                    self.cache.relieve(&mut self.cpu);
                }
            }
            Leave::Exit => self.stats.exits += 1,
            Leave::Next | Leave::Lookup | Leave::LinkTaken | Leave::LinkFall | Leave::Warm => {}
        }
    }

    /// Translates the block at RIP, which starts at record `at`; gives where to go on.
    fn warm(&mut self, at: usize) -> usize {
        let (va, m) = (self.cpu.linear_rip(), self.cpu.mode);
        let off = self.cpu.tlb.exec(va);
        // What lies in memory is what was lifted, unless a store is still to be told.
        let quiet = self.cpu.smc.is_empty() && !self.cpu.mem.code.is_dirty();
        let known = |off| {
            let next = self.cpu.wrap_linear(va.wrapping_add(4096 - (va & 4095)));
            let second = self.cache.get(off, m).and_then(|e| e.second);
            let same = second.is_none() || second == self.cpu.tlb.exec(next);
            same && self.cache.starts(at, off, m)
        };
        let known = quiet && off.is_some_and(known);
        let lifted = known.then(|| self.lift_at_rip(m).ok()).flatten();
        let Some(mut block) = lifted.filter(|block| self.cache.is_still(at, block)) else {
            return self.cache.cool(&mut self.cpu, at);
        };
        passes::run(&mut block);
        let mut parts = vec![(at, block)];
        if let Some(off) = off {
            self.gather(&mut parts, off, m);
        }
        let bytes = |cache: &Cache| cache.translator().map_or(0, |t| t.stats().bytes);
        let before = bytes(&self.cache);
        let next = self.cache.translate(&mut self.cpu, &parts);
        let made = bytes(&self.cache) - before;
        if self.perf_map.is_some()
            && let Some(entry) = self.cache.translator().and_then(|t| t.entry(at as u32))
        {
            let ring = if m & mode::USER != 0 { "user" } else { "kernel" };
            self.name_code(entry, made, format_args!("{ring}:{va:x}"));
        }
        next
    }

    /// Adds to the block at RIP, which is at RAM offset `off`, the blocks of its page that it leads
    /// to, as far as they have been run.
    fn gather(&mut self, parts: &mut Vec<(usize, Block)>, off: u64, m: u32) {
        const BLOCKS: usize = 24;
        const INSNS: usize = 300;
        let width = match m & (mode::CODE64 | mode::CODE32 | mode::FLAT) {
            m if m & mode::CODE64 != 0 => W64,
            m if m == mode::CODE32 | mode::FLAT => W32,
            _ => return,
        };
        let (rip, mut offs, mut insns) = (self.cpu.rip(), vec![off], 0);
        let mut n = 0;
        while n < parts.len() && parts.len() < BLOCKS && insns < INSNS {
            insns += parts[n].1.insns.len();
            for (w, delta) in parts[n].1.exits().into_iter().flatten() {
                let to = offs[n].wrapping_add(delta as u64);
                if w != width || to >> 12 != off >> 12 || offs.contains(&to) {
                    continue;
                }
                let Some(ip) = self.cache.joins(&self.cpu, to, m) else { continue };
                self.cpu.set_rip(cut(m, rip.wrapping_add(to).wrapping_sub(off)));
                if let Ok(mut block) = self.lift_at_rip(m) {
                    passes::run(&mut block);
                    parts.push((ip, block));
                    offs.push(to);
                }
            }
            n += 1;
        }
        self.cpu.set_rip(rip);
    }

    /// RIP of the instruction that record `at` belongs to; charges those before it.
    fn rewind(&mut self, at: usize) {
        if let Some((e, insn)) = self.cache.locate(at) {
            let (off, m) = (e.offset_of(insn), e.mode);
            let rip = self.cpu.rip().wrapping_add(off);
            self.cpu.set_rip(cut(m, rip));
            self.cpu.budget -= insn as i64;
        }
    }

    fn fault(&mut self, f: Fault) {
        self.stats.faults += 1;
        // An attempt counts as an instruction: a guest whose handlers fault for ever must still
        // use up its budget.
        self.cpu.budget -= 1;
        if self.tracing(Trace::EXC) {
            let rip = self.cpu.rip();
            self.note(format_args!(
                "fault {:#04x} error {:x?} address {:#x} at {rip:#x}",
                f.vector, f.error, f.address
            ));
        }
        let cpu = &mut self.cpu;
        (cpu.frontend.deliver_fault)(cpu, f);
    }

    /// Finds, or lifts, the block at RIP.
    fn find(&mut self, mode: u32) -> Guest<Found> {
        let cpu = &mut self.cpu;
        let va = cpu.linear_rip();
        self.last = Dispatched { va, mode, off: None };
        // Bytes up to the limit of CS.
        let room = match mode & mode::CS_LIMIT {
            0 => u64::MAX,
            _ => (u64::from(cpu.segs[1].limit) + 1).saturating_sub(cpu.rip()),
        };
        if room == 0 {
            return Err(Fault::GP0);
        }
        let off = if let Some(off) = cpu.tlb.exec(va) {
            off
        } else {
            let pa = (cpu.frontend.translate)(cpu, va, Access::Exec)?;
            match cpu.mem.lookup(pa) {
                Some((off, _)) => off,
                None => return self.outside(mode),
            }
        };
        self.last.off = Some(off);
        if let Some(e) = self.cache.get(off, mode) {
            let (found, second, len) = (Found::new(e), e.second, u64::from(e.len));
            if len > room {
                return self.up_to_limit(mode);
            }
            if second.is_none() || self.second_page(va, off, len)? == second {
                return Ok(found);
            }
        }
        let cpu = &mut self.cpu;
        let saved = std::mem::replace(&mut cpu.mode, mode);
        let block = (cpu.frontend.lift)(cpu);
        cpu.mode = saved;
        let mut block = block?;
        passes::run(&mut block);
        if u64::from(block.len) > room {
            return self.up_to_limit(mode);
        }
        let second = self.second_page(va, off, u64::from(block.len))?;
        self.make_room();
        let cpu = &mut self.cpu;
        self.cache.insert(cpu, off, second, &block, mode);
        Ok(Found::new(self.cache.get(off, mode).expect("the block that was entered")))
    }

    /// The block at RIP reaches beyond the limit of CS: its first instruction alone may not.
    fn up_to_limit(&mut self, mode: u32) -> Guest<Found> {
        match mode & mode::SINGLE {
            0 => self.find(mode | mode::SINGLE),
            _ => Err(Fault::GP0),
        }
    }

    /// Empties the cache when its arena is full.
    fn make_room(&mut self) {
        if self.cache.is_full(&self.cpu) {
            self.cache.clear(&mut self.cpu);
            self.cache.stats.flushes += 1;
        }
    }

    /// RAM offset of the second page of a block of `len` bytes at `va`, if it reaches there.
    fn second_page(&mut self, va: u64, off: u64, len: u64) -> Guest<Option<u64>> {
        let in_page = 4096 - (off & 4095);
        if len <= in_page {
            return Ok(None);
        }
        let cpu = &mut self.cpu;
        let next = cpu.wrap_linear(va.wrapping_add(in_page));
        if let Some(off) = cpu.tlb.exec(next) {
            return Ok(Some(off));
        }
        let pa = (cpu.frontend.translate)(cpu, next, Access::Exec)?;
        Ok(Some(cpu.mem.lookup(pa).map_or(OUTSIDE, |(off, _)| off)))
    }

    /// Code that is not in RAM or ROM: one instruction at a time, never kept.
    fn outside(&mut self, mode: u32) -> Guest<Found> {
        let cpu = &mut self.cpu;
        let saved = std::mem::replace(&mut cpu.mode, mode | mode::SINGLE);
        let block = (cpu.frontend.lift)(cpu);
        cpu.mode = saved;
        let block = block?;
        self.make_room();
        // The key is beyond any RAM; the next one replaces it.
        let cpu = &mut self.cpu;
        let ip = self.cache.insert(cpu, OUTSIDE, None, &block, mode);
        Ok(Found::Unlinkable(ip))
    }

    /// Links the end at record `at` to the block at RIP; gives where to go on.
    fn link(&mut self, at: usize, taken: bool) -> Option<usize> {
        let m = self.cpu.mode;
        let source = self.cache.locate(at).map(|(e, _)| (e.off, e.mode, e.ip));
        let generation = self.cache.stats.flushes;
        let found = match self.find(m) {
            Ok(f) => f,
            Err(f) => {
                self.fault(f);
                return None;
            }
        };
        let (Found::Linkable(ip) | Found::Straddling(ip, _), Some((from, from_mode, first))) =
            (&found, source)
        else {
            return Some(found.ip());
        };
        if from_mode == m && self.cache.stats.flushes == generation {
            let to = self.cpu.tlb.exec(self.cpu.linear_rip())?;
            // Two pages may map the same RAM: only a target at its distance is in this one.
            let imm = self.cache.code[at].imm;
            let delta = if taken { imm as i32 as u64 } else { (imm >> 32) as i16 as u64 };
            let target = if to >> 12 == from >> 12 && to == from.wrapping_add(delta) {
                *ip
            } else {
                self.cache.append(thread::guard(to, *ip))
            };
            let rec = &mut self.cache.code[at];
            if taken {
                rec.t = target;
            } else {
                rec.f = target;
            }
            debug_assert!(target != UNLINKED);
            self.cache.stats.links += 1;
            self.cache.tell_link(first, taken, target);
        }
        Some(found.ip())
    }

    /// Runs the one instruction at RIP; then its debug traps are pending, the single step's too if
    /// TF was set before it (`trap`). `through`: its stores go into code at once. `after_ss`: the
    /// one before it was MOV or POP to SS, and it gives no shadow itself.
    fn single(&mut self, trap: bool, through: bool, after_ss: bool) {
        self.stats.single += 1;
        self.cpu.watch.hits = 0;
        self.cpu.watch.entered = false;
        if self.tracing(Trace::INSN) {
            let text = self.text_at_rip();
            let rip = self.cpu.rip();
            self.note(format_args!("{rip:#x} {text}"));
        }
        let m = self.cpu.mode | mode::SINGLE;
        let found = match self.find(m) {
            Ok(f) => f,
            Err(f) => return self.fault(f),
        };
        self.cpu.smc_through = through;
        // Indirect jumps look for blocks of this mode: there are none, and they come back here.
        self.cpu.mode |= mode::SINGLE;
        let (why, at) = execute(&mut self.cpu, &self.cache.code, found.ip());
        self.cpu.mode &= !mode::SINGLE;
        self.cpu.smc_through = false;
        self.left(why, at);
        let cpu = &mut self.cpu;
        match why {
            Leave::Fault => return,
            Leave::Smc => return cpu.watch.shadow = after_ss,
            _ => {}
        }
        if after_ss {
            (cpu.shadow, cpu.watch.shadow) = (false, false);
        }
        // INT n, SYSCALL and their kin clear TF on their way and are not trapped after; POPF that
        // clears it is (SDM Vol. 3, 17.3.1.4).
        let w = &mut cpu.watch;
        let step = trap && (cpu.sysflags & rflags::TF != 0 || !w.entered) && !w.shadow;
        w.pending |= w.hits | if step { BS } else { 0 };
    }

    fn invalidate(&mut self) {
        let cpu = &mut self.cpu;
        if cpu.mem.sync() {
            cpu.tlb.clear_level1();
        }
        let mut hits = std::mem::take(&mut cpu.smc);
        self.stats.smc += hits.len() as u64;
        hits.extend(cpu.mem.code.take_dirty());
        for (off, len) in hits {
            self.cache.invalidate(cpu, off, len);
        }
    }

    fn lift_at_rip(&mut self, mode: u32) -> Guest<Block> {
        let cpu = &mut self.cpu;
        let saved = std::mem::replace(&mut cpu.mode, mode);
        let block = (cpu.frontend.lift)(cpu);
        cpu.mode = saved;
        block
    }

    fn text_at_rip(&mut self) -> String {
        match self.lift_at_rip(self.cpu.mode | mode::SINGLE) {
            Ok(b) => b.to_string().trim_end().replace('\n', "; "),
            Err(f) => format!("(fetch raises {:#04x})", f.vector),
        }
    }

    /// The block that the dispatcher looked up last.
    pub fn last_block(&self) -> Dispatched {
        self.last
    }

    /// The micro-ops of the block that the dispatcher entered last, lifted anew: for reports.
    pub fn last_block_text(&mut self) -> String {
        let Dispatched { va, mode: m, .. } = self.last;
        let rip = self.cpu.rip();
        let base = if m & mode::CODE64 != 0 { 0 } else { self.cpu.base(crate::cpu::Seg::Cs) };
        self.cpu.set_rip(va.wrapping_sub(base));
        let block = self.lift_at_rip(m);
        self.cpu.set_rip(rip);
        match block {
            Ok(b) => format!("last block, at {va:#x}:\n{b}"),
            Err(_) => format!("last block, at {va:#x}: no longer mapped"),
        }
    }

    /// The cache entry of the block at RAM offset `off`, if there is one.
    pub fn cached(&self, off: u64, mode: u32) -> Option<&Entry> {
        self.cache.get(off, mode)
    }
}

/// RIP cut as the code size says.
fn cut(m: u32, rip: u64) -> u64 {
    match m & (mode::CODE64 | mode::CODE32) {
        mode::CODE64 => rip,
        mode::CODE32 => rip & 0xffff_ffff,
        _ => rip & 0xffff,
    }
}
