use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use streamspace_domain::identity;
use utoipa::ToSchema;
use uuid::Uuid;

/// An organisation.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tenant {
    pub id: Uuid,
    pub name: String,
    /// In addresses.
    #[schema(example = "acme")]
    pub slug: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contact_email: Option<String>,
    pub tier: Tier,
    #[schema(value_type = Object)]
    pub metadata: Value,
    pub active: bool,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// Sets a tenant's allowance and event rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    Free,
    Standard,
    Enterprise,
}

impl From<identity::Tenant> for Tenant {
    fn from(tenant: identity::Tenant) -> Self {
        Self {
            id: tenant.id.0,
            name: tenant.name,
            slug: tenant.slug,
            contact_email: tenant.contact_email,
            tier: match tenant.tier {
                identity::Tier::Free => Tier::Free,
                identity::Tier::Standard => Tier::Standard,
                identity::Tier::Enterprise => Tier::Enterprise,
            },
            metadata: tenant.metadata,
            active: tenant.active,
            created_at: tenant.created_at,
            updated_at: tenant.updated_at,
        }
    }
}
