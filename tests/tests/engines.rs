//! Whole guests on the interpreter and on translated blocks: the same after every slice.

use backend_jit::x64::X64;
use emu_core::native::NativeStats;
use machine::{Boot, ClockKind, DebugExit, Engine, Kernel, Machine, MachineConfig, Outcome};
use ring3_tests::debian;
use std::time::Duration;

#[path = "../../machine/tests/engines/mod.rs"]
mod engines;

const TIME: Duration = Duration::from_secs(300);

fn demo() -> Machine {
    let config = MachineConfig {
        memory: 16 << 20,
        clock: ClockKind::Icount,
        engine: Engine::Interp,
        no_reboot: true,
        debug_exit: Some(DebugExit::default()),
        ..MachineConfig::new(Boot::Rom(roms::DEMO_ROM.to_vec()))
    };
    Machine::new(config).unwrap()
}

/// Runs the demo in step; gives the counters of the code generator.
fn demo_in_step(generator: engines::Generator, runs: u16) -> NativeStats {
    let (end, both) = engines::in_step(demo, generator, runs, TIME, u64::MAX);
    assert_eq!(end, Some(Outcome::DebugExit(roms::DEMO_SUCCESS_STATUS as u32)));
    both.machines()[1].vcpu().cache.translator().unwrap().stats()
}

#[test]
fn the_demo_is_the_same_on_both() {
    for (generator, runs) in
        engines::generators().zip([1; 2]).chain(engines::generators().zip([20; 2]))
    {
        let native = demo_in_step(generator, runs);
        assert!(native.blocks > 50 && native.links > 50, "{native:?}");
    }
}

/// Code is dropped, a segment of the buffer at a time, and made anew.
#[test]
fn the_demo_is_the_same_in_a_small_code_buffer() {
    let native = demo_in_step(|| Box::new(X64::new(48 << 10).unwrap()), 1);
    assert!(native.evictions > 2, "{native:?}");
    // All at once.
    let native = demo_in_step(|| Box::new(X64::new(40 << 10).unwrap()), 3);
    assert!(native.evictions > 0, "{native:?}");
}

#[test]
fn debian_is_the_same_on_both() {
    let guest = debian("uname -m; exit 7");
    let make = move || {
        let kernel = Kernel {
            image: guest.kernel.clone(),
            initrd: Some(guest.initrd.clone()),
            cmdline: guest.append.clone(),
            name: guest.kernel_version.clone(),
            ..Kernel::default()
        };
        let config = MachineConfig {
            memory: 128 << 20,
            clock: ClockKind::Icount,
            engine: Engine::Interp,
            no_reboot: true,
            ..MachineConfig::new(Boot::Kernel(kernel))
        };
        Machine::new(config).unwrap()
    };
    for (generator, runs) in engines::generators().zip([1, 3]) {
        let (end, both) = engines::in_step(make.clone(), generator, runs, TIME, u64::MAX);
        assert_eq!(end, Some(Outcome::PowerOff));
        let native = both.machines()[1].vcpu().cache.translator().unwrap().stats();
        assert!(native.blocks > 1000 && native.links > 1000, "{native:?}");
    }
}
