//! Whom issuers speak of, and what their groups have given.

use std::collections::HashMap;

use sqlx::PgConnection;
use streamspace_common::{OidcIdentityId, TeamId, TenantId, UserId};

use super::Error;
use crate::teams::TeamRole;

pub(super) struct Identity {
    pub id: OidcIdentityId,
    pub user: UserId,
    /// That it is the account's owner's is more than their word.
    pub proven: bool,
    /// The provider, by its name, through which they linked it, having come in without one.
    pub linked_through: Option<String>,
}

/// Whose it is.
pub(super) async fn whose(
    conn: &mut PgConnection,
    tenant: TenantId,
    issuer: &str,
    subject: &str,
) -> sqlx::Result<Option<UserId>> {
    sqlx::query_scalar!(
        r#"select user_id as "user: UserId" from oidc_identities
           where tenant_id = $1 and issuer = $2 and subject = $3"#,
        tenant.0,
        issuer,
        subject,
    )
    .fetch_optional(conn)
    .await
}

/// The same; that it is used is noted. Locked until the commit, so that two sign-ins of one person
/// give what groups give one after the other.
pub(super) async fn identity(
    conn: &mut PgConnection,
    tenant: TenantId,
    issuer: &str,
    subject: &str,
) -> sqlx::Result<Option<Identity>> {
    sqlx::query_as!(
        Identity,
        r#"update oidc_identities set last_used_at = now()
           where tenant_id = $1 and issuer = $2 and subject = $3
           returning id as "id: OidcIdentityId", user_id as "user: UserId", proven, linked_through"#,
        tenant.0,
        issuer,
        subject,
    )
    .fetch_optional(conn)
    .await
}

pub(super) struct NewIdentity<'a> {
    pub user: UserId,
    pub issuer: &'a str,
    pub subject: &'a str,
    pub proven: bool,
    pub linked_through: Option<&'a str>,
}

pub(super) async fn insert_identity(
    conn: &mut PgConnection,
    tenant: TenantId,
    new: NewIdentity<'_>,
) -> Result<Identity, Error> {
    let NewIdentity { user, issuer, subject, proven, linked_through } = new;
    let id = OidcIdentityId::new();
    sqlx::query!(
        "insert into oidc_identities (id, tenant_id, user_id, issuer, subject, proven, linked_through)
         values ($1, $2, $3, $4, $5, $6, $7)",
        id.0,
        tenant.0,
        user.0,
        issuer,
        subject,
        proven,
        linked_through,
    )
    .execute(conn)
    .await
    .map_err(|error| match error.as_database_error().and_then(|error| error.constraint()) {
        Some("oidc_identities_subject") => Error::Again,
        _ => Error::Db(error),
    })?;
    Ok(Identity { id, user, proven, linked_through: linked_through.map(str::to_owned) })
}

pub(super) async fn set_proven(
    conn: &mut PgConnection,
    tenant: TenantId,
    id: OidcIdentityId,
) -> sqlx::Result<()> {
    sqlx::query!("update oidc_identities set proven = true where tenant_id = $1 and id = $2", tenant.0, id.0)
        .execute(conn)
        .await?;
    Ok(())
}

/// The person has linked it, and so has proven it.
pub(super) async fn set_linked(
    conn: &mut PgConnection,
    tenant: TenantId,
    id: OidcIdentityId,
    provider: &str,
) -> sqlx::Result<()> {
    sqlx::query!(
        "update oidc_identities set proven = true, linked_through = $3 where tenant_id = $1 and id = $2",
        tenant.0,
        id.0,
        provider,
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub(super) async fn has_unproven(
    conn: &mut PgConnection,
    tenant: TenantId,
    user: UserId,
) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select from oidc_identities
                          where tenant_id = $1 and user_id = $2 and not proven) as "has!""#,
        tenant.0,
        user.0,
    )
    .fetch_one(conn)
    .await
}

pub(super) async fn is_there(
    conn: &mut PgConnection,
    tenant: TenantId,
    id: OidcIdentityId,
) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select from oidc_identities where tenant_id = $1 and id = $2) as "is!""#,
        tenant.0,
        id.0,
    )
    .fetch_one(conn)
    .await
}

/// Answers how many there were.
pub(super) async fn delete_unproven(
    conn: &mut PgConnection,
    tenant: TenantId,
    user: UserId,
) -> sqlx::Result<u64> {
    let gone = sqlx::query!(
        "delete from oidc_identities where tenant_id = $1 and user_id = $2 and not proven",
        tenant.0,
        user.0,
    )
    .execute(conn)
    .await?;
    Ok(gone.rows_affected())
}

/// The teams in which the identity's groups have made the person a member, who still is, and what they are
/// there by now.
pub(super) async fn memberships(
    conn: &mut PgConnection,
    tenant: TenantId,
    identity: OidcIdentityId,
) -> sqlx::Result<HashMap<TeamId, TeamRole>> {
    let rows = sqlx::query!(
        r#"select team_id as "team: TeamId", t.role from oidc_memberships m
           join team_members t using (tenant_id, team_id, user_id)
           where m.tenant_id = $1 and m.identity_id = $2"#,
        tenant.0,
        identity.0,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.team, row.role.parse().expect("the column's check knows the same roles")))
        .collect())
}

pub(super) async fn insert_membership(
    conn: &mut PgConnection,
    tenant: TenantId,
    identity: &Identity,
    team: TeamId,
) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into oidc_memberships (tenant_id, identity_id, team_id, user_id) values ($1, $2, $3, $4)",
        tenant.0,
        identity.id.0,
        team.0,
        identity.user.0,
    )
    .execute(conn)
    .await?;
    Ok(())
}
