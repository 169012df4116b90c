//! Tenants stand still, come back, and go with all that they have.

use std::{collections::BTreeMap, time::Duration};

use streamspace_common::{Actor, ApiKeyId, Classified, ErrorKind, JobId, PLATFORM, Role, TenantId};
use streamspace_domain::{
    Ports, audit,
    identity::{Error, People, tenants},
    jobs::{self, jobs as kinds},
};
use streamspace_queue::{
    self as queue, Behind, MayAct, Rights, State,
    inspect::{self, Reason, Scope},
    schedule::{self, Troubled},
};
use streamspace_testkit::{eventually, holds_for};

use crate::bed::Bed;

const SOON: Duration = Duration::from_secs(20);

fn platform() -> Actor {
    Actor::system(PLATFORM)
}

/// Commits what an operation has done.
macro_rules! commit {
    ($bed:expr, $tx:ident => $operation:expr) => {{
        let mut $tx = $bed.tx(&platform());
        let done = $operation.await;
        if done.is_ok() {
            $tx.commit().await.expect("committed");
        }
        done
    }};
}

async fn delete(bed: &Bed, now: bool) -> JobId {
    commit!(bed, tx => tenants::delete(&mut tx, "one", now)).expect("accepted").2
}

/// As if its time had come, and that of its job.
async fn time_comes(bed: &Bed) {
    bed.execute(
        "update tenants set delete_at = now() - interval '1 second' where delete_at is not null;
         update jobs set run_at = now() where kind = 'identity.delete_tenant' and state = 'scheduled'",
    )
    .await;
}

async fn enqueue(bed: &Bed, tenant: TenantId) -> JobId {
    let mut tx = bed.tx(&Actor::system(tenant));
    let job = queue::enqueue(&mut tx, kinds::Prune {}).await.expect("enqueued").id;
    tx.commit().await.expect("committed");
    job
}

#[tokio::test(flavor = "multi_thread")]
async fn the_jobs_of_a_suspended_tenant_wait_until_it_goes_on() {
    let bed = Bed::new().await;
    commit!(bed, tx => tenants::suspend(&mut tx, "one")).expect("suspended");
    let (ours, theirs) = (enqueue(&bed, bed.tenant).await, enqueue(&bed, bed.other).await);
    let worker = bed.worker(&Ports::default());
    assert_eq!(bed.ends(theirs).await.state, State::Succeeded);
    let mut conn = bed.queue.read().await.expect("a connection");
    let waiting =
        inspect::waiting(&mut conn, Scope::Installation, ours).await.expect("read").expect("it waits");
    assert_eq!(waiting.reasons, [Reason::TenantSuspended]);
    drop(conn);
    holds_for(Duration::from_millis(1500), "it waits", async || {
        bed.number(&format!("select count(*) from jobs where id = '{ours}' and state = 'queued'")).await == 1
    })
    .await;
    commit!(bed, tx => tenants::resume(&mut tx, "one")).expect("resumed");
    assert_eq!(bed.ends(ours).await.state, State::Succeeded);
    // A worker that runs already obeys too.
    commit!(bed, tx => tenants::suspend(&mut tx, "one")).expect("suspended");
    let waits = eventually(SOON, "it takes no more jobs of the tenant", async || {
        let job = enqueue(&bed, bed.tenant).await;
        let after = enqueue(&bed, bed.other).await;
        bed.ends(after).await;
        let waits = format!("select count(*) from jobs where id = '{job}' and state = 'queued'");
        (bed.number(&waits).await == 1).then_some(waits)
    })
    .await;
    holds_for(Duration::from_millis(1500), "it waits", async || bed.number(&waits).await == 1).await;
    worker.stop().await;
}

