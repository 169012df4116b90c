//! The commands that use a server through its API, from anywhere.
//!
//! `server` finds out where and as whom, `credentials`, `store` and `keyring` keep logins, `session`
//! renews their tokens, `api` sends, `problem` and `error` say what went wrong, `output` prints; then one
//! file per noun. Waiting is `wait` over many jobs, `follow` for one of
//! them, and `live` for what is seen meanwhile.

mod api;
mod api_keys;
mod audit;
pub mod confirm;
mod credentials;
mod error;
mod exit;
mod follow;
mod job_view;
mod jobs;
mod json;
mod keyring;
mod live;
mod login;
mod logout;
pub mod output;
mod problem;
mod progress_view;
mod queues;
mod schedule_view;
mod schedules;
mod server;
mod session;
mod sign_ins;
mod sse;
mod store;
pub mod table;
mod teams;
pub mod text;
mod user_view;
mod users;
mod wait;
mod waiting_view;
mod whoami;
mod workers;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Args, Subcommand};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

pub use self::api::build_client as http;
use self::{
    api::{Api, Call},
    error::Error,
    exit::Usage,
    output::{Format, Item, Output, Row},
    server::{Server, Wanted},
    store::Store,
};
use crate::{
    console,
    failure::{self, Advice},
};

#[derive(Subcommand)]
pub enum Command {
    /// List, watch, cancel and retry jobs.
    #[command(after_help = exit::HELP)]
    Jobs(On<jobs::Jobs>),
    /// See, pause and limit the queues of jobs.
    Queues(On<queues::Queues>),
    /// See and drain the processes that run jobs.
    Workers(On<workers::Workers>),
    /// See, change and run what starts jobs at set times.
    #[command(after_help = exit::HELP)]
    Schedules(On<schedules::Schedules>),
    /// See and make teams, and say who belongs to them.
    Teams(On<teams::Teams>),
    /// See, make, rotate and end ways in for programs.
    ApiKeys(On<api_keys::ApiKeys>),
    /// See, make, invite, change and remove the people of the tenant.
    #[command(after_help = exit::HELP)]
    Users(On<users::Users>),
    /// See and end the places where you are signed in.
    Auth(On<sign_ins::Auth>),
    /// Read who changed what.
    Audit(On<audit::Audit>),
    /// Say who you are here, and what you may.
    Whoami(whoami::Whoami),
    /// Sign in to a server, or save a key for it, for the other commands.
    Login(login::Login),
    /// End your sign-in, and forget it.
    Logout(logout::Logout),
}

/// A noun's commands with the flags that all of them have.
#[derive(Args)]
pub struct On<C: Subcommand> {
    #[command(subcommand)]
    command: C,
    #[command(flatten)]
    options: Options,
}

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Server and output")]
pub struct Options {
    /// The server [env: STREAMSPACE_URL] [default: that of the last login]
    #[arg(long, value_name = "URL", global = true)]
    url: Option<String>,
    /// File with the API key, in place of STREAMSPACE_API_KEY or the saved login
    #[arg(long, value_name = "FILE", global = true)]
    api_key_file: Option<PathBuf>,
    /// How results are printed
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t, global = true)]
    output: Format,
    /// Print ids only
    #[arg(short, long, global = true)]
    quiet: bool,
}

/// A server, and how its answers are printed.
pub struct Client {
    api: Api,
    output: Output,
}

impl Command {
    pub async fn run(self) -> Result<ExitCode> {
        let ran = match self {
            Self::Jobs(on) => on.run().await,
            Self::Queues(on) => on.run().await,
            Self::Workers(on) => on.run().await,
            Self::Schedules(on) => on.run().await,
            Self::Teams(on) => on.run().await,
            Self::ApiKeys(on) => on.run().await,
            Self::Users(on) => on.run().await,
            Self::Auth(on) => on.run().await,
            Self::Audit(on) => on.run().await,
            Self::Whoami(whoami) => whoami.run().await,
            Self::Login(login) => login.run().await,
            Self::Logout(logout) => logout.run().await,
        };
        ran.or_else(advise)
    }
}

/// Something that can be done with a server.
pub trait Run: Subcommand {
    fn run(self, client: &Client) -> impl Future<Output = Result<ExitCode>>;
}

impl<C: Run> On<C> {
    async fn run(self) -> Result<ExitCode> {
        self.command.run(&Client::new(self.options).await?).await
    }
}

impl Client {
    async fn new(options: Options) -> Result<Self> {
        let Options { url, api_key_file, output, quiet } = options;
        let server = Server::find(&Wanted::of_process(url, api_key_file), Store::of_process().ok()).await?;
        Ok(Self { api: Api::new(server)?, output: Output { format: output, quiet } })
    }

    /// Sends, and reads the answer as one thing.
    async fn item<T: DeserializeOwned>(&self, call: &Call) -> Result<Item<T>, Error> {
        let raw: Box<RawValue> = self.api.send(call).await?;
        Item::read(raw).map_err(|error| self.api.unreadable(error))
    }

    /// Reads pages up to `limit` and prints them. `none` is said when there is nothing.
    async fn list<T: Row + DeserializeOwned>(&self, call: &Call, limit: u32, none: &str) -> Result<ExitCode> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let (raw, has_more) = self.api.list(call, limit).await?;
        let items: Vec<Item<T>> = raw
            .into_iter()
            .map(Item::read)
            .collect::<Result<_, _>>()
            .map_err(|error| self.api.unreadable(error))?;
        self.output.list(&items, none);
        if has_more && self.output.is_for_people() {
            console::say(format_args!("There are more than these {}; see further with --limit", items.len()));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Wrong use has an exit code of its own; what a server refused gets its hint.
pub fn advise(error: anyhow::Error) -> Result<ExitCode> {
    if let Some(usage) = error.downcast_ref::<Usage>() {
        let advice = Advice::new(usage.to_string(), usage.hint.clone());
        console::say(failure::render(&advice.into()));
        return Ok(ExitCode::from(exit::USAGE));
    }
    match error.downcast_ref::<Error>().and_then(Error::hint) {
        Some(hint) => {
            let advice = Advice::new(error.to_string(), hint);
            Err(error.context(advice))
        }
        None => Err(error),
    }
}
