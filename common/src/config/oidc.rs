//! Identity providers that the operator sets up; tenants set up their own through the API.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use url::Url;

use super::value::Value;
use crate::{actor::Role, ids::TeamId, secret::Secret, web};

/// One, as a table of the list `auth.oidc`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OidcProvider {
    /// Stands in the addresses of its operations: a-z, 0-9 and inner dashes.
    pub name: String,
    /// The name when absent.
    pub display_name: Option<String>,
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Its issuer, below which its discovery document lies.
    pub provider_url: String,
    pub client_id: String,
    pub client_secret: Secret<String>,
    /// From `server.public_url` when absent.
    pub redirect_uri: Option<String>,
    #[serde(default = "scopes")]
    pub scopes: Vec<String>,
    #[serde(default = "username_claim")]
    pub username_claim: String,
    #[serde(default = "email_claim")]
    pub email_claim: String,
    #[serde(default = "groups_claim")]
    pub groups_claim: String,
    #[serde(default)]
    pub group_mapping: Vec<GroupMapping>,
    /// Of whom no group gives another.
    #[serde(default = "default_role")]
    pub default_role: Role,
    /// The slug of the tenant whose people it signs in…
    pub tenant: Option<String>,
    /// …or a claim whose value is looked up in `tenants`.
    pub tenant_claim: Option<String>,
    /// Slugs by that claim's values.
    #[serde(default)]
    pub tenants: BTreeMap<String, String>,
}

/// What being in a group gives: a role in the tenant, or one in a team.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupMapping {
    pub group: String,
    pub role: Option<Role>,
    pub team_id: Option<TeamId>,
    /// `viewer`, `member` or `admin`.
    pub team_role: Option<String>,
}

fn yes() -> bool {
    true
}

/// What is asked for where nothing is said.
pub fn scopes() -> Vec<String> {
    ["openid", "email", "profile"].map(str::to_owned).to_vec()
}

pub fn username_claim() -> String {
    "preferred_username".to_owned()
}

pub fn email_claim() -> String {
    "email".to_owned()
}

pub fn groups_claim() -> String {
    "groups".to_owned()
}

pub fn default_role() -> Role {
    Role::Viewer
}

impl OidcProvider {
    /// The first thing that is wrong with it.
    fn fault(&self) -> Option<String> {
        let is_confidential = |text: &str| Url::parse(text).is_ok_and(|url| web::is_confidential(&url));
        let faults = [
            (!is_name(&self.name), "name: 1 to 63 of a-z, 0-9 and inner dashes, and not `providers`"),
            (
                !is_confidential(&self.provider_url) || self.provider_url.contains('?'),
                "provider_url: expected https://…, without a question mark",
            ),
            (
                self.redirect_uri.as_ref().is_some_and(|uri| !is_confidential(uri)),
                "redirect_uri: expected https://…",
            ),
            (self.client_id.is_empty(), "client_id: is empty"),
            (self.client_secret.expose().is_empty(), "client_secret: is empty"),
            (self.tenant.is_some() == self.tenant_claim.is_some(), "expected either tenant or tenant_claim"),
            (
                self.tenant_claim.is_some() == self.tenants.is_empty(),
                "tenants: belongs to tenant_claim, and names a slug for at least one of its values",
            ),
            (self.default_role > Role::Admin, "default_role: a provider makes nobody an owner"),
        ];
        let of_mapping = self.group_mapping.iter().find_map(GroupMapping::fault);
        faults.into_iter().find_map(|(wrong, fault)| wrong.then_some(fault)).or(of_mapping).map(str::to_owned)
    }
}

impl GroupMapping {
    fn fault(&self) -> Option<&'static str> {
        if self.role.is_some_and(|role| role > Role::Admin) {
            return Some("group_mapping: a provider makes nobody an owner");
        }
        match (&self.role, &self.team_id, self.team_role.as_deref()) {
            (Some(_), None, None) | (None, Some(_), Some("viewer" | "member" | "admin")) => None,
            _ => Some("group_mapping: expected role, or team_id with team_role (viewer, member or admin)"),
        }
    }
}

/// Whether a text can stand in an address where a provider's name does. `providers` stands there too.
pub fn is_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let (first, last) = (text.bytes().next(), text.bytes().last());
    text.len() <= 63
        && text != "providers"
        && first.is_some_and(plain)
        && last.is_some_and(plain)
        && text.bytes().all(|b| plain(b) || b == b'-')
}

/// A list of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OidcProviders(pub Vec<OidcProvider>);

impl OidcProviders {
    /// Of all tenants that people are signed in to.
    pub fn slugs(&self) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .flat_map(|provider| provider.tenant.iter().chain(provider.tenants.values()))
            .map(String::as_str)
    }

    fn read(text: &str) -> Result<Self, String> {
        let mut json = serde_json::Deserializer::from_str(text);
        let providers: Vec<OidcProvider> =
            serde_path_to_error::deserialize(&mut json).map_err(|error| told(&error))?;
        let mut names = BTreeSet::new();
        for (n, provider) in providers.iter().enumerate() {
            if let Some(fault) = provider.fault() {
                return Err(format!("[{n}] {fault}"));
            }
            if !names.insert(&provider.name) {
                return Err(format!("[{n}] name: {:?} is there twice", provider.name));
            }
        }
        Ok(Self(providers))
    }
}

