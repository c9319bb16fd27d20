//! The six arithmetic flags, kept lazily: CF, PF, AF, ZF, SF, OF.
//!
//! An ALU operation leaves its sign-extended result and one word of carries; each flag is derived
//! when somebody asks (the carry-out form is known from Bochs). The representation is canonical
//! for the whole program: an operation's `eval` yields it, the interpreter stores it as it is.
//!
//! | part | holds |
//! |---|---|
//! | `res` | the result, sign-extended from the operand width: ZF = (res = 0), SF = bit 63 ^ `aux[16]`, PF from its low byte ^ `aux[15:8]` |
//! | `aux[63]` | CF |
//! | `aux[62]` | CF ^ OF |
//! | `aux[3]` | AF |
//! | `aux[16]`, `aux[15:8]` | corrections that let POPF and SAHF set combinations no result has (ZF with SF) |

use crate::width::Width;

/// CF, bit 0 of RFLAGS.
pub const CF: u32 = 1 << 0;
/// PF, bit 2 of RFLAGS.
pub const PF: u32 = 1 << 2;
/// AF, bit 4 of RFLAGS.
pub const AF: u32 = 1 << 4;
/// ZF, bit 6 of RFLAGS.
pub const ZF: u32 = 1 << 6;
/// SF, bit 7 of RFLAGS.
pub const SF: u32 = 1 << 7;
/// OF, bit 11 of RFLAGS.
pub const OF: u32 = 1 << 11;
/// All six arithmetic flags.
pub const OSZAPC: u32 = CF | PF | AF | ZF | SF | OF;

/// System and control bits of RFLAGS (SDM Vol. 1, 3.4.3).
pub mod rflags {
    /// Trap flag.
    pub const TF: u64 = 1 << 8;
    /// Interrupt enable flag.
    pub const IF: u64 = 1 << 9;
    /// Direction flag.
    pub const DF: u64 = 1 << 10;
    /// I/O privilege level, two bits.
    pub const IOPL: u64 = 3 << 12;
    /// Nested task.
    pub const NT: u64 = 1 << 14;
    /// Resume flag.
    pub const RF: u64 = 1 << 16;
    /// Virtual-8086 mode.
    pub const VM: u64 = 1 << 17;
    /// Alignment check / access control.
    pub const AC: u64 = 1 << 18;
    /// Virtual interrupt flag.
    pub const VIF: u64 = 1 << 19;
    /// Virtual interrupt pending.
    pub const VIP: u64 = 1 << 20;
    /// CPUID available.
    pub const ID: u64 = 1 << 21;
    /// The bit that always reads as one.
    pub const ONE: u64 = 1 << 1;
}

/// Lazy arithmetic flags; see the module's head for the layout.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Flags {
    /// Sign-extended result.
    pub res: u64,
    /// Carries and corrections.
    pub aux: u64,
}

/// Flags compare by meaning, not by representation.
impl PartialEq for Flags {
    fn eq(&self, other: &Flags) -> bool {
        self.bits() == other.bits()
    }
}
impl Eq for Flags {}

/// Bits of `aux` that CF and OF depend on.
const CO: u64 = 3 << 62;
const AUX_AF: u64 = 1 << 3;

impl Flags {
    /// Flags of a result with the carry chain `cout` of an addition or subtraction of width `w`:
    /// bit i of `cout` is the carry (borrow) out of bit i.
    #[inline(always)]
    pub const fn arith(w: Width, res: u64, cout: u64) -> Flags {
        Flags { res: w.sext(res), aux: ((cout << (64 - w.bits())) & CO) | (cout & AUX_AF) }
    }

    /// Flags of a logical result: CF = OF = 0; AF, undefined in the manual, is 0 as on the CPUs.
    #[inline(always)]
    pub const fn logic(w: Width, res: u64) -> Flags {
        Flags { res: w.sext(res), aux: 0 }
    }

    /// Flags of a result with CF and OF given; AF = 0.
    #[inline(always)]
    pub const fn with_co(w: Width, res: u64, cf: bool, of: bool) -> Flags {
        Flags { res: w.sext(res), aux: (cf as u64) << 63 | ((cf ^ of) as u64) << 62 }
    }

    /// Carry flag.
    #[inline(always)]
    pub const fn cf(self) -> bool {
        self.aux >> 63 != 0
    }
    /// Parity flag.
    #[inline(always)]
    pub const fn pf(self) -> bool {
        ((self.res as u8) ^ ((self.aux >> 8) as u8)).count_ones() & 1 == 0
    }
    /// Auxiliary carry flag.
    #[inline(always)]
    pub const fn af(self) -> bool {
        self.aux & AUX_AF != 0
    }
    /// Zero flag.
    #[inline(always)]
    pub const fn zf(self) -> bool {
        self.res == 0
    }
    /// Sign flag.
    #[inline(always)]
    pub const fn sf(self) -> bool {
        (self.res >> 63) ^ (self.aux >> 16 & 1) != 0
    }
    /// Overflow flag.
    #[inline(always)]
    pub const fn of(self) -> bool {
        (self.aux ^ (self.aux << 1)) >> 63 != 0
    }

