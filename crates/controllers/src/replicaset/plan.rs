//! The planner of a ReplicaSet: how many pods to create, which to delete, and the status.

use std::cmp::{Ordering, Reverse};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustc_hash::FxHashMap;

use crate::model::pod::{DELETION_COST, Phase};
use crate::model::workload::{Condition, ReplicaSetStatus};
use crate::model::{Labels, Pod};

/// Pods one sync creates or deletes at most.
const BURST: usize = 500;

/// What a sync looks at.
pub struct World<'a> {
    pub generation: i64,
    pub deleting: bool,
    pub replicas: i32,
    pub min_ready_seconds: i32,
    /// Labels of the template, for `fullyLabeledReplicas`.
    pub template_labels: &'a Labels,
    pub status: &'a ReplicaSetStatus,
    pub pods: &'a [Arc<Pod>],
    /// For each node, the pods of this and of sibling sets (those with the same owner) on it.
    pub per_node: &'a FxHashMap<Arc<str>, usize>,
    pub now: Timestamp,
}

#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    pub create: usize,
    pub delete: Vec<Arc<Pod>>,
    /// More is to be done than one sync does.
    pub again: bool,
    pub after: Option<Duration>,
}

pub fn plan(world: &World<'_>) -> Plan {
    let active: Vec<&Arc<Pod>> = world.pods.iter().filter(|p| p.active()).collect();
    let wanted = usize::try_from(world.replicas.max(0)).unwrap_or(0);
    let mut plan = Plan {
        after: soonest_available(world),
        ..Plan::default()
    };
    if world.deleting {
        return plan;
    }
    if active.len() < wanted {
        let missing = wanted - active.len();
        plan.create = missing.min(BURST);
        plan.again = missing > BURST;
    } else if active.len() > wanted {
        let excess = active.len() - wanted;
        plan.again = excess > BURST;
        plan.delete = to_delete(active, excess.min(BURST), world);
    }
    plan
}

/// The pods that are missed least: `ActivePodsWithRanks` of `controller_utils.go`.
fn to_delete(active: Vec<&Arc<Pod>>, count: usize, world: &World<'_>) -> Vec<Arc<Pod>> {
    let mut ranked: Vec<&Arc<Pod>> = active;
    ranked.sort_by(|a, b| missed_less(a, b, world));
    ranked.into_iter().take(count).cloned().collect()
}

fn missed_less(a: &Pod, b: &Pod, world: &World<'_>) -> Ordering {
    let rank = |pod: &Pod| {
        let phase = match pod.phase {
            Phase::Pending | Phase::None => 0,
            Phase::Unknown => 1,
            _ => 2,
        };
        let crowd = pod
            .node
            .as_ref()
            .and_then(|n| world.per_node.get(n))
            .copied()
            .unwrap_or(0);
        let cost = deletion_cost(pod);
        (pod.node.is_some(), phase, pod.ready, cost, Reverse(crowd))
    };
    rank(a)
        .cmp(&rank(b))
        .then_with(|| match (a.ready, b.ready) {
            (true, true) => younger(a.ready_since, b.ready_since, a, b, world.now),
            _ => Ordering::Equal,
        })
        .then_with(|| b.restarts.cmp(&a.restarts))
        .then_with(|| b.restarts_sidecars.cmp(&a.restarts_sidecars))
        .then_with(|| younger(a.meta.created, b.meta.created, a, b, world.now))
        .then_with(|| a.meta.uid.cmp(&b.meta.uid))
}

fn deletion_cost(pod: &Pod) -> i32 {
    let text = pod.meta.annotations.get(DELETION_COST).unwrap_or_default();
    // As Kubernetes writes numbers: no plus sign, no leading zero.
    let digits = text.strip_prefix('-').unwrap_or(text);
    if text == "0" || digits.starts_with(|c| ('1'..='9').contains(&c)) {
        text.parse().unwrap_or(0)
    } else {
        0
    }
}

