//! The chain of hashes: what is sealed, in what order, and what is found when somebody changes it.

use std::time::Duration;

use serde_json::json;
use streamspace_common::{Actor, PLATFORM, Role};
use streamspace_domain::{
    Ports,
    audit::{self, Breach, Entry, Report, jobs::Seal},
};
use streamspace_queue::{self as queue, Queue};
use streamspace_testkit::eventually;

use crate::bed::Bed;

const SOON: Duration = Duration::from_secs(15);

async fn act(bed: &Bed, actor: &Actor, rows: usize) {
    let mut tx = bed.tx(actor);
    for n in 0..rows {
        let entry = Entry::new("tests.act", "thing", n).after(json!({ "n": n, "secret": "x", "f": 1.5e10 }));
        audit::record(&mut tx, entry).await.expect("recorded");
    }
    tx.commit().await.expect("committed");
}

async fn sealed(bed: &Bed, rows: i64) {
    eventually(SOON, "all is sealed", async || {
        audit::seal(&bed.queue).await.expect("sealed");
        let sealed =
            bed.number("select coalesce(sum(cardinality(row_ids)), 0)::bigint from audit_chain").await;
        (sealed >= rows).then_some(())
    })
    .await;
}

async fn verify(queue: &Queue) -> Report {
    let mut tx = queue.begin(Actor::system(PLATFORM), queue::Request::default());
    audit::verify(&mut tx).await.expect("read")
}

async fn filled() -> Bed {
    let bed = Bed::new().await;
    for tenant in [bed.tenant, bed.other] {
        let owner = bed.person(tenant, Role::Owner).await;
        act(&bed, &owner, 30).await;
        sealed(&bed, 1).await;
        act(&bed, &owner, 10).await;
    }
    sealed(&bed, 80).await;
    let report = verify(&bed.queue).await;
    assert_eq!((report.rows, report.unsealed, report.breach), (80, 0, None));
    assert_eq!(report.chains.len(), 2);
    bed
}

async fn id(bed: &Bed, which: &'static str) -> uuid::Uuid {
    sqlx::query_scalar(which).fetch_one(bed.queue.db().pool()).await.expect("a row")
}

