//! Operand access, solved once for all rows: registers (with AH…BH), immediates, memory with
//! segmentation, the stack, and the read-modify-write pattern.

use crate::lift::Lift;
use emu_core::cpu::{Reg, Seg, mode};
use emu_core::uop::{Mem, Op, Src};
use emu_core::width::Width::{self, W8, W16, W32, W64};
use iced_x86::{OpKind, Register};

/// A place that an instruction reads and then writes.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// A general register (its low part).
    Reg(Reg),
    /// The second byte of a general register.
    High(Reg),
    /// Memory, checked for writing by the load.
    Mem(Mem),
}

/// General register of an iced register, and whether it is the second byte (AH…BH).
pub fn gpr(r: Register) -> (Reg, bool) {
    if matches!(r, Register::AH | Register::CH | Register::DH | Register::BH) {
        return (Reg::gpr((r as u8) - (Register::AH as u8)), true);
    }
    (Reg::gpr(r.full_register().number() as u8), false)
}

/// Width of a general register.
pub fn reg_width(r: Register) -> Width {
    Width::from_bytes(r.size()).unwrap_or(W64)
}

/// Segment of an iced segment register.
pub fn seg(r: Register) -> Seg {
    Seg::ALL[(r as usize).wrapping_sub(Register::ES as usize).min(5)]
}

