//! Accounts that are somebody's by a provider's word: when they rise, and when the address is another's.

use reqwest::Method;
use serde_json::{Value, json};
use streamspace_testkit::{Browser, Page, Smtp, SmtpOptions, eventually};

use crate::{
    app::{Answer, App, Person},
    links::{NEW, SOON, ask, confirm, token},
    mfa::code,
    oidc::{
        Stage, audited, expect_in, expect_problem, is_in, link, made, profile, show_password, sign_in,
        verify_email,
    },
    sign_in::login,
};

async fn becomes(app: &App, who: &Person, what: &str) {
    app.execute(&format!("update users set {what} where id = '{}'", who.id)).await;
}

async fn is_refused(app: &App, person: &str) {
    let browser = Browser::of(person);
    expect_problem(&sign_in(app, &browser).await, 409, "link-required");
    assert!(!is_in(app, &browser));
}

const ORDINARY: &str =
    "role = 'operator', platform_admin = false, totp_enabled_at = null, totp_secret = null";
const RISEN: [&str; 3] = ["role = 'admin'", "role = 'owner'", "platform_admin = true"];

fn users() -> Value {
    json!({ "operator": { "email": "operator@example.org", "email_verified": true } })
}

/// An admin's provider is known to somebody who is more than an admin by now.
#[tokio::test]
async fn who_rises_comes_in_through_what_they_linked_themselves() {
    let stage = Stage::new(json!({ "users": users() })).await;
    let app = &stage.app;
    let who = &app.ours.operator;
    stage.set_up(&app.ours.owner, json!({})).await;
    verify_email(app, who).await;
    expect_in(&sign_in(app, &Browser::of("operator")).await);
    assert_eq!(audited(app, "users.link_identity").await[0]["changes"]["after"]["by"], "email");
    for more in RISEN {
        becomes(app, who, more).await;
        is_refused(app, "operator").await;
        becomes(app, who, ORDINARY).await;
        expect_in(&sign_in(app, &Browser::of("operator")).await);
    }

    // An identity that nobody has proven is not proven by its own word either.
    app.execute("update oidc_identities set proven = false").await;
    for more in RISEN.into_iter().chain(["totp_secret = '\\x00', totp_enabled_at = now()"]) {
        becomes(app, who, more).await;
        is_refused(app, "operator").await;
        becomes(app, who, ORDINARY).await;
    }
    let proven = "select count(*) from oidc_identities where proven";
    assert_eq!(app.count(proven).await, 0);
    expect_in(&sign_in(app, &Browser::of("operator")).await);
    assert_eq!(app.count(proven).await, 1);

    // Whoever came in through the provider links nothing as the person.
    let through = Browser::of("operator");
    expect_in(&sign_in(app, &through).await);
    expect_in(&link(app, &through, "same-origin").await);
    becomes(app, who, "role = 'admin'").await;
    is_refused(app, "operator").await;
    expect_problem(&link(app, &through, "same-origin").await, 409, "link-required");

    // The person does.
    app.set_password(who).await;
    let browser = Browser::of("operator");
    show_password(app, &browser, who).await;
    expect_in(&link(app, &browser, "same-origin").await);
    assert_eq!(audited(app, "users.link_identity").await[0]["changes"]["after"]["by"], "sign_in");
    for more in RISEN {
        becomes(app, who, more).await;
        expect_in(&sign_in(app, &Browser::of("operator")).await);
    }

    // Through another provider of the same issuer nothing was linked.
    app.execute("update oidc_identities set linked_through = 'others'").await;
    for more in RISEN {
        becomes(app, who, more).await;
        is_refused(app, "operator").await;
        becomes(app, who, ORDINARY).await;
    }
}