    /// The flags as RFLAGS bits (only the six of [`OSZAPC`]).
    pub const fn bits(self) -> u32 {
        const fn bit(on: bool, flag: u32) -> u32 {
            if on { flag } else { 0 }
        }
        bit(self.cf(), CF)
            | bit(self.pf(), PF)
            | bit(self.af(), AF)
            | bit(self.zf(), ZF)
            | bit(self.sf(), SF)
            | bit(self.of(), OF)
    }

    /// Flags from RFLAGS bits; bits outside [`OSZAPC`] are ignored.
    pub const fn from_bits(bits: u32) -> Flags {
        let zf = bits & ZF != 0;
        let cf = bits & CF != 0;
        let of = bits & OF != 0;
        let res = !zf as u64;
        // A low byte of 0 has even parity (PF = 1), of 1 odd: correct where PF differs.
        let pf_natural = zf;
        let pdb = (pf_natural != (bits & PF != 0)) as u64;
        let aux = (cf as u64) << 63
            | ((cf ^ of) as u64) << 62
            | ((bits & SF != 0) as u64) << 16
            | pdb << 8
            | if bits & AF != 0 { AUX_AF } else { 0 };
        Flags { res, aux }
    }

    /// `new` in the flags of `mask` (RFLAGS bits), `self` in the others.
    #[inline]
    pub const fn update(self, new: Flags, mask: u32) -> Flags {
        match mask & OSZAPC {
            0 => self,
            OSZAPC => new,
            // INC, DEC: everything but CF.
            m if m == OSZAPC & !CF => {
                let flip = ((self.aux ^ new.aux) >> 63) * CO;
                Flags { res: new.res, aux: new.aux ^ flip }
            }
            // BT and its kin, STC, CLC: CF alone; OF must keep its value.
            CF => {
                let flip = ((self.aux ^ new.aux) >> 63) * CO;
                Flags { res: self.res, aux: self.aux ^ flip }
            }
            m => Flags::from_bits((self.bits() & !m) | (new.bits() & m)),
        }
    }

    /// Condition `cc`: the low four bits of `Jcc`, `SETcc` and `CMOVcc` opcodes (SDM Vol. 1, app.
    /// B).
    #[inline(always)]
    pub const fn cond(self, cc: u8) -> bool {
        let base = match (cc >> 1) & 7 {
            0 => self.of(),
            1 => self.cf(),
            2 => self.zf(),
            3 => self.cf() || self.zf(),
            4 => self.sf(),
            5 => self.pf(),
            6 => self.sf() != self.of(),
            _ => self.zf() || self.sf() != self.of(),
        };
        base != (cc & 1 != 0)
    }

    /// The flags that condition `cc` reads.
    pub const fn read_by_cond(cc: u8) -> u32 {
        match (cc >> 1) & 7 {
            0 => OF,
            1 => CF,
            2 => ZF,
            3 => CF | ZF,
            4 => SF,
            5 => PF,
            6 => SF | OF,
            _ => ZF | SF | OF,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every one of the 64 combinations survives the way through the lazy form.
    #[test]
    fn all_combinations_round_trip() {
        for n in 0..64u32 {
            let b = (n & 1) * CF
                | (n >> 1 & 1) * PF
                | (n >> 2 & 1) * AF
                | (n >> 3 & 1) * ZF
                | (n >> 4 & 1) * SF
                | (n >> 5 & 1) * OF;
            assert_eq!(Flags::from_bits(b).bits(), b);
            for m in 0..64u32 {
                let m = (m & 1) * CF
                    | (m >> 1 & 1) * PF
                    | (m >> 2 & 1) * AF
                    | (m >> 3 & 1) * ZF
                    | (m >> 4 & 1) * SF
                    | (m >> 5 & 1) * OF;
                let new = Flags::from_bits(b ^ OSZAPC & 0x8d5);
                let old = Flags::from_bits(b);
                assert_eq!(old.update(new, m).bits(), (old.bits() & !m) | (new.bits() & m));
            }
        }
    }

    /// 8-bit additions and subtractions against a direct computation of each flag.
    #[test]
    fn carry_chain_gives_the_manuals_flags() {
        for a in 0..256u64 {
            for b in 0..256u64 {
                let r = (a + b) & 0xff;
                let f = Flags::arith(Width::W8, r, (a & b) | ((a | b) & !r));
                assert_eq!(f.cf(), a + b > 255);
                assert_eq!(f.of(), i16::from(a as i8) + i16::from(b as i8) != i16::from(r as i8));
                assert_eq!(f.af(), (a & 15) + (b & 15) > 15);
                assert_eq!((f.zf(), f.sf()), (r == 0, r > 127));
                let r = a.wrapping_sub(b) & 0xff;
                let f = Flags::arith(Width::W8, r, (!a & b) | (!(a ^ b) & r));
                assert_eq!(f.cf(), a < b);
                assert_eq!(f.of(), i16::from(a as i8) - i16::from(b as i8) != i16::from(r as i8));
                assert_eq!(f.af(), (a & 15) < (b & 15));
            }
        }
    }
}
