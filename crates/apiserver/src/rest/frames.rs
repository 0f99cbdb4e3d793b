//! The frames of watch events: made for the first watcher that needs one, and kept while others may come for it.
//!
//! An event stays in the history long after all who watch have seen it. What it was sent as is let go of before,
//! so that history costs what it holds and not twice that.

use std::{
    collections::VecDeque,
    sync::{Arc, OnceLock, Weak},
};

use bytes::Bytes;
use gantry_store::Event;
use parking_lot::Mutex;

use crate::respond::{Form, Media, Output};

/// Bytes of frames that are kept. Watchers that are further behind than that have theirs made anew.
const MOST: usize = 16 << 20;

/// The frames made last, of all events.
pub struct Recent {
    ring: Mutex<Ring>,
    most: usize,
}

#[derive(Default)]
struct Ring {
    made: VecDeque<Arc<Bytes>>,
    bytes: usize,
}

impl Default for Recent {
    fn default() -> Self {
        Recent::new(MOST)
    }
}

impl Recent {
    fn new(most: usize) -> Self {
        Recent {
            ring: Mutex::default(),
            most,
        }
    }

    fn keep(&self, made: Arc<Bytes>) {
        let mut past = vec![];
        {
            let mut ring = self.ring.lock();
            ring.bytes += made.len();
            ring.made.push_back(made);
            while ring.bytes > self.most
                && let Some(oldest) = ring.made.pop_front()
            {
                ring.bytes -= oldest.len();
                past.push(oldest);
            }
        }
        // They are freed with nobody waiting for the lock.
        drop(past);
    }
}

/// What an event is called in a frame.
#[derive(Clone, Copy)]
pub enum Kind {
    Added,
    Modified,
    Deleted,
    /// The object before the event with the event's version: it left the watcher's selection.
    Left,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Added => "ADDED",
            Kind::Modified => "MODIFIED",
            Kind::Deleted | Kind::Left => "DELETED",
        }
    }
}

/// Where one frame of an event is found while it is kept.
#[derive(Default)]
pub struct Slot(Mutex<Weak<Bytes>>);

impl Slot {
    pub fn get(&self) -> Option<Bytes> {
        self.0.lock().upgrade().map(|made| Bytes::clone(&made))
    }

    /// Keeps a frame, or gives the one that another watcher made meanwhile.
    pub fn put(&self, frame: Bytes, recent: &Recent) -> Bytes {
        let mut slot = self.0.lock();
        if let Some(made) = slot.upgrade() {
            return Bytes::clone(&made);
        }
        let made = Arc::new(frame.clone());
        *slot = Arc::downgrade(&made);
        drop(slot);
        recent.keep(made);
        frame
    }
}

/// The frames of one event.
#[derive(Default)]
struct Frames {
    /// Whole objects as lines of JSON, by [`Kind`].
    lines: [Slot; 4],
    /// The same in protobuf, then metadata alone in JSON and in protobuf.
    others: OnceLock<Box<[[Slot; 4]; 3]>>,
}

const V1: &str = Output::JSON.meta_version;

/// Where the frame of a kind is kept; `None` for what is rendered for each watcher.
pub fn slot(event: &Event, output: Output, kind: Kind) -> Option<&Slot> {
    let frames = event.ext.get_or_init(|| Box::new(Frames::default()));
    let frames = frames.downcast_ref::<Frames>()?;
    let protobuf = output.media == Media::Protobuf;
    let form = match output.form {
        Form::Object if !protobuf => return Some(&frames.lines[kind as usize]),
        Form::Object => 0,
        Form::Partial | Form::PartialList if output.meta_version == V1 => 1 + usize::from(protobuf),
        _ => return None,
    };
    Some(&frames.others.get_or_init(Box::default)[form][kind as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_frames_are_kept_and_each_is_made_once() {
        let recent = Recent::new(10);
        let frame = |text: &'static str| Bytes::from_static(text.as_bytes());
        let [first, second, third] = [Slot::default(), Slot::default(), Slot::default()];
        assert_eq!(first.put(frame("1234"), &recent), "1234");
        assert_eq!(second.put(frame("5678"), &recent), "5678");
        // Another made it at the same time.
        assert_eq!(first.put(frame("abcd"), &recent), "1234");
        assert_eq!(third.put(frame("90"), &recent), "90");
        assert_eq!(first.get().as_deref(), Some("1234".as_bytes()));
        // Ten bytes are kept, and the oldest goes.
        assert_eq!(third.put(frame("x"), &recent), "90");
        let fourth = Slot::default();
        fourth.put(frame("!"), &recent);
        assert_eq!(first.get(), None);
        assert_eq!(second.get().as_deref(), Some("5678".as_bytes()));
        // One that is needed again is the newest.
        assert_eq!(first.put(frame("1234"), &recent), "1234");
        assert_eq!(second.get(), None);
        assert_eq!(recent.ring.lock().bytes, 7);
        // What is greater than all of it is not kept, and keeps nothing else.
        let huge = Slot::default();
        assert_eq!(huge.put(frame("12345678901"), &recent), "12345678901");
        assert_eq!(huge.get(), None);
        assert_eq!(recent.ring.lock().bytes, 0);
    }
}
