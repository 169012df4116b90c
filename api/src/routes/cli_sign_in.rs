//! A program signs in by the browser of its person.

use std::net::{Ipv4Addr, Ipv6Addr};

use axum::{
    extract::State,
    response::{IntoResponse, Redirect, Response},
};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use streamspace_common::{Secret, SignInId};
use streamspace_domain::{
    identity,
    sign_in::{
        Kind,
        cli::{self, Challenge, Wanted},
    },
};
use url::{Host, Url, form_urlencoded};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::auth::{Context, SignedIn, signed_in};
use crate::{
    browser,
    caller::Caller,
    extract::{ApiTx, Faults, Query, Valid, Validate},
    pages::{self, Consent},
    problem::ApiError,
    state::Api,
};

pub fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(authorize)).routes(routes!(token))
}

const LONGEST_ADDRESS: usize = 200;
const LONGEST_STATE: usize = 200;
const LONGEST_SECRET: usize = 200;

/// Where a program of the browser's own machine waits. It names its port, and nothing that an answer
/// would have to be mixed with.
fn loopback(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok().filter(|_| text.len() <= LONGEST_ADDRESS)?;
    let is_here = match url.host()? {
        Host::Ipv4(address) => address == Ipv4Addr::LOCALHOST,
        Host::Ipv6(address) => address == Ipv6Addr::LOCALHOST,
        Host::Domain(name) => name == "localhost",
    };
    let is_plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    (url.scheme() == "http" && is_here && url.port().is_some_and(|port| port > 0) && is_plain).then_some(url)
}

const NO_LOOPBACK: &str = "must be http://127.0.0.1, http://[::1] or http://localhost with a port: a program on the browser's machine";

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct AuthorizeQuery {
    /// Where the program waits for the code: a port of the machine that the browser runs on.
    #[param(example = "http://127.0.0.1:41234/callback", max_length = 200)]
    redirect_uri: String,
    /// The program's own, told back to it.
    #[param(max_length = 200)]
    state: String,
    /// RFC 7636: of the verifier that the program shows with the code.
    #[param(example = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM", min_length = 43, max_length = 43)]
    code_challenge: String,
    #[param(example = "S256")]
    code_challenge_method: String,
    /// The person's yes. The page that asks for it knows it.
    #[param(value_type = Option<String>, max_length = 200)]
    confirm: Option<Secret<String>>,
}

impl Validate for AuthorizeQuery {
    fn validate(&self, faults: &mut Faults) {
        if loopback(&self.redirect_uri).is_none() {
            faults.add("redirect_uri", NO_LOOPBACK);
        }
        faults.text("state", &self.state, LONGEST_STATE);
        if Challenge::parse(&self.code_challenge).is_none() {
            faults.add("code_challenge", "must be the SHA-256 of a verifier, in URL-safe base64");
        }
        if self.code_challenge_method != "S256" {
            faults.add("code_challenge_method", "must be S256");
        }
        if self.confirm.as_ref().is_some_and(|confirm| confirm.expose().len() > LONGEST_SECRET) {
            faults.add("confirm", "nothing to confirm by is this long");
        }
    }
}

impl AuthorizeQuery {
    fn program(&self) -> Result<Url, ApiError> {
        loopback(&self.redirect_uri).ok_or_else(|| ApiError::invalid_field("redirect_uri", NO_LOOPBACK))
    }

    fn wanted(&self, program: &Url) -> Result<Wanted, ApiError> {
        let challenge = Challenge::parse(&self.code_challenge)
            .ok_or_else(|| ApiError::invalid_field("code_challenge", "is none"))?;
        Ok(Wanted { redirect_uri: program.as_str().to_owned(), challenge })
    }

    /// This address again, with the person's yes; relative, so that it is right behind any proxy.
    fn confirmed(&self, yes: &Secret<String>) -> Secret<String> {
        let query = form_urlencoded::Serializer::for_suffix("?".to_owned(), 1)
            .append_pair("redirect_uri", &self.redirect_uri)
            .append_pair("state", &self.state)
            .append_pair("code_challenge", &self.code_challenge)
            .append_pair("code_challenge_method", &self.code_challenge_method)
            .append_pair("confirm", yes.expose())
            .finish();
        Secret::new(query)
    }

    fn answer(&self, program: &Url, name: &str, value: &str) -> Url {
        let mut answer = program.clone();
        answer.query_pairs_mut().append_pair(name, value).append_pair("state", &self.state);
        answer
    }
}

/// The sign-in of a browser. A key or a token would come by more than it has: what is made here is a
/// sign-in of its own, with everything that the person may.
fn of_browser(caller: &Caller) -> Result<SignInId, ApiError> {
    let checked = caller.checked();
    checked.sign_in().filter(|_| checked.by_cookie).ok_or_else(|| {
        ApiError::forbidden("a program is let in by who is signed in at a browser, not by a key or a token")
    })
}

