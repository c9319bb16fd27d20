//! Control and environment (SDM Vol. 1, 8.1.10, 8.3.11, 8.3.12, figures 8-9 to 8-12). These
//! instructions leave FIP, FDP and FOP alone.

use super::*;
use emu_core::cpu::Reg;

codes! {
    /// Instructions on the control and status words.
    Control: Init Clex Ldcw Stcw StswMem StswAx
}

/// Bits of the control word that hold what was written; bit 6 reads as 1, the others as 0.
const CW_BITS: u16 = 0x1f3f;

/// Checks for a pending exception: see [`CHECK`].
pub fn check(cpu: &mut Cpu, x: Args) -> Guest<()> {
    if x.k == 1 && cpu.sys.cr0 & (cr0::MP | cr0::TS) == cr0::MP | cr0::TS {
        return Err(Fault::NM);
    }
    check_pending(cpu)
}

/// Loads the control word.
pub(super) fn set_cw(x: &mut X87, cw: u16) {
    x.cw = cw & CW_BITS | 0x40;
    settle(x);
}

/// State after FNINIT; the registers keep their contents but are empty.
fn init(x: &mut X87) {
    *x = X87 { st: x.st, ..X87::default() };
}

/// The instructions of [`Control`].
pub fn control(cpu: &mut Cpu, x: Args) -> Guest<()> {
    let (form, at, sw) = (Form::unpack(x.imm), cpu.reg(x.a), status(&cpu.x87));
    match Control::from_code(x.k) {
        Control::Init => init(&mut cpu.x87),
        Control::Clex => {
            cpu.x87.sw &= !(sw::EXCEPTIONS | sw::SF | sw::ES_B);
        }
        Control::Ldcw => {
            check_pending(cpu)?;
            let cw = form.located(cpu.read(at, W16))?;
            set_cw(&mut cpu.x87, cw as u16);
        }
        Control::Stcw => form.located(cpu.write(at, W16, cpu.x87.cw.into()))?,
        Control::StswMem => form.located(cpu.write(at, W16, sw.into()))?,
        Control::StswAx => cpu.write_reg(Reg::RAX, W16, sw.into()),
    }
    Ok(())
}

/// `k` of [`image`]: which instruction, and the layout.
pub(crate) mod layout {
    /// Stores (FNSTENV, FNSAVE) rather than loads.
    pub const STORE: u8 = 1;
    /// With the registers (FNSAVE, FRSTOR).
    pub const REGISTERS: u8 = 2;
    /// Operand size 16: 14 bytes of environment, else 28.
    pub const SIZE16: u8 = 4;
    /// Real and virtual-8086 mode: linear addresses instead of selectors and offsets.
    pub const REAL: u8 = 8;
}

/// The tag word from the contents of the registers: valid, zero, special, empty.
fn tags(x: &X87) -> u16 {
    (0..8).rev().fold(0, |tw, i| {
        let St { mant, se } = x.st[i];
        let full = x.full >> i & 1 != 0;
        tw << 2 | if full { u16::from(F80 { mant, se }.tag()) } else { 3 }
    })
}

/// The registers that a tag word calls not empty.
fn full(tw: u16) -> u8 {
    (0..8).fold(0, |full, i| full | u8::from(tw >> (2 * i) & 3 != 3) << i)
}

/// The environment as seven words of the layout's operand size.
fn words(x: &X87, k: u8) -> [u32; 7] {
    let (fip, fdp) = (x.fip as u32, x.fdp as u32);
    let (fcs, fds, fop) = (u32::from(x.fcs), u32::from(x.fds), u32::from(x.fop));
    let state = [x.cw, status(x), tags(x)].map(|v| u32::from(v) | 0xffff_0000);
    // In real mode the pointers are linear addresses, their upper part from bit 12 on.
    let ip = fip.wrapping_add(fcs << 4);
    let dp = fdp.wrapping_add(fds << 4);
    let upper = |v: u32| v >> 16 << 12;
    let pointers = match k & (layout::REAL | layout::SIZE16) {
        0 => [fip, fcs | fop << 16, fdp, fds | 0xffff_0000],
        layout::SIZE16 => [fip, fcs, fdp, fds],
        _ => [ip & 0xffff, upper(ip) | fop, dp & 0xffff, upper(dp)],
    };
    let ([cw, sw, tw], [w3, w4, w5, w6]) = (state, pointers);
    [cw, sw, tw, w3, w4, w5, w6]
}

/// Takes [`words`] back.
fn set_words(x: &mut X87, [cw, sw, tw, w3, w4, w5, w6]: [u32; 7], k: u8) {
    x.full = full(tw as u16);
    x.sw = sw as u16;
    set_cw(x, cw as u16);
    let pointer = |low: u32, high: u32| u64::from(low & 0xffff | high >> 12 << 16);
    if k & layout::REAL != 0 {
        (x.fip, x.fcs, x.fdp, x.fds) = (pointer(w3, w4), 0, pointer(w5, w6), 0);
        x.fop = w4 as u16 & 0x7ff;
    } else {
        (x.fip, x.fcs, x.fdp, x.fds) = (w3.into(), w4 as u16, w5.into(), w6 as u16);
        x.fop = if k & layout::SIZE16 == 0 { (w4 >> 16) as u16 & 0x7ff } else { 0 };
    }
}

/// FLDENV, FNSTENV, FRSTOR, FNSAVE: `k` is a sum of [`layout`]'s bits.
pub fn image(cpu: &mut Cpu, x: Args) -> Guest<()> {
    let (form, at, k) = (Form::unpack(x.imm), cpu.reg(x.a), x.k);
    let size = if k & layout::SIZE16 != 0 { 2 } else { 4 };
    let len = 7 * size + if k & layout::REGISTERS != 0 { 80 } else { 0 };
    let mut buf = [0; 108];
    if k & layout::STORE != 0 {
        let (environment, registers) = buf.split_at_mut(7 * size);
        for (to, word) in environment.chunks_exact_mut(size).zip(words(&cpu.x87, k)) {
            to.copy_from_slice(&word.to_le_bytes()[..size]);
        }
        for (i, to) in (0..8).zip(registers.chunks_exact_mut(10)) {
            to.copy_from_slice(&raw(&cpu.x87, i).to_bytes());
        }
        form.located(cpu.write_array(at, &buf[..len]))?;
        if k & layout::REGISTERS != 0 {
            init(&mut cpu.x87);
        } else {
            cpu.x87.cw |= sw::EXCEPTIONS;
            settle(&mut cpu.x87);
        }
        return Ok(());
    }
    check_pending(cpu)?;
    cpu.check_alignment(at, size as u64)?;
    for (i, to) in buf[..len].chunks_mut(2).enumerate() {
        let v = cpu.read(cpu.wrap_linear(at.wrapping_add(2 * i as u64)), W16);
        to.copy_from_slice(&form.located(v)?.to_le_bytes()[..2]);
    }
    let (environment, registers) = buf.split_at(7 * size);
    let mut words = [0; 7];
    for (to, word) in words.iter_mut().zip(environment.chunks_exact(size)) {
        *to = word.iter().rev().fold(0, |v, b| v << 8 | u32::from(*b));
    }
    let fpu = &mut cpu.x87;
    set_words(fpu, words, k);
    if k & layout::REGISTERS != 0 {
        for (i, bytes) in (0..8).zip(registers.chunks_exact(10)) {
            let (p, mut ten) = (physical(fpu, i), [0; 10]);
            ten.copy_from_slice(bytes);
            let F80 { mant, se } = F80::from_bytes(ten);
            fpu.st[p] = St { mant, se };
        }
    }
    Ok(())
}
