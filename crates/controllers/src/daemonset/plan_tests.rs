//! The planner by tables of nodes and pods.

use std::sync::Arc;

use jiff::Timestamp;
use rstest::rstest;
use serde_json::{Value, json};

use super::plan::{Plan, World, plan};
use crate::model::Pod;
use crate::model::node::Node;
use crate::model::workload::DaemonSet;

fn now() -> Timestamp {
    "2026-01-01T01:00:00Z".parse().unwrap()
}

/// A node; with `!` one that takes no new pods.
fn node(text: &str) -> Arc<Node> {
    let name = text.trim_start_matches('!');
    let taints = (name != text).then(|| json!([{"key": "zone", "effect": "NoSchedule"}]));
    let node = json!({"metadata": {"name": name}, "spec": {"taints": taints}});
    Arc::new(serde_json::from_value(node).unwrap())
}

/// `name@node:hash` and how it is: `ready`, `pending`, `failed`, `leaving`.
fn pod(text: &str) -> Arc<Pod> {
    let (name, rest) = text.split_once('@').unwrap();
    let (node, rest) = rest.split_once(':').unwrap();
    let (hash, state) = rest.split_once(' ').unwrap();
    let deleted = (state == "leaving").then_some("2026-01-01T00:59:00Z");
    Arc::new(
        serde_json::from_value(json!({
            "metadata": {"name": name, "uid": name, "labels": {"controller-revision-hash": hash},
                "creationTimestamp": "2026-01-01T00:00:00Z", "deletionTimestamp": deleted},
            "spec": {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}]}}}},
            "status": {"phase": match state { "failed" => "Failed", "pending" => "Pending", _ => "Running" },
                "conditions": [{"type": "Ready", "status": if state == "ready" { "True" } else { "False" },
                    "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
        }))
        .unwrap(),
    )
}

fn run(strategy: Value, nodes: &[&str], pods: &[&str]) -> Plan {
    let set: DaemonSet = serde_json::from_value(json!({
        "metadata": {"name": "d", "namespace": "n", "uid": "d", "generation": 2},
        "spec": {"updateStrategy": strategy, "template": {"spec": {}}}}))
    .unwrap();
    let nodes: Vec<_> = nodes.iter().map(|n| node(n)).collect();
    let pods: Vec<_> = pods.iter().map(|p| pod(p)).collect();
    plan(&World {
        set: &set,
        nodes: &nodes,
        pods: &pods,
        hash: "new",
        now: now(),
    })
}

fn counted(surge: i32, unavailable: i32) -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}})
}

fn rolling(surge: &str, unavailable: &str) -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}})
}

