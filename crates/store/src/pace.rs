//! How long the committer waits for company: a commit costs much the same for one write as for many.
//!
//! Handing a frame to the disk and being woken when it is there takes the same system calls and turns of threads
//! however little is in it. Where many write at the same time, a wait too short to be noticed beside what else a request
//! takes puts more of them into each commit. A writer who waits for each answer before the next write has no company to
//! wait for: for such the committer does not wait, but for some tens of commits after company has left.

use std::time::Duration;

use crate::queue::Gathering;

/// The longest that a write waits for others.
const PATIENCE: Duration = Duration::from_micros(1000);
/// Requests a commit, in 256ths and on average, from which on there is company to wait for.
const COMPANY: usize = 256 + 32;
/// The last commit counts for a sixteenth of the average.
const SHARE: usize = 16;

/// What the last commits took together.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Requests a commit on average, in 256ths.
    average: usize,
    last: usize,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            average: 256,
            last: 1,
        }
    }
}

impl Pace {
    /// Takes note of a commit of so many requests.
    pub(crate) fn committed(&mut self, requests: usize) {
        let now = requests.saturating_mul(256);
        self.average = (self.average * (SHARE - 1) + now) / SHARE;
        self.last = requests;
    }

    /// What the next commit waits for; `None`: for nothing but its first request.
    ///
    /// As many as came last is enough: writers who wait for their answers before they write again are then
    /// all back.
    pub(crate) fn gathering(&self) -> Option<Gathering> {
        (self.average >= COMPANY).then_some(Gathering {
            requests: self.last.max(2),
            patience: PATIENCE,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_has_company_waits() {
        let mut pace = Pace::default();
        for _ in 0..100 {
            pace.committed(1);
            assert_eq!(pace.gathering(), None, "one writer alone");
        }
        for _ in 0..3 {
            pace.committed(2);
        }
        let two = pace.gathering().expect("two writers");
        assert_eq!(two.requests, 2);
        pace.committed(64);
        assert_eq!(pace.gathering().map(|g| g.requests), Some(64));
        let alone = (1..1000).find(|_| {
            pace.committed(1);
            pace.gathering().is_none()
        });
        assert!(alone.is_some_and(|commits| commits < 100), "{alone:?}");
    }
}
