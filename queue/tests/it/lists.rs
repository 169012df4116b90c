//! Lists and their cursors, over jobs of every sort.

use std::{collections::BTreeSet, time::Duration};

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use streamspace_common::{JobId, TenantId, UserId};
use streamspace_queue::{
    State,
    inspect::{self, Filter, Scope},
};
use uuid::Uuid;

use crate::bed::Bed;

const STATES: [State; 10] = State::ALL;

#[derive(Clone, Debug)]
struct Made {
    tenant: usize,
    user: Option<usize>,
    state: State,
    kind: usize,
    parent: bool,
}

fn made() -> impl Strategy<Value = Made> {
    (0..2usize, proptest::option::of(0..2usize), 0..STATES.len(), 0..2usize, any::<bool>()).prop_map(
        |(tenant, user, state, kind, parent)| Made { tenant, user, state: STATES[state], kind, parent },
    )
}

#[derive(Clone, Debug)]
struct Asked {
    tenant: Option<usize>,
    user: Option<usize>,
    filtered: Option<usize>,
    states: BTreeSet<usize>,
    kind: Option<usize>,
    children: bool,
    limit: u32,
}

fn asked() -> impl Strategy<Value = Asked> {
    (
        proptest::option::of(0..2usize),
        proptest::option::of(0..2usize),
        proptest::option::of(0..2usize),
        proptest::collection::btree_set(0..STATES.len(), 0..3),
        proptest::option::of(0..2usize),
        any::<bool>(),
        1..7u32,
    )
        .prop_map(|(tenant, user, filtered, states, kind, children, limit)| Asked {
            tenant,
            user,
            filtered,
            states,
            kind,
            children,
            limit,
        })
}

struct World {
    bed: Bed,
    tenants: [TenantId; 2],
    users: [UserId; 2],
    parent: JobId,
}

impl World {
    async fn fill(&self, jobs: &[Made]) -> Vec<(JobId, Made)> {
        sqlx::query("truncate jobs").execute(self.bed.queue.db().pool()).await.expect("truncated");
        let mut stored = Vec::new();
        for job in jobs {
            let id = JobId::new();
            sqlx::query(
                "insert into jobs (id, tenant_id, run_at, order_at, created_at, release, timeout_ms, max_attempts, state,
                                   kind, queue, lane, parent_id, user_id, creator_type, args)
                 values ($1, $2, now(), now(), now(), 1, 1, 1, $3::job_state, $4, 'test', 'test', $5, $6, 'system', '{}')",
            )
            .bind(id.0)
            .bind(self.tenants[job.tenant].0)
            .bind(job.state.as_str())
            .bind(format!("test.{}", job.kind))
            .bind(job.parent.then_some(self.parent.0))
            .bind(job.user.map(|user| self.users[user].0))
            .execute(self.bed.queue.db().pool())
            .await
            .expect("inserted");
            stored.push((id, job.clone()));
        }
        stored
    }

    fn scope(&self, asked: &Asked) -> Scope {
        match (asked.tenant, asked.user) {
            (None, _) => Scope::Installation,
            (Some(tenant), None) => Scope::Tenant(self.tenants[tenant]),
            (Some(tenant), Some(user)) => Scope::User(self.tenants[tenant], self.users[user]),
        }
    }

    async fn pages(&self, asked: &Asked) -> Vec<Uuid> {
        let filter = Filter {
            states: asked.states.iter().map(|state| STATES[*state].public()).collect(),
            kind: asked.kind.map(|kind| format!("test.{kind}")),
            parent: asked.children.then_some(self.parent),
            user: asked.filtered.map(|user| self.users[user]),
            ..Filter::default()
        };
        let mut conn = self.bed.queue.read().await.expect("a connection");
        let (mut after, mut all) = (None, Vec::new());
        loop {
            let page = inspect::list(&mut conn, self.scope(asked), &filter, after, asked.limit)
                .await
                .expect("a page");
            assert!(page.jobs.len() <= asked.limit as usize);
            all.extend(page.jobs.iter().map(|job| job.id.0));
            match page.next {
                Some(next) => after = Some(next),
                None => return all,
            }
        }
    }
}

fn matches(asked: &Asked, job: &Made) -> bool {
    let states: BTreeSet<_> = asked.states.iter().map(|state| STATES[*state].public().as_str()).collect();
    asked.tenant.is_none_or(|tenant| tenant == job.tenant)
        && (asked.tenant.is_none() || asked.user.is_none_or(|user| job.user == Some(user)))
        && asked.filtered.is_none_or(|user| job.user == Some(user))
        && (states.is_empty() || states.contains(job.state.public().as_str()))
        && asked.kind.is_none_or(|kind| kind == job.kind)
        && (!asked.children || job.parent)
}

