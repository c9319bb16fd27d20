//! Debug registers and debug exceptions.
//!
//! Which breakpoints are armed goes from DR7, DR0–DR3 and CR4.DE into [`Cpu::watch`], where the
//! core looks for them. Hits come back as DR6 bits: of an instruction breakpoint, before the
//! instruction; of data, ports, single step and task switches, after it.
//!
//! Source: SDM Vol. 3, 17.2 and 17.3.

use super::{cr4, interrupt, need_cpl0};
use emu_core::cpu::Cpu;
use emu_core::fault::{Fault, Guest, vector};
use emu_core::watch::{Kind, Point};

/// Bits of DR6 that can change, and those that are always one.
const DR6: (u64, u64) = (0xe00f, 0xffff_0ff0);
/// The same of DR7.
const DR7: (u64, u64) = (0xffff_23ff, 0x400);
/// DR6.BD: debug-register access detected.
const DR6_BD: u64 = 1 << 13;
/// DR7.GD: general detect.
const DR7_GD: u64 = 1 << 13;
/// DR7.L0–L3 and LE: a task switch clears them.
const DR7_LOCAL: u64 = 0x155;

/// Checks an access to debug register `n` and resolves the aliases DR4 and DR5.
fn index(cpu: &mut Cpu, n: u8) -> Guest<usize> {
    if matches!(n, 4 | 5) && cpu.sys.cr4 & cr4::DE != 0 || n > 7 {
        return Err(Fault::UD);
    }
    need_cpl0(cpu)?;
    if cpu.sys.dr[7] & DR7_GD != 0 {
        // General detect: DR6.BD is part of the exception.
        cpu.sys.dr[6] |= DR6_BD;
        return Err(Fault::new(vector::DB));
    }
    Ok(usize::from(if matches!(n, 4 | 5) { n + 2 } else { n }))
}

/// MOV from debug register `n`.
///
/// # Errors
/// #UD, #GP(0), #DB for general detect.
pub fn read_dr(cpu: &mut Cpu, n: u8) -> Guest<u64> {
    let i = index(cpu, n)?;
    Ok(cpu.sys.dr[i & 7])
}

/// MOV to debug register `n`.
///
/// # Errors
/// #UD, #GP(0), #DB for general detect.
pub fn write_dr(cpu: &mut Cpu, n: u8, value: u64) -> Guest<()> {
    let i = index(cpu, n)?;
    let (mask, ones) = match i {
        6 => DR6,
        7 => DR7,
        _ => (u64::MAX, 0),
    };
    if i >= 6 && value >> 32 != 0 {
        return Err(Fault::GP0);
    }
    cpu.sys.dr[i & 7] = value & mask | ones;
    arm(cpu);
    Ok(())
}

/// Breakpoint `i` of DR7, if L or G enables it. The low address bits that its length covers do not
/// count; ports need CR4.DE (SDM Vol. 3, 17.2.4 and 17.2.5).
fn point(cpu: &Cpu, i: usize) -> Option<Point> {
    let (address, dr7) = (cpu.sys.dr[i & 3], cpu.sys.dr[7]);
    let field = dr7 >> (16 + 4 * i);
    let kind = match field & 3 {
        0 => Kind::Execute,
        1 => Kind::Write,
        2 if cpu.sys.cr4 & cr4::DE == 0 => return None,
        2 => Kind::Port,
        _ => Kind::Access,
    };
    let bytes = if kind == Kind::Execute { 1 } else { [1, 2, 8, 4][(field >> 2 & 3) as usize] };
    let first = address & !(bytes - 1);
    (dr7 >> (2 * i) & 3 != 0).then_some(Point { first, last: first | (bytes - 1), kind })
}

/// Arms the breakpoints as DR0–DR3, DR7 and CR4.DE say.
pub fn arm(cpu: &mut Cpu) {
    let was = cpu.watch.clone();
    cpu.watch.arm([0, 1, 2, 3].map(|i| point(cpu, i)));
    if cpu.watch != was {
        // Pages that get a data breakpoint lose their tags.
        cpu.tlb.clear_level1();
    }
}

