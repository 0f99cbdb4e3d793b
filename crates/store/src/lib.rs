//! The durable, revisioned object store under an API server: what etcd and a watch cache are to
//! Kubernetes, in one.
//!
//! * **One counter.** Every write gets the next [`Revision`]; it is an object's `resourceVersion`
//!   and a watch's position. It survives restarts and is never reused.
//! * **Reads cost nothing to others.** The newest state of a bucket is a persistent ordered map;
//!   a [`Snapshot`] is a copy of its root. Readers, writers and the disk never wait for each other.
//! * **Watches share one log.** A bucket's last events are kept once; a [`Watch`] is a position in
//!   them, not a queue. One that falls out of the retained history ends with [`Lagged`].
//! * **Acknowledged means durable.** One committer takes all queued writes, checks what they
//!   expect, gives them revisions, appends them to a journal with one sync, shows them to readers
//!   and watchers, and only then answers. Nobody ever sees a write that a power loss could undo.
//! * **The journal is short.** Another thread folds it into a database, in large transactions, when
//!   nothing else is to be done or much has gathered. A closed store is the database alone.
//!
//! Objects are opaque bytes. Callers serialise outside any lock, and the store inserts the decimal
//! revision at a given offset ([`Op::Put`]), so that an object is serialised once in its life.
//!
//! # What is bounded
//!
//! The newest state is held in memory whole. History (superseded values, tombstones, events) is
//! bounded by age, by number a bucket and by bytes a store ([`Options`]). What falls out of it
//! is removed from disk in bounded slices. Queued writes are bounded by bytes: when the queue is
//! full, [`Store::commit`] waits. So is the journal: when it is full, the committer waits until a
//! part of it is folded.
//!
//! # What is on disk
//!
//! The values themselves, or what a [`Keeper`] makes of them: in the journal, in the database and in
//! backups.
//!
//! # Where to begin
//!
//! `committer` is the way of a write, `journal` what makes it durable, `fold` what becomes of it,
//! `disk` the database, `folder` the files.
//!
//! # Backups
//!
//! [`Store::backup`] gives the newest state as bytes, while the store goes on; [`BackupReader`]
//! reads and checks them; [`Store::restore`] makes a store of them.

// The tests' workload, which names this crate, is compiled into it and into `tests/`.
#[cfg(test)]
extern crate self as gantry_store;

mod backup;
mod committer;
mod disk;
mod error;
mod fold;
mod folder;
mod history;
mod journal;
mod keep;
mod load;
mod medium;
mod object;
mod options;
mod pace;
#[cfg(test)]
mod power_tests;
mod queue;
mod record;
mod restore;
mod scheduling;
mod segments;
mod snapshot;
mod state;
mod store;
mod watch;

pub use backup::{Backup, BackupError, BackupInfo, BackupReader};
pub use error::{CommitError, OpenError, ReadError};
pub use keep::{KeepError, Keeper, Opened};
pub use object::{Event, EventKind, Expect, Extension, Key, Op, Revision, Stored, Write};
pub use options::{Options, Stats};
pub use restore::RestoreError;
pub use snapshot::{Range, Snapshot};
pub use store::Store;
pub use watch::{Batch, Lagged, Watch};
