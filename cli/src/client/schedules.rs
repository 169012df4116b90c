//! `streamspace schedules`.

use std::{io::Read, process::ExitCode};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use jiff::{Timestamp, tz::TimeZone};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json, value::RawValue};
use uuid::Uuid;

use super::{
    Client, Run,
    api::Call,
    exit::{HELP, Usage},
    job_view::Job,
    output::{Format, Item},
    schedule_view::{Fire, Schedule},
    text::relative,
    wait::{self, Aim, Show, Wait},
};
use crate::console;

#[derive(Subcommand)]
pub enum Schedules {
    /// List schedules: the tenant's and the built-in ones.
    List {
        /// How many at most
        #[arg(long, default_value_t = 200)]
        limit: u32,
    },
    /// Show one schedule. Like every command here it takes an id, a name, or the kind of jobs that
    /// it alone starts.
    Show { schedule: String },
    /// Make a schedule.
    Create(Create),
    /// Change a schedule; what is not named stays.
    Update(Update),
    /// Remove a schedule. The jobs it started stay.
    Delete { schedule: String },
    /// Fire no more until it is resumed.
    Pause { schedule: String },
    /// Fire again, from the next time on.
    Resume { schedule: String },
    /// Start its job now.
    #[command(after_help = HELP)]
    Run {
        schedule: String,
        #[command(flatten)]
        wait: Wait,
    },
    /// Show when a schedule or a cron expression fires next.
    Preview(Preview),
    /// List when a schedule fired, and when it did not.
    Fires {
        schedule: String,
        /// How many at most
        #[arg(long, default_value_t = 50)]
        limit: u32,
    },
}

#[derive(Args)]
pub struct Create {
    #[arg(long)]
    name: String,
    /// What it starts, such as snapshots.expire
    #[arg(long)]
    kind: String,
    #[command(flatten)]
    plan: Plan,
    /// Made paused
    #[arg(long)]
    paused: bool,
}

#[derive(Args)]
pub struct Update {
    schedule: String,
    /// A new name
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    plan: Plan,
}

/// When it fires, and what with.
#[derive(Args)]
pub struct Plan {
    /// Five fields: minute, hour, day of the month, month, day of the week
    #[arg(long, value_name = "EXPRESSION")]
    cron: Option<String>,
    /// Such as Europe/Berlin; UTC otherwise
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<String>,
    /// Fire up to this much later, such as 30s, a different time each
    #[arg(long, value_name = "TIME")]
    jitter: Option<String>,
    /// Times that passed while no scheduler ran: forget them, start one job, or one for each
    #[arg(long, value_parser = ["skip", "one", "all"])]
    catch_up: Option<String>,
    /// How far back that goes, such as 1h
    #[arg(long, value_name = "TIME")]
    catch_up_window: Option<String>,
    /// While its last job still runs: start another, or leave the time out
    #[arg(long, value_parser = ["allow", "skip"])]
    overlap: Option<String>,
    /// What the job is given, as JSON: text, @file, or - for standard input
    #[arg(long, value_name = "JSON")]
    arguments: Option<String>,
}

#[derive(Args)]
pub struct Preview {
    /// An id, a name, or a kind
    #[arg(required_unless_present = "cron", conflicts_with_all = ["cron", "time_zone"])]
    schedule: Option<String>,
    #[arg(long, value_name = "EXPRESSION")]
    cron: Option<String>,
    /// Such as Europe/Berlin; UTC otherwise
    #[arg(long, value_name = "ZONE", requires = "cron")]
    time_zone: Option<String>,
    /// How many times
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    count: u32,
}

impl Run for Schedules {
    async fn run(self, client: &Client) -> Result<ExitCode> {
        match self {
            Self::List { limit } => {
                client.list::<Schedule>(&Call::get(["schedules"]), limit, "There are no schedules.").await
            }
            Self::Show { schedule } => {
                let id = id_of(client, &schedule).await?;
                client.output.one(&read(client, &id).await?);
                Ok(ExitCode::SUCCESS)
            }
            Self::Create(create) => create.run(client).await,
            Self::Update(update) => update.run(client).await,
            Self::Delete { schedule } => {
                let id = id_of(client, &schedule).await?;
                let gone = Call::new(Method::DELETE, ["schedules", &id]);
                client.api.send::<serde::de::IgnoredAny>(&gone).await?;
                if client.output.is_for_people() {
                    console::result(format_args!("{schedule} is deleted"));
                }
                Ok(ExitCode::SUCCESS)
            }
            Self::Pause { schedule } => change(client, &schedule, "pause", "is paused").await,
            Self::Resume { schedule } => change(client, &schedule, "resume", "fires again").await,
            Self::Run { schedule, wait } => run_now(client, &schedule, wait).await,
            Self::Preview(preview) => preview.run(client).await,
            Self::Fires { schedule, limit } => {
                let id = id_of(client, &schedule).await?;
                client
                    .list::<Fire>(&Call::get(["schedules", &id, "fires"]), limit, "It has not fired yet.")
                    .await
            }
        }
    }
}

