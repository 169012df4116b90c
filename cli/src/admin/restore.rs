//! `streamspace admin restore`: fills a database from a backup, whole or not at all.

use std::{
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use anyhow::{Context, Result, bail};
use clap::Args;
use sqlx::{Connection, PgConnection};
use streamspace_common::{Config, sealed::MasterKeys};
use streamspace_queue::schema::{self, Options};
use tokio::{
    io::AsyncWriteExt,
    process::{Child, ChildStdin, ChildStdout},
};

use super::{
    backup::{server_major, tool},
    manifest::{Manifest, sha256},
};
use crate::{
    console,
    data_dir::DataDir,
    database::{self, Database},
    embedded,
    failure::Advice,
    migrate, postgres_tools,
    settings::Settings,
};

#[derive(Args)]
pub struct Restore {
    /// What `streamspace admin backup` wrote
    file: PathBuf,
    /// Replace what is in the database
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    settings: Settings,
}

/// Removes what the backup brings. Not the schema `public` itself: a database has it from the start,
/// and its owner need not be ours.
const CLEAR: &str = "
do $$ declare it record; begin
    drop schema if exists queue cascade;
    for it in select format('drop %s if exists public.%I cascade', case relkind when 'S' then 'sequence' when 'v' then 'view' else 'table' end, relname) as sql
              from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p', 'S', 'v') and not relispartition
    loop execute it.sql; end loop;
    for it in select format('drop type if exists public.%I cascade', typname) as sql
              from pg_type where typnamespace = 'public'::regnamespace and typtype in ('e', 'd')
    loop execute it.sql; end loop;
end $$";

/// Events are ordered against waiting jobs by the server's transaction numbers, and those of another
/// server mean nothing here. Jobs that are not parked yet look again at what they wait for.
const FORGET_EVENTS: &str = "delete from public.job_events";

impl Restore {
    pub async fn run(self) -> Result<()> {
        let config = self.settings.load()?;
        let manifest = check(&self.file)?;
        if !config.database.is_configured() {
            let data_dir = DataDir::create(&config.server.data_dir)?;
            if embedded::running(&data_dir).is_some() && data_dir.lock().is_err() {
                return Err(Advice::new(
                    format!("`streamspace up` runs on {}", data_dir.path().display()),
                    "stop it first: its jobs would go on in what is replaced",
                )
                .into());
            }
        }
        database::with(&config, async |database: &Database| self.fill(database).await).await?;
        console::result(format_args!("restored {}", self.file.display()));
        tell_key(manifest.as_ref(), &config);
        Ok(())
    }

    async fn fill(&self, database: &Database) -> Result<()> {
        let mut connection = database.connect().await?;
        if !self.force {
            refuse_if_used(&mut connection).await?;
        }
        let server = server_major(&mut connection).await?;
        connection.close().await.ok();
        load(&self.file, database, server).await?;
        // A backup of an earlier release; and the application's role may be another here.
        let options = Options { app_role: database.app_role.as_deref(), ..Options::default() };
        migrate::apply(&database.owner()?, options).await?;
        Ok(())
    }
}

/// The file is whole, as far as its manifest can tell.
fn check(file: &Path) -> Result<Option<Manifest>> {
    let found = sha256(file)?;
    let manifest = Manifest::read(file)?;
    match &manifest {
        Some(manifest) if manifest.sha256 != found => {
            bail!(
                "{} is damaged: its SHA-256 is not that of {}",
                file.display(),
                Manifest::path(file).display()
            )
        }
        Some(manifest) if manifest.schema > schema::known() => bail!(
            "the backup has the schema {}, this release knows {}: restore it with release {} or newer",
            manifest.schema,
            schema::known(),
            manifest.version
        ),
        Some(_) => {}
        None => console::say(format_args!(
            "{} is missing: whether the backup is whole cannot be told",
            Manifest::path(file).display()
        )),
    }
    Ok(manifest)
}

/// Only a database in which nobody has worked yet is filled without being told to.
async fn refuse_if_used(connection: &mut PgConnection) -> Result<()> {
    let (has_tables, has_users): (bool, bool) = sqlx::query_as(
        "select exists (select from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p')),
                to_regclass('public.users') is not null",
    )
    .fetch_one(&mut *connection)
    .await?;
    let is_used = match has_users {
        true => {
            sqlx::query_scalar("select exists (select from public.users)").fetch_one(&mut *connection).await?
        }
        false => has_tables,
    };
    if is_used {
        return Err(Advice::new(
            "the database is not empty",
            "restore into an empty one, or replace everything in this one with --force",
        )
        .into());
    }
    let connected: i64 = sqlx::query_scalar(
        "select count(*) from pg_stat_activity
         where datname = current_database() and application_name like 'streamspace%' and pid <> pg_backend_pid()",
    )
    .fetch_one(connection)
    .await?;
    if connected > 0 {
        return Err(Advice::new(
            "processes of StreamSpace are connected to the database",
            "stop them first, or go on beside them with --force",
        )
        .into());
    }
    Ok(())
}

/// pg_restore turns the file into statements, psql runs them in one transaction with the clearing. The
/// end of its input is no reason for psql to fail, so `commit` is written only when pg_restore has said
/// that the file was whole: a restore that fails has changed nothing.
async fn load(file: &Path, database: &Database, server: u32) -> Result<()> {
    let pg_restore = postgres_tools::client_for("pg_restore", server)?;
    let psql = postgres_tools::client_for("psql", server)?;
    let mut reader = tokio::process::Command::new(&pg_restore)
        .args(["--no-owner", "--no-privileges", "--file=-"])
        .arg(file)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot run {}", pg_restore.display()))?;
    let mut writer = tool(&psql, &database.owner_url)?
        .args(["--no-psqlrc", "--quiet", "--no-password", "--set=ON_ERROR_STOP=1", "--file=-"])
        .env("PGOPTIONS", "-c client_min_messages=warning")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", psql.display()))?;
    let statements = reader.stdout.take().context("pg_restore has an output")?;
    let input = writer.stdin.take().context("psql has an input")?;
    let (fed, written) = tokio::join!(feed(reader, statements, input), writer.wait_with_output());
    let (fed, written) = (fed?, written?);
    let said = |output: &Output| String::from_utf8_lossy(&output.stderr).trim().to_owned();
    match fed {
        // Without its commit psql has changed nothing, whatever it says of itself.
        Fed::NotWhole(read) => bail!("pg_restore failed, and the database is as it was:\n{}", said(&read)),
        Fed::All if written.status.success() => Ok(()),
        Fed::All | Fed::Refused => {
            bail!("psql failed, and the database is as it was:\n{}", said(&written))
        }
    }
}

enum Fed {
    /// The commit too.
    All,
    NotWhole(Output),
    /// psql ended before.
    Refused,
}

async fn feed(reader: Child, mut statements: ChildStdout, mut input: ChildStdin) -> Result<Fed> {
    // Takes `statements` with it: if psql ends first, pg_restore ends too.
    let copy = async move {
        input.write_all(format!("begin;\n{CLEAR};\n").as_bytes()).await?;
        tokio::io::copy(&mut statements, &mut input).await?;
        std::io::Result::Ok(input)
    };
    let (copied, read) = tokio::join!(copy, reader.wait_with_output());
    let (Ok(mut input), read) = (copied, read?) else { return Ok(Fed::Refused) };
    if !read.status.success() {
        return Ok(Fed::NotWhole(read));
    }
    Ok(match input.write_all(format!("{FORGET_EVENTS};\ncommit;\n").as_bytes()).await {
        Ok(()) => Fed::All,
        Err(_) => Fed::Refused,
    })
}

fn tell_key(manifest: Option<&Manifest>, config: &Config) {
    let Some(needed) = manifest.and_then(|manifest| manifest.master_key_id.as_ref()) else { return };
    let file = config.master_key_file();
    if !MasterKeys::load(&file).is_ok_and(|keys| keys.has(needed)) {
        console::say(format_args!(
            "Stored secrets in it open with the master key {needed}, which is not in {}. Put its file there before \
             the next start, or the secrets stay closed.",
            file.display()
        ));
    }
}
