use axum::{Json, extract::State, response::Response};
use serde::Deserialize;
use serde_json::Value;
use streamspace_domain::settings;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    caller::Caller,
    extract::{ApiTx, Faults, Name, Query, Valid, Validate},
    page::{self, Linked, List, Page},
    problem::ApiError,
    state::Api,
    view::Setting,
};

pub fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list_settings)).routes(routes!(get_setting, put_setting))
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
struct SettingsQuery {
    /// Items of a page.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// Where the page begins: the last page's `nextCursor`.
    cursor: Option<String>,
    /// What stands before the dot of a key.
    #[param(example = "auth", min_length = 1, max_length = 64)]
    category: Option<String>,
}

impl Validate for SettingsQuery {
    fn validate(&self, faults: &mut Faults) {
        page::check(self.limit, faults);
        if let Some(category) = &self.category {
            faults.text("category", category, 64);
        }
    }
}

/// All settings of the tenant that there are, by their keys
#[utoipa::path(get, path = "/api/v1/settings", tag = "settings", params(SettingsQuery), responses((status = 200, body = Page<Setting>)))]
async fn list_settings(
    State(api): State<Api>,
    caller: Caller,
    Query(query): Query<SettingsQuery>,
) -> Result<Linked<Setting>, ApiError> {
    let list = List::new("/api/v1/settings").filter("category", query.category.as_ref());
    let after: Option<String> = list.begin(query.cursor.as_deref())?;
    let found = settings::list(&mut *api.queue.read().await?, caller.actor(), &api.settings).await?;
    let wanted = found.into_iter().filter(|setting| {
        query.category.as_ref().is_none_or(|category| setting.known.category() == category)
            && after.as_ref().is_none_or(|after| setting.known.key > after.as_str())
    });
    let limit = query.limit.unwrap_or(page::DEFAULT_LIMIT);
    Ok(list.page_of(wanted.map(Setting::from).collect(), limit, |setting| setting.key))
}

/// One setting
#[utoipa::path(get, path = "/api/v1/settings/{key}", tag = "settings", params(("key" = String, Path, example = "auth.mfa_required")), responses((status = 200, body = Setting)))]
async fn get_setting(
    State(api): State<Api>,
    caller: Caller,
    Name(key): Name,
) -> Result<Json<Setting>, ApiError> {
    let mut conn = api.queue.read().await?;
    Ok(Json(settings::get(&mut conn, caller.actor(), &api.settings, &key).await?.into()))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SettingBody {
    /// Of the setting's type; `null` returns to the default.
    value: Value,
}

impl Validate for SettingBody {
    fn validate(&self, _: &mut Faults) {}
}

/// Sets a value, or returns to the default
///
/// Acts within a second on every replica.
#[utoipa::path(
    put, path = "/api/v1/settings/{key}", tag = "settings",
    params(("key" = String, Path, example = "auth.mfa_required")),
    request_body(content = SettingBody, example = json!({ "value": true })),
    responses((status = 200, body = Setting))
)]
async fn put_setting(
    State(api): State<Api>,
    caller: Caller,
    mut tx: ApiTx,
    Name(key): Name,
    Valid(body): Valid<SettingBody>,
) -> Result<Response, ApiError> {
    let setting = settings::set(&mut tx, &api.settings, &key, body.value).await?;
    let answer = tx.commit(Json(Setting::from(setting))).await;
    // What a setting says of people is kept with them for a second.
    let tenant = caller.actor().tenant;
    api.callers.forget(|checked| checked.actor.tenant == tenant);
    answer
}
