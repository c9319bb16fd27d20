//! Protection keys and 5-level paging (SDM Vol. 3, 4.5 and 4.6.2).

use super::asm::{Asm, Emit};
use super::layout::*;
use super::rows;
use iced_x86::code_asm::*;

const PKE: u32 = 1 << 22;
const LA57: u32 = 1 << 12;
const WP: u32 = 1 << 16;
/// A user page with key 3.
const KEY3: u64 = PAGE as u64 | 7 | 3 << 59;
const KERNEL_GS_BASE: u32 = 0xc000_0102;

/// WRPKRU; changes EAX, ECX and EDX.
fn set_pkru(s: &mut Asm, value: u32) -> Emit {
    s.xor(ecx, ecx)?;
    s.xor(edx, edx)?;
    s.mov(eax, value)?;
    s.wrpkru()
}

/// PKRU without access for key 3.
fn deny_access(s: &mut Asm) -> Emit {
    set_pkru(s, 1 << 6)
}

/// PKRU without writes for key 3.
fn deny_writes(s: &mut Asm) -> Emit {
    set_pkru(s, 2 << 6)
}

fn deny_nothing(s: &mut Asm) -> Emit {
    set_pkru(s, 0)
}

/// Reads and writes PAGE, guarded.
fn read_write(s: &mut Asm) -> Emit {
    s.guard()?;
    s.mov(eax, dword_ptr(u64::from(PAGE)))?;
    s.caught()?;
    s.guard()?;
    s.mov(dword_ptr(u64::from(PAGE) + 4), eax)?;
    s.caught()
}

/// From 64-bit code to 5-level paging and back to it: only outside long mode may LA57 change.
fn five_levels(s: &mut Asm) -> Emit {
    s.compat()?;
    s.mov(eax, cr0)?;
    s.btr(eax, 31)?;
    s.mov(cr0, eax)?;
    s.set_cr4(LA57)?;
    s.mov(eax, IMAGE + PML5)?;
    s.mov(cr3, eax)?;
    s.set_cr0(1 << 31)?;
    s.long()
}

