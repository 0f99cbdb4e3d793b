//! Brings the memory of a store back from its records.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use rustc_hash::FxHashMap;

use crate::disk::{ALL, Loader};
use crate::object::{Extension, FIRST};
use crate::record::Record;
use crate::state::State;
use crate::{Event, EventKind, Key, Revision, Stored};

/// What a store starts with.
#[derive(Default)]
pub(crate) struct Loaded {
    pub(crate) state: State,
    /// Superseded records that fell out of history before the store was closed, each with the
    /// revision that superseded it.
    pub(crate) garbage: VecDeque<(Revision, Revision)>,
    pub(crate) history_bytes: usize,
    /// When the newest record was committed.
    pub(crate) latest: u64,
    floors: FxHashMap<Arc<str>, Revision>,
}

impl Loader for Loaded {
    fn floor(&mut self, bucket: &str, floor: Revision) {
        // A removed tombstone may have been the newest record of all.
        self.state.revision = self.state.revision.max(floor);
        if bucket == ALL {
            self.state.floor = floor;
            return;
        }
        let bucket: Arc<str> = bucket.into();
        self.state
            .slot(&bucket)
            .channel
            .log
            .write()
            .set_floor(floor);
        self.floors.insert(bucket, floor);
    }

    fn record(&mut self, record: Record<'_>) -> Result<Arc<Stored>, String> {
        let Record {
            revision,
            kind,
            created,
            previous: replaced,
            at,
            ..
        } = record;
        if revision <= FIRST {
            return Err("there is no such revision".into());
        }
        let floor = self.floors.get(record.bucket).copied().unwrap_or(0);
        let floor = floor.max(self.state.floor);
        let slot = match self.state.buckets.get_mut(record.bucket) {
            Some(slot) => slot,
            None => self.state.slot(&record.bucket.into()),
        };
        let previous = slot.objects.get(record.name).cloned();
        let found = previous.as_ref().map_or(0, |previous| previous.revision);
        // Below the floor, what was replaced may be removed already.
        if found != replaced && (revision > floor || found != 0) {
            return Err(format!(
                "it replaces record {replaced} of {} {}, but the last one is {found}",
                record.bucket, record.name
            ));
        }
        let name = match &previous {
            Some(previous) => previous.key.name.clone(),
            None => record.name.into(),
        };
        let object = Arc::new(Stored {
            key: Key {
                bucket: slot.channel.bucket.clone(),
                name: name.clone(),
            },
            revision,
            created,
            value: Bytes::copy_from_slice(record.value),
            ext: Extension::new(),
        });
        match kind {
            EventKind::Put => slot.objects.insert(name, object.clone()),
            EventKind::Delete => slot.objects.remove(&name),
        };
        if revision > floor {
            let event = Event {
                revision,
                kind,
                object: object.clone(),
                previous,
                ext: Extension::new(),
            };
            self.history_bytes += slot.channel.log.write().push(Arc::new(event), at);
        } else {
            self.garbage
                .extend(previous.map(|previous| (previous.revision, revision)));
            self.garbage
                .extend((kind == EventKind::Delete).then_some((revision, revision)));
        }
        self.state.revision = self.state.revision.max(revision);
        self.latest = self.latest.max(at);
        Ok(object)
    }
}
