//! The store's file: a log of records in a B-tree (redb), keyed by revision.
//!
//! A commit inserts at the tree's right edge; history lies there for free; a start is one ordered
//! scan. Superseded records that fell out of history are removed with later commits, in slices.
//! Removal goes in the order in which they were superseded, a tombstone after all versions it
//! ends: at whatever slice a crash cuts, no deleted object comes back.
//!
//! # When the disk fails
//!
//! A commit that failed before it wrote the file's header is not there. Of one that failed later
//! nothing is taken for granted: the file is opened anew and asked whether the transaction is
//! there. If it cannot be asked, the outcome is unknown until it can.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::{
    Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    TableDefinition,
};

use crate::medium::{Medium, Observed, Signs, is_full};
use crate::record::{Damage, Record};
use crate::{CommitError, Event, Revision};

/// Version of what this module writes. A store that finds a higher one refuses to open.
pub(crate) const FORMAT: u64 = 1;

/// Every write, by its revision. See `record`.
const RECORDS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("records");
/// Per bucket, the newest event that is no longer in history; of buckets that lost any. Under
/// [`ALL`], the oldest revision that is given of any bucket.
const FLOORS: TableDefinition<'_, &str, u64> = TableDefinition::new("floors");
/// No bucket has this name.
pub(crate) const ALL: &str = "";
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const META_FORMAT: &str = "format";

pub(crate) struct Disk {
    medium: Box<dyn Medium>,
    cache_bytes: usize,
    signs: Arc<Signs>,
    /// `None` after a failure, until it could be opened again.
    database: Option<Database>,
}

/// One transaction.
pub(crate) struct Changes<'a> {
    pub(crate) events: &'a [Arc<Event>],
    /// When they are committed, in milliseconds since 1970.
    pub(crate) at: u64,
    /// Records to remove.
    pub(crate) garbage: &'a [Revision],
    pub(crate) floors: &'a [(Arc<str>, Revision)],
}

/// How a transaction failed.
pub(crate) enum Failure {
    /// It is not there and will not be.
    Undone(redb::Error),
    /// It may be there; `Disk::landed` tells once the disk is back.
    Unknown(redb::Error),
}

impl Failure {
    pub(crate) fn into_commit_error(self) -> CommitError {
        match self {
            Failure::Undone(redb::Error::Io(error)) if is_full(&error) => {
                CommitError::Full(Arc::new(error))
            }
            Failure::Undone(error) => CommitError::Io(Arc::new(error)),
            Failure::Unknown(error) => CommitError::Unknown(Arc::new(error)),
        }
    }
}

/// What is wrong with a file's contents.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error(transparent)]
    Database(redb::Error),
    #[error("it is of format {0}")]
    Newer(u64),
    #[error("{0}")]
    Corrupt(String),
}

impl<E: Into<redb::Error>> From<E> for LoadError {
    fn from(error: E) -> LoadError {
        LoadError::Database(error.into())
    }
}

impl Disk {
    /// Opens the file and checks it, not its records: `load` does.
    pub(crate) fn open(mut medium: Box<dyn Medium>, cache_bytes: usize) -> Result<Disk, LoadError> {
        let repaired = Arc::new(AtomicBool::new(false));
        let mut builder = builder(cache_bytes);
        let flag = repaired.clone();
        builder.set_repair_callback(move |_| flag.store(true, Ordering::Relaxed));
        let signs = Arc::new(Signs::default());
        let mut database = open(&mut *medium, &builder, &signs)?;
        check_format(&database)?;
        // A repair has checked all pages, and rightly fell back to the state before a commit that
        // a crash cut short. Without a crash there is no such commit: nothing may fall back.
        if !repaired.load(Ordering::Relaxed) {
            let before = newest_record(&database)?;
            let clean = database.check_integrity()?;
            if newest_record(&database)? != before {
                return Err(LoadError::Corrupt("its newest pages are damaged".into()));
            }
            if !clean {
                tracing::warn!("the store's free-page map was damaged and has been rebuilt");
            }
        }
        Ok(Disk {
            medium,
            cache_bytes,
            signs,
            database: Some(database),
        })
    }

