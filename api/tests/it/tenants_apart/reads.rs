//! Lists, searches and exports; things that have no id; and pairs of ids.

use rand::RngExt;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    cast::{Actor, MARKERS},
    model::Kind,
    walk::Walk,
};
use crate::app::Answer;

const ANNOUNCEMENT: &str = "/api/v1/settings/ui.announcement";
const PROFILE: &str = "/api/v1/auth/tenant/profile";
const AUDIT: &str = "/api/v1/audit";

/// What is searched by an id, of which kind.
const BY_ID: [(&str, &str, Kind); 9] = [
    ("/api/v1/jobs", "user", Kind::User),
    ("/api/v1/jobs", "schedule", Kind::Schedule),
    ("/api/v1/jobs", "parent", Kind::Job),
    ("/api/v1/api-keys", "user", Kind::User),
    (AUDIT, "user", Kind::User),
    (AUDIT, "resourceId", Kind::Team),
    (AUDIT, "resourceId", Kind::Key),
    ("/api/v1/audit/export", "format=csv&resourceId", Kind::Schedule),
    ("/api/v1/audit/export", "format=jsonl&resourceId", Kind::Provider),
];

/// What is searched by a word.
const BY_WORD: [&str; 6] = [
    "/api/v1/teams?q",
    "/api/v1/teams/my-teams?q",
    "/api/v1/auth/users?q",
    "/api/v1/audit?q",
    "/api/v1/audit/export?format=csv&q",
    "/api/v1/audit/export?format=jsonl&q",
];

fn route(path: &str) -> &str {
    path.split('?').next().unwrap()
}

