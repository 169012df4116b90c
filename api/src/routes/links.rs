//! What people do with links that were mailed to them, and how they get one.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode, header};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use streamspace_common::{Actor, PLATFORM, Secret};
use streamspace_domain::links::{self, Acceptance, NewInvitation};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::auth::{Context, SignedIn, check_chosen, signed_in};
use crate::{
    extract::{ApiTx, Faults, Name, Valid, Validate},
    problem::ApiError,
    state::Api,
    view::{Role, User},
};

pub fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(request_password_reset))
        .routes(routes!(confirm_password_reset))
        .routes(routes!(verify_email))
        .routes(routes!(invite))
        .routes(routes!(get_invitation))
        .routes(routes!(accept_invitation))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PasswordResetBody {
    #[schema(max_length = 320, example = "ada@example.org")]
    email: String,
    /// The slug. Without it the mail has a link for every tenant that knows the address.
    #[schema(max_length = 63)]
    tenant: Option<String>,
}

impl Validate for PasswordResetBody {
    fn validate(&self, faults: &mut Faults) {
        faults.text("/email", &self.email, 320);
        if let Some(tenant) = &self.tenant {
            faults.text("/tenant", tenant, 63);
        }
    }
}

/// Asks for a mail by which a forgotten password is replaced
///
/// Answers the same, and takes the same time, whether anybody has this address or not. A person gets
/// three such mails an hour at most.
#[utoipa::path(
    post, path = "/api/v1/auth/password-reset/request", tag = "auth", request_body = PasswordResetBody,
    responses((status = 202, description = "If somebody has this address, a mail is on its way"))
)]
async fn request_password_reset(
    State(api): State<Api>,
    request: Context,
    Valid(body): Valid<PasswordResetBody>,
) -> Result<StatusCode, ApiError> {
    let mut tx = api.queue.begin(Actor::system(PLATFORM), request.0);
    links::request_reset(&mut tx, body.email, body.tenant).await?;
    tx.commit().await?;
    Ok(StatusCode::ACCEPTED)
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ConfirmPasswordResetBody {
    /// What stands behind `#token=` in the link.
    #[schema(value_type = String, example = "ml_…")]
    token: Secret<String>,
    #[schema(value_type = String, format = Password, min_length = 8, max_length = 128)]
    password: Secret<String>,
    #[schema(value_type = String, format = Password)]
    password_confirmation: Secret<String>,
}

impl Validate for ConfirmPasswordResetBody {
    fn validate(&self, faults: &mut Faults) {
        check_chosen(faults, &self.password, &self.password_confirmation);
    }
}

/// Replaces a forgotten password
///
/// Works once, for an hour. Every sign-in of the person ends, the account is opened if failures have
/// closed it, and the address is the person's. A second factor stays.
#[utoipa::path(
    post, path = "/api/v1/auth/password-reset/confirm", tag = "auth", request_body = ConfirmPasswordResetBody,
    responses(
        (status = 204, description = "Replaced"),
        (status = 404, description = "There is no such link", body = crate::problem::Problem, content_type = "application/problem+json"),
        (status = 410, description = "The link was used, or is too old", body = crate::problem::Problem, content_type = "application/problem+json"),
    )
)]
async fn confirm_password_reset(
    State(api): State<Api>,
    request: Context,
    Valid(body): Valid<ConfirmPasswordResetBody>,
) -> Result<StatusCode, ApiError> {
    let user = api.links.reset_password(&request.0, body.token.expose(), body.password).await?;
    api.callers.forget(|checked| checked.actor.user == Some(user));
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct VerifyEmailBody {
    /// What stands behind `#token=` in the link.
    #[schema(value_type = String, example = "ml_…")]
    token: Secret<String>,
}

impl Validate for VerifyEmailBody {
    fn validate(&self, _: &mut Faults) {}
}

/// Shows that an e-mail address is one's own
#[utoipa::path(
    post, path = "/api/v1/auth/email/verify", tag = "auth", request_body = VerifyEmailBody,
    responses(
        (status = 204, description = "It is"),
        (status = 404, description = "There is no such link", body = crate::problem::Problem, content_type = "application/problem+json"),
        (status = 410, description = "The link was used, is too old, or for an address of before", body = crate::problem::Problem, content_type = "application/problem+json"),
    )
)]
async fn verify_email(
    State(api): State<Api>,
    request: Context,
    Valid(body): Valid<VerifyEmailBody>,
) -> Result<StatusCode, ApiError> {
    let user = api.links.verify_email(&request.0, body.token.expose()).await?;
    api.callers.forget(|checked| checked.actor.user == Some(user));
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct InvitationBody {
    #[schema(max_length = 320)]
    email: String,
    /// Until they say otherwise; the address when absent.
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
    /// From the address when absent.
    #[schema(max_length = 64)]
    username: Option<String>,
    role: Role,
}

impl Validate for InvitationBody {
    fn validate(&self, faults: &mut Faults) {
        faults.text("/email", &self.email, 320);
        if let Some(name) = &self.name {
            faults.text("/name", name, 200);
        }
    }
}

/// Somebody who is invited.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Invited {
    #[serde(flatten)]
    user: User,
    /// Mails the invitation: how it ends tells whether the mail was taken.
    job_id: Uuid,
}

