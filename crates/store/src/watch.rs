//! A position in a bucket's events.

use std::sync::Arc;

use tokio::sync::watch;

use crate::history::Channel;
use crate::state::Shared;
use crate::{Event, Revision};

/// The most events handed out at once, so that one reader holds the log for a bounded time.
const BATCH: usize = 1024;

/// Gives every event of a bucket after a revision, once and in order. Holds no queue: a watch
/// that is not read costs nothing, until what it has not read falls out of the history.
pub struct Watch {
    pub(crate) shared: Arc<Shared>,
    pub(crate) channel: Arc<Channel>,
    pub(crate) bell: watch::Receiver<()>,
    /// Of the next event to hand out.
    pub(crate) position: u64,
    /// Everything up to here was handed out.
    pub(crate) revision: Revision,
}

/// Events of a bucket.
#[derive(Debug)]
pub struct Batch {
    pub events: Vec<Arc<Event>>,
    /// Every event of the bucket up to this revision has been delivered: a bookmark.
    pub revision: Revision,
}

/// Why a watch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lagged {
    /// Its next event fell out of the retained history: list and watch again.
    #[error("the watch fell out of the retained history, whose oldest revision is {oldest}")]
    Compacted { oldest: Revision },
    /// The store was closed, and everything in it was delivered.
    #[error("the store is closed")]
    Closed,
}

impl Watch {
    /// Waits for events. Cancel-safe: a dropped call has taken nothing.
    pub async fn next(&mut self) -> Result<Batch, Lagged> {
        loop {
            // Before the log is read, so that an event committed right after rings again.
            self.bell.mark_unchanged();
            let ended = self.shared.has_ended();
            let batch = self.try_next()?;
            if !batch.events.is_empty() {
                return Ok(batch);
            }
            if ended || self.bell.changed().await.is_err() {
                return Err(Lagged::Closed);
            }
        }
    }

    /// The events there are now, perhaps none: then the batch's revision is a bookmark, the
    /// newest revision of the store.
    pub fn try_next(&mut self) -> Result<Batch, Lagged> {
        // Before the log: every event up to this revision is then found there.
        let newest = self.shared.newest();
        let log = self.channel.log.read();
        let Some(events) = log.read(self.position, BATCH) else {
            return Err(Lagged::Compacted {
                oldest: log.floor(),
            });
        };
        drop(log);
        self.position += events.len() as u64;
        self.revision = match events.last() {
            Some(last) if events.len() == BATCH => last.revision,
            Some(last) => newest.max(last.revision),
            None => newest.max(self.revision),
        };
        Ok(Batch {
            events,
            revision: self.revision,
        })
    }

    /// Everything up to here was delivered.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    pub fn bucket(&self) -> &Arc<str> {
        &self.channel.bucket
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch")
            .field("bucket", &self.channel.bucket)
            .field("revision", &self.revision)
            .finish_non_exhaustive()
    }
}
