//! The planner of a disruption budget: how many pods may be evicted now.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::model::Pod;
use crate::model::network::{Budget, BudgetCondition, BudgetSpec, BudgetStatus};
use crate::model::workload::scaled;

/// Seconds after which a granted eviction that did not happen is forgotten.
const DISRUPTION_SECONDS: i64 = 120;

/// How often a budget whose pods' owners cannot be reckoned with is looked at again.
pub const RETRY: Duration = Duration::from_secs(5);

pub struct World<'a> {
    pub budget: &'a Budget,
    /// The pods that it selects.
    pub pods: &'a [Arc<Pod>],
    /// The number of pods that their owners want, by the owners' scales; why not, where that cannot
    /// be told. Read only where [`needs_scale`].
    pub wanted: Result<i32, String>,
    pub now: Timestamp,
}

/// What to write, and when to look again.
#[derive(Debug)]
pub struct Plan {
    pub status: BudgetStatus,
    pub after: Option<Duration>,
    /// Why nothing may be disrupted, where that is because the reckoning failed.
    pub failure: Option<String>,
    /// Pods without an owner count nothing where owners are reckoned with: the status is not what
    /// people may expect.
    pub unmanaged: bool,
    /// Pods whose eviction was granted long ago, and that are still there.
    pub not_deleted: Vec<Arc<Pod>>,
}

/// Whether a budget is reckoned by what the owners want, rather than by the pods that are there.
pub fn needs_scale(spec: &BudgetSpec) -> bool {
    spec.max_unavailable.is_some() || matches!(spec.min_available, Some(IntOrString::String(_)))
}

