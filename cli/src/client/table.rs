//! Aligned columns that fit the terminal. Into a pipe everything is written in full.

use ::console::{Style, measure_text_width, truncate_str};

use super::text::clean;

/// A column's heading and how it behaves.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    pub heading: &'static str,
    align: Align,
    room: Room,
}

/// What becomes of a column when the terminal is too narrow.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Room {
    Keeps,
    /// Is shortened, the widest first.
    Shrinks,
    /// Is left out when shortening others is not enough, the last one first.
    Leaves,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Align {
    Left,
    Right,
}

impl Column {
    pub const fn text(heading: &'static str) -> Self {
        Self { heading, align: Align::Left, room: Room::Keeps }
    }

    pub const fn number(heading: &'static str) -> Self {
        Self { heading, align: Align::Right, room: Room::Keeps }
    }

    pub const fn shrinking(heading: &'static str) -> Self {
        Self { heading, align: Align::Left, room: Room::Shrinks }
    }

    pub const fn dispensable(self) -> Self {
        Self { room: Room::Leaves, ..self }
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cell {
    pub text: String,
    pub tone: Tone,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    #[default]
    Plain,
    Good,
    Bad,
    Busy,
    Warning,
    Faint,
}

impl Tone {
    pub fn style(self) -> Style {
        match self {
            Self::Plain => Style::new(),
            Self::Good => Style::new().green(),
            Self::Bad => Style::new().red(),
            Self::Busy => Style::new().cyan(),
            Self::Warning => Style::new().yellow(),
            Self::Faint => Style::new().dim(),
        }
    }
}

impl Cell {
    pub fn new(text: impl Into<String>, tone: Tone) -> Self {
        Self { text: text.into(), tone }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(text, Tone::Plain)
    }
}

const GAP: usize = 2;
/// A column that is shortened keeps this much.
const NARROWEST: usize = 10;
/// Before it is left with less than this, dispensable ones leave.
const READABLE: usize = 18;

/// The table's lines. `width`: the terminal's, if one is there.
pub fn render(columns: &[Column], rows: &[Vec<Cell>], width: Option<usize>) -> String {
    let rows: Vec<Vec<Cell>> = rows
        .iter()
        .map(|row| row.iter().map(|cell| Cell::new(clean(&cell.text), cell.tone)).collect())
        .collect();
    // A column in which nothing stands says nothing.
    let mut shown: Vec<usize> =
        (0..columns.len()).filter(|&at| rows.iter().any(|row| !row[at].text.is_empty())).collect();
    let mut widths: Vec<usize> = (0..columns.len())
        .map(|at| {
            let cells = rows.iter().map(|row| measure_text_width(&row[at].text));
            cells.chain([columns[at].heading.len()]).max().unwrap_or(0)
        })
        .collect();
    if let Some(width) = width {
        fit(columns, &mut shown, &mut widths, width);
    }
    let heading: Vec<Cell> = columns.iter().map(|column| Cell::new(column.heading, Tone::Faint)).collect();
    let mut text = String::new();
    for row in std::iter::once(&heading).chain(&rows) {
        let mut line = String::new();
        for &at in &shown {
            let width = widths[at];
            if !line.is_empty() {
                line.push_str(&" ".repeat(GAP));
            }
            let cell = truncate_str(&row[at].text, width, "…");
            let padding = " ".repeat(width.saturating_sub(measure_text_width(&cell)));
            let styled =
                if cell.is_empty() { String::new() } else { row[at].tone.style().apply_to(cell).to_string() };
            match columns[at].align {
                Align::Left => line.extend([styled, padding]),
                Align::Right => line.extend([padding, styled]),
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn fit(columns: &[Column], shown: &mut Vec<usize>, widths: &mut [usize], available: usize) {
    let room = |at: usize| columns[at].room;
    let least = |shown: &[usize], widths: &[usize]| -> usize {
        let least = |at: usize| match room(at) {
            Room::Shrinks => widths[at].min(READABLE),
            _ => widths[at],
        };
        shown.iter().map(|&at| least(at)).sum::<usize>() + GAP * shown.len().saturating_sub(1)
    };
    while least(shown, widths) > available {
        let Some(last) = shown.iter().rposition(|&at| room(at) == Room::Leaves) else { break };
        shown.remove(last);
    }
    let gaps = GAP * shown.len().saturating_sub(1);
    while shown.iter().map(|&at| widths[at]).sum::<usize>() + gaps > available {
        let shrinking = shown.iter().filter(|&&at| room(at) == Room::Shrinks && widths[at] > NARROWEST);
        let Some(&widest) = shrinking.max_by_key(|&&at| widths[at]) else { return };
        widths[widest] -= 1;
    }
}

/// Labels and values of one thing, below each other. What has no value is left out.
pub fn describe(fields: &[(&str, Cell)]) -> String {
    let fields: Vec<_> = fields.iter().filter(|(_, cell)| !cell.text.is_empty()).collect();
    let width = fields.iter().map(|(label, _)| label.len()).max().unwrap_or(0) + GAP;
    let mut text = String::new();
    for (label, cell) in fields {
        let mut lines = cell.text.lines().map(|line| cell.tone.style().apply_to(clean(line)).to_string());
        let first = lines.next().unwrap_or_default();
        let padding = " ".repeat(width - label.len());
        text.push_str(&format!("{}{padding}{first}\n", Tone::Faint.style().apply_to(label)));
        for line in lines {
            text.push_str(&format!("{}{line}\n", " ".repeat(width)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 4] =
        [Column::text("ID"), Column::number("N"), Column::text("EMPTY"), Column::shrinking("MESSAGE")];

    fn rows() -> Vec<Vec<Cell>> {
        vec![
            vec!["a".into(), "1".into(), "".into(), "größer als der Platz, der ihr bleibt".into()],
            vec!["bbb".into(), "100".into(), "".into(), "日本語\nx".into()],
        ]
    }

    #[test]
    fn columns_are_aligned_and_empty_ones_left_out() {
        ::console::set_colors_enabled(false);
        assert_eq!(
            render(&COLUMNS, &rows(), None),
            "ID     N  MESSAGE\n\
             a      1  größer als der Platz, der ihr bleibt\n\
             bbb  100  日本語 x\n"
        );
    }

    #[test]
    fn a_narrow_terminal_shortens_what_may_give_way() {
        ::console::set_colors_enabled(false);
        let text = render(&COLUMNS, &rows(), Some(24));
        assert_eq!(text, "ID     N  MESSAGE\na      1  größer als de…\nbbb  100  日本語 x\n");
        // Not to nothing: then lines wrap.
        assert!(render(&COLUMNS, &rows(), Some(3)).contains("größer al…"));
    }

    #[test]
    fn what_is_dispensable_leaves_a_very_narrow_terminal() {
        ::console::set_colors_enabled(false);
        let columns = COLUMNS.map(|column| if column.heading == "N" { column.dispensable() } else { column });
        assert!(render(&columns, &rows(), Some(30)).contains("  N  "));
        assert_eq!(render(&columns, &rows(), Some(16)), "ID   MESSAGE\na    größer als…\nbbb  日本語 x\n");
    }

    #[test]
    fn a_description_aligns_values_of_several_lines() {
        ::console::set_colors_enabled(false);
        let text = describe(&[("id", "7".into()), ("nothing", "".into()), ("result", "{\n}".into())]);
        assert_eq!(text, "id      7\nresult  {\n        }\n");
    }
}
