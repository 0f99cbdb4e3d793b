//! Placement policies as they are watched, and what is told of them in their status.

use super::calls::{CallError, send};
use super::driver::Driver;
use gantry_api::placement_policy::{PlacementPolicy, PlacementPolicyStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use rustc_hash::FxHashMap;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

/// How often the number of pods that policies select is looked at.
const EVERY: Duration = Duration::from_secs(5);
/// Problems told of one policy at most.
const MOST_PROBLEMS: usize = 16;
/// Statuses written at a time.
const AT_A_TIME: usize = 4;

struct Seen {
    generation: Option<i64>,
    status: PlacementPolicyStatus,
}

/// The policies that there are, with their status as last seen or written.
#[derive(Default)]
pub(super) struct Told {
    seen: BTreeMap<String, Seen>,
    next: Option<Duration>,
}

pub(super) struct Written {
    name: String,
    result: Result<(), CallError>,
}

impl Written {
    /// Something else than a policy's status was written; it is told again when it changes.
    pub(super) fn other(result: Result<(), CallError>) -> Self {
        Self {
            name: String::new(),
            result,
        }
    }
}

impl Driver {
    pub(super) fn policy(&mut self, policy: &PlacementPolicy) {
        let name = policy.metadata.name.clone().unwrap_or_default();
        let generation = policy.metadata.generation;
        let status = policy.status.clone().unwrap_or_default();
        let before = self.policies.seen.insert(name, Seen { generation, status });
        // Its status, written by this scheduler itself, changes no rule.
        if before.is_none_or(|b| b.generation.is_none() || b.generation != generation) {
            self.cluster.set_policy(policy);
            self.policies.next = None;
        }
    }

    pub(super) fn policy_gone(&mut self, name: &str) {
        self.policies.seen.remove(name);
        self.cluster.remove_policy(name);
    }

    /// When [`Driver::tell_of_policies`] next has something to do.
    pub(super) fn policies_deadline(&self) -> Option<Duration> {
        self.policies
            .next
            .filter(|_| !self.policies.seen.is_empty())
    }

    /// Writes what has changed of the policies' status.
    pub(super) fn tell_of_policies(&mut self, now: Duration) {
        while let Some(written) = self.statuses.try_join_next() {
            if let Ok(Written {
                name,
                result: Err(error),
            }) = written
            {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(error, policy = %name, "status not written; will try again");
                // Not known to be there: it is written again.
                if let Some(seen) = self.policies.seen.get_mut(&name) {
                    seen.status = PlacementPolicyStatus::default();
                }
            }
        }
        if self.policies.seen.is_empty() || self.policies.next.is_some_and(|at| at > now) {
            return;
        }
        self.policies.next = Some(now + EVERY);
        let mut pods: FxHashMap<String, i64> = FxHashMap::default();
        for (name, count) in self.cluster.policy_pods() {
            pods.insert(name.to_owned(), count);
        }
        for (name, count) in self.waiting_by_policy() {
            *pods.entry(name).or_default() += count;
        }
        for (name, seen) in &mut self.policies.seen {
            if self.statuses.len() >= AT_A_TIME {
                // The rest is told soon.
                self.policies.next = Some(now + Duration::from_millis(100));
                break;
            }
            let mut problems = self.cluster.policy_problems(name);
            problems.truncate(MOST_PROBLEMS);
            let status = status(
                seen.generation,
                pods.get(name).copied().unwrap_or_default(),
                problems,
                &seen.status,
            );
            if status == seen.status {
                continue;
            }
            seen.status = status.clone();
            let (client, name) = (self.client.clone(), name.clone());
            self.statuses.spawn(async move {
                let path = format!("/apis/gantry.dev/v1alpha1/placementpolicies/{name}/status");
                let body = json!({"status": status});
                let merge = "application/merge-patch+json";
                let method = http::Method::PATCH;
                let result = send(&client, "write policy status", method, path, merge, &body).await;
                Written { name, result }
            });
        }
    }

    /// Pods without a node, by the policies that select them.
    fn waiting_by_policy(&self) -> BTreeMap<String, i64> {
        let mut counts = BTreeMap::new();
        for (class, pods) in self.queue.lines() {
            let count = i64::try_from(pods).unwrap_or(i64::MAX);
            for (policy, _) in self.cluster.policies_of(class) {
                *counts.entry(policy.to_owned()).or_default() += count;
            }
        }
        counts
    }
}

/// The status to write; a condition that says the same keeps its time.
fn status(
    generation: Option<i64>,
    pods: i64,
    problems: Vec<String>,
    before: &PlacementPolicyStatus,
) -> PlacementPolicyStatus {
    let fine = problems.is_empty();
    let (status, reason) = if fine {
        ("True", "Followed")
    } else {
        ("False", "Problems")
    };
    let message = if fine {
        "placements follow it".to_owned()
    } else {
        problems.join("; ")
    };
    let old = before.conditions.iter().find(|c| c.type_ == "Effective");
    let since = old
        .filter(|c| c.status == status)
        .map_or_else(|| Time(whole_seconds()), |c| c.last_transition_time.clone());
    PlacementPolicyStatus {
        observed_generation: generation,
        pods,
        problems,
        conditions: vec![Condition {
            type_: "Effective".to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message,
            last_transition_time: since,
            observed_generation: generation,
        }],
    }
}

/// Times are kept in whole seconds: what was written compares with what is read back.
fn whole_seconds() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_that_says_the_same_is_the_same() {
        let first = status(Some(1), 3, Vec::new(), &PlacementPolicyStatus::default());
        assert_eq!(status(Some(1), 3, Vec::new(), &first), first);
        let mut worse = status(Some(2), 3, vec!["a".into(), "b".into()], &first);
        let condition = &worse.conditions[0];
        assert_eq!(
            (condition.status.as_str(), condition.message.as_str()),
            ("False", "a; b")
        );
        // The time of a condition is when it turned.
        worse.conditions[0].last_transition_time = Time(Timestamp::UNIX_EPOCH);
        let still = status(Some(3), 4, vec!["c".into()], &worse);
        assert_eq!(
            still.conditions[0].last_transition_time.0,
            Timestamp::UNIX_EPOCH
        );
        assert_ne!(
            status(Some(3), 4, Vec::new(), &worse).conditions[0]
                .last_transition_time
                .0,
            Timestamp::UNIX_EPOCH
        );
    }
}
