//! `streamspace users`.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{
    Client, Run,
    api::Call,
    confirm::confirm,
    exit::{HELP, Usage},
    login::Questions,
    output::{Item, Row},
    table::{Cell, Column},
    user_view::User,
    wait::{self, Aim, Show, Wait},
};

#[derive(Subcommand)]
pub enum Users {
    /// List the people of the tenant, newest first.
    List(List),
    /// Show a person. Like every command here it takes an id, an e-mail address or a username.
    Show { person: String },
    /// Make a person, with a password that you choose and tell them.
    Create(Create),
    /// Invite somebody: a job mails them a link, by which they choose their password.
    #[command(after_help = HELP)]
    Invite(Invite),
    /// Keep a person out: their sign-ins and keys end within a second.
    Disable { person: String },
    /// Let a disabled person in again.
    Enable { person: String },
    /// Open an account that wrong passwords have closed.
    Unlock { person: String },
    /// Change a person's name or address.
    #[command(group = clap::ArgGroup::new("what").required(true).multiple(true).args(["name", "email"]))]
    Update {
        person: String,
        #[arg(long)]
        name: Option<String>,
        /// A verified address of before is told, and the new one asked whether it is theirs
        #[arg(long)]
        email: Option<String>,
    },
    /// Take away a second factor that its owner has lost.
    ResetMfa { person: String },
    /// Change what a person may. Admins and owners are made and changed by owners.
    SetRole { person: String, role: Role },
    /// Remove a person; a job does it.
    #[command(after_help = HELP)]
    Delete(Delete),
}

#[derive(Args)]
pub struct List {
    /// With this role
    #[arg(long)]
    role: Option<Role>,
    /// Those who may sign in
    #[arg(long, conflicts_with = "disabled")]
    active: bool,
    /// Those who may not
    #[arg(long)]
    disabled: bool,
    /// A text in the name, the username or the address
    #[arg(long = "search", value_name = "TEXT")]
    q: Option<String>,
    /// How many at most
    #[arg(long, default_value_t = 200)]
    limit: u32,
}

#[derive(Args)]
pub struct Create {
    email: String,
    /// As others read it
    #[arg(long)]
    name: String,
    /// [default: from the address]
    #[arg(long)]
    username: Option<String>,
    #[arg(long, value_enum, default_value_t = Role::User)]
    role: Role,
}

#[derive(Args)]
pub struct Invite {
    email: String,
    /// As others read it; whoever is invited may change it
    #[arg(long)]
    name: Option<String>,
    /// [default: from the address]
    #[arg(long)]
    username: Option<String>,
    #[arg(long, value_enum, default_value_t = Role::User)]
    role: Role,
    #[command(flatten)]
    wait: Wait,
}

#[derive(Args)]
pub struct Delete {
    person: String,
    /// What is theirs becomes this person's
    #[arg(long, value_name = "PERSON", required_unless_present = "purge", conflicts_with = "purge")]
    transfer_to: Option<String>,
    /// What is theirs goes too
    #[arg(long)]
    purge: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    wait: Wait,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Sees what is shared
    Viewer,
    /// Also makes things of their own
    User,
    /// Also sees and handles everybody's
    Operator,
    /// Also manages people and settings
    Admin,
    /// Also manages admins and owners
    Owner,
}

impl Role {
    fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::User => "user",
            Self::Operator => "operator",
            Self::Admin => "admin",
            Self::Owner => "owner",
        }
    }
}

impl Run for Users {
    async fn run(self, client: &Client) -> Result<ExitCode> {
        match self {
            Self::List(list) => list.run(client).await,
            Self::Show { person } => {
                let id = id_of(client, &person).await?;
                let user: Item<User> = client.item(&Call::get(["auth", "users", &id])).await?;
                client.output.one(&user);
                Ok(ExitCode::SUCCESS)
            }
            Self::Create(create) => create.run(client).await,
            Self::Invite(invite) => invite.run(client).await,
            Self::Disable { person } => {
                change(client, &person, json!({ "active": false }), "is kept out").await
            }
            Self::Enable { person } => {
                change(client, &person, json!({ "active": true }), "may sign in").await
            }
            Self::Unlock { person } => {
                change(client, &person, json!({ "locked": false }), "may try again").await
            }
            Self::Update { person, name, email } => {
                change(client, &person, json!({ "name": name, "email": email }), "is changed").await
            }
            Self::ResetMfa { person } => {
                change(client, &person, json!({ "mfaEnabled": false }), "has no second factor").await
            }
            Self::SetRole { person, role } => {
                let (role, sentence) = (role.as_str(), format!("is {} now", role.as_str()));
                change(client, &person, json!({ "role": role }), &sentence).await
            }
            Self::Delete(delete) => delete.run(client).await,
        }
    }
}

impl List {
    async fn run(self, client: &Client) -> Result<ExitCode> {
        let active = match (self.active, self.disabled) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        };
        let call = Call::get(["auth", "users"])
            .query("role", self.role.map(Role::as_str))
            .query("active", active)
            .query("q", self.q.as_ref());
        client.list::<User>(&call, self.limit, "Nobody matches.").await
    }
}

