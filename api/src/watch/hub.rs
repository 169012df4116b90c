//! Who watches what, and what they were last told. All of it is memory; nothing here waits.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use streamspace_common::{JobId, TenantId};
use streamspace_domain::{
    callers::{Checked, Credential},
    identity::{Permission, Require},
    jobs,
};
use streamspace_queue::inspect::{JobRow, Scope};
use uuid::Uuid;

use super::{
    Interest,
    change::{Change, Known},
    client::{Client, Ended, Inbox, size},
};
use crate::problem::ApiError;

/// Streams that one person, or one key of a tenant, may have open in this process.
const MOST_PER_HOLDER: usize = 20;
/// Jobs whose last state is remembered for clients that watch all of a tenant's.
const MOST_KNOWN: usize = 20_000;

#[derive(Default)]
pub(super) struct Hub(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    next_id: u64,
    clients: HashMap<u64, Watching>,
    by_job: HashMap<JobId, HashSet<u64>>,
    /// Clients that watch many jobs.
    wide: HashSet<u64>,
    open: HashMap<Uuid, usize>,
    known: HashMap<JobId, Known>,
}

struct Watching {
    holder: Uuid,
    checked: Arc<Checked>,
    area: &'static str,
    interest: Interest,
    inbox: Arc<Inbox>,
    since: Instant,
}

/// What the net has to look at.
#[derive(Default)]
pub(super) struct Watched {
    pub credentials: HashSet<Credential>,
    /// With the versions that were handed out; `None` for one that was not read yet.
    pub jobs: HashMap<JobId, Option<i64>>,
    /// Whose new jobs are watched. `None`: all tenants'.
    pub tenants: Option<HashSet<TenantId>>,
    pub wide: bool,
}

impl Hub {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("no panic while it was held")
    }

    pub fn open(
        self: &Arc<Self>,
        checked: Arc<Checked>,
        interest: Interest,
        area: &'static str,
    ) -> Result<Client, ApiError> {
        let mut inner = self.lock();
        // A person's streams count together, whichever key opened them.
        let holder = match (checked.actor.user, checked.credential) {
            (Some(user), _) => user.0,
            (None, Credential::Key(key)) => key.0,
            (None, Credential::SignIn(sign_in)) => sign_in.0,
        };
        let open = inner.open.entry(holder).or_default();
        if *open >= MOST_PER_HOLDER {
            return Err(ApiError::too_many(
                "too-many-streams",
                "Too many streams",
                format!("{MOST_PER_HOLDER} streams of yours are open; close one first"),
                Duration::from_secs(5),
            ));
        }
        *open += 1;
        inner.next_id += 1;
        let id = inner.next_id;
        match &interest {
            Interest::Job(job) => drop(inner.by_job.entry(*job).or_default().insert(id)),
            Interest::Jobs { .. } => drop(inner.wide.insert(id)),
        }
        let inbox = Arc::new(Inbox::default());
        let interested = interest.clone();
        let since = Instant::now();
        let watching = Watching { holder, checked, area, interest: interested, inbox: inbox.clone(), since };
        inner.clients.insert(id, watching);
        Ok(Client { id, inbox, interest, hub: Arc::downgrade(self) })
    }

    pub fn leave(&self, id: u64) {
        self.lock().leave(id);
    }

    pub fn has_read(&self, row: &JobRow) {
        self.lock().known.entry(row.id).or_insert_with(|| row.into());
    }

    /// Whether anybody would hear of this version.
    pub fn is_news(&self, job: JobId, version: i64) -> bool {
        let inner = self.lock();
        let watched = !inner.wide.is_empty() || inner.by_job.contains_key(&job);
        watched && inner.known.get(&job).is_none_or(|known| known.version < version)
    }

    pub fn watched(&self) -> Watched {
        let mut inner = self.lock();
        let wide = !inner.wide.is_empty();
        inner.forget(wide);
        let version = |job: &JobId| inner.known.get(job).map(|known| known.version);
        let mut jobs: HashMap<_, _> = inner.by_job.keys().map(|job| (*job, version(job))).collect();
        if wide {
            let unfinished = inner.known.iter().filter(|(_, known)| !known.state.is_terminal());
            jobs.extend(unfinished.map(|(job, known)| (*job, Some(known.version))));
        }
        let mut tenants = Some(HashSet::new());
        for watching in inner.wide.iter().filter_map(|id| inner.clients.get(id)) {
            match (jobs::scope(&watching.checked.actor).tenant(), &mut tenants) {
                (Some(tenant), Some(tenants)) => drop(tenants.insert(tenant)),
                _ => tenants = None,
            }
        }
        let credentials = inner.clients.values().map(|watching| watching.checked.credential).collect();
        Watched { credentials, jobs, tenants, wide }
    }

    /// Hands out a version that is new to the clients that may see it; answers whether a client's
    /// buffer fills.
    pub fn hand_out(&self, row: JobRow) -> bool {
        self.lock().hand_out(row)
    }

    /// Whether a client that takes what it gets has half of what it may have in its buffer.
    pub fn is_crowded(&self) -> bool {
        self.lock().clients.values().any(|watching| watching.inbox.is_crowded())
    }

    /// Until they take something.
    pub fn give_up_on_the_crowded(&self) {
        self.lock().clients.values().for_each(|watching| watching.inbox.give_up_if_crowded());
    }

    /// The rows are gone: whoever watched one of them has nothing to wait for.
    pub fn gone(&self, jobs: &[JobId]) {
        let mut inner = self.lock();
        for job in jobs {
            inner.known.remove(job);
            let ids: Vec<_> = inner.by_job.get(job).into_iter().flatten().copied().collect();
            ids.iter()
                .filter_map(|id| inner.clients.get(id))
                .for_each(|client| client.inbox.end(Ended::Gone));
        }
    }

    /// Who may still watch, and as whom; the others end.
    ///
    /// Of those who opened after `asked` nothing was asked yet.
    pub fn recheck(&self, still: &HashMap<Credential, Arc<Checked>>, asked: Instant) {
        for watching in self.lock().clients.values_mut().filter(|watching| watching.since <= asked) {
            let end = watching.checked.expires_at;
            let still = still.get(&watching.checked.credential).filter(|now| may_watch(now, watching.area));
            match still.filter(|_| end.is_none_or(|end| end > Timestamp::now())) {
                // The token that opened it ends it, however long its sign-in goes on.
                Some(now) => watching.checked = Arc::new(Checked { expires_at: end, ..(**now).clone() }),
                None => watching.inbox.end(Ended::Revoked),
            }
        }
    }

    pub fn end_all(&self, why: Ended) {
        self.lock().clients.values().for_each(|watching| watching.inbox.end(why));
    }
}

