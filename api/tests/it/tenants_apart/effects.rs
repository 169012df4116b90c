//! What acts leave behind: in their own tenant what the model says, in the others nothing.

use std::collections::BTreeMap;

use sqlx::Row;
use uuid::Uuid;

use super::{cast::Cast, model::Kind, walk::Walk};
use crate::app::App;

/// When somebody was last seen is written now and then, some seconds later. So is what keys are used for,
/// in tables of its own.
const SEEN: &str = "'{last_used_at,last_active_at}'::text[]";
const BUFFERED: &str = "'{api_key_calls,api_key_days}'::text[]";

/// Every table's rows of a tenant, as one sum.
pub type Rows = BTreeMap<(String, Uuid), String>;

pub struct Tables(String);

impl Tables {
    /// All that have rows of tenants, whatever they are called.
    pub async fn find(app: &App) -> Self {
        let tables: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(format!(
            "select c.relname::text from pg_class c
             where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
               and c.relname <> all ({BUFFERED})
               and exists (select from pg_attribute a
                           where a.attrelid = c.oid and a.attname = 'tenant_id' and not a.attisdropped)"
        )))
        .fetch_all(app.queue.db().pool())
        .await
        .unwrap();
        assert!(tables.len() > 15, "{tables:?}");
        let sum = |table: &str, tenant: &str| {
            format!(
                "select '{table}' as name, {tenant} as tenant,
                        md5(string_agg(row, e'\\n' order by row)) || ' of ' || count(*) as sum
                 from (select t.*, (to_jsonb(t) - {SEEN})::text as row from {table} t) r group by {tenant}"
            )
        };
        let mut sums: Vec<_> = tables.iter().map(|table| sum(table, "tenant_id")).collect();
        sums.push(sum("tenants", "id"));
        Self(sums.join(" union all "))
    }

    pub async fn rows(&self, app: &App, cast: &Cast, but: usize) -> Rows {
        let rows =
            sqlx::query(sqlx::AssertSqlSafe(self.0.as_str())).fetch_all(app.queue.db().pool()).await.unwrap();
        let rows = rows.into_iter().map(|row| ((row.get("name"), row.get("tenant")), row.get("sum")));
        rows.filter(|((_, tenant), _): &((String, Uuid), String)| *tenant != cast.tenants[but].0).collect()
    }
}

impl Walk<'_> {
    /// At the end each tenant has the rows that its own actors made.
    pub async fn compare(&self) {
        let (app, model, cast) = (self.app, &self.model, self.cast);
        for (tenant, id) in cast.tenants.iter().enumerate() {
            for kind in Kind::ALL {
                let rows = format!("select count(*) from {} where tenant_id = '{id}'", kind.table());
                let made = model.things.iter();
                let made = made.filter(|thing| thing.kind == kind && thing.tenant == tenant && !thing.gone);
                let expected =
                    made.count() as i64 + model.unnamed.get(&(kind, tenant)).copied().unwrap_or_default();
                assert_eq!(app.count(&rows).await, expected, "{kind:?} of {tenant}");
            }
            let members: usize = model
                .things
                .iter()
                .filter(|thing| thing.kind == Kind::Team && thing.tenant == tenant && !thing.gone)
                .map(|team| team.members.len())
                .sum();
            let rows = format!("select count(*) from team_members where tenant_id = '{id}'");
            assert_eq!(app.count(&rows).await, members as i64, "members of {tenant}");
            let paused = model.paused.iter().filter(|(whose, _)| *whose == tenant).count();
            let rows = format!(
                "select count(*) from queue_controls where tenant_id = '{id}' and paused_at is not null"
            );
            assert_eq!(app.count(&rows).await, paused as i64, "pauses of {tenant}");
        }
        for ((action, tenant), times) in &model.done {
            let id = cast.tenants[*tenant];
            let rows = format!("select count(*) from audit where tenant_id = '{id}' and action = '{action}'");
            assert_eq!(app.count(&rows).await, *times, "{action} of {tenant}");
        }
        for foreign in [
            "audit a join users u on u.id = a.user_id where u.tenant_id <> a.tenant_id",
            "audit a join api_keys k on k.id = a.actor_id where k.tenant_id <> a.tenant_id",
            "jobs j join users u on u.id = j.user_id where u.tenant_id <> j.tenant_id",
        ] {
            assert_eq!(app.count(&format!("select count(*) from {foreign}")).await, 0, "{foreign}");
        }
    }
}