/// The API knows schedules by their ids; people know their names, or what they start.
async fn id_of(client: &Client, schedule: &str) -> Result<String> {
    if schedule.parse::<Uuid>().is_ok() {
        return Ok(schedule.to_owned());
    }
    let (all, _) = client.api.list(&Call::get(["schedules"]), usize::MAX).await?;
    let all: Vec<Schedule> = all.iter().filter_map(|raw| serde_json::from_str(raw.get()).ok()).collect();
    let named: Vec<_> = all.iter().filter(|found| found.name == schedule).collect();
    let meant =
        if named.is_empty() { all.iter().filter(|found| found.kind == schedule).collect() } else { named };
    match meant.as_slice() {
        [found] => Ok(found.id.clone()),
        [] => Err(Usage::new(
            format!("there is no schedule {schedule:?}"),
            "`streamspace schedules list` shows them",
        )
        .into()),
        _ => Err(Usage::new(
            format!("several schedules are called {schedule:?} or start that"),
            "name one by its id: `streamspace schedules list` shows them",
        )
        .into()),
    }
}

async fn read(client: &Client, id: &str) -> Result<Item<Schedule>> {
    Ok(client.item(&Call::get(["schedules", id])).await?)
}

async fn change(client: &Client, schedule: &str, verb: &str, sentence: &str) -> Result<ExitCode> {
    let id = id_of(client, schedule).await?;
    let changed: Item<Schedule> = client.item(&Call::post(["schedules", &id, verb])).await?;
    let next = changed.view.next_fire_at.filter(|_| !changed.view.paused);
    let next = next.map(|at| format!(", next {}", relative(at, Timestamp::now()))).unwrap_or_default();
    client.output.done(&changed, format_args!("{schedule} {sentence}{next}"));
    Ok(ExitCode::SUCCESS)
}

async fn run_now(client: &Client, schedule: &str, wait: Wait) -> Result<ExitCode> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Started {
        job_id: String,
        #[serde(default)]
        duplicate: bool,
    }
    let id = id_of(client, schedule).await?;
    let raw: Box<RawValue> = client.api.send(&Call::post(["schedules", &id, "run"])).await?;
    let Started { job_id, duplicate } =
        serde_json::from_str(raw.get()).map_err(|error| client.api.unreadable(error))?;
    if duplicate && client.output.is_for_people() {
        console::say("Its job was there already:");
    }
    if wait.wait {
        return Ok(wait::for_jobs(client, &[job_id], wait.timeout, Aim::Success, Show::Ends).await?.into());
    }
    let job: Item<Job> = client.item(&Call::get(["jobs", &job_id])).await?;
    client.output.done(&job, format_args!("{job_id}  {}  {}", job.view.kind, job.view.state));
    Ok(ExitCode::SUCCESS)
}

impl Create {
    async fn run(self, client: &Client) -> Result<ExitCode> {
        if self.plan.cron.is_none() {
            return Err(Usage::new("when is it to fire?", "name a time: --cron '30 4 * * *'").into());
        }
        let mut body = Map::new();
        body.insert("name".to_owned(), self.name.into());
        body.insert("kind".to_owned(), self.kind.into());
        if self.paused {
            body.insert("paused".to_owned(), true.into());
        }
        self.plan.write(&mut body)?;
        let made: Item<Schedule> = client.item(&Call::post(["schedules"]).body(body.into())).await?;
        client.output.one(&made);
        Ok(ExitCode::SUCCESS)
    }
}

/// What a PUT takes; all else in a schedule is the server's.
const WRITABLE: [&str; 10] = [
    "name",
    "kind",
    "cron",
    "timeZone",
    "jitter",
    "catchUp",
    "catchUpWindow",
    "overlap",
    "arguments",
    "paused",
];

