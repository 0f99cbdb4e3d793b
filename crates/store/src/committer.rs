//! The one thread that writes: takes what is queued, decides, commits, shows, answers.
//!
//! ```text
//! queue ─▶ prepare ─▶ transaction (synced) ─▶ publish ─▶ answer ─▶ trim history
//!          expectations,                      maps, logs,          (what falls out is removed
//!          revisions, stamps                  revision              from disk with later commits)
//! ```
//!
//! A batch is prepared on copies of the map roots. If its transaction fails they are dropped, and
//! nothing has happened: readers never saw them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use rustc_hash::FxHashMap;
use tokio::sync::oneshot;

use crate::disk::{ALL, Changes, Disk, Failure};
use crate::error::CommitError;
use crate::history::{Bounds, Channel, Entry};
use crate::load::Loaded;
use crate::object::Extension;
use crate::queue::{Answer, Request, Taken};
use crate::state::{Objects, Shared};
use crate::{Event, EventKind, Expect, Key, Options, Revision, Stored, Write};

/// How often history is looked through for what is too old when nothing is written.
const SWEEP: Duration = Duration::from_secs(1);
/// How long nothing must be written before a transaction is made only to remove garbage.
const IDLE: Duration = Duration::from_millis(50);
/// The most records removed in such a transaction: what a write coming then has to wait for.
const SLICE: usize = 512;

pub(crate) struct Committer {
    shared: Arc<Shared>,
    /// `None`: the store is in memory only.
    disk: Option<Disk>,
    /// A batch that may or may not be on the disk. Nothing is written before it is known.
    doubtful: Option<Prepared>,
    /// Records on disk that nothing needs any more, in the order in which they may be removed.
    garbage: VecDeque<Revision>,
    /// Floors of the history that the disk does not have yet.
    floors: FxHashMap<Arc<str>, Revision>,
    /// The floor of all buckets, as the logs have been trimmed to it, and as the disk has it.
    floor: Revision,
    written_floor: Revision,
    clock: Clock,
    /// Cost of all history, over all buckets.
    history_bytes: usize,
    swept: Instant,
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
    pub(crate) fn new(options: Options, disk: Option<Disk>, loaded: Loaded) -> Committer {
        let floor = loaded.state.floor;
        let mut committer = Committer {
            floor,
            written_floor: floor,
            shared: Arc::new(Shared::new(options, loaded.state)),
            disk,
            doubtful: None,
            garbage: loaded.garbage,
            floors: FxHashMap::default(),
            clock: Clock::start(loaded.latest),
            history_bytes: loaded.history_bytes,
            swept: Instant::now(),
        };
        committer.count_garbage();
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
            let patience = if self.garbage.is_empty() { SWEEP } else { IDLE };
            match self
                .shared
                .queue
                .take(self.shared.options.batch_writes, patience)
            {
                Taken::Requests(requests) => self.commit(requests),
                Taken::Nothing => self.compact(),
                Taken::Closed => {
                    // What has been let go of must not come back with the next opening.
                    self.compact();
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
        if let Err(error) = self.resolve() {
            for request in requests {
                reply(request.answer, Err(error.clone()));
            }
            return;
        }
        let batch = self.prepare(requests);
        if batch.events.is_empty() {
            return answer(batch.answers);
        }
        // Twice what is added, so that the backlog shrinks under any load.
        let slice = self.garbage.len().min(2 * batch.events.len());
        match self.write(&batch.events, batch.at, slice) {
            Ok(()) => {
                let buckets: Vec<Arc<str>> = batch.buckets.keys().cloned().collect();
                answer(self.publish(batch));
                self.trim_written(&buckets);
            }
            Err(failure) => self.fail(batch, failure),
        }
    }

    fn fail(&mut self, mut batch: Prepared, failure: Failure) {
        let unknown = matches!(failure, Failure::Unknown(_));
        let error = failure.into_commit_error();
        tracing::error!(
            error = &error as &dyn std::error::Error,
            writes = batch.events.len(),
            "commit failed"
        );
        self.shared.figures.failures.fetch_add(1, Ordering::Relaxed);
        for (sender, _) in batch.answers.drain(..) {
            reply(sender, Err(error.clone()));
        }
        if unknown {
            self.doubtful = Some(batch);
        }
    }

    /// Finds out about a batch whose outcome is not known, and shows it if it is on the disk.
    fn resolve(&mut self) -> Result<(), CommitError> {
        let Some(batch) = self.doubtful.take() else {
            return Ok(());
        };
        let (Some(disk), Some(last)) = (&mut self.disk, batch.events.last()) else {
            return Ok(());
        };
        match disk.landed(last.revision) {
            Ok(true) => {
                let buckets: Vec<Arc<str>> = batch.buckets.keys().cloned().collect();
                answer(self.publish(batch));
                self.trim_written(&buckets);
                Ok(())
            }
            Ok(false) => Ok(()),
            Err(error) => {
                self.doubtful = Some(batch);
                // Of the batch that would come next, it is known that nothing is written.
                Err(Failure::Undone(error).into_commit_error())
            }
        }
    }

    /// Removes garbage while there is nothing else to do.
    fn compact(&mut self) {
        let nothing = self.garbage.is_empty() && self.floor == self.written_floor;
        if nothing || self.resolve().is_err() {
            return;
        }
        let slice = self.garbage.len().min(SLICE);
        if let Err(failure) = self.write(&[], self.clock.now(), slice) {
            let error = failure.into_commit_error();
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "cannot remove old records"
            );
        }
    }

    /// One transaction: events, and the first `slice` records of the garbage.
    fn write(&mut self, events: &[Arc<Event>], at: u64, slice: usize) -> Result<(), Failure> {
        let Some(disk) = &mut self.disk else {
            return Ok(());
        };
        let garbage: Vec<Revision> = self.garbage.iter().take(slice).copied().collect();
        // A floor is on disk before or with the first record it lets go.
        let mut floors: Vec<_> = match slice {
            0 => Vec::new(),
            _ => self
                .floors
                .iter()
                .map(|(bucket, floor)| (bucket.clone(), *floor))
                .collect(),
        };
        if self.floor != self.written_floor {
            floors.push((ALL.into(), self.floor));
        }
        disk.commit(&Changes {
            events,
            at,
            garbage: &garbage,
            floors: &floors,
        })?;
        self.written_floor = self.floor;
        if slice > 0 {
            self.floors.clear();
            self.garbage.drain(..slice);
            self.count_garbage();
        }
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
        self.floor = self.shared.state.read().floor;
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
        let (Some(_), Some(last)) = (&self.disk, trimmed.last()) else {
            return;
        };
        self.floors
            .insert(channel.bucket.clone(), last.event.revision);
        for Entry { event, .. } in trimmed {
            self.garbage
                .extend(event.previous.as_ref().map(|previous| previous.revision));
            self.garbage
                .extend((event.kind == EventKind::Delete).then_some(event.revision));
        }
        self.count_garbage();
    }

    fn count_garbage(&self) {
        self.shared
            .figures
            .garbage
            .store(self.garbage.len(), Ordering::Relaxed);
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
