//! Providers, as administrators and the operator describe them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use streamspace_common::{OidcProviderId, Role, Sealed, Secret, TeamId, TenantId, config::oidc as config};
use url::Url;

use super::discovery::is_provider_url;
use crate::teams::TeamRole;

/// What somebody says of a provider, but for the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Unique in the installation: it stands in addresses.
    pub name: String,
    pub display_name: String,
    pub enabled: bool,
    /// Its issuer.
    pub provider_url: String,
    pub client_id: String,
    /// `None`: below our public URL.
    pub redirect_uri: Option<String>,
    pub scopes: Vec<String>,
    pub username_claim: String,
    pub email_claim: String,
    pub groups_claim: String,
    pub group_mapping: Vec<GroupMapping>,
    /// Of whom no group gives another.
    pub default_role: Role,
}

/// What being in a group gives: a role in the tenant, or one in a team.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupMapping {
    pub group: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub team_id: Option<TeamId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub team_role: Option<TeamRole>,
}

/// A provider that people can sign in through.
#[derive(Clone, Debug)]
pub struct Provider {
    /// `None`: it stands in the configuration, and is changed there.
    pub id: Option<OidcProviderId>,
    pub whose: Whose,
    pub settings: Settings,
    pub created_at: Option<Timestamp>,
    pub updated_at: Option<Timestamp>,
    pub(super) secret: ClientSecret,
}

/// In which tenant it signs people in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    Tenant(TenantId),
    /// By its slug.
    Named(String),
    /// Slugs by the values of a claim.
    ByClaim {
        claim: String,
        slugs: BTreeMap<String, String>,
    },
}

#[derive(Clone, Debug)]
pub(super) enum ClientSecret {
    Sealed(OidcProviderId, Sealed),
    Open(Secret<String>),
}

/// A field, as a JSON pointer, and what is wrong with it.
pub type Fault = (String, String);

const MOST_SCOPES: usize = 20;
const MOST_GROUPS: usize = 200;
const LONGEST_NAME: usize = 200;
const LONGEST_URL: usize = 2000;
const LONGEST_ID: usize = 500;

impl Settings {
    /// Everything that is wrong with it and can be told without the database.
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut add = |wrong: bool, pointer: &str, detail: &str| {
            if wrong {
                faults.push((pointer.to_owned(), detail.to_owned()));
            }
        };
        add(
            !config::is_name(&self.name),
            "/name",
            "is no name: 1 to 63 of a-z, 0-9 and inner dashes, and not `providers`",
        );
        add(!is_text(&self.display_name, LONGEST_NAME), "/displayName", "has 1 to 200 characters");
        add(
            self.provider_url.len() > LONGEST_URL || !is_provider_url(&self.provider_url),
            "/providerUrl",
            "is no https URL of an issuer; without a question mark, and without /.well-known/…",
        );
        add(!is_text(&self.client_id, LONGEST_ID), "/clientId", "has 1 to 500 characters");
        let back = self.redirect_uri.as_ref();
        add(
            back.is_some_and(|uri| !self.is_callback(uri)),
            "/redirectUri",
            "leads not to https://…/auth/oidc/{name}/callback",
        );
        let scope = |scope: &String| is_text(scope, 100) && !scope.contains([' ', '"', '\\']);
        add(
            self.scopes.len() > MOST_SCOPES || !self.scopes.iter().all(scope),
            "/scopes",
            "are up to 20 words of up to 100 characters",
        );
        for (pointer, claim) in [
            ("/usernameClaim", &self.username_claim),
            ("/emailClaim", &self.email_claim),
            ("/groupsClaim", &self.groups_claim),
        ] {
            add(!is_text(claim, LONGEST_NAME), pointer, "has 1 to 200 characters");
        }
        add(self.default_role > Role::Admin, "/defaultRole", "a provider makes nobody an owner");
        add(self.group_mapping.len() > MOST_GROUPS, "/groupMapping", "has up to 200 entries");
        for (n, mapping) in self.group_mapping.iter().enumerate() {
            let pointer = |field: &str| format!("/groupMapping/{n}{field}");
            add(!is_text(&mapping.group, LONGEST_ID), &pointer("/group"), "has 1 to 500 characters");
            let no_owner = "a provider makes nobody an owner";
            add(mapping.role > Some(Role::Admin), &pointer("/role"), no_owner);
            add(mapping.team_role > Some(TeamRole::Admin), &pointer("/teamRole"), no_owner);
            let gives = (mapping.role.is_some(), mapping.team_id.is_some(), mapping.team_role.is_some());
            add(
                !matches!(gives, (true, false, false) | (false, true, true)),
                &pointer(""),
                "gives either a role, or a teamRole in the team of teamId",
            );
        }
        faults
    }

    /// Whether an address is that of this provider's callback, on whatever host: an installation may be
    /// reached by more names than its public URL has. Which ones those are only the operator says.
    fn is_callback(&self, uri: &str) -> bool {
        let callback = format!("/auth/oidc/{}/callback", self.name);
        uri.len() <= LONGEST_URL
            && Url::parse(uri).is_ok_and(|url| {
                streamspace_common::web::is_confidential(&url)
                    && url.query().is_none()
                    && url.path().ends_with(&callback)
            })
    }

    /// The highest role that it can give.
    pub(super) fn highest_role(&self) -> Role {
        self.group_mapping.iter().filter_map(|mapping| mapping.role).fold(self.default_role, Role::max)
    }

    pub(super) fn teams(&self) -> Vec<TeamId> {
        self.group_mapping.iter().filter_map(|mapping| mapping.team_id).collect()
    }
}

