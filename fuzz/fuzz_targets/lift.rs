//! Guest bytes → micro-ops → passes → threaded code.
#![no_main]

use emu_core::clock::Clock;
use emu_core::cpu::Cpu;
use emu_core::interp::thread::thread;
use emu_core::mem::PhysMem;
use emu_core::passes;
use frontend_x86::FRONTEND;
use libfuzzer_sys::fuzz_target;
use ring3_fuzz::{check, lift};
use std::cell::RefCell;
use std::sync::Arc;

thread_local! {
    static CPU: RefCell<Cpu> = RefCell::new(Cpu::new(
        PhysMem::flat(4096).unwrap(),
        Arc::new(Clock::icount()),
        &FRONTEND,
    ));
}

fuzz_target!(|data: &[u8]| {
    let Some(mut block) = lift(data) else { return };
    check(&block, "as lifted");
    let before = block.to_string();
    passes::run(&mut block);
    check(&block, &format!("after the passes, of\n{before}"));
    CPU.with_borrow_mut(|cpu| {
        let threaded = thread(cpu, &block);
        assert!(!threaded.recs.is_empty() && threaded.recs.len() <= block.uops.len());
        assert_eq!(threaded.marks.len(), block.insns.len());
        cpu.rare.clear();
    });
});
