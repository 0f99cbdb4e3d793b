//! Brings the memory of a store back from its records.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use rustc_hash::FxHashMap;

use crate::disk::{ALL, Loader};
use crate::object::{Extension, FIRST};
use crate::record::Record;
use crate::state::State;
use crate::{Event, EventKind, Keeper, Key, Opened, Revision, Stored};

/// What a store starts with.
#[derive(Default)]
pub(crate) struct Loaded {
    keeper: Option<Arc<dyn Keeper>>,
    /// Versions that could not be opened, and why.
    shut: FxHashMap<Revision, String>,
    /// Up to here events tell of such versions.
    pub(crate) shut_until: Revision,
    pub(crate) state: State,
    /// Superseded records that fell out of history before the store was closed, each with the
    /// revision that superseded it.
    pub(crate) garbage: VecDeque<(Revision, Revision)>,
    pub(crate) history_bytes: usize,
    /// When the newest record was committed.
    pub(crate) latest: u64,
    floors: FxHashMap<Arc<str>, Revision>,
}

impl Loaded {
    pub(crate) fn new(keeper: Option<Arc<dyn Keeper>>) -> Loaded {
        Loaded {
            keeper,
            ..Loaded::default()
        }
    }

    /// The value of what is kept, and whether it is kept in another way now. A version that is
    /// superseded may be lost with its key; of the newest ones, `finish` asks.
    fn opened(&mut self, record: &Record<'_>) -> (Bytes, bool) {
        let kept = || Bytes::copy_from_slice(record.value);
        let Some(keeper) = &self.keeper else {
            return (kept(), false);
        };
        match keeper.open(record.bucket, record.name, record.value) {
            Ok(Opened { value, stale }) => (value.map_or_else(kept, Bytes::from), stale),
            Err(why) => {
                self.shut.insert(record.revision, why.to_string());
                self.shut_until = self.shut_until.max(record.revision);
                (Bytes::new(), true)
            }
        }
    }

    /// Whether there is an object that cannot be opened: which, and why.
    pub(crate) fn finish(&mut self) -> Result<(), String> {
        let shut = std::mem::take(&mut self.shut);
        if shut.is_empty() {
            return Ok(());
        }
        let objects = self.state.buckets.values().flat_map(|s| s.objects.values());
        let mut lost: Vec<(&Key, &String)> = objects
            .filter_map(|object| Some((&object.key, shut.get(&object.revision)?)))
            .collect();
        lost.sort();
        match lost.first() {
            None => Ok(()),
            Some((key, why)) => Err(format!(
                "{} of its objects cannot be opened, such as {key}: {why}",
                lost.len()
            )),
        }
    }
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
        let (value, stale) = self.opened(&record);
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
            value,
            stale,
            ext: Extension::new(),
        });
        if previous
            .as_ref()
            .is_some_and(|p| self.shut.contains_key(&p.revision))
        {
            self.shut_until = self.shut_until.max(revision);
        }
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
