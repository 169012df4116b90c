//! The embedded server's database and its two roles.

use anyhow::{Context, Result};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection};

use super::{
    Address,
    settings::{APP, DATABASE, OWNER, SUPERUSER},
};

/// Makes what is missing; the usual start finds all of it with one question.
pub async fn database_and_roles(address: &Address) -> Result<()> {
    let mut postgres = address
        .with(SUPERUSER, "postgres")
        .connect()
        .await
        .context("the embedded PostgreSQL runs and does not let us in")?;
    let [has_owner, has_app, has_database] =
        existing(&mut postgres).await.context("cannot read PostgreSQL's roles")?;
    let statements = [
        (!has_owner).then(|| format!("create role {OWNER} login")),
        (!has_app).then(|| format!("create role {APP} login")),
        (!has_database).then(|| format!("create database {DATABASE} owner {OWNER}")),
        (!has_database).then(|| format!("grant connect on database {DATABASE} to {APP}")),
        (!has_database).then(|| format!("revoke connect on database {DATABASE} from public")),
    ];
    for statement in statements.into_iter().flatten() {
        // Names that are constants of this program.
        postgres
            .execute(AssertSqlSafe(statement.clone()))
            .await
            .with_context(|| format!("cannot {statement}"))?;
    }
    postgres.close().await.ok();
    Ok(())
}

async fn existing(postgres: &mut PgConnection) -> sqlx::Result<[bool; 3]> {
    let (owner, app, database) = sqlx::query_as(
        "select exists (select from pg_roles where rolname = $1),
                exists (select from pg_roles where rolname = $2),
                exists (select from pg_database where datname = $3)",
    )
    .bind(OWNER)
    .bind(APP)
    .bind(DATABASE)
    .fetch_one(postgres)
    .await?;
    Ok([owner, app, database])
}