/// By age, whose logarithm is what counts so that not always the very newest goes; those of about
/// one age are told apart by their uids.
fn younger(
    a: Option<Timestamp>,
    b: Option<Timestamp>,
    pod: &Pod,
    other: &Pod,
    now: Timestamp,
) -> Ordering {
    if a == b {
        return Ordering::Equal;
    }
    let (Some(a), Some(b)) = (a, b) else {
        // One of no known age goes first.
        return a.is_some().cmp(&b.is_some());
    };
    let age = |t: Timestamp| {
        let nanoseconds = now.as_nanosecond().saturating_sub(t.as_nanosecond());
        u128::try_from(nanoseconds)
            .ok()
            .and_then(u128::checked_ilog2)
    };
    age(a)
        .cmp(&age(b))
        .then_with(|| pod.meta.uid.cmp(&other.meta.uid))
}

/// The status, given how the creations and deletions of this sync went: the message of the first
/// error, if there was one.
pub fn status(world: &World<'_>, failure: Option<&str>) -> ReplicaSetStatus {
    let mut status = ReplicaSetStatus {
        observed_generation: world.generation,
        conditions: world.status.conditions.clone(),
        terminating_replicas: Some(0),
        ..ReplicaSetStatus::default()
    };
    for pod in world.pods {
        if pod.terminating() && !pod.finished() {
            status.terminating_replicas = status.terminating_replicas.map(|n| n + 1);
        }
        if !pod.active() {
            continue;
        }
        status.replicas += 1;
        if world
            .template_labels
            .iter()
            .all(|(k, v)| pod.meta.labels.get(k) == Some(v))
        {
            status.fully_labeled_replicas += 1;
        }
        if pod.ready {
            status.ready_replicas += 1;
            if pod.available(world.min_ready_seconds, world.now) {
                status.available_replicas += 1;
            }
        }
    }
    let has_failure = status.conditions.iter().any(|c| c.kind == "ReplicaFailure");
    match failure {
        Some(message) if !has_failure => {
            let reason = if status.replicas < world.replicas {
                "FailedCreate"
            } else {
                "FailedDelete"
            };
            status.conditions.push(Condition {
                kind: "ReplicaFailure".into(),
                status: "True".into(),
                last_transition_time: Timestamp::from_second(world.now.as_second()).ok(),
                reason: reason.into(),
                message: message.into(),
                ..Condition::default()
            });
        }
        None if has_failure => status.conditions.retain(|c| c.kind != "ReplicaFailure"),
        _ => {}
    }
    status
}

