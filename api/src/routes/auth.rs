//! Signing in and out, and one's own password and sign-ins.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use streamspace_admin::Health;
use streamspace_common::{Secret, SignInId};
use streamspace_domain::sign_in::{self, Challenge, Error, LoggedIn, Login, Pass, Welcome};
use streamspace_queue::Request;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::Paging;
use crate::{
    browser,
    caller::Caller,
    extract::{ApiTx, Faults, Id, Query, Valid, Validate},
    page::{Linked, List, Page},
    problem::{ApiError, FieldError},
    state::Api,
    view::{SignIn, Tenant, User},
};

pub fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(login))
        .routes(routes!(refresh))
        .routes(routes!(logout))
        .routes(routes!(change_password))
        .routes(routes!(list_sign_ins))
        .routes(routes!(end_sign_in))
        .routes(routes!(jwks))
        .routes(routes!(auth_health))
}

/// Longer ones nobody has; what comes in is hashed.
const LONGEST_PASSWORD: usize = 1024;
const LONGEST_EMAIL: usize = 320;
const LONGEST_TOKEN: usize = 4096;

/// A password that somebody shows. Whether it is good is not looked at: it may be an old one.
pub(crate) fn check_shown(faults: &mut Faults, pointer: &str, password: &Secret<String>) {
    let length = password.expose().chars().count();
    if !(1..=LONGEST_PASSWORD).contains(&length) {
        faults.add(pointer, format!("has 1 to {LONGEST_PASSWORD} characters"));
    }
}

/// A password that somebody chooses, and repeats.
pub(crate) fn check_chosen(faults: &mut Faults, password: &Secret<String>, again: &Secret<String>) {
    if let Some(fault) = sign_in::policy::fault(password.expose(), &[]) {
        faults.add("/password", fault);
    }
    if password.expose() != again.expose() {
        faults.add("/passwordConfirmation", "is not the same as the password");
    }
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct LoginBody {
    #[schema(max_length = 320, example = "ada@example.org")]
    email: String,
    #[schema(value_type = String, format = Password, max_length = 1024)]
    password: Secret<String>,
    /// The slug; needed only by who has one address and password in several.
    #[schema(max_length = 63)]
    tenant: Option<String>,
}

impl Validate for LoginBody {
    fn validate(&self, faults: &mut Faults) {
        faults.text("/email", &self.email, LONGEST_EMAIL);
        check_shown(faults, "/password", &self.password);
        if let Some(tenant) = &self.tenant {
            faults.text("/tenant", tenant, 63);
        }
    }
}

/// Who is in. A browser's own page gets a cookie instead of tokens.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SignedIn {
    #[serde(skip_serializing_if = "Option::is_none")]
    access_token: Option<String>,
    /// Good once: it is exchanged for the next.
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "Bearer")]
    token_type: Option<&'static str>,
    /// Seconds: of the access token, or of a sign-in that nobody uses.
    #[schema(example = 1800)]
    expires_in: u64,
    user: User,
    tenant: Tenant,
}

/// The password was right; `login/mfa` takes what is missing.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MfaRequired {
    #[schema(example = true)]
    mfa_required: bool,
    challenge: String,
    /// Seconds.
    #[schema(example = 300)]
    expires_in: u64,
}

impl From<Challenge> for MfaRequired {
    fn from(challenge: Challenge) -> Self {
        Self {
            mfa_required: true,
            challenge: challenge.secret.expose().clone(),
            expires_in: challenge.expires_in.as_secs(),
        }
    }
}

#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes the two answers")]
enum LoginAnswer {
    SignedIn(Box<SignedIn>),
    MfaRequired(MfaRequired),
}

impl SignedIn {
    /// With a browser's cookie, to be [`remembered`].
    pub(crate) fn new(api: &Api, welcome: Welcome) -> (Self, Option<HeaderValue>) {
        let Welcome { user, tenant, pass } = welcome;
        let (tokens, cookie) = match pass {
            Pass::Tokens { access, refresh } => (Some((access, refresh)), None),
            Pass::Cookie(secret) => (None, Some(browser::remember(&secret))),
        };
        let lifetime =
            if tokens.is_some() { api.sign_ins.tokens().lifetime() } else { api.sign_ins.lifetime() };
        let signed_in = Self {
            token_type: tokens.is_some().then_some("Bearer"),
            access_token: tokens.as_ref().map(|(access, _)| access.expose().clone()),
            refresh_token: tokens.as_ref().map(|(_, refresh)| refresh.expose().clone()),
            expires_in: lifetime.as_secs(),
            user: user.into(),
            tenant: tenant.into(),
        };
        (signed_in, cookie)
    }
}

