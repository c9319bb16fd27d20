//! Control registers, MSRs and EFLAGS (SDM Vol. 3, chapters 2 and 10; Vol. 4): which bits there
//! are, and which combinations are refused.

use super::asm::{Asm, Emit};
use super::layout::*;
use super::rows;
use iced_x86::code_asm::*;

const EFER: u32 = 0xc000_0080;
const PAT: u32 = 0x277;
const MTRR_DEF_TYPE: u32 = 0x2ff;

/// MOV to CR0, guarded.
fn try_cr0(s: &mut Asm, value: u32) -> Emit {
    s.mov(eax, value)?;
    s.guard()?;
    s.mov(cr0, eax)?;
    s.caught()
}

/// MOV to CR4, guarded; 64-bit code.
fn try_cr4(s: &mut Asm, value: u64) -> Emit {
    s.mov(rax, value)?;
    s.guard()?;
    s.mov(cr4, rax)?;
    s.caught()
}

/// WRMSR of each value, guarded.
fn try_msr(s: &mut Asm, msr: u32, values: &[u64]) -> Emit {
    values.iter().try_for_each(|&value| {
        s.guard()?;
        s.set_msr(msr, value)?;
        s.caught()
    })
}

rows! {
    "CR0: PG without PE, NW without CD", Protected, "#GP(0) #GP(0) ok",
    "SDM Vol. 2, MOV (control registers)", |s| {
        with(|s| try_cr0(s, 0x8000_0010)); with(|s| try_cr0(s, 0x2000_0011));
        with(|s| try_cr0(s, 0x6000_0011));
    }
    "CR0: reserved bits are ignored, ET is one", Protected, "ok 60000011", "SDM Vol. 3, 2.5", |s| {
        with(|s| try_cr0(s, 0x7fca_ffc1 & !0x2a & !0x0004_0000)); mov(eax, cr0); and(eax, -33);
        show(eax);
    }
    "CR0: the upper half", Long, "#GP(0)", "SDM Vol. 2, MOV (control registers)", |s| {
        mov(rax, cr0); bts(rax, 32); guard(); mov(cr0, rax); caught();
    }
    "CR4: reserved bits", Long, "#GP(0) #GP(0) #GP(0)", "SDM Vol. 3, 2.5", |s| {
        with(|s| try_cr4(s, 1 << 15 | 0x20)); with(|s| try_cr4(s, 1 << 31 | 0x20));
        with(|s| try_cr4(s, 1 << 32 | 0x20));
    }
    "CR4: PAE in long mode", Long, "#GP(0)",
    "SDM Vol. 2, MOV (control registers)", |s| { with(|s| try_cr4(s, 0)); }
    "CR4: PCIDE", Long, "#GP(0) ok", "SDM Vol. 3, 4.10.1", |s| {
        mov(rax, cr3); or(rax, 1); mov(cr3, rax); with(|s| try_cr4(s, 1 << 17 | 0x20));
        mov(rax, cr3); and(rax, -2); mov(cr3, rax); with(|s| try_cr4(s, 1 << 17 | 0x20));
    }
    "CR4: PCIDE outside long mode", Pae, "#GP(0)", "SDM Vol. 3, 4.10.1", |s| {
        guard(); set_cr4(1 << 17); caught();
    }
    "CR3: reserved bits", Long, "#GP(0) #GP(0) ok", "SDM Vol. 2, MOV (control registers)", |s| {
        mov(rax, cr3); bts(rax, 51); guard(); mov(cr3, rax); caught();
        mov(rax, cr3); bts(rax, 63); guard(); mov(cr3, rax); caught();
        mov(rax, cr3); or(rax, 0x18); guard(); mov(cr3, rax); caught();
    }
    "CR3: bit 63 with PCIDE", Long, "ok 0", "SDM Vol. 2, MOV (control registers)", |s| {
        set_cr4(1 << 17); mov(rax, cr3); bts(rax, 63); guard(); mov(cr3, rax); caught();
        mov(rax, cr3); shr(rax, 63); show(eax);
    }
    "registers that are none", Long, "#UD #UD #UD", "SDM Vol. 2, MOV (control registers)", |s| {
        guard(); db(&[0x0f, 0x20, 0xc8]); caught(); guard(); db(&[0x0f, 0x20, 0xe8]); caught();
        guard(); db(&[0x44, 0x0f, 0x22, 0xc8]); caught();
    }
    "paging off in 64-bit code", Long, "#GP(0)", "SDM Vol. 3, 10.8.5.4", |s| {
        mov(rax, cr0); btr(eax, 31); guard(); mov(cr0, rax); caught();
    }
    "paging off with PCIDE", Long, "#GP(0) ok", "SDM Vol. 2, MOV (control registers)", |s| {
        set_cr4(1 << 17); compat(); mov(eax, cr0); btr(eax, 31); guard(); mov(cr0, eax); caught();
        mov(ecx, cr4); btr(ecx, 17); mov(cr4, ecx); guard(); mov(cr0, eax); caught();
        lidt(fword_ptr(IMAGE + IDTR32));
    }
    "long mode without PAE", Protected, "#GP(0)", "SDM Vol. 3, 10.8.5", |s| {
        set_msr(EFER, 0x100); mov(eax, IMAGE + PML4); mov(cr3, eax);
        guard(); set_cr0(1 << 31); caught();
    }
    "EFER: LME under paging", Long, "#GP(0) ok", "SDM Vol. 4, IA32_EFER", |s| {
        with(|s| try_msr(s, EFER, &[0, 0x100]));
    }
    "EFER: LMA is read-only", Long, "ok 500", "SDM Vol. 4, IA32_EFER", |s| {
        with(|s| try_msr(s, EFER, &[0x100])); mov(ecx, EFER); rdmsr(); show(eax);
    }
    "EFER: reserved bits", Long, "#GP(0) #GP(0)", "SDM Vol. 4, IA32_EFER", |s| {
        with(|s| try_msr(s, EFER, &[0x102, 1 << 32 | 0x100]));
    }
    "LMSW sets PE and does not clear it", Protected, "1 d", "SDM Vol. 2, LMSW", |s| {
        xor(eax, eax); lmsw(ax); mov(eax, cr0); and(eax, 0xf); show(eax);
        mov(eax, 0xc); lmsw(ax); mov(eax, cr0); and(eax, 0xf); show(eax); clts();
    }
    "SMSW", Protected, "11 60000011", "SDM Vol. 2, SMSW", |s| {
        xor(eax, eax); smsw(ax); show(eax); smsw(eax); show(eax);
    }
    "MSRs that are none", Long, "#GP(0) #GP(0)", "SDM Vol. 2, RDMSR, WRMSR", |s| {
        mov(ecx, 0x4fff_ffff); guard(); rdmsr(); caught(); guard(); wrmsr(); caught();
    }
    "PAT", Long, "70406 70406 #GP(0) #GP(0) ok 5010401 6", "SDM Vol. 3, 11.12.2 to 11.12.4", |s| {
        show_msr(PAT); with(|s| try_msr(s, PAT, &[2, 0x0800, 0x0000_0006_0501_0401]));
        mov(ecx, PAT); rdmsr(); show(eax); show(edx);
    }
    "MTRRs", Long, "508 #GP(0) #GP(0) ok #GP(0) ok #GP(0)", "SDM Vol. 3, 11.11.1, 11.11.2", |s| {
        mov(ecx, 0xfe); rdmsr(); show(eax);
        with(|s| try_msr(s, MTRR_DEF_TYPE, &[2, 0x1000, 0xc06]));
        with(|s| try_msr(s, 0x250, &[3, 0x0606_0606_0606_0606]));
        with(|s| try_msr(s, 0x200, &[0x102]));
    }
    "MTRRs are state", Long, "6060505 8000806 ff f8000800", "SDM Vol. 3, 11.11.2", |s| {
        set_msr(0x26f, 0x0606_0505); mov(ecx, 0x26f); rdmsr(); show(eax);
        set_msr(0x200, 0x0800_0006); mov(ecx, 0x200); rdmsr(); or(eax, 0x800); show(eax);
        set_msr(0x201, 0xff_f800_0800); show_msr(0x201);
    }
    "CR4.TSD", LongUser, "ok #GP(0)", "SDM Vol. 2, RDTSC", |s| {
        set_cr4(1 << 2); guard(); rdtsc(); caught(); ring3(); guard(); rdtsc(); caught();
    }
    "debug registers' upper halves", Long, "#GP(0) #GP(0) ok", "SDM Vol. 3, 17.2.6", |s| {
        mov(rax, 1u64 << 32); guard(); mov(dr6, rax); caught(); guard(); mov(dr7, rax); caught();
        guard(); mov(dr0, rax); caught();
    }
    "DR4 with CR4.DE", Protected, "ffff0ff0 #UD", "SDM Vol. 3, 17.2.2", |s| {
        mov(eax, dr4); show(eax); set_cr4(8); guard(); mov(eax, dr4); caught();
    }
    "XSETBV", Long, "#UD ok #GP(0) #GP(0) #GP(0) #GP(0)", "SDM Vol. 2, XSETBV", |s| {
        xor(ecx, ecx); xor(edx, edx); mov(eax, 3); guard(); xsetbv(); caught();
        set_cr4(1 << 18); xor(ecx, ecx); xor(edx, edx);
        mov(eax, 3); guard(); xsetbv(); caught(); mov(eax, 2); guard(); xsetbv(); caught();
        mov(eax, 5); guard(); xsetbv(); caught(); mov(edx, 0x4000_0000); guard(); xsetbv();
        caught();
        xor(edx, edx); mov(eax, 3); mov(ecx, 1); guard(); xsetbv(); caught();
    }
    "CPUID.OSXSAVE", Long, "0 8000000", "SDM Vol. 2, CPUID", |s| {
        mov(eax, 1); cpuid(); and(ecx, 1 << 27); show(ecx);
        set_cr4(1 << 18); mov(eax, 1); cpuid(); and(ecx, 1 << 27); show(ecx);
    }
    "FSGSBASE", Long, "#UD ok #GP(0) 1234", "SDM Vol. 2, WRFSBASE", |s| {
        mov(rbx, 0x1234u64); guard(); wrfsbase(rbx); caught(); set_cr4(1 << 16);
        guard(); wrfsbase(rbx); caught(); mov(rcx, 1u64 << 60); guard(); wrfsbase(rcx); caught();
        rdfsbase(rax); show(rax);
    }
    "POPF at CPL 0", Protected, "7cd7 24", "SDM Vol. 2, table 4-16", |s| {
        mov(eax, 0x3c_7cd7); push(eax); popfd(); pushfd(); pop(eax); push(2); popfd();
        movzx(ebx, ax); show(ebx); shr(eax, 16); show(eax);
    }
    "POPF at CPL 3, IOPL 0", Protected3, "4cd7 24", "SDM Vol. 2, table 4-16", |s| {
        mov(eax, 0x3c_7ed7); push(eax); popfd(); pushfd(); pop(eax); push(2); popfd();
        movzx(ebx, ax); show(ebx); shr(eax, 16); show(eax);
    }
    "POPF at CPL 3, IOPL 3", Protected, "3002", "SDM Vol. 2, table 4-16", |s| {
        push(0x3002); popfd(); ring3(); push(2); popfd(); pushfd(); pop(eax); show(eax);
    }
    "POPFQ at CPL 3", Long3, "244cd7", "SDM Vol. 2, table 4-16", |s| {
        push(0x3c_7ed7); popfq(); pushfq(); pop(rax); push(2); popfq(); show(rax);
    }
    "16-bit POPF keeps the upper half", Protected, "200002 200002", "SDM Vol. 2, POPF", |s| {
        push(0x20_0002); popfd(); pushfd(); pop(eax); show(eax);
        db(&[0x66, 0x6a, 0x02, 0x66, 0x9d]); pushfd(); pop(eax); show(eax);
    }
}