/// An admin who may not change somebody has no provider change them.
#[tokio::test]
async fn groups_of_an_admins_provider_unmake_no_admin() {
    let mut users = users();
    users["operator"]["groups"] = json!(["staff"]);
    let stage = Stage::new(json!({ "users": users })).await;
    let app = &stage.app;
    let (who, admin) = (&app.ours.operator, app.admin(&app.ours.owner).await);
    let viewers = json!([{ "group": "staff", "role": "viewer" }]);
    stage.set_up(&admin, json!({ "groupMapping": viewers })).await;
    app.set_password(who).await;
    let browser = Browser::of("operator");
    show_password(app, &browser, who).await;
    expect_in(&link(app, &browser, "same-origin").await);
    for (was, is) in [
        ("operator", "viewer"),
        ("admin", "admin"),
        ("owner", "owner"),
        ("operator', platform_admin = '1", "operator"),
    ] {
        becomes(app, who, &format!("role = '{was}'")).await;
        let browser = Browser::of("operator");
        expect_in(&sign_in(app, &browser).await);
        assert_eq!(profile(app, &browser).await["role"], is, "{was}");
    }
}

#[tokio::test]
async fn what_owners_set_up_speaks_for_admins_and_owners_and_for_no_platform() {
    let mut users = users();
    users["operator"]["groups"] = json!(["bosses"]);
    users["ann"] = json!({ "email": "ann@example.org", "email_verified": false, "groups": ["bosses"] });
    let stage = Stage::new(json!({ "users": users })).await;
    let app = &stage.app;
    let who = &app.ours.operator;
    let mapping = json!([{ "group": "bosses", "role": "admin" }]);
    stage.set_up(&app.ours.owner, json!({ "groupMapping": mapping })).await;
    verify_email(app, who).await;
    for role in ["admin", "owner"] {
        let browser = Browser::of("operator");
        expect_in(&sign_in(app, &browser).await);
        becomes(app, who, &format!("role = '{role}'")).await;
        assert_eq!(profile(app, &browser).await["role"], role);
    }
    expect_in(&sign_in(app, &Browser::of("operator")).await);
    becomes(app, who, "platform_admin = true").await;
    is_refused(app, "operator").await;
    // Of whom it makes an admin it goes on to speak.
    for _ in 0..2 {
        let browser = Browser::of("ann");
        expect_in(&sign_in(app, &browser).await);
        assert_eq!(profile(app, &browser).await["role"], "admin");
    }
}

/// The database takes the sign for kelvins for a k; mail servers do not.
#[tokio::test]
async fn an_address_that_only_looks_like_somebodys_opens_no_account() {
    let kelvin = json!({ "email": "\u{212a}im@example.org", "email_verified": true });
    let users = json!({ "kelvin": kelvin, "kim": { "email": "KIM@example.org", "email_verified": true } });
    let stage = Stage::new(json!({ "users": users })).await;
    let app = &stage.app;
    stage.set_up(&app.ours.owner, json!({})).await;
    becomes(app, &app.ours.user, "email = 'kim@example.org', email_verified_at = now()").await;
    let before = made(app).await;
    is_refused(app, "kelvin").await;
    assert_eq!(made(app).await, before);
    expect_in(&sign_in(app, &Browser::of("kim")).await);
}

/// What a browser's page sends.
async fn send(app: &App, browser: &Browser, path: &str, body: Value) -> Value {
    let origin = app.url("");
    let headers = [("origin", origin.as_str()), ("content-type", "application/json")];
    let page = browser.send("POST", &app.url(path), &headers, &body.to_string()).await.unwrap();
    assert!(page.status < 300, "{page:?}");
    serde_json::from_str(&page.body).unwrap()
}

/// Somebody has an account for `new@example.org`, with a key and a second factor of theirs.
async fn settled(stage: &Stage, browser: &Browser) -> String {
    let app = &stage.app;
    expect_in(&sign_in(app, browser).await);
    let key = send(app, browser, "/api/v1/api-keys", json!({ "name": "back door" })).await;
    let enrolled = send(app, browser, "/api/v1/auth/mfa/enroll", json!({})).await;
    let shown = json!({ "code": code(enrolled["secret"].as_str().unwrap(), 0) });
    send(app, browser, "/api/v1/auth/mfa/verify", shown).await;
    key["key"].as_str().unwrap().to_owned()
}

async fn with_key(app: &App, key: &str) -> Answer {
    Answer::of(app.anonymous(Method::GET, "/api/v1/auth/profile").header("x-api-key", key)).await
}

async fn reset(app: &App, smtp: &Smtp) {
    ask(app, "new@example.org", Some("ours")).await;
    let link = token(&smtp.mail(1, "new@example.org", SOON).await.text);
    confirm(app, &link).await.expect(204);
}

