//! Whatever handlers say and operators do, in whatever order: a job only moves as [`State`] says it
//! may, and what must hold of a row holds after each move. A trigger writes all moves down.

use std::{sync::Arc, time::Duration};

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use serde::{Deserialize, Serialize};
use streamspace_common::{Actor, JobId};
use streamspace_queue::{
    Attempt, Backoff, Done, Failure, Job, Options, Registry, Request, Slot, State, Unique,
    control::{self, ControlError},
    inspect::Scope,
    seconds,
};
use streamspace_testkit::eventually;

use crate::bed::{Bed, quick};

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Say {
    Done,
    Commit,
    Retry,
    Permanent,
    Snooze,
    Park,
    Panic,
    Linger,
}

/// Says one thing each time that it runs, then that it is done.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Script {
    lines: Vec<Say>,
    keyed: bool,
    unique: bool,
}

impl Job for Script {
    const KIND: &'static str = "test.script";
    const QUEUE: &'static str = "test";
    const ATTEMPTS: i32 = 3;
    const TIMEOUT: Duration = seconds(2);
    const BACKOFF: Backoff = Backoff { first: Duration::from_millis(5), cap: Duration::from_millis(20) };
    type Ctx = ();

    fn slots(&self) -> Vec<Slot> {
        if self.keyed { vec![Slot::per_tenant("one", 1)] } else { Vec::new() }
    }

    fn unique(&self) -> Option<Unique> {
        self.unique.then(|| Unique::until_finished("only"))
    }

