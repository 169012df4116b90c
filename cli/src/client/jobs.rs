//! `streamspace jobs`.

use std::{process::ExitCode, time::Duration};

use anyhow::Result;
use clap::{Args, Subcommand};
use futures::{StreamExt, stream};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{json, value::RawValue};
use uuid::Uuid;

use super::{
    Client, Run,
    api::Call,
    confirm::confirm,
    error::Error,
    exit::{Exit, HELP, Usage},
    job_view::Job,
    output::Item,
    text::{count, parse_duration},
    wait::{self, Aim, Show, Wait},
};
use crate::console;

#[derive(Subcommand)]
pub enum Jobs {
    /// List jobs, newest first.
    List(List),
    /// Show one job whole: why it waits, its progress, result and errors.
    Show { id: Uuid },
    /// Watch jobs until they have ended. Ctrl-C stops watching; the jobs go on.
    #[command(after_help = HELP)]
    Watch(Watch),
    /// Cancel jobs: those named, or all that match a filter.
    #[command(after_help = HELP)]
    Cancel(Change),
    /// Run failed or cancelled jobs again: those named, or all that match a filter.
    #[command(after_help = HELP)]
    Retry(Change),
}

#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Filters")]
pub struct Filter {
    /// In one of these states: scheduled, queued, running, retrying, snoozed, parked, succeeded,
    /// failed, cancelled
    #[arg(long, value_name = "STATE", value_delimiter = ',', value_parser = STATES)]
    state: Vec<String>,
    /// Of this kind, such as snapshots.create
    #[arg(long)]
    kind: Option<String>,
    /// In this queue
    #[arg(long)]
    queue: Option<String>,
    /// Started by this job, as the chunks of a batch are
    #[arg(long, value_name = "JOB")]
    parent: Option<Uuid>,
    /// Started by this schedule
    #[arg(long, value_name = "SCHEDULE")]
    schedule: Option<Uuid>,
    /// Made within this time, such as 2h
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    since: Option<Duration>,
}

const STATES: [&str; 9] =
    ["scheduled", "queued", "running", "retrying", "snoozed", "parked", "succeeded", "failed", "cancelled"];

#[derive(Args)]
pub struct List {
    #[command(flatten)]
    filter: Filter,
    /// How many at most
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
}

#[derive(Args)]
pub struct Watch {
    #[arg(required = true, num_args = 1..=16)]
    ids: Vec<Uuid>,
    /// Watch no longer than this, such as 90s or 2h
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    timeout: Option<Duration>,
}

#[derive(Args)]
pub struct Change {
    #[arg(conflicts_with_all = ["state", "kind", "queue", "parent", "schedule", "since", "all"], num_args = 0..=16)]
    ids: Vec<Uuid>,
    #[command(flatten)]
    filter: Filter,
    /// Without a filter: all there are
    #[arg(long)]
    all: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    wait: Wait,
}

/// What is done to jobs.
#[derive(Clone, Copy)]
enum Verb {
    Cancel,
    Retry,
}

impl Run for Jobs {
    async fn run(self, client: &Client) -> Result<ExitCode> {
        match self {
            Self::List(list) => list.run(client).await,
            Self::Show { id } => {
                let job: Item<Job> = client.item(&Call::get(["jobs", &id.to_string()])).await?;
                client.output.one(&job);
                Ok(ExitCode::SUCCESS)
            }
            Self::Watch(watch) => {
                let ids: Vec<String> = watch.ids.iter().map(Uuid::to_string).collect();
                let exit = wait::for_jobs(client, &ids, watch.timeout, Aim::Success, Show::Changes).await?;
                Ok(exit.into())
            }
            Self::Cancel(change) => change.run(client, Verb::Cancel).await,
            Self::Retry(change) => change.run(client, Verb::Retry).await,
        }
    }
}

impl List {
    async fn run(self, client: &Client) -> Result<ExitCode> {
        let filter = &self.filter;
        let states = (!filter.state.is_empty()).then(|| filter.state.join(","));
        let call = Call::get(["jobs"])
            .query("state", states)
            .query("kind", filter.kind.as_ref())
            .query("queue", filter.queue.as_ref())
            .query("parent", filter.parent)
            .query("schedule", filter.schedule)
            .query("createdFrom", filter.created_from());
        client.list::<Job>(&call, self.limit, "No jobs match.").await
    }
}

impl Filter {
    fn created_from(&self) -> Option<Timestamp> {
        self.since.map(|since| Timestamp::now() - since)
    }

    fn is_empty(&self) -> bool {
        self.state.is_empty()
            && self.kind.is_none()
            && self.queue.is_none()
            && self.parent.is_none()
            && self.schedule.is_none()
            && self.since.is_none()
    }

    fn body(&self) -> serde_json::Value {
        let mut body = serde_json::Map::new();
        let mut put = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                body.insert(name.to_owned(), value.into());
            }
        };
        put("kind", self.kind.clone());
        put("queue", self.queue.clone());
        put("parent", self.parent.map(|id| id.to_string()));
        put("schedule", self.schedule.map(|id| id.to_string()));
        put("createdFrom", self.created_from().map(|at| at.to_string()));
        if !self.state.is_empty() {
            body.insert("states".to_owned(), json!(self.state));
        }
        body.into()
    }
}

