//! Mail: who takes it from us, and whom it is from.

use std::{fmt, net::IpAddr};

use url::Host;

use super::{section::section, value::Value};
use crate::secret::Secret;

section! {
    /// Mail: invitations, links for a new password. See `docs/adding-users.md`.
    "mail" => MailConfig {
        /// The SMTP server that takes our mail.
        host: Option<String> = None, shown "none: mail is written as `.eml` files into the folder `mail` of `server.data_dir`", alias "SMTP_HOST";
        /// Its port.
        port: u16 = 587, alias "SMTP_PORT";
        /// Whom to sign in as, where the server wants that.
        username: Option<String> = None, alias "SMTP_USERNAME" | "SMTP_USER";
        /// The password of `mail.username`.
        password: Option<Secret<String>> = None, alias "SMTP_PASSWORD" | "SMTP_PASS";
        /// Whom mail is from: an address, or `Name <address>`.
        from: Sender = Sender::default(), alias "SMTP_FROM";
        /// Whether mail leaves encrypted: by STARTTLS, on port 465 from the first byte. A server that does not offer it, or whose certificate this machine does not trust, gets none.
        tls: bool = true, alias "SMTP_TLS";
    }
}

impl MailConfig {
    /// Keys with what is wrong with them.
    pub(super) fn conflicts(&self) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        let mut refuse = |key, message: &str| found.push((key, message.to_owned()));
        let host = self.host.as_deref().unwrap_or("localhost");
        if host.parse::<IpAddr>().is_err() && Host::parse(host).is_err() {
            refuse("mail.host", "expected a host name or an address");
        }
        match (&self.username, &self.password) {
            (Some(_), None) => refuse("mail.password", "is missing: mail.username is set"),
            (None, Some(_)) => refuse("mail.username", "is missing: mail.password is set"),
            (Some(_), Some(_)) if !self.tls && !is_this_machine(host) => {
                refuse("mail.tls", "expected true: mail.password would cross the network unencrypted");
            }
            _ => {}
        }
        found
    }
}

fn is_this_machine(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whom mail is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sender {
    pub name: Option<String>,
    pub address: String,
}

impl Default for Sender {
    fn default() -> Self {
        Self { name: None, address: "noreply@streamspace.local".to_owned() }
    }
}

impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name} <{}>", self.address),
            None => f.write_str(&self.address),
        }
    }
}

impl Value for Sender {
    const EXPECTED: &'static str = "an address such as `streamspace@example.org`, or `Name <address>`";

    /// The name may stand in quotes, as mail programs write it.
    fn parse(text: &str) -> Option<Self> {
        let (name, address) = match text.trim().strip_suffix('>') {
            Some(rest) => {
                let (name, address) = rest.split_once('<')?;
                let name = name.trim();
                let name = name.strip_prefix('"').and_then(|name| name.strip_suffix('"')).unwrap_or(name);
                ((!name.is_empty()).then(|| name.to_owned()), address)
            }
            None => (None, text.trim()),
        };
        let (local, domain) = address.split_once('@')?;
        let strange = |c: char| c.is_whitespace() || c.is_control() || "<>@,;:\"".contains(c);
        let good = !local.is_empty()
            && !local.contains(strange)
            && Host::parse(domain).is_ok()
            && name
                .as_ref()
                .is_none_or(|name| !name.contains(|c: char| c.is_control() || "<>\"".contains(c)));
        good.then(|| Self { name, address: address.to_owned() })
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_is_an_address_that_may_have_a_name() {
        let parsed = |text: &str| Sender::parse(text).map(|sender| (sender.name, sender.address));
        let address = || "noreply@example.org".to_owned();
        assert_eq!(parsed(" noreply@example.org "), Some((None, address())));
        assert_eq!(parsed("<noreply@example.org>"), Some((None, address())));
        for named in ["Acme, Söhne <noreply@example.org>", "\"Acme, Söhne\" <noreply@example.org>"] {
            assert_eq!(parsed(named), Some((Some("Acme, Söhne".to_owned()), address())));
        }
        for bad in [
            "",
            "noreply",
            "@example.org",
            "noreply@",
            "a@b@c",
            "a b@c",
            "Acme <noreply@example.org",
            "Acme\r\nBcc: eve@example.org <noreply@example.org>",
            "noreply@example.org\r\nBcc: eve@example.org",
            "noreply@example.org>, <eve@example.org>",
        ] {
            assert_eq!(parsed(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_password_crosses_no_network_unencrypted() {
        let of = |host: &str, tls| MailConfig {
            host: Some(host.to_owned()),
            username: Some("ada".to_owned()),
            password: Some("correct horse".into()),
            tls,
            ..MailConfig::default()
        };
        assert_eq!(of("mail.example.org", false).conflicts()[0].0, "mail.tls");
        for (host, tls) in [("mail.example.org", true), ("localhost", false), ("::1", false)] {
            assert!(of(host, tls).conflicts().is_empty(), "{host}");
        }
        let nobody = MailConfig { username: None, password: None, ..of("mail.example.org", false) };
        assert!(nobody.conflicts().is_empty(), "nothing secret is sent");
    }

    #[test]
    fn what_goes_together_is_asked_for() {
        let unfinished = MailConfig { username: Some("ada".to_owned()), ..MailConfig::default() };
        assert_eq!(unfinished.conflicts()[0].0, "mail.password");
        let nowhere = MailConfig { host: Some("mail server".to_owned()), ..MailConfig::default() };
        assert_eq!(nowhere.conflicts()[0].0, "mail.host");
    }
}
