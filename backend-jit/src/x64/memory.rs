//! Emitters of loads and stores: the address, the check against a slot of the soft TLB, and the way
//! out of line where that has no answer.
//!
//! Each base register of a region has a slot (see [`Slots`]) for reads and one for writes, the
//! stack pointer and FS and GS one for all regions: the page that an access by it has last found,
//! and where that is in host memory. An access of `n` bytes at `va` hits when `va - page <= 4096 -
//! n`; the load of the slot does not wait for the address, so a hit costs latency only for a
//! subtraction. Where a slot misses, a routine (see `ends`) looks into level 1 of the TLB, fills
//! the slot, and the check is made again; where level 1 misses too, or the access crosses pages,
//! the slow path does the access.
//!
//! An operand by RIP, or at an absolute address, is in a page that RIP alone decides, and wholly in
//! it or not. Each such page of a region has slots of its own, and only the page is compared.
//!
//! Where a slot is filled again and again, its accesses are compiled anew without one: they look
//! into level 1 themselves.
//!
//! The check destroys the host's flags: they are in memory then, where a fault wants them too.

use super::alu::rm;
use super::asm::{RAX, RBP, RCX, RDX, Rm, cc};
use super::{Cold, Compiler, Loc, NATIVE_RAM, loc};
use crate::enter::BIAS;
use core::mem::offset_of;
use emu_core::cpu::{Cpu, Reg, Seg, mode};
use emu_core::mem::tlb::{Entry, SLOTS, SlotPlace, Slots, Tlb};
use emu_core::uop::{Mem, Op, Src, Uop};
use emu_core::width::Width::{self, W8, W16, W32, W64};

/// Sizes of accesses, in bytes.
pub(super) const SIZES: [u64; 10] = [1, 2, 4, 8, 10, 16, 32, 64, 128, 256];

/// The slots' pages, where they are, and how often they were filled, from `rbp`.
pub(super) const PAGES: i32 = slots(offset_of!(Slots, pages));
pub(super) const PLACES: i32 = slots(offset_of!(Slots, at));
pub(super) const FILLS: i32 = slots(offset_of!(Slots, fills));

const fn slots(field: usize) -> i32 {
    (offset_of!(Cpu, tlb) + offset_of!(Tlb, slots) + field) as i32 - BIAS as i32
}

/// A slot: its number, counted through both sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot(usize);

impl Slot {
    /// The page's linear address.
    pub fn page(self) -> Rm {
        Rm::M(RBP, PAGES + 8 * self.0 as i32)
    }

    fn place(self, field: usize) -> Rm {
        Rm::M(RBP, PLACES + (size_of::<SlotPlace>() * self.0 + field) as i32)
    }

    /// Where the page is.
    pub fn host(self) -> Rm {
        self.place(offset_of!(SlotPlace, host))
    }

    /// That less the linear address.
    pub fn addend(self) -> Rm {
        self.place(offset_of!(SlotPlace, addend))
    }
}

/// Slots of all regions.
const COMMON: usize = 6;

/// How many there are in a set besides these for reads, and for writes. Regions share slots once
/// there are many of them, but never between the two: a slot for reads may hold a page with code.
const ROOM: [usize; 2] = [158, 92];
const _: () = assert!(COMMON + ROOM[0] + ROOM[1] == SLOTS);

/// Which slots the accesses of a region have.
pub(super) struct RegionSlots {
    /// By base register or segment base, with the page where it is known; writes or not.
    own: Vec<((Reg, i64), bool, Slot)>,
    /// The first slot of the set.
    first: usize,
    /// How many have been taken for reads and writes.
    pub taken: [usize; 2],
    /// Those that did not help.
    without: Without,
}

/// Accesses that share a slot: by which base register, with the page where it is known; writes or
/// not.
pub(super) type Accesses = ((Reg, i64), bool);

/// Accesses that do without a slot.
#[derive(Clone, Debug)]
pub(super) enum Without {
    /// Of tests.
    All,
    These(Vec<Accesses>),
}

impl Default for Without {
    fn default() -> Without {
        Without::These(Vec::new())
    }
}

