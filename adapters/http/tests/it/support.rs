//! The part of a sign-in that the product will do around the port.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use streamspace_common::Secret;
use streamspace_domain::oidc::{
    Age, Claims, Discovery, Expected, Grant, IdentityProviders, Login, Tokens, Unanswered, Untrue, verify,
};
use streamspace_http::{HttpProviders, Outbound};
use streamspace_testkit::{Browser, OidcProvider};

pub const CLIENT: &str = "streamspace";
pub const SECRET: &str = "of: the/client & more";
/// Nobody listens there: the browser stops before it.
pub const BACK: &str = "http://127.0.0.1:9/back";
const VERIFIER: &str = "a-verifier-has-forty-three-to-a-hundred-and-twenty-eight-characters";
/// Its SHA-256.
const CHALLENGE: &str = "cKeMWcHQ8aQ13hQyDmZP1wOz8WjDr3k1mSWKTyyQ1Uo";
const NONCE: &str = "of this sign-in";

pub fn providers() -> HttpProviders {
    patient(Outbound::PATIENCE)
}

pub fn patient(patience: Duration) -> HttpProviders {
    HttpProviders::new(Outbound::new("127.0.0.0/8".parse().unwrap(), patience))
}

pub fn settings() -> Value {
    let client = json!({ "client_id": CLIENT, "client_secret": SECRET, "redirect_uris": [BACK] });
    let ada = json!({
        "email": "ada@example.org", "email_verified": true, "name": "Ada", "preferred_username": "ada",
        "groups": ["engineers"],
    });
    json!({ "clients": [client], "users": { "ada": ada } })
}

pub fn liar(lies: &Value) -> Value {
    let mut settings = json!({ "clientId": CLIENT, "clientSecret": SECRET });
    settings.as_object_mut().unwrap().extend(lies.as_object().unwrap().clone());
    settings
}

/// The code that the provider gives a browser.
pub async fn code(document: &Discovery) -> Secret<String> {
    let scopes = ["openid", "email", "profile", "groups"].map(str::to_owned);
    let login = Login {
        client_id: CLIENT,
        redirect_uri: BACK,
        scopes: &scopes,
        state: "state",
        nonce: NONCE,
        challenge: CHALLENGE,
    };
    let url = format!("{}&login_hint=ada", document.login(&login));
    let page = Browser::of("ada").visit(&url, |next| next.port() == Some(9)).await.unwrap();
    let back = page.location().unwrap_or_else(|| panic!("not sent back: {page:?}"));
    let code = back.query_pairs().find(|(name, _)| name == "code");
    Secret::new(code.unwrap_or_else(|| panic!("no code: {back}")).1.into_owned())
}

pub async fn redeem(
    providers: &HttpProviders,
    document: &Discovery,
    secret: &str,
) -> Result<Tokens, Unanswered> {
    let (code, secret, verifier) = (code(document).await, Secret::from(secret), Secret::from(VERIFIER));
    let grant = Grant {
        client_id: CLIENT,
        client_secret: &secret,
        redirect_uri: BACK,
        code: &code,
        verifier: &verifier,
    };
    providers.redeem(document, &grant).await
}

pub async fn sign_in(
    providers: &HttpProviders,
    provider: &OidcProvider,
    age: Age,
) -> Result<Claims, Unanswered> {
    let document = providers.discover(provider.issuer()).await?;
    let tokens = redeem(providers, &document, SECRET).await?;
    let keys = providers.keys(&document, age).await?;
    let expected = Expected {
        provider: &document,
        client_id: CLIENT,
        nonce: NONCE,
        access_token: tokens.access_token.expose(),
        now: Timestamp::now(),
    };
    let claims = verify(tokens.id_token.expose(), &keys, &expected)?;
    let Some(info) = providers.user_info(&document, &tokens.access_token).await? else {
        return Ok(claims);
    };
    if info.subject() != claims.subject() {
        return Err(Untrue::OtherSubject.into());
    }
    Ok(claims.completed_by(info))
}
