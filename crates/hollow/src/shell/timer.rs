//! Everything due at some time, in one heap.
//!
//! Entries are never taken out early: an owner that has moved its time ignores the old entry when
//! it comes up, by comparing it with the time it now waits for.

use crate::clock::Millis;
use std::{cmp::Reverse, collections::BinaryHeap};

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// A pod's next change.
    Pod(Id),
    /// Another try at a pod's write.
    PodWrite(Id),
    /// A look whether the API still calls a ready pod not ready.
    PodRepair(Id),
    /// A lease's renewal.
    Lease(Id),
    /// A node's report.
    Report(Id),
    /// Another try at a node's write.
    NodeWrite(Id),
    /// Another try at a node's creation.
    Create(u32),
    /// An event of the scenario, and which time it is.
    Act(u32, u32),
    /// The end of one that lasts.
    Over(u32),
    /// A look of a node at what it is short of.
    Evict(Id),
    /// A look of a node at what its pods use.
    Look(Id),
    /// Another try at the mirror of a node's static pod.
    Mirror(Id, u32),
    /// A machine fails by itself.
    Fail(Id),
    /// It is repaired.
    Repaired(Id),
    /// Another try at a slice of a node's devices.
    Slice(Id, u32),
    /// Another try at what is said of a claim.
    Claim(u32),
}

/// A place in a [`Slab`], with the turn of its use: an id of the former user finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    index: u32,
    turn: u32,
}

/// The heap.
#[derive(Debug, Default)]
pub struct Timers(BinaryHeap<Reverse<(Millis, Timer)>>);

impl Timers {
    /// Adds an entry.
    pub fn at(&mut self, at: Millis, timer: Timer) {
        self.0.push(Reverse((at, timer)));
    }

    /// The time of the first.
    pub fn next(&self) -> Option<Millis> {
        self.0.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes the first if it is due.
    pub fn pop(&mut self, now: Millis) -> Option<(Millis, Timer)> {
        if self.next()? > now {
            return None;
        }
        self.0.pop().map(|Reverse(entry)| entry)
    }
}

/// Values at fixed places, found by [`Id`] without hashing. Each lies on its own, so that a fleet that grows does not
/// copy what it has, and one that shrinks gives its memory back.
#[derive(Debug)]
pub struct Slab<T> {
    places: Vec<(u32, Option<Box<T>>)>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> Slab<T> {
    /// Puts a value somewhere.
    pub fn insert(&mut self, value: T) -> Id {
        if let Some(index) = self.free.pop() {
            let place = &mut self.places[index as usize];
            place.1 = Some(Box::new(value));
            return Id {
                index,
                turn: place.0,
            };
        }
        let index = u32::try_from(self.places.len()).unwrap_or(u32::MAX);
        self.places.push((0, Some(Box::new(value))));
        Id { index, turn: 0 }
    }

    /// The value of this id, if it is still there.
    pub fn get(&self, id: Id) -> Option<&T> {
        self.places
            .get(id.index as usize)
            .filter(|place| place.0 == id.turn)?
            .1
            .as_deref()
    }

    /// The value of this id, if it is still there.
    pub fn get_mut(&mut self, id: Id) -> Option<&mut T> {
        self.places
            .get_mut(id.index as usize)
            .filter(|place| place.0 == id.turn)?
            .1
            .as_deref_mut()
    }

    /// Takes the value out.
    pub fn remove(&mut self, id: Id) -> Option<T> {
        let place = self
            .places
            .get_mut(id.index as usize)
            .filter(|place| place.0 == id.turn)?;
        let value = place.1.take()?;
        place.0 = place.0.wrapping_add(1);
        self.free.push(id.index);
        Some(*value)
    }

    /// All ids in use.
    pub fn ids(&self) -> Vec<Id> {
        (0u32..)
            .zip(&self.places)
            .filter(|(_, place)| place.1.is_some())
            .map(|(index, place)| Id {
                index,
                turn: place.0,
            })
            .collect()
    }

    /// How many are in use.
    pub fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_id_finds_nothing() {
        let mut slab = Slab::default();
        let a = slab.insert("a");
        assert_eq!(slab.remove(a), Some("a"));
        let b = slab.insert("b");
        assert_ne!(a, b);
        assert_eq!((slab.get(a), slab.get(b)), (None, Some(&"b")));
        assert_eq!((slab.remove(a), slab.len(), slab.ids()), (None, 1, vec![b]));
    }

    #[test]
    fn timers_come_up_in_order_and_in_time() {
        let mut timers = Timers::default();
        timers.at(Millis(20), Timer::Create(2));
        timers.at(Millis(10), Timer::Create(1));
        assert_eq!(timers.pop(Millis(9)), None);
        assert_eq!(timers.pop(Millis(30)), Some((Millis(10), Timer::Create(1))));
        assert_eq!(timers.next(), Some(Millis(20)));
    }
}
