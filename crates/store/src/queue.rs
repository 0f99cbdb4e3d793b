//! Writes waiting for the committer: bounded by bytes, filled by tasks, emptied by one thread.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::object::Extension;
use crate::{CommitError, Stored, Write};

/// What one unit of the queue's room stands for.
const UNIT: usize = 1024;

/// What the committer answers: the written objects, in the order of the writes.
pub(crate) type Answer = Result<Vec<Arc<Stored>>, CommitError>;

/// Writes that are carried out together or not at all.
pub(crate) struct Request {
    pub(crate) writes: Vec<Write>,
    /// Goes with the version that the first write makes.
    pub(crate) ext: Extension,
    pub(crate) answer: oneshot::Sender<Answer>,
    /// Given back when the request is taken off the queue.
    _room: OwnedSemaphorePermit,
}

pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    filled: Condvar,
    room: Arc<Semaphore>,
    units: u32,
}

#[derive(Default)]
struct Waiting {
    requests: VecDeque<Request>,
    closed: bool,
    /// The committer sleeps until so many requests are there; 0 when it does not sleep.
    wanted: usize,
}

/// How long the committer waits for company once it has a request, and when it has enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gathering {
    pub(crate) requests: usize,
    pub(crate) patience: Duration,
}

/// What the committer finds in the queue.
pub(crate) enum Taken {
    Requests(Vec<Request>),
    /// Nothing came in time.
    Nothing,
    /// The queue is empty and stays so.
    Closed,
}

impl Queue {
    pub(crate) fn new(bytes: usize) -> Queue {
        let units = u32::try_from(bytes / UNIT)
            .unwrap_or(u32::MAX)
            .clamp(1, 1 << 28);
        Queue {
            waiting: Mutex::default(),
            filled: Condvar::new(),
            room: Arc::new(Semaphore::new(units as usize)),
            units,
        }
    }

    /// Waits for room, then queues. Dropped while waiting, it has done nothing; from then on the
    /// writes are carried out whether or not anyone waits for the answer.
    pub(crate) async fn push(
        &self,
        writes: Vec<Write>,
        ext: Extension,
    ) -> Result<oneshot::Receiver<Answer>, CommitError> {
        let size: usize = writes
            .iter()
            .map(|write| write.op.bytes().len() / UNIT + 1)
            .sum();
        // Writes greater than the whole queue wait until they have it for themselves.
        let units = u32::try_from(size).unwrap_or(u32::MAX).min(self.units);
        let Ok(room) = self.room.clone().acquire_many_owned(units).await else {
            return Err(CommitError::Closed);
        };
        let (answer, receiver) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return Err(CommitError::Closed);
        }
        waiting.requests.push_back(Request {
            writes,
            ext,
            answer,
            _room: room,
        });
        // Nobody is woken for less than is waited for.
        let enough = waiting.wanted > 0 && waiting.requests.len() >= waiting.wanted;
        if enough {
            waiting.wanted = 0;
        }
        drop(waiting);
        if enough {
            self.filled.notify_one();
        }
        Ok(receiver)
    }

    /// Takes requests of up to about `most` writes, waiting up to `patience` for the first, and then
    /// for more of them if told to.
    pub(crate) fn take(
        &self,
        most: usize,
        patience: Duration,
        gathering: Option<Gathering>,
    ) -> Taken {
        let mut waiting = self.waiting.lock();
        self.sleep(&mut waiting, 1, patience);
        if let (Some(gathering), false) = (gathering, waiting.requests.is_empty()) {
            self.sleep(&mut waiting, gathering.requests, gathering.patience);
        }
        if waiting.requests.is_empty() {
            return if waiting.closed {
                Taken::Closed
            } else {
                Taken::Nothing
            };
        }
        let mut writes = 0;
        let mut count = 0;
        for request in &waiting.requests {
            if count > 0 && writes + request.writes.len() > most {
                break;
            }
            writes += request.writes.len();
            count += 1;
        }
        Taken::Requests(waiting.requests.drain(..count).collect())
    }

    /// Sleeps until so many requests are there, for so long at most.
    fn sleep(&self, waiting: &mut MutexGuard<'_, Waiting>, requests: usize, patience: Duration) {
        let until = Instant::now() + patience;
        while waiting.requests.len() < requests && !waiting.closed {
            waiting.wanted = requests;
            if self.filled.wait_until(waiting, until).timed_out() {
                break;
            }
        }
        waiting.wanted = 0;
    }

    /// Takes nothing more in. What is queued stays.
    pub(crate) fn close(&self) {
        self.waiting.lock().closed = true;
        self.room.close();
        self.filled.notify_one();
    }

    /// Drops what is queued; its writers learn that the store is closed.
    pub(crate) fn clear(&self) {
        let dropped = std::mem::take(&mut self.waiting.lock().requests);
        for request in dropped {
            // Whoever no longer waits does not need the answer.
            let _ = request.answer.send(Err(CommitError::Closed));
        }
    }
}
