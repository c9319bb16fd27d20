//! Arguments of monitor commands: words, formats, and expressions.
//!
//! An expression has numbers as in C (decimal, 0x, 0 for octal, 'c'), $registers, parentheses, the
//! unary + - ~ and the operators + -, then & | ^, then * / %, the last binding tightest: QEMU's
//! grammar, which is not C's. A / before a letter begins a file's name instead. All is 64 bits wide
//! and wraps.

/// Parentheses and signs within each other at most.
const DEPTH: u32 = 64;

/// A command line that makes no sense, in one line.
pub type Syntax = String;

/// What is left of a command line.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a>(pub &'a str);

/// What `/FMT` says: how many, how they look, how many bytes each has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Values, or instructions.
    pub count: u64,
    /// One of `x d u o c i`.
    pub form: char,
    /// 1, 2, 4 or 8.
    pub size: usize,
}

/// Gives a register's value by its name.
pub type Registers<'r> = &'r dyn Fn(&str) -> Option<u64>;

impl<'a> Args<'a> {
    fn skip(&mut self) -> &'a str {
        self.0 = self.0.trim_start();
        self.0
    }

    /// Whether nothing is left.
    pub fn is_empty(&mut self) -> bool {
        self.skip().is_empty()
    }

    /// Nothing may be left.
    pub fn end(mut self) -> Result<(), Syntax> {
        match self.skip() {
            "" => Ok(()),
            _ => Err("extraneous characters at the end of line".to_owned()),
        }
    }

    /// The next word, if there is one; in quotes it may have spaces, and \ before a character.
    pub fn word(&mut self) -> Result<Option<String>, Syntax> {
        let Some(quoted) = self.skip().strip_prefix('"') else {
            let end = self.0.find(char::is_whitespace).unwrap_or(self.0.len());
            let (word, rest) = self.0.split_at(end);
            self.0 = rest;
            return Ok((!word.is_empty()).then(|| word.to_owned()));
        };
        let (mut word, mut chars) = (String::new(), quoted.chars());
        loop {
            match chars.next() {
                None => return Err("unterminated string".to_owned()),
                Some('"') => break,
                Some('\\') => word.extend(chars.next()),
                Some(c) => word.push(c),
            }
        }
        self.0 = chars.as_str();
        Ok(Some(word))
    }

    /// A word that must be there; `what` it is.
    pub fn need(&mut self, what: &str) -> Result<String, Syntax> {
        self.word()?.ok_or_else(|| format!("{what} is missing"))
    }

    /// Takes the flag `flag` if it is next.
    pub fn flag(&mut self, flag: &str) -> bool {
        let rest = self.skip().strip_prefix(flag);
        let rest = rest.filter(|r| r.is_empty() || r.starts_with(char::is_whitespace));
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    /// `/FMT` if it is next, or what stands for it: one word of 4 bytes in hexadecimal.
    pub fn format(&mut self) -> Result<Format, Syntax> {
        let mut format = Format { count: 1, form: 'x', size: 4 };
        let Some(rest) = self.skip().strip_prefix('/') else { return Ok(format) };
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        if digits > 0 {
            format.count = rest[..digits].parse().map_err(|_| "invalid count".to_owned())?;
        }
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        for c in rest[digits..end].chars() {
            match c {
                'x' | 'd' | 'u' | 'o' | 'c' | 'i' => format.form = c,
                'b' => format.size = 1,
                'h' => format.size = 2,
                'w' => format.size = 4,
                'g' | 'L' => format.size = 8,
                _ => return Err(format!("invalid char in format: '{c}'")),
            }
        }
        self.0 = &rest[end..];
        Ok(format)
    }

    /// An expression.
    pub fn expr(&mut self, registers: Registers) -> Result<u64, Syntax> {
        sum(self, registers, 0)
    }

    fn take(&mut self, of: &str) -> Option<char> {
        let c = self.skip().chars().next().filter(|c| of.contains(*c))?;
        self.0 = &self.0[1..];
        Some(c)
    }
}

fn sum(a: &mut Args, regs: Registers, depth: u32) -> Result<u64, Syntax> {
    let mut value = logic(a, regs, depth)?;
    while let Some(op) = a.take("+-") {
        let next = logic(a, regs, depth)?;
        value = if op == '+' { value.wrapping_add(next) } else { value.wrapping_sub(next) };
    }
    Ok(value)
}

fn logic(a: &mut Args, regs: Registers, depth: u32) -> Result<u64, Syntax> {
    let mut value = product(a, regs, depth)?;
    while let Some(op) = a.take("&|^") {
        let next = product(a, regs, depth)?;
        value = match op {
            '&' => value & next,
            '|' => value | next,
            _ => value ^ next,
        };
    }
    Ok(value)
}

fn product(a: &mut Args, regs: Registers, depth: u32) -> Result<u64, Syntax> {
    let mut value = unary(a, regs, depth)?;
    while !is_path(a.skip())
        && let Some(op) = a.take("*/%")
    {
        let next = unary(a, regs, depth)?;
        let zero = || "division by zero".to_owned();
        value = match op {
            '*' => value.wrapping_mul(next),
            '/' => value.checked_div(next).ok_or_else(zero)?,
            _ => value.checked_rem(next).ok_or_else(zero)?,
        };
    }
    Ok(value)
}

