//! People sign in, stay in, and are out when they should be.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};
use streamspace_common::{
    Config,
    config::{AuthConfig, LimitsConfig},
};
use streamspace_testkit::eventually;

use crate::app::{Answer, App, PASSWORD, Person};

/// Hashes that cost nothing: what they are worth is tested where they are made.
pub fn cheap() -> Config {
    let auth = AuthConfig { argon2_memory_kib: 64, argon2_iterations: 1, ..AuthConfig::default() };
    Config { auth, limits: generous(), ..Config::default() }
}

/// All come from one address here.
pub fn generous() -> LimitsConfig {
    LimitsConfig { user_per_minute: 100_000, address_per_minute: 100_000, ..LimitsConfig::default() }
}

pub async fn login(app: &App, body: Value) -> Answer {
    Answer::of(app.anonymous(Method::POST, "/api/v1/auth/login").json(&body)).await
}

async fn sign_in(app: &App, who: &Person) -> Value {
    login(app, json!({ "email": who.email, "password": PASSWORD, "tenant": who.slug }))
        .await
        .expect(200)
        .json()
}

async fn with_token(app: &App, method: Method, path: &str, token: &str) -> Answer {
    Answer::of(app.anonymous(method, path).bearer_auth(token)).await
}

async fn profile(app: &App, token: &str) -> Answer {
    with_token(app, Method::GET, "/api/v1/auth/profile", token).await
}

async fn refresh(app: &App, token: &str) -> Answer {
    let body = json!({ "refreshToken": token });
    Answer::of(app.anonymous(Method::POST, "/api/v1/auth/refresh").json(&body)).await
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_else(|| panic!("no {name} in {value}")).to_owned()
}

#[tokio::test]
async fn somebody_signs_in_and_is_who_they_are() {
    let app = App::start_with(cheap()).await;
    let who = &app.ours.user;
    app.set_password(who).await;
    let signed_in = sign_in(&app, who).await;
    assert_eq!(signed_in["tokenType"], "Bearer");
    assert_eq!(signed_in["expiresIn"], 1800);
    assert_eq!(signed_in["user"]["id"], who.id.to_string());
    assert_eq!(signed_in["tenant"]["slug"], who.slug);
    let token = text(&signed_in, "accessToken");
    let me = profile(&app, &token).await.expect(200).json();
    assert_eq!((&me["email"], &me["role"]), (&json!(who.email), &json!("user")));
    assert!(me["permissions"].as_array().unwrap().contains(&json!("jobs.cancel")), "{me}");
    assert!(me["lastLogin"].is_string());
    // With a token one may what one may with a key of one's own.
    with_token(&app, Method::GET, "/api/v1/jobs", &token).await.expect(200);
    with_token(&app, Method::GET, "/api/v1/audit", &token).await.problem(403, "forbidden");
    // Each credential in its place.
    with_token(&app, Method::GET, "/api/v1/jobs", &text(&signed_in, "refreshToken"))
        .await
        .problem(401, "unauthenticated");
    refresh(&app, &token).await.problem(401, "unauthenticated");
    app.job(who).await;
    let as_key = app.get(who, "/api/v1/jobs").await.expect(200).json();
    assert_eq!(with_token(&app, Method::GET, "/api/v1/jobs", &token).await.expect(200).json(), as_key);
}

#[tokio::test]
async fn whoever_is_refused_is_refused_alike() {
    let app = App::start_with(cheap()).await;
    let who = &app.ours.user;
    app.set_password(who).await;
    app.set_password(&app.ours.viewer).await;
    app.execute(&format!("update users set active = false where id = '{}'", app.ours.viewer.id)).await;
    app.set_password(&app.ours.owner).await;
    app.execute(&format!(
        "update users set locked_until = now() + interval '1 hour' where id = '{}'",
        app.ours.owner.id
    ))
    .await;
    let attempts = [
        json!({ "email": who.email, "password": "wrong password", "tenant": who.slug }),
        json!({ "email": "nobody@example.org", "password": PASSWORD, "tenant": who.slug }),
        json!({ "email": who.email, "password": PASSWORD, "tenant": "no-such-tenant" }),
        json!({ "email": app.ours.viewer.email, "password": PASSWORD, "tenant": who.slug }),
        // Closed by failures.
        json!({ "email": app.ours.owner.email, "password": PASSWORD, "tenant": who.slug }),
        // Has no password.
        json!({ "email": app.ours.operator.email, "password": PASSWORD, "tenant": who.slug }),
        json!({ "email": "nobody@example.org", "password": "x", "tenant": "platform" }),
    ];
    let mut told = Vec::new();
    for attempt in attempts {
        let mut problem = login(&app, attempt).await.problem(401, "unauthenticated").json();
        problem["requestId"].take();
        told.push(problem);
    }
    told.dedup();
    assert_eq!(told.len(), 1, "{told:?}");
}

