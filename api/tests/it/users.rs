//! Who may change whom, and what nobody changes by the way.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    app::{Answer, App, PASSWORD, Person},
    sign_in::{cheap, login},
};

async fn change(app: &App, by: &Person, whom: &Person, body: Value) -> Answer {
    let path = format!("/api/v1/auth/users/{}", whom.id);
    Answer::of(app.request(by, Method::PATCH, &path).json(&body)).await
}

/// The operator, risen.
async fn admin(app: &App) -> Person {
    app.execute(&format!("update users set role = 'admin' where id = '{}'", app.ours.operator.id)).await;
    app.ours.operator.clone()
}

#[tokio::test]
async fn admins_manage_whoever_is_below_and_owners_everybody() {
    let app = App::start_with(cheap()).await;
    let admin = admin(&app).await;
    let (owner, user) = (&app.ours.owner, &app.ours.user);
    assert_eq!(
        change(&app, &admin, user, json!({ "role": "operator" })).await.expect(200).json()["role"],
        "operator"
    );
    for body in [json!({ "role": "admin" }), json!({ "role": "owner" })] {
        change(&app, &admin, user, body.clone()).await.problem(403, "forbidden");
        change(&app, &admin, &admin, body).await.problem(403, "forbidden");
    }
    for body in [json!({ "name": "x" }), json!({ "active": false }), json!({ "email": "x@example.org" })] {
        change(&app, &admin, owner, body).await.problem(403, "forbidden");
    }
    change(&app, owner, &admin, json!({ "role": "owner" })).await.expect(200);
    change(&app, owner, owner, json!({ "role": "user" })).await.expect(200);
}

#[tokio::test]
async fn the_last_owner_stays_one() {
    let app = App::start_with(cheap()).await;
    let owner = &app.ours.owner;
    for body in [json!({ "role": "admin" }), json!({ "active": false })] {
        change(&app, owner, owner, body).await.problem(409, "conflict");
    }
    // Of two who demote each other at once, one stays.
    app.execute(&format!("update users set role = 'owner' where id = '{}'", app.ours.operator.id)).await;
    let demote = json!({ "role": "admin" });
    let other = &app.ours.operator;
    let (one, two) =
        tokio::join!(change(&app, owner, other, demote.clone()), change(&app, other, owner, demote.clone()),);
    assert!([one.status, two.status].contains(&200), "{} {}", one.text, two.text);
    assert_eq!(
        app.count(&format!(
            "select count(*) from users where tenant_id = '{}' and role = 'owner'",
            app.ours.id
        ))
        .await,
        1
    );
}

/// Whoever has the address of somebody has their account, by the link of a forgotten password.
#[tokio::test]
async fn who_reaches_the_installation_is_changed_by_nobody_who_does_not() {
    let app = App::start_with(cheap()).await;
    app.execute(&format!("update users set platform_admin = true where id = '{}'", app.ours.user.id)).await;
    for body in
        [json!({ "email": "mallory@example.org" }), json!({ "role": "viewer" }), json!({ "active": false })]
    {
        change(&app, &app.ours.owner, &app.ours.user, body).await.problem(403, "forbidden");
    }
}

#[tokio::test]
async fn ones_own_address_takes_ones_password() {
    let app = App::start_with(cheap()).await;
    let owner = &app.ours.owner;
    app.set_password(owner).await;
    let path = format!("/api/v1/auth/users/{}", owner.id);
    let body = json!({ "email": "new@example.org", "currentPassword": PASSWORD });
    // A key is not enough, whatever it knows.
    change(&app, owner, owner, body.clone()).await.problem(422, "invalid");
    let sign_in = json!({ "email": owner.email, "password": PASSWORD, "tenant": owner.slug });
    let token = login(&app, sign_in).await.expect(200).json()["accessToken"].as_str().unwrap().to_owned();
    let signed_in = async |body: Value| {
        Answer::of(app.anonymous(Method::PATCH, &path).bearer_auth(&token).json(&body)).await
    };
    signed_in(json!({ "email": "new@example.org" })).await.problem(422, "invalid");
    signed_in(json!({ "email": "new@example.org", "currentPassword": "wrong" }))
        .await
        .problem(422, "invalid");
    assert_eq!(app.count("select count(*) from audit where action = 'sign_ins.fail'").await, 1);
    assert_eq!(signed_in(body).await.expect(200).json()["emailVerified"], false);
}

#[tokio::test]
async fn nobody_becomes_more_by_a_field_that_nobody_asked_for() {
    let app = App::start_with(cheap()).await;
    for field in ["role", "tenant", "tenantId", "platformAdmin", "active", "email", "passwordHash", "id"] {
        let mut body = json!({ "name": "Ada" });
        body[field] = json!("owner");
        let request = app.request(&app.ours.user, Method::PUT, "/api/v1/auth/profile").json(&body);
        Answer::of(request).await.problem(422, "invalid");
    }
    for field in
        ["tenant", "tenantId", "platformAdmin", "passwordHash", "id", "emailVerified", "failedLoginCount"]
    {
        let body = json!({ field: true });
        change(&app, &app.ours.owner, &app.ours.user, body).await.problem(422, "invalid");
        let mut made = json!({
            "email": "x@example.org", "name": "X", "role": "user",
            "password": "walked through", "passwordConfirmation": "walked through",
        });
        made[field] = json!(true);
        app.post(&app.ours.owner, "/api/v1/auth/register/user", made).await.problem(422, "invalid");
    }
}

#[tokio::test]
async fn the_tenants_profile_is_read_by_all_and_changed_by_admins() {
    let app = App::start_with(cheap()).await;
    let path = "/api/v1/auth/tenant/profile";
    assert_eq!(app.get(&app.ours.viewer, path).await.expect(200).json()["slug"], "ours");
    let put =
        async |who: &Person, body: Value| Answer::of(app.request(who, Method::PUT, path).json(&body)).await;
    put(&app.ours.operator, json!({ "name": "Mine" })).await.problem(403, "forbidden");
    let body =
        json!({ "name": "Ours, Inc.", "contactEmail": "office@example.org", "metadata": { "a": [1] } });
    let changed = put(&app.ours.owner, body).await.expect(200).json();
    assert_eq!((&changed["name"], &changed["metadata"]["a"][0]), (&json!("Ours, Inc."), &json!(1)));
    let changed = put(&app.ours.owner, json!({ "contactEmail": null })).await.expect(200).json();
    assert!(changed.get("contactEmail").is_none() && changed["name"] == "Ours, Inc.", "{changed}");
    for bad in [
        json!({ "metadata": [] }),
        json!({ "metadata": { "a": "x".repeat(17_000) } }),
        json!({ "slug": "other" }),
        json!({ "tier": "enterprise" }),
        json!({ "name": "" }),
        json!({ "contactEmail": "nobody" }),
    ] {
        put(&app.ours.owner, bad).await.problem(422, "invalid");
    }
    assert_eq!(app.count("select count(*) from audit where action = 'tenants.update'").await, 2);
    assert_eq!(app.get(&app.theirs.viewer, path).await.expect(200).json()["slug"], "theirs");
}