impl Create {
    async fn run(self, client: &Client) -> Result<ExitCode> {
        let mut questions = Questions::default();
        let password = questions.secret(&format!("Password for {}", self.email))?;
        let again = match questions.is_person() {
            true => questions.secret("The same again")?,
            false => password.clone(),
        };
        let mut body = person(self.email, Some(self.name), self.username, self.role);
        body.insert("password".to_owned(), password.expose().as_str().into());
        body.insert("passwordConfirmation".to_owned(), again.expose().as_str().into());
        let made: Item<User> =
            client.item(&Call::post(["auth", "register", "user"]).body(body.into())).await?;
        client.output.one(&made);
        Ok(ExitCode::SUCCESS)
    }
}

impl Invite {
    async fn run(self, client: &Client) -> Result<ExitCode> {
        let sentence = format!("{} is invited as {}", self.email, self.role.as_str());
        let body = person(self.email, self.name, self.username, self.role);
        let invited: Item<Invitation> =
            client.item(&Call::post(["auth", "invitations"]).body(body.into())).await?;
        if self.wait.wait {
            return ended(client, &invited.view.job_id, self.wait).await;
        }
        client.output.done(&invited, sentence);
        Ok(ExitCode::SUCCESS)
    }
}

fn person(email: String, name: Option<String>, username: Option<String>, role: Role) -> Map<String, Value> {
    let mut body =
        Map::from_iter([("email".to_owned(), Value::from(email)), ("role".to_owned(), role.as_str().into())]);
    for (field, text) in [("name", name), ("username", username)] {
        if let Some(text) = text {
            body.insert(field.to_owned(), text.into());
        }
    }
    body
}

async fn change(client: &Client, person: &str, body: Value, sentence: &str) -> Result<ExitCode> {
    let id = id_of(client, person).await?;
    let call = Call::new(Method::PATCH, ["auth", "users", &id]).body(body);
    let changed: Item<User> = client.item(&call).await?;
    client.output.done(&changed, format_args!("{person} {sentence}"));
    Ok(ExitCode::SUCCESS)
}

async fn ended(client: &Client, job: &str, wait: Wait) -> Result<ExitCode> {
    Ok(wait::for_jobs(client, &[job.to_owned()], wait.timeout, Aim::Success, Show::Ends).await?.into())
}

/// Somebody who is invited, and the job that mails them.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Invitation {
    id: String,
    job_id: String,
}

impl Row for Invitation {
    const COLUMNS: &'static [Column] = &[Column::text("ID")];

    fn id(&self) -> &str {
        &self.id
    }

    fn cells(&self, _: Timestamp) -> Vec<Cell> {
        vec![self.id.as_str().into()]
    }
}

/// The answer to a removal.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Removal {
    job_id: String,
}

impl Row for Removal {
    const COLUMNS: &'static [Column] = &[Column::text("JOB")];

    fn id(&self) -> &str {
        &self.job_id
    }

    fn cells(&self, _: Timestamp) -> Vec<Cell> {
        vec![self.job_id.as_str().into()]
    }
}

impl Delete {
    async fn run(self, client: &Client) -> Result<ExitCode> {
        let id = id_of(client, &self.person).await?;
        let heir = match &self.transfer_to {
            Some(heir) => Some(id_of(client, heir).await?),
            None => None,
        };
        let what = match &self.transfer_to {
            Some(heir) => format!("give what is theirs to {heir}"),
            None => "delete what is theirs".to_owned(),
        };
        if !self.yes && !confirm(format_args!("Remove {}, and {what}?", self.person))? {
            return Ok(ExitCode::FAILURE);
        }
        let call = Call::new(Method::DELETE, ["auth", "users", &id])
            .query("transferTo", heir)
            .query("purge", self.purge.then_some(true));
        let removal: Item<Removal> = client.item(&call).await?;
        let job = &removal.view.job_id;
        if self.wait.wait {
            return ended(client, job, self.wait).await;
        }
        let sentence =
            format_args!("{} is out; a job does the rest: streamspace jobs watch {job}", self.person);
        client.output.done(&removal, sentence);
        Ok(ExitCode::SUCCESS)
    }
}

/// The API knows people by their ids; people know addresses and usernames, which are each one person's.
async fn id_of(client: &Client, person: &str) -> Result<String> {
    if person.parse::<Uuid>().is_ok() {
        return Ok(person.to_owned());
    }
    let (raw, _) =
        client.api.list(&Call::get(["auth", "users"]).query("q", Some(person)), usize::MAX).await?;
    for raw in raw {
        let user: User = serde_json::from_str(raw.get()).map_err(|error| client.api.unreadable(error))?;
        if [&user.email, &user.username].iter().any(|name| name.eq_ignore_ascii_case(person)) {
            return Ok(user.id);
        }
    }
    Err(Usage::new(
        format!("nobody here has the address or the username {person:?}"),
        "`streamspace users list` shows who is here",
    )
    .into())
}
