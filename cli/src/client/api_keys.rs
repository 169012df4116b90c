//! `streamspace api-keys`.

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json, value::RawValue};

use super::{
    Client, Run,
    api::Call,
    output::{Details, Item, Row},
    table::{Cell, Column, Tone},
    text::{count, moment, relative},
};
use crate::{
    console,
    private_file::{self, Existing},
};

#[derive(Subcommand)]
pub enum ApiKeys {
    /// List keys: one's own, and for admins every one of the tenant.
    List {
        /// Of people, or of the tenant
        #[arg(long)]
        owner: Option<Owner>,
        /// Those that work alone
        #[arg(long)]
        active: bool,
        /// How many at most
        #[arg(long, default_value_t = 200)]
        limit: u32,
    },
    /// Make a key and print it: it is shown this once.
    Create(Create),
    /// End a key. Its record and what it was used for stay.
    Revoke { id: String },
    /// Delete a key with its record.
    Delete { id: String },
    /// Give a key another secret and print it. The old one works on for a while.
    Rotate(Rotate),
    /// Show what a key is used for.
    Usage {
        id: String,
        /// Calls, at most
        #[arg(long, default_value_t = 50)]
        limit: u32,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Owner {
    User,
    Tenant,
}

impl Owner {
    fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Tenant => "tenant",
        }
    }
}

#[derive(Args)]
pub struct Create {
    /// What it is for
    name: String,
    /// Makes it a key of the tenant, with this role: viewer, user, operator or admin
    #[arg(long)]
    role: Option<String>,
    /// What it may be used for, such as jobs.read; several times [default: everything]
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// How long it works: 30d, 6m (months), 1y [default: for good]
    #[arg(long, value_name = "TERM")]
    expires_in: Option<String>,
    /// Requests an hour
    #[arg(long, value_name = "COUNT")]
    rate_limit: Option<u32>,
    /// Write the key to this file (0600) and do not print it
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

#[derive(Args)]
pub struct Rotate {
    id: String,
    /// So long the old secret works beside the new one, up to 30d; 0 ends it now
    #[arg(long, value_name = "TIME", default_value = "24h")]
    overlap: String,
    /// Write the new secret to this file (0600) and do not print it
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Key {
    id: String,
    name: String,
    prefix: String,
    owner: String,
    role: Option<String>,
    scopes: Vec<String>,
    rate_limit: u64,
    is_active: bool,
    expires_at: Option<Timestamp>,
    previous_until: Option<Timestamp>,
    last_used_at: Option<Timestamp>,
    created_at: Option<Timestamp>,
    /// Only in the answer that makes it.
    key: Option<String>,
}

impl Key {
    fn state(&self) -> Cell {
        if self.is_active { Cell::new("active", Tone::Good) } else { Cell::new("ended", Tone::Faint) }
    }

    fn owner(&self) -> String {
        self.role.as_ref().map_or_else(|| self.owner.clone(), |role| format!("{} ({role})", self.owner))
    }
}

impl Row for Key {
    const COLUMNS: &'static [Column] = &[
        Column::text("ID"),
        Column::shrinking("NAME"),
        Column::text("PREFIX"),
        Column::text("OWNER"),
        Column::text("STATE"),
        Column::shrinking("SCOPES"),
        Column::number("EXPIRES"),
        Column::number("LAST USED").dispensable(),
    ];

    fn id(&self) -> &str {
        &self.id
    }

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        let told = |at: Option<Timestamp>| Cell::from(at.map(|at| relative(at, now)).unwrap_or_default());
        vec![
            self.id.as_str().into(),
            self.name.as_str().into(),
            self.prefix.as_str().into(),
            self.owner().into(),
            self.state(),
            self.scopes.join(" ").into(),
            told(self.expires_at),
            told(self.last_used_at),
        ]
    }
}

impl Details for Key {
    fn details(&self, now: Timestamp) -> Vec<(&'static str, Cell)> {
        let at = |time: Option<Timestamp>| Cell::from(time.map(|at| moment(at, now)).unwrap_or_default());
        vec![
            ("id", self.id.as_str().into()),
            ("name", self.name.as_str().into()),
            ("prefix", self.prefix.as_str().into()),
            ("owner", self.owner().into()),
            ("state", self.state()),
            ("scopes", self.scopes.join(" ").into()),
            ("requests an hour", count(self.rate_limit).into()),
            ("expires", at(self.expires_at)),
            ("old secret ends", at(self.previous_until)),
            ("last used", at(self.last_used_at)),
            ("created", at(self.created_at)),
        ]
    }
}

