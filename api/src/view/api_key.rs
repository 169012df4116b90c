use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use streamspace_common as common;
use streamspace_domain::api_keys::{self, Day, LoggedCall, Owner};
use utoipa::ToSchema;
use uuid::Uuid;

/// A key, without its secret.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApiKey {
    pub id: Uuid,
    pub name: String,
    /// How its secret begins, by which people tell their keys apart.
    #[schema(example = "sk_Jx4aP")]
    pub prefix: String,
    pub owner: KeyOwner,
    /// Of a person's key: whose rights it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<Uuid>,
    /// Of the tenant's keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    #[schema(example = json!(["jobs.read"]))]
    pub scopes: Vec<String>,
    /// Requests an hour.
    pub rate_limit: u32,
    /// Neither revoked nor over.
    pub is_active: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Until when the secret before the last rotation works too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_until: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<Uuid>,
    pub created_at: Timestamp,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum KeyOwner {
    #[default]
    User,
    Tenant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Viewer,
    User,
    Operator,
    Admin,
    Owner,
}

impl From<common::Role> for Role {
    fn from(role: common::Role) -> Self {
        match role {
            common::Role::Viewer => Self::Viewer,
            common::Role::User => Self::User,
            common::Role::Operator => Self::Operator,
            common::Role::Admin => Self::Admin,
            common::Role::Owner => Self::Owner,
        }
    }
}

impl From<Role> for common::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Viewer => Self::Viewer,
            Role::User => Self::User,
            Role::Operator => Self::Operator,
            Role::Admin => Self::Admin,
            Role::Owner => Self::Owner,
        }
    }
}

impl From<api_keys::ApiKey> for ApiKey {
    fn from(key: api_keys::ApiKey) -> Self {
        let (owner, user_id, role) = match key.owner {
            Owner::User(user) => (KeyOwner::User, Some(user.0), None),
            Owner::Tenant(role) => (KeyOwner::Tenant, None, Some(role.into())),
        };
        Self {
            id: key.id.0,
            name: key.name,
            prefix: key.prefix,
            owner,
            user_id,
            role,
            scopes: key.scopes,
            rate_limit: key.hourly_limit,
            is_active: key.is_active,
            expires_at: key.expires_at,
            previous_until: key.previous_until,
            last_used_at: key.last_used_at,
            created_by: key.created_by.map(|user| user.0),
            created_at: key.created_at,
        }
    }
}

/// One request that a key made.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyCall {
    pub id: Uuid,
    pub timestamp: Timestamp,
    pub method: String,
    /// Without the ids.
    #[schema(example = "/api/v1/jobs/{id}")]
    pub route: String,
    pub status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    pub duration_ms: f64,
}

impl From<LoggedCall> for KeyCall {
    fn from(call: LoggedCall) -> Self {
        Self {
            id: call.id,
            timestamp: call.at,
            method: call.method,
            route: call.route,
            status: call.status,
            address: call.address,
            duration_ms: call.duration_us as f64 / 1000.0,
        }
    }
}

/// A day of a key, in UTC.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct KeyDay {
    #[schema(value_type = String, format = Date, example = "2026-11-21")]
    day: jiff::civil::Date,
    calls: u64,
    /// Answered with 400 and more.
    errors: u64,
}

impl From<Day> for KeyDay {
    fn from(day: Day) -> Self {
        Self { day: day.day, calls: day.calls, errors: day.errors }
    }
}
