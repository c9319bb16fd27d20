//! Builder of micro-op blocks: what a lifter sees. One method per op form; temporaries are handed
//! out per guest instruction.

use crate::cpu::Reg;
use crate::uop::{Block, HelperDef, InsnMark, Mem, Op, Src, Uop};
use crate::vec::VecOp;
use crate::width::Width;

/// Registers of the vector file: 0–15 are YMM0–15, 16–23 temporaries.
pub type VReg = Reg;

/// Builds one [`Block`].
#[derive(Debug, Default)]
pub struct Builder {
    block: Block,
    temps: u8,
    vtemps: u8,
}

impl Builder {
    /// An empty block.
    pub fn new() -> Builder {
        Builder::default()
    }

    /// Starts the guest instruction of `len` bytes at the end of what is covered so far.
    pub fn start_insn(&mut self, len: u8) {
        let offset = self.block.len as u16;
        let uop = self.block.uops.len() as u32;
        self.block.insns.push(InsnMark { uop, offset, len, restartable: false });
        self.block.len += u32::from(len);
        self.temps = 0;
        self.vtemps = 0;
    }

    /// Marks the current instruction as restartable (see [`InsnMark::restartable`]).
    pub fn restartable(&mut self) {
        if let Some(i) = self.block.insns.last_mut() {
            i.restartable = true;
        }
    }

    /// Micro-ops of the current instruction so far.
    pub fn insn_uops(&mut self) -> &mut [Uop] {
        let start = self.block.insns.last().map_or(0, |i| i.uop as usize);
        &mut self.block.uops[start..]
    }

    /// Takes back the current instruction: its micro-ops and its bytes.
    pub fn cancel_insn(&mut self) {
        if let Some(i) = self.block.insns.pop() {
            self.block.uops.truncate(i.uop as usize);
            self.block.len = u32::from(i.offset);
        }
    }

    /// Guest instructions so far.
    pub fn insn_count(&self) -> usize {
        self.block.insns.len()
    }

    /// Distance of the end of the current instruction from the block's start: what to add to the
    /// block's RIP to get the next instruction's.
    pub fn next_offset(&self) -> i64 {
        i64::from(self.block.len)
    }

    /// Distance of the current instruction from the block's start.
    pub fn insn_offset(&self) -> i64 {
        self.block.insns.last().map_or(0, |i| i64::from(i.offset))
    }

    /// A fresh temporary; there are eight per instruction.
    ///
    /// # Panics
    /// When an instruction asks for a ninth: a bug in its lifter.
    pub fn temp(&mut self) -> Reg {
        assert!(self.temps < 8, "a guest instruction needs more than 8 temporaries");
        self.temps += 1;
        Reg::temp(self.temps - 1)
    }

    /// A fresh vector temporary; there are eight per instruction.
    ///
    /// # Panics
    /// When an instruction asks for a ninth: a bug in its lifter.
    pub fn vtemp(&mut self) -> VReg {
        assert!(self.vtemps < 8, "a guest instruction needs more than 8 vector temporaries");
        self.vtemps += 1;
        Reg(16 + self.vtemps - 1)
    }

    /// Appends any micro-op.
    pub fn push(&mut self, u: Uop) {
        self.block.uops.push(u);
    }

    /// The micro-op appended last, to adjust a field.
    ///
    /// # Panics
    /// When there is none: a bug in a lifter.
    pub fn last(&mut self) -> &mut Uop {
        self.block.uops.last_mut().expect("no micro-op yet")
    }

    /// `op.w d, a, b`, writing all flags that the op can write.
    pub fn op(&mut self, op: Op, w: Width, d: Reg, a: Reg, b: impl Into<Src>) {
        self.push(Uop { d, a, b: b.into(), ..Uop::new(op, w) });
    }

    /// `op.w d, a, b`, writing no flags.
    pub fn op_nf(&mut self, op: Op, w: Width, d: Reg, a: Reg, b: impl Into<Src>) {
        self.push(Uop { d, a, b: b.into(), fl: 0, ..Uop::new(op, w) });
    }

    /// `op.w d, a, b, #k` (zx and sx: `b` is not used, `k` the source width).
    pub fn op_k(&mut self, op: Op, w: Width, d: Reg, a: Reg, b: impl Into<Src>, k: u8) {
        self.push(Uop { d, a, b: b.into(), k, ..Uop::new(op, w) });
    }

    /// `mov.w d, b`.
    pub fn mov(&mut self, w: Width, d: Reg, b: impl Into<Src>) {
        self.op(Op::Mov, w, d, d, b);
    }

    /// A load: `ld`, `ldz`, `ldw`, or `lea`.
    pub fn load(&mut self, op: Op, w: Width, d: Reg, mem: Mem) {
        self.push(Uop { d, mem, ..Uop::new(op, w) });
    }

    /// A store: `st`, `stw`.
    pub fn store(&mut self, op: Op, w: Width, mem: Mem, b: impl Into<Src>) {
        self.push(Uop { b: b.into(), mem, ..Uop::new(op, w) });
    }

    /// `vld.bytes d, [mem]`; raises #GP unless aligned if `aligned`.
    pub fn vload(&mut self, bytes: u8, aligned: bool, d: VReg, mem: Mem) {
        let k = bytes | u8::from(aligned) << 7;
        self.push(Uop { k, d, mem, ..Uop::new(Op::Vld, Width::W64) });
    }

