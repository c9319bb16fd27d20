//! The run loop with the toy frontend: linking, the budget, code that changes, pages that move,
//! single-stepping and interrupts.
//!
//! This file is three modules: for the interpreter, for blocks that are translated before they run
//! at all, and for blocks that are translated when they are warm.

use crate::machine::{RAM, cpu};
use crate::mock::translated;
use crate::toy::*;
use emu_core::clock::Clock;
use emu_core::cpu::{Cpu, mode};
use emu_core::fault::vector;
use emu_core::flags::rflags;
use emu_core::mem::phys::{GRANULE, Region, Writes};
use emu_core::mem::{GuestRam, PhysMem};
use emu_core::platform::{NoDevices, Platform};
use emu_core::vcpu::{Stop, Vcpu};
use emu_core::width::Width::W64;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

type Code<'a> = &'a [[u8; 4]];

const fn back(n: i8) -> u8 {
    (-n) as u8
}

/// A vCPU with code at these addresses, starting at the first.
fn vcpu(code: &[(u64, Code)]) -> Vcpu {
    let mut cpu = cpu();
    for (at, insns) in code {
        cpu.mem.write_bytes(*at, insns.as_flattened());
    }
    cpu.set_rip(code[0].0);
    around(cpu)
}

/// A vCPU with this module's engine.
fn around(cpu: Cpu) -> Vcpu {
    let v = Vcpu::new(cpu);
    match module_path!().rsplit("::").next() {
        Some("run_loop_translated") => translated(v, 1),
        Some("run_loop_warm") => translated(v, 3),
        _ => v,
    }
}

/// Runs to the halt; every instruction is counted.
fn finish(v: &mut Vcpu) {
    assert_eq!(v.run(1 << 40), Stop::Halted);
}

#[test]
fn linked_blocks_run_without_the_dispatcher() {
    // Two pages, two blocks each: a jump inside the page, one across, a conditional one back.
    let mut v = vcpu(&[
        (0x1000, &[[ADD, 0, 1, 0], [JMP, 3, 0, 0]]),
        (0x1014, &[[ADD, 0, 1, 0], [ADD, 2, 2, 0], [JMPI, 8, 0, 0]]),
        (
            0x2000,
            &[[ADD, 0, 1, 0], [DEC, 1, 0, 0], [JNZ, 1, 0, 0], [HALT, 0, 0, 0], [JMPI, 9, 0, 0]],
        ),
    ]);
    (v.cpu.regs[8], v.cpu.regs[9], v.cpu.regs[1]) = (0x2000, 0x1000, 10_000);
    finish(&mut v);
    assert_eq!((v.cpu.regs[0], v.cpu.regs[2]), (30_000, 20_000));
    assert_eq!(v.cpu.icount(), 10_000 * 8 + 9_999 + 1);
    assert!(v.stats.dispatches < 20, "{:?}", v.stats);
    assert!(v.cache.stats.lifted < 10 && v.cache.stats.links >= 2, "{:?}", v.cache.stats);
}

#[test]
fn direct_links_cross_pages() {
    let mut v = vcpu(&[
        (0x1ff0, &[[ADD, 0, 1, 0], [JMP, 4, 0, 0]]),
        (0x2008, &[[ADD, 0, 1, 0], [DEC, 1, 0, 0], [JNZ, back(9), 0, 0], [HALT, 0, 0, 0]]),
    ]);
    v.cpu.regs[1] = 1000;
    finish(&mut v);
    assert_eq!((v.cpu.regs[0], v.cpu.icount()), (2000, 5001));
    assert!(v.stats.dispatches < 10, "{:?}", v.stats);
}

#[test]
fn the_budget_is_exact_however_small() {
    let code: Code = &[
        [ADD, 0, 1, 0],
        [ADD, 0, 1, 0],
        [ADD, 0, 1, 0],
        [DEC, 1, 0, 0],
        [JNZ, back(5), 0, 0],
        [HALT, 0, 0, 0],
    ];
    for budget in [1, 2, 5, 6, 7, 11, 1000] {
        let mut v = vcpu(&[(0x1000, code)]);
        v.cpu.regs[1] = 20;
        let mut total = 0;
        while v.run(budget) == Stop::Budget {
            let (count, r) = (v.cpu.icount(), &v.cpu.regs);
            assert!(count > total && count < total + budget as u64 + 11, "{budget}: {count}");
            let turns = 20 - r[1];
            let halted = v.cpu.halted;
            assert_eq!((count, r[0]), (5 * turns + u64::from(halted), 3 * turns), "whole blocks");
            let end = if halted { 0x1018 } else { 0x1014 };
            assert_eq!(v.cpu.rip(), if turns == 20 { end } else { 0x1000 });
            total = count;
        }
        assert_eq!((v.cpu.icount(), v.cpu.regs[0]), (101, 60), "{budget}");
    }
}

