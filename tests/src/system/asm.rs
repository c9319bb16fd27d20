//! The assembler of a row: iced's `CodeAssembler`, plus names, modes and observations.
//!
//! A row is one stream of code that may change its bitness on the way (`bits`). Named places give
//! labels for branches (`label`) and, from the pass before, plain numbers for gates, far jumps and
//! the like (`addr`); the image is assembled until both agree. What a row observes goes to slots
//! in low memory (`show`, `guard` … `caught`), which the image prints after the row's reset.
//!
//! No helper here changes a register that it does not name, nor the flags, unless it says so.

use super::layout::*;
use iced_x86::code_asm::*;
use iced_x86::{BlockEncoderOptions, Code, IcedError, Instruction};
use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};

/// What every function that emits code returns.
pub type Emit = Result<(), IcedError>;

/// Linear address of every named place, by scope (a row's name) and name.
pub type Symbols = BTreeMap<(String, String), u64>;

/// Code under construction.
pub struct Asm<'k> {
    code: CodeAssembler,
    scope: String,
    /// Linear address of the part that is being written.
    start: u64,
    done: Vec<u8>,
    known: &'k Symbols,
    found: Symbols,
    labels: BTreeMap<String, CodeLabel>,
    slots: u32,
    open: Option<u32>,
    /// Whether page tables have 32-bit entries: see [`Asm::pte`].
    pub legacy_paging: bool,
    /// In virtual-8086 mode: the EFLAGS to come back with, as PUSHF need not work there.
    pub v86_flags: Option<u32>,
}

impl Deref for Asm<'_> {
    type Target = CodeAssembler;
    fn deref(&self) -> &CodeAssembler {
        &self.code
    }
}

impl DerefMut for Asm<'_> {
    fn deref_mut(&mut self) -> &mut CodeAssembler {
        &mut self.code
    }
}

/// What [`Asm::show`] takes: a register of any width.
pub trait Shown {
    /// Emits its store to `to`.
    fn store(self, s: &mut Asm, to: AsmMemoryOperand) -> Emit;
}

macro_rules! shown {
    ($($t:ty)*) => { $(impl Shown for $t {
        fn store(self, s: &mut Asm, to: AsmMemoryOperand) -> Emit {
            s.mov(to, self)
        }
    })* };
}
shown! { AsmRegister8 AsmRegister16 AsmRegister32 AsmRegister64 AsmRegisterSegment }

impl<'k> Asm<'k> {
    /// Nothing yet, for linear address `start`, beginning with code of `bits` bits.
    pub fn new(scope: &str, bits: u32, start: u64, known: &'k Symbols) -> Result<Self, IcedError> {
        Ok(Asm {
            code: CodeAssembler::new(bits)?,
            scope: scope.to_owned(),
            start,
            done: Vec::new(),
            known,
            found: Symbols::new(),
            labels: BTreeMap::new(),
            slots: 0,
            open: None,
            legacy_paging: false,
            v86_flags: None,
        })
    }

    /// The bytes, and the places found.
    pub fn finish(mut self) -> Result<(Vec<u8>, Symbols), IcedError> {
        assert!(self.open.is_none(), "{}: `guard` without `caught`", self.scope);
        assert!(self.slots < LAST_SLOT, "{}: too many observations", self.scope);
        self.bits(16)?;
        Ok((self.done, self.found))
    }

    /// What follows is code of `bits` bits; labels of what came before are not for branches now.
    pub fn bits(&mut self, bits: u32) -> Emit {
        let new = CodeAssembler::new(bits)?;
        let mut part = std::mem::replace(&mut self.code, new);
        // 16-bit code runs in segments that begin at the image.
        let base = if part.bitness() == 16 { u64::from(IMAGE) } else { 0 };
        let options = BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS;
        if !part.instructions().is_empty() {
            let result = part.assemble_options(self.start - base, options)?;
            for (name, label) in std::mem::take(&mut self.labels) {
                self.found.insert((self.scope.clone(), name), result.label_ip(&label)? + base);
            }
            self.start += result.inner.code_buffer.len() as u64;
            self.done.extend(result.inner.code_buffer);
        }
        Ok(())
    }

    // --- names ---

