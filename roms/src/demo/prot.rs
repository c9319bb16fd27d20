//! Stage 2, 32-bit protected mode: exceptions, a visit to CPL 3, and the way into long mode.
//!
//! All segments are flat (base 0, limit 4 GiB) and paging is off, so addresses are physical.
//!
//! The visit to CPL 3 shows why x86 was hard to virtualize. Popek and Goldberg ask that every
//! instruction that shows or changes the state of the machine (a *sensitive* one) traps when it is
//! run without privilege. CLI does. POPF, SMSW and SGDT do not: the first fails in silence, the
//! others tell the truth about the machine to whoever asks.

use super::assembler::{AE, E, Emit, NE, Reg, Stage};
use super::{print, tables};
use crate::layout::*;
use iced_x86::code_asm::*;

/// Interrupt flag in EFLAGS.
pub const IF: u32 = 1 << 9;
/// I/O privilege level in EFLAGS.
const IOPL: u32 = 3 << 12;

/// Emits the stage.
pub fn write(s: &mut Stage) -> Emit {
    s.failure = EXIT_PROT;
    setup(s)?;
    exceptions(s)?;
    visit_to_cpl3(s)?;
    long_mode(s)?;
    handlers(s)?;
    print::routines(s)
}

fn setup(s: &mut Stage) -> Emit {
    s.here("entry")?;
    s.mov(ax, u32::from(KERNEL_DATA))?;
    for register in [ss, ds, es, fs, gs] {
        s.mov(register, ax)?;
    }
    s.mov(esp, KERNEL_STACK)?;
    s.lidt(fword_ptr(IMAGE + IDTR32))?;
    // Interrupts and exceptions at CPL 3 find their stack in the TSS.
    s.mov(ax, u32::from(TSS32_SELECTOR))?;
    s.ltr(ax)?;

    s.say("[prot]  32-bit protected mode: CS = ")?;
    s.mov(ax, cs)?;
    s.say_hex(4)?;
    s.movzx(edx, ax)?;
    s.say(", CR0 = ")?;
    s.mov(eax, cr0)?;
    s.say_hex(8)?;
    s.say("\n")?;
    s.cmp(edx, u32::from(KERNEL_CODE32) as i32)?;
    s.check(E, "CS is not the selector of the far jump")?;
    // CD and NW are set by reset, ET is fixed (SDM vol. 3A, table 10-1); PE is ours.
    s.cmp(eax, 0x6000_0011)?;
    s.check(E, "CR0 is not its reset value with PE set")?;
    // LTR has marked the TSS busy: bit 1 of the descriptor's type.
    s.test(byte_ptr(IMAGE + GDT + u32::from(TSS32_SELECTOR) + 5), 2)?;
    s.check(NE, "LTR did not mark the TSS busy")
}

fn exceptions(s: &mut Stage) -> Emit {
    // A fault saves the address of the instruction itself, so that it can be run again.
    s.xor(eax, eax)?;
    s.xor(edx, edx)?;
    s.xor(ecx, ecx)?;
    s.probe("behind_div", |s| {
        s.here("div")?;
        s.div(ecx)
    })?;
    s.expect(VECTOR, 0, "DIV by zero did not raise #DE")?;
    let div = s.addr("div") as u32;
    s.expect(FAULT_IP, div, "#DE did not save the address of DIV")?;
    s.say("[prot]  DIV by 0: exception ")?;
    say_variable(s, VECTOR)?;
    s.say(" (#DE), saved EIP is that of the DIV; went on behind it\n")?;

    s.mov(ax, 0xFFF8)?;
    s.probe("behind_selector", |s| s.mov(fs, ax))?;
    s.expect(VECTOR, 13, "a selector beyond the GDT did not raise #GP")?;
    s.expect(ERROR, 0xFFF8, "#GP did not give the selector as error code")?;
    s.say("[prot]  MOV FS with a selector beyond the GDT: exception ")?;
    say_variable(s, VECTOR)?;
    s.say(" (#GP), error code ")?;
    s.mov(eax, dword_ptr(ERROR))?;
    s.say_hex(4)?;
    s.say("\n")
}

/// Prints a variable in decimal.
fn say_variable(s: &mut Stage, address: u32) -> Emit {
    s.mov(eax, dword_ptr(address))?;
    s.say_decimal()
}