#[test]
fn a_fault_charges_what_ran_before_it_and_the_attempt() {
    let mut v = vcpu(&[
        (0x1000, &[[ADD, 0, 1, 0], [ADD, 0, 1, 0], [LOAD, 3, 7, 0], [ADD, 0, 1, 0]]),
        (0x3000, &[[ADD, 5, 1, 0], [HALT, 0, 0, 0]]),
    ]);
    (v.cpu.regs[7], v.cpu.sys.lstar) = (RAM, 0x3000);
    finish(&mut v);
    assert_eq!((v.cpu.regs[0], v.cpu.regs[5], v.cpu.sys.cr2), (2, 1, 0x1008));
    assert_eq!((v.cpu.icount(), v.cpu.vectors[vector::PF as usize]), (5, 1));
}

#[test]
fn a_fetch_that_faults_is_delivered() {
    let mut v = vcpu(&[(0x1000, &[[JMPI, 7, 0, 0]]), (0x3000, &[[HALT, 0, 0, 0]])]);
    (v.cpu.regs[7], v.cpu.sys.lstar) = (RAM + 8, 0x3000);
    finish(&mut v);
    assert_eq!((v.cpu.sys.cr2, v.cpu.vectors[vector::PF as usize]), (RAM + 8, 1));
    assert_eq!(v.cpu.icount(), 3);
}

/// Each of the ways to store into the block that is running; `r3` is the new operand.
#[test]
fn a_block_that_overwrites_itself_is_exact() {
    for (store, value) in [([STORE, 7, 3, 9], 7), ([RMW, 7, 6, 9], 7), ([PUSH, 3, 0, 0], 0)] {
        // Instruction 2 adds 1 as written; the store before it makes that 7, or for the push 0.
        let mut v = vcpu(&[(
            0x1000,
            &[[ADD, 5, 1, 0], store, [ADD, 0, 1, 0], [ADD, 5, 1, 0], [HALT, 0, 0, 0]],
        )]);
        v.cpu.mem.write(0x1009, emu_core::width::Width::W8, 0);
        v.cpu.mem.write_bytes(0x1008, &[ADD, 0, 1, 0]);
        (v.cpu.regs[7], v.cpu.regs[3], v.cpu.regs[4]) = (0x1001, 7, 0x1010);
        if value == 0 {
            // The push writes all of instructions 2 and 3: two times `r2 += 0x55`.
            v.cpu.regs[3] = u64::from_le_bytes([ADD, 2, 0x55, 0, ADD, 2, 0x55, 0]);
        }
        finish(&mut v);
        assert_eq!(v.cpu.regs[0], value, "{store:?}");
        assert_eq!(v.cpu.regs[2], if value == 0 { 0xaa } else { 0 });
        assert_eq!(v.cpu.regs[5], if value == 0 { 1 } else { 2 });
        assert_eq!((v.cpu.icount(), v.stats.smc), (5, 1));
        assert!(v.cache.stats.invalidated >= 1);
    }
}

#[test]
fn a_loop_that_changes_itself_each_time_sees_each_change() {
    let mut v = vcpu(&[(
        0x1000,
        &[[RMW, 7, 1, 6], [ADD, 0, 0, 0], [DEC, 1, 0, 0], [JNZ, back(4), 0, 0], [HALT, 0, 0, 0]],
    )]);
    (v.cpu.regs[7], v.cpu.regs[1]) = (0x1000, 50);
    finish(&mut v);
    assert_eq!(v.cpu.regs[0], (1..=50).sum());
    assert_eq!(v.cpu.icount(), 201);
}

#[test]
fn stores_beside_code_cost_no_translation() {
    // The data is in the code's page, in the next granule; it is stored to, and read back.
    let mut v = vcpu(&[(
        0x1000,
        &[
            [STORE, 7, 1, 0],
            [LOAD, 3, 7, 0],
            [RMW, 7, 1, 1],
            [DEC, 1, 0, 0],
            [JNZ, back(5), 0, 0],
            [HALT, 0, 0, 0],
        ],
    )]);
    (v.cpu.regs[7], v.cpu.regs[1]) = (0x1000 + GRANULE, 200);
    finish(&mut v);
    assert_eq!((v.cpu.regs[3], v.cpu.mem.ram.read_u8(0x1001 + GRANULE)), (1, 200));
    assert_eq!((v.stats.smc, v.cache.stats.invalidated), (0, 0));
    assert!(v.stats.dispatches < 5, "{:?}", v.stats);
}