#[tokio::test]
async fn one_password_in_two_tenants_takes_the_name_of_one() {
    let app = App::start_with(cheap()).await;
    for who in [&app.ours.user, &app.theirs.user] {
        app.set_password(who).await;
    }
    let email = &app.ours.user.email;
    let problem =
        login(&app, json!({ "email": email, "password": PASSWORD })).await.problem(422, "tenant-required");
    let slugs: Vec<_> =
        problem.json()["errors"].as_array().unwrap().iter().map(|e| e["detail"].clone()).collect();
    assert_eq!(slugs, [json!("ours"), json!("theirs")]);
    // Where the passwords differ, the password tells; whoever has shown that the address is theirs is not
    // charged for it in the other account.
    app.execute("update users set email_proven_at = now()").await;
    app.set_password_to(&app.theirs.user, "another password").await;
    for _ in 0..8 {
        let body = json!({ "email": email, "password": PASSWORD });
        assert_eq!(login(&app, body).await.expect(200).json()["tenant"]["slug"], "ours");
    }
    let body = json!({ "email": email, "password": "another password" });
    assert_eq!(login(&app, body).await.expect(200).json()["tenant"]["slug"], "theirs");
}

#[tokio::test]
async fn a_refresh_token_is_good_once_and_ends_its_sign_in_the_second_time() {
    let app = App::start_with(cheap()).await;
    let who = &app.ours.user;
    app.set_password(who).await;
    let first = sign_in(&app, who).await;
    let second = refresh(&app, &text(&first, "refreshToken")).await.expect(200).json();
    assert_ne!(first["refreshToken"], second["refreshToken"]);
    profile(&app, &text(&second, "accessToken")).await.expect(200);
    // Somebody comes with the first once more.
    refresh(&app, &text(&first, "refreshToken")).await.problem(401, "unauthenticated");
    profile(&app, &text(&second, "accessToken")).await.problem(401, "unauthenticated");
    refresh(&app, &text(&second, "refreshToken")).await.problem(401, "unauthenticated");
    assert_eq!(app.count("select count(*) from audit where action = 'sign_ins.reuse'").await, 1);
}

#[tokio::test]
async fn of_many_that_come_with_one_refresh_token_at_once_one_gets_the_next() {
    let app = App::start_with(cheap()).await;
    app.set_password(&app.ours.user).await;
    let token = text(&sign_in(&app, &app.ours.user).await, "refreshToken");
    let answers = futures::future::join_all((0..20).map(|_| refresh(&app, &token))).await;
    let good: Vec<_> = answers.iter().filter(|answer| answer.status == 200).collect();
    assert_eq!(good.len(), 1);
    assert!(answers.iter().all(|answer| matches!(answer.status, 200 | 401)));
    // And that one is worth nothing: who of them was the thief can't be told.
    refresh(&app, &text(&good[0].json(), "refreshToken")).await.problem(401, "unauthenticated");
}

#[tokio::test]
async fn who_signs_out_is_out_at_once() {
    let app = App::start_with(cheap()).await;
    app.set_password(&app.ours.user).await;
    let (one, other) = (sign_in(&app, &app.ours.user).await, sign_in(&app, &app.ours.user).await);
    let (token, stays) = (text(&one, "accessToken"), text(&other, "accessToken"));
    profile(&app, &token).await.expect(200);
    let listed = with_token(&app, Method::GET, "/api/v1/auth/sessions", &token).await.expect(200).json();
    let current: Vec<_> = listed["items"].as_array().unwrap().iter().map(|s| s["current"].clone()).collect();
    assert_eq!(current, [json!(false), json!(true)], "newest first");
    with_token(&app, Method::POST, "/api/v1/auth/logout", &token).await.expect(204);
    profile(&app, &token).await.problem(401, "unauthenticated");
    refresh(&app, &text(&one, "refreshToken")).await.problem(401, "unauthenticated");
    profile(&app, &stays).await.expect(200);
    // From the list one ends another of one's own, and nobody else's.
    let id = text(&listed["items"][0], "id");
    app.set_password(&app.theirs.user).await;
    let stranger = text(&sign_in(&app, &app.theirs.user).await, "accessToken");
    let path = format!("/api/v1/auth/sessions/{id}");
    with_token(&app, Method::DELETE, &path, &stranger).await.problem(404, "not-found");
    with_token(&app, Method::DELETE, &path, &stays).await.expect(204);
    profile(&app, &stays).await.problem(401, "unauthenticated");
    app.post(&app.ours.user, "/api/v1/auth/logout", json!({})).await.problem(409, "no-sign-in");
}

