//! The text form: any text, and what lifted blocks print.
#![no_main]

use emu_core::text::parse;
use emu_core::uop::Block;
use frontend_x86::FRONTEND;
use libfuzzer_sys::fuzz_target;

fn reads_back(block: &Block) {
    let text = block.to_string();
    match parse(&text, FRONTEND.helpers) {
        Ok(read) => assert_eq!(read, *block, "{text}"),
        Err(e) => panic!("{e}\n{text}"),
    }
}

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(block) = parse(text, FRONTEND.helpers)
    {
        reads_back(&block);
    }
    if let Some(block) = ring3_fuzz::lift(data) {
        reads_back(&block);
    }
});