/// Invites; to be committed here.
pub(crate) async fn answer_invited(mut tx: ApiTx, new: NewInvitation) -> Result<Response, ApiError> {
    let (user, job) = links::invite(&mut tx, new).await?;
    let location = format!("/api/v1/auth/users/{}", user.id);
    let invited = Invited { user: user.into(), job_id: job.0 };
    tx.commit((StatusCode::CREATED, [(header::LOCATION, location)], Json(invited))).await
}

/// Invites somebody into the tenant by a mail
///
/// They choose a password by its link, within seven days. Somebody who has not done so is invited again:
/// a new link, with what this request says. Admins and owners are invited by owners.
#[utoipa::path(
    post, path = "/api/v1/auth/invitations", tag = "auth", request_body = InvitationBody,
    responses((status = 201, body = Invited, headers(("Location" = String, description = "Of the person"))))
)]
async fn invite(tx: ApiTx, Valid(body): Valid<InvitationBody>) -> Result<Response, ApiError> {
    let InvitationBody { email, name, username, role } = body;
    answer_invited(tx, NewInvitation { email, name, username, role: role.into() }).await
}

/// What an invitation is to.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Invitation {
    tenant_name: String,
    email: String,
    name: String,
    role: Role,
    expires_at: Timestamp,
}

/// What an invitation is to, for whoever has its link
///
/// Looking at it does not use it.
#[utoipa::path(
    get, path = "/api/v1/auth/invitations/{token}", tag = "auth",
    params(("token" = String, Path, description = "What stands behind `#token=` in the link")),
    responses(
        (status = 200, body = Invitation),
        (status = 404, description = "There is no such link", body = crate::problem::Problem, content_type = "application/problem+json"),
        (status = 410, description = "The link was used, or is too old", body = crate::problem::Problem, content_type = "application/problem+json"),
    )
)]
async fn get_invitation(State(api): State<Api>, Name(token): Name) -> Result<Json<Invitation>, ApiError> {
    let found = api.links.invitation(&token).await?;
    Ok(Json(Invitation {
        tenant_name: found.tenant_name,
        email: found.email,
        name: found.name,
        role: found.role.into(),
        expires_at: found.expires_at,
    }))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct AcceptInvitationBody {
    /// As the invitation has it when absent.
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
    #[schema(value_type = String, format = Password, min_length = 8, max_length = 128)]
    password: Secret<String>,
    #[schema(value_type = String, format = Password)]
    password_confirmation: Secret<String>,
}

impl Validate for AcceptInvitationBody {
    fn validate(&self, faults: &mut Faults) {
        if let Some(name) = &self.name {
            faults.text("/name", name, 200);
        }
        check_chosen(faults, &self.password, &self.password_confirmation);
    }
}

/// Accepts an invitation with a password, and signs in
///
/// Works once, for seven days. The answer is that of `login`.
#[utoipa::path(
    post, path = "/api/v1/auth/invitations/{token}/accept", tag = "auth", request_body = AcceptInvitationBody,
    params(("token" = String, Path, description = "What stands behind `#token=` in the link")),
    responses(
        (status = 200, body = SignedIn),
        (status = 404, description = "There is no such link", body = crate::problem::Problem, content_type = "application/problem+json"),
        (status = 410, description = "The link was used, or is too old", body = crate::problem::Problem, content_type = "application/problem+json"),
    )
)]
async fn accept_invitation(
    State(api): State<Api>,
    request: Context,
    headers: HeaderMap,
    Name(token): Name,
    Valid(body): Valid<AcceptInvitationBody>,
) -> Result<Response, ApiError> {
    let client = api.site.client(&headers)?;
    let acceptance = Acceptance { name: body.name, password: body.password };
    let welcome = api.links.accept(&request.0, &token, acceptance, &client).await?;
    Ok(signed_in(&api, StatusCode::OK, welcome).into_response())
}