impl Change {
    async fn run(self, client: &Client, verb: Verb) -> Result<ExitCode> {
        if self.ids.is_empty() {
            return self.run_on_filter(client, verb).await;
        }
        let ids: Vec<String> = self.ids.iter().map(Uuid::to_string).collect();
        let answers: Vec<(&String, Result<Item<Job>, Error>)> = stream::iter(&ids)
            .map(|id| async move { (id, client.item(&Call::post(["jobs", id, verb.name()])).await) })
            .buffered(4)
            .collect()
            .await;
        let mut changed = Vec::new();
        for (id, answer) in answers {
            match answer {
                Ok(job) => {
                    if !self.wait.wait {
                        client.output.done(&job, verb.sentence(&job.view));
                    }
                    changed.push(id.clone());
                }
                Err(error) => console::say(error.told_of(format_args!("job {id}"))),
            }
        }
        let waited = match self.wait.wait && !changed.is_empty() {
            true => wait::for_jobs(client, &changed, self.wait.timeout, verb.aim(), Show::Ends).await?,
            false => Exit::Succeeded,
        };
        Ok(if changed.len() < ids.len() { ExitCode::FAILURE } else { waited.into() })
    }

    async fn run_on_filter(self, client: &Client, verb: Verb) -> Result<ExitCode> {
        let name = verb.name();
        if self.filter.is_empty() && !self.all {
            return Err(Usage::new(
                format!("which jobs? `jobs {name}` takes ids or a filter"),
                format!("streamspace jobs {name} --queue batch --since 1h, or --all"),
            )
            .into());
        }
        if self.wait.wait {
            return Err(Usage::new("--wait goes with ids", "list the jobs with -q, then watch them").into());
        }
        if !self.yes && !confirm(format_args!("{} {}?", verb.question(), self.filter.words()))? {
            return Ok(ExitCode::FAILURE);
        }
        let call = Call::post(["jobs", name]).body(self.filter.body());
        let raw: Box<RawValue> = client.api.send(&call).await?;
        let changed: Changed =
            serde_json::from_str(raw.get()).map_err(|error| client.api.unreadable(error))?;
        client.output.raw(&raw, changed.sentence(verb));
        Ok(ExitCode::SUCCESS)
    }
}

/// The answer to a change of all jobs that match a filter.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Changed {
    changed: Option<u64>,
    job_id: Option<String>,
}

impl Changed {
    fn sentence(&self, verb: Verb) -> String {
        let what = match (verb, self.changed) {
            (Verb::Cancel, Some(1)) => "1 job cancelled".to_owned(),
            (Verb::Retry, Some(1)) => "1 job queued again".to_owned(),
            (Verb::Cancel, Some(changed)) => format!("{} jobs cancelled", count(changed)),
            (Verb::Retry, Some(changed)) => format!("{} jobs queued again", count(changed)),
            (_, None) => "accepted".to_owned(),
        };
        match &self.job_id {
            Some(id) => format!("{what}; a job does the rest: streamspace jobs watch {id}"),
            None => what,
        }
    }
}

impl Filter {
    /// For the question before many jobs are changed.
    fn words(&self) -> String {
        let mut words = vec!["all".to_owned()];
        words.extend((!self.state.is_empty()).then(|| self.state.join(" or ")));
        words.extend(self.kind.clone());
        words.push("jobs".to_owned());
        words.extend(self.queue.as_ref().map(|queue| format!("of the queue {queue}")));
        words.extend(self.parent.map(|id| format!("of the job {id}")));
        words.extend(self.schedule.map(|id| format!("of the schedule {id}")));
        words.extend(self.since.map(|since| format!("of the last {}", super::text::span(since))));
        words.join(" ")
    }
}

impl Verb {
    fn name(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Retry => "retry",
        }
    }

    fn question(self) -> &'static str {
        match self {
            Self::Cancel => "Cancel",
            Self::Retry => "Run again",
        }
    }

    fn aim(self) -> Aim {
        match self {
            Self::Cancel => Aim::End,
            Self::Retry => Aim::Success,
        }
    }

    /// A job that had ended before says how.
    fn sentence(self, job: &Job) -> String {
        let what = match self {
            Self::Cancel if !job.terminal => "asked to stop".to_owned(),
            Self::Cancel => job.ending(Timestamp::now()),
            Self::Retry => "queued again".to_owned(),
        };
        format!("{}  {}  {what}", job.id, job.kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_names_what_it_is_about() {
        let filter = Filter {
            state: vec!["failed".to_owned(), "cancelled".to_owned()],
            queue: Some("batch".to_owned()),
            since: Some(Duration::from_secs(7200)),
            ..Filter::default()
        };
        assert_eq!(filter.words(), "all failed or cancelled jobs of the queue batch of the last 2h 00m");
        assert!(!filter.is_empty());
        assert!(Filter::default().is_empty());
    }
}
