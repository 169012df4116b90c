//! Settings: what is known, what holds, and who says so.

use reqwest::Method;
use serde_json::{Value, json};
use streamspace_common::{Config, config::AuthConfig};

use crate::app::{Answer, App, Person};

const MFA: &str = "/api/v1/settings/auth.mfa_required";
const ANNOUNCEMENT: &str = "/api/v1/settings/ui.announcement";

async fn put(app: &App, who: &Person, path: &str, value: Value) -> Answer {
    Answer::of(app.request(who, Method::PUT, path).json(&json!({ "value": value }))).await
}

#[tokio::test]
async fn a_setting_has_its_default_until_the_tenant_says_otherwise() {
    let app = App::start().await;
    let owner = &app.ours.owner;
    let setting = app.get(owner, MFA).await.expect(200).json();
    let described = json!({
        "key": "auth.mfa_required",
        "value": false,
        "type": "boolean",
        "category": "auth",
        "description": "Whether signing in takes a second factor.",
        "default": false,
        "source": "default",
    });
    assert_eq!(setting, described);

    let set = put(&app, owner, MFA, json!(true)).await.expect(200).json();
    assert_eq!(
        (&set["value"], &set["default"], &set["source"]),
        (&json!(true), &json!(false), &json!("tenant"))
    );
    assert_eq!(set["updatedBy"], json!({ "type": "user", "id": owner.id }));
    assert!(set["updatedAt"].is_string());
    assert_eq!(app.get(owner, MFA).await.expect(200).json(), set);

    let back = put(&app, owner, MFA, Value::Null).await.expect(200).json();
    assert_eq!((&back["value"], &back["source"]), (&json!(false), &json!("default")));
    assert_eq!(back["updatedBy"]["id"], json!(owner.id));

    put(&app, owner, ANNOUNCEMENT, json!("Lunch\nat noon")).await.expect(200);
    let list = app.get(owner, "/api/v1/settings").await.expect(200).json();
    let values: Vec<_> = list["items"].as_array().unwrap().iter().map(|s| (&s["key"], &s["value"])).collect();
    assert_eq!(
        values,
        [(&json!("auth.mfa_required"), &json!(false)), (&json!("ui.announcement"), &json!("Lunch\nat noon"))]
    );
}

#[tokio::test]
async fn the_default_is_the_configurations() {
    let auth = AuthConfig { mfa_required: true, ..AuthConfig::default() };
    let config = Config { auth, ..Config::default() };
    let app = App::start_with(config).await;
    let owner = &app.ours.owner;
    let setting = app.get(owner, MFA).await.expect(200).json();
    assert_eq!((&setting["value"], &setting["default"]), (&json!(true), &json!(true)));
    let set = put(&app, owner, MFA, json!(false)).await.expect(200).json();
    assert_eq!((&set["value"], &set["default"]), (&json!(false), &json!(true)));
}

#[tokio::test]
async fn what_is_not_known_or_does_not_fit_is_refused() {
    let app = App::start().await;
    let owner = &app.ours.owner;
    for unknown in ["auth.password", "auth", "AUTH.MFA_REQUIRED", &"x".repeat(100)] {
        let path = format!("/api/v1/settings/{unknown}");
        app.get(owner, &path).await.problem(404, "not-found");
        put(&app, owner, &path, json!(true)).await.problem(404, "not-found");
    }
    let long = "x".repeat(2001);
    for (path, value) in [
        (MFA, json!("true")),
        (MFA, json!(1)),
        (MFA, json!([true])),
        (ANNOUNCEMENT, json!(true)),
        (ANNOUNCEMENT, json!("")),
        (ANNOUNCEMENT, json!(long)),
        (ANNOUNCEMENT, json!("a\u{7}")),
        (ANNOUNCEMENT, json!({ "text": "a" })),
    ] {
        let refused = put(&app, owner, path, value).await.problem(422, "invalid").json();
        assert_eq!(refused["errors"][0]["pointer"], "/value");
    }
    for body in [json!({}), json!({ "value": true, "source": "tenant" }), json!(true)] {
        Answer::of(app.request(owner, Method::PUT, MFA).json(&body)).await.problem(422, "invalid");
    }
    assert_eq!(app.count("select count(*) from settings where value is not null").await, 0);
    assert_eq!(app.count("select count(*) from audit where action = 'settings.update'").await, 0);
}

