//! The walk itself: who does what next, and what must come of it.

use rand::{RngExt, rngs::StdRng};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    acts::{Act, Leaves, acts},
    cast::{Actor, Cast, MARKERS},
    model::{Kind, Model, Thing},
};
use crate::{
    access::schedule,
    app::{Answer, App, PASSWORD},
    sign_in::login,
};

pub struct Walk<'a> {
    pub app: &'a App,
    pub cast: &'a Cast,
    pub random: StdRng,
    pub model: Model,
    acts: Vec<Act>,
    made: [usize; 3],
    /// Acts upon what is one's own, and how many of them were let.
    pub tried: usize,
    pub succeeded: usize,
    pub foreign: usize,
}

impl<'a> Walk<'a> {
    pub fn new(app: &'a App, cast: &'a Cast, random: StdRng, model: Model) -> Self {
        Self { app, cast, random, model, acts: acts(), made: [0; 3], tried: 0, succeeded: 0, foreign: 0 }
    }

    pub fn one_of(&mut self, of: usize) -> usize {
        self.random.random_range(0..of)
    }

    pub fn actor(&mut self, tenant: usize) -> &'a Actor {
        let cast = self.cast;
        let actors: Vec<_> = cast.actors.iter().filter(|actor| actor.tenant == tenant).collect();
        actors[self.one_of(actors.len())]
    }

    /// A name that nothing else of the tenant has.
    pub fn name(&mut self, tenant: usize) -> String {
        self.made[tenant] += 1;
        format!("{}-{}", MARKERS[tenant], self.made[tenant])
    }

    /// Anything of a kind, rather one's own.
    pub fn any(&mut self, kind: Kind, tenant: usize) -> Option<usize> {
        let own = self.random.random_bool(0.6);
        let things = self.model.things.iter().enumerate();
        let of_kind = things.filter(|(_, thing)| thing.kind == kind);
        let found: Vec<_> = of_kind
            .filter(|(_, thing)| !own || (thing.tenant == tenant && !thing.gone))
            .map(|(index, _)| index)
            .collect();
        (!found.is_empty()).then(|| found[self.one_of(found.len())])
    }

    /// Asks, and looks through the whole answer for what is another tenant's.
    pub async fn send(&self, actor: &Actor, method: Method, path: &str, body: Value) -> Answer {
        let mut request = actor.request(self.app, method.clone(), path);
        if !body.is_null() {
            request = request.json(&body);
        }
        let answer = Self::read(request).await;
        self.check(actor.tenant, &format!("{method} {path} {body}"), path, &answer);
        answer
    }

    /// Of a stream the first event: the others never end.
    pub async fn read(request: reqwest::RequestBuilder) -> Answer {
        let mut response = request.send().await.unwrap();
        let streams = response.headers().get("content-type").is_some_and(|kind| kind == "text/event-stream");
        if !streams {
            return Answer::read(response).await;
        }
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let first = response.chunk().await.unwrap().unwrap_or_default();
        Answer { status, headers, text: String::from_utf8_lossy(&first).into_owned() }
    }

    /// What it says of the request itself it has from whoever asked.
    pub fn check(&self, tenant: usize, what: &str, path: &str, answer: &Answer) {
        assert!(answer.status < 500, "{what}: {}", answer.text);
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let headers = answer.headers.iter().filter(|(name, _)| query.is_empty() || *name != "link");
        let headers: Vec<_> = headers
            .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())))
            .collect();
        let told = format!("{}\n{}", headers.join("\n"), answer.text).replace(path, "");
        let whose = MARKERS[tenant];
        for other in MARKERS.iter().filter(|other| **other != whose) {
            assert!(!told.to_lowercase().contains(other), "{whose} is told of {other} by {what}: {told}");
        }
        if let Some(foreign) = self.model.foreign(tenant, &told).find(|id| !query.contains(id.as_str())) {
            panic!("{whose} is told of {foreign} by {what}: {told}");
        }
    }

    /// Of what is another tenant's one hears the same as of what is not there.
    pub async fn alike(
        &mut self,
        actor: &Actor,
        method: &Method,
        at: impl Fn(&str) -> (String, Value),
        id: &str,
    ) -> Answer {
        self.alike_to(actor, method, at, id, &Uuid::now_v7().to_string()).await
    }

    pub async fn alike_to(
        &mut self,
        actor: &Actor,
        method: &Method,
        at: impl Fn(&str) -> (String, Value),
        theirs: &str,
        absent: &str,
    ) -> Answer {
        self.foreign += 1;
        let mut told = Vec::new();
        for id in [absent, theirs] {
            let (path, body) = at(id);
            let answer = self.send(actor, method.clone(), &path, body).await;
            let mut said = answer.text.replace(id, "…");
            if let Ok(mut problem) = serde_json::from_str::<Value>(&said)
                && problem.get("requestId").is_some()
            {
                problem["requestId"].take();
                said = problem.to_string();
            }
            let kind = answer.header("content-type").to_owned();
            told.push((answer.status, kind, said, path, answer));
        }
        let (theirs, absent) = (told.pop().unwrap(), told.pop().unwrap());
        assert_eq!(
            (theirs.0, theirs.1, theirs.2),
            (absent.0, absent.1, absent.2),
            "{method} {} as {:?} of {}",
            theirs.3,
            actor.role,
            MARKERS[actor.tenant]
        );
        theirs.4
    }

    /// One operation upon one thing.
    pub async fn act(&mut self, tenant: usize) {
        let kind = Kind::ALL[self.one_of(Kind::ALL.len())];
        let of_kind: Vec<_> = (0..self.acts.len()).filter(|index| self.acts[*index].kind == kind).collect();
        let chosen = of_kind[self.one_of(of_kind.len())];
        let Some(index) = self.any(kind, tenant) else { return };
        let (actor, name) = (self.actor(tenant), self.name(tenant));
        let Act { method, route, body, leaves, .. } = &self.acts[chosen];
        let (method, route, body, leaves) = (method.clone(), *route, body(&name), *leaves);
        let Thing { id, acts, .. } = &self.model.things[index];
        let (id, acts) = (id.clone(), *acts);
        let path = self.acts[chosen].path(&id);
        if self.model.things[index].tenant != tenant {
            let query = self.acts[chosen].query;
            let at = |id: &str| (path.replace(id_of(&path, query, route), id), body.clone());
            let refused = self.alike(actor, &method, at, &id).await;
            let expected = if actor.may(&method, route) { 404 } else { 403 };
            assert_eq!(refused.status, expected, "{method} {path} as {:?}: {}", actor.role, refused.text);
            return;
        }
        if acts && leaves == Leaves::ItDisabled {
            return;
        }
        self.tried += 1;
        let answer = self.send(actor, method.clone(), &path, body).await;
        let thing = &self.model.things[index];
        let what = format!("{method} {path} as {:?}: {} {}", actor.role, answer.status, answer.text);
        if !actor.may(&method, route) {
            assert_eq!(answer.status, 403, "{what}");
        } else if thing.gone || !self.model.sees(self.cast, actor, thing) {
            assert_eq!(answer.status, 404, "{what}");
        } else if self.acts[chosen].reads() {
            assert_eq!(answer.status, 200, "{what}");
        } else {
            // A key of another person is not rotated; else owners may all.
            let may = answer.status != 403 || !actor.is_owner() || route.ends_with("/rotate");
            assert!(may && matches!(answer.status, 200..=299 | 403 | 409 | 422), "{what}");
        }
        if answer.status < 300 {
            self.succeeded += 1;
            self.note(chosen, index, tenant, &answer);
        }
    }

    fn note(&mut self, chosen: usize, index: usize, tenant: usize, answer: &Answer) {
        if let Some(action) = self.acts[chosen].audited() {
            self.model.did(action, tenant);
        }
        match self.acts[chosen].leaves {
            Leaves::It => {}
            Leaves::Nothing => self.model.things[index].gone = true,
            Leaves::ItDisabled | Leaves::AJob => {
                let owner = self.model.things[index].owner;
                self.job(tenant, owner, &answer.json());
            }
        }
    }

    /// That the answer names, if it is a new one.
    pub fn job(&mut self, tenant: usize, owner: Option<usize>, answer: &Value) {
        let Some(id) = answer["jobId"].as_str() else { return };
        if self.model.things.iter().all(|thing| thing.id != id) {
            self.model.add(Kind::Job, id.to_owned(), tenant, owner);
        }
    }

    pub async fn make(&mut self, tenant: usize) {
        let kind = Kind::ALL[self.one_of(Kind::ALL.len())];
        let (actor, name) = (self.actor(tenant), self.name(tenant));
        let owner = actor.person;
        let (path, body) = match kind {
            Kind::Job | Kind::SignIn => return self.make_by_other_ways(kind, actor).await,
            Kind::Team => (kind.list(), json!({ "name": name, "description": name })),
            Kind::Key if owner.is_none() || self.random.random_bool(0.3) => {
                (kind.list(), json!({ "name": name, "owner": "tenant", "role": "viewer" }))
            }
            Kind::Key => (kind.list(), json!({ "name": name })),
            Kind::User if self.random.random_bool(0.5) => {
                let email = format!("{name}@example.org");
                ("/api/v1/auth/invitations", json!({ "email": email, "name": name, "role": "user" }))
            }
            Kind::User => (
                "/api/v1/auth/register/user",
                json!({
                    "email": format!("{name}@example.org"), "name": name, "role": "user",
                    "password": "walked through", "passwordConfirmation": "walked through",
                }),
            ),
            Kind::Schedule => (kind.list(), schedule(&name)),
            Kind::Provider => (kind.list(), super::acts::provider(&name)),
        };
        // Of the tenants each sends the same, some time.
        let once = format!("once-{}", self.made[tenant]);
        let request = actor.request(self.app, Method::POST, path).header("idempotency-key", once).json(&body);
        let answer = Answer::of(request).await;
        let what = format!("POST {path} {body} as {:?}: {} {}", actor.role, answer.status, answer.text);
        self.check(tenant, &what, path, &answer);
        let of_tenant = body["owner"] == "tenant";
        if !actor.may(&Method::POST, path) || (of_tenant && !actor.may(&Method::GET, "/api/v1/audit")) {
            return assert_eq!(answer.status, 403, "{what}");
        }
        if owner.is_none() && kind == Kind::Team {
            return assert_eq!(answer.status, 409, "a key of the tenant is nobody: {what}");
        }
        assert_eq!(answer.status, 201, "{what}");
        let made = answer.json();
        let id = made["id"].as_str().unwrap().to_owned();
        let me = owner.map(|person| self.cast.people[person].id.to_string());
        let thing = self.model.add(kind, id, tenant, owner.filter(|_| !of_tenant));
        match kind {
            Kind::Team => {
                thing.members.extend(me);
                self.model.did("teams.create", tenant);
            }
            Kind::Key => self.model.did("api_keys.create", tenant),
            Kind::Schedule => self.model.did("schedules.create", tenant),
            Kind::Provider => self.model.did("identity_providers.create", tenant),
            Kind::User if path.ends_with("invitations") => {
                self.job(tenant, owner, &made);
                self.model.did("users.invite", tenant);
            }
            // It asks them whether the address is theirs.
            Kind::User => self.model.made_unnamed(Kind::Job, tenant, 1),
            Kind::Job | Kind::SignIn => {}
        }
        if kind == Kind::User {
            self.model.did("users.create", tenant);
        }
    }

    async fn make_by_other_ways(&mut self, kind: Kind, actor: &Actor) {
        let Some(person) = actor.person else { return };
        let who = &self.cast.people[person];
        let id = if kind == Kind::Job {
            self.app.job(who).await.to_string()
        } else {
            let body = json!({ "email": who.email, "password": PASSWORD, "tenant": who.slug });
            let signed_in = login(self.app, body).await.expect(200);
            self.check(actor.tenant, "login", "", &signed_in);
            let token = signed_in.json()["accessToken"].as_str().unwrap().to_owned();
            let listed = self.app.anonymous(Method::GET, kind.list()).bearer_auth(token);
            let listed = Answer::of(listed).await.expect(200).json();
            let current = listed["items"].as_array().unwrap().iter().find(|item| item["current"] == true);
            self.model.did("sign_ins.create", actor.tenant);
            current.unwrap()["id"].as_str().unwrap().to_owned()
        };
        self.model.add(kind, id, actor.tenant, Some(person));
    }
}

/// The id in a path of a route.
fn id_of<'p>(path: &'p str, query: &str, route: &str) -> &'p str {
    let place = route.split('/').position(|part| part == "{id}" || part == "{teamId}").unwrap();
    path.strip_suffix(query).unwrap().split('/').nth(place).unwrap()
}
