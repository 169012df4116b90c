use axum::{Json, extract::State, response::Response};
use http::{StatusCode, header};
use serde::{Deserialize, Serialize};
use streamspace_common::{TeamId, UserId};
use streamspace_domain::teams::{self, ChangeTeam, MAX_DESCRIPTION, MAX_NAME, NewTeam, TeamPermission, Whom};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::Paging;
use crate::{
    caller::Caller,
    extract::{ApiTx, Faults, Id, IdAndId, IdAndName, Query, Valid, Validate},
    page::{self, Linked, List, Page},
    problem::ApiError,
    state::Api,
    view::{Team, TeamMember, TeamRole, TeamRoleInfo, TeamRolePermissions},
};

pub fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list_teams, create_team))
        .routes(routes!(list_my_teams))
        .routes(routes!(get_team, change_team, delete_team))
        .routes(routes!(list_team_members, add_team_member))
        .routes(routes!(change_team_member, remove_team_member))
        .routes(routes!(get_team_permissions))
        .routes(routes!(get_team_role_info))
        .routes(routes!(get_my_team_permissions))
        .routes(routes!(check_team_permission))
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
struct TeamsQuery {
    /// Items of a page.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// Where the page begins: the last page's `nextCursor`.
    cursor: Option<String>,
    /// In the name, in capitals or not.
    #[param(min_length = 1, max_length = 200)]
    q: Option<String>,
}

impl Validate for TeamsQuery {
    fn validate(&self, faults: &mut Faults) {
        page::check(self.limit, faults);
        if let Some(q) = &self.q {
            faults.text("q", q, MAX_NAME);
        }
    }
}

/// The teams that one sees, newest first
///
/// One's own; operators and those above them see every one of the tenant.
#[utoipa::path(get, path = "/api/v1/teams", tag = "teams", params(TeamsQuery), responses((status = 200, body = Page<Team>)))]
async fn list_teams(
    State(api): State<Api>,
    caller: Caller,
    Query(query): Query<TeamsQuery>,
) -> Result<Linked<Team>, ApiError> {
    let list = List::new("/api/v1/teams").filter("q", query.q.as_ref());
    let after: Option<TeamId> = list.begin(query.cursor.as_deref())?;
    let limit = query.limit.unwrap_or(page::DEFAULT_LIMIT);
    let mut conn = api.queue.read().await?;
    let found = teams::list(&mut conn, caller.actor(), query.q.as_deref(), after, limit + 1).await?;
    Ok(list.page_of(found.into_iter().map(Team::from).collect(), limit, |team| team.id))
}

/// The teams that one is a member of, newest first, with one's role in each
#[utoipa::path(get, path = "/api/v1/teams/my-teams", tag = "teams", params(TeamsQuery), responses((status = 200, body = Page<Team>)))]
async fn list_my_teams(
    State(api): State<Api>,
    caller: Caller,
    Query(query): Query<TeamsQuery>,
) -> Result<Linked<Team>, ApiError> {
    let list = List::new("/api/v1/teams/my-teams").filter("q", query.q.as_ref());
    let after: Option<TeamId> = list.begin(query.cursor.as_deref())?;
    let limit = query.limit.unwrap_or(page::DEFAULT_LIMIT);
    let mut conn = api.queue.read().await?;
    let found = teams::mine(&mut conn, caller.actor(), query.q.as_deref(), after, limit + 1).await?;
    Ok(list.page_of(found.into_iter().map(Team::from).collect(), limit, |team| team.id))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateTeamBody {
    #[schema(min_length = 1, max_length = 200)]
    name: String,
    #[serde(default)]
    #[schema(max_length = 2000)]
    description: String,
}

impl Validate for CreateTeamBody {
    fn validate(&self, faults: &mut Faults) {
        faults.text("/name", &self.name, MAX_NAME);
        check_description(&self.description, faults);
    }
}

/// May be empty, and have several lines.
fn check_description(text: &str, faults: &mut Faults) {
    let length = text.chars().count();
    if length > MAX_DESCRIPTION {
        faults.add("/description", format!("has {length} characters, may have {MAX_DESCRIPTION}"));
    } else if text.chars().any(|c| c.is_control() && c != '\n') {
        faults.add("/description", "contains a control character");
    }
}

/// Makes a team
///
/// Whoever makes it is its owner, so a key of the tenant makes none.
#[utoipa::path(
    post, path = "/api/v1/teams", tag = "teams", request_body = CreateTeamBody,
    responses((status = 201, body = Team, headers(("Location" = String, description = "Of the team"))))
)]
async fn create_team(mut tx: ApiTx, Valid(body): Valid<CreateTeamBody>) -> Result<Response, ApiError> {
    let new = NewTeam { name: body.name, description: body.description };
    let team = teams::create(&mut tx, new).await?;
    let location = format!("/api/v1/teams/{}", team.id);
    tx.commit((StatusCode::CREATED, [(header::LOCATION, location)], Json(Team::from(team)))).await
}

