//! The planner of a disruption budget: how many pods may be evicted now.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::model::Pod;
use crate::model::network::{Budget, BudgetStatus};
use crate::model::workload::{Condition, scaled};

/// Seconds after which a granted eviction that did not happen is forgotten.
const DISRUPTION_SECONDS: i64 = 120;

pub struct World<'a> {
    pub budget: &'a Budget,
    /// The pods that it selects.
    pub pods: &'a [Arc<Pod>],
    /// The number of pods that their owners want, by the owner's scale.
    pub wanted: i32,
    pub now: Timestamp,
}

/// The status, and when to look again because a grant runs out.
pub fn plan(world: &World<'_>) -> (BudgetStatus, Option<Duration>) {
    let World {
        budget,
        pods,
        wanted,
        now,
    } = *world;
    let spec = &budget.spec;
    let count = i32::try_from(pods.len()).unwrap_or(i32::MAX);
    let (expected, desired) = match (&spec.max_unavailable, &spec.min_available) {
        (Some(max), _) => (wanted, (wanted - scaled(Some(max), wanted, true)).max(0)),
        (None, Some(IntOrString::Int(n))) => (count, *n),
        (None, Some(percent)) => (wanted, scaled(Some(percent), wanted, true)),
        (None, None) => (count, 0),
    };

    let mut disrupted = BTreeMap::new();
    let mut soonest: Option<i64> = None;
    for pod in pods.iter().filter(|p| !p.terminating()) {
        if let Some(granted) = budget.status.disrupted_pods.get(&*pod.meta.name) {
            let left = granted.as_second() + DISRUPTION_SECONDS - now.as_second();
            if left > 0 {
                disrupted.insert(pod.meta.name.to_string(), *granted);
                soonest = Some(soonest.map_or(left, |s| s.min(left)));
            }
        }
    }
    let healthy = pods
        .iter()
        .filter(|p| !p.terminating() && p.ready && !disrupted.contains_key(&*p.meta.name))
        .count();
    let healthy = i32::try_from(healthy).unwrap_or(i32::MAX);
    let allowed = if expected <= 0 {
        0
    } else {
        (healthy - desired).max(0)
    };
    let mut status = BudgetStatus {
        observed_generation: budget.metadata.generation,
        disrupted_pods: disrupted,
        disruptions_allowed: allowed,
        current_healthy: healthy,
        desired_healthy: desired,
        expected_pods: expected,
        conditions: budget.status.conditions.clone(),
    };
    let (value, reason) = if allowed > 0 {
        ("True", "SufficientPods")
    } else {
        ("False", "InsufficientPods")
    };
    note(&mut status.conditions, value, reason, budget, now);
    let after = soonest.and_then(|s| u64::try_from(s).ok());
    (status, after.map(Duration::from_secs))
}

fn note(
    conditions: &mut Vec<Condition>,
    value: &str,
    reason: &str,
    budget: &Budget,
    now: Timestamp,
) {
    let same = conditions
        .iter()
        .any(|c| c.kind == "DisruptionAllowed" && c.status == value && c.reason == reason);
    if same && budget.status.observed_generation == budget.metadata.generation {
        return;
    }
    let since = conditions
        .iter()
        .find(|c| c.kind == "DisruptionAllowed" && c.status == value)
        .and_then(|c| c.last_transition_time);
    conditions.retain(|c| c.kind != "DisruptionAllowed");
    conditions.push(Condition {
        kind: "DisruptionAllowed".into(),
        status: value.into(),
        reason: reason.into(),
        last_transition_time: since.or_else(|| Timestamp::from_second(now.as_second()).ok()),
        ..Condition::default()
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn run(spec: Value, status: Value, ready: &[bool], wanted: i32) -> BudgetStatus {
        let budget: Budget = serde_json::from_value(
            json!({"metadata": {"name": "b", "generation": 1}, "spec": spec, "status": status}),
        )
        .unwrap();
        let pods: Vec<Arc<Pod>> = ready
            .iter()
            .enumerate()
            .map(|(n, ready)| {
                let ready = if *ready { "True" } else { "False" };
                Arc::new(
                    serde_json::from_value(json!({"metadata": {"name": format!("p{n}")},
                        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}}))
                    .unwrap(),
                )
            })
            .collect();
        let world = World {
            budget: &budget,
            pods: &pods,
            wanted,
            now: "2026-01-01T00:01:00Z".parse().unwrap(),
        };
        plan(&world).0
    }

    #[rstest]
    #[case(json!({"maxUnavailable": 1}), &[true, true, true], 3, 1, 2)]
    #[case(json!({"maxUnavailable": 1}), &[true, true, false], 3, 0, 2)]
    #[case(json!({"maxUnavailable": "50%"}), &[true, true, true], 3, 2, 1)]
    #[case(json!({"minAvailable": 2}), &[true, true, true], 3, 1, 2)]
    #[case(json!({"minAvailable": "50%"}), &[true, true, true], 3, 1, 2)]
    #[case(json!({"minAvailable": 0}), &[], 0, 0, 0)]
    #[case(json!({"maxUnavailable": 1}), &[true, true], 3, 0, 2)]
    fn allows(
        #[case] spec: Value,
        #[case] ready: &[bool],
        #[case] wanted: i32,
        #[case] allowed: i32,
        #[case] desired: i32,
    ) {
        let status = run(spec, json!({}), ready, wanted);
        assert_eq!(
            (status.disruptions_allowed, status.desired_healthy),
            (allowed, desired)
        );
    }

    #[test]
    fn granted_evictions_count_until_they_run_out() {
        let granted =
            json!({"disruptedPods": {"p0": "2026-01-01T00:00:00Z", "p1": "2025-12-31T23:00:00Z"}});
        let status = run(
            json!({"maxUnavailable": 1}),
            granted,
            &[true, true, true],
            3,
        );
        assert_eq!(status.current_healthy, 2);
        assert_eq!(status.disruptions_allowed, 0);
        assert_eq!(status.disrupted_pods.len(), 1);
    }
}
