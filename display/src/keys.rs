//! Keys of a PC keyboard by the names that people, X11 and QEMU have for them.
//!
//! A key is its set 1 make code, with E0H in the high byte for keys that have that prefix (Pause is
//! E11DH). One table has code, QEMU's name, and the X11 keysyms of the key alone and with Shift on
//! a US layout; printable ASCII characters are keysyms as they are.
//!
//! Source: IBM PS/2 Hardware Interface Technical Reference, "Keyboard"; X11 `keysymdef.h` for the
//! values; QEMU's `QKeyCode` for the names.

/// A key goes down (or repeats) or up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Set 1 make code; prefix E0H in the high byte.
    pub code: u16,
    /// Down.
    pub pressed: bool,
}

impl Key {
    /// The key goes down.
    #[must_use]
    pub const fn down(code: u16) -> Key {
        Key { code, pressed: true }
    }

    /// The key goes up.
    #[must_use]
    pub const fn up(code: u16) -> Key {
        Key { code, pressed: false }
    }
}

/// Left Shift, Ctrl and Alt.
pub const SHIFT: u16 = 0x2a;
/// Left Ctrl.
pub const CTRL: u16 = 0x1d;
/// Left Alt.
pub const ALT: u16 = 0x38;

/// Code, name, keysym alone, keysym with Shift (0: the same or none).
type Row = (u16, &'static str, u32, u32);

/// A keysym of a printable character.
const fn c(character: char) -> u32 {
    character as u32
}

#[rustfmt::skip]
const KEYS: &[Row] = &[
    (0x01,   "esc",           0xff1b,  0),
    (0x02,   "1",             c('1'),  c('!')),
    (0x03,   "2",             c('2'),  c('@')),
    (0x04,   "3",             c('3'),  c('#')),
    (0x05,   "4",             c('4'),  c('$')),
    (0x06,   "5",             c('5'),  c('%')),
    (0x07,   "6",             c('6'),  c('^')),
    (0x08,   "7",             c('7'),  c('&')),
    (0x09,   "8",             c('8'),  c('*')),
    (0x0a,   "9",             c('9'),  c('(')),
    (0x0b,   "0",             c('0'),  c(')')),
    (0x0c,   "minus",         c('-'),  c('_')),
    (0x0d,   "equal",         c('='),  c('+')),
    (0x0e,   "backspace",     0xff08,  0),
    (0x0f,   "tab",           0xff09,  0xfe20),
    (0x10,   "q",             c('q'),  c('Q')),
    (0x11,   "w",             c('w'),  c('W')),
    (0x12,   "e",             c('e'),  c('E')),
    (0x13,   "r",             c('r'),  c('R')),
    (0x14,   "t",             c('t'),  c('T')),
    (0x15,   "y",             c('y'),  c('Y')),
    (0x16,   "u",             c('u'),  c('U')),
    (0x17,   "i",             c('i'),  c('I')),
    (0x18,   "o",             c('o'),  c('O')),
    (0x19,   "p",             c('p'),  c('P')),
    (0x1a,   "bracket_left",  c('['),  c('{')),
    (0x1b,   "bracket_right", c(']'),  c('}')),
    (0x1c,   "ret",           0xff0d,  0),
    (0x1d,   "ctrl",          0xffe3,  0),
    (0x1e,   "a",             c('a'),  c('A')),
    (0x1f,   "s",             c('s'),  c('S')),
    (0x20,   "d",             c('d'),  c('D')),
    (0x21,   "f",             c('f'),  c('F')),
    (0x22,   "g",             c('g'),  c('G')),
    (0x23,   "h",             c('h'),  c('H')),
    (0x24,   "j",             c('j'),  c('J')),
    (0x25,   "k",             c('k'),  c('K')),
    (0x26,   "l",             c('l'),  c('L')),
    (0x27,   "semicolon",     c(';'),  c(':')),
    (0x28,   "apostrophe",    c('\''), c('"')),
    (0x29,   "grave_accent",  c('`'),  c('~')),
    (0x2a,   "shift",         0xffe1,  0),
    (0x2b,   "backslash",     c('\\'), c('|')),
    (0x2c,   "z",             c('z'),  c('Z')),
    (0x2d,   "x",             c('x'),  c('X')),
    (0x2e,   "c",             c('c'),  c('C')),
    (0x2f,   "v",             c('v'),  c('V')),
    (0x30,   "b",             c('b'),  c('B')),
    (0x31,   "n",             c('n'),  c('N')),
    (0x32,   "m",             c('m'),  c('M')),
    (0x33,   "comma",         c(','),  c('<')),
    (0x34,   "dot",           c('.'),  c('>')),
    (0x35,   "slash",         c('/'),  c('?')),
    (0x36,   "shift_r",       0xffe2,  0),
    (0x37,   "kp_multiply",   0xffaa,  0),
    (0x38,   "alt",           0xffe9,  0xffe7),
    (0x39,   "spc",           c(' '),  0),
    (0x3a,   "caps_lock",     0xffe5,  0),
    (0x3b,   "f1",            0xffbe,  0),
    (0x3c,   "f2",            0xffbf,  0),
    (0x3d,   "f3",            0xffc0,  0),
    (0x3e,   "f4",            0xffc1,  0),
    (0x3f,   "f5",            0xffc2,  0),
    (0x40,   "f6",            0xffc3,  0),
    (0x41,   "f7",            0xffc4,  0),
    (0x42,   "f8",            0xffc5,  0),
    (0x43,   "f9",            0xffc6,  0),
    (0x44,   "f10",           0xffc7,  0),
    (0x45,   "num_lock",      0xff7f,  0),
    (0x46,   "scroll_lock",   0xff14,  0),
    (0x47,   "kp_7",          0xffb7,  0xff95),
    (0x48,   "kp_8",          0xffb8,  0xff97),
    (0x49,   "kp_9",          0xffb9,  0xff9a),
    (0x4a,   "kp_subtract",   0xffad,  0),
    (0x4b,   "kp_4",          0xffb4,  0xff96),
    (0x4c,   "kp_5",          0xffb5,  0xff9d),
    (0x4d,   "kp_6",          0xffb6,  0xff98),
    (0x4e,   "kp_add",        0xffab,  0),
    (0x4f,   "kp_1",          0xffb1,  0xff9c),
    (0x50,   "kp_2",          0xffb2,  0xff99),
    (0x51,   "kp_3",          0xffb3,  0xff9b),
    (0x52,   "kp_0",          0xffb0,  0xff9e),
    (0x53,   "kp_decimal",    0xffae,  0xff9f),
    (0x54,   "sysrq",         0xff15,  0),
    (0x56,   "less",          0,       0),
    (0x57,   "f11",           0xffc8,  0),
    (0x58,   "f12",           0xffc9,  0),
    (0xe01c, "kp_enter",      0xff8d,  0),
    (0xe01d, "ctrl_r",        0xffe4,  0),
    (0xe035, "kp_divide",     0xffaf,  0),
    (0xe037, "print",         0xff61,  0),
    (0xe038, "alt_r",         0xffea,  0xfe03),
    (0xe047, "home",          0xff50,  0),
    (0xe048, "up",            0xff52,  0),
    (0xe049, "pgup",          0xff55,  0),
    (0xe04b, "left",          0xff51,  0),
    (0xe04d, "right",         0xff53,  0),
    (0xe04f, "end",           0xff57,  0),
    (0xe050, "down",          0xff54,  0),
    (0xe051, "pgdn",          0xff56,  0),
    (0xe052, "insert",        0xff63,  0),
    (0xe053, "delete",        0xffff,  0),
    (0xe05b, "meta_l",        0xffeb,  0xffe8),
    (0xe05c, "meta_r",        0xffec,  0),
    (0xe05d, "menu",          0xff67,  0),
    (0xe05d, "compose",       0xff20,  0),
    (0xe11d, "pause",         0xff13,  0xff6b),
];

/// The key with X11 keysym `keysym`, on a US layout.
#[must_use]
pub fn from_keysym(keysym: u32) -> Option<u16> {
    let row = KEYS
        .iter()
        .find(|&&(_, _, plain, shifted)| keysym != 0 && (keysym == plain || keysym == shifted));
    row.map(|row| row.0)
}

/// The key that QEMU calls `name`, or whose code is `name` in C's hexadecimal.
#[must_use]
pub fn from_name(name: &str) -> Option<u16> {
    if let Some(digits) = name.strip_prefix("0x") {
        let number = u16::from_str_radix(digits, 16).ok()?;
        // QEMU has one byte, whose top bit is the prefix.
        return match number {
            1..=0x7f | 0xe001..=0xe07f | 0xe11d => Some(number),
            0x81..=0xff => Some(0xe000 | number & 0x7f),
            _ => None,
        };
    }
    KEYS.iter().find(|row| row.1 == name).map(|row| row.0)
}

/// What `sendkey` takes: names with `-` between, such as `ctrl-alt-delete`. The keys go down in
/// this order and up in the other.
///
/// # Errors
/// The name that is none.
pub fn chord(names: &str) -> Result<Vec<Key>, String> {
    let code = |name: &str| from_name(name).ok_or_else(|| format!("no key is called `{name}`"));
    let codes = names.split('-').map(code).collect::<Result<Vec<u16>, String>>()?;
    Ok(presses(&codes))
}

/// The keys go down one after the other, and up the other way.
#[must_use]
pub fn presses(codes: &[u16]) -> Vec<Key> {
    let down = codes.iter().map(|&code| Key::down(code));
    down.chain(codes.iter().rev().map(|&code| Key::up(code))).collect()
}

/// The key that types `character` on a US layout, and whether with Shift; `None` for what no key
/// types.
#[must_use]
pub fn typed(character: char) -> Option<(u16, bool)> {
    let keysym = match character {
        '\n' | '\r' => return Some((0x1c, false)),
        '\t' => return Some((0x0f, false)),
        ' '..='~' => character as u32,
        _ => return None,
    };
    let row = KEYS.iter().find(|row| row.2 == keysym || row.3 == keysym)?;
    Some((row.0, row.2 != keysym))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_and_keysyms_are_unique() {
        let names: HashSet<_> = KEYS.iter().map(|row| row.1).collect();
        assert_eq!(names.len(), KEYS.len());
        let keysyms = || KEYS.iter().flat_map(|row| [row.2, row.3]).filter(|&k| k != 0);
        assert_eq!(keysyms().collect::<HashSet<_>>().len(), keysyms().count());
        assert!((' '..='~').all(|c| typed(c).is_some()), "all of ASCII can be typed");
    }

    #[test]
    fn keysyms_lead_to_codes() {
        let known = [(0x61, 0x1e), (0x41, 0x1e), (0xff0d, 0x1c), (0xff52, 0xe048), (0xffe9, 0x38)];
        for (keysym, code) in known.into_iter().chain([(0x7c, 0x2b), (0xffc9, 0x58)]) {
            assert_eq!(from_keysym(keysym), Some(code));
        }
        assert_eq!((from_keysym(0), from_keysym(0x20ac)), (None, None));
    }

    #[test]
    fn sendkey_takes_chords() {
        let keys = chord("ctrl-alt-delete").unwrap();
        let codes: Vec<_> = keys.iter().map(|k| (k.code, k.pressed)).collect();
        let down = [(CTRL, true), (ALT, true), (0xe053, true)];
        assert_eq!(codes[..3], down);
        assert_eq!(codes[3..], [(0xe053, false), (ALT, false), (CTRL, false)]);
        assert_eq!(chord("0x1e").unwrap(), presses(&[0x1e]));
        assert_eq!(chord("0x9c").unwrap(), presses(&[0xe01c]));
        assert_eq!(chord("ctrl-alr"), Err("no key is called `alr`".into()));
        assert!(["", "-", "0x", "0x0", "0x80", "0x12345", "a-"].iter().all(|n| chord(n).is_err()));
    }

    #[test]
    fn characters_are_typed() {
        assert_eq!(typed('a'), Some((0x1e, false)));
        assert_eq!(typed('A'), Some((0x1e, true)));
        assert_eq!(typed('?'), Some((0x35, true)));
        assert_eq!((typed('\n'), typed('é')), (Some((0x1c, false)), None));
    }
}