#[test]
fn links_into_code_that_changed_are_not_taken() {
    // Block A changes an operand of B, which it jumps to; B jumps back.
    let mut v = vcpu(&[
        (0x1000, &[[DEC, 1, 0, 0], [STORE, 7, 1, 0], [JMP, 61, 0, 0]]),
        (
            0x1100,
            &[
                [ADD, 0, 1, 0],
                [MOV, 2, 1, 0],
                [ADD, 2, 0, 0],
                [JNZ, 1, 0, 0],
                [HALT, 0, 0, 0],
                [JMPI, 8, 0, 0],
            ],
        ),
    ]);
    (v.cpu.regs[7], v.cpu.regs[8], v.cpu.regs[1]) = (0x1102, 0x1000, 100);
    finish(&mut v);
    assert_eq!(v.cpu.regs[0], (0..100).sum::<u64>(), "B adds what A has just put into it");
    assert_eq!(v.stats.smc, 99, "at the first B is not yet known");
}

#[test]
fn writes_from_outside_invalidate_too() {
    let code: Code = &[[ADD, 0, 1, 0], [DEC, 1, 0, 0], [JNZ, back(3), 0, 0], [HALT, 0, 0, 0]];
    let mut v = vcpu(&[(0x1000, code)]);
    v.cpu.regs[1] = 20;
    assert_eq!(v.run(30), Stop::Budget);
    let done = 20 - v.cpu.regs[1];
    v.cpu.mem.write_bytes(0x1002, &[100]);
    finish(&mut v);
    assert_eq!(v.cpu.regs[0], done + 100 * (20 - done));
}

/// Pages by [`MAP`]'s table: identical at first.
fn paged(mut v: Vcpu) -> Vcpu {
    for page in 0..RAM >> 12 {
        v.cpu.mem.write(TABLE + 8 * page, W64, page << 12 | 1);
    }
    v.cpu.sys.cr3 = 1;
    v
}

#[test]
fn a_link_into_a_page_that_moved_is_not_taken() {
    // Page 2 is physical page 5 and page 6 in turn; page 1 jumps into it, it jumps to page 3.
    let into: Code = &[[ADD, 0, 1, 0], [JMP, 10, 0, 0]];
    let mut v = paged(vcpu(&[
        (0x1ff0, into),
        (0x5020, &[[ADD, 5, 1, 0], [JMPI, 8, 0, 0]]),
        (0x6020, &[[ADD, 6, 1, 0], [JMPI, 8, 0, 0]]),
        (
            0x3000,
            &[
                [DEC, 1, 0, 0],
                [JNZ, 1, 0, 0],
                [HALT, 0, 0, 0],
                [ADD, 2, 1, 0],
                [LOAD, 3, 2, 0],
                [ADD, 3, 0, 0],
                [JNZ, 2, 0, 0],
                [MAP, 2, 5, 0],
                [JMPI, 9, 0, 0],
                [MAP, 2, 6, 0],
                [JMPI, 9, 0, 0],
            ],
        ),
    ]));
    v.cpu.mem.write(TABLE + 16, W64, 0x5001);
    // Bytes that tell which mapping comes next.
    let turns: Vec<u8> = (0..64).map(|i| (i / 3 % 2) as u8).collect();
    v.cpu.mem.write_bytes(0x4000, &turns);
    (v.cpu.regs[1], v.cpu.regs[2]) = (60, 0x4000);
    (v.cpu.regs[8], v.cpu.regs[9]) = (0x3000, 0x1ff0);
    finish(&mut v);
    let sixes = turns[1..60].iter().filter(|t| **t != 0).count() as u64;
    assert_eq!((v.cpu.regs[0], v.cpu.regs[5], v.cpu.regs[6]), (60, 60 - sixes, sixes));
}

/// The same, where at first both pages are the same physical one.
#[test]
fn a_link_between_two_mappings_of_one_page_is_guarded() {
    let mut v = paged(vcpu(&[
        // In page 1, and as page 2: forward by a page.
        (0x5000, &[[ADD, 0, 1, 0], [JMP, 100, 0, 0]]),
        (0x5198, &[[ADD, 0, 1, 0], [JMP, 100, 0, 0]]),
        (0x5330, &[[ADD, 0, 1, 0], [JMPI, 8, 0, 0]]),
        (
            0x3000,
            &[[DEC, 1, 0, 0], [JNZ, 1, 0, 0], [HALT, 0, 0, 0], [MAP, 2, 6, 0], [JMPI, 9, 0, 0]],
        ),
    ]));
    // From page 1's last instruction to page 2, whose physical page is the same and then 6.
    v.cpu.mem.write_bytes(0x5ff8, &[ADD, 0, 1, 0, JMP, 8, 0, 0]);
    v.cpu.mem.write_bytes(0x5020, &[ADD, 5, 1, 0, JMPI, 8, 0, 0]);
    v.cpu.mem.write_bytes(0x6020, &[ADD, 6, 1, 0, JMPI, 8, 0, 0]);
    v.cpu.mem.write(TABLE + 8, W64, 0x5001);
    v.cpu.mem.write(TABLE + 16, W64, 0x5001);
    v.cpu.set_rip(0x1ff8);
    (v.cpu.regs[1], v.cpu.regs[8], v.cpu.regs[9]) = (10, 0x3000, 0x1ff8);
    finish(&mut v);
    assert_eq!((v.cpu.regs[0], v.cpu.regs[5], v.cpu.regs[6]), (10, 1, 9));
}

