//! What a provider publishes of itself (OpenID Connect Discovery 1.0), and the address to which a
//! browser is sent with it.

use std::iter;

use serde::Deserialize;
use streamspace_common::web::is_confidential;
use url::Url;

use super::Untrue;

const DOCUMENT: &str = "/.well-known/openid-configuration";

/// A provider's document, as far as it is used, known to be its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovery {
    pub issuer: String,
    pub authorization_endpoint: Url,
    pub token_endpoint: Url,
    pub userinfo_endpoint: Option<Url>,
    pub jwks_uri: Url,
    /// What ID tokens may be signed with.
    pub algorithms: Vec<String>,
    /// The secret of a client goes into the body of the request: the header is not offered.
    pub secret_in_body: bool,
    /// The provider names itself in its answers, so an answer without a name is not its own (RFC 9207).
    pub names_itself: bool,
}

/// What a browser is sent to the provider with.
#[derive(Clone, Copy, Debug)]
pub struct Login<'a> {
    pub client_id: &'a str,
    pub redirect_uri: &'a str,
    pub scopes: &'a [String],
    pub state: &'a str,
    pub nonce: &'a str,
    /// PKCE's, by S256.
    pub challenge: &'a str,
}

#[derive(Deserialize)]
struct Document {
    issuer: String,
    authorization_endpoint: Url,
    token_endpoint: Url,
    userinfo_endpoint: Option<Url>,
    jwks_uri: Url,
    #[serde(default = "default_algorithms")]
    id_token_signing_alg_values_supported: Vec<String>,
    #[serde(default = "default_methods")]
    token_endpoint_auth_methods_supported: Vec<String>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

fn default_algorithms() -> Vec<String> {
    vec!["RS256".to_owned()]
}

fn default_methods() -> Vec<String> {
    vec!["client_secret_basic".to_owned()]
}

impl Discovery {
    /// Reads the document that lies below `provider_url`. Its issuer has to be that URL to the
    /// letter: tokens are compared with it, and whoever runs another place must not speak for this one.
    pub fn read(provider_url: &str, document: &[u8]) -> Result<Self, Untrue> {
        let document: Document = serde_json::from_slice(document).map_err(|_| Untrue::Document)?;
        if document.issuer != provider_url {
            return Err(Untrue::OtherIssuer);
        }
        let endpoints = [&document.authorization_endpoint, &document.token_endpoint, &document.jwks_uri];
        if !endpoints.into_iter().chain(&document.userinfo_endpoint).all(is_confidential) {
            return Err(Untrue::Endpoint);
        }
        let methods = document.token_endpoint_auth_methods_supported;
        let offers = |method: &str| methods.iter().any(|offered| offered == method);
        Ok(Self {
            issuer: document.issuer,
            authorization_endpoint: document.authorization_endpoint,
            token_endpoint: document.token_endpoint,
            userinfo_endpoint: document.userinfo_endpoint,
            jwks_uri: document.jwks_uri,
            algorithms: document.id_token_signing_alg_values_supported,
            secret_in_body: offers("client_secret_post") && !offers("client_secret_basic"),
            names_itself: document.authorization_response_iss_parameter_supported,
        })
    }

    pub fn login(&self, login: &Login<'_>) -> Url {
        // Without this one there is no ID token.
        let others = login.scopes.iter().map(String::as_str).filter(|scope| *scope != "openid");
        let scopes: Vec<&str> = iter::once("openid").chain(others).collect();
        let mut url = self.authorization_endpoint.clone();
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", login.client_id)
            .append_pair("redirect_uri", login.redirect_uri)
            .append_pair("scope", &scopes.join(" "))
            .append_pair("state", login.state)
            .append_pair("nonce", login.nonce)
            .append_pair("code_challenge", login.challenge)
            .append_pair("code_challenge_method", "S256");
        url
    }
}

/// Where a provider's document lies. A slash at the end of the issuer does not count.
pub fn document_url(provider_url: &str) -> Option<Url> {
    Url::parse(&format!("{}{DOCUMENT}", provider_url.strip_suffix('/').unwrap_or(provider_url))).ok()
}

/// Whether a text can be a provider's URL.
pub fn is_provider_url(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| url.query().is_none() && is_confidential(&url))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn document() -> Value {
        json!({
            "issuer": "https://id.example",
            "authorization_endpoint": "https://id.example/auth?flow=1",
            "token_endpoint": "https://id.example/token",
            "jwks_uri": "https://id.example/jwks",
            "claims_supported": ["sub"],
        })
    }

