//! Who may call what: every operation of the document, as nobody, as another tenant, as the lowest
//! role. An operation that is added without a permission fails here.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use streamspace_api::operations::{Access, OPERATIONS, find};
use streamspace_testkit::eventually;

use crate::app::{Answer, App, Person, any_id, key_of};

/// What a program asks for, in whole.
const AUTHORIZE: &str = "/cli/authorize?redirect_uri=http://127.0.0.1:1234/&state=walked&code_challenge_method=S256\
                         &code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

pub struct Operation {
    pub method: Method,
    pub path: String,
    pub document: Value,
}

/// What the public port answers.
pub fn operations() -> Vec<Operation> {
    let document: Value = serde_json::from_str(&streamspace_api::openapi_json()).unwrap();
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if operation.get("servers").is_none() {
                let method = method.to_uppercase().parse().unwrap();
                operations.push(Operation { method, path: path.clone(), document: operation.clone() });
            }
        }
    }
    operations
}

impl Operation {
    pub fn access(&self) -> Access {
        match find(&self.method, &self.path) {
            Some(operation) => operation.access,
            None => panic!("{} {} needs an entry in operations::OPERATIONS", self.method, self.path),
        }
    }

    /// The path with ids of things that exist and are ours.
    pub fn path(&self, ours: &Ours) -> String {
        let id = match self.path.split('/').nth(3) {
            Some("auth") if self.path.contains("/users/") => ours.owner.clone(),
            Some("auth") if self.path.contains("/oidc/providers/") => ours.provider.clone(),
            Some("jobs") => ours.job.clone(),
            Some("schedules") => ours.schedule.clone(),
            Some("teams") => ours.team.clone(),
            Some("api-keys") => ours.key.clone(),
            _ => any_id().to_string(),
        };
        format!("{}{}", self.path, self.query())
            .replace("{id}", &id)
            .replace("{teamId}", &id)
            .replace("{userId}", &ours.owner)
            .replace("{permission}", "team.manage")
            .replace("{key}", "ui.announcement")
            .replace("{provider}", "no-such-provider")
            .replace("{name}", "tests")
            .replace("{token}", "ml_walked")
            .replace("/cli/authorize", AUTHORIZE)
    }

    /// Without which nothing is looked up.
    pub fn query(&self) -> &'static str {
        match (self.method.as_str(), self.path.as_str()) {
            ("DELETE", "/api/v1/auth/users/{id}") => "?purge=true",
            _ => "",
        }
    }

    pub fn body(&self) -> Option<Value> {
        let schema = &self.document["requestBody"]["content"]["application/json"]["schema"]["$ref"];
        let name = schema.as_str()?.rsplit('/').next()?;
        Some(match name {
            "ScheduleBody" => schedule("walked"),
            "ApiKeyBody" => json!({ "name": "walked" }),
            "PreviewBody" => json!({ "cron": "* * * * *" }),
            "TicketBody" => json!({ "path": "/api/v1/ws/jobs" }),
            "ChangeQueueBody" => json!({ "maxRunning": 5 }),
            "CreateTeamBody" | "ChangeTeamBody" => json!({ "name": "walked" }),
            "AddTeamMemberBody" => json!({ "email": "viewer@example.org", "role": "owner" }),
            "ChangeTeamMemberBody" => json!({ "role": "viewer" }),
            "SettingBody" => json!({ "value": "walked" }),
            "IdentityProviderBody" => identity_provider("walked"),
            "LoginBody" => json!({ "email": "nobody@example.org", "password": "walked" }),
            "LoginMfaBody" => json!({ "challenge": "sc_walked", "code": "123456" }),
            "VerifyMfaBody" | "DisableMfaBody" => json!({ "code": "123456" }),
            "RefreshBody" => json!({ "refreshToken": "rt_walked" }),
            "CliTokenBody" => json!({
                "code": "cc_walked", "codeVerifier": "w".repeat(43), "redirectUri": "http://127.0.0.1:1234/",
            }),
            "ChangePasswordBody" => json!({
                "currentPassword": "walked", "password": "walked through", "passwordConfirmation": "walked through",
            }),
            "RegisterTenantBody" => json!({
                "tenantName": "Walked", "contactEmail": "walked@example.org", "email": "walked@example.org",
                "name": "Walked", "password": "walked through", "passwordConfirmation": "walked through",
            }),
            "CreateUserBody" => json!({
                "email": "walked@example.org", "name": "Walked", "role": "user",
                "password": "walked through", "passwordConfirmation": "walked through",
            }),
            "PasswordResetBody" => json!({ "email": "nobody@example.org" }),
            "ConfirmPasswordResetBody" => json!({
                "token": "ml_walked", "password": "walked through", "passwordConfirmation": "walked through",
            }),
            "VerifyEmailBody" => json!({ "token": "ml_walked" }),
            "InvitationBody" => json!({ "email": "invited@example.org", "role": "user" }),
            "AcceptInvitationBody" => {
                json!({ "password": "walked through", "passwordConfirmation": "walked through" })
            }
            "ChangeUserBody" | "ProfileBody" | "TenantBody" => json!({ "name": "Walked" }),
            // Nothing matches, so that the walk harms nothing.
            "JobFilter" => json!({ "kind": "no.such" }),
            other => panic!("a body for {other} is needed here"),
        })
    }

    pub async fn call(&self, app: &App, who: Option<&Person>, ours: &Ours) -> Answer {
        let path = self.path(ours);
        let mut request = match who {
            Some(who) => app.request(who, self.method.clone(), &path),
            None => app.anonymous(self.method.clone(), &path),
        };
        if let Some(body) = self.body() {
            request = request.json(&body);
        }
        Answer::of(request).await
    }
}

