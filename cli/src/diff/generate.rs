//! Random samples: one to eight instructions, chosen uniformly among the encodings that the model
//! has, and a state for them in which registers that are used as addresses mostly lead to the
//! sample's memory.
//!
//! The state is made after the instructions: a base register that nothing wrote or used before is
//! given the value by which its operand hits, straddles or misses the pages as drawn.
//!
//! Branches go forward, to the end of a later instruction, so that a sample comes to its end: when
//! all instructions are there, what a branch takes its target from (its displacement, a register,
//! a pointer in the memory) is set.

use super::encode::{Encoded, decode, encode, maybe_host_only};
use super::random::Rng;
use super::rules;
use frontend_x86::sys::cpuid::Features;
use iced_x86::{
    Code, Instruction, InstructionInfo, InstructionInfoFactory, Mnemonic, OpAccess, OpKind,
    Register,
};
use oracle::{
    Bits, CODE, CODE_MAX, CS32, CS64, DATA, EXIT, MEMORY, MEMORY_LEN, Memory, Sample, State,
};

/// A source of samples, the same for the same seed.
pub struct Generator {
    rng: Rng,
    bits: Bits,
    codes: Vec<Code>,
    features: u128,
    /// Whether random bytes are among the samples.
    random_bytes: bool,
    info: InstructionInfoFactory,
}

/// Longest instruction.
const MAX_LEN: usize = 15;
/// RFLAGS that a sample starts with: these at random, IF and bit 1 always.
const FLAGS: u64 = rules::OSZAPC | 1 << 21;
const DF: u64 = 1 << 10;

impl Generator {
    /// Samples of code of one size, with instructions of the CPU with `features` for which
    /// `wanted` holds.
    pub fn new(
        seed: u64,
        bits: Bits,
        features: u128,
        wanted: Option<&dyn Fn(&Instruction) -> bool>,
    ) -> Generator {
        let usable = |code: &Code| {
            let mut i = Instruction::default();
            i.set_code(*code);
            rules::in_model(&i, bits, features)
                && rules::excluded(&i, features).is_none()
                && wanted.is_none_or(|w| w(&i))
        };
        Generator {
            rng: Rng::new(seed),
            bits,
            codes: Code::values().filter(usable).collect(),
            features,
            random_bytes: wanted.is_none(),
            info: InstructionInfoFactory::new(),
        }
    }

    /// Starts over with another seed.
    pub fn reseed(&mut self, seed: u64) {
        self.rng = Rng::new(seed);
    }

    /// The encodings it chooses among.
    #[must_use]
    pub fn codes(&self) -> &[Code] {
        &self.codes
    }

    /// The next sample.
    ///
    /// # Panics
    /// When there are no encodings to choose among.
    pub fn sample(&mut self) -> Sample {
        let mut draft = Draft::new(self.bits, self.features & Features::AVX.0 != 0, &mut self.rng);
        let count = if self.rng.one_in(2) { 1 } else { 1 + self.rng.below(8) };
        while (draft.insns as u64) < count && draft.code.len() + MAX_LEN <= CODE_MAX {
            if self.random_bytes && self.rng.one_in(24) {
                let suits = |e: &Encoded, d: &Draft| rules::read(&e.insn) & d.undefined == 0;
                if let Some(e) = self.random_insn(draft.ip()).filter(|e| suits(e, &draft)) {
                    let illegal = e.insn.is_invalid();
                    draft.add(&e, &mut self.info, &mut self.rng);
                    if illegal {
                        break;
                    }
                }
                continue;
            }
            let tries = (0..8).find_map(|_| {
                let code = self.rng.pick(&self.codes);
                let single = rules::alone(code.mnemonic());
                if single && (draft.insns > 0 || count > 1) {
                    return None;
                }
                let e = encode(code, self.bits, draft.ip(), &mut self.rng)?;
                let ok = rules::excluded_form(&e).is_none()
                    && draft.suits(&e.insn, &mut self.info, &mut self.rng);
                ok.then_some(e)
            });
            match tries {
                Some(e) => draft.add(&e, &mut self.info, &mut self.rng),
                None if draft.insns > 0 => break,
                None => {}
            }
        }
        draft.finish(&mut self.rng)
    }

