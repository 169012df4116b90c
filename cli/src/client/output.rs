//! What commands print: a table for people, the API's own objects for programs, or ids alone.

use ::console::Term;
use clap::ValueEnum;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::{
    json::Json,
    table::{self, Cell, Column},
};
use crate::console;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned columns.
    #[default]
    Table,
    /// The API's objects; a list is one array.
    Json,
    /// As json.
    Yaml,
}

/// Something of the API, in its own words and as far as tables understand it.
#[derive(Clone, Debug)]
pub struct Item<T> {
    pub raw: Box<RawValue>,
    pub view: T,
}

impl<T: DeserializeOwned> Item<T> {
    pub fn read(raw: Box<RawValue>) -> serde_json::Result<Self> {
        Ok(Self { view: serde_json::from_str(raw.get())?, raw })
    }
}

impl<T> Item<T> {
    pub fn json(&self) -> Json {
        // It was JSON when it came.
        serde_json::from_str(self.raw.get()).unwrap_or_default()
    }
}

/// Something that tables show.
pub trait Row {
    const COLUMNS: &'static [Column];
    /// What `--quiet` prints, and other commands take.
    fn id(&self) -> &str;
    fn cells(&self, now: Timestamp) -> Vec<Cell>;
}

/// Something that can be shown alone.
pub trait Details: Row {
    fn details(&self, now: Timestamp) -> Vec<(&'static str, Cell)>;
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Output {
    pub format: Format,
    pub quiet: bool,
}

impl Output {
    /// Whether a person reads: then there may be hints and live progress.
    pub fn is_for_people(self) -> bool {
        self.format == Format::Table && !self.quiet
    }

    /// `none` is said when there is nothing.
    pub fn list<T: Row>(self, items: &[Item<T>], none: &str) {
        match (self.quiet, self.format) {
            (true, _) => items.iter().for_each(|item| console::result(item.view.id())),
            (false, Format::Table) if items.is_empty() => console::say(none),
            (false, Format::Table) => {
                let now = Timestamp::now();
                let rows: Vec<_> = items.iter().map(|item| item.view.cells(now)).collect();
                console::result_text(&table::render(T::COLUMNS, &rows, terminal_width()));
            }
            (false, format) => print_json(format, &Json::Array(items.iter().map(Item::json).collect())),
        }
    }

    pub fn one<T: Details>(self, item: &Item<T>) {
        match (self.quiet, self.format) {
            (true, _) => console::result(item.view.id()),
            (false, Format::Table) => {
                console::result_text(&table::describe(&item.view.details(Timestamp::now())));
            }
            (false, format) => print_json(format, &item.json()),
        }
    }

    /// For what was done to a thing: a sentence to people, the thing itself to programs.
    pub fn done<T: Row>(self, item: &Item<T>, sentence: impl std::fmt::Display) {
        match (self.quiet, self.format) {
            (true, _) => console::result(item.view.id()),
            (false, Format::Table) => console::result(sentence),
            (false, format) => print_json(format, &item.json()),
        }
    }

    /// For an answer that tables do not know.
    pub fn raw(self, raw: &RawValue, sentence: impl std::fmt::Display) {
        match (self.quiet, self.format) {
            (true, _) => {}
            (false, Format::Table) => console::result(sentence),
            (false, format) => print_json(format, &serde_json::from_str(raw.get()).unwrap_or_default()),
        }
    }

    /// One of a series that comes over time: a line of JSON, or a YAML document.
    pub fn next<T>(self, item: &Item<T>) {
        match self.format {
            Format::Table => {}
            Format::Json => console::result(item.json_line()),
            Format::Yaml => console::result_text(&format!("---\n{}", yaml(&item.json()))),
        }
    }
}

impl<T> Item<T> {
    fn json_line(&self) -> String {
        serde_json::to_string(&self.json()).unwrap_or_default()
    }
}

pub fn print_json(format: Format, json: &Json) {
    match format {
        Format::Yaml => console::result_text(&yaml(json)),
        _ => console::result(pretty(json)),
    }
}

pub fn pretty(json: &Json) -> String {
    serde_json::to_string_pretty(json).unwrap_or_default()
}

fn yaml(json: &Json) -> String {
    let mut text = serde_saphyr::to_string(json).unwrap_or_default();
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// None into a pipe or a file.
fn terminal_width() -> Option<usize> {
    let terminal = Term::stdout();
    if !terminal.is_term() {
        return None;
    }
    terminal.size_checked().map(|(_, columns)| columns.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_keeps_order_and_what_looks_like_something_else() {
        let json: Json = serde_json::from_str(
            r#"{"z":"no","a":[1,{"b":null}],"t":"2026-11-21T00:00:00Z","e":"","m":"x\ny"}"#,
        )
        .expect("valid");
        let text = yaml(&json);
        assert!(text.find("z:") < text.find("a:"), "{text}");
        let back: serde_json::Value = serde_saphyr::from_str(&text).expect("valid");
        assert_eq!(back, serde_json::to_value(&json).expect("plain"), "{text}");
    }
}
