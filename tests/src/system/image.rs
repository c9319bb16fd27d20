//! The image of a chapter: a ROM that runs one row after the other, with a reset between them.
//!
//! At each reset the 16-bit code at [`BOOT`] prints what the last row observed, copies the ROM to
//! RAM, zeroes what rows may have written, prints the next row's name and jumps to it in real
//! mode. A row begins with a prologue into its mode and ends with `INT 20H`, whose handler (as
//! that of an exception nobody guards) resets the PC. So no row sees what another left, and a
//! triple fault is an observation like others: " shutdown".
//!
//! Handlers exist for real mode, 32-bit and 64-bit code. They record vector, error code and CR2,
//! and go on where `guard` said, with the registers as they were.

use super::asm::{Asm, Emit, Symbols};
use super::layout::*;
use super::{Mode, Row};
use iced_x86::IcedError;
use iced_x86::code_asm::*;

/// Size of the image.
const SIZE: usize = 0x1_0000;
/// "R3OK".
const ALIVE: u32 = 0x4b4f_3352;
/// Names of the vectors, two letters each, as the manual has them (NMI is short of one).
const NAMES: &str = "DEDBNIBPOFBRUDNMDF09TSNPSSGPPF15MFACMCXMVECP";
/// Vectors that push an error code (SDM Vol. 3, table 6-1).
const WITH_ERROR: u32 =
    1 << 8 | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 13 | 1 << 14 | 1 << 17 | 1 << 21;
/// Virtual-8086 mode in EFLAGS.
const VM: u32 = 1 << 17;

/// The image that runs `rows`.
///
/// # Errors
/// Code that cannot be encoded.
///
/// # Panics
/// When it does not fit.
pub fn build(rows: &[&Row]) -> Result<Vec<u8>, IcedError> {
    let mut known = Symbols::new();
    for _ in 0..8 {
        let (image, found) = pass(rows, &known)?;
        if found == known {
            return Ok(image);
        }
        known = found;
    }
    panic!("the addresses do not settle: the length of some code depends on its own address");
}

fn pass(rows: &[&Row], known: &Symbols) -> Result<(Vec<u8>, Symbols), IcedError> {
    let mut image = vec![0; SIZE];
    let mut s = Asm::new("", 16, (IMAGE + BOOT).into(), known)?;
    boot(&mut s, rows.len() as u32)?;
    real_handlers(&mut s)?;
    s.bits(32)?;
    protected_handlers(&mut s)?;
    s.bits(64)?;
    long_handlers(&mut s)?;
    let (code, mut found) = s.finish()?;
    put(&mut image, BOOT, GDT, &code);
    tables(&mut image, known);
    let mut at = CODE;
    for (n, row) in rows.iter().enumerate() {
        let name = [row.name.as_bytes(), b"\0"].concat();
        put(&mut image, at, RESET, &name);
        let start = at + name.len() as u32;
        put(&mut image, ROWS + 4 * n as u32, CODE, &(at as u16).to_le_bytes());
        put(&mut image, ROWS + 4 * n as u32 + 2, CODE, &(start as u16).to_le_bytes());
        let mut s = Asm::new(row.name, 16, (IMAGE + start).into(), known)?;
        prologue(&mut s, row.mode)?;
        (row.code)(&mut s)?;
        s.end()?;
        let (code, places) = s.finish()?;
        put(&mut image, start, RESET, &code);
        found.extend(places);
        at = start + code.len() as u32;
    }
    // JMP FAR F000:0000.
    put(&mut image, RESET, SIZE as u32, &[0xea, 0, 0, 0, 0xf0]);
    Ok((image, found))
}

/// Puts `bytes` at offset `at`; they must end before `end`.
fn put(image: &mut [u8], at: u32, end: u32, bytes: &[u8]) {
    assert!(at as usize + bytes.len() <= end as usize, "no room at {at:#x}: {}", bytes.len());
    image[at as usize..][..bytes.len()].copy_from_slice(bytes);
}

