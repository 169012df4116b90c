use sqlx::PgConnection;
use streamspace_common::{Actor, ApiKeyId, Creator, Role, TenantId, UserId};
use streamspace_queue::Tx;

use super::{ApiKey, Error, Owner, Scopes, check::Checked, secret::Hash};
use crate::identity::store::role;

pub(super) async fn insert(tx: &mut Tx, key: &ApiKey, owner: Owner, hash: &Hash) -> Result<(), Error> {
    let created_by = tx.actor().user.map(|user| user.0);
    let (user, role) = match owner {
        Owner::User(user) => (Some(user.0), None),
        Owner::Tenant(role) => (None, Some(role.as_str())),
    };
    sqlx::query!(
        "insert into api_keys (id, tenant_id, user_id, role, name, prefix, secret_hash, scopes,
                               hourly_limit, expires_at, created_by)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        key.id.0,
        key.tenant_id.0,
        user,
        role,
        key.name,
        key.prefix,
        hash.as_slice(),
        &key.scopes,
        key.hourly_limit.cast_signed(),
        key.expires_at.map(jiff_sqlx::Timestamp::from) as _,
        created_by,
    )
    .execute(tx.conn().await?)
    .await
    .map_err(|error| match error.as_database_error().and_then(|error| error.constraint()) {
        Some("api_keys_user" | "api_keys_tenant_id_fkey") => Error::NoUser,
        _ => Error::Db(error),
    })?;
    Ok(())
}

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
        let hourly_limit = self.hourly_limit.unsigned_abs();
        Checked { key: self.id, actor, scopes: Scopes::new(self.scopes), hourly_limit }
    }
}

/// Who comes with the key of this hash, if they may come now.
pub(super) async fn by_hash(conn: &mut PgConnection, hash: &Hash) -> sqlx::Result<Option<Checked>> {
    let row = sqlx::query_as!(
        Row,
        r#"select k.id as "id: ApiKeyId", k.tenant_id as "tenant_id: TenantId", k.user_id as "user_id: UserId",
                  coalesce(u.role, k.role) as "role!", coalesce(u.platform_admin, false) as "platform!",
                  k.scopes, k.hourly_limit
           from api_keys k
           join tenants t on t.id = k.tenant_id and t.active
           left join users u on u.tenant_id = k.tenant_id and u.id = k.user_id
           where k.secret_hash = $1 and k.active and (k.expires_at is null or k.expires_at > queue.now())
             and (k.user_id is null or u.active)"#,
        hash.as_slice(),
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(Row::into_checked))
}

/// The same for many by id: whoever is missing may not come any more.
pub(super) async fn by_ids(conn: &mut PgConnection, keys: &[uuid::Uuid]) -> sqlx::Result<Vec<Checked>> {
    let rows = sqlx::query_as!(
        Row,
        r#"select k.id as "id: ApiKeyId", k.tenant_id as "tenant_id: TenantId", k.user_id as "user_id: UserId",
                  coalesce(u.role, k.role) as "role!", coalesce(u.platform_admin, false) as "platform!",
                  k.scopes, k.hourly_limit
           from api_keys k
           join tenants t on t.id = k.tenant_id and t.active
           left join users u on u.tenant_id = k.tenant_id and u.id = k.user_id
           where k.id = any($1) and k.active and (k.expires_at is null or k.expires_at > queue.now())
             and (k.user_id is null or u.active)"#,
        keys,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(Row::into_checked).collect())
}

/// What a key of the tenant itself may do now; `None` when it may nothing any more.
pub(super) async fn of_tenant(
    conn: &mut PgConnection,
    tenant: TenantId,
    key: ApiKeyId,
) -> sqlx::Result<Option<Role>> {
    let found = sqlx::query_scalar!(
        r#"select k.role as "role!" from api_keys k join tenants t on t.id = k.tenant_id and t.active
           where k.tenant_id = $1 and k.id = $2 and k.user_id is null and k.active
             and (k.expires_at is null or k.expires_at > queue.now())"#,
        tenant.0,
        key.0,
    )
    .fetch_optional(conn)
    .await?;
    Ok(found.map(|found| role(&found)))
}

/// In order, so that two processes that write the same keys do not wait for each other in a circle.
pub(super) async fn touch(conn: &mut PgConnection, keys: &[uuid::Uuid]) -> sqlx::Result<()> {
    sqlx::query!(
        "update api_keys set last_used_at = queue.now()
         where id in (select id from api_keys where id = any($1) order by id for update skip locked)",
        keys,
    )
    .execute(conn)
    .await?;
    Ok(())
}
