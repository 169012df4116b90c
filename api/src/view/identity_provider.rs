use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use streamspace_domain::oidc;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Role, TeamRole};

/// Whom people may sign in through. What stands below `displayName` is told to administrators.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct IdentityProvider {
    /// Stands in the addresses of signing in.
    #[schema(example = "acme")]
    pub name: String,
    #[schema(example = "Acme")]
    pub display_name: String,
    #[serde(flatten)]
    pub settings: Option<IdentityProviderSettings>,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct IdentityProviderSettings {
    /// Absent where the operator's configuration describes it, and so nobody changes it here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Uuid>,
    pub enabled: bool,
    /// The issuer.
    pub provider_url: String,
    pub client_id: String,
    /// Where the provider sends browsers back to: it has to know this address.
    pub redirect_uri: String,
    pub scopes: Vec<String>,
    pub username_claim: String,
    pub email_claim: String,
    pub groups_claim: String,
    pub group_mapping: Vec<GroupMapping>,
    pub default_role: Role,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<Timestamp>,
}

/// What being in a group gives: a role, or one in a team.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct GroupMapping {
    #[schema(min_length = 1, max_length = 500)]
    pub group: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub team_id: Option<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub team_role: Option<TeamRole>,
}

impl IdentityProvider {
    /// As people see it who choose one.
    pub fn named(provider: oidc::Provider) -> Self {
        let oidc::Settings { name, display_name, .. } = provider.settings;
        Self { name, display_name, settings: None }
    }

    /// As administrators see it.
    pub fn whole(provider: oidc::Provider, redirect_uri: String) -> Self {
        let oidc::Provider { id, settings, created_at, updated_at, .. } = provider;
        let whole = IdentityProviderSettings {
            id: id.map(|id| id.0),
            enabled: settings.enabled,
            provider_url: settings.provider_url,
            client_id: settings.client_id,
            redirect_uri,
            scopes: settings.scopes,
            username_claim: settings.username_claim,
            email_claim: settings.email_claim,
            groups_claim: settings.groups_claim,
            group_mapping: settings.group_mapping.into_iter().map(GroupMapping::from).collect(),
            default_role: settings.default_role.into(),
            created_at,
            updated_at,
        };
        Self { name: settings.name, display_name: settings.display_name, settings: Some(whole) }
    }
}

impl From<oidc::GroupMapping> for GroupMapping {
    fn from(mapping: oidc::GroupMapping) -> Self {
        Self {
            group: mapping.group,
            role: mapping.role.map(Into::into),
            team_id: mapping.team_id.map(|team| team.0),
            team_role: mapping.team_role.map(Into::into),
        }
    }
}

impl From<GroupMapping> for oidc::GroupMapping {
    fn from(mapping: GroupMapping) -> Self {
        Self {
            group: mapping.group,
            role: mapping.role.map(Into::into),
            team_id: mapping.team_id.map(Into::into),
            team_role: mapping.team_role.map(Into::into),
        }
    }
}