#[tokio::test]
async fn failures_close_an_account_for_a_while() {
    let app = App::start_with(cheap()).await;
    let who = &app.ours.user;
    app.set_password(who).await;
    let body = |password: &str| json!({ "email": who.email, "password": password, "tenant": who.slug });
    for _ in 0..4 {
        login(&app, body("wrong password")).await.problem(401, "unauthenticated");
    }
    login(&app, body(PASSWORD)).await.expect(200);
    // Forgiven. However many come at once, five are tried.
    let guesses = (0..30).map(|n| login(&app, body(&format!("wrong password {n}"))));
    for answer in futures::future::join_all(guesses).await {
        assert!(matches!(answer.status, 401 | 429), "{}", answer.text);
    }
    let failed = format!("select failed_logins::bigint from users where id = '{}'", who.id);
    assert_eq!(app.count(&failed).await, 5);
    app.execute("delete from sign_in_failures").await;
    login(&app, body(PASSWORD)).await.problem(401, "unauthenticated");
    let shown = app.get(&app.ours.owner, &format!("/api/v1/auth/users/{}", who.id)).await.expect(200).json();
    assert!(shown["lockedUntil"].is_string() && shown["failedLoginCount"] == 5, "{shown}");
    assert_eq!(app.count("select count(*) from audit where action = 'users.lock'").await, 1);
    // Time opens it, and the next time it is closed for twice as long.
    app.execute("update users set locked_until = now() - interval '1 s' where locked_until is not null")
        .await;
    for _ in 0..5 {
        login(&app, body("wrong password")).await.problem(401, "unauthenticated");
    }
    let minutes = format!(
        "select round(extract(epoch from locked_until - now()) / 60)::bigint from users where id = '{}'",
        who.id
    );
    assert_eq!(app.count(&minutes).await, 30);
    // An administrator too.
    let open = app.request(&app.ours.owner, Method::PATCH, &format!("/api/v1/auth/users/{}", who.id));
    Answer::of(open.json(&json!({ "locked": false }))).await.expect(200);
    login(&app, body(PASSWORD)).await.expect(200);
}

#[tokio::test]
async fn failures_of_one_address_slow_it_down_whatever_the_account() {
    let app = App::start_with(cheap()).await;
    for n in 0..20 {
        let body = json!({ "email": format!("{n}@example.org"), "password": "a guess" });
        login(&app, body).await.problem(401, "unauthenticated");
    }
    app.set_password(&app.ours.user).await;
    let body = json!({ "email": app.ours.user.email, "password": PASSWORD, "tenant": "ours" });
    let refused = login(&app, body.clone()).await.problem(429, "rate-limited");
    let after: u64 = refused.header("retry-after").parse().unwrap();
    assert!((890..=900).contains(&after), "{after}");
    app.execute("update sign_in_failures set locked_until = now() - interval '1 s'").await;
    login(&app, body).await.expect(200);
}

#[tokio::test]
async fn another_password_ends_other_sign_ins() {
    let app = App::start_with(cheap()).await;
    let who = &app.ours.user;
    app.set_password(who).await;
    let (one, other) = (sign_in(&app, who).await, sign_in(&app, who).await);
    let token = text(&one, "accessToken");
    let change = async |current: &str, new: &str| {
        let body = json!({ "currentPassword": current, "password": new, "passwordConfirmation": new });
        let request = app.anonymous(Method::POST, "/api/v1/auth/change-password").bearer_auth(&token);
        Answer::of(request.json(&body)).await
    };
    let told = change("not my password", "another password").await.problem(422, "invalid").json();
    assert_eq!(told["errors"][0]["pointer"], "/currentPassword");
    for bad in ["password1", "short", &who.email] {
        let told = change(PASSWORD, bad).await.problem(422, "invalid").json();
        assert_eq!(told["errors"][0]["pointer"], "/password", "{bad}: {told}");
    }
    change(PASSWORD, "another password").await.expect(204);
    profile(&app, &token).await.expect(200);
    profile(&app, &text(&other, "accessToken")).await.problem(401, "unauthenticated");
    let body = |password: &str| json!({ "email": who.email, "password": password, "tenant": who.slug });
    login(&app, body(PASSWORD)).await.problem(401, "unauthenticated");
    login(&app, body("another password")).await.expect(200);
}