/// Whoever is disabled is out for good; whoever's tenant is suspended, for now.
#[tokio::test(flavor = "multi_thread")]
async fn who_acts_for_a_suspended_tenant_may_not_now_and_who_is_disabled_no_more() {
    let bed = Bed::new().await;
    let person = bed.person(bed.tenant, Role::User).await.user.expect("a person");
    let key = ApiKeyId::new();
    bed.execute(&format!(
        "insert into api_keys (id, tenant_id, role, name, prefix, secret_hash, hourly_limit)
         values ('{key}', '{}', 'operator', 'K', 'p', sha256('k'), 100)",
        bed.tenant
    ))
    .await;
    let answers = async || {
        let mut conn = bed.queue.read().await.expect("a connection");
        let mut answers = Vec::new();
        for behind in [Behind::Person(person), Behind::Key(key)] {
            answers.push(match People.actor(&mut conn, bed.tenant, behind).await.expect("read") {
                MayAct::As(actor) => actor.role.as_str(),
                MayAct::NotNow => "not now",
                MayAct::No => "no",
            });
        }
        answers
    };
    assert_eq!(answers().await, ["user", "operator"]);
    commit!(bed, tx => tenants::suspend(&mut tx, "one")).expect("suspended");
    assert_eq!(answers().await, ["not now", "not now"]);
    bed.execute("update users set active = false; update api_keys set active = false").await;
    assert_eq!(answers().await, ["no", "no"]);
    commit!(bed, tx => tenants::resume(&mut tx, "one")).expect("resumed");
    assert_eq!(answers().await, ["no", "no"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_schedules_of_a_suspended_tenant_do_not_fire() {
    let bed = Bed::new().await;
    bed.execute(&format!(
        "insert into schedules (id, tenant_id, name, kind, args, cron, next_at, fire_at, creator_type, created_at, updated_at)
         values (gen_random_uuid(), '{}', 'S', 'jobs.change', '{{\"change\": \"retry\"}}', '* * * * *',
                 date_trunc('minute', now()), date_trunc('minute', now()), 'system', now(), now())",
        bed.tenant
    ))
    .await;
    commit!(bed, tx => tenants::suspend(&mut tx, "one")).expect("suspended");
    let all = streamspace_domain::schedules(&Ports::default());
    let mut troubled = Troubled::default();
    let fired = schedule::fire_due(&bed.queue, &all, &mut troubled).await.expect("fired");
    assert_eq!((fired.schedules, fired.next_in), (0, None), "there is nothing to wake up for");
    commit!(bed, tx => tenants::resume(&mut tx, "one")).expect("resumed");
    let fired = schedule::fire_due(&bed.queue, &all, &mut troubled).await.expect("fired");
    assert_eq!(fired.schedules, 1);
    assert_eq!(bed.number("select count(*) from jobs").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_waits_for_its_time_and_can_be_taken_back_until_it_begins() {
    let bed = Bed::new().await;
    bed.person(bed.tenant, Role::Owner).await;
    let job = delete(&bed, false).await;
    let days =
        "select round(extract(epoch from delete_at - now()) / 86400)::bigint from tenants where slug = 'one'";
    assert_eq!(bed.number(days).await, 7);
    // Asked for again it is no later; without the grace it is sooner.
    delete(&bed, false).await;
    assert_eq!(bed.number(days).await, 7);
    let resumed = commit!(bed, tx => tenants::resume(&mut tx, "one"));
    assert!(matches!(resumed, Err(Error::ToBeDeleted)), "{resumed:?}");
    // A job that comes too early, or after it was taken back, does nothing.
    bed.execute("update jobs set run_at = now() where state = 'scheduled'").await;
    let worker = bed.worker(&Ports::default());
    assert_eq!(bed.ends(job).await.state, State::Succeeded);
    let job = delete(&bed, true).await;
    assert_eq!(bed.number(days).await, 0);
    let back = commit!(bed, tx => tenants::undelete(&mut tx, "one")).expect("taken back");
    assert!(back.active && back.delete_at.is_none());
    time_comes(&bed).await;
    assert_eq!(bed.ends(job).await.state, State::Succeeded);
    assert_eq!(bed.number("select count(*) from users").await, 1);
    assert_eq!(bed.number("select count(*) from tenants where slug = 'one' and active").await, 1);
    let again = commit!(bed, tx => tenants::undelete(&mut tx, "one"));
    assert_eq!(again.expect_err("it is not to be deleted").kind(), ErrorKind::Conflict);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_that_is_taken_back_leaves_a_tenant_as_it_was() {
    let bed = Bed::new().await;
    commit!(bed, tx => tenants::suspend(&mut tx, "one")).expect("suspended");
    // Asked for twice, it was suspended all the same.
    delete(&bed, false).await;
    delete(&bed, true).await;
    let back = commit!(bed, tx => tenants::undelete(&mut tx, "one")).expect("taken back");
    assert!(!back.active && back.delete_at.is_none(), "why it was suspended still holds");
    // What was so then is not so for ever.
    commit!(bed, tx => tenants::resume(&mut tx, "one")).expect("resumed");
    delete(&bed, false).await;
    delete(&bed, false).await;
    let back = commit!(bed, tx => tenants::undelete(&mut tx, "one")).expect("taken back");
    assert!(back.active && back.delete_at.is_none());
}

/// What stays when a tenant goes, and why.
const KEPT: [(&str, &str); 2] = [
    ("audit", "the application's role can only add to it; it goes with its months"),
    ("audit_chain", "what the audit is sealed by goes with it"),
];

/// A row of each kind for a tenant. `$T` is the tenant, `$U` a person, `$K` a key, `$J` a job, `$S` a
/// schedule, `$I` a sign-in, `$M` a team, `$P` who somebody is to a provider.
const ROWS: &str = "
    insert into users (id, tenant_id, email, username, name, role) values ('$U', '$T', 'u@example.org', 'u', 'U', 'owner');
    insert into api_keys (id, tenant_id, user_id, name, prefix, secret_hash, hourly_limit)
    values ('$K', '$T', '$U', 'k', 'sk_k', sha256('$K'), 1);
    insert into api_key_calls (id, at, tenant_id, api_key_id, method, route, status, duration_us)
    select gen_random_uuid(), now(), '$T', '$K', 'GET', '/', 200, 1 from generate_series(1, 3);
    insert into api_key_days (tenant_id, api_key_id, day, calls, errors) values ('$T', '$K', now()::date, 3, 0);
    insert into idempotency_keys (tenant_id, actor, method, path, key, body_hash, expires_at)
    select '$T', 'user', 'POST', '/', n::text, '', now() from generate_series(1, 3) n;
    insert into jobs (id, tenant_id, run_at, order_at, created_at, release, timeout_ms, max_attempts, state, kind, queue, lane, creator_type, args, user_id)
    values ('$J', '$T', now(), now(), now(), 0, 1000, 1, 'queued', 'test.nothing', 'tests', 'tests', 'user', '{}', '$U'),
           (gen_random_uuid(), '$T', now(), now(), now(), 0, 1000, 1, 'succeeded', 'test.nothing', 'tests', 'tests', 'user', '{}', '$U');
    insert into job_steps (job_id, step, at) values ('$J', 'first', now());
    insert into job_batches (job_id, tenant_id, total) values ('$J', '$T', 3);
    insert into job_batch_items (batch_id, item_no, item) select '$J', n, '{}' from generate_series(1, 3) n;
    insert into job_keys (tenant_id, kind, key, job_id) values ('$T', 'test.nothing', 'k', '$J');
    insert into job_events (tenant_id, key, xid, at) values ('$T', 'e', '3', now());
    insert into queue_controls (queue, tenant_id, max_running, updated_at) values ('tests', '$T', 1, now());
    insert into queue_depths (queue, tenant_id, waiting, delayed, blocked, parked, running, counted_at)
    values ('tests', '$T', 1, 0, 0, 0, 0, now());
    insert into schedules (id, tenant_id, name, kind, args, cron, user_id, creator_type, created_at, updated_at)
    values ('$S', '$T', 's', 'jobs.change', '{}', '* * * * *', '$U', 'user', now(), now());
    insert into job_fires (schedule_id, fire_at, tenant_id, outcome, at) values ('$S', now(), '$T', 'fired', now());
    insert into teams (id, tenant_id, name) values ('$M', '$T', 'm');
    insert into team_members (tenant_id, team_id, user_id, role) values ('$T', '$M', '$U', 'owner');
    insert into settings (tenant_id, key, value) values ('$T', 'ui.announcement', '1');
    insert into sign_ins (id, tenant_id, user_id, kind, method, secret_hash, created_at, last_used_at, expires_at)
    values ('$I', '$T', '$U', 'tokens', 'password', sha256('$I'), now(), now(), now() + interval '1 day');
    insert into used_refresh_tokens (secret_hash, tenant_id, sign_in_id, expires_at)
    values (sha256('r$I'), '$T', '$I', now() + interval '1 day');
    insert into sign_in_challenges (secret_hash, tenant_id, user_id, expires_at)
    values (sha256('c$U'), '$T', '$U', now() + interval '1 day');
    insert into recovery_codes (tenant_id, user_id, code_hash) values ('$T', '$U', sha256('x$U'));
    insert into mailed_links (secret_hash, tenant_id, user_id, purpose, email, created_at, expires_at)
    values (sha256('m$U'), '$T', '$U', 'reset', 'u@example.org', now(), now() + interval '1 day');
    insert into stream_tickets (secret_hash, tenant_id, api_key_id, path, expires_at)
    values (sha256('t$K'), '$T', '$K', '/', now());
    insert into cli_requests (secret_hash, tenant_id, user_id, sign_in_id, redirect_uri, challenge, expires_at)
    values (sha256('q$I'), '$T', '$U', '$I', 'http://127.0.0.1:1', sha256('x'), now());
    insert into oidc_providers (id, tenant_id, name, display_name, enabled, provider_url, client_id, client_secret, scopes,
                                username_claim, email_claim, groups_claim, group_mapping, default_role)
    values (gen_random_uuid(), '$T', '$M', 'P', true, 'https://p.example', 'c', 'x', '{openid}', '', '', '', '[]', 'user');
    insert into oidc_identities (id, tenant_id, user_id, issuer, subject, proven, linked_through)
    values ('$P', '$T', '$U', 'https://p.example', 's', true, false);
    insert into oidc_memberships (tenant_id, identity_id, team_id, user_id) values ('$T', '$P', '$M', '$U');
    insert into oidc_states (state_hash, browser_hash, provider, provider_url, return_to, tenant_id, sign_in_id, expires_at)
    values (sha256('s$I'), sha256('x'), 'p', 'https://p.example', '/', '$T', '$I', now());
    insert into audit (id, tenant_id, user_id, actor_type, action, resource_type) values (gen_random_uuid(), '$T', '$U', 'user', 'tests.act', 'thing');
    insert into audit_chain (tenant_id, sequence, pass, row_ids, row_hashes, last_at, last_id, hash)
    values ('$T', 1, 1, '{}', '', now(), gen_random_uuid(), sha256('x'));";

async fn fill(bed: &Bed, tenant: TenantId) {
    let mut sql = ROWS.replace("$T", &tenant.to_string());
    for name in ["$U", "$K", "$J", "$S", "$I", "$M", "$P"] {
        sql = sql.replace(name, &uuid::Uuid::now_v7().to_string());
    }
    bed.execute(&sql).await;
}

/// Rows of a tenant in every table that has a column for it.
async fn census(bed: &Bed, tenant: TenantId) -> BTreeMap<String, i64> {
    let tables: Vec<String> = sqlx::query_scalar(
        "select c.relname::text from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attname = 'tenant_id'
         where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
           and not a.attisdropped",
    )
    .fetch_all(bed.queue.db().pool())
    .await
    .expect("read");
    let mut census = BTreeMap::new();
    for table in tables {
        let rows = bed.number(&format!("select count(*) from {table} where tenant_id = '{tenant}'")).await;
        census.insert(table, rows);
    }
    census
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_tenant_is_left_but_what_is_to_stay() {
    let bed = Bed::new().await;
    for tenant in [bed.tenant, bed.other] {
        fill(&bed, tenant).await;
    }
    // One job runs, by a worker that is no more.
    let running = enqueue(&bed, bed.tenant).await;
    bed.execute(&format!(
        "update jobs set state = 'running', boot_id = gen_random_uuid(), fence = fence + 1, claimed_at = now() where id = '{running}'"
    ))
    .await;
    let job = delete(&bed, true).await;
    let (before, theirs) = (census(&bed, bed.tenant).await, census(&bed, bed.other).await);
    for (table, rows) in &before {
        assert!(*rows > 0, "a row of {table} is needed in ROWS, to see that it goes");
    }
    time_comes(&bed).await;
    let worker = bed.worker(&Ports::default());
    let done = bed.ends(job).await;
    worker.stop().await;
    assert_eq!(done.state, State::Succeeded, "{:?}", done.errors);
    assert_eq!(bed.number("select count(*) from tenants where slug = 'one'").await, 0);

    let kept: BTreeMap<_, _> = KEPT.into_iter().collect();
    for (table, rows) in census(&bed, bed.tenant).await {
        match kept.get(table.as_str()) {
            Some(_) => assert!(rows >= before[&table], "{table} was to stay"),
            None => {
                assert_eq!(rows, 0, "rows of {table} are left: delete them, or say in KEPT why they stay")
            }
        }
    }
    assert_eq!(census(&bed, bed.other).await, theirs, "another tenant's rows are none of its business");
    let orphans = "select (select count(*) from job_steps s where not exists (select from jobs j where j.id = s.job_id))
                        + (select count(*) from job_slots s where not exists (select from jobs j where j.id = s.job_id))";
    assert_eq!(bed.number(orphans).await, 0);
    let told =
        format!("select count(*) from audit where tenant_id = '{PLATFORM}' and action = 'tenants.erase'");
    assert_eq!(bed.number(&told).await, 1);
    // The installation's audit is whole without its tenant.
    audit::seal(&bed.queue).await.expect("sealed");
}

/// Many answers, deleted in many steps.
async fn fill_long(bed: &Bed) -> i64 {
    let rows = 20_000;
    bed.execute(&format!(
        "insert into idempotency_keys (tenant_id, actor, method, path, key, body_hash, expires_at)
         select '{}', 'user', 'POST', '/', n::text, '', now() + interval '1 day' from generate_series(1, {rows}) n",
        bed.tenant
    ))
    .await;
    rows
}

async fn left(bed: &Bed) -> i64 {
    bed.number("select count(*) from idempotency_keys").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_that_is_interrupted_goes_on_and_has_no_way_back() {
    let bed = Bed::new().await;
    bed.person(bed.tenant, Role::Owner).await;
    let rows = fill_long(&bed).await;
    let job = delete(&bed, true).await;
    time_comes(&bed).await;
    let worker = bed.worker_with(&Ports::default(), Duration::ZERO);
    eventually(SOON, "some of it is gone", async || (left(&bed).await < rows).then_some(())).await;
    worker.stop().await;
    let after_stop = left(&bed).await;
    assert!(after_stop > 0, "it goes in steps, with pauses between them");
    let back = commit!(bed, tx => tenants::undelete(&mut tx, "one"));
    assert!(matches!(back, Err(Error::DeletionBegan)), "{back:?}");
    // Cancelled, and asked for again.
    let worker = bed.worker(&Ports::default());
    eventually(SOON, "more of it is gone", async || (left(&bed).await < after_stop).then_some(())).await;
    commit!(bed, tx => jobs::cancel(&mut tx, job)).expect("cancelled");
    assert_eq!(bed.ends(job).await.state, State::Cancelled);
    assert!(left(&bed).await > 0);
    assert_eq!(bed.number("select count(*) from tenants where slug = 'one'").await, 1);
    let again = delete(&bed, true).await;
    let done = bed.ends(again).await;
    worker.stop().await;
    assert_eq!(done.state, State::Succeeded, "{:?}", done.errors);
    assert_eq!(left(&bed).await, 0);
    assert_eq!(bed.number("select count(*) from tenants where slug = 'one'").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_no_platform_administrator_manages_no_tenants() {
    let bed = Bed::new().await;
    let owner = bed.person(bed.tenant, Role::Owner).await;
    let mut tx = bed.tx(&owner);
    assert_eq!(tenants::suspend(&mut tx, "two").await.expect_err("refused").kind(), ErrorKind::Forbidden);
    assert_eq!(tenants::list(&mut tx, None, 10).await.expect_err("refused").kind(), ErrorKind::Forbidden);
    assert_eq!(
        tenants::delete(&mut tx, "one", true).await.expect_err("refused").kind(),
        ErrorKind::Forbidden
    );
    // The installation's own is none of them.
    let suspended = commit!(bed, tx => tenants::suspend(&mut tx, "platform"));
    assert_eq!(suspended.expect_err("none").kind(), ErrorKind::NotFound);
    let by_hand = sqlx::query("update tenants set active = false where slug = 'platform'");
    assert!(by_hand.execute(bed.queue.db().pool()).await.is_err());
    let listed = commit!(bed, tx => tenants::list(&mut tx, None, 1)).expect("listed");
    let rest = commit!(bed, tx => tenants::list(&mut tx, Some(listed[0].id), 10)).expect("listed");
    assert_eq!((listed.len(), rest.len()), (1, 1));
}