const FIFTH: &str = "select id from audit order by at, id offset 4 limit 1";

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_was_changed_is_named() {
    let bed = filled().await;
    let row = id(&bed, FIFTH).await;
    for change in [
        "action = 'tests.other'",
        "after = after || '{\"n\": 999}'",
        "user_id = null",
        "ip = '192.0.2.1'",
        "tenant_id = tenant_id, before = '{}'",
    ] {
        let kept = bed.queue.db().begin().await.expect("a transaction");
        let mut kept = kept;
        let sql = format!("update audit set {change} where id = '{row}'");
        sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut *kept).await.expect("changed");
        kept.commit().await.expect("committed");
        let breach = verify(&bed.queue).await.breach;
        assert!(
            matches!(breach, Some(Breach::Changed { row: named, .. }) if named == row),
            "{change}: {breach:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_was_deleted_is_named() {
    let bed = filled().await;
    let row = id(&bed, FIFTH).await;
    bed.execute("delete from audit where id = (select id from audit order by at, id offset 4 limit 1)").await;
    let breach = verify(&bed.queue).await.breach;
    assert!(matches!(breach, Some(Breach::Missing { row: named, .. }) if named == row), "{breach:?}");
    let last = Bed::new().await;
    let owner = last.person(last.tenant, Role::Owner).await;
    act(&last, &owner, 5).await;
    sealed(&last, 5).await;
    last.execute("delete from audit where id = (select id from audit order by at desc, id desc limit 1)")
        .await;
    assert!(matches!(verify(&last.queue).await.breach, Some(Breach::Missing { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_was_put_into_the_past_is_named() {
    let bed = filled().await;
    bed.execute(
        "insert into audit (id, at, tenant_id, actor_type, action, resource_type)
         select gen_random_uuid(), at + interval '1 microsecond', tenant_id, 'system', 'tests.forged', 'thing'
         from audit order by at, id offset 10 limit 1",
    )
    .await;
    let row = id(&bed, "select id from audit where action = 'tests.forged'").await;
    let breach = verify(&bed.queue).await.breach;
    assert!(matches!(breach, Some(Breach::Inserted { row: named, .. }) if named == row), "{breach:?}");
    // Sealing goes on, and what was forged is not taken in.
    let owner = bed.person(bed.tenant, Role::Owner).await;
    act(&bed, &owner, 1).await;
    sealed(&bed, 81).await;
    assert_eq!(verify(&bed.queue).await.breach, breach);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_was_rewritten_does_not_fit() {
    for forgery in [
        "update audit_chain set row_hashes = decode(repeat('00', length(row_hashes)), 'hex') where sequence = 1",
        "delete from audit_chain where sequence = 1",
        "update audit_chain set hash = decode(repeat('ab', 32), 'hex') where sequence = 1",
        "update audit_chain set anchor = true where sequence = 2",
        "delete from audit_chain where pass = (select max(pass) from audit_chain)",
    ] {
        let bed = filled().await;
        bed.execute(forgery).await;
        assert!(verify(&bed.queue).await.breach.is_some(), "{forgery}");
    }
}

/// The order of sealing is the order of `at`: a row that is written must come after all that is sealed,
/// however late it commits.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_commits_late_is_waited_for() {
    let bed = Bed::new().await;
    let owner = bed.person(bed.tenant, Role::Owner).await;
    let mut late = bed.tx(&owner);
    // It began long ago and has only read.
    late.now().await.expect("a time");
    let mut slow = bed.tx(&owner);
    audit::record(&mut slow, Entry::new("tests.slow", "thing", 1)).await.expect("recorded");
    act(&bed, &owner, 5).await;
    for _ in 0..8 {
        audit::seal(&bed.queue).await.expect("sealed");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(bed.number("select count(*) from audit_chain").await, 0, "something may still come before");
    slow.commit().await.expect("committed");
    sealed(&bed, 6).await;
    audit::record(&mut late, Entry::new("tests.late", "thing", 2)).await.expect("recorded");
    late.commit().await.expect("committed");
    sealed(&bed, 7).await;
    let report = verify(&bed.queue).await;
    assert_eq!((report.rows, report.unsealed, report.breach), (7, 0, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_and_sealers_at_once_leave_one_chain() {
    let bed = Bed::new().await;
    let owner = bed.person(bed.tenant, Role::Owner).await;
    let other = bed.person(bed.other, Role::Owner).await;
    let writing = async {
        let writers = (0..40).map(|n| {
            let (bed, actor) = (&bed, if n % 2 == 0 { &owner } else { &other });
            async move {
                for _ in 0..5 {
                    act(bed, actor, 3).await;
                    tokio::time::sleep(Duration::from_millis(n)).await;
                }
            }
        });
        futures::future::join_all(writers).await;
    };
    let sealing = async {
        for _ in 0..60 {
            let (one, two) = tokio::join!(audit::seal(&bed.queue), audit::seal(&bed.queue));
            one.expect("sealed");
            two.expect("sealed");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::join!(writing, sealing);
    sealed(&bed, 600).await;
    let report = verify(&bed.queue).await;
    assert_eq!((report.rows, report.unsealed, report.breach), (600, 0, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_month_that_is_dropped_leaves_an_anchor() {
    let bed = Bed::new().await;
    let owner = bed.person(bed.tenant, Role::Owner).await;
    bed.execute(
        "create table audit_2020_01 partition of audit for values from ('2020-01-01Z') to ('2020-02-01Z')",
    )
    .await;
    bed.execute(
        "insert into audit (id, at, tenant_id, actor_type, action, resource_type)
         select gen_random_uuid(), '2020-01-05Z'::timestamptz + n * interval '1 minute', tenants.id, 'system', 'old', 'thing'
         from tenants, generate_series(1, 20) n where slug in ('one', 'two')",
    )
    .await;
    act(&bed, &owner, 3).await;
    // What is not sealed is not dropped, however old.
    let drop = "select queue.drop_audit_months(now())::bigint";
    assert_eq!(bed.number(drop).await, 0);
    sealed(&bed, 43).await;
    let before = verify(&bed.queue).await;
    assert_eq!((before.rows, before.breach), (43, None));
    assert_eq!(bed.number(drop).await, 1, "the old one; this month and the last are too young");
    assert_eq!(bed.number("select count(*) from audit_chain where anchor").await, 2);
    let after = verify(&bed.queue).await;
    assert_eq!((after.rows, after.breach, after.chains), (3, None, before.chains));
    act(&bed, &owner, 2).await;
    sealed(&bed, 5).await;
    assert_eq!(verify(&bed.queue).await.breach, None);
    bed.execute("update audit_chain set hash = sha256('x') where anchor").await;
    assert!(matches!(verify(&bed.queue).await.breach, Some(Breach::Chain { .. })));
}

/// Numbers of transactions mean nothing on another server.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_on_a_younger_server_is_sealed_on() {
    let bed = filled().await;
    bed.execute("update audit_horizon set noted_xid = '900000000000'").await;
    let owner = bed.person(bed.tenant, Role::Owner).await;
    act(&bed, &owner, 4).await;
    sealed(&bed, 84).await;
    assert_eq!(verify(&bed.queue).await.breach, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_job_seals_while_it_lasts() {
    let bed = Bed::new().await;
    let owner = bed.person(bed.tenant, Role::Owner).await;
    act(&bed, &owner, 4).await;
    let mut tx = bed.tx(&Actor::system(PLATFORM));
    queue::enqueue(&mut tx, Seal {}).await.expect("enqueued");
    tx.commit().await.expect("committed");
    let worker = bed.worker(&Ports::default());
    eventually(Duration::from_secs(30), "the job seals", async || {
        let sealed =
            bed.number("select coalesce(sum(cardinality(row_ids)), 0)::bigint from audit_chain").await;
        (sealed >= 4).then_some(())
    })
    .await;
    worker.stop().await;
    assert_eq!(verify(&bed.queue).await.breach, None);
}
