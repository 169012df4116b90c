//! `streamspace login` and `logout`. A key never comes as an argument: those stand in the shell's
//! history and in the list of processes.

use std::{
    io::{self, IsTerminal, Read},
    path::PathBuf,
    process::ExitCode,
};

use ::console::Term;
use anyhow::{Context, Result};
use clap::Args;
use serde_json::value::RawValue;
use streamspace_common::Secret;
use url::Url;

use super::{
    api::{Api, Call, is_loopback},
    credentials::{self, Credentials},
    exit::Usage,
    server::{KeyOrigin, LOCAL, Server, Wanted, local_key_file, parse_key, parse_url},
};
use crate::console;

#[derive(Args)]
pub struct Login {
    /// The server [env: STREAMSPACE_URL] [default: that of the last login, else this machine's]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// File with the API key; without it the key is asked for, or read from standard input
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
}

#[derive(Args)]
pub struct Logout {
    /// The server [env: STREAMSPACE_URL] [default: that of the last login]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
}

impl Login {
    pub async fn run(self) -> Result<ExitCode> {
        let path = credentials::path()?;
        let mut saved = Credentials::load(&path)?;
        let has_file = self.api_key_file.is_some();
        let wanted = Wanted::of_process(self.url, self.api_key_file);
        let url = match named(&wanted, &saved)? {
            Some(url) => url,
            None => parse_url(LOCAL)?,
        };
        if url.scheme() == "http" && !is_loopback(&url) {
            console::say(format_args!("warning: {url} is not encrypted: who is on the way can read the key"));
        }
        let (key, key_origin) = match wanted.key()? {
            Some(found) if has_file => found,
            _ => (ask_for_key(&url)?, KeyOrigin::Input),
        };
        let server = Server { url: url.clone(), key: key.clone(), key_origin };
        // That the server knows the key; what it may do there is the key's own business.
        let check = Call::get(["jobs"]).query("limit", Some(1));
        match Api::new(server)?.send::<Box<RawValue>>(&check).await {
            Ok(_) => {}
            Err(error) if error.is_forbidden() => {}
            Err(error) => return Err(error.into()),
        }
        saved.put(&url, key);
        saved.store(&path)?;
        console::result(format_args!("Logged in to {url}; the key is saved in {}", path.display()));
        Ok(ExitCode::SUCCESS)
    }
}

impl Logout {
    pub fn run(self) -> Result<ExitCode> {
        let path = credentials::path()?;
        let mut saved = Credentials::load(&path)?;
        let url = named(&Wanted::of_process(self.url, None), &saved)?
            .ok_or_else(|| Usage::new("nobody is logged in", "`streamspace login` does that"))?;
        if !saved.remove(&url) {
            return Err(
                Usage::new(format!("there is no saved login for {url}"), "nothing was changed").into()
            );
        }
        saved.store(&path)?;
        console::result(format_args!(
            "Forgot the key for {url}; the key itself stays valid until it is revoked"
        ));
        Ok(ExitCode::SUCCESS)
    }
}

fn named(wanted: &Wanted, saved: &Credentials) -> Result<Option<Url>> {
    Ok(wanted.url()?.or_else(|| saved.default_url().cloned()))
}

fn ask_for_key(url: &Url) -> Result<Secret<String>> {
    if io::stdin().is_terminal() {
        let terminal = Term::stderr();
        if let Some(file) = local_key_file().filter(|_| is_loopback(url)) {
            console::say(format_args!("The administrator's key of this machine is in {}", file.display()));
        }
        terminal.write_str(&format!("API key for {url}: ")).context("cannot write to the terminal")?;
        let key = Secret::new(terminal.read_secure_line().context("cannot read the key")?);
        return parse_key(key.expose(), &KeyOrigin::Input);
    }
    let mut text = String::new();
    // More than any key has: what is piped in by mistake need not be read whole.
    io::stdin().take(4096).read_to_string(&mut text).context("cannot read the key from standard input")?;
    let text = Secret::new(text);
    parse_key(text.expose(), &KeyOrigin::Input)
}
