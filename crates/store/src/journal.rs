//! The journal: where a write becomes durable. One append and one sync a commit, to room that is
//! there already, so that nothing but the written blocks changes on the disk.
//!
//! It lies in segments. A segment is one block that heads it, then frames, one a commit; each
//! begins at a block, so that no write touches a block that was synced before. Little-endian:
//!
//! ```text
//! head   "gantryjl" │ format u32 │ segment u64 │ after u64 │ crc32c u32 of all this │ zeros
//! frame  crc32c u32 │ length u32 │ segment u64 │ first u64 │ count u32
//!        per record:  length u32 │ record (see `record`)
//!        zeros │ the frame's crc32c again, at the very end
//! ```
//!
//! `after` is the newest revision that was acknowledged when the segment was begun: its first frame
//! goes on there, and what the segment before it holds beyond is not part of the store. A frame's
//! checksum covers its head and the lengths and checksums of its records, which cover the rest. It
//! names its segment: what a segment held before it was used again is never taken for a frame.
//!
//! # Reading it again
//!
//! Frames count as long as each goes on where the one before it ended. Where they end, the store
//! ends, if nothing says that more was acknowledged: neither the next segment's `after`, nor a
//! later frame (which is written after this one was synced), nor the note ([`Medium::note`]).
//!
//! # When the disk fails
//!
//! A frame whose write failed lacks its end, and the next one is written over it. After a failed
//! sync nothing is known of the frame, and reading it tells nothing. A new segment is begun, whose
//! head says that the frame does not count: with that on the disk, the write is undone; until then
//! its outcome is not known. What was synced before stays where it is, and is not written again.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use redb::StorageBackend;

use crate::Revision;
use crate::disk::{LoadError, Loader};
use crate::error::CommitError;
use crate::fold::Fold;
use crate::medium::{Medium, is_full};
use crate::record::{Logged, Record, crc32c};

/// Frames and heads are multiples of this. No smaller than what a disk writes whole.
const BLOCK: usize = 4096;
const MAGIC: &[u8; 8] = b"gantryjl";
/// Version of what this module writes.
const FORMAT: u32 = 1;
const HEAD: usize = 8 + 4 + 8 + 8;
const FRAME: usize = 4 + 4 + 8 + 8 + 4;
/// Of its checksum at its end.
const MARK: usize = 4;

/// Length of a segment that is made, between these; longer if one frame is.
pub(crate) const SHORTEST: u64 = 1 << 20;
pub(crate) const LONGEST: u64 = 16 << 20;

/// What a write failed with.
pub(crate) enum Failure {
    /// It is not there and will not be.
    Undone(io::Error),
    /// It may be there until the next write succeeds.
    Unknown(io::Error),
}

impl Failure {
    pub(crate) fn into_commit_error(self) -> CommitError {
        match self {
            Failure::Undone(error) if is_full(&error) => CommitError::Full(Arc::new(error)),
            Failure::Undone(error) => CommitError::Io(Arc::new(error)),
            Failure::Unknown(error) => CommitError::Unknown(Arc::new(error)),
        }
    }
}

/// The end of the journal that is written to.
pub(crate) struct Journal {
    medium: Arc<dyn Medium>,
    fold: Arc<Fold>,
    /// `None`: the next write begins a segment.
    current: Option<Current>,
    next: u64,
    /// Newest revision that was acknowledged.
    newest: Revision,
    /// Kept for its room.
    frame: Vec<u8>,
}

struct Current {
    id: u64,
    file: Box<dyn StorageBackend>,
    length: u64,
    /// Where the next frame goes.
    end: u64,
}

impl Journal {
    /// Goes on after what was found; never in a segment that was there before.
    pub(crate) fn new(medium: Arc<dyn Medium>, fold: Arc<Fold>, found: &Found) -> Journal {
        Journal {
            medium,
            fold,
            current: None,
            next: found.last_id + 1,
            newest: found.newest,
            frame: Vec::new(),
        }
    }

    /// Makes writes, whose revisions are the next ones, durable.
    pub(crate) fn append(&mut self, writes: &[Logged]) -> Result<(), Failure> {
        let Some(last) = writes.last() else {
            return Ok(());
        };
        let mut frame = std::mem::take(&mut self.frame);
        let outcome = self.write(writes, &mut frame);
        if frame.capacity() <= 1 << 20 {
            self.frame = frame;
        }
        outcome?;
        self.newest = last.object.revision;
        self.medium.note(self.newest);
        Ok(())
    }

