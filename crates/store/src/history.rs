//! The retained events of one bucket: what watches read, and what old states are rebuilt from.
//!
//! An old state is the newest one with the later events undone: each event holds the version it
//! replaced. So history costs the superseded values and nothing else, and its bound is a bound of
//! the events (see [`crate::Options`]).

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use crate::state::Objects;
use crate::{Event, EventKind, ReadError, Revision};

/// What an event is taken to cost beside the values it alone keeps alive.
const EVENT_OVERHEAD: usize = 400;

/// A bucket's events and the bell that tells its watchers of new ones.
pub(crate) struct Channel {
    pub(crate) bucket: Arc<str>,
    pub(crate) log: RwLock<Log>,
    pub(crate) bell: watch::Sender<()>,
    /// Old states given lately, for lists that are read page by page. They are no older than the
    /// history: what they keep alive is kept alive by it too.
    rebuilt: Mutex<VecDeque<(Revision, Objects)>>,
}

/// How many old states a bucket keeps.
const REBUILT: usize = 4;

impl Channel {
    pub(crate) fn new(bucket: Arc<str>) -> Channel {
        Channel {
            bucket,
            log: RwLock::default(),
            bell: watch::Sender::new(()),
            rebuilt: Mutex::default(),
        }
    }

    /// The state of a revision, if it was given lately.
    pub(crate) fn rebuilt(&self, revision: Revision) -> Option<Objects> {
        let rebuilt = self.rebuilt.lock();
        rebuilt
            .iter()
            .find(|(of, _)| *of == revision)
            .map(|(_, objects)| objects.clone())
    }

    pub(crate) fn keep_rebuilt(&self, revision: Revision, objects: Objects) {
        let mut rebuilt = self.rebuilt.lock();
        // Looked at again with the lock held: the history may have moved on meanwhile.
        if revision < self.log.read().floor() || rebuilt.iter().any(|(of, _)| *of == revision) {
            return;
        }
        rebuilt.push_back((revision, objects));
        let oldest = if rebuilt.len() > REBUILT {
            rebuilt.pop_front()
        } else {
            None
        };
        drop(rebuilt);
        drop(oldest);
    }

    /// Lets go of old states that the history no longer covers.
    pub(crate) fn forget_rebuilt(&self, floor: Revision) {
        self.rebuilt
            .lock()
            .retain(|(revision, _)| *revision >= floor);
    }
}

#[derive(Default)]
pub(crate) struct Log {
    entries: VecDeque<Entry>,
    /// Position of the first entry; positions count all events since the store was opened.
    first: u64,
    /// Revision of the newest event no longer retained: states and watches from here on can be
    /// given.
    floor: Revision,
    bytes: usize,
}

pub(crate) struct Entry {
    pub(crate) event: Arc<Event>,
    /// When it was committed, in milliseconds since 1970.
    at: u64,
}

/// The bounds of one bucket's log.
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    /// Events committed before this moment go.
    pub(crate) since: u64,
    /// Events up to this revision go.
    pub(crate) floor: Revision,
    pub(crate) events: usize,
    pub(crate) bytes: usize,
}

impl Log {
    /// For a log that is not yet shared.
    pub(crate) fn set_floor(&mut self, floor: Revision) {
        self.floor = floor;
    }

    pub(crate) fn floor(&self) -> Revision {
        self.floor
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends a committed event; returns what it costs.
    pub(crate) fn push(&mut self, event: Arc<Event>, at: u64) -> usize {
        let cost = cost(&event);
        self.bytes += cost;
        self.entries.push_back(Entry { event, at });
        cost
    }

    /// Position of the first event after a revision.
    pub(crate) fn position_after(&self, revision: Revision) -> Result<u64, ReadError> {
        Ok(self.first + self.index_after(revision)? as u64)
    }

    /// All events after a revision.
    pub(crate) fn after(&self, revision: Revision) -> Result<Vec<Arc<Event>>, ReadError> {
        let index = self.index_after(revision)?;
        Ok(self
            .entries
            .range(index..)
            .map(|entry| entry.event.clone())
            .collect())
    }

    fn index_after(&self, revision: Revision) -> Result<usize, ReadError> {
        if revision < self.floor {
            return Err(ReadError::Compacted { oldest: self.floor });
        }
        Ok(self
            .entries
            .partition_point(|entry| entry.event.revision <= revision))
    }

    /// Up to `most` events from a position on; `None` if it is no longer retained.
    pub(crate) fn read(&self, position: u64, most: usize) -> Option<Vec<Arc<Event>>> {
        let skip = usize::try_from(position.checked_sub(self.first)?).ok()?;
        let end = self.entries.len().min(skip.saturating_add(most));
        if skip >= end {
            return Some(Vec::new());
        }
        Some(
            self.entries
                .range(skip..end)
                .map(|entry| entry.event.clone())
                .collect(),
        )
    }

    /// Takes out what is beyond the bounds, oldest first. The caller drops it outside the lock.
    pub(crate) fn trim(&mut self, bounds: Bounds) -> Vec<Entry> {
        let mut trimmed = Vec::new();
        while let Some(oldest) = self.entries.front() {
            if oldest.event.revision > bounds.floor
                && oldest.at >= bounds.since
                && self.entries.len() <= bounds.events
                && self.bytes <= bounds.bytes
            {
                break;
            }
            let Some(entry) = self.entries.pop_front() else {
                break;
            };
            self.first += 1;
            self.floor = entry.event.revision;
            self.bytes -= cost(&entry.event);
            trimmed.push(entry);
        }
        trimmed
    }
}

/// Bytes that only this event keeps alive once its object is superseded in turn: each superseded
/// value is counted once, with the event that superseded it.
pub(crate) fn cost(event: &Event) -> usize {
    let replaced = event
        .previous
        .as_ref()
        .map_or(0, |previous| previous.value.len());
    let last = match event.kind {
        EventKind::Put => 0,
        EventKind::Delete => event.object.value.len(),
    };
    EVENT_OVERHEAD + replaced + last
}
