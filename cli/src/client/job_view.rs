//! A job, as far as tables and waiting understand it. What a newer server adds stays in the raw
//! object that `-o json` prints.

use std::{fmt, time::Duration};

use jiff::Timestamp;
use serde::Deserialize;

use super::{
    json::Json,
    output::{Details, Row, pretty},
    progress_view::Progress,
    table::{Cell, Column, Tone},
    text::{clean, count, moment, relative, span},
    waiting_view::Waiting,
};

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Job {
    pub id: String,
    pub kind: String,
    pub queue: String,
    pub state: String,
    pub terminal: bool,
    pub priority: i64,
    pub attempt: u32,
    pub max_attempts: u32,
    pub progress: Option<Progress>,
    pub arguments: Json,
    pub result: Json,
    pub warning: Option<String>,
    pub errors: Vec<Failure>,
    pub waiting: Option<Waiting>,
    pub concurrency_keys: Vec<String>,
    pub batch: Option<Batch>,
    pub created_by: CreatedBy,
    pub worker_id: Option<String>,
    pub parent_id: Option<String>,
    pub request_id: Option<String>,
    pub created_at: Option<Timestamp>,
    pub run_at: Option<Timestamp>,
    pub started_at: Option<Timestamp>,
    pub cancel_requested_at: Option<Timestamp>,
    pub cancel_delivered_at: Option<Timestamp>,
    pub cancel_stopped_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
}

/// How far a batch is.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Batch {
    pub total_items: u64,
    pub processed_items: u64,
    pub failure_count: u64,
    pub cancelled_count: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct CreatedBy {
    #[serde(rename = "type")]
    pub kind: String,
    pub id: Option<String>,
}

/// How one attempt failed.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Failure {
    pub attempt: u32,
    pub at: Option<Timestamp>,
    pub kind: String,
    pub message: String,
}

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", count(self.processed_items), count(self.total_items))?;
        if self.failure_count > 0 {
            write!(f, ", {} failed", count(self.failure_count))?;
        }
        if self.cancelled_count > 0 {
            write!(f, ", {} cancelled", count(self.cancelled_count))?;
        }
        Ok(())
    }
}

impl fmt::Display for CreatedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind.replace('_', " ");
        match &self.id {
            Some(id) => write!(f, "{kind} {id}"),
            None => f.write_str(&kind),
        }
    }
}

impl Job {
    pub fn tone(&self) -> Tone {
        match self.state.as_str() {
            "succeeded" => Tone::Good,
            "failed" => Tone::Bad,
            "running" => Tone::Busy,
            "cancelled" | "retrying" => Tone::Warning,
            _ => Tone::Plain,
        }
    }

    /// How long its last attempt ran, or runs.
    pub fn ran(&self, now: Timestamp) -> Option<Duration> {
        let until = match (self.finished_at, self.state.as_str()) {
            (Some(finished), _) => finished,
            (None, "running") => now,
            (None, _) => return None,
        };
        Duration::try_from(until.duration_since(self.started_at?)).ok()
    }

    pub fn last_error(&self) -> Option<&Failure> {
        self.errors.last()
    }

    /// What there is to say of its state in a few words.
    pub fn remark(&self, now: Timestamp) -> String {
        let error = || self.last_error().map(|error| error.message.clone());
        match self.state.as_str() {
            "failed" => error().unwrap_or_default(),
            "retrying" => {
                let when = self.run_at.map(|at| relative(at, now)).unwrap_or_default();
                format!("{when}: {}", error().unwrap_or_default())
            }
            "running" if self.cancel_requested_at.is_some() => "asked to stop".to_owned(),
            "running" => {
                self.progress.as_ref().and_then(|progress| progress.message.clone()).unwrap_or_default()
            }
            "succeeded" | "cancelled" => self.warning.clone().unwrap_or_default(),
            "scheduled" | "snoozed" => self.run_at.map(|at| relative(at, now)).unwrap_or_default(),
            _ => self.waiting.as_ref().map(Waiting::summary).unwrap_or_default(),
        }
    }

    /// `succeeded in 4.2s`, `failed after 3 attempts: no such host`.
    pub fn ending(&self, now: Timestamp) -> String {
        let took = self.ran(now).map(|took| format!(" in {}", span(took))).unwrap_or_default();
        match self.state.as_str() {
            "failed" => {
                let attempts = if self.attempt == 1 { "attempt" } else { "attempts" };
                let error = self.last_error().map(|error| format!(": {}", clean(&error.message)));
                format!("failed after {} {attempts}{}", self.attempt, error.unwrap_or_default())
            }
            "succeeded" => match &self.warning {
                Some(warning) => format!("succeeded{took}, with a warning: {}", clean(warning)),
                None => format!("succeeded{took}"),
            },
            "cancelled" => match self.last_error() {
                Some(error) if self.cancel_requested_at.is_none() => {
                    format!("cancelled: {}", clean(&error.message))
                }
                _ => "cancelled".to_owned(),
            },
            state => state.to_owned(),
        }
    }
}

