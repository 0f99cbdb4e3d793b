//! Folds what the journal holds into the store's file, apart from the writes that go on.
//!
//! The committer leaves here what it has made durable. A thread takes it off in the order of
//! revisions, many writes a transaction, removes what fell out of history, and lets segments of
//! the journal go. It works when nothing is written, when what waits gets old, and when it takes
//! half of the journal's room. When all of that is taken, the committer waits.
//!
//! A record is removed only once the one that superseded it is in the file, and a floor goes no
//! further than what is in the file: the file alone is always a store as it was at one revision.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustc_hash::FxHashMap;

use crate::Revision;
use crate::disk::{ALL, Changes, Disk};
use crate::journal::{self, Found};
use crate::medium::Medium;
use crate::record::Logged;

/// How long nothing must be written before what waits is folded.
const IDLE: Duration = Duration::from_secs(1);
/// How long anything waits at most before its turn comes.
const AGE: Duration = Duration::from_secs(10);
/// The most records added in a transaction, and about the most bytes.
const SLICE: usize = 4096;
const SLICE_BYTES: usize = 8 << 20;
/// How long after a failure it is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// What waits to be folded, and who waits for that.
pub(crate) struct Fold {
    /// How much of the disk the journal takes at most, unless one write alone takes more.
    room: u64,
    state: Mutex<State>,
    /// Something may have to be done.
    work: Condvar,
    /// Something was done, or could not be.
    done: Condvar,
    /// How many records wait for their removal.
    garbage: AtomicUsize,
}

struct State {
    /// In the order of revisions.
    writes: VecDeque<Logged>,
    /// Records that nothing needs any more, in the order in which they may be removed, each with
    /// the revision that superseded it.
    garbage: VecDeque<(Revision, Revision)>,
    /// Floors that the file does not have yet. Each is there before or with the first removal that
    /// it stands for.
    floors: FxHashMap<Arc<str>, Revision>,
    /// What the file holds.
    folded: Revision,
    /// In order. The last one may still be written to.
    segments: VecDeque<Segment>,
    /// Since when there has been work.
    since: Option<Instant>,
    /// When the last write came.
    written: Instant,
    /// The committer waits.
    pressed: bool,
    closing: bool,
    /// Nobody folds any more.
    ended: bool,
    attempts: u64,
    failure: Option<Arc<redb::Error>>,
}

struct Segment {
    id: u64,
    length: u64,
    /// The newest revision in it.
    last: Revision,
}

impl Fold {
    pub(crate) fn new(
        room: u64,
        folded: Revision,
        found: &mut Found,
        garbage: VecDeque<(Revision, Revision)>,
    ) -> Fold {
        let writes: VecDeque<Logged> = std::mem::take(&mut found.writes).into();
        let segments = found.segments.iter().map(|(id, length, last)| Segment {
            id: *id,
            length: *length,
            last: *last,
        });
        let now = Instant::now();
        Fold {
            room,
            garbage: AtomicUsize::new(garbage.len()),
            state: Mutex::new(State {
                since: (!writes.is_empty() || !garbage.is_empty()).then_some(now),
                writes,
                garbage,
                floors: FxHashMap::default(),
                folded,
                segments: segments.collect(),
                written: now,
                pressed: false,
                closing: false,
                ended: false,
                attempts: 0,
                failure: None,
            }),
            work: Condvar::new(),
            done: Condvar::new(),
        }
    }

    /// Takes in writes that are durable in the last segment begun.
    pub(crate) fn push(&self, writes: Vec<Logged>) {
        let mut state = self.state.lock();
        state.written = Instant::now();
        if let (Some(segment), Some(last)) = (state.segments.back_mut(), writes.last()) {
            segment.last = last.object.revision;
        }
        state.writes.extend(writes);
        self.wake(state);
    }

    /// Takes in what fell out of a bucket's history, and how far that goes.
    pub(crate) fn discard(
        &self,
        bucket: Arc<str>,
        floor: Revision,
        garbage: impl Iterator<Item = (Revision, Revision)>,
    ) {
        let mut state = self.state.lock();
        state.floors.insert(bucket, floor);
        state.garbage.extend(garbage);
        self.garbage.store(state.garbage.len(), Ordering::Relaxed);
        self.wake(state);
    }

    /// Takes in the floor of all buckets.
    pub(crate) fn set_floor(&self, floor: Revision) {
        let mut state = self.state.lock();
        state.floors.insert(ALL.into(), floor);
        self.wake(state);
    }

    /// The thread looks at the time itself, once it knows that there is work.
    fn wake(&self, mut state: parking_lot::MutexGuard<'_, State>) {
        let first = state.since.is_none();
        state.since.get_or_insert_with(Instant::now);
        let much = self.much(&state);
        drop(state);
        if first || much {
            self.work.notify_one();
        }
    }

    fn much(&self, state: &State) -> bool {
        state.unfolded() >= self.room / 2
    }

