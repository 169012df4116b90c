//! Teams: who sees them, who changes what, and that an owner remains.

use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use streamspace_common::{Actor, PLATFORM, Role, UserId};
use streamspace_domain::api_keys::{self, NewApiKey, Owner};
use streamspace_queue::Request;

use crate::app::{Answer, App, Person, any_id, key_of};

/// A bed with a team of `owner`, who is a plain user of the tenant like the others.
struct Bed {
    app: App,
    owner: Person,
    admin: Person,
    member: Person,
    viewer: Person,
    stranger: Person,
    team: String,
}

impl Bed {
    async fn new() -> Self {
        let app = App::start().await;
        let make = async |name: &str| person(&app, name, Role::User).await;
        let (owner, admin, member) = (make("owen").await, make("ada").await, make("mia").await);
        let (viewer, stranger) = (make("vic").await, make("sam").await);
        let team = create(&app, &owner, "Design").await;
        let bed = Self { app, owner, admin, member, viewer, stranger, team };
        for (who, role) in [(&bed.admin, "admin"), (&bed.member, "member"), (&bed.viewer, "viewer")] {
            bed.add(&bed.owner, who, role).await.expect(201);
        }
        bed
    }

    fn path(&self, rest: &str) -> String {
        format!("/api/v1/teams/{}{rest}", self.team)
    }

    async fn add(&self, who: &Person, whom: &Person, role: &str) -> Answer {
        let body = json!({ "userId": whom.id, "role": role });
        self.app.post(who, &self.path("/members"), body).await
    }

    async fn set_role(&self, who: &Person, whom: &Person, role: &str) -> Answer {
        let path = self.path(&format!("/members/{}", whom.id));
        Answer::of(self.app.request(who, Method::PATCH, &path).json(&json!({ "role": role }))).await
    }

    async fn remove(&self, who: &Person, whom: &Person) -> Answer {
        let path = self.path(&format!("/members/{}", whom.id));
        Answer::of(self.app.request(who, Method::DELETE, &path)).await
    }

    async fn change(&self, who: &Person, body: Value) -> Answer {
        Answer::of(self.app.request(who, Method::PATCH, &self.path("")).json(&body)).await
    }

    async fn delete(&self, who: &Person) -> Answer {
        Answer::of(self.app.request(who, Method::DELETE, &self.path(""))).await
    }

    async fn owners(&self) -> i64 {
        let team = &self.team;
        let sql = format!("select count(*) from team_members where team_id = '{team}' and role = 'owner'");
        self.app.count(&sql).await
    }
}

async fn create(app: &App, who: &Person, name: &str) -> String {
    let made = app.post(who, "/api/v1/teams", json!({ "name": name })).await.expect(201).json();
    made["id"].as_str().unwrap().to_owned()
}

async fn person(app: &App, name: &str, role: Role) -> Person {
    let (tenant, id) = (app.ours.id, UserId::new());
    let role_name = role.as_str();
    app.execute(&format!(
        "insert into users (id, tenant_id, email, username, name, role)
         values ('{id}', '{tenant}', '{name}@example.org', '{name}', '{name}', '{role_name}')"
    ))
    .await;
    let key = key_of(&app.queue, tenant, id, &["*"]).await;
    Person { tenant, id, role, key, email: format!("{name}@example.org"), ..app.ours.owner.clone() }
}

/// Somebody who comes with a key of the tenant itself.
async fn tenant_key(app: &App, role: Role) -> Person {
    let mut tx = app.queue.begin(Actor::system(PLATFORM), Request::default());
    let new = NewApiKey {
        name: "the tenant's".to_owned(),
        owner: Owner::Tenant(role),
        scopes: vec!["*".to_owned()],
        hourly_limit: 10_000,
        expires_at: None,
    };
    let (_, secret) = api_keys::create_in(&mut tx, app.ours.id, new).await.unwrap();
    tx.commit().await.unwrap();
    Person { id: UserId::new(), role, key: secret.expose().clone(), ..app.ours.owner.clone() }
}

