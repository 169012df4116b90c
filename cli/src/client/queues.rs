//! `streamspace queues`.

use std::{process::ExitCode, time::Duration};

use anyhow::Result;
use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    Client, Run,
    api::Call,
    exit::Usage,
    output::{Details, Item, Row},
    table::{Cell, Column, Tone},
    text::{count, span},
};

#[derive(Subcommand)]
pub enum Queues {
    /// List the queues with what waits and runs in each.
    List,
    /// Show one queue.
    Show { name: String },
    /// Start no more jobs of a queue; those that run go on.
    Pause { name: String },
    /// Start its jobs again.
    Resume { name: String },
    /// Limit a queue over the whole fleet. A platform administrator's limits hold for everyone,
    /// an operator's for the jobs of the tenant.
    Set(Set),
}

#[derive(Args)]
pub struct Set {
    name: String,
    /// As many of its jobs run at once, at most; `none` lifts the limit
    #[arg(long, value_name = "N|none", value_parser = limit)]
    max_running: Option<Limit<u32>>,
    /// No more of its jobs start in a time, such as 50/s or 600/m; `none` lifts the limit
    #[arg(long, value_name = "N/TIME|none", value_parser = rate)]
    rate: Option<Limit<String>>,
}

/// A limit, or none any more.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Limit<T> {
    To(T),
    None,
}

impl<T: Into<Value>> From<Limit<T>> for Value {
    fn from(limit: Limit<T>) -> Self {
        match limit {
            Limit::To(limit) => limit.into(),
            Limit::None => Self::Null,
        }
    }
}

fn limit(text: &str) -> Result<Limit<u32>, String> {
    match text {
        "none" => Ok(Limit::None),
        text => text.parse().map(Limit::To).map_err(|_| "expected a number or `none`".to_owned()),
    }
}

fn rate(text: &str) -> Result<Limit<String>, String> {
    let is_rate = text.split_once('/').is_some_and(|(number, time)| {
        number.parse::<u32>().is_ok_and(|number| number > 0) && matches!(time, "s" | "m" | "h")
    });
    match text {
        "none" => Ok(Limit::None),
        text if is_rate => Ok(Limit::To(text.to_owned())),
        _ => Err("expected a rate such as 50/s, 600/m or 1000/h, or `none`".to_owned()),
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Queue {
    name: String,
    paused: bool,
    max_running: Option<u64>,
    rate: Option<String>,
    queued: u64,
    delayed: u64,
    blocked: u64,
    parked: u64,
    running: u64,
    oldest_age_seconds: f64,
}

impl Queue {
    fn oldest(&self) -> String {
        if self.queued == 0 {
            return String::new();
        }
        Duration::try_from_secs_f64(self.oldest_age_seconds).map(span).unwrap_or_default()
    }

    fn state(&self) -> Cell {
        if self.paused { Cell::new("paused", Tone::Warning) } else { Cell::new("open", Tone::Good) }
    }
}

impl Row for Queue {
    const COLUMNS: &'static [Column] = &[
        Column::text("NAME"),
        Column::text("STATE"),
        Column::number("QUEUED"),
        Column::number("RUNNING"),
        Column::number("DELAYED").dispensable(),
        Column::number("BLOCKED").dispensable(),
        Column::number("PARKED").dispensable(),
        Column::number("OLDEST"),
        Column::number("MAX RUNNING"),
        Column::number("RATE"),
    ];

    fn id(&self) -> &str {
        &self.name
    }

    fn cells(&self, _now: Timestamp) -> Vec<Cell> {
        let some = |number: u64| Cell::from(if number == 0 { "-".to_owned() } else { count(number) });
        vec![
            self.name.as_str().into(),
            self.state(),
            some(self.queued),
            some(self.running),
            some(self.delayed),
            some(self.blocked),
            some(self.parked),
            self.oldest().into(),
            self.max_running.map(count).unwrap_or_default().into(),
            self.rate.clone().unwrap_or_default().into(),
        ]
    }
}

impl Details for Queue {
    fn details(&self, _now: Timestamp) -> Vec<(&'static str, Cell)> {
        vec![
            ("name", self.name.as_str().into()),
            ("state", self.state()),
            ("queued", count(self.queued).into()),
            ("oldest of them", self.oldest().into()),
            ("running", count(self.running).into()),
            ("delayed", count(self.delayed).into()),
            ("blocked", count(self.blocked).into()),
            ("parked", count(self.parked).into()),
            ("max running", self.max_running.map(count).unwrap_or_else(|| "no limit".to_owned()).into()),
            ("rate", self.rate.clone().unwrap_or_else(|| "no limit".to_owned()).into()),
        ]
    }
}

impl Run for Queues {
    async fn run(self, client: &Client) -> Result<ExitCode> {
        match self {
            Self::List => {
                client.list::<Queue>(&Call::get(["queues"]), u32::MAX, "There are no queues.").await
            }
            Self::Show { name } => {
                let queue: Item<Queue> = client.item(&Call::get(["queues", &name])).await?;
                client.output.one(&queue);
                Ok(ExitCode::SUCCESS)
            }
            Self::Pause { name } => {
                let queue: Item<Queue> = client.item(&Call::post(["queues", &name, "pause"])).await?;
                client.output.done(&queue, format_args!("{name} is paused; its running jobs go on"));
                Ok(ExitCode::SUCCESS)
            }
            Self::Resume { name } => {
                let queue: Item<Queue> = client.item(&Call::post(["queues", &name, "resume"])).await?;
                if queue.view.paused {
                    // Both may pause it: a tenant its own share, the platform the whole.
                    let still =
                        format_args!("{name} is paused no longer by you, but still by the installation");
                    client.output.done(&queue, still);
                } else {
                    client.output.done(&queue, format_args!("{name} starts jobs again"));
                }
                Ok(ExitCode::SUCCESS)
            }
            Self::Set(set) => set.run(client).await,
        }
    }
}

impl Set {
    async fn run(self, client: &Client) -> Result<ExitCode> {
        let mut body = Map::new();
        if let Some(limit) = self.max_running {
            body.insert("maxRunning".to_owned(), limit.into());
        }
        if let Some(rate) = self.rate {
            body.insert("rate".to_owned(), rate.into());
        }
        if body.is_empty() {
            return Err(Usage::new("nothing to set", "name --max-running or --rate").into());
        }
        let call = Call::new(reqwest::Method::PATCH, ["queues", &self.name]).body(json!(body));
        let queue: Item<Queue> = client.item(&call).await?;
        client.output.one(&queue);
        Ok(ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read() {
        assert_eq!(limit("none"), Ok(Limit::None));
        assert_eq!(limit("7"), Ok(Limit::To(7)));
        assert!(limit("-1").is_err());
        assert_eq!(rate("none"), Ok(Limit::None));
        assert_eq!(rate("50/s"), Ok(Limit::To("50/s".to_owned())));
        for wrong in ["50", "0/s", "50/year", "/s"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
        assert_eq!(Value::from(Limit::<u32>::None), Value::Null);
    }
}
