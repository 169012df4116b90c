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

/// A column that holds sealed values says so in its comment, so that none can be forgotten here.
async fn reseal_all(connection: &mut PgConnection, keys: &MasterKeys) -> Result<u64> {
    let columns: Vec<(String, String)> = sqlx::query_as(
        "select c.relname::text, a.attname::text
         from pg_class c join pg_attribute a on a.attrelid = c.oid
         where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
           and not a.attisdropped and col_description(c.oid, a.attnum) = 'sealed'",
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut resealed = 0;
    for (table, column) in columns {
        // A place's names are those of the code; here they come from the catalogue, once.
        let (table, column) = (&*table.leak(), &*column.leak());
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
    // Names from the catalogue, quoted.
    let (quoted_table, quoted_column) = (quote(table), quote(column));
    let select = format!(
        "select id, {quoted_column} from {quoted_table} where id > $1 and {quoted_column} is not null order by id limit $2"
    );
    // A value that changed meanwhile stays as it is; if that was under an old key, `retire` meets it.
    let update =
        format!("update {quoted_table} set {quoted_column} = $2 where id = $1 and {quoted_column} = $3");
    let (mut after, mut resealed) = (Uuid::nil(), 0);
    loop {
        let rows: Vec<(Uuid, Sealed)> = sqlx::query_as(AssertSqlSafe(select.clone()))
            .bind(after)
            .bind(BATCH)
            .fetch_all(&mut *connection)
            .await?;
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

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