/// An answer that brings a browser its cookie.
pub(crate) fn remembered(answer: impl IntoResponse, cookie: Option<HeaderValue>) -> Response {
    let mut answer = answer.into_response();
    if let Some(cookie) = cookie {
        answer.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    answer
}

/// Whoever is in now, with what they show from now on.
pub(crate) fn signed_in(api: &Api, status: StatusCode, welcome: Welcome) -> Response {
    let (signed_in, cookie) = SignedIn::new(api, welcome);
    remembered((status, Json(signed_in)), cookie)
}

/// Errors of signing in that have a name of their own.
pub(crate) fn told(error: Error) -> ApiError {
    match error {
        Error::TenantRequired { slugs } => {
            let fields = slugs.iter().map(|slug| FieldError::new("/tenant", slug.clone())).collect();
            ApiError::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "tenant-required",
                "Which tenant?",
                format!("this address and password belong to several tenants: {}", slugs.join(", ")),
            )
            .with_errors(fields)
        }
        other => other.into(),
    }
}

/// Signs in by e-mail address and password
///
/// Answers the same, and takes the same time, whether there is such an account or not. With a second
/// factor the answer is a challenge for `login/mfa`. A browser's own page (by its `Origin`) gets a
/// cookie instead of tokens.
#[utoipa::path(post, path = "/api/v1/auth/login", tag = "auth", request_body = LoginBody, responses((status = 200, body = LoginAnswer)))]
async fn login(
    State(api): State<Api>,
    request: Context,
    headers: HeaderMap,
    Valid(body): Valid<LoginBody>,
) -> Result<Response, ApiError> {
    let client = api.site.client(&headers)?;
    let login = Login { email: body.email, password: body.password, tenant: body.tenant };
    match api.sign_ins.login(&request.0, login, &client).await.map_err(told)? {
        LoggedIn::In(welcome) => Ok(signed_in(&api, StatusCode::OK, *welcome)),
        LoggedIn::SecondFactor(challenge) => Ok(Json(MfaRequired::from(challenge)).into_response()),
    }
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RefreshBody {
    #[schema(value_type = String, max_length = 4096, example = "rt_…")]
    refresh_token: Secret<String>,
}

impl Validate for RefreshBody {
    fn validate(&self, faults: &mut Faults) {
        if self.refresh_token.expose().len() > LONGEST_TOKEN {
            faults.add("/refreshToken", "no token is this long");
        }
    }
}

/// Exchanges a refresh token for an access token and the next refresh token
///
/// Each is good once. One that comes a second time ends its sign-in: somebody has copied it.
#[utoipa::path(post, path = "/api/v1/auth/refresh", tag = "auth", request_body = RefreshBody, responses((status = 200, body = SignedIn)))]
async fn refresh(
    State(api): State<Api>,
    request: Context,
    Valid(body): Valid<RefreshBody>,
) -> Result<Response, ApiError> {
    let welcome = api.sign_ins.refresh(&request.0, body.refresh_token.expose()).await;
    if let Err(sign_in::Error::NoRefresh { ended: Some(ended) }) = welcome {
        api.callers.forget(|checked| checked.sign_in() == Some(ended));
    }
    Ok(signed_in(&api, StatusCode::OK, welcome?))
}

/// Signs out
///
/// Ends the sign-in that the request came with. A key signs nobody in, so it is `409`.
#[utoipa::path(post, path = "/api/v1/auth/logout", tag = "auth", responses((status = 204, description = "Signed out")))]
async fn logout(State(api): State<Api>, caller: Caller, mut tx: ApiTx) -> Result<Response, ApiError> {
    let Some(id) = caller.checked().sign_in() else {
        return Err(ApiError::conflict("no-sign-in", "a key is no sign-in; revoke it instead"));
    };
    sign_in::end(&mut tx, id).await?;
    let mut answer = tx.commit(StatusCode::NO_CONTENT).await?;
    api.callers.forget(|checked| checked.sign_in() == Some(id));
    if caller.checked().by_cookie {
        answer.headers_mut().insert(header::SET_COOKIE, browser::forget());
        // What the browser has kept of us goes too.
        answer.headers_mut().insert("clear-site-data", HeaderValue::from_static("\"cache\""));
    }
    Ok(answer)
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ChangePasswordBody {
    #[schema(value_type = String, format = Password, max_length = 1024)]
    current_password: Secret<String>,
    #[schema(value_type = String, format = Password, min_length = 8, max_length = 128)]
    password: Secret<String>,
    #[schema(value_type = String, format = Password)]
    password_confirmation: Secret<String>,
}

impl Validate for ChangePasswordBody {
    fn validate(&self, faults: &mut Faults) {
        check_shown(faults, "/currentPassword", &self.current_password);
        check_chosen(faults, &self.password, &self.password_confirmation);
    }
}

/// Changes one's password
///
/// One's other sign-ins end; keys go on.
#[utoipa::path(post, path = "/api/v1/auth/change-password", tag = "auth", request_body = ChangePasswordBody, responses((status = 204, description = "Changed")))]
async fn change_password(
    State(api): State<Api>,
    caller: Caller,
    Valid(body): Valid<ChangePasswordBody>,
) -> Result<StatusCode, ApiError> {
    let (actor, request) = (caller.actor(), caller.request().clone());
    let this = caller.checked().sign_in();
    api.sign_ins.change_password(actor, request, body.current_password, body.password, this).await?;
    let user = actor.user;
    api.callers.forget(|checked| checked.actor.user == user && checked.sign_in() != this);
    Ok(StatusCode::NO_CONTENT)
}

/// One's sign-ins, newest first
#[utoipa::path(get, path = "/api/v1/auth/sessions", tag = "auth", params(Paging), responses((status = 200, body = Page<SignIn>)))]
async fn list_sign_ins(
    State(api): State<Api>,
    caller: Caller,
    Query(paging): Query<Paging>,
) -> Result<Linked<SignIn>, ApiError> {
    let list = List::new("/api/v1/auth/sessions");
    let after: Option<SignInId> = list.begin(paging.cursor.as_deref())?;
    let limit = paging.limit();
    let mut conn = api.queue.read().await?;
    let found = sign_in::list(&mut conn, caller.actor(), after, limit + 1).await?;
    let this = caller.checked().sign_in();
    let found = found.into_iter().map(|found| SignIn::new(found, this)).collect();
    Ok(list.page_of(found, limit, |found| found.id))
}

/// Ends one of one's sign-ins
#[utoipa::path(delete, path = "/api/v1/auth/sessions/{id}", tag = "auth", params(("id" = uuid::Uuid, Path)), responses((status = 204, description = "It is over")))]
async fn end_sign_in(
    State(api): State<Api>,
    mut tx: ApiTx,
    Id(id): Id<SignInId>,
) -> Result<Response, ApiError> {
    sign_in::end(&mut tx, id).await?;
    let answer = tx.commit(StatusCode::NO_CONTENT).await;
    api.callers.forget(|checked| checked.sign_in() == Some(id));
    answer
}

/// The keys that sign access tokens, for whoever verifies them: a JSON Web Key Set
#[utoipa::path(get, path = "/.well-known/jwks.json", tag = "auth", responses((status = 200, body = serde_json::Value)))]
async fn jwks(State(api): State<Api>) -> Result<impl IntoResponse, ApiError> {
    let keys = api.sign_ins.tokens().jwks().await?;
    Ok(([(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"))], Json(keys)))
}

/// Whether people can sign in here
#[utoipa::path(
    get, path = "/api/v1/auth/health", tag = "auth",
    responses((status = 200, body = Health), (status = 503, description = "They can't", body = Health))
)]
async fn auth_health(State(api): State<Api>) -> Response {
    super::health::answer(&api).await
}

/// What is known of a request before anybody has shown who they are.
pub(crate) struct Context(pub Request);

impl<S: Send + Sync> axum::extract::FromRequestParts<S> for Context {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut http::request::Parts, _: &S) -> Result<Self, ApiError> {
        Ok(Self(parts.extensions.get::<Request>().cloned().unwrap_or_default()))
    }
}
