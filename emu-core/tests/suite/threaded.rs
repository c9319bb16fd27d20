//! Threaded code against the plain reading of the op table, and its use of the host's stack.

use crate::machine::{RAM, check, cpu};
use crate::{random, toy};
use emu_core::interp::TAIL;
use emu_core::text::parse;
use emu_core::vcpu::{Stop, Vcpu};
use emu_core::verify::verify;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: 1000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn random_blocks_do_what_the_op_table_says(
        seed in any::<u64>(),
        bytes in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let block = random::block(&bytes);
        prop_assert_eq!(verify(&block), Ok(()), "{}", block);
        check(seed, &block);
    }
}

/// Handlers that call each other must be jumps: 64 KiB hold some hundred calls, not millions.
#[test]
fn a_long_loop_needs_no_stack() {
    let turns: u64 = if TAIL && !cfg!(debug_assertions) { 50_000_000 } else { 300_000 };
    let mut cpu = cpu();
    let at = RAM - 0x2000;
    // Loads, stores, a push, a pop, arithmetic and a conditional jump back.
    #[rustfmt::skip]
    let code = [
        [toy::LOAD, 3, 7, 0], [toy::ADD, 3, 1, 0], [toy::STORE, 7, 3, 0], [toy::PUSH, 3, 0, 0],
        [toy::POP, 5, 0, 0], [toy::DEC, 1, 0, 0], [toy::JNZ, (-7i8) as u8, 0, 0],
        [toy::HALT, 0, 0, 0],
    ];
    cpu.mem.write_bytes(at, code.as_flattened());
    cpu.set_rip(at);
    cpu.regs[1] = turns;
    cpu.regs[4] = 0x1000;
    cpu.regs[7] = 0x2000;
    let mut vcpu = Box::new(Vcpu::new(cpu));
    let run = move || {
        let stop = vcpu.run(i64::MAX / 2);
        (stop, vcpu.cpu.regs[1], vcpu.cpu.regs[5], vcpu.cpu.icount())
    };
    let thread = std::thread::Builder::new().stack_size(64 << 10).spawn(run).unwrap();
    let (stop, left, sum, count) = thread.join().unwrap();
    assert_eq!((stop, left, count), (Stop::Halted, 0, 7 * turns + 1));
    assert_eq!(sum & 0xff, turns & 0xff);
}

/// Each of the shapes whose threaded form depends on a temporary being dead must notice when the
/// destination is not a temporary, or is read again.
#[test]
fn a_loaded_value_that_is_still_wanted_is_kept() {
    for text in [
        "ldz.64 rax, [rdi]\n  add.64 rcx, rcx, rax !oszapc\n  exit",
        "ldz.64 rax, [rdi]\n  sub.64 zero, rax, rcx !oszapc\n  exit",
        "ldw.64 rax, [rdi]\n  add.64 t1, rax, rcx !oszapc\n  stw.64 [rdi], t1\n  exit",
        "ldz.64 rax, [stack rsp]\n  add.64 rsp, rsp, 0x8\n  jmpi.64 rax",
        "add.64 rax, rip, 0x5\n  st.64 [stack rsp - 0x8], rax\n  add.64 rsp, rsp, -0x8\n  goto.64 +0x9",
        "ldz.64 t0, [rdi]\n  add.64 rcx, rcx, t0\n  st.64 [t0], rcx\n  exit",
        "ldz.64 t0, [rdi]\n  add.64 rcx, rcx, t0\n  mov.64 rdx, t0\n  exit",
        "ldz.8 t0, [rdi]\n  add.8 t0, rcx, t0 !oszapc\n  mov.64 rdx, t0\n  exit",
    ] {
        let block = parse(&format!("+0 len 5\n  {text}"), &[]).unwrap();
        for seed in 0..8 {
            check(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed), &block);
        }
    }
}
