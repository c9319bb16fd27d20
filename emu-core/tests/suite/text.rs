//! The text form of random blocks.

use crate::{random, toy};
use emu_core::text::parse;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_printed_reads_back(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let block = random::block(&bytes);
        let text = block.to_string();
        let read = parse(&text, toy::FRONTEND.helpers);
        prop_assert_eq!(read.as_ref(), Ok(&block), "{}", text);
        prop_assert_eq!(read.unwrap().to_string(), text);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "[-+0-9a-z.,;:/*!=\\[\\] \n]{0,80}") {
        let _ = parse(&text, toy::FRONTEND.helpers);
    }

    #[test]
    fn no_change_of_a_good_text_makes_it_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..40),
        at in any::<prop::sample::Index>(),
        new in "[-+0-9a-z.,;:/*!\\[\\]é ]{0,3}",
    ) {
        let mut text = random::block(&bytes).to_string();
        let at = at.index(text.len());
        text.replace_range(at..=at, &new);
        if let Ok(block) = parse(&text, toy::FRONTEND.helpers) {
            prop_assert_eq!(parse(&block.to_string(), toy::FRONTEND.helpers), Ok(block));
        }
    }
}