    /// Random bytes that are illegal, or an instruction of the model.
    fn random_insn(&mut self, ip: u64) -> Option<Encoded> {
        let mut bytes = Vec::new();
        let prefixes = [0x66, 0xf2, 0xf3, 0xf0, 0x48, 0x41, 0x2e, 0x64];
        // Few prefixes: beyond 15 bytes it is #GP, and the length of what is illegal is not told.
        while bytes.len() < 4 && self.rng.one_in(3) {
            bytes.push(self.rng.pick(&prefixes));
        }
        match self.rng.below(4) {
            0 => {}
            1 => bytes.extend([0x0f, 0x38]),
            2 => bytes.extend([0x0f, 0x3a]),
            _ => bytes.push(0x0f),
        }
        let vector_prefix = [0xc4, 0xc5, 0x62, 0x8f];
        while bytes.len() < 24 {
            bytes.push(self.rng.bits() as u8);
        }
        let mut e = decode(&bytes, self.bits, ip);
        if e.insn.is_invalid() {
            // The host may have more of the VEX, EVEX and XOP space.
            // With LOCK the system group of this vendor's CPUs raises #UD after other faults.
            let prefix = |b: &&u8| rules::is_prefix(**b, self.bits);
            let first = bytes.iter().take_while(prefix).count().min(MAX_LEN);
            let late = bytes[..first].contains(&0xf0) && bytes[first..].starts_with(&[0x0f, 0x00]);
            // Among these are instructions for the hypervisor beneath the host.
            let host = late
                || bytes[first..].starts_with(&[0x0f, 0x01])
                || vector_prefix.contains(&bytes[first])
                || maybe_host_only(&bytes, self.bits);
            if !self.random_bytes || host {
                return None;
            }
            e.bytes = bytes[..MAX_LEN].to_vec();
            return Some(e);
        }
        let ok = rules::in_model(&e.insn, self.bits, self.features)
            && rules::excluded(&e.insn, self.features).is_none()
            && rules::excluded_form(&e).is_none()
            && !rules::branches(&e.insn)
            && !rules::alone(e.insn.mnemonic());
        ok.then_some(e)
    }
}

/// A sample in the making.
struct Draft {
    bits: Bits,
    code: Vec<u8>,
    insns: usize,
    state: State,
    /// General registers whose initial value is fixed: written by an instruction or used in an
    /// address.
    fixed: u16,
    /// General registers written.
    written: u16,
    /// Arithmetic flags that are undefined by now.
    undefined: u64,
    /// Bits of the memory to clear: address and mask.
    clear: Vec<(u64, u8)>,
    /// Where instructions end in the code.
    ends: Vec<usize>,
    /// Where branches take their targets from, and where they end.
    branches: Vec<(Target, usize)>,
    /// Words for the memory: address, value and width in bytes.
    words: Vec<(u64, u64, usize)>,
}

/// What a branch takes its target from.
#[derive(Clone, Copy)]
enum Target {
    /// A displacement in the code: place and width in bytes.
    Relative(usize, usize),
    /// An offset in the code, as the former, of a far pointer.
    Absolute(usize, usize),
    /// A general register.
    Gpr(usize),
    /// A word in the memory: address and width in bytes.
    Memory(u64, usize),
}

/// Register number if `r` is a general register.
fn gpr(r: Register) -> Option<usize> {
    r.is_gpr().then(|| r.full_register().number())
}

impl Draft {
    fn new(bits: Bits, avx: bool, rng: &mut Rng) -> Draft {
        let mut state = State { rflags: 0x202 | rng.bits() & FLAGS, ..State::default() };
        if rng.one_in(8) {
            state.rflags |= DF;
        }
        for r in &mut state.gpr {
            *r = rng.integer();
            if bits == Bits::B32 {
                *r &= 0xffff_ffff;
            }
        }
        if bits == Bits::B32 {
            state.gpr[8..].fill(0);
        }
        state.gpr[4] = MEMORY + 0x800 + rng.below(0x1000);
        state.fs_base = MEMORY.wrapping_add(rng.below(0x3000)).wrapping_sub(0x800);
        state.gs_base = rng.pick(&[0, 0x1000, MEMORY, MEMORY + 0x1000]);
        for v in &mut state.ymm {
            *v = rng.vector();
            if !avx {
                v[2..].fill(0);
            }
        }
        state.mxcsr = 0x1f80;
        if rng.one_in(3) {
            state.mxcsr = 0x1f80 | rng.bits() as u32 & 0xe07f;
        }
        if rng.one_in(12) {
            state.mxcsr &= !(rng.bits() as u32 & 0x1f80);
        }
        let x = &mut state.x87;
        x.cw = 0x37f;
        if rng.one_in(3) {
            x.cw = 0x7f | rng.bits() as u16 & 0xf00;
        }
        if rng.one_in(12) {
            x.cw &= !(rng.bits() as u16 & 0x3f);
        }
        x.sw = if rng.one_in(2) { 0 } else { rng.bits() as u16 & 0x7f00 };
        if rng.one_in(4) {
            x.sw |= rng.bits() as u16 & 0x7f;
        }
        if x.sw & !x.cw & 0x3f != 0 {
            x.sw |= 0x8080;
        }
        x.full = match rng.below(4) {
            0 => 0,
            1 => rng.bits() as u8,
            _ => 0xff,
        };
        x.st = x.st.map(|_| rng.extended());
        if rng.one_in(8) {
            x.st[0] = (rng.bits(), 0xffff);
        }
        Draft {
            bits,
            code: Vec::new(),
            insns: 0,
            state,
            fixed: 0,
            written: 0,
            undefined: 0,
            clear: Vec::new(),
            ends: Vec::new(),
            branches: Vec::new(),
            words: Vec::new(),
        }
    }

