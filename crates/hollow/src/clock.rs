//! Instants as the simulation counts them: milliseconds since the Unix epoch.
//!
//! The pure core gets every instant from its caller; only the shell and the kubelets' answers read a
//! [`Clock`].

use jiff::Timestamp;
use std::{fmt, time::Duration};
use tokio::time::Instant;

/// What time it is.
#[derive(Clone, Copy, Debug, Default)]
pub enum Clock {
    /// The system's, with all its corrections.
    #[default]
    Wall,
    /// An instant, and what has passed of the runtime's time since another. Where that time is paused
    /// (`tokio::time::pause`), it jumps to the next timer whenever nothing is left to do, and an hour
    /// passes in as long as its work takes. Only sound where everything waits for timers of the same
    /// runtime: not with an API server that has threads and a disk.
    Runtime(Millis, Instant),
}

impl Clock {
    /// A clock of the runtime's time that shows `now`.
    #[must_use]
    pub fn runtime(now: Millis) -> Self {
        Self::Runtime(now, Instant::now())
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Millis {
        match self {
            Self::Wall => Timestamp::now().into(),
            Self::Runtime(first, since) => first.plus(since.elapsed()),
        }
    }
}

/// An instant, in milliseconds since the Unix epoch. The API shows whole seconds of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub i64);

impl Millis {
    /// The instant `by` later; saturates at the end of time.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(
            self.0
                .saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)),
        )
    }

    /// So many milliseconds later, or earlier if they are below zero.
    #[must_use]
    pub fn shifted(self, by: i64) -> Self {
        Self(self.0.saturating_add(by))
    }

    /// Time passed since `earlier`; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// The last multiple of `step` that is not later.
    #[must_use]
    pub fn floor(self, step: Duration) -> Self {
        let step = i64::try_from(step.as_millis()).unwrap_or(i64::MAX).max(1);
        Self(self.0 - self.0.rem_euclid(step))
    }

    /// The same instant.
    #[must_use]
    pub fn timestamp(self) -> Timestamp {
        Timestamp::from_millisecond(self.0).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// As `metav1.MicroTime`, which leases carry.
    #[must_use]
    pub fn micro_time(self) -> String {
        self.timestamp()
            .strftime("%Y-%m-%dT%H:%M:%S.%6fZ")
            .to_string()
    }
}

/// As `metav1.Time`: RFC 3339, whole seconds, UTC.
impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.timestamp().strftime("%Y-%m-%dT%H:%M:%SZ"))
    }
}

impl From<Timestamp> for Millis {
    fn from(at: Timestamp) -> Self {
        Self(at.as_millisecond())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floors_to_a_step() {
        let floor = |at, step| Millis(at).floor(Duration::from_millis(step)).0;
        assert_eq!(floor(1_499, 500), 1_000);
        assert_eq!(floor(1_500, 500), 1_500);
        assert_eq!(floor(-1, 500), -500);
        assert_eq!(floor(7, 0), 7);
    }

    #[test]
    fn prints_as_the_api_does() {
        let at = Millis(1_700_000_000_123);
        assert_eq!(at.to_string(), "2023-11-14T22:13:20Z");
        assert_eq!(at.micro_time(), "2023-11-14T22:13:20.123000Z");
        assert_eq!(
            at.plus(Duration::from_secs(2)).since(at),
            Duration::from_secs(2)
        );
        assert_eq!(at.since(at.plus(Duration::from_secs(2))), Duration::ZERO);
    }
}
