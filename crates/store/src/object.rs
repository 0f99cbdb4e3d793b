//! What is stored and what is written: keys, objects, writes, events.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::{BufMut, Bytes, BytesMut};

/// The number of a write in its store. A store that was never written to is at 1, the first write
/// is 2 (0 and 1 have meanings of their own in the Kubernetes API); numbers only grow.
pub type Revision = u64;

/// The revision of a store that was never written to.
pub(crate) const FIRST: Revision = 1;

/// What a caller derives from stored bytes and wants to keep beside them.
pub type Extension = OnceLock<Box<dyn Any + Send + Sync>>;

/// Names an object: the bucket (one a resource, such as `apps/deployments` or `/pods`), and the
/// name in it (`namespace/name`, or `name` where there are no namespaces).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub bucket: Arc<str>,
    /// Orders the objects of a bucket, bytewise.
    pub name: Arc<str>,
}

impl Key {
    pub fn new(bucket: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Key {
        Key {
            bucket: bucket.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.bucket, self.name)
    }
}

/// One version of an object. Never changes; a write makes another one.
pub struct Stored {
    pub key: Key,
    /// Of the write that made this version.
    pub revision: Revision,
    /// Of the write that made the object.
    pub created: Revision,
    /// As written, with the revision stamped in.
    pub value: Bytes,
    /// It is kept on disk in another way than it would be if it were written now (see
    /// [`crate::Keeper`]): writing it again is worth it though nothing changes.
    pub stale: bool,
    /// The caller's parsed view. Made when first needed, dropped with the version.
    pub ext: Extension,
}

impl fmt::Debug for Stored {
    // Values may be secrets: only their size is shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stored")
            .field("key", &format_args!("{}", self.key))
            .field("revision", &self.revision)
            .field("created", &self.created)
            .field("bytes", &self.value.len())
            .finish_non_exhaustive()
    }
}

/// What must be true of a key for a write to be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Anything. (A delete of an object that is not there is a conflict all the same.)
    Any,
    /// There is no such object.
    Absent,
    /// The object's newest version has this revision.
    At(Revision),
}

/// What a write does.
#[derive(Clone)]
pub enum Op {
    /// Creates or replaces the object. `stamp` is the offset in `value` at which the decimal
    /// revision of this write is inserted at commit.
    Put { value: Bytes, stamp: Option<usize> },
    /// Removes the object. `last` is its last state, which the event shows; stamped likewise.
    Delete { last: Bytes, stamp: Option<usize> },
}

impl Op {
    pub(crate) fn bytes(&self) -> &Bytes {
        match self {
            Op::Put { value, .. } => value,
            Op::Delete { last, .. } => last,
        }
    }

    pub(crate) fn kind(&self) -> EventKind {
        match self {
            Op::Put { .. } => EventKind::Put,
            Op::Delete { .. } => EventKind::Delete,
        }
    }

    pub(crate) fn stamp(&self) -> Option<usize> {
        match self {
            Op::Put { stamp, .. } | Op::Delete { stamp, .. } => *stamp,
        }
    }

    /// The bytes with the revision in them. The offset was checked when the write was queued.
    pub(crate) fn stamped(self, revision: Revision) -> Bytes {
        let stamp = self.stamp();
        let (Op::Put { value, .. } | Op::Delete { last: value, .. }) = self;
        let Some(at) = stamp else { return value };
        let mut digits = [0u8; 20];
        let digits = decimal(revision, &mut digits);
        let mut stamped = BytesMut::with_capacity(value.len() + digits.len());
        stamped.put_slice(&value[..at]);
        stamped.put_slice(digits);
        stamped.put_slice(&value[at..]);
        stamped.freeze()
    }
}

fn decimal(mut number: u64, buffer: &mut [u8; 20]) -> &[u8] {
    let mut start = buffer.len();
    loop {
        start -= 1;
        buffer[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &buffer[start..];
        }
    }
}

impl fmt::Debug for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({} bytes)", self.kind(), self.bytes().len())
    }
}

/// One conditional write.
#[derive(Clone, Debug)]
pub struct Write {
    pub key: Key,
    pub expect: Expect,
    pub op: Op,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    Put,
    Delete,
}

/// One committed write, as watchers see it.
pub struct Event {
    pub revision: Revision,
    pub kind: EventKind,
    /// The object after the write; for a delete its last state, with the delete's revision.
    pub object: Arc<Stored>,
    /// The object before the write. `None`: this write created it.
    pub previous: Option<Arc<Stored>>,
    /// What is made of the event once for all its watchers. It lives as long as the event is
    /// retained: share [`Stored::value`] in it rather than copying it.
    pub ext: Extension,
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("revision", &self.revision)
            .field("kind", &self.kind)
            .field("key", &format_args!("{}", self.object.key))
            .field("previous", &self.previous.as_ref().map(|p| p.revision))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_revision_is_inserted_where_the_stamp_says() {
        for (value, stamp, revision, expected) in [
            ("{\"v\":\"\"}", Some(6), 1, "{\"v\":\"1\"}"),
            (
                "{\"v\":\"\"}",
                Some(6),
                u64::MAX,
                "{\"v\":\"18446744073709551615\"}",
            ),
            ("ab", Some(0), 10, "10ab"),
            ("ab", Some(2), 907, "ab907"),
            ("ab", None, 907, "ab"),
        ] {
            let op = Op::Put {
                value: Bytes::from_static(value.as_bytes()),
                stamp,
            };
            assert_eq!(op.stamped(revision), expected);
        }
    }
}