/// The status, and when to look again because a grant runs out.
pub fn plan(world: &World<'_>) -> Plan {
    let World {
        budget, pods, now, ..
    } = *world;
    let spec = &budget.spec;
    let wanted = match &world.wanted {
        Ok(wanted) => *wanted,
        Err(why) if needs_scale(spec) => return fail_safe(budget, why, now),
        Err(_) => 0,
    };
    let count = i32::try_from(pods.len()).unwrap_or(i32::MAX);
    let (expected, desired) = match (&spec.max_unavailable, &spec.min_available) {
        (Some(max), _) => (wanted, (wanted - scaled(Some(max), wanted, true)).max(0)),
        (None, Some(IntOrString::Int(n))) => (count, *n),
        (None, Some(percent)) => (wanted, scaled(Some(percent), wanted, true)),
        // Nothing is asked for, and so nothing is granted.
        (None, None) => (0, 0),
    };

    let mut disrupted = BTreeMap::new();
    let mut soonest: Option<i64> = None;
    let mut not_deleted = Vec::new();
    for pod in pods.iter().filter(|p| !p.terminating()) {
        if let Some(granted) = budget.status.disrupted_pods.get(&*pod.meta.name) {
            let left = granted.as_second() + DISRUPTION_SECONDS - now.as_second();
            if left > 0 {
                disrupted.insert(pod.meta.name.to_string(), *granted);
                soonest = Some(soonest.map_or(left, |s| s.min(left)));
            } else {
                not_deleted.push(pod.clone());
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
    note(&mut status, value, reason, "", now);
    let after = soonest.and_then(|s| u64::try_from(s).ok());
    Plan {
        status,
        after: after.map(Duration::from_secs),
        failure: None,
        unmanaged: needs_scale(spec) && pods.iter().any(|p| p.meta.controller().is_none()),
        not_deleted,
    }
}

/// Where the reckoning fails nothing may be disrupted; the rest of the status stays as it was.
fn fail_safe(budget: &Budget, why: &str, now: Timestamp) -> Plan {
    let mut status = budget.status.clone();
    status.disruptions_allowed = 0;
    note(&mut status, "False", "SyncFailed", why, now);
    Plan {
        status,
        after: Some(RETRY),
        failure: Some(why.to_owned()),
        unmanaged: false,
        not_deleted: Vec::new(),
    }
}

/// Sets the condition. Its time changes only with its value.
fn note(status: &mut BudgetStatus, value: &str, reason: &str, message: &str, now: Timestamp) {
    let generation = Some(status.observed_generation).filter(|g| *g != 0);
    let at = status
        .conditions
        .iter()
        .position(|c| c.kind == "DisruptionAllowed");
    let since = at
        .and_then(|at| status.conditions.get(at))
        .filter(|c| c.status == value)
        .and_then(|c| c.last_transition_time);
    let condition = BudgetCondition {
        kind: "DisruptionAllowed".into(),
        status: value.into(),
        observed_generation: generation,
        last_transition_time: since.or_else(|| Timestamp::from_second(now.as_second()).ok()),
        reason: reason.into(),
        message: message.into(),
    };
    match at.and_then(|at| status.conditions.get_mut(at)) {
        Some(there) => *there = condition,
        None => status.conditions.push(condition),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn run(spec: Value, status: Value, ready: &[bool], wanted: i32) -> BudgetStatus {
        plan_of(spec, status, ready, Ok(wanted)).status
    }

    fn plan_of(spec: Value, status: Value, ready: &[bool], wanted: Result<i32, String>) -> Plan {
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
        plan(&world)
    }

    #[rstest]
    #[case(json!({"maxUnavailable": 1}), &[true, true, true], 3, 1, 2)]
    #[case(json!({"maxUnavailable": 1}), &[true, true, false], 3, 0, 2)]
    #[case(json!({"maxUnavailable": "50%"}), &[true, true, true], 3, 2, 1)]
    #[case(json!({"minAvailable": 2}), &[true, true, true], 3, 1, 2)]
    #[case(json!({"minAvailable": "50%"}), &[true, true, true], 3, 1, 2)]
    #[case(json!({"minAvailable": 0}), &[], 0, 0, 0)]
    #[case(json!({"maxUnavailable": 1}), &[true, true], 3, 0, 2)]
    #[case(json!({}), &[true, true, true], 3, 0, 0)]
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

    #[test]
    fn what_was_granted_and_did_not_happen_is_told() {
        let granted =
            json!({"disruptedPods": {"p0": "2026-01-01T00:00:00Z", "p1": "2025-12-31T23:00:00Z"}});
        let told = plan_of(json!({"minAvailable": 1}), granted, &[true; 3], Ok(3));
        let names: Vec<&str> = told.not_deleted.iter().map(|p| &*p.meta.name).collect();
        assert_eq!(names, ["p1"]);
    }

    #[rstest]
    #[case(json!({"maxUnavailable": 1}), &[true], true)]
    #[case(json!({"minAvailable": "50%"}), &[true], true)]
    #[case(json!({"minAvailable": 1}), &[true], false)]
    #[case(json!({"maxUnavailable": 1}), &[], false)]
    fn pods_without_an_owner_are_told_of(
        #[case] spec: Value,
        #[case] ready: &[bool],
        #[case] unmanaged: bool,
    ) {
        assert_eq!(plan_of(spec, json!({}), ready, Ok(0)).unmanaged, unmanaged);
    }

    #[rstest]
    #[case(json!({"maxUnavailable": 1}), true)]
    #[case(json!({"minAvailable": "50%"}), true)]
    #[case(json!({"minAvailable": 1}), false)]
    #[case(json!({}), false)]
    fn an_unknown_scale_fails_safe_where_it_matters(#[case] spec: Value, #[case] fails: bool) {
        let before = json!({"observedGeneration": 1, "disruptionsAllowed": 2, "currentHealthy": 3,
            "desiredHealthy": 1, "expectedPods": 3, "conditions": [
            {"type": "Other", "status": "True", "reason": "R", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"},
            {"type": "DisruptionAllowed", "status": "True", "reason": "SufficientPods", "message": "",
                "observedGeneration": 1, "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
        let told = plan_of(spec, before, &[true, true], Err("lost".into()));
        assert_eq!(told.failure.is_some(), fails);
        assert_eq!(told.after.is_some(), fails);
        let status = told.status;
        assert_eq!(status.conditions[0].kind, "Other", "others are kept");
        if fails {
            let written = serde_json::to_value(&status.conditions[1]).unwrap();
            assert_eq!(
                written,
                json!({"type": "DisruptionAllowed", "status": "False", "reason": "SyncFailed", "message": "lost",
                    "observedGeneration": 1, "lastTransitionTime": "2026-01-01T00:01:00Z"})
            );
            assert_eq!((status.disruptions_allowed, status.current_healthy), (0, 3));
        } else {
            assert_ne!(status.conditions[1].reason, "SyncFailed");
        }
    }

    #[test]
    fn the_condition_names_the_generation_and_has_a_message() {
        let status = run(json!({"maxUnavailable": 1}), json!({}), &[true], 1);
        assert_eq!(
            serde_json::to_value(&status.conditions).unwrap(),
            json!([{"type": "DisruptionAllowed", "status": "True", "reason": "SufficientPods", "message": "",
                "observedGeneration": 1, "lastTransitionTime": "2026-01-01T00:01:00Z"}])
        );
    }
}