#[tokio::test]
async fn who_is_disabled_is_out_on_every_replica_within_a_second() {
    let app = App::start_with(cheap()).await;
    let who = &app.ours.user;
    app.set_password(who).await;
    let signed_in = sign_in(&app, who).await;
    let token = text(&signed_in, "accessToken");
    let there = app.another().await;
    let client = reqwest::Client::new();
    let elsewhere = async || {
        let request = client.get(format!("http://{there}/api/v1/auth/profile")).bearer_auth(&token);
        Answer::of(request).await.status
    };
    assert_eq!(elsewhere().await, 200);
    let path = format!("/api/v1/auth/users/{}", who.id);
    let change = async |body: Value| {
        Answer::of(app.request(&app.ours.owner, Method::PATCH, &path).json(&body)).await.expect(200)
    };
    change(json!({ "active": false })).await;
    let since = std::time::Instant::now();
    profile(&app, &token).await.problem(401, "unauthenticated");
    app.get(who, "/api/v1/jobs").await.problem(401, "unauthenticated");
    eventually(Duration::from_secs(3), "the other replica refuses too", async || {
        (elsewhere().await == 401).then_some(())
    })
    .await;
    assert!(since.elapsed() < Duration::from_millis(1500), "{:?}", since.elapsed());
    refresh(&app, &text(&signed_in, "refreshToken")).await.problem(401, "unauthenticated");
    // Who comes back signs in anew; keys work on.
    change(json!({ "active": true })).await;
    profile(&app, &token).await.problem(401, "unauthenticated");
    app.get(who, "/api/v1/jobs").await.expect(200);
}

#[tokio::test]
async fn a_browser_gets_a_cookie_and_no_token() {
    let app = App::start_with(cheap()).await;
    let who = &app.ours.user;
    app.set_password(who).await;
    let origin = format!("http://{}", app.address);
    let body = json!({ "email": who.email, "password": PASSWORD, "tenant": who.slug });
    let request =
        |origin: &str| app.anonymous(Method::POST, "/api/v1/auth/login").header("origin", origin).json(&body);
    Answer::of(request("http://evil.example")).await.problem(403, "forbidden");
    let signed_in = Answer::of(request(&origin)).await.expect(200);
    assert!(!signed_in.text.contains("oken"), "{}", signed_in.text);
    let set = signed_in.header("set-cookie").to_owned();
    for part in ["__Host-streamspace=ss_", "Path=/", "Secure", "HttpOnly", "SameSite=Lax"] {
        assert!(set.contains(part), "{set}");
    }
    let cookie = set.split(';').next().unwrap().to_owned();
    let with = |method: Method, path: &str| app.anonymous(method, path).header("cookie", &cookie);
    assert_eq!(
        Answer::of(with(Method::GET, "/api/v1/auth/profile")).await.expect(200).json()["email"],
        who.email
    );

    // What changes something is asked for by our own pages.
    let team = json!({ "name": "theirs" });
    for foreign in [None, Some("http://evil.example"), Some("null"), Some("https://evil.example:443")] {
        let mut request = with(Method::POST, "/api/v1/teams").json(&team);
        if let Some(foreign) = foreign {
            request = request.header("origin", foreign);
        }
        Answer::of(request).await.problem(403, "forbidden");
        let mut upgrade = with(Method::GET, "/api/v1/ws/jobs")
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        if let Some(foreign) = foreign {
            upgrade = upgrade.header("origin", foreign);
        }
        Answer::of(upgrade).await.problem(403, "forbidden");
    }
    Answer::of(with(Method::POST, "/api/v1/teams").header("origin", &origin).json(&team)).await.expect(201);
    // A cookie is no bearer token, and a token no cookie.
    let secret = cookie.split_once('=').unwrap().1;
    profile(&app, secret).await.problem(401, "unauthenticated");
    refresh(&app, secret).await.problem(401, "unauthenticated");

    let out =
        Answer::of(with(Method::POST, "/api/v1/auth/logout").header("origin", &origin)).await.expect(204);
    assert!(out.header("set-cookie").contains("Max-Age=0"), "{}", out.header("set-cookie"));
    Answer::of(with(Method::GET, "/api/v1/auth/profile")).await.problem(401, "unauthenticated");
}