/// One team
#[utoipa::path(get, path = "/api/v1/teams/{teamId}", tag = "teams", params(("teamId" = Uuid, Path)), responses((status = 200, body = Team)))]
async fn get_team(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<TeamId>,
) -> Result<Json<Team>, ApiError> {
    Ok(Json(teams::get(&mut *api.queue.read().await?, caller.actor(), id).await?.into()))
}

/// What to change. What is absent stays.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
struct ChangeTeamBody {
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
    #[schema(max_length = 2000)]
    description: Option<String>,
}

impl Validate for ChangeTeamBody {
    fn validate(&self, faults: &mut Faults) {
        if let Some(name) = &self.name {
            faults.text("/name", name, MAX_NAME);
        }
        if let Some(description) = &self.description {
            check_description(description, faults);
        }
    }
}

/// Changes a team's name and description
///
/// Needs `team.manage` in it.
#[utoipa::path(patch, path = "/api/v1/teams/{teamId}", tag = "teams", params(("teamId" = Uuid, Path)), request_body = ChangeTeamBody, responses((status = 200, body = Team)))]
async fn change_team(
    mut tx: ApiTx,
    Id(id): Id<TeamId>,
    Valid(body): Valid<ChangeTeamBody>,
) -> Result<Response, ApiError> {
    let change = ChangeTeam { name: body.name, description: body.description };
    let team = teams::update(&mut tx, id, change).await?;
    tx.commit(Json(Team::from(team))).await
}

/// Deletes a team
///
/// Needs `team.manage` in it. Its members stay people of the tenant.
#[utoipa::path(delete, path = "/api/v1/teams/{teamId}", tag = "teams", params(("teamId" = Uuid, Path)), responses((status = 204, description = "It is gone")))]
async fn delete_team(mut tx: ApiTx, Id(id): Id<TeamId>) -> Result<Response, ApiError> {
    teams::delete(&mut tx, id).await?;
    tx.commit(StatusCode::NO_CONTENT).await
}

/// A team's members, by their ids
#[utoipa::path(get, path = "/api/v1/teams/{teamId}/members", tag = "teams", params(("teamId" = Uuid, Path), Paging), responses((status = 200, body = Page<TeamMember>)))]
async fn list_team_members(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<TeamId>,
    Query(paging): Query<Paging>,
) -> Result<Linked<TeamMember>, ApiError> {
    let path = format!("/api/v1/teams/{id}/members");
    let list = List::new(&path);
    let after: Option<UserId> = list.begin(paging.cursor.as_deref())?;
    let limit = paging.limit();
    let found = teams::members(&mut *api.queue.read().await?, caller.actor(), id, after, limit + 1).await?;
    Ok(list.page_of(found.into_iter().map(TeamMember::from).collect(), limit, |member| member.user_id))
}

/// Whom to add, by their id or their e-mail, and as what.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct AddTeamMemberBody {
    user_id: Option<Uuid>,
    #[schema(min_length = 1, max_length = 320)]
    email: Option<String>,
    role: TeamRole,
}

impl Validate for AddTeamMemberBody {
    fn validate(&self, faults: &mut Faults) {
        match (&self.user_id, &self.email) {
            (None, Some(email)) => faults.text("/email", email, 320),
            (Some(_), None) => {}
            (None, None) => faults.add("/userId", "whom? name a userId or an email"),
            (Some(_), Some(_)) => faults.add("/email", "either userId or email, not both"),
        }
    }
}

/// Adds a member
///
/// Takes effect at once. Needs `team.members.manage`; nobody gives a role above their own.
#[utoipa::path(
    post, path = "/api/v1/teams/{teamId}/members", tag = "teams", params(("teamId" = Uuid, Path)),
    request_body(content = AddTeamMemberBody, example = json!({ "email": "ada@example.org", "role": "member" })),
    responses((status = 201, body = TeamMember, headers(("Location" = String, description = "Of the membership"))))
)]
async fn add_team_member(
    mut tx: ApiTx,
    Id(id): Id<TeamId>,
    Valid(body): Valid<AddTeamMemberBody>,
) -> Result<Response, ApiError> {
    let whom = match (body.user_id, body.email) {
        (Some(user), _) => Whom::User(user.into()),
        (None, email) => Whom::Email(email.unwrap_or_default()),
    };
    let member = teams::add_member(&mut tx, id, whom, body.role.into()).await?;
    let location = format!("/api/v1/teams/{id}/members/{}", member.user);
    tx.commit((StatusCode::CREATED, [(header::LOCATION, location)], Json(TeamMember::from(member)))).await
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ChangeTeamMemberBody {
    role: TeamRole,
}

impl Validate for ChangeTeamMemberBody {
    fn validate(&self, _: &mut Faults) {}
}

/// Changes a member's role
///
/// Needs `team.members.manage`; neither the old nor the new role may be above one's own, and the last
/// owner stays one.
#[utoipa::path(
    patch, path = "/api/v1/teams/{teamId}/members/{userId}", tag = "teams",
    params(("teamId" = Uuid, Path), ("userId" = Uuid, Path)), request_body = ChangeTeamMemberBody,
    responses((status = 200, body = TeamMember))
)]
async fn change_team_member(
    mut tx: ApiTx,
    IdAndId(id, user): IdAndId<TeamId, UserId>,
    Valid(body): Valid<ChangeTeamMemberBody>,
) -> Result<Response, ApiError> {
    let member = teams::change_member(&mut tx, id, user, body.role.into()).await?;
    tx.commit(Json(TeamMember::from(member))).await
}