fn may_watch(checked: &Checked, area: &str) -> bool {
    !checked.must_enrol
        && checked.actor.require(Permission::JobsRead).is_ok()
        && checked.scopes.allow(area, false)
}

/// The same question that the statements ask, of a row that is already here.
fn includes(scope: Scope, row: &JobRow) -> bool {
    match scope {
        Scope::Installation => true,
        Scope::Tenant(tenant) => row.tenant == tenant,
        Scope::User(tenant, user) => row.tenant == tenant && row.user == Some(user),
        Scope::Creator(tenant, creator) => row.tenant == tenant && row.creator.columns().1 == Some(creator),
    }
}

impl Inner {
    fn hand_out(&mut self, row: JobRow) -> bool {
        let previous = self.known.get(&row.id).cloned();
        if previous.as_ref().is_some_and(|known| known.version >= row.row_version) {
            return false;
        }
        self.known.insert(row.id, Known::from(&row));
        let of_job = self.by_job.get(&row.id).into_iter().flatten();
        let clients: Vec<u64> = of_job.chain(&self.wide).copied().collect();
        let change = Arc::new(Change::new(row, previous));
        let mut crowded = false;
        for id in clients {
            let Some(watching) = self.clients.get(&id) else { continue };
            let wanted = match &watching.interest {
                Interest::Jobs { kind: Some(kind) } => *kind == change.row.kind,
                Interest::Jobs { kind: None } | Interest::Job(_) => true,
            };
            if !wanted || !includes(jobs::scope(&watching.checked.actor), &change.row) {
                continue;
            }
            let size = size(&watching.interest, &change);
            if watching.inbox.push(&change, size) {
                crowded |= watching.inbox.is_crowded();
            } else {
                // Its place is free once its connection has ended: who never reads cannot open more.
                self.unsubscribe(id);
            }
        }
        crowded
    }

    fn unsubscribe(&mut self, id: u64) {
        self.wide.remove(&id);
        if let Some(Interest::Job(job)) = self.clients.get(&id).map(|watching| &watching.interest)
            && let Some(clients) = self.by_job.get_mut(job)
        {
            clients.remove(&id);
            if clients.is_empty() {
                self.by_job.remove(job);
            }
        }
    }

    fn leave(&mut self, id: u64) {
        self.unsubscribe(id);
        let Some(watching) = self.clients.remove(&id) else { return };
        if let Some(open) = self.open.get_mut(&watching.holder) {
            *open -= 1;
            if *open == 0 {
                self.open.remove(&watching.holder);
            }
        }
    }

    /// What nobody watches, and of what many watch the oldest that is over.
    fn forget(&mut self, wide: bool) {
        let by_job = &self.by_job;
        if !wide {
            self.known.retain(|job, _| by_job.contains_key(job));
        }
        if self.known.len() > MOST_KNOWN {
            self.known.retain(|job, known| by_job.contains_key(job) || !known.state.is_terminal());
        }
        if self.known.len() > MOST_KNOWN {
            let mut ids: Vec<_> = self.known.keys().copied().collect();
            ids.sort_unstable();
            for old in &ids[..ids.len() - MOST_KNOWN] {
                self.known.remove(old);
            }
        }
    }
}
