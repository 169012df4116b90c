//! `streamspace auth`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;
use jiff::Timestamp;
use reqwest::Method;
use serde::{Deserialize, de::IgnoredAny};
use uuid::Uuid;

use super::{
    Client, Run,
    api::Call,
    output::Row,
    table::{Cell, Column, Tone},
    text::relative,
};
use crate::console;

#[derive(Subcommand)]
pub enum Auth {
    /// See and end your sign-ins: of browsers, and of this command on any machine.
    #[command(subcommand)]
    Sessions(Sessions),
}

#[derive(Subcommand)]
pub enum Sessions {
    /// List them, newest first.
    List {
        /// How many at most
        #[arg(long, default_value_t = 200)]
        limit: u32,
    },
    /// End some: whoever uses them is out within a second.
    End {
        #[arg(required = true, num_args = 1..=16)]
        ids: Vec<Uuid>,
    },
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SignIn {
    id: String,
    pub current: bool,
    kind: String,
    method: String,
    device: String,
    address: Option<String>,
    pub created_at: Timestamp,
    last_used_at: Timestamp,
    expires_at: Timestamp,
}

impl SignIn {
    /// How it began.
    pub fn way(&self) -> &str {
        match self.method.as_str() {
            "cli" => "the browser",
            "oidc" => "another provider",
            "invitation" => "an invitation",
            other => other,
        }
    }
}

impl Row for SignIn {
    const COLUMNS: &'static [Column] = &[
        Column::text("ID"),
        Column::text("THIS"),
        Column::text("KIND"),
        Column::text("BY"),
        Column::shrinking("DEVICE"),
        Column::text("ADDRESS").dispensable(),
        Column::number("LAST USED"),
        Column::number("BEGAN").dispensable(),
        Column::number("ENDS").dispensable(),
    ];

    fn id(&self) -> &str {
        &self.id
    }

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        vec![
            self.id.as_str().into(),
            Cell::new(if self.current { "this one" } else { "" }, Tone::Good),
            self.kind.as_str().into(),
            self.method.as_str().into(),
            self.device.as_str().into(),
            self.address.clone().unwrap_or_default().into(),
            relative(self.last_used_at, now).into(),
            relative(self.created_at, now).into(),
            relative(self.expires_at, now).into(),
        ]
    }
}

impl Run for Auth {
    async fn run(self, client: &Client) -> Result<ExitCode> {
        let Self::Sessions(sessions) = self;
        match sessions {
            Sessions::List { limit } => {
                client
                    .list::<SignIn>(&Call::get(["auth", "sessions"]), limit, "You are signed in nowhere.")
                    .await
            }
            Sessions::End { ids } => end(client, &ids).await,
        }
    }
}

async fn end(client: &Client, ids: &[Uuid]) -> Result<ExitCode> {
    let mut exit = ExitCode::SUCCESS;
    for id in ids {
        let call = Call::new(Method::DELETE, ["auth", "sessions", &id.to_string()]);
        match client.api.send::<IgnoredAny>(&call).await {
            Ok(_) if client.output.is_for_people() => console::result(format_args!("{id} is over")),
            Ok(_) => {}
            Err(error) => {
                console::say(error.told_of(format_args!("sign-in {id}")));
                exit = ExitCode::FAILURE;
            }
        }
    }
    Ok(exit)
}