fn tables(image: &mut [u8], known: &Symbols) {
    let mut word = |at: u32, value: u64| put(image, at, at + 8, &value.to_le_bytes());
    let flat = |attributes| segment(0, 0xf_ffff, attributes);
    for (selector, descriptor) in [
        (CODE32, flat(0xc09b)),
        (CODE64, flat(0xa09b)),
        (DATA0, flat(0xc093)),
        (CODE32_3, flat(0xc0fb)),
        (DATA3, flat(0xc0f3)),
        (CODE64_3, flat(0xa0fb)),
        (CODE16, segment(IMAGE.into(), 0xffff, 0x009b)),
        (DATA16, segment(0, 0xffff, 0x0093)),
        (TSS32_SELECTOR, segment((IMAGE + TSS32).into(), u64::from(IO_MAP) + 0x80, 0x0089)),
        (TSS64_SELECTOR, segment((IMAGE + TSS64).into(), 0x67, 0x0089)),
        (LDT_SELECTOR, segment((IMAGE + LDT).into(), 0x3f, 0x0082)),
    ] {
        word(GDT + (selector & !7), descriptor);
    }
    word(TSS32 + 4, u64::from(KERNEL_STACK) | u64::from(DATA0) << 32);
    word(TSS32 + 100, u64::from(IO_MAP) << 16);
    (0..0x11).for_each(|n| word(TSS32 + IO_MAP + 8 * n, u64::MAX));
    word(TSS64 + 4, KERNEL_STACK.into());
    word(TSS64 + 36, IST1.into());
    word(TSS64 + 96, 0x68 << 48);
    for (at, base, limit) in
        [(GDTR, GDT, 0xff), (IDTR32, IDT32, VECTORS * 8 - 1), (IDTR64, IDT64, VECTORS * 16 - 1)]
    {
        word(at, u64::from(limit) | u64::from(IMAGE + base) << 16);
        word(at + 8, 0);
    }
    for v in 0..VECTORS {
        let stub = |kind| {
            let name = (String::new(), format!("{kind} {v}"));
            known.get(&name).copied().unwrap_or(0) as u32
        };
        let user = if [3, 4, END_VECTOR, END_VECTOR + 1].contains(&v) { 0x60 } else { 0 };
        let in_image = u64::from(stub("real") & 0xffff | IMAGE << 12);
        word(IVT + 4 * v, in_image);
        word(IDT32 + 8 * v, gate(CODE32, stub("protected"), 0x8e | user, 0));
        word(IDT64 + 16 * v, gate(CODE64, stub("long"), 0x8e | user, 0));
    }
    let table = |at: u32, bits: u64| u64::from(IMAGE + at) | bits;
    word(PML5, table(PML4, 7));
    word(PML5 + 8, table(PML4, 7));
    word(PML4, table(PDPT, 7));
    word(PML4 + 8 * 256, table(PDPT, 7));
    word(PDPT, table(PD, 7));
    word(PAE_PDPT, table(PD, 1));
    word(PD, table(PT, 7));
    word(PD + 8, 0x20_0083);
    (0..512).for_each(|n| word(PT + 8 * n, u64::from(n) << 12 | 3));
    word(PD32, table(PT32, 7) | 0x40_0083 << 32);
    (0..512).for_each(|n| {
        let page = u64::from(n) << 13 | 3;
        word(PT32 + 8 * n, page | (page + 0x1000) << 32);
    });
}