#[tokio::test]
async fn tokens_are_signed_by_published_keys() {
    let app = App::start_with(cheap()).await;
    app.set_password(&app.ours.user).await;
    let token = text(&sign_in(&app, &app.ours.user).await, "accessToken");
    let keys = Answer::of(app.anonymous(Method::GET, "/.well-known/jwks.json")).await.expect(200).json();
    let [key] = keys["keys"].as_array().unwrap().as_slice() else { panic!("{keys}") };
    assert_eq!((&key["kty"], &key["crv"], &key["alg"]), (&json!("OKP"), &json!("Ed25519"), &json!("EdDSA")));
    assert!(key.get("d").is_none());
    let jwk = streamspace_common::jws::PublicKey::from_jwk(key).unwrap();
    let parsed = streamspace_common::jws::Jws::parse(&token).unwrap();
    assert_eq!(parsed.kid(), jwk.kid.as_deref());
    let claims: Value = serde_json::from_slice(parsed.verify(&jwk.key).unwrap()).unwrap();
    assert_eq!(claims["sub"], app.ours.user.id.to_string());
    assert_eq!(claims["tid"], app.ours.user.tenant.to_string());
    assert!(claims["exp"].as_i64().unwrap() <= Timestamp::now().as_second() + 1800);
    // An old key is followed by another, which signs once everybody has had the time to read it. Both
    // verify until the old one's tokens are over.
    app.execute("update signing_keys set created_at = now() - interval '31 days'").await;
    let body = json!({ "email": app.ours.user.email, "password": PASSWORD, "tenant": "ours" });
    let elsewhere = async || {
        let there = app.another().await;
        let login = reqwest::Client::new().post(format!("http://{there}/api/v1/auth/login")).json(&body);
        text(&Answer::of(login).await.expect(200).json(), "accessToken")
    };
    let kid = |token: &str| streamspace_common::jws::Jws::parse(token).unwrap().kid().unwrap().to_owned();
    assert_eq!(kid(&elsewhere().await), kid(&token));
    assert_eq!(app.count("select count(*) from signing_keys").await, 2);
    app.execute("update signing_keys set created_at = created_at - interval '7 minutes'").await;
    let newer = elsewhere().await;
    assert_ne!(kid(&newer), kid(&token));
    for token in [&token, &newer] {
        profile(&app, token).await.expect(200);
    }
}

#[tokio::test]
async fn a_tenant_that_wants_a_second_factor_lets_people_set_it_up_and_nothing_else() {
    let app = App::start_with(cheap()).await;
    let who = &app.ours.user;
    app.set_password(who).await;
    let token = text(&sign_in(&app, who).await, "accessToken");
    with_token(&app, Method::GET, "/api/v1/jobs", &token).await.expect(200);
    let set = app.request(&app.ours.owner, Method::PUT, "/api/v1/settings/auth.mfa_required");
    Answer::of(set.json(&json!({ "value": true }))).await.expect(200);
    with_token(&app, Method::GET, "/api/v1/jobs", &token).await.problem(403, "mfa-required");
    profile(&app, &token).await.expect(200);
    // Programs have keys, and no second factor.
    app.get(who, "/api/v1/jobs").await.expect(200);
}

/// Anybody's administrator can make an account with somebody else's address, and a password that they know.
#[tokio::test]
async fn an_account_with_anothers_address_is_no_way_to_guess() {
    let app = App::start_with(cheap()).await;
    let victim = &app.ours.user;
    app.set_password(victim).await;
    for n in 0..5 {
        let guess = format!("a guess number {n}");
        app.set_password_to(&app.theirs.user, &guess).await;
        let body = json!({ "email": victim.email, "password": guess });
        assert_eq!(login(&app, body).await.expect(200).json()["tenant"]["slug"], "theirs");
    }
    let body = json!({ "email": victim.email, "password": PASSWORD, "tenant": "ours" });
    login(&app, body).await.problem(401, "unauthenticated");
    let told = format!(
        "select count(*) from audit where tenant_id = '{}' and action in ('sign_ins.fail', 'users.lock')",
        app.ours.id
    );
    assert_eq!(app.count(&told).await, 7, "five failures, that they closed it, and one more");
}

