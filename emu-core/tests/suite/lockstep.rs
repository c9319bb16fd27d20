//! Two CPUs that should be the same after the same number of instructions, whatever runs them.

use emu_core::cpu::Cpu;

/// What a guest can see of a CPU; temporaries and caches are not.
#[derive(Debug, PartialEq)]
struct Seen {
    icount: u64,
    rip: u64,
    regs: Vec<u64>,
    rflags: u64,
    mode: u32,
    cpl: u8,
    waiting: [bool; 4],
    v: Vec<[u64; 4]>,
    mxcsr: u32,
    x87: emu_core::cpu::X87,
    segs: [emu_core::cpu::Segment; 6],
    sys: emu_core::cpu::SysRegs,
    vectors: Vec<u64>,
}

fn seen(cpu: &Cpu) -> Seen {
    Seen {
        icount: cpu.icount(),
        rip: cpu.rip(),
        regs: cpu.regs[..16].iter().chain(&cpu.regs[24..30]).copied().collect(),
        rflags: cpu.rflags(),
        mode: cpu.mode,
        cpl: cpu.cpl,
        waiting: [cpu.shadow, cpu.halted, cpu.nmi_blocked, cpu.shutdown],
        v: cpu.v[..16].to_vec(),
        mxcsr: cpu.mxcsr,
        x87: cpu.x87,
        segs: cpu.segs,
        sys: cpu.sys.clone(),
        vectors: cpu.vectors.to_vec(),
    }
}

/// Asserts that the two are the same.
#[track_caller]
pub fn same_state(a: &Cpu, b: &Cpu) {
    let (a, b) = (seen(a), seen(b));
    assert!(a == b, "they differ:\n{a:x?}\n{b:x?}");
}

/// Asserts that the first `len` bytes of their memories are the same.
#[track_caller]
pub fn same_memory(a: &Cpu, b: &Cpu, len: u64) {
    let (mut x, mut y) = ([0; 4096], [0; 4096]);
    for at in (0..len).step_by(4096) {
        a.mem.ram.read_bytes(at, &mut x);
        b.mem.ram.read_bytes(at, &mut y);
        assert!(x == y, "page {at:#x} differs after {} instructions", a.icount());
    }
}
