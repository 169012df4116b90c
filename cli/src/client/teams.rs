//! `streamspace teams`.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;
use reqwest::Method;
use serde::{
    Deserialize,
    de::{DeserializeOwned, IgnoredAny},
};
use serde_json::{Map, json};
use uuid::Uuid;

use super::{
    Client, Run,
    api::Call,
    confirm::confirm,
    exit::Usage,
    output::{Details, Item, Row},
    table::{Cell, Column, Tone},
    text::{moment, relative},
};
use crate::console;

#[derive(Subcommand)]
pub enum Teams {
    /// List the teams that you see: your own; operators see every one of the tenant.
    List {
        /// Only those that you are a member of
        #[arg(long)]
        mine: bool,
        /// How many at most
        #[arg(long, default_value_t = 200)]
        limit: u32,
    },
    /// Show one team. Like every command here it takes an id or a name.
    Show { team: String },
    /// Make a team; you are its owner.
    Create {
        name: String,
        #[arg(long, default_value = "", value_name = "TEXT")]
        description: String,
    },
    /// Change a team's name or description.
    #[command(group = clap::ArgGroup::new("what").required(true).multiple(true).args(["name", "description"]))]
    Update {
        team: String,
        #[arg(long)]
        name: Option<String>,
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
    },
    /// Delete a team. Its members stay in the tenant.
    Delete {
        team: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// See and change who belongs to a team.
    #[command(subcommand)]
    Members(Members),
}

#[derive(Subcommand)]
pub enum Members {
    /// List the members with their roles.
    List {
        team: String,
        /// How many at most
        #[arg(long, default_value_t = 200)]
        limit: u32,
    },
    /// Add somebody of the tenant; it takes effect at once.
    Add {
        #[command(flatten)]
        who: Who,
        #[arg(long, value_enum, default_value_t = Role::Member)]
        role: Role,
    },
    /// End a membership, also your own.
    Remove(Who),
    /// Change a member's role.
    Role {
        #[command(flatten)]
        who: Who,
        role: Role,
    },
}

#[derive(Args)]
pub struct Who {
    team: String,
    /// A person's e-mail or id
    person: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Sees sessions, limits and usage
    Viewer,
    /// Also creates sessions and connects to them
    Member,
    /// Also changes and deletes sessions, and says who belongs to the team
    Admin,
    /// Also changes limits and the team itself
    Owner,
}

impl Role {
    fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Member => "member",
            Self::Admin => "admin",
            Self::Owner => "owner",
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Team {
    id: String,
    name: String,
    description: String,
    role: Option<String>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl Row for Team {
    const COLUMNS: &'static [Column] = &[
        Column::text("ID"),
        Column::text("NAME"),
        Column::text("YOUR ROLE"),
        Column::shrinking("DESCRIPTION"),
        Column::text("CREATED").dispensable(),
    ];

    fn id(&self) -> &str {
        &self.id
    }

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        vec![
            self.id.as_str().into(),
            self.name.as_str().into(),
            self.role.clone().unwrap_or_default().into(),
            self.description.as_str().into(),
            relative(self.created_at, now).into(),
        ]
    }
}

impl Details for Team {
    fn details(&self, now: Timestamp) -> Vec<(&'static str, Cell)> {
        vec![
            ("id", self.id.as_str().into()),
            ("name", self.name.as_str().into()),
            ("description", self.description.as_str().into()),
            ("your role", self.role.clone().unwrap_or_else(|| "no member".to_owned()).into()),
            ("created", moment(self.created_at, now).into()),
            ("changed", moment(self.updated_at, now).into()),
        ]
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Member {
    user_id: String,
    name: String,
    email: String,
    role: String,
    active: bool,
    joined_at: Timestamp,
}

impl Row for Member {
    const COLUMNS: &'static [Column] = &[
        Column::text("ID"),
        Column::text("NAME"),
        Column::text("EMAIL"),
        Column::text("ROLE"),
        Column::text("STATE"),
        Column::text("JOINED").dispensable(),
    ];

    fn id(&self) -> &str {
        &self.user_id
    }

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        let state =
            if self.active { Cell::new("active", Tone::Good) } else { Cell::new("disabled", Tone::Faint) };
        vec![
            self.user_id.as_str().into(),
            self.name.as_str().into(),
            self.email.as_str().into(),
            self.role.as_str().into(),
            state,
            relative(self.joined_at, now).into(),
        ]
    }
}

impl Run for Teams {
    async fn run(self, client: &Client) -> Result<ExitCode> {
        match self {
            Self::List { mine, limit } => {
                let call = if mine { Call::get(["teams", "my-teams"]) } else { Call::get(["teams"]) };
                client.list::<Team>(&call, limit, "There are no teams.").await
            }
            Self::Show { team } => {
                let id = id_of(client, &team).await?;
                let team: Item<Team> = client.item(&Call::get(["teams", &id])).await?;
                client.output.one(&team);
                Ok(ExitCode::SUCCESS)
            }
            Self::Create { name, description } => {
                let body = json!({"name": name, "description": description});
                let team: Item<Team> = client.item(&Call::post(["teams"]).body(body)).await?;
                client.output.one(&team);
                Ok(ExitCode::SUCCESS)
            }
            Self::Update { team, name, description } => {
                let id = id_of(client, &team).await?;
                // What is not named stays.
                let named = [("name", name), ("description", description)];
                let body: Map<_, _> = named
                    .into_iter()
                    .filter_map(|(field, text)| Some((field.to_owned(), text?.into())))
                    .collect();
                let call = Call::new(Method::PATCH, ["teams", &id]).body(body.into());
                let changed: Item<Team> = client.item(&call).await?;
                client.output.one(&changed);
                Ok(ExitCode::SUCCESS)
            }
            Self::Delete { team, yes } => {
                let id = id_of(client, &team).await?;
                if !yes && !confirm(format_args!("Delete the team {team}?"))? {
                    return Ok(ExitCode::FAILURE);
                }
                client.api.send::<IgnoredAny>(&Call::new(Method::DELETE, ["teams", &id])).await?;
                if client.output.is_for_people() {
                    console::result(format_args!("{team} is deleted"));
                }
                Ok(ExitCode::SUCCESS)
            }
            Self::Members(members) => members.run(client).await,
        }
    }
}

impl Members {
    async fn run(self, client: &Client) -> Result<ExitCode> {
        match self {
            Self::List { team, limit } => {
                let id = id_of(client, &team).await?;
                let call = Call::get(["teams", &id, "members"]);
                return client.list::<Member>(&call, limit, "The team has no members.").await;
            }
            Self::Add { who: Who { team, person }, role } => {
                let id = id_of(client, &team).await?;
                let field = if person.parse::<Uuid>().is_ok() { "userId" } else { "email" };
                let body = json!({field: person, "role": role.as_str()});
                let added: Item<Member> =
                    client.item(&Call::post(["teams", &id, "members"]).body(body)).await?;
                client.output.done(&added, format_args!("{person} is {} of {team}", added.view.role));
            }
            Self::Remove(Who { team, person }) => {
                let id = id_of(client, &team).await?;
                let user = member_of(client, &id, &person).await?;
                let gone = Call::new(Method::DELETE, ["teams", &id, "members", &user]);
                client.api.send::<IgnoredAny>(&gone).await?;
                if client.output.is_for_people() {
                    console::result(format_args!("{person} is no member of {team} any more"));
                }
            }
            Self::Role { who: Who { team, person }, role } => {
                let id = id_of(client, &team).await?;
                let user = member_of(client, &id, &person).await?;
                let call = Call::new(Method::PATCH, ["teams", &id, "members", &user])
                    .body(json!({"role": role.as_str()}));
                let changed: Item<Member> = client.item(&call).await?;
                client.output.done(&changed, format_args!("{person} is {} of {team}", changed.view.role));
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The API knows teams by their ids; people know their names, which several may have.
async fn id_of(client: &Client, team: &str) -> Result<String> {
    if team.parse::<Uuid>().is_ok() {
        return Ok(team.to_owned());
    }
    let found: Vec<Team> = all(client, &Call::get(["teams"]).query("q", Some(team))).await?;
    let named: Vec<_> = found.iter().filter(|found| found.name == team).collect();
    match named.as_slice() {
        [found] => Ok(found.id.clone()),
        [] => Err(Usage::new(
            format!("there is no team {team:?}"),
            "`streamspace teams list` shows those that you see",
        )
        .into()),
        _ => Err(Usage::new(
            format!("several teams are called {team:?}"),
            "name one by its id: `streamspace teams list` shows them",
        )
        .into()),
    }
}

async fn member_of(client: &Client, team: &str, person: &str) -> Result<String> {
    if person.parse::<Uuid>().is_ok() {
        return Ok(person.to_owned());
    }
    let members: Vec<Member> = all(client, &Call::get(["teams", team, "members"])).await?;
    let found = members.into_iter().find(|member| member.email.eq_ignore_ascii_case(person));
    found.map(|member| member.user_id).ok_or_else(|| {
        Usage::new(
            format!("{person} is no member of this team"),
            "`streamspace teams members list` shows who is",
        )
        .into()
    })
}

async fn all<T: DeserializeOwned>(client: &Client, call: &Call) -> Result<Vec<T>> {
    let (raw, _) = client.api.list(call, usize::MAX).await?;
    let read = raw.iter().map(|raw| serde_json::from_str(raw.get())).collect::<Result<_, _>>();
    Ok(read.map_err(|error| client.api.unreadable(error))?)
}