async fn names(app: &App, who: &Person, path: &str) -> Vec<String> {
    let list = app.get(who, path).await.expect(200).json();
    let items = list["items"].as_array().unwrap();
    items.iter().map(|team| team["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn whoever_makes_a_team_owns_it() {
    let app = App::start().await;
    let user = &app.ours.user;
    let body = json!({ "name": "Design", "description": "Draws\nthings" });
    let made = app.post(user, "/api/v1/teams", body).await.expect(201);
    let team = made.json();
    assert_eq!((&team["name"], &team["description"]), (&json!("Design"), &json!("Draws\nthings")));
    assert_eq!((&team["role"], &team["createdBy"]), (&json!("owner"), &json!(user.id)));
    let path = made.header("location").to_owned();
    assert_eq!(app.get(user, &path).await.expect(200).json(), team);

    let members = app.get(user, &format!("{path}/members")).await.expect(200).json();
    let member = &members["items"][0];
    assert_eq!((&member["userId"], &member["role"]), (&json!(user.id), &json!("owner")));
    assert_eq!((&member["email"], &member["active"]), (&json!("user@example.org"), &json!(true)));
    assert_eq!(members["items"].as_array().unwrap().len(), 1);

    let change = json!({ "description": "" });
    let changed = Answer::of(app.request(user, Method::PATCH, &path).json(&change)).await.expect(200).json();
    assert_eq!((&changed["name"], &changed["description"]), (&json!("Design"), &json!("")));
    // Names are nobody's alone.
    create(&app, &app.ours.operator, "Design").await;
    Answer::of(app.request(user, Method::DELETE, &path)).await.expect(204);
    app.get(user, &path).await.problem(404, "not-found");
    assert_eq!(
        app.count(&format!("select count(*) from team_members where user_id = '{}'", user.id)).await,
        0
    );
}

#[tokio::test]
async fn a_repeated_request_makes_one_team() {
    let app = App::start().await;
    let send = async || {
        let request = app.request(&app.ours.user, Method::POST, "/api/v1/teams");
        let request = request.header("idempotency-key", "once").json(&json!({ "name": "Design" }));
        Answer::of(request).await.expect(201).json()
    };
    assert_eq!(send().await, send().await);
    assert_eq!(app.count("select count(*) from teams").await, 1);
}

#[tokio::test]
async fn members_and_operators_see_a_team_and_nobody_else() {
    let bed = Bed::new().await;
    let app = &bed.app;
    create(app, &app.ours.user, "Elsewhere").await;
    for who in [&bed.owner, &bed.admin, &bed.member, &bed.viewer] {
        assert_eq!(names(app, who, "/api/v1/teams").await, ["Design"]);
        assert_eq!(names(app, who, "/api/v1/teams/my-teams").await, ["Design"]);
    }
    for who in [&app.ours.operator, &app.ours.owner] {
        assert_eq!(names(app, who, "/api/v1/teams").await, ["Elsewhere", "Design"]);
        assert!(names(app, who, "/api/v1/teams/my-teams").await.is_empty());
        let team = app.get(who, &bed.path("")).await.expect(200).json();
        assert!(team.get("role").is_none(), "{team}");
    }
    assert_eq!(names(app, &app.ours.operator, "/api/v1/teams?q=DES").await, ["Design"]);
    assert!(names(app, &bed.owner, "/api/v1/teams/my-teams?q=%25").await.is_empty());

    // Absent and invisible are the same, for strangers, other tenants and the platform's administrators.
    let absent = format!("/api/v1/teams/{}", any_id());
    for who in [&bed.stranger, &app.ours.viewer, &app.theirs.owner, &app.platform] {
        assert!(!names(app, who, "/api/v1/teams").await.contains(&"Design".to_owned()));
        for rest in ["", "/members", "/permissions", "/role-info", "/my-permissions", "/check-permission/x"] {
            let theirs = app.get(who, &bed.path(rest)).await.problem(404, "not-found").json();
            let none = app.get(who, &format!("{absent}{rest}")).await.problem(404, "not-found").json();
            assert_eq!((&theirs["title"], &theirs["detail"]), (&none["title"], &none["detail"]));
        }
    }
    for who in [&bed.stranger, &app.theirs.owner] {
        bed.change(who, json!({ "name": "Mine" })).await.problem(404, "not-found");
        bed.delete(who).await.problem(404, "not-found");
        bed.add(who, &bed.stranger, "viewer").await.problem(404, "not-found");
        bed.set_role(who, &bed.viewer, "member").await.problem(404, "not-found");
        bed.remove(who, &bed.viewer).await.problem(404, "not-found");
    }
}

#[tokio::test]
async fn a_role_decides_what_one_may() {
    let bed = Bed::new().await;
    for who in [&bed.admin, &bed.member, &bed.viewer, &bed.app.ours.operator] {
        bed.change(who, json!({ "name": "Mine" })).await.problem(403, "forbidden");
        bed.delete(who).await.problem(403, "forbidden");
    }
    for who in [&bed.member, &bed.viewer, &bed.app.ours.operator] {
        bed.add(who, &bed.stranger, "viewer").await.problem(403, "forbidden");
        bed.set_role(who, &bed.viewer, "viewer").await.problem(403, "forbidden");
        bed.remove(who, &bed.admin).await.problem(403, "forbidden");
    }
    bed.change(&bed.owner, json!({ "name": "Drawing" })).await.expect(200);
    bed.add(&bed.admin, &bed.stranger, "member").await.expect(201);
    bed.set_role(&bed.admin, &bed.stranger, "viewer").await.expect(200);
    bed.remove(&bed.admin, &bed.stranger).await.expect(204);
    bed.delete(&bed.owner).await.expect(204);
}

#[tokio::test]
async fn nobody_reaches_above_their_own_role() {
    let bed = Bed::new().await;
    bed.add(&bed.admin, &bed.stranger, "owner").await.problem(403, "forbidden");
    bed.set_role(&bed.admin, &bed.admin, "owner").await.problem(403, "forbidden");
    bed.set_role(&bed.admin, &bed.member, "owner").await.problem(403, "forbidden");
    bed.add(&bed.owner, &bed.stranger, "owner").await.expect(201);
    bed.set_role(&bed.admin, &bed.owner, "member").await.problem(403, "forbidden");
    bed.remove(&bed.admin, &bed.owner).await.problem(403, "forbidden");
    bed.set_role(&bed.admin, &bed.member, "admin").await.expect(200);
    bed.remove(&bed.member, &bed.admin).await.expect(204);
}

#[tokio::test]
async fn admins_of_the_tenant_have_an_owners_rights() {
    let bed = Bed::new().await;
    let boss = person(&bed.app, "boss", Role::Admin).await;
    bed.change(&boss, json!({ "name": "Drawing" })).await.expect(200);
    bed.add(&boss, &bed.stranger, "owner").await.expect(201);
    bed.remove(&boss, &bed.owner).await.expect(204);
    bed.set_role(&boss, &bed.stranger, "viewer").await.problem(409, "conflict");
    bed.remove(&boss, &boss).await.problem(404, "not-found");
    bed.delete(&boss).await.expect(204);
}

#[tokio::test]
async fn the_last_owner_stays() {
    let bed = Bed::new().await;
    bed.remove(&bed.owner, &bed.owner).await.problem(409, "conflict");
    bed.set_role(&bed.owner, &bed.owner, "admin").await.problem(409, "conflict");
    bed.remove(&bed.app.ours.owner, &bed.owner).await.problem(409, "conflict");
    bed.set_role(&bed.owner, &bed.owner, "owner").await.expect(200);
    // One who cannot sign in is none.
    bed.set_role(&bed.owner, &bed.admin, "owner").await.expect(200);
    let active = |active: bool| format!("update users set active = {active} where id = '{}'", bed.admin.id);
    bed.app.execute(&active(false)).await;
    bed.remove(&bed.owner, &bed.owner).await.problem(409, "conflict");
    bed.app.execute(&active(true)).await;
    bed.remove(&bed.owner, &bed.owner).await.expect(204);
    bed.app.get(&bed.owner, &bed.path("")).await.problem(404, "not-found");
    assert_eq!(bed.owners().await, 1);
}

#[tokio::test]
async fn of_two_owners_who_leave_at_once_one_stays() {
    let bed = Bed::new().await;
    for round in 0..10 {
        bed.app
            .execute(&format!(
                "insert into team_members (tenant_id, team_id, user_id, role)
                 select tenant_id, '{}', id, 'owner' from users where username in ('owen', 'ada')
                 on conflict (tenant_id, team_id, user_id) do update set role = 'owner'",
                bed.team
            ))
            .await;
        let (one, two) = (&bed.owner, &bed.admin);
        // They leave, demote themselves, or each the other.
        let (first, second) = match round % 3 {
            0 => tokio::join!(bed.remove(one, one), bed.remove(two, two)),
            1 => tokio::join!(bed.set_role(one, one, "member"), bed.set_role(two, two, "member")),
            _ => tokio::join!(bed.remove(one, two), bed.remove(two, one)),
        };
        let mut ends = [first.status, second.status];
        ends.sort_unstable();
        match round % 3 {
            0 => assert_eq!(ends, [204, 409]),
            1 => assert_eq!(ends, [200, 409]),
            // Who was removed meanwhile sees no team any more.
            _ => assert_eq!(ends, [204, 404]),
        }
        assert_eq!(bed.owners().await, 1, "round {round}");
    }
}

#[tokio::test]
async fn somebody_is_added_once_however_many_ask() {
    let bed = Bed::new().await;
    let tries = join_all((0..6).map(|_| bed.add(&bed.owner, &bed.stranger, "member"))).await;
    let mut ends: Vec<_> = tries.iter().map(|answer| answer.status).collect();
    ends.sort_unstable();
    assert_eq!(ends, [201, 409, 409, 409, 409, 409]);
    let by_email = json!({ "email": "SAM@example.org", "role": "admin" });
    bed.app.post(&bed.owner, &bed.path("/members"), by_email).await.problem(409, "conflict");
}

#[tokio::test]
async fn whom_to_add_must_be_somebody_of_the_tenant() {
    let bed = Bed::new().await;
    let add = async |body: Value| bed.app.post(&bed.owner, &bed.path("/members"), body).await;
    let pointer = async |body: Value| {
        let refused = add(body).await.problem(422, "invalid").json();
        refused["errors"][0]["pointer"].as_str().unwrap().to_owned()
    };
    let theirs = bed.app.theirs.user.id;
    assert_eq!(pointer(json!({ "userId": theirs, "role": "member" })).await, "/userId");
    assert_eq!(pointer(json!({ "userId": any_id(), "role": "member" })).await, "/userId");
    assert_eq!(pointer(json!({ "email": "nobody@example.org", "role": "member" })).await, "/email");
    assert_eq!(pointer(json!({ "role": "member" })).await, "/userId");
    let both = json!({ "userId": bed.stranger.id, "email": "sam@example.org", "role": "member" });
    assert_eq!(pointer(both).await, "/email");
    assert_eq!(pointer(json!({ "email": "sam@example.org" })).await, "/role");
    assert_eq!(pointer(json!({ "email": "sam@example.org", "role": "king" })).await, "/role");
    assert_eq!(pointer(json!({ "userId": "sam", "role": "member" })).await, "/userId");
    bed.app.execute(&format!("update users set active = false where id = '{}'", bed.stranger.id)).await;
    assert_eq!(pointer(json!({ "email": "sam@example.org", "role": "member" })).await, "/email");
    bed.app.execute(&format!("update users set active = true where id = '{}'", bed.stranger.id)).await;
    add(json!({ "email": "Sam@Example.org", "role": "member" })).await.expect(201);

    bed.set_role(&bed.owner, &bed.app.theirs.user, "viewer").await.problem(404, "not-found");
    bed.remove(&bed.owner, &bed.app.theirs.user).await.problem(404, "not-found");
    bed.app.get(&bed.owner, "/api/v1/teams/none").await.problem(400, "malformed");
    let odd = bed.app.request(&bed.owner, Method::DELETE, &bed.path("/members/none"));
    Answer::of(odd).await.problem(400, "malformed");
}

#[tokio::test]
async fn fields_are_strict() {
    let bed = Bed::new().await;
    let long = "x".repeat(2001);
    for (body, wrong) in [
        (json!({}), "/name"),
        (json!({ "name": " " }), "/name"),
        (json!({ "name": &long[..201] }), "/name"),
        (json!({ "name": "a\nb" }), "/name"),
        (json!({ "name": "a", "description": long }), "/description"),
        (json!({ "name": "a", "description": "a\u{7}" }), "/description"),
        (json!({ "name": "a", "tenantId": bed.app.theirs.id }), "/tenantId"),
    ] {
        let refused = bed.app.post(&bed.owner, "/api/v1/teams", body).await.problem(422, "invalid").json();
        assert_eq!(refused["errors"][0]["pointer"], wrong);
    }
    for body in [json!({ "name": "" }), json!({ "description": long }), json!({ "owner": bed.stranger.id })] {
        bed.change(&bed.owner, body).await.problem(422, "invalid");
    }
    assert_eq!(bed.change(&bed.owner, json!({})).await.expect(200).json()["name"], "Design");
}

#[tokio::test]
async fn a_viewer_of_the_tenant_belongs_and_changes_nothing_but_leaves() {
    let bed = Bed::new().await;
    let viewer = &bed.app.ours.viewer;
    bed.app.post(viewer, "/api/v1/teams", json!({ "name": "Mine" })).await.problem(403, "forbidden");
    bed.add(&bed.owner, viewer, "owner").await.expect(201);
    bed.change(viewer, json!({ "name": "Mine" })).await.problem(403, "forbidden");
    bed.delete(viewer).await.problem(403, "forbidden");
    bed.remove(viewer, &bed.member).await.problem(403, "forbidden");
    let own = bed.app.get(viewer, &bed.path("/my-permissions")).await.expect(200).json();
    assert_eq!((&own["role"], &own["actsAs"]), (&json!("owner"), &json!("viewer")));
    bed.remove(viewer, viewer).await.expect(204);
    bed.app.get(viewer, &bed.path("")).await.problem(404, "not-found");
}

#[tokio::test]
async fn a_key_of_the_tenant_is_a_member_of_nothing() {
    let bed = Bed::new().await;
    let (admin, user) = (tenant_key(&bed.app, Role::Admin).await, tenant_key(&bed.app, Role::User).await);
    bed.app.post(&admin, "/api/v1/teams", json!({ "name": "Mine" })).await.problem(409, "conflict");
    assert!(names(&bed.app, &admin, "/api/v1/teams/my-teams").await.is_empty());
    assert_eq!(names(&bed.app, &admin, "/api/v1/teams").await, ["Design"]);
    assert!(names(&bed.app, &user, "/api/v1/teams").await.is_empty());
    bed.app.get(&user, &bed.path("")).await.problem(404, "not-found");
    bed.add(&admin, &bed.stranger, "owner").await.expect(201);
    bed.remove(&admin, &bed.stranger).await.expect(204);
}

#[tokio::test]
async fn permissions_are_told() {
    let bed = Bed::new().await;
    let app = &bed.app;
    let view = json!(["team.sessions.view", "team.quota.view"]);
    let all = app.get(&bed.viewer, &bed.path("/permissions")).await.expect(200).json();
    assert_eq!(all["items"][0], json!({ "role": "viewer", "permissions": view }));
    assert_eq!(all["items"][3]["permissions"].as_array().unwrap().len(), 9);
    let roles = app.get(&bed.viewer, &bed.path("/role-info")).await.expect(200).json();
    let roles: Vec<_> = roles["items"].as_array().unwrap().iter().map(|role| role["role"].clone()).collect();
    assert_eq!(roles, ["viewer", "member", "admin", "owner"]);

    let own = app.get(&bed.viewer, &bed.path("/my-permissions")).await.expect(200).json();
    assert_eq!(own, json!({ "teamId": bed.team, "role": "viewer", "actsAs": "viewer", "permissions": view }));
    let own = app.get(&app.ours.operator, &bed.path("/my-permissions")).await.expect(200).json();
    assert_eq!(own, json!({ "teamId": bed.team, "actsAs": "viewer", "permissions": view }));
    let own = app.get(&app.ours.owner, &bed.path("/my-permissions")).await.expect(200).json();
    assert_eq!((own.get("role"), &own["actsAs"]), (None, &json!("owner")));

    let check = async |who: &Person, permission: &str| {
        app.get(who, &bed.path(&format!("/check-permission/{permission}"))).await
    };
    for (who, permission, allowed) in [
        (&bed.owner, "team.manage", true),
        (&bed.admin, "team.manage", false),
        (&bed.admin, "team.members.manage", true),
        (&bed.member, "team.sessions.connect", true),
        (&bed.member, "team.sessions.delete", false),
        (&bed.viewer, "team.sessions.connect", false),
        (&app.ours.owner, "team.quota.manage", true),
    ] {
        let told = check(who, permission).await.expect(200).json();
        assert_eq!(told, json!({ "permission": permission, "allowed": allowed }));
    }
    check(&bed.owner, "team.fly").await.problem(404, "not-found");
}

#[tokio::test]
async fn a_change_acts_at_once_on_every_replica() {
    let bed = Bed::new().await;
    let other = bed.app.another().await;
    let client = reqwest::Client::new();
    let there = async |path: &str| {
        let url = format!("http://{other}{}", bed.path(path));
        Answer::of(client.get(url).header("x-api-key", &bed.member.key)).await
    };
    let manages = "/check-permission/team.members.manage";
    assert_eq!(there(manages).await.expect(200).json()["allowed"], false);
    bed.set_role(&bed.owner, &bed.member, "admin").await.expect(200);
    assert_eq!(there(manages).await.expect(200).json()["allowed"], true);
    bed.remove(&bed.owner, &bed.member).await.expect(204);
    there("").await.problem(404, "not-found");
}

#[tokio::test]
async fn lists_are_pages() {
    let bed = Bed::new().await;
    let app = &bed.app;
    app.execute(&format!(
        "with people as (
             insert into users (id, tenant_id, email, username, name, role)
             select gen_random_uuid(), '{tenant}', 'p' || n || '@example.org', 'p' || n, 'P', 'user'
             from generate_series(1, 120) n returning id)
         insert into team_members (tenant_id, team_id, user_id, role)
         select '{tenant}', '{team}', id, 'viewer' from people",
        tenant = app.ours.id,
        team = bed.team,
    ))
    .await;
    let (mut ids, mut sizes, mut path) = (Vec::new(), Vec::new(), bed.path("/members?limit=50"));
    loop {
        let answer = app.get(&bed.viewer, &path).await.expect(200);
        let page = answer.json();
        let items = page["items"].as_array().unwrap();
        sizes.push(items.len());
        ids.extend(items.iter().map(|member| member["userId"].as_str().unwrap().to_owned()));
        let Some(cursor) = page["nextCursor"].as_str() else { break };
        path = bed.path(&format!("/members?limit=50&cursor={cursor}"));
        assert!(answer.header("link").starts_with(&format!("<{path}>")), "{}", answer.header("link"));
    }
    assert_eq!(sizes, [50, 50, 24]);
    assert!(ids.is_sorted_by(|a, b| a < b));

    // A cursor is good for its own list.
    let page = app.get(&bed.viewer, &bed.path("/members?limit=1")).await.expect(200).json();
    let cursor = page["nextCursor"].as_str().unwrap();
    let second = create(app, &bed.viewer, "Second").await;
    app.get(&bed.viewer, &format!("/api/v1/teams/{second}/members?cursor={cursor}"))
        .await
        .problem(422, "invalid");
    app.get(&bed.viewer, &bed.path("/members?limit=0")).await.problem(422, "invalid");

    let third = create(app, &bed.viewer, "Third").await;
    for list in ["/api/v1/teams", "/api/v1/teams/my-teams"] {
        let (mut found, mut path) = (Vec::new(), format!("{list}?limit=1&q=d"));
        loop {
            let page = app.get(&bed.viewer, &path).await.expect(200).json();
            found.push(page["items"][0]["id"].as_str().unwrap().to_owned());
            let Some(cursor) = page["nextCursor"].as_str() else { break };
            path = format!("{list}?limit=1&q=d&cursor={cursor}");
        }
        assert_eq!(found, [third.clone(), second.clone(), bed.team.clone()]);
    }
}

#[tokio::test]
async fn every_change_is_in_the_audit() {
    let bed = Bed::new().await;
    bed.set_role(&bed.owner, &bed.member, "admin").await.expect(200);
    bed.remove(&bed.owner, &bed.member).await.expect(204);
    bed.change(&bed.owner, json!({ "name": "Drawing" })).await.expect(200);
    bed.remove(&bed.owner, &bed.owner).await.problem(409, "conflict");
    bed.delete(&bed.owner).await.expect(204);
    let audited = async |action: &str, rest: &str| {
        let (team, owner) = (&bed.team, bed.owner.id);
        bed.app
            .count(&format!(
                "select count(*) from audit where action = '{action}' and resource_id = '{team}'
                 and user_id = '{owner}' and request_id is not null and {rest}"
            ))
            .await
    };
    assert_eq!(audited("teams.create", "after->>'name' = 'Design' and before is null").await, 1);
    assert_eq!(audited("teams.add_member", "after->>'role' = 'member'").await, 1);
    assert_eq!(audited("teams.add_member", "before is null").await, 3);
    let change = "before->>'role' = 'member' and after->>'role' = 'admin'";
    assert_eq!(audited("teams.change_member", change).await, 1);
    assert_eq!(audited("teams.remove_member", "before->>'role' = 'admin' and after is null").await, 1);
    assert_eq!(audited("teams.remove_member", "true").await, 1);
    let change = "before->>'name' = 'Design' and after->>'name' = 'Drawing'";
    assert_eq!(audited("teams.update", change).await, 1);
    assert_eq!(audited("teams.delete", "before->>'name' = 'Drawing' and after is null").await, 1);
}

#[tokio::test]
async fn a_scope_opens_teams() {
    let bed = Bed::new().await;
    let narrow = async |scope: &str| Person {
        key: key_of(&bed.app.queue, bed.owner.tenant, bed.owner.id, &[scope]).await,
        ..bed.owner.clone()
    };
    let reader = narrow("teams.read").await;
    bed.app.get(&reader, &bed.path("")).await.expect(200);
    bed.change(&reader, json!({ "name": "Mine" })).await.problem(403, "forbidden");
    bed.app.get(&narrow("jobs.read").await, &bed.path("")).await.problem(403, "forbidden");
    bed.change(&narrow("teams.write").await, json!({ "name": "Mine" })).await.expect(200);
}
