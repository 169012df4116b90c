use std::time::Duration;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};
use serde::{Deserialize, Serialize};
use streamspace_common::{ApiKeyId, Secret};
use streamspace_domain::api_keys::{self, Filter, LONGEST_OVERLAP, NewApiKey, Owner, term, usage};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use crate::{
    caller::Caller,
    extract::{ApiTx, Faults, Id, Once, Query, Valid, Validate},
    page::{self, Linked, List, Page},
    problem::ApiError,
    state::Api,
    view::{ApiKey, KeyCall, KeyDay, KeyOwner, Role, parse_span},
};

pub fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list_api_keys, create_api_key))
        .routes(routes!(delete_api_key))
        .routes(routes!(revoke_api_key))
        .routes(routes!(rotate_api_key))
        .routes(routes!(api_key_usage))
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
#[into_params(parameter_in = Query, rename_all = "camelCase")]
struct ListKeys {
    /// Keys of people, or of the tenant.
    #[param(inline)]
    owner: Option<KeyOwner>,
    /// Keys of this person.
    user: Option<Uuid>,
    /// Those that work, or those that do not.
    active: Option<bool>,
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// Where the page begins: the last page's `nextCursor`.
    cursor: Option<String>,
}

impl Validate for ListKeys {
    fn validate(&self, faults: &mut Faults) {
        page::check(self.limit, faults);
    }
}

/// One's own keys, and for admins every one of the tenant; newest first
#[utoipa::path(get, path = "/api/v1/api-keys", tag = "api-keys", params(ListKeys), responses((status = 200, body = Page<ApiKey>)))]
async fn list_api_keys(
    State(api): State<Api>,
    caller: Caller,
    Query(query): Query<ListKeys>,
) -> Result<Linked<ApiKey>, ApiError> {
    let of_tenant = query.owner.map(|owner| owner == KeyOwner::Tenant);
    let list = List::new("/api/v1/api-keys")
        .filter("owner", of_tenant.map(|tenant| if tenant { "tenant" } else { "user" }))
        .filter("user", query.user)
        .filter("active", query.active);
    let after: Option<ApiKeyId> = list.begin(query.cursor.as_deref())?;
    let limit = query.limit.unwrap_or(page::DEFAULT_LIMIT);
    let filter = Filter { of_tenant, user: query.user.map(Into::into), active: query.active };
    let found =
        api_keys::list(&mut *api.queue.read().await?, caller.actor(), &filter, after, limit + 1).await?;
    Ok(list.page_of(found.into_iter().map(ApiKey::from).collect(), limit, |key| key.id))
}

/// A key as its maker writes it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ApiKeyBody {
    #[schema(min_length = 1, max_length = 200)]
    name: String,
    /// Whose rights it has: one's own, or for admins the tenant's.
    #[serde(default)]
    owner: KeyOwner,
    /// Of a key of the tenant: at most `admin`, and at most one's own.
    role: Option<Role>,
    /// `<area>.read`, `<area>.write` or `*`; none that the key that asks has not.
    #[serde(default = "all")]
    #[schema(example = json!(["jobs.read"]), max_items = 60)]
    scopes: Vec<String>,
    /// Days, months or years: `30d`, `6m`, `1y`. For good without it.
    #[schema(example = "6m", max_length = 20)]
    expires_in: Option<String>,
    /// Requests an hour.
    #[schema(minimum = 1, maximum = 2_147_483_647)]
    rate_limit: Option<u32>,
}

fn all() -> Vec<String> {
    vec!["*".to_owned()]
}

impl Validate for ApiKeyBody {
    fn validate(&self, faults: &mut Faults) {
        faults.text("/name", &self.name, 200);
        match (self.owner, self.role) {
            (KeyOwner::Tenant, None) => faults.add("/role", "a key of the tenant has a role"),
            (KeyOwner::User, Some(_)) => faults.add("/role", "a person's key has that person's role"),
            _ => {}
        }
        if self.expires_in.as_ref().is_some_and(|term| term.len() > 20) {
            faults.add("/expiresIn", "a number of days, months or years such as 30d, 6m or 1y");
        }
    }
}

