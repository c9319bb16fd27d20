//! A text screen in a terminal: cells to escape sequences.
//!
//! Problem: a guest changes a few cells at a time, and terminals are slow and flicker. Method: what
//! the terminal shows is remembered, and only cells that differ are written, each run of them with
//! one movement of the cursor and the attributes that change.
//!
//! A terminal that is smaller than the screen shows a part of it that has the cursor. Bytes are
//! given, not written; modes of the host's terminal are the caller's.
//!
//! Source: ECMA-48 (CUP, ED, SGR), xterm's control sequences (alternate screen, DECTCEM, DECAWM);
//! IBM VGA/XGA Technical Reference Manual for the attribute byte.

use crate::cp437;

/// What a terminal shall show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grid {
    /// Cells in a row.
    pub columns: usize,
    /// Rows.
    pub rows: usize,
    /// Character (code page 437) and VGA attribute of each cell, row by row from the top.
    pub cells: Vec<(u8, u8)>,
    /// Column and row of the cursor, when one is shown.
    pub cursor: Option<(usize, usize)>,
    /// Attribute bit 7 blinks; otherwise it is the intensity of the background.
    pub blink: bool,
}

impl Grid {
    /// A screen that says something in its middle: for when there is no text to show.
    #[must_use]
    pub fn message(columns: usize, rows: usize, text: &str) -> Grid {
        let mut cells = vec![(b' ', 7); columns * rows];
        let start = rows / 2 * columns + columns.saturating_sub(text.len()) / 2;
        for (cell, byte) in cells.iter_mut().skip(start).zip(text.bytes()) {
            cell.0 = byte;
        }
        Grid { columns, rows, cells, cursor: None, blink: false }
    }

    fn cell(&self, column: usize, row: usize) -> Option<(u8, u8)> {
        let inside = column < self.columns && row < self.rows;
        let at = row.wrapping_mul(self.columns).wrapping_add(column);
        self.cells.get(at).copied().filter(|_| inside)
    }
}

/// What a cell of the terminal shows: character and attribute; nothing beyond the guest's screen.
type Shown = Option<(u8, u8)>;

/// A terminal and what it shows.
#[derive(Clone, Debug)]
pub struct Terminal {
    columns: usize,
    rows: usize,
    /// `None`: nobody knows, all must be written.
    shown: Option<Vec<Shown>>,
    cursor: Option<(usize, usize)>,
    blink: bool,
    /// The guest's row that is at the top.
    top: usize,
    characters: [char; 256],
}

/// The order of ANSI's colours, from red, green and blue in bits 2, 1 and 0 to bits 0, 1 and 2.
fn ansi(colour: u8) -> u8 {
    colour & 2 | colour >> 2 & 1 | colour << 2 & 4
}

impl Terminal {
    /// A terminal of that many cells.
    #[must_use]
    pub fn new(columns: usize, rows: usize) -> Terminal {
        Terminal {
            columns,
            rows,
            shown: None,
            cursor: None,
            blink: false,
            top: 0,
            characters: cp437::table(),
        }
    }

