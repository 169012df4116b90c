//! Whoever comes with an access token or a browser's cookie.

use sqlx::PgConnection;
use streamspace_common::{Actor, Creator, SignInId, TenantId, UserId};
use uuid::Uuid;

use super::model::Kind;
use crate::{
    api_keys::Scopes,
    callers::{Checked, Credential},
    identity::store::role,
    opaque::Hash,
    settings,
};

struct CallerRow {
    id: SignInId,
    tenant_id: TenantId,
    user_id: UserId,
    kind: String,
    role: String,
    platform: bool,
    must_enrol: bool,
}

impl CallerRow {
    fn into_checked(self) -> Checked {
        Checked {
            credential: Credential::SignIn(self.id),
            actor: Actor {
                tenant: self.tenant_id,
                by: Creator::User(self.user_id),
                user: Some(self.user_id),
                key: None,
                role: role(&self.role),
                platform: self.platform,
            },
            scopes: Scopes::all(),
            hourly_limit: None,
            by_cookie: Kind::parse(&self.kind) == Kind::Browser,
            expires_at: None,
            must_enrol: self.must_enrol,
        }
    }
}

/// Sign-ins that may go on, and whose they are: one rule, by whatever they are looked for.
macro_rules! select_callers {
    ($rest:literal, $sought:expr, $mfa:expr) => {
        sqlx::query_as!(
            CallerRow,
            r#"select s.id as "id: SignInId", s.tenant_id as "tenant_id: TenantId", s.user_id as "user_id: UserId",
                      s.kind, u.role, u.platform_admin as platform,
                      (coalesce(s.browser_method, s.method) in ('password', 'invitation', 'registration')
                       and u.totp_enabled_at is null and coalesce(m.value = 'true'::jsonb, $2)) as "must_enrol!"
               from sign_ins s
               join tenants t on t.id = s.tenant_id and t.active
               join users u on u.tenant_id = s.tenant_id and u.id = s.user_id and u.active
               left join settings m on m.tenant_id = s.tenant_id and m.key = $3
               where s.expires_at > queue.now() and "#
                + $rest,
            $sought,
            $mfa,
            settings::MFA_REQUIRED.key,
        )
    };
}

/// Who comes with the cookie of this hash, if they may come now.
pub(crate) async fn by_cookie(
    conn: &mut PgConnection,
    hash: &Hash,
    mfa: bool,
) -> sqlx::Result<Option<Checked>> {
    let row = select_callers!("s.secret_hash = $1 and s.kind = 'browser'", hash.as_slice(), mfa)
        .fetch_optional(conn)
        .await?;
    Ok(row.map(CallerRow::into_checked))
}

/// The same by the sign-in that an access token names.
pub(crate) async fn by_id(conn: &mut PgConnection, id: SignInId, mfa: bool) -> sqlx::Result<Option<Checked>> {
    Ok(by_ids(conn, &[id.0], mfa).await?.pop())
}

/// The same for many: whoever is missing may not come any more.
pub(crate) async fn by_ids(conn: &mut PgConnection, ids: &[Uuid], mfa: bool) -> sqlx::Result<Vec<Checked>> {
    let rows = select_callers!("s.id = any($1)", ids, mfa).fetch_all(conn).await?;
    Ok(rows.into_iter().map(CallerRow::into_checked).collect())
}
