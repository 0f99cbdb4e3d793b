//! The objects of one bucket at one revision.

use std::ops::Bound;
use std::sync::Arc;

use crate::state::Objects;
use crate::{Revision, Stored};

/// A bucket as it was at one revision. Cheap to make, to clone and to keep for a while (it keeps
/// the values of that revision alive).
#[derive(Clone)]
pub struct Snapshot {
    pub(crate) revision: Revision,
    pub(crate) objects: Objects,
}

impl Snapshot {
    /// The store-wide revision at which this is the bucket's state.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    pub fn len(&self) -> usize {
        self.objects.len()
    }

    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    pub fn get(&self, name: &str) -> Option<&Arc<Stored>> {
        self.objects.get(name)
    }

    /// All objects, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Stored>> {
        self.objects.values()
    }

    /// The objects whose names begin with `prefix` (`"namespace/"`, or `""` for all), in the order
    /// of their names; only those after the name `after`, if one is given. Finding the first takes
    /// a look-up, not a scan.
    pub fn range<'a>(&'a self, prefix: &'a str, after: Option<&str>) -> Range<'a> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        Range {
            inner: self.objects.range::<_, str>((start, Bound::Unbounded)),
            prefix,
        }
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot")
            .field("revision", &self.revision)
            .field("objects", &self.objects.len())
            .finish()
    }
}

/// See [`Snapshot::range`].
pub struct Range<'a> {
    inner: imbl::ordmap::RangedIter<'a, Arc<str>, Arc<Stored>, imbl::shared_ptr::DefaultSharedPtr>,
    prefix: &'a str,
}

impl<'a> Iterator for Range<'a> {
    type Item = &'a Arc<Stored>;

    fn next(&mut self) -> Option<Self::Item> {
        let (name, object) = self.inner.next()?;
        name.starts_with(self.prefix).then_some(object)
    }
}
