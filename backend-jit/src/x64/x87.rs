//! x87 instructions as the host's.
//!
//! **Live.** While bit 1 of [`Native::live`] is set, the guest's x87 (registers, tags, control and
//! status word) is in the host's, with all exceptions masked, so that nothing ever waits to be
//! raised there. It becomes live by a routine, which a block calls at its first x87 instruction
//! unless the bit is set. What calls a micro-op saves it first; slow accesses need not, since
//! nothing that Rust runs for them uses the host's x87. The last instruction's opcode and pointers
//! stay in [`Cpu::x87`].
//!
//! **Instructions.** A helper of the x87 tells the guest's opcode ([`HelperDef::x87`]), which is
//! emitted with its memory operand replaced; where the access misses, the helper is called. Those
//! that [`operand`] does not know are always called.
//!
//! **Unmasked exceptions.** The state does not become live. Then the helper is called, and the rest
//! of the block goes on in the interpreter; so after FLDCW with such a value.
//!
//! **Pointers** are stored late: before something is called, behind the block's last x87
//! instruction, and out of line on the way to what may fault. The data pointer is computed from the
//! operand again; before a register of that changes it is stored.
//!
//! Source: SDM Vol. 1, chapter 8; Vol. 2, the instructions.
//!
//! [`Native::live`]: emu_core::native::Native::live
//! [`HelperDef::x87`]: emu_core::uop::HelperDef::x87

use super::asm::{Asm, RAX, RBP, RCX, RSP, Rm, cc};
use super::flags::State as Flags;
use super::memory::Kind;
use super::region::Later;
use super::{Cold, Compiler, NATIVE_LIVE, RIP};
use crate::enter::{self, BIAS};
use core::mem::offset_of;
use emu_core::cpu::{Cpu, Reg, Seg, Segment, X87, mode};
use emu_core::interp::Leave;
use emu_core::uop::{Mem, Op, Src, Uop};
use emu_core::width::Width::{self, W8, W16, W32, W64};

/// A field of the guest's x87.
const fn field(at: usize) -> Rm {
    Rm::M(RBP, (offset_of!(Cpu, x87) + at) as i32 - BIAS as i32)
}

/// What is known at a place in a block.
#[derive(Debug, Default)]
pub(super) struct State {
    /// The guest's x87 is in the host's.
    live: bool,
    note: Note,
    /// The block's last micro-op of the x87.
    last: usize,
}

/// What is still to be stored of the last instruction.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Note {
    /// Its distance from RIP, RIP's width, its opcode.
    insn: Option<(i32, Width, u16)>,
    /// The last memory operand, and its segment.
    data: Option<(Mem, Seg)>,
}

/// What is out of line: an instruction whose helper is called.
#[derive(Clone, Copy)]
pub(super) enum Rare {
    /// The x87 is not live; the code in line goes on at `resume` once it is.
    Load { jump: usize, resume: usize, helper: Rerun },
    /// A control word that misses, or that unmasks something.
    Control { miss: usize, unmasked: usize, helper: Rerun },
}

/// The instruction of the micro-ops from `from` on; `after` it in line nothing is assumed if it is
/// the block's last one.
#[derive(Clone, Copy)]
pub(super) struct Rerun {
    from: usize,
    count: usize,
    insn: usize,
    record: u32,
    after: usize,
}

/// An instruction as it is found in micro-ops.
struct Insn {
    count: usize,
    helper: Uop,
    mem: Option<Mem>,
    opcode: [u8; 2],
    seg: Seg,
    operand: Operand,
}

/// What an instruction does besides working on the x87.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operand {
    /// Nothing.
    Plain,
    Read(u64),
    Write(u64),
    /// Not an instruction that FIP and FOP tell of.
    Control,
    /// Likewise: writes the control or the status word.
    Word,
    /// FLDCW.
    LoadWord,
    /// FNSTSW AX.
    Ax,
    /// Reads the flags.
    Condition,
    /// Writes the flags.
    Flags,
    /// WAIT.
    Wait,
}

