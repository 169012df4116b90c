//! `streamspace config init`: an environment file for an installation.

use std::{io::ErrorKind, path::PathBuf};

use anyhow::Result;
use clap::{Args, ValueEnum};
use rand::{RngExt, distr::Alphanumeric};

use crate::{
    console,
    failure::Advice,
    private_file::{self, Existing},
};

#[derive(Args)]
pub struct Init {
    environment: Environment,
    /// The file to write [default: .env.ENVIRONMENT]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace the file if it exists
    #[arg(long)]
    force: bool,
    /// Print an example with `changeme` for each secret instead, which production refuses
    #[arg(long, conflicts_with_all = ["output", "force"])]
    example: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Environment {
    Development,
    Test,
    Production,
}

impl Environment {
    fn name(self) -> &'static str {
        match self {
            Self::Development => "development",
            Self::Test => "test",
            Self::Production => "production",
        }
    }
}

/// Long enough that nobody guesses it: 40 letters and digits are 238 bits.
const SECRET_LENGTH: usize = 40;

impl Init {
    pub fn run(self) -> Result<()> {
        let name = self.environment.name();
        if self.example {
            console::result_text(&text(self.environment, || "changeme".to_owned()));
            return Ok(());
        }
        let path = self.output.unwrap_or_else(|| format!(".env.{name}").into());
        let existing = if self.force { Existing::Replace } else { Existing::Keep };
        private_file::write(&path, &text(self.environment, secret), existing).map_err(|error| match error
            .kind()
        {
            ErrorKind::AlreadyExists => {
                Advice::new(format!("{} exists", path.display()), "replace it with --force").into()
            }
            _ => anyhow::Error::new(error).context(format!("cannot write {}", path.display())),
        })?;
        console::result(format_args!("wrote {}", path.display()));
        console::say(format_args!(
            "To use it: set -a; . {}; set +a; streamspace config check",
            path.display()
        ));
        Ok(())
    }
}

fn secret() -> String {
    rand::rng().sample_iter(Alphanumeric).take(SECRET_LENGTH).map(char::from).collect()
}

/// A file that a shell, Compose and systemd read alike.
fn text(environment: Environment, secret: impl Fn() -> String) -> String {
    let name = environment.name();
    let head = format!(
        "# StreamSpace, {name}. Every setting: docs/configuration.md\nSTREAMSPACE_SERVER_ENVIRONMENT={name}\n"
    );
    let body = match environment {
        Environment::Development => "\
            # `streamspace up` brings its own PostgreSQL as long as no database is set.\n\
            STREAMSPACE_SERVER_HOST=127.0.0.1\n\
            STREAMSPACE_SERVER_PORT=8080\n\
            STREAMSPACE_LOG_LEVEL=info\n"
            .to_owned(),
        Environment::Test => format!(
            "STREAMSPACE_SERVER_HOST=127.0.0.1\n\
             STREAMSPACE_SERVER_PORT=0\n\
             STREAMSPACE_SERVER_ADMIN_PORT=0\n\
             STREAMSPACE_DATABASE_HOST=localhost\n\
             STREAMSPACE_DATABASE_NAME=streamspace_test\n\
             STREAMSPACE_DATABASE_USER=streamspace\n\
             STREAMSPACE_DATABASE_PASSWORD={}\n\
             STREAMSPACE_JOBS_LEASE=3s\n",
            secret()
        ),
        Environment::Production => format!(
            "STREAMSPACE_SERVER_HOST=0.0.0.0\n\
             STREAMSPACE_SERVER_PORT=8080\n\
             STREAMSPACE_SERVER_PUBLIC_URL=https://streamspace.example.com\n\
             STREAMSPACE_SERVER_DATA_DIR=/var/lib/streamspace\n\
             # The role that may change rows and not tables. `streamspace migrate` connects as the owner:\n\
             # it is given STREAMSPACE_DATABASE_DIRECT_URL=postgres://owner:…@host/streamspace.\n\
             STREAMSPACE_DATABASE_HOST=localhost\n\
             STREAMSPACE_DATABASE_NAME=streamspace\n\
             STREAMSPACE_DATABASE_USER=streamspace\n\
             STREAMSPACE_DATABASE_PASSWORD={}\n\
             STREAMSPACE_DATABASE_SSLMODE=prefer\n\
             # One file for all processes; a copy of it belongs somewhere else than the backups.\n\
             STREAMSPACE_SECURITY_MASTER_KEY_FILE=/var/lib/streamspace/master.key\n\
             STREAMSPACE_LOG_FORMAT=json\n",
            secret()
        ),
    };
    head + &body
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use streamspace_common::{Config, config::Sources};

    use super::*;

    fn read(text: &str) -> Sources {
        let set = text.lines().filter_map(|line| line.split_once('=').filter(|_| !line.starts_with('#')));
        let environment: BTreeMap<_, _> =
            set.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Sources { environment, ..Default::default() }
    }

    #[test]
    fn what_init_writes_is_a_good_configuration() {
        for environment in [Environment::Development, Environment::Test, Environment::Production] {
            let config = Config::load(&read(&text(environment, secret))).expect("accepted");
            assert!(config.weak_secrets().is_empty());
        }
        let secret = secret();
        assert!(secret.len() >= 32 && secret != super::secret());
    }

    #[test]
    fn production_refuses_the_example() {
        let refused = Config::load(&read(&text(Environment::Production, || "changeme".to_owned())));
        assert!(refused.expect_err("refused").to_string().contains("database.password"));
    }
}
