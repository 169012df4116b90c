//! What is whose: what the actors made, as the model has it, and which ids the database gave to whom.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sqlx::Row;
use streamspace_common::Role;
use uuid::Uuid;

use super::cast::{Actor, Cast};
use crate::app::App;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Team,
    Key,
    User,
    Schedule,
    Job,
    SignIn,
    Provider,
}

impl Kind {
    pub const ALL: [Self; 7] =
        [Self::Team, Self::Key, Self::User, Self::Schedule, Self::Job, Self::SignIn, Self::Provider];

    pub fn list(self) -> &'static str {
        match self {
            Self::Team => "/api/v1/teams",
            Self::Key => "/api/v1/api-keys",
            Self::User => "/api/v1/auth/users",
            Self::Schedule => "/api/v1/schedules",
            Self::Job => "/api/v1/jobs",
            Self::SignIn => "/api/v1/auth/sessions",
            Self::Provider => "/api/v1/auth/oidc/providers",
        }
    }

    /// Where its rows lie.
    pub fn table(self) -> &'static str {
        match self {
            Self::Team => "teams",
            Self::Key => "api_keys",
            Self::User => "users",
            Self::Schedule => "schedules",
            Self::Job => "jobs",
            Self::SignIn => "sign_ins",
            Self::Provider => "oidc_providers",
        }
    }
}

pub struct Thing {
    pub id: String,
    pub tenant: usize,
    pub kind: Kind,
    /// The person whose it is, where that matters.
    pub owner: Option<usize>,
    pub gone: bool,
    /// An actor: not to be disabled or deleted.
    pub acts: bool,
    /// Of a team: people by their ids.
    pub members: BTreeSet<String>,
}

#[derive(Default)]
pub struct Model {
    pub things: Vec<Thing>,
    /// Rows of each kind, by tenant, that were there before the model or that no answer named.
    pub unnamed: BTreeMap<(Kind, usize), i64>,
    /// What was done, as the audit calls it, by tenant.
    pub done: BTreeMap<(&'static str, usize), i64>,
    /// Whose the ids of the whole database are.
    ids: HashMap<String, usize>,
    /// Foreign ids that a tenant's own actors have written into what is kept of their acts.
    pub typed: [BTreeSet<String>; 3],
    pub names: [String; 3],
    pub announcements: [Option<String>; 3],
    pub paused: BTreeSet<(usize, &'static str)>,
}

impl Model {
    pub fn add(&mut self, kind: Kind, id: String, tenant: usize, owner: Option<usize>) -> &mut Thing {
        let members = BTreeSet::new();
        self.things.push(Thing { id, tenant, kind, owner, gone: false, acts: false, members });
        self.things.last_mut().unwrap()
    }

    pub fn did(&mut self, action: &'static str, tenant: usize) {
        *self.done.entry((action, tenant)).or_default() += 1;
    }

    pub fn made_unnamed(&mut self, kind: Kind, tenant: usize, how_many: i64) {
        *self.unnamed.entry((kind, tenant)).or_default() += how_many;
    }

    /// Whether somebody sees a thing of their tenant that is there.
    pub fn sees(&self, cast: &Cast, actor: &Actor, thing: &Thing) -> bool {
        let is_theirs = actor.person.is_some() && actor.person == thing.owner;
        match thing.kind {
            Kind::Team => {
                let id = actor.person.map(|person| cast.people[person].id.to_string());
                actor.role >= Role::Operator || id.is_some_and(|id| thing.members.contains(&id))
            }
            Kind::Key => actor.role >= Role::Admin || is_theirs,
            Kind::Job => actor.role >= Role::Operator || is_theirs,
            Kind::SignIn => is_theirs,
            Kind::User | Kind::Schedule | Kind::Provider => true,
        }
    }

    /// Reads whose every id is: not from what the API says, but from where the rows lie.
    pub async fn learn_ids(&mut self, app: &App, cast: &Cast) {
        let tables: Vec<String> = sqlx::query_scalar(
            "select c.table_name::text from information_schema.columns c
             join information_schema.columns i using (table_schema, table_name)
             join information_schema.tables t using (table_schema, table_name)
             where c.table_schema = 'public' and c.column_name = 'tenant_id' and i.column_name = 'id'
               and i.data_type = 'uuid' and t.table_type = 'BASE TABLE'",
        )
        .fetch_all(app.queue.db().pool())
        .await
        .unwrap();
        assert!(tables.iter().any(|table| table == "jobs"), "{tables:?}");
        let of = |table: String| format!("select tenant_id, id from {table}");
        let all: Vec<_> =
            tables.into_iter().map(of).chain(["select id, id from tenants".to_owned()]).collect();
        let rows = sqlx::query(sqlx::AssertSqlSafe(all.join(" union all ")))
            .fetch_all(app.queue.db().pool())
            .await
            .unwrap();
        for row in rows {
            let (tenant, id): (Uuid, Uuid) = (row.get(0), row.get(1));
            if let Some(tenant) = cast.tenants.iter().position(|known| known.0 == tenant) {
                self.ids.insert(id.to_string(), tenant);
            }
        }
    }

    /// The ids in a text that are of another tenant.
    pub fn foreign<'a>(&'a self, tenant: usize, text: &'a str) -> impl Iterator<Item = String> + 'a {
        uuids(text).filter(move |id| {
            self.ids.get(id).is_some_and(|whose| *whose != tenant) && !self.typed[tenant].contains(id)
        })
    }
}

fn uuids(text: &str) -> impl Iterator<Item = String> + '_ {
    text.as_bytes()
        .windows(36)
        .filter(|window| [8, 13, 18, 23].iter().all(|at| window[*at] == b'-'))
        .filter_map(|window| Uuid::try_parse_ascii(window).ok().map(|id| id.to_string()))
}