/// The code that a reset enters.
fn boot(s: &mut Asm, rows: u32) -> Emit {
    s.cli()?;
    s.cld()?;
    s.xor(ax, ax)?;
    s.mov(ss, ax)?;
    s.mov(sp, STACK)?;
    s.mov(fs, ax)?;
    s.mov(ax, cs)?;
    s.mov(ds, ax)?;
    let (first, next, finish, report) =
        (s.label("first"), s.label("next"), s.label("finish"), s.label("report"));
    s.cmp(dword_ptr(MAGIC).fs(), ALIVE)?;
    s.jne(first)?;
    s.call(report)?;
    s.inc(dword_ptr(ROW).fs())?;
    s.jmp(next)?;
    s.here("first")?;
    s.mov(dword_ptr(MAGIC).fs(), ALIVE)?;
    s.mov(dword_ptr(ROW).fs(), 0)?;
    s.here("next")?;
    s.mov(bx, word_ptr(ROW).fs())?;
    s.cmp(bx, rows as i32)?;
    s.jae(finish)?;

    // What the row may find: the image, zeros, vectors.
    for (segment, from, to, count, copies) in [
        (IMAGE >> 4, 0, 0, 0x4000, true),
        (0x2000, 0, 0, 0x4000, false),
        (0x3000, 0, 0, 0x4000, false),
        (0, 0, ENDED, (LOG_END - ENDED) / 4, false),
        (0, IVT, 0, VECTORS, true),
    ] {
        s.mov(ax, segment)?;
        s.mov(es, ax)?;
        s.mov(si, from)?;
        s.mov(di, to)?;
        s.mov(cx, count)?;
        s.xor(eax, eax)?;
        if copies {
            s.rep().movsd()?
        } else {
            s.rep().stosd()?
        };
    }
    s.mov(dword_ptr(SLOT).fs(), LOG + LAST_SLOT * SLOT_SIZE)?;
    s.shl(bx, 2)?;
    s.mov(si, word_ptr(bx + ROWS))?;
    let puts = s.label("puts");
    s.call(puts)?;
    s.mov(al, u32::from(b':'))?;
    s.out(CONSOLE as i32, al)?;
    s.push((IMAGE >> 4) as i32)?;
    s.push(word_ptr(bx + ROWS + 2))?;
    s.mov(ax, IMAGE >> 4)?;
    s.mov(ds, ax)?;
    s.mov(es, ax)?;
    for register in [eax, ebx, ecx, edx, esi, edi, ebp] {
        s.xor(register, register)?;
    }
    s.retf()?;

    s.here("finish")?;
    s.mov(al, EXIT_SUCCESS)?;
    s.out(EXIT as i32, al)?;
    s.anonymous_label()?;
    s.hlt()?;
    let again = s.bwd()?;
    s.jmp(again)?;
    report_log(s)
}

