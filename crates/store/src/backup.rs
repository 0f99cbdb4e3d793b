//! A whole store as one stream of bytes: made of a running store, read and checked anywhere.
//!
//! ```text
//! "gantrysn" │ format u32 │ revision u64 │ at u64 │ objects u64 │ crc32c u32 of all this
//! per object, by revision:  revision u64 │ length u32 │ record (see `record`)
//! "gantryse" │ crc32c u32 of all before it
//! ```
//!
//! Little-endian. It holds the newest version of every object at one revision, no history.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::{BufMut, Bytes, BytesMut};

use crate::object::{Extension, FIRST};
use crate::record::{Damage, Record, crc32c};
use crate::{EventKind, KeepError, Keeper, Key, Revision, Stored};

/// Version of what this module writes. A reader that finds a higher one refuses it.
const FORMAT: u32 = 1;
const BEGIN: &[u8; 8] = b"gantrysn";
const END: &[u8; 8] = b"gantryse";
const HEAD: usize = 8 + 4 + 8 + 8 + 8;
/// About how many bytes are made at a time.
const CHUNK: usize = 256 << 10;
/// The most bytes one record can have: a guard against lengths that are noise.
const RECORD_LIMIT: u32 = 64 << 20;

/// What a backup says of itself at its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupInfo {
    pub format: u32,
    /// The revision of the store that it is the state of.
    pub revision: Revision,
    /// When it was made, in milliseconds since 1970.
    pub at: u64,
    pub objects: u64,
}

/// The bytes of a backup, in pieces. Holds the objects of its revision, whatever is written
/// meanwhile.
pub struct Backup {
    info: BackupInfo,
    objects: std::vec::IntoIter<Arc<Stored>>,
    keeper: Option<Arc<dyn Keeper>>,
    sum: u32,
    begun: bool,
    ended: bool,
}

impl Backup {
    /// Of these objects, in any order, which are all there are at this revision.
    pub(crate) fn new(
        revision: Revision,
        mut objects: Vec<Arc<Stored>>,
        keeper: Option<Arc<dyn Keeper>>,
    ) -> Backup {
        objects.sort_unstable_by_key(|object| object.revision);
        let at = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Backup {
            info: BackupInfo {
                format: FORMAT,
                revision,
                at: u64::try_from(at.as_millis()).unwrap_or(u64::MAX),
                objects: objects.len() as u64,
            },
            objects: objects.into_iter(),
            keeper,
            sum: !0,
            begun: false,
            ended: false,
        }
    }

    pub fn info(&self) -> BackupInfo {
        self.info
    }

    fn head(&self, out: &mut BytesMut) {
        out.put_slice(BEGIN);
        out.put_u32_le(self.info.format);
        out.put_u64_le(self.info.revision);
        out.put_u64_le(self.info.at);
        out.put_u64_le(self.info.objects);
        let sum = !crc32c(!0, out);
        out.put_u32_le(sum);
    }

    fn object(&self, object: &Stored, out: &mut BytesMut) -> Result<(), KeepError> {
        let key = &object.key;
        let kept = match &self.keeper {
            Some(keeper) => keeper.seal(&key.bucket, &key.name, &object.value)?,
            None => None,
        };
        let record = Record {
            revision: object.revision,
            kind: EventKind::Put,
            created: object.created,
            previous: 0,
            at: self.info.at,
            bucket: &object.key.bucket,
            name: &object.key.name,
            value: kept.as_deref().unwrap_or(&object.value),
        };
        out.put_u64_le(object.revision);
        // Values are held to less than 4 GiB when they are written.
        out.put_u32_le(u32::try_from(record.len()).unwrap_or(u32::MAX));
        let start = out.len();
        out.resize(start + record.len(), 0);
        record.encode(&mut out[start..]);
        Ok(())
    }
}

impl Iterator for Backup {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let mut out = BytesMut::with_capacity(CHUNK);
        if !self.begun {
            self.begun = true;
            self.head(&mut out);
        }
        while out.len() < CHUNK {
            let Some(object) = self.objects.next() else {
                self.ended = true;
                out.put_slice(END);
                break;
            };
            if let Err(error) = self.object(&object, &mut out) {
                // It lacks its end: nobody takes it for whole.
                tracing::error!(%error, key = %object.key, "a backup is broken off");
                self.ended = true;
                return None;
            }
        }
        self.sum = crc32c(self.sum, &out);
        if self.ended {
            out.put_u32_le(!self.sum);
        }
        Some(out.freeze())
    }
}

impl std::fmt::Debug for Backup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backup")
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}

/// Why a backup cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("cannot be read")]
    Io(#[from] io::Error),
    #[error("is not a snapshot of a Gantry store")]
    Foreign,
    #[error("was written by a newer version (format {found}; this version knows {FORMAT})")]
    Newer { found: u32 },
    #[error("is damaged at byte {at}: {reason}")]
    Damaged { at: u64, reason: String },
}

