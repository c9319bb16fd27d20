//! Keys by the names that QEMU has for them, as codes of set 1.
//!
//! Source: IBM PS/2 Hardware Interface Technical Reference, "Keyboard"; QEMU's `QKeyCode`.

/// Names in the order of the codes from 0x01 on; `-` where there is no key.
const PLAIN: &str = "\
    esc 1 2 3 4 5 6 7 8 9 0 minus equal backspace tab q w e r t y u i o p bracket_left \
    bracket_right ret ctrl a s d f g h j k l semicolon apostrophe grave_accent shift backslash \
    z x c v b n m comma dot slash shift_r kp_multiply alt spc caps_lock f1 f2 f3 f4 f5 f6 f7 f8 \
    f9 f10 num_lock scroll_lock kp_7 kp_8 kp_9 kp_subtract kp_4 kp_5 kp_6 kp_add kp_1 kp_2 kp_3 \
    kp_0 kp_decimal sysrq - less f11 f12";

/// Keys with a prefix, which is in the high byte.
#[rustfmt::skip]
const PREFIXED: &[(&str, u16)] = &[
    ("kp_enter", 0xe01c), ("ctrl_r", 0xe01d), ("kp_divide", 0xe035), ("print", 0xe037),
    ("alt_r", 0xe038), ("home", 0xe047), ("up", 0xe048), ("pgup", 0xe049), ("left", 0xe04b),
    ("right", 0xe04d), ("end", 0xe04f), ("down", 0xe050), ("pgdn", 0xe051), ("insert", 0xe052),
    ("delete", 0xe053), ("meta_l", 0xe05b), ("meta_r", 0xe05c), ("menu", 0xe05d),
    ("power", 0xe05e), ("sleep", 0xe05f), ("wake", 0xe063), ("pause", 0xe11d),
    // Other names of keys above.
    ("<", 0x56), ("asterisk", 0x37), ("kp_equals", 0x59),
];

/// The code of the key `name`, or of a number such as 0x1c (0xe01c with a prefix).
pub fn code(name: &str) -> Option<u16> {
    let plain = (1..).zip(PLAIN.split_whitespace()).find(|(_, n)| *n == name && *n != "-");
    let prefixed = || PREFIXED.iter().find(|(n, _)| *n == name).map(|(_, code)| *code);
    let number = || u16::from_str_radix(name.strip_prefix("0x")?, 16).ok().filter(|c| *c != 0);
    plain.map(|(code, _)| code).or_else(prefixed).or_else(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_their_codes() {
        for (name, want) in [
            ("esc", 1),
            ("a", 0x1e),
            ("spc", 0x39),
            ("f10", 0x44),
            ("kp_7", 0x47),
            ("less", 0x56),
            ("f12", 0x58),
            ("delete", 0xe053),
            ("0xe01c", 0xe01c),
        ] {
            assert_eq!(code(name), Some(want), "{name}");
        }
        for bad in ["", "-", "nokey", "0x", "0x0", "0x10000", "A"] {
            assert_eq!(code(bad), None, "{bad}");
        }
    }
}