fn report_log(s: &mut Asm) -> Emit {
    let [puts, slot, after, value, ok, newline, hex] =
        ["puts", "slot", "after", "value", "ok", "newline", "hex"].map(|n| s.label(n));
    s.here("report")?;
    s.mov(di, LOG)?;
    s.here("slot")?;
    s.mov(al, byte_ptr(di).fs())?;
    s.test(al, al)?;
    s.je(after)?;
    s.mov(ah, al)?;
    s.mov(al, u32::from(b' '))?;
    s.out(CONSOLE as i32, al)?;
    s.cmp(ah, TAG_VALUE as i32)?;
    s.je(value)?;
    s.cmp(ah, TAG_OK as i32)?;
    s.je(ok)?;
    // An exception: #GP(18), #PF(2)@30000, or INT for what has no name.
    let [unnamed, error, address] = ["unnamed", "error", "address"].map(|n| s.label(n));
    s.movzx(bx, byte_ptr(di + 8).fs())?;
    s.cmp(bx, NAMES.len() as i32 / 2)?;
    s.jae(unnamed)?;
    s.mov(al, u32::from(b'#'))?;
    s.out(CONSOLE as i32, al)?;
    let names = s.off("names");
    s.add(bx, bx)?;
    for n in 0..2 {
        s.mov(al, byte_ptr(bx + names + n))?;
        s.out(CONSOLE as i32, al)?;
    }
    s.here("error")?;
    s.test(byte_ptr(di + 9).fs(), 1)?;
    s.je(address)?;
    s.mov(al, u32::from(b'('))?;
    s.out(CONSOLE as i32, al)?;
    s.mov(eax, dword_ptr(di + 12).fs())?;
    s.xor(edx, edx)?;
    s.call(hex)?;
    s.mov(al, u32::from(b')'))?;
    s.out(CONSOLE as i32, al)?;
    s.here("address")?;
    s.cmp(byte_ptr(di + 8).fs(), 14)?;
    s.jne(after)?;
    s.mov(al, u32::from(b'@'))?;
    s.out(CONSOLE as i32, al)?;
    s.mov(eax, dword_ptr(di + 16).fs())?;
    s.mov(edx, dword_ptr(di + 20).fs())?;
    s.call(hex)?;
    s.jmp(after)?;
    s.here("unnamed")?;
    let interrupt = s.off("interrupt");
    s.mov(si, interrupt)?;
    s.call(puts)?;
    s.movzx(eax, byte_ptr(di + 8).fs())?;
    s.xor(edx, edx)?;
    s.call(hex)?;
    s.jmp(error)?;
    s.here("ok")?;
    let text = s.off("text ok");
    s.mov(si, text)?;
    s.call(puts)?;
    s.jmp(after)?;
    s.here("value")?;
    s.mov(eax, dword_ptr(di + 8).fs())?;
    s.mov(edx, dword_ptr(di + 12).fs())?;
    s.call(hex)?;
    s.here("after")?;
    s.add(di, SLOT_SIZE as i32)?;
    s.cmp(di, LOG_END as i32)?;
    s.jb(slot)?;
    s.cmp(byte_ptr(ENDED).fs(), 0)?;
    s.jne(newline)?;
    let shutdown = s.off("shutdown");
    s.mov(si, shutdown)?;
    s.call(puts)?;
    s.here("newline")?;
    s.mov(al, u32::from(b'\n'))?;
    s.out(CONSOLE as i32, al)?;
    s.ret()?;

    // puts: the text at DS:SI, to its zero byte.
    let put_char = s.label("put char");
    s.here("put char")?;
    s.out(CONSOLE as i32, al)?;
    s.here("puts")?;
    s.lodsb()?;
    s.test(al, al)?;
    s.jne(put_char)?;
    s.ret()?;

    // hex: EDX:EAX without leading zeros. Changes BX, CX, EBP.
    let [nibble, digit, no_digit] = ["nibble", "digit", "no digit"].map(|n| s.label(n));
    s.here("hex")?;
    s.mov(cx, 16)?;
    s.xor(bp, bp)?;
    s.here("nibble")?;
    s.xor(ebx, ebx)?;
    s.shld(ebx, edx, 4)?;
    s.shld(edx, eax, 4)?;
    s.shl(eax, 4)?;
    s.or(bp, bx)?;
    s.jne(digit)?;
    s.cmp(cx, 1)?;
    s.jne(no_digit)?;
    s.here("digit")?;
    let digits = s.off("digits");
    s.push(ax)?;
    s.mov(al, byte_ptr(bx + digits))?;
    s.out(CONSOLE as i32, al)?;
    s.pop(ax)?;
    s.here("no digit")?;
    s.dec(cx)?;
    s.jne(nibble)?;
    s.ret()?;
    for (name, text) in [
        ("names", NAMES),
        ("digits", "0123456789abcdef"),
        ("shutdown", " shutdown\0"),
        ("text ok", "ok\0"),
        ("interrupt", "INT \0"),
    ] {
        s.here(name)?;
        s.db(text.as_bytes())?;
    }
    Ok(())
}

/// Resets the PC through port 92H, at CPL 0.
fn reset(s: &mut Asm) -> Emit {
    s.mov(al, 3)?;
    s.out(0x92, al)?;
    s.anonymous_label()?;
    s.hlt()?;
    let again = s.bwd()?;
    s.jmp(again)
}