impl Row for Job {
    const COLUMNS: &'static [Column] = &[
        Column::text("ID"),
        Column::shrinking("KIND"),
        Column::text("QUEUE").dispensable(),
        Column::text("STATE"),
        Column::number("TRY").dispensable(),
        Column::number("DONE").dispensable(),
        Column::number("TOOK").dispensable(),
        Column::number("CREATED"),
        Column::shrinking("REMARK"),
    ];

    fn id(&self) -> &str {
        &self.id
    }

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        let progress = self.progress.as_ref().and_then(Progress::percent);
        vec![
            self.id.as_str().into(),
            self.kind.as_str().into(),
            self.queue.as_str().into(),
            Cell::new(self.state.as_str(), self.tone()),
            format!("{}/{}", self.attempt, self.max_attempts).into(),
            progress.map(|percent| format!("{percent:.0}%")).unwrap_or_default().into(),
            self.ran(now).map(span).unwrap_or_default().into(),
            self.created_at.map(|at| relative(at, now)).unwrap_or_default().into(),
            Cell::new(self.remark(now), if self.state == "failed" { Tone::Bad } else { Tone::Faint }),
        ]
    }
}

impl Details for Job {
    fn details(&self, now: Timestamp) -> Vec<(&'static str, Cell)> {
        let at = |time: Option<Timestamp>| Cell::from(time.map(|at| moment(at, now)).unwrap_or_default());
        // What it waits for, its progress and its errors have lines of their own.
        let is_told = self.terminal || self.waiting.is_some() || self.progress.is_some();
        let state = match self.remark(now) {
            remark if remark.is_empty() || is_told => self.state.clone(),
            remark => format!("{}: {remark}", self.state),
        };
        let waits = self.waiting.as_ref().filter(|_| !self.terminal);
        vec![
            ("id", self.id.as_str().into()),
            ("kind", self.kind.as_str().into()),
            ("queue", self.queue.as_str().into()),
            ("state", Cell::new(state, self.tone())),
            ("waits for", waits.map(Waiting::lines).unwrap_or_default().into()),
            ("attempt", format!("{} of {}", self.attempt, self.max_attempts).into()),
            ("priority", if self.priority == 0 { String::new() } else { self.priority.to_string() }.into()),
            ("concurrency", self.concurrency_keys.join("\n").into()),
            ("progress", self.progress.as_ref().map(Progress::to_string).unwrap_or_default().into()),
            ("items", self.batch.as_ref().map(Batch::to_string).unwrap_or_default().into()),
            ("created", at(self.created_at)),
            ("by", self.created_by.to_string().into()),
            ("runs at", at(self.run_at.filter(|_| !self.terminal && self.state != "running"))),
            ("started", at(self.started_at)),
            ("worker", self.worker_id.clone().unwrap_or_default().into()),
            ("cancel requested", at(self.cancel_requested_at)),
            ("cancel delivered", at(self.cancel_delivered_at)),
            ("stopped", at(self.cancel_stopped_at)),
            ("finished", at(self.finished_at)),
            ("took", self.ran(now).map(span).unwrap_or_default().into()),
            ("parent", self.parent_id.as_deref().unwrap_or_default().into()),
            ("request", self.request_id.as_deref().unwrap_or_default().into()),
            ("arguments", block(&self.arguments)),
            ("result", block(&self.result)),
            ("warning", Cell::new(self.warning.as_deref().unwrap_or_default(), Tone::Warning)),
            ("errors", Cell::new(self.failures(now), Tone::Bad)),
        ]
    }
}

impl Job {
    fn failures(&self, now: Timestamp) -> String {
        let line = |failure: &Failure| {
            let when = failure.at.map(|at| format!(", {}", relative(at, now))).unwrap_or_default();
            let kind = if failure.kind.is_empty() { String::new() } else { format!("{}: ", failure.kind) };
            format!("attempt {}{when}: {kind}{}", failure.attempt, clean(&failure.message))
        };
        self.errors.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

/// JSON up to this long stands on one line.
const SHORT: usize = 72;

pub fn block(json: &Json) -> Cell {
    match json {
        json if json.is_nothing() => Cell::default(),
        json => match json.compact() {
            line if line.len() <= SHORT => line,
            _ => pretty(json),
        }
        .into(),
    }
}