    fn ip(&self) -> u64 {
        CODE + self.code.len() as u64
    }

    /// Whether `i` may come next: it reads no undefined flag, and its addresses are mostly known.
    fn suits(&self, i: &Instruction, info: &mut InstructionInfoFactory, rng: &mut Rng) -> bool {
        if rules::read(i) & self.undefined != 0 {
            return false;
        }
        let lost = info.info(i).used_memory().iter().any(|m| {
            let known = |r| gpr(r).is_none_or(|n| self.written & 1 << n == 0);
            !known(m.base()) || !known(m.index())
        });
        !lost || rng.one_in(4)
    }

    /// Appends `e`, and fixes registers so that its memory is where it shall be.
    fn add(&mut self, e: &Encoded, info: &mut InstructionInfoFactory, rng: &mut Rng) {
        let start = self.code.len();
        self.code.extend(&e.bytes);
        self.insns += 1;
        let i = &e.insn;
        if i.is_invalid() {
            return;
        }
        self.ends.push(self.code.len());
        if self.branches.is_empty() {
            // What may be jumped over defines nothing.
            self.undefined &= !rules::defined(i);
        }
        self.undefined |= rules::undefined(i);
        if rules::branches(i) {
            let rcx = &mut self.state.gpr[1];
            if self.fixed & 2 == 0 && rng.one_in(2) {
                *rcx = *rcx & !0xffff_ffff | rng.below(3);
            }
            self.fixed |= 2;
        }
        if i.has_rep_prefix() || i.has_repne_prefix() {
            let rcx = &mut self.state.gpr[1];
            if self.fixed & 2 == 0 && i.is_string_instruction() {
                *rcx = if rng.one_in(8) { rng.integer() & 0xffff } else { rng.below(20) };
                self.fixed |= 2;
            }
        }
        self.aim_bit_index(i, rng);
        let used = info.info(i);
        for m in used.used_memory() {
            let size = m.memory_size().size().max(1) as u64;
            let target = target(size, self.bits, rng);
            let (base, index) = (gpr(m.base()), gpr(m.index()));
            self.aim_vector_index(m.index(), rng);
            let value = |r: Register, _: usize, _: usize| self.value(r);
            let Some(now) = m.virtual_address(0, value) else { continue };
            let delta = target.wrapping_sub(now);
            let mut moved = false;
            match base {
                Some(b) if self.fixed & 1 << b == 0 && Some(b) != index => {
                    let r = &mut self.state.gpr[b];
                    *r = r.wrapping_add(delta);
                    if self.bits == Bits::B32 {
                        *r &= 0xffff_ffff;
                    }
                }
                None if self.patch(e, start, target, now) => moved = true,
                _ => {}
            }
            let at =
                if moved { Some(target) } else { m.virtual_address(0, |r, _, _| self.value(r)) };
            if let Some(at) = at {
                self.clear.extend(
                    rules::cleared(i.mnemonic())
                        .iter()
                        .map(|(n, bits)| (at.wrapping_add(*n), *bits)),
                );
            }
            for r in [base, index].into_iter().flatten() {
                self.fixed |= 1 << r;
            }
        }
        if rules::branches(i) {
            self.branch(e, start, used, rng);
        }
        for r in used.used_registers() {
            let writes =
                !matches!(r.access(), OpAccess::Read | OpAccess::CondRead | OpAccess::None);
            if let (Some(n), true) = (gpr(r.register()), writes) {
                self.fixed |= 1 << n;
                self.written |= 1 << n;
            }
        }
    }

