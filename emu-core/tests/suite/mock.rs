//! A code generator without code: it keeps the blocks, and what it has for host code is the plain
//! reading of their micro-ops. It does all else as a real one does (entries, chained exits, guards,
//! kills, a buffer that is full), and looks at what it is given: so it tests the run loop's side.
//!
//! What is entered is a function without state of its own, so the books are the thread's.

use emu_core::cpu::{Cpu, Jump};
use emu_core::fault::Fault;
use emu_core::interp::Leave;
use emu_core::interp::handlers::slow;
use emu_core::native::{Enter, NativeStats, Part, Target, Translator};
use emu_core::rare;
use emu_core::uop::{Block, Effect, Op, Src, Uop};
use emu_core::vcpu::Vcpu;
use emu_core::width::Width;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

thread_local! {
    static BOOKS: RefCell<Books> = RefCell::default();
}

#[derive(Default)]
struct Books {
    owners: u64,
    /// By entry.
    made: Vec<Option<Rc<Made>>>,
    /// Entry by owner and first record.
    entries: HashMap<(u64, u32), u64>,
}

/// A translated block.
struct Made {
    owner: u64,
    first: u32,
    last: u32,
    off: u64,
    mode: u32,
    insns: Vec<u32>,
    block: Block,
    /// Where its exits lead: taken, not taken.
    exits: [Cell<Option<Target>>; 2],
    dead: Cell<bool>,
}

/// The generator.
pub struct Mock {
    id: u64,
    /// Blocks the buffer holds.
    room: u64,
    held: u64,
    stats: NativeStats,
}

impl Mock {
    /// One whose buffer holds `room` blocks.
    pub fn with_room(room: u64) -> Mock {
        let id = BOOKS.with_borrow_mut(|books| {
            books.owners += 1;
            books.owners
        });
        Mock { id, room, held: 0, stats: NativeStats::default() }
    }
}

/// `v`, which translates blocks from their run number `runs` on.
pub fn translated(mut v: Vcpu, runs: u16) -> Vcpu {
    v.set_translator(Box::new(Mock::with_room(u64::MAX)), runs);
    v
}

/// The translation of the block at `first`, alive.
fn made(owner: u64, first: u32) -> Option<Rc<Made>> {
    BOOKS.with_borrow(|books| {
        let entry = books.entries.get(&(owner, first))?;
        books.made[*entry as usize].clone()
    })
}

impl Translator for Mock {
    fn enter(&self) -> Enter {
        enter
    }

    fn translate(&mut self, parts: &[Part]) -> Option<u64> {
        let Part { block, place } = parts[0];
        if self.held == self.room {
            return None;
        }
        assert!(made(self.id, place.first).is_none(), "translated twice");
        assert_eq!(place.insns.len(), block.insns.len());
        assert!(place.insns.is_sorted() && place.insns.iter().all(|i| *i <= place.last));
        assert!(place.insns[0] > place.first, "the first record is not the guest's");
        self.held += 1;
        self.stats.blocks += 1;
        self.stats.insns += block.insns.len() as u64;
        let block = Made {
            owner: self.id,
            first: place.first,
            last: place.last,
            off: place.off,
            mode: place.mode,
            insns: place.insns.to_vec(),
            block: block.clone(),
            exits: Default::default(),
            dead: Cell::new(false),
        };
        BOOKS.with_borrow_mut(|books| {
            books.made.push(Some(Rc::new(block)));
            let entry = books.made.len() as u64 - 1;
            books.entries.insert((self.id, place.first), entry);
            Some(entry)
        })
    }

    fn entry(&self, first: u32) -> Option<u64> {
        BOOKS.with_borrow(|books| books.entries.get(&(self.id, first)).copied())
    }

    fn link(&mut self, from: u32, taken: bool, to: Target) {
        if let Some(made) = made(self.id, from) {
            self.stats.links += 1;
            made.exits[usize::from(!taken)].set(Some(to));
        }
    }

    fn kill(&mut self, first: u32) -> Vec<u32> {
        if let Some(made) = made(self.id, first) {
            made.dead.set(true);
            // Its records may serve again.
            BOOKS.with_borrow_mut(|books| books.entries.remove(&(self.id, first)));
        }
        Vec::new()
    }

    fn evict(&mut self) -> Vec<u32> {
        let of = |((owner, first), _): (&(u64, u32), &u64)| (*owner == self.id).then_some(*first);
        let heads = BOOKS.with_borrow(|books| books.entries.iter().filter_map(of).collect());
        self.clear();
        self.stats.evictions += 1;
        heads
    }

    fn clear(&mut self) {
        self.held = 0;
        BOOKS.with_borrow_mut(|books| {
            books.entries.retain(|(owner, _), _| *owner != self.id);
            for made in &mut books.made {
                made.take_if(|made| made.owner == self.id);
            }
        });
    }

    fn stats(&self) -> NativeStats {
        self.stats
    }
}

