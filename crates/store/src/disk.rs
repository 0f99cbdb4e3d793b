//! The store's file: a log of records in a B-tree (redb), keyed by revision.
//!
//! What the journal holds is folded into it, many writes in one transaction, in the order of their
//! revisions: it is the whole store as of the newest revision folded, and needs the journal only
//! for what came later. History lies at the tree's right edge for free; a start is one ordered
//! scan. Superseded records that fell out of history are removed with later transactions, in
//! slices. Removal goes in the order in which they were superseded, a tombstone after all versions
//! it ends: at whatever slice a crash cuts, no deleted object comes back.
//!
//! # When the disk fails
//!
//! A transaction that failed may be there or not. It is carried out again on the file as it is
//! then, which comes to the same: inserting what is there and removing what is not change nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::{
    Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    TableDefinition,
};
use rustc_hash::FxHashSet;

use crate::medium::{Medium, Observed, Signs};
use crate::object::FIRST;
use crate::record::{Damage, Logged, Record};
use crate::{Revision, Stored};

/// Version of what this module writes. A store that finds a higher one refuses to open. Of format 1
/// is a store without a journal; it becomes one of format 2 when it is opened.
pub(crate) const FORMAT: u64 = 2;

/// Every write, by its revision. See `record`.
const RECORDS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("records");
/// Per bucket, the newest event that is no longer in history; of buckets that lost any. Under
/// [`ALL`], the oldest revision that is given of any bucket.
const FLOORS: TableDefinition<'_, &str, u64> = TableDefinition::new("floors");
/// No bucket has this name.
pub(crate) const ALL: &str = "";
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const META_FORMAT: &str = "format";
/// The newest revision that is in the file, whether or not its record was removed since.
const META_FOLDED: &str = "folded";

pub(crate) struct Disk {
    medium: Arc<dyn Medium>,
    cache_bytes: usize,
    signs: Arc<Signs>,
    /// `None` after a failure, until it could be opened again.
    database: Option<Database>,
}

/// One transaction.
pub(crate) struct Changes<'a> {
    /// Records to add, in the order of their revisions.
    pub(crate) records: &'a [Logged],
    /// The newest revision that the file then holds.
    pub(crate) folded: Revision,
    /// Records to remove; those to be added among them are not.
    pub(crate) garbage: &'a [Revision],
    pub(crate) floors: &'a [(Arc<str>, Revision)],
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
    #[error("{0}")]
    Sealed(String),
    /// Of a segment of the journal.
    #[error("segment {0} of the journal: {1}")]
    Segment(u64, String),
}

impl<E: Into<redb::Error>> From<E> for LoadError {
    fn from(error: E) -> LoadError {
        LoadError::Database(error.into())
    }
}

impl Disk {
    /// Opens the file and checks it, not its records: `load` does.
    pub(crate) fn open(medium: Arc<dyn Medium>, cache_bytes: usize) -> Result<Disk, LoadError> {
        let repaired = Arc::new(AtomicBool::new(false));
        let mut builder = builder(cache_bytes);
        let flag = repaired.clone();
        builder.set_repair_callback(move |_| flag.store(true, Ordering::Relaxed));
        let signs = Arc::new(Signs::default());
        let mut database = open(&*medium, &builder, &signs)?;
        let format = check_format(&database)?;
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
        if format < FORMAT {
            upgrade(&database)?;
        }
        Ok(Disk {
            medium,
            cache_bytes,
            signs,
            database: Some(database),
        })
    }

    /// The newest revision that the file holds.
    pub(crate) fn folded(&self) -> Result<Revision, LoadError> {
        let Some(database) = &self.database else {
            return Err(LoadError::Corrupt("it was closed".into()));
        };
        let folded = database
            .begin_read()?
            .open_table(META)?
            .get(META_FOLDED)?
            .map(|folded| folded.value());
        folded.ok_or_else(|| LoadError::Corrupt("it does not say how new it is".into()))
    }

