//! A small encoder of x86-64 instructions: what the compiler needs, by opcode number (SDM Vol. 2,
//! appendix A). Addresses of calls and jumps are relative to the origin of the piece.

use emu_core::width::Width::{self, W8, W16, W32, W64};

pub const RAX: u8 = 0;
pub const RCX: u8 = 1;
pub const RDX: u8 = 2;
pub const RSP: u8 = 4;
pub const RBP: u8 = 5;

/// Operand r/m.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rm {
    /// A register.
    R(u8),
    /// `[base + disp]`.
    M(u8, i32),
    /// `[base + index << scale + disp]`.
    X(u8, u8, u8, i32),
    /// `[index << scale + disp]`.
    I(u8, u8, i32),
}

/// Opcode of a vector instruction, as VEX has its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    /// Opcode map: 1 is 0F, 2 0F38, 3 0F3A.
    pub map: u8,
    /// Mandatory prefix: 0 none, 1 66H, 2 F3H, 3 F2H.
    pub pp: u8,
    pub opcode: u8,
    pub w: bool,
}

/// Conditions, as in the low four bits of opcodes.
pub mod cc {
    pub const AE: u8 = 3;
    pub const E: u8 = 4;
    pub const NE: u8 = 5;
    pub const BE: u8 = 6;
    pub const A: u8 = 7;
    pub const S: u8 = 8;
}

/// Code under construction.
#[derive(Debug, Default)]
pub struct Asm {
    pub code: Vec<u8>,
    /// Address at which it will be.
    pub origin: u64,
}

impl Asm {
    pub fn here(&self) -> usize {
        self.code.len()
    }

    pub fn byte(&mut self, b: u8) {
        self.code.push(b);
    }

    pub fn bytes(&mut self, b: &[u8]) {
        self.code.extend_from_slice(b);
    }

    pub fn dword(&mut self, v: i32) {
        self.bytes(&v.to_le_bytes());
    }

    /// Prefixes, opcode, ModRM and displacement. `b`: bits 0 and 1 say that `reg` and `rm` are byte
    /// registers.
    fn encode(&mut self, w: Width, mandatory: u8, opcode: &[u8], reg: u8, rm: Rm, b: u8) {
        if w == W16 {
            self.byte(0x66);
        }
        if mandatory != 0 {
            self.byte(mandatory);
        }
        let mut rex = u8::from(w == W64) << 3 | reg >> 3 << 2;
        let mut force = b & 1 != 0 && (4..8).contains(&reg);
        match rm {
            Rm::R(r) => {
                rex |= r >> 3;
                force |= b & 2 != 0 && (4..8).contains(&r);
            }
            Rm::M(r, _) => rex |= r >> 3,
            Rm::X(r, x, ..) => rex |= r >> 3 | x >> 3 << 1,
            Rm::I(x, ..) => rex |= x >> 3 << 1,
        }
        if rex != 0 || force {
            self.byte(0x40 | rex);
        }
        self.bytes(opcode);
        self.modrm(reg, rm);
    }

    /// ModRM, SIB and displacement.
    fn modrm(&mut self, reg: u8, rm: Rm) {
        let reg = (reg & 7) << 3;
        match rm {
            Rm::R(r) => self.byte(0xc0 | reg | r & 7),
            Rm::M(r, d) => {
                let m = Self::disp_mode(r, d);
                self.byte(m | reg | r & 7);
                if r & 7 == 4 {
                    self.byte(0x24);
                }
                self.disp(m, d);
            }
            Rm::X(r, x, s, d) => {
                let m = Self::disp_mode(r, d);
                self.byte(m | reg | 4);
                self.byte(s << 6 | (x & 7) << 3 | r & 7);
                self.disp(m, d);
            }
            Rm::I(x, s, d) => {
                self.byte(reg | 4);
                self.byte(s << 6 | (x & 7) << 3 | 5);
                self.dword(d);
            }
        }
    }

    fn disp_mode(base: u8, d: i32) -> u8 {
        match d {
            0 if base & 7 != 5 => 0,
            -128..=127 => 0x40,
            _ => 0x80,
        }
    }

