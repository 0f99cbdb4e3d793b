//! The seats of a priority level, and the queues before them: one for each flow, served in turn,
//! so that a flow with many requests delays its own.
//!
//! A request takes as many seats as it is worth ([`Seats::take`]), at most all. How many there are
//! changes as levels lend each other theirs ([`Seats::resize`]); who sits stays seated.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::sync::oneshot;

pub struct Seats {
    /// How many requests may wait, altogether and of one flow.
    room: usize,
    share: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    limit: usize,
    taken: usize,
    /// Requests that wait, and the seats they wait for.
    waiting: usize,
    wanted: usize,
    /// The most seats that were taken and waited for at one time since it was last asked.
    high: usize,
    /// Those who wait, by flow; senders of those who gave up are closed.
    flows: FxHashMap<Box<str>, VecDeque<Waiting>>,
    /// Flows in the order of their turns.
    turns: VecDeque<Box<str>>,
}

struct Waiting {
    width: usize,
    sender: oneshot::Sender<Seat>,
}

/// Seats that are taken, given back when dropped.
pub struct Seat(Option<(Arc<Seats>, usize)>);

#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no queue.
    NoSeat,
    QueueFull,
    TimedOut,
}

impl State {
    /// Whether a request may sit down now. One that is worth more than there are may when it has
    /// all to itself.
    fn fits(&self, width: usize) -> bool {
        self.taken == 0 || self.taken + width <= self.limit
    }

    fn note(&mut self) {
        self.high = self.high.max(self.taken + self.wanted);
    }
}

impl Seats {
    pub fn new(limit: usize, room: usize, share: usize) -> Arc<Seats> {
        Arc::new(Seats {
            room,
            share,
            state: Mutex::new(State {
                limit,
                ..State::default()
            }),
        })
    }

    /// Seats, now or after waiting in the queue of a flow.
    pub async fn take(
        self: &Arc<Seats>,
        width: usize,
        flow: impl FnOnce() -> String,
        patience: Duration,
    ) -> Result<Seat, Refusal> {
        let (_place, seat) = {
            let mut state = self.state.lock();
            // Nobody is passed who waits already.
            if state.turns.is_empty() && state.fits(width) {
                state.taken += width;
                state.note();
                return Ok(Seat(Some((self.clone(), width))));
            }
            if self.room == 0 {
                return Err(Refusal::NoSeat);
            }
            if state.waiting >= self.room {
                return Err(Refusal::QueueFull);
            }
            let flow: Box<str> = flow().into();
            let (sender, receiver) = oneshot::channel();
            let waiting = Waiting { width, sender };
            match state.flows.get_mut(&flow) {
                Some(queue) => {
                    if queue.len() >= self.share {
                        queue.retain(|waiting| !waiting.sender.is_closed());
                    }
                    if queue.len() >= self.share {
                        return Err(Refusal::QueueFull);
                    }
                    queue.push_back(waiting);
                }
                None => {
                    state.turns.push_back(flow.clone());
                    state.flows.insert(flow, VecDeque::from([waiting]));
                }
            }
            state.waiting += 1;
            state.wanted += width;
            state.note();
            (Place(self, width), receiver)
        };
        // Those before may all have given up.
        self.seat_waiting();
        match tokio::time::timeout(patience, seat).await {
            Ok(Ok(seat)) => Ok(seat),
            _ => Err(Refusal::TimedOut),
        }
    }

    /// Seats who wait, in turn, as long as there is room for the next.
    fn seat_waiting(self: &Arc<Seats>) {
        let mut state = self.state.lock();
        while let Some(flow) = state.turns.pop_front() {
            let Some(queue) = state.flows.get_mut(&flow) else {
                continue;
            };
            while queue.front().is_some_and(|w| w.sender.is_closed()) {
                queue.pop_front();
            }
            let Some(width) = queue.front().map(|w| w.width) else {
                state.flows.remove(&flow);
                continue;
            };
            if !state.fits(width) {
                // The turn stays this flow's: a request that needs many seats gets them in the end.
                state.turns.push_front(flow);
                return;
            }
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
            match next.sender.send(Seat(Some((self.clone(), width)))) {
                Ok(()) => state.taken += width,
                // That one gave up. Nothing was taken: dropping the seat would give back too much.
                Err(mut seat) => seat.0 = None,
            }
        }
    }

    fn give_back(self: &Arc<Seats>, width: usize) {
        self.state.lock().taken -= width;
        self.seat_waiting();
    }

    /// Changes how many seats there are.
    pub fn resize(self: &Arc<Seats>, limit: usize) {
        self.state.lock().limit = limit;
        self.seat_waiting();
    }

    /// How many seats there are now.
    pub fn limit(&self) -> usize {
        self.state.lock().limit
    }

    pub fn taken(&self) -> usize {
        self.state.lock().taken
    }

    pub fn waiting(&self) -> usize {
        self.state.lock().waiting
    }

