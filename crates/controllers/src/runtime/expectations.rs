//! Own writes that the watch has not shown yet. A controller that acts before it has seen the pods
//! it has just created would create them again.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::time::Instant;

use crate::model::Key;

/// After this long an expectation is given up: the event was missed, and acting on what the cache
/// says is better than never acting again.
const TIMEOUT: Duration = Duration::from_secs(300);

/// What each owner still waits to see.
#[derive(Default)]
pub struct Expectations {
    entries: Mutex<FxHashMap<Key, Entry>>,
}

struct Entry {
    creations: usize,
    deletions: FxHashSet<Arc<str>>,
    at: Instant,
}

impl Expectations {
    /// Whether the cache shows all that this owner's controller has written.
    pub fn satisfied(&self, owner: &Key) -> bool {
        let mut entries = self.entries.lock();
        let Some(entry) = entries.get(owner) else {
            return true;
        };
        let satisfied =
            (entry.creations == 0 && entry.deletions.is_empty()) || entry.at.elapsed() > TIMEOUT;
        if satisfied {
            entries.remove(owner);
        }
        satisfied
    }

    pub fn expect_creations(&self, owner: &Key, count: usize) {
        self.with(owner, |entry| entry.creations += count);
    }

    pub fn expect_deletion(&self, owner: &Key, uid: Arc<str>) {
        self.with(owner, |entry| {
            entry.deletions.insert(uid);
        });
    }

    /// A creation was seen, or was expected and failed.
    pub fn created(&self, owner: &Key) {
        if let Some(entry) = self.entries.lock().get_mut(owner) {
            entry.creations = entry.creations.saturating_sub(1);
        }
    }

    /// A deletion was seen (the object is gone or marked), or was expected and failed.
    pub fn deleted(&self, owner: &Key, uid: &str) {
        if let Some(entry) = self.entries.lock().get_mut(owner) {
            entry.deletions.remove(uid);
        }
    }

    /// The owner is gone.
    pub fn forget(&self, owner: &Key) {
        self.entries.lock().remove(owner);
    }

    fn with(&self, owner: &Key, change: impl FnOnce(&mut Entry)) {
        let mut entries = self.entries.lock();
        let entry = entries.entry(owner.clone()).or_insert_with(|| Entry {
            creations: 0,
            deletions: FxHashSet::default(),
            at: Instant::now(),
        });
        entry.at = Instant::now();
        change(entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_owner_waits_until_all_is_seen_or_time_is_up() {
        let expectations = Expectations::default();
        let owner = Key::new("n", "web");
        assert!(expectations.satisfied(&owner));
        expectations.expect_creations(&owner, 2);
        expectations.expect_deletion(&owner, "u".into());
        expectations.created(&owner);
        expectations.deleted(&owner, "other");
        assert!(!expectations.satisfied(&owner));
        expectations.created(&owner);
        expectations.deleted(&owner, "u");
        assert!(expectations.satisfied(&owner));
        expectations.expect_creations(&owner, 1);
        tokio::time::advance(TIMEOUT).await;
        assert!(!expectations.satisfied(&owner));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(expectations.satisfied(&owner));
    }
}