    fn disp(&mut self, mode: u8, d: i32) {
        match mode {
            0x40 => self.byte(d as u8),
            0x80 => self.dword(d),
            _ => {}
        }
    }

    /// An instruction whose opcode has a byte form one below `opcode`.
    pub fn op(&mut self, w: Width, opcode: u8, reg: u8, rm: Rm) {
        if w == W8 {
            self.encode(W8, 0, &[opcode & !1], reg, rm, 3);
        } else {
            self.encode(w, 0, &[opcode], reg, rm, 0);
        }
    }

    /// The same for opcodes with an extension in place of `reg`.
    pub fn ext(&mut self, w: Width, opcode: u8, ext: u8, rm: Rm) {
        if w == W8 {
            self.encode(W8, 0, &[opcode & !1], ext, rm, 2);
        } else {
            self.encode(w, 0, &[opcode], ext, rm, 0);
        }
    }

    /// A two-byte opcode of 16 bits or more.
    pub fn op0f(&mut self, w: Width, opcode: u8, reg: u8, rm: Rm) {
        self.encode(w, 0, &[0x0f, opcode], reg, rm, 0);
    }

    /// The same with a mandatory prefix.
    pub fn op0f_p(&mut self, w: Width, prefix: u8, opcode: u8, reg: u8, rm: Rm) {
        self.encode(w, prefix, &[0x0f, opcode], reg, rm, 0);
    }

    /// Three-byte opcodes 0F 38 with a prefix; `byte`: the r/m is a byte register.
    pub fn op0f38(&mut self, w: Width, prefix: u8, opcode: u8, reg: u8, rm: Rm, byte: bool) {
        self.encode(w, prefix, &[0x0f, 0x38, opcode], reg, rm, u8::from(byte) << 1);
    }

    /// A VEX instruction of map 0F38, L = 0, with general registers.
    pub fn vex38(&mut self, w: Width, pp: u8, opcode: u8, reg: u8, v: u8, rm: u8) {
        self.byte(0xc4);
        self.byte(!(reg >> 3 << 7 | rm >> 3 << 5) & 0xe0 | 2);
        self.byte(u8::from(w == W64) << 7 | (!v & 15) << 3 | pp);
        self.byte(opcode);
        self.byte(0xc0 | (reg & 7) << 3 | rm & 7);
    }

    /// A vector instruction in its VEX encoding, of 256 bits or not: `reg` and `rm`, `v` the first
    /// source. Of an instruction without one it is 0.
    pub fn vex(&mut self, c: Code, wide: bool, reg: u8, v: u8, rm: Rm) {
        let (x, b) = match rm {
            Rm::R(r) | Rm::M(r, _) => (0, r >> 3),
            Rm::X(b, x, ..) => (x >> 3, b >> 3),
            Rm::I(x, ..) => (x >> 3, 0),
        };
        let low = (!v & 15) << 3 | u8::from(wide) << 2 | c.pp;
        if c.map == 1 && !c.w && x | b == 0 {
            self.bytes(&[0xc5, (!reg >> 3 & 1) << 7 | low]);
        } else {
            let high = (!reg >> 3 & 1) << 7 | (x ^ 1) << 6 | (b ^ 1) << 5 | c.map;
            self.bytes(&[0xc4, high, u8::from(c.w) << 7 | low]);
        }
        self.byte(c.opcode);
        self.modrm(reg, rm);
    }

    /// The same in its legacy SSE encoding, whose first source is `reg`.
    pub fn sse(&mut self, c: Code, reg: u8, rm: Rm) {
        let prefix = [0, 0x66, 0xf3, 0xf2][usize::from(c.pp & 3)];
        let escape: &[u8] = [&[0x0f][..], &[0x0f, 0x38], &[0x0f, 0x3a]][usize::from(c.map - 1)];
        let opcode = [escape, &[c.opcode]].concat();
        self.encode(if c.w { W64 } else { W32 }, prefix, &opcode, reg, rm, 0);
    }

