use jiff::{Timestamp, civil::Date};
use serde::Serialize;
use streamspace_common::{ApiKeyId, Role, TenantId, UserId};
use uuid::Uuid;

/// Whose rights a key has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Owner {
    User(UserId),
    /// At most `admin`.
    Tenant(Role),
}

#[derive(Clone, Debug)]
pub struct NewApiKey {
    pub name: String,
    pub owner: Owner,
    pub scopes: Vec<String>,
    /// Requests an hour.
    pub hourly_limit: u32,
    pub expires_at: Option<Timestamp>,
}

#[derive(Clone, Debug)]
pub struct ApiKey {
    pub id: ApiKeyId,
    pub tenant_id: TenantId,
    pub name: String,
    /// By which people tell their keys apart.
    pub prefix: String,
    pub owner: Owner,
    pub scopes: Vec<String>,
    pub hourly_limit: u32,
    /// Neither revoked nor over.
    pub is_active: bool,
    pub expires_at: Option<Timestamp>,
    /// Until when the secret before the last rotation works too.
    pub previous_until: Option<Timestamp>,
    pub last_used_at: Option<Timestamp>,
    pub created_by: Option<UserId>,
    pub created_at: Timestamp,
}

/// Which keys of those that one may see.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter {
    /// Keys of the tenant, or of people.
    pub of_tenant: Option<bool>,
    pub user: Option<UserId>,
    pub active: Option<bool>,
}

/// One request that a key made.
#[derive(Clone, Debug)]
pub struct Call {
    pub id: Uuid,
    pub at: Timestamp,
    pub tenant: TenantId,
    pub key: ApiKeyId,
    pub method: &'static str,
    /// As the API writes it, without the ids.
    pub route: &'static str,
    pub status: u16,
    pub address: Option<String>,
    pub duration_us: i64,
}

/// The same, read.
#[derive(Clone, Debug)]
pub struct LoggedCall {
    pub id: Uuid,
    pub at: Timestamp,
    pub method: String,
    pub route: String,
    pub status: u16,
    pub address: Option<String>,
    pub duration_us: i64,
}

/// A day of a key, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Day {
    pub day: Date,
    pub calls: u64,
    /// Answered with 400 and more.
    pub errors: u64,
}
