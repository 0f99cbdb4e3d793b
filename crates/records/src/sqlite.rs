//! Records in an SQLite file: the default, beside the other data of an embedded fleet.

use std::{fs::OpenOptions, os::unix::fs::OpenOptionsExt, path::Path, time::Duration};

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use tokio::sync::OnceCell;

use crate::{sql, store::Error};

const MIGRATIONS: &[(i64, &str, &str)] = &[(
    1,
    "operations",
    include_str!("../migrations/sqlite/0001_operations.sql"),
)];

/// An SQLite file. Any number of processes may read it while one writes.
#[derive(Debug)]
pub struct Sqlite {
    pool: SqlitePool,
    ready: OnceCell<()>,
}

impl Sqlite {
    /// Opens the file, or makes it, for its owner alone.
    pub fn open(path: &Path) -> Result<Self, Error> {
        // SQLite gives the files of its log the mode of the database.
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(|source| Error::File {
                path: path.display().to_string(),
                source,
            })?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            // A record that has been acknowledged outlives a power cut.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(5));
        let pool = SqlitePoolOptions::new()
            .max_connections(4)
            .acquire_timeout(Duration::from_secs(5))
            .connect_lazy_with(options);
        Ok(Self {
            pool,
            ready: OnceCell::new(),
        })
    }
}

sql::store!(Sqlite, sqlx::Sqlite);
