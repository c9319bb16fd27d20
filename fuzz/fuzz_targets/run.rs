//! Random bytes as the code of a small machine.
#![no_main]

use emu_core::vcpu::Vcpu;
use libfuzzer_sys::fuzz_target;
use ring3_fuzz::head;
use ring3_fuzz::machine::{CODE, HANDLER, STACK, machine};

const INSNS: i64 = 3000;

fuzz_target!(|data: &[u8]| {
    let Some(([kind, flags, regs @ ..], code)) = head::<18>(data) else { return };
    let mut cpu = machine(kind);
    cpu.mem.write_bytes(CODE, &code[..code.len().min(0x1000)]);
    cpu.mem.write_bytes(HANDLER, &code[code.len() / 2..][..code.len().div_ceil(2).min(0x1000)]);
    for (r, b) in cpu.regs.iter_mut().zip(regs) {
        // Small numbers, addresses in RAM and beyond it, and negative ones.
        *r = (b as i8 as i64 as u64) << (b % 20);
    }
    cpu.regs[4] = STACK - 0x100;
    cpu.set_rflags(u64::from(flags) << 4 | 2);
    let mut vcpu = Vcpu::new(cpu);
    for _ in 0..4 {
        vcpu.run(INSNS / 4);
    }
});
