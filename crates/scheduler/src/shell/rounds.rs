//! Rounds: where many pods wait, several workers decide them at the same time (see [`crate::core::round`]).

use super::driver::{Driver, PARALLEL_PREEMPTIONS};
use crate::core::queue::Drawn;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// Pods decided in one round at most. They are bound as fast as bindings may be in flight, and nothing else is decided
/// meanwhile, so that decisions are never far ahead of what is known.
const MOST: usize = 256;

/// How long a decision takes, on the average of the last few.
#[derive(Default)]
pub(super) struct Pace(pub(super) Duration);

impl Pace {
    /// So many were made in this time.
    pub(super) fn note(&mut self, took: Duration, decisions: usize) {
        let decisions = u32::try_from(decisions).unwrap_or(u32::MAX).max(1);
        // An eighth for each, all of it for many.
        let weight = decisions.min(8);
        self.0 = (self.0 * (8 - weight) + took / decisions * weight) / 8;
    }
}

impl Driver {
    /// Draws pods in the order of the queue, and decides them in one round. Returns whether there were any.
    pub(super) fn play_round(&mut self, now: Duration) -> bool {
        let mut drawn = Vec::new();
        while drawn.len() < MOST
            && let Some((_, class)) = self.queue.peek()
            // A gang is decided as a whole, when its turn comes.
            && self.cluster.gang_of(class).is_none()
            && let Some(pod) = self.queue.draw()
        {
            drawn.push(pod);
        }
        let any = !drawn.is_empty();
        let classes = drawn.iter().map(|pod| pod.class).collect();
        let began = std::time::Instant::now();
        let mut round = self.cluster.propose(classes, self.options.workers);
        let (mut took, mut settled) = (began.elapsed(), 0);
        for (at, pod) in drawn.into_iter().enumerate() {
            if self.preemptions.len() >= PARALLEL_PREEMPTIONS || self.queue.is_parked(pod.class) {
                self.put_back(pod);
                continue;
            }
            let (uid, class) = (pod.uid.clone(), pod.class);
            if self.take_up(&uid, class) {
                self.queue.succeeded(class);
                continue;
            }
            let began = std::time::Instant::now();
            let decision = self.cluster.settle(&mut round, at);
            took += began.elapsed();
            settled += 1;
            if let Some(diagnosis) = self.carry_out(&uid, class, decision) {
                self.put_back(pod);
                self.park(class, diagnosis, now);
            } else {
                self.queue.succeeded(class);
            }
            self.wake(now);
        }
        // When all of it was fast, one decides alone again.
        self.pace.note(took, settled);
        let metrics = &self.options.metrics;
        metrics
            .rounds
            .fetch_add(u64::from(round.proposed > 0), Relaxed);
        metrics
            .decided_together
            .fetch_add(round.proposed as u64, Relaxed);
        metrics.conflicts.fetch_add(round.conflicts as u64, Relaxed);
        self.cluster.close(round);
        any
    }

    fn put_back(&mut self, pod: Drawn) {
        let uid = pod.uid.clone();
        if let Some(diagnosis) = self.queue.put_back(pod) {
            self.report_later(&uid, diagnosis);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_slow_decisions_do_not_make_a_pace() {
        let micros = Duration::from_micros;
        let mut pace = Pace::default();
        pace.note(micros(100), 1);
        assert!(pace.0 < micros(20), "{:?}", pace.0);
        for _ in 0..8 {
            pace.note(micros(100), 1);
        }
        assert!(pace.0 > micros(60), "{:?}", pace.0);
        pace.note(micros(512), 256);
        assert_eq!(pace.0, micros(2));
    }
}