fn soonest_available(world: &World<'_>) -> Option<Duration> {
    let min_ready = i64::from(world.min_ready_seconds);
    if min_ready <= 0 {
        return None;
    }
    world
        .pods
        .iter()
        .filter(|pod| pod.ready && pod.active())
        .filter_map(|pod| {
            let left = pod.ready_since?.as_second() + min_ready - world.now.as_second();
            u64::try_from(left).ok().filter(|left| *left > 0)
        })
        .min()
        .map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn pod(name: &str, node: Option<&str>, phase: &str, ready: bool, cost: i32) -> Arc<Pod> {
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {"name": name, "uid": name, "labels": {"a": "1"},
                    "annotations": {DELETION_COST: cost.to_string()}},
                "spec": {"nodeName": node},
                "status": {"phase": phase, "conditions": [{"type": "Ready",
                    "status": if ready { "True" } else { "False" },
                    "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
            }))
            .unwrap(),
        )
    }

    fn run(replicas: i32, pods: &[Arc<Pod>], failure: Option<&str>) -> (Plan, ReplicaSetStatus) {
        let mut per_node = FxHashMap::default();
        for node in pods.iter().filter_map(|p| p.node.clone()) {
            *per_node.entry(node).or_default() += 1;
        }
        let world = World {
            generation: 1,
            deleting: false,
            replicas,
            min_ready_seconds: 0,
            template_labels: &[("a", "1")].into_iter().collect(),
            status: &ReplicaSetStatus::default(),
            pods,
            per_node: &per_node,
            now: "2026-01-01T01:00:00Z".parse().unwrap(),
        };
        (plan(&world), status(&world, failure))
    }

    fn names(plan: &Plan) -> Vec<&str> {
        plan.delete.iter().map(|p| &*p.meta.name).collect()
    }

    #[rstest]
    #[case(3, 3, false)]
    #[case(500, 500, false)]
    #[case(501, 500, true)]
    fn creates_what_is_missing_up_to_a_burst(
        #[case] replicas: i32,
        #[case] create: usize,
        #[case] again: bool,
    ) {
        let (plan, _) = run(replicas, &[], None);
        assert_eq!((plan.create, plan.again), (create, again));
    }

    #[test]
    fn deletes_the_pods_that_are_missed_least() {
        let pods = [
            pod("ready", Some("n1"), "Running", true, 0),
            pod("cheap", Some("n2"), "Running", true, -5),
            pod("crowded", Some("n3"), "Running", true, 0),
            pod("crowding", Some("n3"), "Running", false, 0),
            pod("pending", Some("n4"), "Pending", false, 0),
            pod("unbound", None, "Pending", false, 0),
            pod("done", Some("n1"), "Succeeded", false, 0),
        ];
        let (plan, _) = run(1, &pods, None);
        assert_eq!(
            names(&plan),
            ["unbound", "pending", "crowding", "cheap", "crowded"]
        );
    }

    /// Ready pods of these changes; the one that is to go.
    #[rstest]
    // 16 s and 17 s lie to both sides of 2^34 ns, 12 s and 16 s do not.
    #[case::younger(json!({"ready": 17}), json!({"ready": 18}), "a")]
    #[case::by_uid_where_about_one_age(json!({"uid": "y", "ready": 20}), json!({"uid": "x", "ready": 18}), "b")]
    #[case::by_uid_before_restarts(json!({"uid": "y", "ready": 20, "restarts": 9}), json!({"uid": "x", "ready": 18}), "b")]
    #[case::more_restarts(json!({}), json!({"restarts": 1}), "b")]
    #[case::more_restarts_of_sidecars(json!({}), json!({"sidecar": 1}), "b")]
    #[case::created_later(json!({"created": 17}), json!({"created": 20}), "a")]
    #[case::cost(json!({"cost": "-1"}), json!({}), "a")]
    #[case::cost_with_a_plus_is_none(json!({"cost": "+1", "restarts": 1}), json!({}), "a")]
    #[case::cost_with_a_leading_zero_is_none(json!({"cost": "01", "restarts": 1}), json!({}), "a")]
    fn ready_pods_go_by(#[case] a: Value, #[case] b: Value, #[case] goes: &str) {
        let ago = |change: &Value, field: &str| {
            let seconds = change[field].as_i64().unwrap_or(3000);
            Timestamp::from_second(1_767_229_200 - seconds).unwrap()
        };
        let pod = |name: &str, change: &Value| -> Arc<Pod> {
            let value = json!({
                "metadata": {"name": name, "uid": change["uid"].as_str().unwrap_or(name),
                    "creationTimestamp": ago(change, "created"),
                    "annotations": {DELETION_COST: change["cost"].as_str().unwrap_or("0")}},
                "spec": {"nodeName": name, "initContainers": [{"name": "s", "restartPolicy": "Always"}]},
                "status": {"phase": "Running",
                    "initContainerStatuses": [{"name": "s", "restartCount": change["sidecar"].as_i64().unwrap_or(0)}],
                    "containerStatuses": [{"restartCount": change["restarts"].as_i64().unwrap_or(0)}],
                    "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": ago(change, "ready")}]},
            });
            Arc::new(serde_json::from_value(value).unwrap())
        };
        let both = [pod("a", &a), pod("b", &b)];
        assert_eq!(names(&run(1, &both, None).0), [goes]);
        let turned = [both[1].clone(), both[0].clone()];
        assert_eq!(names(&run(1, &turned, None).0), [goes]);
    }

    #[test]
    fn status_counts_and_tells_of_failures() {
        let mut going = (*pod("going", Some("n1"), "Running", true, 0)).clone();
        going.meta.deleted = Some(Timestamp::UNIX_EPOCH);
        let pods = [
            pod("ready", Some("n1"), "Running", true, 0),
            pod("pending", None, "Pending", false, 0),
            Arc::new(going),
        ];
        let (plan, status) = run(3, &pods, Some("exceeded quota"));
        assert_eq!(plan.create, 1);
        assert_eq!(
            (
                status.replicas,
                status.ready_replicas,
                status.available_replicas,
                status.fully_labeled_replicas
            ),
            (2, 1, 1, 2)
        );
        assert_eq!(status.terminating_replicas, Some(1));
        assert_eq!(status.conditions[0].reason, "FailedCreate");
    }
}
