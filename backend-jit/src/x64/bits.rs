//! Emitters of the bit counts and of BMI's bit fields, by the host's own instructions. These leave
//! some flags undefined that ours define: what is wanted of them is put together in memory.

use super::Compiler;
use super::alu::rm;
use super::asm::{RAX, RCX, RDX, Rm};
use emu_core::flags::{CF, OF, ZF};
use emu_core::uop::{Op, Uop};
use emu_core::width::Width::{W8, W16, W32, W64};

impl Compiler<'_> {
    /// Emits `u`, one of these; `false` if the host cannot.
    pub(super) fn bits(&mut self, u: &Uop) -> bool {
        let host = self.host_has;
        match u.op {
            Op::Tzcnt if u.w != W8 && host.bmi1 => self.count_bits(u, 0xbc),
            Op::Lzcnt if u.w != W8 && host.lzcnt => self.count_bits(u, 0xbd),
            Op::Blsr | Op::Blsmsk | Op::Blsi if u.w >= W32 && host.bmi1 => self.low_bit(u),
            Op::Bzhi if u.w >= W32 && host.bmi2 => self.low_bit(u),
            _ => false,
        }
    }

    /// TZCNT and LZCNT: CF and ZF; OF stays, and the others are zero.
    fn count_bits(&mut self, u: &Uop, opcode: u8) -> bool {
        let need = u.fl & self.live;
        if need != 0 && self.live & !u.fl & !OF != 0 {
            return false;
        }
        let natural = need & !(CF | ZF) == 0 && self.live & OF == 0;
        if need == 0 {
            self.clobber();
        } else if self.live & OF != 0 {
            self.save();
        }
        self.a.op0f_p(u.w, 0xf3, opcode, RCX, rm(u.a));
        if need != 0 && natural {
            (self.host, self.memory, self.af_zero) = (true, false, false);
        } else if need != 0 {
            // lahf; and ah, CF | ZF; or ah, 2; mov [flags + 1], ah
            self.a.bytes(&[0x9f, 0x80, 0xe4, 0x41, 0x80, 0xcc, 0x02]);
            let Rm::M(base, at) = self.flags_word() else { return false };
            self.a.byte(0x88);
            self.a.byte(0x80 | 4 << 3 | base);
            self.a.dword(at + 1);
            (self.host, self.memory) = (false, true);
        }
        self.put(u.d, u.w, RCX);
        true
    }

    /// BLSR, BLSMSK, BLSI and BZHI: flags of the result, but for CF.
    fn low_bit(&mut self, u: &Uop) -> bool {
        let need = u.fl & self.live;
        if need != 0 && self.live & !u.fl != 0 {
            return false;
        }
        if need == 0 {
            self.clobber();
        }
        let w = u.w;
        let field = match u.op {
            Op::Blsr => Some(1),
            Op::Blsmsk => Some(2),
            Op::Blsi => Some(3),
            _ => None,
        };
        let a = self.get(u.a, W64, if field.is_some() { RDX } else { RCX });
        if let Some(n) = field {
            self.a.vex38(w, 0, 0xf3, n, RCX, a);
        } else {
            self.value(RDX, W64, u.b);
            self.a.vex38(w, 0, 0xf5, RCX, RDX, a);
        }
        if need != 0 {
            self.a.op(w, 0x85, RCX, Rm::R(RCX));
            self.a.byte(0x9f);
            // CF where the source is zero, or the index is within the operand.
            match field {
                Some(_) => self.a.alu_imm(w, 7, Rm::R(a), 1),
                None => self.a.alu_imm(W8, 7, Rm::R(RDX), w.bits().into()),
            }
            if matches!(u.op, Op::Blsi | Op::Bzhi) {
                self.a.byte(0xf5);
            }
            // adc ah, 0; mov al, 0
            self.a.bytes(&[0x80, 0xd4, 0x00, 0xb0, 0x00]);
            self.a.store(W16, self.flags_word(), RAX);
            (self.host, self.memory) = (false, true);
        }
        self.put(u.d, w, RCX);
        true
    }
}