pub struct Ours {
    pub job: String,
    pub schedule: String,
    pub team: String,
    pub owner: String,
    pub key: String,
    pub provider: String,
}

pub fn identity_provider(name: &str) -> Value {
    json!({ "name": name, "providerUrl": "https://id.example", "clientId": "walked", "clientSecret": "walked" })
}

pub fn schedule(name: &str) -> Value {
    json!({
        "name": name,
        "kind": "jobs.change",
        "cron": "30 4 * * *",
        "arguments": { "change": "retry", "filter": { "kind": "no.such" } },
    })
}

pub async fn ours(app: &App) -> Ours {
    ours_named(app, "ours").await
}

pub async fn ours_named(app: &App, name: &str) -> Ours {
    let made = async |path: &str, body: Value| {
        let made = app.post(&app.ours.owner, path, body).await.expect(201).json();
        made["id"].as_str().unwrap().to_owned()
    };
    Ours {
        job: app.job(&app.ours.owner).await.to_string(),
        schedule: made("/api/v1/schedules", schedule(name)).await,
        team: made("/api/v1/teams", json!({ "name": name })).await,
        owner: app.ours.owner.id.to_string(),
        key: made("/api/v1/api-keys", json!({ "name": name })).await,
        provider: made("/api/v1/auth/oidc/providers", identity_provider(name)).await,
    }
}

#[tokio::test]
async fn the_table_and_the_document_name_the_same_operations() {
    let described = operations();
    for operation in &described {
        operation.access();
    }
    for known in OPERATIONS.iter().filter(|known| !known.path.starts_with("/api/docs")) {
        let found = described.iter().any(|o| o.method.as_str() == known.method && o.path == known.path);
        assert!(
            found || known.path == "/api/openapi.json",
            "{} {} is not described",
            known.method,
            known.path
        );
    }
}

#[tokio::test]
async fn nobody_gets_in_but_where_everybody_may() {
    let app = App::start().await;
    let ours = ours(&app).await;
    for operation in operations() {
        let answer = operation.call(&app, None, &ours).await;
        match operation.access() {
            // Answers everybody alike.
            Access::Public if operation.path == "/api/v1/auth/password-reset/request" => {
                assert_eq!(answer.status, 202, "{}", answer.text);
            }
            // Strangers are refused there for what they send.
            Access::Public if operation.method == Method::POST => {
                assert!(matches!(answer.status, 401 | 403 | 404), "{}: {}", operation.path, answer.text);
            }
            // Browsers on their way, which nobody has sent.
            Access::Public if operation.path.contains("{provider}") => {
                assert!(matches!(answer.status, 400 | 404), "{}: {}", operation.path, answer.text);
            }
            Access::Public if operation.path.contains("{token}") => {
                answer.problem(404, "not-found");
            }
            Access::Public | Access::Unlimited => {
                assert_eq!(answer.status, 200, "{}: {}", operation.path, answer.text);
            }
            Access::Needs { .. } => {
                let answer = answer.problem(401, "unauthenticated");
                assert_eq!(answer.header("www-authenticate"), "Bearer");
                assert_eq!(answer.header("ratelimit"), "", "only who is known is counted");
            }
        }
    }
}