    /// The seats that are taken and waited for.
    pub fn demand(&self) -> usize {
        let state = self.state.lock();
        state.taken + state.wanted
    }

    /// The most of them at one time since this was last asked.
    pub fn high(&self) -> usize {
        let mut state = self.state.lock();
        let now = state.taken + state.wanted;
        std::mem::replace(&mut state.high, now)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some((seats, width)) = self.0.take() {
            seats.give_back(width);
        }
    }
}

/// A place among those who wait, given back when the waiting ends.
struct Place<'s>(&'s Arc<Seats>, usize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        {
            let mut state = self.0.state.lock();
            state.waiting -= 1;
            state.wanted -= self.1;
        }
        // One who gives up may have been in the way of others.
        self.0.seat_waiting();
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
        let first = seats.take(1, String::new, LONG).await.expect("free");
        let (done, mut order) = tokio::sync::mpsc::unbounded_channel();
        let flows = ["elephant"; 5].into_iter().chain(["mouse", "bird"]);
        for (before, flow) in flows.enumerate() {
            let (theirs, done) = (seats.clone(), done.clone());
            tokio::spawn(async move {
                let seat = theirs.take(1, || flow.to_owned(), LONG).await;
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
        let first = seats.take(1, String::new, LONG).await.expect("free");
        let ask = |flow: &'static str, patience| {
            let seats = seats.clone();
            tokio::spawn(async move { seats.take(1, || flow.to_owned(), patience).await.map(drop) })
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
        let _seat = none.take(1, String::new, LONG).await.expect("free");
        assert_eq!(
            none.take(1, String::new, LONG).await.err(),
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
                let seat = seats.take(1, || flow, patience).await;
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
            held.push(
                seats
                    .take(1, String::new, LONG)
                    .await
                    .expect("all are free"),
            );
        }
    }

    #[tokio::test]
    async fn a_request_takes_as_many_seats_as_it_is_worth() {
        let seats = Seats::new(4, 10, 10);
        let wide = seats.take(3, String::new, LONG).await.expect("free");
        let narrow = seats.take(1, String::new, LONG).await.expect("free");
        assert_eq!(seats.taken(), 4);
        let ask = |flow: &'static str, width| {
            let seats = seats.clone();
            tokio::spawn(async move { seats.take(width, || flow.to_owned(), LONG).await })
        };
        let first = ask("a", 3);
        waiting(&seats, 1).await;
        let second = ask("b", 1);
        waiting(&seats, 2).await;
        assert_eq!((seats.demand(), seats.high()), (8, 8));
        drop(narrow);
        // There is a seat for the second, yet it is the first one's turn.
        assert_eq!((seats.taken(), seats.waiting()), (3, 2));
        drop(wide);
        let first = first.await.expect("no panic").expect("seated");
        let second = second.await.expect("no panic").expect("seated");
        assert_eq!(seats.taken(), 4);
        drop((first, second));
        // One that is worth more than there are sits alone.
        let all = seats.take(9, String::new, LONG).await.expect("alone");
        let after = ask("a", 1);
        waiting(&seats, 1).await;
        drop(all);
        drop(after.await.expect("no panic").expect("seated"));
        assert_eq!((seats.taken(), seats.demand()), (0, 0));
    }

    #[tokio::test]
    async fn more_seats_are_for_those_who_wait_and_fewer_for_nobody_who_sits() {
        let seats = Seats::new(1, 10, 10);
        let first = seats.take(1, String::new, LONG).await.expect("free");
        let (theirs, ours) = (seats.clone(), seats.clone());
        let next = tokio::spawn(async move { theirs.take(1, String::new, LONG).await });
        waiting(&seats, 1).await;
        seats.resize(2);
        let next = next.await.expect("no panic").expect("seated");
        seats.resize(1);
        assert_eq!((seats.taken(), seats.limit()), (2, 1));
        let last = tokio::spawn(async move { ours.take(1, String::new, LONG).await });
        waiting(&seats, 1).await;
        drop(first);
        assert_eq!(seats.waiting(), 1, "one sits, and there is one seat");
        drop(next);
        drop(last.await.expect("no panic").expect("seated"));
        assert_eq!(seats.taken(), 0);
    }

    #[tokio::test]
    async fn one_who_gives_up_is_in_nobodys_way() {
        let seats = Seats::new(2, 10, 10);
        let first = seats.take(1, String::new, LONG).await.expect("free");
        let theirs = seats.clone();
        let wide = tokio::spawn(async move { theirs.take(2, || "a".to_owned(), LONG).await });
        waiting(&seats, 1).await;
        let theirs = seats.clone();
        let narrow = tokio::spawn(async move { theirs.take(1, || "b".to_owned(), LONG).await });
        waiting(&seats, 2).await;
        wide.abort();
        let narrow = narrow.await.expect("no panic").expect("seated");
        assert_eq!(seats.taken(), 2);
        drop((first, narrow));
        assert_eq!(seats.demand(), 0);
    }
}