fn visit_to_cpl3(s: &mut Stage) -> Emit {
    // The only way down is a return: IRETD to an outer privilege level takes SS:ESP from the
    // stack as well. IOPL = 0 in the flags: no ports, no CLI, no STI down there.
    let user = s.addr("cpl3") as u32;
    s.push(u32::from(USER_DATA))?;
    s.push(USER_STACK32)?;
    s.push(2)?; // EFLAGS: bit 1 is always set
    s.push(u32::from(USER_CODE32))?;
    s.push(user)?;
    s.iretd()?;

    s.here("cpl3")?;
    s.mov(ax, u32::from(USER_DATA))?;
    s.mov(ds, ax)?;
    s.mov(es, ax)?;
    // Try to set IF and IOPL by POPF, and look at what became of it.
    s.pushfd()?;
    s.or(dword_ptr(esp), (IF | IOPL) as i32)?;
    s.mov(ebx, dword_ptr(esp))?;
    s.popfd()?;
    s.pushfd()?;
    s.pop(dword_ptr(POPF_FLAGS))?;
    // Ask for the lower half of CR0 and for the GDTR.
    s.smsw(eax)?;
    s.mov(dword_ptr(SMSW), eax)?;
    s.sgdt(fword_ptr(SGDT))?;
    // CLI is privileged by IOPL: it must trap.
    s.probe("behind_cli", |s| s.cli())?;
    s.int(tables::BACK_TO_KERNEL)?;

    // The handler of INT 0x30 comes here, back at CPL 0 and with the stack as it was.
    s.here("from_cpl3")?;
    s.mov(ax, u32::from(KERNEL_DATA))?;
    s.mov(ds, ax)?;
    s.mov(es, ax)?;
    s.and(ebx, (IF | IOPL) as i32)?;
    s.cmp(ebx, (IF | IOPL) as i32)?;
    s.check(E, "the code at CPL 3 did not run")?;
    s.mov(eax, dword_ptr(POPF_FLAGS))?;
    s.test(eax, IF | IOPL)?;
    s.check(E, "POPF at CPL 3 changed IF or IOPL")?;
    s.say("[prot]  CPL 3: POPF with IF = 1, IOPL = 3 raised nothing and left IF = ")?;
    s.shr(eax, 9)?;
    s.and(eax, 1)?;
    s.say_decimal()?;
    s.say(", IOPL = ")?;
    s.mov(eax, dword_ptr(POPF_FLAGS))?;
    s.shr(eax, 12)?;
    s.and(eax, 3)?;
    s.say_decimal()?;
    s.say("\n")?;

    s.mov(eax, cr0)?;
    s.cmp(word_ptr(SMSW), ax)?;
    s.check(E, "SMSW at CPL 3 did not show the low half of CR0")?;
    s.expect(SGDT + 2, IMAGE + GDT, "SGDT at CPL 3 did not show the base of the GDT")?;
    s.cmp(word_ptr(SGDT), i32::from(GDT_SIZE) - 1)?;
    s.check(E, "SGDT at CPL 3 did not show the limit of the GDT")?;
    s.say("[prot]  CPL 3: SMSW showed PE = ")?;
    s.mov(eax, dword_ptr(SMSW))?;
    s.and(eax, 1)?;
    s.say_decimal()?;
    s.say(", SGDT showed the GDT at ")?;
    s.mov(eax, dword_ptr(SGDT + 2))?;
    s.say_hex(8)?;
    s.say(" (sensitive, not privileged)\n")?;

    s.expect(VECTOR, 13, "CLI at CPL 3 did not raise #GP")?;
    s.expect(ERROR, 0, "#GP by CLI has an error code")?;
    s.say("[prot]  CPL 3: CLI raised exception ")?;
    say_variable(s, VECTOR)?;
    s.say(" (#GP), error code ")?;
    say_variable(s, ERROR)?;
    s.say(" (sensitive and privileged)\n")
}

