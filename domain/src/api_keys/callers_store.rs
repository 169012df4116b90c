//! Whoever comes with a key.

use sqlx::PgConnection;
use streamspace_common::{Actor, ApiKeyId, Creator, Role, TenantId, UserId};
use uuid::Uuid;

use super::Scopes;
use crate::{
    callers::{Checked, Credential},
    identity::store::role,
    opaque::Hash,
};

struct Row {
    id: ApiKeyId,
    tenant_id: TenantId,
    user_id: Option<UserId>,
    role: String,
    platform: bool,
    scopes: Vec<String>,
    hourly_limit: i32,
}

impl Row {
    fn into_checked(self) -> Checked {
        let actor = Actor {
            tenant: self.tenant_id,
            by: Creator::ApiKey(self.id),
            user: self.user_id,
            key: self.user_id.is_none().then_some(self.id),
            role: role(&self.role),
            platform: self.platform,
        };
        Checked {
            credential: Credential::Key(self.id),
            hourly_limit: Some(self.hourly_limit.unsigned_abs()),
            by_cookie: false,
            actor,
            scopes: Scopes::new(self.scopes),
            expires_at: None,
            must_enrol: false,
        }
    }
}

/// Keys that work, and as whom: one rule, by whatever they are looked for.
macro_rules! select_callers {
    ($rest:literal, $sought:expr) => {
        sqlx::query_as!(
            Row,
            r#"select k.id as "id: ApiKeyId", k.tenant_id as "tenant_id: TenantId", k.user_id as "user_id: UserId",
                      coalesce(u.role, k.role) as "role!", coalesce(u.platform_admin, false) as "platform!",
                      k.scopes, k.hourly_limit
               from api_keys k
               join tenants t on t.id = k.tenant_id and t.active
               left join users u on u.tenant_id = k.tenant_id and u.id = k.user_id
               where k.active and (k.expires_at is null or k.expires_at > queue.now())
                 and (k.user_id is null or u.active) and "#
                + $rest,
            $sought,
        )
    };
}

/// Who comes with the key of this hash, if they may come now.
pub(crate) async fn by_hash(conn: &mut PgConnection, hash: &Hash) -> sqlx::Result<Option<Checked>> {
    let row = select_callers!(
        "(k.secret_hash = $1 or k.previous_hash = $1 and k.previous_until > queue.now())",
        hash.as_slice()
    );
    Ok(row.fetch_optional(conn).await?.map(Row::into_checked))
}

/// The same for many by id: whoever is missing may not come any more.
pub(crate) async fn by_ids(conn: &mut PgConnection, keys: &[Uuid]) -> sqlx::Result<Vec<Checked>> {
    let rows = select_callers!("k.id = any($1)", keys).fetch_all(conn).await?;
    Ok(rows.into_iter().map(Row::into_checked).collect())
}

/// A key that somebody came with and is not let in by.
pub(super) struct Refusal {
    pub tenant: TenantId,
    pub key: ApiKeyId,
    pub reason: String,
}

/// `None`: there is no such key, it is good, or it was noted lately.
pub(super) async fn note_refusal(conn: &mut PgConnection, hash: &Hash) -> sqlx::Result<Option<Refusal>> {
    sqlx::query_as!(
        Refusal,
        r#"with refused as (
             select k.tenant_id, k.id,
                    case when not t.active then 'its tenant is suspended'
                         when not u.active then 'its person is disabled'
                         when k.expires_at <= queue.now() then 'it has expired'
                         when not k.active then 'it was revoked'
                         when k.previous_hash = $1 and k.previous_until <= queue.now() then 'it was rotated'
                    end as reason
             from api_keys k
             join tenants t on t.id = k.tenant_id
             left join users u on u.tenant_id = k.tenant_id and u.id = k.user_id
             where (k.secret_hash = $1 or k.previous_hash = $1)
               and (k.refusal_noted_at is null or k.refusal_noted_at <= queue.now() - interval '10 minutes')
             for update of k skip locked)
           update api_keys k set refusal_noted_at = queue.now() from refused r
           where k.tenant_id = r.tenant_id and k.id = r.id and r.reason is not null
           returning k.tenant_id as "tenant: TenantId", k.id as "key: ApiKeyId", r.reason as "reason!""#,
        hash.as_slice(),
    )
    .fetch_optional(conn)
    .await
}

/// What a key of the tenant itself may do now; `None` when it may nothing any more.
pub(super) async fn of_tenant(
    conn: &mut PgConnection,
    tenant: TenantId,
    key: ApiKeyId,
) -> sqlx::Result<Option<(Role, bool)>> {
    let found = sqlx::query!(
        r#"select k.role as "role!", t.active from api_keys k join tenants t on t.id = k.tenant_id
           where k.tenant_id = $1 and k.id = $2 and k.user_id is null and k.active
             and (k.expires_at is null or k.expires_at > queue.now())"#,
        tenant.0,
        key.0,
    )
    .fetch_optional(conn)
    .await?;
    Ok(found.map(|found| (role(&found.role), found.active)))
}
