//! What administrators of a tenant set at run time, by keys that the code knows.
//!
//! A value is read from the database whenever it is needed, so that a change acts at once on every replica;
//! what is decided at each request is kept with whoever makes it, for a second.

mod error;
mod known;
mod store;

use jiff::Timestamp;
use serde_json::{Value, json};
use sqlx::PgConnection;
use streamspace_common::{Actor, Creator, TenantId};
use streamspace_queue::Tx;

pub(crate) use self::known::MFA_REQUIRED;
use self::store::Stored;
pub use self::{
    error::Error,
    known::{Defaults, Form, KNOWN, Known},
};
use crate::{
    audit::{self, Entry},
    identity::{Permission, Require},
};

/// A known key with what holds for it in a tenant.
#[derive(Clone, Debug)]
pub struct Setting {
    pub known: &'static Known,
    pub value: Value,
    pub default: Value,
    /// Whether the tenant says it; else it is the default.
    pub of_tenant: bool,
    pub updated_at: Option<Timestamp>,
    pub updated_by: Option<Creator>,
}

/// All of them, by their keys.
pub async fn list(
    conn: &mut PgConnection,
    actor: &Actor,
    defaults: &Defaults,
) -> Result<Vec<Setting>, Error> {
    actor.require(Permission::SettingsManage)?;
    let mut stored = store::all(conn, actor.tenant).await?;
    Ok(KNOWN.iter().map(|known| setting(known, defaults, stored.remove(known.key))).collect())
}

pub async fn get(
    conn: &mut PgConnection,
    actor: &Actor,
    defaults: &Defaults,
    key: &str,
) -> Result<Setting, Error> {
    actor.require(Permission::SettingsManage)?;
    let known = Known::find(key).ok_or(Error::NoSetting)?;
    Ok(setting(known, defaults, store::get(conn, actor.tenant, key).await?))
}

/// Sets a value, or with null returns to the default.
pub async fn set(tx: &mut Tx, defaults: &Defaults, key: &str, value: Value) -> Result<Setting, Error> {
    tx.require(Permission::SettingsManage)?;
    let known = Known::find(key).ok_or(Error::NoSetting)?;
    let value = (!value.is_null()).then_some(value);
    if let Some(value) = &value {
        known.form.check(value).map_err(Error::Invalid)?;
    }
    let actor = tx.actor().clone();
    let conn = tx.conn().await?;
    let before = store::lock(conn, actor.tenant, known.key).await?;
    if before.value == value {
        return Ok(setting(known, defaults, Some(before)));
    }
    let by = actor.user.map_or(actor.by, Creator::User);
    let after = store::set(conn, actor.tenant, known.key, value, by).await?;
    let (before, after) = (setting(known, defaults, Some(before)), setting(known, defaults, Some(after)));
    let changed = Entry::new("settings.update", "setting", known.key)
        .before(json!({ "value": before.value, "source": before.source() }))
        .after(json!({ "value": after.value, "source": after.source() }));
    audit::record(tx, changed).await?;
    Ok(after)
}

/// Deletes the settings of a tenant that goes: there are as many as are known. Answers how many.
pub(crate) async fn erase(conn: &mut PgConnection, tenant: TenantId) -> sqlx::Result<u64> {
    store::erase(conn, tenant).await
}

impl Setting {
    /// As the API spells it.
    pub fn source(&self) -> &'static str {
        if self.of_tenant { "tenant" } else { "default" }
    }
}

fn setting(known: &'static Known, defaults: &Defaults, stored: Option<Stored>) -> Setting {
    let default = known.default(defaults);
    let stored = stored.unwrap_or_default();
    // Of a form that it had in another release, a value says nothing.
    let said = stored.value.filter(|value| known.form.check(value).is_ok());
    Setting {
        known,
        of_tenant: said.is_some(),
        value: said.unwrap_or_else(|| default.clone()),
        default,
        updated_at: stored.updated_at,
        updated_by: stored.updated_by,
    }
}