    pub(crate) fn begun(&self, id: u64, length: u64, after: Revision) {
        self.state.lock().segments.push_back(Segment {
            id,
            length,
            last: after,
        });
    }

    /// Bytes of the segments that hold what is not folded.
    pub(crate) fn unfolded(&self) -> u64 {
        self.state.lock().unfolded()
    }

    /// How long a segment is to be: the journal grows with what is in it.
    pub(crate) fn usual_length(&self) -> u64 {
        let longest = (self.room / 4).min(journal::LONGEST);
        self.unfolded()
            .clamp(longest.min(journal::SHORTEST), longest)
    }

    /// Waits until the journal may take so much more of the disk.
    pub(crate) fn wait_for_room(&self, length: u64) -> io::Result<()> {
        self.wait_until(|unfolded| unfolded + length <= self.room)
    }

    /// Waits until all is folded, so that what the journal takes can be used again.
    pub(crate) fn wait_for_all(&self) -> io::Result<()> {
        self.wait_until(|_| false)
    }

    /// Waits until enough is folded, or all.
    fn wait_until(&self, enough: impl Fn(u64) -> bool) -> io::Result<()> {
        let mut state = self.state.lock();
        let attempts = state.attempts;
        while state.unfolded() > 0 && !enough(state.unfolded()) {
            if state.ended {
                return Err(io::Error::other(
                    "nothing makes room in the journal any more",
                ));
            }
            // One that has failed may go well now.
            if state.attempts > attempts
                && let Some(failure) = &state.failure
            {
                return Err(again(failure));
            }
            state.pressed = true;
            self.work.notify_one();
            self.done.wait(&mut state);
        }
        Ok(())
    }

    /// How many records wait to be folded.
    pub(crate) fn waiting(&self) -> usize {
        self.state.lock().writes.len()
    }

    pub(crate) fn garbage(&self) -> usize {
        self.garbage.load(Ordering::Relaxed)
    }

    /// Folds what there is, and then ends.
    pub(crate) fn close(&self) {
        self.state.lock().closing = true;
        self.work.notify_one();
    }

    /// Works until it is closed.
    pub(crate) fn run(&self, mut disk: Disk, medium: &dyn Medium) {
        // Also on a panic: nobody may wait for a thread that is gone.
        let _end = End(self);
        while let Some(slice) = self.next() {
            let outcome = disk.fold(&Changes {
                records: &slice.records,
                folded: slice.folded,
                garbage: &slice.garbage,
                floors: &slice.floors,
            });
            match outcome {
                Ok(()) => {
                    for id in self.folded(slice) {
                        end(medium, id);
                    }
                }
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "cannot fold the journal into the store's file"
                    );
                    let mut state = self.state.lock();
                    state.attempts += 1;
                    state.failure = Some(Arc::new(error));
                    state.pressed = false;
                    let closing = state.closing;
                    drop(state);
                    self.done.notify_all();
                    if closing {
                        // What is in the journal is safe there.
                        return;
                    }
                    let until = Instant::now() + RETRY;
                    let mut state = self.state.lock();
                    while !state.pressed
                        && !state.closing
                        && !self.work.wait_until(&mut state, until).timed_out()
                    {
                    }
                }
            }
        }
        let ended: Vec<u64> = self.state.lock().segments.drain(..).map(|s| s.id).collect();
        for id in ended {
            end(medium, id);
        }
    }

    /// Waits until something is to be folded; `None`: there is nothing any more.
    fn next(&self) -> Option<Slice> {
        let mut state = self.state.lock();
        loop {
            let Some(since) = state.since else {
                if state.closing {
                    return None;
                }
                state.pressed = false;
                self.done.notify_all();
                self.work.wait(&mut state);
                continue;
            };
            let wait = IDLE
                .saturating_sub(state.written.elapsed())
                .min(AGE.saturating_sub(since.elapsed()));
            if state.closing || state.pressed || self.much(&state) || wait.is_zero() {
                return Some(state.slice());
            }
            self.work.wait_for(&mut state, wait);
        }
    }

    /// Lets go of what was folded. Gives the segments that are no longer needed.
    fn folded(&self, slice: Slice) -> Vec<u64> {
        let mut state = self.state.lock();
        let written: Vec<Logged> = state.writes.drain(..slice.records.len()).collect();
        state.garbage.drain(..slice.garbage.len());
        self.garbage.store(state.garbage.len(), Ordering::Relaxed);
        state.folded = slice.folded;
        for (bucket, floor) in &slice.floors {
            if state.floors.get(bucket) == Some(floor) {
                state.floors.remove(bucket);
            }
        }
        let nothing =
            state.writes.is_empty() && state.garbage.is_empty() && state.floors.is_empty();
        state.since = (!nothing).then(Instant::now);
        state.attempts += 1;
        state.failure = None;
        let mut ended = Vec::new();
        while state.segments.len() > 1
            && let Some(segment) = state
                .segments
                .pop_front_if(|segment| segment.last <= slice.folded)
        {
            ended.push(segment.id);
        }
        state.pressed = false;
        drop(state);
        self.done.notify_all();
        drop((slice, written));
        ended
    }
}

