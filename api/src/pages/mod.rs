//! The two pages that are there before the web UI: for who signs a program in by their browser.
//!
//! Each holds all that it needs, and the policy beside it lets the browser run and fetch nothing else:
//! neither what somebody might smuggle into a page, nor anything from elsewhere.

use std::sync::LazyLock;

use axum::response::{Html, IntoResponse, Response};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use sha2::{Digest, Sha256};
use streamspace_common::Secret;
use streamspace_domain::identity::{Tenant, User};
use url::Url;

use crate::problem::ApiError;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// What a browser may do for these pages.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = |text: &str| STANDARD.encode(Sha256::digest(text.as_bytes()));
    let policy = format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash(SCRIPT),
        hash(STYLE),
    );
    HeaderValue::from_str(&policy).expect("hashes are ASCII")
});

/// Whether somebody looks at the answer who can sign in and come again: a browser that goes to an
/// address, and nobody that it knows.
pub(crate) fn helps(headers: &HeaderMap, refused: &ApiError) -> bool {
    let accepted = headers.get(header::ACCEPT).and_then(|accepted| accepted.to_str().ok());
    let is_page = accepted.is_some_and(|accepted| accepted.contains("text/html"));
    is_page && refused.problem().status == StatusCode::UNAUTHORIZED
}

/// Asks who it is; then the same address is loaded again.
pub(crate) fn sign_in() -> Response {
    page("Sign in", include_str!("sign_in.html"))
}

/// Whom a question is put to, and what about.
pub(crate) struct Consent<'a> {
    pub user: &'a User,
    pub tenant: &'a Tenant,
    /// Where the program waits.
    pub program: &'a Url,
    pub allow: &'a Secret<String>,
    pub refuse: &'a Url,
}

/// Asks whether a program may act as whoever is signed in.
pub(crate) fn consent(consent: &Consent<'_>) -> Response {
    let authority = consent.program.authority();
    let body = format!(
        include_str!("consent.html"),
        name = escape(&consent.user.name),
        email = escape(&consent.user.email),
        tenant = escape(&consent.tenant.name),
        program = escape(authority),
        allow = escape(consent.allow.expose()),
        refuse = escape(consent.refuse.as_str()),
    );
    page("Allow the command line", &body)
}

fn page(title: &str, body: &str) -> Response {
    let html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title} – StreamSpace</title>\n\
         <style>{STYLE}</style>\n<main>\n{body}</main>\n<script>{SCRIPT}</script>\n</html>\n",
    );
    ([(header::CONTENT_SECURITY_POLICY, POLICY.clone())], Html(html)).into_response()
}

/// As text, and as the value of an attribute.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_text_and_no_markup() {
        assert_eq!(escape(r#"<b a="x" b='y'>&"#), "&lt;b a=&quot;x&quot; b=&#39;y&#39;&gt;&amp;");
    }

    #[test]
    fn a_page_helps_browsers_that_nobody_is_signed_in_at() {
        let of = |accept: &str| {
            let accept = HeaderValue::from_str(accept).expect("a header");
            HeaderMap::from_iter([(header::ACCEPT, accept)])
        };
        let nobody = ApiError::unauthenticated("sign in");
        assert!(helps(&of("text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"), &nobody));
        assert!(!helps(&of("*/*"), &nobody), "a program");
        assert!(!helps(&HeaderMap::new(), &nobody));
        assert!(!helps(&of("text/html"), &ApiError::unavailable("the database is away")));
    }
}
