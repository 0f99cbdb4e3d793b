//! The handle: reads, writes, watches.

use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::{io, thread};

use crate::committer::{Committer, Durable};
use crate::disk::{Disk, LoadError};
use crate::fold::{Fold, Folding};
use crate::folder::Folder;
use crate::journal::{self, Found, Journal};
use crate::load::Loaded;
use crate::medium::Medium;
use crate::scheduling;
use crate::snapshot::Snapshot;
use crate::state::{Objects, Shared};
use crate::watch::Watch;
use crate::{
    Backup, CommitError, Extension, Key, OpenError, Options, ReadError, Revision, Stats, Stored,
    Write,
};

/// The most bytes of a bucket's or an object's name.
const NAME_LIMIT: usize = 4096;

/// A store. Clones are handles of the same store; it closes when [`Store::close`] is called or the
/// last handle is dropped.
#[derive(Clone)]
pub struct Store {
    owner: Arc<Owner>,
}

struct Owner {
    shared: Arc<Shared>,
    ended: tokio::sync::watch::Receiver<()>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.queue.close();
    }
}

impl Store {
    /// Opens the store in a folder, making both if they are not there. The folder is this
    /// process's alone until the store is closed.
    ///
    /// Reads and checks every record: call it where blocking is allowed.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(dir: &Path, options: Options) -> Result<Store, OpenError> {
        let folder = Folder::open(dir)?;
        let path = folder.file();
        Store::open_on(Arc::new(folder), &path, options)
    }

    /// `path` is what errors name.
    pub(crate) fn open_on(
        medium: Arc<dyn Medium>,
        path: &Path,
        options: Options,
    ) -> Result<Store, OpenError> {
        let Opened {
            disk,
            mut loaded,
            folded,
            mut found,
        } = load(&medium, path, &options)?;
        let garbage = std::mem::take(&mut loaded.garbage);
        let shut_until = loaded.shut_until;
        let fold = Arc::new(Fold::new(
            options.journal_bytes,
            folded,
            &mut found,
            garbage,
        ));
        let journal = Journal::new(medium.clone(), fold.clone(), &found);
        let folding = Folding::start(fold.clone(), disk, medium).map_err(OpenError::Thread)?;
        let durable = Durable {
            journal,
            fold,
            _folding: folding,
        };
        let committer = Committer::new(options, Some(durable), loaded);
        let store = Store::start(committer).map_err(OpenError::Thread)?;
        if shut_until > 0 {
            store.compact(shut_until);
        }
        Ok(store)
    }

    /// Reads and checks the store in a folder as opening it does, and leaves it.
    pub(crate) fn check(dir: &Path) -> Result<(), OpenError> {
        let folder = Folder::open(dir)?;
        let path = folder.file();
        let medium: Arc<dyn Medium> = Arc::new(folder);
        // As it is kept: nobody's keys are needed.
        load(&medium, &path, &Options::default())?;
        Ok(())
    }

    /// A store that lives as long as its handles: the same in everything but that nothing is
    /// written to disk.
    pub fn in_memory(options: Options) -> Store {
        let committer = Committer::new(options, None, Loaded::default());
        let shared = committer.shared().clone();
        Store::start(committer).unwrap_or_else(|error| {
            tracing::error!(%error, "cannot start the store's thread, the store is closed");
            let (_, ended) = tokio::sync::watch::channel(());
            shared.queue.close();
            shared.end();
            Store {
                owner: Arc::new(Owner { shared, ended }),
            }
        })
    }

    fn start(committer: Committer) -> Result<Store, io::Error> {
        let shared = committer.shared().clone();
        let (alive, ended) = tokio::sync::watch::channel(());
        thread::Builder::new().name("store".into()).spawn(move || {
            // Dropped last, when the file is closed.
            let _alive = alive;
            scheduling::run_soon();
            committer.run();
        })?;
        Ok(Store {
            owner: Arc::new(Owner { shared, ended }),
        })
    }

    fn shared(&self) -> &Shared {
        &self.owner.shared
    }

    /// Carries out one write and returns the object as written (for a delete: its last state).
    /// When it returns, the write is durable and every reader sees it.
    ///
    /// Cancel-safe: a call dropped before the write was queued has done nothing; one dropped later
    /// leaves the write to be carried out.
    ///
    /// # Errors
    /// See [`CommitError`]. On all but `Unknown`, nothing was written.
    pub async fn commit(&self, write: Write) -> Result<Arc<Stored>, CommitError> {
        self.commit_with(write, Extension::new()).await
    }

    /// [`Store::commit`] of an object whose parsed view the caller has at hand: it is there
    /// ([`Stored::ext`]) before any reader or watcher sees the object.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub async fn commit_with(
        &self,
        write: Write,
        ext: Extension,
    ) -> Result<Arc<Stored>, CommitError> {
        let mut written = self.commit_all_with(vec![write], ext).await?;
        written.pop().ok_or(CommitError::Closed)
    }

    /// Carries out several writes together or not at all, at consecutive revisions. Each is
    /// checked against what those before it leave; a version written by the same call cannot be
    /// expected by its revision.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub async fn commit_all(&self, writes: Vec<Write>) -> Result<Vec<Arc<Stored>>, CommitError> {
        self.commit_all_with(writes, Extension::new()).await
    }

    /// [`Store::commit_all`] where the caller has the parsed view of what the first write makes at hand, as
    /// in [`Store::commit_with`].
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub async fn commit_all_with(
        &self,
        writes: Vec<Write>,
        ext: Extension,
    ) -> Result<Vec<Arc<Stored>>, CommitError> {
        for write in &writes {
            if let Some(reason) = malformed(write) {
                return Err(CommitError::Invalid {
                    key: write.key.to_string(),
                    reason,
                });
            }
        }
        if writes.is_empty() {
            return Ok(Vec::new());
        }
        let answer = self.shared().queue.push(writes, ext).await?;
        answer
            .await
            .unwrap_or_else(|gone| Err(CommitError::Unknown(Arc::new(gone))))
    }

    /// Returns when every write that was queued before is carried out or refused.
    ///
    /// # Errors
    /// The store is closed.
    pub async fn settled(&self) -> Result<(), CommitError> {
        // The committer takes one thing after the other: a request that asks for nothing waits its turn.
        let answer = self.shared().queue.push(vec![], Extension::new()).await?;
        let answered = answer
            .await
            .unwrap_or_else(|gone| Err(CommitError::Unknown(Arc::new(gone))));
        answered.map(|_| ())
    }

    /// The newest version of an object.
    pub fn get(&self, key: &Key) -> Option<Arc<Stored>> {
        self.shared()
            .state
            .read()
            .buckets
            .get(&key.bucket)?
            .objects
            .get(&key.name)
            .cloned()
    }

    /// The newest committed revision of the whole store.
    pub fn revision(&self) -> Revision {
        self.shared().newest()
    }

    /// The oldest revision whose state and later events can be given in *every* bucket. A bucket
    /// that changes seldom goes further back.
    pub fn oldest(&self) -> Revision {
        let state = self.shared().state.read();
        state
            .buckets
            .values()
            .map(|slot| slot.channel.log.read().floor())
            .fold(state.floor, Revision::max)
    }

    /// Lets go of the history before a revision, in all buckets, those without objects too: from
    /// now on, neither the states nor the watches of earlier revisions are given. The room is
    /// given back soon after. A revision not yet reached stands for the newest.
    pub fn compact(&self, revision: Revision) {
        let mut state = self.shared().state.write();
        state.floor = state.floor.max(revision.min(state.revision));
    }

    /// A bucket as it is. Costs the same for any number of objects.
    pub fn snapshot(&self, bucket: &str) -> Snapshot {
        let state = self.shared().state.read();
        Snapshot {
            revision: state.revision,
            objects: state
                .buckets
                .get(bucket)
                .map_or_else(Objects::new, |slot| slot.objects.clone()),
        }
    }

    /// A bucket as it was. Costs a little for each event of the bucket since then; asked for again,
    /// as for the pages of one list, next to nothing.
    ///
    /// # Errors
    /// The revision is not retained any more, or has not been written yet.
    pub fn snapshot_at(&self, bucket: &str, revision: Revision) -> Result<Snapshot, ReadError> {
        let state = self.shared().state.read();
        state.check(revision)?;
        let Some(slot) = state.buckets.get(bucket) else {
            return Ok(Snapshot {
                revision,
                objects: Objects::new(),
            });
        };
        let mut objects = slot.objects.clone();
        let channel = slot.channel.clone();
        // Both taken while the state is held, so that they are of one moment; undone without locks.
        let later = channel.log.read().after(revision);
        drop(state);
        let later = later?;
        if later.is_empty() {
            return Ok(Snapshot { revision, objects });
        }
        if let Some(objects) = channel.rebuilt(revision) {
            return Ok(Snapshot { revision, objects });
        }
        for event in later.iter().rev() {
            match &event.previous {
                Some(previous) => objects.insert(previous.key.name.clone(), previous.clone()),
                None => objects.remove(&event.object.key.name),
            };
        }
        channel.keep_rebuilt(revision, objects.clone());
        Ok(Snapshot { revision, objects })
    }

    /// Every event of a bucket after a revision, those of the past first.
    ///
    /// # Errors
    /// The revision is not retained any more, or has not been written yet.
    pub fn watch(&self, bucket: &str, after: Revision) -> Result<Watch, ReadError> {
        let channel = self.channel(bucket, after)?;
        let bell = channel.bell.subscribe();
        let position = channel.log.read().position_after(after)?;
        Ok(Watch {
            shared: self.owner.shared.clone(),
            channel,
            bell,
            position,
            revision: after,
        })
    }

    fn channel(
        &self,
        bucket: &str,
        after: Revision,
    ) -> Result<Arc<crate::history::Channel>, ReadError> {
        let state = self.shared().state.read();
        state.check(after)?;
        if let Some(slot) = state.buckets.get(bucket) {
            return Ok(slot.channel.clone());
        }
        drop(state);
        Ok(self
            .shared()
            .state
            .write()
            .slot(&bucket.into())
            .channel
            .clone())
    }

    /// The buckets that hold objects, in no order.
    pub fn buckets(&self) -> Vec<Arc<str>> {
        let state = self.shared().state.read();
        state
            .buckets
            .iter()
            .filter(|(_, slot)| !slot.objects.is_empty())
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// The whole store as it is, as bytes. Taking it costs little; what is written meanwhile is
    /// not in it.
    pub fn backup(&self) -> Backup {
        let state = self.shared().state.read();
        let revision = state.revision;
        let buckets: Vec<Objects> = state
            .buckets
            .values()
            .map(|slot| slot.objects.clone())
            .collect();
        drop(state);
        let objects = buckets.iter().flat_map(Objects::values).cloned();
        Backup::new(
            revision,
            objects.collect(),
            self.shared().options.keeper.clone(),
        )
    }

    /// How many objects a bucket holds.
    pub fn count(&self, bucket: &str) -> usize {
        self.shared()
            .state
            .read()
            .buckets
            .get(bucket)
            .map_or(0, |slot| slot.objects.len())
    }

    pub fn stats(&self) -> Stats {
        let shared = self.shared();
        let mut stats = Stats {
            oldest: self.oldest(),
            writes: shared.figures.writes.load(Ordering::Relaxed),
            commits: shared.figures.commits.load(Ordering::Relaxed),
            failures: shared.figures.failures.load(Ordering::Relaxed),
            ..Stats::default()
        };
        if let Some(fold) = &shared.fold {
            stats.garbage = fold.garbage();
            stats.unfolded = fold.waiting();
            stats.journal_bytes = fold.unfolded();
        }
        let state = shared.state.read();
        stats.revision = state.revision;
        for slot in state.buckets.values() {
            let log = slot.channel.log.read();
            stats.objects += slot.objects.len();
            stats.buckets += usize::from(!slot.objects.is_empty());
            stats.history_events += log.len();
            stats.history_bytes += log.bytes();
        }
        stats
    }

    /// Closes the store for all its handles: takes no more writes, carries out those that are
    /// queued, and returns when nothing of the store is in use any more. Reads still work
    /// afterwards, watches end.
    pub async fn close(self) {
        self.shared().queue.close();
        let mut ended = self.owner.ended.clone();
        // An error says that the sender, which the committer's thread holds, is gone.
        while ended.changed().await.is_ok() {}
    }
}

