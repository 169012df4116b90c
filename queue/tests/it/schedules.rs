//! Schedules against the database's clock, which these tests shift by moving what is stored.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use streamspace_common::{Actor, PLATFORM, ScheduleId, TenantId};
use streamspace_queue::{
    Attempt, Done, Failure, Job, Queue, Registry, Request, Tx, Unique,
    schedule::{
        self, BuiltIn, CatchUp, Fired, Overlap, Preview, SaveSchedule, Schedule, ScheduleError, Schedules,
        Troubled,
    },
};

use crate::bed::{Act, Bed};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tick {
    n: u32,
}

impl Job for Tick {
    const KIND: &'static str = "test.tick";
    const QUEUE: &'static str = "test";
    const SCHEDULABLE: Option<fn() -> Value> = Some(|| json!({ "type": "object" }));
    type Ctx = ();
    async fn run(self, (): &(), _: &Attempt) -> Result<Done, Failure> {
        Ok(Done::nothing())
    }
}

#[derive(Serialize, Deserialize)]
struct Sweep {}

impl Job for Sweep {
    const KIND: &'static str = "test.sweep";
    const QUEUE: &'static str = "test";
    type Ctx = ();
    fn unique(&self) -> Option<Unique> {
        Some(Unique::until_finished("sweep"))
    }
    async fn run(self, (): &(), _: &Attempt) -> Result<Done, Failure> {
        Ok(Done::nothing())
    }
}

fn schedules() -> Schedules {
    let registry = Registry::new()
        .register::<Tick>(Arc::new(()))
        .register::<Sweep>(Arc::new(()))
        .register::<Act>(Arc::new(()));
    let every = Duration::from_secs(10);
    Schedules::new(
        registry,
        [
            BuiltIn::every::<Sweep>("Sweep", every),
            BuiltIn::every::<Sweep>("Sweep of tenants", every).for_each_tenant(),
        ],
    )
}

fn save(name: &str) -> SaveSchedule {
    SaveSchedule {
        name: name.into(),
        kind: "test.tick".into(),
        args: json!({ "n": 1 }),
        cron: "* * * * *".into(),
        time_zone: "Europe/Berlin".into(),
        jitter: Duration::ZERO,
        catch_up: CatchUp::All,
        catch_up_window: Duration::from_secs(3_600),
        overlap: Overlap::Allow,
        paused: false,
    }
}

async fn tenant(bed: &Bed, id: TenantId, slug: &str) {
    sqlx::query("insert into tenants (id, name, slug) values ($1, $2, $2)")
        .bind(id.0)
        .bind(slug)
        .execute(bed.queue.db().pool())
        .await
        .expect("a tenant");
}

fn begin(bed: &Bed) -> Tx {
    bed.queue.begin(Actor::system(bed.tenant), Request::default())
}

async fn create(bed: &Bed, new: SaveSchedule) -> Result<Schedule, ScheduleError> {
    let mut tx = begin(bed);
    let made = schedule::create(&mut tx, &schedules(), new).await?;
    tx.commit().await.expect("committed");
    Ok(made)
}

/// Makes it look as if the next tick had been so many minutes ago.
async fn set_back(bed: &Bed, minutes: i32) {
    sqlx::query(
        "update schedules set next_at = date_trunc('minute', now()) - make_interval(mins => $1),
                fire_at = date_trunc('minute', now()) - make_interval(mins => $1) + (fire_at - next_at)",
    )
    .bind(minutes)
    .execute(bed.queue.db().pool())
    .await
    .expect("set back");
}

/// As a scheduler does that has just started.
async fn fire_due(queue: &Queue, schedules: &Schedules) -> sqlx::Result<Fired> {
    schedule::fire_due(queue, schedules, &mut Troubled::default()).await
}

async fn fired(bed: &Bed, outcome: &str) -> i64 {
    sqlx::query_scalar("select count(*) from job_fires where outcome = $1")
        .bind(outcome)
        .fetch_one(bed.queue.db().pool())
        .await
        .expect("read")
}

async fn get(bed: &Bed, id: ScheduleId) -> Schedule {
    let mut conn = bed.queue.read().await.expect("a connection");
    schedule::get(&mut conn, Some(bed.tenant), id).await.expect("read").expect("the schedule")
}

