//! What a store can be told, and what it tells about itself.

use std::sync::Arc;
use std::time::Duration;

use crate::{Keeper, Revision};

/// Bounds of a store. The defaults suit a cluster of some thousand nodes.
#[derive(Clone, Debug)]
pub struct Options {
    /// History older than this is dropped.
    pub history_age: Duration,
    /// The most events retained in one bucket.
    pub history_events: usize,
    /// The most bytes that history (superseded values, deleted values and bookkeeping) may hold
    /// over all buckets; the bucket with the most gives first.
    pub history_bytes: usize,
    /// The most bytes of writes waiting for the committer; beyond them `commit` waits.
    pub queue_bytes: usize,
    /// The most writes made durable together.
    pub batch_writes: usize,
    /// The most bytes of the disk that the journal takes, unless one write alone takes more. From
    /// half of it on, it is folded while writes go on; beyond it, writes wait. Opening a store that
    /// was not closed takes as long as reading so much.
    pub journal_bytes: u64,
    /// Page cache of the file. Reads are served from memory, so it only has to hold the tree's
    /// inner pages and one batch.
    pub cache_bytes: usize,
    /// What is kept of values on disk, where that is not the values themselves. Without one, what is
    /// kept is given as it is.
    pub keeper: Option<Arc<dyn Keeper>>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            history_age: Duration::from_secs(600),
            history_events: 100_000,
            history_bytes: 128 << 20,
            queue_bytes: 64 << 20,
            batch_writes: 1024,
            journal_bytes: 128 << 20,
            cache_bytes: 16 << 20,
            keeper: None,
        }
    }
}

/// Figures of a running store, all since it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Newest committed.
    pub revision: Revision,
    /// See [`crate::Store::oldest`].
    pub oldest: Revision,
    /// Buckets that hold objects.
    pub buckets: usize,
    pub objects: usize,
    /// Events that a watch could still be given.
    pub history_events: usize,
    /// Bytes that history holds, as counted against [`Options::history_bytes`].
    pub history_bytes: usize,
    /// Writes committed.
    pub writes: u64,
    /// Times that a batch of them was made durable.
    pub commits: u64,
    /// Times that this failed.
    pub failures: u64,
    /// Writes that the journal holds and the store's file does not.
    pub unfolded: usize,
    /// Bytes of the disk that the journal takes for them. Writes wait when it is full.
    pub journal_bytes: u64,
    /// Superseded records on disk, waiting to be removed.
    pub garbage: usize,
}
