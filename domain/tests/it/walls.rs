//! The second wall between tenants, as the database has it: no row can refer to another tenant's.

use std::collections::BTreeMap;

use sqlx::PgPool;

use crate::bed::Bed;

/// Tables of tenants whose rows a reference could name without the tenant. Nothing may refer to them.
const KEYED_OTHERWISE: [(&str, &str); 4] = [
    ("job_fires", "partitioned by its time, which its key needs; a schedule's id is one tenant's"),
    ("used_refresh_tokens", "found by the hash of what somebody brings, before any tenant is known"),
    ("sign_in_challenges", "the same"),
    ("mailed_links", "the same"),
];

/// Every table with a `tenant_id`, partitions apart.
async fn tenant_tables(pool: &PgPool) -> Vec<String> {
    sqlx::query_scalar(
        "select c.relname::text from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attname = 'tenant_id'
         where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
           and not a.attisdropped
         order by 1",
    )
    .fetch_all(pool)
    .await
    .expect("read")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_of_a_tenant_can_be_named_with_its_tenant() {
    let bed = Bed::new().await;
    let pool = bed.queue.db().pool();
    let tables = tenant_tables(pool).await;
    assert!(tables.len() > 20, "{tables:?}");
    // Unique over the tenant and the rest of the row's own key: what a reference must name whole.
    let keyed: Vec<String> = sqlx::query_scalar(
        "select distinct c.relname::text from pg_constraint u
         join pg_class c on c.oid = u.conrelid
         join pg_attribute t on t.attrelid = c.oid and t.attname = 'tenant_id'
         left join pg_constraint p on p.conrelid = c.oid and p.contype = 'p'
         where u.contype in ('u', 'p') and t.attnum = any(u.conkey)
           and (p.oid is null or u.conkey @> p.conkey)",
    )
    .fetch_all(pool)
    .await
    .expect("read");
    let otherwise: BTreeMap<_, _> = KEYED_OTHERWISE.into_iter().collect();
    for table in &tables {
        let is_keyed = keyed.contains(table);
        let is_otherwise = otherwise.contains_key(table.as_str());
        assert!(is_keyed != is_otherwise, "{table} needs unique (tenant_id, id), or a reason here");
    }
    let unknown: Vec<_> = otherwise.keys().filter(|table| !tables.iter().any(|t| t == *table)).collect();
    assert!(unknown.is_empty(), "{unknown:?} are no tables");
    let referred: Vec<String> = sqlx::query_scalar(
        "select f.conname::text from pg_constraint f join pg_class c on c.oid = f.confrelid
         where f.contype = 'f' and c.relname = any($1)",
    )
    .bind(KEYED_OTHERWISE.map(|(table, _)| table))
    .fetch_all(pool)
    .await
    .expect("read");
    assert!(referred.is_empty(), "{referred:?} refer to rows that cannot be named with their tenant");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reference_between_tenant_tables_carries_the_tenant() {
    let bed = Bed::new().await;
    let pool = bed.queue.db().pool();
    let references: Vec<(String, String, String, bool)> = sqlx::query_as(
        "select c.relname::text, r.relname::text, f.conname::text,
                exists (select from unnest(f.conkey, f.confkey) as k(here, there)
                        where here = t.attnum and there = rt.attnum)
         from pg_constraint f
         join pg_class c on c.oid = f.conrelid join pg_class r on r.oid = f.confrelid
         join pg_attribute t on t.attrelid = c.oid and t.attname = 'tenant_id' and not t.attisdropped
         join pg_attribute rt on rt.attrelid = r.oid and rt.attname = 'tenant_id' and not rt.attisdropped
         where f.contype = 'f' and c.relnamespace = 'public'::regnamespace",
    )
    .fetch_all(pool)
    .await
    .expect("read");
    assert!(references.len() > 8, "{references:?}");
    for (table, referred, constraint, carries) in references {
        assert!(carries, "{constraint} of {table} refers to {referred} without the tenant");
    }
    // Nothing refers to jobs, which outlive neither their retention nor a clean-up.
    let to_jobs: Vec<String> = sqlx::query_scalar(
        "select conname::text from pg_constraint where contype = 'f' and confrelid = 'jobs'::regclass",
    )
    .fetch_all(pool)
    .await
    .expect("read");
    assert!(to_jobs.is_empty(), "{to_jobs:?}");
}

/// The database itself says no.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_points_across_is_refused() {
    let bed = Bed::new().await;
    let ours = bed.person(bed.tenant, streamspace_common::Role::User).await;
    let (user, theirs) = (ours.user.expect("a person"), bed.other);
    for insert in [
        format!("insert into teams (id, tenant_id, name) values (gen_random_uuid(), '{theirs}', 'T');
                 insert into team_members (tenant_id, team_id, user_id, role) select '{theirs}', id, '{user}', 'owner' from teams"),
        format!("insert into api_keys (id, tenant_id, user_id, name, prefix, secret_hash, hourly_limit)
                 values (gen_random_uuid(), '{theirs}', '{user}', 'K', 'sk_', sha256('x'), 1)"),
        format!("insert into sign_ins (id, tenant_id, user_id, kind, method, secret_hash, created_at, last_used_at, expires_at)
                 values (gen_random_uuid(), '{theirs}', '{user}', 'tokens', 'password', sha256('x'), now(), now(), now())"),
        format!("insert into schedules (id, tenant_id, name, kind, args, cron, user_id, creator_type, created_at, updated_at)
                 values (gen_random_uuid(), '{theirs}', 'S', 'k', '{{}}', '* * * * *', '{user}', 'user', now(), now())"),
    ] {
        let refused = sqlx::raw_sql(sqlx::AssertSqlSafe(insert.clone())).execute(bed.queue.db().pool()).await;
        let code = refused.expect_err(&insert).as_database_error().and_then(|error| error.code().map(String::from));
        assert_eq!(code.as_deref(), Some("23503"), "{insert}");
    }
}
