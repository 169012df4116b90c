//! Who may do what to jobs, queues, workers and schedules; the kinds of the slice.

use std::time::Duration;

use serde_json::json;
use streamspace_common::{Actor, BootId, Classified, Creator, ErrorKind, JobId, Role};
use streamspace_domain::{
    Ports,
    api_keys::{self, NewApiKey, Owner, Scopes},
    jobs::{self, Change, Filter, jobs as kinds, queues, schedules, workers},
    registry,
};
use streamspace_queue::{
    self as queue, Options, State,
    retention::Retention,
    schedule::{CatchUp, Overlap, SaveSchedule},
};

use crate::bed::Bed;

/// A job that is far from starting.
async fn enqueue(bed: &Bed, actor: &Actor) -> JobId {
    let mut tx = bed.tx(actor);
    let later = Options { delay: Some(Duration::from_secs(3_600)), ..Options::default() };
    let job = queue::enqueue_with(&mut tx, kinds::Prune {}, later).await.expect("enqueued");
    tx.commit().await.expect("committed");
    job.id
}

fn kind<T>(result: Result<T, jobs::Error>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_may_not_see_is_not_found_and_what_one_may_not_change_is_forbidden() {
    let bed = Bed::new().await;
    let owner = bed.person(bed.tenant, Role::User).await;
    let viewer = Actor { role: Role::Viewer, ..owner.clone() };
    let colleague = bed.person(bed.tenant, Role::User).await;
    let operator = bed.person(bed.tenant, Role::Operator).await;
    let foreign = bed.person(bed.other, Role::Owner).await;
    let platform = Actor { platform: true, ..bed.person(bed.other, Role::Owner).await };
    let id = enqueue(&bed, &owner).await;

    let mut conn = bed.queue.read().await.expect("a connection");
    for (actor, seen) in [
        (&owner, true),
        (&viewer, true),
        (&colleague, false),
        (&operator, true),
        (&foreign, false),
        (&platform, true),
    ] {
        let listed = jobs::list(&mut conn, actor, &Filter::default(), None, 10).await.expect("a page");
        assert_eq!(listed.jobs.len(), usize::from(seen), "{actor:?}");
        assert_eq!(jobs::get(&mut conn, actor, id).await.is_ok(), seen, "{actor:?}");
    }
    drop(conn);

    use ErrorKind::{Conflict, Forbidden, NotFound};
    for (actor, cancelled, retried, deleted) in [
        (&viewer, Some(Forbidden), Some(Forbidden), Some(Forbidden)),
        (&colleague, Some(NotFound), Some(NotFound), Some(NotFound)),
        (&foreign, Some(NotFound), Some(NotFound), Some(NotFound)),
        (&owner, None, Some(Forbidden), Some(Forbidden)),
        (&operator, None, Some(Conflict), Some(Conflict)),
        (&platform, None, Some(Conflict), Some(Conflict)),
    ] {
        // Rolled back each time, so that all meet the same job.
        assert_eq!(kind(jobs::retry(&mut bed.tx(actor), id).await), retried, "{actor:?}");
        assert_eq!(kind(jobs::delete(&mut bed.tx(actor), id).await), deleted, "{actor:?}");
        assert_eq!(kind(jobs::cancel(&mut bed.tx(actor), id).await), cancelled, "{actor:?}");
    }
    let mut tx = bed.tx(&operator);
    assert_eq!(jobs::cancel(&mut tx, id).await.map(|job| job.state).ok(), Some(State::Cancelled));
    // Cancelled already: nothing happens, and nothing is in the audit.
    jobs::cancel(&mut tx, id).await.expect("its state");
    tx.commit().await.expect("committed");
    assert_eq!(bed.number("select count(*) from audit where action = 'jobs.cancel'").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_holds_up_its_own_jobs_and_the_platform_everyones() {
    let bed = Bed::new().await;
    let registry = registry(&Ports::default());
    let mine = bed.person(bed.tenant, Role::Operator).await;
    let theirs = bed.person(bed.other, Role::Operator).await;
    let user = bed.person(bed.tenant, Role::User).await;
    let platform = Actor { platform: true, ..theirs.clone() };
    let name = "maintenance";

    assert_eq!(kind(queues::pause(&mut bed.tx(&user), &registry, name).await), Some(ErrorKind::Forbidden));
    assert_eq!(
        kind(queues::pause(&mut bed.tx(&mine), &registry, "no-such").await),
        Some(ErrorKind::NotFound)
    );
    let mut tx = bed.tx(&mine);
    assert!(queues::pause(&mut tx, &registry, name).await.expect("paused").is_paused());
    tx.commit().await.expect("committed");
    let mut conn = bed.queue.read().await.expect("a connection");
    assert!(!queues::get(&mut conn, &theirs, &registry, name).await.expect("read").is_paused());

    let mut tx = bed.tx(&platform);
    queues::pause(&mut tx, &registry, name).await.expect("paused");
    tx.commit().await.expect("committed");
    assert!(queues::get(&mut conn, &theirs, &registry, name).await.expect("read").is_paused());
    let mut tx = bed.tx(&mine);
    let queue = queues::resume(&mut tx, &registry, name).await.expect("resumed");
    tx.commit().await.expect("committed");
    assert!(queue.is_paused(), "what the platform holds up no tenant sets free");
    assert_eq!(bed.number("select count(*) from audit where resource_type = 'queue'").await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_platform_drains_workers_and_tenants_do_not_see_hosts() {
    let bed = Bed::new().await;
    let owner = bed.person(bed.tenant, Role::Owner).await;
    let platform = Actor { platform: true, ..owner.clone() };
    bed.execute(
        "insert into workers (boot_id, host, pid, version, release, kinds, concurrency, started_at, beat_at)
         values ('00000000-0000-0000-0000-0000000000ff', 'secret-host', 7, '1', 1, '{}', 4, now(), now())",
    )
    .await;
    let id: BootId = "00000000-0000-0000-0000-0000000000ff".parse().expect("an id");
    let mut conn = bed.queue.read().await.expect("a connection");
    assert_eq!(workers::get(&mut conn, &owner, id).await.expect("read").host, "");
    assert_eq!(workers::get(&mut conn, &platform, id).await.expect("read").host, "secret-host");
    assert_eq!(kind(workers::drain(&mut bed.tx(&owner), id).await), Some(ErrorKind::Forbidden));
    let none = BootId::new();
    assert_eq!(kind(workers::drain(&mut bed.tx(&platform), none).await), Some(ErrorKind::NotFound));
    let drained = workers::drain(&mut bed.tx(&platform), id).await.expect("asked");
    assert_eq!(drained.status, workers::Status::Draining);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_filter_matches_beyond_the_first_few_is_changed_by_a_job() {
    let bed = Bed::new().await;
    let operator = bed.person(bed.tenant, Role::Operator).await;
    let foreign = bed.person(bed.other, Role::Operator).await;
    let untouched = enqueue(&bed, &foreign).await;
    let later = Options { delay: Some(Duration::from_secs(3_600)), ..Options::default() };
    let mut tx = bed.tx(&operator);
    queue::enqueue_many(&mut tx, (0..1_200).map(|_| kinds::Prune {}), &later).await.expect("enqueued");
    tx.commit().await.expect("committed");

    let mut tx = bed.tx(&operator);
    let filter = Filter { kind: Some("jobs.prune".into()), ..Filter::default() };
    let changed = jobs::change_matching(&mut tx, Change::Cancel, &filter).await.expect("changed");
    tx.commit().await.expect("committed");
    assert_eq!(changed.changed, 500);
    let worker = bed.worker(&Ports::default());
    let ended = bed.ends(changed.job.expect("a job for the others")).await;
    assert_eq!((ended.state, ended.result), (State::Succeeded, Some(json!({ "changed": 1_200 }))));
    assert_eq!(bed.number("select count(*) from jobs where state = 'cancelled'").await, 1_200);
    let mut conn = bed.queue.read().await.expect("a connection");
    let job = jobs::get(&mut conn, &foreign, untouched).await.expect("read");
    assert_eq!(job.state, State::Scheduled);

    // What fits into a step needs no job.
    let mut tx = bed.tx(&foreign);
    let changed = jobs::change_matching(&mut tx, Change::Cancel, &Filter::default()).await.expect("changed");
    assert_eq!((changed.changed, changed.job), (1, None));
    worker.stop().await;
}

fn nightly(args: serde_json::Value) -> SaveSchedule {
    SaveSchedule {
        name: "Every night, once more".into(),
        kind: "jobs.change".into(),
        args,
        cron: "0 3 * * *".into(),
        time_zone: "Europe/Berlin".into(),
        jitter: Duration::ZERO,
        catch_up: CatchUp::One,
        catch_up_window: Duration::from_secs(3_600),
        overlap: Overlap::Skip,
        paused: false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_has_the_rights_that_its_maker_has_when_it_fires() {
    let bed = Bed::new().await;
    let all = streamspace_domain::schedules(&Ports::default());
    let operator = bed.person(bed.tenant, Role::Operator).await;
    let foreign = bed.person(bed.other, Role::Operator).await;
    let user = bed.person(bed.tenant, Role::User).await;
    let save = nightly(json!({ "change": "retry", "filter": { "states": ["failed"] } }));
    let refused = schedules::create(&mut bed.tx(&user), &all, save.clone()).await;
    assert_eq!(kind(refused), Some(ErrorKind::Forbidden));
    let wrong = SaveSchedule { args: json!({ "change": "retry", "filtre": {} }), ..save.clone() };
    assert_eq!(kind(schedules::create(&mut bed.tx(&operator), &all, wrong).await), Some(ErrorKind::Invalid));
    let mut tx = bed.tx(&operator);
    let made = schedules::create(&mut tx, &all, save).await.expect("made");
    let run = schedules::run_now(&mut tx, &all, made.id).await.expect("ran");
    tx.commit().await.expect("committed");
    assert_eq!(
        kind(schedules::run_now(&mut bed.tx(&foreign), &all, made.id).await),
        Some(ErrorKind::NotFound)
    );

    let worker = bed.worker(&Ports::default());
    assert_eq!(bed.ends(run.id).await.state, State::Succeeded);
    bed.execute("update users set role = 'user' where role = 'operator'").await;
    let mut tx = bed.tx(&operator);
    let run = schedules::run_now(&mut tx, &all, made.id).await.expect("ran");
    tx.commit().await.expect("committed");
    let ended = bed.ends(run.id).await;
    assert_eq!((ended.state, ended.attempt), (State::Failed, 1), "{ended:?}");
    bed.execute("update users set active = false").await;
    let mut tx = bed.tx(&operator);
    let run = schedules::run_now(&mut tx, &all, made.id).await.expect("ran");
    tx.commit().await.expect("committed");
    assert_eq!(bed.ends(run.id).await.state, State::Cancelled);
    worker.stop().await;
}

/// Or else an operator would lend themselves an administrator's rights by changing what their
/// schedule does.
#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_has_the_rights_of_whoever_said_last_what_it_does() {
    let bed = Bed::new().await;
    let all = streamspace_domain::schedules(&Ports::default());
    let operator = bed.person(bed.tenant, Role::Operator).await;
    let administrator = Actor { platform: true, ..bed.person(bed.tenant, Role::Owner).await };
    bed.execute("update users set platform_admin = true where role = 'owner'").await;
    enqueue(&bed, &bed.person(bed.other, Role::User).await).await;
    let mine = enqueue(&bed, &operator).await;

    let mut tx = bed.tx(&administrator);
    let made = schedules::create(&mut tx, &all, nightly(json!({ "change": "retry" }))).await.expect("made");
    tx.commit().await.expect("committed");
    let mut tx = bed.tx(&operator);
    let cancels = nightly(json!({ "change": "cancel", "filter": { "kind": "jobs.prune" } }));
    schedules::update(&mut tx, &all, made.id, cancels).await.expect("changed");
    let run = schedules::run_now(&mut tx, &all, made.id).await.expect("ran");
    tx.commit().await.expect("committed");

    let worker = bed.worker(&Ports::default());
    assert_eq!(bed.ends(run.id).await.state, State::Succeeded);
    assert_eq!(bed.ends(mine).await.state, State::Cancelled);
    assert_eq!(bed.number("select count(*) from jobs where state = 'cancelled'").await, 1);
    worker.stop().await;
}

/// What a key of the tenant has planned ends with the key.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_a_tenants_key_have_its_role_and_end_with_it() {
    let bed = Bed::new().await;
    let all = streamspace_domain::schedules(&Ports::default());
    let admin = bed.person(bed.tenant, Role::Admin).await;
    let mut tx = bed.tx(&admin);
    let new = NewApiKey {
        name: "planner".into(),
        owner: Owner::Tenant(Role::Operator),
        scopes: vec!["jobs.write".into()],
        hourly_limit: 100,
        expires_at: None,
    };
    let (key, _) = api_keys::create(&mut tx, &Scopes::all(), u32::MAX, new).await.expect("a key");
    tx.commit().await.expect("committed");
    let planner = Actor {
        by: Creator::ApiKey(key.id),
        user: None,
        key: Some(key.id),
        role: Role::Operator,
        ..admin.clone()
    };
    let mut tx = bed.tx(&planner);
    let made = schedules::create(&mut tx, &all, nightly(json!({ "change": "retry" }))).await.expect("made");
    let run = schedules::run_now(&mut tx, &all, made.id).await.expect("ran");
    tx.commit().await.expect("committed");
    let worker = bed.worker(&Ports::default());
    assert_eq!(bed.ends(run.id).await.state, State::Succeeded);

    bed.execute("update api_keys set active = false").await;
    let mut tx = bed.tx(&admin);
    let run = schedules::run_now(&mut tx, &all, made.id).await.expect("ran");
    tx.commit().await.expect("committed");
    assert_eq!(bed.ends(run.id).await.state, State::Cancelled);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_that_no_job_can_have_are_refused_when_they_are_saved() {
    let bed = Bed::new().await;
    let all = streamspace_domain::schedules(&Ports::default());
    let operator = bed.person(bed.tenant, Role::Operator).await;
    let long = json!({ "change": "retry", "filter": { "kind": "k".repeat(70_000) } });
    for wrong in [long, json!({ "change": "retry", "changed": 5 }), json!({ "change": "explode" })] {
        let refused = schedules::create(&mut bed.tx(&operator), &all, nightly(wrong)).await;
        assert_eq!(kind(refused), Some(ErrorKind::Invalid));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pruning_deletes_what_is_old_enough() {
    let bed = Bed::new().await;
    let operator = bed.person(bed.tenant, Role::Operator).await;
    for _ in 0..3 {
        let id = enqueue(&bed, &operator).await;
        let mut tx = bed.tx(&operator);
        jobs::cancel(&mut tx, id).await.expect("cancelled");
        tx.commit().await.expect("committed");
    }
    let kept = enqueue(&bed, &operator).await;
    // Of what others leave behind more than one round removes, and one of each that is still good.
    bed.execute(
        "insert into idempotency_keys (tenant_id, actor, method, path, key, body_hash, expires_at)
         select id, 'user', 'POST', '/', n, '', now() + make_interval(secs => case n when 0 then 60 else -1 end)
         from tenants, generate_series(0, 1100) n where slug = 'one';
         insert into api_keys (id, tenant_id, role, name, prefix, secret_hash, hourly_limit)
         select id, id, 'user', 'k', 'k', sha256('k'), 1 from tenants where slug = 'one';
         insert into stream_tickets (secret_hash, tenant_id, api_key_id, path, expires_at)
         select sha256(n::text::bytea), id, id, '/', now() + make_interval(secs => case n when 0 then 60 else -1 end)
         from tenants, generate_series(0, 1100) n where slug = 'one'",
    )
    .await;
    let none = Duration::ZERO;
    let worker = bed.worker(&Ports {
        retention: Retention { succeeded: none, cancelled: none, failed: none },
        ..Ports::default()
    });
    let mut tx = bed.tx(&operator);
    let prune = queue::enqueue(&mut tx, kinds::Prune {}).await.expect("enqueued").id;
    tx.commit().await.expect("committed");
    assert_eq!(bed.ends(prune).await.result, Some(json!({ "deleted": 3 })));
    assert_eq!(bed.number("select count(*) from idempotency_keys").await, 1);
    assert_eq!(bed.number("select count(*) from stream_tickets").await, 1);
    let mut conn = bed.queue.read().await.expect("a connection");
    assert!(jobs::get(&mut conn, &operator, kept).await.is_ok());
    worker.stop().await;
}