impl RegionSlots {
    /// For a region of mode `m`, where others have taken `taken` slots.
    pub fn new(m: u32, taken: [usize; 2], without: Without) -> RegionSlots {
        let first = if m & mode::USER != 0 { SLOTS } else { 0 };
        RegionSlots { own: Vec::new(), first, taken, without }
    }

    /// The slots that are the region's own, and for which accesses; `None`: for a fixed page, which
    /// nothing can do without.
    pub fn own(&self) -> impl Iterator<Item = (usize, Option<Accesses>)> {
        let fixed = |(by, page): (Reg, i64)| by == Reg::RIP || by == Reg::ZERO && page & 1 == 0;
        self.own.iter().map(move |&(by, write, slot)| (slot.0, (!fixed(by)).then_some((by, write))))
    }

    /// What accesses at `m` that have a slot of their own have it by.
    fn by(m: &Mem) -> Option<(Reg, i64)> {
        let by = if m.seg != Reg::ZERO { m.seg } else { m.base };
        let common = by == Reg::RSP || by == Seg::Fs.base() || by == Seg::Gs.base();
        // Of tables at absolute addresses, each has its own.
        let page = if by == Reg::ZERO { i64::from(m.disp) & !4095 | 1 } else { 0 };
        (!common).then_some((by, page))
    }

    /// How many more there may be of which none is shared.
    pub fn unshared(&self) -> usize {
        ROOM[1].saturating_sub(self.own.len())
    }

    /// Whether accesses at `m` and at `n` may have the same slot, although none is shared.
    pub fn may_share(m: &Mem, n: &Mem) -> bool {
        let common = |m: &Mem| if m.seg != Reg::ZERO { m.seg } else { m.base };
        match (Self::by(m), Self::by(n)) {
            (None, None) => common(m) == common(n),
            // Those in fixed pages have one for each page.
            (Some((Reg::RIP | Reg::ZERO, _)), Some((by, _))) => matches!(by, Reg::RIP | Reg::ZERO),
            (m, n) => m == n,
        }
    }

    /// Whether accesses at `m` do without a slot.
    pub fn without(&self, m: &Mem, write: bool) -> bool {
        match (&self.without, Self::by(m)) {
            (_, None) => false,
            (Without::All, _) => true,
            (Without::These(these), Some(by)) => these.contains(&(by, write)),
        }
    }

    /// The slot for accesses at `m`.
    pub fn slot(&mut self, m: &Mem, write: bool) -> Slot {
        if let Some(by) = Self::by(m) {
            return self.take(by, write);
        }
        let by = if m.seg != Reg::ZERO { m.seg } else { m.base };
        let common = match by {
            Reg::RSP => 0,
            by if by == Seg::Fs.base() => 1,
            _ => 2,
        };
        Slot(self.first + 2 * common + usize::from(write))
    }

    /// The slot of a fixed page.
    pub fn fixed(&mut self, f: Fixed, write: bool) -> Slot {
        self.take((f.by, f.page.into()), write)
    }

    fn take(&mut self, by: (Reg, i64), write: bool) -> Slot {
        if let Some(own) = self.own.iter().find(|own| (own.0, own.1) == (by, write)) {
            return own.2;
        }
        let kind = usize::from(write);
        let first = self.first + COMMON + [0, ROOM[0]][kind];
        let slot = Slot(first + self.taken[kind] % ROOM[kind]);
        self.taken[kind] += 1;
        self.own.push((by, write, slot));
        slot
    }
}

/// What an access does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Load,
    LoadRmw,
    Store,
}

/// A check that looks at a slot, before anything is known of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Try {
    /// The jump that is taken when it misses.
    pub miss: usize,
    /// Where it starts.
    pub start: usize,
    pub slot: Slot,
    pub write: bool,
    /// Bytes of the access.
    pub n: u64,
    pub fixed: Option<Fixed>,
}

/// An operand in a page that only RIP can change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fixed {
    /// RIP, or none.
    by: Reg,
    /// The page, from there.
    page: i32,
    /// The operand's first byte in it.
    pub offset: i32,
}

impl Fixed {
    /// Whether `n` bytes at this operand are in the page.
    pub fn holds(self, n: i64) -> bool {
        i64::from(self.offset) + n <= 4096
    }