impl Walk<'_> {
    /// A list holds what its reader sees, all of it.
    pub async fn list(&mut self, actor: &Actor, kind: Kind) {
        if !actor.may(&Method::GET, kind.list()) {
            self.send(actor, Method::GET, kind.list(), Value::Null).await.expect(403);
            return;
        }
        let (mut pages, mut path) = (Vec::new(), format!("{}?limit=40", kind.list()));
        loop {
            let page = self.send(actor, Method::GET, &path, Value::Null).await.expect(200);
            let next = page.json()["nextCursor"].as_str().map(str::to_owned);
            pages.push(page.text);
            let Some(cursor) = next else { break };
            // Where one's page begins is no way into another's list.
            let stranger = &self.cast.actors[self.random.random_range(0..self.cast.actors.len())];
            path = format!("{}?limit=40&cursor={cursor}", kind.list());
            self.send(stranger, Method::GET, &path, Value::Null).await;
        }
        if kind == Kind::Provider && !actor.may(&Method::POST, kind.list()) {
            return; // is told their names
        }
        for thing in self.model.things.iter().filter(|thing| thing.kind == kind) {
            let is_there = thing.tenant == actor.tenant && !thing.gone;
            let expected = is_there && self.model.sees(self.cast, actor, thing);
            let found = pages.iter().any(|page| page.contains(&format!("\"id\":\"{}\"", thing.id)));
            assert_eq!(found, expected, "{kind:?} {} in the list of {:?}", thing.id, actor.role);
        }
    }

    pub async fn search(&mut self, tenant: usize) {
        let actor = self.actor(tenant);
        if self.random.random_bool(0.4) {
            return self.search_word(actor).await;
        }
        let (path, name, kind) = BY_ID[self.one_of(BY_ID.len())];
        let Some(index) = self.any(kind, tenant) else { return };
        let (id, whose) = (self.model.things[index].id.clone(), self.model.things[index].tenant);
        let at = |id: &str| (format!("{path}?{name}={id}"), Value::Null);
        if whose != tenant {
            self.alike(actor, &Method::GET, at, &id).await;
            return;
        }
        let found = self.send(actor, Method::GET, &at(&id).0, Value::Null).await;
        // That it was made is told.
        if actor.may(&Method::GET, path) && name.contains("resourceId") {
            assert!(found.expect(200).text.contains(&id), "{path}?{name}={id}");
        }
    }

    async fn search_word(&mut self, actor: &Actor) {
        let path = BY_WORD[self.one_of(BY_WORD.len())];
        let word = MARKERS[self.one_of(3)];
        let at = |word: &str| (format!("{path}={word}"), Value::Null);
        if word != MARKERS[actor.tenant] {
            self.alike_to(actor, &Method::GET, at, word, "nowhere").await;
            return;
        }
        let found = self.send(actor, Method::GET, &at(word).0, Value::Null).await;
        if actor.may(&Method::GET, route(path)) {
            let all = path.contains("users") || path.contains("audit");
            assert!(!all || found.expect(200).text.contains(word), "{path}={word}");
        }
    }

    /// All that is told of what was done, and of what others did nothing.
    pub async fn whole_audit(&mut self, actor: &Actor) {
        for path in ["/api/v1/audit?limit=200", "/api/v1/audit/export?format=csv", "/api/v1/audit/export"] {
            let told = self.send(actor, Method::GET, path, Value::Null).await.expect(200).text;
            assert!(told.contains(MARKERS[actor.tenant]), "{path} is of {}", MARKERS[actor.tenant]);
        }
        for path in BY_WORD {
            let at = |word: &str| (format!("{path}={word}"), Value::Null);
            for word in MARKERS.iter().filter(|word| **word != MARKERS[actor.tenant]) {
                self.alike_to(actor, &Method::GET, at, word, "nowhere").await;
            }
        }
    }

    /// What each tenant has one of.
    pub async fn of_the_tenant(&mut self, tenant: usize) {
        let (actor, name) = (self.actor(tenant), self.name(tenant));
        let (get, put) = (Method::GET, Method::PUT);
        match self.one_of(8) {
            0 => {
                let value = self.random.random_bool(0.8).then_some(name);
                let answer = self.send(actor, put, ANNOUNCEMENT, json!({ "value": value })).await;
                if answer.status == 200 {
                    self.model.announcements[tenant] = value;
                }
            }
            1 => {
                let answer = self.send(actor, get, ANNOUNCEMENT, Value::Null).await;
                if actor.may(&Method::GET, "/api/v1/settings/{key}") {
                    let set = &answer.expect(200).json()["value"];
                    assert_eq!(*set, json!(self.model.announcements[tenant]));
                }
            }
            2 => {
                let body = json!({ "name": name, "contactEmail": format!("{name}@example.org"), "metadata": { "a": name } });
                if self.send(actor, put, PROFILE, body).await.status == 200 {
                    self.model.names[tenant] = name;
                }
            }
            3 => {
                let profile = self.send(actor, get, PROFILE, Value::Null).await.expect(200).json();
                assert_eq!(profile["name"], self.model.names[tenant]);
                assert_eq!(profile["id"], self.cast.tenants[tenant].to_string());
            }
            4 => {
                let own = "/api/v1/auth/profile";
                self.send(actor, put, own, json!({ "name": name })).await;
                let told = self.send(actor, get, own, Value::Null).await;
                if let Some(person) = actor.person {
                    assert_eq!(told.expect(200).json()["name"], json!(name), "{person}");
                }
            }
            5 => {
                let settings = self.send(actor, get.clone(), "/api/v1/settings", Value::Null).await;
                assert_eq!(settings.status == 200, actor.may(&get, "/api/v1/settings"));
                let stats = self.send(actor, get.clone(), "/api/v1/jobs/stats", Value::Null).await;
                if actor.may(&get, "/api/v1/jobs/stats") {
                    let id = self.cast.tenants[tenant];
                    let all = format!("select count(*) from jobs where tenant_id = '{id}'");
                    let all = self.app.count(&all).await;
                    let counted = stats.expect(200).json()["finished"]["of"].as_i64().unwrap();
                    assert!(counted <= all, "{counted} of {all}");
                }
            }
            _ => self.queue(actor).await,
        }
    }

    /// A pause holds for the tenant's own jobs.
    async fn queue(&mut self, actor: &Actor) {
        let (queue, act) = (["mail", "maintenance"][self.one_of(2)], ["pause", "resume", ""][self.one_of(3)]);
        let tenant = actor.tenant;
        let path = format!("/api/v1/queues/{queue}");
        if !act.is_empty() {
            let answer = self.send(actor, Method::POST, &format!("{path}/{act}"), Value::Null).await;
            assert_eq!(answer.status == 200, actor.may(&Method::POST, "/api/v1/queues/{name}/pause"));
            match (answer.status, act) {
                (200, "pause") => _ = self.model.paused.insert((tenant, queue)),
                (200, _) => _ = self.model.paused.remove(&(tenant, queue)),
                _ => {}
            }
        }
        let shown = self.send(actor, Method::GET, &path, Value::Null).await;
        if actor.may(&Method::GET, "/api/v1/queues/{name}") {
            let paused = shown.expect(200).json()["paused"].as_bool().unwrap();
            assert_eq!(paused, self.model.paused.contains(&(tenant, queue)), "{queue}");
        }
    }

    /// A team and a person, each anybody's.
    pub async fn member(&mut self, tenant: usize) {
        let (Some(team), Some(user)) = (self.any(Kind::Team, tenant), self.any(Kind::User, tenant)) else {
            return;
        };
        let actor = self.actor(tenant);
        let role = ["viewer", "member", "owner"][self.one_of(3)];
        let (team_id, user_id) = (self.model.things[team].id.clone(), self.model.things[user].id.clone());
        let (method, body) = match self.one_of(4) {
            0 => (Method::DELETE, Value::Null),
            1 => (Method::PATCH, json!({ "role": role })),
            _ => (Method::POST, json!({ "userId": user_id, "role": role })),
        };
        let adds = method == Method::POST;
        let at = |team: &str, user: &str| {
            let list = format!("/api/v1/teams/{team}/members");
            match adds {
                true => (list, json!({ "userId": user, "role": role })),
                false => (format!("{list}/{user}"), body.clone()),
            }
        };
        if self.model.things[team].tenant != tenant {
            let refused = self.alike(actor, &method, |team| at(team, &user_id), &team_id).await;
            assert!(matches!(refused.status, 403 | 404), "{}", refused.text);
            return;
        }
        if self.model.things[user].tenant != tenant {
            let refused = self.alike(actor, &method, |user| at(&team_id, user), &user_id).await;
            assert!(matches!(refused.status, 403 | 404 | 422), "{}", refused.text);
            return;
        }
        let (path, body) = at(&team_id, &user_id);
        let status = self.send(actor, method.clone(), &path, body).await.status;
        let members = &mut self.model.things[team].members;
        match status {
            201 => assert!(members.insert(user_id)),
            204 => assert!(members.remove(&user_id)),
            // One who is disabled is not added.
            200 | 403 | 404 | 409 | 422 => {}
            other => panic!("{method} {path}: {other}"),
        }
    }

    /// Whoever inherits is of the tenant.
    pub async fn heir(&mut self, tenant: usize) {
        let (Some(user), Some(heir)) = (self.any(Kind::User, tenant), self.any(Kind::User, tenant)) else {
            return;
        };
        let (leaving, heir) = (&self.model.things[user], &self.model.things[heir]);
        let (id, heir, own) = (leaving.id.clone(), heir.id.clone(), heir.tenant == tenant);
        if leaving.acts || leaving.tenant != tenant {
            return;
        }
        let actor = self.actor(tenant);
        let at = |heir: &str| (format!("/api/v1/auth/users/{id}?transferTo={heir}"), Value::Null);
        if !own {
            let refused = self.alike(actor, &Method::DELETE, at, &heir).await;
            assert!(matches!(refused.status, 403 | 422), "{}", refused.text);
            return;
        }
        let answer = self.send(actor, Method::DELETE, &at(&heir).0, Value::Null).await;
        if answer.status == 202 {
            self.job(tenant, actor.person, &answer.json());
        }
    }

    /// All jobs that a filter matches.
    pub async fn matching(&mut self, tenant: usize) {
        let actor = self.actor(tenant);
        let path = ["/api/v1/jobs/cancel", "/api/v1/jobs/retry"][self.one_of(2)];
        let (field, kind) =
            [("user", Kind::User), ("schedule", Kind::Schedule), ("parent", Kind::Job)][self.one_of(3)];
        let Some(index) = self.any(kind, tenant) else { return };
        let (id, whose) = (self.model.things[index].id.clone(), self.model.things[index].tenant);
        if whose == tenant {
            let body = if self.random.random_bool(0.3) { json!({}) } else { json!({ field: id }) };
            let answer = self.send(actor, Method::POST, path, body).await;
            assert_eq!(answer.status < 300, actor.may(&Method::POST, path), "{}", answer.text);
            if answer.status < 300 {
                self.job(tenant, actor.person, &answer.json());
            }
            return;
        }
        // The audit tells them what they asked for.
        self.model.typed[tenant].insert(id.clone());
        let at = |id: &str| (path.to_owned(), json!({ field: id }));
        let answer = self.alike(actor, &Method::POST, at, &id).await;
        if answer.status < 300 {
            assert_eq!(answer.json()["changed"], 0);
        }
    }

    /// A ticket opens what its holder sees.
    pub async fn ticket(&mut self, tenant: usize) {
        let actor = self.actor(tenant);
        let Some(index) = self.any(Kind::Job, tenant) else { return };
        let (id, whose) = (self.model.things[index].id.clone(), self.model.things[index].tenant);
        let mut told = Vec::new();
        for id in [id, Uuid::now_v7().to_string()] {
            let path = format!("/api/v1/jobs/{id}/events");
            let ticket = json!({ "path": path });
            let made = self.send(actor, Method::POST, "/api/v1/streams/ticket", ticket).await.expect(201);
            let opening = format!("{path}?ticket={}", made.json()["ticket"].as_str().unwrap());
            let opened: Answer = Self::read(self.app.anonymous(Method::GET, &opening)).await;
            self.check(tenant, &opening, &path, &opened);
            told.push(opened.status);
        }
        let thing = &self.model.things[index];
        let sees = whose == tenant && !thing.gone && self.model.sees(self.cast, actor, thing);
        assert_eq!(told, [if sees { 200 } else { 404 }, 404]);
    }
}
