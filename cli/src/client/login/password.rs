//! Signing in by e-mail address and password, and the second factor where there is one.

use anyhow::Result;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use streamspace_common::Secret;

use super::Questions;
use crate::{
    client::{
        api::{Api, Call},
        error::Error,
        session::SignedIn,
    },
    console,
};

/// The answer when the password was right and is not enough.
#[derive(Deserialize)]
struct Challenge {
    challenge: Secret<String>,
}

/// Codes that are tried: whoever mistypes one need not begin again.
const CODES: u32 = 3;

pub async fn sign_in(api: &Api, questions: &mut Questions) -> Result<SignedIn> {
    let email = questions.line("E-mail address")?.trim().to_owned();
    let password = questions.secret("Password")?;
    let mut body = json!({ "email": email, "password": password.expose() });
    let answer = match send(api, "login", body.clone()).await {
        Err(error) if let Some(slugs) = slugs(&error) => {
            let tenant = questions.line(&format!("Tenant ({slugs})"))?;
            body["tenant"] = tenant.trim().into();
            send(api, "login", body).await?
        }
        answer => answer?,
    };
    match serde_json::from_str::<Challenge>(answer.get()) {
        Ok(Challenge { challenge }) => second_factor(api, questions, &challenge).await,
        Err(_) => read(api, &answer),
    }
}

async fn second_factor(api: &Api, questions: &mut Questions, challenge: &Secret<String>) -> Result<SignedIn> {
    let mut left = if questions.is_person() { CODES } else { 1 };
    loop {
        let code = questions.secret("Code of your authenticator, or a recovery code")?;
        let mut body = proof(&code);
        body["challenge"] = challenge.expose().as_str().into();
        left -= 1;
        match send(api, "login/mfa", body).await {
            Err(error) if error.is_unauthenticated() && left > 0 => {
                console::say("That one was not taken. Wait for the next, or use a recovery code.");
            }
            answer => return read(api, &answer?),
        }
    }
}

/// An authenticator shows six digits; nothing on paper looks like that.
fn proof(code: &Secret<String>) -> Value {
    let digits: String = code.expose().chars().filter(|c| !c.is_whitespace()).collect();
    match digits.len() == 6 && digits.bytes().all(|b| b.is_ascii_digit()) {
        true => json!({ "code": digits }),
        false => json!({ "recoveryCode": code.expose().trim() }),
    }
}

/// Sent once: each attempt counts.
async fn send(api: &Api, path: &str, body: Value) -> Result<Box<RawValue>, Error> {
    api.send_once(&Call::post(["auth"].into_iter().chain(path.split('/'))).body(body)).await
}

fn read(api: &Api, answer: &RawValue) -> Result<SignedIn> {
    Ok(serde_json::from_str(answer.get()).map_err(|error| api.unreadable(error))?)
}

/// Of the tenants that the password fits in.
fn slugs(error: &Error) -> Option<String> {
    let problem = error.problem("tenant-required")?;
    Some(problem.errors.iter().map(|error| error.detail.as_str()).collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_digits_are_a_code_and_all_else_is_from_paper() {
        assert_eq!(proof(&" 123 456\n".into()), json!({ "code": "123456" }));
        assert_eq!(proof(&" ABCD-EFGH-IJKL-MNOP ".into()), json!({ "recoveryCode": "ABCD-EFGH-IJKL-MNOP" }));
        assert_eq!(proof(&"12345".into()), json!({ "recoveryCode": "12345" }));
    }
}
