use jiff::Timestamp;
use serde::Serialize;
use streamspace_common::SignInId;
use streamspace_domain::sign_in;
use utoipa::ToSchema;
use uuid::Uuid;

/// One of one's sign-ins.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SignIn {
    pub id: Uuid,
    /// Whether the request came with this one.
    pub current: bool,
    /// `browser` or `tokens`.
    #[schema(example = "browser")]
    pub kind: &'static str,
    /// How it began: `password`, `oidc`, `invitation`, `registration`, `cli`.
    #[schema(example = "password")]
    pub method: &'static str,
    /// As it names itself.
    pub device: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    pub created_at: Timestamp,
    /// To five minutes.
    pub last_used_at: Timestamp,
    /// If nobody uses it until then.
    pub expires_at: Timestamp,
}

impl SignIn {
    pub(crate) fn new(found: sign_in::SignIn, this: Option<SignInId>) -> Self {
        Self {
            id: found.id.0,
            current: this == Some(found.id),
            kind: found.kind.as_str(),
            method: found.method.as_str(),
            device: found.device,
            address: found.address,
            created_at: found.created_at,
            last_used_at: found.last_used_at,
            expires_at: found.expires_at,
        }
    }
}