/// The instructions that the host executes as the helpers do, by opcode. A ModR/M byte of memory
/// has `memory` set.
fn operand([op, modrm]: [u8; 2], memory: bool) -> Option<Operand> {
    use Operand::*;
    let reg = modrm >> 3 & 7;
    Some(match (op, reg) {
        (0xd8 | 0xda, _) if memory => Read(4),
        (0xdc, _) if memory => Read(8),
        (0xde, _) if memory => Read(2),
        (0xd9 | 0xdb, 0) if memory => Read(4),
        (0xdd, 0) | (0xdf, 5) if memory => Read(8),
        (0xdf, 0) if memory => Read(2),
        (0xdb, 5) if memory => Read(10),
        (0xd9, 2 | 3) | (0xdb, 1..=3) if memory => Write(4),
        (0xdd, 1..=3) | (0xdf, 7) if memory => Write(8),
        (0xdf, 1..=3) if memory => Write(2),
        (0xdb, 7) if memory => Write(10),
        (0xd9, 5) if memory => LoadWord,
        (0xd9 | 0xdd, 7) if memory => Word,
        _ if memory => return None,
        // FCOM2, FXCH4, FSTP8 and the like among them.
        (0xd8 | 0xdc, _) | (0xde, 0..=2 | 4..=7) | (0xdd, 0..=5) => Plain,
        (0xd9, 0 | 1) | (0xdf, 0..=3) => Plain,
        (0xda | 0xdb, 0..=3) => Condition,
        (0xdb | 0xdf, 5 | 6) => Flags,
        _ => match (op, modrm) {
            // FNOP; FCHS, FABS, FTST, FXAM; constants.
            (0xd9, 0xd0 | 0xe0 | 0xe1 | 0xe4 | 0xe5 | 0xe8..=0xee) => Plain,
            // FDECSTP, FINCSTP, FSQRT, FRNDINT; FUCOMPP, FCOMPP.
            (0xd9, 0xf6 | 0xf7 | 0xfa | 0xfc) | (0xda, 0xe9) | (0xde, 0xd9) => Plain,
            // FXTRACT, FPREM1, FPREM, FSCALE.
            (0xd9, 0xf4 | 0xf5 | 0xf8 | 0xfd) => Plain,
            // FNCLEX.
            (0xdb, 0xe2) => Control,
            (0xdf, 0xe0) => Ax,
            _ => return None,
        },
    })
}

impl Insn {
    /// The instruction that `uops` begin with.
    fn of(uops: &[Uop], m: u32) -> Option<Insn> {
        let n = uops.iter().position(|u| u.op == Op::Helper)?;
        let helper = uops[n];
        let (fop, seg) = helper.helper?.x87(helper.imm)?;
        let mut mem = None;
        for u in &uops[..n] {
            match (u.op, u.b) {
                (Op::Lea, _) if u.d == helper.a && mem.is_none() => mem = Some(u.mem),
                (Op::Add, Src::Reg(base)) if (u.d, u.a) == (helper.a, helper.a) => {
                    mem = Some(Mem { seg: base, ..mem? });
                }
                (Op::Add, Src::Imm(_)) if Src::Reg(u.d) == helper.b && u.a == Reg::RIP => {}
                _ => return None,
            }
        }
        let plain = |r: Reg| r == Reg::ZERO || r == Reg::RIP || r.is_architectural();
        if mem.is_some_and(|m| !plain(m.base) || !plain(m.index)) {
            return None;
        }
        if mem.is_some() != (helper.a != Reg::ZERO) {
            return None;
        }
        let opcode = [0xd8 | (fop >> 8) as u8 & 7, fop as u8];
        let operand = match fop {
            0 if mem.is_none() && helper.k == 1 && m & mode::TS == 0 => Operand::Wait,
            _ if mem.is_none() && opcode[1] < 0xc0 => return None,
            _ => operand(opcode, mem.is_some())?,
        };
        Some(Insn { count: n + 1, helper, mem, opcode, seg, operand })
    }
}

// ---- routines -----------------------------------------------------------------------------------

fn unless_live(a: &mut Asm) -> usize {
    a.ext(W8, 0xf7, 0, Rm::M(RBP, NATIVE_LIVE));
    a.byte(2);
    a.jcc(cc::E)
}

/// Saves the x87 if it is live, by way of RAX, RCX and RDX. The host's is then empty.
pub(super) fn save(a: &mut Asm) {
    let dead = unless_live(a);
    a.call_far(enter::x87_to_cpu as *const () as usize as u64);
    a.bind(dead);
}

/// Loads it again if it was live.
pub(super) fn restore(a: &mut Asm) {
    let dead = unless_live(a);
    a.call_far(enter::x87_from_cpu as *const () as usize as u64);
    a.bind(dead);
}

/// It is in memory only, from here on.
pub(super) fn dead(a: &mut Asm) {
    a.alu_imm(W8, 4, Rm::M(RBP, NATIVE_LIVE), !2);
}

