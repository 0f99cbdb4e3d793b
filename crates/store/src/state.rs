//! What readers see: the newest committed state and the events that led to it.
//!
//! Only the committer changes it (a reader may add an empty bucket, to watch it). The lock is held
//! for clones of map roots and for appending to logs, never while anything is serialised, copied
//! or written. Lock order: state, then a bucket's log.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use imbl::OrdMap;
use parking_lot::RwLock;
use rustc_hash::FxHashMap;

use crate::fold::Fold;
use crate::history::Channel;
use crate::object::FIRST;
use crate::queue::Queue;
use crate::{Options, ReadError, Revision, Stored};

/// The objects of a bucket by name.
pub(crate) type Objects = OrdMap<Arc<str>, Arc<Stored>>;

/// What the store's handles, its watches and its committer share.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) queue: Queue,
    pub(crate) state: RwLock<State>,
    /// `State::revision`, set last while the state's lock is held: whoever reads it before a log
    /// finds every event up to it there.
    newest: AtomicU64,
    /// The committer has ended: nothing changes any more.
    ended: AtomicBool,
    pub(crate) figures: Figures,
    /// Of a store that is on disk.
    pub(crate) fold: Option<Arc<Fold>>,
}

#[derive(Default)]
pub(crate) struct Figures {
    pub(crate) writes: AtomicU64,
    pub(crate) commits: AtomicU64,
    pub(crate) failures: AtomicU64,
}

pub(crate) struct State {
    pub(crate) revision: Revision,
    /// Nothing before this revision is given, whatever the logs still hold.
    pub(crate) floor: Revision,
    pub(crate) buckets: FxHashMap<Arc<str>, Slot>,
}

pub(crate) struct Slot {
    pub(crate) objects: Objects,
    pub(crate) channel: Arc<Channel>,
}

impl Default for State {
    fn default() -> State {
        State {
            revision: FIRST,
            floor: 0,
            buckets: FxHashMap::default(),
        }
    }
}

impl State {
    /// Whether the state of a revision, and what came after it, may be given of a bucket whose
    /// log says so too.
    pub(crate) fn check(&self, revision: Revision) -> Result<(), ReadError> {
        if revision > self.revision {
            return Err(ReadError::Future {
                newest: self.revision,
            });
        }
        if revision < self.floor {
            return Err(ReadError::Compacted { oldest: self.floor });
        }
        Ok(())
    }

    /// The bucket, added if it is not there.
    pub(crate) fn slot(&mut self, bucket: &Arc<str>) -> &mut Slot {
        self.buckets.entry(bucket.clone()).or_insert_with(|| Slot {
            objects: Objects::new(),
            channel: Arc::new(Channel::new(bucket.clone())),
        })
    }
}

impl Shared {
    pub(crate) fn new(options: Options, state: State) -> Shared {
        Shared {
            queue: Queue::new(options.queue_bytes),
            options,
            newest: AtomicU64::new(state.revision),
            state: RwLock::new(state),
            ended: AtomicBool::new(false),
            figures: Figures::default(),
            fold: None,
        }
    }

    pub(crate) fn newest(&self) -> Revision {
        self.newest.load(Ordering::Acquire)
    }

    /// To be called with the state's lock held.
    pub(crate) fn set_newest(&self, revision: Revision) {
        self.newest.store(revision, Ordering::Release);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Nothing more will be written: ends all watches once they have read to the end.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        for slot in self.state.read().buckets.values() {
            slot.channel.bell.send_replace(());
        }
    }
}
