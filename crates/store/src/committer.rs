//! The one thread that decides: takes what is queued, decides, commits, shows, answers.
//!
//! ```text
//! queue ─▶ prepare ─▶ journal (synced) ─▶ publish ─▶ answer ─▶ trim history
//!          expectations,                  maps, logs,          (what falls out is removed
//!          revisions, stamps              revision              from disk later, see `fold`)
//! ```
//!
//! A batch is prepared on copies of the map roots. If it cannot be made durable they are dropped,
//! and nothing has happened: readers never saw them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use rustc_hash::FxHashMap;
use tokio::sync::oneshot;

use crate::error::CommitError;
use crate::fold::{Fold, Folding};
use crate::history::{Bounds, Channel, Entry};
use crate::journal::{Failure, Journal};
use crate::load::Loaded;
use crate::object::Extension;
use crate::pace::Pace;
use crate::queue::{Answer, Request, Taken};
use crate::record::Logged;
use crate::state::{Objects, Shared};
use crate::{Event, EventKind, Expect, Key, Options, Revision, Stored, Write};

/// How often history is looked through for what is too old when nothing is written.
const SWEEP: Duration = Duration::from_secs(1);
pub(crate) struct Committer {
    shared: Arc<Shared>,
    /// `None`: the store is in memory only.
    durable: Option<Durable>,
    /// The floor of all buckets, as the logs have been trimmed to it.
    floor: Revision,
    clock: Clock,
    /// Cost of all history, over all buckets.
    history_bytes: usize,
    swept: Instant,
    pace: Pace,
}

/// Where writes are made durable.
pub(crate) struct Durable {
    pub(crate) journal: Journal,
    pub(crate) fold: Arc<Fold>,
    /// Dropped last: what the journal holds is then folded.
    pub(crate) _folding: Folding,
}

/// A batch ready to be committed.
struct Prepared {
    buckets: FxHashMap<Arc<str>, Working>,
    /// In the order of their revisions, which are consecutive.
    events: Vec<Arc<Event>>,
    answers: Vec<(oneshot::Sender<Answer>, Answer)>,
    /// When it is committed, in milliseconds since 1970.
    at: u64,
}

/// A bucket as the batch leaves it.
struct Working {
    bucket: Arc<str>,
    objects: Objects,
}

