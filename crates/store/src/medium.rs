//! What a store lies on, and what can be told from how it is used.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::{DatabaseError, StorageBackend};

use crate::Revision;

/// Where a store lies: its database, the segments of its journal, its note.
pub(crate) trait Medium: Send + Sync {
    /// Opens the database's file.
    fn open(&self) -> Result<Box<dyn StorageBackend>, DatabaseError>;

    /// Called after a failed sync, before the database's file is opened again: makes what is on
    /// the disk what can be read. (After a failed sync, Linux may give back from memory what never
    /// reached the disk, and takes it for written.)
    fn rewrite(&self) -> io::Result<()>;

    /// The segments of the journal, in order.
    fn segments(&self) -> io::Result<Vec<u64>>;

    fn segment(&self, id: u64) -> io::Result<Box<dyn StorageBackend>>;

    /// Makes a segment that begins with `head`, durable and whole or not there at all, with room
    /// for `least` bytes at least and for `usual` where it has to be made. What it holds behind its
    /// head is anything. Writing to its room neither needs more of the disk nor changes the file's
    /// length.
    ///
    /// After an error it may be there all the same; it is not used.
    fn begin_segment(
        &self,
        id: u64,
        head: &[u8],
        least: u64,
        usual: u64,
    ) -> io::Result<Box<dyn StorageBackend>>;

    /// Nothing in a segment is needed any more. After a power loss it may be there all the same.
    fn end_segment(&self, id: u64) -> io::Result<()>;

    /// Notes, apart from the files and without waiting for the disk, that writes up to here are
    /// being acknowledged.
    ///
    /// A newest frame of the journal that is damaged looks like one that a crash cut short, and so
    /// does a newest transaction of the database. The note tells the two apart: what it names was
    /// synced before it was noted.
    fn note(&self, acknowledged: Revision);

    /// What was noted before, where that is known.
    fn noted(&self) -> Option<Revision>;
}

/// What has happened to the database's file since it was opened.
#[derive(Debug, Default)]
pub(crate) struct Signs {
    sync_failed: AtomicBool,
}

impl Signs {
    pub(crate) fn sync_failed(&self) -> bool {
        self.sync_failed.load(Ordering::Acquire)
    }
}

/// A file whose use is observed.
#[derive(Debug)]
pub(crate) struct Observed {
    pub(crate) file: Box<dyn StorageBackend>,
    pub(crate) signs: Arc<Signs>,
}

impl StorageBackend for Observed {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file
            .sync_data()
            .inspect_err(|_| self.signs.sync_failed.store(true, Ordering::Release))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}

/// Whether an operation failed for want of room.
pub(crate) fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}