    /// Makes an empty database a store.
    pub(crate) fn initialise(database: &Database) -> Result<(), redb::Error> {
        let transaction = database.begin_write()?;
        transaction.open_table(RECORDS)?;
        transaction.open_table(FLOORS)?;
        {
            let mut meta = transaction.open_table(META)?;
            meta.insert(META_FORMAT, FORMAT)?;
            meta.insert(META_FOLDED, FIRST)?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// Adds objects to a store that is being made of a backup; with the last ones, the floor.
    pub(crate) fn import(
        database: &Database,
        records: &[Logged],
        floor: Option<Revision>,
    ) -> Result<(), redb::Error> {
        let floors: Vec<_> = floor.map(|floor| (ALL.into(), floor)).into_iter().collect();
        let newest = records.last().map(|last| last.object.revision);
        let changes = Changes {
            records,
            folded: floor.or(newest).unwrap_or(FIRST),
            garbage: &[],
            floors: &floors,
        };
        transact(database, &changes)
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

    /// Carries out a transaction durably. After an error it may be there or not; the next call
    /// opens the file anew.
    pub(crate) fn fold(&mut self, changes: &Changes<'_>) -> Result<(), redb::Error> {
        let folded = transact(self.database()?, changes);
        if folded.is_err() {
            self.database = None;
        }
        folded
    }

    fn database(&mut self) -> Result<&Database, redb::Error> {
        if self.database.is_none() {
            if self.signs.sync_failed() {
                self.medium.rewrite()?;
            }
            self.signs = Arc::default();
            self.database = Some(open(
                &*self.medium,
                &builder(self.cache_bytes),
                &self.signs,
            )?);
        }
        self.database.as_ref().ok_or(redb::Error::DatabaseClosed)
    }
}

fn open(
    medium: &dyn Medium,
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
    fn record(&mut self, record: Record<'_>) -> Result<Arc<Stored>, String>;
}

fn transact(database: &Database, changes: &Changes<'_>) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    fill(&transaction, changes)?;
    transaction.commit()?;
    Ok(())
}

fn fill(transaction: &redb::WriteTransaction, changes: &Changes<'_>) -> Result<(), redb::Error> {
    let mut records = transaction.open_table(RECORDS)?;
    for revision in changes.garbage {
        records.remove(revision)?;
    }
    let garbage: FxHashSet<Revision> = changes.garbage.iter().copied().collect();
    for logged in changes.records {
        if garbage.contains(&logged.object.revision) {
            continue;
        }
        let record = logged.record();
        record.encode(
            records
                .insert_reserve(record.revision, record.len())?
                .as_mut(),
        );
    }
    let mut floors = transaction.open_table(FLOORS)?;
    for (bucket, floor) in changes.floors {
        floors.insert(&**bucket, floor)?;
    }
    transaction
        .open_table(META)?
        .insert(META_FOLDED, changes.folded)?;
    Ok(())
}

/// Makes a store of format 1 one of this format. Its file holds all of it.
fn upgrade(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let records = transaction.open_table(RECORDS)?;
        let mut folded = records
            .last()?
            .map_or(FIRST, |(revision, _)| revision.value());
        // A removed tombstone may have been the newest record of all.
        for entry in transaction.open_table(FLOORS)?.iter()? {
            folded = folded.max(entry?.1.value());
        }
        let mut meta = transaction.open_table(META)?;
        meta.insert(META_FOLDED, folded)?;
        meta.insert(META_FORMAT, FORMAT)?;
    }
    transaction.commit()?;
    Ok(())
}

fn check_format(database: &Database) -> Result<u64, LoadError> {
    let transaction = database.begin_read()?;
    let format = match transaction.open_table(META) {
        Ok(meta) => meta.get(META_FORMAT)?.map(|format| format.value()),
        Err(redb::TableError::TableDoesNotExist(_)) => None,
        Err(error) => return Err(error.into()),
    };
    match format {
        None => Err(LoadError::Corrupt("it is not a store of Gantry".into())),
        Some(format) if format > FORMAT => Err(LoadError::Newer(format)),
        Some(format) => Ok(format),
    }
}

fn newest_record(database: &Database) -> Result<(Option<Revision>, u64), LoadError> {
    let records = database.begin_read()?.open_table(RECORDS)?;
    let newest = records.last()?.map(|(revision, _)| revision.value());
    Ok((newest, records.len()?))
}