fn real_handlers(s: &mut Asm) -> Emit {
    let (common, ended) = (s.label("real"), s.label("real ended"));
    for v in 0..VECTORS {
        s.here(&format!("real {v}"))?;
        s.push(v as i32)?;
        s.jmp(common)?;
    }
    // The frame: DS, eight registers, vector, IP, CS, FLAGS.
    s.here("real")?;
    s.pusha()?;
    s.push(ds)?;
    s.xor(ax, ax)?;
    s.mov(ds, ax)?;
    s.mov(bp, sp)?;
    s.mov(ax, word_ptr(bp + 18))?;
    s.cmp(ax, END_VECTOR as i32)?;
    s.je(ended)?;
    s.mov(bx, word_ptr(SLOT))?;
    s.mov(word_ptr(bx + 8), ax)?;
    s.mov(byte_ptr(bx), TAG_EXCEPTION)?;
    for (from, to) in [(20, AT_IP), (22, AT_CS), (24, AT_FLAGS)] {
        s.mov(ax, word_ptr(bp + from))?;
        s.mov(word_ptr(to), ax)?;
    }
    s.lea(ax, word_ptr(bp + 20))?;
    s.mov(word_ptr(AT_HANDLER_SP), ax)?;
    s.mov(ax, word_ptr(RECOVER))?;
    s.test(ax, ax)?;
    s.je(ended)?;
    s.mov(word_ptr(RECOVER), 0)?;
    s.mov(word_ptr(bp + 20), ax)?;
    for (from, to) in [(CTX_CS, 22), (CTX_FLAGS, 24)] {
        s.mov(ax, word_ptr(from))?;
        s.mov(word_ptr(bp + to), ax)?;
    }
    s.pop(ds)?;
    s.popa()?;
    s.add(sp, 2)?;
    s.iret()?;
    s.here("real ended")?;
    s.mov(byte_ptr(ENDED), 1)?;
    reset(s)
}

fn stubs(s: &mut Asm, kind: &str) -> Emit {
    let common = s.label(kind);
    for v in 0..VECTORS {
        s.here(&format!("{kind} {v}"))?;
        if v >= 32 || WITH_ERROR >> v & 1 == 0 {
            s.push(0)?;
        }
        s.push(v as i32)?;
        s.jmp(common)?;
    }
    s.here(kind)
}

fn protected_handlers(s: &mut Asm) -> Emit {
    stubs(s, "protected")?;
    let [ended, record, no_error, same_ring] =
        ["ended 32", "record 32", "no error 32", "same ring"].map(|n| s.label(n));
    // The frame: DS, eight registers, vector, error code, EIP, CS, EFLAGS, ESP, SS.
    s.pushad()?;
    s.push(ds)?;
    s.mov(eax, DATA3)?;
    s.mov(ds, eax)?;
    s.mov(ebp, esp)?;
    s.mov(eax, dword_ptr(ebp + 36))?;
    s.cmp(eax, END_VECTOR as i32)?;
    s.je(ended)?;
    // INT 20H of a virtual-8086 row without the right to it.
    s.cmp(eax, 13)?;
    s.jne(record)?;
    s.test(dword_ptr(ebp + 52), VM as i32)?;
    s.je(record)?;
    s.movzx(ecx, word_ptr(ebp + 48))?;
    s.shl(ecx, 4)?;
    s.movzx(edx, word_ptr(ebp + 44))?;
    s.cmp(word_ptr(ecx + edx), 0xcd | (END_VECTOR << 8) as i32)?;
    s.je(ended)?;
    s.here("record 32")?;
    s.mov(ebx, dword_ptr(SLOT))?;
    s.mov(byte_ptr(ebx), TAG_EXCEPTION)?;
    s.mov(dword_ptr(ebx + 8), eax)?;
    s.cmp(eax, 32)?;
    s.jae(no_error)?;
    s.mov(edx, WITH_ERROR)?;
    s.bt(edx, eax)?;
    s.jae(no_error)?;
    s.mov(byte_ptr(ebx + 9), 1)?;
    s.here("no error 32")?;
    s.mov(eax, dword_ptr(ebp + 40))?;
    s.mov(dword_ptr(ebx + 12), eax)?;
    s.mov(eax, cr2)?;
    s.mov(dword_ptr(ebx + 16), eax)?;
    for (from, to) in [(44, AT_IP), (48, AT_CS), (52, AT_FLAGS), (56, AT_SP)] {
        s.mov(eax, dword_ptr(ebp + from))?;
        s.mov(dword_ptr(to), eax)?;
    }
    s.lea(eax, dword_ptr(ebp + 44))?;
    s.mov(dword_ptr(AT_HANDLER_SP), eax)?;
    s.mov(eax, dword_ptr(RECOVER))?;
    s.test(eax, eax)?;
    s.je(ended)?;
    s.mov(dword_ptr(RECOVER), 0)?;
    s.mov(dword_ptr(ebp + 44), eax)?;
    for (from, to) in [(CTX_CS, 48), (CTX_FLAGS, 52)] {
        s.mov(eax, dword_ptr(from))?;
        s.mov(dword_ptr(ebp + to), eax)?;
    }
    // Back to an outer ring: its stack too. At CPL 0 `caught` loads ESP.
    let outer = s.label("outer ring");
    s.test(dword_ptr(CTX_FLAGS), VM as i32)?;
    s.jne(outer)?;
    s.test(dword_ptr(CTX_CS), 3)?;
    s.je(same_ring)?;
    s.here("outer ring")?;
    for (from, to) in [(CTX_SP, 56), (CTX_SS, 60)] {
        s.mov(eax, dword_ptr(from))?;
        s.mov(dword_ptr(ebp + to), eax)?;
    }
    s.here("same ring")?;
    s.pop(ds)?;
    s.popad()?;
    s.add(esp, 8)?;
    s.iretd()?;
    s.here("ended 32")?;
    s.mov(byte_ptr(ENDED), 1)?;
    reset(s)
}

