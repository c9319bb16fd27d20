//! The keys of a terminal: bytes to keys of a PC keyboard.
//!
//! A terminal tells characters, not keys: each becomes a key that goes down and up, with the
//! modifiers around it. ESC begins a sequence, stands for Alt before a character, or is the key
//! itself; which one shows only when nothing follows, so the caller says when nothing has for a
//! while ([`TerminalKeys::idle`]).
//!
//! Source: ECMA-48 (CSI), xterm's control sequences (SS3, function keys, modifiers), Linux
//! `console_codes(4)`.

use crate::keys::{self, ALT, CTRL, Key, SHIFT};

const ESC: u8 = 0x1b;
const ESC_KEY: u16 = 0x01;
/// The longest sequence; what is longer is dropped.
const LONGEST: usize = 32;

/// Keys by the final byte of `ESC [` and `ESC O`.
#[rustfmt::skip]
const BY_LETTER: [(u8, u16); 12] = [
    (b'A', 0xe048), (b'B', 0xe050), (b'C', 0xe04d), (b'D', 0xe04b), (b'E', 0x4c),
    (b'F', 0xe04f), (b'H', 0xe047), (b'M', 0xe01c),
    (b'P', 0x3b),   (b'Q', 0x3c),   (b'R', 0x3d),   (b'S', 0x3e),
];

/// Keys by the number of `ESC [ number ~`.
#[rustfmt::skip]
const BY_NUMBER: [(u32, u16); 20] = [
    (1, 0xe047),  (2, 0xe052),  (3, 0xe053),  (4, 0xe04f),  (5, 0xe049),  (6, 0xe051),
    (7, 0xe047),  (8, 0xe04f),
    (11, 0x3b),   (12, 0x3c),   (13, 0x3d),   (14, 0x3e),   (15, 0x3f),
    (17, 0x40),   (18, 0x41),   (19, 0x42),   (20, 0x43),   (21, 0x44),   (23, 0x57),   (24, 0x58),
];

fn find<T: PartialEq + Copy>(table: &[(T, u16)], what: T) -> Option<u16> {
    table.iter().find(|row| row.0 == what).map(|row| row.1)
}

/// Takes a terminal's bytes and gives keys.
#[derive(Clone, Debug, Default)]
pub struct TerminalKeys {
    /// A sequence or a character that is not all there.
    rest: Vec<u8>,
}

/// What the first bytes are.
enum Parsed {
    /// Nothing yet.
    Incomplete,
    /// So many bytes, and a key if it is a known one: its code, with the codes held meanwhile.
    Done(usize, Option<(Vec<u16>, u16)>),
}

impl TerminalKeys {
    /// The keys that `bytes`, after what came before, stand for.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Key> {
        self.rest.extend_from_slice(bytes);
        let (mut keys, mut used) = (Vec::new(), 0);
        while let Parsed::Done(len, key) = parse(&self.rest[used..]) {
            used += len;
            press(&mut keys, key);
        }
        self.rest.drain(..used);
        keys
    }

    /// Whether bytes wait for others.
    #[must_use]
    pub fn waits(&self) -> bool {
        !self.rest.is_empty()
    }

    /// Nothing has come for a while (20 to 100 ms): what waits is all there is.
    pub fn idle(&mut self) -> Vec<Key> {
        let rest = std::mem::take(&mut self.rest);
        let mut keys = Vec::new();
        match rest.as_slice() {
            [ESC] => press(&mut keys, Some((vec![], ESC_KEY))),
            [ESC, ESC] => press(&mut keys, Some((vec![ALT], ESC_KEY))),
            // Alt-[ and Alt-O look like the start of a sequence.
            [ESC, byte @ (b'[' | b'O')] => press(&mut keys, alt(character(char::from(*byte)))),
            _ => {}
        }
        keys
    }
}

fn press(keys: &mut Vec<Key>, key: Option<(Vec<u16>, u16)>) {
    if let Some((mut codes, code)) = key {
        codes.push(code);
        keys.extend(keys::presses(&codes));
    }
}

fn alt(key: Option<(Vec<u16>, u16)>) -> Option<(Vec<u16>, u16)> {
    key.map(|(mut held, code)| {
        held.insert(0, ALT);
        (held, code)
    })
}

