//! A schedule and what it fired, as far as tables understand them.

use jiff::Timestamp;
use serde::Deserialize;

use super::{
    job_view::block,
    json::Json,
    output::{Details, Row},
    table::{Cell, Column, Tone},
    text::{count, moment, relative},
};

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Schedule {
    pub id: String,
    pub name: String,
    pub kind: String,
    pub cron: Option<String>,
    /// Built-in ones may fire at an interval.
    pub every: Option<String>,
    pub time_zone: String,
    pub jitter: Option<String>,
    pub catch_up: String,
    pub catch_up_window: Option<String>,
    pub overlap: String,
    pub built_in: bool,
    pub paused: bool,
    pub arguments: Json,
    pub next_fire_at: Option<Timestamp>,
    pub last_fire_at: Option<Timestamp>,
    pub last_job_id: Option<String>,
    pub missed_count: u64,
}

impl Schedule {
    fn when(&self) -> String {
        match (&self.cron, &self.every) {
            (Some(cron), _) => cron.clone(),
            (None, Some(every)) => format!("every {every}"),
            (None, None) => String::new(),
        }
    }

    fn state(&self) -> Cell {
        match (self.paused, self.next_fire_at) {
            (true, _) => Cell::new("paused", Tone::Warning),
            (false, None) => Cell::new("over", Tone::Faint),
            (false, Some(_)) => Cell::new("on", Tone::Good),
        }
    }
}

impl Row for Schedule {
    const COLUMNS: &'static [Column] = &[
        Column::text("ID"),
        Column::shrinking("NAME"),
        Column::shrinking("KIND"),
        Column::text("STATE"),
        Column::text("WHEN"),
        Column::text("ZONE").dispensable(),
        Column::number("NEXT"),
        Column::number("LAST").dispensable(),
        Column::number("MISSED").dispensable(),
    ];

    fn id(&self) -> &str {
        &self.id
    }

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        let told = |at: Option<Timestamp>| Cell::from(at.map(|at| relative(at, now)).unwrap_or_default());
        let missed = if self.missed_count == 0 { String::new() } else { count(self.missed_count) };
        vec![
            self.id.as_str().into(),
            self.name.as_str().into(),
            self.kind.as_str().into(),
            self.state(),
            self.when().into(),
            self.time_zone.as_str().into(),
            told(self.next_fire_at.filter(|_| !self.paused)),
            told(self.last_fire_at),
            Cell::new(missed, Tone::Warning),
        ]
    }
}

impl Details for Schedule {
    fn details(&self, now: Timestamp) -> Vec<(&'static str, Cell)> {
        let at = |time: Option<Timestamp>| Cell::from(time.map(|at| moment(at, now)).unwrap_or_default());
        let catch_up = match &self.catch_up_window {
            Some(window) if self.catch_up != "skip" => format!("{} within {window}", self.catch_up),
            _ => self.catch_up.clone(),
        };
        vec![
            ("id", self.id.as_str().into()),
            ("name", self.name.as_str().into()),
            ("kind", self.kind.as_str().into()),
            ("state", self.state()),
            ("origin", if self.built_in { "built in" } else { "" }.into()),
            ("when", self.when().into()),
            ("time zone", self.time_zone.as_str().into()),
            ("jitter", self.jitter.clone().filter(|jitter| jitter != "0s").unwrap_or_default().into()),
            ("catch-up", catch_up.into()),
            ("overlap", self.overlap.as_str().into()),
            ("next", at(self.next_fire_at.filter(|_| !self.paused))),
            ("last", at(self.last_fire_at)),
            ("last job", self.last_job_id.clone().unwrap_or_default().into()),
            ("missed", if self.missed_count == 0 { String::new() } else { count(self.missed_count) }.into()),
            ("arguments", block(&self.arguments)),
        ]
    }
}

/// One time at which a schedule fired, or did not.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Fire {
    pub fire_at: Option<Timestamp>,
    pub at: Option<Timestamp>,
    pub outcome: String,
    pub job_id: Option<String>,
}

impl Row for Fire {
    const COLUMNS: &'static [Column] =
        &[Column::text("DUE"), Column::text("OUTCOME"), Column::text("JOB"), Column::number("DECIDED")];

    fn id(&self) -> &str {
        self.job_id.as_deref().unwrap_or_default()
    }

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        let tone = match self.outcome.as_str() {
            "fired" => Tone::Good,
            "missed" => Tone::Bad,
            "skipped" => Tone::Warning,
            _ => Tone::Plain,
        };
        vec![
            self.fire_at.map(|at| moment(at, now)).unwrap_or_default().into(),
            Cell::new(self.outcome.as_str(), tone),
            self.job_id.clone().unwrap_or_default().into(),
            self.at.map(|at| relative(at, now)).unwrap_or_default().into(),
        ]
    }
}