    /// Makes an empty database a store.
    pub(crate) fn initialise(database: &Database) -> Result<(), redb::Error> {
        let transaction = database.begin_write()?;
        transaction.open_table(RECORDS)?;
        transaction.open_table(FLOORS)?;
        transaction.open_table(META)?.insert(META_FORMAT, FORMAT)?;
        transaction.commit()?;
        Ok(())
    }

    /// Adds objects to a store that is being made of a backup; with the last ones, the floor.
    pub(crate) fn import(
        database: &Database,
        events: &[Arc<Event>],
        at: u64,
        floor: Option<Revision>,
    ) -> Result<(), redb::Error> {
        let floors: Vec<_> = floor.map(|floor| (ALL.into(), floor)).into_iter().collect();
        let transaction = database.begin_write()?;
        fill(
            &transaction,
            &Changes {
                events,
                at,
                garbage: &[],
                floors: &floors,
            },
        )?;
        transaction.commit()?;
        Ok(())
    }

    /// Gives every bucket's floor, then every record in the order of revisions.
    pub(crate) fn load<L: Loader>(&self, loader: &mut L) -> Result<(), LoadError> {
        let Some(database) = &self.database else {
            return Err(LoadError::Corrupt("it was closed".into()));
        };
        let transaction = database.begin_read()?;
        for entry in transaction.open_table(FLOORS)?.iter()? {
            let (bucket, floor) = entry?;
            loader.floor(bucket.value(), floor.value());
        }
        let records = transaction.open_table(RECORDS)?;
        let (mut count, mut last) = (0, 0);
        for entry in records.iter()? {
            let (revision, bytes) = entry?;
            let revision = revision.value();
            if revision <= last {
                return Err(LoadError::Corrupt(format!(
                    "record {revision} follows record {last}"
                )));
            }
            let record = Record::decode(revision, bytes.value()).map_err(|damage: Damage| {
                LoadError::Corrupt(format!("record {revision}: {damage}"))
            })?;
            loader
                .record(record)
                .map_err(|reason| LoadError::Corrupt(format!("record {revision}: {reason}")))?;
            (count, last) = (count + 1, revision);
        }
        let expected = records.len()?;
        if count != expected {
            return Err(LoadError::Corrupt(format!(
                "it holds {count} records instead of {expected}"
            )));
        }
        Ok(())
    }

    /// What was acknowledged before, where that is known (see [`Medium::note`]).
    pub(crate) fn noted(&self) -> Option<Revision> {
        self.medium.noted()
    }

    /// Commits durably. On an error the file has been opened anew, or will be by the next call.
    pub(crate) fn commit(&mut self, changes: &Changes<'_>) -> Result<(), Failure> {
        self.commit_synced(changes)?;
        if let Some(last) = changes.events.last() {
            self.medium.note(last.revision);
        }
        Ok(())
    }

    fn commit_synced(&mut self, changes: &Changes<'_>) -> Result<(), Failure> {
        let (database, signs) = self.database().map_err(Failure::Undone)?;
        let error = match transact(database, changes, signs) {
            Ok(()) => return Ok(()),
            Err(Aborted::Before(error)) => {
                // Opened again by the next call.
                self.database = None;
                return Err(Failure::Undone(error));
            }
            Err(Aborted::Committing(error)) => error,
        };
        self.database = None;
        let Some(last) = changes.events.last() else {
            return Err(Failure::Undone(error));
        };
        match self.landed(last.revision) {
            Ok(true) => {
                tracing::warn!(%error, "a commit reported an error, but is on the disk");
                Ok(())
            }
            Ok(false) => Err(Failure::Undone(error)),
            Err(_) => Err(Failure::Unknown(error)),
        }
    }