/// What a task switch does to the breakpoints: the local ones are disabled.
pub fn leave_task(cpu: &mut Cpu) {
    cpu.sys.dr[7] &= !DR7_LOCAL;
    arm(cpu);
}

/// Every #DB but that of INT1 turns general detect off, so that its handler may read the registers.
pub fn entered(cpu: &mut Cpu) {
    cpu.sys.dr[7] &= !DR7_GD;
}

/// The function for [`emu_core::cpu::Frontend::single_step`]: #DB with the DR6 bits of
/// [`emu_core::watch::Watch::hits`]. RIP is that of the next instruction, which for an instruction
/// breakpoint has not run.
pub fn trap(cpu: &mut Cpu) {
    cpu.sys.dr[6] = cpu.sys.dr[6] & !15 | cpu.watch.hits;
    interrupt::deliver_trap(cpu, vector::DB);
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, Level, *};
    use super::*;
    use emu_core::cpu::{Reg, Seg};
    use emu_core::flags::rflags;
    use emu_core::platform::Platform;
    use emu_core::vcpu::{Stop, Vcpu};
    use emu_core::width::Width::{W16, W32, W64};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

    const NOP: u8 = 0x90;
    const HLT: u8 = 0xf4;
    /// Where #DB goes.
    const HANDLER: u64 = 0x600;
    /// inc ebx; iretd
    const COUNT: &[u8] = &[0x43, 0xcf];

    /// Code at 1234H in flat 32-bit mode; debug registers; the handler of #DB.
    fn machine(dr: &[(u8, u64)], code: &[u8], handler: &[u8]) -> Vcpu {
        let mut c = cpu(Level::Protected);
        c.sys.cr4 |= cr4::DE;
        gate(&mut c, 1, CODE0, HANDLER, 0x8e, 0);
        dr.iter().for_each(|&(n, v)| write_dr(&mut c, n, v).unwrap());
        testing::vcpu(c, &[(0x1234, code), (HANDLER, handler)])
    }

    /// Runs until the handler, which halts: pushed EIP (from the code's first byte), pushed RF,
    /// and the bits of DR6 that are set; `None` if the code came to its own HLT.
    fn first_trap(v: &mut Vcpu) -> Option<(u64, bool, u64)> {
        assert_eq!(v.run(1000), Stop::Halted);
        let c = &v.cpu;
        let sp = c.reg(Reg::RSP);
        let (eip, flags) = (c.mem.read(sp, W32), c.mem.read(sp + 8, W32));
        let dr6 = c.sys.dr[6] & 0xf00f;
        (c.rip() == HANDLER + 1).then_some((eip.wrapping_sub(0x1234), flags & rflags::RF != 0, dr6))
    }

    /// SDM Vol. 3, 17.2.2 to 17.2.4.
    #[test]
    fn registers() {
        let mut c = cpu(Level::Long);
        write_dr(&mut c, 4, 0xffff_ffff).unwrap();
        assert_eq!(read_dr(&mut c, 6), Ok(0xffff_efff & (0xffff_0ff0 | 0xe00f)));
        write_dr(&mut c, 3, 1 << 60).unwrap();
        assert_eq!(read_dr(&mut c, 3), Ok(1 << 60));
        assert_eq!(write_dr(&mut c, 7, 1 << 32), Err(Fault::GP0));
        write_dr(&mut c, 5, 0xffff_d800).unwrap();
        assert_eq!(read_dr(&mut c, 7), Ok(0xffff_0400));
        c.sys.cr4 |= cr4::DE;
        assert_eq!(read_dr(&mut c, 4), Err(Fault::UD));
        c.cpl = 3;
        assert_eq!((read_dr(&mut c, 0), read_dr(&mut c, 5)), (Err(Fault::GP0), Err(Fault::UD)));
    }

    /// General detect is a fault: EIP is the instruction's, RF is pushed, GD is off in the handler.
    #[test]
    fn general_detect() {
        let mut v = machine(&[(7, DR7_GD)], &[NOP, 0x0f, 0x21, 0xc0, HLT], &[HLT]);
        assert_eq!(first_trap(&mut v), Some((1, true, DR6_BD)));
        assert_eq!(v.cpu.sys.dr[7], 0x400);
    }

    /// SDM Vol. 3, 17.3.1.1: a fault before the instruction, unless RF is set.
    #[test]
    fn instruction_breakpoints() {
        let code = &[NOP, 0x40, NOP, HLT]; // nop; inc eax; nop; hlt
        let mut v = machine(&[(1, 0x1235), (7, 1 << 2)], code, &[HLT]);
        assert_eq!(first_trap(&mut v), Some((1, false, 2)));
        assert_eq!(v.cpu.reg(Reg::RAX), 0, "the instruction has not run");
        // The second byte of an instruction does not count, nor does a disabled one.
        let mut v = machine(&[(1, 0x1236), (7, 1 << 2)], &[NOP, 0xb0, NOP, HLT], &[HLT]);
        assert_eq!(first_trap(&mut v), None);
        let mut v = machine(&[(1, 0x1235), (7, 1)], code, &[HLT]);
        assert_eq!((first_trap(&mut v), v.stats.single), (None, 4), "DR0 is armed");
        let mut v = machine(&[(1, 0x1235), (7, 0)], code, &[HLT]);
        assert_eq!((first_trap(&mut v), v.stats.single), (None, 0), "nothing is");
        // or byte [esp+10], 1; inc ebx; iretd: RF lets it run, once.
        let resume = &[0x80, 0x4c, 0x24, 10, 1, 0x43, 0xcf];
        let jump = &[NOP, 0x40, 0x3c, 3, 0x75, 0xfa, HLT]; // …; cmp al, 3; jne 1234h
        let mut v = machine(&[(0, 0x1235), (7, 2)], jump, resume);
        assert_eq!(v.run(1000), Stop::Halted);
        assert_eq!((v.cpu.rip(), v.cpu.reg(Reg::RBX), v.cpu.reg(Reg::RAX)), (0x123b, 3, 3));
        // A handler that does not set it gets the same breakpoint for ever: no hang.
        let mut v = machine(&[(0, 0x1235), (7, 2)], code, COUNT);
        assert_eq!(v.run(1000), Stop::Budget);
        // So does one that has a breakpoint on itself.
        let mut v = machine(&[(0, HANDLER), (1, 0x1235), (7, 5)], code, &[HLT]);
        assert_eq!(v.run(1000), Stop::Budget);
    }

    /// Code, DR0, R/W and LEN of DR7, and whether it hits.
    #[test]
    fn data_breakpoints() {
        let (w, rw) = (1 << 16, 3 << 16);
        let (b2, b8, b4) = (1 << 18, 2 << 18, 3 << 18);
        let store: &[u8] = &[0xa3, 4, 0x50, 0, 0]; // mov [5004h], eax
        let load: &[u8] = &[0xa0, 4, 0x50, 0, 0]; // mov al, [5004h]
        let rmw: &[u8] = &[0xfe, 5, 4, 0x50, 0, 0]; // inc byte [5004h]
        let push: &[u8] = &[0x50]; // push eax
        let call: &[u8] = &[0xe8, 0, 0, 0, 0]; // call the next instruction
        let sse: &[u8] = &[0x0f, 0x29, 5, 0, 0x50, 0, 0]; // movaps [5000h], xmm0
        let x87: &[u8] = &[0xdd, 0x35, 0xa0, 0x4f, 0, 0]; // fnsave [4fa0h]: up to 500bh
        #[rustfmt::skip]
        let rows: [(&[u8], u64, u64, bool); 18] = [
            (store, 0x5004, w, true), (store, 0x5007, w, true),
            (store, 0x5008, rw, false), (store, 0x5003, w, false),
            (store, 0x5003, w | b2, false), (store, 0x5003, w | b4, false),
            (store, 0x5002, w | b8, true), (store, 0x5001, w | b8, true),
            (load, 0x5004, w, false), (load, 0x5004, rw, true),
            (load, 0x5005, rw, false), (load, 0x5006, rw | b4, true),
            (rmw, 0x5004, w, true), (push, STACK - 1, w, true),
            (call, STACK - 4, w | b4, true), (sse, 0x500c, w | b4, true),
            (x87, 0x5008, w | b4, true), (store, 0x1234, rw, false),
        ];
        for (code, dr0, dr7, hits) in rows {
            let bytes = [code, &[NOP, HLT]].concat();
            let mut v = machine(&[(0, dr0), (7, dr7 | 2)], &bytes, &[HLT]);
            (v.cpu.sys.cr0, v.cpu.sys.cr4) = (v.cpu.sys.cr0, v.cpu.sys.cr4 | cr4::OSFXSR);
            super::super::mode::update(&mut v.cpu);
            v.cpu.set_reg(Reg::RAX, 0x11);
            let expected = hits.then_some((code.len() as u64, false, 1));
            assert_eq!(first_trap(&mut v), expected, "{code:x?} {dr0:x} {dr7:x}");
        }
        // Stores before the breakpoint was armed have filled the TLB: mov eax, 0d0002h;
        // mov dr7, eax.
        let arm = [store, &[0xb8, 2, 0, 13, 0, 0x0f, 0x23, 0xf8], store, &[HLT]].concat();
        let mut v = machine(&[(0, 0x5004)], &arm, &[HLT]);
        assert_eq!(first_trap(&mut v), Some((18, false, 1)));
    }

    /// In 64-bit code, above 4 GiB and 8 bytes long: mov [rax+5], cl.
    #[test]
    fn data_breakpoints_of_64_bits() {
        let mut c = cpu(Level::Long);
        let high = 0xffff_8000_0000_0000u64;
        c.mem.write(0x10_0800, W64, 0x10_1007);
        gate(&mut c, 1, CODE0, HANDLER, 0x8e, 0);
        write_dr(&mut c, 2, high + 0x5007).unwrap();
        write_dr(&mut c, 7, 1 << 24 | 2 << 26 | 1 << 5).unwrap();
        c.set_reg(Reg::RAX, high + 0x5000);
        let code: &[u8] = &[0x88, 0x08, 0x88, 0x48, 8, 0x88, 0x48, 5, HLT];
        let mut v = testing::vcpu(c, &[(0x1234, code), (HANDLER, &[HLT])]);
        assert_eq!(v.run(100), Stop::Halted);
        assert_eq!((v.cpu.mem.read(v.cpu.reg(Reg::RSP), W64), v.cpu.sys.dr[6] & 15), (0x1236, 4));
    }

    /// R/W = 10b with CR4.DE.
    #[test]
    fn port_breakpoints() {
        let code = &[0xe5, 0x5e, 0xe6, 0x61, HLT]; // in eax, 5eh; out 61h, al
        for (port, len, at) in [(0x61, 0, 2), (0x60, 1, 2), (0x62, 3, 2), (0x62, 0, 0)] {
            let dr7 = 2 << 16 | len << 18 | 1;
            let mut v = machine(&[(0, port), (7, dr7)], code, &[HLT]);
            let expected = (at != 0).then_some((at, false, 1));
            assert_eq!(first_trap(&mut v), expected, "{port:x}");
            let mut v = machine(&[(0, port), (7, dr7)], code, &[HLT]);
            v.cpu.sys.cr4 &= !cr4::DE;
            arm(&mut v.cpu);
            assert_eq!(first_trap(&mut v), None, "without CR4.DE");
        }
    }

    /// A repeated instruction traps after the iteration that hits, with RF; then it goes on.
    #[test]
    fn breakpoints_in_repeated_instructions() {
        let code = &[0xf3, 0xaa, 0x6a, 2, 0x9d, HLT]; // rep stosb; push 2; popfd; hlt
        let run = |handler, dr: &[(u8, u64)], flags| {
            let mut v = machine(dr, code, handler);
            v.cpu.set_reg(Reg::RDI, 0x5000);
            v.cpu.set_reg(Reg::RCX, 8);
            v.cpu.set_rflags(flags);
            v
        };
        let middle = [(0, 0x5002), (7, 1 << 16 | 2)];
        let mut v = run(&[HLT], &middle, 0);
        assert_eq!(first_trap(&mut v), Some((0, true, 1)));
        assert_eq!((v.cpu.reg(Reg::RCX), v.cpu.reg(Reg::RDI)), (5, 0x5003));
        let mut v = run(COUNT, &middle, 0);
        assert_eq!(v.run(1000), Stop::Halted);
        assert_eq!((v.cpu.reg(Reg::RBX), v.cpu.reg(Reg::RCX)), (1, 0));
        let mut v = run(&[HLT], &[(0, 0x5007), (7, 1 << 16 | 2)], 0);
        assert_eq!(first_trap(&mut v), Some((2, false, 1)), "the last iteration");
        // A breakpoint on the instruction hits once, not once an iteration; single steps do.
        let resume = &[0x80, 0x4c, 0x24, 10, 1, 0x43, 0xcf];
        let both = [(0, 0x1234), (1, 0x5002), (7, 1 << 20 | 10)];
        let mut v = run(resume, &both, 0);
        assert_eq!(v.run(1000), Stop::Halted);
        assert_eq!(v.cpu.reg(Reg::RBX), 2);
        let mut v = run(COUNT, &[], rflags::TF);
        assert_eq!(v.run(1000), Stop::Halted);
        assert_eq!(v.cpu.reg(Reg::RBX), 8 + 2, "eight iterations, PUSH and POPF");
    }

    /// SDM Vol. 3, 17.3.1.4 and 6.8.3: what TF traps after, and the shadow of MOV SS.
    #[test]
    fn single_step() {
        // How many traps come before push 2; popfd; hlt, of which the first two are trapped after.
        let db = |code: &[u8], flags| {
            let code = [code, &[0x6a, 2, 0x9d, HLT]].concat();
            let mut v = machine(&[], &code, COUNT);
            gate(&mut v.cpu, 0x40, CODE0, 0x700, 0x8f, 0);
            v.cpu.mem.write_bytes(0x700, &[NOP, NOP, 0xcf]);
            v.cpu.set_rflags(flags);
            v.cpu.set_reg(Reg::RAX, DATA0.into());
            assert_eq!(v.run(1000), Stop::Halted);
            assert_eq!(v.cpu.sys.dr[6] & 0xf00f, emu_core::watch::BS);
            v.cpu.reg(Reg::RBX) - 2
        };
        let tf = rflags::TF;
        assert_eq!(db(&[NOP, NOP], tf), 2);
        assert_eq!(db(&[0x8e, 0xd0, NOP], tf), 1, "mov ss, ax with the one after it");
        assert_eq!(db(&[0x8e, 0xd8, NOP], tf), 2, "mov ds, ax");
        assert_eq!(db(&[0x8e, 0xd0, 0x8e, 0xd0, NOP], tf), 2, "only the first one counts");
        assert_eq!(db(&[0xcd, 0x40, NOP], tf), 1, "not INT, nor its handler");
        assert_eq!(db(&[0xfb, NOP], tf), 2, "STI has no such shadow");
        // push 102h; popfd: TF counts as it was before the instruction.
        assert_eq!(db(&[0x68, 2, 1, 0, 0, 0x9d, NOP], 0), 1);
    }

    /// A data breakpoint of MOV SS waits for the next instruction, INT3 even: then it comes before
    /// the first instruction of the handler. An instruction breakpoint there does not hit.
    #[test]
    fn the_shadow_of_mov_ss() {
        let mov_ss = &[0x8e, 0x15, 0, 0x50, 0, 0]; // mov ss, [5000h]
        let run = |code: &[u8], dr: &[(u8, u64)]| {
            let mut v = machine(dr, &[mov_ss, code].concat(), &[HLT]);
            v.cpu.mem.write(0x5000, W16, DATA0.into());
            gate(&mut v.cpu, 3, CODE0, 0x700, 0x8e, 0);
            v.cpu.mem.write_bytes(0x700, &[NOP, HLT]);
            v
        };
        let data = [(0, 0x5000), (7, 3 << 16 | 2)];
        assert_eq!(first_trap(&mut run(&[NOP, NOP, HLT], &data)), Some((7, false, 1)));
        let mut v = run(&[0xcc, HLT], &data);
        assert_eq!(
            first_trap(&mut v),
            Some((0x700u64.wrapping_sub(0x1234), false, 1)).map(|t| { (t.0, t.1, t.2) })
        );
        assert_eq!(v.cpu.vectors[3], 1);
        let next = [(0, 0x123a), (7, 2)];
        assert_eq!(first_trap(&mut run(&[NOP, NOP, HLT], &next)), None);
        assert_eq!(v.cpu.segs[Seg::Ss as usize].selector, DATA0);
    }

    /// A device that requests interrupt 40H when port 10H is written.
    #[derive(Default)]
    struct Button(AtomicBool);

    impl Platform for Button {
        fn mmio_read(&self, _: u64, _: u8) -> u64 {
            0
        }
        fn mmio_write(&self, _: u64, _: u8, _: u64) {}
        fn port_in(&self, _: u16, _: u8) -> u32 {
            0
        }
        fn port_out(&self, _: u16, _: u8, _: u32) {
            self.0.store(true, SeqCst);
        }
        fn apic_msr_read(&self, _: u32, _: u64) -> Option<u64> {
            None
        }
        fn apic_msr_write(&self, _: u32, _: u64, _: u64) -> Option<()> {
            None
        }
        fn tpr(&self) -> u8 {
            0
        }
        fn set_tpr(&self, _: u8) {}
        fn interrupt_pending(&self) -> bool {
            self.0.load(SeqCst)
        }
        fn acknowledge(&self) -> Option<u8> {
            self.0.swap(false, SeqCst).then_some(0x40)
        }
    }

    /// SDM Vol. 3, table 6-2: between two instructions traps of the first come before interrupts,
    /// and those before an instruction breakpoint on the second.
    #[test]
    fn priorities_between_instructions() {
        let code = &[0xe6, 0x10, NOP, 0x6a, 2, 0x9d, HLT]; // out 10h, al; nop; push 2; popfd; hlt
        let events = |dr: &[(u8, u64)], flags, budget| {
            let handler = [0xc1, 0xe3, 4, 0x83, 0xcb, 1, 0xcf]; // shl ebx, 4; or ebx, 1; iretd
            let mut v = machine(dr, code, &handler);
            gate(&mut v.cpu, 0x40, CODE0, 0x700, 0x8e, 0);
            let other = [0xc1, 0xe3, 4, 0x83, 0xcb, 4, 0xcf];
            v.cpu.mem.write_bytes(0x700, &other);
            v.cpu.mem.platform = Arc::new(Button::default());
            v.cpu.set_rflags(flags | rflags::IF);
            v.run(budget);
            v.cpu.reg(Reg::RBX)
        };
        // After OUT: trap, interrupt; then NOP, PUSH and POPF each a trap.
        assert_eq!(events(&[], rflags::TF, 60), 0x1_4111);
        assert_eq!(events(&[(0, 0x10), (7, 2 << 16 | 1)], 0, 60), 0x14);
        // The breakpoint is hit again and again, as RF is not set; the interrupt came first.
        assert_eq!(events(&[(0, 0x1236), (7, 1)], 0, 12), 0x411);
    }

    /// INT1 is a trap without DR6, and takes no notice of the gate's DPL.
    #[test]
    fn icebp() {
        let mut v = machine(&[(7, 0)], &[NOP, 0xf1, HLT], &[HLT]);
        to_user(&mut v.cpu, CODE3, 0x7000);
        assert_eq!(first_trap(&mut v), Some((2, false, 0)));
        assert_eq!((v.cpu.cpl, v.cpu.reg(Reg::RSP)), (0, KERNEL_STACK - 20));
    }
}