/// serde's messages repeat values, of which one is a secret; of fields that are missing or unknown they
/// repeat the names.
fn told(error: &serde_path_to_error::Error<serde_json::Error>) -> String {
    let (path, message) = (error.path(), error.inner().to_string());
    for what in ["missing field", "unknown field"] {
        if let Some(name) = message.strip_prefix(what).and_then(|rest| rest.split('`').nth(1)) {
            return format!("{path}: {what} `{name}`");
        }
    }
    format!("{path}: is not what is expected there")
}

impl Value for OidcProviders {
    const SECRET: bool = true;
    const IN_FILE_ONLY: bool = true;
    const EXPECTED: &'static str = "a list of tables";

    fn parse(text: &str) -> Option<Self> {
        Self::read(text).ok()
    }

    fn fault(text: &str) -> Option<String> {
        Self::read(text).err()
    }

    /// By their names.
    fn show(&self) -> Option<String> {
        let names: Vec<&str> = self.0.iter().map(|provider| provider.name.as_str()).collect();
        (!names.is_empty()).then(|| names.join(","))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;

    fn provider() -> Json {
        json!({
            "name": "acme", "provider_url": "https://id.acme.example", "client_id": "streamspace",
            "client_secret": "hunter2hunter2", "tenant": "acme",
        })
    }

    fn with(changes: Json) -> Json {
        let mut provider = provider();
        for (name, value) in changes.as_object().expect("an object") {
            provider[name] = value.clone();
        }
        provider
    }

    fn fault(provider: &Json) -> String {
        let fault = OidcProviders::read(&json!([provider]).to_string()).expect_err("refused");
        assert!(!fault.contains("hunter2"), "{fault}");
        fault
    }

    #[test]
    fn what_a_provider_leaves_out_is_usual() {
        let providers = OidcProviders::read(&json!([provider()]).to_string()).expect("good");
        let provider = &providers.0[0];
        assert!(provider.enabled);
        assert_eq!(provider.scopes, ["openid", "email", "profile"]);
        assert_eq!(
            (provider.username_claim.as_str(), provider.email_claim.as_str()),
            ("preferred_username", "email")
        );
        assert_eq!(provider.default_role, Role::Viewer);
        assert_eq!(providers.show().as_deref(), Some("acme"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (changes, named) in [
            (json!({ "prot": 1 }), "[0].prot: unknown field `prot`"),
            (json!({ "scopes": 7 }), "[0].scopes: is not what is expected there"),
            (json!({ "client_secret": ["hunter2"] }), "[0].client_secret: is not what is expected there"),
            (json!({ "default_role": "king" }), "[0].default_role: is not what is expected there"),
            (json!({ "default_role": "owner" }), "[0] default_role: a provider makes nobody an owner"),
            (json!({ "name": "providers" }), "[0] name: "),
            (json!({ "name": "Acme" }), "[0] name: "),
            (json!({ "provider_url": "http://id.acme.example" }), "[0] provider_url: "),
            (json!({ "provider_url": "https://id.acme.example?x" }), "[0] provider_url: "),
            (json!({ "redirect_uri": "http://s.example/x" }), "[0] redirect_uri: "),
            (json!({ "client_secret": "" }), "[0] client_secret: is empty"),
            (json!({ "tenant": null }), "[0] expected either tenant or tenant_claim"),
            (json!({ "tenant_claim": "hd" }), "[0] expected either tenant or tenant_claim"),
            (json!({ "tenant": null, "tenant_claim": "hd" }), "[0] tenants: "),
            (json!({ "tenants": { "a": "b" } }), "[0] tenants: "),
            (json!({ "group_mapping": [{ "group": "a" }] }), "[0] group_mapping: expected role"),
            (
                json!({ "group_mapping": [{ "group": "a", "role": "owner" }] }),
                "[0] group_mapping: a provider",
            ),
            (json!({ "group_mapping": [{ "role": "user" }] }), "[0].group_mapping[0]: missing field `group`"),
        ] {
            let fault = fault(&with(changes.clone()));
            assert!(fault.starts_with(named), "{changes}: {fault}");
        }
        let twice = OidcProviders::read(&json!([provider(), provider()]).to_string());
        assert_eq!(twice, Err("[1] name: \"acme\" is there twice".to_owned()));
        assert_eq!(OidcProviders::parse("acme,other"), None);
    }

    #[test]
    fn a_claim_may_tell_the_tenant() {
        let by_claim =
            with(json!({ "tenant": null, "tenant_claim": "hd", "tenants": { "acme.example": "acme" } }));
        assert!(OidcProviders::read(&json!([by_claim]).to_string()).is_ok());
        let team = json!([{ "group": "a", "team_id": TeamId::new(), "team_role": "member" }]);
        assert!(OidcProviders::read(&json!([with(json!({ "group_mapping": team }))]).to_string()).is_ok());
    }
}
