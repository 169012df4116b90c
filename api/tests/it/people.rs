//! People leave, by their own wish or others'; tenants are suspended.

use std::{sync::Arc, time::Duration};

use reqwest::Method;
use serde_json::{Value, json};
use streamspace_common::{Actor, PLATFORM, Role};
use streamspace_domain::{
    Ports,
    identity::{People, tenants},
};
use streamspace_queue::{Request, WorkerOptions, run_worker};
use streamspace_testkit::eventually;
use tokio_util::sync::CancellationToken;

use crate::{
    app::{Answer, App, PASSWORD, Person, any_id},
    sign_in::{cheap, login},
};

const SOON: Duration = Duration::from_secs(20);

/// Runs the product's jobs for as long as the value lives.
struct Worker(CancellationToken);

impl Worker {
    fn start(app: &App) -> Self {
        let stop = CancellationToken::new();
        let (queue, registry) = (app.queue.clone(), streamspace_domain::registry(&Ports::default()));
        let handlers = tokio::runtime::Handle::current();
        let options = WorkerOptions::default();
        tokio::spawn(run_worker(queue, registry, Arc::new(People), options, handlers, stop.clone()));
        Self(stop)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

fn path(who: &Person) -> String {
    format!("/api/v1/auth/users/{}", who.id)
}

async fn delete(app: &App, by: &Person, whom: &Person, query: &str) -> Answer {
    Answer::of(app.request(by, Method::DELETE, &format!("{}?{query}", path(whom)))).await
}

async fn change(app: &App, by: &Person, whom: &Person, body: Value) -> Answer {
    Answer::of(app.request(by, Method::PATCH, &path(whom)).json(&body)).await
}

async fn ends(app: &App, by: &Person, job: &str) -> Value {
    eventually(SOON, "the job ends", async || {
        let job = app.get(by, &format!("/api/v1/jobs/{job}")).await.expect(200).json();
        (job["terminal"] == true).then_some(job)
    })
    .await
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

#[tokio::test]
async fn who_is_deleted_is_out_at_once_and_gone_when_the_job_is_done() {
    let app = App::start_with(cheap()).await;
    let (owner, user, operator) = (&app.ours.owner, &app.ours.user, &app.ours.operator);
    app.set_password(user).await;
    let team = app.post(user, "/api/v1/teams", json!({ "name": "Theirs" })).await.expect(201).json();
    let signed_in = login(&app, json!({ "email": user.email, "password": PASSWORD, "tenant": user.slug }))
        .await
        .expect(200);
    let token = text(&signed_in.json()["accessToken"]);
    let answer = delete(&app, owner, user, &format!("transferTo={}", operator.id)).await.expect(202);
    let leaving = answer.json();
    assert_eq!((&leaving["id"], &leaving["active"]), (&json!(user.id), &json!(false)));
    let job = text(&leaving["jobId"]);
    assert_eq!(answer.header("location"), format!("/api/v1/jobs/{job}"));
    assert_eq!(answer.header("retry-after"), "1");
    app.get(user, "/api/v1/jobs").await.problem(401, "unauthenticated");
    let profile = app.anonymous(Method::GET, "/api/v1/auth/profile").bearer_auth(&token);
    Answer::of(profile).await.problem(401, "unauthenticated");
    // Of the person the job has the id and nothing else.
    let args = app.get(owner, &format!("/api/v1/jobs/{job}")).await.expect(200).text;
    assert!(!args.contains(&user.email) && args.contains("identity.delete_user"), "{args}");
    // Twice is once; with something else it is refused.
    let again = delete(&app, owner, user, &format!("transferTo={}", operator.id)).await.expect(202);
    assert_eq!(again.json()["jobId"], leaving["jobId"]);
    delete(&app, owner, user, "purge=true").await.problem(409, "conflict");

    let _worker = Worker::start(&app);
    assert_eq!(ends(&app, owner, &job).await["state"], "succeeded");
    app.get(owner, &path(user)).await.problem(404, "not-found");
    let members =
        app.get(owner, &format!("/api/v1/teams/{}/members", text(&team["id"]))).await.expect(200).json();
    let [member] = members["items"].as_array().unwrap().as_slice() else { panic!("{members}") };
    assert_eq!((&member["userId"], &member["role"]), (&json!(operator.id), &json!("owner")));
    // What they did is theirs still.
    let audit = app.get(owner, &format!("/api/v1/audit?user={}", user.id)).await.expect(200).json();
    let actions: Vec<_> =
        audit["items"].as_array().unwrap().iter().map(|row| row["action"].clone()).collect();
    assert!(actions.contains(&json!("teams.create")), "{audit}");
    delete(&app, owner, user, "purge=true").await.problem(404, "not-found");
    // Their address and name are free again.
    let body = json!({
        "email": user.email, "name": "Another", "role": "user",
        "password": "walked through", "passwordConfirmation": "walked through",
    });
    let another = app.post(owner, "/api/v1/auth/register/user", body).await.expect(201).json();
    assert_eq!(another["username"], "user");
}

#[tokio::test]
async fn a_purge_takes_what_nobody_shares() {
    let app = App::start().await;
    let (owner, user) = (&app.ours.owner, &app.ours.user);
    let team = app.post(user, "/api/v1/teams", json!({ "name": "Theirs" })).await.expect(201).json();
    let leaving = delete(&app, owner, user, "purge=true").await.expect(202).json();
    let _worker = Worker::start(&app);
    let job = ends(&app, owner, &text(&leaving["jobId"])).await;
    assert_eq!((&job["state"], &job["result"]["teamsDeleted"]), (&json!("succeeded"), &json!(1)), "{job}");
    app.get(owner, &format!("/api/v1/teams/{}", text(&team["id"]))).await.problem(404, "not-found");
}

#[tokio::test]
async fn what_becomes_of_their_things_must_be_said() {
    let app = App::start().await;
    let (owner, user) = (&app.ours.owner, &app.ours.user);
    let (heir, stranger) = (app.ours.operator.id, app.theirs.owner.id);
    for query in [
        String::new(),
        "purge=false".to_owned(),
        "purge=yes".to_owned(),
        "transferTo=somebody".to_owned(),
        format!("transferTo={heir}&purge=true"),
        format!("transferTo={}", user.id),
        format!("transferTo={stranger}"),
        format!("transferTo={}", any_id()),
        format!("transferTo={}", app.ours.viewer.id),
        "purge=true&force=true".to_owned(),
    ] {
        delete(&app, owner, user, &query).await.problem(422, "invalid");
    }
    app.get(user, "/api/v1/jobs").await.expect(200);
    assert_eq!(app.count("select count(*) from jobs where kind = 'identity.delete_user'").await, 0);
}

/// Somebody of a role that the house has none of.
async fn with_role(app: &App, who: &Person, role: Role) -> Person {
    change(app, &app.ours.owner, who, json!({ "role": role })).await.expect(200);
    Person { role, ..who.clone() }
}

#[tokio::test]
async fn admins_and_owners_are_the_owners_to_delete() {
    let app = App::start().await;
    let owner = &app.ours.owner;
    let admin = with_role(&app, &app.ours.operator, Role::Admin).await;
    let other = with_role(&app, &app.ours.viewer, Role::Admin).await;
    delete(&app, &app.ours.user, &app.ours.user, "purge=true").await.problem(403, "forbidden");
    delete(&app, &admin, owner, "purge=true").await.problem(403, "forbidden");
    delete(&app, &admin, &other, "purge=true").await.problem(403, "forbidden");
    delete(&app, &admin, &app.theirs.user, "purge=true").await.problem(404, "not-found");
    delete(&app, &admin, &app.ours.user, "purge=true").await.expect(202);
    // Oneself; and an owner, anybody.
    delete(&app, &admin, &admin, "purge=true").await.expect(202);
    app.get(&admin, "/api/v1/auth/profile").await.problem(401, "unauthenticated");
    delete(&app, owner, &other, "purge=true").await.expect(202);
    delete(&app, owner, owner, "purge=true").await.problem(409, "conflict");
    // A key of the tenant has its role, and nobody rises by it.
    let key = json!({ "name": "admin's", "owner": "tenant", "role": "admin" });
    let key = app.post(owner, "/api/v1/api-keys", key).await.expect(201).json();
    let as_key = Person { key: text(&key["key"]), ..owner.clone() };
    delete(&app, &as_key, owner, "purge=true").await.problem(403, "forbidden");
    // Whoever deletes themselves is gone in the end.
    let _worker = Worker::start(&app);
    eventually(SOON, "three are gone", async || {
        let left = app
            .count("select count(*) from users u join tenants t on t.id = u.tenant_id where slug = 'ours'");
        (left.await == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn of_two_owners_one_stays_whatever_comes_at_once() {
    for _ in 0..3 {
        let app = App::start().await;
        let one = app.ours.owner.clone();
        let two = with_role(&app, &app.ours.operator, Role::Owner).await;
        let asked = (0..10).map(|n| {
            let (app, by, whom) =
                (&app, if n % 2 == 0 { &one } else { &two }, if n % 4 < 2 { &two } else { &one });
            async move {
                match n % 3 {
                    0 => delete(app, by, whom, "purge=true").await,
                    1 => change(app, by, whom, json!({ "role": "admin" })).await,
                    _ => change(app, by, whom, json!({ "active": false })).await,
                }
            }
        });
        for answer in futures::future::join_all(asked).await {
            assert!(
                matches!(answer.status, 200 | 202 | 401 | 403 | 409),
                "{} {}",
                answer.status,
                answer.text
            );
        }
        let owners = "select count(*) from users u join tenants t on t.id = u.tenant_id
                      where slug = 'ours' and role = 'owner' and u.active";
        assert_eq!(app.count(owners).await, 1);
    }
}

#[tokio::test]
async fn of_ten_that_delete_one_person_at_once_all_are_told_of_one_job() {
    let app = App::start().await;
    let asked = (0..10).map(|_| delete(&app, &app.ours.owner, &app.ours.user, "purge=true"));
    let jobs: std::collections::HashSet<_> = futures::future::join_all(asked)
        .await
        .into_iter()
        .map(|answer| text(&answer.expect(202).json()["jobId"]))
        .collect();
    assert_eq!(jobs.len(), 1);
    assert_eq!(app.count("select count(*) from jobs where kind = 'identity.delete_user'").await, 1);
    assert_eq!(app.count("select count(*) from audit where action = 'users.delete'").await, 1);
}

#[tokio::test]
async fn a_cancelled_deletion_is_taken_back_or_asked_for_again() {
    let app = App::start().await;
    let (owner, user) = (&app.ours.owner, &app.ours.user);
    let job = text(&delete(&app, owner, user, "purge=true").await.expect(202).json()["jobId"]);
    change(&app, owner, user, json!({ "active": true })).await.problem(409, "conflict");
    app.post(owner, &format!("/api/v1/jobs/{job}/cancel"), json!({})).await.expect(200);
    app.get(user, "/api/v1/jobs").await.problem(401, "unauthenticated");
    let again = text(&delete(&app, owner, user, "purge=true").await.expect(202).json()["jobId"]);
    assert_ne!(again, job);
    app.post(owner, &format!("/api/v1/jobs/{again}/cancel"), json!({})).await.expect(200);
    change(&app, owner, user, json!({ "active": true })).await.expect(200);
    app.get(user, "/api/v1/jobs").await.expect(200);
}

/// Nothing of a person is set by a field that nobody meant to take.
#[tokio::test]
async fn what_a_body_has_no_place_for_is_refused() {
    let app = App::start().await;
    let (owner, user) = (&app.ours.owner, &app.ours.user);
    let fields = json!({
        "id": any_id(), "tenant": app.theirs.id, "tenantId": app.theirs.id, "platformAdmin": true,
        "platform_admin": true, "passwordHash": "$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$AAAA",
        "password_hash": "x", "emailVerified": true, "failedLoginCount": 0, "deletionJobId": null,
        "permissions": ["tenants.manage"],
    });
    for (name, value) in fields.as_object().unwrap() {
        let with = |mut body: Value| {
            body[name] = value.clone();
            body
        };
        let profile =
            app.request(user, Method::PUT, "/api/v1/auth/profile").json(&with(json!({ "name": "N" })));
        Answer::of(profile).await.problem(422, "invalid");
        change(&app, owner, user, with(json!({ "name": "N" }))).await.problem(422, "invalid");
        let made = with(json!({
            "email": "new@example.org", "name": "N", "role": "user",
            "password": "walked through", "passwordConfirmation": "walked through",
        }));
        app.post(owner, "/api/v1/auth/register/user", made).await.problem(422, "invalid");
    }
    for (name, value) in
        [("role", json!("owner")), ("active", json!(true)), ("email", json!("me@evil.example"))]
    {
        let profile = app.request(user, Method::PUT, "/api/v1/auth/profile").json(&json!({ name: value }));
        Answer::of(profile).await.problem(422, "invalid");
    }
    let me = app.get(user, "/api/v1/auth/profile").await.expect(200).json();
    assert_eq!(
        (&me["name"], &me["role"], &me["platformAdmin"]),
        (&json!("Somebody"), &json!("user"), &json!(false))
    );
}

#[tokio::test]
async fn a_suspended_tenant_is_out_on_every_replica_and_back_when_it_goes_on() {
    let app = App::start_with(cheap()).await;
    let user = &app.ours.user;
    app.set_password(user).await;
    let body = json!({ "email": user.email, "password": PASSWORD, "tenant": user.slug });
    let token = text(&login(&app, body.clone()).await.expect(200).json()["accessToken"]);
    let there = app.another().await;
    let client = reqwest::Client::new();
    let elsewhere = async || {
        let request = client.get(format!("http://{there}/api/v1/auth/profile")).bearer_auth(&token);
        Answer::of(request).await.status
    };
    assert_eq!(elsewhere().await, 200);
    app.get(user, "/api/v1/jobs").await.expect(200);
    let job = app.job(user).await;
    let waits = format!("/api/v1/jobs/{job}?wait=30s");
    let waiting = app.get(user, &waits);
    let set = async |active: bool| {
        let mut tx = app.queue.begin(Actor::system(PLATFORM), Request::default());
        let done = if active {
            tenants::resume(&mut tx, "ours").await
        } else {
            tenants::suspend(&mut tx, "ours").await
        };
        done.unwrap();
        tx.commit().await.unwrap();
    };
    let suspending = async {
        set(false).await;
        let since = std::time::Instant::now();
        eventually(Duration::from_secs(3), "everybody is out everywhere", async || {
            let (key, token) = (app.get(user, "/api/v1/jobs").await.status, elsewhere().await);
            ((key, token) == (401, 401)).then_some(())
        })
        .await;
        assert!(since.elapsed() < Duration::from_millis(1500), "{:?}", since.elapsed());
        since
    };
    let (waited, since) = tokio::join!(waiting, suspending);
    waited.problem(401, "unauthenticated");
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    login(&app, body.clone()).await.problem(401, "unauthenticated");
    app.get(&app.theirs.user, "/api/v1/jobs").await.expect(200);
    set(true).await;
    eventually(Duration::from_secs(3), "they are back", async || (elsewhere().await == 200).then_some(()))
        .await;
    app.get(user, "/api/v1/jobs").await.expect(200);
}