impl Run for ApiKeys {
    async fn run(self, client: &Client) -> Result<ExitCode> {
        match self {
            Self::List { owner, active, limit } => {
                let call = Call::get(["api-keys"])
                    .query("owner", owner.map(Owner::as_str))
                    .query("active", active.then_some(true));
                client.list::<Key>(&call, limit, "There are no keys.").await
            }
            Self::Create(create) => create.run(client).await,
            Self::Revoke { id } => {
                let ended: Item<Key> = client.item(&Call::post(["api-keys", &id, "revoke"])).await?;
                client.output.done(&ended, format_args!("{} ({id}) works no more", ended.view.name));
                Ok(ExitCode::SUCCESS)
            }
            Self::Delete { id } => {
                let gone = Call::new(Method::DELETE, ["api-keys", &id]);
                client.api.send::<serde::de::IgnoredAny>(&gone).await?;
                if client.output.is_for_people() {
                    console::result(format_args!("{id} is deleted"));
                }
                Ok(ExitCode::SUCCESS)
            }
            Self::Rotate(rotate) => rotate.run(client).await,
            Self::Usage { id, limit } => usage(client, &id, limit).await,
        }
    }
}

impl Create {
    async fn run(self, client: &Client) -> Result<ExitCode> {
        let mut body = Map::from_iter([("name".to_owned(), Value::from(self.name))]);
        if let Some(role) = self.role {
            body.insert("owner".to_owned(), "tenant".into());
            body.insert("role".to_owned(), role.into());
        }
        if !self.scopes.is_empty() {
            body.insert("scopes".to_owned(), self.scopes.into());
        }
        if let Some(term) = self.expires_in {
            body.insert("expiresIn".to_owned(), term.into());
        }
        if let Some(limit) = self.rate_limit {
            body.insert("rateLimit".to_owned(), limit.into());
        }
        let file = KeyFile::make(self.key_file)?;
        let made: Item<Key> = client.item(&Call::post(["api-keys"]).body(body.into())).await?;
        told(client, made, file)
    }
}

impl Rotate {
    async fn run(self, client: &Client) -> Result<ExitCode> {
        let file = KeyFile::make(self.key_file)?;
        let call = Call::post(["api-keys", &self.id, "rotate"]).body(json!({ "overlap": self.overlap }));
        let rotated: Item<Key> = client.item(&call).await?;
        told(client, rotated, file)
    }
}

/// A file that is there before the secret is: what is told once must not find that it has no place.
struct KeyFile {
    path: PathBuf,
    kept: bool,
}

impl KeyFile {
    fn make(path: Option<PathBuf>) -> Result<Option<Self>> {
        let Some(path) = path else { return Ok(None) };
        private_file::write(&path, "", Existing::Keep)
            .with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Some(Self { path, kept: false }))
    }

    fn keep(mut self, secret: &str) -> Result<()> {
        fs::write(&self.path, format!("{secret}\n"))
            .with_context(|| format!("cannot write {}", self.path.display()))?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        if !self.kept {
            fs::remove_file(&self.path).ok();
        }
    }
}

/// The secret on standard output, or in its file; what is to be said of it beside.
fn told(client: &Client, item: Item<Key>, file: Option<KeyFile>) -> Result<ExitCode> {
    let secret = item.view.key.clone().unwrap_or_default();
    if let Some(file) = file {
        file.keep(&secret)?;
        client.output.done(&item, format_args!("{}", item.view.id));
        return Ok(ExitCode::SUCCESS);
    }
    if client.output.is_for_people() {
        console::say(format_args!(
            "API key {} ({}); its secret is shown this once:",
            item.view.id, item.view.name
        ));
        if let Some(until) = item.view.previous_until {
            console::say(format_args!("The old one works until {}", moment(until, Timestamp::now())));
        }
    }
    // With -q the secret too: it can be had no other way.
    match client.output.quiet {
        true => console::result(&secret),
        false => client.output.done(&item, &secret),
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(Deserialize)]
struct Usage {
    days: Vec<Day>,
    items: Vec<KeyCall>,
}

#[derive(Deserialize)]
struct Day {
    day: String,
    calls: u64,
    errors: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct KeyCall {
    timestamp: Timestamp,
    method: String,
    route: String,
    status: u16,
    address: Option<String>,
    duration_ms: f64,
}

async fn usage(client: &Client, id: &str, limit: u32) -> Result<ExitCode> {
    let call = Call::get(["api-keys", id, "usage"]).query("limit", Some(limit.clamp(1, 200)));
    let raw: Box<RawValue> = client.api.send(&call).await?;
    if !client.output.is_for_people() {
        client.output.raw(&raw, "");
        return Ok(ExitCode::SUCCESS);
    }
    let usage: Usage = serde_json::from_str(raw.get()).map_err(|error| client.api.unreadable(error))?;
    if usage.days.is_empty() {
        console::say("It was not used yet.");
    }
    for Day { day, calls, errors } in usage.days {
        console::result(format_args!(
            "{day}  {} calls, {} of them refused or failed",
            count(calls),
            count(errors)
        ));
    }
    let now = Timestamp::now();
    for call in usage.items {
        let address = call.address.unwrap_or_default();
        console::result(format_args!(
            "{}  {} {}  {}  {:.1} ms  {address}",
            moment(call.timestamp, now),
            call.method,
            call.route,
            call.status,
            call.duration_ms
        ));
    }
    Ok(ExitCode::SUCCESS)
}
