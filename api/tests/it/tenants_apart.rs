//! Three tenants do whatever comes to their minds. A model knows what is whose; no answer ever holds a
//! row of another tenant, and everybody finds what they made.

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use reqwest::Method;
use serde_json::{Value, json};
use streamspace_common::Role;

use crate::{
    access::schedule,
    app::{Answer, App, Person},
    sign_in::cheap,
};

/// What a tenant has, by id: in which list it stands while it is there.
#[derive(Default)]
struct Model {
    things: BTreeMap<String, Thing>,
}

struct Thing {
    tenant: usize,
    kind: Kind,
    gone: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Team,
    Key,
    User,
    Schedule,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Team, Self::Key, Self::User, Self::Schedule];

    fn list(self) -> &'static str {
        match self {
            Self::Team => "/api/v1/teams",
            Self::Key => "/api/v1/api-keys",
            Self::User => "/api/v1/auth/users",
            Self::Schedule => "/api/v1/schedules",
        }
    }

    fn make(self, name: &str) -> (&'static str, Value) {
        match self {
            Self::Team => (self.list(), json!({ "name": name, "description": name })),
            Self::Key => (self.list(), json!({ "name": name })),
            Self::User => (
                "/api/v1/auth/register/user",
                json!({
                    "email": format!("{name}@example.org"), "name": name, "role": "user",
                    "password": "walked through", "passwordConfirmation": "walked through",
                }),
            ),
            Self::Schedule => (self.list(), schedule(name)),
        }
    }

    fn change(self, name: &str) -> (Method, Value) {
        match self {
            Self::Team | Self::User => (Method::PATCH, json!({ "name": name })),
            Self::Key => (Method::POST, json!({})),
            Self::Schedule => (Method::PUT, schedule(name)),
        }
    }
}

struct Walk<'a> {
    app: &'a App,
    random: StdRng,
    model: Model,
    owners: [&'a Person; 3],
    made: usize,
}

impl Walk<'_> {
    /// A word that only this tenant's rows hold.
    fn marker(tenant: usize) -> String {
        format!("marker{tenant}{tenant}{tenant}")
    }

    fn name(&mut self, tenant: usize) -> String {
        self.made += 1;
        format!("{}-{}", Self::marker(tenant), self.made)
    }

    /// What was answered holds nothing of anybody else.
    fn check(&self, tenant: usize, what: &str, answer: &Answer) {
        assert!(answer.status < 500, "{what}: {}", answer.text);
        for other in (0..3).filter(|other| *other != tenant) {
            assert!(!answer.text.contains(&Self::marker(other)), "{what}: {}", answer.text);
            for (id, thing) in &self.model.things {
                let asked_for = what.contains(id.as_str());
                assert!(
                    thing.tenant == tenant || asked_for || !answer.text.contains(id.as_str()),
                    "{what} tells of {id}: {}",
                    answer.text
                );
            }
        }
    }

    async fn send(&self, tenant: usize, method: Method, path: &str, body: Option<Value>) -> Answer {
        let mut request = self.app.request(self.owners[tenant], method.clone(), path);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = Answer::of(request).await;
        self.check(tenant, &format!("{method} {path} as {tenant}"), &answer);
        answer
    }

    fn any(&mut self) -> Option<(String, usize, Kind, bool)> {
        let count = self.model.things.len();
        let at = self.random.random_range(0..count.max(1));
        self.model.things.iter().nth(at).map(|(id, thing)| (id.clone(), thing.tenant, thing.kind, thing.gone))
    }

    async fn step(&mut self) {
        let tenant = self.random.random_range(0..3);
        let kind = Kind::ALL[self.random.random_range(0..Kind::ALL.len())];
        match self.random.random_range(0..10) {
            0..=3 => {
                let name = self.name(tenant);
                let (path, body) = kind.make(&name);
                let made = self.send(tenant, Method::POST, path, Some(body)).await.expect(201).json();
                let id = made["id"].as_str().unwrap().to_owned();
                self.model.things.insert(id, Thing { tenant, kind, gone: false });
            }
            4..=5 => {
                let Some((id, whose, kind, gone)) = self.any() else { return };
                let path = format!("{}/{id}", kind.list());
                // Of keys there is no page of its own; what they were used for is.
                let path = if kind == Kind::Key { format!("{path}/usage") } else { path };
                let found = self.send(tenant, Method::GET, &path, None).await.status;
                assert_eq!(
                    found,
                    if whose == tenant && !gone { 200 } else { 404 },
                    "{path} of {whose} as {tenant}"
                );
            }
            6..=7 => {
                let Some((id, whose, kind, gone)) = self.any() else { return };
                let name = self.name(tenant);
                let (method, body) = kind.change(&name);
                let path = format!("{}/{id}", kind.list());
                let path = if kind == Kind::Key { format!("{path}/revoke") } else { path };
                let changed = self.send(tenant, method, &path, Some(body)).await.status;
                assert_eq!(
                    changed,
                    if whose == tenant && !gone { 200 } else { 404 },
                    "{path} of {whose} as {tenant}"
                );
            }
            8 => {
                let Some((id, whose, kind, gone)) = self.any() else { return };
                if kind == Kind::User {
                    return; // a job does it, and no worker runs here
                }
                let path = format!("{}/{id}", kind.list());
                let deleted = self.send(tenant, Method::DELETE, &path, None).await.status;
                assert_eq!(
                    deleted,
                    if whose == tenant && !gone { 204 } else { 404 },
                    "{path} of {whose} as {tenant}"
                );
                if deleted == 204 {
                    self.model.things.get_mut(&id).unwrap().gone = true;
                }
            }
            _ => self.list(tenant, kind).await,
        }
    }

    /// A list holds what the tenant has, all of it.
    async fn list(&self, tenant: usize, kind: Kind) {
        let mut found = Vec::new();
        let mut path = format!("{}?limit=7", kind.list());
        loop {
            let page = self.send(tenant, Method::GET, &path, None).await.expect(200).json();
            found.extend(
                page["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()),
            );
            let Some(next) = page["nextCursor"].as_str() else { break };
            path = format!("{}?limit=7&cursor={next}", kind.list());
        }
        for (id, thing) in self.model.things.iter().filter(|(_, thing)| thing.kind == kind) {
            let expected = thing.tenant == tenant && !thing.gone;
            assert_eq!(found.contains(id), expected, "{id} of {} in the list of {tenant}", thing.tenant);
        }
    }
}

#[tokio::test]
async fn whatever_tenants_do_none_ever_sees_anothers_rows() {
    let seed: u64 = std::env::var("STREAMSPACE_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(rand::random);
    let steps = if std::env::var_os("STREAMSPACE_TEST_LONG").is_some() { 5000 } else { 400 };
    println!("STREAMSPACE_TEST_SEED={seed} repeats this");
    let app = App::start_with(cheap()).await;
    // An owner like the others: platform administrators see what is the installation's.
    app.execute("update users set platform_admin = false").await;
    let third = Person { role: Role::Owner, ..app.platform.clone() };
    let owners = [&app.ours.owner, &app.theirs.owner, &third];
    let mut walk =
        Walk { app: &app, random: StdRng::seed_from_u64(seed), model: Model::default(), owners, made: 0 };
    for _ in 0..steps {
        walk.step().await;
    }
    for tenant in 0..3 {
        for kind in Kind::ALL {
            walk.list(tenant, kind).await;
        }
    }
}
