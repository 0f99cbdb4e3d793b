//! Why a pod waits, as it is told to who asks.

use super::*;
use crate::core::object::{Node, PodGroup};
use rstest::rstest;
use serde_json::{Value, json};

/// Two nodes of 4 CPUs, and a group of three.
fn cluster() -> Cluster {
    let mut cluster = Cluster::new();
    for name in ["n0", "n1"] {
        let node: Node = serde_json::from_value(json!({"metadata": {"name": name},
            "status": {"allocatable": {"cpu": "4", "memory": "64Gi", "pods": "110"}}}))
        .unwrap();
        cluster.upsert_node(&node);
    }
    let group: PodGroup = serde_json::from_value(
        json!({"metadata": {"name": "ring", "namespace": "d"}, "spec": {"minMember": 3}}),
    )
    .unwrap();
    cluster.set_pod_group(&group);
    cluster.settle_rules();
    cluster
}

fn pod(name: &str, cpu: &str, over: &Value) -> Pod {
    let mut pod = json!({"metadata": {"name": name, "namespace": "d", "uid": name},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}});
    for (part, fields) in over.as_object().unwrap() {
        for (key, value) in fields.as_object().unwrap() {
            pod[part][key] = value.clone();
        }
    }
    serde_json::from_value(pod).unwrap()
}

/// What is special about a pod, why it is held, and what would help.
#[rstest]
#[case::nothing(json!({}), None, None)]
#[case::gates(json!({"spec": {"schedulingGates": [{"name": "a.io/x"}, {"name": "b"}]}}),
    Some("no scheduler may try it while it has scheduling gates: a.io/x, b"), Some("have the gates removed by who set them"))]
#[case::of_another_scheduler(json!({"spec": {"schedulerName": "other"}}),
    Some("scheduler other has to place it"), Some("leave out the pod's schedulerName"))]
#[case::named(json!({"status": {"nominatedNodeName": "n0"}}), Some("pods have to leave"), None)]
#[case::leaving(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}), Some("it is being deleted"), None)]
fn what_holds_a_pod_whatever_nodes_there_are(
    #[case] over: Value,
    #[case] reason: Option<&str>,
    #[case] change: Option<&str>,
) {
    let mut cluster = cluster();
    let pod = pod("p", "1", &over);
    let report = of_pod(&mut cluster, &pod, std::slice::from_ref(&pod), 5).unwrap();
    let held = report.held.as_ref();
    assert_eq!(held.is_some(), reason.is_some(), "{held:?}");
    if let (Some(held), Some(reason)) = (held, reason) {
        assert!(held.reason.contains(reason), "{held:?}");
        assert_eq!(held.change.is_some(), change.is_some());
        let told = held.change.as_deref().unwrap_or_default();
        assert!(told.contains(change.unwrap_or_default()), "{held:?}");
    }
    // Whatever holds it, it is told where it would go.
    assert_eq!((report.feasible, report.message), (2, None));
}

/// How much the members of a group ask for that are there; how many would take the next, why it is held, and what helps.
#[rstest]
#[case::too_few(&["1", "1"], 2, Some("pod group ring waits for members: 2 of at least 3 are there"),
    Some("create 1 more pods of group ring, or lower its minMember to 2"))]
#[case::together(&["1", "1", "1"], 2, None, None)]
#[case::too_large_together(&["3", "3", "3"], 0,
    Some("its pod group needs 3 members placed together, and 2 fit: what follows is of the next"), None)]
fn why_a_group_waits(
    #[case] sizes: &[&str],
    #[case] feasible: usize,
    #[case] reason: Option<&str>,
    #[case] change: Option<&str>,
) {
    let mut cluster = cluster();
    let label = json!({"metadata": {"labels": {crate::core::gang::POD_GROUP: "ring"}}});
    let mut waiting: Vec<Pod> = (0..)
        .zip(sizes)
        .map(|(i, cpu)| pod(&format!("m{i}"), cpu, &label))
        .collect();
    // Who may not be tried yet does not count.
    let mut gated = pod("gated", "1", &label);
    gated.spec.scheduling_gates.push(Default::default());
    waiting.push(gated);
    let rooms = cluster.nodes.rooms.clone();
    let report = of_pod(&mut cluster, &waiting[0].clone(), &waiting, 5).unwrap();
    assert_eq!(cluster.nodes.rooms, rooms, "it is only tried");
    let held = report.held.as_ref();
    assert_eq!(held.map(|h| h.reason.as_str()), reason);
    assert_eq!(held.and_then(|h| h.change.as_deref()), change);
    assert_eq!(report.feasible, feasible);
    if feasible == 0 {
        let first = report.changes.first().map(|c| (c.change.as_str(), c.nodes));
        let want = "request 2 less cpu (1 instead of 3), or free as much";
        assert_eq!(first, Some((want, 2)));
    }
}

/// Room that is held for others is named where it is in the way, and is there for whom it is held.
#[test]
fn reservations_are_told_of() {
    let mut cluster = cluster();
    let owners = serde_json::from_value(json!({"matchLabels": {"app": "web"}})).unwrap();
    let template = pod("t", "3", &json!({}));
    cluster.set_reservation("d/surge", template, &owners, 2, &[]);
    assert!(cluster.place_reservations());
    let other = pod("p", "2", &json!({}));
    let report = of_pod(&mut cluster, &other, &[], 5).unwrap();
    let change = &report.changes[0].change;
    assert!(
        change.ends_with("(reservation d/surge holds room there)"),
        "{change}"
    );
    let owner = pod("w", "2", &json!({"metadata": {"labels": {"app": "web"}}}));
    let rooms = cluster.nodes.rooms.clone();
    let report = of_pod(&mut cluster, &owner, &[], 5).unwrap();
    assert_eq!((report.feasible, report.message), (1, None));
    assert_eq!(cluster.nodes.rooms, rooms, "it is only tried");
}