impl State {
    fn unfolded(&self) -> u64 {
        let segments = self.segments.iter();
        segments
            .filter(|segment| segment.last > self.folded)
            .map(|segment| segment.length)
            .sum()
    }

    /// The first part of what waits.
    fn slice(&self) -> Slice {
        let mut bytes = 0;
        let records: Vec<Logged> = self
            .writes
            .iter()
            .take(SLICE)
            .take_while(|write| {
                let fits = bytes < SLICE_BYTES;
                bytes += write.object.value.len();
                fits
            })
            .cloned()
            .collect();
        let folded = records
            .last()
            .map_or(self.folded, |last| last.object.revision);
        // Twice what is added, so that the backlog shrinks under any load.
        let most = SLICE.max(2 * records.len());
        let garbage = self.garbage.iter().take(most);
        let garbage = garbage.take_while(|(_, because)| *because <= folded);
        let floors = self.floors.iter();
        Slice {
            garbage: garbage.map(|(revision, _)| *revision).collect(),
            floors: floors
                .map(|(bucket, floor)| (bucket.clone(), (*floor).min(folded)))
                .collect(),
            records,
            folded,
        }
    }
}

struct Slice {
    records: Vec<Logged>,
    folded: Revision,
    garbage: Vec<Revision>,
    floors: Vec<(Arc<str>, Revision)>,
}

fn end(medium: &dyn Medium, id: u64) {
    // What is left of it is found to be folded when the store is opened.
    if let Err(error) = medium.end_segment(id) {
        tracing::warn!(%error, segment = id, "cannot let a segment of the journal go");
    }
}

/// The failure again, for somebody else.
fn again(error: &redb::Error) -> io::Error {
    match error {
        redb::Error::Io(error) => io::Error::new(error.kind(), error.to_string()),
        error => io::Error::other(error.to_string()),
    }
}

/// The thread that folds. Dropped, it has folded what there was, where the disk let it.
pub(crate) struct Folding {
    fold: Arc<Fold>,
    thread: Option<JoinHandle<()>>,
}

impl Folding {
    pub(crate) fn start(
        fold: Arc<Fold>,
        disk: Disk,
        medium: Arc<dyn Medium>,
    ) -> io::Result<Folding> {
        let thread = thread::Builder::new().name("store-fold".into()).spawn({
            let fold = fold.clone();
            move || fold.run(disk, &*medium)
        })?;
        Ok(Folding {
            fold,
            thread: Some(thread),
        })
    }
}

impl Drop for Folding {
    fn drop(&mut self) {
        self.fold.close();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that folds the journal has panicked");
        }
    }
}

struct End<'a>(&'a Fold);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.state.lock().ended = true;
        self.0.done.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::object::Extension;
    use crate::{EventKind, Key, Stored};

    fn write(revision: Revision) -> Logged {
        Logged {
            object: Arc::new(Stored {
                key: Key::new("/pods", "a"),
                revision,
                created: 2,
                value: Bytes::new(),
                stale: false,
                ext: Extension::new(),
            }),
            kind: EventKind::Put,
            previous: revision - 1,
            at: 0,
            kept: None,
        }
    }

    #[test]
    fn a_slice_leaves_the_file_a_store_of_one_revision() {
        let newest = SLICE as Revision + 10;
        let mut found = Found {
            writes: (2..=newest).map(write).collect(),
            segments: vec![(1, 100, newest - 5), (2, 300, newest)],
            ..Found::default()
        };
        let last = SLICE as Revision + 1;
        let garbage = [
            (2, 3),
            (last - 1, last),
            (last, last + 1),
            (last + 1, last + 2),
        ];
        let fold = Fold::new(500, 1, &mut found, garbage.into());
        fold.discard("/pods".into(), last + 2, std::iter::empty());
        assert_eq!((fold.unfolded(), fold.waiting()), (400, SLICE + 9));

        let slice = fold.next().unwrap();
        assert_eq!((slice.records.len(), slice.folded), (SLICE, last));
        assert_eq!(slice.garbage, [2, last - 1]);
        assert_eq!(slice.floors, [("/pods".into(), last)]);
        assert!(fold.folded(slice).is_empty());
        assert_eq!((fold.unfolded(), fold.garbage()), (400, 2));

        let slice = fold.next().unwrap();
        assert_eq!((slice.records.len(), slice.folded), (9, newest));
        assert_eq!(slice.garbage, [last, last + 1]);
        assert_eq!(slice.floors, [("/pods".into(), last + 2)]);
        // The last segment may still be written to.
        assert_eq!(fold.folded(slice), [1]);
        assert_eq!((fold.unfolded(), fold.waiting(), fold.garbage()), (0, 0, 0));
        fold.close();
        assert!(fold.next().is_none());
    }
}
