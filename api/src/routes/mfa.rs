//! The second factor.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, StatusCode};
use qrcode::{QrCode, render::svg};
use serde::{Deserialize, Serialize};
use streamspace_common::{Secret, SignInId};
use streamspace_domain::sign_in::{
    Error,
    mfa::{self, Enrolment, Proof},
};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::auth::{Context, SignedIn, signed_in};
use crate::{
    caller::Caller,
    extract::{ApiTx, Faults, Once, Valid, Validate},
    problem::ApiError,
    state::Api,
};

pub fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(login_mfa))
        .routes(routes!(enroll))
        .routes(routes!(verify))
        .routes(routes!(disable))
}

/// A key acts for a person, and may not lock them out.
fn by_sign_in(caller: &Caller) -> Result<SignInId, ApiError> {
    caller.checked().sign_in().ok_or_else(|| {
        ApiError::conflict("no-sign-in", "the second factor is changed by who is signed in, not by a key")
    })
}

/// One of the two.
fn proof(code: Option<Secret<String>>, recovery: Option<Secret<String>>) -> Option<Proof> {
    match (code, recovery) {
        (Some(code), None) => Some(Proof::Code(code)),
        (None, Some(code)) => Some(Proof::Recovery(code)),
        _ => None,
    }
}

fn check_proof(faults: &mut Faults, code: &Option<Secret<String>>, recovery: &Option<Secret<String>>) {
    if code.is_some() == recovery.is_some() {
        faults.add("/code", "give a code or a recoveryCode");
    }
    for (pointer, given) in [("/code", code), ("/recoveryCode", recovery)] {
        if given.as_ref().is_some_and(|given| given.expose().len() > 100) {
            faults.add(pointer, "no code is this long");
        }
    }
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct LoginMfaBody {
    /// From `login`.
    #[schema(value_type = String, max_length = 200)]
    challenge: Secret<String>,
    /// Of the authenticator…
    #[schema(value_type = Option<String>, example = "123456")]
    code: Option<Secret<String>>,
    /// …or one of those on paper.
    #[schema(value_type = Option<String>, example = "ABCD-EFGH-IJKL-MNOP")]
    recovery_code: Option<Secret<String>>,
}

impl Validate for LoginMfaBody {
    fn validate(&self, faults: &mut Faults) {
        check_proof(faults, &self.code, &self.recovery_code);
        if self.challenge.expose().len() > 200 {
            faults.add("/challenge", "no challenge is this long");
        }
    }
}

/// Completes a sign-in by the second factor
#[utoipa::path(post, path = "/api/v1/auth/login/mfa", tag = "auth", request_body = LoginMfaBody, responses((status = 200, body = SignedIn)))]
async fn login_mfa(
    State(api): State<Api>,
    request: Context,
    headers: HeaderMap,
    Valid(body): Valid<LoginMfaBody>,
) -> Result<Response, ApiError> {
    let client = api.site.client(&headers)?;
    let proof = proof(body.code, body.recovery_code).expect("one of the two: it is valid");
    let welcome = api.sign_ins.login_mfa(&request.0, body.challenge.expose(), &proof, &client).await?;
    Ok(signed_in(&api, StatusCode::OK, welcome))
}

/// What an authenticator needs. Shown once.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Enrolled {
    #[schema(example = "otpauth://totp/…")]
    otpauth_uri: String,
    /// The same, to be typed.
    secret: String,
    /// The same, to be shown to a camera: an SVG image as a `data:` URL.
    qr_code: String,
}

impl Enrolled {
    fn new(enrolment: &Enrolment) -> Result<Self, ApiError> {
        let uri = enrolment.uri.expose();
        let code = QrCode::new(uri).map_err(|error| ApiError::internal(&error))?;
        let image = code.render::<svg::Color<'_>>().min_dimensions(240, 240).build();
        Ok(Self {
            otpauth_uri: uri.clone(),
            secret: enrolment.secret.expose().clone(),
            qr_code: format!("data:image/svg+xml;base64,{}", STANDARD.encode(image)),
        })
    }
}