    /// `vst.bytes [mem], a`; raises #GP unless aligned if `aligned`.
    pub fn vstore(&mut self, bytes: u8, aligned: bool, mem: Mem, a: VReg) {
        let k = bytes | u8::from(aligned) << 7;
        self.push(Uop { k, a, mem, ..Uop::new(Op::Vst, Width::W64) });
    }

    /// `v.vop.bytes d, a, b, c, imm`; see [`Op::V`].
    #[allow(clippy::too_many_arguments)] // the operands of the op
    pub fn v(&mut self, vop: VecOp, k: u8, d: VReg, a: VReg, b: VReg, c: VReg, imm: u8) {
        let imm = i64::from(imm);
        self.push(Uop { vop, k, d, a, b: b.into(), c, imm, ..Uop::new(Op::V, Width::W64) });
    }

    /// `vx.vop.w d, a, b, c, imm` writing the flags `fl`; see [`Op::Vx`].
    #[allow(clippy::too_many_arguments)] // the operands of the op
    pub fn vx(
        &mut self,
        vop: VecOp,
        w: Width,
        d: Reg,
        a: VReg,
        b: VReg,
        c: VReg,
        imm: u8,
        fl: u32,
    ) {
        let imm = i64::from(imm);
        self.push(Uop { vop, d, a, b: b.into(), c, imm, fl, ..Uop::new(Op::Vx, w) });
    }

    /// `vget.w d, a[lane]`: word `lane` of width `w`, zero-extended to 64 bits.
    pub fn vget(&mut self, w: Width, d: Reg, a: VReg, lane: u8) {
        self.push(Uop { d, a, imm: i64::from(lane), ..Uop::new(Op::Vget, w) });
    }

    /// `vset.w d, a[lane], b`; see [`Op::Vset`]. `zero`: all other bits become zero.
    pub fn vset(&mut self, w: Width, d: VReg, a: VReg, lane: u8, b: impl Into<Src>, zero: bool) {
        let (imm, k) = (i64::from(lane), u8::from(zero));
        self.push(Uop { d, a, b: b.into(), imm, k, ..Uop::new(Op::Vset, w) });
    }

    /// `mxcsr d`: MXCSR, zero-extended to 64 bits.
    pub fn mxcsr(&mut self, d: Reg) {
        self.push(Uop { d, ..Uop::new(Op::Mxcsr, Width::W64) });
    }

    /// `code.w d, off`: the `w` of guest RAM at offset `off`, zero-extended to 64 bits.
    pub fn code(&mut self, w: Width, d: Reg, off: u64) {
        self.push(Uop { d, imm: off as i64, ..Uop::new(Op::Code, w) });
    }

    /// `vzero imm k=n`: the words from `from` on of the first `n` vector registers become zero.
    pub fn vzero(&mut self, n: u8, from: u8) {
        let imm = from.into();
        self.push(Uop { k: n, imm, ..Uop::new(Op::Vzero, Width::W64) });
    }

    /// Calls a helper with `d`, `a`, `b`, `w` and `imm` as its arguments.
    #[allow(clippy::too_many_arguments)] // the operands of the op
    pub fn helper(
        &mut self,
        h: &'static HelperDef,
        w: Width,
        k: u8,
        d: Reg,
        a: Reg,
        b: Reg,
        imm: u64,
    ) {
        let helper = Some(h);
        let imm = imm as i64;
        self.push(Uop { helper, k, d, a, b: b.into(), imm, ..Uop::new(Op::Helper, w) });
    }

    /// Raises exception `vector`, with error code 0 if `error`. Ends the block.
    pub fn raise(&mut self, vector: u8, error: bool) {
        let (imm, k) = (i64::from(vector), u8::from(error));
        self.push(Uop { k, imm, ..Uop::new(Op::Raise, Width::W64) });
    }

    /// Jump to `delta` bytes from the block's start; RIP is cut to `w`. Ends the block.
    pub fn goto(&mut self, w: Width, delta: i64) {
        self.push(Uop { imm: delta, ..Uop::new(Op::Goto, w) });
    }

    /// Jump on condition `cc` to `taken`, else to `fall`; both from the block's start. Ends it.
    pub fn jcc(&mut self, w: Width, cc: u8, taken: i64, fall: i64) {
        let u = Uop { k: cc, imm: taken, fall: fall as i32, ..Uop::new(Op::Jcc, w) };
        self.push(u);
    }

    /// If `a` cut to `w` is not zero jump to `taken`, else to `fall`, both from the block's start;
    /// RIP is cut to `ip`. Ends the block.
    pub fn jrnz(&mut self, w: Width, ip: Width, a: Reg, taken: i64, fall: i64) {
        let (k, fall) = (ip as u8, fall as i32);
        self.push(Uop { a, k, imm: taken, fall, ..Uop::new(Op::Jrnz, w) });
    }

    /// Jump to the address in `a`, cut to `w`. Ends the block.
    pub fn jmpi(&mut self, w: Width, a: Reg) {
        self.push(Uop { a, ..Uop::new(Op::Jmpi, w) });
    }

    /// To the dispatcher, RIP as a helper left it. Ends the block.
    pub fn exit(&mut self) {
        self.push(Uop::new(Op::Exit, Width::W64));
    }

    /// To the dispatcher at the next instruction. Ends the block.
    pub fn leave(&mut self, w: Width) {
        let imm = self.next_offset();
        self.push(Uop { imm, ..Uop::new(Op::Leave, w) });
    }

    /// Whether the block has been ended.
    pub fn ended(&self) -> bool {
        self.block.uops.last().is_some_and(|u| u.op.row().effect == crate::uop::Effect::End)
    }

    /// The finished block.
    pub fn finish(self) -> Block {
        self.block
    }
}