/// The key of a character.
fn character(character: char) -> Option<(Vec<u16>, u16)> {
    let typed = |held: Vec<u16>, c: char| {
        keys::typed(c)
            .map(|(code, shift)| (held.into_iter().chain(shift.then_some(SHIFT)).collect(), code))
    };
    match character {
        '\t' | '\r' | ' '..='~' => typed(vec![], character),
        '\x08' | '\x7f' => Some((vec![], 0x0e)),
        '\x1b' => Some((vec![], ESC_KEY)),
        '\0' => typed(vec![CTRL], ' '),
        // Ctrl takes the upper bits away.
        '\x01'..='\x1a' => typed(vec![CTRL], char::from(character as u8 | 0x60)),
        '\x1c'..='\x1f' => typed(vec![CTRL], ['\\', ']', '6', '-'][character as usize - 0x1c]),
        _ => None,
    }
}

fn parse(bytes: &[u8]) -> Parsed {
    match bytes {
        [] | [ESC] => Parsed::Incomplete,
        [ESC, b'[' | b'O', ..] => sequence(bytes),
        // Alt with a key that is a sequence.
        [ESC, ESC, rest @ ..] => match rest {
            [] | [b'[' | b'O'] => Parsed::Incomplete,
            [b'[' | b'O', ..] => match sequence(&bytes[1..]) {
                Parsed::Done(len, key) => Parsed::Done(len + 1, alt(key)),
                incomplete => incomplete,
            },
            _ => Parsed::Done(2, alt(Some((vec![], ESC_KEY)))),
        },
        [ESC, rest @ ..] => match utf8(rest) {
            Parsed::Done(len, key) => Parsed::Done(len + 1, alt(key)),
            incomplete => incomplete,
        },
        _ => utf8(bytes),
    }
}

fn utf8(bytes: &[u8]) -> Parsed {
    let len = match bytes[0] {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => 1,
    };
    let end = bytes.iter().take(len).skip(1).position(|b| b & 0xc0 != 0x80);
    match end {
        // Not what the first byte promised: it means nothing.
        Some(n) => Parsed::Done(n + 1, None),
        None if bytes.len() < len => Parsed::Incomplete,
        None if len > 1 => Parsed::Done(len, None),
        None => Parsed::Done(1, character(char::from(bytes[0])).filter(|_| bytes[0] < 0x80)),
    }
}