impl Committer {
    pub(crate) fn new(options: Options, durable: Option<Durable>, loaded: Loaded) -> Committer {
        let mut shared = Shared::new(options, loaded.state);
        shared.fold = durable.as_ref().map(|durable| durable.fold.clone());
        let floor = shared.state.read().floor;
        let mut committer = Committer {
            floor,
            shared: Arc::new(shared),
            durable,
            clock: Clock::start(loaded.latest),
            history_bytes: loaded.history_bytes,
            swept: Instant::now(),
            pace: Pace::default(),
        };
        committer.sweep();
        committer.trim_total();
        committer
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Works until the queue is closed and empty.
    pub(crate) fn run(mut self) {
        // Also on a panic: nobody may wait for a committer that is gone.
        let _end = End(self.shared.clone());
        loop {
            let most = self.shared.options.batch_writes;
            let gathering = self.pace.gathering();
            match self.shared.queue.take(most, SWEEP, gathering) {
                Taken::Requests(requests) => {
                    self.pace.committed(requests.len());
                    self.commit(requests);
                }
                Taken::Nothing => {}
                Taken::Closed => {
                    // What has been let go of must not come back with the next opening.
                    self.sweep();
                    break;
                }
            }
            if self.swept.elapsed() >= SWEEP {
                self.sweep();
                self.trim_total();
            }
        }
    }

    fn commit(&mut self, requests: Vec<Request>) {
        let batch = self.prepare(requests);
        if batch.events.is_empty() {
            return answer(batch.answers);
        }
        match self.write(&batch) {
            Ok(()) => {
                let buckets: Vec<Arc<str>> = batch.buckets.keys().cloned().collect();
                answer(self.publish(batch));
                self.trim_written(&buckets);
            }
            Err(failure) => self.fail(batch, failure),
        }
    }

    fn fail(&mut self, batch: Prepared, failure: Failure) {
        let error = failure.into_commit_error();
        tracing::error!(
            error = &error as &dyn std::error::Error,
            writes = batch.events.len(),
            "commit failed"
        );
        self.shared.figures.failures.fetch_add(1, Ordering::Relaxed);
        for (sender, _) in batch.answers {
            reply(sender, Err(error.clone()));
        }
    }

    /// Makes a batch durable.
    fn write(&mut self, batch: &Prepared) -> Result<(), Failure> {
        let Some(durable) = &mut self.durable else {
            return Ok(());
        };
        let keeper = self.shared.options.keeper.as_deref();
        let mut writes = Vec::with_capacity(batch.events.len());
        for event in &batch.events {
            let object = &event.object;
            let kept = match keeper {
                Some(keeper) => keeper
                    .seal(&object.key.bucket, &object.key.name, &object.value)
                    .map_err(|error| Failure::Undone(io::Error::other(error)))?,
                None => None,
            };
            writes.push(Logged {
                object: object.clone(),
                kind: event.kind,
                previous: event
                    .previous
                    .as_ref()
                    .map_or(0, |previous| previous.revision),
                at: batch.at,
                kept: kept.map(Bytes::from),
            });
        }
        durable.journal.append(&writes)?;
        durable.fold.push(writes);
        Ok(())
    }

    /// Decides each request against the committed state and the requests before it.
    fn prepare(&self, requests: Vec<Request>) -> Prepared {
        let mut batch = Prepared {
            buckets: FxHashMap::default(),
            events: Vec::with_capacity(requests.len()),
            answers: Vec::with_capacity(requests.len()),
            at: self.clock.now(),
        };
        let mut next = self.shared.newest() + 1;
        for request in requests {
            let Request {
                writes,
                mut ext,
                answer,
                ..
            } = request;
            let outcome = match self.check(&mut batch, &writes) {
                Err(current) => Err(CommitError::Conflict { current }),
                Ok(()) => Ok(writes
                    .into_iter()
                    .map(|write| {
                        let event = self.apply(&mut batch, write, next, std::mem::take(&mut ext));
                        next += 1;
                        event.object.clone()
                    })
                    .collect()),
            };
            batch.answers.push((answer, outcome));
        }
        batch
    }

    /// Whether every write finds what it expects, given those before it; else what the first one
    /// that does not finds instead.
    fn check(&self, batch: &mut Prepared, writes: &[Write]) -> Result<(), Option<Arc<Stored>>> {
        // What earlier writes of the same request leave: none, or a version without a revision
        // that anyone could expect.
        let mut earlier: FxHashMap<&Key, bool> = FxHashMap::default();
        for write in writes {
            let delete = write.op.kind() == EventKind::Delete;
            let current = self
                .working(batch, &write.key.bucket)
                .objects
                .get(&write.key.name);
            let (there, revision) = match earlier.get(&write.key) {
                Some(there) => (*there, None),
                None => (current.is_some(), current.map(|current| current.revision)),
            };
            let holds = match write.expect {
                Expect::Any => there || !delete,
                Expect::Absent => !there && !delete,
                Expect::At(expected) => revision == Some(expected),
            };
            if !holds {
                return Err(current.cloned());
            }
            if writes.len() > 1 {
                earlier.insert(&write.key, !delete);
            }
        }
        Ok(())
    }

    fn apply(
        &self,
        batch: &mut Prepared,
        write: Write,
        revision: Revision,
        ext: Extension,
    ) -> Arc<Event> {
        let working = self.working(batch, &write.key.bucket);
        let kind = write.op.kind();
        let previous = match kind {
            EventKind::Put => working.objects.get(&write.key.name).cloned(),
            EventKind::Delete => working.objects.remove(&write.key.name),
        };
        // One copy of each name, however many versions and callers there are.
        let name = match &previous {
            Some(previous) => previous.key.name.clone(),
            None => write.key.name,
        };
        let object = Arc::new(Stored {
            key: Key {
                bucket: working.bucket.clone(),
                name: name.clone(),
            },
            revision,
            created: previous
                .as_ref()
                .map_or(revision, |previous| previous.created),
            value: write.op.stamped(revision),
            stale: false,
            ext,
        });
        if kind == EventKind::Put {
            working.objects.insert(name, object.clone());
        }
        let event = Arc::new(Event {
            revision,
            kind,
            object,
            previous,
            ext: Extension::new(),
        });
        batch.events.push(event.clone());
        event
    }

    fn working<'a>(&self, batch: &'a mut Prepared, bucket: &Arc<str>) -> &'a mut Working {
        batch.buckets.entry(bucket.clone()).or_insert_with(|| {
            match self.shared.state.read().buckets.get(bucket) {
                Some(slot) => Working {
                    bucket: slot.channel.bucket.clone(),
                    objects: slot.objects.clone(),
                },
                None => Working {
                    bucket: bucket.clone(),
                    objects: Objects::new(),
                },
            }
        })
    }

    /// Shows a committed batch to readers, then rings for its watchers. Gives back the answers.
    fn publish(&mut self, batch: Prepared) -> Vec<(oneshot::Sender<Answer>, Answer)> {
        let Prepared {
            buckets,
            events,
            answers,
            at,
        } = batch;
        let mut rings: Vec<Arc<Channel>> = Vec::with_capacity(buckets.len());
        // Dropped after the lock is released.
        let mut replaced: Vec<Objects> = Vec::with_capacity(buckets.len());
        let mut state = self.shared.state.write();
        for working in buckets.into_values() {
            let slot = state.slot(&working.bucket);
            replaced.push(std::mem::replace(&mut slot.objects, working.objects));
        }
        for run in events.chunk_by(|a, b| a.object.key.bucket == b.object.key.bucket) {
            let channel = state.slot(&run[0].object.key.bucket).channel.clone();
            let mut log = channel.log.write();
            for event in run {
                self.history_bytes += log.push(event.clone(), at);
            }
            drop(log);
            if !rings.iter().any(|ring| Arc::ptr_eq(ring, &channel)) {
                rings.push(channel);
            }
        }
        if let Some(last) = events.last() {
            state.revision = last.revision;
            self.shared.set_newest(last.revision);
        }
        drop(state);
        for channel in &rings {
            channel.bell.send_replace(());
        }
        let figures = &self.shared.figures;
        figures.commits.fetch_add(1, Ordering::Relaxed);
        figures
            .writes
            .fetch_add(events.len() as u64, Ordering::Relaxed);
        answers
    }

    /// Holds buckets just written, and the whole history, to their bounds.
    fn trim_written(&mut self, buckets: &[Arc<str>]) {
        for bucket in buckets {
            let channel = self
                .shared
                .state
                .read()
                .buckets
                .get(bucket)
                .map(|slot| slot.channel.clone());
            if let Some(channel) = channel {
                self.trim(&channel, usize::MAX);
            }
        }
        self.trim_total();
    }

    /// Holds all buckets to their bounds: what is too old goes even where nothing is written.
    fn sweep(&mut self) {
        self.swept = Instant::now();
        let floor = self.shared.state.read().floor;
        if let (Some(durable), true) = (&self.durable, floor != self.floor) {
            durable.fold.set_floor(floor);
        }
        self.floor = floor;
        for channel in self.channels() {
            self.trim(&channel, usize::MAX);
        }
    }

    /// Holds the whole history to its bound: the bucket that has most gives until it has an
    /// eighth less, as often as is needed.
    fn trim_total(&mut self) {
        while self.history_bytes > self.shared.options.history_bytes {
            let excess = self.history_bytes - self.shared.options.history_bytes;
            let channels = self.channels();
            let largest = channels
                .iter()
                .map(|channel| (channel.log.read().bytes(), channel))
                .max_by_key(|(bytes, _)| *bytes);
            let Some((bytes, channel)) = largest else {
                return;
            };
            let keep = bytes - excess.min(bytes.div_ceil(8));
            let before = self.history_bytes;
            self.trim(channel, keep);
            if self.history_bytes == before {
                return;
            }
        }
    }

    fn trim(&mut self, channel: &Channel, bytes: usize) {
        let options = &self.shared.options;
        let age = u64::try_from(options.history_age.as_millis()).unwrap_or(u64::MAX);
        let bounds = Bounds {
            since: self.clock.now().saturating_sub(age),
            floor: self.floor,
            events: options.history_events,
            bytes,
        };
        let mut log = channel.log.write();
        let before = log.bytes();
        let trimmed = log.trim(bounds);
        let freed = before - log.bytes();
        drop(log);
        self.history_bytes -= freed;
        if let Some(last) = trimmed.last() {
            channel.forget_rebuilt(last.event.revision);
        }
        let (Some(durable), Some(last)) = (&self.durable, trimmed.last()) else {
            return;
        };
        let floor = last.event.revision;
        let garbage = trimmed.iter().flat_map(|Entry { event, .. }| {
            let replaced = event.previous.as_ref().map(|previous| previous.revision);
            let tombstone = (event.kind == EventKind::Delete).then_some(event.revision);
            let superseded = replaced.into_iter().chain(tombstone);
            superseded.map(|revision| (revision, event.revision))
        });
        durable.fold.discard(channel.bucket.clone(), floor, garbage);
    }

    fn channels(&self) -> Vec<Arc<Channel>> {
        self.shared
            .state
            .read()
            .buckets
            .values()
            .map(|slot| slot.channel.clone())
            .collect()
    }
}

fn answer(answers: Vec<(oneshot::Sender<Answer>, Answer)>) {
    for (sender, outcome) in answers {
        reply(sender, outcome);
    }
}

fn reply(sender: oneshot::Sender<Answer>, outcome: Answer) {
    // Whoever no longer waits does not need the answer.
    let _ = sender.send(outcome);
}

/// Marks the store as ended when the committer's thread leaves, however it leaves.
struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.queue.close();
        self.0.queue.clear();
        self.0.end();
    }
}

/// Wall-clock time that does not jump while the process runs.
struct Clock {
    started: Instant,
    /// Milliseconds since 1970 at `started`.
    origin: u64,
}

impl Clock {
    /// Begins no earlier than `latest`, so that what was committed before does not look younger
    /// than what follows.
    fn start(latest: u64) -> Clock {
        let origin = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Clock {
            started: Instant::now(),
            origin: millis(origin).max(latest),
        }
    }

    fn now(&self) -> u64 {
        self.origin + millis(self.started.elapsed())
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
