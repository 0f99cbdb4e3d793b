//! What the store's file lies on, and what can be told from how it is used.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::{DatabaseError, StorageBackend};

use crate::Revision;

/// The database's header, which names the newest transaction, lies before this offset; all else
/// lies behind it.
const HEADER: u64 = 512;

/// Where the file lies.
pub(crate) trait Medium: Send {
    fn open(&mut self) -> Result<Box<dyn StorageBackend>, DatabaseError>;

    /// Called after a failed sync, before the file is opened again: makes what is on the disk what
    /// can be read. (After a failed sync, Linux may give back from memory what never reached the
    /// disk, and takes it for written.)
    fn rewrite(&mut self) -> io::Result<()>;

    /// Notes, apart from the file and without waiting for the disk, that writes up to here are
    /// being acknowledged.
    ///
    /// The database takes a newest transaction whose pages are damaged for one that a crash cut
    /// short, and falls back to the one before it. The note tells the two apart: what it names was
    /// synced before it was noted.
    fn note(&mut self, acknowledged: Revision);

    /// What was noted last, where that is known.
    fn noted(&self) -> Option<Revision>;
}

/// What has happened to the file since it was opened.
#[derive(Debug, Default)]
pub(crate) struct Signs {
    sync_failed: AtomicBool,
    header_touched: AtomicBool,
}

impl Signs {
    pub(crate) fn sync_failed(&self) -> bool {
        self.sync_failed.load(Ordering::Acquire)
    }

    /// From now on, `header_touched` is about what follows.
    pub(crate) fn begin_commit(&self) {
        self.header_touched.store(false, Ordering::Release);
    }

    /// Whether the header may have been written. Before that, no transaction can be there.
    pub(crate) fn header_touched(&self) -> bool {
        self.header_touched.load(Ordering::Acquire)
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
        let written = self.file.write(offset, data);
        // A header that there was no room for has not been written.
        if offset < HEADER && !written.as_ref().is_err_and(is_full) {
            self.signs.header_touched.store(true, Ordering::Release);
        }
        written
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