/// `ESC [ parameters letter`, `ESC O letter`, and the Linux console's `ESC [ [ letter`.
fn sequence(bytes: &[u8]) -> Parsed {
    if let [_, b'[', b'[', rest @ ..] = bytes {
        return match rest.first() {
            None => Parsed::Incomplete,
            Some(&letter @ b'A'..=b'E') => {
                Parsed::Done(4, Some((vec![], 0x3b + u16::from(letter - b'A'))))
            }
            Some(_) => Parsed::Done(4, None),
        };
    }
    let is_final = |byte: &u8| !(0x20..0x40).contains(byte);
    let Some(len) = bytes[2..].iter().position(is_final) else {
        let long = bytes.len() > LONGEST;
        return if long { Parsed::Done(bytes.len(), None) } else { Parsed::Incomplete };
    };
    let (parameters, letter) = (&bytes[2..2 + len], bytes[2 + len]);
    if letter == ESC {
        // One that was broken off; the next one begins.
        return Parsed::Done(2 + len, None);
    }
    let text = std::str::from_utf8(parameters).unwrap_or("");
    let mut numbers = text.split(';').map(|n| n.parse::<u32>().unwrap_or(0));
    let first = numbers.next().unwrap_or(0);
    // `ESC O 5 P` has the modifiers first.
    let modifiers = numbers.next().unwrap_or(if bytes[1] == b'O' { first } else { 0 });
    let modifiers = modifiers.saturating_sub(1);
    let held = |bit: u32, code: u16| (modifiers & bit != 0).then_some(code);
    let mut held: Vec<u16> =
        [held(4, CTRL), held(2, ALT), held(1, SHIFT)].into_iter().flatten().collect();
    let code = match letter {
        b'~' => find(&BY_NUMBER, first),
        b'Z' => {
            held.push(SHIFT);
            Some(0x0f)
        }
        letter => find(&BY_LETTER, letter),
    };
    Parsed::Done(3 + len, code.map(|code| (held, code)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chord(name: &str) -> Vec<Key> {
        keys::chord(name).unwrap()
    }

    #[test]
    fn bytes_are_the_keys_that_people_press() {
        #[rustfmt::skip]
        let rows: &[(&[u8], &str)] = &[
            (b"a", "a"),              (b"A", "shift-a"),          (b"~", "shift-grave_accent"),
            (b"\r", "ret"),           (b"\t", "tab"),             (b"\x7f", "backspace"),
            (b"\x08", "backspace"),   (b"\x03", "ctrl-c"),        (b"\x0a", "ctrl-j"),
            (b"\0", "ctrl-spc"),      (b"\x1d", "ctrl-bracket_right"), (b"\x1c", "ctrl-backslash"),
            (b"\x1b[A", "up"),        (b"\x1bOD", "left"),        (b"\x1b[H", "home"),
            (b"\x1b[4~", "end"),      (b"\x1bOF", "end"),         (b"\x1b[5~", "pgup"),
            (b"\x1bOP", "f1"),        (b"\x1b[15~", "f5"),        (b"\x1b[24~", "f12"),
            (b"\x1b[[B", "f2"),       (b"\x1b[1;5C", "ctrl-right"), (b"\x1b[1;2P", "shift-f1"),
            (b"\x1b[3;3~", "alt-delete"), (b"\x1b[1;8A", "ctrl-alt-shift-up"),
            (b"\x1b[Z", "shift-tab"), (b"\x1bx", "alt-x"),        (b"\x1bX", "alt-shift-x"),
            (b"\x1b\r", "alt-ret"),   (b"\x1b\x1b[A", "alt-up"),  (b"\x1b\x06", "alt-ctrl-f"),
        ];
        for (bytes, name) in rows {
            let mut t = TerminalKeys::default();
            assert_eq!(t.feed(bytes), chord(name), "{name}");
            assert!(!t.waits());
            // In pieces, too.
            let pieces = bytes.iter().flat_map(|&byte| t.feed(&[byte])).collect::<Vec<_>>();
            assert_eq!(pieces, chord(name), "{name}");
        }
    }

    #[test]
    fn an_escape_alone_is_a_key_after_a_while() {
        let mut t = TerminalKeys::default();
        assert_eq!((t.feed(b"\x1b"), t.waits()), (vec![], true));
        assert_eq!((t.idle(), t.waits(), t.idle()), (chord("esc"), false, vec![]));
        assert_eq!((t.feed(b"\x1b["), t.idle()), (vec![], chord("alt-bracket_left")));
        assert_eq!((t.feed(b"\x1bO"), t.idle()), (vec![], chord("alt-shift-o")));
        assert_eq!((t.feed(b"\x1b\x1b"), t.idle()), (vec![], chord("alt-esc")));
        // A piece of a sequence is nothing.
        assert_eq!((t.feed(b"\x1b[1;"), t.idle()), (vec![], vec![]));
    }

    #[test]
    fn what_no_key_types_is_nothing_and_breaks_nothing() {
        let mut t = TerminalKeys::default();
        assert_eq!(t.feed("é€😀b".as_bytes()), chord("b"));
        assert_eq!(t.feed(b"\xc3b\xffc"), [chord("b"), chord("c")].concat());
        assert_eq!(t.feed(b"\x1b[99~\x1b[?1;2c\x1b[[xd"), chord("d"));
        assert_eq!(t.feed(b"\x1b[1\x1b[B"), chord("down"));
    }

    #[test]
    fn random_accesses() {
        let (mut t, mut seed) = (TerminalKeys::default(), 3u32);
        for n in 0..200_000 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let any = (seed >> 24) as u8;
            let byte = [any, ESC, b'[', b'0' + any % 12, any & 0x7f][(seed >> 16) as usize % 5];
            let keys = t.feed(&[byte]);
            assert!(keys.iter().filter(|k| k.pressed).count() * 2 == keys.len());
            assert!(t.rest.len() <= LONGEST + 2);
            if n % 1000 == 0 {
                t.idle();
            }
        }
        assert!(t.feed(&[b'0'; 1000]).len() > 1000);
    }
}