    /// Initial value of a register of an address.
    fn value(&self, r: Register) -> Option<u64> {
        if let Some(n) = gpr(r) {
            let v = self.state.gpr[n];
            return Some(match r.size() {
                1 => v & 0xff,
                2 => v & 0xffff,
                4 => v & 0xffff_ffff,
                _ => v,
            });
        }
        match r {
            Register::FS => Some(self.state.fs_base),
            Register::GS => Some(self.state.gs_base),
            _ => Some(0),
        }
    }

    /// Notes where a branch takes its target from, and what else it reads there.
    fn branch(&mut self, e: &Encoded, start: usize, used: &InstructionInfo, rng: &mut Rng) {
        let (i, end, c) = (&e.insn, self.code.len(), &e.constants);
        let size = u64::from(i.code().op_code().operand_size() / 8).clamp(2, 8);
        let at = start + c.immediate_offset();
        let selector = match (rng.below(8), self.bits) {
            (0, _) => u64::from(rng.pick(&[0, 3, DATA, DATA & !3, 0x7fff])),
            (_, Bits::B64) => CS64.into(),
            (_, Bits::B32) => CS32.into(),
        };
        match i.op0_kind() {
            OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64 => {
                self.branches.push((Target::Relative(at, c.immediate_size()), end));
                return;
            }
            OpKind::FarBranch16 | OpKind::FarBranch32 => {
                self.branches.push((Target::Absolute(at, c.immediate_size()), end));
                let to = start + c.immediate_offset2();
                self.code[to..to + 2].copy_from_slice(&(selector as u16).to_le_bytes());
                return;
            }
            OpKind::Register if i.op_count() > 0 => {
                if let Some(n) = gpr(i.op0_register()).filter(|n| self.fixed & 1 << n == 0) {
                    self.branches.push((Target::Gpr(n), end));
                    self.fixed |= 1 << n;
                    self.written |= 1 << n;
                }
                return;
            }
            _ => {}
        }
        let read = used.used_memory().iter().find(|m| m.access() == OpAccess::Read);
        let at = read.and_then(|m| m.virtual_address(0, |r, _, _| self.value(r)));
        let Some(at) = at else { return };
        self.branches.push((Target::Memory(at, size as usize), end));
        let word = |n: u64| at.wrapping_add(n * size);
        match i.mnemonic() {
            Mnemonic::Ret => {}
            Mnemonic::Iret | Mnemonic::Iretd | Mnemonic::Iretq => {
                let flags = 0x202 | rng.bits() & (FLAGS | DF);
                let stack = MEMORY + 0x800 + rng.below(0x1000);
                self.words.push((word(1), selector, 2));
                self.words.push((word(2), flags, size as usize));
                if self.bits == Bits::B64 {
                    self.words.push((word(3), stack, size as usize));
                    self.words.push((word(4), DATA.into(), 2));
                }
            }
            _ if i.is_jmp_near_indirect() || i.is_call_near_indirect() => {}
            _ => self.words.push((word(1), selector, 2)),
        }
    }

    /// Sets the branches' targets.
    fn aim_branches(&mut self, rng: &mut Rng) {
        for (target, end) in std::mem::take(&mut self.branches) {
            let later: Vec<usize> = self.ends.iter().copied().filter(|e| *e >= end).collect();
            let to = rng.pick(&later);
            // Nowhere, now and then.
            let stray = rng.one_in(16);
            let odd = rng.pick(&[MEMORY, MEMORY - 1, EXIT - 1, 0x10, CODE + 0x2000]);
            let there = if stray { odd } else { CODE + to as u64 };
            match target {
                Target::Relative(at, size) => {
                    let by = if size < 4 {
                        (to - end) as u64
                    } else {
                        there.wrapping_sub(CODE + end as u64)
                    };
                    self.code[at..at + size].copy_from_slice(&by.to_le_bytes()[..size]);
                }
                Target::Absolute(at, size) => {
                    self.code[at..at + size].copy_from_slice(&there.to_le_bytes()[..size]);
                }
                Target::Gpr(n) => self.state.gpr[n] = there,
                Target::Memory(at, size) => self.words.push((at, there, size)),
            }
        }
    }