fn is_text(text: &str, most: usize) -> bool {
    !text.trim().is_empty() && text.chars().count() <= most && !text.chars().any(char::is_control)
}

impl From<&config::OidcProvider> for Provider {
    fn from(given: &config::OidcProvider) -> Self {
        let whose = match (&given.tenant, &given.tenant_claim) {
            (None, Some(claim)) => Whose::ByClaim { claim: claim.clone(), slugs: given.tenants.clone() },
            (slug, _) => Whose::Named(slug.clone().unwrap_or_default()),
        };
        let mapping = |mapping: &config::GroupMapping| GroupMapping {
            group: mapping.group.clone(),
            role: mapping.role,
            team_id: mapping.team_id,
            team_role: mapping.team_role.as_ref().and_then(|role| role.parse().ok()),
        };
        let settings = Settings {
            name: given.name.clone(),
            display_name: given.display_name.clone().unwrap_or_else(|| given.name.clone()),
            enabled: given.enabled,
            provider_url: given.provider_url.clone(),
            client_id: given.client_id.clone(),
            redirect_uri: given.redirect_uri.clone(),
            scopes: given.scopes.clone(),
            username_claim: given.username_claim.clone(),
            email_claim: given.email_claim.clone(),
            groups_claim: given.groups_claim.clone(),
            group_mapping: given.group_mapping.iter().map(mapping).collect(),
            default_role: given.default_role,
        };
        let secret = ClientSecret::Open(given.client_secret.clone());
        Self { id: None, whose, settings, created_at: None, updated_at: None, secret }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn settings() -> Settings {
        Settings {
            name: "acme".to_owned(),
            display_name: "Acme".to_owned(),
            enabled: true,
            provider_url: "https://id.acme.example".to_owned(),
            client_id: "streamspace".to_owned(),
            redirect_uri: None,
            scopes: config::scopes(),
            username_claim: config::username_claim(),
            email_claim: config::email_claim(),
            groups_claim: config::groups_claim(),
            group_mapping: vec![],
            default_role: Role::Viewer,
        }
    }

    fn pointers(settings: &Settings) -> Vec<String> {
        settings.faults().into_iter().map(|(pointer, _)| pointer).collect()
    }

    #[test]
    fn what_is_wrong_is_told_all_at_once() {
        assert!(pointers(&settings()).is_empty());
        let wrong = Settings {
            name: "Acme".to_owned(),
            provider_url: "http://id.acme.example".to_owned(),
            client_id: String::new(),
            scopes: vec!["a b".to_owned()],
            default_role: Role::Owner,
            group_mapping: vec![GroupMapping {
                group: "a".to_owned(),
                role: Some(Role::Owner),
                team_id: None,
                team_role: Some(TeamRole::Owner),
            }],
            ..settings()
        };
        assert_eq!(
            pointers(&wrong),
            [
                "/name",
                "/providerUrl",
                "/clientId",
                "/scopes",
                "/defaultRole",
                "/groupMapping/0/role",
                "/groupMapping/0/teamRole",
                "/groupMapping/0"
            ]
        );
    }

    #[test]
    fn whoever_comes_back_comes_to_this_providers_callback() {
        let with = |uri: &str| pointers(&Settings { redirect_uri: Some(uri.to_owned()), ..settings() });
        for good in [
            "https://s.example/api/v1/auth/oidc/acme/callback",
            "http://localhost:1/x/auth/oidc/acme/callback",
        ] {
            assert!(with(good).is_empty(), "{good}");
        }
        for bad in [
            "http://s.example/api/v1/auth/oidc/acme/callback",
            "https://s.example/api/v1/auth/oidc/other/callback",
            "https://s.example/",
            "https://s.example/?/auth/oidc/acme/callback",
            "/api/v1/auth/oidc/acme/callback",
        ] {
            assert_eq!(with(bad), ["/redirectUri"], "{bad}");
        }
    }
}
