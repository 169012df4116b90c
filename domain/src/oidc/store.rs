use std::time::Duration;

use sqlx::{PgConnection, types::Json};
use streamspace_common::{OidcProviderId, Sealed, SignInId, TenantId};

use super::{
    Error,
    model::{ClientSecret, GroupMapping, Provider, Settings, Whose},
    trip::Trip,
};
use crate::identity::store::role;

// Providers ----------------------------------------------------------------------------------------

struct Row {
    id: OidcProviderId,
    tenant_id: TenantId,
    name: String,
    display_name: String,
    enabled: bool,
    provider_url: String,
    client_id: String,
    client_secret: Sealed,
    redirect_uri: Option<String>,
    scopes: Vec<String>,
    username_claim: String,
    email_claim: String,
    groups_claim: String,
    group_mapping: Json<Vec<GroupMapping>>,
    default_role: String,
    created_at: jiff_sqlx::Timestamp,
    updated_at: jiff_sqlx::Timestamp,
}

impl Row {
    fn into_provider(self) -> Provider {
        Provider {
            id: Some(self.id),
            whose: Whose::Tenant(self.tenant_id),
            settings: Settings {
                name: self.name,
                display_name: self.display_name,
                enabled: self.enabled,
                provider_url: self.provider_url,
                client_id: self.client_id,
                redirect_uri: self.redirect_uri,
                scopes: self.scopes,
                username_claim: self.username_claim,
                email_claim: self.email_claim,
                groups_claim: self.groups_claim,
                group_mapping: self.group_mapping.0,
                default_role: role(&self.default_role),
            },
            created_at: Some(self.created_at.to_jiff()),
            updated_at: Some(self.updated_at.to_jiff()),
            secret: ClientSecret::Sealed(self.id, self.client_secret),
        }
    }
}

/// A provider's row as the view that all of these statements read it through.
macro_rules! select_providers {
    ($rest:literal $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            Row,
            r#"select p.id as "id: OidcProviderId", p.tenant_id as "tenant_id: TenantId", p.name, p.display_name,
                      p.enabled, p.provider_url, p.client_id, p.client_secret as "client_secret: Sealed",
                      p.redirect_uri, p.scopes, p.username_claim, p.email_claim, p.groups_claim,
                      p.group_mapping as "group_mapping: Json<Vec<GroupMapping>>", p.default_role,
                      p.created_at, p.updated_at
               from oidc_providers p "#
                + $rest
            $(, $argument)*
        )
    };
}

/// One that people may sign in through, in whatever tenant.
pub(super) async fn by_name(conn: &mut PgConnection, name: &str) -> sqlx::Result<Option<Provider>> {
    let row = select_providers!(
        "join tenants t on t.id = p.tenant_id where p.name = $1 and p.enabled and t.active",
        name
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(Row::into_provider))
}

/// All of a tenant: there are few.
pub(super) async fn of_tenant(conn: &mut PgConnection, tenant: TenantId) -> sqlx::Result<Vec<Provider>> {
    let rows = select_providers!("where p.tenant_id = $1", tenant.0).fetch_all(conn).await?;
    Ok(rows.into_iter().map(Row::into_provider).collect())
}

/// Locked until the commit.
pub(super) async fn lock(
    conn: &mut PgConnection,
    tenant: TenantId,
    id: OidcProviderId,
) -> Result<Provider, Error> {
    let row = select_providers!("where p.tenant_id = $1 and p.id = $2 for update", tenant.0, id.0)
        .fetch_optional(conn)
        .await?;
    row.map(Row::into_provider).ok_or(Error::NoProvider)
}

pub(super) async fn count(conn: &mut PgConnection, tenant: TenantId) -> sqlx::Result<i64> {
    sqlx::query_scalar!(r#"select count(*) as "n!" from oidc_providers where tenant_id = $1"#, tenant.0)
        .fetch_one(conn)
        .await
}

pub(super) async fn insert(
    conn: &mut PgConnection,
    tenant: TenantId,
    id: OidcProviderId,
    new: &Settings,
    secret: Sealed,
) -> Result<(), Error> {
    sqlx::query!(
        "insert into oidc_providers (id, tenant_id, name, display_name, enabled, provider_url, client_id,
             client_secret, redirect_uri, scopes, username_claim, email_claim, groups_claim, group_mapping,
             default_role)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
        id.0,
        tenant.0,
        new.name,
        new.display_name,
        new.enabled,
        new.provider_url,
        new.client_id,
        secret as _,
        new.redirect_uri,
        &new.scopes,
        new.username_claim,
        new.email_claim,
        new.groups_claim,
        Json(&new.group_mapping) as _,
        new.default_role.as_str(),
    )
    .execute(conn)
    .await
    .map_err(taken)?;
    Ok(())
}