/// A key with its secret, which is shown this once.
#[derive(Serialize, ToSchema)]
pub(crate) struct NewKey {
    /// To be sent as `X-API-Key` or as a bearer token.
    #[schema(example = "sk_…")]
    key: String,
    #[serde(flatten)]
    about: ApiKey,
}

impl NewKey {
    pub(crate) fn new(key: api_keys::ApiKey, secret: &Secret<String>) -> Self {
        Self { key: secret.expose().clone(), about: key.into() }
    }
}

/// Not answered again under the same Idempotency-Key.
fn told_once(status: StatusCode, key: api_keys::ApiKey, secret: &Secret<String>) -> Response {
    let location = format!("/api/v1/api-keys/{}", key.id);
    let mut answer = (status, Json(NewKey::new(key, secret))).into_response();
    if status == StatusCode::CREATED
        && let Ok(location) = location.parse()
    {
        answer.headers_mut().insert(header::LOCATION, location);
    }
    answer.extensions_mut().insert(Once { location: Some(location) });
    answer
}

/// Makes a key
///
/// Its secret is in this answer and nowhere else.
#[utoipa::path(
    post, path = "/api/v1/api-keys", tag = "api-keys", request_body = ApiKeyBody,
    responses((status = 201, body = NewKey, headers(("Location" = String, description = "Of the key"))))
)]
async fn create_api_key(
    State(api): State<Api>,
    caller: Caller,
    mut tx: ApiTx,
    Valid(body): Valid<ApiKeyBody>,
) -> Result<Response, ApiError> {
    let owner = match (body.owner, body.role) {
        (KeyOwner::Tenant, Some(role)) => Owner::Tenant(role.into()),
        _ => Owner::User(caller.actor().user.ok_or_else(|| {
            ApiError::invalid_field("/owner", "a key of the tenant is no person: it makes keys of the tenant")
        })?),
    };
    let expires_at = match &body.expires_in {
        Some(span) => {
            let end = term::end_of(span, tx.now().await?);
            Some(end.map_err(|wrong| ApiError::invalid_field("/expiresIn", wrong))?)
        }
        None => None,
    };
    let new = NewApiKey {
        name: body.name,
        owner,
        scopes: body.scopes,
        hourly_limit: body.rate_limit.unwrap_or(api.key_limit),
        expires_at,
    };
    let (key, secret) = api_keys::create(&mut tx, &caller.checked().scopes, api.key_limit, new).await?;
    tx.commit(told_once(StatusCode::CREATED, key, &secret)).await
}

/// Ends a key, and keeps its record
///
/// Within a second it works nowhere. What it was used for can still be read.
#[utoipa::path(post, path = "/api/v1/api-keys/{id}/revoke", tag = "api-keys", params(("id" = Uuid, Path)), responses((status = 200, body = ApiKey)))]
async fn revoke_api_key(
    State(api): State<Api>,
    mut tx: ApiTx,
    Id(id): Id<ApiKeyId>,
) -> Result<Response, ApiError> {
    let key = api_keys::revoke(&mut tx, id).await?;
    let answer = tx.commit(Json(ApiKey::from(key))).await;
    api.callers.forget(|checked| checked.key() == Some(id));
    answer
}

/// Deletes a key with its record
#[utoipa::path(delete, path = "/api/v1/api-keys/{id}", tag = "api-keys", params(("id" = Uuid, Path)), responses((status = 204, description = "It is gone")))]
async fn delete_api_key(
    State(api): State<Api>,
    mut tx: ApiTx,
    Id(id): Id<ApiKeyId>,
) -> Result<Response, ApiError> {
    api_keys::delete(&mut tx, id).await?;
    let answer = tx.commit(StatusCode::NO_CONTENT).await;
    api.callers.forget(|checked| checked.key() == Some(id));
    answer
}

