//! Why a read or a write was not carried out.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::{Revision, Stored};

/// The error a failed transaction ended with; shared by all writes that were in it.
pub(crate) type Cause = Arc<dyn std::error::Error + Send + Sync>;

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot write to {}", path.display())]
    Unwritable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is in use by another process", path.display())]
    InUse { path: PathBuf },
    #[error("{} was written by a newer version (format {found}; this version knows {supported})", path.display())]
    Newer {
        path: PathBuf,
        found: u64,
        supported: u64,
    },
    /// Nothing of it is served. Opening may have changed the file (the database repairs what it
    /// can before it is checked): to save what can be saved, copy it before opening it again.
    #[error("{} is damaged: {reason}", path.display())]
    Corrupt { path: PathBuf, reason: String },
    /// It is whole, but what is kept of some values cannot be opened (see [`crate::Keeper`]).
    #[error("{}: {reason}", path.display())]
    Sealed { path: PathBuf, reason: String },
    #[error("cannot read {}", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot start the store's thread")]
    Thread(#[source] io::Error),
}

/// Why a write was not acknowledged.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommitError {
    /// The key is not as the write expects it. Nothing was written.
    #[error("the object is not as the write expects it")]
    Conflict {
        /// The object as it is; `None`: there is none. Of several writes, the first that failed.
        current: Option<Arc<Stored>>,
    },
    /// The write itself is malformed. Nothing was written.
    #[error("cannot write {key}: {reason}")]
    Invalid { key: String, reason: &'static str },
    /// There is no room on the disk. Nothing was written; the store works on and writes again
    /// once there is room.
    #[error("no room on the disk for the write")]
    Full(#[source] Cause),
    /// The disk failed. Nothing was written; the store tries the disk again with the next write.
    #[error("cannot write to the disk")]
    Io(#[source] Cause),
    /// The disk failed in the middle of the commit, and again when this was to be noted. Nobody
    /// sees the write, and with the next one that succeeds it is undone; until then it may be there
    /// after a restart.
    #[error("the commit failed half-way, its outcome is not known")]
    Unknown(#[source] Cause),
    /// The store was closed. Nothing was written.
    #[error("the store is closed")]
    Closed,
}

/// Why the state or the events of a revision cannot be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The history of this bucket no longer goes back so far.
    #[error("the revision is no longer retained, the oldest is {oldest}")]
    Compacted { oldest: Revision },
    /// There was no such write yet.
    #[error("the revision is in the future, the newest is {newest}")]
    Future { newest: Revision },
}