#[tokio::test]
async fn what_looks_like_a_key_is_not_one() {
    let app = App::start().await;
    let good = &app.ours.owner.key;
    let wrong = [
        String::new(),
        "sk_".to_owned(),
        good[..good.len() - 1].to_owned(),
        format!("{good}A"),
        good.replace("sk_", "SK_"),
        "' or 1=1 --".to_owned(),
        format!("sk_{}", "A".repeat(43)),
    ];
    for key in &wrong {
        let request = app.anonymous(Method::GET, "/api/v1/jobs").header("x-api-key", key);
        Answer::of(request).await.problem(401, "unauthenticated");
    }
    let request = app.anonymous(Method::GET, "/api/v1/jobs").header("authorization", format!("Basic {good}"));
    Answer::of(request).await.problem(401, "unauthenticated");
    let request =
        app.anonymous(Method::GET, "/api/v1/jobs").header("authorization", format!("bearer {good}"));
    Answer::of(request).await.expect(200);
    // A key does not go into an address.
    let request = app.anonymous(Method::GET, &format!("/api/v1/ws/jobs?ticket={good}"));
    Answer::of(request).await.problem(401, "unauthenticated");
}

#[tokio::test]
async fn another_tenants_things_do_not_exist() {
    let app = App::start().await;
    let ours = ours(&app).await;
    let is_ours = |path: &str| path.contains("{id}") || path.contains("{teamId}");
    for operation in operations().iter().filter(|operation| is_ours(&operation.path)) {
        if operation.path.contains("/workers/") {
            continue; // everybody's, and nobody's
        }
        let answer = operation.call(&app, Some(&app.theirs.owner), &ours).await;
        assert_eq!(answer.status, 404, "{} {}: {}", operation.method, operation.path, answer.text);
        answer.problem(404, "not-found");
    }
    // And nothing has happened to them.
    let job = app.get(&app.ours.owner, &format!("/api/v1/jobs/{}", ours.job)).await.expect(200).json();
    assert_eq!(job["state"], "queued");
    app.get(&app.ours.owner, &format!("/api/v1/schedules/{}", ours.schedule)).await.expect(200);
    app.get(&app.ours.owner, &format!("/api/v1/teams/{}", ours.team)).await.expect(200);
    for list in ["jobs", "teams", "teams/my-teams"] {
        let listed = app.get(&app.theirs.owner, &format!("/api/v1/{list}")).await.expect(200).json();
        assert_eq!(listed["items"], json!([]), "{list}");
    }
    let keys = app.get(&app.ours.owner, "/api/v1/api-keys?active=true").await.expect(200).text;
    assert!(keys.contains(&ours.key), "{keys}");
}

#[tokio::test]
async fn the_lowest_role_reads_its_own_and_changes_nothing() {
    let app = App::start().await;
    let ours = ours(&app).await;
    let own = [
        "/api/v1/auth/profile",
        "/api/v1/auth/sessions",
        "/api/v1/jobs",
        "/api/v1/ws/jobs",
        "/api/v1/streams/ticket",
        "/api/v1/teams/my-teams",
        "/api/v1/api-keys",
    ];
    for operation in operations() {
        let Access::Needs { permission, .. } = operation.access() else { continue };
        let answer = operation.call(&app, Some(&app.ours.viewer), &ours).await;
        let expected: &[u16] = match operation.path.as_str() {
            "/api/v1/jobs/{id}" if operation.method == Method::GET => &[404],
            "/api/v1/jobs/{id}/events" => &[404],
            path if path.starts_with("/api/v1/api-keys/") => &[404],
            "/api/v1/auth/sessions/{id}" => &[404],
            // A key is no sign-in, and this person has no password.
            "/api/v1/auth/logout" => &[409],
            path if path.starts_with("/api/v1/auth/mfa") => &[409],
            "/api/v1/auth/change-password" => &[422],
            "/api/v1/auth/tenant/profile" if operation.method == Method::GET => &[200],
            path if own.contains(&path) => &[200, 201, 426],
            "/api/v1/teams" if operation.method == Method::GET => &[200],
            path if path.starts_with("/api/v1/teams/{teamId}") && operation.method == Method::GET => &[404],
            "/api/v1/teams/{teamId}/members/{userId}" if operation.method == Method::DELETE => &[404],
            _ => &[403],
        };
        assert!(
            expected.contains(&answer.status),
            "{} {} ({permission:?}): {} {}",
            operation.method,
            operation.path,
            answer.status,
            answer.text
        );
    }
}