fn enter(cpu: &mut Cpu, entry: u64) -> u64 {
    assert_eq!(cpu.native.ram, cpu.mem.ram.address());
    let block = BOOKS.with_borrow(|books| books.made[entry as usize].clone());
    let mut block = block.expect("host code that was dropped");
    loop {
        if block.dead.get() {
            return Leave::Lookup.at(block.first as usize);
        }
        match block.run(cpu) {
            Ok(first) => match made(block.owner, first) {
                Some(next) => block = next,
                None => return Leave::Next.at(first as usize),
            },
            Err(word) => return word,
        }
    }
}

/// Runs a micro-op that does not end its block.
fn run(cpu: &mut Cpu, u: &Uop) -> Result<(), Leave> {
    let (va, stack) = (rare::address(cpu, &u.mem), u.mem.stack);
    // Pages that stores go to by the fast path have no code.
    let fast = cpu.tlb.write(va, u.w.bytes()).is_some();
    match (u.op, u.b) {
        (Op::St | Op::Stw, Src::Reg(b)) if !fast => slow::store(cpu, va, u.w, cpu.reg(b), stack),
        (Op::St | Op::Stw, Src::Imm(v)) if !fast => slow::store(cpu, va, u.w, v as u64, stack),
        (Op::Ldw, _) if !fast => {
            let v = slow::load_rmw(cpu, va, u.w, stack)?;
            cpu.write_reg(u.d, Width::W64, v);
            Ok(())
        }
        _ => slow::run(cpu, u),
    }
}

impl Made {
    /// Gives the first record of the block to go on at, or the exit word.
    fn run(&self, cpu: &mut Cpu) -> Result<u32, u64> {
        assert_eq!(cpu.native.tlb, cpu.tlb.table_address(), "the table of this privilege");
        assert_eq!(cpu.mode, self.mode, "the mode it was lifted for");
        assert!(cpu.tlb.exec(cpu.linear_rip()).is_none_or(|off| off == self.off), "its place");
        for (n, u) in self.block.uops.iter().enumerate() {
            if u.op.row().effect == Effect::End {
                return self.end(cpu, u);
            }
            if let Err(why) = run(cpu, u) {
                let insn = self.block.insns.partition_point(|m| m.uop as usize <= n) - 1;
                return Err(why.at(self.insns[insn] as usize));
            }
        }
        panic!("a block without an end");
    }

    fn end(&self, cpu: &mut Cpu, u: &Uop) -> Result<u32, u64> {
        let (rip, last) = (cpu.rip(), self.last as usize);
        let jump = |to: i64, w: Width| w.zext(rip.wrapping_add(to as u64));
        let way = |taken: bool| if taken { u.imm } else { u.fall.into() };
        let (to, taken) = match u.op {
            Op::Raise => {
                cpu.fault = Fault { error: (u.k != 0).then_some(0), ..Fault::new(u.imm as u8) };
                return Err(Leave::Fault.at(last));
            }
            Op::Goto => (jump(u.imm, u.w), true),
            Op::Leave => (jump(u.imm, u.w), true),
            Op::Jcc => {
                let taken = cpu.flags.cond(u.k);
                (jump(way(taken), u.w), taken)
            }
            Op::Jrnz => {
                let taken = u.w.zext(cpu.reg(u.a)) != 0;
                (jump(way(taken), Width::from_index(u.k)), taken)
            }
            Op::Jmpi => (u.w.zext(cpu.reg(u.a)), true),
            _ => (rip, true),
        };
        cpu.set_rip(to);
        cpu.budget -= self.block.insns.len() as i64;
        match u.op {
            Op::Leave | Op::Exit => Err(Leave::Exit.at(last)),
            _ if cpu.budget < 0 => Err(Leave::Budget.at(last)),
            Op::Jmpi => indirect(cpu, last),
            _ => self.follow(cpu, taken),
        }
    }

    fn follow(&self, cpu: &Cpu, taken: bool) -> Result<u32, u64> {
        match self.exits[usize::from(!taken)].get() {
            Some(Target::Block(first)) => Ok(first),
            Some(Target::Guarded { guard, off, first }) => {
                let here = cpu.tlb.exec(cpu.linear_rip()) == Some(off);
                if here { Ok(first) } else { Err(Leave::Lookup.at(guard as usize)) }
            }
            None if taken => Err(Leave::LinkTaken.at(self.last as usize)),
            None => Err(Leave::LinkFall.at(self.last as usize)),
        }
    }
}

fn indirect(cpu: &Cpu, last: usize) -> Result<u32, u64> {
    let off = cpu.tlb.exec(cpu.linear_rip());
    match off.map(|off| (off, cpu.jumps[Jump::index(off)])) {
        Some((off, j)) if j.off == off && j.mode == cpu.mode => Err(Leave::Next.at(j.ip as usize)),
        _ => Err(Leave::Lookup.at(last)),
    }
}