#[rstest]
// Every node gets one, and only one.
#[case(rolling("0%", "50%"), &["a", "b"], &[], &["a", "b"], &[])]
#[case(rolling("0%", "50%"), &["a"], &["1@a:new ready", "2@a:new ready"], &[], &["2"])]
// What has ended makes room; what is leaving is waited for.
#[case(rolling("0%", "50%"), &["a"], &["1@a:new failed"], &[], &["1"])]
#[case(rolling("0%", "50%"), &["a"], &["1@a:new leaving"], &[], &[])]
// Nodes that are no more.
#[case(rolling("0%", "50%"), &["a"], &["1@a:new ready", "2@gone:new pending"], &[], &["2"])]
// Updates: half of four may be away.
#[case(rolling("0%", "50%"), &["a", "b", "c", "d"], &["1@a:old ready", "2@b:old ready", "3@c:old ready", "4@d:old ready"], &[], &["1", "2"])]
#[case(rolling("0%", "50%"), &["a", "b", "c", "d"], &["1@a:new pending", "2@b:old ready", "3@c:old ready", "4@d:old ready"], &[], &["2"])]
#[case(rolling("0%", "50%"), &["a", "b", "c", "d"], &["1@a:new pending", "2@b:new pending", "3@c:old ready", "4@d:old ready"], &[], &[])]
// One that is away already costs nothing to replace.
#[case(rolling("0%", "25%"), &["a", "b", "c", "d"], &["1@a:old pending", "2@b:old ready", "3@c:old ready", "4@d:old ready"], &[], &["1", "2"])]
// Surge: the new one comes first, the old one goes when the new one is available.
#[case(rolling("50%", "0%"), &["a", "b"], &["1@a:old ready", "2@b:old ready"], &["a"], &[])]
#[case(rolling("50%", "0%"), &["a", "b"], &["1@a:old ready", "9@a:new pending", "2@b:old ready"], &[], &[])]
#[case(rolling("50%", "0%"), &["a", "b"], &["1@a:old ready", "9@a:new ready", "2@b:old ready"], &[], &["1"])]
// Nodes that are tainted (`!`) want no pods any more; with surge theirs stay until others serve.
#[case(counted(1, 0), &["!a", "b"], &["1@a:old ready", "2@b:old ready"], &["b"], &["1"])]
#[case(counted(1, 0), &["!a", "b", "c"], &["1@a:old ready", "2@b:old ready", "3@c:new pending"], &["b"], &[])]
#[case(counted(1, 0), &["!a", "b"], &["1@a:old pending", "2@b:new ready"], &[], &["1"])]
#[case(counted(1, 0), &["!a", "!b"], &["1@a:old ready", "2@b:old ready"], &[], &["1", "2"])]
#[case(counted(0, 1), &["!a", "b"], &["1@a:old ready", "2@b:new ready"], &[], &["1"])]
#[case(json!({"type": "OnDelete"}), &["a"], &["1@a:old ready"], &[], &[])]
fn steps(
    #[case] strategy: Value,
    #[case] nodes: &[&str],
    #[case] pods: &[&str],
    #[case] create: &[&str],
    #[case] delete: &[&str],
) {
    let plan = run(strategy, nodes, pods);
    let created: Vec<&str> = plan.create.iter().map(|n| &**n).collect();
    let deleted: Vec<&str> = plan.delete.iter().map(|p| &*p.meta.name).collect();
    assert_eq!((created.as_slice(), deleted.as_slice()), (create, delete));
}

#[test]
fn the_status_counts_nodes() {
    let plan = run(
        rolling("0%", "1%"),
        &["a", "b", "c", "d"],
        &["1@a:new ready", "2@b:old ready", "3@c:old pending"],
    );
    let status = plan.status;
    assert_eq!(
        (
            status.desired_number_scheduled,
            status.current_number_scheduled,
            status.updated_number_scheduled,
            status.number_ready,
            status.number_available,
            status.number_unavailable,
            status.number_misscheduled,
            status.observed_generation,
        ),
        (4, 3, 1, 2, 2, 2, 0, 2)
    );
}

#[test]
fn a_node_is_updated_once_its_old_pod_is_gone() {
    let updated = |pods: &[&str]| {
        let plan = run(rolling("50%", "0%"), &["a"], pods);
        plan.status.updated_number_scheduled
    };
    assert_eq!(updated(&["1@a:old ready", "9@a:new pending"]), 0);
    assert_eq!(updated(&["9@a:new ready"]), 1);
}

#[test]
fn of_two_pods_the_one_on_the_node_stays() {
    let set: DaemonSet = serde_json::from_value(json!({
        "metadata": {"name": "d", "namespace": "n", "uid": "d"},
        "spec": {"updateStrategy": rolling("0%", "50%"), "template": {"spec": {}}}}))
    .unwrap();
    let mut bound = (*pod("2@a:new ready")).clone();
    bound.node = Some("a".into());
    let plan = plan(&World {
        set: &set,
        nodes: &[node("a")],
        pods: &[pod("1@a:new pending"), Arc::new(bound)],
        hash: "new",
        now: now(),
    });
    let deleted: Vec<&str> = plan.delete.iter().map(|p| &*p.meta.name).collect();
    assert_eq!(deleted, ["1"]);
}
