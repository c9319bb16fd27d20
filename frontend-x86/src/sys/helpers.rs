//! The functions of this folder as micro-op helpers: one table.
//!
//! Arguments: `a` and `b` are registers with operand values (selector, offset, linear address,
//! next RIP), `d` takes a result, `w` is the operand width, `imm` and `k` are constants. Helpers
//! that change RIP are followed by `exit`; those after which the mode, the flags of the system or
//! an interrupt window may be different by `leave`. A result is written last, so a helper that
//! fails has changed nothing.

use super::interrupt::Software;
use super::{control, cpuid, debug, interrupt, msr, segment, transfer, xsave};
use emu_core::cpu::{Cpu, Reg, Seg};
use emu_core::fault::{Fault, Guest, vector};
use emu_core::flags::{Flags, ZF, rflags};
use emu_core::uop::{Args, HelperDef, Quick};
use emu_core::width::Width::{W16, W32};

macro_rules! helpers {
    ($(
        $(#[doc = $doc:literal])+
        $name:ident $text:literal $([$quick:ident])? |$cpu:ident, $x:ident| $body:expr;
    )*) => {
        $(
            $(#[doc = $doc])+
            pub static $name: HelperDef = {
                fn call($cpu: &mut Cpu, $x: Args) -> Guest<()> {
                    $body
                }
                HelperDef::new($text, call)$(.quick(Quick::$quick))?
            };
        )*

        /// All helpers of this folder.
        pub static HELPERS: &[&HelperDef] = &[$(&$name),*];
    };
}

helpers! {
    // ---- control transfer: RIP is assigned, `exit` follows --------------------------------------
    /// Far JMP: `a` selector, `b` offset, `d` next RIP.
    FAR_JMP "far_jmp" |cpu, x| {
        transfer::far_jump(cpu, lo(cpu, x.a), x.w.zext(cpu.reg(x.b)), cpu.reg(x.d))
    };
    /// Far CALL: `a` selector, `b` offset, `d` next RIP.
    FAR_CALL "far_call" |cpu, x| {
        let offset = x.w.zext(cpu.reg(x.b));
        transfer::far_call(cpu, lo(cpu, x.a), offset, x.w, cpu.reg(x.d))
    };
    /// Far RET: `imm` bytes of parameters.
    FAR_RET "far_ret" |cpu, x| transfer::far_ret(cpu, x.w, x.imm as u16);
    /// IRET: `a` next RIP.
    IRET "iret" |cpu, x| interrupt::iret(cpu, x.w, cpu.reg(x.a));
    /// INT n, INT3, INTO, INT1: `imm` vector, `k` kind, `a` next RIP.
    INT "int" |cpu, x| {
        let (kind, next) = (Software::from_index(x.k), cpu.reg(x.a));
        if kind == Software::Into && !cpu.flags.of() {
            cpu.set_rip(next);
            return Ok(());
        }
        interrupt::software_interrupt(cpu, x.imm as u8, next, kind)
    };
    /// SYSCALL: `a` next RIP.
    SYSCALL "syscall" |cpu, x| transfer::syscall(cpu, cpu.reg(x.a));
    /// SYSRET.
    SYSRET "sysret" |cpu, x| transfer::sysret(cpu, x.w);
    /// SYSENTER.
    SYSENTER "sysenter" |cpu, _x| transfer::sysenter(cpu);
    /// SYSEXIT.
    SYSEXIT "sysexit" |cpu, x| transfer::sysexit(cpu, x.w);
    /// HLT: `a` next RIP.
    HLT "hlt" |cpu, x| control::hlt(cpu, cpu.reg(x.a));
    /// MWAIT: `a` next RIP.
    MWAIT "mwait" |cpu, x| control::mwait(cpu, cpu.reg(x.a));

    // ---- after these the mode may have changed: `leave` follows ----------------------------------
    /// MOV or POP to segment register `imm`: `a` selector.
    MOV_SEG "mov_seg" |cpu, x| segment::mov_to(cpu, seg(x.imm), lo(cpu, x.a));
    /// LDS, LES, LFS, LGS, LSS: segment register `imm`, `a` selector; no interrupt shadow.
    LOAD_SEG "load_seg" |cpu, x| segment::load(cpu, seg(x.imm), lo(cpu, x.a));
    /// MOV to control register `imm`: `a` value.
    MOV_TO_CR "mov_to_cr" |cpu, x| {
        let value = control::register_width(cpu).zext(cpu.reg(x.a));
        control::write_cr(cpu, x.imm as u8, value)
    };
    /// MOV to debug register `imm`: `a` value.
    MOV_TO_DR "mov_to_dr" |cpu, x| {
        let value = control::register_width(cpu).zext(cpu.reg(x.a));
        debug::write_dr(cpu, x.imm as u8, value)
    };
    /// CLTS.
    CLTS "clts" |cpu, _x| control::clts(cpu);
    /// LMSW: `a` value.
    LMSW "lmsw" |cpu, x| control::lmsw(cpu, cpu.reg(x.a));
    /// XSETBV: ECX, EDX:EAX.
    XSETBV "xsetbv" |cpu, _x| control::xsetbv(cpu, ecx(cpu), edx_eax(cpu));
    /// WRMSR: ECX, EDX:EAX.
    WRMSR "wrmsr" |cpu, _x| msr::write(cpu, ecx(cpu), edx_eax(cpu));
    /// POPF: `a` the popped value. RSP is assigned by the row afterwards.
    POPF "popf" |cpu, x| control::popf(cpu, x.w, cpu.reg(x.a));
    /// CLI.
    CLI "cli" [Cli] |cpu, _x| control::cli(cpu);
    /// STI; `imm` = 1: the next instruction is in the same block, and ends it.
    STI "sti" [Sti] |cpu, x| control::sti(cpu, x.imm == 0);
    /// STAC (`imm` = 1), CLAC (0).
    SET_AC "set_ac" |cpu, x| control::set_ac(cpu, x.imm != 0);
    /// INVLPG: `a` linear address.
    INVLPG "invlpg" |cpu, x| control::invlpg(cpu, cpu.reg(x.a));
    /// INVPCID: `a` type, `b` linear address of the descriptor.
    INVPCID "invpcid" |cpu, x| {
        let kind = control::register_width(cpu).zext(cpu.reg(x.a));
        control::invpcid(cpu, kind, cpu.reg(x.b))
    };
    /// LLDT: `a` selector.
    LLDT "lldt" |cpu, x| segment::lldt(cpu, lo(cpu, x.a));
    /// LTR: `a` selector.
    LTR "ltr" |cpu, x| segment::ltr(cpu, lo(cpu, x.a));
    /// LGDT (`imm` = 0), LIDT (1): `a` linear address.
    LOAD_TABLE "load_table" |cpu, x| {
        let t = segment::load_table(cpu, cpu.reg(x.a), x.w)?;
        if x.imm == 0 { cpu.sys.gdtr = t } else { cpu.sys.idtr = t }
        Ok(())
    };
    /// SWAPGS.
    SWAPGS "swapgs" [Swapgs] |cpu, _x| segment::swapgs(cpu);
    /// WRFSBASE, WRGSBASE: segment register `imm`, `a` value.
    WR_BASE "wr_base" [WriteBase] |cpu, x| {
        segment::need_fsgsbase(cpu)?;
        let base = super::need_canonical_base(cpu, x.w.zext(cpu.reg(x.a)))?;
        cpu.set_reg(seg(x.imm).base(), base);
        Ok(())
    };

    // ---- these only compute ------------------------------------------------------------------------
    /// MOV from control register `imm` to `d`.
    MOV_FROM_CR "mov_from_cr" [MovFromCr] |cpu, x| {
        let value = control::read_cr(cpu, x.imm as u8)?;
        let w = control::register_width(cpu);
        cpu.write_reg(x.d, w, value);
        Ok(())
    };
    /// MOV from debug register `imm` to `d`.
    MOV_FROM_DR "mov_from_dr" |cpu, x| {
        let value = debug::read_dr(cpu, x.imm as u8)?;
        let w = control::register_width(cpu);
        cpu.write_reg(x.d, w, value);
        Ok(())
    };
    /// SMSW: the value into `d`, zero-extended; the row stores it.
    SMSW "smsw" |cpu, x| {
        let value = control::smsw(cpu)?;
        cpu.set_reg(x.d, value);
        Ok(())
    };
    /// SLDT (`imm` = 0), STR (1): the selector into `d`, zero-extended; the row stores it.
    STORE_SYSTEM_SELECTOR "store_system_selector" |cpu, x| {
        segment::need_protected(cpu)?;
        segment::need_umip(cpu)?;
        let s = if x.imm == 0 { cpu.sys.ldtr } else { cpu.sys.tr };
        cpu.set_reg(x.d, s.selector.into());
        Ok(())
    };
    /// MOV from segment register `imm` to `d`, zero-extended; the row stores it.
    READ_SEG "read_seg" [ReadSeg] |cpu, x| {
        let selector = cpu.segs[seg(x.imm) as usize].selector;
        cpu.set_reg(x.d, selector.into());
        Ok(())
    };
    /// SGDT (`imm` = 0), SIDT (1): to linear address `a`.
    STORE_TABLE "store_table" |cpu, x| {
        let t = if x.imm == 0 { cpu.sys.gdtr } else { cpu.sys.idtr };
        segment::store_table(cpu, cpu.reg(x.a), t)
    };
    /// RDFSBASE, RDGSBASE: segment register `imm` to `d`.
    RD_BASE "rd_base" [ReadBase] |cpu, x| {
        segment::need_fsgsbase(cpu)?;
        let base = cpu.base(seg(x.imm));
        cpu.write_reg(x.d, x.w, base);
        Ok(())
    };
    /// LAR: `a` selector; ZF, and `d` if set.
    LAR "lar" |cpu, x| {
        let r = segment::lar(cpu, lo(cpu, x.a))?;
        answer(cpu, x, r)
    };
    /// LSL: `a` selector; ZF, and `d` if set.
    LSL "lsl" |cpu, x| {
        let r = segment::lsl(cpu, lo(cpu, x.a))?;
        answer(cpu, x, r)
    };
    /// VERR (`imm` = 0), VERW (1): `a` selector; ZF.
    VERIFY "verify" |cpu, x| {
        let ok = segment::verify(cpu, lo(cpu, x.a), x.imm != 0)?;
        set_zf(cpu, ok);
        Ok(())
    };
    /// ARPL: `a` destination selector, `b` source; the result into `d`, and ZF.
    ARPL "arpl" |cpu, x| {
        segment::need_protected(cpu)?;
        let (dst, src) = (lo(cpu, x.a), lo(cpu, x.b));
        let raise = dst & 3 < src & 3;
        let value = if raise { dst & !3 | src & 3 } else { dst };
        cpu.write_reg(x.d, W16, value.into());
        set_zf(cpu, raise);
        Ok(())
    };
    /// ARPL of a selector in memory: `a` offset in segment number `imm`, `b` source.
    ARPL_MEM "arpl_mem" |cpu, x| {
        segment::need_protected(cpu)?;
        let (s, off, src) = (seg(x.imm), cpu.reg(x.a), lo(cpu, x.b));
        let at = segment::linear(cpu, s, off, 2, false)?;
        let dst = cpu.read(at, W16)? as u16;
        let raise = dst & 3 < src & 3;
        if raise {
            let at = segment::linear(cpu, s, off, 2, true)?;
            cpu.write(at, W16, u64::from(dst & !3 | src & 3))?;
        }
        set_zf(cpu, raise);
        Ok(())
    };
    /// PUSHF: the value into `d`.
    PUSHF "pushf" [Pushf] |cpu, x| {
        let value = control::pushf(cpu, x.w)?;
        cpu.set_reg(x.d, value);
        Ok(())
    };
    /// RDMSR: ECX to EDX:EAX.
    RDMSR "rdmsr" |cpu, _x| {
        let value = msr::read(cpu, ecx(cpu))?;
        set_edx_eax(cpu, value);
        Ok(())
    };
    /// RDTSC.
    RDTSC "rdtsc" |cpu, _x| {
        let value = msr::rdtsc(cpu)?;
        set_edx_eax(cpu, value);
        Ok(())
    };
    /// RDTSCP.
    RDTSCP "rdtscp" |cpu, _x| {
        if !cpuid::Features::RDTSCP.in_cpu(cpu) {
            return Err(Fault::UD);
        }
        let value = msr::rdtsc(cpu)?;
        set_edx_eax(cpu, value);
        cpu.write_reg(Reg::RCX, W32, cpu.sys.tsc_aux);
        Ok(())
    };
    /// RDPID: to `d`.
    RDPID "rdpid" |cpu, x| {
        cpu.set_reg(x.d, cpu.sys.tsc_aux);
        Ok(())
    };
    /// MONITOR: `a` linear address.
    MONITOR "monitor" |cpu, x| control::monitor(cpu, cpu.reg(x.a));
    /// RDPMC.
    RDPMC "rdpmc" |cpu, _x| {
        let value = msr::rdpmc()?;
        set_edx_eax(cpu, value);
        Ok(())
    };
    /// XGETBV: ECX to EDX:EAX.
    XGETBV "xgetbv" |cpu, _x| {
        let value = control::xgetbv(cpu, ecx(cpu))?;
        set_edx_eax(cpu, value);
        Ok(())
    };
    /// RDPKRU.
    RDPKRU "rdpkru" |cpu, _x| {
        let value = control::rdpkru(cpu, ecx(cpu))?;
        set_edx_eax(cpu, value.into());
        Ok(())
    };
    /// WRPKRU.
    WRPKRU "wrpkru" |cpu, _x| control::wrpkru(cpu, ecx(cpu), edx_eax(cpu));
    /// CPUID.
    CPUID "cpuid" |cpu, _x| {
        let r = cpuid::cpuid(cpu, cpu.reg(Reg::RAX) as u32, ecx(cpu));
        for (reg, v) in [Reg::RAX, Reg::RBX, Reg::RCX, Reg::RDX].into_iter().zip(r) {
            cpu.set_reg(reg, v.into());
        }
        Ok(())
    };
    /// CLD (`imm` = 0), STD (1).
    SET_DF "set_df" [SetDf] |cpu, x| {
        cpu.sysflags = cpu.sysflags & !rflags::DF | if x.imm != 0 { rflags::DF } else { 0 };
        Ok(())
    };
    /// BOUND: `a` signed index, `d` and `b` bounds.
    BOUND "bound" |cpu, x| {
        let value = |r| x.w.sext(cpu.reg(r)) as i64;
        let inside = (value(x.d)..=value(x.b)).contains(&value(x.a));
        if inside { Ok(()) } else { Err(Fault::new(vector::BR)) }
    };
    /// Checks access to port `a`, as INS and OUTS need it before they run.
    CHECK_PORT "check_port" |cpu, x| control::check_io(cpu, lo(cpu, x.a), x.w);
    /// IN: `a` port, `d` destination.
    IN "in" |cpu, x| {
        let port = lo(cpu, x.a);
        control::check_io(cpu, port, x.w)?;
        let value = cpu.port_in(port, x.w);
        cpu.write_reg(x.d, x.w, value.into());
        Ok(())
    };
    /// OUT: `a` port, `b` value.
    OUT "out" |cpu, x| {
        let port = lo(cpu, x.a);
        control::check_io(cpu, port, x.w)?;
        cpu.port_out(port, x.w, cpu.reg(x.b) as u32);
        Ok(())
    };
    /// FXSAVE: `a` linear address; 64-bit form for `w` = 64.
    FXSAVE "fxsave" |cpu, x| located(xsave::fxsave(cpu, cpu.reg(x.a), wide(x)), cpu, x);
    /// FXRSTOR: `a` linear address; 64-bit form for `w` = 64.
    FXRSTOR "fxrstor" |cpu, x| located(xsave::fxrstor(cpu, cpu.reg(x.a), wide(x)), cpu, x);
    /// XSAVE, XSAVEOPT: `a` linear address, EDX:EAX mask; 64-bit form for `w` = 64.
    XSAVE "xsave" |cpu, x| {
        located(xsave::xsave(cpu, cpu.reg(x.a), edx_eax(cpu), wide(x), false), cpu, x)
    };
    /// XSAVEC: the same.
    XSAVEC "xsavec" |cpu, x| {
        located(xsave::xsave(cpu, cpu.reg(x.a), edx_eax(cpu), wide(x), true), cpu, x)
    };
    /// XRSTOR: `a` linear address, EDX:EAX mask; 64-bit form for `w` = 64.
    XRSTOR "xrstor" |cpu, x| located(xsave::xrstor(cpu, cpu.reg(x.a), edx_eax(cpu), wide(x)), cpu, x);
    /// LDMXCSR: `a` value.
    LDMXCSR "ldmxcsr" |cpu, x| xsave::ldmxcsr(cpu, cpu.reg(x.a) as u32);
}

/// A non-canonical address `a` in the stack segment (`k` = 1) is #SS, not #GP.
fn located(r: Guest<()>, cpu: &Cpu, x: Args) -> Guest<()> {
    let stack = x.k != 0 && !cpu.canonical(cpu.reg(x.a));
    r.map_err(|f| if f == Fault::GP0 && stack { Fault::SS0 } else { f })
}

/// Low 16 bits of a register: a selector or port.
fn lo(cpu: &Cpu, r: Reg) -> u16 {
    cpu.reg(r) as u16
}

/// Segment register number `n`; 6 and 7 do not exist and decode to nothing.
fn seg(n: u64) -> Seg {
    Seg::ALL[(n as usize).min(5)]
}

fn ecx(cpu: &Cpu) -> u32 {
    cpu.reg(Reg::RCX) as u32
}

fn edx_eax(cpu: &Cpu) -> u64 {
    cpu.reg(Reg::RDX) << 32 | W32.zext(cpu.reg(Reg::RAX))
}

fn set_edx_eax(cpu: &mut Cpu, v: u64) {
    cpu.set_reg(Reg::RAX, W32.zext(v));
    cpu.set_reg(Reg::RDX, v >> 32);
}

/// Whether a save area has 64-bit pointers.
fn wide(x: Args) -> bool {
    x.w == emu_core::width::Width::W64
}

fn set_zf(cpu: &mut Cpu, on: bool) {
    cpu.flags = cpu.flags.update(Flags::from_bits(if on { ZF } else { 0 }), ZF);
}

/// ZF and result of LAR and LSL.
fn answer(cpu: &mut Cpu, x: Args, r: Option<u32>) -> Guest<()> {
    set_zf(cpu, r.is_some());
    if let Some(v) = r {
        cpu.write_reg(x.d, x.w, v.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, Level};
    use super::*;
    use emu_core::cpu::mode as m;
    use std::collections::HashSet;

    fn args() -> Args {
        let z = Reg::ZERO;
        Args { w: W32, k: 0, d: z, a: z, b: z, imm: 0 }
    }

    #[test]
    fn names_are_unique() {
        let names: HashSet<_> = HELPERS.iter().map(|h| h.name).collect();
        assert_eq!(names.len(), HELPERS.len());
    }

    #[test]
    fn results_of_arpl_lar_and_cpuid() {
        let mut c = testing::cpu(Level::Protected);
        (c.regs[16], c.regs[17]) = (0x1_0010, 0x23);
        let x = Args { d: Reg::T0, a: Reg::T0, b: Reg::T1, ..args() };
        (ARPL.call)(&mut c, x).unwrap();
        assert_eq!((c.regs[16], c.flags.zf()), (0x1_0013, true));
        (ARPL.call)(&mut c, x).unwrap();
        assert_eq!((c.regs[16], c.flags.zf()), (0x1_0013, false));
        c.regs[16] = 8;
        (LAR.call)(&mut c, Args { a: Reg::T0, d: Reg::T1, ..args() }).unwrap();
        assert_eq!((c.regs[17], c.flags.zf()), (0xc0_9b00, true));
        c.regs[0] = 0xffff_ffff_8000_0000;
        (CPUID.call)(&mut c, args()).unwrap();
        assert_eq!((c.regs[0], c.regs[2]), (0x8000_0008, 0));
    }

    #[test]
    fn ports_need_permission() {
        let mut c = testing::cpu(Level::Protected);
        c.regs[16] = 0x1_0070;
        let x = Args { a: Reg::T0, d: Reg::RAX, ..args() };
        (IN.call)(&mut c, x).unwrap();
        assert_eq!(c.regs[0], 0x70);
        c.regs[0] = 5;
        testing::to_user(&mut c, testing::CODE3, testing::STACK);
        assert!((IN.call)(&mut c, x).is_err() && c.regs[0] == 5);
        assert!(c.mode & m::USER != 0);
    }
}