/// Whatever is asked, the pages together are what matches, newest first, each once.
#[tokio::test(flavor = "multi_thread")]
async fn pages_together_are_everything_once() {
    let world = World {
        bed: Bed::new().await,
        tenants: [TenantId::new(), TenantId::new()],
        users: [UserId::new(), UserId::new()],
        parent: JobId::new(),
    };
    let handle = tokio::runtime::Handle::current();
    tokio::task::block_in_place(|| {
        let mut runner = TestRunner::new(Config { cases: 24, ..Config::default() });
        let cases = (proptest::collection::vec(made(), 0..40), proptest::collection::vec(asked(), 1..6));
        let checked = runner.run(&cases, |(jobs, questions)| {
            handle.block_on(async {
                let stored = world.fill(&jobs).await;
                for asked in &questions {
                    let expected: Vec<Uuid> = stored
                        .iter()
                        .rev()
                        .filter(|(_, job)| matches(asked, job))
                        .map(|(id, _)| id.0)
                        .collect();
                    prop_assert_eq!(world.pages(asked).await, expected, "{:?}", asked);
                }
                Ok(())
            })
        });
        if let Err(error) = checked {
            panic!("{error}");
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_looks_at_a_bounded_number_of_rows_and_says_where_it_stopped() {
    let bed = Bed::new().await;
    bed.execute(
        "insert into jobs (id, tenant_id, run_at, order_at, created_at, release, timeout_ms, max_attempts, state,
                           kind, queue, lane, creator_type, args)
         select ('019a0000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid,
                '00000000-0000-0000-0000-0000000000aa', now(), now(), now(), 1, 1, 1, 'succeeded',
                case n % 5000 when 1 then 'rare' else 'common' end, 'test', 'test', 'system', '{}'
         from generate_series(0, 45000) n",
    )
    .await;
    bed.execute("analyze jobs").await;
    let scope = Scope::Tenant("00000000-0000-0000-0000-0000000000aa".parse().expect("an id"));
    let filter = Filter { kind: Some("rare".into()), ..Filter::default() };
    let mut conn = bed.queue.read().await.expect("a connection");
    let (mut after, mut pages) = (None, Vec::new());
    loop {
        let page = inspect::list(&mut conn, scope, &filter, after, 50).await.expect("a page");
        pages.push(page.jobs.len());
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    // Also the last row of each page, which is where the next one begins: 35,001, 25,001, …
    assert_eq!(pages, [2, 2, 2, 2, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_yours_does_not_exist() {
    use crate::bed::{What, act};
    let bed = Bed::new().await;
    let id = bed.enqueue(act(What::Nothing)).await;
    let mut conn = bed.queue.read().await.expect("a connection");
    for (scope, seen) in [
        (Scope::Installation, true),
        (Scope::Tenant(bed.tenant), true),
        (Scope::Tenant(TenantId::new()), false),
        (Scope::User(bed.tenant, UserId::new()), false),
        (Scope::Creator(bed.tenant, Uuid::nil()), false),
    ] {
        let got = inspect::get(&mut conn, scope, id).await.expect("read");
        assert_eq!(got.is_some(), seen, "{scope:?}");
        let many = inspect::many(&mut conn, scope, &[id]).await.expect("read");
        assert_eq!(many.len(), usize::from(seen), "{scope:?}");
        let waiting = inspect::waiting(&mut conn, scope, id).await.expect("read");
        assert_eq!(waiting.is_some(), seen, "{scope:?}");
    }
    let versions = inspect::versions(&mut conn, &[id, JobId::new()]).await.expect("read");
    assert_eq!(versions, [(id, 1)].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_new_is_new_by_the_databases_clock() {
    use crate::bed::{What, act};
    let bed = Bed::new().await;
    let made = bed.enqueue(act(What::Nothing)).await;
    // As if the host had made it half an hour ago.
    let half_an_hour = 30 * 60 * 1000;
    let id = JobId(Uuid::from_u128(made.0.as_u128() - (half_an_hour << 80)));
    sqlx::query("update jobs set id = $2 where id = $1")
        .bind(made.0)
        .bind(id.0)
        .execute(bed.queue.db().pool())
        .await
        .expect("changed");
    let mut conn = bed.queue.read().await.expect("a connection");
    for (shift, is_new) in [("-1 hour", true), ("-29 min", false), ("0", false)] {
        sqlx::query("select set_config('streamspace.clock_shift', $1, false)")
            .bind(shift)
            .execute(&mut *conn)
            .await
            .expect("shifted");
        let expected = if is_new { vec![(id, 1)] } else { vec![] };
        for tenants in [None, Some(&[TenantId::new(), bed.tenant][..])] {
            let new = inspect::made_since(&mut conn, tenants, Duration::from_secs(10)).await.expect("read");
            assert_eq!(new, expected, "{shift}");
        }
    }
}
