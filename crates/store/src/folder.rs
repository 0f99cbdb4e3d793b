//! The folder a store lies in: its lock, its files, their permissions.
//!
//! ```text
//! lock          held by the process that has the store open
//! store.redb    the store, but for what the journal holds (see `disk`)
//! journal-N     segments of the journal (see `journal`); gone when the store was closed
//! spare-N       what were segments: room to be used again, whatever it holds
//! acknowledged  the newest revision that was acknowledged (see `Medium::note`)
//! *.new         files that were not finished; made anew
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{Builder, Database, DatabaseError, StorageBackend};

use crate::Revision;
use crate::disk;
use crate::disk::{Disk, LoadError};
use crate::error::OpenError;
use crate::medium::Medium;
use crate::record::checksum;
use crate::segments;

const STORE: &str = "store.redb";
const UNFINISHED: &str = "store.new";
const LOCK: &str = "lock";
const NOTE: &str = "acknowledged";

/// A folder this process has to itself.
pub(crate) struct Folder {
    path: PathBuf,
    /// Locked as long as it is open.
    _lock: File,
    note: File,
    /// What the note said when the folder was opened.
    noted: Option<Revision>,
}

impl Folder {
    /// Locks the folder, making it and an empty store in it where there are none.
    pub(crate) fn open(path: &Path) -> Result<Folder, OpenError> {
        let unwritable = |path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Unwritable { path, source }
        };
        make(path).map_err(unwritable(path))?;
        let lock_path = path.join(LOCK);
        let lock = private().open(&lock_path).map_err(unwritable(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(OpenError::InUse {
                    path: path.to_owned(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(unwritable(&lock_path)(source)),
        }
        let note_path = path.join(NOTE);
        let note = private().open(&note_path).map_err(unwritable(&note_path))?;
        let folder = Folder {
            path: path.to_owned(),
            _lock: lock,
            noted: read_note(&note).map_err(unwritable(&note_path))?,
            note,
        };
        if !folder
            .file()
            .try_exists()
            .map_err(unwritable(&folder.file()))?
        {
            if let Some(segment) = folder.segments().map_err(unwritable(path))?.first() {
                return Err(OpenError::Corrupt {
                    path: folder.file(),
                    reason: format!(
                        "it is gone, but its journal is there (to start anew without it, remove {})",
                        path.join(segments::name(*segment)).display()
                    ),
                });
            }
            if let Some(noted) = folder.noted {
                return Err(OpenError::Corrupt {
                    path: folder.file(),
                    reason: format!(
                        "it is gone, but writes up to {noted} were acknowledged (to start anew without them, remove {})",
                        note_path.display()
                    ),
                });
            }
            folder
                .create()
                .map_err(|error| OpenError::of(&folder.file(), LoadError::Database(error)))?;
        }
        Ok(folder)
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.path.join(STORE)
    }

    /// The file as a database, to fill it before it is a store of anybody's.
    pub(crate) fn database(&self) -> Result<Database, redb::Error> {
        Ok(Builder::new().create(self.file())?)
    }

    /// Made under another name first: a file of the store's name is a whole store.
    fn create(&self) -> Result<(), redb::Error> {
        let unfinished = self.path.join(UNFINISHED);
        let file = private().truncate(true).open(&unfinished)?;
        let database = Builder::new().create_file(file)?;
        Disk::initialise(&database)?;
        drop(database);
        self.rename(&unfinished)?;
        Ok(())
    }

    fn rename(&self, unfinished: &Path) -> io::Result<()> {
        fs::rename(unfinished, self.file())?;
        sync(&self.path)
    }
}

impl Medium for Folder {
    fn open(&self) -> Result<Box<dyn StorageBackend>, DatabaseError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.file())?;
        let backend = FileBackend::new(file.try_clone()?)?;
        Ok(Box::new(Reserving { file, backend }))
    }

    /// Puts a synced copy in the file's place.
    fn rewrite(&self) -> io::Result<()> {
        let unfinished = self.path.join(UNFINISHED);
        let copied = (|| {
            let mut copy = private().truncate(true).open(&unfinished)?;
            io::copy(&mut File::open(self.file())?, &mut copy)?;
            copy.sync_all()?;
            self.rename(&unfinished)
        })();
        if copied.is_err() {
            // Gives its room back; the next attempt truncates it if this fails too.
            let _ = fs::remove_file(&unfinished);
        }
        copied
    }

    fn segments(&self) -> io::Result<Vec<u64>> {
        segments::list(&self.path)
    }

    fn segment(&self, id: u64) -> io::Result<Box<dyn StorageBackend>> {
        segments::open(&self.path, id)
    }

    fn begin_segment(
        &self,
        id: u64,
        head: &[u8],
        least: u64,
        usual: u64,
    ) -> io::Result<Box<dyn StorageBackend>> {
        segments::begin(&self.path, id, head, least, usual)
    }

    fn end_segment(&self, id: u64) -> io::Result<()> {
        segments::end(&self.path, id)
    }

    fn note(&self, acknowledged: Revision) {
        let mut bytes = [0; 12];
        let (revision, sum) = bytes.split_at_mut(8);
        revision.copy_from_slice(&acknowledged.to_le_bytes());
        sum.copy_from_slice(&note_checksum(acknowledged).to_le_bytes());
        let mut file = &self.note;
        // An older note only makes it say less.
        if let Err(error) = file.rewind().and_then(|()| file.write_all(&bytes)) {
            tracing::debug!(%error, "cannot note what is acknowledged");
        }
    }

    fn noted(&self) -> Option<Revision> {
        self.noted
    }
}

/// A note that is not whole says nothing: a power loss may leave one.
fn read_note(mut file: &File) -> io::Result<Option<Revision>> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let note = bytes
        .first_chunk::<8>()
        .zip(bytes.get(8..).and_then(|rest| rest.first_chunk::<4>()));
    Ok(note.and_then(|(revision, sum)| {
        let revision = u64::from_le_bytes(*revision);
        (u32::from_le_bytes(*sum) == note_checksum(revision)).then_some(revision)
    }))
}