#[test]
fn an_instruction_across_two_pages_sees_both() {
    // It begins in page 1, its operand is in page 2, which is physical page 5 and then 6.
    let mut v = paged(vcpu(&[(
        0x3000,
        &[[DEC, 1, 0, 0], [JNZ, 1, 0, 0], [HALT, 0, 0, 0], [MAP, 2, 6, 0], [JMPI, 9, 0, 0]],
    )]));
    v.cpu.mem.write_bytes(0x1ffe, &[ADD, 0]);
    v.cpu.mem.write_bytes(0x5000, &[3, 0, JMPI, 8, 0, 0]);
    v.cpu.mem.write_bytes(0x6000, &[50, 0, JMPI, 8, 0, 0]);
    v.cpu.mem.write(TABLE + 16, W64, 0x5001);
    v.cpu.set_rip(0x1ffe);
    (v.cpu.regs[1], v.cpu.regs[8], v.cpu.regs[9]) = (5, 0x3000, 0x1ffe);
    finish(&mut v);
    assert_eq!(v.cpu.regs[0], 3 + 4 * 50);
    // And a store into its second half.
    v.cpu.halted = false;
    v.cpu.mem.write_bytes(0x6000, &[60]);
    (v.cpu.regs[0], v.cpu.regs[1]) = (0, 5);
    v.cpu.set_rip(0x1ffe);
    finish(&mut v);
    assert_eq!(v.cpu.regs[0], 5 * 60);
}

/// One trap an instruction, also over jumps whose targets are translated already.
#[test]
fn single_stepping_stops_after_every_instruction() {
    let mut v = vcpu(&[
        (0x1000, &[[ADD, 0, 1, 0], [JMPI, 8, 0, 0]]),
        (
            0x1100,
            &[
                [ADD, 0, 1, 0],
                [ADD, 0, 1, 0],
                [DEC, 1, 0, 0],
                [JNZ, 2, 0, 0],
                [TRAP, 0, 0, 0],
                [HALT, 0, 0, 0],
                [JMPI, 9, 0, 0],
            ],
        ),
    ]);
    (v.cpu.regs[8], v.cpu.regs[9], v.cpu.regs[1]) = (0x1100, 0x1000, 5);
    assert_eq!(v.run(8), Stop::Budget);
    v.cpu.sysflags |= rflags::TF;
    let before = v.cpu.icount();
    finish(&mut v);
    assert_eq!(v.cpu.regs[0], 15);
    // TF is clear again for the halt.
    assert_eq!(v.cpu.vectors[1], v.cpu.icount() - before - 1);
}

/// A platform whose interrupt is requested until it is acknowledged.
#[derive(Default)]
struct OneInterrupt(AtomicBool);

impl Platform for OneInterrupt {
    fn mmio_read(&self, pa: u64, size: u8) -> u64 {
        NoDevices.mmio_read(pa, size)
    }
    fn mmio_write(&self, _: u64, _: u8, _: u64) {}
    fn port_in(&self, port: u16, size: u8) -> u32 {
        NoDevices.port_in(port, size)
    }
    fn port_out(&self, _: u16, _: u8, _: u32) {}
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

#[test]
fn an_interrupt_waits_for_the_shadow_to_pass() {
    let ram = Arc::new(GuestRam::new(RAM).unwrap());
    let region = Region { base: 0, len: RAM, offset: 0, writes: Writes::Ram };
    let platform = Arc::new(OneInterrupt(AtomicBool::new(true)));
    let mem = PhysMem::new(ram, vec![region], platform);
    let mut cpu = Cpu::new(mem, Arc::new(Clock::icount()), &FRONTEND);
    cpu.mode = mode::CODE64;
    let code: Code =
        &[[ADD, 0, 1, 0], [STI, 0, 0, 0], [JMPI, 8, 0, 0], [ADD, 0, 1, 0], [ADD, 0, 1, 0]];
    cpu.mem.write_bytes(0x1000, code.as_flattened());
    cpu.mem.write_bytes(0x3000, &[HALT, 0, 0, 0]);
    cpu.set_rip(0x1000);
    (cpu.sys.lstar, cpu.regs[8]) = (0x3000, 0x100c);
    let mut v = around(cpu);
    finish(&mut v);
    assert_eq!((v.cpu.regs[0], v.cpu.sys.cr2, v.cpu.vectors[0x40]), (1, 0x100c, 1));
    assert_eq!(v.stats.interrupts, 1);
}
