//! `streamspace audit`.

use std::{
    fs::File,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context, Result};
use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;
use serde::Deserialize;

use super::{
    Client, Run,
    api::Call,
    output::Row,
    table::{Cell, Column},
    text::moment,
};
use crate::console;

#[derive(Subcommand)]
pub enum Audit {
    /// List who changed what, newest first.
    List {
        #[command(flatten)]
        filter: Filter,
        /// How many at most
        #[arg(long, default_value_t = 50)]
        limit: u32,
    },
    /// Write all of it, oldest first.
    Export {
        #[command(flatten)]
        filter: Filter,
        #[arg(long, value_enum, default_value_t)]
        format: ExportFormat,
        /// Where to; standard output otherwise
        #[arg(long, value_name = "FILE")]
        to_file: Option<PathBuf>,
    },
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum ExportFormat {
    Csv,
    /// An object a line.
    #[default]
    Jsonl,
}

#[derive(Args)]
pub struct Filter {
    /// What this person did, by id
    #[arg(long, value_name = "ID")]
    user: Option<String>,
    /// Such as schedules.update
    #[arg(long)]
    action: Option<String>,
    /// Such as schedule
    #[arg(long, value_name = "TYPE")]
    resource_type: Option<String>,
    #[arg(long, value_name = "ID")]
    resource_id: Option<String>,
    /// From where
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<String>,
    /// At this time or later, such as 2026-11-21T00:00:00Z
    #[arg(long, value_name = "TIME")]
    from: Option<Timestamp>,
    /// Before this time
    #[arg(long, value_name = "TIME")]
    to: Option<Timestamp>,
    /// A text anywhere in the record
    #[arg(long = "search", value_name = "TEXT")]
    q: Option<String>,
}

impl Filter {
    fn narrow(&self, call: Call) -> Call {
        call.query("user", self.user.as_ref())
            .query("action", self.action.as_ref())
            .query("resourceType", self.resource_type.as_ref())
            .query("resourceId", self.resource_id.as_ref())
            .query("ip", self.ip.as_ref())
            .query("from", self.from)
            .query("to", self.to)
            .query("q", self.q.as_ref())
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Record {
    id: String,
    timestamp: Option<Timestamp>,
    user: Option<String>,
    actor: Actor,
    action: String,
    resource_type: String,
    resource_id: Option<String>,
    ip: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Actor {
    r#type: String,
    id: Option<String>,
}

impl Row for Record {
    const COLUMNS: &'static [Column] = &[
        Column::text("TIME"),
        Column::text("ACTION"),
        Column::shrinking("WHAT"),
        Column::shrinking("BY"),
        Column::text("FROM").dispensable(),
    ];

    fn id(&self) -> &str {
        &self.id
    }

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        let what = [Some(self.resource_type.as_str()), self.resource_id.as_deref()];
        let by = match (&self.user, &self.actor.id) {
            (Some(user), _) => format!("user {user}"),
            (None, Some(id)) => format!("{} {id}", self.actor.r#type),
            (None, None) => self.actor.r#type.clone(),
        };
        vec![
            self.timestamp.map(|at| moment(at, now)).unwrap_or_default().into(),
            self.action.as_str().into(),
            what.into_iter().flatten().collect::<Vec<_>>().join(" ").into(),
            by.into(),
            self.ip.clone().unwrap_or_default().into(),
        ]
    }
}

impl Run for Audit {
    async fn run(self, client: &Client) -> Result<ExitCode> {
        match self {
            Self::List { filter, limit } => {
                client.list::<Record>(&filter.narrow(Call::get(["audit"])), limit, "No record matches.").await
            }
            Self::Export { filter, format, to_file } => export(client, &filter, format, to_file).await,
        }
    }
}

async fn export(
    client: &Client,
    filter: &Filter,
    format: ExportFormat,
    to_file: Option<PathBuf>,
) -> Result<ExitCode> {
    let format = match format {
        ExportFormat::Csv => "csv",
        ExportFormat::Jsonl => "jsonl",
    };
    let call = filter.narrow(Call::get(["audit", "export"]).query("format", Some(format)));
    let mut answer = client.api.download(&call).await?;
    let mut file = match &to_file {
        Some(path) => {
            Some(File::create_new(path).with_context(|| format!("cannot make {}", path.display()))?)
        }
        None => None,
    };
    while let Some(chunk) = client.api.chunk(&mut answer).await? {
        match &mut file {
            Some(file) => file.write_all(&chunk).context("cannot write the export")?,
            None => match io::stdout().lock().write_all(&chunk) {
                // Whoever read it has enough.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
                written => written.context("cannot write the export")?,
            },
        }
    }
    if let (Some(path), true) = (to_file, client.output.is_for_people()) {
        console::say(format_args!("The audit is in {}", path.display()));
    }
    Ok(ExitCode::SUCCESS)
}
