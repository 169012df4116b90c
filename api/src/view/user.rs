use jiff::Timestamp;
use serde::Serialize;
use streamspace_domain::identity;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Role;

/// A person in a tenant, as administrators see them and they themselves.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct User {
    pub id: Uuid,
    pub email: String,
    /// Whether the address was shown to be theirs.
    pub email_verified: bool,
    pub username: String,
    pub name: String,
    pub role: Role,
    /// Sees and changes the installation as a whole.
    pub platform_admin: bool,
    pub active: bool,
    pub mfa_enabled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_login: Option<Timestamp>,
    /// To five minutes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_active_at: Option<Timestamp>,
    /// Since the last sign-in.
    pub failed_login_count: u32,
    /// Until then failures have closed the account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locked_until: Option<Timestamp>,
    pub created_at: Timestamp,
}

impl From<identity::User> for User {
    fn from(user: identity::User) -> Self {
        Self {
            id: user.id.0,
            email: user.email,
            email_verified: user.email_verified,
            username: user.username,
            name: user.name,
            role: user.role.into(),
            platform_admin: user.platform_admin,
            active: user.active,
            mfa_enabled: user.mfa_enabled,
            last_login: user.last_login_at,
            last_active_at: user.last_active_at,
            failed_login_count: user.failed_logins,
            locked_until: user.locked_until,
            created_at: user.created_at,
        }
    }
}