    /// BT and so on with a register index reach far: mostly not that far.
    fn aim_bit_index(&mut self, i: &Instruction, rng: &mut Rng) {
        use Mnemonic::{Bt, Btc, Btr, Bts};
        let far = matches!(i.mnemonic(), Bt | Bts | Btr | Btc)
            && i.op0_kind() == OpKind::Memory
            && i.op1_kind() == OpKind::Register;
        if let (true, Some(n)) = (far, gpr(i.op1_register()))
            && self.fixed & 1 << n == 0
            && !rng.one_in(8)
        {
            let v = rng.below(512).wrapping_sub(256);
            self.state.gpr[n] = if self.bits == Bits::B32 { v & 0xffff_ffff } else { v };
            self.fixed |= 1 << n;
        }
    }

    /// Indices of a gather: mostly small, so that its elements are near its base.
    fn aim_vector_index(&mut self, r: Register, rng: &mut Rng) {
        if r.is_vector_register() && !rng.one_in(8) {
            let wide = rng.one_in(2);
            for word in &mut self.state.ymm[r.number() & 15] {
                let mut near = || rng.below(64).wrapping_sub(32);
                *word = if wide { near() } else { near() << 32 | near() & 0xffff_ffff };
            }
        }
    }

    /// Makes an operand without a base register lead to `target` by its displacement, if it has
    /// one that may be changed.
    fn patch(&mut self, e: &Encoded, start: usize, target: u64, now: u64) -> bool {
        let c = &e.constants;
        if !c.has_displacement() || !e.insn.memory_base().is_ip() && e.insn.op_count() == 0 {
            return false;
        }
        let (at, size) = (start + c.displacement_offset(), c.displacement_size());
        if size < 4 || at + size > self.code.len() {
            return false;
        }
        let field = &mut self.code[at..at + size];
        let mut old = [0; 8];
        old[..size].copy_from_slice(field);
        let new = u64::from_le_bytes(old).wrapping_add(target.wrapping_sub(now));
        field.copy_from_slice(&new.to_le_bytes()[..size]);
        true
    }

    fn finish(mut self, rng: &mut Rng) -> Sample {
        self.aim_branches(rng);
        let mut memory: Box<Memory> = Box::new([0; MEMORY_LEN]);
        // A random pattern is repeated: the bytes differ enough, and it costs less.
        let mut pattern = [0u8; 512];
        for word in pattern.chunks_exact_mut(8) {
            let v = match rng.below(4) {
                0 => rng.integer(),
                1 => rng.double(),
                2 => u64::from(rng.single()) | u64::from(rng.single()) << 32,
                _ => rng.bits(),
            };
            word.copy_from_slice(&v.to_le_bytes());
        }
        for chunk in memory.chunks_exact_mut(512) {
            chunk.copy_from_slice(&pattern);
        }
        for (at, value, size) in self.words {
            for (n, byte) in value.to_le_bytes()[..size].iter().enumerate() {
                let at = at.wrapping_add(n as u64).wrapping_sub(MEMORY);
                if let Some(to) = memory.get_mut(at as usize) {
                    *to = *byte;
                }
            }
        }
        for (at, bits) in self.clear {
            if let Some(byte) = memory.get_mut(at.wrapping_sub(MEMORY) as usize) {
                *byte &= !bits;
            }
        }
        Sample { code: self.code, bits: self.bits, state: self.state, memory }
    }
}

/// An address for an operand of `size` bytes.
fn target(size: u64, bits: Bits, rng: &mut Rng) -> u64 {
    let end = MEMORY + MEMORY_LEN as u64;
    let border = rng.pick(&[MEMORY, MEMORY + 4096, end, MEMORY + 4096]);
    let aligned = MEMORY + 512 + rng.below((MEMORY_LEN as u64 - 1536) / 16) * 16;
    match rng.below(40) {
        0 | 1 => border.wrapping_sub(1 + rng.below(size)),
        2 => border.wrapping_sub(size),
        3 => border,
        4 => CODE + rng.below(4000),
        5 => rng.bits() & 0xffff_ffff,
        6 if bits == Bits::B64 && rng.one_in(2) => rng.bits(),
        6 if bits == Bits::B64 => rng.pick(&[1 << 47, u64::MAX - 4096, 1 << 63]),
        7..=12 => aligned + rng.below(16),
        _ => aligned,
    }
}