    /// What to send before the first [`draw`](Self::draw): the alternate screen, empty; lines do
    /// not wrap.
    #[must_use]
    pub fn enter() -> &'static [u8] {
        b"\x1b[?1049h\x1b[?7l\x1b[?25l\x1b[0m\x1b[2J"
    }

    /// What to send after the last: the terminal as it was.
    #[must_use]
    pub fn leave() -> &'static [u8] {
        b"\x1b[0m\x1b[?25h\x1b[?7h\x1b[?1049l"
    }

    /// The terminal has another size now; what it shows is anybody's guess.
    pub fn resize(&mut self, columns: usize, rows: usize) {
        (self.columns, self.rows, self.shown) = (columns, rows, None);
    }

    /// The next [`draw`](Self::draw) writes everything.
    pub fn redraw(&mut self) {
        self.shown = None;
    }

    /// The bytes that make the terminal show `grid`; none when it does.
    #[must_use]
    pub fn draw(&mut self, grid: &Grid) -> Vec<u8> {
        let mut out = String::new();
        self.scroll(grid);
        let cells = self.columns * self.rows;
        let mut shown = match self.shown.take() {
            Some(shown) if self.blink == grid.blink => shown,
            _ => {
                out.push_str("\x1b[?25l\x1b[0m\x1b[2J");
                self.cursor = None;
                vec![None; cells]
            }
        };
        self.blink = grid.blink;
        // Where the next character goes by itself, and its attribute.
        let (mut at, mut attribute) = (None, None);
        for (n, old) in shown.iter_mut().enumerate() {
            let (column, row) = (n % self.columns, n / self.columns);
            let new = grid.cell(column, row + self.top);
            if *old == new {
                continue;
            }
            if out.is_empty() && self.cursor.is_some() {
                out.push_str("\x1b[?25l");
                self.cursor = None;
            }
            if at != Some(n) {
                out.push_str(&format!("\x1b[{};{}H", row + 1, column + 1));
            }
            if attribute != Some(new.map(|cell| cell.1)) {
                out.push_str(&self.attribute(new.map(|cell| cell.1)));
                attribute = Some(new.map(|cell| cell.1));
            }
            out.push(new.map_or(' ', |cell| self.characters[usize::from(cell.0)]));
            // After the last column the cursor stays where it is.
            at = (column + 1 < self.columns).then_some(n + 1);
            *old = new;
        }
        self.shown = Some(shown);
        let cursor = grid.cursor.and_then(|(column, row)| {
            let row = row.checked_sub(self.top)?;
            (column < self.columns && row < self.rows).then_some((column, row))
        });
        if cursor != self.cursor || !out.is_empty() {
            match cursor {
                Some((column, row)) => {
                    out.push_str(&format!("\x1b[{};{}H\x1b[?25h", row + 1, column + 1));
                }
                None if self.cursor.is_some() => out.push_str("\x1b[?25l"),
                None => {}
            }
            self.cursor = cursor;
        }
        out.into_bytes()
    }

    /// Chooses the rows to show: those shown before, if they have the cursor.
    fn scroll(&mut self, grid: &Grid) {
        let last = grid.rows.saturating_sub(self.rows);
        self.top = self.top.min(last);
        if let Some((_, row)) = grid.cursor.filter(|_| self.rows > 0) {
            self.top = self.top.clamp((row + 1).saturating_sub(self.rows).min(last), row.min(last));
        }
    }

    /// The sequence for an attribute; without one, the terminal's own colours.
    fn attribute(&self, attribute: Option<u8>) -> String {
        let Some(attribute) = attribute else { return "\x1b[0m".into() };
        let (fore, back) = (attribute & 15, attribute >> 4);
        let (high, blinks) = (back & 8 != 0, self.blink && back & 8 != 0);
        let foreground = if fore & 8 != 0 { 90 } else { 30 } + ansi(fore);
        let background = if high && !blinks { 100 } else { 40 } + ansi(back);
        let blink = if blinks { ";5" } else { "" };
        format!("\x1b[0;{foreground};{background}{blink}m")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(columns: usize, rows: usize, text: &[u8]) -> Grid {
        let mut cells: Vec<_> = text.iter().map(|&c| (c, 7)).collect();
        cells.resize(columns * rows, (b' ', 7));
        Grid { columns, rows, cells, cursor: Some((0, 0)), blink: false }
    }

    fn text(bytes: &[u8]) -> String {
        String::from_utf8(bytes.to_vec()).unwrap().replace('\x1b', "^")
    }

    #[test]
    fn only_what_differs_is_written() {
        let mut t = Terminal::new(3, 2);
        let mut g = grid(3, 2, b"ab c");
        assert_eq!(text(&t.draw(&g)), "^[?25l^[0m^[2J^[1;1H^[0;37;40mab ^[2;1Hc  ^[1;1H^[?25h");
        assert_eq!(text(&t.draw(&g)), "");
        g.cells[1] = (0xdb, 0x1e);
        g.cells[2] = (0x80, 0x1e);
        g.cells[5] = (b'!', 0x4f);
        assert_eq!(text(&t.draw(&g)), "^[?25l^[1;2H^[0;93;44m█Ç^[2;3H^[0;97;41m!^[1;1H^[?25h");
        g.cursor = Some((2, 1));
        assert_eq!(text(&t.draw(&g)), "^[2;3H^[?25h");
        g.cursor = None;
        assert_eq!((text(&t.draw(&g)), text(&t.draw(&g))), ("^[?25l".into(), String::new()));
        g.cells[0].0 = b'z';
        assert_eq!(text(&t.draw(&g)), "^[1;1H^[0;37;40mz");
    }

    #[test]
    fn bit_7_is_blinking_or_bright() {
        let mut t = Terminal::new(1, 1);
        let mut g = grid(1, 1, b"x");
        (g.cells[0].1, g.cursor) = (0xc1, None);
        assert!(text(&t.draw(&g)).ends_with("^[0;34;101mx"));
        g.blink = true;
        assert!(text(&t.draw(&g)).ends_with("^[0;34;41;5mx"));
    }

    #[test]
    fn a_smaller_terminal_follows_the_cursor() {
        let mut t = Terminal::new(2, 2);
        let mut g = grid(3, 4, b"a  b  c  d  ");
        let rows = |t: &mut Terminal, g: &Grid, row: usize| {
            let mut g = g.clone();
            g.cursor = Some((0, row));
            t.redraw();
            let all = text(&t.draw(&g));
            all.chars().filter(|c| "abcd".contains(*c)).collect::<String>()
        };
        assert_eq!(
            [0, 1, 2, 3, 2, 0].map(|n| rows(&mut t, &g, n)),
            ["ab", "ab", "bc", "cd", "cd", "ab"]
        );
        // A larger one has nothing around it.
        t.resize(5, 6);
        assert_eq!(rows(&mut t, &g, 3), "abcd");
        g.cursor = Some((4, 9));
        assert!(!text(&t.draw(&g)).ends_with('h'), "the cursor is nowhere");
        t.resize(0, 0);
        drop(t.draw(&g));
    }

    #[test]
    fn a_message_is_in_the_middle() {
        let g = Grid::message(9, 3, "VGA");
        assert_eq!(g.cells[12..15].iter().map(|c| c.0).collect::<Vec<_>>(), b"VGA");
        assert_eq!(Grid::message(2, 1, "too long").cells.len(), 2);
    }

    #[test]
    fn random_accesses() {
        let mut seed = 7u64;
        let mut random = |bound: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as usize % bound
        };
        let mut t = Terminal::new(80, 25);
        for _ in 0..2000 {
            let (columns, rows) = (random(12), random(9));
            let cells = (0..random(100)).map(|_| (random(256) as u8, random(256) as u8)).collect();
            let cursor = (random(2) == 0).then(|| (random(200), random(200)));
            let g = Grid { columns, rows, cells, cursor, blink: random(4) == 0 };
            drop(t.draw(&g));
            assert_eq!(t.draw(&g), b"");
            if random(3) == 0 {
                t.resize(random(12), random(12));
            }
        }
    }
}