/// Removes a member, or leaves
///
/// Everybody may leave but the last owner; removing others needs `team.members.manage` and a role that
/// is not below theirs.
#[utoipa::path(
    delete, path = "/api/v1/teams/{teamId}/members/{userId}", tag = "teams",
    params(("teamId" = Uuid, Path), ("userId" = Uuid, Path)),
    responses((status = 204, description = "They are no member any more"))
)]
async fn remove_team_member(
    mut tx: ApiTx,
    IdAndId(id, user): IdAndId<TeamId, UserId>,
) -> Result<Response, ApiError> {
    teams::remove_member(&mut tx, id, user).await?;
    tx.commit(StatusCode::NO_CONTENT).await
}

/// What each role of a team may
#[utoipa::path(get, path = "/api/v1/teams/{teamId}/permissions", tag = "teams", params(("teamId" = Uuid, Path)), responses((status = 200, body = Page<TeamRolePermissions>)))]
async fn get_team_permissions(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<TeamId>,
) -> Result<Json<Page<TeamRolePermissions>>, ApiError> {
    teams::get(&mut *api.queue.read().await?, caller.actor(), id).await?;
    let items = teams::TeamRole::ALL.into_iter().map(TeamRolePermissions::from).collect();
    Ok(Json(Page { items, next_cursor: None }))
}

/// The roles that a team has
#[utoipa::path(get, path = "/api/v1/teams/{teamId}/role-info", tag = "teams", params(("teamId" = Uuid, Path)), responses((status = 200, body = Page<TeamRoleInfo>)))]
async fn get_team_role_info(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<TeamId>,
) -> Result<Json<Page<TeamRoleInfo>>, ApiError> {
    teams::get(&mut *api.queue.read().await?, caller.actor(), id).await?;
    let items = teams::TeamRole::ALL.into_iter().map(TeamRoleInfo::from).collect();
    Ok(Json(Page { items, next_cursor: None }))
}

/// What the caller may in a team.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct MyTeamPermissions {
    team_id: Uuid,
    /// As a member; absent for who sees the team without being one.
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<TeamRole>,
    /// The role whose rights the caller has: the tenant's admins an owner's, its operators at least a
    /// viewer's, its viewers at most a viewer's.
    acts_as: TeamRole,
    #[schema(example = json!(["team.sessions.view", "team.quota.view"]))]
    permissions: Vec<&'static str>,
}

/// What one may in a team
#[utoipa::path(get, path = "/api/v1/teams/{teamId}/my-permissions", tag = "teams", params(("teamId" = Uuid, Path)), responses((status = 200, body = MyTeamPermissions)))]
async fn get_my_team_permissions(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<TeamId>,
) -> Result<Json<MyTeamPermissions>, ApiError> {
    let (team, rights) = teams::rights(&mut *api.queue.read().await?, caller.actor(), id).await?;
    Ok(Json(MyTeamPermissions {
        team_id: id.0,
        role: team.role.map(TeamRole::from),
        acts_as: rights.into(),
        permissions: rights.permissions().map(TeamPermission::as_str).collect(),
    }))
}

#[derive(Debug, Serialize, ToSchema)]
struct CheckedTeamPermission {
    #[schema(example = "team.sessions.create")]
    permission: &'static str,
    allowed: bool,
}

/// Whether one has a permission in a team
#[utoipa::path(
    get, path = "/api/v1/teams/{teamId}/check-permission/{permission}", tag = "teams",
    params(("teamId" = Uuid, Path), ("permission" = String, Path, example = "team.sessions.create")),
    responses((status = 200, body = CheckedTeamPermission))
)]
async fn check_team_permission(
    State(api): State<Api>,
    caller: Caller,
    IdAndName(id, permission): IdAndName<TeamId>,
) -> Result<Json<CheckedTeamPermission>, ApiError> {
    let (_, rights) = teams::rights(&mut *api.queue.read().await?, caller.actor(), id).await?;
    let permission: TeamPermission = permission.parse()?;
    Ok(Json(CheckedTeamPermission { permission: permission.as_str(), allowed: rights.allows(permission) }))
}
