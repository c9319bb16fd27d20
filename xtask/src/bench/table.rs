//! Figures and how they are shown: medians with their range, tables as text or Markdown.

/// One figure per round, in the order of the rounds.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample(Vec<f64>);

impl Sample {
    /// A sample of at least one figure.
    ///
    /// # Panics
    /// When there is none.
    pub fn new(figures: impl IntoIterator<Item = f64>) -> Self {
        let figures: Vec<f64> = figures.into_iter().collect();
        assert!(!figures.is_empty());
        Self(figures)
    }

    /// The middle figure, or the mean of the two in the middle.
    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len();
        f64::midpoint(sorted[(n - 1) / 2], sorted[n / 2])
    }

    /// This over `other`, round by round.
    pub fn over(&self, other: &Self) -> Self {
        assert_eq!(self.0.len(), other.0.len());
        Self::new(self.0.iter().zip(&other.0).map(|(a, b)| a / b))
    }

    /// The median, and the least and greatest figure behind it.
    pub fn show(&self, digits: usize) -> String {
        let least = self.0.iter().copied().fold(f64::INFINITY, f64::min);
        let greatest = self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        format!("{:.digits$} ({least:.digits$}–{greatest:.digits$})", self.median())
    }
}

/// The geometric mean; NaN of nothing.
pub fn geomean(figures: impl IntoIterator<Item = f64>) -> f64 {
    let (sum, n) = figures.into_iter().fold((0.0, 0.0), |(sum, n), x| (sum + x.ln(), n + 1.0));
    (sum / n).exp()
}

/// A table under a line of explanation, with notes below it. The first column is text, the others
/// are figures.
#[derive(Debug, Default)]
pub struct Report {
    /// What the table shows.
    pub title: String,
    /// One text per column.
    pub header: Vec<String>,
    /// Each as long as the header.
    pub rows: Vec<Vec<String>>,
    /// A line each.
    pub notes: Vec<String>,
}

impl Report {
    /// The lines of the table, `cell` laying out one cell of given width.
    fn lines(&self, separator: &str, cell: impl Fn(usize, &str, usize) -> String) -> Vec<String> {
        let all = || std::iter::once(&self.header).chain(&self.rows);
        let width = |column: usize| all().map(|row| row[column].chars().count()).max();
        let widths: Vec<usize> = (0..self.header.len()).filter_map(width).collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).enumerate();
            cells.map(|(n, (text, &width))| cell(n, text, width)).collect::<Vec<_>>()
        };
        all().map(|row| line(row).join(separator)).collect()
    }

    fn with_notes(&self, table: &[String]) -> String {
        let notes: String = self.notes.iter().map(|note| format!("\n{note}\n")).collect();
        format!("{}\n\n{}\n{notes}", self.title, table.join("\n"))
    }

    /// For a terminal.
    pub fn text(&self) -> String {
        self.with_notes(&self.lines("  ", |n, text, width| match n {
            0 => format!("{text:<width$}"),
            _ => format!("{text:>width$}"),
        }))
    }

    /// For a document.
    pub fn markdown(&self) -> String {
        let cells = |_, text: &str, _| text.replace('|', "\\|");
        let mut lines = self.lines(" | ", cells);
        lines.insert(1, format!("---{}", " | ---:".repeat(self.header.len() - 1)));
        let lines: Vec<String> = lines.into_iter().map(|line| format!("| {line} |")).collect();
        self.with_notes(&lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        for (figures, median) in [
            (&[2.0][..], 2.0),
            (&[5.0, 1.0], 3.0),
            (&[9.0, 1.0, 2.0], 2.0),
            (&[4.0, 100.0, 2.0, 1.0], 3.0),
        ] {
            assert_eq!(Sample::new(figures.iter().copied()).median(), median);
        }
    }

    #[test]
    fn a_ratio_is_the_median_of_the_rounds() {
        // The second round ran on a busy machine: the ratio of the medians would be 3.
        let (a, b) = (Sample::new([2.0, 6.0, 6.0]), Sample::new([1.0, 3.0, 2.0]));
        assert_eq!(a.over(&b), Sample::new([2.0, 2.0, 3.0]));
        assert_eq!(a.over(&b).show(1), "2.0 (2.0–3.0)");
    }

    #[test]
    fn geometric_means() {
        assert!((geomean([1.0, 10.0, 100.0]) - 10.0).abs() < 1e-9);
        assert!(geomean([]).is_nan());
    }

    fn report() -> Report {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        Report {
            title: "Speed".into(),
            header: row(["program", "s", "×"]),
            rows: vec![row(["a|b", "10.5", "1"]), row(["quicksort", "1.0 (1–2)", "22"])],
            notes: vec!["Mind.".into()],
        }
    }

    #[test]
    fn text_is_aligned() {
        let expected = "\
Speed

program            s   ×
a|b             10.5   1
quicksort  1.0 (1–2)  22

Mind.
";
        assert_eq!(report().text(), expected);
    }

    #[test]
    fn markdown_is_escaped() {
        let expected = "\
Speed

| program | s | × |
| --- | ---: | ---: |
| a\\|b | 10.5 | 1 |
| quicksort | 1.0 (1–2) | 22 |

Mind.
";
        assert_eq!(report().markdown(), expected);
    }
}