/// What opening a store gives.
struct Opened {
    disk: Disk,
    loaded: Loaded,
    /// The newest revision in the store's file.
    folded: Revision,
    /// What came later.
    found: Found,
}

fn load(medium: &Arc<dyn Medium>, path: &Path, options: &Options) -> Result<Opened, OpenError> {
    // The database trusts some of what it reads: what it runs into then is damage too.
    let read = panic::catch_unwind(AssertUnwindSafe(|| {
        let disk = Disk::open(medium.clone(), options.cache_bytes)?;
        let folded = disk.folded()?;
        let mut loaded = Loaded::new(options.keeper.clone());
        disk.load(&mut loaded)?;
        if loaded.state.revision > folded {
            return Err(LoadError::Corrupt(format!(
                "it holds revision {}, but says that it ends at {folded}",
                loaded.state.revision
            )));
        }
        let found = journal::replay(&**medium, folded, &mut loaded)?;
        // A removed tombstone may have been the newest record of all.
        loaded.state.revision = found.newest;
        if let Some(noted) = medium.noted()
            && noted > found.newest
        {
            let reason = format!(
                "its newest record is {}, but writes up to {noted} were acknowledged",
                found.newest
            );
            return Err(match found.last_id {
                0 => LoadError::Corrupt(reason),
                id => LoadError::Segment(id, reason),
            });
        }
        loaded.finish().map_err(LoadError::Sealed)?;
        Ok(Opened {
            disk,
            loaded,
            folded,
            found,
        })
    }));
    read.unwrap_or_else(|_| Err(LoadError::Corrupt("its pages make no sense".into())))
        .map_err(|error| OpenError::of(path, error))
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("revision", &self.revision())
            .finish_non_exhaustive()
    }
}

fn malformed(write: &Write) -> Option<&'static str> {
    let name = |name: &str| name.is_empty() || name.len() > NAME_LIMIT;
    if name(&write.key.bucket) {
        return Some("the bucket's name is empty or too long");
    }
    if name(&write.key.name) {
        return Some("the name is empty or too long");
    }
    if write
        .op
        .stamp()
        .is_some_and(|stamp| stamp > write.op.bytes().len())
    {
        return Some("the stamp's offset is beyond the end of the value");
    }
    if u32::try_from(write.op.bytes().len()).is_err() {
        return Some("the value is too large");
    }
    None
}