    fn write(&mut self, writes: &[Logged], frame: &mut Vec<u8>) -> Result<(), Failure> {
        let length = frame_length(writes);
        if u32::try_from(length).is_err() {
            let error = "more is written at once than a frame can hold";
            return Err(Failure::Undone(io::Error::other(error)));
        }
        let current = match &mut self.current {
            Some(current) if current.end + length as u64 <= current.length => current,
            _ => self.begin(length as u64).map_err(Failure::Undone)?,
        };
        encode(writes, current.id, length, frame);
        current
            .file
            .write(current.end, frame)
            .map_err(Failure::Undone)?;
        if let Err(error) = current.file.sync_data() {
            self.current = None;
            return Err(match self.begin(0) {
                Ok(_) => Failure::Undone(error),
                Err(again) => {
                    tracing::error!(error = %again, "cannot begin a new segment of the journal");
                    Failure::Unknown(error)
                }
            });
        }
        current.end += length as u64;
        Ok(())
    }

    /// Begins a segment that a frame of this length fits in.
    fn begin(&mut self, frame: u64) -> io::Result<&mut Current> {
        let least = BLOCK as u64 + frame;
        let usual = self.fold.usual_length().max(least);
        self.fold.wait_for_room(usual)?;
        let (id, file) = match self.make(least, usual) {
            Err(error) if is_full(&error) => {
                // What the journal itself takes may do.
                self.fold.wait_for_all()?;
                self.make(least, least)?
            }
            made => made?,
        };
        let length = file.len()?;
        self.fold.begun(id, length, self.newest);
        Ok(self.current.insert(Current {
            id,
            file,
            length,
            end: BLOCK as u64,
        }))
    }

    fn make(&mut self, least: u64, usual: u64) -> io::Result<Made> {
        let id = self.next;
        // A segment that failed to be made may be there: its number is not used again.
        self.next += 1;
        let head = head(id, self.newest);
        let file = self.medium.begin_segment(id, &head, least, usual)?;
        Ok((id, file))
    }
}

type Made = (u64, Box<dyn StorageBackend>);

fn head(id: u64, after: Revision) -> Vec<u8> {
    let mut head = Vec::with_capacity(BLOCK);
    head.extend_from_slice(MAGIC);
    head.extend_from_slice(&FORMAT.to_le_bytes());
    head.extend_from_slice(&id.to_le_bytes());
    head.extend_from_slice(&after.to_le_bytes());
    let sum = !crc32c(!0, &head);
    head.extend_from_slice(&sum.to_le_bytes());
    head.resize(BLOCK, 0);
    head
}

fn frame_length(writes: &[Logged]) -> usize {
    let records: usize = writes.iter().map(|write| 4 + write.record().len()).sum();
    (FRAME + records + MARK).next_multiple_of(BLOCK)
}

fn encode(writes: &[Logged], segment: u64, length: usize, frame: &mut Vec<u8>) {
    frame.clear();
    frame.resize(4, 0);
    // Both fit: the length was looked at, and a record is longer than a byte.
    frame.extend_from_slice(&(length as u32).to_le_bytes());
    frame.extend_from_slice(&segment.to_le_bytes());
    let first = writes.first().map_or(0, |write| write.object.revision);
    frame.extend_from_slice(&first.to_le_bytes());
    frame.extend_from_slice(&(writes.len() as u32).to_le_bytes());
    let mut sum = crc32c(!0, &frame[4..]);
    for write in writes {
        let record = write.record();
        let start = frame.len();
        frame.extend_from_slice(&(record.len() as u32).to_le_bytes());
        frame.resize(start + 4 + record.len(), 0);
        record.encode(&mut frame[start + 4..]);
        // Its length and its checksum.
        sum = crc32c(sum, &frame[start..start + 8]);
    }
    frame.resize(length, 0);
    let sum = (!sum).to_le_bytes();
    frame[..4].copy_from_slice(&sum);
    frame[length - MARK..].copy_from_slice(&sum);
}

