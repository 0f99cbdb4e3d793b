//! The seats of a priority level, and the queues before them: one for each flow, served in turn,
//! so that a flow with many requests delays its own.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::sync::oneshot;

pub struct Seats {
    limit: usize,
    /// How many requests may wait, altogether and of one flow.
    room: usize,
    share: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    taken: usize,
    waiting: usize,
    /// Those who wait, by flow; senders of those who gave up are closed.
    flows: FxHashMap<Box<str>, VecDeque<oneshot::Sender<Seat>>>,
    /// Flows in the order of their turns.
    turns: VecDeque<Box<str>>,
}

/// A seat, given back when dropped.
pub struct Seat(Option<Arc<Seats>>);

#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no queue.
    NoSeat,
    QueueFull,
    TimedOut,
}

impl Seats {
    pub fn new(limit: usize, room: usize, share: usize) -> Arc<Seats> {
        Arc::new(Seats {
            limit,
            room,
            share,
            state: Mutex::default(),
        })
    }

    /// A seat, now or after waiting in the queue of a flow.
    pub async fn take(
        self: &Arc<Seats>,
        flow: impl FnOnce() -> String,
        patience: Duration,
    ) -> Result<Seat, Refusal> {
        let (_place, seat) = {
            let mut state = self.state.lock();
            if state.taken < self.limit {
                state.taken += 1;
                return Ok(Seat(Some(self.clone())));
            }
            if self.room == 0 {
                return Err(Refusal::NoSeat);
            }
            if state.waiting >= self.room {
                return Err(Refusal::QueueFull);
            }
            let flow: Box<str> = flow().into();
            let (sender, receiver) = oneshot::channel();
            match state.flows.get_mut(&flow) {
                Some(queue) => {
                    if queue.len() >= self.share {
                        queue.retain(|waiting| !waiting.is_closed());
                    }
                    if queue.len() >= self.share {
                        return Err(Refusal::QueueFull);
                    }
                    queue.push_back(sender);
                }
                None => {
                    state.turns.push_back(flow.clone());
                    state.flows.insert(flow, VecDeque::from([sender]));
                }
            }
            state.waiting += 1;
            (Place(self), receiver)
        };
        match tokio::time::timeout(patience, seat).await {
            Ok(Ok(seat)) => Ok(seat),
            _ => Err(Refusal::TimedOut),
        }
    }

    /// Gives a seat that became free to the next in turn, or leaves it free: a seat is free only
    /// when nobody waits.
    fn hand_on(self: &Arc<Seats>) {
        let mut state = self.state.lock();
        while let Some(flow) = state.turns.pop_front() {
            let Some(queue) = state.flows.get_mut(&flow) else {
                continue;
            };
            let next = queue.pop_front();
            if queue.is_empty() {
                state.flows.remove(&flow);
            } else {
                state.turns.push_back(flow);
            }
            let Some(next) = next else { continue };
            match next.send(Seat(Some(self.clone()))) {
                Ok(()) => return,
                // That one gave up. The seat is still in hand: dropping it would hand it on twice.
                Err(mut seat) => seat.0 = None,
            }
        }
        state.taken -= 1;
    }

    pub fn taken(&self) -> usize {
        self.state.lock().taken
    }

    pub fn waiting(&self) -> usize {
        self.state.lock().waiting
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(seats) = self.0.take() {
            seats.hand_on();
        }
    }
}

/// A place among those who wait, given back when the waiting ends.
struct Place<'s>(&'s Seats);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.state.lock().waiting -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rand::{Rng, SeedableRng, rngs::StdRng};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    async fn waiting(seats: &Seats, count: usize) {
        while seats.waiting() != count {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_flow_with_many_requests_delays_its_own() {
        let seats = Seats::new(1, 100, 100);
        let first = seats.take(String::new, LONG).await.expect("free");
        let (done, mut order) = tokio::sync::mpsc::unbounded_channel();
        let flows = ["elephant"; 5].into_iter().chain(["mouse", "bird"]);
        for (before, flow) in flows.enumerate() {
            let (theirs, done) = (seats.clone(), done.clone());
            tokio::spawn(async move {
                let seat = theirs.take(|| flow.to_owned(), LONG).await;
                let _ = done.send(flow);
                drop(seat);
            });
            waiting(&seats, before + 1).await;
        }
        drop(first);
        let mut served = vec![];
        for _ in 0..7 {
            served.push(order.recv().await.expect("served"));
        }
        assert_eq!(served[..3], ["elephant", "mouse", "bird"]);
        assert!(served[3..].iter().all(|f| *f == "elephant"));
        while seats.taken() > 0 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn queues_are_bounded_for_all_and_for_each() {
        let seats = Seats::new(1, 3, 2);
        let first = seats.take(String::new, LONG).await.expect("free");
        let ask = |flow: &'static str, patience| {
            let seats = seats.clone();
            tokio::spawn(async move { seats.take(|| flow.to_owned(), patience).await.map(drop) })
        };
        let (one, two) = (ask("a", LONG), ask("a", LONG));
        waiting(&seats, 2).await;
        assert_eq!(
            ask("a", LONG).await.expect("no panic"),
            Err(Refusal::QueueFull)
        );
        let three = ask("b", LONG);
        waiting(&seats, 3).await;
        assert_eq!(
            ask("c", LONG).await.expect("no panic"),
            Err(Refusal::QueueFull)
        );
        // One who gives up leaves the place to others.
        two.abort();
        waiting(&seats, 2).await;
        let soon = Duration::from_millis(1);
        assert_eq!(
            ask("a", soon).await.expect("no panic"),
            Err(Refusal::TimedOut)
        );
        drop(first);
        for task in [one, three] {
            assert_eq!(task.await.expect("no panic"), Ok(()));
        }
        assert_eq!((seats.taken(), seats.waiting()), (0, 0));
        let none = Seats::new(1, 0, 0);
        let _seat = none.take(String::new, LONG).await.expect("free");
        assert_eq!(
            none.take(String::new, LONG).await.err(),
            Some(Refusal::NoSeat)
        );
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_seat_is_lost_or_made() {
        let seats = Seats::new(3, 50, 20);
        let most = Arc::new(AtomicUsize::new(0));
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..2_000_u64 {
            let (seats, most) = (seats.clone(), most.clone());
            tasks.spawn(async move {
                let mut rng = StdRng::seed_from_u64(number);
                let flow = rng.random_range(0..5).to_string();
                let patience = Duration::from_micros(rng.random_range(0..500));
                let seat = seats.take(|| flow, patience).await;
                most.fetch_max(seats.taken(), Ordering::Relaxed);
                for _ in 0..rng.random_range(0..3) {
                    tokio::task::yield_now().await;
                }
                drop(seat);
            });
            if number % 97 == 0 {
                // Some give up at any moment.
                tasks.abort_all();
            }
        }
        while tasks.join_next().await.is_some() {}
        assert_eq!((seats.taken(), seats.waiting()), (0, 0));
        assert!(most.load(Ordering::Relaxed) <= 3);
        let mut held = vec![];
        for _ in 0..3 {
            held.push(seats.take(String::new, LONG).await.expect("all are free"));
        }
    }
}