/// Reads a backup object by object, checking every byte of it.
pub struct BackupReader<R> {
    input: R,
    info: BackupInfo,
    read: u64,
    last: Revision,
    sum: u32,
    /// How far it has been read.
    at: u64,
    done: bool,
}

impl<R: Read> BackupReader<R> {
    /// Reads the beginning. The input should be buffered.
    ///
    /// # Errors
    /// See [`BackupError`].
    pub fn new(mut input: R) -> Result<BackupReader<R>, BackupError> {
        let mut head = [0; HEAD + 4];
        let length = fill(&mut input, &mut head)?;
        let begin = &head[..length.min(BEGIN.len())];
        if !BEGIN.starts_with(begin) || begin.is_empty() {
            return Err(BackupError::Foreign);
        }
        let damaged = |reason: &str| BackupError::Damaged {
            at: 0,
            reason: reason.to_owned(),
        };
        let mut rest = &head[BEGIN.len()..];
        // The format is read first: a newer one may have another beginning.
        let format = u32::from_le_bytes(number(&mut rest));
        if length >= BEGIN.len() + 4 && format > FORMAT {
            return Err(BackupError::Newer { found: format });
        }
        if length < head.len() {
            return Err(damaged("it ends within its first bytes"));
        }
        let info = BackupInfo {
            format,
            revision: u64::from_le_bytes(number(&mut rest)),
            at: u64::from_le_bytes(number(&mut rest)),
            objects: u64::from_le_bytes(number(&mut rest)),
        };
        if !crc32c(!0, &head[..HEAD]) != u32::from_le_bytes(number(&mut rest)) {
            return Err(damaged("the checksum of its beginning does not match"));
        }
        Ok(BackupReader {
            input,
            info,
            read: 0,
            last: FIRST,
            sum: crc32c(!0, &head),
            at: head.len() as u64,
            done: false,
        })
    }

    pub fn info(&self) -> BackupInfo {
        self.info
    }

    /// The next object, by revision; none when the whole backup has been read and is as it was
    /// written.
    ///
    /// # Errors
    /// See [`BackupError`]. What was read before is as it was written all the same.
    pub fn next_object(&mut self) -> Result<Option<Arc<Stored>>, BackupError> {
        if self.done {
            return Ok(None);
        }
        if self.read == self.info.objects {
            self.end()?;
            self.done = true;
            return Ok(None);
        }
        let start = self.at;
        let which = format!("object {} of {}", self.read + 1, self.info.objects);
        let damaged = |what: &dyn std::fmt::Display| BackupError::Damaged {
            at: start,
            reason: format!("{which}: {what}"),
        };
        let revision = u64::from_le_bytes(self.take()?);
        let length = u32::from_le_bytes(self.take()?);
        if length > RECORD_LIMIT {
            return Err(damaged(&"its length makes no sense"));
        }
        // Grows with what there is, not with what the length says.
        let mut bytes = Vec::new();
        let found = (&mut self.input)
            .take(length.into())
            .read_to_end(&mut bytes)?;
        if found < length as usize {
            return Err(self.short());
        }
        let record = Record::decode(revision, &bytes).map_err(|damage: Damage| damaged(&damage))?;
        if record.kind != EventKind::Put
            || revision <= self.last
            || revision > self.info.revision
            || record.bucket.is_empty()
            || record.name.is_empty()
        {
            return Err(damaged(&"it does not belong here"));
        }
        let object = Stored {
            key: Key::new(record.bucket, record.name),
            revision,
            created: record.created,
            value: Bytes::copy_from_slice(record.value),
            stale: false,
            ext: Extension::new(),
        };
        self.sum = crc32c(self.sum, &bytes);
        self.at += u64::from(length);
        self.read += 1;
        self.last = revision;
        Ok(Some(Arc::new(object)))
    }

    fn end(&mut self) -> Result<(), BackupError> {
        let at = self.at;
        let damaged = |reason: &str| BackupError::Damaged {
            at,
            reason: reason.to_owned(),
        };
        if self.take()? != *END {
            return Err(damaged("its end mark is not where it should be"));
        }
        let expected = !self.sum;
        if u32::from_le_bytes(self.take()?) != expected {
            return Err(damaged("the checksum of the whole does not match"));
        }
        if fill(&mut self.input, &mut [0])? > 0 {
            return Err(damaged("it goes on after its end"));
        }
        Ok(())
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], BackupError> {
        let mut bytes = [0; N];
        if fill(&mut self.input, &mut bytes)? < N {
            return Err(self.short());
        }
        self.sum = crc32c(self.sum, &bytes);
        self.at += N as u64;
        Ok(bytes)
    }

    fn short(&self) -> BackupError {
        BackupError::Damaged {
            at: self.at,
            reason: format!(
                "it ends after {} of {} objects",
                self.read, self.info.objects
            ),
        }
    }
}

/// Reads until the buffer is full or there is no more; how much there was.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// The next bytes of a buffer that is long enough.
fn number<const N: usize>(bytes: &mut &[u8]) -> [u8; N] {
    let (number, rest) = bytes.split_first_chunk().unwrap_or((&[0; N], &[]));
    *bytes = rest;
    *number
}
