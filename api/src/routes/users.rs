//! The people of a tenant, and one's own profile.

use axum::{Json, extract::State, response::Response};
use http::{StatusCode, header};
use serde::{Deserialize, Serialize};
use streamspace_common::{Secret, UserId};
use streamspace_domain::{
    identity::{self, ChangeUser, NewUser, Permission, UserFilter},
    links::NewInvitation,
};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{auth::check_chosen, links::answer_invited};
use crate::{
    caller::Caller,
    extract::{ApiTx, Faults, Id, Query, Valid, Validate},
    page::{self, Linked, List, Page},
    problem::ApiError,
    state::Api,
    view::{Role, User},
};

pub fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list_users))
        .routes(routes!(create_user))
        .routes(routes!(get_user, change_user))
        .routes(routes!(get_profile, change_profile))
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
#[into_params(parameter_in = Query, rename_all = "camelCase")]
struct UsersQuery {
    #[param(inline)]
    role: Option<Role>,
    active: Option<bool>,
    /// In the name, the username or the address.
    #[param(max_length = 200)]
    q: Option<String>,
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// Where the page begins: the last page's `nextCursor`.
    cursor: Option<String>,
}

impl Validate for UsersQuery {
    fn validate(&self, faults: &mut Faults) {
        page::check(self.limit, faults);
        if let Some(q) = &self.q {
            faults.text("q", q, 200);
        }
    }
}

/// The people of the tenant, newest first
#[utoipa::path(get, path = "/api/v1/auth/users", tag = "auth", params(UsersQuery), responses((status = 200, body = Page<User>)))]
async fn list_users(
    State(api): State<Api>,
    caller: Caller,
    Query(query): Query<UsersQuery>,
) -> Result<Linked<User>, ApiError> {
    let role = query.role.map(streamspace_common::Role::from);
    let list = List::new("/api/v1/auth/users")
        .filter("role", role.map(|role| role.as_str()))
        .filter("active", query.active)
        .filter("q", query.q.as_ref());
    let after: Option<UserId> = list.begin(query.cursor.as_deref())?;
    let limit = query.limit.unwrap_or(page::DEFAULT_LIMIT);
    let filter = UserFilter { role, active: query.active, q: query.q };
    let mut conn = api.queue.read().await?;
    let found = identity::users(&mut conn, caller.actor(), &filter, after, limit + 1).await?;
    Ok(list.page_of(found.into_iter().map(User::from).collect(), limit, |user| user.id))
}

/// A person as an administrator writes one.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct CreateUserBody {
    #[schema(max_length = 320)]
    email: String,
    #[schema(min_length = 1, max_length = 200)]
    name: String,
    /// From the address when absent.
    #[schema(max_length = 64)]
    username: Option<String>,
    role: Role,
    #[schema(value_type = Option<String>, format = Password, min_length = 8, max_length = 128)]
    password: Option<Secret<String>>,
    #[schema(value_type = Option<String>, format = Password)]
    password_confirmation: Option<Secret<String>>,
    /// In place of a password: they choose one by a link that is mailed.
    #[serde(default)]
    invite: bool,
}

impl Validate for CreateUserBody {
    fn validate(&self, faults: &mut Faults) {
        faults.text("/email", &self.email, 320);
        faults.text("/name", &self.name, 200);
        match (&self.password, &self.password_confirmation) {
            (Some(password), Some(again)) if !self.invite => check_chosen(faults, password, again),
            (None, None) if self.invite => {}
            _ => faults.add("/password", "send it with its confirmation, or `invite: true` without both"),
        }
    }
}

/// Makes a person of the tenant: with a password, or by an invitation
///
/// With `invite: true` the answer also has a `jobId`, and what `POST /api/v1/auth/invitations` tells holds.
/// Admins and owners are made by owners.
#[utoipa::path(
    post, path = "/api/v1/auth/register/user", tag = "auth", request_body = CreateUserBody,
    responses((status = 201, body = User, headers(("Location" = String, description = "Of the person"))))
)]
async fn create_user(
    State(api): State<Api>,
    caller: Caller,
    mut tx: ApiTx,
    Valid(body): Valid<CreateUserBody>,
) -> Result<Response, ApiError> {
    // Hashing is work: not for who may not.
    identity::Require::require(caller.actor(), Permission::UsersManage)?;
    let Some(password) = body.password else {
        let CreateUserBody { email, name, username, role, .. } = body;
        return answer_invited(tx, NewInvitation { email, name: Some(name), username, role: role.into() })
            .await;
    };
    let names = [body.email.as_str(), body.username.as_deref().unwrap_or_default()];
    let password_hash = Some(api.sign_ins.hash("/password", password, &names).await?);
    let new = NewUser {
        email: body.email,
        username: body.username,
        name: body.name,
        role: body.role.into(),
        password_hash,
    };
    let user = identity::create_user(&mut tx, new).await?;
    let location = format!("/api/v1/auth/users/{}", user.id);
    tx.commit((StatusCode::CREATED, [(header::LOCATION, location)], Json(User::from(user)))).await
}

