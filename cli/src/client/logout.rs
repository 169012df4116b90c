//! `streamspace logout`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use serde::de::IgnoredAny;
use url::Url;

use super::{
    api::{Api, Call},
    error::Error,
    exit::Usage,
    login::named,
    server::{Pass, Server, Wanted},
    store::Store,
};
use crate::{console, failure::Advice};

#[derive(Args)]
pub struct Logout {
    /// The server [env: STREAMSPACE_URL] [default: that of the last login]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
}

impl Logout {
    pub async fn run(self) -> Result<ExitCode> {
        let store = Store::of_process()?;
        let saved = store.read()?;
        let url = named(&Wanted::of_process(self.url, None), &saved)?
            .ok_or_else(|| Usage::new("nobody is logged in", "`streamspace login` does that"))?;
        if saved.of(&url).is_none() {
            return Err(
                Usage::new(format!("there is no saved login for {url}"), "nothing was changed").into()
            );
        }
        let ended = end(&url, store.clone()).await;
        // Whatever the server says: here it is forgotten.
        store.lock().await?.remove(&url).await?;
        match ended {
            Ok(told) => console::result(told),
            Err(error) => {
                let message =
                    format!("the login for {url} is forgotten here, and may go on there: {error:#}");
                let hint = "`streamspace auth sessions` ends it from another login";
                return Err(Advice::new(message, hint).into());
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Ends the sign-in where it is one; says what came of it.
async fn end(url: &Url, store: Store) -> Result<String> {
    // Of the saved login, whatever else is in the environment.
    let wanted = Wanted { url: Some(url.to_string()), ..Wanted::default() };
    let api = Api::new(Server::find(&wanted, Some(store)).await?)?;
    if matches!(api.pass(), Pass::Key { .. }) {
        return Ok(format!("Forgot the key for {url}; the key itself stays valid until it is revoked"));
    }
    match api.send::<IgnoredAny>(&Call::post(["auth", "logout"])).await {
        Ok(_) => Ok(format!("Signed out of {url}")),
        Err(Error::SignedOut { .. }) => Ok(format!("Signed out of {url}; the sign-in was over already")),
        Err(error) => Err(error.into()),
    }
}