rows! {
    "without CR4.PKE", Long, "#UD #UD 0", "SDM Vol. 2, RDPKRU, WRPKRU", |s| {
        guard(); rdpkru(); caught(); guard(); wrpkru(); caught();
        mov(eax, 7); xor(ecx, ecx); cpuid(); and(ecx, 0x10); show(ecx);
    }
    "OSPKE", Long, "18", "SDM Vol. 2, CPUID", |s| {
        set_cr4(PKE); mov(eax, 7); xor(ecx, ecx); cpuid(); and(ecx, 0x18); show(ecx);
    }
    "what RDPKRU and WRPKRU refuse", Long, "#GP(0) #GP(0) #GP(0) ok 0 5",
    "SDM Vol. 2, RDPKRU, WRPKRU", |s| {
        set_cr4(PKE); mov(ecx, 1); guard(); rdpkru(); caught();
        xor(edx, edx); guard(); wrpkru(); caught();
        xor(ecx, ecx); mov(edx, 1); guard(); wrpkru(); caught();
        xor(edx, edx); mov(eax, 5); guard(); wrpkru(); caught();
        mov(edx, 7); rdpkru(); show(edx); show(eax);
    }
    "at CPL 3", Long, "0 #PF(25)@30000 #PF(27)@30004 ok #PF(27)@30004 ok ok",
    "SDM Vol. 3, 4.6.2, 4.7 (PK)", |s| {
        set_cr4(PKE); with(user_code); pte(PAGE, KEY3); ring3();
        xor(ecx, ecx); rdpkru(); show(eax);
        with(deny_access); with(read_write); with(deny_writes); with(read_write);
        with(deny_nothing); with(read_write);
    }
    "at CPL 0", Long, "#PF(21)@30000 #PF(23)@30004 ok ok ok #PF(23)@30004",
    "SDM Vol. 3, 4.6.2", |s| {
        set_cr4(PKE); pte(PAGE, KEY3); with(deny_access); with(read_write);
        with(deny_writes); with(read_write); set_cr0(WP); with(read_write);
    }
    "a right that was cached", Long, "ok ok #PF(21)@30000 #PF(23)@30004 ok ok",
    "SDM Vol. 3, 4.6.2", |s| {
        set_cr4(PKE); pte(PAGE, KEY3); with(read_write); with(deny_access); with(read_write);
        with(deny_nothing); with(read_write);
    }
    "supervisor pages have no key", Long, "ok ok", "SDM Vol. 3, 4.6.2", |s| {
        set_cr4(PKE); pte(PAGE, KEY3 & !4); with(deny_access); with(read_write);
    }
    "keys do not stop fetches", Long, "ok", "SDM Vol. 3, 4.6.2", |s| {
        set_cr4(PKE); pte(PAGE, KEY3); mov(byte_ptr(PAGE), 0xc3); with(deny_access);
        guard(); mov(eax, PAGE); call(rax); caught();
    }
    "a key and another reason", Long, "#PF(27)@30004", "SDM Vol. 3, 4.7 (PK)", |s| {
        set_cr4(PKE); with(user_code); pte(PAGE, KEY3 & !2); ring3(); with(deny_access);
        guard(); mov(dword_ptr(PAGE + 4), eax); caught();
    }
    "CR4.PKE off ignores PKRU and keys", Long, "#PF(21)@30000 #PF(23)@30004 ok ok",
    "SDM Vol. 3, 4.6.2", |s| {
        set_cr4(PKE); pte(PAGE, KEY3); with(deny_access); with(read_write);
        mov(rax, cr4); btr(eax, 22); mov(cr4, rax); with(read_write);
    }
    "PAE paging has no keys", Pae, "#PF(9)@30000", "SDM Vol. 3, 4.4.2", |s| {
        pte(PAGE, KEY3); guard(); mov(eax, dword_ptr(PAGE)); caught();
    }
    "XSAVE component 9", Long, "8 a80 5 0 0 5", "SDM Vol. 1, 13.4, 13.7", |s| {
        set_cr4(PKE | 1 << 18 | 1 << 9); mov(eax, 0xd); mov(ecx, 9); cpuid(); show(eax); show(ebx);
        xor(ecx, ecx); xor(edx, edx); mov(eax, 0x203); xsetbv(); with(|s| set_pkru(s, 5));
        mov(eax, 0x200); xor(edx, edx); xsave(zmmword_ptr(SCRATCH)); show_at(SCRATCH + 0xa80);
        with(deny_nothing); rdpkru(); show(eax);
        mov(eax, 0); xrstor(zmmword_ptr(SCRATCH)); rdpkru(); show(eax);
        mov(eax, 0x200); xor(edx, edx); xrstor(zmmword_ptr(SCRATCH)); rdpkru(); show(eax);
    }
    "CR4.LA57 in long mode", Long, "#GP(0)", "SDM Vol. 3, 2.5 (LA57)", |s| {
        guard(); set_cr4(LA57); caught();
    }
    "57-bit addresses", Long, "ok #GP(0) #GP(0) 5a", "SDM Vol. 3, 4.5", |s| {
        with(five_levels); mov(byte_ptr(PAGE), 0x5a); mov(rbx, (1u64 << 48) + u64::from(PAGE));
        guard(); mov(al, byte_ptr(rbx)); caught(); mov(rdx, 1u64 << 56);
        guard(); mov(cl, byte_ptr(rdx)); caught(); mov(rdx, (1u64 << 63) | 5);
        guard(); mov(cl, byte_ptr(rdx)); caught(); movzx(eax, al); show(eax);
    }
    "a PML5E that is not present", Long, "#PF(0)@2000000000000 #PF(2)@ff00000000000000",
    "SDM Vol. 3, 4.5", |s| {
        with(five_levels); mov(rbx, 1u64 << 49); guard(); mov(al, byte_ptr(rbx)); caught();
        mov(rbx, 0xff00_0000_0000_0000_u64); guard(); mov(byte_ptr(rbx), al); caught();
    }
    "PS in a PML5E", Long, "#PF(9)@2000000000000", "SDM Vol. 3, table 4-14", |s| {
        with(five_levels); poke(IMAGE + PML5 + 16, u64::from(IMAGE + PML4) | 0x87);
        mov(rbx, 1u64 << 49); guard(); mov(al, byte_ptr(rbx)); caught();
    }
    "A in five levels", Long, "12027 13027", "SDM Vol. 3, 4.8", |s| {
        with(five_levels); show_at(IMAGE + PML5); show_at(IMAGE + PML4);
    }
    "a jump to 57 bits", Long, "1000000030000", "SDM Vol. 1, 3.3.7.1", |s| {
        with(five_levels); mov(byte_ptr(PAGE), 0xcc); mov(rbx, (1u64 << 48) + u64::from(PAGE));
        mov(byte_ptr(PAGE + 1), 0xc3); mov(byte_ptr(PAGE), 0x90); call(rbx);
        mov(word_ptr(PAGE), 0x0b0f); mov(dword_ptr(RECOVER), s.addr("to"));
        mov(qword_ptr(CTX_SP), rsp);
        mov(dword_ptr(CTX_CS), CODE64); mov(dword_ptr(CTX_SS), DATA0); mov(dword_ptr(CTX_FLAGS), 2);
        jmp(rbx); here("to"); mov(dword_ptr(LOG + LAST_SLOT * SLOT_SIZE), 0); show_at(AT_IP);
    }
    "registers hold 57 bits in any mode", Long, "ok #GP(0)", "SDM Vol. 3, 4.5.3", |s| {
        guard(); set_msr(KERNEL_GS_BASE, 1 << 48); caught();
        guard(); set_msr(KERNEL_GS_BASE, 1 << 56); caught();
    }
    "linear-address width", Long, "39", "SDM Vol. 2, CPUID leaf 80000008H", |s| {
        mov(eax, 0x8000_0008_u32); cpuid(); movzx(eax, ah); show(eax);
    }
}

/// Lets CPL 3 use all pages below 2 MiB.
fn user_code(s: &mut Asm) -> Emit {
    s.mov(ecx, 512)?;
    s.anonymous_label()?;
    s.or(byte_ptr(rcx * 8 + (IMAGE + PT - 8)), 4)?;
    s.dec(ecx)?;
    let again = s.bwd()?;
    s.jne(again)?;
    s.mov(rax, cr3)?;
    s.mov(cr3, rax)
}
