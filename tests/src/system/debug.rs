//! Debug registers, single-step, alignment checks (SDM Vol. 3, chapter 17 and 6.15).

use super::asm::{Asm, Emit};
use super::layout::*;
use super::rows;
use iced_x86::code_asm::*;

/// DR6 without what is always one.
fn show_dr6(s: &mut Asm) -> Emit {
    s.mov(eax, dr6)?;
    s.and(eax, 0xe00f)?;
    s.show(eax)
}

/// DR0 and DR7: changes EAX.
fn breakpoint(s: &mut Asm, at: u32, control: u32) -> Emit {
    s.mov(eax, at)?;
    s.mov(dr0, eax)?;
    s.mov(eax, control | 0x400)?;
    s.mov(dr7, eax)
}

/// TF from the second instruction after this.
fn trace(s: &mut Asm) -> Emit {
    s.push(0x102)?;
    s.popfd()
}

rows! {
    "an instruction breakpoint is a fault; RF stays", Protected, "#DB 1 2 0",
    "SDM Vol. 3, 17.3.1.1", |s| {
        with(|s| { let at = s.addr("x"); breakpoint(s, at, 1) }); push(2); popfd();
        guard(); here("x"); nop(); caught(); with(show_dr6); show_at(AT_FLAGS);
        mov(eax, dword_ptr(AT_IP)); show_from("x");
    }
    "RF lets one instruction pass", Protected, "ok", "SDM Vol. 3, 17.3.1.1", |s| {
        with(|s| { let at = s.addr("x"); breakpoint(s, at, 1) });
        guard(); push(0x1_0002); push(CODE32 as i32); push(s.addr("x") as i32); iretd();
        here("x"); nop(); caught();
    }
    "a write breakpoint is a trap", Protected, "ok #DB 1 0", "SDM Vol. 3, 17.3.1.2", |s| {
        with(|s| breakpoint(s, PAGE, 0xd_0001)); guard(); mov(eax, dword_ptr(PAGE)); caught();
        guard(); mov(dword_ptr(PAGE), eax); here("next"); nop(); caught(); with(show_dr6);
        mov(eax, dword_ptr(AT_IP)); show_from("next");
    }
    "a read or write breakpoint", Protected, "#DB ok", "SDM Vol. 3, 17.2.4", |s| {
        with(|s| breakpoint(s, PAGE, 0x3_0001));
        guard(); mov(al, byte_ptr(PAGE)); nop(); caught();
        guard(); mov(al, byte_ptr(PAGE + 1)); nop(); caught();
    }
    "a breakpoint that is off", Protected, "ok", "SDM Vol. 3, 17.2.4", |s| {
        with(|s| breakpoint(s, PAGE, 0xd_0000)); guard(); mov(dword_ptr(PAGE), eax); nop();
        caught();
    }
    "single-step", Protected, "#DB 4000 1", "SDM Vol. 3, 17.3.1.4", |s| {
        guard(); with(trace); here("x"); nop(); nop(); caught(); with(show_dr6);
        mov(eax, dword_ptr(AT_IP)); show_from("x");
    }
    "MOV SS puts a trap off", Protected, "#DB 3", "SDM Vol. 3, 6.8.3", |s| {
        mov(ebx, ss); guard(); with(trace); here("x"); mov(ss, ebx); nop(); nop(); caught();
        mov(eax, dword_ptr(AT_IP)); show_from("x");
    }
    "general detect", Protected, "#DB 2000 400", "SDM Vol. 3, 17.3.1.3", |s| {
        mov(eax, 0x2400); mov(dr7, eax); guard(); mov(eax, dr0); caught(); with(show_dr6);
        mov(eax, dr7); show(eax);
    }
    "INT1 leaves DR6", Protected, "#DB 0", "SDM Vol. 3, 17.3.1", |s| {
        guard(); db(&[0xf1]); caught(); with(show_dr6);
    }
    "a repeated string after a trap", Protected, "#DB 0", "SDM Vol. 3, 17.3.1", |s| {
        guard(); db(&[0xf1]); caught();
        mov(edi, PAGE); mov(ecx, 16); repeat(); stosb(); show(ecx);
    }
    "an I/O breakpoint", Protected, "#DB 1", "SDM Vol. 3, 17.3.1.2", |s| {
        set_cr4(8); with(|s| breakpoint(s, 0x61, 0x2_0001)); guard(); in_(al, 0x61); nop();
        caught();
        with(show_dr6);
    }
    "alignment", Protected, "#AC(0) ok ok", "SDM Vol. 3, 6.15 (#AC)", |s| {
        set_cr0(1 << 18); ring3(); push(0x4_0002); popfd();
        guard(); mov(eax, dword_ptr(PAGE + 1)); caught(); guard(); mov(eax, dword_ptr(PAGE + 4));
        caught();
        push(2); popfd(); guard(); mov(eax, dword_ptr(PAGE + 1)); caught();
    }
    "alignment at CPL 0", Protected, "ok", "SDM Vol. 3, 6.15 (#AC)", |s| {
        set_cr0(1 << 18); push(0x4_0002); popfd(); guard(); mov(eax, dword_ptr(PAGE + 1)); caught();
    }
}