    /// Where the operand of displacement `to` is in the page, if it is, where this one's is `from`.
    pub fn moved(self, from: i32, to: i32) -> Option<Fixed> {
        let offset = self.offset.checked_add(to.checked_sub(from)?)?;
        (0..4096).contains(&offset).then_some(Fixed { offset, ..self })
    }

    /// Whether the operand is aligned at `n` bytes, a power of two.
    pub fn aligned(self, n: u8) -> bool {
        self.offset & (i32::from(n) - 1) == 0
    }
}

impl Compiler<'_> {
    /// LEA.
    pub(super) fn lea(&mut self, u: &Uop) {
        match (loc(u.d), u.mem.addr) {
            (Loc::Host(d), W64) if u.w == W64 => self.sum(&u.mem, d),
            (Loc::Host(d), W32 | W64) if u.w == W32 => self.sum(&Mem { addr: W32, ..u.mem }, d),
            _ => {
                self.sum(&u.mem, RAX);
                self.put(u.d, u.w, RAX);
            }
        }
    }

    /// Base, index and displacement of `m`, cut to its address size, into `d`. Keeps the flags.
    pub(super) fn sum(&mut self, m: &Mem, d: u8) {
        let w = if m.addr == W64 { W64 } else { W32 };
        let base = (m.base != Reg::ZERO).then(|| self.get(m.base, W64, RAX));
        let index = (m.index != Reg::ZERO).then(|| self.get(m.index, W64, RCX));
        match (base, index) {
            (None, None) if m.addr == W64 => self.a.imm(d, m.disp as i64 as u64),
            (None, None) => self.a.imm(d, m.disp as u32 as u64),
            (Some(b), None) if m.disp == 0 => self.a.mov(w, d, Rm::R(b)),
            (Some(b), None) => self.a.op(w, 0x8d, d, Rm::M(b, m.disp)),
            (Some(b), Some(x)) => self.a.op(w, 0x8d, d, Rm::X(b, x, m.scale & 3, m.disp)),
            (None, Some(x)) => self.a.op(w, 0x8d, d, Rm::I(x, m.scale & 3, m.disp)),
        }
        match m.addr {
            W8 => self.a.op0f(W32, 0xb6, d, Rm::R(d)),
            W16 => self.a.op0f(W32, 0xb7, d, Rm::R(d)),
            _ => {}
        }
    }

    /// The linear address of `m` in RAX.
    pub(super) fn linear(&mut self, m: &Mem) {
        self.sum(m, RAX);
        if m.seg != Reg::ZERO {
            self.a.op(W64, 0x03, RAX, rm(m.seg));
        }
    }

    /// Begins an access at `m`.
    pub(super) fn address(&mut self, m: &Mem) {
        self.tried = (self.a.here(), *m);
        if !self.checked_ahead(m) && self.fixed(m).is_none() {
            self.linear(m);
        }
    }

    /// `m` as an operand in a fixed page.
    pub(super) fn fixed(&self, m: &Mem) -> Option<Fixed> {
        let plain = m.index == Reg::ZERO && m.seg == Reg::ZERO;
        // RIP is that of the region's head.
        let within = match (m.base, m.addr) {
            (Reg::RIP, W64) => (self.pieces[0].place.off & 4095) as i64,
            (Reg::ZERO, W32 | W64) => 0,
            _ => return None,
        };
        let disp = if m.addr == W64 { i64::from(m.disp) } else { i64::from(m.disp as u32) };
        let at = within + disp;
        let page = i32::try_from((at & !4095) - within).ok().filter(|_| plain)?;
        Some(Fixed { by: m.base, page, offset: (at & 4095) as i32 })
    }

    /// Whether the slot of a fixed page is the one for now; gives the jump that is taken if not.
    pub(super) fn check_fixed(&mut self, f: Fixed, write: bool) -> (Slot, usize) {
        let (start, slot) = (self.a.here(), self.slots.fixed(f, write));
        if f.by == Reg::ZERO {
            self.a.alu_imm(W64, 7, slot.page(), f.page.into());
        } else {
            self.a.mov(W64, RAX, rm(f.by));
            self.a.op(W64, 0x8d, RAX, Rm::M(RAX, f.page));
            self.a.op(W64, 0x3b, RAX, slot.page());
        }
        let miss = self.a.jcc(cc::NE);
        self.tries.push(Try { miss, start, slot, write, n: 0, fixed: Some(f) });
        (slot, miss)
    }

    /// Checks the access of `n` bytes that [`address`](Self::address) has begun; gives where its
    /// bytes are, and the jump that is taken when it misses. What is bound to that jump out of line
    /// does not find the address in RAX.
    pub(super) fn check(&mut self, kind: Kind, n: u64) -> (Rm, usize) {
        let (start, m) = self.tried;
        if let Some(at) = self.strip_access(&m) {
            return (at, 0);
        }
        let (fixed, write) = (self.fixed(&m), kind != Kind::Load);
        if let Some(slot) = self.member_of(&m) {
            if let Some(f) = fixed {
                self.a.mov(W64, RDX, slot.host());
                return (Rm::M(RDX, f.offset), 0);
            }
            if m.index != Reg::ZERO {
                self.sum(&m, RAX);
                self.a.mov(W64, RDX, slot.addend());
                return (Rm::X(RDX, RAX, 0, 0), 0);
            }
            let base = self.get(m.base, W64, RAX);
            self.a.mov(W64, RDX, slot.addend());
            return (Rm::X(RDX, base, 0, m.disp), 0);
        }
        if let Some(f) = fixed {
            if f.holds(n as i64) {
                let (slot, miss) = self.check_fixed(f, write);
                self.a.mov(W64, RDX, slot.host());
                return (Rm::M(RDX, f.offset), miss);
            }
            self.linear(&m);
        }
        if self.slots.without(&m, write) {
            return self.look_up(write, n);
        }
        let slot = self.slots.slot(&m, write);
        self.a.op(W64, 0x2b, RAX, slot.page());
        self.a.alu_imm(W64, 7, Rm::R(RAX), 4096 - n as i64);
        let miss = self.a.jcc(cc::A);
        self.a.mov(W64, RDX, slot.host());
        self.tries.push(Try { miss, start, slot, write, n, fixed: None });
        (Rm::X(RDX, RAX, 0, 0), miss)
    }

    /// Checks the access of `n` bytes at RAX by level 1 of the TLB: its entry is at RDX. Gives the
    /// place of its tag, and the jump that is taken when it misses.
    fn in_level_1(&mut self, write: bool, n: u64) -> (Rm, usize) {
        let tag = if write { offset_of!(Entry, write) } else { offset_of!(Entry, read) };
        let tag = Rm::M(RDX, tag as i32);
        super::ends::entry(&mut self.a, RDX);
        self.a.mov(W64, RCX, Rm::R(RAX));
        self.a.op(W64, 0x2b, RCX, tag);
        self.a.alu_imm(W64, 7, Rm::R(RCX), 4096 - n as i64);
        (tag, self.a.jcc(cc::A))
    }

    /// The same, and where its bytes are.
    fn look_up(&mut self, write: bool, n: u64) -> (Rm, usize) {
        let (_, miss) = self.in_level_1(write, n);
        self.a.op(W64, 0x03, RAX, Rm::M(RDX, offset_of!(Entry, addend) as i32));
        self.a.mov(W64, RDX, Rm::M(RBP, NATIVE_RAM));
        (Rm::X(RDX, RAX, 0, 0), miss)
    }

    /// The same, and fills a slot, for those that follow.
    pub(super) fn look_up_slot(&mut self, slot: Slot, write: bool, n: u64) -> usize {
        let (tag, miss) = self.in_level_1(write, n);
        self.a.mov(W64, RCX, tag);
        self.a.mov(W64, RDX, Rm::M(RDX, offset_of!(Entry, addend) as i32));
        self.a.op(W64, 0x03, RDX, Rm::M(RBP, NATIVE_RAM));
        self.a.store(W64, slot.page(), RCX);
        self.a.store(W64, slot.addend(), RDX);
        self.a.op(W64, 0x03, RCX, Rm::R(RDX));
        self.a.store(W64, slot.host(), RCX);
        miss
    }

    /// Calls the routine that fills the slot of `t`. Returns behind the jump that follows if it
    /// cannot.
    pub(super) fn fill_slot(&mut self, t: &Try) {
        self.a.imm(RCX, (t.slot.0 * 8) as u64);
        let fill = match t.fixed {
            Some(f) => {
                if f.by == Reg::ZERO {
                    self.a.imm(RAX, f.page as u64);
                }
                self.routines.fill_fixed[usize::from(t.write)]
            }
            None => {
                let size = SIZES.iter().position(|n| *n >= t.n).unwrap_or(SIZES.len() - 1);
                self.routines.fill[usize::from(t.write)][size]
            }
        };
        self.a.call_near(fill);
    }

    /// Binds the jump of a miss: what it leads to is what follows, once the slot has been filled in
    /// vain.
    pub(super) fn missed(&mut self, miss: usize) {
        self.fill(miss);
        self.x87_store_note();
    }

    /// The same, before anything is called.
    pub(super) fn fill(&mut self, miss: usize) {
        self.a.bind(miss);
        if let Ok(n) = self.tries.binary_search_by_key(&miss, |t| t.miss) {
            let t = self.tries[n];
            self.fill_slot(&t);
            let again = self.a.jmp();
            self.a.bind_to(again, t.start);
        }
    }

    /// Whether an access at `m` has been checked.
    pub(super) fn checked_ahead(&self, m: &Mem) -> bool {
        self.in_strip() || self.member_of(m).is_some()
    }

    fn cold(&mut self, u: &Uop, kind: Kind, miss: usize) {
        if self.checked_ahead(&u.mem) {
            return;
        }
        let packed = u.w as u32 | u32::from(u.mem.stack) << 4;
        let packed = self.record() << 8 | packed | self.vectors_kept();
        let resume = self.a.here();
        self.later(Cold::Access { miss, resume, kind, packed, u: *u });
    }

    pub(super) fn load(&mut self, u: &Uop) {
        self.settle_to_move(&u.mem);
        self.address(&u.mem);
        let kind = if u.op == Op::Ldw { Kind::LoadRmw } else { Kind::Load };
        let (at, miss) = self.check(kind, u.w.bytes());
        self.take(u, at);
        self.cold(u, kind, miss);
    }

    /// Writes what a load has found at `from`.
    pub(super) fn take(&mut self, u: &Uop, from: Rm) {
        let w = u.w;
        let to = |out: Width| match loc(u.d) {
            Loc::Host(d) if out >= W32 => d,
            _ => RCX,
        };
        match u.op {
            Op::Ld if w < W32 => match loc(u.d) {
                Loc::Host(d) => self.a.op(w, 0x8b, d, from),
                Loc::Slot(_) => {
                    self.a.op(w, 0x8b, RCX, from);
                    self.put(u.d, w, RCX);
                }
            },
            Op::Lds => {
                let out = Width::from_index(u.k);
                let d = to(out);
                // Of a narrower result than the source only the low bits are wanted.
                let x = if out == W64 { W64 } else { W32 };
                match w {
                    W8 => self.a.op0f(x, 0xbe, d, from),
                    W16 => self.a.op0f(x, 0xbf, d, from),
                    W32 if x == W64 => self.a.op(W64, 0x63, d, from),
                    _ if x == W32 => self.a.op(W32, 0x8b, d, from),
                    _ => self.a.op(W64, 0x8b, d, from),
                }
                if d == RCX {
                    self.put(u.d, out, RCX);
                }
            }
            _ => {
                let d = to(W64);
                match w {
                    W8 => self.a.op0f(W32, 0xb6, d, from),
                    W16 => self.a.op0f(W32, 0xb7, d, from),
                    _ => self.a.op(w, 0x8b, d, from),
                }
                if d == RCX {
                    self.put(u.d, W64, RCX);
                }
            }
        }
    }

    pub(super) fn store(&mut self, u: &Uop) {
        self.settle_to_move(&u.mem);
        self.address(&u.mem);
        let (at, miss) = self.check(Kind::Store, u.w.bytes());
        match u.b {
            Src::Imm(v) if u.w != W64 || v == i64::from(v as i32) => {
                self.a.ext(u.w, 0xc7, 0, at);
                self.a.imm_of(u.w, v);
            }
            b => {
                let v = match b {
                    Src::Reg(r) => self.get(r, W64, RCX),
                    Src::Imm(v) => {
                        self.a.imm(RCX, v as u64);
                        RCX
                    }
                };
                self.a.store(u.w, at, v);
            }
        }
        self.cold(u, Kind::Store, miss);
    }
}