async fn new_bed() -> Bed {
    let bed = Bed::new().await;
    tenant(&bed, bed.tenant, "mine").await;
    bed
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_checked_when_it_is_saved() {
    let bed = new_bed().await;
    let wrong = |change: fn(&mut SaveSchedule)| {
        let mut new = save("wrong");
        change(&mut new);
        new
    };
    for (new, at) in [
        (wrong(|s| s.cron = "* * * *".into()), "/cron"),
        (wrong(|s| s.cron = "0 0 30 2 *".into()), "/cron"),
        (wrong(|s| s.time_zone = "Mars/Olympus".into()), "/timeZone"),
        (wrong(|s| s.kind = "test.sweep".into()), "/kind"),
        (wrong(|s| s.kind = "no.such".into()), "/kind"),
        (wrong(|s| s.args = json!({ "m": 1 })), "/arguments"),
        (wrong(|s| s.name = String::new()), "/name"),
        (wrong(|s| s.jitter = Duration::from_secs(90_000)), "/jitter"),
        (wrong(|s| s.catch_up_window = Duration::from_secs(8 * 86_400)), "/catchUpWindow"),
    ] {
        match create(&bed, new.clone()).await {
            Err(ScheduleError::Invalid { pointer, .. }) => assert_eq!(pointer, at, "{new:?}"),
            other => panic!("{new:?}: {other:?}"),
        }
    }
    create(&bed, save("one")).await.expect("made");
    assert!(matches!(create(&bed, save("one")).await, Err(ScheduleError::NameTaken)));
    let preview = Preview { cron: "0 9 * * MON".into(), time_zone: "UTC".into(), count: 3 };
    let after = "2026-11-21T00:00Z".parse().expect("a time");
    let times = schedule::preview(&preview, after).expect("times");
    assert_eq!(times.first().map(ToString::to_string).as_deref(), Some("2026-11-23T09:00:00Z"));
    assert_eq!(times.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_due_fires_once_however_many_fire_it() {
    let bed = new_bed().await;
    let mut made = Vec::new();
    for n in 0..5 {
        made.push(create(&bed, save(&format!("s{n}"))).await.expect("made"));
    }
    let nothing = fire_due(&bed.queue, &schedules()).await.expect("looked");
    assert_eq!(nothing.schedules, 0);
    assert!(nothing.next_in.is_some_and(|next| next <= Duration::from_secs(60)), "{nothing:?}");

    set_back(&bed, 20).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let queue = bed.queue.clone();
        tasks.spawn(async move { fire_due(&queue, &schedules()).await.expect("fired").schedules });
    }
    let fired_by: usize = tasks.join_all().await.into_iter().sum();
    assert_eq!(fired_by, 5);
    // This minute's tick and the twenty before it.
    assert_eq!(fired(&bed, "fired").await, 5 * 21);
    assert_eq!(bed.number("select count(*) from jobs").await, 5 * 21);
    assert_eq!(bed.number("select count(distinct job_id) from job_fires").await, 5 * 21);
    let schedule = get(&bed, made[0].id).await;
    assert!(schedule.next_at > schedule.last_fire_at && schedule.last_job.is_some());
    assert_eq!(schedule.missed_count, 0);
    let mut conn = bed.queue.read().await.expect("a connection");
    let page = schedule::fires(&mut conn, schedule.id, schedule.last_fire_at, 5).await.expect("read");
    assert_eq!((page.len(), page[0].fire_at < schedule.last_fire_at.expect("fired")), (5, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_with_jitter_fires_that_much_later_and_not_at_its_tick() {
    let bed = new_bed().await;
    let jitter = Duration::from_secs(1_800);
    for n in 0..20 {
        create(&bed, SaveSchedule { jitter, ..save(&format!("s{n}")) }).await.expect("made");
    }
    let spread = "select count(distinct fire_at - next_at) from schedules
                  where fire_at - next_at between interval '0' and interval '30 min'";
    assert!(bed.number(spread).await > 15, "not all at once");

    bed.execute(
        "update schedules set next_at = date_trunc('minute', now()) - interval '5 min', fire_at = now() + interval '1 min'",
    )
    .await;
    assert_eq!(fire_due(&bed.queue, &schedules()).await.expect("looked").schedules, 0, "not at its tick");
    bed.execute("update schedules set fire_at = now() - interval '2 s'").await;
    assert_eq!(fire_due(&bed.queue, &schedules()).await.expect("fired").schedules, 20);
    // The ledger has the tick; those that came since are put off as long.
    assert_eq!(fired(&bed, "fired").await, 20);
    let next = "select count(*) from schedules where next_at = last_fire_at + interval '1 min'";
    assert_eq!(bed.number(next).await, 20);
    assert!(bed.number(spread).await > 15, "each time anew");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_that_cannot_fire_waits_longer_each_time_and_catches_up_when_it_can() {
    let bed = new_bed().await;
    let broken = create(&bed, save("broken")).await.expect("made");
    create(&bed, save("sound")).await.expect("made");
    // What an older release saved, and this one can't read.
    bed.execute("update schedules set args = '{\"m\": 1}' where name = 'broken'").await;
    set_back(&bed, 3).await;
    let mut troubled = Troubled::default();
    let mut round =
        async || schedule::fire_due(&bed.queue, &schedules(), &mut troubled).await.expect("fired");
    assert_eq!(round().await.schedules, 1, "the sound one is on time");
    assert_eq!(get(&bed, broken.id).await.last_fire_at, None, "the ticks of the other are not lost");
    bed.execute("update schedules set paused = true where name = 'sound'").await;
    let second = Duration::from_secs(1);
    for longest in [second, 2 * second] {
        for _ in 0..5 {
            let Fired { schedules, next_in } = round().await;
            let rest = next_in.expect("it is tried again");
            assert!(schedules == 0 && rest > longest / 4 && rest <= longest, "{rest:?} of {longest:?}");
        }
        if longest == second {
            tokio::time::sleep(second).await;
        }
    }

    // Whoever changes it need not wait.
    bed.execute(
        "update schedules set args = '{\"n\": 1}', row_version = row_version + 1 where name = 'broken'",
    )
    .await;
    assert_eq!(round().await.schedules, 1);
    let broken = get(&bed, broken.id).await;
    assert!(broken.last_job.is_some() && broken.next_at > broken.last_fire_at);
    assert!(fired(&bed, "fired").await >= 8, "by its policy, every time since");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_went_back_fires_nothing_twice() {
    let bed = new_bed().await;
    create(&bed, save("s")).await.expect("made");
    set_back(&bed, 5).await;
    fire_due(&bed.queue, &schedules()).await.expect("fired");
    assert_eq!(fired(&bed, "fired").await, 6);
    // As if a restored backup had brought the old times back: the ledger decides.
    set_back(&bed, 5).await;
    fire_due(&bed.queue, &schedules()).await.expect("fired");
    assert_eq!((fired(&bed, "fired").await, bed.number("select count(*) from jobs").await), (6, 6));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unfinished_job_holds_up_the_next() {
    let bed = new_bed().await;
    create(&bed, SaveSchedule { overlap: Overlap::Skip, ..save("s") }).await.expect("made");
    set_back(&bed, 3).await;
    fire_due(&bed.queue, &schedules()).await.expect("fired");
    assert_eq!((fired(&bed, "fired").await, fired(&bed, "skipped").await), (1, 3));
    bed.execute("update jobs set state = 'succeeded'; delete from job_fires").await;
    set_back(&bed, 0).await;
    fire_due(&bed.queue, &schedules()).await.expect("fired");
    assert_eq!((fired(&bed, "fired").await, fired(&bed, "skipped").await), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_caught_up_is_counted() {
    let bed = new_bed().await;
    let made = create(&bed, SaveSchedule { catch_up: CatchUp::One, ..save("s") }).await.expect("made");
    set_back(&bed, 30).await;
    fire_due(&bed.queue, &schedules()).await.expect("fired");
    assert_eq!((fired(&bed, "fired").await, fired(&bed, "missed").await), (1, 30));
    assert_eq!(get(&bed, made.id).await.missed_count, 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_schedule_misses_nothing_and_goes_on_from_now() {
    let bed = new_bed().await;
    let made = create(&bed, save("s")).await.expect("made");
    let mut tx = begin(&bed);
    let paused = schedule::pause(&mut tx, Some(bed.tenant), made.id).await.expect("paused");
    tx.commit().await.expect("committed");
    assert_eq!((paused.paused, paused.next_at), (true, None));
    fire_due(&bed.queue, &schedules()).await.expect("looked");
    let mut tx = begin(&bed);
    let run = schedule::run_now(&mut tx, &schedules(), Some(bed.tenant), made.id).await.expect("ran");
    let resumed = schedule::resume(&mut tx, Some(bed.tenant), made.id).await.expect("resumed");
    tx.commit().await.expect("committed");
    assert!(resumed.next_at.is_some() && resumed.missed_count == 0);
    assert_eq!(bed.job(run.id).await["creator_type"], json!("schedule"));
    assert_eq!((fired(&bed, "manual").await, fired(&bed, "fired").await), (1, 0));

    let mut tx = begin(&bed);
    let foreign = schedule::pause(&mut tx, Some(TenantId::new()), made.id).await;
    assert!(matches!(foreign, Err(ScheduleError::NotFound)));
    let changed = SaveSchedule { cron: "0 0 1 1 *".into(), jitter: Duration::from_secs(60), ..save("t") };
    let changed =
        schedule::update(&mut tx, &schedules(), Some(bed.tenant), made.id, changed).await.expect("changed");
    assert!(changed.name == "t" && changed.next_at > resumed.next_at);
    schedule::delete(&mut tx, Some(bed.tenant), made.id).await.expect("deleted");
    tx.commit().await.expect("committed");
}

#[tokio::test(flavor = "multi_thread")]
async fn built_in_schedules_are_declared_once_and_reach_every_tenant() {
    let bed = new_bed().await;
    for n in 0..3 {
        tenant(&bed, TenantId::new(), &format!("t{n}")).await;
    }
    bed.execute("update tenants set active = false where slug = 't2'").await;
    let mut conn = bed.queue.read().await.expect("a connection");
    for _ in 0..2 {
        schedule::declare(&mut conn, schedules().built_in()).await.expect("declared");
    }
    let list = schedule::list(&mut conn, Some(bed.tenant), None, 10).await.expect("read");
    assert_eq!(list.len(), 2);
    assert!(list.iter().all(|schedule| schedule.built_in && schedule.tenant == PLATFORM));
    assert_eq!(list[0].row_version, 1, "nothing changed at the second start");

    let mut tx = begin(&bed);
    let refused = schedule::pause(&mut tx, Some(bed.tenant), list[0].id).await;
    assert!(matches!(refused, Err(ScheduleError::BuiltIn)));
    let refused = schedule::delete(&mut tx, None, list[0].id).await;
    assert!(matches!(refused, Err(ScheduleError::BuiltIn)));
    tx.rollback().await.expect("rolled back");

    set_back(&bed, 0).await;
    bed.execute("update schedules set next_at = now() - interval '1 s', fire_at = now() - interval '1 s'")
        .await;
    fire_due(&bed.queue, &schedules()).await.expect("fired");
    // One of the platform, one for each active tenant; all of them under their own tenant.
    assert_eq!(bed.number("select count(*) from jobs").await, 4);
    assert_eq!(bed.number("select count(distinct tenant_id) from jobs").await, 4);

    // A scheduler that knows none of them leaves them alone.
    bed.execute("update schedules set next_at = now() - interval '1 s', fire_at = now() - interval '1 s'")
        .await;
    let older = Schedules::new(Registry::new(), []);
    let round = fire_due(&bed.queue, &older).await.expect("looked");
    assert_eq!((round.schedules, round.next_in), (0, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fires_at_start_does_so_once_and_then_at_its_times() {
    let bed = new_bed().await;
    let (new_year, nothing) = ("0 0 1 1 *", json!({ "what": "Nothing" }));
    let built_in = [
        BuiltIn::cron::<Sweep>("Sweep at start", new_year).at_start(),
        BuiltIn::cron::<Act>("Act in the new year", new_year).with_args(nothing),
    ];
    let schedules = Schedules::new(schedules().registry().clone(), built_in);
    let starts = async || {
        let mut conn = bed.queue.read().await.expect("a connection");
        schedule::declare(&mut conn, schedules.built_in()).await.expect("declared");
        drop(conn);
        let first = fire_due(&bed.queue, &schedules).await.expect("fired").schedules;
        assert_eq!(fire_due(&bed.queue, &schedules).await.expect("fired").schedules, 0);
        first
    };
    assert_eq!(starts().await, 1);
    assert_eq!(bed.number("select count(*) from jobs where kind = 'test.sweep'").await, 1);
    let at_their_time =
        "select count(*) from schedules where to_char(next_at at time zone 'UTC', 'MMDDHH24MI') = '01010000'";
    assert_eq!(bed.number(at_their_time).await, 2);
    bed.execute("update jobs set state = 'succeeded'; delete from job_keys").await;
    assert_eq!(starts().await, 0, "another scheduler of the same start");
    bed.execute("update schedules set last_fire_at = last_fire_at - interval '2 min'").await;
    assert_eq!(starts().await, 1, "a later start");
    bed.execute(
        "update jobs set state = 'succeeded'; delete from job_keys;
         update schedules set last_fire_at = last_fire_at - interval '2 min', paused = true, next_at = null, fire_at = null",
    )
    .await;
    assert_eq!(starts().await, 0, "paused is paused");
}
