//! The table that a run prints.

use std::{fmt::Write, time::Duration};

/// One line: a reference figure, ours beside it, and what was promised.
#[derive(Clone, Debug)]
pub struct Row {
    what: String,
    reference: Option<Figure>,
    ours: Figure,
    target: Option<Target>,
    note: String,
}

#[derive(Clone, Copy, Debug)]
pub enum Figure {
    PerSecond(f64),
    Time(Duration),
    Bytes(u64),
    Count(f64, &'static str),
}

#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// Ours is at least so many times the reference.
    AtLeast(f64),
    /// Ours is at most so many times the reference.
    AtMost(f64),
    /// Ours takes no longer than this.
    Within(Duration),
}

impl Row {
    pub fn new(what: impl Into<String>, ours: Figure) -> Self {
        Self { what: what.into(), reference: None, ours, target: None, note: String::new() }
    }

    pub fn against(self, reference: Figure) -> Self {
        Self { reference: Some(reference), ..self }
    }

    pub fn target(self, target: Target) -> Self {
        Self { target: Some(target), ..self }
    }

    pub fn note(self, note: impl Into<String>) -> Self {
        Self { note: note.into(), ..self }
    }

    fn ratio(&self) -> Option<f64> {
        let reference = self.reference?.value();
        (reference > 0.0).then(|| self.ours.value() / reference)
    }

    /// `None` where nothing was promised.
    fn met(&self) -> Option<bool> {
        Some(match self.target? {
            Target::AtLeast(least) => self.ratio()? >= least,
            Target::AtMost(most) => self.ratio()? <= most,
            Target::Within(limit) => self.ours.value() <= limit.as_secs_f64(),
        })
    }

    fn cells(&self) -> [String; 7] {
        [
            self.what.clone(),
            self.reference.map(|figure| figure.to_string()).unwrap_or_default(),
            self.ours.to_string(),
            self.ratio().map(|ratio| format!("{ratio:.2}")).unwrap_or_default(),
            self.target.map(|target| target.to_string()).unwrap_or_default(),
            self.met().map_or("", |met| if met { "met" } else { "NOT MET" }).to_owned(),
            self.note.clone(),
        ]
    }
}

impl Figure {
    /// In base units, so that two of a kind can be divided.
    fn value(self) -> f64 {
        match self {
            Self::PerSecond(value) | Self::Count(value, _) => value,
            Self::Time(time) => time.as_secs_f64(),
            Self::Bytes(bytes) => bytes as f64,
        }
    }
}

impl std::fmt::Display for Figure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Self::PerSecond(rate) => write!(f, "{rate:.0}/s"),
            Self::Time(time) if time < Duration::from_millis(1) => write!(f, "{} µs", time.as_micros()),
            Self::Time(time) => write!(f, "{:.1} ms", time.as_secs_f64() * 1e3),
            Self::Bytes(bytes) => write!(f, "{:.0} MiB", bytes as f64 / 1_048_576.0),
            Self::Count(count, unit) => write!(f, "{} {unit}", (count * 10.0).round() / 10.0),
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Self::AtLeast(least) => write!(f, "≥ {least} ×"),
            Self::AtMost(most) => write!(f, "≤ {most} ×"),
            Self::Within(limit) => write!(f, "≤ {} ms", limit.as_millis()),
        }
    }
}

/// The table as text, its columns aligned.
pub fn render(rows: &[Row]) -> String {
    let head = ["what", "reference", "ours", "ratio", "target", "", "note"].map(str::to_owned);
    let lines: Vec<[String; 7]> = std::iter::once(head).chain(rows.iter().map(Row::cells)).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 7] = std::array::from_fn(width);
    let mut text = String::new();
    for (at, line) in lines.iter().enumerate() {
        let mut row = String::new();
        for (column, cell) in line.iter().enumerate() {
            let pad = " ".repeat(widths[column] - cell.chars().count());
            // Figures align at their right end, words at their left.
            let cell =
                if (1..=3).contains(&column) { format!("{pad}{cell}") } else { format!("{cell}{pad}") };
            write!(row, "{cell}  ").expect("writing to a string");
        }
        writeln!(text, "{}", row.trim_end()).expect("writing to a string");
        if at == 0 {
            let rule = widths.iter().map(|width| width + 2).sum::<usize>() - 2;
            writeln!(text, "{}", "─".repeat(rule)).expect("writing to a string");
        }
    }
    text
}
