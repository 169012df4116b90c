//! Tenants and people, and what their names may look like.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use streamspace_common::{Actor, Creator, Role, TenantId, UserId};

use super::Error;

/// Sets a tenant's allowance and event rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    Free,
    Standard,
    Enterprise,
}

impl Tier {
    pub const ALL: [Self; 3] = [Self::Free, Self::Standard, Self::Enterprise];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Standard => "standard",
            Self::Enterprise => "enterprise",
        }
    }
}

impl From<streamspace_common::config::Tier> for Tier {
    fn from(tier: streamspace_common::config::Tier) -> Self {
        use streamspace_common::config::Tier as Configured;
        match tier {
            Configured::Free => Self::Free,
            Configured::Standard => Self::Standard,
            Configured::Enterprise => Self::Enterprise,
        }
    }
}

impl std::str::FromStr for Tier {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|tier| tier.as_str() == text)
            .ok_or_else(|| format!("no tier {text:?}; there are free, standard, enterprise"))
    }
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tenant {
    pub id: TenantId,
    pub name: String,
    pub slug: String,
    pub contact_email: Option<String>,
    pub tier: Tier,
    pub metadata: Value,
    /// Or suspended.
    pub active: bool,
    /// When it is deleted, unless somebody takes that back before it begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delete_at: Option<Timestamp>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// A person in a tenant.
#[derive(Clone, Debug)]
pub struct User {
    pub id: UserId,
    pub tenant: TenantId,
    pub email: String,
    pub username: String,
    pub name: String,
    pub role: Role,
    pub platform_admin: bool,
    pub active: bool,
    pub email_verified: bool,
    pub mfa_enabled: bool,
    pub last_login_at: Option<Timestamp>,
    /// To five minutes.
    pub last_active_at: Option<Timestamp>,
    pub failed_logins: u32,
    /// In the future, if at all.
    pub locked_until: Option<Timestamp>,
    pub created_at: Timestamp,
}

impl User {
    /// The person, acting.
    pub fn actor(&self) -> Actor {
        Actor {
            tenant: self.tenant,
            by: Creator::User(self.id),
            user: Some(self.id),
            key: None,
            role: self.role,
            platform: self.platform_admin,
        }
    }
}

/// Somebody to be.
#[derive(Clone, Debug)]
pub struct NewUser {
    pub email: String,
    /// From the address when absent.
    pub username: Option<String>,
    pub name: String,
    pub role: Role,
    /// Without it there is no way in until one is set.
    pub password_hash: Option<String>,
}

/// What is to be different about a person; `None`: as it is.
#[derive(Clone, Debug, Default)]
pub struct ChangeUser {
    pub name: Option<String>,
    pub email: Option<String>,
    pub username: Option<String>,
    pub role: Option<Role>,
    pub active: Option<bool>,
    /// Forgives the failures that have closed the account.
    pub unlock: bool,
    /// Takes away a second factor that was lost.
    pub reset_mfa: bool,
}

/// Which people.
#[derive(Clone, Debug, Default)]
pub struct UserFilter {
    pub role: Option<Role>,
    pub active: Option<bool>,
    /// In the name, the username or the address.
    pub q: Option<String>,
}

/// What is to be different about a tenant.
#[derive(Clone, Debug, Default)]
pub struct ChangeTenant {
    pub name: Option<String>,
    pub contact_email: Option<Option<String>>,
    pub metadata: Option<Value>,
}

#[derive(Clone, Debug)]
pub struct NewTenant {
    pub name: String,
    /// From the name when absent.
    pub slug: Option<String>,
    pub contact_email: Option<String>,
    pub tier: Tier,
    pub owner: NewOwner,
}

#[derive(Clone, Debug)]
pub struct NewOwner {
    pub email: String,
    pub name: String,
    pub platform_admin: bool,
    pub password_hash: Option<String>,
    /// Whoever makes the owner knows that the address is theirs.
    pub email_verified: bool,
}

const MAX_SLUG: usize = 63;

/// What a name becomes in an address: `Acme & Söhne` is `acme-s-hne`.
pub(super) fn slug_of(name: &str) -> String {
    let mut slug = String::new();
    for c in name.chars().map(|c| c.to_ascii_lowercase()) {
        if c.is_ascii_alphanumeric() {
            slug.push(c);
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    slug.truncate(MAX_SLUG);
    slug.trim_end_matches('-').to_owned()
}

pub(super) fn check_slug(slug: &str) -> Result<(), Error> {
    let good = (1..=MAX_SLUG).contains(&slug.len())
        && slug.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !slug.starts_with('-')
        && !slug.ends_with('-');
    if good {
        return Ok(());
    }
    let message = format!("{slug:?} is no slug: 1 to 63 of a-z, 0-9 and inner dashes");
    Err(Error::Invalid { field: "/slug", message })
}

pub(super) fn check_text(field: &'static str, text: &str, most: usize) -> Result<(), Error> {
    let length = text.chars().count();
    if text.trim().is_empty() || length > most || text.chars().any(char::is_control) {
        let message = format!("1 to {most} characters, none of them a control character");
        return Err(Error::Invalid { field, message });
    }
    Ok(())
}

/// A mail server decides what an address is; this refuses what none accepts.
pub(crate) fn check_email(field: &'static str, email: &str) -> Result<(), Error> {
    check_text(field, email, 320)?;
    match email.split_once('@') {
        Some((local, domain))
            if !local.is_empty()
                && !domain.is_empty()
                && !domain.contains('@')
                && !email.contains(char::is_whitespace) =>
        {
            Ok(())
        }
        _ => Err(Error::Invalid { field, message: format!("{email:?} is no e-mail address") }),
    }
}

pub(super) const LONGEST_USERNAME: usize = 64;

/// The e-mail's local part, in the letters that a username may have.
pub(super) fn username_of(email: &str) -> String {
    let local = email.split('@').next().unwrap_or(email).to_lowercase();
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '-' };
    let name: String = local.chars().map(plain).take(LONGEST_USERNAME).collect();
    let name = name.trim_matches(['.', '_', '-']);
    if name.is_empty() { "user".to_owned() } else { name.to_owned() }
}

/// It stands in the names and addresses of sessions.
pub(super) fn check_username(username: &str) -> Result<(), Error> {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
    let outer = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = username.as_bytes();
    let good = bytes.len() <= LONGEST_USERNAME
        && bytes.iter().all(|b| inner(*b))
        && outer(bytes.first())
        && outer(bytes.last());
    if good {
        return Ok(());
    }
    let message = "is no username: up to 64 of a-z, 0-9, and inner dots, dashes and underscores".to_owned();
    Err(Error::Invalid { field: "/username", message })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_slugs() {
        assert_eq!(slug_of("  Acme & Söhne!"), "acme-s-hne");
        assert_eq!(slug_of(&"a".repeat(80)).len(), MAX_SLUG);
        assert!(check_slug(&slug_of("Default")).is_ok());
        for bad in ["", "-a", "a-", "A", "a b", "a\0"] {
            assert!(check_slug(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_address_gives_a_username() {
        assert_eq!(username_of("Ada.Lovelace+x@example.org"), "ada.lovelace-x");
        assert_eq!(username_of("_@example.org"), "user");
        assert!(check_username(&username_of(&format!("{}@x", "ä".repeat(99)))).is_ok());
        for bad in ["", "Ada", "-a", "a.", "a b", "a\0", &"a".repeat(65)] {
            assert!(check_username(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_no_mail_server_accepts_is_refused() {
        assert!(check_email("email", "ada@example.org").is_ok());
        for bad in ["", "ada", "@example.org", "ada@", "a@b@c", "a da@example.org", "a\0@b"] {
            assert!(check_email("email", bad).is_err(), "{bad:?}");
        }
    }
}
