//! `streamspace admin backup`: one consistent snapshot of the database, taken while it is in use.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use percent_encoding::percent_decode_str;
use sqlx::PgConnection;
use streamspace_common::{
    Config, Secret,
    sealed::{KeyFileError, MasterKeys},
};
use streamspace_queue::schema;
use tokio::process::Command;

use super::manifest::{Manifest, sha256};
use crate::{
    console,
    database::{self, Database},
    failure::Advice,
    postgres_tools,
    private_file::{Draft, Existing},
    settings::Settings,
};

#[derive(Args)]
pub struct Backup {
    /// The file to write, in pg_dump's custom format; what it needs is told in FILE.json beside it
    file: PathBuf,
    /// Replace the file if it exists
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    settings: Settings,
}

impl Backup {
    pub async fn run(self) -> Result<()> {
        let config = self.settings.load()?;
        if self.file.exists() && !self.force {
            return Err(Advice::new(
                format!("{} exists", self.file.display()),
                "choose another name, or replace it with --force",
            )
            .into());
        }
        let keys = match MasterKeys::load(&config.master_key_file()) {
            Ok(keys) => Some(keys),
            Err(KeyFileError::Missing { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let manifest = database::with(&config, async |database: &Database| {
            dump(database, &self.file, keys.as_ref().map(MasterKeys::current_id)).await
        })
        .await?;
        tell(&self.file, &manifest, &config)
    }
}

async fn dump(database: &Database, file: &Path, master_key_id: Option<String>) -> Result<Manifest> {
    let mut connection = database.connect().await?;
    let postgresql = server_major(&mut connection).await?;
    let schema = match schema::state(&mut connection).await? {
        schema::State::Current => schema::known(),
        schema::State::Older { found: 0, .. } => bail!("the database is empty: there is nothing to back up"),
        schema::State::Older { found, .. } | schema::State::Newer { found, .. } => found,
    };
    let program = postgres_tools::client_for("pg_dump", postgresql)?;
    let context = || format!("cannot make {}", file.display());
    let draft = Draft::of(file).with_context(context)?;
    let dumped = tool(&program, &database.owner_url)?
        .args(["--format=custom", "--no-password", "--lock-wait-timeout=60s", "--file"])
        .arg(draft.path())
        .output()
        .await
        .with_context(|| format!("cannot run {}", program.display()))?;
    if !dumped.status.success() {
        bail!("pg_dump failed:\n{}", String::from_utf8_lossy(&dumped.stderr).trim());
    }
    let manifest = Manifest {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        schema,
        made_at: jiff::Timestamp::now(),
        postgresql,
        master_key_id,
        sha256: sha256(draft.path())?,
    };
    let beside = manifest.draft(file)?;
    // At no moment does a backup lie beside another one's manifest: it would look damaged, while one
    // that is alone can be restored.
    Manifest::remove(file)?;
    draft.publish(Existing::Replace).with_context(context)?;
    beside.publish(Existing::Replace).with_context(context)?;
    Ok(manifest)
}

fn tell(file: &Path, manifest: &Manifest, config: &Config) -> Result<()> {
    let size = file.metadata().context("the backup was just made")?.len();
    console::result(format_args!(
        "{}: {} KiB, schema {}, SHA-256 {}",
        file.display(),
        size.div_ceil(1024),
        manifest.schema,
        manifest.sha256
    ));
    if let Some(id) = &manifest.master_key_id {
        console::say(format_args!(
            "Stored secrets in it open with the master key {id} alone, which is not in it. Keep a copy of {} \
             somewhere else.",
            config.master_key_file().display()
        ));
    }
    Ok(())
}

pub async fn server_major(connection: &mut PgConnection) -> Result<u32> {
    let number: String = sqlx::query_scalar("show server_version_num").fetch_one(connection).await?;
    let number: u32 = number.parse().with_context(|| format!("the server calls its version {number:?}"))?;
    Ok(number / 10_000)
}

/// A program of PostgreSQL's on the database. The password goes by the environment: arguments can be
/// read by every user of the machine.
pub fn tool(program: &Path, url: &Secret<String>) -> Result<Command> {
    let mut url = url::Url::parse(url.expose()).context("the database's URL cannot be read")?;
    let mut command = Command::new(program);
    if let Some(password) = url.password() {
        let password =
            percent_decode_str(password).decode_utf8().context("the database's password is no text")?;
        command.env("PGPASSWORD", password.as_ref());
    }
    url.set_password(None).ok();
    command.kill_on_drop(true).arg("--dbname").arg(url.as_str());
    Ok(command)
}