/// Lets a program sign in: `streamspace login` sends a browser here
///
/// A browser that nobody is signed in at gets a page to sign in, then a page that asks whether the
/// program may act as whoever is signed in. Their yes sends the browser to `redirect_uri` with a `code`,
/// good once and for a minute, and the `state`; their no sends it there with `error=access_denied`.
#[utoipa::path(
    get, path = "/api/v1/auth/cli/authorize", tag = "auth", params(AuthorizeQuery),
    responses(
        (status = 200, description = "A page for a person", body = String, content_type = "text/html"),
        (status = 303, description = "To the program, with the code", headers(("Location" = String))),
    )
)]
async fn authorize(
    caller: Caller,
    mut tx: ApiTx,
    headers: HeaderMap,
    Query(query): Query<AuthorizeQuery>,
) -> Result<Response, ApiError> {
    let sign_in = of_browser(&caller)?;
    let program = query.program()?;
    let wanted = query.wanted(&program)?;
    if let Some(yes) = query.confirm.as_ref().filter(|_| browser::is_own_page(&headers))
        && let Some(code) = cli::allow(&mut tx, sign_in, &wanted, yes).await?
    {
        let answer = query.answer(&program, "code", code.expose());
        return tx.commit(Redirect::to(answer.as_str())).await;
    }
    // Without a yes, and when it was used, came too late or is another's, the person is asked, and told
    // so by nothing else: going back in the browser leads here too.
    let yes = cli::ask(&mut tx, sign_in, &wanted).await?;
    let actor = caller.actor();
    let conn = tx.conn().await?;
    let user = identity::profile(conn, actor).await?;
    let tenant = identity::tenant_profile(conn, actor).await?;
    let page = pages::consent(&Consent {
        user: &user,
        tenant: &tenant,
        program: &program,
        allow: &query.confirmed(&yes),
        refuse: &query.answer(&program, "error", "access_denied"),
    });
    tx.commit(page).await
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct CliTokenBody {
    #[schema(value_type = String, max_length = 200, example = "cc_…")]
    code: Secret<String>,
    /// What `code_challenge` is the hash of.
    #[schema(value_type = String, min_length = 43, max_length = 128)]
    code_verifier: Secret<String>,
    /// As it was when the code was asked for.
    #[schema(max_length = 200, example = "http://127.0.0.1:41234/callback")]
    redirect_uri: String,
}

impl Validate for CliTokenBody {
    fn validate(&self, faults: &mut Faults) {
        if self.code.expose().len() > LONGEST_SECRET {
            faults.add("/code", "no code is this long");
        }
        let verifier = self.code_verifier.expose();
        let is_letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '~');
        if !(43..=128).contains(&verifier.len()) || !verifier.chars().all(is_letter) {
            faults.add("/codeVerifier", "has 43 to 128 letters of RFC 7636");
        }
        if loopback(&self.redirect_uri).is_none() {
            faults.add("/redirectUri", NO_LOOPBACK);
        }
    }
}

/// Exchanges the code of `cli/authorize` for tokens
///
/// The code is used up, also by who comes with a wrong verifier or from another address.
#[utoipa::path(post, path = "/api/v1/auth/cli/token", tag = "auth", request_body = CliTokenBody, responses((status = 200, body = SignedIn)))]
async fn token(
    State(api): State<Api>,
    request: Context,
    headers: HeaderMap,
    Valid(body): Valid<CliTokenBody>,
) -> Result<Response, ApiError> {
    let client = api.site.client(&headers)?;
    if client.kind != Kind::Tokens {
        return Err(ApiError::forbidden("a code is exchanged by the program that asked for it"));
    }
    let program =
        loopback(&body.redirect_uri).ok_or_else(|| ApiError::invalid_field("/redirectUri", NO_LOOPBACK))?;
    let welcome =
        api.sign_ins.exchange(&request.0, &body.code, &body.code_verifier, program.as_str(), &client).await?;
    Ok(signed_in(&api, StatusCode::OK, welcome).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_stay_on_the_browsers_machine() {
        for good in [
            "http://127.0.0.1:41234/callback",
            "http://127.0.0.1:41234",
            "http://[::1]:41234/",
            "http://localhost:41234/a/b",
        ] {
            assert!(loopback(good).is_some(), "{good}");
        }
        let long = format!("http://127.0.0.1:41234/{}", "x".repeat(200));
        for bad in [
            "",
            "127.0.0.1:41234",
            "https://127.0.0.1:41234/",
            "http://127.0.0.1/",
            "http://127.0.0.1:80/",
            "http://127.0.0.1:0/",
            "http://evil.example:41234/",
            "http://127.0.0.1.evil.example:41234/",
            "http://localhost.evil.example:41234/",
            "http://127.0.0.1@evil.example:41234/",
            "http://user@127.0.0.1:41234/",
            "http://10.0.0.1:41234/",
            "http://127.0.0.2:41234/",
            "http://0.0.0.0:41234/",
            "http://[::]:41234/",
            "http://127.0.0.1:41234/?code=mine",
            "http://127.0.0.1:41234/#",
            "javascript:alert(1)",
            "file:///etc/passwd",
            &long,
        ] {
            assert!(loopback(bad).is_none(), "{bad}");
        }
        // What a browser would read another way is sent as it was understood here.
        let odd = loopback("http://127.0.0.1:41234\\@evil.example/").expect("a path");
        assert_eq!(odd.as_str(), "http://127.0.0.1:41234/@evil.example/");
    }
}