/// One person
#[utoipa::path(get, path = "/api/v1/auth/users/{id}", tag = "auth", params(("id" = uuid::Uuid, Path)), responses((status = 200, body = User)))]
async fn get_user(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<UserId>,
) -> Result<Json<User>, ApiError> {
    let mut conn = api.queue.read().await?;
    Ok(Json(identity::user(&mut conn, caller.actor(), id).await?.into()))
}

/// What is to be different.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct ChangeUserBody {
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
    #[schema(max_length = 320)]
    email: Option<String>,
    role: Option<Role>,
    /// `false` ends sign-ins and keys within a second.
    active: Option<bool>,
    /// `false` opens an account that failures have closed.
    locked: Option<bool>,
}

impl Validate for ChangeUserBody {
    fn validate(&self, faults: &mut Faults) {
        if let Some(name) = &self.name {
            faults.text("/name", name, 200);
        }
        if let Some(email) = &self.email {
            faults.text("/email", email, 320);
        }
        if self.locked == Some(true) {
            faults.add("/locked", "failures close an account; `active: false` disables a person");
        }
    }
}

/// Changes a person: name, address, role; disables or unlocks
///
/// Admins and owners are changed by owners. The last owner stays one.
#[utoipa::path(patch, path = "/api/v1/auth/users/{id}", tag = "auth", params(("id" = uuid::Uuid, Path)), request_body = ChangeUserBody, responses((status = 200, body = User)))]
async fn change_user(
    State(api): State<Api>,
    mut tx: ApiTx,
    Id(id): Id<UserId>,
    Valid(body): Valid<ChangeUserBody>,
) -> Result<Response, ApiError> {
    let change = ChangeUser {
        name: body.name,
        email: body.email,
        username: None,
        role: body.role.map(Into::into),
        active: body.active,
        unlock: body.locked == Some(false),
    };
    let user = identity::change_user(&mut tx, id, change).await?;
    let answer = tx.commit(Json(User::from(user))).await;
    api.callers.forget(|checked| checked.actor.user == Some(id));
    answer
}

/// A person, as themselves.
#[derive(Serialize, ToSchema)]
struct Profile {
    #[serde(flatten)]
    user: User,
    /// What one may: `jobs.read` and so on.
    permissions: Vec<&'static str>,
}

fn permissions(caller: &Caller) -> Vec<&'static str> {
    let held = Permission::ALL.iter().filter(|permission| permission.is_held_by(caller.actor()));
    held.map(|permission| permission.as_str()).collect()
}

/// Oneself, with what one may
#[utoipa::path(get, path = "/api/v1/auth/profile", tag = "auth", responses((status = 200, body = Profile)))]
async fn get_profile(State(api): State<Api>, caller: Caller) -> Result<Json<Profile>, ApiError> {
    let mut conn = api.queue.read().await?;
    let user = identity::profile(&mut conn, caller.actor()).await?;
    Ok(Json(Profile { user: user.into(), permissions: permissions(&caller) }))
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
struct ProfileBody {
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
    #[schema(min_length = 1, max_length = 64)]
    username: Option<String>,
}

impl Validate for ProfileBody {
    fn validate(&self, faults: &mut Faults) {
        if let Some(name) = &self.name {
            faults.text("/name", name, 200);
        }
    }
}

/// Changes one's name or username
#[utoipa::path(put, path = "/api/v1/auth/profile", tag = "auth", request_body = ProfileBody, responses((status = 200, body = Profile)))]
async fn change_profile(
    caller: Caller,
    mut tx: ApiTx,
    Valid(body): Valid<ProfileBody>,
) -> Result<Response, ApiError> {
    let user = identity::change_profile(&mut tx, body.name, body.username).await?;
    tx.commit(Json(Profile { user: user.into(), permissions: permissions(&caller) })).await
}