fn refused(error: Error) -> ApiError {
    match error {
        Error::NotLately => {
            let detail = error.to_string();
            ApiError::new(StatusCode::FORBIDDEN, "sign-in-again", "Sign in again first", detail)
        }
        other => other.into(),
    }
}

/// Begins a second factor
///
/// It counts once `verify` was shown a code of it; until then another call begins anew. It takes a sign-in of
/// the last fifteen minutes, by password or provider.
#[utoipa::path(post, path = "/api/v1/auth/mfa/enroll", tag = "auth", responses((status = 200, body = Enrolled)))]
async fn enroll(State(api): State<Api>, caller: Caller, mut tx: ApiTx) -> Result<Response, ApiError> {
    let sign_in = by_sign_in(&caller)?;
    let enrolment = mfa::enroll(&mut tx, api.sign_ins.master(), sign_in).await.map_err(refused)?;
    let mut answer = Json(Enrolled::new(&enrolment)?).into_response();
    answer.extensions_mut().insert(Once { location: None });
    tx.commit(answer).await
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct VerifyMfaBody {
    #[schema(value_type = String, example = "123456")]
    code: Secret<String>,
}

impl Validate for VerifyMfaBody {
    fn validate(&self, faults: &mut Faults) {
        check_proof(faults, &Some(self.code.clone()), &None);
    }
}

/// A second factor that is on.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct MfaEnabled {
    mfa_enabled: bool,
    /// Each opens once, in the authenticator's stead. Shown once.
    recovery_codes: Vec<String>,
}

/// Switches the second factor on
#[utoipa::path(post, path = "/api/v1/auth/mfa/verify", tag = "auth", request_body = VerifyMfaBody, responses((status = 200, body = MfaEnabled)))]
async fn verify(
    State(api): State<Api>,
    caller: Caller,
    mut tx: ApiTx,
    Valid(body): Valid<VerifyMfaBody>,
) -> Result<Response, ApiError> {
    by_sign_in(&caller)?;
    let codes = mfa::enable(&mut tx, api.sign_ins.master(), &body.code).await?;
    let recovery_codes = codes.iter().map(|code| code.expose().clone()).collect();
    let mut answer = Json(MfaEnabled { mfa_enabled: true, recovery_codes }).into_response();
    answer.extensions_mut().insert(Once { location: None });
    let answer = tx.commit(answer).await;
    let user = caller.actor().user;
    api.callers.forget(|checked| checked.actor.user == user);
    answer
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct DisableMfaBody {
    #[schema(value_type = Option<String>, example = "123456")]
    code: Option<Secret<String>>,
    #[schema(value_type = Option<String>, example = "ABCD-EFGH-IJKL-MNOP")]
    recovery_code: Option<Secret<String>>,
}

impl Validate for DisableMfaBody {
    fn validate(&self, faults: &mut Faults) {
        check_proof(faults, &self.code, &self.recovery_code);
    }
}

/// Switches the second factor off
///
/// Takes a code of it, or one of those on paper.
#[utoipa::path(delete, path = "/api/v1/auth/mfa", tag = "auth", request_body = DisableMfaBody, responses((status = 204, description = "It is off")))]
async fn disable(
    State(api): State<Api>,
    caller: Caller,
    Valid(body): Valid<DisableMfaBody>,
) -> Result<StatusCode, ApiError> {
    by_sign_in(&caller)?;
    let proof = proof(body.code, body.recovery_code).expect("one of the two: it is valid");
    api.sign_ins.disable_mfa(caller.actor(), caller.request(), &proof).await?;
    let user = caller.actor().user;
    api.callers.forget(|checked| checked.actor.user == user);
    Ok(StatusCode::NO_CONTENT)
}
