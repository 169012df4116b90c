use jiff::Timestamp;
use sqlx::PgConnection;
use streamspace_common::{TenantId, UserId};
use uuid::Uuid;

use super::model::{Person, Purpose, Whom};
use crate::opaque::Hash;

/// A link that somebody came with.
pub(super) struct Found {
    pub tenant: TenantId,
    pub user: UserId,
    pub expires_at: Timestamp,
    /// It would be taken now.
    pub good: bool,
}

pub(super) async fn find(
    conn: &mut PgConnection,
    hash: &Hash,
    purpose: Purpose,
) -> sqlx::Result<Option<Found>> {
    let row = sqlx::query!(
        r#"select l.tenant_id as "tenant: TenantId", l.user_id as "user: UserId", l.expires_at,
                  (l.used_at is null and l.expires_at > queue.now() and u.active and t.active
                   and lower(u.email collate "C") = lower(l.email collate "C")
                   and (l.purpose <> 'invitation' or u.password_hash is null and u.last_login_at is null)) as "good!"
           from mailed_links l
           join tenants t on t.id = l.tenant_id
           join users u on u.tenant_id = l.tenant_id and u.id = l.user_id
           where l.secret_hash = $1 and l.purpose = $2"#,
        hash.as_slice(),
        purpose.as_str(),
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| Found {
        tenant: row.tenant,
        user: row.user,
        expires_at: row.expires_at.to_jiff(),
        good: row.good,
    }))
}

/// Uses a link, if it is still good: of many who come at once, one does. The person is locked, so that
/// the address stays theirs until the commit.
pub(super) async fn take(conn: &mut PgConnection, hash: &Hash, purpose: Purpose) -> sqlx::Result<bool> {
    let taken = sqlx::query!(
        r#"with person as (
             select u.tenant_id, u.id from mailed_links l
             join tenants t on t.id = l.tenant_id and t.active
             join users u on u.tenant_id = l.tenant_id and u.id = l.user_id
             where l.secret_hash = $1 and l.purpose = $2 and u.active
               and lower(u.email collate "C") = lower(l.email collate "C")
               and (l.purpose <> 'invitation' or u.password_hash is null and u.last_login_at is null)
             for update of u)
         update mailed_links l set used_at = queue.now() from person p
         where l.secret_hash = $1 and l.purpose = $2 and l.tenant_id = p.tenant_id and l.user_id = p.id
           and l.used_at is null and l.expires_at > queue.now()"#,
        hash.as_slice(),
        purpose.as_str(),
    )
    .execute(conn)
    .await?;
    Ok(taken.rows_affected() > 0)
}

/// What lets in: who has chosen a password needs no other link, and who is disabled gets none back.
pub(super) async fn void(conn: &mut PgConnection, tenant: TenantId, user: UserId) -> sqlx::Result<()> {
    sqlx::query!(
        "update mailed_links set used_at = queue.now()
         where tenant_id = $1 and user_id = $2 and purpose in ('reset', 'invitation') and used_at is null",
        tenant.0,
        user.0,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Everybody who may sign in by this address, so many at most, locked until the commit.
pub(super) async fn by_email(
    conn: &mut PgConnection,
    email: &str,
    slug: Option<&str>,
    most: i64,
) -> sqlx::Result<Vec<Whom>> {
    sqlx::query_as!(
        Whom,
        r#"select u.tenant_id as "tenant: TenantId", u.id as "user: UserId", u.email, t.name as tenant_name
           from users u join tenants t on t.id = u.tenant_id
           where lower(u.email) = lower($1) and ($2::text is null or t.slug = $2) and u.active and t.active
           order by u.id limit $3 for update of u"#,
        email,
        slug,
        most,
    )
    .fetch_all(conn)
    .await
}

/// One person, locked until the commit, if they may sign in.
pub(super) async fn by_id(
    conn: &mut PgConnection,
    tenant: TenantId,
    user: UserId,
) -> sqlx::Result<Option<Person>> {
    let row = sqlx::query!(
        r#"select u.email, t.name as tenant_name, u.email_verified_at is not null as "email_verified!",
                  (u.password_hash is null and u.last_login_at is null) as "waits!"
           from users u join tenants t on t.id = u.tenant_id
           where u.tenant_id = $1 and u.id = $2 and u.active and t.active for update of u"#,
        tenant.0,
        user.0,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| Person {
        whom: Whom { tenant, user, email: row.email, tenant_name: row.tenant_name },
        email_verified: row.email_verified,
        waits: row.waits,
    }))
}

/// Of these people, who got so many links of a purpose within the last hour, or whose address got so many of
/// all purposes: as many people as somebody likes may be given one stranger's address.
pub(super) async fn have_enough(
    conn: &mut PgConnection,
    purpose: Purpose,
    people: &[Whom],
    enough: i64,
    enough_for_address: i64,
) -> sqlx::Result<Vec<UserId>> {
    let (tenants, users) = ids(people);
    let emails: Vec<_> = people.iter().map(|whom| whom.email.clone()).collect();
    sqlx::query_scalar!(
        r#"select p.user_id as "user!: UserId"
           from unnest($1::uuid[], $2::uuid[], $5::text[]) as p (tenant_id, user_id, email)
           where (select count(*) from mailed_links l
                  where (l.tenant_id, l.user_id, l.purpose) = (p.tenant_id, p.user_id, $3)
                    and l.created_at > queue.now() - interval '1 hour') >= $4
              or (select count(*) from mailed_links l
                  where lower(l.email) = lower(p.email)
                    and l.created_at > queue.now() - interval '1 hour') >= $6"#,
        &tenants,
        &users,
        purpose.as_str(),
        enough,
        &emails,
        enough_for_address,
    )
    .fetch_all(conn)
    .await
}

/// One link for each of these people.
pub(super) async fn insert(
    conn: &mut PgConnection,
    purpose: Purpose,
    people: &[Whom],
    hashes: &[Hash],
) -> sqlx::Result<()> {
    let (tenants, users) = ids(people);
    let hashes: Vec<Vec<u8>> = hashes.iter().map(|hash| hash.to_vec()).collect();
    let emails: Vec<String> = people.iter().map(|whom| whom.email.clone()).collect();
    sqlx::query!(
        "insert into mailed_links (secret_hash, tenant_id, user_id, email, purpose, created_at, expires_at)
         select p.*, $5, queue.now(), queue.now() + make_interval(secs => $6)
         from unnest($1::bytea[], $2::uuid[], $3::uuid[], $4::text[]) as p",
        &hashes,
        &tenants,
        &users,
        &emails,
        purpose.as_str(),
        purpose.lifetime().as_secs_f64(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub(super) async fn delete(conn: &mut PgConnection, hashes: &[Hash]) -> sqlx::Result<()> {
    let hashes: Vec<Vec<u8>> = hashes.iter().map(|hash| hash.to_vec()).collect();
    sqlx::query!("delete from mailed_links where secret_hash = any($1)", &hashes).execute(conn).await?;
    Ok(())
}

fn ids(people: &[Whom]) -> (Vec<Uuid>, Vec<Uuid>) {
    people.iter().map(|whom| (whom.tenant.0, whom.user.0)).unzip()
}