fn long_mode(s: &mut Stage) -> Emit {
    // CPUID leaf 80000001H: does this CPU know long mode and NX? (SYSCALL is told in 64-bit mode.)
    s.mov(eax, 0x8000_0000u32)?;
    s.cpuid()?;
    s.cmp(eax, 0x8000_0001u32 as i32)?;
    s.check(AE, "CPUID has no leaf 80000001H")?;
    s.mov(eax, 0x8000_0001u32)?;
    s.cpuid()?;
    let wanted = 1 << 29 | 1 << 20;
    s.and(edx, wanted)?;
    s.cmp(edx, wanted)?;
    s.check(E, "CPUID does not offer LM and NX")?;

    // The page tables. An entry is 8 bytes; the upper halves stay 0 but for NX (bit 63).
    let [pml4, pdpt, pdpt_high, pd, pd_extra] = [0, 1, 2, 3, 4].map(|n| PAGE_TABLES + n * 0x1000);
    let table = 0b011; // P, W
    s.mov(edi, PAGE_TABLES)?;
    s.mov(ecx, 5 * 0x1000 / 4)?;
    s.xor(eax, eax)?;
    s.rep().stosd()?;
    s.mov(dword_ptr(pml4), pdpt | table)?;
    s.mov(dword_ptr(pml4 + 511 * 8), pdpt_high | table)?; // from FFFFFF80_00000000 on
    s.mov(dword_ptr(pdpt), pd | table)?;
    s.mov(dword_ptr(pdpt_high + 510 * 8), pd | table)?; // from FFFFFFFF_80000000 on
    s.mov(dword_ptr(pdpt + 8), pd_extra | table)?; // from 1 GiB on
    s.mov(dword_ptr(pd_extra), 0b1000_0001)?; // 2 MiB at physical 0: P, PS, but not W
    s.mov(dword_ptr(pd_extra + 4), 0x8000_0000u32)?; // NX
    // The next 2 MiB: the local APIC's registers, uncached (PCD, PWT).
    s.mov(dword_ptr(pd_extra + 8), 0xFEE0_0000u32 | 0b1001_1011)?;
    s.mov(dword_ptr(pd_extra + 12), 0x8000_0000u32)?;
    // One directory of 2 MiB pages maps the first GiB; both halves point to it.
    s.mov(edi, pd)?;
    s.mov(eax, 0b1000_0011)?; // P, W, PS
    s.mov(ecx, 512)?;
    s.anonymous_label()?;
    s.mov(dword_ptr(edi), eax)?;
    s.add(eax, 0x20_0000)?;
    s.add(edi, 8)?;
    s.dec(ecx)?;
    let again = s.bwd()?;
    s.jne(again)?;

    // SDM vol. 3A, 10.8.5: CR4.PAE, CR3, EFER.LME, and CR0.PG turns it all on. Until the far
    // jump loads a CS with L = 1, this is 32-bit code in compatibility mode.
    s.mov(eax, super::long::CR4_VALUE)?;
    s.mov(cr4, eax)?;
    s.mov(eax, pml4)?;
    s.mov(cr3, eax)?;
    s.mov(ecx, super::long::EFER)?;
    s.xor(edx, edx)?;
    s.mov(eax, super::long::EFER_VALUE & !super::long::EFER_LMA)?;
    s.wrmsr()?;
    s.mov(eax, super::long::CR0_VALUE)?;
    s.mov(cr0, eax)?;
    // The far jump has a 32-bit offset: to the identity map first.
    let entry = s.addr_in("long", "entry").wrapping_sub(KERNEL_BASE) as u32;
    s.jmp_far(KERNEL_CODE64, entry)
}

fn handlers(s: &mut Stage) -> Emit {
    // Each vector has a stub: it makes all frames look alike (an error code, 0 where the CPU
    // pushes none) and notes the vector.
    let common = s.label("common");
    for vector in 0..tables::VECTORS {
        s.here(&format!("vector{vector}"))?;
        if !tables::HAS_ERROR_CODE.contains(&vector) {
            s.push(0)?;
        }
        s.push(vector)?;
        s.jmp(common)?;
    }

    // ESP -> EAX, vector, error code, EIP, CS, EFLAGS, and from CPL 3 ESP and SS.
    s.here("common")?;
    let back = s.label("back_to_kernel");
    let unexpected = s.label("unexpected");
    s.save(&[Reg::A])?;
    s.cmp(dword_ptr(esp + 4), tables::BACK_TO_KERNEL as i32)?;
    s.je(back)?;
    for (place, variable) in [(4, VECTOR), (8, ERROR), (12, FAULT_IP)] {
        s.mov(eax, dword_ptr(esp + place))?;
        s.mov(dword_ptr(variable), eax)?;
    }
    s.mov(eax, dword_ptr(RECOVER))?;
    s.test(eax, eax)?;
    s.je(unexpected)?;
    s.mov(dword_ptr(esp + 12), eax)?;
    s.restore(&[Reg::A])?;
    s.add(esp, 8)?;
    s.iretd()?;

    s.here("back_to_kernel")?;
    let from_cpl3 = s.label("from_cpl3");
    s.mov(esp, KERNEL_STACK)?;
    s.jmp(from_cpl3)?;

    s.here("unexpected")?;
    let exit = s.label("exit");
    s.say("FAIL: unexpected exception ")?;
    say_variable(s, VECTOR)?;
    s.say(" at ")?;
    s.mov(eax, dword_ptr(FAULT_IP))?;
    s.say_hex(8)?;
    s.say("\n")?;
    s.mov(al, u32::from(EXIT_EXCEPTION))?;
    s.jmp(exit)
}