    /// The label called `name`, as the target of a branch.
    pub fn label(&mut self, name: &str) -> CodeLabel {
        if !self.labels.contains_key(name) {
            let label = self.code.create_label();
            self.labels.insert(name.to_owned(), label);
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

    /// The linear address of `name`; 0 in the first pass.
    #[must_use]
    pub fn addr(&self, name: &str) -> u32 {
        self.addr_in(&self.scope, name)
    }

    /// The linear address of `name` of another row, or of the image (scope "").
    #[must_use]
    pub fn addr_in(&self, scope: &str, name: &str) -> u32 {
        self.known.get(&(scope.to_owned(), name.to_owned())).copied().unwrap_or(0) as u32
    }

    /// The offset of `name` in a segment that begins at the image.
    #[must_use]
    pub fn off(&self, name: &str) -> u32 {
        self.addr(name) & 0xffff
    }

    // --- memory at absolute addresses ---

    /// `operand` at linear address `address`, below 64 KiB in 16-bit code: FS has base 0 there and
    /// is flat in 32-bit code, whatever the row does to DS.
    #[must_use]
    fn flat(&self, operand: AsmMemoryOperand) -> AsmMemoryOperand {
        if self.bitness() == 64 { operand } else { operand.fs() }
    }

    /// The byte at linear address `address`.
    #[must_use]
    pub fn byte(&self, address: u32) -> AsmMemoryOperand {
        self.flat(byte_ptr(u64::from(address)))
    }

    /// The 16-bit word at linear address `address`.
    #[must_use]
    pub fn word(&self, address: u32) -> AsmMemoryOperand {
        self.flat(word_ptr(u64::from(address)))
    }

    /// The 32-bit word at linear address `address`.
    #[must_use]
    pub fn dword(&self, address: u32) -> AsmMemoryOperand {
        self.flat(dword_ptr(u64::from(address)))
    }

    /// The 64-bit word at linear address `address`.
    #[must_use]
    pub fn qword(&self, address: u32) -> AsmMemoryOperand {
        self.flat(qword_ptr(u64::from(address)))
    }

    /// Stores the 64-bit `value` at `address` (linear; flat segments, or 64-bit code).
    pub fn poke(&mut self, address: u32, value: u64) -> Emit {
        let (low, high) = (self.dword(address), self.dword(address + 4));
        self.mov(low, value as u32)?;
        self.mov(high, (value >> 32) as u32)
    }

    // --- observations ---

    fn slot(&mut self) -> u32 {
        self.slots += 1;
        LOG + (self.slots - 1) * SLOT_SIZE
    }

    /// Observes `what`, a register, in hexadecimal digits.
    pub fn show(&mut self, what: impl Shown) -> Emit {
        let at = self.slot();
        let (tag, value) = (self.byte(at), self.dword(at + 8));
        what.store(self, value)?;
        self.mov(tag, TAG_VALUE)
    }

    /// Observes the memory at the linear `address`, 64 bits in 64-bit code, else 32.
    pub fn show_at(&mut self, address: u32) -> Emit {
        let at = self.slot();
        if self.bitness() == 64 {
            self.push(qword_ptr(u64::from(address)))?;
            self.pop(qword_ptr(u64::from(at) + 8))?;
        } else {
            let (from, to) = (self.dword(address), self.dword(at + 8));
            self.push(from)?;
            self.pop(to)?;
        }
        let tag = self.byte(at);
        self.mov(tag, TAG_VALUE)
    }

    /// Observes the flags of `mask`. Uses PUSHF and POPF.
    pub fn show_flags(&mut self, mask: u32) -> Emit {
        let at = self.slot();
        let (tag, to) = (self.byte(at), self.dword(at + 8));
        if self.bitness() == 64 {
            self.pushfq()?;
            self.pushfq()?;
            self.and(dword_ptr(rsp), mask as i32)?;
            self.pop(qword_ptr(u64::from(at) + 8))?;
            self.popfq()?;
        } else {
            self.pushfd()?;
            self.pushfd()?;
            self.pop(to)?;
            self.and(to, mask as i32)?;
            self.popfd()?;
        }
        self.mov(tag, TAG_VALUE)
    }

    /// From here to [`Asm::caught`] an exception does not end the row: it is observed, and the
    /// row goes on behind `caught`, with CS, the stack pointer and flags from here, and all other
    /// registers as the exception found them.
    pub fn guard(&mut self) -> Emit {
        assert!(self.open.is_none(), "{}: `guard` in `guard`", self.scope);
        let at = self.slot();
        self.open = Some(at);
        let target = self.addr(&format!("caught {at:x}"));
        let target = if self.bitness() == 16 { target & 0xffff } else { target };
        let (cs_at, ss_at) = (self.word(CTX_CS), self.word(CTX_SS));
        let (flags_at, slot_at, to) =
            (self.dword(CTX_FLAGS), self.dword(SLOT), self.dword(RECOVER));
        let sp_at = self.dword(CTX_SP);
        self.mov(slot_at, at)?;
        self.mov(cs_at, cs)?;
        self.mov(ss_at, ss)?;
        match (self.bitness(), self.v86_flags) {
            (64, _) => {
                self.mov(qword_ptr(u64::from(CTX_SP)), rsp)?;
                self.pushfq()?;
                self.pop(qword_ptr(u64::from(CTX_FLAGS)))?;
            }
            (_, Some(flags)) => {
                self.mov(sp_at, esp)?;
                self.mov(flags_at, flags)?;
            }
            _ => {
                self.mov(sp_at, esp)?;
                self.pushfd()?;
                self.pop(flags_at)?;
            }
        }
        self.mov(to, target)
    }

    /// Ends [`Asm::guard`]: observes "ok" if there was no exception.
    pub fn caught(&mut self) -> Emit {
        let at = self.open.take().expect("`caught` follows `guard`");
        let (tag, to, slot_at) = (self.byte(at), self.dword(RECOVER), self.dword(SLOT));
        self.mov(tag, TAG_OK)?;
        self.here(&format!("caught {at:x}"))?;
        match self.bitness() {
            64 => self.mov(rsp, qword_ptr(u64::from(CTX_SP)))?,
            _ => {
                let sp_at = self.dword(CTX_SP);
                self.mov(esp, sp_at)?;
            }
        }
        self.mov(to, 0)?;
        self.mov(slot_at, LOG + LAST_SLOT * SLOT_SIZE)
    }

    /// Ends the row.
    pub fn end(&mut self) -> Emit {
        self.int(END_VECTOR)
    }

    /// Observes EAX less the offset of `name`: for instruction pointers.
    pub fn show_from(&mut self, name: &str) -> Emit {
        let start = if self.bitness() == 16 { self.off(name) } else { self.addr(name) };
        self.sub(eax, start as i32)?;
        self.show(eax)
    }

    /// REP (REPE) before the next instruction.
    pub fn repeat(&mut self) -> Emit {
        let _: &mut CodeAssembler = self.code.rep();
        Ok(())
    }

    // --- control transfer between segments ---

    /// `JMP selector:offset`, 16- and 32-bit code only.
    pub fn far_jmp(&mut self, selector: u32, offset: u32) -> Emit {
        let code = if offset > 0xffff { Code::Jmp_ptr1632 } else { Code::Jmp_ptr1616 };
        let code = if self.bitness() == 32 { Code::Jmp_ptr1632 } else { code };
        self.add_instruction(Instruction::with_far_branch(code, selector as u16, offset)?)
    }

    /// `CALL selector:offset`, 16- and 32-bit code only.
    pub fn far_call(&mut self, selector: u32, offset: u32) -> Emit {
        let code = if self.bitness() == 32 { Code::Call_ptr1632 } else { Code::Call_ptr1616 };
        self.add_instruction(Instruction::with_far_branch(code, selector as u16, offset)?)
    }

    /// Goes on at CPL 3 in code of the same size, with [`USER_STACK`]; 32- and 64-bit code.
    pub fn ring3(&mut self) -> Emit {
        let name = format!("ring3 {:x}", self.slots);
        let target = self.addr(&name);
        if self.bitness() == 64 {
            for value in [DATA3, USER_STACK] {
                self.push(value as i32)?;
            }
            self.pushfq()?;
            for value in [CODE64_3, target] {
                self.push(value as i32)?;
            }
            self.iretq()?;
        } else {
            for value in [DATA3, USER_STACK] {
                self.push(value as i32)?;
            }
            self.pushfd()?;
            for value in [CODE32_3, target] {
                self.push(value as i32)?;
            }
            self.iretd()?;
        }
        self.here(&name)
    }

    /// From 64-bit code to compatibility mode at the same CPL 0.
    pub fn compat(&mut self) -> Emit {
        self.far_ret(CODE32, 32, "compat")
    }

    /// From 64-bit code at CPL 0 to compatibility mode at CPL 3.
    pub fn compat3(&mut self) -> Emit {
        let target = self.addr("compat3");
        for value in [DATA3, USER_STACK, 2, CODE32_3, target] {
            self.push(value as i32)?;
        }
        self.iretq()?;
        self.bits(32)?;
        self.here("compat3")
    }

    /// From compatibility mode at CPL 0 to 64-bit code.
    pub fn long(&mut self) -> Emit {
        self.far_ret(CODE64, 64, "long")
    }

    fn far_ret(&mut self, selector: u32, bits: u32, name: &str) -> Emit {
        let target = self.addr(name);
        self.push(selector as i32)?;
        self.push(target as i32)?;
        self.retf()?;
        self.bits(bits)?;
        self.here(name)
    }

    // --- tables ---

    /// Writes the segment descriptor of `selector` in the GDT.
    pub fn gdt(&mut self, selector: u32, descriptor: u64) -> Emit {
        self.poke(IMAGE + GDT + (selector & !7), descriptor)
    }

    /// Writes slot `selector` of the local descriptor table, without loading LDTR.
    pub fn ldt(&mut self, selector: u32, descriptor: u64) -> Emit {
        self.poke(IMAGE + LDT + (selector & !7), descriptor)
    }

    /// Writes the gate of `vector` in the 32-bit IDT.
    pub fn gate32(&mut self, vector: u32, gate: u64) -> Emit {
        self.poke(IMAGE + IDT32 + 8 * vector, gate)
    }

    /// Writes the low half of the gate of `vector` in the 64-bit IDT.
    pub fn gate64(&mut self, vector: u32, gate: u64) -> Emit {
        self.poke(IMAGE + IDT64 + 16 * vector, gate)
    }

    /// Writes the last-level entry that maps the linear `page`, below 2 MiB; no INVLPG.
    pub fn pte(&mut self, page: u32, entry: u64) -> Emit {
        if self.legacy_paging {
            let at = self.dword(IMAGE + PT32 + (page >> 12) * 4);
            return self.mov(at, entry as u32);
        }
        self.poke(IMAGE + PT + (page >> 12) * 8, entry)
    }

    /// Observes the low 32 bits of that entry.
    pub fn show_pte(&mut self, page: u32) -> Emit {
        let at = match self.legacy_paging {
            true => IMAGE + PT32 + (page >> 12) * 4,
            false => IMAGE + PT + (page >> 12) * 8,
        };
        self.show_at(at)
    }

    // --- control registers; these change EAX (RAX), ECX, EDX and the flags ---

    /// Sets `bits` in CR0.
    pub fn set_cr0(&mut self, bits: u32) -> Emit {
        if self.bitness() == 64 {
            self.mov(rax, cr0)?;
            self.or(eax, bits as i32)?;
            return self.mov(cr0, rax);
        }
        self.mov(eax, cr0)?;
        self.or(eax, bits as i32)?;
        self.mov(cr0, eax)
    }

    /// Sets `bits` in CR4.
    pub fn set_cr4(&mut self, bits: u32) -> Emit {
        if self.bitness() == 64 {
            self.mov(rax, cr4)?;
            self.or(eax, bits as i32)?;
            return self.mov(cr4, rax);
        }
        self.mov(eax, cr4)?;
        self.or(eax, bits as i32)?;
        self.mov(cr4, eax)
    }

    /// WRMSR of `value` to `msr`.
    pub fn set_msr(&mut self, msr: u32, value: u64) -> Emit {
        self.mov(ecx, msr)?;
        self.mov(eax, value as u32)?;
        self.mov(edx, (value >> 32) as u32)?;
        self.wrmsr()
    }

    /// RDMSR, observed: high half, low half.
    pub fn show_msr(&mut self, msr: u32) -> Emit {
        self.mov(ecx, msr)?;
        self.rdmsr()?;
        self.show(edx)?;
        self.show(eax)
    }
}