impl Update {
    async fn run(self, client: &Client) -> Result<ExitCode> {
        let id = id_of(client, &self.schedule).await?;
        let current = read(client, &id).await?;
        let mut body: Map<String, Value> = serde_json::from_str(current.raw.get())?;
        body.retain(|field, value| WRITABLE.contains(&field.as_str()) && !value.is_null());
        let before = body.clone();
        if let Some(name) = self.name {
            body.insert("name".to_owned(), name.into());
        }
        self.plan.write(&mut body)?;
        if body == before {
            return Err(Usage::new("nothing changes", "name what is to be different, such as --cron").into());
        }
        let call = Call::new(Method::PUT, ["schedules", &id]).body(body.into());
        let changed: Item<Schedule> = client.item(&call).await?;
        client.output.one(&changed);
        Ok(ExitCode::SUCCESS)
    }
}

impl Plan {
    fn write(self, body: &mut Map<String, Value>) -> Result<()> {
        let texts = [
            ("cron", self.cron),
            ("timeZone", self.time_zone),
            ("jitter", self.jitter),
            ("catchUp", self.catch_up),
            ("catchUpWindow", self.catch_up_window),
            ("overlap", self.overlap),
        ];
        for (field, text) in texts {
            if let Some(text) = text {
                body.insert(field.to_owned(), text.into());
            }
        }
        if let Some(arguments) = &self.arguments {
            body.insert("arguments".to_owned(), read_json(arguments)?);
        }
        Ok(())
    }
}

/// JSON from the command line, `@file` or `-`.
fn read_json(text: &str) -> Result<Value> {
    let read = match (text, text.strip_prefix('@')) {
        ("-", _) => {
            let mut read = String::new();
            std::io::stdin().read_to_string(&mut read).context("cannot read standard input")?;
            read
        }
        (_, Some(path)) => std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?,
        (text, None) => text.to_owned(),
    };
    serde_json::from_str(&read).map_err(|error| {
        Usage::new(format!("the arguments are no JSON: {error}"), r#"such as --arguments '{"days": 7}'"#)
            .into()
    })
}

impl Preview {
    async fn run(self, client: &Client) -> Result<ExitCode> {
        let (cron, time_zone) = match (self.cron, self.schedule) {
            (Some(cron), _) => (cron, self.time_zone.unwrap_or_else(|| "UTC".to_owned())),
            (None, schedule) => {
                let id = id_of(client, &schedule.unwrap_or_default()).await?;
                let Schedule { cron, time_zone, name, .. } = read(client, &id).await?.view;
                let cron = cron.ok_or_else(|| {
                    Usage::new(format!("{name} fires at an interval"), "`schedules show` has its next time")
                })?;
                (cron, time_zone)
            }
        };
        let body = json!({"cron": cron, "timeZone": time_zone, "count": self.count});
        let raw: Box<RawValue> = client.api.send(&Call::post(["schedules", "preview"]).body(body)).await?;
        if client.output.format != Format::Table {
            client.output.raw(&raw, "");
            return Ok(ExitCode::SUCCESS);
        }
        let Next { times } = serde_json::from_str(raw.get()).map_err(|error| client.api.unreadable(error))?;
        // In the schedule's zone, as whoever wrote the expression thinks of it.
        let zone = TimeZone::get(&time_zone).unwrap_or(TimeZone::UTC);
        let now = Timestamp::now();
        for at in times {
            let local = at.to_zoned(zone.clone());
            console::result(format_args!(
                "{}  {}",
                local.strftime("%a %Y-%m-%d %H:%M:%S %:z"),
                relative(at, now)
            ));
        }
        Ok(ExitCode::SUCCESS)
    }
}

#[derive(Deserialize)]
struct Next {
    times: Vec<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_json_from_text_or_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("arguments.json");
        std::fs::write(&path, r#"{"days": 7}"#).expect("written");
        let expected = json!({"days": 7});
        assert_eq!(read_json(r#"{"days": 7}"#).expect("valid"), expected);
        assert_eq!(read_json(&format!("@{}", path.display())).expect("valid"), expected);
        let error = read_json("{days: 7}").expect_err("no JSON");
        assert!(error.is::<Usage>(), "{error}");
    }
}
