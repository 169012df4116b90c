//! `streamspace admin keys`: the master keys that stored secrets are encrypted under.

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use sqlx::{AssertSqlSafe, PgConnection};
use streamspace_common::{
    Config,
    sealed::{MasterKeys, Place, Sealed},
};
use uuid::Uuid;

use crate::{
    console,
    database::{self, Database},
    settings::Settings,
};

#[derive(Subcommand)]
pub enum Keys {
    /// Make a new master key and encrypt every stored secret under it. The old keys still open.
    ///
    /// Processes that run know only the keys that the file had when they started, so a running installation
    /// prepares the key first.
    Rotate(Rotation),
    /// Take the old keys out of the key file, once every process has been restarted with the new one.
    Retire(Keyed),
}

#[derive(Args)]
pub struct Rotation {
    /// Only add the key to the file: it opens and does not seal until the next rotation
    #[arg(long)]
    prepare: bool,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Args)]
pub struct Keyed {
    #[command(flatten)]
    settings: Settings,
}

/// Values read and sealed again at a time.
const BATCH: i64 = 500;

impl Keys {
    pub async fn run(self) -> Result<()> {
        match self {
            Self::Rotate(Rotation { prepare: true, settings }) => prepare(&settings),
            Self::Rotate(Rotation { prepare: false, settings }) => rotate(&settings).await,
            Self::Retire(Keyed { settings }) => retire(&settings).await,
        }
    }
}

/// Whoever starts from now on opens what the next rotation seals.
fn prepare(settings: &Settings) -> Result<()> {
    let file = settings.load()?.master_key_file();
    let keys = MasterKeys::load(&file)?;
    if keys.has_next() {
        console::result(format_args!("{} has a key that is prepared", file.display()));
    } else {
        keys.with_next_key().store(&file)?;
        console::result(format_args!("prepared a master key in {}", file.display()));
    }
    console::say(
        "Copy the file to every machine, restart every process, then: streamspace admin keys rotate",
    );
    Ok(())
}

/// At each moment every value opens: under the keys that were, or under the new one.
async fn rotate(settings: &Settings) -> Result<()> {
    let config = settings.load()?;
    let file = config.master_key_file();
    let before = MasterKeys::load(&file)?;
    if !before.has_next() {
        console::say("Not prepared: a process that runs can't open stored secrets until it is restarted");
    }
    let keys = before.with_new_key();
    keys.store(&file)?;
    let resealed = reseal_in(&config, &keys).await?;
    console::result(format_args!(
        "made the master key {} and sealed {resealed} stored secrets under it",
        keys.current_id()
    ));
    console::say("Restart every process of the installation, then: streamspace admin keys retire");
    Ok(())
}

/// Processes that ran on with the old key meanwhile may have sealed under it.
async fn retire(settings: &Settings) -> Result<()> {
    let config = settings.load()?;
    let file = config.master_key_file();
    let keys = MasterKeys::load(&file)?;
    if !keys.has_old() {
        bail!("{} holds one key alone: there is none to retire", file.display());
    }
    let resealed = reseal_in(&config, &keys).await?;
    let retired = file.with_added_extension(format!("before-{}", keys.current_id()));
    keys.store(&retired)?;
    let current = keys.only_current();
    current.store(&file)?;
    console::result(format_args!(
        "{} holds the master key {} alone; sealed {resealed} secrets under it",
        file.display(),
        current.current_id()
    ));
    console::say(format_args!("The old keys are in {}: backups made with them need it.", retired.display()));
    Ok(())
}

async fn reseal_in(config: &Config, keys: &MasterKeys) -> Result<u64> {
    database::with(config, async |database: &Database| {
        let mut connection = database.connect().await?;
        reseal_all(&mut connection, keys).await
    })
    .await
}

/// How many secrets are stored, and how many of them these keys do not open.
pub(crate) async fn count_sealed(connection: &mut PgConnection, keys: &MasterKeys) -> Result<(u64, u64)> {
    let (mut all, mut lost) = (0, 0);
    for (table, column) in sealed_columns(connection).await? {
        let mut after = Uuid::nil();
        loop {
            let rows = sealed(connection, table, column, after).await?;
            let Some((last, _)) = rows.last() else { break };
            after = *last;
            all += rows.len() as u64;
            let is_lost = |(row, sealed): &&(Uuid, Sealed)| {
                keys.open(Place { table, column, row: *row }, sealed).is_err()
            };
            lost += rows.iter().filter(is_lost).count() as u64;
        }
    }
    Ok((all, lost))
}

/// A column that holds sealed values says so in its comment, so that none can be forgotten here.
async fn sealed_columns(connection: &mut PgConnection) -> Result<Vec<(&'static str, &'static str)>> {
    let columns: Vec<(String, String)> = sqlx::query_as(
        "select c.relname::text, a.attname::text
         from pg_class c join pg_attribute a on a.attrelid = c.oid
         where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
           and not a.attisdropped and col_description(c.oid, a.attnum) = 'sealed'",
    )
    .fetch_all(connection)
    .await?;
    // A place's names are those of the code; here they come from the catalogue, once.
    Ok(columns.into_iter().map(|(table, column)| (&*table.leak(), &*column.leak())).collect())
}

async fn reseal_all(connection: &mut PgConnection, keys: &MasterKeys) -> Result<u64> {
    let mut resealed = 0;
    for (table, column) in sealed_columns(connection).await? {
        resealed += reseal(connection, keys, table, column)
            .await
            .with_context(|| format!("cannot seal {table}.{column} again; the old keys are kept"))?;
    }
    Ok(resealed)
}

async fn reseal(
    connection: &mut PgConnection,
    keys: &MasterKeys,
    table: &'static str,
    column: &'static str,
) -> Result<u64> {
    let (quoted_table, quoted_column) = (quote(table), quote(column));
    // A value that changed meanwhile stays as it is; if that was under an old key, `retire` meets it.
    let update =
        format!("update {quoted_table} set {quoted_column} = $2 where id = $1 and {quoted_column} = $3");
    let (mut after, mut resealed) = (Uuid::nil(), 0);
    loop {
        let rows = sealed(connection, table, column, after).await?;
        let Some((last, _)) = rows.last() else { return Ok(resealed) };
        after = *last;
        for (row, sealed) in rows {
            let place = Place { table, column, row };
            if let Some(again) = keys.reseal(place, &sealed).with_context(|| format!("row {row}"))? {
                let changed = sqlx::query(AssertSqlSafe(update.clone()))
                    .bind(row)
                    .bind(again)
                    .bind(sealed)
                    .execute(&mut *connection)
                    .await?;
                resealed += changed.rows_affected();
            }
        }
    }
}

/// The next of a column.
async fn sealed(
    connection: &mut PgConnection,
    table: &str,
    column: &str,
    after: Uuid,
) -> Result<Vec<(Uuid, Sealed)>> {
    let (table, column) = (quote(table), quote(column));
    let select = format!(
        "select id, {column} from {table} where id > $1 and {column} is not null order by id limit $2"
    );
    Ok(sqlx::query_as(AssertSqlSafe(select)).bind(after).bind(BATCH).fetch_all(connection).await?)
}

/// A name from the catalogue.
fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
