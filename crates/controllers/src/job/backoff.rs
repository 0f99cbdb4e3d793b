//! How long a Job waits before it replaces failed pods.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::model::Pod;

/// After the first failure, and at most; each failure in a row doubles the wait.
pub const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(600);

/// A Job's failures in a row. Kept in memory only: after a restart of the controller the first
/// replacement does not wait, as in Kubernetes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Backoff {
    pub failures: u32,
    pub last: Option<Timestamp>,
}

impl Backoff {
    /// Takes in pods that are newly seen to have ended.
    #[must_use]
    pub fn with(&self, succeeded: &[Arc<Pod>], failed: &[Arc<Pod>]) -> Self {
        let success = succeeded.iter().filter_map(|p| finished_at(p)).max();
        // A success clears what came before it.
        let (before, since) = match success {
            Some(at) => (0, Some(at)),
            None if !succeeded.is_empty() => (0, None),
            None => (self.failures, None),
        };
        let times: Vec<Timestamp> = failed
            .iter()
            .filter_map(|p| finished_at(p))
            .filter(|at| since.is_none_or(|since| *at > since))
            .collect();
        let more = u32::try_from(times.len()).unwrap_or(u32::MAX);
        let kept = if before == 0 { None } else { self.last };
        Backoff {
            failures: before.saturating_add(more),
            last: times.into_iter().max().or(kept),
        }
    }

    /// How long to wait yet.
    pub fn wait(&self, first: Duration, now: Timestamp) -> Duration {
        wait(first, self.failures, self.last, now)
    }
}

/// How long to wait yet after so many failures, the last at that time. `first`: after one.
pub fn wait(first: Duration, failures: u32, last: Option<Timestamp>, now: Timestamp) -> Duration {
    let Some(last) = last.filter(|_| failures > 0) else {
        return Duration::ZERO;
    };
    let doublings = (failures - 1).min(16);
    let whole = first.saturating_mul(1 << doublings).min(LONGEST);
    let passed = Duration::try_from(now.duration_since(last)).unwrap_or(Duration::ZERO);
    whole.saturating_sub(passed)
}

/// When a pod ended: by its containers, by when it ceased to be ready, by when it was told to go;
/// at the earliest when it was created.
pub fn finished_at(pod: &Pod) -> Option<Timestamp> {
    pod.tracked
        .as_ref()
        .and_then(|t| t.finished)
        .or(pod.meta.created)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn ended(second: i64) -> Arc<Pod> {
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {"finalizers": ["batch.kubernetes.io/job-tracking"]},
                "status": {"containerStatuses": [{"state": {"terminated": {"exitCode": 1,
                    "finishedAt": at(second).to_string()}}}]}}))
            .unwrap(),
        )
    }

    #[rstest]
    #[case::nothing_new(&[], &[], 2, Some(5))]
    #[case::more(&[], &[7, 9], 4, Some(9))]
    #[case::success(&[8], &[], 0, None)]
    #[case::failures_after_the_success(&[8], &[7, 9, 11], 2, Some(11))]
    fn counts_failures_in_a_row(
        #[case] succeeded: &[i64],
        #[case] failed: &[i64],
        #[case] failures: u32,
        #[case] last: Option<i64>,
    ) {
        let before = Backoff {
            failures: 2,
            last: Some(at(5)),
        };
        let pods = |times: &[i64]| -> Vec<Arc<Pod>> { times.iter().map(|t| ended(*t)).collect() };
        let after = before.with(&pods(succeeded), &pods(failed));
        let expected = Backoff {
            failures,
            last: last.map(at),
        };
        assert_eq!(after, expected);
    }

    #[rstest]
    #[case(0, 0, 0)]
    #[case(1, 0, 10)]
    #[case(1, 4, 6)]
    #[case(1, 11, 0)]
    #[case(3, 0, 40)]
    #[case(7, 0, 600)]
    #[case(4000, 0, 600)]
    fn waits_double(#[case] failures: u32, #[case] passed: i64, #[case] seconds: u64) {
        assert_eq!(
            wait(FIRST, failures, Some(at(100)), at(100 + passed)),
            Duration::from_secs(seconds)
        );
    }
}
