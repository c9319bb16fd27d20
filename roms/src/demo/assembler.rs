//! A stage of the demo under construction: iced's `CodeAssembler` plus names, texts and checks.
//!
//! `code_asm` knows labels for branches, but code must also load addresses as plain numbers (a
//! text to print, a gate's handler, the target of a far jump) in 16- and 32-bit mode, where there
//! is no RIP-relative addressing. So a stage keeps named labels: `label` is for branches, `addr` is
//! the number found in the pass before. Both name the same place once the passes agree.
//!
//! The helpers below emit a few instructions each; they change no register except the flags, so
//! that the stages read like a listing with remarks in between.

use crate::layout::*;
use iced_x86::code_asm::*;
use iced_x86::{BlockEncoderOptions, IcedError};
use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};

/// What every function that emits code returns.
pub type Emit = Result<(), IcedError>;

/// Address of every named place, by stage and name.
pub type Symbols = BTreeMap<(&'static str, String), u64>;

/// A conditional jump, to be given to [`Stage::check`].
pub type Jump = fn(&mut CodeAssembler, CodeLabel) -> Emit;
/// Passes if equal (ZF = 1).
pub const E: Jump = CodeAssembler::je::<CodeLabel>;
/// Passes if not equal (ZF = 0).
pub const NE: Jump = CodeAssembler::jne::<CodeLabel>;
/// Passes if above or equal, unsigned (CF = 0).
pub const AE: Jump = CodeAssembler::jae::<CodeLabel>;
/// Passes if below or equal, unsigned (CF = 1 or ZF = 1).
pub const BE: Jump = CodeAssembler::jbe::<CodeLabel>;

/// A general register without its width: 32 bits up to protected mode, 64 in long mode.
#[derive(Clone, Copy)]
pub enum Reg {
    A,
    B,
    C,
    D,
    Si,
}
use Reg::{A, B, C, D, Si};

/// The 32-bit variable at physical address `address`, for 64-bit code.
pub fn var32(address: u32) -> AsmMemoryOperand {
    dword_ptr(KERNEL_BASE + u64::from(address))
}

/// The 64-bit variable at physical address `address`, for 64-bit code.
pub fn var64(address: u32) -> AsmMemoryOperand {
    qword_ptr(KERNEL_BASE + u64::from(address))
}

/// One stage of the demo.
pub struct Stage {
    code: CodeAssembler,
    name: &'static str,
    known: Symbols,
    labels: BTreeMap<String, CodeLabel>,
    texts: BTreeMap<String, String>,
    /// What [`Stage::check`] leaves with: one of the `EXIT_…` values.
    pub failure: u8,
}

impl Deref for Stage {
    type Target = CodeAssembler;
    fn deref(&self) -> &CodeAssembler {
        &self.code
    }
}

impl DerefMut for Stage {
    fn deref_mut(&mut self) -> &mut CodeAssembler {
        &mut self.code
    }
}

impl Stage {
    /// An empty stage of 16-, 32- or 64-bit code; `known` are the addresses of the pass before.
    pub fn new(name: &'static str, bits: u32, known: &Symbols) -> Result<Stage, IcedError> {
        Ok(Stage {
            code: CodeAssembler::new(bits)?,
            name,
            known: known.clone(),
            labels: BTreeMap::new(),
            texts: BTreeMap::new(),
            failure: 0,
        })
    }

    /// Appends the texts, encodes everything for address `ip` and adds the names to `found`.
    pub fn finish(mut self, ip: u64, found: &mut Symbols) -> Result<Vec<u8>, IcedError> {
        for (text, name) in std::mem::take(&mut self.texts) {
            self.here(&name)?;
            self.db(text.as_bytes())?;
            self.db(&[0])?;
        }
        let options = BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS;
        let result = self.code.assemble_options(ip, options)?;
        for (name, label) in self.labels {
            found.insert((self.name, name), result.label_ip(&label)?);
        }
        Ok(result.inner.code_buffer)
    }

    // --- names ---

    /// The label called `name`, as the target of a branch.
    pub fn label(&mut self, name: &str) -> CodeLabel {
        if !self.labels.contains_key(name) {
            let label = self.code.create_label();
            self.labels.insert(name.to_string(), label);
        }
        self.labels[name]
    }

    /// Gives the next instruction the name `name`.
    pub fn here(&mut self, name: &str) -> Emit {
        self.label(name);
        if let Some(label) = self.labels.get_mut(name) {
            self.code.set_label(label)?;
        }
        // An instruction of no bytes, since `code_asm` allows one label per instruction.
        self.code.zero_bytes()
    }

    /// The address of `name` in this stage; 0 in the first pass.
    pub fn addr(&self, name: &str) -> u64 {
        self.addr_in(self.name, name)
    }

    /// The address of `name` in another stage; 0 in the first pass.
    pub fn addr_in(&self, stage: &'static str, name: &str) -> u64 {
        self.known.get(&(stage, name.to_string())).copied().unwrap_or(0)
    }

    /// The address of a zero-terminated copy of `text`.
    pub fn text(&mut self, text: &str) -> u64 {
        let next = format!("text{}", self.texts.len());
        let name = self.texts.entry(text.to_string()).or_insert(next).clone();
        self.addr(&name)
    }

    // --- the kernel's variables ---

    /// The 32-bit variable at physical address `address`. In real mode FS has base 0.
    pub fn dword(&self, address: u32) -> AsmMemoryOperand {
        match self.bitness() {
            16 => dword_ptr(address).fs(),
            32 => dword_ptr(address),
            _ => var32(address),
        }
    }

    // --- saving registers ---

    /// Pushes `registers`, the first one first, each as wide as the mode allows.
    pub fn save(&mut self, registers: &[Reg]) -> Emit {
        registers.iter().try_for_each(|&register| match (register, self.bitness()) {
            (A, 64) => self.push(rax),
            (B, 64) => self.push(rbx),
            (C, 64) => self.push(rcx),
            (D, 64) => self.push(rdx),
            (Si, 64) => self.push(rsi),
            (A, _) => self.push(eax),
            (B, _) => self.push(ebx),
            (C, _) => self.push(ecx),
            (D, _) => self.push(edx),
            (Si, _) => self.push(esi),
        })
    }

    /// Undoes [`Stage::save`] of the same list.
    pub fn restore(&mut self, registers: &[Reg]) -> Emit {
        registers.iter().rev().try_for_each(|&register| match (register, self.bitness()) {
            (A, 64) => self.pop(rax),
            (B, 64) => self.pop(rbx),
            (C, 64) => self.pop(rcx),
            (D, 64) => self.pop(rdx),
            (Si, 64) => self.pop(rsi),
            (A, _) => self.pop(eax),
            (B, _) => self.pop(ebx),
            (C, _) => self.pop(ecx),
            (D, _) => self.pop(edx),
            (Si, _) => self.pop(esi),
        })
    }

    /// Points SI, ESI or RSI to `text`.
    fn point_to(&mut self, text: &str) -> Emit {
        let address = self.text(text);
        match self.bitness() {
            16 => self.mov(si, address as u32),
            32 => self.mov(esi, address as u32),
            _ => self.mov(rsi, address),
        }
    }

    // --- text output, through the routines of `print.rs` ---

    /// Prints `text`.
    pub fn say(&mut self, text: &str) -> Emit {
        let puts = self.label("puts");
        self.save(&[Si])?;
        self.point_to(text)?;
        self.call(puts)?;
        self.restore(&[Si])
    }

    /// Prints EAX in decimal.
    pub fn say_decimal(&mut self) -> Emit {
        let decimal = self.label("decimal");
        self.call(decimal)
    }

    /// Prints the low `digits` hexadecimal digits of EAX, or all 16 of RAX.
    pub fn say_hex(&mut self, digits: u32) -> Emit {
        if digits == 16 {
            self.save(&[A])?;
            self.shr(rax, 32)?;
            self.say_hex(8)?;
            self.restore(&[A])?;
            return self.say_hex(8);
        }
        let hex = self.label("hex");
        self.save(&[A, C])?;
        // The first digit to print goes to the top, where the routine takes them from.
        self.ror(eax, 4 * digits)?;
        self.mov(ecx, digits)?;
        self.call(hex)?;
        self.restore(&[A, C])
    }

    // --- checks ---

    /// Goes on if `pass` jumps; else prints `FAIL: ` and `what` and leaves.
    pub fn require(&mut self, pass: Jump, what: &str) -> Emit {
        let mut passed = self.create_label();
        let fail = self.label("fail");
        let failure = u32::from(self.failure);
        pass(&mut self.code, passed)?;
        self.point_to(what)?;
        self.mov(bl, failure)?;
        self.jmp(fail)?;
        self.set_label(&mut passed)?;
        self.zero_bytes()
    }

    /// The same, and counts the check: for what runs a fixed number of times.
    pub fn check(&mut self, pass: Jump, what: &str) -> Emit {
        self.require(pass, what)?;
        let checks = self.dword(CHECKS);
        self.inc(checks)
    }

    /// Checks that the 32-bit variable at `address` is `value`.
    pub fn expect(&mut self, address: u32, value: u32, what: &str) -> Emit {
        let variable = self.dword(address);
        self.cmp(variable, value as i32)?;
        self.check(E, what)
    }

    /// Emits `body`, during which an exception is expected: the handler notes it in [`VECTOR`],
    /// [`ERROR`] and so on and goes on behind `body`.
    pub fn probe(&mut self, name: &str, body: impl FnOnce(&mut Stage) -> Emit) -> Emit {
        let behind = self.addr(name);
        let vector = self.dword(VECTOR);
        self.mov(vector, NO_EXCEPTION)?;
        self.set_recover(behind)?;
        body(self)?;
        self.here(name)?;
        self.set_recover(0)
    }

    fn set_recover(&mut self, address: u64) -> Emit {
        if self.bitness() == 64 {
            let recover = var64(RECOVER);
            // The immediate is 32 bits, sign-extended: that reaches all of the higher half.
            self.mov(recover, address as i32)
        } else {
            let recover = self.dword(RECOVER);
            self.mov(recover, address as u32)
        }
    }
}
