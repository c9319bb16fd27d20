//! String instructions that stop half-way (SDM Vol. 2, REP), and code that writes code (SDM Vol. 3,
//! 8.1.3, 11.6).

use super::asm::{Asm, Emit};
use super::layout::*;
use super::rows;
use iced_x86::code_asm::*;

/// RSI and RDI 8 bytes below the ends of two pages, 16 bytes to go; the page behind `absent` is
/// not there.
fn two_ends(s: &mut Asm, absent: u32) -> Emit {
    s.pte(absent, 0)?;
    s.cld()?;
    s.mov(esi, PAGE + 0xff8)?;
    s.mov(edi, PAGE + 0x2ff8)?;
    s.mov(ecx, 16)
}

fn show_three(s: &mut Asm) -> Emit {
    s.show(ecx)?;
    s.show(esi)?;
    s.show(edi)
}

rows! {
    "REP MOVSB to a page that is not there", Long, "#PF(2)@33000 8 31000 33000 0",
    "SDM Vol. 2, REP", |s| {
        with(|s| two_ends(s, PAGE + 0x3000)); guard(); here("rep"); repeat(); movsb(); caught();
        with(show_three); mov(rax, qword_ptr(AT_IP)); show_from("rep");
    }
    "REP MOVSB from a page that is not there", Long, "#PF(0)@31000 8 31000 33000",
    "SDM Vol. 2, REP", |s| {
        with(|s| two_ends(s, PAGE + 0x1000)); guard(); repeat(); movsb(); caught();
        with(show_three);
    }
    "REP MOVSB goes on", Long, "#PF(2)@33000 0 31008 33008 58", "SDM Vol. 2, REP", |s| {
        mov(byte_ptr(PAGE + 0x1007), 0x58); with(|s| two_ends(s, PAGE + 0x3000));
        guard(); repeat(); movsb(); caught(); pte(PAGE + 0x3000, u64::from(PAGE + 0x3003));
        repeat(); movsb();
        with(show_three); movzx(eax, byte_ptr(PAGE + 0x3007)); show(eax);
    }
    "REP MOVSQ that straddles", Long, "#PF(2)@33000 f 31000 32ffc", "SDM Vol. 2, REP", |s| {
        with(|s| two_ends(s, PAGE + 0x3000)); sub(edi, 4); guard(); repeat(); movsq(); caught();
        show(ecx); show(esi); show(edi);
    }
    "REP STOSD, 32-bit", Legacy, "#PF(2)@33000 e 33000", "SDM Vol. 2, REP", |s| {
        with(|s| two_ends(s, PAGE + 0x3000)); guard(); repeat(); stosd(); caught(); show(ecx);
        show(edi);
    }
    "downwards", Long, "#PF(2)@2fff8 e 2fff8", "SDM Vol. 2, REP", |s| {
        pte(PAGE - 0x1000, 0); std(); mov(edi, PAGE + 8); mov(ecx, 16); guard(); repeat(); stosq();
        caught();
        show(ecx); show(rdi);
    }
    "REPE CMPSB: flags before the fault", Long, "#PF(0)@33000 8 31000 33000 44",
    "SDM Vol. 2, REP", |s| {
        with(|s| two_ends(s, PAGE + 0x3000)); xor(eax, eax); guard(); repeat(); cmpsb(); caught();
        with(show_three); mov(rax, qword_ptr(AT_FLAGS)); and(eax, 0xd5); show(eax);
    }
    "no count, no access", Long, "ok", "SDM Vol. 2, REP", |s| {
        pte(PAGE, 0); mov(edi, PAGE); xor(ecx, ecx); guard(); repeat(); stosb(); caught();
    }
    "a limit in the middle", Protected, "#GP(0) 8 1000", "SDM Vol. 2, REP", |s| {
        gdt(FREE, segment(SCRATCH.into(), 0xfff, 0x40f3)); mov(eax, FREE); mov(es, ax);
        mov(edi, 0xff8);
        mov(ecx, 16); guard(); repeat(); stosb(); caught(); show(ecx); show(edi);
    }
    "16-bit addresses wrap", Real, "7 8", "SDM Vol. 2, MOVS", |s| {
        mov(ax, SCRATCH >> 4); mov(es, ax); mov(di, 0xfff8); mov(cx, 16); mov(al, 7); repeat();
        stosb();
        movzx(eax, byte_ptr(7).es()); show(eax); show(di);
    }
    "the next instruction, rewritten", Long, "2", "SDM Vol. 3, 8.1.3", |s| {
        mov(byte_ptr(s.addr("next") + 1), 2); here("next"); mov(eax, 1); show(eax);
    }
    "an instruction that was run", Long, "3", "SDM Vol. 3, 8.1.3", |s| {
        xor(ebx, ebx); mov(ecx, 2); here("loop"); here("add"); add(bl, 1);
        mov(byte_ptr(s.addr("add") + 2), 2); dec(ecx); jne(s.label("loop")); show(ebx);
    }
    "through another address", Long, "1 2", "SDM Vol. 3, 11.6", |s| {
        mov(dword_ptr(PAGE), 0x01b8); mov(word_ptr(PAGE + 4), 0xc300); mov(esi, PAGE); call(rsi);
        show(eax);
        mov(rdi, 0xffff_8000_0000_0000_u64 + u64::from(PAGE)); mov(byte_ptr(rdi + 1), 2); call(rsi);
        show(eax);
    }
    "another page at the same address", Long, "1 2", "SDM Vol. 3, 4.10.4", |s| {
        mov(dword_ptr(PAGE), 0x01b8); mov(word_ptr(PAGE + 4), 0xc300);
        mov(dword_ptr(PAGE + 0x1000), 0x02b8); mov(word_ptr(PAGE + 0x1004), 0xc300);
        mov(esi, PAGE); call(rsi); show(eax);
        pte(PAGE, u64::from(PAGE + 0x1003)); invlpg(byte_ptr(PAGE)); call(rsi); show(eax);
    }
    "by a string instruction", Real, "5", "SDM Vol. 3, 8.1.3", |s| {
        cld(); mov(di, s.off("next") as i32 + 1); mov(al, 5); stosb(); here("next"); mov(bl, 1);
        show(bl);
    }
    "across a page", Long, "9", "SDM Vol. 3, 8.1.3", |s| {
        mov(dword_ptr(PAGE + 0xffe), 0x01b8); mov(word_ptr(PAGE + 0x1002), 0xc300);
        mov(esi, PAGE + 0xffe);
        call(rsi); mov(byte_ptr(PAGE + 0x1000), 0); mov(byte_ptr(PAGE + 0xfff), 9); call(rsi);
        show(eax);
    }
}