/// How the old secret ends.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
struct RotateBody {
    /// So long it works beside the new one, up to `30d`; `0` ends it now.
    #[schema(example = "24h", default = "24h", max_length = 50)]
    overlap: String,
}

impl Default for RotateBody {
    fn default() -> Self {
        Self { overlap: "24h".to_owned() }
    }
}

impl RotateBody {
    fn overlap(&self) -> Option<Duration> {
        parse_span(&self.overlap).filter(|overlap| *overlap <= LONGEST_OVERLAP)
    }
}

impl Validate for RotateBody {
    fn validate(&self, faults: &mut Faults) {
        if self.overlap().is_none() {
            faults.add("/overlap", "a span of time between 0 and 30d, such as 24h");
        }
    }
}

/// Gives a key another secret
///
/// The old one works on for a while, so that whoever uses it has the time to change it.
#[utoipa::path(
    post, path = "/api/v1/api-keys/{id}/rotate", tag = "api-keys", params(("id" = Uuid, Path)),
    request_body = Option<RotateBody>, responses((status = 200, body = NewKey))
)]
async fn rotate_api_key(
    State(api): State<Api>,
    caller: Caller,
    mut tx: ApiTx,
    Id(id): Id<ApiKeyId>,
    body: Option<Valid<RotateBody>>,
) -> Result<Response, ApiError> {
    let body = body.map(|Valid(body)| body).unwrap_or_default();
    let overlap = body.overlap().unwrap_or_default();
    let (key, secret) = api_keys::rotate(&mut tx, &caller.checked().scopes, id, overlap).await?;
    let answer = tx.commit(told_once(StatusCode::OK, key, &secret)).await;
    api.callers.forget(|checked| checked.key() == Some(id));
    answer
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
struct UsageOf {
    /// The counts of so many days up to today.
    #[param(minimum = 1, maximum = 400, default = 30)]
    days: Option<u32>,
    /// Calls of a page.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// Where the page of calls begins: the last page's `nextCursor`.
    cursor: Option<String>,
}

impl Validate for UsageOf {
    fn validate(&self, faults: &mut Faults) {
        page::check(self.limit, faults);
        if self.days.is_some_and(|days| !(1..=400).contains(&days)) {
            faults.add("days", "between 1 and 400");
        }
    }
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct KeyUsage {
    /// Days on which it was used, newest first.
    days: Vec<KeyDay>,
    /// Its calls, newest first. They appear here some seconds after they are answered.
    items: Vec<KeyCall>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// What a key is used for: its calls, and their number by day
#[utoipa::path(get, path = "/api/v1/api-keys/{id}/usage", tag = "api-keys", params(("id" = Uuid, Path), UsageOf), responses((status = 200, body = KeyUsage)))]
async fn api_key_usage(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<ApiKeyId>,
    Query(query): Query<UsageOf>,
) -> Result<impl IntoResponse, ApiError> {
    let path = format!("/api/v1/api-keys/{id}/usage");
    let list = List::new(&path).filter("days", query.days);
    let before: Option<Uuid> = list.begin(query.cursor.as_deref())?;
    let limit = query.limit.unwrap_or(page::DEFAULT_LIMIT);
    let mut conn = api.queue.read().await?;
    let calls = usage::calls(&mut conn, caller.actor(), id, before, limit + 1).await?;
    let days = usage::days(&mut conn, caller.actor(), id, query.days.unwrap_or(30)).await?;
    drop(conn);
    let page = list.page_of(calls.into_iter().map(KeyCall::from).collect(), limit, |call| call.id);
    Ok(page.within(|page| KeyUsage {
        days: days.into_iter().map(KeyDay::from).collect(),
        items: page.items,
        next_cursor: page.next_cursor,
    }))
}
