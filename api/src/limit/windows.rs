//! Who has asked how often, in a window of time that begins with the first request.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::BuildHasher,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use uuid::Uuid;

const SHARDS: usize = 16;

/// The windows of one kind of subjects, a bounded number. When there is no room for another one, those
/// that are over go, and if that is not enough the least used eighth: whoever was counted there begins
/// anew, with the fewest requests gained. A stranger with any number of addresses so drives out
/// addresses that asked once, never those that a limit holds back.
#[derive(Debug)]
pub(super) struct Windows {
    period: Duration,
    most: usize,
    shards: [Mutex<HashMap<u128, Window>>; SHARDS],
    hash: RandomState,
    /// The next window's id: counted from a random number on, so that no two processes have the same.
    next: AtomicU64,
    /// With which shard telling begins.
    turn: AtomicUsize,
}

#[derive(Debug)]
struct Window {
    id: u64,
    ends: Instant,
    /// Let through by this process.
    own: u32,
    /// By the others, as far as they have told.
    others: u32,
    /// What the others were told of `own`.
    told: u32,
}

/// What came of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    pub used: u32,
    pub resets_in: Duration,
    pub allowed: bool,
}

/// What this process let through in a window and the others do not know.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Untold {
    pub subject: u128,
    pub window: u64,
    pub own: u32,
    pub left: Duration,
}

impl Windows {
    pub fn new(period: Duration, most: usize) -> Self {
        Self {
            period,
            most: most.div_ceil(SHARDS),
            shards: Default::default(),
            hash: RandomState::new(),
            next: AtomicU64::new(Uuid::new_v4().as_u64_pair().1),
            turn: AtomicUsize::new(0),
        }
    }

    pub fn take(&self, subject: u128, limit: u32, now: Instant) -> Taken {
        let mut windows = self.shard(subject);
        if windows.len() >= self.most && !windows.contains_key(&subject) {
            make_room(&mut windows, self.most, now);
        }
        let window = windows.entry(subject).or_insert_with(|| self.open(now));
        if window.is_over(now) {
            *window = self.open(now);
        }
        let allowed = window.used() < limit;
        if allowed {
            window.own += 1;
        }
        Taken { used: window.used(), resets_in: window.ends.duration_since(now), allowed }
    }

    pub fn forget(&self, now: Instant) {
        for shard in &self.shards {
            lock(shard).retain(|_, window| !window.is_over(now));
        }
    }

    /// What is to be told, at most so much: the rest has its turn the next time.
    pub fn untold(&self, most: usize, now: Instant) -> Vec<Untold> {
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut untold = Vec::new();
        for n in 0..SHARDS {
            let room = most - untold.len();
            let windows = lock(&self.shards[first.wrapping_add(n) % SHARDS]);
            let found =
                windows.iter().filter(|(_, window)| window.own != window.told && !window.is_over(now));
            untold.extend(found.take(room).map(|(&subject, window)| Untold {
                subject,
                window: window.id,
                own: window.own,
                left: window.ends - now,
            }));
        }
        untold
    }

    /// What all processes together let through, and when it is forgotten, after they were told of `told`.
    pub fn hear(&self, told: &Untold, used: u32, left: Duration, now: Instant) {
        let mut windows = self.shard(told.subject);
        if let Some(window) = windows.get_mut(&told.subject).filter(|window| window.id == told.window) {
            window.told = told.own;
            window.others = used.saturating_sub(told.own);
            window.ends = now + left.min(self.period);
        }
    }

    /// Whoever was told may have forgotten it.
    pub fn tell_again(&self) {
        for shard in &self.shards {
            lock(shard).values_mut().for_each(|window| window.told = 0);
        }
    }

    fn open(&self, now: Instant) -> Window {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        Window { id, ends: now + self.period, own: 0, others: 0, told: 0 }
    }

    fn shard(&self, subject: u128) -> MutexGuard<'_, HashMap<u128, Window>> {
        // Nobody can choose addresses that meet in one shard.
        lock(&self.shards[self.hash.hash_one(subject) as usize % SHARDS])
    }
}

impl Window {
    fn is_over(&self, now: Instant) -> bool {
        now >= self.ends
    }

    fn used(&self) -> u32 {
        self.own.saturating_add(self.others)
    }
}

fn lock(shard: &Mutex<HashMap<u128, Window>>) -> MutexGuard<'_, HashMap<u128, Window>> {
    shard.lock().expect("no panic while it was held")
}