fn long_handlers(s: &mut Asm) -> Emit {
    stubs(s, "long")?;
    let [ended, no_error] = ["ended 64", "no error 64"].map(|n| s.label(n));
    // The frame: four registers, vector, error code, RIP, CS, RFLAGS, RSP, SS.
    let saved = [rax, rbx, rdx, rbp];
    saved.iter().try_for_each(|&r| s.push(r))?;
    s.mov(rbp, rsp)?;
    s.mov(eax, dword_ptr(rbp + 32))?;
    s.cmp(eax, END_VECTOR as i32)?;
    s.je(ended)?;
    s.mov(ebx, dword_ptr(SLOT))?;
    s.mov(byte_ptr(rbx), TAG_EXCEPTION)?;
    s.mov(dword_ptr(rbx + 8), eax)?;
    s.cmp(eax, 32)?;
    s.jae(no_error)?;
    s.mov(edx, WITH_ERROR)?;
    s.bt(edx, eax)?;
    s.jae(no_error)?;
    s.mov(byte_ptr(rbx + 9), 1)?;
    s.here("no error 64")?;
    s.mov(eax, dword_ptr(rbp + 40))?;
    s.mov(dword_ptr(rbx + 12), eax)?;
    s.mov(rax, cr2)?;
    s.mov(qword_ptr(rbx + 16), rax)?;
    for (from, to) in [(48, AT_IP), (56, AT_CS), (64, AT_FLAGS), (72, AT_SP)] {
        s.mov(rax, qword_ptr(rbp + from))?;
        s.mov(qword_ptr(u64::from(to)), rax)?;
    }
    s.lea(rax, qword_ptr(rbp + 48))?;
    s.mov(qword_ptr(u64::from(AT_HANDLER_SP)), rax)?;
    s.mov(eax, dword_ptr(u64::from(RECOVER)))?;
    s.test(eax, eax)?;
    s.je(ended)?;
    s.mov(dword_ptr(u64::from(RECOVER)), 0)?;
    s.mov(qword_ptr(rbp + 48), rax)?;
    for (from, to) in [(CTX_CS, 56), (CTX_FLAGS, 64), (CTX_SP, 72), (CTX_SS, 80)] {
        s.mov(rax, qword_ptr(u64::from(from)))?;
        s.mov(qword_ptr(rbp + to), rax)?;
    }
    saved.iter().rev().try_for_each(|&r| s.pop(r))?;
    s.add(rsp, 16)?;
    s.iretq()?;
    s.here("ended 64")?;
    s.mov(byte_ptr(u64::from(ENDED)), 1)?;
    reset(s)
}