impl Lift<'_> {
    /// Width of operand `n`: register, immediate or memory.
    pub fn width(&self, n: u32) -> Width {
        match self.i.op_kind(n) {
            OpKind::Register => reg_width(self.i.op_register(n)),
            OpKind::Immediate8 => W8,
            OpKind::Immediate16 | OpKind::Immediate8to16 => W16,
            OpKind::Immediate32 | OpKind::Immediate8to32 => W32,
            OpKind::Immediate64 | OpKind::Immediate8to64 | OpKind::Immediate32to64 => W64,
            _ => Width::from_bytes(self.i.memory_size().size()).unwrap_or(W64),
        }
    }

    /// Whether operand `n` is memory.
    pub fn is_mem(&self, n: u32) -> bool {
        self.i.op_kind(n) == OpKind::Memory
    }

    /// Segment of the memory operand. In 64-bit code only the FS and GS prefixes count; SS is the
    /// default where RSP or RBP is the base (SDM Vol. 1, 3.3.4 and 3.7.4).
    pub fn segment(&self) -> Seg {
        match seg(self.i.memory_segment()) {
            s @ (Seg::Fs | Seg::Gs) => s,
            s if !self.code64() => s,
            _ => match self.i.memory_base().full_register() {
                Register::RSP | Register::RBP => Seg::Ss,
                _ => Seg::Ds,
            },
        }
    }

    /// The memory operand's offset in its segment, as an address without segment base.
    pub fn offset(&mut self) -> Mem {
        let i = self.i;
        let base = i.memory_base();
        let addr = match (base, i.memory_index()) {
            (Register::RIP, _) => W64,
            (Register::EIP, _) => W32,
            (Register::None, Register::None) => match i.memory_displ_size() {
                2 => W16,
                4 if !self.code64() => W32,
                _ if self.i.memory_displacement64() >> 32 == 0 && !self.code64() => W32,
                _ => W64,
            },
            (Register::None, x) | (x, _) => {
                if x.is_vector_register() {
                    W64
                } else {
                    reg_width(x)
                }
            }
        };
        // With an address-size prefix in 64-bit code iced gives the displacement cut to 32 bits.
        let disp = i.memory_displacement64();
        let mut m = Mem {
            addr,
            scale: i.memory_index_scale().trailing_zeros() as u8,
            ..Mem::at(Reg::ZERO, 0)
        };
        m.base = match base {
            Register::None => Reg::ZERO,
            Register::RIP | Register::EIP => Reg::RIP,
            r => gpr(r).0,
        };
        m.index = match i.memory_index() {
            Register::None => Reg::ZERO,
            r => gpr(r).0,
        };
        let signed = match addr {
            W64 => disp as i64,
            w => w.sext(disp) as i64,
        };
        if let Ok(d) = i32::try_from(signed) {
            m.disp = d;
        } else {
            // MOFFS64, or a RIP-relative address at the very edge: through a temporary.
            let t = self.b.temp();
            self.b.mov(W64, t, signed);
            if m.base != Reg::ZERO {
                self.b.op_nf(Op::Add, W64, t, t, m.base);
            }
            m.base = t;
        }
        m
    }

    /// Turns an offset in `segment` into a linear address for an access of `bytes`; emits the
    /// limit and type checks where the segment is not flat.
    pub fn in_segment(&mut self, m: Mem, segment: Seg, bytes: u32, write: bool) -> Mem {
        let stack = segment == Seg::Ss;
        let fs_gs = matches!(segment, Seg::Fs | Seg::Gs);
        if self.code64() {
            let seg = if fs_gs { segment.base() } else { Reg::ZERO };
            return Mem { seg, stack, ..m };
        }
        // Flat code can be read, never written.
        let flat = self.mode & mode::FLAT != 0 && !(segment == Seg::Cs && write);
        if flat && !fs_gs {
            return Mem { stack, ..m };
        }
        let (off, lin) = (self.b.temp(), self.b.temp());
        self.b.load(Op::Lea, m.addr, off, m);
        if m.addr == W16 {
            // LEA at width 16 merges: the temporary's upper part is not part of the offset.
            self.b.op_k(Op::Zx, W64, off, off, 0, W16 as u8);
        }
        let k = segment as u8 | u8::from(write) << 3;
        self.b.op_k(Op::Lin, W32, lin, off, 0, k);
        self.b.last().imm = i64::from(bytes);
        Mem { stack, ..Mem::at(lin, 0) }
    }

    /// The memory operand as a linear address, for an access of `bytes`.
    pub fn mem_bytes(&mut self, bytes: u32, write: bool) -> Mem {
        let m = self.offset();
        let s = self.segment();
        self.in_segment(m, s, bytes, write)
    }

    /// The memory operand as a linear address, for an access of its own size.
    pub fn mem(&mut self, write: bool) -> Mem {
        let n = self.i.memory_size().size().max(1) as u32;
        self.mem_bytes(n, write)
    }

    /// The memory operand's linear address in a register, for helpers.
    pub fn mem_address(&mut self, bytes: u32, write: bool) -> Reg {
        let m = self.mem_bytes(bytes, write);
        self.address(m)
    }

    /// The linear address `m` in a register.
    pub fn address(&mut self, m: Mem) -> Reg {
        if m == (Mem { stack: m.stack, ..Mem::at(m.base, 0) }) && !m.base.is_architectural() {
            return m.base;
        }
        let t = self.b.temp();
        self.b.load(Op::Lea, m.addr, t, Mem { seg: Reg::ZERO, ..m });
        if m.addr == W16 {
            self.b.op_k(Op::Zx, W64, t, t, 0, W16 as u8);
        }
        if m.seg != Reg::ZERO {
            self.b.op_nf(Op::Add, W64, t, t, m.seg);
        }
        t
    }

    /// Value of operand `n`: its register, immediate, or a temporary loaded from memory
    /// (zero-extended). A register's upper bits are not cleared.
    pub fn read(&mut self, n: u32) -> Src {
        match self.i.op_kind(n) {
            OpKind::Register => {
                let (r, high) = gpr(self.i.op_register(n));
                if high { self.high(r).into() } else { r.into() }
            }
            OpKind::Memory => {
                let w = self.width(n);
                let m = self.mem(false);
                let t = self.b.temp();
                self.b.load(Op::Ldz, w, t, m);
                t.into()
            }
            _ => Src::Imm(self.imm(n)),
        }
    }

    /// As [`read`](Self::read); but an immediate, at the instruction's end, that is overwritten
    /// often is loaded from where it stands.
    pub fn read_patched(&mut self, n: u32) -> Src {
        let w = match self.i.op_kind(n) {
            _ if self.source.patches.is_empty() => return self.read(n),
            OpKind::Immediate8 | OpKind::Immediate8to16 => W8,
            OpKind::Immediate8to32 | OpKind::Immediate8to64 => W8,
            OpKind::Immediate16 => W16,
            OpKind::Immediate32 | OpKind::Immediate32to64 => W32,
            OpKind::Immediate64 => W64,
            _ => return self.read(n),
        };
        let off = self.source.off + self.b.next_offset() as u64 - w.bytes();
        if !self.source.patches.iter().any(|p| (p.off, p.len) == (off, w.bytes())) {
            return self.read(n);
        }
        let t = self.b.temp();
        self.b.code(w, t, off);
        if self.width(n) > w {
            self.b.op_k(Op::Sx, W64, t, t, 0, w as u8);
        }
        t.into()
    }

    /// Immediate operand `n`, sign-extended from its encoding to its width and then to 64 bits.
    pub fn imm(&self, n: u32) -> i64 {
        let v = self.i.try_immediate(n).unwrap_or(0);
        self.width(n).sext(v) as i64
    }

    /// Value of operand `n` in a register.
    pub fn read_reg(&mut self, n: u32) -> Reg {
        match self.read(n) {
            Src::Reg(r) => r,
            Src::Imm(v) => self.constant(v),
        }
    }

    /// A temporary holding `v`.
    pub fn constant(&mut self, v: i64) -> Reg {
        let t = self.b.temp();
        self.b.mov(W64, t, v);
        t
    }

    fn high(&mut self, r: Reg) -> Reg {
        let t = self.b.temp();
        self.b.op(Op::Exh, W64, t, r, 0);
        t
    }

    /// Writes operand `n` from `v` at its width; nothing of it was read before.
    pub fn write(&mut self, n: u32, v: impl Into<Src>) {
        let w = self.width(n);
        if self.is_mem(n) {
            let m = self.mem(true);
            self.b.store(Op::St, w, m, v);
        } else {
            let (r, high) = gpr(self.i.op_register(n));
            if high {
                self.b.op(Op::Insh, W64, r, r, v);
            } else {
                self.b.mov(w, r, v);
            }
        }
    }

    /// Reads operand `n`, which will be written: its value in a register, and the place.
    pub fn read_place(&mut self, n: u32) -> (Reg, Place) {
        if self.is_mem(n) {
            let w = self.width(n);
            let m = self.mem(true);
            let t = self.b.temp();
            self.b.load(Op::Ldw, w, t, m);
            (t, Place::Mem(m))
        } else {
            let (r, high) = gpr(self.i.op_register(n));
            if high { (self.high(r), Place::High(r)) } else { (r, Place::Reg(r)) }
        }
    }

    /// Writes `v` to a place that was read.
    pub fn write_place(&mut self, p: Place, w: Width, v: impl Into<Src>) {
        match p {
            Place::Reg(r) => self.b.mov(w, r, v),
            Place::High(r) => self.b.op(Op::Insh, W64, r, r, v),
            Place::Mem(m) => self.b.store(Op::Stw, w, m, v),
        }
    }

    /// `op0 = op(op0, src)`, flags and all: a register in one micro-op, memory by load, operation
    /// and store.
    pub fn update(&mut self, op: Op, src: impl Into<Src>) {
        let w = self.width(0);
        let src = src.into();
        match self.read_place(0) {
            (r, Place::Reg(_)) => self.b.op(op, w, r, r, src),
            (v, place) => {
                let t = self.b.temp();
                self.b.op(op, w, t, v, src);
                self.write_place(place, w, t);
            }
        }
    }

    /// Width of the stack pointer.
    pub fn stack_width(&self) -> Width {
        match self.mode & (mode::CODE64 | mode::STACK32) {
            0 => W16,
            m if m & mode::CODE64 != 0 => W64,
            _ => W32,
        }
    }

    /// Address `disp` bytes from the stack pointer, for an access of `bytes`.
    pub fn stack(&mut self, disp: i32, bytes: u32, write: bool) -> Mem {
        let m = Mem { addr: self.stack_width(), ..Mem::at(Reg::RSP, disp) };
        self.in_segment(m, Seg::Ss, bytes, write)
    }

    /// Moves the stack pointer by `n` bytes.
    pub fn move_sp(&mut self, n: i64) {
        let w = self.stack_width();
        self.b.op_nf(Op::Add, w, Reg::RSP, Reg::RSP, n);
    }

    /// Pushes `v` at width `w`.
    pub fn push(&mut self, w: Width, v: impl Into<Src>) {
        let n = w.bytes() as u32;
        let m = self.stack(-(n as i32), n, true);
        self.b.store(Op::St, w, m, v);
        self.move_sp(-i64::from(n));
    }

    /// Loads the top of the stack into a temporary (zero-extended) without moving the pointer.
    pub fn top(&mut self, w: Width) -> Reg {
        let m = self.stack(0, w.bytes() as u32, false);
        let t = self.b.temp();
        self.b.load(Op::Ldz, w, t, m);
        t
    }
}