    fn read(document: &Value) -> Result<Discovery, Untrue> {
        Discovery::read("https://id.example", document.to_string().as_bytes())
    }

    fn with(member: &str, value: Value) -> Value {
        let mut changed = document();
        changed[member] = value;
        changed
    }

    #[test]
    fn what_a_document_does_not_say_is_the_standards_default() {
        let read = read(&document()).expect("good");
        assert_eq!(read.algorithms, ["RS256"]);
        assert!(!read.secret_in_body && !read.names_itself);
        assert_eq!(read.userinfo_endpoint, None);
    }

    #[test]
    fn the_secret_goes_into_the_body_where_nothing_else_is_offered() {
        let methods = |methods: Value| read(&with("token_endpoint_auth_methods_supported", methods));
        assert!(methods(json!(["client_secret_post", "private_key_jwt"])).expect("good").secret_in_body);
        assert!(!methods(json!(["client_secret_post", "client_secret_basic"])).expect("good").secret_in_body);
    }

    #[test]
    fn another_issuer_is_not_believed() {
        for other in
            ["https://id.example/", "https://ID.example", "http://id.example", "https://evil.example", ""]
        {
            assert_eq!(read(&with("issuer", json!(other))), Err(Untrue::OtherIssuer), "{other}");
        }
    }

    #[test]
    fn endpoints_that_others_can_listen_to_are_refused() {
        for endpoint in ["authorization_endpoint", "token_endpoint", "jwks_uri", "userinfo_endpoint"] {
            for bad in [
                "http://id.example/x",
                "ftp://id.example/x",
                "https://user:pass@id.example/x",
                "https://id.example/x#y",
                "data:,x",
            ] {
                assert_eq!(read(&with(endpoint, json!(bad))), Err(Untrue::Endpoint), "{endpoint} {bad}");
            }
            assert!(read(&with(endpoint, json!("http://127.0.0.1:9/x"))).is_ok());
            assert_eq!(read(&with(endpoint, json!("not a url"))), Err(Untrue::Document));
        }
        assert_eq!(Discovery::read("https://id.example", b"<html>"), Err(Untrue::Document));
    }

    #[test]
    fn the_document_lies_below_the_issuer() {
        for (issuer, url) in [
            ("https://id.example", "https://id.example/.well-known/openid-configuration"),
            ("https://id.example/", "https://id.example/.well-known/openid-configuration"),
            ("https://id.example/realms/a", "https://id.example/realms/a/.well-known/openid-configuration"),
            ("https://id.example/realms/a/", "https://id.example/realms/a/.well-known/openid-configuration"),
        ] {
            assert_eq!(document_url(issuer).expect("a URL").as_str(), url);
        }
    }

    #[test]
    fn a_provider_url_is_https_or_on_this_machine() {
        for good in [
            "https://id.example",
            "https://id.example:8443/realms/a",
            "http://localhost:8080/realms/a",
            "http://[::1]:9",
        ] {
            assert!(is_provider_url(good), "{good}");
        }
        for bad in [
            "http://id.example",
            "http://localhost.evil.example",
            "https://id.example?x",
            "https://id.example#x",
            "https://u@id.example",
            "id.example",
            "",
            "https://",
        ] {
            assert!(!is_provider_url(bad), "{bad}");
        }
    }

    #[test]
    fn a_browser_is_sent_with_everything_that_binds_the_answer_to_it() {
        let scopes = ["email".to_owned(), "profile".to_owned()];
        let login = Login {
            client_id: "a b",
            redirect_uri: "https://s.example/cb",
            scopes: &scopes,
            state: "S",
            nonce: "N",
            challenge: "C",
        };
        assert_eq!(
            read(&document()).expect("good").login(&login).as_str(),
            "https://id.example/auth?flow=1&response_type=code&client_id=a+b&redirect_uri=https%3A%2F%2Fs.example%2Fcb\
             &scope=openid+email+profile&state=S&nonce=N&code_challenge=C&code_challenge_method=S256"
        );
    }
}
