//! `streamspace login`. A key or a password never comes as an argument: those stand in the shell's
//! history and in the list of processes.

mod browser;
mod password;
mod questions;

use std::{
    io::{self, IsTerminal},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Result;
use clap::Args;
use serde_json::value::RawValue;
use url::Url;

pub use self::questions::Questions;
use super::{
    api::{Api, Call, is_loopback},
    credentials::{self, Credentials},
    exit::Usage,
    server::{KeyOrigin, LOCAL, Pass, Server, Wanted, local_key, local_password, parse_key, parse_url},
    store::{Place, Store},
};
use crate::console;

#[derive(Args)]
pub struct Login {
    /// The server [env: STREAMSPACE_URL] [default: that of the last login, else this machine's]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Sign in through the browser of this machine
    #[arg(long, group = "way")]
    browser: bool,
    /// Sign in by e-mail address and password: they are asked for, or read from standard input, each on
    /// a line of its own
    #[arg(long, group = "way")]
    password: bool,
    /// Save the API key in this file
    #[arg(long, value_name = "FILE", group = "way")]
    api_key_file: Option<PathBuf>,
    /// Keep the login in a file that only you read, also where there is a keyring
    #[arg(long)]
    no_keyring: bool,
}

enum Way {
    Browser,
    Password,
    Key,
}

impl Login {
    pub async fn run(self) -> Result<ExitCode> {
        let store = Store::of_process()?;
        let wanted = Wanted::of_process(self.url.clone(), self.api_key_file.clone());
        let url = match named(&wanted, &store.read()?)? {
            Some(url) => url,
            None => parse_url(LOCAL)?,
        };
        if url.scheme() == "http" && !is_loopback(&url) {
            console::say(format_args!(
                "warning: {url} is not encrypted: who is on the way can read what you sign in with"
            ));
        }
        let mut questions = Questions::default();
        let (login, who) = match self.way(&url, &mut questions)? {
            Way::Key => (self.key(&wanted, &url, &mut questions).await?, "logged in".to_owned()),
            way => {
                let api = Api::of_nobody(url.clone())?;
                let signed_in = match way {
                    Way::Browser => browser::sign_in(&api).await?,
                    _ => password::sign_in(&api, &mut questions).await?,
                };
                let who = format!("signed in as {} of {}", signed_in.user.email, signed_in.tenant.name);
                (credentials::Login::Tokens(signed_in.tokens()), who)
            }
        };
        let place = if self.no_keyring { Place::File } else { Place::Keyring };
        let place = match store.lock().await?.put(&url, &login, place).await? {
            Place::Keyring => "the keyring".to_owned(),
            Place::File => store.path().display().to_string(),
        };
        console::result(format_args!("{url}: {who}; that is kept in {place}"));
        Ok(ExitCode::SUCCESS)
    }

    /// Without a flag whoever sits at a terminal chooses. What is piped in is a key.
    fn way(&self, url: &Url, questions: &mut Questions) -> Result<Way> {
        if self.browser {
            return Ok(Way::Browser);
        }
        if self.password {
            return Ok(Way::Password);
        }
        if self.api_key_file.is_some() || !io::stdin().is_terminal() {
            return Ok(Way::Key);
        }
        let files = [("key", local_key()), ("first password", local_password())];
        for (what, file) in files.into_iter().filter(|_| is_loopback(url)) {
            if let Some(file) = file {
                console::say(format_args!(
                    "The administrator's {what} of this machine is in {}",
                    file.display()
                ));
            }
        }
        let has_browser = browser::opener().is_some();
        console::say(format_args!("How do you sign in to {url}?"));
        if has_browser {
            console::say("  b  in the browser");
        }
        console::say("  p  with your e-mail address and password");
        console::say("  k  with an API key");
        let letters = if has_browser { "b, p or k [b]" } else { "p or k [k]" };
        match questions.line(letters)?.trim().to_lowercase().as_str() {
            "b" => Ok(Way::Browser),
            "p" => Ok(Way::Password),
            "k" => Ok(Way::Key),
            "" if has_browser => Ok(Way::Browser),
            "" => Ok(Way::Key),
            other => Err(Usage::new(format!("{other:?} is none of them"), "type one letter").into()),
        }
    }

    async fn key(&self, wanted: &Wanted, url: &Url, questions: &mut Questions) -> Result<credentials::Login> {
        let (key, origin) = match wanted.key()? {
            Some(found) if self.api_key_file.is_some() => found,
            _ => {
                let key = questions.secret(&format!("API key for {url}"))?;
                (parse_key(key.expose(), &KeyOrigin::Input)?, KeyOrigin::Input)
            }
        };
        // That the server knows the key; what it may do there is the key's own business.
        let check = Call::get(["jobs"]).query("limit", Some(1));
        let pass = Pass::Key { key: key.clone(), origin };
        match Api::new(Server { url: url.clone(), pass })?.send::<Box<RawValue>>(&check).await {
            Err(error) if !error.is_forbidden() => Err(error.into()),
            _ => Ok(credentials::Login::Key(key)),
        }
    }
}

/// The server that is meant: the one that was asked for, or that of the last login.
pub fn named(wanted: &Wanted, saved: &Credentials) -> Result<Option<Url>> {
    Ok(wanted.url()?.or_else(|| saved.default_url().cloned()))
}
