//! `streamspace whoami`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    Client, Options,
    api::Call,
    json::Json,
    output::{Format, Item, print_json},
    server::{KeyOrigin, Pass},
    sign_ins::SignIn,
    table::describe,
    text::moment,
    user_view::User,
};
use crate::console;

#[derive(Args)]
pub struct Whoami {
    #[command(flatten)]
    options: Options,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Tenant {
    id: String,
    name: String,
    slug: String,
}

/// Who comes, of which tenant, and by what.
struct Whom {
    /// A key of the tenant is nobody's.
    user: Option<Item<User>>,
    tenant: Item<Tenant>,
    by: By,
}

enum By {
    Key(KeyOrigin),
    SignIn(Option<Item<SignIn>>),
}

impl Whoami {
    pub async fn run(self) -> Result<ExitCode> {
        let client = Client::new(self.options).await?;
        let whom = Whom::ask(&client).await?;
        let output = client.output;
        match (output.quiet, output.format) {
            (true, _) => {
                console::result(whom.user.as_ref().map_or(&whom.tenant.view.id, |user| &user.view.id));
            }
            (false, Format::Table) => console::result_text(&whom.described(Timestamp::now())),
            (false, format) => print_json(format, &whom.json()),
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Whom {
    async fn ask(client: &Client) -> Result<Self> {
        let by = match client.api.pass() {
            Pass::Key { origin, .. } => By::Key(origin.clone()),
            Pass::SignIn(_) | Pass::Nobody => By::SignIn(current(client).await?),
        };
        let user = match client.item(&Call::get(["auth", "profile"])).await {
            Ok(user) => Some(user),
            Err(error) if error.status().is_some_and(|status| status == 404) => None,
            Err(error) => return Err(error.into()),
        };
        let tenant = client.item(&Call::get(["auth", "tenant", "profile"])).await?;
        Ok(Self { user, tenant, by })
    }

    fn described(&self, now: Timestamp) -> String {
        let mut fields = Vec::new();
        if let Some(Item { view: user, .. }) = &self.user {
            let platform = if user.platform_admin { ", administrator of the installation" } else { "" };
            fields.extend([
                ("name", user.name.as_str().into()),
                ("e-mail", user.email.as_str().into()),
                ("username", user.username.as_str().into()),
                ("role", format!("{}{platform}", user.role).into()),
                ("second factor", if user.mfa_enabled { "on" } else { "off" }.into()),
            ]);
        }
        let tenant = &self.tenant.view;
        fields.push(("tenant", format!("{} ({})", tenant.name, tenant.slug).into()));
        let by = match &self.by {
            By::Key(origin) if self.user.is_none() => format!("by a key of the tenant, from {origin}"),
            By::Key(origin) => format!("by an API key, from {origin}"),
            By::SignIn(None) => "here".to_owned(),
            By::SignIn(Some(Item { view: sign_in, .. })) => {
                format!("by {}, {}", sign_in.way(), moment(sign_in.created_at, now))
            }
        };
        fields.push(("signed in", by.into()));
        describe(&fields)
    }

    /// With the permissions.
    fn json(&self) -> Json {
        let sign_in = match &self.by {
            By::SignIn(Some(sign_in)) => sign_in.json(),
            _ => Json::Null,
        };
        Json::Object(vec![
            ("user".to_owned(), self.user.as_ref().map_or(Json::Null, Item::json)),
            ("tenant".to_owned(), self.tenant.json()),
            ("signIn".to_owned(), sign_in),
        ])
    }
}

/// The sign-in that this command comes with.
async fn current(client: &Client) -> Result<Option<Item<SignIn>>> {
    let (all, _): (Vec<Box<RawValue>>, _) =
        client.api.list(&Call::get(["auth", "sessions"]), usize::MAX).await?;
    for raw in all {
        let sign_in: Item<SignIn> = Item::read(raw).map_err(|error| client.api.unreadable(error))?;
        if sign_in.view.current {
            return Ok(Some(sign_in));
        }
    }
    Ok(None)
}