    async fn run(self, (): &(), attempt: &Attempt) -> Result<Done, Failure> {
        let line = attempt.checkpoint::<usize>().unwrap_or(0);
        attempt.set_checkpoint(line + 1).await?;
        match self.lines.get(line).copied().unwrap_or(Say::Done) {
            Say::Done => Ok(Done::with(line)),
            Say::Commit => attempt.commit(async |_| Ok::<_, sqlx::Error>(line)).await,
            Say::Retry => Err(Failure::retry("again")),
            Say::Permanent => Err(Failure::permanent("never")),
            Say::Snooze => Err(Failure::Snooze(Duration::from_millis(5))),
            Say::Park => Err(Failure::Park { event: "e".into(), timeout: Duration::from_millis(20) }),
            Say::Panic => panic!("on purpose"),
            Say::Linger => {
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_millis(30)) => Ok(Done::nothing()),
                    () = attempt.cancel.cancelled() => Err(Failure::Cancelled),
                }
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Act {
    Enqueue(Script, u8),
    Cancel(usize),
    Retry(usize),
    Happen,
    Pause(u8),
}

fn say() -> impl Strategy<Value = Say> {
    prop_oneof![
        Just(Say::Done),
        Just(Say::Commit),
        Just(Say::Retry),
        Just(Say::Permanent),
        Just(Say::Snooze),
        Just(Say::Park),
        Just(Say::Panic),
        Just(Say::Linger),
    ]
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let script = (proptest::collection::vec(say(), 0..5), any::<bool>(), proptest::bool::weighted(0.3))
        .prop_map(|(lines, keyed, unique)| Script { lines, keyed, unique });
    let act = prop_oneof![
        4 => (script, 0..3u8).prop_map(|(script, delay)| Act::Enqueue(script, delay)),
        3 => (0..20usize).prop_map(Act::Cancel),
        3 => (0..20usize).prop_map(Act::Retry),
        1 => Just(Act::Happen),
        4 => (1..25u8).prop_map(Act::Pause),
    ];
    proptest::collection::vec(act, 5..40)
}

/// Every move of every row, and whether what must hold of a row held.
const WATCH: &str = "
    create table moves (n bigserial, job uuid, before text, after text, sound boolean, rising boolean);
    create function watch() returns trigger language plpgsql as $$
    begin
        insert into moves (job, before, after, sound, rising) values (new.id, old.state::text, new.state::text,
            (new.state = 'running') = (new.boot_id is not null)
            and (new.state in ('succeeded', 'failed', 'cancelled')) = (new.finished_at is not null)
            and (new.state = 'blocked') = (new.blocked_on is not null)
            and (new.state <> 'parked' or new.park_key is not null)
            and new.attempt between 0 and new.max_attempts,
            new.fence >= old.fence and new.row_version >= old.row_version
            and (new.state = old.state or new.row_version > old.row_version)
            and (new.state <> 'running' or old.state = 'running' or new.fence > old.fence)
            and (old.state <> 'running' or new.state = 'running' or new.fence > old.fence));
        return new;
    end $$;
    create trigger watch after update on jobs for each row execute function watch()";

async fn perform(bed: &Bed, acts: &[Act]) -> Vec<JobId> {
    let scope = Scope::Tenant(bed.tenant);
    let mut jobs = Vec::new();
    for act in acts {
        let mut tx = bed.queue.begin(Actor::system(bed.tenant), Request::default());
        let known = |n: usize| jobs.get(n % jobs.len().max(1)).copied();
        match act {
            Act::Enqueue(script, delay) => {
                let delay = (*delay > 0).then(|| Duration::from_millis(u64::from(*delay) * 7));
                let options = Options { delay, ..Options::default() };
                let enqueued = streamspace_queue::enqueue_with(&mut tx, script.clone(), options).await;
                jobs.push(enqueued.expect("enqueued").id);
            }
            Act::Cancel(n) => {
                if let Some(id) = known(*n) {
                    control::cancel(&mut tx, scope, id).await.expect("cancelled");
                }
            }
            Act::Retry(n) => {
                if let Some(id) = known(*n) {
                    match control::retry(&mut tx, scope, id).await {
                        Ok(_) | Err(ControlError::NotRetryable(_) | ControlError::KeyHeld { .. }) => {}
                        Err(error) => panic!("{error:?}"),
                    }
                }
            }
            Act::Happen => tx.happened("e"),
            Act::Pause(ms) => tokio::time::sleep(Duration::from_millis(u64::from(*ms))).await,
        }
        tx.commit().await.expect("committed");
    }
    jobs
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_move_only_as_they_may() {
    let bed = Bed::new().await;
    bed.execute(WATCH).await;
    let registry = Registry::new().register::<Script>(Arc::new(()));
    let worker = bed.worker_of(bed.queue.clone(), registry, quick());
    let handle = tokio::runtime::Handle::current();
    tokio::task::block_in_place(|| {
        let mut runner = TestRunner::new(Config { cases: 30, max_shrink_iters: 20, ..Config::default() });
        let checked = runner.run(&acts(), |acts| {
            handle.block_on(async {
                bed.execute("truncate moves").await;
                perform(&bed, &acts).await;
                let unfinished =
                    "select count(*) from jobs where state not in ('succeeded', 'failed', 'cancelled')";
                eventually(Duration::from_secs(20), "all jobs are over", async || {
                    (bed.number(unfinished).await == 0).then_some(())
                })
                .await;
                check(&bed).await
            })
        });
        if let Err(error) = checked {
            panic!("{error}");
        }
    });
    worker.stop().await;
}

async fn check(bed: &Bed) -> Result<(), TestCaseError> {
    let moves: Vec<(String, String, bool, bool)> =
        sqlx::query_as("select before, after, sound, rising from moves order by n")
            .fetch_all(bed.queue.db().pool())
            .await
            .expect("read");
    let state = |name: &str| State::ALL.into_iter().find(|state| state.as_str() == name).expect("a state");
    for (before, after, sound, rising) in moves {
        let (from, to) = (state(&before), state(&after));
        prop_assert!(from == to || from.may_become(to), "{before} became {after}");
        prop_assert!(sound, "a row that became {after} from {before} is not sound");
        prop_assert!(rising, "fence or version did not rise from {before} to {after}");
    }
    for left in ["select count(*) from job_slots", "select count(*) from job_keys"] {
        prop_assert_eq!(bed.number(left).await, 0, "{}", left);
    }
    Ok(())
}

proptest! {
    /// It doubles, stays within the upper half of its range, and never passes its cap.
    #[test]
    fn backoff_grows_within_its_bounds(
        first_ms in 1..10_000u64, cap_ms in 1..10_000_000u64, attempt in 1..2_000i32, spread in 0.0..1.0f64,
    ) {
        let backoff = Backoff { first: Duration::from_millis(first_ms), cap: Duration::from_millis(cap_ms) };
        let wait = backoff.wait(attempt, spread);
        prop_assert!(wait <= backoff.cap);
        prop_assert!(wait >= backoff.wait(attempt, 0.0));
        prop_assert!(wait * 2 >= backoff.wait(attempt, 1.0));
        prop_assert!(backoff.wait(attempt + 1, spread) >= wait);
    }
}