#[tokio::test]
async fn a_setting_is_the_tenants_and_its_administrators() {
    let app = App::start().await;
    for who in [&app.ours.operator, &app.ours.user, &app.ours.viewer] {
        app.get(who, "/api/v1/settings").await.problem(403, "forbidden");
        app.get(who, MFA).await.problem(403, "forbidden");
        put(&app, who, MFA, json!(true)).await.problem(403, "forbidden");
    }
    put(&app, &app.ours.owner, MFA, json!(true)).await.expect(200);
    put(&app, &app.ours.owner, ANNOUNCEMENT, json!("ours")).await.expect(200);
    for who in [&app.theirs.owner, &app.platform] {
        assert_eq!(app.get(who, MFA).await.expect(200).json()["source"], "default");
        assert_eq!(app.get(who, ANNOUNCEMENT).await.expect(200).json()["value"], Value::Null);
    }
}

#[tokio::test]
async fn settings_page_by_their_keys_and_are_found_by_category() {
    let app = App::start().await;
    let owner = &app.ours.owner;
    let keys = async |path: &str| {
        let page = app.get(owner, path).await.expect(200).json();
        let items = page["items"].as_array().unwrap().iter();
        let keys: Vec<_> = items.map(|setting| setting["key"].as_str().unwrap().to_owned()).collect();
        (keys, page["nextCursor"].as_str().map(str::to_owned))
    };
    let (first, cursor) = keys("/api/v1/settings?limit=1").await;
    let cursor = cursor.unwrap();
    let (second, end) = keys(&format!("/api/v1/settings?limit=1&cursor={cursor}")).await;
    assert_eq!(
        (first, second, end),
        (vec!["auth.mfa_required".into()], vec!["ui.announcement".into()], None)
    );
    assert_eq!(keys("/api/v1/settings?category=ui").await.0, ["ui.announcement"]);
    assert!(keys("/api/v1/settings?category=none").await.0.is_empty());
    app.get(owner, "/api/v1/settings?category=").await.problem(422, "invalid");
    app.get(owner, "/api/v1/settings?limit=201").await.problem(422, "invalid");
}

#[tokio::test]
async fn every_change_is_audited_with_what_was_before_even_of_many_at_once() {
    let app = App::start().await;
    let owner = &app.ours.owner;
    let texts: Vec<_> = (0..8).map(|n| format!("text {n}")).collect();
    let sent = texts.iter().map(|text| put(&app, owner, ANNOUNCEMENT, json!(text)));
    for answer in futures::future::join_all(sent).await {
        answer.expect(200);
    }
    // The same again changes nothing.
    let now = app.get(owner, ANNOUNCEMENT).await.expect(200).json();
    put(&app, owner, ANNOUNCEMENT, now["value"].clone()).await.expect(200);
    put(&app, owner, ANNOUNCEMENT, Value::Null).await.expect(200);
    put(&app, owner, ANNOUNCEMENT, Value::Null).await.expect(200);
    let all = "from audit where action = 'settings.update' and resource_id = 'ui.announcement'";
    assert_eq!(app.count(&format!("select count(*) {all}")).await, 9);
    // They make one chain from the default to the default: each value was set once and replaced once.
    for side in ["before", "after"] {
        assert_eq!(app.count(&format!("select count(distinct {side}->>'value') {all}")).await, 8, "{side}");
        let of_default = format!("select count(*) {all} and {side}->>'source' = 'default'");
        assert_eq!(app.count(&of_default).await, 1, "{side}");
    }
}