async fn stage_with_mail(verified: bool) -> (Stage, Smtp) {
    let user = json!({ "email": "new@example.org", "email_verified": verified });
    let stage = Stage::new(json!({ "users": { "mallory": user } })).await;
    let smtp = Smtp::start(SmtpOptions::default()).await.unwrap();
    stage.app.mails_to(&smtp);
    stage.set_up(&stage.app.ours.owner, json!({})).await;
    (stage, smtp)
}

/// Mallory makes an account for an address that is not hers, and prepares ways back for the day on which
/// its owner comes.
#[tokio::test]
async fn who_shows_that_an_address_is_theirs_has_the_account_alone() {
    let (stage, smtp) = stage_with_mail(false).await;
    let app = &stage.app;
    let mallory = Browser::of("mallory");
    let key = settled(&stage, &mallory).await;
    // That it is hers she proves to nobody by coming through it.
    expect_in(&link(app, &mallory, "same-origin").await);
    assert_eq!(app.count("select count(*) from oidc_identities where proven").await, 0);
    with_key(app, &key).await.expect(200);

    reset(app, &smtp).await;
    let page = mallory.get(&app.url("/api/v1/auth/profile")).await.unwrap();
    assert_eq!(page.status, 401, "{page:?}");
    with_key(app, &key).await.problem(401, "unauthenticated");
    is_refused(app, "mallory").await;
    // No second factor is asked for that is not the owner's.
    let signed_in =
        login(app, json!({ "email": "new@example.org", "password": NEW })).await.expect(200).json();
    assert_eq!(
        (&signed_in["user"]["mfaEnabled"], &signed_in["user"]["emailVerified"]),
        (&json!(false), &json!(true))
    );
    assert_eq!(app.count("select count(*) from recovery_codes").await, 0);
    let told = audited(app, "users.reclaim").await;
    assert_eq!(told.len(), 1);
    let after = json!({ "mfaEnabled": false, "deletedIdentities": 1, "deletedKeys": 1, "endedSignIns": 0 });
    assert_eq!(told[0]["changes"]["after"], after, "the sign-ins ended with the password of before");
}

#[tokio::test]
async fn whose_provider_vouches_for_them_keeps_what_they_have() {
    let (stage, smtp) = stage_with_mail(true).await;
    let app = &stage.app;
    let key = settled(&stage, &Browser::of("mallory")).await;
    reset(app, &smtp).await;
    with_key(app, &key).await.expect(200);
    let asked = login(app, json!({ "email": "new@example.org", "password": NEW })).await.expect(200).json();
    assert_eq!(asked["mfaRequired"], true);
    expect_in(&sign_in(app, &Browser::of("mallory")).await);
    assert!(audited(app, "users.reclaim").await.is_empty());
}

/// The identity is good when it is looked at, and gone before the sign-in is made.
#[tokio::test]
async fn an_identity_that_is_taken_away_meanwhile_lets_nobody_in() {
    let (stage, _smtp) = stage_with_mail(false).await;
    let app = &stage.app;
    expect_in(&sign_in(app, &Browser::of("mallory")).await);
    let before = made(app).await;
    let mut owner = app.queue.db().pool().begin().await.unwrap();
    app.execute(
        "create function held() returns trigger language plpgsql as
         $$ begin perform pg_advisory_xact_lock(1); return new; end $$",
    )
    .await;
    app.execute("create trigger held before insert on sign_ins for each row execute function held()").await;
    sqlx::query("select pg_advisory_xact_lock(1)").execute(&mut *owner).await.unwrap();
    let browser = Browser::of("mallory");
    let page: Page = {
        let coming = sign_in(app, &browser);
        let taking = async {
            let waits = "select count(*) from pg_stat_activity
                         where datname = current_database() and wait_event_type = 'Lock' and query like '%sign_ins%'";
            eventually(SOON, "the sign-in is being made", async || {
                (app.count(waits).await == 1).then_some(())
            })
            .await;
            sqlx::query("delete from oidc_identities").execute(&mut *owner).await.unwrap();
            owner.commit().await.unwrap();
        };
        tokio::join!(coming, taking).0
    };
    expect_problem(&page, 409, "link-required");
    assert!(!is_in(app, &browser));
    assert_eq!(made(app).await, [before[0], 0, before[2]]);
}