fn note_checksum(revision: Revision) -> u32 {
    checksum(revision, NOTE.as_bytes())
}

/// A file without holes: room that it grows by is taken from the disk at once, so that writing to
/// it later does not fail for want of room.
#[derive(Debug)]
struct Reserving {
    file: File,
    backend: FileBackend,
}

impl StorageBackend for Reserving {
    fn len(&self) -> io::Result<u64> {
        self.backend.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.backend.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let now = self.backend.len()?;
        if len > now {
            reserve(&self.file, now, len - now)?;
        }
        self.backend.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.backend.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.backend.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.backend.close()
    }
}

#[cfg(target_os = "linux")]
pub(crate) fn reserve(file: &File, start: u64, length: u64) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    use rustix::io::Errno;
    match fallocate(file, FallocateFlags::empty(), start, length) {
        // A file system that cannot reserve leaves holes, as other systems do.
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn reserve(_: &File, _: u64, _: u64) -> io::Result<()> {
    Ok(())
}

pub(crate) fn make(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)?;
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync(parent),
        _ => Ok(()),
    }
}

/// Opens or makes a file that only its owner can read.
pub(crate) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Makes a folder's entries durable.
pub(crate) fn sync(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    File::open(path)?.sync_all()?;
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

impl OpenError {
    /// Names the file and sorts out what went wrong with it.
    pub(crate) fn of(path: &Path, error: LoadError) -> OpenError {
        let path = path.to_owned();
        match error {
            LoadError::Newer(found) => OpenError::Newer {
                path,
                found,
                supported: disk::FORMAT,
            },
            LoadError::Corrupt(reason) => OpenError::Corrupt { path, reason },
            LoadError::Sealed(reason) => OpenError::Sealed { path, reason },
            LoadError::Segment(id, reason) => OpenError::Corrupt {
                path: path.with_file_name(segments::name(id)),
                reason,
            },
            LoadError::Database(redb::Error::DatabaseAlreadyOpen) => OpenError::InUse { path },
            LoadError::Database(redb::Error::Io(source)) => match source.kind() {
                io::ErrorKind::UnexpectedEof
                | io::ErrorKind::InvalidData
                | io::ErrorKind::InvalidInput => OpenError::Corrupt {
                    path,
                    reason: source.to_string(),
                },
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    OpenError::Unwritable { path, source }
                }
                _ => OpenError::Io { path, source },
            },
            LoadError::Database(error) => OpenError::Corrupt {
                path,
                reason: error.to_string(),
            },
        }
    }
}