impl Compiler<'_> {
    /// At the beginning of a block.
    pub(super) fn x87_start(&mut self) {
        let of_x87 = |u: &Uop| u.helper.is_some_and(|h| h.x87(u.imm).is_some());
        let last = self.block.uops.iter().rposition(of_x87).unwrap_or(0);
        self.x87 = State { last, ..State::default() };
    }

    /// In code out of line.
    pub(super) fn x87_out_of_line(&mut self, note: Note) {
        self.x87 = State { note, ..State::default() };
    }

    pub(super) fn x87_pending(&self) -> Note {
        self.x87.note
    }

    /// Emits the instruction whose first micro-op is `n`; gives its number of micro-ops, 0 if it
    /// has no form here.
    pub(super) fn x87(&mut self, n: usize) -> usize {
        let starts = self.block.insns.get(self.insn).is_some_and(|m| m.uop as usize == n);
        if !starts || !matches!(self.block.uops[n].op, Op::Lea | Op::Add | Op::Helper) {
            return 0;
        }
        let Some(i) = Insn::of(&self.block.uops[n..self.next], self.place.mode) else { return 0 };
        self.before(n, i.count);
        let load = (!self.x87.live).then(|| self.x87_live());
        let settled = self.settled;
        let mut control = None;
        let reg = i.opcode[1] >> 3 & 7;
        match (i.operand, i.mem) {
            (Operand::Read(bytes), Some(m)) => self.x87_access(&i, &m, n, Kind::Load, bytes),
            (Operand::Write(bytes), Some(m)) => self.x87_access(&i, &m, n, Kind::Store, bytes),
            (Operand::Word, Some(m)) => self.x87_access(&i, &m, n, Kind::Store, 2),
            (Operand::LoadWord, Some(m)) => {
                self.settle();
                self.address(&m);
                let (at, miss) = self.check(Kind::Load, 2);
                // By a copy: guest memory may change at any time.
                let copy = Rm::M(RSP, -8);
                self.a.op0f(W32, 0xb7, RCX, at);
                self.a.store(W32, copy, RCX);
                self.a.alu_imm(W32, 4, Rm::R(RCX), 0x3f);
                self.a.alu_imm(W32, 7, Rm::R(RCX), 0x3f);
                let unmasked = self.a.jcc(cc::NE);
                self.a.ext(W32, 0xd9, reg, copy);
                control = Some((miss, unmasked));
            }
            (Operand::Ax, _) => {
                self.x87_data();
                if self.live_after(n + i.count - 1) != 0 {
                    self.save();
                }
                (self.host, self.recipe) = (false, None);
                self.a.bytes(&i.opcode);
                self.put(Reg::RAX, W16, RAX);
            }
            (Operand::Condition, _) => {
                self.want_host();
                self.a.bytes(&i.opcode);
            }
            (Operand::Flags, _) => {
                // FDECSTP and FINCSTP: C1 becomes 0, which some hosts leave alone here.
                self.a.bytes(&[0xd9, 0xf6, 0xd9, 0xf7]);
                self.a.bytes(&i.opcode);
                self.set_state(Flags { host: true, memory: false, af_zero: false, recipe: None });
            }
            (Operand::Wait, _) => {}
            _ => self.a.bytes(&i.opcode),
        }
        let (piece, end, after) = (self.piece, self.state(), self.a.here());
        let rerun =
            Rerun { from: n, count: i.count, insn: self.insn, record: self.record(), after };
        let rare = |c: &mut Self, start: Flags, rare: Rare| {
            let note = c.x87.note;
            let live = c.vectors_known();
            c.cold.push(Later {
                piece,
                stage: c.stage,
                start,
                end,
                note,
                live,
                cold: Cold::X87(rare),
            });
        };
        if let Some((jump, resume)) = load {
            rare(self, settled, Rare::Load { jump, resume, helper: rerun });
        }
        if let Some((miss, unmasked)) = control {
            rare(self, self.settled, Rare::Control { miss, unmasked, helper: rerun });
        }
        self.x87_noted(&i);
        if n + i.count > self.x87.last {
            self.x87_note();
        }
        if i.operand != Operand::Flags {
            self.after(n, i.count);
        }
        i.count
    }

    /// Makes the x87 live: the jump that is taken when it is not, and where it leads back to.
    fn x87_live(&mut self) -> (usize, usize) {
        self.settle();
        let jump = unless_live(&mut self.a);
        self.x87.live = true;
        (jump, self.a.here())
    }

    /// With a memory operand.
    fn x87_access(&mut self, i: &Insn, m: &Mem, n: usize, kind: Kind, bytes: u64) {
        self.settle();
        self.address(m);
        let (at, miss) = self.check(kind, bytes);
        self.a.ext(W32, i.opcode[0], i.opcode[1] >> 3 & 7, at);
        self.replay(miss, n, i.count, m);
    }

    // ---- the last instruction ---------------------------------------------------------------------

    /// What is to be stored after `i`.
    fn x87_noted(&mut self, i: &Insn) {
        use Operand::{Ax, Control, LoadWord, Wait, Word};
        if matches!(i.operand, Control | Word | LoadWord | Ax | Wait) {
            return;
        }
        let offset = self.block.insns.get(self.insn).map_or(0, |m| i64::from(m.offset));
        let fop = u16::from_le_bytes([i.opcode[1], i.opcode[0] & 7]);
        self.x87.note.insn = Some(((self.delta() + offset) as i32, i.helper.w, fop));
        if let Some(m) = i.mem {
            self.x87.note.data = Some((m, i.seg));
        }
    }

    /// Stores what is pending: by way of RAX and RCX, keeping the flags.
    pub(super) fn x87_note(&mut self) {
        self.x87_store_note();
        self.x87.note = Note::default();
    }

    /// The same out of line, which other ways may come to.
    pub(super) fn x87_store_note(&mut self) {
        if let Some((by, w, fop)) = self.x87.note.insn {
            self.a.mov(W64, RAX, Rm::M(RBP, RIP));
            self.a.op(if w == W64 { W64 } else { W32 }, 0x8d, RAX, Rm::M(RAX, by));
            if w == W16 {
                self.a.op0f(W32, 0xb7, RAX, Rm::R(RAX));
            }
            self.a.store(W64, field(offset_of!(X87, fip)), RAX);
            self.a.ext(W16, 0xc7, 0, field(offset_of!(X87, fop)));
            self.a.imm_of(W16, fop.into());
            self.x87_selector(Seg::Cs, field(offset_of!(X87, fcs)));
        }
        self.x87_store_data();
    }

    /// Before a register of the memory operand changes.
    pub(super) fn x87_before(&mut self, written: impl Fn(Reg) -> bool) {
        if self.x87.note.data.is_some_and(|(m, _)| written(m.base) || written(m.index)) {
            self.x87_data();
        }
    }

    fn x87_data(&mut self) {
        self.x87_store_data();
        self.x87.note.data = None;
    }

    fn x87_store_data(&mut self) {
        if let Some((m, seg)) = self.x87.note.data {
            self.sum(&m, RAX);
            self.a.store(W64, field(offset_of!(X87, fdp)), RAX);
            self.x87_selector(seg, field(offset_of!(X87, fds)));
        }
    }

    /// The selector as a pointer has it: 64-bit code has none.
    fn x87_selector(&mut self, seg: Seg, to: Rm) {
        if self.place.mode & mode::CODE64 != 0 {
            self.a.ext(W16, 0xc7, 0, to);
            self.a.imm_of(W16, 0);
        } else {
            let segment = seg as usize * size_of::<Segment>() + offset_of!(Segment, selector);
            let from = (offset_of!(Cpu, segs) + segment) as i32 - BIAS as i32;
            self.a.op0f(W32, 0xb7, RAX, Rm::M(RBP, from));
            self.a.store(W16, to, RAX);
        }
    }

    // ---- what is called, and what is out of line --------------------------------------------------

    /// Before a micro-op is called, which leaves the x87 dead.
    pub(super) fn x87_to_call(&mut self) {
        self.x87_note();
        self.x87.live = false;
    }

    pub(super) fn x87_rare(&mut self, rare: &Rare, end: Flags) {
        let r = match *rare {
            Rare::Load { jump, resume, helper } => {
                self.a.bind(jump);
                self.a.call_far(enter::x87_from_cpu as *const () as usize as u64);
                let live = self.a.jcc(cc::E);
                self.a.bind_to(live, resume);
                helper
            }
            Rare::Control { miss, unmasked, helper } => {
                self.missed(miss);
                self.a.bind(unmasked);
                self.x87_store_note();
                helper
            }
        };
        self.insn_record = Some(r.record);
        self.insn = r.insn;
        self.replayed(r.from, r.count);
        match self.place.insns.get(r.insn + 1) {
            Some(&next) if r.insn + 1 < self.block.insns.len() => {
                self.save();
                self.move_rip(1);
                self.leave(Leave::Next.at(next as usize) as u32);
            }
            _ => {
                self.restore(end);
                self.resume(r.after);
            }
        }
    }
}