    /// `d = s`, all of `w`; 32 bits zero-extend.
    pub fn mov(&mut self, w: Width, d: u8, s: Rm) {
        if s != Rm::R(d) || w == W32 {
            self.op(w, 0x8b, d, s);
        }
    }

    /// `[m] = s`.
    pub fn store(&mut self, w: Width, m: Rm, s: u8) {
        self.op(w, 0x89, s, m);
    }

    /// `d = v`; leaves the flags alone.
    pub fn imm(&mut self, d: u8, v: u64) {
        if v <= u64::from(u32::MAX) {
            if d >= 8 {
                self.byte(0x41);
            }
            self.byte(0xb8 | d & 7);
            self.dword(v as u32 as i32);
        } else if v as i64 == i64::from(v as i32) {
            self.ext(W64, 0xc7, 0, Rm::R(d));
            self.dword(v as i32);
        } else {
            self.byte(0x48 | d >> 3);
            self.byte(0xb8 | d & 7);
            self.bytes(&v.to_le_bytes());
        }
    }

    /// An immediate of the width `w` (32 bits at most).
    pub fn imm_of(&mut self, w: Width, v: i64) {
        match w {
            W8 => self.byte(v as u8),
            W16 => self.bytes(&(v as i16).to_le_bytes()),
            _ => self.dword(v as i32),
        }
    }

    /// `rm op= v` for the arithmetic of number `n` (ADD 0, OR 1, ADC 2, SBB 3, AND 4, SUB 5, XOR 6,
    /// CMP 7); `v` must fit.
    pub fn alu_imm(&mut self, w: Width, n: u8, rm: Rm, v: i64) {
        let small = match w {
            W8 => true,
            W16 => i64::from(v as i16 as i8) == i64::from(v as i16),
            _ => i64::from(v as i32 as i8) == i64::from(v as i32),
        };
        if w == W8 {
            self.ext(w, 0x81, n, rm);
            self.byte(v as u8);
        } else if small {
            self.ext(w, 0x83, n, rm);
            self.byte(v as u8);
        } else {
            self.ext(w, 0x81, n, rm);
            self.imm_of(w, v);
        }
    }

    /// A jump on condition `c` whose target is filled in by [`bind`](Self::bind).
    pub fn jcc(&mut self, c: u8) -> usize {
        self.bytes(&[0x0f, 0x80 | c]);
        self.dword(0);
        self.here()
    }

    /// A jump, likewise.
    pub fn jmp(&mut self) -> usize {
        self.byte(0xe9);
        self.dword(0);
        self.here()
    }

    /// Lets the jump that ended at `site` lead to `to`.
    pub fn bind_to(&mut self, site: usize, to: usize) {
        let rel = (to as i64 - site as i64) as i32;
        self.code[site - 4..site].copy_from_slice(&rel.to_le_bytes());
    }

    /// Lets the jump that ended at `site` lead here.
    pub fn bind(&mut self, site: usize) {
        self.bind_to(site, self.here());
    }

    /// Lets the jump that ended at `site` lead to code of this buffer at `address`.
    pub fn bind_far(&mut self, site: usize, address: u64) {
        self.bind_to(site, address.wrapping_sub(self.origin) as usize);
    }

    /// Calls code of this buffer at `address`.
    pub fn call_near(&mut self, address: u64) {
        self.byte(0xe8);
        let next = self.origin + self.here() as u64 + 4;
        self.dword(address.wrapping_sub(next) as i32);
    }

    /// Calls a function of the program, by way of `rax`.
    pub fn call_far(&mut self, address: u64) {
        self.imm(RAX, address);
        self.bytes(&[0xff, 0xd0]);
    }

    pub fn push(&mut self, r: u8) {
        if r >= 8 {
            self.byte(0x41);
        }
        self.byte(0x50 | r & 7);
    }

    pub fn pop(&mut self, r: u8) {
        if r >= 8 {
            self.byte(0x41);
        }
        self.byte(0x58 | r & 7);
    }

    pub fn ret(&mut self) {
        self.byte(0xc3);
    }
}
