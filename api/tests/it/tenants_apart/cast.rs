//! Who acts: in each of three tenants somebody of every role by key, by token and by a browser's cookie,
//! and a key of the tenant.

use reqwest::{Method, RequestBuilder};
use serde_json::json;
use streamspace_api::operations::{Access, find};
use streamspace_common::{Actor as Acting, Creator, Role, TenantId};

use crate::{
    app::{Answer, App, PASSWORD, Person},
    sign_in::login,
};

/// A word that everything which a tenant names has in its name, and nothing of any other tenant has.
pub const MARKERS: [&str; 3] = ["numbat", "quokka", "wombat"];

pub struct Actor {
    pub tenant: usize,
    pub role: Role,
    /// `None`: a key of the tenant.
    pub person: Option<usize>,
    credential: Credential,
}

enum Credential {
    Key(String),
    Token(String),
    Cookie(String),
}

pub struct Cast {
    pub tenants: [TenantId; 3],
    pub people: Vec<Person>,
    pub actors: Vec<Actor>,
}

impl Actor {
    pub fn request(&self, app: &App, method: Method, path: &str) -> RequestBuilder {
        let request = app.anonymous(method, path);
        match &self.credential {
            Credential::Key(key) => request.header("x-api-key", key),
            Credential::Token(token) => request.bearer_auth(token),
            Credential::Cookie(cookie) => request.header("cookie", cookie).header("origin", app.url("")),
        }
    }

    /// Whether the table of permissions lets them as far as the operation.
    pub fn may(&self, method: &Method, route: &str) -> bool {
        let operation = find(method, route).unwrap_or_else(|| panic!("{method} {route} is no operation"));
        match operation.access {
            Access::Needs { permission, .. } => permission.is_held_by(&Acting {
                tenant: TenantId::new(),
                by: Creator::System,
                user: None,
                key: None,
                role: self.role,
                platform: false,
            }),
            Access::Public | Access::Unlimited => true,
        }
    }

    pub fn is_owner(&self) -> bool {
        self.role == Role::Owner
    }
}

impl Cast {
    pub async fn gather(app: &App) -> Self {
        // An owner like the others: platform administrators see what is the installation's.
        app.execute("update users set platform_admin = false").await;
        let mut people = Vec::new();
        for owner in [&app.ours.owner, &app.theirs.owner, &app.platform] {
            people.push(owner.clone());
            let rest = [Role::Admin, Role::Operator, Role::User, Role::Viewer];
            for role in rest {
                let there = [&app.ours, &app.theirs].into_iter().find(|tenant| tenant.id == owner.tenant);
                people.push(match (role, there) {
                    (Role::Operator, Some(there)) => there.operator.clone(),
                    (Role::User, Some(there)) => there.user.clone(),
                    (Role::Viewer, Some(there)) => there.viewer.clone(),
                    _ => app.colleague(owner, role, role.as_str()).await,
                });
            }
        }
        let tenants = [app.ours.id, app.theirs.id, app.platform.tenant];
        for (tenant, marker) in tenants.iter().zip(MARKERS) {
            app.execute(&format!(
                "update tenants set name = '{marker} & Co', slug = '{marker}', contact_email = '{marker}@example.org'
                 where id = '{tenant}'"
            ))
            .await;
            app.execute(&format!(
                "update users set name = '{marker}', username = '{marker}-' || role,
                                  email = '{marker}-' || role || '@example.org'
                 where tenant_id = '{tenant}'"
            ))
            .await;
            app.execute(&format!("update api_keys set name = '{marker}' where tenant_id = '{tenant}'")).await;
        }
        let mut cast = Self { tenants, people, actors: Vec::new() };
        for index in 0..cast.people.len() {
            cast.join(app, index).await;
        }
        for tenant in 0..3 {
            cast.tenants_own(app, tenant).await;
        }
        cast
    }

    pub fn tenant_of(&self, person: usize) -> usize {
        self.tenants.iter().position(|tenant| *tenant == self.people[person].tenant).unwrap()
    }

    async fn join(&mut self, app: &App, index: usize) {
        let tenant = self.tenant_of(index);
        let person = &mut self.people[index];
        person.slug = MARKERS[tenant].to_owned();
        person.email = format!("{}-{}@example.org", person.slug, person.role.as_str());
        app.set_password(person).await;
        let body = json!({ "email": person.email, "password": PASSWORD, "tenant": person.slug });
        let token = login(app, body.clone()).await.expect(200).json()["accessToken"].clone();
        let browser = app.anonymous(Method::POST, "/api/v1/auth/login").header("origin", app.url(""));
        let cookie = Answer::of(browser.json(&body)).await.expect(200).header("set-cookie").to_owned();
        let credentials = [
            Credential::Key(person.key.clone()),
            Credential::Token(token.as_str().unwrap().to_owned()),
            Credential::Cookie(cookie.split(';').next().unwrap().to_owned()),
        ];
        let role = person.role;
        self.actors.extend(credentials.map(|credential| Actor {
            tenant,
            role,
            person: Some(index),
            credential,
        }));
    }

    async fn tenants_own(&mut self, app: &App, tenant: usize) {
        let owner = self.people.iter().find(|person| person.tenant == self.tenants[tenant]).unwrap();
        let body = json!({ "name": MARKERS[tenant], "owner": "tenant", "role": "admin" });
        let made = app.post(owner, "/api/v1/api-keys", body).await.expect(201).json();
        let credential = Credential::Key(made["key"].as_str().unwrap().to_owned());
        self.actors.push(Actor { tenant, role: Role::Admin, person: None, credential });
    }
}