/// What ends sign-ins ends those too whose password is being looked at.
#[tokio::test]
async fn a_sign_in_under_way_does_not_outlive_what_ends_it() {
    // A second and more for each password.
    let auth = AuthConfig { argon2_iterations: 60, ..AuthConfig::default() };
    let app = App::start_with(Config { auth, limits: generous(), ..Config::default() }).await;
    let who = &app.ours.user;
    let cheap_hash =
        streamspace_domain::sign_in::Passwords::new(&cheap().auth).hash("another".into()).await.unwrap();
    for ending in [
        format!("update users set password_hash = '{cheap_hash}' where id = '{}'", who.id),
        format!("update users set active = false where id = '{}'", who.id),
        format!("update users set totp_secret = 'x', totp_enabled_at = now() where id = '{}'", who.id),
        format!("update tenants set active = false where id = '{}'", who.tenant),
    ] {
        app.execute(
            "update users set active = true, totp_enabled_at = null, totp_secret = null, failed_logins = 0",
        )
        .await;
        app.execute("update tenants set active = true").await;
        app.set_password(who).await;
        let body = json!({ "email": who.email, "password": PASSWORD, "tenant": who.slug });
        let begun = format!("select failed_logins::bigint from users where id = '{}'", who.id);
        let meanwhile = async {
            eventually(Duration::from_secs(10), "the attempt is counted", async || {
                (app.count(&begun).await == 1).then_some(())
            })
            .await;
            app.execute(&ending).await;
        };
        let (answer, ()) = tokio::join!(login(&app, body), meanwhile);
        answer.problem(401, "unauthenticated");
        assert_eq!(app.count("select count(*) from sign_ins").await, 0, "{ending}");
        assert_eq!(app.count("select count(*) from sign_in_challenges").await, 0, "{ending}");
    }
}

/// It is written once a minute; here the minute is over when the test says so.
#[tokio::test]
async fn a_browser_that_is_used_stays_and_a_token_lasts_as_long_as_it_says() {
    let app = App::start_with(cheap()).await;
    let who = &app.ours.user;
    app.set_password(who).await;
    sign_in(&app, who).await;
    let origin = format!("http://{}", app.address);
    let body = json!({ "email": who.email, "password": PASSWORD, "tenant": who.slug });
    let browser = app.anonymous(Method::POST, "/api/v1/auth/login").header("origin", origin).json(&body);
    Answer::of(browser).await.expect(200);
    let ids: Vec<uuid::Uuid> =
        sqlx::query_scalar("select id from sign_ins").fetch_all(app.queue.db().pool()).await.unwrap();
    let ids: Vec<_> = ids.into_iter().map(streamspace_common::SignInId).collect();
    let sign_ins =
        streamspace_domain::sign_in::SignIns::new(app.queue.clone(), app.master().clone(), &cheap());
    let moved = async |what: &str| {
        app.count(&format!("select count(*) from {what} > now() - interval '1 minute'")).await
    };
    let used = "sign_ins where kind = 'browser' and last_used_at";
    let goes_on = "sign_ins where kind = 'browser' and expires_at - interval '7 days'";
    let ends = "sign_ins where kind = 'tokens' and expires_at - interval '7 days'";
    let seen = format!("users where id = '{}' and last_active_at", who.id);
    let since = |minutes: u32| {
        format!(
            "with s as (update sign_ins set last_used_at = now() - interval '{minutes} minutes',
                                            expires_at = now() + interval '7 days' - interval '{minutes} minutes')
             update users set last_active_at = now() - interval '{minutes} minutes'"
        )
    };
    // To five minutes: what is written less often costs less.
    app.execute(&since(4)).await;
    sign_ins.touch(&ids).await.unwrap();
    assert_eq!((moved(used).await, moved(goes_on).await, moved(&seen).await), (0, 0, 0));
    app.execute(&since(6)).await;
    sign_ins.touch(&ids).await.unwrap();
    assert_eq!((moved(used).await, moved(goes_on).await, moved(&seen).await), (1, 1, 1));
    assert_eq!(moved(ends).await, 0, "whoever has tokens refreshes them");
}

#[tokio::test]
async fn an_address_is_closed_for_twice_as_long_each_time_and_for_a_day_at_most() {
    let app = App::start_with(cheap()).await;
    let guess = async || {
        let answer = login(&app, json!({ "email": "nobody@example.org", "password": "a guess" })).await;
        assert_eq!(answer.status, 401, "{}", answer.text);
    };
    let closed_for = "select coalesce(round(extract(epoch from locked_until - now()) / 60), 0)::bigint from sign_in_failures";
    let open = "update sign_in_failures set locked_until = now() - interval '1 s'";
    for (failures, minutes) in [(0, 15), (20, 30), (40, 60), (20 * 7, 24 * 60), (20 * 1000, 24 * 60)] {
        if failures == 0 {
            guess().await;
            app.execute("update sign_in_failures set failures = 19").await;
        } else {
            app.execute(&format!("update sign_in_failures set failures = {}", failures + 19)).await;
        }
        guess().await;
        assert_eq!(app.count(closed_for).await, minutes, "after {failures}");
        login(&app, json!({ "email": "nobody@example.org", "password": "a guess" }))
            .await
            .problem(429, "rate-limited");
        app.execute(open).await;
    }
    // An hour without one is forgiven.
    app.execute("update sign_in_failures set failures = 39, last_at = now() - interval '61 minutes', locked_until = null").await;
    guess().await;
    assert_eq!(app.count("select failures::bigint from sign_in_failures").await, 1);
}