    /// Whether the transaction that wrote this revision, the newest, is on the disk.
    pub(crate) fn landed(&mut self, revision: Revision) -> Result<bool, redb::Error> {
        let transaction = self.database()?.0.begin_read()?;
        Ok(transaction.open_table(RECORDS)?.get(revision)?.is_some())
    }

    fn database(&mut self) -> Result<(&Database, &Signs), redb::Error> {
        if self.database.is_none() {
            if self.signs.sync_failed() {
                self.medium.rewrite()?;
            }
            self.signs = Arc::default();
            self.database = Some(open(
                &mut *self.medium,
                &builder(self.cache_bytes),
                &self.signs,
            )?);
        }
        let database = self.database.as_ref().ok_or(redb::Error::DatabaseClosed)?;
        Ok((database, &self.signs))
    }
}

fn open(
    medium: &mut dyn Medium,
    builder: &Builder,
    signs: &Arc<Signs>,
) -> Result<Database, DatabaseError> {
    let file = Observed {
        file: medium.open()?,
        signs: signs.clone(),
    };
    builder.create_with_backend(file)
}

fn builder(cache_bytes: usize) -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(cache_bytes);
    builder
}

/// Takes in what a file holds.
pub(crate) trait Loader {
    fn floor(&mut self, bucket: &str, floor: Revision);
    /// # Errors
    /// What is wrong with the record, given those before it.
    fn record(&mut self, record: Record<'_>) -> Result<(), String>;
}

enum Aborted {
    Before(redb::Error),
    Committing(redb::Error),
}

fn transact(database: &Database, changes: &Changes<'_>, signs: &Signs) -> Result<(), Aborted> {
    let transaction = database
        .begin_write()
        .map_err(|error| Aborted::Before(error.into()))?;
    fill(&transaction, changes).map_err(Aborted::Before)?;
    signs.begin_commit();
    transaction
        .commit()
        .map_err(|error| match signs.header_touched() {
            true => Aborted::Committing(error.into()),
            false => Aborted::Before(error.into()),
        })
}

fn fill(transaction: &redb::WriteTransaction, changes: &Changes<'_>) -> Result<(), redb::Error> {
    let mut records = transaction.open_table(RECORDS)?;
    for revision in changes.garbage {
        records.remove(revision)?;
    }
    for event in changes.events {
        let record = Record {
            revision: event.revision,
            kind: event.kind,
            created: event.object.created,
            previous: event
                .previous
                .as_ref()
                .map_or(0, |previous| previous.revision),
            at: changes.at,
            bucket: &event.object.key.bucket,
            name: &event.object.key.name,
            value: &event.object.value,
        };
        record.encode(
            records
                .insert_reserve(event.revision, record.len())?
                .as_mut(),
        );
    }
    if !changes.floors.is_empty() {
        let mut floors = transaction.open_table(FLOORS)?;
        for (bucket, floor) in changes.floors {
            floors.insert(&**bucket, floor)?;
        }
    }
    Ok(())
}

fn check_format(database: &Database) -> Result<(), LoadError> {
    let transaction = database.begin_read()?;
    let format = match transaction.open_table(META) {
        Ok(meta) => meta.get(META_FORMAT)?.map(|format| format.value()),
        Err(redb::TableError::TableDoesNotExist(_)) => None,
        Err(error) => return Err(error.into()),
    };
    match format {
        None => Err(LoadError::Corrupt("it is not a store of Gantry".into())),
        Some(format) if format > FORMAT => Err(LoadError::Newer(format)),
        Some(_) => Ok(()),
    }
}

fn newest_record(database: &Database) -> Result<(Option<Revision>, u64), LoadError> {
    let records = database.begin_read()?.open_table(RECORDS)?;
    let newest = records.last()?.map(|(revision, _)| revision.value());
    Ok((newest, records.len()?))
}
