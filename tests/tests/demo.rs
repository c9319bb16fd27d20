//! The embedded guest tells its whole story, and the same one every time.

use machine::{Boot, ClockKind, DebugExit, MachineConfig, Outcome};
use ring3_tests::run;

fn demo(clock: ClockKind) -> ring3_tests::End {
    run(MachineConfig {
        memory: 16 << 20,
        clock,
        no_reboot: true,
        debug_exit: Some(DebugExit::default()),
        ..MachineConfig::new(Boot::Rom(roms::DEMO_ROM.to_vec()))
    })
}

#[test]
fn the_story_is_complete() {
    let end = demo(ClockKind::Host);
    let success = roms::DEMO_SUCCESS_STATUS as u32;
    assert_eq!(end.outcome, Outcome::DebugExit(success), "{}", end.console);
    assert_eq!(end.console, String::from_utf8_lossy(&roms::demo_serial()));
}

#[test]
fn the_story_repeats_to_the_instruction() {
    let [a, b] = [(), ()].map(|()| demo(ClockKind::Icount));
    assert_eq!((a.console, a.instructions, a.guest_ns), (b.console, b.instructions, b.guest_ns));
}