/// The same with two of them: the answer names both, and was a guess all the same.
#[tokio::test]
async fn nor_are_several() {
    let app = App::start_with(cheap()).await;
    let (victim, one, other) = (&app.ours.user, &app.theirs.user, &app.platform);
    app.set_password(victim).await;
    app.execute(&format!("update users set email = '{}' where id = '{}'", victim.email, other.id)).await;
    for n in 0..5 {
        let guess = format!("a guess number {n}");
        app.set_password_to(one, &guess).await;
        app.set_password_to(other, &guess).await;
        login(&app, json!({ "email": victim.email, "password": guess }))
            .await
            .problem(422, "tenant-required");
    }
    let body = json!({ "email": victim.email, "password": PASSWORD, "tenant": "ours" });
    login(&app, body).await.problem(401, "unauthenticated");
    let told =
        |what: &str| format!("select count(*) from audit where tenant_id = '{}' and {what}", app.ours.id);
    assert_eq!(app.count(&told("action in ('sign_ins.fail', 'users.lock')")).await, 7);
    let strangers = format!("user_id in ('{}', '{}')", one.id, other.id);
    assert_eq!(app.count(&told(&strangers)).await, 0, "who did it is another tenant's to know");

    // Whoever has shown that the address is theirs has accounts of their own, with passwords of their own.
    app.execute("update users set failed_logins = 0, locked_until = null, email_proven_at = now()").await;
    app.execute("delete from sign_in_failures").await;
    for _ in 0..8 {
        let body = json!({ "email": victim.email, "password": "a guess number 4" });
        login(&app, body).await.problem(422, "tenant-required");
    }
    let failed = format!("select failed_logins::bigint from users where id = '{}'", victim.id);
    assert_eq!(app.count(&failed).await, 0);
    assert_eq!(app.count("select count(*) from sign_in_failures").await, 0);
}

/// One guess at each of many people, hidden in sign-ins that succeed.
#[tokio::test]
async fn an_address_that_guesses_is_closed_though_it_signs_in() {
    let app = App::start_with(cheap()).await;
    let victim = &app.ours.user;
    app.set_password(victim).await;
    app.set_password_to(&app.theirs.user, "a guess").await;
    let body = json!({ "email": victim.email, "password": "a guess" });
    for _ in 0..20 {
        // As if it were another one each time.
        app.execute("update users set failed_logins = 0, locked_until = null").await;
        login(&app, body.clone()).await.expect(200);
    }
    let answer = login(&app, body.clone()).await.problem(429, "rate-limited");
    assert!(answer.text.contains("name yours"), "{}", answer.text);
    // Nobody of an office is kept out by that who says where they want to go.
    let named = json!({ "email": victim.email, "password": "a guess", "tenant": "theirs" });
    login(&app, named).await.expect(200);
    let strangers = format!(
        "select count(*) from audit where tenant_id = '{}' and user_id = '{}'",
        app.ours.id, app.theirs.user.id
    );
    assert_eq!(app.count(&strangers).await, 0);
}

/// An office comes to work: nobody is refused because the others are not in yet.
#[tokio::test]
async fn an_office_signs_in_all_at_once() {
    let app = App::start_with(cheap()).await;
    app.set_password(&app.ours.user).await;
    app.execute(&format!(
        "insert into users (id, tenant_id, email, username, name, role, password_hash)
         select gen_random_uuid(), tenant_id, n || '@example.org', 'person-' || n, 'Somebody', 'user', password_hash
         from users, generate_series(1, 100) n where id = '{}'",
        app.ours.user.id
    ))
    .await;
    let all = (1..=100).map(|n| {
        login(&app, json!({ "email": format!("{n}@example.org"), "password": PASSWORD, "tenant": "ours" }))
    });
    for answer in futures::future::join_all(all).await {
        answer.expect(200);
    }
    assert_eq!(app.count("select count(*) from sign_ins").await, 100);
}

