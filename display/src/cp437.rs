//! Code page 437, the characters of a PC's glyphs, in Unicode.
//!
//! Codes below 32 and 127 are pictures too, since a screen has no control characters.

/// The characters of codes 0 to 31.
const LOW: &str = " ☺☻♥♦♣♠•◘○◙♂♀♪♫☼►◄↕‼¶§▬↨↑↓→←∟↔▲▼";

/// The characters of codes 127 to 255.
const HIGH: &str = concat!(
    "⌂ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»",
    "░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀",
    "αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}"
);

/// The character of each code.
#[must_use]
pub fn table() -> [char; 256] {
    let mut characters = LOW.chars().chain(' '..='~').chain(HIGH.chars());
    std::array::from_fn(|_| characters.next().unwrap_or(' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_character() {
        assert_eq!((LOW.chars().count(), HIGH.chars().count()), (32, 129));
        let t = table();
        let known = [(0x41, 'A'), (0x7f, '⌂'), (0x80, 'Ç'), (0x9b, '¢'), (0xb0, '░'), (0xc4, '─')];
        for (code, character) in known.into_iter().chain([(0xdb, '█'), (0xe0, 'α'), (0xfe, '■')])
        {
            assert_eq!(t[code], character);
        }
        assert!(t.iter().all(|c| !c.is_control()));
    }
}
