//! Makes a store of a backup.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::backup::{BackupError, BackupReader};
use crate::disk::Disk;
use crate::error::OpenError;
use crate::folder::{self, Folder};
use crate::record::Logged;
use crate::{EventKind, Revision, Store};

/// How many objects are written in one transaction.
const BATCH: usize = 4096;

/// Why a backup was not restored. Nothing was left behind.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("{} is not empty", path.display())]
    NotEmpty { path: PathBuf },
    #[error("cannot write to {}", path.display())]
    Unwritable {
        path: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("the snapshot {0}")]
    Backup(#[source] BackupError),
    /// What was written is not what can be opened.
    #[error("what was restored cannot be opened")]
    Open(#[source] OpenError),
}

impl Store {
    /// Makes a store in `dir`, which must be empty or not be there, of a backup.
    ///
    /// Its revision is the backup's and `bump` more, and nothing before that is given: whoever has
    /// seen the store go on after the backup was made is told that its revision is gone, and
    /// cannot take what is written from now on for what it has seen.
    ///
    /// It is whole or not there: made and opened beside the folder, then put in its place.
    ///
    /// # Errors
    /// See [`RestoreError`].
    pub fn restore<R: Read>(
        dir: &Path,
        backup: BackupReader<R>,
        bump: Revision,
    ) -> Result<(), RestoreError> {
        let unwritable = |path: &Path| {
            let path = path.to_owned();
            move |source: io::Error| RestoreError::Unwritable {
                path,
                source: source.into(),
            }
        };
        match fs::read_dir(dir) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    return Err(RestoreError::NotEmpty {
                        path: dir.to_owned(),
                    });
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(unwritable(dir)(error)),
        }
        let mut name = dir.file_name().map_or_else(OsString::new, Into::into);
        name.push(".restoring");
        let staged = dir.with_file_name(name);
        match fs::remove_dir_all(&staged) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(unwritable(&staged)(error));
            }
            _ => {}
        }
        let restored = write(&staged, backup, bump).and_then(|()| {
            folder::make(dir).map_err(unwritable(dir))?;
            fs::rename(&staged, dir).map_err(unwritable(dir))?;
            match dir.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => {
                    folder::sync(parent).map_err(unwritable(parent))
                }
                _ => Ok(()),
            }
        });
        if restored.is_err() {
            let _ = fs::remove_dir_all(&staged);
        }
        restored
    }
}

fn write<R: Read>(
    dir: &Path,
    mut backup: BackupReader<R>,
    bump: Revision,
) -> Result<(), RestoreError> {
    let info = backup.info();
    let folder = Folder::open(dir).map_err(RestoreError::Open)?;
    let path = folder.file();
    let unwritable = |source: redb::Error| RestoreError::Unwritable {
        path: path.clone(),
        source: source.into(),
    };
    let database = folder.database().map_err(unwritable)?;
    loop {
        let mut batch = Vec::with_capacity(BATCH);
        while batch.len() < BATCH {
            let Some(object) = backup.next_object().map_err(RestoreError::Backup)? else {
                break;
            };
            batch.push(Logged {
                object,
                kind: EventKind::Put,
                previous: 0,
                at: info.at,
                kept: None,
            });
        }
        // The floor comes with the last objects.
        let floor = (batch.len() < BATCH).then(|| info.revision.saturating_add(bump));
        Disk::import(&database, &batch, floor).map_err(unwritable)?;
        if floor.is_some() {
            break;
        }
    }
    drop(database);
    drop(folder);
    // All of it is read again as any store is, so that what is given out can be opened.
    Store::check(dir).map_err(RestoreError::Open)
}