/// A frame that is as it was written.
struct Frame<'a> {
    first: Revision,
    records: Vec<Record<'a>>,
    length: usize,
}

impl Frame<'_> {
    fn last(&self) -> Revision {
        self.first + self.records.len() as u64 - 1
    }
}

/// The frame of this segment that begins here, if one does.
fn decode(segment: u64, bytes: &[u8]) -> Option<Frame<'_>> {
    let mut rest = bytes;
    let sum = take(&mut rest)?;
    let length = u32::from_le_bytes(take(&mut rest)?) as usize;
    let of = u64::from_le_bytes(take(&mut rest)?);
    let first = u64::from_le_bytes(take(&mut rest)?);
    let count = u32::from_le_bytes(take(&mut rest)?);
    let sound = of == segment
        && length.is_multiple_of(BLOCK)
        && (BLOCK..=bytes.len()).contains(&length)
        && (1..=length as u64).contains(&count.into())
        && first.checked_add(count.into()).is_some()
        && bytes[length - MARK..length] == sum;
    if !sound {
        return None;
    }
    let mut found = crc32c(!0, &bytes[4..FRAME]);
    let mut rest = &bytes[FRAME..length - MARK];
    let mut records = Vec::new();
    for revision in first..first + u64::from(count) {
        let beginning = rest.get(..8)?;
        found = crc32c(found, beginning);
        let length = u32::from_le_bytes(take(&mut rest)?) as usize;
        let (record, after) = rest.split_at_checked(length)?;
        records.push(Record::decode(revision, record).ok()?);
        rest = after;
    }
    (!found == u32::from_le_bytes(sum)).then_some(Frame {
        first,
        records,
        length,
    })
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*taken)
}

/// What is in the journal and not in the database.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) writes: Vec<Logged>,
    /// Of the whole store.
    pub(crate) newest: Revision,
    /// Segments with such writes: their numbers, lengths, newest revisions.
    pub(crate) segments: Vec<(u64, u64, Revision)>,
    /// Number of the last segment there is; 0 if there is none.
    pub(crate) last_id: u64,
}

/// Gives what came after revision `folded`, which the database has. Segments that hold none of it
/// are ended.
pub(crate) fn replay<L: Loader>(
    medium: &dyn Medium,
    folded: Revision,
    loader: &mut L,
) -> Result<Found, LoadError> {
    let mut found = Found {
        newest: folded,
        ..Found::default()
    };
    let mut segments = Vec::new();
    for id in medium.segments()? {
        let file = medium.segment(id)?;
        let length = file.len()?;
        let after = read_head(&*file, length, id)?;
        segments.push((id, file, length, after));
    }
    for (at, (id, file, length, after)) in segments.iter().enumerate() {
        found.last_id = *id;
        let next_after = segments.get(at + 1).map(|(.., after)| *after);
        let end = match next_after {
            Some(end) if end <= folded => *after,
            _ => {
                let segment = Segment {
                    id: *id,
                    file: &**file,
                    length: *length,
                    after: *after,
                };
                segment.read(next_after, folded, loader, &mut found)?
            }
        };
        if end <= folded {
            medium.end_segment(*id)?;
        } else {
            found.segments.push((*id, *length, end));
        }
    }
    Ok(found)
}

fn read_head(file: &dyn StorageBackend, length: u64, id: u64) -> Result<Revision, LoadError> {
    let damaged = |reason: &str| LoadError::Segment(id, reason.to_owned());
    let mut block = [0; HEAD + 4];
    if length < BLOCK as u64 {
        return Err(damaged("it ends within its head"));
    }
    file.read(0, &mut block)?;
    let parts = || {
        let mut rest = &block[..];
        let magic: [u8; 8] = take(&mut rest)?;
        let format = u32::from_le_bytes(take(&mut rest)?);
        let of = u64::from_le_bytes(take(&mut rest)?);
        let after = u64::from_le_bytes(take(&mut rest)?);
        let sum = u32::from_le_bytes(take(&mut rest)?);
        let sound = magic == *MAGIC && sum == !crc32c(!0, &block[..HEAD]) && of == id;
        sound.then_some((format, after))
    };
    match parts() {
        None => Err(damaged("its head is damaged")),
        Some((FORMAT, after)) => Ok(after),
        Some((format, _)) => Err(damaged(&format!("it is of format {format}"))),
    }
}