/// An eighth at a time, so that a flood does not look at every window for each new one. Of those that
/// are used alike the ones go that end soonest.
fn make_room(windows: &mut HashMap<u128, Window>, most: usize, now: Instant) {
    windows.retain(|_, window| !window.is_over(now));
    let leave = (windows.len() + most.div_ceil(8)).saturating_sub(most);
    if leave == 0 {
        return;
    }
    let mut least: Vec<_> = windows.iter().map(|(subject, w)| (w.used(), w.ends, *subject)).collect();
    least.select_nth_unstable(leave - 1);
    for (_, _, subject) in &least[..leave] {
        windows.remove(subject);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    impl Windows {
        fn len(&self) -> usize {
            self.shards.iter().map(|shard| lock(shard).len()).sum()
        }

        fn used(&self, subject: u128) -> Option<u32> {
            self.shard(subject).get(&subject).map(Window::used)
        }
    }

    #[test]
    fn a_window_that_is_over_is_forgotten_and_no_other() {
        let (windows, start) = (Windows::new(MINUTE, 100), Instant::now());
        windows.take(1, 2, start);
        windows.take(2, 2, start + MINUTE / 2);
        windows.forget(start + MINUTE);
        assert_eq!((windows.used(1), windows.used(2)), (None, Some(1)));
    }

    #[test]
    fn at_the_cap_those_go_that_asked_least() {
        const MOST: usize = 50 * SHARDS;
        let (windows, now) = (Windows::new(MINUTE, MOST), Instant::now());
        let held_back = 0..SHARDS as u128;
        for subject in held_back.clone() {
            while windows.take(subject, 5, now).allowed {}
        }
        for stranger in 1_000..101_000 {
            assert!(windows.take(stranger, 5, now).allowed);
            assert!(windows.len() <= MOST);
        }
        for subject in held_back {
            assert!(!windows.take(subject, 5, now).allowed, "{subject} is still held back");
        }
        // A shard keeps seven eighths of what it may hold.
        assert!(windows.len() >= MOST * 3 / 4, "{}", windows.len());
    }

    #[test]
    fn at_the_cap_those_go_first_that_are_over() {
        let (windows, start) = (Windows::new(MINUTE, 50 * SHARDS), Instant::now());
        for old in 0..10_000 {
            windows.take(old, 5, start);
            windows.take(old, 5, start);
        }
        let later = start + MINUTE;
        for new in 10_000..10_000 + 20 * SHARDS as u128 {
            windows.take(new, 5, later);
        }
        assert!((10_000..10_000 + 20 * SHARDS as u128).all(|new| windows.used(new) == Some(1)));
    }

    #[test]
    fn what_others_let_through_counts() {
        let (windows, now) = (Windows::new(MINUTE, 100), Instant::now());
        windows.take(1, 10, now);
        windows.take(1, 10, now);
        let [told] = windows.untold(100, now)[..] else { panic!("one is to be told") };
        assert_eq!((told.subject, told.own, told.left), (1, 2, MINUTE));
        windows.take(1, 10, now);
        windows.hear(&told, 8, MINUTE / 2, now);
        assert_eq!(windows.used(1), Some(9), "6 of others, and 3 here");
        let taken = windows.take(1, 10, now);
        assert!(taken.allowed && taken.resets_in == MINUTE / 2);
        assert!(!windows.take(1, 10, now).allowed);
        let [again] = windows.untold(100, now)[..] else { panic!("there is news") };
        assert_eq!((again.window, again.own), (told.window, 4), "the whole, so that it may be told twice");
        windows.hear(&again, 10, MINUTE / 2, now);
        assert!(windows.untold(100, now).is_empty());
        windows.tell_again();
        assert_eq!(windows.untold(100, now).len(), 1);
        assert!(windows.untold(100, now + MINUTE).is_empty(), "it is over");
    }

    #[test]
    fn an_answer_is_about_the_window_that_was_told_of() {
        let (windows, now) = (Windows::new(MINUTE, 100), Instant::now());
        windows.take(1, 10, now);
        let [told] = windows.untold(100, now)[..] else { panic!("one is to be told") };
        windows.take(1, 10, now + MINUTE);
        windows.hear(&told, 10, MINUTE, now + MINUTE);
        assert_eq!(windows.used(1), Some(1));
    }

    #[test]
    fn what_does_not_fit_is_told_the_next_time() {
        let (windows, now) = (Windows::new(MINUTE, 1_000), Instant::now());
        for subject in 0..100 {
            windows.take(subject, 10, now);
        }
        let mut told = 0;
        for _ in 0..4 {
            let untold = windows.untold(30, now);
            untold.iter().for_each(|one| windows.hear(one, one.own, MINUTE, now));
            told += untold.len();
        }
        assert_eq!(told, 100);
    }
}