/// From real mode, as the boot code leaves it, into `mode`.
fn prologue(s: &mut Asm, mode: Mode) -> Emit {
    if mode == Mode::Real {
        return Ok(());
    }
    s.legacy_paging = matches!(mode, Mode::Legacy | Mode::Legacy3);
    let long =
        matches!(mode, Mode::Long | Mode::LongUser | Mode::Long3 | Mode::Compat | Mode::Compat3);
    let user =
        matches!(mode, Mode::Legacy3 | Mode::Pae3 | Mode::LongUser | Mode::Long3 | Mode::Compat3);
    if user {
        // Pages that CPL 3 may use.
        for (table, size) in [(PT, 8), (PT32, 4)] {
            s.mov(cx, 512)?;
            s.mov(si, table)?;
            s.anonymous_label()?;
            s.or(byte_ptr(si), 4)?;
            s.add(si, size)?;
            s.dec(cx)?;
            let again = s.bwd()?;
            s.jne(again)?;
        }
    }
    s.lgdt(fword_ptr(GDTR))?;
    s.mov(eax, cr0)?;
    s.or(al, 1)?;
    s.mov(cr0, eax)?;
    let (target, here) = (s.addr("protected mode"), "protected mode");
    if mode == Mode::Protected16 {
        let target = s.off(here);
        s.far_jmp(CODE16, target)?;
        s.here(here)?;
        stack_and_data(s, DATA16)?;
        s.mov(sp, STACK)?;
        s.mov(ebx, IMAGE + IDTR32)?;
        return s.lidt(fword_ptr(ebx));
    }
    s.far_jmp(CODE32, target)?;
    s.bits(32)?;
    s.here(here)?;
    stack_and_data(s, DATA0)?;
    s.mov(esp, STACK)?;
    if !long {
        s.lidt(fword_ptr(IMAGE + IDTR32))?;
        s.mov(ax, TSS32_SELECTOR)?;
        s.ltr(ax)?;
    }
    let (cr4_bits, root) = match mode {
        Mode::Legacy | Mode::Legacy3 => (1 << 4, PD32),
        Mode::Pae | Mode::Pae3 => (1 << 5, PAE_PDPT),
        _ => (1 << 5, PML4),
    };
    if long || !matches!(mode, Mode::Protected | Mode::Protected3 | Mode::Virtual8086(_)) {
        s.set_cr4(cr4_bits)?;
        s.mov(eax, IMAGE + root)?;
        s.mov(cr3, eax)?;
        if long {
            s.set_msr(0xc000_0080, 0x100)?;
        }
        s.set_cr0(1 << 31)?;
    }
    if long {
        let target = s.addr("long mode");
        s.far_jmp(CODE64, target)?;
        s.bits(64)?;
        s.here("long mode")?;
        s.lidt(tbyte_ptr(u64::from(IMAGE + IDTR64)))?;
        s.mov(ax, TSS64_SELECTOR)?;
        s.ltr(ax)?;
    }
    for register in [eax, ecx, edx] {
        s.xor(register, register)?;
    }
    match mode {
        Mode::Protected3 | Mode::Legacy3 | Mode::Pae3 | Mode::Long3 => s.ring3(),
        Mode::Compat => s.compat(),
        Mode::Compat3 => s.compat3(),
        Mode::Virtual8086(iopl) => virtual_8086(s, iopl),
        _ => Ok(()),
    }
}

fn stack_and_data(s: &mut Asm, stack: u32) -> Emit {
    s.mov(ax, DATA3)?;
    for register in [ds, es, fs, gs] {
        s.mov(register, ax)?;
    }
    s.mov(ax, stack)?;
    s.mov(ss, ax)
}

/// IRET to virtual-8086 mode, with segments as a row in real mode finds them.
fn virtual_8086(s: &mut Asm, iopl: u32) -> Emit {
    let (flags, target) = (VM | iopl << 12 | 2, s.off("virtual"));
    let image = IMAGE >> 4;
    for value in [0, 0, image, image, 0, STACK - 0x800, flags, image, target] {
        s.push(value as i32)?;
    }
    s.iretd()?;
    s.bits(16)?;
    s.v86_flags = Some(flags);
    s.here("virtual")
}