#[tokio::test]
async fn a_person_sees_their_own_jobs_and_operators_all() {
    let app = App::start().await;
    let (mine, other) = (app.job(&app.ours.user).await, app.job(&app.ours.owner).await);
    let seen = async |who: &Person| {
        let list = app.get(who, "/api/v1/jobs").await.expect(200).json();
        let mut ids: Vec<_> = list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|job| job["id"].as_str().unwrap().to_owned())
            .collect();
        ids.reverse();
        ids
    };
    assert_eq!(seen(&app.ours.user).await, [mine.to_string()]);
    assert_eq!(seen(&app.ours.operator).await, [mine.to_string(), other.to_string()]);
    assert!(seen(&app.ours.viewer).await.is_empty());
    app.post(&app.ours.user, &format!("/api/v1/jobs/{other}/cancel"), json!({}))
        .await
        .problem(404, "not-found");
    app.post(&app.ours.user, &format!("/api/v1/jobs/{mine}/cancel"), json!({})).await.expect(200);
    app.post(&app.ours.user, &format!("/api/v1/jobs/{mine}/retry"), json!({}))
        .await
        .problem(403, "forbidden");
}

#[tokio::test]
async fn an_owner_does_not_reach_the_installation() {
    let app = App::start().await;
    let ours = ours(&app).await;
    for operation in operations() {
        let Access::Needs { permission, .. } = operation.access() else { continue };
        if permission.least() == streamspace_domain::identity::Least::Platform {
            operation.call(&app, Some(&app.ours.owner), &ours).await.problem(403, "forbidden");
            operation.call(&app, Some(&app.platform), &ours).await.problem(404, "not-found");
        }
    }
    // An owner's pause holds for the tenant; the platform's for everyone.
    app.job(&app.theirs.owner).await;
    app.execute(
        "insert into queue_depths (queue, tenant_id, waiting, delayed, blocked, parked, running, counted_at)
         select 'tests', id, 1, 0, 0, 0, 0, now() from tenants",
    )
    .await;
    let paused = |who: &Person| {
        let request = app.request(who, Method::GET, "/api/v1/queues/tests");
        async { Answer::of(request).await.expect(200).json()["paused"].as_bool().unwrap() }
    };
    app.post(&app.ours.owner, "/api/v1/queues/tests/pause", json!({})).await.expect(200);
    assert!(paused(&app.ours.owner).await);
    assert!(!paused(&app.theirs.owner).await);
    app.post(&app.platform, "/api/v1/queues/tests/pause", json!({})).await.expect(200);
    assert!(paused(&app.theirs.owner).await);
}

#[tokio::test]
async fn a_scope_narrows_a_key() {
    let app = App::start().await;
    let owner = &app.ours.owner;
    let narrow = async |scopes: &[&str]| Person {
        key: key_of(&app.queue, owner.tenant, owner.id, scopes).await,
        ..owner.clone()
    };
    let reader = narrow(&["jobs.read"]).await;
    app.get(&reader, "/api/v1/jobs").await.expect(200);
    app.post(&reader, "/api/v1/jobs/retry", json!({})).await.problem(403, "forbidden");
    app.get(&reader, "/api/v1/ws/jobs").await.problem(403, "forbidden");
    let writer = narrow(&["jobs.write"]).await;
    app.get(&writer, "/api/v1/jobs").await.problem(403, "forbidden");
    app.post(&writer, "/api/v1/jobs/retry", json!({ "kind": "no.such" })).await.expect(200);
}

#[tokio::test]
async fn a_key_ends_within_a_second() {
    let app = App::start().await;
    let user = &app.ours.user;
    app.get(user, "/api/v1/jobs").await.expect(200);
    app.execute(&format!("update users set active = false where id = '{}'", user.id)).await;
    eventually(Duration::from_secs(5), "the key of a disabled person is refused", async || {
        (app.get(user, "/api/v1/jobs").await.status == 401).then_some(())
    })
    .await;
}

#[tokio::test]
async fn which_jobs_a_built_in_schedule_made_is_the_platforms() {
    let app = App::start().await;
    let Ours { job, schedule, .. } = ours(&app).await;
    let made = format!("update schedules set last_job_id = '{job}' where id = '{schedule}'");
    app.execute(&made).await;
    let path = format!("/api/v1/schedules/{schedule}");
    let last_jobs = async |who: &Person| {
        let listed = app.get(who, "/api/v1/schedules").await.expect(200).json();
        let one = app.get(who, &path).await.expect(200).json();
        [listed["items"][0]["lastJobId"].clone(), one["lastJobId"].clone()]
    };
    assert_eq!(last_jobs(&app.ours.operator).await, [json!(job), json!(job)]);
    let platform = app.platform.tenant;
    app.execute(&format!("update schedules set built_in = true, user_id = null, tenant_id = '{platform}'"))
        .await;
    assert_eq!(last_jobs(&app.ours.operator).await, [Value::Null, Value::Null]);
    assert_eq!(last_jobs(&app.platform).await, [json!(job), json!(job)]);
}
