//! Keys to be looked at: each at most once at a time, and again if something changed meanwhile.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

struct State<K> {
    due: BTreeMap<(Instant, u64), K>,
    when: HashMap<K, (Instant, u64)>,
    running: HashSet<K>,
    number: u64,
}

/// A queue of keys with due times.
pub struct Queue<K> {
    state: Mutex<State<K>>,
    changed: Notify,
}

impl<K: Clone + Eq + Hash> Queue<K> {
    /// An empty queue.
    pub fn new() -> Self {
        let state = State {
            due: BTreeMap::new(),
            when: HashMap::new(),
            running: HashSet::new(),
            number: 0,
        };
        Self {
            state: Mutex::new(state),
            changed: Notify::new(),
        }
    }

    fn with<T>(&self, f: impl FnOnce(&mut State<K>) -> T) -> T {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// `key` is to be looked at in `delay`, or sooner if it is so already.
    pub fn add(&self, key: K, delay: Duration) {
        let at = Instant::now() + delay;
        self.with(|s| {
            if let Some(old) = s.when.get(&key).copied() {
                if old.0 <= at {
                    return;
                }
                s.due.remove(&old);
            }
            s.number += 1;
            s.when.insert(key.clone(), (at, s.number));
            s.due.insert((at, s.number), key);
        });
        self.changed.notify_one();
    }

    /// The next key that is due and not being looked at. Call [`done`](Self::done) afterwards.
    pub async fn next(&self) -> K {
        loop {
            let notified = self.changed.notified();
            let wait = self.with(|s| {
                let now = Instant::now();
                let ready = s
                    .due
                    .iter()
                    .take_while(|((at, _), _)| *at <= now)
                    .find(|(_, key)| !s.running.contains(*key))
                    .map(|(slot, _)| *slot);
                if let Some(slot) = ready
                    && let Some(key) = s.due.remove(&slot)
                {
                    s.when.remove(&key);
                    s.running.insert(key.clone());
                    return Ok(key);
                }
                Err(s.due.keys().map(|(at, _)| *at).find(|at| *at > now))
            });
            match wait {
                Ok(key) => {
                    // Others may be due as well.
                    self.changed.notify_one();
                    return key;
                }
                Err(Some(at)) => {
                    tokio::select! {
                        () = notified => {}
                        () = tokio::time::sleep_until(at) => {}
                    }
                }
                Err(None) => notified.await,
            }
        }
    }

    /// `key` has been looked at.
    pub fn done(&self, key: &K) {
        self.with(|s| s.running.remove(key));
        self.changed.notify_one();
    }
}