struct Segment<'a> {
    id: u64,
    file: &'a dyn StorageBackend,
    length: u64,
    after: Revision,
}

impl Segment<'_> {
    /// Reads frames up to where the next segment goes on, or as far as they go; gives the revision
    /// they end at.
    fn read<L: Loader>(
        &self,
        next_after: Option<Revision>,
        folded: Revision,
        loader: &mut L,
        found: &mut Found,
    ) -> Result<Revision, LoadError> {
        let damaged = |reason: String| LoadError::Segment(self.id, reason);
        if self.after > found.newest {
            return Err(damaged(format!(
                "it goes on after revision {}, but what is there ends at {}",
                self.after, found.newest
            )));
        }
        let mut bytes = vec![0; usize::try_from(self.length).unwrap_or(usize::MAX)];
        self.file.read(0, &mut bytes)?;
        let (mut at, mut last, mut newest_frame) = (BLOCK, self.after, None);
        let frames_end = |last| next_after.is_some_and(|end| last >= end);
        while !frames_end(last)
            && let Some(frame) = bytes.get(at..).and_then(|bytes| decode(self.id, bytes))
            && frame.first == last + 1
        {
            last = frame.last();
            newest_frame = Some(at..at + frame.length);
            at += frame.length;
            for record in frame.records {
                if record.revision <= folded {
                    continue;
                }
                let (revision, kind, previous) = (record.revision, record.kind, record.previous);
                let (committed, kept) = (record.at, record.value);
                let object = loader
                    .record(record)
                    .map_err(|reason| damaged(format!("record {revision}: {reason}")))?;
                let kept = (*object.value != *kept).then(|| Bytes::copy_from_slice(kept));
                found.writes.push(Logged {
                    object,
                    kind,
                    previous,
                    at: committed,
                    kept,
                });
            }
        }
        let missing = match next_after {
            Some(end) => last != end,
            // Whoever wrote a later frame had synced this one.
            None => (at..bytes.len()).step_by(BLOCK).any(|at| {
                decode(self.id, &bytes[at..])
                    .is_some_and(|frame| frame.first > last && frame.last() > folded)
            }),
        };
        if missing {
            return Err(damaged(format!(
                "its frame at byte {at}, after revision {last}, is damaged"
            )));
        }
        // It may have been written and not synced. Written again, it is both.
        if next_after.is_none()
            && last > folded
            && let Some(frame) = newest_frame
        {
            self.file.write(frame.start as u64, &bytes[frame])?;
            self.file.sync_data()?;
        }
        found.newest = found.newest.max(last);
        Ok(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Extension;
    use crate::{EventKind, Key, Stored};

    fn write(revision: Revision, value: &'static [u8]) -> Logged {
        Logged {
            object: Arc::new(Stored {
                key: Key::new("/pods", "a"),
                revision,
                created: 2,
                value: Bytes::from_static(value),
                stale: false,
                ext: Extension::new(),
            }),
            kind: EventKind::Put,
            previous: revision - 1,
            at: 9,
            kept: None,
        }
    }

    #[test]
    fn a_frame_is_read_as_written_and_what_counts_of_it_is_covered() {
        let writes = [write(7, b"one"), write(8, &[b'x'; 5000])];
        let (length, mut frame) = (frame_length(&writes), Vec::new());
        encode(&writes, 3, length, &mut frame);
        assert_eq!(frame.len(), 2 * BLOCK);
        let used = FRAME + writes.iter().map(|w| 4 + w.record().len()).sum::<usize>();
        let found = decode(3, &frame).unwrap();
        assert_eq!((found.first, found.last(), found.length), (7, 8, length));
        assert_eq!(found.records[0], writes[0].record());
        assert_eq!(found.records[1], writes[1].record());
        // Of another segment, cut, or with any bit changed, it is none.
        assert!(decode(4, &frame).is_none());
        assert!(decode(3, &frame[..length - 1]).is_none());
        for at in (0..used).chain(length - MARK..length) {
            frame[at] ^= 1 << (at % 8);
            assert!(decode(3, &frame).is_none(), "byte {at}");
            frame[at] ^= 1 << (at % 8);
        }
        assert!(decode(3, &frame).is_some());
    }
}
