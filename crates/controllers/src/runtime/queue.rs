//! Keyed work queue: a key waits at most once, is worked on by one worker at a time, and comes back
//! later each time its work fails (client-go's workqueue).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::hash::Hash;
use std::time::Duration;

use parking_lot::Mutex;
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// First and longest wait after failures; each failure in a row doubles the wait.
const BACKOFF_FIRST: Duration = Duration::from_millis(5);
const BACKOFF_LONGEST: Duration = Duration::from_secs(120);

pub struct Queue<K> {
    state: Mutex<State<K>>,
    wake: Notify,
}

struct State<K> {
    ready: VecDeque<K>,
    /// Waiting in `ready`, or to go there when the work under way ends.
    dirty: FxHashSet<K>,
    working: FxHashSet<K>,
    timers: BinaryHeap<Reverse<(Instant, u64)>>,
    timed: FxHashMap<u64, K>,
    due: FxHashMap<K, (Instant, u64)>,
    next_timer: u64,
    failures: FxHashMap<K, u32>,
}

impl<K: Clone + Eq + Hash> Default for Queue<K> {
    fn default() -> Self {
        Queue {
            state: Mutex::new(State {
                ready: VecDeque::new(),
                dirty: FxHashSet::default(),
                working: FxHashSet::default(),
                timers: BinaryHeap::new(),
                timed: FxHashMap::default(),
                due: FxHashMap::default(),
                next_timer: 0,
                failures: FxHashMap::default(),
            }),
            wake: Notify::new(),
        }
    }
}

impl<K: Clone + Eq + Hash> Queue<K> {
    pub fn add(&self, key: K) {
        if self.state.lock().add(key) {
            self.wake.notify_one();
        }
    }

    /// Adds the key once `delay` is over, or earlier if an earlier time is set already.
    pub fn add_after(&self, key: K, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        let mut state = self.state.lock();
        let at = Instant::now() + delay;
        if state.due.get(&key).is_some_and(|(due, _)| *due <= at) {
            return;
        }
        let id = state.next_timer;
        state.next_timer += 1;
        if let Some((_, old)) = state.due.insert(key.clone(), (at, id)) {
            state.timed.remove(&old);
        }
        state.timed.insert(id, key);
        state.timers.push(Reverse((at, id)));
        drop(state);
        self.wake.notify_one();
    }

    /// The next key to work on; `None` when stopped. [`Queue::done`] must follow.
    pub async fn next(&self, stop: &CancellationToken) -> Option<K> {
        loop {
            let wake = self.wake.notified();
            let until = {
                let mut state = self.state.lock();
                let until = state.ripen(Instant::now());
                if let Some(key) = state.ready.pop_front() {
                    state.dirty.remove(&key);
                    state.working.insert(key.clone());
                    if !state.ready.is_empty() || until.is_some() {
                        self.wake.notify_one();
                    }
                    return Some(key);
                }
                until
            };
            tokio::select! {
                () = stop.cancelled() => return None,
                () = wake => {}
                () = sleep_until(until) => {}
            }
        }
    }

    /// The work on a key went well (or there is nothing more to try).
    pub fn done(&self, key: &K) {
        self.state.lock().failures.remove(key);
        self.finish(key);
    }

    /// The work on a key failed: it comes back after its back-off.
    pub fn failed(&self, key: &K) {
        let wait = {
            let mut state = self.state.lock();
            let failures = state.failures.entry(key.clone()).or_insert(0);
            let wait = BACKOFF_FIRST.saturating_mul(1 << (*failures).min(20));
            *failures = failures.saturating_add(1);
            wait.min(BACKOFF_LONGEST)
        };
        // Keys that failed together should not come back together.
        let jitter = rand::random_range(0.8..1.2);
        self.add_after(key.clone(), wait.mul_f64(jitter));
        self.finish(key);
    }

    fn finish(&self, key: &K) {
        let mut state = self.state.lock();
        state.working.remove(key);
        if state.dirty.contains(key) {
            state.ready.push_back(key.clone());
            drop(state);
            self.wake.notify_one();
        }
    }

    /// Keys that wait to be worked on now.
    pub fn len(&self) -> usize {
        self.state.lock().ready.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

async fn sleep_until(until: Option<Instant>) {
    match until {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

impl<K: Clone + Eq + Hash> State<K> {
    /// Whether a worker has something new to do.
    fn add(&mut self, key: K) -> bool {
        if !self.dirty.insert(key.clone()) || self.working.contains(&key) {
            return false;
        }
        self.ready.push_back(key);
        true
    }

    /// Moves keys whose time has come to `ready`; the time of the next one.
    fn ripen(&mut self, now: Instant) -> Option<Instant> {
        while let Some(Reverse((at, id))) = self.timers.peek().copied() {
            if !self.timed.contains_key(&id) {
                self.timers.pop();
            } else if at <= now {
                self.timers.pop();
                if let Some(key) = self.timed.remove(&id) {
                    self.due.remove(&key);
                    self.add(key);
                }
            } else {
                return Some(at);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_waits_once_and_is_worked_on_by_one() {
        let queue = Queue::default();
        let stop = CancellationToken::new();
        queue.add("a");
        queue.add("a");
        queue.add("b");
        assert_eq!(queue.next(&stop).await, Some("a"));
        queue.add("a"); // while it is being worked on
        assert_eq!(queue.next(&stop).await, Some("b"));
        assert!(queue.is_empty());
        queue.done(&"a");
        assert_eq!(queue.next(&stop).await, Some("a"));
        queue.done(&"a");
        assert!(queue.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn delays_keep_the_earliest_and_failures_wait_longer() {
        let queue = Queue::default();
        let stop = CancellationToken::new();
        let start = Instant::now();
        queue.add_after("a", Duration::from_secs(9));
        queue.add_after("a", Duration::from_secs(3));
        queue.add_after("a", Duration::from_secs(6));
        assert_eq!(queue.next(&stop).await, Some("a"));
        assert_eq!(start.elapsed().as_secs(), 3);
        let mut waits = Vec::new();
        for _ in 0..6 {
            let failed = Instant::now();
            queue.failed(&"a");
            assert_eq!(queue.next(&stop).await, Some("a"));
            waits.push(failed.elapsed());
        }
        assert!(waits.windows(2).all(|w| w[0] < w[1]), "{waits:?}");
        stop.cancel();
        queue.done(&"a");
        assert_eq!(queue.next(&stop).await, None);
    }
}
