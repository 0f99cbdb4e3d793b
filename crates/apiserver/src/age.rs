//! How far back a list may begin, by the clock.
//!
//! The store drops what was superseded long ago; of a resource that nobody changes it could give
//! any old state. Kubernetes cannot: etcd is compacted as a whole, and a list that is continued
//! later than that is answered 410 with a token to go on from. Clients rely on it, so it is the
//! same here for quiet resources as for busy ones.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::Instant;

use crate::api::Api;

/// How often the age of revisions is looked at, of the age that they may have.
const LOOKS: u32 = 20;

/// What was the newest revision at some moments of the past, oldest first.
#[derive(Debug, Default)]
struct Marks(VecDeque<(Instant, u64)>);

impl Marks {
    /// Notes the newest revision of this moment; the newest one of those that are as old as `age`,
    /// if there is one.
    fn note(&mut self, now: Instant, revision: u64, age: Duration) -> Option<u64> {
        self.0.push_back((now, revision));
        let mut floor = None;
        while let Some((at, revision)) = self.0.front()
            && now.duration_since(*at) >= age
        {
            floor = Some(*revision);
            self.0.pop_front();
        }
        floor
    }
}

/// Keeps [`Api::aged`] until the server stops.
pub async fn run(api: Arc<Api>) {
    let age = api.config.list_age;
    if age == Duration::MAX {
        return;
    }
    let mut marks = Marks::default();
    loop {
        let revision = api.store.revision();
        if let Some(floor) = marks.note(Instant::now(), revision, age) {
            api.aged.store(floor, Ordering::Relaxed);
        }
        tokio::select! {
            () = tokio::time::sleep((age / LOOKS).max(Duration::from_millis(100))) => {}
            () = api.stop.cancelled() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_age_with_the_clock() {
        let start = Instant::now();
        let age = Duration::from_secs(10);
        let mut marks = Marks::default();
        for (second, revision, expected) in [
            (0, 5, None),
            (4, 8, None),
            (9, 8, None),
            (10, 9, Some(5)),
            (12, 9, None),
            (19, 20, Some(8)),
            (60, 20, Some(20)),
        ] {
            let now = start + Duration::from_secs(second);
            let floor = marks.note(now, revision, age);
            assert_eq!(floor, expected, "at {second} s");
        }
    }
}