/// Whether the next word is a file's name and no division: no operand begins with a letter.
fn is_path(text: &str) -> bool {
    let next = text.strip_prefix('/').and_then(|rest| rest.chars().next());
    next.is_some_and(|c| c.is_alphabetic() || "._/".contains(c))
}

fn unary(a: &mut Args, regs: Registers, depth: u32) -> Result<u64, Syntax> {
    if depth > DEPTH {
        return Err("expression is nested too deeply".to_owned());
    }
    let Some(op) = a.take("+-~($'") else { return number(a) };
    match op {
        '+' => unary(a, regs, depth + 1),
        '-' => unary(a, regs, depth + 1).map(u64::wrapping_neg),
        '~' => unary(a, regs, depth + 1).map(|v| !v),
        '(' => {
            let value = sum(a, regs, depth + 1)?;
            a.take(")").map(|_| value).ok_or_else(|| "')' expected".to_owned())
        }
        '$' => {
            let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let end = a.0.find(|c| !word(c)).unwrap_or(a.0.len());
            let (name, rest) = a.0.split_at(end);
            a.0 = rest;
            regs(name).ok_or_else(|| "unknown register".to_owned())
        }
        _ => {
            let mut chars = a.0.chars();
            let value = chars.next().filter(|_| chars.next() == Some('\''));
            a.0 = chars.as_str();
            value.map(u64::from).ok_or_else(|| "character constant expected".to_owned())
        }
    }
}

fn number(a: &mut Args) -> Result<u64, Syntax> {
    let text = a.skip();
    let Some(first) = text.chars().next() else {
        return Err("unexpected end of expression".to_owned());
    };
    if !first.is_ascii_digit() {
        return Err(format!("invalid char '{first}' in expression"));
    }
    let end = text.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    a.0 = rest;
    let parsed = match word.strip_prefix("0x").or(word.strip_prefix("0X")) {
        Some(hex) => u64::from_str_radix(hex, 16),
        None if word.len() > 1 && first == '0' => u64::from_str_radix(&word[1..], 8),
        None => word.parse(),
    };
    parsed.map_err(|_| format!("invalid number '{word}'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Result<u64, Syntax> {
        let mut args = Args(text);
        let value = args.expr(&|name| (name == "rax").then_some(0x1000))?;
        args.end().map(|()| value)
    }

    #[test]
    fn expressions() {
        for (text, want) in [
            ("3*4+1", 13),
            (" ( 0x10 + $rax ) * 2", 0x2020),
            ("0xffff0-010", 0xffff0 - 8),
            ("7 & 3 * 2", 6),
            ("1+6&3", 3),
            ("-1", u64::MAX),
            ("~0 % 10", 5),
            ("'A'", 65),
            ("0", 0),
        ] {
            assert_eq!(value(text), Ok(want), "{text}");
        }
        for (text, says) in [
            ("", "unexpected end of expression"),
            ("1/0", "division by zero"),
            ("5%0", "division by zero"),
            ("(1", "')' expected"),
            ("$nope", "unknown register"),
            ("x", "invalid char 'x' in expression"),
            ("09", "invalid number '09'"),
            ("0x1ffffffffffffffff", "invalid number"),
            ("'ab'", "character constant expected"),
            ("é", "invalid char 'é'"),
            ("1 2", "extraneous characters"),
        ] {
            let e = value(text).unwrap_err();
            assert!(e.contains(says), "{text}: {e}");
        }
        assert!(value(&"(".repeat(100_000)).unwrap_err().contains("too deeply"));
        assert!(value(&"-".repeat(100_000)).unwrap_err().contains("too deeply"));
    }

    #[test]
    fn a_file_may_follow_an_expression() {
        let mut args = Args("8 /2 /dev/null");
        assert_eq!(args.expr(&|_| None), Ok(4));
        assert_eq!(args.need("file"), Ok("/dev/null".to_owned()));
    }

    #[test]
    fn words_and_formats() {
        let mut a = Args(r#"  one "two \" three" -f four"#);
        assert_eq!(a.word(), Ok(Some("one".to_owned())));
        assert_eq!(a.word(), Ok(Some("two \" three".to_owned())));
        assert!(a.flag("-f") && !a.flag("-f"));
        assert_eq!(a.need("it"), Ok("four".to_owned()));
        assert_eq!((a.word(), a.need("it")), (Ok(None), Err("it is missing".to_owned())));
        assert!(Args("\"open").word().is_err());
        let format = |text| Args(text).format();
        let is = |count, form, size| Ok(Format { count, form, size });
        assert_eq!(format("/16xb 0"), is(16, 'x', 1));
        assert_eq!((format("/i"), format("0x10")), (is(1, 'i', 4), is(1, 'x', 4)));
        assert_eq!(format("/2dg"), is(2, 'd', 8));
        assert_eq!(format("/4q 0"), Err("invalid char in format: 'q'".to_owned()));
        assert!(format("/99999999999999999999x").is_err());
    }
}