/// `secret`: as it is when there is none.
pub(super) async fn update(
    conn: &mut PgConnection,
    tenant: TenantId,
    id: OidcProviderId,
    new: &Settings,
    secret: Option<Sealed>,
) -> Result<(), Error> {
    sqlx::query!(
        "update oidc_providers
         set name = $3, display_name = $4, enabled = $5, provider_url = $6, client_id = $7,
             client_secret = coalesce($8, client_secret), redirect_uri = $9, scopes = $10, username_claim = $11,
             email_claim = $12, groups_claim = $13, group_mapping = $14, default_role = $15, updated_at = now()
         where tenant_id = $1 and id = $2",
        tenant.0,
        id.0,
        new.name,
        new.display_name,
        new.enabled,
        new.provider_url,
        new.client_id,
        secret as _,
        new.redirect_uri,
        &new.scopes,
        new.username_claim,
        new.email_claim,
        new.groups_claim,
        Json(&new.group_mapping) as _,
        new.default_role.as_str(),
    )
    .execute(conn)
    .await
    .map_err(taken)?;
    Ok(())
}

fn taken(error: sqlx::Error) -> Error {
    match error.as_database_error().and_then(|error| error.constraint()) {
        Some("oidc_providers_name") => Error::NameTaken,
        _ => Error::Db(error),
    }
}

pub(super) async fn delete(
    conn: &mut PgConnection,
    tenant: TenantId,
    id: OidcProviderId,
) -> sqlx::Result<()> {
    sqlx::query!("delete from oidc_providers where tenant_id = $1 and id = $2", tenant.0, id.0)
        .execute(conn)
        .await?;
    Ok(())
}

// On the way -----------------------------------------------------------------------------------------

/// What is noted of a browser that is sent to a provider.
#[derive(Clone, Debug)]
pub(super) struct Noted {
    pub provider: String,
    pub provider_url: String,
    pub return_to: String,
    /// Whoever is in and links.
    pub linking: Option<(TenantId, SignInId)>,
}

pub(super) async fn insert_state(
    conn: &mut PgConnection,
    trip: &Trip,
    noted: &Noted,
    lifetime: Duration,
) -> sqlx::Result<()> {
    let (state, browser) = (trip.state_hash(), trip.browser_hash());
    sqlx::query!(
        "insert into oidc_states (state_hash, browser_hash, provider, provider_url, return_to, tenant_id, sign_in_id,
             expires_at)
         values ($1, $2, $3, $4, $5, $6, $7, queue.now() + make_interval(secs => $8))",
        state.as_slice(),
        browser.as_slice(),
        noted.provider,
        noted.provider_url,
        noted.return_to,
        noted.linking.map(|(tenant, _)| tenant.0),
        noted.linking.map(|(_, sign_in)| sign_in.0),
        lifetime.as_secs_f64(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The delete decides who takes it: of two that come back with one state, the second finds nothing. It
/// is used up for whoever comes in another browser too.
pub(super) async fn take_state(conn: &mut PgConnection, trip: &Trip) -> sqlx::Result<Option<Noted>> {
    let (state, browser) = (trip.state_hash(), trip.browser_hash());
    let taken = sqlx::query!(
        r#"delete from oidc_states where state_hash = $1
           returning provider, provider_url, return_to, tenant_id as "tenant: TenantId",
                     sign_in_id as "sign_in: SignInId", browser_hash = $2 and expires_at > queue.now() as "good!""#,
        state.as_slice(),
        browser.as_slice(),
    )
    .fetch_optional(conn)
    .await?;
    Ok(taken.filter(|taken| taken.good).map(|taken| Noted {
        provider: taken.provider,
        provider_url: taken.provider_url,
        return_to: taken.return_to,
        linking: taken.tenant.zip(taken.sign_in),
    }))
}

/// Forgets browsers that did not come back, so many at most.
pub(super) async fn prune(conn: &mut PgConnection, most: i64) -> sqlx::Result<u64> {
    let gone = sqlx::query!(
        "delete from oidc_states where state_hash in (
             select state_hash from oidc_states where expires_at <= queue.now() order by expires_at limit $1
             for update skip locked)",
        most,
    )
    .execute(conn)
    .await?;
    Ok(gone.rows_affected())
}