/// While the password is looked at: neither can somebody's account be closed like that, nor is one's own
/// right password held against one.
#[tokio::test]
async fn who_hangs_up_has_learned_nothing_and_is_charged_nothing() {
    let auth = AuthConfig { argon2_iterations: 60, ..AuthConfig::default() };
    let app = App::start_with(Config { auth, limits: generous(), ..Config::default() }).await;
    let who = &app.ours.user;
    app.set_password(who).await;
    let failed = format!("select failed_logins::bigint from users where id = '{}'", who.id);
    let hang_up = async |password: &str| {
        let body = json!({ "email": who.email, "password": password, "tenant": who.slug });
        drop(ask(&app, body, &failed).await);
    };
    for password in [PASSWORD, "a guess"] {
        hang_up(password).await;
        eventually(Duration::from_secs(20), "it is given back", async || {
            (app.count(&failed).await == 0).then_some(())
        })
        .await;
    }
    for table in ["sign_ins", "sign_in_failures", "audit where action like 'sign_ins.%'"] {
        assert_eq!(app.count(&format!("select count(*) from {table}")).await, 0, "{table}");
    }
}

/// Asks, as far as that the attempt is counted.
async fn ask(app: &App, body: Value, failed: &str) -> tokio::net::TcpStream {
    let mut socket = tokio::net::TcpStream::connect(app.address).await.unwrap();
    let body = body.to_string();
    let request = format!(
        "POST /api/v1/auth/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    tokio::io::AsyncWriteExt::write_all(&mut socket, request.as_bytes()).await.unwrap();
    eventually(Duration::from_secs(10), "the attempt is counted", async || {
        (app.count(failed).await == 1).then_some(())
    })
    .await;
    socket
}

/// What fits is answered at once, so whoever waits a little longer has learned that it does not: where no
/// tenant is named some looks are for nothing.
#[tokio::test]
async fn who_hangs_up_when_it_can_only_be_wrong_is_charged() {
    let auth = AuthConfig { argon2_iterations: 60, ..AuthConfig::default() };
    let app = App::start_with(Config { auth, limits: generous(), ..Config::default() }).await;
    let who = &app.ours.user;
    app.set_password(who).await;
    let failed = format!("select failed_logins::bigint from users where id = '{}'", who.id);
    let since = Instant::now();
    login(&app, json!({ "email": who.email, "password": PASSWORD })).await.expect(200);
    let one_look = since.elapsed();
    let socket = ask(&app, json!({ "email": who.email, "password": "a guess" }), &failed).await;
    tokio::time::sleep(one_look * 3 / 2).await;
    drop(socket);
    eventually(Duration::from_secs(20), "it is written down", async || {
        (app.count("select count(*) from audit where action = 'sign_ins.fail'").await == 1).then_some(())
    })
    .await;
    assert_eq!(app.count(&failed).await, 1);
    assert_eq!(app.count("select failures::bigint from sign_in_failures").await, 1);
}

/// What ends sign-ins locks the person, then their sign-ins; who goes on must not come the other way.
#[tokio::test]
async fn going_on_and_ending_do_not_wait_for_each_other() {
    let app = App::start_with(cheap()).await;
    let who = &app.ours.user;
    app.set_password(who).await;
    let token = text(&sign_in(&app, who).await, "refreshToken");
    let id: uuid::Uuid =
        sqlx::query_scalar("select id from sign_ins").fetch_one(app.queue.db().pool()).await.unwrap();
    app.execute("update sign_ins set last_used_at = now() - interval '1 hour'").await;
    let sign_ins =
        streamspace_domain::sign_in::SignIns::new(app.queue.clone(), app.master().clone(), &cheap());
    let mut ending = app.queue.db().begin().await.unwrap();
    sqlx::query("select from users where id = $1 for update")
        .bind(who.id.0)
        .execute(&mut *ending)
        .await
        .unwrap();
    let end = async {
        let waits = "select count(*) from pg_stat_activity
                     where datname = current_database() and wait_event_type = 'Lock'";
        eventually(Duration::from_secs(10), "the exchange waits", async || {
            (app.count(waits).await == 1).then_some(())
        })
        .await;
        // Nor does it wait for those who are noted.
        tokio::time::timeout(Duration::from_secs(5), sign_ins.touch(&[streamspace_common::SignInId(id)]))
            .await
            .expect("at once")
            .unwrap();
        sqlx::query("delete from sign_ins where user_id = $1")
            .bind(who.id.0)
            .execute(&mut *ending)
            .await
            .unwrap();
        ending.commit().await.unwrap();
    };
    let (answer, ()) = tokio::join!(refresh(&app, &token), end);
    answer.problem(401, "unauthenticated");
}
