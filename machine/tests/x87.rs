//! The x87 on all engines: a loop whose blocks make it live and then miss the TLB, cross pages,
//! call helpers, use MMX, unmask exceptions and are left when the budget ends, and at last raises
//! #MF.

mod engines;

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use machine::{Boot, ClockKind, Machine, MachineConfig, Outcome};
use std::time::Duration;

/// Where a ROM of 64 KiB is below 1 MiB, and its reset vector in it.
const ROM: u32 = 0xf_0000;
const RESET: usize = 0xfff0;
/// The program, and its GDT: flat code and data.
const CODE32: u32 = 0x100;
const GDT: u32 = 0x80;

fn program() -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(32)?;
    a.mov(ax, 0x10u32)?;
    a.mov(ds, ax)?;
    a.mov(ss, ax)?;
    // MP and NE; neither EM nor TS.
    a.mov(eax, 0x23u32)?;
    a.mov(cr0, eax)?;
    a.fninit()?;
    a.mov(esi, 0x20_0ffau32)?;
    a.mov(ebx, 6000u32)?;
    let [mut turn, mut sine, mut mask, mut mmx] = [(); 4].map(|()| a.create_label());
    a.set_label(&mut turn)?;
    a.mov(dword_ptr(esi), ebx)?;
    a.fild(dword_ptr(esi))?;
    a.fld1()?;
    a.faddp(st1, st0)?;
    a.fld(st0)?;
    a.fsqrt()?;
    a.fstp(tbyte_ptr(esi + 8))?;
    a.fmul(dword_ptr(esi))?;
    a.fnstcw(word_ptr(esi + 24))?;
    a.test(bl, 7)?;
    a.jnz(sine)?;
    a.fsin()?;
    a.set_label(&mut sine)?;
    a.test(bl, 31)?;
    a.jnz(mask)?;
    a.fnclex()?;
    a.xor(word_ptr(esi + 24), 0x3f)?;
    a.fldcw(word_ptr(esi + 24))?;
    a.fld1()?;
    a.fstp(st0)?;
    a.xor(word_ptr(esi + 24), 0x73f)?;
    a.fldcw(word_ptr(esi + 24))?;
    a.set_label(&mut mask)?;
    a.fcomi(st0, st1)?;
    a.setb(dl)?;
    a.fist(dword_ptr(esi + 32))?;
    a.fnstsw(ax)?;
    a.add(edx, eax)?;
    a.test(bl, 63)?;
    a.jnz(mmx)?;
    a.movd(mm0, edx)?;
    a.paddd(mm0, mm1)?;
    a.emms()?;
    a.set_label(&mut mmx)?;
    a.fstp(qword_ptr(esi + 40))?;
    a.add(esi, 0x3fd)?;
    a.dec(ebx)?;
    a.jnz(turn)?;
    // Without an IDT, #MF is a triple fault.
    a.xor(word_ptr(esi - 0x3fd + 24), 0x3f)?;
    a.fldcw(word_ptr(esi - 0x3fd + 24))?;
    a.fld1()?;
    a.fld1()?;
    a.hlt()?;
    a.assemble(u64::from(ROM + CODE32))
}

fn rom() -> Vec<u8> {
    let mut rom = vec![0; 0x1_0000];
    let mut put = |at: usize, bytes: &[u8]| rom[at..at + bytes.len()].copy_from_slice(bytes);
    let code = [0x00cf_9a00_0000_ffffu64, 0x00cf_9200_0000_ffff].map(u64::to_le_bytes).concat();
    put(GDT as usize + 8, &code);
    put(GDT as usize + 32, &[0x17, 0]);
    put(GDT as usize + 34, &(ROM + GDT).to_le_bytes());
    // cli; lgdt cs:[GDT + 32]; mov eax, 1; mov cr0, eax; jmp far 8:program
    put(0, &[0xfa, 0x66, 0x2e, 0x0f, 0x01, 0x16, GDT as u8 + 32, 0]);
    put(8, &[0x66, 0xb8, 1, 0, 0, 0, 0x0f, 0x22, 0xc0, 0x66, 0xea]);
    put(19, &(ROM + CODE32).to_le_bytes());
    put(23, &[8, 0]);
    put(CODE32 as usize, &program().expect("the program is encodable"));
    // jmp near to offset 0
    put(RESET, &[0xe9, 0x0d, 0x00]);
    rom
}

#[test]
fn the_x87_is_the_same_on_all_engines() {
    for (generator, runs) in
        engines::generators().zip([1; 2]).chain(engines::generators().zip([9; 2]))
    {
        let make = || {
            let boot = Boot::Rom(rom());
            let clock = ClockKind::Icount;
            Machine::new(MachineConfig {
                memory: 16 << 20,
                clock,
                no_reboot: true,
                ..MachineConfig::new(boot)
            })
            .unwrap()
        };
        let time = Duration::from_secs(120);
        let (end, both) = engines::in_step(make, generator, runs, time, u64::MAX);
        let [a, b] = both.machines();
        assert!(matches!(end, Some(Outcome::Shutdown(_))), "{end:?}");
        let (x, y) = (&a.vcpu().cpu, &b.vcpu().cpu);
        assert_eq!((x.regs[3], x.x87.sw & 0x80, x.x87), (0, 0x80, y.x87));
        let stats = b.vcpu().cache.translator().unwrap().stats();
        assert!(stats.blocks > 5, "{stats:?}");
    }
}
