//! `streamspace workers`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;
use jiff::Timestamp;
use serde::Deserialize;
use uuid::Uuid;

use super::{
    Client, Run,
    api::Call,
    output::{Details, Item, Row},
    table::{Cell, Column, Tone},
    text::{moment, relative},
};

#[derive(Subcommand)]
pub enum Workers {
    /// List the processes that run jobs.
    List,
    /// Show one of them.
    Show { id: Uuid },
    /// Let it finish what it runs, start nothing more, and end.
    Drain { id: Uuid },
    /// Let it start jobs again.
    Resume { id: Uuid },
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Worker {
    id: String,
    host: String,
    pid: Option<u64>,
    version: String,
    queues: Option<Vec<String>>,
    concurrency: u64,
    running: u64,
    abandoned: u64,
    status: String,
    running_jobs: Vec<String>,
    started_at: Option<Timestamp>,
    last_heartbeat_at: Option<Timestamp>,
}

impl Worker {
    fn queues(&self) -> String {
        self.queues.as_ref().map(|queues| queues.join(", ")).unwrap_or_else(|| "all".to_owned())
    }

    fn state(&self) -> Cell {
        let tone = match self.status.as_str() {
            "live" => Tone::Good,
            "silent" => Tone::Bad,
            _ => Tone::Warning,
        };
        Cell::new(self.status.as_str(), tone)
    }
}

impl Row for Worker {
    const COLUMNS: &'static [Column] = &[
        Column::text("ID"),
        Column::shrinking("HOST"),
        Column::text("VERSION").dispensable(),
        Column::text("STATE"),
        Column::number("RUNNING"),
        Column::number("STARTED").dispensable(),
        Column::number("HEARTBEAT"),
        Column::shrinking("QUEUES"),
    ];

    fn id(&self) -> &str {
        &self.id
    }

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        let ago = |at: Option<Timestamp>| Cell::from(at.map(|at| relative(at, now)).unwrap_or_default());
        vec![
            self.id.as_str().into(),
            self.host.as_str().into(),
            self.version.as_str().into(),
            self.state(),
            format!("{}/{}", self.running, self.concurrency).into(),
            ago(self.started_at),
            ago(self.last_heartbeat_at),
            self.queues().into(),
        ]
    }
}

impl Details for Worker {
    fn details(&self, now: Timestamp) -> Vec<(&'static str, Cell)> {
        let at = |time: Option<Timestamp>| Cell::from(time.map(|at| moment(at, now)).unwrap_or_default());
        let abandoned = match self.abandoned {
            0 => Cell::default(),
            tasks => Cell::new(format!("{tasks} that ignored their end"), Tone::Bad),
        };
        vec![
            ("id", self.id.as_str().into()),
            ("host", self.host.as_str().into()),
            ("process", self.pid.map(|pid| pid.to_string()).unwrap_or_default().into()),
            ("version", self.version.as_str().into()),
            ("state", self.state()),
            ("running", format!("{} of {}", self.running, self.concurrency).into()),
            ("abandoned", abandoned),
            ("queues", self.queues().into()),
            ("started", at(self.started_at)),
            ("heartbeat", at(self.last_heartbeat_at)),
            ("jobs", self.running_jobs.join("\n").into()),
        ]
    }
}

impl Run for Workers {
    async fn run(self, client: &Client) -> Result<ExitCode> {
        match self {
            Self::List => client.list::<Worker>(&Call::get(["workers"]), u32::MAX, "No worker runs.").await,
            Self::Show { id } => {
                let worker: Item<Worker> = client.item(&Call::get(["workers", &id.to_string()])).await?;
                client.output.one(&worker);
                Ok(ExitCode::SUCCESS)
            }
            Self::Drain { id } => {
                let worker: Item<Worker> =
                    client.item(&Call::post(["workers", &id.to_string(), "drain"])).await?;
                let sentence = match worker.view.running {
                    0 => "takes no more jobs; none runs".to_owned(),
                    1 => "takes no more jobs; one still runs".to_owned(),
                    running => format!("takes no more jobs; {running} still run"),
                };
                client.output.done(&worker, format_args!("{id} {sentence}"));
                Ok(ExitCode::SUCCESS)
            }
            Self::Resume { id } => {
                let worker: Item<Worker> =
                    client.item(&Call::post(["workers", &id.to_string(), "resume"])).await?;
                client.output.done(&worker, format_args!("{id} starts jobs again"));
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}
